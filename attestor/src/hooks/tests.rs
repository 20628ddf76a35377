//! Hooks installed into a folder, looked at, and removed again.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Action, HookSystem, Options, Report, Site, check, install, is_installed, remove};

const TOOLS: &str = "[[tool]]\nname = \"make\"\npaths = [\"/usr/bin/make\"]\n";

struct Place {
    folder: tempfile::TempDir,
    system: HookSystem,
}

impl Place {
    fn new(system: HookSystem) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("folder"), system };
        fs::set_permissions(place.root(), fs::Permissions::from_mode(0o755)).expect("mode");
        place.write("usr/bin/attestor", "a program");
        place.write("etc/assay/tools.toml", TOOLS);
        place
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, content).expect("write");
    }

    fn site(&self) -> Site {
        let site = Site {
            system: self.system,
            root: self.root().to_owned(),
            attestor: self.path("usr/bin/attestor"),
            socket: self.path("run/assay/job.sock"),
            user: "nobody".to_owned(),
            audience: None,
        };
        site.checked().expect("plain")
    }

    fn install(&self) -> Report {
        install(&self.site(), &Options::default()).expect("installed")
    }

    fn remove(&self) -> Report {
        remove(self.root(), self.system, &Options::default()).expect("removed")
    }

    /// Every file and link with what it says.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut out = BTreeMap::new();
        let mut open = vec![self.root().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("folder") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    out.insert(path.clone(), "folder".to_owned());
                    open.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap_or_else(|_| "link".to_owned());
                    out.insert(path, text);
                }
            }
        }
        out
    }

    fn problems(&self, config: &str) -> Vec<(&'static str, String)> {
        let path = self.path("attestor.toml");
        let text = format!(
            "[verifier]\nurl = \"https://v:8443\"\nca_file = \"/x\"\n[tools]\nlist = \"{}\"\n{config}",
            self.path("etc/assay/tools.toml").display()
        );
        fs::write(&path, text).expect("write");
        let found = check(self.root(), self.system, &path).expect("looked at");
        found.into_iter().map(|problem| (problem.code, problem.what)).collect()
    }
}

fn actions(report: &Report) -> Vec<Action> {
    report.files.iter().chain(&report.tools).map(|outcome| outcome.action).collect()
}

#[test]
fn hooks_come_as_roots_files_and_go_without_a_trace() {
    for system in HookSystem::ALL {
        let place = Place::new(system);
        let before = place.tree();
        let dry = Options { is_dry: true, ..Options::default() };
        let plan = install(&place.site(), &dry).expect("a plan");
        assert_eq!(place.tree(), before, "a dry run changes nothing");
        let report = place.install();
        assert_eq!(actions(&report), actions(&plan));
        assert!(is_installed(place.root(), system).expect("read"));
        let me = rustix::process::geteuid().as_raw();
        for file in place.site().files() {
            let found = fs::symlink_metadata(&file.path).expect("there");
            assert!(found.is_file());
            assert_eq!(found.permissions().mode() & 0o7777, file.mode, "{}", file.path.display());
            assert_eq!(found.uid(), me);
        }
        let list = fs::read_to_string(place.path("etc/assay/tools.toml")).expect("list");
        let is_measured = list.contains(&format!("name = \"{}\"", system.tool_name()));
        assert_eq!(is_measured, system != HookSystem::Tekton);
        let after = place.tree();
        let again = place.install();
        assert!(actions(&again).iter().all(|action| *action == Action::Keep), "{again:?}");
        assert_eq!(place.tree(), after, "twice is once");
        let removed = place.remove();
        assert!(removed.files.iter().all(|file| file.action == Action::Remove), "{removed:?}");
        assert_eq!(place.tree(), before);
        let error = remove(place.root(), system, &Options::default()).expect_err("twice");
        assert_eq!(error.code(), "HOOK_NOT_INSTALLED");
    }
}

#[test]
fn scripts_are_scripts() {
    for system in HookSystem::ALL {
        let place = Place::new(system);
        place.install();
        for file in place.site().files() {
            let Some(first) = file.content.lines().next().filter(|line| line.starts_with("#!"))
            else {
                continue;
            };
            let shell = first.trim_start_matches("#!");
            let output = Command::new(shell).arg("-n").arg(&file.path).output().expect("shell");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{}: {said}", file.path.display());
        }
    }
}

