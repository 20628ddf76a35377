//! What relying parties fetch over HTTPS: bundle, results, lists of what a permit's end revoked.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
        time_provider::TimeProvider,
    },
};
use x509_cert::{Certificate, crl::CertificateList, der::Decode as _};

use super::*;
use verifier::results_files::{ResultFiles, ResultsLimits};

#[derive(Debug)]
struct AtTheTestsTime;

impl TimeProvider for AtTheTestsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(NOW).unwrap())))
    }
}

/// What an HTTPS GET gives: status, content type, body. The server is trusted by the verifier's own bundle.
pub(super) async fn fetched(site: &Site, path: &str) -> (u16, String, Vec<u8>) {
    let pem = std::fs::read(site.cluster.folder().join("state/bundle.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(AtTheTestsTime));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let address = site.cluster.running().web_address.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&answer[..end]).unwrap().to_lowercase();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, kind.unwrap_or_default().to_owned(), answer[end + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn relying_parties_fetch_bundle_results_and_lists() {
    let mut site = Site::start().await;
    // An authority of others that is only listed; its certificate stands for any.
    let ca = site.cluster.folder().join("state/bundle.pem");
    let listed = format!(
        "[[timestamp_authority]]\nurl = \"http://tsa.example/\"\nca = \"{}\"\n",
        ca.display()
    );
    site.cluster.configure("results", &listed).await.unwrap();
    site.cluster.configure("service", "web_listen = \"127.0.0.1:0\"").await.unwrap();
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    let identity = site.redeem(&permit, &key).await.unwrap();

    let (status, kind, body) = fetched(&site, "/spiffe/bundle.json").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    let bundle: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let uses: Vec<_> =
        bundle["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);
    assert!(bundle["spiffe_refresh_hint"].as_u64().unwrap() > 0);

    assert_eq!(identity.statements.len(), 2);
    for statement in &identity.statements {
        let digest = hex::encode(HashAlg::Sha256.hash(&[&statement.bundle]).as_bytes());
        let (status, kind, body) = fetched(&site, &format!("/results/sha256/{digest}")).await;
        assert_eq!((status, body.as_slice()), (200, statement.bundle.as_slice()));
        assert!(kind.starts_with("application/vnd.dev.sigstore.bundle"), "{kind}");
    }
    // One that retention removed is as unknown as any other.
    let results = ResultFiles::at(&site.cluster.folder().join("state"));
    let all = ResultsLimits { before_unix_s: i64::MAX, keep_newest: 0 };
    assert_eq!(results.drop_some(all, || false).unwrap().dropped.results, 2);
    for statement in &identity.statements {
        let digest = hex::encode(HashAlg::Sha256.hash(&[&statement.bundle]).as_bytes());
        let (status, _, body) = fetched(&site, &format!("/results/sha256/{digest}")).await;
        assert_eq!((status, body.as_slice()), (404, b"no such result\n".as_slice()));
    }
    let (status, _, body) = fetched(&site, "/results/trusted_root.json").await;
    assert_eq!(status, 200);
    let root = results::bundle::TrustedRoot::parse(&body).unwrap();
    let stamp: Vec<_> = root.timestamp_authorities().iter().map(|one| one.uri()).collect();
    assert_eq!(stamp, ["spiffe://test.example", "http://tsa.example/"]);
    for file in ["bundle.pem", "crl.pem", "crl.der", "crl-jobs.der"] {
        let (status, _, body) = fetched(&site, &format!("/{file}")).await;
        let kept = std::fs::read(site.cluster.folder().join("state/public").join(file)).unwrap();
        assert_eq!((status, body), (200, kept), "{file}");
    }
    let no_result = format!("/results/sha256/{}", "5a".repeat(32));
    let paths = [
        no_result.as_str(),
        "/results/sha256/..%2f..%2fjwt.key",
        "/jwt.key",
        "/..%2fjwt.key",
        "/ca/root.pem",
        "/security-keys.toml",
        "/",
    ];
    for path in paths {
        assert_eq!(fetched(&site, path).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_an_ended_permit_are_on_the_next_list() {
    let mut site = Site::start().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    let identity = site.redeem(&permit, &key).await.unwrap();
    let leaf = Certificate::from_der(&identity.x509[0].chain[0]).unwrap();
    let serial = leaf.tbs_certificate().serial_number().clone();
    site.end(&permit, &key, 1).await.unwrap();
    let path = site.cluster.folder().join("state/public/crl-jobs.der");
    for _ in 0..600 {
        let list = CertificateList::from_der(&std::fs::read(&path).unwrap()).unwrap();
        let revoked = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
        if revoked.iter().any(|entry| entry.serial_number == serial) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the list does not have it");
}
