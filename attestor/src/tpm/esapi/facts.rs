//! Capabilities: what a TPM says of itself.

use tss_esapi::{
    Context, Error,
    constants::{AlgorithmIdentifier, CapabilityType, response_code::Tss2ResponseCodeKind as Kind},
    handles::TpmHandle,
    interface_types::algorithm::HashingAlgorithm,
    structures::CapabilityData,
};

use super::response::tpm_error;
use crate::tpm::{BankFacts, LockoutFacts, TpmError, TpmFacts};

const COMMAND: &str = "TPM2_GetCapability";
/// First transient, loaded session and persistent handle.
pub(super) const TRANSIENT_FIRST: u32 = 0x8000_0000;
const PERSISTENT_FIRST: u32 = 0x8100_0000;
const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
/// Handles asked for in one command; TPMs return as many as fit and say whether more follow.
const HANDLES_PER_COMMAND: u32 = 254;
/// Commands spent on one list of handles.
const MAX_HANDLE_COMMANDS: usize = 16;

/// `TPM_PT` values, TPM 2.0 Library Part 2, "TPM_PT".
mod property {
    pub(super) const FAMILY: u32 = 0x100;
    pub(super) const REVISION: u32 = 0x102;
    pub(super) const DAY_OF_YEAR: u32 = 0x103;
    pub(super) const YEAR: u32 = 0x104;
    pub(super) const MANUFACTURER: u32 = 0x105;
    pub(super) const VENDOR_STRING: [u32; 4] = [0x106, 0x107, 0x108, 0x109];
    pub(super) const FIRMWARE: [u32; 2] = [0x10b, 0x10c];
    pub(super) const PERMANENT: u32 = 0x200;
    pub(super) const STARTUP_CLEAR: u32 = 0x201;
    pub(super) const TRANSIENT_AVAIL: u32 = 0x207;
    pub(super) const LOCKOUT_COUNTER: u32 = 0x20e;
    pub(super) const MAX_AUTH_FAIL: u32 = 0x20f;
    pub(super) const LOCKOUT_INTERVAL: u32 = 0x210;
}

/// Bits of `TPM_PT_PERMANENT` and `TPM_PT_STARTUP_CLEAR`.
const OWNER_AUTH_SET: u32 = 1 << 0;
const ENDORSEMENT_AUTH_SET: u32 = 1 << 1;
const IN_LOCKOUT: u32 = 1 << 9;
const ENDORSEMENT_ENABLED: u32 = 1 << 2;

/// Algorithms asked for one by one where the TPM has some that the library does not know.
const KNOWN_ALGORITHMS: [(u16, &str); 15] = [
    (0x0001, "rsa"),
    (0x0004, "sha1"),
    (0x0006, "aes"),
    (0x000b, "sha256"),
    (0x000c, "sha384"),
    (0x000d, "sha512"),
    (0x0012, "sm3_256"),
    (0x0014, "rsassa"),
    (0x0016, "rsapss"),
    (0x0017, "oaep"),
    (0x0018, "ecdsa"),
    (0x0019, "ecdh"),
    (0x0023, "ecc"),
    (0x0027, "sha3_256"),
    (0x0043, "cfb"),
];

/// `TPM_ECC_CURVE` values that are asked for.
const KNOWN_CURVES: [(u16, &str); 5] =
    [(0x0003, "p256"), (0x0004, "p384"), (0x0005, "p521"), (0x0010, "bn256"), (0x0020, "sm2")];

pub(super) fn read(context: &mut Context) -> Result<TpmFacts, TpmError> {
    let mut ask = |tag| property(context, tag).map(Option::unwrap_or_default);
    let family = text(&[ask(property::FAMILY)?]);
    let revision = ask(property::REVISION)?;
    let spec_date = (ask(property::YEAR)?, ask(property::DAY_OF_YEAR)?);
    let manufacturer = text(&[ask(property::MANUFACTURER)?]);
    let mut vendor = Vec::new();
    for tag in property::VENDOR_STRING {
        vendor.push(ask(tag)?);
    }
    let [high, low] = property::FIRMWARE;
    let firmware_version = u64::from(ask(high)?) << 32 | u64::from(ask(low)?);
    let permanent = ask(property::PERMANENT)?;
    let startup = ask(property::STARTUP_CLEAR)?;
    let free_objects = ask(property::TRANSIENT_AVAIL)?;
    let lockout = LockoutFacts {
        locked: permanent & IN_LOCKOUT != 0,
        failures: ask(property::LOCKOUT_COUNTER)?,
        max_failures: ask(property::MAX_AUTH_FAIL)?,
        interval_s: ask(property::LOCKOUT_INTERVAL)?,
    };
    Ok(TpmFacts {
        manufacturer,
        vendor: text(&vendor),
        firmware_version,
        family,
        revision: format!("{}.{:02}", revision / 100, revision % 100),
        spec_date,
        algorithms: algorithms(context)?,
        curves: curves(context)?,
        banks: banks(context)?,
        lockout,
        loaded_objects: count(context, TRANSIENT_FIRST)?,
        loaded_sessions: count(context, LOADED_SESSION_FIRST)?,
        persistent_objects: count(context, PERSISTENT_FIRST)?,
        free_objects,
        endorsement_enabled: startup & ENDORSEMENT_ENABLED != 0,
        endorsement_auth_set: permanent & ENDORSEMENT_AUTH_SET != 0,
        owner_auth_set: permanent & OWNER_AUTH_SET != 0,
    })
}

