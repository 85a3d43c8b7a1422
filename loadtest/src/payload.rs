//! What a message carries: who published it where, as which number, when it was meant to be sent.
//!
//! Written by publishers, read by every receiver; knows nothing of rooms or sockets. `data` is one JSON string of
//! exactly the wanted size, quotes included, with a checksum over all of it.

/// The identity of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run, random: messages of another run are not ours.
    pub run: u32,
    /// Index of the room in the run.
    pub room: u32,
    /// Index of the publishing client in the run, over all processes.
    pub publisher: u32,
    /// The publisher's messages are numbered from 1.
    pub number: u32,
    /// 0 for the first attempt; a retry under the same id has 1 or more.
    pub attempt: u8,
    /// Hash of the node id that the publisher was connected to.
    pub node: u32,
    /// When it was meant to be sent, ns since the Unix epoch.
    pub intended_ns: u64,
}
