//! `[[events]]`, and the events that a denied value is told by.

use proto::{
    digest::HashAlg,
    eventlog::{EventLog, EventType},
    reason::ReasonCode,
};

use crate::{
    log_support::Boot,
    site::{Site, index, sha256},
    support::{admit, assert_finding, booted, codes, deny, deny_log, judge_by, plain, value},
};

/// Digests of a PCR's events, in their order, with their places in the log.
fn events_of(log: &[u8], pcr: u8) -> Vec<(u32, String)> {
    let log = EventLog::parse(log).expect("well-formed");
    log.events()
        .iter()
        .filter(|event| event.untrusted_type != EventType::NO_ACTION)
        .filter(|event| event.pcr == Some(index(pcr)))
        .map(|event| {
            let digest = event.digest_bytes(HashAlg::Sha256.into()).expect("a digest");
            (event.index, hex::encode(digest))
        })
        .collect()
}

/// `[[events]]` of one PCR that lists the events of this log.
fn rule(log: &[u8], pcr: u8) -> String {
    let accept: Vec<String> = events_of(log, pcr)
        .iter()
        .map(|(at, digest)| format!("{{ digest = \"{digest}\", what = \"event {at}\" }}"))
        .collect();
    format!("[[events]]\nbank = \"sha256\"\nindex = {pcr}\naccept = [{}]\n", accept.join(", "))
}

#[test]
fn events_that_are_listed_may_come_in_any_order() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rule(&log, 1));
    admit(&site, &log);
    // The boot entries change places.
    let reordered = swapped(&log, 1);
    let mut site = booted(&reordered);
    judge_by(&mut site, &rule(&log, 1));
    admit(&site, &reordered);
}

/// The log with the first two events of a PCR in each other's place.
fn swapped(log: &[u8], pcr: u8) -> Vec<u8> {
    let places: Vec<usize> =
        events_of(log, pcr).iter().map(|(at, _)| usize::try_from(*at).expect("small")).collect();
    let mut pieces = crate::hostile::pieces(log);
    pieces.swap(places[0], places[1]);
    pieces.concat()
}

#[test]
fn an_event_that_is_not_listed_is_named() {
    let good = plain().log();
    let boot = Boot { initrd: b"initrd with a gift".to_vec(), ..plain() };
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, &rule(&good, 9));
    let (at, _) = events_of(&log, 9)[1];
    assert_finding(
        &deny_log(&site, &log),
        ReasonCode::PolicyEventNotAllowed,
        &format!("event {at} (PCR 9): {}", words(&site, &log, at)),
        "one of the 2 events that the golden set lists",
        &sha256(b"initrd with a gift").to_string(),
    );
}

/// The words that the boot's record has for an event.
fn words(site: &Site, log: &[u8], at: u32) -> String {
    let evidence = crate::support::evidence_with(site, &[(proto::evidence::LogKind::Uefi, log)]);
    let appraisal = site.judge(&evidence, site.activating());
    let proven = appraisal.proven.expect("integrity holds");
    let kept = proven.boot.boot_log().proven().expect("a log").clone();
    let event = kept.events.iter().find(|event| event.index == at).expect("the event");
    event.untrusted_words.clone()
}

#[test]
fn an_event_that_is_required_is_there() {
    let log = plain().log();
    let mut site = booted(&log);
    let wanted = hex::encode(sha256(b"microcode").as_bytes());
    for (what, told) in [
        (", what = \"microcode\"", format!("sha256:{wanted} (microcode)")),
        ("", format!("sha256:{wanted}")),
    ] {
        let more = format!("accept = [{{ digest = \"{wanted}\", required = true{what} }}, ");
        judge_by(&mut site, &rule(&log, 9).replace("accept = [", &more));
        assert_finding(
            &deny_log(&site, &log),
            ReasonCode::PolicyEventMissing,
            "PCR 9 (sha256)",
            &told,
            "not in the PCR",
        );
    }
}

