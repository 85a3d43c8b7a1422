//! Partial writes of every kind: order, whole frames, bounds.

use std::cell::RefCell;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::socket::frames;

/// A socket that takes as many bytes per write as its schedule says; 0 is "full". Past the schedule it takes all.
#[derive(Default)]
struct Wire {
    schedule: RefCell<VecDeque<usize>>,
    got: RefCell<Vec<u8>>,
    calls: RefCell<Vec<&'static str>>,
}

impl Wire {
    fn new(schedule: impl IntoIterator<Item = usize>) -> Self {
        Self { schedule: RefCell::new(schedule.into_iter().collect()), ..Self::default() }
    }

    fn take(&self, bytes: &[u8], call: &'static str) -> io::Result<usize> {
        self.calls.borrow_mut().push(call);
        match self.schedule.borrow_mut().pop_front() {
            Some(0) => Err(io::ErrorKind::WouldBlock.into()),
            room => {
                let taken = room.unwrap_or(usize::MAX).min(bytes.len());
                self.got.borrow_mut().extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
        }
    }

    /// The whole frames that arrived, and whether nothing is left over.
    fn frames(&self) -> (Vec<Vec<u8>>, bool) {
        let got = self.got.borrow();
        let (mut at, mut all) = (0, Vec::new());
        while let Some(len) = first_frame_len(&got[at..]) {
            all.push(got[at..at + len].to_vec());
            at += len;
        }
        (all, at == got.len())
    }
}

impl TryWrite for Wire {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes, "one")
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.take(&joined, "vectored")
    }
}

/// A piece with one frame of each length.
fn piece(lengths: &[usize]) -> Bytes {
    let mut out = BytesMut::new();
    for &len in lengths {
        frames::binary(&vec![len as u8; len], &mut out);
    }
    out.freeze()
}

fn close() -> Bytes {
    let mut out = BytesMut::new();
    frames::close(4408, "slow consumer", &mut out);
    out.freeze()
}

#[test]
fn an_idle_outbox_is_small_and_writes_directly() {
    assert!(size_of::<Outbox>() <= 48);
    let (mut outbox, wire) = (Outbox::new(), Wire::default());
    assert_eq!(outbox.send(&wire, &piece(&[3]), 100).expect("open"), Sent::Written);
    assert_eq!(outbox.send(&wire, &Bytes::new(), 100).expect("open"), Sent::Written);
    assert!(outbox.is_empty() && outbox.flush(&wire).expect("open"));
    assert_eq!((outbox.backlog(), outbox.take_writes(), outbox.take_writes()), (0, 1, 0));
}

#[test]
fn what_the_socket_does_not_take_waits_in_order() {
    let (mut outbox, wire) = (Outbox::new(), Wire::new([2, 3, 0]));
    assert_eq!(outbox.send(&wire, &piece(&[10]), 1000).expect("open"), Sent::Partly);
    assert_eq!(outbox.send(&wire, &piece(&[11]), 1000).expect("open"), Sent::Queued);
    assert_eq!(outbox.backlog(), 10 + 13);
    assert!(!outbox.flush(&wire).expect("open"), "3 bytes, then full");
    assert_eq!(outbox.backlog(), 7 + 13);
    assert!(outbox.flush(&wire).expect("open"));
    assert_eq!(wire.frames(), (vec![piece(&[10]).to_vec(), piece(&[11]).to_vec()], true));
    assert_eq!(outbox.take_writes(), 3);
}

#[test]
fn small_pieces_are_joined_and_large_ones_are_not_copied() {
    let (mut outbox, wire) = (Outbox::new(), Wire::default());
    for _ in 0..3 {
        outbox.push(piece(&[5]), usize::MAX).expect("fits");
    }
    assert!(outbox.flush(&wire).expect("open"));
    for _ in 0..3 {
        outbox.push(piece(&[5000]), usize::MAX).expect("fits");
    }
    assert!(outbox.flush(&wire).expect("open"));
    for _ in 0..=MAX_PIECES {
        outbox.push(piece(&[1]), usize::MAX).expect("fits");
    }
    assert!(outbox.flush(&wire).expect("open"));
    assert_eq!(*wire.calls.borrow(), ["one", "vectored", "one", "one"]);
    assert!(wire.frames().1);
}

