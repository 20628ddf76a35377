//! `[ima]`: the kernel's list beside a quote.

use std::sync::Arc;

use appraisal::{
    Proven,
    boot::{Boot as BootRecord, BootDocument},
    context::{Expected, Signer},
    ima::{Manifest, ManifestBuilder},
    policy::{
        Manifests, ReferenceValues,
        site::{PolicyInput, SitePolicy},
    },
    verdict::Denial,
};
use proto::{
    digest::{Digest, HashAlg},
    eventlog::{EventLog, LogAlg},
    evidence::{LogKind, LogSuffix},
    reason::ReasonCode,
};
use soft_tpm::ima::{ImaKernel, ImaList, hash};

use crate::{
    site::{Site, admitted, assert_code, denied, index, set, sha256, tool_pcr},
    support::{
        assert_finding, booted, deny, evidence_with, judge_by_manifests, plain, renewal_with,
        suffix, value,
    },
};

/// Files of the manifest, each with its name for content.
const FILES: [&str; 2] = ["/usr/bin/a", "/usr/bin/b"];

/// A manifest, by its digest.
fn manifests() -> (Digest, Manifests) {
    let mut builder = ManifestBuilder::new();
    for file in FILES {
        builder.file(&sha256(file.as_bytes()), file.as_bytes());
    }
    let text = builder.to_text("base", 0);
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    let digest = *manifest.id();
    (digest, Manifests::from([(digest, Arc::new(manifest))]))
}

/// A golden set that judges the list by that manifest, and these rules.
fn judge(site: &mut Site, rules: &str) {
    let (digest, manifests) = manifests();
    let text = format!("[ima]\nmanifest = \"{digest}\"\n[ima.rules]\n{rules}");
    judge_by_manifests(site, &text, &manifests);
}

/// A machine whose kernel began its list after this firmware.
struct Kernel {
    site: Site,
    firmware: Vec<u8>,
    list: ImaList,
}

impl Kernel {
    fn boot() -> Self {
        let firmware = plain().log();
        let site = booted(&firmware);
        let list = begun(&site);
        let mut out = Self { site, firmware, list };
        out.quote();
        judge(&mut out.site, "");
        out
    }

    /// Measures a file with its name for content.
    fn measure(&mut self, name: &str) {
        self.list.file("ima-ng", "sha256", sha256(name.as_bytes()).as_bytes(), name, &[]);
        self.quote();
    }

    /// PCR 10 is where the list leads.
    fn quote(&mut self) {
        for alg in [HashAlg::Sha256, HashAlg::Sha384] {
            let value = Digest::new(alg, self.list.pcr(alg.name())).expect("its length");
            self.site.tpm.pcrs.insert((alg, index(10)), value);
        }
    }

    fn logs(&self) -> [(LogKind, &[u8]); 2] {
        [(LogKind::Uefi, &self.firmware), (LogKind::Ima, self.list.bytes())]
    }

    #[track_caller]
    fn admit(&self) -> Proven {
        let evidence = evidence_with(&self.site, &self.logs());
        admitted(self.site.judge(&evidence, self.site.activating()))
    }

    #[track_caller]
    fn deny(&self) -> Denial {
        deny(&self.site, &self.logs())
    }

    /// A boot that shows these bytes for its list.
    #[track_caller]
    fn deny_shown(&self, list: &[u8]) -> Denial {
        deny(&self.site, &[(LogKind::Uefi, &self.firmware), (LogKind::Ima, list)])
    }

    /// The list from where the boot's record ends.
    fn following(&self, boot: &BootRecord) -> LogSuffix {
        let from = boot.ima().map_or(0, |state| state.bytes);
        let at = usize::try_from(from).expect("small");
        suffix(LogKind::Ima, from, &self.list.bytes()[at..])
    }
}

/// A list whose first entry is over the machine's PCRs.
fn begun(site: &Site) -> ImaList {
    let values: Vec<Digest> = (0..10).map(|pcr| value(site, pcr)).collect();
    let values: Vec<&[u8]> = values.iter().map(Digest::as_bytes).collect();
    ImaList::booted(ImaKernel::default(), "ima-ng", "sha256", &values)
}

#[test]
fn a_list_of_files_of_the_manifest_is_admitted() {
    let mut kernel = Kernel::boot();
    FILES.iter().for_each(|file| kernel.measure(file));
    let proven = kernel.admit();
    let claims = proven.claims.document().ima.expect("claims of the list");
    assert_eq!((claims.entries, claims.violations), (3, 0));
    assert_eq!(claims.judged.values().next().expect("judged").by_manifest, 2);
    assert_eq!(proven.claims.ima(), proven.boot.ima());
    // Without the firmware's log the first entry is compared with the quoted PCRs.
    let evidence = evidence_with(&kernel.site, &[(LogKind::Ima, kernel.list.bytes())]);
    admitted(kernel.site.judge(&evidence, kernel.site.activating()));
}

