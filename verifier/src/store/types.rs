//! What the store holds, in the project's words. Times are unix seconds, given by the caller.

use std::sync::Arc;

use proto::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    changes::{Ground, Seen},
    permits::NewPermit,
};
use crate::objects::StoredObject;

/// Declares an enum whose variants are stored as fixed words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Stable word, as stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = StoreError;

            fn from_str(word: &str) -> Result<Self, StoreError> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(StoreError::Corrupt { what: $what, why: format!("{word:?}") }),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Whether a node may receive certificates.
    NodeStatus, "node status" {
        /// Seen and proven, waits for an operator.
        Pending = "pending",
        /// May be admitted.
        Active = "active",
        /// Never admitted.
        Revoked = "revoked",
    }
}
words! {
    /// What an administrator may do; each role includes the ones before.
    Role, "role" {
        /// Reads.
        Viewer = "viewer",
        /// Changes the inventory.
        Operator = "operator",
        /// Changes what is expected and trusted.
        Security = "security",
    }
}
words! {
    /// Answer of an appraisal.
    Outcome, "outcome" {
        /// Every check passed.
        Admitted = "admitted",
        /// A check did not pass.
        Denied = "denied",
        /// No answer: the evidence was malformed, or the verifier failed.
        Failed = "failed",
    }
}
words! {
    /// What a reference document is.
    DocumentKind, "document kind" {
        /// A golden set, or a part that sets include.
        Golden = "golden",
        /// Rules of the site over the claims.
        Policy = "policy",
        /// The ring of security keys, and how many must sign.
        Keys = "keys",
    }
}
words! {
    /// Place of a reference document in its life.
    DocumentState, "document state" {
        /// Captured, and read by nobody yet: trust on first use.
        Observed = "observed",
        /// Offered for review and signature.
        Proposed = "proposed",
        /// Approved by enough keys.
        Signed = "signed",
        /// Judged at every attestation and reported, not enforced.
        Staged = "staged",
        /// Enforced.
        Active = "active",
        /// Enforced no more, or never.
        Retired = "retired",
    }
}
words! {
    /// Kind of an endorsement.
    EndorsementKind, "endorsement kind" {
        /// Trust anchor.
        Root = "root",
        /// Helps to build chains.
        Intermediate = "intermediate",
        /// Revocation list.
        Crl = "crl",
    }
}
words! {
    /// Where a job's permit stands.
    PermitState, "permit state" {
        /// Waits to be redeemed.
        Issued = "issued",
        /// A job runs by it.
        Redeemed = "redeemed",
        /// Worth nothing any more.
        Ended = "ended",
    }
}

words! {
    /// State of a certificate.
    CertificateStatus, "certificate status" {
        /// About to be signed.
        Intent = "intent",
        /// Signed.
        Signed = "signed",
        /// Revoked.
        Revoked = "revoked",
    }
}

/// Value of a node's `admitted_by` where the site's allow-list vouches for its EK.
pub const ALLOW_LISTED: &str = "allow-list";

/// Who does something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// `admin/NAME`, `verifier`, or `local/USER`.
    pub actor: String,
    /// Unix seconds.
    pub at: i64,
}

impl By {
    /// Who and when.
    pub fn new(actor: impl Into<String>, at: i64) -> Self {
        Self { actor: actor.into(), at }
    }
}

/// A machine to be added to the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewNode {
    /// Unique, 1–255 bytes; the caller checks the characters.
    pub name: String,
    /// SHA-256 of the EK's SubjectPublicKeyInfo; unique.
    pub ek_digest: Digest,
    /// Pool.
    pub pool: String,
    /// `Pending` or `Active`.
    pub status: NodeStatus,
    /// EK certificate, DER, where there is one.
    #[serde(skip)]
    pub ek_certificate: Option<Vec<u8>>,
    /// Certificates between it and a root, DER.
    #[serde(skip)]
    pub ek_chain: Vec<Vec<u8>>,
    /// TPM manufacturer, from the certificate.
    pub manufacturer: Option<String>,
    /// Rule that admitted it, where no administrator did.
    pub admitted_by: Option<String>,
    /// Free text.
    pub note: String,
}

