//! Accounts, tokens, organisations and teams.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::api::{Call, random_hex};
use super::reply::{Answer, Reply};
use super::shapes::{Address, TeamView};
use super::state::{Access, Account, EntryKind, HookOwner, Id, LabelOwner, State, Team, Token, next, now, rfc3339};
use super::{Flavour, repositories};

/// Everything that a team can have rights in.
const UNITS: [&str; 10] = [
    "repo.actions",
    "repo.code",
    "repo.ext_issues",
    "repo.ext_wiki",
    "repo.issues",
    "repo.packages",
    "repo.projects",
    "repo.pulls",
    "repo.releases",
    "repo.wiki",
];

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) async fn answer(call: &Call<'_>, path: &[&str]) -> Answer {
    match (call.method, path) {
        ("GET", ["user"]) => {
            let me = call.me()?;
            Ok(Reply::json(200, &call.forge.state().user_json(me, Address::Real, Some(me))))
        }
        ("POST", ["user", "repos"]) => {
            let me = call.me()?;
            repositories::create(call, me).await
        }
        ("GET", ["user", "repos"]) => {
            let me = call.me()?;
            Ok(repositories::list(call, |state, repo| state.access(repo, Some(me)) >= Access::Write))
        }
        ("PUT" | "DELETE", ["user", "blocks", login]) if call.flavour() == Flavour::Gitea => {
            block(call, login, path[1])
        }
        ("PUT", ["user", "block" | "unblock", login]) if call.flavour() == Flavour::Forgejo => {
            block(call, login, path[1])
        }
        (_, ["user", "blocks" | "block" | "unblock", _]) => Err(Reply::text(404, "404 page not found\n")),
        ("GET", ["users", "search"]) => Ok(search(call)),
        ("GET", ["users", login, "repos"]) => {
            let owner = by_login(call, login)?;
            let me = call.caller.account;
            Ok(repositories::list(call, |state, repo| repo.owner == owner && state.access(repo, me) >= Access::Read))
        }
        ("GET", ["users", login, "orgs", org, "permissions"]) => org_permissions(call, login, org),
        (_, ["users", login, "tokens", rest @ ..]) => tokens(call, login, rest),
        ("GET", ["users", login]) => {
            let id = by_login(call, login)?;
            Ok(Reply::json(
                200,
                &call.forge.state().user_json(id, Address::to(call.caller.account), call.caller.account),
            ))
        }
        (_, ["admin", rest @ ..]) => admin(call, rest).await,
        ("POST", ["orgs"]) => {
            let me = call.me()?;
            create_org(call, me)
        }
        ("GET", ["user", "orgs"]) => {
            let me = call.me()?;
            Ok(orgs_of(call, me))
        }
        ("GET", ["users", login, "orgs"]) => {
            let me = call.me()?;
            let who = by_login(call, login)?;
            let close = me == who || call.forge.state().is_site_admin(Some(me));
            // Membership is only visible if somebody makes it public, which nobody does here.
            Ok(if close { orgs_of(call, who) } else { call.paginated(&[]) })
        }
        ("GET", ["user", "teams"]) => {
            let me = call.me()?;
            let state = call.forge.state();
            let all: Vec<Value> = state
                .teams_by_name(|t| t.members.contains(&me))
                .map(|t| state.team_json(t, TeamView::WithOrganization))
                .collect();
            drop(state);
            Ok(call.paginated(&all))
        }
        (_, ["orgs", org, rest @ ..]) => organization(call, org, rest).await,
        (_, ["teams", id, rest @ ..]) => team(call, id, rest),
        _ => Err(call.refuse().not_found()),
    }
}

