//! The policy step: every finding's code and words, and every problem that a golden set can have.

mod site;

use appraisal::{
    boot::Boot,
    context::{Signer, Standing},
    policy::{GoldenProblem, Manifests, ReferenceValues},
    verdict::{Denial, Finding, Verdict},
};
use proto::{
    digest::{Digest, HashAlg},
    reason::ReasonCode,
    tool_log::ToolMeasurement,
};
use site::*;
use soft_tpm::{Algorithm, EkKind};

/// A site whose golden set is that text, changed.
fn site_with(edit: impl FnOnce(String) -> String) -> Site {
    let mut site = Site::new();
    site.golden = Some(golden(&edit(site.golden_text(&[(HashAlg::Sha256, set(&PCRS))]))));
    site
}

fn only(site: &Site, code: ReasonCode) -> Finding {
    let denial = site.deny(|_| ());
    assert_code(&denial, code);
    denial.findings().next().expect("one finding").clone()
}

#[test]
fn no_golden_set_denies_and_proves() {
    let mut site = Site::new();
    site.golden = None;
    only(&site, ReasonCode::PolicyNoReferenceValues);
    let appraisal = site.judge(&evidence(&site.answer()), site.activating());
    assert!(appraisal.proven.is_some(), "a golden set can be captured from a denied node");
    let site = site_with(|text| text.replace("pool = \"linux\"", "pool = \"windows\""));
    let finding = only(&site, ReasonCode::PolicyNoReferenceValues);
    assert_eq!(finding.observed, "a golden set of another pool");
}

#[test]
fn a_pending_node_is_denied_with_everything_else_that_is_wrong() {
    let mut site = Site::new();
    site.node.standing = Standing::Pending;
    only(&site, ReasonCode::NodePending);
    site.golden = None;
    let codes: Vec<_> = site.deny(|_| ()).findings().map(|f| f.code).collect();
    assert_eq!(codes, [ReasonCode::NodePending, ReasonCode::PolicyNoReferenceValues]);
}

#[test]
fn every_pcr_that_differs_is_named() {
    let mut site = Site::new();
    let event = sha256(b"another boot loader");
    site.tpm.extend(HashAlg::Sha256, index(4), &event);
    site.tpm.extend(HashAlg::Sha256, index(7), &event);
    let denial = site.deny(|_| ());
    let subjects: Vec<_> = denial.findings().map(|f| (f.code, f.subject.as_str())).collect();
    let code = ReasonCode::PolicyPcrNotAllowed;
    assert_eq!(subjects, [(code, "PCR 4 (sha256)"), (code, "PCR 7 (sha256)")]);
    let first = denial.findings().next().expect("a finding");
    assert_eq!(first.observed, site.tpm.pcrs[&(HashAlg::Sha256, index(4))].to_string());
    assert!(first.expected.starts_with("sha256:") && first.expected != first.observed);
}

#[test]
fn one_of_several_accepted_values_is_enough() {
    let other = "11".repeat(32);
    let site = site_with(|text| {
        text.replacen("accept = [{", &format!("accept = [{{ value = \"{other}\" }}, {{"), 1)
    });
    site.enrol();
    let mut site = site;
    site.tpm.extend(HashAlg::Sha256, index(0), &sha256(b"update"));
    let finding = only(&site, ReasonCode::PolicyPcrNotAllowed);
    assert!(finding.expected.contains(" or "), "{finding:?}");
}

#[test]
fn a_firmware_pcr_at_its_reset_value_is_refused_whatever_the_set_says() {
    for value in [Digest::zero(HashAlg::Sha256), Digest::ones(HashAlg::Sha256)] {
        let mut site = Site::new();
        site.tpm.pcrs.insert((HashAlg::Sha256, index(4)), value);
        let finding = only(&site, ReasonCode::PcrAtResetValue);
        assert_eq!(finding.subject, "PCR 4 (sha256)");
    }
    // 11 is not firmware's: systemd may leave it alone, and the set says what is accepted.
    let mut site = Site::new();
    site.tpm.pcrs.insert((HashAlg::Sha256, index(11)), Digest::zero(HashAlg::Sha256));
    only(&site, ReasonCode::PolicyPcrNotAllowed);
    site.golden = Some(golden(&site.golden_text(&[(HashAlg::Sha256, set(&PCRS))])));
    site.enrol();
}

