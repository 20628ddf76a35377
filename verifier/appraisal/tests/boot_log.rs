//! Synthetic logs: each refusal and each oddity by its code, facts, systemd's events, differences.

mod log_support;

use appraisal::boot_log::{
    EventSource, ExplainedBootLog, Later, PHASES, Problem, ProblemClass, ProblemCode, Replay,
    SeparatorValue, Vouch, explain, read,
};
use log_support::{
    Boot, Log, all_pcrs, certificate, pcr, pcrs, signature_data, signature_list, values_of,
    variable,
};
use proto::{
    digest::{Digest, HashAlg, PcrSet},
    eventlog::{
        EventLog, EventType, LogAlg, LogDigest,
        guid::Guid,
        systemd::{self, SystemdRecord},
        text::to_utf16,
    },
    evidence::PcrValue,
    reason::ReasonCode,
};

const SHA256: LogAlg = LogAlg::Sha256;

fn good() -> Vec<u8> {
    Boot::default().log()
}

fn good_values() -> Vec<PcrValue> {
    values_of(&good(), HashAlg::Sha256, 3)
}

fn required() -> PcrSet {
    pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14])
}

/// The first code that a log is refused with, for values and required PCRs.
fn refusal(log: &[u8], values: &[PcrValue], required: PcrSet) -> Option<ReasonCode> {
    let log = EventLog::parse(log).expect("well-formed");
    explain(&log, Later::default(), values, required).err().map(|denial| denial.code())
}

/// The first code that a log is refused with, for the values that it leads to.
fn refusal_of(log: &[u8], locality: u8, required: PcrSet) -> Option<ReasonCode> {
    refusal(log, &values_of(log, HashAlg::Sha256, locality), required)
}

fn problems(log: &[u8]) -> Vec<Problem> {
    let log = EventLog::parse(log).expect("well-formed");
    let replay = Replay::of(&log, &[SHA256]).expect("a replay");
    read(&log, &replay, SHA256, all_pcrs()).problems
}

fn codes(log: &[u8]) -> Vec<ProblemCode> {
    problems(log).iter().map(|problem| problem.code).collect()
}

fn with_value(values: &[PcrValue], index: u8, value: Digest) -> Vec<PcrValue> {
    let mut out = values.to_vec();
    out[usize::from(index)].value = value;
    out
}

/// A log of two banks with all separators, so that only what a test adds is odd.
fn separated(add: impl FnOnce(&mut Log)) -> Vec<u8> {
    let mut log = Log::new(&[SHA256]);
    log.config(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    log.action(4, "Calling EFI Application from Boot Option");
    for pcr in 0..=7 {
        log.separator(pcr);
    }
    add(&mut log);
    log.action(5, "Exit Boot Services Invocation");
    log.action(5, "Exit Boot Services Returned with Success");
    log.bytes
}

#[test]
fn a_good_log_explains_every_pcr() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let mut values = good_values();
    values.extend(values_of(&bytes, HashAlg::Sha384, 3));
    let explained = explain(&log, Later::default(), &values, required()).expect("explained");
    assert_eq!(explained.explained(), all_pcrs());
    assert!(explained.problems().is_empty(), "{:?}", explained.problems());
}

