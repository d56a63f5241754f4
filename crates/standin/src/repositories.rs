//! Repositories: their settings, collaborators, labels, files and branches.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::accounts::allowed_name;
use super::api::{Call, QUERY};
use super::git::{Change, Commit, unsigned};
use super::reply::{Answer, Reply};
use super::shapes::{Address, TeamView, merge};
use super::state::{Access, HookOwner, Id, LabelOwner, Milestone, Protection, Repository, State, next, now};
use super::{Flavour, hooks, labels, push, templates};

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

pub(super) fn by_id(call: &Call<'_>, id: &str) -> Answer {
    call.me()?;
    let state = call.forge.state();
    let repo = id.parse::<i64>().ok().and_then(|id| state.repos.get(&id));
    match repo.map(|r| (r, state.access(r, call.caller.account))) {
        Some((repo, access)) if access >= Access::Read => Ok(Reply::json(200, &state.repo_json(repo, access))),
        _ => Err(call.refuse().not_found()),
    }
}

pub(super) fn list(call: &Call<'_>, wanted: impl Fn(&State, &Repository) -> bool) -> Reply {
    let state = call.forge.state();
    let all: Vec<Value> = state
        .repos
        .values()
        .filter(|r| wanted(&state, r))
        .map(|r| state.repo_json(r, state.access(r, call.caller.account)))
        .collect();
    drop(state);
    call.paginated(&all)
}

/// Creates an empty repository, unless the name is taken.
pub(super) fn add(
    call: &Call<'_>,
    state: &mut State,
    owner: Id,
    name: &str,
    order: &Value,
    branch: &str,
) -> Result<Id, Reply> {
    if !allowed_name(name) {
        return Err(call.refuse().say(422, "[Name]: Alpha dash dot"));
    }
    if state.repo_by_name(owner, name).is_some() {
        return Err(call.refuse().say(409, "The repository with the same name already exists."));
    }
    let id = next(&mut state.seq.repo);
    // A new repository with a former name ends that name's redirect.
    state.former_repos.remove(&(owner, name.to_lowercase()));
    let at = now();
    state.repos.insert(
        id,
        Repository {
            id,
            owner,
            name: name.to_owned(),
            description: text(order, "description").unwrap_or_default().to_owned(),
            original_url: String::new(),
            offered_to: None,
            private: flag(order, "private").unwrap_or(false),
            archived_at: None,
            default_branch: branch.to_owned(),
            empty: true,
            created: at,
            updated: at,
            collaborators: std::collections::BTreeMap::new(),
            protections: vec![],
            last_index: 0,
            gone_branches: std::collections::BTreeSet::new(),
        },
    );
    hooks::copy_defaults(state, id);
    Ok(id)
}

