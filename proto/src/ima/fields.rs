//! Values of fields: each kind has one form, and its bytes are consumed exactly.

use serde::{Deserialize, Serialize};

use super::{ImaErrorKind, algorithm::ImaHashAlg, template::FieldKind};
use crate::limits::MAX_PATH_BYTES;

/// Longest name of the field `n`, without its NUL.
///
/// # Source
/// Linux `IMA_EVENT_NAME_LEN_MAX`.
pub const MAX_SHORT_NAME_BYTES: usize = 255;

/// What a digest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestKind {
    /// The file's bytes: fields `d` and `d-ng`, and `ima:` in `d-ngv2`.
    File,
    /// The root of the file's fs-verity tree with its descriptor: `verity:` in `d-ngv2`.
    Verity,
}

/// Digest of a file or buffer, as an entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest<'a> {
    /// What it is of.
    pub kind: DigestKind,
    /// The algorithm; `None` for a name that is not known here.
    pub algorithm: Option<ImaHashAlg>,
    /// The algorithm's name as written; empty for the field `d`, which has none.
    pub algorithm_name: &'a str,
    /// The digest, of the algorithm's size where the algorithm is known.
    pub bytes: &'a [u8],
}

impl FileDigest<'_> {
    /// Whether it is all zeros, as the kernel leaves it for a violation.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}

/// `sha256:<hex>`, `verity:sha256:<hex>`.
impl std::fmt::Display for FileDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.kind == DigestKind::Verity {
            f.write_str("verity:")?;
        }
        let name = match self.algorithm {
            Some(algorithm) => algorithm.name(),
            None => self.algorithm_name,
        };
        write!(f, "{name}:{}", hex::encode(self.bytes))
    }
}

/// The fields of one entry that somebody judges by; absent ones are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// `d`, `d-ng`, `d-ngv2`.
    pub digest: Option<FileDigest<'a>>,
    /// `n`, `n-ng`, without the NUL; bytes, as Linux names are. Spaces were made `_` by the kernel.
    pub name: Option<&'a [u8]>,
    /// `sig`; `None` also where the field is empty, which is how the kernel says "no signature".
    pub signature: Option<&'a [u8]>,
    /// `d-modsig`; `None` also where it is empty.
    pub modsig_digest: Option<FileDigest<'a>>,
    /// `modsig`; `None` also where it is empty.
    pub modsig: Option<&'a [u8]>,
    /// `buf`, even if empty.
    pub buffer: Option<&'a [u8]>,
    /// `evmsig`; `None` also where it is empty.
    pub evm_signature: Option<&'a [u8]>,
    /// `xattrnames`.
    pub xattr_names: Option<&'a [u8]>,
    /// `iuid`.
    pub uid: Option<u32>,
    /// `igid`.
    pub gid: Option<u32>,
    /// `imode`.
    pub mode: Option<u32>,
}

/// Byte order of the numbers in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// Least significant byte first: x86, ARM, and `ima_canonical_fmt` everywhere.
    Little,
    /// Most significant byte first: native order of s390x and of some PowerPC.
    Big,
}

impl ByteOrder {
    /// The number in four bytes.
    #[must_use]
    pub const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    /// `little` or `big`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Big => "big",
        }
    }
}

/// Where a value is taken from, and how leniently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) order: ByteOrder,
    /// Violations have zeros for a digest, and older kernels too few of them.
    pub(super) is_violation: bool,
}

impl<'a> Fields<'a> {
    /// Takes the value of one field.
    ///
    /// Two digests, names or signatures in one entry would leave open which one counts: refused.
    pub(super) fn set(
        &mut self,
        kind: FieldKind,
        value: &'a [u8],
        context: Context,
    ) -> Result<(), ImaErrorKind> {
        let twice = match kind {
            FieldKind::D => self.digest.replace(bare_digest(value)?).is_some(),
            FieldKind::DNg => {
                self.digest.replace(digest(value, DigestKind::File, context)?).is_some()
            }
            FieldKind::DNgV2 => self.digest.replace(typed_digest(value, context)?).is_some(),
            FieldKind::N => {
                self.name.replace(terminated_name(value, MAX_SHORT_NAME_BYTES)?).is_some()
            }
            FieldKind::NNg => self.name.replace(terminated_name(value, MAX_PATH_BYTES)?).is_some(),
            FieldKind::Sig => replace_unless_empty(&mut self.signature, value),
            FieldKind::DModsig if value.is_empty() => false,
            FieldKind::DModsig => {
                self.modsig_digest.replace(digest(value, DigestKind::File, context)?).is_some()
            }
            FieldKind::Modsig => replace_unless_empty(&mut self.modsig, value),
            FieldKind::Buf => self.buffer.replace(value).is_some(),
            FieldKind::EvmSig => replace_unless_empty(&mut self.evm_signature, value),
            FieldKind::Iuid => self.uid.replace(number(value, context.order)?).is_some(),
            FieldKind::Igid => self.gid.replace(number(value, context.order)?).is_some(),
            FieldKind::Imode => self.mode.replace(number(value, context.order)?).is_some(),
            FieldKind::XattrNames => self.xattr_names.replace(value).is_some(),
            // Values of extended attributes of any kind: nothing here judges by them.
            FieldKind::XattrLengths | FieldKind::XattrValues => false,
        };
        if twice { Err(ImaErrorKind::FieldTwice(kind.id())) } else { Ok(()) }
    }
}

