//! The control socket: operators send commands to the running daemon through it. It lies in the data directory,
//! which only the daemon's user can enter. Each peer is checked nevertheless, so that no process of a cell can give
//! orders here ([`Doorkeeper`]).
//!
//! One connection carries one [`Call`] and one answer, each a line of JSON with the
//! version of the protocol. A program and a daemon whose versions differ say so, and do
//! nothing.

use crate::engine::Engine;
use crate::operations::{Answer, Caller, Request, perform};
use crate::sandbox::{Doorkeeper, Stranger};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The version of what is said over the socket. It goes up whenever [`Request`] or
/// [`Answer`] change so that an older program would misread them. Version 1 had no number.
pub const PROTOCOL: u64 = 2;
/// Longest request, in bytes.
const REQUEST_MAX: u64 = 1 << 20;
/// How long a client may take to send its request.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client waits for the outcome of an operator's command.
pub const WAIT: Duration = Duration::from_secs(120);

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// The system account.
    pub by: String,
    /// What is asked.
    pub request: Request,
}

/// Why a daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It could not be reached.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is of another version of Lazarus.
    #[error(
        "the daemon that runs is of another version of Lazarus (it speaks version {daemon} of the control protocol, this program {PROTOCOL}): restart the daemon with this program, or use the program that the daemon runs"
    )]
    OtherVersion {
        /// What it speaks.
        daemon: u64,
    },
}

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
    let reply = match let_in {
        Err(who) => reply(&Answer::refused(format!("the daemon takes no orders from {who}"))),
        Ok(()) => match read_call(&line) {
            Ok(call) => {
                let caller = Caller::Operator { account: call.by };
                reply(&perform(engine, &caller, call.request, WAIT).await)
            }
            // In the form of version 1 as well: that program shows the message.
            Err(message) => json!({"protocol": PROTOCOL, "success": false, "message": message}),
        },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    write.write_all(&text).await
}

fn reply(answer: &Answer) -> Value {
    json!({"protocol": PROTOCOL, "answer": answer})
}

fn read_call(line: &str) -> Result<Call, String> {
    let cannot = |error: serde_json::Error| format!("the request cannot be read: {error}");
    let value: Value = serde_json::from_str(line).map_err(cannot)?;
    match protocol_of(&value) {
        PROTOCOL => serde_json::from_value(value).map_err(cannot),
        other => Err(format!(
            "the program that asks is of another version of Lazarus (it speaks version {other} of the control protocol, this daemon {PROTOCOL}): use the program that the daemon runs, or restart the daemon"
        )),
    }
}

fn protocol_of(value: &Value) -> u64 {
    value.get("protocol").and_then(Value::as_u64).unwrap_or(1)
}

/// Asks a daemon that runs.
///
/// # Errors
/// Where it does not answer, or is of another version.
pub async fn ask(data: &Path, call: &Call) -> Result<Answer, AskError> {
    let directory = std::fs::File::open(data)?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())).await?;
    let (read, mut write) = stream.into_split();
    let mut sent = json!(call);
    sent["protocol"] = json!(PROTOCOL);
    let mut text = serde_json::to_vec(&sent).map_err(std::io::Error::from)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    let mut reply: Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
    let daemon = protocol_of(&reply);
    if daemon != PROTOCOL {
        return Err(AskError::OtherVersion { daemon });
    }
    match reply.get_mut("answer") {
        Some(answer) => Ok(serde_json::from_value(answer.take()).map_err(std::io::Error::from)?),
        // It could not read what was asked, and says so.
        None => Ok(Answer::refused(reply.get("message").and_then(Value::as_str).unwrap_or("it does not say why"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_version_is_told_so() {
        let old = r#"{"by":"root","command":{"verb":"pause","cell":null},"mission":null,"cell":null}"#;
        let words = read_call(old).unwrap_err();
        assert!(words.contains("version 1") && words.contains("this daemon 2"), "{words}");
        let newer = r#"{"protocol":3,"by":"root","request":{"operation":"dance"}}"#;
        assert!(read_call(newer).unwrap_err().contains("version 3"));
        let call = Call { by: "root".to_owned(), request: Request::ListPins };
        let mut sent = json!(call);
        sent["protocol"] = json!(PROTOCOL);
        assert_eq!(read_call(&sent.to_string()).unwrap().request, Request::ListPins);
    }
}
