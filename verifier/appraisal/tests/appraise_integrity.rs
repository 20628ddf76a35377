//! Every integrity refusal: an honest case with one thing changed, and exactly its code.

mod site;

use appraisal::{
    ak::RestrictedAk,
    boot::Counters,
    context::{Signer, Standing},
    verdict::{Denial, Verdict},
};
use proto::{
    digest::{HashAlg, PcrSelection},
    evidence::Evidence,
    pb,
    reason::ReasonCode,
    tpm::{credential::sized, public::ObjectAttributes},
};
use site::*;
use soft_tpm::{Algorithm, Answer, Body, EkKind, PublicTemplate, SigningKey, attest};

const BANKS: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha384];

#[test]
fn every_scheme_and_bank_is_admitted() {
    let one = |alg| vec![(alg, set(&PCRS))];
    let mixed = vec![(HashAlg::Sha256, set(&[0, 4])), (HashAlg::Sha384, set(&[0, 7, 11]))];
    for algorithm in Algorithm::ALL {
        for banks in [one(BANKS[0]), one(BANKS[1]), mixed.clone()] {
            let site = Site::with(EkKind::P256, algorithm, &banks);
            let proven = site.enrol();
            assert_eq!(proven.claims.pcrs().len(), site.issued.selection.iter().count());
            // And renews, without node key and log.
            let answer = site.renewal(&proven.boot);
            assert!(answer.node_key.is_none() && answer.log[0].bytes.is_empty());
            let renewed = site.judge(&evidence(&answer), Signer::Known(proven.boot.clone()));
            assert_eq!(admitted(renewed).claims.document(), proven.claims.document());
        }
    }
}

#[test]
fn every_kind_of_ek_is_admitted() {
    for kind in EkKind::ALL {
        Site::with(kind, Algorithm::EcdsaP256, &[(HashAlg::Sha256, set(&PCRS))]).enrol();
    }
}

#[test]
fn a_tpm_may_sign_the_banks_in_any_order() {
    let mixed = [(HashAlg::Sha256, set(&[0, 4])), (HashAlg::Sha384, set(&[0, 7, 11]))];
    let site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &mixed);
    let mut answer = site.answer();
    let mut banks = site.issued.selection.banks().to_vec();
    banks.reverse();
    answer.quote.body = site.tpm.quote_body(&banks);
    let proven = admitted(site.judge(&evidence(&answer), site.activating()));
    assert_eq!(proven.claims.document(), site.enrol().claims.document());
    // Signed in one order and hashed in the other.
    let forward = site.tpm.quote_body(site.issued.selection.banks());
    let (Body::Quote { digest, .. }, Body::Quote { selection, .. }) =
        (forward, answer.quote.body.clone())
    else {
        unreachable!("both are quotes")
    };
    let denial = site.deny(|answer| answer.quote.body = Body::Quote { selection, digest });
    assert_code(&denial, ReasonCode::PcrDigestMismatch);
}

#[test]
fn a_tpm_may_add_an_empty_bank_and_more_pcrs() {
    let site = Site::new();
    let mut answer = site.answer();
    let Body::Quote { selection, .. } = &mut answer.quote.body else { unreachable!("a quote") };
    selection.push((0x0004, vec![0, 0, 0]));
    let proven = admitted(site.judge(&evidence(&answer), site.activating()));
    assert_eq!(proven.claims.document(), site.enrol().claims.document());
    let mut wider = set(&PCRS);
    wider.insert(index(14));
    wider.insert(index(12));
    let banks = [(HashAlg::Sha256, wider)];
    let mut answer = site.answer();
    answer.quote.body = site.tpm.quote_body(&banks);
    answer.pcr_values = site.tpm.pcr_values(&PcrSelection::new(banks));
    let proven = admitted(site.judge(&evidence(&answer), site.activating()));
    assert!(proven.claims.pcr(HashAlg::Sha256, index(12)).is_some());
}

