//! The list against the quoted PCR.

use proto::{
    digest::{Digest, PcrIndex},
    evidence::LogSuffix,
    ima::{BankAlg, BankDigest, ImaEntry, ImaListReader, ListEnd, ListFormat},
    limits::MAX_IMA_LOG_BYTES,
    reason::ReasonCode,
    tool_log::path_text,
};

use super::{
    boot_aggregate::{BootAggregate, BootPcrs},
    state::{ImaBank, ImaState, TemplateHashing},
};
use crate::{
    pcr::AttestedPcrs,
    verdict::{Denial, Finding},
};

/// Values of one PCR while a list is replayed, in several banks, under each way of hashing that a
/// kernel may have.
#[derive(Clone, Debug)]
pub struct ListReplay {
    pcr: PcrIndex,
    entries: u64,
    violations: u64,
    banks: Vec<BankReplay>,
}

/// One bank, with a value for each way of hashing that is still possible.
#[derive(Clone, Copy, Debug)]
struct BankReplay {
    alg: BankAlg,
    per_bank: Option<BankDigest>,
    padded: Option<BankDigest>,
}

impl ListReplay {
    /// The start: the PCR at zero in each bank, under every way of hashing.
    #[must_use]
    pub fn new(pcr: PcrIndex, banks: &[BankAlg]) -> Self {
        let mut out = Self::per_bank(pcr, banks);
        for bank in &mut out.banks {
            // SHA-1 padded to SHA-1 is SHA-1.
            bank.padded = bank.per_bank.filter(|_| bank.alg != BankAlg::Sha1);
        }
        out
    }

    /// The start, for a kernel that hashes for each bank.
    fn per_bank(pcr: PcrIndex, banks: &[BankAlg]) -> Self {
        let zero = |alg: &BankAlg| {
            let per_bank = Some(BankDigest::zero(*alg));
            BankReplay { alg: *alg, per_bank, padded: None }
        };
        Self { pcr, entries: 0, violations: 0, banks: banks.iter().map(zero).collect() }
    }

    fn continuing(state: &ImaState) -> Self {
        let banks = state
            .banks
            .iter()
            .map(|bank| {
                let value = Some(BankDigest::from(&bank.value));
                let (per_bank, padded) = match bank.hashing {
                    TemplateHashing::PerBank => (value, None),
                    TemplateHashing::PaddedSha1 => (None, value),
                };
                BankReplay { alg: bank.value.alg().into(), per_bank, padded }
            })
            .collect();
        Self { pcr: state.pcr, entries: state.entries, violations: state.violations, banks }
    }

    /// Extends each bank by one entry.
    ///
    /// # Errors
    /// `IMA_WRONG_PCR` for an entry of another PCR, `IMA_TEMPLATE_DIGEST_MISMATCH` for one whose
    /// digest is not that of its fields. Nothing is extended then.
    pub fn push(&mut self, entry: &ImaEntry<'_>) -> Result<(), Finding> {
        if entry.untrusted_pcr != u32::from(self.pcr.get()) {
            return Err(Finding::new(
                ReasonCode::ImaWrongPcr,
                subject(self.entries, entry),
                format!("PCR {}", self.pcr),
                format!("PCR {}", entry.untrusted_pcr),
            ));
        }
        if entry.is_violation {
            for bank in &mut self.banks {
                let ones = BankDigest::ones(bank.alg);
                bank.per_bank = bank.per_bank.map(|value| value.extended(&ones));
                bank.padded = bank.padded.map(|value| value.extended(&ones));
            }
            self.violations = self.violations.saturating_add(1);
        } else {
            let recorded = entry.template_digest(entry.recorded.alg());
            if recorded != entry.recorded {
                return Err(Finding::new(
                    ReasonCode::ImaTemplateDigestMismatch,
                    subject(self.entries, entry),
                    recorded.to_string(),
                    entry.recorded.to_string(),
                ));
            }
            let mut sha1 = (recorded.alg() == BankAlg::Sha1).then_some(recorded);
            for bank in &mut self.banks {
                if let Some(value) = &mut bank.per_bank {
                    let digest = if bank.alg == recorded.alg() {
                        recorded
                    } else {
                        entry.template_digest(bank.alg)
                    };
                    *value = value.extended(&digest);
                }
                if let Some(value) = &mut bank.padded {
                    let digest = *sha1.get_or_insert_with(|| entry.template_digest(BankAlg::Sha1));
                    *value = value.extended(&digest.padded_to(bank.alg));
                }
            }
        }
        self.entries = self.entries.saturating_add(1);
        Ok(())
    }

