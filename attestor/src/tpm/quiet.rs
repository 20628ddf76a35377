//! Keeps libtss2 off standard error.

/// Sets `TSS2_LOG=all+NONE` for this process, unless the operator has set `TSS2_LOG`.
///
/// libtss2 writes every TPM error to standard error in its own words; ours carry what to do. It
/// reads the variable at its first message, so the first line of `main` is the place to call this.
///
/// # Panics
/// Debug builds panic if a second thread is already running: changing the environment is sound only
/// while there is one thread.
pub fn silence_tss_log() {
    if std::env::var_os("TSS2_LOG").is_some() {
        return;
    }
    debug_assert!(is_single_threaded(), "silence_tss_log must come before any thread");
    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "the environment is changed before any other thread exists"
    )]
    // SAFETY: no other thread runs yet, so nobody reads or writes the environment meanwhile.
    unsafe {
        std::env::set_var("TSS2_LOG", "all+NONE");
    }
}

/// Whether this process has one thread, as far as `/proc` says.
fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() <= 1)
}