#[test]
fn a_file_of_others_stays_or_is_kept_and_comes_back() {
    let hook = "etc/buildkite-agent/hooks/pre-bootstrap";
    let place = Place::new(HookSystem::Buildkite);
    place.write(hook, "#!/bin/sh\n# theirs\n");
    let before = place.tree();
    let error = install(&place.site(), &Options::default()).expect_err("in the way");
    assert_eq!(error.code(), "HOOK_FILE_FOREIGN");
    assert!(error.to_string().contains("pre-bootstrap.before-assay"), "{error}");
    assert_eq!(place.tree(), before, "nothing was begun");
    let forced = Options { is_forced: true, ..Options::default() };
    let report = install(&place.site(), &forced).expect("forced");
    assert!(actions(&report).contains(&Action::ReplaceForeign));
    assert!(fs::read_to_string(place.path(hook)).expect("ours").contains("attestor"));
    // Again, of another version: what was kept first stays what is kept.
    let mut site = place.site();
    site.user = "daemon".to_owned();
    install(&site, &forced).expect("again");
    let report = place.remove();
    assert!(actions(&report).contains(&Action::Restore), "{report:?}");
    assert_eq!(place.tree(), before);
}

#[test]
fn a_link_in_the_way_is_a_file_of_others() {
    let place = Place::new(HookSystem::Buildkite);
    place.write("victim", "precious");
    let hook = place.path("etc/buildkite-agent/hooks/pre-bootstrap");
    fs::create_dir_all(hook.parent().expect("a folder")).expect("folders");
    for target in [place.path("victim"), place.path("nothing")] {
        let _ = fs::remove_file(&hook);
        symlink(target, &hook).expect("link");
        let error = install(&place.site(), &Options::default()).expect_err("in the way");
        assert_eq!(error.code(), "HOOK_FILE_FOREIGN");
    }
    let forced = Options { is_forced: true, ..Options::default() };
    install(&place.site(), &forced).expect("forced");
    assert!(fs::symlink_metadata(&hook).expect("there").is_file());
    assert_eq!(fs::read_to_string(place.path("victim")).expect("there"), "precious");
    place.remove();
    assert!(fs::symlink_metadata(&hook).expect("back").is_symlink());
}

#[test]
fn a_changed_file_is_neither_replaced_nor_removed() {
    let place = Place::new(HookSystem::GitLab);
    place.install();
    let run = place.path("usr/lib/assay/hooks/gitlab/run.sh");
    fs::write(&run, "#!/bin/sh\nexec bash \"$1\"\n").expect("write");
    let error = install(&place.site(), &Options::default()).expect_err("changed");
    assert_eq!(error.code(), "HOOK_FILE_FOREIGN");
    let before = place.tree();
    let report = place.remove();
    assert!(actions(&report).contains(&Action::Leave));
    assert!(actions(&report).iter().all(|action| [Action::Leave, Action::Keep].contains(action)));
    assert_eq!(place.tree(), before, "what stays in force stays measured and recorded");
    // Forced, it goes, and is kept.
    let forced = Options { is_forced: true, ..Options::default() };
    let report = remove(place.root(), place.system, &forced).expect("forced");
    assert!(actions(&report).contains(&Action::Save), "{report:?}");
    assert!(!run.exists() && !is_installed(place.root(), place.system).expect("read"));
    let saved = run.with_file_name("run.sh.before-assay");
    assert!(fs::read_to_string(saved).expect("kept").contains("exec bash"));
    let list = fs::read_to_string(place.path("etc/assay/tools.toml")).expect("list");
    assert_eq!(list, TOOLS);
}

#[test]
fn a_changed_file_and_the_one_before_it_change_places() {
    let hook = "etc/buildkite-agent/hooks/pre-bootstrap";
    let place = Place::new(HookSystem::Buildkite);
    place.write(hook, "# theirs\n");
    let forced = Options { is_forced: true, ..Options::default() };
    install(&place.site(), &forced).expect("forced");
    place.write(hook, "# changed\n");
    let report = remove(place.root(), place.system, &forced).expect("forced");
    assert!(actions(&report).contains(&Action::Exchange), "{report:?}");
    let text = |name: &str| fs::read_to_string(place.path(name)).expect("there");
    assert_eq!(text(hook), "# theirs\n");
    assert_eq!(text(&format!("{hook}.before-assay")), "# changed\n");
}

