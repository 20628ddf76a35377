//! What this CA makes, read and verified by OpenSSL.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::super::{files::pem, *};
use super::{NOW, created, issue_node, nodes, segment};

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("openssl runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn ok(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a file is written");
    path
}

fn arg(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn node_certificates_verify_and_read_as_intended() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let issuer = nodes(&ca);
    let (issued, _) = issue_node(&issuer, "worker-01", NOW);
    let leaf = write(dir.path(), "leaf.pem", &pem("CERTIFICATE", issued.der()));
    let chain = write(dir.path(), "chain.pem", &pem("CERTIFICATE", &issuer.chain()[0]));
    let at = NOW.to_string();
    for purpose in ["sslclient", "sslserver"] {
        let out = ok(&[
            "verify",
            "-x509_strict",
            "-attime",
            &at,
            "-purpose",
            purpose,
            "-CAfile",
            arg(&ca.bundle_path()),
            "-untrusted",
            arg(&chain),
            arg(&leaf),
        ]);
        assert!(out.contains(": OK"), "{out}");
    }
    let out = ok(&["x509", "-in", arg(&leaf), "-noout", "-text", "-nameopt", "RFC2253"]);
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Subject: CN=worker-01,OU=pool-a\n",
        "Not Before: May 31 23:59:50 2026 GMT",
        "Not After : Jun  1 01:00:00 2026 GMT",
        "ASN1 OID: prime256v1",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://builds.example.org/node/worker-01",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        "1.2.840.113556.1.8000.2554.48499.12167.14529.20271.40369.9916843.2229550.1",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in\n{out}");
    }
    let serial = ok(&["x509", "-in", arg(&leaf), "-noout", "-serial"]).to_lowercase();
    assert_eq!(serial.trim(), format!("serial={}", issued.serial()));
    // The wrong purpose, and any time after its end, are refused.
    let late = (NOW + 3601).to_string();
    let output = openssl(&[
        "verify",
        "-attime",
        &late,
        "-CAfile",
        arg(&ca.bundle_path()),
        "-untrusted",
        arg(&chain),
        arg(&leaf),
    ]);
    assert!(text(&output).contains("certificate has expired"), "{}", text(&output));
}

#[test]
fn administrators_servers_and_issuing_cas_verify() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let at = NOW.to_string();
    let bundle = ca.bundle_path();
    let key = PrivateKey::generate().expect("a key");
    let (_, chain) = ca.issue_admin(segment("ada"), &key, NOW).expect("an administrator");
    let names =
        vec!["verifier.example.org".parse().expect("a name"), "10.1.2.3".parse().expect("ip")];
    ca.renew_server(names, NOW).expect("a server certificate");
    let (server, _) = ca.server().expect("it loads");
    assert_eq!(server.len(), 3, "leaf, issuing CA, root");
    for (name, chain, purpose, other) in
        [("ada", chain, "sslclient", "sslserver"), ("server", server, "sslserver", "sslclient")]
    {
        let leaf = write(dir.path(), &format!("{name}.crt"), &pem("CERTIFICATE", &chain[0]));
        let issuer = write(dir.path(), &format!("{name}.ca"), &pem("CERTIFICATE", &chain[1]));
        let run = |purpose: &str| {
            openssl(&[
                "verify",
                "-x509_strict",
                "-attime",
                &at,
                "-purpose",
                purpose,
                "-CAfile",
                arg(&bundle),
                "-untrusted",
                arg(&issuer),
                arg(&leaf),
            ])
        };
        assert!(run(purpose).status.success(), "{name}: {}", text(&run(purpose)));
        assert!(!run(other).status.success(), "{name} must not pass as {other}");
    }
    let out = ok(&[
        "x509",
        "-in",
        arg(&dir.path().join("server.crt")),
        "-noout",
        "-text",
        "-nameopt",
        "RFC2253",
    ]);
    assert!(out.contains("DNS:verifier.example.org, IP Address:10.1.2.3"), "{out}");
    let nodes = write(dir.path(), "nodes.crt", &pem("CERTIFICATE", &nodes(&ca).chain()[0]));
    let out = ok(&["x509", "-in", arg(&nodes), "-noout", "-text", "-nameopt", "RFC2253"]);
    for expected in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "URI:spiffe://builds.example.org\n",
        ",O=builds.example.org\n",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in\n{out}");
    }
    let out = ok(&["x509", "-in", arg(&bundle), "-noout", "-text", "-nameopt", "RFC2253"]);
    assert!(out.contains("CA:TRUE, pathlen:1"), "{out}");
}

