//! `verifier ca`: keys and certificates of the verifier itself.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Done, Failure, Global,
    files::read_text,
    now,
    output::{Output, time},
};
use crate::{
    ca::{
        CaCertificate, CaDir, CaRole, RotationReport,
        files::{self, MODE_PUBLIC},
    },
    config::Config,
    jwt_key::list,
};

mod jwt_key;

const RELOAD: &str = "reload the verifier: systemctl reload assay-verifier";

/// The certificate authority. Works on the files of this machine, as the user that the verifier runs
/// as.
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Make a request for the site's own PKI to sign an issuing CA.
    ///
    /// Example:
    ///   verifier ca csr nodes > nodes.csr
    #[command(verbatim_doc_comment)]
    Csr {
        /// nodes, admins, servers, jobs or results.
        #[arg(value_name = "ROLE")]
        role: CaRole,
        /// Write it to a file instead of the standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Install an issuing CA that the site's PKI signed. Its root joins the trust bundle.
    ///
    /// Example:
    ///   verifier ca import nodes chain.pem
    #[command(verbatim_doc_comment)]
    Import {
        /// nodes, admins, servers, jobs or results.
        #[arg(value_name = "ROLE")]
        role: CaRole,
        /// PEM: the issuing certificate, its intermediates, the root last.
        #[arg(value_name = "FILE")]
        chain: PathBuf,
    },
    /// Replace an issuing CA, or the root, by a new one. Needs the root's private key.
    ///
    /// Examples:
    ///   verifier ca rotate nodes
    ///   verifier ca rotate root
    #[command(verbatim_doc_comment)]
    Rotate {
        /// nodes, admins, servers, jobs, results or root.
        #[arg(
            value_name = "ROLE",
            value_parser = ["nodes", "admins", "servers", "jobs", "results", "root"]
        )]
        role: String,
    },
    /// Take a former root out of the trust bundle.
    ///
    /// Example:
    ///   verifier ca retire-root 3f9c21aa
    #[command(verbatim_doc_comment)]
    RetireRoot {
        /// Beginning of its key identifier, as `ca show` prints it; at least eight digits.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Replace the key that signs JWT-SVIDs. The new one is published first, and signs when everybody can have it.
    ///
    /// Both need the verifier to be reloaded once; it does the rest by itself. The former key stays in the bundle until the
    /// last token that it signed has ended. `ca show` says which key is at what.
    ///
    /// Examples:
    ///   verifier ca rotate-jwt-key && systemctl reload assay-verifier
    ///   verifier ca rotate-jwt-key --now    # others may have the key: no token of before is good any more
    #[command(verbatim_doc_comment)]
    RotateJwtKey {
        /// The key is compromised: at the reload the new one signs, and every other leaves the bundle.
        #[arg(long)]
        now: bool,
    },
    /// Make a new key and certificate for the server, for the names in the configuration.
    ///
    /// Example:
    ///   verifier ca renew-server && systemctl reload assay-verifier
    #[command(verbatim_doc_comment)]
    RenewServer,
    /// Show the CA's certificates and when they end, and the keys of JWT-SVIDs.
    ///
    /// Example:
    ///   verifier ca show
    #[command(verbatim_doc_comment)]
    Show,
}

pub(super) fn run(global: &Global, command: CaCommand) -> Done {
    let config = global.config()?;
    let ca = CaDir::new(&config.state_dir, config.trust_domain.clone());
    let output = global.output();
    let at = u64::try_from(now()).unwrap_or(0);
    match command {
        CaCommand::Csr { role, out } => {
            let pem = ca.request(role)?;
            match out {
                Some(path) => {
                    files::replace(&path, pem.as_bytes(), MODE_PUBLIC)?;
                    output.either(&json!({ "request": path }), format!("wrote {}", path.display()))
                }
                None if output.is_json() => output.json(&json!({ "pem": pem })),
                None => output.text(&pem),
            }
        }
        CaCommand::Import { role, chain } => {
            let report = ca.import(role, &read_text(&chain)?, at)?;
            if output.is_json() {
                return output.json(&json!({
                    "subject": report.subject, "not_after_unix_s": report.not_after_unix_s,
                    "new_root": report.new_root, "notes": report.notes, "next": [RELOAD],
                }));
            }
            let ends = time(i64::try_from(report.not_after_unix_s).unwrap_or(i64::MAX));
            output.line(format!("{} issues for {role} until {ends}", report.subject))?;
            if let Some(root) = report.new_root {
                output.line(format!("root {root} joined the trust bundle"))?;
            }
            for note in report.notes {
                output.line(format!("note: {note}"))?;
            }
            output.line(format!("next: {RELOAD}"))
        }
        CaCommand::Rotate { role } => {
            let report = match role.parse::<CaRole>() {
                Ok(role) => ca.rotate(role, at)?,
                // The only other word that the argument takes.
                Err(_) => ca.rotate_root(at)?,
            };
            rotated(output, &role, &report)
        }
        CaCommand::RetireRoot { id } => {
            ca.retire_root(&id)?;
            let sentence = format!("root {id} left the trust bundle\nnext: {RELOAD}");
            output.either(&json!({ "retired": id, "next": [RELOAD] }), sentence)
        }
        CaCommand::RotateJwtKey { now } => jwt_key::rotate_key(output, &config, at, now),
        CaCommand::RenewServer => {
            let issued = ca.renew_server(config.names.clone(), at)?;
            let not_after = issued.not_after_unix_s();
            let serial = issued.serial().to_string();
            let ends = time(i64::try_from(not_after).unwrap_or(i64::MAX));
            output.either(
                &json!({ "serial": serial, "not_after_unix_s": not_after, "next": [RELOAD] }),
                format!("server certificate {serial}, until {ends}\nnext: {RELOAD}"),
            )
        }
        CaCommand::Show => show(output, &config, &ca),
    }
}

