//! Whose signatures count, over what, and how many it takes.

use proto::reason::ReasonCode;

use super::{
    super::{Approval, ApprovalError, KeyRing, Pae, SuccessorError, Uncounted},
    *,
};

fn names(approval: &Approval) -> Vec<&str> {
    approval.signers().iter().map(|signer| signer.name().as_str()).collect()
}

fn approve(ring: &KeyRing, envelope: &Envelope) -> Result<Approval, ApprovalError> {
    ring.verify(envelope, PayloadType::Golden, &golden())
}

fn without_keyid(signature: &Signature) -> Signature {
    Signature::new(None, signature.as_bytes().to_vec()).expect("a signature")
}

#[test]
fn two_of_three_keys_of_two_kinds_approve() {
    let [alice, bob, carol] = holders();
    let ring = ring(7, 2, [&alice, &bob, &carol]);
    for (by, expected) in [
        (vec![&alice, &bob], vec!["alice", "bob"]),
        (vec![&carol, &alice], vec!["carol", "alice"]),
        (vec![&bob, &carol], vec!["bob", "carol"]),
        (vec![&alice, &bob, &carol], vec!["alice", "bob", "carol"]),
    ] {
        let envelope = signed(PayloadType::Golden, &golden(), by);
        let read = Envelope::parse(envelope.to_json().as_bytes()).expect("it parses");
        let approval = approve(&ring, &read).expect("it is approved");
        assert_eq!(names(&approval), expected);
        assert_eq!((approval.ring().as_str(), approval.ring_version()), ("security", 7));
        assert_eq!(approval.payload_type(), PayloadType::Golden);
        assert_eq!(*approval.payload_digest(), proto::digest::HashAlg::Sha256.hash(&[&golden()]));
        assert_eq!(approval.uncounted(), []);
        for signer in approval.signers() {
            let key = ring.keys().iter().find(|key| key.id() == signer.id()).expect("a key");
            assert_eq!(key.name(), signer.name());
        }
    }
}

#[test]
fn a_document_without_enough_signatures_is_refused_and_told_whose_are_missing() {
    let [alice, bob, carol] = holders();
    let ring_of = |threshold| ring(1, threshold, [&alice, &bob, &carol]);
    let refusal = |ring: &KeyRing, by: &[&Holder]| {
        let envelope = signed(PayloadType::Golden, &golden(), by.iter().copied());
        let error = approve(ring, &envelope).expect_err("too few");
        assert!(matches!(error, ApprovalError::BelowThreshold { .. }));
        error.to_string()
    };
    assert_eq!(
        refusal(&ring_of(2), &[]),
        "0 of 2 signatures: missing 2 of alice, bob, carol",
        "signatures stripped"
    );
    assert_eq!(refusal(&ring_of(2), &[&carol]), "1 of 2 signatures: missing one of alice, bob");
    assert_eq!(refusal(&ring_of(3), &[&carol]), "1 of 3 signatures: missing alice and bob");
    assert_eq!(refusal(&ring_of(3), &[&carol, &bob]), "2 of 3 signatures: missing alice");
    assert_eq!(refusal(&ring_of(3), &[]), "0 of 3 signatures: missing alice, bob and carol");
}

#[test]
fn a_key_counts_once_under_however_many_names() {
    let [alice, bob, carol] = holders();
    let ring = ring(1, 2, [&alice, &bob, &carol]);
    let once = signed(PayloadType::Golden, &golden(), [&carol]);
    let again = signed(PayloadType::Golden, &golden(), [&carol]);
    let (first, second) = (&once.signatures()[0], &again.signatures()[0]);
    assert_ne!(first.as_bytes(), second.as_bytes(), "ECDSA signs with a random number");
    for repeated in [first.clone(), second.clone(), without_keyid(second)] {
        let envelope = with_signatures(&once, [first.clone(), repeated]);
        let error = approve(&ring, &envelope).expect_err("one key");
        assert_eq!(
            error.to_string(),
            "1 of 2 signatures: missing one of alice, bob; \
             not counted: signatures[1] by carol, who signed already"
        );
    }
    // Under the identifier of another key of the ring it is a false signature of that key.
    let as_bob =
        Signature::new(Some(bob.key.public().id().to_string()), second.as_bytes().to_vec());
    let envelope = with_signatures(&once, [first.clone(), as_bob.expect("a signature")]);
    let error = approve(&ring, &envelope).expect_err("it is not Bob's");
    assert_eq!(error.to_string(), "signatures[1] is not a signature by bob, whose key it names");
    assert!(matches!(error, ApprovalError::SignatureInvalid { position: 1, .. }));
}

