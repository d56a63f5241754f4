//! The files of cells: homes, clones, the graveyard, the archive, scrubbing.
//!
//! Names that come from outside never become a path unchecked: a [`CellId`]
//! and an agent's name are checked types, and everything else stays inside of
//! files. Deletion opens each directory without following links and removes by
//! descriptor, so nothing that a cell left behind can lead it elsewhere.

mod clone;
mod harvest;
mod home;
mod scrub;

pub use clone::{CloneError, Cloned, clone_project, credential_helper};
pub use harvest::read_work;
pub use home::{Home, HomeError, Roots};
pub use scrub::scrub;
