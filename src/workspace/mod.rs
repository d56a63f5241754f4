//! The files of cells: homes, clones, the graveyard, the archive, scrubbing.
//!
//! Names that come from outside never become a path unchecked: a [`CellId`]
//! and an agent's name are checked types, and everything else stays inside of
//! files. Deletion opens each directory without following links and removes by
//! descriptor, so nothing that a cell left behind can lead it elsewhere.

mod clone;
mod git;
mod harvest;
mod home;
mod scrub;
mod work;
mod worktree;

pub use clone::{Cloned, LeftOut, OBJECTS_IN_CELL, clone_project, left_out_of, mirror_of, refresh_mirror, unpin};
pub use git::{GitError, credential_helper};
pub use harvest::{HandedOut, Wanted, hand_out};
pub use home::{Home, HomeError, Roots};
pub use scrub::scrub;
pub use work::{OwnCommit, PushError, Pushed, WorkLimits, WorkRepository};
pub use worktree::in_worktree;
