//! How fast video tokens are given out: to each caller, and on the whole node. Each costs a look at the broker and needs
//! no API key, so that nobody may have all of them.
//!
//! Asked by `video`, once per token. One for all workers of a node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::problem::Problem;
use crate::server::admission::{Rate, subscriber};

/// Tokens a second, and at once, that the node gives out.
const OF_NODE: u32 = 100;
/// Tokens that one caller gets at once, and the time after which one of them comes back.
const OF_CALLER: u32 = 10;
const COMES_BACK: Duration = Duration::from_secs(1);
/// Callers remembered. Full: the one that has the most left goes.
const MOST_CALLERS: usize = 4096;

/// Who asks: the user of its token or, without one, an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    User(Arc<str>),
    Address(IpAddr),
}

impl Caller {
    pub(super) fn new(user: Option<&Arc<str>>, address: IpAddr) -> Self {
        user.map_or_else(|| Self::Address(subscriber(address)), |user| Self::User(Arc::clone(user)))
    }
}

pub(super) struct Turns {
    node: Option<Rate>,
    /// When each would have all of its tokens back.
    callers: Mutex<HashMap<Caller, Instant, foldhash::fast::RandomState>>,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self { node: Rate::new(OF_NODE, now), callers: Mutex::default() }
    }

    /// Takes one. What a caller is refused for its own haste is taken from nobody else.
    ///
    /// # Errors
    /// 429.
    pub(super) fn take(&self, caller: Caller, now: Instant) -> Result<(), Problem> {
        self.take_own(caller, now)?;
        let free = self.node.as_ref().is_none_or(|rate| rate.take(now));
        free.then_some(()).ok_or_else(|| Problem::slow_down("more video tokens are asked for than this node gives", 1))
    }

    fn take_own(&self, caller: Caller, now: Instant) -> Result<(), Problem> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = callers.get(&caller).map_or(now, |full_at| now.max(*full_at)) + COMES_BACK;
        if full_at > now + OF_CALLER * COMES_BACK {
            return Err(Problem::slow_down("video tokens are asked for faster than one caller gets them", 1));
        }
        if callers.len() >= MOST_CALLERS && !callers.contains_key(&caller) {
            let idlest = callers.iter().min_by_key(|(_, full_at)| **full_at).map(|(caller, _)| caller.clone());
            idlest.and_then(|idlest| callers.remove(&idlest));
        }
        callers.insert(caller, full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> Caller {
        Caller::new(None, IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn nobody_gets_the_tokens_of_all() {
        let (start, ann) = (Instant::now(), Caller::new(Some(&Arc::from("ann")), Ipv4Addr::LOCALHOST.into()));
        let turns = Turns::new(start);
        let taken = |caller: &Caller, now| (0..1000).take_while(|_| turns.take(caller.clone(), now).is_ok()).count();
        assert_eq!(taken(&ann, start), OF_CALLER as usize);
        assert_eq!(taken(&address(1), start), OF_CALLER as usize, "another caller");
        assert_eq!(taken(&ann, start + 3 * COMES_BACK), 3, "they come back one by one");
        assert_eq!(taken(&ann, start + 1000 * COMES_BACK), OF_CALLER as usize, "and no more than there were");
    }

    #[test]
    fn all_together_get_what_the_node_gives() {
        let start = Instant::now();
        let turns = Turns::new(start);
        let taken = (0..1000).filter(|number| turns.take(address(*number), start).is_ok()).count();
        assert_eq!(taken, OF_NODE as usize);
    }

    #[test]
    fn callers_do_not_pile_up_and_who_is_hasty_is_not_forgotten() {
        let start = Instant::now();
        let turns = Turns::new(start);
        while turns.take_own(address(0), start).is_ok() {}
        for number in 1..=2 * MOST_CALLERS as u32 {
            assert!(turns.take_own(address(number), start).is_ok());
        }
        assert_eq!(turns.callers.lock().expect("no panic").len(), MOST_CALLERS);
        assert!(turns.take_own(address(0), start).is_err());
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let of = |text: &str| Caller::new(None, text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
