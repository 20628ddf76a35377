//! `verifier init`.

use std::net::SocketAddr;

use clap::Args;
use serde_json::json;

use super::{Done, Failure, Global, block_on, files::read_text, keys::NamedFile, now};
use crate::{
    ca::{Segment, ServerName, TrustDomain},
    clock::SystemClock,
    config::{Config, DEFAULT_STATE_DIR},
    init::{InitOptions, init},
    run::{adopt_first_ring, register_first_admin, store_folder},
    signatures::PublicKey,
};

/// Create CA, server certificate, first administrator, configuration and database.
///
/// Nothing that exists is overwritten: run again, it says what was there, and takes up a run that was
/// cut off. Options that the existing configuration answers may be left out then.
///
/// Example:
///   verifier init --trust-domain builds.example.org --name verifier.builds.example.org
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct InitArgs {
    /// Trust domain: every identity becomes spiffe://DOMAIN/node/NAME. It cannot be changed later.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// DNS name or address under which workers reach the verifier; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<ServerName>,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Name of the first administrator; gets the role security.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: Segment,
    /// A security key whose signature counts for golden sets and policies: NAME=FILE of its public key (PEM, P-256 or
    /// Ed25519); may be repeated. Without any, one is made in STATE/admin/security.key.
    #[arg(long = "security-key", value_name = "NAME=FILE")]
    security_keys: Vec<NamedFile>,
    /// How many security keys must sign; by default more than half.
    #[arg(long, value_name = "M")]
    threshold: Option<usize>,
}

pub(super) fn run(global: &Global, args: InitArgs) -> Done {
    let config_path = global.config_path();
    let existing = if config_path.exists() { Some(Config::load(&config_path)?) } else { None };
    let trust_domain = args
        .trust_domain
        .or_else(|| existing.as_ref().map(|config| config.trust_domain.clone()))
        .ok_or_else(|| {
            Failure::usage("--trust-domain is needed: the name under which all identities stand")
                .with_help("for example: verifier init --trust-domain builds.example.org --name …")
        })?;
    let names = match (&existing, args.names) {
        (Some(config), names) if names.is_empty() => config.names.clone(),
        (_, names) => names,
    };
    if names.is_empty() {
        return Err(Failure::usage(
            "--name is needed: a DNS name or address under which workers reach the verifier",
        ));
    }
    let state_dir = global
        .state
        .clone()
        .or_else(|| existing.as_ref().map(|config| config.state_dir.clone()))
        .unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    let options = InitOptions {
        config_path,
        state_dir,
        trust_domain,
        names,
        listen: args.listen,
        admin: args.admin,
        security_keys: args
            .security_keys
            .into_iter()
            .map(|NamedFile { name, file }| Ok((name, PublicKey::from_pem(&read_text(&file)?)?)))
            .collect::<Result<_, Failure>>()?,
        threshold: args.threshold,
        now_unix_s: u64::try_from(now()).unwrap_or(0),
    };
    let report = init(&options)?;
    let (registered, adopted) = block_on(async {
        let certificate = &report.admin_certificate;
        let name = &options.admin;
        let registered =
            register_first_admin(&report.config, name, certificate, &SystemClock).await?;
        Ok((registered, adopt_first_ring(&report.config, &report.ring, &SystemClock).await?))
    })?;
    let database = store_folder(&report.config);
    let output = global.output();
    if output.is_json() {
        let steps: Vec<_> = report
            .steps
            .iter()
            .map(|step| {
                json!({
                    "path": step.path, "mode": format!("{:04o}", step.mode), "what": step.what,
                    "created": step.created,
                })
            })
            .collect();
        return output.json(&json!({
            "changed": report.changed() || registered || adopted,
            "steps": steps,
            "database": database,
            "admin": options.admin.as_str(),
            "admin_registered": registered,
            "admin_certificate": report.admin_certificate,
            "admin_key": report.admin_key,
            "security_keys": report.ring,
            "security_key": report.security_key,
            "root_pin": report.root_pin,
            "next": report.next,
        }));
    }
    let done = if registered { "created" } else { "kept   " };
    output.line(format!(
        "{done} 0700 {}  (database; {} registered with the role security)",
        database.display(),
        options.admin
    ))?;
    output.text(&report.to_string())
}
