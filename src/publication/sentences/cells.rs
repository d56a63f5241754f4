//! Cells, and what leaves them.

use crate::cell::CellId;

sentences! {
    /// Every executor has ended. `agents` says how each did, `until` is empty or says how long
    /// the cell waits.
    work_ended(cell: &CellId, agents: &str, agent: &str, until: &str)
        = "The work in cell `{cell}` has ended: {agents}. `/close` ends the cell and publishes what there is; `/tell {agent} TEXT` gives more to do.{until}";
    /// The end of that.
    waits_until(until: &str) = " It waits until {until}.";
    /// An agent died. `agents` says which, and how.
    frozen_by_death(cell: &CellId, agents: &str)
        = "Cell `{cell}` is frozen, because an agent ended badly: {agents}. `/revive`, `/close` or `/destroy {cell}` goes on from here.";
    /// An agent, and how it ended.
    agent_and_exit(agent: &str, exit: impl std::fmt::Display) = "`{agent}` ({exit})";
    /// A cell cannot be started for the time being.
    waits_for_forge(cell: &CellId, why: &str, patience: &str)
        = "Cell `{cell}` is waiting for the forge: {why}. Lazarus tries again for up to {patience}, then says so; `/close` ends the waiting.";
    /// Something could not be done to a cell. `what` is one of the next sentences.
    order_failed(cell: &CellId, what: &str, why: &str)
        = "Cell `{cell}`: {what}: {why}. Give the command again, or `/close` the cell.";
    /// What: `/checkpoint`.
    no_checkpoint_taken() = "No checkpoint was taken";
    /// What: a revival.
    agents_not_started() = "Its agents could not be started";
    /// What: `/tell`.
    agents_not_told() = "Its agents were not told";
    /// What: `/revoke`.
    agent_not_ended() = "An agent of it was not ended";
    /// What: `/pause`.
    not_frozen() = "It could not be frozen, so it goes on";
    /// What: `/resume`.
    not_thawed() = "It could not be thawed";
    /// `/checkpoint`.
    checkpoint(cell: &CellId, hash: &str) = "Checkpoint of `{cell}`: `{hash}`.";
    /// `/checkpoint` that failed.
    no_checkpoint(cell: &CellId, why: &str) = "No checkpoint of `{cell}`: {why}";
    /// `/publish` of a file that may not leave.
    nothing_published(cell: &CellId, why: &str) = "Nothing of `{cell}` was published: {why}";
    /// The work left after the close log. `pull` is empty or names the pull request.
    work_is_on_branch(cell: &CellId, branch: &str, pull: &str) = "The work of `{cell}` is on branch `{branch}`{pull}.";
    /// The end of that.
    and_pull_request(number: i64) = ", pull request {number}";
    /// The work did not leave.
    work_not_published(cell: &CellId, why: &str) = "The work of `{cell}` is not published: {why}";
    /// One of its branches did not leave.
    branch_not_published(branch: &str, why: &str) = "The branch `{branch}` is not published: {why}";
    /// The work does not leave yet, after the close log.
    work_not_published_yet(cell: &CellId, why: &str, patience: &str)
        = "The work of `{cell}` is not published yet: {why}. Lazarus tries again for up to {patience}.";
    /// The same, in the close log.
    not_yet(why: &str, patience: &str) = "not yet: {why}. Lazarus tries again for up to {patience}, and says here what became of it";
    /// Work that is held: what, and one of the next sentences.
    held(what: &str, then: &str) = "{what}. {then}.";
    /// It holds a known secret.
    held_secret(cell: &CellId)
        = "A known secret never leaves: an operator finds the work by `lazarus work {cell} DIR`, and it leaves once the cell was brought back (`/resurrect {cell}`) and has the secret nowhere in its history any more";
    /// A director can let it go.
    held_for_director(cell: &CellId) = "A director lets exactly this commit go with `/publish work {cell}`";
    /// It is over a limit.
    held_by_limit(cell: &CellId)
        = "It can leave once an operator has raised the limit: `/publish work {cell}` tries again, and `lazarus work {cell} DIR` has it meanwhile";
    /// The duration in the close log of a cell that never ran.
    no_time_at_work() = "no time at work";
    /// Why a cell failed whose work could not be read.
    work_unreadable() = "its work could not be read";
    /// Why a cell failed whose agents did nothing.
    nothing_changed() = "nothing was committed or changed";
}
