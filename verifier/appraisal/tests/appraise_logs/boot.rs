//! `[boot]`: what must have booted.

use appraisal::boot::BootLog;
use proto::{eventlog::text::to_utf16, evidence::LogKind, reason::ReasonCode};

use crate::{
    log_support::{Boot, Log, certificate, signature_data},
    site::{Site, sha256},
    support::{admit, assert_finding, booted, codes, deny, deny_log, judge_by, of, plain},
};
use proto::eventlog::{EventType, LogAlg, guid::Guid};

/// Rules that [`plain`] meets, each of them read.
fn every_rule() -> String {
    let key = of(&certificate());
    let dbx = of(&0_usize.to_le_bytes());
    let options = of(&to_utf16("root=/dev/vda2 ro lockdown=integrity\0"));
    format!(
        "[boot]\nsecure_boot = true\napplications = [{}, {}]\nsigners = [{key}]\n\
         command_lines = [{{ text = \"root=/dev/vda2 ro lockdown=integrity\" }}, {options}, {}]\n\
         sections = [{{ name = \".linux\", accept = [{}] }}, {{ name = \".initrd\", accept = [{}] }}]\n\
         [boot.keys]\npk = [{key}]\nkek = [{key}]\ndb = [{key}]\ndbx = [{dbx}]\n",
        of(b"shim"),
        of(b"kernel"),
        of(b"root=/dev/vda2 ro lockdown=integrity"),
        of(b"kernel"),
        of(b"initrd"),
    )
}

fn site() -> Site {
    booted(&plain().log())
}

/// The one finding of a boot under a rule.
#[track_caller]
fn assert_denied(boot: &Boot, rules: &str, code: ReasonCode, words: [&str; 3]) {
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, rules);
    let [subject, expected, observed] = words;
    assert_finding(&deny_log(&site, &log), code, subject, expected, observed);
}

/// The number of the first event that has this type and this PCR.
fn event(log: &[u8], kind: EventType, pcr: u8, nth: usize) -> u32 {
    let log = proto::eventlog::EventLog::parse(log).expect("well-formed");
    let found = log.events().iter().filter(|event| {
        event.untrusted_type == kind && event.pcr.is_some_and(|known| known.get() == pcr)
    });
    found.map(|event| event.index).nth(nth).expect("such an event")
}

#[test]
fn a_boot_whose_log_meets_every_rule_is_admitted() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &every_rule());
    let proven = admit(&site, &log);
    let kept = proven.boot.boot_log().proven().expect("kept with the boot");
    assert_eq!(kept.log, sha256(&log));
    assert!(kept.problems.is_empty(), "{:?}", kept.problems);
    assert_eq!(proven.claims.boot_log(), proven.boot.boot_log());
    let claims = proven.claims.document().boot.expect("claims of the boot");
    assert_eq!((claims.secure_boot, claims.unread), (Some(true), None));
}

#[test]
fn without_rules_a_log_is_read_and_never_needed() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, "");
    assert!(admit(&site, &log).boot.boot_log().proven().is_some());
    assert_eq!(*site.enrol().boot.boot_log(), BootLog::Absent);
    // A log that leads elsewhere proves nothing of the PCRs that it does not lead to.
    let other = Boot { kernel: b"another kernel".to_vec(), ..plain() }.log();
    let proven = admit(&site, &other);
    let kept = proven.boot.boot_log().proven().expect("of the other PCRs");
    assert!(kept.explained().contains(crate::site::index(7)));
    for pcr in [4, 11] {
        assert!(!kept.explained().contains(crate::site::index(pcr)));
        assert_eq!(kept.of_pcr(crate::site::index(pcr)).count(), 0);
    }
    assert!(kept.facts.boot_applications.is_empty() && kept.facts.uki_sections.is_empty());
    let code = ReasonCode::EventLogMalformed;
    assert_eq!(*admit(&site, &log[..log.len() - 1]).boot.boot_log(), BootLog::Unread(code));
}

#[test]
fn a_log_that_rules_read_must_be_there() {
    let mut site = site();
    let code = ReasonCode::PolicyBootLogMissing;
    let log = plain().log();
    let wanted = "a log that leads to the quoted value";
    judge_by(&mut site, "[boot]\nsecure_boot = true\n");
    assert_finding(&deny(&site, &[]), code, "firmware event log", wanted, "no log was sent");
    // systemd's log alone is none.
    let alone = deny(&site, &[(LogKind::Systemd, b"")]);
    assert_finding(&alone, code, "firmware event log", wanted, "no log was sent");
    // Rules that read no PCR of their own do not refuse the evidence: policy does.
    judge_by(&mut site, "[boot]\ntolerate = [\"DEBUG_MODE\"]\n");
    let observed = "the log could not be used: EVENT_LOG_MALFORMED";
    let cut = deny_log(&site, &log[..log.len() - 1]);
    assert_finding(&cut, code, "firmware event log", wanted, observed);
}

