//! A stand-in for a Gitea or Forgejo server, inside the process that starts it: for `make demo`, and for every
//! conversation in `make test`.
//!
//! It keeps state, speaks real HTTP on loopback, holds real (bare) git repositories and delivers signed webhooks.
//! Statuses, field names, headers and oddities are those that were recorded from real servers (`tests/standin.rs`
//! compares them). If the two differ, the stand-in is wrong.
//!
//! A request passes these modules in order: this file (connection, limits, ordered faults, the record of requests)
//! → `api` (caller, scopes, repository) → the handlers `accounts`, `repositories`, `hooks`, `issues`, `pulls` or
//! `git_http` → `state` (plain data) → `shapes` (JSON) and `announce`, `push` → `deliveries` (signed, sent by
//! workers).
//!
//! Do not use it as a forge: passwords are kept in memory in plain text, and everybody who can reach its port can
//! order faults.

#![forbid(unsafe_code)]

mod accounts;
mod announce;
mod api;
mod deliveries;
mod faults;
mod git;
mod git_http;
mod hooks;
mod issues;
mod labels;
mod migrate;
mod own;
mod pulls;
mod push;
mod reply;
mod repositories;
mod shapes;
mod state;
mod templates;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use deliveries::DeliveryRecord;
pub use faults::{ApiFault, ApiFaultKind, Errand, FaultOrder, Faults, Surface, WebhookFaults};

use api::{Call, parse_form};
use reply::{Answer, Refusals, Reply};
use state::{Sequences, State, Token, next, now};

/// Largest request body that is accepted, in bytes. Real servers accept comments of 20 MB.
const BODY_LIMIT: usize = 64 << 20;
/// Number of requests that are kept in the record.
const REQUESTS_KEPT: usize = 10_000;
/// Most bytes of a request's body that are kept in the record.
const BODY_KEPT: usize = 64 << 10;

/// The server that it imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Gitea 1.25.4.
    Gitea,
    /// Forgejo 12.
    Forgejo,
}

impl Flavour {
    /// The version that the server reports.
    pub fn version(self) -> &'static str {
        match self {
            Self::Gitea => "1.25.4",
            Self::Forgejo => "12.0.0-dev+gitea-1.22.0",
        }
    }
}

/// How to start a stand-in.
#[derive(Debug, Clone)]
pub struct StandInOptions {
    /// The server to imitate.
    pub flavour: Flavour,
    /// The address to listen on: a loopback address, with port 0 for any free port.
    pub listen: SocketAddr,
    /// A directory for the bare repositories; it is created if it does not exist.
    pub root: PathBuf,
}

/// One request as it came, and its outcome. Never contains credentials: neither the authorization header nor bodies
/// that carry secrets are kept.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// When the answer was ready.
    pub at: jiff::Timestamp,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query, as they were sent.
    pub path: String,
    /// The login of the caller; empty if anonymous.
    pub who: String,
    /// The status of the answer; 0 if a fault dropped the connection.
    pub status: u16,
    /// The first 64 KiB of the body as text; `(withheld)` for bodies with secrets (accounts, tokens, hooks); empty
    /// for git.
    pub body: String,
}

/// State that all requests share.
pub(crate) struct Forge {
    state: Mutex<State>,
    git: git::Repositories,
    git_writes: tokio::sync::Mutex<()>,
    refusals: Refusals,
    faults: Faults,
    queue: deliveries::Queue,
    requests: Mutex<VecDeque<RequestRecord>>,
    pages: Mutex<Pages>,
}

/// How many items a page of a list has (`[api]` of the real servers).
#[derive(Clone, Copy)]
struct Pages {
    /// `DEFAULT_PAGING_NUM`: applies if no limit is requested.
    default: usize,
    /// `MAX_RESPONSE_ITEMS`: the maximum of any requested limit.
    most: usize,
}

impl Forge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Page sizes of lists. They are not part of the state, because handlers read them while they hold its lock.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, record: RequestRecord) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == REQUESTS_KEPT {
            requests.pop_front();
        }
        requests.push_back(record);
    }
}

