//! Bundles, good and bad, through the steps of verification.
mod support;

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_SERVER_AUTH};
use results::{
    Code, Refusal, Sha256Digest, SpiffeId,
    bundle::{
        Bundle, CertificateAuthority, Content, MAX_TIMESTAMPS, MessageSignature, TrustedRoot,
    },
    dsse::Envelope,
    statement::{Dispatch, Statement, Vsa},
    verify::{Trust, VerifiedArtifact, VerifiedStatement},
};
use support::{
    Chain, Key, Leaf, NOW, World, at,
    chain::{ARTIFACT, digest, id, vsa, with_payload},
    pki::{DAY, JOB_ID, RESULTS_ID, authority},
};

fn artifact(
    bundle: &Bundle,
    root: &TrustedRoot,
    ids: &[SpiffeId],
) -> Result<VerifiedArtifact, Refusal> {
    let trust = Trust { root, identities: ids };
    bundle.prove_time(root, at(NOW + 5))?.verify_artifact(&Sha256Digest::of(ARTIFACT), &trust)
}

fn statement(bundle: &Bundle, root: &TrustedRoot) -> Result<VerifiedStatement<Vsa>, Refusal> {
    let trust = Trust { root, identities: &[id(RESULTS_ID)] };
    bundle.prove_time(root, at(NOW + 5))?.verify_statement(&trust)
}

/// A job's bundle with that leaf, verified in its world.
fn job_with(leaf: Leaf, when: u64) -> Result<VerifiedArtifact, Refusal> {
    let ids: Vec<SpiffeId> = leaf.uris.iter().filter_map(|uri| uri.parse().ok()).collect();
    let chain = Chain { job_leaf: leaf, signed_at: when, ..Chain::new() };
    artifact(&chain.job_bundle(), &chain.world.trusted_root(), &ids)
}

#[test]
fn good_bundles_are_verified_and_say_who_and_when() {
    let chain = Chain::new();
    let root = chain.world.trusted_root();
    let verified = artifact(&chain.job_bundle(), &root, &[id(JOB_ID)]).expect("verified");
    assert_eq!(verified.digest(), &Sha256Digest::of(ARTIFACT));
    assert_eq!(verified.signature().identity(), &id(JOB_ID));
    assert_eq!(verified.signature().signed_at(), at(NOW));
    assert_eq!(verified.signature().certificate().spki_digest(), chain.job_key.spki_digest());
    let bundle = chain.vsa_bundle();
    let verified = statement(&bundle, &root).expect("verified");
    assert_eq!(verified.statement(), &vsa());
    let Content::Statement(envelope) = bundle.content() else { panic!("a statement") };
    assert_eq!(verified.digest(), &Sha256Digest::of(envelope.untrusted_payload()));
    let trust = Trust { root: &root, identities: &[id(RESULTS_ID)] };
    let any = chain.dispatch_bundle();
    let any = any.prove_time(&root, at(NOW)).expect("a time").verify_any_statement(&trust);
    assert!(matches!(any.expect("verified").statement(), Statement::Dispatch(_)));
    let key = results::signer::Signer::spki_der(&chain.results_key.software);
    assert_eq!(envelope.verify(key), Ok(envelope.untrusted_payload()));
    let other = results::signer::Signer::spki_der(&chain.job_key.software);
    assert_eq!(envelope.verify(other).expect_err("refused").code(), Code::SignatureInvalid);
}

