//! Where a value came from.

use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The layer that a value came from, from the weakest to the strongest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A built-in default.
    Default,
    /// A file, and the line in it, counted from 1.
    File(PathBuf, usize),
    /// The environment variable of this name.
    Env(String),
    /// A command line flag.
    Flag,
}

impl Source {
    /// The file that relative paths in this value are relative to.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            _ => None,
        }
    }

    /// Rank of the layer: the higher one wins.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Env(_) => 2,
            Self::Flag => 3,
        }
    }

    /// Whether the value is untyped text, as everything from the environment and the command line is.
    pub(crate) fn is_untyped(&self) -> bool {
        matches!(self, Self::Env(_) | Self::Flag)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

impl Serialize for Source {
    /// Serializes as an object: `{"from": "file", "path": …, "line": …}`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Default => map.serialize_entry("from", "default")?,
            Self::File(path, line) => {
                map.serialize_entry("from", "file")?;
                map.serialize_entry("path", &path.to_string_lossy())?;
                map.serialize_entry("line", line)?;
            }
            Self::Env(name) => {
                map.serialize_entry("from", "environment")?;
                map.serialize_entry("name", name)?;
            }
            Self::Flag => map.serialize_entry("from", "flag")?,
        }
        map.end()
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    /// The effective value.
    pub value: T,
    /// The layer that it came from.
    pub source: Source,
}