#[test]
fn revocation_lists_verify_and_revoke() {
    let dir = tempfile::tempdir().expect("a directory");
    // OpenSSL's `crl` command knows no time but now, which the list does not depend on.
    let ca = created(dir.path(), NOW);
    let issuer = nodes(&ca);
    let (bad, _) = issue_node(&issuer, "worker-01", NOW);
    let (good, _) = issue_node(&issuer, "worker-02", NOW);
    let entry = |at, reason| Revoked { serial: bad.serial(), at_unix_s: at, reason };
    let list = issuer
        .crl(
            7,
            NOW,
            CRL_LIFETIME,
            vec![
                entry(NOW, RevocationReason::Unspecified),
                entry(NOW - 5, RevocationReason::KeyCompromise),
            ],
        )
        .expect("a list");
    let crl = write(dir.path(), "nodes.crl", &list.to_pem());
    let chain = write(dir.path(), "chain.pem", &pem("CERTIFICATE", &issuer.chain()[0]));
    let out = ok(&[
        "crl",
        "-in",
        arg(&crl),
        "-CAfile",
        arg(&chain),
        "-noout",
        "-text",
        "-nameopt",
        "RFC2253",
    ]);
    for expected in [
        "verify OK",
        "Version 2 (0x1)",
        "X509v3 CRL Number: \n                7",
        "Next Update: Jun  2 12:00:00 2026 GMT",
        "Key Compromise",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in\n{out}");
    }
    assert_eq!(out.matches("Serial Number:").count(), 1, "one entry a serial number: {out}");
    let at = NOW.to_string();
    let verify = |issued: &NodeCertificate| {
        let leaf = write(dir.path(), "leaf.pem", &pem("CERTIFICATE", issued.der()));
        openssl(&[
            "verify",
            "-attime",
            &at,
            "-crl_check",
            "-CRLfile",
            arg(&crl),
            "-CAfile",
            arg(&ca.bundle_path()),
            "-untrusted",
            arg(&chain),
            arg(&leaf),
        ])
    };
    assert!(verify(&good).status.success(), "{}", text(&verify(&good)));
    assert!(text(&verify(&bad)).contains("certificate revoked"), "{}", text(&verify(&bad)));
    // Read back: number and end stand; another CA's, and a changed one, do not pass.
    let again = Crl::verify(list.der(), issuer.certificate()).expect("it verifies");
    assert_eq!((again.number(), again.next_update_unix_s()), (7, NOW + CRL_LIFETIME.as_secs()));
    let admins = ca.issuer(CaRole::Admins).expect("the admin CA");
    assert!(matches!(Crl::verify(list.der(), admins.certificate()), Err(CaError::Crl(_))));
    let mut changed = list.der().to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert!(matches!(Crl::verify(&changed, issuer.certificate()), Err(CaError::Crl(_))));
    let empty = issuer.crl(8, NOW, CRL_LIFETIME, Vec::new()).expect("an empty list");
    let crl = write(dir.path(), "empty.crl", &empty.to_pem());
    let out = ok(&[
        "crl",
        "-in",
        arg(&crl),
        "-CAfile",
        arg(&chain),
        "-noout",
        "-text",
        "-nameopt",
        "RFC2253",
    ]);
    assert!(out.contains("No Revoked Certificates"), "{out}");
    let wrong = Crl::sign(issuer.certificate(), admins.key(), 9, NOW, CRL_LIFETIME, Vec::new());
    assert!(matches!(wrong, Err(CaError::Signer(SignerError::WrongIssuer { .. }))));
}

