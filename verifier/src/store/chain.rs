//! Audit entries in the database, and the walk over them.

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{Store, StoreError, row};
use crate::audit::{
    AuditEntry, AuditKind, BreakKind, ChainBreak, ChainHead, ChainReport, ChainWalker, read_anchor,
};

/// Entries read at once while walking.
const PAGE: i64 = 1000;

const COLUMNS: &str = "replica, seq, at, kind, actor, subject, body, prev_hash, entry_hash";

/// Begins an insertion of entries; each is then [`push`]ed.
pub(super) const INSERT_ENTRY: &str = "INSERT INTO audit_entries (replica, seq, at, kind, actor, \
                                       subject, body, prev_hash, entry_hash) VALUES ";

/// One row after [`INSERT_ENTRY`].
pub(super) fn push(sql: &mut QueryBuilder<Sqlite>, entry: &AuditEntry) -> Result<(), StoreError> {
    sql.push("(")
        .separated(", ")
        .push_bind(&entry.replica)
        .push_bind(row::to_i64("sequence number", entry.seq)?)
        .push_bind(entry.at)
        .push_bind(&entry.kind)
        .push_bind(&entry.actor)
        .push_bind(&entry.subject)
        .push_bind(&entry.body)
        .push_bind(entry.prev_hash.as_slice())
        .push_bind(entry.entry_hash.as_slice());
    sql.push(")");
    Ok(())
}

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let mut sql = QueryBuilder::new(INSERT_ENTRY);
    push(&mut sql, entry)?;
    let done = sql.build().execute(conn).await;
    done.map(drop).map_err(StoreError::database("append to the audit chain"))
}

pub(super) async fn head(
    conn: &mut SqliteConnection,
    replica: &str,
) -> Result<Option<AuditEntry>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM audit_entries WHERE replica = $1 ORDER BY seq DESC LIMIT 1");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(replica).fetch_optional(conn).await;
    found.map_err(StoreError::database("read the audit chain"))?.as_ref().map(decode).transpose()
}

fn decode(found: &SqliteRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        replica: row::get(found, "replica")?,
        seq: row::get_u64(found, "seq")?,
        at: row::get(found, "at")?,
        kind: row::get(found, "kind")?,
        actor: row::get(found, "actor")?,
        subject: row::get(found, "subject")?,
        body: row::get(found, "body")?,
        prev_hash: hash(found, "prev_hash")?,
        entry_hash: hash(found, "entry_hash")?,
    })
}

fn hash(found: &SqliteRow, column: &'static str) -> Result<[u8; 32], StoreError> {
    let bytes: Vec<u8> = row::get(found, column)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| StoreError::Corrupt {
        what: "audit entry",
        why: format!("{column} has {} bytes", bytes.len()),
    })
}

/// Refuses a database that is older than its anchor.
pub(super) async fn check_anchor(
    conn: &mut SqliteConnection,
    folder: &std::path::Path,
) -> Result<(), StoreError> {
    for anchor in read_anchor(folder)?.unwrap_or_default() {
        let found: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT entry_hash FROM audit_entries WHERE replica = $1 AND seq = $2",
        )
        .bind(&anchor.replica)
        .bind(row::to_i64("sequence number", anchor.seq)?)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::database("read the audit chain"))?;
        if found.as_deref() != Some(anchor.hash.as_bytes()) {
            let path = folder.join(crate::audit::ANCHOR_FILE);
            return Err(StoreError::RolledBack { path, replica: anchor.replica, seq: anchor.seq });
        }
    }
    Ok(())
}

