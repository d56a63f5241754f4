//! Issues, comments, the timeline, reactions and attachments; and the web form with which a reader can set any
//! label.

use bytes::Bytes;
use serde_json::{Value, json};

use super::announce::Happening;
use super::api::{Call, parse_form};
use super::deliveries::new_id;
use super::reply::{Answer, Reply};
use super::shapes::Address;
use super::state::{
    Access, Asset, Entry, EntryKind, GHOST, Id, Issue, LabelOwner, Reaction, State, next, now, rfc3339,
};
use super::{Flavour, Forge};

/// The reactions that a forge allows by default.
pub(super) const REACTIONS: [&str; 8] = ["+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes"];

/// The extensions of attachments that a forge accepts by default.
const ENDINGS: [&str; 37] = [
    ".avif",
    ".cpuprofile",
    ".csv",
    ".dmp",
    ".docx",
    ".fodg",
    ".fodp",
    ".fods",
    ".fodt",
    ".gif",
    ".gz",
    ".jpeg",
    ".jpg",
    ".json",
    ".log",
    ".md",
    ".mov",
    ".mp4",
    ".odf",
    ".odg",
    ".odp",
    ".ods",
    ".odt",
    ".patch",
    ".pdf",
    ".png",
    ".pptx",
    ".svg",
    ".tgz",
    ".txt",
    ".webm",
    ".webp",
    ".xls",
    ".xlsx",
    ".zip",
    ".jsonc",
    ".dmpx",
];

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// The target of a reaction or attachment.
#[derive(Clone, Copy)]
enum Thing {
    Issue(Id),
    Comment(Id),
}

impl State {
    fn reactions(&mut self, thing: Thing) -> Option<&mut Vec<Reaction>> {
        match thing {
            Thing::Issue(id) => self.issues.get_mut(&id).map(|i| &mut i.reactions),
            Thing::Comment(id) => self.entries.get_mut(&id).map(|e| &mut e.reactions),
        }
    }

    fn assets(&mut self, thing: Thing) -> Option<&mut Vec<Asset>> {
        match thing {
            Thing::Issue(id) => self.issues.get_mut(&id).map(|i| &mut i.assets),
            Thing::Comment(id) => self.entries.get_mut(&id).map(|e| &mut e.assets),
        }
    }

    /// Adds an issue as if it had been opened at that time, without deliveries.
    pub(super) fn add_past_issue(&mut self, repo: Id, author: Id, title: String, body: String, at: i64) -> Id {
        let id = next(&mut self.seq.issue);
        let number = self.repos.get_mut(&repo).map_or(1, |r| next(&mut r.last_index));
        self.issues.insert(
            id,
            Issue {
                id,
                repo,
                number,
                author,
                original_author: String::new(),
                title,
                body,
                labels: vec![],
                assignees: vec![],
                milestone: None,
                open: true,
                locked: false,
                created: at,
                updated: at,
                closed: None,
                pull: None,
                reactions: vec![],
                assets: vec![],
            },
        );
        id
    }

    /// Opens an issue, records its labels and announces both.
    fn open_issue(&mut self, repo: Id, author: Id, title: &str, body: &str, labels: Vec<Id>) -> Id {
        let id = self.add_past_issue(repo, author, title.to_owned(), body.to_owned(), now());
        for label in &labels {
            self.record(id, author, EntryKind::Label { label: *label, added: true });
        }
        if let Some(issue) = self.issues.get_mut(&id) {
            issue.labels.clone_from(&labels);
        }
        self.announce(id, Happening::Opened, author, None, None);
        if !labels.is_empty() {
            self.announce(id, Happening::Labelled, author, None, None);
        }
        id
    }

    /// Whether somebody may not take part because the issue's author or the repository's owner blocked them.
    fn blocked(&self, repo: Id, author: Option<Id>, who: Id, access: Access) -> bool {
        if access >= Access::Admin {
            return false;
        }
        let owner = self.repos.get(&repo).map(|r| r.owner);
        [author, owner].into_iter().flatten().any(|id| self.accounts.get(&id).is_some_and(|a| a.blocked.contains(&who)))
    }

