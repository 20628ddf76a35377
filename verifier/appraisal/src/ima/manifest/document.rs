//! The lines of a manifest.

use std::{borrow::Cow, str::FromStr as _};

use proto::{digest::Digest, ima::DigestKind, limits::MAX_PATH_BYTES};
use serde::{Deserialize, Serialize};

use super::{ImaProblem, Key, MAX_MANIFEST_SOURCES};

/// Version of the format.
const SCHEMA: u64 = 1;
/// Longest name of a manifest or source.
const MAX_NAME_BYTES: usize = 256;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    assay_ima_manifest: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) created_unix_s: i64,
    #[serde(default)]
    pub(super) sources: Vec<String>,
}

impl Header {
    pub(super) const fn new(name: String, created_unix_s: i64, sources: Vec<String>) -> Self {
        Self { assay_ima_manifest: SCHEMA, name, created_unix_s, sources }
    }

    pub(super) fn parse(line: &[u8]) -> Result<Self, ImaProblem> {
        let problem = |what: String| Err(ImaProblem::new("line 1", what));
        let header: Self = match serde_json::from_slice(line) {
            Ok(header) => header,
            Err(error) => return problem(format!("not the head of an IMA manifest: {error}")),
        };
        if header.assay_ima_manifest != SCHEMA {
            let found = header.assay_ima_manifest;
            return problem(format!("manifest of version {found}, {SCHEMA} is known here"));
        }
        let is_text = |text: &String| {
            !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
        };
        if !is_text(&header.name) || !header.sources.iter().all(is_text) {
            return problem(format!(
                "name and sources have 1 to {MAX_NAME_BYTES} bytes without control characters"
            ));
        }
        if header.sources.len() > MAX_MANIFEST_SOURCES {
            return problem(format!("more than {MAX_MANIFEST_SOURCES} sources"));
        }
        Ok(header)
    }

    pub(super) fn to_line(&self) -> String {
        // Strings and numbers: nothing that JSON cannot hold.
        let mut out = serde_json::to_string(self).unwrap_or_default();
        out.push('\n');
        out
    }
}

/// Every other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) digest: Cow<'a, str>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<Cow<'a, str>>,
}

pub(super) fn write_line(out: &mut String, digest: &str, path: Option<&str>) {
    let line = Line { digest: Cow::Borrowed(digest), path: path.map(Cow::Borrowed) };
    out.push_str(&serde_json::to_string(&line).unwrap_or_default());
    out.push('\n');
}

/// `sha256:<hex>`, `verity:sha256:<hex>`.
pub(super) fn read_digest(text: &str) -> Result<Key, String> {
    let (kind, rest) = match text.strip_prefix("verity:") {
        Some(rest) => (DigestKind::Verity, rest),
        None => (DigestKind::File, text),
    };
    let digest = Digest::from_str(rest).map_err(|error| error.to_string())?;
    Ok((kind, digest))
}

/// A path: the reverse of [`proto::tool_log::path_text`], with spaces as the kernel writes them.
pub(super) fn read_path(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'\\', b'\\', rest @ ..] => {
                out.push(b'\\');
                rest
            }
            [b'\\', b'x', high, low, rest @ ..] => {
                let byte = hex::decode([*high, *low]).ok().and_then(|bytes| bytes.first().copied());
                out.push(byte.ok_or("\\x is followed by two hexadecimal digits")?);
                rest
            }
            [b'\\', ..] => return Err("a backslash is written \\\\".to_owned()),
            [byte, rest @ ..] => {
                out.push(super::as_kernel(*byte));
                rest
            }
        };
    }
    if out.is_empty() || out.len() > MAX_PATH_BYTES || out.contains(&0) {
        return Err(format!("a path has 1 to {MAX_PATH_BYTES} bytes, none of them NUL"));
    }
    Ok(out)
}
