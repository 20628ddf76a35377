mod logs;
mod updating;

use proto::digest::Digest;

use super::{pe::PeError, sample::Sample, *};
use crate::{
    boot_log::PHASES,
    policy::document::{AcceptedEvent, AcceptedValue, RecordedEvent},
};

const BANKS: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha384];
const STUB: &str = "252.39-1~deb12u2";
const PAYLOAD: &str = "boot application VenMedia(55c5d1f8-04cd-46b5-8a20-e56cbb3052d0)";

/// What one image is made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    command_line: &'a str,
    initrd: &'a [u8],
    kernel: &'a [u8],
}

const OLD: Parts<'_> = Parts { command_line: "quiet", initrd: b"old initrd", kernel: b"old" };
const NEW: Parts<'_> = Parts { command_line: "debug", initrd: b"new initrd", kernel: b"new" };

fn kernel_image(parts: Parts<'_>) -> Sample {
    Sample::default().section(".text", parts.kernel)
}

fn sample(parts: Parts<'_>) -> Sample {
    Sample::uki(STUB, &kernel_image(parts))
        .section(".osrel", b"ID=test")
        .section(".cmdline", parts.command_line.as_bytes())
        .section(".initrd", parts.initrd)
        .section(".sbat", b"stub's own")
}

fn image(parts: Parts<'_>) -> Vec<u8> {
    sample(parts).build()
}

/// An event in words, and its digest in a bank: told here without the code under test.
type Event = (String, Box<dyn Fn(HashAlg) -> Digest>);

fn event(what: &str, bytes: impl Into<Vec<u8>>) -> Event {
    let bytes = bytes.into();
    (what.to_owned(), Box::new(move |bank| bank.hash(&[&bytes])))
}

