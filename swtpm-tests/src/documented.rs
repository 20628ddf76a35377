//! Blocks of a document that programs hold against the code, or write.
//!
//! Console blocks are commands with what they print, to be run and compared:
//!
//! ````text
//! ```console
//! $ command
//! > its next line
//! output, where … stands for any text that is not empty; a line that is only … stands for any number of lines
//! [exit 3]
//! ```
//! ````

/// What stands for any text, or for any lines.
const ANY: &str = "…";

/// A command of a document, with what it is expected to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The heading above.
    pub heading: String,
    /// Line in the document, from 1.
    pub line: usize,
    /// The command; several lines if it goes on.
    pub command: String,
    /// Lines of output.
    pub output: Vec<String>,
    /// How it ends.
    pub exit: i32,
}

/// Every command in the console blocks of a Markdown text, in order.
#[must_use]
pub fn commands(markdown: &str) -> Vec<Expected> {
    let mut out: Vec<Expected> = Vec::new();
    let mut heading = "";
    for (at, line, place) in places(markdown) {
        match place {
            Place::Text if line.starts_with('#') => {
                heading = line.trim_start_matches('#').trim();
            }
            Place::Console => read_line(&mut out, heading, at, line),
            _ => {}
        }
    }
    out
}

/// Lines, from 1, that look like commands and stand where nothing is run: in no console block.
#[must_use]
pub fn stray_commands(markdown: &str) -> Vec<usize> {
    let is_stray =
        |line: &str, place| place != Place::Console && line.trim_start().starts_with("$ ");
    places(markdown)
        .filter(|(_, line, place)| is_stray(line, *place))
        .map(|(at, _, _)| at)
        .collect()
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// Where a block begins or ends.
    Fence,
    Console,
    OtherBlock,
}

/// Every line with its number, from 1, and where it stands.
fn places(markdown: &str) -> impl Iterator<Item = (usize, &str, Place)> {
    let mut is_console = None;
    markdown.lines().enumerate().map(move |(at, line)| {
        let place = match is_console {
            None if line.starts_with("```") => {
                is_console = Some(line == "```console");
                Place::Fence
            }
            None => Place::Text,
            Some(_) if line == "```" => {
                is_console = None;
                Place::Fence
            }
            Some(true) => Place::Console,
            Some(false) => Place::OtherBlock,
        };
        (at + 1, line, place)
    })
}

fn read_line(out: &mut Vec<Expected>, heading: &str, line_number: usize, line: &str) {
    if let Some(command) = line.strip_prefix("$ ") {
        out.push(Expected {
            heading: heading.to_owned(),
            line: line_number,
            command: command.to_owned(),
            output: Vec::new(),
            exit: 0,
        });
        return;
    }
    let Some(last) = out.last_mut() else { return };
    let exit = line.strip_prefix("[exit ").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    // An empty line of a command has no space behind its mark, as editors leave it.
    let more = line.strip_prefix("> ").or_else(|| (line == ">").then_some(""));
    match (more, exit) {
        // A command goes on only before its output.
        (Some(more), _) if last.output.is_empty() => {
            last.command.push('\n');
            last.command.push_str(more);
        }
        (_, Some(exit)) => last.exit = exit,
        _ => last.output.push(line.to_owned()),
    }
}

impl Expected {
    /// Compares with what really happened; what differs, for people.
    ///
    /// # Errors
    /// Heading, command, and the first line that differs.
    pub fn compare(&self, printed: &str, exit: i32) -> Result<(), String> {
        let printed = spaced(printed);
        let found: Vec<&str> = printed.lines().collect();
        let expected: Vec<&str> = self.output.iter().map(String::as_str).collect();
        let mut furthest = (0, 0);
        if lines_match(&expected, &found, (0, 0), &mut furthest) && exit == self.exit {
            return Ok(());
        }
        let (at, reached) = furthest;
        let marked = |lines: &[&str], at: usize| -> String {
            let line = |(number, line): (usize, &&str)| {
                format!("  {} {line}\n", if number == at { '>' } else { ' ' })
            };
            lines.iter().enumerate().map(line).collect()
        };
        Err(format!(
            "{}, line {}:\n$ {}\nexpected (exit {}):\n{}found (exit {exit}):\n{}",
            self.heading,
            self.line,
            self.command,
            self.exit,
            marked(&expected, at),
            marked(&found, reached),
        ))
    }
}

/// Whether the lines from here on match; `furthest` is how far both sides agreed.
fn lines_match(
    expected: &[&str],
    found: &[&str],
    (at, reached): (usize, usize),
    furthest: &mut (usize, usize),
) -> bool {
    *furthest = (*furthest).max((at, reached));
    let Some(line) = expected.get(at) else { return reached == found.len() };
    if line.trim() == ANY {
        return (reached..=found.len())
            .any(|to| lines_match(expected, found, (at + 1, to), furthest));
    }
    let is_met = found.get(reached).is_some_and(|found| line_matches(line, found));
    is_met && lines_match(expected, found, (at + 1, reached + 1), furthest)
}

fn line_matches(expected: &str, found: &str) -> bool {
    let mut parts = expected.split(ANY);
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let after = without_first(rest).and_then(|rest| rest.split_once(part));
        let Some((_, after)) = after else { return false };
        rest = after;
    }
    without_first(rest).is_some_and(|rest| rest.ends_with(last))
}

/// What is behind the first character: … stands for one at least.
fn without_first(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    characters.next()?;
    Some(characters.as_str())
}

