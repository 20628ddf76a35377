//! Distinguished names: compared as bytes, shown as text.

use super::{
    der::{DerError, DerErrorKind, Reader, Span, dotted, tag},
    oddity::{Oddities, Oddity},
};

/// Parts of one name; real ones have up to seven.
const MAX_ATTRIBUTES: usize = 32;
/// Longest text of one attribute that is shown.
const MAX_SHOWN_CHARS: usize = 128;

/// Reads a `Name` and says where it lies.
pub(super) fn read(
    outer: &mut Reader<'_>,
    what: &'static str,
    oddities: &mut Oddities,
) -> Result<Span, DerError> {
    let element = outer.expect(tag::SEQUENCE, what)?;
    each_attribute(outer.inside(element), what, oddities, |_, _| Ok(()))?;
    Ok(element.whole)
}

/// Calls `seen` with the type (object identifier's content) and the value of every attribute of the
/// `RDNSequence` whose content `names` reads.
pub(super) fn each_attribute<'a>(
    mut names: Reader<'a>,
    what: &'static str,
    oddities: &mut Oddities,
    mut seen: impl FnMut(&'a [u8], super::der::Element) -> Result<(), DerError>,
) -> Result<(), DerError> {
    let mut count = 0;
    while !names.is_empty() {
        let mut set = names.enter(tag::SET, what)?;
        if set.is_empty() {
            return Err(names.error(what, DerErrorKind::Value("a name part is empty")));
        }
        let mut previous: &[u8] = &[];
        while !set.is_empty() {
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(set.error(what, DerErrorKind::Limit(MAX_ATTRIBUTES)));
            }
            let attribute = set.expect(tag::SEQUENCE, what)?;
            let bytes = set.bytes(attribute.whole);
            if bytes < previous {
                oddities.add(Oddity::RdnUnsorted);
            }
            previous = bytes;
            let mut attribute = set.inside(attribute);
            let kind = attribute.oid(what)?;
            let value = attribute.element(what)?;
            attribute.finish(what)?;
            seen(kind, value)?;
        }
    }
    Ok(())
}

/// A name as text, most specific part last, for people only: never compared, never parsed.
///
/// Characters that could mislead a terminal or a log line are shown as `?`.
pub(super) fn show(name_der: &[u8]) -> String {
    let mut out = String::new();
    let mut reader = Reader::new(name_der);
    let Ok(names) = reader.enter(tag::SEQUENCE, "name") else {
        return out;
    };
    // The name was read once when its certificate was; an error cannot come a second time.
    let _ = each_attribute(names, "name", &mut Oddities::default(), |kind, value| {
        if !out.is_empty() {
            out.push_str(", ");
        }
        match label(kind) {
            Some(label) => out.push_str(label),
            None => out.push_str(&dotted(kind)),
        }
        out.push('=');
        match text(value.tag, value.body.of(name_der)) {
            Some(text) => out.extend(text.chars().take(MAX_SHOWN_CHARS)),
            None => out.push('?'),
        }
        Ok(())
    });
    out
}

/// The text of a string type of X.520, with control and formatting characters replaced.
pub(super) fn text(tag: u8, body: &[u8]) -> Option<String> {
    let text: String = match tag {
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => {
            std::str::from_utf8(body).ok()?.to_owned()
        }
        tag::TELETEX_STRING => body.iter().map(|byte| char::from(*byte)).collect(),
        tag::BMP_STRING => {
            let (pairs, []) = body.as_chunks::<2>() else {
                return None;
            };
            char::decode_utf16(pairs.iter().map(|pair| u16::from_be_bytes(*pair)))
                .collect::<Result<_, _>>()
                .ok()?
        }
        _ => return None,
    };
    Some(text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect())
}

/// Not a control character, and not one that changes the direction or the look of what follows.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        && !matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn label(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 0x04, 3] => "CN",
        [0x55, 0x04, 5] => "serialNumber",
        [0x55, 0x04, 6] => "C",
        [0x55, 0x04, 7] => "L",
        [0x55, 0x04, 8] => "ST",
        [0x55, 0x04, 10] => "O",
        [0x55, 0x04, 11] => "OU",
        _ => return None,
    })
}
