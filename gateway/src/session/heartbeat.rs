//! Pings and deadlines of all connections of a worker, by one timer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::{Floor, control};
use crate::config::Settings;
use crate::hub::Stop;
use crate::socket::frames;

/// Looks in one ping interval. A dead peer is found within one look of the time-out.
const LOOKS: u32 = 25;
/// Shortest time between two looks.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// The worker's coarse clock. Times are in looks.
pub struct Heartbeat {
    /// When the worker started.
    pub(super) start: Instant,
    look: Duration,
    now: Cell<u32>,
    timeout: u32,
    message_deadline: u32,
    ping: Bytes,
}

impl Heartbeat {
    pub(super) fn new(settings: &Settings) -> Self {
        let look = (settings.ping_interval / LOOKS).max(SHORTEST_LOOK);
        let looks = |time: Duration| (time.as_millis() / look.as_millis().max(1)) as u32;
        Self {
            start: Instant::now(),
            look,
            now: Cell::new(1),
            timeout: looks(settings.ping_timeout).saturating_sub(1).max(1),
            message_deadline: looks(settings.message_deadline).max(1) + 1,
            ping: control(|out| frames::ping(b"", out)),
        }
    }

    /// The look we are in; never 0.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// The look at which a message begun now must be whole.
    pub(super) fn message_deadline(&self) -> u32 {
        self.now.get() + self.message_deadline
    }
}

/// Looks at every connection of the worker, for ever.
pub async fn beat(floor: Rc<Floor>) {
    let mut timer = tokio::time::interval(floor.heartbeat.look);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        look(&floor);
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn look(floor: &Floor) {
    let beat = &floor.heartbeat;
    let now = beat.now.get() + 1;
    beat.now.set(now);
    let time_ms = unix_ms(SystemTime::now());
    floor.shard.visit_peers(|peer| {
        if peer.is_closing() {
            return;
        }
        let (deadline, expires) = (peer.deadline.get(), peer.expires_at_ms.get());
        if now - peer.heard.get() >= beat.timeout {
            peer.request_stop(Stop::Silent);
        } else if deadline != 0 && now >= deadline {
            peer.request_stop(Stop::Unfinished);
        } else if expires != 0 && time_ms >= expires {
            peer.request_stop(Stop::Expired);
        } else if now - peer.pinged.get() >= LOOKS {
            peer.pinged.set(now);
            floor.shard.post_frame(peer, beat.ping.clone());
        }
    });
}
