//! Which parts of the work that was taken in are held.

pub(super) use crate::mission::held::shown;
pub use crate::mission::held::{Finding, Held, Place};
