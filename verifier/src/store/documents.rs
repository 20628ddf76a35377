//! Golden sets, policies and rings of keys through their life: observed, proposed, signed, staged, active, retired.
//!
//! Whether signatures suffice is decided by whoever calls; here versions only rise, a document is never rewritten, and every
//! step is audited with who took it.

use proto::digest::{Digest, HashAlg};
use sqlx::sqlite::SqliteRow;

use super::{
    Store, StoreError,
    changes::Ground,
    row,
    types::{
        By, Document, DocumentHead, DocumentId, DocumentKind, DocumentSignature, DocumentState,
        DocumentStep, NewDocument,
    },
    writer::{Event, Touched, Tx},
};
use crate::audit::AuditKind;

/// Largest document.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// How far a version may be above the newest: enough for dates as versions.
const MAX_VERSION_STEP: u64 = 100_000_000;
/// Steps of a history that are read.
const MAX_STEPS: i64 = 200;

fn audit_kind(kind: DocumentKind) -> AuditKind {
    match kind {
        DocumentKind::Golden => AuditKind::GoldenSet,
        DocumentKind::Policy => AuditKind::Policy,
        DocumentKind::Keys => AuditKind::SecurityKeys,
    }
}

/// What audit entries of a document are about.
fn subject(id: &DocumentId) -> String {
    format!("{}@{}", id.name, id.version)
}

async fn audit(
    tx: &mut Tx,
    id: &DocumentId,
    by: &By,
    body: serde_json::Value,
) -> Result<(), StoreError> {
    let (kind, subject, body) = (audit_kind(id.kind), subject(id), row::json(&body)?);
    tx.append(Event { kind, at: by.at, actor: &by.actor, subject: &subject, body }).await
}

fn decode_head(found: &SqliteRow) -> Result<DocumentHead, StoreError> {
    let approved_under: Option<i64> = row::get(found, "approved_under")?;
    Ok(DocumentHead {
        id: DocumentId {
            kind: row::parse(found, "kind")?,
            name: row::get(found, "name")?,
            version: row::get_u64(found, "version")?,
        },
        pool: row::get(found, "pool")?,
        sha256: row::parse(found, "sha256")?,
        state: row::parse(found, "state")?,
        origin: row::get(found, "origin")?,
        proposed: By {
            actor: row::get(found, "proposed_by")?,
            at: row::get(found, "proposed_at")?,
        },
        approved_under: approved_under.map(i64::unsigned_abs),
    })
}

fn decode(found: &SqliteRow) -> Result<Document, StoreError> {
    let document = Document {
        head: decode_head(found)?,
        document: row::get(found, "document")?,
        payload: row::get(found, "payload")?,
    };
    let observed = HashAlg::Sha256.hash(&[&document.document]);
    if observed != document.sha256 {
        let why = format!("{}: {observed}, recorded {}", document.id, document.sha256);
        return Err(StoreError::Corrupt { what: "reference document", why });
    }
    Ok(document)
}

