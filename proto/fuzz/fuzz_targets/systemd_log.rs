//! systemd's log: a record that is read has digests of their sizes, one a bank, and text is vouched for only by its own
//! hash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::eventlog::{LogAlg, systemd};

fuzz_target!(|data: &[u8]| {
    let Ok(records) = systemd::parse(data) else { return };
    for record in records {
        for alg in LogAlg::ALL {
            assert!(record.digests.iter().filter(|digest| digest.alg() == alg).count() <= 1);
            if let Some(text) = record.vouched_string(alg) {
                assert_eq!(alg.hash(&[text.as_bytes()]), record.digest(alg));
            }
        }
    }
});
