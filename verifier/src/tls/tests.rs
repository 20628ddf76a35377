use std::{io, net::SocketAddr, time::UNIX_EPOCH};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::ca::{
    CaDir,
    tests::{created, issue_node, nodes, segment, trust_domain},
};

fn now() -> u64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

struct Site {
    _dir: tempfile::TempDir,
    ca: CaDir,
    certificate: Arc<ServerCertificate>,
    server: Arc<ServerConfig>,
}

fn site_at(now_unix_s: u64) -> Site {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), now_unix_s);
    ca.renew_server(vec!["localhost".parse().expect("a name")], now_unix_s).expect("a server");
    let (chain, key) = ca.server().expect("it loads");
    let certificate = ServerCertificate::new(&chain, &key).expect("a server certificate");
    let bundle = ca.bundle().expect("the bundle");
    let server = server_config(certificate.clone(), &bundle).expect("a configuration");
    Site { _dir: dir, ca, certificate, server: Arc::new(server) }
}

fn site() -> Site {
    site_at(now())
}

/// What the server sees of one connection.
struct Seen {
    peer: Vec<CertificateDer<'static>>,
    alpn: Option<Vec<u8>>,
    resumed: bool,
}

/// One handshake with one byte each way.
async fn connect(server: Arc<ServerConfig>, client: ClientConfig) -> io::Result<Seen> {
    connect_as(server, client, "localhost").await
}

async fn connect_as(
    server: Arc<ServerConfig>,
    client: ClientConfig,
    name: &'static str,
) -> io::Result<Seen> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    let serve = async {
        let (stream, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(server).accept(stream).await?;
        let byte = tls.read_u8().await?;
        tls.write_u8(byte).await?;
        tls.shutdown().await?;
        let (_, connection) = tls.get_ref();
        Ok::<_, io::Error>(Seen {
            peer: connection.peer_certificates().unwrap_or_default().to_vec(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        })
    };
    let call = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let mut tls = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        tls.write_u8(7).await?;
        tls.read_u8().await
    };
    match tokio::join!(serve, call) {
        (Ok(seen), Ok(_)) => Ok(seen),
        // Which side notices first is a matter of chance: tell both.
        (seen, got) => {
            Err(io::Error::other(format!("server: {:?}; client: {:?}", seen.err(), got.err())))
        }
    }
}

fn roots(site: &Site) -> ServerTrust {
    ServerTrust::Roots(site.ca.bundle().expect("the bundle"))
}

fn authority(site: &Site) -> AdminAuthority {
    AdminAuthority::load(&site.ca).expect("the admin CA")
}

#[tokio::test]
async fn without_a_certificate_there_is_a_connection_but_no_administrator() {
    let site = site();
    let client = client_config(&roots(&site), None).expect("a client");
    let seen = connect(site.server.clone(), client).await.expect("a connection");
    assert_eq!(seen.alpn.as_deref(), Some(ALPN_H2));
    let error = authority(&site).identify(&seen.peer, now()).expect_err("nobody");
    assert_eq!(error, AdminCertificateError::Absent);
    assert_eq!(error.code(), ReasonCode::AdminCertificateRequired);
}

#[tokio::test]
async fn an_administrator_is_known_by_name() {
    let site = site();
    let key = PrivateKey::generate().expect("a key");
    let (issued, chain) = site.ca.issue_admin(segment("ada"), &key, now()).expect("a certificate");
    let client = client_config(&roots(&site), Some((&chain, &key))).expect("a client");
    let seen = connect(site.server.clone(), client).await.expect("a connection");
    let identity = authority(&site).identify(&seen.peer, now()).expect("an administrator");
    assert_eq!(identity.name().as_str(), "ada");
    assert_eq!(identity.serial(), issued.serial().as_bytes());
    // The same connection after the certificate's end.
    let error =
        authority(&site).identify(&seen.peer, identity.not_after_unix_s() + 1).expect_err("over");
    assert!(matches!(error, AdminCertificateError::NotValidNow { .. }));
    // After the admin CA was rotated the certificate stays good.
    site.ca.rotate(CaRole::Admins, now()).expect("rotated");
    assert!(authority(&site).identify(&seen.peer, now()).is_ok());
}

