//! One client's life.
pub mod accepted;
