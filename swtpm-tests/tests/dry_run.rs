//! What a dry run predicts comes true, node by node: outcome and codes.

use proto::digest::{HashAlg, PcrIndex};
use swtpm_tests::soft_worker::tool;
use verifier::{
    documents::What,
    store::{DocumentId, DocumentKind},
};

#[path = "dry_run/fleet.rs"]
mod fleet;

use fleet::{Fleet, Kind, compiler, model};

fn head(name: &str, version: u64, more: &str) -> String {
    format!("schema = \"assay.golden/v1\"\nname = {name:?}\nversion = {version}\n{more}\n")
}

/// A set of the fleet's pool.
fn set(version: u64, rules: &str) -> String {
    head("linux", version, "pool = \"linux\"") + rules
}

/// A rule for a PCR that accepts what these kinds have; `table` is `pcr` or `group.pcr`.
fn pcr(table: &str, bank: HashAlg, index: u8, kinds: &[Kind]) -> String {
    let at = PcrIndex::new(index).expect("a PCR");
    let values: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let value = hex::encode(model(*kind).tpm.pcrs[&(bank, at)].as_bytes());
            format!("{{ value = {value:?} }}")
        })
        .collect();
    let values = values.join(", ");
    format!("[[{table}]]\nbank = \"{bank}\"\nindex = {index}\naccept = [{values}]\n")
}

/// A rule for the compiler.
fn cc(table: &str, kinds: &[Kind]) -> String {
    let digests: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let digest = tool("cc", compiler(*kind)).expect("a tool").digest();
            format!("{{ digest = \"{digest}\" }}")
        })
        .collect();
    format!("[[{table}]]\nname = \"cc\"\naccept = [{}]\n", digests.join(", "))
}

/// Admits all but another kernel and another compiler.
fn base() -> String {
    set(
        1,
        &(pcr("pcr", HashAlg::Sha256, 4, &[Kind::Plain, Kind::Insecure])
            + &cc("tool", &[Kind::Plain])),
    )
}

