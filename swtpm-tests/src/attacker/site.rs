//! The site under attack: one verifier, an enrolled machine, a second one that waits for approval.

use std::{fmt, sync::Arc, time::SystemTime};

use appraisal::{
    ak::RestrictedAk,
    boot::BootDocument,
    ima::ImaRules,
    policy::document::{AcceptedTool, GoldenDocument, ImaSection, PcrRule, ToolRule},
};
use attestor::tpm::EkPreference;
use prost::Message as _;
use proto::{
    digest::{Digest, HashAlg},
    evidence::LogKind,
    pb,
    spki::ek_digest,
    tool_log::{
        EntryKind, FileRole, ToolEntry, ToolLogReader, ToolMeasurement, ToolState, encode_event,
    },
    tpm::public::Public,
};
use tonic::transport::Channel;
use verifier::{
    clock::Clock,
    store::{DocumentId, EndorsementKind, NewNode, NodeChange, NodeStatus},
};

use super::{
    Enrolled, ek, judging, logs,
    machine::Machine,
    mutate::Mutations,
    stream,
    tpm::{self, Key, SoftKey},
};
use crate::{
    clock::SkewedClock,
    cluster::{AnyError, Cluster, Tools},
    firmware::Firmware,
    manufacturer::{DAY, EkProfile},
    raw::Bank,
    swtpm::{Swtpm, SwtpmOptions},
};

/// A site.
pub struct Site {
    /// The verifier.
    pub cluster: Cluster,
    /// Its clock.
    pub clock: Arc<SkewedClock>,
    /// Node `w1` of pool `linux`, active.
    pub worker: Machine,
    /// Node `w2` of pool `linux`, pending; its TPM has a SHA-1 bank too.
    pub other: Machine,
    /// A connection without client certificate.
    pub channel: Channel,
    /// The tools of the honest worker.
    pub tools: Tools,
    /// A key in the attacker's memory, made when needed.
    pub soft: Option<SoftKey>,
    /// The last activation secret that a TPM recovered.
    pub last_secret: Vec<u8>,
    /// The last node key that was made.
    pub last_node_key: Option<Key>,
    /// The TPM's firmware version, as it quotes it.
    pub firmware_version: u64,
    /// An EK certificate that a CRL lists.
    pub revoked_certificate: Vec<u8>,
    golden: GoldenDocument,
    /// Rules about what booted, that the honest machine meets with its firmware's log.
    boot_rules: GoldenDocument,
    /// The manifest of what its kernel measures.
    manifest: Digest,
    version: u64,
    /// The policy that is in force for a row.
    policy: Option<DocumentId>,
    crl: Option<Vec<u8>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Site {
    /// Starts everything; an honest worker's state becomes the golden set.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start() -> Result<Self, AnyError> {
        let clock = Arc::new(SkewedClock::default());
        let mut cluster = Cluster::start_at(Arc::clone(&clock) as Arc<dyn Clock>).await?;
        // The shortest life of a challenge, so that silence is over soon.
        cluster.stop_verifier().await?;
        let config = cluster.folder().join("verifier.toml");
        let mut text: toml::Table = toml::from_str(&std::fs::read_to_string(&config)?)?;
        let limits = text.entry("limits").or_insert_with(|| toml::Table::new().into());
        let limits = limits.as_table_mut().ok_or("limits is no table")?;
        limits.insert("challenge_lifetime".to_owned(), "15s".into());
        // Whoever is not in the inventory stays out.
        let inventory = text.entry("inventory").or_insert_with(|| toml::Table::new().into());
        let inventory = inventory.as_table_mut().ok_or("inventory is no table")?;
        inventory.insert("allow_pending".to_owned(), false.into());
        std::fs::write(&config, toml::to_string(&text)?)?;
        cluster.start_verifier().await?;

        let pcr = cluster.verifier().settings().tool_pcr;
        let mut worker = Machine::new(Swtpm::start(SwtpmOptions::default())?, pcr)?;
        let banks = vec![Bank::Sha1, Bank::Sha256];
        let other = SwtpmOptions { banks, ..SwtpmOptions::default() };
        let other = Machine::new(Swtpm::start(other)?, pcr)?;
        cluster.trust(worker.tpm.manufacturer()).await?;
        cluster.add_node("w1", "linux", ek_digest(&worker.ek)).await?;
        let pending = NewNode {
            name: "w2".to_owned(),
            ek_digest: ek_digest(&other.ek),
            pool: "linux".to_owned(),
            status: NodeStatus::Pending,
            ek_certificate: None,
            ek_chain: Vec::new(),
            manufacturer: None,
            admitted_by: None,
            note: String::new(),
        };
        cluster.store().add_node(pending, cluster.by()).await?;

        let mut tools = Tools::new()?;
        worker.boot()?;
        let honest = honest(&cluster, &worker, &tools).await?;
        let golden = cluster.golden_from("w1", |text| text).await?;
        let golden: GoldenDocument = toml::from_str(&golden)?;
        let (measured, firmware_version) = recorded(&cluster, &honest).await?;
        let boot_rules = judging::boot_rules(&cluster, &mut worker, &mut tools).await?;
        let version = boot_rules.version;
        let manifest = judging::import_manifest(&cluster).await?;
        let port = cluster.running().address.port();
        let bundle = cluster.folder().join("state/bundle.pem");
        let channel = stream::connect(port, &bundle, None).await?;
        let mut site = Self {
            cluster,
            clock,
            worker,
            other,
            channel,
            tools,
            soft: None,
            last_secret: Vec::new(),
            last_node_key: None,
            firmware_version,
            revoked_certificate: Vec::new(),
            golden,
            boot_rules,
            manifest,
            version,
            policy: None,
            crl: None,
        };
        site.apply_again().await?;
        site.worker.tools.clone_from(&measured);
        site.other.tools = measured;
        site.worker.boot()?;
        site.other.boot()?;
        Ok(site)
    }

