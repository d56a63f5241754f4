//! People who talk to the forge as people do, and a terminal that shows the
//! thread as a person would read it.

use crate::gitea::{Forge, ForgeOptions};
use crate::publication::parse_marker;
use anyhow::Context as _;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a step of the play may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints what happens next.
pub fn title(text: &str) {
    println!("\n\u{1b}[1m── {text} ──\u{1b}[0m");
}

/// Somebody with an account.
#[derive(Clone)]
pub struct Person {
    /// The account's name.
    pub name: String,
    /// Its token.
    pub token: String,
    url: String,
    forge: Forge,
}

impl Person {
    /// Somebody whose token is known.
    pub fn new(url: &str, name: &str, token: &str) -> anyhow::Result<Self> {
        let options = ForgeOptions::new(url.to_owned(), SecretString::from(token.to_owned()));
        Ok(Self { name: name.to_owned(), token: token.to_owned(), url: url.to_owned(), forge: Forge::new(options)? })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        Ok(self.forge.request(method, path, body.as_ref()).await?.body)
    }

    /// As the forge's administrator: makes the people, the organisation and the
    /// project of the play.
    pub async fn found(&self, repository: &str) -> anyhow::Result<Vec<Self>> {
        let (org, name) = repository.split_once('/').context("OWNER/REPO")?;
        let mut people = vec![];
        let client = reqwest::Client::builder().no_proxy().build()?;
        for login in ["ada", "ben", "cleo", "lazarus"] {
            let password = "a play, not a secret";
            self.call(
                Method::POST,
                "/admin/users",
                Some(json!({"username": login, "email": format!("{login}@example.test"), "password": password, "must_change_password": false})),
            )
            .await?;
            let answer: Value = client
                .post(format!("{}/api/v1/users/{login}/tokens", self.url))
                .basic_auth(login, Some(password))
                .json(&json!({"name": "demo", "scopes": ["write:issue", "write:repository", "read:organization", "read:user"]}))
                .send()
                .await?
                .json()
                .await?;
            let token = answer.get("sha1").and_then(Value::as_str).context("the forge made no token")?;
            people.push(Self::new(&self.url, login, token)?);
        }
        self.call(Method::POST, "/orgs", Some(json!({"username": org}))).await?;
        self.call(
            Method::POST,
            &format!("/orgs/{org}/repos"),
            Some(json!({"name": name, "auto_init": true, "default_branch": "main", "description": "A widget"})),
        )
        .await?;
        for (login, permission) in [("ada", "admin"), ("ben", "write"), ("lazarus", "admin")] {
            self.call(
                Method::PUT,
                &format!("/repos/{repository}/collaborators/{login}"),
                Some(json!({"permission": permission})),
            )
            .await?;
        }
        Ok(people)
    }

    /// Writes a comment.
    pub async fn comment(&self, repository: &str, issue: i64, text: &str) -> anyhow::Result<()> {
        self.call(Method::POST, &format!("/repos/{repository}/issues/{issue}/comments"), Some(json!({"body": text})))
            .await
            .map(|_| ())
    }

    /// Files a proposal as the issue form would render it.
    pub async fn propose(&self, repository: &str, title: &str, fields: &[(&str, &str)]) -> anyhow::Result<i64> {
        let mut body = String::from("<!-- lazarus:v1 -->\n\n");
        for (label, value) in fields {
            body.push_str(&format!("### {label}\n\n{value}\n\n"));
        }
        let issue = self
            .call(Method::POST, &format!("/repos/{repository}/issues"), Some(json!({"title": title, "body": body})))
            .await?;
        issue.get("number").and_then(Value::as_i64).context("the forge made no issue")
    }
}

/// The thread of one issue, as it grows.
pub struct Stage {
    reader: Person,
    repository: String,
    issue: i64,
    shown: HashMap<i64, String>,
    reactions: HashMap<i64, usize>,
    unread: Vec<(i64, String)>,
}

impl Stage {
    /// A thread that nothing was read of.
    pub fn new(reader: Person, repository: &str, issue: i64) -> Self {
        Self {
            reader,
            repository: repository.to_owned(),
            issue,
            shown: HashMap::new(),
            reactions: HashMap::new(),
            unread: vec![],
        }
    }

