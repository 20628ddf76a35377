//! What the links say to each other, and the chain as a tree.

use std::fmt;

use super::{AdmitPolicy, Admitted, Link};
use crate::{
    refusal::{Code, Refusal, quoted},
    statement::{Dispatch, Verdict, Vsa},
    verify::{VerifiedArtifact, VerifiedSignature, VerifiedStatement},
};

/// All that the links say against each other, in the order of [`super::admit`].
///
/// Where a statement was not verified, nothing that it says is looked at.
pub(super) fn disagreements(
    artifact: Option<&VerifiedArtifact>,
    dispatch: Option<&VerifiedStatement<Dispatch>>,
    vsa: Option<&VerifiedStatement<Vsa>>,
    policy: &AdmitPolicy,
) -> Found {
    let mut found = Vec::new();
    if let Some(artifact) = artifact {
        let refusal = policy.accept_authority(artifact.signature()).err();
        found.extend(refusal.map(|refusal| (Link::Job, refusal)));
    }
    if let (Some(artifact), Some(dispatch)) = (artifact, dispatch) {
        job(&mut found, artifact, dispatch.statement());
    }
    if let (Some(dispatch), Some(vsa)) = (dispatch, vsa) {
        node(&mut found, dispatch.statement(), vsa);
        verified_in_time(&mut found, dispatch, vsa, policy);
    }
    if let (Some(artifact), Some(dispatch)) = (artifact, dispatch) {
        signed_in_time(&mut found, artifact, dispatch);
    }
    if let (Some(dispatch), Some(vsa)) = (dispatch, vsa) {
        let refusals = policy.refusals(dispatch.statement(), vsa.statement());
        found.extend(refusals.into_iter().map(|refusal| (Link::Policy, refusal)));
    }
    found
}

type Found = Vec<(Link, Refusal)>;

/// Artifact and dispatch: the same key, permit and pool.
fn job(out: &mut Found, artifact: &VerifiedArtifact, dispatch: &Dispatch) {
    let mut refuse = |code, expected: String, found: String| {
        out.push((Link::Permit, link(code, "dispatch", expected, found)));
    };
    let signature = artifact.signature();
    let key = signature.certificate().spki_digest();
    if dispatch.job_key != key {
        let expected = format!("the key that signed the artifact, {key}");
        refuse(Code::AdmitJobKeyMismatch, expected, dispatch.job_key.to_string());
    }
    let leaf = signature.identity();
    if let Some(permit) = leaf.permit().filter(|permit| *permit != dispatch.permit_id) {
        let expected = format!("permit {permit} of the job's certificate");
        refuse(Code::AdmitPermitMismatch, expected, quoted(&dispatch.permit_id));
    }
    if let Some(pool) = leaf.pool().filter(|pool| *pool != dispatch.pool) {
        let expected = format!("pool {pool} of the job's certificate");
        refuse(Code::AdmitPoolMismatch, expected, quoted(&dispatch.pool));
    }
}

/// The first that dispatch and VSA say against each other.
pub(super) fn rests_on(dispatch: &Dispatch, vsa: &VerifiedStatement<Vsa>) -> Result<(), Refusal> {
    let mut found = Vec::new();
    node(&mut found, dispatch, vsa);
    found.into_iter().next().map_or(Ok(()), |(_, refusal)| Err(refusal))
}

/// Dispatch and VSA: the one rests on the other, and both are about one node and one quote.
fn node(out: &mut Found, dispatch: &Dispatch, vsa: &VerifiedStatement<Vsa>) {
    let mut refuse = |at, code, expected: String, found: String| {
        out.push((at, link(code, "vsa", expected, found)));
    };
    let (digest, vsa) = (vsa.digest(), vsa.statement());
    if dispatch.vsa != *digest {
        let expected = format!("{}, which the dispatch names", dispatch.vsa);
        refuse(Link::Node, Code::AdmitVsaMismatch, expected, digest.to_string());
    }
    if vsa.result != Verdict::Passed {
        refuse(Link::Node, Code::AdmitVsaNotPassed, "PASSED".to_owned(), "FAILED".to_owned());
    }
    if vsa.node != dispatch.node {
        let expected = format!("{}, to which the job was dispatched", dispatch.node);
        refuse(Link::Node, Code::AdmitVsaNodeMismatch, expected, vsa.node.to_string());
    }
    if vsa.quote != dispatch.quote {
        let expected = format!("quote {}, which the dispatch names", dispatch.quote);
        refuse(Link::Tpm, Code::AdmitQuoteMismatch, expected, vsa.quote.to_string());
    }
}

