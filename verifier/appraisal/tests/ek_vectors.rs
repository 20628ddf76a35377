//! Certificates that manufacturers and cloud providers really shipped.

mod ek_support;

use std::{collections::BTreeMap, path::Path};

use appraisal::{
    ek::Profile,
    x509::{
        Certificate, EcCurve, EndorsementRoots, Oddity, RootsBuilder, SignatureFailure, SubjectKey,
    },
};
use ek_support::*;
use proto::reason::ReasonCode;
use soft_tpm::vectors_dir;

/// Every certificate of the vectors, by its path below them.
fn certificates(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let manifest = std::fs::read_to_string(dir.join("MANIFEST.tsv")).expect("manifest");
    manifest
        .lines()
        .filter_map(|line| line.split('\t').next())
        .filter(|file| file.contains("/ek/"))
        .map(|file| (file.to_owned(), read_der(&dir.join(file))))
        .collect()
}

#[test]
fn every_certificate_parses() {
    let Some(dir) = vectors_dir() else { return };
    let certificates = certificates(&dir);
    assert_eq!(certificates.len(), 77);
    let mut refused = Vec::new();
    for (file, der) in &certificates {
        match Certificate::parse(der) {
            Ok(certificate) => {
                assert_eq!(certificate.der(), der);
                assert!(!matches!(certificate.key(), SubjectKey::Unsupported(_)), "{file}");
                assert_eq!(certificate.extensions().not_understood, None, "{file}");
            }
            Err(error) => refused.push(format!("{file}: {error}")),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

fn read(certificates: &BTreeMap<String, Vec<u8>>, file: &str) -> Certificate {
    Certificate::parse(&certificates[file]).expect("well-formed")
}

/// Every CA of the vectors: self-issued ones and Google's roots as anchors, the others as
/// intermediates; and those that can be neither.
fn roots(certificates: &BTreeMap<String, Vec<u8>>) -> (EndorsementRoots, Vec<String>) {
    let mut builder = RootsBuilder::new();
    let mut refused = Vec::new();
    for (file, der) in certificates.iter().filter(|(file, _)| file.contains("/ek/ca/")) {
        let certificate = Certificate::parse(der).expect("well-formed");
        let added = if certificate.is_self_issued() {
            builder.anchor(certificate)
        } else {
            builder.intermediate(certificate)
        };
        if let Err(error) = added {
            refused.push(format!("{file}: {error}"));
        }
    }
    (builder.build().0, refused)
}

#[test]
fn every_ca_can_be_imported() {
    let Some(dir) = vectors_dir() else { return };
    let (roots, refused) = roots(&certificates(&dir));
    assert_eq!(refused, [""; 0]);
    println!("{} anchors, {} intermediates", roots.anchors().len(), roots.intermediates().len());
    assert!(roots.anchors().len() >= 20 && roots.intermediates().len() >= 30);
}

#[test]
fn intermediates_are_signed_by_the_cas_they_name() {
    let Some(dir) = vectors_dir() else { return };
    let (roots, _) = roots(&certificates(&dir));
    let all: Vec<&Certificate> = roots.anchors().iter().chain(roots.intermediates()).collect();
    let mut verified = 0;
    for certificate in roots.intermediates() {
        let issuers = all.iter().filter(|ca| ca.subject() == certificate.issuer());
        let results: Vec<Result<(), SignatureFailure>> =
            issuers.map(|issuer| certificate.verify_signed_by(issuer)).collect();
        if results.contains(&Ok(())) {
            verified += 1;
        } else if !results.is_empty() {
            panic!("{}: {results:?}", certificate.subject_text());
        } else {
            println!("issuer not in the vectors: {}", certificate.subject_text());
        }
    }
    println!("{verified} of {} verified", roots.intermediates().len());
    assert!(verified >= 30, "{verified}");
}

#[test]
fn expected_oddities_are_found() {
    let Some(dir) = vectors_dir() else { return };
    let certificates = certificates(&dir);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sha1 = 0;
    let mut p521 = 0;
    for der in certificates.values() {
        let certificate = Certificate::parse(der).expect("well-formed");
        for oddity in certificate.oddities().iter() {
            *counts.entry(oddity.name()).or_default() += 1;
        }
        sha1 += usize::from(certificate.signature_algorithm().to_string().starts_with("sha1"));
        p521 +=
            usize::from(matches!(certificate.key(), SubjectKey::Ec { curve: EcCurve::P521, .. }));
    }
    println!("{counts:?}, sha1 {sha1}, P-521 {p521}");
    assert!(counts[Oddity::PoliciesCritical.name()] > 10);
    assert!(sha1 > 10 && p521 >= 1);
}

/// A world that holds every CA of the vectors and presents one of Google's certificates.
fn google(certificates: &BTreeMap<String, Vec<u8>>, file: &str) -> (World, EndorsementRoots) {
    let file = format!("google+go-tpm-tools/ek/{file}");
    let certificate = read(certificates, &file);
    let mut world = Pki::new().world();
    world.public = public_of(&certificate);
    world.certificate = Some(certificates[&file].clone());
    (world, roots(certificates).0)
}

#[test]
fn google_s_ek_certificates_lead_to_google_s_roots() {
    let Some(dir) = vectors_dir() else { return };
    let certificates = certificates(&dir);
    for (file, anchor, named) in [
        ("uca_tpm_rsa_enc_cert.pem", "tpm_ek_v1_cloud_host_root", true),
        ("uca_tpm_ecc_enc_cert.pem", "tpm_ek_v1_cloud_host_root", true),
        ("pca_tpm_rsa_enc_cert.pem", "EK/AK CA Root", false),
        ("pca_tpm_ecc_enc_cert.pem", "EK/AK CA Root", false),
    ] {
        let (world, roots) = google(&certificates, file);
        let ek = world.judge_with(&roots).unwrap_or_else(|denial| panic!("{file}: {denial:?}"));
        let appraisal::ek::Trust::Certificate(certified) = ek.trust() else {
            panic!("by certificate")
        };
        let path = certified.path();
        assert!(path.anchor().subject_text().contains(anchor), "{file}");
        assert_eq!(path.intermediates().len(), 1);
        assert_eq!(ek.identity().and_then(|id| id.vendor()).is_some_and(|v| v == "GOOG"), named);
        assert_eq!(ek.oddities().contains(Oddity::SubjectAltNameAbsent), !named);
        assert_eq!(ek.oddities().contains(Oddity::ExtendedKeyUsageAbsent), !named);
        println!("{file}: {}", ek.oddities());
    }
}

#[test]
fn google_s_ek_certificates_with_san_pass_the_strict_profile() {
    let Some(dir) = vectors_dir() else { return };
    let certificates = certificates(&dir);
    let (mut world, roots) = google(&certificates, "uca_tpm_rsa_enc_cert.pem");
    world.profile = Profile::Strict;
    assert!(world.judge_with(&roots).is_ok());
    let (mut world, roots) = google(&certificates, "pca_tpm_rsa_enc_cert.pem");
    world.profile = Profile::Strict;
    let denial = world.judge_with(&roots).expect_err("odd");
    assert_eq!(denial.code(), ReasonCode::EkCertificateProfileViolation);
}

#[test]
fn google_s_ak_certificates_are_no_ek_certificates() {
    let Some(dir) = vectors_dir() else { return };
    let certificates = certificates(&dir);
    for file in [
        "uca_tpm_rsa_sign_cert.pem",
        "uca_tpm_ecc_sign_cert.pem",
        "pca_tpm_rsa_sign_cert.pem",
        "pca_tpm_ecc_sign_cert.pem",
    ] {
        let (world, roots) = google(&certificates, file);
        let denial = world.judge_with(&roots).expect_err(file);
        assert_eq!(denial.code(), ReasonCode::EkCertificateProfileViolation, "{file}");
    }
}
