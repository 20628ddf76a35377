//! The hooks' entry in the tool list: between two marks, so that it is found again, and never in anybody else's lines.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{HookError, HookSystem, RenderedFile, Site, paths};
use crate::measure::ToolList;

/// The entry with its marks; `None` for a system of which nothing is measured.
///
/// The program that the hooks call decides as they do, so it is measured with them.
pub(super) fn entry(site: &Site, files: &[RenderedFile]) -> Option<String> {
    let measured = files.iter().filter(|file| file.is_measured).map(|file| &file.path);
    let mut measured: Vec<String> = measured.map(|path| path.display().to_string()).collect();
    if measured.is_empty() {
        return None;
    }
    measured.push(site.attestor.display().to_string());
    let (begin, end) = marks(site.system);
    let name = site.system.tool_name();
    let mut text = format!("{begin}\n[[tool]]\nname = \"{name}\"\npaths = [\n");
    for path in measured {
        let _ = writeln!(text, "    \"{path}\",");
    }
    let _ = write!(text, "]\n{end}\n");
    Some(text)
}

fn marks(system: HookSystem) -> (String, String) {
    let name = system.tool_name();
    (
        format!("# begin {name}: written by `attestor hook install {system}`"),
        format!("# end {name}"),
    )
}

/// The list with `entry` in place of the one that it had, or without any.
///
/// # Errors
/// `HOOK_TOOLS_INVALID`: one mark without the other, or a list that is none afterwards.
pub(super) fn changed(
    path: &Path,
    text: &str,
    system: HookSystem,
    entry: Option<&str>,
) -> Result<String, HookError> {
    let wrong = |what: String| HookError::Tools { path: path.to_owned(), what };
    let (begin, end) = marks(system);
    let mut rest = String::with_capacity(text.len());
    let (mut is_ours, mut seen) = (false, 0);
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if bare == begin && !is_ours {
            (is_ours, seen) = (true, seen + 1);
        } else if bare == end && is_ours {
            is_ours = false;
        } else if bare == begin || bare == end {
            return Err(wrong(format!("a mark of {} without its other", system.tool_name())));
        } else if !is_ours {
            rest.push_str(line);
        }
    }
    if is_ours || seen > 1 {
        return Err(wrong(format!("the marks of {} do not match", system.tool_name())));
    }
    if let Some(entry) = entry {
        if !rest.is_empty() {
            rest.truncate(rest.trim_end().len());
            rest.push_str("\n\n");
        }
        rest.push_str(entry);
    } else if seen > 0 {
        rest.truncate(rest.trim_end().len());
        if !rest.is_empty() {
            rest.push('\n');
        }
    }
    ToolList::parse(&rest).map_err(|error| wrong(error.to_string()))?;
    Ok(rest)
}

/// What a list says; empty if there is none.
pub(super) fn read(path: &Path) -> Result<String, HookError> {
    let bytes = paths::read(path)?.unwrap_or_default();
    String::from_utf8(bytes)
        .map_err(|_| HookError::Tools { path: path.to_owned(), what: "not UTF-8".to_owned() })
}

/// Writes the list with the permissions, user and group that it had; gives folders that were made.
pub(super) fn write(path: &Path, text: &str) -> Result<Vec<PathBuf>, HookError> {
    let made = paths::make_folders(path)?;
    let (mode, owner) = fs::metadata(path).map_or((0o644, (0, 0)), |found| {
        (found.permissions().mode() & 0o7777, (found.uid(), found.gid()))
    });
    paths::replace_as(path, text.as_bytes(), mode, owner)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &str = "# ours\n[[tool]]\nname = \"make\"\npaths = [\"/usr/bin/make\"] # here\n";

    fn github() -> (Site, String) {
        let site = Site {
            system: HookSystem::GitHub,
            root: "/".into(),
            attestor: "/usr/bin/attestor".into(),
            socket: "/run/assay/job.sock".into(),
            user: "runner".to_owned(),
            audience: None,
        };
        let entry = entry(&site, &site.files()).expect("an entry");
        (site, entry)
    }

    fn put(text: &str, entry: Option<&str>) -> Result<String, HookError> {
        changed(Path::new("/tools.toml"), text, HookSystem::GitHub, entry)
    }

    #[test]
    fn an_entry_comes_once_and_goes_without_a_trace() {
        let (_, entry) = github();
        let with = put(OTHERS, Some(&entry)).expect("put");
        assert!(with.starts_with(OTHERS), "{with}");
        let list = ToolList::parse(&with).expect("a list");
        let ours = list.tools().iter().find(|tool| tool.name == "assay-hook-github");
        let ours = ours.expect("the entry");
        assert!(ours.required && ours.closure);
        assert!(ours.paths.iter().any(|path| path.matches(b"/usr/bin/attestor")));
        assert_eq!(put(&with, Some(&entry)).expect("again"), with);
        let other = entry.replace("/usr/bin/attestor", "/opt/attestor");
        let moved = put(&with, Some(&other)).expect("another");
        assert!(moved.contains("/opt/attestor") && !moved.contains("/usr/bin/attestor"));
        assert_eq!(put(&with, None).expect("away"), OTHERS);
        assert_eq!(put("", Some(&entry)).expect("first"), entry);
        assert_eq!(put(&entry, None).expect("last"), "");
    }

    #[test]
    fn lines_that_are_not_ours_are_never_taken_for_ours() {
        let (_, entry) = github();
        let (begin, end) = marks(HookSystem::GitHub);
        for text in [
            format!("{OTHERS}{begin}\n"),
            format!("{OTHERS}{end}\n"),
            format!("{begin}\n{begin}\n{end}\n"),
            format!("{entry}{entry}"),
            // By hand, without marks.
            "[[tool]]\nname = \"assay-hook-github\"\npaths = [\"/a\"]\n".to_owned(),
            "[[tol]]\n".to_owned(),
        ] {
            let error = put(&text, Some(&entry)).expect_err(&text);
            assert_eq!(error.code(), "HOOK_TOOLS_INVALID", "{error}");
        }
        // Another system's entry stays.
        let text = entry.replace("github", "gitlab");
        assert!(put(&text, None).expect("untouched").contains("assay-hook-gitlab"));
    }
}