    /// Entries so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Violations so far.
    #[must_use]
    pub const fn violations(&self) -> u64 {
        self.violations
    }

    /// Value of the PCR in one bank under one way of hashing; `None` if that is not replayed.
    #[must_use]
    pub fn value(&self, bank: BankAlg, hashing: TemplateHashing) -> Option<&BankDigest> {
        let bank = self.banks.iter().find(|known| known.alg == bank)?;
        match hashing {
            TemplateHashing::PerBank => bank.per_bank.as_ref(),
            TemplateHashing::PaddedSha1 => bank.padded.as_ref(),
        }
    }

    /// Whether each bank has one of its values in `quoted`, which has one value a bank, in the same
    /// order.
    fn matches(&self, quoted: &[Digest]) -> bool {
        let is_one_of = |bank: &BankReplay, quoted: &Digest| {
            [&bank.per_bank, &bank.padded]
                .into_iter()
                .flatten()
                .any(|value| value.as_bytes() == quoted.as_bytes())
        };
        self.banks.len() == quoted.len()
            && self.banks.iter().zip(quoted).all(|(bank, quoted)| is_one_of(bank, quoted))
    }

    /// The banks, with the way of hashing that gave the quoted values.
    fn decided(&self, quoted: &[Digest]) -> Vec<ImaBank> {
        let hashing = |bank: &BankReplay, quoted: &Digest| match bank.per_bank {
            Some(value) if value.as_bytes() == quoted.as_bytes() => TemplateHashing::PerBank,
            _ => TemplateHashing::PaddedSha1,
        };
        self.banks
            .iter()
            .zip(quoted)
            .map(|(bank, quoted)| ImaBank { value: *quoted, hashing: hashing(bank, quoted) })
            .collect()
    }

    fn describe(&self) -> String {
        let values: Vec<String> = self
            .banks
            .iter()
            .flat_map(|bank| {
                let padded = bank.padded.map(|value| format!("{value} (padded SHA-1)"));
                bank.per_bank.map(|value| value.to_string()).into_iter().chain(padded)
            })
            .collect();
        format!("{} after {} entries", values.join(", "), self.entries)
    }
}

/// A list whose beginning replays to quoted values of its PCR.
///
/// # Proves
/// In every quoted bank, at one and the same entry: nothing was left out, put in or changed before it,
/// and every entry's digest is that of its fields.
///
/// # Does not prove
/// That the values were quoted (the caller's part; see [`AnchoredImaList::verify`]), nor that the list
/// is of a kernel that firmware started (see [`ReplayedImaList::anchor`]). A violation's fields and the
/// names of templates are not under any digest.
#[derive(Clone, Debug)]
pub struct ReplayedImaList<'e> {
    known: Option<ImaState>,
    format: ListFormat,
    pcr: PcrIndex,
    entries: u64,
    violations: u64,
    banks: Vec<ImaBank>,
    prefix: &'e [u8],
    surplus_bytes: u64,
}

