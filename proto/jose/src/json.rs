//! JSON objects without a second reading: no member twice, bounded depth, nothing after the end.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and arrays within each other; tokens of the platforms have two levels.
pub const MAX_DEPTH: usize = 8;

/// Why bytes are not one JSON object.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON object that is read in one way only")]
pub struct JsonError(#[source] serde_json::Error);

/// Reads one JSON object.
///
/// # Format
/// UTF-8; an object, nothing but white space around it. At most [`MAX_DEPTH`] levels. The caller has
/// bounded the size.
///
/// # Errors
/// [`JsonError`], also for a member that stands twice, at whatever level: two readers of such a text
/// may take different members, one that was checked and one that is used.
///
/// # Source
/// RFC 8259, "Objects"; RFC 7515, "JOSE Header", which leaves a refusal to the implementation.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let object = Object { depth: MAX_DEPTH }.deserialize(&mut reader).map_err(JsonError)?;
    reader.end().map_err(JsonError)?;
    Ok(object)
}

/// An object with `depth` levels left, this one included.
struct Object {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Object {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
        members(access, self.depth)
    }
}

fn members<'de, A: MapAccess<'de>>(
    mut access: A,
    depth: usize,
) -> Result<Map<String, Value>, A::Error> {
    let depth = below(depth)?;
    let mut out = Map::new();
    while let Some(name) = access.next_key::<String>()? {
        let value = access.next_value_seed(Any { depth })?;
        if out.contains_key(&name) {
            return Err(de::Error::custom(format_args!("the member {name:?} stands twice")));
        }
        out.insert(name, value);
    }
    Ok(out)
}

fn below<E: de::Error>(depth: usize) -> Result<usize, E> {
    depth.checked_sub(1).ok_or_else(|| {
        E::custom(format_args!("more than {MAX_DEPTH} levels of objects and arrays"))
    })
}

/// Any value, with `depth` levels left for what it contains.
struct Any {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = below(self.depth)?;
        let mut out = Vec::new();
        while let Some(value) = access.next_element_seed(Self { depth })? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        members(access, self.depth).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#" {"a": [1, -2, 3.5, null, true, {"b": "\u00e9"}], "c": {}} "#;
        let read = object(text.as_bytes()).expect("an object");
        assert_eq!(Value::Object(read), serde_json::from_str::<Value>(text).expect("JSON"));
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        let deep = |levels: usize| {
            let lists = levels - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(lists), "]".repeat(lists))
        };
        assert!(object(deep(MAX_DEPTH).as_bytes()).is_ok());
        for (text, why) in [
            (r#"{"a":1,"a":1}"#, "stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "stands twice"),
            (r#"{"o":[{"a":1,"b":2,"a":3}]}"#, "stands twice"),
            (r#"{"a":1}{"#, "trailing characters"),
            (r#"{"a":1} x"#, "trailing characters"),
            ("[1]", "invalid type: sequence"),
            ("\"a\"", "invalid type: string"),
            ("", "EOF"),
            (r#"{"a":1e999}"#, "number out of range"),
            (r#"{"a":01}"#, "invalid number"),
            (&deep(MAX_DEPTH + 1), "more than 8 levels"),
        ] {
            let error = object(text.as_bytes()).expect_err(text);
            let source = error.source().expect("a source").to_string();
            assert!(source.contains(why), "{text}: {source}");
        }
        let error = object(b"{\"a\":\"\xff\"}").expect_err("not UTF-8");
        assert!(error.source().expect("a source").to_string().contains("unicode"), "{error:?}");
    }
}
