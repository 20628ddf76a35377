//! `TPMS_ATTEST` with any field.

use proto::{
    digest::{HashAlg, PcrSet},
    tpm::{
        constants::{ST_ATTEST_CERTIFY, ST_ATTEST_QUOTE, TPM_GENERATED},
        credential::sized,
    },
};

/// A `TPMS_ATTEST` in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestTemplate {
    /// `TPM_GENERATED_VALUE` in an honest one.
    pub magic: u32,
    /// `TPMI_ST_ATTEST`.
    pub kind: u16,
    /// Qualified Name of the signer.
    pub qualified_signer: Vec<u8>,
    /// qualifyingData.
    pub extra_data: Vec<u8>,
    /// Milliseconds.
    pub clock_ms: u64,
    /// resetCount.
    pub reset_count: u32,
    /// restartCount.
    pub restart_count: u32,
    /// `TPMI_YES_NO`: 1 for safe.
    pub safe: u8,
    /// Vendor-defined.
    pub firmware_version: u64,
    /// What is attested.
    pub body: Body,
    /// Bytes after the structure; none in an honest one.
    pub trailing: Vec<u8>,
}

/// `TPMU_ATTEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `TPMS_QUOTE_INFO`.
    Quote {
        /// Bank and pcrSelect bytes, in signed order.
        selection: Vec<(u16, Vec<u8>)>,
        /// `pcrDigest`.
        digest: Vec<u8>,
    },
    /// `TPMS_CERTIFY_INFO`.
    Certify {
        /// Name of the object.
        name: Vec<u8>,
        /// Its Qualified Name.
        qualified_name: Vec<u8>,
    },
    /// Any bytes.
    Raw(Vec<u8>),
}

impl Body {
    /// `TPMI_ST_ATTEST` that belongs to it.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Quote { .. } => ST_ATTEST_QUOTE,
            Self::Certify { .. } => ST_ATTEST_CERTIFY,
            Self::Raw(_) => 0x8014,
        }
    }
}

/// A selection as a TPM signs it: `sizeofSelect` 3.
#[must_use]
pub fn selection<'a>(
    banks: impl IntoIterator<Item = &'a (HashAlg, PcrSet)>,
) -> Vec<(u16, Vec<u8>)> {
    banks
        .into_iter()
        .map(|(alg, set)| (alg.tpm_id(), set.bits().to_le_bytes()[..3].to_vec()))
        .collect()
}

impl AttestTemplate {
    /// An honest structure around `body`, with counters of zero.
    #[must_use]
    pub fn new(body: Body, qualified_signer: &[u8], extra_data: &[u8]) -> Self {
        Self {
            magic: TPM_GENERATED,
            kind: body.kind(),
            qualified_signer: qualified_signer.to_vec(),
            extra_data: extra_data.to_vec(),
            clock_ms: 0,
            reset_count: 0,
            restart_count: 0,
            safe: 1,
            firmware_version: 0,
            body,
            trailing: Vec::new(),
        }
    }

    /// The structure's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.magic.to_be_bytes().to_vec();
        out.extend(self.kind.to_be_bytes());
        out.extend(sized(&self.qualified_signer));
        out.extend(sized(&self.extra_data));
        out.extend(self.clock_ms.to_be_bytes());
        out.extend(self.reset_count.to_be_bytes());
        out.extend(self.restart_count.to_be_bytes());
        out.push(self.safe);
        out.extend(self.firmware_version.to_be_bytes());
        match &self.body {
            Body::Quote { selection, digest } => {
                out.extend(u32::try_from(selection.len()).unwrap_or(u32::MAX).to_be_bytes());
                for (alg, select) in selection {
                    out.extend(alg.to_be_bytes());
                    out.push(u8::try_from(select.len()).unwrap_or(u8::MAX));
                    out.extend(select);
                }
                out.extend(sized(digest));
            }
            Body::Certify { name, qualified_name } => {
                out.extend(sized(name));
                out.extend(sized(qualified_name));
            }
            Body::Raw(bytes) => out.extend(bytes),
        }
        out.extend(&self.trailing);
        out
    }
}
