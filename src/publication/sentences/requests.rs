//! Proposals, requests, approvals.

sentences! {
    /// The standing of an open request. `before` is empty, or says what became of the one
    /// before it.
    open(before: &str, number: u32)
        = "{before}Nothing runs before it is approved: `/approve {number}`, or `/reject {number}` and a reason. An edit withdraws it.";
    /// Before that, where the proposal was edited.
    void_by_change(numbers: &str) = "Request {numbers} is void, because the text was changed. ";
    /// Before that, where somebody changed our comment.
    comment_put_right() = "Somebody changed this comment; now it is as Lazarus wrote it. ";
    /// The standing of a request that was approved.
    approved_by(names: &str) = "Approved by {names}.";
    /// The standing of a request that was approved and could not be started.
    not_started(names: &str, why: &str) = "Not started, although {names} approved: {why}.";
    /// The standing of a request that was rejected.
    rejected_by(login: &str, reason: &str) = "Rejected by {login}: {reason}.";
    /// The reason of a rejection that has none.
    no_reason() = "no reason was given";
    /// The standing of a request whose cell was destroyed.
    cell_destroyed_by(login: &str) = "Its cell was destroyed by {login}.";
    /// The standing of a request that is void.
    void(why: &str) = "It is void: {why}. Undoing the edit does not bring it back.";
    /// Why the cell of such a request ended.
    request_void(why: &str) = "the request is void: {why}";
    /// Why a request is void: its comment.
    comment_changed() = "its comment was edited or deleted after it was recorded";
    /// Why a request is void: the issue.
    text_changed_after() = "the issue's text was changed after the request was made";
    /// In the status table, for each open request.
    waits_for_director(number: u32) = "Request {number} waits for a director: `/approve {number}` or `/reject {number}`.";
    /// The same with a council.
    waits_for_council(number: u32, given: usize, needed: usize)
        = "Request {number} waits for the council: {given} of {needed} approvals (`/approve {number}`).";
    /// A proposal that cannot be read; its fields follow.
    unreadable() = "This proposal cannot be read as it is. Edit the issue; each of these needs a change:";
    /// In the place of that, once it can be read.
    readable_now() = "This proposal can be read now.";
    /// A proposal that can be read and cannot be put before the directors.
    not_before_directors(why: &str) = "This proposal is not before the directors: {why}";
    /// A council that can never decide. `why` says it of each who cannot vote.
    council_too_small(votes: usize, may: usize, why: &str)
        with (needed = if votes == 1 { "1 vote is".to_owned() } else { format!("{votes} votes are") })
        = "{needed} needed, and {may} of the people named here can vote: {why}";
    /// Of such a council, the proposer.
    proposer_does_not_vote(login: &str) = "`{login}` is the proposer, who does not vote";
    /// Of such a council, somebody else.
    is_no_director(login: &str) = "`{login}` is not a director of this repository";
    /// A name in a council that the forge does not know.
    council_unknown(login: &str) = "the forge knows no account `{login}`";
    /// A text that is too long to be shown.
    too_long_to_show(kib: usize, lines: usize)
        = "it is too long to be shown whole before it is approved: at most {kib} KiB and {lines} lines";
    /// A text that the gate would change.
    holds_a_secret()
        = "it holds what looks like a secret, which Lazarus shows nobody, so it could not be approved as it is; take that out";
    /// More network than policy allows.
    too_much_network(network: crate::cell::Network, most: crate::cell::Network) = "`{network}` is more than policy allows (`{most}`)";
    /// The address of a host in the place of its name.
    host_is_an_address(host: &str)
        = "`{host}` is not the name of a host but an address, and policy does not list it; name the host, or an operator adds the address to `[egress] allow_addresses`";
    /// `/approve` on a closed issue.
    issue_closed() = "the issue is closed";
    /// `/approve` of a proposal that cannot be read.
    cannot_be_approved()
        = "this proposal cannot be read as it is, so it cannot be approved; see the comment that names its fields";
    /// `/approve` where nothing is open.
    nothing_open() = "there is no open proposal or request here; `/summon AGENT` asks for a cell";
    /// `/approve` where that may mean several. `open` names each.
    several_open(open: &str) = "several requests are open, so nothing is started; name one: {open}";
    /// `/reject` where that may mean several.
    several_to_reject(open: &str) = "several requests are open; name one: {open}";
    /// Of each of those: who is to work for whom.
    number_and_agents(number: u32, agents: &str, login: &str) = "`{number}` ({agents} for `{login}`)";
    /// `/approve NUMBER` of one that is not open, where none is.
    not_open_nor_others(number: u32) = "request {number} is not open, and no other is";
    /// `/approve NUMBER` of one that is not open, where others are.
    not_open_but_others(number: u32, open: &str) = "request {number} is not open; open are {open}";
    /// `/reject NUMBER` of one that is not open.
    not_open(number: u32) = "request {number} is not open";
    /// `/reject` where nothing is open.
    nothing_to_reject() = "there is nothing to reject here";
    /// `/approve` of a request that is gone.
    nothing_to_approve() = "there is nothing to approve";
    /// An approval that is older than the request.
    born_later(number: u32)
        = "request {number} is newer than this approval, which was for something else; look at it, and `/approve {number}` if that is what you mean";
    /// An approval of somebody who may not vote.
    does_not_count(why: &str) = "This approval does not count: {why}.";
    /// An approval or summons shortly after an edit. `what` it is; `then` what to do.
    changed_shortly_before(what: &str, settle: &str, then: &str)
        = "The text was changed less than {settle} before this {what}, so it may not be the text that was read. {then}";
    /// What to do then about an approval.
    approve_again(number: u32) = "Look at it and `/approve {number}` again if that is what you mean.";
    /// What to do then about a summons.
    summon_again() = "Look at it and give the command again if that is what you mean.";
    /// A vote of a council.
    counted(number: u32, missing: usize)
        with (more = if missing == 1 { " is" } else { "s are" })
        = "Counted for request {number}; {missing} more approval{more} needed.";
    /// An approval of a request whose comment somebody changed.
    shown_was_changed(number: u32)
        = "somebody changed or deleted the comment that shows request {number}. It is put right: look at it, and `/approve {number}` if that is what you mean";
    /// An approval of a request that had not been shown.
    not_shown_yet(number: u32)
        = "request {number} had not been shown when this approval was given; look at it, and `/approve {number}` if that is what you mean";
    /// `/reject`.
    rejected(number: u32, cell: &crate::cell::CellId) = "Request {number} (cell `{cell}`) is rejected.";
    /// The label on an issue that came with it.
    label_was_there()
        = "The label `lazarus/approved` was on this issue when it was opened, or was left over. That approves nothing, so it was taken off; a director approves with `/approve`, or by adding the label now.";
    /// The label, by one who is no director.
    label_by_stranger(login: &str)
        = "{login} is not a director here, so the label approves nothing; it was taken off.";
    /// The label, by several who are no directors.
    label_by_strangers(logins: &str)
        = "{logins} are not directors here, so the label approves nothing; it was taken off.";
    /// The label, by a director. What came of it follows.
    label_taken_off(says: &str) = "The label `lazarus/approved` was taken off. {says}";
    /// A label of that name that is not the one that counts.
    label_approves_nothing(label: &str, why: &str) = "The label `{label}` on this issue approves nothing: {why}.";
    /// Why not: it is another one.
    label_is_another(id: i64, counts: i64, repository: &str)
        = "it is another label of that name (id {id}) than the one that counts (id {counts}). `/approve` works; where that one is gone, `lazarus init {repository}` pins another";
    /// Why not: none counts.
    label_is_off() = "approval by label is off here. `/approve` works";
}
