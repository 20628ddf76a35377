//! Committed files that a program writes: written again, or compared.

use std::{fs, path::Path};

use crate::run::{Failure, cargo, output_of, workspace_root};

/// An example that prints a committed file.
struct Generator {
    /// What cargo runs.
    example: &'static [&'static str],
    /// What the example is told.
    argument: &'static str,
    file: &'static str,
}

const REASON_CODES: &[&str] = &["-p", "proto", "--example", "reason_codes"];
const SCHEMA: &[&str] = &["-p", "verifier", "--features", "schema", "--example", "schema"];

const GENERATORS: [Generator; 4] = [
    Generator { example: REASON_CODES, argument: "", file: "docs/REASON_CODES.md" },
    Generator { example: SCHEMA, argument: "golden", file: "docs/schemas/golden.v1.json" },
    Generator { example: SCHEMA, argument: "policy", file: "docs/schemas/policy.v1.json" },
    Generator { example: SCHEMA, argument: "keys", file: "docs/schemas/keys.v1.json" },
];

/// Writes every generated file.
pub(crate) fn write() -> Result<(), Failure> {
    for generator in &GENERATORS {
        let content = generator.run()?;
        let path = workspace_root()?.join(generator.file);
        let failed = |error| Failure::Failed(format!("writing {}: {error}", generator.file));
        let parent = path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(parent).map_err(failed)?;
        fs::write(&path, content).map_err(failed)?;
        println!("wrote {}", generator.file);
    }
    Ok(())
}

/// Fails where a committed file is not what its generator prints.
pub(crate) fn check() -> Result<(), Failure> {
    let mut stale = Vec::new();
    for generator in &GENERATORS {
        let content = generator.run()?;
        let committed = fs::read(workspace_root()?.join(generator.file)).unwrap_or_default();
        if committed == content {
            println!("{} is up to date", generator.file);
        } else {
            stale.push(generator.file);
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("run `cargo xtask vectors`; stale: {}", stale.join(", "))))
}

impl Generator {
    fn run(&self) -> Result<Vec<u8>, Failure> {
        let mut command = cargo(["run", "--quiet", "--locked"]);
        output_of(command.args(self.example).args(["--", self.argument]))
    }
}
