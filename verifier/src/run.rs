//! A running verifier: everything that `serve` wires together.
//!
//! ```text
//! Config ─▶ CA, store ─▶ Verifier ─┬─▶ gRPC over TLS: Attestation, Admin, health, reflection
//!                                  ├─▶ metrics and health over HTTP, on their own address
//!                                  └─▶ housekeeping: revocation lists, keys of JWT-SVIDs, retention
//! ```
//! [`serve`] runs until a future resolves; [`start`] gives a handle instead, with the addresses that
//! were bound, so that tests run a verifier in their own process.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use proto::{
    limits::{
        CONNECTION_WINDOW_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, MAX_STREAMS_PER_CONNECTION,
        STREAM_WINDOW_BYTES, max_held_bytes,
    },
    pb::{
        self, admin_server::AdminServer, attestation_server::AttestationServer,
        jobs_server::JobsServer, reference_server::ReferenceServer,
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tonic::{
    Request, Status,
    service::interceptor::InterceptedService,
    transport::{Server, server::Router},
};

use crate::{
    attestation::{AttestError, Verifier},
    ca::CaError,
    clock::Clock,
    config::{Config, Limits},
    jwt_key::JwtKeyError,
    metrics,
    platforms::PlatformsError,
    results_service::{AuthorityError, ResultsError},
    server::{self, Peer},
    service::{
        access::Access, admin::AdminService, attest::AttestationService, gate::Gate,
        jobs::JobService, reference::ReferenceService,
    },
    store::{Store, StoreError, StoreOptions},
    tls::TlsError,
    web,
};

mod first_start;
mod parts;
mod upkeep;

use self::parts::Parts;
pub use self::{
    first_start::{adopt_first_ring, register_first_admin, spki_digest},
    upkeep::{
        DropError, PUBLIC_FOLDER, PublishError, drop_results, publish, results_retention, retention,
    },
};

/// Name of the store's folder in the state directory.
pub const STORE_FOLDER: &str = "store";
/// Largest administration message: golden sets and imported roots.
pub const MAX_ADMIN_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Largest request about a permit: an identifier, a few audiences, a signature.
const MAX_JOB_MESSAGE_BYTES: usize = 16 * 1024;
/// Attestations under way are given this long when the service stops.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that answers no ping is closed.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Connections end after this long, so that idle ones do not hold their places for ever, and a
/// client certificate that expired meanwhile is not used on.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// Health: the name of a service.
const MAX_HEALTH_MESSAGE_BYTES: usize = 1024;

/// The service could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The CA's files, or the server certificate.
    #[error("the CA cannot be used; was `verifier init` run?")]
    Ca(#[from] CaError),
    /// Time stamp authorities of others.
    #[error("a time stamp authority of the configuration cannot be used")]
    Authority(#[from] AuthorityError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key} in the configuration)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The keys of JWT-SVIDs.
    #[error("the keys of JWT-SVIDs cannot be used")]
    JwtKey(#[from] JwtKeyError),
    /// Issuers of job tokens.
    #[error("the issuers of job tokens cannot be read (jobs.platforms in the configuration)")]
    Platforms(#[from] PlatformsError),
    /// Counting could not start.
    #[error("metrics cannot be counted: {0}")]
    Metrics(String),
    /// The revocation list or the trust bundle could not be published.
    #[error("the revocation list cannot be published")]
    Publish(#[from] PublishError),
    /// Results and time stamps could not be signed.
    #[error("attestation results cannot be signed")]
    Results(#[from] ResultsError),
    /// The reflection service could not be made.
    #[error("the reflection service cannot be offered: {0}")]
    Reflection(String),
    /// The database.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// TLS.
    #[error("TLS cannot be offered")]
    Tls(#[from] TlsError),
    /// The server ended by itself.
    #[error("serving ended")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the store holds could not be put in force.
    #[error("what the store holds cannot be put in force")]
    Verifier(#[from] AttestError),
}

/// The folder of the database and the evidence: a folder of its own, so that a backup restores into
/// an empty one beside the CA.
#[must_use]
pub fn store_folder(config: &Config) -> PathBuf {
    config.state_dir.join(STORE_FOLDER)
}

/// Opens the database for writing: nobody else may have it open.
///
/// # Errors
/// [`StoreError`].
pub async fn open_store(config: &Config, clock: &dyn Clock) -> Result<Store, StoreError> {
    Store::open(StoreOptions::new(store_folder(config)), clock.now_unix_s()).await
}

/// A verifier that runs in this process. Dropped without [`Running::stop`], it goes on until the
/// runtime ends.
pub struct Running {
    /// Address of attestation and administration, with the port that was bound.
    pub address: SocketAddr,
    /// Address of metrics and health, with the port that was bound.
    pub metrics_address: SocketAddr,
    /// Address of what relying parties fetch, with the port that was bound.
    pub web_address: Option<SocketAddr>,
    parts: Arc<Parts>,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("address", &self.address)
            .field("metrics_address", &self.metrics_address)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// The verifier behind the services.
    #[must_use]
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.parts.verifier
    }

    /// Puts in force what changed on the disk: server certificate, CA, trust bundle, keys of JWT-SVIDs, admin CAs; and
    /// in the database: endorsements, rules, golden sets. What fails stays as it was.
    ///
    /// # Errors
    /// The first failure.
    pub async fn reload(&self) -> Result<(), ServeError> {
        self.parts.reload().await
    }

    /// Takes no new connections, gives what is under way [`STOP_DEADLINE`], and closes the store.
    ///
    /// # Errors
    /// [`ServeError::Transport`] if the server had failed; [`ServeError::Store`].
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        let ended = match timeout(STOP_DEADLINE, &mut self.server).await {
            Ok(ended) => Some(ended),
            Err(_) => {
                tracing::warn!("connections were still open after {STOP_DEADLINE:?}: closed them");
                self.server.abort();
                None
            }
        };
        self.finish(ended).await
    }

    /// Resolves if the server ends by itself, which it never should.
    async fn ended(
        &mut self,
    ) -> Result<Result<(), tonic::transport::Error>, tokio::task::JoinError> {
        (&mut self.server).await
    }

    async fn finish(
        mut self,
        ended: Option<Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>>,
    ) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        for mut task in self.tasks.drain(..) {
            // Each stops at the signal; one that writes is given time to finish that.
            if timeout(STOP_DEADLINE, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.parts.verifier.store().close().await?;
        match ended {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(ServeError::Transport(error.into())),
            Some(Err(error)) => Err(ServeError::Transport(error.into())),
        }
    }
}

/// Starts a verifier; it listens when this returns. Port 0 binds any free port.
///
/// # Errors
/// [`ServeError`]: nothing is left running then.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, ServeError> {
    let handle = metrics::install().map_err(ServeError::Metrics)?;
    let listener = bind(config.listen, "service.listen").await?;
    let metrics_listener = bind(config.metrics_listen, "service.metrics_listen").await?;
    let bound = |listener: &TcpListener, address, key| {
        listener.local_addr().map_err(|source| ServeError::Listen { address, key, source })
    };
    let address = bound(&listener, config.listen, "service.listen")?;
    let metrics_address =
        bound(&metrics_listener, config.metrics_listen, "service.metrics_listen")?;
    let web = match config.web_listen {
        Some(listen) => {
            let listener = bind(listen, "service.web_listen").await?;
            let address = bound(&listener, listen, "service.web_listen")?;
            Some((listener, address))
        }
        None => None,
    };
    let parts = Parts::open(config, clock).await?;
    let prepared = prepare(&parts).await;
    let router = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            parts.verifier.store().close().await?;
            return Err(error);
        }
    };
    let (stop, stopping) = watch::channel(false);
    let connections =
        server::accept(listener, Arc::clone(&parts.tls), parts.config.limits.connections);
    let server =
        tokio::spawn(router.serve_with_incoming_shutdown(connections, stopped(stopping.clone())));
    let upkeep_handle = handle.clone();
    let pages = metrics::serve(metrics_listener, handle, stopped(stopping.clone()));
    let pages = tokio::spawn(async move {
        if let Err(error) = pages.await {
            tracing::error!(%error, "serving metrics ended");
        }
    });
    let web_address = web.as_ref().map(|(_, address)| *address);
    let web = web.map(|(listener, address)| {
        let connections =
            server::accept(listener, Arc::clone(&parts.web_tls), parts.config.limits.connections);
        let listener = web::TlsListener::new(connections, address);
        let pages = web::router(web::Pages {
            verifier: Arc::clone(&parts.verifier),
            results: parts.result_files.clone(),
            ca: parts.ca.clone(),
            public: parts.config.state_dir.join(PUBLIC_FOLDER),
        });
        let stopping = stopping.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, pages).with_graceful_shutdown(stopped(stopping));
            if let Err(error) = served.await {
                tracing::error!(%error, "serving pages ended");
            }
        })
    });
    let mut tasks = vec![
        pages,
        tokio::spawn(upkeep::revocation_lists(Arc::clone(&parts), stopping.clone())),
        tokio::spawn(upkeep::retention_task(Arc::clone(&parts), stopping.clone())),
        tokio::spawn(upkeep::denials_task(Arc::clone(&parts), stopping.clone())),
        tokio::spawn(upkeep::jwt_keys_task(Arc::clone(&parts), stopping.clone())),
        tokio::spawn(upkeep::metrics_task(upkeep_handle, stopping)),
    ];
    tasks.extend(web);
    let results = Arc::clone(&parts.results);
    // Nobody waits for it: it ends by itself, soon.
    drop(tokio::spawn(async move { results.try_external().await }));
    tracing::info!(
        %address, %metrics_address, ?web_address,
        trust_domain = %parts.config.trust_domain,
        state = %parts.config.state_dir.display(),
        held_at_most_mib = held_bytes(&parts.config.limits) >> 20,
        "serving"
    );
    Ok(Running { address, metrics_address, web_address, parts, stop, server, tasks })
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, key, source })
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender going away stops too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn prepare(parts: &Arc<Parts>) -> Result<Router, ServeError> {
    parts.publish().await?;
    let gate = Arc::new(Gate::new(&parts.config.limits));
    let attestation = AttestationService::new(Arc::clone(&parts.verifier), Arc::clone(&gate));
    let attestation = AttestationServer::new(attestation)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let jobs = JobsServer::new(JobService::new(Arc::clone(&parts.verifier), gate))
        .max_decoding_message_size(MAX_JOB_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let admin = AdminServer::from_arc(Arc::clone(&parts.admin))
        .max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ADMIN_MESSAGE_BYTES);
    let reference = ReferenceService::new(Arc::clone(&parts.verifier), Arc::clone(&parts.access));
    let reference = ReferenceServer::new(reference)
        .max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ADMIN_MESSAGE_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AttestationServer<AttestationService>>().await;
    reporter.set_serving::<JobsServer<JobService>>().await;
    reporter.set_serving::<AdminServer<AdminService>>().await;
    reporter.set_serving::<ReferenceServer<ReferenceService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ServeError::Reflection(error.to_string()))?;
    // Nobody unknown calls anything but attestation and health.
    let known = |access: Arc<Access>| {
        move |request: Request<()>| {
            access.identify(request.extensions().get::<Peer>())?;
            Ok::<_, Status>(request)
        }
    };
    let reflection = InterceptedService::new(reflection, known(Arc::clone(&parts.access)));
    // Before the request is read: one of administration may be large.
    let admin = InterceptedService::new(admin, known(Arc::clone(&parts.access)));
    let reference = InterceptedService::new(reference, known(Arc::clone(&parts.access)));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(bytes(MAX_STREAMS_PER_CONNECTION))
        .initial_connection_window_size(bytes(CONNECTION_WINDOW_BYTES))
        .initial_stream_window_size(bytes(STREAM_WINDOW_BYTES))
        .max_connection_age(CONNECTION_AGE)
        .max_connection_age_grace(STOP_DEADLINE)
        .http2_max_header_list_size(bytes(MAX_HEADER_BYTES))
        .add_service(attestation)
        .add_service(jobs)
        .add_service(admin)
        .add_service(reference)
        .add_service(health.max_decoding_message_size(MAX_HEALTH_MESSAGE_BYTES))
        .add_service(reflection);
    Ok(router)
}

/// What callers who proved nothing can make this verifier hold.
fn held_bytes(limits: &Limits) -> usize {
    max_held_bytes(limits.connections, limits.streams, limits.pending_log_bytes)
}

/// A limit as HTTP/2 has it.
fn bytes(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Serves until `shutdown` resolves, and stops as [`Running::stop`] does. `SIGHUP` reloads. Tells
/// the service manager when it is ready, when it reloads and when it stops.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: Config,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| ServeError::Transport(error.into()))?;
    let mut running = start(config, clock).await?;
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            ended = running.ended() => return running.finish(Some(ended)).await,
            received = hangup.recv() => {
                if received.is_none() {
                    continue;
                }
                reloading();
                if running.reload().await.is_ok() {
                    tracing::info!("reloaded: certificates, CA, keys of JWT-SVIDs, endorsements, rules, golden sets");
                }
                notify(&[sd_notify::NotifyState::Ready]);
            }
        }
    }
    tracing::info!("stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await
}

fn reloading() {
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock cannot be read"),
    }
}

/// Does nothing where no service manager asked for it.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
