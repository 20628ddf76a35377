//! `TPMS_ATTEST`: nothing is believed below a wrong magic, and selections stay within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    limits::MAX_PCR_BANKS,
    tpm::{
        attest::{Attest, Attested},
        constants::TPM_GENERATED,
    },
};

fuzz_target!(|data: &[u8]| {
    let Ok(attest) = Attest::decode(data) else { return };
    if attest.magic != TPM_GENERATED {
        assert!(matches!(attest.attested, Attested::Other(_)));
        assert!(attest.extra_data.is_empty());
    }
    if let Attested::Quote { selection, .. } = &attest.attested {
        assert!(selection.len() <= MAX_PCR_BANKS);
        for (position, bank) in selection.iter().enumerate() {
            let before = selection.iter().take(position);
            assert!(before.into_iter().all(|other| other.hash_alg != bank.hash_alg));
        }
    }
});
