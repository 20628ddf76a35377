//! Compiles the contract under `attest/v1` with protox, so that no protoc is needed on the machine.
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=attest");
    let files = ["service", "job", "gate", "admin", "reference", "case"]
        .map(|name| format!("attest/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The reflection service of the verifier serves these bytes.
    fs::write(out.join("descriptors.bin"), prost_bytes(&descriptors))?;
    let with_rpc = env::var_os("CARGO_FEATURE_RPC").is_some();
    tonic_prost_build::configure()
        .build_client(with_rpc)
        .build_server(with_rpc)
        .compile_fds(descriptors)?;
    Ok(())
}

fn prost_bytes(descriptors: &impl protox::prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