    /// Adds a label, and first removes another one of the same exclusive scope.
    fn attach_label(&mut self, issue: Id, label: Id, doer: Id) {
        let Some(found) = self.issues.get(&issue) else {
            return;
        };
        if found.labels.contains(&label) {
            return;
        }
        let scope = self.labels.get(&label).and_then(|l| l.scope()).map(str::to_owned);
        let rivals: Vec<Id> = found
            .labels
            .iter()
            .copied()
            .filter(|id| scope.is_some() && self.labels.get(id).and_then(|l| l.scope()) == scope.as_deref())
            .collect();
        for rival in rivals {
            self.detach_label(issue, rival, doer);
        }
        if let Some(found) = self.issues.get_mut(&issue) {
            found.labels.push(label);
        }
        self.record(issue, doer, EntryKind::Label { label, added: true });
    }

    fn detach_label(&mut self, issue: Id, label: Id, doer: Id) {
        let Some(found) = self.issues.get_mut(&issue) else {
            return;
        };
        let before = found.labels.len();
        found.labels.retain(|l| *l != label);
        if found.labels.len() != before {
            self.record(issue, doer, EntryKind::Label { label, added: false });
        }
    }
}

pub(super) fn answer(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    match (call.method, path) {
        ("GET", []) => list(call, repo),
        ("POST", []) => create(call, repo, access),
        ("GET", ["comments"]) => repository_comments(call, repo),
        (_, ["comments", id, rest @ ..]) => comment(call, repo, access, id, rest),
        (_, [index, rest @ ..]) => match index.parse::<i64>() {
            Ok(index) => one(call, repo, access, index, rest),
            Err(_) => Err(call.refuse().not_found()),
        },
        _ => Err(call.refuse().not_found()),
    }
}

fn list(call: &Call<'_>, repo: Id) -> Answer {
    let (since, before) = (call.time_argument("since")?, call.time_argument("before")?);
    let state = call.forge.state();
    let Some(found) = state.repos.get(&repo) else {
        return Err(call.refuse().not_found());
    };
    // Unknown label names are ignored; if none is left, so is the filter. If several labels have one of the names,
    // an issue must have all of them.
    let names: Vec<&str> = call.argument("labels").unwrap_or_default().split(',').filter(|n| !n.is_empty()).collect();
    let wanted: Vec<Id> = names
        .iter()
        .flat_map(|name| state.labels_named(LabelOwner::Repository(repo), name).collect::<Vec<_>>())
        .collect();
    let author = call.argument("created_by").filter(|n| !n.is_empty());
    if let Some(name) = author.filter(|name| state.account_by_login(name).is_none()) {
        let reason = format!("user does not exist [uid: 0, name: {name}]");
        return Err(call.refuse().not_found_because(Some(reason)));
    }
    let query = call.argument("q").unwrap_or_default().to_lowercase();
    let mut issues: Vec<&Issue> = state
        .issues
        .values()
        .filter(|i| i.repo == repo)
        .filter(|i| match call.argument("state") {
            Some("all") => true,
            Some("closed") => !i.open,
            _ => i.open,
        })
        .filter(|i| match call.argument("type") {
            Some("issues") => i.pull.is_none(),
            Some("pulls") => i.pull.is_some(),
            _ => true,
        })
        .filter(|i| since.is_none_or(|t| i.updated >= t) && before.is_none_or(|t| i.updated <= t))
        .filter(|i| wanted.iter().all(|id| i.labels.contains(id)))
        .filter(|i| author.is_none_or(|a| state.login(i.author).eq_ignore_ascii_case(a)))
        .filter(|i| {
            query.is_empty() || i.title.to_lowercase().contains(&query) || i.body.to_lowercase().contains(&query)
        })
        .collect();
    issues.sort_by_key(|i| std::cmp::Reverse((i.created, i.id)));
    let (offset, limit) = call.page();
    // Only the requested page is converted to JSON, because bodies can be large.
    let all: Vec<Value> = issues
        .iter()
        .enumerate()
        .map(|(at, issue)| {
            if at >= offset && at < offset.saturating_add(limit) {
                state.issue_json(found, issue, call.caller.account)
            } else {
                Value::Null
            }
        })
        .collect();
    drop(state);
    Ok(call.paginated(&all))
}

