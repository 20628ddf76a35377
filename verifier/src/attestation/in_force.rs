//! What is in force: settings, endorsements, admission rules and golden sets.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use appraisal::{
    ima::Manifest,
    policy::{GoldenSet, Manifests},
};
use arc_swap::ArcSwap;
use platform::Platforms;
use proto::{
    binding::VerifierId,
    digest::{Digest, PcrIndex, PcrSelection},
};
use tokio::sync::{MutexGuard, Notify};

use super::{AttestError, Verifier, boots::Boots, denials::Denials};
use crate::{
    ca::{Issuer, TrustDomain},
    clock::Clock,
    config::Jobs,
    documents::Rings,
    endorsements::{EkRules, EndorsementSet},
    expectations::{self, Compiled, Expectations},
    jobs::Redeeming,
    jwt_key::JwtKeys,
    objects::StoredObject,
    results_files::ResultFiles,
    results_service::ResultsSigner,
    service::status::chain,
    store::{DocumentKind, Seen, Store},
};

/// What stays the same while the verifier runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Trust domain of every SPIFFE ID.
    pub trust_domain: TrustDomain,
    /// Identifier of the fleet, hashed into every quote.
    pub verifier_id: VerifierId,
    /// PCRs that every quote covers besides those of the golden set.
    pub selection: PcrSelection,
    /// PCR of the tool log.
    pub tool_pcr: PcrIndex,
    /// Life of node certificates.
    pub certificate_lifetime: Duration,
    /// Whether an unknown TPM that proves itself becomes a pending node.
    pub allow_pending: bool,
    /// Share of the admitted nodes, percent, that a golden set or policy may turn away without somebody saying that it is
    /// meant.
    pub max_denied_percent: u8,
    /// Digest of the first ring of security keys, as `init` wrote it: what approvals go back to. `None`: nothing is
    /// approved.
    pub first_ring: Option<Digest>,
    /// Permits of jobs.
    pub jobs: Jobs,
    /// Life of a challenge; at most [`proto::limits::CHALLENGE_LIFETIME`].
    pub challenge_lifetime: Duration,
}

/// The CAs whose certificates leave the verifier over the wire.
#[derive(Debug)]
pub struct Issuers {
    /// Of nodes.
    pub nodes: Issuer,
    /// Of jobs.
    pub jobs: Issuer,
}

/// What jobs are given and held against.
#[derive(Debug)]
pub struct ForJobs {
    /// Issuers of their tokens.
    pub platforms: Platforms,
    /// Signs their JWT-SVIDs.
    pub jwt_key: Arc<JwtKeys>,
    /// Signs what is said of them and their nodes.
    pub results: Arc<ResultsSigner>,
    /// Where that is kept.
    pub result_files: ResultFiles,
    /// Told when a permit ends: its certificates are revoked.
    pub ended: Arc<Notify>,
}

/// The endorsement set in force, with its stored object.
#[derive(Debug)]
pub struct Endorsements {
    pub(super) set: EndorsementSet,
    pub(super) object: StoredObject,
    /// Taken before anything that is in force together with these was read.
    pub(super) seen: Seen,
}

impl Verifier {
    /// A verifier over an open store, with what the store holds in force.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read.
    pub async fn open(
        settings: Settings,
        rules: EkRules,
        store: Store,
        clock: Arc<dyn Clock>,
        issuers: Issuers,
        for_jobs: ForJobs,
        trust_bundle: Vec<Vec<u8>>,
    ) -> Result<Self, AttestError> {
        let last = store.last_decided().await?;
        let seen = store.seen();
        let set = EndorsementSet::new(&store.endorsements().await?.items, rules);
        let object = store.put_object(set.object().to_vec()).await?;
        let verifier = Self {
            settings,
            ek_rules: rules,
            store,
            clock,
            issuers: ArcSwap::from_pointee(issuers),
            trust_bundle: ArcSwap::from_pointee(trust_bundle),
            for_jobs,
            endorsements: ArcSwap::from_pointee(Endorsements { set, object, seen }),
            expectations: ArcSwap::default(),
            manifests: ArcSwap::default(),
            rules: ArcSwap::default(),
            boots: Boots::default(),
            denials: Denials::default(),
            redeeming: Redeeming::default(),
            reloading: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            last_seen: AtomicI64::new(last),
        };
        verifier.reload().await?;
        Ok(verifier)
    }

