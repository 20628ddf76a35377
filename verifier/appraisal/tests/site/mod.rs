//! A worker on a TPM in memory, and the verifier's side of its appraisal.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "shared by several test binaries, each of which uses its own part"
)]

use std::sync::Arc;

use appraisal::{
    Appraisal, Proven,
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise,
    boot::Boot,
    context::{AppraisalContext, Expected, IssuedChallenge, NodeRecord, Signer, Standing},
    ek::{AllowListed, EkPolicy, EkPresented, Profile, TrustedEk, ek_digest, verify_ek},
    policy::{Manifests, ReferenceValues, site::SitePolicy},
    verdict::{Denial, Verdict},
    x509::{RevocationRequirement, RootsBuilder},
};
use proto::{
    binding::{Challenge, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{ChallengeParts, Evidence, LogKind},
    reason::ReasonCode,
    tool_log::{EntryKind, FileRole, ToolEntry, ToolMeasurement, ToolState},
};
use soft_tpm::{Algorithm, Answer, EkKind, SoftTpm};

/// 2027-01-15.
pub const NOW: i64 = 1_800_000_000;
pub const SECRET: [u8; 32] = [0x5e; 32];
pub const POOL: &str = "linux";

pub fn index(pcr: u8) -> PcrIndex {
    PcrIndex::new(pcr).expect("a PCR")
}

pub fn tool_pcr() -> PcrIndex {
    index(14)
}

pub fn set(pcrs: &[u8]) -> PcrSet {
    pcrs.iter().map(|pcr| index(*pcr)).collect()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    HashAlg::Sha256.hash(&[bytes])
}

/// A tool of files with these contents.
pub fn tool(name: &str, files: &[(&str, &[u8])]) -> ToolMeasurement {
    let entries = files
        .iter()
        .map(|(path, content)| ToolEntry {
            path: path.as_bytes().to_vec(),
            kind: EntryKind::File {
                digest: sha256(content),
                size_bytes: content.len() as u64,
                role: FileRole::Listed,
            },
        })
        .collect();
    let version = Some("1.0".to_owned());
    ToolMeasurement::new(name, ToolState::Present, version, None, entries).expect("a tool")
}

pub fn cc() -> ToolMeasurement {
    tool("cc", &[("/usr/bin/cc", b"driver"), ("/usr/bin/cc1", b"compiler proper")])
}

pub fn ld() -> ToolMeasurement {
    tool("ld", &[("/usr/bin/ld", b"linker")])
}

/// One worker and everything that an appraisal of it reads.
pub struct Site {
    pub tpm: SoftTpm,
    pub issued: IssuedChallenge,
    pub node: NodeRecord,
    pub now: i64,
    pub endorsements: Digest,
    pub golden: Option<ReferenceValues>,
    pub policies: Vec<Arc<SitePolicy>>,
}

impl Site {
    /// An honest P-256 worker with two tools, and a golden set that it meets.
    pub fn new() -> Self {
        Self::with(EkKind::P256, Algorithm::EcdsaP256, &[(HashAlg::Sha256, set(&PCRS))])
    }

    pub fn with(ek: EkKind, ak: Algorithm, banks: &[(HashAlg, PcrSet)]) -> Self {
        let mut tpm = SoftTpm::new(ek, ak, tool_pcr());
        tpm.measure(&cc());
        tpm.measure(&ld());
        let node = NodeRecord {
            name: "w1".into(),
            pool: POOL.into(),
            standing: Standing::Active,
            ek_digest: ek_digest(tpm.ek.public()),
            highest_counters: None,
        };
        let tools = banks.iter().map(|(alg, _)| (*alg, set(&[14])));
        let issued = IssuedChallenge {
            purpose: proto::binding::Purpose::Node,
            challenge: Challenge::new([0xc4; 32]),
            verifier_id: VerifierId::new([0x1d; 32]),
            selection: PcrSelection::new(banks.iter().copied().chain(tools.clone())),
            required: PcrSelection::new(banks.iter().copied().chain(tools)),
            expires_unix_s: NOW + 60,
        };
        let mut site = Self {
            tpm,
            issued,
            node,
            now: NOW,
            endorsements: sha256(b"none"),
            golden: None,
            policies: Vec::new(),
        };
        site.golden = Some(golden(&site.golden_text(banks)));
        site
    }

    /// A golden set that lists what the TPM has now.
    pub fn golden_text(&self, banks: &[(HashAlg, PcrSet)]) -> String {
        let mut text = format!(
            "schema = \"assay.golden/v1\"\nname = \"base\"\npool = \"{POOL}\"\nversion = 1\n"
        );
        for (alg, pcrs) in banks {
            for pcr in pcrs.iter() {
                let value = hex::encode(self.tpm.pcrs[&(*alg, pcr)].as_bytes());
                text += &format!(
                    "[[pcr]]\nbank = \"{alg}\"\nindex = {pcr}\naccept = [{{ value = \"{value}\" }}]\n"
                );
            }
        }
        for tool in [cc(), ld()] {
            text += &format!(
                "[[tool]]\nname = \"{}\"\naccept = [{{ digest = \"{}\" }}]\n",
                tool.name(),
                tool.digest()
            );
        }
        text
    }

    pub fn trusted_ek(&self) -> TrustedEk {
        let (roots, _) = RootsBuilder::new().build();
        let presented = EkPresented { public: self.tpm.ek.public(), certificate: None, chain: &[] };
        let policy = EkPolicy {
            roots: &roots,
            allow_listed: AllowListed::ByDigest(ek_digest(self.tpm.ek.public())),
            now_unix_s: self.now,
            profile: Profile::AsShipped,
            revocation: RevocationRequirement::IfKnown,
        };
        verify_ek(&presented, &policy).expect("an allow-listed EK")
    }

    /// The signer of a new boot; the AK must be acceptable.
    pub fn activating(&self) -> Signer {
        let ek = self.trusted_ek();
        let ak = RestrictedAk::verify(&self.tpm.ak_public).expect("an acceptable AK");
        let activation = ActivationChallenge::new(&ek, ak, SECRET);
        Signer::Activating { ek, activation }
    }

    /// What a worker reads of the challenge; logs from `from` on, a node key on a new boot.
    pub fn asked(&self, from: u64, new_boot: bool) -> ChallengeParts {
        ChallengeParts {
            challenge: self.issued.challenge,
            verifier_id: self.issued.verifier_id,
            credential: None,
            pcr_selection: self.issued.selection.clone(),
            logs_wanted: vec![(LogKind::Tools, from)],
            deadline_ms: 60_000,
            node_key_wanted: new_boot,
        }
    }

    /// The honest answer on a new boot.
    pub fn answer(&self) -> Answer {
        let mut answer = self.tpm.answer(&self.asked(0, true));
        answer.secret = SECRET.to_vec();
        answer
    }

    pub fn context(&self) -> AppraisalContext<'_> {
        AppraisalContext {
            job: None,
            now_unix_s: self.now,
            challenge: &self.issued,
            node: &self.node,
            endorsements: self.endorsements,
            tool_pcr: tool_pcr(),
            in_force: Expected { reference: self.golden.as_ref(), site: &self.policies },
            staged: None,
            case_digest: sha256(b"case"),
        }
    }

    pub fn judge(&self, evidence: &Evidence, signer: Signer) -> Appraisal {
        appraise(evidence, signer, &self.context())
    }

    /// An honest enrolment.
    pub fn enrol(&self) -> Proven {
        admitted(self.judge(&evidence(&self.answer()), self.activating()))
    }

    /// The honest answer of a renewal.
    pub fn renewal(&self, boot: &Boot) -> Answer {
        self.tpm.answer(&self.asked(boot.tool_log().bytes, false))
    }

    /// A new boot with a fault before signing.
    pub fn deny(&self, fault: impl FnOnce(&mut Answer)) -> Denial {
        let mut answer = self.answer();
        fault(&mut answer);
        denied(self.judge(&evidence(&answer), self.activating()))
    }

    /// A renewal with a fault before signing.
    pub fn deny_renewal(&self, boot: &Boot, fault: impl FnOnce(&mut Answer)) -> Denial {
        let mut answer = self.renewal(boot);
        fault(&mut answer);
        denied(self.judge(&evidence(&answer), Signer::Known(boot.clone())))
    }
}

/// PCRs of the usual golden set.
pub const PCRS: [u8; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 11];

pub fn golden(text: &str) -> ReferenceValues {
    ReferenceValues::parse(text, tool_pcr(), &Manifests::new()).expect("a golden set")
}

/// Evidence as it comes out of the one door.
pub fn evidence(answer: &Answer) -> Evidence {
    let mut evidence = Evidence::try_from(answer.sign()).expect("well-formed evidence");
    evidence.logs.clone_from(&answer.log);
    evidence
}

#[track_caller]
pub fn admitted(appraisal: Appraisal) -> Proven {
    match appraisal.verdict {
        Verdict::Admit(_) => appraisal.proven.expect("an admission has proofs"),
        Verdict::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

#[track_caller]
pub fn denied(appraisal: Appraisal) -> Denial {
    match appraisal.verdict {
        Verdict::Admit(_) => panic!("admitted"),
        Verdict::Deny(denial) => denial,
    }
}

/// Exactly this one finding.
#[track_caller]
pub fn assert_code(denial: &Denial, code: ReasonCode) {
    let codes: Vec<ReasonCode> = denial.findings().map(|finding| finding.code).collect();
    assert_eq!(codes, [code], "{denial:#?}");
}
