//! Deviations from RFC 5280 and the TCG profile that are accepted, each by name and with its
//! reason.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! oddities {
    ($($variant:ident $name:literal $reason:literal;)*) => {
        /// A deviation that manufacturers really shipped and that takes nothing from what a chain
        /// proves.
        ///
        /// `Profile::Strict` refuses every one of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Oddity {
            $(#[doc = $reason] $variant,)*
        }

        impl Oddity {
            /// Every oddity, alphabetical.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is and why it is accepted, in one or two sentences.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)* }
            }
        }
    };
}

oddities! {
    AuthorityKeyIdAbsent "authority-key-id-absent" "A certificate that is not an anchor has no authority key identifier. It is only a hint for choosing the issuer; the signature decides.";
    BasicConstraintsAbsent "basic-constraints-absent" "The EK certificate has no basic constraints. RFC 5280 reads that as: not a CA.";
    DefaultEncoded "default-encoded" "A default value (critical FALSE, cA FALSE) is written out, which DER forbids. The signature covers the bytes as received.";
    EcdsaNullParameters "ecdsa-null-parameters" "An ECDSA algorithm identifier carries NULL parameters. They carry no meaning and are the same inside and outside of the signed part.";
    ExtendedKeyUsageAbsent "extended-key-usage-absent" "The EK certificate has no extended key usage. Accepted only if its key usage is present and allows no signing.";
    ExtendedKeyUsageCritical "extended-key-usage-critical" "Extended key usage is marked critical. It is processed in full.";
    IntermediateExpired "intermediate-expired" "An imported intermediate has expired, and had not when it issued. Accepted only where the roots' configuration says so.";
    KeyUsageAbsent "key-usage-absent" "A certificate has no key usage. RFC 5280 then does not restrict the key; CA flag and extended key usage still decide.";
    KeyUsageSigning "key-usage-signing" "The EK certificate allows signing beside key transport. The EK's public area decides what the key can do, and there signing is refused.";
    NoExpiry "no-expiry" "A certificate's validity ends in the year 9999, which RFC 5280 defines as having no end. Revocation and removal of its root still end it.";
    NvPadding "nv-padding" "Uniform padding follows the EK certificate, as read from an NV index that is larger than its content. It is cut off before anything is read.";
    PoliciesCritical "policies-critical" "Certificate policies are marked critical. No policy is demanded and policy constraints are refused, so every policy is acceptable.";
    RdnUnsorted "rdn-unsorted" "A multi-valued name part is not in DER order. Names are compared byte for byte and signatures cover the bytes as received.";
    RsaesOaepKey "rsaes-oaep-key" "The public key's algorithm is id-RSAES-OAEP instead of rsaEncryption. Modulus and exponent have the same form.";
    SerialNotMinimal "serial-not-minimal" "The serial number has surplus leading bytes. It is compared in its minimal form.";
    SerialNotPositive "serial-not-positive" "The serial number is zero or negative. It is only compared with the entries of CRLs.";
    Sha1Intermediate "sha1-intermediate" "An imported intermediate is signed with SHA-1 and RSA. The operator chose its very bytes at import, so a collision gives an attacker nothing.";
    SubjectAltNameAbsent "subject-alt-name-absent" "The EK certificate does not name manufacturer, model and version of the TPM. They are unknown then, and policy that asks for them denies.";
    SubjectDirectoryAttributesCritical "subject-directory-attributes-critical" "Subject directory attributes (the TPM specification's version) are marked critical. They restrict nothing.";
    TcgHeader "tcg-header" "The EK certificate is wrapped in the seven-byte header of TPM 1.2's stored certificates. It is cut off before anything is read.";
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Oddity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A set of oddities; one word, no allocation.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities(u32);

impl Oddities {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `oddity` is among them.
    #[must_use]
    pub const fn contains(self, oddity: Oddity) -> bool {
        self.0 & (1 << oddity as u32) != 0
    }

    /// The oddities, in the order of [`Oddity::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Oddity> {
        Oddity::ALL.iter().copied().filter(move |oddity| self.contains(*oddity))
    }

    pub(crate) const fn add(&mut self, oddity: Oddity) {
        self.0 |= 1 << oddity as u32;
    }

    pub(crate) const fn add_all(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Oddities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Names, comma-separated.
impl fmt::Display for Oddities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, oddity) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(oddity.name())?;
        }
        Ok(())
    }
}

impl Serialize for Oddities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_and_fit_the_set() {
        assert!(Oddity::ALL.len() <= 32);
        for pair in Oddity::ALL.windows(2) {
            let [a, b] = pair else { unreachable!("windows of two") };
            assert!(a.name() < b.name(), "{a} and {b}");
        }
        let mut set = Oddities::default();
        for oddity in Oddity::ALL {
            assert!(!set.contains(*oddity));
            set.add(*oddity);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), Oddity::ALL);
    }
}
