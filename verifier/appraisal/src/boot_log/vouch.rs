//! What of an event its digest vouches for.

use proto::eventlog::{Event, EventType, LogAlg, LogDigest, variable::VariableData};
use serde::{Deserialize, Serialize};

use super::quirks::Quirk;

/// What the digest of an event is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Vouch {
    /// A content that a specification fixes: known by the digest alone.
    Constant,
    /// The event's data, all of it.
    Data,
    /// The data but for its last byte (shim).
    DataButLastByte,
    /// The data with one more zero byte (systemd-boot).
    DataAndTerminator,
    /// Only what is measured is known, as a digest; data and type are hints.
    Digest,
    /// The digest, and the event before it in the same PCR, which names it (sections of a kernel image).
    Structure,
    /// The text after the word that says what it is, which is not covered (GRUB).
    Text,
    /// A variable's content, not its vendor and name.
    VariableData,
}

/// Bytes that a digest vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched<'a> {
    /// How.
    pub vouch: Vouch,
    /// The bytes; none for [`Vouch::Digest`].
    pub bytes: &'a [u8],
    /// The exception that had to be made for them.
    pub quirk: Option<Quirk>,
}

impl<'a> Vouched<'a> {
    const fn new(vouch: Vouch, bytes: &'a [u8]) -> Self {
        Self { vouch, bytes, quirk: None }
    }

    const fn by(mut self, quirk: Quirk) -> Self {
        self.quirk = Some(quirk);
        self
    }

    /// The digest itself and nothing of the data.
    pub(super) const NOTHING: Self = Self::new(Vouch::Digest, &[]);

    /// Finds what `digest` vouches for in an event. The type only chooses which exceptions are tried; what comes out
    /// hashes to the digest whatever the type says.
    ///
    /// At most five hashes over the event's data.
    pub(super) fn of(event: &Event<'a>, alg: LogAlg, digest: &LogDigest) -> Self {
        let data = event.untrusted_data;
        let hashes_to = |parts: &[&[u8]]| alg.hash(parts).as_ref() == Some(digest);
        if hashes_to(&[data]) {
            return Self::new(Vouch::Data, data);
        }
        match event.untrusted_type {
            EventType::EFI_VARIABLE_BOOT
            | EventType::EFI_VARIABLE_BOOT2
            | EventType::EFI_VARIABLE_DRIVER_CONFIG => {
                if let Ok(variable) = VariableData::read(data)
                    && hashes_to(&[variable.data])
                {
                    let vouched = Self::new(Vouch::VariableData, variable.data);
                    return vouched.by(Quirk::VariableContentOnly);
                }
            }
            EventType::EFI_VARIABLE_AUTHORITY => {
                if let Some((_, most)) = data.split_last()
                    && hashes_to(&[most])
                {
                    let vouched = Self::new(Vouch::DataButLastByte, most);
                    return vouched.by(Quirk::AuthorityShortByOne);
                }
            }
            EventType::IPL => return Self::of_loader(data, hashes_to),
            _ => {}
        }
        Self::NOTHING
    }

    /// GRUB measures the text after "grub_cmd: ", "grub_cmd " or "kernel_cmdline: ", its terminator included or not;
    /// older systemd-boot one zero byte more than it logs.
    fn of_loader(data: &'a [u8], hashes_to: impl Fn(&[&[u8]]) -> bool) -> Self {
        if let Some((_, text)) = split_label(data) {
            let bare = text.strip_suffix(&[0]).unwrap_or(text);
            if hashes_to(&[bare]) {
                return Self::new(Vouch::Text, bare).by(Quirk::LoaderTextOnly);
            }
            if hashes_to(&[text]) {
                return Self::new(Vouch::Text, text).by(Quirk::LoaderTextTerminated);
            }
        }
        if hashes_to(&[data, &[0]]) {
            return Self::new(Vouch::DataAndTerminator, data).by(Quirk::TextShortByOne);
        }
        Self::NOTHING
    }
}

/// The word that says what a loader measured, and the rest: `grub_cmd`, `linux /vmlinuz`.
pub(super) fn split_label(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let (label, text) = data.split_at_checked(space)?;
    let label = label.strip_suffix(b":").unwrap_or(label);
    Some((label, text.get(1..)?))
}
