//! The gRPC services: decode, call, encode. No decision is made here.

pub mod access;
pub mod admin;
mod answer;
pub mod attest;
pub mod gate;
pub mod jobs;
pub mod reference;
pub mod status;
