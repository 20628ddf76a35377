//! Jobs that ask for a permit: what an admission is for, and what none is given for.

mod site;

use std::{collections::BTreeMap, sync::Arc};

use appraisal::{
    appraise,
    context::{AppraisalContext, JobContext, Signer, Standing},
    policy::site::SitePolicy,
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

/// What is said of the job alone says nothing of the node; a rule of every attestation, the golden sets and the inventory do.
#[test]
fn a_denial_says_whether_it_is_of_the_node() {
    let policy = |at: &str| {
        let text = format!(
            "schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\npools = []\n[[rule]]\nname = \"r\"\n{at}message = \
             \"m\"\nexpr = 'node.pool == \"another\"'\n"
        );
        Arc::new(SitePolicy::parse(&text).expect("a policy"))
    };
    let (of_jobs, of_all) = ([policy("at = \"job\"\n")], [policy("")]);
    let good = job(Vec::new());
    let key = Finding::new(ReasonCode::JobKeyInvalid, "job key", "a", "b");
    let bad = job(vec![key]);
    for (what, purpose, job, rules, standing, is_node_denied) in [
        ("nothing", purpose(), Some(&good), &[][..], Standing::Active, false),
        ("its key", purpose(), Some(&bad), &[], Standing::Active, false),
        ("a rule about jobs", purpose(), Some(&good), &of_jobs, Standing::Active, false),
        ("a rule", purpose(), Some(&good), &of_all, Standing::Active, true),
        ("a rule, and its key", purpose(), Some(&bad), &of_all, Standing::Active, true),
        ("a node's own", Purpose::Node, None, &of_all, Standing::Active, true),
        ("a pending node", purpose(), Some(&good), &[], Standing::Pending, true),
    ] {
        let mut site = Site::new();
        let boot = site.enrol().boot;
        (site.issued.purpose, site.tpm.purpose) = (purpose, purpose);
        site.node.standing = standing;
        let evidence = evidence(&site.renewal(&boot));
        let mut context = AppraisalContext { job, ..site.context() };
        context.in_force.site = rules;
        let judged = appraise(&evidence, Signer::Known(boot.clone()), &context);
        assert_eq!(judged.is_node_denied, is_node_denied, "{what}: {:?}", judged.verdict);
        context.in_force.reference = None;
        let judged = appraise(&evidence, Signer::Known(boot), &context);
        assert!(judged.is_node_denied, "{what}, and no golden set");
    }
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
