//! A forge that answers at once: just what the daemon asks, on loopback, out
//! of memory; and its deliveries, shaped like a recorded one.

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lazarus::gitea::{HookOwner, MasterSecret};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// The installation's secret; see [`hook_secret`].
pub const SECRET: &str = "the secret of the benchmarks, not in use";
/// The repository that is served; its number is 1.
pub const REPOSITORY: &str = "acme/widget";

const BOT: i64 = 2;
const DIRECTOR: i64 = 3;

/// A comment of the bot arrived.
pub struct Posted {
    /// The issue.
    pub issue: i64,
    /// Its text.
    pub body: String,
    /// When its request was there, whole.
    pub at: Instant,
}

struct Shared {
    posted: mpsc::UnboundedSender<Posted>,
    comments: AtomicI64,
    /// The director's comments by number, as the forge shows them: the daemon asks for
    /// each before it acts on it.
    written: Mutex<HashMap<i64, Value>>,
    place: PathBuf,
    /// The commit of its branch.
    head: String,
}

/// The forge.
pub struct QuickForge {
    /// Its address.
    pub url: String,
    /// Comments as they arrive.
    pub posted: mpsc::UnboundedReceiver<Posted>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl QuickForge {
    /// Starts it, with a repository of one commit in `place`.
    pub async fn start(place: &Path) -> anyhow::Result<Self> {
        make_repository(place)?;
        let head = head_of(&place.join("widget.git"))?;
        let (send, posted) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            posted: send,
            comments: AtomicI64::new(1_000_000),
            written: Mutex::default(),
            place: place.to_owned(),
            head,
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, posted, shared, task })
    }

    /// The director writes a comment with that number on the issue `on`.
    pub fn write(&self, id: i64, on: i64, text: &str) -> Value {
        let written = comment(id, on, (DIRECTOR, "director"), text);
        let mut all = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, written.clone());
        written
    }
}

impl Drop for QuickForge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=bench", "-c", "user.email=bench@lazarus.invalid", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("running git")?;
    anyhow::ensure!(status.success(), "git {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// A bare repository of one commit, to be fetched as plain files.
fn make_repository(place: &Path) -> anyhow::Result<()> {
    let work = place.join("work");
    std::fs::create_dir_all(&work)?;
    git(&work, &["init", "--quiet"])?;
    std::fs::write(work.join("README.md"), "# Widget\n")?;
    git(&work, &["add", "README.md"])?;
    git(&work, &["commit", "--quiet", "-m", "A widget"])?;
    git(place, &["clone", "--quiet", "--bare", "work", "widget.git"])?;
    git(&place.join("widget.git"), &["update-server-info"])
}

/// The commit of its branch.
fn head_of(repository: &Path) -> anyhow::Result<String> {
    let output = Command::new("git").arg("-C").arg(repository).args(["rev-parse", "refs/heads/main"]).output()?;
    anyhow::ensure!(output.status.success(), "git rev-parse ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn user(id: i64, login: &str) -> Value {
    json!({"id": id, "login": login, "is_admin": false})
}

fn issue(number: i64) -> Value {
    json!({
        "id": number, "number": number, "title": format!("Widget {number} squeaks"), "body": "Oil it.", "state": "open",
        "user": user(DIRECTOR, "director"), "labels": [], "created_at": "2026-11-20T20:00:00Z",
        "updated_at": "2026-11-20T20:00:00Z", "pull_request": null, "repository": {"id": 1},
    })
}

fn comment(id: i64, number: i64, author: (i64, &str), body: &str) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "id": id, "user": user(author.0, author.1), "body": body, "created_at": now, "updated_at": now,
        "issue_url": format!("http://git.example.test/acme/widget/issues/{number}"), "pull_request_url": "",
    })
}

