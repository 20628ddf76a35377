//! `attestor sign`: what it refuses to sign, and time stamps of an authority that a job asks by itself.

use std::sync::OnceLock;

use swtpm_tests::{
    job_site::{JobSite, JobSiteOptions, program},
    timestamp_server,
};
use verifier::{
    ca::{CaDir, CaRole},
    clock::{Clock, SystemClock},
    results_service::{ExternalAuthorities, ResultsSigner},
};

use super::{POOL, Signed, all};

/// A clock that is ahead of everybody's.
#[derive(Clone, Copy, Debug)]
struct Ahead(i64);

impl Clock for Ahead {
    fn now_unix_s(&self) -> i64 {
        SystemClock.now_unix_s() + self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_job_an_identity_or_a_time_stamp_nothing_is_signed() {
    let mut site = JobSite::start().await.unwrap();
    std::fs::write(site.path("app.bin"), "a").unwrap();
    let endpoint = format!("unix://{}", site.workload_socket().display());
    let no_file = |site: &JobSite| assert!(!site.path("app.bin.sigstore.json").exists());
    // Not in a job.
    let output = site.run(&["sign", "app.bin"]).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    assert!(all(&output).contains("SPIFFE_ENDPOINT_SOCKET is not set"), "{}", all(&output));
    let output = site.run(&["sign", "app.bin", "--workload-socket", &endpoint]).await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
    assert!(all(&output).contains("WORKLOAD_IDENTITY_NONE"), "{}", all(&output));
    no_file(&site);
    let me = program("attestor").display().to_string();
    // Usage, and a file that is not there.
    let in_a_job = |script: &str| {
        let script = script.replace("ME", &me);
        ["exec", "--job", "generic", "--", "sh", "-c", &script].map(str::to_owned)
    };
    for (script, code) in [
        ("ME sign app.bin other.bin --out one.json", 2),
        ("ME sign", 2),
        ("ME sign absent.bin", 1),
        ("ME sign app.bin --socket /nonexistent/job.sock", 1),
    ] {
        let arguments = in_a_job(script);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = site.run(&arguments).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {}", all(&output));
        no_file(&site);
    }
    // A verifier that is gone by then: the job waits for that before it signs.
    let script = in_a_job("echo begins; until test -e gone; do sleep 0.1; done; ME sign app.bin");
    let arguments: Vec<&str> = script.iter().map(String::as_str).collect();
    let mut command = site.attestor(&arguments);
    let started = site.path("started");
    command.stdout(std::fs::File::create(&started).unwrap());
    command.stderr(std::fs::File::create(site.path("errors")).unwrap());
    let mut child = command.spawn().unwrap();
    while !std::fs::read_to_string(&started).unwrap().contains("begins") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    site.cluster.stop_verifier().await.unwrap();
    std::fs::write(site.path("gone"), "").unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    let errors = std::fs::read_to_string(site.path("errors")).unwrap();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("GATE_NO_TIMESTAMP"), "{errors}");
    no_file(&site);
}

/// Answers every request over HTTP as an authority does; what `spoil` changes is of a broken one.
async fn serve_stamps(
    (signer, clock): (ResultsSigner, Ahead),
    spoil: fn(String, Vec<u8>) -> (String, Vec<u8>),
) -> u16 {
    let server = timestamp_server::serve(move |body| {
        let request = results::timestamp::Request::parse(&body).unwrap();
        let reply = signer.authority().answer_at(Some(&request), clock.now_unix_s()).unwrap();
        std::future::ready(Some(spoil(timestamp_server::HEAD.to_owned(), reply)))
    });
    server.await.unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_site_stamps_too_if_it_answers_what_was_asked() {
    // The job's certificates live no longer than its permit: a minute.
    let verifier_jobs = "check_every = \"1s\"\nmax_duration = \"60s\"\n".to_owned();
    let signed = Signed::with(JobSiteOptions { verifier_jobs, ..JobSiteOptions::default() }).await;
    let signer_ahead = |seconds| {
        let domain: verifier::ca::TrustDomain = "test.example".parse().unwrap();
        let ca = CaDir::new(signed.site.cluster.folder().join("state"), domain.clone());
        let issuer = ca.issuer(CaRole::Results).unwrap();
        let clock = Ahead(seconds);
        let (clock, others) = (std::sync::Arc::new(clock), ExternalAuthorities::default());
        (ResultsSigner::new(issuer, domain, clock, others).unwrap(), Ahead(seconds))
    };
    let signer = || signer_ahead(0);
    let sign = async |port: u16| {
        let _ = std::fs::remove_file(signed.site.path("app.bin.sigstore.json"));
        let me = program("attestor").display().to_string();
        let script = format!("{me} sign app.bin --timestamp-url http://127.0.0.1:{port}/tsa");
        let exec = ["exec", "--job", "generic", "--", "sh", "-c", &script];
        signed.site.run(&exec).await.unwrap()
    };
    let output = sign(serve_stamps(signer(), |head, reply| (head, reply)).await).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let output = signed.verify("app.bin.sigstore.json", "app.bin", &signed.root, POOL).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    type Spoil = fn(String, Vec<u8>) -> (String, Vec<u8>);
    let broken: [(Spoil, i32, &str); 5] = [
        (|head, _| (head, b"nonsense".to_vec()), 3, "RESULT_MALFORMED"),
        // A rejection.
        (|head, _| (head, vec![0x30, 5, 0x30, 3, 2, 1, 2]), 3, "RESULT_TIMESTAMP_REFUSED"),
        (|head, _| (head, vec![0; 100_000]), 1, "length limit exceeded"),
        (|head, reply| (head.replace("200 OK", "503 Busy"), reply), 1, "it answered 503"),
        (
            |head, reply| (head.replace("reply", "query"), reply),
            1,
            "no application/timestamp-reply",
        ),
    ];
    let mut servers = Vec::new();
    for (spoil, code, why) in broken {
        servers.push((serve_stamps(signer(), spoil).await, code, why));
    }
    // Clocks that are ahead: by more than any may be, and by more than the certificate lives.
    let honest: Spoil = |head, reply| (head, reply);
    servers.push((serve_stamps(signer_ahead(3600), honest).await, 3, "RESULT_TIMESTAMP_IN_FUTURE"));
    servers.push((serve_stamps(signer_ahead(200), honest).await, 1, "one of the clocks is wrong"));
    // The time stamp of another request, again and again.
    static FIRST: OnceLock<Vec<u8>> = OnceLock::new();
    let replayed: Spoil = |head, reply| (head, FIRST.get_or_init(|| reply).clone());
    let port = serve_stamps(signer(), replayed).await;
    assert_eq!(sign(port).await.status.code(), Some(0));
    servers.push((port, 3, "RESULT_TIMESTAMP_NONCE"));
    for (port, code, why) in servers {
        let output = sign(port).await;
        assert_eq!(output.status.code(), Some(code), "{why}: {}", all(&output));
        assert!(all(&output).contains(why), "{why}: {}", all(&output));
        assert!(!signed.site.path("app.bin.sigstore.json").exists(), "{why}");
    }
}
