//! What is odd in a log.

use std::fmt;

use proto::reason::ReasonCode;
use serde::{Deserialize, Serialize};

/// One oddity, where, and in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code.
    pub code: ProblemCode,
    /// The event in the firmware log; `None` where one is missing.
    pub event: Option<u32>,
    /// The PCR, where there is one.
    pub pcr: Option<u8>,
    /// In words.
    pub detail: String,
}

/// What follows from an oddity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemClass {
    /// Evidence is refused where policy requires the PCR.
    Refusal(ReasonCode),
    /// Policy decides.
    Fact,
}

macro_rules! problems {
    ($($variant:ident $wire:literal $class:expr, $doc:literal;)*) => {
        /// Kinds of oddities: stable, never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum ProblemCode {
            $(#[doc = $doc] #[serde(rename = $wire)] $variant,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable string.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            /// What follows from it.
            #[must_use]
            pub const fn class(self) -> ProblemClass {
                match self { $(Self::$variant => $class,)* }
            }

            /// What it means, one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

const SEPARATOR: ProblemClass = ProblemClass::Refusal(ReasonCode::EventLogSeparatorInvalid);

problems! {
    ApplicationBeforeCall "APPLICATION_BEFORE_CALL" ProblemClass::Fact, "An image was measured into PCR 4 before firmware called the boot option.";
    ApplicationCallMissing "APPLICATION_CALL_MISSING" ProblemClass::Fact, "PCR 4 does not say that firmware called a boot option.";
    DataNotVouched "DATA_NOT_VOUCHED" ProblemClass::Fact, "The event's digest is not over its data, as it should be for its type.";
    DebugMode "DEBUG_MODE" ProblemClass::Fact, "The firmware was in debug mode.";
    DigestMissing "DIGEST_MISSING" ProblemClass::Fact, "An extended event has no digest of a bank.";
    DmaProtectionDisabled "DMA_PROTECTION_DISABLED" ProblemClass::Fact, "Protection against DMA was off.";
    ExitBootServicesFailed "EXIT_BOOT_SERVICES_FAILED" ProblemClass::Fact, "Leaving the firmware failed at least once.";
    ExitBootServicesMissing "EXIT_BOOT_SERVICES_MISSING" ProblemClass::Fact, "PCR 5 does not say that the firmware was left with success.";
    NoActionDigest "NO_ACTION_DIGEST" ProblemClass::Fact, "An event that is not extended has a digest other than zero.";
    NoActionMisplaced "NO_ACTION_MISPLACED" ProblemClass::Fact, "An event that is not extended stands where the specification does not put it.";
    SecureBootUnknown "SECURE_BOOT_UNKNOWN" ProblemClass::Fact, "The log does not prove whether Secure Boot is on.";
    SecureBootVariableLate "SECURE_BOOT_VARIABLE_LATE" ProblemClass::Fact, "A Secure Boot variable was measured after the separator.";
    SecureBootVariableMalformed "SECURE_BOOT_VARIABLE_MALFORMED" ProblemClass::Fact, "A Secure Boot variable has a wrong length or content.";
    SecureBootVariableRepeated "SECURE_BOOT_VARIABLE_REPEATED" ProblemClass::Fact, "A Secure Boot variable was measured twice.";
    SeparatorError "SEPARATOR_ERROR" SEPARATOR, "A separator reports an error.";
    SeparatorMissing "SEPARATOR_MISSING" SEPARATOR, "A firmware PCR has no separator.";
    SeparatorRepeated "SEPARATOR_REPEATED" SEPARATOR, "A firmware PCR has more than one separator.";
    SetupMode "SETUP_MODE" ProblemClass::Fact, "No platform key is enrolled: anybody can change the Secure Boot keys.";
    TypeMislabelled "TYPE_MISLABELLED" ProblemClass::Fact, "The event's type and its digest contradict each other.";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Problem {
    pub(super) fn at(
        code: ProblemCode,
        event: u32,
        pcr: Option<u8>,
        detail: impl Into<String>,
    ) -> Self {
        Self { code, event: Some(event), pcr, detail: detail.into() }
    }

    pub(super) fn missing(code: ProblemCode, pcr: u8, detail: impl Into<String>) -> Self {
        Self { code, event: None, pcr: Some(pcr), detail: detail.into() }
    }
}
