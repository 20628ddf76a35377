//! A job's program with the crate `spiffe`: what it gets, whether that holds, and a rotation. `tests/interop.rs` runs it.
//!
//! Prints what `tests/interop/client.py` prints.

use std::{error::Error, process::ExitCode};

use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::{JwtSvid, WorkloadApiClient, X509Context, X509Svid};
use tokio_stream::StreamExt as _;
use x509_cert::{Certificate, der::Decode as _};

type AnyError = Box<dyn Error + Send + Sync>;

const AUDIENCE: &str = "registry.example.org";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), AnyError> {
    let client = WorkloadApiClient::connect_env().await?;
    let mut contexts = std::pin::pin!(client.stream_x509_contexts().await?);
    let context = contexts.next().await.ok_or("no context")??;
    let default = context.default_svid().ok_or("no default")?;
    verified(default, &context)?;
    println!("default {}", default.spiffe_id());
    let pool = context.svids().iter().find(|svid| svid.hint() == Some("pool"));
    let pool = pool.ok_or("no hint pool")?;
    verified(pool, &context)?;
    println!("pool {}", pool.spiffe_id());
    let token = client.fetch_jwt_token([AUDIENCE], None).await?;
    let bundles = client.fetch_jwt_bundles().await?;
    let svid = JwtSvid::parse_and_validate(&token, &bundles, &[AUDIENCE])?;
    println!("jwt {}", svid.spiffe_id());
    if JwtSvid::parse_and_validate(&token, &bundles, &["other.example.org"]).is_ok() {
        return Err("a token for somebody else".into());
    }
    println!("serial {}", serial(default)?);
    let rotated = contexts.next().await.ok_or("the stream ended")??;
    let default = rotated.default_svid().ok_or("no default")?;
    verified(default, &rotated)?;
    println!("rotated {}", default.spiffe_id());
    println!("serial {}", serial(default)?);
    Ok(())
}

/// The crate builds no chains: whoever uses a certificate verifies it against the bundle.
fn verified(svid: &X509Svid, context: &X509Context) -> Result<(), AnyError> {
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain()).ok_or("no bundle")?;
    let roots: Vec<CertificateDer<'_>> =
        bundle.authorities().iter().map(|root| root.as_bytes().into()).collect();
    let anchors: Vec<_> =
        roots.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<_, _>>()?;
    let chain: Vec<CertificateDer<'_>> =
        svid.cert_chain().iter().map(|certificate| certificate.as_bytes().into()).collect();
    let (leaf, issuing) = chain.split_first().ok_or("no certificate")?;
    webpki::EndEntityCert::try_from(leaf)?.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        issuing,
        UnixTime::now(),
        webpki::KeyUsage::client_auth(),
        None,
        None,
    )?;
    Ok(())
}

fn serial(svid: &X509Svid) -> Result<String, AnyError> {
    let leaf = svid.cert_chain().first().ok_or("no certificate")?;
    Ok(Certificate::from_der(leaf.as_bytes())?.tbs_certificate().serial_number().to_string())
}
