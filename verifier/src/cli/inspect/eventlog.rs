//! `verifier inspect eventlog`: a firmware log, offline. docs/INSPECT.md describes the JSON.

use std::{collections::BTreeMap, path::PathBuf};

use appraisal::boot_log::{
    self, BootFacts, KeyDatabase, KeySubject, Problem, ProblemClass, Reading, Replay, Vouch,
};
use clap::Args;
use proto::{
    digest::{PcrIndex, PcrSet},
    eventlog::{Event, EventLog, LogAlg, LogFormat, systemd},
    limits::PCR_COUNT,
};
use serde_json::{Value, json};

use super::super::{Done, Failure, files::read_bytes, output::Output};

/// Banks that facts are read from, the first that the log has.
const FACT_BANKS: [LogAlg; 4] = [LogAlg::Sha256, LogAlg::Sha384, LogAlg::Sha512, LogAlg::Sha1];

#[derive(Args, Debug)]
pub(in crate::cli) struct EventlogArgs {
    /// The log; `-` for the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// systemd's log of the same boot, continued after the firmware's.
    #[arg(long, value_name = "FILE")]
    systemd: Option<PathBuf>,
    /// Bank whose digests vouch for the facts; sha256, if the log has it.
    #[arg(long, value_name = "BANK")]
    bank: Option<LogAlg>,
}

pub(super) fn run(output: Output, args: &EventlogArgs) -> Done {
    let bytes = read_bytes(&args.file)?;
    let log = EventLog::parse(&bytes).map_err(|error| {
        let text = format!("{} is not a firmware log: {error}", args.file.display());
        Failure::refused(text).with_reason(error.code().as_str())
    })?;
    let records = match &args.systemd {
        None => Vec::new(),
        Some(path) => systemd::parse(&read_bytes(path)?).map_err(|error| {
            let text = format!("{} is not a log of systemd's: {error}", path.display());
            Failure::refused(text).with_reason(error.code().as_str())
        })?,
    };
    let banks: Vec<LogAlg> = log.banks().into_iter().filter(|alg| alg.is_computed()).collect();
    let bank = match args.bank {
        Some(bank) => bank,
        None => FACT_BANKS
            .into_iter()
            .find(|alg| banks.contains(alg))
            .ok_or_else(|| Failure::refused("the log has no bank that can be replayed"))?,
    };
    let refused = |error: boot_log::ReplayError| {
        Failure::refused(error.to_string()).with_reason(error.code().as_str())
    };
    if !banks.contains(&bank) {
        return Err(refused(boot_log::ReplayError::Bank(bank)));
    }
    let mut replay = Replay::of(&log, &banks).map_err(refused)?;
    let all: PcrSet = (0..PCR_COUNT).filter_map(index).collect();
    let mut reading = boot_log::read(&log, &replay, bank, all);
    replay.append_systemd(&records);
    reading.facts.userspace = boot_log::userspace_measurements(&replay, &records, bank, all);
    if output.is_json() {
        output.json(&document(&log, &replay, &reading, &banks))?;
    } else {
        people(output, &log, &replay, &reading, &banks)?;
    }
    let refusing = reading
        .problems
        .iter()
        .any(|problem| matches!(problem.code.class(), ProblemClass::Refusal(_)));
    if refusing { Err(Failure::problems_found()) } else { Ok(()) }
}

fn index(pcr: usize) -> Option<PcrIndex> {
    u8::try_from(pcr).ok().and_then(PcrIndex::new)
}

/// PCRs with events, and PCR 0.
fn pcrs<'r>(replay: &'r Replay<'_>) -> impl Iterator<Item = PcrIndex> + use<'r> {
    let touched: PcrSet = replay.events().iter().map(|event| event.pcr).collect();
    (0..PCR_COUNT).filter_map(index).filter(move |pcr| pcr.get() == 0 || touched.contains(*pcr))
}

fn format_name(format: LogFormat) -> &'static str {
    match format {
        LogFormat::CryptoAgile => "crypto_agile",
        LogFormat::Tcg12 => "tcg_1_2",
    }
}

fn document(log: &EventLog<'_>, replay: &Replay<'_>, reading: &Reading, banks: &[LogAlg]) -> Value {
    let values: BTreeMap<&str, BTreeMap<String, Option<String>>> = banks
        .iter()
        .map(|alg| {
            let values = pcrs(replay).map(|pcr| {
                let value = replay.value(*alg, pcr).map(|value| hex::encode(value.as_bytes()));
                (pcr.to_string(), value)
            });
            (alg.name(), values.collect())
        })
        .collect();
    let vouches: BTreeMap<u32, Vouch> =
        reading.vouches.iter().map(|vouch| (vouch.event, vouch.vouch)).collect();
    let events: Vec<Value> =
        log.events().iter().map(|event| event_document(event, &vouches)).collect();
    let quirks: Vec<Value> = reading
        .quirks
        .iter()
        .map(|seen| {
            json!({ "quirk": seen.quirk.name(), "event": seen.event, "summary": seen.quirk.summary() })
        })
        .collect();
    json!({
        "format": format_name(log.format()),
        "banks": log.banks().iter().map(|alg| alg.name()).collect::<Vec<_>>(),
        "padding_bytes": log.padding_bytes(),
        "startup_locality": replay.startup_locality(),
        "pcrs": values,
        "facts": reading.facts,
        "problems": reading.problems,
        "quirks": quirks,
        "events": events,
    })
}

