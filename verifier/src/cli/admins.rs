//! `verifier admins`: who administers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::pb;
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect},
    now,
};
use crate::{
    ca::{CaDir, Segment},
    run::spki_digest,
};

/// Administrators and their roles.
#[derive(Debug, Subcommand)]
pub(super) enum AdminsCommand {
    /// Make a key and a client certificate, and register the administrator.
    ///
    /// Runs where the admin CA is: on the verifier's machine. Hand over NAME.key, NAME.pem and
    /// bundle.pem; the administrator uses them by --admin-cert and --ca. Needs the role security.
    ///
    /// Example:
    ///   verifier admins add alice --role operator --out /root/for-alice
    #[command(verbatim_doc_comment)]
    Add(AddArgs),
    /// List administrators.
    ///
    /// Example:
    ///   verifier admins list
    #[command(verbatim_doc_comment)]
    List,
    /// Revoke an administrator, for good: a name is never given again. Needs the role security.
    ///
    /// Example:
    ///   verifier admins revoke alice
    #[command(verbatim_doc_comment)]
    Revoke {
        /// Name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// Name; it becomes part of spiffe://DOMAIN/admin/NAME.
    #[arg(value_name = "NAME")]
    name: Segment,
    /// viewer reads; operator also manages nodes; security also changes what is expected and trusted.
    #[arg(long, value_parser = ["viewer", "operator", "security"])]
    role: String,
    /// Where key and certificate are written; STATE/admin by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(global: &Global, command: AdminsCommand) -> Done {
    let output = global.output();
    match command {
        AdminsCommand::Add(args) => add(global, args),
        AdminsCommand::List => block_on(async {
            let admins = answer(connect(global).await?.list_admins(pb::Empty {}).await)?.admins;
            if output.is_json() {
                return output.json(&admins.iter().map(admin_json).collect::<Vec<_>>());
            }
            let rows: Vec<_> = admins
                .into_iter()
                .map(|admin| {
                    let status = if admin.revoked { "revoked" } else { "active" };
                    vec![admin.name, admin.role, status.to_owned(), admin.spki_sha256]
                })
                .collect();
            output.table(&["NAME", "ROLE", "STATUS", "KEY"], &rows, "There is no administrator.")
        }),
        AdminsCommand::Revoke { name } => block_on(async {
            let request = pb::AdminName { name: name.clone() };
            answer(connect(global).await?.revoke_admin(request).await)?;
            output.either(&json!({ "revoked": name }), format!("revoked {name}"))
        }),
    }
}

fn add(global: &Global, args: AddArgs) -> Done {
    let config = global.config()?;
    let ca = CaDir::new(&config.state_dir, config.trust_domain.clone());
    let dir = args.out.unwrap_or_else(|| config.state_dir.join("admin"));
    block_on(async {
        // Connected first: whoever may not register gets no certificate made.
        let mut client = connect(global).await?;
        let admins = answer(client.list_admins(pb::Empty {}).await)?.admins;
        if admins.iter().any(|admin| admin.name == args.name.as_str()) {
            return Err(Failure::refused(format!(
                "the name {} is taken, or was revoked",
                args.name
            ))
            .with_help("choose another: names of administrators are never given twice"));
        }
        let steps = ca.write_admin(&dir, &args.name, u64::try_from(now()).unwrap_or(0))?;
        let certificate = dir.join(format!("{}.pem", args.name));
        let record = pb::AdminRecord {
            name: args.name.to_string(),
            role: args.role,
            revoked: false,
            spki_sha256: spki_digest(&certificate)?.to_string(),
        };
        let record = answer(client.add_admin(record).await).map_err(|failure| {
            failure.while_doing(&format!("register {}", certificate.display()))
        })?;
        let output = global.output();
        let files: Vec<_> = steps.iter().map(|step| step.path.clone()).collect();
        if output.is_json() {
            return output.json(&json!({ "admin": admin_json(&record), "files": files }));
        }
        output.line(format!("registered {} with the role {}", record.name, record.role))?;
        for file in files {
            output.line(format!("  {}", file.display()))?;
        }
        Ok(())
    })
}

fn admin_json(admin: &pb::AdminRecord) -> Value {
    json!({
        "name": admin.name, "role": admin.role, "revoked": admin.revoked,
        "spki_sha256": admin.spki_sha256,
    })
}
