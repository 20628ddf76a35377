//! The workspace's own promises: what may depend on what, and docs that say what is there.
#![expect(
    clippy::unwrap_used,
    reason = "a file of this repository that cannot be read fails the test"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use proto::reason::ReasonCode;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Names of all packages that `package` is linked with, whatever platform and however deep.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--package", package])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_none(package: &str, banned: &[&str]) {
    let found = dependencies(package);
    assert!(found.contains(package), "{package}: the tree was read");
    let bad: Vec<_> = banned.iter().filter(|name| found.contains(**name)).collect();
    assert!(bad.is_empty(), "{package} must not depend on {bad:?}");
}

/// No clock, randomness, file system, network or runtime in the appraisal.
///
/// What this cannot show: aws-lc-rs links a C library that has a random generator of its own, and the
/// standard library can open files. The first is never asked (verification and MakeCredential take
/// their randomness as parameters); the second is a matter of review.
#[test]
fn the_appraisal_core_is_pure() {
    let runtime = ["tokio", "mio", "tonic", "hyper", "axum", "async-trait", "futures-util"];
    let system = ["sqlx", "getrandom", "rand", "rand_core", "libc", "rustix", "socket2", "notify"];
    let tpm = ["tss-esapi", "tss-esapi-sys"];
    assert_none("appraisal", &[&runtime[..], &system[..], &tpm[..]].concat());
}

/// Tokens and key sets are read without a runtime or a network; what fetches key sets is apart.
#[test]
fn the_token_reader_is_pure() {
    let runtime = ["tokio", "mio", "tonic", "hyper", "axum", "async-trait", "futures-util"];
    let system = ["sqlx", "rustix", "socket2", "notify", "tss-esapi", "tss-esapi-sys"];
    assert_none("jose", &[&runtime[..], &system[..]].concat());
}

/// Results are verified offline, by whoever: no clock, file system, network or runtime either.
#[test]
fn results_are_verified_without_runtime_or_system() {
    let runtime = ["tokio", "mio", "tonic", "hyper", "axum", "async-trait", "futures-util"];
    let system = ["sqlx", "getrandom", "rand", "libc", "rustix", "socket2", "notify"];
    assert_none("results", &[&runtime[..], &system[..], &["rsa", "ring", "openssl"]].concat());
}

#[test]
fn the_verifier_links_neither_libtss2_nor_a_second_crypto_stack() {
    let banned =
        ["tss-esapi", "tss-esapi-sys", "openssl", "openssl-sys", "native-tls", "rsa", "ring"];
    assert_none("verifier", &banned);
}

/// It holds jobs' keys and talks to jobs' processes: the TPM's library is not beside them by its doing.
#[test]
fn the_workload_api_links_no_libtss2() {
    assert_none("workload", &["tss-esapi", "tss-esapi-sys", "attestor", "verifier"]);
}

#[test]
fn nobody_links_the_rsa_crate() {
    for package in ["attestor", "jose", "platform", "verifier", "swtpm-tests", "workload"] {
        assert_none(package, &["rsa", "openssl", "ring"]);
    }
}

#[test]
fn every_crate_says_what_it_does_with_unsafe_code() {
    for (package, source) in [
        ("proto", "proto/src/lib.rs"),
        ("appraisal", "verifier/appraisal/src/lib.rs"),
        ("jose", "proto/jose/src/lib.rs"),
        ("platform", "verifier/platform/src/lib.rs"),
        ("results", "verifier/results/src/lib.rs"),
        ("verifier", "verifier/src/lib.rs"),
        ("workload", "attestor/workload/src/lib.rs"),
    ] {
        let text = fs::read_to_string(root().join(source)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{package} forbids unsafe code");
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn reason_codes_are_documented_exactly() {
    let text = fs::read_to_string(root().join("docs/REASON_CODES.md")).unwrap();
    let documented: Vec<(String, String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            let mut cells = row.splitn(3, " | ").map(|cell| cell.replace("\\|", "|"));
            let mut next = || cells.next().unwrap_or_default();
            (next().trim_end_matches('`').to_owned(), next(), next())
        })
        .collect();
    let expected: Vec<_> = ReasonCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), code.meaning().to_owned(), code.remedy().to_owned()))
        .collect();
    assert_eq!(documented, expected, "run `cargo xtask vectors`");
}