#[test]
fn a_list_that_is_judged_must_be_there() {
    let kernel = Kernel::boot();
    let denial = deny(&kernel.site, &[(LogKind::Uefi, &kernel.firmware)]);
    assert_finding(
        &denial,
        ReasonCode::PolicyImaListMissing,
        "IMA list",
        "a list that replays to PCR 10",
        "no list was sent",
    );
    // An empty one is no list of a kernel that measures.
    assert_code(&kernel.deny_shown(&[]), ReasonCode::ImaReplayMismatch);
}

#[test]
fn a_list_that_nobody_judges_is_not_read() {
    let mut kernel = Kernel::boot();
    crate::support::judge_by(&mut kernel.site, "");
    let evidence = evidence_with(&kernel.site, &[(LogKind::Ima, b"no list at all")]);
    let proven = admitted(kernel.site.judge(&evidence, kernel.site.activating()));
    assert!(proven.boot.ima().is_none());
}

#[test]
fn files_and_violations_that_are_not_allowed_are_named() {
    let mut kernel = Kernel::boot();
    kernel.measure("/usr/bin/a");
    kernel.measure("/tmp/evil");
    assert_finding(
        &kernel.deny(),
        ReasonCode::PolicyImaFileNotAllowed,
        "IMA entry 000002: /tmp/evil",
        "a file of manifest base",
        &sha256(b"/tmp/evil").to_string(),
    );
    judge(&mut kernel.site, &format!("deny = [\"{}\"]\n", sha256(b"/tmp/evil")));
    assert_code(&kernel.deny(), ReasonCode::PolicyImaFileDenied);
    judge(&mut kernel.site, "exclude = [\"/tmp/*\"]\n");
    kernel.admit();
    kernel.list.violation("/var/log/x");
    kernel.quote();
    assert_code(&kernel.deny(), ReasonCode::PolicyImaViolation);
    judge(&mut kernel.site, "exclude = [\"/tmp/*\"]\nallow_violations = true\n");
    kernel.admit();
}

#[test]
fn a_list_that_was_edited_or_is_of_another_boot_is_refused() {
    let mut kernel = Kernel::boot();
    kernel.measure("/usr/bin/a");
    kernel.measure("/tmp/evil");
    let (ends, bytes) = (kernel.list.ends().to_vec(), kernel.list.bytes().to_vec());
    assert_code(&kernel.deny_shown(&bytes[..ends[1]]), ReasonCode::ImaReplayMismatch);
    let mut renamed = bytes.clone();
    renamed[ends[2] - 2] ^= 1;
    assert_code(&kernel.deny_shown(&renamed), ReasonCode::ImaTemplateDigestMismatch);
    // A list of another machine, extended by whoever may extend PCR 10.
    let other = booted(&crate::log_support::Boot { secure_boot: 0, ..plain() }.log());
    kernel.list = begun(&other);
    kernel.measure("/usr/bin/a");
    assert_code(&kernel.deny(), ReasonCode::ImaBootAggregateMismatch);
    kernel.list = ImaList::new(ImaKernel::default());
    kernel.measure("/usr/bin/a");
    assert_code(&kernel.deny(), ReasonCode::ImaBootAggregateMissing);
}

#[test]
fn a_renewal_sends_what_the_list_gained() {
    let mut kernel = Kernel::boot();
    kernel.measure("/usr/bin/a");
    let proven = kernel.admit();
    let text = serde_json::to_string(&proven.boot.document()).expect("JSON");
    let document: BootDocument = serde_json::from_str(&text).expect("the same document");
    let stored = BootRecord::assert_from_store(document).expect("its keys are good");
    assert_eq!(stored.ima(), proven.boot.ima());
    // Nothing new: nothing has to be sent.
    let renewed = admitted(renewal_with(&kernel.site, &stored, Vec::new()));
    assert_eq!(renewed.boot.ima(), stored.ima());
    kernel.measure("/usr/bin/b");
    let following = kernel.following(&stored);
    let renewed = admitted(renewal_with(&kernel.site, &stored, vec![following.clone()]));
    assert_eq!(renewed.boot.ima().expect("a list").entries, 3);
    // What it gained must be sent, and from there on.
    let denial = denied(renewal_with(&kernel.site, &stored, Vec::new()));
    assert_code(&denial, ReasonCode::ImaReplayMismatch);
    let whole = suffix(LogKind::Ima, 0, kernel.list.bytes());
    let denial = denied(renewal_with(&kernel.site, &stored, vec![whole]));
    assert_code(&denial, ReasonCode::ImaOffsetInvalid);
    // A file that is not allowed, and is no longer sent the next time: refused for this boot.
    kernel.measure("/tmp/evil");
    let following = kernel.following(&renewed.boot);
    let appraisal = renewal_with(&kernel.site, &renewed.boot, vec![following]);
    let boot = appraisal.proven.as_ref().expect("integrity holds").boot.clone();
    assert_code(&denied(appraisal), ReasonCode::PolicyImaFileNotAllowed);
    let denial = denied(renewal_with(&kernel.site, &boot, Vec::new()));
    assert_code(&denial, ReasonCode::PolicyImaFileNotAllowed);
}

