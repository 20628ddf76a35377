//! What this worker needs of certificates: cutting them out of NV and finding a key in them. Nothing
//! is verified here; that is the verifier's work.

use proto::{
    spki::canonical_spki,
    tpm::public::{KeyKind, Public},
};

/// Whether a certificate's bytes hold this public key.
///
/// A search for the modulus or the point, so that no oddity of a manufacturer's encoding gets in
/// the way of choosing a key. Proves nothing: the verifier compares key and certificate.
pub(crate) fn certificate_holds(certificate: &[u8], public: &Public) -> bool {
    let needle = match public.key() {
        KeyKind::Rsa { modulus, .. } => modulus.clone(),
        KeyKind::Ecc { .. } => {
            let spki = canonical_spki(public);
            // The uncompressed point at the end.
            let KeyKind::Ecc { curve, .. } = public.key() else { return false };
            match spki.len().checked_sub(2 * curve.field_bytes()) {
                Some(start) => spki.get(start..).unwrap_or_default().to_vec(),
                None => return false,
            }
        }
        _ => return false,
    };
    !needle.is_empty() && certificate.windows(needle.len()).any(|window| window == needle)
}

/// The first DER SEQUENCE, without the padding that NV indexes have after it.
pub(crate) fn first_certificate(bytes: &[u8]) -> Option<&[u8]> {
    first_sequence(bytes).map(|(certificate, _)| certificate)
}

/// DER SEQUENCEs one after the other; stops at padding or anything else.
pub(crate) fn certificates_in(mut run: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((certificate, rest)) = first_sequence(run) {
        out.push(certificate.to_vec());
        run = rest;
    }
    out
}

/// Splits after the first DER SEQUENCE.
fn first_sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, length) = match bytes {
        [0x30, short, ..] if *short < 0x80 => (2, usize::from(*short)),
        [0x30, 0x81, a, ..] => (3, usize::from(*a)),
        [0x30, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        _ => return None,
    };
    // At most 4 + 65535.
    (length > 0).then(|| bytes.split_at_checked(header + length)).flatten()
}

/// All zeros or all ones: written at the factory, never filled.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::template::{self, EkTemplate};

    #[test]
    fn certificates_are_cut_out_of_a_run() {
        let first = [0x30, 0x03, 1, 2, 3];
        let mut second = vec![0x30, 0x82, 0x01, 0x00];
        second.extend([7; 256]);
        let mut run = first.to_vec();
        run.extend(&second);
        run.extend([0xff; 100]);
        assert_eq!(certificates_in(&run), [first.to_vec(), second.clone()]);
        // A cut, an empty one and a foreign tag end the run.
        assert_eq!(certificates_in(&second[..100]), Vec::<Vec<u8>>::new());
        assert_eq!(certificates_in(&[0x30, 0x00, 0x30, 0x00]), Vec::<Vec<u8>>::new());
        assert_eq!(certificates_in(&[0x31, 0x01, 0]), Vec::<Vec<u8>>::new());
        assert_eq!(certificates_in(&[0x30, 0x83, 0, 0, 1, 0]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn blank_indexes_are_no_certificates() {
        assert!(is_blank(&[]));
        assert!(is_blank(&[0xff; 4]));
        assert!(is_blank(&[0; 4]));
        assert!(!is_blank(&[0xff, 0]));
    }

    #[test]
    fn a_certificate_is_searched_for_the_key() {
        let key = template::with_nonce(&EkTemplate::L2.public(), &[7; 32]).expect("fits");
        let key = Public::decode(&key).expect("a public area");
        let mut certificate = vec![0x30; 100];
        certificate.extend(canonical_spki(&key));
        certificate.extend([0; 40]);
        assert!(certificate_holds(&certificate, &key));
        let other = Public::decode(&EkTemplate::L1.public()).expect("a public area");
        assert!(!certificate_holds(&certificate, &other));
        assert!(!certificate_holds(&[], &key));
    }
}