#[test]
fn every_attribute_of_an_ak_counts() {
    type A = ObjectAttributes;
    let required = [
        (A::RESTRICTED, ReasonCode::AkNotRestricted),
        (A::SIGN, ReasonCode::AkNotRestricted),
        (A::FIXED_TPM, ReasonCode::AkAttributesInvalid),
        (A::FIXED_PARENT, ReasonCode::AkAttributesInvalid),
        (A::SENSITIVE_DATA_ORIGIN, ReasonCode::AkAttributesInvalid),
    ];
    let key = SigningKey::generate(Algorithm::EcdsaP256);
    let honest = PublicTemplate::ak(&key);
    let judge = |attributes: u32| {
        RestrictedAk::verify(&PublicTemplate { attributes, ..honest.clone() }.public())
    };
    for (bit, code) in required {
        assert_code(&judge(honest.attributes & !bit).expect_err("refused"), code);
    }
    let decrypting = judge(honest.attributes | A::DECRYPT).expect_err("refused");
    assert_code(&decrypting, ReasonCode::AkAttributesInvalid);
    for free in [A::ST_CLEAR, A::USER_WITH_AUTH, A::ADMIN_WITH_POLICY, A::NO_DA] {
        judge(honest.attributes ^ free).expect("an attribute that says nothing about quotes");
    }
}

#[test]
fn an_ak_has_one_strong_scheme() {
    let p256 = PublicTemplate::ak(&SigningKey::generate(Algorithm::EcdsaP256));
    let p384 = PublicTemplate::ak(&SigningKey::generate(Algorithm::EcdsaP384));
    let rsa = PublicTemplate::ak(&SigningKey::generate(Algorithm::RsaSsa(2048, HashAlg::Sha256)));
    let refused = |template: PublicTemplate, code: ReasonCode| {
        let denial = RestrictedAk::verify(&template.public()).expect_err("refused");
        assert_code(&denial, code);
    };
    let with = |template: &PublicTemplate, scheme| PublicTemplate { scheme, ..template.clone() };
    for template in [&p256, &p384, &rsa] {
        refused(with(template, (0x0010, None)), ReasonCode::AkSchemeInvalid);
        refused(with(template, (0x0014, Some(0x000d))), ReasonCode::AkAlgorithmNotAllowed);
    }
    // A key of one type with the other's scheme, and curves with the other's hash.
    refused(with(&rsa, (0x0018, Some(0x000b))), ReasonCode::AkAlgorithmNotAllowed);
    refused(with(&p256, (0x0014, Some(0x000b))), ReasonCode::AkAlgorithmNotAllowed);
    refused(with(&p256, (0x0018, Some(0x000c))), ReasonCode::AkAlgorithmNotAllowed);
    refused(with(&p384, (0x0018, Some(0x000b))), ReasonCode::AkAlgorithmNotAllowed);
    refused(with(&rsa, (0x0015, None)), ReasonCode::AkSchemeInvalid);
}

#[test]
fn a_weak_ak_is_refused() {
    use soft_tpm::public::Parameters;
    let rsa = PublicTemplate::ak(&SigningKey::generate(Algorithm::RsaPss(2048, HashAlg::Sha256)));
    let refused = |change: &dyn Fn(&mut PublicTemplate), code: ReasonCode| {
        let mut template = rsa.clone();
        change(&mut template);
        assert_code(&RestrictedAk::verify(&template.public()).expect_err("refused"), code);
    };
    let parameters =
        |key_bits, exponent| move |t: &mut PublicTemplate| {
            t.parameters = Parameters::Rsa { key_bits, exponent };
        };
    let weak = ReasonCode::AkKeyWeak;
    refused(&parameters(2048, 3), weak);
    refused(&parameters(2048, 1), weak);
    refused(&parameters(3072, 0), weak);
    refused(&parameters(1024, 0), ReasonCode::AkAlgorithmNotAllowed);
    refused(&parameters(8192, 0), ReasonCode::AkAlgorithmNotAllowed);
    refused(&|t| t.unique[0][255] &= 0xfe, weak);
    refused(&|t| t.unique[0][0] &= 0x7f, weak);
    refused(&|t| t.unique[0].truncate(255), weak);
    refused(&|t| t.unique[0].clear(), weak);
    parameters(2048, 65_537)(&mut rsa.clone());
    let p256 = PublicTemplate::ak(&SigningKey::generate(Algorithm::EcdsaP256));
    for change in [
        (|t: &mut PublicTemplate| t.unique[1][31] ^= 1) as fn(&mut PublicTemplate),
        |t| t.unique[0].fill(0),
        |t| t.unique = vec![vec![0; 32], vec![0; 32]],
        |t| t.unique = vec![Vec::new(), Vec::new()],
        |t| t.unique[0].fill(0xff),
    ] {
        let mut template = p256.clone();
        change(&mut template);
        assert_code(&RestrictedAk::verify(&template.public()).expect_err("refused"), weak);
    }
}

