//! PCR 7: Secure Boot's state, keys and authorities.

use proto::{
    digest::{HashAlg, PcrSet},
    eventlog::{
        guid::Guid,
        signature_list::{SignatureEntry, SignatureLists},
        text,
        variable::VariableData,
    },
};

use super::{
    constants::Constant,
    facts::{Authority, KeyDatabase, KeyEntry, KeyKind, KeySubject, Source, Untold},
    problem::{Problem, ProblemCode},
    quirks::Quirk,
    reader::{Collector, Seen},
    vouch::Vouch,
};
use crate::x509::Certificate;

/// Variables of signature lists, in the order in which firmware measures them.
const DATABASES: [(Guid, &str); 6] = [
    (Guid::GLOBAL_VARIABLE, "PK"),
    (Guid::GLOBAL_VARIABLE, "KEK"),
    (Guid::SECURITY_DATABASE, "db"),
    (Guid::SECURITY_DATABASE, "dbx"),
    (Guid::SECURITY_DATABASE, "dbt"),
    (Guid::SECURITY_DATABASE, "dbr"),
];

/// Reads PCR 7, and the modes that some firmware measures into PCR 1.
///
/// The state of Secure Boot is proven only if the digest of every event before the separator vouches for its data, and
/// a database or a level only if that of every event before its own does: otherwise an event whose data was changed
/// could hide a first variable behind a second one.
pub(super) fn read(out: &mut Collector, seen: &[Seen<'_, '_>], trusted: PcrSet) {
    let mut after_separator = false;
    let mut after_separator_of_pcr_1 = false;
    let mut unproven = None;
    let mut unproven_later = false;
    let mut states: Vec<(Source, Vec<u8>)> = Vec::new();
    let mut configured = [false; DATABASES.len()];
    for event in seen.iter().filter(|event| event.pcr == 7 || event.pcr == 1) {
        let index = event.event.index;
        match event.constant {
            Some(Constant::Separator(_) | Constant::ErrorSeparator) if event.pcr == 7 => {
                after_separator = true;
                continue;
            }
            Some(Constant::Separator(_) | Constant::ErrorSeparator) => {
                after_separator_of_pcr_1 = true;
                continue;
            }
            Some(Constant::DebugMode) if event.pcr == 7 => {
                out.reading.facts.debug_mode = true;
                out.problem(ProblemCode::DebugMode, index, event.pcr, "UEFI Debug Mode");
                continue;
            }
            Some(Constant::DmaProtectionDisabled) if event.pcr == 7 => {
                out.reading.facts.dma_protection_disabled = true;
                let detail = "DMA Protection Disabled";
                out.problem(ProblemCode::DmaProtectionDisabled, index, event.pcr, detail);
                continue;
            }
            Some(_) => continue,
            None => {}
        }
        let variable = match event.vouched.vouch {
            Vouch::Data | Vouch::DataButLastByte => VariableData::read(event.vouched.bytes).ok(),
            _ => {
                if event.pcr == 7 {
                    let untold = Untold { source: event.digest_source(), digest: event.digest };
                    out.reading.facts.untold.push(untold);
                    unproven_later |= after_separator;
                    if !after_separator {
                        unproven = unproven.or(Some(index));
                    }
                }
                None
            }
        };
        let Some(variable) = variable else {
            // Data that is vouched for and no variable authorised something that no rule can name.
            if event.pcr == 7 && matches!(event.vouched.vouch, Vouch::Data | Vouch::DataButLastByte)
            {
                let untold = Untold { source: event.digest_source(), digest: event.digest };
                out.reading.facts.untold.push(untold);
            }
            continue;
        };
        if event.pcr == 1 {
            if !after_separator_of_pcr_1 {
                modes(out, &variable);
            }
            continue;
        }
        if !after_separator && unproven.is_none() {
            modes(out, &variable);
        }
        if variable.is(Guid::GLOBAL_VARIABLE, "SecureBoot") {
            if after_separator {
                let detail = "SecureBoot";
                out.problem(ProblemCode::SecureBootVariableLate, index, 7, detail);
            } else {
                states.push((event.source(), variable.data.to_vec()));
            }
            continue;
        }
        let database = DATABASES.iter().position(|(vendor, name)| variable.is(*vendor, name));
        match database.and_then(|at| configured.get_mut(at).map(|done| (at, done))) {
            Some((at, done)) if !after_separator && !*done => {
                *done = true;
                if unproven.is_none() {
                    self::database(out, at, event.source(), &variable);
                }
            }
            Some((_, _)) if is_lists(variable.data) => {
                let name = variable.name_text();
                let code = if after_separator {
                    ProblemCode::SecureBootVariableLate
                } else {
                    ProblemCode::SecureBootVariableRepeated
                };
                out.problem(code, index, 7, name);
            }
            _ => {
                if unproven.is_none() && !unproven_later {
                    sbat_level(out, &variable);
                }
                authority(out, event.source(), &variable);
            }
        }
    }
    state(out, &states, unproven, trusted);
    mark_authorities_in_db(out);
}