    /// The site's time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        ek::moment(self.clock.now_unix_s())
    }

    /// An honest worker, by the attestor's own code, after a clean boot.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn honest_worker(&mut self) -> Result<pb::AttestationResult, AnyError> {
        tpm::flush_all(self.worker.raw())?;
        self.worker.tpm.reset()?;
        Firmware::default().boot_swtpm(&self.worker.tpm)?;
        self.worker.dirty = true;
        // Its own tool log of this boot.
        let tcti = self.worker.tpm.tcti();
        let mut worker = self.cluster.worker_with(&tcti, &self.tools, EkPreference::Auto).await?;
        let result = worker.attest().await?.result;
        worker.stop().await;
        Ok(result)
    }

    /// A Hello with the first machine's EK and a key that nobody has.
    #[must_use]
    pub fn hello_of_nobody(&self) -> pb::Hello {
        let scheme = Some((tpm::ALG_ECDSA, tpm::ALG_SHA256));
        let ak_public = SoftKey::new(tpm::AK, scheme).map(|key| key.public).unwrap_or_default();
        pb::Hello {
            protocol_version: proto::evidence::PROTOCOL_VERSION,
            ek_public: self.worker.ek.as_bytes().to_vec(),
            ek_certificate: self.worker.certificate.clone(),
            ak_public,
            ..Default::default()
        }
    }

    /// The first golden set of the pool, long replaced.
    ///
    /// # Errors
    /// It cannot be written as TOML.
    pub fn oldest_golden(&self) -> Result<String, AnyError> {
        Ok(toml::to_string(&self.golden)?)
    }

    /// Brings the site into the state that the row wants.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn prepare(&mut self, m: &Mutations) -> Result<(), AnyError> {
        self.soft = None;
        for machine in [&mut self.worker, &mut self.other] {
            if machine.dirty {
                machine.boot()?;
            }
        }
        if m.has("rollback") {
            let before = self.worker.tpm.snapshot()?;
            self.worker.boot()?;
            self.worker.boot()?;
            let admitted = Box::pin(super::enrol(self, &Mutations::none(), None)).await?;
            if !admitted.observed.certificate {
                return Err(format!("not admitted before the rollback: {admitted:?}").into());
            }
            self.worker.tpm.restore(&before)?;
            Firmware::default().boot_swtpm(&self.worker.tpm)?;
            self.worker.begin_log()?;
            self.worker.dirty = true;
        }
        self.boot(m)?;
        self.measure(m)?;
        if let Some(verb) = m.arg("golden") {
            let document = self.forged_golden(verb)?;
            self.show_logs(m, verb)?;
            self.apply(document).await?;
        }
        if let Some(verb) = m.arg("policy") {
            self.enforce(verb).await?;
        }
        match m.arg("node") {
            Some("revoked") => self.revoke("w1").await?,
            Some("pool-without-golden-set") => self.move_to("empty").await?,
            Some(other) => return Err(format!("node:{other}").into()),
            None => {}
        }
        if m.has("import:crl") {
            self.import_crl().await?;
        }
        if m.has("disk:no-objects") {
            let objects = self.objects();
            std::fs::rename(&objects, objects.with_extension("away"))?;
            std::fs::write(&objects, b"in the way")?;
        }
        Ok(())
    }

    /// Between an honest enrolment and the renewal under attack.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn before_renewal(
        &mut self,
        m: &Mutations,
        enrolled: &mut Enrolled,
    ) -> Result<(), AnyError> {
        if m.has("store:soft-boot") {
            self.soft_boot(enrolled).await?;
        }
        if m.has("between:revoke") {
            self.revoke("w1").await?;
        }
        if m.has("between:cut-log") {
            // Root on the worker lost a part of the log.
            let events = super::machine::events(&self.worker.log)?;
            let last = events.last().map_or(0, Vec::len);
            let keep = self.worker.log.len() - last;
            self.worker.log.truncate(keep);
            self.worker.dirty = true;
        }
        Ok(())
    }

    /// Puts back what [`Site::prepare`] and the attack changed.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn restore(&mut self, m: &Mutations) -> Result<(), AnyError> {
        if m.has("disk:no-objects") {
            let objects = self.objects();
            std::fs::remove_file(&objects)?;
            std::fs::rename(objects.with_extension("away"), &objects)?;
        }
        if m.has("meanwhile:clock-back") {
            self.clock.skip(3600);
        }
        if m.arg("golden").is_some() {
            self.worker.shown.clear();
            self.apply(self.golden.clone()).await?;
        }
        // A policy ends by a successor without rules.
        if self.policy.take().is_some() {
            self.put_policy("").await?;
        }
        if let Some(crl) = self.crl.take() {
            let (kind, digest) = (EndorsementKind::Crl, HashAlg::Sha256.hash(&[&crl]));
            self.cluster.store().remove_endorsement(kind, digest, self.cluster.by()).await?;
            self.cluster.verifier().reload().await?;
        }
        if m.has("rollback") {
            let change = NodeChange::ForgetCounters { reason: "end of the attack".into() };
            self.change("w1", change).await?;
        }
        let node = self.cluster.store().node("w1").await?.ok_or("w1 is gone")?;
        if node.status != NodeStatus::Active || node.pool != "linux" {
            if node.status == NodeStatus::Revoked {
                let (name, pool) = ("w1".to_owned(), "linux".to_owned());
                self.change("w1", NodeChange::Approve { name, pool }).await?;
            } else {
                self.move_to("linux").await?;
            }
        }
        Ok(())
    }

    /// The logs that the golden set judges, as they are, or as the row shows them.
    fn show_logs(&mut self, m: &Mutations, golden: &str) -> Result<(), AnyError> {
        let machine = &mut self.worker;
        if golden.starts_with("boot-rules") {
            machine.shown.insert(LogKind::Uefi, machine.firmware_log.clone());
            if let Some(verb) = m.arg("uefi") {
                logs::forge_firmware_log(machine, verb)?;
            }
        }
        if golden.starts_with("ima") {
            logs::begin_ima(machine, m.arg("ima"))?;
        }
        Ok(())
    }

    /// Revokes a node.
    ///
    /// # Errors
    /// The store.
    pub async fn revoke(&self, node: &str) -> Result<(), AnyError> {
        self.change(node, NodeChange::Revoke { reason: "attack".into() }).await
    }

    pub(super) async fn move_to(&self, pool: &str) -> Result<(), AnyError> {
        self.change("w1", NodeChange::MoveTo { pool: pool.to_owned() }).await
    }

    async fn change(&self, node: &str, change: NodeChange) -> Result<(), AnyError> {
        self.cluster.store().change_node(node, None, change, self.cluster.by()).await?;
        Ok(())
    }

    fn objects(&self) -> std::path::PathBuf {
        self.cluster.store().folder().join(verifier::store::OBJECTS_FOLDER)
    }

    fn boot(&mut self, m: &Mutations) -> Result<(), AnyError> {
        let machine = &mut self.worker;
        match m.arg("boot") {
            None => return Ok(()),
            Some("other-command-line") => machine.boot_with(&Firmware {
                command_line: "init=/bin/sh".into(),
                ..Firmware::default()
            })?,
            Some("secure-boot-off") => {
                machine.boot_with(&Firmware { secure_boot: false, ..Firmware::default() })?;
            }
            Some("other-loader") => machine.boot_with(&Firmware {
                boot_application: b"another loader".to_vec(),
                ..Firmware::default()
            })?,
            Some("other-initrd") => machine.boot_with(&Firmware {
                initrd: b"initrd with a gift".to_vec(),
                ..Firmware::default()
            })?,
            Some("one-more-key") => {
                let mut firmware = Firmware::default();
                firmware.db.push(b"certificate of somebody else".to_vec());
                machine.boot_with(&firmware)?;
            }
            Some("other-signer") => {
                let mut firmware = Firmware::default();
                // The first entry authorises the loader.
                firmware.db.insert(0, b"certificate of somebody else".to_vec());
                machine.boot_with(&firmware)?;
            }
            Some("dbx-outdated") => {
                machine.boot_with(&Firmware { dbx: vec![[0xcc; 32]], ..Firmware::default() })?;
            }
            Some("firmware-in-tool-pcr") => {
                let digest = HashAlg::Sha256.hash(&[b"list of keys"]);
                boot_into_tool_pcr(machine, digest.as_bytes())?;
            }
            Some("gift-as-firmware") => {
                let sha256 = [HashAlg::Sha256];
                let tool = tool("cc", b"with a gift")?;
                let event = encode_event(0, machine.state.pcr, &sha256, &tool);
                let event = ToolLogReader::new(&event).next().ok_or("no event")??;
                let digest = *event.digests.first().ok_or("no digest")?;
                boot_into_tool_pcr(machine, digest.as_bytes())?;
            }
            Some("other-firmware") => machine.boot_with(&Firmware {
                firmware_code: b"implant".to_vec(),
                ..Firmware::default()
            })?,
            Some("firmware-measures-nothing") => {
                machine.tpm.reset()?;
                machine.begin_log()?;
            }
            Some("power-cut") => {
                machine.tpm.power_cut()?;
                Firmware::default().boot_swtpm(&machine.tpm)?;
                machine.begin_log()?;
            }
            Some("tools-not-measured") => {
                machine.tpm.reset()?;
                Firmware::default().boot_swtpm(&machine.tpm)?;
                let tools = std::mem::take(&mut machine.tools);
                machine.begin_log()?;
                machine.tools = tools;
            }
            Some(other) => return Err(format!("boot:{other}").into()),
        }
        machine.dirty = true;
        Ok(())
    }

    /// `tools:…`: measured and logged by the book, and not what they should be.
    fn measure(&mut self, m: &Mutations) -> Result<(), AnyError> {
        match m.arg("tools") {
            None => Ok(()),
            Some("cc-changed") => self.worker.measure(&tool("cc", b"with a gift")?),
            Some("cc-changed-and-back") => {
                let good = self.worker.tool("cc")?;
                self.worker.measure(&tool("cc", b"with a gift")?)?;
                self.worker.measure(&good)
            }
            Some("cc-absent") => self.worker.measure(&ToolMeasurement::absent("cc")?),
            Some("stranger") => self.worker.measure(&tool("nc", b"netcat")?),
            Some("outsider-extends") => self.worker.extend(14, &[0x66; 32]),
            Some(other) => Err(format!("tools:{other}").into()),
        }
    }

    /// `golden:…`: the pool's golden set, changed.
    ///
    /// # Errors
    /// An unknown verb.
    pub fn forged_golden(&self, verb: &str) -> Result<GoldenDocument, AnyError> {
        let mut golden = self.golden.clone();
        let evil = tool("cc", b"with a gift")?.digest();
        let accept = |digest: Digest| {
            let (version, purl, from, files) = (None, None, None, Default::default());
            vec![AcceptedTool { digest, version, purl, from, files }]
        };
        match verb {
            "manufacturer" => golden.tpm.manufacturers = vec!["id:49465800".to_owned()],
            "firmware-floor" => {
                golden.tpm.firmware_floor.insert("*".to_owned(), "f".repeat(16));
            }
            "safe-clock" => golden.tpm.require_safe_clock = true,
            "requires-strip" => golden.tool.push(ToolRule {
                name: "strip".to_owned(),
                required: true,
                accept: accept(evil),
            }),
            "closed" => golden.tools.closed = true,
            "denies-gift" => golden.tools.deny.push(evil),
            "zeros" => {
                // A machine whose firmware measured nothing, as a careless set would have it.
                for rule in &mut golden.pcr {
                    for value in &mut rule.accept {
                        value.value = "0".repeat(64);
                    }
                }
            }
            "boot-rules" => golden = self.boot_rules.clone(),
            "boot-rules-deny-gift" => {
                golden = self.boot_rules.clone();
                golden.tools.deny.push(evil);
            }
            "ima" | "ima-denies-ld" => {
                let mut section = ImaSection {
                    manifest: Some(self.manifest),
                    key: Vec::new(),
                    rules: ImaRules::default(),
                };
                if verb == "ima-denies-ld" {
                    section.rules.deny.push(HashAlg::Sha256.hash(&[b"/usr/bin/ld"]));
                }
                golden.ima = Some(section);
            }
            "pcr-15" => golden.pcr.push(PcrRule {
                bank: HashAlg::Sha256,
                index: 15,
                accept: golden.pcr[0].accept.clone(),
            }),
            other => return Err(format!("golden:{other}").into()),
        }
        Ok(golden)
    }

    /// A new version of the honest golden set: the one before retires.
    pub(super) async fn apply_again(&mut self) -> Result<DocumentId, AnyError> {
        self.apply(self.golden.clone()).await
    }

    /// `policy:…`: a rule that the honest machine is seen to meet, before an attack that does not.
    async fn enforce(&mut self, verb: &str) -> Result<(), AnyError> {
        let rule = |expr: String| {
            format!(
                "[[rule]]\nname = \"{verb}\"\nmessage = \"As the site wants it.\"\nexpr = \"{expr}\"\n"
            )
        };
        let major = self.firmware_version >> 48;
        let (met, attacked) = match verb {
            "firmware-floor" => {
                let floor = |major| rule(format!("tpm.firmware.major >= {major}"));
                (floor(major), floor(major + 1))
            }
            // The same rule: what changes is that the machine shows no log.
            "needs-secure-boot" => {
                let log = self.worker.firmware_log.clone();
                self.worker.shown.insert(LogKind::Uefi, log);
                (rule("boot.secure_boot".to_owned()), rule("boot.secure_boot".to_owned()))
            }
            other => return Err(format!("policy:{other}").into()),
        };
        self.policy = Some(self.put_policy(&met).await?);
        let admitted = Box::pin(super::enrol(self, &Mutations::none(), None)).await?;
        if !admitted.observed.certificate {
            return Err(format!("the honest machine does not meet the rule: {admitted:?}").into());
        }
        // What that boot has proven is not to be asked for again; nothing is shown after a boot.
        self.worker.boot()?;
        if met != attacked {
            self.policy = Some(self.put_policy(&attacked).await?);
        }
        Ok(())
    }

    /// The site's policy, its next version with these rules.
    async fn put_policy(&mut self, rules: &str) -> Result<DocumentId, AnyError> {
        self.version += 1;
        let text = format!(
            "schema = \"assay.policy/v1\"\nname = \"site\"\nversion = {}\n{rules}",
            self.version
        );
        self.cluster.put_in_force(&text).await
    }

    /// A changed golden set as the next version.
    pub(super) fn next_version(&mut self, mut golden: GoldenDocument) -> Result<String, AnyError> {
        self.version += 1;
        golden.version = self.version;
        Ok(toml::to_string(&golden)?)
    }

    async fn apply(&mut self, golden: GoldenDocument) -> Result<DocumentId, AnyError> {
        let text = self.next_version(golden)?;
        self.cluster.put_in_force(&text).await
    }

    pub(super) async fn import_crl(&mut self) -> Result<(), AnyError> {
        let manufacturer = self.worker.tpm.manufacturer();
        let issued = manufacturer.issue(&self.worker.ek, &EkProfile::default())?;
        let now = self.now();
        let crl = manufacturer.crl(&[issued.serial], now - DAY, now + DAY)?;
        self.revoked_certificate = issued.der;
        let (kind, by) = (EndorsementKind::Crl, self.cluster.by());
        self.cluster.store().import_endorsement(kind, crl.clone(), "test CRL", by).await?;
        self.crl = Some(crl);
        Ok(self.cluster.verifier().reload().await?)
    }

    /// Puts a boot into the store whose AK is in the attacker's memory.
    async fn soft_boot(&mut self, enrolled: &mut Enrolled) -> Result<(), AnyError> {
        let soft = SoftKey::new(tpm::AK, Some((tpm::ALG_ECDSA, tpm::ALG_SHA256)))?;
        let public = Public::decode(&soft.public)?;
        let boots = self.cluster.store().boots("w1").await?;
        let known = Public::decode(&enrolled.ak.public)?.name();
        let (mut boot, _) = boots
            .into_iter()
            .find(|(boot, _)| boot.ak_name == known.as_bytes())
            .ok_or("the boot is not in the store")?;
        let mut document: BootDocument = serde_json::from_slice(&boot.record)?;
        let ak = RestrictedAk::verify(&public).map_err(|denial| format!("{:?}", denial.code()))?;
        document.ak_public = hex::encode(&soft.public);
        document.ak_qualified_name = ak.qualified_name(&self.worker.ek);
        boot.ak_name = ak.name().as_bytes().to_vec();
        boot.record = serde_json::to_vec(&document)?;
        self.cluster.store().put_boot(boot, None).await?;
        enrolled.ak = Key { handle: 0, public: soft.public.clone(), private: Vec::new() };
        self.soft = Some(soft);
        Ok(())
    }
}