#[test]
fn facts_of_a_good_log() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let explained = explain(&log, Later::default(), &good_values(), required()).expect("explained");
    let facts = explained.facts();
    assert_eq!(
        (facts.bank, facts.secure_boot, facts.setup_mode),
        (SHA256, Some(true), Some(false))
    );
    assert!(!facts.debug_mode && !facts.dma_protection_disabled);
    let source = facts.secure_boot_source.expect("a source");
    assert_eq!((source.pcr, source.vouch), (7, Vouch::Data));
    let digest = hex::encode(HashAlg::Sha256.hash(&[&certificate()]).as_bytes());
    for database in [&facts.pk, &facts.kek, &facts.db] {
        let entry = &database.as_ref().expect("proven").entries[0];
        assert_eq!(entry.digest, digest);
        assert!(entry.certificate.as_ref().is_some_and(|c| c.subject.contains("CN=")));
    }
    assert_eq!(facts.dbx.as_ref().expect("proven").entries.len(), 2);
    assert_eq!(facts.authorities.len(), 2);
    assert_eq!(
        (facts.authorities[0].digest.as_str(), facts.authorities[0].in_db),
        (digest.as_str(), Some(true))
    );
    assert_eq!(facts.sbat_level.as_deref(), Some("sbat,1,2024010900\nshim,4\n"));
    let applications: Vec<_> = facts.boot_applications.iter().map(|app| app.digest).collect();
    let hashes =
        [b"shim".as_slice(), b"kernel"].map(|image| SHA256.hash(&[image]).expect("computed"));
    assert_eq!(applications, hashes);
    let shim = &facts.boot_applications[0];
    assert_eq!(shim.untrusted_path.as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
    assert_eq!(shim.untrusted_authority, Some(facts.authorities[0].source.event));
    let sections: Vec<_> = facts.uki_sections.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(sections, [".linux", ".cmdline", ".initrd"]);
    assert_eq!(Some(facts.uki_sections[2].digest), SHA256.hash(&[b"initrd"]));
    let lines: Vec<_> = facts.command_lines.iter().map(|line| line.text.as_deref()).collect();
    assert_eq!(lines, [Some("root=/dev/vda2 ro lockdown=integrity"), None]);
    assert_eq!(facts.firmware[0].text.as_deref(), Some("Test 1.0"));
    assert_eq!(facts.boot_order, None);
    assert_eq!(facts.hints.boot_order, Some(vec![1, 0, 2]));
    assert_eq!(facts.boot_variables[1].description.as_deref(), Some("debian"));
    assert_eq!(facts.partition_tables[0].partitions[0].name, "root");
    assert_eq!(facts.separators.len(), 8);
    assert!(facts.separators.iter().all(|separator| separator.value == SeparatorValue::Zeros));
    assert_eq!(facts.exit_boot_services.calls.len(), 1);
    assert_eq!(facts.hints.loader_commands.len(), 2);
    assert_eq!(facts.hints.command_lines.len(), 2, "GRUB's and the EFI stub's");
    assert_eq!(facts.hints.initrds.len(), 1);
    assert_eq!(facts.hints.shim_variables[0].name, "MokList");
    assert_eq!(facts.hints.crtm_version.as_deref(), Some("Test 1.0"));
    assert_eq!(facts.hints.startup_locality, 3);
}

#[test]
fn facts_are_a_document_that_reads_back() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let explained = explain(&log, Later::default(), &good_values(), required()).expect("explained");
    let text = serde_json::to_string(explained.facts()).expect("JSON");
    let back = serde_json::from_str(&text).expect("the same document");
    assert_eq!(explained.facts(), &back);
    assert_eq!(serde_json::to_string(&back).expect("JSON"), text);
}

#[test]
fn facts_come_only_from_pcrs_that_are_explained() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let other = HashAlg::Sha256.hash(&[b"other"]);
    let values = with_value(&good_values(), 7, other);
    let explained =
        explain(&log, Later::default(), &values, pcrs(&[4])).expect("PCR 7 is not required");
    let facts = explained.facts();
    assert!(!explained.explained().contains(pcr(7)));
    assert_eq!((facts.secure_boot, facts.db.is_none(), facts.authorities.len()), (None, true, 0));
    assert_eq!(facts.boot_applications.len(), 2);
}

#[test]
fn a_value_that_the_log_does_not_lead_to_is_refused() {
    let other = HashAlg::Sha256.hash(&[b"other"]);
    for index in required().iter().map(|pcr| pcr.get()) {
        let values = with_value(&good_values(), index, other);
        let expected = Some(ReasonCode::EventLogReplayMismatch);
        assert_eq!(refusal(&good(), &values, required()), expected, "PCR {index}");
    }
}

#[test]
fn every_quoted_bank_must_be_led_to() {
    let bytes = good();
    let mut values = good_values();
    let mut sha384 = values_of(&bytes, HashAlg::Sha384, 3);
    sha384[4].value = HashAlg::Sha384.hash(&[b"other"]);
    values.extend(sha384);
    let expected = Some(ReasonCode::EventLogReplayMismatch);
    assert_eq!(refusal(&bytes, &values, required()), expected);
}

/// The order of the values decides nothing, and no bank is taken because it was named last.
#[test]
fn facts_are_in_the_bank_that_is_named_or_covers_most() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let both = || (good_values(), values_of(&bytes, HashAlg::Sha384, 3));
    let (sha256, sha384) = both();
    let bank = |values: &[PcrValue], facts_bank| {
        let later = Later { facts_bank, ..Later::default() };
        explain(&log, later, values, required()).expect("explained").facts().bank
    };
    let (ascending, descending) =
        ([sha256.clone(), sha384.clone()].concat(), [sha384.clone(), sha256.clone()].concat());
    for values in [&ascending, &descending] {
        assert_eq!(bank(values, None), SHA256, "of equal ones the lowest");
        assert_eq!(bank(values, Some(HashAlg::Sha384)), LogAlg::Sha384);
        assert_eq!(bank(values, Some(HashAlg::Sha256)), SHA256);
        assert_eq!(bank(values, Some(HashAlg::Sha512)), SHA256, "that was not quoted");
    }
    let most = [&sha256[..4], &sha384].concat();
    assert_eq!(bank(&most, None), LogAlg::Sha384);
    assert_eq!(bank(&most, Some(HashAlg::Sha256)), SHA256);
}