impl<'e> ReplayedImaList<'e> {
    /// Finds the prefix of `bytes` that replays, after what is `known`, to the `quoted` values.
    ///
    /// `known` is `None` at the start of a boot's list: then `from_bytes` must be 0. `quoted` has one
    /// value a bank. Bytes after the prefix are counted, not read: the list grew between the quote
    /// and its reading, or it ends within an entry.
    ///
    /// # Errors
    /// `IMA_OFFSET_INVALID` for bytes from elsewhere; `IMA_WRONG_PCR` if the quoted banks are not
    /// those known, or none, or an entry is of another PCR; `IMA_TEMPLATE_DIGEST_MISMATCH`; the codes
    /// of [`proto::ima::ImaError`]; `EVIDENCE_LIMIT_EXCEEDED` beyond the limit of one boot's list;
    /// `IMA_REPLAY_MISMATCH` if no prefix replays.
    pub fn replay(
        known: Option<&ImaState>,
        from_bytes: u64,
        bytes: &'e [u8],
        pcr: PcrIndex,
        quoted: &[Digest],
    ) -> Result<Self, Denial> {
        let start = known.map_or(0, |state| state.bytes);
        if from_bytes != start {
            return Err(deny(
                ReasonCode::ImaOffsetInvalid,
                format!("from byte {start} on"),
                format!("from byte {from_bytes} on"),
            ));
        }
        let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(start);
        if total > u64::try_from(MAX_IMA_LOG_BYTES).unwrap_or(u64::MAX) {
            return Err(deny(
                ReasonCode::EvidenceLimitExceeded,
                format!("at most {MAX_IMA_LOG_BYTES} bytes in one boot"),
                format!("{total} bytes"),
            ));
        }
        let mut quoted = quoted.to_vec();
        quoted.sort();
        let banks: Vec<BankAlg> = quoted.iter().map(|value| value.alg().into()).collect();
        // Without a readable first entry there is only the start to compare with.
        let format = known.map(ImaState::format).or_else(|| ListFormat::detect(bytes));
        let search =
            Search { start, bytes, quoted: &quoted, format: format.unwrap_or(ListFormat::ALL[0]) };
        let (replay, prefix) = match known {
            Some(state) => {
                let replay = ListReplay::continuing(state);
                same_banks(&replay, pcr, &banks)?;
                search.run(replay)?
            }
            None => {
                let replay = ListReplay::per_bank(pcr, &banks);
                same_banks(&replay, pcr, &banks)?;
                // What most kernels do first: trying everything at once would cost them a third more.
                search.run(replay).or_else(|_| search.run(ListReplay::new(pcr, &banks)))?
            }
        };
        let used = u64::try_from(prefix.len()).unwrap_or(u64::MAX);
        Ok(Self {
            known: known.cloned(),
            format: search.format,
            pcr,
            entries: replay.entries,
            violations: replay.violations,
            banks: replay.decided(&quoted),
            prefix,
            surplus_bytes: total.saturating_sub(start).saturating_sub(used),
        })
    }

    /// Ties the list to the firmware: its first entry must be the hash of these PCRs.
    ///
    /// A list that continues a known one was tied when that was.
    ///
    /// # Errors
    /// `IMA_BOOT_AGGREGATE_MISSING`, also for a list without any entry; `IMA_BOOT_AGGREGATE_MISMATCH`.
    pub fn anchor(self, boot: &BootPcrs) -> Result<AnchoredImaList<'e>, Denial> {
        let boot_aggregate = match &self.known {
            Some(state) => state.boot_aggregate,
            None => match ImaListReader::new(self.prefix, self.format).next() {
                Some(Ok(entry)) => BootAggregate::verify(entry.vouched(), boot)?,
                // What replayed is well-formed: there is no entry.
                _ => {
                    return Err(deny(
                        ReasonCode::ImaBootAggregateMissing,
                        "boot_aggregate",
                        "no entry",
                    ));
                }
            },
        };
        let used = u64::try_from(self.prefix.len()).unwrap_or(u64::MAX);
        let state = ImaState {
            pcr: self.pcr,
            order: self.format.order,
            recorded: self.format.recorded,
            entries: self.entries,
            bytes: self.known.as_ref().map_or(0, |state| state.bytes).saturating_add(used),
            violations: self.violations,
            banks: self.banks,
            boot_aggregate,
            judged: Vec::new(),
        };
        let (prefix, surplus_bytes) = (self.prefix, self.surplus_bytes);
        Ok(AnchoredImaList { known: self.known, state, prefix, surplus_bytes })
    }

    /// The banks, with how the kernel extends each.
    #[must_use]
    pub fn banks(&self) -> &[ImaBank] {
        &self.banks
    }

    /// Entries of the whole list up to the quote.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }
}

/// A list that the TPM and the firmware's measurements vouch for.
///
/// # Proves
/// As [`ReplayedImaList`], with values of a quote if made by [`AnchoredImaList::verify`]; and that the
/// list began in this boot, after this firmware.
#[derive(Clone, Debug)]
pub struct AnchoredImaList<'e> {
    pub(super) known: Option<ImaState>,
    pub(super) state: ImaState,
    pub(super) prefix: &'e [u8],
    surplus_bytes: u64,
}

