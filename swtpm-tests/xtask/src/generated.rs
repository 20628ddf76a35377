//! Committed files that a program writes: written again, or compared.

use std::{fs, path::Path};

use crate::run::{Failure, cargo, output_of, workspace_root};

/// An example that prints a committed file.
struct Generator {
    package: &'static str,
    example: &'static str,
    file: &'static str,
}

const GENERATORS: [Generator; 1] =
    [Generator { package: "proto", example: "reason_codes", file: "docs/REASON_CODES.md" }];

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
        let arguments = ["run", "--quiet", "--locked", "-p", self.package, "--example"];
        output_of(cargo(arguments).arg(self.example))
    }
}
