//! Bringing a database to this program's schema, and refusing what is not one.

use std::{io::Read as _, path::Path};

use proto::digest::HashAlg;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::StoreError;

/// "ASSY": SQLite's `application_id` of our databases.
const APPLICATION_ID: i64 = 0x4153_5359;

struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// Released migrations are never edited.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("migrations/0001_initial.sql") },
    Migration { version: 2, name: "manifests", sql: include_str!("migrations/0002_manifests.sql") },
    Migration {
        version: 3,
        name: "reference documents",
        sql: include_str!("migrations/0003_reference_documents.sql"),
    },
    Migration { version: 4, name: "permits", sql: include_str!("migrations/0004_permits.sql") },
    Migration {
        version: 5,
        name: "ends of permits",
        sql: include_str!("migrations/0005_ends_of_permits.sql"),
    },
];

/// Newest schema version that this program knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// What a file is, found out without changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Schema(i64),
}

/// Refuses a file that is not SQLite before SQLite is let at it.
pub(super) fn check_header(path: &Path) -> Result<(), StoreError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let mut header = Vec::new();
    file.take(16).read_to_end(&mut header).map_err(|error| StoreError::io("read", path, error))?;
    if header.is_empty() || header == b"SQLite format 3\0" {
        return Ok(());
    }
    Err(StoreError::NotAssay { path: path.to_owned(), why: "not an SQLite file" })
}

pub(super) async fn inspect(conn: &mut SqliteConnection, path: &Path) -> Result<Found, StoreError> {
    let failed = || StoreError::database("read the schema version");
    let application: i64 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *conn).await.map_err(failed())?;
    if application != APPLICATION_ID {
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
            .fetch_one(&mut *conn)
            .await
            .map_err(failed())?;
        if application == 0 && tables == 0 {
            return Ok(Found::Nothing);
        }
        let path = path.to_owned();
        return Err(StoreError::NotAssay { path, why: "an SQLite database of another program" });
    }
    let rows = sqlx::query("SELECT version, sha256 FROM schema_migrations ORDER BY version")
        .fetch_all(conn)
        .await
        .map_err(failed())?;
    let mut newest = 0;
    for row in rows {
        newest = row.try_get("version").map_err(failed())?;
        let sha256: String = row.try_get("sha256").map_err(failed())?;
        if let Some(known) = MIGRATIONS.iter().find(|known| known.version == newest)
            && HashAlg::Sha256.hash(&[known.sql.as_bytes()]).to_string() != sha256
        {
            return Err(StoreError::MigrationChanged { version: newest });
        }
    }
    if newest > SCHEMA_VERSION {
        let (path, supported) = (path.to_owned(), SCHEMA_VERSION);
        return Err(StoreError::SchemaTooNew { path, found: newest, supported });
    }
    Ok(Found::Schema(newest))
}

/// Applies what is missing, each migration in one transaction.
pub(super) async fn migrate(
    conn: &mut SqliteConnection,
    found: Found,
    now: i64,
) -> Result<(), StoreError> {
    let from = match found {
        Found::Nothing => 0,
        Found::Schema(version) => version,
    };
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        let failed = || StoreError::database("migrate the schema");
        let mut tx = conn.begin().await.map_err(failed())?;
        sqlx::raw_sql(migration.sql).execute(&mut *tx).await.map_err(failed())?;
        if from == 0 && migration.version == 1 {
            let mark = format!("PRAGMA application_id = {APPLICATION_ID}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(&mut *tx).await.map_err(failed())?;
        }
        sqlx::query(
            "INSERT INTO schema_migrations (version, name, sha256, applied_at) VALUES ($1, $2, \
             $3, $4)",
        )
        .bind(migration.version)
        .bind(migration.name)
        .bind(HashAlg::Sha256.hash(&[migration.sql.as_bytes()]).to_string())
        .bind(now)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())?;
        tracing::info!(version = migration.version, "migrated the database");
    }
    Ok(())
}
