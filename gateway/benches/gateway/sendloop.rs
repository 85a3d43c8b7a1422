//! The yardstick of fan-out: a bare loop that sends ready-made bytes over plain TCP connections, and its client.
//!
//! Used by the fan-out and scale benchmarks; the loop runs as a process of its own. Must not know the gateway.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::fleet::{Fleet, Totals};
use crate::process::{Process, SERVER_CPU};

/// The subcommand of the bench binary under which the loop runs.
pub const SUBCOMMAND: &str = "internal-send-loop";
const ORDER_BYTES: usize = 16;

/// One round: which connections get how many frames of which size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub frames: u32,
    /// WebSocket header included.
    pub frame_bytes: u32,
    pub first: u32,
    pub count: u32,
}

impl Order {
    fn encode(self) -> [u8; ORDER_BYTES] {
        let mut out = [0; ORDER_BYTES];
        for (place, word) in out.chunks_exact_mut(4).zip([self.frames, self.frame_bytes, self.first, self.count]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn decode(bytes: [u8; ORDER_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { frames: word(0), frame_bytes: word(4), first: word(8), count: word(12) }
    }

    /// The bytes of one write: frames that look like messages.
    fn batch(self) -> Vec<u8> {
        let payload = (self.frame_bytes as usize).saturating_sub(4).max(126);
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&(payload as u16).to_be_bytes());
        frame.extend_from_slice(br#"{"type":"message","data":""#);
        frame.resize(payload + 4, b'x');
        frame.repeat(self.frames as usize)
    }
}

/// The process: one order after the other, one blocking write per connection.
pub fn serve(connections: usize) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut control, _) = listener.accept()?;
    let mut members = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        members.push(stream);
    }
    let (mut present, mut batch) = (None, Vec::new());
    let mut bytes = [0; ORDER_BYTES];
    loop {
        match control.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let order = Order::decode(bytes);
        if present != Some((order.frames, order.frame_bytes)) {
            batch = order.batch();
            present = Some((order.frames, order.frame_bytes));
        }
        for member in members.iter_mut().skip(order.first as usize).take(order.count as usize) {
            member.write_all(&batch)?;
        }
    }
}

/// What a run of the loop came to.
#[derive(Debug, Clone, Copy)]
pub struct LoopMeasured {
    pub cpu: Duration,
    pub totals: Totals,
}

impl LoopMeasured {
    /// Deliveries per server CPU second.
    pub fn per_cpu_second(&self) -> f64 {
        self.totals.messages as f64 / self.cpu.as_secs_f64()
    }
}

/// The loop's process and the client's ends of its connections.
pub struct SendLoop {
    process: Process,
    fleet: Fleet,
    control: usize,
    members: u32,
}

impl SendLoop {
    pub fn start(connections: usize) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let args = [SUBCOMMAND.to_owned(), connections.to_string()];
        let mut process = Process::spawn(SERVER_CPU, &program, &args)?;
        let address = process.listener(Ipv4Addr::LOCALHOST)?;
        let mut fleet = Fleet::new()?;
        let control = fleet.add_plain(address)?;
        for _ in 0..connections {
            fleet.add_plain(address)?;
        }
        Ok(Self { process, fleet, control, members: connections as u32 })
    }

    /// Rounds over groups of `order.count` connections in turn; the next begins when member `pacer` of the group has
    /// its frames, as a publisher's echo would have it.
    pub fn run(&mut self, order: Order, pacer: u32, warm_up: Duration, length: Duration) -> Result<LoopMeasured> {
        let groups = self.members / order.count;
        let control = self.control;
        let waiting_at = |group: u32| control + 1 + (group * order.count + pacer) as usize;
        (0..groups).for_each(|group| self.fleet.watch(waiting_at(group)));
        let in_group = |group: u32| Order { first: group * order.count, ..order }.encode();
        let (mut group, mut due) = (0, order.frames);
        self.fleet.send(control, &in_group(group))?;
        self.measure(warm_up, length, |fleet| {
            let mut got = 0;
            let pacer = waiting_at(group);
            fleet.turn(Some(Duration::from_millis(20)), |conn, _, _| got += u32::from(conn == pacer))?;
            due = due.saturating_sub(got);
            if due == 0 {
                group = (group + 1) % groups;
                due = order.frames;
                fleet.send(control, &in_group(group))?;
            }
            Ok(())
        })
    }

    fn measure(
        &mut self,
        warm_up: Duration,
        length: Duration,
        mut turn: impl FnMut(&mut Fleet) -> Result<()>,
    ) -> Result<LoopMeasured> {
        let begin = Instant::now();
        while begin.elapsed() < warm_up {
            turn(&mut self.fleet)?;
        }
        let (from, cpu, totals) = (Instant::now(), self.process.cpu()?, self.fleet.totals);
        while from.elapsed() < length {
            turn(&mut self.fleet)?;
        }
        let measured =
            LoopMeasured { cpu: self.process.cpu()?.saturating_sub(cpu), totals: self.fleet.totals.since(&totals) };
        self.settle()?;
        Ok(measured)
    }

    /// Reads what is still on its way, so that the next run starts from nothing.
    fn settle(&mut self) -> Result<()> {
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.fleet.totals.messages;
            self.fleet.turn(Some(Duration::from_millis(20)), |_, _, _| {})?;
            quiet = if self.fleet.totals.messages == before { quiet + 1 } else { 0 };
        }
        if self.fleet.totals.closed > 0 {
            bail!("the send loop lost a connection");
        }
        Ok(())
    }
}
