//! `verifier ca rotate-jwt-key`, and the keys of JWT-SVIDs in `ca show`.

use serde_json::{Value, json};

use super::{Done, Failure, Output, RELOAD, rotated, time};
use crate::{
    ca::RotationReport,
    config::Config,
    jwt_key::{JwtKeyError, KEPT, KeyPhase, ListedKey, lead, rotate},
};

const WHAT: &str = "JWT-SVIDs";

pub(super) fn rotate_key(output: Output, config: &Config, at: u64, at_once: bool) -> Done {
    let now_unix_s = i64::try_from(at).unwrap_or(i64::MAX);
    let rotation =
        rotate(&config.state_dir, now_unix_s, at_once).map_err(|error| match &error {
            JwtKeyError::UnderWay { id, signs_from_unix_s } => {
                let state = match signs_from_unix_s {
                    Some(from) => format!("is published and signs from {}", time(*from)),
                    None => format!("is not published yet: {RELOAD}"),
                };
                Failure::refused(format!("a rotation is under way: the key {id} {state}"))
                    .with_help("wait for it; if the keys are compromised, --now replaces them all")
            }
            _ => Failure::of(&error),
        })?;
    let minutes = |seconds: u64| seconds.div_ceil(60);
    let next = if at_once {
        vec![
            format!("{RELOAD}: until then the former key signs and is trusted"),
            "relying parties trust the former key until they fetch the bundle again: tell those that do so seldom".to_owned(),
            "put no backup of before in place: it has the former key".to_owned(),
        ]
    } else {
        vec![
            format!(
                "{RELOAD}: it publishes the new key, and signs with it {} minutes later",
                minutes(lead(config.jobs.check_every).as_secs())
            ),
            format!(
                "the former key leaves the bundle by itself, {} minutes after that",
                minutes(KEPT.as_secs())
            ),
        ]
    };
    let report = RotationReport { former: rotation.former, current: rotation.current, next };
    rotated(output, WHAT, &report)
}

pub(super) fn as_json(key: &ListedKey) -> Value {
    let (state, time_name, unix_s) = match key.phase {
        KeyPhase::Unpublished => ("unpublished", "signs_from_unix_s", None),
        KeyPhase::Published { signs_from_unix_s } => {
            ("published", "signs_from_unix_s", Some(signs_from_unix_s))
        }
        KeyPhase::Signing { since_unix_s } => ("signing", "since_unix_s", since_unix_s),
        KeyPhase::Former { ends_unix_s } => ("former", "ends_unix_s", Some(ends_unix_s)),
    };
    json!({ "kid": key.id, "state": state, time_name: unix_s })
}

/// In the columns of certificates.
pub(super) fn as_row(key: &ListedKey) -> Vec<String> {
    let (what, about, ends) = match key.phase {
        KeyPhase::Unpublished => ("unpublished", "reload publishes it".to_owned(), None),
        KeyPhase::Published { signs_from_unix_s } => {
            ("published", format!("signs from {}", time(signs_from_unix_s)), None)
        }
        KeyPhase::Signing { since_unix_s: Some(since) } => {
            ("signing", format!("since {}", time(since)), None)
        }
        KeyPhase::Signing { since_unix_s: None } => ("signing", "-".to_owned(), None),
        KeyPhase::Former { ends_unix_s } => {
            ("former", "verifies tokens that live".to_owned(), Some(ends_unix_s))
        }
    };
    let ends = ends.map_or_else(|| "-".to_owned(), time);
    vec![format!("{WHAT}, {what}"), about, key.id.clone(), ends]
}
