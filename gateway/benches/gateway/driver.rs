//! Publishes into rooms by window or by rate, checks what arrives, and measures a stretch of it.
//!
//! Used by the benchmarks that send. Must not know what serves the rooms.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::fleet::{Fleet, Kind, Totals};
use crate::message::{Reply, Stamp, push_publish, server_ts};
use crate::process::{Process, own_cpu};

/// How long the last deliveries may take to arrive after the last publish.
const DRAIN: Duration = Duration::from_secs(20);

/// A room under load.
pub struct Room {
    pub name: String,
    /// The connection that publishes.
    pub publisher: usize,
    /// The connection whose messages count the window (for acks it is the publisher).
    pub pacer: usize,
    /// Members that get each message.
    pub members: u64,
    due: usize,
    sent: u64,
    /// When the last window was written, nanoseconds of the driver's clock.
    at: u64,
}

impl Room {
    pub fn new(name: String, publisher: usize, pacer: usize, members: usize) -> Self {
        Self { name, publisher, pacer, members: members as u64, due: 0, sent: 0, at: 0 }
    }
}

/// What starts the next window.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// The end of the one before: each room has one in flight.
    Closed,
    /// The end of the one before: one is in flight over all rooms, which take turns.
    Serial,
    /// The clock, messages a second of each room, but only while TCP takes them.
    Open(f64),
}

/// A load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub pace: Pace,
    /// Messages written in one write.
    pub window: usize,
    /// True: the publisher asks for no echo, and one ack for the window.
    pub acks: bool,
    pub warm_up: Duration,
    pub length: Duration,
}

/// What was measured.
#[derive(Debug, Default, Clone)]
pub struct Measured {
    pub wall: Duration,
    /// Of each watched process.
    pub cpu: Vec<Duration>,
    pub client_cpu: Duration,
    pub totals: Totals,
    /// Messages handed to TCP.
    pub sent: u64,
    /// Publish to delivery on the checked members, or to the ack, microseconds, sorted.
    pub latencies: Vec<u64>,
    /// The server's `ts` to delivery, milliseconds, sorted.
    pub since_accepted: Vec<u64>,
    /// Highest resident memory of the first process, bytes.
    pub rss_max: u64,
}

struct Check {
    conn: usize,
    room: usize,
    next: u64,
}

/// Rooms and the connections in them.
pub struct Driver {
    pub fleet: Fleet,
    pub rooms: Vec<Room>,
    checks: Vec<Check>,
    epoch: Instant,
    next_room: usize,
    finished: Vec<usize>,
    latencies: Vec<u64>,
    since_accepted: Vec<u64>,
    /// Messages that a checked member saw out of order or twice.
    pub disordered: u64,
}

impl Driver {
    /// Takes connections that have joined, the rooms, and the (connection, room) pairs whose order and delay are checked.
    pub fn new(mut fleet: Fleet, rooms: Vec<Room>, checked: &[(usize, usize)]) -> Self {
        for conn in rooms.iter().map(|room| room.pacer).chain(checked.iter().map(|&(conn, _)| conn)) {
            fleet.watch(conn);
        }
        let checks = checked.iter().map(|&(conn, room)| Check { conn, room, next: 0 }).collect();
        let (finished, latencies, since_accepted) = (Vec::new(), Vec::new(), Vec::new());
        let epoch = Instant::now();
        Self { fleet, rooms, checks, epoch, next_room: 0, finished, latencies, since_accepted, disordered: 0 }
    }

    /// Runs a load, measures the stretch after the warm-up, and waits until everything has arrived.
    pub fn run(&mut self, load: &Load, watched: &[&Process]) -> Result<Measured> {
        let begin = Instant::now();
        let (from, until) = (begin + load.warm_up, begin + load.warm_up + load.length);
        let mut clock = Clock::new(begin, load.pace, self.rooms.len());
        self.finished = match load.pace {
            Pace::Closed => (0..self.rooms.len()).collect(),
            Pace::Serial => vec![0],
            Pace::Open(_) => Vec::new(),
        };
        let mut first: Option<Snapshot> = None;
        let mut rss_max = 0;
        let mut look = from;
        loop {
            let now = Instant::now();
            if first.is_none() && now >= from {
                self.latencies.clear();
                self.since_accepted.clear();
                first = Some(Snapshot::take(self, watched)?);
            }
            if now >= look {
                rss_max = rss_max.max(watched.first().map_or(Ok(0), |process| process.rss())?);
                look = now + Duration::from_millis(100);
            }
            if now >= until {
                break;
            }
            let wait = self.publish_due(load, &mut clock, now)?;
            self.turn(wait.min(until - now))?;
        }
        let last = Snapshot::take(self, watched)?;
        let mut measured = last.since(&first.unwrap_or_default());
        measured.rss_max = rss_max;
        measured.latencies = std::mem::take(&mut self.latencies);
        measured.since_accepted = std::mem::take(&mut self.since_accepted);
        measured.latencies.sort_unstable();
        measured.since_accepted.sort_unstable();
        self.drain(load)?;
        Ok(measured)
    }

    /// Messages handed to TCP so far.
    pub fn sent(&self) -> u64 {
        self.rooms.iter().map(|room| room.sent).sum()
    }

    /// Deliveries due by what was sent. Not known where publishers ask for acks.
    fn due(&self) -> u64 {
        self.rooms.iter().map(|room| room.sent * room.members).sum()
    }

