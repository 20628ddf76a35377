//! What the links say to each other, and the chain as a tree.

use std::fmt;

use super::{AdmitPolicy, Admitted};
use crate::{
    refusal::{Code, Refusal, quoted},
    statement::Verdict,
};

impl Admitted {
    /// Refuses a chain whose links do not fit.
    pub(super) fn check_links(&self, policy: &AdmitPolicy) -> Result<(), Refusal> {
        self.check_job()?;
        self.check_node()?;
        self.check_times(policy)
    }

    /// Artifact and dispatch: the same key, permit and pool.
    fn check_job(&self) -> Result<(), Refusal> {
        let signature = self.artifact.signature();
        let dispatch = self.dispatch.statement();
        let key = signature.certificate().spki_digest();
        if dispatch.job_key != key {
            let expected = format!("the key that signed the artifact, {key}");
            let found = dispatch.job_key.to_string();
            return Err(link(Code::AdmitJobKeyMismatch, "dispatch", expected, found));
        }
        let leaf = signature.identity();
        if let Some(permit) = leaf.permit().filter(|permit| *permit != dispatch.permit_id) {
            let expected = format!("permit {permit} of the job's certificate");
            let found = quoted(&dispatch.permit_id);
            return Err(link(Code::AdmitPermitMismatch, "dispatch", expected, found));
        }
        if let Some(pool) = leaf.pool().filter(|pool| *pool != dispatch.pool) {
            let expected = format!("pool {pool} of the job's certificate");
            let found = quoted(&dispatch.pool);
            return Err(link(Code::AdmitPoolMismatch, "dispatch", expected, found));
        }
        Ok(())
    }

    /// Dispatch and VSA: the one rests on the other, and both are about one node and one quote.
    fn check_node(&self) -> Result<(), Refusal> {
        let (dispatch, vsa) = (self.dispatch.statement(), self.vsa.statement());
        if dispatch.vsa != *self.vsa.digest() {
            let expected = format!("{}, which the dispatch names", dispatch.vsa);
            let found = self.vsa.digest().to_string();
            return Err(link(Code::AdmitVsaMismatch, "vsa", expected, found));
        }
        if vsa.result != Verdict::Passed {
            return Err(link(Code::AdmitVsaNotPassed, "vsa", "PASSED", "FAILED"));
        }
        if vsa.node != dispatch.node {
            let expected = format!("{}, to which the job was dispatched", dispatch.node);
            return Err(link(Code::AdmitVsaNodeMismatch, "vsa", expected, vsa.node.to_string()));
        }
        if vsa.quote != dispatch.quote {
            let expected = format!("quote {}, which the dispatch names", dispatch.quote);
            return Err(link(Code::AdmitQuoteMismatch, "vsa", expected, vsa.quote.to_string()));
        }
        Ok(())
    }

    /// First the node was verified, then the job dispatched, then the artifact signed; each in time.
    fn check_times(&self, policy: &AdmitPolicy) -> Result<(), Refusal> {
        let verified = self.vsa.statement().time_verified;
        let dispatched = self.dispatch.signature().signed_at();
        let signed = self.artifact.signature().signed_at();
        if verified > dispatched {
            let (expected, found) = (format!("at most {dispatched}"), verified.to_string());
            return Err(link(Code::AdmitVsaAfterDispatch, "vsa", expected, found));
        }
        let age = dispatched.seconds_since(verified);
        if age > policy.max_vsa_age_s {
            let expected = format!("at most {} s old at dispatch", policy.max_vsa_age_s);
            return Err(link(Code::AdmitVsaTooOld, "vsa", expected, format!("{age} s")));
        }
        if dispatched > signed {
            let (expected, found) = (format!("at most {signed}"), dispatched.to_string());
            return Err(link(Code::AdmitDispatchAfterSignature, "dispatch", expected, found));
        }
        let expires = self.dispatch.statement().expires;
        if signed > expires {
            let expected = format!("a signature until {expires}");
            return Err(link(Code::AdmitDispatchExpired, "artifact", expected, signed.to_string()));
        }
        Ok(())
    }
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
struct Shown<'a>(&'a str);

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

/// The chain as a tree.
impl fmt::Display for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dispatch, vsa) = (self.dispatch.statement(), self.vsa.statement());
        let [job, results, verifier] =
            [self.artifact.signature(), self.dispatch.signature(), self.vsa.signature()];
        writeln!(f, "artifact sha256:{}", self.artifact.digest())?;
        writeln!(f, "└─ signed {} by {}", job.signed_at(), job.identity())?;
        writeln!(f, "   │  job key sha256:{}", dispatch.job_key)?;
        writeln!(f, "   └─ dispatched {} by {}", results.signed_at(), results.identity())?;
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
        writeln!(f, "         │  policy {} sha256:{}", vsa.policy.uri, vsa.policy.digest)?;
        if !vsa.levels.is_empty() {
            writeln!(f, "         │  levels {}", vsa.levels.join(", "))?;
        }
        writeln!(f, "         ├─ quote sha256:{}", vsa.quote)?;
        writeln!(f, "         └─ AK sha256:{}", vsa.ak_public)
    }
}
