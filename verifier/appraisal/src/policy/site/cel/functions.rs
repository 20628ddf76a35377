//! The functions that an expression may call: a fixed list, none of them with a cost that its steps do not pay for.

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy::site) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Int,
    Text,
    VersionAtLeast,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `f(x)`.
    Global,
    /// `x.f()`.
    Member,
    /// Either.
    Both,
}

impl Function {
    /// Every function: its name, what it takes and what it gives, for people.
    pub(in crate::policy::site) const ALL: [(Self, &'static str, &'static str); 7] = [
        (
            Self::Size,
            "size",
            "`size(x)`, `x.size()`: code points of a string, elements of a list or map",
        ),
        (Self::StartsWith, "startsWith", "`text.startsWith(text)`"),
        (Self::EndsWith, "endsWith", "`text.endsWith(text)`"),
        (Self::Contains, "contains", "`text.contains(text)`"),
        (Self::Int, "int", "`int(text)`: a decimal integer, else an error"),
        (Self::Text, "string", "`string(x)`: an integer, a boolean or a string as text"),
        (
            Self::VersionAtLeast,
            "version_at_least",
            "`version_at_least(version, floor)`: compares dotted versions: literals and fields that are versions",
        ),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(function, ..)| *function)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(_, name, _)| name)
    }

    pub(super) const fn style(self) -> Style {
        match self {
            Self::Size => Style::Both,
            Self::StartsWith | Self::EndsWith | Self::Contains => Style::Member,
            Self::Int | Self::Text | Self::VersionAtLeast => Style::Global,
        }
    }

    pub(super) const fn arguments(self) -> usize {
        match self {
            Self::Size | Self::Int | Self::Text => 1,
            Self::StartsWith | Self::EndsWith | Self::Contains | Self::VersionAtLeast => 2,
        }
    }
}
