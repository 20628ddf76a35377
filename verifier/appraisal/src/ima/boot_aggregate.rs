//! The first entry: a hash over the firmware's PCRs, which ties the list to this boot.

use proto::{
    ima::{BankAlg, BankDigest, Fields},
    reason::ReasonCode,
};
use serde::{Deserialize, Serialize};

use crate::verdict::Finding;

/// PCRs that a kernel hashes into the entry.
///
/// # Source
/// Linux `security/integrity/ima/ima_crypto.c`, `ima_calc_boot_aggregate_tfm`: PCR 0 to 7; since
/// 5.9 also 8 and 9 (boot loader's and initrd's), except in the SHA-1 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AggregateForm {
    /// PCR 0 to 7.
    #[serde(rename = "pcr-0-7")]
    Pcr0To7,
    /// PCR 0 to 9.
    #[serde(rename = "pcr-0-9")]
    Pcr0To9,
}

impl AggregateForm {
    /// Forms that kernels use in this bank, the newest first.
    #[must_use]
    pub const fn of(bank: BankAlg) -> &'static [Self] {
        match bank {
            BankAlg::Sha1 => &[Self::Pcr0To7],
            BankAlg::Sha256 | BankAlg::Sha384 | BankAlg::Sha512 => &[Self::Pcr0To9, Self::Pcr0To7],
        }
    }

    const fn pcrs(self) -> u8 {
        match self {
            Self::Pcr0To7 => 8,
            Self::Pcr0To9 => 10,
        }
    }
}

/// What firmware's PCRs held when the kernel started: from its replayed log, or quoted where nothing
/// extends them later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootPcrs {
    values: Vec<(u8, BankDigest)>,
    /// Hashes that were made of them when more of them were known.
    aggregates: Vec<BootAggregate>,
}

impl BootPcrs {
    /// None known.
    #[must_use]
    pub const fn new() -> Self {
        Self { values: Vec::new(), aggregates: Vec::new() }
    }

    /// Sets the value of one PCR in the bank of `value`; the last one set counts.
    pub fn set(&mut self, index: u8, value: BankDigest) {
        self.values.retain(|(known, old)| (*known, old.alg()) != (index, value.alg()));
        self.values.push((index, value));
    }

    /// Adds hashes that were made of the same boot's PCRs before, in banks that are not quoted.
    pub fn know(&mut self, aggregates: &[BootAggregate]) {
        self.aggregates.extend_from_slice(aggregates);
    }

    /// The value of one PCR.
    #[must_use]
    pub fn get(&self, bank: BankAlg, index: u8) -> Option<&BankDigest> {
        self.values
            .iter()
            .find(|(known, value)| (*known, value.alg()) == (index, bank))
            .map(|(_, v)| v)
    }

    /// The hash that a kernel makes of them; `None` if one is not known.
    #[must_use]
    pub fn aggregate(&self, bank: BankAlg, form: AggregateForm) -> Option<BankDigest> {
        let values: Option<Vec<&[u8]>> =
            (0..form.pcrs()).map(|index| self.get(bank, index).map(BankDigest::as_bytes)).collect();
        Some(bank.hash(&values?))
    }

    /// Every hash that a kernel may have made of them.
    #[must_use]
    pub fn candidates(&self) -> Vec<BootAggregate> {
        let forms = |bank| AggregateForm::of(bank).iter().map(move |form| (bank, *form));
        BankAlg::ALL
            .into_iter()
            .flat_map(forms)
            .filter_map(|(bank, form)| {
                Some(BootAggregate { digest: self.aggregate(bank, form)?, form })
            })
            .chain(self.aggregates.iter().copied())
            .collect()
    }
}

impl FromIterator<(u8, BankDigest)> for BootPcrs {
    fn from_iter<I: IntoIterator<Item = (u8, BankDigest)>>(values: I) -> Self {
        let mut out = Self::new();
        values.into_iter().for_each(|(index, value)| out.set(index, value));
        out
    }
}

/// The entry, as it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootAggregate {
    /// Its digest.
    pub digest: BankDigest,
    /// The PCRs that it is over.
    pub form: AggregateForm,
}

