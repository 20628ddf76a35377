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
    let parameters = |key_bits, exponent| {
        move |t: &mut PublicTemplate| {
            t.parameters = Parameters::Rsa { key_bits, exponent };
        }
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
    let stripped: Vec<u8> =
        [&[0, 0x18, 0, 0x0b][..], &sized(&signature[0][1..]), &sized(&signature[1])].concat();
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
    ("certify", |a| a.quote.kind = 0x8017, ReasonCode::EvidenceTrailingBytes),
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
    ("truncated", |a| a.quote.body = Body::Raw(vec![0, 0]), ReasonCode::EvidenceTruncated),
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
    (
        "a bank twice",
        |a| {
            let first = quote_body(a).0[0].clone();
            quote_body(a).0.push(first);
        },
        ReasonCode::PcrSelectionInvalid,
    ),
    ("sizeofSelect 2", |a| quote_body(a).0[0].1.truncate(2), ReasonCode::PcrSelectionInvalid),
    ("sizeofSelect 4", |a| quote_body(a).0[0].1.push(0), ReasonCode::PcrSelectionInvalid),
    (
        "five banks",
        |a| {
            for alg in [0x000c, 0x000d, 0x0012, 0x0027] {
                quote_body(a).0.push((alg, vec![0, 0, 0]));
            }
        },
        ReasonCode::EvidenceLimitExceeded,
    ),
    ("one PCR more than presented", |a| quote_body(a).0[0].1[2] |= 1, ReasonCode::PcrValuesInvalid),
    ("pcrDigest", |a| quote_body(a).1[0] ^= 1, ReasonCode::PcrDigestMismatch),
    ("pcrDigest cut", |a| quote_body(a).1.truncate(20), ReasonCode::PcrDigestMismatch),
    ("no pcrDigest", |a| quote_body(a).1.clear(), ReasonCode::PcrDigestMismatch),
    ("pcrDigest too long", |a| *quote_body(a).1 = vec![0; 65], ReasonCode::EvidenceLimitExceeded),
    ("a value", |a| a.pcr_values[3].digest[0] ^= 1, ReasonCode::PcrDigestMismatch),
    ("a value less", |a| drop(a.pcr_values.pop()), ReasonCode::PcrValuesInvalid),
    ("no values", |a| a.pcr_values.clear(), ReasonCode::PcrValuesInvalid),
    ("another PCR's value", |a| a.pcr_values[9].index = 23, ReasonCode::PcrValuesInvalid),
    (
        "a value more",
        |a| {
            let mut value = a.pcr_values[0].clone();
            value.index = 23;
            a.pcr_values.push(value);
        },
        ReasonCode::PcrValuesInvalid,
    ),
];

#[test]
fn every_fault_in_a_quote_has_its_code() {
    let site = Site::new();
    for (what, fault, code) in QUOTE_FAULTS {
        println!("{what}");
        assert_code(&site.deny(fault), *code);
    }
}

#[test]
fn only_the_ak_signs_with_its_scheme() {
    let rsa = Algorithm::RsaSsa(2048, HashAlg::Sha256);
    let site = Site::with(EkKind::P256, rsa, &[(HashAlg::Sha256, set(&PCRS))]);
    let mismatch = ReasonCode::QuoteSignatureSchemeMismatch;
    for other in [
        Algorithm::RsaPss(2048, HashAlg::Sha256),
        Algorithm::RsaSsa(2048, HashAlg::Sha384),
        Algorithm::RsaPss(2048, HashAlg::Sha384),
    ] {
        let denial = site.deny(|answer| answer.quote_key = site.tpm.ak.with(other));
        assert_code(&denial, mismatch);
    }
    let denial = site.deny(|answer| answer.quote_key = SigningKey::generate(Algorithm::EcdsaP256));
    assert_code(&denial, mismatch);
    let denial = site.deny(|answer| {
        answer.quote_key = SigningKey::generate(Algorithm::RsaSsa(3072, HashAlg::Sha256));
    });
    assert_code(&denial, ReasonCode::QuoteSignatureInvalid);
    let site = Site::new();
    let denial = site.deny(|answer| answer.quote_key = SigningKey::generate(Algorithm::EcdsaP256));
    assert_code(&denial, ReasonCode::QuoteSignatureInvalid);
}

