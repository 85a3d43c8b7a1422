//! How many connections there may be, on the node and of one client address, and how fast they may come.
//!
//! One for all workers. Asked once per handshake and once per end of a connection, never on the data path. It also knows
//! of those who are only visiting, so that a node that nobody needs can close its door behind the last one.

mod rate;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub(super) use rate::Rate;

use crate::session::accepted::{Permit, Release};

/// The bounds. Zero means unlimited.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Connections of this node.
    pub max_connections: usize,
    /// Connections of one client address; of one /64 network for IPv6, which is what one subscriber gets.
    pub max_connections_per_address: usize,
    /// Connections of this node in a second.
    pub connect_rate: u32,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The node has as many connections as it may.
    #[error("this node has as many connections as it may")]
    Node,
    /// The address has.
    #[error("this address has as many connections as it may")]
    Address,
}

/// Bit of `total` that says that nobody is let in any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts connections against the limits.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    rate: Option<Rate>,
    total: AtomicUsize,
    visits: AtomicUsize,
    /// Only used when addresses are limited. Never empty of meaning: an address at zero is removed.
    by_address: Mutex<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
}

impl Admission {
    /// Counts from zero.
    pub fn new(limits: AdmissionLimits) -> Arc<Self> {
        let rate = Rate::new(limits.connect_rate, Instant::now());
        let (total, visits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limits, rate, total, visits, by_address: Mutex::default() })
    }

    /// Takes one connection's turn, if there is one now.
    pub fn is_in_time(&self) -> bool {
        self.rate.as_ref().is_none_or(|rate| rate.take(Instant::now()))
    }

    /// Connections that are counted now.
    pub fn connections(&self) -> usize {
        self.total.load(Ordering::Relaxed) & !CLOSED
    }

    /// Notes that somebody is being served who is no connection, or none yet: a request, a worker that starts.
    pub fn visit(self: &Arc<Self>) -> Visit {
        self.visits.fetch_add(1, Ordering::Relaxed);
        Visit(Arc::clone(self))
    }

    /// Visits under way.
    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::Relaxed)
    }

    /// Lets nobody in from now on, if nobody is in. What is decided here holds for all workers at once: there is no
    /// connection afterwards.
    pub fn close_if_empty(&self) -> bool {
        self.total.compare_exchange(0, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A place for one connection of `address`, until the permit is dropped.
    ///
    /// # Errors
    /// [`Full`], and nothing is counted.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Full> {
        let address = subscriber(address);
        let max = if self.limits.max_connections == 0 { CLOSED } else { self.limits.max_connections };
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| (total < max).then(|| total + 1))
            .map_err(|_| Full::Node)?;
        if self.count_address(address) {
            Ok(Permit::new(self.clone(), address))
        } else {
            self.total.fetch_sub(1, Ordering::Relaxed);
            Err(Full::Address)
        }
    }

    fn count_address(&self, address: IpAddr) -> bool {
        let max = self.limits.max_connections_per_address;
        if max == 0 {
            return true;
        }
        // A panic elsewhere cannot have left the counts half changed.
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_insert(0);
        if *count < max {
            *count += 1;
            return true;
        }
        false
    }
}

/// A visit; it ends when this is dropped.
#[derive(Debug)]
pub struct Visit(Arc<Admission>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Release for Admission {
    fn release(&self, address: IpAddr) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if self.limits.max_connections_per_address == 0 {
            return;
        }
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = by_address.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64.
pub(super) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}