#[test]
fn changed_content_is_refused() {
    let chain = Chain::new();
    let root = chain.world.trusted_root();
    let trust = Trust { root: &root, identities: &[id(JOB_ID)] };
    let bundle = chain.job_bundle();
    let stamped = bundle.prove_time(&root, at(NOW)).expect("a time");
    let refusal = stamped.verify_artifact(&Sha256Digest::of(b"another"), &trust);
    assert_eq!(refusal.expect_err("another artifact").code(), Code::ArtifactMismatch);
    // The digest that the bundle claims is not what is signed.
    let Content::Artifact(message) = bundle.content() else { panic!("an artifact") };
    let lying = MessageSignature { untrusted_digest: digest("another"), ..message.clone() };
    let leaf = bundle.untrusted_certificate().der();
    let lying = chain.world.bundle(leaf, Content::Artifact(lying), NOW);
    let stamped = lying.prove_time(&root, at(NOW)).expect("a time");
    let refusal = stamped.verify_artifact(&digest("another"), &trust);
    assert_eq!(refusal.expect_err("another digest").code(), Code::SignatureInvalid);
    assert_eq!(
        artifact(&lying, &root, &[id(JOB_ID)]).expect_err("another digest").code(),
        Code::ArtifactMismatch
    );
    // A payload that is changed under its signature.
    let json = chain.vsa_bundle().to_json();
    let changed = with_payload(&json, "node/n1", "node/n2");
    let changed = Bundle::parse(changed.as_bytes()).expect("it parses");
    assert_eq!(statement(&changed, &root).expect_err("refused").code(), Code::SignatureInvalid);
    // A signature of another key than the leaf's.
    let other = chain.world.issuing.leaf(&Key::new(), &Leaf::default());
    let other = chain.world.bundle(&other, bundle.content().clone(), NOW);
    let refusal = artifact(&other, &root, &[id(JOB_ID)]).expect_err("refused");
    assert_eq!(refusal.code(), Code::SignatureInvalid);
}

#[test]
fn another_kind_of_content_is_refused() {
    let chain = Chain::new();
    let root = chain.world.trusted_root();
    let refusal = statement(&chain.job_bundle(), &root).expect_err("an artifact");
    assert_eq!(refusal.code(), Code::ContentUnexpected);
    let refusal = artifact(&chain.vsa_bundle(), &root, &[id(RESULTS_ID)]).expect_err("a statement");
    assert_eq!(refusal.code(), Code::ContentUnexpected);
    let trust = Trust { root: &root, identities: &[id(RESULTS_ID)] };
    let bundle = chain.vsa_bundle();
    let stamped = bundle.prove_time(&root, at(NOW)).expect("a time");
    let refusal = stamped.verify_statement::<Dispatch>(&trust).expect_err("a VSA");
    assert_eq!(refusal.code(), Code::PredicateUnknown);
}

#[test]
fn only_the_listed_identities_are_accepted() {
    let chain = Chain::new();
    let (root, bundle) = (chain.world.trusted_root(), chain.job_bundle());
    for others in [
        &[][..],
        &["spiffe://build.example/pool/Release"],
        &["spiffe://build.example/pool/release/job/1", "spiffe://build.example/pool"],
        &["spiffe://other.example/pool/release"],
    ] {
        let others: Vec<_> = others.iter().map(|text| id(text)).collect();
        let refusal = artifact(&bundle, &root, &others).expect_err("refused");
        assert_eq!(refusal.code(), Code::IdentityNotAccepted, "{others:?}");
    }
    assert!(artifact(&bundle, &root, &[id(RESULTS_ID), id(JOB_ID)]).is_ok());
}

#[test]
fn a_leaf_names_one_spiffe_id_and_nothing_else() {
    let named = |uris: &[&str], dns: &[&str]| Leaf {
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        dns: dns.iter().map(|name| (*name).to_owned()).collect(),
        common_name: Some("job".to_owned()),
        ..Leaf::default()
    };
    assert!(job_with(named(&[JOB_ID], &[]), NOW).is_ok());
    for (what, leaf) in [
        ("none", named(&[], &[])),
        ("two", named(&[JOB_ID, RESULTS_ID], &[])),
        ("a host beside", named(&[JOB_ID], &["build.example"])),
        ("a host", named(&[], &["build.example"])),
        ("another URI", named(&["https://build.example/pool/release"], &[])),
        ("no path", named(&["spiffe://build.example"], &[])),
    ] {
        let refusal = job_with(leaf, NOW).expect_err(what);
        assert_eq!(refusal.code(), Code::IdentityInvalid, "{what}: {refusal}");
    }
}

#[test]
fn a_leaf_is_for_signing() {
    let usages = |usages: &[_]| Leaf { usages: usages.to_vec(), ..Leaf::default() };
    assert!(job_with(usages(&[ID_KP_CODE_SIGNING]), NOW).is_ok());
    assert!(job_with(Leaf { critical_usages: true, ..Leaf::default() }, NOW).is_ok());
    for (what, leaf) in [
        ("a plain SVID", usages(&[ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH])),
        ("no extended key usage", usages(&[])),
        ("a CA", Leaf { is_ca: true, ..Leaf::default() }),
        ("no key usage", Leaf { key_usages: None, ..Leaf::default() }),
        (
            "another key usage",
            Leaf {
                key_usages: Some(x509_cert::ext::pkix::KeyUsages::KeyAgreement.into()),
                ..Leaf::default()
            },
        ),
    ] {
        let refusal = job_with(leaf, NOW).expect_err(what);
        assert_eq!(refusal.code(), Code::CertificateUsage, "{what}: {refusal}");
    }
}