fn event_document(event: &Event<'_>, vouches: &BTreeMap<u32, Vouch>) -> Value {
    let digests: BTreeMap<&str, String> = event
        .digests()
        .map(|digest| (digest.alg().name(), hex::encode(digest.as_bytes())))
        .collect();
    json!({
        "event": event.index,
        "offset": event.offset,
        "pcr": event.pcr.map(PcrIndex::get),
        "untrusted_type": event.untrusted_type.to_string(),
        "extended": event.is_extended(),
        "digests": digests,
        "data_bytes": event.untrusted_data.len(),
        "vouch": vouches.get(&event.index),
        "untrusted_words": words(event),
    })
}

fn words(event: &Event<'_>) -> String {
    boot_log::describe(event.pcr, event.untrusted_type, event.untrusted_data)
}

/// What the digest is over, in words of a column.
const fn vouch_words(vouch: Option<Vouch>) -> &'static str {
    match vouch {
        None => "not extended",
        Some(Vouch::Constant) => "known by its digest",
        Some(Vouch::Data | Vouch::DataButLastByte | Vouch::DataAndTerminator) => "vouched for",
        Some(Vouch::VariableData) => "content vouched for",
        Some(Vouch::Text) => "text vouched for",
        Some(_) => "only the digest",
    }
}

fn people(
    output: Output,
    log: &EventLog<'_>,
    replay: &Replay<'_>,
    reading: &Reading,
    banks: &[LogAlg],
) -> Done {
    let names: Vec<&str> = log.banks().iter().map(|alg| alg.name()).collect();
    output.facts(&[
        ("format", format_name(log.format()).to_owned()),
        ("banks", names.join(" ")),
        ("events", log.events().len().to_string()),
        ("padding", format!("{} bytes", log.padding_bytes())),
        ("TPM started from", format!("locality {}", replay.startup_locality())),
    ])?;
    output.line("\nPCRs that the log leads to. Nothing here compares them with a TPM.")?;
    let mut rows = Vec::new();
    for alg in banks {
        for pcr in pcrs(replay) {
            let value = match replay.value(*alg, pcr) {
                Some(value) => hex::encode(value.as_bytes()),
                None => {
                    let event = replay.missing(*alg, pcr).unwrap_or_default();
                    format!("unknown: event {event} has no {alg} digest")
                }
            };
            rows.push(vec![alg.name().to_owned(), pcr.to_string(), value]);
        }
    }
    output.table(&["BANK", "PCR", "VALUE"], &rows, "")?;
    output.line(format!("\nFacts, vouched for by {} digests", reading.facts.bank))?;
    output.facts(&facts(&reading.facts))?;
    output.line("\nHints: nobody vouches for these")?;
    output.facts(&hints(&reading.facts))?;
    output.line("\nEvents")?;
    let vouches: BTreeMap<u32, Vouch> =
        reading.vouches.iter().map(|vouch| (vouch.event, vouch.vouch)).collect();
    let rows: Vec<Vec<String>> = log
        .events()
        .iter()
        .map(|event| {
            vec![
                event.index.to_string(),
                event.pcr.map_or_else(|| "-".to_owned(), |pcr| pcr.to_string()),
                event.untrusted_type.to_string(),
                vouch_words(vouches.get(&event.index).copied()).to_owned(),
                words(event),
            ]
        })
        .collect();
    let heads = ["EVENT", "PCR", "TYPE (CLAIMED)", "DATA", "IN WORDS (CLAIMED)"];
    output.table(&heads, &rows, "The log is empty.")?;
    if !reading.quirks.is_empty() {
        output.line("\nWhat this firmware and these boot loaders do differently; tolerated")?;
        let rows: Vec<Vec<String>> = reading
            .quirks
            .iter()
            .map(|seen| {
                vec![
                    seen.event.to_string(),
                    seen.quirk.name().to_owned(),
                    seen.quirk.summary().to_owned(),
                ]
            })
            .collect();
        output.table(&["EVENT", "NAME", "WHAT"], &rows, "")?;
    }
    if reading.problems.is_empty() {
        return output.line("\nNo problem.");
    }
    output.line("\nProblems")?;
    let rows: Vec<Vec<String>> = reading.problems.iter().map(problem_row).collect();
    output.table(&["EVENT", "PROBLEM", "REFUSED", "WHAT"], &rows, "")
}

fn problem_row(problem: &Problem) -> Vec<String> {
    let refused = match problem.code.class() {
        ProblemClass::Refusal(code) => code.as_str(),
        ProblemClass::Fact => "policy decides",
    };
    vec![
        problem.event.map_or_else(|| "-".to_owned(), |event| event.to_string()),
        problem.code.to_string(),
        refused.to_owned(),
        problem.detail.clone(),
    ]
}

