//! The daemon's server: webhooks over HTTP, and the operators' control socket.

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

/// How long a client may take for its headers, and again for its body. The forge itself gives up after 5 s in
/// total.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which no byte of a body arrives.
const STALL_MAX: Duration = Duration::from_secs(2);
/// After this time, a body must have made enough progress to be complete within [`READ_TIMEOUT`].
const HEAD_START: Duration = Duration::from_secs(1);
/// Most bytes of bodies that are held at once, over all connections, beyond what each may hold anyway; or twice the
/// largest body, if that is more.
const BUFFERED: usize = 64 * 1024 * 1024;
/// Most connections at once, which together hold at most 64 MiB; or half of the files that this process may open,
/// if that is less.
const CONNECTIONS: usize = 64 * 1024 * 1024 / FREE;
/// How many MiB of bodies that are too large are read to their end, for each source: a sender that is cut off while
/// writing never sees the answer.
const DRAINED: Rate = Rate { burst: 256, per: Duration::from_secs(60) };
/// Most log lines about refused deliveries, for each source.
const COMPLAINTS: Rate = Rate { burst: 3, per: Duration::from_secs(600) };
/// Most sources that are tracked for these two rates.
const SOURCES_MAX: usize = 1024;

/// State that the handlers share.
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
    /// Creates the state for deliveries of hooks whose secrets are derived from `keys`.
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

/// Serves on a listener until `stop` resolves.
///
/// # Errors
/// If accepting connections fails permanently.
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
                    // Usually out of descriptors.
                    tracing::warn!(%error, "a connection could not be accepted; another one is closed for it");
                    crowd.make_place();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // If all connections are being handled, there is no room for another.
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

/// Ready means: we know our own account, the store accepts writes, and at least one of the configured repositories
/// is served. The answer always lists the repositories that are not served.
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
