//! Every limit of the server in one place, each with the reason for its number.

use std::time::Duration;

/// What the server gives at most. Every default suits a worker that runs a few jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Open connections of all users. Default 256: each costs a task and two descriptors, and the
    /// usual limit of a service is 1024 descriptors.
    pub connections: usize,
    /// Open connections of one user. Default 32: a client library keeps one or two; eight users at
    /// their bound fill the total.
    pub connections_per_uid: usize,
    /// Users for whom connections are kept: those who may have jobs. Default none.
    pub kept_for: Vec<u32>,
    /// Connections kept for each of them, whatever all others open. Default 16.
    pub kept_connections: usize,
    /// Concurrent requests of one connection. Default 16: a client has three kinds of streams.
    pub streams_per_connection: u32,
    /// Bytes of one request. Default 64 KiB: a token and all audiences fit.
    pub request_bytes: usize,
    /// Bytes of one request's header list. Default 8 KiB.
    pub header_bytes: u32,
    /// From accepting a connection to its first request. Default 10 s: clients connect when they
    /// ask.
    pub header_timeout: Duration,
    /// From a request's headers to the first bytes of its answer. Default 30 s: the JWT source asks
    /// the verifier over the network.
    pub request_timeout: Duration,
    /// A connection without an open request is closed after this. Default 120 s; clients connect
    /// again by themselves.
    pub idle_timeout: Duration,
    /// A connection is probed when nothing came for this long. Default 30 s.
    pub keepalive_interval: Duration,
    /// A probe must be answered within this. Default 20 s: a process that is stopped loses its
    /// connection, not its identity.
    pub keepalive_timeout: Duration,
    /// How often a connection looks whether the process that opened it still lives, which each request
    /// does anyway: for descriptors that were passed on. Default 1 s; one system call.
    pub peer_interval: Duration,
    /// What streams get to say goodbye when the server stops. Default 2 s.
    pub shutdown_grace: Duration,
    /// Bytes of a JWT-SVID to validate. Default 16 KiB: header lists of common servers end at 8.
    pub token_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_uid: 32,
            kept_for: Vec::new(),
            kept_connections: 16,
            streams_per_connection: 16,
            request_bytes: 64 * 1024,
            header_bytes: 8 * 1024,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            peer_interval: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(2),
            token_bytes: 16 * 1024,
        }
    }
}
