//! The decision record: what somebody asks the directors to decide, in exactly
//! the form in which it would run (contract §6).
//!
//! Nothing of authority is bound to a text alone. A request becomes a record
//! with a number and a birth; the bot shows the record; an approval counts
//! once, for one open record that was born before the approval was given.
//! Comments and labels both end in [`Mission::approve`].

use super::approval::{CouncilRule, Mission, Vote};
use crate::cell::{Actor, At, CellId, Spec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most records that may be open on one mission at a time: more are refused, so
/// that nobody has to choose among hundreds.
pub const OPEN_MAX: usize = 10;
/// Most people that a council may name (contract §6).
pub const COUNCIL_MAX: usize = 20;

/// A point on the forge's own timeline.
///
/// The forge's times have a resolution of one second. Its comments and timeline
/// entries are numbered in one rising sequence, so where both points have a
/// number, that one tells which was first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The forge's time, in milliseconds since the Unix epoch.
    pub at: At,
    /// The number in the sequence of comments and timeline entries; `None` for
    /// what has none, such as the text of an issue.
    pub id: Option<i64>,
}

impl Moment {
    /// Whether this is later than `other`. Within one second, and without
    /// numbers, it counts as later: a text that was edited in that second has
    /// its own rule (see [`Rules::settle`]).
    pub fn is_after(self, other: Self) -> bool {
        let later = self.at >= other.at;
        match (self.id, other.id) {
            (Some(own), Some(others)) => own > others && later,
            _ => later,
        }
    }
}

/// Where a request was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "in", rename_all = "snake_case")]
pub enum Origin {
    /// In the issue itself: a proposal.
    Issue,
    /// In a comment: a `/summon` or `/team`.
    Comment {
        /// The comment's number.
        id: i64,
        /// SHA-256 of the comment's text, hex: whether it was edited since.
        sha256: String,
    },
    /// On the command line.
    Operator,
}

/// Somebody who decides, by number. The name is for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The account's number.
    pub id: i64,
    /// Its name when the record was made.
    pub login: String,
}

/// One request, as parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its number in the mission, from 1; never used again.
    pub number: u32,
    /// The cell that it would start.
    pub cell: CellId,
    /// Where it was written.
    pub origin: Origin,
    /// When it came to be, by the forge's own time and sequence.
    pub born: Moment,
    /// Who asks.
    pub asked_by: Actor,
    /// What is asked for, as it would run.
    pub spec: Spec,
    /// Who decides, where not any one director.
    pub council: Option<CouncilRule>,
    /// The accounts that the council's names meant when the record was made:
    /// names can change hands. Empty where every director counts.
    pub members: Vec<Member>,
    /// SHA-256 of the issue's text (title and body in normal form), hex.
    pub text: String,
    /// Votes so far.
    pub votes: Vec<Vote>,
}

impl DecisionRecord {
    /// SHA-256, hex, over everything that is decided on: what the bot shows, what
    /// the ledger holds and what an approval is for.
    pub fn sha256(&self, mission: &str) -> String {
        #[derive(Serialize)]
        struct Decided<'a> {
            mission: &'a str,
            number: u32,
            cell: &'a CellId,
            origin: &'a Origin,
            born: Moment,
            asked_by: &'a Actor,
            spec: &'a Spec,
            council: &'a Option<CouncilRule>,
            members: &'a [Member],
            text: &'a str,
        }
        let decided = Decided {
            mission,
            number: self.number,
            cell: &self.cell,
            origin: &self.origin,
            born: self.born,
            asked_by: &self.asked_by,
            spec: &self.spec,
            council: &self.council,
            members: &self.members,
            text: &self.text,
        };
        // Plain data with string keys: this cannot fail.
        let text = serde_json::to_string(&decided).unwrap_or_default();
        hex::encode(Sha256::digest(text))
    }

    /// The number of whoever asks; 0 for an operator.
    pub fn asker(&self) -> i64 {
        match &self.asked_by {
            Actor::Person { id, .. } => *id,
            _ => 0,
        }
    }
}

