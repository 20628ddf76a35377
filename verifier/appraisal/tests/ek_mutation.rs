//! No prefix and no single flipped bit of a chain is accepted, and none makes the reader panic.

mod ek_support;

use appraisal::x509::{Certificate, Crl};
use aws_lc_rs::rsa::KeySize;
use ek_support::*;
use proptest::prelude::*;

fn chains() -> [World; 2] {
    let rsa = Pki {
        root_key: Key::rsa(KeySize::Rsa2048),
        ca_key: Key::rsa(KeySize::Rsa2048),
        ek_key: Key::rsa(KeySize::Rsa2048),
    };
    [Pki::new().world(), rsa.world()]
}

#[test]
fn truncated_ek_certificates() {
    for world in chains() {
        let roots = world.roots();
        let der = world.certificate.clone().expect("there");
        for length in 0..der.len() {
            let mut world = world.clone();
            world.certificate = Some(der[..length].to_vec());
            assert!(world.judge_with(&roots).is_err(), "cut to {length}");
        }
    }
}

#[test]
fn flipped_bits_in_ek_certificates() {
    for world in chains() {
        let roots = world.roots();
        let der = world.certificate.clone().expect("there");
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut world = world.clone();
                let mut wrong = der.clone();
                wrong[at] ^= 1 << bit;
                world.certificate = Some(wrong);
                assert!(world.judge_with(&roots).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn flipped_bits_and_cuts_in_a_sent_intermediate() {
    for mut world in chains() {
        let der = world.intermediates.remove(0);
        let roots = world.roots();
        for at in 0..der.len() {
            world.chain = vec![der[..at].to_vec()];
            assert!(world.judge_with(&roots).is_err(), "cut to {at}");
            for bit in 0..8 {
                let mut wrong = der.clone();
                wrong[at] ^= 1 << bit;
                world.chain = vec![wrong];
                assert!(world.judge_with(&roots).is_err(), "byte {at} bit {bit}");
            }
        }
        world.chain = vec![der];
        assert!(world.judge_with(&roots).is_ok());
    }
}

proptest! {
    #[test]
    fn readers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Certificate::parse(&bytes);
        let _ = Certificate::parse_from_nv(&bytes);
        let _ = Crl::parse(&bytes);
    }

    #[test]
    fn spliced_certificates_are_never_accepted(
        at in 0_usize..600,
        remove in 0_usize..40,
        insert in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let world = spliced();
        let der = world.certificate.clone().expect("there");
        let at = at.min(der.len());
        let end = (at + remove).min(der.len());
        let wrong = [&der[..at], &insert, &der[end..]].concat();
        // Uniform padding at the end is what an NV index may hold.
        let padding = wrong.strip_prefix(der.as_slice())
            .is_some_and(|tail| tail.iter().all(|b| *b == 0) || tail.iter().all(|b| *b == 0xff));
        if !padding {
            let mut world = world.clone();
            world.certificate = Some(wrong);
            prop_assert!(world.judge().is_err());
        }
    }
}

fn spliced() -> &'static World {
    static WORLD: std::sync::OnceLock<World> = std::sync::OnceLock::new();
    WORLD.get_or_init(|| Pki::new().world())
}
