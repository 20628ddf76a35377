//! The audit trail: entries, their hash chain, the walk that checks it, and the anchor file.
//!
//! Each replica of the verifier writes one chain. Entry n holds the hash of entry n-1, so that a
//! changed, inserted, reordered or removed entry shows at the first place that differs. A cut-off
//! tail does not show in the chain itself: the anchor file `audit.head` names an entry that must be
//! there. The anchor follows the chain by up to a second, so a cut of only the entries since the
//! last anchor stays unseen, as does a rewrite of the whole folder by somebody who owns it; whoever
//! needs more exports [`ChainHead`] to another machine.
//!
//! # Format
//! `entry_hash = SHA-256("assay/v1/audit" ‖ 0x00 ‖ prev_hash ‖ u64(len) ‖ entry)`, where `entry` is
//! the concatenation of `u64(len) ‖ bytes` for replica, sequence number (8 bytes), time (8 bytes,
//! two's complement), kind, actor, subject and body. All integers are big-endian; `prev_hash` of
//! the first entry is 32 zero bytes.

use std::{
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use proto::digest::{Digest, HashAlg};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

const DOMAIN: &[u8] = b"assay/v1/audit\0";
/// Name of the anchor file in the state folder.
pub const ANCHOR_FILE: &str = "audit.head";
/// Largest anchor file: a dozen chains of 200 bytes.
const MAX_ANCHOR_BYTES: u64 = 64 * 1024;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditKind {
    /// An action of an administrator that changes no record of its own.
    Action,
    /// An admission rule was added or removed.
    AdmissionRule,
    /// An administrator was added, changed or revoked.
    Admin,
    /// A certificate is about to be signed.
    CertificateIntent,
    /// A certificate was revoked.
    CertificateRevoked,
    /// A certificate was signed.
    CertificateSigned,
    /// An appraisal was decided.
    Decision,
    /// A root, intermediate or CRL was imported or removed.
    Endorsement,
    /// A golden set was proposed, signed or changed its state.
    GoldenSet,
    /// A manifest of files was imported.
    Manifest,
    /// A node record was added, changed or removed.
    Node,
    /// A job's permit ended.
    PermitEnded,
    /// A job's permit is about to be issued.
    PermitIssued,
    /// A job's permit was redeemed.
    PermitRedeemed,
    /// A site policy was proposed, signed or changed its state.
    Policy,
    /// Evidence was dropped by retention.
    Retention,
    /// A ring of security keys was proposed, signed or changed its state.
    SecurityKeys,
}

impl AuditKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Action,
        Self::AdmissionRule,
        Self::Admin,
        Self::CertificateIntent,
        Self::CertificateRevoked,
        Self::CertificateSigned,
        Self::Decision,
        Self::Endorsement,
        Self::GoldenSet,
        Self::Manifest,
        Self::Node,
        Self::PermitEnded,
        Self::PermitIssued,
        Self::PermitRedeemed,
        Self::Policy,
        Self::Retention,
        Self::SecurityKeys,
    ];

    /// Stable name, as stored and hashed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::AdmissionRule => "admission-rule",
            Self::Admin => "admin",
            Self::CertificateIntent => "certificate-intent",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CertificateSigned => "certificate-signed",
            Self::Decision => "decision",
            Self::Endorsement => "endorsement",
            Self::GoldenSet => "golden-set",
            Self::Manifest => "manifest",
            Self::Node => "node",
            Self::PermitEnded => "permit-ended",
            Self::PermitIssued => "permit-issued",
            Self::PermitRedeemed => "permit-redeemed",
            Self::Policy => "policy",
            Self::Retention => "retention",
            Self::SecurityKeys => "security-keys",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry as stored. `kind` is text here, so that a damaged one can be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Chain.
    pub replica: String,
    /// Position, from 1 without gaps.
    pub seq: u64,
    /// Unix seconds.
    pub at: i64,
    /// Name of an [`AuditKind`].
    pub kind: String,
    /// Who did it: `admin/NAME`, `verifier` or a node.
    pub actor: String,
    /// What it was done to.
    pub subject: String,
    /// Canonical JSON.
    pub body: Vec<u8>,
    /// Hash of the entry before.
    pub prev_hash: [u8; 32],
    /// Hash of this entry.
    pub entry_hash: [u8; 32],
}