fn application_event(what: &str, image: Vec<u8>) -> Event {
    let digest = move |bank| Image::parse(&image).expect("an image").authenticode(bank);
    (what.to_owned(), Box::new(digest))
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn pcr_4(parts: Parts<'_>) -> Vec<Event> {
    vec![
        event("action", "Calling EFI Application from Boot Option"),
        event("separator", [0; 4]),
        application_event("boot application \\A.EFI", image(parts)),
    ]
}

fn pcr_9(parts: Parts<'_>) -> Vec<Event> {
    vec![
        event("kernel command line", ucs2(&format!("{}\0", parts.command_line))),
        event("initial RAM disk", parts.initrd),
    ]
}

fn pcr_11(parts: Parts<'_>) -> Vec<Event> {
    let kernel = kernel_image(parts).build();
    let contents: [(&str, &[u8]); 4] = [
        (".linux", &kernel),
        (".osrel", b"ID=test"),
        (".cmdline", parts.command_line.as_bytes()),
        (".initrd", parts.initrd),
    ];
    let pair = |(name, content): (&str, &[u8])| {
        let words = format!("kernel image section {name}");
        [event(&words, format!("{name}\0")), event(&words, content)]
    };
    contents.into_iter().flat_map(pair).collect()
}

fn value(bank: HashAlg, events: &[Event]) -> String {
    let zero = Digest::zero(bank);
    let value = events.iter().fold(zero, |value, (_, digest)| value.extended(&digest(bank)));
    hex::encode(value.as_bytes())
}

fn accepted(bank: HashAlg, events: &[Event]) -> AcceptedValue {
    let recorded = events.iter().map(|(what, digest)| RecordedEvent {
        digest: hex::encode(digest(bank).as_bytes()),
        what: what.clone(),
    });
    AcceptedValue {
        value: value(bank, events),
        events: recorded.collect(),
        ..AcceptedValue::default()
    }
}

fn rules(index: u8, alternatives: &[Vec<Event>]) -> Vec<PcrRule> {
    let rule = |bank| {
        let accept = alternatives.iter().map(|events| accepted(bank, events)).collect();
        PcrRule { bank, index, accept }
    };
    BANKS.map(rule).to_vec()
}

fn event_rule(bank: HashAlg, index: u8, events: &[Event]) -> EventRule {
    let accept = events.iter().map(|(what, digest)| AcceptedEvent {
        digest: hex::encode(digest(bank).as_bytes()),
        what: Some(what.clone()),
        required: false,
    });
    EventRule { bank, index, why: None, accept: accept.collect() }
}

/// Rules of a base.
#[derive(Default)]
struct Base {
    pcr: Vec<PcrRule>,
    events: Vec<EventRule>,
    boot: BootRules,
}

impl Base {
    fn values(index: u8, alternatives: &[Vec<Event>]) -> Self {
        Self { pcr: rules(index, alternatives), ..Self::default() }
    }

    fn and(mut self, index: u8, alternatives: &[Vec<Event>]) -> Self {
        self.pcr.extend(rules(index, alternatives));
        self
    }

    fn events(index: u8, events: &[Event]) -> Self {
        let rules = BANKS.map(|bank| event_rule(bank, index, events));
        Self { events: rules.to_vec(), ..Self::default() }
    }

    fn predict(&self, what: What<'_>) -> Result<Prediction, PredictError> {
        let base = BaseRules { pcr: &self.pcr, events: &self.events, boot: &self.boot };
        predict(base, &Update { what, label: "new.efi".into() })
    }

    /// From the old image and, if the update tells it, without: both agree.
    fn update(&self, old: &[u8], new: &[u8]) -> Prediction {
        let prediction = self.predict(What::Uki { old: Some(old), new }).expect("a prediction");
        assert_eq!(self.predict(What::Uki { old: None, new }), Ok(prediction.clone()));
        prediction
    }

    /// Why each PCR has no prediction, the same in each bank.
    fn gap(&self, what: What<'_>) -> GapReason {
        let prediction = self.predict(what).expect("a prediction");
        assert_eq!((prediction.pcr.len(), prediction.events.len()), (0, 0));
        let reasons: Vec<_> = prediction.gaps.into_iter().map(|gap| gap.why).collect();
        assert_eq!(reasons.len(), BANKS.len());
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
        reasons[0].clone()
    }
}

fn predicted(prediction: &Prediction, index: u8) -> Vec<Vec<String>> {
    assert_eq!(prediction.gaps, []);
    let rules = prediction.pcr.iter().filter(|rule| rule.index == index);
    rules.map(|rule| rule.accept.iter().map(|value| value.value.clone()).collect()).collect()
}

fn values(events: &[Event]) -> Vec<Vec<String>> {
    BANKS.map(|bank| vec![value(bank, events)]).to_vec()
}

#[test]
fn each_pcr_of_an_image_is_predicted_in_each_bank() {
    let base = Base::values(4, &[pcr_4(OLD)])
        .and(7, &[vec![event("firmware variable", "SecureBoot")]])
        .and(9, &[pcr_9(OLD)])
        .and(11, &[pcr_11(OLD)]);
    let prediction = base.update(&image(OLD), &image(NEW));
    for (index, events) in [(4, pcr_4(NEW)), (9, pcr_9(NEW)), (11, pcr_11(NEW))] {
        assert_eq!(predicted(&prediction, index), values(&events), "PCR {index}");
    }
    assert!(predicted(&prediction, 7).is_empty());
    let first = &prediction.pcr[0].accept[0];
    assert_eq!(first.from.as_deref(), Some("predicted: new.efi"));
    assert_eq!(first.events.len(), 3);
    assert_eq!(first.events[2].what, "boot application \\A.EFI");
    // From the prediction the next one: it is recorded as a boot is.
    let next = Base { pcr: prediction.pcr, ..Base::default() };
    let back = next.update(&image(NEW), &image(OLD));
    assert_eq!(predicted(&back, 11), values(&pcr_11(OLD)));
}

#[test]
fn nothing_changes_where_nothing_is_new() {
    let base = Base::values(4, &[pcr_4(OLD)]).and(11, &[pcr_11(OLD)]);
    let same = sample(OLD).signed(b"another signature").build();
    assert_eq!(base.update(&image(OLD), &same).pcr, []);
}

#[test]
fn phases_behind_the_sections_stay() {
    let with_phases = |parts| {
        let mut events = pcr_11(parts);
        events.extend(PHASES[2..4].iter().map(|phase| event("systemd", *phase)));
        events
    };
    let base = Base::values(11, &[with_phases(OLD)]);
    let prediction = base.update(&image(OLD), &image(NEW));
    assert_eq!(predicted(&prediction, 11), values(&with_phases(NEW)));
}

#[test]
fn each_alternative_that_has_the_old_image_leads_to_a_value() {
    let with_other_loader = |parts| {
        let mut events = pcr_4(parts);
        events.insert(2, event("boot application \\LOADER.EFI", "a loader"));
        events
    };
    let other = Parts { command_line: "single", ..OLD };
    let base = Base::values(4, &[pcr_4(OLD), with_other_loader(OLD), pcr_4(other)]);
    let (old, new) = (image(OLD), image(NEW));
    let prediction = base.predict(What::Uki { old: Some(&old), new: &new }).expect("a prediction");
    let expected =
        BANKS.map(|bank| vec![value(bank, &pcr_4(NEW)), value(bank, &with_other_loader(NEW))]);
    assert_eq!(predicted(&prediction, 4), expected);
}

#[test]
fn the_kernel_inside_is_replaced_where_firmware_measured_one() {
    let with_kernel = |parts| {
        let mut events = pcr_4(parts);
        events.push(application_event(PAYLOAD, kernel_image(parts).build()));
        events
    };
    let base = Base::values(4, &[with_kernel(OLD)]);
    let prediction = base.update(&image(OLD), &image(NEW));
    assert_eq!(predicted(&prediction, 4), values(&with_kernel(NEW)));
}

#[test]
fn what_the_old_image_had_none_of_is_added_in_its_place() {
    let without = |parts| Sample::uki(STUB, &kernel_image(parts)).section(".cmdline", b"quiet");
    let options = || event("kernel command line", ucs2("quiet\0"));
    let base = Base::values(9, &[vec![options()]]);
    let new = without(NEW).section(".initrd", b"an initrd").build();
    let prediction = base.update(&without(OLD).build(), &new);
    let both = [options(), event("initial RAM disk", "an initrd")];
    assert_eq!(predicted(&prediction, 9), values(&both));
}

#[test]
fn archives_of_sections_stand_behind_the_initrd() {
    let new = sample(NEW).section(".pcrsig", b"{}").section(".pcrpkey", b"a key").build();
    let mut initrd = NEW.initrd.to_vec();
    initrd.resize(12, 0);
    initrd.extend(cpio::extra_file("tpm2-pcr-signature.json", b"{}"));
    initrd.extend(cpio::extra_file("tpm2-pcr-public-key.pem", b"a key"));
    let base = Base::values(9, &[pcr_9(OLD)]).and(11, &[pcr_11(OLD)]);
    let prediction = base.update(&image(OLD), &new);
    let mut events = pcr_9(NEW);
    events[1] = event("initial RAM disk", initrd);
    assert_eq!(predicted(&prediction, 9), values(&events));
    let mut events = pcr_11(NEW);
    let words = "kernel image section .pcrpkey";
    events.extend([event(words, ".pcrpkey\0"), event(words, "a key")]);
    assert_eq!(predicted(&prediction, 11), values(&events));
}

#[test]
fn newer_stubs_measure_more_sections() {
    let uki = |version| {
        let sample = Sample::uki(version, &kernel_image(NEW)).section(".cmdline", b"quiet");
        sample.section(".uname", b"6.1").section(".sbat", b"sbat,1").build()
    };
    let (old, sections) = (uki("252"), |image: &[u8]| {
        let events = Uki::parse(image).expect("an image").measured(&BANKS).expect("events");
        let name = |event: &Measured| match event.role {
            Role::Section(name) => Some(name),
            _ => None,
        };
        events.iter().filter_map(name).collect::<Vec<_>>()
    });
    assert_eq!(sections(&old), [".linux", ".cmdline"]);
    assert_eq!(sections(&uki("254.1")), [".linux", ".cmdline", ".uname", ".sbat"]);
    assert_eq!(
        Uki::parse(&uki("251")).expect_err("too old"),
        ArtifactError::OldStub { version: 251 }
    );
}

#[test]
fn what_depends_on_the_machine_is_not_guessed() {
    let (old, base) = (image(OLD), Base::values(11, &[pcr_11(OLD)]));
    let new = Sample::uki("257", &kernel_image(NEW)).section(".profile", b"ID=a").build();
    let unknown = Unknown::DependsOnMachine { section: ".profile" };
    let what = "kernel image section .profile".to_owned();
    let gap = base.gap(What::Uki { old: Some(&old), new: &new });
    assert_eq!(gap, GapReason::Unknown { what, why: unknown });
    let base = Base::values(9, &[pcr_9(OLD)]);
    let new = Sample::uki("257", &kernel_image(NEW)).section(".osrel", b"ID=a").build();
    let why = Unknown::GeneratedInitrd { version: 257 };
    let gap = base.gap(What::Uki { old: Some(&old), new: &new });
    assert_eq!(gap, GapReason::Unknown { what: "initial RAM disk".into(), why });
}

#[test]
fn an_initrd_with_something_from_outside_is_not_guessed() {
    let merged = vec![
        event("kernel command line", ucs2("quiet\0")),
        event("initial RAM disk", "old initrd and credentials"),
    ];
    let (old, new) = (image(OLD), image(NEW));
    let base = Base::values(9, &[merged]);
    let outside = |what: &str| GapReason::Unknown { what: what.into(), why: Unknown::Outside };
    let gap = base.gap(What::Uki { old: Some(&old), new: &new });
    assert_eq!(gap, outside("initial RAM disk"));
    // Without the old image, PCR 12 tells.
    let mut base = Base::values(9, &[pcr_9(OLD)]);
    base.pcr.extend(rules(12, &[vec![event("Credentials initrd", "a secret")]]));
    let gap = base.gap(What::Uki { old: None, new: &new });
    assert_eq!(gap, outside("kernel command line"));
}

#[test]
fn without_a_record_nothing_is_predicted() {
    let mut base = Base::values(4, &[pcr_4(OLD)]);
    for rule in &mut base.pcr {
        rule.accept[0].events.clear();
    }
    let (old, new) = (image(OLD), image(NEW));
    assert_eq!(base.gap(What::Uki { old: Some(&old), new: &new }), GapReason::NoEvents);
}

#[test]
fn an_old_image_that_was_not_captured_is_an_error() {
    let base = Base::values(4, &[pcr_4(OLD)]).and(11, &[pcr_11(OLD)]);
    let (other, new) = (image(Parts { kernel: b"other", ..OLD }), image(NEW));
    let outcome = base.predict(What::Uki { old: Some(&other), new: &new });
    assert_eq!(outcome, Err(PredictError::OldNotInSet));
}

#[test]
fn an_image_that_shares_the_kernel_inside_is_not_the_old_one() {
    let mut events = pcr_4(OLD);
    events.push(application_event(PAYLOAD, kernel_image(OLD).build()));
    let base = Base::values(4, &[events]);
    let (other, new) = (image(Parts { command_line: "other", ..OLD }), image(NEW));
    let outcome = base.predict(What::Uki { old: Some(&other), new: &new });
    assert_eq!(outcome, Err(PredictError::OldNotInSet));
}

#[test]
fn of_several_applications_none_is_chosen() {
    let mut events = pcr_4(OLD);
    events.insert(2, event("boot application \\LOADER.EFI", "a loader"));
    let base = Base::values(4, &[events]);
    let new = image(NEW);
    let candidates =
        vec!["boot application \\LOADER.EFI".into(), "boot application \\A.EFI".into()];
    let gap = base.gap(What::Uki { old: None, new: &new });
    assert_eq!(gap, GapReason::Ambiguous { candidates });
}

#[test]
fn lists_of_events_keep_what_is_not_of_the_image() {
    let phases = || PHASES.iter().map(|phase| event("systemd", *phase));
    let listed = |parts| pcr_11(parts).into_iter().chain(phases()).collect::<Vec<_>>();
    let base = Base::events(11, &listed(OLD));
    let prediction = base.update(&image(OLD), &image(NEW));
    let expected = BANKS.map(|bank| event_rule(bank, 11, &listed(NEW)));
    assert_eq!(prediction.events, expected);

    let mut other = Base::events(9, &pcr_9(OLD));
    other.events[0].accept[1].required = true;
    let prediction = other.update(&image(OLD), &image(NEW));
    let mut expected = BANKS.map(|bank| event_rule(bank, 9, &pcr_9(NEW)));
    expected[0].accept[1].required = true;
    assert_eq!(prediction.events, expected);
}

#[test]
fn an_image_without_signature_is_told_where_secure_boot_is_demanded() {
    let mut base = Base::values(4, &[pcr_4(OLD)]);
    base.boot.secure_boot = Some(true);
    let notes = |new: &[u8]| base.update(&image(OLD), new).notes;
    assert!(notes(&image(NEW)).iter().any(|note| note.contains("no signature")));
    assert_eq!(notes(&sample(NEW).signed(b"a signature").build()), [""; 0]);
}

#[test]
fn a_kernel_is_predicted_with_what_is_handed_to_it() {
    let file = |parts: Parts<'static>| kernel_image(parts).build();
    let (old_file, new_file) = (file(OLD), file(NEW));
    let kernel = |image, parts: Parts<'static>| Kernel {
        image,
        initrd: Some(parts.initrd),
        command_line: parts.command_line,
    };
    let (old, new) = (kernel(old_file.as_slice(), OLD), kernel(new_file.as_slice(), NEW));
    let loader = || event("boot application \\LOADER.EFI", "a loader");
    let chain =
        |parts: Parts<'static>| vec![loader(), application_event("boot application", file(parts))];
    let words = |parts: Parts<'_>| format!("kernel command line {:?}", parts.command_line);
    let told =
        |parts: Parts<'_>| vec![event(&words(parts), ucs2(&format!("{}\0", parts.command_line)))];
    let base = Base::values(4, &[chain(OLD)]).and(9, &[pcr_9(OLD)]).and(12, &[told(OLD)]);
    let prediction = base.predict(What::Kernel { old: Some(old), new }).expect("a prediction");
    assert_eq!(predicted(&prediction, 4), values(&chain(NEW)));
    assert_eq!(predicted(&prediction, 9), values(&pcr_9(NEW)));
    assert_eq!(predicted(&prediction, 12), values(&told(NEW)));
    // GRUB reads files and starts the kernel past its stub.
    let files = |parts: Parts<'static>| {
        let read = |name: &str, bytes: Vec<u8>| event(name, bytes);
        vec![
            read("grub.cfg", b"menu".to_vec()),
            read("vmlinuz", file(parts)),
            read("initrd", parts.initrd.to_vec()),
        ]
    };
    let base = Base::values(9, &[files(OLD)]);
    let prediction = base.predict(What::Kernel { old: Some(old), new }).expect("a prediction");
    assert_eq!(predicted(&prediction, 9), values(&files(NEW)));
}