/// One approval that somebody gave, by comment, by label or on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approving {
    /// The account's number; 0 for an operator.
    pub id: i64,
    /// Its name.
    pub login: String,
    /// When it was given, on the forge; `None` on the command line, where it is
    /// given on what Lazarus knows at this moment.
    pub given: Option<Moment>,
    /// The record that is named, if one is.
    pub number: Option<u32>,
    /// Whether this person had been shown what an edit changed when they gave it
    /// ([`Mission::warned`]).
    pub seen: bool,
}

/// What somebody is shown before their word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concern {
    /// The text was edited a moment before.
    Edit,
    /// The page hides parts of the text.
    Hidden,
}

/// Somebody's word did not count before they had seen something. It counts when
/// they repeat it *after* the comment that shows it: a second line of the same
/// comment, or one that was on its way already, is no repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// Who, by account number.
    pub person: i64,
    /// What they are shown.
    pub of: Concern,
    /// The effect that writes the comment which shows it; `None` before it is made.
    #[serde(default)]
    pub by: Option<String>,
}

/// What an installation's policy says of approvals, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long after an edit an approval counts only when it is repeated.
    pub settle: i64,
    /// How long a council's vote counts.
    pub window: i64,
    /// Whether the proposer's own vote counts in a council.
    pub proposer_may_vote: bool,
}

/// What an approval comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is open.
    NothingOpen,
    /// Several are open and none was named.
    Several {
        /// Their numbers.
        open: Vec<u32>,
    },
    /// The named one is not open.
    NotOpen {
        /// The number that was named.
        number: u32,
        /// The numbers that are open.
        open: Vec<u32>,
    },
    /// The record is younger than the approval, which was for something else.
    BornLater {
        /// The record.
        number: u32,
    },
    /// The text was edited a moment before: say what changed, count a repeat.
    TooSoon {
        /// The record.
        number: u32,
    },
    /// It does not count.
    NotCounted {
        /// The record.
        number: u32,
        /// Why.
        why: String,
    },
    /// It counts; so many more are needed.
    Counted {
        /// The record.
        number: u32,
        /// Distinct people that are still needed.
        missing: usize,
    },
    /// It counts and is enough. The record is not open any more.
    Approved {
        /// The record, as it was shown.
        record: Box<DecisionRecord>,
        /// Everybody whose approval counts: number and name.
        by: Vec<(i64, String)>,
    },
}

impl Mission {
    /// The number for the next record.
    pub fn next_number(&mut self) -> u32 {
        self.last_record = self.last_record.saturating_add(1);
        self.last_record
    }

    /// The open record that was written in the issue itself.
    pub fn proposal(&self) -> Option<&DecisionRecord> {
        self.records.iter().find(|r| r.origin == Origin::Issue)
    }

    /// Takes an open record away: it is decided, void or withdrawn.
    pub fn take_record(&mut self, number: u32) -> Option<DecisionRecord> {
        let index = self.records.iter().position(|r| r.number == number)?;
        Some(self.records.remove(index))
    }

    /// Takes away every open record that an edit of the issue's text makes void:
    /// all of them, since each holds the hash of that text.
    pub fn void_by_edit(&mut self) -> Vec<DecisionRecord> {
        std::mem::take(&mut self.records)
    }

    /// Takes away the open records whose comment was edited or deleted.
    pub fn void_by_comment(&mut self, comment: i64) -> Vec<DecisionRecord> {
        let (void, open) = std::mem::take(&mut self.records)
            .into_iter()
            .partition(|r| matches!(r.origin, Origin::Comment { id, .. } if id == comment));
        self.records = open;
        void
    }

    /// Forgets the votes of people who lost the right to vote.
    pub fn forget_voters(&mut self, lost: &[i64]) {
        for record in &mut self.records {
            record.votes.retain(|v| !lost.contains(&v.id));
        }
    }

    /// Everybody whose vote is held, each once: to be looked up again before the
    /// next vote is counted.
    pub fn voters(&self) -> Vec<(i64, String)> {
        let mut voters: Vec<(i64, String)> = vec![];
        for vote in self.records.iter().flat_map(|r| &r.votes).filter(|v| v.id > 0) {
            if !voters.iter().any(|(id, _)| *id == vote.id) {
                voters.push((vote.id, vote.login.clone()));
            }
        }
        voters
    }