/// Whether this TPM has the curve P-256; false where it has no ECC.
pub(super) fn has_p256(context: &mut Context) -> Result<bool, TpmError> {
    const P256: u16 = 0x0003;
    has_curve(context, P256)
}

/// The TPM answers with the first curve from `id` on.
fn has_curve(context: &mut Context, id: u16) -> Result<bool, TpmError> {
    let answer = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::EccCurves, id.into(), 1)
    });
    match answer {
        Ok((CapabilityData::EccCurves(list), _)) => {
            Ok(list.into_inner().into_iter().any(|curve| u16::from(curve) == id))
        }
        // The next curve is one that the library does not know, or the TPM has no ECC.
        Ok(_) | Err(Error::WrapperError(_)) => Ok(false),
        Err(error) if super::response::kind(&error) == Some(Kind::Value) => Ok(false),
        Err(error) => Err(tpm_error(error, COMMAND, None)),
    }
}

/// All handles of `first`'s type from `first` on.
pub(super) fn handles(context: &mut Context, first: u32) -> Result<Vec<TpmHandle>, TpmError> {
    let mut out: Vec<TpmHandle> = Vec::new();
    let mut next = first;
    for _ in 0..MAX_HANDLE_COMMANDS {
        let (data, more) = context
            .execute_without_session(|context| {
                context.get_capability(CapabilityType::Handles, next, HANDLES_PER_COMMAND)
            })
            .map_err(|error| tpm_error(error, COMMAND, None))?;
        let CapabilityData::Handles(list) = data else {
            return Err(TpmError::Malformed { command: COMMAND, detail: "no handles".to_owned() });
        };
        out.extend(list.into_inner());
        match out.last().map(|last| u32::from(*last)) {
            Some(last) if more => next = last.saturating_add(1),
            _ => break,
        }
    }
    Ok(out)
}

fn count(context: &mut Context, first: u32) -> Result<u32, TpmError> {
    // A list of handles starts at `first` and stays within its type (the top byte).
    let same = handles(context, first)?
        .into_iter()
        .filter(|handle| u32::from(*handle) >> 24 == first >> 24);
    Ok(u32::try_from(same.count()).unwrap_or(u32::MAX))
}

/// One property; `None` where the TPM has no such property. Not cached: some change.
fn property(context: &mut Context, tag: u32) -> Result<Option<u32>, TpmError> {
    let answer = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::TpmProperties, tag, 1)
    });
    match answer {
        Ok((CapabilityData::TpmProperties(list), _)) => Ok(list
            .into_iter()
            .find(|item| u32::from(item.property()) == tag)
            .map(|item| item.value())),
        // The TPM answers with the next property it has; the library may not know that one.
        Ok(_) | Err(Error::WrapperError(_)) => Ok(None),
        Err(error) => Err(tpm_error(error, COMMAND, None)),
    }
}

/// Four characters a word, without padding.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let printable: String =
        bytes.filter(|byte| (0x20..0x7f).contains(byte)).map(char::from).collect();
    printable.trim().to_owned()
}

fn algorithms(context: &mut Context) -> Result<Vec<String>, TpmError> {
    let answer = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::Algorithms, 0, 128)
    });
    match answer {
        Ok((CapabilityData::Algorithms(list), _)) => {
            Ok(list.into_iter().map(|item| name(item.algorithm_identifier())).collect())
        }
        Ok(_) | Err(Error::WrapperError(_)) => {
            let mut out = Vec::new();
            for (id, known) in KNOWN_ALGORITHMS {
                if has_algorithm(context, id)? {
                    out.push(known.to_owned());
                }
            }
            Ok(out)
        }
        Err(error) => Err(tpm_error(error, COMMAND, None)),
    }
}

fn has_algorithm(context: &mut Context, id: u16) -> Result<bool, TpmError> {
    let answer = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::Algorithms, id.into(), 1)
    });
    match answer {
        Ok((CapabilityData::Algorithms(list), _)) => {
            Ok(list.into_iter().any(|item| u16::from(item.algorithm_identifier()) == id))
        }
        Ok(_) | Err(Error::WrapperError(_)) => Ok(false),
        Err(error) => Err(tpm_error(error, COMMAND, None)),
    }
}

fn name(algorithm: AlgorithmIdentifier) -> String {
    let id = u16::from(algorithm);
    KNOWN_ALGORITHMS
        .iter()
        .find(|(known, _)| *known == id)
        .map_or_else(|| format!("{algorithm:?}").to_lowercase(), |(_, name)| (*name).to_owned())
}

fn curves(context: &mut Context) -> Result<Vec<String>, TpmError> {
    let mut out = Vec::new();
    for (id, name) in KNOWN_CURVES {
        if has_curve(context, id)? {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

fn banks(context: &mut Context) -> Result<Vec<BankFacts>, TpmError> {
    let (data, _) = context
        .execute_without_session(|context| {
            context.get_capability(CapabilityType::AssignedPcr, 0, 16)
        })
        .map_err(|error| tpm_error(error, COMMAND, None))?;
    let CapabilityData::AssignedPcr(list) = data else {
        return Err(TpmError::Malformed { command: COMMAND, detail: "no PCR banks".to_owned() });
    };
    Ok(list
        .get_selections()
        .iter()
        .filter(|bank| !bank.is_empty())
        .map(|bank| {
            let alg: HashingAlgorithm = bank.hashing_algorithm();
            BankFacts {
                tpm_id: AlgorithmIdentifier::from(alg).into(),
                alg: name(alg.into()),
                pcrs: bank.selected().into_iter().map(u32::from).fold(0, |all, bit| all | bit),
            }
        })
        .collect())
}