/// Says of each authority whether db has it. Looked up in a sorted list: both may be long in a hostile log.
fn mark_authorities_in_db(out: &mut Collector) {
    let facts = &mut out.reading.facts;
    let Some(db) = &facts.db else { return };
    let mut known: Vec<&str> = db.entries.iter().map(|entry| entry.digest.as_str()).collect();
    known.sort_unstable();
    for authority in &mut facts.authorities {
        authority.in_db = Some(known.binary_search(&authority.digest.as_str()).is_ok());
    }
}

/// `AuditMode` and `DeployedMode`, which some firmware measures into PCR 1.
fn modes(out: &mut Collector, variable: &VariableData<'_>) {
    let value = match variable.data {
        [0] => false,
        [1] => true,
        _ => return,
    };
    let facts = &mut out.reading.facts;
    if variable.is(Guid::GLOBAL_VARIABLE, "AuditMode") {
        facts.audit_mode.get_or_insert(value);
    } else if variable.is(Guid::GLOBAL_VARIABLE, "DeployedMode") {
        facts.deployed_mode.get_or_insert(value);
    }
}

fn state(
    out: &mut Collector,
    states: &[(Source, Vec<u8>)],
    unproven: Option<u32>,
    trusted: PcrSet,
) {
    if !trusted.iter().any(|pcr| pcr.get() == 7) {
        return;
    }
    for (source, _) in states.iter().skip(1) {
        out.problem(ProblemCode::SecureBootVariableRepeated, source.event, 7, "SecureBoot");
    }
    let unknown = |detail: String| Problem::missing(ProblemCode::SecureBootUnknown, 7, detail);
    if let Some(event) = unproven {
        let detail =
            format!("event {event} stands before the separator and its data is not vouched for");
        out.push(unknown(detail));
        return;
    }
    match states {
        [] => out.push(unknown("the variable SecureBoot was not measured".to_owned())),
        [(source, data)] => {
            match data.as_slice() {
                [0] => out.reading.facts.secure_boot = Some(false),
                [1] => out.reading.facts.secure_boot = Some(true),
                other => {
                    if other.is_empty() {
                        out.quirk(Quirk::SecureBootEmpty, source.event);
                    }
                    let detail = format!("SecureBoot has {} bytes", other.len());
                    let code = ProblemCode::SecureBootVariableMalformed;
                    out.problem(code, source.event, 7, detail.clone());
                    out.push(unknown(detail));
                    return;
                }
            }
            out.reading.facts.secure_boot_source = Some(*source);
        }
        _ => out.push(unknown("the variable SecureBoot was measured more than once".to_owned())),
    }
}

fn is_lists(data: &[u8]) -> bool {
    !data.is_empty() && SignatureLists::new(data).all(|list| list.is_ok())
}