fn label_ids(call: &Call<'_>, state: &State, repo: Id, order: &Value) -> Result<Vec<Id>, Reply> {
    let wanted = order.get("labels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if wanted.iter().any(|w| !w.is_number() && !w.is_string()) {
        return Err(call.refuse().say(400, "a label must be an integer or a string"));
    }
    if wanted.iter().any(Value::is_number) && wanted.iter().any(Value::is_string) {
        return Err(call.refuse().say(400, "labels should be an array of strings or integers"));
    }
    let owner = state.repos.get(&repo).map_or(0, |r| r.owner);
    let mut ids = Vec::new();
    for wanted in wanted {
        let found: Vec<Id> = match wanted {
            Value::String(name) => state
                .labels_named(LabelOwner::Repository(repo), name)
                .chain(state.labels_named(LabelOwner::Organization(owner), name))
                .collect(),
            other => other.as_i64().filter(|id| state.label_fits(*id, repo)).into_iter().collect(),
        };
        // Unknown labels are ignored silently. A name stands for all labels that have it.
        for id in found {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// A title as it is stored. If it has more than 255 bytes it is truncated: to 252 bytes (Forgejo), or to 252
/// columns on a screen (Gitea's estimate).
pub(super) fn kept_title(flavour: Flavour, title: &str) -> String {
    if title.len() <= 255 {
        return title.to_owned();
    }
    let width = |c: char| match (flavour, u32::from(c)) {
        (Flavour::Forgejo, _) => c.len_utf8(),
        (Flavour::Gitea, 0..=0xff) => 1,
        // The real server also counts marks and spaces as one; no title here has that many.
        (Flavour::Gitea, _) => 2,
    };
    let mut kept = String::new();
    let mut used = 0;
    for c in title.chars() {
        used += width(c);
        if used > 252 {
            break;
        }
        kept.push(c);
    }
    if kept.len() == title.len() { kept } else { kept + "…" }
}

fn create(call: &Call<'_>, repo: Id, access: Access) -> Answer {
    let me = call.me()?;
    let order = call.json()?;
    let title = text(&order, "title").unwrap_or_default();
    if title.is_empty() {
        return Err(call.refuse().say(422, "[Title]: Required"));
    }
    let mut state = call.forge.state();
    if state.blocked(repo, None, me, access) {
        return Err(call.refuse().blocked());
    }
    // Labels that a reader may not set are dropped silently.
    let labels = if access >= Access::Write { label_ids(call, &state, repo, &order)? } else { vec![] };
    let id = state.open_issue(
        repo,
        me,
        kept_title(call.flavour(), title).trim(),
        text(&order, "body").unwrap_or_default(),
        labels,
    );
    if access >= Access::Write {
        set_assignees(&mut state, id, me, &order);
        set_milestone(&mut state, id, me, &order);
    }
    shown_issue(call, &state, id, 201)
}

fn shown_issue(call: &Call<'_>, state: &State, id: Id, status: u16) -> Answer {
    let found = state.issues.get(&id).and_then(|i| state.repos.get(&i.repo).map(|r| (r, i)));
    match found {
        Some((repo, issue)) => Ok(Reply::json(status, &state.issue_json(repo, issue, call.caller.account))),
        None => Err(call.refuse().not_found()),
    }
}

/// `POST /{owner}/{repo}/issues/new`, as the web page sends it. Here the labels that a reader sets are *not*
/// dropped. Because of this hole in the real servers, a label on a new issue proves nothing.
pub(super) fn open_by_form(call: &Call<'_>, owner: &str, name: &str) -> Answer {
    let me = call.me()?;
    let mut state = call.forge.state();
    let found = call.repo(&state, owner, name);
    let (repo, access) = found?;
    if state.repos.get(&repo).is_some_and(|r| r.archived_at.is_some()) {
        return Err(Reply::text(404, "Not found.\n"));
    }
    let fields = parse_form(&String::from_utf8_lossy(&call.body));
    let field = |key: &str| fields.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
    if field("title").trim().is_empty() {
        return Err(call.refuse().say(400, "The title cannot be empty."));
    }
    if state.blocked(repo, None, me, access) {
        return Err(call.refuse().blocked());
    }
    let mut labels: Vec<Id> = Vec::new();
    for id in field("label_ids").split(',').filter_map(|id| id.trim().parse::<i64>().ok()) {
        if state.label_fits(id, repo) && !labels.contains(&id) {
            labels.push(id);
        }
    }
    let id = state.open_issue(repo, me, kept_title(call.flavour(), field("title")).trim(), field("content"), labels);
    let (number, full) = match (state.issues.get(&id), state.repos.get(&repo)) {
        (Some(issue), Some(repo)) => (issue.number, state.full_name(repo)),
        _ => return Err(call.refuse().not_found()),
    };
    Ok(Reply::json(200, &json!({"redirect": format!("/{full}/issues/{number}")})))
}

fn set_assignees(state: &mut State, issue: Id, doer: Id, order: &Value) {
    let names: Option<Vec<&str>> = match (order.get("assignees"), text(order, "assignee")) {
        (Some(Value::Array(all)), _) => Some(all.iter().filter_map(Value::as_str).collect()),
        (_, Some(name)) if !name.is_empty() => Some(vec![name]),
        _ => None,
    };
    let Some(names) = names else { return };
    let wanted: Vec<Id> = names.iter().filter_map(|n| state.account_by_login(n)).map(|a| a.id).collect();
    let Some(present) = state.issues.get(&issue).map(|i| i.assignees.clone()) else {
        return;
    };
    for who in present.iter().filter(|id| !wanted.contains(id)) {
        if let Some(found) = state.issues.get_mut(&issue) {
            found.assignees.retain(|id| id != who);
        }
        state.record(issue, doer, EntryKind::Assignee { assignee: *who, removed: true });
        state.announce(issue, Happening::Unassigned, doer, None, None);
    }
    for who in wanted.iter().filter(|id| !present.contains(id)) {
        if let Some(found) = state.issues.get_mut(&issue) {
            found.assignees.push(*who);
        }
        state.record(issue, doer, EntryKind::Assignee { assignee: *who, removed: false });
        state.announce(issue, Happening::Assigned, doer, None, None);
    }
}

fn set_milestone(state: &mut State, issue: Id, doer: Id, order: &Value) {
    let Some(wanted) = order.get("milestone").and_then(Value::as_i64) else {
        return;
    };
    let new = Some(wanted).filter(|id| state.milestones.contains_key(id));
    let Some(found) = state.issues.get_mut(&issue) else {
        return;
    };
    let old = found.milestone;
    if old == new {
        return;
    }
    found.milestone = new;
    state.record(issue, doer, EntryKind::Milestone { old, new });
    let what = if new.is_some() { Happening::Milestoned } else { Happening::Demilestoned };
    state.announce(issue, what, doer, None, None);
}

/// Forgejo allows owners to state when something was changed.
fn stated_time(call: &Call<'_>, access: Access, order: &Value) -> Option<i64> {
    if call.flavour() != Flavour::Forgejo || access < Access::Owner {
        return None;
    }
    text(order, "updated_at")?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn one(call: &Call<'_>, repo: Id, access: Access, index: i64, path: &[&str]) -> Answer {
    let mut state = call.forge.state();
    let missing = || match path {
        ["comments" | "timeline"] => call.refuse().no_issue(repo, index),
        _ => call.refuse().not_found(),
    };
    let (id, author, locked) =
        state.issue_by_number(repo, index).map(|i| (i.id, i.author, i.locked)).ok_or_else(missing)?;
    let writes = access >= Access::Write;
    match (call.method, path) {
        ("GET", []) => shown_issue(call, &state, id, 200),
        ("PATCH", []) => {
            let me = call.me()?;
            if me != author && !writes {
                return Err(Reply::empty(403));
            }
            let order = call.json()?;
            edit(&mut state, id, me, writes, &order);
            if let (Some(at), Some(issue)) = (stated_time(call, access, &order), state.issues.get_mut(&id)) {
                issue.updated = at;
            }
            shown_issue(call, &state, id, 201)
        }
        ("DELETE", []) => {
            let me = call.me()?;
            if access < Access::Admin {
                return Err(call
                    .refuse()
                    .say(403, "user should be an owner or a collaborator with admin write of a repository"));
            }
            state.announce(id, Happening::Deleted, me, None, None);
            state.issues.remove(&id);
            state.entries.retain(|_, e| e.issue != id);
            Ok(Reply::empty(204))
        }
        ("PUT" | "DELETE", ["lock"]) => {
            let me = call.me()?;
            if call.flavour() == Flavour::Forgejo {
                return Err(Reply::text(404, "404 page not found\n"));
            }
            if !writes {
                return Err(Reply::empty(403));
            }
            let lock = call.method == "PUT";
            let reason = text(&call.json()?, "lock_reason").unwrap_or_default().to_owned();
            if locked != lock {
                if let Some(issue) = state.issues.get_mut(&id) {
                    issue.locked = lock;
                }
                state.record(id, me, if lock { EntryKind::Lock { reason } } else { EntryKind::Unlock });
            }
            Ok(Reply::empty(204))
        }
        ("GET", ["comments"]) => {
            let (since, before) = (call.time_argument("since")?, call.time_argument("before")?);
            let all: Vec<Value> = state
                .entries_by_time(|e| e.issue == id && matches!(e.kind, EntryKind::Comment { .. }))
                .filter(|e| since.is_none_or(|t| e.updated >= t) && before.is_none_or(|t| e.updated <= t))
                .map(|e| state.comment_json(e))
                .collect();
            // Whatever page is requested, this list is complete.
            Ok(Reply::json(200, &Value::Array(all.clone())).with("X-Total-Count", all.len()))
        }
        ("POST", ["comments"]) => {
            let me = call.me()?;
            let order = call.json()?;
            let body = text(&order, "body").unwrap_or_default();
            if body.is_empty() {
                return Err(call.refuse().say(422, "[Body]: Required"));
            }
            if locked && !writes {
                return Err(call.refuse().say(403, "You cannot comment on a locked issue."));
            }
            if state.blocked(repo, Some(author), me, access) {
                return Err(call.refuse().blocked());
            }
            let comment = state.record(id, me, EntryKind::Comment { body: body.to_owned() });
            if let (Some(at), Some(entry)) = (stated_time(call, access, &order), state.entries.get_mut(&comment)) {
                entry.created = at;
                entry.updated = at;
            }
            state.announce_comment(comment, "created", me, None);
            shown_comment(call, &state, comment, 201)
        }
        ("GET", ["timeline"]) => {
            let (since, before) = (call.time_argument("since")?, call.time_argument("before")?);
            let (offset, limit) = call.strict_page_if_asked();
            let shown: Vec<Value> = state
                .entries_by_time(|e| e.issue == id)
                .filter(|e| since.is_none_or(|t| e.updated >= t) && before.is_none_or(|t| e.updated <= t))
                .skip(offset)
                .take(limit)
                .map(|e| state.timeline_json(e))
                .collect();
            // The count is that of the page, not the total. An empty list is `null`.
            let list = if shown.is_empty() { Value::Null } else { Value::Array(shown.clone()) };
            Ok(Reply::json(200, &list).with("X-Total-Count", shown.len()))
        }
        (_, ["labels", rest @ ..]) => labels(call, &mut state, repo, id, writes, rest),
        (_, ["reactions"]) => {
            if call.method != "GET" && locked && !writes {
                return Err(call.refuse().say(403, "no permission to change reaction"));
            }
            reactions(call, &mut state, repo, access, Some(author), Thing::Issue(id))
        }
        (_, ["assets", rest @ ..]) => {
            let me = call.caller.account;
            assets(call, &mut state, writes || me == Some(author), Thing::Issue(id), rest)
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn edit(state: &mut State, id: Id, me: Id, writes: bool, order: &Value) {
    let (at, flavour) = (now(), state.flavour);
    let Some(issue) = state.issues.get_mut(&id) else {
        return;
    };
    let old_title = text(order, "title").filter(|t| !t.is_empty() && *t != issue.title).map(|new| {
        issue.updated = at;
        std::mem::replace(&mut issue.title, kept_title(flavour, new))
    });
    // Saving an unchanged text counts as an edit, too.
    let old_body = text(order, "body").map(|new| {
        issue.updated = at;
        std::mem::replace(&mut issue.body, new.to_owned())
    });
    let new_title = issue.title.clone();
    if let Some(old) = old_title {
        state.record(id, me, EntryKind::Title { old: old.clone(), new: new_title });
        state.announce(id, Happening::Edited, me, Some(("title", &old)), None);
    }
    if let Some(old) = old_body {
        // The timeline does not mention it.
        state.announce(id, Happening::Edited, me, Some(("body", &old)), None);
    }
    if writes {
        set_assignees(state, id, me, order);
        set_milestone(state, id, me, order);
    }
    let wanted = match text(order, "state") {
        Some("open") => true,
        Some("closed") => false,
        _ => return,
    };
    let Some(issue) = state.issues.get_mut(&id).filter(|i| i.open != wanted) else {
        return;
    };
    issue.open = wanted;
    issue.closed = if wanted { None } else { Some(at) };
    state.record(id, me, if wanted { EntryKind::Reopen } else { EntryKind::Close });
    state.announce(id, if wanted { Happening::Reopened } else { Happening::Closed }, me, None, None);
}

fn labels(call: &Call<'_>, state: &mut State, repo: Id, issue: Id, writes: bool, path: &[&str]) -> Answer {
    let shown = |state: &State| {
        let ids = state.issues.get(&issue).map(|i| i.labels.clone()).unwrap_or_default();
        Reply::json(200, &state.labels_json(&ids))
    };
    if call.method == "GET" && path.is_empty() {
        return Ok(shown(state));
    }
    let me = call.me()?;
    if !writes {
        return Err(match (call.flavour(), call.method) {
            (_, "DELETE") => Reply::empty(403),
            (Flavour::Gitea, _) => call.refuse().say(403, "write permission is required"),
            // Forgejo answers with its page for server errors.
            (Flavour::Forgejo, _) => Reply {
                status: 403,
                content_type: "text/html; charset=utf-8",
                headers: vec![],
                body: Bytes::from_static(
                    b"<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>Internal server error</title></head>\n<body><h1>500</h1></body>\n</html>\n",
                ),
            },
        });
    }
    if call.method == "DELETE"
        && call.flavour() == Flavour::Forgejo
        && call.body.is_empty()
        && call.headers.contains_key("content-type")
    {
        return Err(call.refuse().say(422, "EOF"));
    }
    match (call.method, path) {
        ("POST", []) => {
            for label in label_ids(call, state, repo, &call.json()?)? {
                state.attach_label(issue, label, me);
            }
            // Announced even if nothing was added.
            state.announce(issue, Happening::Labelled, me, None, None);
            Ok(shown(state))
        }
        ("PUT", []) => {
            let wanted = label_ids(call, state, repo, &call.json()?)?;
            let before = state.issues.get(&issue).map(|i| i.labels.clone()).unwrap_or_default();
            for label in wanted.iter().filter(|l| !before.contains(l)) {
                state.attach_label(issue, *label, me);
            }
            for label in before.iter().filter(|l| !wanted.contains(l)) {
                state.detach_label(issue, *label, me);
            }
            // Gitea's delivery omits the labels here.
            let forgotten: Option<&[Id]> = if state.flavour == Flavour::Gitea { Some(&[]) } else { None };
            state.announce(issue, Happening::Labelled, me, None, forgotten);
            Ok(shown(state))
        }
        ("DELETE", []) => {
            let before = state.issues.get(&issue).map(|i| i.labels.clone()).unwrap_or_default();
            for label in &before {
                state.detach_label(issue, *label, me);
            }
            // The delivery states the labels from before the change.
            state.announce(issue, Happening::LabelsCleared, me, None, Some(&before));
            Ok(Reply::empty(204))
        }
        ("DELETE", [which]) => {
            let label = which.parse::<i64>().ok().filter(|id| state.labels.contains_key(id));
            let Some(label) = label else {
                return Err(call.refuse().say(422, "label does not exist [label_id: 0]"));
            };
            state.detach_label(issue, label, me);
            state.announce(issue, Happening::Labelled, me, None, None);
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn repository_comments(call: &Call<'_>, repo: Id) -> Answer {
    let (since, before) = (call.time_argument("since")?, call.time_argument("before")?);
    let state = call.forge.state();
    let found: Vec<&Entry> = state
        .entries_by_time(|e| matches!(e.kind, EntryKind::Comment { .. }))
        .filter(|e| state.issues.get(&e.issue).is_some_and(|i| i.repo == repo))
        .filter(|e| since.is_none_or(|t| e.updated >= t) && before.is_none_or(|t| e.updated <= t))
        .collect();
    let total = found.len();
    // A limit without a page has no effect, the count is correct, and there are no links.
    let (offset, limit) = call.strict_page_if_asked();
    let shown: Vec<Value> = found.into_iter().skip(offset).take(limit).map(|e| state.comment_json(e)).collect();
    Ok(Reply::json(200, &Value::Array(shown)).with("X-Total-Count", total))
}

fn shown_comment(call: &Call<'_>, state: &State, id: Id, status: u16) -> Answer {
    match state.entries.get(&id) {
        Some(entry) => Ok(Reply::json(status, &state.comment_json(entry))),
        None => Err(call.refuse().not_found()),
    }
}

fn comment(call: &Call<'_>, repo: Id, access: Access, id: &str, path: &[&str]) -> Answer {
    let mut state = call.forge.state();
    let parsed = id.parse::<i64>().unwrap_or(0);
    let found = state
        .entries
        .get(&parsed)
        .and_then(|e| state.issues.get(&e.issue).map(|i| (e, i)))
        .filter(|(_, i)| i.repo == repo)
        .map(|(e, i)| (e.id, e.author, matches!(e.kind, EntryKind::Comment { .. }), i.author, i.locked));
    let Some((id, author, is_comment, issue_author, locked)) = found else {
        return Err(call
            .refuse()
            .not_found_because(Some(format!("comment does not exist [id: {parsed}, issue_id: 0]"))));
    };
    if !is_comment {
        return Ok(Reply::empty(204));
    }
    let writes = access >= Access::Write;
    let mine = call.caller.account == Some(author);
    match (call.method, path) {
        // A single comment cannot be shown if its author's account was deleted. One that was never by an account
        // here can.
        ("GET", []) if author != GHOST && !state.accounts.contains_key(&author) => Err(call.refuse().say(500, "")),
        ("GET", []) => shown_comment(call, &state, id, 200),
        ("PATCH", []) => {
            let me = call.me()?;
            if !mine && !writes {
                return Err(Reply::empty(403));
            }
            let order = call.json()?;
            let body = text(&order, "body").unwrap_or_default();
            if body.is_empty() {
                return Err(call.refuse().say(422, "[Body]: Required"));
            }
            let mut old = None;
            let mut same = true;
            if let Some(entry) = state.entries.get_mut(&id)
                && let EntryKind::Comment { body: present } = &mut entry.kind
                // For Gitea, saving an unchanged text is not an edit.
                && (present != body || call.flavour() == Flavour::Forgejo)
            {
                old = Some(std::mem::replace(present, body.to_owned()));
                same = false;
                // The issue's own time does not change.
                entry.updated = stated_time(call, access, &order).unwrap_or_else(now);
            }
            if let Some(old) = old {
                state.announce_comment(id, "edited", me, Some(&old));
            }
            if same {
                // If nothing changed, the answer omits the author.
                let mut shown = state.entries.get(&id).map_or(Value::Null, |e| state.comment_json(e));
                super::shapes::merge(&mut shown, json!({"user": null}));
                return Ok(Reply::json(200, &shown));
            }
            shown_comment(call, &state, id, 200)
        }
        ("DELETE", []) => {
            let me = call.me()?;
            if !mine && !writes {
                return Err(Reply::empty(403));
            }
            state.announce_comment(id, "deleted", me, None);
            state.entries.remove(&id);
            Ok(Reply::empty(204))
        }
        (_, ["reactions"]) => {
            if call.method != "GET" && locked && !writes {
                return Err(call.refuse().say(403, "no permission to change reaction"));
            }
            reactions(call, &mut state, repo, access, Some(issue_author), Thing::Comment(id))
        }
        (_, ["assets", rest @ ..]) => assets(call, &mut state, mine || writes, Thing::Comment(id), rest),
        _ => Err(call.refuse().not_found()),
    }
}

fn reactions(call: &Call<'_>, state: &mut State, repo: Id, access: Access, author: Option<Id>, thing: Thing) -> Answer {
    if call.method == "GET" {
        let all: Vec<(Id, String, String, i64)> = state
            .reactions(thing)
            .map(|all| all.iter().map(|r| (r.user, r.original.clone(), r.content.clone(), r.created)).collect())
            .unwrap_or_default();
        let shown: Vec<Value> = all
            .into_iter()
            .map(|(user, original, content, created)| {
                json!({
                    "user": state.reactor_json(user, &original, call.caller.account),
                    "content": content, "created_at": rfc3339(created),
                })
            })
            .collect();
        // Reactions to an issue are paginated, those to a comment are not. An empty list is `null`.
        let counted = match thing {
            Thing::Issue(_) => Reply::part(&shown, call.strict_page_if_asked()),
            Thing::Comment(_) => Reply::json(200, &Value::Array(shown.clone())),
        };
        if shown.is_empty() {
            return Ok(Reply { body: Reply::json(200, &Value::Null).body, ..counted });
        }
        return Ok(counted);
    }
    let me = call.me()?;
    let content = text(&call.json()?, "content").unwrap_or_default().to_owned();
    let user = state.user_json(me, Address::Real, call.caller.account);
    let is_blocked = state.blocked(repo, author, me, access);
    let Some(all) = state.reactions(thing) else {
        return Err(call.refuse().not_found());
    };
    let present = all.iter().find(|r| r.user == me && r.content == content).map(|r| r.created);
    let shown = |at: i64| json!({"user": user, "content": content, "created_at": rfc3339(at)});
    match call.method {
        "POST" if !REACTIONS.contains(&content.as_str()) => {
            Err(call.refuse().say(403, format!("'{content}' is not an allowed reaction")))
        }
        "POST" if is_blocked => Err(call.refuse().blocked()),
        "POST" => {
            if let Some(at) = present {
                return Ok(Reply::json(200, &shown(at)));
            }
            let created = now();
            all.push(Reaction { user: me, original: String::new(), content: content.clone(), created });
            Ok(Reply::json(201, &shown(created)))
        }
        "DELETE" => {
            all.retain(|r| r.user != me || r.content != content);
            Ok(Reply::empty(200))
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack.get(from..)?.iter().position(|b| *b == first) {
        let at = from + at;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The file of a multipart form: name and content of the field `attachment`.
fn attached(call: &Call<'_>) -> Option<(String, Bytes)> {
    let kind = call.headers.get("content-type")?.to_str().ok()?;
    let boundary = kind.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?.trim_matches('"');
    let opening = format!("--{boundary}\r\n");
    let closing = format!("\r\n--{boundary}");
    let mut at = find(&call.body, opening.as_bytes())? + opening.len();
    loop {
        let head_end = at + find(call.body.get(at..)?, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(call.body.get(at..head_end)?).into_owned();
        let start = head_end + 4;
        let end = start + find(call.body.get(start..)?, closing.as_bytes())?;
        let parameter = |key: &str| {
            head.split(['\n', ';'])
                .find_map(|p| p.trim().strip_prefix(key))
                .map(|v| v.trim().trim_matches('"').to_owned())
        };
        if parameter("name=").as_deref() == Some("attachment") {
            return Some((parameter("filename=").unwrap_or_default(), call.body.slice(start..end)));
        }
        at = end + closing.len() + 2;
    }
}

fn assets(call: &Call<'_>, state: &mut State, may_write: bool, thing: Thing, path: &[&str]) -> Answer {
    let present = state.assets(thing).map(|a| a.clone()).unwrap_or_default();
    let id = path.first().and_then(|id| id.parse::<i64>().ok());
    let one = present.iter().find(|a| Some(a.id) == id);
    match (call.method, path) {
        ("GET", []) => Ok(Reply::json(200, &present.iter().map(|a| state.asset_json(a)).collect())),
        ("GET", [_]) => one.map(|a| Reply::json(200, &state.asset_json(a))).ok_or_else(|| call.refuse().not_found()),
        (_, _) if call.me().is_ok() && !may_write => {
            Err(call.refuse().say(403, "user should have permission to write attachment"))
        }
        ("POST", []) => {
            let me = call.me()?;
            let Some((file, data)) = attached(call) else {
                return Err(call.refuse().say(400, "http: no such file"));
            };
            let name = call.argument("name").filter(|n| !n.is_empty()).map_or(file, str::to_owned);
            let lower = name.to_lowercase();
            if !ENDINGS.iter().any(|e| lower.ends_with(e)) {
                return Err(call.refuse().say(
                    422,
                    match call.flavour() {
                        Flavour::Gitea => {
                            "This file cannot be uploaded or modified due to a forbidden file extension or type."
                        }
                        Flavour::Forgejo => "This file extension or type is not allowed to be uploaded.",
                    },
                ));
            }
            let asset = Asset { id: next(&mut state.seq.asset), name, uuid: new_id(), created: now(), data };
            let shown = state.asset_json(&asset);
            if let Some(all) = state.assets(thing) {
                all.push(asset);
            }
            if let Thing::Comment(id) = thing {
                let same = match state.entries.get(&id).map(|e| &e.kind) {
                    Some(EntryKind::Comment { body }) => body.clone(),
                    _ => String::new(),
                };
                // An upload counts as an edit with an unchanged text.
                state.announce_comment(id, "edited", me, Some(&same));
            }
            Ok(Reply::json(201, &shown))
        }
        ("DELETE", [_]) => {
            call.me()?;
            let Some(gone) = one.map(|a| a.id) else {
                return Err(call.refuse().not_found());
            };
            if let Some(all) = state.assets(thing) {
                all.retain(|a| a.id != gone);
            }
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}

/// `GET /attachments/{uuid}`. There is no check of who asks: only the secret URL protects the file.
pub(super) fn download(forge: &Forge, uuid: &str) -> Option<Bytes> {
    let state = forge.state();
    let all = state.issues.values().flat_map(|i| &i.assets).chain(state.entries.values().flat_map(|e| &e.assets));
    all.into_iter().find(|a| a.uuid == uuid).map(|a| a.data.clone())
}
