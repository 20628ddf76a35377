//! Names that are not judged: a small pattern language, anchored at both ends.
//!
//! # Language
//! A pattern is compared with the whole name, from its first byte to its last.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `*` | any bytes but `/`, also none |
//! | `?` | one byte but `/` |
//! | `**` as a whole segment | any number of segments, also none |
//! | `\` and a character | that character |
//! | space | `_` too: the kernel writes a name's spaces so |
//! | anything else | itself |
//!
//! So `/usr/bin/foo` excludes that file alone, neither `/usr/bin/foobar` nor `/opt/usr/bin/foo`;
//! `/var/tmp/**` excludes what lies below that folder; `**/x` is any `x`. A pattern of wildcards alone
//! is refused: it would exclude everything. A name with control characters is never excluded.

use super::ImaProblem;

/// Longest pattern, bytes: PATH_MAX of Linux.
pub const MAX_PATTERN_BYTES: usize = 4096;
/// Patterns of one policy.
pub const MAX_PATTERNS: usize = 256;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// What every match begins with.
    prefix: Vec<u8>,
    segments: Vec<Segment>,
}

/// What stands between two slashes of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`.
    Any,
    One(Vec<Atom>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Atom {
    Byte(u8),
    /// `?`
    AnyByte,
    /// `*`
    AnyRun,
}

impl Exclusion {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`ImaProblem`] for an empty or over-long pattern, one of wildcards alone, `**` within a
    /// segment, a backslash at the end, or a control character.
    pub fn compile(pattern: &str) -> Result<Self, ImaProblem> {
        let problem = |what: &str| ImaProblem::new(format!("exclude {pattern:?}"), what);
        if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
            return Err(problem("a pattern has 1 to 4096 bytes"));
        }
        if pattern.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(problem("control characters are never excluded"));
        }
        let mut segments = Vec::new();
        for text in pattern.split('/') {
            if text == "**" {
                // Two in a row say what one says, and would only cost time.
                if segments.last() != Some(&Segment::Any) {
                    segments.push(Segment::Any);
                }
                continue;
            }
            let atoms = atoms(text).ok_or_else(|| problem("a backslash stands at an end"))?;
            let is_run_twice =
                atoms.windows(2).any(|pair| pair == [Atom::AnyRun, Atom::AnyRun].as_slice());
            if is_run_twice {
                return Err(problem("** stands for whole segments: /a/**/b"));
            }
            segments.push(Segment::One(atoms));
        }
        let is_literal = |segment: &Segment| match segment {
            Segment::Any => false,
            Segment::One(atoms) => atoms.iter().any(|atom| matches!(atom, Atom::Byte(_))),
        };
        if !segments.iter().any(is_literal) {
            return Err(problem("a pattern of wildcards alone would exclude everything"));
        }
        let prefix = literal_prefix(&segments);
        Ok(Self { prefix, segments })
    }

    /// Whether the pattern matches the whole name.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if !name.starts_with(&self.prefix) || name.iter().any(u8::is_ascii_control) {
            return false;
        }
        let names: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
        // One step back suffices: what a later `**` can take, an earlier one need not.
        let (mut at, mut pattern) = (0_usize, 0_usize);
        let mut retry: Option<(usize, usize)> = None;
        while let Some(segment) = names.get(at) {
            match self.segments.get(pattern) {
                Some(Segment::Any) => {
                    pattern = pattern.saturating_add(1);
                    retry = Some((at, pattern));
                    continue;
                }
                Some(Segment::One(atoms)) if matches_segment(atoms, segment) => {
                    at = at.saturating_add(1);
                    pattern = pattern.saturating_add(1);
                    continue;
                }
                _ => {}
            }
            let Some((from, resume)) = retry else { return false };
            at = from.saturating_add(1);
            pattern = resume;
            retry = Some((at, resume));
        }
        self.segments.get(pattern..).is_some_and(|left| left.iter().all(|s| *s == Segment::Any))
    }
}

fn atoms(text: &str) -> Option<Vec<Atom>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'*' => Atom::AnyRun,
            b'?' => Atom::AnyByte,
            b'\\' => Atom::Byte(as_kernel(bytes.next()?)),
            byte => Atom::Byte(as_kernel(byte)),
        });
    }
    Some(out)
}

/// The byte as the kernel writes it in a name.
pub(super) const fn as_kernel(byte: u8) -> u8 {
    if byte == b' ' { b'_' } else { byte }
}