/// Entries that another policy judged were not kept.
#[test]
fn another_policy_wants_the_whole_list() {
    let mut kernel = Kernel::boot();
    kernel.measure("/usr/bin/a");
    let proven = kernel.admit();
    let following = kernel.following(&proven.boot);
    judge(&mut kernel.site, "bind_paths = true\n");
    let denial = denied(renewal_with(&kernel.site, &proven.boot, vec![following]));
    assert_code(&denial, ReasonCode::ImaOffsetInvalid);
    let denial = denied(renewal_with(&kernel.site, &proven.boot, Vec::new()));
    assert_code(&denial, ReasonCode::PolicyImaListMissing);
    let whole = suffix(LogKind::Ima, 0, kernel.list.bytes());
    let renewed = admitted(renewal_with(&kernel.site, &proven.boot, vec![whole]));
    let policy = kernel.site.golden.as_ref().expect("a golden set").ima_policies()[0];
    assert!(renewed.boot.ima().expect("a list").is_judged_by(policy.digest()));
    // Without rules for it the record keeps no list: rules that come later begin anew.
    crate::support::judge_by(&mut kernel.site, "");
    let signer = Signer::Known(renewed.boot.clone());
    let answer = crate::site::evidence(&kernel.site.renewal(&renewed.boot));
    let renewed = admitted(kernel.site.judge(&answer, signer));
    assert!(renewed.boot.ima().is_none());
}

/// The value that a log leaves in a PCR of the SHA-1 bank, which no TPM of these tests quotes.
fn sha1_value(log: &[u8], pcr: u8) -> Vec<u8> {
    let log = EventLog::parse(log).expect("well-formed");
    let mut value = vec![0; 20];
    // The locality that the log names.
    value[19] = if pcr == 0 { 3 } else { 0 };
    for event in log.events().iter().filter(|event| event.is_extended()) {
        if event.pcr == Some(index(pcr)) {
            value = hash("sha1", &[&value, event.digest_bytes(LogAlg::Sha1).expect("a digest")]);
        }
    }
    value
}

/// Kernels hash the SHA-1 bank where theirs is `ima_hash=sha1`: the log vouches for it, also when rules for the list
/// come after the boot was proven.
#[test]
fn a_first_entry_over_a_bank_that_is_not_quoted_is_known_for_the_boot() {
    let banks = vec![LogAlg::Sha1, LogAlg::Sha256, LogAlg::Sha384];
    let firmware = crate::log_support::Boot { banks, ..plain() }.log();
    let site = booted(&firmware);
    let values: Vec<Vec<u8>> = (0..8).map(|pcr| sha1_value(&firmware, pcr)).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let list = ImaList::booted(ImaKernel::default(), "ima-ng", "sha1", &values);
    let mut kernel = Kernel { site, firmware, list };
    kernel.measure("/usr/bin/a");
    judge(&mut kernel.site, "");
    let judged = kernel.admit();
    crate::support::judge_by(&mut kernel.site, "");
    let unjudged = kernel.admit();
    judge(&mut kernel.site, "bind_paths = true\n");
    for boot in [&judged.boot, &unjudged.boot] {
        let text = serde_json::to_string(&boot.document()).expect("JSON");
        let document: BootDocument = serde_json::from_str(&text).expect("the same document");
        let stored = BootRecord::assert_from_store(document).expect("its keys are good");
        let whole = suffix(LogKind::Ima, 0, kernel.list.bytes());
        admitted(renewal_with(&kernel.site, &stored, vec![whole]));
    }
    // Without the log nothing vouches for that bank.
    judge(&mut kernel.site, "");
    let denial = deny(&kernel.site, &[(LogKind::Ima, kernel.list.bytes())]);
    assert_code(&denial, ReasonCode::ImaBootAggregateMismatch);
}

/// A manifest of these files, by its digest.
fn manifest_of(files: &[&str]) -> (Digest, Arc<Manifest>) {
    let mut builder = ManifestBuilder::new();
    for file in files {
        builder.file(&sha256(file.as_bytes()), file.as_bytes());
    }
    let manifest = Manifest::parse(builder.to_text("base", 0).as_bytes()).expect("a manifest");
    (*manifest.id(), Arc::new(manifest))
}

