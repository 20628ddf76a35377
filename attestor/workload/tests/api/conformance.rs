//! What the strict checks refuse; client libraries in use let much of it pass.

use std::collections::BTreeSet;

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING};
use p256::pkcs8::DecodePrivateKey as _;
use workload::{
    conformance::{CheckedSvid, Nonconformity, check_svid, check_x509_response},
    pb::{X509svid, X509svidResponse},
};
use x509_cert::ext::pkix::KeyUsages;

use crate::pki::{Ca, Issued, Leaf};

const NOW: u64 = 1_790_000_000;
const TD: &str = "builds.example.org";
const ID: &str = "spiffe://builds.example.org/job/7";

/// What is checked, with all that can be wrong with it.
#[derive(Clone)]
struct Case {
    id: String,
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
    roots: Vec<Vec<u8>>,
}

struct Pki {
    root: Ca,
    intermediate: Ca,
}

impl Pki {
    fn new() -> Self {
        let root = Ca::root(TD, NOW);
        let intermediate = root.intermediate(TD, NOW);
        Self { root, intermediate }
    }

    fn case(&self, change: impl FnOnce(&mut Leaf)) -> Case {
        let mut leaf = Leaf::new(ID, NOW);
        change(&mut leaf);
        self.of(self.intermediate.issue(&leaf))
    }

    fn of(&self, issued: Issued) -> Case {
        Case {
            id: ID.to_owned(),
            chain: vec![issued.der, self.intermediate.der.clone()],
            key: issued.key_pkcs8,
            roots: vec![self.root.der.clone()],
        }
    }

    fn good(&self) -> Case {
        self.case(|_| {})
    }
}

impl Case {
    fn check(&self, now: u64) -> Result<CheckedSvid, Nonconformity> {
        let direct = check_svid(&self.id, &self.chain, &self.key, &self.roots, now);
        // The same through a response, where all is concatenated.
        let response = X509svidResponse { svids: vec![self.message("")], ..Default::default() };
        let whole = check_x509_response(&response, now).map(|mut svids| svids.remove(0));
        assert_eq!(direct, whole);
        direct
    }

    fn message(&self, hint: &str) -> X509svid {
        X509svid {
            spiffe_id: self.id.clone(),
            x509_svid: self.chain.concat(),
            x509_svid_key: self.key.clone(),
            bundle: self.roots.concat(),
            hint: hint.to_owned(),
        }
    }
}

