//! A configuration with the files that it names.

use std::path::Path;

use super::{Config, ConfigError, Problem};
use crate::{platforms, results_service::ExternalAuthorities, service::status::chain};

/// Checks a file as `verifier check-config` does: the configuration, and what it names that the service reads before it starts.
///
/// # Errors
/// Every problem, by line; none means that the service starts with it, if the state directory is good.
pub fn check_config(path: &Path) -> Result<Config, ConfigError> {
    let config = Config::load(path)?;
    let mut problems = Vec::new();
    let mut note = |key: String, what| problems.push(Problem { line: 0, key, what });
    if let Err(error) = platforms::read(config.jobs.platforms.as_deref()) {
        note("jobs.platforms".to_owned(), chain(&error));
    }
    if let Err(error) = ExternalAuthorities::read(&config.results) {
        note(error.key(), error.why());
    }
    if problems.is_empty() {
        return Ok(config);
    }
    Err(ConfigError { path: path.to_owned(), problems })
}
