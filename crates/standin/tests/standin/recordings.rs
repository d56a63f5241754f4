//! The stand-in forge held to the recordings of real servers: the same
//! requests, in the same order, by the same people, must give the same
//! statuses, headers and fields; and so must the deliveries that they cause.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use lazarus_standin::{ApiFault, ApiFaultKind, Flavour, StandIn, StandInOptions};
use serde_json::{Value, json};

const PASSWORD: &str = "a password for tests";
const SECRET: &str = "an example secret, not in use";
const WIDGET: &str = "/repos/acme/widget";

// --- The recordings ---

/// The recordings of one server, or `None` (said aloud) where they are absent.
fn recordings(flavour: Flavour, file: &str) -> Option<Vec<Value>> {
    let server = match flavour {
        Flavour::Gitea => "gitea-1.25.4",
        Flavour::Forgejo => "forgejo-12",
    };
    let places = [
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wiremock-fixtures").join(server).join(file),
        PathBuf::from("/work/shared/recordings").join(server).join(file),
    ];
    for place in &places {
        if let Ok(text) = std::fs::read_to_string(place) {
            return Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect());
        }
    }
    eprintln!("SKIPPED: no recordings at {places:?}");
    None
}

/// Every field that occurs, as a path; list elements count as one.
fn fields(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, at: &str, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let path = format!("{at}.{key}");
                    out.insert(path.clone());
                    walk(inner, &path, out);
                }
            }
            Value::Array(all) => all.iter().for_each(|inner| walk(inner, &format!("{at}[]"), out)),
            _ => {}
        }
    }
    let mut out = BTreeSet::new();
    walk(value, "", &mut out);
    out
}

// --- A receiver of deliveries ---

#[derive(Clone)]
struct Delivery {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Delivery {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The JSON that the signature covers, in either content type.
    fn signed(&self) -> Vec<u8> {
        if self.header("content-type") == "application/json" {
            return self.body.to_vec();
        }
        let text = String::from_utf8(self.body.to_vec()).unwrap();
        let encoded = text.strip_prefix("payload=").unwrap().replace('+', " ");
        percent_encoding::percent_decode_str(&encoded).collect()
    }

    fn payload(&self) -> Value {
        serde_json::from_slice(&self.signed()).unwrap()
    }
}

#[derive(Clone, Default)]
struct Receiver {
    heard: Arc<Mutex<Vec<Delivery>>>,
    url: String,
}

async fn take(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    receiver.heard.lock().unwrap().push(Delivery { path: uri.path().to_owned(), headers, body });
    StatusCode::OK
}

impl Receiver {
    async fn start() -> Self {
        let mut receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        receiver.url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(take)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        receiver
    }

