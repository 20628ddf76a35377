//! Canonical JSON: one sequence of bytes for one document.
//!
//! # Format
//! RFC 8785 (JCS) for documents without fractions: no white space; members of an object ordered by
//! their names, compared as sequences of UTF-16 code units (not of code points: `U+1F600` stands
//! before `U+FB33`, because its first unit is `0xD83D`); strings in UTF-8, with `\"`, `\\`, `\b`,
//! `\t`, `\n`, `\f`, `\r` and `\u00xx` for the other controls below `U+0020`, nothing else escaped;
//! integers in decimal.
//!
//! Numbers of RFC 8785 are IEEE 754 doubles. A fraction, and an integer that a double does not hold
//! exactly, is refused instead of rounded.

use serde::Serialize;
use serde_json::{Map, Number, Value};

/// Largest magnitude of an integer: 2^53 - 1.
///
/// # Source
/// RFC 7493 (I-JSON), "Numbers", which RFC 8785 demands of its input.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Deepest nesting: what `serde_json` reads at most.
const MAX_DEPTH: usize = 128;

/// A document has no canonical form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// The document is not JSON.
    #[error("the document cannot be written as JSON")]
    NotJson(#[source] serde_json::Error),
    /// A number with a fraction or an exponent.
    #[error("{at}: {number} is not an integer")]
    Float {
        /// Where.
        at: String,
        /// The number.
        number: Number,
    },
    /// An integer beyond ±(2^53 - 1).
    #[error("{at}: {number} is beyond {MAX_INTEGER}, which readers of JSON would round")]
    Integer {
        /// Where.
        at: String,
        /// The number.
        number: Number,
    },
    /// Nested deeper than anybody reads.
    #[error("{at}: nested deeper than {MAX_DEPTH}")]
    Depth {
        /// Where.
        at: String,
    },
}

/// The canonical form of a document.
///
/// # Errors
/// [`CanonicalError`]. A float that is not finite cannot be told from `null`: `serde_json` makes it
/// one before it is seen here.
pub fn to_canonical_json<T: Serialize + ?Sized>(document: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(document).map_err(CanonicalError::NotJson)?;
    let mut writer = Writer { out: Vec::new(), path: Vec::new() };
    writer.value(&value)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: Vec<u8>,
    /// Where the writer is; its length is the depth.
    path: Vec<Step<'a>>,
}

enum Step<'a> {
    Member(&'a str),
    Element(usize),
}

