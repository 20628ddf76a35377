//! Time stamps of our own authority, taken apart and put together again wrongly.

use const_oid::ObjectIdentifier;
use der::{
    Any, Decode as _, Encode as _, Tag,
    asn1::{Int, OctetString, SetOfVec},
};
use x509_cert::{attr::Attribute, ext::Extension};

use self::pki::{DAY, Key, Leaf, NOW, TSA_SERIAL, World, at, authority};
use super::{asn1::*, *};
use crate::{
    Code, Refusal, Sha256Digest, UnixTime, bundle::CertificateAuthority, signer::Signer as _,
};

mod authority;

#[allow(dead_code, reason = "the tests of other modules use the rest")]
#[path = "../../tests/support/pki.rs"]
mod pki;

const SIGNED: &[u8] = b"a signature";

fn verify(der: &[u8], world: &World) -> Result<UnixTime, Refusal> {
    let authorities = [world.tsa_authority()];
    let proven = Response::parse(der)?.verify(&Sha256Digest::of(SIGNED), &authorities, at(NOW))?;
    Ok(proven.at())
}

fn code(der: &[u8], world: &World) -> Code {
    verify(der, world).expect_err("it is refused").code()
}

/// A response, taken apart.
struct Parts {
    response: TimeStampResp,
    signed: SignedData,
    signer: SignerInfo,
    info: TstInfo,
}

impl Parts {
    fn new(world: &World) -> Self {
        let response = TimeStampResp::from_der(&world.stamp(SIGNED, NOW)).expect("a response");
        let token = response.token.as_ref().expect("a token");
        let signed: SignedData = token.content.decode_as().expect("signed data");
        let signer = signed.signer_infos.as_slice()[0].decode_as().expect("a signer");
        let info = TstInfo::from_der(signed.encap_content_info.content.as_bytes()).expect("info");
        Self { response, signed, signer, info }
    }

    /// The info as it now is, its digest signed.
    fn with_info(mut self, change: impl FnOnce(&mut TstInfo)) -> Self {
        change(&mut self.info);
        let der = self.info.to_der().expect("DER");
        let digest = OctetString::new(*Sha256Digest::of(&der).as_bytes()).expect("DER");
        self.signed.encap_content_info.content = OctetString::new(der).expect("DER");
        self.attribute(AT_MESSAGE_DIGEST, Some(Any::encode_from(&digest).expect("DER")))
    }

    /// An attribute exchanged, or taken away.
    fn attribute(mut self, oid: ObjectIdentifier, value: Option<Any>) -> Self {
        let old = self.signer.signed_attributes.take().unwrap_or_default();
        let mut new = SetOfVec::new();
        for attribute in old.into_vec().into_iter().filter(|attribute| attribute.oid != oid) {
            new.insert(attribute).expect("a set");
        }
        if let Some(value) = value {
            let values = SetOfVec::from_iter([value]).expect("a set");
            new.insert(Attribute { oid, values }).expect("a set");
        }
        self.signer.signed_attributes = Some(new);
        self
    }

    fn signed_by(mut self, key: &Key) -> Self {
        let attributes = self.signer.signed_attributes.clone().unwrap_or_default();
        let digest = Sha256Digest::of(&attributes.to_der().expect("DER"));
        let signature = key.software.sign_digest(&digest).expect("a signature");
        self.signer.signature = OctetString::new(signature).expect("DER");
        self
    }

    fn to_der(&self) -> Vec<u8> {
        let mut signed = self.signed.clone();
        if signed.signer_infos.len() == 1 {
            let signer = Any::encode_from(&self.signer).expect("DER");
            signed.signer_infos = SetOfVec::from_iter([signer]).expect("a set");
        }
        let mut response = self.response.clone();
        if let Some(token) = &mut response.token {
            token.content = Any::encode_from(&signed).expect("DER");
        }
        response.to_der().expect("DER")
    }
}

fn general_time(text: &str) -> Any {
    Any::new(Tag::GeneralizedTime, text.as_bytes().to_vec()).expect("DER")
}

