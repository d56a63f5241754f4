//! `/_standin/…`: routes that no forge has, for whoever controls the machine. The stand-in listens only on
//! loopback.
//!
//! | call | does |
//! | --- | --- |
//! | `POST faults` ([`FaultOrder`]), `DELETE faults` | orders faults, removes them |
//! | `POST errands` (a list of [`Errand`]) | makes calls on behalf of accounts, optionally without deliveries and
//! back-dated; answers with a list of `{status, body}` |
//! | `POST history` ([`History`]) | adds issues and comments with past dates, as a migration leaves them |
//! | `POST settings` | `max_response_items`, `default_paging_num` as in the forge's `[api]`; `claimed_url`, `original_authors`, `next_account` (`Settings`) |
//! | `POST replay`, `GET deliveries` | sends every delivery again; lists their results |

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Call, Caller, parse_form};
use super::faults::{Errand, FaultOrder};
use super::reply::{Answer, Reply};
use super::state::{EntryKind, Id, State};
use super::{Forge, api};

fn parsed<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| Reply::text(422, format!("{error}\n")))
}

pub(super) async fn answer(forge: &Forge, method: &str, path: &str, body: &Bytes) -> Answer {
    match (method, path) {
        ("POST", "faults") => {
            let order: FaultOrder = parsed(body)?;
            forge.faults.apply(order).map_err(|e| Reply::text(422, format!("{e}\n")))?;
            Ok(Reply::empty(204))
        }
        ("DELETE", "faults") => {
            forge.faults.clear();
            Ok(Reply::empty(204))
        }
        ("POST", "errands") => {
            let errands: Vec<Errand> = parsed(body)?;
            let mut replies = Vec::new();
            for errand in &errands {
                let reply = run(forge, errand).await;
                let body = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
                replies.push(json!({"status": reply.status, "body": body}));
            }
            Ok(Reply::json(200, &Value::Array(replies)))
        }
        ("POST", "history") => history(&mut forge.state(), parsed(body)?),
        ("POST", "settings") => {
            let order: Settings = parsed(body)?;
            let mut pages = forge.pages();
            pages.most = order.max_response_items.unwrap_or(pages.most).max(1);
            pages.default = order.default_paging_num.unwrap_or(pages.default).max(1);
            drop(pages);
            if let Some(shown) = order.original_authors {
                forge.state().shows_original_authors = shown;
            }
            if let Some(id) = order.next_account {
                forge.state().seq.account = id - 1;
            }
            if let Some(url) = order.claimed_url {
                forge.state().claimed_url = Some(url.trim_end_matches('/').to_owned());
            }
            Ok(Reply::empty(204))
        }
        ("POST", "replay") => Ok(Reply::json(200, &json!({"replayed": forge.queue.replay()}))),
        ("GET", "deliveries") => Ok(Reply::json(200, &json!(forge.queue.records()))),
        _ => Err(Reply::text(
            404,
            "the stand-in has: POST and DELETE faults, POST errands, history, settings and replay, GET deliveries\n",
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max_response_items: Option<usize>,
    default_paging_num: Option<usize>,
    /// Whether `original_author` is filled in. Neither Gitea 1.25.4 nor Forgejo 12 does that, although both
    /// document the field.
    original_authors: Option<bool>,
    /// The number that the next account gets. It must be unused.
    next_account: Option<Id>,
    /// The URL at which the server claims its repositories' pages are: a server can lie.
    claimed_url: Option<String>,
}

tokio::task_local! {
    /// Set while an errand runs that must not cause deliveries.
    static UNHEARD: ();
}

/// Whether the present call must not cause deliveries.
pub(super) fn unheard() -> bool {
    UNHEARD.try_with(|()| ()).is_ok()
}

/// Makes one call on behalf of an account.
pub(super) async fn run(forge: &Forge, errand: &Errand) -> Reply {
    let login = errand.by.as_deref().unwrap_or("forgeadmin");
    let (login, account) = match forge.state().account_by_login(login) {
        Some(account) => (account.login.clone(), account.id),
        None => return Reply::text(422, format!("there is no account {login} to run this errand\n")),
    };
    let (path, query) = errand.path.split_once('?').unwrap_or((&errand.path, ""));
    let path = format!("/api/v1{path}");
    let headers = HeaderMap::new();
    let call = Call {
        forge,
        caller: Caller { account: Some(account), login, scopes: None },
        method: &errand.method,
        path: &path,
        query: parse_form(query),
        raw_query: query,
        headers: &headers,
        body: if errand.body.is_null() { Bytes::new() } else { Bytes::from(errand.body.to_string()) },
    };
    // Boxed, because an errand runs through the same handlers as the request around it.
    let doing = Box::pin(async { api::answer(&call).await.unwrap_or_else(|refusal| refusal) });
    let reply = if errand.quietly { UNHEARD.scope((), doing).await } else { doing.await };
    if errand.in_its_first_second && reply.status < 400 {
        back_date(forge, &call.path.split('/').collect::<Vec<_>>());
    }
    reply
}

/// Sets the time of an edit to the second in which the comment or issue was created.
fn back_date(forge: &Forge, path: &[&str]) {
    let mut state = forge.state();
    let ["", "api", "v1", "repos", owner, name, "issues", rest @ ..] = path else {
        return;
    };
    let repo = state.account_by_login(owner).and_then(|a| state.repo_by_name(a.id, name)).map(|r| r.id);
    match rest {
        ["comments", id] => {
            if let Some(entry) = id.parse::<Id>().ok().and_then(|id| state.entries.get_mut(&id)) {
                entry.updated = entry.created;
            }
        }
        [number] => {
            let id = repo
                .zip(number.parse::<i64>().ok())
                .and_then(|(repo, number)| state.issue_by_number(repo, number))
                .map(|i| i.id);
            if let Some(issue) = id.and_then(|id| state.issues.get_mut(&id)) {
                issue.updated = issue.created;
            }
        }
        _ => {}
    }
}

/// Issues and comments with past dates, for an existing repository.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// `owner/name`.
    repository: String,
    /// The original URL that it claims.
    #[serde(default)]
    original_url: Option<String>,
    /// When the repository was created on this forge.
    #[serde(default)]
    created_at: Option<jiff::Timestamp>,
    #[serde(default)]
    issues: Vec<PastIssue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastIssue {
    /// The number of an existing issue: then only its comments are added.
    #[serde(default)]
    number: Option<i64>,
    #[serde(default)]
    title: String,
    #[serde(default)]
    body: String,
    /// The author's login on this forge.
    #[serde(default)]
    author: Option<String>,
    /// The author's name on the other forge.
    #[serde(default)]
    original_author: String,
    #[serde(default)]
    created_at: Option<jiff::Timestamp>,
    #[serde(default)]
    updated_at: Option<jiff::Timestamp>,
    #[serde(default)]
    closed: bool,
    #[serde(default)]
    comments: Vec<PastComment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastComment {
    body: String,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    original_author: String,
    #[serde(default)]
    created_at: Option<jiff::Timestamp>,
    #[serde(default)]
    updated_at: Option<jiff::Timestamp>,
}

/// Adds them without triggering any hook, as a migration does. Answers with their numbers: `{"issues": [{"number",
/// "id", "comments": [id, …]}]}`.
fn history(state: &mut State, order: History) -> Answer {
    let bad = |what: String| Reply::text(422, format!("{what}\n"));
    let who = |state: &State, login: &Option<String>| -> Result<Id, Reply> {
        let login = login.as_deref().unwrap_or("forgeadmin");
        state.account_by_login(login).map(|a| a.id).ok_or_else(|| bad(format!("there is no account {login}")))
    };
    let (owner, name) = order.repository.split_once('/').unwrap_or_default();
    let Some(repo) = state.account_by_login(owner).and_then(|a| state.repo_by_name(a.id, name)).map(|r| r.id) else {
        return Err(bad(format!("there is no repository {}", order.repository)));
    };
    if let Some(found) = state.repos.get_mut(&repo) {
        if let Some(url) = order.original_url {
            found.original_url = url;
        }
        if let Some(at) = order.created_at {
            found.created = at.as_second();
        }
    }
    let mut made = Vec::new();
    for past in order.issues {
        let id = match past.number {
            Some(number) => state
                .issue_by_number(repo, number)
                .map(|i| i.id)
                .ok_or_else(|| bad(format!("there is no issue {number}")))?,
            None => {
                let author = who(state, &past.author)?;
                let at = past.created_at.map_or_else(super::state::now, jiff::Timestamp::as_second);
                let id = state.add_past_issue(repo, author, past.title, past.body, at);
                if let Some(issue) = state.issues.get_mut(&id) {
                    issue.original_author = past.original_author;
                    issue.updated = past.updated_at.map_or(at, jiff::Timestamp::as_second);
                    if past.closed {
                        issue.open = false;
                        issue.closed = Some(issue.updated);
                    }
                }
                id
            }
        };
        let (number, settled) = state.issues.get(&id).map(|i| (i.number, i.updated)).unwrap_or_default();
        let mut comments = Vec::new();
        for past in past.comments {
            let author = who(state, &past.author)?;
            let entry = state.record(id, author, EntryKind::Comment { body: past.body });
            if let Some(entry) = state.entries.get_mut(&entry) {
                entry.original_author = past.original_author;
                entry.created = past.created_at.map_or(entry.created, jiff::Timestamp::as_second);
                entry.updated = past.updated_at.map_or(entry.created, jiff::Timestamp::as_second);
            }
            comments.push(entry);
        }
        if let Some(issue) = state.issues.get_mut(&id) {
            issue.updated = settled;
        }
        made.push(json!({"number": number, "id": id, "comments": comments}));
    }
    Ok(Reply::json(201, &json!({"issues": made})))
}
