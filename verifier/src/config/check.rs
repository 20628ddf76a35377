//! A configuration with the files that it names.

use std::path::Path;

use super::{Config, ConfigError, Problem, reader::Document};
use crate::{
    ca::files::read_text, platforms, results_service::ExternalAuthorities, service::status::chain,
};

/// Checks a file as `verifier check-config` does: the configuration, and what it names that the service reads before it starts.
///
/// # Errors
/// Every problem, by line; none means that the service starts with it, if the state directory is good.
pub fn check_config(path: &Path) -> Result<Config, ConfigError> {
    let config = Config::load(path)?;
    // It was read a moment ago; where it is gone now, problems have no line.
    let text = read_text(path).unwrap_or_default();
    let mut document = Document::parse(&text).ok();
    let mut line =
        |table, of, key| document.as_mut().map_or(0, |read| read.line_of(table, of, key));
    let mut problems = Vec::new();
    if let Err(error) = platforms::read(config.jobs.platforms.as_deref()) {
        let (key, line) = ("jobs.platforms".to_owned(), line("jobs", None, "platforms"));
        problems.push(Problem { line, key, what: chain(&error) });
    }
    for error in ExternalAuthorities::read_all(&config.results).1 {
        let line = line("results", Some(("timestamp_authority", error.index())), "ca");
        problems.push(Problem { line, key: error.key(), what: error.why() });
    }
    if problems.is_empty() {
        return Ok(config);
    }
    Err(ConfigError { path: path.to_owned(), problems })
}