/// A running stand-in. Dropping it aborts its tasks; [`StandIn::shutdown`] also waits for them.
pub struct StandIn {
    forge: Arc<Forge>,
    url: String,
    admin_token: String,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    deliverer: JoinHandle<()>,
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandIn").field("url", &self.url).finish_non_exhaustive()
    }
}

impl StandIn {
    /// Starts a stand-in with a single account, `forgeadmin`, which administers it.
    ///
    /// # Errors
    /// If the address is not a loopback address or is in use, or if the directory cannot be created.
    pub async fn start(options: StandInOptions) -> anyhow::Result<Self> {
        anyhow::ensure!(
            options.listen.ip().is_loopback(),
            "the stand-in forge listens on loopback only, not on {}: choose 127.0.0.1 and a port",
            options.listen
        );
        let git = git::Repositories::open(options.root).await?;
        let listener = TcpListener::bind(options.listen).await.with_context(|| {
            format!("listen on {} for the stand-in forge: choose another port, or 0 for any", options.listen)
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        let (queue, jobs) = deliveries::Queue::new();
        let mut state = State {
            flavour: options.flavour,
            root_url: url.clone(),
            seq: Sequences::default(),
            accounts: BTreeMap::new(),
            former_logins: HashMap::new(),
            tokens: HashMap::new(),
            teams: BTreeMap::new(),
            repos: BTreeMap::new(),
            former_repos: HashMap::new(),
            labels: BTreeMap::new(),
            milestones: BTreeMap::new(),
            issues: BTreeMap::new(),
            entries: BTreeMap::new(),
            hooks: BTreeMap::new(),
            deliveries: queue.clone(),
            shows_original_authors: false,
            claimed_url: None,
        };
        let admin_token = api::random_hex(20);
        let admin = state.add_account("forgeadmin", "forgeadmin@standin.invalid", &api::random_hex(20), true, false);
        let token = Token {
            id: next(&mut state.seq.token),
            name: "start".to_owned(),
            account: admin,
            secret: admin_token.clone(),
            scopes: vec!["all".to_owned()],
            created: now(),
        };
        state.tokens.insert(admin_token.clone(), token);
        let forge = Arc::new(Forge {
            state: Mutex::new(state),
            git,
            git_writes: tokio::sync::Mutex::new(()),
            refusals: Refusals { flavour: options.flavour, root_url: url.clone() },
            faults: Faults::default(),
            queue: queue.clone(),
            requests: Mutex::default(),
            pages: Mutex::new(Pages { default: 30, most: 50 }),
        });
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, forge.clone(), stopped));
        let deliverer = tokio::spawn(queue.work(jobs, forge.faults.clone(), options.flavour));
        Ok(Self { forge, url, admin_token, stop, server: Some(server), deliverer })
    }

    /// The URL `http://127.0.0.1:PORT`, without a trailing slash.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A token of `forgeadmin` with every scope.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The faults that are ordered.
    pub fn faults(&self) -> &Faults {
        &self.forge.faults
    }

    /// The last 10,000 requests, oldest first, except those to `/_standin`.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.forge.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The last 10,000 deliveries and their results, in the order in which they ended.
    pub fn deliveries(&self) -> Vec<DeliveryRecord> {
        self.forge.queue.records()
    }

    /// Sends all deliveries so far once more, with new ids and the same bodies, as "Replay" on a hook's page does.
    /// Returns their number.
    pub fn replay_deliveries(&self) -> usize {
        self.forge.queue.replay()
    }

    /// Waits until no delivery is queued or being sent. Those that a fault holds back do not count.
    pub async fn wait_for_deliveries_idle(&self) {
        self.forge.queue.idle().await;
    }

    /// Stops the stand-in and waits until its tasks have ended.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            let _ = server.await;
        }
        // Aborts deliveries that are being sent, as when a forge is stopped.
        self.deliverer.abort();
        let _ = (&mut self.deliverer).await;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(server) = &self.server {
            server.abort();
        }
        self.deliverer.abort();
    }
}

