//! A tool measurement: the content of one event.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    ToolLogError, ToolLogErrorKind,
    tlv::{Cursor, Tlv, put, put_bytes},
};
use crate::{
    digest::{Digest, HashAlg},
    limits::{MAX_PATH_BYTES, MAX_TEXT_BYTES, MAX_TOOL_ENTRIES},
};

/// CEL content type of a tool measurement.
pub(super) const CONTENT: u8 = 0xA5;

const DOMAIN: &[u8] = b"assay/v1/tool";
const DIGEST_DOMAIN: &[u8] = b"assay/v1/tool-digest";

const FIELD_DOMAIN: u8 = 0x00;
const FIELD_NAME: u8 = 0x01;
const FIELD_STATE: u8 = 0x02;
const FIELD_VERSION: u8 = 0x03;
const FIELD_PACKAGE: u8 = 0x04;
const FIELD_ENTRY: u8 = 0x05;

const ENTRY_PATH: u8 = 0x00;
const ENTRY_ROLE: u8 = 0x01;
const ENTRY_SIZE: u8 = 0x02;
const ENTRY_DIGEST: u8 = 0x03;
const ENTRY_TARGET: u8 = 0x04;

/// Whether a declared tool is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolState {
    /// None of its paths exists.
    Absent,
    /// At least one file or link of it was measured.
    Present,
}

impl ToolState {
    const fn wire(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Present => 1,
        }
    }
}

/// Why a file belongs to a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// A path pattern of the tool's declaration names it.
    Listed,
    /// An ELF file of the tool names it as its program interpreter (`PT_INTERP`).
    Interpreter,
    /// An ELF file of the tool needs it (`DT_NEEDED`).
    Library,
    /// A script of the tool names it, or finds it through `env`, in its `#!` line.
    ScriptInterpreter,
}

impl FileRole {
    const ALL: [Self; 4] =
        [Self::Listed, Self::Interpreter, Self::Library, Self::ScriptInterpreter];

    const fn wire(self) -> u8 {
        match self {
            Self::Listed => 0,
            Self::Interpreter => 1,
            Self::Library => 2,
            Self::ScriptInterpreter => 3,
        }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// SHA-256 of its bytes.
        digest: Digest,
        /// Its size, bytes.
        size_bytes: u64,
        /// Why it belongs to the tool.
        role: FileRole,
    },
    /// A symbolic link that was followed to reach a file.
    Link {
        /// Its target as `readlink` gives it, relative or absolute.
        target: Vec<u8>,
    },
}

/// One path of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolEntry {
    /// Absolute path without `.`, `..`, empty components or NUL; at most 4096 bytes, any encoding.
    pub path: Vec<u8>,
    /// What stands there.
    pub kind: EntryKind,
}

/// Why parts do not form a measurement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasurementError {
    /// An absent tool has entries, a version or a package.
    #[error("an absent tool has entries, a version or a package")]
    AbsentWithContent,
    /// The digest of a file is not SHA-256.
    #[error("file {0} has a digest that is not SHA-256")]
    DigestAlg(String),
    /// Two different things are said about one path.
    #[error("path {0} is measured twice with different results")]
    PathRepeated(String),
    /// A path is not an absolute, normal path.
    #[error("path {0} is not absolute and normal")]
    PathInvalid(String),
    /// A present tool has no entry.
    #[error("a present tool has no entry")]
    PresentWithoutEntries,
    /// A link's target is empty or has a NUL.
    #[error("link {0} has an impossible target")]
    TargetInvalid(String),
    /// A text is empty or has control characters.
    #[error("{0} is empty, not UTF-8 or has control characters")]
    TextInvalid(&'static str),
    /// A field or list is longer than its limit.
    #[error("{what} has more than {max} bytes or items")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// What was measured of one tool; always canonical and within limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolMeasurement {
    name: String,
    state: ToolState,
    version: Option<String>,
    package: Option<String>,
    entries: Vec<ToolEntry>,
}

