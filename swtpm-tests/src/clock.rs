//! The time of a test: the system's, until the test moves on.

use std::sync::atomic::{AtomicI64, Ordering};

use verifier::clock::{Clock, SystemClock};

/// The system's clock, put off by some seconds.
#[derive(Debug, Default)]
pub struct SkewedClock(AtomicI64);

impl SkewedClock {
    /// Moves on, or back.
    pub fn skip(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn now_unix_s(&self) -> i64 {
        SystemClock.now_unix_s() + self.0.load(Ordering::SeqCst)
    }
}
