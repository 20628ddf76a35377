//! Counters by outcome and reason code, and their page.

use std::{sync::OnceLock, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use proto::reason::ReasonCode;
use tokio::net::TcpListener;
use tonic::Status;

use crate::{attestation::Outcome, service::status::reason_of};

/// Upper bounds of the latency histogram, seconds: a renewal takes a few milliseconds, a slow hardware TPM seconds.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// Counts an attestation that ended.
pub fn attestation(answer: &Result<Outcome, Status>, took: Duration) {
    let (outcome, reason) = match answer {
        Ok(Outcome { code: None, .. }) => ("admit", ""),
        Ok(Outcome { code: Some(code), .. }) => ("deny", code.as_str()),
        Err(status) => ("error", reason_of(status).map_or("", |code| code.as_str())),
    };
    metrics::counter!("assay_attestations_total", "outcome" => outcome, "reason" => reason)
        .increment(1);
    metrics::histogram!("assay_attestation_seconds", "outcome" => outcome)
        .record(took.as_secs_f64());
}

/// Counts what staged golden sets and policies say, beside what was decided.
pub fn staged(admitted: bool, would_admit: bool) {
    let word = |yes| if yes { "admit" } else { "deny" };
    metrics::counter!("assay_staged_total", "now" => word(admitted), "staged" => word(would_admit))
        .increment(1);
}

/// Counts a stream that was turned away.
pub fn refused_busy() {
    metrics::counter!("assay_streams_refused_total").increment(1);
}

/// Counts a request about a permit that was refused.
pub fn permit_refused(code: ReasonCode) {
    metrics::counter!("assay_permit_requests_refused_total", "code" => code.as_str()).increment(1);
}

/// Counts a time stamp that another authority was asked for.
pub fn external_stamp(outcome: &'static str, took: Duration) {
    metrics::histogram!("assay_external_timestamp_seconds", "outcome" => outcome)
        .record(took.as_secs_f64());
}

/// Counts a denial that was answered and, by the bounds on records, not recorded.
pub fn denial_unrecorded(proven: bool) {
    let caller = if proven { "proven" } else { "unproven" };
    metrics::counter!("assay_denials_unrecorded_total", "caller" => caller).increment(1);
}

/// Starts counting, once for the process: several verifiers in one process count together.
///
/// # Errors
/// A message if something else counts already.
pub fn install() -> Result<PrometheusHandle, String> {
    static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets(&SECONDS)
                .map_err(|error| error.to_string())?
                .install_recorder()
                .map_err(|error| error.to_string())
        })
        .clone()
}

/// Serves `/metrics` and `/healthz` on their own address until `stop` resolves.
///
/// # Errors
/// Serving failed.
pub async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(move || async move { handle.render() }))
        .route("/healthz", get(|| async { (StatusCode::OK, "ok\n") }));
    axum::serve(listener, pages).with_graceful_shutdown(stop).await
}
