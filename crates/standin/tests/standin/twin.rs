//! One server on which a scene is played, and the record of what it said.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lazarus_standin::{Flavour, StandIn, StandInOptions};
use regex::Regex;
use serde_json::{Map, Value, json};

const PASSWORD: &str = "a password for tests";

/// The real server that the environment names.
pub fn real() -> Option<(String, String)> {
    let url = std::env::var("FORGE_URL").ok().filter(|url| !url.is_empty())?;
    let token = std::env::var("FORGE_ADMIN_TOKEN").expect("FORGE_ADMIN_TOKEN beside FORGE_URL");
    Some((url.trim_end_matches('/').to_owned(), token))
}

/// Whether a real server, if one is named, gives at most so many things on a
/// page.
pub async fn real_has_pages_of(most: u64) -> bool {
    let Some((url, _)) = real() else {
        return true;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings: Value = reqwest::get(format!("{url}/api/v1/settings/api")).await.unwrap().json().await.unwrap();
    settings["max_response_items"] == most
}

#[derive(Clone)]
struct Heard {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

pub struct Twin {
    pub flavour: Flavour,
    base: String,
    mark: String,
    client: reqwest::Client,
    tokens: HashMap<String, String>,
    names: Names,
    steps: Vec<Value>,
    heard: Arc<Mutex<Vec<Heard>>>,
    receiver: String,
    undo: Vec<String>,
    /// What is replaced by a word wherever it stands.
    called: Vec<(String, &'static str)>,
    times_matter: bool,
    stand_in: Option<(StandIn, tempfile::TempDir)>,
}

/// What differs between servers and says nothing, and what stands for it.
static DIFFERENT: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{40}", "SHA"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"/(labels|hooks|teams|comments|repositories|milestones)/[0-9]+", "/$1/N"),
        (r"(issuecomment-)[0-9]+", "${1}N"),
        (r"\b(id|uid|owner_id|org_id|repo_id|issue_id|label_id|team_id|hook_id|user_id|head_repo_id|base_repo_id|name): [1-9][0-9]*\b", "$1: N"),
        (r"<Repository [0-9]+:", "<Repository N:"),
    (r#""(labels)":\[[0-9,]+\]"#, r#""$1":[N]"#),
    ]
    .map(|(expression, with)| (Regex::new(expression).unwrap(), with))
    .into()
});

static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(Z|[+-][0-9:]{5})$").unwrap());

/// What a call answered.
pub struct Said {
    pub status: u16,
    pub json: Value,
}

impl Said {
    /// The number of what was made.
    #[track_caller]
    pub fn id(&self) -> i64 {
        match self.json["id"].as_i64() {
            Some(id) => id,
            None => panic!("no id in {}: {}", self.status, self.json),
        }
    }
}

async fn take(State(heard): State<Arc<Mutex<Vec<Heard>>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    heard.lock().unwrap().push(Heard { path: uri.path().to_owned(), headers, body });
    StatusCode::OK
}

impl Twin {
    pub async fn real(url: &str, admin: &str) -> Self {
        Self::new(url.to_owned(), admin.to_owned(), None).await
    }

    pub async fn stand_in(flavour: Flavour) -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = StandInOptions { flavour, listen: "127.0.0.1:0".parse().unwrap(), root: root.path().into() };
        let forge = StandIn::start(options).await.unwrap();
        let (url, admin) = (forge.url(), forge.admin_token().to_owned());
        let mut twin = Self::new(url, admin, Some((forge, root))).await;
        // Numbers as on a server that has been used: those of two stand-ins
        // must not meet by accident.
        twin.set("forgeadmin", "POST", "/-/_standin/settings", json!({"next_account": first_number()})).await;
        twin
    }

    async fn new(base: String, admin: String, stand_in: Option<(StandIn, tempfile::TempDir)>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .build()
            .unwrap();
        let version: Value = client.get(format!("{base}/api/v1/version")).send().await.unwrap().json().await.unwrap();
        let gitea = version["version"].as_str().unwrap().starts_with("1.25");
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(take).with_state(heard.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            flavour: if gitea { Flavour::Gitea } else { Flavour::Forgejo },
            base,
            mark: format!("x{}", hex::encode(random())),
            client,
            tokens: HashMap::from([("forgeadmin".to_owned(), admin)]),
            names: Names::default(),
            steps: Vec::new(),
            heard,
            receiver,
            undo: Vec::new(),
            called: Vec::new(),
            times_matter: false,
            stand_in,
        }
    }

    /// The server's address.
    pub fn base(&self) -> String {
        self.base.clone()
    }

    /// In the record, `text` is called `word` from now on.
    pub fn call_it(&mut self, text: &str, word: &'static str) {
        self.called.push((text.to_owned(), word));
    }

    /// Whether times that are not of today are compared as they are.
    pub fn times_matter(&mut self, matter: bool) {
        self.times_matter = matter;
    }

    /// Lets the stand-in give at most so many things on a page. A real server
    /// must do so already: see `real_has_pages_of`.
    pub async fn limit_pages(&mut self, most: usize) {
        if self.stand_in.is_some() {
            let order = json!({"max_response_items": most});
            self.set("forgeadmin", "POST", "/-/_standin/settings", order).await;
        }
    }

    /// A name that nothing else on the server has: `ada` is `ada-x1a2b`.
    pub fn name(&self, word: &str) -> String {
        format!("{word}-{}", self.mark)
    }

    /// Words in braces become names, `{hear}` the receiver's address.
    fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            match after.split_once('}') {
                Some((word, after))
                    if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.is_empty() =>
                {
                    out.push_str(before);
                    match word {
                        "hear" => out.push_str(&self.receiver),
                        "base" => out.push_str(&self.base),
                        word => out.push_str(&self.name(word)),
                    }
                    rest = after;
                }
                _ => {
                    out.push_str(before);
                    out.push('{');
                    rest = after;
                }
            }
        }
        out + rest
    }

    fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(all) => all.iter().map(|v| self.fill_json(v)).collect(),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.fill_json(v))).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    /// Makes people with tokens for everything. Not part of the record.
    pub async fn people(&mut self, words: &[&str]) {
        for word in words {
            let login = self.name(word);
            let order = json!({
                "username": login, "email": format!("{}@example.test", hex::encode(random())), "password": PASSWORD,
                "must_change_password": false,
            });
            let url = format!("{}/api/v1/admin/users", self.base);
            let admin = format!("token {}", self.tokens["forgeadmin"]);
            let made = self.client.post(url).header("Authorization", &admin).json(&order).send().await.unwrap();
            assert_eq!(made.status(), 201, "{}", made.text().await.unwrap());
            self.token(word, &login).await;
            self.undo(&format!("/admin/users/{login}?purge=true"));
        }
    }

    async fn token(&mut self, word: &str, login: &str) {
        let url = format!("{}/api/v1/users/{login}/tokens", self.base);
        let order = json!({"name": "twins", "scopes": ["all"]});
        let made = self.client.post(url).basic_auth(login, Some(PASSWORD)).json(&order).send().await.unwrap();
        assert_eq!(made.status(), 201);
        let made: Value = made.json().await.unwrap();
        self.tokens.insert(word.to_owned(), made["sha1"].as_str().unwrap().to_owned());
    }

    /// What is to be deleted at the end, the last first.
    fn undo(&mut self, path: &str) {
        self.undo.push(path.to_owned());
    }

    /// A call that is no part of the record; it has to work. Names are filled
    /// in.
    pub async fn set(&mut self, who: &str, method: &str, path: &str, body: Value) -> Said {
        let said = self.call(who, method, path, &body).await;
        assert!(said.0 < 300, "{who}: {method} {path}: {} {}", said.0, String::from_utf8_lossy(&said.2));
        let json = serde_json::from_slice(&said.2).unwrap_or(Value::Null);
        if method == "POST" && path.ends_with("/repos") {
            self.undo(&format!("/repos/{}", json["full_name"].as_str().unwrap()));
        }
        if method == "POST" && (path.ends_with("/orgs")) {
            self.undo(&format!("/orgs/{}", json["username"].as_str().unwrap()));
        }
        Said { status: said.0, json }
    }

    async fn call(&self, who: &str, method: &str, path: &str, body: &Value) -> (u16, HeaderMap, Bytes) {
        let path = self.fill(path);
        let url = if path.starts_with("/-/") {
            format!("{}{}", self.base, &path[2..])
        } else {
            format!("{}/api/v1{path}", self.base)
        };
        let mut request = self.client.request(method.parse().unwrap(), url);
        if !who.is_empty() {
            request = request.header("Authorization", format!("token {}", self.tokens[who]));
        }
        if !body.is_null() {
            request = request.json(&self.fill_json(body));
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap())
    }

    /// A call whose answer is compared. `who` is empty for nobody; a path that
    /// starts with `/-/` is outside the API.
    pub async fn ask(&mut self, who: &str, method: &str, path: &str, body: Value) -> Said {
        let (status, headers, bytes) = self.call(who, method, path, &body).await;
        let mut shown = Map::new();
        for name in ["location", "x-total-count", "link", "www-authenticate", "content-type"] {
            if let Some(value) = headers.get(name).and_then(|v| v.to_str().ok()) {
                shown.insert(name.to_owned(), json!(self.tidy(value)));
            }
        }
        let json = serde_json::from_slice::<Value>(&bytes).ok();
        let body_shown = match &json {
            Some(json) => self.tidy_json(json, ""),
            // What git offers depends on its version.
            None if path.contains("info/refs") && status == 200 => json!("branches and tags"),
            // Pages for people are as they like.
            None if status >= 400 && bytes.len() > 100 => json!("a page"),
            None => json!(self.tidy(&String::from_utf8_lossy(&bytes))),
        };
        let path = self.tidy(&self.fill(path));
        let asked =
            if body.is_null() { String::new() } else { format!(" {}", self.tidy(&self.fill_json(&body).to_string())) };
        self.steps.push(json!({
            "asked": format!("{}: {method} {path}{asked}", if who.is_empty() { "nobody" } else { who }),
            "status": status, "headers": shown, "body": body_shown,
        }));
        let said = Said { status, json: json.unwrap_or(Value::Null) };
        if status == 201 && method == "POST" {
            if let Some(full) = said.json["full_name"].as_str().filter(|full| full.contains('/')) {
                self.undo(&format!("/repos/{full}"));
            } else if path.ends_with("orgs") {
                self.undo(&format!("/orgs/{}", said.json["username"].as_str().unwrap()));
            }
        }
        said
    }

    pub async fn get(&mut self, who: &str, path: &str) -> Said {
        self.ask(who, "GET", path, Value::Null).await
    }

    /// Reads a list and records of each thing on it only what it is called, with
    /// the headers that speak of other pages.
    pub async fn only_names(&mut self, path: &str) {
        self.get("ada", path).await;
        let Some(Value::Object(step)) = self.steps.last_mut() else {
            return;
        };
        let list = step.remove("body").unwrap_or_default();
        let names: Vec<Value> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|thing| {
                ["title", "name", "login", "body"]
                    .iter()
                    .find_map(|key| thing.get(*key))
                    .or_else(|| thing.pointer("/config/url"))
                    .cloned()
                    .unwrap_or_default()
            })
            .collect();
        // Tidied already, as the whole answer was.
        if list.is_null() {
            // Go's empty list, if nobody made it one.
            step.insert("body".to_owned(), Value::Null);
            return;
        }
        let shown = json!({"first": names.first(), "last": names.last(), "count": names.len()});
        step.insert("body".to_owned(), shown);
    }

    /// Records what was delivered since the last time, `count` deliveries:
    /// where to, which event, signed with which of `secrets`, and `fields` of
    /// the body. Sorted, as deliveries overtake each other.
    pub async fn hear(&mut self, what: &str, count: usize, secrets: &[&str], fields: &[&str]) {
        let started = Instant::now();
        // One that is too many must have the time to come, too: a last call
        // is answered when what was before it is out.
        while self.heard.lock().unwrap().len() < count {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{what}: {} of {count} deliveries came",
                self.heard.lock().unwrap().len()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let heard: Vec<Heard> = std::mem::take(&mut self.heard.lock().unwrap());
        let mut shown: Vec<Value> = Vec::new();
        for one in &heard {
            let header = |name: &str| one.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let signed_with = secrets
                .iter()
                .find(|secret| hmac(secret.as_bytes(), &one.body) == header("x-gitea-signature"))
                .copied()
                .unwrap_or("none of them");
            let body: Value = serde_json::from_slice(&one.body).unwrap_or(Value::Null);
            let picked: Map<String, Value> = fields
                .iter()
                .map(|field| {
                    let value = body.pointer(&format!("/{}", field.replace('.', "/"))).cloned().unwrap_or_default();
                    // A number alone does not say what it counts.
                    let kind = field.rsplit('.').nth(1).unwrap_or_default();
                    let kind = match kind {
                        "sender" | "user" | "owner" => "user",
                        "repository" => "repo",
                        other => other,
                    };
                    let value = match (&value, field.rsplit('.').next() == Some("id")) {
                        (Value::Number(id), true) => {
                            json!(self.names.number(kind, id.as_i64().unwrap_or_default()))
                        }
                        _ => self.tidy_json(&value, field),
                    };
                    ((*field).to_owned(), value)
                })
                .collect();
            shown.push(json!({
                "to": one.path, "event": header("x-gitea-event"), "type": header("x-gitea-event-type"),
                "target": header("x-gitea-hook-installation-target-type"),
                "signed with": signed_with, "fields": picked,
            }));
        }
        shown.sort_by_key(Value::to_string);
        self.steps.push(json!({"asked": format!("heard: {what}"), "deliveries": shown}));
    }

    /// A tidied string: what differs between servers is replaced.
    fn tidy(&self, text: &str) -> String {
        let host = self.base.trim_start_matches("http://");
        let mut text = text.to_owned();
        for (what, word) in &self.called {
            text = text.replace(what, word);
        }
        let mut text = text
            .replace(&self.base, "BASE")
            .replace(&self.base.replace("127.0.0.1", "localhost"), "BASE")
            .replace(&self.receiver, "HEAR")
            .replace(host, "HOST")
            .replace(&format!("-{}", self.mark), "");
        for (expression, with) in DIFFERENT.iter() {
            text = expression.replace_all(&text, *with).into_owned();
        }
        text
    }

    fn tidy_json(&mut self, value: &Value, key: &str) -> Value {
        match value {
            // A map of Go's in disguise: in any order.
            Value::Array(all) if matches!(key, "units" | "events") => {
                let mut all: Vec<Value> = all.clone();
                all.sort_by_key(Value::to_string);
                Value::Array(all)
            }
            Value::Array(all) => all.iter().map(|v| self.tidy_json(v, key)).collect(),
            Value::Object(map) => {
                let kind = kind_of(map, key);
                let mut out = Map::new();
                for (key, value) in map {
                    let value = match (key.as_str(), value) {
                        // What these hold differs and says nothing.
                        ("avatar_url" | "size" | "language" | "ssh_url" | "watchers_count", _) => continue,
                        ("email", Value::String(text)) => json!(if text.is_empty() {
                            ""
                        } else if text.contains("@noreply.") {
                            "no reply"
                        } else {
                            "real"
                        }),
                        ("id", Value::Number(id)) => {
                            json!(self.names.number(kind, id.as_i64().unwrap_or_default()))
                        }
                        ("repo_id", Value::Number(id)) => {
                            json!(self.names.number("repo", id.as_i64().unwrap_or_default()))
                        }
                        (_, other) => self.tidy_json(other, key),
                    };
                    out.insert(key.clone(), value);
                }
                Value::Object(out)
            }
            Value::String(text) => {
                let today = text.starts_with(&jiff::Timestamp::now().to_string()[..8]);
                if self.times_matter && TIME.is_match(text) && !today {
                    value.clone()
                } else if TIME.is_match(text) && !text.starts_with("0001-") && !text.starts_with("1970-") {
                    json!("a time")
                } else {
                    json!(self.tidy(text))
                }
            }
            other => other.clone(),
        }
    }

    /// Removes what was made and gives the record.
    pub async fn end(mut self) -> Vec<Value> {
        if let Some((forge, _root)) = self.stand_in.take() {
            forge.shutdown().await;
            return self.steps;
        }
        let admin = format!("token {}", self.tokens["forgeadmin"]);
        for path in self.undo.iter().rev() {
            let url = format!("{}/api/v1{path}", self.base);
            let _ = self.client.delete(url).header("Authorization", &admin).send().await;
        }
        self.steps
    }
}

