//! The inventory.

use std::sync::Arc;

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, certificates, row,
    types::{ALLOW_LISTED, By, Counters, NewNode, Node, NodeChange, NodeStatus},
    writer::{Event, Touched, Tx},
};
use crate::audit::AuditKind;
use proto::digest::Digest;

pub(super) fn decode(found: &SqliteRow) -> Result<Node, StoreError> {
    let chain: String = row::get(found, "ek_chain")?;
    let approved_by: Option<String> = row::get(found, "approved_by")?;
    let approved_at: Option<i64> = row::get(found, "approved_at")?;
    let reset_count: Option<i64> = row::get(found, "max_reset_count")?;
    Ok(Node {
        name: row::get(found, "name")?,
        ek_digest: row::parse(found, "ek_digest")?,
        pool: row::get(found, "pool")?,
        status: row::parse(found, "status")?,
        ek_certificate: row::get(found, "ek_certificate")?,
        ek_chain: chain_from_json(&chain)?,
        manufacturer: row::get(found, "manufacturer")?,
        counters: match reset_count {
            Some(_) => Some(Counters {
                reset_count: row::get_u32(found, "max_reset_count")?,
                restart_count: row::get_u32(found, "max_restart_count")?,
            }),
            None => None,
        },
        admitted_by: row::get(found, "admitted_by")?,
        note: row::get(found, "note")?,
        created: By { actor: row::get(found, "created_by")?, at: row::get(found, "created_at")? },
        approved: approved_by.zip(approved_at).map(|(actor, at)| By { actor, at }),
        version: row::get_u64(found, "version")?,
    })
}

fn chain_from_json(text: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { what: "EK chain", why };
    let parts: Vec<String> =
        serde_json::from_str(text).map_err(|error| corrupt(error.to_string()))?;
    parts.iter().map(|hex| hex::decode(hex).map_err(|error| corrupt(error.to_string()))).collect()
}

fn chain_to_json(chain: &[Vec<u8>]) -> Result<String, StoreError> {
    let parts: Vec<String> = chain.iter().map(hex::encode).collect();
    serde_json::to_string(&parts)
        .map_err(|error| StoreError::Invalid { what: "EK chain", why: error.to_string() })
}

pub(super) async fn find(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Node>, StoreError> {
    let found =
        sqlx::query("SELECT * FROM nodes WHERE name = $1").bind(name).fetch_optional(conn).await;
    found.map_err(StoreError::database("read a node"))?.as_ref().map(decode).transpose()
}

async fn find_by_ek(
    conn: &mut SqliteConnection,
    ek_digest: &Digest,
) -> Result<Option<Node>, StoreError> {
    let found = sqlx::query("SELECT * FROM nodes WHERE ek_digest = $1")
        .bind(ek_digest.to_string())
        .fetch_optional(conn)
        .await;
    found.map_err(StoreError::database("read a node"))?.as_ref().map(decode).transpose()
}

fn check_name(what: &'static str, name: &str) -> Result<(), StoreError> {
    if (1..=255).contains(&name.len()) {
        return Ok(());
    }
    Err(StoreError::Invalid { what, why: format!("{} bytes, allowed are 1 to 255", name.len()) })
}

async fn refuse_known_ek(tx: &mut Tx, ek_digest: &Digest) -> Result<(), StoreError> {
    match find_by_ek(&mut tx.conn, ek_digest).await? {
        Some(other) => Err(StoreError::AlreadyExists {
            what: "node with this EK:",
            key: format!("{} ({ek_digest})", other.name),
        }),
        None => Ok(()),
    }
}

pub(super) async fn insert(tx: &mut Tx, node: NewNode, by: &By) -> Result<Node, StoreError> {
    check_name("node name", &node.name)?;
    check_name("pool", &node.pool)?;
    if node.status == NodeStatus::Revoked {
        let why = "a new node is pending or active".to_owned();
        return Err(StoreError::Invalid { what: "node status", why });
    }
    refuse_known_ek(tx, &node.ek_digest).await?;
    let approved = (node.status == NodeStatus::Active).then(|| by.clone());
    let body = row::json(&serde_json::json!({ "change": "add", "node": node }))?;
    sqlx::query(
        "INSERT INTO nodes (name, ek_digest, pool, status, ek_certificate, ek_chain, \
         manufacturer, admitted_by, note, created_by, created_at, approved_by, approved_at, \
         version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1)",
    )
    .bind(&node.name)
    .bind(node.ek_digest.to_string())
    .bind(&node.pool)
    .bind(node.status.as_str())
    .bind(&node.ek_certificate)
    .bind(chain_to_json(&node.ek_chain)?)
    .bind(&node.manufacturer)
    .bind(&node.admitted_by)
    .bind(&node.note)
    .bind(&by.actor)
    .bind(by.at)
    .bind(approved.as_ref().map(|by| &by.actor))
    .bind(approved.as_ref().map(|by| by.at))
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::insert("node", &node.name))?;
    let (kind, actor, subject) = (AuditKind::Node, by.actor.as_str(), node.name.as_str());
    tx.append(Event { kind, at: by.at, actor, subject, body }).await?;
    Ok(Node {
        name: node.name,
        ek_digest: node.ek_digest,
        pool: node.pool,
        status: node.status,
        ek_certificate: node.ek_certificate,
        ek_chain: node.ek_chain,
        manufacturer: node.manufacturer,
        counters: None,
        admitted_by: node.admitted_by,
        note: node.note,
        created: by.clone(),
        approved,
        version: 1,
    })
}

