//! Authorities of others: what they stamp counts where they are trusted, and what is not good is no time stamp.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response as Answer},
    routing::post,
};
use der::{Decode as _, EncodePem as _, pem::LineEnding};
use results::timestamp::ask::AskError;
use tokio::net::TcpListener;

use super::*;
use crate::config;

/// The authority of another site, which stands for any: the certificates above it, and what answers.
struct Authority {
    site: Site,
    ca: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let site = Site::new();
        let chain = site.ca.chains(CaRole::Results).expect("chains").remove(0);
        let ca = site.folder.path().join("chain.pem");
        std::fs::write(&ca, pem(&chain)).expect("written");
        Self { site, ca }
    }

    fn answer(&self, request: &[u8], now: i64) -> Answer {
        let request = Request::parse(request).expect("a request");
        let answer = self.site.signer.authority().answer_at(Some(&request), now);
        ([(CONTENT_TYPE, "application/timestamp-reply")], answer.expect("an answer"))
            .into_response()
    }

    /// Answers over HTTP as `reply` does with the number of the request, from 0.
    async fn serve(
        self: &Arc<Self>,
        reply: impl Fn(&Self, usize, &[u8]) -> Answer + Send + Sync + Clone + 'static,
    ) -> config::TimestampAuthority {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/tsa", listener.local_addr().expect("an address"));
        let (this, count) = (Arc::clone(self), Arc::new(AtomicUsize::new(0)));
        let handler = move |body: Bytes| async move {
            reply(&this, count.fetch_add(1, Ordering::Relaxed), &body)
        };
        let pages = Router::new().route("/tsa", post(handler));
        tokio::spawn(async move { axum::serve(listener, pages).await });
        let url = url.parse().expect("a URL");
        config::TimestampAuthority { url, ca: self.ca.clone(), stamps: true }
    }

    /// As an honest authority whose clock is that far from the verifier's, seconds.
    async fn honest(self: &Arc<Self>, skew: i64) -> config::TimestampAuthority {
        self.serve(move |this, _, body| this.answer(body, NOW_I64 + skew)).await
    }
}

fn pem(chain: &[Vec<u8>]) -> String {
    let encode = |der: &Vec<u8>| {
        let certificate = x509_cert::Certificate::from_der(der).expect("a certificate");
        certificate.to_pem(LineEnding::LF).expect("PEM")
    };
    chain.iter().map(encode).collect()
}

fn read(authorities: &[config::TimestampAuthority]) -> Result<ExternalAuthorities, AuthorityError> {
    ExternalAuthorities::read(&config::Results { timestamp_authorities: authorities.to_vec() })
}

fn site(authority: config::TimestampAuthority) -> Site {
    Site::with(read(&[authority]).expect("read"))
}

async fn stamp(site: &Site) -> Result<Bundle, ResultsError> {
    stamp_after(site, NOW_I64).await
}

async fn stamp_after(site: &Site, earliest: i64) -> Result<Bundle, ResultsError> {
    let unstamped = site.signer.sign(&vsa())?;
    let json = site.signer.stamp(unstamped, at(earliest)).await?;
    Ok(Bundle::parse(&json).expect("it parses"))
}

async fn refused(authority: config::TimestampAuthority) -> StampError {
    refused_after(authority, NOW_I64).await
}

