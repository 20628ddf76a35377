//! What a difference does to the nodes that are accepted.

use std::{fmt, ops::BitOr};

use serde::Serialize;

/// Whether a set accepts more or less after a change.
///
/// # Proves
/// If no difference of a list [`Self::widens`], then no node that the first document refused is accepted by the second.
///
/// # Does not prove
/// That a difference which widens lets a node in that exists: rules are compared, not nodes. Where two changes cancel each
/// other out, both are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Decides nothing: words, provenance, names.
    #[default]
    Neither,
    /// Accepts more.
    Widens,
    /// Accepts less.
    Narrows,
    /// Accepts something else.
    Both,
}

impl Effect {
    /// The effect of both statements.
    #[must_use]
    pub const fn of(widens: bool, narrows: bool) -> Self {
        match (widens, narrows) {
            (false, false) => Self::Neither,
            (true, false) => Self::Widens,
            (false, true) => Self::Narrows,
            (true, true) => Self::Both,
        }
    }

    /// Whether it may accept what was refused.
    #[must_use]
    pub const fn widens(self) -> bool {
        matches!(self, Self::Widens | Self::Both)
    }

    /// Whether it may refuse what was accepted.
    #[must_use]
    pub const fn narrows(self) -> bool {
        matches!(self, Self::Narrows | Self::Both)
    }

    /// The word for it in JSON and text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Neither => "neither",
            Self::Widens => "widens",
            Self::Narrows => "narrows",
            Self::Both => "both",
        }
    }

    /// Of a rule that is there afterwards, or was there before.
    pub(super) const fn of_rule(is_added: bool) -> Self {
        if is_added { Self::Narrows } else { Self::Widens }
    }

    /// Of a list that is not judged while it is empty: its first element narrows, each further one widens.
    pub(super) const fn of_list(emptiness: (bool, bool), removed: bool, added: bool) -> Self {
        match emptiness {
            (true, true) => Self::Neither,
            (true, false) => Self::Narrows,
            (false, true) => Self::Widens,
            (false, false) => Self::of(added, removed),
        }
    }
}

impl BitOr for Effect {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::of(self.widens() || other.widens(), self.narrows() || other.narrows())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
