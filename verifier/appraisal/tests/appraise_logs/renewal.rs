//! Renewals stand on what the boot's logs proved, as long as the PCRs stay where they lead.

use appraisal::{
    boot::{Boot as BootRecord, BootDocument, BootLog},
    context::Signer,
};
use proto::{evidence::LogKind, reason::ReasonCode};

use crate::{
    log_support::Boot,
    site::{admitted, denied, evidence, index},
    support::{
        admit, assert_finding, booted, codes, extend, judge_by, of, plain, renewal_with, suffix,
        value,
    },
};

fn rules() -> String {
    format!("[boot]\nsecure_boot = true\napplications = [{}, {}]\n", of(b"shim"), of(b"kernel"))
}

/// The record as the store gives it back.
fn through_the_store(boot: &BootRecord) -> BootRecord {
    let text = serde_json::to_string(&boot.document()).expect("JSON");
    let document: BootDocument = serde_json::from_str(&text).expect("the same document");
    assert_eq!(document, boot.document());
    BootRecord::assert_from_store(document).expect("its keys are good")
}

#[test]
fn a_renewal_stands_on_the_logs_of_its_boot() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules());
    let proven = admit(&site, &log);
    let stored = through_the_store(&proven.boot);
    assert_eq!(stored.boot_log(), proven.boot.boot_log());
    let renewed = admitted(renewal_with(&site, &stored, Vec::new()));
    assert_eq!(renewed.boot.boot_log(), proven.boot.boot_log());
    // What is sent all the same is not read: the boot's logs were.
    let other = suffix(LogKind::Uefi, 0, &Boot { secure_boot: 0, ..plain() }.log());
    let renewed = admitted(renewal_with(&site, &stored, vec![other]));
    assert_eq!(renewed.boot.boot_log(), proven.boot.boot_log());
}

#[test]
fn a_boot_without_a_log_reads_back_without_one() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, "");
    let absent = site.enrol().boot;
    assert_eq!(*through_the_store(&absent).boot_log(), BootLog::Absent);
    let unread = admit(&site, &log[..log.len() - 1]).boot;
    let code = ReasonCode::EventLogMalformed;
    assert_eq!(*through_the_store(&unread).boot_log(), BootLog::Unread(code));
}

#[test]
fn a_pcr_that_went_on_makes_the_log_stale() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules());
    let proven = admit(&site, &log);
    let before = value(&site, 11);
    extend(&mut site, 11, b"sysinit");
    let after = value(&site, 11);
    let denial = denied(renewal_with(&site, &proven.boot, Vec::new()));
    assert_finding(
        &denial,
        ReasonCode::EventLogStale,
        "event log, PCR 11 (sha256)",
        &before.to_string(),
        &after.to_string(),
    );
    // A PCR of a lower number is told first.
    extend(&mut site, 9, b"another initrd");
    let denial = denied(renewal_with(&site, &proven.boot, Vec::new()));
    assert_eq!(denial.findings().next().expect("one").subject, "event log, PCR 9 (sha256)");
}

/// The tool PCR and IMA's go on in every boot; their own logs account for them.
#[test]
fn pcrs_that_other_logs_continue_make_no_log_stale() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules());
    let proven = admit(&site, &log);
    site.tpm.measure(&crate::site::tool("nc", &[("/usr/bin/nc", b"netcat")]));
    extend(&mut site, 10, b"a file");
    admitted(renewal_with(&site, &proven.boot, Vec::new()));
}

#[test]
fn a_pcr_that_is_no_longer_asked_for_makes_the_log_stale() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules());
    let proven = admit(&site, &log);
    let selection = crate::site::set(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14]);
    site.issued.selection =
        proto::digest::PcrSelection::new([(proto::digest::HashAlg::Sha256, selection)]);
    site.issued.required = site.issued.selection.clone();
    let denial = denied(
        site.judge(&evidence(&site.renewal(&proven.boot)), Signer::Known(proven.boot.clone())),
    );
    assert_finding(
        &denial,
        ReasonCode::EventLogStale,
        "event log, PCR 11 (sha256)",
        &value(&site, 11).to_string(),
        "not quoted",
    );
}

/// Rules that came after the boot was proven: the record says which PCRs its log leads to.
#[test]
fn new_rules_are_judged_by_what_the_boot_proved() {
    let good = plain().log();
    let shown = Boot { initrd: b"another initrd".to_vec(), ..plain() }.log();
    let mut site = booted(&good);
    judge_by(&mut site, "");
    // Nothing reads the log yet: it may fail to lead to PCR 9 and 11.
    let proven = admit(&site, &shown);
    let rule = |pcr: u8| {
        let any = hex::encode(value(&site, 0).as_bytes());
        format!(
            "[[events]]\nbank = \"sha256\"\nindex = {pcr}\naccept = [{{ digest = \"{any}\" }}]\n"
        )
    };
    let (nine, seven) = (rule(9), rule(7));
    judge_by(&mut site, &nine);
    let denial = denied(renewal_with(&site, &proven.boot, Vec::new()));
    assert_finding(
        &denial,
        ReasonCode::PolicyBootLogMissing,
        "PCR 9 (sha256)",
        "a log that leads to the quoted value",
        "the log does not lead to this PCR's value",
    );
    judge_by(&mut site, &seven);
    let denial = denied(renewal_with(&site, &proven.boot, Vec::new()));
    assert!(codes(&denial).iter().all(|code| *code == ReasonCode::PolicyEventNotAllowed));
    let kept = proven.boot.boot_log().proven().expect("a log");
    assert_eq!(codes(&denial).len(), kept.of_pcr(index(7)).count());
}
