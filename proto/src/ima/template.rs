//! Templates: which fields an entry has, and in which order.

/// Fields that one template may have.
///
/// # Source
/// Linux `security/integrity/ima/ima_template.c`, `IMA_TEMPLATE_NUM_FIELDS_MAX`.
pub const MAX_FIELDS: usize = 15;

/// One field of a template.
///
/// # Source
/// Linux `Documentation/security/IMA-templates.rst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldKind {
    /// `d`: SHA-1 or MD5 digest, bare.
    D,
    /// `n`: name of the event, at most 255 bytes.
    N,
    /// `d-ng`: algorithm and digest.
    DNg,
    /// `d-ngv2`: type (`ima` or `verity`), algorithm and digest.
    DNgV2,
    /// `n-ng`: name of the event.
    NNg,
    /// `sig`: the file's signature, or its fs-verity digest's.
    Sig,
    /// `d-modsig`: digest without the appended signature.
    DModsig,
    /// `modsig`: the appended signature.
    Modsig,
    /// `buf`: the bytes that were hashed.
    Buf,
    /// `evmsig`: EVM's portable signature.
    EvmSig,
    /// `iuid`: the inode's owner.
    Iuid,
    /// `igid`: the inode's group.
    Igid,
    /// `imode`: the inode's mode.
    Imode,
    /// `xattrnames`: names of extended attributes, with `|` between them.
    XattrNames,
    /// `xattrlengths`: their sizes.
    XattrLengths,
    /// `xattrvalues`: their values, one after the other.
    XattrValues,
}

impl FieldKind {
    const ALL: [Self; 16] = [
        Self::D,
        Self::N,
        Self::DNg,
        Self::DNgV2,
        Self::NNg,
        Self::Sig,
        Self::DModsig,
        Self::Modsig,
        Self::Buf,
        Self::EvmSig,
        Self::Iuid,
        Self::Igid,
        Self::Imode,
        Self::XattrNames,
        Self::XattrLengths,
        Self::XattrValues,
    ];

    /// The kernel's name: `d-ng`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::D => "d",
            Self::N => "n",
            Self::DNg => "d-ng",
            Self::DNgV2 => "d-ngv2",
            Self::NNg => "n-ng",
            Self::Sig => "sig",
            Self::DModsig => "d-modsig",
            Self::Modsig => "modsig",
            Self::Buf => "buf",
            Self::EvmSig => "evmsig",
            Self::Iuid => "iuid",
            Self::Igid => "igid",
            Self::Imode => "imode",
            Self::XattrNames => "xattrnames",
            Self::XattrLengths => "xattrlengths",
            Self::XattrValues => "xattrvalues",
        }
    }

    fn from_id(id: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id().as_bytes() == id)
    }
}

/// A template: its name as the list has it, and its fields.
///
/// # Untrusted
/// The name is not under the template digest, only the values are. What an entry says is therefore
/// judged so that no other reading of the same values is judged more mildly, and a list that names the
/// two kinds of digests in the other order is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template<'a> {
    untrusted_name: &'a str,
    fields: [FieldKind; MAX_FIELDS],
    count: usize,
    is_original: bool,
}

impl<'a> Template<'a> {
    /// The template with this name, or with these fields (`d-ng|n-ng`), which is how the kernel
    /// writes templates without a name.
    #[must_use]
    pub fn from_name(name: &'a [u8]) -> Option<Self> {
        let mut template = Self {
            untrusted_name: std::str::from_utf8(name).ok()?,
            fields: [FieldKind::D; MAX_FIELDS],
            count: 0,
            is_original: name == b"ima",
        };
        if let Some(fields) = built_in(name) {
            template.fields.iter_mut().zip(fields).for_each(|(to, from)| *to = *from);
            template.count = fields.len();
            return Some(template);
        }
        for id in name.split(|byte| *byte == b'|') {
            *template.fields.get_mut(template.count)? = FieldKind::from_id(id)?;
            template.count = template.count.saturating_add(1);
        }
        Some(template).filter(|template| !template.has_modsig_digest_first())
    }

