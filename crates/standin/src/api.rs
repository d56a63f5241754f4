//! Leads from a request to a handler: authenticates the caller, checks the token's scopes, and finds the
//! repository. Paths are split at their raw slashes and decoded afterwards, because branches arrive as `a%2Fb`.

use axum::http::HeaderMap;
use base64::Engine as _;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use serde_json::{Value, json};

use super::Flavour;
use super::reply::{Answer, Refusals, Reply};
use super::state::{Access, Id, State};
use super::{Forge, accounts, issues, pulls, repositories};

/// The caller, and what their token allows.
#[derive(Clone, Default)]
pub(super) struct Caller {
    pub account: Option<Id>,
    pub login: String,
    /// `None` if the caller used a password or is anonymous: then only the account's own rights apply.
    pub scopes: Option<Vec<String>>,
}

/// One request to the API, authenticated and with its body read.
pub(super) struct Call<'a> {
    pub forge: &'a Forge,
    pub caller: Caller,
    pub method: &'a str,
    /// The path as it was sent, not decoded.
    pub path: &'a str,
    pub query: Vec<(String, String)>,
    pub raw_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
}

/// The characters that Go's `url.QueryEscape` encodes.
pub(super) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Decodes `a=b&c=d`.
pub(super) fn parse_form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
            (decode(key), decode(value))
        })
        .collect()
}

/// A random secret of `bytes` bytes, as hex.
pub(super) fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0u8; bytes];
    if getrandom::fill(&mut buffer).is_err() {
        // Without randomness a secret must still not be guessable; two hashes with random state are the best that
        // every platform has.
        use std::hash::{BuildHasher, Hasher};
        for chunk in buffer.chunks_mut(8) {
            let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
            chunk.copy_from_slice(&hash.to_le_bytes()[..chunk.len()]);
        }
    }
    hex::encode(buffer)
}

/// Reads the credentials of a request: `token X`, `Bearer X`, or basic with a
/// password or with a token on either side.
pub(super) fn authenticate(state: &State, refusals: &Refusals, headers: &HeaderMap) -> Result<Caller, Reply> {
    let Some(header) = headers.get("authorization") else {
        return Ok(Caller::default());
    };
    let bad = || {
        Err(match refusals.flavour {
            Flavour::Gitea => refusals.say(401, "invalid username, password or token"),
            Flavour::Forgejo => refusals.say(401, "user does not exist [uid: 0, name: ]"),
        })
    };
    let Ok(header) = header.to_str() else {
        return bad();
    };
    let Some((scheme, value)) = header.split_once(' ') else {
        return bad();
    };
    let by_token = |secret: &str| {
        let token = state.tokens.get(secret)?;
        let account = state.accounts.get(&token.account)?;
        Some(Caller { account: Some(account.id), login: account.login.clone(), scopes: Some(token.scopes.clone()) })
    };
    let found = match scheme.to_ascii_lowercase().as_str() {
        "token" | "bearer" => by_token(value.trim()),
        "basic" => {
            let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(value.trim()) else {
                return bad();
            };
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            let Some((login, password)) = decoded.split_once(':') else {
                return bad();
            };
            by_token(password).or_else(|| by_token(login)).or_else(|| {
                let account = state.account_by_login(login).filter(|a| !a.is_org && a.password == password)?;
                Some(Caller { account: Some(account.id), login: account.login.clone(), scopes: None })
            })
        }
        _ => None,
    };
    let Some(caller) = found else { return bad() };
    let sudo = headers.get("sudo").and_then(|s| s.to_str().ok());
    match sudo {
        Some(name) if state.is_site_admin(caller.account) => match state.account_by_login(name) {
            Some(account) => {
                Ok(Caller { account: Some(account.id), login: account.login.clone(), scopes: caller.scopes })
            }
            None => Err(refusals.no_user(name)),
        },
        Some(_) => Err(refusals.say(403, "Only administrators allowed to sudo.")),
        None => Ok(caller),
    }
}

