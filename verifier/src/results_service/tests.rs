//! What is signed here verifies against the trusted root made here, and stops where it should.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use results::{
    Code, Sha256Digest, SpiffeId, UnixTime,
    bundle::{Bundle, Content, MessageSignature, TrustedRoot},
    statement::{PolicyRef, Verdict, VerifierId, Vsa},
    timestamp::{Request, Response},
    verify::Trust,
};

mod external;

use super::*;
use crate::{
    ca::{
        CaDir, CaRole, ResultsSubject,
        tests::{NOW, created, trust_domain},
    },
    clock::FixedClock,
};

const NOW_I64: i64 = 1_780_272_000;
const HOUR: i64 = 3600;

struct Site {
    folder: tempfile::TempDir,
    ca: CaDir,
    clock: FixedClock,
    signer: ResultsSigner,
}

impl Site {
    fn new() -> Self {
        Self::with(ExternalAuthorities::default())
    }

    fn with(external: ExternalAuthorities) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = created(folder.path(), NOW);
        let clock = FixedClock::at(NOW_I64);
        let issuer = ca.issuer(CaRole::Results).expect("an issuer");
        let signer = ResultsSigner::new(issuer, trust_domain(), Arc::new(clock.clone()), external);
        Self { folder, ca, clock, signer: signer.expect("a signer") }
    }

    fn root(&self) -> TrustedRoot {
        let root = trusted_root(&self.ca, self.signer.external()).expect("a trusted root");
        TrustedRoot::parse(root.to_json().as_bytes()).expect("it parses")
    }

    fn bundle(&self) -> Bundle {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let unstamped = self.signer.sign(&vsa()).expect("signed");
        let json = runtime.block_on(self.signer.stamp(unstamped, at(NOW_I64))).expect("stamped");
        Bundle::parse(&json).expect("it parses")
    }
}

fn id(text: &str) -> SpiffeId {
    text.parse().expect("a SPIFFE ID")
}

fn at(unix_s: i64) -> UnixTime {
    UnixTime::from_unix_s(unix_s.try_into().expect("positive")).expect("an instant")
}

fn reference(what: &str) -> PolicyRef {
    let digest = Sha256Digest::of(what.as_bytes());
    PolicyRef { uri: format!("https://builds.example.org/{what}"), digest }
}

fn vsa() -> Vsa {
    Vsa {
        ak_public: Sha256Digest::of(b"ak"),
        quote: Sha256Digest::of(b"quote"),
        node: id("spiffe://builds.example.org/node/n1"),
        verifier: VerifierId {
            id: "spiffe://builds.example.org/verifier/results".to_owned(),
            version: BTreeMap::new(),
        },
        time_verified: at(NOW_I64),
        policy: reference("policy"),
        input_attestations: vec![reference("case")],
        result: Verdict::Passed,
        levels: Vec::new(),
    }
}

/// Verifies as a relying party does: the code of the refusal, or the instant of the signature.
fn verify(bundle: &Bundle, root: &TrustedRoot, identity: &str, now: i64) -> Result<UnixTime, Code> {
    let identities = [id(identity)];
    let trust = Trust { root, identities: &identities };
    let verified =
        bundle.prove_time(root, at(now)).and_then(|timed| timed.verify_statement::<Vsa>(&trust));
    match verified {
        Ok(verified) => {
            assert_eq!(verified.statement(), &vsa());
            Ok(verified.signature().signed_at())
        }
        Err(refusal) => Err(refusal.code()),
    }
}

const RESULTS_ID: &str = "spiffe://builds.example.org/verifier/results";

