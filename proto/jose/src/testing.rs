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
pub(crate) const NOW: i64 = 1_790_000_000;

/// A private key of any type that is understood.
pub(crate) enum Signer {
    P256(Es256Key),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn p256() -> Self {
        Self::P256(Es256Key::generate().expect("a key"))
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    pub(crate) fn public(&self) -> PublicKey {
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

    pub(crate) fn jwk(&self, id: &str) -> Jwk {
        Jwk::new(self.public()).with_id(id).expect("an ID")
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
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
    pub(crate) fn token_of(&self, algorithm: Algorithm, header: &str, payload: &[u8]) -> String {
        let signed =
            format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64url::encode(&signature))
    }

    pub(crate) fn token(&self, algorithm: Algorithm, id: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm.as_str(), "kid": id, "typ": "JWT"}).to_string();
        self.token_of(algorithm, &header, claims.to_string().as_bytes())
    }
}
