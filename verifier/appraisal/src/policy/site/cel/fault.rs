//! Why an evaluation has no value.

use std::fmt;

/// Why an evaluation has no value. Each denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy::site) enum Fault {
    /// A value that is not there was read: the expression's own words for it.
    Missing(String),
    /// A list has no such element.
    OutOfBounds { index: i64, len: usize },
    /// An integer left its 64 bits.
    Overflow,
    /// Division by zero, or a remainder of it.
    DivisionByZero,
    /// Text that is no version.
    NotAVersion(String),
    /// Text that is no integer.
    NotAnInteger(String),
    /// A value has another type than its schema says. Nothing that was checked leads here.
    WrongType,
    /// More steps than [`super::limits::MAX_STEPS`]. Ends the evaluation: nothing outweighs it.
    Budget,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{path} is absent"),
            Self::OutOfBounds { index, len } => write!(f, "no element {index} in a list of {len}"),
            Self::Overflow => f.write_str("integer overflow"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::NotAVersion(text) => write!(f, "{text:?} is no version that can be compared"),
            Self::NotAnInteger(text) => write!(f, "{text:?} is no integer"),
            Self::WrongType => f.write_str("a value of the wrong type"),
            Self::Budget => write!(f, "more than {} steps", super::limits::MAX_STEPS),
        }
    }
}