impl Store {
    /// Recomputes every hash of every chain, compares decisions and certificates with their entries,
    /// and looks for the anchored entries. Reports the first break; `progress` gets the number of
    /// entries done and of all entries, every thousand.
    ///
    /// # Errors
    /// [`StoreError::Database`] where the walk could not be done: a break is not an error.
    pub async fn verify_chain(
        &self,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<ChainReport, StoreError> {
        // Before the walk: an anchor written during it names an entry that the walk may not reach.
        let anchors = read_anchor(self.folder())?;
        let anchored = anchors.is_some();
        let anchors = anchors.unwrap_or_default();
        let mut conn = self.reader().await?;
        // One read transaction, so that the records belong to the entries.
        let mut tx = sqlx::Connection::begin(&mut *conn)
            .await
            .map_err(StoreError::database("read the audit chain"))?;
        let mut report = ChainReport { entries: 0, heads: Vec::new(), anchored, broken: None };
        let total: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entries")
            .fetch_one(&mut *tx)
            .await
            .map_err(StoreError::database("read the audit chain"))?;
        let mut replicas: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT replica FROM audit_entries ORDER BY replica")
                .fetch_all(&mut *tx)
                .await
                .map_err(StoreError::database("read the audit chain"))?;
        let missing = anchors.iter().map(|anchor| &anchor.replica);
        let missing: Vec<String> =
            missing.filter(|name| !replicas.contains(name)).cloned().collect();
        replicas.extend(missing);
        for replica in replicas {
            let mut walker = ChainWalker::new(&replica, &anchors);
            let walked = walk(&mut tx, &replica, &mut walker, &mut report.entries, |entries| {
                progress(entries, total.unsigned_abs());
            })
            .await?;
            match walked.and_then(|()| walker.finish()) {
                Ok(head) => report.heads.push(head),
                Err(broken) => {
                    report.broken = Some(broken);
                    return Ok(report);
                }
            }
        }
        report.broken = records_without_entries(&mut tx).await?;
        Ok(report)
    }

    /// Heads of all chains, for export to another machine.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn chain_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.replica, e.seq, e.entry_hash FROM audit_entries e JOIN (SELECT replica, \
             max(seq) AS seq FROM audit_entries GROUP BY replica) h ON h.replica = e.replica AND \
             h.seq = e.seq ORDER BY e.replica",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read the audit chain"))?;
        let head = |found: &SqliteRow| {
            let replica: String = row::get(found, "replica")?;
            let seq = row::get_u64(found, "seq")?;
            Ok(ChainHead::new(&replica, seq, hash(found, "entry_hash")?))
        };
        rows.iter().map(head).collect()
    }

    /// Entries about a subject (a node's name, for its history), newest first, at most `limit`
    /// (up to 10 000).
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn audit_entries(
        &self,
        subject: Option<&str>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let condition = if subject.is_some() { "subject = $1" } else { "$1 IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS} FROM audit_entries WHERE {condition} ORDER BY at DESC, seq DESC \
             LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(subject)
            .bind(i64::from(limit.min(10_000)))
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("read the audit chain"))?;
        rows.iter().map(decode).collect()
    }
}

async fn walk(
    conn: &mut SqliteConnection,
    replica: &str,
    walker: &mut ChainWalker,
    entries: &mut u64,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Result<(), ChainBreak>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_entries WHERE replica = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    );
    let mut after: i64 = i64::MIN;
    loop {
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(replica)
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *conn)
            .await
            .map_err(StoreError::database("read the audit chain"))?;
        let Some(last) = rows.last() else { return Ok(Ok(())) };
        after = row::get(last, "seq")?;
        for found in &rows {
            let entry = match decode(found) {
                Ok(entry) => entry,
                // A column that does not decode is a break, not a failure to look.
                Err(error) => {
                    return Ok(Err(ChainBreak {
                        replica: replica.to_owned(),
                        seq: found.try_get::<i64, _>("seq").map_or(0, i64::unsigned_abs),
                        kind: BreakKind::EntryHash,
                        expected: "an audit entry".to_owned(),
                        observed: error.to_string(),
                    }));
                }
            };
            if let Err(broken) = walker.step(&entry) {
                return Ok(Err(broken));
            }
            let record = match AuditKind::parse(&entry.kind) {
                Some(AuditKind::Decision) => super::decisions::body_of(conn, &entry).await?,
                Some(AuditKind::CertificateIntent) => {
                    super::certificates::body_of(conn, &entry).await?
                }
                Some(AuditKind::PermitIssued) => super::permits::body_of(conn, &entry).await?,
                _ => continue,
            };
            if record.as_ref() != Some(&entry.body) {
                let missing = record.is_none();
                let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
                return Ok(Err(ChainBreak {
                    replica: replica.to_owned(),
                    seq: entry.seq,
                    kind: if missing { BreakKind::RecordMissing } else { BreakKind::RecordDiffers },
                    expected: text(&entry.body),
                    observed: record.map_or_else(|| "no record".to_owned(), |body| text(&body)),
                }));
            }
        }
        *entries += rows.len() as u64;
        progress(*entries);
    }
}

async fn records_without_entries(
    conn: &mut SqliteConnection,
) -> Result<Option<ChainBreak>, StoreError> {
    let found = sqlx::query(
        "SELECT d.id AS id, d.replica AS replica, d.seq AS seq FROM decisions d LEFT JOIN \
         audit_entries e ON e.replica = d.replica AND e.seq = d.seq AND e.kind = 'decision' AND \
         e.subject = d.id WHERE e.seq IS NULL UNION ALL SELECT c.serial, '', 0 FROM certificates \
         c LEFT JOIN audit_entries e ON e.subject = c.serial AND e.kind = 'certificate-intent' \
         WHERE e.seq IS NULL UNION ALL SELECT p.id, '', 0 FROM permits p LEFT JOIN audit_entries \
         e ON e.subject = p.id AND e.kind = 'permit-issued' WHERE e.seq IS NULL LIMIT 1",
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::database("read the audit chain"))?;
    let Some(found) = found else { return Ok(None) };
    Ok(Some(ChainBreak {
        replica: row::get(&found, "replica")?,
        seq: row::get_u64(&found, "seq")?,
        kind: BreakKind::RecordWithoutEntry,
        expected: "an audit entry".to_owned(),
        observed: row::get(&found, "id")?,
    }))
}
