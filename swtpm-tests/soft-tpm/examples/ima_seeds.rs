//! Writes the committed fuzz seeds of the IMA targets below a folder: proto/fuzz/seeds.
//!
//! `cargo run -p soft-tpm --example ima_seeds -- proto/fuzz/seeds`; they are the same each time.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("a folder is needed")?);
    for (target, name, bytes) in soft_tpm::ima_seeds::seeds() {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