pub(super) async fn existing(tx: &mut Tx, name: &str) -> Result<Node, StoreError> {
    let found = find(&mut tx.conn, name).await?;
    found.ok_or_else(|| StoreError::NotFound { what: "node", key: name.to_owned() })
}

/// The node of a boot, from memory where it is there.
pub(super) async fn of_boot(
    tx: &mut Tx,
    ak_name: Option<&[u8]>,
    name: &str,
) -> Result<Arc<Node>, StoreError> {
    match ak_name.and_then(|ak_name| tx.remembered_node(ak_name, name)) {
        Some(node) => Ok(node),
        None => existing(tx, name).await.map(Arc::new),
    }
}

/// Raises the highest proven counters; `false` if they were as high.
pub(super) async fn raise_counters(
    tx: &mut Tx,
    node: &mut Arc<Node>,
    counters: Counters,
) -> Result<bool, StoreError> {
    if node.counters >= Some(counters) {
        return Ok(false);
    }
    Arc::make_mut(node).counters = Some(counters);
    let done = sqlx::query(
        "UPDATE nodes SET max_reset_count = $2, max_restart_count = $3 WHERE name = $1",
    )
    .bind(&node.name)
    .bind(i64::from(counters.reset_count))
    .bind(i64::from(counters.restart_count))
    .execute(&mut tx.conn)
    .await;
    done.map(|_| true).map_err(StoreError::database("change a node"))
}

async fn change(
    tx: &mut Tx,
    name: &str,
    expected_version: Option<u64>,
    change: NodeChange,
    by: &By,
) -> Result<Node, StoreError> {
    let mut node = existing(tx, name).await?;
    if let Some(expected) = expected_version.filter(|expected| *expected != node.version) {
        return Err(StoreError::Conflict {
            what: "node",
            key: name.to_owned(),
            expected: Some(expected),
            found: Some(node.version),
        });
    }
    let body = row::json(&change)?;
    let mut forget_boots = false;
    match change {
        NodeChange::Approve { name: new_name, pool } => {
            if node.status == NodeStatus::Active {
                return Err(transition(&node, NodeStatus::Active));
            }
            check_name("node", &new_name)?;
            check_name("pool", &pool)?;
            if new_name != name && find(&mut tx.conn, &new_name).await?.is_some() {
                return Err(StoreError::AlreadyExists { what: "node", key: new_name });
            }
            forget_boots = new_name != name;
            node.name = new_name;
            node.pool = pool;
            node.status = NodeStatus::Active;
            node.approved = Some(by.clone());
        }
        NodeChange::Revoke { reason } => {
            if node.status == NodeStatus::Revoked {
                return Err(transition(&node, NodeStatus::Revoked));
            }
            node.status = NodeStatus::Revoked;
            forget_boots = true;
            certificates::revoke_of_node(tx, name, &reason, by).await?;
        }
        NodeChange::MoveTo { pool } => {
            check_name("pool", &pool)?;
            node.pool = pool;
        }
        NodeChange::ReplaceEk { ek_digest, allow_listed, reason } => {
            // Keys of the old TPM are not this node's any more.
            certificates::revoke_of_node(tx, name, &reason, by).await?;
            if ek_digest != node.ek_digest {
                refuse_known_ek(tx, &ek_digest).await?;
            }
            node.ek_digest = ek_digest;
            node.ek_certificate = None;
            node.ek_chain = Vec::new();
            node.manufacturer = None;
            node.admitted_by = allow_listed.then(|| ALLOW_LISTED.to_owned());
            node.counters = None;
            forget_boots = true;
        }
        NodeChange::ForgetCounters { reason: _ } => {
            node.counters = None;
            forget_boots = true;
        }
        NodeChange::Note { note } => node.note = note,
    }
    node.version += 1;
    if forget_boots {
        forget(tx, name).await?;
    }
    sqlx::query(
        "UPDATE nodes SET name = $14, admitted_by = $15, ek_digest = $2, pool = $3, status = $4, ek_certificate = $5, \
         ek_chain = $6, manufacturer = $7, max_reset_count = $8, max_restart_count = $9, \
         note = $10, approved_by = $11, approved_at = $12, version = $13 WHERE name = $1",
    )
    .bind(name)
    .bind(node.ek_digest.to_string())
    .bind(&node.pool)
    .bind(node.status.as_str())
    .bind(&node.ek_certificate)
    .bind(chain_to_json(&node.ek_chain)?)
    .bind(&node.manufacturer)
    .bind(node.counters.map(|counters| i64::from(counters.reset_count)))
    .bind(node.counters.map(|counters| i64::from(counters.restart_count)))
    .bind(&node.note)
    .bind(node.approved.as_ref().map(|by| &by.actor))
    .bind(node.approved.as_ref().map(|by| by.at))
    .bind(row::to_i64("version", node.version)?)
    .bind(&node.name)
    .bind(&node.admitted_by)
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::database("change a node"))?;
    let (kind, actor) = (AuditKind::Node, by.actor.as_str());
    tx.append(Event { kind, at: by.at, actor, subject: name, body }).await?;
    tx.touched.push(Touched::Node(name.to_owned()));
    Ok(node)
}

