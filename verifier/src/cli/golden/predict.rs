//! `golden predict`: the set after an update, from what will be installed.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use appraisal::{
    policy::GoldenSet,
    predict::{Before, Kernel, Provenance, Update, UpdateError, Updated, What, updated_by},
};
use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Done, Failure, Global,
        files::{read_bytes, read_text},
        local_actor, now,
        output::{printable, time},
    },
    documents::with_comments_of,
};

/// Write the golden set after an update, from what will be installed, before anything boots it.
///
/// What the update changes (PCR 4, 9, 11, 12 and the rules about what booted) is computed from the files; the rest
/// stays, comments too. The version rises by one. By default the new set accepts only the new state: put it in force
/// beside the old set (`activate --alongside`) while nodes reboot, then retire the old one. With --keep-old the two
/// states become groups of one set.
///
/// Give the old file as well, and its events are found by their digests; without it, by what the record says they
/// are, where that leaves no choice. A PCR that cannot be predicted is named, and the command exits with 3.
///
/// Examples:
///   verifier golden predict --from linux.toml --uki new.efi --old-uki old.efi > linux-4.toml
///   verifier golden predict --from linux.toml --kernel vmlinuz --initrd initrd.img --cmdline "root=/dev/sda1 ro"
///   verifier golden predict --from linux.toml --application shimx64.efi --application grubx64.efi
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PredictArgs {
    /// The golden set of today, captured from a node (its recorded events are needed).
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The new unified kernel image.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "applications"],
          required_unless_present_any = ["kernel", "applications"])]
    uki: Option<PathBuf>,
    /// The unified kernel image that it replaces.
    #[arg(long, value_name = "FILE", requires = "uki")]
    old_uki: Option<PathBuf>,
    /// The new kernel, started by its EFI stub.
    #[arg(long, value_name = "FILE", conflicts_with = "applications")]
    kernel: Option<PathBuf>,
    /// Its initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "kernel",
        default_value = "",
        hide_default_value = true
    )]
    cmdline: String,
    /// The kernel that it replaces.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    old_kernel: Option<PathBuf>,
    /// The initrd of the old kernel.
    #[arg(long, value_name = "FILE", requires = "old_kernel")]
    old_initrd: Option<PathBuf>,
    /// The command line of the old kernel.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "old_kernel",
        default_value = "",
        hide_default_value = true
    )]
    old_cmdline: String,
    /// A new boot application (shim, GRUB, systemd-boot); repeated in the order in which each starts the next.
    #[arg(long = "application", value_name = "FILE")]
    applications: Vec<PathBuf>,
    /// The boot application that each of them replaces, in the same order.
    #[arg(long = "old-application", value_name = "FILE", requires = "applications")]
    old_applications: Vec<PathBuf>,
    /// The group that the update starts from, in a set that has several.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Keep the old state as a group of the set, beside the new one.
    #[arg(long)]
    keep_old: bool,
    /// Name of the old state's group, with --keep-old.
    #[arg(long, value_name = "NAME", default_value = "before", requires = "keep_old")]
    old_name: String,
    /// Name of the new state's group, with --keep-old.
    #[arg(long, value_name = "NAME", default_value = "after", requires = "keep_old")]
    new_name: String,
    /// What the new state is called in the set; by default the file's name.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    label: String,
}

/// Runs it: offline.
pub(in crate::cli) fn predict(global: &Global, args: &PredictArgs) -> Done {
    let output = global.output();
    let text = read_text(&args.from)?;
    let document = GoldenSet::document(&text).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::refused(format!("{}: {}", args.from.display(), lines.join("; ")))
    })?;
    let updated = from_files(args, &document)?;
    let toml = toml::to_string_pretty(&updated.document)?;
    let toml = with_comments_of(&text, &toml)?;
    if output.is_json() {
        output.json(&json!({
            "toml": toml, "notes": updated.notes,
            "gaps": updated.gaps.iter().map(|gap| json!({
                "bank": gap.bank, "pcr": gap.index, "why": gap.why.to_string(),
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        // The set alone goes to the standard output: it is redirected into a file.
        let mut err = std::io::stderr().lock();
        for note in &updated.notes {
            writeln!(err, "note: {}", printable(note))?;
        }
        output.text(&toml)?;
    }
    if updated.gaps.is_empty() { Ok(()) } else { Err(Failure::problems_found()) }
}

fn from_files(
    args: &PredictArgs,
    document: &appraisal::policy::document::GoldenDocument,
) -> Result<Updated, Failure> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_bytes).transpose();
    let read_all = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>, Failure> {
        paths.iter().map(|path| read_bytes(path)).collect()
    };
    let (uki, old_uki) = (read(&args.uki)?, read(&args.old_uki)?);
    let (kernel, initrd) = (read(&args.kernel)?, read(&args.initrd)?);
    let (old_kernel, old_initrd) = (read(&args.old_kernel)?, read(&args.old_initrd)?);
    let (new_chain, old_chain) = (read_all(&args.applications)?, read_all(&args.old_applications)?);
    let new_chain: Vec<&[u8]> = new_chain.iter().map(AsRef::as_ref).collect();
    let old_chain: Vec<&[u8]> = old_chain.iter().map(AsRef::as_ref).collect();
    let what = match (&uki, &kernel) {
        (Some(new), _) => What::Uki { old: old_uki.as_deref(), new },
        (None, Some(image)) => What::Kernel {
            old: old_kernel.as_deref().map(|image| Kernel {
                image,
                initrd: old_initrd.as_deref(),
                command_line: &args.old_cmdline,
            }),
            new: Kernel { image, initrd: initrd.as_deref(), command_line: &args.cmdline },
        },
        (None, None) => What::Applications { old: &old_chain, new: &new_chain },
    };
    let label = if args.label.is_empty() { named(args) } else { args.label.clone() };
    let before = if args.keep_old {
        Before::Kept { old: &args.old_name, new: &args.new_name }
    } else {
        Before::Replaced
    };
    let (by, at) = (local_actor(), time(now()));
    let provenance = Provenance { by: Some(&by), at: Some(&at) };
    let (from, update) = (args.group.as_deref(), Update { what, label });
    updated_by(document, from, &update, before, provenance).map_err(|error| match error {
        UpdateError::WhichGroup(_) => Failure::usage(error.to_string())
            .with_help("--group NAME: a prediction starts from one state"),
        UpdateError::GroupExists(_) => {
            Failure::usage(error.to_string()).with_help("--new-name NAME gives it another")
        }
        other => Failure::of(&other),
    })
}

fn named(args: &PredictArgs) -> String {
    let name = |path: &Path| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let file = args.uki.as_deref().or(args.kernel.as_deref());
    let file = file.or(args.applications.first().map(AsRef::as_ref));
    format!("predicted from {}", file.map(name).unwrap_or_default())
}
