//! Reads a TOML document key by key, and remembers every problem with its line.

use std::{collections::BTreeSet, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

/// A document being read.
pub(super) struct Document<'t> {
    text: &'t str,
    root: DeTable<'t>,
    problems: Vec<Problem>,
    /// Paths of keys that were asked for.
    known: BTreeSet<String>,
}

impl<'t> Document<'t> {
    /// Parses the TOML; every syntax error is a problem.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let root = root.into_inner();
            return Ok(Self { text, root, problems: Vec::new(), known: BTreeSet::new() });
        }
        Err(errors
            .into_iter()
            .map(|error| Problem {
                line: error.span().map_or(0, |span| line(text, span.start)),
                key: String::new(),
                what: format!("is not TOML: {}", error.message()),
            })
            .collect())
    }

    /// The line of a key in the root's table of that name, or in one of several; 0 where it is not.
    pub(super) fn line_of(
        &mut self,
        table: &'static str,
        of: Option<(&'static str, usize)>,
        key: &str,
    ) -> usize {
        let mut root = self.root();
        let mut table = root.below(table, None);
        let table = match of {
            Some((list, item)) => table.below(list, Some(item)),
            None => table,
        };
        table.find(key).map_or(0, |(at, _)| line(table.document.text, at))
    }

    pub(super) fn root(&mut self) -> Table<'_, 't> {
        Table { document: self, path: Vec::new() }
    }

    /// Every problem by line, with the keys that nobody asked for.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let mut unknown = Vec::new();
        self.unknown(&self.root, "", &mut unknown);
        self.problems.append(&mut unknown);
        self.problems.sort_by(|a, b| (a.line, &a.key, &a.what).cmp(&(b.line, &b.key, &b.what)));
        self.problems
    }

    fn unknown(&self, table: &DeTable<'_>, prefix: &str, out: &mut Vec<Problem>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let is_known = |end: &str| self.known.contains(&format!("{path}{end}"));
            if let (DeValue::Table(table), true) = (value.get_ref(), is_known(".")) {
                self.unknown(table, &path, out);
            } else if let (DeValue::Array(items), true) = (value.get_ref(), is_known("[]")) {
                for (at, item) in items.iter().enumerate() {
                    if let DeValue::Table(table) = item.get_ref() {
                        self.unknown(table, &format!("{path}[{at}]"), out);
                    }
                }
            } else if !["", ".", "[]"].into_iter().any(is_known) {
                let near = self.nearest(&path);
                out.push(Problem {
                    line: line(self.text, key.span().start),
                    what: match near {
                        Some(near) => format!("is not a key; did you mean {near}?"),
                        None => "is not a key; remove it".to_owned(),
                    },
                    key: path,
                });
            }
        }
    }

    /// The known key of the same table that is at most two edits away.
    fn nearest(&self, path: &str) -> Option<String> {
        self.known
            .iter()
            .map(|known| known.trim_end_matches('.').trim_end_matches("[]"))
            .map(|known| (distance(known, path), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, known)| known.to_owned())
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, cb) in b.chars().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or_default();
            let left = row.get(j).copied().unwrap_or_default();
            let next = (diagonal + usize::from(ca != cb)).min(above + 1).min(left + 1);
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = next;
            }
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// A table of the document, or the place where it would be.
pub(super) struct Table<'d, 't> {
    document: &'d mut Document<'t>,
    path: Vec<Step>,
}

/// A step down to a table.
#[derive(Clone, Copy)]
struct Step {
    key: &'static str,
    /// Which of the tables of that name, where there may be several.
    item: Option<usize>,
}