#[test]
fn unknown_keys_do_not_count_and_are_told() {
    let [alice, bob, _] = holders();
    let mallory = holder("mallory", Algorithm::Ed25519);
    let ring = ring(1, 1, [&alice, &bob]);
    let forged = signed(PayloadType::Golden, &golden(), [&mallory]);
    let mallorys = forged.signatures()[0].clone();
    let error = approve(&ring, &forged).expect_err("nobody's");
    let keyid = mallory.key.public().id();
    assert_eq!(
        error.to_string(),
        format!(
            "0 of 1 signatures: missing one of alice, bob; \
             not counted: signatures[0] by an unknown key, \"{keyid}\""
        )
    );
    let unnamed = with_signatures(&forged, [without_keyid(&mallorys)]);
    let error = approve(&ring, &unnamed).expect_err("nobody's");
    assert!(
        error
            .to_string()
            .ends_with("; not counted: signatures[0] names no key and is by none that is known")
    );
    // Mallory cannot spoil what Alice signed, unless in her name.
    let alices = signed(PayloadType::Golden, &golden(), [&alice]).signatures()[0].clone();
    let both = with_signatures(&forged, [mallorys.clone(), alices.clone()]);
    let approval = approve(&ring, &both).expect("Alice signed");
    assert_eq!(names(&approval), ["alice"]);
    assert!(matches!(approval.uncounted(), [Uncounted::UnknownKey { position: 0, .. }]));
    let as_alice =
        Signature::new(alices.untrusted_keyid().map(Into::into), mallorys.as_bytes().to_vec());
    let both = with_signatures(&forged, [alices, as_alice.expect("a signature")]);
    assert!(matches!(
        approve(&ring, &both),
        Err(ApprovalError::SignatureInvalid { position: 1, .. })
    ));
}

#[test]
fn signatures_without_a_keyid_are_tried_with_every_key() {
    let [alice, bob, carol] = holders();
    let ring = ring(1, 3, [&alice, &bob, &carol]);
    let envelope = signed(PayloadType::Golden, &golden(), [&carol, &bob, &alice]);
    let unnamed = with_signatures(&envelope, envelope.signatures().iter().map(without_keyid));
    assert_eq!(names(&approve(&ring, &unnamed).expect("three")), ["carol", "bob", "alice"]);
}

#[test]
fn a_signature_for_one_kind_of_document_is_none_for_another() {
    let [alice, bob, _] = holders();
    let ring = ring(1, 1, [&alice, &bob]);
    let policy = signed(PayloadType::Policy, &golden(), [&alice]);
    let error = approve(&ring, &policy).expect_err("a policy");
    assert_eq!(
        error.to_string(),
        "the envelope is for \"application/vnd.assay.policy.v1+json\", not for \
         application/vnd.assay.golden.v1+json"
    );
    // Nor where the envelope lies about it.
    let relabelled = policy.to_json().replace(".policy.", ".golden.");
    let relabelled = Envelope::parse(relabelled.as_bytes()).expect("an envelope");
    assert!(matches!(
        approve(&ring, &relabelled),
        Err(ApprovalError::SignatureInvalid { position: 0, .. })
    ));
    for (position, kind) in PayloadType::ALL.iter().enumerate() {
        for other in PayloadType::ALL.iter().skip(position + 1) {
            assert_ne!(kind.as_str(), other.as_str());
        }
    }
}

