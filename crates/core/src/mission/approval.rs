//! The mission's own state: what text is known, when it last changed, what is
//! open before the directors, and who may decide.

use super::MissionId;
use super::record::{COUNCIL_MAX, DecisionRecord, Warned};
use crate::cell::{At, CellId};
use serde::{Deserialize, Serialize};

/// What somebody may do in a repository, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing, or an account that is gone.
    None,
    /// May read: propose, `/help`, `/status`.
    Read,
    /// May write: `/summon` is recorded as a request.
    Write,
    /// May decide.
    Director,
}

/// Who decides together: k of the named, or of all directors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouncilRule {
    /// How many distinct directors have to approve; at least 1.
    pub votes: usize,
    /// Logins that count; empty for every director.
    pub members: Vec<String>,
}

impl Mission {
    /// What was said before the mission's text was first seen, by polling, was
    /// said of a text that may have been another: from here on it counts as
    /// edited then.
    pub fn mark_text_uncertain(&mut self, said_at: i64) {
        if let Some(seen) = self.first_polled
            && seen > said_at + 1
            && self.edited_at.is_none_or(|at| at.0 < seen * 1000)
        {
            self.edited_at = Some(At(seen * 1000));
        }
    }
}

impl CouncilRule {
    /// Reads `none`, `2`, `2 of ada, bob` or `2 directors`.
    ///
    /// # Errors
    /// What is allowed, as a sentence.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let wrong =
            || "allowed are `none`, a number such as `2`, or a number of people such as `2 of ada, bob`".to_owned();
        let text = text.trim();
        if text.eq_ignore_ascii_case("none") || text == "0" {
            return Ok(None);
        }
        let (count, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let votes: usize = count.parse().ok().filter(|n| (1..=20).contains(n)).ok_or_else(wrong)?;
        let rest = rest.trim();
        // `2 of 3` says how many directors there are, not who.
        if let Some(all) =
            rest.strip_prefix("of ").and_then(|n| n.trim_end_matches("directors").trim().parse::<usize>().ok())
        {
            return if all >= votes { Ok(Some(Self { votes, members: vec![] })) } else { Err(wrong()) };
        }
        let members: Vec<String> =
            match rest.strip_prefix("of ").or(if rest.is_empty() || rest == "directors" { Some("") } else { None }) {
                None => return Err(wrong()),
                Some(names) => names
                    .split([',', ' ', '+'])
                    .map(|n| n.trim().trim_start_matches('@').to_owned())
                    .filter(|n| !n.is_empty() && n != "directors" && n != "and")
                    .collect(),
            };
        let named = |n: &String| n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && n.len() <= 64;
        if !members.iter().all(named) {
            return Err(wrong());
        }
        if members.len() > COUNCIL_MAX {
            return Err(format!("{} people are named; a council has at most {COUNCIL_MAX}", members.len()));
        }
        let mut distinct: Vec<String> = members.iter().map(|m| m.to_lowercase()).collect();
        distinct.sort();
        distinct.dedup();
        if distinct.len() < members.len() {
            return Err("a name stands twice in the council".to_owned());
        }
        if !members.is_empty() && members.len() < votes {
            return Err(format!("{votes} votes cannot come from {} people", members.len()));
        }
        Ok(Some(Self { votes, members }))
    }
}

/// One approval that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The account's number.
    pub id: i64,
    /// Its name then.
    pub login: String,
    /// When, by our clock.
    pub at: At,
}

/// A mission: one issue, and what is known of it. The default is one of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mission {
    /// The repository's number.
    pub repo_id: i64,
    /// Owner's name, as last heard.
    pub owner: String,
    /// The repository's name, as last heard.
    pub repo: String,
    /// The issue's number on the server.
    pub issue_id: i64,
    /// The issue's number in the repository.
    pub number: i64,
    /// Who opened the issue, by number.
    pub author: i64,
    /// The author's name, as last heard.
    pub author_login: String,
    /// Whether the issue is open.
    pub open: bool,
    /// Whether the issue was deleted.
    pub deleted: bool,
    /// The text as last heard, and its hash.
    pub text: String,
    /// `updated_at` of the newest snapshot that was taken over, in whole
    /// seconds: older ones are late and change nothing.
    pub seen_at: i64,
    /// `updated_at` of the first snapshot, in whole seconds, where it was found by
    /// polling: what the text was before that is not known.
    #[serde(default)]
    pub first_polled: Option<i64>,
    /// When the text last changed after opening, by the forge's clock.
    pub edited_at: Option<At>,
    /// Hash of the text before that.
    pub text_before: Option<String>,
    /// Whether it is a proposal by form or marker.
    pub is_proposal: bool,
    /// Hash of a text that was found unparsable and answered.
    pub complained_of: Option<String>,
    /// What is before the directors: open records, oldest first.
    #[serde(default)]
    pub records: Vec<DecisionRecord>,
    /// The number of the newest record that there ever was.
    #[serde(default)]
    pub last_record: u32,
    /// What an older Lazarus held open; asked anew when the mission is next seen.
    #[serde(default, rename = "ballot", skip_serializing)]
    pub from_before_records: Option<OldBallot>,
    /// The cells of this mission, oldest first.
    pub cells: Vec<CellId>,
    /// Number of the newest label event that was looked at.
    pub label_event: i64,
    /// The label event that was the newest when the label that is on the issue was
    /// dealt with; 0 where there was none; `None` where no label is on it.
    #[serde(default)]
    pub label_handled: Option<i64>,
    /// Who is shown what before their word counts, of the text as it is.
    #[serde(default)]
    pub warned: Vec<Warned>,
    /// The `lazarus/state/*` label that is shown.
    pub shown_state: Option<String>,
    /// Whether somebody was told that the issue is no mission.
    #[serde(default)]
    pub told_no_mission: bool,
}

impl Mission {
    /// What the registry calls it.
    pub fn id(&self) -> MissionId {
        MissionId::new(self.repo_id, self.number)
    }

    /// What people call it: `OWNER/REPO#N`, by the newest name of its repository.
    pub fn name(&self) -> String {
        format!("{}/{}#{}", self.owner, self.repo, self.number)
    }

    /// Whether anything was ever asked for here. Issues on which somebody only gave a
    /// command are known as well, and are none.
    pub fn is_one(&self) -> bool {
        self.is_proposal
            || self.last_record > 0
            || !self.records.is_empty()
            || !self.cells.is_empty()
            || self.complained_of.is_some()
            || self.from_before_records.is_some()
    }
}

/// What is left of an open proposal or request of a Lazarus without records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OldBallot {
    /// The cell that it would have started.
    pub cell: CellId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_council_is_read_from_words() {
        assert_eq!(CouncilRule::parse("none"), Ok(None));
        assert_eq!(CouncilRule::parse("2").unwrap().unwrap().votes, 2);
        assert_eq!(CouncilRule::parse("2 of 3").unwrap().unwrap().members, Vec::<String>::new());
        assert!(CouncilRule::parse("3 of 2").is_err());
        assert!(CouncilRule::parse("many").is_err());
        assert!(CouncilRule::parse("3 of ada").is_err());
    }

    #[test]
    fn a_council_names_at_most_twenty_people() {
        let names = |count: usize| (0..count).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",");
        assert!(CouncilRule::parse(&format!("1 of {}", names(20))).is_ok());
        let why = CouncilRule::parse(&format!("1 of {}", names(4000))).unwrap_err();
        assert!(why.contains("4000") && why.contains("20"), "{why}");
    }
}