/// What a document shows behind the comment `<!-- NAME -->`: the content of the block in this language.
#[must_use]
pub fn block<'a>(document: &'a str, name: &str, language: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&begin(name, language))?;
    Some(rest.split_once(END)?.0)
}

/// The document with another content of a block.
///
/// # Errors
/// The block, if it is not there exactly once.
pub fn with_block(
    document: &str,
    name: &str,
    language: &str,
    content: &str,
) -> Result<String, String> {
    let begin = begin(name, language);
    let parts = match document.matches(&begin).count() {
        1 => document.split_once(&begin),
        _ => None,
    };
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| format!("no block, or several, behind <!-- {name} -->"))?;
    Ok(format!("{before}{begin}{}{END}{after}", content.trim_matches('\n')))
}

/// How a block ends.
const END: &str = "\n```\n";

fn begin(name: &str, language: &str) -> String {
    format!("<!-- {name} -->\n```{language}\n")
}

/// What really was printed, as a document has it: digests, decisions and times as …, lines without spaces at their end.
#[must_use]
pub fn as_documented(printed: &str) -> String {
    spaced(printed).lines().map(|line| words_elided(line) + "\n").collect()
}

/// Columns with spaces between them, and none at the ends of lines.
fn spaced(printed: &str) -> String {
    printed.lines().map(|line| line.trim_end().replace('\t', "  ") + "\n").collect()
}

fn words_elided(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-:".contains(c);
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(&elided(word));
        let next = after.find(is_word).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

fn elided(word: &str) -> String {
    let (head, value) = word.rsplit_once(':').map_or(("", word), |(head, value)| (head, value));
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if value.len() >= 32 && is_hex(value) {
        return if head.is_empty() { ANY.to_owned() } else { format!("{head}:{ANY}") };
    }
    let is_decision = word.split_once('-').is_some_and(|(time, random)| {
        time.len() == 10 && random.len() == 16 && is_hex(time) && is_hex(random)
    });
    let is_time = word.len() == 20 && word.ends_with('Z') && word.as_bytes().get(10) == Some(&b'T');
    if is_decision || is_time { ANY.to_owned() } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n```console\n$ a\none\n$ b <<END\n> x\n> END\n[exit 3]\n```\n## Next\n```sh\n$ no\n```\n";

    #[test]
    fn commands_are_read_with_heading_output_and_exit_code() {
        let found = commands(TEXT);
        let brief: Vec<_> = found
            .iter()
            .map(|one| (one.heading.as_str(), one.line, one.command.as_str(), one.exit))
            .collect();
        assert_eq!(brief, [("Title", 3, "a", 0), ("Title", 5, "b <<END\nx\nEND", 3)]);
        assert_eq!(found[0].output, ["one"]);
    }

    #[test]
    fn commands_that_nothing_would_run_are_found() {
        assert_eq!(stray_commands(TEXT), [12]);
        assert_eq!(stray_commands("```console\n$ a\n```\n$ b\n```console \n  $ c\n"), [4, 6]);
    }

    #[test]
    fn any_text_and_any_lines_match() {
        let expected = |output: &[&str]| Expected {
            heading: "H".into(),
            line: 1,
            command: "c".into(),
            output: output.iter().map(|line| (*line).to_owned()).collect(),
            exit: 0,
        };
        for (output, printed, is_match) in [
            (&["a … c"][..], "a b c", true),
            (&["a … c"], "a b d", false),
            (&["…"], "", true),
            (&["a", "…", "z"], "a\nb\nc\nz", true),
            (&["a", "…", "z"], "a\nb\nc", false),
            (&["…x…y…"], "1x2y3", true),
            (&["…x…y…"], "1y2x3", false),
            (&["…x…y…"], "x2y3", false),
            (&["…x…y…"], "1xy3", false),
            (&["…x…y…"], "1x2y", false),
            (&["a … c"], "a  c", false),
            (&["a…b"], "aéb", true),
            (&[], "a", false),
        ] {
            assert_eq!(
                expected(output).compare(printed, 0).is_ok(),
                is_match,
                "{output:?} {printed:?}"
            );
        }
        let told = expected(&["a", "b"]).compare("a\nc", 3).expect_err("they differ");
        assert!(told.starts_with("H, line 1:\n$ c\n") && told.contains("  > b\n"), "{told}");
        assert!(told.contains("found (exit 3):\n    a\n  > c\n"), "{told}");
    }

    #[test]
    fn a_block_is_found_and_replaced() {
        let document = "a\n<!-- x -->\n```text\none\n\ntwo\n```\nb\n";
        assert_eq!(block(document, "x", "text"), Some("one\n\ntwo"));
        assert_eq!(block(document, "x", "json"), None);
        let changed = with_block(document, "x", "text", "\nthree\n");
        assert_eq!(changed.as_deref(), Ok("a\n<!-- x -->\n```text\nthree\n```\nb\n"));
        assert!(with_block(document, "y", "text", "").is_err_and(|why| why.contains("y -->")));
        assert!(with_block(&document.repeat(2), "x", "text", "").is_err(), "which one?");
    }

    #[test]
    fn what_differs_between_runs_is_left_out() {
        let digest = "a".repeat(64);
        let line =
            format!("denied (decision 006b08d551-73e4bcb7930aec1e): sha256:{digest} {digest}  ");
        assert_eq!(as_documented(&line), "denied (decision …): sha256:… …\n");
        assert_eq!(as_documented("at 2026-11-27T03:04:48Z by x"), "at … by x\n");
        assert_eq!(as_documented("version 6.1.0-28-amd64"), "version 6.1.0-28-amd64\n");
    }
}
