//! The shape of a run, as far as what is owed to whom depends on it. Plain data, made out of a plan by the engine.

use roomcast_protocol::Mode;

/// The shape of the whole run, the same in all its processes but for `share`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub mode: Mode,
    /// Whether publishers get their own messages.
    pub echo: bool,
    pub share: Share,
}

/// The `index`th of `of` processes; counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub index: u32,
    pub of: u32,
}
