//! What of the work that was taken in is held.

pub(super) use crate::mission::held::shown;
pub use crate::mission::held::{Finding, Held, Place};
