//! The ring of security keys in force, and what it approves.

use std::collections::BTreeMap;

use proto::digest::Digest;

use crate::{
    signatures::{Approval, ApprovalError, Envelope, KeyRing, Signature},
    store::{
        Document, DocumentId, DocumentKind, DocumentSignature, DocumentState, Store, StoreError,
    },
};

use super::{
    DocumentError,
    read::{name_and_version, payload_of, payload_type},
};

/// The ring in the bytes of a document.
pub(super) fn parse(text: &[u8]) -> Result<KeyRing, DocumentError> {
    KeyRing::parse(&String::from_utf8_lossy(text)).map_err(DocumentError::Problems)
}

/// A document as signatures are over it, whether it is kept yet or not.
#[derive(Clone, Debug)]
pub(super) struct Signable {
    pub(super) id: DocumentId,
    text: Vec<u8>,
    payload: Vec<u8>,
}

impl Signable {
    /// What is signed of a document: computed from the text, whatever the store keeps beside it. Some megabytes of TOML
    /// take longer than a reactor thread may be held.
    pub(super) fn of(id: DocumentId, text: Vec<u8>) -> Result<Self, DocumentError> {
        let words = String::from_utf8_lossy(&text);
        let payload = payload_of(&words, id.kind).map_err(DocumentError::Problems)?;
        let says =
            name_and_version(&words).map_err(|problem| DocumentError::Problems(vec![problem]))?;
        if (says.0.as_str(), says.1) != (id.name.as_str(), id.version) {
            let what = format!("{}@{} is kept as {id}", says.0, says.1);
            return Err(DocumentError::Invalid(what));
        }
        Ok(Self { id, text, payload })
    }
}

/// The envelope of a document with these signatures.
pub(super) fn envelope(
    document: &Signable,
    signatures: &[DocumentSignature],
) -> Result<Envelope, DocumentError> {
    let kind = payload_type(document.id.kind);
    let mut envelope = Envelope::new(kind, document.payload.clone())?;
    for signature in signatures {
        let keyid = Some(signature.key_id.to_string());
        envelope.add(Signature::new(keyid, signature.signature.clone())?)?;
    }
    Ok(envelope)
}

/// Whether the ring approves a document by the signatures that it has.
pub(super) fn approval(
    ring: &KeyRing,
    document: &Signable,
    signatures: &[DocumentSignature],
) -> Result<Approval, DocumentError> {
    let envelope = envelope(document, signatures)?;
    if document.id.kind == DocumentKind::Keys {
        let next = parse(&document.text)?;
        return ring.approves_successor(&next, &envelope).map_err(|why| {
            DocumentError::NoSuccessor { id: document.id.clone(), why: Box::new(why) }
        });
    }
    ring.verify(&envelope, payload_type(document.id.kind), &document.payload)
        .map_err(|why| not_approved(document, why))
}

/// The signatures of an envelope, each with the key that made it, each key once; all are good, or none is taken.
pub(super) fn signers(
    ring: &KeyRing,
    document: &Signable,
    envelope: &Envelope,
) -> Result<Vec<(Digest, Vec<u8>)>, DocumentError> {
    // Says what is wrong with the envelope as a whole: another document, another kind.
    matches(ring, document, envelope)?;
    // Keys of the next ring sign for it too: nobody may lock the site out.
    let next = match document.id.kind {
        DocumentKind::Keys => Some(parse(&document.text)?),
        _ => None,
    };
    let mut out: Vec<(Digest, Vec<u8>)> = Vec::with_capacity(envelope.signatures().len());
    for (position, signature) in envelope.signatures().iter().enumerate() {
        if out.iter().any(|(_, known)| known == signature.as_bytes()) {
            continue;
        }
        let mut key_id = signer(ring, document, signature)?;
        if let (None, Some(next)) = (key_id, &next) {
            key_id = signer(next, document, signature)?;
        }
        let key_id = key_id
            .ok_or_else(|| DocumentError::UnknownSigner { position, ring: in_words(ring) })?;
        if out.iter().all(|(known, _)| *known != key_id) {
            out.push((key_id, signature.as_bytes().to_vec()));
        }
    }
    Ok(out)
}

