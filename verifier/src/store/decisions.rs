//! Decisions with their evidence.

use std::sync::Arc;

use proto::digest::{Digest, HashAlg};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, boots, nodes,
    recording::{self, ACTOR, Prepared},
    row,
    types::{
        Appraisal, By, Decision, DecisionFilter, NewDecision, NodeStatus, Recorded,
        RecordedDecision, RecordedEvidence,
    },
};
use crate::{audit::AuditEntry, objects::Objects};

/// Cases up to this size are stored in the database, with the decision's own commit; larger ones as
/// objects. A renewal's case has a few kB, and a file each would cost a sync each.
const MAX_INLINE_CASE_BYTES: usize = 32 * 1024;
/// Largest verdict: every finding at its longest.
const MAX_VERDICT_BYTES: usize = 8 * 1024 * 1024;
const MAX_LISTED: u32 = 10_000;

fn decode(found: &SqliteRow) -> Result<Decision, StoreError> {
    let codes: String = row::get(found, "codes")?;
    Ok(Decision {
        id: row::get(found, "id")?,
        at: row::get(found, "at")?,
        node: row::get(found, "node")?,
        ek_digest: row::parse_optional(found, "ek_digest")?,
        purpose: row::get(found, "purpose")?,
        outcome: row::parse(found, "outcome")?,
        codes: serde_json::from_str(&codes)
            .map_err(|error| StoreError::Corrupt { what: "codes", why: error.to_string() })?,
        verdict_sha256: row::parse(found, "verdict_sha256")?,
        case_sha256: row::parse(found, "case_sha256")?,
        policy_version: row::get(found, "policy_version")?,
    })
}

fn decode_recorded(found: &SqliteRow) -> Result<RecordedDecision, StoreError> {
    let hash: Vec<u8> = row::get(found, "entry_hash")?;
    Ok(RecordedDecision {
        decision: decode(found)?,
        replica: row::get(found, "replica")?,
        seq: row::get_u64(found, "seq")?,
        entry_hash: Digest::new(HashAlg::Sha256, &hash)
            .map_err(|error| StoreError::Corrupt { what: "entry hash", why: error.to_string() })?,
    })
}

/// What the entry of this decision must hold, from the decision's own columns.
pub(super) async fn body_of(
    conn: &mut SqliteConnection,
    entry: &AuditEntry,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = sqlx::query("SELECT * FROM decisions WHERE replica = $1 AND seq = $2")
        .bind(&entry.replica)
        .bind(row::to_i64("sequence number", entry.seq)?)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::database("read a decision"))?;
    match found.as_ref().map(decode) {
        None => Ok(None),
        Some(Ok(decision)) => row::json(&decision).map(Some),
        // Not what was written, whatever it is.
        Some(Err(error)) => Ok(Some(error.to_string().into_bytes())),
    }
}

/// Evidence of a row that has it; `None` if retention dropped what it names.
pub(super) fn evidence(
    objects: &Objects,
    found: &SqliteRow,
) -> Result<Option<RecordedEvidence>, StoreError> {
    let sha256: Digest = row::parse(found, "case_sha256")?;
    let inline: Option<Vec<u8>> = row::get(found, "case_bytes")?;
    let case = match inline {
        Some(bytes) if HashAlg::Sha256.hash(&[&bytes]) == sha256 => bytes,
        Some(_) => {
            let why = format!("other bytes than {sha256}");
            return Err(StoreError::Corrupt { what: "case", why });
        }
        None => match objects.get(&sha256) {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(other) => return Err(other),
        },
    };
    let (decision, at) = (row::get(found, "id")?, row::get(found, "at")?);
    Ok(Some(RecordedEvidence { decision, at, case }))
}

