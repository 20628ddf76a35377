//! Token buckets: bound what callers can make the verifier write.

use std::sync::{Mutex, PoisonError};

/// So many at once, and so many more every so many seconds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// What a full bucket holds.
    pub burst: i64,
    /// What comes back,
    pub refill: i64,
    /// each time this many seconds passed.
    pub every_s: i64,
}

/// One bucket; whoever has it counts alone.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: i64,
    /// Start of the period that is not refilled yet.
    since_unix_s: i64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn full(rate: Rate, now_unix_s: i64) -> Self {
        Self { rate, tokens: rate.burst, since_unix_s: now_unix_s }
    }

    /// What is there now; negative after more was taken than there was.
    pub fn left(&mut self, now_unix_s: i64) -> i64 {
        let passed = now_unix_s.saturating_sub(self.since_unix_s).max(0);
        let periods = passed / self.rate.every_s.max(1);
        let refill = periods.saturating_mul(self.rate.refill);
        self.tokens = self.tokens.saturating_add(refill).min(self.rate.burst);
        let refilled_s = periods.saturating_mul(self.rate.every_s.max(1));
        self.since_unix_s = self.since_unix_s.saturating_add(refilled_s);
        self.tokens
    }

    /// Takes that much, there or not.
    pub const fn take(&mut self, tokens: i64) {
        self.tokens = self.tokens.saturating_sub(tokens);
    }
}

/// A bucket that many share.
#[derive(Debug)]
pub struct Throttle(Mutex<Bucket>);

impl Throttle {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self(Mutex::new(Bucket::full(rate, 0)))
    }

    /// Takes a token if there is one.
    pub fn allow(&self, now_unix_s: i64) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = bucket.left(now_unix_s) > 0;
        if allowed {
            bucket.take(1);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Rate, Throttle};

    #[test]
    fn refills_at_its_rate_up_to_its_burst_and_never_by_a_clock_that_goes_back() {
        let throttle = Throttle::new(Rate { burst: 2, refill: 1, every_s: 1 });
        assert!(throttle.allow(100) && throttle.allow(100));
        assert!(!throttle.allow(100));
        assert!(!throttle.allow(50));
        assert!(throttle.allow(101));
        assert!(!throttle.allow(101));
        assert!(throttle.allow(1000) && throttle.allow(1000));
        assert!(!throttle.allow(1000));
    }

    #[test]
    fn what_was_taken_beyond_is_made_good_first_and_parts_of_a_period_count_on() {
        let mut bucket = Bucket::full(Rate { burst: 10, refill: 5, every_s: 60 }, 0);
        bucket.take(17);
        assert_eq!(bucket.left(59), -7);
        assert_eq!(bucket.left(61), -2);
        assert_eq!(bucket.left(119), -2);
        assert_eq!(bucket.left(120), 3);
        assert_eq!(bucket.left(i64::MAX), 10);
        bucket.take(i64::MAX);
        assert!(bucket.left(i64::MAX) < 0);
    }
}
