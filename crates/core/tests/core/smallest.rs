//! The smallest histories of what the properties and reading found, one a
//! test, so that each can be read and stays found.

use crate::history::{Beginning, HOUR, History, MINUTE, agent, exit, human, person, policy, run, spec};
use lazarus_core::cell::{
    Actor, Approval, AutoRevive, DeadlineKind, Input, Outcome, Policy, Refusal, Role, Spec, State,
};

/// A cell that runs these many agents, approved by ada (#7).
fn active(agents: usize, auto_revive: AutoRevive) -> History {
    let mut history = preparing(agents, auto_revive);
    let runs = history.ordered();
    history.must(Input::Started { runs });
    assert_eq!(history.state(), State::Active);
    history
}

fn preparing(agents: usize, auto_revive: AutoRevive) -> History {
    let mut history = History::of(&Beginning { spec: Spec { auto_revive, ..spec(agents) }, policy: policy() });
    history.must(Input::Approve { approval: approval() });
    assert_eq!(history.state(), State::Preparing);
    history
}

fn approval() -> Approval {
    Approval { text: "0".repeat(64), number: 1, record: "1".repeat(64), by: vec![person(0)] }
}

fn invite(identity: lazarus_core::cell::Identity, forge_id: Option<i64>, role: Role) -> Input {
    Input::Invite { identity, forge_id, role }
}

fn close() -> Input {
    Input::Close { outcome: Outcome::Completed, reason: None }
}

/// Once its only agent is revoked nobody can report a start: nothing, not even
/// a deadline, ever ends the cell.
#[test]
fn a_cell_whose_last_agent_is_revoked_while_it_starts_does_not_wait_for_ever() {
    let mut history = preparing(1, AutoRevive::No);
    history.must(Input::Revoke { identity: agent("scribe") });
    history.give(Input::Started { runs: vec![run("scribe", 1)] }, Actor::System);
    assert_ne!(history.state(), State::Preparing, "{history:#?}");
}

/// A resurrected cell gets a whole new time to live, beside the first start's.
#[test]
fn a_resurrected_cell_does_not_live_longer_than_policy_allows_in_all() {
    let mut history = active(1, AutoRevive::No);
    let start = history.cell().started_at.unwrap();
    for _ in 0..3 {
        history.now = history.now.plus(3 * HOUR);
        history.must(close()).must(Input::Ended);
        history.now = history.now.plus(29 * MINUTE);
        let brought_back = history.give(Input::Resurrect, person(0));
        if brought_back.decision.is_err() {
            // With no time left that is right as well.
            break;
        }
        let runs = history.ordered();
        history.must(Input::Started { runs });
    }
    let cell = history.cell();
    assert!(cell.expires_at.unwrap() <= start.plus(cell.policy.ttl_max), "{history:#?}");
}

#[test]
fn a_cell_that_fell_silent_can_be_revived() {
    let mut history = active(1, AutoRevive::No);
    history.must(Input::Silence { run: run("scribe", 1) });
    assert_eq!(history.state(), State::Downed);
    history.must(Input::Revive { agent: None });
    assert_eq!(history.state(), State::Active);
}

#[test]
fn a_cell_that_fell_silent_is_revived_by_itself_where_the_proposal_says_so() {
    let mut history = active(1, AutoRevive::Yes);
    history.must(Input::Silence { run: run("scribe", 1) });
    assert_eq!(history.state(), State::Active, "{history:#?}");
}

/// With the dead agent revoked, the others stay frozen and nothing thaws them.
#[test]
fn a_downed_cell_whose_dead_agent_is_revoked_goes_on_with_the_others() {
    let mut history = active(2, AutoRevive::No);
    history.must(Input::AgentEnded { run: run("scribe", 1), exit: exit(false) });
    assert_eq!(history.state(), State::Downed);
    history.must(Input::Revoke { identity: agent("scribe") });
    assert_eq!(history.state(), State::Active, "{history:#?}");
}

/// Contract §4: a director may step down to observer; and a second, explicit
/// executor invitation is beside the first role until it is accepted.
#[test]
fn a_director_can_step_down_to_observer() {
    let mut history = active(1, AutoRevive::No);
    history.must(invite(human("ada"), Some(7), Role::Observer));
    history.must(Input::Accept { identity: human("ada"), forge_id: Some(7) });
    assert_eq!(history.cell().participant(&human("ada")).unwrap().role, Role::Observer);
}