    /// Puts in force what the store holds now: endorsements, rules, golden sets.
    ///
    /// Attestations under way keep what they began with; the store then refuses a certificate that
    /// rests on what is retired.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read; what was in force stays.
    pub async fn reload(&self) -> Result<(), AttestError> {
        let alone = self.reloading.lock().await;
        self.reload_alone(&alone).await
    }

    /// Keeps other steps of documents away, from the dry run before a step to what comes of it.
    pub(crate) async fn one_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// As [`Verifier::reload`], by whoever holds its lock.
    async fn reload_alone(&self, _alone: &MutexGuard<'_, ()>) -> Result<(), AttestError> {
        let seen = self.store.seen();
        let set = EndorsementSet::new(&self.store.endorsements().await?.items, self.ek_rules);
        for (digest, why) in set.rejected() {
            tracing::warn!(%digest, why, "an imported endorsement is not usable");
        }
        let object = self.store.put_object(set.object().to_vec()).await?;
        let rules = self.store.admission_rules().await?.into_iter().map(|(rule, _)| rule).collect();
        let compiled = self.compile_in_force().await?;
        let expectations = Expectations::compile(&compiled);
        for (pool, expected) in expectations.pools() {
            for unresolved in &expected.unresolved {
                tracing::error!(pool, %unresolved, "a golden set judges nobody");
            }
        }
        self.rules.store(Arc::new(rules));
        self.expectations.store(Arc::new(expectations));
        // Last, because an attestation reads them first: whoever has this `seen` has at least these
        // rules and golden sets.
        self.endorsements.store(Arc::new(Endorsements { set, object, seen }));
        Ok(())
    }

    /// Reloads unless what is in force is what the store holds: after a reload that failed.
    pub(super) async fn catch_up(&self) {
        let alone = self.reloading.lock().await;
        // Whoever waited for a reload has what it brought.
        if self.endorsements.load().seen == self.store.seen() {
            return;
        }
        if let Err(error) = self.reload_alone(&alone).await {
            tracing::error!(%error, "what is in force could not be read again");
        }
    }

    /// The documents that judge or are staged, compiled. A golden set that cannot be used is left out, which only ever
    /// denies, and so is what is only reported.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read; [`AttestError::PolicyUnusable`] for a policy in force, because without
    /// it more would be admitted.
    pub async fn compile_in_force(&self) -> Result<Vec<Compiled>, AttestError> {
        let mut compiled = Vec::new();
        let mut named = Manifests::new();
        let rings = Arc::new(Rings::of(&self.store, self.settings.first_ring.as_ref()).await?);
        for document in self.store.documents_in_force().await? {
            let Some(is_staged) = expectations::judges(document.state) else { continue };
            if document.id.kind == DocumentKind::Keys {
                continue;
            }
            let id = document.id.clone();
            let kind = id.kind;
            let signatures = self.store.document_signatures(&id).await?;
            let text = String::from_utf8_lossy(&document.document).into_owned();
            let manifests = self.manifests_of(&text).await?;
            named.extend(manifests.clone());
            let (rings, tool_pcr) = (Arc::clone(&rings), self.settings.tool_pcr);
            let compile = move || {
                let under = document.approved_under.unwrap_or(0);
                rings
                    .approve(&document, &signatures, under)
                    .map_err(|error| vec![format!("not approved: {}", chain(&error))])?;
                let sha256 = document.sha256;
                Compiled::parse(kind, &text, is_staged, sha256, tool_pcr, &manifests)
                    .map_err(|problems| problems.iter().map(ToString::to_string).collect())
            };
            match blocking(compile).await? {
                Ok(rules) => compiled.extend(rules),
                Err(problems) => {
                    let problems: Vec<String> = problems;
                    let why = problems.join("; ");
                    if id.kind == DocumentKind::Policy && !is_staged {
                        return Err(AttestError::PolicyUnusable { id, why });
                    }
                    tracing::error!(%id, why, "a document in force cannot be used");
                }
            }
        }
        // What no document names any more need not stay in memory.
        self.manifests.store(Arc::new(named));
        Ok(compiled)
    }