#[test]
fn a_pcr_of_the_set_that_was_not_asked_for_is_a_finding() {
    let both = [(HashAlg::Sha256, set(&[0])), (HashAlg::Sha384, set(&[0]))];
    let mut site = Site::new();
    site.golden = Some(golden(&site.golden_text(&both)));
    let finding = only(&site, ReasonCode::PcrSelectionIncomplete);
    assert_eq!(finding.subject, "PCR 0 (sha384)");
}

#[test]
fn tpm_rules_read_what_the_manufacturer_signed() {
    // An allow-listed EK has no certificate, so no manufacturer.
    let with = |rules: &'static str| site_with(|text| format!("{text}\n[tpm]\n{rules}"));
    let finding = only(
        &with("manufacturers = [\"ID:49465800\", \"id:414d4400\"]"),
        ReasonCode::PolicyTpmManufacturerNotAllowed,
    );
    assert_eq!(finding.expected, "id:414d4400 or id:49465800");
    assert_eq!(finding.observed, "not certified");
    with("firmware_floor = { \"*\" = \"0001000200030004\" }").enrol();
    let finding = only(
        &with("firmware_floor = { \"*\" = \"0001000200030005\" }"),
        ReasonCode::PolicyTpmFirmwareBelowFloor,
    );
    assert_eq!(finding.observed, "0001000200030004");
    // Nobody certified who made this TPM: the strictest floor holds.
    let one = "firmware_floor = { \"id:49465800\" = \"0001000200030005\" }";
    let finding = only(&with(one), ReasonCode::PolicyTpmFirmwareBelowFloor);
    assert_eq!(finding.expected, "at least 0001000200030005");
    // A floor for one manufacturer says nothing about the TPM of another.
    assert!(matches!(judged_as_made_by(&with(one), "id:414d4400"), Verdict::Admit(_)));
    let denial = judged_as_made_by(&with(one), "id:49465800");
    assert!(
        matches!(&denial, Verdict::Deny(denial) if denial.code() == ReasonCode::PolicyTpmFirmwareBelowFloor)
    );
    let mut site = with("require_safe_clock = true");
    site.enrol();
    site.tpm.safe = false;
    only(&site, ReasonCode::PolicyClockNotSafe);
}

/// A renewal's verdict on the TPM of a boot whose EK certificate named this manufacturer.
fn judged_as_made_by(site: &Site, manufacturer: &str) -> Verdict {
    let mut document = site
        .judge(&evidence(&site.answer()), site.activating())
        .proven
        .expect("an honest worker")
        .boot
        .document();
    document.ek.manufacturer = Some(manufacturer.to_owned());
    let boot = Boot::assert_from_store(document).expect("a usable record");
    let answer = site.renewal(&boot);
    site.judge(&evidence(&answer), Signer::Known(boot)).verdict
}

/// A site of this golden text where the worker then measures these too.
fn measured(text: impl FnOnce(String) -> String, tools: &[ToolMeasurement]) -> Site {
    let mut site = site_with(text);
    for tool in tools {
        site.tpm.measure(tool);
    }
    site
}

#[test]
fn a_tool_with_another_digest_is_refused() {
    let other = tool("ld", &[("/usr/bin/ld", b"linker with a gift")]);
    let site = measured(|text| text, std::slice::from_ref(&other));
    let finding = only(&site, ReasonCode::PolicyToolNotAllowed);
    assert_eq!(finding.subject, "tool ld");
    assert_eq!(finding.expected, ld().digest().to_string());
    assert_eq!(finding.observed, other.digest().to_string());
    // The latest state decides: measured again as it was, it passes.
    measured(|text| text, &[other, ld()]).enrol();
}

#[test]
fn a_tool_that_is_not_there_is_missing_unless_it_is_optional() {
    let gone = ToolMeasurement::absent("ld").expect("a name");
    let site = measured(|text| text, std::slice::from_ref(&gone));
    let finding = only(&site, ReasonCode::PolicyToolMissing);
    assert_eq!(finding.observed, "absent");
    let optional = |text: String| text.replace("name = \"ld\"", "name = \"ld\"\nrequired = false");
    measured(optional, &[gone]).enrol();
    let site = site_with(|text| text.replace("name = \"ld\"", "name = \"lld\""));
    let finding = only(&site, ReasonCode::PolicyToolMissing);
    assert_eq!(
        (finding.subject.as_str(), finding.observed.as_str()),
        ("tool lld", "not in the worker's tool list")
    );
    site_with(|text| text.replace("name = \"ld\"", "name = \"lld\"\nrequired = false")).enrol();
    // Optional, but if it is there it is judged.
    let other = tool("ld", &[("/usr/bin/ld", b"linker with a gift")]);
    only(&measured(optional, &[other]), ReasonCode::PolicyToolNotAllowed);
}

