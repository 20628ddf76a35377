//! The verifier: appraises build workers over gRPC and issues build-node certificates.
//!
//! Main path: [`service::attest`] (one stream) → [`attestation`] (gather, appraise, record, issue) →
//! [`appraisal::appraise`] (the pure core) → [`store`] and [`ca`].
#![warn(clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

pub mod attestation;
pub mod audit;
pub mod backup;
pub mod ca;
pub mod capture;
pub mod case;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod documents;
pub mod endorsements;
pub mod expectations;
pub mod ima_manifest;
pub mod init;
pub mod jobs;
pub mod jwt_key;
pub mod metrics;
pub mod objects;
pub mod platforms;
pub mod results_files;
pub mod results_service;
pub mod roots;
pub mod run;
pub mod server;
pub mod service;
pub mod signatures;
pub mod store;
pub mod throttle;
pub mod tls;
mod web;
