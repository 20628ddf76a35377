//! What an authority answers, and to whom.

use super::*;

#[test]
fn an_answer_is_to_its_request() {
    let world = World::new();
    let imprint = Sha256Digest::of(SIGNED);
    let request = Request::new(imprint, &[0, 1, 2]).expect("a request");
    assert_eq!(Request::parse(&request.to_der().expect("DER")), Ok(request.clone()));
    let answer = world.authority().answer(&request.to_der().expect("DER"), &TSA_SERIAL, at(NOW));
    assert_eq!(answer.failure, None);
    let response = Response::parse(&answer.der).expect("a response");
    let verify = |request: &Request| {
        response.verify_answer(request, &[world.tsa_authority()], at(NOW)).map(|time| time.at())
    };
    assert_eq!(verify(&request), Ok(at(NOW)));
    let other = Request::new(imprint, &[0, 1, 3]).expect("a request");
    assert_eq!(verify(&other).expect_err("refused").code(), Code::TimestampNonce);
    let none = other.without_nonce();
    assert_eq!(verify(&none).expect_err("refused").code(), Code::TimestampNonce);
    let wants = |policy| {
        let mut request = request.clone();
        request.policy = Some(policy);
        request
    };
    assert_eq!(verify(&wants(DEFAULT_POLICY)), Ok(at(NOW)));
    assert_eq!(verify(&wants(CT_TST_INFO)).expect_err("refused").code(), Code::TimestampInvalid);
    let other = Request::new(Sha256Digest::of(b""), &[0, 1, 2]).expect("a request");
    assert_eq!(verify(&other).expect_err("refused").code(), Code::TimestampImprint);
}

#[test]
fn an_authority_says_why_it_refuses() {
    let world = World::new();
    let authority = world.authority();
    let request = Request::new(Sha256Digest::of(SIGNED), &[1]).expect("a request");
    let der = request.to_der().expect("DER");
    let mut other_policy = request.clone();
    other_policy.policy = Some(CT_TST_INFO);
    let mut raw = TimeStampReq::from_der(&der).expect("a request");
    let mut changed = |change: fn(&mut TimeStampReq)| {
        let before = raw.clone();
        change(&mut raw);
        let der = raw.to_der().expect("DER");
        raw = before;
        der
    };
    let nonce = |request: &mut TimeStampReq| {
        request.nonce = Some(Int::new(&[1; MAX_NONCE_BYTES + 1]).expect("DER"));
    };
    let until = NOW + 30 * DAY;
    for (what, der, serial, now, failure) in [
        ("nothing", Vec::new(), &TSA_SERIAL[..], NOW, Failure::BadRequest),
        ("too much", [&der[..], &[0]].concat(), &TSA_SERIAL, NOW, Failure::BadRequest),
        ("too large", vec![0; MAX_REQUEST_BYTES + 1], &TSA_SERIAL, NOW, Failure::BadRequest),
        ("version", changed(|r| r.version = 2), &TSA_SERIAL, NOW, Failure::BadRequest),
        ("nonce", changed(nonce), &TSA_SERIAL, NOW, Failure::BadRequest),
        (
            "hash",
            changed(|r| r.message_imprint.hash_algorithm = algorithm(SHA_512)),
            &TSA_SERIAL,
            NOW,
            Failure::BadRequest,
        ),
        (
            "extensions",
            changed(|r| r.extensions = Some(Vec::new())),
            &TSA_SERIAL,
            NOW,
            Failure::BadRequest,
        ),
        (
            "policy",
            other_policy.to_der().expect("DER"),
            &TSA_SERIAL,
            NOW,
            Failure::UnacceptedPolicy,
        ),
        ("time", der.clone(), &TSA_SERIAL, until + 1, Failure::TimeNotAvailable),
        ("no serial", der.clone(), &[], NOW, Failure::SystemFailure),
        ("long serial", der.clone(), &[1; 20], NOW, Failure::SystemFailure),
    ] {
        let answer = authority.answer(&der, serial, at(now));
        assert_eq!(answer.failure, Some(failure), "{what}");
        let refusal = Response::parse(&answer.der).expect_err("it is refused");
        assert_eq!(refusal.code(), Code::TimestampRefused, "{what}");
    }
    assert_eq!(authority.answer(&der, &TSA_SERIAL, at(until)).failure, None);
    let refusal = authority.stamp(Sha256Digest::of(SIGNED), &TSA_SERIAL, at(until + 1));
    assert_eq!(refusal.expect_err("it is refused").code(), Code::TimestampRefused);
    assert_eq!(
        Request::new(Sha256Digest::of(SIGNED), &[1; 32]).expect_err("long").code(),
        Code::TooLarge
    );
}

#[test]
fn an_authority_has_its_own_certificate_for_time_stamps() {
    let world = World::new();
    let new = |key: &Key, leaf: &Leaf| {
        let der = world.tsa_root.leaf(&world.tsa_key, leaf);
        Authority::new(&Key::from_pkcs8(&key.pkcs8), &der, DEFAULT_POLICY)
            .map(|_| ())
            .map_err(|refusal| refusal.code())
    };
    assert_eq!(new(&world.tsa_key, &Leaf::tsa()), Ok(()));
    assert_eq!(new(&Key::new(), &Leaf::tsa()), Err(Code::CertificateUsage));
    assert_eq!(new(&world.tsa_key, &Leaf::default()), Err(Code::CertificateUsage));
    let not_critical = Leaf { critical_usages: false, ..Leaf::tsa() };
    assert_eq!(new(&world.tsa_key, &not_critical), Err(Code::CertificateUsage));
}
