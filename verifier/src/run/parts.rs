//! What the service is made of, from the configuration: opened at the start, and put in force again by a reload.

use std::sync::Arc;

use appraisal::{ek::Profile, x509::RevocationRequirement};
use arc_swap::ArcSwap;
use platform::refresh::Refresher;
use proto::{
    binding::VerifierId,
    digest::{Digest, HashAlg},
};
use tokio::sync::Notify;

use super::{PublishError, ServeError, open_store, publish};
use crate::{
    attestation::{ForJobs, Issuers, Settings, Verifier},
    ca::{CaDir, CaError, CaRole},
    clock::Clock,
    config::{Config, EkProfile, Revocation},
    endorsements::EkRules,
    init::RING_FILE,
    jwt_key::{self, JwtKeys},
    platforms,
    results_files::ResultFiles,
    results_service::{ExternalAuthorities, ResultsSigner},
    service::{access::Access, admin::AdminService},
    tls::{self, AdminAuthority, ServerCertificate},
    web,
};

/// Parts that live as long as the service.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ca: CaDir,
    pub(super) verifier: Arc<Verifier>,
    pub(super) results: Arc<ResultsSigner>,
    pub(super) jwt_keys: Arc<JwtKeys>,
    pub(super) access: Arc<Access>,
    pub(super) admin: Arc<AdminService>,
    pub(super) certificate: Arc<ServerCertificate>,
    pub(super) tls: Arc<ArcSwap<rustls::ServerConfig>>,
    /// As `tls`, for what relying parties fetch.
    pub(super) web_tls: Arc<ArcSwap<rustls::ServerConfig>>,
    pub(super) result_files: ResultFiles,
    /// Loads keys of job tokens' issuers as long as it lives.
    _refresher: Refresher,
}