impl AuditEntry {
    /// The hash that this entry's fields give.
    #[must_use]
    pub fn computed_hash(&self) -> [u8; 32] {
        let (seq, at) = (self.seq.to_be_bytes(), self.at.to_be_bytes());
        let fields: [&[u8]; 7] = [
            self.replica.as_bytes(),
            &seq,
            &at,
            self.kind.as_bytes(),
            self.actor.as_bytes(),
            self.subject.as_bytes(),
            &self.body,
        ];
        let mut entry = Vec::with_capacity(128 + self.body.len());
        for field in fields {
            entry.extend_from_slice(&(field.len() as u64).to_be_bytes());
            entry.extend_from_slice(field);
        }
        let length = (entry.len() as u64).to_be_bytes();
        let digest = HashAlg::Sha256.hash(&[DOMAIN, &self.prev_hash, &length, &entry]);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_bytes());
        hash
    }
}

/// Last entry of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Chain.
    pub replica: String,
    /// Position of the last entry; 0 for an empty chain.
    pub seq: u64,
    /// Its hash; zeros for an empty chain.
    pub hash: Digest,
}

impl ChainHead {
    pub(crate) fn new(replica: &str, seq: u64, hash: [u8; 32]) -> Self {
        let hash = Digest::new(HashAlg::Sha256, &hash).expect("SHA-256 digests have 32 bytes");
        Self { replica: replica.to_owned(), seq, hash }
    }
}

/// What differs at the first place where a chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BreakKind {
    /// The anchor names an entry that is not there: the tail was cut off.
    AnchoredEntryMissing,
    /// The anchor names another hash for this entry: history was rewritten.
    AnchoredHashDiffers,
    /// The record that belongs to the entry differs from it.
    RecordDiffers,
    /// The record that belongs to the entry is gone.
    RecordMissing,
    /// A record names an entry that is not there.
    RecordWithoutEntry,
    /// The entry's fields do not hash to its hash.
    EntryHash,
    /// The entry does not name the hash of the one before.
    PreviousHash,
    /// An entry is missing.
    Sequence,
}

/// The first place where a chain is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainBreak {
    /// Chain.
    pub replica: String,
    /// Entry.
    pub seq: u64,
    /// What differs.
    pub kind: BreakKind,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub observed: String,
}

impl fmt::Display for ChainBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            BreakKind::AnchoredEntryMissing => "the anchored entry is missing",
            BreakKind::AnchoredHashDiffers => "the anchored entry has another hash",
            BreakKind::RecordDiffers => "the record differs from its entry",
            BreakKind::RecordMissing => "the entry's record is gone",
            BreakKind::RecordWithoutEntry => "a record has no entry",
            BreakKind::EntryHash => "the entry does not hash to its hash",
            BreakKind::PreviousHash => "the entry does not follow the one before",
            BreakKind::Sequence => "an entry is missing",
        };
        let Self { replica, seq, expected, observed, .. } = self;
        write!(f, "chain {replica}, entry {seq}: {what}: expected {expected}, observed {observed}")
    }
}

/// Answer of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Entries whose hashes were recomputed.
    pub entries: u64,
    /// Last good entry of each chain.
    pub heads: Vec<ChainHead>,
    /// Whether there was an anchor file; without one a cut-off tail cannot show.
    pub anchored: bool,
    /// First break; `None`: everything is as written.
    pub broken: Option<ChainBreak>,
}

/// Checks the entries of one chain in order.
#[derive(Debug)]
pub(crate) struct ChainWalker {
    replica: String,
    seq: u64,
    hash: [u8; 32],
    anchor: Option<ChainHead>,
}

impl ChainWalker {
    pub(crate) fn new(replica: &str, anchors: &[ChainHead]) -> Self {
        let anchor = anchors.iter().find(|anchor| anchor.replica == replica).cloned();
        Self { replica: replica.to_owned(), seq: 0, hash: [0; 32], anchor }
    }

    fn broken(&self, seq: u64, kind: BreakKind, expected: String, observed: String) -> ChainBreak {
        ChainBreak { replica: self.replica.clone(), seq, kind, expected, observed }
    }