#[test]
fn a_signature_for_one_document_is_none_for_another() {
    let [alice, ..] = holders();
    let ring = ring(1, 1, [&alice]);
    let envelope = signed(PayloadType::Golden, &golden(), [&alice]);
    let mut other = golden();
    other.push(b' ');
    let error = ring.verify(&envelope, PayloadType::Golden, &other).expect_err("another document");
    assert!(matches!(error, ApprovalError::Payload { .. }), "{error}");
    let grafted = Envelope::new(PayloadType::Golden, other.clone()).expect("an envelope");
    let grafted = with_signatures(&grafted, envelope.signatures().iter().cloned());
    assert!(matches!(
        ring.verify(&grafted, PayloadType::Golden, &other),
        Err(ApprovalError::SignatureInvalid { position: 0, .. })
    ));
}

/// Every other value of every byte of payload, type and signatures.
#[test]
fn any_changed_byte_of_what_is_signed_or_of_a_signature_refuses() {
    let [alice, _, carol] = holders();
    let ring = ring(1, 2, [&alice, &carol]);
    let envelope = signed(PayloadType::Golden, &golden(), [&alice, &carol]);
    assert!(approve(&ring, &envelope).is_ok());

    for at in 0..golden().len() {
        for bit in 0..8 {
            let mut payload = golden();
            payload[at] ^= 1 << bit;
            let changed = Envelope::new(PayloadType::Golden, payload.clone()).expect("an envelope");
            let changed = with_signatures(&changed, envelope.signatures().iter().cloned());
            assert!(matches!(approve(&ring, &changed), Err(ApprovalError::Payload { .. })));
            // The document at hand is changed too: the signatures are not for it.
            assert!(matches!(
                ring.verify(&changed, PayloadType::Golden, &payload),
                Err(ApprovalError::SignatureInvalid { position: 0, .. })
            ));
        }
    }
    let payload_type = PayloadType::Golden.as_str();
    for at in 0..payload_type.len() {
        for bit in 0..7 {
            let mut bytes = payload_type.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let changed_type = String::from_utf8(bytes).expect("ASCII");
            let mut json: serde_json::Value =
                serde_json::from_str(&envelope.to_json()).expect("JSON");
            json["payloadType"] = changed_type.into();
            let changed = Envelope::parse(json.to_string().as_bytes()).expect("an envelope");
            assert!(matches!(approve(&ring, &changed), Err(ApprovalError::PayloadType { .. })));
        }
    }
    for (position, signature) in envelope.signatures().iter().enumerate() {
        for at in 0..signature.as_bytes().len() {
            for change in 1..=255 {
                let mut bytes = signature.as_bytes().to_vec();
                bytes[at] ^= change;
                let keyid = signature.untrusted_keyid().map(Into::into);
                let changed = Signature::new(keyid, bytes).expect("a signature");
                let mut signatures = envelope.signatures().to_vec();
                signatures[position] = changed;
                let changed = with_signatures(&envelope, signatures);
                let error = approve(&ring, &changed).expect_err("a changed signature");
                assert!(matches!(
                    error,
                    ApprovalError::SignatureInvalid { position: found, .. } if found == position
                ));
            }
        }
        for length in 0..signature.as_bytes().len() {
            let bytes = signature.as_bytes()[..length].to_vec();
            let cut = Signature::new(signature.untrusted_keyid().map(Into::into), bytes);
            let cut = with_signatures(&envelope, [cut.expect("a signature")]);
            assert!(matches!(
                approve(&ring, &cut),
                Err(ApprovalError::SignatureInvalid { position: 0, .. })
            ));
        }
    }
}

