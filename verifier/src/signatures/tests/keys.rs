//! Security keys, as this program makes and reads them.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use super::{
    super::{KeyError, KeyName, Pae, PublicKey},
    *,
};
use crate::ca::files::{FileError, pem};

const KINDS: [Algorithm; 2] = [Algorithm::P256, Algorithm::Ed25519];

#[test]
fn a_new_key_is_in_a_file_that_only_its_owner_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    for algorithm in KINDS {
        let path = dir.path().join(algorithm.as_str());
        let public = SecurityPrivateKey::create(&path, algorithm).expect("made").expect("new");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let key = SecurityPrivateKey::read(&path).expect("it loads");
        assert_eq!((key.public(), key.public().algorithm()), (&public, algorithm));
        assert_eq!(PublicKey::from_pem(&public.to_pem()).expect("it parses"), public);
        // Never over another key.
        assert_eq!(SecurityPrivateKey::create(&path, algorithm).expect("no error"), None);
        assert_eq!(SecurityPrivateKey::read(&path).expect("still there").public(), &public);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(
            SecurityPrivateKey::read(&path),
            Err(KeyError::File(FileError::Exposed { mode: 0o640, .. }))
        ));
    }
}

#[test]
fn a_signature_names_its_key_and_is_for_one_content() {
    for algorithm in KINDS {
        let key = holder("alice", algorithm).key;
        let pae = Pae::new("t", b"document");
        let signature = key.sign(&pae).expect("a signature");
        let id = key.public().id().to_string();
        assert_eq!(signature.untrusted_keyid(), Some(id.as_str()));
        assert!(key.public().verifies(pae.as_bytes(), signature.as_bytes()));
        let other = Pae::new("t", b"documenT");
        assert!(!key.public().verifies(other.as_bytes(), signature.as_bytes()));
        let stranger = holder("mallory", algorithm).key;
        assert!(!stranger.public().verifies(pae.as_bytes(), signature.as_bytes()));
    }
}

#[test]
fn a_private_key_is_never_shown() {
    for algorithm in KINDS {
        let text = SecurityPrivateKey::generate(algorithm).expect("a key");
        let key = SecurityPrivateKey::from_pem(&text).expect("it loads");
        let shown = format!("{key:?} {key:#?}");
        assert!(shown.contains(&key.public().id().to_string()), "{shown}");
        let (_, der) = der::pem::decode_vec(text.as_bytes()).expect("PEM");
        // The 32 secret bytes, as lists and as hexadecimal; they stand at fixed places.
        let at = if algorithm == Algorithm::Ed25519 { 16 } else { 36 };
        let secret = &der[at..at + 32];
        assert!(!shown.contains(&hex::encode(secret)));
        assert!(!shown.contains(&format!("{secret:?}").replace(['[', ']'], "")));
    }
}

#[test]
fn what_is_no_key_is_refused_with_its_cause() {
    let private = |text: &str| SecurityPrivateKey::from_pem(text).expect_err("refused");
    let public = |text: &str| PublicKey::from_pem(text).expect_err("refused");
    assert!(matches!(private(""), KeyError::Pem(_)));
    assert!(matches!(private("-----BEGIN PRIVATE KEY"), KeyError::Pem(_)));
    assert!(matches!(private("-----BEGIN PRIVATE KEY-----\n"), KeyError::Pem(_)));
    assert!(matches!(private(&pem("PRIVATE KEY", b"x")), KeyError::Der(_)));
    assert!(matches!(private(&"x".repeat(20_000)), KeyError::Pem(_)));
    let good = SecurityPrivateKey::generate(Algorithm::Ed25519).expect("a key");
    assert!(matches!(private(&format!("{}{}", *good, *good)), KeyError::Pem(_)));
    // Each half where the other belongs.
    let half = SecurityPrivateKey::from_pem(&good).expect("a key").public().to_pem();
    assert_eq!(
        private(&half).to_string(),
        "PUBLIC KEY is not what is expected here: PRIVATE KEY or EC PRIVATE KEY"
    );
    assert_eq!(public(&good).to_string(), "PRIVATE KEY is not what is expected here: PUBLIC KEY");
    let mut long = der::pem::decode_vec(half.as_bytes()).expect("PEM").1;
    long.push(0);
    assert!(matches!(public(&pem("PUBLIC KEY", &long)), KeyError::Der(_)));
    for name in ["", ".a", "A", "a b", "\u{e4}", &"a".repeat(64)] {
        assert!(name.parse::<KeyName>().is_err(), "{name:?}");
    }
    assert!("a-b_c.9".parse::<KeyName>().is_ok());
    assert_eq!(
        "rsa".parse::<Algorithm>().expect_err("none").to_string(),
        "a security key is `p256` or `ed25519`"
    );
    for algorithm in KINDS {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
}

/// Keys under which anybody can sign, and points with a second spelling.
#[test]
fn weak_points_are_refused() {
    let ed25519 = |text: &str| {
        PublicKey::from_raw(Algorithm::Ed25519, &hex::decode(text).expect("hexadecimal"))
    };
    for small in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        assert!(matches!(ed25519(small), Err(KeyError::Weak)), "{small}");
    }
    // y + p, for y = 0, 1 and 18: the largest that fits.
    for first in ["ed", "ee", "ff"] {
        for last in ["7f", "ff"] {
            let text = format!("{first}{}{last}", "ff".repeat(30));
            assert!(matches!(ed25519(&text), Err(KeyError::Weak)), "{text}");
        }
    }
    assert!(matches!(ed25519("00"), Err(KeyError::Weak)));
    // RFC 8032, "Test Vectors for Ed25519", TEST 1.
    assert!(ed25519("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").is_ok());

    let good = holder("alice", Algorithm::P256).key.public().to_pem();
    let der = der::pem::decode_vec(good.as_bytes()).expect("PEM").1;
    let point = &der[der.len() - 65..];
    assert!(PublicKey::from_raw(Algorithm::P256, point).is_ok());
    let mut off_curve = point.to_vec();
    off_curve[64] ^= 1;
    assert!(matches!(PublicKey::from_raw(Algorithm::P256, &off_curve), Err(KeyError::Rejected(_))));
    for wrong in [&[0][..], &[4][..], &point[..33], &point[1..], &[&[2], &point[1..33]].concat()] {
        assert!(matches!(PublicKey::from_raw(Algorithm::P256, wrong), Err(KeyError::PointForm)));
    }
}