impl ToolMeasurement {
    /// A measurement; entries are sorted and equal ones united.
    ///
    /// # Errors
    /// [`MeasurementError`] if a part breaks the format's rules or a limit.
    pub fn new(
        name: impl Into<String>,
        state: ToolState,
        version: Option<String>,
        package: Option<String>,
        mut entries: Vec<ToolEntry>,
    ) -> Result<Self, MeasurementError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup();
        if let Some([first, _]) = entries.windows(2).find(|pair| match pair {
            [a, b] => a.path == b.path,
            _ => false,
        }) {
            return Err(MeasurementError::PathRepeated(path_text(&first.path)));
        }
        let out = Self { name: name.into(), state, version, package, entries };
        out.checked()
    }

    /// The measurement of a declared tool that is not there.
    ///
    /// # Errors
    /// [`MeasurementError`] if the name is not one.
    pub fn absent(name: impl Into<String>) -> Result<Self, MeasurementError> {
        Self::new(name, ToolState::Absent, None, None, Vec::new())
    }

    /// Every rule but the order of entries.
    fn checked(self) -> Result<Self, MeasurementError> {
        check_text("tool name", &self.name)?;
        for (what, text) in [("version", &self.version), ("package", &self.package)] {
            if let Some(text) = text {
                check_text(what, text)?;
            }
        }
        if self.entries.len() > MAX_TOOL_ENTRIES {
            return Err(MeasurementError::TooLong { what: "entries", max: MAX_TOOL_ENTRIES });
        }
        for entry in &self.entries {
            check_entry(entry)?;
        }
        let claims = self.version.is_some() || self.package.is_some();
        match self.state {
            ToolState::Absent if claims || !self.entries.is_empty() => {
                Err(MeasurementError::AbsentWithContent)
            }
            ToolState::Present if self.entries.is_empty() => {
                Err(MeasurementError::PresentWithoutEntries)
            }
            _ => Ok(self),
        }
    }

    /// The tool's name in the worker's tool list.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the tool is there.
    #[must_use]
    pub const fn state(&self) -> ToolState {
        self.state
    }

    /// What its version command said; a claim, not covered by [`ToolMeasurement::digest`].
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The package that owns it; a claim, not covered by [`ToolMeasurement::digest`].
    #[must_use]
    pub fn package(&self) -> Option<&str> {
        self.package.as_deref()
    }

    /// Files and links, strictly ascending by path bytes.
    #[must_use]
    pub fn entries(&self) -> &[ToolEntry] {
        &self.entries
    }

    /// The entry at a path.
    #[must_use]
    pub fn entry(&self, path: &[u8]) -> Option<&ToolEntry> {
        let index = self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok()?;
        self.entries.get(index)
    }

    /// Reference value of the tool: SHA-256 over name, state and entries.
    ///
    /// # Format
    /// The content's fields (module documentation) with the domain `assay/v1/tool-digest`, without
    /// version and package, which are claims.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.encoded_len_hint());
        self.put_fields(&mut bytes, DIGEST_DOMAIN, false);
        HashAlg::Sha256.hash(&[&bytes])
    }

    /// Appends the content TLV, header included.
    pub(super) fn put_content(&self, out: &mut Vec<u8>) {
        put(out, CONTENT, |out| self.put_fields(out, DOMAIN, true));
    }

    pub(super) fn encoded_len_hint(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.path.len().saturating_add(96));
        entries.fold(1024, usize::saturating_add)
    }

    fn put_fields(&self, out: &mut Vec<u8>, domain: &[u8], claims: bool) {
        put_bytes(out, FIELD_DOMAIN, domain);
        put_bytes(out, FIELD_NAME, self.name.as_bytes());
        put_bytes(out, FIELD_STATE, &[self.state.wire()]);
        if claims {
            for (field, text) in [(FIELD_VERSION, &self.version), (FIELD_PACKAGE, &self.package)] {
                if let Some(text) = text {
                    put_bytes(out, field, text.as_bytes());
                }
            }
        }
        for entry in &self.entries {
            put(out, FIELD_ENTRY, |out| put_entry(out, entry));
        }
    }

    /// Decodes the content TLV of one event.
    ///
    /// # Errors
    /// [`ToolLogError`] with the offset within the log that `content` was read from.
    pub(super) fn from_content(content: &Tlv<'_>) -> Result<Self, ToolLogError> {
        let mut fields = content.inner();
        let domain = fields.expect(FIELD_DOMAIN, "content domain")?;
        if domain.value != DOMAIN {
            return Err(domain.error(ToolLogErrorKind::Domain));
        }
        let name = text("tool name", &fields.expect(FIELD_NAME, "tool name")?)?;
        let state = fields.expect(FIELD_STATE, "tool state")?;
        let state = match state.array("tool state")? {
            [0] => ToolState::Absent,
            [1] => ToolState::Present,
            [found] => {
                return Err(state.error(ToolLogErrorKind::Value { what: "tool state", found }));
            }
        };
        let version =
            fields.take_if(FIELD_VERSION)?.map(|field| text("version", &field)).transpose()?;
        let package =
            fields.take_if(FIELD_PACKAGE)?.map(|field| text("package", &field)).transpose()?;
        let entries = entries(&mut fields)?;
        fields.finish("tool entry")?;
        Self { name, state, version, package, entries }
            .checked()
            .map_err(|error| content.error(ToolLogErrorKind::Measurement(error)))
    }
}

