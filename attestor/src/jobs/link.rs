//! The way of all jobs to the verifier: one connection while it is in use, and few requests at a time.
//!
//! Jobs that start or are checked together would otherwise pay for a TLS handshake each, and hold as many places at the
//! verifier as there are jobs: it counts what comes from one address, and refuses what is beyond.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{limits::MAX_MESSAGE_BYTES, pb::jobs_client::JobsClient};
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit, watch},
    time::{Instant, sleep, timeout},
};
use tonic::{Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::LineError;
use crate::{
    client::{ClientError, DEADLINES, Deadlines, connect},
    trust::{Given, Learned, Trust},
};

/// Requests that are under way at once, of all jobs together: a quarter of what the verifier lets one address have unless
/// it is configured otherwise, where this worker's attestations and other workers behind the same address must find room.
const AT_ONCE: usize = proto::limits::MAX_STREAMS_PER_PEER / 4;
/// A connection that was not used for so long is closed: the verifier has a bounded number, and a network that forgot it
/// would swallow the next request.
const IDLE: Duration = Duration::from_secs(5);
/// A connection is used no longer than this: whoever is at the other end proves itself again then.
const AGE: Duration = Duration::from_secs(60);
/// As everywhere, but a connection that died is noticed before `jobs.verifier_silence_s` is over: all jobs wait on it.
const ON_IT: Deadlines = Deadlines {
    ping_every: Duration::from_secs(5),
    ping_within: Duration::from_secs(5),
    ..DEADLINES
};
/// A request that was given up after less says nothing about its connection: whoever asked went away.
const TELLS_AFTER: Duration = Duration::from_secs(2);

/// Where the verifier is, what it is trusted by at the moment, and the connection to it. Clones share it.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    url: String,
    trust: Trust,
    bundle: watch::Receiver<Learned>,
    turns: Semaphore,
    /// Of jobs that start, so that those that run are checked meanwhile: the verifier may wait for a time stamp.
    starts: Semaphore,
    open: Mutex<Option<Open>>,
}

/// A connection, and what it was made under.
struct Open {
    channel: Channel,
    given: Given,
    bundle: Learned,
    since: Instant,
    used: Instant,
    /// Set by a request that got no answer on it.
    is_bad: Arc<AtomicBool>,
}

impl Open {
    fn is_good_for(&self, given: &Given, bundle: &Learned) -> bool {
        let is_bad = self.is_bad.load(Ordering::Relaxed);
        let is_young = self.since.elapsed() < AGE && self.used.elapsed() < IDLE;
        !is_bad && is_young && self.given == *given && self.bundle == *bundle
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.0.url).finish_non_exhaustive()
    }
}

impl Link {
    /// A way to `https://host:port`, trusted as configured and by the roots learned from admissions. Connects to nothing yet.
    #[must_use]
    pub fn new(url: String, trust: Trust, bundle: watch::Receiver<Learned>) -> Self {
        let [turns, starts] = [AT_ONCE, AT_ONCE / 2].map(Semaphore::new);
        Self(Arc::new(Shared { url, trust, bundle, turns, starts, open: Mutex::new(None) }))
    }