#[test]
fn every_file_that_an_install_replaces_by_force_is_kept() {
    let hook = "etc/buildkite-agent/hooks/pre-bootstrap";
    let place = Place::new(HookSystem::Buildkite);
    place.write(hook, "# theirs\n");
    let forced = Options { is_forced: true, ..Options::default() };
    install(&place.site(), &forced).expect("forced");
    for changed in 2..=20 {
        place.write(hook, &format!("# changed {changed}\n"));
        install(&place.site(), &forced).expect("forced");
    }
    let text = |name: &str| fs::read_to_string(place.path(name)).expect("there");
    assert_eq!(text(&format!("{hook}.before-assay.2")), "# changed 2\n");
    assert_eq!(text(&format!("{hook}.before-assay.20")), "# changed 20\n");
    // There is no name left: nothing is lost.
    place.write(hook, "# changed 21\n");
    let error = install(&place.site(), &forced).expect_err("too many");
    assert_eq!(error.code(), "HOOK_FILE_FOREIGN");
    assert!(error.to_string().contains("pre-bootstrap.before-assay.20"), "{error}");
    assert_eq!(text(hook), "# changed 21\n");
    fs::remove_file(place.path(hook)).expect("gone");
    install(&place.site(), &forced).expect("forced");
    place.remove();
    assert_eq!(text(hook), "# theirs\n");
}

#[test]
fn a_kept_file_that_is_gone_keeps_nothing_from_going() {
    let hook = "etc/buildkite-agent/hooks/pre-bootstrap";
    let place = Place::new(HookSystem::Buildkite);
    place.write(hook, "# theirs\n");
    let forced = Options { is_forced: true, ..Options::default() };
    install(&place.site(), &forced).expect("forced");
    fs::remove_file(place.path(&format!("{hook}.before-assay"))).expect("gone");
    let report = place.remove();
    assert!(report.files.iter().all(|file| file.action == Action::Remove), "{report:?}");
    assert!(!is_installed(place.root(), place.system).expect("read"));
}

#[test]
fn the_tool_list_stays_whose_it_was() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs these tests as root");
        eprintln!("skipped: only root gives files away");
        return;
    }
    let place = Place::new(HookSystem::GitLab);
    let list = place.path("etc/assay/tools.toml");
    std::os::unix::fs::chown(&list, Some(65534), Some(65533)).expect("owner");
    fs::set_permissions(&list, fs::Permissions::from_mode(0o640)).expect("mode");
    let whose = || {
        let found = fs::metadata(&list).expect("list");
        (found.uid(), found.gid(), found.permissions().mode() & 0o7777)
    };
    place.install();
    assert_eq!(whose(), (65534, 65533, 0o640));
    place.remove();
    assert_eq!(whose(), (65534, 65533, 0o640));
}

#[test]
fn another_version_or_site_replaces_what_is_ours() {
    let place = Place::new(HookSystem::GitHub);
    place.install();
    let mut site = place.site();
    site.user = "daemon".to_owned();
    site.attestor = place.path("opt/attestor");
    let report = install(&site, &Options::default()).expect("replaced");
    assert!(actions(&report).contains(&Action::Replace));
    let unit = place.path("etc/systemd/system/assay-github-runner.service");
    assert!(fs::read_to_string(unit).expect("unit").contains("User=daemon\n"));
    let list = fs::read_to_string(place.path("etc/assay/tools.toml")).expect("list");
    assert!(list.contains("/opt/attestor\"") && !list.contains("/usr/bin/attestor\""));
    assert_eq!(list.matches("assay-hook-github\"").count(), 1);
    // Only the mode is wrong: mended.
    let hook = place.path("usr/lib/assay/hooks/github/job-started.sh");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).expect("mode");
    install(&site, &Options::default()).expect("mended");
    assert_eq!(fs::metadata(&hook).expect("there").permissions().mode() & 0o777, 0o755);
}

/// The record of a version that had one file more.
fn had(place: &Place, name: &str, content: &str) -> PathBuf {
    place.write(name, content);
    let record = place.path("usr/lib/assay/hooks/gitlab/installed.json");
    let text = fs::read_to_string(&record).expect("record");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let file = serde_json::json!({
        "path": place.path(name),
        "sha256": super::manifest::sha256(content.as_bytes()),
        "is_saved": false,
    });
    value["files"].as_array_mut().expect("files").push(file);
    fs::write(&record, value.to_string()).expect("write");
    place.path(name)
}

