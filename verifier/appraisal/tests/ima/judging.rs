//! What a policy says of a list.

use std::sync::Arc;

use appraisal::{
    ima::{
        ImaCounts, ImaPolicy, ImaRules, ImaState, Judgement, Keyring, Manifest, ManifestBuilder,
        Require, judge, judge::MAX_IMA_FINDINGS,
    },
    verdict::Finding,
};
use proto::{digest::HashAlg, ima::BankAlg, reason::ReasonCode};
use soft_tpm::ima::{ImaKernel, ImaList, ImaValue, hash};

use crate::{
    signatures::Signer,
    support::{anchored, booted, booted_over, continued, quoted, sha256},
};

/// A manifest of these files, each with its name for content.
fn manifest(files: &[&str]) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new();
    for file in files {
        builder.file(&sha256(file.as_bytes()), file.as_bytes());
    }
    Arc::new(Manifest::parse(builder.to_text("test", 0).as_bytes()).expect("a manifest"))
}

fn policy(rules: &ImaRules, files: &[&str]) -> ImaPolicy {
    ImaPolicy::new(rules, Some(manifest(files)), None).expect("a policy")
}

/// Measures a file that has its name for content.
fn measure(list: &mut ImaList, name: &str) {
    list.file("ima-ng", "sha256", sha256(name.as_bytes()).as_bytes(), name, &[]);
}

fn judged(list: &ImaList, policy: &ImaPolicy) -> Judgement {
    let quote = quoted(list, &[HashAlg::Sha256]);
    judge(&anchored(list.bytes(), &quote).expect("replays"), policy)
}

fn codes(judgement: &Judgement) -> Vec<ReasonCode> {
    judgement.findings.iter().map(|finding| finding.code).collect()
}

fn counts(judgement: &Judgement) -> ImaCounts {
    judgement.state.judged.first().expect("judged").counts
}

#[test]
fn files_of_the_manifest_are_accepted_and_others_named() {
    let mut list = booted(ImaKernel::default());
    measure(&mut list, "/usr/bin/a");
    measure(&mut list, "/usr/bin/evil");
    list.file("ima-ng", "sha256", sha256(b"changed").as_bytes(), "/usr/bin/a", &[]);
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/usr/bin/a"]));
    let code = ReasonCode::PolicyImaFileNotAllowed;
    let expected = [
        Finding::new(
            code,
            "IMA entry 000002: /usr/bin/evil",
            "a file of manifest test",
            sha256(b"/usr/bin/evil").to_string(),
        ),
        Finding::new(
            code,
            "IMA entry 000003: /usr/bin/a",
            sha256(b"/usr/bin/a").to_string(),
            sha256(b"changed").to_string(),
        ),
    ];
    assert_eq!(judgement.findings, expected);
    let counted = counts(&judgement);
    assert_eq!((counted.boot_aggregates, counted.by_manifest, counted.refused), (1, 1, 2));
}

/// The first of two digests of one path is judged, although the last is good.
#[test]
fn every_entry_of_a_path_counts() {
    let mut list = booted(ImaKernel::default());
    list.file("ima-ng", "sha256", sha256(b"evil").as_bytes(), "/usr/bin/a", &[]);
    measure(&mut list, "/usr/bin/a");
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/usr/bin/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaFileNotAllowed]);
    assert!(judgement.findings[0].subject.starts_with("IMA entry 000001"));
}