/// Signatures whose value, not scheme, is wrong.
#[test]
fn a_signature_has_its_size_and_value() {
    let site = Site::new();
    let honest = site.answer();
    let attest = honest.quote.encode();
    let [r, s] = <[Vec<u8>; 2]>::try_from(site.tpm.ak.raw_signature(&attest)).expect("r and s");
    let zero = vec![0; 32];
    let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
        .expect("hexadecimal");
    let padded = [&[0], r.as_slice()].concat();
    let judge = |r: &[u8], s: &[u8]| {
        let signature = [&[0, 0x18, 0, 0x0b][..], &sized(r), &sized(s)].concat();
        let mut message = honest.sign();
        message.quote = Some(pb::SignedAttest { attest: attest.clone(), signature });
        let mut evidence = Evidence::try_from(message).expect("well-formed");
        evidence.logs.clone_from(&honest.log);
        site.judge(&evidence, site.activating())
    };
    assert!(matches!(judge(&r, &s).verdict, Verdict::Admit(_)));
    for (r, s) in [(&s, &r), (&r, &zero), (&zero, &s), (&zero, &zero), (&r, &order), (&order, &s)] {
        assert_code(&denied(judge(r, s)), ReasonCode::QuoteSignatureInvalid);
    }
    // A number longer than the field is another encoding, which no TPM makes.
    assert_code(&denied(judge(&padded, &s)), ReasonCode::QuoteSignatureInvalid);
    assert_code(&denied(judge(&[], &[])), ReasonCode::QuoteSignatureInvalid);
}

#[test]
fn an_rsa_signature_has_the_modulus_size() {
    let rsa = Algorithm::RsaSsa(2048, HashAlg::Sha256);
    let site = Site::with(EkKind::P256, rsa, &[(HashAlg::Sha256, set(&PCRS))]);
    let honest = site.answer();
    let mut evidence = evidence(&honest);
    let proto::tpm::signature::SignatureValue::Rsa(value) = &mut evidence.quote.signature.value
    else {
        unreachable!("an RSA key")
    };
    value.insert(0, 0);
    let denial = denied(site.judge(&evidence, site.activating()));
    assert_code(&denial, ReasonCode::QuoteSignatureInvalid);
}

fn certify(answer: &mut Answer) -> &mut soft_tpm::AttestTemplate {
    &mut answer.node_key.as_mut().expect("new boot").2
}

fn certify_body(answer: &mut Answer) -> (&mut Vec<u8>, &mut Vec<u8>) {
    match &mut certify(answer).body {
        Body::Certify { name, qualified_name } => (name, qualified_name),
        other => panic!("{other:?}"),
    }
}

