//! The rows of a decision, and of the certificate that it allows, in one call of the driver.
//!
//! A call costs two changes of threads, more than what SQLite does for a row. A renewal is therefore
//! one call: chain entries, decision, evidence, intent to sign, and the end of its savepoint.

use proto::digest::{Digest, HashAlg};
use sqlx::{QueryBuilder, Sqlite};

use super::{
    StoreError, certificates, chain, permits,
    permits::NewPermit,
    row,
    types::{CertificateIntent, Decision},
    writer::{Event, Tx},
};
use crate::{
    audit::{AuditEntry, AuditKind},
    objects::StoredObject,
};

/// Who decides.
pub(super) const ACTOR: &str = "verifier";

/// A decision ready to be written: what is hashed was hashed, what is big was stored.
pub(super) struct Prepared {
    pub(super) decision: Decision,
    pub(super) verdict: Vec<u8>,
    pub(super) case: Option<Vec<u8>>,
    pub(super) objects: Vec<StoredObject>,
}

/// A certificate's intent with its chain entry.
struct Intended {
    intent: CertificateIntent,
    entry: AuditEntry,
}

impl Intended {
    fn new(tx: &Tx, intent: CertificateIntent, decision: &Decision) -> Result<Self, StoreError> {
        let entry = tx.next_entry(Event {
            kind: AuditKind::CertificateIntent,
            at: decision.at,
            actor: ACTOR,
            subject: &intent.serial,
            body: certificates::body(&intent, &decision.id)?,
        });
        Ok(Self { intent, entry })
    }
}

/// Writes the rows and ends the piece of work: nothing more may follow in it.
pub(super) async fn insert(
    tx: &mut Tx,
    prepared: Prepared,
    intent: Option<CertificateIntent>,
    permit: Option<NewPermit>,
) -> Result<(u64, Digest), StoreError> {
    let Prepared { decision, verdict, case, objects } = prepared;
    let entry = tx.next_entry(Event {
        kind: AuditKind::Decision,
        at: decision.at,
        actor: ACTOR,
        subject: &decision.id,
        body: row::json(&decision)?,
    });
    tx.appended(&entry);
    let intended = intent.map(|intent| Intended::new(tx, intent, &decision)).transpose()?;
    if let Some(intended) = &intended {
        tx.appended(&intended.entry);
    }
    let issued = match &permit {
        Some(permit) => Some(tx.next_entry(Event {
            kind: AuditKind::PermitIssued,
            at: decision.at,
            actor: ACTOR,
            subject: &permit.id,
            body: permits::body(permit, &decision.id)?,
        })),
        None => None,
    };
    if let Some(entry) = &issued {
        tx.appended(entry);
    }

    let mut sql = QueryBuilder::new(chain::INSERT_ENTRY);
    chain::push(&mut sql, &entry)?;
    for entry in intended.iter().map(|intended| &intended.entry).chain(&issued) {
        chain::push(sql.push(", "), entry)?;
    }
    push_decision(&mut sql, &decision, &entry)?;
    sql.push("; INSERT INTO decision_evidence (decision_id, verdict, case_bytes) VALUES (");
    sql.separated(", ").push_bind(&decision.id).push_bind(verdict).push_bind(case);
    sql.push(")");
    if !objects.is_empty() {
        sql.push("; INSERT INTO decision_objects (decision_id, sha256) ");
        sql.push_values(&objects, |mut row, object| {
            row.push_bind(&decision.id).push_bind(object.digest().to_string());
        });
        sql.push(" ON CONFLICT DO NOTHING");
    }
    if let Some(Intended { intent, .. }) = &intended {
        push_certificate(&mut sql, intent, &decision.id);
    }
    if let Some(permit) = &permit {
        permits::push(&mut sql, permit, &decision.id, decision.at);
    }
    Tx::end_piece(&mut sql);
    let done = sql.build().execute(&mut tx.conn).await;
    done.map_err(|error| match (&intended, &permit) {
        (_, Some(permit)) if StoreError::is_about(&error, "permits") => {
            StoreError::insert("permit", &permit.id)(error)
        }
        (Some(Intended { intent, .. }), _) if StoreError::is_about(&error, "certificates") => {
            StoreError::insert("certificate", &intent.serial)(error)
        }
        _ => StoreError::insert("decision", &decision.id)(error),
    })?;
    tx.piece_ended();
    let hash = Digest::new(HashAlg::Sha256, &entry.entry_hash);
    Ok((entry.seq, hash.expect("SHA-256 digests have 32 bytes")))
}

fn push_decision(
    sql: &mut QueryBuilder<Sqlite>,
    decision: &Decision,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let codes = serde_json::to_string(&decision.codes)
        .map_err(|error| StoreError::Invalid { what: "codes", why: error.to_string() })?;
    sql.push(
        "; INSERT INTO decisions (id, replica, seq, at, node, ek_digest, purpose, outcome, codes, \
         verdict_sha256, case_sha256, policy_version) VALUES (",
    );
    sql.separated(", ")
        .push_bind(&decision.id)
        .push_bind(&entry.replica)
        .push_bind(row::to_i64("sequence number", entry.seq)?)
        .push_bind(decision.at)
        .push_bind(&decision.node)
        .push_bind(decision.ek_digest.map(|digest| digest.to_string()))
        .push_bind(&decision.purpose)
        .push_bind(decision.outcome.as_str())
        .push_bind(codes)
        .push_bind(decision.verdict_sha256.to_string())
        .push_bind(decision.case_sha256.to_string())
        .push_bind(&decision.policy_version);
    sql.push(")");
    Ok(())
}

fn push_certificate(sql: &mut QueryBuilder<Sqlite>, intent: &CertificateIntent, decision_id: &str) {
    sql.push(
        "; INSERT INTO certificates (serial, node, decision_id, not_before, not_after, \
         spki_sha256, status) VALUES (",
    );
    sql.separated(", ")
        .push_bind(&intent.serial)
        .push_bind(&intent.node)
        .push_bind(decision_id)
        .push_bind(intent.not_before)
        .push_bind(intent.not_after)
        .push_bind(intent.spki_sha256.to_string())
        .push("'intent'");
    sql.push(")");
}
