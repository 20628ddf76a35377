//! Giving up root, in a process of its own.

use std::{
    os::unix::fs::MetadataExt as _,
    process::{Command, ExitStatus},
};

use attestor::privilege::{become_user, hand_over};

/// Says to the child, which is this program again, whom to become.
const USER: &str = "ASSAY_TEST_BECOME_USER";

/// An unprivileged user that every Debian has.
const NOBODY: &str = "nobody";

fn child(user: &str, folder: &std::path::Path) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "the_child", "--nocapture"])
        .env(USER, user)
        .env("ASSAY_TEST_FOLDER", folder)
        .output()
        .expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

/// What the child does; nothing when the tests are run as tests.
#[test]
fn the_child() {
    let Ok(user) = std::env::var(USER) else { return };
    let folder = std::path::PathBuf::from(std::env::var_os("ASSAY_TEST_FOLDER").expect("folder"));
    // Threads that were there before: all of them must lose root.
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        wait.recv().expect("told");
        std::fs::read_to_string("/proc/thread-self/status").expect("status")
    });
    hand_over(&user, &[&folder]).expect("handed over");
    become_user(&user).expect("became");
    told.send(()).expect("told");
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    for status in [own, other.join().expect("ended")] {
        let ids = |key: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
            line.split_whitespace().map(|id| id.parse().expect("a number")).collect()
        };
        for key in ["Uid:", "Gid:"] {
            let ids = ids(key);
            assert!(ids.len() == 4 && !ids.contains(&0), "{key} {ids:?}");
        }
        assert!(!ids("Groups:").contains(&0), "root's groups stayed");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("caps");
        assert_eq!(effective.trim().trim_start_matches('0'), "", "capabilities stayed");
    }
    std::fs::write(folder.join("mine"), b"written by the user").expect("the folder is the user's");
    assert!(std::fs::read("/etc/shadow").is_err(), "root's files can still be read");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("proc").uid() == 0
}

#[test]
fn root_is_given_up_for_good_and_in_every_thread() {
    if !is_root() {
        eprintln!("skipped: only root can give up root");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("log"), b"made by root").expect("file");
    // The user must get as far as the folder.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), all).expect("mode");
    let (ended, said) = child(NOBODY, folder.path());
    assert!(ended.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    let owner = |name: &str| std::fs::metadata(folder.path().join(name)).expect(name).uid();
    assert!(owner("log") != 0 && owner("mine") == owner("log"));
}

#[test]
fn an_unknown_user_changes_nothing() {
    let error = become_user("no-such-user-here").expect_err("unknown");
    assert!(error.to_string().contains("no such user"), "{error}");
    let folder = tempfile::tempdir().expect("folder");
    let error = hand_over("no-such-user-here", &[folder.path()]).expect_err("unknown");
    assert!(error.to_string().contains("no such user"), "{error}");
}

/// Without root nothing can be changed, and that is said.
#[test]
fn who_is_not_root_is_told() {
    if is_root() {
        eprintln!("skipped: root may");
        return;
    }
    let error = become_user(NOBODY).expect_err("not permitted");
    assert!(error.to_string().contains("initgroups"), "{error}");
}
