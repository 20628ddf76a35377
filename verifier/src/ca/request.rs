//! PKCS#10 requests, for issuing CAs that the site's own PKI signs.

use const_oid::{AssociatedOid, db::rfc5912::ID_EXTENSION_REQ};
use der::{Any, Encode, Sequence, asn1::SetOfVec};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::{
    attr::Attribute,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName},
    name::Name,
};

use super::{
    CaError, CaRole, CaSubject, IssuingKey, PrivateKey, SignerError, TrustDomain,
    profile::{Profile, extension},
};

#[derive(Sequence)]
struct Info {
    version: u8,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true")]
    attributes: SetOfVec<Attribute>,
}

/// PEM of the request for an issuing CA with this key.
///
/// It asks for the extensions of the profile (RFC 2986 extensionRequest); the site's CA decides.
///
/// # Errors
/// [`CaError::Signer`].
pub(super) fn request(
    role: CaRole,
    trust_domain: &TrustDomain,
    key: &PrivateKey,
) -> Result<String, CaError> {
    let info = info(role, trust_domain, key).map_err(SignerError::from)?;
    let der = IssuingKey::new(key)?.sign_structure(&info)?;
    Ok(super::files::pem("CERTIFICATE REQUEST", &der))
}

fn info(role: CaRole, trust_domain: &TrustDomain, key: &PrivateKey) -> Result<Vec<u8>, der::Error> {
    let profile = Profile::Ca(role);
    let basic = BasicConstraints { ca: true, path_len_constraint: profile.path_length() };
    let mut extensions = vec![
        extension(BasicConstraints::OID, true, &basic)?,
        extension(KeyUsage::OID, true, &KeyUsage(profile.key_usage()))?,
        extension(ExtendedKeyUsage::OID, false, &ExtendedKeyUsage(profile.usages().to_vec()))?,
    ];
    let names = profile.names(trust_domain)?;
    if !names.is_empty() {
        extensions.push(extension(SubjectAltName::OID, false, &SubjectAltName(names))?);
    }
    let wanted = Attribute {
        oid: ID_EXTENSION_REQ,
        values: SetOfVec::try_from(vec![Any::encode_from(&extensions)?])?,
    };
    Info {
        version: 0,
        subject: CaSubject::issuing(role, key.public().clone()).subject(trust_domain)?,
        key: key.public().clone(),
        attributes: SetOfVec::try_from(vec![wanted])?,
    }
    .to_der()
}
