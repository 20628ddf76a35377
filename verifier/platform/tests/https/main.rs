//! Keys over real HTTPS on loopback, and from files.
#![expect(unreachable_pub, reason = "the server is a module of this test alone")]

mod server;

use std::{path::PathBuf, sync::Arc};

use jose::{
    Algorithm,
    jwk::{JwkSet, MAX_SET_BYTES},
    testing::{NOW, Signer},
};
use platform::{
    Issuer, Platform, PlatformConfig, Platforms,
    refresh::{Now, Refresher, refresh_once},
};
use proto::job::CiSystem;
use serde_json::json;
use server::{Answer, Pki, Server};

const ISSUER: &str = "https://gitlab.example.org";

fn config(url: Option<String>, file: Option<PathBuf>, ca_file: Option<PathBuf>) -> PlatformConfig {
    PlatformConfig {
        issuer: Some(ISSUER.to_owned()),
        jwks_file: file,
        jwks_url: url,
        ca_file,
        ..PlatformConfig::new(CiSystem::GitLab, "assay")
    }
}

fn platforms(config: PlatformConfig) -> Platforms {
    Platforms::new(vec![Issuer::try_from(config).expect("an issuer")]).expect("one")
}

fn over_https(pki: &Pki, server: &Server) -> Platforms {
    let url = format!("https://127.0.0.1:{}/oauth/keys", server.port);
    platforms(config(Some(url), None, Some(pki.ca())))
}

fn only(platforms: &Platforms) -> &Platform {
    &platforms.all()[0]
}

fn document(keys: &[(&str, &Signer)]) -> String {
    let keys = keys.iter().map(|(id, signer)| signer.jwk(id)).collect();
    JwkSet::new(keys).expect("a set").to_json()
}

async fn load(platforms: &Platforms) -> &'static str {
    match refresh_once(only(platforms), &|| NOW).await {
        Ok(_) => "loaded",
        Err(error) => error.code(),
    }
}

fn judged(platforms: &Platforms, signer: &Signer, key: &str) -> &'static str {
    let claims = json!({
        "iss": ISSUER, "aud": "assay", "sub": "project_path:acme/app:ref_type:branch:ref:main",
        "jti": "1", "iat": NOW, "nbf": NOW, "exp": NOW + 300, "project_path": "acme/app",
        "ref": "main", "sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "pipeline_id": "1",
        "job_id": "2",
    });
    let token = signer.token(Algorithm::Rs256, key, &claims);
    platforms.verify(&token, NOW).map_or_else(|refusal| refusal.code(), |_| "accepted")
}

#[tokio::test]
async fn keys_rotate_when_they_are_loaded_and_never_because_of_a_token() {
    let (pki, old, new) = (Pki::new(), Signer::rsa(), Signer::rsa());
    let server = Server::start(&pki, Answer::document(&document(&[("old", &old)]))).await;
    let platforms = over_https(&pki, &server);
    assert_eq!(judged(&platforms, &old, "old"), "PLATFORM_KEYS_UNAVAILABLE");
    assert_eq!(load(&platforms).await, "loaded");
    assert_eq!(judged(&platforms, &old, "old"), "accepted");
    server.answers(Answer::document(&document(&[("old", &old), ("new", &new)])));
    assert_eq!(judged(&platforms, &new, "new"), "PLATFORM_KEY_UNKNOWN");
    assert_eq!(server.requests().len(), 1, "a token with an unknown key asked for nothing");
    assert_eq!(load(&platforms).await, "loaded");
    assert_eq!(judged(&platforms, &new, "new"), "accepted");
    assert_eq!(judged(&platforms, &old, "old"), "accepted");
    server.answers(Answer::document(&document(&[("new", &new)])));
    assert_eq!(load(&platforms).await, "loaded");
    assert_eq!(judged(&platforms, &old, "old"), "PLATFORM_KEY_UNKNOWN");
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    let request = requests[0].to_ascii_lowercase();
    assert!(request.starts_with("get /oauth/keys http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", server.port)), "{request}");
}

