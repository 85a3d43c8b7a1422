//! The rules of the audit, one by one, and random histories.

mod histories;
mod rules;
mod world;