#[test]
fn another_key_than_on_p256_is_refused_by_name() {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };
    let chain = Chain::new();
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("a key");
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let leaf = chain.world.issuing.leaf_of(spki.as_ref(), &Leaf::default());
    let bundle = chain.world.bundle(&leaf, chain.job_bundle().content().clone(), NOW);
    let refusal = artifact(&bundle, &chain.world.trusted_root(), &[id(JOB_ID)]);
    assert_eq!(refusal.expect_err("refused").code(), Code::KeyUnsupported);
}

#[test]
fn a_leaf_has_no_extension_twice() {
    let chain = Chain::new();
    let leaf = Leaf { repeats_names: true, ..Leaf::default() };
    let leaf = chain.world.issuing.leaf(&chain.job_key, &leaf);
    let refusal = Bundle::new(&leaf, Vec::new(), chain.job_bundle().content().clone());
    assert_eq!(refusal.expect_err("refused").code(), Code::Malformed);
}

#[test]
fn a_leaf_counts_at_the_stamped_instant() {
    for when in [NOW - 600, NOW, NOW + 600] {
        let chain = Chain { signed_at: when, ..Chain::new() };
        let root = chain.world.trusted_root();
        let trust = Trust { root: &root, identities: &[id(JOB_ID)] };
        let bundle = chain.job_bundle();
        // Long afterwards.
        let stamped = bundle.prove_time(&root, at(NOW + 3650 * DAY)).expect("a time");
        assert!(stamped.verify_artifact(&Sha256Digest::of(ARTIFACT), &trust).is_ok(), "{when}");
    }
    for when in [NOW - 601, NOW + 601] {
        let chain = Chain { signed_at: when, ..Chain::new() };
        let root = chain.world.trusted_root();
        let trust = Trust { root: &root, identities: &[id(JOB_ID)] };
        let bundle = chain.job_bundle();
        // Even while the leaf is valid.
        let stamped = bundle.prove_time(&root, at(NOW + 600)).expect("a time");
        let refusal = stamped.verify_artifact(&Sha256Digest::of(ARTIFACT), &trust);
        let refusal = refusal.expect_err("refused");
        assert_eq!(refusal.code(), Code::CertificateNotValidThen, "{when}");
        // In words, and before any authority is asked.
        assert_eq!(refusal.observed(), "valid 2026-11-27T05:50:00Z to 2026-11-27T06:10:00Z");
    }
}

#[test]
fn an_authority_is_what_is_listed_first_and_not_all_that_its_root_vouches_for() {
    let world = World::new();
    let root = world.tsa_root.der.clone();
    let other_ca = world.tsa_root.intermediate("Another CA", NOW - DAY, NOW + DAY).der;
    let other_leaf = world.tsa_root.leaf(&Key::new(), &Leaf::tsa());
    let stamp =
        results::timestamp::Response::parse(&world.stamp(b"signature", NOW)).expect("a response");
    for (what, chain, is_good) in [
        ("the leaf", vec![world.tsa_der.clone(), root.clone()], true),
        ("whatever the root vouches for", vec![root.clone()], true),
        ("another CA under the root", vec![other_ca.clone(), root.clone()], false),
        ("another leaf under the root", vec![other_leaf, root.clone()], false),
    ] {
        let list = [authority("x:y", &chain)];
        assert_eq!(list[0].check_order(), Ok(()), "{what}");
        let time = stamp.verify(&Sha256Digest::of(b"signature"), &list, at(NOW));
        let code = time.map(|_| ()).map_err(|refusal| refusal.code());
        let expected = if is_good { Ok(()) } else { Err(Code::TimestampUntrusted) };
        assert_eq!(code, expected, "{what}");
    }
    for chain in [
        vec![root.clone(), other_ca.clone()],
        vec![World::new().tsa_root.der, root],
        vec![world.tsa_der],
    ] {
        let wrong = authority("x:y", &chain).check_order().expect_err("out of order");
        assert_eq!(wrong.code(), Code::TrustedRootInvalid);
    }
}

