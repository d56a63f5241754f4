//! People on the forge. They act only through its HTTP surface: what they can
//! do here, anybody with their password can do.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::http::{Auth, Http, Reply};

/// The repository's `owner/name`, which can change while people look at it.
pub type RepoName = Arc<Mutex<(String, String)>>;

/// One account with a token that can do whatever the account can.
#[derive(Clone)]
pub struct Person {
    pub(super) http: Http,
    pub(super) repo: RepoName,
    pub(super) live: bool,
    /// The account's name at the time of its making.
    pub login: String,
    /// The account's number.
    pub id: i64,
    pub(super) password: String,
    pub(super) token: String,
}

/// A mission proposal, as the issue form asks for it.
#[derive(Clone)]
pub struct Proposal {
    /// The issue's title.
    pub title: String,
    /// Names, joined by plus signs.
    pub agents: String,
    /// `process`, `venv`, …
    pub backend: Option<String>,
    /// `level_2`, …
    pub isolation: Option<String>,
    /// `4h`, …
    pub ttl: Option<String>,
    /// Comma-separated host names.
    pub hosts: Option<String>,
    /// `yes`, `no`, `ask`, `substitute`.
    pub auto_revive: Option<String>,
    /// "2 of 3", …
    pub council: Option<String>,
    /// `memory=64MiB`, …
    pub limits: Option<String>,
    /// One checkbox a line.
    pub criteria: Vec<String>,
    /// Free text; last.
    pub objective: String,
}

impl Proposal {
    /// A proposal for these agents, everything else left as the form has it.
    pub fn for_agents(agents: &str) -> Self {
        Self {
            title: "[mission] tidy the parser".into(),
            agents: agents.into(),
            backend: None,
            isolation: None,
            ttl: None,
            hosts: None,
            auto_revive: None,
            council: None,
            limits: None,
            criteria: vec!["Tests pass".into()],
            objective: "Write down what this mission is for.".into(),
        }
    }

    /// With another objective.
    pub fn objective(mut self, text: &str) -> Self {
        self.objective = text.into();
        self
    }

    /// With a council, in the form's words.
    pub fn council(mut self, text: &str) -> Self {
        self.council = Some(text.into());
        self
    }

    /// The body as the forge renders the form (`issue-opened-by-form` in the
    /// recordings): headings, a blank line, the value or `_No response_`.
    pub fn body(&self) -> String {
        let mut body = String::from("<!-- lazarus:v1 -->\n\n");
        let mut field = |label: &str, value: Option<&str>| {
            let value = value.unwrap_or("_No response_");
            for part in ["### ", label, "\n\n", value, "\n\n"] {
                body.push_str(part);
            }
        };
        field("Agents", Some(&self.agents));
        field("Backend", self.backend.as_deref());
        field("Isolation level", self.isolation.as_deref());
        field("Time to live", self.ttl.as_deref());
        field("Network hosts", self.hosts.as_deref());
        field("Auto-revive", self.auto_revive.as_deref());
        field("Council", self.council.as_deref());
        if self.limits.is_some() {
            field("Limits", self.limits.as_deref());
        }
        let criteria: Vec<String> = self.criteria.iter().map(|line| format!("- [ ] {line}")).collect();
        field("Success criteria", Some(&criteria.join("\n")).filter(|text| !text.is_empty()).map(String::as_str));
        // Browsers send CRLF, and only from text areas.
        let objective = self.objective.replace('\n', "\r\n");
        field("Objective", Some(&objective));
        body
    }
}

