//! What holds for every input: flipped bits, stricter policy, documents that come back.
//!
//! Cases are few, so that the whole file takes seconds; fuzzing has more time.

mod site;

use std::sync::LazyLock;

use appraisal::{
    boot::{Boot, BootDocument},
    claims::ClaimsDocument,
    context::Signer,
    policy::{Manifests, ReferenceValues, document::GoldenDocument},
    verdict::Verdict,
};
use proptest::prelude::*;
use prost::Message as _;
use proto::{
    digest::{Digest, HashAlg},
    evidence::Evidence,
    pb,
};
use site::*;

/// A site, an accepted enrolment, and an accepted renewal with one new event.
struct Accepted {
    site: Site,
    enrolment: (Vec<u8>, Vec<u8>),
    renewal: (Vec<u8>, Vec<u8>),
    boot: Boot,
    enrolled: ClaimsDocument,
    renewed: ClaimsDocument,
}

static ACCEPTED: LazyLock<Accepted> = LazyLock::new(|| {
    let mut site = Site::new();
    let bytes =
        |answer: &soft_tpm::Answer| (answer.sign().encode_to_vec(), answer.log[0].bytes.clone());
    let answer = site.answer();
    let enrolment = bytes(&answer);
    let proven = admitted(site.judge(&evidence(&answer), site.activating()));
    site.tpm.measure(&ld());
    let answer = site.renewal(&proven.boot);
    let renewal = bytes(&answer);
    let signer = Signer::Known(proven.boot.clone());
    let renewed = admitted(site.judge(&evidence(&answer), signer)).claims.document();
    Accepted {
        enrolled: proven.claims.document(),
        boot: proven.boot,
        site,
        enrolment,
        renewal,
        renewed,
    }
});