    /// Whether a digest that leaves out an appended signature stands before the file's own. No
    /// kernel's template is so; the two values look alike, and a list could exchange them by naming
    /// them so.
    fn has_modsig_digest_first(&self) -> bool {
        let is_digest =
            |kind: &FieldKind| matches!(kind, FieldKind::D | FieldKind::DNg | FieldKind::DNgV2);
        let fields = self.fields();
        let modsig = fields.iter().position(|kind| *kind == FieldKind::DModsig);
        modsig.is_some_and(|at| !fields.iter().take(at).any(is_digest))
    }

    /// Whether the file's digest stands before every value whose content somebody else may have chosen: as in every
    /// template of the kernel. Others can be read and replayed, and must not be judged.
    ///
    /// Values are under a digest and their names are not: in another order whoever relabels an entry could have the
    /// value of an extended attribute, or the digest that leaves out an appended signature, read as the file's digest,
    /// and the true one as something that nobody looks at.
    #[must_use]
    pub fn has_a_digest_of_its_own_first(&self) -> bool {
        use FieldKind::{D, DNg, DNgV2, Igid, Imode, Iuid, N, NNg};
        let fields = self.fields();
        let plain = |kind: &FieldKind| matches!(kind, N | NNg | Iuid | Igid | Imode);
        let digest = fields.iter().position(|kind| matches!(kind, D | DNg | DNgV2));
        digest.is_some_and(|digest| fields.iter().take(digest).all(plain))
    }

    /// The name, as the list has it.
    #[must_use]
    pub const fn untrusted_name(&self) -> &'a str {
        self.untrusted_name
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[FieldKind] {
        self.fields.get(..self.count).unwrap_or(&self.fields)
    }

    /// Whether it is `ima`, the first template: without lengths, and hashed otherwise than all others.
    #[must_use]
    pub const fn is_original(&self) -> bool {
        self.is_original
    }
}

/// Fields of the kernel's own templates.
const fn built_in(name: &[u8]) -> Option<&'static [FieldKind]> {
    use FieldKind::{
        Buf, D, DModsig, DNg, DNgV2, EvmSig, Igid, Imode, Iuid, Modsig, N, NNg, Sig, XattrLengths,
        XattrNames, XattrValues,
    };
    Some(match name {
        b"ima-ng" => &[DNg, NNg],
        b"ima-sig" => &[DNg, NNg, Sig],
        b"ima" => &[D, N],
        b"ima-ngv2" => &[DNgV2, NNg],
        b"ima-sigv2" => &[DNgV2, NNg, Sig],
        b"ima-buf" => &[DNg, NNg, Buf],
        b"ima-modsig" => &[DNg, NNg, Sig, DModsig, Modsig],
        b"evm-sig" => &[DNg, NNg, EvmSig, XattrNames, XattrLengths, XattrValues, Iuid, Igid, Imode],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_give_fields() {
        let fields = |name: &'static str| {
            Template::from_name(name.as_bytes()).map(|template| template.fields().to_vec())
        };
        assert_eq!(fields("ima-ng"), fields("d-ng|n-ng"));
        assert_eq!(fields("ima"), Some(vec![FieldKind::D, FieldKind::N]));
        assert_eq!(fields("evm-sig").map(|fields| fields.len()), Some(9));
        let swapped = "d-modsig|n-ng|sig|d-ng|modsig";
        for bad in ["", "|", "d-ng|", "d-ng||n-ng", "ima-new", "d-ng,n-ng", "D-NG", swapped] {
            assert_eq!(fields(bad), None, "{bad:?}");
        }
        let widest = ["d"; MAX_FIELDS].join("|");
        assert!(Template::from_name(widest.as_bytes()).is_some());
        assert!(Template::from_name(format!("{widest}|d").as_bytes()).is_none());
    }

    #[test]
    fn only_the_first_template_is_original() {
        let is_original = |name: &'static [u8]| Template::from_name(name).map(|t| t.is_original());
        assert_eq!(is_original(b"ima"), Some(true));
        assert_eq!(is_original(b"d|n"), Some(false));
        assert_eq!(is_original(b"ima-sig"), Some(false));
    }
}