    pub(crate) fn step(&mut self, entry: &AuditEntry) -> Result<(), ChainBreak> {
        let next = self.seq + 1;
        if entry.seq != next {
            let (expected, observed) = (format!("entry {next}"), format!("entry {}", entry.seq));
            return Err(self.broken(next, BreakKind::Sequence, expected, observed));
        }
        if entry.prev_hash != self.hash {
            let (expected, observed) = (hex::encode(self.hash), hex::encode(entry.prev_hash));
            return Err(self.broken(next, BreakKind::PreviousHash, expected, observed));
        }
        let computed = entry.computed_hash();
        if entry.entry_hash != computed {
            let (expected, observed) = (hex::encode(computed), hex::encode(entry.entry_hash));
            return Err(self.broken(next, BreakKind::EntryHash, expected, observed));
        }
        if let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.seq == next)
            && anchor.hash.as_bytes() != computed
        {
            let (expected, observed) = (anchor.hash.to_string(), hex::encode(computed));
            return Err(self.broken(next, BreakKind::AnchoredHashDiffers, expected, observed));
        }
        (self.seq, self.hash) = (next, computed);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ChainHead, ChainBreak> {
        if let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.seq > self.seq) {
            let expected = format!("entry {} ({})", anchor.seq, anchor.hash);
            let observed = format!("the chain ends at entry {}", self.seq);
            return Err(self.broken(
                self.seq + 1,
                BreakKind::AnchoredEntryMissing,
                expected,
                observed,
            ));
        }
        Ok(ChainHead::new(&self.replica, self.seq, self.hash))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorDocument {
    format: u32,
    heads: Vec<ChainHead>,
}

/// Reads the anchor file of a state folder; `None` where there is none.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Corrupt`] for a file that is not an anchor.
pub fn read_anchor(folder: &Path) -> Result<Option<Vec<ChainHead>>, StoreError> {
    let path = folder.join(ANCHOR_FILE);
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &path, error)),
    };
    let corrupt = |why: String| StoreError::Corrupt { what: "audit anchor", why };
    if size > MAX_ANCHOR_BYTES {
        return Err(corrupt(format!("{size} bytes")));
    }
    let bytes = fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
    let document: AnchorDocument =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if document.format != 1 {
        return Err(corrupt(format!("format {}", document.format)));
    }
    Ok(Some(document.heads))
}

/// Writes the anchor file: a reader finds the old one or the new one, never a part.
pub(crate) fn write_anchor(folder: &Path, heads: &[ChainHead]) -> Result<(), StoreError> {
    let document = AnchorDocument { format: 1, heads: heads.to_vec() };
    let bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| StoreError::Corrupt { what: "audit anchor", why: error.to_string() })?;
    write_atomically(&folder.join(ANCHOR_FILE), &bytes)
}

/// Writes a file of mode 0600 beside its place, syncs it, and renames it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut temporary: PathBuf = path.to_owned();
    temporary.as_mut_os_string().push(".new");
    let write = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(|error| StoreError::io("write", path, error))
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, prev_hash: [u8; 32]) -> AuditEntry {
        let mut entry = AuditEntry {
            replica: "r1".into(),
            seq,
            at: 1_700_000_000,
            kind: "action".into(),
            actor: "admin/eve".into(),
            subject: "n1".into(),
            body: b"{}".to_vec(),
            prev_hash,
            entry_hash: [0; 32],
        };
        entry.entry_hash = entry.computed_hash();
        entry
    }

    #[test]
    fn moving_a_byte_between_fields_changes_the_hash() {
        let first = entry(1, [0; 32]);
        let moved = AuditEntry { actor: "admin/ev".into(), subject: "en1".into(), ..first.clone() };
        assert_ne!(first.computed_hash(), moved.computed_hash());
    }

    #[test]
    fn the_hash_of_a_known_entry_never_changes() {
        assert_eq!(hex::encode(entry(1, [0; 32]).entry_hash), KNOWN);
    }

    /// Computed by another implementation of the format in the module's documentation.
    const KNOWN: &str = "756208cb7fcd0c2a0060982bd25c03b0861de014e3b9dc0a7ef7d33307aaf4e4";

    #[test]
    fn an_anchor_beyond_the_end_is_a_cut_tail() {
        let first = entry(1, [0; 32]);
        let second = entry(2, first.entry_hash);
        let anchors = [ChainHead::new("r1", 2, second.entry_hash)];
        let mut walker = ChainWalker::new("r1", &anchors);
        walker.step(&first).expect("good entry");
        let broken = walker.finish().expect_err("cut tail");
        assert_eq!((broken.kind, broken.seq), (BreakKind::AnchoredEntryMissing, 2));
    }

    #[test]
    fn an_anchor_round_trips_and_a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(read_anchor(folder.path()).expect("none"), None);
        let heads = vec![ChainHead::new("r1", 7, [9; 32])];
        write_anchor(folder.path(), &heads).expect("written");
        assert_eq!(read_anchor(folder.path()).expect("read"), Some(heads));
        fs::write(folder.path().join(ANCHOR_FILE), b"{\"format\":2,\"heads\":[]}").expect("write");
        let error = read_anchor(folder.path()).expect_err("format 2");
        assert!(matches!(error, StoreError::Corrupt { what: "audit anchor", .. }));
    }
}
