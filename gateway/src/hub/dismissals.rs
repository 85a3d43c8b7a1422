//! Users disconnected lately, for connections of theirs that were coming in then.
//!
//! A handshake may wait for the operator's service, and whose it is may be known only at its end. So orders leave a note
//! here, and a connection that asked before the note was left ends where it begins. Called by sessions that start, and by
//! orders. It must not know what a handshake is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::peer::{Peer, Stop};
use super::shard::Shard;

/// Notes kept. Whoever came in so slowly that older ones would matter is asked to come again.
const MOST_NOTES: usize = 256;

struct Note {
    at: Instant,
    user: Arc<str>,
    stop: Stop,
    words: Option<Arc<str>>,
}

/// The latest notes, the oldest first.
#[derive(Default)]
pub(super) struct Dismissals(RefCell<VecDeque<Note>>);

impl Dismissals {
    pub(super) fn note(&self, user: &Arc<str>, stop: Stop, words: Option<&Arc<str>>) {
        let mut notes = self.0.borrow_mut();
        if notes.len() >= MOST_NOTES {
            notes.pop_front();
        }
        notes.push_back(Note { at: Instant::now(), user: Arc::clone(user), stop, words: words.cloned() });
    }
}

impl Shard {
    /// Ends a connection whose user was disconnected after it had asked to come in.
    pub fn end_if_dismissed(&self, peer: &Peer, asked: Instant) {
        let Some(user) = peer.user() else { return };
        let notes = self.dismissals.0.borrow();
        let mut since = notes.iter().rev().take_while(|note| note.at >= asked);
        if let Some(note) = since.find(|note| note.user == *user) {
            peer.dismiss(note.stop, note.words.clone());
        } else if notes.len() >= MOST_NOTES && notes.front().is_some_and(|oldest| oldest.at >= asked) {
            peer.dismiss(Stop::Requested, None);
        }
    }
}