/// A machine of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// SHA-256 of the EK's SubjectPublicKeyInfo.
    pub ek_digest: Digest,
    /// Pool.
    pub pool: String,
    /// Whether it may receive certificates.
    pub status: NodeStatus,
    /// EK certificate, DER.
    #[serde(skip)]
    pub ek_certificate: Option<Vec<u8>>,
    /// Certificates between it and a root, DER.
    #[serde(skip)]
    pub ek_chain: Vec<Vec<u8>>,
    /// TPM manufacturer.
    pub manufacturer: Option<String>,
    /// Highest counters that an appraisal of this TPM has proven.
    pub counters: Option<Counters>,
    /// Rule that admitted it.
    pub admitted_by: Option<String>,
    /// Free text.
    pub note: String,
    /// Who added it, and when.
    pub created: By,
    /// Who approved it, and when.
    pub approved: Option<By>,
    /// Rises by one with every change.
    pub version: u64,
}

/// Counters of a TPM, ordered: a reset starts restarts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Counters {
    /// `resetCount`.
    pub reset_count: u32,
    /// `restartCount`.
    pub restart_count: u32,
}

/// A change of a node. Each is one audit entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum NodeChange {
    /// Pending or revoked becomes active, perhaps under another name; another name forgets the known
    /// boots.
    Approve {
        /// Name from now on.
        name: String,
        /// Pool from now on.
        pool: String,
    },
    /// Becomes revoked; every certificate that is not past its end is revoked too, and the known
    /// boots are forgotten.
    Revoke {
        /// Why, for the audit trail and the certificates.
        reason: String,
    },
    /// Another pool.
    MoveTo {
        /// Pool.
        pool: String,
    },
    /// A replaced TPM or mainboard, or another EK after `TPM2_ChangeEPS`: pins the record to a new
    /// EK and forgets boots and counters.
    ReplaceEk {
        /// Digest of the new EK.
        ek_digest: Digest,
        /// Whether the site itself vouches for it.
        allow_listed: bool,
        /// Why, for the audit trail.
        reason: String,
    },
    /// After `TPM2_Clear` or a firmware update that set the counters back: forgets boots, counters.
    ForgetCounters {
        /// Why, for the audit trail.
        reason: String,
    },
    /// Another note.
    Note {
        /// Text.
        note: String,
    },
}

/// What is known of one boot of a node: written only after activation and quote passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Name of the AK; the key.
    pub ak_name: Vec<u8>,
    /// Node.
    pub node: String,
    /// Counters of this boot.
    pub counters: Counters,
    /// What was proven in it: `appraisal::boot::BootDocument`, JSON, opaque here.
    pub record: Vec<u8>,
    /// When it was first recorded.
    pub created_at: i64,
    /// When it was last recorded.
    pub updated_at: i64,
}

/// A boot with its node, as one lookup returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBoot {
    /// The boot.
    pub boot: Boot,
    /// Version of the boot's record, for the next write.
    pub version: u64,
    /// Its node.
    pub node: Arc<Node>,
}

/// A boot to be written if nobody else wrote it first.
#[derive(Clone, Debug)]
pub struct PutBoot {
    /// The boot.
    pub boot: Boot,
    /// Version that the caller saw; `None`: there must be no record.
    pub expected_version: Option<u64>,
}

/// An appraisal that was decided.
#[derive(Debug)]
pub struct NewDecision {
    /// Unique, 1–64 of `[A-Za-z0-9_-]`; ids that rise with time are the fastest.
    pub id: String,
    /// Unix seconds.
    pub at: i64,
    /// Node, where it is known.
    pub node: Option<String>,
    /// EK, where it was proven.
    pub ek_digest: Option<Digest>,
    /// Purpose, for example `node`.
    pub purpose: String,
    /// Answer.
    pub outcome: Outcome,
    /// Reason codes, sorted; empty for an admission.
    pub codes: Vec<String>,
    /// Verdict, deterministic JSON.
    pub verdict: Vec<u8>,
    /// Everything the appraisal read, for a replay.
    pub case: Vec<u8>,
    /// Larger parts of the case, stored before with [`Store::put_object`](super::Store::put_object).
    pub objects: Vec<StoredObject>,
    /// Policy and reference values used.
    pub policy_version: String,
}

