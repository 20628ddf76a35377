//! The verifier's durable state: the only place with queries.
//!
//! A state folder holds `assay.db` (SQLite), `objects/` (big evidence by digest), `audit.head` (the
//! anchor of the audit chain) and `lock`. One process writes to it. Within it one task owns the
//! write connection and commits what all callers queued in groups; readers use a pool; boots with
//! their nodes are served from memory. Every method that writes answers after the commit is on the
//! disk, and whoever has the answer sees the write in every later read.
//!
//! The store has no clock: times come from its callers, in unix seconds.
//!
//! SQL is kept to what PostgreSQL understands too (numbered parameters, `ON CONFLICT`, partial
//! indexes); what differs is in `migrate`, `chain::head`'s caller (savepoints), and `snapshot`.

mod boots;
mod cache;
mod certificates;
mod chain;
mod changes;
mod clock;
#[cfg(test)]
mod crash_tests;
mod decisions;
mod documents;
mod error;
mod fleet;
mod lock;
mod manifests;
mod migrate;
mod nodes;
mod permits;
mod recording;
mod reference;
mod retention;
mod row;
mod signed;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proto::digest::Digest;
use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub(crate) use self::snapshot::{referenced_objects, schema_version};
use self::{
    cache::BootCache,
    changes::Changes,
    lock::FolderLock,
    writer::{Setup, Tx, TxFuture, Writer},
};
pub use self::{
    changes::{Ground, Seen},
    error::StoreError,
    migrate::SCHEMA_VERSION,
    permits::{NewPermit, Permit, PermitAnswer, PermitUse, Renewal},
    reference::EndorsementSet,
    types::{
        ALLOW_LISTED, Admin, AdmissionRule, Appraisal, Boot, By, Certificate, CertificateIntent,
        CertificateStatus, Counters, Decision, DecisionFilter, Document, DocumentHead, DocumentId,
        DocumentKind, DocumentSignature, DocumentState, DocumentStep, Endorsement, EndorsementKind,
        FleetNode, KnownBoot, ManifestSummary, NewDecision, NewDocument, NewManifest, NewNode,
        Node, NodeChange, NodeStatus, Outcome, PermitState, PutBoot, Recorded, RecordedDecision,
        RecordedEvidence, Retention, RetentionReport, Role,
    },
};
pub use crate::audit::{AuditEntry, AuditKind, ChainBreak, ChainHead, ChainReport};
use crate::objects::{Objects, StoredObject, make_folder};

/// Name of the database in the state folder.
pub const DATABASE_FILE: &str = "assay.db";
/// Name of the object folder in the state folder.
pub const OBJECTS_FOLDER: &str = "objects";

/// Readers at once: more than cores, as they wait for the disk too.
const READERS: u32 = 4;
/// Only a checkpoint or a backup makes anybody wait.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A write-ahead log of 16 MB: a checkpoint every thousand records of 4 KiB.
const CHECKPOINT_PAGES: &str = "4000";
/// Pages that the writer keeps, in KiB as SQLite takes it (negative): indexes are written to all
/// over, and a page that is not there is read back from the log.
const WRITER_CACHE: &str = "-16384";
/// 10 000 nodes with 3 kB of keys and certificates and 3 kB of tool state.
const DEFAULT_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    folder: PathBuf,
    replica: String,
    cache_bytes: usize,
    read_only: bool,
}

