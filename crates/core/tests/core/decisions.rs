//! Decision records through random histories: requests, edits, labels, late and
//! doubled approvals, demotions (contract §6, threats 13, 15, 35 and 36).
//!
//! The world below is a forge with one issue and a few people, as simple as can be.
//! It does what people and the forge do; [`Mission`] decides. Whatever the history,
//! nothing runs that its directors did not see in exactly that form, after it was
//! born, once.

use crate::history::{HOUR, SECOND, cell_id, settings, spec};
use lazarus_core::cell::{Actor, At, Spec};
use lazarus_core::mission::{
    ApprovedText, Approving, CouncilRule, DecisionRecord, Member, Mission, Moment, Origin, Rules, Verdict,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// How long after an edit an approval counts only when repeated.
const SETTLE: i64 = 30 * SECOND;
/// How long a vote counts.
const WINDOW: i64 = 24 * HOUR;
const BEGIN: i64 = 1_700_000_000_000;
/// Who may be a director; two are one account under two names.
const PEOPLE: [(i64, &str); 6] = [(7, "ada"), (8, "bob"), (9, "eve"), (4, "reader"), (7, "countess"), (8, "BOB")];
const PROPOSER: i64 = 4;
const BODIES: [&str; 4] = ["Do the work.\n", "Do the work.\r\n", "Do other work.", "Do the work. And this."];

#[derive(Debug, Clone)]
enum Act {
    /// The issue's text becomes that one.
    Edit { body: usize, gap: i64 },
    /// Somebody asks for a cell in a comment.
    Ask { who: usize, task: u8, gap: i64 },
    /// The comment of the `which`-th request that there ever was is edited.
    EditComment { which: usize },
    /// A comment or a label approves, given now.
    Approve { who: usize, named: Option<u32>, gap: i64, heard_after: i64 },
    /// An approval that was given before is heard of again.
    Again { which: usize },
    /// An approval that was given at some time before is heard of only now.
    Late { who: usize, back: i64, named: Option<u32> },
    /// Somebody is no director any more.
    Demote { who: usize },
    /// Somebody is one again.
    Promote { who: usize },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let gap = || prop_oneof![4 => 0..20 * SECOND, 4 => 0..2 * HOUR, 1 => 20 * HOUR..30 * HOUR];
    let who = || 0..PEOPLE.len();
    let named = || prop::option::weighted(0.4, 1u32..6);
    let act = prop_oneof![
        2 => (0..BODIES.len(), gap()).prop_map(|(body, gap)| Act::Edit { body, gap }),
        2 => (who(), any::<u8>(), gap()).prop_map(|(who, task, gap)| Act::Ask { who, task, gap }),
        1 => (0usize..5).prop_map(|which| Act::EditComment { which }),
        6 => (who(), named(), gap(), 0..180 * SECOND)
            .prop_map(|(who, named, gap, heard_after)| Act::Approve { who, named, gap, heard_after }),
        1 => (0usize..10).prop_map(|which| Act::Again { which }),
        2 => (who(), 0..3 * HOUR, named()).prop_map(|(who, back, named)| Act::Late { who, back, named }),
        1 => who().prop_map(|who| Act::Demote { who }),
        1 => who().prop_map(|who| Act::Promote { who }),
    ];
    prop::collection::vec(act, 1..40)
}

fn council() -> impl Strategy<Value = Option<CouncilRule>> {
    let members =
        prop::sample::select(vec![vec![], vec!["ada", "bob", "eve"], vec!["Ada", "bob", "reader", "countess"]]);
    prop::option::weighted(
        0.6,
        (1usize..=3, members).prop_map(|(votes, members)| CouncilRule {
            votes,
            members: members.into_iter().map(str::to_owned).collect(),
        }),
    )
}

/// A cell that started.
#[derive(Debug)]
struct Ran {
    record: DecisionRecord,
    by: Vec<(i64, String)>,
    last: Approving,
    /// Whose votes were cast on this record, and when we counted them.
    votes: BTreeMap<i64, i64>,
}

/// The forge, its people and Lazarus's side.
struct World {
    now: i64,
    next_id: i64,
    mission: Mission,
    council: Option<CouncilRule>,
    directors: BTreeSet<i64>,
    /// What was shown to the directors, by number: exactly as it was made.
    shown: BTreeMap<u32, DecisionRecord>,
    /// Requests by comment, and whether the comment is as it was.
    comments: Vec<(i64, u32, bool)>,
    /// Texts that the issue had, with when it got them.
    texts: Vec<(At, String)>,
    given: Vec<Approving>,
    /// Who was shown what an edit of the present text changed, and in which comment.
    warned: Vec<(i64, i64)>,
    counted: BTreeMap<u32, BTreeMap<i64, i64>>,
    ran: Vec<Ran>,
    proposer_may_vote: bool,
}

fn text(body: usize) -> ApprovedText {
    ApprovedText::new("A mission", BODIES[body])
}

fn mission(text: &ApprovedText) -> Mission {
    Mission {
        repo_id: 1,
        owner: "acme".into(),
        repo: "widget".into(),
        issue_id: 1,
        number: 1,
        author: PROPOSER,
        author_login: "reader".into(),
        open: true,
        text: text.hash.clone(),
        is_proposal: true,
        ..Mission::default()
    }
}

impl World {
    fn new(council: Option<CouncilRule>, proposer_may_vote: bool) -> Self {
        let first = text(0);
        let mut world = Self {
            now: BEGIN,
            next_id: 100,
            mission: mission(&first),
            council,
            directors: PEOPLE.iter().map(|(id, _)| *id).collect(),
            shown: BTreeMap::new(),
            comments: vec![],
            texts: vec![(At(BEGIN), first.hash)],
            given: vec![],
            warned: vec![],
            counted: BTreeMap::new(),
            ran: vec![],
            proposer_may_vote,
        };
        world.propose();
        world
    }

    fn id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    /// The forge's clock shows whole seconds.
    fn second(&self) -> At {
        At(self.now / 1000 * 1000)
    }

    fn put(&mut self, origin: Origin, born: Moment, by: (i64, &str), spec: Spec, council: Option<CouncilRule>) -> u32 {
        let members = council.iter().flat_map(|c| &c.members).map(|name| {
            let (id, _) = PEOPLE.iter().find(|(_, p)| p.eq_ignore_ascii_case(name)).unwrap();
            Member { id: *id, login: name.clone() }
        });
        let record = DecisionRecord {
            number: self.mission.next_number(),
            cell: cell_id(),
            origin,
            born,
            asked_by: Actor::Person { id: by.0, login: by.1.to_owned() },
            spec,
            members: members.collect(),
            council,
            text: self.mission.text.clone(),
            votes: vec![],
        };
        let number = record.number;
        self.shown.insert(number, record.clone());
        self.mission.records.push(record);
        number
    }

    fn propose(&mut self) {
        let born = Moment { at: self.second(), id: None };
        self.put(Origin::Issue, born, (PROPOSER, "reader"), spec(1), self.council.clone());
    }

    fn approve(&mut self, approving: &Approving) {
        // The forge is asked about whoever approves, and about earlier voters.
        if !self.directors.contains(&approving.id) {
            return;
        }
        let lost: Vec<i64> =
            self.mission.voters().into_iter().map(|(id, _)| id).filter(|id| !self.directors.contains(id)).collect();
        self.mission.forget_voters(&lost);
        for votes in self.counted.values_mut() {
            votes.retain(|id, _| !lost.contains(id));
        }
        let rules = Rules { settle: SETTLE, window: WINDOW, proposer_may_vote: self.proposer_may_vote };
        let current = self.mission.text.clone();
        let now = self.now;
        let counted = &mut self.counted;
        let mut note = |number: u32| {
            let votes = counted.entry(number).or_default();
            if votes.get(&approving.id).is_none_or(|at| now - at > WINDOW) {
                votes.insert(approving.id, now);
            }
            votes.retain(|_, at| now - *at <= WINDOW);
            votes.clone()
        };
        let given = approving.given.and_then(|given| given.id).unwrap_or_default();
        let seen = self.warned.iter().any(|(person, shown)| *person == approving.id && given > *shown);
        let approving = &Approving { seen, ..approving.clone() };
        match self.mission.approve(&current, approving, rules, At(self.now)) {
            Verdict::TooSoon { .. } => {
                let shown = self.id();
                self.warned.push((approving.id, shown));
            }
            Verdict::Counted { number, missing } => {
                let votes = note(number);
                let asked = self.shown[&number].council.as_ref().expect("one director is enough without a council");
                assert_eq!(missing + votes.len(), asked.votes, "so many are missing");
                assert!(missing > 0);
            }
            Verdict::Approved { record, by } => {
                let votes = note(record.number);
                self.ran.push(Ran { record: *record, by, last: approving.clone(), votes });
            }
            _ => {}
        }
    }

    fn play(&mut self, acts: &[Act]) {
        for act in acts {
            match act {
                Act::Edit { body, gap } => {
                    self.now += gap;
                    let next = text(*body);
                    if next.hash == self.mission.text {
                        continue;
                    }
                    self.mission.text.clone_from(&next.hash);
                    self.mission.edited_at = Some(self.second());
                    self.texts.push((self.second(), next.hash));
                    self.mission.void_by_edit();
                    self.warned.clear();
                    self.propose();
                }
                Act::Ask { who, task, gap } => {
                    self.now += gap;
                    let comment = self.id();
                    let born = Moment { at: self.second(), id: Some(comment) };
                    let spec = Spec { task: Some(format!("task {task}")), ..spec(1) };
                    let origin = Origin::Comment { id: comment, sha256: format!("{task}") };
                    let number = self.put(origin, born, PEOPLE[*who], spec, None);
                    self.comments.push((comment, number, true));
                }
                Act::EditComment { which } => {
                    if let Some(comment) = self.comments.get_mut(*which) {
                        comment.2 = false;
                        self.mission.void_by_comment(comment.0);
                    }
                }
                Act::Approve { who, named, gap, heard_after } => {
                    self.now += gap;
                    let (id, login) = PEOPLE[*who];
                    let given = Some(Moment { at: self.second(), id: Some(self.id()) });
                    self.now += heard_after;
                    let approving = Approving { id, login: login.to_owned(), given, number: *named, seen: false };
                    self.given.push(approving.clone());
                    self.approve(&approving);
                }
                Act::Again { which } => {
                    if let Some(approving) = self.given.get(*which).cloned() {
                        self.approve(&approving);
                    }
                }
                Act::Late { who, back, named } => {
                    let (id, login) = PEOPLE[*who];
                    let at = At((self.now - back) / 1000 * 1000);
                    // Its number is from then as well: smaller than whatever came since.
                    let given = Some(Moment { at, id: Some(1) });
                    self.approve(&Approving { id, login: login.to_owned(), given, number: *named, seen: false });
                }
                Act::Demote { who } => {
                    self.directors.remove(&PEOPLE[*who].0);
                }
                Act::Promote { who } => {
                    self.directors.insert(PEOPLE[*who].0);
                }
            }
        }
    }
}

fn play(council: Option<CouncilRule>, acts: &[Act], proposer_may_vote: bool) -> World {
    let mut world = World::new(council, proposer_may_vote);
    world.play(acts);
    world
}

proptest! {
    #![proptest_config(settings("proptest-regressions/core-decisions.txt"))]

    #[test]
    fn threat_36_what_runs_was_shown_to_its_directors_in_exactly_that_form(
        council in council(), acts in acts(), proposer_may in any::<bool>(),
    ) {
        let world = play(council, &acts, proposer_may);
        for ran in &world.ran {
            let shown = &world.shown[&ran.record.number];
            prop_assert_eq!(ran.record.sha256("1#1"), shown.sha256("1#1"));
            prop_assert_eq!(&ran.record.spec, &shown.spec);
            prop_assert_eq!(&ran.record.text, &shown.text);
        }
    }

    #[test]
    fn threat_35_an_approval_is_for_a_record_that_was_born_before_it(
        council in council(), acts in acts(), proposer_may in any::<bool>(),
    ) {
        for ran in &play(council, &acts, proposer_may).ran {
            let given = ran.last.given.expect("everybody here approves on the forge");
            prop_assert!(given.at >= ran.record.born.at, "given {given:?}, born {:?}", ran.record.born);
            if let (Some(given), Some(born)) = (given.id, ran.record.born.id) {
                prop_assert!(given > born);
            }
        }
    }

    #[test]
    fn nothing_runs_twice_and_nothing_void_runs(council in council(), acts in acts(), proposer_may in any::<bool>()) {
        let world = play(council, &acts, proposer_may);
        let mut numbers = BTreeSet::new();
        for ran in &world.ran {
            prop_assert!(numbers.insert(ran.record.number), "request {} ran twice", ran.record.number);
        }
        // Whatever is open is as it was shown, for the text that the issue has, and its
        // comment is as it was.
        for open in &world.mission.records {
            prop_assert_eq!(&open.text, &world.mission.text);
            let edited = world.comments.iter().any(|(_, number, same)| *number == open.number && !same);
            prop_assert!(!edited, "request {} is void", open.number);
        }
    }

    #[test]
    fn threat_13_nothing_runs_on_an_approval_within_the_settling_time_that_was_not_repeated(
        council in council(), acts in acts(), proposer_may in any::<bool>(),
    ) {
        let world = play(council, &acts, proposer_may);
        for ran in &world.ran {
            let given = ran.last.given.unwrap().at;
            let edit = world.texts.iter().skip(1).rev().find(|(at, hash)| *at <= given && *hash == ran.record.text);
            if let Some((edited, _)) = edit {
                prop_assert!(ran.last.seen || given.0 - edited.0 >= SETTLE, "{} ms after the edit", given.0 - edited.0);
            }
        }
    }

    #[test]
    fn threat_15_a_council_is_so_many_distinct_directors_within_the_window(
        council in council(), acts in acts(), proposer_may in any::<bool>(),
    ) {
        for ran in &play(council, &acts, proposer_may).ran {
            let people: BTreeSet<i64> = ran.by.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(people.len(), ran.by.len(), "a person counts once: {:?}", &ran.by);
            prop_assert!(people.contains(&ran.last.id), "who made it enough is among them");
            let Some(rule) = &ran.record.council else {
                prop_assert_eq!(ran.by.len(), 1);
                continue;
            };
            prop_assert!(people.len() >= rule.votes, "{} of {}", people.len(), rule.votes);
            // Every one of them is a director now, voted on this record, and not long ago.
            prop_assert_eq!(&people, &ran.votes.keys().copied().collect::<BTreeSet<_>>());
            prop_assert!(proposer_may || !people.contains(&PROPOSER), "the proposer counted");
            for id in &people {
                prop_assert!(
                    rule.members.is_empty() || ran.record.members.iter().any(|m| m.id == *id),
                    "{id} is no member"
                );
            }
        }
    }

    #[test]
    fn threat_35_where_several_are_open_one_has_to_be_named(
        acts in acts(), tasks in prop::collection::vec(any::<u8>(), 1..4),
    ) {
        let mut world = World::new(None, false);
        world.play(&acts);
        for task in tasks {
            world.play(&[Act::Ask { who: 1, task, gap: 60 * SECOND }]);
        }
        let open = world.mission.records.len();
        let ran = world.ran.len();
        world.directors.insert(7);
        world.play(&[Act::Approve { who: 0, named: None, gap: HOUR, heard_after: 0 }]);
        prop_assert_eq!(world.ran.len() > ran, open == 1, "{} were open", open);
    }

    #[test]
    fn white_space_at_the_end_and_line_ends_are_all_that_two_equal_texts_may_differ_in(
        a in "[a-c \r\n]{0,8}", b in "[a-c \r\n]{0,8}",
    ) {
        let plain = |t: &str| t.replace("\r\n", "\n").replace('\r', "\n").trim_end().to_owned();
        let (x, y) = (ApprovedText::new(&a, &b), ApprovedText::new(&b, &a));
        prop_assert_eq!(x.hash == y.hash, plain(&a) == plain(&b));
        let again = ApprovedText::new(&x.title, &x.body);
        prop_assert_eq!(again, x, "what is normal stays so");
    }

    /// Whatever is read as a council can decide: enough people are in it.
    #[test]
    fn a_council_that_is_read_can_come_to_a_decision(words in "[0-3]{0,2} ?(of )?[ab, @A0-9]{0,8}( directors)?|[1-3] of (ada|Ada|bob|@bob)([ ,+](ada|bob|eve)){0,3}") {
        if let Ok(Some(rule)) = CouncilRule::parse(&words) {
            prop_assert!(rule.votes >= 1);
            let people: BTreeSet<String> = rule.members.iter().map(|m| m.to_ascii_lowercase()).collect();
            prop_assert!(
                rule.members.is_empty() || people.len() >= rule.votes,
                "{:?} asks {} votes of {:?}", words, rule.votes, rule.members
            );
        }
    }

    #[test]
    fn no_text_and_no_time_makes_an_approval_panic(
        words in any::<String>(), given in any::<i64>(), edited in any::<i64>(), now in any::<i64>(), born in any::<i64>(),
    ) {
        let mut world = World::new(CouncilRule::parse(&words).ok().flatten().filter(|c| c.members.is_empty()), false);
        world.mission.edited_at = Some(At(edited));
        world.mission.records[0].born.at = At(born);
        let rules = Rules { settle: SETTLE, window: WINDOW, proposer_may_vote: false };
        for _ in 0..2 {
            let given = Some(Moment { at: At(given), id: None });
            let approving = Approving { id: 7, login: "ada".into(), given, number: None, seen: false };
            let current = world.mission.text.clone();
            let _ = world.mission.approve(&current, &approving, rules, At(now));
        }
    }
}