const CERTIFY_FAULTS: &[Fault] = &[
    ("no node key", |a| a.node_key = None, ReasonCode::EvidenceFieldMissing),
    (
        "signed by another key",
        |a| a.certify_key = SigningKey::generate(Algorithm::EcdsaP256),
        ReasonCode::NodeKeyCertifySignatureInvalid,
    ),
    (
        "another scheme",
        |a| a.certify_key = SigningKey::generate(Algorithm::EcdsaP384),
        ReasonCode::NodeKeyCertifySignatureInvalid,
    ),
    ("magic", |a| certify(a).magic = 0, ReasonCode::NodeKeyCertifyWrongType),
    (
        "a quote where the certification belongs",
        |a| *certify(a) = a.quote.clone(),
        ReasonCode::NodeKeyCertifyWrongType,
    ),
    ("creation attestation", |a| certify(a).kind = 0x801a, ReasonCode::NodeKeyCertifyWrongType),
    (
        "qualifiedSigner",
        |a| certify(a).qualified_signer[5] ^= 1,
        ReasonCode::NodeKeyCertifySignatureInvalid,
    ),
    ("name", |a| certify_body(a).0[33] ^= 1, ReasonCode::NodeKeyNameMismatch),
    ("no name", |a| certify_body(a).0.clear(), ReasonCode::NodeKeyNameMismatch),
    ("qualifiedName", |a| certify_body(a).1[33] ^= 1, ReasonCode::NodeKeyHierarchyInvalid),
    ("no qualifiedName", |a| certify_body(a).1.clear(), ReasonCode::NodeKeyHierarchyInvalid),
    ("extraData", |a| certify(a).extra_data[0] ^= 1, ReasonCode::NodeKeyQualifyingDataMismatch),
    ("no extraData", |a| certify(a).extra_data.clear(), ReasonCode::NodeKeyQualifyingDataMismatch),
    (
        "the quote's extraData",
        |a| certify(a).extra_data = a.quote.extra_data.clone(),
        ReasonCode::NodeKeyQualifyingDataMismatch,
    ),
    ("resetCount", |a| certify(a).reset_count += 1, ReasonCode::NodeKeyCountersMismatch),
    ("restartCount", |a| certify(a).restart_count += 1, ReasonCode::NodeKeyCountersMismatch),
    ("trailing", |a| certify(a).trailing.push(0), ReasonCode::EvidenceTrailingBytes),
    ("safe 2", |a| certify(a).safe = 2, ReasonCode::EvidenceStructureInvalid),
];

#[test]
fn every_fault_in_a_certification_has_its_code() {
    let site = Site::new();
    for (what, fault, code) in CERTIFY_FAULTS {
        println!("{what}");
        assert_code(&site.deny(fault), *code);
    }
}

/// The node key's public area is bound by the quote, so that these forge it before anything is signed.
#[test]
fn every_attribute_of_a_node_key_counts() {
    type A = ObjectAttributes;
    let refused = |change: &dyn Fn(&mut PublicTemplate), code: ReasonCode| {
        let mut site = Site::new();
        change(&mut site.tpm.node_key);
        assert_code(&site.deny(|_| ()), code);
    };
    let attributes = ReasonCode::NodeKeyAttributesInvalid;
    for bit in [A::FIXED_TPM, A::FIXED_PARENT, A::SENSITIVE_DATA_ORIGIN, A::SIGN] {
        refused(&|key| key.attributes &= !bit, attributes);
    }
    for bit in [A::RESTRICTED, A::DECRYPT, A::ADMIN_WITH_POLICY] {
        refused(&|key| key.attributes |= bit, attributes);
    }
    let unsupported = ReasonCode::NodeKeyUnsupported;
    refused(&|key| key.scheme = (0x0018, Some(0x000c)), unsupported);
    refused(&|key| key.scheme = (0x0014, Some(0x000b)), unsupported);
    refused(&|key| key.unique[1][31] ^= 1, unsupported);
    let p384 = PublicTemplate::node_key(&SigningKey::generate(Algorithm::EcdsaP384));
    refused(&|key| *key = p384.clone(), unsupported);
    let rsa = SigningKey::generate(Algorithm::RsaSsa(2048, HashAlg::Sha256));
    let rsa = PublicTemplate::node_key(&rsa);
    refused(&|key| *key = rsa.clone(), unsupported);
    for accepted in [
        (|key: &mut PublicTemplate| key.scheme = (0x0018, Some(0x000b))) as fn(&mut PublicTemplate),
        |key| key.name_alg = 0x000c,
        |key| key.auth_policy = vec![1; 32],
    ] {
        let mut site = Site::new();
        accepted(&mut site.tpm.node_key);
        site.enrol();
    }
}

#[test]
fn a_node_key_under_another_hierarchy_is_refused() {
    use proto::tpm::{constants::RH_ENDORSEMENT, name::Name};
    let site = Site::new();
    let parent = Name::of(HashAlg::Sha256, &site.tpm.parent.encode());
    let key = Name::of(HashAlg::Sha256, &site.tpm.node_key.encode());
    for hierarchy in [RH_ENDORSEMENT, 0x4000_0001, 0x4000_000c] {
        let above = Name::qualified_primary(hierarchy, HashAlg::Sha256, &parent);
        let qualified = Name::qualified_child(&above, HashAlg::Sha256, &key);
        let denial = site.deny(|answer| *certify_body(answer).1 = qualified.as_bytes().to_vec());
        assert_code(&denial, ReasonCode::NodeKeyHierarchyInvalid);
    }
    // The key as a primary of its own.
    let primary = Name::qualified_primary(0x4000_0007, HashAlg::Sha256, &key);
    let denial = site.deny(|answer| *certify_body(answer).1 = primary.as_bytes().to_vec());
    assert_code(&denial, ReasonCode::NodeKeyHierarchyInvalid);
}