#[test]
fn events_need_the_log() {
    let log = plain().log();
    let mut site = booted(&log);
    judge_by(&mut site, &rule(&log, 9));
    assert_finding(
        &deny(&site, &[]),
        ReasonCode::PolicyBootLogMissing,
        "PCR 9 (sha256)",
        "a log that leads to the quoted value",
        "no log was sent",
    );
    // And a log that leads there: integrity, no matter of policy.
    let other = Boot { initrd: b"another initrd".to_vec(), ..plain() }.log();
    let denial = deny_log(&site, &other);
    assert_eq!(codes(&denial), [ReasonCode::EventLogReplayMismatch]);
    let finding = denial.findings().next().expect("one");
    assert_eq!(finding.subject, "event log, PCR 9 (sha256)");
    assert_eq!(finding.observed, value(&site, 9).to_string());
    assert!(finding.expected.ends_with(" after 2 events"), "{finding:?}");
}

/// A value by its events: `[[pcr]]` with what led to the accepted one.
fn by_value(good: &Site, log: &[u8], pcr: u8) -> String {
    let events: Vec<String> = events_of(log, pcr)
        .iter()
        .map(|(at, digest)| format!("{{ digest = \"{digest}\", what = \"recorded {at}\" }}"))
        .collect();
    format!(
        "[[pcr]]\nbank = \"sha256\"\nindex = {pcr}\naccept = [{{ value = \"{}\", events = [{}] }}]\n",
        hex::encode(value(good, pcr).as_bytes()),
        events.join(", ")
    )
}

#[test]
fn a_value_that_differs_is_told_by_its_first_event_that_does() {
    let good = plain().log();
    let rules = by_value(&booted(&good), &good, 4);
    let boot = Boot { kernel: b"another kernel".to_vec(), ..plain() };
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, &rules);
    let recorded = events_of(&good, 4);
    let observed = events_of(&log, 4);
    let at = (0..recorded.len()).find(|n| recorded[*n].1 != observed[*n].1).expect("differs");
    let (place, digest) = &observed[at];
    let (was, expected) = &recorded[at];
    assert_finding(
        &deny_log(&site, &log),
        ReasonCode::PolicyPcrNotAllowed,
        &format!("event {place} (PCR 4): {}", words(&site, &log, *place)),
        &format!("sha256:{expected} (recorded {was})"),
        &format!("sha256:{digest}"),
    );
    // Without a log the value alone is told.
    assert_finding(
        &deny(&site, &[]),
        ReasonCode::PolicyPcrNotAllowed,
        "PCR 4 (sha256)",
        &value(&booted(&good), 4).to_string(),
        &value(&site, 4).to_string(),
    );
    // As it is where the log leads to another value.
    assert_finding(
        &deny_log(&site, &good),
        ReasonCode::PolicyPcrNotAllowed,
        "PCR 4 (sha256)",
        &value(&booted(&good), 4).to_string(),
        &value(&site, 4).to_string(),
    );
}

#[test]
fn a_boot_with_fewer_or_more_events_is_told_by_what_is_missing_or_added() {
    let (long, short) = (plain().log(), Boot { exit: false, ..plain() }.log());
    let mut site = booted(&short);
    judge_by(&mut site, &by_value(&booted(&long), &long, 5));
    let recorded = events_of(&long, 5);
    let (at, digest) = &recorded[recorded.len() - 2];
    assert_finding(
        &deny_log(&site, &short),
        ReasonCode::PolicyPcrNotAllowed,
        &format!("PCR 5: an event is missing: recorded {at}"),
        &format!("sha256:{digest} (recorded {at})"),
        "no event",
    );
    let mut site = booted(&long);
    judge_by(&mut site, &by_value(&booted(&short), &short, 5));
    assert_finding(
        &deny_log(&site, &long),
        ReasonCode::PolicyPcrNotAllowed,
        &format!("event {at} (PCR 5): {}", words(&site, &long, *at)),
        "no further event",
        &format!("sha256:{digest}"),
    );
}
