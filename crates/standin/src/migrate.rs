//! `POST /repos/migrate`: copies a repository with its issues from another server that has the same API. Whatever
//! that server says is believed: names, times, and (seen on Gitea 1.25.4 and Forgejo 12) even its own address.
//!
//! Of the real servers' options only this one exists here: issues, comments and labels of a `gitea` service. Pull
//! requests, milestones and releases are ignored, as if nobody had asked for them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Flavour;
use super::api::Call;
use super::reply::{Answer, Reply};
use super::repositories;
use super::state::{EntryKind, GHOST, Id, Label, LabelOwner, Reaction, State, next, now};

/// Time limit for one call to the other server.
const TIMEOUT: Duration = Duration::from_secs(20);

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or_default()
}

fn yes(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Seconds since 1970; the present time if the value cannot be parsed.
fn time(value: &Value, key: &str) -> i64 {
    text(value, key).parse::<jiff::Timestamp>().map_or_else(|_| now(), jiff::Timestamp::as_second)
}

/// One repository on the other server.
struct Source {
    client: reqwest::Client,
    api: String,
    token: String,
}

impl Source {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut request = self.client.get(format!("{}{path}", self.api));
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("token {}", self.token));
        }
        let answer = request.send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// All pages of a list.
    async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        for page in 1..10_000 {
            let found = self.get(&format!("{path}page={page}&limit=50")).await?;
            let found = found.as_array().cloned().unwrap_or_default();
            if found.is_empty() {
                break;
            }
            all.extend(found);
        }
        Ok(all)
    }
}

/// What was fetched and not stored yet.
struct Fetched {
    repository: Value,
    labels: Vec<Value>,
    issues: Vec<FetchedIssue>,
}

struct FetchedIssue {
    issue: Value,
    comments: Vec<Value>,
    /// Reactions by the comment's number; 0 is the issue itself.
    reactions: BTreeMap<i64, Vec<Value>>,
}

async fn fetch(source: &Source, order: &Value) -> anyhow::Result<Fetched> {
    let repository = source.get("").await?;
    let labels = if yes(order, "labels") { source.list("/labels?").await? } else { vec![] };
    let mut issues = Vec::new();
    if yes(order, "issues") {
        let mut found = source.list("/issues?state=all&type=issues&").await?;
        found.sort_by_key(|issue| number(issue, "number"));
        for issue in found {
            let at = format!("/issues/{}", number(&issue, "number"));
            let comments = source.get(&format!("{at}/comments")).await?.as_array().cloned().unwrap_or_default();
            let mut reactions = BTreeMap::new();
            let of = |value: Value| value.as_array().cloned().unwrap_or_default();
            reactions.insert(0, of(source.get(&format!("{at}/reactions")).await?));
            for comment in &comments {
                let id = number(comment, "id");
                reactions.insert(id, of(source.get(&format!("/issues/comments/{id}/reactions")).await?));
            }
            issues.push(FetchedIssue { issue, comments, reactions });
        }
    }
    Ok(Fetched { repository, labels, issues })
}

/// `(base, owner, name)` of the repository to clone.
fn address(url: &str) -> Result<(String, String, String), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!(
            "migration/cloning from '{host}' is not allowed: the provided url protocol is not allowed"
        ));
    }
    // A stand-in only talks to this machine, whatever the request says.
    if !matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") {
        return Err(format!("migration/cloning from '{host}' is not allowed."));
    }
    let mut parts = parsed.path().trim_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some(owner), Some(name)) if !owner.is_empty() => Ok((
            parsed.origin().ascii_serialization(),
            owner.to_owned(),
            name.strip_suffix(".git").unwrap_or(name).to_owned(),
        )),
        _ => Err("the address names no repository".to_owned()),
    }
}

pub(super) async fn answer(call: &Call<'_>) -> Answer {
    let me = call.me()?;
    let order = call.json()?;
    let owner = new_owner(call, me, text(&order, "repo_owner"))?;
    let (base, from_owner, from_name) =
        address(text(&order, "clone_addr")).map_err(|message| call.refuse().say(422, message))?;
    let name = text(&order, "repo_name").to_owned();
    let id = {
        let mut state = call.forge.state();
        let id = repositories::add(call, &mut state, owner, &name, &order, "main")?;
        if let Some(repo) = state.repos.get_mut(&id) {
            text(&order, "clone_addr").clone_into(&mut repo.original_url);
        }
        id
    };
    let source =
        reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).no_proxy().build().map(
            |client| Source {
                client,
                api: format!("{base}/api/v1/repos/{from_owner}/{from_name}"),
                token: text(&order, "auth_token").to_owned(),
            },
        );
    let made = async {
        call.forge.git.create(id, "main").await?;
        let source = source?;
        // A plain `git` service has no issues.
        let service = text(&order, "service");
        let fetched = match service {
            "gitea" | "forgejo" => fetch(&source, &order).await.context("ask the other server")?,
            _ => Fetched { repository: Value::Null, labels: vec![], issues: vec![] },
        };
        let branch = text(&fetched.repository, "default_branch").to_owned();
        let branch = if branch.is_empty() { "main".to_owned() } else { branch };
        call.forge.git.set_default_branch(id, &branch).await?;
        call.forge
            .git
            .mirror(id, &format!("{base}/{from_owner}/{from_name}.git"), text(&order, "auth_token"))
            .await
            .context("clone from the other server")?;
        ensure!(call.forge.state().repos.contains_key(&id), "the repository was deleted meanwhile");
        put_down(call, &mut call.forge.state(), id, me, &branch, fetched);
        anyhow::Ok(())
    };
    // If fetching fails, an empty repository is left behind.
    if let Err(error) = made.await {
        return Err(call.refuse().internal(&error));
    }
    let state = call.forge.state();
    let Some(repo) = state.repos.get(&id) else {
        return Err(call.refuse().not_found());
    };
    let mut shown = state.repo_json(repo, state.access(repo, Some(me)));
    // The issues exist, but are not counted yet.
    super::shapes::merge(&mut shown, json!({"open_issues_count": 0}));
    Ok(Reply::json(201, &shown))
}

