//! What holds in every history of a cell (contract §3 to §6, §10).

use crate::history::{Beginning, HOUR, History, MINUTE, Moment, Step, beginning, settings, steps, trigger};
use lazarus_core::cell::{
    Actor, AgentRun, Cell, DeadlineKind, Effect, Event, Identity, Input, ParticipantState, Refusal, Role, RunState,
    State, TABLE, commands_in, decide, next_deadline, replay, targets,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{TestCaseError, TestRunner};
use std::collections::BTreeSet;

type Held = Result<(), TestCaseError>;

/// Whether one moment holds, said with the whole history where it does not.
fn each(beginning: &Beginning, steps: &[Step], held: impl Fn(&Moment) -> Result<(), String>) -> Held {
    let history = History::through(beginning, steps);
    for moment in &history.moments {
        if let Err(why) = held(moment) {
            return Err(TestCaseError::fail(format!("{why}\n{moment:?}\nin {history:#?}")));
        }
    }
    Ok(())
}

fn must(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

fn present(cell: &Cell) -> impl Iterator<Item = &lazarus_core::cell::Participant> {
    cell.participants.iter().filter(|p| p.state != ParticipantState::Gone)
}

proptest! {
    #![proptest_config(settings("proptest-regressions/core-lifecycle.txt"))]

    #[test]
    fn only_the_transitions_of_the_table_happen(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let Some(before) = &m.before else { return Ok(()) };
            let Some(trigger) = trigger(&m.input) else {
                return must(m.from() == m.to(), "what is no transition moved the cell");
            };
            let row = targets(before.state, trigger);
            if row.is_empty() {
                must(m.events().is_empty() && m.effects().is_empty(), "what the table does not have did something")?;
                return must(
                    matches!(m.decision, Err(Refusal::NotInThisState { .. }))
                        || (m.decision.is_ok() && matches!(m.input, Input::Deadline { .. })),
                    "what the table does not have was not refused as such",
                );
            }
            must(
                !matches!(m.decision, Err(Refusal::NotInThisState { .. })),
                "the table has it, and it was refused as not in the table",
            )?;
            must(m.events().is_empty() || row.contains(&m.to()), "a transition that is not in the row")
        })?;
    }

    #[test]
    fn no_identity_takes_part_twice(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            let there: Vec<_> = present(cell).collect();
            for (n, one) in there.iter().enumerate() {
                must(
                    !there[n + 1..].iter().any(|other| one.identity.same(&other.identity)),
                    "an identity takes part twice",
                )?;
            }
            Ok(())
        })?;
    }

    /// Threat 9: authority and identity go by number, and a login can change.
    #[test]
    fn threat_09_no_account_takes_part_twice_under_two_names(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            let mut numbers = BTreeSet::new();
            must(
                present(cell).filter_map(|p| p.forge_id).all(|id| numbers.insert(id)),
                "an account takes part twice",
            )
        })?;
    }

    #[test]
    fn a_role_is_fixed_but_for_a_director_who_is_invited_otherwise(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let (Some(before), Some(after)) = (&m.before, &m.after) else { return Ok(()) };
            for one in present(before) {
                let Some(now) = after.participant(&one.identity) else { continue };
                must(
                    now.role == one.role
                        || (one.role == Role::Director
                            && one.offered.is_some_and(|(role, _)| role == now.role)
                            && matches!(m.input, Input::Accept { .. })),
                    "a role changed",
                )?;
            }
            Ok(())
        })?;
    }

    #[test]
    fn policy_decides_who_takes_part_as_what(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            for one in present(cell) {
                must(cell.policy.guests || one.role != Role::Guest, "a guest, and policy has none")?;
                must(cell.policy.substitutes || one.role != Role::Substitute, "a substitute, and policy has none")?;
                must(
                    one.role != Role::Director || matches!(one.identity, Identity::Human(_)),
                    "a director who is no person",
                )?;
            }
            let invited = m.events().iter().any(|e| matches!(e, Event::Invited { .. }));
            must(
                !invited
                    || !matches!(m.input, Input::Invite { .. })
                    || m.before.as_ref().is_some_and(|b| present(b).count() == present(cell).count())
                    || present(cell).count() <= cell.policy.participants_max,
                "more take part than policy allows",
            )
        })?;
    }

    #[test]
    fn closed_means_closed(beginning in beginning(), steps in steps(60)) {
        each(&beginning, &steps, |m| {
            let Some(before) = &m.before else { return Ok(()) };
            let may = match before.state {
                State::Closed => matches!(
                    m.input,
                    Input::Resurrect | Input::Destroy { .. } | Input::Deadline { kind: DeadlineKind::Grace }
                ),
                State::Archived => matches!(
                    m.input,
                    Input::Destroy { .. } | Input::Deadline { kind: DeadlineKind::Retention }
                ),
                State::Destroyed => false,
                _ => true,
            };
            // An edit after the end is the one thing more that is worth knowing: it
            // takes the approval away and nothing else.
            let voids = m.events() == [Event::ApprovalVoided];
            must(
                may || voids || (m.events().is_empty() && m.effects().is_empty() && m.before == m.after),
                "something changed after the end",
            )?;
            must(before.state != State::Destroyed || m.before == m.after, "something changed after destruction")
        })?;
    }

    #[test]
    fn replaying_the_events_gives_the_cell(beginning in beginning(), steps in steps(60)) {
        let history = History::through(&beginning, &steps);
        let events: Vec<_> =
            history.moments.iter().flat_map(|m| m.events().iter().map(|e| (e.clone(), m.now))).collect();
        prop_assert_eq!(&replay(&events), &history.cell);
        // And so from the ledger, where they stand as JSON; and the registry.
        let read: Vec<_> = events
            .iter()
            .map(|(e, at)| (serde_json::from_str(&serde_json::to_string(e).unwrap()).unwrap(), *at))
            .collect();
        prop_assert_eq!(&replay(&read), &history.cell);
        let kept = serde_json::to_string(history.cell()).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Cell>(&kept).unwrap(), history.cell());
    }

    #[test]
    fn a_refusal_changes_nothing_and_says_what_is_possible(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let again = decide(m.before.as_ref(), &m.input, &m.actor, m.now);
            must(again == m.decision, "the same question was answered otherwise")?;
            must(!m.events().is_empty() || m.before == m.after, "without an event something changed")?;
            let Err(refusal) = &m.decision else { return Ok(()) };
            must(m.before == m.after, "a refusal changed something")?;
            let words = refusal.to_string();
            must(!words.trim().is_empty() && words.lines().count() == 1, "a refusal is not one line")?;
            if let Refusal::NotInThisState { cell, state, asked, .. } = refusal {
                let before = m.before.as_ref().ok_or("no cell")?;
                must(*cell == before.id && *state == before.state, "it names another cell or state")?;
                must(words.contains(cell.as_str()), "it does not name the cell")?;
                must(words.contains(state.word()), "it does not name the state")?;
                must(words.contains(asked), "it does not say what was asked")?;
                for command in commands_in(*state) {
                    must(words.contains(command), "it does not name what is possible")?;
                }
                must(!words.trim_end().ends_with(':'), "it leaves open what is possible")?;
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_report_about_an_old_run_changes_nothing(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let Some(before) = &m.before else { return Ok(()) };
            let (Input::AgentEnded { run: about, .. } | Input::Silence { run: about }) = &m.input else {
                return Ok(());
            };
            let current = before.running().any(|(agent, number)| agent == about.agent && number == about.number);
            must(current || (m.decision.is_err() && m.before == m.after), "an old run was heard")
        })?;
    }

    #[test]
    fn a_deadline_that_is_handled_does_not_lie_in_the_past(beginning in beginning(), steps in steps(50)) {
        let history = History::through(&beginning, &steps);
        for m in &history.moments {
            // However late it is noticed (threat 31).
            for late in [0, MINUTE, 30 * HOUR, 400 * 24 * HOUR] {
                let mut then = History { cell: m.after.clone(), moments: vec![], now: m.now.plus(late) };
                while let Some(due) = next_deadline(then.cell()).filter(|(at, _)| *at <= then.now) {
                    let handled = then.give(Input::Deadline { kind: due.1 }, Actor::System).clone();
                    prop_assert!(
                        !handled.events().is_empty() && next_deadline(then.cell()) != Some(due),
                        "a deadline was handled and is still due: {handled:?}\nafter {history:#?}"
                    );
                }
            }
        }
        prop_assert!(history.clone().meet_deadlines());
    }

    #[test]
    fn a_deadline_that_is_not_due_does_nothing(beginning in beginning(), steps in steps(50)) {
        let history = History::through(&beginning, &steps);
        for m in &history.moments {
            let Some(after) = &m.after else { continue };
            for kind in
                [DeadlineKind::Invitation, DeadlineKind::TimeToLive, DeadlineKind::Grace, DeadlineKind::Retention]
            {
                let due = next_deadline(after).filter(|(at, _)| *at <= m.now);
                let same_is_due = due.is_some_and(|(_, k)| k == kind);
                let decided = decide(Some(after), &Input::Deadline { kind }, &Actor::System, m.now).unwrap();
                // Another that is later in the queue may be due as well, after a long sleep.
                if !same_is_due && due.is_none() {
                    prop_assert!(decided.0.is_empty() && decided.1.is_empty(), "{kind:?} fired early: {m:?}");
                }
            }
        }
    }

    #[test]
    fn run_numbers_only_grow_and_no_run_is_started_twice(beginning in beginning(), steps in steps(60)) {
        let history = History::through(&beginning, &steps);
        let mut newest = 0;
        for m in &history.moments {
            let (Some(before), Some(after)) = (&m.before, &m.after) else { continue };
            prop_assert!(after.last_run >= before.last_run, "{m:?}\nin {history:#?}");
            let starts = m.starts();
            let mut numbers = BTreeSet::new();
            for run in &starts {
                prop_assert!(run.number > newest && numbers.insert(run.number), "started again: {m:?}\nin {history:#?}");
                prop_assert!(
                    after.running().any(|(agent, number)| agent == run.agent && number == run.number),
                    "started, and not known to run: {m:?}\nin {history:#?}"
                );
            }
            newest = numbers.into_iter().chain([newest]).max().unwrap();
            // What is known to run, and did not before, was ordered here.
            let ran: BTreeSet<_> = before.running().map(|(a, n)| (a.to_owned(), n)).collect();
            for (agent, number) in after.running() {
                prop_assert!(
                    ran.contains(&(agent.to_owned(), number))
                        || starts.contains(&AgentRun { agent: agent.to_owned(), number }),
                    "runs, and was never started: {m:?}\nin {history:#?}"
                );
            }
        }
    }

    /// Threats 13 and 33.
    #[test]
    fn threat_33_nothing_is_started_without_an_approval_that_holds(beginning in beginning(), steps in steps(60)) {
        each(&beginning, &steps, |m| {
            let starts = m
                .effects()
                .iter()
                .any(|e| matches!(e, Effect::Prepare { .. } | Effect::Restore { .. } | Effect::StartAgents { .. }));
            let revives = m.events().iter().any(|e| {
                matches!(e, Event::Revived { .. } | Event::Resurrected | Event::Preparing)
                    || matches!(e, Event::WorkGiven { agents, .. } if !agents.is_empty())
            });
            let after = m.after.as_ref().ok_or("no cell")?;
            must(
                !(starts || revives) || (after.approval.is_some() && !after.approval_void),
                "something was started without an approval",
            )?;
            let Some(before) = &m.before else { return Ok(()) };
            must(after.approval_void || !before.approval_void, "an approval came back to life")?;
            must(before.approval.is_none() || before.approval == after.approval, "an approval was exchanged")
        })?;
    }

    #[test]
    fn the_time_to_live_never_goes_beyond_the_most_that_policy_allows(beginning in beginning(), steps in steps(60)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            if let (Some(start), Some(end)) = (cell.started_at, cell.expires_at) {
                must(end <= start.plus(cell.policy.ttl_max), "it may live longer than policy allows")?;
            }
            let began = m.before.as_ref().and_then(|c| c.started_at);
            must(began.is_none() || began == cell.started_at, "its first start moved")?;
            if let (Input::Extend { .. }, Some(before)) = (&m.input, &m.before) {
                must(cell.expires_at >= before.expires_at, "it was extended to something shorter")?;
            }
            Ok(())
        })?;
    }

    #[test]
    fn active_means_that_somebody_runs_and_idle_that_nobody_does(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            let running = cell.running().count();
            match cell.state {
                State::Active => must(running > 0, "active, and nobody runs"),
                State::Proposed | State::Invited | State::Idle | State::Closed | State::Archived | State::Destroyed => {
                    must(running == 0, "somebody runs in a cell without processes")
                }
                _ => Ok(()),
            }
        })?;
    }

    #[test]
    fn paused_and_downed_cells_are_frozen_and_working_ones_are_not(beginning in beginning(), steps in steps(50)) {
        let history = History::through(&beginning, &steps);
        let mut frozen = false;
        for m in &history.moments {
            for effect in m.effects() {
                match effect {
                    Effect::Freeze => frozen = true,
                    // A new start has nothing of the old processes left.
                    Effect::Thaw | Effect::Prepare { .. } | Effect::Restore { .. } => frozen = false,
                    _ => {}
                }
            }
            match m.to() {
                State::Active | State::Idle => prop_assert!(!frozen, "frozen: {m:?}\nin {history:#?}"),
                State::Paused | State::Downed => prop_assert!(frozen, "not frozen: {m:?}\nin {history:#?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_cell_that_is_over_says_how_and_when(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            let over = matches!(cell.state, State::Closed | State::Archived | State::Destroyed);
            must(over == cell.closed_at.is_some(), "closed without a time, or the other way round")?;
            let ends = over || cell.state == State::Closing;
            must(ends == cell.outcome.is_some(), "over without an outcome, or the other way round")?;
            must((cell.state != State::Archived) || cell.archived_at.is_some(), "archived without a time")?;
            must((cell.state == State::Destroyed) == cell.destroyed_at.is_some(), "destroyed without a time, or the other way round")
        })?;
    }

    /// What `lazarus status` says of times (contract §7) is when it happened.
    #[test]
    fn a_cell_knows_since_when_it_is_as_it_is(beginning in beginning(), steps in steps(50)) {
        each(&beginning, &steps, |m| {
            let cell = m.after.as_ref().ok_or("no cell")?;
            // A state that is left and come back to within one decision began anew, too.
            let moved = m.before.as_ref().is_none_or(|before| before.state != cell.state);
            let since = cell.state_since.ok_or("no time")?;
            must(!moved || since == m.now, "it moved, and not now")?;
            must(m.before.as_ref().is_none_or(|b| moved || b.state_since == cell.state_since || since == m.now), "it did not move")?;
            for p in &cell.participants {
                must(p.state != ParticipantState::Joined || p.joined_at.is_some(), "joined without a time")?;
                must(!matches!(p.state, ParticipantState::Invited { .. }) || p.joined_at.is_none(), "invited, and joined already")?;
                match p.run {
                    RunState::Waiting => must(p.run_started_at.is_none() && p.run_ended_at.is_none(), "a time without a run")?,
                    RunState::Running { .. } => must(p.run_started_at.is_some() && p.run_ended_at.is_none(), "it runs")?,
                    RunState::Ended { .. } => must(p.run_started_at.is_some() && p.run_ended_at.is_some(), "it ended")?,
                }
            }
            Ok(())
        })?;
    }

    /// Contract §5 has no state in which a cell stays for ever by itself: with
    /// an honest backend and time, every cell that was started ends.
    #[test]
    fn every_cell_that_was_started_comes_to_its_end_by_itself(beginning in beginning(), steps in steps(40)) {
        let mut history = History::through(&beginning, &steps);
        for _ in 0..30 {
            match history.state() {
                State::Destroyed | State::Proposed | State::Invited => return Ok(()),
                State::Preparing => {
                    let runs = history.ordered();
                    history.give(Input::Started { runs }, Actor::System);
                    prop_assert_ne!(
                        history.state(), State::Preparing,
                        "its start was reported, and it waits for ever in {:#?}", history
                    );
                }
                State::Checkpointing => {
                    history.give(Input::CheckpointTaken { hash: "2".repeat(64) }, Actor::System);
                }
                State::Closing => {
                    history.give(Input::Ended, Actor::System);
                }
                _ => {
                    let Some((at, kind)) = next_deadline(history.cell()) else {
                        return Err(TestCaseError::fail(format!("it waits for ever in {history:#?}")));
                    };
                    history.now = history.now.max(at);
                    history.give(Input::Deadline { kind }, Actor::System);
                }
            }
        }
        prop_assert_eq!(history.state(), State::Destroyed, "it does not end in {:#?}", history);
    }

    /// Whatever state a cell that needs help is in, a director has a way on
    /// besides ending it: contract §5, "revived or substituted".
    #[test]
    fn a_downed_cell_can_be_revived_while_retries_and_approval_last(beginning in beginning(), steps in steps(40)) {
        let history = History::through(&beginning, &steps);
        for m in &history.moments {
            let Some(cell) = m.after.as_ref().filter(|c| c.state == State::Downed) else { continue };
            let may = !cell.approval_void && cell.revivals < cell.policy.max_retries;
            if may && cell.workers().next().is_some() {
                let revived = decide(Some(cell), &Input::Revive { agent: None }, &m.actor, m.now);
                prop_assert!(revived.is_ok(), "{revived:?}: {m:?}\nin {history:#?}");
            }
        }
    }
}

