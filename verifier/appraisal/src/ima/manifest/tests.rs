use proto::ima::ImaHashAlg;

use super::*;

fn head() -> String {
    Header::new("test".to_owned(), 1, vec!["package bash 5.2".to_owned()]).to_line()
}

fn digest(of: &[u8]) -> Digest {
    HashAlg::Sha256.hash(&[of])
}

fn measured(digest: &Digest) -> FileDigest<'_> {
    let algorithm = match digest.alg() {
        HashAlg::Sha256 => ImaHashAlg::Sha256,
        HashAlg::Sha384 => ImaHashAlg::Sha384,
        HashAlg::Sha512 => ImaHashAlg::Sha512,
    };
    FileDigest {
        kind: DigestKind::File,
        algorithm: Some(algorithm),
        algorithm_name: "",
        bytes: digest.as_bytes(),
    }
}

fn parsed(text: &str) -> Result<Manifest, ImaProblem> {
    Manifest::parse(text.as_bytes())
}

#[test]
fn what_is_built_reads_back() {
    let mut builder = ManifestBuilder::new();
    builder.source("package a 1");
    builder.file(&digest(b"a"), b"/usr/bin/a");
    builder.file(&digest(b"a"), b"/usr/bin/a");
    builder.file(&digest(b"a"), b"/bin/a b");
    builder.file(&digest(b"any"), b"");
    builder.file(&HashAlg::Sha512.hash(&[b"a"]), b"/usr/bin/a");
    builder.file(&digest(b"odd"), b"/odd/\xff\n\\x");
    assert_eq!(builder.files(), 5);
    let text = builder.to_text("test", 7);
    let manifest = parsed(&text).expect("a manifest");
    assert_eq!((manifest.name(), manifest.created_unix_s(), manifest.files()), ("test", 7, 5));
    assert_eq!(manifest.sources(), ["package a 1"]);
    assert_eq!(*manifest.id(), HashAlg::Sha256.hash(&[text.as_bytes()]));
    let mut again = ManifestBuilder::new();
    again.source("package a 1");
    for (digest, path) in manifest.iter() {
        let path = if path.is_empty() { Vec::new() } else { read_path(&path).expect("a path") };
        again.file(&digest.parse().expect("a digest"), &path);
    }
    assert_eq!(again.to_text("test", 7), text);

    let allows = |of: &[u8], path| manifest.allows(&measured(&digest(of)), path);
    assert!(allows(b"a", None) && allows(b"any", None) && !allows(b"b", None));
    assert!(allows(b"a", Some(b"/usr/bin/a")));
    assert!(allows(b"a", Some(b"/bin/a_b")), "as the kernel writes it");
    assert!(!allows(b"a", Some(b"/bin/a")) && !allows(b"a", Some(b"/usr/bin/b")));
    assert!(allows(b"any", Some(b"/anywhere")));
    assert!(allows(b"odd", Some(b"/odd/\xff\n\\x")));
    let expected = [digest(b"a").to_string(), HashAlg::Sha512.hash(&[b"a"]).to_string()];
    assert_eq!(manifest.digests_of(b"/usr/bin/a", 9), expected);
    assert_eq!(manifest.digests_of(b"/usr/bin/a", 1), expected[..1]);
    assert!(manifest.digests_of(b"/usr/bin", 9).is_empty());
}

#[test]
fn a_digest_counts_for_its_own_kind_and_algorithm() {
    let of_verity = digest(b"v");
    let text = format!("{}{{\"digest\":\"verity:{of_verity}\"}}\n", head());
    let manifest = parsed(&text).expect("a manifest");
    let file = measured(&of_verity);
    assert!(!manifest.allows(&file, None));
    assert!(manifest.allows(&FileDigest { kind: DigestKind::Verity, ..file }, None));
    let text = format!("{}{{\"digest\":\"{of_verity}\"}}\n", head());
    let manifest = parsed(&text).expect("a manifest");
    assert!(manifest.allows(&file, None));
    for algorithm in [Some(ImaHashAlg::Sm3), Some(ImaHashAlg::Sha512), None] {
        assert!(!manifest.allows(&FileDigest { algorithm, ..file }, None), "{algorithm:?}");
    }
    let cut = FileDigest { bytes: file.bytes.get(..31).unwrap_or_default(), ..file };
    assert!(!manifest.allows(&cut, None));
}

/// Every digest of a large manifest is found, and no neighbour of one.
#[test]
fn large_and_skewed_tables_find_what_is_there() {
    let plain: Vec<[u8; 32]> = (0_u32..3000)
        .map(|n| *digest(&n.to_be_bytes()).as_bytes().first_chunk().expect("32 bytes"))
        .collect();
    // All in one run of the index.
    let skewed: Vec<[u8; 32]> = plain
        .iter()
        .map(|digest| {
            let mut digest = *digest;
            digest[..4].fill(0xff);
            digest
        })
        .collect();
    for digests in [plain, skewed] {
        let mut builder = ManifestBuilder::new();
        for bytes in &digests {
            builder.file(&Digest::new(HashAlg::Sha256, bytes).expect("32 bytes"), b"/a");
        }
        let manifest = parsed(&builder.to_text("t", 0)).expect("a manifest");
        assert_eq!(manifest.files(), digests.len());
        for bytes in &digests {
            let mut near = *bytes;
            near[31] ^= 1;
            let allows = |bytes: &[u8; 32]| {
                let digest = Digest::new(HashAlg::Sha256, bytes).expect("32 bytes");
                manifest.allows(&measured(&digest), Some(b"/a"))
            };
            assert!(allows(bytes) && !allows(&near));
        }
    }
}

#[test]
fn bad_documents_are_refused_with_their_line() {
    let line = format!("{{\"digest\":\"{}\"}}\n", digest(b"a"));
    let at = |text: String| parsed(&text).map(|_| ()).map_err(|problem| problem.at);
    let line_of = |number: u64| Err(format!("line {number}"));
    assert_eq!(at(format!("{}{line}", head())), Ok(()));
    assert_eq!(at(String::new()), line_of(1));
    assert_eq!(at(line.clone()), line_of(1));
    assert_eq!(at(head()), Err("manifest".to_owned()));
    assert_eq!(at(format!("{}{line}", head().replace(":1,", ":2,"))), line_of(1));
    assert_eq!(at(format!("{}{line}", head().replace("test", ""))), line_of(1));
    assert_eq!(at(format!("{}{line}", head().replace("\"name\"", "\"nome\""))), line_of(1));
    let bad_lines = [
        "{}",
        "x",
        r#"{"digest":"sha256:00"}"#,
        r#"{"digest":"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#,
        &line.trim_end().replace('}', ",\"path\":\"\"}"),
        &line.trim_end().replace('}', r#","path":"/a\\q"}"#),
        &line.trim_end().replace('}', r#","path":"/a\\x0"}"#),
        &line.trim_end().replace('}', r#","path":"/a\u0000"}"#),
        &line.trim_end().replace('}', r#","mode":1}"#),
    ];
    for bad in bad_lines {
        assert_eq!(at(format!("{}{line}{bad}\n", head())), line_of(3), "{bad}");
    }
}
