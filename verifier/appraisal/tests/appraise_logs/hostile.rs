//! Logs that tell of another boot than the one that was quoted.

use proto::{
    digest::{HashAlg, PcrSelection},
    eventlog::{EventLog, EventType, LogAlg, guid::Guid, text::to_utf16},
    evidence::LogKind,
    reason::ReasonCode,
};

use crate::{
    log_support::{Boot, Log, certificate, signature_data, variable},
    site::{Site, admitted, assert_code, index, set, sha256},
    support::{
        admit, boot, booted, codes, deny, deny_log, evidence_with, extend, judge_by, of, plain,
    },
};

/// The bytes of each event of a log, the Spec ID event first.
pub fn pieces(log: &[u8]) -> Vec<Vec<u8>> {
    let mut at = 32 + u32_at(log, 28);
    let mut out = vec![log[..at].to_vec()];
    while at < log.len() {
        let start = at;
        let count = u32_at(log, at + 8);
        at += 12;
        for _ in 0..count {
            let alg = u16::from_le_bytes([log[at], log[at + 1]]);
            at += 2 + LogAlg::from_tpm(alg).expect("known").len_bytes();
        }
        at += 4 + u32_at(log, at);
        out.push(log[start..at].to_vec());
    }
    out
}

fn u32_at(log: &[u8], at: usize) -> usize {
    let bytes = log[at..at + 4].try_into().expect("four bytes");
    usize::try_from(u32::from_le_bytes(bytes)).expect("small")
}

/// The place of the nth event of a type.
fn place(log: &[u8], kind: EventType, nth: usize) -> usize {
    let log = EventLog::parse(log).expect("well-formed");
    let mut found = log.events().iter().filter(|event| event.untrusted_type == kind);
    usize::try_from(found.nth(nth).expect("such an event").index).expect("small")
}

/// Everything that is judged of a boot here.
fn rules() -> String {
    let key = of(&certificate());
    format!(
        "[boot]\nsecure_boot = true\napplications = [{}, {}]\nsigners = [{key}]\n\
         [boot.keys]\ndb = [{key}]\n",
        of(b"shim"),
        of(b"kernel")
    )
}

fn judged(log: &[u8]) -> Site {
    let mut site = booted(log);
    judge_by(&mut site, &rules());
    site
}

#[test]
fn the_log_of_an_honest_boot_does_not_explain_another() {
    let honest = plain().log();
    admit(&judged(&honest), &honest);
    let evil = [
        (Boot { secure_boot: 0, ..plain() }, "event log, PCR 7 (sha256)"),
        (Boot { kernel: b"another kernel".to_vec(), ..plain() }, "event log, PCR 4 (sha256)"),
    ];
    for (boot, subject) in evil {
        let site = judged(&boot.log());
        let denial = deny_log(&site, &honest);
        assert_code(&denial, ReasonCode::EventLogReplayMismatch);
        assert_eq!(denial.findings().next().expect("one").subject, subject);
    }
}

#[test]
fn data_that_its_digest_is_not_over_proves_nothing() {
    let log = Boot { secure_boot: 0, ..plain() }.log();
    let site = judged(&log);
    let mut pieces = pieces(&log);
    let event = &mut pieces[place(&log, EventType::EFI_VARIABLE_DRIVER_CONFIG, 0)];
    // The variable's one byte: off becomes on, and the digests stay.
    *event.last_mut().expect("data") = 1;
    let denial = deny_log(&site, &pieces.concat());
    let found = codes(&denial);
    assert!(found.contains(&ReasonCode::PolicyBootSecureBoot), "{denial:#?}");
    assert!(found.contains(&ReasonCode::PolicyBootProblem), "{denial:#?}");
    let state = denial.findings().find(|f| f.code == ReasonCode::PolicyBootSecureBoot);
    assert_eq!(state.expect("one").observed, "not proven by the log");
}

#[test]
fn a_type_that_hides_an_application_does_not_hide_its_digest() {
    let boot = Boot { kernel: b"another kernel".to_vec(), ..plain() };
    let log = boot.log();
    let site = judged(&log);
    for kind in [EventType::EFI_ACTION, EventType::SEPARATOR, EventType::IPL, EventType(0x77)] {
        let mut pieces = pieces(&log);
        let event = &mut pieces[place(&log, EventType::EFI_BOOT_SERVICES_APPLICATION, 1)];
        event[4..8].copy_from_slice(&kind.0.to_le_bytes());
        let denial = deny_log(&site, &pieces.concat());
        let found = codes(&denial);
        assert!(
            found.contains(&ReasonCode::PolicyBootApplicationNotAllowed),
            "{kind}: {denial:#?}"
        );
    }
    // An event that is said not to be extended is missing from the replay.
    let mut pieces = pieces(&log);
    let event = &mut pieces[place(&log, EventType::EFI_BOOT_SERVICES_APPLICATION, 1)];
    event[4..8].copy_from_slice(&EventType::NO_ACTION.0.to_le_bytes());
    let denial = deny_log(&site, &pieces.concat());
    assert_code(&denial, ReasonCode::EventLogReplayMismatch);
}

