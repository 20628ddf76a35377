//! A job's variables, as its agent wrote them into a file: foreign text, never given to a shell.
//!
//! Buildkite's agent writes two of them for its pre-bootstrap hook: a JSON object of texts (BUILDKITE_ENV_JSON_FILE), and
//! lines `NAME="value"` with Go's escapes (BUILDKITE_ENV_FILE; newer agents also put names without a value there).

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserializer as _, MapAccess, Visitor};

/// Most variables.
pub const MAX_VARIABLES: usize = 4096;
/// What a loader or a shell does before the first line of a program that a hook starts with a job's variables.
const REFUSED_NAMES: [&str; 9] = [
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "LOCPATH",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
];
/// The same, of names that begin so.
const REFUSED_BEGINNINGS: [&str; 2] = ["BASH_FUNC_", "LD_"];

/// Why a text gives no variables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentFileError {
    /// A line or value that is none.
    #[error("{0}")]
    Malformed(String),
    /// A name that has code of the job's author run before the job may.
    #[error("{0} is not for a job to set")]
    NameRefused(String),
    /// One name twice: two readers could take different ones.
    #[error("{0} stands twice")]
    NameTwice(String),
    /// More than are read.
    #[error("more than {MAX_VARIABLES} variables")]
    TooMany,
}

/// The variables of a file's text: a JSON object of texts, or lines `NAME=value`. `own_path` is the reader's own PATH.
///
/// # Format
/// At most [`MAX_VARIABLES`]; no name twice. A text that begins with `{` is JSON. In lines, a value in double quotes has
/// the escapes of Go's strings, any other stands for itself; empty lines, those that begin with `#`, and names without `=` are
/// passed over. A value that is no UTF-8 is left out, as it is of a process's own environment.
///
/// LD_…, BASH_ENV and other names by which a loader or a shell runs something first are refused, and so is a PATH that is not
/// `own_path`.
///
/// # Errors
/// [`AgentFileError`].
pub fn read_agent_file(
    text: &str,
    own_path: Option<&str>,
) -> Result<BTreeMap<String, String>, AgentFileError> {
    let pairs = if text.trim_start().starts_with('{') { json(text)? } else { lines(text)? };
    let mut variables = BTreeMap::new();
    for (name, value) in pairs {
        let is_refused = REFUSED_NAMES.contains(&name.as_str())
            || REFUSED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            || (name == "PATH" && value.as_deref() != own_path);
        if is_refused {
            return Err(AgentFileError::NameRefused(name));
        }
        let Some(value) = value else { continue };
        if variables.contains_key(&name) {
            return Err(AgentFileError::NameTwice(name));
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

/// A name, and its value where that is a text.
type Pair = (String, Option<String>);

/// Members of one object, in their order, doubles and all: a map would keep the last of two.
fn json(text: &str) -> Result<Vec<Pair>, AgentFileError> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Pair>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry()? {
                members.push((name, Some(value)));
                if members.len() > MAX_VARIABLES {
                    break;
                }
            }
            Ok(members)
        }
    }
    let malformed = |error: serde_json::Error| AgentFileError::Malformed(error.to_string());
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = (&mut reader).deserialize_map(Members);
    match members {
        Ok(members) if members.len() > MAX_VARIABLES => Err(AgentFileError::TooMany),
        Ok(members) => reader.end().map(|()| members).map_err(malformed),
        Err(error) => Err(malformed(error)),
    }
}

fn lines(text: &str) -> Result<Vec<Pair>, AgentFileError> {
    let mut pairs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        let Some((name, value)) = line.split_once('=') else { continue };
        if line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| AgentFileError::Malformed(format!("line {}: {what}", at + 1));
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(wrong("a name of letters, digits and `_` before the `=`"));
        }
        let value = match value.strip_prefix('"') {
            None => Some(value.to_owned()),
            Some(quoted) => {
                let bytes = unquote(quoted).ok_or_else(|| wrong("a text in double quotes"))?;
                String::from_utf8(bytes).ok()
            }
        };
        pairs.push((name.to_owned(), value));
        if pairs.len() > MAX_VARIABLES {
            return Err(AgentFileError::TooMany);
        }
    }
    Ok(pairs)
}