fn id(kind: DocumentKind, name: &str, version: u64) -> DocumentId {
    DocumentId { kind, name: name.to_owned(), version }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_retiring() {
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    let kernel = |name: &str, kinds: &[Kind]| {
        format!("[[group]]\nname = {name:?}\n") + &pcr("group.pcr", HashAlg::Sha256, 4, kinds)
    };
    // The same nodes as before, and those with the other kernel; Secure Boot off is not accepted any more.
    let groups = cc("tool", &[Kind::Plain])
        + &kernel("one", &[Kind::Plain])
        + &kernel("two", &[Kind::Kernel2]);
    let predicted = fleet.comes_true(&[set(2, &groups)], false, &[]).await.expect("comes true");
    assert_eq!(predicted.count(What::Admitted), 6, "the other kernel");
    assert_eq!(predicted.count(What::Denied), 6, "Secure Boot off");
    // The other compiler is accepted beside it, and goes again.
    let other = pcr("pcr", HashAlg::Sha256, 4, &[Kind::Plain]) + &cc("tool", &[Kind::OtherTool]);
    let predicted = fleet.comes_true(&[set(3, &other)], true, &[]).await.expect("comes true");
    assert_eq!((predicted.count(What::Admitted), predicted.count(What::Denied)), (6, 0));
    let retire = [id(DocumentKind::Golden, "linux", 2)];
    let predicted = fleet.comes_true(&[], false, &retire).await.expect("comes true");
    assert_eq!(predicted.count(What::Denied), 6 * 6, "all but the other compiler");
    // The last one: nothing is accepted.
    let retire = [id(DocumentKind::Golden, "linux", 3)];
    let predicted = fleet.comes_true(&[], false, &retire).await.expect("comes true");
    assert_eq!((predicted.count(What::Denied), predicted.summary.admitted_now()), (6, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_alongside_and_retired_in_one_change() {
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    let part =
        |version, kind| head("platform", version, "") + &pcr("pcr", HashAlg::Sha256, 7, &[kind]);
    let including = head("linux", 2, "pool = \"linux\"\ninclude = [\"platform\"]")
        + &cc("tool", &[Kind::Plain]);
    let predicted =
        fleet.comes_true(&[part(1, Kind::Plain), including], false, &[]).await.expect("comes true");
    assert_eq!(predicted.count(What::Denied), 6, "Secure Boot off");
    assert_eq!(predicted.count(What::Admitted), 6, "the other kernel is not looked at any more");
    let beside = fleet.comes_true(&[part(2, Kind::Insecure)], true, &[]).await.expect("comes true");
    assert_eq!((beside.count(What::Denied), beside.count(What::Admitted)), (0, 6));
    // The first version goes with the change that brings a third.
    let retire = [id(DocumentKind::Golden, "platform", 1)];
    let third = fleet.comes_true(&[part(3, Kind::Insecure)], true, &retire).await;
    assert_eq!(third.expect("comes true").count(What::Denied), 6 * 6, "Secure Boot on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_the_site() {
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    let policy = |version: u64, expr: &str| {
        format!(
            "schema = \"assay.policy/v1\"\nname = \"baseline\"\nversion = {version}\npools = [\"linux\"]\n\
             [[rule]]\nname = \"secure-boot\"\nmessage = \"turn it on\"\nexpr = \"{expr}\"\n"
        )
    };
    let predicted = fleet.comes_true(&[policy(1, "boot.secure_boot")], false, &[]).await;
    let predicted = predicted.expect("comes true");
    assert_eq!(predicted.count(What::Denied), 12, "Secure Boot off, and nothing known of it");
    // The next version takes its place, even where golden sets would stand beside each other.
    let predicted = fleet.comes_true(&[policy(2, "!boot.secure_boot")], true, &[]).await;
    let predicted = predicted.expect("comes true");
    assert_eq!(predicted.count(What::Admitted), 6, "Secure Boot off");
    // A policy ends by a successor without rules.
    let lifted = "schema = \"assay.policy/v1\"\nname = \"baseline\"\nversion = 3\n".to_owned();
    let predicted = fleet.comes_true(&[lifted], false, &[]).await.expect("comes true");
    assert_eq!(predicted.count(What::Admitted), 6 * 5, "Secure Boot on, or nothing known of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pcr_that_was_not_quoted_is_undecided_until_it_is_staged() {
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    let bank = HashAlg::Sha384;
    let kernel = pcr("pcr", HashAlg::Sha256, 4, &[Kind::Plain, Kind::Insecure]);
    let rules = kernel + &cc("tool", &[Kind::Plain]) + &pcr("pcr", bank, 13, &[Kind::Plain]);
    let predicted = fleet.comes_true(&[set(2, &rules)], false, &[]).await.expect("comes true");
    // All that are admitted. The others are denied whatever the PCR holds, but perhaps for that too.
    assert_eq!(predicted.count(What::Undecided), 6 * 6);
    assert_eq!(predicted.count(What::DeniedUndecided), 6 * 3);
    assert_eq!(fleet.answers["otherbank-0"].codes, ["POLICY_PCR_NOT_ALLOWED"]);
    assert!(fleet.answers["plain-0"].admitted);
    // Asked for it while it was staged, it gave none: told as denied from then on.
    assert_eq!(fleet.answers["onebank-0"].codes, ["PCR_SELECTION_INCOMPLETE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_alternative_cannot_tell_no_other_one_tells() {
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    let bank = HashAlg::Sha384;
    // One finding against the nearest alternative, two values that were not quoted in the other.
    let rules = "[[group]]\nname = \"by-bank\"\n".to_owned()
        + &pcr("group.pcr", bank, 12, &[Kind::Plain])
        + &pcr("group.pcr", bank, 13, &[Kind::Plain])
        + "[[group]]\nname = \"by-kernel\"\n"
        + &pcr("group.pcr", HashAlg::Sha256, 4, &[Kind::Kernel2]);
    let predicted = fleet.comes_true(&[set(2, &rules)], false, &[]).await.expect("comes true");
    assert_eq!(predicted.count(What::Admitted), 6, "the other kernel");
    assert_eq!(predicted.count(What::Undecided), 6 * 6);
    assert_eq!(predicted.count(What::DeniedUndecided), 6 * 2, "the other compiler, and who waits");
    assert!(fleet.answers["othertool-0"].admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_judged_by_the_whole_list_or_not_at_all() {
    let ima = |files: &[&str]| format!("[ima]\nmanifest = \"{}\"\n", fleet::manifest(files).1);
    let kernels = pcr("pcr", HashAlg::Sha256, 4, &[Kind::Plain, Kind::Insecure, Kind::Kernel2]);
    let rules = |files: &[&str]| ima(files) + &kernels + &cc("tool", &[Kind::Plain]);
    let mut fleet = Fleet::under(&[base()]).await.expect("a fleet");
    for files in [&["a", "b", "late"][..], &["a", "b"], &["a"]] {
        fleet.import_manifest(files).await.expect("a manifest");
    }
    // Nobody was asked for a list yet; who has none is denied for certain.
    let all = ["a", "b", "late"];
    let predicted =
        fleet.comes_true(&[set(2, &rules(&all))], false, &[]).await.expect("comes true");
    assert_eq!(predicted.count(What::Undecided), 6 * 5);
    assert_eq!(predicted.count(What::Denied), 6, "without a list");
    assert_eq!(predicted.count(What::DeniedUndecided), 6 * 3, "other kernel, compiler, who waits");
    assert!(fleet.answers["ranlate-0"].admitted);
    // Lists that were sent piece by piece are put together: what was run late is denied for certain.
    for node in fleet.nodes.iter_mut().filter(|node| node.worker.name.ends_with('2')) {
        node.worker.run_file("/usr/bin/a", b"a");
    }
    fleet.attest().await.expect("all attest");
    let predicted = fleet.comes_true(&[set(3, &rules(&["a", "b"]))], false, &[]).await;
    let predicted = predicted.expect("comes true");
    assert_eq!(predicted.count(What::Undecided), 0);
    assert_eq!(predicted.count(What::Denied), 6, "what ran late");
    // A boot that is longer ago than evidence is looked through: nothing is guessed.
    for _ in 0..17 {
        let node = fleet.nodes.iter().find(|node| node.worker.name == "plain-0").expect("a node");
        node.worker.attest(fleet.cluster.verifier()).await.expect("a verdict");
    }
    let predicted = fleet.comes_true(&[set(4, &rules(&["a"]))], false, &[]).await;
    let predicted = predicted.expect("comes true");
    assert_eq!(predicted.nodes["plain-0"].what, What::Undecided);
    assert_eq!(predicted.count(What::Undecided), 1);
    assert_eq!(fleet.answers["plain-0"].codes, ["POLICY_IMA_FILE_NOT_ALLOWED"]);
}
