//! Pull requests between branches of one repository.

use serde_json::{Value, json};

use super::Flavour;
use super::announce::Happening;
use super::api::Call;
use super::issues;
use super::reply::{Answer, Reply};
use super::state::{Access, EntryKind, Id, Issue, Pull, State, next, now};

pub(super) async fn answer(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    match (call.method, path) {
        ("GET", []) => list(call, repo, access),
        ("POST", []) => create(call, repo, access).await,
        ("GET", [base, head @ ..]) if !head.is_empty() && base.parse::<i64>().is_err() => {
            let head = head.join("/");
            let state = call.forge.state();
            // The newest one, open or not, as on the real servers.
            let found = state
                .issues
                .values()
                .rev()
                .find(|i| i.repo == repo && i.pull.as_ref().is_some_and(|p| p.base == *base && p.head == head));
            shown(call, &state, found, access, 200)
        }
        ("GET", [index]) => {
            let state = call.forge.state();
            let found =
                index.parse::<i64>().ok().and_then(|n| state.issue_by_number(repo, n)).filter(|i| i.pull.is_some());
            shown(call, &state, found, access, 200)
        }
        ("PATCH", [index]) => {
            // An edit uses the fields that issues have too.
            let index_number = index.parse::<i64>().unwrap_or(0);
            let pull = call.forge.state().issue_by_number(repo, index_number).is_some_and(|i| i.pull.is_some());
            if !pull {
                return Err(call.refuse().not_found());
            }
            issues::answer(call, repo, access, &[index])?;
            let state = call.forge.state();
            shown(call, &state, state.issue_by_number(repo, index_number), access, 201)
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn shown(call: &Call<'_>, state: &State, issue: Option<&Issue>, access: Access, status: u16) -> Answer {
    match issue.and_then(|i| state.repos.get(&i.repo).map(|r| (r, i))) {
        Some((repo, issue)) => {
            Ok(Reply::json(status, &state.pull_json(repo, issue, call.caller.account, access, false)))
        }
        None => Err(call.refuse().not_found()),
    }
}

fn list(call: &Call<'_>, repo: Id, access: Access) -> Answer {
    let state = call.forge.state();
    let Some(found) = state.repos.get(&repo) else {
        return Err(call.refuse().not_found());
    };
    let all: Vec<Value> = state
        .issues
        .values()
        .rev()
        .filter(|i| i.repo == repo && i.pull.is_some())
        .filter(|i| match call.argument("state") {
            Some("all") => true,
            Some("closed") => !i.open,
            _ => i.open,
        })
        .map(|i| state.pull_json(found, i, call.caller.account, access, true))
        .collect();
    drop(state);
    Ok(call.paginated(&all))
}

async fn create(call: &Call<'_>, repo: Id, access: Access) -> Answer {
    let me = call.me()?;
    let order = call.json()?;
    let text = |key: &str| order.get(key).and_then(Value::as_str).unwrap_or_default();
    let (base, title) = (text("base"), text("title"));
    // `owner:branch` means the same if the owner is this repository's.
    let head = text("head").rsplit(':').next().unwrap_or_default();
    for (field, value) in [("Head", head), ("Base", base), ("Title", title)] {
        if value.is_empty() {
            return Err(call.refuse().say(422, format!("[{field}]: Required")));
        }
    }
    if head == base {
        return Err(call.refuse().say(422, "Invalid PullRequest: There are no changes between the head and the base"));
    }
    // A caller who cannot read has no branch here to offer.
    if access < Access::Read {
        return Err(call.refuse().not_found());
    }
    let Some(comparison) = call.forge.git.compare(repo, base, head).await else {
        return Err(match call.flavour() {
            Flavour::Gitea => call.refuse().not_found(),
            Flavour::Forgejo => {
                let what =
                    if call.forge.git.branch(repo, base).await.is_none() { "BaseNotExist" } else { "IsRefExist" };
                Reply::json(404, &json!({"message": what, "url": call.refuse().help(), "errors": []}))
            }
        });
    };
    let (commits, _) =
        call.forge.git.pushed(repo, &comparison.merge_base, &comparison.head_sha, None, usize::MAX).await;
    let commits: Vec<String> = commits.into_iter().map(|commit| commit.id).collect();
    let mut state = call.forge.state();
    let present = state
        .issues
        .values()
        .find(|i| i.repo == repo && i.open && i.pull.as_ref().is_some_and(|p| p.base == base && p.head == head));
    if let Some((issue, pull)) = present.and_then(|i| i.pull.as_ref().map(|p| (i.id, p.id))) {
        return Err(call.refuse().say(409, format!(
            "pull request already exists for these targets [id: {pull}, issue_id: {issue}, head_repo_id: {repo}, base_repo_id: {repo}, head_branch: {head}, base_branch: {base}]"
        )));
    }
    let id = next(&mut state.seq.issue);
    let pull = next(&mut state.seq.pull);
    let number = state.repos.get_mut(&repo).map_or(1, |r| next(&mut r.last_index));
    let at = now();
    state.issues.insert(
        id,
        Issue {
            id,
            repo,
            number,
            author: me,
            original_author: String::new(),
            title: issues::kept_title(call.flavour(), title).trim().to_owned(),
            body: text("body").to_owned(),
            labels: vec![],
            assignees: vec![],
            milestone: None,
            open: true,
            locked: false,
            created: at,
            updated: at,
            closed: None,
            pull: Some(Pull { id: pull, head: head.to_owned(), base: base.to_owned(), comparison }),
            reactions: vec![],
            assets: vec![],
        },
    );
    state.record(id, me, EntryKind::Push { commits });
    state.announce(id, Happening::Opened, me, None, None);
    let mut reply = shown(call, &state, state.issues.get(&id), access, 201)?;
    // Both sides are shown from before it was counted.
    if let Ok(mut json) = serde_json::from_slice::<Value>(&reply.body) {
        for side in ["/base/repo/open_pr_counter", "/head/repo/open_pr_counter"] {
            if let Some(count) = json.pointer_mut(side) {
                *count = json!(count.as_i64().unwrap_or(1) - 1);
            }
        }
        reply.body = Reply::json(201, &json).body;
    }
    Ok(reply)
}
