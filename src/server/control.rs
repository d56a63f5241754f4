//! The control socket: operators send commands to the running daemon through it. It lies in the data directory,
//! which only the daemon's user can enter. Each peer is checked nevertheless, so that no process of a cell can give
//! orders here ([`Doorkeeper`]).

use crate::engine::Engine;
use crate::operations::{Answer, Request};
use crate::sandbox::{Doorkeeper, Stranger};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// Longest request, in bytes.
const REQUEST_MAX: u64 = 1 << 20;
/// How long a client may take to send its request.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client waits for the outcome of an operator's command.
pub const WAIT: Duration = Duration::from_secs(120);

/// Serves operators until its task is aborted.
///
/// # Errors
/// If the socket cannot be created.
pub async fn serve(engine: Arc<Engine>, data: &Path) -> std::io::Result<()> {
    let directory = std::fs::File::open(data)?;
    // Opened through the directory's descriptor, because a socket's path must be short.
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let doorkeeper = Doorkeeper::of_the_daemon()?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually out of descriptors; other connections will close soon.
                tracing::warn!(%error, "a connection to the control socket could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Checked at once, while the peer's process is still alive.
        let let_in = doorkeeper.let_in(&stream);
        if let Err(who) = &let_in
            && let Some(others) = doorkeeper.should_say()
        {
            tracing::warn!(%who, others, "refused at the control socket");
        }
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let _ = answer(stream, let_in, &engine).await;
        });
    }
}

async fn answer(stream: UnixStream, let_in: Result<(), Stranger>, engine: &Engine) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    // Read even if the peer is refused: closing a socket with unread input would lose the answer.
    tokio::time::timeout(READ_MAX, BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line)).await??;
    let answer = match (let_in, serde_json::from_str::<Request>(&line)) {
        (Err(who), _) => Answer::refused(format!("the daemon takes no orders from {who}")),
        (Ok(()), Ok(request)) => request.run(engine, WAIT).await,
        (Ok(()), Err(error)) => Answer::refused(format!("the request cannot be read: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Sends a request to the running daemon and returns its answer.
///
/// # Errors
/// If the daemon does not answer.
pub async fn ask(data: &Path, request: &Request) -> std::io::Result<Answer> {
    let directory = std::fs::File::open(data)?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())).await?;
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