#[test]
fn oddities_are_refused_unless_they_are_tolerated() {
    // PCR 5 does not say that the firmware was left, and goes on by something else.
    let boot = Boot { exit: false, ..plain() };
    let rules = "[boot]\nsecure_boot = true\n";
    let detail = {
        let log = boot.log();
        let mut site = booted(&log);
        judge_by(&mut site, "");
        let proven = admit(&site, &log);
        let kept = proven.boot.boot_log().proven().expect("a log");
        kept.problems[0].detail.clone()
    };
    let subject = "event log, PCR 5: EXIT_BOOT_SERVICES_MISSING";
    let words = [subject, "not in the log", detail.as_str()];
    assert_denied(&boot, rules, ReasonCode::PolicyBootProblem, words);
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, &format!("{rules}tolerate = [\"EXIT_BOOT_SERVICES_MISSING\"]\n"));
    admit(&site, &log);
    // Another name does not help.
    judge_by(&mut site, &format!("{rules}tolerate = [\"DEBUG_MODE\"]\n"));
    assert_eq!(codes(&deny_log(&site, &log)), [ReasonCode::PolicyBootProblem]);
}

#[test]
fn secure_boot_is_in_the_state_that_is_demanded() {
    let code = ReasonCode::PolicyBootSecureBoot;
    let off = Boot { secure_boot: 0, ..plain() };
    assert_denied(&off, "[boot]\nsecure_boot = true\n", code, ["Secure Boot", "on", "off"]);
    assert_denied(&plain(), "[boot]\nsecure_boot = false\n", code, ["Secure Boot", "off", "on"]);
    let log = off.log();
    let mut site = booted(&log);
    judge_by(&mut site, "[boot]\nsecure_boot = false\n");
    admit(&site, &log);
}

#[test]
fn each_boot_application_is_listed() {
    let code = ReasonCode::PolicyBootApplicationNotAllowed;
    let boot = Boot { kernel: b"another kernel".to_vec(), ..plain() };
    let at = event(&boot.log(), EventType::EFI_BOOT_SERVICES_APPLICATION, 4, 1);
    let subject = format!("event {at} (PCR 4): boot application");
    let rules = format!("[boot]\napplications = [{}]\n", of(b"shim"));
    let (expected, observed) = (sha256(b"shim"), sha256(b"another kernel"));
    let words = [subject.as_str(), &expected.to_string(), &observed.to_string()];
    assert_denied(&boot, &rules, code, words);
}

#[test]
fn a_boot_that_measured_no_application_meets_no_list_of_them() {
    let log = Log::firmware_alone();
    let mut site = booted(&log.bytes);
    let rules = format!(
        "[boot]\napplications = [{}]\ntolerate = [\"APPLICATION_CALL_MISSING\", \
         \"EXIT_BOOT_SERVICES_MISSING\", \"SECURE_BOOT_UNKNOWN\"]\n",
        of(b"shim")
    );
    judge_by(&mut site, &rules);
    assert_finding(
        &deny_log(&site, &log.bytes),
        ReasonCode::PolicyBootApplicationNotAllowed,
        "boot applications",
        &sha256(b"shim").to_string(),
        "none",
    );
}

#[test]
fn each_signer_is_listed() {
    let code = ReasonCode::PolicyBootSignerNotAllowed;
    let at = event(&plain().log(), EventType::EFI_VARIABLE_AUTHORITY, 7, 0);
    let subject = format!("event {at} (PCR 7): image authorised by db");
    let rules = format!("[boot]\nsigners = [{}]\n", of(b"another certificate"));
    let (expected, observed) = (sha256(b"another certificate"), sha256(&certificate()));
    let words = [subject.as_str(), &expected.to_string(), &observed.to_string()];
    assert_denied(&plain(), &rules, code, words);
}

/// A key of the machine's owner (MOK) counts like one of db; shim's state does not.
#[test]
fn a_key_of_the_machines_owner_authorises_too() {
    let mut log = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    log.authority(Guid::SHIM_LOCK, "Shim", &signature_data(b"a key of the owner's"));
    let mut site = booted(&log.bytes);
    judge_by(&mut site, &format!("[boot]\nsigners = [{}]\n", of(&certificate())));
    let denial = deny_log(&site, &log.bytes);
    assert_eq!(codes(&denial), [ReasonCode::PolicyBootSignerNotAllowed]);
    assert!(denial.findings().all(|finding| finding.subject.ends_with("authorised by Shim")));
}

