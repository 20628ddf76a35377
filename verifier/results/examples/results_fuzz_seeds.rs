//! Writes the seeds and the fixture of the fuzz targets for results under proto/fuzz.
//!
//! Keys are fresh each time, so run it only when a format changes.

use std::{error::Error, fs, path::Path};

use results::{Sha256Digest, statement::Predicate, timestamp::Request};
use support::{Chain, NOW, chain};

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> Result<(), Box<dyn Error>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/fuzz");
    let write = |name: &str, bytes: &[u8]| {
        let path = fuzz.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&fuzz))?;
        fs::write(path, bytes)
    };
    let all = Chain::new();
    let (job, vsa, dispatch) = (all.job_bundle(), all.vsa_bundle(), all.dispatch_bundle());
    write("fixtures/results_root.json", all.world.trusted_root().to_json().as_bytes())?;
    for (name, bundle) in [("job", &job), ("vsa", &vsa), ("dispatch", &dispatch)] {
        write(&format!("seeds/results_bundle/{name}"), bundle.to_json().as_bytes())?;
    }
    let root = all.world.trusted_root().to_json();
    write("seeds/results_bundle/trusted_root", root.as_bytes())?;
    let statement = all.vsa.to_json()?;
    write("seeds/results_statement/dispatch", &{
        let vsa = Sha256Digest::of(&statement);
        chain::dispatch(all.job_key.spki_digest(), vsa).to_json()?
    })?;
    write("seeds/results_statement/vsa", &statement)?;
    let stamp = all.world.stamp(chain::ARTIFACT, NOW);
    write("seeds/results_timestamp/response", &stamp)?;
    let request = Request::new(Sha256Digest::of(chain::ARTIFACT), &[1; 16])?;
    write("seeds/results_timestamp/request", &request.to_der()?)?;
    write("seeds/results_timestamp/certificate", &all.world.tsa_der)?;
    Ok(())
}
