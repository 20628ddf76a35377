//! Manifests: digests of the files that may be used, with the paths they were found at.
//!
//! # Format
//! Lines of JSON. The first says what the manifest is and where it comes from, each other one names one
//! file:
//! ```text
//! {"assay_ima_manifest":1,"name":"debian-12-build","created_unix_s":1800000000,"sources":["package bash 5.2.15-2+b2"]}
//! {"digest":"sha256:9f86d0…","path":"/usr/bin/bash"}
//! {"digest":"verity:sha256:1b4f0e…","path":"/usr/bin/python3.11"}
//! ```
//! `path` may be left out: then the digest counts wherever it is. Bytes of a path that are not UTF-8, and
//! control characters, are written `\xNN`, a backslash `\\` (before JSON's own escapes). A manifest is
//! identified by the SHA-256 of its bytes.
//!
//! # In memory
//! One sorted table for each algorithm, with an index over the first bits: a lookup costs one cache line of
//! the index and a search in a run of about one row. Sorting, not hashing: no choice of digests makes it slow.

mod document;
mod table;

use std::collections::BTreeSet;

use proto::{
    digest::{Digest, HashAlg},
    ima::{DigestKind, FileDigest},
    tool_log::path_text,
};

use self::{
    document::{Header, Line, read_digest, read_path, write_line},
    table::{Row, Table},
};
use super::{ImaProblem, exclusion::as_kernel};

/// Largest manifest, bytes: half a million lines of 130.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;
/// Files of one manifest: more than fit into its bytes with paths.
pub const MAX_MANIFEST_FILES: usize = 1_000_000;
/// Sources that a manifest names: a distribution has some 60 000 packages.
pub const MAX_MANIFEST_SOURCES: usize = 100_000;

/// Lookups that are fetched together.
const LOOK_AHEAD: usize = 16;

/// What is allowed by digest: compiled once, shared, never changed.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: String,
    created_unix_s: i64,
    sources: Vec<String>,
    id: Digest,
    files: usize,
    tables: Vec<Table>,
}

impl Manifest {
    /// Reads and compiles a manifest.
    ///
    /// # Errors
    /// The first [`ImaProblem`], by line: syntax, an unknown key, a digest or path that is none, too
    /// many bytes, files or sources, or no file at all.
    pub fn parse(text: &[u8]) -> Result<Self, ImaProblem> {
        if text.len() > MAX_MANIFEST_BYTES {
            let what = format!("{} bytes, at most {MAX_MANIFEST_BYTES} are allowed", text.len());
            return Err(ImaProblem::new("manifest", what));
        }
        let mut lines = (1_u64..).zip(text.split(|byte| *byte == b'\n'));
        let (_, first) = lines.next().unwrap_or_default();
        let header = Header::parse(first)?;
        let mut rows = Rows::default();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let problem = |what: String| ImaProblem::new(format!("line {number}"), what);
            let line: Line<'_> =
                serde_json::from_slice(line).map_err(|error| problem(error.to_string()))?;
            let key = read_digest(&line.digest).map_err(&problem)?;
            let path = line.path.as_deref().map(read_path).transpose().map_err(&problem)?;
            rows.push(key, path.unwrap_or_default()).map_err(&problem)?;
        }
        let (files, tables) = rows.compile()?;
        let Header { name, created_unix_s, sources, .. } = header;
        let id = HashAlg::Sha256.hash(&[text]);
        Ok(Self { name, created_unix_s, sources, id, files, tables })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was made, as its maker says.
    #[must_use]
    pub const fn created_unix_s(&self) -> i64 {
        self.created_unix_s
    }

    /// Where its files come from, as its maker says.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    /// Digests with their paths.
    #[must_use]
    pub const fn files(&self) -> usize {
        self.files
    }

