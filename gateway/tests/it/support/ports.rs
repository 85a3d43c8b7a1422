//! Ports for servers that cannot choose one and tell, or that come back on the one they had.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// The kernel gives none of these away by itself, to a listener on port 0 or to a connection: its own begin at 32768 or
/// above. So nobody takes one while its server starts, or is away for a moment.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port that is free. None is given out twice by a process.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Other processes begin elsewhere.
        let place = process::id().wrapping_mul(7919).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("none of {COUNT} ports is free");
}