/// The bytes of a Go string after its first quote, if it ends with the line.
///
/// # Source
/// The Go Programming Language Specification, "Rune literals" and "String literals".
fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(rest.find(['"', '\\'])?);
        out.extend_from_slice(plain.as_bytes());
        if let Some(after) = special.strip_prefix('"') {
            return after.is_empty().then_some(out);
        }
        let mut characters = special.get(1..)?.chars();
        let escape = characters.next()?;
        let after = characters.as_str();
        // A sign is none of Go's digits.
        let number = |digits: usize| {
            let digits = after.get(..digits)?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let mut used = 0;
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            't' => out.push(b'\t'),
            'n' => out.push(b'\n'),
            'v' => out.push(11),
            'f' => out.push(12),
            'r' => out.push(b'\r'),
            '\\' => out.push(b'\\'),
            '"' => out.push(b'"'),
            'x' => {
                used = 2;
                out.push(u8::try_from(number(2)?).ok()?);
            }
            'u' | 'U' => {
                used = if escape == 'u' { 4 } else { 8 };
                let letter = char::from_u32(number(used)?)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
        rest = after.get(used..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<String, String>, AgentFileError> {
        read_agent_file(text, Some("/usr/bin:/bin"))
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_forms_of_the_agent_are_read() {
        let json = r#" {"A":"1","B":"two\nlines \"quoted\" ☃","C":""}"#;
        let expected = map(&[("A", "1"), ("B", "two\nlines \"quoted\" ☃"), ("C", "")]);
        assert_eq!(parse(json), Ok(expected.clone()));
        // As `%q` writes it.
        let lines = "A=\"1\"\nB=\"two\\nlines \\\"quoted\\\" \\u2603\"\nC=\"\"\n";
        assert_eq!(parse(lines), Ok(expected));
        let rest = "# a comment = none\n\nNAME_ONLY\nP=plain text # and more\nX=\"\\x41\\t\\U0001f980\"\r\nBAD=\"\\xff\"\n";
        assert_eq!(parse(rest), Ok(map(&[("P", "plain text # and more"), ("X", "A\t🦀")])));
        assert_eq!(parse(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn nothing_of_it_is_ever_a_command() {
        let lines = "A=\"$(touch /tmp/x)\"\nB=`id`\nC=$HOME\n";
        assert_eq!(
            parse(lines),
            Ok(map(&[("A", "$(touch /tmp/x)"), ("B", "`id`"), ("C", "$HOME")]))
        );
    }

    #[test]
    fn names_that_run_something_first_are_refused() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "BASH_ENV",
            "ENV",
            "GCONV_PATH",
            "PS4",
            "SHELLOPTS",
            "BASH_FUNC_mv",
            "PATH",
        ] {
            let refused = Err(AgentFileError::NameRefused(name.to_owned()));
            assert_eq!(parse(&format!("A=1\n{name}=\"x\"\n")), refused);
            assert_eq!(parse(&format!("{{\"{name}\":\"x\"}}")), refused);
            // A value that is no text is as good to a loader.
            assert_eq!(parse(&format!("{name}=\"\\xff\"\n")), refused);
        }
        let function = "{\"BASH_FUNC_mv%%\":\"() { id; }\"}";
        assert_eq!(parse(function), Err(AgentFileError::NameRefused("BASH_FUNC_mv%%".to_owned())));
        // The agent's own PATH, and names that only look alike.
        let fine = "PATH=/usr/bin:/bin\nBUILD_ENV=1\nOLD_PATH=x\n";
        assert_eq!(
            parse(fine),
            Ok(map(&[("PATH", "/usr/bin:/bin"), ("BUILD_ENV", "1"), ("OLD_PATH", "x")]))
        );
        assert_eq!(
            read_agent_file("PATH=/bin", None),
            Err(AgentFileError::NameRefused("PATH".to_owned()))
        );
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        assert_eq!(parse(r#"{"A":"1","A":"2"}"#), Err(AgentFileError::NameTwice("A".to_owned())));
        assert_eq!(parse("A=1\nA=\"1\"\n"), Err(AgentFileError::NameTwice("A".to_owned())));
        for text in [
            r#"{"A":1}"#,
            r#"{"A":{"B":"1"}}"#,
            r#"{"A":"1"} {"B":"2"}"#,
            r#"{"A":"1""#,
            "A=\"open\n",
            "A=\"shut\" and more\n",
            "A=\"\\q\"\n",
            "A=\"\\x4\"\n",
            "A=\"\\x+4\"\n",
            "A=\"\\ud800\"\n",
            "A B=1\n",
            "=1\n",
        ] {
            assert!(matches!(parse(text), Err(AgentFileError::Malformed(_))), "{text}");
        }
    }
}
