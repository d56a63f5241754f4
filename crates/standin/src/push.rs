//! What a push causes: its delivery, and updates of pull requests.

use serde_json::{Value, json};

use super::Forge;
use super::announce::Happening;
use super::deliveries::{Job, new_id};
use super::git::{Commit, unsigned};
use super::shapes::{Address, go_escapes};
use super::state::{Access, Id, now};

/// Most commits that are listed in a delivery.
const NAMED: usize = 30;

/// Announces that a branch now points at `after`; `None` means that it was deleted.
pub(super) async fn announce(
    forge: &Forge,
    repo: Id,
    doer: Id,
    branch: &str,
    before: Option<&str>,
    after: Option<&str>,
) {
    let default = {
        let mut state = forge.state();
        let Some(found) = state.repos.get_mut(&repo) else {
            return;
        };
        found.updated = now();
        found.empty = false;
        found.default_branch.clone()
    };
    // A deleted branch causes no push delivery.
    if let Some(after) = after {
        let default_sha = forge.git.branch(repo, &default).await.map(|c| c.id);
        let zeros = "0".repeat(40);
        let before = before.unwrap_or(&zeros);
        let (commits, total) = forge.git.pushed(repo, before, after, default_sha.as_deref(), NAMED).await;
        let mut shown: Vec<(Commit, [Vec<String>; 3])> = Vec::new();
        for commit in commits {
            let touched = forge.git.touched(repo, &commit.id).await;
            shown.push((commit, touched));
        }
        let state = forge.state();
        let Some(found) = state.repos.get(&repo) else {
            return;
        };
        let html = format!("{}/{}", state.root_url, state.full_name(found));
        let commits: Vec<Value> = shown
            .iter()
            .map(|(commit, touched)| {
                commit.payload_json(&html, |email| state.username_of(email), Value::Null, Some(touched))
            })
            .collect();
        let from = if before == zeros { default_sha.as_deref().unwrap_or(before) } else { before };
        let payload = json!({
            "ref": format!("refs/heads/{branch}"), "before": before, "after": after,
            "compare_url": format!("{html}/compare/{from}...{after}"),
            "head_commit": commits.first(), "commits": commits, "total_commits": total,
            // The delivery always states an owner's rights, whoever pushed.
            "repository": state.repo_json(found, Access::Owner),
            "pusher": state.user_json(doer, Address::NoReply, None),
            "sender": state.user_json(doer, Address::NoReply, None),
        });
        state.fire(repo, "push", "push", &payload);
    }
    let touched: Vec<(Id, String, String, bool)> = forge
        .state()
        .issues
        .values()
        .filter(|i| i.repo == repo && i.open)
        .filter_map(|i| i.pull.as_ref().map(|p| (i.id, p.base.clone(), p.head.clone(), p.head == branch)))
        .filter(|(_, base, head, _)| base == branch || head == branch)
        .collect();
    for (id, base, head, is_head) in touched {
        let Some(comparison) = forge.git.compare(repo, &base, &head).await else {
            continue;
        };
        let mut state = forge.state();
        if let Some(pull) = state.issues.get_mut(&id).and_then(|i| i.pull.as_mut()) {
            pull.comparison = comparison;
        }
        if is_head {
            state.announce(id, Happening::Synchronized, doer, None, None);
        }
    }
}

/// "Test delivery": a push that changes nothing. A hook that is not subscribed to pushes gets nothing, although the
/// call reports success.
pub(super) async fn test(forge: &Forge, repo: Id, doer: Id, hook: Id) {
    let Some(default) = forge.state().repos.get(&repo).map(|r| r.default_branch.clone()) else {
        return;
    };
    let Some(commit) = forge.git.branch(repo, &default).await else {
        return;
    };
    let state = forge.state();
    let (Some(found), Some(hook)) = (state.repos.get(&repo), state.hooks.get(&hook)) else {
        return;
    };
    if !hook.events.contains(&"push") || !hook.active {
        return;
    }
    let html = format!("{}/{}", state.root_url, state.full_name(found));
    let shown = commit.payload_json(&html, |email| state.username_of(email), unsigned(), None);
    let payload = json!({
        "ref": format!("refs/heads/{default}"), "before": commit.id, "after": commit.id,
        "compare_url": format!("{html}/compare/{0}...{0}", commit.id),
        "commits": [shown], "total_commits": 1, "head_commit": shown,
        "repository": state.repo_json(found, Access::None),
        "pusher": state.user_json(doer, Address::NoReply, None),
        "sender": state.user_json(doer, Address::NoReply, None),
    });
    let body = go_escapes(serde_json::to_string_pretty(&payload).unwrap_or_default());
    state.deliveries.push(Job {
        hook: hook.clone(),
        event: "push",
        event_type: "push",
        body: body.into(),
        id: new_id(),
    });
}
