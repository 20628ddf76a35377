//! Backup of a state folder while it is in use, and restore into an empty place.
//!
//! # Format
//! A folder with `assay.db` (a consistent copy), `objects/…` (every object that the copy needs),
//! `audit.head` (the anchor as of the copy), `keys/…` where asked for, and `manifest.json`, written
//! last: format, time, schema version, chain heads, and path, size and SHA-256 of every other file.
//! A folder without a manifest is a backup that did not finish.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use proto::digest::{Digest, HashAlg};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{
    audit::{ANCHOR_FILE, ChainHead, ChainReport, sync_folder, write_anchor, write_atomically},
    objects::{Objects, make_folder},
    store::{self, DATABASE_FILE, OBJECTS_FOLDER, SCHEMA_VERSION, Store, StoreError, StoreOptions},
};

/// Name of the manifest in a backup.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Folder of key files in a backup.
pub const KEYS_FOLDER: &str = "keys";
/// Two million files of 100 bytes.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024 * 1024;
const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// When it was made, unix seconds.
    pub created_at: i64,
    /// Schema of the database.
    pub schema_version: i64,
    /// Ends of the audit chains in the copy.
    pub heads: Vec<ChainHead>,
    /// Whether key files are in it: then it must be kept as the keys are.
    pub with_keys: bool,
    /// Every file but the manifest, by path with `/`.
    pub files: BTreeMap<String, FileRecord>,
}

/// One file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Size.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: Digest,
}

/// What a restore checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The manifest.
    pub manifest: Manifest,
    /// The walk over the audit chain of the restored database.
    pub chain: ChainReport,
}

/// Copies a store in use to `target`, which must be absent or empty.
///
/// `keys` are key files to include, named in the backup by their file names; a backup without keys
/// can't issue certificates until the keys are put back from where they are kept.
///
/// # Errors
/// [`StoreError::TargetNotEmpty`], [`StoreError::DiskFull`], [`StoreError::Io`],
/// [`StoreError::DigestMismatch`] for a damaged object, [`StoreError::Database`].
pub async fn backup(
    store: &Store,
    target: &Path,
    keys: &[PathBuf],
    now: i64,
) -> Result<Manifest, StoreError> {
    // Nothing is deleted while objects are copied.
    let _alone = store.maintenance().await;
    refuse_content(target)?;
    make_folder(target)?;
    let database = target.join(DATABASE_FILE);
    store.snapshot_into(&database).await?;
    let schema_version = store::schema_version(&database).await?;
    let needed = store::referenced_objects(&database).await?;
    let heads = heads_of(target).await?;

    let objects = store.objects().clone();
    let (target, keys) = (target.to_owned(), keys.to_vec());
    store
        .blocking(move || {
            private(&target.join(DATABASE_FILE))?;
            write_anchor(&target, &heads)?;
            let copies = Objects::open(&target.join(OBJECTS_FOLDER))?;
            let mut files = BTreeMap::new();
            for digest in needed {
                let bytes = objects.get(&digest)?;
                // Nothing is pinned in a backup: no retention runs there.
                drop(copies.put(&bytes)?);
                let path = Path::new(OBJECTS_FOLDER).join(Objects::relative_path(&digest));
                let record = FileRecord { bytes: bytes.len() as u64, sha256: digest };
                files.insert(path.to_string_lossy().into_owned(), record);
            }
            for key in &keys {
                let name = key_name(key)?;
                let copy = target.join(KEYS_FOLDER).join(&name);
                make_folder(&target.join(KEYS_FOLDER))?;
                copy_file(key, &copy)?;
                files.insert(format!("{KEYS_FOLDER}/{name}"), record_of(&copy)?);
            }
            for name in [DATABASE_FILE, ANCHOR_FILE] {
                files.insert(name.to_owned(), record_of(&target.join(name))?);
            }
            let with_keys = !keys.is_empty();
            let manifest = Manifest {
                format: FORMAT,
                created_at: now,
                schema_version,
                heads,
                with_keys,
                files,
            };
            let path = target.join(MANIFEST_FILE);
            let bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| {
                StoreError::Manifest { path: path.clone(), why: error.to_string() }
            })?;
            write_atomically(&path, &bytes)?;
            Ok(manifest)
        })
        .await
}

