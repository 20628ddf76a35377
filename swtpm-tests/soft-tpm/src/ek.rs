//! Endorsement keys: decrypt what MakeCredential made.

use aws_lc_rs::{
    agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey},
    cipher::{AES_128, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey},
    encoding::AsDer as _,
    iv::FixedLength,
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use proto::{
    digest::HashAlg,
    pb,
    tpm::{name::Name, public::Public},
};

use crate::{
    kdf::{kdfa, kdfe_block, mac},
    key::modulus,
    public::{EK_ATTRIBUTES, Parameters, PublicTemplate},
};

/// Kinds of EK in TCG's templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkKind {
    /// L-1.
    Rsa2048,
    /// H-6.
    Rsa3072,
    /// L-2.
    P256,
    /// H-3, with SHA-384 as nameAlg and AES-256.
    P384,
}

impl EkKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Rsa2048, Self::Rsa3072, Self::P256, Self::P384];
}

/// An endorsement key.
#[derive(Debug)]
pub struct Ek {
    private: Private,
    public: Public,
}

#[derive(Debug)]
enum Private {
    Rsa(Box<OaepPrivateDecryptingKey>),
    Ecc(PrivateKey, &'static agreement::Algorithm),
}

impl Ek {
    /// A fresh key.
    ///
    /// # Panics
    /// If the library makes no key.
    #[must_use]
    pub fn generate(kind: EkKind) -> Self {
        let ecc = |algorithm: &'static agreement::Algorithm, curve: u16| {
            let private = PrivateKey::generate(algorithm).expect("an elliptic key");
            let point = private.compute_public_key().expect("a public key");
            let (x, y) = point.as_ref()[1..].split_at(point.as_ref().len() / 2);
            let unique = vec![x.to_vec(), y.to_vec()];
            (Private::Ecc(private, algorithm), Parameters::Ecc { curve }, unique)
        };
        let rsa = |size: KeySize, key_bits: u16| {
            let private = PrivateDecryptingKey::generate(size).expect("an RSA key");
            let der = private.public_key().as_der().expect("DER").as_ref().to_vec();
            let private = OaepPrivateDecryptingKey::new(private).expect("a key for OAEP");
            let parameters = Parameters::Rsa { key_bits, exponent: 0 };
            (Private::Rsa(Box::new(private)), parameters, vec![modulus(&der, key_bits)])
        };
        let (private, parameters, unique) = match kind {
            EkKind::Rsa2048 => rsa(KeySize::Rsa2048, 2048),
            EkKind::Rsa3072 => rsa(KeySize::Rsa3072, 3072),
            EkKind::P256 => ecc(&ECDH_P256, 3),
            EkKind::P384 => ecc(&ECDH_P384, 4),
        };
        let high = kind == EkKind::P384;
        let name_alg = if high { HashAlg::Sha384 } else { HashAlg::Sha256 };
        let template = PublicTemplate {
            kind: if matches!(private, Private::Rsa(_)) { 1 } else { 0x23 },
            name_alg: name_alg.tpm_id(),
            attributes: EK_ATTRIBUTES,
            auth_policy: vec![0x5a; name_alg.len_bytes()],
            aes_bits: Some(if high { 256 } else { 128 }),
            scheme: (0x0010, None),
            parameters,
            unique,
        };
        Self { private, public: template.public() }
    }

    /// Its public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// `TPM2_ActivateCredential`: the secret, if the credential was made for this EK and an object with this Name.
    #[must_use]
    pub fn activate(&self, name: &Name, credential: &pb::Credential) -> Option<Vec<u8>> {
        let (encrypted_secret, []) = take_sized(&credential.encrypted_secret)? else {
            return None;
        };
        let alg = self.public.name_alg();
        let seed = match &self.private {
            Private::Rsa(key) => {
                let mut out = vec![0; key.min_output_size()];
                let label = Some(&b"IDENTITY\0"[..]);
                key.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted_secret, &mut out, label)
                    .ok()?
                    .to_vec()
            }
            Private::Ecc(key, algorithm) => {
                let (x, rest) = take_sized(encrypted_secret)?;
                let (y, _) = take_sized(rest)?;
                let point = [&[4], x, y].concat();
                let own = key.compute_public_key().ok()?;
                let own_x = own.as_ref().get(1..=x.len())?;
                let peer = UnparsedPublicKey::new(algorithm, &point);
                agreement::agree(key, peer, (), |z| Ok(kdfe_block(alg, z, "IDENTITY", x, own_x)))
                    .ok()?
            }
        };
        let (inner, []) = take_sized(&credential.id_object)? else { return None };
        let (integrity, encrypted) = take_sized(inner)?;
        let key = kdfa(alg, &seed, "INTEGRITY", &[], alg.len_bytes());
        if mac(alg, &key, &[encrypted, name.as_bytes()].concat()) != integrity {
            return None;
        }
        let aes = if self.public.symmetric()?.key_bits == 256 { &AES_256 } else { &AES_128 };
        let key = kdfa(alg, &seed, "STORAGE", name.as_bytes(), aes_bytes(&self.public)?);
        let key = DecryptingKey::cfb128(UnboundCipherKey::new(aes, &key).ok()?).ok()?;
        let mut secret = encrypted.to_vec();
        key.decrypt(&mut secret, DecryptionContext::Iv128(FixedLength::from([0; 16]))).ok()?;
        let (secret, []) = take_sized(&secret)? else { return None };
        Some(secret.to_vec())
    }
}

fn aes_bytes(public: &Public) -> Option<usize> {
    Some(usize::from(public.symmetric()?.key_bits) / 8)
}

/// The contents of a leading `TPM2B`, and what follows.
fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}