impl<'a> Writer<'a> {
    fn value(&mut self, value: &'a Value) -> Result<(), CanonicalError> {
        if self.path.len() > MAX_DEPTH {
            return Err(CanonicalError::Depth { at: self.at() });
        }
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(number) => self.number(number)?,
            Value::String(text) => self.string(text)?,
            Value::Array(elements) => self.array(elements)?,
            Value::Object(members) => self.object(members)?,
        }
        Ok(())
    }

    fn number(&mut self, number: &Number) -> Result<(), CanonicalError> {
        let magnitude = match (number.as_u64(), number.as_i64()) {
            (Some(positive), _) => positive,
            (None, Some(negative)) => negative.unsigned_abs(),
            (None, None) => {
                return Err(CanonicalError::Float { at: self.at(), number: number.clone() });
            }
        };
        if magnitude > MAX_INTEGER {
            return Err(CanonicalError::Integer { at: self.at(), number: number.clone() });
        }
        self.out.extend_from_slice(number.to_string().as_bytes());
        Ok(())
    }

    /// `serde_json` escapes exactly what RFC 8785 says, in lower-case hexadecimal; a test goes
    /// through all of it.
    fn string(&mut self, text: &str) -> Result<(), CanonicalError> {
        serde_json::to_writer(&mut self.out, text).map_err(CanonicalError::NotJson)
    }

    fn array(&mut self, elements: &'a [Value]) -> Result<(), CanonicalError> {
        self.out.push(b'[');
        for (position, element) in elements.iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.path.push(Step::Element(position));
            self.value(element)?;
            self.path.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, members: &'a Map<String, Value>) -> Result<(), CanonicalError> {
        let mut members: Vec<(&String, &Value)> = members.iter().collect();
        // RFC 8785, "Sorting of Object Properties".
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        self.out.push(b'{');
        for (position, (name, value)) in members.into_iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.string(name)?;
            self.out.push(b':');
            self.path.push(Step::Member(name));
            self.value(value)?;
            self.path.pop();
        }
        self.out.push(b'}');
        Ok(())
    }

    /// `pcr[0].index`, or `document`.
    fn at(&self) -> String {
        let mut at = String::new();
        for step in &self.path {
            match step {
                Step::Member(name) if at.is_empty() => at.push_str(name),
                Step::Member(name) => {
                    at.push('.');
                    at.push_str(name);
                }
                Step::Element(position) => at.push_str(&format!("[{position}]")),
            }
        }
        if at.is_empty() { "document".to_owned() } else { at }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        String::from_utf8(to_canonical_json(value).expect("a canonical form")).expect("UTF-8")
    }

    fn refusal(value: &Value) -> String {
        to_canonical_json(value).expect_err("no canonical form").to_string()
    }

    #[test]
    fn members_are_ordered_by_utf16_code_units() {
        // The names of RFC 8785, "Sorting of Object Properties".
        let names = [
            ("\u{20ac}", "Euro Sign"),
            ("\r", "Carriage Return"),
            ("\u{fb33}", "Hebrew Letter Dalet With Dagesh"),
            ("1", "One"),
            ("\u{1f600}", "Emoji: Grinning Face"),
            ("\u{80}", "Control"),
            ("\u{f6}", "Latin Small Letter O With Diaeresis"),
        ];
        let members = names.map(|(name, value)| (name.to_owned(), json!(value)));
        let text = canonical(&Value::Object(members.into_iter().collect()));
        let order = [
            "Carriage Return",
            "\"One\"",
            "Control",
            "Latin Small",
            "Euro Sign",
            "Emoji",
            "Hebrew Letter",
        ];
        let places: Vec<usize> =
            order.iter().map(|value| text.find(value).expect("it is there")).collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(
            canonical(&json!({"b": 1, "a": {"d": 2, "c": 3}, "aa": 4, "A": 5, "": 6})),
            r#"{"":6,"A":5,"a":{"c":3,"d":2},"aa":4,"b":1}"#
        );
    }

    #[test]
    fn strings_are_escaped_as_little_as_can_be() {
        for code in 0..0x20_u8 {
            let short = match code {
                0x08 => "\\b".to_owned(),
                0x09 => "\\t".to_owned(),
                0x0a => "\\n".to_owned(),
                0x0c => "\\f".to_owned(),
                0x0d => "\\r".to_owned(),
                _ => format!("\\u{code:04x}"),
            };
            let text = char::from(code).to_string();
            assert_eq!(canonical(&json!(text)), format!("\"{short}\""));
        }
        // RFC 8785, "Serialization of Strings".
        assert_eq!(
            canonical(&json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}\u{2028}")),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\u{2028}\""
        );
    }

    #[test]
    fn integers_that_a_double_holds_and_nothing_else() {
        assert_eq!(
            canonical(&json!([0, -1, 9_007_199_254_740_991_u64, -9_007_199_254_740_991_i64])),
            "[0,-1,9007199254740991,-9007199254740991]"
        );
        assert_eq!(canonical(&json!([null, true, false, [], {}])), "[null,true,false,[],{}]");
        assert_eq!(refusal(&json!({"a": [{"b": 1.5}]})), "a[0].b: 1.5 is not an integer");
        assert_eq!(refusal(&json!(1.0)), "document: 1.0 is not an integer");
        assert_eq!(refusal(&json!(-0.0)), "document: -0.0 is not an integer");
        for beyond in [json!({"v": 9_007_199_254_740_992_u64}), json!({"v": i64::MIN})] {
            assert!(matches!(to_canonical_json(&beyond), Err(CanonicalError::Integer { .. })));
        }
    }

    #[test]
    fn the_canonical_form_of_the_canonical_form_is_itself() {
        let first = canonical(&json!({"z": [1, {"y": "\u{1f600}", "x": null}], "a": "\u{0}"}));
        let again: Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!(canonical(&again), first);
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth| (0..depth).fold(json!(0), |inner, _| json!([inner]));
        assert!(to_canonical_json(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(
            to_canonical_json(&nested(MAX_DEPTH + 1)),
            Err(CanonicalError::Depth { .. })
        ));
    }
}
