//! What the gate refuses by itself, each with its code; a verifier is not there to be asked.

use proto::binding::VerifierId;
use workload::ProcessKey;

use super::*;
use crate::{
    jobs::{Counter, desk},
    trust::{Learned, Trust},
};

const LISTED: u32 = 1001;
const OTHER: u32 = 1002;
const CLAIMS: &[u8] = b"{\"job\":\"build\",\"run_id\":\"42\",\"system\":\"generic\"}";

fn gate_with(change: impl FnOnce(&mut JobSettings)) -> (Gate, Counter) {
    let mut settings = JobSettings {
        directory: "/nonexistent".into(),
        users: vec![LISTED],
        systems: Vec::new(),
        max_jobs: 2,
        start_within: Duration::from_secs(60),
        detached_callers: false,
        silence: Duration::from_secs(60),
        on_end: Vec::new(),
        on_refused: Vec::new(),
    };
    change(&mut settings);
    let (desk, counter) = desk();
    let (_, bundle) = watch::channel(Learned::default());
    let (url, trust) = ("https://127.0.0.1:1".to_owned(), Trust::Pin([0; 32]));
    let link = Link::new(url, trust, bundle);
    let gate = Gate::new(settings, desk, link, Registry::new(), String::new());
    (gate, counter)
}

fn process(uid: u32, pids: &[u32]) -> Observation {
    let ancestry = pids.iter().map(|pid| ProcessKey { pid: *pid, start_time: 1 }).collect();
    Observation { uid, gid: uid, cgroup: None, ancestry }
}

fn request() -> pb::StartRequest {
    pb::StartRequest {
        claims: CLAIMS.to_vec(),
        processes: pb::JobProcesses::Parent.into(),
        ..Default::default()
    }
}

async fn code(gate: &Gate, request: pb::StartRequest, caller: &Observation) -> String {
    let (events, _stream) = mpsc::channel(EVENTS);
    let Refusal(refused) = gate.start(request, caller, &events).await.expect_err("refused");
    refused.code
}

/// A job of this gate that runs, with a key of its own.
pub(super) fn job(gate: &Gate, uid: u32, processes: Processes) -> Running {
    let key = JobKeyPair::generate().expect("a key");
    let line = Line::new(gate.link.clone(), key, VerifierId::new([0; 32]), "p".into(), vec![1]);
    let (stop, _) = watch::channel(None);
    let (line, tool_events) = (Arc::new(line), 0);
    let origin = Origin::of(&processes, &process(uid, &[]));
    Running { uid, processes, origin, holder: None, line, tool_events, stop }
}

fn running(gate: &Gate, uid: u32, processes: Processes) {
    gate.jobs().running.insert(format!("permit of {uid}"), job(gate, uid, processes));
}

#[tokio::test]
async fn who_may_ask_is_settled_before_anything_is_done() {
    let (gate, counter) =
        gate_with(|settings| settings.systems = vec![proto::job::CiSystem::GitHub]);
    let caller = process(LISTED, &[7, 6, 1]);
    let stranger = process(OTHER, &[9, 8, 1]);
    assert_eq!(code(&gate, request(), &stranger).await, "GATE_USER_NOT_ALLOWED");
    assert_eq!(code(&gate, request(), &caller).await, "GATE_SYSTEM_NOT_ALLOWED");
    let claims = pb::StartRequest { claims: b"{}".to_vec(), ..request() };
    assert_eq!(code(&gate, claims, &caller).await, "JOB_CLAIMS_INVALID");
    let many = pb::StartRequest { audiences: vec!["a".to_owned(); 9], ..request() };
    assert_eq!(code(&gate, many, &caller).await, "EVIDENCE_LIMIT_EXCEEDED");
    for audiences in [vec!["a".to_owned(); 2], vec!["a\nb".to_owned()]] {
        let twice = pb::StartRequest { audiences, ..request() };
        assert_eq!(code(&gate, twice, &caller).await, "EVIDENCE_FIELD_INVALID");
    }
    let deep: Vec<u32> = (2..).take(MAX_ANCESTORS).collect();
    let deep = process(LISTED, &deep);
    assert_eq!(code(&gate, request(), &deep).await, "GATE_PROCESSES_UNKNOWN");
    let waiting = pb::StartRequest { permit_id: "of somebody".to_owned(), ..request() };
    assert_eq!(code(&gate, waiting, &caller).await, "PERMIT_UNKNOWN");
    // None of these reached the daemon.
    assert!(counter.0.are_none());
}