fn entries(fields: &mut Cursor<'_>) -> Result<Vec<ToolEntry>, ToolLogError> {
    let mut entries: Vec<ToolEntry> = Vec::new();
    while let Some(field) = fields.take_if(FIELD_ENTRY)? {
        if entries.len() >= MAX_TOOL_ENTRIES {
            let kind = ToolLogErrorKind::TooMany { what: "tool entries", max: MAX_TOOL_ENTRIES };
            return Err(field.error(kind));
        }
        let entry = entry(&field)?;
        if entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(field.error(ToolLogErrorKind::Order("tool entries")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(field: &Tlv<'_>) -> Result<ToolEntry, ToolLogError> {
    let mut parts = field.inner();
    let path = parts.expect(ENTRY_PATH, "entry path")?;
    let kind = if let Some(target) = parts.take_if(ENTRY_TARGET)? {
        EntryKind::Link { target: target.value.to_vec() }
    } else {
        let role = parts.expect(ENTRY_ROLE, "file role or link target")?;
        let [value] = role.array("file role")?;
        let role =
            FileRole::ALL.into_iter().find(|known| known.wire() == value).ok_or_else(|| {
                role.error(ToolLogErrorKind::Value { what: "file role", found: value })
            })?;
        let size = parts.expect(ENTRY_SIZE, "file size")?;
        let digest = parts.expect(ENTRY_DIGEST, "file digest")?;
        let bytes: [u8; 32] = digest.array("file digest")?;
        EntryKind::File {
            digest: Digest::new(HashAlg::Sha256, &bytes).map_err(|_| {
                digest.error(ToolLogErrorKind::Length {
                    what: "file digest",
                    expected: HashAlg::Sha256.len_bytes(),
                    found: bytes.len(),
                })
            })?,
            size_bytes: u64::from_be_bytes(size.array("file size")?),
            role,
        }
    };
    parts.finish("end of the entry")?;
    let entry = ToolEntry { path: path.value.to_vec(), kind };
    check_entry(&entry).map_err(|error| path.error(ToolLogErrorKind::Measurement(error)))?;
    Ok(entry)
}

fn put_entry(out: &mut Vec<u8>, entry: &ToolEntry) {
    put_bytes(out, ENTRY_PATH, &entry.path);
    match &entry.kind {
        EntryKind::File { digest, size_bytes, role } => {
            put_bytes(out, ENTRY_ROLE, &[role.wire()]);
            put_bytes(out, ENTRY_SIZE, &size_bytes.to_be_bytes());
            put_bytes(out, ENTRY_DIGEST, digest.as_bytes());
        }
        EntryKind::Link { target } => put_bytes(out, ENTRY_TARGET, target),
    }
}

fn text(what: &'static str, field: &Tlv<'_>) -> Result<String, ToolLogError> {
    let refuse = |error| field.error(ToolLogErrorKind::Measurement(error));
    let text = std::str::from_utf8(field.value)
        .map_err(|_| refuse(MeasurementError::TextInvalid(what)))?;
    check_text(what, text).map_err(refuse)?;
    Ok(text.to_owned())
}

fn check_text(what: &'static str, text: &str) -> Result<(), MeasurementError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(MeasurementError::TooLong { what, max: MAX_TEXT_BYTES });
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(MeasurementError::TextInvalid(what));
    }
    Ok(())
}

fn check_entry(entry: &ToolEntry) -> Result<(), MeasurementError> {
    if entry.path.len() > MAX_PATH_BYTES {
        return Err(MeasurementError::TooLong { what: "path", max: MAX_PATH_BYTES });
    }
    if !is_normal_path(&entry.path) {
        return Err(MeasurementError::PathInvalid(path_text(&entry.path)));
    }
    match &entry.kind {
        EntryKind::File { digest, .. } if digest.alg() != HashAlg::Sha256 => {
            Err(MeasurementError::DigestAlg(path_text(&entry.path)))
        }
        EntryKind::Link { target } if target.len() > MAX_PATH_BYTES => {
            Err(MeasurementError::TooLong { what: "link target", max: MAX_PATH_BYTES })
        }
        EntryKind::Link { target } if target.is_empty() || target.contains(&0) => {
            Err(MeasurementError::TargetInvalid(path_text(&entry.path)))
        }
        _ => Ok(()),
    }
}

/// Absolute, no NUL, every component non-empty and neither `.` nor `..`.
fn is_normal_path(path: &[u8]) -> bool {
    let Some((b'/', rest)) = path.split_first() else {
        return false;
    };
    !path.contains(&0)
        && rest
            .split(|byte| *byte == b'/')
            .all(|component| !matches!(component, [] | [b'.'] | [b'.', b'.']))
}

/// A path as text: UTF-8 as it is, anything else and control characters as `\xNN`, `\` as `\\`.
#[must_use]
pub fn path_text(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                char if char.is_control() => {
                    let mut buffer = [0; 4];
                    put_escaped(&mut out, char.encode_utf8(&mut buffer).as_bytes());
                }
                char => out.push(char),
            }
        }
        put_escaped(&mut out, chunk.invalid());
    }
    out
}

fn put_escaped(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// `{"path", "sha256", "size_bytes", "role"}` or `{"path", "link"}`; paths by [`path_text`].
impl Serialize for ToolEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            EntryKind::File { digest, size_bytes, role } => {
                let mut out = serializer.serialize_struct("ToolEntry", 4)?;
                out.serialize_field("path", &path_text(&self.path))?;
                out.serialize_field("digest", digest)?;
                out.serialize_field("size_bytes", size_bytes)?;
                out.serialize_field("role", role)?;
                out.end()
            }
            EntryKind::Link { target } => {
                let mut out = serializer.serialize_struct("ToolEntry", 2)?;
                out.serialize_field("path", &path_text(&self.path))?;
                out.serialize_field("link", &path_text(target))?;
                out.end()
            }
        }
    }
}

/// For people and their scripts; the digest is included.
impl Serialize for ToolMeasurement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ToolMeasurement", 6)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("state", &self.state)?;
        out.serialize_field("digest", &self.digest())?;
        out.serialize_field("version", &self.version)?;
        out.serialize_field("package", &self.package)?;
        out.serialize_field("entries", &self.entries)?;
        out.end()
    }
}