/// The part of a source file that is tests.
fn tests_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let is_all =
        file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests");
    match is_all {
        true => text,
        false => text
            .split_once("#[cfg(test)]\nmod tests")
            .map(|(_, tests)| tests.to_owned())
            .unwrap_or_default(),
    }
}

fn gate_codes(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    words
        .filter(|word| word.strip_prefix("GATE_").is_some_and(|rest| !rest.is_empty()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_code_of_the_gate_is_documented_and_demanded_by_a_test() {
    let root = root();
    let documented = gate_codes(&fs::read_to_string(root.join("docs/JOBS.md")).unwrap());
    let (mut given, mut demanded) = (BTreeSet::new(), BTreeSet::new());
    let here = [files(&root.join("attestor"), "rs"), files(&root.join("attestor/hooks"), "sh")];
    for file in here.concat() {
        given.extend(gate_codes(&fs::read_to_string(&file).unwrap()));
        demanded.extend(gate_codes(&tests_of(&file)));
    }
    for file in files(&root.join("swtpm-tests/tests"), "rs") {
        let is_this_one = file.ends_with("workspace.rs");
        demanded.extend(gate_codes(&tests_of(&file)).into_iter().filter(|_| !is_this_one));
    }
    assert_eq!(given, documented);
    // Only a machine without randomness gives it.
    demanded.insert("GATE_NO_KEY".to_owned());
    assert_eq!(demanded, documented);
}

/// Markdown files of the repository, without what is built or fetched.
fn markdown() -> Vec<PathBuf> {
    files(&root(), "md")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_skipped = name == "target" || (name.starts_with('.') && name != ".ci");
            if path.is_dir() && !is_skipped {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// Links, and paths in code spans that begin with a directory of this repository.
#[test]
fn paths_in_the_docs_exist() {
    let root = root();
    let mut missing = Vec::new();
    for file in markdown() {
        let text = fs::read_to_string(&file).unwrap();
        let here = file.parent().unwrap();
        for target in link_targets(&text) {
            if !here.join(&target).exists() {
                missing.push(format!("{}: link to {target}", shown(&root, &file)));
            }
        }
        for span in code_spans(&text) {
            if names_a_path(&span) && !root.join(without_line(&span)).exists() {
                missing.push(format!("{}: `{span}`", shown(&root, &file)));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Comments name documents: `docs/X.md` in a source file must be there.
#[test]
fn documents_named_in_the_sources_exist() {
    let root = root();
    let mut missing = BTreeSet::new();
    for file in files(&root, "rs").into_iter().chain(files(&root, "proto")) {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("docs/") {
            let tail = text.get(at..).unwrap_or_default();
            let end = tail
                .find(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)))
                .unwrap_or(tail.len());
            let name = tail.get(..end).unwrap_or_default().trim_end_matches('.');
            if name.ends_with(".md") && !root.join(name).exists() {
                missing.insert(format!("{}: {name}", shown(&root, &file)));
            }
        }
    }
    // This file's own comment has a made-up name.
    missing.retain(|entry| !entry.ends_with("docs/X.md"));
    assert!(missing.is_empty(), "{}", missing.into_iter().collect::<Vec<_>>().join("\n"));
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// Targets of inline links that stay in this repository, without fragments.
fn link_targets(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ', '\n']).next())
        .map(|target| target.split('#').next().unwrap_or_default().to_owned())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !target.starts_with("mailto:"))
        .collect()
}

/// Code spans outside of fenced blocks.
fn code_spans(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            out.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    out
}

/// Whether a code span is a path of this repository: no spaces, patterns or placeholders.
fn names_a_path(span: &str) -> bool {
    let tops = ["attestor/", "verifier/", "proto/", "swtpm-tests/", "docs/", ".ci/", ".cargo/"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    tops.iter().any(|top| span.starts_with(top)) && span.chars().all(is_plain)
}

/// `path:12` names line 12 of a file.
fn without_line(span: &str) -> &str {
    match span.split_once(':') {
        Some((path, _)) => path,
        None => span,
    }
}
