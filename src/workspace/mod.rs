//! The files of cells: homes, clones, the graveyard, the archive, scrubbing.
//!
//! Names that come from outside never become a path unchecked: a [`CellId`]
//! and an agent's name are checked types, and everything else stays inside of
//! files. Deletion opens each directory without following links and removes by
//! descriptor, so nothing that a cell left behind can lead it elsewhere.

mod clone;
mod confined;
mod git;
mod harvest;
mod held;
mod home;
mod inspect;
mod parts;
mod push;
mod scrub;
mod work;
mod worktree;

pub use clone::{Cloned, LeftOut, clone_project, hold_base, holds_base, left_out_of, mirror_of, refresh_mirror, unpin};
pub use confined::ConfinedGit;
pub use git::{GitAccess, GitError, clear_credentials, credential_helper};
pub use harvest::{HandedOut, Wanted, hand_out};
pub use held::{Finding, Held, Place};
pub use home::{Home, HomeError, Roots};
pub use push::{PushOutcome, Pushed};
pub use scrub::scrub;
pub use work::{Origin, WorkLimits, WorkRepository};
pub use worktree::in_worktree;
