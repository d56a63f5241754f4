//! The way of a cell's work out of it, through random histories: taken in, pushed, held,
//! released, refused, slow, and people who wait for it.
//!
//! The world below does what the engine and the forge do: it pushes what it is told to, as
//! it comes, and writes the logs. [`Publishing`] decides. The effects of one cell are run
//! one after the other, so nothing else is taken in of it while a push is under way.

use crate::history::{cell_id, person, policy, settings, spec};
use lazarus_core::cell::{At, Cell, Input, State, decide, evolve};
use lazarus_core::mission::held::{Finding, Held, Place};
use lazarus_core::mission::publishing::{Again, Closed, PublishedWork, Publishing, Push, Said, Until, Work};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy)]
enum Act {
    /// A checkpoint's work is taken in, and is to leave.
    Checkpoint { work: u16 },
    /// The cell ends: its work is taken in, and it is closed.
    Close { work: u16 },
    /// The cell is brought back.
    Resurrect,
    /// A director asks for the work again, having seen what is held or not.
    Again { shown: bool, waits: bool },
    /// The push that is under way ends, for each commit in one of several ways.
    End { how: u16 },
    /// The push that is under way takes long.
    TakesLong,
    /// An operator waits for something.
    Wait { until: Until },
    /// An operator who waits for a snapshot or a file is answered.
    Answer { until: Until },
    /// Nothing of the cell is left.
    Scrub,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let until =
        || prop::sample::select(vec![Until::Active, Until::Closed, Until::Scrubbed, Until::Snapshot, Until::FileLeft]);
    let act = prop_oneof![
        2 => any::<u16>().prop_map(|work| Act::Checkpoint { work }),
        4 => any::<u16>().prop_map(|work| Act::Close { work }),
        1 => Just(Act::Resurrect),
        4 => any::<(bool, bool)>().prop_map(|(shown, waits)| Act::Again { shown, waits }),
        5 => any::<u16>().prop_map(|how| Act::End { how }),
        2 => Just(Act::TakesLong),
        3 => until().prop_map(|until| Act::Wait { until }),
        1 => until().prop_map(|until| Act::Answer { until }),
        1 => Just(Act::Scrub),
    ];
    prop::collection::vec(act, 1..60)
}

/// A cell's work, by the bits of a number: which parts there are, and what holds each.
#[derive(Debug, Default)]
struct Parts {
    tip: Option<String>,
    committed: Option<String>,
    branches: Vec<(String, String)>,
    held: Vec<Held>,
}

impl Parts {
    fn new(bits: u16, serial: u32) -> Self {
        let commit = |part: &str, bit: u16| (bits & (1 << bit) != 0).then(|| format!("{part}-{serial}"));
        let mut parts = Self { tip: commit("tip", 0), committed: commit("committed", 1), ..Self::default() };
        for (index, bit) in [2, 3].into_iter().enumerate() {
            parts.branches.extend(commit("branch", bit).map(|c| (format!("b{index}"), format!("{c}-{index}"))));
        }
        let all: Vec<String> = parts.commits().map(str::to_owned).collect();
        for (index, commit) in all.into_iter().enumerate() {
            let kind = (bits >> (4 + 2 * index)) & 3;
            parts.held.extend(finding(kind).map(|finding| held(&commit, finding)));
        }
        parts
    }

    fn commits(&self) -> impl Iterator<Item = &str> {
        let own = self.tip.iter().chain(&self.committed);
        own.chain(self.branches.iter().map(|(_, commit)| commit)).map(String::as_str)
    }

    fn work(&self) -> Work<'_> {
        Work {
            tip: self.tip.as_deref(),
            committed: self.committed.as_deref(),
            rest: self.committed.is_some(),
            branches: &self.branches,
            held: &self.held,
        }
    }
}

fn finding(kind: u16) -> Option<Finding> {
    let commit = "c0ffee".to_owned();
    match kind {
        1 => Some(Finding::Secret { name: "token".to_owned(), place: Place::File("a".to_owned()), commit }),
        2 => Some(Finding::RunsOnPush { paths: vec![".gitea/workflows/a.yml".to_owned()], commit }),
        3 => Some(Finding::Limit { words: "it is too large".to_owned() }),
        _ => None,
    }
}

