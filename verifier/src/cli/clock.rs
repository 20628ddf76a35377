//! `verifier audit accept-clock`: going on after the clock was far ahead.

use serde_json::json;

use super::{
    Done, Failure, Global, block_on, decisions::open_read_only, local_actor, now, output::time,
};
use crate::{clock::SystemClock, run::open_store, store::By};

/// Says what would be accepted, or accepts it.
pub(super) fn run(global: &Global, recorded_unix_s: Option<i64>, reason: Option<&str>) -> Done {
    match (recorded_unix_s, reason.map(str::trim).filter(|reason| !reason.is_empty())) {
        (Some(recorded), Some(reason)) => accept(global, recorded, reason),
        (Some(_), None) => Err(Failure::usage("--reason is needed: it is recorded")),
        (None, _) => show(global),
    }
}

fn show(global: &Global) -> Done {
    let output = global.output();
    block_on(async {
        let store = open_read_only(global).await?;
        let last = store.last_decided().await;
        store.close().await?;
        let (last, now) = (last?, now());
        if output.is_json() {
            output.json(&json!({ "now_unix_s": now, "last_decision_unix_s": last }))?;
        } else {
            output.line(format!("the clock shows         {now} ({})", time(now)))?;
            output.line(format!("the last decision is of {last} ({})", time(last)))?;
        }
        if now >= last {
            return Ok(());
        }
        Err(Failure::refused("the clock stands before the last decision").with_help(format!(
            "set the clock right; if it is right now, stop the verifier and run: verifier audit \
             accept-clock --recorded {last} --reason '…'"
        )))
    })
}

fn accept(global: &Global, recorded_unix_s: i64, reason: &str) -> Done {
    let config = global.config()?;
    let output = global.output();
    block_on(async {
        let store = open_store(&config, &SystemClock)
            .await
            .map_err(|error| Failure::of(&error).with_help("stop the verifier first"))?;
        let at = now();
        let accepted =
            store.accept_clock(recorded_unix_s, reason, By::new(local_actor(), at)).await;
        store.close().await?;
        accepted?;
        output.either(
            &json!({ "accepted_unix_s": at, "last_decision_unix_s": recorded_unix_s }),
            format!("decisions up to {} no longer hold the service back", time(recorded_unix_s)),
        )
    })
}