fn database(out: &mut Collector, at: usize, source: Source, variable: &VariableData<'_>) {
    let mut entries = Vec::new();
    for list in SignatureLists::new(variable.data) {
        match list {
            Ok(list) => entries.extend(list.entries().map(|entry| key_entry(list.kind, &entry))),
            Err(error) => {
                let detail = format!("{}: {error}", variable.name_text());
                let code = ProblemCode::SecureBootVariableMalformed;
                out.problem(code, source.event, 7, detail);
                return;
            }
        }
    }
    let digest = HashAlg::Sha256.hash(&[variable.data]);
    let facts = &mut out.reading.facts;
    let slot = match at {
        0 => {
            facts.setup_mode = Some(entries.is_empty());
            if entries.is_empty() {
                let detail = "PK is empty";
                out.problem(ProblemCode::SetupMode, source.event, 7, detail);
            }
            &mut out.reading.facts.pk
        }
        1 => &mut facts.kek,
        2 => &mut facts.db,
        3 => &mut facts.dbx,
        4 => &mut facts.dbt,
        _ => &mut facts.dbr,
    };
    *slot = Some(KeyDatabase { source, digest, entries });
}

fn key_entry(list: Guid, entry: &SignatureEntry<'_>) -> KeyEntry {
    let kind = match list {
        Guid::CERT_X509 => KeyKind::X509,
        Guid::CERT_SHA256 => KeyKind::Sha256,
        Guid::CERT_SHA384 => KeyKind::Sha384,
        Guid::CERT_SHA512 => KeyKind::Sha512,
        Guid::CERT_X509_SHA256 => KeyKind::X509Sha256,
        Guid::CERT_RSA2048 => KeyKind::Rsa2048,
        _ => KeyKind::Other,
    };
    let digest = match kind {
        KeyKind::Sha256 | KeyKind::Sha384 | KeyKind::Sha512 => hex::encode(entry.data),
        _ => sha256(entry.data),
    };
    let certificate = if kind == KeyKind::X509 { subject(entry.data) } else { None };
    KeyEntry { kind, owner: entry.owner, digest, certificate }
}

fn sha256(data: &[u8]) -> String {
    hex::encode(HashAlg::Sha256.hash(&[data]).as_bytes())
}

fn subject(der: &[u8]) -> Option<KeySubject> {
    let certificate = Certificate::parse(der).ok()?;
    Some(KeySubject { subject: certificate.subject_text(), issuer: certificate.issuer_text() })
}

fn sbat_level(out: &mut Collector, variable: &VariableData<'_>) {
    if variable.is(Guid::SHIM_LOCK, "SbatLevel") && out.reading.facts.sbat_level.is_none() {
        out.reading.facts.sbat_level = text::printable(variable.data).map(str::to_owned);
    }
}

/// An `EFI_SIGNATURE_DATA`, a bare certificate (shim), or the content of one of shim's variables.
fn authority(out: &mut Collector, source: Source, variable: &VariableData<'_>) {
    let with_owner = SignatureEntry::read(variable.data).ok();
    let (data, certificate) =
        match with_owner.and_then(|entry| Some((entry.data, subject(entry.data)?))) {
            Some((data, certificate)) => (data, Some(certificate)),
            None => (variable.data, subject(variable.data)),
        };
    // An image that db allows by hash: the entry is the hash.
    let hash =
        with_owner.filter(|_| certificate.is_none() && variable.vendor == Guid::SECURITY_DATABASE);
    let digest = match hash {
        Some(entry) if entry.data.len() == HashAlg::Sha256.len_bytes() => hex::encode(entry.data),
        _ => sha256(data),
    };
    out.reading.facts.authorities.push(Authority {
        source,
        vendor: variable.vendor,
        variable: variable.name_text(),
        digest,
        certificate,
        in_db: None,
    });
}
