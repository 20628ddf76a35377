//! Prints docs/REASON_CODES.md from the table in `proto::reason`; `cargo xtask vectors` writes it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use proto::reason::{ReasonCode, Stage};

const HEAD: &str = "\
# Reason codes

<!-- Written by `cargo xtask vectors` from proto/src/reason.rs. Do not edit. -->

Every refusal carries one of these codes. A code has one cause, is never renamed and never reused.
A worker is told the code, what it is about and what was observed; what was expected stands in the
verifier's decision record, because an attacker on the worker must not be
handed the target.

Where several things are wrong, integrity stages report the first one (whatever follows would be about
data that nobody vouches for), while policy reports all.
";

fn main() -> io::Result<()> {
    let mut out = String::from(HEAD);
    let mut stage = None;
    for code in ReasonCode::ALL {
        if stage != Some(code.stage()) {
            stage = Some(code.stage());
            let _ = write!(
                out,
                "\n## {}\n\n{}\n\n| code | meaning | what to do |\n|---|---|---|\n",
                title(code.stage()),
                description(code.stage()),
            );
        }
        let _ = writeln!(out, "| `{code}` | {} | {} |", cell(code.meaning()), cell(code.remedy()));
    }
    io::stdout().write_all(out.as_bytes())
}

/// A vertical bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Evidence => "Evidence",
        Stage::Ek => "Endorsement key",
        Stage::Node => "Inventory",
        Stage::Ak => "Attestation key",
        Stage::Challenge => "Challenge",
        Stage::Quote => "Quote",
        Stage::Pcr => "PCR values",
        Stage::EventLog => "Event log",
        Stage::NodeKey => "Node key",
        Stage::ToolLog => "Tool log",
        Stage::Ima => "IMA list",
        Stage::Policy => "Reference values and policy",
        Stage::Certificate => "Certificate",
        Stage::Service => "Service",
        Stage::Admin => "Administration",
        Stage::Golden => "Signed documents",
        _ => "Further codes",
    }
}

fn description(stage: Stage) -> &'static str {
    match stage {
        Stage::Evidence => {
            "What came over the wire is malformed or too large. Ends the stream with \
             `INVALID_ARGUMENT` or `RESOURCE_EXHAUSTED`; no decision is recorded."
        }
        Stage::Ek => {
            "The TPM's endorsement key, its certificate, and the path to an imported root."
        }
        Stage::Node => "Whether this TPM may be a node at all.",
        Stage::Ak => "The attestation key, and the proof that it lives in the TPM with that EK.",
        Stage::Challenge => "The verifier's challenge.",
        Stage::Quote => "`TPM2_Quote` over the challenge.",
        Stage::Pcr => "The PCR values presented, against the quote.",
        Stage::EventLog => {
            "The firmware's log and systemd's, against the PCRs that they were extended into."
        }
        Stage::NodeKey => "The key that the certificate would be for, certified by the AK.",
        Stage::ToolLog => "The tool measurements, against the PCR that they were extended into.",
        Stage::Ima => {
            "The kernel's list of measured files, against the PCR that it was extended into."
        }
        Stage::Policy => "What was proven, against what the site accepts.",
        Stage::Certificate => "The last check before signing.",
        Stage::Service => {
            "The verifier's own limits and failures; nothing is said about the worker."
        }
        Stage::Admin => "Calls of administrators.",
        Stage::Golden => {
            "Golden sets, policies and key rings: approval, and putting them in force."
        }
        _ => "Codes of stages that this text does not describe yet.",
    }
}