#[test]
fn a_time_stamp_that_is_put_together_again_is_the_same() {
    let world = World::new();
    let good = world.stamp(SIGNED, NOW);
    assert_eq!(verify(&good, &world), Ok(at(NOW)));
    let again = Parts::new(&world).with_info(|_| ()).signed_by(&world.tsa_key);
    assert_eq!(verify(&again.to_der(), &world), Ok(at(NOW)));
    let proven = Response::parse(&good).expect("a response");
    let proven = proven
        .verify(&Sha256Digest::of(SIGNED), &[world.tsa_authority()], at(NOW))
        .expect("a time");
    assert_eq!(proven.authority(), world.tsa_uri);
    assert_eq!(proven.certificate(), &Sha256Digest::of(&world.tsa_der));
}

#[test]
fn what_is_signed_must_be_right() {
    type Change = fn(Parts, &World) -> Parts;
    let key_signs = |parts: Parts, world: &World| parts.signed_by(&world.tsa_key);
    let rows: [(&str, Code, Change); 13] = [
        ("no content type", Code::TimestampInvalid, |parts, _| {
            parts.attribute(AT_CONTENT_TYPE, None)
        }),
        ("another content type", Code::TimestampInvalid, |parts, _| {
            let other = Any::encode_from(&CT_SIGNED_DATA).expect("DER");
            parts.attribute(AT_CONTENT_TYPE, Some(other))
        }),
        ("no digest", Code::TimestampInvalid, |parts, _| parts.attribute(AT_MESSAGE_DIGEST, None)),
        ("the digest of another info", Code::TimestampInvalid, |mut parts, _| {
            parts.info.serial_number = Int::new(&[9]).expect("DER");
            let der = parts.info.to_der().expect("DER");
            parts.signed.encap_content_info.content = OctetString::new(der).expect("DER");
            parts
        }),
        ("no certificate named", Code::TimestampInvalid, |parts, _| {
            parts.attribute(AT_SIGNING_CERTIFICATE, None)
        }),
        ("another certificate named", Code::TimestampInvalid, |parts, world| {
            let other = SigningCertificateV2 {
                certs: vec![EssCertIdV2 {
                    hash_algorithm: None,
                    cert_hash: OctetString::new(*Sha256Digest::of(&world.tsa_root.der).as_bytes())
                        .expect("DER"),
                    issuer_serial: None,
                }],
                policies: None,
            };
            parts.attribute(AT_SIGNING_CERTIFICATE, Some(Any::encode_from(&other).expect("DER")))
        }),
        ("another hash of the info", Code::TimestampInvalid, |mut parts, _| {
            parts.signer.digest_algorithm = algorithm(SHA_512);
            parts
        }),
        ("an unknown hash of the info", Code::TimestampInvalid, |mut parts, _| {
            parts.signer.digest_algorithm = algorithm(ECDSA_SHA_256);
            parts
        }),
        ("an unknown signature", Code::TimestampInvalid, |mut parts, _| {
            parts.signer.signature_algorithm = algorithm(SHA_256);
            parts
        }),
        ("a signature with parameters", Code::TimestampInvalid, |mut parts, _| {
            parts.signer.signature_algorithm.parameters = Some(Any::null());
            parts
        }),
        ("a signature with SHA-384 that has SHA-256", Code::TimestampInvalid, |mut parts, _| {
            parts.signer.signature_algorithm =
                algorithm(const_oid::db::rfc5912::ECDSA_WITH_SHA_384);
            parts
        }),
        ("seventeen attributes", Code::TimestampInvalid, |mut parts, _| {
            for arc in 0..14 {
                let oid = CT_TST_INFO.push_arc(arc).expect("an OID");
                let value = Any::null();
                parts = parts.attribute(oid, Some(value));
            }
            parts
        }),
        ("another imprint", Code::TimestampImprint, |parts, _| {
            parts.with_info(|info| {
                let other = Sha256Digest::of(b"another");
                info.message_imprint = request::message_imprint(&other).expect("DER");
            })
        }),
    ];
    for (what, expected, change) in rows {
        let world = World::new();
        let parts = key_signs(change(Parts::new(&world), &world), &world);
        assert_eq!(code(&parts.to_der(), &world), expected, "{what}");
    }
}