    /// What a job that starts has while it asks: half of the requests at once are left for others.
    pub(super) async fn turn_to_start(&self) -> Result<SemaphorePermit<'_>, LineError> {
        let stopping = |_| Status::unavailable("the daemon is stopping");
        Ok(self.0.starts.acquire().await.map_err(stopping)?)
    }

    /// Every turn of [`Link::turn_to_start`].
    #[cfg(test)]
    pub(super) async fn all_turns_to_start(&self) -> SemaphorePermit<'_> {
        let all = self.0.starts.available_permits();
        self.0.starts.acquire_many(u32::try_from(all).expect("few")).await.expect("open")
    }

    /// Makes one request, when it is its turn. May be given up at any time.
    pub(super) async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(&mut JobsClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, LineError> {
        let Shared { ref turns, .. } = *self.0;
        // First a connection: who waits for one takes nobody's turn.
        let (channel, is_bad) = self.channel().await?;
        let stopping = |_| Status::unavailable("the daemon is stopping");
        let _turn = turns.acquire().await.map_err(stopping)?;
        let mut asking = Asking { is_bad, since: Instant::now(), came: Came::Nothing };
        let mut client = JobsClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = call(&mut client).await;
        // The verifier gives a reason with each refusal; what the transport says has none.
        let is_answered = answer
            .as_ref()
            .map_or_else(|status| status.get_details_error_info().is_some(), |_| true);
        asking.came = if is_answered { Came::Answer } else { Came::Failure };
        Ok(answer?.into_inner())
    }

    /// The connection that is open, or a new one.
    async fn channel(&self) -> Result<(Channel, Arc<AtomicBool>), LineError> {
        let Shared { url, trust, bundle, open, .. } = self.0.as_ref();
        let given = trust.read().map_err(ClientError::from)?;
        let bundle = bundle.borrow().clone();
        // Roots that another CA file or pin vouched for count no more.
        let bundle = if bundle.holds_under(&given) { bundle } else { Learned::default() };
        // Not longer than one attempt takes: who waited for one that failed makes one more, and not all after each other.
        let within = ON_IT.connect;
        let mut open =
            timeout(within, open.lock()).await.map_err(|_| ClientError::Silent(within))?;
        if let Some(open) = open.as_mut().filter(|open| open.is_good_for(&given, &bundle)) {
            open.used = Instant::now();
            return Ok((open.channel.clone(), Arc::clone(&open.is_bad)));
        }
        *open = None;
        let channel = connect(url, &given, &bundle, &ON_IT).await?;
        let (now, is_bad) = (Instant::now(), Arc::<AtomicBool>::default());
        let made = Open {
            channel: channel.clone(),
            given,
            bundle,
            since: now,
            used: now,
            is_bad: Arc::clone(&is_bad),
        };
        *open = Some(made);
        tokio::spawn(close_when_idle(Arc::downgrade(&self.0), Arc::clone(&is_bad)));
        Ok((channel, is_bad))
    }
}

/// A request that is under way. One that is given up after a while got no answer either.
struct Asking {
    is_bad: Arc<AtomicBool>,
    since: Instant,
    came: Came,
}

/// What came of a request.
enum Came {
    Nothing,
    /// From the verifier.
    Answer,
    /// From the transport.
    Failure,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let is_bad = match self.came {
            Came::Answer => false,
            Came::Failure => true,
            Came::Nothing => self.since.elapsed() >= TELLS_AFTER,
        };
        if is_bad {
            self.is_bad.store(true, Ordering::Relaxed);
        }
    }
}

/// Closes this connection, known by its mark, once nobody uses it; requests that are under way on it go on.
async fn close_when_idle(shared: Weak<Shared>, mark: Arc<AtomicBool>) {
    loop {
        sleep(IDLE).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut open = shared.open.lock().await;
        match open.as_ref().filter(|open| Arc::ptr_eq(&open.is_bad, &mark)) {
            None => return,
            Some(open) if open.is_good_for(&open.given, &open.bundle) => {}
            Some(_) => {
                *open = None;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_while_it_is_young_was_used_lately_and_answers() {
        let given = Trust::Pin([0; 32]).read().expect("nothing is read");
        let bundle = Learned::default();
        let now = Instant::now();
        let ago = |time: Duration| now.checked_sub(time).expect("the machine runs for a minute");
        let open = |since: Duration, used: Duration| Open {
            channel: Endpoint::from_static("http://localhost").connect_lazy(),
            given: given.clone(),
            bundle: bundle.clone(),
            since: ago(since),
            used: ago(used),
            is_bad: Arc::default(),
        };
        let second = Duration::from_secs(1);
        let good = open(AGE - second, IDLE - second);
        assert!(good.is_good_for(&given, &bundle));
        assert!(!open(AGE, Duration::ZERO).is_good_for(&given, &bundle));
        assert!(!open(IDLE, IDLE).is_good_for(&given, &bundle));
        let pin = Trust::Pin([1; 32]).read().expect("nothing is read");
        assert!(!good.is_good_for(&pin, &bundle));
        assert!(!good.is_good_for(&given, &given.learned(vec![vec![1]])));
    }

    #[test]
    fn a_connection_is_bad_when_a_request_fails_on_it_or_is_given_up_after_a_while() {
        let now = Instant::now();
        let moment = Duration::from_millis(1);
        let long_ago = now.checked_sub(TELLS_AFTER).expect("the machine runs for a minute");
        for (came, since, expected) in [
            (Came::Answer, now, false),
            (Came::Answer, long_ago, false),
            (Came::Failure, now, true),
            (Came::Nothing, now, false),
            (Came::Nothing, long_ago - moment, true),
        ] {
            let is_bad = Arc::<AtomicBool>::default();
            drop(Asking { is_bad: Arc::clone(&is_bad), since, came });
            assert_eq!(is_bad.load(Ordering::Relaxed), expected);
        }
    }
}
