//! Public lists with known PCRs.

use std::{fs, process::Command};

use appraisal::ima::{IMA_PCR, ListReplay, TemplateHashing};
use proto::ima::{
    BankAlg, ByteOrder, FileSignature, ImaEntry, ImaHashAlg, ImaListReader, ListEnd, ListFormat,
    SignatureForm,
};

use soft_tpm::{ima::ImaKernel, vectors_dir};

use crate::support::{boot_pcr, booted};

const FOLDER: &str = "kgoldman+ibmtss/ima";

fn vector(name: &str) -> Option<Vec<u8>> {
    let file = vectors_dir()?.join(FOLDER).join(name);
    Some(fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
}

fn entries(list: &[u8], format: ListFormat) -> Vec<ImaEntry<'_>> {
    let mut reader = ImaListReader::new(list, format);
    let entries: Vec<_> = reader.by_ref().map(|entry| entry.expect("well-formed")).collect();
    assert_eq!(reader.end(), ListEnd::Complete);
    entries
}

/// One kernel's list with template digests of each algorithm in turn: all replay to the same PCRs.
#[test]
fn lists_of_every_recorded_algorithm_replay_to_the_known_pcrs() {
    let Some(known) = vector("imakvtpcr10.txt") else { return };
    let known = String::from_utf8(known).expect("text");
    let known: Vec<Vec<u8>> = known
        .lines()
        .filter_map(|line| line.trim().strip_prefix("PCR 10:"))
        .map(|line| hex::decode(line.replace(' ', "")).expect("hexadecimal"))
        .collect();
    assert_eq!(known.len(), 4);
    for alg in BankAlg::ALL {
        let Some(list) = vector(&format!("ima_{alg}.log")) else { return };
        let format = ListFormat { order: ByteOrder::Little, recorded: alg };
        assert_eq!(ListFormat::detect(&list), Some(format));
        let mut replay = ListReplay::new(IMA_PCR, &BankAlg::ALL);
        for entry in entries(&list, format) {
            replay.push(&entry).expect("digests are those of the fields");
        }
        for (bank, known) in BankAlg::ALL.into_iter().zip(&known) {
            let value = replay.value(bank, TemplateHashing::PerBank).expect("replayed");
            assert_eq!(value.as_bytes(), known, "{bank} bank of ima_{alg}.log");
        }
        assert_eq!((replay.entries(), replay.violations()), (362, 0));
    }
}

/// A list of made-up and of real templates: each entry has the digest of its fields, but for the one of
/// zeros, which is a violation. (The publisher's own check is said to find every digest right; it passes
/// over violations too.)
#[test]
fn every_entry_of_custom_templates_has_its_digest() {
    let Some(list) = vector("imatest.log") else { return };
    let format = ListFormat { order: ByteOrder::Little, recorded: BankAlg::Sha1 };
    assert_eq!(ListFormat::detect(&list), Some(format));
    let entries = entries(&list, format);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.has_right_digest(), index != 6, "entry {index}");
        assert_eq!(entry.is_violation, index == 6, "entry {index}");
    }
    let templates: Vec<&str> =
        entries.iter().map(|entry| entry.template.untrusted_name()).collect();
    let expected = [
        "d-ng|sig",
        "n-ng|d-ng",
        "n-ng|sig|d-ng",
        "n-ng|sig",
        "n",
        "sig",
        "ima",
        "ima-ng",
        "ima-sig",
        "ima-modsig",
        "ima-sig",
        "ima-sig",
        "ima-sigv2",
        "ima-buf",
        "evm-sig",
        "ima-ngv2",
        "ima-modsig",
    ];
    assert_eq!(templates, expected);
    let fields = |index: usize| *entries[index].vouched().expect("no violation");
    let buffer = fields(13);
    let hashed = BankAlg::Sha256.hash(&[buffer.buffer.expect("a buffer")]);
    assert_eq!(hashed.as_bytes(), buffer.digest.expect("a digest").bytes);
    assert_eq!(buffer.name, Some(b".builtin_trusted_keys".as_slice()));
    let signature = FileSignature::parse(fields(10).signature.expect("signed")).expect("read");
    assert_eq!((signature.form, signature.algorithm), (SignatureForm::V2, ImaHashAlg::Sha256));
    assert_eq!(signature.key_id, [0x6e, 0x6c, 0x10, 0x46]);
    assert_eq!(signature.value.len(), 256, "RSA-2048");
    assert!(fields(11).signature.is_some_and(|value| FileSignature::parse(value).is_ok()), "ECDSA");
    assert_eq!(fields(12).signature, None, "an empty field is no signature");
    assert!(fields(16).modsig.is_some() && fields(16).modsig_digest.is_some());
    let inode = fields(14);
    assert!(inode.evm_signature.is_some() && inode.xattr_names.is_some());
    assert_eq!(inode.mode.map(|mode| mode & 0o170_000), Some(0o100_000), "a regular file");
}

/// Where `evmctl` (ima-evm-utils) is installed, it agrees on our lists' PCRs, padded and rehashed, and on
/// their boot_aggregate.
#[test]
fn evmctl_agrees_on_the_pcrs_of_made_up_lists() {
    if Command::new("evmctl").arg("--version").output().is_err() {
        println!("skipped: evmctl is not installed");
        return;
    }
    let folder = std::env::temp_dir().join(format!("assay-ima-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    for is_padding in [false, true] {
        let kernel = ImaKernel { is_padding, ..ImaKernel::default() };
        let mut list = booted(kernel);
        for (number, template) in (1_u8..).zip(["ima-ng", "ima-sig", "ima-ngv2"]) {
            list.file(template, "sha256", &[number; 32], &format!("/usr/bin/{number}"), &[]);
        }
        let file = folder.join("list");
        fs::write(&file, list.bytes()).expect("written");
        let pcrs = folder.join("pcrs");
        let lines: Vec<String> = (0..24)
            .map(|index| {
                let value = match index {
                    0..=9 => boot_pcr(BankAlg::Sha256, index).as_bytes().to_vec(),
                    10 => list.pcr("sha256").to_vec(),
                    _ => vec![0; 32],
                };
                let value: String = value.iter().map(|byte| format!("{byte:02X} ")).collect();
                format!("PCR-{index:02}: {value}")
            })
            .collect();
        fs::write(&pcrs, lines.join("\n") + "\n").expect("written");
        let pcrs = format!("sha256,{}", pcrs.display());
        let list_file = file.to_str().expect("text");
        let said = evmctl(&["ima_measurement", "-v", "--pcrs", &pcrs, list_file]);
        assert!(said.contains(&hex::encode(list.pcr("sha256"))), "{is_padding}: {said}");
        let aggregate = entries(list.bytes(), ListFormat::ALL[0])[0];
        let aggregate = aggregate.vouched().and_then(|fields| fields.digest).expect("a digest");
        let said = evmctl(&["ima_boot_aggregate", "--pcrs", &pcrs]);
        assert!(said.contains(&hex::encode(aggregate.bytes)), "{aggregate}: {said}");
    }
    fs::remove_dir_all(&folder).expect("removed");
}

/// What evmctl says, if it succeeds: which it does not where a list and PCRs differ.
fn evmctl(arguments: &[&str]) -> String {
    let output = Command::new("evmctl").args(arguments).output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}
