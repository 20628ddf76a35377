//! Certificates: the intent before signing, what was signed, what was revoked.

use proto::digest::Digest;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, row,
    signed::{Signed, mark_signed, not_marked},
    types::{By, Certificate, CertificateIntent, CertificateStatus},
    writer::{Event, Tx},
};
use crate::audit::{AuditEntry, AuditKind};

fn decode(found: &SqliteRow) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        intent: CertificateIntent {
            serial: row::get(found, "serial")?,
            node: row::get(found, "node")?,
            not_before: row::get(found, "not_before")?,
            not_after: row::get(found, "not_after")?,
            spki_sha256: row::parse(found, "spki_sha256")?,
        },
        decision_id: row::get(found, "decision_id")?,
        certificate_sha256: row::parse_optional(found, "certificate_sha256")?,
        status: row::parse(found, "status")?,
        revoked_at: row::get(found, "revoked_at")?,
        revocation_reason: row::get(found, "revocation_reason")?,
    })
}

/// What an intent's entry says.
pub(super) fn body(intent: &CertificateIntent, decision_id: &str) -> Result<Vec<u8>, StoreError> {
    row::json(&serde_json::json!({ "intent": intent, "decision_id": decision_id }))
}

/// What the entry of this intent must hold, from the certificate's own columns.
pub(super) async fn body_of(
    conn: &mut SqliteConnection,
    entry: &AuditEntry,
) -> Result<Option<Vec<u8>>, StoreError> {
    match find(conn, &entry.subject).await {
        Ok(None) => Ok(None),
        Ok(Some(found)) => body(&found.intent, &found.decision_id).map(Some),
        // Not what was written, whatever it is.
        Err(StoreError::Corrupt { why, .. }) => Ok(Some(why.into_bytes())),
        Err(error) => Err(error),
    }
}

async fn find(
    conn: &mut SqliteConnection,
    serial: &str,
) -> Result<Option<Certificate>, StoreError> {
    let found = sqlx::query("SELECT * FROM certificates WHERE serial = $1")
        .bind(serial)
        .fetch_optional(conn)
        .await;
    found.map_err(StoreError::database("read a certificate"))?.as_ref().map(decode).transpose()
}

async fn existing(tx: &mut Tx, serial: &str) -> Result<Certificate, StoreError> {
    let found = find(&mut tx.conn, serial).await?;
    found.ok_or_else(|| StoreError::NotFound { what: "certificate", key: serial.to_owned() })
}

/// Revokes what the node holds that is not past its end, intents too.
pub(super) async fn revoke_of_node(
    tx: &mut Tx,
    node: &str,
    reason: &str,
    by: &By,
) -> Result<Vec<String>, StoreError> {
    let serials: Vec<String> = sqlx::query_scalar(
        "SELECT serial FROM certificates WHERE node = $1 AND not_after >= $2 AND status <> \
         'revoked' ORDER BY serial",
    )
    .bind(node)
    .bind(by.at)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(StoreError::database("read certificates"))?;
    for serial in &serials {
        revoke(tx, serial, reason, by).await?;
    }
    Ok(serials)
}

/// As [`revoke_of_node`], what rests on one decision.
pub(super) async fn revoke_of_decision(
    tx: &mut Tx,
    decision_id: &str,
    reason: &str,
    by: &By,
) -> Result<(), StoreError> {
    let serials: Vec<String> = sqlx::query_scalar(
        "SELECT serial FROM certificates WHERE decision_id = $1 AND not_after >= $2 AND status <> \
         'revoked' ORDER BY serial",
    )
    .bind(decision_id)
    .bind(by.at)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(StoreError::database("read certificates"))?;
    for serial in &serials {
        revoke(tx, serial, reason, by).await?;
    }
    Ok(())
}

