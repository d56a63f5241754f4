//! What changes around a conversation: names that change hands, teams and
//! organisations that come and go, hooks, labels that are renamed or deleted,
//! texts that are edited at the worst moment, and histories that were written
//! elsewhere.
//!
//! What a real server can do is done through its own API, so that it also works
//! with `make live`. What only the stand-in can do says so: call
//! [`World::skip_on_live`] first.

use lazarus_standin::{Flavour, StandIn, StandInOptions};
use serde_json::{Value, json};

use super::http::{Auth, Http};
use super::people::Person;
use super::{World, random_word};

impl World {
    /// A call as somebody else, by the administrator's power to do so: also
    /// what that person's own token has no scope for.
    pub async fn admin_as(&self, login: &str, method: &str, path: &str, body: Option<Value>, allowed: &[u16]) -> Value {
        let client = self.http.client();
        let url = format!("{}/api/v1{path}", self.http.base());
        let mut request = client
            .request(method.parse().expect("an HTTP method"), url)
            .header("Authorization", format!("token {}", self.admin_token))
            .header("Sudo", login);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.http.send(request, &format!("{method} {path} as {login}")).await.expect(allowed).json()
    }

    // ── Organisations and teams ──────────────────────────────────────────

    /// The owner of the repository, by its present name.
    pub fn owner(&self) -> String {
        self.repo.lock().unwrap().0.clone()
    }

    /// The repository's number, which no rename changes.
    pub async fn repository_id(&self) -> i64 {
        self.admin("GET", &self.at(""), None, &[200]).await["id"].as_i64().expect("a repository number")
    }

    /// Makes an organisation that `owner` owns, as anybody may; returns its
    /// number. The name may be one that another had before.
    pub async fn make_organisation(&self, name: &str, owner: &str) -> i64 {
        let order = json!({"username": name, "visibility": "public"});
        let made = self.admin("POST", &format!("/admin/users/{owner}/orgs"), Some(order), &[201]).await;
        self.further_organisations.lock().unwrap().push(name.to_owned());
        made["id"].as_i64().expect("an organisation number")
    }

    /// Renames an organisation: the repository's, or one made here.
    pub async fn rename_organisation(&self, name: &str, new: &str) {
        self.admin("POST", &format!("/orgs/{name}/rename"), Some(json!({"new_name": new})), &[200, 204]).await;
        let mut repo = self.repo.lock().unwrap();
        if repo.0 == name {
            new.clone_into(&mut repo.0);
        }
        self.further_organisations.lock().unwrap().push(new.to_owned());
    }

    /// Deletes an organisation with its repositories.
    pub async fn delete_organisation(&self, name: &str) {
        let repositories = self.admin("GET", &format!("/orgs/{name}/repos?limit=50"), None, &[200]).await;
        for repository in repositories.as_array().into_iter().flatten() {
            let full = repository["full_name"].as_str().expect("a name");
            self.admin("DELETE", &format!("/repos/{full}"), None, &[204]).await;
        }
        self.admin("DELETE", &format!("/orgs/{name}"), None, &[204]).await;
    }

    /// Makes a team with write access to all repositories of an organisation;
    /// returns its number.
    pub async fn make_team(&self, organisation: &str, name: &str) -> i64 {
        let units = json!({"repo.code": "write", "repo.issues": "write", "repo.pulls": "write"});
        let order = json!({"name": name, "permission": "write", "units_map": units, "includes_all_repositories": true});
        let made = self.admin("POST", &format!("/orgs/{organisation}/teams"), Some(order), &[201]).await;
        made["id"].as_i64().expect("a team number")
    }

    /// The number of an organisation's team of that name.
    pub async fn team_id(&self, organisation: &str, name: &str) -> i64 {
        let teams = self.admin("GET", &format!("/orgs/{organisation}/teams?limit=50"), None, &[200]).await;
        let found = teams.as_array().into_iter().flatten().find(|team| team["name"] == name);
        match found.and_then(|team| team["id"].as_i64()) {
            Some(id) => id,
            None => panic!("{organisation} has no team `{name}`: {teams}"),
        }
    }