/// However many oddities stand before it, what is refused is.
#[test]
fn no_number_of_oddities_hides_what_is_refused() {
    let flood = |log: &mut Log| {
        for _ in 0..2_000 {
            log.raw(0, EventType::NO_ACTION, &[(SHA256.tpm_id(), vec![1; 32])], b"nothing");
        }
    };
    let mut missing = Log::new(&[SHA256]);
    flood(&mut missing);
    for pcr in 0..7 {
        missing.separator(pcr);
    }
    missing.action(7, "an action");
    let mut twice = Log::new(&[SHA256]);
    flood(&mut twice);
    for pcr in 0..8 {
        twice.separator(pcr);
    }
    twice.separator(7);
    for log in [missing, twice] {
        let refused = Some(ReasonCode::EventLogSeparatorInvalid);
        assert_eq!(refusal_of(&log.bytes, 0, pcrs(&[7])), refused);
        assert_eq!(refusal_of(&log.bytes, 0, pcrs(&[6])), None);
        let told = problems(&log.bytes);
        assert!(told.len() < 1_100, "{}", told.len());
    }
}

#[test]
fn a_quoted_pcr_without_events_is_not_explained() {
    let mut values = good_values();
    values[13].value = HashAlg::Sha256.hash(&[b"somebody"]);
    let expected = Some(ReasonCode::EventLogPcrUnaccounted);
    assert_eq!(refusal(&good(), &values, pcrs(&[13])), expected);
    // Nothing to extend is an explanation of a value at reset, but not for firmware.
    assert_eq!(refusal(&good(), &good_values(), pcrs(&[13])), None);
    let empty = Log::new(&[SHA256]).bytes;
    assert_eq!(refusal_of(&empty, 0, pcrs(&[4])), expected);
    // Required and not quoted.
    let values: Vec<_> = good_values().into_iter().filter(|value| value.index != pcr(4)).collect();
    assert_eq!(refusal(&good(), &values, pcrs(&[4])), expected);
}

#[test]
fn a_bank_that_the_log_lacks_is_refused() {
    let bytes = good();
    let mut values = good_values();
    values.push(PcrValue { index: pcr(0), value: Digest::zero(HashAlg::Sha512) });
    let expected = Some(ReasonCode::EventLogBankMissing);
    assert_eq!(refusal(&bytes, &values, required()), expected);
    assert_eq!(refusal(&bytes, &[], required()), expected);
    let old = {
        let mut log = Log::empty(&[]);
        log.tcg12(4, EventType::SEPARATOR, &[1; 20], &[0; 4]);
        log.bytes
    };
    assert_eq!(refusal(&old, &good_values(), required()), expected, "a SHA-1 log");
}

/// Some kernels log with the strongest bank only: SHA-1 goes dark, and only in the PCRs that they touch.
#[test]
fn an_event_without_a_digest_of_a_quoted_bank_is_refused_where_its_pcr_is_required() {
    let mut log = Log::new(&[SHA256, LogAlg::Sha384]);
    for pcr in 0..=7 {
        log.separator(pcr);
    }
    let digest = SHA256.hash(&[b"os"]).expect("computed").as_bytes().to_vec();
    log.raw(9, EventType::EVENT_TAG, &[(SHA256.tpm_id(), digest)], b"os");
    let parsed = EventLog::parse(&log.bytes).expect("well-formed");
    let replay = Replay::of(&parsed, &[SHA256, LogAlg::Sha384]).expect("a replay");
    assert_eq!(replay.missing(LogAlg::Sha384, pcr(9)), Some(9));
    assert_eq!(replay.value(LogAlg::Sha384, pcr(9)), None);
    assert!(replay.value(SHA256, pcr(9)).is_some());
    let values: Vec<PcrValue> = [pcr(7), pcr(9)]
        .map(|index| {
            let value = match replay.value(LogAlg::Sha384, index) {
                Some(value) => value.to_digest().expect("appraised"),
                None => Digest::zero(HashAlg::Sha384),
            };
            PcrValue { index, value }
        })
        .to_vec();
    let expected = Some(ReasonCode::EventLogDigestMissing);
    assert_eq!(refusal(&log.bytes, &values, pcrs(&[9])), expected);
    assert_eq!(refusal(&log.bytes, &values, pcrs(&[7])), None);
    let reading = read(&parsed, &replay, LogAlg::Sha384, all_pcrs());
    assert!(
        reading.problems.iter().any(|p| (p.code, p.event) == (ProblemCode::DigestMissing, Some(9)))
    );
}

