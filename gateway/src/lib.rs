//! A Roomcast node. Imports run downward only; `cargo xtask tidy` holds them to it.
//!
//! main -> app -> worker -> server -> session -> hub -> {socket, broker, access, events} -> outbound ->
//! {config, telemetry, lifecycle} -> protocol

pub mod access;
pub mod app;
pub mod broker;
pub mod check;
pub mod config;
pub mod events;
pub mod hub;
pub mod lifecycle;
pub mod outbound;
pub mod server;
pub mod session;
pub mod socket;
pub mod telemetry;
pub mod worker;

#[cfg(test)]
mod docs;