fn replace_unless_empty<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8]) -> bool {
    !value.is_empty() && field.replace(value).is_some()
}

/// The field `d`: the size says the algorithm.
pub(super) fn bare_digest(value: &[u8]) -> Result<FileDigest<'_>, ImaErrorKind> {
    let algorithm = match value.len() {
        20 => ImaHashAlg::Sha1,
        16 => ImaHashAlg::Md5,
        found => return Err(ImaErrorKind::DigestLength { expected: 20, found }),
    };
    let kind = DigestKind::File;
    Ok(FileDigest { kind, algorithm: Some(algorithm), algorithm_name: "", bytes: value })
}

/// `<algorithm>:NUL<digest>`.
fn digest<'a>(
    value: &'a [u8],
    kind: DigestKind,
    context: Context,
) -> Result<FileDigest<'a>, ImaErrorKind> {
    // What nearly every entry has, without looking further.
    if let (Some(bytes), 40) = (value.strip_prefix(b"sha256:\0"), value.len()) {
        let algorithm = Some(ImaHashAlg::Sha256);
        return Ok(FileDigest { kind, algorithm, algorithm_name: "sha256", bytes });
    }
    let end = value.iter().position(|byte| *byte == 0).ok_or(ImaErrorKind::DigestForm)?;
    let (label, rest) = value.split_at(end);
    let bytes = rest.get(1..).unwrap_or_default();
    let name = label.strip_suffix(b":").ok_or(ImaErrorKind::DigestForm)?;
    let algorithm_name = std::str::from_utf8(name)
        .ok()
        .filter(|name| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_()".contains(&byte);
            !name.is_empty() && name.len() <= 64 && name.bytes().all(is_plain)
        })
        .ok_or(ImaErrorKind::DigestForm)?;
    let algorithm = ImaHashAlg::from_name(name);
    let digest = FileDigest { kind, algorithm, algorithm_name, bytes };
    match algorithm {
        Some(alg) if bytes.len() != alg.len_bytes() => {
            // Before 6.6 the kernel left 20 zeros for a violation, whatever the algorithm.
            if context.is_violation && bytes.len() == 20 && digest.is_zero() {
                return Ok(digest);
            }
            let (expected, found) = (alg.len_bytes(), bytes.len());
            Err(ImaErrorKind::DigestLength { expected, found })
        }
        None if bytes.is_empty() => Err(ImaErrorKind::DigestForm),
        _ => Ok(digest),
    }
}

/// `<type>:<algorithm>:NUL<digest>`.
fn typed_digest(value: &[u8], context: Context) -> Result<FileDigest<'_>, ImaErrorKind> {
    let kinds: [(&[u8], DigestKind); 2] =
        [(b"ima:", DigestKind::File), (b"verity:", DigestKind::Verity)];
    for (prefix, kind) in kinds {
        if let Some(rest) = value.strip_prefix(prefix) {
            return digest(rest, kind, context);
        }
    }
    Err(ImaErrorKind::DigestForm)
}

/// A name with the NUL that ends it, and no other.
fn terminated_name(value: &[u8], max: usize) -> Result<&[u8], ImaErrorKind> {
    match value.split_last() {
        Some((0, name)) => plain_name(name, max),
        _ => Err(ImaErrorKind::NameNotTerminated),
    }
}

