//! One entry, and the digests of its fields.

use super::{BankAlg, BankDigest, Fields, Template};

/// Name of the entry that the kernel makes first, over the firmware's PCRs.
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// Size of a name in the digest of the template `ima`, NUL and padding included.
const PADDED_NAME_BYTES: usize = 256;

/// An entry of a list, well-formed and believed by nobody.
///
/// # Does not prove
/// Anything until the list replays to a quoted PCR. Even then a violation's fields are not vouched
/// for: the kernel extends ones in place of their digest. See [`ImaEntry::vouched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImaEntry<'a> {
    /// The PCR that it says it was extended into, 0–23.
    pub untrusted_pcr: u32,
    /// The template digest that it carries.
    pub recorded: BankDigest,
    /// Whether that digest is all zeros: a file was written while it was measured, or the other way.
    pub is_violation: bool,
    /// Its template.
    pub template: Template<'a>,
    /// Its template data, as hashed (but for the template `ima`).
    pub data: &'a [u8],
    pub(super) fields: Fields<'a>,
}

impl<'a> ImaEntry<'a> {
    /// Fields that the template digest vouches for; `None` for a violation.
    #[must_use]
    pub const fn vouched(&self) -> Option<&Fields<'a>> {
        if self.is_violation { None } else { Some(&self.fields) }
    }

    /// Fields as written: for a violation a hint, never a fact.
    #[must_use]
    pub const fn untrusted_fields(&self) -> &Fields<'a> {
        &self.fields
    }

    /// Hash of the fields, as the kernel makes it.
    ///
    /// # Source
    /// Linux `security/integrity/ima/ima_crypto.c`, `ima_calc_field_array_hash_tfm`: lengths and
    /// values as they stand in the list; for the template `ima` the digest, then the name padded
    /// with zeros to 256 bytes, without lengths.
    #[must_use]
    pub fn template_digest(&self, alg: BankAlg) -> BankDigest {
        if !self.template.is_original() {
            return alg.hash(&[self.data]);
        }
        let name = self.fields.name.unwrap_or_default();
        let zeros = [0; PADDED_NAME_BYTES];
        let padding = zeros.get(name.len()..).unwrap_or_default();
        let digest = self.fields.digest.map_or(&[][..], |digest| digest.bytes);
        alg.hash(&[digest, name, padding])
    }

    /// Whether the digest that it carries is that of its fields; never for a violation.
    #[must_use]
    pub fn has_right_digest(&self) -> bool {
        !self.is_violation && self.template_digest(self.recorded.alg()) == self.recorded
    }

    /// Whether it is named `boot_aggregate`.
    #[must_use]
    pub fn is_boot_aggregate(&self) -> bool {
        self.fields.name == Some(BOOT_AGGREGATE)
    }
}
