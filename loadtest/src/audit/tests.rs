//! The rules of the audit, one by one, and random histories.

mod ephemeral;
mod histories;
mod rules;
mod world;