impl Call<'_> {
    pub(super) fn refuse(&self) -> &Refusals {
        &self.forge.refusals
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.forge.refusals.flavour
    }

    /// The caller; 401 if nobody is signed in.
    pub(super) fn me(&self) -> Result<Id, Reply> {
        self.caller.account.ok_or_else(|| self.refuse().say(401, "token is required"))
    }

    pub(super) fn argument(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The body as JSON. Invalid UTF-8 is replaced, as in Go. An empty body counts as an empty object.
    pub(super) fn json(&self) -> Result<Value, Reply> {
        let text = String::from_utf8_lossy(&self.body);
        if text.trim().is_empty() {
            return Ok(json!({}));
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(self.refuse().say(422, "json: cannot unmarshal into an object")),
            Err(error) => Err(self.refuse().say(422, error.to_string())),
        }
    }

    /// `(offset, limit)` of a page. A requested limit is capped at the maximum; the default applies without one,
    /// even if it is above the maximum.
    pub(super) fn page(&self) -> (usize, usize) {
        let number = |key| self.argument(key).and_then(|v| v.parse::<usize>().ok());
        let page = number("page").unwrap_or(1).max(1);
        let pages = *self.forge.pages();
        let limit = number("limit").filter(|l| *l > 0).map_or(pages.default, |limit| limit.min(pages.most));
        ((page - 1).saturating_mul(limit), limit)
    }

    /// The same for lists that are complete unless a page is requested.
    pub(super) fn page_if_asked(&self) -> (usize, usize) {
        let asked = self.argument("page").and_then(|v| v.parse::<usize>().ok()).is_some_and(|page| page > 0);
        if asked { self.page() } else { (0, usize::MAX) }
    }

    /// The same for lists that never exceed the maximum, not even by default.
    pub(super) fn strict_page(&self) -> (usize, usize) {
        let (offset, limit) = self.page();
        let most = self.forge.pages().most;
        if limit <= most { (offset, limit) } else { (offset / limit * most, most) }
    }

    /// The same for such lists that are complete unless a page is requested.
    pub(super) fn strict_page_if_asked(&self) -> (usize, usize) {
        match self.page_if_asked() {
            whole @ (_, usize::MAX) => whole,
            _ => self.strict_page(),
        }
    }

    /// One page of a list, with the total count and the links to other pages.
    pub(super) fn paginated(&self, all: &[Value]) -> Reply {
        let (offset, limit) = self.page();
        let reply = Reply::part(all, (offset, limit));
        let last = all.len().div_ceil(limit).max(1);
        // For a page past the end, the links describe the last page.
        let page = (offset / limit + 1).min(last);
        let link = |page: usize, rel: &str| {
            let mut query: Vec<(String, String)> = self.query.iter().filter(|(k, _)| k != "page").cloned().collect();
            query.push(("page".to_owned(), page.to_string()));
            query.sort();
            let encode = |s: &str| percent_encoding::utf8_percent_encode(s, QUERY).to_string().replace("%20", "+");
            let query: Vec<String> = query.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
            format!("<{}{}?{}>; rel=\"{rel}\"", self.refuse().root_url, self.path, query.join("&"))
        };
        let mut links = Vec::new();
        if page < last {
            links.extend([link(page + 1, "next"), link(last, "last")]);
        }
        if page > 1 {
            links.extend([link(1, "first"), link(page - 1, "prev")]);
        }
        if links.is_empty() { reply } else { reply.with("Link", links.join(",")) }
    }

    /// The argument `since` or `before`, in seconds; 422 if it is not a time.
    pub(super) fn time_argument(&self, key: &str) -> Result<Option<i64>, Reply> {
        let Some(text) = self.argument(key).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        // A plus sign in a query means a space; the forge tolerates it here too.
        match text.trim().replace(' ', "+").parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Some(time.as_second())),
            Err(_) => Err(self.refuse().say(
                422,
                format!(
                    "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""
                ),
            )),
        }
    }

    /// Refuses a token that lacks one of the scopes.
    fn require(&self, categories: &[&str]) -> Result<(), Reply> {
        let Some(scopes) = &self.caller.scopes else {
            return Ok(());
        };
        let reads = matches!(self.method, "GET" | "HEAD" | "OPTIONS");
        let has = |category: &str| {
            scopes
                .iter()
                .any(|s| s == "all" || *s == format!("write:{category}") || (reads && *s == format!("read:{category}")))
        };
        if categories.iter().all(|c| has(c)) {
            return Ok(());
        }
        let level = if reads { "read" } else { "write" };
        let wanted: Vec<String> = categories.iter().map(|c| format!("{level}:{c}")).collect();
        let wanted = wanted.join(" ");
        Err(self.refuse().say(
            403,
            match self.flavour() {
                Flavour::Gitea => format!(
                    "token does not have at least one of required scope(s), required=[{wanted}], token scope={}",
                    scopes.join(",")
                ),
                Flavour::Forgejo => format!("token does not have at least one of required scope(s): [{wanted}]"),
            },
        ))
    }

    /// Finds a repository by its name, with the caller's rights in it. A former name gets a redirect. If the caller
    /// may not know about the repository, the answer is 404.
    pub(super) fn repo(&self, state: &State, owner: &str, name: &str) -> Result<(Id, Access), Reply> {
        let Some(account) = state.account_by_login(owner) else {
            return Err(match state.former_logins.get(&owner.to_lowercase()) {
                Some(id) => self.moved(307, owner, state.login(*id)),
                None => self.refuse().not_found(),
            });
        };
        let Some(repo) = state.repo_by_name(account.id, name) else {
            let former = state.former_repos.get(&(account.id, name.to_lowercase()));
            return Err(match former.and_then(|id| state.repos.get(id)) {
                Some(repo) if state.access(repo, self.caller.account) >= Access::Read => {
                    self.moved(301, &format!("{owner}/{name}"), &state.full_name(repo))
                }
                _ => self.refuse().not_found(),
            });
        };
        match state.access(repo, self.caller.account) {
            Access::None => Err(self.refuse().not_found()),
            access => Ok((repo.id, access)),
        }
    }

    /// A redirect to the same URL in which the first `from` is replaced by `to`.
    pub(super) fn moved(&self, status: u16, from: &str, to: &str) -> Reply {
        let mut location = self.path.replacen(&format!("/{from}"), &format!("/{to}"), 1);
        if !self.raw_query.is_empty() {
            location = format!("{location}?{}", self.raw_query);
        }
        Reply::redirect(self.method, status, location)
    }
}