    /// The manifests that a golden set names, as far as they were imported: compiled once, shared while a set in force
    /// names them.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read.
    pub async fn manifests_of(&self, text: &str) -> Result<Manifests, AttestError> {
        let mut out = Manifests::new();
        let text = text.to_owned();
        for digest in blocking(move || GoldenSet::manifests_named_by(&text)).await? {
            if let Some(known) = self.manifests.load().get(&digest) {
                out.insert(digest, Arc::clone(known));
                continue;
            }
            let Some(document) = self.store.manifest(&digest).await? else { continue };
            match blocking(move || Manifest::parse(&document)).await? {
                Ok(manifest) => {
                    out.insert(digest, Arc::new(manifest));
                }
                // It was read when it was imported, by a version that knew other limits.
                Err(problem) => {
                    tracing::error!(%digest, %problem, "an imported manifest is not usable");
                }
            }
        }
        Ok(out)
    }

    /// Issues under another CA, and hands out another trust bundle, from now on.
    ///
    /// Attestations that are being answered keep the CA that they began with.
    pub fn replace_issuers(&self, issuers: Issuers, trust_bundle: Vec<Vec<u8>>) {
        self.issuers.store(Arc::new(issuers));
        self.trust_bundle.store(Arc::new(trust_bundle));
    }
}

/// Runs what takes longer than a reactor thread may be held: some megabytes of TOML do.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AttestError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AttestError::Task)
}

#[cfg(test)]
mod tests {
    use proto::digest::HashAlg;

    use super::{
        super::testing::{verifier, verifier_after},
        *,
    };
    use crate::store::{DocumentId, EndorsementKind, NewDocument, testing};

    /// A reload reads nothing while another one is under way, so that what it read before a change
    /// never replaces what the other read after it.
    #[tokio::test(flavor = "multi_thread")]
    async fn reloads_run_one_at_a_time_so_that_the_newest_stays_in_force() {
        let (folder, store) = testing::store().await;
        let verifier = verifier(store.clone(), &folder.path().join("ca")).await;
        let under_way = verifier.reloading.lock().await;
        let second = tokio::spawn({
            let verifier = Arc::clone(&verifier);
            async move { verifier.reload().await }
        });
        // A reload takes a few milliseconds: one that did not wait would be over, with what it read.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!second.is_finished(), "it did not wait for the one that is under way");
        let (kind, der) = (EndorsementKind::Root, b"a root".to_vec());
        store.import_endorsement(kind, der, "", testing::by()).await.expect("import");
        drop(under_way);
        second.await.expect("no panic").expect("reloaded");
        let items = store.endorsements().await.expect("read").items;
        let newest = EndorsementSet::new(&items, EkRules::default());
        let in_force = verifier.endorsements.load();
        assert_eq!((items.len(), in_force.set.digest()), (1, newest.digest()));
        assert_eq!(in_force.seen, store.seen());
    }

    /// What a reload could not put in force is found out by the next attestation that it matters to.
    #[tokio::test]
    async fn catching_up_reads_again_what_was_changed_behind_it() {
        let (folder, store) = testing::store().await;
        let verifier = verifier(store.clone(), &folder.path().join("ca")).await;
        let before = verifier.endorsements.load_full();
        verifier.catch_up().await;
        assert!(Arc::ptr_eq(&before, &verifier.endorsements.load_full()), "nothing changed");
        let (kind, der) = (EndorsementKind::Root, b"a root".to_vec());
        store.import_endorsement(kind, der, "", testing::by()).await.expect("import");
        verifier.catch_up().await;
        let after = verifier.endorsements.load_full();
        assert_ne!(after.set.digest(), before.set.digest());
        assert_eq!(after.seen, store.seen());
    }

    const GOLDEN: &str = "schema = \"assay.golden/v1\"\nname = \"linux\"\npool = \"linux\"\nversion = 1\n[[pcr]]\n\
         bank = \"sha256\"\nindex = 0\naccept = [{ value = \"1111111111111111111111111111111111111111111111111111111111111111\" }]\n";