/// Who authorised an image is under a digest; that an event says so is not.
#[test]
fn an_authorisation_is_not_hidden_behind_another_type_or_other_data() {
    let mut log = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    let measured = variable(Guid::SHIM_LOCK, "Shim", &signature_data(b"a key of the attacker's"));
    log.data(7, EventType::EFI_VARIABLE_AUTHORITY, &measured);
    let mut site = booted(&log.bytes);
    judge_by(&mut site, &format!("[boot]\nsigners = [{}]\n", of(&certificate())));
    let signer = ReasonCode::PolicyBootSignerNotAllowed;
    assert_code(&deny_log(&site, &log.bytes), signer);
    let whole = pieces(&log.bytes);
    let at = whole.len() - 1;
    let kinds = [EventType::EFI_VARIABLE_AUTHORITY, EventType::IPL, EventType(0x77)];
    for kind in kinds {
        let mut forged = whole.clone();
        forged[at][4..8].copy_from_slice(&kind.0.to_le_bytes());
        assert!(codes(&deny_log(&site, &forged.concat())).contains(&signer), "{kind}");
        *forged[at].last_mut().expect("data") ^= 1;
        let denial = deny_log(&site, &forged.concat());
        let finding = denial.findings().find(|finding| finding.code == signer).expect("refused");
        assert_eq!(
            finding.subject,
            format!("event {at} (PCR 7): its digest is not over the data in the log")
        );
        assert_eq!(finding.observed, sha256(&measured).to_string());
    }
}

#[test]
fn events_may_not_be_left_out_put_in_or_moved_between_pcrs() {
    let log = plain().log();
    let site = judged(&log);
    let whole = pieces(&log);
    let application = place(&log, EventType::EFI_BOOT_SERVICES_APPLICATION, 0);
    let mut dropped = whole.clone();
    dropped.remove(application);
    let mut twice = whole.clone();
    twice.insert(application, whole[application].clone());
    let mut moved = whole.clone();
    moved[application][..4].copy_from_slice(&5_u32.to_le_bytes());
    let mut exchanged = whole;
    exchanged.swap(application, place(&log, EventType::EFI_BOOT_SERVICES_APPLICATION, 1));
    for forged in [dropped, twice, moved, exchanged] {
        let denial = deny_log(&site, &forged.concat());
        assert_code(&denial, ReasonCode::EventLogReplayMismatch);
    }
}

/// Facts of a PCR that the log does not lead to are not there, whoever asks for them.
#[test]
fn facts_of_a_pcr_that_is_not_explained_are_never_believed() {
    // Where sections are judged, the log has to lead to their PCR.
    let honest = plain().log();
    let evil = Boot { initrd: b"initrd with a gift".to_vec(), ..plain() };
    let mut site = booted(&evil.log());
    let section = format!("sections = [{{ name = \".initrd\", accept = [{}] }}]", of(b"initrd"));
    judge_by(&mut site, &format!("[boot]\nsecure_boot = true\n{section}\n"));
    let denial = deny_log(&site, &honest);
    assert_code(&denial, ReasonCode::EventLogReplayMismatch);
    assert_eq!(denial.findings().next().expect("one").subject, "event log, PCR 11 (sha256)");
    let line = "command_lines = [{ text = \"root=/dev/vda2 ro lockdown=integrity\" }]";
    let evil = Boot { command_line: "init=/bin/sh".into(), ..plain() };
    let mut site = booted(&evil.log());
    judge_by(&mut site, &format!("[boot]\nsecure_boot = true\n{line}\n"));
    let denial = deny_log(&site, &honest);
    // Both PCRs of command lines have to be led to: a line in one hides none in the other.
    assert_code(&denial, ReasonCode::EventLogReplayMismatch);
    assert_eq!(denial.findings().next().expect("one").subject, "event log, PCR 11 (sha256)");
}