impl StoreOptions {
    /// A state folder, made with mode 0700 if it is absent.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            replica: "r1".to_owned(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            read_only: false,
        }
    }

    /// Name of this replica's audit chain; `r1` unless several share a database.
    #[must_use]
    pub fn replica(mut self, replica: impl Into<String>) -> Self {
        self.replica = replica.into();
        self
    }

    /// Memory for boots and nodes.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Only reads, also beside a running verifier; never creates or migrates.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// The durable state. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    pool: SqlitePool,
    writer: Option<Writer>,
    cache: Arc<BootCache>,
    changes: Arc<Changes>,
    objects: Objects,
    warnings: Vec<String>,
    /// One backup or retention at a time.
    maintenance: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a state folder; creates and migrates the database where it must. `now` dates the
    /// migrations.
    ///
    /// # Errors
    /// [`StoreError::Locked`] beside another writer, [`StoreError::NotAssay`],
    /// [`StoreError::SchemaTooNew`], [`StoreError::MigrationChanged`],
    /// [`StoreError::RolledBack`] for a database older than its anchor, [`StoreError::NotFound`]
    /// where there is nothing to read, [`StoreError::Io`], [`StoreError::DiskFull`].
    pub async fn open(options: StoreOptions, now: i64) -> Result<Self, StoreError> {
        let StoreOptions { folder, replica, cache_bytes, read_only } = options;
        if !(1..=64).contains(&replica.len()) {
            let why = "must have 1 to 64 bytes".to_owned();
            return Err(StoreError::Invalid { what: "replica", why });
        }
        let database = folder.join(DATABASE_FILE);
        if read_only && !database.is_file() {
            return Err(StoreError::NotFound {
                what: "database",
                key: database.display().to_string(),
            });
        }
        let lock = if read_only {
            None
        } else {
            make_folder(&folder)?;
            Some(FolderLock::take(&folder)?)
        };
        migrate::check_header(&database)?;
        if !read_only {
            create_private(&database)?;
        }
        let warnings = wrong_permissions(&folder, &database)?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let base = SqliteConnectOptions::new()
            .filename(&database)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .disable_statement_logging();

        // Looks before anything is changed, the journal mode included.
        let failed = || StoreError::database("open");
        let looking = base.clone().read_only(true);
        let mut conn = looking.connect().await.map_err(failed())?;
        let found = migrate::inspect(&mut conn, &database).await;
        conn.close().await.map_err(failed())?;
        let found = found?;

        let writing = base
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            // What a savepoint keeps for going back is kept in memory: in a file, which is SQLite's
            // default beyond 64 KiB, it costs two writes a page and more than the log itself.
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", WRITER_CACHE)
            .pragma("trusted_schema", "OFF");
        if !read_only {
            let mut conn = writing.connect().await.map_err(failed())?;
            let ready = async {
                migrate::migrate(&mut conn, found, now).await?;
                chain::check_anchor(&mut conn, &folder).await
            };
            let ready = ready.await;
            conn.close().await.map_err(failed())?;
            ready?;
        }
        let reading = base.pragma("query_only", "ON").pragma("trusted_schema", "OFF");
        let reading = if read_only { reading.read_only(true) } else { reading };
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .connect_with(reading)
            .await
            .map_err(failed())?;
        let cache = Arc::new(BootCache::new(if read_only { 0 } else { cache_bytes }));
        let objects_folder = folder.join(OBJECTS_FOLDER);
        let objects =
            if read_only { Objects::at(&objects_folder) } else { Objects::open(&objects_folder)? };
        let changes = Arc::new(Changes::default());
        let writer = match lock {
            None => None,
            Some(lock) => {
                let (folder, cache) = (folder.clone(), Arc::clone(&cache));
                let changes = Arc::clone(&changes);
                let setup = Setup { folder, options: writing, replica, cache, changes, lock };
                Some(Writer::start(setup).await?)
            }
        };
        let maintenance = tokio::sync::Mutex::new(());
        let inner = Inner { folder, pool, writer, cache, changes, objects, warnings, maintenance };
        Ok(Self(Arc::new(inner)))
    }

    /// Finishes what is queued, writes the anchor, and closes; later calls get
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close(&self) -> Result<(), StoreError> {
        // Readers first: the last connection to close folds the write-ahead log into the database.
        self.0.pool.close().await;
        match &self.0.writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        }
    }

    /// What was odd at opening, for an operator: permissions.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The state folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// How many changes of golden sets, endorsements and admission rules are committed. Taken before
    /// these are read, it lets [`Store::record`] refuse what was judged by others since.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.0.changes.seen()
    }

    /// Stores evidence that is too big for the database. Give the answer to
    /// [`NewDecision::objects`]; dropped before, the object stays until retention.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::DiskFull`], [`StoreError::Io`],
    /// [`StoreError::ReadOnly`].
    pub async fn put_object(
        &self,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<StoredObject, StoreError> {
        self.0.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        let objects = self.0.objects.clone();
        self.blocking(move || objects.put(bytes.as_ref())).await
    }

    /// Bytes of an object, checked against the digest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] (also once retention dropped it), [`StoreError::DigestMismatch`],
    /// [`StoreError::Io`].
    pub async fn object(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let objects = self.0.objects.clone();
        self.blocking(move || objects.get(&digest)).await
    }

    async fn write<F, T>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.writer.as_ref().ok_or(StoreError::ReadOnly)?.write(work).await
    }

    async fn signed(&self, mark: signed::Signed) -> Result<(), StoreError> {
        self.0.writer.as_ref().ok_or(StoreError::ReadOnly)?.signed(mark).await
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.0.pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolClosed => StoreError::Closed,
            error => StoreError::database("get a connection")(error),
        })
    }

    fn cache(&self) -> &BootCache {
        &self.0.cache
    }

    /// The object folder, for code that blocks already.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// Held by whoever needs that nothing is deleted, or deletes.
    pub(crate) async fn maintenance(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.maintenance.lock().await
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
    }
}

/// An error with its causes in one line, for a log.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// SQLite gives its side files the mode of the database.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut options = fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("create", path, error)),
    }
}

fn wrong_permissions(folder: &Path, database: &Path) -> Result<Vec<String>, StoreError> {
    let mut warnings = Vec::new();
    for (path, good) in [(folder, 0o700), (database, 0o600)] {
        let metadata = fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            warnings.push(format!(
                "{path} has mode {mode:04o}: others can get at it. Run: chmod {good:o} {path}"
            ));
        }
    }
    Ok(warnings)
}