#[test]
fn a_chain_of_boot_loaders_is_replaced_one_for_one() {
    let loader = |text: &[u8]| Sample::default().section(".text", text).build();
    let chain = |shim: &[u8], grub: &[u8]| {
        vec![
            event("separator", [0; 4]),
            application_event("boot application \\SHIM.EFI", loader(shim)),
            application_event("boot application \\GRUB.EFI", loader(grub)),
        ]
    };
    let base = Base::values(4, &[chain(b"shim", b"grub")]);
    let (grub, new_grub, shim) = (loader(b"grub"), loader(b"new grub"), loader(b"shim"));
    let what = What::Applications { old: &[&grub], new: &[&new_grub] };
    let prediction = base.predict(what).expect("a prediction");
    assert_eq!(predicted(&prediction, 4), values(&chain(b"shim", b"new grub")));
    let what = What::Applications { old: &[], new: &[&shim, &new_grub] };
    assert_eq!(base.predict(what), Ok(prediction));
    let what = What::Applications { old: &[], new: &[&new_grub] };
    assert!(matches!(base.gap(what), GapReason::Ambiguous { .. }));
    let what = What::Applications { old: &[&grub], new: &[&shim, &grub] };
    assert_eq!(base.predict(what), Err(PredictError::UnequalChains { old: 1, new: 2 }));
}

#[test]
fn malformed_input_is_named() {
    let (old, new) = (image(OLD), image(NEW));
    let mut base = Base::values(4, &[pcr_4(OLD)]);
    let failed = |which, source| Err(PredictError::Artifact { which, source });
    let no_uki = kernel_image(NEW).build();
    let outcome = base.predict(What::Uki { old: None, new: &no_uki });
    assert_eq!(outcome, failed("the new unified kernel image", ArtifactError::NoKernel));
    let cut = PeError::Truncated { what: "the DOS header", at: 0, len: 2 };
    let outcome = base.predict(What::Uki { old: Some(b"M"), new: &new });
    assert_eq!(outcome, failed("the old unified kernel image", cut.into()));
    base.pcr[0].accept[0].events[1].digest = "00".into();
    let outcome = base.predict(What::Uki { old: Some(&old), new: &new });
    let (bank, text) = (HashAlg::Sha256, "00".to_owned());
    assert_eq!(outcome, Err(PredictError::Digest { bank, index: 4, text }));
}
