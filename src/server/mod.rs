//! The door: webhooks over HTTP, and the operator's control socket.

pub mod control;
mod webhook;

use crate::engine::Engine;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a client may take for its headers, and for its body: the forge
/// itself gives up after 5 s in all.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of bodies that are held at once, over all connections, in KiB. Counted
/// as they arrive, so that slow clients hold nothing.
const BUFFERED_KIB: u32 = 128 * 1024;
/// Connections at once; more wait at the socket.
const CONNECTIONS: usize = 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct Door {
    engine: Arc<Engine>,
    secrets: Arc<Vec<SecretString>>,
    buffered: Arc<tokio::sync::Semaphore>,
    body_max: usize,
}

impl Door {
    /// A door for deliveries signed with one of `secrets`.
    pub fn new(engine: Arc<Engine>, secrets: Vec<SecretString>) -> Self {
        let body_max = usize::try_from(engine.context.config.webhook.max_body_bytes).unwrap_or(usize::MAX);
        Self {
            engine,
            secrets: Arc::new(secrets),
            buffered: Arc::new(tokio::sync::Semaphore::new(BUFFERED_KIB as usize)),
            body_max,
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
    door: Door,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = door.router();
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).max_buf_size(64 * 1024);
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: others are closed in a moment.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
    }
    let _ = tokio::time::timeout(READ_TIMEOUT, graceful.shutdown()).await;
    Ok(())
}

/// Ready: it is known who we are, the store takes writes, and at least one of the
/// configured repositories is served. What is missing is named in any case.
async fn ready(State(door): State<Door>) -> (StatusCode, String) {
    if !door.engine.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "waiting for the forge to say who we are\n".to_owned());
    }
    if door.engine.store.transact(|_| Ok(())).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the registry takes no writes; see the log\n".to_owned());
    }
    let known = door.engine.context.known();
    let mut missing = String::new();
    for (name, _) in known.unserved() {
        let _ = writeln!(missing, "not served: {name}; see `lazarus doctor`");
    }
    if known.repos.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("no repository is served\n{missing}"));
    }
    (StatusCode::OK, format!("ready\n{missing}"))
}