#[test]
fn the_signature_must_be_the_authoritys() {
    let world = World::new();
    let by_stranger = Parts::new(&world).signed_by(&Key::new());
    assert_eq!(code(&by_stranger.to_der(), &world), Code::TimestampInvalid);
    let mut unsigned = Parts::new(&world);
    unsigned.signer.signed_attributes = None;
    assert_eq!(code(&unsigned.to_der(), &world), Code::TimestampInvalid);
    // Of what is signed by it directly there is no way to tell attributes from content.
    let info = unsigned.signed.encap_content_info.content.as_bytes();
    let signature = world.tsa_key.software.sign_digest(&Sha256Digest::of(info));
    unsigned.signer.signature = OctetString::new(signature.expect("a signature")).expect("DER");
    assert_eq!(code(&unsigned.to_der(), &world), Code::TimestampInvalid);
}

#[test]
fn the_info_must_be_of_the_known_form() {
    let imprint_of =
        |oid| move |info: &mut TstInfo| info.message_imprint.hash_algorithm = algorithm(oid);
    let time = |text: &'static str| move |info: &mut TstInfo| info.gen_time = general_time(text);
    type Change = Box<dyn Fn(&mut TstInfo)>;
    let rows: [(&str, Code, Change); 10] = [
        ("version", Code::Malformed, Box::new(|info| info.version = 2)),
        ("hash", Code::TimestampImprint, Box::new(imprint_of(SHA_512))),
        (
            "short imprint",
            Code::TimestampImprint,
            Box::new(|info| {
                info.message_imprint.hashed_message = OctetString::new([1; 31]).expect("DER");
            }),
        ),
        (
            "critical extension",
            Code::Malformed,
            Box::new(|info| {
                info.extensions = Some(vec![Extension {
                    extn_id: CT_TST_INFO,
                    critical: true,
                    extn_value: OctetString::new([]).expect("DER"),
                }]);
            }),
        ),
        ("no seconds", Code::Malformed, Box::new(time("202611270600Z"))),
        ("a zone", Code::Malformed, Box::new(time("20261127060000+0100"))),
        ("a trailing zero", Code::Malformed, Box::new(time("20261127060000.50Z"))),
        ("an empty fraction", Code::Malformed, Box::new(time("20261127060000.Z"))),
        ("letters", Code::Malformed, Box::new(time("20261127060000.xZ"))),
        (
            "another type",
            Code::Malformed,
            Box::new(|info| {
                info.gen_time = Any::new(Tag::UtcTime, b"261127060000Z".to_vec()).expect("DER");
            }),
        ),
    ];
    for (what, expected, change) in rows {
        let world = World::new();
        let parts = Parts::new(&world).with_info(change).signed_by(&world.tsa_key);
        assert_eq!(code(&parts.to_der(), &world), expected, "{what}");
    }
    for (text, seconds) in [("20261127060000.5Z", NOW), ("20261127055959.999Z", NOW - 1)] {
        let world = World::new();
        let parts = Parts::new(&world).with_info(time(text)).signed_by(&world.tsa_key);
        assert_eq!(verify(&parts.to_der(), &world), Ok(at(seconds)), "{text}");
    }
}

#[test]
fn the_response_must_be_of_the_known_form() {
    let world = World::new();
    let good = world.stamp(SIGNED, NOW);
    for length in [0, 1, good.len() - 1] {
        assert_eq!(code(&good[..length], &world), Code::Malformed, "{length}");
    }
    assert_eq!(code(&[&good[..], &[0]].concat(), &world), Code::Malformed);
    assert_eq!(code(&vec![0; MAX_RESPONSE_BYTES + 1], &world), Code::TooLarge);
    type Change = fn(&mut Parts);
    let rows: [(&str, Code, Change); 7] = [
        ("no token", Code::Malformed, |parts| parts.response.token = None),
        ("refused", Code::TimestampRefused, |parts| parts.response.status.status = 2),
        ("waiting", Code::TimestampRefused, |parts| parts.response.status.status = 3),
        ("another content", Code::Malformed, |parts| {
            parts.response.token.as_mut().expect("a token").content_type = CT_TST_INFO;
        }),
        ("another content inside", Code::Malformed, |parts| {
            parts.signed.encap_content_info.content_type = CT_SIGNED_DATA;
        }),
        ("no signer", Code::Malformed, |parts| parts.signed.signer_infos = SetOfVec::new()),
        ("nine certificates", Code::TooLarge, |parts| {
            let world = World::new();
            let leaf = |_| world.tsa_root.leaf(&Key::new(), &Leaf::tsa());
            let many = (0..9).map(leaf).map(|der| Any::from_der(&der).expect("DER"));
            parts.signed.certificates = Some(SetOfVec::from_iter(many).expect("a set"));
        }),
    ];
    for (what, expected, change) in rows {
        let mut parts = Parts::new(&world);
        change(&mut parts);
        assert_eq!(code(&parts.to_der(), &world), expected, "{what}");
    }
    let mut granted_with_modifications = Parts::new(&world);
    granted_with_modifications.response.status.status = 1;
    assert_eq!(verify(&granted_with_modifications.to_der(), &world), Ok(at(NOW)));
}

