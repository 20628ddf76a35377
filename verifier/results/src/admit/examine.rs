//! Every link looked at, so that whoever has to mend a chain sees all that is broken at once.

use std::fmt;

use super::{AdmitPolicy, Admitted, Request, chain};
use crate::{
    Sha256Digest, UnixTime,
    bundle::TrustedRoot,
    refusal::Refusal,
    statement::{Dispatch, Vsa},
    verify::{Trust, VerifiedArtifact, VerifiedStatement},
};

/// A link of the chain, from the artifact to the TPM, and what the policy demands of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// A job signed the artifact.
    Job,
    /// The job's key has a permit: the dispatch.
    Permit,
    /// The permit was given to a node that passed: the VSA.
    Node,
    /// The node's verdict rests on the quote that answered the job's challenge.
    Tpm,
    /// The policy accepts what the statements say.
    Policy,
}

impl Link {
    /// All, from the artifact on.
    pub const ALL: [Self; 5] = [Self::Job, Self::Permit, Self::Node, Self::Tpm, Self::Policy];

    /// Name, as the tree has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Job => "artifact ← job",
            Self::Permit => "job ← permit",
            Self::Node => "permit ← node",
            Self::Tpm => "node ← TPM",
            Self::Policy => "policy",
        }
    }
}

/// What was found of a chain. `Display` prints it as a tree, each link with all that is wrong with it.
///
/// # Proves
/// Nothing, unless [`Examined::admitted`] gives an [`Admitted`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Examined {
    digest: Sha256Digest,
    artifact: Option<VerifiedArtifact>,
    dispatch: Option<VerifiedStatement<Dispatch>>,
    vsa: Option<VerifiedStatement<Vsa>>,
    broken: Vec<(Link, Refusal)>,
}

/// Looks at every link, whatever is wrong with the others.
///
/// # Errors
/// `ADMIT_POLICY_INVALID`, `RESULT_TOO_LARGE` for a policy that cannot be used: nothing is looked at then.
pub fn examine(
    request: Request<'_>,
    policy: &AdmitPolicy,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Examined, Refusal> {
    policy.check()?;
    let [jobs, results] = [&policy.job_identities, &policy.results_identities]
        .map(|identities| Trust { root, identities });
    let mut broken = Vec::new();
    let mut note = |link: Link, whole: &str, refusal: Refusal| {
        broken.push((link, refusal.within(whole)));
    };
    let artifact = request
        .job
        .prove_time(root, now)
        .and_then(|job| job.verify_artifact(request.artifact, &jobs))
        .map_err(|refusal| note(Link::Job, "artifact", refusal))
        .ok();
    let dispatch = request
        .dispatch
        .prove_time(root, now)
        .and_then(|dispatch| dispatch.verify_statement::<Dispatch>(&results))
        .map_err(|refusal| note(Link::Permit, "dispatch", refusal))
        .ok();
    let vsa = request
        .vsa
        .prove_time(root, now)
        .and_then(|vsa| vsa.verify_statement::<Vsa>(&results))
        .map_err(|refusal| note(Link::Node, "vsa", refusal))
        .ok();
    broken.extend(chain::disagreements(artifact.as_ref(), dispatch.as_ref(), vsa.as_ref(), policy));
    Ok(Examined { digest: *request.artifact, artifact, dispatch, vsa, broken })
}

impl Examined {
    /// The artifact, if it may be used.
    ///
    /// # Errors
    /// The first refusal: of a bundle, then of what they say to each other, then of the policy.
    pub fn admitted(self) -> Result<Admitted, Refusal> {
        match (self.broken.into_iter().next(), self.artifact, self.dispatch, self.vsa) {
            (None, Some(artifact), Some(dispatch), Some(vsa)) => {
                Ok(Admitted { artifact, dispatch, vsa })
            }
            (Some((_, refusal)), ..) => Err(refusal),
            // A part that is not there was refused above.
            (None, ..) => Err(chain::incomplete()),
        }
    }

    /// All that is broken, in the order in which it was found.
    #[must_use]
    pub fn broken(&self) -> &[(Link, Refusal)] {
        &self.broken
    }

    /// Whether not all is known of a link, since a statement that it is about was not verified.
    #[must_use]
    pub const fn is_unknown(&self, link: Link) -> bool {
        match link {
            Link::Job => self.artifact.is_none(),
            Link::Permit => self.artifact.is_none() || self.dispatch.is_none(),
            Link::Node | Link::Tpm | Link::Policy => self.dispatch.is_none() || self.vsa.is_none(),
        }
    }

    /// What a verified statement says of a link.
    fn facts(&self, link: Link) -> Vec<String> {
        match (link, &self.artifact, &self.dispatch, &self.vsa) {
            (Link::Job, Some(artifact), ..) => {
                let signature = artifact.signature();
                let signed =
                    format!("signed {} by {}", signature.signed_at(), signature.identity());
                [Some(signed), chain::stamped_by_another(signature)].into_iter().flatten().collect()
            }
            (Link::Permit, _, Some(dispatch), _) => {
                let (said, signature) = (dispatch.statement(), dispatch.signature());
                let facts = [
                    Some(format!(
                        "dispatched {} by {}",
                        signature.signed_at(),
                        signature.identity()
                    )),
                    chain::stamped_by_another(signature),
                    Some(format!(
                        "permit {} until {}",
                        chain::Shown(&said.permit_id),
                        said.expires
                    )),
                    Some(format!("pool {}, system {}", said.pool, said.job.system)),
                ];
                facts.into_iter().flatten().collect()
            }
            (Link::Node, _, _, Some(vsa)) => {
                let said = vsa.statement();
                let judged = format!("node {} judged {}", said.node, said.time_verified);
                let stamped = chain::stamped_by_another(vsa.signature());
                [Some(judged), stamped].into_iter().flatten().collect()
            }
            (Link::Tpm, _, _, Some(vsa)) => {
                let said = vsa.statement();
                vec![
                    format!("quote sha256:{}", said.quote),
                    format!("AK sha256:{}", said.ak_public),
                ]
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "artifact sha256:{}", self.digest)?;
        for (depth, link) in Link::ALL.into_iter().enumerate() {
            let broken: Vec<_> = self.broken.iter().filter(|(at, _)| *at == link).collect();
            let state = match (broken.is_empty(), self.is_unknown(link)) {
                (false, _) => "BROKEN",
                (true, true) => "not known",
                (true, false) => "good",
            };
            let indent = "   ".repeat(depth);
            writeln!(f, "{indent}└─ {}: {state}", link.name())?;
            let indent = format!("{indent}   ");
            for fact in self.facts(link) {
                writeln!(f, "{indent}{fact}")?;
            }
            for (_, refusal) in broken {
                writeln!(f, "{indent}{}: {}", refusal.code(), refusal.subject())?;
                writeln!(f, "{indent}  expected {}", refusal.expected())?;
                writeln!(f, "{indent}  found    {}", refusal.observed())?;
            }
        }
        Ok(())
    }
}