    fn publish_due(&mut self, load: &Load, clock: &mut Clock, now: Instant) -> Result<Duration> {
        match load.pace {
            Pace::Closed => {
                for room in std::mem::take(&mut self.finished) {
                    self.start(room, load.window, load.acks)?;
                }
                Ok(Duration::from_millis(50))
            }
            Pace::Serial => {
                for _ in std::mem::take(&mut self.finished) {
                    let room = self.next_room;
                    self.next_room = (room + 1) % self.rooms.len();
                    self.start(room, load.window, load.acks)?;
                }
                Ok(Duration::from_millis(50))
            }
            Pace::Open(_) => {
                let due = clock.due(now);
                for room in 0..self.rooms.len() {
                    // Never more than is due, and nothing while TCP still refuses what was written before.
                    while clock.written[room] < due && self.fleet.drained(self.rooms[room].publisher) {
                        let count = load.window.min((due - clock.written[room]) as usize);
                        clock.written[room] += count as u64;
                        self.start(room, count, load.acks)?;
                    }
                }
                Ok(Duration::from_millis(1))
            }
        }
    }

    fn start(&mut self, index: usize, window: usize, acks: bool) -> Result<()> {
        let at = self.epoch.elapsed().as_nanos() as u64;
        let room = &mut self.rooms[index];
        let (mut scratch, mut out) = (Vec::with_capacity(256), Vec::with_capacity(window * 256));
        for place in 0..window {
            let reply = match (acks, place + 1 == window) {
                (false, _) => Reply::Echo,
                (true, true) => Reply::Ack,
                (true, false) => Reply::Nothing,
            };
            push_publish(&room.name, Stamp { at, room: index, number: room.sent }, reply, &mut scratch, &mut out);
            room.sent += 1;
        }
        room.at = at;
        room.due += if acks { 1 } else { window };
        let publisher = room.publisher;
        self.fleet.send(publisher, &out)
    }

    fn turn(&mut self, wait: Duration) -> Result<()> {
        let (rooms, checks, finished) = (&mut self.rooms, &mut self.checks, &mut self.finished);
        let (latencies, since_accepted, disordered) =
            (&mut self.latencies, &mut self.since_accepted, &mut self.disordered);
        let epoch = self.epoch;
        self.fleet.turn(Some(wait), |conn, kind, payload| {
            let stamp = match kind {
                Kind::Message => Stamp::read(payload),
                // Publishers that ask for acks have one room each.
                Kind::Ack => {
                    rooms.iter().position(|room| room.pacer == conn).map(|room| Stamp { at: 0, room, number: 0 })
                }
                Kind::Error | Kind::Other => None,
            };
            let Some(stamp) = stamp else { return };
            if let Some(room) = rooms.get_mut(stamp.room).filter(|room| room.pacer == conn && room.due > 0) {
                room.due -= 1;
                if room.due == 0 {
                    finished.push(stamp.room);
                }
            }
            if kind == Kind::Ack {
                latencies.push((epoch.elapsed().as_nanos() as u64).saturating_sub(rooms[stamp.room].at) / 1000);
                return;
            }
            if let Some(check) = checks.iter_mut().find(|check| check.conn == conn && check.room == stamp.room) {
                *disordered += u64::from(stamp.number != check.next);
                check.next = stamp.number + 1;
                latencies.push((epoch.elapsed().as_nanos() as u64).saturating_sub(stamp.at) / 1000);
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
                since_accepted.extend(server_ts(payload).map(|ts| wall.saturating_sub(ts)));
            }
        })
    }

    fn drain(&mut self, load: &Load) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        let missing = |driver: &Self| {
            if load.acks { 0 } else { driver.due().saturating_sub(driver.fleet.totals.messages) }
        };
        let waiting = |driver: &Self| driver.rooms.iter().any(|room| room.due > 0) || missing(driver) > 0;
        while waiting(self) && self.fleet.totals.closed == 0 {
            self.turn(Duration::from_millis(20))?;
            if Instant::now() > deadline {
                let said = self.fleet.first_error.as_deref().unwrap_or("nothing");
                bail!("{} deliveries did not arrive; the server said: {said}", missing(self));
            }
        }
        if !load.acks && self.fleet.totals.messages > self.due() {
            bail!("{} deliveries came, {} were due", self.fleet.totals.messages, self.due());
        }
        self.finished.clear();
        Ok(())
    }
}

/// Counts what is due by the clock, under `Pace::Open`.
struct Clock {
    begin: Instant,
    rate: f64,
    /// Messages written of each room.
    written: Vec<u64>,
}

impl Clock {
    fn new(begin: Instant, pace: Pace, rooms: usize) -> Self {
        let rate = if let Pace::Open(rate) = pace { rate } else { 0.0 };
        Self { begin, rate, written: vec![0; rooms] }
    }

    /// Messages that each room should have got by now.
    fn due(&self, now: Instant) -> u64 {
        ((now - self.begin).as_secs_f64() * self.rate) as u64
    }
}

#[derive(Default)]
struct Snapshot {
    at: Option<Instant>,
    cpu: Vec<Duration>,
    client: Duration,
    totals: Totals,
    sent: u64,
}

impl Snapshot {
    fn take(driver: &Driver, watched: &[&Process]) -> Result<Self> {
        Ok(Self {
            cpu: watched.iter().map(|process| process.cpu()).collect::<Result<_>>()?,
            client: own_cpu()?,
            totals: driver.fleet.totals,
            sent: driver.sent(),
            at: Some(Instant::now()),
        })
    }

    fn since(self, first: &Self) -> Measured {
        let wall = self.at.zip(first.at).map_or(Duration::ZERO, |(last, first)| last - first);
        let cpu = self.cpu.iter().zip(&first.cpu).map(|(last, first)| last.saturating_sub(*first)).collect();
        let totals = self.totals.since(&first.totals);
        let client_cpu = self.client.saturating_sub(first.client);
        Measured { wall, cpu, client_cpu, totals, sent: self.sent - first.sent, ..Measured::default() }
    }
}
