//! Endorsement keys with their chains, against one imported root: whatever is presented, only the
//! certificate that this root's intermediate issued for this EK is ever accepted.
#![no_main]

use std::sync::LazyLock;

use appraisal::{
    ek::{AllowListed, EkPolicy, EkPresented, Profile, verify_ek},
    x509::{Certificate, EndorsementRoots, RevocationRequirement, RootsBuilder},
};
use libfuzzer_sys::fuzz_target;
use proto::tpm::public::Public;

const ROOT: &[u8] = include_bytes!("../fixtures/ek_root.der");
const LEAF: &[u8] = include_bytes!("../fixtures/ek_leaf.der");
const EK: &[u8] = include_bytes!("../fixtures/ek_public.bin");
/// Within the fixtures' validity.
const NOW_UNIX_S: i64 = 1_830_000_000;

static ROOTS: LazyLock<EndorsementRoots> = LazyLock::new(|| {
    let mut builder = RootsBuilder::new();
    let root = Certificate::parse(ROOT).expect("the fixture is a certificate");
    builder.anchor(root).expect("the fixture is an anchor");
    builder.build().0
});

fuzz_target!(|data: &[u8]| {
    // Fields with a length of two bytes: EK public area, certificate, chain.
    let mut fields = Vec::new();
    let mut rest = data;
    while let Some((size, tail)) = rest.split_first_chunk::<2>() {
        let size = usize::from(u16::from_be_bytes(*size)).min(tail.len());
        let (field, tail) = tail.split_at(size);
        fields.push(field);
        rest = tail;
    }
    let [public, certificate, chain @ ..] = fields.as_slice() else { return };
    let Ok(public) = Public::decode(public) else { return };
    let presented = EkPresented { public: &public, certificate: Some(certificate), chain };
    let policy = EkPolicy {
        roots: &ROOTS,
        allow_listed: AllowListed::No,
        now_unix_s: NOW_UNIX_S,
        profile: Profile::AsShipped,
        revocation: RevocationRequirement::default(),
    };
    match verify_ek(&presented, &policy) {
        Ok(trusted) => {
            assert!(certificate.windows(LEAF.len()).any(|part| part == LEAF), "a forged chain");
            let fixture = Public::decode(EK).expect("the fixture is a public area");
            assert_eq!(trusted.digest(), proto::spki::ek_digest(&fixture), "another key");
        }
        Err(denial) => assert_eq!(denial.findings().next().map(|f| f.code), Some(denial.code())),
    }
});
