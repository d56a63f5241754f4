//! Paths as the agents of one cell see them.

use super::ProcessBackend;
use super::start::hidden;
use crate::backend::Running;
use crate::cell::Isolation;
use crate::sandbox::{devices, program, shown_to_every_cell, without};
use crate::workspace::Home;
use std::io;
use std::path::{Path, PathBuf};

/// The paths of one cell. In a cell with a root of its own they lie below `/cell`; otherwise they are the host's.
pub(super) struct Inside {
    has_root: bool,
    home: PathBuf,
}

impl Inside {
    pub(super) fn of(running: &Running, home: &Home) -> Self {
        let has_root = running.isolation.is_none_or(|level| level >= Isolation::Level2);
        Self { has_root, home: home.path.clone() }
    }

    /// Whether agents have a root and namespaces of their own.
    pub(super) fn has_root(&self) -> bool {
        self.has_root
    }

    /// The path of something in the cell's home; `""` is the home itself.
    pub(super) fn at(&self, inside: &str) -> PathBuf {
        if self.has_root { Path::new("/cell").join(inside) } else { self.home.join(inside) }
    }

    /// An agent's own home.
    pub(super) fn home_of(&self, agent: &str) -> PathBuf {
        self.at("home").join(agent)
    }

    /// The path at which the cell finds this program.
    pub(super) fn program(&self) -> io::Result<PathBuf> {
        if self.has_root { Ok(PathBuf::from("/run/lazarus/lazarus")) } else { program::path() }
    }
}

impl ProcessBackend {
    /// What an agent without a root of its own may read: the system, its profile's paths and its own files. Leaves
    /// out those of the daemon's files that lie in the first two, even if they were moved there.
    pub(super) fn read_paths_without_a_root(&self, of_profile: &[PathBuf], own: &[PathBuf]) -> Vec<PathBuf> {
        let hidden = hidden(&self.sight(), of_profile);
        let system = shown_to_every_cell();
        let shown = system.iter().chain(of_profile).flat_map(|tree| without(tree, &hidden));
        shown.chain(devices()).chain(own.iter().cloned()).collect()
    }
}