#[tokio::test]
async fn a_node_is_no_administrator() {
    let site = site();
    let issuer = nodes(&site.ca);
    for name in ["worker-01", "ada"] {
        let (issued, key) = issue_node(&issuer, name, now());
        let chain = [vec![issued.der().to_vec()], issuer.chain().to_vec()].concat();
        let client = client_config(&roots(&site), Some((&chain, &key))).expect("a client");
        let seen = connect(site.server.clone(), client).await.expect("a connection");
        assert!(!seen.peer.is_empty());
        let error = authority(&site).identify(&seen.peer, now()).expect_err("a node");
        assert_eq!(error, AdminCertificateError::WrongIssuer);
        assert_eq!(error.code(), ReasonCode::AdminCertificateRequired);
    }
}

#[tokio::test]
async fn expired_foreign_and_misused_client_certificates_get_no_connection() {
    let site = site();
    let key = PrivateKey::generate().expect("a key");
    let foreign = site_at(now());
    // Two years ago, good for one.
    let old = site_at(now() - 63_000_000);
    let (_, expired) =
        old.ca.issue_admin(segment("ada"), &key, now() - 63_000_000).expect("issued");
    let (_, foreign) = foreign.ca.issue_admin(segment("ada"), &key, now()).expect("issued");
    let (server_chain, server_key) = site.ca.server().expect("the server's");
    let server = client_config(&roots(&site), Some((&server_chain, &server_key)));
    let mut cases = vec![(
        "a server certificate",
        "InvalidPurpose",
        site.server.clone(),
        server.expect("a client"),
    )];
    let client = client_config(&roots(&site), Some((&foreign, &key))).expect("a client");
    cases.push(("another site's", "UnknownIssuer", site.server.clone(), client));
    // The old site serves with a server certificate of today.
    old.ca
        .renew_server(vec!["localhost".parse().expect("a name")], now() - 1000)
        .expect("its server CA lives for two years");
    let (chain, server_key) = old.ca.server().expect("it loads");
    old.certificate.replace(&chain, &server_key).expect("reloaded");
    let client = client_config(&roots(&old), Some((&expired, &key))).expect("a client");
    cases.push(("an expired one", "Expired", old.server.clone(), client));
    for (what, alert, server, client) in cases {
        match connect(server, client).await {
            Err(error) => assert!(error.to_string().contains(alert), "{what}: {error}"),
            Ok(_) => panic!("{what} got a connection"),
        }
    }
}

#[test]
fn certificates_that_only_look_like_an_administrators() {
    let site = site();
    let authority = authority(&site);
    let key = PrivateKey::generate().expect("a key");
    let (_, chain) = site.ca.issue_admin(segment("ada"), &key, now()).expect("a certificate");
    let good = CertificateDer::from(chain[0].clone());
    assert!(authority.identify(std::slice::from_ref(&good), now()).is_ok());
    // Any changed byte: the signature no longer fits, or it is not X.509.
    let mut der = chain[0].clone();
    for at in (0..der.len()).step_by(7) {
        der[at] ^= 1;
        let changed = CertificateDer::from(der.clone());
        assert!(authority.identify(&[changed], now()).is_err(), "byte {at}");
        der[at] ^= 1;
    }
    // The CA itself, another trust domain, an unknown admin CA.
    let ca = CertificateDer::from(chain[1].clone());
    assert_eq!(authority.identify(&[ca], now()), Err(AdminCertificateError::WrongIssuer));
    let issuers = site.ca.certificates(CaRole::Admins).expect("the admin CA");
    let other = AdminAuthority::new("other.example".parse().expect("a domain"), issuers);
    assert!(matches!(
        other.identify(std::slice::from_ref(&good), now()),
        Err(AdminCertificateError::Profile(why)) if why.contains("trust domain")
    ));
    let none = AdminAuthority::new(trust_domain(), Vec::new());
    assert_eq!(none.identify(&[good], now()), Err(AdminCertificateError::WrongIssuer));
}

