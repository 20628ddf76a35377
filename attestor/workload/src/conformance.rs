//! Strict checks of what a Workload API hands out.
//!
//! The server runs them before a job is admitted and at each rotation, so that nothing leaves it that
//! does not hold together; tests run them over what came out of the socket. Client libraries in use
//! accept a key that is not the leaf's, an ID that is not in the certificate and a leaf that does not
//! chain to its bundle, so they are no substitute.
//!
//! # Source
//! SPIFFE "The X.509 SPIFFE Verifiable Identity Document"; SPIFFE "The SPIFFE Workload API".

mod certificate;
mod key;

use std::collections::BTreeSet;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use proto::spiffe::SpiffeId;

use crate::pb::X509svidResponse;

/// Certificates of one chain: a leaf under a few intermediates.
pub const MAX_CHAIN: usize = 8;
/// Roots of one trust domain: old and new ones side by side.
pub const MAX_ROOTS: usize = 32;
/// SVIDs of one job.
pub const MAX_SVIDS: usize = 16;
/// Bytes of one hint.
pub const MAX_HINT_BYTES: usize = 128;

macro_rules! problems {
    ($($variant:ident $code:literal $doc:literal;)*) => {
        /// What is wrong with an SVID, a bundle or a response. Alphabetical.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
        #[non_exhaustive]
        pub enum Nonconformity {
            $(#[doc = $doc] #[error("{}: {}", self.code(), $doc)] $variant,)*
        }

        impl Nonconformity {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

problems! {
    BundleCountInvalid "BUNDLE_COUNT_INVALID" "A bundle has no root, or too many.";
    BundleMalformed "BUNDLE_MALFORMED" "A bundle is not a sequence of DER certificates.";
    BundleNotACa "BUNDLE_NOT_A_CA" "A bundle holds a certificate that may not sign certificates.";
    HintDuplicate "HINT_DUPLICATE" "Two SVIDs of a response have the same hint.";
    HintTooLong "HINT_TOO_LONG" "A hint is longer than the limit.";
    SvidChainHasRoot "SVID_CHAIN_HAS_ROOT" "A chain holds one of the bundle's roots.";
    SvidChainMalformed "SVID_CHAIN_MALFORMED" "A chain is not a sequence of DER certificates, or too long.";
    SvidChainUntrusted "SVID_CHAIN_UNTRUSTED" "A chain does not lead from its leaf to the bundle.";
    SvidCountInvalid "SVID_COUNT_INVALID" "A response has no SVID, or too many.";
    SvidExpired "SVID_EXPIRED" "A certificate of a chain has expired.";
    SvidIdMalformed "SVID_ID_MALFORMED" "The ID is no SPIFFE ID with a path.";
    SvidIdMismatch "SVID_ID_MISMATCH" "The leaf is another identity's.";
    SvidKeyMalformed "SVID_KEY_MALFORMED" "The key is not one unencrypted PKCS#8 key of a supported kind.";
    SvidKeyMismatch "SVID_KEY_MISMATCH" "The key is not the leaf's.";
    SvidLeafExtendedKeyUsage "SVID_LEAF_EXTENDED_KEY_USAGE" "The leaf's extended key usage is not for servers and clients both.";
    SvidLeafIsCa "SVID_LEAF_IS_CA" "The leaf is a CA, or does not say that it is none.";
    SvidLeafKeyUsage "SVID_LEAF_KEY_USAGE" "The leaf's key usage is absent, not critical, lacks digitalSignature, or allows signing certificates.";
    SvidLeafNames "SVID_LEAF_NAMES" "The leaf has not exactly one URI name, or a subject alternative name that cannot be read.";
    SvidNotYetValid "SVID_NOT_YET_VALID" "A certificate of a chain is not valid yet.";
}

/// An X.509-SVID that holds together at the time it was checked.
///
/// # Proves
/// The leaf has the form of an X.509-SVID, names exactly `spiffe_id`, has the public half of the key,
/// and chains to the roots at `now_unix_s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSvid {
    spiffe_id: SpiffeId,
    not_after_unix_s: u64,
}

impl CheckedSvid {
    /// The identity.
    #[must_use]
    pub const fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The leaf's last second of validity.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }
}

/// Checks an SVID: its ID, its chain (leaf first, one DER certificate each), its PKCS#8 key, its
/// trust domain's roots (one DER certificate each).
///
/// # Errors
/// The first [`Nonconformity`], in the order ID, bundle, chain's form, leaf, key, chain's signatures
/// and time.
pub fn check_svid(
    spiffe_id: &str,
    chain: &[Vec<u8>],
    key_pkcs8: &[u8],
    roots: &[Vec<u8>],
    now_unix_s: u64,
) -> Result<CheckedSvid, Nonconformity> {
    let text = spiffe_id;
    let spiffe_id: SpiffeId = text.parse().map_err(|_| Nonconformity::SvidIdMalformed)?;
    if spiffe_id.path().is_empty() {
        return Err(Nonconformity::SvidIdMalformed);
    }
    check_roots(roots)?;
    let (leaf, intermediates) = chain.split_first().ok_or(Nonconformity::SvidChainMalformed)?;
    if chain.len() > MAX_CHAIN {
        return Err(Nonconformity::SvidChainMalformed);
    }
    for certificate in chain {
        certificate::parse(certificate).ok_or(Nonconformity::SvidChainMalformed)?;
        if roots.contains(certificate) {
            return Err(Nonconformity::SvidChainHasRoot);
        }
    }
    let facts = certificate::leaf(leaf)?;
    if facts.uri != text {
        return Err(Nonconformity::SvidIdMismatch);
    }
    key::check(key_pkcs8, &facts.public_key_der)?;
    check_path(leaf, intermediates, roots, now_unix_s)?;
    Ok(CheckedSvid { spiffe_id, not_after_unix_s: facts.not_after_unix_s })
}

/// Checks a trust domain's roots: DER certificates of CAs, at least one.
///
/// # Errors
/// [`Nonconformity`] of a bundle.
pub fn check_roots(roots: &[Vec<u8>]) -> Result<(), Nonconformity> {
    if roots.is_empty() || roots.len() > MAX_ROOTS {
        return Err(Nonconformity::BundleCountInvalid);
    }
    for root in roots {
        let certificate = certificate::parse(root).ok_or(Nonconformity::BundleMalformed)?;
        if !certificate::may_sign(&certificate) {
            return Err(Nonconformity::BundleNotACa);
        }
    }
    Ok(())
}

/// Checks a whole answer to `FetchX509SVID`.
///
/// # Errors
/// The first [`Nonconformity`] of any SVID, or of the response as a whole.
pub fn check_x509_response(
    response: &X509svidResponse,
    now_unix_s: u64,
) -> Result<Vec<CheckedSvid>, Nonconformity> {
    check_hints(response.svids.iter().map(|svid| svid.hint.as_str()))?;
    let check = |svid: &crate::pb::X509svid| {
        let chain = split(&svid.x509_svid, MAX_CHAIN).ok_or(Nonconformity::SvidChainMalformed)?;
        let roots = split(&svid.bundle, MAX_ROOTS).ok_or(Nonconformity::BundleMalformed)?;
        check_svid(&svid.spiffe_id, &chain, &svid.x509_svid_key, &roots, now_unix_s)
    };
    if response.svids.is_empty() || response.svids.len() > MAX_SVIDS {
        return Err(Nonconformity::SvidCountInvalid);
    }
    response.svids.iter().map(check).collect()
}

/// Hints are short, and no two that say something are equal.
pub(crate) fn check_hints<'a>(hints: impl Iterator<Item = &'a str>) -> Result<(), Nonconformity> {
    let mut seen = BTreeSet::new();
    for hint in hints.filter(|hint| !hint.is_empty()) {
        if hint.len() > MAX_HINT_BYTES {
            return Err(Nonconformity::HintTooLong);
        }
        if !seen.insert(hint) {
            return Err(Nonconformity::HintDuplicate);
        }
    }
    Ok(())
}

/// Takes certificates apart that stand one after the other; `None` for anything else, or more than
/// `max`.
#[must_use]
pub fn split(mut bytes: &[u8], max: usize) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        if parts.len() == max {
            return None;
        }
        let (one, rest) = certificate::first_sequence(bytes)?;
        parts.push(one.to_vec());
        bytes = rest;
    }
    Some(parts)
}

fn check_path(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &[Vec<u8>],
    now_unix_s: u64,
) -> Result<(), Nonconformity> {
    let untrusted = |_| Nonconformity::SvidChainUntrusted;
    let ders: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Result<Vec<_>, _> = ders.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|_| Nonconformity::BundleMalformed)?;
    let between: Vec<_> =
        intermediates.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(untrusted)?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix_s));
    let usage = webpki::KeyUsage::client_auth();
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    match leaf.verify_for_usage(algorithms, &anchors, &between, now, usage, None, None) {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertExpired { .. }) => Err(Nonconformity::SvidExpired),
        Err(webpki::Error::CertNotValidYet { .. }) => Err(Nonconformity::SvidNotYetValid),
        Err(error) => Err(untrusted(error)),
    }
}