impl Parts {
    pub(super) async fn open(
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ServeError> {
        let ca = CaDir::new(&config.state_dir, config.trust_domain.clone());
        // The CA first: an error in it leaves the database alone.
        let issuers = issuers(&ca)?;
        let bundle = ca.bundle()?;
        let results = ResultsSigner::new(
            ca.issuer(CaRole::Results)?,
            config.trust_domain.clone(),
            Arc::clone(&clock),
            ExternalAuthorities::read(&config.results)?,
        )?;
        let results = Arc::new(results);
        let authority = AdminAuthority::load(&ca)?;
        let (chain, key) = ca.server()?;
        let certificate = ServerCertificate::new(&chain, &key)?;
        let tls = tls::server_config(Arc::clone(&certificate), &bundle)?;
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        let result_files = ResultFiles::open(&config.state_dir).map_err(CaError::from)?;
        let platforms = platforms::read(config.jobs.platforms.as_deref())?;
        platforms::load(&platforms, &clock).await;
        let refresher = Refresher::start(&platforms, &platforms::now(&clock));
        let lead = jwt_key::lead(config.jobs.check_every);
        let jwt_keys = Arc::new(JwtKeys::open(&config.state_dir, Arc::clone(&clock), lead)?);
        let for_jobs = ForJobs {
            platforms,
            jwt_key: Arc::clone(&jwt_keys),
            results: Arc::clone(&results),
            result_files: result_files.clone(),
            ended: Arc::new(Notify::new()),
        };
        let store = open_store(&config, clock.as_ref()).await?;
        let opened = Verifier::open(
            settings(&config),
            ek_rules(&config),
            store.clone(),
            Arc::clone(&clock),
            issuers,
            for_jobs,
            bundle,
        )
        .await;
        let verifier = match opened {
            Ok(verifier) => Arc::new(verifier),
            Err(error) => {
                store.close().await?;
                return Err(error.into());
            }
        };
        let access = Arc::new(Access::new(Arc::clone(&verifier), authority));
        let admin = Arc::new(AdminService::new(Arc::clone(&verifier), Arc::clone(&access)));
        Ok(Arc::new(Self {
            config,
            clock,
            ca,
            verifier,
            access,
            admin,
            certificate,
            web_tls: Arc::new(ArcSwap::from_pointee(web::tls_config(&tls))),
            tls,
            results,
            jwt_keys,
            result_files,
            _refresher: refresher,
        }))
    }

    /// Puts in force what changed on the disk and in the database. Each part that fails keeps what
    /// was in force; the first failure is returned, all are logged.
    pub(super) async fn reload(&self) -> Result<(), ServeError> {
        let mut first = None;
        let mut keep = |error: ServeError| {
            tracing::error!(
                "reloading failed, the old stays in force: {}",
                crate::service::status::chain(&error)
            );
            first.get_or_insert(error);
        };
        let server = self.ca.server().map_err(ServeError::from);
        let server = server
            .and_then(|(chain, key)| self.certificate.replace(&chain, &key).map_err(Into::into));
        if let Err(error) = server {
            keep(error);
        }
        match (issuers(&self.ca), self.ca.bundle()) {
            (Ok(issuers), Ok(bundle)) => {
                // A new root: certificates of administrators may lead to it.
                match tls::server_config(Arc::clone(&self.certificate), &bundle) {
                    Ok(tls) => {
                        self.tls.store(Arc::new(tls));
                        self.web_tls.store(Arc::new(web::tls_config(&self.tls)));
                    }
                    Err(error) => keep(error.into()),
                }
                self.verifier.replace_issuers(issuers, bundle);
            }
            (Err(error), _) | (_, Err(error)) => keep(error.into()),
        }
        let results = self.ca.issuer(CaRole::Results).map_err(ServeError::from);
        let results = results
            .and_then(|issuer| self.results.replace_issuer(issuer).map_err(ServeError::from));
        if let Err(error) = results {
            keep(error);
        }
        if let Err(error) = self.jwt_keys.reload().await {
            keep(error.into());
        }
        match AdminAuthority::load(&self.ca) {
            Ok(authority) => self.access.replace_authority(authority),
            Err(error) => keep(error.into()),
        }
        if let Err(error) = self.verifier.reload().await {
            keep(error.into());
        }
        if let Err(error) = self.publish().await {
            keep(error.into());
        }
        first.map_or(Ok(()), Err)
    }

    pub(super) async fn publish(&self) -> Result<(), PublishError> {
        publish(&self.config, &self.ca, self.verifier.store(), self.clock.now_unix_s()).await
    }
}

fn issuers(ca: &CaDir) -> Result<Issuers, CaError> {
    Ok(Issuers { nodes: ca.issuer(CaRole::Nodes)?, jobs: ca.issuer(CaRole::Jobs)? })
}

fn settings(config: &Config) -> Settings {
    Settings {
        trust_domain: config.trust_domain.clone(),
        verifier_id: VerifierId::new(config.verifier_id()),
        selection: config.pcrs.clone(),
        tool_pcr: config.tool_pcr,
        certificate_lifetime: config.certificate_lifetime,
        allow_pending: config.allow_pending,
        max_denied_percent: config.max_denied_percent,
        first_ring: first_ring(config),
        challenge_lifetime: config.limits.challenge_lifetime,
        jobs: config.jobs.clone(),
    }
}

/// Digest of the ring that init wrote; without it nothing is approved, and every pool denies.
fn first_ring(config: &Config) -> Option<Digest> {
    let path = config.state_dir.join(RING_FILE);
    match crate::ca::files::read_text(&path) {
        Ok(text) => Some(HashAlg::Sha256.hash(&[text.as_bytes()])),
        Err(error) => {
            tracing::error!(
                "no golden set can be in force without the first ring of security keys; `verifier init` \
                 writes it: {}",
                crate::service::status::chain(&error)
            );
            None
        }
    }
}

fn ek_rules(config: &Config) -> EkRules {
    EkRules {
        profile: match config.ek_profile {
            EkProfile::Strict => Profile::Strict,
            EkProfile::Manufacturers => Profile::AsShipped,
        },
        revocation: match config.revocation {
            Revocation::Required => RevocationRequirement::Required,
            Revocation::IfKnown => RevocationRequirement::IfKnown,
        },
        ..EkRules::default()
    }
}