    /// Who writes the database alone puts nothing in force: what judges is checked against the ring that put it there.
    #[tokio::test]
    async fn what_nobody_signed_judges_nobody_whatever_the_database_says() {
        use crate::{documents::ReadDocument, signatures::*};
        let (folder, store) = testing::store().await;
        let key = SecurityPrivateKey::create(&folder.path().join("a.key"), Algorithm::P256);
        let public = key.expect("a key").expect("new");
        let ring = ring_document("security", 1, 1, &[("a".parse().expect("a name"), public)]);
        let first = HashAlg::Sha256.hash(&[ring.as_bytes()]);
        let verifier = verifier_after(store.clone(), &folder.path().join("ca"), Some(first)).await;
        let read = |text: &str| {
            ReadDocument::read(text, verifier.settings().tool_pcr, &Manifests::new())
                .expect("sound")
        };
        let by = testing::by;
        store.adopt_keys(read(&ring).into_new(false, "test"), by()).await.expect("adopted");
        let set = read(GOLDEN);
        let id = set.id().clone();
        store.propose_document(set.into_new(false, "test"), by()).await.expect("proposed");
        let judges = async || {
            verifier.reload().await.expect("reloaded");
            verifier.expectations.load().of("linux").in_force.reference.is_some()
        };
        // The state says that it is in force; a signature is there, of nobody.
        let key_id = testing::digest("nobody");
        store.sign_document(id.clone(), key_id, vec![1], true, by()).await.expect("kept");
        store.activate_document(id.clone(), false, 1, by()).await.expect("active");
        assert!(!judges().await, "nobody signed it");
        // The key's own signature makes it what it says that it is.
        let key = SecurityPrivateKey::read(&folder.path().join("a.key")).expect("a key");
        let document = verifier.document(&id).await.expect("there");
        let mut envelope = Envelope::new(PayloadType::Golden, document.payload).expect("small");
        envelope.add(key.sign(&envelope.pae()).expect("signed")).expect("one");
        verifier.sign(&id, envelope.to_json().as_bytes(), by()).await.expect("good");
        assert!(judges().await, "signed");
        // Another first ring than the one that init wrote approves nothing.
        let other = Some(testing::digest("another ring"));
        let misled = verifier_after(store.clone(), &folder.path().join("ca2"), other).await;
        assert!(misled.expectations.load().of("linux").in_force.reference.is_none());
        assert!(matches!(misled.ring().await, Err(crate::documents::DocumentError::NoRing)));
    }

    /// A policy narrows: without it more would be admitted, so that what is in force stays, and a start is refused.
    #[tokio::test]
    async fn a_policy_in_force_that_cannot_be_used_admits_nobody() {
        let (folder, store) = testing::store().await;
        let ring = Some(testing::digest("ring"));
        let verifier = verifier_after(store.clone(), &folder.path().join("ca"), ring).await;
        verifier.reload().await.expect("nothing is in force");
        testing::with_ring(&store, 1).await;
        let text = "schema = \"assay.policy/v1\"\nname = \"baseline\"\nversion = 1\npools = []\n";
        let id = DocumentId { kind: DocumentKind::Policy, name: "baseline".into(), version: 1 };
        let new =
            NewDocument { id: id.clone(), pool: None, ..testing::golden("baseline", 1, text) };
        store.propose_document(new, testing::by()).await.expect("proposed");
        let key_id = testing::digest("nobody");
        store.sign_document(id.clone(), key_id, vec![1], true, testing::by()).await.expect("kept");
        store.stage_document(id.clone(), 1, testing::by()).await.expect("staged");
        verifier.reload().await.expect("what is staged denies nobody");
        store.activate_document(id.clone(), false, 1, testing::by()).await.expect("active");
        let before = verifier.expectations.load_full();
        let error = verifier.reload().await.expect_err("nobody signed it");
        assert!(
            matches!(&error, AttestError::PolicyUnusable { id: named, why } if *named == id && why.contains("not approved")),
            "{error}"
        );
        assert!(Arc::ptr_eq(&before, &verifier.expectations.load_full()));
        let settings = verifier.settings().clone();
        let dir = crate::ca::tests::created(&folder.path().join("ca2"), 1_800_000_000);
        let issuers = super::super::testing::issuers(&dir);
        let for_jobs = super::super::testing::for_jobs(&dir, &folder.path().join("ca2"));
        let clock = Arc::new(crate::clock::FixedClock::at(testing::NOW));
        let opened = Verifier::open(
            settings,
            EkRules::default(),
            store,
            clock,
            issuers,
            for_jobs,
            Vec::new(),
        )
        .await;
        assert!(matches!(opened, Err(AttestError::PolicyUnusable { .. })), "{opened:?}");
    }
}
