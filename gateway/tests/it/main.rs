//! The gateway from outside: real processes, a real redis-server, a client that is not our own.
//!
//! Written from the protocol's prose, not from the code. Every wait has a condition and a deadline; nothing sleeps.
//! `GATEWAY_UNDER_TEST=/path/to/gateway` runs the suite against another build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // a test that cannot go on should say where

mod admin;
mod api;
mod auth;
mod authorize;
mod check;
mod cluster;
mod config;
mod drain;
mod heartbeat;
mod hostile;
mod idle;
mod limits;
mod probe;
mod protocol;
mod quota;
mod sabotage;
mod strangers;
mod support;
mod traces;
mod webhooks;