    /// Puts somebody into a team.
    pub async fn add_team_member(&self, team: i64, login: &str) {
        self.admin("PUT", &format!("/teams/{team}/members/{login}"), None, &[204]).await;
    }

    /// Takes somebody out of a team.
    pub async fn remove_team_member(&self, team: i64, login: &str) {
        self.admin("DELETE", &format!("/teams/{team}/members/{login}"), None, &[204]).await;
    }

    /// Renames a team.
    pub async fn rename_team(&self, team: i64, new: &str) {
        self.admin("PATCH", &format!("/teams/{team}"), Some(json!({"name": new})), &[200]).await;
    }

    /// Deletes a team.
    pub async fn delete_team(&self, team: i64) {
        self.admin("DELETE", &format!("/teams/{team}"), None, &[204]).await;
    }

    // ── Repositories ─────────────────────────────────────────────────────

    /// Makes another repository; returns its number. The name may be one that
    /// the world's repository had before.
    pub async fn make_repository(&self, owner: &str, name: &str) -> i64 {
        let order = json!({"name": name, "auto_init": true, "default_branch": "main", "readme": "Default"});
        let made = self.admin_as(owner, "POST", "/user/repos", Some(order.clone()), &[201, 403, 404, 422]).await;
        let made = match made["id"].as_i64() {
            Some(_) => made,
            // An organisation does not act by itself.
            None => self.admin("POST", &format!("/orgs/{owner}/repos"), Some(order), &[201]).await,
        };
        self.further_repositories.lock().unwrap().push(format!("{owner}/{name}"));
        made["id"].as_i64().expect("a repository number")
    }

    /// Gives the repository to another owner. To an account it is only offered,
    /// and the account accepts.
    pub async fn transfer_repository(&self, new_owner: &str) {
        let name = self.repo.lock().unwrap().1.clone();
        self.admin("POST", &self.at("/transfer"), Some(json!({"new_owner": new_owner})), &[201, 202]).await;
        let arrived = format!("/repos/{new_owner}/{name}");
        let there = self.http.api(Auth::Token(&self.admin_token), "GET", &arrived, None).await.status == 200;
        if !there {
            self.admin_as(new_owner, "POST", &self.at("/transfer/accept"), None, &[202]).await;
        }
        self.further_repositories.lock().unwrap().push(format!("{new_owner}/{name}"));
        new_owner.clone_into(&mut self.repo.lock().unwrap().0);
    }

    // ── Hooks ────────────────────────────────────────────────────────────

    /// The repository's hooks, as its administrators see them.
    pub async fn hooks(&self) -> Vec<Value> {
        let hooks = self.admin("GET", &self.at("/hooks?limit=50"), None, &[200]).await;
        hooks.as_array().cloned().unwrap_or_default()
    }

    /// Deletes one hook of the repository.
    pub async fn delete_hook(&self, id: i64) {
        self.admin("DELETE", &self.at(&format!("/hooks/{id}")), None, &[204]).await;
    }

    // ── Edits in the worst moment ────────────────────────────────────────

    /// Comments and has the comment edited within the same second, so that
    /// nothing but the text tells: `created_at` stays `updated_at`.
    pub async fn comment_edited_at_once(
        &self,
        author: &Person,
        editor: &Person,
        issue: i64,
        first: &str,
        then: &str,
    ) -> i64 {
        for _ in 0..20 {
            let comment = author.comment(issue, first).await;
            editor.edit_comment(comment, then).await;
            let now = self.admin("GET", &self.at(&format!("/issues/comments/{comment}")), None, &[200]).await;
            if now["created_at"] == now["updated_at"] {
                return comment;
            }
            // The second changed in between. Nobody shall see this attempt.
            author.delete_comment(comment).await;
        }
        panic!("twenty times, an edit did not fall into its comment's second");
    }

    /// Before a request to the API is answered that matches, somebody edits a
    /// comment. Only on the stand-in.
    ///
    /// `path` is a regular expression on path and query; only requests of the
    /// bot count; `skip` of them pass first. No hook hears of the edit.
    pub async fn edit_comment_at_call(&self, method: &str, path: &str, skip: u32, comment: i64, text: &str) {
        let errand = json!({
            "method": "PATCH", "path": self.at(&format!("/issues/comments/{comment}")),
            "body": {"body": text}, "quietly": true,
        });
        self.meanwhile(method, path, skip, json!([errand])).await;
    }