/// Accepts connections until it is told to stop. This uses hyper instead of axum's own server, because a fault must
/// be able to close a connection without sending anything.
async fn serve(listener: TcpListener, forge: Arc<Forge>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = async { let _ = stopped.wait_for(|stop| *stop).await; } => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Usually out of descriptors; other connections must close first.
                    tracing::warn!(%error, "the stand-in forge cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let forge = forge.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let forge = forge.clone();
                async move { handle(&forge, request).await }
            });
            // Fails for each connection that a fault dropped, which is intended.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
    connections.shutdown().await;
}

/// A fault closed the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was dropped on purpose")]
struct Dropped;

/// Paths whose bodies carry passwords, tokens or webhook secrets.
fn withheld(path: &str) -> bool {
    path.contains("/tokens") || path.contains("/admin/users") || path.contains("/hooks")
}

async fn handle(forge: &Arc<Forge>, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let shown = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    let note = |who: &str, status: u16, body: String| {
        forge.record(RequestRecord {
            at: jiff::Timestamp::now(),
            method: method.clone(),
            path: shown.clone(),
            who: who.to_owned(),
            status,
            body,
        });
    };

    if let Some((owner, name, suffix, rest)) = git_http::parse(&path) {
        // The handler refuses wrong passwords; a fault only needs to know whose request it is.
        let who = {
            let state = forge.state();
            api::authenticate(&state, &forge.refusals, &parts.headers).map(|c| c.login).unwrap_or_default()
        };
        let fault = forge.faults.for_request(Surface::Git, &method, &shown, &who);
        match before_doing(forge, fault.as_ref(), &shown).await {
            Err(dropped) => {
                note(&who, 0, String::new());
                return Err(dropped);
            }
            Ok(Some(early)) => {
                note(&who, early.status, String::new());
                return Ok(early.into_response());
            }
            Ok(None) => {}
        }
        let request =
            git_http::GitRequest { owner, name, suffix, rest, method: &method, query: &query, headers: &parts.headers };
        let (response, who) = git_http::answer(forge, request, Body::new(body)).await;
        let response = match fault.filter(ApiFaultKind::comes_after) {
            None => Ok(response),
            // Git's work only takes effect once its answer has been read completely.
            Some(fault) => match whole(response).await {
                Ok(reply) => after_doing(Some(&fault), forge, reply).await,
                Err(_) => Err(Dropped),
            },
        };
        note(&who, response.as_ref().map_or(0, |r| r.status().as_u16()), String::new());
        return response;
    }

    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        note("", 413, String::new());
        let reply = Reply::text(413, "the request body is over 64 MiB or broke off\n");
        return Ok(reply.into_response());
    };
    let body = body.to_bytes();
    if let Some(rest) = path.strip_prefix("/_standin/") {
        return Ok(own::answer(forge, &method, rest, &body).await.unwrap_or_else(|reply| reply).into_response());
    }
    let caller = {
        let state = forge.state();
        api::authenticate(&state, &forge.refusals, &parts.headers)
    };
    let who = caller.as_ref().map(|c| c.login.clone()).unwrap_or_default();
    let kept = if withheld(&path) && !body.is_empty() {
        "(withheld)".to_owned()
    } else {
        String::from_utf8_lossy(&body[..body.len().min(BODY_KEPT)]).into_owned()
    };
    let fault = forge.faults.for_request(Surface::Api, &method, &shown, &who);
    match before_doing(forge, fault.as_ref(), &shown).await {
        Err(dropped) => {
            note(&who, 0, kept);
            return Err(dropped);
        }
        Ok(Some(early)) => {
            note(&who, early.status, kept);
            return Ok(early.into_response());
        }
        Ok(None) => {}
    }
    let reply = match caller {
        Err(refusal) => refusal,
        Ok(caller) => {
            let call = Call {
                forge,
                caller,
                method: &method,
                path: &path,
                query: parse_form(&query),
                raw_query: &query,
                headers: &parts.headers,
                body,
            };
            route(&call).await.unwrap_or_else(|refusal| refusal)
        }
    };
    let status = reply.status;
    match after_doing(fault.as_ref(), forge, reply).await {
        Ok(response) => {
            note(&who, response.status().as_u16(), kept);
            Ok(response)
        }
        Err(dropped) => {
            tracing::debug!(status, "an answer was dropped on purpose");
            note(&who, 0, kept);
            Err(dropped)
        }
    }
}