#[tokio::test]
async fn pins_work_for_every_certificate_of_the_chain_and_no_other() {
    let site = site();
    let (chain, _) = site.ca.server().expect("the server's");
    for der in &chain {
        let spki = Certificate::from_der(der).expect("X.509");
        let spki = spki.tbs_certificate().subject_public_key_info().to_der().expect("DER");
        let pin = format!("sha256:{}", hex::encode(Sha256::digest(spki)));
        let trust = ServerTrust::parse_pin(&pin).expect("a pin");
        let client = || client_config(&trust, None).expect("a client");
        connect(site.server.clone(), client()).await.expect("a pinned server");
        // The name counts too.
        assert!(connect_as(site.server.clone(), client(), "elsewhere").await.is_err());
        // A pin does not help another site's server.
        assert!(connect(site_at(now()).server, client()).await.is_err());
    }
    let root = site.ca.root().expect("the root");
    assert_eq!(root.der(), chain.last().expect("a root").as_slice(), "the root is sent along");
    let wrong = client_config(&ServerTrust::Pin([0; 32]), None).expect("a client");
    assert!(connect(site.server.clone(), wrong).await.is_err());
    for text in ["", "sha256:", "sha1:00", &format!("sha256:{}", "0".repeat(63)), &"0".repeat(64)] {
        assert!(ServerTrust::parse_pin(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_pinned_but_expired_server_is_refused() {
    let site = site_at(now() - 63_000_000);
    let (chain, _) = site.ca.server().expect("the server's");
    for der in &chain {
        let spki = Certificate::from_der(der).expect("X.509");
        let spki = spki.tbs_certificate().subject_public_key_info().to_der().expect("DER");
        let trust = ServerTrust::Pin(Sha256::digest(spki).into());
        let client = client_config(&trust, None).expect("a client");
        assert!(connect(site.server.clone(), client).await.is_err());
    }
}

#[tokio::test]
async fn other_roots_are_not_trusted_and_nothing_resumes() {
    let site = site();
    let other = client_config(&roots(&site_at(now())), None).expect("a client");
    assert!(connect(site.server.clone(), other).await.is_err());
    assert!(matches!(
        client_config(&ServerTrust::Roots(Vec::new()), None),
        Err(TlsError::Roots(_))
    ));
    let client = client_config(&roots(&site), None).expect("a client");
    for _ in 0..3 {
        let seen = connect(site.server.clone(), client.clone()).await.expect("a connection");
        assert!(!seen.resumed);
    }
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let site = site();
    let bundle = site.ca.bundle().expect("the bundle");
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(root_store(&bundle).expect("roots"))
        .with_no_client_auth();
    assert!(connect(site.server.clone(), client).await.is_err());
}

#[tokio::test]
async fn the_server_certificate_can_be_exchanged() {
    let site = site();
    let (before, _) = site.ca.server().expect("the server's");
    let names = vec!["localhost".parse().expect("a name"), "other".parse().expect("a name")];
    site.ca.renew_server(names, now()).expect("renewed");
    let (chain, key) = site.ca.server().expect("the new one");
    let client = || client_config(&roots(&site), None).expect("a client");
    assert!(connect_as(site.server.clone(), client(), "other").await.is_err());
    // Key and certificate that do not belong together change nothing.
    assert!(site.certificate.replace(&before, &key).is_err());
    connect(site.server.clone(), client()).await.expect("still the old one");
    site.certificate.replace(&chain, &key).expect("exchanged");
    connect_as(site.server.clone(), client(), "other").await.expect("the new one");
}