/// Options override the command line of an image; whoever shows the log cannot hide them behind the image's.
#[test]
fn options_are_not_hidden_behind_other_data_or_characters() {
    let command_line = ReasonCode::PolicyBootCommandLineNotAllowed;
    let honest = "root=/dev/vda2 ro lockdown=integrity";
    let rules =
        format!("[boot]\ncommand_lines = [{{ text = \"{honest}\" }}, {}]\n", of(honest.as_bytes()));
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules);
    admit(&site, &log);
    let mut evil = Log::after(log, &[LogAlg::Sha256, LogAlg::Sha384]);
    evil.data(12, EventType::IPL, &to_utf16("init=/bin/sh\0"));
    let mut site = booted(&evil.bytes);
    judge_by(&mut site, &rules);
    assert_code(&deny_log(&site, &evil.bytes), command_line);
    let mut forged = pieces(&evil.bytes);
    let at = forged.len() - 1;
    // A letter of the data.
    let letter = forged[at].len() - 4;
    forged[at][letter] ^= 1;
    let denial = deny_log(&site, &forged.concat());
    assert_code(&denial, command_line);
    let finding = denial.findings().next().expect("one");
    assert_eq!(finding.subject, format!("event {at} (PCR 12): no text that its digest is over"));
    assert_eq!(finding.observed, sha256(&to_utf16("init=/bin/sh\0")).to_string());
    // Nor behind a character that is no text's.
    let mut evil = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    evil.data(12, EventType::IPL, &to_utf16("init=/bin/sh\u{1}\0"));
    let mut site = booted(&evil.bytes);
    judge_by(&mut site, &rules);
    assert_code(&deny_log(&site, &evil.bytes), command_line);
    // What is no command line is listed by its digest.
    let mut credentials = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    credentials.measured(12, EventType::IPL, b"an archive", &to_utf16("Credentials initrd\0"));
    let mut site = booted(&credentials.bytes);
    judge_by(&mut site, &rules);
    assert_code(&deny_log(&site, &credentials.bytes), command_line);
    judge_by(&mut site, &rules.replace("}]", &format!("}}, {}]", of(b"an archive"))));
    admit(&site, &credentials.bytes);
}

/// A bank in which a PCR was not quoted vouches for nothing of it, though another PCR was quoted in that bank.
#[test]
fn digests_of_a_bank_that_is_not_quoted_for_their_pcr_are_never_believed() {
    let off = Boot { secure_boot: 0, ..plain() }.log();
    let on = plain().log();
    let mut site = booted(&off);
    site.issued.selection = PcrSelection::new([
        (HashAlg::Sha256, set(&[0, 2, 4, 14])),
        (HashAlg::Sha384, set(&[7, 14])),
    ]);
    site.issued.required = site.issued.selection.clone();
    // SHA-384 digests of what booted, SHA-256 digests and data of what should have.
    let (theirs, ours) = (pieces(&off), pieces(&on));
    let mut forged = theirs.clone();
    let at = place(&off, EventType::EFI_VARIABLE_DRIVER_CONFIG, 0);
    let data = ours[at].len() - 1;
    forged[at][data] = ours[at][data];
    let sha256_digest = 12 + 2..12 + 2 + 32;
    forged[at][sha256_digest.clone()].copy_from_slice(&ours[at][sha256_digest]);
    let forged = forged.concat();
    let values = |log: &[u8]| {
        let sha384 = crate::log_support::values_of(log, HashAlg::Sha384, 3);
        sha384.iter().find(|value| value.index == index(7)).expect("PCR 7").value
    };
    assert_eq!(values(&forged), values(&off), "what the quote has of PCR 7 is led to");
    let pcr_7 = "[[events]]\nbank = \"sha384\"\nindex = 7\naccept = [";
    let accept: Vec<String> = EventLog::parse(&off)
        .expect("well-formed")
        .events()
        .iter()
        .filter(|event| event.pcr == Some(index(7)))
        .map(|event| event.digest_bytes(HashAlg::Sha384.into()).expect("a digest"))
        .map(|digest| format!("{{ digest = \"{}\" }}", hex::encode(digest)))
        .collect();
    let rules = format!(
        "[boot]\nsecure_boot = true\napplications = [{}, {}]\ntolerate = [{}]\n{pcr_7}{}]\n",
        of(b"shim"),
        of(b"kernel"),
        "\"EXIT_BOOT_SERVICES_MISSING\", \"SECURE_BOOT_UNKNOWN\"",
        accept.join(", ")
    );
    judge_by(&mut site, &rules);
    let denial = deny_log(&site, &forged);
    // The data is told apart from what was extended in the bank that was quoted.
    assert_eq!(
        codes(&denial),
        [
            ReasonCode::PolicyBootLogMissing,
            ReasonCode::PolicyBootProblem,
            ReasonCode::PolicyBootSecureBoot
        ],
        "{denial:#?}"
    );
    let state = denial.findings().last().expect("two");
    assert_eq!(state.observed, "not proven by the log");
}