#[test]
fn a_digest_counts_at_its_path_where_paths_are_bound() {
    let mut list = booted(ImaKernel::default());
    list.file("ima-ng", "sha256", sha256(b"/usr/bin/a").as_bytes(), "/tmp/a", &[]);
    let loose = ImaRules::default();
    let bound = ImaRules { bind_paths: true, ..ImaRules::default() };
    assert!(judged(&list, &policy(&loose, &["/usr/bin/a"])).findings.is_empty());
    let judgement = judged(&list, &policy(&bound, &["/usr/bin/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaFileNotAllowed]);
    let mut list = booted(ImaKernel::default());
    list.file("ima-ng", "sha256", sha256(b"/opt/a b").as_bytes(), "/opt/a_b", &[]);
    assert!(judged(&list, &policy(&bound, &["/opt/a b"])).findings.is_empty(), "spaces are _");
}

#[test]
fn exclusions_are_anchored() {
    let rules = ImaRules { exclude: vec!["/usr/bin/foo".to_owned()], ..ImaRules::default() };
    let policy = policy(&rules, &["/usr/bin/a"]);
    let mut list = booted(ImaKernel::default());
    for name in ["/usr/bin/foo", "/usr/bin/foobar-evil", "/tmp/usr/bin/foo"] {
        measure(&mut list, name);
    }
    let judgement = judged(&list, &policy);
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaFileNotAllowed; 2]);
    assert_eq!(counts(&judgement).excluded, 1);
}

#[test]
fn denied_digests_are_denied_wherever_they_stand() {
    let rules = ImaRules {
        exclude: vec!["/usr/bin/*".to_owned()],
        deny: vec![sha256(b"/usr/bin/a")],
        ..ImaRules::default()
    };
    let policy = policy(&rules, &["/usr/bin/a"]);
    let mut list = booted(ImaKernel::default());
    measure(&mut list, "/usr/bin/a");
    measure(&mut list, "/usr/bin/b");
    assert_eq!(codes(&judged(&list, &policy)), [ReasonCode::PolicyImaFileDenied]);
}

#[test]
fn violations_are_denied_unless_the_policy_allows_them() {
    let mut list = booted(ImaKernel::default());
    list.violation("/var/log/x");
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaViolation]);
    assert_eq!(judgement.state.violations, 1);
    let rules = ImaRules { allow_violations: true, ..ImaRules::default() };
    let judgement = judged(&list, &policy(&rules, &["/a"]));
    assert!(judgement.findings.is_empty());
    assert_eq!(counts(&judgement).violations, 1);
    // An exclusion cannot excuse one: its name is under no digest.
    let rules = ImaRules { exclude: vec!["/var/log/**".to_owned()], ..ImaRules::default() };
    assert_eq!(codes(&judged(&list, &policy(&rules, &["/a"]))), [ReasonCode::PolicyImaViolation]);
}

#[test]
fn weak_digests_prove_nothing() {
    let mut list = booted(ImaKernel::default());
    list.file("ima-ng", "sha1", &hash("sha1", &[b"/a"]), "/a", &[]);
    list.entry("ima-ng", &[ImaValue::Digest("md5", &[0; 16]), ImaValue::Name("/a")]);
    list.entry("ima-ng", &[ImaValue::Digest("new", &[0; 32]), ImaValue::Name("/a")]);
    list.file("ima", "sha1", &hash("sha1", &[b"/a"]), "/a", &[]);
    let policy = policy(&ImaRules::default(), &["/a"]);
    assert_eq!(codes(&judged(&list, &policy)), [ReasonCode::PolicyImaDigestWeak; 4]);
}

#[test]
fn a_list_bound_by_padded_sha1_needs_leave() {
    let kernel = ImaKernel { is_padding: true, ..ImaKernel::default() };
    let mut list = booted_over(kernel, "ima-ng", BankAlg::Sha1, 8);
    measure(&mut list, "/a");
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaDigestWeak]);
    assert_eq!(judgement.findings[0].subject, "PCR 10 (sha256)");
    let rules = ImaRules { allow_padded_sha1: true, ..ImaRules::default() };
    assert!(judged(&list, &policy(&rules, &["/a"])).findings.is_empty());
}

