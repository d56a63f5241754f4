//! How much a cell is shut in, and what of the network it may reach.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How isolated a cell is (contract §3), weakest first, so that `>=` asks
/// "at least as isolated as".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IsolationLevel {
    /// No isolation: only where policy says so in as many words.
    #[serde(rename = "none")]
    None,
    /// Its own directory and environment.
    #[serde(rename = "level_1")]
    Level1,
    /// Level 1, and its own Python environment.
    #[serde(rename = "level_1_5")]
    Level1_5,
    /// Namespaces, seccomp, Landlock, resource limits, named egress.
    #[serde(rename = "level_2")]
    Level2,
    /// A container.
    #[serde(rename = "level_3")]
    Level3,
}

/// What of the network a cell may reach, least first, so that `<=` asks "at
/// most as open as".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing but the cell itself.
    None,
    /// Named hosts, through the keeper's proxy.
    Proxy,
    /// The host's own network.
    Host,
}

/// A word that is none of the allowed ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not one of {0}")]
pub struct UnknownLevel(
    /// The allowed words.
    pub &'static str,
);

impl IsolationLevel {
    /// Every level, weakest first.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Level1,
        Self::Level1_5,
        Self::Level2,
        Self::Level3,
    ];
    /// The allowed words, for messages.
    pub const WORDS: &'static str = "none, level_1, level_1_5, level_2, level_3";

    /// The word for it in configuration, proposals and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Level1 => "level_1",
            Self::Level1_5 => "level_1_5",
            Self::Level2 => "level_2",
            Self::Level3 => "level_3",
        }
    }
}

impl Network {
    /// Every kind, least open first.
    pub const ALL: [Self; 3] = [Self::None, Self::Proxy, Self::Host];
    /// The allowed words, for messages.
    pub const WORDS: &'static str = "none, proxy, host";

    /// The word for it in configuration, proposals and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Proxy => "proxy",
            Self::Host => "host",
        }
    }
}

impl FromStr for IsolationLevel {
    type Err = UnknownLevel;
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or(UnknownLevel(Self::WORDS))
    }
}

impl FromStr for Network {
    type Err = UnknownLevel;
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|network| network.as_str() == text)
            .ok_or(UnknownLevel(Self::WORDS))
    }
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
