//! `EFI_GUID`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An identifier as UEFI stores it: the first three fields are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

impl Guid {
    /// `EFI_GLOBAL_VARIABLE`: SecureBoot, PK, KEK, BootOrder, …
    pub const GLOBAL_VARIABLE: Self = Self::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
    /// `EFI_IMAGE_SECURITY_DATABASE_GUID`: db, dbx, dbt, dbr.
    pub const SECURITY_DATABASE: Self =
        Self::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
    /// `SHIM_LOCK_GUID`: shim's variables.
    pub const SHIM_LOCK: Self = Self::new(0x605d_ab50, 0xe046, 0x4300, 0xabb6_3dd8_10dd_8b23);
    /// `EFI_CERT_X509_GUID`.
    pub const CERT_X509: Self = Self::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
    /// `EFI_CERT_SHA256_GUID`.
    pub const CERT_SHA256: Self = Self::new(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
    /// `EFI_CERT_SHA384_GUID`.
    pub const CERT_SHA384: Self = Self::new(0xff3e_5307, 0x9fd0, 0x48c9, 0x85f1_8ad5_6c70_1e01);
    /// `EFI_CERT_SHA512_GUID`.
    pub const CERT_SHA512: Self = Self::new(0x093e_0fae, 0xa6c4, 0x4f50, 0x9f1b_d41e_2b89_c19a);
    /// `EFI_CERT_X509_SHA256_GUID`: hash of a certificate's to-be-signed part, with a revocation time.
    pub const CERT_X509_SHA256: Self =
        Self::new(0x3bd2_a492, 0x96c0, 0x4079, 0xb420_fcf9_8ef1_03ed);
    /// `EFI_CERT_RSA2048_GUID`.
    pub const CERT_RSA2048: Self = Self::new(0x3c5766e8, 0x269c, 0x4e34, 0xaa14_ed77_6e85_b3b6);

    /// From the fields as they are written.
    #[must_use]
    pub const fn new(a: u32, b: u16, c: u16, d: u64) -> Self {
        let [a0, a1, a2, a3] = a.to_le_bytes();
        let [b0, b1] = b.to_le_bytes();
        let [c0, c1] = c.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }

    /// From memory order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// In memory order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, rest @ ..] = self.0;
        let (a, b, c) = (
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1]),
        );
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d0:02x}{d1:02x}-{}", hex::encode(rest))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text is not a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID")]
pub struct GuidParseError;

impl FromStr for Guid {
    type Err = GuidParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut field = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(GuidParseError)?;
            u64::from_str_radix(part, 16).map_err(|_| GuidParseError)
        };
        let (a, b, c, d, e) = (field(8)?, field(4)?, field(4)?, field(4)?, field(12)?);
        if parts.next().is_some() {
            return Err(GuidParseError);
        }
        let narrow = |value| u16::try_from(value).map_err(|_| GuidParseError);
        let a = u32::try_from(a).map_err(|_| GuidParseError)?;
        Ok(Self::new(a, narrow(b)?, narrow(c)?, d << 48 | e))
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_memory_order_go_both_ways() {
        let text = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
        assert_eq!(Guid::SECURITY_DATABASE.to_string(), text);
        assert_eq!(text.parse::<Guid>(), Ok(Guid::SECURITY_DATABASE));
        assert_eq!(Guid::SECURITY_DATABASE.as_bytes()[..5], [0xcb, 0xb2, 0x19, 0xd7, 0x3a]);
        for wrong in ["", "d719b2cb-3d3a-4596-a3bc", "d719b2cb-3d3a-4596-a3bc-dad00e67656f-"] {
            assert_eq!(wrong.parse::<Guid>(), Err(GuidParseError));
        }
    }
}
