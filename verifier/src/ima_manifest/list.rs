//! From an IMA list: trust on first use.

use std::collections::BTreeMap;

use proto::{
    ima::{ImaListReader, ListEnd, ListFormat},
    tool_log::path_text,
};

use super::{CollectError, Collected, Progress};

/// Files that a list names, with the digests it has.
///
/// Violations, `boot_aggregate`, entries without digest or name, and digests that prove nothing are left
/// out and said.
///
/// # Errors
/// [`CollectError::NotAList`] and [`CollectError::List`]; a list that is not whole is not guessed at.
pub fn from_list(list: &[u8], progress: Progress<'_>) -> Result<Collected, CollectError> {
    let format = ListFormat::detect(list).ok_or(CollectError::NotAList)?;
    let mut reader = ImaListReader::new(list, format);
    let mut out = Collected::default();
    // One file is often measured again: said once.
    let mut weak: BTreeMap<String, u64> = BTreeMap::new();
    for entry in reader.by_ref() {
        let entry = entry?;
        out.seen = out.seen.saturating_add(1);
        progress(out.seen);
        let name = entry.untrusted_fields().name.map_or_else(|| "no name".to_owned(), path_text);
        if entry.is_boot_aggregate() {
            continue;
        }
        let Some(fields) = entry.vouched() else {
            out.skip(format!("{name}: a violation"));
            continue;
        };
        if !entry.has_right_digest() {
            out.skip(format!("{name}: the template digest is not that of the fields"));
            continue;
        }
        let (Some(digest), Some(path)) = (&fields.digest, fields.name) else {
            out.skip(format!("{name}: no digest or no name"));
            continue;
        };
        if !out.builder.measured(digest, path) {
            let count = weak.entry(digest.to_string()).or_insert(0);
            *count = count.saturating_add(1);
            if *count == 1 {
                out.skip(format!("{name}: {digest} proves nothing"));
            }
        }
    }
    if let ListEnd::Partial { at, left } = reader.end() {
        out.skip(format!("{left} bytes at {at}: the list ends within an entry"));
    }
    let last = out.seen;
    out.builder.source(format!("IMA list of {last} entries, not attested"));
    Ok(out)
}
