//! Installing and removing: looked at first, then done; what is not ours is left alone, or kept.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;

use super::{
    HookError, HookSystem, RenderedFile, Site,
    manifest::{Installed, Manifest, sha256},
    paths, tool_entry,
};

/// How hooks are installed or removed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The tool list; the one below the root if `None`.
    pub tools: Option<PathBuf>,
    /// Also over files that are not ours or were changed; they are kept beside.
    pub is_forced: bool,
    /// Only say what would be done.
    pub is_dry: bool,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was not there.
    Create,
    /// As it should be: untouched.
    Keep,
    /// Changed since, and gives its place to the one that was there before; it is kept beside under that one's name.
    Exchange,
    /// Not as we left it: stays.
    Leave,
    /// Ours, and gone now.
    Remove,
    /// Ours of another version or site.
    Replace,
    /// Another one stood there, is kept beside, and comes back when the hooks are removed.
    ReplaceForeign,
    /// The one that was there before is back.
    Restore,
    /// Changed since: gone from its place, and kept beside.
    Save,
}

/// One file and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The file.
    pub path: PathBuf,
    /// What is done.
    pub action: Action,
}

/// What is done, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The system.
    pub system: HookSystem,
    /// Whether nothing was changed because nothing was to be.
    pub is_dry: bool,
    /// Every file.
    pub files: Vec<Outcome>,
    /// The tool list, if the system has measured files.
    pub tools: Option<Outcome>,
    /// The entry in the tool list.
    pub entry: Option<String>,
}

/// Whether hooks of this system are recorded below this root.
///
/// # Errors
/// `HOOK_MANIFEST_INVALID`, `HOOK_FILE_UNUSABLE`.
pub fn is_installed(root: &Path, system: HookSystem) -> Result<bool, HookError> {
    Ok(Manifest::read(root, system)?.is_some())
}

/// Installs a system's files and has them measured. Doing it twice changes nothing.
///
/// # Errors
/// [`HookError`]; before anything is changed, except where a file cannot be written.
pub fn install(site: &Site, options: &Options) -> Result<Report, HookError> {
    let before = Manifest::read(&site.root, site.system)?;
    let files = site.files();
    let mut report = Report {
        system: site.system,
        is_dry: options.is_dry,
        files: Vec::new(),
        tools: None,
        entry: tool_entry::entry(site, &files),
    };
    for file in &files {
        let action = action(file, before.as_ref(), options)?;
        report.files.push(Outcome { path: file.path.clone(), action });
    }
    let list = options.tools.clone().unwrap_or_else(|| site.tool_list());
    let mut new_list = None;
    if let Some(entry) = &report.entry {
        let text = tool_entry::read(&list)?;
        let wanted = tool_entry::changed(&list, &text, site.system, Some(entry))?;
        let action = match (paths::is_there(&list), text == wanted) {
            (_, true) => Action::Keep,
            (true, false) => Action::Replace,
            (false, false) => Action::Create,
        };
        report.tools = Some(Outcome { path: list.clone(), action });
        new_list = (action != Action::Keep).then_some(wanted);
    }
    // An older version's files that this one has not.
    let is_wanted = |file: &Installed| files.iter().any(|now| now.path == file.path);
    let recorded = before.iter().flat_map(|before| &before.files);
    for old in recorded.filter(|file| !is_wanted(file)) {
        let outcome = Outcome { path: old.path.clone(), action: planned(old, options)? };
        report.files.push(outcome);
    }
    if options.is_dry {
        return Ok(report);
    }
    let mut manifest = Manifest::new(site.clone(), report.entry.as_ref().map(|_| list.clone()));
    if let Some(before) = &before {
        manifest.folders.clone_from(&before.folders);
        manifest.files.clone_from(&before.files);
    }
    manifest.folders.extend(paths::make_folders(&manifest.own_path())?);
    for (file, outcome) in files.iter().zip(&report.files) {
        manifest.folders.extend(paths::make_folders(&file.path)?);
        let known = before.as_ref().and_then(|before| before.file(&file.path));
        let is_foreign = outcome.action == Action::ReplaceForeign;
        let keeps_one = known.is_some_and(|known| known.is_saved);
        if is_foreign {
            // The first stays the one that comes back.
            let saved = match keeps_one {
                false => paths::saved(&file.path),
                true => paths::saved_too(&file.path),
            };
            fs::rename(&file.path, &saved).map_err(HookError::io("keep", &file.path))?;
        }
        if outcome.action != Action::Keep {
            paths::replace(&file.path, file.content.as_bytes(), file.mode)?;
        }
        manifest.put(Installed {
            path: file.path.clone(),
            sha256: sha256(file.content.as_bytes()),
            // What comes back is what was there before the first time, not what somebody made of ours since.
            is_saved: keeps_one || (is_foreign && known.is_none()),
        });
        // After each file: what is there is known to be ours, wherever this is cut off.
        manifest.write()?;
    }
    let older = report.files.get(files.len()..).unwrap_or_default();
    for outcome in older {
        take_away(outcome)?;
    }
    let is_left = |file: &Installed| {
        older.iter().any(|old| old.path == file.path && old.action == Action::Leave)
    };
    manifest.files.retain(|file| is_wanted(file) || is_left(file));
    if let Some(text) = new_list {
        manifest.folders.extend(tool_entry::write(&list, &text)?);
    }
    manifest.write()?;
    Ok(report)
}