async fn state_of(tx: &mut Tx, id: &DocumentId) -> Result<Option<DocumentState>, StoreError> {
    let word: Option<String> = sqlx::query_scalar(
        "SELECT state FROM reference_documents WHERE kind = $1 AND name = $2 AND version = $3",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .bind(row::to_i64("version", id.version)?)
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(StoreError::database("read a reference document"))?;
    word.map(|word| word.parse()).transpose()
}

fn not_found(id: &DocumentId) -> StoreError {
    StoreError::NotFound { what: "reference document", key: id.to_string() }
}

async fn set_state(
    tx: &mut Tx,
    id: &DocumentId,
    to: DocumentState,
    under: Option<u64>,
) -> Result<(), StoreError> {
    let under = under.map(|version| row::to_i64("version", version)).transpose()?;
    sqlx::query(
        "UPDATE reference_documents SET state = $4, approved_under = coalesce($5, approved_under) \
         WHERE kind = $1 AND name = $2 AND version = $3",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .bind(row::to_i64("version", id.version)?)
    .bind(to.as_str())
    .bind(under)
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::database("change a reference document"))?;
    Ok(())
}

/// The state a document is in, if a step to `to` may be taken from it.
async fn from(
    tx: &mut Tx,
    id: &DocumentId,
    allowed: &[DocumentState],
    to: DocumentState,
) -> Result<DocumentState, StoreError> {
    let state = state_of(tx, id).await?.ok_or_else(|| not_found(id))?;
    if allowed.contains(&state) {
        return Ok(state);
    }
    Err(StoreError::InvalidTransition {
        what: "reference document",
        key: id.to_string(),
        from: state.as_str(),
        to: to.as_str(),
    })
}

/// Refuses a step whose approval is by a ring that is not the one in force any more.
async fn approved_by_ring_in_force(tx: &mut Tx, under: u64) -> Result<(), StoreError> {
    let in_force: Option<i64> = sqlx::query_scalar(
        "SELECT version FROM reference_documents WHERE kind = 'keys' AND state = 'active'",
    )
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(StoreError::database("read the ring of keys"))?;
    let found = in_force.map(i64::unsigned_abs);
    if found == Some(under) {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: "ring of keys",
        key: "security".to_owned(),
        expected: Some(under),
        found,
    })
}

async fn insert(
    tx: &mut Tx,
    new: &NewDocument,
    state: DocumentState,
    by: &By,
) -> Result<(), StoreError> {
    let newest: Option<i64> = sqlx::query_scalar(
        "SELECT max(version) FROM reference_documents WHERE kind = $1 AND name = $2",
    )
    .bind(new.id.kind.as_str())
    .bind(&new.id.name)
    .fetch_one(&mut tx.conn)
    .await
    .map_err(StoreError::database("read reference documents"))?;
    let newest = newest.map_or(0, i64::unsigned_abs);
    if new.id.version <= newest {
        return Err(StoreError::VersionNotNewer { id: new.id.clone(), newest });
    }
    // Nobody uses up the versions of a name, after which nothing could follow.
    let highest = newest.saturating_add(MAX_VERSION_STEP);
    if new.id.version > highest {
        return Err(StoreError::Invalid {
            what: "version",
            why: format!("{} is far above {newest}, the newest; at most {highest}", new.id),
        });
    }
    sqlx::query(
        "INSERT INTO reference_documents (kind, name, version, pool, document, sha256, payload, \
         state, origin, proposed_by, proposed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
         $11)",
    )
    .bind(new.id.kind.as_str())
    .bind(&new.id.name)
    .bind(row::to_i64("version", new.id.version)?)
    .bind(&new.pool)
    .bind(&new.document)
    .bind(HashAlg::Sha256.hash(&[&new.document]).to_string())
    .bind(&new.payload)
    .bind(state.as_str())
    .bind(&new.origin)
    .bind(&by.actor)
    .bind(by.at)
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::insert("reference document", &new.id.to_string()))?;
    Ok(())
}

/// Proposes, or observes; `false` if it was there as it is.
async fn propose(tx: &mut Tx, new: &NewDocument, by: &By) -> Result<bool, StoreError> {
    let sha256 = HashAlg::Sha256.hash(&[&new.document]).to_string();
    let known: Option<(String, String)> = sqlx::query_as(
        "SELECT sha256, state FROM reference_documents WHERE kind = $1 AND name = $2 AND version = $3",
    )
    .bind(new.id.kind.as_str())
    .bind(&new.id.name)
    .bind(row::to_i64("version", new.id.version)?)
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(StoreError::database("read a reference document"))?;
    let to = if new.is_observed { DocumentState::Observed } else { DocumentState::Proposed };
    match known {
        // The same text again: offering it twice is no mistake.
        Some((known, state)) if known == sha256 => {
            if to == DocumentState::Observed || state != DocumentState::Observed.as_str() {
                return Ok(false);
            }
            set_state(tx, &new.id, to, None).await?;
        }
        _ => insert(tx, new, to, by).await?,
    }
    let body = serde_json::json!({
        "change": to.as_str(), "pool": new.pool, "sha256": sha256, "origin": new.origin,
    });
    audit(tx, &new.id, by, body).await?;
    Ok(true)
}

