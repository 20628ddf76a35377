use std::{
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use tempfile::TempDir;

use super::*;

/// A folder of results, written at times of the test's.
struct Kept {
    state: TempDir,
    results: ResultFiles,
}

impl Kept {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("folder");
        let results = ResultFiles::open(state.path()).expect("opened");
        Self { state, results }
    }

    /// A result of so many bytes, written then.
    fn result(&self, number: u64, unix_s: u64) -> String {
        let digest = self.results.keep(&number.to_be_bytes()).expect("kept");
        let digest = hex::encode(digest.as_bytes());
        written_at(&self.results.path(&digest), unix_s);
        digest
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join(RESULTS_FOLDER)
    }

    fn has(&self, digest: &str) -> bool {
        self.results.read(digest).expect("read").is_some()
    }

    /// A step that fails nowhere: what it removed, and whether there is more.
    fn drops(&self, limits: ResultsLimits) -> (ResultsDropped, bool) {
        let step = self.results.drop_some(limits, || false).expect("listed");
        assert!(step.failed.is_none(), "{:?}", step.failed);
        (step.dropped, step.goes_on)
    }

    fn count(&self) -> usize {
        fs::read_dir(self.folder()).expect("listed").count()
    }
}

fn written_at(path: &Path, unix_s: u64) {
    let file = fs::File::options().write(true).open(path).expect("there");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(unix_s)).expect("set");
}

fn limits(before_unix_s: i64, keep_newest: u64) -> ResultsLimits {
    ResultsLimits { before_unix_s, keep_newest }
}

fn dropped(results: u64) -> ResultsDropped {
    ResultsDropped { results, bytes: 8 * results }
}

#[test]
fn a_result_is_found_by_its_digest_and_nothing_else_is() {
    let state = tempfile::tempdir().expect("folder");
    let results = ResultFiles::open(state.path()).expect("opened");
    let digest = results.keep(b"{}").expect("kept");
    assert_eq!(results.keep(b"{}").expect("kept already"), digest);
    let name = hex::encode(digest.as_bytes());
    assert_eq!(results.read(&name).expect("read"), Some(b"{}".to_vec()));
    fs::write(state.path().join("secret.json"), "secret").expect("written");
    for other in ["", "../secret", &name[1..], &name.to_uppercase(), &format!("{name}/")] {
        assert_eq!(results.read(other).expect("read"), None, "{other:?}");
    }
    let large = fs::File::options().write(true).open(results.path(&name)).expect("there");
    large.set_len(MAX_RESULT_BYTES + 1).expect("set");
    assert!(results.read(&name).expect_err("too large").to_string().contains("larger"));
}

#[test]
fn results_older_than_the_age_go_and_others_stay() {
    let kept = Kept::new();
    let (old, edge, new) = (kept.result(1, 999), kept.result(2, 1000), kept.result(3, 5000));
    let age = limits(1000, 100);
    assert_eq!(kept.results.would_drop(age).expect("listed"), dropped(1));
    assert!(kept.has(&old), "only said");
    assert_eq!(kept.drops(age), (dropped(1), false));
    assert!(!kept.has(&old) && kept.has(&edge) && kept.has(&new));
    assert_eq!(kept.drops(age), (dropped(0), false));
}

#[test]
fn beyond_the_count_the_oldest_go() {
    let kept = Kept::new();
    // Not in the order in which they were written.
    let digests: Vec<String> =
        [40, 10, 50, 20, 30].into_iter().map(|at| kept.result(at, at)).collect();
    assert_eq!(kept.results.would_drop(limits(0, 2)).expect("listed"), dropped(3));
    assert_eq!(kept.drops(limits(0, 2)), (dropped(3), false));
    let left: Vec<bool> = digests.iter().map(|digest| kept.has(digest)).collect();
    assert_eq!(left, [true, false, true, false, false]);
    // Age and count together are the stricter of both.
    assert_eq!(kept.results.would_drop(limits(45, 2)).expect("listed"), dropped(1));
    assert_eq!(kept.results.would_drop(limits(45, 0)).expect("listed"), dropped(2));
}

#[test]
fn what_is_no_result_stays_whatever_its_age() {
    let kept = Kept::new();
    let outside = kept.state.path().join("outside");
    let rest = format!(".{}{EXTENSION}.7.0.tmp", "5e".repeat(32));
    let linked = "5a".repeat(32) + EXTENSION;
    for name in [
        "notes.json".to_owned(),
        "5b".repeat(32),
        "5C".repeat(32) + EXTENSION,
        "5d".repeat(31) + EXTENSION,
        rest.clone(),
        format!(".{}{EXTENSION}", "5e".repeat(32)),
        format!(".{}{EXTENSION}tmp", "5e".repeat(32)),
        ".notes.json.7.0.tmp".to_owned(),
        "../outside".to_owned(),
    ] {
        let path = kept.folder().join(name);
        fs::write(&path, "not ours").expect("written");
        written_at(&path, 10);
    }
    symlink(&outside, kept.folder().join(&linked)).expect("linked");
    let folder = kept.folder().join("5f".repeat(32) + EXTENSION);
    fs::create_dir(&folder).expect("made");
    let ours = kept.result(1, 10);
    let before = kept.count();
    // They do not count as results either.
    assert_eq!(kept.drops(limits(0, 1)), (dropped(0), false));
    let all = limits(i64::MAX, 0);
    assert_eq!(kept.results.would_drop(all).expect("listed"), dropped(1));
    assert_eq!(kept.drops(all), (dropped(1), false));
    assert!(!kept.has(&ours));
    // Of a write that was killed, the rest: it is as old.
    assert!(!kept.folder().join(rest).exists());
    assert_eq!(kept.count(), before - 2);
    assert!(outside.exists() && folder.exists() && kept.folder().join(linked).is_symlink());
}