#[test]
fn what_an_older_version_had_is_planned_before_anything_is_done() {
    let place = Place::new(HookSystem::GitLab);
    place.install();
    let old = had(&place, "usr/lib/assay/hooks/gitlab/old.sh", "# ours\n");
    let dry = Options { is_dry: true, ..Options::default() };
    let before = place.tree();
    let plan = install(&place.site(), &dry).expect("a plan");
    assert!(plan.files.iter().any(|file| file.path == old && file.action == Action::Remove));
    assert_eq!(place.tree(), before, "a dry run changes nothing");
    assert_eq!(actions(&place.install()), actions(&plan));
    assert!(!old.exists());
    assert!(actions(&place.install()).iter().all(|action| *action == Action::Keep));

    // Where it cannot go, nothing is begun.
    had(&place, "usr/lib/assay/hooks/gitlab/old.sh", "# ours\n");
    place.write("usr/lib/assay/hooks/gitlab/old.sh", "# changed\n");
    place.write("usr/lib/assay/hooks/gitlab/old.sh.before-assay", "# kept by nobody\n");
    let mut site = place.site();
    site.user = "daemon".to_owned();
    let forced = Options { is_forced: true, ..Options::default() };
    let before = place.tree();
    let error = install(&site, &forced).expect_err("in the way");
    assert_eq!(error.code(), "HOOK_FILE_FOREIGN");
    assert_eq!(place.tree(), before, "nothing was begun");
    // Without force it is left, and stays recorded.
    let report = install(&site, &Options::default()).expect("installed");
    assert!(actions(&report).contains(&Action::Leave), "{report:?}");
    assert!(actions(&place.remove()).contains(&Action::Leave));
}

#[test]
fn the_runner_is_stopped_for_its_own_jobs_alone() {
    let place = Place::new(HookSystem::GitHub);
    place.install();
    place.write("run/assay/status.json", "{}");
    let asked = place.path("run/assay/stop-github");
    let is_stopped = |place: &Place, uid: Option<&str>| {
        let _ = fs::remove_file(&asked);
        let mut stop = Command::new(place.path("usr/lib/assay/hooks/github/stop.sh"));
        stop.env_remove("ASSAY_UID").envs(uid.map(|uid| ("ASSAY_UID", uid)));
        assert!(stop.output().expect("started").status.success());
        asked.exists()
    };
    assert!(is_stopped(&place, Some("65534")));
    for other in ["0", "1000", "6553"] {
        assert!(!is_stopped(&place, Some(other)), "{other}");
    }
    // Where it cannot be told whose the job was.
    assert!(is_stopped(&place, None));
    let mut site = place.site();
    site.user = "no-such-user-here".to_owned();
    install(&site, &Options::default()).expect("installed");
    assert!(is_stopped(&place, Some("1000")));
}

#[test]
fn a_runner_is_stopped_however_often_it_has_to_be() {
    let place = Place::new(HookSystem::GitHub);
    place.install();
    let unit = place.path("etc/systemd/system/assay-stop-github.service");
    let unit = fs::read_to_string(unit).expect("unit");
    let (head, service) = unit.split_once("[Service]").expect("sections");
    assert!(head.contains("[Unit]") && head.contains("\nStartLimitIntervalSec=0\n"), "{unit}");
    // What is said while the runner is being killed is not lost: it is about another one, or this one.
    let commands: Vec<_> =
        service.lines().filter_map(|line| line.strip_prefix("ExecStart=-")).collect();
    let asked = place.path("run/assay/stop-github").display().to_string();
    assert!(commands.first().is_some_and(|first| *first == format!("/usr/bin/rm -f {asked}")));
    assert!(commands.iter().skip(1).all(|command| command.contains("systemctl kill")), "{unit}");
    assert_eq!(commands.len(), 3);
}

