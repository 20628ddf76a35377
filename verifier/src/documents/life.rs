//! The steps of a document's life, each checked and audited.

use appraisal::policy::Unresolved;
use proto::digest::Digest;

use super::{
    Change, DocumentError, DryRun, ReadDocument, Summary,
    ring::{self, Rings, Signable, approval},
};
use crate::{
    attestation::{Verifier, blocking},
    expectations::{Compiled, Expectations},
    signatures::{Envelope, KeyRing},
    store::{By, Document, DocumentId, DocumentKind, DocumentSignature, DocumentState, StoreError},
};

/// What is proposed.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// TOML.
    pub text: String,
    /// Signatures that were made already: a DSSE envelope, JSON; empty: none.
    pub envelope: Vec<u8>,
    /// Where it comes from, in words.
    pub origin: String,
    /// Whether it was only captured.
    pub is_observed: bool,
}

/// What an activation did.
#[derive(Clone, Debug)]
pub struct Activated {
    /// Versions of the same name that retired.
    pub retired: Vec<u64>,
    /// What the dry run before it found; `None` for a ring of keys.
    pub summary: Option<Summary>,
}

impl Verifier {
    /// Checks a document as it would be if it were proposed.
    ///
    /// # Errors
    /// [`DocumentError::Problems`], or a store that cannot be read.
    pub async fn read_document(&self, text: &str) -> Result<ReadDocument, DocumentError> {
        let manifests = self.manifests_of(text).await?;
        let tool_pcr = self.settings().tool_pcr;
        let text = text.to_owned();
        let read = blocking(move || ReadDocument::read(&text, tool_pcr, &manifests)).await?;
        read.map_err(DocumentError::Problems)
    }

    /// Keeps a document for review and signature.
    ///
    /// # Errors
    /// [`DocumentError::Problems`]; a version that is not above every earlier one; false signatures.
    pub async fn propose(&self, proposal: Proposal, by: By) -> Result<DocumentId, DocumentError> {
        let Proposal { text, envelope, origin, is_observed } = proposal;
        let new = self.read_document(&text).await?.into_new(is_observed, origin);
        let id = new.id.clone();
        if id.kind == DocumentKind::Keys {
            let ring = self.ring().await?;
            if id.name != ring.name().as_str() {
                let why = format!("a new version of the ring keeps its name, {}", ring.name());
                return Err(DocumentError::Invalid(why));
            }
        }
        // Before anything is kept: a version that is proposed is taken for good.
        let signed = match envelope.is_empty() {
            true => None,
            false => {
                let signable = signable(id.clone(), new.document.clone()).await?;
                Some(self.verified(signable, Envelope::parse(&envelope)?).await?)
            }
        };
        self.store().propose_document(new, by.clone()).await?;
        if let Some((signable, signatures)) = signed {
            self.add_signatures(signable, signatures, by).await?;
        }
        Ok(id)
    }

    /// Adds the signatures of an envelope to a document; each must be good.
    ///
    /// # Errors
    /// [`DocumentError::UnknownSigner`], [`DocumentError::NotApproved`] for a false signature or another payload.
    pub async fn sign(
        &self,
        id: &DocumentId,
        envelope: &[u8],
        by: By,
    ) -> Result<(), DocumentError> {
        let envelope = Envelope::parse(envelope)?;
        let document = self.document(id).await?;
        let signable = signable(document.head.id, document.document).await?;
        let (signable, signatures) = self.verified(signable, envelope).await?;
        self.add_signatures(signable, signatures, by).await
    }

    /// The signatures of an envelope, each with the key that made it; all are good, or none is taken.
    async fn verified(
        &self,
        document: Signable,
        envelope: Envelope,
    ) -> Result<(Signable, Vec<(Digest, Vec<u8>)>), DocumentError> {
        let ring = self.ring().await?;
        blocking(move || {
            let signatures = ring::signers(&ring, &document, &envelope)?;
            Ok((document, signatures))
        })
        .await?
    }

