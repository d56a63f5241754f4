//! `OWNER/REPO#N`: what people call a mission.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A mission as people name it: the issue `number` of a repository. Names move;
/// what counts is the number that the registry has for the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MissionName {
    /// The repository's owner.
    pub owner: String,
    /// The repository's name.
    pub repository: String,
    /// The number, from 1.
    pub number: i64,
}

/// A text that does not name a mission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MISSION `{given}`: the form is OWNER/REPO#N, as in acme/widget#7")]
pub struct InvalidMission {
    /// What was given, cut to 80 characters, without control characters.
    pub given: String,
}

impl MissionName {
    /// `OWNER/REPO`.
    pub fn full_repository(&self) -> String {
        format!("{}/{}", self.owner, self.repository)
    }
}

impl FromStr for MissionName {
    type Err = InvalidMission;

    fn from_str(text: &str) -> Result<Self, InvalidMission> {
        let wrong = || InvalidMission { given: text.chars().filter(|c| !c.is_control()).take(80).collect::<String>() };
        let (repo, number) = text.rsplit_once('#').ok_or_else(wrong)?;
        let (owner, repository) = repo.split_once('/').ok_or_else(wrong)?;
        // `parse` would take `+7`, too.
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let number: i64 = number.parse().ok().filter(|n| digits && *n > 0).ok_or_else(wrong)?;
        let good = |part: &str| {
            (1..=100).contains(&part.len())
                && !matches!(part, "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if !good(owner) || !good(repository) {
            return Err(wrong());
        }
        Ok(Self { owner: owner.to_owned(), repository: repository.to_owned(), number })
    }
}

impl fmt::Display for MissionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.owner, self.repository, self.number)
    }
}

impl TryFrom<String> for MissionName {
    type Error = InvalidMission;
    fn try_from(text: String) -> Result<Self, InvalidMission> {
        text.parse()
    }
}
impl From<MissionName> for String {
    fn from(name: MissionName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mission_is_named_as_people_write_it() {
        let name: MissionName = "acme/widget.js#7".parse().unwrap();
        assert_eq!((name.owner.as_str(), name.repository.as_str(), name.number), ("acme", "widget.js", 7));
        assert_eq!(name.to_string(), "acme/widget.js#7");
    }

    #[test]
    fn what_names_no_mission_is_refused_and_repeated_in_one_short_line() {
        for text in [
            "",
            "#",
            "acme#7",
            "acme/widget",
            "acme/widget#",
            "acme/widget#0",
            "acme/widget#-7",
            "acme/widget#+7",
            "acme/widget#7x",
            "/widget#7",
            "acme/#7",
            "acme/..#7",
            "a/b/c#7",
            "acme/wid get#7",
            "acme/$HOME#7",
            "acme/widget#99999999999999999999",
        ] {
            assert!(text.parse::<MissionName>().is_err(), "accepted: {text:?}");
        }
        let error = format!("a\u{1b}[2J\n{}", "x".repeat(500)).parse::<MissionName>().unwrap_err().to_string();
        assert!(error.len() < 200 && !error.chars().any(char::is_control), "{error:?}");
    }
}
