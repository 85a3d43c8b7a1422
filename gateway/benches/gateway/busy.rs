//! A process that keeps its CPU busy, so that whoever shares the CPU gets about half of it.

/// The argument that makes this program one.
pub const SUBCOMMAND: &str = "internal-busy-loop";

/// Spins until it is killed.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
