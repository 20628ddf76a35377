//! A server with its jobs, and a client of ours that says what it was told.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use jose::{
    jwk::KeyUse,
    sign::Es256Key,
    spiffe_bundle::Bundle,
    svid::{SvidClaims, mint},
};
use proto::spiffe::{SpiffeId, TrustDomain};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use workload::{
    AdmitError, BundleValidator, Credentials, JobHandle, JobIdentity, JwtGrant, JwtRefusal,
    JwtRequest, JwtSvid, Limits, ProcessKey, Registry, Selector, SocketError, SocketOptions,
    WorkloadServer, X509Svid, pb::spiffe_workload_api_client::SpiffeWorkloadApiClient,
};

use crate::pki::{Ca, Leaf};

pub(crate) const TRUST_DOMAIN: &str = "builds.example.org";

pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A trust domain: X.509 authorities and a key for tokens.
pub(crate) struct Authority {
    pub(crate) root: Ca,
    pub(crate) intermediate: Ca,
    pub(crate) token_key: Arc<Es256Key>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let now = now_unix_s();
        let root = Ca::root(TRUST_DOMAIN, now);
        let intermediate = root.intermediate(TRUST_DOMAIN, now);
        Self { root, intermediate, token_key: Arc::new(Es256Key::generate().unwrap()) }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let key = self.token_key.jwk(KeyUse::JwtSvid).unwrap();
        Bundle::new(vec![self.root.der.clone()], vec![key]).unwrap()
    }

    pub(crate) fn svid(&self, path: &str, hint: &str) -> X509Svid {
        let leaf = Leaf::new(&id(path).to_string(), now_unix_s());
        let issued = self.intermediate.issue(&leaf);
        X509Svid {
            spiffe_id: id(path),
            chain: vec![issued.der, self.intermediate.der.clone()],
            key_pkcs8: issued.key_pkcs8.into(),
            hint: hint.to_owned(),
        }
    }

    /// An X.509-SVID and tokens for one identity.
    pub(crate) fn credentials(&self, path: &str) -> Credentials {
        Credentials {
            x509: vec![self.svid(path, "")],
            jwt: Some(self.grant(path)),
            bundles: [(domain(), self.bundle())].into(),
        }
    }

    pub(crate) fn grant(&self, path: &str) -> JwtGrant {
        let (key, subject) = (Arc::clone(&self.token_key), id(path));
        let spiffe_ids = vec![subject.clone()];
        let source = move |request: JwtRequest| {
            let token = token(&key, &subject, request.audiences);
            let svid = JwtSvid { spiffe_id: subject.clone(), token, hint: String::new() };
            async move { Ok::<_, JwtRefusal>(vec![svid]) }
        };
        JwtGrant { spiffe_ids, source: Arc::new(source) }
    }
}

pub(crate) fn token(key: &Es256Key, subject: &SpiffeId, audiences: Vec<String>) -> String {
    let now = i64::try_from(now_unix_s()).unwrap();
    let claims = SvidClaims {
        subject: subject.clone(),
        audiences,
        issued_unix_s: now,
        expires_unix_s: now + 300,
        token_id: "1".to_owned(),
    };
    mint(key, &claims).unwrap()
}

pub(crate) fn domain() -> TrustDomain {
    TRUST_DOMAIN.parse().unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    format!("spiffe://{TRUST_DOMAIN}{path}").parse().unwrap()
}

pub(crate) fn own() -> ProcessKey {
    ProcessKey::of(std::process::id()).unwrap()
}

/// Selects the test's own process, and no other test's where they are processes of their own.
pub(crate) fn own_process() -> Vec<Selector> {
    vec![Selector::ancestor(own()).unwrap()]
}

/// A running server.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), SocketError>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let registry = Registry::new();
        registry.set_ready(true);
        Self::start_with(registry, Limits::default()).await
    }

    /// Ready, with other limits.
    pub(crate) async fn start_with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let registry = Registry::new();
        registry.set_ready(true);
        let mut limits = Limits::default();
        change(&mut limits);
        Self::start_with(registry, limits).await
    }

    pub(crate) async fn start_with(registry: Registry, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Other users' processes connect as well.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let options = SocketOptions::new(directory.path());
        let validator = Arc::new(BundleValidator::new());
        let server = WorkloadServer::bind(&options, registry.clone(), validator, limits).unwrap();
        let endpoint = server.endpoint();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let authority = Authority::new();
        Self { registry, authority, directory, endpoint, stop: Some(stop), task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("workload.sock")
    }

    /// A job with one identity, `/job/NAME`.
    pub(crate) fn admit(&self, name: &str, selectors: Vec<Selector>) -> JobHandle {
        self.try_admit(name, selectors).unwrap()
    }

    pub(crate) fn try_admit(
        &self,
        name: &str,
        selectors: Vec<Selector>,
    ) -> Result<JobHandle, AdmitError> {
        let credentials = self.authority.credentials(&format!("/job/{name}"));
        self.registry.admit(JobIdentity { id: name.parse().unwrap(), selectors, credentials })
    }

    pub(crate) async fn client(&self) -> Client {
        client(&self.endpoint).await
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap().unwrap();
    }
}

type Mark = fn(Request<()>) -> Result<Request<()>, Status>;
pub(crate) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, Mark>>;

pub(crate) async fn channel(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(endpoint: &str) -> Client {
    marked(channel(endpoint).await)
}

pub(crate) fn marked(channel: Channel) -> Client {
    let mark: Mark = |mut request| {
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert("workload.spiffe.io", value);
        Ok(request)
    };
    SpiffeWorkloadApiClient::with_interceptor(channel, mark)
}

/// Status and stable code of a refusal.
pub(crate) fn refusal(status: &Status) -> (tonic::Code, String) {
    let code = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    assert!(status.message().starts_with(&code), "{status:?}");
    (status.code(), code)
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (tonic::Code, String) {
    refusal(&result.expect_err("refused"))
}