/// The id of the account with this login. A former name gets a redirect.
fn by_login(call: &Call<'_>, login: &str) -> Result<Id, Reply> {
    let state = call.forge.state();
    if let Some(account) = state.account_by_login(login) {
        return Ok(account.id);
    }
    Err(match state.former_logins.get(&login.to_lowercase()).filter(|id| state.accounts.contains_key(id)) {
        Some(id) => call.moved(307, login, state.login(*id)),
        None => call.refuse().say(404, format!("user redirect does not exist [name: {login}]")),
    })
}

fn orgs_of(call: &Call<'_>, who: Id) -> Reply {
    let state = call.forge.state();
    let mut orgs: Vec<&Account> = state.accounts.values().filter(|a| a.is_org && state.in_org(a.id, who)).collect();
    orgs.sort_by_key(|a| a.login.to_lowercase());
    let all: Vec<Value> = orgs.into_iter().map(|a| state.org_json(a.id)).collect();
    drop(state);
    call.paginated(&all)
}

/// The id of an account that is named at the end of a path.
fn named(call: &Call<'_>, state: &State, login: &str) -> Result<Id, Reply> {
    if let Some(account) = state.account_by_login(login) {
        return Ok(account.id);
    }
    Err(match state.former_logins.get(&login.to_lowercase()) {
        Some(id) => call.moved(307, login, state.login(*id)),
        None => call.refuse().no_such("GetUserByName", format!("user does not exist [uid: 0, name: {login}]")),
    })
}

fn org_by_name(call: &Call<'_>, name: &str) -> Result<Id, Reply> {
    let state = call.forge.state();
    if let Some(org) = state.account_by_login(name).filter(|a| a.is_org) {
        return Ok(org.id);
    }
    Err(match state.former_logins.get(&name.to_lowercase()) {
        Some(id) => call.moved(307, name, state.login(*id)),
        None => call.refuse().no_such("GetOrgByName", format!("user redirect does not exist [name: {name}]")),
    })
}

fn search(call: &Call<'_>) -> Reply {
    let state = call.forge.state();
    let query = call.argument("q").unwrap_or_default().to_lowercase();
    let uid = call.argument("uid").and_then(|v| v.parse::<i64>().ok()).filter(|id| *id > 0);
    let mut found: Vec<&Account> = state
        .accounts
        .values()
        .filter(|a| !a.is_org && uid.is_none_or(|id| a.id == id))
        .filter(|a| a.login.to_lowercase().contains(&query))
        .collect();
    found.sort_by_key(|a| a.login.to_lowercase());
    let (offset, limit) = call.page();
    let total = found.len();
    let data: Vec<Value> = found
        .into_iter()
        .skip(offset)
        .take(limit)
        .map(|a| state.user_json(a.id, Address::to(call.caller.account), call.caller.account))
        .collect();
    Reply::json(200, &json!({"data": data, "ok": true})).with("X-Total-Count", total)
}

fn block(call: &Call<'_>, login: &str, verb: &str) -> Answer {
    let me = call.me()?;
    let other = by_login(call, login)?;
    let mut state = call.forge.state();
    if let Some(account) = state.accounts.get_mut(&me) {
        if call.method == "DELETE" || verb == "unblock" {
            account.blocked.remove(&other);
        } else {
            account.blocked.insert(other);
        }
    }
    Ok(Reply::empty(204))
}