/// Answers `/api/...`.
pub(super) async fn answer(call: &Call<'_>) -> Answer {
    let decoded: Vec<String> = call
        .path
        .trim_start_matches('/')
        .split('/')
        .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
        .collect();
    let path: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let path = match path.as_slice() {
        ["api", "v1", rest @ ..] => rest,
        ["api", "forgejo", "v1", "version"] if call.flavour() == Flavour::Forgejo => {
            return Ok(Reply::json(200, &json!({"version": call.flavour().version()})));
        }
        _ => return Ok(Reply::text(404, "Not found.\n")),
    };
    match path {
        ["repos", _, _, "issues" | "labels" | "milestones", ..] => call.require(&["issue"])?,
        ["repos" | "repositories", ..] => call.require(&["repository"])?,
        ["orgs", _, "repos"] if call.method == "POST" => {
            call.require(&["organization", "repository"])?;
        }
        ["user", "repos"] => call.require(&["user", "repository"])?,
        ["users", _, "orgs", ..] | ["user", "orgs" | "teams"] => call.require(&["user", "organization"])?,
        ["orgs" | "teams", ..] => call.require(&["organization"])?,
        ["user" | "users", ..] => call.require(&["user"])?,
        ["admin", ..] => call.require(&["admin"])?,
        _ => {}
    }
    match (call.method, path) {
        ("GET", ["version"]) => Ok(Reply::json(200, &json!({"version": call.flavour().version()}))),
        ("GET", ["settings", "api"]) => {
            let pages = *call.forge.pages();
            let mut settings = json!({
                "max_response_items": pages.most, "default_paging_num": pages.default, "default_git_trees_per_page": 1000,
                "default_max_blob_size": 10_485_760,
            });
            if call.flavour() == Flavour::Gitea {
                super::shapes::merge(&mut settings, json!({"default_max_response_size": 104_857_600}));
            }
            Ok(Reply::json(200, &settings))
        }
        ("GET", ["settings", "ui"]) => {
            let mut emojis = vec!["git", "gitea", "codeberg", "gitlab", "github", "gogs"];
            let theme = match call.flavour() {
                Flavour::Gitea => "gitea-auto",
                Flavour::Forgejo => {
                    emojis.push("forgejo");
                    "forgejo-auto"
                }
            };
            Ok(Reply::json(
                200,
                &json!({
                    "default_theme": theme, "allowed_reactions": issues::REACTIONS, "custom_emojis": emojis,
                }),
            ))
        }
        ("POST", ["repos", "migrate"]) => super::migrate::answer(call).await,
        (_, ["repos", owner, name, rest @ ..]) => {
            let found = call.repo(&call.forge.state(), owner, name);
            let (repo, access) = found?;
            in_repository(call, repo, access, rest).await
        }
        ("GET", ["repositories", id]) => repositories::by_id(call, id),
        _ => accounts::answer(call, path).await,
    }
}

/// Refuses changes in an archived repository.
fn not_archived(call: &Call<'_>, repo: Id) -> Result<(), Reply> {
    let state = call.forge.state();
    let Some(repo) = state.repos.get(&repo).filter(|r| r.archived_at.is_some()) else {
        return Ok(());
    };
    let full = state.full_name(repo);
    Err(call.refuse().say(
        423,
        match call.flavour() {
            Flavour::Gitea => format!("{full} is archived"),
            Flavour::Forgejo => format!("<Repository {}:{full}> is archived", repo.id),
        },
    ))
}

/// Whether an archived repository refuses this call. Issues can still be closed, edited and labelled, and people
/// can react.
fn needs_life(method: &str, path: &[&str]) -> bool {
    match path {
        ["issues" | "pulls"] | ["issues", _, "comments"] => method == "POST",
        ["issues", "comments", _] => method == "PATCH",
        ["issues", "comments", _, "assets", ..]
        | ["issues", _, "assets", ..]
        | ["contents" | "branches" | "branch_protections", ..] => method != "GET",
        _ => false,
    }
}

async fn in_repository(call: &Call<'_>, repo: Id, access: Access, path: &[&str]) -> Answer {
    if needs_life(call.method, path) {
        not_archived(call, repo)?;
    }
    match path {
        ["issues", rest @ ..] => issues::answer(call, repo, access, rest),
        ["pulls", rest @ ..] => pulls::answer(call, repo, access, rest).await,
        _ => repositories::answer(call, repo, access, path).await,
    }
}