/// A TPM may strip leading zeros of coordinates and of r and s.
#[test]
fn stripped_leading_zeros_are_the_same_numbers() {
    let key = std::iter::repeat_with(|| SigningKey::generate(Algorithm::EcdsaP256))
        .find(|key| key.unique()[0][0] == 0)
        .expect("one key in 256");
    let mut template = PublicTemplate::ak(&key);
    template.unique[0].remove(0);
    let mut site = Site::new();
    site.tpm.ak = key.clone();
    site.tpm.set_ak(template.public());
    let attest = site.answer().quote.encode();
    let signature = std::iter::repeat_with(|| key.raw_signature(&attest))
        .find(|parts| parts[0][0] == 0)
        .expect("one signature in 256");
    let mut message = site.answer().sign();
    let stripped: Vec<u8> = [
        &[0, 0x18, 0, 0x0b][..],
        &sized(&signature[0][1..]),
        &sized(&signature[1]),
    ]
    .concat();
    message.quote = Some(pb::SignedAttest { attest, signature: stripped });
    let mut evidence = Evidence::try_from(message).expect("well-formed");
    evidence.logs = site.answer().log;
    admitted(site.judge(&evidence, site.activating()));
}

#[test]
fn activation_answers_with_the_secret() {
    let site = Site::new();
    let wrong = site.deny(|answer| answer.secret[31] ^= 1);
    assert_code(&wrong, ReasonCode::AkActivationFailed);
    let absent = site.deny(|answer| answer.secret.clear());
    assert_code(&absent, ReasonCode::AkActivationFailed);
}

#[test]
fn the_inventory_decides_before_the_quote_is_read() {
    let broken = |answer: &mut Answer| answer.quote.magic = 0;
    let mut site = Site::new();
    site.node.ek_digest = sha256(b"another EK");
    assert_code(&site.deny(broken), ReasonCode::NodeEkMismatch);
    let mut site = Site::new();
    site.node.standing = Standing::Revoked;
    assert_code(&site.deny(broken), ReasonCode::NodeRevoked);
}

#[test]
fn an_answer_after_the_deadline_is_no_answer() {
    let mut site = Site::new();
    site.now = site.issued.expires_unix_s;
    site.enrol();
    site.now += 1;
    assert_code(&site.deny(|_| ()), ReasonCode::ChallengeExpired);
}