/// A golden set of groups, each of which judges the list by a manifest of these files, or does not judge it.
fn groups(site: &Site, of_each: &[Option<&[&str]>]) -> ReferenceValues {
    let mut text = site.golden_text(&[(HashAlg::Sha256, set(&[0, 2]))]);
    let mut manifests = Manifests::new();
    for (at, files) in of_each.iter().enumerate() {
        text += &format!("[[group]]\nname = \"g{at}\"\n");
        match files {
            Some(files) => {
                let (digest, manifest) = manifest_of(files);
                manifests.insert(digest, manifest);
                text += &format!("[group.ima]\nmanifest = \"{digest}\"\n");
            }
            None => {
                let value = hex::encode(value(site, 2).as_bytes());
                text += &format!(
                    "[[group.pcr]]\nbank = \"sha256\"\nindex = 2\naccept = [{{ value = \"{value}\" }}]\n"
                );
            }
        }
    }
    ReferenceValues::parse(&text, tool_pcr(), &manifests).expect("a golden set")
}

fn none_refused() -> Vec<Arc<SitePolicy>> {
    let text = "schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\n\
                [[rule]]\nname = \"r\"\nmessage = \"m\"\nexpr = 'ima.refused == 0'\n";
    vec![Arc::new(SitePolicy::parse(text).expect("a policy"))]
}

/// Without the list no rule over it is met; whoever has it may meet them.
#[test]
fn rules_over_a_list_that_was_not_sent_are_left_open() {
    let mut kernel = Kernel::boot();
    kernel.site.policies = none_refused();
    let of = |logs: &[(LogKind, &[u8])]| {
        let evidence = evidence_with(&kernel.site, logs);
        let appraisal = kernel.site.judge(&evidence, kernel.site.activating());
        let lacking: Vec<_> = appraisal.lacking.iter().map(|finding| finding.code).collect();
        (lacking, appraisal)
    };
    let (lacking, appraisal) = of(&[(LogKind::Uefi, &kernel.firmware)]);
    assert_eq!(lacking, [ReasonCode::PolicyImaListMissing]);
    let found = denied(appraisal);
    let codes: Vec<_> = found.findings().map(|finding| finding.code).collect();
    assert_eq!(codes, [ReasonCode::PolicyImaListMissing, ReasonCode::PolicyRuleError]);
    let (lacking, appraisal) = of(&kernel.logs());
    assert_eq!(lacking, []);
    admitted(appraisal);
}

/// What a set that is only staged, or another alternative, says of the list is nothing to rules in force; to staged rules
/// it is what counts.
#[test]
fn rules_read_what_is_counted_by_the_alternative_beside_them() {
    let mut kernel = Kernel::boot();
    FILES.iter().for_each(|file| kernel.measure(file));
    let policies = none_refused();
    let judge = |in_force: &ReferenceValues, staged: Option<&ReferenceValues>| {
        let mut context = kernel.site.context();
        context.in_force = Expected { reference: Some(in_force), site: &policies };
        context.staged = staged.map(|staged| Expected { reference: Some(staged), site: &policies });
        let evidence = evidence_with(&kernel.site, &kernel.logs());
        appraisal::appraise(&evidence, kernel.site.activating(), &context)
    };
    let (all, one) =
        (groups(&kernel.site, &[Some(&FILES)]), groups(&kernel.site, &[Some(&FILES[..1])]));
    let appraisal = judge(&all, Some(&one));
    let staged = appraisal.staged.clone().expect("judged");
    let codes: Vec<_> = staged.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [ReasonCode::PolicyImaFileNotAllowed, ReasonCode::PolicyRuleFalse]);
    let proven = admitted(appraisal);
    let claims = proven.claims.document().ima.expect("claims of the list");
    assert_eq!((claims.judged.len(), claims.judges.len()), (2, 1));
    // What is recorded is what the rules in force read.
    let input = PolicyInput::of(&proven.claims, &kernel.site.node);
    assert_eq!(policies[0].judge(&input), []);
    // The other way round the staged set excuses nobody.
    let appraisal = judge(&one, Some(&all));
    assert_eq!(appraisal.staged.clone().expect("judged").findings, []);
    let found = denied(appraisal);
    let codes: Vec<_> = found.findings().map(|finding| finding.code).collect();
    assert_eq!(codes, [ReasonCode::PolicyImaFileNotAllowed, ReasonCode::PolicyRuleFalse]);
    // One alternative refuses the list, another accepts it.
    for groups_of in [[Some(&FILES[..1]), Some(&FILES[..])], [Some(&FILES[..]), Some(&FILES[..1])]]
    {
        admitted(judge(&groups(&kernel.site, &groups_of), None));
    }
    // Where the alternative that accepts the node does not judge the list, nothing is known of it.
    let unjudged = groups(&kernel.site, &[None]);
    let found = denied(judge(&unjudged, Some(&all)));
    assert_finding(&found, ReasonCode::PolicyRuleError, "rule p/r", "m", "ima is absent");
}