fn listed() -> Response {
    ([("x-total-count", "0")], axum::Json(json!([]))).into_response()
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let at = Instant::now();
    let ok = |value: Value| axum::Json(value).into_response();
    let path = uri.path();
    if let Some(file) = path.strip_prefix("/acme/widget.git/") {
        let file = shared.place.join("widget.git").join(file);
        return match tokio::fs::read(file).await {
            Ok(bytes) => bytes.into_response(),
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        };
    }
    let Some(path) = path.strip_prefix("/api/v1/") else { return StatusCode::NOT_FOUND.into_response() };
    let parts: Vec<&str> = path.split('/').collect();
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    let repository = || {
        json!({
            "id": 1, "name": "widget", "owner": user(8, "acme"), "default_branch": "main", "empty": false,
            "permissions": {"admin": true, "push": true, "pull": true},
        })
    };
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["user"]) => ok(user(BOT, "lazarus")),
        ("GET", ["users", login]) => ok(user(DIRECTOR, login)),
        ("GET", ["repositories", "1"] | ["repos", "acme", "widget"]) => ok(repository()),
        ("GET", ["repos", "acme", "widget", "collaborators", login, "permission"]) => {
            ok(json!({"permission": "admin", "role_name": "admin", "user": user(DIRECTOR, login)}))
        }
        ("GET", ["repos", "acme", "widget", "branches", "main"]) => {
            ok(json!({"name": "main", "commit": {"id": shared.head}}))
        }
        ("GET", ["repos", "acme", "widget", "issues", "comments"]) => listed(),
        ("GET", ["repos", "acme", "widget", "issues", n]) => ok(issue(number(n))),
        ("POST", ["repos", "acme", "widget", "issues", n, "comments"]) => {
            let text: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = text["body"].as_str().unwrap_or_default().to_owned();
            let id = shared.comments.fetch_add(1, Ordering::Relaxed);
            let _ = shared.posted.send(Posted { issue: number(n), body: text.clone(), at });
            (StatusCode::CREATED, axum::Json(comment(id, number(n), (BOT, "lazarus"), &text))).into_response()
        }
        ("GET", ["repos", "acme", "widget", "issues", "comments", id]) => {
            let all = shared.written.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&number(id)).map_or_else(|| StatusCode::NOT_FOUND.into_response(), |written| ok(written.clone()))
        }
        ("PATCH", ["repos", "acme", "widget", "issues", "comments", id]) => {
            ok(comment(number(id), 1, (BOT, "lazarus"), ""))
        }
        ("POST", ["repos", "acme", "widget", "issues", .., "reactions"]) => {
            (StatusCode::CREATED, axum::Json(json!({"user": user(BOT, "lazarus"), "content": "eyes"}))).into_response()
        }
        ("GET", ["repos", "acme", "widget", ..]) => listed(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The body of a delivery: a comment by the director on an issue, padded in
/// the issue's text to at least `bytes`.
pub struct Deliveries {
    template: Value,
}

impl Deliveries {
    /// Shaped like the recorded one of a real server.
    pub fn new() -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("wiremock-fixtures/gitea-1.25.4.deliveries.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let recorded: Value = serde_json::from_str(&text)?;
        let found = recorded["deliveries"]
            .as_array()
            .and_then(|all| all.iter().find(|d| d["name"] == "comment-status-by-reader"))
            .and_then(|d| d["body"].as_str())
            .context("the recorded delivery is not there")?;
        let mut template: Value = serde_json::from_str(found)?;
        template["sender"]["id"] = json!(DIRECTOR);
        template["sender"]["login"] = json!("director");
        template["comment"]["user"]["id"] = json!(DIRECTOR);
        template["comment"]["user"]["login"] = json!("director");
        template["repository"]["permissions"] = json!({"admin": true, "push": true, "pull": true});
        Ok(Self { template })
    }

    /// The delivery of a comment that the director writes now.
    pub fn comment(&self, id: i64, on: i64, text: &str) -> Vec<u8> {
        self.of(&comment(id, on, (DIRECTOR, "director"), text), on)
    }

    /// The delivery of a comment on the issue `on`.
    pub fn of(&self, fresh: &Value, on: i64) -> Vec<u8> {
        let mut delivery = self.template.clone();
        for (key, value) in issue(on).as_object().into_iter().flatten() {
            delivery["issue"][key] = value.clone();
        }
        for key in ["id", "body", "created_at", "updated_at", "issue_url"] {
            delivery["comment"][key] = fresh[key].clone();
        }
        serde_json::to_vec(&delivery).unwrap_or_default()
    }
}

/// What deliveries are signed with: the secret of the hook of [`REPOSITORY`].
pub fn hook_secret() -> SecretString {
    let master = MasterSecret::new(SecretString::from(SECRET)).expect("a secret that is not empty");
    master.hook_secret(HookOwner::Repository(1))
}

/// The signature header's value.
pub fn signature(body: &[u8]) -> String {
    let secret = hook_secret();
    let key = secret.expose_secret().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}