fn held(commit: &str, finding: Finding) -> Held {
    Held { commit: commit.to_owned(), branch: None, rest: false, findings: vec![finding] }
}

struct World {
    publishing: Publishing,
    cell: Cell,
    parts: Parts,
    serial: u32,
    /// The push that is under way.
    push: Option<Push>,
    /// Logs of the newest closing.
    logs: u32,
    /// Whether the cell was closed since it last ran.
    closed: bool,
    /// Commits that hold a known secret.
    secret: BTreeSet<String>,
    waiting: BTreeMap<String, Until>,
    operations: u32,
}

impl World {
    fn new() -> Self {
        let propose = Input::Propose { id: cell_id(), mission: "1#1".to_owned(), spec: spec(1), policy: policy() };
        let (events, _) = decide(None, &propose, &person(0), At(0)).unwrap();
        let cell = events.iter().fold(None, |cell, event| evolve(cell, event, At(0))).unwrap();
        Self {
            publishing: Publishing::default(),
            cell: Cell { state: State::Active, started_at: Some(At(0)), ..cell },
            parts: Parts::default(),
            serial: 0,
            push: None,
            logs: 0,
            closed: false,
            secret: BTreeSet::new(),
            waiting: BTreeMap::new(),
            operations: 0,
        }
    }

    fn take(&mut self, bits: u16) {
        self.serial += 1;
        self.parts = Parts::new(bits, self.serial);
        self.note_secrets();
        self.publishing.work_taken();
    }

    fn note_secrets(&mut self) {
        self.secret.extend(self.parts.held.iter().filter(|h| h.has_secret()).map(|h| h.commit.clone()));
    }

    fn begin(&mut self, push: Push, shown: bool) {
        assert!(self.push.is_none(), "two pushes are under way");
        assert!(push.commits().next().is_some(), "a push of nothing");
        for commit in push.commits() {
            assert!(self.parts.commits().any(|part| part == commit), "{commit} is not of the newest work");
            assert!(!self.secret.contains(commit), "{commit} has a known secret");
            let runs = self.parts.held.iter().any(|h| h.commit == commit && h.can_be_released());
            assert!(!runs || (shown && push.released.iter().any(|r| r == commit)), "{commit} was not released");
        }
        self.push = Some(push);
    }

    fn log(&mut self) {
        assert!(self.closed, "a log of a cell that was not closed");
        self.logs += 1;
        assert_eq!(self.logs, 1, "one closing, one log");
    }

    fn wait(&mut self, until: Until) {
        self.operations += 1;
        let name = format!("operation-{}", self.operations);
        if !self.publishing.is_there(until, self.cell.state) {
            self.waiting.insert(name.clone(), until);
            self.publishing.wait(name, until);
        }
    }

    /// The engine looks who has waited long enough.
    fn answer(&mut self, scrubbed: bool) {
        for (operation, until, success) in self.publishing.arrived(&self.cell, self.parts.work(), scrubbed) {
            assert_eq!(self.waiting.remove(&operation), Some(until), "{operation} is answered once");
            let over = !self.cell.state.is_live();
            match until {
                Until::Closed => {
                    assert!(over && self.logs == 1, "{operation} waits for a cell that is not done");
                    assert!(success);
                }
                Until::Published => {
                    let published = self.publishing.published().expect("it was tried");
                    assert_eq!(success, !published.lacks_something() && self.parts.held.is_empty());
                }
                Until::Active => assert_eq!(success, !over),
                Until::Snapshot => assert!(over && !success),
                Until::Scrubbed | Until::FileLeft => assert!(scrubbed),
            }
        }
    }

    fn ended(push: &Push, how: u16) -> PublishedWork {
        let mut published = PublishedWork::default();
        for (index, commit) in push.commits().enumerate() {
            match (how >> (2 * index)) & 3 {
                0 => published.commits.push(commit.to_owned()),
                1 => published.refused = Some("the branch is protected".to_owned()),
                2 => published.held.extend(finding(1).map(|found| held(commit, found))),
                _ if push.released.iter().any(|released| released == commit) => {
                    published.commits.push(commit.to_owned());
                }
                _ => published.held.extend(finding(2).map(|found| held(commit, found))),
            }
        }
        published
    }