/// What is to be done with a file, if it may be.
fn action(
    file: &RenderedFile,
    before: Option<&Manifest>,
    options: &Options,
) -> Result<Action, HookError> {
    if !paths::is_there(&file.path) {
        return Ok(Action::Create);
    }
    let found = match paths::read(&file.path) {
        Ok(found) => found.unwrap_or_default(),
        // A link, a folder: somebody else's in any case.
        Err(_) => return foreign(&file.path, before, options),
    };
    if found == file.content.as_bytes() {
        let mode = fs::symlink_metadata(&file.path).map_err(HookError::io("read", &file.path))?;
        let is_right = mode.permissions().mode() & 0o7777 == file.mode;
        return Ok(if is_right { Action::Keep } else { Action::Replace });
    }
    let known = before.and_then(|before| before.file(&file.path));
    match known {
        Some(known) if known.sha256 == sha256(&found) => Ok(Action::Replace),
        _ => foreign(&file.path, before, options),
    }
}

fn foreign(path: &Path, before: Option<&Manifest>, options: &Options) -> Result<Action, HookError> {
    let saved = paths::saved(path);
    let keeps_one = before.and_then(|before| before.file(path)).is_some_and(|file| file.is_saved);
    // A kept file that nobody recorded is not overwritten either.
    if !options.is_forced || (paths::is_there(&saved) && !keeps_one) {
        return Err(HookError::Foreign { path: path.to_owned(), saved });
    }
    let next = paths::saved_too(path);
    if keeps_one && paths::is_there(&next) {
        return Err(HookError::Foreign { path: path.to_owned(), saved: next });
    }
    Ok(Action::ReplaceForeign)
}

/// Removes what was installed, and puts back what was there before.
///
/// Where a file was changed and this is not forced, nothing is removed: what stays in force stays measured, and recorded.
///
/// # Errors
/// [`HookError`].
pub fn remove(root: &Path, system: HookSystem, options: &Options) -> Result<Report, HookError> {
    let manifest = Manifest::read(root, system)?.ok_or(HookError::NotInstalled(system))?;
    let mut report =
        Report { system, is_dry: options.is_dry, files: Vec::new(), tools: None, entry: None };
    for file in &manifest.files {
        let action = planned(file, options)?;
        report.files.push(Outcome { path: file.path.clone(), action });
    }
    let is_left = report.files.iter().any(|file| file.action == Action::Leave);
    if is_left {
        for file in report.files.iter_mut().filter(|file| file.action != Action::Leave) {
            file.action = Action::Keep;
        }
    }
    // The list first: a worker must not be denied because of files that are gone.
    if let Some(list) = &manifest.tools {
        let text = tool_entry::read(list)?;
        let wanted = tool_entry::changed(list, &text, system, None)?;
        let is_same = text == wanted || is_left;
        let action = if is_same { Action::Keep } else { Action::Replace };
        if !options.is_dry && action == Action::Replace {
            tool_entry::write(list, &wanted)?;
        }
        report.tools = Some(Outcome { path: list.clone(), action });
    }
    if options.is_dry || is_left {
        return Ok(report);
    }
    for outcome in &report.files {
        take_away(outcome)?;
    }
    let own = manifest.own_path();
    fs::remove_file(&own).map_err(HookError::io("remove", &own))?;
    for folder in manifest.folders.iter().rev() {
        // Stays where something of others is in it.
        let _ = fs::remove_dir(folder);
    }
    Ok(report)
}

/// What becomes of a file that goes.
fn planned(file: &Installed, options: &Options) -> Result<Action, HookError> {
    let path = &file.path;
    let saved = paths::saved(path);
    let found = paths::read(path).ok().flatten();
    let is_linked = found.is_none() && paths::is_there(path);
    let is_ours = !is_linked && found.is_none_or(|found| sha256(&found) == file.sha256);
    // One that was kept and is gone cannot come back; that is no reason to keep ours.
    let comes_back = file.is_saved && paths::is_there(&saved);
    match (is_ours, comes_back) {
        (true, true) => Ok(Action::Restore),
        (true, false) => Ok(Action::Remove),
        (false, _) if !options.is_forced => Ok(Action::Leave),
        (false, true) => Ok(Action::Exchange),
        // A kept file that nobody recorded is not overwritten.
        (false, false) if paths::is_there(&saved) => {
            Err(HookError::Foreign { path: path.clone(), saved })
        }
        (false, false) => Ok(Action::Save),
    }
}

/// Does what is planned for a file that goes.
fn take_away(Outcome { path, action }: &Outcome) -> Result<(), HookError> {
    let saved = paths::saved(path);
    match action {
        Action::Remove => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HookError::io("remove", path)(error))
            }
            _ => Ok(()),
        },
        Action::Restore => fs::rename(&saved, path).map_err(HookError::io("restore", path)),
        Action::Save => fs::rename(path, &saved).map_err(HookError::io("keep", path)),
        // Each takes the other's place.
        Action::Exchange => renameat_with(CWD, path, CWD, &saved, RenameFlags::EXCHANGE)
            .map_err(|error| HookError::io("restore", path)(error.into())),
        _ => Ok(()),
    }
}