#[test]
fn a_separator_that_stands_twice_is_refused_where_its_pcr_is_read() {
    let mut log = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    log.separator(7);
    // A key of the attacker's, after what looks like the end of the firmware.
    log.config(Guid::SECURITY_DATABASE, "db", b"");
    let site = judged(&log.bytes);
    let denial = deny_log(&site, &log.bytes);
    assert_code(&denial, ReasonCode::EventLogSeparatorInvalid);
}

/// Also where another bank than that of the facts covers the PCR.
#[test]
fn a_separator_that_stands_twice_is_refused_in_whichever_bank_its_pcr_is_read() {
    let mut log = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    log.separator(6);
    let mut site = booted(&log.bytes);
    site.issued.selection = PcrSelection::new([
        (HashAlg::Sha256, set(&[0, 2, 4, 7, 14])),
        (HashAlg::Sha384, set(&[6, 14])),
    ]);
    site.issued.required = site.issued.selection.clone();
    let separator = hex::encode(HashAlg::Sha384.hash(&[&[0; 4]]).as_bytes());
    let events = format!(
        "[[events]]\nbank = \"sha384\"\nindex = 6\naccept = [{{ digest = \"{separator}\" }}]\n"
    );
    judge_by(&mut site, &format!("{}{events}", rules()));
    let denial = deny_log(&site, &log.bytes);
    assert_code(&denial, ReasonCode::EventLogSeparatorInvalid);
    let finding = denial.findings().next().expect("one");
    assert!(finding.subject.starts_with("event log, PCR 6, event "), "{finding:?}");
}

#[test]
fn each_boot_has_a_log_of_its_own() {
    let first = plain().log();
    let mut site = judged(&first);
    admit(&site, &first);
    site.tpm.reset();
    let second = Boot { kernel: b"another kernel".to_vec(), ..plain() }.log();
    boot(&mut site, &second);
    assert_code(&deny_log(&site, &first), ReasonCode::EventLogReplayMismatch);
    assert_code(&deny_log(&site, &second), ReasonCode::PolicyBootApplicationNotAllowed);
}

/// systemd's log with these digests in a PCR.
fn systemd_log(pcr: u8, digests: &[String]) -> Vec<u8> {
    let record = |digest: &String| {
        format!(
            "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\
             \"content_type\":\"systemd\",\"content\":{{\"eventType\":\"phase\",\"string\":\"ready\"}}}}\n"
        )
    };
    digests.iter().map(record).collect::<String>().into_bytes()
}

/// Root writes systemd's log: what firmware measured is not told there instead.
#[test]
fn systemd_s_log_takes_no_event_from_the_firmware_s() {
    let log = plain().log();
    let parsed = EventLog::parse(&log).expect("well-formed");
    // The last `count` events of a PCR, moved to the other log.
    let moved = |pcr: u8, count: usize| {
        let of_pcr = parsed.events().iter().filter(|event| event.pcr == Some(index(pcr)));
        let places: Vec<usize> =
            of_pcr.map(|event| usize::try_from(event.index).expect("small")).collect();
        let taken = &places[places.len() - count..];
        let digest = |at: &usize| {
            let digest = parsed.events()[*at].digest_bytes(HashAlg::Sha256.into());
            hex::encode(digest.expect("a digest"))
        };
        let digests: Vec<String> = taken.iter().map(digest).collect();
        let rest = pieces(&log).into_iter().enumerate().filter(|(at, _)| !taken.contains(at));
        (rest.flat_map(|(_, piece)| piece).collect::<Vec<u8>>(), systemd_log(pcr, &digests))
    };
    let mut site = booted(&log);
    let judged = |site: &Site, (firmware, systemd): (Vec<u8>, Vec<u8>)| {
        deny(site, &[(LogKind::Uefi, &firmware), (LogKind::Systemd, &systemd)])
    };
    // An application that the set does not list.
    judge_by(&mut site, &format!("[boot]\napplications = [{}]\n", of(b"shim")));
    assert_code(&judged(&site, moved(4, 1)), ReasonCode::EventLogReplayMismatch);
    // An authority that it does not list.
    judge_by(&mut site, &format!("[boot]\nsigners = [{}]\n", of(&certificate())));
    assert_code(&judged(&site, moved(7, 1)), ReasonCode::EventLogReplayMismatch);
    // In PCR 11 systemd does measure: what is no phase may be a section.
    let section = format!("{{ name = \".linux\", accept = [{}] }}", of(&plain().kernel));
    judge_by(&mut site, &format!("[boot]\nsections = [{section}]\n"));
    let denial = judged(&site, moved(11, 2));
    let finding = denial
        .findings()
        .find(|finding| finding.subject.ends_with("no section that is known"))
        .expect("refused");
    assert_eq!(finding.code, ReasonCode::PolicyBootSectionNotAllowed, "{denial:#?}");
}

