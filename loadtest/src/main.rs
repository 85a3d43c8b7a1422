//! Life, death and exit code of a load test. Everything else is in the library.

fn main() {}