/// A boot that leaves this digest in the tool PCR, and in the firmware's log, before the first tool.
fn boot_into_tool_pcr(machine: &mut Machine, digest: &[u8]) -> Result<(), AnyError> {
    machine.start(&Firmware::default())?;
    machine.extend(14, digest)?;
    machine.firmware_log = logs::with_event(&machine.firmware_log, 14, digest)?;
    machine.begin_log()
}

/// A measurement of one file.
///
/// # Errors
/// None that a name without control characters has.
pub fn tool(name: &str, content: &[u8]) -> Result<ToolMeasurement, AnyError> {
    let entry = ToolEntry {
        path: format!("/usr/bin/{name}").into_bytes(),
        kind: EntryKind::File {
            digest: HashAlg::Sha256.hash(&[content]),
            size_bytes: u64::try_from(content.len())?,
            role: FileRole::Listed,
        },
    };
    Ok(ToolMeasurement::new(name, ToolState::Present, None, None, vec![entry])?)
}

/// The first attestation of an honest worker: denied for want of a golden set, and recorded.
async fn honest(cluster: &Cluster, worker: &Machine, tools: &Tools) -> Result<String, AnyError> {
    let mut honest = cluster.worker_with(&worker.tpm.tcti(), tools, EkPreference::Auto).await?;
    let result = honest.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    honest.stop().await;
    Ok(result.decision_id)
}

/// What the honest worker measured, and its TPM's firmware version.
async fn recorded(cluster: &Cluster, id: &str) -> Result<(Vec<ToolMeasurement>, u64), AnyError> {
    let case = cluster.store().case(id).await?.ok_or("the case is not there")?;
    let case = pb::Case::decode(case.as_slice())?;
    let log = case.logs.first().ok_or("the case has no tool log")?;
    let mut measured = Vec::new();
    for event in ToolLogReader::new(&log.data) {
        measured.push(event?.content);
    }
    let boots = cluster.store().boots("w1").await?;
    let (boot, _) = boots.first().ok_or("no boot is recorded")?;
    let document: BootDocument = serde_json::from_slice(&boot.record)?;
    Ok((measured, document.firmware_version))
}
