//! The ring of security keys in force, and what it approves.

use crate::{
    signatures::{Approval, ApprovalError, Envelope, KeyRing, Signature},
    store::{
        Document, DocumentId, DocumentKind, DocumentSignature, DocumentState, NewDocument, Store,
    },
};

use super::{DocumentError, read::payload_type};

/// The ring in force.
pub(super) async fn in_force(store: &Store) -> Result<KeyRing, DocumentError> {
    let rings = store.documents(DocumentKind::Keys).await?;
    let active = rings.into_iter().find(|ring| ring.state == DocumentState::Active);
    let active = active.ok_or(DocumentError::NoRing)?;
    parse(&active.document)
}

/// The ring in the bytes of a document.
pub(super) fn parse(text: &[u8]) -> Result<KeyRing, DocumentError> {
    KeyRing::parse(&String::from_utf8_lossy(text)).map_err(DocumentError::Problems)
}

/// A document as signatures are over it, whether it is kept yet or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signable<'d> {
    pub(super) id: &'d DocumentId,
    pub(super) text: &'d [u8],
    payload: &'d [u8],
}

impl<'d> From<&'d Document> for Signable<'d> {
    fn from(document: &'d Document) -> Self {
        Self { id: &document.id, text: &document.document, payload: &document.payload }
    }
}

impl<'d> From<&'d NewDocument> for Signable<'d> {
    fn from(document: &'d NewDocument) -> Self {
        Self { id: &document.id, text: &document.document, payload: &document.payload }
    }
}

/// The envelope of a document with these signatures.
pub(super) fn envelope(
    document: &Document,
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
    document: &Document,
    signatures: &[DocumentSignature],
) -> Result<Approval, DocumentError> {
    let envelope = envelope(document, signatures)?;
    let id = || document.id.clone();
    if document.id.kind == DocumentKind::Keys {
        let next = parse(&document.document)?;
        return ring
            .approves_successor(&next, &envelope)
            .map_err(|why| DocumentError::NoSuccessor { id: id(), why });
    }
    ring.verify(&envelope, payload_type(document.id.kind), &document.payload)
        .map_err(|why| DocumentError::NotApproved { id: id(), why })
}

/// Which key of the ring made this one signature over a document; `None`: none of them.
///
/// # Errors
/// A signature that is false under the name of a key of the ring.
pub(super) fn signer(
    ring: &KeyRing,
    document: &Signable<'_>,
    signature: &Signature,
) -> Result<Option<proto::digest::Digest>, DocumentError> {
    let kind = payload_type(document.id.kind);
    let mut envelope = Envelope::new(kind, document.payload)?;
    envelope.add(signature.clone())?;
    let signers = match ring.verify(&envelope, kind, document.payload) {
        Ok(approval) => approval.signers().to_vec(),
        Err(ApprovalError::BelowThreshold { signers, .. }) => signers,
        Err(why) => return Err(DocumentError::NotApproved { id: document.id.clone(), why }),
    };
    Ok(signers.first().map(|signer| *signer.id()))
}

/// Refuses an envelope of another document or of another kind.
pub(super) fn matches(
    ring: &KeyRing,
    document: &Signable<'_>,
    envelope: &Envelope,
) -> Result<(), DocumentError> {
    match ring.verify(envelope, payload_type(document.id.kind), document.payload) {
        Err(why @ (ApprovalError::PayloadType { .. } | ApprovalError::Payload { .. })) => {
            Err(DocumentError::NotApproved { id: document.id.clone(), why })
        }
        _ => Ok(()),
    }
}
