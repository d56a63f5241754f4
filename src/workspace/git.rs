//! The git program on the host's side.
//!
//! It runs with an environment of its own, without hooks, and never in a tree
//! or repository that agents can write. The bot's token reaches it through a
//! socket: it is in no address, no argument, no environment and no file.

use secrecy::{ExposeSecret as _, SecretString};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for one git command.
const GIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Most of what git prints that is read, in bytes: a line for each of 100,000
/// files, and more.
const OUTPUT_MAX: u64 = 32 << 20;

/// Why git did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git is not there.
    #[error("git cannot be run ({0}); install git 2.30 or newer")]
    NoGit(std::io::Error),
    /// git refused.
    #[error("git {what} failed: {words}")]
    Git {
        /// What was tried.
        what: &'static str,
        /// Its words, without anything secret.
        words: String,
    },
    /// It took too long.
    #[error("git {what} took longer than {} s", GIT_TIMEOUT.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
    },
    /// A file could not be used.
    #[error("{tried}: {source}")]
    Io {
        /// What was tried.
        tried: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl GitError {
    /// Whether the same may well succeed later, with nobody changing anything:
    /// the forge's answers that are final are not such.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoGit(_) => false,
            Self::Timeout { .. } | Self::Io { .. } => true,
            Self::Git { words, .. } => Self::is_transient_words(words),
        }
    }

    /// The same of git's words about a forge: what it refused it refuses again.
    pub(super) fn is_transient_words(words: &str) -> bool {
        !["returned error: 4", "[remote rejected]", "Authentication failed", "not found"]
            .iter()
            .any(|word| words.contains(word))
    }

    pub(super) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }
}

/// The git program with nothing of the host's about it.
pub(super) fn git(directory: Option<&Path>) -> Command {
    dress(Command::new("git"), directory)
}

/// The same for what runs git in its turn: environment, settings, streams.
pub(super) fn dress(mut command: Command, directory: Option<&Path>) -> Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
        ("LC_ALL", "C"),
        ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
        ("GIT_HTTP_LOW_SPEED_TIME", "60"),
    ] {
        command.env(name, value);
    }
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "credential.helper=",
        "protocol.allow=never",
        "protocol.http.allow=always",
        "protocol.https.allow=always",
        "http.followRedirects=false",
        "gc.auto=0",
        "maintenance.auto=false",
        "safe.directory=*",
        "advice.detachedHead=false",
        "init.defaultBranch=main",
    ] {
        command.arg("-c").arg(setting);
    }
    if let Some(directory) = directory {
        command.arg("-C").arg(directory);
    }
    // Its helpers are ended with it: they hold the same pipes.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs git and returns what it printed, at most [`OUTPUT_MAX`] bytes of it.
pub(super) fn run(what: &'static str, command: &mut Command) -> Result<String, GitError> {
    let mut child = command.spawn().map_err(GitError::NoGit)?;
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let read = |stream: Option<&mut (dyn std::io::Read + Send)>| {
        let mut text = vec![];
        if let Some(stream) = stream {
            let _ = (&mut *stream).take(OUTPUT_MAX).read_to_end(&mut text);
            let _ = std::io::copy(stream, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let words = scope.spawn(|| read(err.as_mut().map(|e| e as &mut (dyn std::io::Read + Send))));
        let answer = scope.spawn(|| read(out.as_mut().map(|o| o as &mut (dyn std::io::Read + Send))));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(GitError::io(format!("waiting for git {what}")))? {
                break status;
            }
            if started.elapsed() > GIT_TIMEOUT {
                if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                return Err(GitError::Timeout { what });
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let answer = answer.join().unwrap_or_default();
        let words = words.join().unwrap_or_default();
        if status.success() {
            Ok(answer)
        } else {
            let words: String = words.trim().chars().rev().take(500).collect::<Vec<_>>().into_iter().rev().collect();
            Err(GitError::Git { what, words: crate::publication::redaction::redact(&words).0 })
        }
    })
}

/// Hands the token to git's credential helper, which is this program: it
/// connects and reads. Lives for one command.
pub(super) struct CredentialSocket {
    path: PathBuf,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl CredentialSocket {
    /// Opens it, in a directory that nobody else can enter.
    pub(super) fn open(token: &SecretString) -> Result<Self, GitError> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| GitError::io("making a name")(std::io::Error::other(e.to_string())))?;
        // A socket's path has at most 107 bytes, so not below the data
        // directory; in one of its own that nobody else can enter.
        let directory = std::env::temp_dir().join(format!("lazarus-{}", hex::encode(random)));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&directory)
            .map_err(GitError::io(format!("making {}", directory.display())))?;
        let path = directory.join("token");
        let listener = UnixListener::bind(&path).map_err(GitError::io(format!("making {}", path.display())))?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let token = token.clone();
        let server = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let _ = stream.write_all(format!("username=lazarus\npassword={}\n", token.expose_secret()).as_bytes());
            }
        });
        Ok(Self { path, stop, server: Some(server) })
    }

    /// The setting with which git asks here for a password.
    pub(super) fn setting(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| "lazarus".into());
        // git gives this to a shell: both paths in single quotes.
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        format!("credential.helper=!{} git-credential {}", quoted(&program), quoted(&self.path))
    }
}

impl Drop for CredentialSocket {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        let _ = self.path.parent().map(std::fs::remove_dir);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// The other end: `lazarus git-credential SOCKET get`, run by git.
///
/// # Errors
/// Where the socket is not there.
pub fn credential_helper(socket: &Path, verb: &str) -> std::io::Result<String> {
    let mut text = String::new();
    if verb == "get" {
        UnixStream::connect(socket)?.read_to_string(&mut text)?;
    }
    Ok(text)
}
