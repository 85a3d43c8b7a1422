//! What comes over the channel of the orders: decoding never panics, and what it accepts is within the bounds that are
//! kept by those who give orders.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast_gateway::broker::{MAX_WORDS_BYTES, Order, Task};

fuzz_target!(|bytes: &[u8]| {
    let Ok(order) = Order::decode(bytes) else { return };
    match &order.task {
        Task::Unknown => assert!(!order.is_good(), "nobody gives such orders"),
        Task::Remove { words, .. } | Task::Disconnect { words, .. } => {
            assert!(order.is_good(), "as its giver would have made it: {order:?}");
            assert!(words.as_ref().is_none_or(|words| words.len() <= MAX_WORDS_BYTES));
        }
    }
});
