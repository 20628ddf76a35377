//! A verifier for tests.

use std::{path::Path, sync::Arc, time::Duration};

use proto::{
    binding::VerifierId,
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
};

use platform::Platforms;

use super::{ForJobs, Issuers, Settings, Verifier};
use crate::{
    ca::{CaDir, CaRole, tests as ca},
    clock::{Clock, FixedClock},
    config::Jobs,
    endorsements::EkRules,
    jwt_key::{self, JwtKeys},
    results_files::ResultFiles,
    results_service::{ExternalAuthorities, ResultsSigner},
    store::{Store, testing},
};

/// A verifier over this store, with a CA of its own, for which nothing is approved.
pub(crate) async fn verifier(store: Store, folder: &Path) -> Arc<Verifier> {
    verifier_after(store, folder, None).await
}

/// The same, after a first ring of security keys with this digest.
pub(crate) async fn verifier_after(
    store: Store,
    folder: &Path,
    first_ring: Option<Digest>,
) -> Arc<Verifier> {
    let tool_pcr = PcrIndex::new(14).expect("a PCR");
    let settings = Settings {
        trust_domain: ca::trust_domain(),
        verifier_id: VerifierId::new([1; 32]),
        selection: PcrSelection::new([(HashAlg::Sha256, PcrSet::from_iter([tool_pcr]))]),
        tool_pcr,
        certificate_lifetime: Duration::from_secs(3600),
        allow_pending: true,
        max_denied_percent: 10,
        first_ring,
        challenge_lifetime: Duration::from_secs(60),
        jobs: Jobs::default(),
    };
    let now = testing::NOW;
    let dir = ca::created(folder, u64::try_from(now).expect("after 1970"));
    let issuers = issuers(&dir);
    let clock = Arc::new(FixedClock::at(now));
    let opened = Verifier::open(
        settings,
        EkRules::default(),
        store,
        clock,
        issuers,
        for_jobs(&dir, folder),
        Vec::new(),
    )
    .await;
    Arc::new(opened.expect("a verifier"))
}

/// A key of its own, and no platform.
pub(crate) fn for_jobs(dir: &CaDir, folder: &Path) -> ForJobs {
    let issuer = dir.issuer(CaRole::Results).expect("an issuer");
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::at(testing::NOW));
    let lead = jwt_key::lead(Jobs::default().check_every);
    let jwt_key = JwtKeys::open(folder, Arc::clone(&clock), lead).expect("a key");
    let domain = dir.trust_domain().clone();
    let results = ResultsSigner::new(issuer, domain, clock, ExternalAuthorities::default());
    ForJobs {
        platforms: Platforms::default(),
        jwt_key: Arc::new(jwt_key),
        results: Arc::new(results.expect("a signer")),
        result_files: ResultFiles::open(folder).expect("a folder"),
        ended: Arc::default(),
    }
}

pub(crate) fn issuers(dir: &CaDir) -> Issuers {
    let issuer = |role| dir.issuer(role).expect("an issuer");
    Issuers { nodes: issuer(CaRole::Nodes), jobs: issuer(CaRole::Jobs) }
}
