//! What a verifier does on its own: revocation lists, keys of JWT-SVIDs, retention, metrics.
//!
//! | file under the state directory | content |
//! |---|---|
//! | `public/crl.der` | revocation list of the current node CA |
//! | `public/crl.pem` | the same, then the lists of former node CAs whose certificates may be in use |
//! | `public/bundle.pem` | roots that relying parties trust |
//!
//! Everything in `public` is for everybody to read, is replaced atomically, and can be served by any
//! web server.

use std::{path::PathBuf, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Parts, stopped};
use crate::{
    ca::{
        CRL_LIFETIME, CaDir, CaError, CaRole, Issuer, RevocationReason, Revoked,
        files::{self, FileError, MODE_PUBLIC},
    },
    config::{self, Config},
    results_files::{ResultFiles, ResultsDropped, ResultsLimits, ResultsStep},
    service::status::chain,
    store::{By, Certificate, Retention, RetentionReport, Store, StoreError},
};

/// Name of the folder of public files in the state directory.
pub const PUBLIC_FOLDER: &str = "public";
/// Everybody lists and reads.
const MODE_PUBLIC_DIR: u32 = 0o755;
/// Lists live for 36 hours, so that 35 hourly failures in a row harm nobody.
const PUBLISH_EVERY: Duration = Duration::from_secs(3600);
const RETAIN_EVERY: Duration = Duration::from_secs(3600);
/// Denials that were not recorded are summed up in one audit entry for so long.
const REPORT_EVERY: Duration = Duration::from_secs(600);
/// A key of JWT-SVIDs goes from one state to the next this long after its time at the latest.
const KEYS_EVERY: Duration = Duration::from_secs(5);
/// Histograms keep what was recorded since the last upkeep in memory.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// Several revocations in a row make one list.
const REVOKED_TOGETHER: Duration = Duration::from_millis(200);
/// Permits that end make one list in so long: each job has one, and its certificates live for minutes.
const ENDED_TOGETHER: Duration = Duration::from_secs(10);

/// The revocation list or the trust bundle could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A key or file of the CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A writing task ended.
    #[error("the task that writes the files ended")]
    Task,
}

/// Results that are no longer needed could not be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database, in which it is recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The removing task ended.
    #[error("the task that removes the files ended")]
    Task,
}

impl From<FileError> for PublishError {
    fn from(error: FileError) -> Self {
        Self::Ca(error.into())
    }
}

/// Signs and writes the revocation lists and copies the trust bundle.
///
/// # Errors
/// [`PublishError`]; the files of before stay.
pub async fn publish(
    config: &Config,
    ca: &CaDir,
    store: &Store,
    now_unix_s: i64,
) -> Result<(), PublishError> {
    let revoked: Vec<Revoked> = store
        .revoked_certificates(now_unix_s)
        .await?
        .iter()
        .filter_map(|certificate| revoked(certificate, now_unix_s))
        .collect();
    let number = store.next_number("crl").await?;
    let now = u64::try_from(now_unix_s).unwrap_or(0);
    let (ca, folder) = (ca.clone(), config.state_dir.join(PUBLIC_FOLDER));
    tokio::task::spawn_blocking(move || write(&ca, folder, &revoked, number, now))
        .await
        .map_err(|_| PublishError::Task)?
}

fn write(
    ca: &CaDir,
    folder: PathBuf,
    revoked: &[Revoked],
    number: u64,
    now: u64,
) -> Result<(), PublishError> {
    files::make_dir(&folder, MODE_PUBLIC_DIR)?;
    // Serial numbers are 128 random bits: one that another of our CAs gave does no harm in a list.
    let list = |issuer: &Issuer| issuer.crl(number, now, CRL_LIFETIME, revoked.to_vec());
    let current = list(&ca.issuer(CaRole::Nodes)?)?;
    let jobs = list(&ca.issuer(CaRole::Jobs)?)?;
    let mut pem = current.to_pem() + &jobs.to_pem();
    for role in [CaRole::Nodes, CaRole::Jobs] {
        for former in ca.retired_issuers(role, now)? {
            pem.push_str(&list(&former)?.to_pem());
        }
    }
    let bundle = files::certificates_pem(ca.bundle()?.iter().map(Vec::as_slice));
    files::replace(&folder.join("crl.der"), current.der(), MODE_PUBLIC)?;
    files::replace(&folder.join("crl-jobs.der"), jobs.der(), MODE_PUBLIC)?;
    files::replace(&folder.join("crl.pem"), pem.as_bytes(), MODE_PUBLIC)?;
    files::replace(&folder.join("bundle.pem"), bundle.as_bytes(), MODE_PUBLIC)?;
    Ok(())
}

/// A certificate of the store as an entry of the list. One with a serial number that this CA cannot
/// have given is left out, loudly.
fn revoked(certificate: &Certificate, now_unix_s: i64) -> Option<Revoked> {
    let serial = match certificate.intent.serial.parse() {
        Ok(serial) => serial,
        Err(error) => {
            let serial = &certificate.intent.serial;
            tracing::error!(serial, %error, "a revoked certificate cannot be listed");
            return None;
        }
    };
    let at = certificate.revoked_at.unwrap_or(now_unix_s);
    // Reasons are free text; one that is a word of RFC 5280 says so in the list too.
    let word = certificate.revocation_reason.clone().unwrap_or_default();
    let reason = serde_json::from_value(serde_json::Value::String(word))
        .unwrap_or(RevocationReason::PrivilegeWithdrawn);
    Some(Revoked { serial, at_unix_s: u64::try_from(at).unwrap_or(0), reason })
}