    /// Bytes of memory that its tables take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.tables.iter().map(Table::memory_bytes).sum()
    }

    /// Whether a measured digest is allowed; `path`: and for this path, or for any.
    ///
    /// Digests of algorithms that are not appraised are never allowed.
    #[must_use]
    pub fn allows(&self, digest: &FileDigest<'_>, path: Option<&[u8]>) -> bool {
        let Some(alg) = digest.algorithm.and_then(|alg| alg.appraised()) else { return false };
        self.table(digest.kind, alg).is_some_and(|table| table.allows(digest.bytes, path))
    }

    /// Reads what lookups of these digests will read, all at once, and does nothing with it.
    pub(super) fn look_ahead<'d>(&self, digests: impl Iterator<Item = FileDigest<'d>>) {
        let mut found: [Option<(&Table, usize)>; LOOK_AHEAD] = [None; LOOK_AHEAD];
        for (slot, digest) in found.iter_mut().zip(digests) {
            let alg = digest.algorithm.and_then(|alg| alg.appraised());
            let table = alg.and_then(|alg| self.table(digest.kind, alg));
            *slot = table.map(|table| (table, table.first_row(digest.bytes)));
        }
        let rows = found.iter().flatten().map(|(table, row)| table.peek(*row));
        std::hint::black_box(rows.fold(0, std::ops::BitXor::bitxor));
    }

    /// Digests that are allowed for a path, as text, at most `max`.
    #[must_use]
    pub fn digests_of(&self, path: &[u8], max: usize) -> Vec<String> {
        let of_table = |table: &Table| {
            let prefix = label(table.kind(), table.alg());
            table
                .digests_of(path)
                .take(max)
                .map(|digest| format!("{prefix}:{}", hex::encode(digest)))
                .collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of_table).take(max).collect()
    }

    /// Every file: digest as text, path as text (empty where there is none), by algorithm, then digest.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.tables.iter().flat_map(|table| {
            let prefix = label(table.kind(), table.alg());
            table.iter().map(move |(digest, path)| {
                (format!("{prefix}:{}", hex::encode(digest)), path_text(path))
            })
        })
    }

    fn table(&self, kind: DigestKind, alg: HashAlg) -> Option<&Table> {
        self.tables.iter().find(|table| (table.kind(), table.alg()) == (kind, alg))
    }
}

/// `sha256`, `verity:sha256`.
fn label(kind: DigestKind, alg: HashAlg) -> String {
    match kind {
        DigestKind::File => alg.name().to_owned(),
        DigestKind::Verity => format!("verity:{alg}"),
    }
}

/// A digest's kind and algorithm, and its bytes.
type Key = (DigestKind, Digest);

/// Files read so far.
#[derive(Debug, Default)]
struct Rows {
    count: usize,
    tables: Vec<((DigestKind, HashAlg), Vec<Row>)>,
}

impl Rows {
    fn push(&mut self, (kind, digest): Key, path: Vec<u8>) -> Result<(), String> {
        if self.count >= MAX_MANIFEST_FILES {
            return Err(format!("more than {MAX_MANIFEST_FILES} files"));
        }
        self.count = self.count.saturating_add(1);
        let at = (kind, digest.alg());
        let row = Row { digest, path: path.into() };
        match self.tables.iter_mut().find(|(known, _)| *known == at) {
            Some((_, rows)) => rows.push(row),
            None => self.tables.push((at, vec![row])),
        }
        Ok(())
    }

    fn compile(self) -> Result<(usize, Vec<Table>), ImaProblem> {
        if self.count == 0 {
            return Err(ImaProblem::new("manifest", "it names no file"));
        }
        let mut tables = Vec::with_capacity(self.tables.len());
        for ((kind, alg), rows) in self.tables {
            tables.push(Table::compile(kind, alg, rows)?);
        }
        tables.sort_by_key(|table| (table.kind(), table.alg()));
        Ok((tables.iter().map(Table::len).sum(), tables))
    }
}

/// Collects files and writes the manifest that names them, always in the same order.
#[derive(Clone, Debug, Default)]
pub struct ManifestBuilder {
    files: BTreeSet<(Vec<u8>, String)>,
    sources: BTreeSet<String>,
}

impl ManifestBuilder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file by its digest. `path` empty: wherever it is.
    pub fn file(&mut self, digest: &Digest, path: &[u8]) {
        self.add(DigestKind::File, digest, path);
    }

    /// Adds a file by its digest as an entry of a list has it.
    ///
    /// False, and nothing is added, if its algorithm is not one that may decide.
    #[must_use]
    pub fn measured(&mut self, digest: &FileDigest<'_>, path: &[u8]) -> bool {
        let alg = digest.algorithm.and_then(|alg| alg.appraised());
        match alg.and_then(|alg| Digest::new(alg, digest.bytes).ok()) {
            Some(read) => {
                self.add(digest.kind, &read, path);
                true
            }
            None => false,
        }
    }

    fn add(&mut self, kind: DigestKind, digest: &Digest, path: &[u8]) {
        let text = format!("{}:{}", label(kind, digest.alg()), hex::encode(digest.as_bytes()));
        let path = path.iter().map(|byte| as_kernel(*byte)).collect();
        self.files.insert((path, text));
    }

    /// Names where files come from.
    pub fn source(&mut self, source: impl Into<String>) {
        self.sources.insert(source.into());
    }

    /// Files so far.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The manifest's text.
    #[must_use]
    pub fn to_text(&self, name: &str, created_unix_s: i64) -> String {
        let sources = self.sources.iter().cloned().collect();
        let header = Header::new(name.to_owned(), created_unix_s, sources);
        let mut out = header.to_line();
        for (path, digest) in &self.files {
            write_line(&mut out, digest, (!path.is_empty()).then(|| path_text(path)).as_deref());
        }
        out
    }
}

#[cfg(test)]
mod tests;
