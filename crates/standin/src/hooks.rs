//! Hooks of repositories, organisations and the whole server.

use serde_json::{Value, json};

use super::Flavour;
use super::api::Call;
use super::push;
use super::reply::{Answer, Reply};
use super::state::{Hook, HookOwner, Id, State, next, now};

/// Expands the word of a subscription to the words that a hook's event list shows.
fn expand(flavour: Flavour, words: &[&str]) -> Vec<&'static str> {
    const ISSUES: [&str; 5] = ["issues", "issue_assign", "issue_label", "issue_milestone", "issue_comment"];
    const PULLS: [&str; 5] =
        ["pull_request", "pull_request_assign", "pull_request_label", "pull_request_milestone", "pull_request_comment"];
    const PULLS_GITEA: [&str; 3] = ["pull_request_review", "pull_request_sync", "pull_request_review_request"];
    const PULLS_FORGEJO: [&str; 5] = [
        "pull_request_review_approved",
        "pull_request_review_rejected",
        "pull_request_review_comment",
        "pull_request_sync",
        "pull_request_review_request",
    ];
    const OTHERS: [&str; 9] =
        ["push", "create", "delete", "fork", "release", "wiki", "repository", "package", "status"];
    let reviews: &[&'static str] = match flavour {
        Flavour::Gitea => &PULLS_GITEA,
        Flavour::Forgejo => &PULLS_FORGEJO,
    };
    let has = |word: &str| words.contains(&word);
    let mut events = Vec::new();
    events.extend(OTHERS.iter().filter(|e| has(e)));
    events.extend(ISSUES.iter().filter(|e| has(e) || has("issues") || (**e == "issues" && has("issues_only"))));
    events.extend(
        PULLS
            .iter()
            .chain(reviews)
            .filter(|e| has(e) || has("pull_request") || (**e == "pull_request" && has("pull_request_only"))),
    );
    events
}