/// A recorded decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Unique id.
    pub id: String,
    /// Unix seconds.
    pub at: i64,
    /// Node.
    pub node: Option<String>,
    /// EK.
    pub ek_digest: Option<Digest>,
    /// Purpose.
    pub purpose: String,
    /// Answer.
    pub outcome: Outcome,
    /// Reason codes.
    pub codes: Vec<String>,
    /// SHA-256 of the verdict's bytes.
    pub verdict_sha256: Digest,
    /// SHA-256 of the case's bytes.
    pub case_sha256: Digest,
    /// Policy and reference values used.
    pub policy_version: String,
}

/// A decision with its place in the audit chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedDecision {
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// Chain.
    pub replica: String,
    /// Entry.
    pub seq: u64,
    /// Hash of the entry.
    pub entry_hash: Digest,
}

/// Which decisions to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// Only of this node.
    pub node: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only before this time, unix seconds: continue a list from its last time.
    pub before: Option<i64>,
    /// At most so many; 0 means 100, more than 10 000 are never returned.
    pub limit: u32,
}

/// A certificate that is about to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIntent {
    /// Serial number, lower-case hex; unique.
    pub serial: String,
    /// Node, from the inventory.
    pub node: String,
    /// Start, unix seconds.
    pub not_before: i64,
    /// End, unix seconds.
    pub not_after: i64,
    /// SHA-256 of the certified key's SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
}

/// A certificate, issued or about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What was intended.
    #[serde(flatten)]
    pub intent: CertificateIntent,
    /// Decision that it rests on.
    pub decision_id: String,
    /// SHA-256 of the certificate's DER, once signed.
    pub certificate_sha256: Option<Digest>,
    /// State.
    pub status: CertificateStatus,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// Why.
    pub revocation_reason: Option<String>,
}

/// All that one appraisal writes, in one transaction: all of it or nothing.
#[derive(Debug)]
pub struct Appraisal {
    /// The decision.
    pub decision: NewDecision,
    /// Version of the node's record that was appraised; `None` for a new node, or where nothing but the
    /// decision is written.
    pub node_version: Option<u64>,
    /// A node that proved itself and is not in the inventory yet.
    pub new_node: Option<NewNode>,
    /// What is known of the boot from now on.
    pub boot: Option<PutBoot>,
    /// AK Name of the boot that was renewed, where nothing new is known of it: finds its node in
    /// memory.
    pub renewed_ak: Option<Vec<u8>>,
    /// The certificate that will be signed; needs an active node.
    pub certificate: Option<CertificateIntent>,
    /// The permit that will be handed out; needs an active node.
    pub permit: Option<NewPermit>,
    /// What all this rests on besides the node's record: none of it may have changed since `seen`.
    pub grounds: Vec<Ground>,
    /// [`Store::seen`](super::Store::seen), taken before the grounds were read.
    pub seen: Seen,
}

impl Appraisal {
    /// Nothing but the decision, which rests on nothing that may change.
    #[must_use]
    pub fn of(decision: NewDecision) -> Self {
        Self {
            decision,
            node_version: None,
            new_node: None,
            boot: None,
            renewed_ak: None,
            certificate: None,
            permit: None,
            grounds: Vec::new(),
            seen: Seen::default(),
        }
    }
}

/// What [`Store::record`](super::Store::record) committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Chain entry of the decision.
    pub seq: u64,
    /// Its hash.
    pub entry_hash: Digest,
    /// New version of the boot's record.
    pub boot_version: Option<u64>,
}

/// Everything that one appraisal of a node read, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvidence {
    /// The decision.
    pub decision: String,
    /// When it was made, unix seconds.
    pub at: i64,
    /// The case.
    pub case: Vec<u8>,
}

/// A node of the fleet with its newest evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// Name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Never revoked.
    pub status: NodeStatus,
    /// The EK that it is pinned to.
    pub ek_digest: Digest,
    /// Evidence of its newest decision that still has some.
    pub evidence: Option<RecordedEvidence>,
}

