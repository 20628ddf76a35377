//! Measurements for people.

use std::fmt::Write as _;

use proto::tool_log::{EntryKind, ToolState};

use super::Measured;

/// A table of tools and, below it, the problems.
#[must_use]
pub fn render_text(measured: &Measured) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["TOOL", "STATE", "FILES", "LINKS", "SIZE", "DIGEST", "VERSION", "PACKAGE"]);
    for tool in &measured.tools {
        let (mut files, mut links, mut bytes) = (0_usize, 0_usize, 0_u64);
        for entry in tool.entries() {
            match &entry.kind {
                EntryKind::File { size_bytes, .. } => {
                    files += 1;
                    bytes = bytes.saturating_add(*size_bytes);
                }
                EntryKind::Link { .. } => links += 1,
            }
        }
        let present = tool.state() == ToolState::Present;
        let or_dash = |text: String| if present { text } else { "-".to_owned() };
        let digest: String = tool.digest().to_string().chars().take("sha256:".len() + 16).collect();
        table.add_row([
            tool.name().to_owned(),
            if present { "present" } else { "absent" }.to_owned(),
            or_dash(files.to_string()),
            or_dash(links.to_string()),
            or_dash(size_text(bytes)),
            or_dash(format!("{digest}…")),
            tool.version().unwrap_or("-").to_owned(),
            tool.package().unwrap_or("-").to_owned(),
        ]);
    }
    let mut out: String = table.lines().map(|line| format!("{}\n", line.trim())).collect();
    if !measured.problems.is_empty() {
        out.push_str("\nproblems:\n");
    }
    for problem in &measured.problems {
        let weight = if problem.blocks() { "error" } else { "warning" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {weight}: {problem}");
    }
    out
}

/// `512 B`, `3.4 kB`, `1.2 GB`: decimal units.
fn size_text(bytes: u64) -> String {
    let mut unit = 1;
    for name in ["B", "kB", "MB", "GB"] {
        if bytes < unit * 1000 || name == "GB" {
            return match (name, bytes / unit) {
                ("B", whole) => format!("{whole} B"),
                (_, whole) if whole >= 10 => format!("{whole} {name}"),
                (_, whole) => format!("{whole}.{} {name}", bytes % unit * 10 / unit),
            };
        }
        unit *= 1000;
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_990, "9.9 kB"),
            (34_567_890, "34 MB"),
            (1_234_567_890, "1.2 GB"),
            (5_234_567_890_123, "5234 GB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
