//! Appraisal beside the raw signature verification that it cannot do without.
//!
//! The budget: a renewal (P-256 quote, 15 golden PCRs, no new log events) at 0.8 of the rate at which aws-lc-rs alone
//! verifies a P-256 signature over the same bytes, in the same run on the same thread.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use appraisal::{
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise,
    boot::Boot,
    context::Signer,
    ek::{AllowListed, EkPolicy, EkPresented, Profile, ek_digest, verify_ek},
    verdict::Verdict,
    verification_key::uncompressed_point,
    x509::{Certificate, RevocationRequirement, RootsBuilder},
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use proto::{
    digest::HashAlg,
    evidence::Evidence,
    tpm::{
        public::{Curve, KeyKind},
        signature::SignatureValue,
    },
};
use soft_tpm::{Algorithm, EkKind};

#[path = "../tests/ek_support/mod.rs"]
mod ek_support;
#[path = "../tests/site/mod.rs"]
mod site;

use site::{SECRET, Site, admitted, evidence, set};

/// PCRs of the golden set: 15 in one bank.
const PCRS: [u8; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17];
/// Alternating rounds, so that a busy neighbour slows both sides alike.
const ROUNDS: u32 = 40;
const PER_ROUND: u32 = 500;
/// Share of the raw rate that a renewal must reach.
const BUDGET: f64 = 0.8;

struct Renewal {
    site: Site,
    boot: Boot,
    evidence: Evidence,
}

fn renewal() -> Renewal {
    let banks = [(HashAlg::Sha256, set(&PCRS))];
    let site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &banks);
    let boot = site.enrol().boot;
    let evidence = evidence(&site.renewal(&boot));
    Renewal { site, boot, evidence }
}

impl Renewal {
    fn appraise(&self) {
        let signer = Signer::Known(self.boot.clone());
        let appraisal = appraise(black_box(&self.evidence), signer, &self.site.context());
        assert!(matches!(appraisal.verdict, Verdict::Admit(_)));
    }
}

/// What the raw side verifies: the same key, message and signature.
struct Raw {
    point: Vec<u8>,
    parsed: ParsedPublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Raw {
    fn of(renewal: &Renewal) -> Self {
        let KeyKind::Ecc { x, y, .. } = renewal.site.tpm.ak_public.key() else {
            unreachable!("a P-256 AK")
        };
        let point = uncompressed_point(Curve::P256, x, y).expect("a point");
        let quote = &renewal.evidence.quote;
        let SignatureValue::Ecc { r, s } = &quote.signature.value else {
            unreachable!("an ECDSA signature")
        };
        Self {
            parsed: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).expect("a key"),
            point,
            message: quote.untrusted_attest.clone(),
            signature: [r.as_slice(), s.as_slice()].concat(),
        }
    }

    fn parsed(&self) {
        self.parsed.verify_sig(black_box(&self.message), &self.signature).expect("verifies");
    }

    fn unparsed(&self) {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(black_box(&self.message), &self.signature)
            .expect("verifies");
    }
}

/// A name and what it does.
type Contestant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Microseconds of one call, the fastest of all rounds: what the code costs without neighbours.
fn fastest(contestants: &mut [Contestant<'_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, run), best) in contestants.iter_mut().zip(&mut best) {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                run();
            }
            *best = best.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(PER_ROUND));
        }
    }
    best
}

fn ratio(_: &mut Criterion) {
    let renewal = renewal();
    let raw = Raw::of(&renewal);
    let mut contestants: [Contestant<'_>; 3] = [
        ("raw verification, parsed key", Box::new(|| raw.parsed())),
        ("raw verification, key parsed each time", Box::new(|| raw.unparsed())),
        ("renewal appraisal", Box::new(|| renewal.appraise())),
    ];
    let times = fastest(&mut contestants);
    for ((name, _), micros) in contestants.iter().zip(&times) {
        println!("{name}: {micros:.2} us, {:.0}/s", 1e6 / micros);
    }
    let [parsed, unparsed, appraised] = <[f64; 3]>::try_from(times).expect("three");
    println!("renewal / raw (parsed key): {:.3}, budget {BUDGET}", parsed / appraised);
    println!("renewal / raw (key parsed each time): {:.3}", unparsed / appraised);
    println!("appraisal without the signature: {:.2} us", appraised - parsed);
}

fn renewals(criterion: &mut Criterion) {
    let renewal = renewal();
    let raw = Raw::of(&renewal);
    let mut group = criterion.benchmark_group("renewal");
    group.bench_function("raw-p256-parsed-key", |bench| bench.iter(|| raw.parsed()));
    group.bench_function("raw-p256-unparsed-key", |bench| bench.iter(|| raw.unparsed()));
    group.bench_function("appraise", |bench| bench.iter(|| renewal.appraise()));
    group.bench_function("claims-document", |bench| {
        let proven =
            admitted(renewal.site.judge(&renewal.evidence, Signer::Known(renewal.boot.clone())));
        bench.iter(|| serde_json::to_vec(&proven.claims.document()).expect("JSON"));
    });
    group.finish();
}

/// EK chain of three certificates, AK, activation, quote, certification, log of two tools.
fn enrolments(criterion: &mut Criterion) {
    let site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &[(HashAlg::Sha256, set(&PCRS))]);
    let evidence = evidence(&site.answer());
    let pki = ek_support::Pki::new();
    let world = pki.world();
    let roots = world.roots();
    let mut group = criterion.benchmark_group("enrolment");
    group.bench_function("ek-chain", |bench| {
        bench.iter(|| world.judge_with(black_box(&roots)).expect("trusted"));
    });
    group.bench_function("certificate-parse", |bench| {
        let der = world.certificate.as_deref().expect("a certificate");
        bench.iter(|| Certificate::parse(black_box(der)).expect("parses"));
    });
    group.bench_function("appraise", |bench| {
        bench.iter_batched(
            || site.activating(),
            |signer| {
                let appraisal = appraise(black_box(&evidence), signer, &site.context());
                assert!(matches!(appraisal.verdict, Verdict::Admit(_)));
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("hello-and-appraise", |bench| {
        let (allow_listed, _) = RootsBuilder::new().build();
        bench.iter(|| {
            // The chain of a certified EK, then the boot of an allow-listed one: together, an enrolment.
            world.judge_with(&roots).expect("trusted");
            let policy = EkPolicy {
                roots: &allow_listed,
                allow_listed: AllowListed::ByDigest(ek_digest(site.tpm.ek.public())),
                now_unix_s: site.now,
                profile: Profile::AsShipped,
                revocation: RevocationRequirement::IfKnown,
            };
            let presented =
                EkPresented { public: site.tpm.ek.public(), certificate: None, chain: &[] };
            let ek = verify_ek(&presented, &policy).expect("allow-listed");
            let ak = RestrictedAk::verify(&site.tpm.ak_public).expect("an AK");
            let activation = ActivationChallenge::new(&ek, ak, SECRET);
            let signer = Signer::Activating { ek, activation };
            let appraisal = appraise(black_box(&evidence), signer, &site.context());
            assert!(matches!(appraisal.verdict, Verdict::Admit(_)));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = ratio, renewals, enrolments
}
criterion_main!(benches);
