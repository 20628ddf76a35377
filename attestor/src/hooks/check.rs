//! Whether what is installed is what was installed, and nobody but root can change it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use proto::job::CiSystem;
use serde::Serialize;

use super::{
    HookError, HookSystem,
    manifest::{Manifest, sha256},
    paths, tool_entry,
};
use crate::{config::Config, privilege::uid_of};

/// The unit that stops a runner.
const STOP_UNIT: &str = "assay-stop-github.path";
/// Where systemd tells that it runs (sd_booted(3)), and who asks it.
const BOOTED: &str = "/run/systemd/system";
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// Something that keeps the hooks from doing what they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable code.
    pub code: &'static str,
    /// What it is about.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Looks at the files, the tool list and the daemon's configuration; finds nothing if all is well.
///
/// # Errors
/// [`HookError`] if it cannot be looked at.
pub fn check(root: &Path, system: HookSystem, config: &Path) -> Result<Vec<Problem>, HookError> {
    let manifest = Manifest::read(root, system)?.ok_or(HookError::NotInstalled(system))?;
    let mut problems = Vec::new();
    let mut add = |code, path: &Path, what: String| {
        problems.push(Problem { code, path: path.to_owned(), what });
    };
    let files = manifest.site.files();
    for file in &files {
        match paths::read(&file.path) {
            Ok(Some(found)) if found == file.content.as_bytes() => {}
            Ok(Some(found)) => {
                let known = manifest.file(&file.path);
                let is_older = known.is_some_and(|known| known.sha256 == sha256(&found));
                match is_older {
                    true => add(
                        "HOOK_FILE_OUTDATED",
                        &file.path,
                        format!("another version's; run `attestor hook install {system}`"),
                    ),
                    false => add("HOOK_FILE_CHANGED", &file.path, "was changed".to_owned()),
                }
            }
            Ok(None) => add("HOOK_FILE_MISSING", &file.path, "is not there".to_owned()),
            Err(error) => add("HOOK_FILE_CHANGED", &file.path, error.to_string()),
        }
        if let Ok(found) = fs::symlink_metadata(&file.path)
            && found.permissions().mode() & 0o7777 != file.mode
        {
            let mode = found.permissions().mode() & 0o7777;
            add(
                "HOOK_FILE_MODE",
                &file.path,
                format!("has mode {mode:04o}, not {:04o}", file.mode),
            );
        }
        for path in file.path.ancestors() {
            if let Some(what) = others_may_change(path) {
                add("HOOK_FILE_NOT_ROOTS", path, what);
            }
        }
    }
    let attestor = &manifest.site.attestor;
    if !attestor.is_file() {
        add("HOOK_FILE_MISSING", attestor, "is not there".to_owned());
    }
    // By its name, and where links lead.
    let itself = fs::canonicalize(attestor).unwrap_or_else(|_| attestor.clone());
    let above = attestor.ancestors().chain(itself.ancestors());
    for path in above.chain(manifest.site.hooks().ancestors()) {
        if let Some(what) = others_may_change(path) {
            add("HOOK_FILE_NOT_ROOTS", path, what);
        }
    }
    let units = root.join("etc/systemd/system");
    let is_wanted_by = |wants: &str, unit: &str| {
        fs::symlink_metadata(units.join(format!("{wants}.wants")).join(unit)).is_ok()
    };
    if system == HookSystem::GitHub {
        let unit = units.join(STOP_UNIT);
        if !["multi-user.target", "paths.target"].iter().any(|by| is_wanted_by(by, STOP_UNIT)) {
            let what = format!("is not enabled: run `systemctl enable --now {STOP_UNIT}`");
            add("HOOK_UNIT_NOT_ENABLED", &unit, what);
        } else if root == Path::new("/")
            && let Some(state) = not_active(Path::new(BOOTED), Path::new(SYSTEMCTL), STOP_UNIT)
        {
            let what = format!("is {state}: run `systemctl restart {STOP_UNIT}`");
            add("HOOK_UNIT_NOT_ACTIVE", &unit, what);
        }
    }
    let runner = match system {
        HookSystem::GitHub => Some("assay-github-runner.service"),
        HookSystem::Jenkins => Some("assay-jenkins-agent.service"),
        HookSystem::Buildkite | HookSystem::GitLab | HookSystem::Tekton => None,
    };
    // An older version's were enabled for the boot alone: they stayed off when the daemon was started again.
    if let Some(runner) = runner
        && is_wanted_by("multi-user.target", runner)
        && !is_wanted_by("assay-attestor.service", runner)
    {
        let what = format!("does not come back with the daemon: run `systemctl reenable {runner}`");
        add("HOOK_UNIT_NOT_ENABLED", &units.join(runner), what);
    }
    if let (Some(list), Some(entry)) = (&manifest.tools, tool_entry::entry(&manifest.site, &files))
        && !tool_entry::read(list)?.contains(&entry)
    {
        let what = format!("lacks the entry {}: the hooks are not measured", system.tool_name());
        add("HOOK_NOT_MEASURED", list, what);
    }
    for what in configuration(config, system, &manifest) {
        add("HOOK_NOT_CONFIGURED", config, what);
    }
    problems.sort_by(|a, b| (&a.path, a.code).cmp(&(&b.path, b.code)));
    problems.dedup();
    Ok(problems)
}

