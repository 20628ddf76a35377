//! Compiles the Workload API's contract with protox, so that no protoc is needed on the machine.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["workload.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Their `Debug` is ours: keys and tokens do not belong into logs.
        .skip_debug(["X509SVID", "JWTSVID", "ValidateJWTSVIDRequest"])
        .compile_fds(descriptors)?;
    Ok(())
}