fn rotated(output: Output, role: &str, report: &RotationReport) -> Done {
    if output.is_json() {
        let RotationReport { former, current, next } = report;
        return output
            .json(&json!({ "role": role, "former": former, "current": current, "next": next }));
    }
    output.line(format!("{role}: {} replaces {}", report.current, report.former))?;
    for (number, next) in (1..).zip(&report.next) {
        output.line(format!("  {number}. {next}"))?;
    }
    Ok(())
}

fn show(output: Output, config: &Config, ca: &CaDir) -> Done {
    let mut rows = vec![row("root", &ca.root()?)];
    let bundle = ca.bundle()?;
    for der in &bundle {
        let root = CaCertificate::from_der(der)?;
        if !rows.iter().any(|known| known.key == root.key_id().short()) {
            rows.push(row("root, in the bundle", &root));
        }
    }
    for role in CaRole::ALL {
        for (number, certificate) in ca.certificates(role)?.iter().enumerate() {
            let what = if number == 0 { role.to_string() } else { format!("{role}, retired") };
            rows.push(row(&what, certificate));
        }
    }
    let (chain, _) = ca.server()?;
    let (server_ends, server_serial) = leaf(chain.first().map(Vec::as_slice).unwrap_or_default())?;
    let pin = format!("sha256:{}", hex::encode(ca.root()?.pin()));
    let root_key = ca.root_key_path();
    let jwt_keys = list(&config.state_dir)?;
    if output.is_json() {
        let certificates: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "subject": row.subject, "key_id": row.key,
                    "not_after_unix_s": row.not_after_unix_s,
                })
            })
            .collect();
        return output.json(&json!({
            "trust_domain": config.trust_domain.as_str(),
            "root_pin": pin,
            "root_key_present": root_key.exists(),
            "bundle": ca.bundle_path(),
            "server": { "serial": server_serial, "not_after_unix_s": server_ends },
            "certificates": certificates,
            "jwt_keys": jwt_keys.iter().map(jwt_key::as_json).collect::<Vec<_>>(),
        }));
    }
    let text: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| vec![row.what, row.subject, row.key, time(row.not_after_unix_s)])
        .chain([vec!["server".into(), names(config), server_serial, time(server_ends)]])
        .chain(jwt_keys.iter().map(jwt_key::as_row))
        .collect();
    output.table(&["WHAT", "SUBJECT", "KEY OR SERIAL", "ENDS"], &text, "")?;
    output.line(format!("\nroot key digest, for workers that pin it: {pin}"))?;
    if root_key.exists() {
        let path = root_key.display();
        output
            .line(format!("{path} is on this machine: move it to where no network reaches it"))?;
    }
    Ok(())
}

struct Row {
    what: String,
    subject: String,
    key: String,
    not_after_unix_s: i64,
}

fn row(what: &str, certificate: &CaCertificate) -> Row {
    Row {
        what: what.to_owned(),
        subject: certificate.subject().to_string(),
        key: certificate.key_id().short(),
        not_after_unix_s: i64::try_from(certificate.not_after_unix_s()).unwrap_or(i64::MAX),
    }
}

fn names(config: &Config) -> String {
    config.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn leaf(der: &[u8]) -> Result<(i64, String), Failure> {
    use der::Decode as _;
    let certificate = x509_cert::Certificate::from_der(der)?;
    let tbs = certificate.tbs_certificate();
    let ends = tbs.validity().not_after.to_unix_duration().as_secs();
    Ok((i64::try_from(ends).unwrap_or(i64::MAX), hex::encode(tbs.serial_number().as_bytes())))
}