impl Person {
    /// The account's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// One API call with this person's token.
    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.http.api(Auth::Token(&self.token), method, path, body).await
    }

    fn at(&self, rest: &str) -> String {
        let repo = self.repo.lock().unwrap();
        format!("/repos/{}/{}{rest}", repo.0, repo.1)
    }

    /// Opens an issue; returns its number.
    pub async fn open_issue(&self, title: &str, body: &str) -> i64 {
        let reply =
            self.api("POST", &self.at("/issues"), Some(json!({"title": title, "body": body}))).await.expect(&[201]);
        reply.json()["number"].as_i64().expect("an issue number")
    }

    /// Files a proposal as the form renders it; returns the issue's number.
    pub async fn open_proposal(&self, proposal: &Proposal) -> i64 {
        self.open_issue(&proposal.title, &proposal.body()).await
    }

    /// Opens an issue through the *web form* with labels set in its hidden
    /// field, which the server does not check (gitea.md). Returns the number.
    pub async fn open_by_form_with_labels(&self, title: &str, body: &str, labels: &[i64]) -> i64 {
        let labels = labels.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let (owner, name) = self.repo.lock().unwrap().clone();
        let path = format!("/{owner}/{name}/issues/new");
        let mut fields = vec![("title", title.to_owned()), ("content", body.to_owned()), ("label_ids", labels)];
        let client = self.http.client();
        let url = format!("{}{path}", self.http.base());
        let request = if self.live {
            let session = self.sign_in().await;
            fields.push(("_csrf", session.csrf));
            client.post(url).header("Cookie", session.cookies)
        } else {
            client.post(url).header("Authorization", format!("token {}", self.token))
        };
        let request = request.header("Content-Type", "application/x-www-form-urlencoded").body(form_encoded(&fields));
        let reply = self.http.send(request, &format!("POST {path} (web form)")).await.expect(&[200, 201, 302, 303]);
        // A browser is told where the new issue is: as JSON by Gitea, by a
        // redirect in older servers.
        let target = reply.json()["redirect"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| reply.headers.get("Location").and_then(|value| value.to_str().ok()).map(str::to_owned));
        match target.as_deref().and_then(|path| path.rsplit('/').next()).and_then(|number| number.parse().ok()) {
            Some(number) => number,
            None => panic!("the web form did not say where the new issue is: {}", reply.text()),
        }
    }

    /// Comments; returns the comment's number.
    pub async fn comment(&self, issue: i64, body: &str) -> i64 {
        let reply = self.try_comment(issue, body).await.expect(&[201]);
        reply.json()["id"].as_i64().expect("a comment number")
    }

    /// Tries to comment.
    pub async fn try_comment(&self, issue: i64, body: &str) -> Reply {
        self.api("POST", &self.at(&format!("/issues/{issue}/comments")), Some(json!({"body": body}))).await
    }

    /// Edits a comment: their own, or anybody's if they may write.
    pub async fn edit_comment(&self, comment: i64, body: &str) {
        self.api("PATCH", &self.at(&format!("/issues/comments/{comment}")), Some(json!({"body": body})))
            .await
            .expect(&[200]);
    }

    /// Deletes a comment.
    pub async fn delete_comment(&self, comment: i64) {
        self.api("DELETE", &self.at(&format!("/issues/comments/{comment}")), None).await.expect(&[204]);
    }

    /// Edits an issue's body.
    pub async fn edit_issue(&self, issue: i64, body: &str) {
        self.patch_issue(issue, json!({"body": body})).await;
    }

    /// Edits an issue's title.
    pub async fn retitle_issue(&self, issue: i64, title: &str) {
        self.patch_issue(issue, json!({"title": title})).await;
    }

    /// Closes an issue.
    pub async fn close_issue(&self, issue: i64) {
        self.patch_issue(issue, json!({"state": "closed"})).await;
    }

    /// Opens a closed issue again.
    pub async fn reopen_issue(&self, issue: i64) {
        self.patch_issue(issue, json!({"state": "open"})).await;
    }

    async fn patch_issue(&self, issue: i64, change: Value) {
        self.api("PATCH", &self.at(&format!("/issues/{issue}")), Some(change)).await.expect(&[201]);
    }

    /// Deletes an issue.
    pub async fn delete_issue(&self, issue: i64) {
        self.api("DELETE", &self.at(&format!("/issues/{issue}")), None).await.expect(&[204]);
    }

    /// The number of the repository's label of that name (the first, as names
    /// are not unique).
    pub async fn label_id(&self, name: &str) -> i64 {
        let labels = self.api("GET", &self.at("/labels?page=1&limit=50"), None).await.expect(&[200]).json();
        let found = labels.as_array().into_iter().flatten().find(|label| label["name"] == name);
        match found.and_then(|label| label["id"].as_i64()) {
            Some(id) => id,
            None => panic!("the repository has no label `{name}`: {labels}"),
        }
    }

    /// Adds a label.
    pub async fn add_label(&self, issue: i64, name: &str) {
        let id = self.label_id(name).await;
        self.add_label_id(issue, id).await;
    }

    /// Adds a label by its number.
    pub async fn add_label_id(&self, issue: i64, label: i64) {
        self.api("POST", &self.at(&format!("/issues/{issue}/labels")), Some(json!({"labels": [label]})))
            .await
            .expect(&[200]);
    }

    /// Takes a label off.
    pub async fn remove_label(&self, issue: i64, name: &str) {
        let id = self.label_id(name).await;
        self.api("DELETE", &self.at(&format!("/issues/{issue}/labels/{id}")), None).await.expect(&[204]);
    }

    /// Makes a label; returns its number.
    pub async fn create_label(&self, name: &str) -> i64 {
        let label = json!({"name": name, "color": "#eeeeee"});
        self.api("POST", &self.at("/labels"), Some(label)).await.expect(&[201]).json()["id"].as_i64().unwrap()
    }

    /// Renames a label, by its number. The name may be one that another has.
    pub async fn rename_label(&self, label: i64, new: &str) {
        self.api("PATCH", &self.at(&format!("/labels/{label}")), Some(json!({"name": new}))).await.expect(&[200]);
    }

    /// Deletes a label, by its number; its history in timelines goes with it.
    pub async fn delete_label(&self, label: i64) {
        self.api("DELETE", &self.at(&format!("/labels/{label}")), None).await.expect(&[204]);
    }

    /// Reacts to a comment.
    pub async fn react(&self, comment: i64, content: &str) {
        let path = self.at(&format!("/issues/comments/{comment}/reactions"));
        self.api("POST", &path, Some(json!({"content": content}))).await.expect(&[200, 201]);
    }

    async fn sign_in(&self) -> Session {
        let client = self.http.client();
        let url = format!("{}/user/login", self.http.base());
        let page = self.http.send(client.get(&url), "GET /user/login").await.expect(&[200]);
        let mut jar = Vec::new();
        take_cookies(&mut jar, &page);
        let fields =
            [("_csrf", cookie(&jar, "_csrf")), ("user_name", self.login.clone()), ("password", self.password.clone())];
        let request = client
            .post(&url)
            .header("Cookie", cookie_line(&jar))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form_encoded(&fields));
        let reply = self.http.send(request, "POST /user/login").await.expect(&[302, 303]);
        take_cookies(&mut jar, &reply);
        // The token is bound to the person: a page seen after signing in has the new one.
        let request = client.get(format!("{}/user/settings", self.http.base())).header("Cookie", cookie_line(&jar));
        take_cookies(&mut jar, &self.http.send(request, "GET /user/settings").await);
        Session { csrf: cookie(&jar, "_csrf"), cookies: cookie_line(&jar) }
    }
}

/// A browser's signed-in session.
struct Session {
    cookies: String,
    csrf: String,
}

fn take_cookies(jar: &mut Vec<(String, String)>, reply: &Reply) {
    for header in reply.headers.get_all("Set-Cookie") {
        let pair = header.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        if let Some((name, value)) = pair.split_once('=') {
            jar.retain(|(other, _)| other != name);
            if !value.is_empty() {
                jar.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

fn cookie(jar: &[(String, String)], name: &str) -> String {
    let value = jar.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value);
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}

fn cookie_line(jar: &[(String, String)]) -> String {
    jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

fn form_encoded(fields: &[(&str, String)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}