fn tokens(call: &Call<'_>, login: &str, path: &[&str]) -> Answer {
    let me = call.me()?;
    let owner = by_login(call, login)?;
    let mut state = call.forge.state();
    if me != owner && !state.is_site_admin(Some(me)) {
        return Err(call.refuse().say(403, "doer should be the site admin or be same as the contextUser"));
    }
    // A token must not be able to create more tokens.
    if call.caller.scopes.is_some() {
        return Err(call.refuse().say(401, "auth required"));
    }
    let shown = |token: &Token, secret: &str| {
        json!({
            "id": token.id, "name": token.name, "sha1": secret,
            "token_last_eight": token.secret.get(token.secret.len().saturating_sub(8)..).unwrap_or_default(),
            "scopes": token.scopes, "created_at": rfc3339(token.created), "last_used_at": rfc3339(token.created),
        })
    };
    match (call.method, path) {
        ("POST", []) => {
            let order = call.json()?;
            let name = text(&order, "name").to_owned();
            if name.is_empty() {
                return Err(call.refuse().say(422, "[Name]: Required"));
            }
            let scopes: Vec<String> = order
                .get("scopes")
                .and_then(Value::as_array)
                .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            if scopes.is_empty() {
                return Err(call.refuse().say(400, "access token must have a scope"));
            }
            if let Some(bad) = scopes.iter().find(|s| !known_scope(s)) {
                return Err(call.refuse().say(400, format!("invalid access token scope provided: {bad}")));
            }
            if state.tokens.values().any(|t| t.account == owner && t.name == name) {
                return Err(call.refuse().say(400, "access token name has been used already"));
            }
            let token = Token {
                id: next(&mut state.seq.token),
                name,
                account: owner,
                secret: random_hex(20),
                scopes,
                created: now(),
            };
            let reply = Reply::json(201, &shown(&token, &token.secret));
            state.tokens.insert(token.secret.clone(), token);
            Ok(reply)
        }
        ("GET", []) => {
            let mut all: Vec<&Token> = state.tokens.values().filter(|t| t.account == owner).collect();
            all.sort_by_key(|t| t.id);
            let all: Vec<Value> = all.into_iter().map(|t| shown(t, "")).collect();
            Ok(call.paginated(&all))
        }
        ("DELETE", [which]) => {
            let before = state.tokens.len();
            state.tokens.retain(|_, t| t.account != owner || (t.name != *which && t.id.to_string() != *which));
            if state.tokens.len() == before { Err(call.refuse().not_found()) } else { Ok(Reply::empty(204)) }
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn known_scope(scope: &str) -> bool {
    const CATEGORIES: [&str; 9] =
        ["activitypub", "admin", "misc", "notification", "organization", "package", "issue", "repository", "user"];
    scope == "all"
        || scope == "public-only"
        || scope
            .split_once(':')
            .is_some_and(|(level, category)| matches!(level, "read" | "write") && CATEGORIES.contains(&category))
}

/// Whether the forge accepts this as the name of an account or repository.
pub(super) fn allowed_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && name != "."
        && name != ".."
        && !name.to_lowercase().ends_with(".git")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl State {
    pub(super) fn add_account(&mut self, login: &str, email: &str, password: &str, is_admin: bool, is_org: bool) -> Id {
        let id = next(&mut self.seq.account);
        self.former_logins.remove(&login.to_lowercase());
        self.accounts.insert(
            id,
            Account {
                id,
                login: login.to_owned(),
                full_name: String::new(),
                email: email.to_owned(),
                password: password.to_owned(),
                is_admin,
                is_org,
                created: now(),
                blocked: BTreeSet::new(),
            },
        );
        id
    }

    fn rename_account(&mut self, id: Id, to: &str) {
        if let Some(account) = self.accounts.get_mut(&id) {
            let old = std::mem::replace(&mut account.login, to.to_owned());
            self.former_logins.remove(&to.to_lowercase());
            self.former_logins.insert(old.to_lowercase(), id);
        }
    }

    /// Deletes an account. Unless it is purged, what it wrote keeps its author's number but shows no name.
    fn remove_account(&mut self, id: Id, purge: bool) {
        self.accounts.remove(&id);
        self.former_logins.retain(|_, target| *target != id);
        self.tokens.retain(|_, t| t.account != id);
        for team in self.teams.values_mut() {
            team.members.remove(&id);
        }
        for repo in self.repos.values_mut() {
            repo.collaborators.remove(&id);
        }
        if purge {
            self.entries.retain(|_, e| e.author != id || !matches!(e.kind, EntryKind::Comment { .. }));
        }
        for issue in self.issues.values_mut() {
            issue.assignees.retain(|a| *a != id);
            issue.reactions.retain(|r| r.user != id);
        }
    }
}

async fn admin(call: &Call<'_>, path: &[&str]) -> Answer {
    let me = call.me()?;
    if !call.forge.state().is_site_admin(Some(me)) {
        return Err(call.refuse().say(403, "user should be the site admin"));
    }
    match (call.method, path) {
        ("POST", ["users"]) => {
            let order = call.json()?;
            let (login, email) = (text(&order, "username"), text(&order, "email"));
            for (field, value) in [("Username", login), ("Email", email)] {
                if value.is_empty() {
                    return Err(call.refuse().say(422, format!("[{field}]: Required")));
                }
            }
            let mut state = call.forge.state();
            if !allowed_name(login) {
                return Err(call.refuse().say(422, "[Username]: Alpha dash dot"));
            }
            if state.account_by_login(login).is_some() {
                return Err(call.refuse().say(422, format!("user already exists [name: {login}]")));
            }
            if state.accounts.values().any(|a| a.email.eq_ignore_ascii_case(email)) {
                return Err(call.refuse().say(422, format!("e-mail already in use [email: {email}]")));
            }
            let id = state.add_account(login, email, text(&order, "password"), false, false);
            Ok(Reply::json(201, &state.user_json(id, Address::Real, Some(me))))
        }
        ("PATCH", ["users", login]) => {
            let id = by_login(call, login)?;
            let order = call.json()?;
            let mut state = call.forge.state();
            if let Some(account) = state.accounts.get_mut(&id) {
                for (key, field) in [
                    ("password", &mut account.password),
                    ("email", &mut account.email),
                    ("full_name", &mut account.full_name),
                ] {
                    if let Some(value) = order.get(key).and_then(Value::as_str) {
                        value.clone_into(field);
                    }
                }
                if let Some(admin) = order.get("admin").and_then(Value::as_bool) {
                    account.is_admin = admin;
                }
            }
            Ok(Reply::json(200, &state.user_json(id, Address::Real, Some(me))))
        }
        ("POST", ["users", login, "rename"]) => {
            let id = by_login(call, login)?;
            let order = call.json()?;
            let mut state = call.forge.state();
            refuse_organization(call, &state, id)?;
            rename(call, &mut state, id, text(&order, "new_username"), "NewName")
        }
        ("POST", ["users", login, "orgs"]) => {
            let id = by_login(call, login)?;
            create_org(call, id)
        }
        ("DELETE", ["users", login]) => {
            let id = by_login(call, login)?;
            refuse_organization(call, &call.forge.state(), id)?;
            let purge = call.argument("purge") == Some("true");
            let owned: Vec<Id> = call.forge.state().repos.values().filter(|r| r.owner == id).map(|r| r.id).collect();
            if !owned.is_empty() && !purge {
                return Err(call.refuse().say(422, format!("user still has ownership of repositories [uid: {id}]")));
            }
            if !purge && call.forge.state().teams.values().any(|t| t.members.contains(&id)) {
                return Err(call.refuse().say(422, format!("user still has membership of organizations [uid: {id}]")));
            }
            {
                let mut state = call.forge.state();
                for repo in &owned {
                    state.remove_repo(*repo);
                }
                state.remove_account(id, purge);
            }
            for repo in owned {
                call.forge.git.remove(repo).await;
            }
            Ok(Reply::empty(204))
        }
        ("GET", ["users"]) => {
            let state = call.forge.state();
            let all: Vec<Value> = state
                .accounts
                .values()
                .filter(|a| !a.is_org)
                .map(|a| state.user_json(a.id, Address::Real, Some(me)))
                .collect();
            drop(state);
            Ok(call.paginated(&all))
        }
        ("GET", ["hooks"]) => Ok(super::hooks::of_server(call)),
        (_, ["hooks", rest @ ..]) => {
            // A new hook is a system hook only if its configuration says so, in a string. Existing hooks are found
            // either way.
            let stated = call.json()?.pointer("/config/is_system_webhook").and_then(Value::as_str) == Some("true");
            let there = rest.first().and_then(|id| id.parse::<i64>().ok());
            let is_default = {
                let state = call.forge.state();
                there.and_then(|id| state.hooks.get(&id)).is_some_and(|h| h.owner == HookOwner::Default)
            };
            let owner = match rest {
                [] if stated => HookOwner::System,
                [] => HookOwner::Default,
                _ if is_default => HookOwner::Default,
                _ => HookOwner::System,
            };
            super::hooks::answer(call, owner, rest).await
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn refuse_organization(call: &Call<'_>, state: &State, id: Id) -> Result<(), Reply> {
    match state.accounts.get(&id).filter(|a| a.is_org) {
        Some(org) => Err(call.refuse().say(422, format!("{} is an organization not a user", org.login))),
        None => Ok(()),
    }
}

/// Renames an account. The old name redirects until somebody takes it.
fn rename(call: &Call<'_>, state: &mut State, id: Id, to: &str, field: &str) -> Answer {
    if to.is_empty() {
        return Err(call.refuse().say(422, format!("[{field}]: Required")));
    }
    // Forgejo words this error differently for people.
    let person = call.flavour() == Flavour::Forgejo && state.accounts.get(&id).is_some_and(|a| !a.is_org);
    if !allowed_name(to) {
        return Err(call.refuse().say(
            422,
            if person {
                format!("Username \"{to}\" contains invalid characters.")
            } else {
                format!("name is invalid [{to}]: must be valid alpha or numeric or dash(-_) or dot characters")
            },
        ));
    }
    if state.account_by_login(to).is_some_and(|a| a.id != id) {
        return Err(call.refuse().say(
            422,
            if person {
                "The username is already taken.".to_owned()
            } else {
                format!("user already exists [name: {to}]")
            },
        ));
    }
    state.rename_account(id, to);
    Ok(Reply::empty(204))
}

fn create_org(call: &Call<'_>, owner: Id) -> Answer {
    let order = call.json()?;
    let name = text(&order, "username");
    let mut state = call.forge.state();
    if !allowed_name(name) {
        return Err(call.refuse().say(422, "[UserName]: Required"));
    }
    if state.account_by_login(name).is_some() {
        return Err(call.refuse().say(422, format!("user already exists [name: {name}]")));
    }
    let org = state.add_account(name, "", "", false, true);
    let id = next(&mut state.seq.team);
    state.teams.insert(
        id,
        Team {
            id,
            org,
            name: "Owners".to_owned(),
            description: String::new(),
            permission: Access::Owner,
            units: UNITS.iter().map(|u| ((*u).to_owned(), "owner".to_owned())).collect(),
            all_repositories: true,
            may_create_repositories: true,
            members: BTreeSet::from([owner]),
            repositories: BTreeSet::new(),
        },
    );
    Ok(Reply::json(201, &state.org_json(org)))
}

fn org_permissions(call: &Call<'_>, login: &str, org: &str) -> Answer {
    call.me()?;
    let who = by_login(call, login)?;
    let org = org_by_name(call, org)?;
    let state = call.forge.state();
    let best = state
        .teams
        .values()
        .filter(|t| t.org == org && t.members.contains(&who))
        // Gitea counts only teams with administration rights, and ignores units.
        .filter(|t| state.flavour == Flavour::Forgejo || t.permission >= Access::Admin)
        .map(|t| t.permission)
        .max()
        .unwrap_or(Access::None);
    let creates = state.teams.values().any(|t| t.org == org && t.may_create_repositories && t.members.contains(&who));
    Ok(Reply::json(
        200,
        &json!({
            "is_owner": best >= Access::Owner, "is_admin": best >= Access::Admin, "can_write": best >= Access::Write,
            "can_read": best >= Access::Read, "can_create_repository": creates,
        }),
    ))
}

/// Reads `permission`, `units` and `units_map` from a request about a team.
fn team_rights(order: &Value) -> (Access, BTreeMap<String, String>) {
    let stated = Access::parse(text(order, "permission")).unwrap_or(Access::None);
    let mut units: BTreeMap<String, String> = order
        .get("units_map")
        .and_then(Value::as_object)
        .map(|map| map.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or("none").to_owned())).collect())
        .unwrap_or_default();
    if stated >= Access::Admin {
        units = UNITS.iter().map(|u| ((*u).to_owned(), stated.word().to_owned())).collect();
        return (stated, units);
    }
    if units.is_empty() {
        let listed = order.get("units").and_then(Value::as_array).cloned().unwrap_or_default();
        units = listed.iter().filter_map(Value::as_str).map(|u| (u.to_owned(), stated.word().to_owned())).collect();
    }
    // Takes the best unit, because this stand-in checks rights in issues.
    let best = units.values().filter_map(|v| Access::parse(v)).max().unwrap_or(stated);
    (best, units)
}

async fn organization(call: &Call<'_>, org_name: &str, path: &[&str]) -> Answer {
    let org = org_by_name(call, org_name)?;
    let owner_only = || -> Result<Id, Reply> {
        let me = call.me()?;
        if call.forge.state().owns_org(org, me) {
            Ok(me)
        } else {
            Err(call.refuse().say(403, "Must be an organization owner"))
        }
    };
    let insider_only = || -> Result<Id, Reply> {
        let me = call.me()?;
        let state = call.forge.state();
        if state.in_org(org, me) || state.is_site_admin(Some(me)) {
            Ok(me)
        } else {
            Err(call.refuse().say(403, "Must be an organization member"))
        }
    };
    match (call.method, path) {
        ("GET", []) => Ok(Reply::json(200, &call.forge.state().org_json(org))),
        ("DELETE", []) => {
            owner_only()?;
            let mut state = call.forge.state();
            if state.repos.values().any(|r| r.owner == org) {
                return Err(call.refuse().say(500, ""));
            }
            state.teams.retain(|_, t| t.org != org);
            state.hooks.retain(|_, h| h.owner != HookOwner::Organization(org));
            state.labels.retain(|_, l| l.owner != LabelOwner::Organization(org));
            state.accounts.remove(&org);
            state.former_logins.retain(|_, target| *target != org);
            state.former_repos.retain(|(owner, _), _| *owner != org);
            Ok(Reply::empty(204))
        }
        ("POST", ["rename"]) => {
            owner_only()?;
            let order = call.json()?;
            rename(call, &mut call.forge.state(), org, text(&order, "new_name"), "NewName")
        }
        ("POST", ["repos"]) => {
            let me = call.me()?;
            let allowed = {
                let state = call.forge.state();
                state.owns_org(org, me)
                    || state
                        .teams
                        .values()
                        .any(|t| t.org == org && t.may_create_repositories && t.members.contains(&me))
            };
            if !allowed {
                return Err(call
                    .refuse()
                    .say(403, format!("User is not allowed to create repositories in organization {org_name}")));
            }
            repositories::create(call, org).await
        }
        ("GET", ["repos"]) => {
            let me = call.caller.account;
            Ok(repositories::list(call, |state, repo| repo.owner == org && state.access(repo, me) >= Access::Read))
        }
        (method, ["labels", rest @ ..]) => {
            if method != "GET" {
                owner_only()?;
            }
            super::labels::answer(call, LabelOwner::Organization(org), rest)
        }
        (_, ["hooks", rest @ ..]) => {
            owner_only()?;
            super::hooks::answer(call, HookOwner::Organization(org), rest).await
        }
        ("POST", ["teams"]) => {
            insider_only()?;
            owner_only()?;
            let order = call.json()?;
            let name = text(&order, "name").to_owned();
            if name.is_empty() {
                return Err(call.refuse().say(422, "[Name]: Required"));
            }
            let (permission, units) = team_rights(&order);
            let mut state = call.forge.state();
            if units.is_empty() {
                return Err(call.refuse().say(422, "units permission should not be empty"));
            }
            if state.teams.values().any(|t| t.org == org && t.name.eq_ignore_ascii_case(&name)) {
                return Err(call.refuse().say(422, format!("team already exists [org_id: {org}, name: {name}]")));
            }
            let yes = |key: &str| order.get(key).and_then(Value::as_bool).unwrap_or(false);
            let id = next(&mut state.seq.team);
            let team = Team {
                id,
                org,
                name,
                description: text(&order, "description").to_owned(),
                permission,
                units,
                all_repositories: yes("includes_all_repositories"),
                may_create_repositories: yes("can_create_org_repo"),
                members: BTreeSet::new(),
                repositories: BTreeSet::new(),
            };
            let shown = state.team_json(&team, TeamView::WithOrganization);
            state.teams.insert(id, team);
            Ok(Reply::json(201, &shown))
        }
        ("GET", ["teams"]) => {
            insider_only()?;
            let state = call.forge.state();
            let all: Vec<Value> =
                state.teams_by_name(|t| t.org == org).map(|t| state.team_json(t, TeamView::Alone)).collect();
            drop(state);
            Ok(Reply::part(&all, call.strict_page()))
        }
        ("GET", ["teams", "search"]) => {
            let me = insider_only()?;
            let query = call.argument("q").unwrap_or_default().to_lowercase();
            let state = call.forge.state();
            // Only the caller's own teams, even for owners; the server's administrators see all.
            let all: Vec<Value> = state
                .teams_by_name(|t| t.org == org && (t.members.contains(&me) || state.is_site_admin(Some(me))))
                .filter(|t| t.name.to_lowercase().contains(&query))
                .map(|t| state.team_json(t, TeamView::Alone))
                .collect();
            drop(state);
            Ok(Reply::json(200, &json!({"data": all, "ok": true})).with("X-Total-Count", all.len()))
        }
        ("GET", ["members", login]) => {
            let me = call.me()?;
            let state = call.forge.state();
            let who = named(call, &state, login)?;
            let member = state.in_org(org, who);
            if state.in_org(org, me) || state.is_site_admin(Some(me)) {
                return if member { Ok(Reply::empty(204)) } else { Err(call.refuse().not_found()) };
            }
            if me == who {
                return Err(call.refuse().not_found());
            }
            Ok(Reply::redirect(call.method, 303, format!("/api/v1/orgs/{org_name}/public_members/{login}")))
        }
        // Nobody's membership is public here.
        ("GET", ["public_members", login]) => {
            named(call, &call.forge.state(), login)?;
            Err(call.refuse().not_found())
        }
        ("GET", ["members"]) => {
            let me = call.me()?;
            let state = call.forge.state();
            let inside = state.in_org(org, me) || state.is_site_admin(Some(me));
            let mut ids: Vec<Id> =
                state.accounts.keys().copied().filter(|id| inside && state.in_org(org, *id)).collect();
            ids.sort_by_key(|id| state.login(*id).to_lowercase());
            let all: Vec<Value> = ids.into_iter().map(|id| state.user_json(id, Address::Real, Some(me))).collect();
            drop(state);
            Ok(Reply::part(&all, call.strict_page()))
        }
        _ => Err(call.refuse().not_found()),
    }
}

fn team(call: &Call<'_>, id: &str, path: &[&str]) -> Answer {
    let mut state = call.forge.state();
    let Some((id, org)) = id.parse::<i64>().ok().and_then(|id| state.teams.get(&id)).map(|t| (t.id, t.org)) else {
        return Err(call.refuse().not_found());
    };
    let me = call.me()?;
    let owner = state.owns_org(org, me);
    let member = state.teams.get(&id).is_some_and(|t| t.members.contains(&me));
    // Without the right to see the team, the caller is not told that it exists.
    if !owner && (!member || call.method != "GET") {
        return Err(match (call.method, member || state.in_org(org, me)) {
            ("GET", true) => call.refuse().say(403, "Must be a team member"),
            _ => call.refuse().not_found(),
        });
    }
    match (call.method, path) {
        ("GET", []) => Ok(Reply::json(
            200,
            &state.teams.get(&id).map_or(Value::Null, |t| state.team_json(t, TeamView::WithOrganization)),
        )),
        ("PATCH", []) => edit_team(call, &mut state, id),
        ("DELETE", []) => {
            state.teams.remove(&id);
            Ok(Reply::empty(204))
        }
        ("GET", ["members"]) => {
            let mut ids: Vec<Id> =
                state.teams.get(&id).map(|t| t.members.iter().copied().collect()).unwrap_or_default();
            ids.sort_by_key(|id| state.login(*id).to_lowercase());
            let all: Vec<Value> = ids.iter().map(|id| state.user_json(*id, Address::Real, Some(me))).collect();
            drop(state);
            Ok(Reply::part(&all, call.page_if_asked()))
        }
        (method @ ("GET" | "PUT" | "DELETE"), ["members", login]) => {
            let who = named(call, &state, login)?;
            let shown = state.user_json(who, Address::Real, Some(me));
            let Some(team) = state.teams.get_mut(&id) else {
                return Err(call.refuse().not_found());
            };
            match method {
                "PUT" => {
                    team.members.insert(who);
                    Ok(Reply::empty(204))
                }
                "DELETE" => {
                    team.members.remove(&who);
                    Ok(Reply::empty(204))
                }
                _ if team.members.contains(&who) => Ok(Reply::json(200, &shown)),
                _ => Err(call.refuse().not_found()),
            }
        }
        (method @ ("PUT" | "DELETE"), ["repos", owner, name]) => {
            let found = call.repo(&state, owner, name);
            let (repo, _) = found?;
            if state.repos.get(&repo).map(|r| r.owner) != Some(org) {
                return Err(call.refuse().not_found());
            }
            let Some(team) = state.teams.get_mut(&id) else {
                return Err(call.refuse().not_found());
            };
            if method == "PUT" {
                team.repositories.insert(repo);
            } else {
                team.repositories.remove(&repo);
            }
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}

/// Changes a team. Fields that are not given stay. If the name is taken, the answer is a bare 500.
fn edit_team(call: &Call<'_>, state: &mut State, id: Id) -> Answer {
    let order = call.json()?;
    let name = text(&order, "name").to_owned();
    let org = state.teams.get(&id).map(|t| t.org);
    let taken = state.teams.values().any(|t| Some(t.org) == org && t.id != id && t.name.eq_ignore_ascii_case(&name));
    if taken {
        return Err(call.refuse().say(500, ""));
    }
    let Some(team) = state.teams.get_mut(&id) else {
        return Err(call.refuse().not_found());
    };
    if !name.is_empty() {
        team.name = name;
    }
    if let Some(description) = order.get("description").and_then(Value::as_str) {
        description.clone_into(&mut team.description);
    }
    // The rights of the owners' team cannot be changed.
    if team.permission != Access::Owner {
        let (permission, units) = team_rights(&order);
        if !units.is_empty() {
            team.permission = permission;
            team.units = units;
        }
        if let Some(all) = order.get("includes_all_repositories").and_then(Value::as_bool) {
            team.all_repositories = all;
        }
        if let Some(may) = order.get("can_create_org_repo").and_then(Value::as_bool) {
            team.may_create_repositories = may;
        }
    }
    Ok(Reply::json(200, &state.teams.get(&id).map_or(Value::Null, |t| state.team_json(t, TeamView::Alone))))
}
