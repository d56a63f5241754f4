//! `lazarus serve`: the daemon.

use crate::config::Config;
use crate::engine::Engine;
use crate::server::{self, WebhookState};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Writes log lines to standard error; `LAZARUS_LOG` says how much.
pub fn install_log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LAZARUS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init();
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// Where something it needs is missing; the message says what to do.
pub fn run(config: Config) -> anyhow::Result<()> {
    install_log("info");
    // The daemon's memory and environment hold secrets: no core file, and no
    // look into them by other processes of the same user.
    crate::sandbox::not_dumpable()?;
    super::runtime()?.block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        serve_until(config, None, async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}

/// Serves until `stop` is done; cells go on. On `listener`, where one is given.
///
/// # Errors
/// As [`run`].
pub async fn serve_until(
    config: Config,
    listener: Option<TcpListener>,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    config.ready_to_serve()?;
    let keys = server::Keys::read(config.webhook.secret.clone())?;
    let listener = match listener {
        Some(listener) => listener,
        None => TcpListener::bind(config.webhook.listen).await.map_err(|e| {
            anyhow::anyhow!(
                "listening on {} (webhook.listen): {e}; stop what has it, or choose another",
                config.webhook.listen
            )
        })?,
    };
    serve_engine(Engine::open(config)?, keys, listener, stop).await
}

/// The same for an engine that is open.
///
/// # Errors
/// Where the listener cannot be asked for its address.
pub async fn serve_engine(
    engine: Arc<Engine>,
    keys: server::Keys,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let data = engine.context.config.paths.data.clone();
    let address = listener.local_addr()?;
    tracing::info!(%address, data = %data.display(), "lazarus serves");
    let (send, receive) = tokio::sync::watch::channel(false);
    let stopped = |mut receive: tokio::sync::watch::Receiver<bool>| async move {
        let _ = receive.wait_for(|s| *s).await;
    };
    let running = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.run(true).await })
    };
    let state =
        tokio::spawn(server::serve_on(listener, WebhookState::new(Arc::clone(&engine), keys), stopped(receive)));
    let control = {
        let (engine, data) = (Arc::clone(&engine), data.clone());
        tokio::spawn(async move {
            if let Err(error) = server::control::serve(engine, &data).await {
                tracing::error!(%error, "the control socket is not there; the command line cannot reach this daemon");
            }
        })
    };
    let hooks = tokio::spawn(super::hooks::warn(Arc::clone(&engine)));
    stop.await;
    tracing::info!("stopping; cells go on");
    hooks.abort();
    let _ = send.send(true);
    engine.stop();
    control.abort();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), state).await;
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), running).await;
    let _ = std::fs::remove_file(data.join(server::control::SOCKET));
    Ok(())
}