#[test]
fn entries_that_say_too_little_are_refused() {
    let mut list = booted(ImaKernel::default());
    let digest = sha256(b"/a");
    list.entry("d-ng|sig", &[ImaValue::Digest("sha256", digest.as_bytes()), ImaValue::Raw(b"")]);
    list.entry("n-ng|sig", &[ImaValue::Name("/a"), ImaValue::Raw(b"")]);
    let policy = policy(&ImaRules::default(), &["/a"]);
    assert_eq!(codes(&judged(&list, &policy)), [ReasonCode::PolicyImaFileNotAllowed; 2]);
}

/// The value of an extended attribute is whatever root wrote there: no label makes it the file's digest.
#[test]
fn no_label_makes_an_attribute_the_digest() {
    let (listed, evil) = (sha256(b"/a"), sha256(b"evil"));
    let values = [
        ImaValue::Digest("sha256", evil.as_bytes()),
        ImaValue::Name("/a"),
        ImaValue::Raw(b""),
        ImaValue::Digest("sha256", listed.as_bytes()),
    ];
    let policy = policy(&ImaRules::default(), &["/a"]);
    for label in ["xattrvalues|n-ng|sig|d-ng", "buf|n-ng|sig|d-ng", "evmsig|n-ng|sig|d-ng"] {
        let mut list = booted(ImaKernel::default());
        list.entry(label, &values);
        assert_eq!(codes(&judged(&list, &policy)), [ReasonCode::ImaTemplateUnsupported], "{label}");
    }
}

#[test]
fn buffers_are_judged_by_their_own_digest() {
    let mut list = booted(ImaKernel::default());
    list.buffer("sha256", "kexec-cmdline", b"/a");
    let digest = sha256(b"/a");
    let forged = [
        ImaValue::Digest("sha256", digest.as_bytes()),
        ImaValue::Name("kexec-cmdline"),
        ImaValue::Raw(b"/b"),
    ];
    list.entry("ima-buf", &forged);
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::PolicyImaFileNotAllowed]);
    assert!(judgement.findings[0].subject.starts_with("IMA entry 000002"));
}

#[test]
fn a_kexec_repeats_boot_aggregate_and_nothing_else_may_be_named_so() {
    let mut list = booted(ImaKernel::default());
    let first = list.bytes().to_vec();
    let again = booted(ImaKernel::default());
    assert_eq!(first, again.bytes());
    let values: Vec<Vec<u8>> = (0..10)
        .map(|index| crate::support::boot_pcr(BankAlg::Sha256, index).as_bytes().to_vec())
        .collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let aggregate = hash("sha256", &values);
    list.file("ima-sig", "sha256", &aggregate, "boot_aggregate", &[]);
    list.file("ima-ng", "sha256", sha256(b"/a").as_bytes(), "boot_aggregate", &[]);
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/a"]));
    assert_eq!(codes(&judgement), [ReasonCode::ImaBootAggregateMismatch]);
    assert_eq!(counts(&judgement).boot_aggregates, 2);
}

#[test]
fn what_was_refused_stays_refused_for_the_boot() {
    let policy = policy(&ImaRules::default(), &["/a", "/b"]);
    let mut list = booted(ImaKernel::default());
    measure(&mut list, "/evil");
    let first = judged(&list, &policy);
    assert_eq!(codes(&first), [ReasonCode::PolicyImaFileNotAllowed]);
    let stored = serde_json::to_string(&first.state).expect("JSON");
    let state: ImaState = serde_json::from_str(&stored).expect("a state");
    assert!(state.is_judged_by(policy.digest()));
    let from = list.bytes().len();
    measure(&mut list, "/a");
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let next = continued(&state, &list.bytes()[from..], &quote).expect("replays");
    let second = judge(&next, &policy);
    assert_eq!(second.findings, first.findings);
    assert_eq!(counts(&second).by_manifest, 1);
    let nothing = continued(&second.state, &[], &quote).expect("replays");
    assert_eq!(judge(&nothing, &policy).findings, first.findings);
}

