//! The time of the last decision, behind which the verifier's clock must not stand.
//!
//! A clock that was far ahead once, and decided then, would stop the service until that time has
//! come. Whoever owns the machine may say that the clock is right now: the act is an entry of the
//! audit chain, and decisions before that entry no longer count.

use super::{Store, StoreError, row, types::By, writer::Event};
use crate::audit::AuditKind;

/// Subject of the entry, kind `action`.
const ACCEPTED: &str = "clock accepted";

impl Store {
    /// When the last decision was made, seconds since 1970; 0 if there is none. Decisions before the
    /// clock was accepted do not count, the acceptance does.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn last_decided(&self) -> Result<i64, StoreError> {
        let failed = || StoreError::database("read the last decision's time");
        let mut reader = self.reader().await?;
        let accepted = sqlx::query(
            "SELECT replica, seq, at FROM audit_entries WHERE subject = $1 AND kind = $2 ORDER BY \
             seq DESC LIMIT 1",
        )
        .bind(ACCEPTED)
        .bind(AuditKind::Action.as_str())
        .fetch_optional(&mut *reader)
        .await
        .map_err(failed())?;
        let Some(accepted) = accepted else {
            let last: Option<i64> = sqlx::query_scalar("SELECT max(at) FROM decisions")
                .fetch_one(&mut *reader)
                .await
                .map_err(failed())?;
            return Ok(last.unwrap_or(0));
        };
        let replica: String = row::get(&accepted, "replica")?;
        let since = row::get_u64(&accepted, "seq")?;
        let at: i64 = row::get(&accepted, "at")?;
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(at) FROM decisions WHERE replica = $1 AND seq > $2")
                .bind(replica)
                .bind(row::to_i64("sequence number", since)?)
                .fetch_one(&mut *reader)
                .await
                .map_err(failed())?;
        Ok(last.unwrap_or(at).max(at))
    }

    /// Records that the clock is right although it stands before the last decision.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the last decision is not of `recorded_unix_s` (whoever accepts must
    /// know what), or if the clock does not stand before it.
    pub async fn accept_clock(
        &self,
        recorded_unix_s: i64,
        reason: &str,
        by: By,
    ) -> Result<(), StoreError> {
        let found = self.last_decided().await?;
        if found != recorded_unix_s {
            let why = format!("the last decision is of {found}, not of {recorded_unix_s}");
            return Err(StoreError::Invalid { what: "recorded time", why });
        }
        if by.at >= found {
            let why = "does not stand before the last decision".to_owned();
            return Err(StoreError::Invalid { what: "clock", why });
        }
        let body = row::json(&serde_json::json!({
            "last_decision": recorded_unix_s, "now": by.at, "reason": reason,
        }))?;
        self.write(move |tx| {
            Box::pin(async move {
                let (at, actor) = (by.at, by.actor.as_str());
                let kind = AuditKind::Action;
                tx.append(Event { kind, at, actor, subject: ACCEPTED, body }).await
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{StoreError, testing::*};

    #[tokio::test]
    async fn an_accepted_clock_leaves_the_future_behind_and_only_by_an_explicit_act() {
        let (_folder, store) = store().await;
        assert_eq!(store.last_decided().await.expect("read"), 0);
        let decided = async |id: &str, at: i64| {
            let mut appraisal = appraisal(id, "n1");
            appraisal.decision.at = at;
            store.record(appraisal).await.expect("record");
            store.last_decided().await.expect("read")
        };
        let future = NOW + 1_000_000_000;
        assert_eq!(decided("d1", NOW).await, NOW);
        // The clock is right: there is nothing to accept.
        let error = store.accept_clock(NOW, "ticket 1", by()).await.expect_err("invalid");
        assert!(matches!(error, StoreError::Invalid { what: "clock", .. }), "{error}");
        assert_eq!(decided("d2", future).await, future);
        let error = store.accept_clock(NOW, "ticket 1", by()).await.expect_err("another time");
        assert!(matches!(error, StoreError::Invalid { what: "recorded time", .. }), "{error}");
        assert_eq!(store.last_decided().await.expect("read"), future);

        store.accept_clock(future, "ticket 1", by()).await.expect("accepted");
        assert_eq!(store.last_decided().await.expect("read"), NOW);
        let entry = store.audit_entries(Some("clock accepted"), 1).await.expect("read").remove(0);
        assert_eq!((entry.kind.as_str(), entry.actor.as_str()), ("action", "admin/eve"));
        let body: serde_json::Value = serde_json::from_slice(&entry.body).expect("JSON");
        assert_eq!((&body["last_decision"], &body["reason"]), (&future.into(), &"ticket 1".into()));
        // From there on as ever.
        assert_eq!(decided("d3", NOW + 60).await, NOW + 60);
        assert_eq!(decided("d4", NOW + 30).await, NOW + 60);
        assert_eq!(decided("d5", future).await, future);
        store.accept_clock(future, "again", by()).await.expect("a second time");
        assert_eq!(store.last_decided().await.expect("read"), NOW);
    }
}