/// A site's PKI made with OpenSSL: root and, for an issuing request, a signed certificate.
fn site_pki(dir: &Path, request: &str, algorithm: &[&str], extensions: &str, days: &str) -> String {
    let csr = write(dir, "request.pem", request);
    let (key, root) = (dir.join("site.key"), dir.join("site.pem"));
    let mut new_root = vec!["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=Site root"];
    new_root.extend(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
    new_root.extend(algorithm);
    new_root.extend(["-keyout", arg(&key), "-out", arg(&root)]);
    ok(&new_root);
    let config = write(dir, "extensions", extensions);
    let signed = dir.join("signed.pem");
    ok(&[
        "x509",
        "-req",
        "-in",
        arg(&csr),
        "-CA",
        arg(&root),
        "-CAkey",
        arg(&key),
        "-days",
        days,
        "-set_serial",
        "0x1234567890abcdef",
        "-extfile",
        arg(&config),
        "-out",
        arg(&signed),
    ]);
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file is read");
    read(&signed) + &read(&root)
}

fn real_now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

const GOOD: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\n\
    keyUsage=critical,keyCertSign,cRLSign\n\
    subjectAltName=URI:spiffe://builds.example.org\n\
    subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

#[test]
fn requests_are_good_and_a_sites_own_pki_can_sign_the_node_ca() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = real_now();
    let ca = created(dir.path(), now);
    let request = ca.request(CaRole::Nodes).expect("a request");
    assert_eq!(
        PublicOf(&request).key(dir.path()),
        PublicOf(&ca.request(CaRole::Nodes).expect("again")).key(dir.path()),
        "the key waits for its certificate"
    );
    let csr = write(dir.path(), "nodes.csr", &request);
    let out = ok(&["req", "-in", arg(&csr), "-verify", "-noout", "-text", "-nameopt", "RFC2253"]);
    assert!(out.to_lowercase().contains("verify ok"), "{out}");
    assert!(out.contains("CA:TRUE, pathlen:0"), "{out}");
    assert!(out.contains("URI:spiffe://builds.example.org"), "{out}");
    // An RSA root: the site decides.
    let chain = site_pki(dir.path(), &request, &["-newkey", "rsa:2048"], GOOD, "30");
    let report = ca.import(CaRole::Nodes, &chain, now + 5).expect("it is imported");
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(report.new_root.is_some());
    assert_eq!(ca.bundle().expect("the bundle").len(), 2);
    let issuer = nodes(&ca);
    let (issued, _) = issue_node(&issuer, "worker-01", now + 5);
    let leaf = write(dir.path(), "leaf.pem", &pem("CERTIFICATE", issued.der()));
    let issuing = write(dir.path(), "issuing.pem", &pem("CERTIFICATE", &issuer.chain()[0]));
    let at = (now + 6).to_string();
    ok(&[
        "verify",
        "-attime",
        &at,
        "-CAfile",
        arg(&dir.path().join("site.pem")),
        "-untrusted",
        arg(&issuing),
        arg(&leaf),
    ]);
    // The request is used up; the former CA is kept for its last lists.
    assert!(matches!(
        ca.import(CaRole::Nodes, &chain, now + 5),
        Err(CaError::Certificate { why, .. }) if why.contains("no request is waiting")
    ));
    assert_eq!(ca.retired_issuers(CaRole::Nodes, now + 5).expect("retired CAs").len(), 1);
}

struct PublicOf<'a>(&'a str);

impl PublicOf<'_> {
    fn key(&self, dir: &Path) -> String {
        let csr = write(dir, "any.csr", self.0);
        ok(&["req", "-in", arg(&csr), "-noout", "-pubkey"])
    }
}

#[test]
fn a_chain_that_would_not_work_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = real_now();
    let ca = created(dir.path(), now);
    let request = ca.request(CaRole::Nodes).expect("a request");
    let before = nodes(&ca).certificate().clone();
    let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    for (what, extensions, expected) in [
        (
            "no CA",
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyCertSign\n",
            "not a CA",
        ),
        ("no cRLSign", &GOOD.replace(",cRLSign", ""), "cRLSign"),
        ("no keyCertSign", &GOOD.replace("keyCertSign,", ""), "may not sign certificates"),
        ("another domain", &GOOD.replace("builds", "other"), "spiffe://other.example.org"),
        ("wrong usage", &format!("{GOOD}extendedKeyUsage=emailProtection\n"), "would not verify"),
    ] {
        let chain = site_pki(dir.path(), &request, &p256, extensions, "30");
        let error = ca.import(CaRole::Nodes, &chain, now + 5).expect_err(what);
        assert!(error.to_string().contains(expected), "{what}: {error}");
    }
    let chain = site_pki(dir.path(), &request, &p256, GOOD, "30");
    let late = ca.import(CaRole::Nodes, &chain, now + 40 * 24 * 3600).expect_err("over");
    assert!(late.to_string().contains("not valid now"), "{late}");
    // Without its root, with a foreign key, with a root that did not sign it.
    let first = chain.find("-----END").map(|at| at + 25).expect("two certificates");
    assert!(ca.import(CaRole::Nodes, &chain[..first], now + 5).is_err());
    let error = ca.import(CaRole::Admins, &chain, now + 5).expect_err("no request");
    assert!(error.to_string().contains("no request is waiting"), "{error}");
    ca.request(CaRole::Admins).expect("a request");
    let error = ca.import(CaRole::Admins, &chain, now + 5).expect_err("another key");
    assert!(error.to_string().contains("belongs to another certificate"), "{error}");
    let other = tempfile::tempdir().expect("a directory");
    let foreign = site_pki(other.path(), &request, &p256, GOOD, "30");
    let foreign_root = &foreign[foreign.find("-----END").map(|at| at + 25).expect("two")..];
    let mixed = format!("{}{foreign_root}", &chain[..first]);
    let error = ca.import(CaRole::Nodes, &mixed, now + 5).expect_err("another root");
    assert!(error.to_string().contains("would not verify"), "{error}");
    assert_eq!(*nodes(&ca).certificate(), before);
    assert_eq!(ca.bundle().expect("the bundle").len(), 1);
    let report = ca.import(CaRole::Nodes, &chain, now + 5).expect("the good one still works");
    assert!(report.not_after_unix_s > now);
}