/// Checks a backup and copies it into `target`, which must be absent or empty. The copy is made
/// beside the target, its audit chain walked, and put in place last. Key files go to `keys/` in it.
///
/// # Errors
/// [`StoreError::TargetNotEmpty`], [`StoreError::Manifest`], [`StoreError::DigestMismatch`],
/// [`StoreError::SchemaTooNew`], [`StoreError::NotAssay`], [`StoreError::ChainBroken`],
/// [`StoreError::DiskFull`], [`StoreError::Io`]: nothing is in the target then.
pub async fn restore(source: &Path, target: &Path, now: i64) -> Result<Restored, StoreError> {
    refuse_content(target)?;
    let manifest = read_manifest(source)?;
    let mut beside = target.as_os_str().to_owned();
    beside.push(".restoring");
    let beside = PathBuf::from(beside);
    refuse_content(&beside)?;
    let restored = fill(source, &beside, &manifest, now).await;
    let placed = restored.and_then(|chain| {
        // An empty target is replaced; a folder that filled up in the meantime is not.
        fs::rename(&beside, target)
            .and_then(|()| sync_folder(target))
            .map_err(|error| StoreError::io("put the restored folder at", target, error))?;
        Ok(chain)
    });
    if placed.is_err() {
        // Only what this call made: it was absent or empty before.
        let _ = fs::remove_dir_all(&beside);
    }
    placed.map(|chain| Restored { manifest, chain })
}

async fn fill(
    source: &Path,
    beside: &Path,
    manifest: &Manifest,
    now: i64,
) -> Result<ChainReport, StoreError> {
    let (from, to, files) = (source.to_owned(), beside.to_owned(), manifest.files.clone());
    let copied = tokio::task::spawn_blocking(move || {
        make_folder(&to)?;
        for (name, record) in &files {
            let copy = to.join(name);
            if let Some(folder) = copy.parent() {
                make_folder(folder)?;
            }
            copy_file(&from.join(name), &copy)?;
            let observed = record_of(&copy)?;
            if observed != *record {
                return Err(StoreError::DigestMismatch {
                    path: from.join(name),
                    expected: Box::new(record.sha256),
                    observed: Box::new(observed.sha256),
                });
            }
        }
        Ok(())
    });
    copied.await.map_err(|_| StoreError::Closed)??;
    store::schema_version(&beside.join(DATABASE_FILE)).await?;
    let store = Store::open(StoreOptions::new(beside), now).await?;
    let checked = async {
        let chain = store.verify_chain(|_, _| {}).await?;
        if let Some(broken) = chain.broken {
            return Err(StoreError::ChainBroken(Box::new(broken)));
        }
        if chain.heads != manifest.heads {
            let (path, why) = (source.join(MANIFEST_FILE), "chain heads differ".to_owned());
            return Err(StoreError::Manifest { path, why });
        }
        Ok(chain)
    };
    let checked = checked.await;
    store.close().await?;
    checked
}

/// Reads and checks the manifest itself; not the files that it names.
///
/// # Errors
/// [`StoreError::Manifest`], [`StoreError::SchemaTooNew`], [`StoreError::Io`].
pub fn read_manifest(source: &Path) -> Result<Manifest, StoreError> {
    let path = source.join(MANIFEST_FILE);
    let refuse = |why: String| StoreError::Manifest { path: path.clone(), why };
    let file = fs::File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse("is not there: not a backup, or not finished".to_owned()),
        _ => StoreError::io("read", &path, error),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| StoreError::io("read", &path, error))?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(refuse(format!("has more than {MAX_MANIFEST_BYTES} bytes")));
    }
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(refuse(format!("has format {}, known is {FORMAT}", manifest.format)));
    }
    if manifest.schema_version > SCHEMA_VERSION {
        let (found, supported) = (manifest.schema_version, SCHEMA_VERSION);
        return Err(StoreError::SchemaTooNew { path, found, supported });
    }
    for name in [DATABASE_FILE, ANCHOR_FILE] {
        if !manifest.files.contains_key(name) {
            return Err(refuse(format!("does not name {name}")));
        }
    }
    for name in manifest.files.keys() {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let ours = [DATABASE_FILE, ANCHOR_FILE].contains(&name.as_str())
            || [OBJECTS_FOLDER, KEYS_FOLDER]
                .iter()
                .any(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
        if !plain || !ours {
            return Err(refuse(format!("names {name:?}, which no backup holds")));
        }
    }
    Ok(manifest)
}