/// Another node key than the one that quote and certification name.
#[test]
fn a_swapped_node_key_breaks_the_quote() {
    let site = Site::new();
    let other = PublicTemplate::node_key(&SigningKey::generate(Algorithm::EcdsaP256));
    let denial = site.deny(|answer| answer.node_key.as_mut().expect("new boot").0 = other.encode());
    assert_code(&denial, ReasonCode::QuoteQualifyingDataMismatch);
}

/// A renewal cannot change the key: the quote is bound to the recorded one.
#[test]
fn a_renewal_keeps_its_node_key() {
    let mut site = Site::new();
    let boot = site.enrol().boot;
    site.tpm.node_key = PublicTemplate::node_key(&SigningKey::generate(Algorithm::EcdsaP256));
    let denial = site.deny_renewal(&boot, |_| ());
    assert_code(&denial, ReasonCode::QuoteQualifyingDataMismatch);
}

#[test]
fn a_boot_ends_with_its_counters() {
    let mut site = Site::new();
    let boot = site.enrol().boot;
    let regressed = ReasonCode::QuoteResetCountRegressed;
    for (what, change, code) in [
        (
            "reset",
            (|a: &mut Answer| a.quote.reset_count += 1) as fn(&mut Answer),
            ReasonCode::QuoteBootChanged,
        ),
        ("resume", |a| a.quote.restart_count += 1, ReasonCode::QuoteBootChanged),
        ("back", |a| a.quote.reset_count -= 1, regressed),
        ("back within", |a| a.quote.restart_count -= 1, regressed),
        ("firmware", |a| a.quote.firmware_version += 1, ReasonCode::QuoteFirmwareChanged),
    ] {
        println!("{what}");
        assert_code(&site.deny_renewal(&boot, change), code);
    }
    // A new boot, below what the inventory has seen.
    let seen = Counters { reset_count: site.tpm.reset_count, restart_count: 3 };
    site.node.highest_counters = Some(seen);
    assert_code(&site.deny(|_| ()), regressed);
    assert_code(&site.deny_renewal(&boot, |_| ()), regressed);
    site.tpm.reset();
    for tool in [cc(), ld()] {
        site.tpm.measure(&tool);
    }
    site.enrol();
}

/// The clock itself is a fact, not a rule: it may stand anywhere.
#[test]
fn the_clock_is_recorded_as_it_is() {
    let site = Site::new();
    let boot = site.enrol().boot;
    let mut answer = site.renewal(&boot);
    answer.quote.clock_ms = 1;
    answer.quote.safe = 0;
    let renewed = admitted(site.judge(&evidence(&answer), Signer::Known(boot)));
    assert!(!renewed.claims.tpm().clock_safe);
    assert_eq!(renewed.claims.tpm().clock_ms, 1);
}

/// An answer to another challenge, fleet or exchange.
#[test]
fn an_answer_to_anything_else_is_refused() {
    use proto::binding::{Challenge, VerifierId};
    let mut site = Site::new();
    let boot = site.enrol().boot;
    let recorded = evidence(&site.renewal(&boot));
    let judge = |site: &Site| denied(site.judge(&recorded, Signer::Known(boot.clone())));
    let honest = site.issued.clone();
    site.issued.challenge = Challenge::new([1; 32]);
    assert_code(&judge(&site), ReasonCode::QuoteQualifyingDataMismatch);
    site.issued = honest.clone();
    site.issued.verifier_id = VerifierId::new([1; 32]);
    assert_code(&judge(&site), ReasonCode::QuoteQualifyingDataMismatch);
    site.issued = honest;
    admitted(site.judge(&recorded, Signer::Known(boot.clone())));
    // Of another node, whose AK is another.
    let other = Site::new();
    let denial = denied(site.judge(&recorded, Signer::Known(other.enrol().boot)));
    assert_code(&denial, ReasonCode::NodeEkMismatch);
}

