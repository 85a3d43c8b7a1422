//! The audit's log: what clients saw, one JSON object a line, the first of them the run's. Written by the audit, read
//! by the checker.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use roomcast_protocol::Mode;
use serde::{Deserialize, Serialize};

use super::Layout;
use super::ledger::lock;
use crate::audit::Share;
use crate::clock::Clock;

/// Raised when a log cannot be read by an older reader.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub version: u32,
    pub run: u32,
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    /// `durable` or `ephemeral`.
    pub mode: String,
    pub echo: bool,
    /// Which of how many processes.
    pub index: u32,
    pub of: u32,
}

impl Header {
    fn new(run: u32, layout: Layout) -> Self {
        let Layout { rooms, members, publishers, mode, echo, share } = layout;
        let mode = if mode == Mode::Durable { "durable" } else { "ephemeral" }.to_owned();
        Self { version: VERSION, run, rooms, members, publishers, mode, echo, index: share.index, of: share.of }
    }

    /// The run's shape, for one audit of all processes.
    pub(super) fn layout(&self) -> anyhow::Result<Layout> {
        anyhow::ensure!(self.version == VERSION, "a log of version {}, expected {VERSION}", self.version);
        let mode = match self.mode.as_str() {
            "durable" => Mode::Durable,
            "ephemeral" => Mode::Ephemeral,
            other => anyhow::bail!("unknown mode {other:?}"),
        };
        let clients = u64::from(self.rooms) * u64::from(self.members);
        anyhow::ensure!(clients <= u64::from(super::MOST_PUBLISHERS), "{clients} clients are more than any run has");
        let share = Share { index: 0, of: self.of };
        let (rooms, members, publishers) = (self.rooms, self.members, self.publishers);
        Ok(Layout { rooms, members, publishers, mode, echo: self.echo, share })
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Joined,
    Replayed,
    Received,
    Foreign,
    Misplaced,
    Acked,
    Reset,
    Away,
    Left,
    Concluded,
    Corrupted,
    Published,
    Abandoned,
}

/// A line. What is zero or absent is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry<'a> {
    /// ns since the Unix epoch.
    pub t: u64,
    pub kind: Kind,
    /// Index of the client; of the publisher if it is about a publish or an ack.
    pub client: u32,
    pub room: u32,
    /// Of a message that was received.
    #[serde(skip_serializing_if = "is_default")]
    pub publisher: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub number: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub attempt: u8,
    /// The room it was published to, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Cow<'a, str>>,
    /// Up to here what the client had in its term still stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<Cow<'a, str>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Entry<'_> {
    pub(super) fn of(kind: Kind, client: u32, room: u32) -> Self {
        Self { kind, client, room, ..Self::default() }
    }
}

/// Where the events go. Written to by all threads.
pub struct Log(Mutex<Output>);

struct Output {
    file: BufWriter<File>,
    /// The first write that failed; nothing is written after it.
    failed: Option<std::io::Error>,
}

impl Log {
    /// Creates the file and writes its first line.
    pub fn create(path: &Path, run: u32, layout: Layout) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write the log {}", path.display()))?;
        let mut file = BufWriter::with_capacity(256 * 1024, file);
        serde_json::to_writer(&mut file, &Header::new(run, layout))?;
        file.write_all(b"\n")?;
        Ok(Self(Mutex::new(Output { file, failed: None })))
    }

    pub(super) fn write(&self, clock: &Clock, entry: &Entry<'_>) {
        let mut out = lock(&self.0);
        if out.failed.is_some() {
            return;
        }
        // The time is taken under the lock, so that it never goes back within a log.
        let entry = Entry { t: clock.now_ns(), ..entry.clone() };
        let written = serde_json::to_writer(&mut out.file, &entry).map_err(std::io::Error::from);
        out.failed = written.and_then(|()| out.file.write_all(b"\n")).err();
    }

    /// Writes what is buffered. An error of any write so far is told here.
    pub fn flush(&self) -> anyhow::Result<()> {
        let mut out = lock(&self.0);
        match out.failed.take() {
            Some(error) => Err(error).context("the audit's log is incomplete"),
            None => out.file.flush().context("the audit's log is incomplete"),
        }
    }
}