#[test]
fn each_command_line_is_listed() {
    let code = ReasonCode::PolicyBootCommandLineNotAllowed;
    let boot = Boot { command_line: "init=/bin/sh".into(), ..plain() };
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, "[boot]\ncommand_lines = [{ text = \"root=/dev/vda2\" }]\n");
    let denial = deny_log(&site, &log);
    let found: Vec<_> = denial.findings().map(|finding| finding.observed.as_str()).collect();
    assert!(codes(&denial).iter().all(|found| *found == code), "{denial:#?}");
    assert!(found.contains(&"\"init=/bin/sh\""), "{found:?}");
    assert!(denial.findings().all(|finding| finding.expected == "\"root=/dev/vda2\""));
    // By its text, or by the digest of what was measured.
    let section = of(b"init=/bin/sh");
    let rules = format!("[boot]\ncommand_lines = [{{ text = \"init=/bin/sh\" }}, {section}]\n");
    judge_by(&mut site, &rules);
    admit(&site, &log);
}

#[test]
fn each_section_of_the_image_is_listed() {
    let code = ReasonCode::PolicyBootSectionNotAllowed;
    let boot = Boot { initrd: b"initrd with a gift".to_vec(), ..plain() };
    let at = event(&boot.log(), EventType::IPL, 11, 5);
    let subject = format!("event {at} (PCR 11): section .initrd");
    let rule = |name: &str| {
        format!("[boot]\nsections = [{{ name = \"{name}\", accept = [{}] }}]\n", of(b"initrd"))
    };
    let (expected, observed) = (sha256(b"initrd"), sha256(b"initrd with a gift"));
    let words = [subject.as_str(), &expected.to_string(), &observed.to_string()];
    assert_denied(&boot, &rule(".initrd"), code, words);
    let words = ["section .ucode", &expected.to_string(), "not in the log"];
    assert_denied(&plain(), &rule(".ucode"), code, words);
}

#[test]
fn each_key_that_secure_boot_trusts_is_listed() {
    let code = ReasonCode::PolicyBootKeyNotAllowed;
    let listed = of(b"another certificate");
    for (rule, name, nth) in [("pk", "PK", 1), ("kek", "KEK", 2), ("db", "db", 3)] {
        let log = plain().log();
        let at = event(&log, EventType::EFI_VARIABLE_DRIVER_CONFIG, 7, nth);
        let mut site = booted(&log);
        judge_by(&mut site, &format!("[boot.keys]\n{rule} = [{listed}]\n"));
        let denial = deny_log(&site, &log);
        assert_eq!(codes(&denial), [code], "{rule}: {denial:#?}");
        let finding = denial.findings().next().expect("one");
        assert_eq!(finding.subject, format!("event {at} (PCR 7): {name}"));
        assert_eq!(finding.expected, sha256(b"another certificate").to_string());
        assert!(finding.observed.starts_with(&sha256(&certificate()).to_string()), "{finding:?}");
    }
}

#[test]
fn each_entry_that_dbx_must_have_is_there() {
    let wanted = sha256(b"a loader with a hole");
    let rules = format!("[boot.keys]\ndbx = [{{ digest = \"{wanted}\", what = \"boothole\" }}]\n");
    let subject = format!("dbx: {wanted}");
    let words = [subject.as_str(), "in dbx: boothole", "not among the 2 entries of dbx"];
    assert_denied(&plain(), &rules, ReasonCode::PolicyBootKeyMissing, words);
}

/// Without the variables there is nothing to compare, and nothing is what it should be.
#[test]
fn lists_of_keys_that_no_log_proves_are_not_met() {
    let log = Log::firmware_alone();
    let mut site = booted(&log.bytes);
    let key = of(&certificate());
    let tolerate = "tolerate = [\"APPLICATION_CALL_MISSING\", \"EXIT_BOOT_SERVICES_MISSING\", \
                    \"SECURE_BOOT_UNKNOWN\"]\n";
    judge_by(
        &mut site,
        &format!("[boot]\nsigners = [{key}]\n{tolerate}[boot.keys]\ndb = [{key}]\ndbx = [{key}]\n"),
    );
    let denial = deny_log(&site, &log.bytes);
    let found: Vec<_> =
        denial.findings().map(|f| (f.code, f.subject.as_str(), f.observed.as_str())).collect();
    let mut expected = [
        (ReasonCode::PolicyBootKeyNotAllowed, "db", "not proven by the log"),
        (ReasonCode::PolicyBootKeyNotAllowed, "dbx", "not proven by the log"),
        (ReasonCode::PolicyBootSignerNotAllowed, "image authorisations", "none"),
    ];
    expected.sort();
    assert_eq!(found, expected);
}
