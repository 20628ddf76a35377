//! `Time` of certificates and CRLs, as seconds since 1970-01-01 00:00:00 UTC.

use super::der::{DerError, DerErrorKind, Reader, tag};

/// 9999-01-01 00:00:00 UTC: whatever ends in that year has no end (RFC 5280, 4.1.2.5; some
/// manufacturers wrote its first day or another hour instead of its last second).
pub(crate) const NO_EXPIRY_UNIX_S: i64 = 253_370_764_800;

/// Reads a `UTCTime` or `GeneralizedTime` in the form of DER: seconds present, `Z`, no fraction.
pub(crate) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<i64, DerError> {
    let at = reader.offset();
    let element = reader.element(what)?;
    let text = reader.bytes(element.body);
    let fail = |reason| DerError { at, what, kind: DerErrorKind::Value(reason) };
    let (year, rest) = match (element.tag, text) {
        (tag::UTC_TIME, [a, b, rest @ ..]) => {
            let short = two_digits(*a, *b).ok_or_else(|| fail("year is not a number"))?;
            // RFC 5280, 4.1.2.5.1: 50 to 99 is 1950 to 1999.
            (if short >= 50 { 1900 + short } else { 2000 + short }, rest)
        }
        (tag::GENERALIZED_TIME, [a, b, c, d, rest @ ..]) => {
            let century = two_digits(*a, *b).ok_or_else(|| fail("year is not a number"))?;
            let short = two_digits(*c, *d).ok_or_else(|| fail("year is not a number"))?;
            (century * 100 + short, rest)
        }
        (tag::UTC_TIME | tag::GENERALIZED_TIME, _) => return Err(fail("time is too short")),
        _ => return Err(fail("neither UTCTime nor GeneralizedTime")),
    };
    let [m1, m2, d1, d2, h1, h2, i1, i2, s1, s2, b'Z'] = *rest else {
        return Err(fail("time is not in the form of DER"));
    };
    let fields = (|| {
        Some((
            two_digits(m1, m2)?,
            two_digits(d1, d2)?,
            two_digits(h1, h2)?,
            two_digits(i1, i2)?,
            two_digits(s1, s2)?,
        ))
    })();
    let (month, day, hour, minute, second) = fields.ok_or_else(|| fail("time has no digits"))?;
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 0,
    };
    if day == 0 || day > days_in_month || hour > 23 || minute > 59 || second > 59 {
        return Err(fail("no such date or time"));
    }
    Ok(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `2030-10-18T23:59:59Z`.
#[must_use]
pub fn format_utc(unix_s: i64) -> String {
    let days = unix_s.div_euclid(86_400);
    let second_of_day = unix_s.rem_euclid(86_400);
    let (year, month, day) = civil_from_days(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60
    )
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last; 146 097 days are 400 years.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(tag: u8, text: &str) -> Result<i64, DerErrorKind> {
        let mut bytes = vec![tag, u8::try_from(text.len()).expect("short")];
        bytes.extend_from_slice(text.as_bytes());
        read(&mut Reader::new(&bytes), "test").map_err(|error| error.kind)
    }

    #[test]
    fn both_forms_are_read() {
        for (tag, text, expected) in [
            (tag::UTC_TIME, "700101000000Z", 0),
            (tag::UTC_TIME, "500101000000Z", -631_152_000),
            (tag::UTC_TIME, "491231235959Z", 2_524_607_999),
            (tag::UTC_TIME, "240229120000Z", 1_709_208_000),
            (tag::GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (tag::GENERALIZED_TIME, "99990101000000Z", NO_EXPIRY_UNIX_S),
        ] {
            assert_eq!(parse(tag, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for (tag, text) in [
            (tag::UTC_TIME, "7001010000Z"),
            (tag::UTC_TIME, "700101000000+0000"),
            (tag::UTC_TIME, "700101000060Z"),
            (tag::UTC_TIME, "230229000000Z"),
            (tag::UTC_TIME, "231301000000Z"),
            (tag::UTC_TIME, "230001000000Z"),
            (tag::UTC_TIME, "2"),
            (tag::UTC_TIME, "7x0101000000Z"),
            (tag::GENERALIZED_TIME, "20500101000000.5Z"),
            (tag::GENERALIZED_TIME, "21000229000000Z"),
            (tag::OCTET_STRING, "20500101000000Z"),
        ] {
            assert!(matches!(parse(tag, text), Err(DerErrorKind::Value(_))), "{text}");
        }
    }

    #[test]
    fn times_are_shown() {
        assert_eq!(format_utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_utc(1_709_208_000), "2024-02-29T12:00:00Z");
        assert_eq!(format_utc(NO_EXPIRY_UNIX_S), "9999-01-01T00:00:00Z");
        assert_eq!(format_utc(-1), "1969-12-31T23:59:59Z");
    }
}