#[tokio::test]
async fn processes_of_a_job_start_none_and_users_name_only_their_own() {
    let (gate, counter) = gate_with(|_| ());
    drop(counter);
    running(&gate, LISTED, Processes::Below(ProcessKey { pid: 6, start_time: 1 }));
    let inside = process(LISTED, &[8, 7, 6, 1]);
    assert_eq!(code(&gate, request(), &inside).await, "GATE_CALLER_IS_A_JOB");
    // Not the same process: its number was given again. Only with a parent that was there before is that another job's.
    let again = ProcessKey { pid: 6, start_time: 2 };
    let lost = Observation { ancestry: vec![again], ..process(LISTED, &[]) };
    assert_eq!(code(&gate, request(), &lost).await, "GATE_CALLER_IS_A_JOB");
    let (lenient, counter) = gate_with(|settings| settings.detached_callers = true);
    drop(counter);
    running(&lenient, LISTED, Processes::Below(ProcessKey { pid: 6, start_time: 1 }));
    assert_eq!(code(&lenient, request(), &lost).await, "GATE_STOPPING");
    assert_eq!(code(&lenient, request(), &inside).await, "GATE_CALLER_IS_A_JOB");
    let agent = ProcessKey { pid: 5, start_time: 0 };
    let outside = Observation { ancestry: vec![again, agent], ..process(LISTED, &[]) };
    assert_eq!(code(&gate, request(), &outside).await, "GATE_STOPPING");
    // One that is ending keeps nobody from the next.
    for job in gate.jobs().running.values() {
        job.stop.send_replace(Some(End::new("GATE_HOLDER_GONE", "gone")));
    }
    assert_eq!(code(&gate, request(), &lost).await, "GATE_STOPPING");
    assert_eq!(code(&gate, request(), &inside).await, "GATE_CALLER_IS_A_JOB");
    // A user who names a process that others run below says nothing of these.
    let root = process(0, &[8, 7, 6, 1]);
    assert_eq!(code(&gate, request(), &root).await, "GATE_STOPPING");
}

#[tokio::test]
async fn a_worker_that_is_full_late_or_stopping_says_so() {
    let caller = process(LISTED, &[7, 6, 1]);
    let (full, _counter) = gate_with(|settings| settings.max_jobs = 0);
    assert_eq!(code(&full, request(), &caller).await, "GATE_BUSY");
    let (late, _counter) = gate_with(|settings| settings.start_within = Duration::ZERO);
    assert_eq!(code(&late, request(), &caller).await, "GATE_LATE");
    let (stopping, counter) = gate_with(|_| ());
    drop(counter);
    assert_eq!(code(&stopping, request(), &caller).await, "GATE_STOPPING");
    // The place of a job that did not start is free again.
    assert_eq!(stopping.slots.available_permits(), 2);
}

/// A permit of this user that waits, by the identifier `p`.
fn waits(gate: &Gate) -> pb::StartRequest {
    let slot = gate.place(LISTED).expect("a place");
    let permit = Deferred {
        uid: LISTED,
        line: job(gate, LISTED, Processes::User(LISTED)).line,
        tool_events: 0,
        tools: 0,
        decision_id: String::new(),
        claims: CLAIMS.to_vec(),
        redeem_within: Duration::from_secs(60),
        slot,
    };
    gate.jobs().waiting.insert("p".to_owned(), permit);
    pb::StartRequest { permit_id: "p".to_owned(), ..request() }
}