/// Which version of which document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DocumentId {
    /// Kind.
    pub kind: DocumentKind,
    /// Name, as the document says.
    pub name: String,
    /// Version, as the document says.
    pub version: u64,
}

impl std::fmt::Display for DocumentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}@{}", self.kind, self.name, self.version)
    }
}

/// A reference document to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDocument {
    /// Which.
    pub id: DocumentId,
    /// Pool that a golden set judges; `None` for a part and for other kinds.
    pub pool: Option<String>,
    /// TOML, byte for byte.
    pub document: Vec<u8>,
    /// Canonical JSON of it: what is signed.
    pub payload: Vec<u8>,
    /// Whether it was only captured, and nobody offers it yet.
    pub is_observed: bool,
    /// Where it comes from, in words.
    pub origin: String,
}

/// What is known of a reference document besides what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentHead {
    /// Which.
    pub id: DocumentId,
    /// Pool that a golden set judges; `None` for a part and for other kinds.
    pub pool: Option<String>,
    /// SHA-256 of the TOML.
    pub sha256: Digest,
    /// State.
    pub state: DocumentState,
    /// Where it comes from, in words.
    pub origin: String,
    /// Who proposed it, and when.
    pub proposed: By,
    /// Version of the ring of keys that staged or activated it.
    pub approved_under: Option<u64>,
}

/// A reference document as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What is known of it.
    pub head: DocumentHead,
    /// TOML, byte for byte.
    pub document: Vec<u8>,
    /// Canonical JSON of it: what is signed.
    pub payload: Vec<u8>,
}

impl std::ops::Deref for Document {
    type Target = DocumentHead;

    fn deref(&self) -> &DocumentHead {
        &self.head
    }
}

/// A signature over a document's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentSignature {
    /// `sha256:…` of the key.
    pub key_id: Digest,
    /// As DSSE writes it.
    #[serde(skip)]
    pub signature: Vec<u8>,
    /// Who brought it, and when.
    pub added: By,
}

/// One step of a document's life, from the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentStep {
    /// Who, and when.
    pub by: By,
    /// What was done, and with what: JSON.
    pub what: String,
}

/// A manifest of files to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewManifest {
    /// Name in the document.
    pub name: String,
    /// Files that it lists.
    pub files: u64,
    /// The document, byte for byte.
    pub document: Vec<u8>,
}

/// What is known of a manifest without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestSummary {
    /// SHA-256 of the document.
    pub sha256: Digest,
    /// Name in the document.
    pub name: String,
    /// Files that it lists.
    pub files: u64,
    /// Size of the document.
    pub bytes: u64,
    /// Who imported it, when.
    pub imported: By,
}

/// A root, intermediate or revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endorsement {
    /// SHA-256 of the DER.
    pub sha256: Digest,
    /// Kind.
    pub kind: EndorsementKind,
    /// DER.
    #[serde(skip)]
    pub der: Vec<u8>,
    /// Where it came from, in words.
    pub label: String,
    /// Who imported it, and when.
    pub imported: By,
}

/// Admits unknown machines that have proven themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionRule {
    /// Unique name.
    pub name: String,
    /// Root that the EK chain must end at; `None`: any imported one.
    pub root_sha256: Option<Digest>,
    /// TPM manufacturer; `None`: any.
    pub manufacturer: Option<String>,
    /// Pool of the new node.
    pub pool: String,
    /// How it is named.
    pub name_template: String,
}

/// An administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Unique name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of its certificate's SubjectPublicKeyInfo; unique.
    pub spki_sha256: Digest,
    /// Who added it, and when.
    pub created: By,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// How long evidence is kept. Decisions and audit entries stay for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Drop evidence of decisions before this time, unix seconds.
    pub before: Option<i64>,
    /// Keep the evidence of at most so many decisions, the newest.
    pub keep_newest: Option<u64>,
    /// Only report what would be dropped.
    pub dry_run: bool,
}

/// What retention dropped, or would drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetentionReport {
    /// Decisions whose evidence went.
    pub decisions: u64,
    /// Bytes freed in the database (reused by it; the file does not shrink).
    pub database_bytes: u64,
    /// Objects that nothing refers to any more.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
}