#[test]
fn the_start_of_the_tpm_is_told_once_early_in_pcr_0_and_possible() {
    let start = |build: &dyn Fn(&mut Log)| {
        let mut log = Log::new(&[SHA256]);
        build(&mut log);
        log.bytes
    };
    for locality in [0, 3, 4] {
        let bytes = start(&|log| {
            log.startup(locality).separator(0);
        });
        assert_eq!(refusal_of(&bytes, locality, pcrs(&[0])), None);
        let wrong = if locality == 3 { 0 } else { 3 };
        let expected = Some(ReasonCode::EventLogReplayMismatch);
        assert_eq!(refusal_of(&bytes, wrong, pcrs(&[0])), expected);
    }
    for bytes in [
        start(&|log| {
            log.startup(1).separator(0);
        }),
        start(&|log| {
            log.startup(5).separator(0);
        }),
        start(&|log| {
            log.startup(3).startup(3).separator(0);
        }),
        start(&|log| {
            log.separator(0).startup(3);
        }),
        start(&|log| {
            log.information(1, b"StartupLocality\0\x03").separator(0);
        }),
        start(&|log| {
            log.information(u32::MAX, b"StartupLocality\0\x03").separator(0);
        }),
    ] {
        let expected = Some(ReasonCode::EventLogStartupInvalid);
        assert_eq!(refusal_of(&bytes, 3, pcrs(&[0])), expected);
    }
}

