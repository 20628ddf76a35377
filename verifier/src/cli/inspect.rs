//! `verifier inspect`: evidence and endorsements, read for people. Decides nothing.

mod eventlog;
mod ima;

use std::path::{Path, PathBuf};

use appraisal::{
    ek::{certified_digest, inspect_path},
    x509::{Certificate, Crl, EndorsementRoots, RevocationRequirement, RootsBuilder},
};
use clap::{Args, Subcommand};
use proto::{
    digest::{HashAlg, PcrSet},
    tool_log::{ToolLogReader, ToolState},
    tpm::attest::{Attest, Attested},
};
use serde_json::{Value, json};

use super::{
    Done, Failure, Global,
    files::read_bytes,
    now,
    output::{Output, time},
};
use crate::roots::{Kind, Placement, import};

/// Read evidence and endorsements for people.
#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// Show an EK certificate, and with --roots whether it leads to one of them (else exit 3).
    ///
    /// Example:
    ///   verifier inspect ek ek.pem intermediate.pem --roots TrustedTpm.cab
    #[command(verbatim_doc_comment)]
    Ek(EkArgs),
    /// Show a kernel's IMA list: what it replays to, templates, files, and what is odd. Exits with 3
    /// if it is damaged.
    ///
    /// Example:
    ///   verifier inspect ima /sys/kernel/security/ima/binary_runtime_measurements
    #[command(verbatim_doc_comment)]
    Ima(ima::ImaArgs),
    /// Show a tool log: what was measured, event by event. Exits with 3 if it is damaged.
    ///
    /// Example:
    ///   verifier inspect tools /var/lib/assay-attestor/tool.log
    #[command(verbatim_doc_comment)]
    Tools {
        /// The log; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Every file, not only tools.
        #[arg(long)]
        files: bool,
    },
    /// Show a firmware log: the PCRs that it leads to, what it proves, what is odd. Exits with 3 if it
    /// does not decode, or would be refused.
    ///
    /// Examples:
    ///   verifier inspect eventlog /sys/kernel/security/tpm0/binary_bios_measurements
    ///   ssh worker cat /sys/kernel/security/tpm0/binary_bios_measurements | verifier inspect eventlog -
    #[command(verbatim_doc_comment)]
    Eventlog(eventlog::EventlogArgs),
    /// Show a TPMS_ATTEST structure: a quote or a certification. Its signature is not looked at.
    ///
    /// Example:
    ///   verifier inspect quote quote.attest
    #[command(verbatim_doc_comment)]
    Quote {
        /// The structure, binary; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(super) struct EkArgs {
    /// The EK certificate, PEM or DER (also as read from the TPM's NV memory), then intermediates.
    #[arg(value_name = "CERTIFICATE", required = true)]
    certificates: Vec<PathBuf>,
    /// Roots to lead to: PEM or DER file, directory or cabinet.
    #[arg(long, value_name = "PATH")]
    roots: Option<PathBuf>,
}

pub(super) fn run(global: &Global, command: InspectCommand) -> Done {
    let output = global.output();
    match command {
        InspectCommand::Ek(args) => ek(output, &args),
        InspectCommand::Ima(args) => ima::run(output, &args),
        InspectCommand::Tools { file, files } => tools(output, &file, files),
        InspectCommand::Eventlog(args) => eventlog::run(output, &args),
        InspectCommand::Quote { file } => quote(output, &file),
    }
}

fn certificate(path: &Path) -> Result<Certificate, Failure> {
    let bytes = read_bytes(path)?;
    let der = crate::endorsements::der_of(&bytes).unwrap_or(bytes);
    Certificate::parse_from_nv(&der)
        .map_err(|error| Failure::of(&error).while_doing(&format!("read {}", path.display())))
}

fn ek(output: Output, args: &EkArgs) -> Done {
    let mut certificates =
        args.certificates.iter().map(|path| certificate(path)).collect::<Result<Vec<_>, _>>()?;
    let leaf = certificates.remove(0);
    let digest = certified_digest(&leaf).map(|digest| digest.to_string()).unwrap_or_default();
    let identity = leaf.extensions().tpm_identity.clone();
    let (manufacturer, model, version) = identity
        .as_ref()
        .map(|id| (id.manufacturer.clone(), id.model.clone(), id.version.clone()))
        .unwrap_or_default();
    let vendor = identity.and_then(|id| id.vendor()).unwrap_or_default();
    let path = match &args.roots {
        None => None,
        Some(roots) => {
            let roots = read_roots(roots)?;
            let revocation = RevocationRequirement::IfKnown;
            Some(inspect_path(&leaf, &certificates, &roots, now(), revocation))
        }
    };
    let (led, chain) = match &path {
        None => (None, "not looked for: no --roots".to_owned()),
        Some(Ok(path)) => (
            Some(true),
            format!("leads to {} ({})", path.anchor().subject_text(), path.anchor().sha256()),
        ),
        Some(Err(finding)) => {
            (Some(false), format!("[{}] {}: {}", finding.code, finding.subject, finding.observed))
        }
    };
    if output.is_json() {
        output.json(&json!({
            "ek_digest": digest, "subject": leaf.subject_text(), "issuer": leaf.issuer_text(),
            "serial": hex::encode(leaf.serial()), "key": leaf.key().to_string(),
            "signature": leaf.signature_algorithm().to_string(),
            "not_before_unix_s": leaf.not_before_unix_s(),
            "not_after_unix_s": leaf.not_after_unix_s(),
            "manufacturer": manufacturer, "vendor": vendor, "model": model, "version": version,
            "oddities": leaf.oddities().iter().map(|oddity| oddity.name()).collect::<Vec<_>>(),
            "leads_to_root": led, "path": chain,
        }))?;
    } else {
        output.facts(&[
            ("EK digest", digest),
            ("subject", leaf.subject_text()),
            ("issuer", leaf.issuer_text()),
            ("serial", hex::encode(leaf.serial())),
            ("key", leaf.key().to_string()),
            ("signature", leaf.signature_algorithm().to_string()),
            ("valid from", time(leaf.not_before_unix_s())),
            ("valid until", time(leaf.not_after_unix_s())),
            ("manufacturer", format!("{manufacturer} {vendor}")),
            ("model", model),
            ("version", version),
            ("oddities", leaf.oddities().to_string()),
            ("path", chain),
        ])?;
    }
    if led == Some(false) { Err(Failure::problems_found()) } else { Ok(()) }
}