impl Store {
    /// Records an appraisal: the decision, and with it, all or nothing, a node that proved itself,
    /// the boot, and the intent to sign a certificate. Answers when all of it is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a boot or node that somebody else wrote, [`StoreError::NodeNotActive`]
    /// for a certificate of a node that is not active at the moment of the commit,
    /// [`StoreError::Superseded`] where the grounds changed since they were seen,
    /// [`StoreError::AlreadyExists`], [`StoreError::NotFound`], [`StoreError::Invalid`],
    /// [`StoreError::TooLarge`], [`StoreError::DiskFull`]: nothing was recorded. After
    /// [`StoreError::Database`] the record may or may not exist; do not act on it.
    pub async fn record(&self, appraisal: Appraisal) -> Result<Recorded, StoreError> {
        let Appraisal {
            decision,
            node_version,
            new_node,
            boot,
            renewed_ak,
            certificate,
            permit,
            grounds,
            seen,
        } = appraisal;
        let node_name = one_name([
            decision.node.as_deref(),
            new_node.as_ref().map(|node| node.name.as_str()),
            boot.as_ref().map(|put| put.boot.node.as_str()),
            certificate.as_ref().map(|intent| intent.node.as_str()),
            permit.as_ref().map(|permit| permit.node.as_str()),
        ])?;
        let prepared = self.prepare(decision).await?;
        self.write(move |tx| {
            Box::pin(async move {
                if let Some(changed) = grounds.iter().find(|ground| tx.changed_since(seen, ground))
                {
                    return Err(StoreError::Superseded { what: changed.to_string() });
                }
                let by = By::new(ACTOR, prepared.decision.at);
                let node = match (new_node, &node_name) {
                    (Some(new), _) => Some(Arc::new(nodes::insert(tx, new, &by).await?)),
                    (None, Some(name))
                        if boot.is_some() || certificate.is_some() || permit.is_some() =>
                    {
                        let ak_name = boot.as_ref().map(|put| put.boot.ak_name.as_slice());
                        let ak_name = ak_name.or(renewed_ak.as_deref());
                        Some(nodes::of_boot(tx, ak_name, name).await?)
                    }
                    _ => None,
                };
                if let (true, Some(node)) = (certificate.is_some() || permit.is_some(), &node)
                    && node.status != NodeStatus::Active
                {
                    let (name, status) = (node.name.clone(), node.status.as_str());
                    return Err(StoreError::NodeNotActive { name, status });
                }
                // What was appraised is another record by now: another TPM, pool or standing.
                if let (Some(node), Some(expected)) = (&node, node_version)
                    && node.version != expected
                {
                    return Err(StoreError::Conflict {
                        what: "node",
                        key: node.name.clone(),
                        expected: Some(expected),
                        found: Some(node.version),
                    });
                }
                let boot_version = match (boot, node) {
                    (Some(put), Some(node)) => Some(boots::put(tx, node, put).await?),
                    _ => None,
                };
                let (seq, entry_hash) =
                    recording::insert(tx, prepared, certificate, permit).await?;
                Ok(Recorded { seq, entry_hash, boot_version })
            })
        })
        .await
    }

