//! Answers to commands.

use crate::cell::{CellId, Identity, Isolation, Role, State};
use crate::mission::Denied;

sentences! {
    /// A command for directors, by somebody else.
    not_a_director(command: &str, login: &str)
        = "`/{command}` is for directors of this repository, and `{login}` is not one";
    /// `/summon` or `/team` by somebody who may only read.
    may_not_ask_for_a_cell(login: &str)
        = "`{login}` may read this repository, not write to it; people with write access may ask for a cell, and anybody may propose a mission by the issue template";
    /// Another command for people with write access, by somebody who may only read.
    needs_write_access(command: &str) = "`/{command}` is for people with write access";
    /// A command that is read, but not built yet.
    not_yet(command: &str) = "`/{command}` is known, but this version of Lazarus cannot do it yet";
    /// Commands that stand where none counts, to somebody who may give them. `found` names
    /// each with its place.
    misplaced(found: &str)
        = "Not carried out: {found}. A command counts at the start of a line of its own, as ordinary text, with an empty line above it. Give it again so, in a new comment.";
    /// Of each such command.
    with_place(command: &str, place: &str) = "`/{command}` ({place})";
    /// Every comment that holds more commands than a minute may have; once a minute.
    too_many_commands(login: &str, limit: i64)
        = "`{login}` gave more than {limit} commands in a minute. Each comment with a 😕 is not carried out; give its commands again a minute later.";
    /// A command that names a cell of another mission, or none.
    no_such_cell(cell: &CellId) = "there is no cell `{cell}` in this mission";
    /// A command on a cell where none lives.
    no_live_cell() = "this mission has no live cell";
    /// A command on a cell where several live. `cells` names each with its state.
    several_live_cells(count: usize, cells: &str) = "this mission has {count} live cells; name one: {cells}";
    /// Of each of those.
    cell_and_state(cell: &CellId, state: State) = "`{cell}` ({state})";
    /// A command on a cell that may be one of several.
    name_one(cells: &str) = "name one: {cells}";
    /// `/summon` on a closed issue.
    reopen_to_summon() = "the issue is closed; reopen it to ask for a cell";
    /// `/summon` where as many cells live as may.
    enough_cells(most: usize) = "a mission may have {most} live cells; close one first";
    /// `/summon` while somebody edited the issue.
    text_changed_meanwhile()
        = "the issue's text was changed since this command was given; look at it and give the command again";
    /// A director's `/summon` on an issue whose page does not show all of its text.
    text_not_shown(hidden: &str)
        = "The page of this issue does not show all of the text that the agents would be given. It has {hidden}. Give the command again if that is what you mean.";
    /// A writer's `/summon` that could not be shown whole.
    cannot_be_put_before_directors(what: &str, why: &str)
        = "This cannot be put before the directors because of {what}: {why}.";
    /// `/summon` where many requests are open.
    enough_requests(most: usize) = "{most} requests are before the directors already; one of them has to be decided first";
    /// `/summon` by somebody with write access.
    recorded_as_request(number: u32, cell: &CellId)
        = "Recorded as request {number} (cell `{cell}`): a director approves it with `/approve {number}`, or rejects it with `/reject {number}`.";
    /// `/summon` of an agent that has no profile. `near` is empty, or names one that is like it.
    no_such_agent(agent: &str, allowed: &str, near: &str) = "there is no agent `{agent}`; allowed are {allowed}{near}";
    /// The end of that, where one is like it.
    did_you_mean(near: &str) = "; did you mean `{near}`?";
    /// `/team` with more agents than may be.
    too_many_agents(most: usize) = "a cell has at most {most} agents";
    /// A backend that is not there.
    backend_not_there(backend: impl std::fmt::Display, allowed: &str)
        = "backend=`{backend}` is not available here; allowed are {allowed}";
    /// Less isolation than policy allows.
    isolation_too_weak(isolation: Isolation, least: Isolation)
        = "isolation=`{isolation}` is weaker than `{least}`, the least that policy allows";
    /// More network than there is.
    network_refused(network: impl std::fmt::Display, why: &str) = "network=`{network}`: {why}";
    /// A longer life than policy allows.
    ttl_too_long(most: &str) = "ttl is longer than {most}, the most that policy allows";
    /// `/invite` or `/revoke` of what is no identity.
    not_an_identity() = "an identity is `agent:NAME`, `bot:NAME` or `human:LOGIN`";
    /// `/invite` of an agent that has no profile.
    no_agent_to_invite(agent: &str, allowed: &str)
        = "there is no agent `{agent}`; allowed are {allowed}. A person is `human:LOGIN`";
    /// `/invite` of somebody whom the forge does not know.
    no_such_account(login: &str) = "the forge knows no account `{login}`; one that was renamed goes by its new name";
    /// `/invite` of a person.
    invited(identity: &Identity, cell: &CellId, role: Role, ttl: &str)
        = "`{identity}` is invited to `{cell}` as {role}, and accepts with `/accept` within {ttl}.";
    /// `/invite` of an agent, and `/accept`.
    takes_part(identity: &Identity, cell: &CellId, role: &str) = "`{identity}` takes part in `{cell}` as {role}.";
    /// `/revoke`.
    takes_no_part(identity: &Identity, cell: &CellId) = "`{identity}` takes no part in `{cell}` any more.";
    /// `/accept` by an operator.
    accepted_in_a_comment() = "an invitation is accepted by the person who was invited, in a comment";
    /// `/accept` by somebody whose name is no identity.
    cannot_take_part() = "this login cannot take part in a cell";
    /// `/extend`.
    may_run_until(cell: &CellId, until: &str) = "Cell `{cell}` may run until {until}.";
    /// `/pause`.
    frozen(cell: &CellId) = "Cell `{cell}` is frozen.";
    /// `/resume`.
    goes_on(cell: &CellId) = "Cell `{cell}` goes on.";
    /// `/revive`.
    revived(cell: &CellId) = "Cell `{cell}` is revived.";
    /// `/revive` on a closed issue.
    nothing_is_revived() = "the issue is closed; nothing is revived on a closed mission";
    /// `/decide`.
    decision_on_record(number: i64) = "Decision {number} is on record.";
    /// `/close` of a cell that is only a request.
    not_approved_yet(number: u32) = "request {number} is not approved yet; use `/reject {number}`";
    /// Why a cell failed that was closed after an agent ended badly; `exit` says how.
    agent_ended_badly(agent: &str, exit: impl std::fmt::Display) = "agent {agent} ended badly: {exit}";
    /// `/resurrect` on a closed issue.
    reopen_first() = "the issue is closed; reopen it first";
    /// `/resurrect` where no cell is closed.
    no_closed_cell() = "this mission has no closed cell";
    /// `/destroy`.
    destroyed(cell: &CellId) = "Cell `{cell}` is destroyed; the ledger remains.";
    /// Why a cell was destroyed.
    destroyed_by(login: &str) = "destroyed by {login}";
    /// `/publish` of a file where no cell's files are left.
    no_files_left() = "there is no such cell of this mission whose files are still there";
    /// `/publish work` where nothing waits for it.
    nothing_is_held() = "there is no closed cell here whose work the forge refused, or that is held";
    /// `/publish work` of something that was not shown before.
    held_is_other_than_shown(cell: &CellId)
        = "what is held of `{cell}` is other than what was shown when this command was given; look at it and give the command again";
    /// `/publish work` of something that holds a secret. `held` says what.
    nothing_can_be_released(cell: &CellId, held: &str)
        = "nothing of `{cell}` can be released: {held}. A known secret never leaves; `lazarus work {cell} DIR` gives the work to an operator";
    /// `/publish work`.
    released(login: &str, held: &str) = "Released by `{login}`: {held}.";
    /// A command that was done and has nothing else to say, among several in a comment.
    done_among_several() = "done.";
    /// Which command an answer is for, among several in a comment; the answer follows.
    for_command(command: &str) = "`/{command}`: ";
    /// A reaction could not be posted, and the command was done.
    done() = "Done.";
    /// A reaction could not be posted, and the command was not done.
    not_done() = "Not done.";
}

/// Why somebody may not give a command.
pub fn denied(denied: Denied, command: &str, login: &str) -> String {
    match (denied, command) {
        (Denied::NotYet, _) => not_yet(command),
        (Denied::NotDirector, _) => not_a_director(command, login),
        (Denied::NotWriter, "summon" | "team") => may_not_ask_for_a_cell(login),
        (Denied::NotWriter, _) => needs_write_access(command),
    }
}
