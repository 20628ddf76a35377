//! A whole chain, from quote to artifact; each part can be changed before it is signed.

use std::collections::BTreeMap;

use results::{
    Refusal, Sha256Digest, SpiffeId,
    admit::{AdmitPolicy, Admitted, Examined, Request, RequiredTool, admit, examine},
    bundle::{Bundle, Content, MessageSignature, TrustedRoot},
    dsse::Envelope,
    statement::{
        Claim, ClaimSource, Dispatch, JobClaims, PolicyRef, Predicate, Tool, Verdict, VerifierId,
        Vsa,
    },
};

use super::pki::{JOB_ID, Key, Leaf, NOW, RESULTS_ID, World, at};

pub(crate) const ARTIFACT: &[u8] = b"what the job built\n";
pub(crate) const NODE_ID: &str = "spiffe://build.example/node/n1";

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().expect("a SPIFFE ID")
}

pub(crate) fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

pub(crate) fn vsa() -> Vsa {
    Vsa {
        ak_public: digest("ak"),
        quote: digest("quote"),
        node: id(NODE_ID),
        verifier: VerifierId {
            id: RESULTS_ID.to_owned(),
            version: BTreeMap::from([("assay".to_owned(), "0.1.0".to_owned())]),
        },
        time_verified: at(NOW - 120),
        policy: PolicyRef {
            uri: "https://build.example/golden/release".to_owned(),
            digest: digest("golden set"),
        },
        input_attestations: vec![
            PolicyRef {
                uri: "https://build.example/cases/42".to_owned(),
                digest: digest("evidence case"),
            },
            PolicyRef {
                uri: "https://build.example/golden/base".to_owned(),
                digest: digest("reference set"),
            },
        ],
        result: Verdict::Passed,
        levels: ["ASSAY_BOOT_VERIFIED", "ASSAY_TOOLS_VERIFIED"].map(str::to_owned).to_vec(),
    }
}

/// Without the lists that limit what is admitted.
pub(crate) fn without_lists(policy: AdmitPolicy) -> AdmitPolicy {
    AdmitPolicy {
        systems: None,
        repositories: None,
        workflows: None,
        platform_claims: Vec::new(),
        levels: Vec::new(),
        tools: BTreeMap::new(),
        ..policy
    }
}

/// A dispatch of the job with that key, resting on that VSA.
pub(crate) fn dispatch(job_key: Sha256Digest, vsa: Sha256Digest) -> Dispatch {
    let token = |value: &str| Claim { source: ClaimSource::PlatformToken, value: value.to_owned() };
    Dispatch {
        job: JobClaims {
            claims: BTreeMap::from([
                ("repository".to_owned(), token("acme/app")),
                ("run_id".to_owned(), token("7")),
                (
                    "runner_name".to_owned(),
                    Claim { source: ClaimSource::Environment, value: "n1".to_owned() },
                ),
                ("workflow".to_owned(), token("release.yml@refs/heads/main")),
            ]),
            system: "github".to_owned(),
        },
        git_commit: Some("5ba93c9db0cff93f52b521d7420e43f6eda2784f".to_owned()),
        job_key,
        quote: digest("quote"),
        vsa,
        tools: vec![
            Tool {
                name: "gcc".to_owned(),
                version: "12.2.0-14".to_owned(),
                purl: "pkg:deb/debian/gcc-12@12.2.0-14".to_owned(),
                digest: digest("gcc"),
            },
            Tool {
                name: "make".to_owned(),
                version: "4.3-4.1".to_owned(),
                purl: "pkg:deb/debian/make@4.3-4.1".to_owned(),
                digest: digest("make"),
            },
        ],
        producer: RESULTS_ID.to_owned(),
        permit_id: "p-0001".to_owned(),
        node: id(NODE_ID),
        pool: "release".to_owned(),
        expires: at(NOW + 300),
    }
}

pub(crate) fn policy() -> AdmitPolicy {
    let list = |text: &str| Some(vec![text.to_owned()]);
    AdmitPolicy {
        job_identities: vec![id(JOB_ID)],
        results_identities: vec![id(RESULTS_ID)],
        pools: vec!["release".to_owned()],
        max_vsa_age_s: 300,
        systems: list("github"),
        repositories: list("acme/app"),
        workflows: list("release.yml@refs/heads/main"),
        platform_claims: ["repository", "workflow"].map(str::to_owned).to_vec(),
        artifact_timestamp_authorities: None,
        levels: vec!["ASSAY_BOOT_VERIFIED".to_owned()],
        tools: BTreeMap::from([
            ("gcc".to_owned(), RequiredTool { sha256: Some(vec![digest("gcc")]) }),
            ("make".to_owned(), RequiredTool { sha256: None }),
        ]),
    }
}

