//! Certificates and CRLs as manufacturers and attackers encode them.
#![no_main]

use appraisal::x509::{Certificate, Crl};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.der(), data, "nothing but the certificate");
        let _ = certificate.verify_signed_by(&certificate);
        let _ = (certificate.subject_text(), certificate.issuer_text());
        let _ = certificate.key().canonical_spki();
        // Padding as NV indexes have it changes nothing.
        let mut padded = data.to_vec();
        padded.extend_from_slice(&[0xff; 32]);
        assert!(Certificate::parse(&padded).is_err());
        if let Ok(from_nv) = Certificate::parse_from_nv(&padded) {
            assert_eq!(from_nv.der(), data);
        }
    }
    let _ = Certificate::parse_from_nv(data);
    if let Ok(crl) = Crl::parse(data) {
        assert_eq!(crl.der(), data);
        let _ = crl.lists(&[1]);
        let _ = crl.is_current(0);
    }
});
