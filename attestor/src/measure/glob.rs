//! Path patterns: absolute, anchored, over bytes.
//!
//! `*` any bytes but `/`, `?` one byte but `/`, `[a-z]` and `[!a-z]` one byte of a set, `**` as a
//! whole component any number of directories, `\` takes the next byte literally. A leading dot is a
//! byte like any other: hidden files are measured too. Braces have no meaning and are refused.
//!
//! Own code instead of a glob crate: paths are bytes here, directory links must not be walked below
//! `**`, and compiled regular expressions would stay in the daemon's memory.

use std::fmt;

/// One component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// A name without wildcards.
    Literal(Vec<u8>),
    /// A name with wildcards.
    Wild(Vec<Token>),
    /// `**`.
    AnyDepth,
}

/// One element of a name with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// This byte.
    Byte(u8),
    /// `?`.
    Any,
    /// `*`.
    Many,
    /// `[…]`: inclusive ranges, possibly negated.
    Set { negated: bool, ranges: Vec<(u8, u8)> },
}

/// An absolute path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    components: Vec<Component>,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Braces.
    #[error("braces are not supported; write one pattern for each alternative")]
    Braces,
    /// `.`, `..` or an empty component.
    #[error("has an empty, `.` or `..` component")]
    Component,
    /// A NUL byte.
    #[error("has a NUL byte")]
    Nul,
    /// Not absolute.
    #[error("is not absolute: patterns start with /")]
    Relative,
    /// `[` without `]`, an empty set or a descending range.
    #[error("has an unfinished, empty or descending [set]")]
    Set,
    /// Two stars next to others.
    #[error("`**` must be a whole component")]
    Stars,
    /// A backslash at the end of a component.
    #[error("ends a component with a backslash")]
    Backslash,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.contains('\0') {
            return Err(PatternError::Nul);
        }
        let rest = text.strip_prefix('/').ok_or(PatternError::Relative)?;
        let components =
            rest.split('/').map(|part| component(part.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), components })
    }

    /// Components, first to last.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components
    }

    /// Whether the pattern names exactly one path.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.components.iter().all(|part| matches!(part, Component::Literal(_)))
    }

    /// Whether the whole of `path` matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else {
            return false;
        };
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        matches_components(&self.components, &names)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Component {
    /// Whether one directory entry's name matches; `**` never does, it is walked.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Wild(tokens) => matches_name(tokens, name),
            Self::AnyDepth => false,
        }
    }
}

fn component(part: &[u8]) -> Result<Component, PatternError> {
    if matches!(part, b"" | b"." | b"..") {
        return Err(PatternError::Component);
    }
    if part == b"**" {
        return Ok(Component::AnyDepth);
    }
    let mut tokens = Vec::new();
    let mut bytes = part.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'\\' => Token::Byte(bytes.next().ok_or(PatternError::Backslash)?),
            b'*' if tokens.last() == Some(&Token::Many) => return Err(PatternError::Stars),
            b'*' => Token::Many,
            b'?' => Token::Any,
            b'{' | b'}' => return Err(PatternError::Braces),
            b'[' => set(&mut bytes)?,
            byte => Token::Byte(byte),
        });
    }
    let literal: Option<Vec<u8>> = tokens
        .iter()
        .map(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None })
        .collect();
    Ok(literal.map_or(Component::Wild(tokens), Component::Literal))
}

fn set(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Result<Token, PatternError> {
    let negated = bytes.next_if(|byte| matches!(byte, b'!' | b'^')).is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match bytes.next().ok_or(PatternError::Set)? {
            b']' if ranges.is_empty() => return Err(PatternError::Set),
            b']' => return Ok(Token::Set { negated, ranges }),
            b'\\' => bytes.next().ok_or(PatternError::Set)?,
            byte => byte,
        };
        let mut high = low;
        if bytes.next_if_eq(&b'-').is_some() {
            match bytes.next().ok_or(PatternError::Set)? {
                // A `-` before the closing bracket is itself.
                b']' => {
                    ranges.extend([(low, low), (b'-', b'-')]);
                    return Ok(Token::Set { negated, ranges });
                }
                b'\\' => high = bytes.next().ok_or(PatternError::Set)?,
                byte => high = byte,
            }
        }
        if high < low {
            return Err(PatternError::Set);
        }
        ranges.push((low, high));
    }
}

