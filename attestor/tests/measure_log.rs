//! The tool log against a simulated PCR: every crash point, every disagreement.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail")]

use std::{convert::Infallible, fs, path::Path};

use attestor::measure::{
    Measured, Problem, ProblemKind,
    log::{LogError, LogState, ToolLog},
};
use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    tool_log::{EntryKind, FileRole, ToolEntry, ToolMeasurement, ToolState},
};

/// A PCR in two banks that can lose power.
#[derive(Clone)]
struct Pcr(Vec<Digest>);

impl Pcr {
    fn new() -> Self {
        Self(vec![Digest::zero(HashAlg::Sha256), Digest::zero(HashAlg::Sha384)])
    }

    fn extend(&mut self, digests: &[Digest]) {
        assert_eq!(digests.len(), self.0.len(), "every bank");
        for (value, digest) in self.0.iter_mut().zip(digests) {
            *value = value.extended(digest);
        }
    }
}

fn index() -> PcrIndex {
    PcrIndex::new(14).unwrap()
}

fn open(directory: &Path) -> ToolLog {
    ToolLog::open(directory, index(), &Pcr::new().0).unwrap()
}

fn tool(name: &str, byte: u8) -> ToolMeasurement {
    let kind = EntryKind::File {
        digest: HashAlg::Sha256.hash(&[&[byte]]),
        size_bytes: 1,
        role: FileRole::Listed,
    };
    let entries = vec![ToolEntry { path: b"/t".to_vec(), kind }];
    ToolMeasurement::new(name, ToolState::Present, None, None, entries).unwrap()
}

fn reconcile(log: &mut ToolLog, pcr: &mut Pcr) -> Result<LogState, LogError> {
    let now = pcr.0.clone();
    log.reconcile(&now, |digests| {
        pcr.extend(digests);
        Ok::<_, Infallible>(())
    })
}

/// Records, and loses power after `extends` extends.
fn record(log: &mut ToolLog, pcr: &mut Pcr, tools: &[ToolMeasurement], extends: usize) {
    let mut left = extends;
    let result = log.record(tools, |digests| {
        left = left.checked_sub(1).ok_or("power lost")?;
        pcr.extend(digests);
        Ok::<_, &str>(())
    });
    assert_eq!(result.is_ok(), extends >= tools.len());
}

#[test]
fn a_restart_finds_log_and_pcr_in_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    {
        let mut log = open(dir.path());
        assert!(matches!(
            log.record(&[tool("a", 1)], |_| Ok::<_, Infallible>(())),
            Err(LogError::NotReconciled)
        ));
        assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), LogState::InSync);
        record(&mut log, &mut pcr, &[tool("a", 1), tool("b", 2)], 2);
        assert_eq!(log.state().pcr_values, pcr.0);
    }
    let mut log = open(dir.path());
    assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), LogState::InSync);
    assert_eq!(log.state().events, 2);
    record(&mut log, &mut pcr, &[tool("a", 3)], 1);
    assert_eq!(log.state().pcr_values, pcr.0);
    assert_eq!(log.read_from(0).unwrap().len() as u64, log.state().bytes);
}

#[test]
fn power_lost_between_extends_is_healed_by_extending_the_rest() {
    for extended in 1..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut pcr = Pcr::new();
        let tools = [tool("a", 1), tool("b", 2), tool("c", 3)];
        {
            let mut log = open(dir.path());
            reconcile(&mut log, &mut pcr).unwrap();
            record(&mut log, &mut pcr, &tools, extended);
            let again = log.record(&[tool("d", 4)], |_| Ok::<_, Infallible>(()));
            assert!(matches!(again, Err(LogError::NotReconciled)), "not before it is healed");
        }
        let mut log = open(dir.path());
        let behind = LogState::AheadBy { events: 3 - extended as u64 };
        assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), behind);
        assert_eq!(log.state().pcr_values, pcr.0);
        assert_eq!(log.compare(&pcr.0).unwrap(), LogState::InSync);
    }
}

