//! Evidence blobs by digest in a local folder.
//!
//! # Format
//! `FOLDER/aa/bb/<64 hex digits>`, where `aa` and `bb` are the first two bytes of the SHA-256 of the
//! content, which is stored plain. A file is complete or not there: it is written under a temporary
//! name, synced, renamed, and its folder synced. Reading hashes what was read.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::digest::{Digest, HashAlg};

use crate::{audit::sync_folder, store::StoreError};

/// Largest object: an IMA list at its limit with room for a container around it.
pub const MAX_OBJECT_BYTES: u64 = proto::limits::MAX_IMA_LOG_BYTES as u64 + 1024 * 1024;

/// A folder of objects. Cheap to clone. Methods block: call them off the reactor threads.
#[derive(Clone, Debug)]
pub struct Objects {
    folder: Arc<Path>,
    pins: Arc<Mutex<Pins>>,
}

/// Objects that are in use by a decision not committed yet, and those about to be deleted.
#[derive(Debug, Default)]
struct Pins {
    held: HashMap<Digest, usize>,
    condemned: HashSet<Digest>,
}

/// An object that is stored and that retention keeps for as long as this value lives: hold it until
/// the decision that names it is committed.
#[derive(Debug)]
#[must_use]
pub struct StoredObject {
    digest: Digest,
    pins: Arc<Mutex<Pins>>,
}

impl StoredObject {
    /// SHA-256 of the content.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl Clone for StoredObject {
    fn clone(&self) -> Self {
        *lock(&self.pins).held.entry(self.digest).or_insert(0) += 1;
        Self { digest: self.digest, pins: Arc::clone(&self.pins) }
    }
}

impl Drop for StoredObject {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        if let Some(count) = pins.held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.held.remove(&self.digest);
            }
        }
    }
}

/// The pins stay consistent at every panic point, so a poisoned lock is as good as another.
fn lock(pins: &Mutex<Pins>) -> MutexGuard<'_, Pins> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

