//! A consistent copy of the database while it is in use, and what a backup must know of one.

use std::{collections::HashSet, path::Path};

use proto::digest::Digest;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Store, StoreError, migrate, retention};

impl Store {
    /// Writes a copy of the database, as of one moment, to a file that must not exist.
    pub(crate) async fn snapshot_into(&self, target: &Path) -> Result<(), StoreError> {
        let source = self.folder().join(super::DATABASE_FILE);
        let options = SqliteConnectOptions::new()
            .filename(source)
            .busy_timeout(super::BUSY_TIMEOUT)
            .read_only(true)
            .disable_statement_logging();
        let failed = || StoreError::database("copy the database");
        let mut conn = options.connect().await.map_err(failed())?;
        let copied = sqlx::query("VACUUM INTO $1")
            .bind(target.to_string_lossy().into_owned())
            .execute(&mut conn)
            .await;
        conn.close().await.map_err(failed())?;
        copied.map(drop).map_err(failed())
    }
}

async fn open_copy(path: &Path) -> Result<SqliteConnection, StoreError> {
    migrate::check_header(path)?;
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
    options.connect().await.map_err(StoreError::database("open the copy"))
}

/// Objects that the decisions of a copied database need.
pub(crate) async fn referenced_objects(path: &Path) -> Result<HashSet<Digest>, StoreError> {
    let mut conn = open_copy(path).await?;
    let found = retention::referenced(&mut conn).await;
    conn.close().await.map_err(StoreError::database("close the copy"))?;
    found
}

/// Schema version of a copied database; refuses a foreign and a newer one.
pub(crate) async fn schema_version(path: &Path) -> Result<i64, StoreError> {
    let mut conn = open_copy(path).await?;
    let found = migrate::inspect(&mut conn, path).await;
    conn.close().await.map_err(StoreError::database("close the copy"))?;
    match found? {
        migrate::Found::Schema(version) => Ok(version),
        migrate::Found::Nothing => {
            Err(StoreError::NotAssay { path: path.to_owned(), why: "an empty database" })
        }
    }
}
