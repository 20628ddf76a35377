//! Instants, in whole seconds.

use std::{fmt, str::FromStr, time::Duration};

use der::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An instant: seconds since 1970, UTC; as text RFC 3339 with `Z` and without fraction.
///
/// Its last year is 9999, as in X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

/// Not an instant that can be said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instant is YYYY-MM-DDThh:mm:ssZ between 1970 and 9999")]
pub struct TimeError;

impl UnixTime {
    /// An instant from seconds since 1970.
    ///
    /// # Errors
    /// [`TimeError`] beyond the year 9999.
    pub fn from_unix_s(seconds: u64) -> Result<Self, TimeError> {
        date(seconds).map(|_| Self(seconds))
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.0
    }

    /// Seconds from `earlier` to this instant; zero where `earlier` is later.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// For X.509's structures.
    pub(crate) fn to_date(self) -> Result<DateTime, TimeError> {
        date(self.0)
    }

    pub(crate) fn from_duration(since_1970: Duration) -> Self {
        Self(since_1970.as_secs())
    }
}

fn date(seconds: u64) -> Result<DateTime, TimeError> {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(|_| TimeError)
}

impl FromStr for UnixTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let date: DateTime = text.parse().map_err(|_| TimeError)?;
        let time = Self(date.unix_duration().as_secs());
        // One spelling each: a parser that forgives would make two texts of one statement.
        if time.to_string() == text { Ok(time) } else { Err(TimeError) }
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match date(self.0) {
            Ok(date) => write!(f, "{date}"),
            // No constructor gives such a time.
            Err(_) => write!(f, "{} s", self.0),
        }
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_one_spelling() {
        let time: UnixTime = "2026-11-27T05:30:00Z".parse().expect("an instant");
        assert_eq!(time.unix_s(), 1_795_757_400);
        assert_eq!(time.to_string(), "2026-11-27T05:30:00Z");
        for wrong in [
            "2026-11-27T05:30:00",
            "2026-11-27t05:30:00Z",
            "2026-11-27T05:30:00.0Z",
            "2026-11-27T05:30:00+00:00",
            "2026-02-30T05:30:00Z",
            "1969-12-31T23:59:59Z",
            "",
        ] {
            assert_eq!(wrong.parse::<UnixTime>(), Err(TimeError), "{wrong}");
        }
        assert_eq!(UnixTime::from_unix_s(253_402_300_800), Err(TimeError));
    }
}
