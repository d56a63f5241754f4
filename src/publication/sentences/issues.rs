//! What became of an issue, and of comments that cannot be taken as they are.

sentences! {
    /// The text was edited, and cells have its approval. `cells` names them.
    approval_void(cells: &str)
        = "The text was changed after it was approved, so the approval of {cells} is void. What already runs goes on with the text that was approved; nothing is started or revived until a director approves again.";
    /// The text was edited while a council voted.
    votes_void(voters: &str)
        = "The text was changed, so the approvals that were given ({voters}) are void; they have to be given again.";
    /// Why a cell ended that had not begun.
    text_changed() = "the text was changed after it was approved";
    /// The forge shows an issue again. `cells` is empty, or says what stays ended.
    shows_again(cells: &str)
        = "The forge did not show this issue for some time, so it was taken for deleted. It is there, and commands work again.{cells}";
    /// The end of that, where cells had been ended.
    stays_ended(cells: &str)
        = " What was ended stays ended: {cells}. `/resurrect CELL` brings a closed one back within its grace period.";
    /// Of each of those cells.
    cell_is(cell: &crate::cell::CellId, state: crate::cell::State) = "`{cell}` is {state}";
    /// Why cells ended: the issue.
    issue_closed() = "the issue was closed";
    /// The same.
    issue_deleted() = "the issue was deleted";
    /// Once a mission, where a cell would not have all of the project.
    project_lacks(missing: &str) = "Not all of this project comes into a cell. It has {missing}.";
    /// A command on an issue that is no mission, by somebody with write access; once an issue.
    no_mission(command: &str)
        = "`/{command}` does nothing here, because this issue is no mission. `/summon AGENT` asks for a cell.";
    /// A command of a director that only polling found; the commands follow.
    confirm(login: &str)
        = "`{login}`: only polling found your comment, so nobody can say that it was not edited since. If you mean the following, give this comment a 👍 within a day; a 👎 takes it back.";
    /// The same, where the command cannot be shown whole.
    cannot_be_confirmed(why: &str)
        = "Only polling found your comment, so it has to be confirmed, and that cannot be asked: {why}. Give the command in another form.";
    /// It was not confirmed.
    not_confirmed(login: &str, why: &str) = "What `{login}` was asked to confirm is not done: {why}.";
    /// It could not be found out whether it was.
    confirmation_unknown(login: &str, why: &str)
        = "It could not be found out whether `{login}` confirmed a command: {why}. Give it again in a new comment.";
    /// The comment was edited at once.
    comment_edited()
        = "This comment was edited before it was acted on, so nothing was done; give the command again in a new comment.";
    /// The comment is not what was delivered.
    comment_differs()
        = "The forge does not show this comment as it was delivered, so nothing was done; give the command again in a new comment.";
    /// The comment is not there any more.
    comment_gone() = "The comment was deleted before it was acted on, so nothing was done.";
    /// Its author is not there any more.
    account_gone() = "The account that wrote this is gone, so it has no rights here any more.";
    /// The forge did not say who may give a command; of each command.
    not_carried_out(command: &str) = "`/{command}` was not carried out.";
    /// The end of that.
    rights_unknown(why: &str)
        = "Lazarus asked the forge who may do this, and could not find out: {why}. Give the command again in a new comment.";
    /// The forge did not say how an issue stands.
    issue_unknown(why: &str)
        = "The forge could not be asked about this issue: {why}. An edit, or a new comment, makes Lazarus ask again.";
    /// A comment of ours that the forge refused.
    comment_not_posted(kind: &str, why: &str)
        = "A comment of Lazarus (of the kind {kind}) could not be posted here: {why}. `lazarus ledger show` has what it was about.";
    /// Something of an older version that cannot be read any more.
    something_not_done(why: &str) = "Something that was asked for here was not done: {why}. Ask for it again.";
    /// A record that cannot be read.
    registry_damaged()
        = "Nothing was done: what is stored of this mission cannot be read. Whoever operates this Lazarus finds in its log, and by `lazarus status`, what is damaged; after it is mended, give the command again.";
    /// A comment that could not be rendered at all.
    cannot_be_written_down() = "Something happened that could not be written down here; the ledger has it.";
}
