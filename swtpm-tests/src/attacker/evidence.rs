//! Hello and evidence of one attempt, honest but for the mutations.

use proto::{
    binding::{Challenge, Purpose, QualifyingData, VerifierId},
    digest::{Digest, HashAlg},
    evidence::{ChallengeParts, LogKind, LogSuffix, PROTOCOL_VERSION},
    pb,
    tool_log::ToolLogState,
    tpm::{
        name::Name,
        public::{ObjectAttributes as A, Public},
    },
};

use super::{
    Answer, Enrolled, Observed, ek,
    machine::{Machine, forge_log},
    mutate::Mutations,
    site::Site,
    tpm::{self, ForgedQuote, Key, Signed, SoftKey},
};
use crate::{
    cluster::AnyError,
    firmware::Firmware,
    raw::{Bank, RH_ENDORSEMENT, RH_NULL, RH_OWNER},
};

/// One attempt's keys and knobs.
#[derive(Debug)]
pub struct Answerer<'s> {
    site: &'s mut Site,
    m: &'s Mutations,
    known: Option<Enrolled>,
    ak: Option<Key>,
    node_key: Vec<u8>,
    secret: Vec<u8>,
}

impl<'s> Answerer<'s> {
    /// Nothing made yet.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn new(
        site: &'s mut Site,
        m: &'s Mutations,
        known: Option<Enrolled>,
    ) -> Result<Self, AnyError> {
        if known.is_none() {
            tpm::flush_all(site.worker.raw())?;
            tpm::flush_all(site.other.raw())?;
        }
        Ok(Self { site, m, known, ak: None, node_key: Vec::new(), secret: Vec::new() })
    }

    fn machine(&mut self) -> &mut Machine {
        super::machine(self.site, self.m)
    }

    /// The AK, and Hello around it.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn hello(&mut self) -> Result<pb::Hello, AnyError> {
        let m = self.m;
        let ak = match &self.known {
            Some(known) => known.ak.clone(),
            None => self.attestation_key()?,
        };
        let shown = match m.arg("ak-shown") {
            Some(verb) => ek::shown_ak(verb, &ak.public)?,
            None => ak.public.clone(),
        };
        self.ak = Some(ak);
        let machine = super::machine(self.site, m);
        let mut logs = vec![log_state(LogKind::Tools, &machine.log)?];
        for (kind, bytes) in &machine.shown {
            logs.push(log_state(*kind, bytes)?);
        }
        let mut hello = pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            ek_public: machine.ek.as_bytes().to_vec(),
            ek_certificate: machine.certificate.clone(),
            ek_chain: Vec::new(),
            ak_public: shown,
            logs,
            attestor_version: "attacker".to_owned(),
            job: None,
        };
        ek::forge(self.site, m, &mut hello)?;
        m.hello(&mut hello)?;
        Ok(hello)
    }

    fn attestation_key(&mut self) -> Result<Key, AnyError> {
        let m = self.m;
        let verb = m.arg("ak").unwrap_or("honest");
        let machine = self.machine();
        let raw = machine.raw();
        let under_ek = |machine: &Machine, template: &[u8]| -> Result<Key, AnyError> {
            let ek = machine.load_ek()?;
            let key = tpm::child(machine.raw(), ek.handle, template)?;
            machine.raw().flush(ek.handle)?;
            Ok(key)
        };
        Ok(match verb {
            "honest" => under_ek(machine, &tpm::ak_template(tpm::AK))?,
            "survives-restart" => under_ek(machine, &tpm::ak_template(tpm::AK & !A::ST_CLEAR))?,
            "unrestricted" => under_ek(machine, &tpm::ak_template(tpm::AK & !A::RESTRICTED))?,
            "exportable" => {
                let attributes = tpm::AK & !(A::FIXED_TPM | A::FIXED_PARENT);
                under_ek(machine, &tpm::ak_template(attributes))?
            }
            "endorsement-primary" => tpm::primary(raw, RH_ENDORSEMENT, &tpm::ak_template(tpm::AK))?,
            "owner-primary" => tpm::primary(raw, RH_OWNER, &tpm::ak_template(tpm::AK))?,
            "of-other-tpm" => under_ek(&self.site.other, &tpm::ak_template(tpm::AK))?,
            "software" | "software-loaded" => {
                let scheme = Some((tpm::ALG_ECDSA, tpm::ALG_SHA256));
                let soft = SoftKey::new(tpm::AK, scheme)?;
                let public = soft.public.clone();
                let loaded =
                    if verb == "software-loaded" { tpm::load_public(raw, &public)? } else { 0 };
                self.site.soft = Some(soft);
                Key { handle: loaded, public, private: Vec::new() }
            }
            other => return Err(format!("ak:{other}").into()),
        })
    }

    /// Answers the challenge.
    ///
    /// # Errors
    /// The TPM refuses where it should not.
    pub async fn answer(&mut self, challenge: &ChallengeParts) -> Result<Answer, AnyError> {
        let m = self.m;
        let mut ak = self.ak.clone().ok_or("no AK")?;
        self.secret = self.activate(challenge, &ak)?;
        let shown_challenge = match m.arg("stale") {
            Some("challenge") => Challenge::new([0x42; 32]),
            _ => challenge.challenge,
        };
        // Node key and its certification.
        let node_key =
            if self.known.is_none() { Some(self.node_key(challenge, &ak)?) } else { None };
        let name = match (&node_key, &self.known) {
            (Some(key), _) => Public::decode(&key.public)
                .map_or_else(|_| Name::of(HashAlg::Sha256, &key.public), |public| public.name()),
            (None, Some(known)) => {
                Name::from_bytes(&known.node_key).ok_or("the known node key has no Name")?
            }
            (None, None) => return Err("no node key".into()),
        };
        self.node_key = name.as_bytes().to_vec();
        // Between challenge and quote.
        if m.has("meanwhile:restart") {
            let machine = self.machine();
            machine.tpm.restart()?;
            Firmware::default().boot_swtpm(&machine.tpm)?;
            machine.begin_log()?;
            machine.dirty = true;
            let ek = machine.load_ek()?;
            tpm::load(machine.raw(), ek.handle, &mut ak)?;
            machine.raw().flush(ek.handle)?;
            self.ak = Some(ak.clone());
        }
        if m.has("meanwhile:late") {
            self.site.clock.skip(61);
        }
        if m.has("meanwhile:clock-back") {
            self.site.clock.skip(-3600);
        }
        if m.has("meanwhile:measure-gift") {
            self.machine().measure(&super::site::tool("cc", b"with a gift")?)?;
        }
        if m.has("meanwhile:extend-tool-pcr") {
            self.machine().extend(14, &[0x66; 32])?;
        }
        if m.has("meanwhile:extend-pcr-11") {
            self.machine().extend(11, &[0x66; 32])?;
        }
        if m.has("meanwhile:ima-unlisted-file") {
            super::logs::measure(self.machine(), "/tmp/evil")?;
        }
        if m.has("meanwhile:ima-silent-extend") {
            self.machine().extend(10, &[0x66; 32])?;
        }
        if m.has("meanwhile:revoke") {
            self.site.revoke("w1").await?;
        }
        if m.has("meanwhile:move") {
            self.site.move_to("empty").await?;
        }
        if m.has("meanwhile:golden-set") {
            self.site.apply_again().await?;
        }
        if m.has("meanwhile:import-crl") {
            self.site.import_crl().await?;
        }
        // The tool log, as shown.
        let machine = self.machine();
        let shown = match m.arg("log") {
            Some(verb) => forge_log(machine, verb)?,
            None => machine.log.clone(),
        };
        let mut state = ToolLogState::at_reset(machine.state.pcr, &[HashAlg::Sha256]);
        let head = match state.apply(&shown) {
            Ok(_) => state.head,
            Err(_) => machine.state.head,
        };
        let head = if m.has("quote:other-head") { Digest::zero(HashAlg::Sha256) } else { head };
        let (_, from) = challenge
            .logs_wanted
            .iter()
            .find(|(kind, _)| *kind == LogKind::Tools)
            .ok_or("the tool log is not wanted")?;
        let log = shown.get(usize::try_from(*from)?..).unwrap_or_default().to_vec();
        let others = self.other_logs(challenge)?;
        // Quote and values.
        let verifier = match m.arg("quote") {
            Some("other-verifier") => VerifierId::new([0x77; 32]),
            _ => challenge.verifier_id,
        };
        let bound_key = match m.arg("quote") {
            Some("other-node-key") => Name::of(HashAlg::Sha256, b"a key elsewhere"),
            _ => name,
        };
        let data = QualifyingData::for_quote(
            &Purpose::Node,
            &shown_challenge,
            &verifier,
            &bound_key,
            &head,
        );
        let mut values = self.values(challenge)?;
        let quote = self.quote(challenge, &ak, &data, &values)?;
        if self.known.is_some() && m.has("replay:quote") {
            let before =
                self.known.as_ref().map(|known| known.evidence.clone()).unwrap_or_default();
            values = before.pcr_values;
        }
        if m.has("select:more") {
            values.push(self.value(HashAlg::Sha256, 15)?);
            values.sort_by_key(|value| value.index);
        }
        let mut evidence = pb::Evidence {
            activation_secret: self.secret.clone(),
            quote: Some(pb(quote)),
            pcr_values: values,
            node_key,
        };
        m.evidence(&mut evidence)?;
        Ok(Answer { evidence, log, from: *from, others })
    }

    /// The logs besides the tool log that are wanted and shown.
    fn other_logs(&mut self, challenge: &ChallengeParts) -> Result<Vec<LogSuffix>, AnyError> {
        let m = self.m;
        let mut out = Vec::new();
        for (kind, from_bytes) in &challenge.logs_wanted {
            let unsent = match kind {
                LogKind::Uefi => m.has("uefi:announced-not-sent"),
                LogKind::Ima => m.has("ima:announced-not-sent"),
                LogKind::Tools | LogKind::Systemd => false,
            };
            let (false, Some(log)) = (unsent, self.machine().shown.get(kind)) else { continue };
            let bytes = log.get(usize::try_from(*from_bytes)?..).unwrap_or_default().to_vec();
            out.push(LogSuffix { kind: *kind, from_bytes: *from_bytes, bytes });
        }
        Ok(out)
    }

    fn activate(&mut self, challenge: &ChallengeParts, ak: &Key) -> Result<Vec<u8>, AnyError> {
        let m = self.m;
        let Some(credential) = &challenge.credential else { return Ok(Vec::new()) };
        match m.arg("secret") {
            Some("missing") => return Ok(Vec::new()),
            Some("guessed") => return Ok(vec![0; 32]),
            Some("replayed") => {
                let before = self.site.last_secret.clone();
                return Ok(before);
            }
            Some("tpm-refuses") => {
                let machine = self.machine();
                let ek = machine.load_ek()?;
                let refused = tpm::activate(machine.raw(), ak.handle, ek.handle, credential);
                if refused.is_ok() {
                    return Err("the TPM activated a key that it does not hold".into());
                }
                tpm::flush_all(self.site.worker.raw())?;
                return Ok(vec![0; 32]);
            }
            _ => {}
        }
        let machine = self.machine();
        let ek = machine.load_ek()?;
        let secret = tpm::activate(machine.raw(), ak.handle, ek.handle, credential)?;
        machine.raw().flush(ek.handle)?;
        self.site.last_secret.clone_from(&secret);
        Ok(secret)
    }

    /// Node key, its parent and its certification.
    fn node_key(&mut self, challenge: &ChallengeParts, ak: &Key) -> Result<pb::NodeKey, AnyError> {
        let m = self.m;
        let verb = m.arg("node-key").unwrap_or("honest");
        let raw = self.machine().raw();
        if m.arg("ak").is_some_and(|ak| ak.starts_with("software") || ak == "of-other-tpm") {
            // The AK is not in this TPM: nothing can be certified, and nothing will be looked at.
            let public = tpm::storage_template();
            return Ok(pb::NodeKey {
                public: ak.public.clone(),
                parent_public: public,
                certify: Some(pb(self.soft()?.sign(vec![0; 8]))),
            });
        }
        let hierarchy = if verb == "owner-hierarchy" { RH_OWNER } else { RH_NULL };
        let parent = tpm::primary(raw, hierarchy, &tpm::storage_template())?;
        let attributes = match verb {
            "exportable" => tpm::NODE_KEY & !(A::FIXED_TPM | A::FIXED_PARENT),
            "restricted" => tpm::NODE_KEY | A::RESTRICTED,
            _ => tpm::NODE_KEY,
        };
        let curve = if verb == "p384" { tpm::P384 } else { tpm::P256 };
        let other = if verb == "swapped" {
            let template = tpm::node_key_template(tpm::NODE_KEY, tpm::P256);
            let other = tpm::child(raw, parent.handle, &template)?;
            raw.flush(other.handle)?;
            Some(other)
        } else {
            None
        };
        let key = tpm::child(raw, parent.handle, &tpm::node_key_template(attributes, curve))?;
        self.site.last_node_key = Some(key.clone());
        let mut shown = key.public.clone();
        match verb {
            "swapped" => shown = other.ok_or("no other key")?.public,
            // No TPM certifies such a key without its policy: what is shown is not what it has.
            "admin-with-policy" => {
                super::ek::set_attributes(&mut shown, |bits| bits | A::ADMIN_WITH_POLICY);
            }
            "software" => shown = SoftKey::new(tpm::NODE_KEY, None)?.public,
            "off-curve" => {
                if let Some(last) = shown.last_mut() {
                    *last ^= 1;
                }
            }
            _ => {}
        }
        raw.flush(parent.handle)?;
        let name = Public::decode(&shown)
            .map_or_else(|_| Name::of(HashAlg::Sha256, &shown), |public| public.name());
        let bound = match m.arg("certify") {
            Some("stale") => Challenge::new([0x42; 32]),
            _ => challenge.challenge,
        };
        let verifier = &challenge.verifier_id;
        let data = match m.arg("certify") {
            Some("as-quote") => QualifyingData::for_quote(
                &Purpose::Node,
                &bound,
                verifier,
                &name,
                &Digest::zero(HashAlg::Sha256),
            ),
            _ => QualifyingData::for_node_key(&bound, verifier, &name),
        };
        let certify: Signed = match m.arg("certify") {
            Some("quote") => raw.quote(ak.handle, data.as_bytes(), &[(Bank::Sha256, 0x80)])?.into(),
            Some("by-another-ak") => {
                raw.flush(ak.handle)?;
                let machine = self.machine();
                let ek = machine.load_ek()?;
                let other = tpm::child(raw, ek.handle, &tpm::ak_template(tpm::AK))?;
                raw.flush(ek.handle)?;
                let signed = raw.certify(key.handle, other.handle, data.as_bytes())?;
                // Back to the AK of this attempt.
                raw.flush(other.handle)?;
                raw.flush(key.handle)?;
                let ek = self.machine().load_ek()?;
                let mut again = ak.clone();
                tpm::load(raw, ek.handle, &mut again)?;
                raw.flush(ek.handle)?;
                self.ak = Some(again);
                signed.into()
            }
            Some("by-node-key") => self.forged_certification(&name, &data)?,
            _ => raw.certify(key.handle, ak.handle, data.as_bytes())?.into(),
        };
        if !m.has("certify:by-another-ak") {
            raw.flush(key.handle)?;
        }
        let parent_public = match verb {
            "other-parent" => SoftKey::new(tpm::NODE_KEY, None)?.public,
            _ => parent.public,
        };
        Ok(pb::NodeKey { public: shown, parent_public, certify: Some(pb(certify)) })
    }

    /// A certification signed by a key in the attacker's memory.
    fn forged_certification(
        &mut self,
        name: &Name,
        data: &QualifyingData,
    ) -> Result<Signed, AnyError> {
        let forged = ForgedQuote {
            magic: 0xff54_4347,
            kind: 0x8017,
            signer: name.as_bytes().to_vec(),
            extra_data: data.as_bytes().to_vec(),
            counters: (1, 0),
            firmware: 0,
            selection: Vec::new(),
            digest: Vec::new(),
            tail: Vec::new(),
        };
        Ok(self.soft()?.sign(forged.encode()))
    }

    fn soft(&mut self) -> Result<&SoftKey, AnyError> {
        if self.site.soft.is_none() {
            let scheme = Some((tpm::ALG_ECDSA, tpm::ALG_SHA256));
            self.site.soft = Some(SoftKey::new(tpm::AK, scheme)?);
        }
        Ok(self.site.soft.as_ref().ok_or("no software key")?)
    }

    fn value(&mut self, alg: HashAlg, pcr: u8) -> Result<pb::PcrValue, AnyError> {
        let bank = bank(alg)?;
        let digest = self.machine().raw().pcr_read(bank, pcr)?.ok_or("a PCR is not there")?;
        Ok(pb::PcrValue { hash_alg: alg.tpm_id().into(), index: pcr.into(), digest })
    }

    fn values(&mut self, challenge: &ChallengeParts) -> Result<Vec<pb::PcrValue>, AnyError> {
        let selection = challenge.pcr_selection.clone();
        selection.iter().map(|(alg, index)| self.value(alg, index.get())).collect()
    }

    /// The quote, by whom and over what the row says.
    fn quote(
        &mut self,
        challenge: &ChallengeParts,
        ak: &Key,
        data: &QualifyingData,
        values: &[pb::PcrValue],
    ) -> Result<Signed, AnyError> {
        let m = self.m;
        let ak = self.ak.clone().unwrap_or_else(|| ak.clone());
        let mut selection = Vec::new();
        for (alg, set) in challenge.pcr_selection.banks() {
            selection.push((bank(*alg)?, set.bits()));
        }
        match m.arg("select") {
            Some("nothing") => selection.clear(),
            Some("empty-bank") => selection.iter_mut().for_each(|bank| bank.1 = 0),
            Some("without-7") => selection.iter_mut().for_each(|bank| bank.1 &= !0x80),
            Some("tool-pcr-only") => selection.iter_mut().for_each(|bank| bank.1 = 1 << 14),
            Some("more") => selection.iter_mut().for_each(|bank| bank.1 |= 1 << 15),
            Some("sha1") => selection = vec![(Bank::Sha1, 0xff)],
            Some("sha1-too") => selection.insert(0, (Bank::Sha1, 0xff)),
            Some("moved") => self.machine().extend(13, &[0x31; 32])?,
            _ => {}
        }
        if m.has("replay:quote") {
            let known = self.known.as_ref().ok_or("nothing to replay")?;
            let quote = known.evidence.quote.clone().unwrap_or_default();
            return Ok(Signed { attest: quote.attest, signature: quote.signature });
        }
        if m.has("store:soft-boot") || m.arg("ak").is_some_and(|ak| ak.starts_with("software")) {
            return self.forged_quote(&ak, data, &selection, values);
        }
        if m.has("ak:of-other-tpm") {
            return Ok(self.soft()?.sign(vec![0; 8]));
        }
        let raw = self.machine().raw();
        let data = data.as_bytes();
        Ok(match m.arg("quote") {
            Some("certify") => raw.certify(ak.handle, ak.handle, data)?.into(),
            Some("no-data") => raw.quote(ak.handle, &[], &selection)?.into(),
            Some("bare-challenge") => {
                raw.quote(ak.handle, challenge.challenge.as_bytes(), &selection)?.into()
            }
            Some("31-bytes") => raw.quote(ak.handle, &data[..31], &selection)?.into(),
            Some("33-bytes") => {
                raw.quote(ak.handle, &[data.as_slice(), &[0]].concat(), &selection)?.into()
            }
            Some("by-other-node") => {
                let other = &self.site.other;
                let ek = other.load_ek()?;
                let theirs = tpm::child(other.raw(), ek.handle, &tpm::ak_template(tpm::AK))?;
                other.raw().flush(ek.handle)?;
                other.raw().quote(theirs.handle, data, &selection)?.into()
            }
            Some("by-memory") => {
                let mut quote: Signed = raw.quote(ak.handle, data, &selection)?.into();
                quote.signature = self.soft()?.sign(quote.attest.clone()).signature;
                quote
            }
            _ => raw.quote(ak.handle, data, &selection)?.into(),
        })
    }

    /// A quote by a software AK.
    fn forged_quote(
        &mut self,
        ak: &Key,
        data: &QualifyingData,
        selection: &[(Bank, u32)],
        values: &[pb::PcrValue],
    ) -> Result<Signed, AnyError> {
        let m = self.m;
        let machine = self.machine();
        let clock = machine.raw().clock()?;
        let public = Public::decode(&ak.public)?;
        let ek = machine.ek.clone();
        let parent = Name::qualified_primary(RH_ENDORSEMENT, ek.name_alg(), &ek.name());
        let signer = Name::qualified_child(&parent, public.name_alg(), &public.name());
        let digests: Vec<&[u8]> = values.iter().map(|value| value.digest.as_slice()).collect();
        let mut forged = ForgedQuote {
            magic: 0xff54_4347,
            kind: 0x8018,
            signer: signer.as_bytes().to_vec(),
            extra_data: data.as_bytes().to_vec(),
            counters: (clock.reset_count, clock.restart_count),
            firmware: self.site.firmware_version,
            selection: selection.iter().map(|(bank, bits)| (bank.tpm_id(), 3, *bits)).collect(),
            digest: HashAlg::Sha256.hash(&digests).as_bytes().to_vec(),
            tail: Vec::new(),
        };
        match m.arg("forge") {
            Some("magic") => forged.magic = 0x4343_4343,
            Some("kind") => forged.kind = 0x8019,
            Some("signer") => forged.signer[5] ^= 1,
            Some("firmware") => forged.firmware ^= 1,
            Some("reset-count-back") => forged.counters = (clock.reset_count - 1, 9),
            Some("bank-twice") => forged.selection.push(forged.selection[0]),
            Some("bank-split") => {
                let (alg, size, bits) = forged.selection[0];
                forged.selection = vec![(alg, size, bits & 0xff), (alg, size, bits & !0xff)];
            }
            Some("select-size") => forged.selection[0].1 = 4,
            Some("banks-many") => forged.selection = vec![(0x000b, 3, 1); 100],
            Some("tail") => forged.tail = vec![0],
            Some("cut") => {
                let mut bytes = forged.encode();
                bytes.truncate(bytes.len() - 40);
                return Ok(self.soft()?.sign(bytes));
            }
            Some("safe-flag") => {
                let mut bytes = forged.encode();
                // Behind magic, type, signer, extraData, clock and counters.
                let at = 6 + 2 + forged.signer.len() + 2 + forged.extra_data.len() + 16;
                bytes[at] = 2;
                return Ok(self.soft()?.sign(bytes));
            }
            _ => {}
        }
        Ok(self.soft()?.sign(forged.encode()))
    }

    /// What a renewal needs.
    #[must_use]
    pub fn enrolled(
        self,
        challenge: ChallengeParts,
        answer: Answer,
        observed: Observed,
    ) -> Enrolled {
        let ak = self.ak.unwrap_or(Key { handle: 0, public: Vec::new(), private: Vec::new() });
        let (node_key, secret) = (self.node_key, self.secret);
        Enrolled { ak, node_key, evidence: answer.evidence, secret, challenge, observed }
    }
}

fn log_state(kind: LogKind, log: &[u8]) -> Result<pb::LogState, AnyError> {
    Ok(pb::LogState { kind: kind.to_pb().into(), size_bytes: u64::try_from(log.len())? })
}

fn bank(alg: HashAlg) -> Result<Bank, AnyError> {
    let found = Bank::ALL.into_iter().find(|bank| bank.tpm_id() == alg.tpm_id());
    found.ok_or_else(|| "no such bank".into())
}

fn pb(signed: Signed) -> pb::SignedAttest {
    pb::SignedAttest { attest: signed.attest, signature: signed.signature }
}
