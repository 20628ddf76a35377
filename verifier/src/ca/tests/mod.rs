//! Tests of the CA.

mod directory;
mod openssl;
mod rules;

use std::{path::Path, time::Duration};

use proto::tpm::public::Public;

use super::{
    CaDir, CaRole, Issued, Issuer, NodeFacts, NodeSubject, PrivateKey, Segment, Terms, TrustDomain,
    prepare, sign,
};

/// 2026-06-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_780_272_000;

pub(crate) fn trust_domain() -> TrustDomain {
    "builds.example.org".parse().expect("a trust domain")
}

pub(crate) fn segment(text: &str) -> Segment {
    text.parse().expect("a name")
}

pub(crate) fn created(state: &Path, now_unix_s: u64) -> CaDir {
    let ca = CaDir::new(state, trust_domain());
    ca.create(now_unix_s).expect("the CA is created");
    ca
}

/// A `TPMT_PUBLIC` of an ECDSA key; `strip` leaves leading zeros of the coordinates out.
pub(crate) fn tpm_public(key: &PrivateKey, strip: bool) -> Public {
    let point = key.public().subject_public_key.raw_bytes();
    let mut out = Vec::new();
    for word in [0x0023_u16, 0x000B] {
        out.extend(word.to_be_bytes());
    }
    out.extend(0x0004_0072_u32.to_be_bytes());
    for word in [0_u16, 0x0010, 0x0018, 0x000B, 0x0003, 0x0010] {
        out.extend(word.to_be_bytes());
    }
    for mut coordinate in [&point[1..33], &point[33..65]] {
        while let (true, Some((0, rest))) = (strip, coordinate.split_first()) {
            coordinate = rest;
        }
        out.extend(u16::try_from(coordinate.len()).expect("32 or less").to_be_bytes());
        out.extend(coordinate);
    }
    Public::decode(&out).expect("a public area")
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        evidence_digest: [0xee; 32],
        policy_version: "7".to_owned(),
        reference_set_digest: [0xaa; 32],
        reset_count: u32::MAX,
        restart_count: 0,
        decision_id: "0197-000042".to_owned(),
    }
}

pub(crate) fn node(name: &str, now_unix_s: u64) -> (NodeSubject, PrivateKey) {
    let key = PrivateKey::generate().expect("a key");
    let public = tpm_public(&key, false);
    let subject =
        NodeSubject::new(segment(name), segment("pool-a"), &public, facts(), now_unix_s + 60)
            .expect("a subject");
    (subject, key)
}

pub(crate) fn issue_node(
    issuer: &Issuer,
    name: &str,
    now_unix_s: u64,
) -> (Issued<NodeSubject>, PrivateKey) {
    let (subject, key) = node(name, now_unix_s);
    let td = trust_domain();
    let terms = Terms { trust_domain: &td, now_unix_s, lifetime: Duration::from_secs(3600) };
    let linted = prepare(subject, issuer.certificate(), &terms).expect("it passes the lint");
    (sign(linted, issuer.key()).expect("it is signed"), key)
}

pub(crate) fn nodes(ca: &CaDir) -> Issuer {
    ca.issuer(CaRole::Nodes).expect("the node CA loads")
}
