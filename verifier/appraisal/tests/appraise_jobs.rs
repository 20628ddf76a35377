//! Jobs that ask for a permit: what an admission is for, and what none is given for.

mod site;

use std::collections::BTreeMap;

use appraisal::{
    appraise,
    context::{AppraisalContext, JobContext, Signer},
    verdict::{Finding, Verdict},
};
use proto::{
    binding::{JobBinding, Purpose},
    reason::ReasonCode,
};
use site::*;

const CLAIMS: &str = r#"{"job":{"source":"environment","value":"build"}}"#;

fn purpose() -> Purpose {
    let [key, claims, token] = ["key", "claims", "token"].map(|part| sha256(part.as_bytes()));
    Purpose::Permit(JobBinding { key, claims, token })
}

fn job(findings: Vec<Finding>) -> JobContext {
    JobContext { claims: CLAIMS.to_owned(), token: BTreeMap::new(), findings }
}

/// A renewal whose quote and challenge are for `purpose`, and whose job is what the verifier takes one for.
fn judged(site: &mut Site, purpose: Purpose, job: Option<&JobContext>) -> Verdict {
    let boot = site.enrol().boot;
    (site.issued.purpose, site.tpm.purpose) = (purpose, purpose);
    let evidence = evidence(&site.renewal(&boot));
    let context = AppraisalContext { job, ..site.context() };
    appraise(&evidence, Signer::Known(boot), &context).verdict
}

#[track_caller]
fn assert_denied(verdict: Verdict, code: ReasonCode) {
    match verdict {
        Verdict::Deny(denial) => assert_code(&denial, code),
        Verdict::Admit(_) => panic!("admitted"),
    }
}

/// An admission says which of the two it is for; whoever uses it for the other has to notice.
#[test]
fn an_admission_is_for_this_job_or_for_the_node() {
    for (purpose, job) in [(purpose(), Some(job(Vec::new()))), (Purpose::Node, None)] {
        match judged(&mut Site::new(), purpose, job.as_ref()) {
            Verdict::Admit(admission) => assert_eq!(admission.redeem().purpose, purpose),
            Verdict::Deny(denial) => panic!("denied: {denial:?}"),
        }
    }
}

#[test]
fn a_challenge_for_a_permit_and_a_job_come_together() {
    let job = job(Vec::new());
    assert_denied(judged(&mut Site::new(), purpose(), None), ReasonCode::JobClaimsInvalid);
    assert_denied(
        judged(&mut Site::new(), Purpose::Node, Some(&job)),
        ReasonCode::JobClaimsInvalid,
    );
}

/// Whatever its node proves.
#[test]
fn what_stands_against_a_job_denies_it() {
    let against = Finding::new(ReasonCode::PlatformTokenExpired, "the job's token", "a", "b");
    let job = job(vec![against]);
    let verdict = judged(&mut Site::new(), purpose(), Some(&job));
    assert_denied(verdict, ReasonCode::PlatformTokenExpired);
}

#[test]
fn a_permit_stands_on_a_boot_on_record() {
    let mut site = Site::new();
    (site.issued.purpose, site.tpm.purpose) = (purpose(), purpose());
    let job = job(Vec::new());
    let context = AppraisalContext { job: Some(&job), ..site.context() };
    let appraisal = appraise(&evidence(&site.answer()), site.activating(), &context);
    assert_denied(appraisal.verdict, ReasonCode::JobBootUnproven);
}
