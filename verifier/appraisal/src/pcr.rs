//! PCR values against the quote.

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection},
    evidence::PcrValue,
    reason::ReasonCode,
};
use subtle::ConstantTimeEq;

use crate::{
    ak::BoundAk,
    quote::VerifiedQuote,
    verdict::{Denial, Finding},
};

/// PCR values that this node's TPM reported in answer to our challenge.
///
/// # Proves
/// `values` hash, in signed selection order, to the `pcrDigest` inside a [`VerifiedQuote`], and cover what was
/// asked for.
///
/// # Does not prove
/// That any log describes them; see [`crate::measurement::AttestedMeasurements`].
///
/// # Format
/// Strictly ascending by (bank, index); each digest has its bank's size.
///
/// # Errors
/// `PCR_SELECTION_EMPTY`, `PCR_SELECTION_INVALID`, `PCR_SELECTION_INCOMPLETE`, `PCR_VALUES_INVALID`,
/// `PCR_DIGEST_MISMATCH`.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPMS_QUOTE_INFO"; Part 1, "Selecting Multiple PCR".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedPcrs {
    values: Vec<PcrValue>,
}

impl AttestedPcrs {
    /// Matches presented values with the signed selection and digest.
    ///
    /// # Errors
    /// See the type.
    pub fn verify(
        ak: &BoundAk,
        quote: &VerifiedQuote<'_>,
        asked: &PcrSelection,
        presented: &[PcrValue],
    ) -> Result<Self, Denial> {
        if quote.selection().iter().all(|bank| bank.pcrs.is_empty()) {
            return Err(deny(ReasonCode::PcrSelectionEmpty, describe(asked), "no PCR"));
        }
        let mut quoted = Vec::with_capacity(quote.selection().len());
        for bank in quote.selection() {
            match HashAlg::from_tpm(bank.hash_alg) {
                Some(alg) => quoted.push((alg, bank.pcrs)),
                None if bank.pcrs.is_empty() => {}
                None => {
                    return Err(deny(
                        ReasonCode::PcrSelectionInvalid,
                        "banks sha256, sha384, sha512",
                        format!("bank {:#06x}", bank.hash_alg),
                    ));
                }
            }
        }
        let quoted_set = PcrSelection::new(quoted.iter().copied());
        for (alg, set) in asked.banks() {
            if !quoted_set.bank(*alg).is_superset(*set) {
                return Err(deny(
                    ReasonCode::PcrSelectionIncomplete,
                    describe(asked),
                    describe(&quoted_set),
                ));
            }
        }
        // Presented values are strictly ascending by (bank, index), as the selection iterates.
        let same_set = presented.len() == quoted_set.iter().count()
            && quoted_set
                .iter()
                .zip(presented)
                .all(|(at, value)| at == (value.value.alg(), value.index));
        if !same_set {
            return Err(deny(
                ReasonCode::PcrValuesInvalid,
                format!("one value for each of {}", describe(&quoted_set)),
                format!("{} values", presented.len()),
            ));
        }
        let mut parts: Vec<&[u8]> = Vec::with_capacity(presented.len());
        for (alg, set) in &quoted {
            parts.extend(
                presented
                    .iter()
                    .filter(|value| value.value.alg() == *alg && set.contains(value.index))
                    .map(|value| value.value.as_bytes()),
            );
        }
        let digest = ak.key().scheme().hash_alg().hash(&parts);
        if !bool::from(digest.as_bytes().ct_eq(quote.pcr_digest())) {
            return Err(deny(
                ReasonCode::PcrDigestMismatch,
                hex::encode(quote.pcr_digest()),
                hex::encode(digest.as_bytes()),
            ));
        }
        Ok(Self { values: presented.to_vec() })
    }

    /// The value of one PCR, if it was quoted.
    #[must_use]
    pub fn value(&self, alg: HashAlg, index: PcrIndex) -> Option<&Digest> {
        self.values
            .binary_search_by_key(&(alg, index), |value| (value.value.alg(), value.index))
            .ok()
            .and_then(|at| self.values.get(at))
            .map(|value| &value.value)
    }

    /// All values, ascending by (bank, index).
    #[must_use]
    pub fn values(&self) -> &[PcrValue] {
        &self.values
    }
}

/// `sha256: 0 1 2, sha384: 0`.
#[must_use]
pub fn describe(selection: &PcrSelection) -> String {
    let banks: Vec<String> = selection
        .banks()
        .iter()
        .map(|(alg, set)| {
            let indexes: Vec<String> = set.iter().map(|index| index.to_string()).collect();
            format!("{alg}: {}", indexes.join(" "))
        })
        .collect();
    if banks.is_empty() { "no PCR".into() } else { banks.join(", ") }
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "PCR selection and values", expected, observed).into()
}