impl<'e> AnchoredImaList<'e> {
    /// Replays what follows a `known` list to the quoted PCR, in every quoted bank.
    ///
    /// # Errors
    /// The codes of [`ReplayedImaList::replay`] and [`ReplayedImaList::anchor`].
    pub fn verify(
        known: Option<&ImaState>,
        suffix: Option<&'e LogSuffix>,
        pcrs: &AttestedPcrs,
        pcr: PcrIndex,
        boot: &BootPcrs,
    ) -> Result<Self, Denial> {
        let quoted: Vec<Digest> =
            pcrs.values().iter().filter(|value| value.index == pcr).map(|v| v.value).collect();
        let (from_bytes, bytes) = match suffix {
            Some(suffix) => (suffix.from_bytes, suffix.bytes.as_slice()),
            None => (known.map_or(0, |state| state.bytes), &[][..]),
        };
        ReplayedImaList::replay(known, from_bytes, bytes, pcr, &quoted)?.anchor(boot)
    }

    /// What a renewal continues from; not judged.
    #[must_use]
    pub const fn state(&self) -> &ImaState {
        &self.state
    }

    /// Entries that this suffix added, up to the quote.
    pub fn new_entries(&self) -> impl Iterator<Item = ImaEntry<'e>> + use<'e> {
        // What replayed is well-formed.
        ImaListReader::new(self.prefix, self.state.format()).map_while(Result::ok)
    }

    /// Bytes after the quoted prefix: to be asked for again, from `state().bytes` on.
    #[must_use]
    pub const fn surplus_bytes(&self) -> u64 {
        self.surplus_bytes
    }
}

/// The search for the prefix that replays to a quote: one pass.
struct Search<'s, 'e> {
    /// Bytes of the list before `bytes`.
    start: u64,
    bytes: &'e [u8],
    /// One value a bank, ascending.
    quoted: &'s [Digest],
    format: ListFormat,
}

impl<'e> Search<'_, 'e> {
    /// The replay where it has the quoted values, and the bytes up to there.
    fn run(&self, mut replay: ListReplay) -> Result<(ListReplay, &'e [u8]), Denial> {
        if replay.matches(self.quoted) {
            return Ok((replay, &[]));
        }
        let mut reader = ImaListReader::new(self.bytes, self.format);
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(|error| {
                let at = u64::try_from(error.at).unwrap_or(u64::MAX).saturating_add(self.start);
                Denial::one(Finding::new(
                    error.code(),
                    format!("IMA entry {:06} at byte {at}", replay.entries),
                    "a well-formed entry",
                    error.kind.to_string(),
                ))
            })?;
            replay.push(&entry)?;
            if replay.matches(self.quoted) {
                let prefix = self.bytes.get(..reader.offset()).unwrap_or_default();
                return Ok((replay, prefix));
            }
        }
        let values: Vec<String> = self.quoted.iter().map(Digest::to_string).collect();
        let end = match reader.end() {
            ListEnd::Complete => String::new(),
            ListEnd::Partial { left, .. } => format!(", then {left} bytes of an entry"),
        };
        Err(deny(
            ReasonCode::ImaReplayMismatch,
            format!("a prefix that replays to {}", values.join(", ")),
            format!("{}{end}", replay.describe()),
        ))
    }
}

/// The list's PCR must be quoted, in the banks that are replayed and no others, once each.
fn same_banks(replay: &ListReplay, pcr: PcrIndex, quoted: &[BankAlg]) -> Result<(), Denial> {
    let names = |banks: &[BankAlg]| {
        let names: Vec<&str> = banks.iter().map(|bank| bank.name()).collect();
        if names.is_empty() { "no bank".to_owned() } else { names.join(", ") }
    };
    let known: Vec<BankAlg> = replay.banks.iter().map(|bank| bank.alg).collect();
    let is_once = quoted.windows(2).all(|pair| pair.first() != pair.last());
    if quoted.is_empty() || !is_once || known != quoted || replay.pcr != pcr {
        let expected =
            if known.is_empty() { "at least one bank".to_owned() } else { names(&known) };
        return Err(deny(
            ReasonCode::ImaWrongPcr,
            format!("PCR {} quoted in {expected}", replay.pcr),
            format!("PCR {pcr} quoted in {}", names(quoted)),
        ));
    }
    Ok(())
}

/// `IMA entry 000012: /usr/bin/true`.
pub(super) fn subject(index: u64, entry: &ImaEntry<'_>) -> String {
    match entry.untrusted_fields().name {
        Some(name) => format!("IMA entry {index:06}: {}", path_text(name)),
        None => format!("IMA entry {index:06}"),
    }
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "IMA list", expected, observed).into()
}
