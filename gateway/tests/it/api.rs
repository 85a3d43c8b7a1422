//! The HTTP API from outside: what backends do, on connections that stay, to one node and to several.

mod connections;
mod hostile;
mod keys;
mod orders;
mod pages;
mod publishing;
mod video;

use crate::support::{Node, Redis, keys};

/// Two nodes on `redis` that know the keys, with `args`.
async fn pair(redis: &Redis, args: &[&str]) -> [Node; 2] {
    let keys = keys();
    let all: Vec<&str> = keys.iter().map(String::as_str).chain(args.iter().copied()).collect();
    [Node::join(redis, "n-1", &all).await, Node::join(redis, "n-2", &all).await]
}
