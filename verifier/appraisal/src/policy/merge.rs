//! Temporary.
use super::document::GoldenDocument;
/// x
#[derive(Debug)]
pub struct Merged {
    /// d
    pub document: GoldenDocument,
    /// n
    pub notes: Vec<String>,
}
/// x
#[must_use]
pub fn merge(mut captures: Vec<(String, GoldenDocument)>) -> Merged {
    Merged { document: captures.remove(0).1, notes: Vec::new() }
}
