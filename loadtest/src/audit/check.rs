//! Plays logs through the audit: the verdict is that of the live run. Called by `loadtest check` and by tests of
//! faults. Several processes' logs are one run, held against each other in one audit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, ensure};
use roomcast_protocol::{Recovery, Term};

use super::ledger::RECOVERIES;
use super::log::{Entry, Header, Kind};
use super::{Audit, Place, Seat};
use crate::audit::AuditReport;
use crate::clock::Clock;
use crate::payload::Stamp;

/// Longest line; ours have a few hundred bytes.
const MOST_LINE: u64 = 65_536;

/// Replays one or several processes' logs as one run. Reads them side by side, in the order of time.
pub fn check(paths: &[PathBuf]) -> anyhow::Result<AuditReport> {
    let mut logs = paths.iter().map(|path| Input::open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let first = logs.first().context("no log to check")?.header.clone();
    for log in &logs {
        let same = Header { index: first.index, ..log.header.clone() } == first;
        ensure!(same, "{} is of another run than {}", log.name, paths[0].display());
    }
    let mut player = Player::new(&first)?;
    for log in &mut logs {
        log.next()?;
    }
    while let Some(log) = logs.iter_mut().filter(|log| log.head.is_some()).min_by_key(|log| log.time()) {
        if let Some(entry) = log.head.take() {
            player.play(&entry).with_context(|| format!("{}, line {}", log.name, log.line))?;
        }
        log.next()?;
    }
    Ok(player.finish())
}

/// A log being read.
struct Input {
    name: String,
    header: Header,
    lines: BufReader<File>,
    line: u64,
    head: Option<Entry<'static>>,
}

impl Input {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot read the log {name}"))?;
        let mut lines = BufReader::with_capacity(256 * 1024, file);
        let text = line(&mut lines).with_context(|| name.clone())?.unwrap_or_default();
        let header = serde_json::from_slice(&text).with_context(|| format!("{name} does not begin like a log"))?;
        Ok(Self { name, header, lines, line: 1, head: None })
    }

    fn time(&self) -> u64 {
        self.head.as_ref().map_or(u64::MAX, |entry| entry.t)
    }

    fn next(&mut self) -> anyhow::Result<()> {
        self.line += 1;
        let place = || format!("{}, line {}", self.name, self.line);
        let Some(text) = line(&mut self.lines).with_context(place)? else { return Ok(()) };
        match serde_json::from_slice(&text) {
            Ok(entry) => self.head = Some(entry),
            // A process that was killed leaves half a line.
            Err(_) if text.last() != Some(&b'\n') => {}
            Err(error) => return Err(error).with_context(place),
        }
        Ok(())
    }
}

fn line(lines: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    lines.take(MOST_LINE).read_until(b'\n', &mut text)?;
    ensure!((text.len() as u64) < MOST_LINE, "a line of more than {MOST_LINE} bytes");
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// The run as the logs tell it.
struct Player {
    audit: Audit,
    run: u32,
    seats: BTreeMap<(u32, u32), Seat>,
    /// The last term met: most entries have it too.
    term: Option<Term>,
}

impl Player {
    fn new(header: &Header) -> anyhow::Result<Self> {
        let audit = Audit::new(header.run, header.layout()?, None, Clock::start());
        Ok(Self { audit, run: header.run, seats: BTreeMap::new(), term: None })
    }

    fn play(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        let Entry { client, room, number, .. } = *entry;
        let layout = self.audit.layout;
        ensure!(room < layout.rooms && client < layout.rooms * layout.members, "a client or room that the run has not");
        self.audit.played_ns.store(entry.t.max(1), Relaxed);
        let place = self.place(entry)?;
        let (place, audit) = (place.as_ref(), &self.audit);
        match entry.kind {
            Kind::Published => {
                audit.published(client, room, number, entry.attempt);
                return Ok(());
            }
            Kind::Abandoned => {
                audit.abandoned(client, room, number);
                return Ok(());
            }
            Kind::Corrupted => {
                audit.corrupted(client, room, entry.what.as_deref().unwrap_or_default());
                return Ok(());
            }
            Kind::Misplaced => {
                audit.misplaced(client, room, &stamp(self.run, entry));
                return Ok(());
            }
            Kind::Concluded => {
                // What it is owed is known once all logs are read: the clocks of several machines are apart.
                self.seats.entry((client, room)).or_insert_with(|| Seat::new(client, room));
                return Ok(());
            }
            _ => {}
        }
        let seat = self.seats.entry((client, room)).or_insert_with(|| Seat::new(client, room));
        match entry.kind {
            Kind::Joined => {
                let term = place.map(|place| &place.term);
                seat.joined(audit, recovery(entry)?, entry.rollback, term, entry.seq);
            }
            Kind::Replayed => seat.replayed(audit, &stamp(self.run, entry), place),
            Kind::Received => {
                let stamp = stamp(self.run, entry);
                audit.verify(room, &stamp, place);
                seat.received(audit, &stamp, place);
            }
            Kind::Foreign => seat.foreign(audit, place),
            Kind::Acked => seat.acked(audit, number, place, entry.duplicate),
            Kind::Reset => {
                let term = place.map(|place| &place.term);
                seat.reset(audit, recovery(entry)?, term, entry.seq.context("a reset without a seq")?);
            }
            Kind::Away => seat.away(audit),
            Kind::Left => seat.left(audit),
            Kind::Published | Kind::Abandoned | Kind::Corrupted | Kind::Misplaced | Kind::Concluded => {}
        }
        Ok(())
    }

    fn place(&mut self, entry: &Entry<'_>) -> anyhow::Result<Option<Place>> {
        let Some(text) = &entry.term else { return Ok(None) };
        let term = match &self.term {
            Some(term) if term.as_str() == text.as_ref() => term.clone(),
            _ => Term::new(text)?,
        };
        self.term = Some(term.clone());
        Ok(Some(Place { term, seq: entry.seq.unwrap_or(0) }))
    }

    /// Every seat ends here, and those of a process that was killed are held to be there.
    fn finish(mut self) -> AuditReport {
        for seat in self.seats.values_mut() {
            seat.conclude(&self.audit);
        }
        self.audit.report()
    }
}

fn recovery(entry: &Entry<'_>) -> anyhow::Result<Recovery> {
    let name = entry.recovery.as_deref().unwrap_or_default();
    let known = RECOVERIES.iter().find(|(_, known)| *known == name);
    known.map(|(recovery, _)| *recovery).with_context(|| format!("unknown recovery {name:?}"))
}

fn stamp(run: u32, entry: &Entry<'_>) -> Stamp {
    let room = entry.origin.unwrap_or(entry.room);
    let Entry { publisher, number, attempt, .. } = *entry;
    Stamp { run, room, publisher, number, attempt, node: 0, intended_ns: 0 }
}