impl BootAggregate {
    /// Checks the fields of a list's first entry.
    ///
    /// # Errors
    /// `IMA_BOOT_AGGREGATE_MISSING` if it is another entry or a violation,
    /// `IMA_BOOT_AGGREGATE_MISMATCH` if its digest is not one that a kernel makes of these PCRs.
    pub fn verify(fields: Option<&Fields<'_>>, pcrs: &BootPcrs) -> Result<Self, Finding> {
        let missing = |observed: String| {
            let code = ReasonCode::ImaBootAggregateMissing;
            Finding::new(code, SUBJECT, "boot_aggregate", observed)
        };
        let Some(fields) = fields else { return Err(missing("a violation".to_owned())) };
        if fields.name != Some(proto::ima::BOOT_AGGREGATE) {
            let name = fields.name.map_or_else(|| "no name".to_owned(), proto::tool_log::path_text);
            return Err(missing(name));
        }
        let Some(digest) = fields.digest else { return Err(missing("no digest".to_owned())) };
        let observed =
            digest.algorithm.and_then(|alg| BankDigest::new(alg.bank()?, digest.bytes).ok());
        let candidates = pcrs.candidates();
        let found = observed
            .and_then(|observed| candidates.iter().find(|candidate| candidate.digest == observed));
        found.copied().ok_or_else(|| {
            let bank = observed.map(|observed| observed.alg());
            let known: Vec<String> = candidates
                .iter()
                .filter(|candidate| Some(candidate.digest.alg()) == bank)
                .map(|candidate| candidate.digest.to_string())
                .collect();
            let expected = match (known.is_empty(), bank) {
                (false, _) => known.join(" or "),
                (true, Some(bank)) => format!("a bank whose PCRs are known, not {bank}"),
                (true, None) => "the hash of a PCR bank".to_owned(),
            };
            let code = ReasonCode::ImaBootAggregateMismatch;
            Finding::new(code, SUBJECT, expected, digest.to_string())
        })
    }
}

const SUBJECT: &str = "IMA entry 000000: boot_aggregate";

#[cfg(test)]
mod tests {
    use proto::ima::{DigestKind, FileDigest};

    use super::*;

    fn pcrs(bank: BankAlg, count: u8) -> BootPcrs {
        (0..count).map(|index| (index, bank.hash(&[&[index]]))).collect()
    }

    fn over(bank: BankAlg, count: u8) -> BankDigest {
        let values: Vec<u8> =
            (0..count).flat_map(|index| bank.hash(&[&[index]]).as_bytes().to_vec()).collect();
        bank.hash(&[&values])
    }

    fn verified(digest: &BankDigest, pcrs: &BootPcrs) -> Result<AggregateForm, ReasonCode> {
        let file = FileDigest {
            kind: DigestKind::File,
            algorithm: Some(digest.alg().kernel()),
            algorithm_name: "",
            bytes: digest.as_bytes(),
        };
        let fields =
            Fields { digest: Some(file), name: Some(b"boot_aggregate"), ..Fields::default() };
        BootAggregate::verify(Some(&fields), pcrs)
            .map(|aggregate| aggregate.form)
            .map_err(|finding| finding.code)
    }

    #[test]
    fn every_form_of_kernels_is_found() {
        let all: BootPcrs =
            BankAlg::ALL.into_iter().flat_map(|bank| pcrs(bank, 10).values).collect();
        for bank in BankAlg::ALL {
            assert_eq!(verified(&over(bank, 8), &all), Ok(AggregateForm::Pcr0To7), "{bank}");
            let to_9 = verified(&over(bank, 10), &all);
            if bank == BankAlg::Sha1 {
                assert_eq!(to_9, Err(ReasonCode::ImaBootAggregateMismatch), "never in SHA-1");
            } else {
                assert_eq!(to_9, Ok(AggregateForm::Pcr0To9), "{bank}");
            }
        }
    }

    #[test]
    fn another_value_or_an_unknown_bank_does_not_match() {
        let mismatch = Err(ReasonCode::ImaBootAggregateMismatch);
        let known = pcrs(BankAlg::Sha256, 10);
        assert_eq!(verified(&over(BankAlg::Sha256, 9), &known), mismatch);
        assert_eq!(verified(&over(BankAlg::Sha384, 10), &known), mismatch);
        assert_eq!(verified(&BankDigest::zero(BankAlg::Sha1), &known), mismatch);
        assert_eq!(verified(&over(BankAlg::Sha256, 10), &BootPcrs::new()), mismatch);
        let only_8 = pcrs(BankAlg::Sha256, 8);
        assert_eq!(verified(&over(BankAlg::Sha256, 8), &only_8), Ok(AggregateForm::Pcr0To7));
    }

    #[test]
    fn another_first_entry_is_none() {
        let known = pcrs(BankAlg::Sha256, 10);
        let code = |fields: Option<&Fields<'_>>| {
            BootAggregate::verify(fields, &known).map_err(|finding| finding.code)
        };
        let missing = Err(ReasonCode::ImaBootAggregateMissing);
        assert_eq!(code(None), missing);
        assert_eq!(code(Some(&Fields::default())), missing);
        let named = Fields { name: Some(b"/boot_aggregate"), ..Fields::default() };
        assert_eq!(code(Some(&named)), missing);
        let undigested = Fields { name: Some(b"boot_aggregate"), ..Fields::default() };
        assert_eq!(code(Some(&undigested)), missing);
    }
}
