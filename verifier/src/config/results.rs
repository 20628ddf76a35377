//! `[results]`: whose time stamps count beside those of the verifier's own authority, and who stamps what it states.

use std::path::PathBuf;

use results::timestamp::ask::AuthorityUrl;

use super::reader::Table;

/// Most authorities: `trusted_root.json` has places for the verifier's own too.
const MAX_AUTHORITIES: usize = 8;

/// Attestation results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// RFC 3161 authorities that relying parties shall trust, besides the verifier's own.
    pub timestamp_authorities: Vec<TimestampAuthority>,
}

/// An RFC 3161 authority of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampAuthority {
    /// Where it answers; also its name in `trusted_root.json` and in policies.
    pub url: AuthorityUrl,
    /// PEM of the certificates above the one it signs with, the root last.
    pub ca: PathBuf,
    /// Whether it stamps the verifier's statements. At most one does.
    pub stamps: bool,
}

pub(super) fn read(mut table: Table<'_, '_>) -> Option<Results> {
    const KEY: &str = "timestamp_authority";
    let read = table.tables(KEY, authority);
    if read.len() > MAX_AUTHORITIES {
        table.problem(KEY, format!("must be there at most {MAX_AUTHORITIES} times"));
    }
    let authorities: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    if authorities.iter().filter(|authority| authority.stamps).count() > 1 {
        table.problem(KEY, "at most one may have stamps = true: a statement has one time stamp");
    }
    Some(Results { timestamp_authorities: authorities })
}

fn authority(mut table: Table<'_, '_>) -> Option<TimestampAuthority> {
    let url = table.required("url", "where the authority answers, http://HOST/PATH", |text| {
        text.parse::<AuthorityUrl>().map_err(|error| error.to_string())
    });
    let ca = table.required("ca", "the PEM file with its certificates, the root last", |text| {
        let path = PathBuf::from(text);
        if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
    });
    let stamps = table.boolean("stamps", false);
    Some(TimestampAuthority { url: url?, ca: ca?, stamps: stamps? })
}
