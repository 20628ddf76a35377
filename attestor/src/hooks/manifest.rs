//! The record of what was installed: what may be replaced and removed, and what is somebody else's.

use std::path::{Path, PathBuf};

use proto::digest::HashAlg;
use serde::{Deserialize, Serialize};

use super::{HookError, HookSystem, Site, paths};

/// Version of the record's form.
const FORMAT: u32 = 1;
/// Most files of a system.
const MAX_FILES: usize = 64;

/// What was installed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// What was filled in.
    pub(super) site: Site,
    /// The tool list with the entry; `None` where the system has none.
    pub(super) tools: Option<PathBuf>,
    /// The files.
    pub(super) files: Vec<Installed>,
    /// Folders that were made for them, upper ones first.
    pub(super) folders: Vec<PathBuf>,
}

/// One file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Installed {
    /// Where.
    pub(super) path: PathBuf,
    /// SHA-256 of what was written, hexadecimal.
    pub(super) sha256: String,
    /// Whether a file of somebody else's was there, and is kept.
    pub(super) is_saved: bool,
}

impl Manifest {
    pub(super) fn new(site: Site, tools: Option<PathBuf>) -> Self {
        Self { format: FORMAT, site, tools, files: Vec::new(), folders: Vec::new() }
    }

    fn path(root: &Path, system: HookSystem) -> PathBuf {
        root.join("usr/lib/assay/hooks").join(system.as_str()).join("installed.json")
    }

    /// Reads the record below a root; `None` if nothing is installed.
    pub(super) fn read(root: &Path, system: HookSystem) -> Result<Option<Self>, HookError> {
        let path = Self::path(root, system);
        let Some(bytes) = paths::read(&path)? else { return Ok(None) };
        let wrong = |what: String| HookError::Manifest { path: path.clone(), what };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(wrong(format!("form {} is not known, only {FORMAT}", manifest.format)));
        }
        if manifest.site.system != system || manifest.site.root != root {
            return Err(wrong("it is of another system or folder".to_owned()));
        }
        if manifest.files.len() > MAX_FILES {
            return Err(wrong(format!("more than {MAX_FILES} files")));
        }
        let listed = manifest.files.iter().map(|file| &file.path).chain(&manifest.folders);
        if let Some(outside) = listed.into_iter().find(|path| !is_below(path, root)) {
            return Err(wrong(format!("{} is not below {}", outside.display(), root.display())));
        }
        Ok(Some(manifest))
    }

    /// Writes it.
    pub(super) fn write(&self) -> Result<(), HookError> {
        let path = Self::path(&self.site.root, self.site.system);
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        paths::replace(&path, &text, 0o644)
    }

    /// Where it lies.
    pub(super) fn own_path(&self) -> PathBuf {
        Self::path(&self.site.root, self.site.system)
    }

    /// Records a file, in place of what was recorded of it.
    pub(super) fn put(&mut self, file: Installed) {
        self.files.retain(|known| known.path != file.path);
        self.files.push(file);
    }

    /// The record of one file.
    pub(super) fn file(&self, path: &Path) -> Option<&Installed> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn is_below(path: &Path, root: &Path) -> bool {
    use std::path::Component;
    path.starts_with(root) && !path.components().any(|part| part == Component::ParentDir)
}

/// SHA-256, hexadecimal.
pub(super) fn sha256(content: &[u8]) -> String {
    hex::encode(HashAlg::Sha256.hash(&[content]).as_bytes())
}
