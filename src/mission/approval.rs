//! Approval, and the mission's own state: what text is known, when it last
//! changed, who voted.

use super::text::ApprovedText;
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

/// What is before the directors now: a proposal, or a request by a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The cell that it would start.
    pub cell: CellId,
    /// Hash of the text it is about.
    pub text: String,
    /// Who proposed it, by number; 0 for the operator.
    pub proposer: i64,
    /// Who decides.
    pub council: Option<CouncilRule>,
    /// The accounts that the council's logins meant when it was proposed: names
    /// can change hands. Not known for a moment after that.
    pub members: Option<Vec<i64>>,
    /// Votes so far.
    pub votes: Vec<Vote>,
    /// Whether somebody who approved too soon after an edit was told so, by
    /// account number: their next approval of this text counts.
    pub warned: Vec<i64>,
    /// Whether it is a request of a writer rather than a proposal.
    pub request: bool,
}

/// A mission: one issue, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When the text last changed after opening, by the forge's clock.
    pub edited_at: Option<At>,
    /// Hash of the text before that.
    pub text_before: Option<String>,
    /// Whether it is a proposal by form or marker.
    pub is_proposal: bool,
    /// Hash of a text that was found unparsable and answered.
    pub complained_of: Option<String>,
    /// What is before the directors.
    pub ballot: Option<Ballot>,
    /// The cells of this mission, oldest first.
    pub cells: Vec<CellId>,
    /// Number of the newest label event that was looked at.
    pub label_event: i64,
    /// Whether the approval label was on the issue when it was opened.
    pub smuggled_label: bool,
    /// Who was told that a summons came too soon after an edit, and of which
    /// text: account number and hash.
    pub summons_warned: Vec<(i64, String)>,
    /// The `lazarus/state/*` label that is shown.
    pub shown_state: Option<String>,
}

/// What an approval comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing to approve.
    Nothing,
    /// The text was changed a moment before: say what changed, count a repeat.
    TooSoon,
    /// It does not count, for that reason.
    NotCounted(String),
    /// It counts; so many more are needed.
    Counted {
        /// Distinct directors that are still needed.
        missing: usize,
    },
    /// It counts and is enough.
    Approved {
        /// Everybody whose approval counts.
        by: Vec<(i64, String)>,
    },
}

