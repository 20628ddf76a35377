//! Machines that are captured and judged.

use appraisal::{
    boot_log::{KeyDatabase, ProvenBootLog},
    policy::{
        GoldenSet, Manifests, ReferenceValues,
        document::{
            AcceptedCommandLine, AcceptedDigest, AcceptedEvent, AcceptedTool, AcceptedValue,
            BootRules, EventRule, GoldenDocument, KeyRules, PcrRule, RecordedEvent, ToolRule,
        },
        key_digest,
    },
    verdict::Verdict,
};
use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection},
    evidence::{Evidence, LogKind, LogSuffix},
    tool_log::ToolMeasurement,
};
use soft_tpm::{Algorithm, EkKind};

use crate::{
    log_support::{Boot, values_of},
    site::{POOL, Site, cc, evidence, index, ld, set, tool_pcr},
};

const QUOTED: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14];
/// Locality that [`Boot`] names.
const LOCALITY: u8 = 3;
/// PCRs whose log a capture takes event by event.
const BY_EVENT: [u8; 5] = [1, 3, 5, 8, 9];

/// A worker with what it shows.
pub struct Machine {
    pub name: String,
    site: Site,
    evidence: Evidence,
    tools: Vec<ToolMeasurement>,
}

/// A boot that leaves the tool PCR alone.
pub fn plain() -> Boot {
    Boot { mok: false, ..Boot::default() }
}

impl Machine {
    /// A machine with the usual tools.
    pub fn booted(name: &str, boot: &Boot) -> Self {
        Self::new(name, Some(boot), vec![cc(), ld()], &[])
    }

    /// A machine whose PCRs are those of `boot`, but for `other`; without a boot they are nothing but that, and no log is
    /// shown.
    pub fn new(
        name: &str,
        boot: Option<&Boot>,
        tools: Vec<ToolMeasurement>,
        other: &[(u8, Digest)],
    ) -> Self {
        let banks = [(HashAlg::Sha256, set(&[0]))];
        let mut site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &banks);
        name.clone_into(&mut site.node.name);
        site.issued.selection = PcrSelection::new([(HashAlg::Sha256, set(&QUOTED))]);
        site.issued.required = site.issued.selection.clone();
        let log = boot.map(Boot::log);
        for value in log.iter().flat_map(|log| values_of(log, HashAlg::Sha256, LOCALITY)) {
            site.tpm.pcrs.insert((HashAlg::Sha256, value.index), value.value);
        }
        for (pcr, value) in other {
            site.tpm.pcrs.insert((HashAlg::Sha256, index(*pcr)), *value);
        }
        let reset = tool_pcr().reset_value(HashAlg::Sha256);
        site.tpm.pcrs.insert((HashAlg::Sha256, tool_pcr()), reset);
        site.tpm.log.clear();
        site.tpm.events = 0;
        site.tpm.head = Digest::zero(HashAlg::Sha256);
        for tool in &tools {
            site.tpm.measure(tool);
        }
        let mut evidence = evidence(&site.answer());
        evidence.logs.extend(log.map(|bytes| LogSuffix {
            kind: LogKind::Uefi,
            from_bytes: 0,
            bytes,
        }));
        Self { name: name.to_owned(), site, evidence, tools }
    }

    /// The same, but it shows no log of its firmware.
    pub fn without_log(mut self) -> Self {
        self.evidence.logs.retain(|log| log.kind != LogKind::Uefi);
        self
    }

    /// What a PCR holds.
    pub fn value(&self, pcr: u8) -> Digest {
        self.site.tpm.pcrs[&(HashAlg::Sha256, index(pcr))]
    }

    /// Whether a set admits it.
    pub fn is_admitted_by(&self, reference: &ReferenceValues) -> bool {
        self.findings(reference).is_empty()
    }

    pub fn findings(&self, reference: &ReferenceValues) -> Vec<String> {
        let mut context = self.site.context();
        context.in_force.reference = Some(reference);
        let appraisal = appraisal::appraise(&self.evidence, self.site.activating(), &context);
        match appraisal.verdict {
            Verdict::Admit(_) => Vec::new(),
            Verdict::Deny(denial) => denial
                .findings()
                .map(|found| {
                    format!(
                        "{} {}: expected {}, observed {}",
                        found.code, found.subject, found.expected, found.observed
                    )
                })
                .collect(),
        }
    }

    /// What a capture proposes of its evidence.
    pub fn capture(&self) -> GoldenDocument {
        let context = self.site.context();
        let appraisal = appraisal::appraise(&self.evidence, self.site.activating(), &context);
        let proven = appraisal.proven.expect("proven, whatever the verdict");
        let log = proven.boot.boot_log().proven().map(AsRef::as_ref);
        let mut document = empty();
        document.boot = log.map(boot_rules).unwrap_or_default();
        for pcr in QUOTED.into_iter().filter(|pcr| ![10, 14].contains(pcr)).map(index) {
            let value = &self.site.tpm.pcrs[&(HashAlg::Sha256, pcr)];
            if value.is_reset_value() {
                continue;
            }
            let log = log.filter(|log| log.explains(HashAlg::Sha256, pcr));
            match log.filter(|_| BY_EVENT.contains(&pcr.get())) {
                Some(log) => document.events.push(by_event(log, pcr)),
                None => document.pcr.push(by_value(log, pcr, value, &self.name)),
            }
        }
        document.tool = self.tools.iter().map(|tool| tool_rule(tool, &self.name)).collect();
        document
    }
}

