//! Imports of files, directories and cabinets.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use soft_tpm::vectors_dir;

use super::*;

/// 2027-01-15.
const NOW: i64 = 1_800_000_000;

/// Root and SHA-1 intermediate of the appraisal core's test chain, PEM.
fn fixture(file: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("appraisal/tests/data/sha1-intermediate");
    fs::read_to_string(dir.join(file)).expect("fixture")
}

fn der(pem_text: &str) -> Vec<u8> {
    let block = pem::blocks(pem_text.as_bytes()).expect("a block").remove(0);
    block.content.expect("base64")
}

fn kinds(import: &Import) -> Vec<(Kind, &str)> {
    import.entries.iter().map(|entry| (entry.kind, entry.label.as_str())).collect()
}

fn write(dir: &Path, file: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
    fs::write(&path, content).expect("written");
    path
}

#[test]
fn pem_bundles_and_der_files() {
    let dir = tempfile::tempdir().expect("directory");
    let (root, intermediate, ek) =
        (fixture("root.pem"), fixture("intermediate.pem"), fixture("ek.pem"));
    let bundle = format!("comment\n{root}\r\n{intermediate}{ek}");
    let path = write(dir.path(), "bundle.pem", bundle);
    let found = import(&path, Placement::Guess).expect("readable");
    assert_eq!(
        kinds(&found),
        [(Kind::Anchor, "bundle.pem#1"), (Kind::Intermediate, "bundle.pem#2")]
    );
    assert_eq!(found.rejected.len(), 1);
    assert_eq!(found.rejected[0].label, "bundle.pem#3");
    assert_eq!(found.rejected[0].reason, "not a CA certificate");

    let path = write(dir.path(), "root.cer", der(&root));
    let found = import(&path, Placement::Guess).expect("readable");
    assert_eq!(kinds(&found), [(Kind::Anchor, "root.cer")]);
    let found = import(&path, Placement::Intermediates).expect("readable");
    assert_eq!(kinds(&found), [(Kind::Intermediate, "root.cer")]);
}

