//! Dropping evidence by age and count. Decisions and the audit chain stay, with the digests.

use std::collections::HashSet;

use proto::digest::Digest;
use sqlx::{Row as _, SqliteConnection};

use super::{
    Store, StoreError, row,
    types::{By, Retention, RetentionReport},
    writer::{Event, Tx},
};
use crate::{audit::AuditKind, results_files::ResultsDropped};

/// Decisions whose evidence goes in one transaction: the writer serves others in between.
const STEP: i64 = 500;

/// Decisions with evidence that are older than the limits.
const DOOMED: &str = "SELECT v.decision_id FROM decision_evidence v JOIN decisions d ON d.id = \
    v.decision_id WHERE d.at < $1 ORDER BY d.at LIMIT $2";

async fn cutoff(conn: &mut SqliteConnection, limits: Retention) -> Result<i64, StoreError> {
    let by_count: Option<i64> = match limits.keep_newest {
        None => None,
        Some(0) => Some(i64::MAX),
        Some(count) => sqlx::query_scalar(
            "SELECT d.at FROM decision_evidence v JOIN decisions d ON d.id = v.decision_id ORDER \
             BY d.at DESC LIMIT 1 OFFSET $1",
        )
        .bind(row::to_i64("count", count - 1)?)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::database("plan retention"))?,
    };
    Ok(by_count.unwrap_or(i64::MIN).max(limits.before.unwrap_or(i64::MIN)))
}

async fn drop_some(tx: &mut Tx, cutoff: i64) -> Result<(u64, u64), StoreError> {
    let ids: Vec<String> = sqlx::query_scalar(DOOMED)
        .bind(cutoff)
        .bind(STEP)
        .fetch_all(&mut tx.conn)
        .await
        .map_err(StoreError::database("plan retention"))?;
    let mut bytes = 0;
    for id in &ids {
        let size: i64 = sqlx::query_scalar(
            "SELECT length(verdict) + coalesce(length(case_bytes), 0) FROM decision_evidence \
             WHERE decision_id = $1",
        )
        .bind(id)
        .fetch_one(&mut tx.conn)
        .await
        .map_err(StoreError::database("plan retention"))?;
        bytes += size.unsigned_abs();
        for sql in [
            "DELETE FROM decision_evidence WHERE decision_id = $1",
            "DELETE FROM decision_objects WHERE decision_id = $1",
        ] {
            sqlx::query(sql)
                .bind(id)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("drop evidence"))?;
        }
    }
    Ok((ids.len() as u64, bytes))
}

pub(super) async fn referenced(conn: &mut SqliteConnection) -> Result<HashSet<Digest>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT sha256 FROM decision_objects")
        .fetch_all(conn)
        .await
        .map_err(StoreError::database("list evidence objects"))?;
    rows.iter().map(|found| row::parse(found, "sha256")).collect()
}

impl Store {
    /// Drops the evidence that the limits don't keep, then the objects that no decision needs any
    /// more. With `dry_run`, only says what would go.
    ///
    /// Decisions at the very second of the count's limit stay, so that slightly more than
    /// `keep_newest` can remain.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`]; what was dropped before stays dropped.
    pub async fn retain(&self, limits: Retention, by: By) -> Result<RetentionReport, StoreError> {
        let _alone = self.maintenance().await;
        let cutoff = cutoff(&mut *self.reader().await?, limits).await?;
        if limits.dry_run {
            return self.would_drop(cutoff).await;
        }
        let mut report = RetentionReport::default();
        loop {
            let (decisions, bytes) = self.write(move |tx| Box::pin(drop_some(tx, cutoff))).await?;
            if decisions == 0 {
                break;
            }
            report.decisions += decisions;
            report.database_bytes += bytes;
        }
        self.drop_objects(&mut report).await?;
        if report.decisions > 0 || report.objects > 0 {
            let body = row::json(&serde_json::json!({ "cutoff": cutoff, "dropped": report }))?;
            self.write(move |tx| {
                Box::pin(async move {
                    let (kind, actor) = (AuditKind::Retention, by.actor.as_str());
                    let event = Event { kind, at: by.at, actor, subject: "evidence", body };
                    tx.append(event).await
                })
            })
            .await?;
        }
        Ok(report)
    }

    /// Tells the audit chain that results were dropped: their files are beside the store, and nothing in it names them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_dropped_results(
        &self,
        dropped: ResultsDropped,
        by: By,
    ) -> Result<(), StoreError> {
        let body = row::json(&serde_json::json!({ "dropped": dropped }))?;
        self.write(move |tx| {
            Box::pin(async move {
                let (kind, actor) = (AuditKind::Retention, by.actor.as_str());
                tx.append(Event { kind, at: by.at, actor, subject: "results", body }).await
            })
        })
        .await?;
        Ok(())
    }

    async fn would_drop(&self, cutoff: i64) -> Result<RetentionReport, StoreError> {
        let mut conn = self.reader().await?;
        let found = sqlx::query(
            "SELECT count(*) AS decisions, coalesce(sum(length(v.verdict) + \
             coalesce(length(v.case_bytes), 0)), 0) AS bytes FROM decision_evidence v JOIN \
             decisions d ON d.id = v.decision_id WHERE d.at < $1",
        )
        .bind(cutoff)
        .fetch_one(&mut *conn)
        .await
        .map_err(StoreError::database("plan retention"))?;
        let kept = sqlx::query(
            "SELECT DISTINCT o.sha256 AS sha256 FROM decision_objects o JOIN decisions d ON d.id \
             = o.decision_id WHERE d.at >= $1",
        )
        .bind(cutoff)
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::database("plan retention"))?;
        let kept: HashSet<Digest> =
            kept.iter().map(|found| row::parse(found, "sha256")).collect::<Result<_, _>>()?;
        let objects = self.objects().clone();
        let listed = self.blocking(move || objects.list()).await?;
        let gone = listed.iter().filter(|(digest, _)| !kept.contains(digest));
        let (objects, object_bytes) =
            gone.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes));
        Ok(RetentionReport {
            decisions: row::get_u64(&found, "decisions")?,
            database_bytes: found.try_get::<i64, _>("bytes").map_or(0, i64::unsigned_abs),
            objects,
            object_bytes,
        })
    }

    /// An object goes only if it is not in use, then nothing in the database names it, and then
    /// nobody stored it again since: see [`Objects::condemn`](crate::objects::Objects).
    async fn drop_objects(&self, report: &mut RetentionReport) -> Result<(), StoreError> {
        let objects = self.objects().clone();
        let condemned = self
            .blocking(move || {
                let mut listed = objects.list()?;
                listed.retain(|(digest, _)| objects.condemn(digest));
                Ok(listed)
            })
            .await?;
        let referenced = async { referenced(&mut *self.reader().await?).await }.await;
        let objects = self.objects().clone();
        let (count, bytes) = self
            .blocking(move || {
                let mut dropped = (0, 0);
                let mut failed = None;
                for (digest, bytes) in condemned {
                    let needed = match &referenced {
                        Ok(referenced) => referenced.contains(&digest),
                        Err(_) => true,
                    };
                    if needed || failed.is_some() {
                        objects.spare(&digest);
                        continue;
                    }
                    match objects.delete_condemned(&digest) {
                        Ok(true) => dropped = (dropped.0 + 1, dropped.1 + bytes),
                        Ok(false) => {}
                        Err(error) => failed = Some(error),
                    }
                }
                referenced?;
                failed.map_or(Ok(dropped), Err)
            })
            .await?;
        (report.objects, report.object_bytes) = (count, bytes);
        Ok(())
    }
}