#[test]
fn another_policy_needs_the_whole_list() {
    let old = policy(&ImaRules::default(), &["/a"]);
    let new = policy(&ImaRules::default(), &["/b"]);
    let mut list = booted(ImaKernel::default());
    measure(&mut list, "/a");
    let state = judged(&list, &old).state;
    assert!(!state.is_judged_by(new.digest()));
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let nothing = continued(&state, &[], &quote).expect("replays");
    let judgement = judge(&nothing, &new);
    assert_eq!(codes(&judgement), [ReasonCode::ImaOffsetInvalid]);
    assert!(!judgement.state.is_judged_by(new.digest()), "asked again next time");
    // Nor is a list accepted that was only replayed before.
    let unjudged = anchored(list.bytes(), &quote).expect("replays").state().clone();
    let nothing = continued(&unjudged, &[], &quote).expect("replays");
    assert_eq!(codes(&judge(&nothing, &old)), [ReasonCode::ImaOffsetInvalid]);
}

#[test]
fn findings_are_bounded_and_the_rest_counted() {
    let mut list = booted(ImaKernel::default());
    for number in 0..MAX_IMA_FINDINGS + 5 {
        measure(&mut list, &format!("/evil/{number}"));
    }
    let judgement = judged(&list, &policy(&ImaRules::default(), &["/a"]));
    assert_eq!(judgement.findings.len(), MAX_IMA_FINDINGS);
    assert_eq!(judgement.state.judged[0].unjudged, 5);
}

#[test]
fn policies_differ_by_everything_that_they_judge_by() {
    let base = ImaRules::default();
    let all = [
        policy(&base, &["/a"]),
        policy(&base, &["/b"]),
        policy(&ImaRules { bind_paths: true, ..base.clone() }, &["/a"]),
        policy(&ImaRules { allow_violations: true, ..base.clone() }, &["/a"]),
        policy(&ImaRules { exclude: vec!["/x".to_owned()], ..base.clone() }, &["/a"]),
        policy(&ImaRules { deny: vec![sha256(b"x")], ..base.clone() }, &["/a"]),
        ImaPolicy::new(&base, Some(manifest(&["/a"])), Some(Signer::p256().keyring()))
            .expect("a policy"),
    ];
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            assert_ne!(one.digest(), other.digest());
        }
    }
    assert_eq!(policy(&base, &["/a"]).digest(), all[0].digest());
}

#[test]
fn a_policy_that_accepts_nothing_or_everything_is_refused() {
    let problems =
        |rules: &ImaRules, manifest: Option<Arc<Manifest>>, keys: Option<Arc<Keyring>>| {
            ImaPolicy::new(rules, manifest, keys).map(|_| ()).map_err(|problems| {
                problems.into_iter().map(|problem| problem.at).collect::<Vec<_>>()
            })
        };
    let refused = |at: &str| Err(vec![at.to_owned()]);
    let both = ImaRules { require: Require::Both, ..ImaRules::default() };
    let some = || Some(manifest(&["/a"]));
    assert_eq!(problems(&ImaRules::default(), None, None), refused("ima"));
    assert_eq!(problems(&both, some(), None), refused("require"));
    assert_eq!(problems(&both, None, Some(Signer::p256().keyring())), refused("require"));
    let everything = ImaRules { exclude: vec!["/**".to_owned()], ..ImaRules::default() };
    assert_eq!(problems(&everything, some(), None), refused("exclude \"/**\""));
    let many = ImaRules { exclude: vec!["/x".to_owned(); 257], ..ImaRules::default() };
    assert_eq!(problems(&many, some(), None), refused("exclude"));
}

#[test]
fn rules_read_from_a_golden_sets_toml() {
    let text =
        "require = \"both\"\nbind_paths = true\nexclude = [\"/a/**\"]\nallow_violations = true\n";
    let rules: ImaRules = toml::from_str(text).expect("rules");
    assert_eq!(rules.require, Require::Both);
    assert!(rules.bind_paths && rules.allow_violations && !rules.allow_padded_sha1);
    assert!(toml::from_str::<ImaRules>("excludes = []").is_err());
}
