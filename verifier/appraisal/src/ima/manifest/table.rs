//! Digests of one algorithm: sorted rows, an index over their first bits, paths in one piece.

use std::{mem::size_of, ops::Range};

use proto::{
    digest::{Digest, HashAlg},
    ima::DigestKind,
};

use super::ImaProblem;

/// A file before its table is made.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) digest: Digest,
    /// Empty: any.
    pub(super) path: Box<[u8]>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Table {
    kind: DigestKind,
    alg: HashAlg,
    /// Digests one after the other, ascending; equal ones by path.
    digests: Box<[u8]>,
    /// Where each row's path lies; one more, for the end of the last.
    paths_at: Box<[u32]>,
    paths: Box<[u8]>,
    /// For each value of a digest's first bits the first row that has it or a higher one; one more,
    /// for the end.
    first: Box<[u32]>,
    /// How far the first four bytes are shifted to leave those bits.
    shift: u32,
    /// Rows by path.
    by_path: Box<[u32]>,
}

impl Table {
    /// Sorts rows and drops repeated ones.
    pub(super) fn compile(
        kind: DigestKind,
        alg: HashAlg,
        mut rows: Vec<Row>,
    ) -> Result<Self, ImaProblem> {
        rows.sort_unstable();
        rows.dedup();
        let too_big = || ImaProblem::new("manifest", "more bytes of paths than 4 GiB");
        let mut digests = Vec::with_capacity(rows.len().saturating_mul(alg.len_bytes()));
        let mut paths = Vec::new();
        let mut paths_at = Vec::with_capacity(rows.len().saturating_add(1));
        paths_at.push(0);
        for row in &rows {
            digests.extend_from_slice(row.digest.as_bytes());
            paths.extend_from_slice(&row.path);
            paths_at.push(u32::try_from(paths.len()).map_err(|_| too_big())?);
        }
        let count = u32::try_from(rows.len()).map_err(|_| too_big())?;
        // About one row for each value of the bits.
        let bits = count.checked_next_power_of_two().unwrap_or(1 << 24).ilog2().clamp(1, 24);
        let shift = u32::BITS.saturating_sub(bits);
        let values = 1_usize << bits;
        let mut first = Vec::with_capacity(values.saturating_add(1));
        for (row, number) in rows.iter().zip(0_u32..) {
            let bucket = bucket(row.digest.as_bytes(), shift);
            while first.len() <= bucket {
                first.push(number);
            }
        }
        first.resize(values.saturating_add(1), count);
        let mut by_path: Vec<u32> = (0..count).collect();
        let path_of = |row: u32| rows.get(row as usize).map(|row| &row.path);
        by_path.sort_by(|a, b| path_of(*a).cmp(&path_of(*b)));
        Ok(Self {
            kind,
            alg,
            digests: digests.into(),
            paths_at: paths_at.into(),
            paths: paths.into(),
            first: first.into(),
            shift,
            by_path: by_path.into(),
        })
    }

    pub(super) const fn kind(&self) -> DigestKind {
        self.kind
    }

    pub(super) const fn alg(&self) -> HashAlg {
        self.alg
    }

    pub(super) const fn len(&self) -> usize {
        self.by_path.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let numbers =
            self.paths_at.len().saturating_add(self.first.len()).saturating_add(self.by_path.len());
        numbers
            .saturating_mul(size_of::<u32>())
            .saturating_add(self.digests.len())
            .saturating_add(self.paths.len())
    }

    /// Whether the digest is in a row, with a `path` in one for that path or for any.
    pub(super) fn allows(&self, digest: &[u8], path: Option<&[u8]>) -> bool {
        let mut rows = self.rows_of(digest);
        match path {
            None => !rows.is_empty(),
            // Rows of one digest ascend by path, the one for any first; a digest has few of them
            // unless a manifest was made to have many.
            Some(path) => {
                let any = rows.start;
                if rows.is_empty() {
                    return false;
                }
                if self.path(any).is_empty() {
                    return true;
                }
                while !rows.is_empty() {
                    let middle = rows.start.midpoint(rows.end);
                    match self.path(middle).cmp(path) {
                        std::cmp::Ordering::Equal => return true,
                        std::cmp::Ordering::Less => rows.start = middle.saturating_add(1),
                        std::cmp::Ordering::Greater => rows.end = middle,
                    }
                }
                false
            }
        }
    }

    /// Where rows with this digest begin, if there are any.
    pub(super) fn first_row(&self, digest: &[u8]) -> usize {
        self.first.get(bucket(digest, self.shift)).map_or(0, |row| *row as usize)
    }

    /// A byte of a row's digest; 0 behind the last row.
    pub(super) fn peek(&self, row: usize) -> u8 {
        self.digest(row).first().copied().unwrap_or_default()
    }

    /// Rows with this digest.
    fn rows_of(&self, digest: &[u8]) -> Range<usize> {
        if digest.len() != self.alg.len_bytes() {
            return 0..0;
        }
        let bucket = bucket(digest, self.shift);
        let at = |index: usize| self.first.get(index).map_or(0, |row| *row as usize);
        let (start, end) = (at(bucket), at(bucket.saturating_add(1)));
        let start = self.partition(start, end, |row| row < digest);
        // Nearly always the next row is another one.
        if self.digest(start) != digest || start >= end {
            return start..start;
        }
        let next = start.saturating_add(1);
        if next >= end || self.digest(next) != digest {
            return start..next;
        }
        start..self.partition(next, end, |row| row == digest)
    }

    /// First row from `start` to `end` that `is_before` does not hold for.
    fn partition(&self, start: usize, end: usize, is_before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut start, mut end) = (start, end);
        while start < end {
            let middle = start.midpoint(end);
            if is_before(self.digest(middle)) {
                start = middle.saturating_add(1);
            } else {
                end = middle;
            }
        }
        start
    }

    /// Digests of rows with this path, ascending.
    pub(super) fn digests_of<'t>(&'t self, path: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let start = self.by_path.partition_point(|row| self.path(*row as usize) < path);
        self.by_path
            .iter()
            .skip(start)
            .map(|row| *row as usize)
            .take_while(move |row| self.path(*row) == path)
            .map(|row| self.digest(row))
    }

    /// Rows in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).map(|row| (self.digest(row), self.path(row)))
    }

    fn digest(&self, row: usize) -> &[u8] {
        let size = self.alg.len_bytes();
        let start = row.saturating_mul(size);
        self.digests.get(start..start.saturating_add(size)).unwrap_or_default()
    }

    fn path(&self, row: usize) -> &[u8] {
        let at = |index: usize| self.paths_at.get(index).map_or(0, |at| *at as usize);
        self.paths.get(at(row)..at(row.saturating_add(1))).unwrap_or_default()
    }
}

/// The first bits of a digest.
fn bucket(digest: &[u8], shift: u32) -> usize {
    digest.first_chunk::<4>().map_or(0, |bytes| (u32::from_be_bytes(*bytes) >> shift) as usize)
}