impl Token {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::Any | Self::Many => true,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *negated
            }
        }
    }
}

/// Linear in `name` times the tokens: only the last star is ever retried.
fn matches_name(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at) {
        match tokens.get(token) {
            Some(Token::Many) => {
                star = Some((token, at));
                token += 1;
            }
            Some(wanted) if wanted.accepts(*byte) => {
                token += 1;
                at += 1;
            }
            _ => match &mut star {
                Some((star_token, star_at)) => {
                    *star_at += 1;
                    (token, at) = (*star_token + 1, *star_at);
                }
                None => return false,
            },
        }
    }
    tokens.iter().skip(token).all(|rest| *rest == Token::Many)
}

fn matches_components(components: &[Component], names: &[&[u8]]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut deep: Option<(usize, usize)> = None;
    while let Some(name) = names.get(at) {
        match components.get(part) {
            Some(Component::AnyDepth) => {
                deep = Some((part, at));
                part += 1;
            }
            Some(wanted) if wanted.matches(name) => {
                part += 1;
                at += 1;
            }
            _ => match &mut deep {
                Some((deep_part, deep_at)) => {
                    *deep_at += 1;
                    (part, at) = (*deep_part + 1, *deep_at);
                }
                None => return false,
            },
        }
    }
    components.iter().skip(part).all(|rest| *rest == Component::AnyDepth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(path.as_bytes())
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("/usr/bin/gcc", "/usr/bin/gcc", true),
            ("/usr/bin/gcc", "/usr/bin/gcc-evil", false),
            ("/usr/bin/gcc", "/x/usr/bin/gcc", false),
            ("/usr/bin/gcc*", "/usr/bin/gcc-12", true),
            ("/usr/bin/gcc*", "/usr/bin/gcc", true),
            ("/usr/bin/gcc*", "/usr/bin/gcc/x", false),
            ("/usr/bin/*", "/usr/bin/.hidden", true),
            ("/usr/bin/g?c", "/usr/bin/gcc", true),
            ("/usr/bin/g?c", "/usr/bin/g/c", false),
            ("/usr/bin/gcc-[0-9]", "/usr/bin/gcc-9", true),
            ("/usr/bin/gcc-[!0-9]", "/usr/bin/gcc-9", false),
            ("/usr/bin/gcc-[a-c9-]", "/usr/bin/gcc--", true),
            ("/a/*b*c", "/a/xxbxbxc", true),
            ("/a/*b*c", "/a/xxbxbx", false),
            ("/a/**", "/a/b", true),
            ("/a/**", "/a/b/c/d", true),
            ("/a/**", "/ab", false),
            ("/a/**/z", "/a/z", true),
            ("/a/**/z", "/a/b/c/z", true),
            ("/a/**/z", "/a/b/c/zz", false),
            ("/a/**/b/**/c", "/a/b/x/b/y/c", true),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("usr/bin/gcc", PatternError::Relative),
            ("", PatternError::Relative),
            ("/usr//gcc", PatternError::Component),
            ("/usr/../gcc", PatternError::Component),
            ("/usr/./gcc", PatternError::Component),
            ("/", PatternError::Component),
            ("/usr/", PatternError::Component),
            ("/a**", PatternError::Stars),
            ("/{a,b}", PatternError::Braces),
            ("/[a", PatternError::Set),
            ("/[]", PatternError::Set),
            ("/[z-a]", PatternError::Set),
            ("/a\\", PatternError::Backslash),
            ("/a\0", PatternError::Nul),
        ] {
            assert_eq!(Pattern::new(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_hostile_name_costs_no_exponential_time() {
        let pattern = format!("/{}x", "*a".repeat(60));
        let path = format!("/{}", "a".repeat(250));
        let start = std::time::Instant::now();
        assert!(!matches(&pattern, &path));
        assert!(start.elapsed().as_secs() < 1);
    }
}