async fn forget(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    let done =
        sqlx::query("DELETE FROM boots WHERE node = $1").bind(name).execute(&mut tx.conn).await;
    done.map(drop).map_err(StoreError::database("forget the boots of a node"))
}

fn transition(node: &Node, to: NodeStatus) -> StoreError {
    let (from, to) = (node.status.as_str(), to.as_str());
    StoreError::InvalidTransition { what: "node", key: node.name.clone(), from, to }
}

impl Store {
    /// Adds a node.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] for a known name or EK, [`StoreError::Invalid`].
    pub async fn add_node(&self, node: NewNode, by: By) -> Result<Node, StoreError> {
        self.write(move |tx| Box::pin(async move { insert(tx, node, &by).await })).await
    }

    /// Changes a node; with `expected_version`, only if nobody else changed it since.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::InvalidTransition`],
    /// [`StoreError::AlreadyExists`] for an EK of another node.
    pub async fn change_node(
        &self,
        name: &str,
        expected_version: Option<u64>,
        what: NodeChange,
        by: By,
    ) -> Result<Node, StoreError> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move { change(tx, &name, expected_version, what, &by).await })
        })
        .await
    }

    /// Removes a node with its boots and revokes its certificates; their records, its decisions and
    /// the audit trail stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_node(&self, name: &str, reason: &str, by: By) -> Result<(), StoreError> {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let node = existing(tx, &name).await?;
                certificates::revoke_of_node(tx, &name, &reason, &by).await?;
                forget(tx, &name).await?;
                sqlx::query("DELETE FROM nodes WHERE name = $1")
                    .bind(&name)
                    .execute(&mut tx.conn)
                    .await
                    .map_err(StoreError::database("remove a node"))?;
                let change = serde_json::json!({
                    "change": "remove", "reason": reason, "node": node,
                });
                let body = row::json(&change)?;
                let (kind, actor) = (AuditKind::Node, by.actor.as_str());
                tx.append(Event { kind, at: by.at, actor, subject: &name, body }).await?;
                tx.touched.push(Touched::Node(name));
                Ok(())
            })
        })
        .await
    }

    /// The node with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn node(&self, name: &str) -> Result<Option<Node>, StoreError> {
        find(&mut *self.reader().await?, name).await
    }

    /// The node with this EK.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn node_by_ek(&self, ek_digest: &Digest) -> Result<Option<Node>, StoreError> {
        find_by_ek(&mut *self.reader().await?, ek_digest).await
    }

    /// Nodes by name, of one pool or of all; continue a page with the last name.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn nodes(
        &self,
        pool: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Node>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM nodes WHERE ($1 IS NULL OR pool = $1) AND name > $2 ORDER BY name \
             LIMIT $3",
        )
        .bind(pool)
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list nodes"))?;
        rows.iter().map(decode).collect()
    }
}