/// Who gets the repository: the caller, or an organisation that the caller owns.
fn new_owner(call: &Call<'_>, me: Id, login: &str) -> Result<Id, Reply> {
    if login.is_empty() {
        return Ok(me);
    }
    let state = call.forge.state();
    let Some(owner) = state.account_by_login(login) else {
        return Err(call.refuse().say(422, format!("user does not exist [uid: 0, name: {login}]")));
    };
    if owner.id == me || state.is_site_admin(Some(me)) {
        return Ok(owner.id);
    }
    if !owner.is_org {
        return Err(call.refuse().say(403, "Given user is not an organization."));
    }
    if !state.owns_org(owner.id, me) {
        return Err(call.refuse().say(403, "Given user is not owner of organization."));
    }
    Ok(owner.id)
}

/// Stores what was fetched in the new repository, without triggering any hook.
fn put_down(call: &Call<'_>, state: &mut State, repo: Id, me: Id, branch: &str, fetched: Fetched) {
    // If the other server claims to be this one, its account numbers are believed.
    let here = text(&fetched.repository, "html_url").starts_with(&format!("{}/", call.refuse().root_url));
    if let Some(found) = state.repos.get_mut(&repo) {
        branch.clone_into(&mut found.default_branch);
        found.empty = false;
    }
    let mut labels: BTreeMap<String, Id> = BTreeMap::new();
    for label in fetched.labels {
        let id = next(&mut state.seq.label);
        labels.insert(text(&label, "name").to_owned(), id);
        let label = Label {
            id,
            owner: LabelOwner::Repository(repo),
            name: text(&label, "name").to_owned(),
            color: text(&label, "color").to_owned(),
            description: text(&label, "description").to_owned(),
            exclusive: yes(&label, "exclusive"),
            archived: yes(&label, "is_archived"),
        };
        state.labels.insert(id, label);
    }
    // The account that gets texts whose author has no account here. On Gitea that is the person who migrates.
    let nobody = match call.flavour() {
        Flavour::Gitea => me,
        Flavour::Forgejo => GHOST,
    };
    let whose = |state: &State, user: &Value| -> (Id, String) {
        let (id, login) = (number(user, "id"), text(user, "login"));
        let same = here && state.accounts.get(&id).is_some_and(|a| a.login == login);
        if same { (id, String::new()) } else { (nobody, login.to_owned()) }
    };
    for FetchedIssue { issue, comments, reactions } in fetched.issues {
        let (author, original) = whose(state, &issue["user"]);
        let at = time(&issue, "created_at");
        let title: String = text(&issue, "title").chars().take(255).collect();
        let id = state.add_past_issue(repo, author, title, text(&issue, "body").to_owned(), at);
        let react = |state: &State, of: i64| -> Vec<Reaction> {
            let all = reactions.get(&of).map(Vec::as_slice).unwrap_or_default();
            all.iter()
                .map(|r| {
                    let (user, original) = whose(state, &r["user"]);
                    // A migrated reaction without an account here belongs to nobody, unlike everything else.
                    let user = if original.is_empty() { user } else { 0 };
                    Reaction { user, original, content: text(r, "content").to_owned(), created: now() }
                })
                .collect()
        };
        let (index, on_issue) = (number(&issue, "number"), react(state, 0));
        if let Some(made) = state.issues.get_mut(&id) {
            made.number = index;
            made.original_author = original;
            made.updated = time(&issue, "updated_at");
            made.locked = yes(&issue, "is_locked");
            made.open = text(&issue, "state") != "closed";
            made.closed = (!made.open).then(|| time(&issue, "closed_at"));
            made.reactions = on_issue;
            let on_it = issue["labels"].as_array().map(Vec::as_slice).unwrap_or_default();
            made.labels = on_it.iter().filter_map(|l| labels.get(text(l, "name")).copied()).collect();
        }
        let settled = state.issues.get(&id).map_or(at, |i| i.updated);
        for comment in comments {
            let (author, original) = whose(state, &comment["user"]);
            let reactions = react(state, number(&comment, "id"));
            let entry = state.record(id, author, EntryKind::Comment { body: text(&comment, "body").to_owned() });
            if let Some(entry) = state.entries.get_mut(&entry) {
                entry.original_author = original;
                entry.created = time(&comment, "created_at");
                entry.updated = time(&comment, "updated_at");
                entry.reactions = reactions;
            }
        }
        if let Some(made) = state.issues.get_mut(&id) {
            made.updated = settled;
        }
        if let Some(found) = state.repos.get_mut(&repo) {
            found.last_index = found.last_index.max(index);
        }
    }
}
