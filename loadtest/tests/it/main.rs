//! The load tester from outside: real gateways, a real redis-server, the program as people start it.
//!
//! The gateway must be built before: `cargo build -p roomcast-gateway`; `GATEWAY_UNDER_TEST=/path/to/gateway` takes
//! another one. Every wait has a condition and a deadline. Nothing asserts that something was fast.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // a test that cannot go on should say where

mod chat;
mod clocks;
mod drain;
mod exit;
mod failover;
mod faults;
mod log;
mod loss;
mod outage;
mod processes;
mod sabotage;
mod scenarios;
mod stall;
mod storm;
mod support;
mod terms;
