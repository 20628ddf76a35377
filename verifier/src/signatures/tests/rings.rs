//! The document of a key ring.

use super::{
    super::{MAX_KEYS, MAX_RING_BYTES},
    *,
};

fn problems(text: &str) -> Vec<String> {
    let problems = KeyRing::parse(text).expect_err("it has problems");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_ring_reads_as_it_is_written() {
    let [alice, bob, carol] = holders();
    let ring = ring(3, 2, [&alice, &bob, &carol]);
    assert_eq!((ring.name().as_str(), ring.version(), ring.threshold()), ("security", 3, 2));
    let names: Vec<&str> = ring.keys().iter().map(|key| key.name().as_str()).collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
    let kinds: Vec<Algorithm> = ring.keys().iter().map(|key| key.algorithm()).collect();
    assert_eq!(kinds, [Algorithm::Ed25519, Algorithm::Ed25519, Algorithm::P256]);
    assert!(ring.keys()[0].id().to_string().starts_with("sha256:"));
}

#[test]
fn the_signed_form_does_not_depend_on_how_the_document_is_laid_out() {
    let [alice, bob, _] = holders();
    let plain = ring_text(3, 2, [&alice, &bob]);
    let laid_out = plain
        .replace("threshold", "# two\n  threshold ")
        .replace("\"\"\"\n-----BEGIN", "\"\"\"\n\nKey of alice\n-----BEGIN")
        .replace("version = 3", "version = 0x3");
    let (plain, laid_out) =
        (KeyRing::parse(&plain).expect("a ring"), KeyRing::parse(&laid_out).expect("a ring"));
    assert_eq!(plain, laid_out);
    let text = std::str::from_utf8(plain.payload()).expect("UTF-8");
    assert!(text.starts_with("{\"key\":[{\"name\":\"alice\",\"pem\":\"-----BEGIN PUBLIC KEY"));
    assert!(text.ends_with(
        "}],\"name\":\"security\",\"schema\":\"assay.keys/v1\",\"threshold\":2,\"version\":3}"
    ));
    assert_ne!(plain.payload(), ring(4, 2, [&alice, &bob]).payload());
    assert_ne!(plain.payload(), ring(3, 1, [&alice, &bob]).payload());
    assert_ne!(plain.payload(), ring(3, 2, [&bob, &alice]).payload());
}

#[test]
fn every_problem_of_a_ring_is_reported_with_its_place() {
    let [alice, bob, _] = holders();
    let text = ring_text(0, 4, [&alice, &bob])
        .replace("assay.keys/v1", "assay.keys/v0")
        .replace("\"security\"", "\"Security\"")
        .replace("\"bob\"", "\"Bob\"");
    let more = "[[key]]\nname = \"alice\"\npem = \"nothing\"\n";
    assert_eq!(
        problems(&format!("{text}{more}")),
        [
            "schema: \"assay.keys/v0\", expected \"assay.keys/v1\"",
            "name: \"Security\": lower-case letters, digits, '-', '_' and '.', at most 63",
            "version: 0, the first version is 1",
            "key[1].name: \"Bob\": lower-case letters, digits, '-', '_' and '.', at most 63",
            "key[2].name: \"alice\" is there twice",
            "key[2].pem: not a key in PEM: no block PUBLIC KEY",
            "threshold: 4: at least 1 and at most the number of keys, 3",
        ]
    );
}

#[test]
fn the_same_key_under_two_names_is_refused() {
    let [alice, bob, carol] = holders();
    let text = ring_text(1, 1, [&alice, &bob, &carol]);
    let carols = &text[text.rfind("[[key]]").expect("a key")..];
    let doubled = format!("{text}{}", carols.replace("\"carol\"", "\"carl\""));
    assert_eq!(problems(&doubled), ["key[3].pem: the same key as that of \"carol\""]);
}

#[test]
fn thresholds_and_counts_have_bounds() {
    let [alice, bob, _] = holders();
    let keys = [&alice, &bob];
    for threshold in [0, 3, usize::MAX / 2] {
        let expected =
            format!("threshold: {threshold}: at least 1 and at most the number of keys, 2");
        assert_eq!(problems(&ring_text(1, threshold, keys)), [expected]);
    }
    assert_eq!(
        problems(&ring_text(1, 1, [])),
        ["threshold: 1: at least 1 and at most the number of keys, 0"]
    );
    let many: Vec<Holder> = (0..=MAX_KEYS)
        .map(|number| Holder {
            name: Box::leak(format!("k{number}").into_boxed_str()),
            key: holder("", Algorithm::Ed25519).key,
        })
        .collect();
    assert!(KeyRing::parse(&ring_text(1, 32, many.iter().take(MAX_KEYS))).is_ok());
    assert_eq!(problems(&ring_text(1, 1, &many)), ["key: 33 keys, at most 32 are allowed"]);
    assert_eq!(
        problems(&" ".repeat(MAX_RING_BYTES + 1)),
        ["document: 65537 bytes, at most 65536 are allowed"]
    );
    // The largest version that JSON readers agree about.
    assert!(KeyRing::parse(&ring_text((1 << 53) - 1, 1, keys)).is_ok());
    assert_eq!(
        problems(&ring_text(1 << 53, 1, keys)),
        ["version: 9007199254740992, at most 9007199254740991"]
    );
}

#[test]
fn unknown_keys_and_syntax_errors_have_their_place() {
    let [alice, ..] = holders();
    let text = ring_text(1, 1, [&alice]);
    let unknown = format!("{text}role = \"root\"\n");
    let lines = text.lines().count();
    let found = problems(&unknown);
    assert!(
        found[0].starts_with(&format!("line {}, column 1: unknown field", lines + 1)),
        "{found:?}"
    );
    assert!(problems("schema = ")[0].starts_with("line 1, column "), "{:?}", problems("schema = "));
}