fn facts(facts: &BootFacts) -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("Secure Boot", state(facts.secure_boot, "on", "off")),
        ("setup mode", state(facts.setup_mode, "yes: no platform key", "no")),
        ("debug mode", state(Some(facts.debug_mode), "yes", "no")),
        ("DMA protection", state(Some(facts.dma_protection_disabled), "off", "not said to be off")),
    ];
    for (name, database) in [
        ("PK", &facts.pk),
        ("KEK", &facts.kek),
        ("db", &facts.db),
        ("dbx", &facts.dbx),
        ("dbt", &facts.dbt),
        ("dbr", &facts.dbr),
    ] {
        if let Some(database) = database {
            out.push((name, database_words(database)));
        }
    }
    for authority in &facts.authorities {
        let who = subject(authority.certificate.as_ref());
        let in_db = if authority.in_db == Some(true) { ", in db" } else { "" };
        out.push((
            "authority",
            format!("{} {who}sha256:{}{in_db}", authority.variable, authority.digest),
        ));
    }
    if let Some(level) = &facts.sbat_level {
        out.push(("SBAT level", level.trim_end().replace('\n', "; ")));
    }
    for application in &facts.boot_applications {
        let what = match (&application.text, &application.untrusted_path) {
            (Some(text), _) => format!(" (text \"{text}\")"),
            (None, Some(path)) => format!(" (claimed: {path})"),
            (None, None) => String::new(),
        };
        let when = if application.after_call { "" } else { ", before the boot option was called" };
        out.push(("boot application", format!("{}{what}{when}", application.digest)));
    }
    for driver in &facts.drivers {
        let path = driver.untrusted_path.as_deref().unwrap_or_default();
        out.push(("driver", format!("{} (claimed: {path})", driver.digest)));
    }
    for info in &facts.firmware {
        out.push(("firmware", info.text.clone().unwrap_or_else(|| info.data.clone())));
    }
    for section in &facts.uki_sections {
        out.push(("kernel image", format!("{} {}", section.name, section.digest)));
    }
    for line in &facts.command_lines {
        let text = line.text.clone().unwrap_or_else(|| line.digest.to_string());
        out.push(("command line", text));
    }
    for measurement in &facts.userspace {
        let what = match (&measurement.text, &measurement.untrusted_text) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => format!("{} (claimed: {text})", measurement.digest),
            (None, None) => measurement.digest.to_string(),
        };
        out.push(("systemd", format!("PCR {}: {what}", measurement.pcr)));
    }
    for table in &facts.partition_tables {
        out.push(("disk", format!("{}, {} partitions", table.disk, table.partitions.len())));
    }
    let exit = &facts.exit_boot_services;
    out.push((
        "left firmware",
        match (exit.success, exit.failures.len()) {
            (Some(_), 0) => "yes".to_owned(),
            (Some(_), failures) => format!("yes, after {failures} failures"),
            (None, _) => "the log does not say so".to_owned(),
        },
    ));
    out
}

fn hints(facts: &BootFacts) -> Vec<(&'static str, String)> {
    let hints = &facts.hints;
    let mut out = Vec::new();
    if let Some(version) = &hints.crtm_version {
        out.push(("firmware version", version.clone()));
    }
    if let Some(order) = facts.boot_order.as_ref().or(hints.boot_order.as_ref()) {
        let entries: Vec<String> = order.iter().map(|entry| format!("{entry:04X}")).collect();
        out.push(("boot order", entries.join(" ")));
    }
    for line in &hints.command_lines {
        let text = line.text.clone().unwrap_or_else(|| line.digest.to_string());
        out.push(("command line", text));
    }
    for initrd in &hints.initrds {
        out.push(("initrd", initrd.digest.to_string()));
    }
    out.push((
        "boot loader",
        format!(
            "{} commands, {} files; see the events",
            hints.loader_commands.len(),
            hints.loader_files.len()
        ),
    ));
    for variable in &hints.shim_variables {
        out.push(("shim variable", format!("{} {}", variable.name, variable.digest)));
    }
    out
}

fn state(value: Option<bool>, yes: &str, no: &str) -> String {
    match value {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => "unknown: the log does not prove it".to_owned(),
    }
}

fn subject(certificate: Option<&KeySubject>) -> String {
    certificate.map(|certificate| format!("\"{}\" ", certificate.subject)).unwrap_or_default()
}

/// Certificates by subject, everything else by number.
fn database_words(database: &KeyDatabase) -> String {
    let subjects: Vec<String> = database
        .entries
        .iter()
        .filter_map(|entry| entry.certificate.as_ref())
        .map(|certificate| format!("\"{}\"", certificate.subject))
        .collect();
    let others = database.entries.len() - subjects.len();
    match (subjects.is_empty(), others) {
        (true, 0) => "empty".to_owned(),
        (true, others) => format!("{others} hashes"),
        (false, 0) => subjects.join(", "),
        (false, others) => format!("{}, and {others} hashes", subjects.join(", ")),
    }
}