    fn heard(&self) -> Vec<Delivery> {
        self.heard.lock().unwrap().clone()
    }
}

// --- A world with the people of the recordings ---

struct World {
    forge: StandIn,
    client: reqwest::Client,
    tokens: BTreeMap<String, String>,
    receiver: Receiver,
    root: tempfile::TempDir,
}

struct Said {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Said {
    async fn read(answer: reqwest::Response) -> Self {
        Self {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.bytes().await.unwrap().to_vec(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl World {
    async fn new(flavour: Flavour) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = tempfile::tempdir().unwrap();
        let options =
            StandInOptions { flavour, listen: "127.0.0.1:0".parse().unwrap(), root: root.path().join("repositories") };
        let forge = StandIn::start(options).await.unwrap();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut world = Self { forge, client, tokens: BTreeMap::new(), receiver: Receiver::start().await, root };
        world.tokens.insert("forgeadmin".into(), world.forge.admin_token().to_owned());
        world.tokens.insert("bad".into(), "0000000000000000000000000000000000000000".into());
        for login in ["director", "writer", "reader", "teamwriter", "lazarus", "stranger"] {
            let order = json!({"username": login, "email": format!("{login}@example.test"), "password": PASSWORD});
            world.does("forgeadmin", "POST", "/admin/users", &order, 201).await;
            let scopes = if login == "lazarus" {
                json!(["write:issue", "write:repository", "read:organization", "read:user"])
            } else {
                json!(["all"])
            };
            world.token(login, login, scopes).await;
        }
        world.token("lazarus", "bot_repo_only", json!(["write:repository"])).await;
        world.token("lazarus", "bot_read_issue", json!(["read:issue"])).await;
        world.does("forgeadmin", "POST", "/orgs", &json!({"username": "acme"}), 201).await;
        for (name, private) in [("widget", false), ("vault", true)] {
            let order = json!({"name": name, "private": private, "auto_init": true, "default_branch": "main"});
            world.does("forgeadmin", "POST", "/orgs/acme/repos", &order, 201).await;
            for (login, permission) in
                [("director", "admin"), ("writer", "write"), ("reader", "read"), ("lazarus", "admin")]
            {
                let path = format!("/repos/acme/{name}/collaborators/{login}");
                world.does("forgeadmin", "PUT", &path, &json!({"permission": permission}), 204).await;
            }
        }
        let units = json!({"repo.code": "write", "repo.issues": "write", "repo.pulls": "write"});
        let team =
            json!({"name": "builders", "permission": "write", "units_map": units, "includes_all_repositories": true});
        let team = world.does("forgeadmin", "POST", "/orgs/acme/teams", &team, 201).await;
        let member = format!("/teams/{}/members/teamwriter", team["id"]);
        world.does("forgeadmin", "PUT", &member, &json!({}), 204).await;
        world
    }

    async fn token(&mut self, login: &str, name: &str, scopes: Value) {
        let url = format!("{}/api/v1/users/{login}/tokens", self.forge.url());
        let order = json!({"name": name, "scopes": scopes});
        let answer = self.client.post(url).basic_auth(login, Some(PASSWORD)).json(&order).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        self.tokens.insert(name.to_owned(), made["sha1"].as_str().unwrap().to_owned());
    }

    async fn try_ask(&self, who: &str, method: &str, path: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{path}", self.forge.url());
        let mut request = self.client.request(method.parse().unwrap(), url);
        if !who.is_empty() {
            request = request.header("Authorization", format!("token {}", self.tokens[who]));
        }
        if !body.is_null() {
            request = request.json(body);
        }
        request.send().await
    }

    async fn ask(&self, who: &str, method: &str, path: &str, body: &Value) -> Said {
        Said::read(self.try_ask(who, method, path, body).await.unwrap()).await
    }

    /// A step that must work; gives its JSON.
    async fn does(&self, who: &str, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let said = self.ask(who, method, &format!("/api/v1{path}"), body).await;
        assert_eq!(said.status, status, "{who}: {method} {path}: {}", String::from_utf8_lossy(&said.body));
        said.json()
    }

    async fn hook(&self, path: &str, events: Value, content_type: &str, secret: &str) -> Value {
        let config =
            json!({"url": format!("{}{path}", self.receiver.url), "content_type": content_type, "secret": secret});
        let order = json!({"type": "gitea", "active": true, "events": events, "config": config});
        self.does("lazarus", "POST", &format!("{WIDGET}/hooks"), &order, 201).await
    }

    /// Opens an issue and says so much about it; gives its number.
    async fn issue(&self, who: &str, title: &str) -> i64 {
        let order = json!({"title": title, "body": "hello"});
        self.does(who, "POST", &format!("{WIDGET}/issues"), &order, 201).await["number"].as_i64().unwrap()
    }

    async fn comment(&self, who: &str, issue: i64, body: &str) -> Value {
        self.does(who, "POST", &format!("{WIDGET}/issues/{issue}/comments"), &json!({"body": body}), 201).await
    }

    async fn upload(&self, path: &str, name: &str) -> Said {
        let part = reqwest::multipart::Part::bytes(b"some bytes".to_vec()).file_name(name.to_owned());
        let answer = self
            .client
            .post(format!("{}{path}", self.forge.url()))
            .header("Authorization", format!("token {}", self.tokens["lazarus"]))
            .multipart(reqwest::multipart::Form::new().part("attachment", part))
            .send()
            .await
            .unwrap();
        Said::read(answer).await
    }

    /// What happened between the recorded exchanges and is not among them.
    async fn before(&self, name: &str) {
        match name {
            "hook-patch-without-events" => {
                self.hook("/only-comments", json!(["issue_comment"]), "json", SECRET).await;
            }
            "timeline-smuggled-label" => {
                let body = "<!-- lazarus:v1 -->\r\n\r\n### Agents\r\n\r\nscribe";
                self.by_form("reader", "[mission] tidy the parser", body, "1,2").await;
            }
            "comment-list-repo-page" => {
                for n in 0..55 {
                    self.comment("writer", 2, &format!("line {n}")).await;
                }
            }
            "issue-milestone" => {
                self.does("director", "POST", &format!("{WIDGET}/milestones"), &json!({"title": "first"}), 201).await;
            }
            "pull-create" => {
                // "Comment and close", and reopening, from the web.
                self.comment("director", 1, "done").await;
                for state in ["closed", "open"] {
                    let path = format!("{WIDGET}/issues/1");
                    self.does("director", "PATCH", &path, &json!({"state": state}), 201).await;
                }
                let content = base64::engine::general_purpose::STANDARD.encode("a note\n");
                let order = json!({"content": content, "message": "Add a note", "new_branch": "lazarus/1-laz-abc"});
                self.does("lazarus", "POST", &format!("{WIDGET}/contents/NOTES.md"), &order, 201).await;
            }
            "branch-get" => {
                let path = format!("{WIDGET}/issues/4/labels");
                self.does("writer", "POST", &path, &json!({"labels": [5]}), 200).await;
                // Recorded with hooks of other kinds that came and went.
                for (path, content_type, secret) in [("/form", "form", SECRET), ("/nosecret", "json", "")] {
                    let hook = self.hook(path, json!(["issue_comment"]), content_type, secret).await;
                    self.comment("director", 1, &format!("for {path}")).await;
                    self.does("lazarus", "DELETE", &format!("{WIDGET}/hooks/{}", hook["id"]), &json!({}), 204).await;
                }
            }
            "comment-create-archived" => {
                self.does("director", "PATCH", WIDGET, &json!({"archived": true}), 200).await;
            }
            "repo-renamed" => {
                self.does("director", "PATCH", WIDGET, &json!({"archived": false}), 200).await;
                self.does("director", "DELETE", &format!("{WIDGET}/labels/2"), &Value::Null, 204).await;
                self.does("director", "PATCH", WIDGET, &json!({"name": "gadget"}), 200).await;
            }
            _ => {}
        }
    }

    async fn by_form(&self, who: &str, title: &str, content: &str, label_ids: &str) -> Value {
        let encode = |s: &str| percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string();
        let body = format!("title={}&content={}&label_ids={}", encode(title), encode(content), encode(label_ids));
        let answer = self
            .client
            .post(format!("{}/acme/widget/issues/new", self.forge.url()))
            .header("Authorization", format!("token {}", self.tokens[who]))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Plays all recorded exchanges and says where the answers differ.
    async fn play(&self, exchanges: &[Value]) -> Vec<String> {
        let mut differences = Vec::new();
        for exchange in exchanges {
            let name = exchange["name"].as_str().unwrap();
            self.before(name).await;
            let request = &exchange["request"];
            let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
            let said = if let Some(file) = name.strip_prefix("attachment-") {
                self.upload(path, &file.replacen('-', ".", 2)).await
            } else {
                // The recorded receiver is ours here.
                let mut body = request["body"].clone();
                if let Some(url) = body.pointer_mut("/config/url") {
                    let recorded = url.as_str().unwrap().to_owned();
                    *url = json!(format!("{}/{}", self.receiver.url, recorded.rsplit('/').next().unwrap()));
                }
                self.ask(exchange["as"].as_str().unwrap(), method, path, &body).await
            };
            let recorded = &exchange["response"];
            if Some(u64::from(said.status)) != recorded["status"].as_u64() {
                let text = String::from_utf8_lossy(&said.body).into_owned();
                differences.push(format!("{name}: status {} for {}: {text}", said.status, recorded["status"]));
                continue;
            }
            for (header, value) in recorded["headers"].as_object().unwrap() {
                let ours = said.headers.get(header).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let value = value.as_str().unwrap().replace("http://git.example.test", &self.forge.url());
                // What "since" finds hangs on the recorder's clock.
                if ours != value && name != "comment-list-repo-since" {
                    differences.push(format!("{name}: {header}: {ours:?} for {value:?}"));
                }
            }
            let recorded = serde_json::from_str::<Value>(recorded["body"].as_str().unwrap()).unwrap_or(Value::Null);
            let (theirs, ours) = (fields(&recorded), fields(&said.json()));
            if theirs != ours {
                let missing: Vec<_> = theirs.difference(&ours).collect();
                let excess: Vec<_> = ours.difference(&theirs).collect();
                differences.push(format!("{name}: missing {missing:?}, too many {excess:?}"));
            }
            // Where these are, they are not a matter of taste.
            for key in ["message", "permission", "state", "number", "valid", "version", "is_locked"] {
                if recorded.get(key) != said.json().get(key) && (key != "message" || said.status >= 400) {
                    let (ours, theirs) = (said.json().get(key).cloned(), recorded.get(key));
                    differences.push(format!("{name}: {key} is {ours:?} for {theirs:?}"));
                }
            }
        }
        differences
    }
}

async fn answers_and_delivers_as_recorded(flavour: Flavour) {
    let Some(exchanges) = recordings(flavour, "exchanges.jsonl") else {
        return;
    };
    let Some(deliveries) = recordings(flavour, "deliveries.jsonl") else {
        return;
    };
    let world = World::new(flavour).await;
    let mut differences = world.play(&exchanges).await;
    world.does("director", "POST", "/repos/acme/gadget/issues/1/comments", &json!({"body": "renamed"}), 201).await;
    world.forge.wait_for_deliveries_idle().await;

    let heard = world.receiver.heard();
    for recorded in &deliveries {
        let name = recorded["name"].as_str().unwrap();
        let path = recorded["path"].as_str().unwrap();
        let headers: BTreeMap<String, String> = recorded["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap().to_owned()))
            .collect();
        let theirs = Delivery {
            path: path.to_owned(),
            headers: headers
                .iter()
                .map(|(k, v)| (k.parse::<axum::http::HeaderName>().unwrap(), v.parse().unwrap()))
                .collect(),
            body: Bytes::from(recorded["body"].as_str().unwrap().to_owned()),
        };
        let (kind, payload) = (theirs.header("x-gitea-event-type").to_owned(), theirs.payload());
        let said = |d: &Delivery| {
            let payload = d.payload();
            (
                payload["action"].as_str().unwrap_or_default().to_owned(),
                payload["sender"]["login"].as_str().unwrap().to_owned(),
                payload["repository"]["permissions"].clone(),
                payload["changes"].as_object().map(|c| c.keys().cloned().collect::<Vec<_>>()),
            )
        };
        let candidates: Vec<&Delivery> = heard
            .iter()
            .filter(|d| d.path == path && d.header("x-gitea-event-type") == kind && said(d) == said(&theirs))
            .collect();
        if candidates.is_empty() {
            differences.push(format!("delivery {name}: none of {kind} like {:?}", said(&theirs)));
            continue;
        }
        let wanted = fields(&payload);
        let closest = candidates
            .iter()
            .map(|d| fields(&d.payload()).symmetric_difference(&wanted).cloned().collect::<Vec<_>>())
            .min_by_key(Vec::len)
            .unwrap();
        if !closest.is_empty() {
            differences.push(format!("delivery {name}: fields differ in {closest:?}"));
        }
        let ours = candidates[0];
        let unlike: Vec<_> = headers
            .keys()
            .filter(|h| !ours.headers.contains_key(h.as_str()) && *h != "accept-encoding")
            .chain(
                ours.headers
                    .keys()
                    .map(|h| h.as_str().to_owned())
                    .collect::<Vec<_>>()
                    .iter()
                    .filter(|h| !headers.contains_key(*h) && *h != "accept"),
            )
            .cloned()
            .collect();
        if !unlike.is_empty() {
            differences.push(format!("delivery {name}: headers differ in {unlike:?}"));
        }
        for header in ["x-gitea-event", "content-type", "x-gitea-hook-installation-target-type"] {
            if ours.header(header) != theirs.header(header) {
                differences.push(format!("delivery {name}: {header} is {:?}", ours.header(header)));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_and_delivers_as_the_recorded_gitea_did() {
    answers_and_delivers_as_recorded(Flavour::Gitea).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_and_delivers_as_the_recorded_forgejo_did() {
    answers_and_delivers_as_recorded(Flavour::Forgejo).await;
}

// --- Webhooks ---

fn hmac_sha256(body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_signed_over_the_raw_json_in_both_content_types() {
    let world = World::new(Flavour::Forgejo).await;
    let issue = world.issue("reader", "sign me").await;
    world.hook("/json", json!(["issue_comment"]), "json", SECRET).await;
    world.hook("/form", json!(["issue_comment"]), "form", SECRET).await;
    world.hook("/open", json!(["issue_comment"]), "json", "").await;
    world.comment("writer", issue, "a <b> & c = d + e % \u{2028} ü").await;
    world.forge.wait_for_deliveries_idle().await;
    let heard = world.receiver.heard();
    let by_path = |path: &str| heard.iter().find(|d| d.path == path).unwrap();
    for path in ["/json", "/form"] {
        let delivery = by_path(path);
        let expected = hmac_sha256(&delivery.signed());
        for header in ["x-gitea-signature", "x-gogs-signature", "x-forgejo-signature"] {
            assert_eq!(delivery.header(header), expected, "{path} {header}");
        }
        assert_eq!(delivery.header("x-hub-signature-256"), format!("sha256={expected}"));
        assert_eq!(delivery.payload()["comment"]["body"], "a <b> & c = d + e % \u{2028} ü");
    }
    assert!(by_path("/json").body.starts_with(b"{\n  \""), "indented by two spaces");
    assert_eq!(by_path("/open").header("x-gitea-signature"), "", "there and empty without a secret");
    assert!(by_path("/open").headers.contains_key("x-gitea-signature"));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repository_organisation_and_system_hooks_each_fire_with_their_own_id() {
    let world = World::new(Flavour::Gitea).await;
    let config = json!({"url": format!("{}/hook", world.receiver.url), "content_type": "json", "secret": SECRET});
    let order = json!({"type": "gitea", "active": true, "events": ["issues"], "config": config});
    for path in ["/repos/acme/widget/hooks", "/orgs/acme/hooks"] {
        world.does("forgeadmin", "POST", path, &order, 201).await;
    }
    // Seen on Gitea 1.25.4 and Forgejo 12: what is made there is a system hook
    // only if its configuration says so, in a string.
    let mut system = order.clone();
    system["config"]["is_system_webhook"] = json!("true");
    world.does("forgeadmin", "POST", "/admin/hooks", &system, 201).await;
    world.issue("reader", "three times").await;
    world.forge.wait_for_deliveries_idle().await;
    let heard = world.receiver.heard();
    let ids: BTreeSet<&str> = heard.iter().map(|d| d.header("x-gitea-delivery")).collect();
    let bodies: BTreeSet<&Bytes> = heard.iter().map(|d| &d.body).collect();
    assert_eq!((heard.len(), ids.len(), bodies.len()), (3, 3, 1));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_hook_hears_nothing_and_is_copied_with_its_secret_into_new_repositories() {
    let world = World::new(Flavour::Gitea).await;
    let config = json!({"url": format!("{}/hook", world.receiver.url), "content_type": "json", "secret": SECRET});
    let order = json!({"type": "gitea", "active": true, "events": ["issues"], "config": config});
    let made = world.does("forgeadmin", "POST", "/admin/hooks", &order, 201).await;
    let listed = async |query: &str| {
        let path = format!("/admin/hooks{query}");
        world.does("forgeadmin", "GET", &path, &Value::Null, 200).await.as_array().unwrap().len()
    };
    assert_eq!([listed("").await, listed("?type=default").await, listed("?type=all").await], [0, 1, 1]);
    world.issue("reader", "in an old repository").await;
    let repository = json!({"name": "fresh", "auto_init": true});
    world.does("forgeadmin", "POST", "/orgs/acme/repos", &repository, 201).await;
    let copies = world.does("forgeadmin", "GET", "/repos/acme/fresh/hooks", &Value::Null, 200).await;
    assert_ne!(copies[0]["id"], made["id"]);
    world.does("reader", "POST", "/repos/acme/fresh/issues", &json!({"title": "in a new one"}), 201).await;
    world.forge.wait_for_deliveries_idle().await;
    let heard = world.receiver.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].payload()["issue"]["title"], "in a new one");
    assert_eq!(heard[0].header("x-gitea-signature"), hmac_sha256(&heard[0].body));
    assert_eq!(heard[0].header("x-gitea-hook-installation-target-type"), "repository");
    let path = format!("/admin/hooks/{}", made["id"]);
    world.does("forgeadmin", "DELETE", &path, &Value::Null, 204).await;
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_of_twenty_megabytes_with_nul_is_kept_and_delivered_whole() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "large").await;
    world.hook("/hook", json!(["issue_comment"]), "json", SECRET).await;
    let body = format!("start\0{}end", "x<y ".repeat(5_000_000));
    let made = world.comment("reader", issue, &body).await;
    assert_eq!(made["body"].as_str().unwrap().len(), body.len());
    world.forge.wait_for_deliveries_idle().await;
    let heard = world.receiver.heard();
    assert!(heard[0].payload()["comment"]["body"] == body.as_str());
    assert_eq!(heard[0].header("x-gitea-signature"), hmac_sha256(&heard[0].body));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_lost_doubled_shuffled_and_replayed_on_order() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "faults").await;
    world.hook("/hook", json!(["issue_comment"]), "json", SECRET).await;
    let faults = world.forge.faults().clone();
    let said = || -> Vec<String> {
        let heard = world.receiver.heard();
        heard.iter().map(|d| d.payload()["comment"]["body"].as_str().unwrap().to_owned()).collect()
    };

    faults.webhooks(|w| w.drop_next = 1);
    world.comment("writer", issue, "lost").await;
    world.comment("writer", issue, "heard").await;
    world.forge.wait_for_deliveries_idle().await;
    assert_eq!(said(), ["heard"]);

    faults.clear();
    faults.webhooks(|w| w.double = true);
    world.comment("writer", issue, "twice").await;
    world.forge.wait_for_deliveries_idle().await;
    assert_eq!(said(), ["heard", "twice", "twice"]);
    let heard = world.receiver.heard();
    assert_ne!(heard[1].header("x-gitea-delivery"), heard[2].header("x-gitea-delivery"));

    faults.clear();
    faults.webhooks(|w| w.shuffle = 4);
    for n in 0..4 {
        world.comment("writer", issue, &n.to_string()).await;
    }
    world.forge.wait_for_deliveries_idle().await;
    let mut shuffled = said().split_off(3);
    assert_ne!(shuffled, ["0", "1", "2", "3"]);
    shuffled.sort();
    assert_eq!(shuffled, ["0", "1", "2", "3"]);

    faults.clear();
    assert_eq!(world.forge.replay_deliveries(), 7);
    world.forge.wait_for_deliveries_idle().await;
    assert_eq!(said().len(), 14);

    let order = json!({"webhooks": {"deny_hosts": true}});
    assert_eq!(world.ask("", "POST", "/_standin/faults", &order).await.status, 204);
    world.comment("writer", issue, "denied").await;
    world.forge.wait_for_deliveries_idle().await;
    assert_eq!(said().len(), 14);
    let last = world.forge.deliveries().pop().unwrap();
    assert!(last.error.unwrap().contains("ALLOWED_HOST_LIST"));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_points_out_of_the_machine_is_never_called() {
    let world = World::new(Flavour::Gitea).await;
    let config = json!({"url": "http://192.0.2.1/hook", "content_type": "json", "secret": SECRET});
    let order = json!({"type": "gitea", "active": true, "events": ["issues"], "config": config});
    world.does("lazarus", "POST", &format!("{WIDGET}/hooks"), &order, 201).await;
    world.issue("reader", "elsewhere").await;
    world.forge.wait_for_deliveries_idle().await;
    let record = world.forge.deliveries().pop().unwrap();
    assert!(record.status.is_none() && record.error.unwrap().contains("192.0.2.1"));
    world.forge.shutdown().await;
}

// --- Faults of the API ---

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_dropped_after_doing_and_answered_with_rubbish_on_order() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "faults").await;
    let path = format!("/api/v1{WIDGET}/issues/{issue}/comments");
    let body = json!({"body": "x"});
    let faults = world.forge.faults().clone();
    let strike = |kind| {
        faults.api(ApiFault::new("POST", "/comments$", 1, kind)).unwrap();
    };
    let count = async || world.ask("writer", "GET", &path, &Value::Null).await.json().as_array().unwrap().len();

    strike(ApiFaultKind::Refuse { status: 429, retry_after: Some(3) });
    let said = world.ask("writer", "POST", &path, &body).await;
    assert_eq!((said.status, said.headers["retry-after"].to_str().unwrap()), (429, "3"));
    assert_eq!(count().await, 0);

    strike(ApiFaultKind::DropBefore);
    assert!(world.try_ask("writer", "POST", &path, &body).await.is_err());
    assert_eq!(count().await, 0);

    strike(ApiFaultKind::DropAfter);
    assert!(world.try_ask("writer", "POST", &path, &body).await.is_err());
    assert_eq!(count().await, 1, "it was done, though nobody was told");

    strike(ApiFaultKind::FailAfter);
    assert_eq!(world.ask("writer", "POST", &path, &body).await.status, 500);
    assert_eq!(count().await, 2);

    strike(ApiFaultKind::Garbage);
    assert!(world.ask("writer", "POST", &path, &body).await.json().is_null());
    assert_eq!(count().await, 3);

    strike(ApiFaultKind::HalfBody);
    let answer = world.try_ask("writer", "POST", &path, &body).await.unwrap();
    assert!(answer.bytes().await.is_err(), "half a body is an error to who reads it");
    assert_eq!(count().await, 4);

    assert_eq!(world.ask("writer", "POST", &path, &body).await.status, 201, "the faults are used up");
    let dropped = world.forge.requests().iter().filter(|r| r.status == 0).count();
    assert_eq!(dropped, 2);
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_redirected_paged_and_answered_late_on_order() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "faults").await;
    let path = format!("/api/v1{WIDGET}/issues/{issue}/comments");
    let body = json!({"body": "x"});
    let faults = world.forge.faults().clone();
    let strike = |kind| faults.api(ApiFault::new("POST", "/comments$", 1, kind)).unwrap();
    let count = async || world.ask("writer", "GET", &path, &Value::Null).await.json().as_array().unwrap().len();

    strike(ApiFaultKind::Redirect { status: 308, location: "https://git.example.test{path}".to_owned() });
    let said = world.ask("writer", "POST", &path, &body).await;
    let location = said.headers["location"].to_str().unwrap().to_owned();
    assert_eq!((said.status, location), (308, format!("https://git.example.test{path}")));

    for status in [200, 403, 413, 502] {
        strike(ApiFaultKind::Page { status });
        let said = world.ask("writer", "POST", &path, &body).await;
        assert_eq!((said.status, said.headers["content-type"].to_str().unwrap()), (status, "text/html; charset=utf-8"));
        assert!(said.body.starts_with(b"<!DOCTYPE html>"));
    }
    assert_eq!(count().await, 0, "nothing of it was done");

    strike(ApiFaultKind::DelayAfter { ms: 300 });
    let started = std::time::Instant::now();
    let asked = world.ask("writer", "POST", &path, &body);
    let (said, ()) = tokio::join!(asked, async {
        while count().await == 0 {}
        assert!(started.elapsed() < Duration::from_millis(300), "done before it is answered");
    });
    assert_eq!(said.status, 201);
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_meddles_between_two_calls_on_order() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "meddled").await;
    world.hook("/hook", json!(["issues", "issue_comment"]), "json", SECRET).await;
    let comment = world.comment("director", issue, "said").await["id"].clone();
    let at = format!("{WIDGET}/issues/comments/{comment}");
    let order = json!({"api": [{
        "method": "GET", "path": format!("/comments/{comment}$"), "who": "lazarus", "skip": 1, "times": 1,
        "do": "meanwhile", "errands": [
            {"by": "writer", "method": "PATCH", "path": at, "body": {"body": "edited"}, "in_its_first_second": true},
            {"method": "PATCH", "path": format!("{WIDGET}/issues/{issue}"), "body": {"body": "unheard"}, "quietly": true},
        ],
    }]});
    assert_eq!(world.ask("", "POST", "/_standin/faults", &order).await.status, 204);
    let look = async |who: &str| world.does(who, "GET", &at, &Value::Null, 200).await;
    assert_eq!(look("writer").await["body"], "said");
    assert_eq!(look("lazarus").await["body"], "said");
    let edited = look("lazarus").await;
    assert_eq!((&edited["body"], &edited["user"]["login"]), (&json!("edited"), &json!("director")));
    assert_eq!(edited["created_at"], edited["updated_at"]);
    let found = world.does("lazarus", "GET", &format!("{WIDGET}/issues/{issue}"), &Value::Null, 200).await;
    assert_eq!(found["body"], "unheard");
    world.forge.wait_for_deliveries_idle().await;
    let mut heard: Vec<String> = world.receiver.heard().iter().map(|d| d.payload()["action"].to_string()).collect();
    heard.sort();
    assert_eq!(heard, ["\"created\"", "\"edited\""], "one of the two edits was heard of");
    assert!(world.forge.faults().failed_errands().is_empty());

    // One that is refused is known, so that no test counts on it in vain.
    let order = json!({"api": [{"path": "/version$", "times": 1, "do": "meanwhile", "errands": [
        {"by": "reader", "method": "PATCH", "path": at, "body": {"body": "not his"}},
    ]}]});
    assert_eq!(world.ask("", "POST", "/_standin/faults", &order).await.status, 204);
    assert_eq!(world.ask("", "GET", "/api/v1/version", &Value::Null).await.status, 200);
    assert_eq!(world.forge.faults().failed_errands().len(), 1);

    // And without a call to wait for.
    let order = json!([{"method": "DELETE", "path": at, "quietly": true}]);
    let said = world.ask("", "POST", "/_standin/errands", &order).await;
    assert_eq!(said.json()[0]["status"], 204);
    assert_eq!(world.ask("lazarus", "GET", &format!("/api/v1{at}"), &Value::Null).await.status, 404);
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_wait_until_they_are_let_go_and_then_come_in_their_order() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "held").await;
    world.hook("/hook", json!(["issue_comment"]), "json", SECRET).await;
    let faults = world.forge.faults().clone();
    let said =
        || -> Vec<Value> { world.receiver.heard().iter().map(|d| d.payload()["comment"]["body"].clone()).collect() };
    faults.webhooks(|w| w.hold = true);
    for n in 0..4 {
        world.comment("writer", issue, &n.to_string()).await;
    }
    world.forge.wait_for_deliveries_idle().await;
    assert!(said().is_empty());
    faults.clear();
    tokio::time::timeout(Duration::from_secs(10), async {
        while said().len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(said(), ["0", "1", "2", "3"]);
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_and_comments_get_a_past_on_order_and_lists_have_them_by_their_times() {
    let world = World::new(Flavour::Gitea).await;
    world.hook("/hook", json!(["issues", "issue_comment"]), "json", SECRET).await;
    let issue = world.issue("reader", "of today").await;
    let order = json!({
        "repository": "acme/widget", "original_url": "https://elsewhere.test/x", "created_at": "2026-01-01T00:00:00Z",
        "issues": [
            {"title": "old", "author": "writer", "created_at": "2020-01-01T00:00:00Z", "closed": true, "comments": [
                {"body": "second", "author": "director", "created_at": "2020-03-01T00:00:00Z"},
                {"body": "first", "author": "writer", "created_at": "2020-02-01T00:00:00Z", "original_author": "mallory"},
            ]},
            {"number": issue, "comments": [{"body": "long ago", "created_at": "2019-01-01T00:00:00Z"}]},
        ],
    });
    let made = world.ask("", "POST", "/_standin/history", &order).await;
    assert_eq!(made.status, 201);
    let number = made.json()["issues"][0]["number"].as_i64().unwrap();
    let path = format!("{WIDGET}/issues/{number}/comments");
    let comments = world.does("reader", "GET", &path, &Value::Null, 200).await;
    assert_eq!((&comments[0]["body"], &comments[1]["body"]), (&json!("first"), &json!("second")));
    assert_eq!(
        (&comments[0]["updated_at"], &comments[0]["original_author"]),
        (&json!("2020-02-01T00:00:00Z"), &json!(""))
    );
    let found = world.does("reader", "GET", WIDGET, &Value::Null, 200).await;
    assert_eq!((&found["original_url"], &found["mirror"]), (&json!("https://elsewhere.test/x"), &json!(false)));
    let all = world.does("reader", "GET", &format!("{WIDGET}/issues/comments"), &Value::Null, 200).await;
    assert_eq!(all[0]["body"], "long ago");
    // As the documentation of the field has it, should a server fill it in.
    let order = json!({"original_authors": true});
    assert_eq!(world.ask("", "POST", "/_standin/settings", &order).await.status, 204);
    let comments = world.does("reader", "GET", &path, &Value::Null, 200).await;
    assert_eq!(comments[0]["original_author"], "mallory");
    world.forge.wait_for_deliveries_idle().await;
    assert_eq!(world.receiver.heard().len(), 1, "only of what was opened today");
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_requests_holds_no_secret() {
    let world = World::new(Flavour::Gitea).await;
    world.hook("/hook", json!(["issues"]), "json", SECRET).await;
    let record = format!("{:?} {:?}", world.forge.requests(), world.forge);
    assert!(record.contains("/api/v1/repos/acme/widget/hooks"));
    for secret in world.tokens.values().map(String::as_str).chain([PASSWORD, SECRET]) {
        assert!(!record.contains(secret));
    }
    world.forge.shutdown().await;
}

// --- Who may do what ---

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_see_private_repositories_and_readers_do_not_write() {
    let world = World::new(Flavour::Gitea).await;
    let none = Value::Null;
    for who in ["", "stranger"] {
        assert_eq!(world.ask(who, "GET", "/api/v1/repos/acme/vault", &none).await.status, 404);
    }
    assert_eq!(world.ask("stranger", "GET", "/api/v1/repositories/2", &none).await.status, 404);
    assert_eq!(world.ask("", "GET", "/api/v1/repos/acme/widget", &none).await.status, 200);
    assert_eq!(world.ask("", "POST", "/api/v1/repos/acme/widget/issues", &json!({"title": "x"})).await.status, 401);
    let label = json!({"name": "x", "color": "#ffffff"});
    assert_eq!(world.ask("reader", "POST", "/api/v1/repos/acme/widget/labels", &label).await.status, 403);
    let made = world.does("teamwriter", "GET", WIDGET, &none, 200).await;
    assert_eq!(made["permissions"], json!({"admin": false, "push": true, "pull": true}));
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_moved_are_answered_with_redirects_and_ids_stay() {
    let world = World::new(Flavour::Gitea).await;
    let issue = world.issue("reader", "mine").await;
    world.comment("reader", issue, "mine too").await;
    world.does("forgeadmin", "POST", "/admin/users/reader/rename", &json!({"new_username": "renamed"}), 204).await;
    let said = world.ask("writer", "GET", "/api/v1/users/reader", &Value::Null).await;
    assert_eq!((said.status, said.headers["location"].to_str().unwrap()), (307, "/api/v1/users/renamed"));
    let comments = world.does("writer", "GET", &format!("{WIDGET}/issues/{issue}/comments"), &Value::Null, 200).await;
    assert_eq!((&comments[0]["user"]["login"], &comments[0]["user"]["id"]), (&json!("renamed"), &json!(4)));

    world.does("director", "PATCH", WIDGET, &json!({"name": "gadget"}), 200).await;
    let old = format!("/api/v1{WIDGET}/issues/1/comments?since=2026-01-01T00:00:00Z");
    let said = world.ask("writer", "GET", &old, &Value::Null).await;
    let new = "/api/v1/repos/acme/gadget/issues/1/comments?since=2026-01-01T00:00:00Z";
    assert_eq!((said.status, said.headers["location"].to_str().unwrap()), (301, new));
    let found = world.does("writer", "GET", "/repositories/1", &Value::Null, 200).await;
    assert_eq!(found["full_name"], "acme/gadget");
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_account_wrote_stays_under_ghost_and_cannot_be_shown_alone() {
    let world = World::new(Flavour::Forgejo).await;
    let issue = world.issue("stranger", "soon gone").await;
    let comment = world.comment("stranger", issue, "words").await;
    world.does("forgeadmin", "DELETE", "/admin/users/stranger", &Value::Null, 204).await;
    let comments = world.does("writer", "GET", &format!("{WIDGET}/issues/comments"), &Value::Null, 200).await;
    assert_eq!((&comments[0]["user"]["login"], &comments[0]["user"]["id"]), (&json!("Ghost"), &json!(-1)));
    let alone = format!("/api/v1{WIDGET}/issues/comments/{}", comment["id"]);
    assert_eq!(world.ask("writer", "GET", &alone, &Value::Null).await.status, 500);
    assert_eq!(world.ask("stranger", "GET", "/api/v1/user", &Value::Null).await.status, 401);
    world.forge.shutdown().await;
}

// --- Git ---

impl World {
    /// Runs git in `dir` with nothing of this machine's configuration.
    async fn git(&self, dir: &Path, args: &[&str]) -> (bool, String) {
        let done = tokio::process::Command::new("git")
            .current_dir(dir)
            .args(["-c", "user.name=agent", "-c", "user.email=agent@example.test", "-c", "http.postBuffer=70000"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.success(), text)
    }

    fn remote(&self, who: &str, repo: &str) -> String {
        let at = self.forge.url().replace("http://", &format!("http://{who}:{}@", self.tokens[who]));
        format!("{at}/acme/{repo}.git")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_fetches_and_pushes_and_the_push_is_delivered_before_it_ends() {
    let world = World::new(Flavour::Gitea).await;
    world.hook("/hook", json!(["push"]), "json", SECRET).await;
    let dir = world.root.path();
    let public = format!("{}/acme/widget.git", world.forge.url());
    let (done, said) = world.git(dir, &["clone", "-q", &public, "public"]).await;
    assert!(done, "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("public/README.md")).unwrap(), "# widget\n\n");
    let (done, said) = world.git(&dir.join("public"), &["push", "origin", "HEAD:refs/heads/no"]).await;
    assert!(!done, "nobody pushes without signing in: {said}");
    let private = format!("{}/acme/vault.git", world.forge.url());
    let (done, _) = world.git(dir, &["clone", "-q", &private, "stolen"]).await;
    assert!(!done);
    let (done, _) = world.git(dir, &["clone", "-q", &world.remote("stranger", "vault"), "stolen"]).await;
    assert!(!done);

    let (done, said) = world.git(dir, &["clone", "-q", &world.remote("teamwriter", "vault"), "work"]).await;
    assert!(done, "{said}");
    let (done, said) = world.git(dir, &["clone", "-q", &world.remote("writer", "widget"), "widget"]).await;
    assert!(done, "{said}");
    let work = dir.join("widget");
    // Larger than git's buffer: it comes in chunks, without a length.
    let noise: Vec<u8> = (0..40_000_u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    std::fs::write(work.join("large.txt"), noise).unwrap();
    for args in [&["checkout", "-q", "-b", "topic/one"][..], &["add", "."], &["commit", "-q", "-m", "Add it"]] {
        let (done, said) = world.git(&work, args).await;
        assert!(done, "{args:?}: {said}");
    }
    let (done, said) = world.git(&work, &["push", "origin", "topic/one"]).await;
    assert!(done, "{said}");
    let branch = world.does("reader", "GET", &format!("{WIDGET}/branches/topic%2Fone"), &Value::Null, 200).await;
    assert_eq!(branch["commit"]["message"], "Add it\n");
    world.forge.wait_for_deliveries_idle().await;
    let payload = world.receiver.heard()[0].payload();
    assert_eq!(payload["ref"], "refs/heads/topic/one");
    assert_eq!(payload["commits"][0]["added"], json!(["large.txt"]));
    assert_eq!(payload["after"], branch["commit"]["id"]);

    let (done, said) = world.git(&work, &["push", &world.remote("reader", "widget"), "topic/one:more"]).await;
    assert!(!done && said.contains("403"), "{said}");
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gits_requests_fail_apart_from_the_apis_and_what_was_pushed_counts() {
    let world = World::new(Flavour::Gitea).await;
    let dir = world.root.path();
    let faults = world.forge.faults().clone();
    let remote = world.remote("writer", "widget");
    let order = |on: &str, path: &str, fault: Value| {
        let mut order = json!({"on": on, "path": path, "times": 1});
        order.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
        json!({"api": [order]})
    };
    let strike = async |on: &str, path: &str, fault: Value| {
        assert_eq!(world.ask("", "POST", "/_standin/faults", &order(on, path, fault)).await.status, 204);
    };
    let clones = async |name: &str| world.git(dir, &["clone", "-q", &remote, name]).await;

    strike("api", "widget", json!({"do": "refuse", "status": 503})).await;
    let (done, said) = clones("first").await;
    assert!(done, "that was for the API alone: {said}");
    strike("git", "widget", json!({"do": "refuse", "status": 503})).await;
    assert_eq!(world.ask("reader", "GET", &format!("/api/v1{WIDGET}"), &Value::Null).await.status, 503);
    assert_eq!(world.ask("reader", "GET", &format!("/api/v1{WIDGET}"), &Value::Null).await.status, 200);
    for (path, fault, words) in [
        ("info/refs", json!({"do": "refuse", "status": 500}), "500"),
        ("info/refs", json!({"do": "refuse", "status": 429, "retry_after": 1}), "429"),
        ("info/refs", json!({"do": "refuse", "status": 403}), "403"),
        ("info/refs", json!({"do": "page"}), "not valid"),
        ("info/refs", json!({"do": "drop_before"}), "mpty reply"),
        ("/git-upload-pack$", json!({"do": "half_body"}), ""),
        ("/git-upload-pack$", json!({"do": "refuse", "status": 408}), "408"),
    ] {
        faults.clear();
        strike("git", path, fault.clone()).await;
        let (done, said) = clones("no").await;
        assert!(!done && said.contains(words), "{path} {fault}: {said}");
    }
    faults.clear();
    strike(
        "git",
        "info/refs",
        json!({"do": "redirect", "status": 301, "location": "/acme/widget/info/refs?service=git-upload-pack"}),
    )
    .await;
    let (done, said) = clones("redirected").await;
    assert!(done, "git follows to the same repository: {said}");

    let work = dir.join("first");
    world.git(&work, &["commit", "-q", "--allow-empty", "-m", "more"]).await;
    for (name, fault) in [
        ("half", json!({"do": "half_body"})),
        ("dropped", json!({"do": "drop_after"})),
        ("failed", json!({"do": "fail_after"})),
    ] {
        strike("git", "/git-receive-pack$", fault).await;
        let (done, said) = world.git(&work, &["push", "-q", "origin", &format!("HEAD:refs/heads/{name}")]).await;
        // curl asks again by itself where a connection that it used before is
        // dropped.
        assert!(!done || name == "dropped", "{name}: {said}");
        let path = format!("{WIDGET}/branches/{name}");
        world.does("reader", "GET", &path, &Value::Null, 200).await;
    }
    let asked: Vec<(String, u16)> =
        world.forge.requests().iter().filter(|r| r.path.contains(".git/")).map(|r| (r.who.clone(), r.status)).collect();
    assert!(asked.contains(&("writer".to_owned(), 0)) && asked.contains(&(String::new(), 429)), "{asked:?}");
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_protected_branch_fails_in_the_forges_words() {
    let world = World::new(Flavour::Gitea).await;
    let dir = world.root.path();
    for rule in ["main", "release/*"] {
        let order = json!({"rule_name": rule, "enable_push": false});
        world.does("lazarus", "POST", &format!("{WIDGET}/branch_protections"), &order, 201).await;
    }
    let (done, said) = world.git(dir, &["clone", "-q", &world.remote("director", "widget"), "work"]).await;
    assert!(done, "{said}");
    let work = dir.join("work");
    world.git(&work, &["commit", "-q", "--allow-empty", "-m", "more"]).await;
    for target in ["main", "release/1.0"] {
        let (done, said) = world.git(&work, &["push", "origin", &format!("HEAD:refs/heads/{target}")]).await;
        assert!(!done && said.contains(&format!("Not allowed to push to protected branch {target}")), "{said}");
    }
    let (done, said) = world.git(&work, &["push", "origin", "HEAD:refs/heads/free"]).await;
    assert!(done, "{said}");
    let content = json!({"content": "", "message": "x"});
    let said = world.ask("director", "POST", &format!("/api/v1{WIDGET}/contents/new.txt"), &content).await;
    assert_eq!(said.status, 403);
    world.forge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_its_connections_and_frees_its_port_when_shut_down() {
    let world = World::new(Flavour::Gitea).await;
    let address = world.forge.url().trim_start_matches("http://").to_owned();
    let idle = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (client, token) = (world.client.clone(), format!("token {}", world.tokens["forgeadmin"]));
    tokio::time::timeout(Duration::from_secs(5), world.forge.shutdown()).await.unwrap();
    // Another test's stand-in may have the port by now: that one does not know
    // our token.
    let asked = client.get(format!("http://{address}/api/v1/user")).header("Authorization", token).send().await;
    assert!(asked.is_err() || asked.unwrap().status() == 401);
    drop(idle);
}
