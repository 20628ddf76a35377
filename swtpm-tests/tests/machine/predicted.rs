//! Golden predict against machines that boot what was predicted.

use std::fs;

use appraisal::{
    policy::document::GoldenDocument,
    predict::{Prediction, Update, What, predict},
};
use proto::digest::{Digest, HashAlg};
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

/// What a golden set captured from this node would be.
pub(super) async fn captured(site: &Site, node: &str) -> Result<String, AnyError> {
    let store = site.cluster.store();
    let node = store.node(node).await?.ok_or("no such node")?;
    let pcr = site.cluster.verifier().settings().tool_pcr;
    Ok(verifier::capture::capture(store, &node, "", pcr).await?)
}

/// The prediction from a golden set for the first image and from both images, and the running boot of the second: each
/// PCR of images has the predicted value, in every bank, or where nothing is predicted the captured one.
pub(super) async fn agrees(
    golden: &str,
    (old, new): (&Image, &Image),
    guest: &mut Guest,
) -> Result<(), AnyError> {
    let golden: GoldenDocument = toml::from_str(golden)?;
    let (old, new) = (fs::read(old.build()?)?, fs::read(new.build()?)?);
    let update = |old| Update { what: What::Uki { old, new: &new }, label: "test".into() };
    let prediction = predict(&golden, &update(Some(&old)))?;
    if !prediction.gaps.is_empty() {
        return Err(format!("not predicted: {:?}", prediction.gaps).into());
    }
    // One image was booted: what its events are is clear without it.
    if predict(&golden, &update(None))? != prediction {
        return Err("without the old image the prediction is another".into());
    }
    for bank in [HashAlg::Sha256, HashAlg::Sha384] {
        for index in OF_IMAGES {
            let found = guest.read(&format!("/sys/class/tpm/tpm0/pcr-{bank}/{index}")).await?;
            let found = String::from_utf8(found)?.trim().to_ascii_lowercase();
            let expected = value(&prediction, bank, index)
                .or_else(|| value(&unchanged(&golden), bank, index))
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
    let mut value = Digest::zero(bank);
    for event in &rule.accept {
        let bytes = hex::decode(&event.digest).ok()?;
        value = value.extended(&Digest::new(bank, &bytes).ok()?);
    }
    Some(hex::encode(value.as_bytes()))
}