#[test]
fn a_statement_verifies_with_the_trusted_root_and_no_other() {
    let site = Site::new();
    let bundle = site.bundle();
    assert_eq!(site.signer.spiffe_id().to_string(), RESULTS_ID);
    assert_eq!(verify(&bundle, &site.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
    // Years later as well, and by nobody else's name.
    assert_eq!(verify(&bundle, &site.root(), RESULTS_ID, NOW_I64 + 50_000 * HOUR), Ok(at(NOW_I64)));
    let other = "spiffe://builds.example.org/verifier";
    assert_eq!(verify(&bundle, &site.root(), other, NOW_I64), Err(Code::IdentityNotAccepted));
    let another = Site::new();
    let refused = verify(&bundle, &another.root(), RESULTS_ID, NOW_I64);
    assert_eq!(refused, Err(Code::TimestampUntrusted));
}

#[test]
fn the_digest_is_the_statement_s() {
    let site = Site::new();
    let digest = site.signer.sign(&vsa()).expect("signed").digest();
    let bundle = site.bundle();
    let Content::Statement(envelope) = bundle.content() else { panic!("a statement") };
    assert_eq!(digest, Sha256Digest::of(envelope.untrusted_payload()));
}

#[test]
fn keys_are_made_anew_at_half_life_and_when_the_clock_goes_back() {
    let site = Site::new();
    let leaf = |bundle: &Bundle| bundle.untrusted_certificate().spki_digest();
    let first = site.bundle();
    site.clock.set(NOW_I64 + 12 * HOUR - 1);
    let same = site.bundle();
    assert_eq!(leaf(&first), leaf(&same));
    site.clock.set(NOW_I64 + 12 * HOUR);
    let second = site.bundle();
    assert_ne!(leaf(&first), leaf(&second));
    // The certificate begins ten seconds before it is made: what is signed before would never verify.
    site.clock.set(NOW_I64 + HOUR);
    let third = site.bundle();
    assert_ne!(leaf(&second), leaf(&third));
    let root = site.root();
    for (bundle, when) in [
        (&first, NOW_I64),
        (&same, NOW_I64 + 12 * HOUR - 1),
        (&second, NOW_I64 + 12 * HOUR),
        (&third, NOW_I64 + HOUR),
    ] {
        assert_eq!(verify(bundle, &root, RESULTS_ID, NOW_I64 + 13 * HOUR), Ok(at(when)));
    }
}

#[test]
fn what_a_former_ca_signed_stays_good_until_its_root_is_retired() {
    let site = Site::new();
    let former = site.bundle();
    let old_list = site.root();
    site.ca.rotate(CaRole::Results, NOW + 60).expect("another CA");
    let issuer = || site.ca.issuer(CaRole::Results).expect("the new CA");
    // Not valid yet: the reload fails, and the former CA goes on.
    assert!(matches!(site.signer.replace_issuer(issuer()), Err(ResultsError::Ca(_))));
    assert_eq!(verify(&site.bundle(), &old_list, RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
    site.clock.set(NOW_I64 + 60);
    site.signer.replace_issuer(issuer()).expect("it signs");
    let current = site.bundle();
    let root = site.root();
    assert_eq!(root.timestamp_authorities().len(), 2);
    assert_eq!(root.certificate_authorities().len(), 3);
    let now = NOW_I64 + 60;
    assert_eq!(verify(&former, &root, RESULTS_ID, now), Ok(at(NOW_I64)));
    assert_eq!(verify(&current, &root, RESULTS_ID, now), Ok(at(now)));
    // A relying party that did not get the new list.
    assert_eq!(verify(&current, &old_list, RESULTS_ID, now), Err(Code::TimestampUntrusted));
    // The bundle of roots without theirs: the current CA cannot do without, so nothing is written.
    std::fs::write(site.folder.path().join("bundle.pem"), other_root()).expect("written");
    assert!(matches!(
        trusted_root(&site.ca, site.signer.external()),
        Err(ResultsError::Ca(CaError::Unknown(_)))
    ));
}

fn other_root() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    created(folder.path(), NOW);
    read(&folder.path().join("bundle.pem"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn jobs_verify_with_the_same_list_and_a_stamp_of_the_authority() {
    let site = Site::new();
    // A certificate of the CA for results stands for a job's here: that for jobs needs a permit.
    let leaf = site.signer.issuing.leaf(ResultsSubject::new, at(NOW_I64)).expect("a leaf");
    let digest = Sha256Digest::of(b"artifact");
    let message = MessageSignature::sign(digest, &leaf.key).expect("signed");
    let request = Request::new(Sha256Digest::of(&message.signature), &[7; 16]).expect("a request");
    let reply = site.signer.authority().answer_at(Some(&request), NOW_I64).expect("an answer");
    let root = site.root();
    let response = Response::parse(&reply).expect("granted");
    let time = response.verify_answer(&request, root.timestamp_authorities(), at(NOW_I64));
    assert_eq!(time.expect("it verifies").at(), at(NOW_I64));
    let bundle = Bundle::new(&leaf.certificate_der, vec![reply], Content::Artifact(message));
    let bundle = bundle.expect("a bundle");
    let identities = [id(RESULTS_ID)];
    let trust = Trust { root: &root, identities: &identities };
    let timed = bundle.prove_time(&root, at(NOW_I64)).expect("a time");
    assert_eq!(timed.verify_artifact(&digest, &trust).expect("it verifies").digest(), &digest);
}

#[test]
fn no_two_stamps_have_one_number_and_nonsense_is_rejected_in_the_protocol_s_own_words() {
    let site = Site::new();
    let request = Request::new(Sha256Digest::of(b"signature"), &[7; 16]).expect("a request");
    let answer = |request: Option<&Request>| {
        site.signer.authority().answer_at(request, NOW_I64).expect("an answer")
    };
    assert_ne!(answer(Some(&request)), answer(Some(&request)));
    for nonsense in [&[][..], b"nonsense", &[0x30; 2000]] {
        let request = Request::parse(nonsense).ok();
        let refusal = Response::parse(&answer(request.as_ref())).expect_err("rejected");
        assert_eq!(refusal.code(), Code::TimestampRefused);
    }
}

#[test]
fn a_clock_before_1970_signs_nothing() {
    let site = Site::new();
    site.clock.set(-1);
    assert!(matches!(site.signer.sign(&vsa()), Err(ResultsError::Clock(-1))));
    assert!(matches!(site.signer.authority().answer_at(None, -1), Err(ResultsError::Clock(-1))));
}
