//! What rules of the site's policy read of a boot.

use appraisal::policy::site::{PolicyInput, SitePolicy};
use proto::evidence::LogKind;
use serde_json::{Value, json};

use crate::{
    log_support::Boot,
    support::{admit, booted, evidence_with, judge_by, plain},
};

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
    let policy = SitePolicy::parse(
        "schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\n\
         [[rule]]\nname = \"r\"\nmessage = \"m\"\nexpr = \"!boot.debug_mode\"\n",
    )
    .expect("a policy");
    assert_eq!(policy.judge(&input)[0].observed, "boot is absent");
}