async fn route(call: &Call<'_>) -> Answer {
    if call.path.starts_with("/api/") {
        return api::answer(call).await;
    }
    let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
    match (call.method, parts.as_slice()) {
        ("POST", [owner, name, "issues", "new"]) => issues::open_by_form(call, owner, name),
        ("GET", ["attachments", uuid]) => match issues::download(call.forge, uuid) {
            Some(body) => Ok(Reply { status: 200, content_type: "application/octet-stream", headers: vec![], body }),
            None => Ok(Reply::text(404, "Not found.\n")),
        },
        // A web page, which only exists here to redirect former names.
        (_, [owner, name, ..]) => {
            let found = call.repo(&call.forge.state(), owner, name);
            Err(match found {
                Err(reply) if matches!(reply.status, 301 | 307) => reply,
                _ => Reply::text(404, "Not found.\n"),
            })
        }
        _ => Ok(Reply::text(404, "Not found.\n")),
    }
}

async fn before_doing(forge: &Forge, fault: Option<&ApiFaultKind>, asked: &str) -> Result<Option<Reply>, Dropped> {
    match fault {
        Some(ApiFaultKind::DropBefore) => Err(Dropped),
        Some(ApiFaultKind::Refuse { status, retry_after }) => {
            let reply = Reply::text(*status, "refused on purpose\n");
            Ok(Some(match retry_after {
                Some(seconds) => reply.with("Retry-After", seconds),
                None => reply,
            }))
        }
        Some(ApiFaultKind::Redirect { status, location }) => {
            Ok(Some(Reply::redirect("GET", *status, location.replace("{path}", asked))))
        }
        Some(ApiFaultKind::Page { status }) => Ok(Some(Reply::page(*status))),
        Some(ApiFaultKind::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Ok(None)
        }
        Some(ApiFaultKind::Meanwhile { errands }) => {
            for errand in errands {
                let reply = own::run(forge, errand).await;
                if reply.status >= 300 {
                    let said = String::from_utf8_lossy(&reply.body).into_owned();
                    forge.faults.errand_failed(format!(
                        "{} {} before {asked}: {} {said}",
                        errand.method, errand.path, reply.status
                    ));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Reads an answer completely.
async fn whole(response: Response<Body>) -> Result<Reply, axum::Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let value = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let headers = ["Content-Type", "Cache-Control", "Location", "WWW-Authenticate"]
        .into_iter()
        .filter_map(|n| Some((n, value(n)?)));
    Ok(Reply { status: parts.status.as_u16(), content_type: "", headers: headers.collect(), body })
}

async fn after_doing(fault: Option<&ApiFaultKind>, forge: &Forge, mut reply: Reply) -> Result<Response<Body>, Dropped> {
    match fault {
        Some(ApiFaultKind::DropAfter) => Err(Dropped),
        Some(ApiFaultKind::DelayAfter { ms }) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Ok(reply.into_response())
        }
        Some(ApiFaultKind::FailAfter) => Ok(forge.refusals.say(500, "").into_response()),
        Some(ApiFaultKind::Garbage) => {
            reply.status = 200;
            reply.body = Bytes::from_static(b"<html>\xff\xfe{\"id\": not json at all \x00");
            Ok(reply.into_response())
        }
        Some(ApiFaultKind::HalfBody) => {
            let whole = reply.body.len().max(2);
            let half = if reply.body.is_empty() { Bytes::from_static(b"{") } else { reply.body.slice(..whole / 2) };
            let mut response = reply.into_response();
            let stream = async_stream::stream! {
                yield Ok(half);
                // Gives head and half of the body time to leave: an immediate error would close the connection
                // before anything is sent.
                tokio::time::sleep(Duration::from_millis(30)).await;
                yield Err(std::io::Error::new(
                    std::io::ErrorKind::ConnectionAborted,
                    "broken off on purpose",
                ));
            };
            *response.body_mut() = Body::from_stream(stream);
            response.headers_mut().insert("content-length", whole.into());
            Ok(response)
        }
        _ => Ok(reply.into_response()),
    }
}
