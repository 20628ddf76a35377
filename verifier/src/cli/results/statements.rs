//! Where the verifier's two statements about a job are.

use std::path::PathBuf;

use clap::Args;
use results::bundle::Bundle;

use super::{read_bundle, refused};
use crate::cli::Failure;

/// As `attestor exec --out` and `attestor permit --out` name them.
const NODE_FILE: &str = "node.sigstore.json";
const DISPATCH_FILE: &str = "dispatch.sigstore.json";

// Without a doc comment: clap would take it for the help of the command that this is part of.
#[derive(Args, Debug)]
pub(in crate::cli) struct StatementFiles {
    /// The folder that `attestor exec --out` or `attestor permit --out` wrote, instead of --dispatch and --node.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["dispatch", "node"])]
    results: Option<PathBuf>,
    /// The verifier's statement about the job.
    #[arg(long, value_name = "FILE", required_unless_present = "results")]
    dispatch: Option<PathBuf>,
    /// The verifier's statement about the node.
    #[arg(long, value_name = "FILE", required_unless_present = "results")]
    node: Option<PathBuf>,
}

impl StatementFiles {
    /// Where dispatch and node are.
    pub(in crate::cli) fn paths(&self) -> Result<[PathBuf; 2], Failure> {
        let of_folder = |given: &Option<PathBuf>, name: &str| {
            let found = given.clone().or_else(|| self.results.as_ref().map(|at| at.join(name)));
            found.ok_or_else(|| Failure::usage("--results FOLDER, or --dispatch and --node FILE"))
        };
        Ok([of_folder(&self.dispatch, DISPATCH_FILE)?, of_folder(&self.node, NODE_FILE)?])
    }
}

/// A bundle that does not parse breaks its link, and is not looked at further.
pub(in crate::cli) fn bundle_of((whole, path): (&str, &PathBuf)) -> Result<Bundle, Failure> {
    read_bundle(path)?
        .map_err(|refusal| refused(&refusal.within(&path.display().to_string()).within(whole)))
}