/// Which sequence of numbers an object's `id` belongs to, by its shape.
fn kind_of(map: &Map<String, Value>, key: &str) -> &'static str {
    let has = |field: &str| map.contains_key(field);
    if has("login") || has("repo_admin_change_team_access") {
        "user"
    } else if has("clone_url") || key == "repository" {
        "repo"
    } else if has("units_map") {
        "team"
    } else if has("color") {
        "label"
    } else if has("config") && has("events") {
        "hook"
    } else if has("merge_base") {
        "pull"
    } else if has("number") {
        "issue"
    } else if has("issue_url") {
        "comment"
    } else {
        "thing"
    }
}

/// Numbers by kind, counted in the order in which they are first seen.
#[derive(Default)]
struct Names {
    seen: HashMap<(String, i64), usize>,
    last: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, kind: &str, id: i64) -> String {
        if id <= 0 {
            return id.to_string();
        }
        if let Some(n) = self.seen.get(&(kind.to_owned(), id)) {
            return format!("{kind}-{n}");
        }
        let n = self.last.entry(kind.to_owned()).or_default();
        *n += 1;
        self.seen.insert((kind.to_owned(), id), *n);
        format!("{kind}-{n}")
    }
}

/// Somewhere between a thousand and a billion.
fn first_number() -> u32 {
    u32::from_le_bytes(random()) % 1_000_000_000 + 1_000
}