    /// Which open record an approval or a rejection is about.
    ///
    /// # Errors
    /// The verdict that says why it is about none.
    pub fn open_record(&self, number: Option<u32>) -> Result<&DecisionRecord, Verdict> {
        let open = || self.records.iter().map(|r| r.number).collect::<Vec<_>>();
        match (number, self.records.as_slice()) {
            (None, []) => Err(Verdict::NothingOpen),
            (None, [one]) => Ok(one),
            (None, _) => Err(Verdict::Several { open: open() }),
            (Some(number), records) => {
                records.iter().find(|r| r.number == number).ok_or_else(|| Verdict::NotOpen { number, open: open() })
            }
        }
    }

    /// Counts one approval by a director. That the person is a director now, and
    /// that every earlier voter still is ([`forget_voters`](Self::forget_voters)),
    /// was looked up before.
    ///
    /// `current` is the hash of the issue's text as the forge has it; `now` is our
    /// clock, for the window alone. Every comparison of what was first goes by
    /// the forge's own times and numbers.
    pub fn approve(&mut self, current: &str, approving: &Approving, rules: Rules, now: At) -> Verdict {
        let number = match self.open_record(approving.number) {
            Ok(record) => record.number,
            Err(verdict) => return verdict,
        };
        let edited_at = self.edited_at;
        let Some(index) = self.records.iter().position(|r| r.number == number) else { return Verdict::NothingOpen };
        let record = &mut self.records[index];
        if record.text != current {
            let why = "the issue's text is not the one of this request any more".to_owned();
            return Verdict::NotCounted { number, why };
        }
        if let Some(given) = approving.given {
            if !given.is_after(record.born) {
                return Verdict::BornLater { number };
            }
            if let Some(edited) = edited_at
                && given.at.0.saturating_sub(edited.0) < rules.settle
                && !approving.seen
            {
                return Verdict::TooSoon { number };
            }
        }
        let Some(council) = record.council.clone() else {
            let by = vec![(approving.id, approving.login.clone())];
            return self.approved(number, by);
        };
        if approving.id == record.asker() && !rules.proposer_may_vote {
            let why = "whoever asked does not vote in the council".to_owned();
            return Verdict::NotCounted { number, why };
        }
        if !council.members.is_empty() && !record.members.iter().any(|m| m.id == approving.id) {
            let why = format!("the council of this request is {}", council.members.join(", "));
            return Verdict::NotCounted { number, why };
        }
        // Votes outside the window do not count any more.
        record.votes.retain(|v| now.0.saturating_sub(v.at.0) <= rules.window);
        if !record.votes.iter().any(|v| v.id == approving.id) {
            record.votes.push(Vote { id: approving.id, login: approving.login.clone(), at: now });
        }
        if record.votes.len() >= council.votes {
            let by = record.votes.iter().map(|v| (v.id, v.login.clone())).collect();
            self.approved(number, by)
        } else {
            Verdict::Counted { number, missing: council.votes - record.votes.len() }
        }
    }

    /// A director's own `/summon` is request and approval in one. It counts unless
    /// the text was edited a moment before and this person had not `seen` how.
    pub fn settled_for(&self, given: Moment, settle: i64, seen: bool) -> bool {
        seen || self.edited_at.is_none_or(|edited| given.at.0.saturating_sub(edited.0) >= settle)
    }

    /// Notes that somebody is to be shown something before their word counts.
    pub fn warn(&mut self, person: i64, of: Concern) {
        self.warned.push(Warned { person, of, by: None });
    }

    /// Names the effect that shows what was noted since the last such effect.
    pub fn warned_by(&mut self, effect: &str) {
        for warned in self.warned.iter_mut().filter(|w| w.by.is_none()) {
            warned.by = Some(effect.to_owned());
        }
    }

    fn approved(&mut self, number: u32, by: Vec<(i64, String)>) -> Verdict {
        match self.take_record(number) {
            Some(record) => Verdict::Approved { record: Box::new(record), by },
            None => Verdict::NothingOpen,
        }
    }
}