/// What the AK is bound to is its EK: the same AK under another EK has another Qualified Name.
#[test]
fn the_quote_names_the_ek_that_the_ak_is_under() {
    let mut site = Site::new();
    let stolen = Site::new();
    site.tpm.ak = stolen.tpm.ak.clone();
    site.tpm.set_ak(stolen.tpm.ak_public.clone());
    let elsewhere = stolen.tpm.qualified_signer();
    let denial = site.deny(|answer| answer.quote.qualified_signer = elsewhere.as_bytes().to_vec());
    assert_code(&denial, ReasonCode::QuoteQualifiedSignerMismatch);
}

fn log(answer: &mut Answer) -> &mut Vec<u8> {
    &mut answer.log[0].bytes
}

/// Faults of the log itself. The quote binds the log's head, but the log is replayed first: its own code names
/// what is wrong with it.
const LOG_FAULTS: &[Fault] = &[
    (
        "a byte of content",
        |a| *log(a).last_mut().expect("byte") ^= 1,
        ReasonCode::ToolLogDigestMismatch,
    ),
    ("cut", |a| log(a).truncate(200), ReasonCode::ToolLogMalformed),
    ("record number", |a| log(a)[12] = 1, ReasonCode::ToolLogOutOfSequence),
    ("another PCR", |a| log(a)[18] = 16, ReasonCode::ToolLogWrongPcr),
    ("a digest", |a| log(a)[13 + 6 + 5 + 5] ^= 1, ReasonCode::ToolLogDigestMismatch),
    ("an unknown bank", |a| log(a)[13 + 6 + 5] = 0x27, ReasonCode::ToolLogWrongPcr),
    ("another element type", |a| log(a)[0] = 9, ReasonCode::ToolLogMalformed),
    (
        "the first event twice",
        |a| {
            let size = first_event(log(a));
            let first = log(a)[..size].to_vec();
            log(a).splice(0..0, first);
        },
        ReasonCode::ToolLogOutOfSequence,
    ),
    (
        "the first event missing",
        |a| {
            let size = first_event(log(a));
            log(a).drain(..size);
        },
        ReasonCode::ToolLogOutOfSequence,
    ),
    ("not from its start", |a| a.log[0].from_bytes = 1, ReasonCode::ToolLogOffsetInvalid),
    // A well-formed log that is not the one the quote is bound to.
    (
        "the last event missing",
        |a| {
            let size = first_event(log(a));
            log(a).truncate(size);
        },
        ReasonCode::QuoteQualifyingDataMismatch,
    ),
    ("no log", |a| a.log.clear(), ReasonCode::QuoteQualifyingDataMismatch),
];

/// Size of a log's first event.
fn first_event(log: &[u8]) -> usize {
    let mut reader = proto::tool_log::ToolLogReader::new(log);
    reader.next().expect("an event").expect("well-formed");
    reader.offset()
}

#[test]
fn every_fault_in_a_tool_log_has_its_code() {
    let site = Site::new();
    for (what, fault, code) in LOG_FAULTS {
        println!("{what}");
        assert_code(&site.deny(fault), *code);
    }
}

/// The PCR was extended by somebody else, or the log says more than was extended.
#[test]
fn the_tool_log_replays_to_its_pcr() {
    let mut site = Site::new();
    let honest = site.enrol().boot;
    site.tpm.extend(HashAlg::Sha256, tool_pcr(), &sha256(b"behind the log's back"));
    assert_code(&site.deny(|_| ()), ReasonCode::ToolLogReplayMismatch);
    assert_code(&site.deny_renewal(&honest, |_| ()), ReasonCode::ToolLogReplayMismatch);
    // Extended in one bank only: a quote over both banks shows it.
    let both = BANKS.map(|alg| (alg, set(&PCRS)));
    let mut site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &both);
    site.enrol();
    let digest = HashAlg::Sha384.hash(&[b"behind the log's back"]);
    site.tpm.extend(HashAlg::Sha384, tool_pcr(), &digest);
    assert_code(&site.deny(|_| ()), ReasonCode::ToolLogReplayMismatch);
}