#[test]
fn overflow_is_told_and_nothing_is_torn() {
    // Nothing on the wire: nothing is kept.
    let (mut outbox, wire) = (Outbox::new(), Wire::new([0]));
    assert!(matches!(outbox.send(&wire, &piece(&[50]), 51), Err(SendError::Overflow(_))));
    assert!(outbox.is_empty());
    // Part of it is: the cut frame is completed, the others go, the close comes last.
    let (mut outbox, wire) = (Outbox::new(), Wire::new([20]));
    assert!(matches!(outbox.send(&wire, &piece(&[10, 30, 60]), 51), Err(SendError::Overflow(_))));
    outbox.close_with(close());
    assert!(outbox.flush(&wire).expect("open"));
    assert_eq!(wire.frames(), (vec![piece(&[10]).to_vec(), piece(&[30]).to_vec(), close().to_vec()], true));
    // Behind others: what does not fit is not queued. Each piece is charged for its place.
    let mut outbox = Outbox::new();
    outbox.push(piece(&[8]), 100).expect("fits");
    outbox.push(piece(&[8]), 100).expect("fits");
    assert_eq!(outbox.push(piece(&[40]), 100), Err(Overflow));
    assert_eq!(outbox.backlog(), 20);
}

#[test]
fn a_close_waits_for_nothing_when_no_frame_is_cut() {
    // Twelve bytes are exactly the first frame.
    let (mut outbox, wire) = (Outbox::new(), Wire::new([12, 0]));
    assert_eq!(outbox.send(&wire, &piece(&[10, 30]), 1000).expect("open"), Sent::Partly);
    outbox.push(piece(&[9]), 1000).expect("fits");
    outbox.close_with(close());
    assert!(!outbox.flush(&wire).expect("open"));
    assert!(outbox.flush(&wire).expect("open"));
    assert_eq!(wire.frames(), (vec![piece(&[10]).to_vec(), close().to_vec()], true));
}

#[test]
fn a_dead_socket_is_an_error() {
    struct Dead;
    impl TryWrite for Dead {
        fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(0)
        }
    }
    let mut outbox = Outbox::new();
    assert!(matches!(outbox.send(&Dead, &piece(&[1]), 10), Err(SendError::Io(_))));
    outbox.push(piece(&[5000]), usize::MAX).expect("fits");
    outbox.push(piece(&[5000]), usize::MAX).expect("fits");
    assert_eq!(outbox.flush(&Dead).expect_err("wrote nothing").kind(), io::ErrorKind::WriteZero);
}

#[derive(Debug, Clone)]
enum Op {
    Send(Vec<usize>),
    Push(Vec<usize>),
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let lengths = || prop::collection::vec(prop_oneof![0..200_usize, 1000..3000_usize], 1..4);
    prop_oneof![lengths().prop_map(Op::Send), lengths().prop_map(Op::Push), Just(Op::Flush)]
}

proptest! {
    #[test]
    fn any_schedule_of_partial_writes_gives_whole_frames_in_order(
        ops in prop::collection::vec(op(), 1..30),
        schedule in prop::collection::vec(prop_oneof![Just(0), 1..3000_usize], 0..60),
        close_at_end: bool,
    ) {
        let (mut outbox, wire) = (Outbox::new(), Wire::new(schedule));
        let mut accepted = BytesMut::new();
        let limit = 6000;
        for op in ops {
            match op {
                Op::Send(lengths) => {
                    let piece = piece(&lengths);
                    let before = outbox.backlog();
                    match outbox.send(&wire, &piece, limit) {
                        Ok(_) => accepted.extend_from_slice(&piece),
                        // Partly on the wire: its rest stays queued.
                        Err(_) if before == 0 && outbox.backlog() > 0 => accepted.extend_from_slice(&piece),
                        Err(_) => {}
                    }
                }
                Op::Push(lengths) => {
                    let piece = piece(&lengths);
                    if outbox.push(piece.clone(), limit).is_ok() {
                        accepted.extend_from_slice(&piece);
                    }
                }
                Op::Flush => {
                    let empty = outbox.flush(&wire).expect("open");
                    prop_assert_eq!(empty, outbox.is_empty());
                }
            }
            prop_assert_eq!(outbox.backlog() + wire.got.borrow().len(), accepted.len());
        }
        let on_the_wire = wire.got.borrow().len();
        if close_at_end {
            outbox.close_with(close());
        }
        while !outbox.flush(&wire).expect("open") {}
        let (mut frames, whole) = wire.frames();
        prop_assert!(whole);
        if close_at_end {
            prop_assert_eq!(frames.pop().expect("a close frame"), close().to_vec());
        }
        let got = frames.concat();
        prop_assert!(accepted.starts_with(&got));
        if close_at_end {
            // Nothing was begun after the close was asked for.
            let cut = frames.last().map_or(0, Vec::len);
            prop_assert!(got.len() < on_the_wire + cut || got.len() == on_the_wire);
        } else {
            prop_assert_eq!(got.len(), accepted.len());
        }
    }
}