fn read_roots(path: &Path) -> Result<EndorsementRoots, Failure> {
    let mut builder = RootsBuilder::new();
    for entry in import(path, Placement::Guess)?.entries {
        match entry.kind {
            Kind::Anchor => builder.anchor(Certificate::parse(&entry.der)?)?,
            Kind::Intermediate => builder.intermediate(Certificate::parse(&entry.der)?)?,
            Kind::Crl => builder.crl(Crl::parse(&entry.der)?)?,
        }
    }
    // A list that nobody imported here signed is of no use, and no reason to stop.
    Ok(builder.build().0)
}

fn tools(output: Output, file: &Path, files: bool) -> Done {
    let bytes = read_bytes(file)?;
    let mut reader = ToolLogReader::new(&bytes);
    let mut events = Vec::new();
    let mut damage = None;
    for event in &mut reader {
        match event {
            Ok(event) => events.push(event),
            Err(error) => damage = Some(error.to_string()),
        }
    }
    if output.is_json() {
        let list: Vec<Value> = events
            .iter()
            .map(|event| {
                let mut tool = json!(event.content);
                if let (false, Some(object)) = (files, tool.as_object_mut()) {
                    object.remove("entries");
                    object.insert("files".to_owned(), event.content.entries().len().into());
                }
                json!({ "record": event.record_number, "pcr": event.pcr.get(), "tool": tool })
            })
            .collect();
        output.json(&json!({ "events": list, "damage": damage }))?;
    } else {
        let rows: Vec<_> = events
            .iter()
            .map(|event| {
                let tool = &event.content;
                let state = match tool.state() {
                    ToolState::Present => "present",
                    ToolState::Absent => "absent",
                };
                vec![
                    event.record_number.to_string(),
                    event.pcr.to_string(),
                    tool.name().to_owned(),
                    state.to_owned(),
                    tool.version().unwrap_or("-").to_owned(),
                    tool.package().unwrap_or("-").to_owned(),
                    tool.entries().len().to_string(),
                    tool.digest().to_string(),
                ]
            })
            .collect();
        let heads = ["EVENT", "PCR", "TOOL", "STATE", "VERSION", "PACKAGE", "FILES", "DIGEST"];
        output.table(&heads, &rows, "The log is empty.")?;
        if files {
            for event in &events {
                output.line(format!("\n{}", super::output::printable(event.content.name())))?;
                output.json(&event.content.entries())?;
            }
        }
        if let Some(damage) = &damage {
            output.line(format!("damaged: {damage}"))?;
        }
    }
    if damage.is_some() { Err(Failure::problems_found()) } else { Ok(()) }
}

fn quote(output: Output, file: &Path) -> Done {
    let bytes = read_bytes(file)?;
    let attest = Attest::decode(&bytes).map_err(|error| {
        Failure::refused(format!("{} is not a TPMS_ATTEST: {error}", file.display()))
    })?;
    let attested = match &attest.attested {
        Attested::Quote { selection, pcr_digest } => {
            let banks: Vec<Value> = selection
                .iter()
                .map(|bank| {
                    let name = HashAlg::from_tpm(bank.hash_alg)
                        .map_or_else(|| format!("{:#06x}", bank.hash_alg), |a| a.name().into());
                    json!({ "bank": name, "pcrs": indexes(bank.pcrs) })
                })
                .collect();
            json!({ "type": "quote", "selection": banks, "pcr_digest": hex::encode(pcr_digest) })
        }
        Attested::Certify { name, qualified_name } => json!({
            "type": "certify", "name": hex::encode(name),
            "qualified_name": hex::encode(qualified_name),
        }),
        Attested::Other(kind) => json!({ "type": format!("{kind:#06x}") }),
        _ => Value::Null,
    };
    // A structure for people as for programs: names and values, nested.
    output.json(&json!({
        "magic": format!("{:#010x}", attest.magic),
        "tpm_generated": attest.magic == proto::tpm::constants::TPM_GENERATED,
        "qualified_signer": hex::encode(attest.qualified_signer),
        "extra_data": hex::encode(attest.extra_data),
        "clock_ms": attest.clock_info.clock_ms,
        "reset_count": attest.clock_info.reset_count,
        "restart_count": attest.clock_info.restart_count,
        "safe": attest.clock_info.safe,
        "firmware_version": format!("{:016x}", attest.firmware_version),
        "attested": attested,
    }))
}

fn indexes(set: PcrSet) -> Vec<u8> {
    (0..24).filter(|index| set.bits() & (1 << index) != 0).collect()
}