    /// The same for the text of an issue.
    pub async fn edit_issue_at_call(&self, method: &str, path: &str, skip: u32, issue: i64, text: &str) {
        let errand = json!({
            "method": "PATCH", "path": self.at(&format!("/issues/{issue}")),
            "body": {"body": text}, "quietly": true,
        });
        self.meanwhile(method, path, skip, json!([errand])).await;
    }

    /// The same for a comment that is deleted.
    pub async fn delete_comment_at_call(&self, method: &str, path: &str, skip: u32, comment: i64) {
        let errand =
            json!({"method": "DELETE", "path": self.at(&format!("/issues/comments/{comment}")), "quietly": true});
        self.meanwhile(method, path, skip, json!([errand])).await;
    }

    /// Before a request of the bot is answered that matches, these errands are
    /// run, once (`Errand` of `lazarus_standin`). Only on the stand-in.
    pub async fn meanwhile(&self, method: &str, path: &str, skip: u32, errands: Value) {
        let fault = json!({
            "method": method, "path": path, "who": self.bot().login, "skip": skip, "times": 1, "on": "api",
            "do": "meanwhile", "errands": errands,
        });
        self.misbehave(json!({"api": [fault]})).await;
    }

    /// Runs errands now (`Errand` of `lazarus_standin`): with `quietly` no hook
    /// hears of them. Only on the stand-in. Fails the test if one is refused.
    pub async fn errands(&self, errands: Value) -> Vec<Value> {
        let auth = Auth::Token(&self.admin_token);
        let replies = self.http.call(auth, "POST", "/_standin/errands", Some(errands)).await.expect(&[200]).json();
        let replies = replies.as_array().cloned().unwrap_or_default();
        for reply in &replies {
            assert!(reply["status"].as_i64().is_some_and(|status| status < 300), "an errand was refused: {reply}");
        }
        replies
    }

    /// Edits a comment without any hook hearing of it, as if the delivery of
    /// the edit were lost. Only on the stand-in.
    pub async fn edit_comment_unheard(&self, comment: i64, text: &str) {
        let path = self.at(&format!("/issues/comments/{comment}"));
        let errand = json!({"method": "PATCH", "path": path, "body": {"body": text}, "quietly": true});
        self.errands(json!([errand])).await;
    }

    /// From now on deliveries wait at the forge. Only on the stand-in.
    pub async fn hold_deliveries(&self) {
        self.misbehave(json!({"webhooks": {"hold": true}})).await;
    }

    /// Those that wait are sent, in their order. Only on the stand-in.
    pub async fn release_deliveries(&self) {
        self.misbehave(json!({"webhooks": {"hold": false}})).await;
    }

    /// The forge gives at most so many things on a page of a list, whatever is
    /// asked for (`[api] MAX_RESPONSE_ITEMS`). Only on the stand-in.
    pub async fn limit_pages(&self, most: usize) {
        let auth = Auth::Token(&self.admin_token);
        let order = json!({"max_response_items": most});
        self.http.call(auth, "POST", "/_standin/settings", Some(order)).await.expect(&[204]);
    }

    // ── What was written elsewhere ───────────────────────────────────────

    /// Adds issues and comments with a past to the repository (`History` of
    /// `lazarus_standin`; `repository` is filled in), unheard by any hook. Returns
    /// `{"issues": [{"number", "id", "comments": [id, …]}]}`. Only on the
    /// stand-in; [`World::migrate_here`] does it as people do.
    pub async fn add_history(&self, mut order: Value) -> Value {
        order["repository"] = json!(self.repository());
        let auth = Auth::Token(&self.admin_token);
        self.http.call(auth, "POST", "/_standin/history", Some(order)).await.expect(&[201]).json()
    }