#[test]
fn a_leaf_leads_to_a_trusted_authority_that_was_valid_then() {
    let chain = Chain::new();
    let (world, bundle) = (&chain.world, chain.job_bundle());
    let stranger = World::new();
    let expired = world.root.intermediate("Test Job CA", NOW - 2 * DAY, NOW - 1);
    let period = |from, until| {
        let certificates = [world.issuing.der.clone(), world.root.der.clone()];
        CertificateAuthority::new("x:y", ["", ""], &certificates, at(from), Some(at(until)))
            .expect("an authority")
    };
    let with = |authority: CertificateAuthority| {
        let root = TrustedRoot::new(vec![authority], vec![world.tsa_authority()]).expect("a list");
        artifact(&bundle, &root, &[id(JOB_ID)]).map(|_| ()).map_err(|refusal| refusal.code())
    };
    let chain_of = |certificates: &[Vec<u8>]| authority("x:y", certificates);
    let good = [world.issuing.der.clone(), world.root.der.clone()];
    assert_eq!(with(chain_of(&good)), Ok(()));
    // The CA itself may be the anchor.
    assert_eq!(with(chain_of(&good[..1])), Ok(()));
    assert_eq!(with(period(NOW, NOW)), Ok(()));
    for (what, authority, code) in [
        ("another root", stranger.jobs_authority(), Code::CertificateUntrusted),
        ("no intermediate", chain_of(&good[1..]), Code::CertificateUntrusted),
        (
            "another's intermediate",
            chain_of(&[stranger.issuing.der.clone(), world.root.der.clone()]),
            Code::CertificateUntrusted,
        ),
        (
            "another's root of the same name",
            chain_of(&[world.issuing.der.clone(), stranger.root.der.clone()]),
            Code::CertificateUntrusted,
        ),
        ("stamps only", world.tsa_authority(), Code::CertificateUntrusted),
        ("trusted before", period(NOW - DAY, NOW - 1), Code::CertificateNotValidThen),
        ("trusted later", period(NOW + 1, NOW + DAY), Code::CertificateNotValidThen),
    ] {
        assert_eq!(with(authority), Err(code), "{what}");
    }
    // An intermediate that had ended.
    let old = Chain::new();
    let key = Key::new();
    let leaf = expired.leaf(&key, &Leaf::default());
    let content = MessageSignature::sign(Sha256Digest::of(ARTIFACT), &&key).expect("a signature");
    let bundle = old.world.bundle(&leaf, Content::Artifact(content), NOW);
    let list = |certificates: &[Vec<u8>]| {
        let authorities = vec![authority("x:y", certificates)];
        TrustedRoot::new(authorities, vec![old.world.tsa_authority()]).expect("a list")
    };
    for certificates in
        [&[expired.der.clone(), world.root.der.clone()][..], std::slice::from_ref(&expired.der)]
    {
        let refusal = artifact(&bundle, &list(certificates), &[id(JOB_ID)]).expect_err("refused");
        assert_eq!(refusal.code(), Code::CertificateNotValidThen);
    }
}

#[test]
fn a_time_stamp_is_there_and_over_this_signature() {
    let chain = Chain::new();
    let root = chain.world.trusted_root();
    let bundle = chain.job_bundle();
    let leaf = bundle.untrusted_certificate().der();
    let signature = bundle.content().signature().to_vec();
    let good = chain.world.stamp(&signature, NOW);
    let with = |timestamps: Vec<Vec<u8>>| {
        let bundle = Bundle::new(leaf, timestamps, bundle.content().clone()).expect("a bundle");
        artifact(&bundle, &root, &[id(JOB_ID)])
            .map(|verified| verified.signature().signed_at())
            .map_err(|refusal| refusal.code())
    };
    assert_eq!(with(vec![good.clone()]), Ok(at(NOW)));
    let earlier = chain.world.stamp(&signature, NOW - 30);
    assert_eq!(with(vec![good.clone(), earlier]), Ok(at(NOW - 30)));
    assert_eq!(with(Vec::new()), Err(Code::TimestampMissing));
    let other = chain.world.stamp(b"another signature", NOW);
    assert_eq!(with(vec![other.clone()]), Err(Code::TimestampImprint));
    assert_eq!(with(vec![good.clone(), other]), Err(Code::TimestampImprint));
    let foreign = World::new().stamp(&signature, NOW);
    assert_eq!(with(vec![foreign]), Err(Code::TimestampUntrusted));
    assert_eq!(with(vec![b"junk".to_vec()]), Err(Code::Malformed));
    let future = chain.world.stamp(&signature, NOW + 306);
    assert_eq!(with(vec![future]), Err(Code::TimestampInFuture));
    let many = vec![good; MAX_TIMESTAMPS + 1];
    let refusal = Bundle::new(leaf, many, bundle.content().clone()).expect_err("too many");
    assert_eq!(refusal.code(), Code::TooLarge);
}