type Fault = (&'static str, fn(&mut Answer), ReasonCode);

fn quote_body(answer: &mut Answer) -> (&mut Vec<(u16, Vec<u8>)>, &mut Vec<u8>) {
    match &mut answer.quote.body {
        Body::Quote { selection, digest } => (selection, digest),
        other => panic!("{other:?}"),
    }
}

/// Faults that the AK signs: what an attacker with a stolen AK, or a lying TPM, can say.
const QUOTE_FAULTS: &[Fault] = &[
    ("magic", |a| a.quote.magic ^= 1, ReasonCode::QuoteNotTpmGenerated),
    ("magic zero", |a| a.quote.magic = 0, ReasonCode::QuoteNotTpmGenerated),
    ("certify", |a| a.quote.kind = 0x8017, ReasonCode::EvidenceTruncated),
    (
        "a certification where the quote belongs",
        |a| a.quote = a.node_key.clone().expect("new boot").2,
        ReasonCode::QuoteWrongType,
    ),
    ("time attestation", |a| a.quote.kind = 0x8019, ReasonCode::QuoteWrongType),
    ("unknown type", |a| a.quote.kind = 0xffff, ReasonCode::QuoteWrongType),
    (
        "qualifiedSigner",
        |a| a.quote.qualified_signer[33] ^= 1,
        ReasonCode::QuoteQualifiedSignerMismatch,
    ),
    (
        "no qualifiedSigner",
        |a| a.quote.qualified_signer.clear(),
        ReasonCode::QuoteQualifiedSignerMismatch,
    ),
    (
        "qualifiedSigner cut",
        |a| a.quote.qualified_signer.truncate(33),
        ReasonCode::QuoteQualifiedSignerMismatch,
    ),
    (
        "qualifiedSigner too long",
        |a| a.quote.qualified_signer = vec![0; 67],
        ReasonCode::EvidenceLimitExceeded,
    ),
    ("extraData", |a| a.quote.extra_data[0] ^= 1, ReasonCode::QuoteQualifyingDataMismatch),
    ("extraData cut", |a| a.quote.extra_data.truncate(31), ReasonCode::QuoteQualifyingDataMismatch),
    ("extraData longer", |a| a.quote.extra_data.push(0), ReasonCode::QuoteQualifyingDataMismatch),
    ("no extraData", |a| a.quote.extra_data.clear(), ReasonCode::QuoteQualifyingDataMismatch),
    (
        "the certification's extraData",
        |a| a.quote.extra_data = a.node_key.clone().expect("new boot").2.extra_data,
        ReasonCode::QuoteQualifyingDataMismatch,
    ),
    ("safe 2", |a| a.quote.safe = 2, ReasonCode::EvidenceStructureInvalid),
    ("trailing", |a| a.quote.trailing.push(0), ReasonCode::EvidenceTrailingBytes),
    (
        "truncated",
        |a| a.quote.body = Body::Raw(vec![0, 0]),
        ReasonCode::EvidenceTruncated,
    ),
    ("no banks", |a| quote_body(a).0.clear(), ReasonCode::PcrSelectionEmpty),
    ("no PCRs", |a| quote_body(a).0[0].1.fill(0), ReasonCode::PcrSelectionEmpty),
    ("a PCR less", |a| quote_body(a).0[0].1[0] &= 0xfe, ReasonCode::PcrSelectionIncomplete),
    ("another bank", |a| quote_body(a).0[0].0 = 0x000d, ReasonCode::PcrSelectionIncomplete),
    ("a SHA-1 bank", |a| quote_body(a).0[0].0 = 0x0004, ReasonCode::PcrSelectionInvalid),
    (
        "a SHA-1 bank besides",
        |a| quote_body(a).0.push((4, vec![1, 0, 0])),
        ReasonCode::PcrSelectionInvalid,
    ),
    ("a bank twice", |a| {
        let first = quote_body(a).0[0].clone();
        quote_body(a).0.push(first);
    }, ReasonCode::PcrSelectionInvalid),
    ("sizeofSelect 2", |a| quote_body(a).0[0].1.truncate(2), ReasonCode::PcrSelectionInvalid),
    ("sizeofSelect 4", |a| quote_body(a).0[0].1.push(0), ReasonCode::PcrSelectionInvalid),
    ("five banks", |a| {
        for alg in [0x000c, 0x000d, 0x0012, 0x0027] {
            quote_body(a).0.push((alg, vec![0, 0, 0]));
        }
    }, ReasonCode::EvidenceLimitExceeded),
    ("one PCR more than presented", |a| quote_body(a).0[0].1[2] |= 1, ReasonCode::PcrValuesInvalid),
    ("pcrDigest", |a| quote_body(a).1[0] ^= 1, ReasonCode::PcrDigestMismatch),
    ("pcrDigest cut", |a| quote_body(a).1.truncate(20), ReasonCode::PcrDigestMismatch),
    ("no pcrDigest", |a| quote_body(a).1.clear(), ReasonCode::PcrDigestMismatch),
    ("pcrDigest too long", |a| *quote_body(a).1 = vec![0; 65], ReasonCode::EvidenceLimitExceeded),
    ("a value", |a| a.pcr_values[3].digest[0] ^= 1, ReasonCode::PcrDigestMismatch),
    ("a value less", |a| drop(a.pcr_values.pop()), ReasonCode::PcrValuesInvalid),
    ("no values", |a| a.pcr_values.clear(), ReasonCode::PcrValuesInvalid),
    ("another PCR's value", |a| a.pcr_values[9].index = 23, ReasonCode::PcrValuesInvalid),
    ("a value more", |a| {
        let mut value = a.pcr_values[0].clone();
        value.index = 23;
        a.pcr_values.push(value);
    }, ReasonCode::PcrValuesInvalid),
];

#[test]
fn every_fault_in_a_quote_has_its_code() {
    let site = Site::new();
    for (what, fault, code) in QUOTE_FAULTS {
        println!("{what}");
        assert_code(&site.deny(fault), *code);
    }
}