#[test]
fn a_closed_set_refuses_tools_that_it_does_not_name() {
    let extra = tool("nasm", &[("/usr/bin/nasm", b"assembler")]);
    let open = |text: String| text;
    let closed = |text: String| format!("{text}\n[tools]\nclosed = true\n");
    measured(open, std::slice::from_ref(&extra)).enrol();
    let site = measured(closed, std::slice::from_ref(&extra));
    let finding = only(&site, ReasonCode::PolicyToolUnexpected);
    assert_eq!(finding.subject, "tool nasm");
    assert_eq!(finding.observed, extra.digest().to_string());
    // Gone again.
    measured(closed, &[extra, ToolMeasurement::absent("nasm").expect("a name")]).enrol();
}

#[test]
fn a_denied_digest_denies_wherever_it_stood_in_the_boot() {
    let bad = tool("ld", &[("/usr/bin/ld", b"linker with a gift")]);
    let deny = |text: String| format!("{text}\n[tools]\ndeny = [\"{}\"]\n", bad.digest());
    site_with(deny).enrol();
    let mut site = measured(deny, &[bad.clone(), ld()]);
    let finding = only(&site, ReasonCode::PolicyToolDenied);
    assert_eq!(finding.observed, bad.digest().to_string());
    // A renewal, whose evidence does not hold that event any more, knows it still.
    let denied_set = site.golden.take();
    let boot = {
        let appraisal = site.judge(&evidence(&site.answer()), site.activating());
        appraisal.proven.expect("proofs").boot
    };
    site.golden = denied_set;
    assert_code(&site.deny_renewal(&boot, |_| ()), ReasonCode::PolicyToolDenied);
    // A new boot forgets.
    site.tpm.reset();
    for tool in [cc(), ld()] {
        site.tpm.measure(&tool);
    }
    site.enrol();
}

/// Accepted states of cc with their files: 12 and 13.
fn two_compilers(text: String) -> String {
    let files = |tool: &ToolMeasurement| {
        let files: Vec<String> = tool
            .entries()
            .iter()
            .map(|entry| {
                let path = String::from_utf8(entry.path.clone()).expect("text");
                let kind = appraisal::policy::decide::entry_text(&entry.kind);
                format!("\"{path}\" = \"{kind}\"")
            })
            .collect();
        format!("{{ digest = \"{}\", files = {{ {} }} }}", tool.digest(), files.join(", "))
    };
    let twelve = cc();
    let plain = format!("accept = [{{ digest = \"{}\" }}]", twelve.digest());
    text.replace(&plain, &format!("accept = [{}, {}]", files(&twelve), files(&thirteen())))
}

fn thirteen() -> ToolMeasurement {
    tool("cc", &[("/usr/bin/cc", b"driver 13"), ("/usr/bin/cc1", b"compiler proper 13")])
}

#[test]
fn the_finding_names_the_file_that_differs_from_the_nearest_accepted_state() {
    let refused = |files: &[(&str, &[u8])]| {
        let site = measured(two_compilers, &[tool("cc", files)]);
        only(&site, ReasonCode::PolicyToolNotAllowed)
    };
    measured(two_compilers, &[thirteen()]).enrol();
    // One file away from 12, two from 13.
    let finding = refused(&[("/usr/bin/cc", b"driver"), ("/usr/bin/cc1", b"gift")]);
    assert_eq!(finding.subject, "tool cc: /usr/bin/cc1");
    assert_eq!(finding.expected, sha256(b"compiler proper").to_string());
    assert_eq!(finding.observed, sha256(b"gift").to_string());
    // One file away from 13.
    let finding = refused(&[("/usr/bin/cc", b"driver 13"), ("/usr/bin/cc1", b"gift")]);
    assert_eq!(finding.expected, sha256(b"compiler proper 13").to_string());
    // Missing and added files.
    let finding = refused(&[("/usr/bin/cc", b"driver 13")]);
    assert_eq!(finding.subject, "tool cc: /usr/bin/cc1");
    assert_eq!(finding.observed, "absent");
    let finding = refused(&[
        ("/usr/bin/cc", b"driver"),
        ("/usr/bin/cc1", b"compiler proper"),
        ("/usr/lib/plugin.so", b"gift"),
    ]);
    assert_eq!(finding.subject, "tool cc: /usr/lib/plugin.so");
    assert_eq!(finding.expected, "absent");
    let finding = refused(&[("/usr/bin/cc", b"x"), ("/usr/bin/cc1", b"y")]);
    assert!(finding.observed.ends_with("(and 1 more files differ)"), "{finding:?}");
}