/// systemd's log is read while systemd writes it: what is not whole yet does not count, and refuses nobody.
#[test]
fn an_unfinished_record_is_left_aside() {
    let log = plain().log();
    let mut site = booted(&log);
    extend(&mut site, 11, b"sysinit");
    judge_by(
        &mut site,
        &format!(
            "[boot]\nsections = [{{ name = \".linux\", accept = [{}] }}]\n",
            of(&plain().kernel)
        ),
    );
    let sysinit = hex::encode(sha256(b"sysinit").as_bytes());
    let whole = systemd_log(11, std::slice::from_ref(&sysinit));
    let next = systemd_log(11, &[hex::encode(sha256(b"ready").as_bytes())]);
    let growing = [&whole[..], &next[..next.len() / 2]].concat();
    for systemd in [&whole, &growing] {
        let evidence = evidence_with(&site, &[(LogKind::Uefi, &log), (LogKind::Systemd, systemd)]);
        admitted(site.judge(&evidence, site.activating()));
    }
}

/// A boot that was proven under rules that asked for less is not good for rules that ask for more.
#[test]
fn a_renewal_does_not_stand_on_what_was_never_proven() {
    // PCR 12 holds other options than the log says, and nothing asked for it when the boot was proven.
    let honest = plain().log();
    let mut log = Log::after(honest.clone(), &[LogAlg::Sha256, LogAlg::Sha384]);
    log.data(12, EventType::IPL, &to_utf16("init=/bin/sh\0"));
    let mut site = booted(&log.bytes);
    judge_by(&mut site, "[boot]\nsecure_boot = true\n");
    let proven = admit(&site, &honest);
    assert!(!proven.boot.boot_log().proven().expect("a log").explained().contains(index(12)));
    judge_by(
        &mut site,
        &format!("[boot]\ncommand_lines = [{}]\n", of(b"root=/dev/vda2 ro lockdown=integrity")),
    );
    let denial = site.deny_renewal(&proven.boot, |_| ());
    let missing = denial.findings().find(|found| found.code == ReasonCode::PolicyBootLogMissing);
    assert_eq!(missing.expect("refused").subject, "PCR 12 (sha256)", "{denial:#?}");
}

/// Nor is a log that no rule read when the boot was proven, and that a new boot under the same rules would be refused for.
#[test]
fn a_renewal_refuses_the_log_that_a_new_boot_is_refused_for() {
    let mut log = Log::after(plain().log(), &[LogAlg::Sha256, LogAlg::Sha384]);
    log.separator(6);
    let both = PcrSelection::new([(HashAlg::Sha256, set(&[0, 2, 4, 6, 7, 14]))]);
    // Facts come from SHA-256: PCR 6 is read in the other bank alone.
    let other = PcrSelection::new([
        (HashAlg::Sha256, set(&[0, 2, 4, 7, 14])),
        (HashAlg::Sha384, set(&[6, 14])),
    ]);
    for (selection, bank) in [(both, HashAlg::Sha256), (other, HashAlg::Sha384)] {
        let mut site = booted(&log.bytes);
        site.issued.selection = selection;
        site.issued.required = site.issued.selection.clone();
        judge_by(&mut site, "");
        let proven = admit(&site, &log.bytes);
        // Rules about events, none about the boot: these would tell of every oddity.
        let separator = hex::encode(bank.hash(&[&[0; 4]]).as_bytes());
        let accept = format!("accept = [{{ digest = \"{separator}\" }}]");
        judge_by(&mut site, &format!("[[events]]\nbank = \"{bank}\"\nindex = 6\n{accept}\n"));
        let afresh = deny_log(&site, &log.bytes);
        assert_code(&afresh, ReasonCode::EventLogSeparatorInvalid);
        let renewed = site.deny_renewal(&proven.boot, |_| ());
        let findings =
            |denial: &appraisal::verdict::Denial| denial.findings().cloned().collect::<Vec<_>>();
        assert_eq!(findings(&renewed), findings(&afresh), "{bank}");
    }
}
