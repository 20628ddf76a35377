//! Predictions from logs of real machines.

use std::path::Path;

use proto::{
    digest::PcrIndex,
    eventlog::{EventLog, LogAlg},
};

use super::{BANKS, Base, NEW, kernel_image, sample};
use crate::{
    boot_log::describe,
    policy::document::{AcceptedValue, PcrRule, RecordedEvent},
    predict::{GapReason, Kernel, What, replace::STUB_PAYLOAD},
};

/// Rules with what a log has of these PCRs, as capture records it.
fn base(log: &[u8], banks: &[super::HashAlg], indexes: &[u8]) -> Base {
    let log = EventLog::parse(log).expect("a log");
    let mut base = Base::default();
    for (bank, index) in banks.iter().flat_map(|bank| indexes.iter().map(move |i| (*bank, *i))) {
        let of_pcr = |pcr: Option<PcrIndex>| pcr.is_some_and(|pcr| pcr.get() == index);
        let events = log.events().iter().filter(|event| event.is_extended() && of_pcr(event.pcr));
        let events = events.map(|event| RecordedEvent {
            digest: hex::encode(event.digest(LogAlg::from(bank)).expect("a digest").as_bytes()),
            what: describe(event.pcr, event.untrusted_type, event.untrusted_data),
        });
        let accept = vec![AcceptedValue { events: events.collect(), ..AcceptedValue::default() }];
        base.pcr.push(PcrRule { bank, index, accept });
    }
    base
}

/// What the test machine boots: `swtpm-tests/src/machine`.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet ima_policy=tcb";
const OS_RELEASE: &str = "ID=assay-test\nPRETTY_NAME=\"Assay test machine\"\n";

#[test]
fn what_an_update_leaves_as_it_is_keeps_the_digests_of_a_real_boot() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../swtpm-tests/vectors");
    let new = sample(NEW)
        .section(".cmdline", COMMAND_LINE.as_bytes())
        .section(".osrel", OS_RELEASE.as_bytes())
        .build();
    for (name, inner) in [("secure-boot-on", 0), ("secure-boot-off", 1)] {
        let log = std::fs::read(folder.join(format!("{name}.uefi.bin"))).expect("a log");
        let base = base(&log, &BANKS, &[4, 9, 11]);
        let prediction = base.predict(What::Uki { old: None, new: &new }).expect("a prediction");
        assert_eq!((prediction.gaps.len(), prediction.pcr.len()), (0, 6));
        for (old, new) in base.pcr.iter().zip(&prediction.pcr) {
            let (old, new) = (&old.accept[0].events, &new.accept[0].events);
            let changed: Vec<&str> = old
                .iter()
                .zip(new)
                .filter(|(old, new)| old.digest != new.digest)
                .map(|(old, new)| {
                    assert_eq!(old.what, new.what);
                    new.what.as_str()
                })
                .collect();
            match new.first().map(|event| event.what.as_str()) {
                Some("kernel command line") => assert_eq!(changed, ["initial RAM disk"]),
                Some("kernel image section .linux") => assert_eq!(
                    changed,
                    ["kernel image section .linux", "kernel image section .initrd"]
                ),
                _ => {
                    assert_eq!(changed.len(), 1 + inner);
                    assert_eq!(
                        changed.iter().filter(|what| what.contains(STUB_PAYLOAD)).count(),
                        inner
                    );
                }
            }
        }
    }
}

/// systemd-boot and systemd-stub both measured the command line that one gave to the other, with its terminator, and
/// the kernel of that release (6.0) measured its initrd and not its options.
#[test]
fn the_command_line_of_a_boot_loader_is_found_by_its_digest() {
    let Some(folder) = soft_tpm::vectors::vectors_dir() else { return };
    let path = folder.join("tpm2-software+tpm2-tools/eventlogs/event-sd-boot-fedora37.bin");
    let log = std::fs::read(path).expect("a log");
    let base = base(&log, &[super::HashAlg::Sha256], &[9, 12]);
    let image = kernel_image(NEW).build();
    let kernel = |command_line| Kernel { image: &image, initrd: None, command_line };
    let (old, new) = (kernel(" console=ttyS0 console=tty0 efi=debug "), kernel("quiet"));
    let prediction = base.predict(What::Kernel { old: Some(old), new }).expect("a prediction");
    let words: Vec<_> = prediction.gaps.iter().map(|gap| (gap.index, &gap.why)).collect();
    assert_eq!(words, [(9, &GapReason::NotFound)]);
    assert_eq!(prediction.pcr.len(), 1);
    let events = &prediction.pcr[0].accept[0].events;
    let expected = super::HashAlg::Sha256.hash(&[&super::ucs2("quiet\0")]);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.digest == hex::encode(expected.as_bytes())));
}
