//! The control socket: an operator's commands for a daemon that runs. It lies
//! in the data directory, which only its user can enter.

use crate::engine::Engine;
use crate::operations::{Answer, Request};
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
/// Longest that an operator's command is waited for.
pub const WAIT: Duration = Duration::from_secs(120);

/// Serves operators until the task is ended.
///
/// # Errors
/// Where the socket cannot be made.
pub async fn serve(engine: Arc<Engine>, data: &Path) -> std::io::Result<()> {
    let directory = std::fs::File::open(data)?;
    // Through the directory's descriptor, because a socket's path is short.
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let _ = answer(stream, &engine).await;
        });
    }
}

async fn answer(stream: UnixStream, engine: &Engine) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request.run(engine, WAIT).await,
        Err(error) => Answer::refused(format!("the request cannot be read: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks a daemon that runs.
///
/// # Errors
/// Where it does not answer.
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