/// A set without rules.
pub fn empty() -> GoldenDocument {
    GoldenDocument::new(POOL.to_owned(), Some(POOL.to_owned()), 1)
}

/// The set that a document is, through its text.
pub fn reference(document: &GoldenDocument) -> Result<ReferenceValues, String> {
    let text = toml::to_string_pretty(document).expect("a document can be written");
    assert_eq!(GoldenSet::document(&text).as_ref(), Ok(document), "written and read again");
    ReferenceValues::parse(&text, tool_pcr(), &Manifests::new())
        .map_err(|problems| problems.iter().map(|it| format!("{it}\n")).collect())
}

fn boot_rules(log: &ProvenBootLog) -> BootRules {
    let facts = &log.facts;
    let keys = |database: Option<&KeyDatabase>| -> Vec<AcceptedDigest> {
        let entries = database.iter().flat_map(|database| &database.entries);
        entries
            .map(|entry| AcceptedDigest {
                digest: key_digest(&entry.digest).parse().expect("a digest"),
                what: entry.certificate.as_ref().map(|key| key.subject.clone()),
            })
            .collect()
    };
    let lines = facts.command_lines.iter().map(|line| match &line.text {
        Some(text) => AcceptedCommandLine::Text { text: text.clone() },
        None => AcceptedCommandLine::Digest(AcceptedDigest { digest: line.digest, what: None }),
    });
    let untold = facts.untold.iter().filter(|it| [11, 12].contains(&it.source.pcr));
    let untold = untold
        .map(|it| AcceptedCommandLine::Digest(AcceptedDigest { digest: it.digest, what: None }));
    let is_proven = [11, 12].into_iter().all(|pcr| log.explained().contains(index(pcr)));
    BootRules {
        secure_boot: facts.secure_boot,
        tolerate: log.problems.iter().map(|problem| problem.code).collect(),
        applications: facts
            .boot_applications
            .iter()
            .map(|it| AcceptedDigest { digest: it.digest, what: it.untrusted_path.clone() })
            .collect(),
        command_lines: lines.chain(untold).filter(|_| is_proven).collect(),
        keys: KeyRules {
            pk: keys(facts.pk.as_ref()),
            kek: keys(facts.kek.as_ref()),
            db: keys(facts.db.as_ref()),
            dbx: Vec::new(),
        },
        ..BootRules::default()
    }
}

fn by_event(log: &ProvenBootLog, pcr: PcrIndex) -> EventRule {
    let accept = log
        .of_pcr(pcr)
        .filter_map(|event| {
            Some(AcceptedEvent {
                digest: hex::encode(event.digest(HashAlg::Sha256)?.as_bytes()),
                what: Some(event.untrusted_words.clone()),
                required: false,
            })
        })
        .collect();
    EventRule { bank: HashAlg::Sha256, index: pcr.get(), why: None, accept }
}

fn by_value(log: Option<&ProvenBootLog>, pcr: PcrIndex, value: &Digest, node: &str) -> PcrRule {
    let events = log
        .into_iter()
        .flat_map(|log| log.of_pcr(pcr))
        .filter_map(|event| {
            Some(RecordedEvent {
                digest: hex::encode(event.digest(HashAlg::Sha256)?.as_bytes()),
                what: event.untrusted_words.clone(),
            })
        })
        .collect();
    let value = AcceptedValue {
        value: hex::encode(value.as_bytes()),
        from: Some(format!("node {node}")),
        events,
        ..AcceptedValue::default()
    };
    PcrRule { bank: HashAlg::Sha256, index: pcr.get(), accept: vec![value] }
}

pub fn tool_rule(tool: &ToolMeasurement, node: &str) -> ToolRule {
    let files = tool.entries().iter().map(|entry| {
        let path = appraisal::policy::path_key(&entry.path);
        (path, appraisal::policy::decide::entry_text(&entry.kind))
    });
    let accepted = AcceptedTool {
        digest: tool.digest(),
        version: Some("1.0".to_owned()),
        purl: None,
        from: Some(format!("node {node}")),
        files: files.collect(),
    };
    ToolRule { name: tool.name().to_owned(), required: true, accept: vec![accepted] }
}