/// Counts one approval by a director. Changes only the ballot.
///
/// `given_at` is when it was given and `mission.edited_at` when the text last
/// changed, both by the forge's clock; `now` is ours, for the window.
#[allow(clippy::too_many_arguments, reason = "each is a fact of its own, and a struct would only hide that")]
pub fn vote(
    mission: &mut Mission,
    current: &ApprovedText,
    voter: (i64, &str),
    given_at: At,
    now: At,
    settle: i64,
    window: i64,
    proposer_may_vote: bool,
) -> Verdict {
    let edited_at = mission.edited_at;
    let Some(ballot) = mission.ballot.as_mut() else { return Verdict::Nothing };
    if ballot.text != current.hash {
        return Verdict::NotCounted("the text that is before the directors is not the issue's text any more".into());
    }
    let (id, login) = voter;
    if let Some(edited) = edited_at
        && given_at.0 - edited.0 < settle
        && !ballot.warned.contains(&id)
    {
        ballot.warned.push(id);
        return Verdict::TooSoon;
    }
    let Some(council) = ballot.council.clone() else {
        return Verdict::Approved { by: vec![(id, login.to_owned())] };
    };
    if id == ballot.proposer && !proposer_may_vote {
        return Verdict::NotCounted("the proposer's own vote does not count in a council".into());
    }
    if !council.members.is_empty() {
        match &ballot.members {
            None => {
                return Verdict::NotCounted("the council is still being looked up; approve again in a moment".into());
            }
            Some(members) if !members.contains(&id) => {
                return Verdict::NotCounted(format!("the council of this proposal is {}", council.members.join(", ")));
            }
            Some(_) => {}
        }
    }
    // Votes outside the window do not count any more.
    ballot.votes.retain(|v| now.0 - v.at.0 <= window);
    if !ballot.votes.iter().any(|v| v.id == id) {
        ballot.votes.push(Vote { id, login: login.to_owned(), at: now });
    }
    if ballot.votes.len() >= council.votes {
        Verdict::Approved { by: ballot.votes.iter().map(|v| (v.id, v.login.clone())).collect() }
    } else {
        Verdict::Counted { missing: council.votes - ballot.votes.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mission(council: Option<CouncilRule>, edited_at: Option<At>) -> (Mission, ApprovedText) {
        let text = ApprovedText::new("t", "b");
        let ballot = Ballot {
            cell: CellId::from_random([1; 10]),
            text: text.hash.clone(),
            proposer: 4,
            council,
            members: Some(vec![7, 8, 4]),
            votes: vec![],
            warned: vec![],
            request: false,
        };
        let mission = Mission {
            repo_id: 1,
            owner: "acme".into(),
            repo: "widget".into(),
            issue_id: 1,
            number: 1,
            author: 4,
            author_login: "reader".into(),
            open: true,
            deleted: false,
            text: text.hash.clone(),
            seen_at: 0,
            edited_at,
            text_before: None,
            is_proposal: true,
            complained_of: None,
            ballot: Some(ballot),
            cells: vec![],
            label_event: 0,
            smuggled_label: false,
            summons_warned: vec![],
            shown_state: None,
        };
        (mission, text)
    }

    fn cast(m: &mut Mission, text: &ApprovedText, who: i64, login: &str, at: i64) -> Verdict {
        vote(m, text, (who, login), At(at), At(at), 30_000, 86_400_000, false)
    }

    #[test]
    fn threat_13_an_approval_right_after_an_edit_counts_only_when_repeated() {
        let (mut m, text) = mission(None, Some(At(100_000)));
        assert_eq!(cast(&mut m, &text, 2, "director", 110_000), Verdict::TooSoon);
        assert!(matches!(cast(&mut m, &text, 2, "director", 111_000), Verdict::Approved { .. }));
        let (mut m, text) = mission(None, Some(At(100_000)));
        assert!(matches!(cast(&mut m, &text, 2, "director", 140_000), Verdict::Approved { .. }));
    }

    #[test]
    fn threat_13_an_approval_of_another_text_does_not_count() {
        let (mut m, _) = mission(None, None);
        let other = ApprovedText::new("t", "changed");
        assert!(matches!(cast(&mut m, &other, 2, "director", 0), Verdict::NotCounted(_)));
    }

    #[test]
    fn a_council_needs_distinct_people_other_than_the_proposer_within_the_window() {
        let rule = CouncilRule::parse("2 of ada, bob, reader").unwrap();
        let (mut m, text) = mission(rule, None);
        assert_eq!(cast(&mut m, &text, 7, "ada", 0), Verdict::Counted { missing: 1 });
        assert_eq!(cast(&mut m, &text, 7, "ada", 1), Verdict::Counted { missing: 1 }, "the same person twice");
        assert!(matches!(cast(&mut m, &text, 4, "reader", 2), Verdict::NotCounted(_)), "the proposer");
        assert!(matches!(cast(&mut m, &text, 9, "eve", 2), Verdict::NotCounted(_)), "not a member");
        assert_eq!(cast(&mut m, &text, 8, "bob", 90_000_000), Verdict::Counted { missing: 1 }, "ada's is too old");
        assert!(matches!(cast(&mut m, &text, 7, "ada", 90_000_001), Verdict::Approved { .. }));
    }

    #[test]
    fn a_council_is_read_from_words() {
        assert_eq!(CouncilRule::parse("none"), Ok(None));
        assert_eq!(CouncilRule::parse("2").unwrap().unwrap().votes, 2);
        assert_eq!(CouncilRule::parse("2 of 3").unwrap().unwrap().members, Vec::<String>::new());
        assert!(CouncilRule::parse("3 of 2").is_err());
        assert!(CouncilRule::parse("many").is_err());
        assert!(CouncilRule::parse("3 of ada").is_err());
    }
}