#[tokio::test]
async fn what_is_no_good_answer_leaves_the_good_keys() {
    let (pki, signer) = (Pki::new(), Signer::rsa());
    let good = document(&[("k", &signer)]);
    let server = Server::start(&pki, Answer::document(&good)).await;
    let platforms = over_https(&pki, &server);
    assert_eq!(load(&platforms).await, "loaded");
    let bytes = |text: &str| Answer::Bytes(text.as_bytes().to_vec());
    let padded = |len: usize| format!("{good}{}", " ".repeat(len - good.len()));
    let elsewhere = format!("location: https://127.0.0.1:{}/other\r\n", server.port);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let in_chunks = |len: usize| {
        let body = padded(len);
        Answer::Bytes(format!("{chunked}{len:x}\r\n{body}\r\n0\r\n\r\n").into_bytes())
    };
    let long_header = format!("x-long: {}\r\n", "x".repeat(64 * 1024));
    for (answer, expected) in [
        (Answer::document(&padded(MAX_SET_BYTES)), "loaded"),
        (Answer::document(&padded(MAX_SET_BYTES + 1)), "PLATFORM_FETCH_TOO_LARGE"),
        (
            bytes("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{"),
            "PLATFORM_FETCH_TOO_LARGE",
        ),
        (in_chunks(MAX_SET_BYTES), "loaded"),
        (in_chunks(MAX_SET_BYTES + 1), "PLATFORM_FETCH_TOO_LARGE"),
        (Answer::Endless(chunked.as_bytes().to_vec()), "PLATFORM_FETCH_TOO_LARGE"),
        (Answer::of("301 Moved", &elsewhere, &good), "PLATFORM_FETCH_STATUS"),
        (Answer::of("302 Found", &elsewhere, &good), "PLATFORM_FETCH_STATUS"),
        (Answer::of("307 Again", &elsewhere, &good), "PLATFORM_FETCH_STATUS"),
        (Answer::of("404 Not Found", "", &good), "PLATFORM_FETCH_STATUS"),
        (Answer::of("500 Error", "", &good), "PLATFORM_FETCH_STATUS"),
        (Answer::of("203 Changed", "", &good), "PLATFORM_FETCH_STATUS"),
        (
            Answer::of("200 OK", "content-encoding: gzip\r\n", &good),
            "PLATFORM_FETCH_ANSWER_INVALID",
        ),
        (Answer::of("200 OK", &long_header, &good), "PLATFORM_FETCH_ANSWER_INVALID"),
        (bytes("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"), "PLATFORM_FETCH_ANSWER_INVALID"),
        (bytes("SSH-2.0-OpenSSH\r\n"), "PLATFORM_FETCH_ANSWER_INVALID"),
        (bytes(""), "PLATFORM_FETCH_ANSWER_INVALID"),
        (Answer::document(""), "JWK_SET_MALFORMED"),
        (Answer::document("<html>maintenance</html>"), "JWK_SET_MALFORMED"),
        (Answer::document(r#"{"keys":[]}"#), "PLATFORM_KEYS_EMPTY"),
        (Answer::document(&good), "loaded"),
    ] {
        let before = server.requests().len();
        server.answers(answer.clone());
        let shown = format!("{answer:?}").chars().take(200).collect::<String>();
        assert_eq!(load(&platforms).await, expected, "{shown}");
        assert_eq!(server.requests().len(), before + 1, "one request, nothing followed");
        assert_eq!(judged(&platforms, &signer, "k"), "accepted", "{shown}");
    }
}

#[tokio::test]
async fn the_server_is_trusted_by_its_name_and_ca_only() {
    let (pki, stranger, signer) = (Pki::new(), Pki::new(), Signer::rsa());
    let server = Server::start(&pki, Answer::document(&document(&[("k", &signer)]))).await;
    let at = |host: &str| Some(format!("https://{host}:{}/k", server.port));
    let good = platforms(config(at("127.0.0.1"), None, Some(pki.ca())));
    assert_eq!(load(&good).await, "loaded");
    let other_ca = platforms(config(at("127.0.0.1"), None, Some(stranger.ca())));
    assert_eq!(load(&other_ca).await, "PLATFORM_FETCH_CONNECT_FAILED");
    // The certificate is for the address, not for the name.
    let other_name = platforms(config(at("localhost"), None, Some(pki.ca())));
    assert_eq!(load(&other_name).await, "PLATFORM_FETCH_CONNECT_FAILED");
    let has_bundle = platform::source::https::SYSTEM_BUNDLES
        .iter()
        .any(|path| std::path::Path::new(path).is_file());
    let system = platforms(config(at("127.0.0.1"), None, None));
    let expected =
        if has_bundle { "PLATFORM_FETCH_CONNECT_FAILED" } else { "PLATFORM_FETCH_TRUST_UNUSABLE" };
    assert_eq!(load(&system).await, expected);
    assert_eq!(server.requests().len(), 1, "nobody who does not trust the server asked it");
    let no_root = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let ca = std::fs::read_to_string(pki.ca()).expect("a certificate");
    for (name, content) in [
        ("absent.pem", None),
        ("empty.pem", Some("")),
        ("key.pem", Some("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")),
        ("no-root.pem", Some(no_root)),
        ("more.pem", Some(&format!("{ca}{no_root}"))),
    ] {
        let path = pki.file(name);
        if let Some(content) = content {
            std::fs::write(&path, content).expect("a file is written");
        }
        let without = platforms(config(at("127.0.0.1"), None, Some(path)));
        assert_eq!(load(&without).await, "PLATFORM_FETCH_TRUST_UNUSABLE", "{name}");
    }
    assert_eq!(judged(&other_ca, &signer, "k"), "PLATFORM_KEYS_UNAVAILABLE");
    let port = server.port;
    drop(server);
    tokio::task::yield_now().await;
    let gone = platforms(config(Some(format!("https://127.0.0.1:{port}/k")), None, Some(pki.ca())));
    assert_eq!(load(&gone).await, "PLATFORM_FETCH_CONNECT_FAILED");
}

/// The clock stands until nothing else can happen, and then goes on to the deadline.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_left() {
    let pki = Pki::new();
    let server = Server::start(&pki, Answer::Silence).await;
    let platforms = over_https(&pki, &server);
    assert_eq!(load(&platforms).await, "PLATFORM_FETCH_DEADLINE");
    assert_eq!(only(&platforms).keys().state(), None);
}

#[tokio::test]
async fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
    let (old, new) = (Signer::rsa(), Signer::rsa());
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.json");
    let platforms = platforms(config(None, Some(path.clone()), None));
    assert_eq!(load(&platforms).await, "PLATFORM_FETCH_FILE_UNUSABLE");
    let write = |content: &str| std::fs::write(&path, content).expect("a file is written");
    write(&document(&[("old", &old)]));
    assert_eq!(load(&platforms).await, "loaded");
    assert_eq!(judged(&platforms, &old, "old"), "accepted");
    for bad in ["", "{}", r#"{"keys":[]}"#] {
        write(bad);
        assert_ne!(load(&platforms).await, "loaded", "{bad}");
        assert_eq!(judged(&platforms, &old, "old"), "accepted");
    }
    write(&document(&[("new", &new)]));
    assert_eq!(load(&platforms).await, "loaded");
    assert_eq!(judged(&platforms, &new, "new"), "accepted");
    assert_eq!(judged(&platforms, &old, "old"), "PLATFORM_KEY_UNKNOWN");
}

#[tokio::test]
async fn the_background_loads_and_ends_with_its_handle() {
    let (pki, signer) = (Pki::new(), Signer::rsa());
    let server = Server::start(&pki, Answer::document(&document(&[("k", &signer)]))).await;
    let platforms = over_https(&pki, &server);
    let now: Now = Arc::new(|| NOW);
    let refresher = Refresher::start(&platforms, &now);
    while only(&platforms).keys().state().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(judged(&platforms, &signer, "k"), "accepted");
    // The tasks hold the clock: with the handle they are gone.
    drop(refresher);
    while Arc::strong_count(&now) != 1 {
        tokio::task::yield_now().await;
    }
}