#[test]
fn a_hardware_root_of_trust_starts_pcr_0_at_4() {
    let mut log = Log::new(&[SHA256]);
    log.measured(0, EventType::EFI_HCRTM_EVENT, b"hcrtm", b"HCRTM").separator(0);
    assert_eq!(refusal_of(&log.bytes, 4, pcrs(&[0])), None);
    // Only as the first event: a later one is like any other.
    let mut log = Log::new(&[SHA256]);
    log.data(0, EventType::S_CRTM_VERSION, b"1").data(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
    log.separator(0);
    assert_eq!(refusal_of(&log.bytes, 0, pcrs(&[0])), None);
}

#[test]
fn separators_are_one_a_firmware_pcr_and_no_error() {
    for index in 0..=7 {
        let others = (0..=7).filter(|other| *other != index);
        let mut none = Log::new(&[SHA256]);
        let mut two = Log::new(&[SHA256]);
        let mut error = Log::new(&[SHA256]);
        let mut ones = Log::new(&[SHA256]);
        for other in others {
            for log in [&mut none, &mut two, &mut error, &mut ones] {
                log.separator(other);
            }
        }
        none.data(index, EventType::EFI_ACTION, b"something");
        two.separator(index).separator(index);
        error.measured(index, EventType::SEPARATOR, &[1, 0, 0, 0], b"error data");
        ones.data(index, EventType::SEPARATOR, &[0xff; 4]);
        let expected = Some(ReasonCode::EventLogSeparatorInvalid);
        for (log, code) in [
            (&none, ProblemCode::SeparatorMissing),
            (&two, ProblemCode::SeparatorRepeated),
            (&error, ProblemCode::SeparatorError),
        ] {
            assert_eq!(refusal_of(&log.bytes, 0, pcrs(&[index])), expected, "{code}");
            let other = if index == 0 { 1 } else { 0 };
            assert_eq!(refusal_of(&log.bytes, 0, pcrs(&[other])), None, "{code}");
            assert!(codes(&log.bytes).contains(&code), "{code}");
        }
        assert_eq!(refusal_of(&ones.bytes, 0, pcrs(&[index])), None);
    }
}

/// The label of a separator is worth nothing, in both directions.
#[test]
fn a_separator_is_known_by_its_digest() {
    let bytes = separated(|log| {
        log.measured(6, EventType::SEPARATOR, b"not a separator", &[0; 4]);
    });
    assert_eq!(codes(&bytes), [ProblemCode::TypeMislabelled]);
    let bytes = separated(|log| {
        log.measured(6, EventType::EFI_ACTION, &[0; 4], b"harmless");
    });
    assert_eq!(codes(&bytes), [ProblemCode::SeparatorRepeated, ProblemCode::TypeMislabelled]);
}

/// "Entry 1, then entry 0" has the bytes of an error, where firmware measures boot variables without their names.
#[test]
fn a_boot_order_is_no_separator() {
    let bytes = separated(|log| {
        let data = variable(Guid::GLOBAL_VARIABLE, "BootOrder", &[1, 0, 0, 0]);
        log.measured(1, EventType::EFI_VARIABLE_BOOT, &[1, 0, 0, 0], &data);
    });
    assert_eq!(codes(&bytes), []);
    assert_eq!(refusal_of(&bytes, 0, pcrs(&[1])), None);
}

fn secure_boot_of(build: impl Fn(&mut Log)) -> (Option<bool>, Vec<ProblemCode>) {
    let mut log = Log::new(&[SHA256]);
    build(&mut log);
    let bytes = log.bytes;
    let log = EventLog::parse(&bytes).expect("well-formed");
    let replay = Replay::of(&log, &[SHA256]).expect("a replay");
    let reading = read(&log, &replay, SHA256, pcrs(&[7]));
    (reading.facts.secure_boot, reading.problems.iter().map(|problem| problem.code).collect())
}

#[test]
fn the_state_of_secure_boot_is_proven_or_unknown() {
    use ProblemCode::{
        DataNotVouched, SecureBootUnknown, SecureBootVariableLate, SecureBootVariableMalformed,
        SecureBootVariableRepeated, SeparatorMissing,
    };
    let state = |log: &mut Log, value: &[u8]| {
        log.config(Guid::GLOBAL_VARIABLE, "SecureBoot", value);
    };
    for (value, on) in [(1, true), (0, false)] {
        let found = secure_boot_of(|log| {
            state(log, &[value]);
            log.separator(7);
        });
        assert_eq!(found, (Some(on), vec![]));
    }
    for wrong in [&[][..], &[2], &[1, 1], &[1, 0, 0, 0]] {
        let found = secure_boot_of(|log| {
            state(log, wrong);
            log.separator(7);
        });
        assert_eq!(found, (None, vec![SecureBootVariableMalformed, SecureBootUnknown]));
    }
    let late = secure_boot_of(|log| {
        log.separator(7);
        state(log, &[1]);
    });
    assert_eq!(late, (None, vec![SecureBootVariableLate, SecureBootUnknown]));
    let twice = secure_boot_of(|log| {
        state(log, &[0]);
        state(log, &[1]);
        log.separator(7);
    });
    assert_eq!(twice, (None, vec![SecureBootVariableRepeated, SecureBootUnknown]));
    let off_then_late = secure_boot_of(|log| {
        state(log, &[0]);
        log.separator(7);
        state(log, &[1]);
    });
    assert_eq!(off_then_late, (Some(false), vec![SecureBootVariableLate]));
    let never_separated = secure_boot_of(|log| state(log, &[1]));
    assert_eq!(never_separated, (Some(true), vec![SeparatorMissing]));
    let other_vendor = secure_boot_of(|log| {
        log.config(Guid::SHIM_LOCK, "SecureBoot", &[1]).separator(7);
    });
    assert_eq!(other_vendor, (None, vec![SecureBootUnknown]));
    // A first variable whose data was changed must not be hidden behind a second one.
    let hidden = secure_boot_of(|log| {
        let measured = variable(Guid::GLOBAL_VARIABLE, "SecureBoot", &[0]);
        let logged = variable(Guid::GLOBAL_VARIABLE, "SecureBooX", &[0]);
        log.measured(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &measured, &logged);
        state(log, &[1]);
        log.separator(7);
    });
    assert_eq!(hidden, (None, vec![DataNotVouched, SecureBootUnknown]));
    // A digest over the content alone does not say whose content it is.
    let unnamed = secure_boot_of(|log| {
        let data = variable(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
        log.measured(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &[1], &data).separator(7);
    });
    assert_eq!(unnamed, (None, vec![SecureBootUnknown]));
}

#[test]
fn secure_boot_lists_are_one_each_before_the_separator_and_well_formed() {
    use ProblemCode::{
        SecureBootVariableLate, SecureBootVariableMalformed, SecureBootVariableRepeated, SetupMode,
    };
    let lists = signature_list(Guid::CERT_X509, &[b"certificate"]);
    let of = |build: &dyn Fn(&mut Log)| {
        secure_boot_of(|log| {
            log.config(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
            build(log);
        })
        .1
    };
    let empty_key = of(&|log| {
        log.config(Guid::GLOBAL_VARIABLE, "PK", &[]).separator(7);
    });
    assert_eq!(empty_key, [SetupMode]);
    let twice = of(&|log| {
        log.config(Guid::SECURITY_DATABASE, "db", &lists);
        log.config(Guid::SECURITY_DATABASE, "db", &lists).separator(7);
    });
    assert_eq!(twice, [SecureBootVariableRepeated]);
    let late = of(&|log| {
        log.separator(7).config(Guid::SECURITY_DATABASE, "dbx", &lists);
    });
    assert_eq!(late, [SecureBootVariableLate]);
    let malformed = of(&|log| {
        log.config(Guid::SECURITY_DATABASE, "db", &lists[..lists.len() - 1]).separator(7);
    });
    assert_eq!(malformed, [SecureBootVariableMalformed]);
    let authority = of(&|log| {
        log.config(Guid::SECURITY_DATABASE, "db", &lists);
        log.separator(7).authority(Guid::SECURITY_DATABASE, "db", &signature_data(b"certificate"));
    });
    assert_eq!(authority, []);
}

#[test]
fn further_oddities_have_their_codes() {
    for (bytes, expected) in [
        (separated(|_| {}), vec![]),
        (
            separated(|log| {
                log.action(7, "UEFI Debug Mode");
            }),
            vec![ProblemCode::DebugMode],
        ),
        (
            // Whatever data the log gives for it, and with the terminator that some firmware measures.
            separated(|log| {
                log.measured(7, EventType::EFI_ACTION, b"DMA Protection Disabled\0", b"x");
            }),
            vec![ProblemCode::DataNotVouched, ProblemCode::DmaProtectionDisabled],
        ),
        (
            separated(|log| {
                log.measured(5, EventType::EFI_ACTION, b"one", b"another");
            }),
            vec![ProblemCode::DataNotVouched],
        ),
        (
            separated(|log| {
                let digests = [(SHA256.tpm_id(), vec![1; 32])];
                log.raw(0, EventType::NO_ACTION, &digests, b"x");
            }),
            vec![ProblemCode::NoActionDigest],
        ),
        (
            separated(|log| {
                log.information(3, b"SP800-155 Event2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
            }),
            vec![ProblemCode::NoActionMisplaced],
        ),
        (
            separated(|log| {
                log.information(0, b"Spec ID Event03\0");
            }),
            vec![ProblemCode::NoActionMisplaced],
        ),
        (
            separated(|log| {
                log.action(5, "Exit Boot Services Invocation");
                log.action(5, "Exit Boot Services Returned with Failure");
            }),
            vec![ProblemCode::ExitBootServicesFailed],
        ),
    ] {
        assert_eq!(codes(&bytes), expected);
    }
    let unfinished = Boot { exit: false, ..Boot::default() }.log();
    assert_eq!(codes(&unfinished), [ProblemCode::ExitBootServicesMissing]);
    let mut early = Log::new(&[SHA256]);
    early.application(b"early", "\\early.efi");
    early.action(4, "Calling EFI Application from Boot Option");
    assert!(codes(&early.bytes).contains(&ProblemCode::ApplicationBeforeCall));
    let mut uncalled = Log::new(&[SHA256]);
    uncalled.application(b"early", "\\early.efi");
    assert!(codes(&uncalled.bytes).contains(&ProblemCode::ApplicationCallMissing));
}

/// Each code of an oddity is produced by some test here or in the vectors' test.
#[test]
fn what_refuses_is_what_the_documentation_says() {
    let refusing: Vec<_> = ProblemCode::ALL
        .iter()
        .filter(|code| matches!(code.class(), ProblemClass::Refusal(_)))
        .map(|code| code.as_str())
        .collect();
    assert_eq!(refusing, ["SEPARATOR_ERROR", "SEPARATOR_MISSING", "SEPARATOR_REPEATED"]);
    let mut names: Vec<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    let written: Vec<String> =
        ProblemCode::ALL.iter().map(|code| serde_json::to_string(code).expect("JSON")).collect();
    assert!(names.iter().zip(&written).all(|(name, json)| *json == format!("\"{name}\"")));
    names.dedup();
    assert!(names.is_sorted() && names.len() == ProblemCode::ALL.len());
}

#[test]
fn sections_of_a_kernel_image_are_counted_off_in_pairs() {
    let sections_of = |build: &dyn Fn(&mut Log)| {
        let bytes = separated(|log| build(log));
        let log = EventLog::parse(&bytes).expect("well-formed");
        let replay = Replay::of(&log, &[SHA256]).expect("a replay");
        let facts = read(&log, &replay, SHA256, all_pcrs()).facts;
        let sections: Vec<_> = facts
            .uki_sections
            .iter()
            .map(|section| (section.name.clone(), section.digest))
            .collect();
        sections
    };
    let digest = |content: &[u8]| SHA256.hash(&[content]).expect("computed");
    // A content that is the name of a section must not make the next name a content.
    let tricky = sections_of(&|log| {
        log.section(".cmdline", b".initrd\0").section(".linux", b"kernel");
    });
    assert_eq!(
        tricky,
        [(".cmdline".to_owned(), digest(b".initrd\0")), (".linux".to_owned(), digest(b"kernel"))]
    );
    // Something before the pairs, or between them, ends the reading.
    let shifted = sections_of(&|log| {
        log.data(11, EventType::COMPACT_HASH, b"x").section(".linux", b"kernel");
    });
    assert_eq!(shifted, []);
    // The data of both events is no part of it.
    let unlogged = sections_of(&|log| {
        log.measured(11, EventType::IPL, b".linux\0", b"?");
        log.measured(11, EventType::ACTION, b"kernel", b"?");
    });
    assert_eq!(unlogged, [(".linux".to_owned(), digest(b"kernel"))]);
}

#[test]
fn the_two_events_that_leave_the_firmware_may_be_missing_from_the_log() {
    let unfinished = Boot { exit: false, ..Boot::default() }.log();
    let log = EventLog::parse(&unfinished).expect("well-formed");
    let explained = explain(&log, Later::default(), &good_values(), required()).expect("explained");
    assert!(explained.facts().exit_boot_services.inferred);
    assert!(explained.problems().is_empty());
    let inferred = explained.replay().events().iter().filter(|e| e.source == EventSource::Inferred);
    assert_eq!(inferred.count(), 2);
    // Something else in PCR 5 is not explained by them.
    let other = with_value(&good_values(), 5, HashAlg::Sha256.hash(&[b"other"]));
    let expected = Some(ReasonCode::EventLogReplayMismatch);
    assert_eq!(refusal(&unfinished, &other, required()), expected);
}

fn extended(values: &[PcrValue], index: u8, events: &[&[u8]]) -> Vec<PcrValue> {
    let mut value = values[usize::from(index)].value;
    for event in events {
        value = value.extended(&HashAlg::Sha256.hash(&[event]));
    }
    with_value(values, index, value)
}

#[test]
fn phases_explain_pcr_11_where_systemd_keeps_no_log() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let sequences =
        [&PHASES[..0], &PHASES[..1], &PHASES[..4], &PHASES[2..4], &PHASES[2..], &PHASES[..]];
    for phases in sequences {
        let texts: Vec<&[u8]> = phases.iter().map(|phase| phase.as_bytes()).collect();
        let values = extended(&good_values(), 11, &texts);
        let explained = explain(&log, Later::default(), &values, required()).expect("explained");
        let told: Vec<_> = explained.facts().userspace.iter().map(|m| m.text.as_deref()).collect();
        assert_eq!(told, phases.iter().map(|phase| Some(*phase)).collect::<Vec<_>>());
    }
    let wrong = [
        &["sysinit", "sysinit"][..],
        &["leave-initrd"],
        &["ready"],
        &["enter-initrd", "ready"],
        // A root file system that takes itself for an initrd: it was seen to, and is another boot.
        &["enter-initrd", "leave-initrd", "enter-initrd", "leave-initrd", "sysinit"],
    ];
    for wrong in wrong {
        let texts: Vec<&[u8]> = wrong.iter().map(|phase| phase.as_bytes()).collect();
        let values = extended(&good_values(), 11, &texts);
        let expected = Some(ReasonCode::EventLogReplayMismatch);
        assert_eq!(refusal(&bytes, &values, required()), expected, "{wrong:?}");
    }
}

fn systemd_log(records: &[(u8, &str, &[u8])]) -> Vec<SystemdRecord> {
    let text: String = records
        .iter()
        .map(|(pcr, text, measured)| {
            let digest = HashAlg::Sha256.hash(&[measured]);
            format!(
                "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}}],\
                 \"content_type\":\"systemd\",\"content\":{{\"eventType\":\"phase\",\"string\":\"{text}\"}}}}\n",
                hex::encode(digest.as_bytes())
            )
        })
        .collect();
    systemd::parse(text.as_bytes()).expect("well-formed")
}

fn with_systemd<'a>(
    log: &EventLog<'a>,
    records: &'a [SystemdRecord],
    values: &[PcrValue],
) -> Result<ExplainedBootLog<'a>, ReasonCode> {
    let later = Later { systemd: Some(records), ..Later::default() };
    explain(log, later, values, required()).map_err(|denial| denial.code())
}

#[test]
fn a_systemd_log_continues_the_firmware_s() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let records = systemd_log(&[
        (11, "sysinit", b"sysinit"),
        (15, "volume key of /", b"secret"),
        (11, "ready", b"ready"),
    ]);
    let values = extended(&good_values(), 11, &[b"sysinit", b"ready"]);
    let values = extended(&values, 15, &[b"secret"]);
    let explained = with_systemd(&log, &records, &values).expect("explained");
    assert_eq!(explained.systemd_records(), 3);
    let told = &explained.facts().userspace;
    assert_eq!(told[0].text.as_deref(), Some("sysinit"));
    assert_eq!(
        (told[1].text.as_deref(), told[1].untrusted_text.as_deref()),
        (None, Some("volume key of /"))
    );
    // Values of a moment before: the log was read after the quote.
    let earlier = extended(&good_values(), 11, &[b"sysinit"]);
    let explained = with_systemd(&log, &records, &earlier).expect("explained");
    assert_eq!(explained.systemd_records(), 1);
    // PCR 11 of one moment and PCR 15 of another are of none.
    let mixed = extended(&extended(&good_values(), 11, &[b"sysinit", b"ready"]), 15, &[]);
    assert_eq!(with_systemd(&log, &records, &mixed).err(), None, "PCR 15 is not required");
    // A record that was left out.
    let expected = Some(ReasonCode::EventLogReplayMismatch);
    assert_eq!(with_systemd(&log, &records[1..], &values).err(), expected);
}

