//! The two sockets: one for the commands of jobs, one for the SPIFFE Workload API.

use std::{future::Future, sync::Arc, time::Duration};

use proto::pb::job_gate_server::JobGateServer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use workload::{
    BundleValidator, Limits, PeerSocket, Registry, SocketError, SocketOptions, WorkloadServer,
};

use super::{Desk, Gate, JobSettings, Link};

/// The socket of the commands of jobs.
const SOCKET: &str = "job.sock";
/// Largest request of a job: claims, a token, a few audiences.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Descriptors of one connection: its socket, and its process.
const PER_CONNECTION: usize = 2;
/// Descriptors that are not for connections: the TPM, measuring, and the lines to the verifier.
const KEPT_DESCRIPTORS: usize = 128;
/// Jobs that run when the daemon stops end, with what is done about it, within this time; its unit waits longer.
const JOBS_END_WITHIN: Duration = Duration::from_secs(75);

/// Descriptors that this process may have, after asking for so many.
fn descriptors(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let count = |limit: Option<u64>| {
        limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    };
    if count(limit.current) >= wanted {
        return count(limit.current);
    }
    let raised = wanted.min(count(limit.maximum));
    let raise = Rlimit { current: u64::try_from(raised).ok(), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raise) {
        Ok(()) => raised,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            count(limit.current)
        }
    }
}

/// Both sockets, made and not yet served.
#[derive(Debug)]
pub struct JobSockets {
    gate: PeerSocket,
    workload: WorkloadServer,
    registry: Registry,
    settings: JobSettings,
}

impl JobSockets {
    /// Makes the sockets, while the folder may still be written to.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(settings: JobSettings) -> Result<Self, SocketError> {
        let registry = Registry::new();
        let workload = SocketOptions::new(&settings.directory);
        let gate = SocketOptions { name: SOCKET.to_owned(), ..workload.clone() };
        let mut limits = Limits::default();
        // Root may ask as well.
        limits.kept_for = settings.users.iter().copied().chain([0]).collect();
        let mut holding = limits.clone();
        // Jobs hold their permits by a connection that says nothing for hours.
        holding.connections += settings.max_jobs;
        holding.connections_per_uid += settings.max_jobs;
        holding.kept_connections += settings.kept_for_each();
        let wanted = (limits.connections + holding.connections) * PER_CONNECTION + KEPT_DESCRIPTORS;
        let had = descriptors(wanted);
        if had < wanted {
            // Fewer connections rather than a daemon that cannot renew: each of the two sockets gets half.
            let each = had.saturating_sub(KEPT_DESCRIPTORS.min(had / 2)) / PER_CONNECTION / 2;
            tracing::warn!(
                descriptors = had,
                wanted,
                connections = each,
                "the limit of open files (LimitNOFILE) allows fewer connections of jobs than configured"
            );
            limits.connections = each;
            holding.connections = each;
        }
        let gate = PeerSocket::bind(&gate, holding)?;
        let validator = Arc::new(BundleValidator::new());
        let workload = WorkloadServer::bind(&workload, registry.clone(), validator, limits)?;
        Ok(Self { gate, workload, registry, settings })
    }

    /// Serves both until `shutdown` is ready, or one of them cannot be served.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn serve(
        self,
        desk: Desk,
        link: Link,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let Self { gate: socket, workload, registry, settings } = self;
        let gate = Gate::new(settings, desk, link, registry.clone(), workload.endpoint());
        let jobs = gate.clone();
        let gate = JobGateServer::new(gate).max_decoding_message_size(MAX_REQUEST_BYTES);
        registry.set_ready(true);
        let (stop, stopping) = watch::channel(false);
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let end = || {
            jobs.end_soon();
            stop.send_replace(true);
        };
        let mut both = std::pin::pin!(async {
            tokio::try_join!(
                socket.serve(gate, stopped(stopping.clone())),
                workload.serve(stopped(stopping.clone())),
            )
        });
        let served = tokio::select! {
            // Only with an error: one without the other serves nobody.
            served = &mut both => {
                end();
                served
            }
            () = shutdown => {
                end();
                both.await
            }
        };
        jobs.ended(JOBS_END_WITHIN).await;
        served.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_waits_for_the_ends_of_jobs_and_signals_the_daemon_alone() {
        let unit = include_str!("../../dist/assay-attestor.service");
        let of =
            |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        assert_eq!(of("KillMode"), Some("mixed"));
        let waits = of("TimeoutStopSec").and_then(|seconds| seconds.parse().ok());
        let waits = waits.map(Duration::from_secs).expect("seconds");
        // With room for the sockets, which close first.
        assert!(waits >= JOBS_END_WITHIN + Duration::from_secs(10), "{waits:?}");
    }
}
