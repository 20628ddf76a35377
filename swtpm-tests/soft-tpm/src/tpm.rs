//! The whole TPM: keys, PCRs, counters, a tool log, and answers to challenges.

use std::collections::BTreeMap;

use proto::{
    binding::{Purpose, QualifyingData},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{ChallengeParts, LogKind, LogSuffix, PROTOCOL_VERSION},
    limits::MAX_LOG_CHUNK_BYTES,
    pb,
    tool_log::{ToolMeasurement, encode_event},
    tpm::{
        constants::{RH_ENDORSEMENT, RH_NULL},
        name::Name,
        public::Public,
    },
};

use crate::{
    attest::{AttestTemplate, Body, selection},
    ek::{Ek, EkKind},
    key::{Algorithm, SigningKey},
    public::PublicTemplate,
};

/// Banks that are allocated.
const BANKS: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha384];

/// A TPM with an EK, and in this boot an AK and a node key. Every field may be forged.
#[derive(Debug)]
pub struct SoftTpm {
    /// Endorsement key.
    pub ek: Ek,
    /// Attestation key of this boot.
    pub ak: SigningKey,
    /// Its public area.
    pub ak_public: Public,
    /// Public area of the node key of this boot.
    pub node_key: PublicTemplate,
    /// Public area of the NULL primary above it.
    pub parent: PublicTemplate,
    /// PCR values.
    pub pcrs: BTreeMap<(HashAlg, PcrIndex), Digest>,
    /// PCR of the tool log.
    pub tool_pcr: PcrIndex,
    /// The tool log of this boot.
    pub log: Vec<u8>,
    /// Events in it.
    pub events: u64,
    /// Head of the log's hash chain.
    pub head: Digest,
    /// resetCount.
    pub reset_count: u32,
    /// restartCount.
    pub restart_count: u32,
    /// Clock, milliseconds.
    pub clock_ms: u64,
    /// Whether the clock is safe.
    pub safe: bool,
    /// TPM firmware version.
    pub firmware_version: u64,
    /// What quotes are bound to.
    pub purpose: Purpose,
}

/// An answer that is not signed yet: everything in it may be changed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What ActivateCredential gave.
    pub secret: Vec<u8>,
    /// The quote.
    pub quote: AttestTemplate,
    /// PCR values, ascending by (bank, index).
    pub pcr_values: Vec<pb::PcrValue>,
    /// Node key, parent, certification.
    pub node_key: Option<(Vec<u8>, Vec<u8>, AttestTemplate)>,
    /// The tool log's suffix.
    pub log: Vec<LogSuffix>,
    /// Who signs the quote.
    pub quote_key: SigningKey,
    /// Who signs the certification.
    pub certify_key: SigningKey,
}

impl SoftTpm {
    /// A TPM after its firmware measured into PCR 0–7 and 11, with fresh keys.
    ///
    /// # Panics
    /// If the library makes no key.
    #[must_use]
    pub fn new(ek: EkKind, ak: Algorithm, tool_pcr: PcrIndex) -> Self {
        let ak = SigningKey::generate(ak);
        let mut tpm = Self {
            ek: Ek::generate(ek),
            ak_public: PublicTemplate::ak(&ak).public(),
            ak,
            node_key: PublicTemplate::node_key(&SigningKey::generate(Algorithm::EcdsaP256)),
            parent: parent(),
            pcrs: BTreeMap::new(),
            tool_pcr,
            log: Vec::new(),
            events: 0,
            head: Digest::zero(HashAlg::Sha256),
            reset_count: 7,
            restart_count: 2,
            clock_ms: 123_456,
            safe: true,
            firmware_version: 0x0001_0002_0003_0004,
            purpose: Purpose::Node,
        };
        tpm.start_pcrs();
        tpm
    }

    fn start_pcrs(&mut self) {
        for alg in BANKS {
            for index in (0..24).filter_map(PcrIndex::new) {
                let mut value = index.reset_value(alg);
                if index.get() < 8 || index.get() == 11 {
                    value = value.extended(&alg.hash(&[b"firmware", &[index.get()]]));
                }
                self.pcrs.insert((alg, index), value);
            }
        }
        self.log.clear();
        self.events = 0;
        self.head = Digest::zero(HashAlg::Sha256);
    }

    /// `TPM2_Startup(CLEAR)` after a reset, and the worker's new keys.
    pub fn reset(&mut self) {
        self.reset_count += 1;
        self.restart_count = 0;
        self.new_keys();
        self.start_pcrs();
    }