    /// Keeps signatures that were verified, with what they make of the document.
    async fn add_signatures(
        &self,
        document: Signable,
        signatures: Vec<(Digest, Vec<u8>)>,
        by: By,
    ) -> Result<(), DocumentError> {
        let ring = self.ring().await?;
        let id = document.id.clone();
        let mut known = self.store().document_signatures(&id).await?;
        for (key_id, signature) in &signatures {
            if !known.iter().any(|known| known.key_id == *key_id) {
                let (signature, added) = (signature.clone(), by.clone());
                known.push(DocumentSignature { key_id: *key_id, signature, added });
            }
        }
        // A key that signed before counts as well: perhaps another ring is in force since.
        let approves = move || approval(&ring, &document, &known).is_ok();
        let is_approved = blocking(approves).await?;
        let last = signatures.len().saturating_sub(1);
        for (at, (key_id, signature)) in signatures.into_iter().enumerate() {
            // With the last one all of them are kept: only then the document is signed.
            let is_approved = is_approved && at == last;
            let (id, by) = (id.clone(), by.clone());
            self.store().sign_document(id, key_id, signature, is_approved, by).await?;
        }
        Ok(())
    }

    /// Has a document judged and reported from now on.
    ///
    /// # Errors
    /// [`DocumentError::NotApproved`], [`DocumentError::Unresolved`], a state that allows no staging.
    pub async fn stage(&self, id: &DocumentId, by: By) -> Result<(), DocumentError> {
        let _alone = self.one_change().await;
        let document = self.document(id).await?;
        if id.kind == DocumentKind::Keys {
            let why = "a ring of keys judges nobody: activate it";
            return Err(DocumentError::Invalid(why.to_owned()));
        }
        let under = self.approved(&document).await?;
        self.judges_somebody(&document, false).await?;
        self.store().stage_document(id.clone(), under, by).await?;
        self.reload().await?;
        Ok(())
    }

    /// Puts a document in force, after a dry run.
    ///
    /// # Errors
    /// As [`Verifier::stage`], and [`DocumentError::DeniesTooMany`] unless `accept_denials`.
    pub async fn activate(
        &self,
        id: &DocumentId,
        alongside: bool,
        accept_denials: bool,
        by: By,
    ) -> Result<Activated, DocumentError> {
        let _alone = self.one_change().await;
        let document = self.document(id).await?;
        let under = self.approved(&document).await?;
        if alongside && id.kind != DocumentKind::Golden {
            let why = "only golden sets have several active versions; policies hold all at once, and there is one ring";
            return Err(DocumentError::Invalid(why.to_owned()));
        }
        // A step that the state does not allow is not worth a dry run.
        if !matches!(document.state, DocumentState::Signed | DocumentState::Staged) {
            return Err(StoreError::InvalidTransition {
                what: "reference document",
                key: id.to_string(),
                from: document.state.as_str(),
                to: DocumentState::Active.as_str(),
            }
            .into());
        }
        let mut summary = None;
        if id.kind != DocumentKind::Keys {
            let put = self.judges_somebody(&document, alongside).await?;
            let change = Change { put, retire: Vec::new(), alongside };
            summary = Some(self.dare(id, change, accept_denials).await?);
        }
        let retired = self.store().activate_document(id.clone(), alongside, under, by).await?;
        self.reload().await?;
        Ok(Activated { retired, summary })
    }

    /// Ends a document's life.
    ///
    /// # Errors
    /// A document that is retired, the ring in force, or [`DocumentError::DeniesTooMany`] unless `accept_denials`.
    pub async fn retire(
        &self,
        id: &DocumentId,
        reason: &str,
        accept_denials: bool,
        by: By,
    ) -> Result<(), DocumentError> {
        let _alone = self.one_change().await;
        let document = self.document(id).await?;
        if document.state == DocumentState::Active {
            // Without a golden set nobody is admitted; without a policy more are, and that needs signatures.
            let why = match id.kind {
                DocumentKind::Golden => None,
                DocumentKind::Policy => Some(
                    "a policy in force retires when its successor is activated; one without rules lifts it",
                ),
                DocumentKind::Keys => {
                    Some("the ring in force retires when its successor is activated")
                }
            };
            if let Some(why) = why {
                return Err(DocumentError::Invalid(why.to_owned()));
            }
            let change = Change { put: Vec::new(), retire: vec![id.clone()], alongside: true };
            self.dare(id, change, accept_denials).await?;
        }
        self.store().retire_document(id.clone(), document.state, reason, by).await?;
        self.reload().await?;
        Ok(())
    }

