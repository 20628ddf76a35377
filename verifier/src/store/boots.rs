//! What is known of the nodes' boots.

use std::sync::Arc;

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, nodes, row,
    types::{Boot, Counters, KnownBoot, Node, NodeStatus, PutBoot},
    writer::{Touched, Tx},
};

/// Boots kept of one node: the running one, and those before it for whoever looks into a change.
const BOOTS_KEPT: i64 = 4;
/// Largest state of a tool log.
const MAX_RECORD_BYTES: usize = proto::limits::MAX_TOOL_LOG_BYTES * 2;

fn decode(found: &SqliteRow) -> Result<(Boot, u64), StoreError> {
    let boot = Boot {
        ak_name: row::get(found, "ak_name")?,
        node: row::get(found, "node")?,
        counters: Counters {
            reset_count: row::get_u32(found, "reset_count")?,
            restart_count: row::get_u32(found, "restart_count")?,
        },
        record: row::get(found, "record")?,
        created_at: row::get(found, "created_at")?,
        updated_at: row::get(found, "updated_at")?,
    };
    Ok((boot, row::get_u64(found, "version")?))
}

/// Writes a boot whose record still has the expected version; returns the new version.
pub(super) async fn put(tx: &mut Tx, mut node: Arc<Node>, put: PutBoot) -> Result<u64, StoreError> {
    let PutBoot { boot, expected_version } = put;
    if node.status == NodeStatus::Revoked {
        let status = node.status.as_str();
        return Err(StoreError::NodeNotActive { name: node.name.clone(), status });
    }
    if boot.record.len() > MAX_RECORD_BYTES {
        return Err(StoreError::TooLarge {
            what: "boot record",
            bytes: boot.record.len() as u64,
            limit: MAX_RECORD_BYTES as u64,
        });
    }
    let version = expected_version.map_or(1, |version| version.saturating_add(1));
    let sql = match expected_version {
        None => {
            "INSERT INTO boots (ak_name, node, reset_count, restart_count, record, created_at, \
             updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
        }
        Some(_) => {
            "UPDATE boots SET reset_count = $3, restart_count = $4, record = $5, created_at = $6, \
             updated_at = $7, version = $8 WHERE ak_name = $1 AND node = $2 AND version = $8 - 1"
        }
    };
    let done = sqlx::query(sql)
        .bind(&boot.ak_name)
        .bind(&boot.node)
        .bind(i64::from(boot.counters.reset_count))
        .bind(i64::from(boot.counters.restart_count))
        .bind(&boot.record)
        .bind(boot.created_at)
        .bind(boot.updated_at)
        .bind(row::to_i64("version", version)?)
        .execute(&mut tx.conn)
        .await
        .map_err(StoreError::database("record a boot"))?;
    if done.rows_affected() != 1 {
        let found = find(&mut tx.conn, &boot.ak_name).await?;
        return Err(StoreError::Conflict {
            what: "boot",
            key: hex::encode(&boot.ak_name),
            expected: expected_version,
            found: found.map(|(_, version)| version),
        });
    }
    if expected_version.is_none() {
        sqlx::query(
            "DELETE FROM boots WHERE node = $1 AND ak_name <> $2 AND ak_name NOT IN (SELECT \
             ak_name FROM boots WHERE node = $1 AND ak_name <> $2 ORDER BY created_at DESC, \
             ak_name LIMIT $3)",
        )
        .bind(&boot.node)
        .bind(&boot.ak_name)
        .bind(BOOTS_KEPT - 1)
        .execute(&mut tx.conn)
        .await
        .map_err(StoreError::database("drop old boots"))?;
    }
    if nodes::raise_counters(tx, &mut node, boot.counters).await? {
        // Earlier boots of the node must be seen with the new counters.
        tx.touched.push(Touched::Node(node.name.clone()));
    }
    tx.touched.push(Touched::Boot(KnownBoot { boot, version, node }));
    Ok(version)
}

async fn find(
    conn: &mut SqliteConnection,
    ak_name: &[u8],
) -> Result<Option<(Boot, u64)>, StoreError> {
    let found = sqlx::query("SELECT * FROM boots WHERE ak_name = $1")
        .bind(ak_name)
        .fetch_optional(conn)
        .await;
    found.map_err(StoreError::database("read a boot"))?.as_ref().map(decode).transpose()
}

impl Store {
    /// Writes a boot of a node if its record still has the expected version (`None`: there is
    /// none), raises the node's highest counters, and drops all but the latest boots of the node.
    /// Returns the new version. [`Store::record`] does the same together with a decision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::NotFound`] for the node,
    /// [`StoreError::NodeNotActive`] for a revoked one, [`StoreError::TooLarge`].
    pub async fn put_boot(
        &self,
        boot: Boot,
        expected_version: Option<u64>,
    ) -> Result<u64, StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                let node = nodes::of_boot(tx, Some(&boot.ak_name), &boot.node).await?;
                put(tx, node, PutBoot { boot, expected_version }).await
            })
        })
        .await
    }

    /// The boot with this AK and its node, from memory where it is there.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn boot(&self, ak_name: &[u8]) -> Result<Option<Arc<KnownBoot>>, StoreError> {
        let ticket = match self.cache().find(ak_name) {
            Ok(known) => return Ok(Some(known)),
            Err(ticket) => ticket,
        };
        let mut conn = self.reader().await?;
        // One read transaction: the node as of the boot.
        let mut tx = sqlx::Connection::begin(&mut *conn)
            .await
            .map_err(StoreError::database("read a boot"))?;
        let Some((boot, version)) = find(&mut tx, ak_name).await? else { return Ok(None) };
        let Some(node) = nodes::find(&mut tx, &boot.node).await? else { return Ok(None) };
        drop(tx);
        let known = Arc::new(KnownBoot { boot, version, node: Arc::new(node) });
        self.cache().fill(ticket, Arc::clone(&known));
        Ok(Some(known))
    }

    /// The kept boots of a node, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn boots(&self, node: &str) -> Result<Vec<(Boot, u64)>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM boots WHERE node = $1 ORDER BY created_at DESC, ak_name")
                .bind(node)
                .fetch_all(&mut *self.reader().await?)
                .await
                .map_err(StoreError::database("read boots"))?;
        rows.iter().map(decode).collect()
    }
}
