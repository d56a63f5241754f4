//! Approvals and councils through random sequences of votes and edits
//! (contract §6, threats 13 and 15).

use crate::history::{HOUR, SECOND, cell_id, settings};
use lazarus::cell::At;
use lazarus::mission::{ApprovedText, Ballot, CouncilRule, Mission, Verdict, vote};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// How long after an edit an approval counts only when repeated.
const SETTLE: i64 = 30 * SECOND;
/// How long a vote counts.
const WINDOW: i64 = 24 * HOUR;
const PROPOSER: i64 = 4;
const BEGIN: At = At(1_700_000_000_000);

/// The first two texts are one, as the forge may give it.
const BODIES: [&str; 4] = ["Do the work.\n", "Do the work.\r\n", "Do other work.", "Do the work. And this."];
/// Two of these are one account that was renamed; two differ in case.
const PEOPLE: [(i64, &str); 6] =
    [(7, "ada"), (8, "bob"), (9, "eve"), (PROPOSER, "reader"), (7, "countess"), (8, "BOB")];

#[derive(Debug, Clone)]
enum Act {
    /// The issue's text becomes that one, after so long.
    Edit { body: usize, gap: i64 },
    /// The accounts of the council's members are found.
    Found,
    /// Somebody approves what they read: the newest text, or an older one.
    Vote { who: usize, read: Option<usize>, gap: i64, heard_after: i64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let gap = || prop_oneof![4 => 0..20 * SECOND, 4 => 0..2 * HOUR, 1 => 20 * HOUR..30 * HOUR];
    let act = prop_oneof![
        1 => Just(Act::Found),
        1 => (0..BODIES.len(), gap()).prop_map(|(body, gap)| Act::Edit { body, gap }),
        4 => (0..PEOPLE.len(), prop::option::weighted(0.2, 0..BODIES.len()), gap(), 0..MINUTES)
            .prop_map(|(who, read, gap, heard_after)| Act::Vote { who, read, gap, heard_after }),
    ];
    prop::collection::vec(act, 1..30)
}
/// Whatever a forge can write as a time: the years -9999 to 9999, in milliseconds.
fn any_time() -> impl Strategy<Value = i64> {
    -377_705_023_201_000i64..=253_402_207_200_999
}

/// How late a vote may be heard of.
const MINUTES: i64 = 3 * 60 * SECOND;

fn rule() -> impl Strategy<Value = Option<CouncilRule>> {
    let members =
        prop::sample::select(vec![vec![], vec!["ada", "bob", "eve"], vec!["Ada", "bob", "reader", "countess"]]);
    prop::option::weighted(
        0.8,
        (1usize..=3, members).prop_map(|(votes, members)| CouncilRule {
            votes,
            members: members.into_iter().map(str::to_owned).collect(),
        }),
    )
}

fn ballot(text: &ApprovedText, council: Option<CouncilRule>) -> Ballot {
    Ballot {
        cell: cell_id(),
        text: text.hash.clone(),
        proposer: PROPOSER,
        council,
        members: None,
        votes: vec![],
        warned: vec![],
        request: false,
    }
}

fn mission(text: &ApprovedText, council: Option<CouncilRule>) -> Mission {
    Mission {
        repo_id: 1,
        owner: "acme".into(),
        repo: "widget".into(),
        issue_id: 1,
        number: 1,
        author: PROPOSER,
        author_login: "reader".into(),
        open: true,
        deleted: false,
        text: text.hash.clone(),
        seen_at: 0,
        first_polled: None,
        edited_at: None,
        text_before: None,
        is_proposal: true,
        complained_of: None,
        ballot: Some(ballot(text, council)),
        cells: vec![],
        label_event: 0,
        smuggled_label: false,
        summons_warned: vec![],
        shown_state: None,
    }
}

fn text(body: usize) -> ApprovedText {
    ApprovedText::new("A mission", BODIES[body])
}

/// Whom these names meant when the council was looked up.
fn accounts(names: &[String]) -> Vec<i64> {
    names.iter().map(|n| PEOPLE.iter().find(|(_, p)| p.eq_ignore_ascii_case(n)).unwrap().0).collect()
}

/// One vote that was cast, and what it came to.
struct Cast {
    id: i64,
    login: &'static str,
    /// When the person gave it, and when it was heard.
    given_at: At,
    now: At,
    read: ApprovedText,
    verdict: Verdict,
}

/// Everything that happened to one text: a round begins anew with each edit,
/// as the engine begins a new ballot.
struct Round {
    text: ApprovedText,
    edited_at: Option<At>,
    casts: Vec<Cast>,
}

/// Plays the acts. With `new_ballots` an edit puts a new ballot before the
/// directors, as the engine does with a proposal that can be read; without, the
/// old one stays, as if the edit had been heard and not yet considered.
fn play(rule: Option<&CouncilRule>, acts: &[Act], proposer_may: bool, new_ballots: bool) -> Vec<Round> {
    let mut now = BEGIN;
    let mut current = text(0);
    let mut mission = mission(&current, rule.cloned());
    let mut rounds = vec![Round { text: current.clone(), edited_at: None, casts: vec![] }];
    for act in acts {
        match act {
            Act::Edit { body, gap } => {
                now = now.plus(*gap);
                let next = text(*body);
                if next.hash == current.hash {
                    continue;
                }
                current = next;
                mission.text.clone_from(&current.hash);
                mission.edited_at = Some(now);
                if new_ballots {
                    mission.ballot = Some(ballot(&current, rule.cloned()));
                }
                rounds.push(Round { text: current.clone(), edited_at: Some(now), casts: vec![] });
            }
            Act::Found => {
                let named = rule.map_or(&[][..], |r| &r.members);
                mission.ballot.as_mut().unwrap().members = Some(accounts(named));
            }
            Act::Vote { who, read, gap, heard_after } => {
                let given_at = now.plus(*gap);
                now = given_at.plus(*heard_after);
                let (id, login) = PEOPLE[*who];
                let read = read.map_or_else(|| current.clone(), text);
                let verdict = vote(&mut mission, &read, (id, login), given_at, now, SETTLE, WINDOW, proposer_may);
                rounds.last_mut().unwrap().casts.push(Cast { id, login, given_at, now, read, verdict });
            }
        }
    }
    rounds
}

/// Who approved, and everything cast up to and with that vote.
fn approvals(round: &Round) -> impl Iterator<Item = (&Cast, &[(i64, String)], &[Cast])> {
    round.casts.iter().enumerate().filter_map(|(n, cast)| match &cast.verdict {
        Verdict::Approved { by } => Some((cast, by.as_slice(), &round.casts[..=n])),
        _ => None,
    })
}

/// How many distinct people's votes count at that moment, reckoned in another
/// way than the code does: from all votes of the round that counted.
fn counting(casts: &[Cast], now: At) -> BTreeSet<i64> {
    // The vote that counts is a person's first; a later one while it stands changes nothing.
    let mut since: BTreeMap<i64, At> = BTreeMap::new();
    for cast in casts {
        if matches!(cast.verdict, Verdict::Counted { .. } | Verdict::Approved { .. }) {
            let held = since.get(&cast.id).is_some_and(|at| cast.now.0 - at.0 <= WINDOW);
            if !held {
                since.insert(cast.id, cast.now);
            }
        }
    }
    since.into_iter().filter(|(_, at)| now.0 - at.0 <= WINDOW).map(|(id, _)| id).collect()
}

proptest! {
    #![proptest_config(settings("proptest-regressions/core-council.txt"))]

    #[test]
    fn threat_15_a_council_is_so_many_distinct_people_within_the_window(
        rule in rule(), acts in acts(), proposer_may in any::<bool>(),
    ) {
        for round in play(rule.as_ref(), &acts, proposer_may, true) {
            for (cast, by, so_far) in approvals(&round) {
                let people: BTreeSet<i64> = by.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!(people.len(), by.len(), "a person counts once: {:?}", by);
                prop_assert!(people.contains(&cast.id), "who made it enough is among them");
                let Some(rule) = &rule else {
                    prop_assert_eq!(by.len(), 1);
                    continue;
                };
                prop_assert!(people.len() >= rule.votes, "{} of {}", people.len(), rule.votes);
                prop_assert_eq!(&people, &counting(so_far, cast.now));
                prop_assert!(proposer_may || !people.contains(&PROPOSER), "the proposer counted");
                for (id, login) in by {
                    prop_assert!(so_far.iter().any(|c| c.id == *id && c.login == login), "{} never voted", login);
                    prop_assert!(
                        rule.members.is_empty() || accounts(&rule.members).contains(id),
                        "{} is no member", login
                    );
                }
            }
        }
    }

    #[test]
    fn threat_09_a_council_counts_accounts_whatever_they_are_called_now(rule in rule(), acts in acts()) {
        let members = rule.as_ref().map(|r| accounts(&r.members)).unwrap_or_default();
        for round in play(rule.as_ref(), &acts, true, true) {
            for cast in round.casts {
                let counted = matches!(cast.verdict, Verdict::Approved { .. } | Verdict::Counted { .. });
                prop_assert!(!counted || members.is_empty() || members.contains(&cast.id), "{} counted", cast.login);
            }
        }
    }

    #[test]
    fn threat_15_a_vote_says_truly_how_many_are_missing(rule in rule(), acts in acts()) {
        for round in play(rule.as_ref(), &acts, false, true) {
            for (n, cast) in round.casts.iter().enumerate() {
                let Verdict::Counted { missing } = cast.verdict else { continue };
                let rule = rule.as_ref().expect("without a council one approval is enough");
                let there = counting(&round.casts[..=n], cast.now);
                prop_assert_eq!(missing + there.len(), rule.votes);
                prop_assert!(missing > 0, "it was enough");
            }
        }
    }

    #[test]
    fn threat_13_what_is_approved_is_the_text_as_it_is_and_was_read(
        rule in rule(), acts in acts(), new_ballots in any::<bool>(),
    ) {
        for round in play(rule.as_ref(), &acts, true, new_ballots) {
            for (cast, _, _) in approvals(&round) {
                // A text that the issue does not have now may be approved only where the vote
                // is on the text that it was cast on; the engine hands over the issue's.
                let ballot = if new_ballots { &round.text } else { &text(0) };
                prop_assert_eq!(&cast.read.hash, &ballot.hash, "another text was approved");
            }
        }
    }

    #[test]
    fn threat_13_votes_for_a_text_end_with_its_next_edit_also_if_that_is_reverted(rule in rule(), acts in acts()) {
        for round in play(rule.as_ref(), &acts, true, true) {
            for (_, by, so_far) in approvals(&round) {
                for (id, _) in by {
                    prop_assert!(so_far.iter().any(|c| c.id == *id), "a vote from before the edit counted");
                }
            }
        }
    }

    #[test]
    fn threat_13_nobody_approves_within_the_settling_time_without_having_been_told(rule in rule(), acts in acts()) {
        for round in play(rule.as_ref(), &acts, true, true) {
            let Some(edited) = round.edited_at else {
                prop_assert!(round.casts.iter().all(|c| c.verdict != Verdict::TooSoon), "nothing was edited");
                continue;
            };
            for (n, cast) in round.casts.iter().enumerate() {
                let counted = matches!(cast.verdict, Verdict::Approved { .. } | Verdict::Counted { .. });
                let told = round.casts[..n].iter().any(|c| c.id == cast.id && c.verdict == Verdict::TooSoon);
                prop_assert!(
                    !counted || told || cast.given_at.0 - edited.0 >= SETTLE,
                    "{} counted {} ms after the edit", cast.login, cast.given_at.0 - edited.0
                );
                prop_assert!(!(told && cast.verdict == Verdict::TooSoon), "{} is told twice", cast.login);
            }
        }
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
    fn no_text_and_no_time_makes_a_council_panic(
        words in any::<String>(), given in any_time(), edited in any_time(), now in any_time(),
    ) {
        let rule = CouncilRule::parse(&words).ok().flatten();
        let text = text(0);
        let mut mission = mission(&text, rule);
        mission.edited_at = Some(At(edited));
        for _ in 0..2 {
            let _ = vote(&mut mission, &text, (7, "ada"), At(given), At(now), SETTLE, WINDOW, false);
        }
    }
}
