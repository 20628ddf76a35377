//! The appraisal of a renewal: whatever a worker answers, only evidence that the fixture's AK signed
//! over the fixture's challenge is ever admitted.
#![no_main]

use std::sync::LazyLock;

use appraisal::{
    appraise,
    boot::Boot,
    context::{AppraisalContext, Expected, IssuedChallenge, NodeRecord, Signer, Standing},
    policy::{Manifests, ReferenceValues},
    verdict::Verdict,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::{
    binding::{Challenge, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{Evidence, LogKind, LogSuffix},
    pb,
};

const BOOT: &[u8] = include_bytes!("../fixtures/boot.json");
const GOLDEN: &str = include_str!("../fixtures/golden.toml");
const EVIDENCE: &[u8] = include_bytes!("../fixtures/evidence.bin");
const NOW_UNIX_S: i64 = 1_830_000_000;
/// What swtpm-tests/examples/fuzz_seeds.rs had the quote made over.
const CHALLENGE: [u8; 32] = [0xc1; 32];
const VERIFIER_ID: [u8; 32] = [0x1d; 32];
const TOOL_PCR: u8 = 14;

struct Fixture {
    boot: Boot,
    issued: IssuedChallenge,
    node: NodeRecord,
    tool_pcr: PcrIndex,
    reference: ReferenceValues,
    endorsements: Digest,
    signed: Vec<u8>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let document = serde_json::from_slice(BOOT).expect("the fixture is a boot record");
    let boot = Boot::assert_from_store(document).expect("the fixture is acceptable");
    let tool_pcr = PcrIndex::new(TOOL_PCR).expect("14 is a PCR");
    let reference = ReferenceValues::parse(GOLDEN, tool_pcr, &Manifests::new()).expect("the fixture is a golden set");
    let mut pcrs = PcrSet::default();
    for index in [0, 4, 7, TOOL_PCR] {
        pcrs.insert(PcrIndex::new(index).expect("a PCR"));
    }
    let message = pb::Evidence::decode_length_delimited(EVIDENCE).expect("the fixture decodes");
    let fixture = Fixture {
        issued: IssuedChallenge {
            purpose: proto::binding::Purpose::Node,
            challenge: Challenge::new(CHALLENGE),
            verifier_id: VerifierId::new(VERIFIER_ID),
            selection: PcrSelection::new([(HashAlg::Sha256, pcrs)]),
            required: PcrSelection::new([(HashAlg::Sha256, pcrs)]),
            expires_unix_s: NOW_UNIX_S + 60,
        },
        node: NodeRecord {
            name: "fuzz".into(),
            pool: "fuzz".into(),
            standing: Standing::Active,
            ek_digest: boot.ek().digest,
            highest_counters: None,
        },
        tool_pcr,
        reference,
        endorsements: HashAlg::Sha256.hash(&[b"fuzz"]),
        signed: message.quote.clone().expect("the fixture has a quote").attest,
        boot,
    };
    // A fixture that is denied would make this target blind.
    let evidence = Evidence::try_from(message).expect("the fixture is evidence");
    assert!(matches!(fixture.appraise(&evidence), Verdict::Admit(_)), "the fixture is admitted");
    fixture
});

impl Fixture {
    fn appraise(&self, evidence: &Evidence) -> Verdict {
        let context = AppraisalContext {
            job: None,
            now_unix_s: NOW_UNIX_S,
            challenge: &self.issued,
            node: &self.node,
            endorsements: self.endorsements,
            tool_pcr: self.tool_pcr,
            in_force: Expected { reference: Some(&self.reference), ..Expected::default() },
            staged: None,
            case_digest: self.endorsements,
        };
        appraise(evidence, Signer::Known(self.boot.clone()), &context).verdict
    }
}

fuzz_target!(|data: &[u8]| {
    // Evidence with its length before it, then bytes that continue the tool log.
    let mut rest = data;
    let Ok(message) = pb::Evidence::decode_length_delimited(&mut rest) else { return };
    let signed = message.quote.as_ref().map(|quote| quote.attest.clone()).unwrap_or_default();
    let Ok(mut evidence) = Evidence::try_from(message) else { return };
    if !rest.is_empty() {
        evidence.logs.push(LogSuffix {
            kind: LogKind::Tools,
            from_bytes: FIXTURE.boot.tool_log().bytes,
            bytes: rest.to_vec(),
        });
    }
    match FIXTURE.appraise(&evidence) {
        Verdict::Admit(admission) => {
            assert_eq!(signed, FIXTURE.signed, "admitted what the AK never signed");
            assert!(rest.is_empty(), "admitted a log that was never quoted");
            assert_eq!(admission.grant().node, "fuzz");
        }
        Verdict::Deny(denial) => assert!(denial.findings().next().is_some()),
    }
});