#[test]
fn power_lost_before_the_first_extend_begins_a_new_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    {
        let mut log = open(dir.path());
        reconcile(&mut log, &mut pcr).unwrap();
        record(&mut log, &mut pcr, &[tool("a", 1)], 0);
    }
    let mut log = open(dir.path());
    assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), LogState::NewBoot);
    assert_eq!(log.state().events, 0);
    record(&mut log, &mut pcr, &[tool("a", 1)], 1);
    assert_eq!(log.state().pcr_values, pcr.0);
}

#[test]
fn a_new_boot_archives_the_log_and_keeps_five() {
    let dir = tempfile::tempdir().unwrap();
    for boot in 0..8 {
        let mut pcr = Pcr::new();
        let mut log = open(dir.path());
        let expected = if boot == 0 { LogState::InSync } else { LogState::NewBoot };
        assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), expected);
        record(&mut log, &mut pcr, &[tool("a", boot)], 1);
    }
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let archived = (1..=5).map(|number| format!("tool.log.{number}"));
    let expected =
        ["tool.log".to_owned()].into_iter().chain(archived).chain(["tool.log.lock".to_owned()]);
    assert_eq!(names, expected.collect::<Vec<_>>());
}

#[test]
fn a_torn_write_is_cut_wherever_it_tore() {
    let reference = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let mut log = open(reference.path());
    reconcile(&mut log, &mut pcr).unwrap();
    record(&mut log, &mut pcr, &[tool("a", 1)], 1);
    let first = log.read_from(0).unwrap();
    record(&mut log, &mut pcr.clone(), &[tool("b", 2)], 0);
    let both = log.read_from(0).unwrap();

    let zeros = [first.clone(), vec![0; 100]].concat();
    let garbage = [first.clone(), vec![0xff; 100]].concat();
    let torn = (first.len() + 1..both.len()).map(|len| both[..len].to_vec());
    for bytes in torn.chain([zeros, garbage]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tool.log"), &bytes).unwrap();
        let mut pcr = pcr.clone();
        let mut log = open(dir.path());
        assert!(log.damage().is_some());
        assert_eq!(fs::read(dir.path().join("tool.log")).unwrap(), bytes, "not cut yet");
        assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), LogState::InSync);
        assert_eq!(fs::read(dir.path().join("tool.log")).unwrap(), first);
        record(&mut log, &mut pcr, &[tool("c", 3)], 1);
        assert_eq!(log.state().pcr_values, pcr.0);
        assert_eq!(open_after(log, dir.path()).state().events, 2);
    }
}

fn open_after(log: ToolLog, directory: &Path) -> ToolLog {
    drop(log);
    open(directory)
}

#[test]
fn an_event_that_the_pcr_has_is_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let path = dir.path().join("tool.log");
    {
        let mut log = open(dir.path());
        reconcile(&mut log, &mut pcr).unwrap();
        record(&mut log, &mut pcr, &[tool("a", 1), tool("b", 2)], 2);
    }
    let good = fs::read(&path).unwrap();
    for damage in [good[..good.len() - 1].to_vec(), {
        let mut flipped = good.clone();
        flipped[good.len() - 3] ^= 1;
        flipped
    }] {
        fs::write(&path, &damage).unwrap();
        let mut log = open(dir.path());
        let error = reconcile(&mut log, &mut pcr).expect_err("lost an event");
        assert!(matches!(error, LogError::Foreign { .. }));
        assert!(error.to_string().starts_with("TOOL_LOG_REPLAY_MISMATCH"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damage, "left as it is");
        assert_eq!(log.state().events, 1, "readable");
    }
}

#[test]
fn a_foreign_extend_is_named_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let mut log = open(dir.path());
    reconcile(&mut log, &mut pcr).unwrap();
    record(&mut log, &mut pcr, &[tool("a", 1)], 1);
    let one_bank = vec![pcr.0[0], pcr.0[1].extended(&Digest::zero(HashAlg::Sha384))];
    for values in [one_bank, vec![pcr.0[0]], vec![]] {
        assert_eq!(log.compare(&values).unwrap(), LogState::Foreign);
    }
    pcr.extend(&pcr.0.clone());
    let before = log.read_from(0).unwrap();
    assert!(matches!(reconcile(&mut log, &mut pcr), Err(LogError::Foreign { .. })));
    assert_eq!(log.read_from(0).unwrap(), before);
}