#[test]
fn every_nonconformity_has_a_case() {
    use Nonconformity as N;
    let pki = Pki::new();
    let good = pki.good();
    assert_eq!(good.check(NOW).unwrap().spiffe_id().to_string(), ID);
    assert_eq!(good.check(NOW).unwrap().not_after_unix_s(), NOW + 3600);
    let other = pki.good();
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = good.clone();
        change(&mut case);
        case
    };
    let leaf = |change: fn(&mut Leaf)| pki.case(change);
    let stranger = Pki::new();
    let mut trailing = good.key.clone();
    trailing.push(0);
    let sec1 = p256::SecretKey::from_pkcs8_der(&good.key).unwrap().to_sec1_der().unwrap();
    let many_roots = vec![good.roots[0].clone(); 33];
    let cases: Vec<(N, Case)> = vec![
        (N::BundleCountInvalid, with(&|case| case.roots.clear())),
        (N::BundleNotACa, with(&|case| case.roots.push(other.chain[0].clone()))),
        (N::SvidChainHasRoot, with(&|case| case.chain.push(case.roots[0].clone()))),
        (N::SvidChainMalformed, with(&|case| case.chain.clear())),
        (N::SvidChainMalformed, with(&|case| case.chain = vec![case.chain[0].clone(); 9])),
        (N::SvidChainUntrusted, with(&|case| case.chain.truncate(1))),
        (N::SvidChainUntrusted, with(&|case| case.roots = vec![stranger.root.der.clone()])),
        (N::SvidIdMalformed, with(&|case| case.id = format!("spiffe://{TD}"))),
        (N::SvidIdMalformed, with(&|case| case.id = format!("spiffe://{TD}/job//7"))),
        (N::SvidIdMalformed, with(&|case| case.id.clear())),
        (N::SvidIdMismatch, with(&|case| case.id = format!("spiffe://{TD}/job/8"))),
        (N::SvidKeyMalformed, with(&|case| case.key = trailing.clone())),
        (N::SvidKeyMalformed, with(&|case| case.key = sec1.to_vec())),
        (N::SvidKeyMalformed, with(&|case| case.key.clear())),
        (N::SvidKeyMismatch, with(&|case| case.key = other.key.clone())),
        (N::SvidLeafExtendedKeyUsage, leaf(|leaf| leaf.extended = vec![ID_KP_CLIENT_AUTH])),
        (N::SvidLeafExtendedKeyUsage, leaf(|leaf| leaf.extended = vec![ID_KP_CODE_SIGNING])),
        (N::SvidLeafIsCa, leaf(|leaf| leaf.constraints = Some(true))),
        (N::SvidLeafIsCa, leaf(|leaf| leaf.constraints = None)),
        (N::SvidLeafKeyUsage, leaf(|leaf| leaf.key_usage = None)),
        (N::SvidLeafKeyUsage, leaf(|leaf| leaf.key_usage_critical = false)),
        (
            N::SvidLeafKeyUsage,
            leaf(|leaf| {
                leaf.key_usage = Some(KeyUsages::KeyEncipherment.into());
            }),
        ),
        (
            N::SvidLeafKeyUsage,
            leaf(|leaf| {
                leaf.key_usage = Some(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign);
            }),
        ),
        (
            N::SvidLeafKeyUsage,
            leaf(|leaf| {
                leaf.key_usage = Some(KeyUsages::DigitalSignature | KeyUsages::CRLSign);
            }),
        ),
        (N::SvidLeafNames, leaf(|leaf| leaf.uris.clear())),
        (N::SvidLeafNames, leaf(|leaf| leaf.uris.push("spiffe://builds.example.org/b".to_owned()))),
        (N::SvidLeafNames, leaf(|leaf| leaf.names_critical = false)),
    ];
    let mut seen = BTreeSet::new();
    for (number, (expected, case)) in cases.iter().enumerate() {
        assert_eq!(case.check(NOW).map(drop), Err(*expected), "case {number}");
        seen.insert(*expected);
    }
    assert_eq!(good.check(NOW + 3601).map(drop), Err(N::SvidExpired));
    assert_eq!(good.check(NOW - 11).map(drop), Err(N::SvidNotYetValid));
    seen.extend([N::SvidExpired, N::SvidNotYetValid]);

    // What only a response can have.
    let respond = |svids: Vec<X509svid>| {
        let response = X509svidResponse { svids, ..Default::default() };
        check_x509_response(&response, NOW).map(drop)
    };
    let message = |change: fn(&mut X509svid)| {
        let mut message = good.message("");
        change(&mut message);
        vec![message]
    };
    assert_eq!(respond(vec![good.message("a"), other.message("b")]), Ok(()));
    assert_eq!(respond(vec![good.message(""), other.message("")]), Ok(()));
    let mut too_many_roots = good.message("");
    too_many_roots.bundle = many_roots.concat();
    for (expected, svids) in [
        (N::SvidCountInvalid, Vec::new()),
        (N::SvidCountInvalid, vec![good.message(""); 17]),
        (N::HintDuplicate, vec![good.message("a"), other.message("a")]),
        (N::HintTooLong, vec![good.message(&"a".repeat(129))]),
        (N::BundleMalformed, message(|svid| svid.bundle.push(0))),
        (N::BundleMalformed, vec![too_many_roots]),
        (N::SvidChainMalformed, message(|svid| svid.x509_svid.truncate(100))),
        (N::SvidChainMalformed, message(|svid| svid.x509_svid.extend([0x30, 0]))),
    ] {
        assert_eq!(respond(svids), Err(expected));
        seen.insert(expected);
    }
    let all: BTreeSet<_> = N::ALL.iter().copied().collect();
    assert_eq!(seen, all);
}

/// Keys and leaves of the kinds that issuers use.
#[test]
fn a_leaf_directly_under_the_root_is_an_svid_too() {
    let pki = Pki::new();
    let issued = pki.root.issue(&Leaf::new(ID, NOW));
    let case = Case { chain: vec![issued.der.clone()], ..pki.of(issued) };
    assert_eq!(case.check(NOW).map(drop), Ok(()));
}

/// Every bit of key, chain and bundle counts: no flipped one passes, unless it changes nothing that
/// is said (there are none in what is checked here).
#[test]
fn no_flipped_bit_of_a_leaf_or_key_passes() {
    let pki = Pki::new();
    let good = pki.good();
    for at in 0..good.chain[0].len() {
        let mut case = good.clone();
        case.chain[0][at] ^= 1;
        let result = check_svid(&case.id, &case.chain, &case.key, &case.roots, NOW).map(drop);
        assert_ne!(result, Ok(()), "byte {at} of the leaf");
    }
    for at in 0..good.key.len() {
        let mut case = good.clone();
        case.key[at] ^= 1;
        let result = check_svid(&case.id, &case.chain, &case.key, &case.roots, NOW).map(drop);
        assert_ne!(result, Ok(()), "byte {at} of the key");
    }
}