fn literal_prefix(segments: &[Segment]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let Segment::One(atoms) = segment else { break };
        if index > 0 {
            out.push(b'/');
        }
        for atom in atoms {
            let Atom::Byte(byte) = atom else { return out };
            out.push(*byte);
        }
    }
    out
}

fn matches_segment(atoms: &[Atom], segment: &[u8]) -> bool {
    let (mut at, mut atom) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = segment.get(at) {
        match atoms.get(atom) {
            Some(Atom::AnyRun) => {
                atom = atom.saturating_add(1);
                retry = Some((at, atom));
                continue;
            }
            Some(Atom::AnyByte) => {
                at = at.saturating_add(1);
                atom = atom.saturating_add(1);
                continue;
            }
            Some(Atom::Byte(expected)) if expected == byte => {
                at = at.saturating_add(1);
                atom = atom.saturating_add(1);
                continue;
            }
            _ => {}
        }
        let Some((from, resume)) = retry else { return false };
        at = from.saturating_add(1);
        atom = resume;
        retry = Some((at, resume));
    }
    atoms.get(atom..).is_some_and(|left| left.iter().all(|atom| *atom == Atom::AnyRun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let compiled = Exclusion::compile(pattern).expect("a pattern");
        for name in matching {
            assert!(compiled.matches(name.as_bytes()), "{pattern} excludes {name}");
        }
        for name in others {
            assert!(!compiled.matches(name.as_bytes()), "{pattern} does not exclude {name}");
        }
    }

    #[test]
    fn a_pattern_is_anchored_at_both_ends() {
        check(
            "/usr/bin/foo",
            &["/usr/bin/foo"],
            &[
                "/usr/bin/foobar-evil",
                "/usr/bin/foo/evil",
                "/usr/bin/foo/",
                "/opt/usr/bin/foo",
                "/usr/bin/fo",
                "usr/bin/foo",
                "/usr/bin/foo\n",
                "",
            ],
        );
    }

    #[test]
    fn wildcards_stay_within_their_segment() {
        check("/usr/bin/foo*", &["/usr/bin/foo", "/usr/bin/foobar"], &["/usr/bin/foo/bar"]);
        check("/a/*/c", &["/a/b/c", "/a//c"], &["/a/c", "/a/b/b/c", "/a/b/cd"]);
        check("/a/b?", &["/a/bc"], &["/a/b", "/a/b/", "/a/bcd"]);
        check("/a/*x*y", &["/a/xy", "/a/1x2y", "/a/xyxy"], &["/a/yx", "/a/x/y", "/a/xyz"]);
    }

    #[test]
    fn two_stars_stand_for_segments() {
        check("/var/tmp/**", &["/var/tmp/a", "/var/tmp/a/b", "/var/tmp"], &["/var/tmpa", "/var/t"]);
        check("/a/**/z", &["/a/z", "/a/b/z", "/a/b/c/z", "/a/z/z"], &["/a/bz", "/a/z/b", "/b/z"]);
        check("**/x", &["x", "/x", "/a/b/x"], &["/a/bx", "/x/a"]);
        check("/a/**/b/**/c", &["/a/b/c", "/a/1/b/2/b/3/c"], &["/a/c/b", "/a/b/c/d"]);
    }

    #[test]
    fn names_are_compared_as_the_kernel_writes_them() {
        check("/opt/my tool", &["/opt/my_tool"], &["/opt/my tool/x"]);
        check(r"/opt/\*", &["/opt/*"], &["/opt/a"]);
        check(r"/opt/\\", &[r"/opt/\"], &["/opt/"]);
        check("/opt/*", &["/opt/é"], &["/opt/a\u{1}", "/opt/a\nb"]);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", "**", "/**", "*", "*/?", "/a**", "/**a", "/a/***", "/a\\", "/a\n", "//"] {
            assert!(Exclusion::compile(bad).is_err(), "{bad:?}");
        }
        assert!(Exclusion::compile(&"a".repeat(MAX_PATTERN_BYTES)).is_ok());
        assert!(Exclusion::compile(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }

    /// Backtracking is bounded: this would take for ever with one step back for each star.
    #[test]
    fn hostile_patterns_and_names_end_soon() {
        let pattern = format!("/{}b", "*a".repeat(500));
        let name = format!("/{}", "a".repeat(4000));
        check(&pattern, &[], &[&name]);
        let pattern = format!("/{}/b", "**/a/".repeat(300).trim_end_matches('/'));
        let name = "/a".repeat(2000);
        check(&pattern, &[], &[&name]);
    }
}