#[test]
fn firmware_that_extended_the_pcr_first_is_the_start_value() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let firmware = Pcr(pcr.0.iter().map(|value| value.extended(value)).collect());
    pcr.0.clone_from(&firmware.0);
    let mut log = ToolLog::open(dir.path(), index(), &firmware.0).unwrap();
    assert_eq!(reconcile(&mut log, &mut pcr).unwrap(), LogState::InSync);
    record(&mut log, &mut pcr, &[tool("a", 1)], 1);
    assert_eq!(log.state().pcr_values, pcr.0);
}

#[test]
fn two_processes_cannot_have_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let second = ToolLog::open(dir.path(), index(), &Pcr::new().0);
    assert!(matches!(second, Err(LogError::Busy(_))));
    drop(log);
    open(dir.path());
}

#[test]
fn only_changes_are_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let mut log = open(dir.path());
    reconcile(&mut log, &mut pcr).unwrap();
    let mut measured = Measured { tools: vec![tool("a", 1), tool("b", 2)], problems: vec![] };
    let first = log.changed_events(&measured).unwrap();
    assert_eq!(first, measured.tools);
    record(&mut log, &mut pcr, &first, 2);
    assert_eq!(log.changed_events(&measured).unwrap(), []);

    measured.tools = vec![tool("a", 9)];
    let gone = ToolMeasurement::absent("b").unwrap();
    let second = log.changed_events(&measured).unwrap();
    assert_eq!(second, [tool("a", 9), gone]);
    record(&mut log, &mut pcr, &second, 2);
    assert_eq!(log.changed_events(&measured).unwrap(), [], "absent once");

    measured.problems.push(Problem {
        tool: "b".to_owned(),
        path: Some("/t".to_owned()),
        kind: ProblemKind::Unreadable { error: "Permission denied".to_owned() },
    });
    let error = log.changed_events(&measured).expect_err("unknown state").to_string();
    assert_eq!(error, "nothing is recorded: tool b: /t cannot be read: Permission denied");
}

#[test]
fn the_limits_of_one_boot_are_kept_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut pcr = Pcr::new();
    let mut log = open(dir.path());
    reconcile(&mut log, &mut pcr).unwrap();
    let tools: Vec<_> = (0..1001).map(|n| tool(&format!("t{n}"), 1)).collect();
    let result = log.record(&tools, |_| -> Result<(), Infallible> { panic!("extended") });
    assert!(matches!(result, Err(LogError::Full(_))));
    assert_eq!(
        (log.state().events, fs::metadata(dir.path().join("tool.log")).unwrap().len()),
        (0, 0)
    );
}

/// A child process's limit on file sizes stands in for the full disk.
#[test]
fn a_full_disk_loses_nothing_and_extends_nothing() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const CHILD: &str = "ASSAY_TEST_LOG_DIRECTORY";
    let Some(directory) = std::env::var_os(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        // SIGXFSZ ignored, a write beyond the limit fails as it does on a full disk.
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "a_full_disk_loses_nothing_and_extends_nothing"])
            .env(CHILD, dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    let mut pcr = Pcr::new();
    let mut log = open(Path::new(&directory));
    reconcile(&mut log, &mut pcr).unwrap();
    record(&mut log, &mut pcr, &[tool("a", 1)], 1);
    let before = log.read_from(0).unwrap();
    let old = getrlimit(Resource::Fsize);
    let limit = Rlimit { current: Some(before.len() as u64 + 10), maximum: old.maximum };
    setrlimit(Resource::Fsize, limit).unwrap();
    let result = log.record(&[tool("b", 2)], |_| -> Result<(), Infallible> { panic!("extended") });
    setrlimit(Resource::Fsize, old).unwrap();
    assert!(matches!(result, Err(LogError::Io { what: "append", .. })), "{result:?}");
    assert_eq!(log.read_from(0).unwrap(), before);
    assert_eq!(fs::read(Path::new(&directory).join("tool.log")).unwrap(), before);
    record(&mut log, &mut pcr, &[tool("b", 2)], 1);
    assert_eq!(log.state().pcr_values, pcr.0);
}