    /// Another AK and node key, as an attestor that was started again makes them.
    pub fn new_keys(&mut self) {
        self.ak = SigningKey::generate(self.ak.algorithm());
        self.ak_public = PublicTemplate::ak(&self.ak).public();
        self.node_key = PublicTemplate::node_key(&SigningKey::generate(Algorithm::EcdsaP256));
        self.parent = parent();
    }

    /// Uses this public area for the AK's key from now on.
    pub fn set_ak(&mut self, public: Public) {
        self.ak_public = public;
    }

    /// Appends a measurement to the tool log and extends its PCR in every bank.
    pub fn measure(&mut self, measurement: &ToolMeasurement) {
        let event = encode_event(self.events, self.tool_pcr, &BANKS, measurement);
        let content = content_of(&event);
        for alg in BANKS {
            self.extend(alg, self.tool_pcr, &alg.hash(&[content]));
        }
        let digest = HashAlg::Sha256.hash(&[content]);
        self.head = HashAlg::Sha256.hash(&[self.head.as_bytes(), digest.as_bytes()]);
        self.events += 1;
        self.log.extend(event);
    }

    /// `TPM2_PCR_Extend`.
    pub fn extend(&mut self, alg: HashAlg, index: PcrIndex, digest: &Digest) {
        if let Some(value) = self.pcrs.get_mut(&(alg, index)) {
            *value = value.extended(digest);
        }
    }

    /// The first message.
    #[must_use]
    pub fn hello(&self) -> pb::Hello {
        pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            ek_public: self.ek.public().as_bytes().to_vec(),
            ek_certificate: Vec::new(),
            ek_chain: Vec::new(),
            ak_public: self.ak_public.as_bytes().to_vec(),
            logs: vec![pb::LogState {
                kind: LogKind::Tools.to_pb().into(),
                size_bytes: self.log.len() as u64,
            }],
            attestor_version: "soft".into(),
            job: None,
        }
    }

    /// Qualified Name of the AK as a child of the EK.
    #[must_use]
    pub fn qualified_signer(&self) -> Name {
        let ek = self.ek.public();
        let parent = Name::qualified_primary(RH_ENDORSEMENT, ek.name_alg(), &ek.name());
        Name::qualified_child(&parent, self.ak_public.name_alg(), &self.ak_public.name())
    }

    /// `pcrDigest` over a selection in the order given.
    ///
    /// # Panics
    /// If a bank is not allocated.
    #[must_use]
    pub fn pcr_digest(&self, banks: &[(HashAlg, PcrSet)]) -> Digest {
        let values: Vec<&[u8]> = banks
            .iter()
            .flat_map(|(alg, set)| set.iter().map(|index| self.pcrs[&(*alg, index)].as_bytes()))
            .collect();
        self.ak.algorithm().hash().hash(&values)
    }

    /// The body of a quote over a selection in the order given.
    #[must_use]
    pub fn quote_body(&self, banks: &[(HashAlg, PcrSet)]) -> Body {
        let digest = self.pcr_digest(banks).as_bytes().to_vec();
        Body::Quote { selection: selection(banks), digest }
    }

    /// The values of a selection, as a worker presents them.
    #[must_use]
    pub fn pcr_values(&self, asked: &PcrSelection) -> Vec<pb::PcrValue> {
        asked
            .iter()
            .filter_map(|at| {
                let value = self.pcrs.get(&at)?;
                Some(pb::PcrValue {
                    hash_alg: u32::from(at.0.tpm_id()),
                    index: u32::from(at.1.get()),
                    digest: value.as_bytes().to_vec(),
                })
            })
            .collect()
    }

    /// The honest answer to a challenge.
    ///
    /// # Panics
    /// If the challenge asks for a bank that is not allocated.
    #[must_use]
    pub fn answer(&self, asked: &ChallengeParts) -> Answer {
        let (challenge, verifier) = (&asked.challenge, &asked.verifier_id);
        let node_key = self.node_key.encode();
        let name_alg = HashAlg::from_tpm(self.node_key.name_alg).unwrap_or(HashAlg::Sha256);
        let name = Name::of(name_alg, &node_key);
        let signer = self.qualified_signer();
        let data = QualifyingData::for_quote(&self.purpose, challenge, verifier, &name, &self.head);
        let body = self.quote_body(asked.pcr_selection.banks());
        let quote = self.stamped(AttestTemplate::new(body, signer.as_bytes(), data.as_bytes()));
        let node_key = asked.node_key_wanted.then(|| {
            let parent = self.parent.encode();
            let parent_alg = HashAlg::from_tpm(self.parent.name_alg).unwrap_or(HashAlg::Sha256);
            let parent_name = Name::of(parent_alg, &parent);
            let above = Name::qualified_primary(RH_NULL, parent_alg, &parent_name);
            let qualified = Name::qualified_child(&above, name_alg, &name);
            let body = Body::Certify {
                name: name.as_bytes().to_vec(),
                qualified_name: qualified.as_bytes().to_vec(),
            };
            let data = QualifyingData::for_node_key(challenge, verifier, &name);
            let certify = AttestTemplate::new(body, signer.as_bytes(), data.as_bytes());
            (node_key, parent, self.stamped(certify))
        });
        let secret = asked.credential.as_ref().and_then(|(id_object, encrypted_secret)| {
            let credential = pb::Credential {
                id_object: id_object.clone(),
                encrypted_secret: encrypted_secret.clone(),
            };
            self.ek.activate(&self.ak_public.name(), &credential)
        });
        let log = asked.logs_wanted.iter().filter(|(kind, _)| *kind == LogKind::Tools);
        Answer {
            secret: secret.unwrap_or_default(),
            quote,
            pcr_values: self.pcr_values(&asked.pcr_selection),
            node_key,
            log: log
                .map(|(kind, from)| LogSuffix {
                    kind: *kind,
                    from_bytes: *from,
                    bytes: usize::try_from(*from)
                        .ok()
                        .and_then(|from| self.log.get(from..))
                        .unwrap_or_default()
                        .to_vec(),
                })
                .collect(),
            quote_key: self.ak.clone(),
            certify_key: self.ak.clone(),
        }
    }

    fn stamped(&self, mut attest: AttestTemplate) -> AttestTemplate {
        attest.clock_ms = self.clock_ms;
        attest.reset_count = self.reset_count;
        attest.restart_count = self.restart_count;
        attest.safe = u8::from(self.safe);
        attest.firmware_version = self.firmware_version;
        attest
    }
}

