//! `sign`: a job signs what it built, with its own key, as its pool, at a time that the verifier stamps.

mod authority;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use results::{
    Refusal, Sha256Digest, UnixTime,
    bundle::{Bundle, Content, MessageSignature},
    certificate::Certificate,
    signer::{Signer as _, SoftwareKey},
    timestamp::{Request, Response, ask::AuthorityUrl},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::StatusExt as _;
use workload::{
    conformance::{check_x509_response, split},
    pb::{X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient},
};
use zeroize::Zeroizing;

use self::authority::Authority;
use super::{
    commands::{Done, REFUSED, say, say_json},
    socket::{DEFAULT_SOCKET, connect},
};

/// What ends the name of a file's bundle.
const SUFFIX: &str = ".sigstore.json";
/// The identity that signs artifacts: whoever admits them names pools, not jobs.
const HINT: &str = "pool";
/// Most certificates of a chain: a leaf and three above it.
const MAX_CHAIN: usize = 4;
/// Longest wait for an identity or for a time stamp: the daemon's own deadlines are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a file that are in memory at once.
const READ_BYTES: usize = 1 << 16;
const NONCE_BYTES: usize = 16;

/// Arguments of `sign`.
#[derive(Args, Debug)]
pub(super) struct SignArgs {
    /// What the job built.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the signature goes; FILE.sigstore.json beside the file by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The daemon's socket for jobs, which passes the request for a time stamp on.
    #[arg(long, env = "ASSAY_JOB_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Another time stamp authority (RFC 3161) instead of the verifier's; whoever verifies must have it in their
    /// trusted_root.json, and whoever admits must name it in their policy: it does not know whether the permit stands.
    #[arg(long, value_name = "http://HOST/PATH")]
    timestamp_url: Option<AuthorityUrl>,
    /// The SPIFFE Workload API; `attestor exec` and the hooks set it.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "unix://PATH")]
    workload_socket: Option<String>,
    /// Print as JSON: what was signed, and why no more was.
    #[arg(long)]
    json: bool,
}

/// A file that was signed.
#[derive(Serialize)]
struct Signed {
    file: String,
    bundle: String,
    spiffe_id: String,
    signed_at: UnixTime,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    /// Somebody said no, or what was given is not good.
    #[error("{code}: {why}")]
    Refused { code: String, why: String },
    /// Nobody answered.
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for SignError {
    fn from(refusal: Refusal) -> Self {
        let why = format!(
            "{}: expected {}, found {}",
            refusal.subject(),
            refusal.expected(),
            refusal.observed()
        );
        Self::Refused { code: refusal.code().to_string(), why }
    }
}

impl SignError {
    fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    /// An answer, or the lack of one.
    fn of(who: &str, status: &Status) -> Self {
        let code = status.get_details_error_info().map(|info| info.reason);
        let said = format!("{who}: {}", status.message());
        match status.code() {
            Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument => {
                let code = code.unwrap_or_else(|| format!("{:?}", status.code()));
                Self::Refused { code, why: said }
            }
            _ => Self::Failed(code.map_or_else(|| said.clone(), |code| format!("{code}: {said}"))),
        }
    }
}

/// Signs files as the job's pool.
pub(super) fn sign(args: &SignArgs) -> Done {
    if args.out.is_some() && args.files.len() > 1 {
        eprintln!("attestor: --out names one file, and {} are to be signed", args.files.len());
        return Ok(ExitCode::from(2));
    }
    let mut signed = Vec::new();
    let done = super::commands::runtime()?.block_on(async {
        let identity = Identity::fetch(args.workload_socket.as_deref()).await?;
        let mut authority = Authority::new(&args.socket, args.timestamp_url.as_ref()).await?;
        for file in &args.files {
            let out = args.out.clone().unwrap_or_else(|| bundle_path(file));
            let at = sign_file(file, &out, &identity, &mut authority).await?;
            let of = Signed {
                file: file.display().to_string(),
                bundle: out.display().to_string(),
                spiffe_id: identity.spiffe_id.clone(),
                signed_at: at,
            };
            if !args.json {
                let Signed { file, bundle, spiffe_id, .. } = &of;
                let line = format_args!("{file}: signed {at} by {spiffe_id}: {bundle}\n");
                say(line).map_err(|error| SignError::failed(error.to_string()))?;
            }
            signed.push(of);
        }
        Ok(())
    });
    if args.json {
        say_json(&json(&signed, done.as_ref().err()))?;
    }
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ SignError::Refused { .. }) => {
            if !args.json {
                eprintln!("attestor: not signed: {error}");
            }
            Ok(ExitCode::from(REFUSED))
        }
        Err(error @ SignError::Failed(_)) => Err(error.into()),
    }
}

