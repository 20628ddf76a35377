//! Certificates that were signed as intended, marked so in groups.
//!
//! Whoever signed does not wait for the mark, so that marks ride along with commits that are made
//! anyway: the renewal's own transaction is the only one that it costs.

use std::collections::HashMap;

use proto::digest::Digest;
use sqlx::QueryBuilder;

use super::{
    StoreError, chain, row,
    types::{By, CertificateStatus},
    writer::{Event, Job, Tx, TxFuture},
};
use crate::audit::AuditKind;

/// Marks in one call of the driver.
pub(super) const MARKS: usize = 16;

/// A certificate that was signed as intended.
#[derive(Debug)]
pub(super) struct Signed {
    serial: String,
    certificate_sha256: Digest,
    by: By,
}

impl Signed {
    pub(super) fn new(serial: &str, certificate_sha256: Digest, by: By) -> Self {
        Self { serial: serial.to_owned(), certificate_sha256, by }
    }
}

/// Marks that wait for a commit; written as a job without a caller.
pub(super) struct Marking {
    marks: Vec<Signed>,
    answers: Vec<Result<(), StoreError>>,
}

impl Marking {
    pub(super) const fn new(marks: Vec<Signed>) -> Self {
        Self { marks, answers: Vec::new() }
    }
}

impl Job for Marking {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> TxFuture<'t, ()> {
        Box::pin(async move {
            self.answers = mark_signed(tx, &self.marks).await?;
            Ok(())
        })
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { marks, answers } = *self;
        match outcome {
            Ok(()) => {
                for (mark, answer) in marks.iter().zip(answers) {
                    if let Err(error) = answer {
                        not_marked(&mark.serial, &error);
                    }
                }
            }
            Err(error) => marks.iter().for_each(|mark| not_marked(&mark.serial, &error)),
        }
    }
}

/// Records signatures together, in two calls of the driver, and ends the piece of work. Answers for
/// each: what may not be marked does not keep the others from it.
pub(super) async fn mark_signed(
    tx: &mut Tx,
    marks: &[Signed],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut found = statuses(tx, marks).await?;
    let mut answers = Vec::with_capacity(marks.len());
    let mut good = Vec::with_capacity(marks.len());
    for mark in marks {
        let key = mark.serial.clone();
        // Replaced, so that the same mark twice is refused the second time.
        let before =
            found.get_mut(&key).map(|status| std::mem::replace(status, CertificateStatus::Signed));
        answers.push(match before {
            None => Err(StoreError::NotFound { what: "certificate", key }),
            Some(CertificateStatus::Intent) => {
                good.push(mark);
                Ok(())
            }
            Some(from) => Err(StoreError::InvalidTransition {
                what: "certificate",
                key,
                from: from.as_str(),
                to: CertificateStatus::Signed.as_str(),
            }),
        });
    }
    if good.is_empty() {
        return Ok(answers);
    }
    let mut sql = QueryBuilder::new(chain::INSERT_ENTRY);
    for (at, Signed { serial, certificate_sha256, by }) in good.iter().enumerate() {
        let sha256 = serde_json::json!({ "certificate_sha256": certificate_sha256 });
        let body = row::json(&sha256)?;
        let (kind, actor) = (AuditKind::CertificateSigned, by.actor.as_str());
        let entry = tx.next_entry(Event { kind, at: by.at, actor, subject: serial, body });
        tx.appended(&entry);
        chain::push(sql.push(if at == 0 { "" } else { ", " }), &entry)?;
    }
    for Signed { serial, certificate_sha256, .. } in good {
        sql.push("; UPDATE certificates SET status = 'signed', certificate_sha256 = ")
            .push_bind(certificate_sha256.to_string())
            .push(" WHERE serial = ")
            .push_bind(serial);
    }
    Tx::end_piece(&mut sql);
    let done = sql.build().execute(&mut tx.conn).await;
    done.map_err(StoreError::database("record signed certificates"))?;
    tx.piece_ended();
    Ok(answers)
}

