//! Firmware in the tool PCR: shim extends it before the first tool.

use proto::{
    digest::{Digest, HashAlg},
    eventlog::{EventType, LogAlg},
    reason::ReasonCode,
    tool_log::{ToolLogReader, encode_event},
};

use crate::{
    log_support::{Boot, Log, values_of},
    site::{admitted, assert_code, sha256, tool, tool_pcr},
    support::{
        admit, assert_finding, booted, codes, deny, deny_log, extend, judge_by, plain, renewal_with,
    },
};

/// Banks of the TPM and of the log.
const BANKS: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha384];

/// What shim leaves in the tool PCR.
fn after_shim() -> String {
    Digest::zero(HashAlg::Sha256).extended(&sha256(b"mok")).to_string()
}

#[test]
fn a_start_that_is_listed_is_accepted_and_any_other_named() {
    let log = Boot::default().log();
    let mut site = booted(&log);
    judge_by(&mut site, &format!("[tools]\nstart = [\"{}\"]\n", after_shim()));
    let proven = admit(&site, &log);
    assert_eq!(proven.claims.document().tool_pcr_start[0].to_string(), after_shim());
    // It is part of the boot's record: a renewal needs no log, and goes on from there.
    site.tpm.measure(&tool("nc", &[("/usr/bin/nc", b"netcat")]));
    let renewed = admitted(renewal_with(&site, &proven.boot, Vec::new()));
    assert_eq!(renewed.boot.tool_log().events, 3);
    let other = sha256(b"another start");
    let subject = "PCR 14 (sha256) before the first tool";
    for (rules, expected) in [
        (String::new(), "its reset value".to_owned()),
        (format!("[tools]\nstart = [\"{other}\"]\n"), other.to_string()),
    ] {
        let mut site = booted(&log);
        judge_by(&mut site, &rules);
        let code = ReasonCode::PolicyToolPcrStart;
        assert_finding(&deny_log(&site, &log), code, subject, &expected, &after_shim());
    }
}

/// A denied boot's tool log is asked for again as a whole: from where firmware left the PCR.
#[test]
fn a_log_that_is_read_again_starts_where_firmware_left_the_pcr() {
    let log = Boot::default().log();
    let mut site = booted(&log);
    judge_by(&mut site, &format!("[tools]\nstart = [\"{}\"]\n", after_shim()));
    let proven = admit(&site, &log);
    let restarted = proven.boot.with_tool_log_restarted();
    let renewed = admitted(renewal_with(&site, &restarted, Vec::new()));
    assert_eq!(renewed.boot.tool_log().events, 2);
    assert_eq!(renewed.measurements.len(), 2);
}

#[test]
fn without_the_firmwares_log_its_extends_are_nobodys() {
    let mut site = booted(&Boot::default().log());
    judge_by(&mut site, &format!("[tools]\nstart = [\"{}\"]\n", after_shim()));
    assert_code(&deny(&site, &[]), ReasonCode::ToolLogReplayMismatch);
    // Nor does a log without them explain them.
    assert_code(&deny_log(&site, &plain().log()), ReasonCode::ToolLogReplayMismatch);
}

/// A forbidden tool is measured, and its event told as one of the firmware's.
#[test]
fn a_tools_event_passed_off_as_firmwares_is_a_start_that_nobody_listed() {
    let gift = tool("cc", &[("/usr/bin/cc", b"driver with a gift")]);
    let digests = digests_of(&encode_event(0, tool_pcr(), &BANKS, &gift));
    let forged = with_events(plain().log(), &digests);
    // The TPM has gift, cc and ld; the tool log has cc and ld.
    let mut site = booted(&forged);
    judge_by(&mut site, &format!("[tools]\ndeny = [\"{}\"]\n", gift.digest()));
    let digest = Digest::new(HashAlg::Sha256, &digests[0][0].1).expect("its length");
    assert_finding(
        &deny_log(&site, &forged),
        ReasonCode::PolicyToolPcrStart,
        "PCR 14 (sha256) before the first tool",
        "its reset value",
        &Digest::zero(HashAlg::Sha256).extended(&digest).to_string(),
    );
    // Told twice, or not for all that was extended, it does not replay.
    let twice = with_events(forged.clone(), &digests);
    assert_code(&deny_log(&site, &twice), ReasonCode::ToolLogReplayMismatch);
    extend(&mut site, 14, b"later");
    assert_code(&deny_log(&site, &forged), ReasonCode::ToolLogReplayMismatch);
}

/// The whole tool log may be told as firmware's: then no tool was measured.
#[test]
fn a_tool_log_told_as_firmwares_measures_no_tool() {
    let digests = digests_of(&booted(&plain().log()).tpm.log);
    let forged = with_events(plain().log(), &digests);
    let mut site = booted(&forged);
    for alg in BANKS {
        let values = values_of(&forged, alg, 3);
        let start = values.iter().find(|value| value.index == tool_pcr()).expect("the tool PCR");
        site.tpm.pcrs.insert((alg, tool_pcr()), start.value);
    }
    site.tpm.log.clear();
    site.tpm.events = 0;
    site.tpm.head = Digest::zero(HashAlg::Sha256);
    judge_by(&mut site, "");
    let missing = ReasonCode::PolicyToolMissing;
    let found = codes(&deny_log(&site, &forged));
    assert_eq!(found, [missing, missing, ReasonCode::PolicyToolPcrStart]);
}

/// The digests of each event of a tool log, as a firmware log writes them.
fn digests_of(log: &[u8]) -> Vec<Vec<(u16, Vec<u8>)>> {
    let events = ToolLogReader::new(log).map(|event| event.expect("canonical").digests);
    events
        .map(|digests| digests.iter().map(|d| (d.alg().tpm_id(), d.as_bytes().to_vec())).collect())
        .collect()
}

/// A firmware log with these events of the tool PCR after its own.
fn with_events(bytes: Vec<u8>, events: &[Vec<(u16, Vec<u8>)>]) -> Vec<u8> {
    let mut log = Log::after(bytes, &[LogAlg::Sha256, LogAlg::Sha384]);
    for digests in events {
        log.raw(14, EventType::IPL, digests, b"MokList\0");
    }
    log.bytes
}