async fn heads_of(folder: &Path) -> Result<Vec<ChainHead>, StoreError> {
    let copy = Store::open(StoreOptions::new(folder).read_only(), 0).await?;
    let heads = copy.chain_heads().await;
    copy.close().await?;
    heads
}

fn key_name(key: &Path) -> Result<String, StoreError> {
    let name = key.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| StoreError::Invalid {
        what: "key file",
        why: format!("{} has no plain name", key.display()),
    })
}

fn refuse_content(path: &Path) -> Result<(), StoreError> {
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::TargetNotEmpty { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(StoreError::TargetNotEmpty { path: path.to_owned() })
        }
        Err(error) => Err(StoreError::io("list", path, error)),
    }
}

fn private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::File::open(path)?.sync_all())
        .map_err(|error| StoreError::io("sync", path, error))
}

/// Copies to a new file of mode 0600 and syncs it.
fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = fs::File::open(from).map_err(|error| StoreError::io("read", from, error))?;
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .and_then(|mut copy| {
            io::copy(&mut source, &mut copy)?;
            copy.sync_all()?;
            sync_folder(to)
        })
        .map_err(|error| StoreError::io("write", to, error))
}

fn record_of(path: &Path) -> Result<FileRecord, StoreError> {
    struct Hasher(sha2::Sha256);
    impl io::Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(sha2::Sha256::new());
    let hash = || -> io::Result<u64> {
        let bytes = io::copy(&mut fs::File::open(path)?, &mut hasher)?;
        hasher.flush()?;
        Ok(bytes)
    };
    let bytes = { hash }().map_err(|error| StoreError::io("read", path, error))?;
    let sha256 =
        Digest::new(HashAlg::Sha256, &hasher.0.finalize()).expect("SHA-256 digests have 32 bytes");
    Ok(FileRecord { bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{NOW, appraisal, store};

    struct Made {
        _folders: (tempfile::TempDir, tempfile::TempDir),
        store: Store,
        backup: PathBuf,
        target: PathBuf,
        manifest: Manifest,
    }

    async fn made() -> Made {
        let (folder, store) = store().await;
        let mut first = appraisal("d1", "n1");
        first.decision.case = vec![5; 100_000];
        store.record(first).await.expect("record");
        let place = tempfile::tempdir().expect("temporary folder");
        let key = place.path().join("ca.key");
        fs::write(&key, b"secret").expect("write");
        let backup = place.path().join("backup");
        let manifest = super::backup(&store, &backup, &[key], NOW).await.expect("backup");
        let target = place.path().join("restored");
        Made { _folders: (folder, place), store, backup, target, manifest }
    }

    #[tokio::test]
    async fn what_was_backed_up_in_use_is_restored_whole() {
        let made = made().await;
        assert_eq!(made.manifest.files.len(), 4);
        made.store.record(appraisal("d2", "n1")).await.expect("record after the backup");
        let restored = restore(&made.backup, &made.target, NOW).await.expect("restore");
        assert_eq!(restored.manifest, made.manifest);
        assert_eq!(restored.chain.entries, 2);
        assert_eq!(fs::read(made.target.join("keys/ca.key")).expect("key"), b"secret");
        let store = Store::open(StoreOptions::new(&made.target), NOW).await.expect("open");
        assert_eq!(store.case("d1").await.expect("read"), Some(vec![5; 100_000]));
        assert_eq!(store.decision("d2").await.expect("read"), None);
        store.record(appraisal("d2", "n1")).await.expect("goes on");
        assert_eq!(store.warnings(), &[] as &[String]);
    }

    #[tokio::test]
    async fn without_keys_none_are_copied() {
        let made = made().await;
        let other = made.backup.with_extension("other");
        let manifest = super::backup(&made.store, &other, &[], NOW).await.expect("backup");
        assert!(!manifest.with_keys && made.manifest.with_keys);
        assert!(!other.join(KEYS_FOLDER).exists());
    }

    #[tokio::test]
    async fn nothing_is_overwritten() {
        let made = made().await;
        let error = super::backup(&made.store, &made.backup, &[], NOW).await.expect_err("full");
        assert!(matches!(error, StoreError::TargetNotEmpty { .. }));
        fs::create_dir(&made.target).expect("folder");
        fs::write(made.target.join("mine"), b"x").expect("write");
        let error = restore(&made.backup, &made.target, NOW).await.expect_err("full");
        assert!(matches!(error, StoreError::TargetNotEmpty { .. }));
        assert_eq!(fs::read(made.target.join("mine")).expect("untouched"), b"x");
    }

    #[tokio::test]
    async fn a_changed_or_missing_file_is_refused_and_nothing_is_left() {
        let made = made().await;
        for name in made.manifest.files.keys() {
            let path = made.backup.join(name);
            let good = fs::read(&path).expect("read");
            let mut bad = good.clone();
            bad[0] ^= 1;
            fs::write(&path, &bad).expect("tamper");
            let error = restore(&made.backup, &made.target, NOW).await.expect_err("changed");
            assert!(matches!(error, StoreError::DigestMismatch { .. }), "{name}: {error}");
            fs::remove_file(&path).expect("remove");
            let error = restore(&made.backup, &made.target, NOW).await.expect_err("missing");
            assert!(matches!(error, StoreError::Io { doing: "read", .. }), "{name}: {error}");
            assert!(!made.target.exists(), "{name}");
            fs::write(&path, &good).expect("put back");
        }
        restore(&made.backup, &made.target, NOW).await.expect("good again");
    }

    #[tokio::test]
    async fn a_manifest_that_is_not_one_is_refused() {
        let made = made().await;
        let path = made.backup.join(MANIFEST_FILE);
        let good = fs::read_to_string(&path).expect("read");
        let cases = [
            (good.replace("\"format\": 1", "\"format\": 2"), "format 2"),
            (good.replace("keys/ca.key", "keys/../../x"), "which no backup holds"),
            (good.replace("keys/ca.key", "/etc/x"), "which no backup holds"),
            (good.replace("\"audit.head\"", "\"objects/x\""), "does not name audit.head"),
            ("{".to_owned(), "EOF"),
        ];
        for (text, why) in cases {
            fs::write(&path, text).expect("write");
            let error = restore(&made.backup, &made.target, NOW).await.expect_err(why);
            assert!(matches!(&error, StoreError::Manifest { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let version = |version: i64| format!("\"schema_version\": {version}");
        let newer = good.replace(&version(SCHEMA_VERSION), &version(9));
        assert_ne!(newer, good);
        fs::write(&path, newer).expect("write");
        let error = restore(&made.backup, &made.target, NOW).await.expect_err("newer");
        assert!(matches!(error, StoreError::SchemaTooNew { found: 9, .. }));
        fs::remove_file(&path).expect("remove");
        let error = restore(&made.backup, &made.target, NOW).await.expect_err("unfinished");
        assert!(matches!(&error, StoreError::Manifest { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_backup_with_another_history_is_refused() {
        let made = made().await;
        let path = made.backup.join(MANIFEST_FILE);
        let mut manifest = made.manifest.clone();
        manifest.heads[0].seq += 1;
        // The anchor as the manifest: what a forger who forgot the database would leave.
        write_anchor(&made.backup, &manifest.heads).expect("anchor");
        let record = record_of(&made.backup.join(ANCHOR_FILE)).expect("hash");
        manifest.files.insert(ANCHOR_FILE.to_owned(), record);
        fs::write(&path, serde_json::to_vec(&manifest).expect("json")).expect("write");
        let error = restore(&made.backup, &made.target, NOW).await.expect_err("history");
        assert!(matches!(error, StoreError::RolledBack { .. }), "{error}");
    }
}
