//! What rules of the site's policy read of a boot.

use std::sync::Arc;

use appraisal::policy::site::{PolicyInput, SitePolicy};
use proto::{
    digest::{HashAlg, PcrSelection},
    eventlog::{EventType, LogAlg},
    evidence::LogKind,
    reason::ReasonCode,
};
use serde_json::{Value, json};

use crate::{
    log_support::{Boot, Log},
    site::{Site, assert_code, golden, set},
    support::{QUOTED, admit, booted, deny_log, evidence_with, judge_by, plain},
};

/// A policy of one rule.
fn policy(expr: &str) -> SitePolicy {
    let text = format!(
        "schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\n\
         [[rule]]\nname = \"r\"\nmessage = \"m\"\nexpr = '{expr}'\n"
    );
    SitePolicy::parse(&text).expect("a policy")
}

/// What the rule says of a node: nothing if it is met.
fn verdict(site: &Site, proven: &appraisal::Proven, expr: &str) -> Option<(ReasonCode, String)> {
    let input = PolicyInput::of(&proven.claims, &site.node);
    policy(expr).judge(&input).into_iter().next().map(|finding| (finding.code, finding.observed))
}

fn input(boot: &Boot) -> Value {
    let log = boot.log();
    let mut site = booted(&log);
    judge_by(&mut site, "[boot]\nsecure_boot = true\n");
    let proven = admit(&site, &log);
    serde_json::to_value(PolicyInput::of(&proven.claims, &site.node)).expect("JSON")
}

#[test]
fn facts_of_the_log_are_fields() {
    let input = input(&plain());
    let boot = &input["boot"];
    assert_eq!(boot["secure_boot"], true);
    assert_eq!(boot["debug_mode"], false);
    assert_eq!(boot["dma_protection_off"], false);
    assert_eq!(boot["problems"], json!([]));
    for list in ["applications", "signers"] {
        let digests = boot[list].as_array().expect(list);
        assert!(
            !digests.is_empty()
                && digests.iter().all(|d| d.as_str().is_some_and(|d| d.starts_with("sha256:")))
        );
    }
    assert!(boot["sections"].get(".linux").is_some(), "{boot:#}");
    // The same document reads back: fields and types are the schema's.
    assert!(PolicyInput::from_json(&input).is_ok());
}

/// Without a log nothing of the boot is known, and a rule that reads it denies.
#[test]
fn a_boot_without_a_log_has_no_fields() {
    let site = booted(&plain().log());
    let evidence = evidence_with(&site, &[] as &[(LogKind, &[u8])]);
    let proven = site.judge(&evidence, site.activating()).proven.expect("proven");
    let input = PolicyInput::of(&proven.claims, &site.node);
    assert_eq!(policy("!boot.debug_mode").judge(&input)[0].observed, "boot is absent");
}

/// The fields are what the digests of one bank say: a PCR that only another bank's replay leads to has none.
#[test]
fn a_pcr_of_another_bank_has_no_facts() {
    let log = plain().log();
    let quoting = |in_sha384: &[u8]| {
        let mut site = booted(&log);
        judge_by(&mut site, "");
        let in_sha256: Vec<u8> =
            QUOTED.into_iter().filter(|pcr| !in_sha384.contains(pcr)).collect();
        site.issued.selection = PcrSelection::new([
            (HashAlg::Sha256, set(&in_sha256)),
            (HashAlg::Sha384, set(in_sha384)),
        ]);
        site.issued.required = site.issued.selection.clone();
        let proven = admit(&site, &log);
        (site, proven)
    };
    let (site, proven) = quoting(&[8]);
    let explained = proven.claims.document().boot.expect("claims of the boot").explained;
    assert!(explained.iter().any(|pcr| pcr.get() == 7), "{explained:?}");
    let (first, second, third) =
        ("!boot.debug_mode", "!boot.dma_protection_off", "size(boot.applications) == 2");
    for expr in [first, second, third] {
        assert_eq!(verdict(&site, &proven, expr), None, "{expr}");
    }
    let (site, proven) = quoting(&[4, 7]);
    let kept = proven.boot.boot_log().proven().expect("a log");
    assert!(kept.explained().contains(crate::site::index(7)), "in the other bank");
    let claims = proven.claims.document().boot.expect("claims of the boot");
    let explained: Vec<u8> = claims.explained.iter().map(|pcr| pcr.get()).collect();
    assert_eq!(explained, [0, 1, 2, 3, 5, 6, 8, 9, 11, 12]);
    assert_eq!((claims.debug_mode, claims.dma_protection_off), (None, None));
    for (expr, absent) in [
        (first, "boot.debug_mode is absent"),
        (second, "boot.dma_protection_off is absent"),
        (third, "boot.applications is absent"),
    ] {
        let expected = Some((ReasonCode::PolicyRuleError, absent.to_owned()));
        assert_eq!(verdict(&site, &proven, expr), expected, "{expr}");
    }
}

/// Events that are not extended cost nobody anything: any number of them may be written before the one that counts.
#[test]
fn harmless_oddities_do_not_hide_what_counts() {
    let banks = [LogAlg::Sha256, LogAlg::Sha384];
    let actions = [
        (7, "UEFI Debug Mode", "debug_mode"),
        (7, "DMA Protection Disabled", "dma_protection_off"),
    ];
    for (pcr, action, field) in actions {
        let mut log = Log::after(plain().log(), &banks);
        let not_zero: Vec<_> =
            banks.iter().map(|alg| (alg.tpm_id(), vec![1; alg.len_bytes()])).collect();
        for _ in 0..2_000 {
            log.raw(0, EventType::NO_ACTION, &not_zero, b"nothing");
        }
        log.action(pcr, action);
        let mut site = booted(&log.bytes);
        judge_by(&mut site, "");
        let proven = admit(&site, &log.bytes);
        let expr = format!("!boot.{field}");
        let expected = Some((ReasonCode::PolicyRuleFalse, format!("boot.{field} = true")));
        assert_eq!(verdict(&site, &proven, &expr), expected);
        let code = field.to_ascii_uppercase().replace("PROTECTION_OFF", "PROTECTION_DISABLED");
        assert_eq!(verdict(&site, &proven, &format!("\"{code}\" in boot.problems")), None);
        // It stands in the way of an admission, as it does without the noise.
        site.policies = vec![Arc::new(policy(&expr))];
        assert_code(&deny_log(&site, &log.bytes), ReasonCode::PolicyRuleFalse);
    }
}

/// Golden sets name digests of one bank. Another set that is only staged, and for which more is quoted, does not take
/// the facts into another bank.
#[test]
fn facts_are_in_the_bank_of_what_is_in_force() {
    let log = plain().log();
    for (bank, other) in [(HashAlg::Sha256, HashAlg::Sha384), (HashAlg::Sha384, HashAlg::Sha256)] {
        let mut site = booted(&log);
        let both = [(bank, set(&QUOTED)), (other, set(&QUOTED))];
        site.issued.selection = PcrSelection::new(both);
        site.issued.required = PcrSelection::new([(bank, set(&QUOTED))]);
        let of = |image: &[u8]| format!("{{ digest = \"{}\" }}", bank.hash(&[image]));
        let text = site.golden_text(&[(bank, set(&[0, 2]))]);
        let rules = format!("[boot]\napplications = [{}, {}]\n", of(b"shim"), of(b"kernel"));
        site.golden = Some(golden(&(text + &rules)));
        let proven = admit(&site, &log);
        let kept = proven.boot.boot_log().proven().expect("a log");
        assert_eq!(kept.facts.bank, LogAlg::from(bank));
    }
}