#[test]
fn other_logs_may_continue_a_pcr() {
    let bytes = good();
    let log = EventLog::parse(&bytes).expect("well-formed");
    let values = extended(&good_values(), 14, &[b"a tool"]);
    let later = Later { systemd: None, continued: pcrs(&[14]), ..Later::default() };
    let explained = explain(&log, later, &values, required()).expect("PCR 14 goes on");
    let start = explained.replay().value(SHA256, pcr(14)).and_then(|value| value.to_digest());
    assert_eq!(start, Some(good_values()[14].value));
    assert!(!explained.explained().contains(pcr(14)));
}

#[test]
fn device_events_and_tables_are_put_in_words() {
    use appraisal::boot_log::describe;
    let tables = [vec![1, 0, 0, 0, 0, 0, 0, 0], vec![0; 24]].concat();
    for (kind, data, words) in [
        (EventType::EFI_HANDOFF_TABLES, tables.clone(), "firmware tables (1)"),
        (
            EventType::EFI_HANDOFF_TABLES2,
            [b"\x06SMBIOS".to_vec(), tables].concat(),
            "firmware tables \"SMBIOS\"",
        ),
        (
            EventType::EFI_PLATFORM_FIRMWARE_BLOB2,
            [b"\x04Main".to_vec(), vec![0; 8], vec![16, 0, 0, 0, 0, 0, 0, 0]].concat(),
            "firmware code \"Main\", 16 bytes at 0x0",
        ),
        (
            EventType::EFI_SPDM_FIRMWARE_BLOB,
            [b"SPDM Device Sec\0".to_vec(), vec![0; 12]].concat(),
            "device measured by SPDM",
        ),
        (EventType::EFI_HCRTM_EVENT, b"HCRTM".to_vec(), "hardware root of trust's measurement"),
        (EventType::EFI_GPT_EVENT, vec![], "partition table"),
        (EventType(0x1234_5678), to_utf16("text"), "0x12345678 \"text\""),
        (EventType::EVENT_TAG, log_support::tagged(1, b""), "tagged event 0x00000001"),
    ] {
        assert_eq!(describe(Some(pcr(0)), kind, &data), words);
    }
}

#[test]
fn a_log_digest_compares_with_a_quoted_one() {
    let digest = HashAlg::Sha384.hash(&[b"x"]);
    assert_eq!(LogDigest::from(digest).to_digest(), Some(digest));
}
