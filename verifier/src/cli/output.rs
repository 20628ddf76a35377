//! Printing: tables on a terminal, plain columns in a pipe, JSON where asked for.

use std::io::{self, IsTerminal as _, Write as _};

/// Text that came from elsewhere: nothing that a worker or a document holds moves the cursor of an administrator's
/// terminal, or reads as something else.
pub(super) use appraisal::printable;
use appraisal::x509::format_utc;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Done, failure::Failure};

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// A text, as it is, with a line end.
    pub(super) fn line(self, text: impl AsRef<str>) -> Done {
        written(writeln!(io::stdout().lock(), "{}", text.as_ref()))
    }

    /// A text, as it is, without a line end.
    pub(super) fn text(self, text: &str) -> Done {
        written(io::stdout().lock().write_all(text.as_bytes()))
    }

    /// JSON.
    pub(super) fn json(self, value: &impl Serialize) -> Done {
        let text = serde_json::to_string_pretty(value)?;
        self.line(text)
    }

    /// JSON if asked for, else a sentence.
    pub(super) fn either(self, value: &impl Serialize, sentence: impl AsRef<str>) -> Done {
        if self.json { self.json(value) } else { self.line(sentence) }
    }

    /// Rows under heads; `nothing` is said instead of an empty table.
    pub(super) fn table(self, heads: &[&str], rows: &[Vec<String>], nothing: &str) -> Done {
        if rows.is_empty() {
            if io::stdout().is_terminal() {
                return self.line(nothing);
            }
            return Ok(());
        }
        if io::stdout().is_terminal() {
            let mut table = Table::new();
            table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_header(heads.iter().copied());
            for row in rows {
                table.add_row(row.iter().map(|cell| printable(cell)));
            }
            return self.line(table.to_string());
        }
        // Tab-separated, so that `cut` and `awk` do.
        let mut text = heads.join("\t");
        for row in rows {
            text.push('\n');
            let cells: Vec<String> = row.iter().map(|cell| printable(cell)).collect();
            text.push_str(&cells.join("\t"));
        }
        self.line(text)
    }

    /// Names with values, one a line.
    pub(super) fn facts(self, facts: &[(&str, String)]) -> Done {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<String> = facts
            .iter()
            .map(|(name, value)| format!("{name:width$}  {}", printable(value)))
            .collect();
        self.line(lines.join("\n"))
    }
}

/// A text of several lines that came from elsewhere: its lines are kept, and nothing else of what is not printable.
pub(super) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A time for people; `-` for never.
pub(super) fn time(unix_s: i64) -> String {
    if unix_s == 0 { "-".to_owned() } else { format_utc(unix_s) }
}

fn written(result: io::Result<()>) -> Done {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::of(&error).while_doing("write to the standard output")),
    }
}
