//! The kernel's list, put together from what a node sent of it piece by piece.
//!
//! A renewal sends what its list gained. Rules that did not judge the entries before need them again: they stand in earlier
//! cases of the same boot. That the pieces belong together need not be believed: the whole must replay to the PCR that the
//! newest evidence quotes.

use proto::evidence::{LogKind, LogSuffix};

use crate::{
    case::{CaseObjects, OpenedCase, RecordedCase},
    store::RecordedEvidence,
};

/// The list from its first byte up to where the newest case ends, if it and `older`, newest first, have all of it.
pub(super) fn whole_list(
    newest: &RecordedCase,
    opened: &OpenedCase,
    older: &[RecordedEvidence],
    objects: &impl CaseObjects,
) -> Option<LogSuffix> {
    let kind = LogKind::Ima;
    let mut pieces =
        vec![match (opened.log(kind), opened.known_boot().and_then(|boot| boot.ima())) {
            (Some(piece), _) => piece.clone(),
            // Nothing was new.
            (None, Some(known)) => LogSuffix { kind, from_bytes: known.bytes, bytes: Vec::new() },
            (None, None) => return None,
        }];
    for evidence in older {
        if pieces.last().is_some_and(|piece| piece.from_bytes == 0) {
            break;
        }
        let case = RecordedCase::read(&evidence.case).ok()?;
        // Another boot had another list.
        if case.ak_name() != newest.ak_name() {
            break;
        }
        pieces.extend(case.log(kind, objects).ok()?);
    }
    let bytes = joined(pieces)?;
    Some(LogSuffix { kind, from_bytes: 0, bytes })
}

/// Joins pieces, the last one first. A piece may begin before the end of the one before it: what the list had beyond its quote
/// was sent again.
fn joined(pieces: Vec<LogSuffix>) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    for piece in pieces.into_iter().rev() {
        let from = usize::try_from(piece.from_bytes).ok().filter(|from| *from <= list.len())?;
        list.truncate(from);
        list.extend(piece.bytes);
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it begins, and its bytes.
    type Piece = (u64, &'static str);

    fn pieces(of: &[Piece]) -> Vec<LogSuffix> {
        let piece = |(from_bytes, text): &Piece| LogSuffix {
            kind: LogKind::Ima,
            from_bytes: *from_bytes,
            bytes: text.as_bytes().to_vec(),
        };
        of.iter().map(piece).collect()
    }

    #[test]
    fn pieces_are_joined_from_the_first_byte_on() {
        let cases: [(&[Piece], Option<&str>); 6] = [
            (&[(0, "abc")], Some("abc")),
            (&[(3, "de"), (0, "abc")], Some("abcde")),
            (&[(5, ""), (3, "de"), (0, "abc")], Some("abcde")),
            // The second piece had one byte beyond its quote.
            (&[(4, "DEF"), (3, "dx"), (0, "abc")], Some("abcdDEF")),
            // A piece between is gone, or the first one.
            (&[(5, "f"), (0, "abc")], None),
            (&[(5, "f")], None),
        ];
        for (of, expected) in cases {
            let list = joined(pieces(of));
            assert_eq!(list.as_deref(), expected.map(str::as_bytes), "{of:?}");
        }
    }
}
