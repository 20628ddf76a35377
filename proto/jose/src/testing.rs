//! Keys and tokens for tests: signed by aws-lc-rs, encoded by hand.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use serde_json::{Value, json};

use crate::{
    Algorithm, Curve, PublicKey, base64url,
    jwk::Jwk,
    sign::{Es256Key, Sign as _},
};

/// A time in tests.
pub const NOW: i64 = 1_790_000_000;

/// A private key of any type that is understood.
#[derive(Debug)]
pub enum Signer {
    /// For ES256.
    P256(Es256Key),
    /// For ES384.
    P384(EcdsaKeyPair),
    /// For the others.
    Rsa(RsaKeyPair),
}

impl Signer {
    /// A new key on P-256.
    #[must_use]
    pub fn p256() -> Self {
        Self::P256(Es256Key::generate().expect("a key"))
    }

    /// A new key on P-384.
    #[must_use]
    pub fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    /// A new RSA key of 2048 bits.
    #[must_use]
    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            Self::P256(key) => key.public().clone(),
            Self::P384(pair) => {
                let point = pair.public_key().as_ref();
                PublicKey::ec(Curve::P384, &point[1..49], &point[49..]).expect("a point")
            }
            Self::Rsa(pair) => {
                let spki = aws_lc_rs::encoding::AsDer::as_der(pair.public_key()).expect("DER");
                let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = spki;
                PublicKey::from_spki_der(spki.as_ref()).expect("a key")
            }
        }
    }

    /// The public key with this `kid`.
    #[must_use]
    pub fn jwk(&self, id: &str) -> Jwk {
        Jwk::new(self.public()).with_id(id).expect("an ID")
    }

    /// A signature, for RSA by this algorithm.
    #[must_use]
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => key.sign_es256(message).expect("a signature").to_vec(),
            Self::P384(pair) => {
                pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                    .expect("a signature");
                signature
            }
        }
    }

    /// A token with this header and payload, as they stand.
    #[must_use]
    pub fn token_of(&self, algorithm: Algorithm, header: &str, payload: &[u8]) -> String {
        let signed =
            format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64url::encode(&signature))
    }

    /// A token with these claims and a plain header.
    #[must_use]
    pub fn token(&self, algorithm: Algorithm, id: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm.as_str(), "kid": id, "typ": "JWT"}).to_string();
        self.token_of(algorithm, &header, claims.to_string().as_bytes())
    }
}
