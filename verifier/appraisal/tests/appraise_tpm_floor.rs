//! Firmware floors by manufacturer, where nobody certified the manufacturer.

mod site;

use appraisal::verdict::Finding;
use proto::{digest::HashAlg, reason::ReasonCode};
use site::*;

/// The site's EK is allow-listed, so that no certificate names its manufacturer; its firmware is
/// 0001000200030004.
fn site_with(floors: &str) -> Site {
    let mut site = Site::new();
    let text = site.golden_text(&[(HashAlg::Sha256, set(&PCRS))]);
    site.golden = Some(golden(&format!("{text}\n[tpm]\nfirmware_floor = {{ {floors} }}")));
    site
}

fn below(floors: &str) -> Finding {
    let denial = site_with(floors).deny(|_| ());
    assert_code(&denial, ReasonCode::PolicyTpmFirmwareBelowFloor);
    denial.findings().next().expect("one finding").clone()
}

const HERE: &str = "0001000200030004";
const ABOVE: &str = "0001000200030005";

/// It could be any of them: without a floor for all others, the highest one counts, never none.
#[test]
fn the_highest_floor_binds_whoever_has_no_certified_manufacturer() {
    let finding = below(&format!("\"id:49465800\" = \"{ABOVE}\""));
    assert_eq!(finding.observed, HERE);
    assert!(finding.expected.contains(ABOVE), "{}", finding.expected);
    // A lower one for another does not help.
    below(&format!("\"id:414d4400\" = \"{HERE}\", \"id:49465800\" = \"{ABOVE}\""));
    site_with(&format!("\"id:414d4400\" = \"{HERE}\", \"id:49465800\" = \"{HERE}\"")).enrol();
}

/// Whom no certificate names is one of the others.
#[test]
fn the_floor_for_all_others_binds_it_where_there_is_one() {
    below(&format!("\"*\" = \"{ABOVE}\", \"id:49465800\" = \"{HERE}\""));
    site_with(&format!("\"*\" = \"{HERE}\", \"id:49465800\" = \"{ABOVE}\"")).enrol();
}
