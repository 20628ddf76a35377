//! OpenSSL and jq verify what we write, and we verify what OpenSSL stamps.
mod support;

use results::{
    Code, Sha256Digest,
    bundle::{CertificateAuthority, Content, MessageSignature, TrustedRoot},
    certificate::Certificate,
    timestamp::{DEFAULT_POLICY, Request, Response},
    verify::Trust,
};
use support::{
    Chain, Leaf, NOW, TSA_SERIAL, World, at,
    chain::{ARTIFACT, with_payload},
    pki::{self, DAY},
    tools::{Folder, has_openssl},
};

const MESSAGE: &[u8] = b"a signature";

/// A folder with a world's certificates in PEM.
fn folder(world: &World) -> Folder {
    let folder = Folder::new();
    folder.file("message", MESSAGE);
    folder.file("tsa-root.pem", pki::pem(&world.tsa_root.der));
    folder.file("tsa.pem", pki::pem(&world.tsa_der));
    folder.file("root.pem", pki::pem(&world.root.der));
    folder.file("issuing.pem", pki::pem(&world.issuing.der));
    folder
}

fn verifies(folder: &Folder, arguments: &str) -> (bool, String) {
    folder.shell(&format!("openssl ts -verify -attime {NOW} {arguments}"))
}

#[test]
fn openssl_verifies_our_time_stamps() {
    if !has_openssl() {
        return;
    }
    let world = World::new();
    let folder = folder(&world);
    folder.file("stamp.tsr", world.stamp(MESSAGE, NOW));
    let (is_good, text) = verifies(&folder, "-data message -in stamp.tsr -CAfile tsa-root.pem");
    assert!(is_good, "{text}");
    let (is_good, text) = verifies(&folder, "-data message -in stamp.tsr -CAfile root.pem");
    assert!(!is_good, "{text}");
    folder.file("other", b"another");
    let (is_good, text) = verifies(&folder, "-data other -in stamp.tsr -CAfile tsa-root.pem");
    assert!(!is_good && text.contains("message imprint mismatch"), "{text}");
    let (is_good, text) = folder.shell("openssl ts -reply -in stamp.tsr -text");
    assert!(is_good, "{text}");
    for line in [
        "Status: Granted.",
        &format!("Policy OID: {DEFAULT_POLICY}"),
        "Hash Algorithm: sha256",
        "Serial number: 0x0107070707070707070707070707070707",
        "Time stamp: Nov 27 06:00:00 2026 GMT",
        "Accuracy: 0x01 seconds",
        "Ordering: no",
        "Nonce: unspecified",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn our_authority_answers_requests_of_openssl() {
    if !has_openssl() {
        return;
    }
    let world = World::new();
    let folder = folder(&world);
    for (arguments, untrusted) in [
        ("-sha256 -cert", ""),
        ("-sha256 -cert -no_nonce", ""),
        ("-sha256", "-untrusted tsa.pem"),
        (&*format!("-sha256 -cert -tspolicy {DEFAULT_POLICY}"), ""),
    ] {
        let query = format!("openssl ts -query -data message {arguments} -out request.tsq");
        let (is_good, text) = folder.shell(&query);
        assert!(is_good, "{text}");
        let request = folder.read("request.tsq");
        let answer = world.authority().answer(&request, &TSA_SERIAL, at(NOW));
        assert_eq!(answer.failure, None, "{arguments}");
        folder.file("answer.tsr", &answer.der);
        let (is_good, text) = verifies(
            &folder,
            &format!("-queryfile request.tsq -in answer.tsr -CAfile tsa-root.pem {untrusted}"),
        );
        assert!(is_good, "{arguments}: {text}");
        let response = Response::parse(&answer.der).expect("a response");
        let request = Request::parse(&request).expect("a request");
        let time = response.verify_answer(&request, &[world.tsa_authority()], at(NOW));
        assert_eq!(time.map(|time| time.at()), Ok(at(NOW)), "{arguments}");
    }
    for (arguments, reason) in [
        ("-sha512 -cert", "transaction not permitted or supported"),
        ("-sha256 -cert -tspolicy 1.2.3.4", "TSA policy is not supported"),
    ] {
        let query = format!("openssl ts -query -data message {arguments} -out request.tsq");
        assert!(folder.shell(&query).0);
        let answer = world.authority().answer(&folder.read("request.tsq"), &TSA_SERIAL, at(NOW));
        folder.file("answer.tsr", &answer.der);
        let (_, text) = folder.shell("openssl ts -reply -in answer.tsr -text");
        assert!(text.contains("Status: Rejected."), "{text}");
        assert!(text.contains(reason), "{arguments}: {text}");
    }
}

/// OpenSSL's authority, with a configuration that differs from ours in all that may differ.
const TSA_CONFIG: &str = "
[tsa]
serial = ./serial
crypto_device = builtin
signer_cert = ./tsa.pem
certs = ./tsa-root.pem
signer_key = ./tsa.key
signer_digest = DIGEST
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.5
digests = sha256, sha512
accuracy = secs:1, millisecs:500, microsecs:100
clock_precision_digits = DIGITS
ordering = yes
tsa_name = yes
ess_cert_id_chain = CHAIN
ess_cert_id_alg = ESS
";

#[test]
fn we_verify_time_stamps_of_openssl() {
    if !has_openssl() {
        return;
    }
    // OpenSSL stamps with its own clock: a certificate of decades.
    let mut world = World::new();
    let long = Leaf { from: NOW - 900 * DAY, until: NOW + 19 * 365 * DAY, ..Leaf::tsa() };
    world.tsa_der = world.tsa_root.leaf(&world.tsa_key, &long);
    let folder = folder(&world);
    folder.file("key.der", &world.tsa_key.pkcs8);
    folder.file("serial", "1000\n");
    assert!(folder.shell("openssl pkey -in key.der -inform DER -out tsa.key").0);
    let far = at(NOW + 19 * 365 * DAY);
    let authorities = |world: &World| {
        let chain = [world.tsa_der.clone(), world.tsa_root.der.clone()];
        [CertificateAuthority::new("x:tsa", ["", ""], &chain, at(0), None).expect("it")]
    };
    let stranger = World::new();
    for (digest, digits, chain, ess, query) in [
        ("sha256", "0", "no", "sha256", "-cert"),
        ("sha384", "3", "yes", "sha256", "-cert"),
        ("sha512", "0", "no", "sha256", "-tspolicy 1.2.3.4.5"),
    ] {
        let config = TSA_CONFIG
            .replace("DIGEST", digest)
            .replace("DIGITS", digits)
            .replace("CHAIN", chain)
            .replace("ESS", ess);
        folder.file("tsa.cnf", config);
        let (is_good, text) = folder.shell(&format!(
            "openssl ts -query -data message -sha256 {query} -out request.tsq
             openssl ts -reply -config tsa.cnf -section tsa -queryfile request.tsq -out answer.tsr"
        ));
        assert!(is_good, "{text}");
        let request = Request::parse(&folder.read("request.tsq")).expect("a request");
        let response = Response::parse(&folder.read("answer.tsr")).expect("a response");
        let time = response.verify_answer(&request, &authorities(&world), far);
        let time = time.expect("a time");
        assert!(time.at() > at(NOW - 900 * DAY), "{}", time.at());
        let refusal = response.verify_answer(&request, &authorities(&stranger), far);
        assert_eq!(refusal.expect_err("a stranger").code(), Code::TimestampUntrusted);
        let refusal = response.verify(&Sha256Digest::of(b"x"), &authorities(&world), far);
        assert_eq!(refusal.expect_err("other bytes").code(), Code::TimestampImprint);
    }
    // The old way of naming the certificate, by SHA-1, is no way.
    let config = TSA_CONFIG.replace("DIGEST", "sha256").replace("DIGITS", "0");
    folder.file("tsa.cnf", config.replace("CHAIN", "no").replace("ESS", "sha1"));
    let reply =
        "openssl ts -reply -config tsa.cnf -section tsa -queryfile request.tsq -out answer.tsr";
    assert!(folder.shell(reply).0);
    let response = Response::parse(&folder.read("answer.tsr")).expect("a response");
    let refusal = response.verify(&Sha256Digest::of(MESSAGE), &authorities(&world), far);
    assert_eq!(refusal.expect_err("SHA-1").code(), Code::TimestampInvalid);
}

/// An authority as those for everybody are: RSA keys, with a certificate between, which the answer brings along.
const RSA_AUTHORITY: &str = "
ca='-addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign'
req='openssl req -newkey rsa:2048 -nodes -days 3650'
$req -x509 -sha384 -subj /CN=root -keyout root.key -out tsa-root.pem $ca
$req -sha512 -subj /CN=between -keyout between.key -CA tsa-root.pem -CAkey root.key -out between.pem $ca
$req -sha256 -subj /CN=tsa -keyout tsa.key -CA between.pem -CAkey between.key -out tsa.pem \\
  -addext basicConstraints=CA:false -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=critical,timeStamping
echo 1000 > serial
for name in tsa-root between; do openssl x509 -in $name.pem -outform DER -out $name.der; done
";

/// Where the algorithm of the signer is named, `rsaEncryption`: those before it are of certificates.
fn rsa_encryption(answer: &[u8]) -> usize {
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    answer.windows(9).rposition(|nine| nine == oid).expect("an RSA signature")
}

/// The answer with another algorithm of PKCS #1 named there.
fn named_by_signature(answer: &[u8], last: u8) -> Vec<u8> {
    let mut renamed = answer.to_vec();
    renamed[rsa_encryption(answer) + 8] = last;
    renamed
}

#[test]
fn rsa_is_for_time_stamps_and_not_above_who_signs() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new();
    let key = pki::Key::new();
    folder.file("job.der", &key.pkcs8);
    let (is_good, text) = folder.shell(&format!(
        "{RSA_AUTHORITY}
         openssl pkey -in job.der -inform DER -out job.key
         openssl req -new -key job.key -subj /CN=job -CA tsa-root.pem -CAkey root.key -days 30 -outform DER -out leaf.der \\
           -addext basicConstraints=CA:false -addext keyUsage=critical,digitalSignature \\
           -addext extendedKeyUsage=codeSigning -addext subjectAltName=URI:{}",
        pki::JOB_ID
    ));
    assert!(is_good, "{text}");
    let leaf = folder.read("leaf.der");
    let certificate = Certificate::parse("leaf", &leaf).expect("a certificate");
    let now = certificate.not_before();
    let mut world = World::new();
    let long = Leaf { from: NOW - 900 * DAY, until: NOW + 19 * 365 * DAY, ..Leaf::tsa() };
    world.tsa_der = world.tsa_root.leaf(&world.tsa_key, &long);
    let digest = Sha256Digest::of(ARTIFACT);
    let message = MessageSignature::sign(digest, &&key).expect("signed");
    let bundle = world.bundle(&leaf, Content::Artifact(message), now.unix_s());
    let issuer =
        CertificateAuthority::new("x:ca", ["", ""], &[folder.read("tsa-root.der")], at(0), None);
    let root =
        TrustedRoot::new(vec![issuer.expect("it")], vec![world.tsa_authority()]).expect("a list");
    let identities = [pki::JOB_ID.parse().expect("an identity")];
    let trust = Trust { root: &root, identities: &identities };
    let timed = bundle.prove_time(&root, now).expect("a time");
    let refusal = timed.verify_artifact(&digest, &trust).expect_err("RSA");
    assert_eq!(refusal.code(), Code::CertificateUntrusted, "{refusal}");
}

#[test]
fn we_verify_time_stamps_of_rsa_authorities() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new();
    let (is_good, text) = folder.shell(RSA_AUTHORITY);
    assert!(is_good, "{text}");
    let root = folder.read("tsa-root.der");
    let trusted = |chain: &[Vec<u8>]| {
        [CertificateAuthority::new("x:tsa", ["", ""], chain, at(0), None).expect("it")]
    };
    let far = at(NOW + 19 * 365 * DAY);
    let config = TSA_CONFIG.replace("DIGITS", "0").replace("CHAIN", "no").replace("ESS", "sha256");
    for digest in ["sha256", "sha384", "sha512"] {
        for (certs, chain) in [
            // The authority brings what stands between, or the list has it.
            ("between.pem", vec![root.clone()]),
            ("tsa.pem", vec![folder.read("between.der"), root.clone()]),
        ] {
            let config = config.replace("DIGEST", digest).replace("./tsa-root.pem", certs);
            folder.file("tsa.cnf", config);
            folder.file("message", MESSAGE);
            let (is_good, text) = folder.shell(
                "openssl ts -query -data message -sha256 -cert -out request.tsq
                 openssl ts -reply -config tsa.cnf -section tsa -queryfile request.tsq -out answer.tsr",
            );
            assert!(is_good, "{text}");
            let request = Request::parse(&folder.read("request.tsq")).expect("a request");
            let answer = folder.read("answer.tsr");
            let response = Response::parse(&answer).expect("a response");
            let time = response.verify_answer(&request, &trusted(&chain), far);
            assert!(time.is_ok(), "{digest} {certs}: {time:?}");
            let stranger = [World::new().tsa_authority()];
            let refusal = response.verify_answer(&request, &stranger, far);
            assert_eq!(refusal.expect_err("a stranger").code(), Code::TimestampUntrusted);
            // The other name for the same signature, which OpenSSL does not write.
            let named = [(b'\x0b', "sha256"), (b'\x0c', "sha384"), (b'\x0d', "sha512")];
            for (last, hash) in named {
                let renamed = named_by_signature(&answer, last);
                let renamed = Response::parse(&renamed).expect("a response");
                let time = renamed.verify_answer(&request, &trusted(&chain), far);
                assert_eq!(time.is_ok(), hash == digest, "{digest} as {hash}: {time:?}");
            }
            // Parameters other than none: of two bytes, as NULL has.
            let mut changed = answer.clone();
            let at = rsa_encryption(&answer) + 9;
            assert_eq!(changed[at..at + 2], [5, 0]);
            changed[at] = 4;
            let changed = Response::parse(&changed).expect("a response");
            let refusal = changed.verify_answer(&request, &trusted(&chain), far);
            assert_eq!(refusal.expect_err("parameters").code(), Code::TimestampInvalid, "{digest}");
            // The signature is what ends an answer.
            let mut changed = answer;
            *changed.last_mut().expect("bytes") ^= 1;
            let changed = Response::parse(&changed).expect("a response");
            let refusal = changed.verify_answer(&request, &trusted(&chain), far);
            assert_eq!(refusal.expect_err("changed").code(), Code::TimestampInvalid, "{digest}");
        }
    }
}

