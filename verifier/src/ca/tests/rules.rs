//! Every rule of the profiles, broken on its own.

use std::{collections::HashSet, str::FromStr, time::Duration};

use const_oid::{AssociatedOid, db::rfc5280::ID_KP_CODE_SIGNING};
use der::{
    DateTime, Decode, Encode,
    asn1::{GeneralizedTime, Ia5String, Int, OctetString},
    flagset::FlagSet,
};
use proto::reason::ReasonCode;
use spki::ObjectIdentifier;
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    time::Time,
};

use super::super::{
    lint::{LintedTbs, ProfileViolation, lint},
    profile::{IssuerFacts, Order, Profile, Template, Window, extension, time},
    signer::Serial,
    *,
};
use super::{NOW, facts, segment, trust_domain};

fn order(profile: Profile) -> Order {
    let key = PrivateKey::generate().expect("a key").public().clone();
    let issuer_key = PrivateKey::generate().expect("a key");
    let lifetime = profile.max_lifetime().as_secs();
    let name = Name::from_str("CN=Assay nodes CA 01234567,O=builds.example.org").expect("a name");
    Order {
        profile,
        trust_domain: trust_domain(),
        issuer: IssuerFacts {
            name,
            key_id: issuer_key.id(),
            subject_key_id: issuer_key.id().as_bytes().to_vec(),
            not_before_unix_s: NOW - 1000,
            not_after_unix_s: NOW + lifetime + 1000,
        },
        subject: Name::from_str("CN=worker-01,OU=pool-a").expect("a name"),
        key,
        serial: Serial::random().expect("a serial"),
        window: Window { not_before_unix_s: NOW - 10, not_after_unix_s: NOW + 3600 },
        now_unix_s: NOW,
    }
}

fn node_order() -> Order {
    order(Profile::Node { name: segment("worker-01"), facts: facts() })
}

fn judged(order: &Order, template: &Template) -> Result<(), ProfileViolation> {
    let der = template.to_der().expect("it encodes");
    lint::<NodeSubject>(der, order).map(drop)
}

fn of(template: &mut Template, id: ObjectIdentifier) -> &mut Extension {
    template
        .extensions
        .as_mut()
        .expect("extensions")
        .iter_mut()
        .find(|extension| extension.extn_id == id)
        .expect("the extension")
}

fn set(template: &mut Template, id: ObjectIdentifier, value: &impl Encode) {
    let value = value.to_der().expect("it encodes");
    of(template, id).extn_value = OctetString::new(value).expect("an octet string");
}

fn drop_extension(template: &mut Template, id: ObjectIdentifier) {
    template.extensions.as_mut().expect("extensions").retain(|extension| extension.extn_id != id);
}

fn uri(text: &str) -> GeneralName {
    GeneralName::UniformResourceIdentifier(Ia5String::new(text).expect("ASCII"))
}

fn usage(flags: impl Into<FlagSet<KeyUsages>>) -> KeyUsage {
    KeyUsage(flags.into())
}