impl<'t> Table<'_, 't> {
    fn path(&self, key: &str) -> String {
        let steps = self.path.iter().map(|step| match step.item {
            None => step.key.to_owned(),
            Some(item) => format!("{}[{item}]", step.key),
        });
        join(&steps.collect::<Vec<_>>().join("."), key)
    }

    fn find(&self, key: &str) -> Option<(usize, &Spanned<DeValue<'t>>)> {
        let mut table = &self.document.root;
        for step in &self.path {
            let value = table.get(step.key)?.get_ref();
            table = match step.item {
                None => value.as_table()?,
                Some(item) => value.as_array()?.get(item)?.get_ref().as_table()?,
            };
        }
        let (name, value) = table.get_key_value(key)?;
        Some((name.span().start, value))
    }

    /// A subtable; one that is absent reads as empty.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'_, 't> {
        let path = self.path(key);
        self.document.known.insert(format!("{path}."));
        if self.find(key).is_some_and(|(_, value)| !value.get_ref().is_table()) {
            self.problem(key, format!("must be a table, [{path}]"));
        }
        self.below(key, None)
    }

    fn below(&mut self, key: &'static str, item: Option<usize>) -> Table<'_, 't> {
        let path = [self.path.as_slice(), &[Step { key, item }]].concat();
        Table { document: self.document, path }
    }

    /// Reads each table of a list; an absent list has none.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Table<'_, 't>) -> T,
    ) -> Vec<T> {
        let path = self.path(key);
        self.document.known.insert(format!("{path}[]"));
        let count = match self.find(key).map(|(_, value)| value.get_ref().as_array()) {
            None => 0,
            Some(Some(items)) if items.iter().all(|item| item.get_ref().is_table()) => items.len(),
            Some(_) => {
                self.problem(key, format!("must be tables, each begun by [[{path}]]"));
                0
            }
        };
        (0..count).map(|item| read(self.below(key, Some(item)))).collect()
    }

    /// Says that a key may stand there.
    pub(super) fn known(&mut self, key: &str) {
        let path = self.path(key);
        self.document.known.insert(path);
    }

    /// Whether the key stands there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&mut self, key: &str, what: impl Into<String>) {
        let line = self.find(key).map_or(0, |(at, _)| line(self.document.text, at));
        let problem = Problem { line, key: self.path(key), what: what.into() };
        self.document.problems.push(problem);
    }

    fn converted<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.problem(key, what)).ok()
    }

    fn raw_text(&mut self, key: &str) -> Option<Result<String, String>> {
        self.known(key);
        self.find(key).map(|(_, value)| {
            value
                .get_ref()
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| "must be a text in quotes".to_owned())
        })
    }

    /// A text that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let result = match self.raw_text(key) {
            None => Err(format!("is missing: set it to {what}")),
            Some(text) => text.and_then(|text| parse(&text)),
        };
        self.converted(key, result)
    }

    /// A text with a default.
    pub(super) fn text<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.raw_text(key).unwrap_or_else(|| Ok(default.to_owned()));
        let result = text.and_then(|text| parse(&text));
        self.converted(key, result)
    }

    /// A list of texts; absent reads as empty.
    pub(super) fn texts<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.known(key);
        let result = match self.find(key) {
            None => Ok(Vec::new()),
            Some((_, value)) => match value.get_ref().as_array() {
                None => Err("must be a list of texts, as [\"a\", \"b\"]".to_owned()),
                Some(items) => items
                    .iter()
                    .map(|item| match item.get_ref().as_str() {
                        Some(text) => parse(text),
                        None => Err("must be a list of texts".to_owned()),
                    })
                    .collect(),
            },
        };
        self.converted(key, result)
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, key: &str, default: bool) -> Option<bool> {
        self.known(key);
        let result = self.find(key).map_or(Ok(default), |(_, value)| {
            value.get_ref().as_bool().ok_or_else(|| "must be true or false".to_owned())
        });
        self.converted(key, result)
    }

    /// A number within bounds.
    pub(super) fn integer(&mut self, key: &str, default: u64, min: u64, max: u64) -> Option<u64> {
        self.known(key);
        let result =
            self.find(key).map_or(Ok(default), |(_, value)| number(value.get_ref(), min, max));
        self.converted(key, result)
    }

    /// A list of numbers within bounds; `None` where the key is absent or wrong.
    pub(super) fn integers(&mut self, key: &str, min: u64, max: u64) -> Option<Vec<u64>> {
        self.known(key);
        let (_, value) = self.find(key)?;
        let result = match value.get_ref().as_array() {
            None => Err("must be a list of numbers, as [0, 1, 2]".to_owned()),
            Some(items) => items.iter().map(|item| number(item.get_ref(), min, max)).collect(),
        };
        match result {
            Ok(numbers) => Some(numbers),
            Err(what) => {
                self.problem(key, what);
                // The bank is named, though wrongly: no default takes its place.
                Some((min..=max).collect())
            }
        }
    }

    /// A duration within bounds, as `"90s"`, `"15m"`, `"1h"`, `"30d"`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let result = match self.raw_text(key) {
            None => Ok(default),
            Some(text) => text.and_then(|text| duration(&text)).and_then(|duration| {
                if (min..=max).contains(&duration) {
                    Ok(duration)
                } else {
                    Err(format!("must be from {} to {}", show(min), show(max)))
                }
            }),
        };
        self.converted(key, result)
    }
}

fn number(value: &DeValue<'_>, min: u64, max: u64) -> Result<u64, String> {
    let wrong = || format!("must be a whole number from {min} to {max}");
    let integer = value.as_integer().ok_or_else(wrong)?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| wrong())?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(wrong()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        "must be a whole number with a unit s, m, h or d, as \"90s\", \"15m\", \"1h\", \"30d\""
            .to_owned()
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong)
}

/// A duration in its largest whole unit, as [`duration`] reads it.
pub(super) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, factor) in [("d", 24 * 3600), ("h", 3600), ("m", 60)] {
        if seconds >= factor && seconds.is_multiple_of(factor) {
            return format!("{}{unit}", seconds / factor);
        }
    }
    format!("{seconds}s")
}
