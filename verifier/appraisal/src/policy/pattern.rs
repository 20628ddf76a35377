//! Shapes of command lines: a pattern language of one character, anchored at both ends.
//!
//! `*` stands for any run of characters that belong to one word whatever reads the line: visible ASCII, but no quote;
//! also for none. Everything else stands for itself. So `root=UUID=* ro quiet` accepts any root file system and no
//! further word. It stands in the value of an option alone: in a name, or where a word has no value, it would accept other
//! options, `in*` for one `init=/bin/sh`.
//!
//! # Source
//! Linux `next_arg()` ends a word at any byte that `isspace()` says is one, of Latin-1 too, and lets a quote run over
//! spaces; the EFI stub ends the line at a line feed.

/// Longest pattern, bytes: the kernel's COMMAND_LINE_SIZE on x86.
pub(super) const MAX_PATTERN_BYTES: usize = 2048;
/// Wildcards of one pattern.
const MAX_WILDCARDS: usize = 32;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
}

impl Pattern {
    /// Compiles a pattern, or says what is wrong with it.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!("{} bytes, a pattern has 1 to {MAX_PATTERN_BYTES}", text.len()));
        }
        if let Some(other) = text.bytes().find(|byte| *byte != b' ' && !is_of_a_word(*byte)) {
            return Err(format!("byte {other:#04x}: visible ASCII without quotes, and spaces"));
        }
        if text.contains("**") {
            return Err("two wildcards in a row say what one says".to_owned());
        }
        let wildcards = text.matches('*').count();
        if wildcards == 0 {
            return Err("no `*`: write it as `text`".to_owned());
        }
        if wildcards > MAX_WILDCARDS {
            return Err(format!("{wildcards} wildcards, at most {MAX_WILDCARDS}"));
        }
        // A word of wildcards alone would accept any word, `init=/bin/sh` among them; one in a name as many as begin or
        // end like it.
        for word in text.split(' ') {
            let name = word.split_once('=').map_or(word, |(name, _)| name);
            if name.contains('*') || (name.is_empty() && word.contains('*')) {
                return Err(format!(
                    "{word:?} accepts other options: `*` stands in a value, as in `root=*`"
                ));
            }
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The pattern as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `line` has this shape.
    ///
    /// Time is bounded by the product of both lengths: one place to go back to, no recursion.
    pub(super) fn matches(&self, line: &str) -> bool {
        let (pattern, line) = (self.text.as_bytes(), line.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where the last wildcard stands, and up to where it has eaten.
        let mut back: Option<(usize, usize)> = None;
        while read < line.len() {
            match (pattern.get(at), line.get(read)) {
                (Some(b'*'), _) => {
                    back = Some((at, read));
                    at += 1;
                }
                (Some(wanted), Some(found)) if wanted == found => {
                    at += 1;
                    read += 1;
                }
                (_, _) => match back {
                    // It eats one more, but nothing that could end a word: an earlier wildcard cannot help then
                    // either, because the literal text between the two was met as early as it can be.
                    Some((star, eaten))
                        if line.get(eaten).is_some_and(|byte| is_of_a_word(*byte)) =>
                    {
                        back = Some((star, eaten + 1));
                        at = star + 1;
                        read = eaten + 1;
                    }
                    _ => return false,
                },
            }
        }
        pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
    }
}

/// Whether the kernel takes a byte for part of a word, wherever it stands.
const fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, line: &str) -> bool {
        Pattern::compile(pattern).expect("a pattern").matches(line)
    }

    #[test]
    fn a_pattern_is_anchored_and_never_crosses_a_space() {
        for (pattern, line, is_match) in [
            ("root=UUID=* ro quiet", "root=UUID=12-34 ro quiet", true),
            ("root=UUID=* ro quiet", "root=UUID= ro quiet", true),
            ("root=UUID=* ro quiet", "root=UUID=1 init=/bin/sh ro quiet", false),
            ("root=UUID=* ro quiet", "root=UUID=1 ro quiet init=/bin/sh", false),
            ("root=UUID=* ro quiet", "x root=UUID=1 ro quiet", false),
            ("root=*", "root=a", true),
            ("root=*", "root=a b", false),
            ("a=*b*c d", "a=xbybzc d", true),
            ("a=*b*c d", "a=xbyc cd", false),
            ("a=*bc", "a=bbbc", true),
            ("a=*", "b=", false),
            // What the kernel takes for the end of a word, or for the begin of a longer one.
            ("root=UUID=* ro quiet", "root=UUID=1\tinit=/bin/sh ro quiet", false),
            ("root=* ro lockdown=integrity", "root=UUID=1\n ro lockdown=integrity", false),
            (
                "host=* lockdown=integrity module.sig_enforce=1",
                "host=\"x lockdown=integrity module.sig_enforce=1",
                false,
            ),
            ("root=* ro", "root=x\u{a0}init=/bin/sh ro", false),
            ("root=* ro", "root=\u{e0} ro", false),
        ] {
            assert_eq!(matches(pattern, line), is_match, "{pattern:?} {line:?}");
        }
    }

    #[test]
    fn a_pattern_that_accepts_any_word_is_refused() {
        for (text, what) in [
            ("", "0 bytes"),
            ("a=**", "two wildcards in a row"),
            ("plain", "no `*`"),
            ("a=*\n", "byte 0x0a"),
            ("a=* b=\"c\"", "byte 0x22"),
            ("a=* \u{e0}", "byte 0xc3"),
            (&"a=* ".repeat(33), "33 wildcards"),
        ] {
            let why = Pattern::compile(text).expect_err(text);
            assert!(why.starts_with(what), "{text:?}: {why}");
        }
    }

    /// `in*=x` accepts `init=x`, `in*` also `init=/bin/sh`.
    #[test]
    fn a_wildcard_stands_in_the_value_of_an_option_alone() {
        for (text, word) in [
            ("*", "*"),
            ("ro * quiet", "*"),
            ("ro in*", "in*"),
            ("ro *quiet", "*quiet"),
            ("in*=x ro", "in*=x"),
            ("*=on", "*=on"),
            ("a=* b*=c", "b*=c"),
            ("a* b=c", "a*"),
            ("=* ro", "=*"),
        ] {
            let why = Pattern::compile(text).expect_err(text);
            assert!(why.starts_with(&format!("{word:?} accepts other options")), "{text:?}: {why}");
        }
        for text in ["root=*", "ro root=UUID=* quiet", "module.option=*", "a=b*c=*d ro"] {
            assert_eq!(Pattern::compile(text).map(|pattern| pattern.text), Ok(text.to_owned()));
        }
    }
}
