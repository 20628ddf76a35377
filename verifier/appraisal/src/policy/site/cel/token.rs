//! An expression's text as tokens.

use std::ops::Range;

use super::Wrong;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Magnitude of an integer; a sign is an operator.
    Int(u64),
    Text(String),
    Word(String),
    Symbol(&'static str),
    End,
}

/// Longest first: `<=` is not `<`.
const SYMBOLS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",",
    "(", ")", "[", "]",
];

/// Tokens with their places; the last is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Wrong> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, len) = next(rest, at)?;
        let end = at.saturating_add(len);
        if let Some(token) = token {
            out.push((token, at..end));
        }
        at = end;
    }
    out.push((Token::End, text.len()..text.len()));
    Ok(out)
}

/// The token that the rest begins with, or nothing for white space and comments; and its length.
fn next(rest: &str, at: usize) -> Result<(Option<Token>, usize), Wrong> {
    let while_is = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    let Some(first) = rest.chars().next() else { return Ok((None, 0)) };
    if first.is_ascii_whitespace() {
        return Ok((None, while_is(|c| c.is_ascii_whitespace())));
    }
    if rest.starts_with("//") {
        return Ok((None, rest.find('\n').unwrap_or(rest.len())));
    }
    if first.is_ascii_digit() {
        return number(rest, at).map(|(token, len)| (Some(token), len));
    }
    let raw = rest.strip_prefix(['r', 'R']).filter(|after| after.starts_with(['"', '\'']));
    if let Some(quoted) = raw {
        let (text, len) = string(quoted, at.saturating_add(1), true)?;
        return Ok((Some(Token::Text(text)), len.saturating_add(1)));
    }
    if rest.strip_prefix(['b', 'B']).is_some_and(|after| after.starts_with(['"', '\''])) {
        return Err(Wrong::new(at, "bytes are not supported: no field has them"));
    }
    if first == '"' || first == '\'' {
        let (text, len) = string(rest, at, false)?;
        return Ok((Some(Token::Text(text)), len));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let len = while_is(|c| c.is_ascii_alphanumeric() || c == '_');
        return Ok((rest.get(..len).map(|word| Token::Word(word.to_owned())), len));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return Ok((Some(Token::Symbol(symbol)), symbol.len()));
    }
    Err(Wrong::new(
        at,
        match first {
            '{' | '}' => "map and message literals are not supported".to_owned(),
            '=' => "'=' alone is nothing; == compares".to_owned(),
            '&' | '|' => format!("{first:?} alone is nothing; use {first}{first}"),
            _ => format!("{first:?} is not part of an expression"),
        },
    ))
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), Wrong> {
    let hex = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let is_fraction = rest.get(len..).and_then(|after| after.strip_prefix('.'));
    if hex.is_none()
        && is_fraction.is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err(Wrong::new(
            at,
            "fractions are not supported: no field has them; versions are compared by version_at_least",
        ));
    }
    let all = rest.get(..len).unwrap_or_default();
    // `from_str_radix` would take a sign; `all` has letters and digits only.
    let value = match hex {
        Some(_) => u64::from_str_radix(all.get(2..).unwrap_or_default(), 16),
        None => all.parse(),
    };
    match value {
        Ok(value) => Ok((Token::Int(value), len)),
        Err(_) => Err(Wrong::new(at, format!("{all:?} is no integer of 64 bits"))),
    }
}

/// The text between quotes, and the length with them.
fn string(rest: &str, at: usize, is_raw: bool) -> Result<(String, usize), Wrong> {
    if rest.starts_with("\"\"\"") || rest.starts_with("'''") {
        return Err(Wrong::new(at, "strings of three quotes are not supported"));
    }
    let mut chars = rest.char_indices();
    let quote = chars.next().map_or('"', |(_, c)| c);
    let mut out = String::new();
    while let Some((offset, c)) = chars.next() {
        if c == quote {
            return Ok((out, offset.saturating_add(1)));
        }
        if c == '\n' {
            break;
        }
        if c == '\\' && !is_raw {
            out.push(escape(&mut chars).ok_or_else(|| {
                let known = r#"\\, \", \', \n, \r, \t, \xHH and \uHHHH are known"#;
                Wrong::new(
                    at.saturating_add(offset),
                    format!("an escape that is not known; {known}"),
                )
            })?);
        } else {
            out.push(c);
        }
    }
    Err(Wrong::new(at, "a string without end"))
}

fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, kind) = chars.next()?;
    let digits = match kind {
        '\\' | '"' | '\'' => return Some(kind),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'x' => 2,
        'u' => 4,
        _ => return None,
    };
    let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
    let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(&text, 16).ok().filter(|_| is_hex).and_then(char::from_u32)
}
