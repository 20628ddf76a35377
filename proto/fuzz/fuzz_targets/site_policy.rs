//! Site policy: a document is refused with problems, or judges an input the same way each time, without a panic.
#![no_main]

use std::sync::LazyLock;

use appraisal::policy::site::{Outcome, PolicyInput, SitePolicy};
use libfuzzer_sys::fuzz_target;

static INPUT: LazyLock<PolicyInput> = LazyLock::new(|| {
    let json = serde_json::from_str(include_str!("../fixtures/policy_input.json")).expect("JSON");
    PolicyInput::from_json(&json).expect("an input")
});

// A document as it is, and as the expression of one rule: few mutations of TOML reach the language.
fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    run(text);
    if !text.contains("'''") {
        run(&format!(
            "schema = \"assay.policy/v1\"\nname = \"f\"\nversion = 1\n\
             [[rule]]\nname = \"r\"\nmessage = \"m\"\nexpr = '''{text}'''\n"
        ));
    }
});

fn run(text: &str) {
    match SitePolicy::parse(text) {
        Err(problems) => assert!(!problems.is_empty(), "a refusal says why"),
        Ok(policy) => {
            let findings = policy.judge(&INPUT);
            assert_eq!(findings, policy.judge(&INPUT), "deterministic");
            let explained = policy.explain(&INPUT);
            let denied = explained.iter().filter(|rule| rule.outcome != Outcome::True).count();
            assert_eq!(denied, findings.len(), "explaining agrees with judging");
            assert!(findings.iter().all(|finding| finding.observed.len() < 2_048), "bounded");
        }
    }
}