    /// Replaces the repository by a migration of `elsewhere`'s, made by
    /// `doer` as an owner of the organisation. Its people keep their rights.
    /// Start Lazarus after this, not before: the repository gets a new number.
    pub async fn migrate_here(&self, elsewhere: &Elsewhere, doer: &Person) {
        let (owner, name) = self.repo.lock().unwrap().clone();
        let owners = self.team_id(&owner, "Owners").await;
        self.admin("DELETE", &self.at(""), None, &[204]).await;
        self.add_team_member(owners, &doer.login).await;
        let order = json!({
            "clone_addr": elsewhere.clone_url(), "service": "gitea", "repo_owner": owner, "repo_name": name,
            "issues": true, "labels": true, "milestones": false, "pull_requests": false, "wiki": false,
            "releases": false, "mirror": false, "private": false, "auth_token": elsewhere.forge.admin_token(),
        });
        let made = self.admin_as(&doer.login, "POST", "/repos/migrate", Some(order), &[201]).await;
        assert_eq!(made["full_name"], self.repository());
        self.remove_team_member(owners, &doer.login).await;
        self.settle_permissions().await;
    }

    /// Another forge, with a repository `elsewhere/widget` on it: a stand-in of
    /// its own, whatever this world's forge is.
    pub async fn elsewhere(&self) -> Elsewhere {
        Elsewhere::start(&self.forge_place).await
    }
}

/// A forge that is not ours, from which somebody migrates a repository.
pub struct Elsewhere {
    forge: StandIn,
    http: Http,
}

impl Elsewhere {
    async fn start(below: &std::path::Path) -> Self {
        let options = StandInOptions {
            flavour: Flavour::Gitea,
            listen: "127.0.0.1:0".parse().expect("an address"),
            root: below.join(format!("elsewhere-{}", random_word())),
        };
        let forge = StandIn::start(options).await.expect("the stand-in starts");
        let elsewhere = Self { http: Http::new(&forge.url()), forge };
        // Numbers that no account here has, unless one is asked for.
        elsewhere.call("POST", "/_standin/settings", json!({"next_account": 1_000_000_000}), 204).await;
        elsewhere.call("POST", "/api/v1/orgs", json!({"username": "elsewhere"}), 201).await;
        let repository = json!({"name": "widget", "auto_init": true, "default_branch": "main"});
        elsewhere.call("POST", "/api/v1/orgs/elsewhere/repos", repository, 201).await;
        elsewhere
    }

    async fn call(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        self.http.call(Auth::Token(self.forge.admin_token()), method, path, Some(body)).await.expect(&[status]).json()
    }

    /// What is cloned from there.
    pub fn clone_url(&self) -> String {
        format!("{}/elsewhere/widget", self.forge.url())
    }

    /// From now on it says that it is at `url`. Gitea and Forgejo believe it: of
    /// a server that says it is theirs, they take people by number and name.
    /// The next account made there gets the number `next`.
    pub async fn claims_to_be(&self, url: &str, next: i64) {
        self.call("POST", "/_standin/settings", json!({"claimed_url": url, "next_account": next}), 204).await;
    }

    /// Makes an account there. It can have any name, also that of somebody
    /// here.
    pub async fn make_person(&self, login: &str) {
        let account = json!({
            "username": login, "email": format!("{login}@elsewhere.invalid"), "password": "never used again",
        });
        self.call("POST", "/api/v1/admin/users", account, 201).await;
    }

    /// Somebody opens an issue there, at that time (`2026-01-01T00:00:00Z`);
    /// returns its number.
    pub async fn open_issue(&self, author: &str, at: &str, title: &str, body: &str) -> i64 {
        let issue = json!({"author": author, "created_at": at, "title": title, "body": body});
        let order = json!({"repository": "elsewhere/widget", "issues": [issue]});
        self.call("POST", "/_standin/history", order, 201).await["issues"][0]["number"].as_i64().expect("a number")
    }

    /// Somebody comments there, at that time.
    pub async fn comment(&self, issue: i64, author: &str, at: &str, body: &str) {
        let comment = json!({"author": author, "created_at": at, "body": body});
        let issue = json!({"number": issue, "comments": [comment]});
        let order = json!({"repository": "elsewhere/widget", "issues": [issue]});
        self.call("POST", "/_standin/history", order, 201).await;
    }
}