fn events(call: &Call<'_>, order: &Value) -> Vec<&'static str> {
    let words: Vec<&str> = order
        .get("events")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    // Without events, a hook is subscribed to pushes, both when it is created and when it is changed.
    if words.is_empty() { vec!["push"] } else { expand(call.flavour(), &words) }
}

fn find(state: &State, owner: HookOwner, id: &str) -> Option<i64> {
    id.parse::<i64>().ok().filter(|id| state.hooks.get(id).is_some_and(|h| h.owner == owner))
}

/// `GET /admin/hooks`: system hooks, or on Gitea those that `type` selects. The answer has no total count.
pub(super) fn of_server(call: &Call<'_>) -> Reply {
    let state = call.forge.state();
    let wanted: &[HookOwner] = match (call.flavour(), call.argument("type")) {
        (Flavour::Gitea, Some("default")) => &[HookOwner::Default],
        (Flavour::Gitea, Some("all")) => &[HookOwner::System, HookOwner::Default],
        _ => &[HookOwner::System],
    };
    Reply::json(200, &state.hooks.values().filter(|h| wanted.contains(&h.owner)).map(|h| state.hook_json(h)).collect())
}

/// Copies the server's default hooks to a new repository.
pub(super) fn copy_defaults(state: &mut State, repo: Id) {
    let copies: Vec<Hook> = state.hooks.values().filter(|h| h.owner == HookOwner::Default).cloned().collect();
    for mut hook in copies {
        hook.id = next(&mut state.seq.hook);
        hook.owner = HookOwner::Repository(repo);
        hook.created = now();
        hook.updated = hook.created;
        state.hooks.insert(hook.id, hook);
    }
}

pub(super) async fn answer(call: &Call<'_>, owner: HookOwner, path: &[&str]) -> Answer {
    let me = call.me()?;
    if let ("POST", [id, "tests"], HookOwner::Repository(repo)) = (call.method, path, owner) {
        let Some(hook) = find(&call.forge.state(), owner, id) else {
            return Err(call.refuse().not_found());
        };
        push::test(call.forge, repo, me, hook).await;
        return Ok(Reply::empty(204));
    }
    let mut state = call.forge.state();
    match (call.method, path) {
        ("GET", []) => {
            let all: Vec<Value> =
                state.hooks.values().filter(|h| h.owner == owner).map(|h| state.hook_json(h)).collect();
            drop(state);
            Ok(Reply::part(&all, call.page_if_asked()))
        }
        ("POST", []) => {
            let order = call.json()?;
            let config = order.get("config").cloned().unwrap_or_else(|| json!({}));
            let setting = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = order.get("type").and_then(Value::as_str).unwrap_or_default();
            let known: &[&str] = match call.flavour() {
                Flavour::Gitea => &["gitea", "gogs"],
                Flavour::Forgejo => &["forgejo", "gitea", "gogs"],
            };
            if kind.is_empty() {
                return Err(call.refuse().say(422, "[Type]: Required"));
            }
            if !known.contains(&kind) {
                return Err(call.refuse().say(422, format!("Invalid hook type: {kind}")));
            }
            for key in ["url", "content_type"] {
                if setting(key).is_empty() {
                    return Err(call.refuse().say(422, format!("Missing config option: {key}")));
                }
            }
            if !matches!(setting("content_type"), "json" | "form") {
                return Err(call.refuse().say(422, "Invalid content type"));
            }
            if reqwest::Url::parse(setting("url")).is_err() {
                return Err(call.refuse().say(422, "Invalid url"));
            }
            let id = next(&mut state.seq.hook);
            let at = now();
            let hook = Hook {
                id,
                owner,
                kind: kind.to_owned(),
                url: setting("url").to_owned(),
                form_encoded: setting("content_type") == "form",
                secret: setting("secret").to_owned(),
                events: events(call, &order),
                branch_filter: order.get("branch_filter").and_then(Value::as_str).unwrap_or_default().to_owned(),
                authorization: order.get("authorization_header").and_then(Value::as_str).unwrap_or_default().to_owned(),
                active: order.get("active").and_then(Value::as_bool).unwrap_or(false),
                created: at,
                updated: at,
            };
            let shown = state.hook_json(&hook);
            state.hooks.insert(id, hook);
            Ok(Reply::json(201, &shown))
        }
        ("GET", [id]) => match find(&state, owner, id).and_then(|id| state.hooks.get(&id)) {
            Some(hook) => Ok(Reply::json(200, &state.hook_json(hook))),
            None => Err(call.refuse().not_found()),
        },
        ("PATCH", [id]) => {
            let order = call.json()?;
            let Some(id) = find(&state, owner, id) else {
                return Err(call.refuse().not_found());
            };
            if let Some(hook) = state.hooks.get_mut(&id) {
                let config = order.get("config");
                let setting = |key: &str| config.and_then(|c| c.get(key)).and_then(Value::as_str);
                if let Some(url) = setting("url") {
                    url.clone_into(&mut hook.url);
                }
                if let Some(content_type) = setting("content_type") {
                    if !matches!(content_type, "json" | "form") {
                        return Err(call.refuse().say(422, "Invalid content type"));
                    }
                    hook.form_encoded = content_type == "form";
                }
                // As on the real server, a secret in this request is ignored, and events that are not listed are
                // lost.
                hook.events = events(call, &order);
                order
                    .get("branch_filter")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .clone_into(&mut hook.branch_filter);
                if let Some(active) = order.get("active").and_then(Value::as_bool) {
                    hook.active = active;
                }
                hook.updated = now();
            }
            Ok(Reply::json(200, &state.hooks.get(&id).map_or(Value::Null, |h| state.hook_json(h))))
        }
        ("DELETE", [id]) => match find(&state, owner, id) {
            Some(id) => {
                state.hooks.remove(&id);
                Ok(Reply::empty(204))
            }
            None => Err(call.refuse().not_found()),
        },
        _ => Err(call.refuse().not_found()),
    }
}
