//! The files of cells: homes, the graveyard, the archive and scrubbing; and the harvester, which hands work out of
//! them.
//!
//! Names from outside never become a path unchecked: a [`CellId`](crate::cell::CellId) and an agent's name are
//! checked types, and everything else stays inside files. Deletion opens each directory without following links and
//! removes entries by descriptor, so nothing that a cell left behind can redirect it elsewhere.

mod harvest;
mod home;
mod scrub;
mod worktree;

pub use harvest::{HandedWork, HarvestManifest, HarvestOrder, HarvestRequest, QUOTED_MAX, hand_out};
pub use home::{Home, HomeError, Roots, make_directory};
pub use scrub::scrub;
pub use worktree::in_worktree;