/// The invitation takes the director's place before anybody accepted it; when it
/// runs out, the cell has lost its director.
#[test]
fn a_director_whose_second_invitation_runs_out_is_still_a_director() {
    let mut history = active(1, AutoRevive::No);
    history.must(invite(human("ada"), Some(7), Role::Executor));
    history.now = history.now.plus(policy().invitation_ttl);
    history.must(Input::Deadline { kind: DeadlineKind::Invitation });
    let ada = history.cell().participant(&human("ada"));
    assert!(ada.is_some_and(|p| p.role == Role::Director), "{ada:?} in {history:#?}");
}

#[test]
fn a_director_can_be_invited_to_execute_in_a_full_cell() {
    let mut history = History::of(&Beginning { spec: spec(1), policy: Policy { participants_max: 2, ..policy() } });
    history.must(Input::Approve { approval: approval() });
    history.must(invite(human("ada"), Some(7), Role::Executor));
}

/// Contract §2: a director is a human who may decide.
#[test]
fn a_bot_cannot_be_a_director() {
    let mut history = active(1, AutoRevive::No);
    let bot = lazarus_core::cell::Identity::Bot("builder".to_owned());
    let m = history.give(invite(bot, None, Role::Director), person(0));
    assert!(matches!(m.decision, Err(Refusal::Policy(_))), "{m:?}");
}

#[test]
fn threat_09_an_account_under_a_new_name_does_not_join_again() {
    let mut history = active(1, AutoRevive::No);
    let m = history.give(invite(human("countess"), Some(7), Role::Observer), person(0));
    assert!(matches!(m.decision, Err(Refusal::AlreadyIn { .. })), "{m:?}");
}

/// Threat 13, edited and reverted: an edit after the end is not known to the
/// cell, so an edit that is undone before `/resurrect` leaves the approval whole.
#[test]
fn threat_13_an_edit_of_a_closed_mission_voids_the_approval_too() {
    let mut history = active(1, AutoRevive::No);
    history.must(close()).must(Input::Ended);
    history.must(Input::Void);
    let m = history.give(Input::Resurrect, person(0));
    assert_eq!(m.decision, Err(Refusal::ApprovalVoid), "{m:?}");
}

#[test]
fn a_refusal_in_a_destroyed_cell_does_not_end_in_the_middle_of_a_sentence() {
    let mut history = active(1, AutoRevive::No);
    history.must(Input::Destroy { reason: None });
    let m = history.give(close(), person(0));
    let words = m.decision.as_ref().unwrap_err().to_string();
    assert!(!words.trim_end().ends_with(':'), "{words:?}");
}

/// What was never approved was not "changed after it was approved".
#[test]
fn a_rejected_cell_is_not_said_to_have_been_changed_after_approval() {
    let mut history = History::of(&Beginning { spec: spec(1), policy: policy() });
    history.must(Input::Drop { outcome: Outcome::Rejected, reason: "no".to_owned() });
    let m = history.give(Input::Resurrect, person(0));
    let words = m.decision.as_ref().unwrap_err().to_string();
    assert!(!words.contains("changed after it was approved"), "{words:?}");
}

#[test]
fn a_quick_agent_that_died_before_all_ran_downs_the_cell_once_it_runs() {
    let mut history = preparing(2, AutoRevive::No);
    history.must(Input::AgentEnded { run: run("scribe", 1), exit: exit(false) });
    let runs = history.ordered();
    history.must(Input::Started { runs });
    assert_eq!(history.state(), State::Downed);
    history.must(Input::Revive { agent: Some("scribe".to_owned()) });
    assert_eq!(history.ordered(), [run("scribe", 3)]);
}

/// Two died, one of them was revived: the other is still dead when the one that
/// runs is revoked.
#[test]
fn a_cell_in_which_a_dead_agent_is_left_is_down_again_when_the_last_that_runs_is_revoked() {
    let mut history = active(2, AutoRevive::No);
    for (name, number) in [("scribe", 1), ("hermes", 2)] {
        history.must(Input::AgentEnded { run: run(name, number), exit: exit(false) });
    }
    history.must(Input::Revive { agent: Some("scribe".to_owned()) });
    history.must(Input::Revoke { identity: agent("scribe") });
    assert_eq!(history.state(), State::Downed);
}