    /// Shows the issue itself.
    pub async fn show_issue(&self) -> anyhow::Result<()> {
        let path = format!("/repos/{}/issues/{}", self.repository, self.issue);
        let issue = self.reader.call(Method::GET, &path, None).await?;
        let text = |name: &str| issue.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let who = issue.pointer("/user/login").and_then(Value::as_str).unwrap_or_default();
        println!("\n\u{1b}[1m#{} {}\u{1b}[0m  by {who}", self.issue, text("title"));
        show(&text("body"));
        Ok(())
    }

    async fn comments(&self) -> anyhow::Result<Vec<(i64, String, String)>> {
        let path = format!("/repos/{}/issues/{}/comments", self.repository, self.issue);
        let list = self.reader.call(Method::GET, &path, None).await?;
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| {
                Some((
                    c.get("id")?.as_i64()?,
                    c.pointer("/user/login")?.as_str()?.to_owned(),
                    c.get("body")?.as_str()?.to_owned(),
                ))
            })
            .collect())
    }

    /// Takes everything that is there as read.
    pub async fn skip_to_now(&mut self) -> anyhow::Result<()> {
        for (id, _, body) in self.comments().await? {
            self.shown.insert(id, body);
        }
        Ok(())
    }

    /// Shows what is new. Returns whether anything was.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let mut news = false;
        for (id, who, body) in self.comments().await? {
            let before = self.shown.insert(id, body.clone());
            if before.as_ref() != Some(&body) {
                let edited = if before.is_some() { " (edited in place)" } else { "" };
                println!("\n  \u{1b}[36m{who}\u{1b}[0m{edited}");
                show(&body);
                self.unread.push((id, body));
                news = true;
            }
            if self.reactions.contains_key(&id) || before.is_none() {
                let path = format!("/repos/{}/issues/comments/{id}/reactions", self.repository);
                let list = self.reader.call(Method::GET, &path, None).await?;
                let list: Vec<&str> = list
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|r| r.get("content").and_then(Value::as_str))
                    .collect();
                if self.reactions.insert(id, list.len()).unwrap_or(0) < list.len() {
                    let faces: Vec<&str> = list
                        .iter()
                        .map(|r| match *r {
                            "eyes" => "👀",
                            "+1" => "👍",
                            "confused" => "😕",
                            other => other,
                        })
                        .collect();
                    println!("      {} on the comment of {who}", faces.join(" "));
                    news = true;
                }
            }
        }
        Ok(news)
    }

    async fn until<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            self.look().await?;
            if let Some(found) = found(self) {
                return Ok(found);
            }
            if started.elapsed() > PATIENCE {
                anyhow::bail!("{what} did not come within {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Shows the thread until a comment of that kind is new in it.
    pub async fn until_kind(&mut self, kind: &str) -> anyhow::Result<String> {
        let body = self
            .until(&format!("a comment of the kind {kind}"), |stage| {
                let at = stage.unread.iter().position(|(_, b)| parse_marker(b).is_some_and(|m| m.kind == kind))?;
                Some(stage.unread.drain(..=at).next_back()?.1)
            })
            .await?;
        Ok(body)
    }

    /// Shows the thread until the status comment holds that word.
    pub async fn until_status_says(&mut self, word: &str) -> anyhow::Result<()> {
        self.until(&format!("a status that says {word}"), |stage| {
            stage
                .shown
                .values()
                .any(|b| parse_marker(b).is_some_and(|m| m.kind == "status") && b.contains(word))
                .then_some(())
        })
        .await
    }

    /// Shows the thread until nothing new comes for that long.
    pub async fn follow_until_quiet(&mut self, quiet: Duration) -> anyhow::Result<()> {
        let mut last = Instant::now();
        let started = Instant::now();
        while last.elapsed() < quiet && started.elapsed() < PATIENCE {
            if self.look().await? {
                last = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Prints Markdown as a reader sees it: no markers, what is folded stays so.
fn show(body: &str) {
    let mut folded = false;
    let mut empty = true;
    for line in body.lines() {
        match line.trim() {
            "<details>" => folded = true,
            "</details>" => folded = false,
            text if text.starts_with("<!--") => {}
            text if folded => {
                if let Some(summary) = text.strip_prefix("<summary>") {
                    println!("      ▸ {}", summary.trim_end_matches("</summary>"));
                }
            }
            "" if empty => {}
            text => {
                empty = text.is_empty();
                println!("      {}", text.replace("**", ""));
            }
        }
    }
}
