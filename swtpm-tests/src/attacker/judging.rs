//! Golden sets that read the logs of firmware and kernel, from what the honest machine proves.

use appraisal::{
    boot::{BootDocument, BootLog},
    boot_log::BootFacts,
    ima::{Manifest, ManifestBuilder},
    policy::{
        document::{AcceptedDigest, GoldenDocument, SectionRule},
        key_digest,
    },
};
use attestor::tpm::EkPreference;
use proto::digest::{Digest, HashAlg};
use verifier::store::NewManifest;

use super::{logs::LISTED, machine::Machine};
use crate::cluster::{AnyError, Cluster, Tools};

/// Every kind of rule about what booted, met by the honest machine with its firmware's log.
///
/// PCR 4, 7 and 11 are judged by what the log proves and by no value, so that a row ends with the rule's own code.
///
/// # Errors
/// Whatever a part says.
pub async fn boot_rules(
    cluster: &Cluster,
    machine: &mut Machine,
    tools: &mut Tools,
) -> Result<GoldenDocument, AnyError> {
    machine.boot()?;
    tools.firmware_log(&machine.firmware_log)?;
    let mut worker = cluster.worker_with(&machine.tpm.tcti(), tools, EkPreference::Auto).await?;
    worker.admitted().await;
    worker.stop().await;
    tools.no_firmware_log();
    let mut golden: GoldenDocument =
        toml::from_str(&cluster.golden_from("w1", |text| text).await?)?;
    let facts = facts(cluster).await?;
    golden.pcr.retain(|rule| [0, 2].contains(&rule.index));
    golden.events.retain(|rule| rule.index == 9);
    for event in golden.events.iter_mut().flat_map(|rule| &mut rule.accept) {
        event.required = true;
    }
    let boot = &mut golden.boot;
    boot.signers = accepted(facts.authorities.iter().map(|authority| authority.digest.as_str()))?;
    let dbx = facts.dbx.iter().flat_map(|dbx| &dbx.entries);
    boot.keys.dbx = accepted(dbx.map(|entry| entry.digest.as_str()))?;
    boot.sections = facts
        .uki_sections
        .iter()
        .filter(|section| section.name != ".cmdline")
        .map(|section| SectionRule {
            name: section.name.clone(),
            accept: vec![AcceptedDigest { digest: section.digest, what: None }],
        })
        .collect();
    let read = [&boot.applications, &boot.signers, &boot.keys.pk, &boot.keys.db, &boot.keys.dbx];
    if read.iter().any(|list| list.is_empty()) || golden.events.len() != 1 {
        return Err(format!("the honest machine proves too little: {golden:?}").into());
    }
    Ok(golden)
}

/// What the honest machine's log proved.
async fn facts(cluster: &Cluster) -> Result<BootFacts, AnyError> {
    for (boot, _) in cluster.store().boots("w1").await? {
        let document: BootDocument = serde_json::from_slice(&boot.record)?;
        if let BootLog::Proven(log) = document.boot_log {
            return Ok(log.facts.clone());
        }
    }
    Err("no boot of w1 proved its log".into())
}

fn accepted<'d>(digests: impl Iterator<Item = &'d str>) -> Result<Vec<AcceptedDigest>, AnyError> {
    digests
        .map(|digest| Ok(AcceptedDigest { digest: key_digest(digest).parse()?, what: None }))
        .collect()
}

/// Imports the manifest of what the honest kernel measures.
///
/// # Errors
/// The store.
pub async fn import_manifest(cluster: &Cluster) -> Result<Digest, AnyError> {
    let mut builder = ManifestBuilder::new();
    for file in LISTED {
        builder.file(&HashAlg::Sha256.hash(&[file.as_bytes()]), file.as_bytes());
    }
    let text = builder.to_text("base", 0);
    let manifest = Manifest::parse(text.as_bytes())?;
    let name = manifest.name().to_owned();
    let document =
        NewManifest { name, files: u64::try_from(LISTED.len())?, document: text.into_bytes() };
    cluster.store().import_manifest(document, cluster.by()).await?;
    Ok(*manifest.id())
}
