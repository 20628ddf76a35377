//! Prints the JSON Schema of a kind of document; `cargo xtask vectors` writes docs/schemas.

use std::process::ExitCode;

use verifier::documents::schema;

fn main() -> ExitCode {
    let kind = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let Some(kind) = kind else {
        eprintln!("golden, policy or keys?");
        return ExitCode::FAILURE;
    };
    print!("{}", schema::generated(kind));
    ExitCode::SUCCESS
}
