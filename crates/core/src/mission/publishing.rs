//! How the work of a cell leaves it: what of it may, what is tried, whether the log of the
//! cell's end waits for that, and who waits for what.
//!
//! [`Publishing`] is the state, one for each cell. Its methods are what can happen; what
//! they return is what has to be done about it. These always hold, and `tests/core` drives
//! random histories against them:
//!
//! - one push of a cell's work is under way at a time;
//! - a known secret is never in a push; what the forge would run by itself is in one only
//!   after a director released just what was shown;
//! - each closing of a cell has one log, and it is not written while a push is under way,
//!   but for the one that says that the push takes long;
//! - each operator who waits is answered once, and who waits for the end of a cell not
//!   before its work has left, or was refused.

use super::held::{Finding, Held};
use crate::cell::{Cell, State};
use serde::{Deserialize, Serialize};

/// What an operator's command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The cell runs, or will not.
    Active,
    /// The cell is closed and its work has left, or was refused.
    Closed,
    /// Its work has left.
    Published,
    /// Nothing of the cell is on disk any more.
    Scrubbed,
    /// A snapshot was taken, or failed.
    Snapshot,
    /// Something optional has left, or may not.
    FileLeft,
}

/// Where a cell's work went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedWork {
    /// The branch, where one was pushed.
    pub branch: Option<String>,
    /// Whether the first choice of a name was somebody else's.
    pub renamed: bool,
    /// Other branches.
    pub others: Vec<String>,
    /// The pull request: number, address.
    pub pull: Option<(i64, String)>,
    /// Why something of it is missing, in the forge's words.
    pub refused: Option<String>,
    /// The same of other branches: name, words.
    pub others_refused: Vec<(String, String)>,
    /// Commits that are on the forge now.
    pub commits: Vec<String>,
    /// What was found to be held when it was about to leave.
    pub held: Vec<Held>,
}

impl PublishedWork {
    /// Whether the forge refused something of it.
    pub fn lacks_something(&self) -> bool {
        self.refused.is_some() || !self.others_refused.is_empty()
    }
}

/// The work of a cell, as it was taken in: the commits by which its parts are found, and
/// what holds some of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work<'a> {
    /// The newest commit of the mission's own branch, where there is anything.
    pub tip: Option<&'a str>,
    /// The one below it, where `tip` is of what nobody committed: it can leave by itself.
    pub committed: Option<&'a str>,
    /// Whether `tip` is of what nobody committed.
    pub rest: bool,
    /// Other branches with work of their own: name, commit.
    pub branches: &'a [(String, String)],
    /// What may not leave, by its commit, and why.
    pub held: &'a [Held],
}

/// What a director decided about work that was not published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Commits that are tried: once more, or because they were released.
    pub tried: Vec<String>,
    /// Of these, what the forge would run by itself and may.
    pub released: Vec<String>,
}

/// What is to be pushed of a cell's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// What goes on the mission's own branch.
    pub tip: Option<String>,
    /// What goes on it where `tip` turns out to be held.
    pub instead: Option<String>,
    /// Other branches: their place among the work's, from 0, their name, their commit.
    pub others: Vec<(usize, String, String)>,
    /// Commits that a director released.
    pub released: Vec<String>,
}

impl Push {
    /// Every commit in it.
    pub fn commits(&self) -> impl Iterator<Item = &str> {
        let own = self.tip.iter().chain(&self.instead);
        own.chain(self.others.iter().map(|(_, _, commit)| commit)).map(String::as_str)
    }
}

