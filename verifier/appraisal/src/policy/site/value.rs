//! Values that a rule reads and makes.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde::{Serialize, Serializer};

/// A value. Cheap to copy: rules pass lists and texts on without copying what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
    List(Arc<[Value]>),
    Map(Arc<BTreeMap<Arc<str>, Value>>),
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    pub(super) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    /// A number of things; one that has no place in 64 bits is as good as the largest.
    pub(super) fn count(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The value under a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// The value as JSON, cut off after this many bytes.
    pub(super) fn shown(&self, max_bytes: usize) -> String {
        let mut out = String::new();
        self.write(&mut out, max_bytes);
        cut(out, max_bytes)
    }

    /// Stops soon after `max_bytes`; what is longer is cut by the caller.
    fn write(&self, out: &mut String, max_bytes: usize) {
        if out.len() > max_bytes {
            return;
        }
        // Writing into a string cannot fail.
        let _ = match self {
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Text(text) => {
                let head: String = text.chars().take(max_bytes.saturating_add(1)).collect();
                write!(out, "{head:?}")
            }
            Self::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if out.len() > max_bytes {
                        break;
                    }
                    out.push_str(if at == 0 { "" } else { ", " });
                    value.write(out, max_bytes);
                }
                out.write_str("]")
            }
            Self::Map(map) => {
                out.push('{');
                for (at, (key, value)) in map.iter().enumerate() {
                    if out.len() > max_bytes {
                        break;
                    }
                    let _ = write!(out, "{}{key:?}: ", if at == 0 { "" } else { ", " });
                    value.write(out, max_bytes);
                }
                out.write_str("}")
            }
        };
    }
}

/// Cuts a text off at a character, and says so.
pub(super) fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let mut end = max_bytes;
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list.iter()),
            Self::Map(map) => {
                serializer.collect_map(map.iter().map(|(key, value)| (key.as_ref(), value)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn what_is_long_is_cut_at_a_character() {
        assert_eq!(Value::texts(["a", "b"]).shown(80), r#"["a", "b"]"#);
        let cut = Value::text("ä".repeat(100)).shown(10);
        assert_eq!(cut, "\"ääää…");
        assert!(Value::texts(vec!["x"; 10_000]).shown(100).len() < 110);
    }
}