#[test]
fn unsigned_payloads_are_not_read() {
    // A payload that would not parse, under a signature that is not good: the signature is named.
    let chain = Chain::new();
    let json = chain.vsa_bundle().to_json();
    let begin = json.find("\"payload\":\"").expect("a payload") + 11;
    let end = begin + json[begin..].find('"').expect("an end");
    let json = format!("{}AAAA{}", &json[..begin], &json[end..]);
    let bundle = Bundle::parse(json.as_bytes()).expect("it parses");
    let refusal = statement(&bundle, &chain.world.trusted_root()).expect_err("refused");
    assert_eq!(refusal.code(), Code::SignatureInvalid);
}

#[test]
fn a_bundle_has_one_form() {
    let chain = Chain::new();
    for bundle in [chain.job_bundle(), chain.vsa_bundle()] {
        let json = bundle.to_json();
        assert_eq!(Bundle::parse(json.as_bytes()), Ok(bundle.clone()));
        let with_no_logs = json.replacen(
            "\"timestampVerificationData\"",
            "\"tlogEntries\":[],\"timestampVerificationData\"",
            1,
        );
        assert_eq!(Bundle::parse(with_no_logs.as_bytes()), Ok(bundle));
        let code = |text: &str| Bundle::parse(text.as_bytes()).expect_err(text).code();
        for (from, to) in [
            ("bundle.v0.3+json", "bundle+json;version=0.2"),
            ("\"certificate\"", "\"x509CertificateChain\""),
            ("\"timestampVerificationData\"", "\"tlogEntries\":[{}],\"timestampVerificationData\""),
            ("{\"mediaType\"", "{\"extra\":1,\"mediaType\""),
            ("\"rawBytes\":\"", "\"rawBytes\":\"?"),
            ("\"rawBytes\":\"M", "\"rawBytes\":\"AAAAM"),
            ("signedTimestamp", "timestamp"),
        ] {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json, "{from}");
            assert_eq!(code(&changed), Code::Malformed, "{to}");
        }
        assert_eq!(code(&json[..json.len() - 1]), Code::Malformed);
    }
    let job = chain.job_bundle().to_json();
    let code = |text: &str| Bundle::parse(text.as_bytes()).expect_err(text).code();
    for (from, to) in [
        ("SHA2_256", "SHA2_512"),
        ("\"digest\":\"", "\"digest\":\"AAAA"),
        ("\"messageSignature\"", "\"messageSignatures\""),
    ] {
        let changed = job.replacen(from, to, 1);
        let expected = if to.ends_with("AAAA") { Code::TooLarge } else { Code::Malformed };
        assert_eq!(code(&changed), expected, "{to}");
    }
    let envelope = Envelope::sign(&vsa(), &&chain.results_key).expect("an envelope").to_json();
    let both = job.replacen(
        "\"messageSignature\"",
        &format!("\"dsseEnvelope\":{envelope},\"messageSignature\""),
        1,
    );
    assert_eq!(code(&both), Code::Malformed);
    let neither = &job[..job.find(",\"messageSignature\"").expect("it")];
    assert_eq!(code(&format!("{neither}}}")), Code::Malformed);
    let large = " ".repeat(results::bundle::MAX_BUNDLE_BYTES + 1);
    assert_eq!(Bundle::parse(large.as_bytes()).expect_err("large").code(), Code::TooLarge);
    let long = vec![0; results::certificate::MAX_CERTIFICATE_BYTES + 1];
    let content = chain.job_bundle().content().clone();
    assert_eq!(Bundle::new(&long, Vec::new(), content).expect_err("large").code(), Code::TooLarge);
}