#[test]
fn a_record_that_names_files_elsewhere_removes_nothing() {
    let place = Place::new(HookSystem::Jenkins);
    place.install();
    let record = place.path("usr/lib/assay/hooks/jenkins/installed.json");
    let text = fs::read_to_string(&record).expect("record");
    let agent = place.path("usr/lib/assay/hooks/jenkins/agent.sh").display().to_string();
    let outside = format!("{}/../../etc/passwd", place.root().display());
    for wrong in [
        text.replace(&agent, "/etc/passwd"),
        text.replace(&agent, &outside),
        text.replace("\"format\": 1", "\"format\": 2"),
        text.replace("\"system\": \"jenkins\"", "\"system\": \"github\""),
        text.replace("\"folders\"", "\"folder\""),
    ] {
        assert_ne!(wrong, text);
        fs::write(&record, wrong).expect("write");
        let error = remove(place.root(), place.system, &Options::default()).expect_err("refused");
        assert_eq!(error.code(), "HOOK_MANIFEST_INVALID", "{error}");
    }
}

#[test]
fn a_check_finds_what_would_let_jobs_through() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs these tests as root");
        eprintln!("skipped: only root makes files of root");
        return;
    }
    let place = Place::new(HookSystem::GitHub);
    place.install();
    let stop = place.path("usr/lib/assay/hooks/github/stop.sh").display().to_string();
    let stop = format!("[\"{stop}\"]");
    let both = format!("on_end = {stop}\non_refused = {stop}\n");
    let good = format!("[jobs]\nusers = [\"nobody\"]\n{both}");
    let wants = place.path("etc/systemd/system/multi-user.target.wants");
    fs::create_dir(&wants).expect("folder");
    let enabled = wants.join("assay-stop-github.path");
    symlink("../assay-stop-github.path", &enabled).expect("link");
    assert_eq!(place.problems(&good), []);
    let codes = |place: &Place, config: &str| -> Vec<&str> {
        place.problems(config).into_iter().map(|(code, _)| code).collect()
    };
    for config in [
        String::new(),
        format!("[jobs]\nusers = []\n{both}"),
        format!("[jobs]\nusers = [\"nobody\"]\non_end = {stop}\n"),
        // What stops the runner for jobs of every user.
        format!(
            "[jobs]\nusers = [\"nobody\"]\non_end = [\"/bin/touch\", \"x\"]\non_refused = {stop}\n"
        ),
        good.replace("[jobs]\n", "[jobs]\nsystems = [\"gitlab\", \"generic\"]\n"),
    ] {
        assert_eq!(codes(&place, &config), ["HOOK_NOT_CONFIGURED"], "{config}");
    }
    fs::remove_file(&enabled).expect("disable");
    assert_eq!(codes(&place, &good), ["HOOK_UNIT_NOT_ENABLED"]);
    symlink("../assay-stop-github.path", &enabled).expect("link");
    // Enabled by an older version, and so for the boot alone.
    let runner = "../assay-github-runner.service";
    symlink(runner, wants.join("assay-github-runner.service")).expect("link");
    assert_eq!(codes(&place, &good), ["HOOK_UNIT_NOT_ENABLED"]);
    let with_the_daemon = place.path("etc/systemd/system/assay-attestor.service.wants");
    fs::create_dir(&with_the_daemon).expect("folder");
    symlink(runner, with_the_daemon.join("assay-github-runner.service")).expect("link");
    assert_eq!(place.problems(&good), []);
    let folder = place.path("usr/bin");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o775)).expect("mode");
    assert_eq!(codes(&place, &good), ["HOOK_FILE_NOT_ROOTS"]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("mode");
    let hook = place.path("usr/lib/assay/hooks/github/job-started.sh");
    let text = fs::read_to_string(&hook).expect("hook");
    fs::write(&hook, "exit 0").expect("write");
    assert_eq!(codes(&place, &good), ["HOOK_FILE_CHANGED"]);
    fs::write(&hook, text).expect("write");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o775)).expect("mode");
    assert_eq!(codes(&place, &good), ["HOOK_FILE_MODE", "HOOK_FILE_NOT_ROOTS"]);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("mode");
    std::os::unix::fs::chown(hook.parent().expect("a folder"), Some(65534), None).expect("owner");
    assert_eq!(codes(&place, &good), ["HOOK_FILE_NOT_ROOTS"]);
    std::os::unix::fs::chown(hook.parent().expect("a folder"), Some(0), None).expect("owner");
    fs::write(place.path("etc/assay/tools.toml"), TOOLS).expect("write");
    assert_eq!(codes(&place, &good), ["HOOK_NOT_MEASURED"]);
    place.install();
    fs::remove_file(place.path("usr/bin/attestor")).expect("remove");
    assert_eq!(codes(&place, &good), ["HOOK_FILE_MISSING"]);
}