/// The commands of docs/RESULTS.md, on a good chain and on changed ones.
#[test]
fn the_documented_commands_verify_a_bundle() {
    if !has_openssl() {
        return;
    }
    let document = include_str!("../../../docs/RESULTS.md");
    let begin = document.find("```sh\n# verify-bundle\n").expect("the commands") + 6;
    let script = &document[begin..begin + document[begin..].find("```").expect("an end")];
    let chain = Chain::new();
    let run = |bundle: &str, identity: &str, [tsa, ca]: [&World; 2], artifact: &[u8]| {
        let folder = folder(ca);
        folder.file("tsa-root.pem", pki::pem(&tsa.tsa_root.der));
        folder.file("bundle.json", bundle);
        folder.file("artifact", artifact);
        folder.shell(&format!("identity={identity}\n{script}"))
    };
    let job = chain.job_bundle().to_json();
    let vsa = chain.vsa_bundle().to_json();
    let here = [&chain.world; 2];
    for (bundle, identity) in [(&job, pki::JOB_ID), (&vsa, pki::RESULTS_ID)] {
        let (is_good, text) = run(bundle, identity, here, ARTIFACT);
        assert!(is_good && text.contains("Verified OK"), "{text}");
    }
    let late = Chain { signed_at: NOW + 601, ..Chain::new() };
    let stranger = World::new();
    let changed = with_payload(&vsa, "node/n1", "node/n2");
    for (what, bundle, identity, worlds, artifact, last) in [
        ("another artifact", &job, pki::JOB_ID, here, &b"another"[..], "Verification failure"),
        ("another payload", &changed, pki::RESULTS_ID, here, ARTIFACT, "Verification failure"),
        ("another identity", &job, pki::RESULTS_ID, here, ARTIFACT, "leaf.pem: OK"),
        ("another root", &job, pki::JOB_ID, [&chain.world, &stranger], ARTIFACT, "unable to get"),
        (
            "another authority's time",
            &job,
            pki::JOB_ID,
            [&stranger, &chain.world],
            ARTIFACT,
            "certificate verify error",
        ),
        (
            "out of time",
            &late.job_bundle().to_json(),
            pki::JOB_ID,
            [&late.world; 2],
            ARTIFACT,
            "certificate has expired",
        ),
    ] {
        let (is_good, text) = run(bundle, identity, worlds, artifact);
        assert!(!is_good && text.contains(last), "{what}: {text}");
        assert!(!text.contains("Verified OK"), "{what}: {text}");
    }
}
