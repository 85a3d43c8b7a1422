//! To come.

pub mod admin;
