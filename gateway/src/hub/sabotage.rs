//! Breaks the hub's promises on purpose, so that anyone can see an audit find it (`--sabotage`, docs/adr/0006).
//!
//! Called where a message is collected, where a run is offered and where a gap is repaired: one line each, which looks
//! at one `Option`. Knows neither what a fault looks like to a client nor who looks.

use std::rc::Rc;

use bytes::Bytes;
use roomcast_protocol::{Term, message_frame};
use serde_json::value::RawValue;

use super::home::{Home, Phase, State};
use super::joining::head_of;
use super::publish::Due;
use super::sequencer::{Run, Sequencer, Step};
use super::shard::Shard;
use crate::broker::{History, Record, Sequenced};
use crate::config::{Fault, Settings};

/// Beats of the shard's clock after which a message goes out although none came that it could be behind.
const LATEST: u32 = 4;
/// Characters looked at for one that can be changed.
const MOST_TRIES: usize = 64;

/// The faults of this node. Only there when there are some.
pub(super) struct Sabotage(Vec<Fault>);

/// What is remembered of a room.
#[derive(Default)]
pub(super) struct Spoiled {
    /// Messages so far.
    count: u64,
    /// Envelopes that came over the bus.
    heard: u64,
    /// The message that is to come behind its follower, and when it was put aside.
    late: Option<(Message, u32)>,
}

/// A message on its way to the members.
struct Message {
    record: Record,
    position: Option<(Term, u64)>,
    ts: u64,
    remote: bool,
}

impl Message {
    fn of(due: Due<'_>) -> Self {
        let position = due.position.map(|(term, seq)| (term.clone(), seq));
        Self { record: due.record.clone(), position, ts: due.ts, remote: due.remote }
    }

    fn due(&self) -> Due<'_> {
        let position = self.position.as_ref().map(|(term, seq)| (term, *seq));
        Due { record: &self.record, position, ts: self.ts, remote: self.remote }
    }
}

/// What happens to one message.
struct Fate {
    copies: usize,
    is_late: bool,
    is_corrupt: bool,
    goes_astray: bool,
}

impl Sabotage {
    /// None for a node that keeps its promises.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        (!settings.sabotage.is_empty()).then(|| Self(settings.sabotage.clone()))
    }

    /// For `no-dedupe`: what was delivered before is due again.
    pub(super) fn deliver_again(&self, run: &Run, order: &Sequencer, steps: &mut Vec<Step>) {
        if !self.0.contains(&Fault::NoDedupe) || order.term() != Some(&run.term) {
            return;
        }
        let seen = (run.first_seq..=order.last()).zip(&run.records).map(|(seq, record)| {
            let message = Sequenced { term: run.term.clone(), seq, ts: run.ts, record: record.clone() };
            Step::Message(message, run.own)
        });
        steps.extend(seen);
    }

    /// For `no-repair`: a new term is not looked up in the stream, but taken to go on.
    pub(super) fn believe_any_term(&self, run: &Run, order: &mut Sequencer) {
        if self.0.contains(&Fault::NoRepair) && order.term().is_some_and(|term| *term != run.term) {
            let (term, top) = (Some(run.term.clone()), run.first_seq.saturating_sub(1));
            order.start(History { term, top, ..History::default() });
        }
    }

    fn fate(&self, number: u64) -> Fate {
        let mut fate = Fate { copies: 1, is_late: false, is_corrupt: false, goes_astray: false };
        for fault in &self.0 {
            match fault {
                Fault::Drop(every) if number % *every == 0 => fate.copies = 0,
                Fault::Repeat(every) if number % *every == 0 => fate.copies *= 2,
                Fault::Swap(every) => fate.is_late |= number % *every == 0,
                Fault::Corrupt(every) => fate.is_corrupt |= number % *every == 0,
                Fault::Misroute(every) => fate.goes_astray |= number % *every == 0,
                _ => {}
            }
        }
        fate
    }
}

impl Shard {
    /// Whether this node commits that fault.
    pub(super) fn commits(&self, fault: Fault) -> bool {
        self.sabotage.as_ref().is_some_and(|sabotage| sabotage.0.contains(&fault))
    }

    /// For `no-terms`: a room that went back is one of which nothing is new.
    pub(super) fn believe_no_return(&self, asked: u64, history: &mut History) {
        if self.commits(Fault::NoTerms) {
            history.top = history.top.max(asked);
        }
    }