#[test]
fn one_step_is_bounded_and_takes_the_oldest() {
    let kept = Kept::new();
    let count = STEP_FOR_TEST + 5;
    // Plain files, not synced one by one.
    for number in 0..count {
        let digest = HashAlg::Sha256.hash(&[&number.to_be_bytes()]);
        let path = kept.results.path(&hex::encode(digest.as_bytes()));
        fs::write(&path, [0; 8]).expect("written");
        written_at(&path, 1000 - number % 1000);
    }
    let all = limits(i64::MAX, 0);
    let most = dropped(STEP_FOR_TEST);
    assert_eq!(kept.drops(all), (most, true));
    let oldest_left = fs::read_dir(kept.folder()).expect("listed").map(|entry| {
        let metadata = entry.expect("an entry").metadata().expect("there");
        metadata.modified().expect("a time")
    });
    let newest = UNIX_EPOCH + Duration::from_secs(1000);
    assert!(oldest_left.min().expect("some") >= newest, "the oldest went first");
    assert_eq!(kept.drops(all), (dropped(5), false));
    assert_eq!(kept.count(), 0);
}

#[test]
fn one_that_cannot_be_removed_keeps_no_other_and_is_named() {
    let kept = Kept::new();
    let [stuck, gone, other, last] = [1, 2, 3, 4].map(|number| kept.result(number, number));
    let all = limits(i64::MAX, 0);
    let step = kept.results.drop_with(
        all,
        || false,
        |path| {
            let has = |digest: &str| path.to_string_lossy().contains(digest);
            if has(&gone) {
                fs::remove_file(path)?;
            }
            if has(&stuck) || has(&other) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::remove_file(path)
        },
    );
    let step = step.expect("listed");
    // Another removed the second; the last went, and the first that stayed is told of.
    assert_eq!((step.dropped, step.goes_on), (dropped(1), false));
    let failed = step.failed.expect("two stayed").to_string();
    assert!(failed.contains(&stuck), "{failed}");
    let left = [&stuck, &gone, &other, &last].map(|digest| kept.has(digest));
    assert_eq!(left, [true, false, true, false]);
}

#[test]
fn a_step_stops_when_it_is_told_to() {
    let kept = Kept::new();
    (0..5).for_each(|number| drop(kept.result(number, number)));
    let left = std::cell::Cell::new(2);
    let stop = || left.replace(left.get() - 1) == 0;
    let step = kept.results.drop_some(limits(i64::MAX, 0), stop).expect("listed");
    assert_eq!((step.dropped, kept.count()), (dropped(2), 3));
}

#[test]
fn steps_go_on_as_long_as_one_gets_on() {
    let kept = Kept::new();
    for number in 0..=STEP_FOR_TEST {
        let digest = HashAlg::Sha256.hash(&[&number.to_be_bytes()]);
        fs::write(kept.results.path(&hex::encode(digest.as_bytes())), [0; 8]).expect("written");
    }
    let all = limits(i64::MAX, 0);
    let refuse = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let stuck = kept.results.drop_with(all, || false, refuse).expect("listed");
    assert!(!stuck.goes_on && stuck.failed.is_some(), "{stuck:?}");
    let first = AtomicBool::new(true);
    let but_one = |path: &Path| match first.swap(false, Ordering::SeqCst) {
        true => refuse(path),
        false => fs::remove_file(path),
    };
    let gets_on = kept.results.drop_with(all, || false, but_one).expect("listed");
    assert!(gets_on.goes_on && gets_on.failed.is_some(), "{gets_on:?}");
    assert_eq!(gets_on.dropped, dropped(STEP_FOR_TEST - 1));
    assert_eq!(kept.drops(all), (dropped(2), false));
}

const STEP_FOR_TEST: u64 = retention::STEP as u64;

/// A reader has a result or has none, whole; it never fails.
#[test]
fn a_result_is_read_while_it_is_removed() {
    // Large ones are caught in the midst of a read, small ones between its calls.
    for (bytes, rounds) in [(3_000_000, 30), (8, 1500)] {
        let kept = Kept::new();
        let content = vec![7; bytes];
        let digest = hex::encode(kept.results.keep(&content).expect("kept").as_bytes());
        let stop = AtomicBool::new(false);
        let read = || {
            while !stop.load(Ordering::SeqCst) {
                if let Some(read) = kept.results.read(&digest).expect("an answer") {
                    assert!(read == content, "{} bytes", read.len());
                }
            }
        };
        std::thread::scope(|scope| {
            let readers = [scope.spawn(read), scope.spawn(read)];
            for _ in 0..rounds {
                let new = kept.folder().join("new");
                fs::write(&new, &content).expect("written");
                fs::rename(&new, kept.results.path(&digest)).expect("there");
                std::thread::yield_now();
                kept.drops(limits(i64::MAX, 0));
            }
            stop.store(true, Ordering::SeqCst);
            for reader in readers {
                reader.join().expect("no read failed");
            }
        });
        assert_eq!(kept.results.read(&digest).expect("an answer"), None);
    }
}

#[test]
fn where_there_is_no_folder_there_is_nothing_to_drop() {
    let state = tempfile::tempdir().expect("folder");
    let results = ResultFiles::at(state.path());
    assert_eq!(results.would_drop(limits(i64::MAX, 0)).expect("none"), dropped(0));
    assert!(!state.path().join(RESULTS_FOLDER).exists(), "nothing was made");
}