#[test]
fn a_list_of_authorities_has_one_form() {
    let world = World::new();
    let root = world.trusted_root();
    let json = root.to_json();
    assert_eq!(TrustedRoot::parse(json.as_bytes()), Ok(root));
    assert!(json.starts_with(concat!(
        r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[],"#,
        r#""certificateAuthorities":[{"subject":{"organization":"Assay Test","commonName":"test"},"#,
        r#""uri":"https://ca.build.example","certChain":{"certificates":[{"rawBytes":"#
    )));
    let code = |text: &str| TrustedRoot::parse(text.as_bytes()).expect_err(text).code();
    let start = "\"start\":\"2024-09-18T06:00:00Z\"";
    assert!(json.contains(start), "{json}");
    let (from_here, reversed) = (
        format!("{start},\"end\":\"2024-09-18T06:00:00Z\""),
        format!("{start},\"end\":\"2024-09-18T05:59:59Z\""),
    );
    assert!(TrustedRoot::parse(json.replacen(start, &from_here, 1).as_bytes()).is_ok());
    for (from, to, expected) in [
        (start, reversed.as_str(), Code::TrustedRootInvalid),
        (start, "\"start\":\"yesterday\"", Code::Malformed),
        (";version=0.1", ";version=9", Code::Malformed),
        ("\"tlogs\":[]", "\"tlogs\":[{}]", Code::Malformed),
        ("\"ctlogs\":[]", "\"ctlogs\":[{}]", Code::Malformed),
        ("\"tlogs\":[]", "\"tlog\":[]", Code::Malformed),
        ("\"rawBytes\":\"M", "\"rawBytes\":\"AAAAM", Code::Malformed),
    ] {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from}");
        assert_eq!(code(&changed), expected, "{to}");
    }
    let empty = |certificates: bool| {
        let (some, none) = (vec![world.jobs_authority()], Vec::new());
        let lists = if certificates { (none, some) } else { (some, none) };
        TrustedRoot::new(lists.0, lists.1).expect_err("empty").code()
    };
    assert_eq!((empty(true), empty(false)), (Code::TrustedRootInvalid, Code::TrustedRootInvalid));
    let no_chain = CertificateAuthority::new("x:y", ["", ""], &[], at(0), None);
    assert_eq!(no_chain.expect_err("none").code(), Code::TrustedRootInvalid);
    let long =
        CertificateAuthority::new("x:y", ["", ""], &vec![world.root.der.clone(); 5], at(0), None);
    assert_eq!(long.expect_err("long").code(), Code::TooLarge);
    let many = vec![world.jobs_authority(); 33];
    let many = TrustedRoot::new(many, vec![world.tsa_authority()]).expect_err("many");
    assert_eq!(many.code(), Code::TooLarge);
}

/// Whichever byte of a bundle's certificate or signature is changed, nothing else is verified.
#[test]
fn no_changed_byte_is_verified() {
    let chain = Chain::new();
    let root = chain.world.trusted_root();
    let bundle = chain.job_bundle();
    let Content::Artifact(message) = bundle.content().clone() else { panic!("an artifact") };
    for place in 0..message.signature.len() {
        let mut changed = message.clone();
        changed.signature[place] ^= 1;
        let leaf = bundle.untrusted_certificate().der();
        let changed = chain.world.bundle(leaf, Content::Artifact(changed), NOW);
        let refusal = artifact(&changed, &root, &[id(JOB_ID)]).expect_err("refused");
        assert_eq!(refusal.code(), Code::SignatureInvalid, "byte {place}");
    }
    let leaf = bundle.untrusted_certificate().der();
    for place in 0..leaf.len() {
        let mut changed = leaf.to_vec();
        changed[place] ^= 1;
        // Most do not decode any more.
        let content = bundle.content().clone();
        let stamp = chain.world.stamp(content.signature(), NOW);
        let Ok(changed) = Bundle::new(&changed, vec![stamp], content) else { continue };
        let verified = artifact(&changed, &root, &[id(JOB_ID)]);
        assert!(verified.is_err(), "byte {place}");
    }
}