/// A name without its NUL: not empty, not too long, no NUL within.
pub(super) fn plain_name(name: &[u8], max: usize) -> Result<&[u8], ImaErrorKind> {
    if name.is_empty() {
        Err(ImaErrorKind::NameEmpty)
    } else if name.len() > max {
        Err(ImaErrorKind::NameTooLong { max, found: name.len() })
    } else if name.contains(&0) {
        Err(ImaErrorKind::NameHasNul)
    } else {
        Ok(name)
    }
}

/// A number of the inode: two bytes for a mode, four for owner and group.
fn number(value: &[u8], order: ByteOrder) -> Result<u32, ImaErrorKind> {
    match (value, order) {
        ([a, b], ByteOrder::Little) => Ok(u32::from(u16::from_le_bytes([*a, *b]))),
        ([a, b], ByteOrder::Big) => Ok(u32::from(u16::from_be_bytes([*a, *b]))),
        ([a, b, c, d], order) => Ok(order.u32([*a, *b, *c, *d])),
        (other, _) => Err(ImaErrorKind::NumberLength { found: other.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { order: ByteOrder::Little, is_violation: false };

    #[test]
    fn digests_have_one_form() {
        let good = [b"sha256:\0".as_slice(), &[7; 32]].concat();
        let read = digest(&good, DigestKind::File, CONTEXT).map(|digest| digest.to_string());
        assert_eq!(read, Ok(format!("sha256:{}", "07".repeat(32))));
        let length = |found| ImaErrorKind::DigestLength { expected: 32, found };
        let cases: [(Vec<u8>, ImaErrorKind); 6] = [
            ([b"sha256:\0".as_slice(), &[7; 31]].concat(), length(31)),
            ([b"sha256:\0".as_slice(), &[7; 33]].concat(), length(33)),
            ([b"sha256\0".as_slice(), &[7; 32]].concat(), ImaErrorKind::DigestForm),
            ([b"sha256:".as_slice(), &[7; 32]].concat(), ImaErrorKind::DigestForm),
            ([b":\0".as_slice(), &[7; 32]].concat(), ImaErrorKind::DigestForm),
            (b"newhash:\0".to_vec(), ImaErrorKind::DigestForm),
        ];
        for (value, expected) in cases {
            assert_eq!(digest(&value, DigestKind::File, CONTEXT), Err(expected), "{value:02x?}");
        }
        let unknown = [b"newhash:\0".as_slice(), &[7; 11]].concat();
        let read = digest(&unknown, DigestKind::File, CONTEXT).map(|digest| digest.algorithm);
        assert_eq!(read, Ok(None));
    }

    #[test]
    fn typed_digests_say_what_they_are_of() {
        let of = |label: &[u8]| typed_digest(&[label, &[1; 32]].concat(), CONTEXT).map(|d| d.kind);
        assert_eq!(of(b"ima:sha256:\0"), Ok(DigestKind::File));
        assert_eq!(of(b"verity:sha256:\0"), Ok(DigestKind::Verity));
        assert_eq!(of(b"sha256:\0"), Err(ImaErrorKind::DigestForm));
        assert_eq!(of(b"other:sha256:\0"), Err(ImaErrorKind::DigestForm));
    }

    #[test]
    fn a_violation_may_have_too_few_zeros_and_nothing_else() {
        let violation = Context { is_violation: true, ..CONTEXT };
        let short = |fill: u8, context| {
            digest(&[b"sha256:\0".as_slice(), &[fill; 20]].concat(), DigestKind::File, context)
                .map(|digest| digest.bytes.len())
        };
        let refused = Err(ImaErrorKind::DigestLength { expected: 32, found: 20 });
        assert_eq!(short(0, violation), Ok(20));
        assert_eq!(short(1, violation), refused);
        assert_eq!(short(0, CONTEXT), refused);
    }

    #[test]
    fn names_end_once() {
        assert_eq!(terminated_name(b"/usr/bin/a\0", 255), Ok(b"/usr/bin/a".as_slice()));
        assert_eq!(terminated_name(b"/a\nb\0", 255), Ok(b"/a\nb".as_slice()));
        assert_eq!(terminated_name(b"/a", 255), Err(ImaErrorKind::NameNotTerminated));
        assert_eq!(terminated_name(b"", 255), Err(ImaErrorKind::NameNotTerminated));
        assert_eq!(terminated_name(b"\0", 255), Err(ImaErrorKind::NameEmpty));
        assert_eq!(terminated_name(b"/a\0b\0", 255), Err(ImaErrorKind::NameHasNul));
        assert_eq!(
            terminated_name(b"/abc\0", 3),
            Err(ImaErrorKind::NameTooLong { max: 3, found: 4 })
        );
    }
}