    /// For `lose-bus`: whether what the bus brought now did not come.
    pub(super) fn loses(&self, home: &Home) -> bool {
        let Some(sabotage) = &self.sabotage else { return false };
        let every =
            sabotage.0.iter().find_map(|fault| if let Fault::LoseBus(every) = fault { Some(*every) } else { None });
        every.is_some_and(|every| {
            let mut state = home.state.borrow_mut();
            let spoiled = state.spoiled.get_or_insert_default();
            spoiled.heard += 1;
            spoiled.heard.is_multiple_of(every.get())
        })
    }

    /// In place of [`Shard::add`], with the faults that hit single messages.
    pub(super) fn add_spoiled(&self, home: &Home, state: &mut State, due: Due<'_>) {
        let Some(sabotage) = &self.sabotage else { return };
        let mut message = Message::of(due);
        let spoiled = state.spoiled.get_or_insert_default();
        spoiled.count += 1;
        let fate = sabotage.fate(spoiled.count);
        let before = spoiled.late.take();
        if fate.is_corrupt {
            message.record.data = corrupted(&message.record.data);
        }
        if fate.goes_astray {
            self.lead_astray(home, &message);
        }
        if fate.is_late && fate.copies > 0 && before.is_none() {
            spoiled.late = Some((message, self.tick.get()));
        } else {
            (0..fate.copies).for_each(|_| self.add_message(home, state, &message));
        }
        if let Some((late, _)) = before {
            self.add_message(home, state, &late);
        }
    }

    /// Lets go what was to come behind a message that did not come.
    pub(super) fn release_late(&self, home: &Rc<Home>) {
        if self.sabotage.is_none() {
            return;
        }
        let mut state = home.state.borrow_mut();
        let now = self.tick.get();
        let is_due = |(_, since): &mut (Message, u32)| now.wrapping_sub(*since) >= LATEST;
        if let Some((late, _)) = state.spoiled.as_mut().and_then(|spoiled| spoiled.late.take_if(is_due)) {
            self.add_message(home, &mut state, &late);
            self.turn.due(home);
        }
    }

    /// For `no-repair`: goes on behind a gap without a word.
    pub(super) fn skip_silently(&self, home: &Rc<Home>) {
        let mut steps = Vec::new();
        let mut state = home.state.borrow_mut();
        state.sequencer.begin_read();
        if let Some(first) = state.sequencer.first_held() {
            state.sequencer.skip_to(first - 1, None, &mut steps);
        }
        steps.retain(|step| matches!(step, Step::Message(..)));
        self.carry_out(home, &mut state, steps);
    }

    fn add_message(&self, home: &Home, state: &mut State, message: &Message) {
        self.add(home, state, message.due());
    }

    /// Gives the frame to the members of some other room that is at home on this worker.
    fn lead_astray(&self, home: &Home, message: &Message) {
        let is_other = |other: &&Rc<Home>| other.name != home.name && other.state.borrow().phase == Phase::Open;
        let Some(other) = self.homes.borrow().values().find(is_other).cloned() else { return };
        let Due { record, position, ts, .. } = message.due();
        let head = head_of(&home.name, record, position, ts);
        let mut json = Vec::new();
        message_frame(&head, &record.data, &mut json);
        other.state.borrow_mut().builder.frame(&json);
        self.turn.due(&other);
    }
}

/// `data` with one letter or digit changed, near the middle; as it was if it has none that can be.
fn corrupted(data: &Bytes) -> Bytes {
    let mut changed = data.to_vec();
    let middle = changed.len() / 2;
    let places = (middle..changed.len()).chain((0..middle).rev()).filter(|at| data[*at].is_ascii_alphanumeric());
    for at in places.take(MOST_TRIES) {
        // The last of each kind becomes the one before it, the others the one behind.
        changed[at] = if b"9zZ".contains(&data[at]) { data[at] - 1 } else { data[at] + 1 };
        if serde_json::from_slice::<&RawValue>(&changed).is_ok() {
            return changed.into();
        }
        changed[at] = data[at];
    }
    data.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrupted_data_is_other_json_of_the_same_length() {
        for text in ["\"abcz\"", "9", "-0", "[1,2]", "{\"a\":null}", "\"\\n\\tz\"", "\"\u{e9}\u{e9}q\"", "1e5"] {
            let data = Bytes::copy_from_slice(text.as_bytes());
            let changed = corrupted(&data);
            assert_eq!(changed.len(), data.len(), "{text}");
            assert_eq!(changed.iter().zip(&data).filter(|(new, old)| new != old).count(), 1, "{text}");
            serde_json::from_slice::<serde_json::Value>(&changed).expect("JSON");
        }
        for text in ["\"\"", "null", "[]", "\"\u{e9}\""] {
            assert_eq!(corrupted(&Bytes::copy_from_slice(text.as_bytes())), text.as_bytes());
        }
    }
}
