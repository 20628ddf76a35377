//! How the two documents are called.

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sides {
    /// A set and what shall take its place.
    Sets,
    /// A set and what a node proved.
    SetAndNode,
}

impl Sides {
    /// Of what the first alone has.
    pub(super) const fn removed(self) -> &'static str {
        match self {
            Self::Sets => "removed",
            Self::SetAndNode => "in the set, not on the node",
        }
    }

    /// Of what the second alone has.
    pub(super) const fn added(self) -> &'static str {
        match self {
            Self::Sets => "added",
            Self::SetAndNode => "on the node, not in the set",
        }
    }

    /// Between what the first and what the second has in the same place.
    pub(super) const fn instead(self) -> &'static str {
        match self {
            Self::Sets => " replaced by ",
            Self::SetAndNode => " in the set, on the node ",
        }
    }
}