#[test]
fn a_signature_has_one_of_the_named_algorithms_with_its_own_parameters() {
    use const_oid::db::rfc5912::{
        ECDSA_WITH_SHA_512, ID_RSASSA_PSS, RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION,
        SHA_256_WITH_RSA_ENCRYPTION,
    };
    let mut signer = Parts::new(&World::new()).signer;
    let octets = Any::new(der::Tag::OctetString, Vec::new()).expect("a value");
    for (oid, [absent, null, other]) in [
        (ECDSA_SHA_256, [2, 0, 0]),
        (ECDSA_WITH_SHA_512, [2, 0, 0]),
        (RSA_ENCRYPTION, [1, 1, 0]),
        (SHA_256_WITH_RSA_ENCRYPTION, [1, 1, 0]),
        (SHA_1_WITH_RSA_ENCRYPTION, [0, 0, 0]),
        (ID_RSASSA_PSS, [0, 0, 0]),
    ] {
        for (parameters, count) in
            [(None, absent), (Some(Any::null()), null), (Some(octets.clone()), other)]
        {
            signer.signature_algorithm = spki::AlgorithmIdentifier { oid, parameters };
            let known = super::algorithms::of(&signer).map_or(0, |known| known.len());
            assert_eq!(known, count, "{oid} {:?}", signer.signature_algorithm.parameters);
        }
    }
    signer.signature_algorithm = algorithm(RSA_ENCRYPTION);
    signer.digest_algorithm = algorithm(ECDSA_SHA_256);
    assert!(super::algorithms::of(&signer).is_none(), "a hash that is none");
}

#[test]
fn the_authority_must_be_trusted_then() {
    let with_leaf = |leaf: Leaf| {
        let mut world = World::new();
        world.tsa_der = world.tsa_root.leaf(&world.tsa_key, &leaf);
        world
    };
    // The authority itself would refuse such a certificate: the token is made by a good one first.
    let stamped = |world: &World| {
        let good = world.tsa_root.leaf(&world.tsa_key, &Leaf::tsa());
        let mut parts = Parts::new(&World {
            root: pki::Ca::root("unused"),
            issuing: pki::Ca::root("unused"),
            tsa_root: pki::Ca::root("Test TSA Root"),
            tsa_key: Key::from_pkcs8(&world.tsa_key.pkcs8),
            tsa_der: good,
            tsa_uri: world.tsa_uri,
        });
        let certificate = Any::from_der(&world.tsa_der).expect("DER");
        parts.signed.certificates = Some(SetOfVec::from_iter([certificate]).expect("a set"));
        let named = SigningCertificateV2 {
            certs: vec![EssCertIdV2 {
                hash_algorithm: Some(algorithm(SHA_256)),
                cert_hash: OctetString::new(*Sha256Digest::of(&world.tsa_der).as_bytes())
                    .expect("DER"),
                issuer_serial: None,
            }],
            policies: None,
        };
        let named = Any::encode_from(&named).expect("DER");
        parts.attribute(AT_SIGNING_CERTIFICATE, Some(named)).signed_by(&world.tsa_key).to_der()
    };
    let usages = Leaf::tsa().usages;
    let also_code = [usages.clone(), Leaf::default().usages].concat();
    for (what, leaf) in [
        ("not critical", Leaf { critical_usages: false, ..Leaf::tsa() }),
        ("another usage beside", Leaf { usages: also_code, ..Leaf::tsa() }),
        ("another usage", Leaf { usages: Leaf::default().usages, ..Leaf::tsa() }),
        ("no usage", Leaf { usages: Vec::new(), ..Leaf::tsa() }),
        ("no key usage", Leaf { key_usages: None, ..Leaf::tsa() }),
        ("a CA", Leaf { is_ca: true, ..Leaf::tsa() }),
        ("valid before", Leaf { until: NOW - 1, ..Leaf::tsa() }),
        ("valid later", Leaf { from: NOW + 1, ..Leaf::tsa() }),
    ] {
        let world = with_leaf(leaf);
        assert_eq!(code(&stamped(&world), &world), Code::TimestampUntrusted, "{what}");
    }
    for (what, leaf) in [
        ("as it is", Leaf::tsa()),
        ("to the second", Leaf { from: NOW, until: NOW, ..Leaf::tsa() }),
    ] {
        let world = with_leaf(leaf);
        assert_eq!(verify(&stamped(&world), &world), Ok(at(NOW)), "{what}");
    }
}