/// First the node was verified, then the job dispatched, and not long after.
fn verified_in_time(
    out: &mut Found,
    dispatch: &VerifiedStatement<Dispatch>,
    vsa: &VerifiedStatement<Vsa>,
    policy: &AdmitPolicy,
) {
    let (verified, dispatched) = (vsa.statement().time_verified, dispatch.signature().signed_at());
    let mut refuse = |code, expected: String, found: String| {
        out.push((Link::Node, link(code, "vsa", expected, found)));
    };
    if verified > dispatched {
        let expected = format!("at most {dispatched}");
        refuse(Code::AdmitVsaAfterDispatch, expected, verified.to_string());
    }
    let age = dispatched.seconds_since(verified);
    if age > policy.max_vsa_age_s {
        let expected = format!("at most {} s old at dispatch", policy.max_vsa_age_s);
        refuse(Code::AdmitVsaTooOld, expected, format!("{age} s"));
    }
}

/// First the job was dispatched, then the artifact signed, while the permit was good.
fn signed_in_time(
    out: &mut Found,
    artifact: &VerifiedArtifact,
    dispatch: &VerifiedStatement<Dispatch>,
) {
    let (dispatched, signed) = (dispatch.signature().signed_at(), artifact.signature().signed_at());
    if dispatched > signed {
        let (expected, found) = (format!("at most {signed}"), dispatched.to_string());
        let refusal = link(Code::AdmitDispatchAfterSignature, "dispatch", expected, found);
        out.push((Link::Permit, refusal));
    }
    let expires = dispatch.statement().expires;
    if signed > expires {
        let expected = format!("a signature until {expires}");
        let refusal = link(Code::AdmitDispatchExpired, "artifact", expected, signed.to_string());
        out.push((Link::Permit, refusal));
    }
}

/// A chain with a part that was not looked at: never, but if it were it is refused.
pub(super) fn incomplete() -> Refusal {
    link(Code::StatementInvalid, "chain", "every part", "one that is missing")
}

fn link(
    code: Code,
    subject: &str,
    expected: impl Into<String>,
    observed: impl Into<String>,
) -> Refusal {
    Refusal::new(code, subject, expected, observed)
}

/// A text of a statement, safe to print: its parser refused control characters, and what turns the
/// direction of writing or takes no place is escaped here.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => {
                write!(f, "{}", character.escape_unicode())
            }
            _ => write!(f, "{character}"),
        })
    }
}

/// The authority that stamped, where it is not that of the signer's trust domain.
pub(super) fn stamped_by_another(signature: &VerifiedSignature) -> Option<String> {
    let authority = signature.stamped_by();
    let is_own = authority == signature.identity().trust_domain_id();
    (!is_own).then(|| format!("time stamp of {}", Shown(authority)))
}

/// The chain as a tree.
impl fmt::Display for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dispatch, vsa) = (self.dispatch.statement(), self.vsa.statement());
        let stamped = |f: &mut fmt::Formatter<'_>, indent: &str, signature| {
            let another = stamped_by_another(signature);
            another.map_or(Ok(()), |stamped| writeln!(f, "{indent}│  {stamped}"))
        };
        let [job, results, verifier] =
            [self.artifact.signature(), self.dispatch.signature(), self.vsa.signature()];
        writeln!(f, "artifact sha256:{}", self.artifact.digest())?;
        writeln!(f, "└─ signed {} by {}", job.signed_at(), job.identity())?;
        stamped(f, "   ", job)?;
        writeln!(f, "   │  job key sha256:{}", dispatch.job_key)?;
        writeln!(f, "   └─ dispatched {} by {}", results.signed_at(), results.identity())?;
        stamped(f, "      ", results)?;
        writeln!(f, "      │  build sha256:{}", dispatch.job.build_id())?;
        writeln!(f, "      │  permit {} until {}", Shown(&dispatch.permit_id), dispatch.expires)?;
        writeln!(f, "      │  pool {}, system {}", dispatch.pool, dispatch.job.system)?;
        if let Some(commit) = &dispatch.git_commit {
            writeln!(f, "      │  commit {commit}")?;
        }
        for (name, claim) in &dispatch.job.claims {
            writeln!(f, "      │  {name} {} ({})", Shown(&claim.value), claim.source)?;
        }
        for tool in &dispatch.tools {
            let (name, version) = (Shown(&tool.name), Shown(&tool.version));
            writeln!(f, "      │  tool {name} {version} sha256:{}", tool.digest)?;
        }
        writeln!(f, "      └─ node {} passed {}", vsa.node, vsa.time_verified)?;
        writeln!(f, "         │  stated {} by {}", verifier.signed_at(), verifier.identity())?;
        stamped(f, "         ", verifier)?;
        writeln!(f, "         │  policy {} sha256:{}", vsa.policy.uri, vsa.policy.digest)?;
        if !vsa.levels.is_empty() {
            writeln!(f, "         │  levels {}", vsa.levels.join(", "))?;
        }
        writeln!(f, "         ├─ quote sha256:{}", vsa.quote)?;
        writeln!(f, "         └─ AK sha256:{}", vsa.ak_public)
    }
}
