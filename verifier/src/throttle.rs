//! A token bucket: bounds what callers who proved nothing can make the verifier write.

use std::sync::{Mutex, PoisonError};

/// So many at once, refilled at a steady rate.
#[derive(Debug)]
pub struct Throttle {
    burst: u32,
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    at_unix_s: i64,
}

impl Throttle {
    /// A full bucket.
    #[must_use]
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, state: Mutex::new(State { tokens: burst, at_unix_s: 0 }) }
    }

    /// Takes a token if there is one.
    pub fn allow(&self, now_unix_s: i64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u32::try_from(now_unix_s.saturating_sub(state.at_unix_s).max(0));
        let refill = passed.unwrap_or(u32::MAX).saturating_mul(self.per_second);
        state.tokens = state.tokens.saturating_add(refill).min(self.burst);
        state.at_unix_s = state.at_unix_s.max(now_unix_s);
        match state.tokens.checked_sub(1) {
            Some(left) => {
                state.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;

    #[test]
    fn refills_at_its_rate_up_to_its_burst_and_never_by_a_clock_that_goes_back() {
        let throttle = Throttle::new(2, 1);
        assert!(throttle.allow(100) && throttle.allow(100));
        assert!(!throttle.allow(100));
        assert!(!throttle.allow(50));
        assert!(throttle.allow(101));
        assert!(!throttle.allow(101));
        assert!(throttle.allow(1000) && throttle.allow(1000));
        assert!(!throttle.allow(1000));
    }
}