async fn statuses(
    tx: &mut Tx,
    marks: &[Signed],
) -> Result<HashMap<String, CertificateStatus>, StoreError> {
    let mut sql = QueryBuilder::new("SELECT serial, status FROM certificates WHERE serial IN (");
    let mut serials = sql.separated(", ");
    for mark in marks {
        serials.push_bind(&mark.serial);
    }
    sql.push(")");
    let rows = sql.build().fetch_all(&mut tx.conn).await;
    let rows = rows.map_err(StoreError::database("read certificates"))?;
    rows.iter()
        .map(|found| Ok((row::get(found, "serial")?, row::parse(found, "status")?)))
        .collect()
}

pub(super) fn not_marked(serial: &str, error: &StoreError) {
    tracing::error!(%error, serial, "a signed certificate stays recorded as intended");
}

#[cfg(test)]
mod tests {
    use crate::store::{CertificateStatus, Store, StoreError, StoreOptions, testing::*};

    #[tokio::test]
    async fn marks_are_written_together_and_one_that_is_refused_keeps_no_other_from_it() {
        let (folder, store) = store().await;
        for (id, serial) in [("d1", "00d1"), ("d2", "00d2"), ("d3", "00d3")] {
            let mut appraisal = appraisal(id, "n1");
            appraisal.certificate = Some(intent(serial, "n1"));
            store.record(appraisal).await.expect("record");
        }
        store.revoke_certificate("00d2", "lost", by()).await.expect("revoke");
        // The absent one, the revoked one and the second mark of the same are refused.
        for serial in ["00d1", "00d9", "00d2", "00d3", "00d1"] {
            store.certificate_signed_soon(serial, digest(serial), by()).await;
        }
        store.close().await.expect("close");
        drop(store);
        let state = folder.path().join("state");
        let store = Store::open(StoreOptions::new(state), NOW).await.expect("open");
        for (serial, status) in [
            ("00d1", CertificateStatus::Signed),
            ("00d2", CertificateStatus::Revoked),
            ("00d3", CertificateStatus::Signed),
        ] {
            let found = store.certificate(serial).await.expect("read").expect("there");
            assert_eq!(found.status, status, "{serial}");
            let signed = (status == CertificateStatus::Signed).then(|| digest(serial));
            assert_eq!(found.certificate_sha256, signed, "{serial}");
        }
        let report = store.verify_chain(|_, _| {}).await.expect("walk");
        // A node, three decisions with their intents, a revocation, two signatures.
        assert_eq!((report.broken, report.entries), (None, 1 + 6 + 1 + 2));
    }

    #[tokio::test]
    async fn a_mark_is_written_without_any_other_commit() {
        let (_folder, store) = store().await;
        let mut appraisal = appraisal("d1", "n1");
        appraisal.certificate = Some(intent("00d1", "n1"));
        store.record(appraisal).await.expect("record");
        store.certificate_signed_soon("00d1", digest("cert"), by()).await;
        let signed = async {
            loop {
                let found = store.certificate("00d1").await.expect("read").expect("there");
                if found.status == CertificateStatus::Signed {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), signed).await;
        assert_eq!(found.expect("marked").certificate_sha256, Some(digest("cert")));
    }

    #[tokio::test]
    async fn a_serial_number_or_decision_given_twice_is_named_and_leaves_nothing() {
        let (_folder, store) = store().await;
        let new = |id: &str, serial: &str| {
            let mut appraisal = appraisal(id, "n1");
            appraisal.certificate = Some(intent(serial, "n1"));
            appraisal
        };
        store.record(new("d1", "00d1")).await.expect("record");
        let error = store.record(new("d2", "00d1")).await.expect_err("serial");
        assert!(matches!(error, StoreError::AlreadyExists { what: "certificate", .. }), "{error}");
        let error = store.record(new("d1", "00d2")).await.expect_err("decision");
        assert!(matches!(error, StoreError::AlreadyExists { what: "decision", .. }), "{error}");
        assert_eq!(store.decision("d2").await.expect("read"), None);
        assert_eq!(store.certificate("00d2").await.expect("read"), None);
        store.record(new("d3", "00d3")).await.expect("goes on");
        let report = store.verify_chain(|_, _| {}).await.expect("walk");
        assert_eq!((report.broken, report.entries), (None, 1 + 2 + 2));
    }
}