#[test]
fn the_tool_pcr_is_quoted_in_banks_that_the_log_has() {
    let mut site = Site::new();
    site.issued.selection = PcrSelection::new([(HashAlg::Sha256, set(&PCRS))]);
    site.issued.required = site.issued.selection.clone();
    assert_code(&site.deny(|_| ()), ReasonCode::ToolLogWrongPcr);
    // A log of SHA-256 alone under a quote over both banks.
    let both = BANKS.map(|alg| (alg, set(&PCRS)));
    let mut site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &both);
    site.tpm.log.clear();
    site.tpm.head = proto::digest::Digest::zero(HashAlg::Sha256);
    let reset = tool_pcr().reset_value(HashAlg::Sha256);
    site.tpm.pcrs.insert((HashAlg::Sha256, tool_pcr()), reset);
    let event = proto::tool_log::encode_event(0, tool_pcr(), &[HashAlg::Sha256], &cc());
    let read = proto::tool_log::ToolLogReader::new(&event).next().expect("event").expect("event");
    site.tpm.extend(HashAlg::Sha256, tool_pcr(), &read.digests[0]);
    site.tpm.head =
        HashAlg::Sha256.hash(&[site.tpm.head.as_bytes(), read.content_digest().as_bytes()]);
    site.tpm.log = event;
    assert_code(&site.deny(|_| ()), ReasonCode::ToolLogWrongPcr);
}

/// A worker without tools has an empty log and an untouched PCR.
#[test]
fn an_empty_log_goes_with_an_untouched_pcr() {
    let mut site = Site::new();
    site.tpm.reset();
    let text = site.golden_text(&[(HashAlg::Sha256, set(&PCRS))]);
    site.golden = Some(golden(text.split("[[tool]]").next().expect("a head")));
    let proven = site.enrol();
    assert!(proven.claims.tools().latest.is_empty());
    // The first tool after that is a suffix.
    site.tpm.measure(&cc());
    let answer = site.renewal(&proven.boot);
    let renewed = admitted(site.judge(&evidence(&answer), Signer::Known(proven.boot)));
    assert_eq!(renewed.measurements, [cc()]);
}

#[test]
fn a_renewal_sends_the_suffix_from_where_it_was_asked() {
    let mut site = Site::new();
    let boot = site.enrol().boot;
    let newer = tool("cc", &[("/usr/bin/cc", b"another driver")]);
    site.tpm.measure(&newer);
    site.golden = None;
    let honest = site.deny_renewal(&boot, |_| ());
    assert_code(&honest, ReasonCode::PolicyNoReferenceValues);
    let whole = site.tpm.log.clone();
    let denial = site.deny_renewal(&boot, |answer| {
        answer.log[0].bytes = whole;
        answer.log[0].from_bytes = 0;
    });
    assert_code(&denial, ReasonCode::ToolLogOffsetInvalid);
    let withheld = site.deny_renewal(&boot, |answer| answer.log.clear());
    assert_code(&withheld, ReasonCode::QuoteQualifyingDataMismatch);
}

/// What a selection signs is what a TPM would.
#[test]
fn selections_are_little_endian_bitmaps() {
    let signed = attest::selection(&[(HashAlg::Sha256, set(&[0, 8, 23]))]);
    assert_eq!(signed, [(0x000b, vec![1, 1, 0x80])]);
}

/// Whatever refuses: no integrity denial carries proofs.
#[test]
fn a_refused_integrity_stage_proves_nothing() {
    let site = Site::new();
    let mut answer = site.answer();
    answer.quote.magic = 0;
    let appraisal = site.judge(&evidence(&answer), site.activating());
    assert!(appraisal.proven.is_none());
    let _: Denial = denied(appraisal);
}