/// Whether somebody but root can put another file in its place. Nobody can in a folder with the sticky bit, if the file is root's.
fn others_may_change(path: &Path) -> Option<String> {
    let found = fs::symlink_metadata(path).ok()?;
    if found.file_type().is_symlink() {
        return None;
    }
    let mode = found.permissions().mode();
    if found.uid() != 0 {
        return Some(format!("belongs to user {}, not to root", found.uid()));
    }
    let is_open = mode & 0o022 != 0 && !(found.is_dir() && mode & 0o1000 != 0);
    is_open.then(|| format!("has mode {:04o}: others may write to it", mode & 0o7777))
}

/// The state of a unit that does not run; `None` where it runs, or nobody can tell: in a container, an image.
fn not_active(booted: &Path, systemctl: &Path, unit: &str) -> Option<String> {
    if !booted.is_dir() {
        return None;
    }
    let asked = Command::new(systemctl)
        .args(["is-active", "--", unit])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let state = String::from_utf8(asked.ok()?.stdout).ok()?.trim().to_owned();
    ["inactive", "failed", "deactivating"].contains(&state.as_str()).then_some(state)
}

/// What the daemon's configuration lacks for these hooks.
fn configuration(path: &Path, system: HookSystem, manifest: &Manifest) -> Vec<String> {
    // Nothing of a cluster's is on the worker.
    if system == HookSystem::Tekton {
        return Vec::new();
    }
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return vec![error.to_string()],
    };
    let Some(jobs) = config.jobs else {
        return vec!["has no [jobs]: the daemon gives no permits".to_owned()];
    };
    let mut missing = Vec::new();
    let user = &manifest.site.user;
    match uid_of(user) {
        Ok(uid) if uid != 0 && !jobs.users.contains(&uid) => {
            missing.push(format!("jobs.users lacks {user:?}"));
        }
        Ok(_) => {}
        Err(error) => missing.push(error.to_string()),
    }
    // The runner's registration and Jenkins' agents are no jobs of their system.
    let needed: &[CiSystem] = match system {
        HookSystem::Buildkite => &[CiSystem::Buildkite],
        HookSystem::GitHub => &[CiSystem::GitHub, CiSystem::Generic],
        HookSystem::GitLab => &[CiSystem::GitLab],
        HookSystem::Jenkins => &[CiSystem::Generic],
        HookSystem::Tekton => &[],
    };
    if !jobs.systems.is_empty() {
        let lacking = needed.iter().filter(|system| !jobs.systems.contains(system));
        missing.extend(lacking.map(|system| format!("jobs.systems lacks \"{system}\"")));
    }
    if config.tools != *manifest.tools.as_ref().unwrap_or(&config.tools) {
        missing.push(format!("tools.list is {}, another one", config.tools.display()));
    }
    if system == HookSystem::GitHub {
        let stop = manifest.site.hooks().join("stop.sh").display().to_string();
        for (name, action) in [("on_end", &jobs.on_end), ("on_refused", &jobs.on_refused)] {
            if !action.iter().any(|argument| argument == &stop) {
                missing.push(format!(
                    "jobs.{name} should be [\"{stop}\"], after which {STOP_UNIT} stops the runner: it keeps running steps \
                     after a refusal"
                ));
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_unit_is_asked_for_where_systemd_runs_and_answers() {
        let folder = tempfile::tempdir().expect("folder");
        let systemctl = folder.path().join("systemctl");
        let says = |script: &str| {
            let beside = folder.path().join("new");
            fs::write(&beside, format!("#!/bin/sh\n{script}\n")).expect("write");
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("mode");
            fs::rename(&beside, &systemctl).expect("rename");
            not_active(folder.path(), &systemctl, STOP_UNIT)
        };
        for state in ["inactive", "failed"] {
            let script = format!("[ \"$*\" = 'is-active -- {STOP_UNIT}' ] && echo {state}; exit 3");
            assert_eq!(says(&script).as_deref(), Some(state));
        }
        assert_eq!(says("echo active"), None);
        assert_eq!(says("echo 'Failed to connect to bus: Host is down' >&2; exit 1"), None);
        let systemctl = folder.path().join("none");
        assert_eq!(not_active(folder.path(), &systemctl, STOP_UNIT), None);
        assert_eq!(not_active(&systemctl, Path::new("/bin/false"), STOP_UNIT), None);
    }
}
