//! What the machine printed, for people who look for why it failed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines shown of a console.
const TAIL_LINES: usize = 30;

/// A file that the first serial port is written to.
#[derive(Clone, Debug)]
pub(super) struct Console {
    file: PathBuf,
}

impl Console {
    pub(super) const fn new(file: PathBuf) -> Self {
        Self { file }
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// All of it, without the firmware's cursor movements.
    pub(super) fn text(&self) -> String {
        let bytes = fs::read(&self.file).unwrap_or_default();
        without_escapes(&String::from_utf8_lossy(&bytes))
    }

    /// The last lines that say something.
    pub(super) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }
}

/// Leaves out control sequences (`ESC [ … letter`) and carriage returns.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // `[`, then parameters up to the letter that ends them.
                characters.next();
                characters.find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn cursor_movements_are_left_out() {
        let text = "\u{1b}[2J\u{1b}[01;01H\u{1b}[=3hBdsDxe: loading\r\nnext";
        assert_eq!(super::without_escapes(text), "BdsDxe: loading\nnext");
    }
}
