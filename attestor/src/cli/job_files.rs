//! Files that the commands of jobs read and write.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use proto::pb;

/// Reads a file of at most `max` bytes.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(at)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, max.saturating_add(1)), &mut bytes)
        .map_err(at)?;
    if bytes.len() as u64 > max {
        return Err(format!("{}: more than {max} bytes", path.display()));
    }
    Ok(bytes)
}

/// Signed results and tokens, for whoever consumes what the job makes.
pub(super) fn write_results(folder: &Path, started: &pb::JobStarted) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for statement in &started.statements {
        let name = match statement.kind.as_str() {
            "node" => "node.sigstore.json",
            "dispatch" => "dispatch.sigstore.json",
            // From the network: a name that is not known is no file name.
            _ => continue,
        };
        write_private(&folder.join(name), &statement.bundle)?;
    }
    for (at, svid) in started.jwt.iter().enumerate() {
        write_private(&folder.join(format!("token-{at}.jwt")), svid.token.as_bytes())?;
    }
    Ok(())
}

/// What `attestor exec` would put into the job's environment, for a system that takes it from a file.
pub(super) fn append_variables(
    path: &Path,
    socket: &Path,
    started: &pb::JobStarted,
) -> Result<(), String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let socket = std::path::absolute(socket).map_err(at)?.display().to_string();
    let mut lines = String::new();
    for (name, value) in [
        ("SPIFFE_ENDPOINT_SOCKET", &started.workload_endpoint),
        ("ASSAY_JOB_SOCKET", &socket),
        ("ASSAY_PERMIT_ID", &started.permit_id),
        ("ASSAY_DECISION_ID", &started.decision_id),
    ] {
        if value.chars().any(char::is_control) {
            return Err(format!("{name} has a control character"));
        }
        let _ = writeln!(lines, "{name}={value}");
    }
    let mut file = OpenOptions::new().append(true).open(path).map_err(at)?;
    file.write_all(lines.as_bytes()).map_err(at)
}

/// Writes a file for its owner alone.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    // Not through a link that somebody put there, and never readable by others for a moment.
    let _ = std::fs::remove_file(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at)?;
    file.write_all(bytes).map_err(at)
}