/// A ring with the names of its keys: whose signature would have counted.
fn in_words(ring: &KeyRing) -> String {
    let names: Vec<&str> = ring.keys().iter().map(|key| key.name().as_str()).collect();
    format!("{}@{} ({})", ring.name(), ring.version(), names.join(", "))
}

/// Which key of the ring made this one signature over a document; `None`: none of them.
///
/// # Errors
/// A signature that is false under the name of a key of the ring.
fn signer(
    ring: &KeyRing,
    document: &Signable,
    signature: &Signature,
) -> Result<Option<Digest>, DocumentError> {
    let kind = payload_type(document.id.kind);
    let mut envelope = Envelope::new(kind, document.payload.clone())?;
    envelope.add(signature.clone())?;
    let signers = match ring.verify(&envelope, kind, &document.payload) {
        Ok(approval) => approval.signers().to_vec(),
        Err(ApprovalError::BelowThreshold { signers, .. }) => signers,
        Err(why) => return Err(not_approved(document, why)),
    };
    Ok(signers.first().map(|signer| *signer.id()))
}

fn not_approved(document: &Signable, why: ApprovalError) -> DocumentError {
    DocumentError::NotApproved { id: document.id.clone(), why: Box::new(why) }
}

/// Refuses an envelope of another document or of another kind.
fn matches(ring: &KeyRing, document: &Signable, envelope: &Envelope) -> Result<(), DocumentError> {
    match ring.verify(envelope, payload_type(document.id.kind), &document.payload) {
        Err(why @ (ApprovalError::PayloadType { .. } | ApprovalError::Payload { .. })) => {
            Err(not_approved(document, why))
        }
        _ => Ok(()),
    }
}

/// Every ring that is or was in force, by version: each follows the one that approved it, back to the first.
///
/// What is in force is checked against the ring that put it there: whoever can write the database alone puts nothing in
/// force that these rings never approved.
#[derive(Debug, Default)]
pub struct Rings {
    by_version: BTreeMap<u64, KeyRing>,
    in_force: Option<u64>,
}

impl Rings {
    /// Reads and verifies the rings of a store, back to the first one: the one with this digest, which `init` wrote
    /// beside the database. A ring that does not follow is left out, with all that it approved.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn of(store: &Store, first: Option<&Digest>) -> Result<Self, StoreError> {
        let mut documents = store.documents(DocumentKind::Keys).await?;
        documents.sort_by_key(|document| document.id.version);
        let mut rings = Self::default();
        for document in &documents {
            let follows = match document.approved_under {
                None => first == Some(&document.sha256),
                Some(under) => {
                    let signatures = store.document_signatures(&document.id).await?;
                    rings.approve(document, &signatures, under).is_ok()
                }
            };
            let was_in_force = matches!(document.state, DocumentState::Active)
                || document.approved_under.is_some();
            match parse(&document.document) {
                Ok(ring) if follows => {
                    if document.state == DocumentState::Active {
                        rings.in_force = Some(ring.version());
                    }
                    rings.by_version.insert(ring.version(), ring);
                }
                _ if was_in_force => {
                    tracing::error!(id = %document.id, "this ring of keys does not follow the one that init wrote");
                }
                // Proposed, and never in force.
                _ => {}
            }
        }
        Ok(rings)
    }

    /// The ring in force.
    ///
    /// # Errors
    /// [`DocumentError::NoRing`].
    pub fn in_force(&self) -> Result<&KeyRing, DocumentError> {
        let version = self.in_force.ok_or(DocumentError::NoRing)?;
        self.by_version.get(&version).ok_or(DocumentError::NoRing)
    }

    /// Whether the ring of this version approves a document by its signatures.
    ///
    /// # Errors
    /// [`DocumentError::NoRing`], or that it does not.
    pub fn approve(
        &self,
        document: &Document,
        signatures: &[DocumentSignature],
        under: u64,
    ) -> Result<Approval, DocumentError> {
        let ring = self.by_version.get(&under).ok_or(DocumentError::NoRing)?;
        approval(ring, &Signable::of(document.id.clone(), document.document.clone())?, signatures)
    }
}
