//! Golden predict against machines that boot what was predicted.

use std::fs;

use appraisal::{
    policy::document::GoldenDocument,
    predict::{Prediction, Update, What, predict},
};
use proto::{
    digest::{Digest, HashAlg},
    eventlog::{Event, EventLog},
};
use swtpm_tests::{
    cluster::AnyError,
    machine::{Guest, Image, MachineError, Site},
};

/// PCRs that an image and what is in it are measured into.
const OF_IMAGES: [u8; 4] = [4, 9, 11, 12];

/// An image of which nothing is as before, and with sections that the stub hands to the kernel as archives.
pub(super) fn everything_new(image: Image) -> Result<Image, MachineError> {
    let image = image
        .append_command_line("lockdown=none")
        .with_file("/etc/profile", b"# of the update\n")
        .with_section(".pcrsig", br#"{"sha256":[]}"#)
        .with_section(".pcrpkey", b"-----BEGIN PUBLIC KEY-----\n");
    image.with_other_kernel()
}

/// What a golden set captured from this node would be, in every bank of this guest.
pub(super) async fn captured(
    site: &Site,
    node: &str,
    guest: &mut Guest,
) -> Result<GoldenDocument, AnyError> {
    let golden = site.cluster.captured(node).await?;
    in_all_banks(&golden, &guest.read(super::FIRMWARE_LOG).await?)
}

/// Workers quote SHA-256 alone here. The same rules for SHA-384, whose digests stand in the same log.
fn in_all_banks(golden: &str, log: &[u8]) -> Result<GoldenDocument, AnyError> {
    let mut golden: GoldenDocument = toml::from_str(golden)?;
    let log = EventLog::parse(log)?;
    let bank = HashAlg::Sha384;
    let digests = |index: u8| {
        let is_it = move |event: &&Event<'_>| {
            event.is_extended() && event.pcr.is_some_and(|pcr| pcr.get() == index)
        };
        let digest = |event: &Event<'_>| event.digest(bank.into());
        log.events().iter().filter(is_it).filter_map(digest).map(|d| hex::encode(d.as_bytes()))
    };
    let of_images = |index: u8| OF_IMAGES.contains(&index);
    for mut rule in golden.pcr.clone().into_iter().filter(|rule| of_images(rule.index)) {
        rule.bank = bank;
        let accepted = rule.accept.first_mut().ok_or("no value")?;
        for (event, digest) in accepted.events.iter_mut().zip(digests(rule.index)) {
            event.digest = digest;
        }
        accepted.value = extended(bank, digests(rule.index)).ok_or("a digest")?;
        golden.pcr.push(rule);
    }
    for mut rule in golden.events.clone().into_iter().filter(|rule| of_images(rule.index)) {
        rule.bank = bank;
        for (event, digest) in rule.accept.iter_mut().zip(digests(rule.index)) {
            event.digest = digest;
        }
        golden.events.push(rule);
    }
    Ok(golden)
}

fn extended(bank: HashAlg, digests: impl Iterator<Item = String>) -> Option<String> {
    let mut value = Digest::zero(bank);
    for digest in digests {
        value = value.extended(&Digest::new(bank, &hex::decode(digest).ok()?).ok()?);
    }
    Some(hex::encode(value.as_bytes()))
}

/// The prediction from a golden set for the first image and from both images, and the running boot of the second: each
/// PCR of images has the predicted value, in every bank, or where nothing is predicted the captured one.
pub(super) async fn agrees(
    golden: &GoldenDocument,
    (old, new): (&Image, &Image),
    guest: &mut Guest,
) -> Result<(), AnyError> {
    let (old, new) = (fs::read(old.build()?)?, fs::read(new.build()?)?);
    let update = |old| Update { what: What::Uki { old, new: &new }, label: "test".into() };
    let prediction = predict(golden, &update(Some(&old)))?;
    if !prediction.gaps.is_empty() {
        return Err(format!("not predicted: {:?}", prediction.gaps).into());
    }
    // One image was booted: what its events are is clear without it.
    let without = predict(golden, &update(None))?;
    if without != prediction {
        return Err(format!("{prediction:#?}, without the old image {without:#?}").into());
    }
    for bank in [HashAlg::Sha256, HashAlg::Sha384] {
        for index in OF_IMAGES {
            let found = guest.read(&format!("/sys/class/tpm/tpm0/pcr-{bank}/{index}")).await?;
            let found = String::from_utf8(found)?.trim().to_ascii_lowercase();
            let expected = value(&prediction, bank, index)
                .or_else(|| value(&unchanged(golden), bank, index))
                .unwrap_or_else(|| hex::encode(Digest::zero(bank).as_bytes()));
            if found != expected {
                return Err(format!("PCR {index} ({bank}): {found}, predicted {expected}").into());
            }
        }
    }
    Ok(())
}

fn unchanged(golden: &GoldenDocument) -> Prediction {
    let (pcr, events) = (golden.pcr.clone(), golden.events.clone());
    Prediction { pcr, events, ..Prediction::default() }
}

/// The one value, or where events are listed what they lead to: this machine's list has each once and in order.
fn value(rules: &Prediction, bank: HashAlg, index: u8) -> Option<String> {
    if let Some(rule) = rules.pcr.iter().find(|rule| (rule.bank, rule.index) == (bank, index)) {
        return rule.accept.first().map(|accepted| accepted.value.clone());
    }
    let rule = rules.events.iter().find(|rule| (rule.bank, rule.index) == (bank, index))?;
    extended(bank, rule.accept.iter().map(|event| event.digest.clone()))
}