#[test]
fn each_row_stands_once_in_the_table_and_leads_somewhere() {
    let mut seen = Vec::new();
    for row in TABLE {
        assert!(!seen.contains(&(row.from, row.trigger)), "{row:?} stands there twice");
        assert!(!row.to.is_empty(), "{row:?} leads nowhere");
        seen.push((row.from, row.trigger));
    }
}

#[test]
fn a_director_can_destroy_a_cell_in_every_state_but_destroyed() {
    for state in State::ALL {
        let to = targets(state, lazarus_core::cell::Trigger::Destroy);
        let wanted: &[State] = if state == State::Destroyed { &[] } else { &[State::Destroyed] };
        assert_eq!(to, wanted, "from {state}");
    }
    assert!(TABLE.iter().all(|row| row.from != State::Destroyed), "destroyed is terminal");
}

#[test]
fn every_state_can_be_reached_from_proposed() {
    let mut reached = vec![State::Proposed];
    let mut next = 0;
    while next < reached.len() {
        let from = reached[next];
        for row in TABLE.iter().filter(|row| row.from == from) {
            for to in row.to {
                if !reached.contains(to) {
                    reached.push(*to);
                }
            }
        }
        next += 1;
    }
    assert_eq!(reached.len(), State::ALL.len(), "reached are {reached:?}");
}