impl Accepted {
    /// Judges wire bytes and a log; the claims if admitted.
    fn admits(&self, renewal: bool, message: &[u8], log: Vec<u8>) -> Option<ClaimsDocument> {
        let message = pb::Evidence::decode(message).ok()?;
        let mut evidence = Evidence::try_from(message).ok()?;
        let from_bytes = if renewal { self.boot.tool_log().bytes } else { 0 };
        let kind = proto::evidence::LogKind::Tools;
        evidence.logs = vec![proto::evidence::LogSuffix { kind, from_bytes, bytes: log }];
        let signer =
            if renewal { Signer::Known(self.boot.clone()) } else { self.site.activating() };
        match self.site.judge(&evidence, signer) {
            appraisal::Appraisal { verdict: Verdict::Admit(_), proven: Some(proven), .. } => {
                Some(proven.claims.document())
            }
            _ => None,
        }
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Exhaustive: every bit of an accepted renewal and of an accepted enrolment.
#[test]
fn a_flipped_bit_denies_or_changes_nothing() {
    let accepted = &*ACCEPTED;
    let mut admitted = 0;
    for renewal in [true, false] {
        let (message, log) = if renewal { &accepted.renewal } else { &accepted.enrolment };
        let claims = if renewal { &accepted.renewed } else { &accepted.enrolled };
        assert_eq!(accepted.admits(renewal, message, log.clone()).as_ref(), Some(claims));
        for bit in 0..(message.len() + log.len()) * 8 {
            let (mut message, mut log) = (message.clone(), log.clone());
            match bit.checked_sub(message.len() * 8) {
                None => flip(&mut message, bit),
                Some(bit) => flip(&mut log, bit),
            }
            if let Some(found) = accepted.admits(renewal, &message, log) {
                assert_eq!(found, *claims, "bit {bit}, renewal {renewal}");
                admitted += 1;
            }
        }
    }
    // Framing of a field that nobody reads, at most.
    println!("{admitted} flips were admitted with identical claims");
}

/// A random narrowing of the golden set.
#[derive(Clone, Debug)]
enum Narrowing {
    DropAcceptedPcr(usize),
    DropAcceptedTool(usize),
    RequireTool(usize),
    AddPcr(u8, u8),
    AddTool(String),
    DenyDigest([u8; 32]),
    DenySeen,
    Close,
    SafeClock,
    Manufacturer,
    Floor(u64),
}

fn narrowings() -> impl Strategy<Value = Vec<Narrowing>> {
    let one = prop_oneof![
        (0_usize..9).prop_map(Narrowing::DropAcceptedPcr),
        (0_usize..2).prop_map(Narrowing::DropAcceptedTool),
        (0_usize..2).prop_map(Narrowing::RequireTool),
        (0_u8..24, any::<u8>()).prop_map(|(index, value)| Narrowing::AddPcr(index, value)),
        "[a-z]{1,8}".prop_map(Narrowing::AddTool),
        any::<[u8; 32]>().prop_map(Narrowing::DenyDigest),
        Just(Narrowing::DenySeen),
        Just(Narrowing::Close),
        Just(Narrowing::SafeClock),
        Just(Narrowing::Manufacturer),
        any::<u64>().prop_map(Narrowing::Floor),
    ];
    proptest::collection::vec(one, 1..4)
}

/// Applies a narrowing to the document; each leaves at least what it needs to parse.
fn narrow(document: &mut GoldenDocument, narrowing: &Narrowing) {
    use appraisal::policy::document::{AcceptedTool, AcceptedValue, PcrRule, ToolRule};
    let accepted = |digest: Digest| AcceptedTool {
        digest,
        version: None,
        purl: None,
        from: None,
        files: Default::default(),
    };
    match narrowing {
        Narrowing::DropAcceptedPcr(at) => {
            let values = &mut document.pcr[*at].accept;
            if values.len() > 1 {
                values.pop();
            }
        }
        Narrowing::DropAcceptedTool(at) => {
            let values = &mut document.tool[*at].accept;
            if values.len() > 1 {
                values.pop();
            }
        }
        Narrowing::RequireTool(at) => document.tool[*at].required = true,
        Narrowing::AddPcr(index, byte) => document.pcr.push(PcrRule {
            bank: HashAlg::Sha256,
            index: *index,
            accept: vec![AcceptedValue {
                value: hex::encode([*byte; 32]),
                ..AcceptedValue::default()
            }],
        }),
        Narrowing::AddTool(name) => document.tool.push(ToolRule {
            name: name.clone(),
            required: true,
            accept: vec![accepted(sha256(name.as_bytes()))],
        }),
        Narrowing::DenyDigest(bytes) => {
            document.tools.deny.push(Digest::new(HashAlg::Sha256, bytes).expect("32 bytes"));
        }
        Narrowing::DenySeen => document.tools.deny.push(cc().digest()),
        Narrowing::Close => document.tools.closed = true,
        Narrowing::SafeClock => document.tpm.require_safe_clock = true,
        Narrowing::Manufacturer => document.tpm.manufacturers.push("id:00000000".into()),
        Narrowing::Floor(floor) => {
            document.tpm.firmware_floor.entry("*".into()).or_insert(format!("{floor:016x}"));
        }
    }
}

/// A golden set with slack to narrow: values that the worker has not, tools that are optional.
fn wide(site: &Site, honest: bool) -> GoldenDocument {
    let text = site.golden_text(&[(HashAlg::Sha256, set(&PCRS))]);
    let mut document: GoldenDocument = toml::from_str(&text).expect("TOML");
    for pcr in &mut document.pcr {
        let mut other = pcr.accept[0].clone();
        other.value = "11".repeat(32);
        if honest {
            pcr.accept.push(other);
        } else {
            pcr.accept.insert(0, other);
            pcr.accept.truncate(1);
        }
    }
    for tool in &mut document.tool {
        tool.required = false;
        let mut other = tool.accept[0].clone();
        other.digest = sha256(b"other");
        tool.accept.insert(0, other);
    }
    document
}

fn reference(document: &GoldenDocument) -> Option<ReferenceValues> {
    ReferenceValues::parse(&toml::to_string(document).expect("TOML"), tool_pcr(), &Manifests::new())
        .ok()
}

fn verdict(reference: &ReferenceValues) -> Vec<appraisal::verdict::Finding> {
    let accepted = &*ACCEPTED;
    let mut context = accepted.site.context();
    context.in_force.reference = Some(reference);
    let message = pb::Evidence::decode(accepted.enrolment.0.as_slice()).expect("protobuf");
    let mut evidence = Evidence::try_from(message).expect("well-formed");
    let kind = proto::evidence::LogKind::Tools;
    let bytes = accepted.enrolment.1.clone();
    evidence.logs = vec![proto::evidence::LogSuffix { kind, from_bytes: 0, bytes }];
    match appraisal::appraise(&evidence, accepted.site.activating(), &context).verdict {
        Verdict::Admit(_) => Vec::new(),
        Verdict::Deny(denial) => denial.findings().cloned().collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_stricter_policy_never_turns_a_denial_into_an_admission(
        narrowings in narrowings(),
        honest in any::<bool>(),
    ) {
        let mut document = wide(&ACCEPTED.site, honest);
        let before = verdict(&reference(&document).expect("sound"));
        prop_assert_eq!(before.is_empty(), honest);
        for narrowing in &narrowings {
            narrow(&mut document, narrowing);
        }
        // A narrowing that contradicts the set does not parse, and is then not in force at all.
        if let Some(stricter) = reference(&document) {
            let after = verdict(&stricter);
            prop_assert!(before.is_empty() || !after.is_empty());
            let codes = |findings: &[appraisal::verdict::Finding]| {
                findings.iter().map(|f| (f.code, f.subject.clone())).collect::<Vec<_>>()
            };
            for known in codes(&before) {
                prop_assert!(codes(&after).contains(&known), "{known:?} went away: {after:?}");
            }
        }
    }

    #[test]
    fn a_golden_set_written_is_the_set_read(narrowings in narrowings()) {
        let mut document = wide(&ACCEPTED.site, true);
        for narrowing in &narrowings {
            narrow(&mut document, narrowing);
        }
        let text = toml::to_string(&document).expect("TOML");
        let read: GoldenDocument = toml::from_str(&text).expect("reads back");
        prop_assert_eq!(read, document);
    }

    #[test]
    fn a_flipped_pair_of_bits_denies_or_changes_nothing(
        first in 0_usize..20_000,
        second in 0_usize..20_000,
    ) {
        let accepted = &*ACCEPTED;
        let (message, log) = &accepted.renewal;
        let bits = (message.len() + log.len()) * 8;
        let mut all = [message.as_slice(), log.as_slice()].concat();
        flip(&mut all, first % bits);
        flip(&mut all, second % bits);
        let (message, log) = all.split_at(message.len());
        if let Some(found) = accepted.admits(true, message, log.to_vec()) {
            prop_assert_eq!(&found, &accepted.renewed);
        }
    }
}

#[test]
fn a_boot_comes_back_from_its_document() {
    let accepted = &*ACCEPTED;
    let document = accepted.boot.document();
    let json = serde_json::to_vec(&document).expect("JSON");
    let read: BootDocument = serde_json::from_slice(&json).expect("reads back");
    assert_eq!(read, document);
    let boot = Boot::assert_from_store(read).expect("a boot");
    assert_eq!(boot.document(), document);
    // It stands for the boot in a renewal.
    let answer = accepted.site.renewal(&boot);
    let renewed = accepted.site.judge(&evidence(&answer), Signer::Known(boot));
    assert_eq!(admitted(renewed).claims.document(), accepted.renewed);
}

#[test]
fn claims_come_back_from_their_document() {
    for claims in [&ACCEPTED.enrolled, &ACCEPTED.renewed] {
        let json = serde_json::to_string(claims).expect("JSON");
        let read: ClaimsDocument = serde_json::from_str(&json).expect("reads back");
        assert_eq!(read, *claims);
        assert_eq!(serde_json::to_string(&read).expect("JSON"), json, "deterministic");
    }
}

/// A record whose keys would be refused today, or that is damaged, is not believed.
#[test]
fn a_damaged_boot_record_is_refused() {
    use appraisal::boot::BootRecordError;
    let honest = ACCEPTED.boot.document();
    let with = |change: &dyn Fn(&mut BootDocument)| {
        let mut document = honest.clone();
        change(&mut document);
        Boot::assert_from_store(document)
    };
    for text in ["", "zz", "00"] {
        let damaged = with(&|d| d.ak_public = text.to_owned()).expect_err("refused");
        assert_eq!(damaged, BootRecordError::Damaged);
        let damaged = with(&|d| d.node_key = text.to_owned()).expect_err("refused");
        assert_eq!(damaged, BootRecordError::Damaged);
    }
    let swapped = with(&|d| std::mem::swap(&mut d.ak_public, &mut d.node_key));
    let Err(BootRecordError::Refused(denial)) = swapped else { panic!("{swapped:?}") };
    assert_code(&denial, proto::reason::ReasonCode::AkNotRestricted);
}

#[test]
fn a_record_is_current_while_its_endorsements_are() {
    let boot = &ACCEPTED.boot;
    assert!(boot.is_current(&sha256(b"none"), NOW));
    assert!(!boot.is_current(&sha256(b"other"), NOW));
    let document = BootDocument { ek_valid_until_unix_s: Some(NOW), ..boot.document() };
    let certified = Boot::assert_from_store(document).expect("a boot");
    assert!(certified.is_current(&sha256(b"none"), NOW));
    assert!(!certified.is_current(&sha256(b"none"), NOW + 1));
}
