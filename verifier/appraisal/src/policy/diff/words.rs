//! Words of a difference, with what others wrote kept apart from what we say.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::printable;

/// Characters of one foreign text that words show; the whole stands in the fields of the difference.
const MAX_SHOWN_CHARS: usize = 160;
/// Hexadecimal digits of a digest that words show.
const SHORT_DIGITS: usize = 12;

/// A sentence; text from documents and logs in it is escaped wherever it is shown.
///
/// Shown and serialized as one line of printable text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Own(String),
    /// From a document or a log; in quotes where it could be taken for ours.
    Foreign {
        text: String,
        is_quoted: bool,
    },
}

impl Words {
    pub(super) fn new(own: impl Into<String>) -> Self {
        Self::default().say(own)
    }

    /// Ours, written into the source; nothing of a document may come this way.
    pub(super) fn say(mut self, own: impl Into<String>) -> Self {
        self.0.push(Part::Own(own.into()));
        self
    }

    /// Theirs, told apart by quotes.
    pub(super) fn quote(mut self, text: &str) -> Self {
        self.0.push(Part::Foreign { text: shown(text, MAX_SHOWN_CHARS), is_quoted: true });
        self
    }

    /// Theirs, where it reads better without quotes.
    pub(super) fn plain(mut self, text: &str) -> Self {
        self.0.push(Part::Foreign { text: shown(text, MAX_SHOWN_CHARS), is_quoted: false });
        self
    }

    /// A digest, shortened.
    pub(super) fn digest(self, digest: &str) -> Self {
        let short = short(digest);
        self.plain(&short)
    }

    /// A digest and what it is: `sha256:0123… (shim)`.
    pub(super) fn named(self, digest: &str, what: Option<&str>) -> Self {
        let words = self.digest(digest);
        match what.filter(|what| !what.is_empty()) {
            Some(what) => words.say(" (").plain(what).say(")"),
            None => words,
        }
    }

    pub(super) fn then(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Several, with `between` them; the first few, and how many more there are.
    pub(super) fn joined(all: Vec<Self>, between: &str, most: usize) -> Self {
        let more = all.len().saturating_sub(most);
        let mut out = Self::default();
        for (at, words) in all.into_iter().take(most).enumerate() {
            out = if at > 0 { out.say(between) } else { out }.then(words);
        }
        if more > 0 { out.say(format!("{between}{more} more")) } else { out }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As GitHub and other CommonMark readers show it.
    pub(super) fn to_markdown(&self) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Own(text) => text.clone(),
                Part::Foreign { text, .. } => code(text),
            })
            .collect()
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Own(text) | Part::Foreign { text, is_quoted: false } => f.write_str(text)?,
                Part::Foreign { text, is_quoted: true } => write!(f, "`{text}`")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The first characters of a text, printable.
pub(super) fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

/// Code in Markdown, whatever it holds. `text` is printable.
///
/// As code nobody is mentioned and nothing is linked. Entities are no markup to any reader, in tables neither; the plain
/// form is for what has nothing to escape.
pub(super) fn code(text: &str) -> String {
    let is_harmless = |char: char| !"`|<>&\\".contains(char);
    if !text.trim().is_empty() && text.chars().all(is_harmless) {
        return format!("`{text}`");
    }
    let mut out = "<code>".to_owned();
    for char in text.chars() {
        if char.is_ascii_punctuation() {
            out.push_str(&format!("&#{};", u32::from(char)));
        } else {
            out.push(char);
        }
    }
    out + "</code>"
}

fn short(digest: &str) -> String {
    let (alg, hex) = digest.split_once(':').map_or((None, digest), |(alg, hex)| (Some(alg), hex));
    let start: String = hex.chars().take(SHORT_DIGITS).collect();
    let more = if start.len() < hex.len() { "…" } else { "" };
    match alg {
        Some(alg) => format!("{alg}:{start}{more}"),
        None => format!("{start}{more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_its_line_and_is_no_markup() {
        for (text, shown, markdown) in [
            ("quiet", "`quiet`", "`quiet`"),
            (
                "a\nb\u{1b}[2J",
                "`a\\nb\\u{1b}[2J`",
                "<code>a&#92;nb&#92;u&#123;1b&#125;&#91;2J</code>",
            ),
            ("\u{202e}gpj", "`\\u{202e}gpj`", "<code>&#92;u&#123;202e&#125;gpj</code>"),
            ("x`|<b>", "`x`|<b>`", "<code>x&#96;&#124;&#60;b&#62;</code>"),
            ("\\EFI\\shim.efi", "`\\EFI\\shim.efi`", "<code>&#92;EFI&#92;shim&#46;efi</code>"),
            ("@all", "`@all`", "`@all`"),
            (" ", "` `", "<code> </code>"),
        ] {
            let words = Words::default().quote(text);
            assert_eq!(words.to_string(), shown);
            assert_eq!(words.to_markdown(), markdown);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shown("größe", 3), "grö…");
        assert_eq!(shown("größe", 5), "größe");
        // The bound is on what was written, not on what escaping makes of it.
        assert_eq!(shown("\u{1b}\u{1b}x", 2), "\\u{1b}\\u{1b}…");
    }

    #[test]
    fn digests_are_shortened() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let words = Words::default().named(&digest, Some("shim"));
        assert_eq!(words.to_string(), "sha256:abababababab… (shim)");
        assert_eq!(Words::default().digest("0123").to_string(), "0123");
    }
}