fn random() -> [u8; 4] {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn hmac(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// Where two records differ, one line a place.
pub fn differences(recorded: &[Value], ours: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    for (recorded, ours) in recorded.iter().zip(ours) {
        let mut found = Vec::new();
        compare("", recorded, ours, &mut found);
        if !found.is_empty() {
            out.push(format!("· {}", recorded["asked"].as_str().unwrap_or_default()));
            out.extend(found.into_iter().map(|line| format!("    {line}")));
        }
    }
    if recorded.len() != ours.len() {
        out.push(format!("{} steps are recorded, {} were played", recorded.len(), ours.len()));
    }
    out
}

fn compare(at: &str, recorded: &Value, ours: &Value, out: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let (a, b) = (a.get(key), b.get(key));
                match (a, b) {
                    (Some(a), Some(b)) => compare(&format!("{at}.{key}"), a, b, out),
                    (Some(a), None) => out.push(format!("{at}.{key}: missing, recorded {a}")),
                    (None, Some(b)) => out.push(format!("{at}.{key}: too much: {b}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                out.push(format!("{at}: {} for {} recorded: {ours} for {recorded}", b.len(), a.len()));
                return;
            }
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{at}[{n}]"), a, b, out);
            }
        }
        _ if recorded != ours => out.push(format!("{at}: {ours} for recorded {recorded}")),
        _ => {}
    }
}
