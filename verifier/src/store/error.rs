//! Why the store could not do what it was asked.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::digest::Digest;

use super::types::DocumentId;
use crate::audit::ChainBreak;

/// A failure of the durable state.
///
/// Cloneable, because one failed commit answers every caller whose write was in it. `Display` never
/// repeats the source.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record with this key exists.
    #[error("{what} {key} exists already")]
    AlreadyExists {
        /// Kind of record.
        what: &'static str,
        /// Its key.
        key: String,
    },
    /// A backup's or a database's audit chain is broken.
    #[error("the audit chain is broken: {0}")]
    ChainBroken(Box<ChainBreak>),
    /// The store was closed, or its writer ended.
    #[error("the store is closed")]
    Closed,
    /// Somebody else changed the record first: read it again and decide again.
    #[error("{what} {key} is at version {}, not {}", Version(*found), Version(*expected))]
    Conflict {
        /// Kind of record.
        what: &'static str,
        /// Its key.
        key: String,
        /// Version that the caller had seen; `None`: no record.
        expected: Option<u64>,
        /// Version found; `None`: no record.
        found: Option<u64>,
    },
    /// A stored value does not decode.
    #[error("stored {what} is damaged: {why}")]
    Corrupt {
        /// Kind of record.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The database failed.
    #[error("the database failed to {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// Stored bytes are not those that were stored.
    #[error("{}: content is {observed}, expected {expected}: restore it from a backup", path.display())]
    DigestMismatch {
        /// File.
        path: PathBuf,
        /// Recorded digest.
        expected: Box<Digest>,
        /// Digest of what is there.
        observed: Box<Digest>,
    },
    /// No space left.
    #[error(
        "no space left on the file system of {}: free some, or run retention with shorter limits; \
         nothing was recorded and nothing is lost",
        path.display()
    )]
    DiskFull {
        /// File or folder that was written.
        path: PathBuf,
    },
    /// An argument is outside what the store holds.
    #[error("{what}: {why}")]
    Invalid {
        /// Argument.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The state of the record does not allow the change.
    #[error("{what} {key} is {from}: it cannot become {to}")]
    InvalidTransition {
        /// Kind of record.
        what: &'static str,
        /// Its key.
        key: String,
        /// State found.
        from: &'static str,
        /// State asked for.
        to: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process writes to this folder.
    #[error("{} is in use by another verifier process{}", path.display(), Holder(*holder))]
    Locked {
        /// State folder.
        path: PathBuf,
        /// Process id found in the lock file.
        holder: Option<u32>,
    },
    /// The manifest of a backup does not describe the backup.
    #[error("backup manifest {}: {why}", path.display())]
    Manifest {
        /// Manifest.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A migration that this database has seen is not the one that this program carries.
    #[error("migration {version} of the database differs from this program's")]
    MigrationChanged {
        /// Schema version.
        version: i64,
    },
    /// The node may not receive certificates.
    #[error("node {name} is {status}, not active")]
    NodeNotActive {
        /// Node.
        name: String,
        /// Its state.
        status: &'static str,
    },
    /// The file is not a database of Assay.
    #[error("{} is not a database of Assay: {why}", path.display())]
    NotAssay {
        /// File.
        path: PathBuf,
        /// What was found.
        why: &'static str,
    },
    /// No such record.
    #[error("there is no {what} {key}")]
    NotFound {
        /// Kind of record.
        what: &'static str,
        /// Key asked for.
        key: String,
    },
    /// The store was opened for reading.
    #[error("the store was opened read-only")]
    ReadOnly,
    /// The database is older than the anchor file beside it.
    #[error(
        "the database's audit chain ({replica}) does not hold entry {seq} that {} names: an older \
         database was put back or entries were cut off. Restore a whole backup; or, once the reason \
         is known and accepted, move the anchor file away and start again",
        path.display()
    )]
    RolledBack {
        /// Anchor file.
        path: PathBuf,
        /// Chain.
        replica: String,
        /// Entry that is missing or different.
        seq: u64,
    },
    /// The database was written by a newer program.
    #[error(
        "{} has schema version {found}, this program knows up to {supported}: use a newer program",
        path.display()
    )]
    SchemaTooNew {
        /// Database.
        path: PathBuf,
        /// Version found.
        found: i64,
        /// Newest version known.
        supported: i64,
    },
    /// What was judged rests on something that changed since: read it again and judge again.
    #[error("{what} changed while an attestation was judged by it")]
    Superseded {
        /// What changed.
        what: String,
    },
    /// A restore or backup target holds something.
    #[error("{} is not empty: nothing was written", path.display())]
    TargetNotEmpty {
        /// Folder.
        path: PathBuf,
    },
    /// More bytes than the store takes.
    #[error("{what} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Kind of object.
        what: &'static str,
        /// Size found.
        bytes: u64,
        /// Limit.
        limit: u64,
    },
    /// A document must have a higher version than every earlier one of its name.
    #[error("{id} is not above version {newest}, the newest of that name; versions only rise")]
    VersionNotNewer {
        /// What was offered.
        id: DocumentId,
        /// Highest version that was proposed, or is in force.
        newest: u64,
    },
}

struct Version(Option<u64>);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => version.fmt(f),
            None => f.write_str("none"),
        }
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (process {pid})"))
    }
}

/// Extended result codes of SQLite carry the primary code in the low byte.
const SQLITE_FULL: i64 = 13;
const SQLITE_CONSTRAINT_PRIMARYKEY: i64 = 1555;
const SQLITE_CONSTRAINT_UNIQUE: i64 = 2067;
const SQLITE_CONSTRAINT_ABORT: i64 = 4;
const SQLITE_CONSTRAINT: i64 = 19;

impl StoreError {
    /// Wraps an error of the file system.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&source.kind()) {
            return Self::DiskFull { path: path.to_owned() };
        }
        Self::Io { doing, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            if code_of(&source).is_some_and(|code| code & 0xff == SQLITE_FULL) {
                return Self::DiskFull { path: PathBuf::from("the database") };
            }
            Self::Database { doing, source: Arc::new(source) }
        }
    }

    /// Like [`Self::database`], but a violated unique constraint is [`Self::AlreadyExists`].
    pub(crate) fn insert(what: &'static str, key: &str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match code_of(&source) {
            Some(SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE) => {
                Self::AlreadyExists { what, key: key.to_owned() }
            }
            _ => Self::database(what_insert(what))(source),
        }
    }

    /// Whether a constraint of this table was violated; SQLite says `TABLE.COLUMN`.
    pub(crate) fn is_about(source: &sqlx::Error, table: &str) -> bool {
        let columns = source.as_database_error().and_then(|error| {
            error.message().rsplit_once(": ").map(|(_, columns)| columns.to_owned())
        });
        columns.is_some_and(|columns| {
            columns.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Whether SQLite may have rolled the whole transaction back because of this error.
    pub(crate) fn ends_transaction(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Database { source, .. } => code_of(source).is_none_or(|code| {
                code & 0xff != SQLITE_CONSTRAINT && code & 0xff != SQLITE_CONSTRAINT_ABORT
            }),
            _ => false,
        }
    }
}

fn what_insert(what: &'static str) -> &'static str {
    match what {
        "decision" => "record a decision",
        "node" => "record a node",
        "certificate" => "record a certificate",
        _ => "insert a record",
    }
}

fn code_of(error: &sqlx::Error) -> Option<i64> {
    error.as_database_error()?.code()?.parse().ok()
}
