//! A verifier that is killed while it writes.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::{testing::*, *};

/// Tells the child, which is this test program again, where to write.
const FOLDER_VARIABLE: &str = "ASSAY_TEST_CRASH_FOLDER";

/// The child: writes until it is killed, and names on its output what the store said is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let store = Store::open(StoreOptions::new(folder), NOW).await.expect("open");
    let round = store.chain_heads().await.expect("heads").first().map_or(0, |head| head.seq);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0_u64.. {
                let id = format!("d-{round}-{writer}-{number}");
                let mut appraisal = appraisal(&id, "n1");
                appraisal.decision.case = vec![writer; if number % 8 == 0 { 40_000 } else { 4096 }];
                appraisal.certificate = Some(intent(&id, "n1"));
                store.record(appraisal).await.expect("record");
                println!("durable {id}");
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

#[test]
fn after_a_kill_everything_acknowledged_is_there_and_nothing_by_halves() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (folder, store) = runtime.block_on(store());
    runtime.block_on(store.close()).expect("close");
    drop(store);
    let state = folder.path().join("state");
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "store::crash_tests::child_writes_until_killed", "--nocapture"])
            .env(FOLDER_VARIABLE, &state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut durable = HashSet::new();
        let wanted = 150 + round * 61;
        while durable.len() < wanted {
            let line = lines.next().expect("the child goes on").expect("text");
            if let Some((_, id)) = line.split_once("durable ") {
                durable.insert(id.to_owned());
            }
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("ended");
        // What it still wrote to the pipe before it died; the last line may be cut.
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        durable.extend(
            rest.iter()
                .take(whole)
                .filter_map(|line| line.strip_prefix("durable "))
                .map(Into::into),
        );

        runtime.block_on(async {
            let store = Store::open(StoreOptions::new(&state), NOW).await.expect("open");
            let report = store.verify_chain(|_, _| {}).await.expect("walk");
            assert_eq!(report.broken, None);
            let filter = DecisionFilter { limit: 10_000, ..DecisionFilter::default() };
            let found = store.decisions(&filter).await.expect("list");
            let ids: HashSet<_> = found.iter().map(|found| found.decision.id.clone()).collect();
            let lost: Vec<_> = durable.difference(&ids).collect();
            assert!(lost.is_empty(), "lost {lost:?}");
            // A node, and for each decision two entries and a certificate.
            assert_eq!(report.entries, 1 + 2 * ids.len() as u64);
            for id in &ids {
                assert!(store.verdict(id).await.expect("read").is_some(), "{id}");
                assert!(store.case(id).await.expect("read").is_some(), "{id}");
                assert!(store.certificate(id).await.expect("read").is_some(), "{id}");
            }
            store.close().await.expect("close");
        });
    }
}