#[test]
fn directories_are_read_recursively_and_their_names_are_hints() {
    let dir = tempfile::tempdir().expect("directory");
    let (root, intermediate) = (fixture("root.pem"), fixture("intermediate.pem"));
    write(dir.path(), "Vendor/RootCA/cross.crt", &intermediate);
    write(dir.path(), "Vendor/IntermediateCA/own.crt", &root);
    write(dir.path(), "Vendor/readme.txt", "hello");
    write(dir.path(), "Vendor/broken.cer", "hello");
    write(dir.path(), "Vendor/broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write(
        dir.path(),
        "Vendor/key.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    );
    std::os::unix::fs::symlink("..", dir.path().join("Vendor/loop")).expect("link");
    let found = import(dir.path(), Placement::Guess).expect("readable");
    assert_eq!(
        kinds(&found),
        [
            (Kind::Anchor, "Vendor/RootCA/cross.crt"),
            (Kind::Intermediate, "Vendor/IntermediateCA/own.crt")
        ]
    );
    assert_eq!(found.ignored, ["Vendor/readme.txt"]);
    let rejected: Vec<&str> = found.rejected.iter().map(|item| item.label.as_str()).collect();
    assert_eq!(rejected, ["Vendor/broken.cer", "Vendor/broken.pem", "Vendor/key.pem"]);

    // The same certificate in both places is an anchor, once.
    write(dir.path(), "Vendor/RootCA/own.crt", &root);
    let found = import(dir.path(), Placement::Guess).expect("readable");
    assert_eq!(found.entries.len(), 2);
    assert!(found.entries.iter().all(|entry| entry.kind == Kind::Anchor));
}

#[test]
fn unreadable_and_oversized_inputs_are_errors() {
    let dir = tempfile::tempdir().expect("directory");
    let missing = import(&dir.path().join("missing"), Placement::Guess);
    assert!(matches!(missing, Err(ImportError::Io { .. })));
    let huge = dir.path().join("huge.pem");
    fs::File::create(&huge).and_then(|file| file.set_len(MAX_FILE_BYTES + 1)).expect("sparse");
    assert!(matches!(import(&huge, Placement::Guess), Err(ImportError::TooLarge(_))));
    assert!(matches!(
        import(Path::new("/dev/null"), Placement::Guess),
        Err(ImportError::NotAFile(_))
    ));
    let mut deep = dir.path().join("deep");
    for _ in 0..=MAX_DIRECTORY_DEPTH {
        deep.push("d");
    }
    fs::create_dir_all(&deep).expect("directories");
    let result = import(&dir.path().join("deep"), Placement::Guess);
    assert!(matches!(result, Err(ImportError::Depth(_))));
}

/// A cabinet in Microsoft's layout.
fn cabinet(files: &[(&str, &[u8])], compression: cab::CompressionType) -> Vec<u8> {
    let mut builder = cab::CabinetBuilder::new();
    let folder = builder.add_folder(compression);
    for (name, _) in files {
        folder.add_file(*name);
    }
    let mut writer = builder.build(Cursor::new(Vec::new())).expect("cabinet");
    let mut contents = files.iter();
    while let Some(mut file) = writer.next_file().expect("cabinet") {
        let (_, content) = contents.next().expect("as many contents as files");
        file.write_all(content).expect("written");
    }
    writer.finish().expect("cabinet").into_inner()
}

#[test]
fn cabinets_are_read() {
    let (root, intermediate) = (der(&fixture("root.pem")), der(&fixture("intermediate.pem")));
    let padding = vec![0x5a; 100_000];
    let files: [(&str, &[u8]); 4] = [
        ("Vendor\\RootCA\\root.cer", &root),
        ("setup.ps1", &padding),
        ("Vendor\\IntermediateCA\\ca.crt", &intermediate),
        ("version.txt", b"1"),
    ];
    let dir = tempfile::tempdir().expect("directory");
    for compression in [cab::CompressionType::None, cab::CompressionType::MsZip] {
        let path = write(dir.path(), "TrustedTpm.cab", cabinet(&files, compression));
        let found = import(&path, Placement::Guess).expect("readable");
        assert_eq!(
            kinds(&found),
            [
                (Kind::Anchor, "TrustedTpm.cab:Vendor/RootCA/root.cer"),
                (Kind::Intermediate, "TrustedTpm.cab:Vendor/IntermediateCA/ca.crt")
            ]
        );
        assert_eq!(found.entries[0].der, root);
        assert_eq!(found.entries[1].der, intermediate);
        assert_eq!(found.ignored, ["TrustedTpm.cab:setup.ps1", "TrustedTpm.cab:version.txt"]);
    }
}

#[test]
fn damaged_cabinets_are_refused_without_a_panic() {
    let root = der(&fixture("root.pem"));
    let files: [(&str, &[u8]); 1] = [("Vendor\\RootCA\\root.cer", &root)];
    for compression in [cab::CompressionType::None, cab::CompressionType::MsZip] {
        let good = cabinet(&files, compression);
        for length in 4..good.len() {
            assert!(cabinet::extract(&good[..length]).is_err(), "cut to {length}");
        }
        for at in 4..good.len() {
            for mask in [1, 0x80, 0xff] {
                let mut wrong = good.clone();
                wrong[at] ^= mask;
                // Labels and reserved fields may change; what must not is the process.
                let _ = cabinet::extract(&wrong);
            }
        }
    }
}

#[test]
fn a_cabinet_s_sizes_are_bounded_before_unpacking() {
    // One folder of 65535 blocks that each claim 64 kB.
    let mut bytes = vec![0; 44];
    bytes[..4].copy_from_slice(b"MSCF");
    bytes[26] = 1;
    bytes[36..40].copy_from_slice(&44_u32.to_le_bytes());
    bytes[40..42].copy_from_slice(&0xffff_u16.to_le_bytes());
    for _ in 0..0xffff {
        bytes.extend([0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    }
    let result = cabinet::extract(&bytes);
    assert!(matches!(result, Err(CabinetError::TooLarge { what: "unpacked bytes", .. })));
}

#[test]
fn a_cabinet_made_by_another_program_is_read() {
    let Some(vectors) = vectors_dir() else { return };
    if Command::new("gcab").arg("--version").output().is_err() {
        println!("skipped: gcab is not installed");
        return;
    }
    let source = vectors.join("kgoldman+ibmtss/ek/ca");
    let dir = tempfile::tempdir().expect("directory");
    let mut names = Vec::new();
    for entry in fs::read_dir(&source).expect("vectors") {
        let entry = entry.expect("vectors");
        let name = format!("Vendor/{}", entry.file_name().to_string_lossy());
        write(dir.path(), &name, fs::read(entry.path()).expect("readable"));
        names.push(name);
    }
    for flags in [&["-c"][..], &["-cz"]] {
        let status = Command::new("gcab")
            .current_dir(dir.path())
            .args(flags)
            .arg("list.cab")
            .args(&names)
            .status()
            .expect("gcab runs");
        assert!(status.success());
        let found = import(&dir.path().join("list.cab"), Placement::Guess).expect("readable");
        let direct = import(&source, Placement::Guess).expect("readable");
        let digests = |import: &Import| -> Vec<String> {
            import.entries.iter().map(|entry| entry.sha256.to_string()).collect()
        };
        assert_eq!(digests(&found), digests(&direct));
        assert!(found.rejected.is_empty() && direct.rejected.is_empty());
        fs::remove_file(dir.path().join("list.cab")).expect("removed");
    }
}

#[test]
fn manufacturers_certificates_are_listed() {
    let Some(vectors) = vectors_dir() else { return };
    let found = import(&vectors.join("kgoldman+ibmtss/ek/ca"), Placement::Guess).expect("readable");
    assert!(found.rejected.is_empty(), "{:?}", found.rejected);
    let rows: Vec<Row> = found
        .entries
        .iter()
        .map(|entry| describe(entry.kind, &entry.label, &entry.der, NOW))
        .collect();
    for row in &rows {
        println!(
            "{:12} {:60} {:9} {:24} {} {:?}",
            row.kind, row.subject, row.key, row.signature, row.note, row.oddities
        );
        assert!(!row.key.is_empty() && !row.subject.is_empty());
    }
    let with =
        |name: &str| rows.iter().filter(|row| row.oddities.iter().any(|o| o == name)).count();
    assert!(with("sha1-intermediate") >= 10);
    assert!(with("policies-critical") >= 20);
    assert!(rows.iter().any(|row| row.note.starts_with("expired")));
}

#[test]
fn rows_say_what_to_watch() {
    let bytes = der(&fixture("intermediate.pem"));
    let row = describe(Kind::Intermediate, "x", &bytes, NOW);
    assert_eq!(row.oddities, ["sha1-intermediate"]);
    assert_eq!(row.note, "");
    assert_eq!((row.serial.as_str(), row.key.as_str()), ("02", "RSA-2048"));
    let row = describe(Kind::Intermediate, "x", &bytes, row.not_after_unix_s - 86_400);
    assert!(row.note.starts_with("expires 2081-"), "{}", row.note);
    let row = describe(Kind::Intermediate, "x", &bytes, row.not_after_unix_s + 1);
    assert!(row.note.starts_with("expired 2081-"), "{}", row.note);
    assert!(
        describe(Kind::Intermediate, "x", &bytes, 0).note.starts_with("not valid before 2026-")
    );
    assert!(describe(Kind::Anchor, "x", &bytes, NOW).note.contains("not self-issued"));
    assert!(describe(Kind::Crl, "x", &bytes, NOW).note.starts_with("not readable"));
}