impl Work<'_> {
    fn is_held(&self, commit: &str) -> bool {
        self.held.iter().any(|held| held.commit == commit)
    }

    /// What of it is pushed: whatever nothing holds, and what is tried although it was held.
    fn push(&self, release: &Release) -> Option<Push> {
        let tried = |commit: &&str| !self.is_held(commit) || release.tried.iter().any(|tried| tried == *commit);
        let push = Push {
            tip: self.tip.filter(tried).map(str::to_owned),
            instead: self.committed.filter(tried).map(str::to_owned),
            others: self
                .branches
                .iter()
                .enumerate()
                .filter(|(_, (_, commit))| tried(&commit.as_str()))
                .map(|(index, (name, commit))| (index, name.clone(), commit.clone()))
                .collect(),
            released: release.released.clone(),
        };
        let is_empty = push.commits().next().is_none();
        (!is_empty).then_some(push)
    }

    /// What a director lets go who asks for it: all but known secrets. A limit may be
    /// another by now, so what one holds is tried again.
    fn release(&self) -> Release {
        let mut release = Release::default();
        for held in self.held.iter().filter(|held| !held.has_secret()) {
            release.tried.push(held.commit.clone());
            if held.can_be_released() {
                release.released.push(held.commit.clone());
            }
        }
        release
    }

    /// What is held once a push came back: what left is not, and what was found to be held
    /// when it was about to leave is.
    fn held_after(&self, published: &PublishedWork) -> Vec<Held> {
        let left = |held: &Held| published.commits.contains(&held.commit);
        let anew = |held: &Held| published.held.iter().any(|now| now.commit == held.commit);
        let mut after: Vec<Held> = self.held.iter().filter(|held| !left(held) && !anew(held)).cloned().collect();
        for held in &published.held {
            let mut held = held.clone();
            // It knows no more of the branch than what it is pushed as.
            if let Some(before) = self.held.iter().find(|before| before.commit == held.commit) {
                held.branch.clone_from(&before.branch);
                held.rest = before.rest;
            } else if let Some((name, _)) = self.branches.iter().find(|(_, commit)| *commit == held.commit) {
                held.branch = Some(name.clone());
            } else {
                held.rest = self.rest && self.tip == Some(held.commit.as_str());
            }
            // A secret that was found once holds for good.
            let known = self.held.iter().filter(|known| known.commit == held.commit);
            let secrets = known.flat_map(|known| known.findings.iter().filter(|f| matches!(f, Finding::Secret { .. })));
            held.findings.extend(secrets.cloned());
            after.push(held);
        }
        after
    }
}

/// What follows when a cell is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// Its work is pushed. The log says where it went, so it waits for that.
    Push(Push),
    /// There is nothing to wait for: the log is written.
    Log,
}

/// What follows when a director asks for the work to be published again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It is tried.
    Push(Push),
    /// Something would be released that is other than what was shown.
    NotShown,
    /// Nothing of it can be released.
    Nothing,
}

/// Where something is said of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// In the log of the cell's end, which waited for it.
    InTheLog,
    /// In a comment of its own.
    ByItself,
}

/// Where the work of one cell stands on its way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Publishing {
    /// Where it went, once it was tried.
    published: Option<PublishedWork>,
    /// Whether the close log waits for that.
    #[serde(rename = "publishing")]
    log_waits: bool,
    /// Whether a push is under way. (Rows of an older Lazarus do not say.)
    pushing: bool,
    /// The comment in which people were told what is held, by its effect.
    held_shown: Option<String>,
    /// Operators' commands that wait for the cell to come so far.
    waiting: Vec<(String, Until)>,
}

impl Publishing {
    /// Where the work went, once it was tried.
    pub const fn published(&self) -> Option<&PublishedWork> {
        self.published.as_ref()
    }

    /// Whether the close log waits for a push.
    pub const fn log_waits(&self) -> bool {
        self.log_waits
    }

    /// The comment in which people were told what is held, by its effect.
    pub fn held_shown(&self) -> Option<&str> {
        self.held_shown.as_deref()
    }

    /// Work was taken in. What was published and shown before was of older work. (Nothing is
    /// taken in of a cell while a push of it is under way.)
    pub fn work_taken(&mut self) {
        self.published = None;
        self.held_shown = None;
        self.pushing = false;
    }

    /// The cell was closed, and this is its work.
    pub fn cell_closed(&mut self, work: Work<'_>) -> Closed {
        match work.push(&Release::default()) {
            Some(push) => {
                self.log_waits = true;
                self.pushing = true;
                Closed::Push(push)
            }
            None => {
                self.log_waits = false;
                Closed::Log
            }
        }
    }

    /// A checkpoint's work is to leave. `None`: nothing of it may.
    pub fn checkpoint_taken(&mut self, work: Work<'_>) -> Option<Push> {
        let push = work.push(&Release::default());
        self.pushing |= push.is_some();
        push
    }

    /// Whether something of the work has not left that may be tried again.
    pub fn can_be_tried_again(&self, work: Work<'_>) -> bool {
        let missing = !work.held.is_empty() || self.published.as_ref().is_some_and(PublishedWork::lacks_something);
        missing && !self.log_waits && !self.pushing
    }