/// Whatever one bit of the JSON becomes: refused, or the same signers for the same document.
#[test]
fn any_flipped_bit_of_the_json_refuses_or_changes_nothing() {
    let [alice, _, carol] = holders();
    let ring = ring(1, 2, [&alice, &carol]);
    let json = signed(PayloadType::Golden, &golden(), [&alice, &carol]).to_json();
    let (mut refused, mut same) = (0, 0);
    for at in 0..json.len() {
        for bit in 0..8 {
            let mut bytes = json.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            match Envelope::parse(&bytes).map(|envelope| approve(&ring, &envelope)) {
                Ok(Ok(approval)) => {
                    assert_eq!(names(&approval), ["alice", "carol"]);
                    same += 1;
                }
                Err(_) | Ok(Err(_)) => refused += 1,
            }
        }
    }
    // What changes nothing is the name of the optional member `keyid`.
    assert_eq!(refused + same, json.len() * 8);
    assert!(same <= 2 * "keyid".len() * 8, "{same}");
}

#[test]
fn a_large_document_is_not_hashed_without_end() {
    let [alice, bob, carol] = holders();
    let ring = ring(1, 1, [&alice, &bob, &carol]);
    let payload = vec![b'x'; super::super::MAX_PAYLOAD_BYTES];
    let envelope = Envelope::new(PayloadType::Golden, payload.clone()).expect("an envelope");
    // Not of the length of an Ed25519 signature: refused without hashing, yet counted.
    let junk = (0..64).map(|_| Signature::new(None, vec![0]).expect("a signature"));
    let error = ring
        .verify(&with_signatures(&envelope, junk), PayloadType::Golden, &payload)
        .expect_err("it is too much");
    assert!(matches!(error, ApprovalError::TooMuchWork { .. }), "{error}");
}

