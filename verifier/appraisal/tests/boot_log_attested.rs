//! A firmware log against a quote: the values come from nowhere else.

mod log_support;
mod site;

use appraisal::{
    ak::BoundAk,
    boot_log::{AttestedBootLog, Later},
    pcr::AttestedPcrs,
    quote::SignedQuote,
};
use log_support::{Boot, pcrs, values_of};
use proto::{binding::QualifyingData, digest::HashAlg, eventlog::EventLog, reason::ReasonCode};
use site::{Site, evidence};
use soft_tpm::{Algorithm, EkKind};

const FIRMWARE: [u8; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11];

/// What a TPM quotes that was extended as `booted` says.
fn quoted(booted: &[u8]) -> AttestedPcrs {
    let banks = [(HashAlg::Sha256, pcrs(&FIRMWARE))];
    let mut site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &banks);
    for value in values_of(booted, HashAlg::Sha256, 3) {
        if FIRMWARE.contains(&value.index.get()) {
            site.tpm.pcrs.insert((HashAlg::Sha256, value.index), value.value);
        }
    }
    let evidence = evidence(&site.answer());
    let ak = BoundAk::assert_from_store(&site.tpm.ak_public, site.tpm.qualified_signer())
        .expect("an acceptable AK");
    let key = evidence.node_key.as_ref().expect("a node key").public.name();
    let answer = QualifyingData::for_quote(
        &proto::binding::Purpose::Node,
        &site.issued.challenge,
        &site.issued.verifier_id,
        &key,
        &site.tpm.head,
    );
    let quote = SignedQuote::verify(&ak, &evidence.quote)
        .and_then(|quote| quote.answering(&answer))
        .expect("a good quote");
    AttestedPcrs::verify(&ak, &quote, &site.issued.selection, &evidence.pcr_values)
        .expect("the quoted values")
}

#[test]
fn a_log_of_the_quoted_boot_is_attested() {
    let booted = Boot::default().log();
    let log = EventLog::parse(&booted).expect("well-formed");
    let later = Later { systemd: None, continued: pcrs(&[14]), ..Later::default() };
    let attested = AttestedBootLog::verify(&log, later, &quoted(&booted), pcrs(&FIRMWARE))
        .expect("the log of this boot");
    assert_eq!(attested.facts().secure_boot, Some(true));
    assert_eq!(attested.explained(), pcrs(&FIRMWARE));
}

#[test]
fn a_log_of_another_boot_is_not() {
    let booted = Boot { secure_boot: 0, ..Boot::default() }.log();
    let claimed = Boot::default().log();
    let log = EventLog::parse(&claimed).expect("well-formed");
    let denial = AttestedBootLog::verify(&log, Later::default(), &quoted(&booted), pcrs(&FIRMWARE))
        .expect_err("Secure Boot was off");
    assert_eq!(denial.code(), ReasonCode::EventLogReplayMismatch);
    let finding = denial.findings().next().expect("one");
    assert_eq!(finding.subject, "event log, PCR 7 (sha256)");
}