    /// A director asks for the work to be published again. What the forge would run by itself
    /// goes with it, if it is just what was shown before that: `shown` says whether. A known
    /// secret never does.
    pub fn try_again(&mut self, work: Work<'_>, shown: bool) -> Again {
        if !self.can_be_tried_again(work) {
            return Again::Nothing;
        }
        let release = work.release();
        if !release.released.is_empty() && !shown {
            return Again::NotShown;
        }
        match work.push(&release) {
            Some(push) => {
                self.published = None;
                self.pushing = true;
                Again::Push(push)
            }
            None => Again::Nothing,
        }
    }

    /// A push came back. Returns where that is said, and what of the work is held now.
    pub fn push_ended(&mut self, work: Work<'_>, published: PublishedWork) -> (Said, Vec<Held>) {
        let held = work.held_after(&published);
        self.published = Some(published);
        self.pushing = false;
        (self.where_said(), held)
    }

    /// A push takes long. The close log does not wait for it any longer: what becomes of the
    /// work is said when it is known.
    pub fn push_takes_long(&mut self) -> Said {
        self.where_said()
    }

    fn where_said(&mut self) -> Said {
        if std::mem::take(&mut self.log_waits) { Said::InTheLog } else { Said::ByItself }
    }

    /// People are told what is held, by the comment of that effect.
    pub fn held_is_shown(&mut self, effect: Option<String>) {
        self.held_shown = effect;
    }

    /// Whether a command that would wait does not have to: the cell is there already.
    pub fn is_there(&self, until: Until, state: State) -> bool {
        match until {
            Until::Active => state == State::Active,
            Until::Closed => !state.is_live() && !self.log_waits,
            Until::Published | Until::Scrubbed | Until::Snapshot | Until::FileLeft => false,
        }
    }

    /// An operator's command waits.
    pub fn wait(&mut self, operation: String, until: Until) {
        self.waiting.push((operation, until));
    }

    /// The operators' commands whose cell has come to what they wait for, each with that and
    /// with whether it is a success. They wait no longer. `scrubbed`: nothing of the cell is
    /// on disk any more.
    pub fn arrived(&mut self, cell: &Cell, work: Work<'_>, scrubbed: bool) -> Vec<(String, Until, bool)> {
        let over = matches!(cell.state, State::Closed | State::Archived | State::Destroyed);
        let has_run = cell.started_at.is_some() && cell.state != State::Preparing;
        let published = self.published.is_some() && !self.log_waits;
        let log_waits = self.log_waits;
        let lacks = self.published.as_ref().is_some_and(PublishedWork::lacks_something) || !work.held.is_empty();
        let arrived = self.take_waiting(|until| match until {
            Until::Active => over || has_run,
            Until::Closed => over && !log_waits,
            Until::Published => published,
            // These are answered by what came of them, or never any more.
            Until::Snapshot => over,
            Until::Scrubbed | Until::FileLeft => scrubbed,
        });
        let success = |until| match until {
            Until::Active => !over,
            Until::Published => !lacks,
            Until::Snapshot | Until::FileLeft => false,
            Until::Closed | Until::Scrubbed => true,
        };
        arrived.into_iter().map(|(operation, until)| (operation, until, success(until))).collect()
    }

    /// The operators' commands that wait for one thing; they wait no longer.
    pub fn arrived_at(&mut self, what: Until) -> Vec<String> {
        self.take_waiting(|until| until == what).into_iter().map(|(operation, _)| operation).collect()
    }

    fn take_waiting(&mut self, arrived: impl Fn(Until) -> bool) -> Vec<(String, Until)> {
        let (taken, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, until)| arrived(*until));
        self.waiting = waiting;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_lazarus_kept_is_read() {
        let row = r#"{"published":{"branch":"lazarus/7-x","refused":"no"},"publishing":true,"held_shown":"e","waiting":[["o","closed"]]}"#;
        let kept: Publishing = serde_json::from_str(row).unwrap();
        assert!(kept.log_waits() && !kept.pushing);
        assert_eq!(kept.published().unwrap().branch.as_deref(), Some("lazarus/7-x"));
        assert_eq!((kept.held_shown(), kept.waiting.clone()), (Some("e"), vec![("o".to_owned(), Until::Closed)]));
        assert_eq!(serde_json::from_str::<Publishing>(&serde_json::to_string(&kept).unwrap()).unwrap(), kept);
        assert_eq!(serde_json::from_str::<Publishing>("{}").unwrap(), Publishing::default());
    }
}
