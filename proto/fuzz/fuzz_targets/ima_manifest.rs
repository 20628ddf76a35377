//! IMA manifests and patterns: a document is refused with a problem, or allows exactly what it names and
//! is written again the same.
#![no_main]

use appraisal::ima::{Exclusion, Manifest, ManifestBuilder};
use libfuzzer_sys::fuzz_target;
use proto::{
    digest::Digest,
    ima::{DigestKind, FileDigest, ImaHashAlg},
};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        check(&manifest);
    }
    // A pattern, a newline, a name.
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(pattern), Some(name)) = (parts.next(), parts.next()) else { return };
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let Ok(exclusion) = Exclusion::compile(pattern) else { return };
    if exclusion.matches(name) {
        assert!(!name.iter().any(u8::is_ascii_control));
        // Anchored: with something before, only what begins with a wildcard can match.
        let longer = [b"\x01", name].concat();
        assert!(!exclusion.matches(&longer));
    }
});

fn check(manifest: &Manifest) {
    assert!(manifest.files() > 0);
    let mut builder = ManifestBuilder::new();
    for (text, path) in manifest.iter() {
        let (kind, rest) = match text.strip_prefix("verity:") {
            Some(rest) => (DigestKind::Verity, rest),
            None => (DigestKind::File, text.as_str()),
        };
        let digest: Digest = rest.parse().expect("a digest");
        let algorithm = ImaHashAlg::from_name(digest.alg().name().as_bytes());
        let bytes = digest.as_bytes();
        let measured = FileDigest { kind, algorithm, algorithm_name: "", bytes };
        assert!(manifest.allows(&measured, None));
        if path.is_empty() {
            assert!(manifest.allows(&measured, Some(b"/anywhere")));
        } else if !path.contains('\\') {
            assert!(manifest.allows(&measured, Some(path.as_bytes())));
            assert!(manifest.digests_of(path.as_bytes(), usize::MAX).contains(&text));
            assert!(builder.measured(&measured, path.as_bytes()));
        }
    }
    if builder.files() > 0 {
        let text = builder.to_text("again", 1);
        let again = Manifest::parse(text.as_bytes()).expect("what is written is read");
        assert_eq!(again.files(), builder.files());
    }
}
