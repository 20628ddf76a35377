//! `worker`: what hands do to the workers of the practice environment. See docs/GOLDEN-SETS.md.

use std::{env, path::Path, process::ExitCode};

use swtpm_tests::practice::{FOLDER_VARIABLE, Refused, run};

fn main() -> ExitCode {
    let Some(root) = env::var_os(FOLDER_VARIABLE) else {
        eprintln!(
            "worker: {FOLDER_VARIABLE} is not set; `cargo xtask demo --practice` gives a shell where it is"
        );
        return ExitCode::from(2);
    };
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(Path::new(&root), &arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::from(if error.is::<Refused>() { 2 } else { 1 })
        }
    }
}