/// Records a certificate that is about to be signed, with its entry.
pub(super) async fn insert_intent(
    tx: &mut Tx,
    intent: &CertificateIntent,
    decision_id: &str,
    by: &By,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (serial, node, decision_id, not_before, not_after, spki_sha256, \
         status) VALUES ($1, $2, $3, $4, $5, $6, 'intent')",
    )
    .bind(&intent.serial)
    .bind(&intent.node)
    .bind(decision_id)
    .bind(intent.not_before)
    .bind(intent.not_after)
    .bind(intent.spki_sha256.to_string())
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::insert("certificate", &intent.serial))?;
    let (kind, actor, subject) = (AuditKind::CertificateIntent, by.actor.as_str(), &intent.serial);
    let body = body(intent, decision_id)?;
    tx.append(Event { kind, at: by.at, actor, subject, body }).await
}

async fn revoke(tx: &mut Tx, serial: &str, reason: &str, by: &By) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE certificates SET status = 'revoked', revoked_at = $2, revocation_reason = $3 \
         WHERE serial = $1",
    )
    .bind(serial)
    .bind(by.at)
    .bind(reason)
    .execute(&mut tx.conn)
    .await
    .map_err(StoreError::database("revoke a certificate"))?;
    let body = row::json(&serde_json::json!({ "reason": reason }))?;
    let (kind, actor) = (AuditKind::CertificateRevoked, by.actor.as_str());
    tx.append(Event { kind, at: by.at, actor, subject: serial, body }).await?;
    Ok(())
}

impl Store {
    /// Records that the intended certificate was signed. On an error the certificate must not leave
    /// the verifier.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without an intent, [`StoreError::InvalidTransition`] where it was
    /// revoked since, or signed before.
    pub async fn certificate_signed(
        &self,
        serial: &str,
        certificate_sha256: Digest,
        by: By,
    ) -> Result<(), StoreError> {
        let mark = Signed::new(serial, certificate_sha256, by);
        self.write(move |tx| {
            Box::pin(async move {
                let marked = mark_signed(tx, std::slice::from_ref(&mark)).await?;
                marked.into_iter().collect()
            })
        })
        .await
    }

    /// As [`Self::certificate_signed`], for whoever does not wait for it: written with one of the
    /// next commits, and shortly by itself where none comes. What goes wrong is logged, and leaves
    /// the certificate recorded as intended, as a crash does; revocation covers those too.
    pub async fn certificate_signed_soon(&self, serial: &str, certificate_sha256: Digest, by: By) {
        let mark = Signed::new(serial, certificate_sha256, by);
        if let Err(error) = self.signed(mark).await {
            not_marked(serial, &error);
        }
    }

    /// Revokes one certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::InvalidTransition`] for a revoked one.
    pub async fn revoke_certificate(
        &self,
        serial: &str,
        reason: &str,
        by: By,
    ) -> Result<(), StoreError> {
        let (serial, reason) = (serial.to_owned(), reason.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let found = existing(tx, &serial).await?;
                if found.status == CertificateStatus::Revoked {
                    let revoked = CertificateStatus::Revoked.as_str();
                    return Err(StoreError::InvalidTransition {
                        what: "certificate",
                        key: serial,
                        from: revoked,
                        to: revoked,
                    });
                }
                revoke(tx, &serial, &reason, &by).await
            })
        })
        .await
    }

    /// The certificate with this serial number.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn certificate(&self, serial: &str) -> Result<Option<Certificate>, StoreError> {
        find(&mut *self.reader().await?, serial).await
    }

    /// Certificates of a node, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn certificates(
        &self,
        node: &str,
        limit: u32,
    ) -> Result<Vec<Certificate>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM certificates WHERE node = $1 ORDER BY not_after DESC, serial LIMIT $2",
        )
        .bind(node)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list certificates"))?;
        rows.iter().map(decode).collect()
    }

    /// Revoked certificates that are not past their end at `now`, by serial number: the deny list
    /// and the CRL. Intents that were revoked before signing are among them.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn revoked_certificates(&self, now: i64) -> Result<Vec<Certificate>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM certificates WHERE status = 'revoked' AND not_after >= $1 ORDER BY \
             serial",
        )
        .bind(now)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list revoked certificates"))?;
        rows.iter().map(decode).collect()
    }
}
