//! Answers to operators. They have no code spans: the command line and other programs
//! show them as they are.

use crate::cell::{CellId, State};

sentences! {
    /// A request that names nothing.
    nothing_named() = "neither a mission nor a cell was named";
    /// A cell that there is not.
    no_cell(cell: &CellId) = "there is no cell {cell}; `lazarus status` lists them";
    /// A command that is done and has nothing else to say.
    done_on(command: &str, cell: &CellId) = "{command} is done on cell {cell}";
    /// The same without a cell.
    done(command: &str) = "{command} is done";
    /// What a cell has come to.
    cell_is(cell: &CellId, state: State) = "cell {cell} is {state}";
    /// The same where it is over.
    cell_is_because(cell: &CellId, state: State, reason: &str) = "cell {cell} is {state}: {reason}";
    /// `publish CELL`.
    work_published(cell: &CellId) = "the work of cell {cell} is published";
    /// `checkpoint`.
    checkpoint_is(cell: &CellId, hash: &str) = "the checkpoint of {cell} is {hash}";
    /// `checkpoint` that failed.
    no_checkpoint(cell: &CellId, why: &str) = "no checkpoint of {cell} was taken: {why}";
    /// Why, where nobody said it.
    no_snapshot() = "no snapshot was handed out";
    /// `publish CELL WHAT` that may not leave.
    nothing_published(cell: &CellId, why: &str) = "nothing of {cell} was published: {why}";
    /// `publish CELL WHAT` that left under this name.
    file_published(name: &str, cell: &CellId) = "{name} of cell {cell} is published";
    /// `publish CELL WHAT`.
    published_from(cell: &CellId) = "published from {cell}";
    /// The forge does not know the issue.
    no_such_issue(owner: &str, repository: &str, number: i64) = "there is no issue {owner}/{repository}#{number}";
    /// A mission of another repository.
    not_configured(owner: &str, repository: &str, served: &str)
        = "{owner}/{repository} is not among the configured repositories: {served}";
    /// The same, where it is not served any more.
    not_served() = "the repository is not served any more";
    /// A command that takes long.
    under_way(seconds: u64)
        = "the command is on record and under way, but not done after {seconds} s; see `lazarus status`";
}
