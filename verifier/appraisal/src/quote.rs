//! `TPM2_Quote`: signature first, then structure, then what it answers.

use proto::{
    binding::QualifyingData,
    evidence::SignedAttest,
    reason::ReasonCode,
    tpm::{
        DecodeErrorKind,
        attest::{Attest, Attested, ClockInfo, QuotedBank},
        constants::TPM_GENERATED,
    },
};
use subtle::ConstantTimeEq;

use crate::{
    ak::BoundAk,
    verdict::{Denial, Finding},
    verification_key::SignatureError,
};

/// A quote that the bound AK signed, not yet shown to answer anything.
#[derive(Debug)]
pub struct SignedQuote<'a> {
    attest: Attest<'a>,
    selection: Vec<QuotedBank>,
    pcr_digest: &'a [u8],
}

/// A quote by the bound AK that answers this challenge for this node key and tool log.
///
/// # Proves
/// A TPM made it (magic, type, qualifiedSigner), the AK signed these bytes, and `extraData` is our
/// qualifyingData.
///
/// # Does not prove
/// What the PCR values are: see [`crate::pcr::AttestedPcrs`].
///
/// # Errors
/// `QUOTE_SIGNATURE_SCHEME_MISMATCH`, `QUOTE_SIGNATURE_INVALID`, `QUOTE_NOT_TPM_GENERATED`, `QUOTE_WRONG_TYPE`,
/// `QUOTE_QUALIFIED_SIGNER_MISMATCH`, `QUOTE_QUALIFYING_DATA_MISMATCH`, and the decoder's codes.
///
/// # Source
/// TPM 2.0 Library Part 3, "TPM2_Quote"; Part 2, "TPMS_QUOTE_INFO".
///
/// # Invariants
/// INV-2 (docs/THREAT_MODEL.md). There is no other way to one than [`SignedQuote::answering`]:
/// ```compile_fail,E0451
/// use appraisal::quote::{SignedQuote, VerifiedQuote};
///
/// fn forge<'a>(honest: VerifiedQuote<'a>, digest: &'a [u8]) -> VerifiedQuote<'a> {
///     VerifiedQuote { pcr_digest: digest, ..honest }
/// }
/// ```
#[derive(Debug)]
pub struct VerifiedQuote<'a> {
    clock_info: ClockInfo,
    firmware_version: u64,
    selection: Vec<QuotedBank>,
    pcr_digest: &'a [u8],
}

impl<'a> SignedQuote<'a> {
    /// Verifies the signature over the raw bytes, then decodes and judges the header.
    ///
    /// # Errors
    /// See [`VerifiedQuote`].
    pub fn verify(ak: &BoundAk, signed: &'a SignedAttest) -> Result<Self, Denial> {
        ak.key().verify(&signed.untrusted_attest, &signed.signature).map_err(
            |error| match error {
                SignatureError::SchemeMismatch => deny(
                    ReasonCode::QuoteSignatureSchemeMismatch,
                    format!("{:?}", ak.key().scheme()),
                    format!("{:?}", signed.signature.untrusted_scheme),
                ),
                SignatureError::Invalid => deny(
                    ReasonCode::QuoteSignatureInvalid,
                    format!("a signature by the AK with Name {}", ak.ak().name()),
                    "does not verify",
                ),
            },
        )?;
        let mut attest = Attest::decode(&signed.untrusted_attest).map_err(|error| {
            deny(error.code(), decode_expectation(&error.kind), error.to_string())
        })?;
        if attest.magic != TPM_GENERATED {
            return Err(deny(
                ReasonCode::QuoteNotTpmGenerated,
                format!("magic {TPM_GENERATED:#010x}"),
                format!("{:#010x}", attest.magic),
            ));
        }
        let (selection, pcr_digest) = match &mut attest.attested {
            Attested::Quote { selection, pcr_digest } => (std::mem::take(selection), *pcr_digest),
            other => {
                return Err(deny(
                    ReasonCode::QuoteWrongType,
                    "TPM_ST_ATTEST_QUOTE",
                    attested_name(other),
                ));
            }
        };
        if attest.qualified_signer != ak.qualified_name().as_bytes() {
            return Err(deny(
                ReasonCode::QuoteQualifiedSignerMismatch,
                ak.qualified_name().to_string(),
                hex::encode(attest.qualified_signer),
            ));
        }
        Ok(Self { attest, selection, pcr_digest })
    }

    /// Compares `extraData` with what this exchange demands: exact length, constant time.
    ///
    /// # Errors
    /// `QUOTE_QUALIFYING_DATA_MISMATCH`.
    pub fn answering(self, expected: &QualifyingData) -> Result<VerifiedQuote<'a>, Denial> {
        if !bool::from(self.attest.extra_data.ct_eq(expected.as_bytes())) {
            return Err(deny(
                ReasonCode::QuoteQualifyingDataMismatch,
                hex::encode(expected.as_bytes()),
                hex::encode(self.attest.extra_data),
            ));
        }
        Ok(VerifiedQuote {
            clock_info: self.attest.clock_info,
            firmware_version: self.attest.firmware_version,
            selection: self.selection,
            pcr_digest: self.pcr_digest,
        })
    }
}

impl VerifiedQuote<'_> {
    /// Clock and counters, plain because the AK is a child of the EK.
    #[must_use]
    pub const fn clock_info(&self) -> ClockInfo {
        self.clock_info
    }

    /// TPM firmware version, vendor-defined.
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// Signed selection, in signed order.
    #[must_use]
    pub fn selection(&self) -> &[QuotedBank] {
        &self.selection
    }

    /// Signed digest over the selected PCRs.
    #[must_use]
    pub const fn pcr_digest(&self) -> &[u8] {
        self.pcr_digest
    }
}

/// Name of an attestation type, for findings.
pub(crate) fn attested_name(attested: &Attested<'_>) -> String {
    match attested {
        Attested::Quote { .. } => "TPM_ST_ATTEST_QUOTE".into(),
        Attested::Certify { .. } => "TPM_ST_ATTEST_CERTIFY".into(),
        Attested::Other(tag) => format!("{tag:#06x}"),
        _ => "another type".into(),
    }
}

fn decode_expectation(kind: &DecodeErrorKind) -> &'static str {
    match kind {
        DecodeErrorKind::BankRepeated(_) => "at most one entry a bank",
        DecodeErrorKind::SelectSize(_) => "sizeofSelect 3",
        _ => "a TPMS_ATTEST",
    }
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "quote", expected, observed).into()
}
