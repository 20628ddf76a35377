//! The Workload API over its socket: what is answered, to whom, and with which code.

mod clients;
mod conformance;
mod fetch;
mod jwt;
mod limits;
mod peers;
mod pki;
mod process;
mod world;
