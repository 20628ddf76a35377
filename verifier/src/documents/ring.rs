//! The ring of security keys in force, and what it approves.

use std::collections::BTreeMap;

use crate::{
    signatures::{Approval, ApprovalError, Envelope, KeyRing, Signature},
    store::{Document, DocumentKind, DocumentSignature, DocumentState, Store, StoreError},
};

use super::{
    DocumentError,
    read::{payload_of, payload_type},
};

/// The ring in force.
pub(super) async fn in_force(store: &Store) -> Result<KeyRing, DocumentError> {
    let rings = store.documents(DocumentKind::Keys).await?;
    let active = rings.into_iter().find(|ring| ring.state == DocumentState::Active);
    let active = active.ok_or(DocumentError::NoRing)?;
    parse(&active)
}

/// The ring in a document.
pub(super) fn parse(document: &Document) -> Result<KeyRing, DocumentError> {
    KeyRing::parse(&String::from_utf8_lossy(&document.document)).map_err(DocumentError::Problems)
}

/// What is signed of a document: computed from its text, whatever the store keeps beside it.
fn payload(document: &Document) -> Result<Vec<u8>, DocumentError> {
    let text = String::from_utf8_lossy(&document.document);
    payload_of(&text, document.id.kind).map_err(DocumentError::Problems)
}

/// The envelope of a document with these signatures.
pub(super) fn envelope(
    document: &Document,
    signatures: &[DocumentSignature],
) -> Result<Envelope, DocumentError> {
    let kind = payload_type(document.id.kind);
    let mut envelope = Envelope::new(kind, payload(document)?)?;
    for signature in signatures {
        let keyid = Some(signature.key_id.to_string());
        envelope.add(Signature::new(keyid, signature.signature.clone())?)?;
    }
    Ok(envelope)
}

/// Whether the ring approves a document by the signatures that it has.
pub(super) fn approval(
    ring: &KeyRing,
    document: &Document,
    signatures: &[DocumentSignature],
) -> Result<Approval, DocumentError> {
    let envelope = envelope(document, signatures)?;
    let id = || document.id.clone();
    if document.id.kind == DocumentKind::Keys {
        let next = parse(document)?;
        return ring
            .approves_successor(&next, &envelope)
            .map_err(|why| DocumentError::NoSuccessor { id: id(), why: Box::new(why) });
    }
    ring.verify(&envelope, payload_type(document.id.kind), &payload(document)?)
        .map_err(|why| DocumentError::NotApproved { id: id(), why: Box::new(why) })
}

/// Which key of the ring made this one signature over a document; `None`: none of them.
///
/// # Errors
/// A signature that is false under the name of a key of the ring.
pub(super) fn signer(
    ring: &KeyRing,
    document: &Document,
    signature: &Signature,
) -> Result<Option<proto::digest::Digest>, DocumentError> {
    let (kind, payload) = (payload_type(document.id.kind), payload(document)?);
    let mut envelope = Envelope::new(kind, payload.clone())?;
    envelope.add(signature.clone())?;
    let signers = match ring.verify(&envelope, kind, &payload) {
        Ok(approval) => approval.signers().to_vec(),
        Err(ApprovalError::BelowThreshold { signers, .. }) => signers,
        Err(why) => return Err(not_approved(document, why)),
    };
    Ok(signers.first().map(|signer| *signer.id()))
}

fn not_approved(document: &Document, why: ApprovalError) -> DocumentError {
    DocumentError::NotApproved { id: document.id.clone(), why: Box::new(why) }
}

/// Refuses an envelope of another document or of another kind.
pub(super) fn matches(
    ring: &KeyRing,
    document: &Document,
    envelope: &Envelope,
) -> Result<(), DocumentError> {
    match ring.verify(envelope, payload_type(document.id.kind), &payload(document)?) {
        Err(why @ (ApprovalError::PayloadType { .. } | ApprovalError::Payload { .. })) => {
            Err(not_approved(document, why))
        }
        _ => Ok(()),
    }
}

/// Every ring that is or was in force, by version: each follows the one that approved it, back to the first.
///
/// What is in force is checked against the ring that put it there, so that whoever can write the database alone puts
/// nothing in force.
#[derive(Debug, Default)]
pub struct Rings(BTreeMap<u64, KeyRing>);

impl Rings {
    /// Reads and verifies the rings of a store. A ring that does not follow is left out, with all that it approved.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn of(store: &Store) -> Result<Self, StoreError> {
        let mut documents = store.documents(DocumentKind::Keys).await?;
        documents.sort_by_key(|document| document.id.version);
        let mut rings = Self::default();
        for (place, document) in documents.iter().enumerate() {
            let followed = match (place, document.approved_under) {
                // The first ring is what everything stands on: `init` took it.
                (0, None) => true,
                (_, Some(under)) => {
                    let signatures = store.document_signatures(&document.id).await?;
                    rings.approve(document, &signatures, under).is_ok()
                }
                // Proposed, and never in force.
                (_, None) => false,
            };
            match (followed, parse(document)) {
                (true, Ok(ring)) => {
                    rings.0.insert(ring.version(), ring);
                }
                (true, Err(error)) => tracing::error!(id = %document.id, %error, "not usable"),
                (false, _) if document.approved_under.is_some() => {
                    tracing::error!(id = %document.id, "this ring of keys does not follow the one before it");
                }
                (false, _) => {}
            }
        }
        Ok(rings)
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
        let ring = self.0.get(&under).ok_or(DocumentError::NoRing)?;
        approval(ring, document, signatures)
    }
}
