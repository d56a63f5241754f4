//! What the registry calls a mission.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a mission in the registry: the numbers of its repository and of
/// its issue, as `3#12`. Unlike the names of repositories, it never moves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MissionId(String);

/// A text that is not the name of a mission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a mission in the registry: that is the number of a repository, `#`, and the number of an issue"
)]
pub struct InvalidMissionId {
    /// The beginning of what was given, without control characters.
    given: String,
}

impl MissionId {
    /// The mission of an issue.
    pub fn new(repository: i64, issue: i64) -> Self {
        Self(format!("{repository}#{issue}"))
    }

    /// Reads a name that was stored.
    ///
    /// # Errors
    /// Where it is not of that form.
    pub fn parse(text: &str) -> Result<Self, InvalidMissionId> {
        let numbers = text.split_once('#').and_then(|(repository, issue)| {
            let (repository, issue) = (repository.parse().ok()?, issue.parse().ok()?);
            Some(Self::new(repository, issue))
        });
        // `parse` would take `+7`, too.
        numbers
            .filter(|id| id.0 == text)
            .ok_or_else(|| InvalidMissionId { given: text.chars().filter(|c| !c.is_control()).take(80).collect() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of its repository on the forge.
    pub fn repository(&self) -> i64 {
        // It was checked when this was made.
        self.0.split_once('#').and_then(|(repository, _)| repository.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for MissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MissionId {
    type Error = InvalidMissionId;
    fn try_from(text: String) -> Result<Self, InvalidMissionId> {
        Self::parse(&text)
    }
}

impl From<MissionId> for String {
    fn from(id: MissionId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mission_is_named_by_two_numbers_and_nothing_else_is_one() {
        let id = MissionId::new(3, 12);
        assert_eq!((id.as_str(), id.repository()), ("3#12", 3));
        assert_eq!(MissionId::parse("3#12"), Ok(id.clone()));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"3#12\"");
        for other in ["", "3", "#", "3#", "#12", "3#x", "+3#12", "3#012", "3#12 ", "acme/widget#12"] {
            assert!(MissionId::parse(other).is_err(), "{other}");
        }
    }
}