/// Publishes hourly, at once after a revocation, and soon after permits ended.
pub(super) async fn revocation_lists(parts: Arc<Parts>, stopping: watch::Receiver<bool>) {
    let mut hourly = tokio::time::interval(PUBLISH_EVERY);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and the start has published already.
    hourly.tick().await;
    let stop = stopped(stopping);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = hourly.tick() => {}
            () = parts.admin.revoked() => tokio::time::sleep(REVOKED_TOGETHER).await,
            () = parts.verifier.permit_ended() => tokio::time::sleep(ENDED_TOGETHER).await,
        }
        if let Err(error) = parts.publish().await {
            tracing::error!("the revocation list was not published: {}", chain(&error));
            metrics::counter!("assay_publications_failed_total").increment(1);
        }
    }
}

/// What retention may drop at `now_unix_s`.
#[must_use]
pub fn retention(limits: config::Retention, now_unix_s: i64, dry_run: bool) -> Retention {
    let age = i64::try_from(limits.evidence_age.as_secs()).unwrap_or(i64::MAX);
    Retention {
        before: Some(now_unix_s.saturating_sub(age)),
        keep_newest: Some(limits.evidence_count),
        dry_run,
    }
}

/// Which results may stay at `now_unix_s`.
#[must_use]
pub fn results_retention(limits: config::Retention, now_unix_s: i64) -> ResultsLimits {
    let age = i64::try_from(limits.results_age.as_secs()).unwrap_or(i64::MAX);
    ResultsLimits {
        before_unix_s: now_unix_s.saturating_sub(age),
        keep_newest: limits.results_count,
    }
}

/// Drops results that the limits don't keep, step by step until none is left or it is said to stop, and records with each
/// step how many. No request waits for it.
///
/// # Errors
/// [`DropError`]: the first that could not be removed; what could be is dropped, and recorded.
pub async fn drop_results(
    files: &ResultFiles,
    limits: ResultsLimits,
    store: &Store,
    by: By,
    stop: impl Fn() -> bool + Clone + Send + 'static,
) -> Result<ResultsDropped, DropError> {
    let (mut all, mut first_failed) = (ResultsDropped::default(), None);
    while !stop() {
        let (files, stop) = (files.clone(), stop.clone());
        let step = tokio::task::spawn_blocking(move || files.drop_some(limits, stop)).await;
        let ResultsStep { dropped, goes_on, failed } = step.map_err(|_| DropError::Task)??;
        all.add(dropped);
        first_failed = first_failed.or(failed);
        // At once: whoever ends this between two steps leaves nothing that is not told of.
        if dropped != ResultsDropped::default() {
            let recorded = store.record_dropped_results(dropped, by.clone()).await;
            recorded.inspect_err(|_| {
                let ResultsDropped { results, bytes } = dropped;
                tracing::error!(results, bytes, "results were dropped, and that is not recorded");
            })?;
        }
        if !goes_on {
            break;
        }
    }
    first_failed.map_or(Ok(all), |failed| Err(failed.into()))
}

/// Drops evidence and results hourly.
pub(super) async fn retention_task(parts: Arc<Parts>, stopping: watch::Receiver<bool>) {
    let mut hourly = tokio::time::interval(RETAIN_EVERY);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Not at the start: who restores a backup with a wrong clock shall have time to see it.
    hourly.tick().await;
    let stop = stopped(stopping.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = hourly.tick() => {}
        }
        let now = parts.clock.now_unix_s();
        let limits = retention(parts.config.retention, now, false);
        match parts.verifier.store().retain(limits, By::new("verifier", now)).await {
            Ok(report) if report == RetentionReport::default() => {}
            Ok(report) => tracing::info!(
                decisions = report.decisions,
                database_bytes = report.database_bytes,
                objects = report.objects,
                object_bytes = report.object_bytes,
                "dropped old evidence"
            ),
            Err(error) => tracing::error!("retention failed: {}", chain(&error)),
        }
        let limits = results_retention(parts.config.retention, now);
        let (store, by) = (parts.verifier.store(), By::new("verifier", now));
        let stopping = stopping.clone();
        let stop_now = move || *stopping.borrow();
        match drop_results(&parts.result_files, limits, store, by, stop_now).await {
            Ok(dropped) if dropped == ResultsDropped::default() => {}
            Ok(ResultsDropped { results, bytes }) => {
                tracing::info!(results, bytes, "dropped old results");
            }
            Err(error) => tracing::error!("retention of results failed: {}", chain(&error)),
        }
    }
}

/// Tells the audit chain of denials that were not recorded, and once more at the end.
pub(super) async fn denials_task(parts: Arc<Parts>, stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = stopped(stopping);
    tokio::pin!(stop);
    let mut stopping = false;
    while !stopping {
        tokio::select! {
            () = &mut stop => stopping = true,
            _ = ticks.tick() => {}
        }
        if let Err(error) = parts.verifier.report_unrecorded().await {
            tracing::error!("denials that were not recorded are not summed up: {}", chain(&error));
        }
    }
}

/// Moves keys of JWT-SVIDs on when it is time.
pub(super) async fn jwt_keys_task(parts: Arc<Parts>, stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(KEYS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = stopped(stopping);
    tokio::pin!(stop);
    let mut said = String::new();
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => {}
        }
        // What fails is tried again at the next tick, and said once.
        let failed = parts.jwt_keys.move_on().await.err().map(|error| chain(&error));
        let failed = failed.unwrap_or_default();
        if !failed.is_empty() && failed != said {
            tracing::error!("the keys of JWT-SVIDs stay as they are: {failed}");
        }
        said = failed;
    }
}

/// Folds recorded latencies into their histograms.
pub(super) async fn metrics_task(handle: PrometheusHandle, stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(METRICS_EVERY);
    let stop = stopped(stopping);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => handle.run_upkeep(),
        }
    }
}