type Break = (Rule, &'static str, fn(&mut Template));

const BREAKS: &[Break] = &[
    (Rule::Version, "v2", |t| t.version = 1),
    (Rule::Version, "v1", |t| t.version = 0),
    (Rule::Serial, "8 bytes", |t| t.serial = Int::new(&[1; 8]).expect("a number")),
    (Rule::Serial, "21 bytes", |t| t.serial = Int::new(&[1; 21]).expect("a number")),
    (Rule::Serial, "negative", |t| t.serial = Int::new(&[0x80; 16]).expect("a number")),
    (Rule::Serial, "zero", |t| t.serial = Int::new(&[0]).expect("a number")),
    (Rule::Serial, "another", |t| t.serial = Int::new(&[1; 16]).expect("a number")),
    (Rule::SignatureAlgorithm, "SHA-384", |t| {
        t.signature.oid = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
    }),
    (Rule::SignatureAlgorithm, "NULL parameters", |t| {
        t.signature.parameters = Some(der::Any::null());
    }),
    (Rule::Issuer, "another", |t| t.issuer = Name::from_str("CN=other").expect("a name")),
    (Rule::Issuer, "empty", |t| t.issuer = Name::default()),
    (Rule::Subject, "empty", |t| t.subject = Name::default()),
    (Rule::Subject, "another", |t| t.subject = Name::from_str("CN=worker-02").expect("a name")),
    (Rule::ValidityEncoding, "GeneralizedTime before 2050", |t| {
        let date = DateTime::from_unix_duration(Duration::from_secs(NOW + 3600)).expect("a date");
        t.validity.not_after = Time::GeneralTime(GeneralizedTime::from_date_time(date));
    }),
    (Rule::ValidityStart, "in the future", |t| {
        t.validity.not_before = time(NOW + 1).expect("a time");
    }),
    (Rule::ValidityStart, "backdated too far", |t| {
        t.validity.not_before = time(NOW - 11).expect("a time");
    }),
    (Rule::ValidityLength, "too long", |t| {
        t.validity.not_after = time(NOW + 24 * 3600 + 1).expect("a time");
    }),
    (Rule::ValidityLength, "over already", |t| {
        t.validity.not_after = time(NOW - 1).expect("a time");
    }),
    (Rule::ValidityLength, "ends before it begins", |t| {
        t.validity.not_after = time(NOW - 3600).expect("a time");
    }),
    (Rule::KeyMatch, "another key", |t| {
        t.key = PrivateKey::generate().expect("a key").public().clone();
    }),
    (Rule::KeyType, "P-384", |t| {
        t.key.algorithm.parameters = Some(
            der::Any::encode_from(&ObjectIdentifier::new_unwrap("1.3.132.0.34")).expect("an OID"),
        );
    }),
    (Rule::KeyType, "off the curve", |t| {
        let mut point = t.key.subject_public_key.raw_bytes().to_vec();
        point[64] ^= 1;
        t.key.subject_public_key = der::asn1::BitString::from_bytes(&point).expect("bits");
    }),
    (Rule::ExtensionDuplicate, "key usage twice", |t| {
        let again = of(t, KeyUsage::OID).clone();
        t.extensions.as_mut().expect("extensions").push(again);
    }),
    (Rule::ExtensionUnknown, "name constraints", |t| {
        let extra = extension(const_oid::db::rfc5280::ID_CE_NAME_CONSTRAINTS, false, &1_u8);
        t.extensions.as_mut().expect("extensions").push(extra.expect("an extension"));
    }),
    (Rule::Criticality, "key usage not critical", |t| of(t, KeyUsage::OID).critical = false),
    (Rule::Criticality, "basic constraints not critical", |t| {
        of(t, BasicConstraints::OID).critical = false;
    }),
    (Rule::Criticality, "extended key usage critical", |t| {
        of(t, ExtendedKeyUsage::OID).critical = true;
    }),
    (Rule::Criticality, "alternative names critical", |t| {
        of(t, SubjectAltName::OID).critical = true
    }),
    (Rule::Criticality, "attestation critical", |t| of(t, ATTESTATION_EXTENSION).critical = true),
    (Rule::BasicConstraints, "absent", |t| drop_extension(t, BasicConstraints::OID)),
    (Rule::BasicConstraints, "cA", |t| {
        set(t, BasicConstraints::OID, &BasicConstraints { ca: true, path_len_constraint: None });
    }),
    (Rule::BasicConstraints, "path length", |t| {
        set(
            t,
            BasicConstraints::OID,
            &BasicConstraints { ca: false, path_len_constraint: Some(0) },
        );
    }),
    (Rule::KeyUsage, "absent", |t| drop_extension(t, KeyUsage::OID)),
    (Rule::KeyUsage, "keyCertSign", |t| {
        set(t, KeyUsage::OID, &usage(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign));
    }),
    (Rule::KeyUsage, "cRLSign", |t| {
        set(t, KeyUsage::OID, &usage(KeyUsages::DigitalSignature | KeyUsages::CRLSign));
    }),
    (Rule::KeyUsage, "keyAgreement only", |t| {
        set(t, KeyUsage::OID, &usage(KeyUsages::KeyAgreement))
    }),
    (Rule::ExtendedKeyUsage, "absent", |t| drop_extension(t, ExtendedKeyUsage::OID)),
    (Rule::ExtendedKeyUsage, "clientAuth only", |t| {
        let only = vec![const_oid::db::rfc5280::ID_KP_CLIENT_AUTH];
        set(t, ExtendedKeyUsage::OID, &ExtendedKeyUsage(only));
    }),
    (Rule::ExtendedKeyUsage, "codeSigning too", |t| {
        let mut more = CaRole::Nodes.usages().to_vec();
        more.push(ID_KP_CODE_SIGNING);
        set(t, ExtendedKeyUsage::OID, &ExtendedKeyUsage(more));
    }),
    (Rule::SubjectAltName, "absent", |t| drop_extension(t, SubjectAltName::OID)),
    (Rule::SubjectAltName, "empty", |t| set(t, SubjectAltName::OID, &SubjectAltName(Vec::new()))),
    (Rule::SubjectAltName, "another node", |t| {
        let names = vec![uri("spiffe://builds.example.org/node/worker-02")];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SubjectAltName, "an administrator", |t| {
        let names = vec![uri("spiffe://builds.example.org/admin/worker-01")];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SubjectAltName, "two URIs", |t| {
        let name = uri("spiffe://builds.example.org/node/worker-01");
        set(t, SubjectAltName::OID, &SubjectAltName(vec![name.clone(), name]));
    }),
    (Rule::SubjectAltName, "a DNS name too", |t| {
        let dns = GeneralName::DnsName(Ia5String::new("worker-01").expect("ASCII"));
        let names = vec![uri("spiffe://builds.example.org/node/worker-01"), dns];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SpiffeId, "no path", |t| {
        let names = vec![uri("spiffe://builds.example.org")];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SpiffeId, "dots", |t| {
        let names = vec![uri("spiffe://builds.example.org/node/../admin/ada")];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SpiffeId, "upper-case trust domain", |t| {
        let names = vec![uri("spiffe://Builds.example.org/node/worker-01")];
        set(t, SubjectAltName::OID, &SubjectAltName(names));
    }),
    (Rule::SubjectKeyIdentifier, "absent", |t| drop_extension(t, SubjectKeyIdentifier::OID)),
    (Rule::SubjectKeyIdentifier, "wrong", |t| {
        let id = SubjectKeyIdentifier(OctetString::new([1; 20]).expect("an octet string"));
        set(t, SubjectKeyIdentifier::OID, &id);
    }),
    (Rule::AuthorityKeyIdentifier, "absent", |t| drop_extension(t, AuthorityKeyIdentifier::OID)),
    (Rule::AuthorityKeyIdentifier, "wrong", |t| {
        let id = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new([1; 20]).expect("an octet string")),
            ..AuthorityKeyIdentifier::default()
        };
        set(t, AuthorityKeyIdentifier::OID, &id);
    }),
    (Rule::AttestationExtension, "absent", |t| drop_extension(t, ATTESTATION_EXTENSION)),
    (Rule::AttestationExtension, "other evidence", |t| {
        let other = NodeFacts { evidence_digest: [0; 32], ..facts() };
        of(t, ATTESTATION_EXTENSION).extn_value =
            OctetString::new(other.to_der().expect("it encodes")).expect("an octet string");
    }),
    (Rule::AttestationExtension, "not DER", |t| {
        of(t, ATTESTATION_EXTENSION).extn_value = OctetString::new([0x30]).expect("octets");
    }),
];

#[test]
fn each_broken_rule_is_refused_under_its_own_name() {
    let mut seen = HashSet::new();
    for (rule, what, break_it) in BREAKS {
        let order = node_order();
        let mut template = order.template().expect("a template");
        assert_eq!(judged(&order, &template), Ok(()), "before: {what}");
        break_it(&mut template);
        let violation = judged(&order, &template).expect_err(what);
        assert_eq!(violation.rule, *rule, "{rule}, {what}: {violation}");
        assert_eq!(violation.code(), ReasonCode::CertificateProfileViolation);
        assert!(violation.to_string().contains(rule.name()));
        seen.insert(*rule);
    }
    // Those that a template of a node cannot break are broken in the tests below.
    let elsewhere =
        [Rule::CanonicalDer, Rule::PermitExtension, Rule::UniqueIdentifier, Rule::ValidityIssuer];
    for rule in Rule::ALL {
        assert!(seen.contains(rule) || elsewhere.contains(rule), "no test breaks {rule}");
    }
}

#[test]
fn the_validity_must_lie_within_the_issuers() {
    for change in [
        |order: &mut Order| order.issuer.not_after_unix_s = NOW + 3599,
        |order: &mut Order| order.issuer.not_before_unix_s = NOW - 9,
    ] {
        let mut order = node_order();
        change(&mut order);
        let template = order.template().expect("a template");
        let violation = judged(&order, &template).expect_err("outside the issuer's validity");
        assert_eq!(violation.rule, Rule::ValidityIssuer);
    }
}

fn rule_of(bytes: Vec<u8>, order: &Order) -> Rule {
    let linted: Result<LintedTbs<NodeSubject>, _> = lint(bytes, order);
    linted.expect_err("it breaks a rule").rule
}

#[test]
fn bytes_that_are_not_der_or_go_on_are_refused() {
    let order = node_order();
    let der = order.template().expect("a template").to_der().expect("it encodes");
    let mut longer = der.clone();
    longer.push(0);
    assert_eq!(rule_of(longer, &order), Rule::CanonicalDer);
    assert_eq!(rule_of(der[..der.len() - 1].to_vec(), &order), Rule::CanonicalDer);
    assert_eq!(rule_of(Vec::new(), &order), Rule::CanonicalDer);
}

#[test]
fn unique_identifiers_are_refused() {
    let order = node_order();
    let template = order.template().expect("a template");
    // The template's fields, then issuerUniqueID [1], then the extensions.
    let mut body = Vec::new();
    let all = template.to_der().expect("it encodes");
    let any = der::Any::from_der(&all).expect("a sequence");
    let with = any.value();
    let extensions = {
        let bare = Template { extensions: None, ..template.clone() }.to_der().expect("it encodes");
        let bare = der::Any::from_der(&bare).expect("a sequence");
        bare.value().len()
    };
    body.extend_from_slice(&with[..extensions]);
    body.extend_from_slice(&[0x81, 0x02, 0x00, 0x01]);
    body.extend_from_slice(&with[extensions..]);
    let der = der::Any::new(der::Tag::Sequence, body).expect("a sequence").to_der().expect("DER");
    assert_eq!(rule_of(der, &order), Rule::UniqueIdentifier);
}

#[test]
fn only_nodes_have_the_attestation_extension() {
    let order = order(Profile::Admin { name: segment("ada") });
    let mut template = order.template().expect("a template");
    assert_eq!(judged(&order, &template), Ok(()));
    let value = OctetString::new(facts().to_der().expect("it encodes")).expect("octets");
    template.extensions.as_mut().expect("extensions").push(Extension {
        extn_id: ATTESTATION_EXTENSION,
        critical: false,
        extn_value: value,
    });
    let violation = judged(&order, &template).expect_err("an administrator is no node");
    assert_eq!(violation.rule, Rule::AttestationExtension);
}

#[test]
fn what_the_encoder_makes_always_passes() {
    let names = ["a", "A.b_C-9", "...", &"x".repeat(64)].map(str::to_owned);
    let texts = ["", "v1", "ü → 日本", &"p".repeat(300)].map(str::to_owned);
    let lifetimes = [1, 60, 3600, 86_400];
    let mut cases = 0;
    for name in &names {
        for text in &texts {
            for lifetime in lifetimes {
                for counter in [0, 127, 128, 255, 0x7fff_ffff, u32::MAX] {
                    let mut order = order(Profile::Node {
                        name: segment(name),
                        facts: NodeFacts {
                            policy_version: text.clone(),
                            reset_count: counter,
                            restart_count: !counter,
                            ..facts()
                        },
                    });
                    order.window.not_after_unix_s = NOW + lifetime;
                    let template = order.template().expect("a template");
                    assert_eq!(judged(&order, &template), Ok(()), "{name} {text} {lifetime}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 384);
    let server = vec![
        "verifier.example.org".parse().expect("a name"),
        "10.0.0.1".parse().expect("an address"),
        "2001:db8::1".parse().expect("an address"),
    ];
    for profile in [
        Profile::Root,
        Profile::Ca(CaRole::Nodes),
        Profile::Ca(CaRole::Admins),
        Profile::Ca(CaRole::Servers),
        Profile::Ca(CaRole::Jobs),
        Profile::Ca(CaRole::Results),
        Profile::Results,
        Profile::Timestamp,
        Profile::Admin { name: segment("ada") },
        Profile::Server { names: server },
    ] {
        let order = order(profile);
        let template = order.template().expect("a template");
        assert_eq!(judged(&order, &template), Ok(()), "{:?}", order.profile);
    }
    for scope in JobScope::ALL {
        let order = job_order(scope);
        let template = order.template().expect("a template");
        assert_eq!(judged(&order, &template), Ok(()), "{scope:?}");
    }
    // From 2050 on, times change their form.
    let mut later = order(Profile::Ca(CaRole::Nodes));
    let far = 2_524_608_000 - 3600;
    later.now_unix_s = far;
    later.window = Window { not_before_unix_s: far - 10, not_after_unix_s: far + 7200 };
    later.issuer.not_after_unix_s = far + 7200;
    let template = later.template().expect("a template");
    assert!(matches!(template.validity.not_after, Time::GeneralTime(_)));
    assert_eq!(judged(&later, &template), Ok(()));
}

fn job_facts() -> JobFacts {
    JobFacts {
        permit: segment("00112233445566778899aabbccddeeff"),
        system: segment("github"),
        pool: segment("linux"),
        node: segment("worker-01"),
        claims_digest: [3; 32],
        decision_id: "0067a1b2c3-8f3a".to_owned(),
    }
}

fn job_order(scope: JobScope) -> Order {
    let mut order = order(Profile::Job { scope, facts: job_facts() });
    order.window.not_after_unix_s = NOW + JOB_LIFETIME.as_secs();
    order
}

/// A rule, and how to break it.
type JobBreak = (Rule, fn(&mut Template));

/// What a job may sign by is what its permit says, and nothing of a node or of the verifier.
#[test]
fn a_certificate_of_a_job_is_for_its_permit_and_scope_alone() {
    let names = |order: &Order| order.profile.names(&order.trust_domain).expect("names");
    let expected = [
        (JobScope::Pool, "spiffe://builds.example.org/pool/linux"),
        (
            JobScope::Job,
            "spiffe://builds.example.org/pool/linux/job/github/00112233445566778899aabbccddeeff",
        ),
    ];
    for (scope, id) in expected {
        let order = job_order(scope);
        assert_eq!(names(&order), [uri(id)]);
        let breaks: [JobBreak; 7] = [
            (Rule::PermitExtension, |t| drop_extension(t, PERMIT_EXTENSION)),
            (Rule::PermitExtension, |t| {
                let other = JobFacts { node: segment("worker-02"), ..job_facts() };
                of(t, PERMIT_EXTENSION).extn_value =
                    OctetString::new(other.to_der().expect("it encodes")).expect("octets");
            }),
            (Rule::PermitExtension, |t| {
                of(t, PERMIT_EXTENSION).extn_value = OctetString::new([0x30]).expect("octets");
            }),
            (Rule::Criticality, |t| of(t, PERMIT_EXTENSION).critical = true),
            (Rule::AttestationExtension, |t| {
                of(t, PERMIT_EXTENSION).extn_id = ATTESTATION_EXTENSION;
            }),
            (Rule::SubjectAltName, |t| {
                let names = vec![uri("spiffe://builds.example.org/pool/other")];
                set(t, SubjectAltName::OID, &SubjectAltName(names));
            }),
            (Rule::ExtendedKeyUsage, |t| {
                let mut more = CaRole::Jobs.usages().to_vec();
                more.push(const_oid::db::rfc5280::ID_KP_TIME_STAMPING);
                set(t, ExtendedKeyUsage::OID, &ExtendedKeyUsage(more));
            }),
        ];
        for (rule, break_it) in breaks {
            let mut template = order.template().expect("a template");
            break_it(&mut template);
            assert_eq!(judged(&order, &template).expect_err("broken").rule, rule);
        }
    }
    // Nor does another kind of certificate have it.
    let order = node_order();
    let mut template = order.template().expect("a template");
    let extra = extension(
        PERMIT_EXTENSION,
        false,
        &BasicConstraints { ca: false, path_len_constraint: None },
    );
    template.extensions.as_mut().expect("extensions").push(extra.expect("an extension"));
    let violation = judged(&order, &template).expect_err("a node with a permit");
    assert_eq!(violation.rule, Rule::PermitExtension);
}

#[test]
fn who_stamps_time_may_do_nothing_else() {
    let order = order(Profile::Timestamp);
    let mut template = order.template().expect("a template");
    of(&mut template, ExtendedKeyUsage::OID).critical = false;
    assert_eq!(judged(&order, &template).expect_err("RFC 3161, 2.3").rule, Rule::Criticality);
    let mut template = order.template().expect("a template");
    let usages = CaRole::Results.usages().to_vec();
    of(&mut template, ExtendedKeyUsage::OID).extn_value =
        OctetString::new(der::Encode::to_der(&ExtendedKeyUsage(usages)).expect("it encodes"))
            .expect("octets");
    assert_eq!(judged(&order, &template).expect_err("too much").rule, Rule::ExtendedKeyUsage);
}

#[test]
fn a_server_without_names_is_refused() {
    let order = order(Profile::Server { names: Vec::new() });
    let template = order.template().expect("a template");
    let violation = judged(&order, &template).expect_err("no name");
    assert_eq!(violation.rule, Rule::SubjectAltName);
}

#[test]
fn facts_survive_their_encoding_and_nothing_else_decodes() {
    let der = facts().to_der().expect("it encodes");
    assert_eq!(NodeFacts::from_der(&der), Ok(facts()));
    let job = job_facts().to_der().expect("it encodes");
    assert_eq!(JobFacts::from_der(&job), Ok(job_facts()));
    for cut in 0..job.len() {
        assert!(JobFacts::from_der(&job[..cut]).is_err(), "cut at {cut}");
    }
    for cut in 0..der.len() {
        assert!(NodeFacts::from_der(&der[..cut]).is_err(), "cut at {cut}");
    }
    let mut version = der.clone();
    // SEQUENCE, length, INTEGER, 1, version.
    let at = version.windows(3).position(|w| w == [2, 1, 1]).expect("the version") + 2;
    version[at] = 2;
    assert!(NodeFacts::from_der(&version).is_err());
}

#[test]
fn server_names() {
    for text in ["verifier", "a-b.example.org", "10.0.0.1", "::1", "xn--e1aybc.example"] {
        assert_eq!(text.parse::<ServerName>().expect(text).to_string(), text);
    }
    for text in ["", "A.example", "*.example.org", "a..b", "-a", "a-", "a_b", "1.2.3", "a.b.", "é"]
    {
        let error = text.parse::<ServerName>().expect_err(text);
        assert!(error.to_string().starts_with(&format!("{text:?} is neither")), "{error}");
    }
}