    async fn prepare(&self, new: NewDecision) -> Result<Prepared, StoreError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=64).contains(&new.id.len()) || !new.id.bytes().all(good) {
            let why = "must be 1 to 64 of A-Z, a-z, 0-9, _ and -".to_owned();
            return Err(StoreError::Invalid { what: "decision id", why });
        }
        if new.verdict.len() > MAX_VERDICT_BYTES {
            return Err(StoreError::TooLarge {
                what: "verdict",
                bytes: new.verdict.len() as u64,
                limit: MAX_VERDICT_BYTES as u64,
            });
        }
        let mut objects = new.objects;
        let (case_sha256, case) = if new.case.len() <= MAX_INLINE_CASE_BYTES {
            (HashAlg::Sha256.hash(&[&new.case]), Some(new.case))
        } else {
            let object = self.put_object(new.case).await?;
            let digest = object.digest();
            objects.push(object);
            (digest, None)
        };
        let decision = Decision {
            id: new.id,
            at: new.at,
            node: new.node,
            ek_digest: new.ek_digest,
            purpose: new.purpose,
            outcome: new.outcome,
            codes: new.codes,
            verdict_sha256: HashAlg::Sha256.hash(&[&new.verdict]),
            case_sha256,
            policy_version: new.policy_version,
        };
        Ok(Prepared { decision, verdict: new.verdict, case, objects })
    }

    /// The decision with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn decision(&self, id: &str) -> Result<Option<RecordedDecision>, StoreError> {
        let found = sqlx::query(
            "SELECT d.*, e.entry_hash FROM decisions d JOIN audit_entries e ON e.replica = \
             d.replica AND e.seq = d.seq WHERE d.id = $1",
        )
        .bind(id)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read a decision"))?;
        found.as_ref().map(decode_recorded).transpose()
    }

    /// Decisions, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn decisions(
        &self,
        filter: &DecisionFilter,
    ) -> Result<Vec<RecordedDecision>, StoreError> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit.min(MAX_LISTED) };
        // Two texts, so that each uses its index.
        let sql = if filter.node.is_some() {
            "SELECT d.*, e.entry_hash FROM decisions d JOIN audit_entries e ON e.replica = \
             d.replica AND e.seq = d.seq WHERE d.node = $1 AND ($2 IS NULL OR d.outcome = $2) AND \
             d.at < $3 ORDER BY d.at DESC, d.seq DESC LIMIT $4"
        } else {
            "SELECT d.*, e.entry_hash FROM decisions d JOIN audit_entries e ON e.replica = \
             d.replica AND e.seq = d.seq WHERE $1 IS NULL AND ($2 IS NULL OR d.outcome = $2) AND \
             d.at < $3 ORDER BY d.at DESC, d.seq DESC LIMIT $4"
        };
        let rows = sqlx::query(sql)
            .bind(&filter.node)
            .bind(filter.outcome.map(|outcome| outcome.as_str()))
            .bind(filter.before.unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("list decisions"))?;
        rows.iter().map(decode_recorded).collect()
    }

    /// The newest evidence that a node proved, newest first: what can be judged again. Evidence that retention dropped is
    /// left out.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for other bytes than were recorded.
    pub async fn recorded_evidence(
        &self,
        node: &str,
        limit: u32,
    ) -> Result<Vec<RecordedEvidence>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.at, d.case_sha256, e.case_bytes FROM decisions d JOIN decision_evidence \
             e ON e.decision_id = d.id WHERE d.node = $1 ORDER BY d.at DESC, d.seq DESC LIMIT $2",
        )
        .bind(node)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read recorded evidence"))?;
        let evidence = rows.iter().map(|found| evidence(self.objects(), found));
        evidence.filter_map(Result::transpose).collect()
    }

    /// Bytes of a decision's verdict, checked against its digest; `None` once retention dropped it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the decision, [`StoreError::Corrupt`] for other bytes.
    pub async fn verdict(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let decision = self.known_decision(id).await?;
        let found: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT verdict FROM decision_evidence WHERE decision_id = $1")
                .bind(id)
                .fetch_optional(&mut *self.reader().await?)
                .await
                .map_err(StoreError::database("read a verdict"))?;
        found.map(|bytes| checked("verdict", bytes, &decision.verdict_sha256)).transpose()
    }

    /// Bytes of a decision's case, checked against its digest; `None` once retention dropped it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the decision, [`StoreError::Corrupt`] or
    /// [`StoreError::DigestMismatch`] for other bytes.
    pub async fn case(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let decision = self.known_decision(id).await?;
        let found: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT case_bytes FROM decision_evidence WHERE decision_id = $1")
                .bind(id)
                .fetch_optional(&mut *self.reader().await?)
                .await
                .map_err(StoreError::database("read a case"))?;
        match found {
            None => Ok(None),
            Some(Some(bytes)) => checked("case", bytes, &decision.case_sha256).map(Some),
            Some(None) => self.object(decision.case_sha256).await.map(Some),
        }
    }

    async fn known_decision(&self, id: &str) -> Result<Decision, StoreError> {
        match self.decision(id).await? {
            Some(recorded) => Ok(recorded.decision),
            None => Err(StoreError::NotFound { what: "decision", key: id.to_owned() }),
        }
    }
}

/// The one node that all parts of an appraisal are about.
fn one_name(parts: [Option<&str>; 5]) -> Result<Option<String>, StoreError> {
    let mut names = parts.into_iter().flatten();
    let Some(name) = names.next() else { return Ok(None) };
    if let Some(other) = names.find(|other| *other != name) {
        let why = format!("names two nodes, {name:?} and {other:?}");
        return Err(StoreError::Invalid { what: "appraisal", why });
    }
    Ok(Some(name.to_owned()))
}

fn checked(what: &'static str, bytes: Vec<u8>, expected: &Digest) -> Result<Vec<u8>, StoreError> {
    let observed = HashAlg::Sha256.hash(&[&bytes]);
    if observed == *expected {
        return Ok(bytes);
    }
    Err(StoreError::Corrupt { what, why: format!("{observed}, recorded was {expected}") })
}
