//! The two sockets: one for the commands of jobs, one for the SPIFFE Workload API.

use std::{future::Future, sync::Arc};

use jose::{
    jwk::JwkSet,
    spiffe_bundle::Bundle,
    svid::{self, JwtSvid, SvidRules},
};
use proto::{pb::job_gate_server::JobGateServer, spiffe::TrustDomain};
use serde_json::{Map, Value};
use tokio::sync::watch;
use workload::{
    JwtRejection, JwtToValidate, JwtValidator, Limits, PeerSocket, Registry, SocketError,
    SocketOptions, ValidJwt, WorkloadServer,
};

use super::{Desk, Gate, JobSettings, Link};

/// The socket of the commands of jobs.
const GATE_SOCKET: &str = "job.sock";
/// Clocks of worker and verifier differ by seconds.
const JWT_LEEWAY_S: u32 = 10;
/// Largest request of a job: claims, a token, a few audiences.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

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
        let gate = SocketOptions { name: GATE_SOCKET.to_owned(), ..workload.clone() };
        let limits = Limits::default();
        // Jobs hold their permits by a connection that says nothing for hours.
        let gate = PeerSocket::bind(&gate, limits.clone())?;
        let validator = Arc::new(Validator);
        let workload = WorkloadServer::bind(&workload, registry.clone(), validator, limits)?;
        Ok(Self { gate, workload, registry, settings })
    }

    /// Serves both until `shutdown` is ready.
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
        let gate = JobGateServer::new(gate).max_decoding_message_size(MAX_REQUEST_BYTES);
        registry.set_ready(true);
        let (stop, stopping) = watch::channel(false);
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let signal = async {
            shutdown.await;
            stop.send_replace(true);
        };
        let both = async {
            tokio::try_join!(
                socket.serve(gate, stopped(stopping.clone())),
                workload.serve(stopped(stopping.clone())),
            )
        };
        let (served, ()) = tokio::join!(both, signal);
        served.map(drop)
    }
}

/// Validates JWT-SVIDs with the bundle that the verifier gave.
struct Validator;

impl JwtValidator for Validator {
    fn validate(&self, request: &JwtToValidate<'_>) -> Result<ValidJwt, JwtRejection> {
        let refuse = |code: &'static str, what: String| JwtRejection { code, what };
        let bad = |what: String| refuse("JWT_BUNDLE_INVALID", what);
        // One trust domain is served: a token of another one is signed by a key that is not there.
        let Some((trust_domain, bundle)) = request.bundles.iter().next() else {
            return Err(bad("there is no bundle".to_owned()));
        };
        let trust_domain: TrustDomain =
            trust_domain.as_str().parse().map_err(|_| bad("no trust domain".to_owned()))?;
        let keys = JwkSet::parse(&bundle.jwk_set).map_err(|error| bad(error.to_string()))?;
        let bundle = Bundle::new(bundle.x509_roots.clone(), keys.keys().to_vec())
            .map_err(|error| bad(error.to_string()))?;
        let rules = SvidRules {
            trust_domain: &trust_domain,
            audience: request.audience,
            leeway_s: JWT_LEEWAY_S,
        };
        let now_unix_s = i64::try_from(request.now_unix_s).unwrap_or(i64::MAX);
        let valid = svid::validate(request.untrusted_token, &bundle, &rules, now_unix_s)
            .map_err(|error| refuse(error.code(), crate::chain(&error)))?;
        let spiffe_id = valid.id().to_string().parse();
        let spiffe_id = spiffe_id.map_err(|_| bad("an identity that is none".to_owned()))?;
        Ok(ValidJwt { spiffe_id, claims: claims(&valid) })
    }
}

fn claims(valid: &JwtSvid) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), valid.id().to_string().into());
    claims.insert("aud".to_owned(), valid.audiences().to_vec().into());
    claims.insert("exp".to_owned(), valid.expires_unix_s().into());
    if let Some(issued) = valid.issued_unix_s() {
        claims.insert("iat".to_owned(), issued.into());
    }
    if let Some(id) = valid.token_id() {
        claims.insert("jti".to_owned(), id.into());
    }
    claims
}