fn json(signed: &[Signed], error: Option<&SignError>) -> serde_json::Value {
    match error {
        None => serde_json::json!({ "outcome": "signed", "signed": signed }),
        Some(SignError::Refused { code, why }) => {
            serde_json::json!({ "outcome": "refused", "code": code, "why": why, "signed": signed })
        }
        Some(SignError::Failed(why)) => {
            serde_json::json!({ "outcome": "failed", "why": why, "signed": signed })
        }
    }
}

fn bundle_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

async fn sign_file(
    file: &Path,
    out: &Path,
    identity: &Identity,
    authority: &mut Authority,
) -> Result<UnixTime, SignError> {
    let digest = digest_of(file)?;
    let signature = MessageSignature::sign(digest, &identity.key)?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| SignError::failed(error.to_string()))?;
    let request = Request::new(Sha256Digest::of(&signature.signature), &nonce)?;
    let stamp = authority.ask(request.to_der()?, &signature).await?;
    // Whoever verifies holds it against the authorities that they trust; here it only has to be of use.
    let at = Response::parse(&stamp)?.untrusted_answer(&request, now()?)?;
    if !identity.leaf.is_valid_at(at) {
        let (from, to) = (identity.leaf.not_before(), identity.leaf.not_after());
        return Err(SignError::failed(format!(
            "stamped {at}, while the job's certificate is valid from {from} to {to}: one of the clocks is wrong"
        )));
    }
    let bundle = Bundle::new(identity.leaf.der(), vec![stamp], Content::Artifact(signature))?;
    write(out, bundle.to_json().as_bytes())?;
    Ok(at)
}

/// The identity that signs.
struct Identity {
    spiffe_id: String,
    key: SoftwareKey,
    leaf: Certificate,
}

impl Identity {
    /// What the Workload API has for this process under the hint `pool`.
    async fn fetch(endpoint: Option<&str>) -> Result<Self, SignError> {
        let endpoint = endpoint.ok_or_else(|| {
            SignError::failed(
                "SPIFFE_ENDPOINT_SOCKET is not set: `attestor sign` runs in a job that `attestor exec` started, or that \
                 has a permit of `attestor permit`",
            )
        })?;
        let path = endpoint.strip_prefix("unix:").ok_or_else(|| {
            SignError::failed(format!("SPIFFE_ENDPOINT_SOCKET is {endpoint:?}, not unix://PATH"))
        })?;
        let path = path.strip_prefix("//").unwrap_or(path);
        let channel = connect(Path::new(path)).await.map_err(SignError::Failed)?;
        let mut client = SpiffeWorkloadApiClient::new(channel);
        let mut request = tonic::Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let response = async { client.fetch_x509svid(request).await?.into_inner().message().await };
        let response = timeout(ANSWER_WITHIN, response)
            .await
            .map_err(|_| SignError::failed("the Workload API did not answer in time"))?
            .map_err(|status| SignError::of("no identity", &status))?;
        Self::of(&response.ok_or_else(|| SignError::failed("the Workload API hung up"))?)
    }

    fn of(response: &X509svidResponse) -> Result<Self, SignError> {
        let unusable = |why: String| SignError::failed(format!("the job's identity: {why}"));
        let now = now()?.unix_s();
        check_x509_response(response, now).map_err(|error| unusable(error.to_string()))?;
        let found = response.svids.iter().find(|svid| svid.hint == HINT).ok_or_else(|| {
            let hints: Vec<_> = response.svids.iter().map(|svid| svid.hint.as_str()).collect();
            unusable(format!("none has the hint {HINT:?}, only {hints:?}"))
        })?;
        let chain = split(&found.x509_svid, MAX_CHAIN).unwrap_or_default();
        let leaf = chain.first().ok_or_else(|| unusable("no certificate".to_owned()))?;
        let leaf = Certificate::parse("job's certificate", leaf)?;
        let pkcs8 = Zeroizing::new(found.x509_svid_key.clone());
        let key =
            SoftwareKey::from_pkcs8_der(&pkcs8).map_err(|error| unusable(error.to_string()))?;
        if key.spki_der() != leaf.spki_der() {
            return Err(unusable("key and certificate do not belong together".to_owned()));
        }
        Ok(Self { spiffe_id: leaf.spiffe_id()?.to_string(), key, leaf })
    }
}

/// SHA-256 of a file of any size. One that changes meanwhile gives a signature that is good for neither.
fn digest_of(path: &Path) -> Result<Sha256Digest, SignError> {
    let at = |error: io::Error| SignError::failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(at)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256Digest::from_bytes(hash.finalize().into())),
            Ok(read) => hash.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at(error)),
        }
    }
}

/// Writes at once or not at all: whoever waits for the file finds a whole one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SignError> {
    let at = |error: io::Error| SignError::failed(format!("{}: {error}", path.display()));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = || {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        at(error)
    })
}

fn now() -> Result<UnixTime, SignError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let now = since.ok().and_then(|now| UnixTime::from_unix_s(now).ok());
    now.ok_or_else(|| SignError::failed("this machine's clock is not set"))
}
