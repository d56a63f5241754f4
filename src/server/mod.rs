//! The door: webhooks over HTTP, and the operator's control socket.

pub mod control;
mod crowd;
mod keys;
mod webhook;

pub use keys::Keys;

use crate::engine::Engine;
use crate::pace::{Pace, Rate};
use axum::Extension;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use crowd::{Crowd, FREE, Room};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a client may take for its headers, and for its body: the forge
/// itself gives up after 5 s in all.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing of a body may arrive.
const STALL_MAX: Duration = Duration::from_secs(2);
/// After this time a body must be as far as one that is whole in
/// [`READ_TIMEOUT`].
const HEAD_START: Duration = Duration::from_secs(1);
/// Bytes of bodies that are held at once, over all connections, beyond what
/// each connection may hold anyway; or twice the largest body, if that is more.
const BUFFERED: usize = 64 * 1024 * 1024;
/// Connections at once, which hold 64 MiB at most; or half of the files that
/// this process may have open, if that is less.
const CONNECTIONS: usize = 64 * 1024 * 1024 / FREE;
/// Of bodies that are too large, how many MiB of one source are read to their
/// end: a sender that is cut off in the middle of writing never sees the answer.
const DRAINED: Rate = Rate { burst: 256, per: Duration::from_secs(60) };
/// Lines in the log about refused deliveries, for each source.
const COMPLAINTS: Rate = Rate { burst: 3, per: Duration::from_secs(600) };
/// Sources that are told apart for these two.
const SOURCES_MAX: usize = 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct WebhookState {
    engine: Arc<Engine>,
    keys: Arc<Keys>,
    crowd: Arc<Crowd>,
    body_max: usize,
    drained: Arc<Mutex<Pace>>,
    complaints: Arc<Mutex<Pace>>,
}

impl WebhookState {
    /// A door for deliveries of hooks whose secrets are derived from `keys`.
    pub fn new(engine: Arc<Engine>, keys: Keys) -> Self {
        let body_max = usize::try_from(engine.context.config.webhook.max_body_bytes).unwrap_or(usize::MAX);
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let room =
            Room { connections: CONNECTIONS.min(files / 2).max(1), bytes: BUFFERED.max(body_max.saturating_mul(2)) };
        Self {
            engine,
            keys: Arc::new(keys),
            crowd: Crowd::new(room),
            body_max,
            drained: Arc::new(Mutex::new(Pace::new(DRAINED, SOURCES_MAX))),
            complaints: Arc::new(Mutex::new(Pace::new(COMPLAINTS, SOURCES_MAX))),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let path = self.engine.context.config.webhook.path.clone();
        Router::new()
            .route(&path, post(webhook::receive))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }
}

/// Serves on a listener until `stop` is done.
///
/// # Errors
/// Where accepting fails for good.
pub async fn serve_on(
    listener: TcpListener,
    state: WebhookState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let crowd = Arc::clone(&state.crowd);
    let router = state.router();
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).max_buf_size(64 * 1024);
    tokio::pin!(stop);
    loop {
        let (stream, from) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly.
                    tracing::warn!(%error, "a connection could not be accepted; another one is closed for it");
                    crowd.make_place();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // Where everybody is being seen to, there is nothing to do for more.
        let Ok(visitor) = crowd.enter(from.ip().into()) else { continue };
        let visitor = Arc::new(visitor);
        let service = TowerToHyperService::new(router.clone().layer(Extension(Arc::clone(&visitor))));
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = visitor.has_to_go() => {}
            }
        });
    }
    let _ = tokio::time::timeout(READ_TIMEOUT, graceful.shutdown()).await;
    Ok(())
}

/// Ready: it is known who we are, the store takes writes, and at least one of the
/// configured repositories is served. What is missing is named in any case.
async fn ready(State(state): State<WebhookState>) -> (StatusCode, String) {
    if !state.engine.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "waiting for the forge to say who we are\n".to_owned());
    }
    if state.engine.store.transact(|_| Ok(())).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the registry takes no writes; see the log\n".to_owned());
    }
    let known = state.engine.context.forge_identity();
    let mut missing = String::new();
    for (name, _) in known.unserved() {
        let _ = writeln!(missing, "not served: {name}; see `lazarus doctor`");
    }
    if known.repos.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("no repository is served\n{missing}"));
    }
    (StatusCode::OK, format!("ready\n{missing}"))
}