impl Objects {
    /// Opens a folder, made with mode 0700 if it is absent, and removes what a crash left half done.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::DiskFull`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let objects = Self::at(folder);
        let temporary = objects.temporary_folder();
        make_folder(&temporary)?;
        let unfinished = fs::read_dir(&temporary)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|error| StoreError::io("list", &temporary, error))?;
        for path in unfinished {
            fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        }
        Ok(objects)
    }

    /// A folder that is only read.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.into(), pins: Arc::default() }
    }

    fn temporary_folder(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Path of an object relative to the folder.
    #[must_use]
    pub fn relative_path(digest: &Digest) -> PathBuf {
        let name = hex::encode(digest.as_bytes());
        [&name[..2], &name[2..4], &name].iter().collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(Self::relative_path(digest))
    }

    /// Stores bytes; storing them again changes nothing, and heals a damaged copy.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<StoredObject, StoreError> {
        if bytes.len() as u64 > MAX_OBJECT_BYTES {
            let bytes = bytes.len() as u64;
            return Err(StoreError::TooLarge { what: "evidence", bytes, limit: MAX_OBJECT_BYTES });
        }
        let digest = HashAlg::Sha256.hash(&[bytes]);
        let object = self.pin(digest);
        let path = self.path(&digest);
        if self.get(&digest).is_ok() {
            return Ok(object);
        }
        let folder = path.parent().unwrap_or(&self.folder);
        make_folder(folder)?;
        let name = format!("{}-{}", std::process::id(), TEMPORARY.fetch_add(1, Ordering::Relaxed));
        let temporary = self.temporary_folder().join(name);
        let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written.and_then(|()| sync_folder(&path)) {
            // The half file would be removed at the next start as well.
            let _ = fs::remove_file(&temporary);
            return Err(StoreError::io("write", &path, error));
        }
        Ok(object)
    }

    fn pin(&self, digest: Digest) -> StoredObject {
        let mut pins = lock(&self.pins);
        *pins.held.entry(digest).or_default() += 1;
        pins.condemned.remove(&digest);
        StoredObject { digest, pins: Arc::clone(&self.pins) }
    }

    /// Bytes of an object, hashed again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::DigestMismatch`] for a damaged file,
    /// [`StoreError::TooLarge`], [`StoreError::Io`].
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let file = fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StoreError::NotFound { what: "evidence object", key: digest.to_string() }
            }
            _ => StoreError::io("read", &path, error),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_OBJECT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| StoreError::io("read", &path, error))?;
        if bytes.len() as u64 > MAX_OBJECT_BYTES {
            let bytes = bytes.len() as u64;
            return Err(StoreError::TooLarge { what: "evidence", bytes, limit: MAX_OBJECT_BYTES });
        }
        let observed = HashAlg::Sha256.hash(&[&bytes]);
        if observed != *digest {
            let (expected, observed) = (Box::new(*digest), Box::new(observed));
            return Err(StoreError::DigestMismatch { path, expected, observed });
        }
        Ok(bytes)
    }

    /// Every stored object with its size, bytes; files with other names are passed over.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut found = Vec::new();
        let mut folders = vec![(self.folder.to_path_buf(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let failed = |error| StoreError::io("list", &folder, error);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    // Removed since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
                if metadata.is_dir() && depth < 2 && name.len() == 2 {
                    folders.push((entry.path(), depth + 1));
                } else if metadata.is_file()
                    && depth == 2
                    && let Ok(digest) = format!("sha256:{name}").parse()
                {
                    found.push((digest, metadata.len()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Announces a deletion; `false` if the object is in use. Follow with a check that nothing
    /// refers to it, then [`Self::delete_condemned`].
    pub(crate) fn condemn(&self, digest: &Digest) -> bool {
        let mut pins = lock(&self.pins);
        !pins.held.contains_key(digest) && {
            pins.condemned.insert(*digest);
            true
        }
    }

    pub(crate) fn spare(&self, digest: &Digest) {
        lock(&self.pins).condemned.remove(digest);
    }

    /// Deletes an object unless somebody stored it again since it was condemned.
    pub(crate) fn delete_condemned(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut pins = lock(&self.pins);
        if !pins.condemned.remove(digest) {
            return Ok(false);
        }
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", &path, error)),
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a folder of mode 0700 with its parents; each new entry is synced.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_folder(path).map_err(|error| StoreError::io("sync", path, error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("create", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let objects = Objects::open(&folder.path().join("objects")).expect("open");
        (folder, objects)
    }

    #[test]
    fn bytes_come_back_and_storing_twice_is_one_object() {
        let (_folder, objects) = objects();
        let first = objects.put(b"evidence").expect("put");
        let second = objects.put(b"evidence").expect("put again");
        assert_eq!(first.digest(), second.digest());
        assert_eq!(objects.get(&first.digest()).expect("get"), b"evidence");
        assert_eq!(objects.list().expect("list"), vec![(first.digest(), 8)]);
    }

    #[test]
    fn a_changed_object_is_refused_and_healed_by_storing_it_again() {
        let (_folder, objects) = objects();
        let object = objects.put(b"evidence").expect("put");
        let path = objects.path(&object.digest());
        fs::write(&path, b"evidencf").expect("tamper");
        let error = objects.get(&object.digest()).expect_err("tampered");
        let expected = HashAlg::Sha256.hash(&[b"evidencf"]);
        assert!(
            matches!(error, StoreError::DigestMismatch { observed, .. } if *observed == expected)
        );
        let _again = objects.put(b"evidence").expect("put again");
        assert_eq!(objects.get(&object.digest()).expect("healed"), b"evidence");
    }

    #[test]
    fn an_absent_object_is_not_found() {
        let (_folder, objects) = objects();
        let error = objects.get(&HashAlg::Sha256.hash(&[b"x"])).expect_err("absent");
        assert!(matches!(error, StoreError::NotFound { what: "evidence object", .. }));
    }

    #[test]
    fn a_half_written_file_is_removed_at_the_next_start() {
        let (folder, objects) = objects();
        let left = objects.temporary_folder().join("1-1");
        fs::write(&left, b"half").expect("leave");
        let again = Objects::open(&folder.path().join("objects")).expect("open");
        assert!(!left.exists());
        assert_eq!(again.list().expect("list"), vec![]);
    }

    #[test]
    fn an_object_in_use_is_not_deleted() {
        let (_folder, objects) = objects();
        let object = objects.put(b"evidence").expect("put");
        let digest = object.digest();
        assert!(!objects.condemn(&digest));
        drop(object);
        assert!(objects.condemn(&digest));
        let again = objects.put(b"evidence").expect("put between");
        drop(again);
        assert!(!objects.delete_condemned(&digest).expect("spared"));
        assert!(objects.condemn(&digest));
        assert!(objects.delete_condemned(&digest).expect("deleted"));
        assert_eq!(objects.list().expect("list"), vec![]);
    }

    #[test]
    fn a_full_disk_is_named() {
        let error = StoreError::io(
            "write",
            Path::new("/state/objects"),
            io::Error::from(io::ErrorKind::StorageFull),
        );
        assert!(matches!(error, StoreError::DiskFull { .. }));
        assert!(error.to_string().contains("free some"));
    }
}
