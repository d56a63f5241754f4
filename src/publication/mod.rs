//! See the map in the crate's root.

pub mod gate;
pub mod redaction;
