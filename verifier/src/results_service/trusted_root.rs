//! `trusted_root.json`: whom relying parties of this verifier trust.

use results::{
    UnixTime,
    bundle::{CertificateAuthority, TrustedRoot},
};

use super::{ExternalAuthorities, ResultsError};
use crate::ca::{CaCertificate, CaDir, CaError, CaRole};

/// The authorities of a CA: for jobs and results those that issue, for time stamps that for results, and those of others.
///
/// Former CAs stay in the list, each until its certificate ends, so that what was signed under them stays good; one whose
/// root was retired is not in it.
///
/// # Errors
/// [`ResultsError::Ca`]; [`ResultsError::Refused`], `RESULT_TOO_LARGE` above twenty authorities of a kind.
pub fn trusted_root(
    ca: &CaDir,
    external: &ExternalAuthorities,
) -> Result<TrustedRoot, ResultsError> {
    let (jobs, results) = (authorities(ca, CaRole::Jobs)?, authorities(ca, CaRole::Results)?);
    let issue = jobs.into_iter().chain(results.clone()).collect();
    let stamp = results.into_iter().chain(external.trusted().iter().cloned()).collect();
    Ok(TrustedRoot::new(issue, stamp)?)
}

fn authorities(ca: &CaDir, role: CaRole) -> Result<Vec<CertificateAuthority>, ResultsError> {
    ca.chains(role)?.iter().map(|chain| authority(ca, role, chain)).collect()
}

fn authority(
    ca: &CaDir,
    role: CaRole,
    chain: &[Vec<u8>],
) -> Result<CertificateAuthority, ResultsError> {
    let first = chain.first().ok_or_else(|| CaError::Unknown(role.name().to_owned()))?;
    let issuing = CaCertificate::from_der(first)?;
    let time = |unix_s: u64| {
        UnixTime::from_unix_s(unix_s)
            .map_err(|_| ResultsError::Clock(i64::try_from(unix_s).unwrap_or(i64::MAX)))
    };
    let trust_domain = ca.trust_domain();
    let common_name = format!("Assay {role} CA {}", issuing.key_id().short());
    Ok(CertificateAuthority::new(
        &trust_domain.id(),
        [trust_domain.as_str(), &common_name],
        chain,
        time(issuing.not_before_unix_s())?,
        Some(time(issuing.not_after_unix_s())?),
    )?)
}