impl Answer {
    /// Signs quote and certification; the log stays apart, as it travels apart.
    #[must_use]
    pub fn sign(&self) -> pb::Evidence {
        let signed = |template: &AttestTemplate, key: &SigningKey| {
            let attest = template.encode();
            let signature = key.sign(&attest);
            pb::SignedAttest { attest, signature }
        };
        pb::Evidence {
            activation_secret: self.secret.clone(),
            quote: Some(signed(&self.quote, &self.quote_key)),
            pcr_values: self.pcr_values.clone(),
            node_key: self.node_key.as_ref().map(|(public, parent, certify)| pb::NodeKey {
                public: public.clone(),
                parent_public: parent.clone(),
                certify: Some(signed(certify, &self.certify_key)),
            }),
        }
    }

    /// The messages after Hello: evidence, log pieces, end.
    #[must_use]
    pub fn messages(&self) -> Vec<pb::AttestRequest> {
        use pb::attest_request::Message;
        let mut out = vec![Message::Evidence(self.sign())];
        for log in &self.log {
            let mut offset_bytes = log.from_bytes;
            for data in log.bytes.chunks(MAX_LOG_CHUNK_BYTES) {
                let kind = log.kind.to_pb().into();
                out.push(Message::LogChunk(pb::LogChunk {
                    kind,
                    offset_bytes,
                    data: data.to_vec(),
                }));
                offset_bytes += data.len() as u64;
            }
        }
        out.push(Message::End(pb::End {}));
        out.into_iter().map(|message| pb::AttestRequest { message: Some(message) }).collect()
    }
}

/// A storage primary of the NULL hierarchy.
fn parent() -> PublicTemplate {
    let key = SigningKey::generate(Algorithm::EcdsaP256);
    PublicTemplate {
        attributes: crate::public::EK_ATTRIBUTES,
        aes_bits: Some(128),
        scheme: (0x0010, None),
        ..PublicTemplate::node_key(&key)
    }
}

/// The content TLV of an event: after record number (13 bytes), PCR (6) and the digests' TLV.
fn content_of(event: &[u8]) -> &[u8] {
    let digests = &event[13 + 6..];
    let size = u32::from_be_bytes([digests[1], digests[2], digests[3], digests[4]]);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    &digests[5 + size..]
}
