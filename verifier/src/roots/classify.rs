//! What an imported byte string is: anchor, intermediate, CRL, or nothing that can be used.

use std::collections::BTreeMap;

use appraisal::x509::{Certificate, Crl, RootsBuilder};
use proto::digest::Digest;

use super::{pem, read::Item};

/// What an endorsement is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pinned root: paths end here.
    Anchor,
    /// A CA certificate that a path may lead through.
    Intermediate,
    /// A revocation list.
    Crl,
}

impl Kind {
    /// `anchor`, `intermediate` or `crl`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Intermediate => "intermediate",
            Self::Crl => "crl",
        }
    }
}

/// How certificates are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// All of them are anchors.
    Anchors,
    /// A directory `RootCA` or `IntermediateCA` in the label decides; else a certificate that is
    /// its own issuer is an anchor and every other one an intermediate.
    #[default]
    Guess,
    /// All of them are intermediates.
    Intermediates,
}

/// One endorsement, ready for the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is used as.
    pub kind: Kind,
    /// Where it came from.
    pub label: String,
    /// SHA-256 of `der`.
    pub sha256: Digest,
    /// Certificate or CRL.
    pub der: Vec<u8>,
}

/// Something that looks like an endorsement and cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where it came from.
    pub label: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// What an import found.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Endorsements, by kind and SHA-256; each once.
    pub entries: Vec<Entry>,
    /// What cannot be used, in the order of reading.
    pub rejected: Vec<Rejected>,
    /// Labels of files that are neither certificate nor CRL by name and content.
    pub ignored: Vec<String>,
}

/// Classifies everything that was read.
pub(super) fn classify(items: Vec<Item>, placement: Placement) -> Import {
    let mut out = Import::default();
    let mut entries: BTreeMap<Digest, Entry> = BTreeMap::new();
    for Item { label, bytes } in items {
        let Some(blocks) = pem::blocks(&bytes) else {
            if bytes.first() == Some(&0x30) || is_endorsement_name(&label) {
                add(&mut entries, &mut out, label, &bytes, placement);
            } else {
                out.ignored.push(label);
            }
            continue;
        };
        let several = blocks.len() > 1;
        for (number, block) in (1..).zip(blocks) {
            let label = if several { format!("{label}#{number}") } else { label.clone() };
            match (block.label.as_str(), block.content) {
                (
                    "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CRL",
                    Ok(der),
                ) => {
                    add(&mut entries, &mut out, label, &der, placement);
                }
                (_, Err(reason)) => {
                    out.rejected.push(Rejected { label, reason: reason.to_owned() });
                }
                (other, Ok(_)) => {
                    let reason = format!("a PEM block {other:?} is neither certificate nor CRL");
                    out.rejected.push(Rejected { label, reason });
                }
            }
        }
    }
    out.entries = entries.into_values().collect();
    out.entries.sort_by_key(|entry| (entry.kind, entry.sha256));
    out
}

fn add(
    entries: &mut BTreeMap<Digest, Entry>,
    out: &mut Import,
    label: String,
    der: &[u8],
    placement: Placement,
) {
    match judge(&label, der, placement) {
        Ok((kind, sha256)) => {
            let entry = Entry { kind, label, sha256, der: der.to_vec() };
            // The same certificate as anchor and as intermediate is an anchor.
            match entries.get(&sha256) {
                Some(known) if known.kind <= kind => {}
                _ => {
                    entries.insert(sha256, entry);
                }
            }
        }
        Err(reason) => out.rejected.push(Rejected { label, reason }),
    }
}

fn judge(label: &str, der: &[u8], placement: Placement) -> Result<(Kind, Digest), String> {
    let certificate = match Certificate::parse(der) {
        Ok(certificate) => certificate,
        Err(error) => {
            return match Crl::parse(der) {
                Ok(crl) => Ok((Kind::Crl, crl.sha256())),
                Err(crl_error) if has_extension(label, "crl") => Err(format!("CRL {crl_error}")),
                Err(_) => Err(format!("certificate {error}")),
            };
        }
    };
    let sha256 = certificate.sha256();
    let kind = match placement {
        Placement::Anchors => Kind::Anchor,
        Placement::Intermediates => Kind::Intermediate,
        Placement::Guess => guess(label, &certificate),
    };
    // The set has the last word on what can be part of a path.
    let mut trial = RootsBuilder::new();
    match kind {
        Kind::Anchor => trial.anchor(certificate),
        Kind::Intermediate | Kind::Crl => trial.intermediate(certificate),
    }
    .map_err(|error| error.to_string())?;
    Ok((kind, sha256))
}

/// Microsoft's list is laid out as `VENDOR/RootCA/…` and `VENDOR/IntermediateCA/…`. Its roots need
/// not be self-issued: some manufacturers' are certified by a general CA that is not on the list.
fn guess(label: &str, certificate: &Certificate) -> Kind {
    let mut directories = label.rsplit(['/', '\\', ':']).skip(1).map(str::to_ascii_lowercase);
    let hint = directories.find_map(|directory| match directory.as_str() {
        "rootca" | "root" | "roots" => Some(Kind::Anchor),
        "intermediateca" | "intermediate" | "intermediates" => Some(Kind::Intermediate),
        _ => None,
    });
    hint.unwrap_or_else(|| {
        let own_key = match (certificate.authority_key_id(), certificate.subject_key_id()) {
            (Some(authority), Some(subject)) => authority == subject,
            _ => true,
        };
        if certificate.is_self_issued() && own_key { Kind::Anchor } else { Kind::Intermediate }
    })
}

fn is_endorsement_name(label: &str) -> bool {
    ["cer", "crl", "crt", "der", "pem"].iter().any(|extension| has_extension(label, extension))
}

fn has_extension(label: &str, extension: &str) -> bool {
    label.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case(extension))
}