#[test]
fn who_is_trusted_is_the_callers_list_alone() {
    let world = World::new();
    let response = Response::parse(&world.stamp(SIGNED, NOW)).expect("a response");
    let verify = |authorities: &[CertificateAuthority]| {
        response.verify(&Sha256Digest::of(SIGNED), authorities, at(NOW)).map(|time| time.at())
    };
    let refusal = |authorities: &[CertificateAuthority]| {
        verify(authorities).expect_err("it is refused").code()
    };
    // The certificate comes with the token; the root alone is enough.
    let root_alone = authority("x:root", std::slice::from_ref(&world.tsa_root.der));
    assert_eq!(verify(std::slice::from_ref(&root_alone)), Ok(at(NOW)));
    assert_eq!(refusal(&[]), Code::TimestampUntrusted);
    let stranger = World::new().tsa_authority();
    assert_eq!(refusal(std::slice::from_ref(&stranger)), Code::TimestampUntrusted);
    assert_eq!(verify(&[stranger, root_alone]), Ok(at(NOW)));
    // Who issues certificates does not stamp.
    assert_eq!(refusal(&[world.jobs_authority()]), Code::TimestampUntrusted);
    let period = |from, until| {
        let chain = [world.tsa_der.clone(), world.tsa_root.der.clone()];
        CertificateAuthority::new("x:y", ["", ""], &chain, at(from), Some(at(until)))
            .expect("an authority")
    };
    assert_eq!(verify(&[period(NOW, NOW)]), Ok(at(NOW)));
    assert_eq!(refusal(&[period(NOW - DAY, NOW - 1)]), Code::TimestampUntrusted);
    assert_eq!(refusal(&[period(NOW + 1, NOW + DAY)]), Code::TimestampUntrusted);
    // Without certificate in the token it must be in the list.
    let mut bare = Parts::new(&world);
    bare.signed.certificates = None;
    let bare = Response::parse(&bare.to_der()).expect("a response");
    let imprint = Sha256Digest::of(SIGNED);
    let root_alone = authority("x:root", std::slice::from_ref(&world.tsa_root.der));
    let refusal = bare.verify(&imprint, &[root_alone], at(NOW)).expect_err("it is refused");
    assert_eq!(refusal.code(), Code::TimestampUntrusted);
    assert!(bare.verify(&imprint, &[world.tsa_authority()], at(NOW)).is_ok());
}

#[test]
fn the_future_is_not_believed() {
    let world = World::new();
    let response = Response::parse(&world.stamp(SIGNED, NOW)).expect("a response");
    let verify =
        |now| response.verify(&Sha256Digest::of(SIGNED), &[world.tsa_authority()], at(now));
    assert!(verify(NOW - ClockTolerance::SECONDS).is_ok());
    let refusal = verify(NOW - ClockTolerance::SECONDS - 1).expect_err("it is refused");
    assert_eq!(refusal.code(), Code::TimestampInFuture);
}

/// Whichever byte is changed: the time is refused, or it is the same time of the same authority.
#[test]
fn no_changed_byte_gives_another_time() {
    let world = World::new();
    let good = world.stamp(SIGNED, NOW);
    let mut accepted = 0;
    for place in 0..good.len() {
        for flip in [0x01, 0x80] {
            let mut changed = good.clone();
            changed[place] ^= flip;
            match verify(&changed, &world) {
                Ok(time) => {
                    accepted += 1;
                    assert_eq!(time, at(NOW), "byte {place}");
                }
                Err(refusal) => assert_ne!(refusal.code(), Code::TimestampNonce),
            }
        }
    }
    // Versions and lists that repeat what is signed elsewhere, and a spare certificate.
    assert!(accepted < good.len() / 2, "{accepted} of {}", good.len());
}