#[tokio::test(start_paused = true)]
async fn a_redemption_that_does_not_get_its_turn_or_whose_caller_is_gone_leaves_no_place_taken() {
    let (gate, _counter) = gate_with(|_| ());
    let caller = process(LISTED, &[7, 6, 1]);
    let asked = waits(&gate);
    let turns = gate.link.all_turns_to_start().await;
    let start = tokio::time::Instant::now();
    assert_eq!(code(&gate, asked, &caller).await, "GATE_LATE");
    // Before the caller gives up, the farewell to the verifier included.
    assert!((80..90).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(gate.slots.available_permits(), 2);
    let asked = waits(&gate);
    gate.used().clear();
    let (events, stream) = mpsc::channel(EVENTS);
    let (asking, start) = (gate.clone(), tokio::time::Instant::now());
    let gone = tokio::spawn(async move { asking.start(asked, &caller, &events).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.slots.available_permits(), 1);
    drop(stream);
    gone.await.expect("no panic").expect("nobody is refused");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(gate.slots.available_permits(), 2);
    assert!(gate.jobs().running.is_empty());
    drop(turns);
}

#[tokio::test]
async fn a_user_leaves_the_others_their_share_and_may_have_all_where_it_is_alone() {
    let (shared, _counter) = gate_with(|settings| {
        settings.users = vec![LISTED, OTHER];
        settings.max_jobs = 8;
    });
    let mut taken: Vec<_> = std::iter::from_fn(|| shared.place(LISTED).ok()).collect();
    assert_eq!(taken.len(), 6);
    let (first, root) = (process(LISTED, &[7, 6, 1]), process(0, &[9, 8, 1]));
    for refused in [&first, &root] {
        assert_eq!(code(&shared, request(), refused).await, "GATE_USER_BUSY");
    }
    taken.extend((0..2).map(|_| shared.place(OTHER).expect("kept")));
    for refused in [&first, &root, &process(OTHER, &[7, 6, 1])] {
        assert_eq!(code(&shared, request(), refused).await, "GATE_BUSY");
    }
    drop(taken);
    shared.place(LISTED).expect("given back");
    let (alone, _counter) = gate_with(|settings| settings.max_jobs = 8);
    let all: Vec<_> = std::iter::from_fn(|| alone.place(LISTED).ok()).collect();
    assert_eq!(all.len(), 8);
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_place_back_at_once() {
    let (gate, _counter) = gate_with(|_| ());
    let (events, stream) = mpsc::channel(EVENTS);
    drop(stream);
    let caller = process(LISTED, &[7, 6, 1]);
    gate.start(request(), &caller, &events).await.expect("nobody to refuse");
    assert_eq!(gate.slots.available_permits(), 2);
}

#[tokio::test]
async fn one_users_refusals_keep_nothing_from_being_done_about_anothers() {
    let folder = tempfile::tempdir().expect("a folder");
    let note = folder.path().join("note");
    let (gate, _counter) = gate_with(|settings| {
        let script = format!("echo $ASSAY_UID >>{}", note.display());
        settings.on_refused = ["/bin/sh", "-c", &script].map(str::to_owned).into();
    });
    let refused = pb::JobRefused { code: "GATE_LATE".to_owned(), ..Default::default() };
    gate.acting.lock().expect("whole").insert(LISTED);
    gate.acts_on(&refused, &process(LISTED, &[7, 6, 1])).await;
    gate.acts_on(&refused, &process(OTHER, &[7, 6, 1])).await;
    let read = || std::fs::read_to_string(&note).unwrap_or_default();
    assert_eq!(read(), format!("{OTHER}\n"));
    gate.acting.lock().expect("whole").clear();
    gate.acts_on(&refused, &process(LISTED, &[7, 6, 1])).await;
    assert_eq!(read(), format!("{OTHER}\n{LISTED}\n"));
    assert!(gate.acting.lock().expect("whole").is_empty());
}

#[test]
fn processes_that_cannot_be_told_are_none() {
    let refused = |wanted, caller: &Observation| {
        let Refusal(refused) = Processes::of(wanted, caller).expect_err("refused");
        assert_eq!(refused.code, "GATE_PROCESSES_UNKNOWN");
    };
    use pb::JobProcesses::{Caller, Cgroup, Parent, Unspecified, User};
    let caller = process(LISTED, &[7, 6, 1]);
    assert!(Processes::of(Parent, &caller).is_ok());
    refused(Parent, &process(LISTED, &[7, 1]));
    refused(Parent, &process(LISTED, &[7]));
    assert!(Processes::of(Caller, &caller).is_ok());
    refused(Caller, &process(LISTED, &[]));
    let grouped = Observation { cgroup: Some("/jobs/7".to_owned()), ..caller.clone() };
    assert!(Processes::of(Cgroup, &grouped).is_ok());
    refused(Cgroup, &caller);
    refused(Cgroup, &Observation { cgroup: Some("/".to_owned()), ..caller.clone() });
    assert!(Processes::of(User, &caller).is_ok());
    refused(Unspecified, &caller);
}