/// A renewal whose evidence does not hold the measurement knows the digest, not the file.
#[test]
fn without_the_measurement_only_the_digest_is_named() {
    let other = tool("cc", &[("/usr/bin/cc", b"driver"), ("/usr/bin/cc1", b"gift")]);
    let site = measured(two_compilers, std::slice::from_ref(&other));
    let appraisal = site.judge(&evidence(&site.answer()), site.activating());
    let boot = appraisal.proven.expect("proofs").boot;
    let denial = site.deny_renewal(&boot, |_| ());
    assert_code(&denial, ReasonCode::PolicyToolNotAllowed);
    let finding = denial.findings().next().expect("a finding");
    assert_eq!(finding.subject, "tool cc");
    assert_eq!(finding.observed, other.digest().to_string());
    // Read from the start, as the service asks after a denial, the file is named again.
    let restarted = boot.with_tool_log_restarted();
    let answer = site.renewal(&restarted);
    let denial = denied(site.judge(&evidence(&answer), Signer::Known(restarted)));
    assert_eq!(denial.findings().next().expect("one").subject, "tool cc: /usr/bin/cc1");
}

#[test]
fn an_admission_says_what_it_permits() {
    let site = Site::new();
    let appraisal = site.judge(&evidence(&site.answer()), site.activating());
    let Verdict::Admit(admission) = appraisal.verdict else { panic!("denied") };
    let grant = admission.redeem();
    assert_eq!((grant.node.as_str(), grant.pool.as_str()), ("w1", POOL));
    assert_eq!(grant.node_key, site.tpm.node_key.public());
    assert_eq!(grant.policy_version, "base@1");
    assert_eq!(grant.case_digest, sha256(b"case"));
    assert_eq!(grant.appraised_unix_s, NOW);
    assert_eq!(grant.counters.reset_count, site.tpm.reset_count);
    assert_eq!(grant.reference_digest, *site.golden.as_ref().expect("a golden set").digest());
}

#[test]
fn findings_are_sorted_and_said_once() {
    let finding = |code, subject: &str| Finding::new(code, subject, "", "");
    let (a, b) = (ReasonCode::PcrDigestMismatch, ReasonCode::PolicyToolMissing);
    let denial =
        Denial::all(vec![finding(b, "x"), finding(a, "y"), finding(b, "x"), finding(a, "x")])
            .expect("findings");
    assert_eq!(denial.code(), a);
    let found: Vec<_> = denial.findings().map(|f| (f.code, f.subject.as_str())).collect();
    assert_eq!(found, [(a, "x"), (a, "y"), (b, "x")]);
    assert_eq!(Denial::all(Vec::new()), None);
}

const SOUND: &str = r#"schema = "assay.golden/v1"
name = "base"
pool = "linux"
version = 1
[[pcr]]
bank = "sha256"
index = 4
accept = [{ value = "1111111111111111111111111111111111111111111111111111111111111111" }]
"#;
const DIGEST: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn problems(text: &str) -> Vec<GoldenProblem> {
    ReferenceValues::parse(text, tool_pcr(), &Manifests::new()).err().unwrap_or_default()
}