async fn refused_after(authority: config::TimestampAuthority, earliest: i64) -> StampError {
    match stamp_after(&site(authority), earliest).await {
        Err(ResultsError::Stamp { source, .. }) => *source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_another_authority_stamps_counts_where_it_is_trusted() {
    let authority = Arc::new(Authority::new());
    let served = authority.honest(0).await;
    let url = served.url.to_string();
    let site = site(served);
    let bundle = stamp(&site).await.expect("stamped");
    let root = site.root();
    assert_eq!(root.timestamp_authorities().len(), 2);
    assert_eq!(verify(&bundle, &root, RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
    let timed = bundle.prove_time(&root, at(NOW_I64)).expect("a time");
    assert_eq!(timed.time().authority(), url);
    // Those who got their list before, or of a verifier that does not name it.
    let without = trusted_root(&site.ca, &ExternalAuthorities::default()).expect("a list");
    assert_eq!(verify(&bundle, &without, RESULTS_ID, NOW_I64), Err(Code::TimestampUntrusted));
    // Jobs have theirs stamped by the verifier's own all the same.
    let request = Request::new(Sha256Digest::of(b"signature"), &[7; 16]).expect("a request");
    let reply = site.signer.authority().answer_at(Some(&request), NOW_I64).expect("an answer");
    let response = Response::parse(&reply).expect("granted");
    let own = response.verify_answer(&request, without.timestamp_authorities(), at(NOW_I64));
    assert_eq!(own.expect("the verifier's").authority(), trust_domain().id().to_string());
}

#[tokio::test]
async fn one_that_is_only_trusted_stamps_nothing() {
    let authority = Arc::new(Authority::new());
    let nobody = config::TimestampAuthority {
        url: "http://127.0.0.1:1/".parse().expect("a URL"),
        ca: authority.ca.clone(),
        stamps: false,
    };
    let site = site(nobody);
    let bundle = stamp(&site).await.expect("stamped");
    assert_eq!(verify(&bundle, &site.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
    assert_eq!(site.root().timestamp_authorities().len(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_good_is_no_time_stamp() {
    let authority = Arc::new(Authority::new());
    let code = async |served| match refused(served).await {
        StampError::Refused(refusal) => refusal.code(),
        other => panic!("{other:?}"),
    };
    // By somebody whose certificates are not those of the configuration.
    let mut served = Arc::new(Authority::new()).honest(0).await;
    served.ca.clone_from(&authority.ca);
    assert_eq!(code(served).await, Code::TimestampUntrusted);
    // Over the same bytes, for another request.
    let served = authority.serve(|this, _, body| {
        let mut other = Request::parse(body).expect("a request");
        other = Request::new(other.imprint, &[9; 16]).expect("a request");
        this.answer(&other.to_der().expect("DER"), NOW_I64)
    });
    assert_eq!(code(served.await).await, Code::TimestampNonce);
    let served = authority.serve(|this, _, body| {
        let request = Request::parse(body).expect("a request");
        let mut der = request.to_der().expect("DER");
        // A byte of the imprint, which the nonce and the last field follow.
        let at = der.windows(32).position(|w| w == request.imprint.as_bytes()).expect("there");
        der[at] ^= 1;
        this.answer(&der, NOW_I64)
    });
    assert_eq!(code(served.await).await, Code::TimestampImprint);
    let served = authority.serve(|_, _, _| {
        ([(CONTENT_TYPE, "application/timestamp-reply")], "nonsense").into_response()
    });
    assert_eq!(code(served.await).await, Code::Malformed);
}

#[tokio::test]
async fn an_authority_that_does_not_answer_stamps_nothing_and_is_not_waited_for_long() {
    let authority = Arc::new(Authority::new());
    let mut nobody = authority.honest(0).await;
    nobody.url = "http://127.0.0.1:1/".parse().expect("a URL");
    let busy = authority.serve(|_, _, _| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    // It takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut silent = authority.honest(0).await;
    let address = listener.local_addr().expect("an address");
    silent.url = format!("http://{address}/").parse().expect("a URL");
    let began = Instant::now();
    let (nobody, busy, silent) = tokio::join!(refused(nobody), refused(busy), refused(silent));
    assert!(matches!(nobody, StampError::Ask(AskError::Unreachable(_))), "{nobody:?}");
    assert!(matches!(busy, StampError::Ask(AskError::Status(_))), "{busy:?}");
    assert!(matches!(silent, StampError::Ask(AskError::Late(_))), "{silent:?}");
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    // What asking again would not change is told at once.
    let elsewhere = authority.serve(|_, _, _| StatusCode::NOT_FOUND.into_response()).await;
    let began = Instant::now();
    let asked = refused(elsewhere).await;
    assert!(matches!(asked, StampError::Ask(AskError::Status(_))), "{asked:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let authority = Arc::new(Authority::new());
    let hiccup = authority.serve(|this, asked, body| match asked {
        0 => StatusCode::BAD_GATEWAY.into_response(),
        _ => this.answer(body, NOW_I64),
    });
    let site = site(hiccup.await);
    let bundle = stamp(&site).await.expect("stamped");
    assert_eq!(verify(&bundle, &site.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
}

#[tokio::test]
async fn a_clock_that_is_a_little_off_is_waited_for_and_one_that_is_wrong_is_not() {
    let authority = Arc::new(Authority::new());
    // A statement is not to be older than what it says: it is asked for again.
    let behind = authority.serve(|this, asked, body| {
        this.answer(body, NOW_I64 - 1 + i64::try_from(asked).expect("few"))
    });
    let slow = site(behind.await);
    let began = Instant::now();
    let bundle = stamp(&slow).await.expect("stamped");
    assert_eq!(verify(&bundle, &slow.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64)));
    assert!(began.elapsed() >= Duration::from_secs(1));
    // What comes after is to be stamped after.
    let fast = site(authority.honest(1).await);
    let began = Instant::now();
    let bundle = stamp(&fast).await.expect("stamped");
    assert_eq!(verify(&bundle, &fast.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64 + 1)));
    assert!(began.elapsed() >= Duration::from_secs(1));
    // What was found long before does not make the authority's clock right, nor wrong.
    let early = site(authority.honest(-3).await);
    let bundle = stamp_after(&early, NOW_I64 - 100).await.expect("stamped");
    assert_eq!(verify(&bundle, &early.root(), RESULTS_ID, NOW_I64), Ok(at(NOW_I64 - 3)));
    for (skew, earliest, side) in
        [(-4, NOW_I64, "behind"), (-4, NOW_I64 - 100, "behind"), (4, NOW_I64, "ahead of")]
    {
        match refused_after(authority.honest(skew).await, earliest).await {
            StampError::Clock { seconds: 4, side: told } => assert_eq!(told, side),
            other => panic!("{skew}: {other:?}"),
        }
    }
    // One that stands still a second before what the statement says.
    match refused(authority.honest(-1).await).await {
        StampError::Clock { seconds: 1, side: "behind" } => {}
        other => panic!("{other:?}"),
    }
}

/// The authority is right, and so was what is stated: it is the verifier's clock that was set since.
#[tokio::test]
async fn a_verifier_whose_clock_went_back_says_so() {
    let authority = Arc::new(Authority::new());
    for back in [4, 100_000] {
        let asked_for_nothing = authority.serve(|_, _, _| unreachable!("nobody is to be asked"));
        match refused_after(asked_for_nothing.await, NOW_I64 + back).await {
            StampError::WentBack { seconds } => assert_eq!(i64::try_from(seconds), Ok(back)),
            other => panic!("{other:?}"),
        }
    }
    // A little may be waited for; a clock of the test's stands still.
    match refused_after(authority.honest(0).await, NOW_I64 + 1).await {
        StampError::WentBack { seconds: 1 } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_told_with_the_key() {
    let authority = Arc::new(Authority::new());
    let good = authority.honest(0).await;
    let leaf = authority.site.bundle_der().await;
    let chain = authority.site.ca.chains(CaRole::Results).expect("chains").remove(0);
    let folder = tempfile::tempdir().expect("a folder");
    for (text, why) in [
        (String::new(), "has no certificate"),
        (pem(&[leaf]), "a CA at the end, the root"),
        (pem(&[chain[1].clone(), chain[0].clone()]), "issued by the next"),
        (pem(&[chain.clone(), chain.clone(), chain].concat()), "RESULT_TOO_LARGE"),
    ] {
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, text).expect("written");
        let error = read(&[good.clone(), config::TimestampAuthority { ca, ..good.clone() }]);
        let error = error.expect_err(why);
        assert_eq!(error.key(), "results.timestamp_authority[1].ca");
        let said = crate::service::status::chain(&error);
        assert!(said.contains(why) && said.contains("ca.pem"), "{said}");
    }
    // Each of them is told.
    let both = [folder.path().join("ca.pem"), folder.path().join("other.pem")];
    let both = both.map(|ca| config::TimestampAuthority { ca, ..good.clone() });
    let results = config::Results { timestamp_authorities: both.to_vec() };
    let (usable, problems) = ExternalAuthorities::read_all(&results);
    let keys: Vec<_> = problems.iter().map(AuthorityError::key).collect();
    assert_eq!((keys.len(), usable.trusted().len()), (2, 0), "{keys:?}");
    let ca = folder.path().join("absent.pem");
    let error = read(&[config::TimestampAuthority { ca, ..good }]).expect_err("no file");
    assert!(crate::service::status::chain(&error).contains("absent.pem"), "{error}");
}

impl Site {
    /// DER of a certificate that is no CA's.
    async fn bundle_der(&self) -> Vec<u8> {
        let bundle = stamp(self).await.expect("stamped");
        bundle.untrusted_certificate().der().to_vec()
    }
}
