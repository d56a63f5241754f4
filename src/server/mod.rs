//! The door: webhooks over HTTP, and the operator's control socket.

pub mod control;
mod webhook;

use crate::engine::Engine;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a client may take to send a whole delivery.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Deliveries that are read at once; more wait at the socket.
const AT_ONCE: usize = 64;

/// What the handlers share.
#[derive(Clone)]
pub struct Door {
    engine: Arc<Engine>,
    secrets: Arc<Vec<SecretString>>,
    reading: Arc<tokio::sync::Semaphore>,
    body_max: usize,
}

impl Door {
    /// A door for deliveries signed with one of `secrets`.
    pub fn new(engine: Arc<Engine>, secrets: Vec<SecretString>) -> Self {
        let body_max = usize::try_from(engine.context.config.webhook.max_body_bytes).unwrap_or(usize::MAX);
        Self { engine, secrets: Arc::new(secrets), reading: Arc::new(tokio::sync::Semaphore::new(AT_ONCE)), body_max }
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

/// Listens and serves until `stop` is done.
///
/// # Errors
/// Where the address cannot be had.
pub async fn serve(
    address: SocketAddr,
    door: Door,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    serve_on(listener, door, stop).await
}

/// The same on a listener that is there already.
///
/// # Errors
/// Where accepting fails for good.
pub async fn serve_on(
    listener: TcpListener,
    door: Door,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, door.router()).with_graceful_shutdown(stop).await
}

/// Ready: everything that is needed to act is known, and the store takes writes.
async fn ready(State(door): State<Door>) -> (StatusCode, String) {
    if !door.engine.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "waiting for the forge to say who we are\n".to_owned());
    }
    match door.engine.store.transact(|_| Ok(())).await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the registry takes no writes; see the log\n".to_owned()),
    }
}