    fn end(&mut self, how: u16) {
        let Some(push) = self.push.take() else { return };
        let published = Self::ended(&push, how);
        let left = published.commits.clone();
        let (said, held) = self.publishing.push_ended(self.parts.work(), published);
        self.parts.held = held;
        self.note_secrets();
        assert!(self.parts.held.iter().all(|held| !left.contains(&held.commit)), "what left is not held");
        if said == Said::InTheLog {
            self.log();
        }
        self.answer(false);
        let lacks = self.publishing.published().is_some_and(PublishedWork::lacks_something);
        if self.parts.held.is_empty() && !lacks {
            assert!(!self.publishing.can_be_tried_again(self.parts.work()), "all of it has left");
        }
    }

    fn act(&mut self, act: Act) {
        let idle = self.push.is_none();
        match act {
            Act::Checkpoint { work } if idle && self.cell.state == State::Active => {
                self.take(work);
                if let Some(push) = self.publishing.checkpoint_taken(self.parts.work()) {
                    self.begin(push, false);
                }
            }
            Act::Close { work } if idle && self.cell.state == State::Active => {
                self.take(work);
                self.cell.state = State::Closed;
                (self.closed, self.logs) = (true, 0);
                match self.publishing.cell_closed(self.parts.work()) {
                    Closed::Push(push) => self.begin(push, false),
                    Closed::Log => self.log(),
                }
                self.answer(false);
            }
            Act::Resurrect if idle && self.cell.state == State::Closed => {
                self.cell.state = State::Active;
                (self.closed, self.logs) = (false, 0);
                self.answer(false);
            }
            Act::Again { shown, waits } if self.cell.state != State::Destroyed => {
                let again = self.publishing.try_again(self.parts.work(), shown);
                match again {
                    Again::Push(push) => {
                        assert!(idle, "it is under way already");
                        self.begin(push, shown);
                        if waits {
                            self.wait(Until::Published);
                        }
                    }
                    Again::NotShown => assert!(!shown && idle),
                    Again::Nothing => {}
                }
            }
            Act::End { how } => self.end(how),
            Act::TakesLong if !idle => {
                if self.publishing.push_takes_long() == Said::InTheLog {
                    self.log();
                }
                self.answer(false);
            }
            Act::Wait { until } => self.wait(until),
            Act::Answer { until: until @ (Until::Snapshot | Until::FileLeft) } => {
                for operation in self.publishing.arrived_at(until) {
                    assert_eq!(self.waiting.remove(&operation), Some(until), "{operation} is answered once");
                }
            }
            Act::Scrub if idle && self.cell.state == State::Closed => {
                self.cell.state = State::Destroyed;
                self.answer(true);
            }
            _ => {}
        }
        if self.closed && self.push.is_none() {
            assert_eq!(self.logs, 1, "nothing is under way, and the closing has no log");
        }
        // What is stored is all there is: a daemon that starts anew goes on from here.
        let stored = serde_json::to_string(&self.publishing).unwrap();
        assert_eq!(serde_json::from_str::<Publishing>(&stored).unwrap(), self.publishing);
    }
}

proptest! {
    #![proptest_config(settings("proptest-regressions/core-publishing.txt"))]

    #[test]
    fn work_leaves_once_at_a_time_with_one_log_a_closing_and_an_answer_to_everybody(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        // In the end everything is done, and nobody waits any more.
        world.end(0);
        if world.cell.state == State::Active {
            world.act(Act::Close { work: 0 });
        }
        world.act(Act::Scrub);
        world.answer(true);
        prop_assert!(world.waiting.is_empty(), "{:?} wait for ever", world.waiting);
    }
}

#[test]
fn a_push_that_is_under_way_is_not_begun_again() {
    let mut world = World::new();
    // One part, which the forge would run by itself.
    world.act(Act::Close { work: 1 | (2 << 4) });
    world.act(Act::Again { shown: true, waits: false });
    assert!(world.push.is_some());
    assert_eq!(world.publishing.try_again(world.parts.work(), true), Again::Nothing);
    world.act(Act::End { how: 0 });
    assert_eq!(world.publishing.try_again(world.parts.work(), true), Again::Nothing, "it has left");
}