/// The parts of a chain, signed by [`Chain::admit`].
pub(crate) struct Chain {
    pub(crate) world: World,
    pub(crate) job_key: Key,
    pub(crate) results_key: Key,
    pub(crate) job_leaf: Leaf,
    pub(crate) results_leaf: Leaf,
    pub(crate) vsa: Vsa,
    /// Of the dispatch, before it rests on the VSA.
    pub(crate) dispatch: Dispatch,
    /// Whether the dispatch names the VSA's digest, whatever that is.
    pub(crate) rests_on_vsa: bool,
    pub(crate) policy: AdmitPolicy,
    pub(crate) stated_at: u64,
    pub(crate) dispatched_at: u64,
    pub(crate) signed_at: u64,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let job_key = Key::new();
        let dispatch = dispatch(job_key.spki_digest(), digest("unset"));
        Self {
            world: World::new(),
            job_key,
            results_key: Key::new(),
            job_leaf: Leaf::default(),
            results_leaf: Leaf::results(),
            vsa: vsa(),
            dispatch,
            rests_on_vsa: true,
            policy: policy(),
            stated_at: NOW - 120,
            dispatched_at: NOW - 60,
            signed_at: NOW,
        }
    }

    pub(crate) fn job_bundle(&self) -> Bundle {
        let content = MessageSignature::sign(Sha256Digest::of(ARTIFACT), &&self.job_key);
        let leaf = self.world.issuing.leaf(&self.job_key, &self.job_leaf);
        self.world.bundle(&leaf, Content::Artifact(content.expect("a signature")), self.signed_at)
    }

    pub(crate) fn statement_bundle(&self, statement: &impl Predicate, when: u64) -> Bundle {
        let envelope = Envelope::sign(statement, &&self.results_key).expect("an envelope");
        let leaf = self.world.issuing.leaf(&self.results_key, &self.results_leaf);
        self.world.bundle(&leaf, Content::Statement(envelope), when)
    }

    pub(crate) fn vsa_bundle(&self) -> Bundle {
        self.statement_bundle(&self.vsa, self.stated_at)
    }

    pub(crate) fn dispatch_bundle(&self) -> Bundle {
        let mut dispatch = self.dispatch.clone();
        if self.rests_on_vsa {
            dispatch.vsa = Sha256Digest::of(&self.vsa.to_json().expect("a statement"));
        }
        self.statement_bundle(&dispatch, self.dispatched_at)
    }

    pub(crate) fn admit(&self) -> Result<Admitted, Refusal> {
        self.with_request(|request, root| admit(request, &self.policy, root, at(NOW + 5)))
    }

    pub(crate) fn examine(&self) -> Result<Examined, Refusal> {
        self.with_request(|request, root| examine(request, &self.policy, root, at(NOW + 5)))
    }

    /// As [`Chain::examine`], of other bytes than those that were signed.
    pub(crate) fn examine_artifact(&self, artifact: &[u8]) -> Result<Examined, Refusal> {
        let artifact = Sha256Digest::of(artifact);
        self.with_request(|request, root| {
            examine(Request { artifact: &artifact, ..request }, &self.policy, root, at(NOW + 5))
        })
    }

    fn with_request<T>(&self, ask: impl FnOnce(Request<'_>, &TrustedRoot) -> T) -> T {
        let [job, dispatch, vsa] = [self.job_bundle(), self.dispatch_bundle(), self.vsa_bundle()]
            .map(|bundle| Bundle::parse(bundle.to_json().as_bytes()).expect("it parses"));
        let artifact = Sha256Digest::of(ARTIFACT);
        let request = Request { artifact: &artifact, job: &job, dispatch: &dispatch, vsa: &vsa };
        ask(request, &self.world.trusted_root())
    }
}

/// A bundle whose payload says something else, under the signature that it had.
pub(crate) fn with_payload(bundle: &str, from: &str, to: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut bundle: serde_json::Value = serde_json::from_str(bundle).expect("JSON");
    let payload = &mut bundle["dsseEnvelope"]["payload"];
    let text = STANDARD.decode(payload.as_str().expect("text")).expect("base64");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains(from), "{from} in {text}");
    *payload = STANDARD.encode(text.replacen(from, to, 1)).into();
    bundle.to_string()
}