    /// A document of the store.
    ///
    /// # Errors
    /// [`DocumentError::NotFound`].
    pub async fn document(&self, id: &DocumentId) -> Result<Document, DocumentError> {
        let found = self.store().document(id).await?;
        found.ok_or_else(|| DocumentError::NotFound(id.clone()))
    }

    /// The ring of security keys in force.
    ///
    /// # Errors
    /// [`DocumentError::NoRing`].
    pub async fn ring(&self) -> Result<KeyRing, DocumentError> {
        let first = self.settings().first_ring.as_ref();
        Ok(Rings::of(self.store(), first).await?.in_force()?.clone())
    }

    /// The signatures over a document so far, as an envelope.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn envelope(&self, document: &Document) -> Result<Envelope, DocumentError> {
        let signatures = self.store().document_signatures(&document.id).await?;
        let signable = signable(document.id.clone(), document.document.clone()).await?;
        ring::envelope(&signable, &signatures)
    }

    /// Names of the keys of this ring that signatures are kept of.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn signed_by(
        &self,
        id: &DocumentId,
        ring: &KeyRing,
    ) -> Result<Vec<String>, DocumentError> {
        let signatures = self.store().document_signatures(id).await?;
        let signed = |id: &Digest| signatures.iter().any(|signature| signature.key_id == *id);
        let names = ring.keys().iter().filter(|key| signed(key.id()));
        Ok(names.map(|key| key.name().to_string()).collect())
    }

    /// Version of the ring that approves a document by the signatures that it has.
    async fn approved(&self, document: &Document) -> Result<u64, DocumentError> {
        let ring = self.ring().await?;
        let signatures = self.store().document_signatures(&document.id).await?;
        let signable = signable(document.id.clone(), document.document.clone()).await?;
        let approves = move || approval(&ring, &signable, &signatures);
        Ok(blocking(approves).await??.ring_version())
    }

    /// The document as it would judge, if what it needs is there, and if no other set loses what it needs.
    async fn judges_somebody(
        &self,
        document: &Document,
        alongside: bool,
    ) -> Result<Vec<Compiled>, DocumentError> {
        let text = String::from_utf8_lossy(&document.document);
        let read = self.read_document(&text).await?;
        let put: Vec<Compiled> = read.compiled(false).into_iter().collect();
        let now = self.compile_in_force().await?;
        let change = Change { put: put.clone(), retire: Vec::new(), alongside };
        let before = unresolved(&Change::default().applied_to(&now));
        let after = unresolved(&change.applied_to(&now));
        if let Some(found) = after.into_iter().find(|found| !before.contains(found)) {
            let what = found.to_string();
            return Err(DocumentError::Unresolved { id: document.id.clone(), what });
        }
        Ok(put)
    }

    /// A dry run, refused where too many nodes would be turned away.
    async fn dare(
        &self,
        id: &DocumentId,
        change: Change,
        accept_denials: bool,
    ) -> Result<Summary, DocumentError> {
        let summary = DryRun::new(self, change).await?.run(self, None).await?;
        let limit_percent = self.settings().max_denied_percent;
        if !accept_denials && summary.denies_more_than(limit_percent) {
            return Err(DocumentError::DeniesTooMany { id: id.clone(), summary, limit_percent });
        }
        Ok(summary)
    }
}

async fn signable(id: DocumentId, text: Vec<u8>) -> Result<Signable, DocumentError> {
    blocking(move || Signable::of(id, text)).await?
}

/// Sets of any pool that cannot judge anybody.
fn unresolved(documents: &[Compiled]) -> Vec<Unresolved> {
    let expectations = Expectations::compile(documents);
    expectations.pools().flat_map(|(_, expected)| expected.unresolved.clone()).collect()
}
