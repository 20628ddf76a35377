//! What the verifier states, stamped by OpenSSL's authority instead of its own.

use serde_json::Value;
use swtpm_tests::{
    job_site::{JobSiteOptions, finish, program},
    timestamp_server::OpensslAuthority,
};

use super::{
    RESULTS, Signed,
    admission::{GOOD, POLICY, at, broken},
    all, documented,
};

/// A site whose verifier has its statements stamped there, and trusts the certificates of another or of the same.
fn site(stamps: &OpensslAuthority, trusted: &OpensslAuthority) -> JobSiteOptions {
    let verifier_results = format!(
        "[[timestamp_authority]]\nurl = \"{}\"\nca = \"{}\"\nstamps = true\n",
        stamps.url(),
        trusted.chain().display()
    );
    JobSiteOptions { verifier_results, ..JobSiteOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_stamped_by_an_authority_of_the_site_or_no_job_starts() {
    let authority = OpensslAuthority::start().await.unwrap();
    let signed = Signed::with(site(&authority, &authority)).await;
    let url = authority.url();

    // The list that relying parties get names both; the chain holds, and says whose time it is.
    let list: Value = serde_json::from_slice(&signed.read("trusted_root.json")).unwrap();
    let named: Vec<_> = list["timestampAuthorities"].as_array().unwrap().iter().collect();
    assert_eq!(named.len(), 2);
    assert_eq!(
        (&named[0]["uri"], &named[1]["uri"]),
        (&"spiffe://test.example".into(), &url.clone().into())
    );
    let output = signed.admit(POLICY, &GOOD).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let root = signed.root.display().to_string();
    let arguments = ["admit", "app.bin", "--results", "results", "--trusted-root", &root];
    let shown =
        all(&signed.anybody(&[&arguments[..], &["--policy", "policy.toml"]].concat()).await);
    assert_eq!(shown.matches(&format!("time stamp of {url}")).count(), 2, "{shown}");

    // OpenSSL agrees, by the documented commands.
    let folder = signed.site.path("openssl");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("trusted_root.json"), signed.read("trusted_root.json")).unwrap();
    std::fs::write(folder.join("bundle.json"), signed.read("results/dispatch.sigstore.json"))
        .unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-euc", &(documented("trusted-root") + &documented("verify-bundle"))])
        .env("identity", RESULTS)
        .current_dir(&folder);
    let output = finish(command).await.unwrap();
    assert!(output.status.success() && all(&output).contains("Verified OK"), "{}", all(&output));

    // Who has a list without it believes the job's time, which the verifier stamped, and not the statements'.
    let mut without = list.clone();
    without["timestampAuthorities"].as_array_mut().unwrap().truncate(1);
    std::fs::write(&signed.root, without.to_string()).unwrap();
    let found = broken(&signed.admit(POLICY, &GOOD).await);
    let untrusted = |link| at(link, "RESULT_TIMESTAMP_UNTRUSTED");
    assert_eq!(found, [untrusted("job ← permit"), untrusted("permit ← node")]);
    std::fs::write(&signed.root, list.to_string()).unwrap();

    // A job that has its own signature stamped there proves no permit by it, unless the policy takes that.
    let me = program("attestor").display().to_string();
    let script = format!("{me} sign app.bin --timestamp-url {url}");
    let exec = ["exec", "--job", "generic", "--out", "results", "--", "sh", "-c", &script];
    let output = signed.site.run(&exec).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let found = broken(&signed.admit(POLICY, &GOOD).await);
    assert_eq!(found, [at("artifact ← job", "ADMIT_TIMESTAMP_AUTHORITY_NOT_ACCEPTED")]);
    let named = format!("artifact_timestamp_authorities = [\"{url}\"]\n{POLICY}");
    let output = signed.admit(&named, &GOOD).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));

    // Nobody stamps: nothing is dispatched. The next job starts as if nothing had been.
    let run = async || {
        signed.site.run(&["exec", "--job", "generic", "--", "echo", "it ran"]).await.unwrap()
    };
    authority.answers(false);
    let output = run().await;
    assert_ne!(output.status.code(), Some(0), "{}", all(&output));
    let said = all(&output);
    assert!(said.contains("GATE_NO_VERDICT") && !said.contains("it ran"), "{said}");
    authority.answers(true);
    let output = run().await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(all(&output).contains("it ran"), "{}", all(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_with_other_certificates_than_the_configuration_s_stamps_nothing() {
    let [stamps, trusted] =
        [OpensslAuthority::start().await.unwrap(), OpensslAuthority::start().await.unwrap()];
    let options = site(&stamps, &trusted);
    let site = swtpm_tests::job_site::JobSite::start_with(options).await.unwrap();
    let output = site.run(&["exec", "--job", "generic", "--", "echo", "it ran"]).await.unwrap();
    let said = all(&output);
    assert!(said.contains("GATE_NO_VERDICT") && !said.contains("it ran"), "{said}");
}
