//! The EK's public area: template, kind, strength.

mod ek_support;

use appraisal::ek::{AllowListed, ek_digest};
use aws_lc_rs::rsa::KeySize;
use ek_support::*;
use proto::{
    reason::ReasonCode,
    tpm::{
        credential::sized,
        public::{ObjectAttributes, Public},
    },
};

/// An EK that the inventory vouches for: what is refused here is refused whoever vouches.
fn world(public: Public) -> World {
    let mut world = Pki::new().world();
    world.certificate = None;
    world.allow_listed = AllowListed::ByDigest(ek_digest(&public));
    world.public = public;
    world
}

#[test]
fn each_attribute_bit_is_judged() {
    let modulus = Key::rsa(KeySize::Rsa2048).modulus();
    // userWithAuth, adminWithPolicy, noDA, stClear: who may use the key, and until when.
    let free = [
        ObjectAttributes::USER_WITH_AUTH,
        ObjectAttributes::ADMIN_WITH_POLICY,
        ObjectAttributes::NO_DA,
        ObjectAttributes::ST_CLEAR,
    ];
    for template in [EK_ATTRIBUTES, EK_ATTRIBUTES | ObjectAttributes::USER_WITH_AUTH] {
        assert!(world(rsa_public(2048, 0, &modulus, template)).judge().is_ok());
        for bit in (0..32).map(|bit| 1 << bit) {
            let world = world(rsa_public(2048, 0, &modulus, template ^ bit));
            if free.contains(&bit) {
                assert!(world.judge().is_ok(), "{bit:#010x}");
            } else {
                println!("{bit:#010x}");
                world.assert_refused(ReasonCode::EkTemplateInvalid);
            }
        }
    }
}

#[test]
fn a_storage_key_has_a_symmetric_algorithm_and_no_scheme() {
    let modulus = Key::rsa(KeySize::Rsa2048).modulus();
    let tail = [&2048_u16.to_be_bytes()[..], &[0; 4], &sized(&modulus)];
    let null = public_bytes(1, EK_ATTRIBUTES, &[0, 0x10], &tail);
    let public = Public::decode(&null).expect("test structure");
    world(public).assert_refused(ReasonCode::EkTemplateInvalid);

    let mut bytes = public_bytes(1, EK_ATTRIBUTES, AES_128_CFB, &tail);
    // scheme: RSAES instead of NULL, after type, nameAlg, attributes, policy and symmetric.
    let scheme = 2 + 2 + 4 + 34 + 6;
    assert_eq!(bytes[scheme..scheme + 2], [0, 0x10]);
    bytes[scheme + 1] = 0x15;
    let public = Public::decode(&bytes).expect("test structure");
    world(public).assert_refused(ReasonCode::EkTemplateInvalid);
}

#[test]
fn kinds_and_sizes() {
    for (key, supported) in [
        (Key::rsa(KeySize::Rsa2048), true),
        (Key::rsa(KeySize::Rsa3072), true),
        (Key::rsa(KeySize::Rsa4096), false),
        (Key::p256(), true),
        (Key::p384(), true),
    ] {
        let world = world(ek_public(&key));
        if supported {
            assert!(world.judge().is_ok());
        } else {
            world.assert_refused(ReasonCode::EkKeyUnsupported);
        }
    }
    let modulus = [0xc1; 128];
    world(rsa_public(1024, 0, &modulus, EK_ATTRIBUTES))
        .assert_refused(ReasonCode::EkKeyUnsupported);
}

#[test]
fn weak_rsa_keys() {
    let good = Key::rsa(KeySize::Rsa2048).modulus();
    let weak = |exponent: u32, modulus: &[u8]| {
        world(rsa_public(2048, exponent, modulus, EK_ATTRIBUTES))
            .assert_refused(ReasonCode::EkKeyWeak);
    };
    for exponent in [1, 2, 3, 17, 65_536, 65_539, u32::MAX] {
        weak(exponent, &good);
    }
    for length in [0, 1, 255] {
        weak(0, &good[..length]);
    }
    weak(0, &[&[1][..], &good].concat());
    weak(0, &[&[0][..], &good].concat());
    let change = |at: usize, mask: u8| {
        let mut modulus = good.clone();
        modulus[at] ^= mask;
        modulus
    };
    weak(0, &change(0, 0x80));
    weak(0, &change(255, 0x01));
}

#[test]
fn roca() {
    // 1 modulo each of the primes is a power of 65537 modulo each: the product, shifted, plus one.
    let primes = [11_u32, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];
    let mut product = vec![1_u8];
    for prime in primes {
        let mut carry = 0;
        for digit in product.iter_mut().rev() {
            let value = u32::from(*digit) * prime + carry;
            *digit = value as u8;
            carry = value >> 8;
        }
        while carry > 0 {
            product.insert(0, carry as u8);
            carry >>= 8;
        }
    }
    while product[0] < 0x80 {
        for at in 0..product.len() {
            let below = product.get(at + 1).map_or(0, |digit| digit >> 7);
            product[at] = product[at] << 1 | below;
        }
    }
    product.resize(256, 0);
    product[255] = 1;
    world(rsa_public(2048, 0, &product, EK_ATTRIBUTES)).assert_refused(ReasonCode::EkKeyWeak);
    product[255] = 3;
    assert!(world(rsa_public(2048, 0, &product, EK_ATTRIBUTES)).judge().is_ok());
}

#[test]
fn points_off_the_curve() {
    for (curve, key) in [(3, Key::p256()), (4, Key::p384())] {
        let point = key.point()[1..].to_vec();
        let size = point.len() / 2;
        let weak = |x: &[u8], y: &[u8]| {
            world(ecc_public(curve, x, y, EK_ATTRIBUTES)).assert_refused(ReasonCode::EkKeyWeak);
        };
        let (x, y) = point.split_at(size);
        for at in 0..size {
            let mut wrong = y.to_vec();
            wrong[at] ^= 1;
            weak(x, &wrong);
        }
        weak(&[], &[]);
        weak(&vec![0; size], &vec![0; size]);
        weak(x, &[]);
        weak(&vec![0xff; size], y);
    }
}
