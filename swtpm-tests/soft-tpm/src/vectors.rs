//! Where the public test vectors are.

use std::path::PathBuf;

/// The folder of the public vectors: the one that `ASSAY_VECTORS` names, or the one beside the workspace.
///
/// `None`, with a line that says so, where it is not there.
///
/// # Panics
/// Where it is not there in CI (`CI=true`), which must not skip.
#[must_use]
pub fn vectors_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("ASSAY_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "test vectors not found at {}",
        dir.display()
    );
    println!("skipped: test vectors not found at {}", dir.display());
    None
}
