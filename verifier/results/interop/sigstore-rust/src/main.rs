//! Verifies a result, independently of Assay: `sigstore-rust FOLDER`.

use std::{error::Error, path::PathBuf, process::ExitCode};

use sigstore_verify::{
    IdentityMatcher, VerificationPolicy, trust_root::TrustedRoot, types::Bundle, verify,
};

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: sigstore-rust FOLDER");
        return ExitCode::from(2);
    };
    match run(&PathBuf::from(folder)) {
        Ok(identity) => {
            println!("verified: signed by {identity}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &std::path::Path) -> Result<String, Box<dyn Error>> {
    let text = |name: &str| std::fs::read_to_string(folder.join(name));
    let root = TrustedRoot::from_json(&text("trusted_root.json")?)?;
    let bundle = Bundle::from_json(&text("bundle.json")?)?;
    let identity = text("identity")?;
    // There is no log, and no certificate of a log.
    let policy = VerificationPolicy::any_identity()
        .require_identity(IdentityMatcher::Uri(identity.clone()))
        .skip_tlog_unsafe()
        .skip_sct();
    let artifact = std::fs::read(folder.join("artifact"))?;
    let result = verify(artifact.as_slice(), &bundle, &policy, &root)?;
    if !result.certificate_verified() || result.verified_timestamps().is_empty() {
        return Err("certificate or time was not verified".into());
    }
    Ok(identity)
}