pub(super) async fn create(call: &Call<'_>, owner: Id) -> Answer {
    let me = call.me()?;
    let order = call.json()?;
    let name = text(&order, "name").unwrap_or_default().to_owned();
    let branch = text(&order, "default_branch").filter(|b| !b.is_empty()).unwrap_or("main").to_owned();
    let auto_init = flag(&order, "auto_init").unwrap_or(false);
    let (id, author) = {
        let mut state = call.forge.state();
        let id = add(call, &mut state, owner, &name, &order, &branch)?;
        if let Some(repo) = state.repos.get_mut(&id) {
            repo.empty = !auto_init;
        }
        let author = state.accounts.get(&me).map(|a| (a.login.clone(), a.email.clone())).unwrap_or_default();
        (id, author)
    };
    let made = async {
        call.forge.git.create(id, &branch).await?;
        if auto_init {
            let readme = format!("# {name}\n\n");
            let change = Change {
                branch: &branch,
                new_branch: None,
                path: "README.md",
                content: Some(readme.as_bytes()),
                message: "Initial commit\n",
                author: (&author.0, &author.1),
            };
            call.forge.git.write(id, &change).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = made.await {
        call.forge.state().remove_repo(id);
        return Err(call.refuse().internal(&error));
    }
    let state = call.forge.state();
    let Some(repo) = state.repos.get(&id) else {
        return Err(call.refuse().not_found());
    };
    Ok(Reply::json(201, &state.repo_json(repo, state.access(repo, Some(me)))))
}

fn at_least(call: &Call<'_>, access: Access, wanted: Access) -> Result<Id, Reply> {
    let me = call.me()?;
    if access >= wanted {
        return Ok(me);
    }
    Err(call.refuse().say(
        403,
        match wanted {
            Access::Owner => "user should be the owner of the repo",
            Access::Admin => "user should be an owner or a collaborator with admin write of a repository",
            _ => "user should have a permission to write to a repo",
        },
    ))
}

pub(super) async fn answer(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    match (call.method, path) {
        ("GET", []) => {
            let state = call.forge.state();
            state
                .repos
                .get(&repo)
                .map(|r| Reply::json(200, &state.repo_json(r, access)))
                .ok_or_else(|| call.refuse().not_found())
        }
        ("PATCH", []) => {
            at_least(call, access, Access::Admin)?;
            edit(call, repo, access).await
        }
        ("DELETE", []) => {
            at_least(call, access, Access::Owner)?;
            call.forge.state().remove_repo(repo);
            call.forge.git.remove(repo).await;
            Ok(Reply::empty(204))
        }
        ("POST", ["transfer"]) => {
            at_least(call, access, Access::Owner)?;
            transfer(call, repo)
        }
        ("POST", ["transfer", answer @ ("accept" | "reject")]) => answer_transfer(call, repo, access, answer),
        (_, ["collaborators", rest @ ..]) => collaborators(call, repo, access, rest),
        ("GET", ["teams"]) => {
            call.me()?;
            let state = call.forge.state();
            let owner = state.repos.get(&repo).map(|r| r.owner);
            let all: Vec<Value> = state
                .teams
                .values()
                .filter(|t| Some(t.org) == owner && (t.all_repositories || t.repositories.contains(&repo)))
                .map(|t| state.team_json(t, TeamView::Alone))
                .collect();
            Ok(Reply::json(200, &Value::Array(all)))
        }
        ("GET", ["teams", name]) => {
            call.me()?;
            let state = call.forge.state();
            let owner = state.repos.get(&repo).map(|r| r.owner);
            let found = state
                .teams
                .values()
                .find(|t| Some(t.org) == owner && t.name.eq_ignore_ascii_case(name))
                .filter(|t| t.all_repositories || t.repositories.contains(&repo));
            found
                .map(|t| Reply::json(200, &state.team_json(t, TeamView::Alone)))
                .ok_or_else(|| call.refuse().not_found())
        }
        (_, ["labels", rest @ ..]) => {
            if call.method != "GET" {
                at_least(call, access, Access::Write)?;
            }
            labels::answer(call, LabelOwner::Repository(repo), rest)
        }
        (_, ["milestones", rest @ ..]) => milestones(call, repo, access, rest),
        (_, ["hooks", rest @ ..]) => {
            at_least(call, access, Access::Admin)?;
            hooks::answer(call, HookOwner::Repository(repo), rest).await
        }
        (_, ["contents", rest @ ..]) => contents(call, repo, access, &rest.join("/")).await,
        ("GET", ["raw", rest @ ..]) => raw(call, repo, &rest.join("/")).await,
        ("GET", ["issue_templates"]) => templates::list(call, repo).await,
        // The stand-in has no topics, but clients that migrate ask for them.
        ("GET", ["topics"]) => Ok(Reply::json(200, &json!({"topics": []}))),
        ("GET", ["releases"]) => Ok(call.paginated(&[])),
        ("GET", ["issue_config"]) => Ok(Reply::json(200, &json!({"blank_issues_enabled": true, "contact_links": []}))),
        ("GET", ["issue_config", "validate"]) => Ok(Reply::json(200, &json!({"valid": true, "message": ""}))),
        ("GET", ["git", "refs", rest @ ..]) => references(call, repo, &rest.join("/")).await,
        (_, ["branches", rest @ ..]) => branches(call, repo, access, &rest.join("/")).await,
        (_, ["branch_protections", rest @ ..]) => protections(call, repo, access, rest),
        _ => Err(call.refuse().not_found()),
    }
}

async fn edit(call: &Call<'_>, repo: Id, access: Access) -> Answer {
    let order = call.json()?;
    if let Some(branch) = text(&order, "default_branch").filter(|b| !b.is_empty()) {
        if call.forge.git.branch(repo, branch).await.is_none() {
            return Err(call.refuse().say(422, format!("branch does not exist [repo_id: {repo} name: {branch}]")));
        }
        call.forge.git.set_default_branch(repo, branch).await.map_err(|e| call.refuse().internal(&e))?;
    }
    let mut state = call.forge.state();
    let Some((owner, old)) = state.repos.get(&repo).map(|r| (r.owner, r.name.clone())) else {
        return Err(call.refuse().not_found());
    };
    let renamed = text(&order, "name").filter(|n| !n.is_empty() && *n != old);
    if let Some(to) = renamed {
        if !allowed_name(to) {
            return Err(call.refuse().say(422, "[Name]: AlphaDashDot"));
        }
        if state.repo_by_name(owner, to).is_some_and(|r| r.id != repo) {
            return Err(call
                .refuse()
                .say(422, format!("repository already exists [uname: {}, name: {to}]", state.login(owner))));
        }
        state.former_repos.remove(&(owner, to.to_lowercase()));
        state.former_repos.insert((owner, old.to_lowercase()), repo);
    }
    let Some(found) = state.repos.get_mut(&repo) else {
        return Err(call.refuse().not_found());
    };
    if let Some(to) = renamed {
        to.clone_into(&mut found.name);
    }
    if let Some(branch) = text(&order, "default_branch").filter(|b| !b.is_empty()) {
        branch.clone_into(&mut found.default_branch);
    }
    if let Some(description) = text(&order, "description") {
        description.clone_into(&mut found.description);
    }
    if let Some(private) = flag(&order, "private") {
        found.private = private;
    }
    match flag(&order, "archived") {
        Some(true) if found.archived_at.is_none() => found.archived_at = Some(now()),
        Some(false) => found.archived_at = None,
        _ => {}
    }
    found.updated = now();
    let shown = state.repos.get(&repo).map_or(Value::Null, |r| state.repo_json(r, access));
    Ok(Reply::json(200, &shown))
}

/// Transfers the repository to another owner: at once if the caller may also create repositories there, otherwise
/// as an offer.
fn transfer(call: &Call<'_>, repo: Id) -> Answer {
    let me = call.me()?;
    let order = call.json()?;
    let to = text(&order, "new_owner").unwrap_or_default();
    let mut state = call.forge.state();
    let Some(new_owner) = state.account_by_login(to).map(|a| a.id) else {
        return Err(call.refuse().say(404, "The new owner does not exist or cannot be found"));
    };
    let Some((name, offered)) = state.repos.get(&repo).map(|r| (r.name.clone(), r.offered_to.is_some())) else {
        return Err(call.refuse().not_found());
    };
    if state.repo_by_name(new_owner, &name).is_some() {
        return Err(call.refuse().say(422, format!("repository already exists [uname: {to}, name: {name}]")));
    }
    if offered {
        return Err(call.refuse().say(409, "a repository transfer is already in progress"));
    }
    let at_once = new_owner == me || state.owns_org(new_owner, me);
    if at_once {
        state.move_repo(repo, new_owner);
    } else if let Some(found) = state.repos.get_mut(&repo) {
        found.offered_to = Some((me, new_owner));
    }
    let shown = state.repos.get(&repo).map_or(Value::Null, |r| state.repo_json(r, state.access(r, Some(me))));
    Ok(Reply::json(if at_once { 202 } else { 201 }, &shown))
}

fn answer_transfer(call: &Call<'_>, repo: Id, access: Access, answer: &str) -> Answer {
    let me = call.me()?;
    let mut state = call.forge.state();
    let Some((_, recipient)) = state.repos.get(&repo).and_then(|r| r.offered_to) else {
        return Err(call.refuse().not_found());
    };
    if recipient != me && !state.owns_org(recipient, me) {
        return Err(call.refuse().say(403, ""));
    }
    if answer == "accept" {
        state.move_repo(repo, recipient);
    } else if let Some(found) = state.repos.get_mut(&repo) {
        found.offered_to = None;
    }
    // The answer shows the rights from before the transfer.
    let shown = state.repos.get(&repo).map_or(Value::Null, |r| state.repo_json(r, access));
    Ok(Reply::json(if answer == "accept" { 202 } else { 200 }, &shown))
}

fn collaborators(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    let me = call.me()?;
    let mut state = call.forge.state();
    let Some(found) = state.repos.get(&repo) else {
        return Err(call.refuse().not_found());
    };
    match (call.method, path) {
        ("GET", [login, "permission"]) => {
            // An organisation is an account, too.
            let target = state.account_by_login(login).map(|a| a.id);
            if access < Access::Admin && target != Some(me) {
                return Err(call.refuse().say(
                    403,
                    "Only admins can query all permissions, repo admins can query all repo permissions, collaborators can query only their own",
                ));
            }
            let target = target.ok_or_else(|| call.refuse().no_user(login))?;
            let word = state.reported_access(found, target).word();
            // The answer does not include the caller's relation to the account.
            Ok(Reply::json(
                200,
                &json!({
                    "permission": word, "role_name": word, "user": state.user_json(target, Address::Real, None),
                }),
            ))
        }
        ("GET", []) => {
            let all: Vec<Value> =
                found.collaborators.keys().map(|id| state.user_json(*id, Address::Real, Some(me))).collect();
            drop(state);
            // Gitea returns all of them unless a page is requested.
            let window = match call.flavour() {
                Flavour::Gitea => call.page_if_asked(),
                Flavour::Forgejo => call.page(),
            };
            Ok(Reply::part(&all, window))
        }
        ("GET", [login]) => {
            let target = state.account_by_login(login).map(|a| a.id);
            let target =
                target.ok_or_else(|| call.refuse().say(422, format!("user does not exist [uid: 0, name: {login}]")))?;
            if found.collaborators.contains_key(&target) {
                Ok(Reply::empty(204))
            } else {
                Err(call.refuse().not_found())
            }
        }
        (method @ ("PUT" | "DELETE"), [login]) => {
            at_least(call, access, Access::Admin)?;
            // A collaborator can also be an organisation.
            let target = state
                .account_by_login(login)
                .map(|a| a.id)
                .ok_or_else(|| call.refuse().say(422, format!("user does not exist [uid: 0, name: {login}]")))?;
            let order = call.json()?;
            let wanted = match text(&order, "permission").unwrap_or("write") {
                "read" => Access::Read,
                "write" => Access::Write,
                "admin" => Access::Admin,
                // Forgejo accepts the request and changes nothing.
                _ if call.flavour() == Flavour::Forgejo => {
                    found.collaborators.get(&target).copied().unwrap_or(Access::Write)
                }
                _ => return Err(call.refuse().say(500, "")),
            };
            if let Some(found) = state.repos.get_mut(&repo) {
                if method == "PUT" {
                    found.collaborators.insert(target, wanted);
                } else {
                    found.collaborators.remove(&target);
                }
            }
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn milestones(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    let mut state = call.forge.state();
    match (call.method, path) {
        ("GET", []) => {
            let mut found: Vec<&Milestone> = state.milestones.values().filter(|m| m.repo == repo).collect();
            found.sort_by(|a, b| a.title.cmp(&b.title).then(a.id.cmp(&b.id)));
            let all: Vec<Value> = found.into_iter().map(|m| state.milestone_json(m)).collect();
            drop(state);
            Ok(Reply::part(&all, call.page_if_asked()))
        }
        ("POST", []) => {
            at_least(call, access, Access::Write)?;
            let order = call.json()?;
            let id = next(&mut state.seq.milestone);
            let milestone = Milestone {
                id,
                repo,
                title: text(&order, "title").unwrap_or_default().to_owned(),
                description: text(&order, "description").unwrap_or_default().to_owned(),
                created: now(),
            };
            let shown = state.milestone_json(&milestone);
            state.milestones.insert(id, milestone);
            Ok(Reply::json(201, &shown))
        }
        _ => Err(call.refuse().not_found()),
    }
}

/// Whether a path is valid in a commit and stays inside it.
fn allowed_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git"))
}

struct Place<'a> {
    root_url: String,
    full: String,
    reference: &'a str,
}

impl Place<'_> {
    fn entry_json(
        &self,
        flavour: Flavour,
        path: &str,
        kind: &str,
        sha: &str,
        content: Option<&[u8]>,
        last: Option<&Commit>,
    ) -> Value {
        let api = format!("{}/api/v1/repos/{}", self.root_url, self.full);
        let reference = percent_encoding::utf8_percent_encode(self.reference, QUERY).to_string();
        let own = format!("{api}/contents/{path}?ref={reference}");
        let git = format!("{api}/git/{}/{sha}", if kind == "tree" { "trees" } else { "blobs" });
        let html = format!("{}/{}/src/branch/{}/{path}", self.root_url, self.full, self.reference);
        let file = kind == "blob";
        let mut out = json!({
            "name": path.rsplit('/').next().unwrap_or(path), "path": path, "sha": sha,
            "last_commit_sha": last.map(|c| &c.id), "type": if file { "file" } else { "dir" },
            "size": content.map_or(0, <[u8]>::len),
            "encoding": content.map(|_| "base64"), "content": content.map(|c| BASE64.encode(c)),
            "target": null, "url": own, "html_url": html, "git_url": git,
            "download_url": if file {
                json!(format!("{}/{}/raw/branch/{}/{path}", self.root_url, self.full, self.reference))
            } else { Value::Null },
            "submodule_git_url": null, "_links": {"self": own, "git": git, "html": html},
        });
        let when = last.map(|c| c.committer.2.clone());
        merge(
            &mut out,
            match flavour {
                Flavour::Gitea => json!({
                    "last_committer_date": when, "last_author_date": last.map(|c| c.author.2.clone()),
                }),
                Flavour::Forgejo => json!({"last_commit_when": when}),
            },
        );
        out
    }

    fn commit_json(&self, commit: &Commit) -> Value {
        let api = format!("{}/api/v1/repos/{}/git", self.root_url, self.full);
        let never = "0001-01-01T00:00:00Z";
        let person =
            |(name, email, date): &(String, String, String)| json!({"name": name, "email": email, "date": date});
        let parents: Vec<Value> = commit
            .parents
            .iter()
            .map(|p| json!({"url": format!("{api}/commits/{p}"), "sha": p, "created": never}))
            .collect();
        json!({
            "url": format!("{api}/commits/{}", commit.id), "sha": commit.id, "created": never,
            "html_url": format!("{}/{}/commit/{}", self.root_url, self.full, commit.id),
            "author": person(&commit.author), "committer": person(&commit.committer), "parents": parents,
            "message": commit.message,
            "tree": {"url": format!("{api}/trees/{}", commit.tree), "sha": commit.tree, "created": never},
        })
    }
}

async fn contents(call: &Call<'_>, repo: Id, access: Access, path: &str) -> Answer {
    let (full, default_branch) = {
        let state = call.forge.state();
        let Some(found) = state.repos.get(&repo) else {
            return Err(call.refuse().not_found());
        };
        (state.full_name(found), found.default_branch.clone())
    };
    let root_url = call.refuse().root_url.clone();
    let git = &call.forge.git;
    let flavour = call.flavour();
    if call.method == "GET" {
        let reference = call.argument("ref").filter(|r| !r.is_empty()).unwrap_or(&default_branch);
        let place = Place { root_url, full, reference };
        let Some(commit) = git.commit(repo, reference).await else {
            return Err(call.refuse().not_found());
        };
        let Some((kind, sha)) = git.entry(repo, &commit.id, path).await else {
            // The first part of the path that does not exist.
            let mut missing = String::new();
            for part in path.split('/') {
                missing = if missing.is_empty() { part.to_owned() } else { format!("{missing}/{part}") };
                if git.entry(repo, &commit.id, &missing).await.is_none() {
                    break;
                }
            }
            let reason = format!("object does not exist [id: , rel_path: {missing}]");
            return Err(call.refuse().no_such("GetContentsOrList", reason));
        };
        if kind == "blob" {
            let content = git.blob(repo, &sha).await.map_err(|e| call.refuse().internal(&e))?;
            let last = git.last_touching(repo, &commit.id, path).await;
            return Ok(Reply::json(200, &place.entry_json(flavour, path, "blob", &sha, Some(&content), last.as_ref())));
        }
        let mut all = Vec::new();
        for (name, kind, sha) in git.list(repo, &commit.id, path).await {
            let inside = if path.is_empty() { name } else { format!("{path}/{name}") };
            let last = git.last_touching(repo, &commit.id, &inside).await;
            all.push(place.entry_json(flavour, &inside, &kind, &sha, None, last.as_ref()));
        }
        return Ok(Reply::json(200, &Value::Array(all)));
    }
    if access < Access::Write {
        call.me()?;
        return Err(call.refuse().say(
            403,
            match flavour {
                Flavour::Gitea => "user should have a permission to write to the target branch",
                Flavour::Forgejo => "user should have a permission to write to this branch",
            },
        ));
    }
    let me = at_least(call, access, Access::Write)?;
    let order = call.json()?;
    if !allowed_path(path) {
        return Err(call.refuse().say(422, format!("path contains a malformed path component [path: {path}]")));
    }
    let branch = text(&order, "branch").filter(|b| !b.is_empty()).unwrap_or(&default_branch).to_owned();
    let new_branch = text(&order, "new_branch").filter(|b| !b.is_empty() && *b != branch).map(str::to_owned);
    let target = new_branch.clone().unwrap_or_else(|| branch.clone());
    if call.forge.state().is_protected(repo, &target) {
        return Err(call.refuse().say(403, format!("user cannot commit to repo [user: {}]", call.caller.login)));
    }
    let bad_base64 = || call.refuse().say(422, "illegal base64 data");
    let content = match call.method {
        "DELETE" => None,
        _ => Some(BASE64.decode(text(&order, "content").unwrap_or_default().trim()).map_err(|_| bad_base64())?),
    };
    // One writer at a time: between reading the branch and moving it no other API call may interfere. If a push
    // does, the move fails.
    let writing = call.forge.git_writes.lock().await;
    let before = git.branch(repo, &branch).await;
    let empty = git.branches(repo).await.map_err(|e| call.refuse().internal(&e))?.is_empty();
    if before.is_none() && !empty {
        let of = if flavour == Flavour::Gitea { format!("repo_id: {repo} ") } else { String::new() };
        return Err(call.refuse().say(404, format!("branch does not exist [{of}name: {branch}]")));
    }
    let old = match &before {
        Some(commit) => git.entry(repo, &commit.id, path).await.map(|(_, sha)| sha),
        None => None,
    };
    let sha = text(&order, "sha").unwrap_or_default();
    match (call.method, &old) {
        ("POST", Some(_)) => {
            return Err(call.refuse().say(422, format!("repository file already exists [path: {path}]")));
        }
        ("PUT" | "DELETE", _) if sha.is_empty() && (call.method == "DELETE" || flavour == Flavour::Forgejo) => {
            return Err(call.refuse().say(422, "[SHA]: Required"));
        }
        ("PUT", Some(_)) if sha.is_empty() => {
            return Err(call.refuse().say(422, format!("repository file already exists [path: {path}]")));
        }
        ("PUT" | "DELETE", None) if !sha.is_empty() => {
            return Err(call.refuse().say(404, format!("repository file does not exist [path: {path}]")));
        }
        ("PUT" | "DELETE", Some(is)) if is != sha => {
            return Err(call.refuse().say(422, format!("sha does not match [given: {sha}, expected: {is}]")));
        }
        ("POST" | "PUT" | "DELETE", _) => {}
        _ => return Err(call.refuse().not_found()),
    }
    let author = {
        let state = call.forge.state();
        state.accounts.get(&me).map(|a| (a.login.clone(), a.email.clone())).unwrap_or_default()
    };
    let verb = match (&content, &old) {
        (None, _) => "Delete",
        (_, Some(_)) => "Update",
        _ => "Add",
    };
    let message =
        text(&order, "message").filter(|m| !m.is_empty()).map_or_else(|| format!("{verb} {path}"), str::to_owned);
    let change = Change {
        branch: &branch,
        new_branch: new_branch.as_deref(),
        path,
        content: content.as_deref(),
        message: &format!("{message}\n"),
        author: (&author.0, &author.1),
    };
    let commit = git.write(repo, &change).await.map_err(|e| call.refuse().say(422, format!("{e:#}")))?;
    drop(writing);
    if let Some(found) = call.forge.state().repos.get_mut(&repo) {
        found.empty = false;
    }
    let start = if new_branch.is_some() { None } else { before.as_ref().map(|c| c.id.as_str()) };
    push::announce(call.forge, repo, me, &target, start, Some(&commit.id)).await;
    let place = Place { root_url, full, reference: &target };
    let shown = match &content {
        Some(data) => {
            let sha = git.entry(repo, &commit.id, path).await.map(|(_, sha)| sha).unwrap_or_default();
            place.entry_json(flavour, path, "blob", &sha, Some(data), Some(&commit))
        }
        None => Value::Null,
    };
    let status = if call.method == "POST" || (call.method == "PUT" && old.is_none()) { 201 } else { 200 };
    Ok(Reply::json(
        status,
        &json!({"content": shown, "commit": place.commit_json(&commit), "verification": unsigned()}),
    ))
}

async fn raw(call: &Call<'_>, repo: Id, path: &str) -> Answer {
    let branch = call.forge.state().repos.get(&repo).map(|r| r.default_branch.clone()).unwrap_or_default();
    let reference = call.argument("ref").filter(|r| !r.is_empty()).unwrap_or(&branch);
    let git = &call.forge.git;
    let Some(commit) = git.commit(repo, reference).await else {
        return Err(call.refuse().not_found());
    };
    match git.entry(repo, &commit.id, path).await {
        Some((kind, sha)) if kind == "blob" => {
            let content = git.blob(repo, &sha).await.map_err(|e| call.refuse().internal(&e))?;
            let is_text = std::str::from_utf8(&content).is_ok() && !content.contains(&0);
            let content_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            Ok(Reply { status: 200, content_type, headers: vec![], body: content.into() })
        }
        _ => Err(call.refuse().not_found()),
    }
}

/// Whether a rule (`main`, `release/*`) covers a branch. As in a shell's `case`, `*` matches anything, including
/// slashes.
fn covers(rule: &str, branch: &str) -> bool {
    let pattern: Vec<String> = rule.split('*').map(regex::escape).collect();
    regex::Regex::new(&format!("^{}$", pattern.join(".*"))).is_ok_and(|r| r.is_match(branch))
}

impl State {
    pub(super) fn is_protected(&self, repo: Id, branch: &str) -> bool {
        self.protection(repo, branch).is_some_and(|p| !p.enable_push)
    }

    fn protection(&self, repo: Id, branch: &str) -> Option<&Protection> {
        self.repos.get(&repo)?.protections.iter().find(|p| covers(&p.rule, branch))
    }

    fn branch_json(&self, repo: Id, access: Access, name: &str, commit: &Commit) -> Value {
        let Some(found) = self.repos.get(&repo) else {
            return Value::Null;
        };
        let rule = self.protection(repo, name);
        let html = format!("{}/{}", self.root_url, self.full_name(found));
        json!({
            "name": name, "commit": commit.payload_json(&html, |email| self.username_of(email), unsigned(), None),
            "protected": rule.is_some(), "required_approvals": 0, "enable_status_check": false,
            "status_check_contexts": [],
            "user_can_push": access >= Access::Write && rule.is_none_or(|p| p.enable_push),
            "user_can_merge": access >= Access::Write,
            "effective_branch_protection_name": rule.map_or("", |p| p.rule.as_str()),
        })
    }

    /// The account with this e-mail address, for commits; empty if there is none.
    pub(super) fn username_of(&self, email: &str) -> String {
        self.accounts
            .values()
            .find(|a| !a.email.is_empty() && a.email.eq_ignore_ascii_case(email))
            .map(|a| a.login.clone())
            .unwrap_or_default()
    }
}

/// All references with this prefix.
async fn references(call: &Call<'_>, repo: Id, beginning: &str) -> Answer {
    let root = {
        let state = call.forge.state();
        state.repos.get(&repo).map(|found| format!("{}/api/v1/repos/{}/git", state.root_url, state.full_name(found)))
    };
    let root = root.ok_or_else(|| call.refuse().not_found())?;
    let wanted = format!("refs/{beginning}");
    let all = call.forge.git.branches(repo).await.map_err(|e| call.refuse().internal(&e))?;
    let found: Vec<Value> = all
        .into_iter()
        .map(|(name, commit)| (format!("refs/heads/{name}"), commit))
        .filter(|(name, _)| name.starts_with(&wanted))
        .map(|(name, commit)| {
            let object = json!({"type": "commit", "sha": commit, "url": format!("{root}/commits/{commit}")});
            json!({"ref": name, "url": format!("{root}/{name}"), "object": object})
        })
        .collect();
    if found.is_empty() { Err(call.refuse().not_found()) } else { Ok(Reply::json(200, &json!(found))) }
}

/// Whether a time has a year that the server's JSON cannot express. The server then answers 200 with an empty body.
fn is_beyond_years(commit: &Commit) -> bool {
    [&commit.author.2, &commit.committer.2].iter().any(|time| time.find('-').is_none_or(|digits| digits != 4))
}

async fn branches(call: &Call<'_>, repo: Id, access: Access, name: &str) -> Answer {
    let git = &call.forge.git;
    match (call.method, name) {
        ("GET", "") => {
            let names = git.branches(repo).await.map_err(|e| call.refuse().internal(&e))?;
            let mut all = Vec::new();
            for name in names.keys() {
                if let Some(commit) = git.branch(repo, name).await {
                    all.push(call.forge.state().branch_json(repo, access, name, &commit));
                }
            }
            Ok(call.paginated(&all))
        }
        ("GET", name) => match git.branch(repo, name).await {
            Some(commit) if is_beyond_years(&commit) => Ok(Reply::empty(200)),
            Some(commit) => Ok(Reply::json(200, &call.forge.state().branch_json(repo, access, name, &commit))),
            None => Err(call.refuse().not_found_because(match call.flavour() {
                Flavour::Gitea => None,
                Flavour::Forgejo => Some(format!("branch does not exist [name: {name}]")),
            })),
        },
        ("POST", "") => {
            let me = at_least(call, access, Access::Write)?;
            let order = call.json()?;
            let new = text(&order, "new_branch_name").unwrap_or_default();
            let default = call.forge.state().repos.get(&repo).map(|r| r.default_branch.clone()).unwrap_or_default();
            let from = text(&order, "old_ref_name")
                .or_else(|| text(&order, "old_branch_name"))
                .filter(|f| !f.is_empty())
                .unwrap_or(&default);
            let Some(commit) = git.commit(repo, from).await else {
                return Err(call.refuse().say(404, "The old branch does not exist"));
            };
            if git.branch(repo, new).await.is_some() {
                return Err(call.refuse().say(409, "The branch already exists."));
            }
            if !git.create_branch(repo, new, &commit.id).await {
                return Err(call.refuse().say(422, "[BranchName]: GitRefName"));
            }
            push::announce(call.forge, repo, me, new, None, Some(&commit.id)).await;
            Ok(Reply::json(201, &call.forge.state().branch_json(repo, access, new, &commit)))
        }
        ("DELETE", name) => {
            let me = at_least(call, access, Access::Write)?;
            let Some(commit) = git.branch(repo, name).await else {
                // Deleting a branch that was already deleted succeeds.
                let gone = call.forge.state().repos.get(&repo).is_some_and(|r| r.gone_branches.contains(name));
                return match (gone, call.flavour()) {
                    (true, Flavour::Gitea) => Ok(Reply::empty(204)),
                    (true, Flavour::Forgejo) => Err(call.refuse().say(500, "")),
                    (false, _) => Err(call.refuse().not_found()),
                };
            };
            {
                let state = call.forge.state();
                if state.repos.get(&repo).is_some_and(|r| r.default_branch == name) {
                    return Err(call.refuse().say(403, "can not delete default branch"));
                }
                if state.protection(repo, name).is_some() {
                    return Err(call.refuse().say(403, "branch protected"));
                }
            }
            if !git.delete_branch(repo, name).await {
                return Err(call.refuse().not_found());
            }
            if let Some(found) = call.forge.state().repos.get_mut(&repo) {
                found.gone_branches.insert(name.to_owned());
            }
            push::announce(call.forge, repo, me, name, Some(&commit.id), None).await;
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn protections(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    at_least(call, access, Access::Admin)?;
    let mut state = call.forge.state();
    let found = |state: &State| {
        let name = path.join("/");
        state.repos.get(&repo).and_then(|r| r.protections.iter().position(|p| p.rule == name))
    };
    match (call.method, path) {
        ("GET", []) => {
            let all: Vec<Value> = state
                .repos
                .get(&repo)
                .map(|r| r.protections.iter().map(|p| state.protection_json(p)).collect())
                .unwrap_or_default();
            Ok(Reply::json(200, &Value::Array(all)))
        }
        ("POST", []) => {
            let order = call.json()?;
            let rule = text(&order, "rule_name")
                .filter(|r| !r.is_empty())
                .or_else(|| text(&order, "branch_name"))
                .unwrap_or_default();
            // Control characters would end up in the hook's list of rules.
            if rule.is_empty() || rule.contains(char::is_control) {
                return Err(call.refuse().say(400, "both rule_name and branch_name are empty"));
            }
            if state.repos.get(&repo).is_some_and(|r| r.protections.iter().any(|p| p.rule == rule)) {
                return Err(call.refuse().say(403, "Branch protection already exist"));
            }
            let protection = Protection {
                rule: rule.to_owned(),
                enable_push: flag(&order, "enable_push").unwrap_or(false),
                created: now(),
            };
            let shown = state.protection_json(&protection);
            if let Some(repo) = state.repos.get_mut(&repo) {
                repo.protections.push(protection);
            }
            Ok(Reply::json(201, &shown))
        }
        ("GET", [_, ..]) => {
            match found(&state).and_then(|at| state.repos.get(&repo).and_then(|r| r.protections.get(at))) {
                Some(p) => Ok(Reply::json(200, &state.protection_json(p))),
                None => Err(call.refuse().not_found()),
            }
        }
        ("DELETE", [_, ..]) => match (found(&state), state.repos.get_mut(&repo)) {
            (Some(at), Some(repo)) => {
                repo.protections.remove(at);
                Ok(Reply::empty(204))
            }
            _ => Err(call.refuse().not_found()),
        },
        _ => Err(call.refuse().not_found()),
    }
}