async fn sign(
    tx: &mut Tx,
    id: &DocumentId,
    key_id: &Digest,
    signature: &[u8],
    is_approved: bool,
    by: &By,
) -> Result<(), StoreError> {
    let allowed = [
        DocumentState::Observed,
        DocumentState::Proposed,
        DocumentState::Signed,
        DocumentState::Staged,
        DocumentState::Active,
    ];
    let state = from(tx, id, &allowed, DocumentState::Signed).await?;
    let done = sqlx::query(
        "INSERT INTO reference_signatures (kind, name, version, key_id, signature, added_by, \
         added_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .bind(row::to_i64("version", id.version)?)
    .bind(key_id.to_string())
    .bind(signature)
    .bind(&by.actor)
    .bind(by.at)
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::database("keep a signature"))?;
    let is_new = done.rows_affected() > 0;
    let becomes_signed =
        is_approved && matches!(state, DocumentState::Observed | DocumentState::Proposed);
    if becomes_signed {
        set_state(tx, id, DocumentState::Signed, None).await?;
    }
    if is_new || becomes_signed {
        let body = serde_json::json!({
            "change": "sign", "key": key_id, "approved": is_approved,
        });
        audit(tx, id, by, body).await?;
    }
    Ok(())
}

/// Retires every lower version of the name that never came into force: versions only rise, also those that judge.
async fn retire_left_behind(tx: &mut Tx, id: &DocumentId) -> Result<Vec<u64>, StoreError> {
    let left: Vec<i64> = sqlx::query_scalar(
        "UPDATE reference_documents SET state = 'retired' WHERE kind = $1 AND name = $2 AND \
         version < $3 AND state IN ('observed', 'proposed', 'signed', 'staged') RETURNING version",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .bind(row::to_i64("version", id.version)?)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(StoreError::database("retire reference documents"))?;
    Ok(left.into_iter().map(i64::unsigned_abs).collect())
}

/// Refuses a version that would take the place of a higher one: old content comes back as a new version.
///
/// Whatever else keeps lower versions from judging: an activation retires them, and none is proposed.
async fn above_active(tx: &mut Tx, id: &DocumentId) -> Result<(), StoreError> {
    let newest: Option<i64> = sqlx::query_scalar(
        "SELECT max(version) FROM reference_documents WHERE kind = $1 AND name = $2 AND state = \
         'active'",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .fetch_one(&mut tx.conn)
    .await
    .map_err(StoreError::database("read reference documents"))?;
    match newest.map(i64::unsigned_abs) {
        Some(newest) if newest > id.version => {
            Err(StoreError::VersionNotNewer { id: id.clone(), newest })
        }
        _ => Ok(()),
    }
}

/// Retires every active version of the name but this one; says which.
async fn retire_others(tx: &mut Tx, id: &DocumentId) -> Result<Vec<u64>, StoreError> {
    let others: Vec<i64> = sqlx::query_scalar(
        "UPDATE reference_documents SET state = 'retired' WHERE kind = $1 AND name = $2 AND \
         version <> $3 AND state = 'active' RETURNING version",
    )
    .bind(id.kind.as_str())
    .bind(&id.name)
    .bind(row::to_i64("version", id.version)?)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(StoreError::database("retire reference documents"))?;
    Ok(others.into_iter().map(i64::unsigned_abs).collect())
}

impl Store {
    /// Keeps a document as observed or proposed; `false` if it was there as it is.
    ///
    /// # Errors
    /// [`StoreError::VersionNotNewer`], [`StoreError::TooLarge`].
    pub async fn propose_document(&self, new: NewDocument, by: By) -> Result<bool, StoreError> {
        if new.document.len().max(new.payload.len()) > MAX_DOCUMENT_BYTES {
            return Err(StoreError::TooLarge {
                what: "reference document",
                bytes: new.document.len().max(new.payload.len()) as u64,
                limit: MAX_DOCUMENT_BYTES as u64,
            });
        }
        self.write(move |tx| Box::pin(async move { propose(tx, &new, &by).await })).await
    }

    /// Keeps a signature that was verified; with `is_approved` the document has enough of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::InvalidTransition`] for a retired document.
    pub async fn sign_document(
        &self,
        id: DocumentId,
        key_id: Digest,
        signature: Vec<u8>,
        is_approved: bool,
        by: By,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move { sign(tx, &id, &key_id, &signature, is_approved, &by).await })
        })
        .await
    }

    /// Has a signed document judged and reported from now on. `under` is the version of the ring that approved it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::InvalidTransition`]; [`StoreError::Conflict`] if another ring is in force by
    /// now.
    pub async fn stage_document(
        &self,
        id: DocumentId,
        under: u64,
        by: By,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                let to = DocumentState::Staged;
                from(tx, &id, &[DocumentState::Signed], to).await?;
                approved_by_ring_in_force(tx, under).await?;
                set_state(tx, &id, to, Some(under)).await?;
                let body = serde_json::json!({ "change": "stage", "under": under });
                audit(tx, &id, &by, body).await
            })
        })
        .await
    }

    /// Puts a signed or staged document in force; the active version before it retires unless it is to stay `alongside`.
    /// `under` is the version of the ring that approved it. Returns the versions that retired.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::InvalidTransition`]; [`StoreError::Conflict`] if another ring is in force by
    /// now; [`StoreError::VersionNotNewer`] if it would take the place of a higher version.
    pub async fn activate_document(
        &self,
        id: DocumentId,
        alongside: bool,
        under: u64,
        by: By,
    ) -> Result<Vec<u64>, StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                let to = DocumentState::Active;
                from(tx, &id, &[DocumentState::Signed, DocumentState::Staged], to).await?;
                approved_by_ring_in_force(tx, under).await?;
                above_active(tx, &id).await?;
                let mut retired = retire_left_behind(tx, &id).await?;
                if !alongside {
                    retired.extend(retire_others(tx, &id).await?);
                }
                retired.sort_unstable();
                set_state(tx, &id, to, Some(under)).await?;
                let body = serde_json::json!({
                    "change": "activate", "alongside": alongside, "under": under, "retired": retired,
                });
                audit(tx, &id, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::ReferenceDocuments));
                Ok(retired)
            })
        })
        .await
    }

    /// Retires a document for good, from the state in which it was seen.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InvalidTransition`] if it is in another state by now, if it is retired, and
    /// for a policy or ring in force: it ends when a signed successor takes its place.
    pub async fn retire_document(
        &self,
        id: DocumentId,
        seen: DocumentState,
        reason: &str,
        by: By,
    ) -> Result<(), StoreError> {
        let reason = reason.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let to = DocumentState::Retired;
                let ends_alone = match seen {
                    DocumentState::Retired => false,
                    DocumentState::Active => id.kind == DocumentKind::Golden,
                    _ => true,
                };
                let allowed: &[DocumentState] = if ends_alone { &[seen] } else { &[] };
                let was = from(tx, &id, allowed, to).await?;
                set_state(tx, &id, to, None).await?;
                let body = serde_json::json!({
                    "change": "retire", "from": was.as_str(), "reason": reason,
                });
                audit(tx, &id, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::ReferenceDocuments));
                Ok(())
            })
        })
        .await
    }

    /// Takes the first ring of keys, which nobody can have signed; `false` if there is a ring already.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be kept.
    pub async fn adopt_keys(&self, new: NewDocument, by: By) -> Result<bool, StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                let known: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM reference_documents WHERE kind = 'keys'",
                )
                .fetch_one(&mut tx.conn)
                .await
                .map_err(StoreError::database("read the ring of keys"))?;
                if known > 0 {
                    return Ok(false);
                }
                insert(tx, &new, DocumentState::Active, &by).await?;
                let body = serde_json::json!({ "change": "adopt", "origin": new.origin });
                audit(tx, &new.id, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::ReferenceDocuments));
                Ok(true)
            })
        })
        .await
    }

    /// One version of a document.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for a changed document.
    pub async fn document(&self, id: &DocumentId) -> Result<Option<Document>, StoreError> {
        let found = sqlx::query(
            "SELECT * FROM reference_documents WHERE kind = $1 AND name = $2 AND version = $3",
        )
        .bind(id.kind.as_str())
        .bind(&id.name)
        .bind(row::to_i64("version", id.version)?)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read a reference document"))?;
        found.as_ref().map(decode).transpose()
    }

    /// The document with these bytes, whatever its state.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for a changed document.
    pub async fn document_by_digest(
        &self,
        sha256: &Digest,
    ) -> Result<Option<Document>, StoreError> {
        let found = sqlx::query("SELECT * FROM reference_documents WHERE sha256 = $1 LIMIT 1")
            .bind(sha256.to_string())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("read a reference document"))?;
        found.as_ref().map(decode).transpose()
    }

    /// Every version of every document of a kind, newest first under each name.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for a changed document.
    pub async fn documents(&self, kind: DocumentKind) -> Result<Vec<Document>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM reference_documents WHERE kind = $1 ORDER BY name, version DESC",
        )
        .bind(kind.as_str())
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list reference documents"))?;
        rows.iter().map(decode).collect()
    }

    /// As [`Store::documents`], without what they say.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn document_heads(
        &self,
        kind: DocumentKind,
    ) -> Result<Vec<DocumentHead>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, name, version, pool, sha256, state, origin, proposed_by, proposed_at, \
             approved_under FROM reference_documents WHERE kind = $1 ORDER BY name, version DESC",
        )
        .bind(kind.as_str())
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list reference documents"))?;
        rows.iter().map(decode_head).collect()
    }

    /// What is judged by: every staged and every active document.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for a changed document.
    pub async fn documents_in_force(&self) -> Result<Vec<Document>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM reference_documents WHERE state IN ('staged', 'active') \
             ORDER BY kind, name, version",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read what is in force"))?;
        rows.iter().map(decode).collect()
    }

    /// Signatures over a document, by key.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn document_signatures(
        &self,
        id: &DocumentId,
    ) -> Result<Vec<DocumentSignature>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM reference_signatures WHERE kind = $1 AND name = $2 AND version = $3 \
             ORDER BY key_id",
        )
        .bind(id.kind.as_str())
        .bind(&id.name)
        .bind(row::to_i64("version", id.version)?)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read signatures"))?;
        let decode = |found: &SqliteRow| {
            Ok(DocumentSignature {
                key_id: row::parse(found, "key_id")?,
                signature: row::get(found, "signature")?,
                added: By { actor: row::get(found, "added_by")?, at: row::get(found, "added_at")? },
            })
        };
        rows.iter().map(decode).collect()
    }

    /// What was done to a document, oldest first, from the audit record.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn document_history(&self, id: &DocumentId) -> Result<Vec<DocumentStep>, StoreError> {
        let rows = sqlx::query(
            "SELECT at, actor, body FROM audit_entries WHERE subject = $1 AND kind = $2 \
             ORDER BY at, replica, seq LIMIT $3",
        )
        .bind(subject(id))
        .bind(audit_kind(id.kind).as_str())
        .bind(MAX_STEPS)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read the history of a document"))?;
        let decode = |found: &SqliteRow| {
            let body: Vec<u8> = row::get(found, "body")?;
            Ok(DocumentStep {
                by: By { actor: row::get(found, "actor")?, at: row::get(found, "at")? },
                what: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        rows.iter().map(decode).collect()
    }
}

#[cfg(test)]
mod tests;