#[test]
fn every_problem_of_a_golden_set_is_named_where_it_is() {
    assert_eq!(problems(SOUND), []);
    let edit = |from: &str, to: &str| {
        assert!(SOUND.contains(from), "{from}");
        SOUND.replace(from, to)
    };
    let add = |more: &str| format!("{SOUND}{more}");
    let value = "1111111111111111111111111111111111111111111111111111111111111111";
    let long = "x".repeat(64);
    let pcr = |index: u8| edit("index = 4", &format!("index = {index}"));
    let tool = |rest: &str| add(&format!("[[tool]]\nname = \"cc\"\naccept = [{rest}]\n"));
    let accepted = format!("{{ digest = \"{DIGEST}\" }}");
    let sha384 = format!("{{ digest = \"sha384:{}\" }}", "22".repeat(48));
    let table: Vec<(String, &str, &str)> = vec![
        (edit("golden/v1", "golden/v9"), "schema", "expected \"assay.golden/v1\""),
        (edit("\"base\"", "\"Base\""), "name", "lower-case"),
        (edit("\"base\"", "\"\""), "name", "lower-case"),
        (edit("\"base\"", "\".base\""), "name", "lower-case"),
        (edit("\"base\"", &format!("\"{long}\"")), "name", "at most 63"),
        (edit("\"linux\"", "\"a b\""), "pool", "lower-case"),
        (edit("version = 1", "version = 0"), "version", "the first version is 1"),
        (edit("version = 1", "version = -1"), "line 4, column 11", "u64"),
        (SOUND.split("[[pcr]]").next().expect("a head").to_owned(), "pcr", "at least one PCR"),
        (pcr(24), "pcr[0].index", "above 23"),
        (pcr(10), "pcr[0].index", "IMA"),
        (pcr(16), "pcr[0].index", "reset"),
        (pcr(23), "pcr[0].index", "reset"),
        (pcr(14), "pcr[0].index", "tool log"),
        (edit("sha256", "sha1"), "line 6, column 8", "sha1"),
        (edit(value, "zz"), "pcr[0].accept[0].value", "not hexadecimal"),
        (edit(value, "1111"), "pcr[0].accept[0].value", "32 bytes"),
        (edit(value, &"00".repeat(32)), "pcr[0].accept[0].value", "reset value"),
        (edit(value, &"ff".repeat(32)), "pcr[0].accept[0].value", "reset value"),
        (edit(&format!("{{ value = \"{value}\" }}"), ""), "pcr[0].accept", "empty"),
        (add(SOUND.split_once("version = 1\n").expect("two parts").1), "pcr[1]", "listed twice"),
        (add("[tpm]\nfirmware_floor = { x = \"7\" }\n"), "tpm.firmware_floor.\"x\"", "16 hex"),
        (
            add("[tpm]\nfirmware_floor = { x = \"000000000000000g\" }\n"),
            "tpm.firmware_floor.\"x\"",
            "16 hex",
        ),
        (
            add("[tpm]\nfirmware_floor = { x = \"+000000000000007\" }\n"),
            "tpm.firmware_floor.\"x\"",
            "16 hex",
        ),
        (tool(""), "tool[0].accept", "empty"),
        (tool(&sha384), "tool[0].accept[0].digest", "sha256"),
        (tool("{ digest = \"sha256:22\" }"), "line 11, column 22", "32 bytes"),
        (tool(&accepted).replace("name = \"cc\"", "name = \"\""), "tool[0].name", "empty"),
        (
            format!("{}[tools]\ndeny = [\"{DIGEST}\"]\n", tool(&accepted)),
            "tool[0].accept[0].digest",
            "deny list",
        ),
        (
            format!("{}[[tool]]\nname = \"cc\"\naccept = [{accepted}]\n", tool(&accepted)),
            "tool[1]",
            "listed twice",
        ),
        (add("surprise = 1\n"), "line 9, column 1", "unknown field"),
        (edit("pool = \"linux\"\n", ""), "pool", "a part judges nobody"),
        ("= broken".to_owned(), "line 1, column 1", ""),
    ];
    for (text, at, what) in table {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{at}: {found:?}");
        assert_eq!(found[0].at, at, "{found:?}");
        assert!(found[0].what.contains(what), "{what:?} in {found:?}");
    }
}

#[test]
fn every_problem_is_said_at_once() {
    let text = SOUND.replace("version = 1", "version = 0").replace("index = 4", "index = 10");
    let at: Vec<_> = problems(&text).into_iter().map(|problem| problem.at).collect();
    assert_eq!(at, ["version", "pcr[0].index"]);
}

#[test]
fn a_golden_set_has_a_size_limit() {
    let huge = format!("{SOUND}# {}\n", "x".repeat(33 * 1024 * 1024));
    let found = problems(&huge);
    assert_eq!(found[0].at, "document");
    assert!(found[0].to_string().contains("at most"), "{found:?}");
}

#[test]
fn what_a_golden_set_reads_is_what_is_quoted() {
    let site = Site::with(
        EkKind::P256,
        Algorithm::EcdsaP256,
        &[(HashAlg::Sha256, set(&[0, 4])), (HashAlg::Sha384, set(&[7]))],
    );
    let reference = site.golden.as_ref().expect("a golden set");
    let selected: Vec<_> = reference.selection().iter().collect();
    assert_eq!(
        selected,
        [(HashAlg::Sha256, index(0)), (HashAlg::Sha256, index(4)), (HashAlg::Sha384, index(7))]
    );
}
