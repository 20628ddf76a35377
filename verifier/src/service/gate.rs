//! What attestations may hold together, and what one peer may hold of it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use proto::reason::ReasonCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use super::status;
use crate::config::Limits;

/// One permit of the pending-log budget, bytes.
const LOG_PERMIT_BYTES: usize = 4096;

/// Bounds on streams; [`Limits`] has the numbers.
#[derive(Debug)]
pub struct Gate {
    streams: Arc<Semaphore>,
    log_bytes: Arc<Semaphore>,
    streams_per_peer: usize,
    /// Streams, by address.
    peers: Mutex<HashMap<IpAddr, usize>>,
    /// Permits of the pending-log budget, by [`network`].
    log_permits: Mutex<HashMap<IpAddr, usize>>,
}

/// A place at the gate, given back on drop.
pub(super) struct Place {
    gate: Arc<Gate>,
    peer: Option<IpAddr>,
    _stream: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limits.streams)),
            log_bytes: Arc::new(Semaphore::new(limits.pending_log_bytes / LOG_PERMIT_BYTES)),
            streams_per_peer: limits.streams_per_peer,
            peers: Mutex::new(HashMap::new()),
            log_permits: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Place, Status> {
        let stream = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| busy(ReasonCode::ServiceBusy.meaning()))?;
        if let Some(peer) = peer {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = peers.entry(peer).or_insert(0);
            if *count >= self.streams_per_peer {
                return Err(busy(ReasonCode::ServiceBusy.meaning()));
            }
            *count += 1;
        }
        Ok(Place { gate: Arc::clone(self), peer, _stream: stream })
    }

    /// Log bytes of one stream of this peer: none yet.
    pub(super) fn hold_logs(self: &Arc<Self>, peer: Option<IpAddr>) -> HeldLogs {
        HeldLogs { gate: Arc::clone(self), network: peer.map(network), bytes: 0, permits: None }
    }

    /// Takes permits where the peer then holds no more than is left for all others.
    ///
    /// So one peer has at most half of the budget, and each further one at most half of what the others left: however
    /// many come, something is left for the next.
    fn take_log_permits(
        &self,
        network: Option<IpAddr>,
        permits: usize,
    ) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(permits).ok()?;
        // Held while permits are taken: what others give back meanwhile only adds to what is left.
        let mut by_network = self.log_permits.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.log_bytes.available_permits().checked_sub(permits)?;
        if let Some(network) = network {
            let held = by_network.get(&network).copied().unwrap_or(0) + permits;
            if held > left {
                return None;
            }
            by_network.insert(network, held);
        }
        Arc::clone(&self.log_bytes).try_acquire_many_owned(count).ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            give_back(&self.gate.peers, peer, 1);
        }
    }
}

/// Log bytes that one stream holds, given back on drop.
pub(super) struct HeldLogs {
    gate: Arc<Gate>,
    network: Option<IpAddr>,
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

impl HeldLogs {
    /// Holds so many bytes more: by bytes of the whole stream, so that many small pieces cost what one large one does.
    ///
    /// # Errors
    /// `SERVICE_BUSY`: there is no room, or none for this peer.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        let have = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.bytes.div_ceil(LOG_PERMIT_BYTES).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let permit = self.gate.take_log_permits(self.network, more).ok_or_else(|| {
            busy("as many log bytes are under way as the verifier holds, of all or of one peer")
        })?;
        match &mut self.permits {
            Some(held) => held.merge(permit),
            None => self.permits = Some(permit),
        }
        Ok(())
    }
}

impl Drop for HeldLogs {
    fn drop(&mut self) {
        let held = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if let Some(network) = self.network {
            give_back(&self.gate.log_permits, network, held);
        }
    }
}

/// Who shares a budget: an IPv4 address, or the IPv6 network of one link (/64), in which a host chooses its addresses.
fn network(address: IpAddr) -> IpAddr {
    const LINK: u128 = !(u64::MAX as u128);
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & LINK).into(),
    }
}

fn give_back(counts: &Mutex<HashMap<IpAddr, usize>>, peer: IpAddr, count: usize) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = counts.get_mut(&peer) {
        *held = held.saturating_sub(count);
        if *held == 0 {
            counts.remove(&peer);
        }
    }
}

fn busy(why: &str) -> Status {
    status::with_reason(Code::ResourceExhausted, ReasonCode::ServiceBusy, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::status::reason_of;

    /// A budget of 16 permits.
    fn gate() -> Arc<Gate> {
        let pending_log_bytes = 16 * LOG_PERMIT_BYTES;
        Arc::new(Gate::new(&Limits { pending_log_bytes, ..Limits::default() }))
    }

    fn holding(gate: &Arc<Gate>, peer: &str, permits: usize) -> Result<HeldLogs, Status> {
        let mut held = gate.hold_logs(Some(peer.parse().expect("an address")));
        for _ in 0..permits {
            held.add(LOG_PERMIT_BYTES)?;
        }
        Ok(held)
    }

    #[track_caller]
    fn assert_busy(outcome: Result<HeldLogs, Status>) {
        let status = outcome.err().expect("busy");
        assert_eq!(reason_of(&status), Some(ReasonCode::ServiceBusy));
    }

    #[test]
    fn a_peer_holds_no_more_log_bytes_than_it_leaves() {
        let gate = gate();
        assert_busy(holding(&gate, "192.0.2.1", 9));
        let first = holding(&gate, "192.0.2.1", 5).expect("room");
        // Together, not by stream.
        assert_busy(holding(&gate, "192.0.2.1", 4));
        let second = holding(&gate, "192.0.2.1", 3).expect("room");
        // Half of what is left, and half of that.
        assert_busy(holding(&gate, "192.0.2.2", 5));
        let other = holding(&gate, "192.0.2.2", 4).expect("room");
        let last = holding(&gate, "192.0.2.3", 2).expect("room");
        assert_busy(holding(&gate, "192.0.2.1", 1));
        drop((first, second, other, last));
        assert!(gate.log_permits.lock().expect("whole").is_empty());
        assert_eq!(gate.log_bytes.available_permits(), 16);
        holding(&gate, "192.0.2.1", 8).expect("given back");
    }

    #[test]
    fn addresses_of_one_link_are_one_peer() {
        let gate = gate();
        let _held = holding(&gate, "2001:db8::1", 8).expect("room");
        assert_busy(holding(&gate, "2001:db8::2", 1));
        holding(&gate, "2001:db8:0:1::2", 4).expect("another link");
        assert_eq!(network("::ffff:192.0.2.1".parse().expect("mapped")).to_string(), "192.0.2.1");
    }

    #[test]
    fn a_small_piece_costs_what_it_adds() {
        let gate = gate();
        let mut held = gate.hold_logs(None);
        for _ in 0..LOG_PERMIT_BYTES {
            held.add(1).expect("room");
        }
        assert_eq!(gate.log_bytes.available_permits(), 15);
    }
}