/// The properties say something only about what the histories come to.
#[test]
fn the_random_histories_come_through_every_row_of_the_table() {
    let mut runner = TestRunner::deterministic();
    let (mut went, mut refusals) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..5000 {
        let beginning = beginning().new_tree(&mut runner).unwrap().current();
        let steps = steps(60).new_tree(&mut runner).unwrap().current();
        for m in &History::through(&beginning, &steps).moments {
            let Some(trigger) = trigger(&m.input) else {
                continue;
            };
            if let Err(refusal) = &m.decision {
                let kind = format!("{refusal:?}");
                refusals.insert(kind.split([' ', '(']).next().unwrap().to_owned());
            } else {
                went.insert(format!("{} {trigger:?} {}", m.from(), m.to()));
            }
        }
    }
    let missed: Vec<_> = TABLE
        .iter()
        .flat_map(|row| row.to.iter().map(move |to| (row, to)))
        .map(|(row, to)| format!("{} {:?} {to}", row.from, row.trigger))
        .filter(|row| !went.contains(row))
        .collect();
    let missed: Vec<_> = missed.iter().filter(|row| !SELDOM.contains(&row.as_str())).collect();
    assert!(missed.is_empty(), "rows that no history took: {missed:?}");
    assert_eq!(
        refusals.into_iter().collect::<Vec<_>>(),
        ["AlreadyIn", "ApprovalVoid", "NotApproved", "NotInThisState", "NotInvited", "Policy", "StaleRun"]
    );
}

/// Rows that random histories do not come to.
const SELDOM: [&str; 3] = [
    // Nobody runs in an idle cell, so whoever ends there is an old run.
    "idle AgentEnded idle",
    // Two died, one was revived and revoked: `smallest.rs` has it.
    "active Revoke downed",
    // The same with `auto_revive` and no retry left, after a silence.
    "active Revoke closing",
];