#[test]
fn the_published_signature_verifies() {
    // DSSE protocol.md, "Test Vectors": P-256, signature as r ‖ s.
    use base64::Engine as _;
    use der::Encode as _;
    let coordinate = |decimal: &str| {
        let mut bytes = [0_u8; 32];
        for digit in decimal.bytes() {
            let mut carry = u32::from(digit - b'0');
            for byte in bytes.iter_mut().rev() {
                carry += u32::from(*byte) * 10;
                *byte = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        }
        bytes
    };
    let mut point = vec![4];
    point.extend(coordinate(
        "46950820868899156662930047687818585632848591499744589407958293238635476079160",
    ));
    point.extend(coordinate(
        "5640078356564379163099075877009565129882514886557779369047442380624545832820",
    ));
    let key = super::super::PublicKey::from_raw(Algorithm::P256, &point).expect("a key");
    let raw = base64::engine::general_purpose::STANDARD
        .decode(
            "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==",
        )
        .expect("base64");
    let number = |bytes: &[u8]| der::asn1::Uint::new(bytes).expect("a number");
    let signature = [number(&raw[..32]), number(&raw[32..])].to_vec().to_der().expect("DER");
    let pae = Pae::new("http://example.com/HelloWorld", b"hello world");
    assert!(key.verifies(pae.as_bytes(), &signature));
    let other = Pae::new("http://example.com/HelloWorld", b"hello World");
    assert!(!key.verifies(other.as_bytes(), &signature));
}

#[test]
fn a_ring_is_replaced_by_the_keys_of_both() {
    let [alice, bob, carol] = holders();
    let dave = holder("dave", Algorithm::P256);
    let current = ring(4, 2, [&alice, &bob, &carol]);
    let next = ring(5, 2, [&alice, &bob, &dave]);
    let by = |next: &KeyRing, holders: &[&Holder]| {
        signed(PayloadType::Keys, next.payload(), holders.iter().copied())
    };
    let approval = current.approves_successor(&next, &by(&next, &[&alice, &bob])).expect("both");
    assert_eq!(names(&approval), ["alice", "bob"]);
    assert_eq!((approval.ring_version(), approval.payload_type()), (4, PayloadType::Keys));
    // Carol and Alice are enough for the old ring; the new one also needs Bob or Dave.
    let error = current.approves_successor(&next, &by(&next, &[&alice, &carol])).expect_err("new");
    assert!(matches!(&error, SuccessorError::Next(ApprovalError::BelowThreshold { .. })));
    assert!(current.approves_successor(&next, &by(&next, &[&alice, &carol, &dave])).is_ok());
    // The new keys alone cannot bring themselves in.
    let error = current.approves_successor(&next, &by(&next, &[&alice, &dave])).expect_err("old");
    assert!(matches!(&error, SuccessorError::Current(ApprovalError::BelowThreshold { .. })));

    for version in [3, 4] {
        let back = ring(version, 2, [&alice, &bob, &dave]);
        let error = current.approves_successor(&back, &by(&back, &[&alice, &bob]));
        assert_eq!(
            error.expect_err("not newer").to_string(),
            format!("the key ring has version {version}, which is not above 4")
        );
    }
    let text = ring_text(5, 2, [&alice, &bob]).replace("\"security\"", "\"other\"");
    let other = KeyRing::parse(&text).expect("a ring");
    assert!(matches!(
        current.approves_successor(&other, &by(&other, &[&alice, &bob])),
        Err(SuccessorError::Name { .. })
    ));
    // An envelope around another ring than the one at hand.
    let weaker = ring(5, 1, [&alice, &bob, &dave]);
    assert!(matches!(
        current.approves_successor(&weaker, &by(&next, &[&alice, &bob])),
        Err(SuccessorError::Current(ApprovalError::Payload { .. }))
    ));
    // A signature for a golden set of the same bytes.
    let envelope = signed(PayloadType::Golden, next.payload(), [&alice, &bob]);
    assert!(matches!(
        current.approves_successor(&next, &envelope),
        Err(SuccessorError::Current(ApprovalError::PayloadType { .. }))
    ));
}

#[test]
fn a_false_or_misplaced_signature_is_golden_signature_invalid() {
    let [alice, bob, _] = holders();
    let ring = ring(1, 1, [&alice, &bob]);
    let code = |envelope: &Envelope| approve(&ring, envelope).expect_err("refused").code();
    let policy = signed(PayloadType::Policy, &golden(), [&alice]);
    let other = signed(PayloadType::Golden, b"{}", [&alice]);
    let good = signed(PayloadType::Golden, &golden(), [&alice]);
    let false_ones = with_signatures(&good, other.signatures().iter().cloned());
    for envelope in [policy, other, false_ones] {
        assert_eq!(code(&envelope), ReasonCode::GoldenSignatureInvalid, "{envelope:?}");
    }
}

#[test]
fn an_unsigned_document_or_one_below_the_threshold_is_golden_signatures_missing() {
    let [alice, bob, carol] = holders();
    let ring = ring(1, 2, [&alice, &bob]);
    for by in [vec![], vec![&alice], vec![&carol], vec![&alice, &carol], vec![&alice, &alice]] {
        let envelope = signed(PayloadType::Golden, &golden(), by);
        let error = approve(&ring, &envelope).expect_err("refused");
        assert_eq!(error.code(), ReasonCode::GoldenSignaturesMissing, "{error}");
    }
}

#[test]
fn a_ring_that_is_rolled_back_is_golden_version_not_newer() {
    let [alice, ..] = holders();
    let (current, former) = (ring(2, 1, [&alice]), ring(1, 1, [&alice]));
    let envelope = signed(PayloadType::Keys, former.payload(), [&alice]);
    let error = current.approves_successor(&former, &envelope).expect_err("refused");
    assert_eq!(error.code(), ReasonCode::GoldenVersionNotNewer);
    // Missing signatures of the next ring's own keys are missing signatures.
    let next = ring(3, 1, [&holder("bob", Algorithm::P256)]);
    let envelope = signed(PayloadType::Keys, next.payload(), [&alice]);
    let error = current.approves_successor(&next, &envelope).expect_err("refused");
    assert_eq!(error.code(), ReasonCode::GoldenSignaturesMissing);
}
