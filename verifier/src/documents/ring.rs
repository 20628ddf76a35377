//! The ring of security keys in force, and what it approves.

use std::collections::BTreeMap;

use proto::digest::Digest;

use crate::{
    signatures::{Approval, ApprovalError, Envelope, KeyRing, Signature},
    store::{
        Document, DocumentId, DocumentKind, DocumentSignature, DocumentState, NewDocument, Store,
        StoreError,
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Signable<'d> {
    pub(super) id: &'d DocumentId,
    pub(super) text: &'d [u8],
}

impl Signable<'_> {
    /// What is signed: computed from the text, whatever the store keeps beside it.
    fn payload(&self) -> Result<Vec<u8>, DocumentError> {
        let text = String::from_utf8_lossy(self.text);
        let payload = payload_of(&text, self.id.kind).map_err(DocumentError::Problems)?;
        let says =
            name_and_version(&text).map_err(|problem| DocumentError::Problems(vec![problem]))?;
        if (says.0.as_str(), says.1) != (self.id.name.as_str(), self.id.version) {
            let what = format!("{}@{} is kept as {}", says.0, says.1, self.id);
            return Err(DocumentError::Invalid(what));
        }
        Ok(payload)
    }
}

impl<'d> From<&'d Document> for Signable<'d> {
    fn from(document: &'d Document) -> Self {
        Self { id: &document.id, text: &document.document }
    }
}

impl<'d> From<&'d NewDocument> for Signable<'d> {
    fn from(document: &'d NewDocument) -> Self {
        Self { id: &document.id, text: &document.document }
    }
}

/// The envelope of a document with these signatures.
pub(super) fn envelope(
    document: &Document,
    signatures: &[DocumentSignature],
) -> Result<Envelope, DocumentError> {
    let kind = payload_type(document.id.kind);
    let mut envelope = Envelope::new(kind, Signable::from(document).payload()?)?;
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
        let next = parse(&document.document)?;
        return ring
            .approves_successor(&next, &envelope)
            .map_err(|why| DocumentError::NoSuccessor { id: id(), why: Box::new(why) });
    }
    ring.verify(&envelope, payload_type(document.id.kind), &Signable::from(document).payload()?)
        .map_err(|why| DocumentError::NotApproved { id: id(), why: Box::new(why) })
}

/// Which key of the ring made this one signature over a document; `None`: none of them.
///
/// # Errors
/// A signature that is false under the name of a key of the ring.
pub(super) fn signer(
    ring: &KeyRing,
    document: &Signable<'_>,
    signature: &Signature,
) -> Result<Option<Digest>, DocumentError> {
    let (kind, payload) = (payload_type(document.id.kind), document.payload()?);
    let mut envelope = Envelope::new(kind, payload.clone())?;
    envelope.add(signature.clone())?;
    let signers = match ring.verify(&envelope, kind, &payload) {
        Ok(approval) => approval.signers().to_vec(),
        Err(ApprovalError::BelowThreshold { signers, .. }) => signers,
        Err(why) => return Err(not_approved(document, why)),
    };
    Ok(signers.first().map(|signer| *signer.id()))
}

fn not_approved(document: &Signable<'_>, why: ApprovalError) -> DocumentError {
    DocumentError::NotApproved { id: document.id.clone(), why: Box::new(why) }
}

/// Refuses an envelope of another document or of another kind.
pub(super) fn matches(
    ring: &KeyRing,
    document: &Signable<'_>,
    envelope: &Envelope,
) -> Result<(), DocumentError> {
    match ring.verify(envelope, payload_type(document.id.kind), &document.payload()?) {
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
        approval(ring, document, signatures)
    }
}
