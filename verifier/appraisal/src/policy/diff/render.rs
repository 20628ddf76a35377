//! Differences for a terminal and for a pull request.

use super::{
    Difference, Words,
    words::{code, shown},
};

/// Longest value that is shown in full, characters: a kernel command line fits twice.
const MAX_VALUE_CHARS: usize = 4096;
const NONE: &str = "No difference: the two documents are equal.";

/// For a terminal: a summary, then one line each; with `hex` the full values below.
#[must_use]
pub fn to_text(differences: &[Difference], hex: bool) -> String {
    let mut out = summary(differences);
    out.push('\n');
    for difference in differences {
        out.push_str(&format!("{:<8} {}\n", difference.effect, titled(difference)));
        for (sign, value) in values(difference, hex) {
            out.push_str(&format!("           {sign} {}\n", shown(value, MAX_VALUE_CHARS)));
        }
    }
    out
}

/// For a pull request: the same as a list. Nothing that a document or a log holds is markup in it.
#[must_use]
pub fn to_markdown(differences: &[Difference], hex: bool) -> String {
    let mut out = summary(differences);
    out.push('\n');
    if !differences.is_empty() {
        out.push('\n');
    }
    for difference in differences {
        let words = titled(difference).to_markdown();
        out.push_str(&format!("- **{}**: {words}\n", difference.effect));
        for (sign, value) in values(difference, hex) {
            let what = if sign == '-' { "removed" } else { "added" };
            out.push_str(&format!("  - {what}: {}\n", code(&shown(value, MAX_VALUE_CHARS))));
        }
    }
    out
}

fn titled(difference: &Difference) -> Words {
    match &difference.group {
        Some(group) => Words::new("group ").quote(group).say(": ").then(difference.words.clone()),
        None => difference.words.clone(),
    }
}

fn values(difference: &Difference, hex: bool) -> impl Iterator<Item = (char, &String)> {
    let removed = difference.removed.iter().map(|value| ('-', value));
    let added = difference.added.iter().map(|value| ('+', value));
    removed.chain(added).filter(move |_| hex)
}

/// How many, and the answer that a reviewer looks for first.
fn summary(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return NONE.to_owned();
    }
    let widen = differences.iter().filter(|difference| difference.effect.widens()).count();
    let narrow = differences.iter().filter(|difference| difference.effect.narrows()).count();
    let all = match differences.len() {
        1 => "1 difference".to_owned(),
        many => format!("{many} differences"),
    };
    let widen = match widen {
        0 => "none accepts anything that was refused before".to_owned(),
        1 => "1 accepts what was refused before".to_owned(),
        many => format!("{many} accept what was refused before"),
    };
    let narrow = match narrow {
        0 => "none refuses anything that was accepted".to_owned(),
        1 => "1 refuses what was accepted".to_owned(),
        many => format!("{many} refuse what was accepted"),
    };
    format!("{all}: {widen}, {narrow}.")
}
