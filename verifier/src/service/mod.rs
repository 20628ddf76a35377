//! The gRPC services: decode, call, encode. No decision is made here.

pub mod admin;
pub mod attest;
mod gate;
pub mod status;
