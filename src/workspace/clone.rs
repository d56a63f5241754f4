//! Cloning a project into a cell.
//!
//! A bare mirror of each project stays on the host; cells get their clone from
//! it. Git on the host's side runs with an environment of its own, without
//! hooks, and gets the bot's token through a socket: it is in no address, no
//! argument, no environment and no file.

use super::home::make_directory;
use secrecy::{ExposeSecret as _, SecretString};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for one git command.
const GIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Why there is no clone.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
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

impl CloneError {
    fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }
}

/// A clone that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out.
    pub commit: String,
    /// The branch it is on.
    pub branch: String,
}

/// The git program with nothing of the host's about it.
fn git(directory: Option<&Path>) -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
        ("LC_ALL", "C"),
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
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(what: &'static str, command: &mut Command) -> Result<String, CloneError> {
    let mut child = command.spawn().map_err(CloneError::NoGit)?;
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let read = |stream: Option<&mut (dyn std::io::Read + Send)>| {
        let mut text = vec![];
        if let Some(stream) = stream {
            let _ = stream.take(1 << 20).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let words = scope.spawn(|| read(err.as_mut().map(|e| e as &mut (dyn std::io::Read + Send))));
        let answer = scope.spawn(|| read(out.as_mut().map(|o| o as &mut (dyn std::io::Read + Send))));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(CloneError::io(format!("waiting for git {what}")))? {
                break status;
            }
            if started.elapsed() > GIT_TIMEOUT {
                let _ = child.kill();
                let _ = child.wait();
                return Err(CloneError::Timeout { what });
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let answer = answer.join().unwrap_or_default();
        let words = words.join().unwrap_or_default();
        if status.success() {
            Ok(answer)
        } else {
            let words: String = words.trim().chars().rev().take(500).collect::<Vec<_>>().into_iter().rev().collect();
            Err(CloneError::Git { what, words: crate::publication::redaction::redact(&words).0 })
        }
    })
}

/// Brings the mirror up to date and clones it to `target`. A clone that is
/// there already stays as it is.
///
/// # Errors
/// Where git cannot be run, or the forge does not give the project.
pub fn clone_project(
    mirrors: &Path,
    repo_id: i64,
    url: &str,
    token: &SecretString,
    branch: &str,
    target: &Path,
) -> Result<Cloned, CloneError> {
    if !target.join(".git").is_dir() {
        let mirror = mirrors.join(format!("{repo_id}.git"));
        refresh(&mirror, url, token)?;
        // Cloned beside its place and moved there, so that half a clone is
        // never taken for one.
        let new = target.with_extension("new");
        super::scrub(&new).map_err(CloneError::io(format!("removing {}", new.display())))?;
        run(
            "clone",
            git(None)
                .args(["-c", "protocol.file.allow=always", "clone", "--quiet", "--no-hardlinks", "--single-branch"])
                .args(["--no-recurse-submodules", "--template=", "--branch"])
                .arg(branch)
                .arg("--")
                .arg(&mirror)
                .arg(&new),
        )?;
        // Neither the mirror's path nor any remote is the cell's business.
        run("remote", git(Some(&new)).args(["remote", "remove", "origin"]))?;
        std::fs::rename(&new, target).map_err(CloneError::io(format!("moving the clone to {}", target.display())))?;
    }
    let commit = run("rev-parse", git(Some(target)).args(["rev-parse", "--verify", "HEAD"]))?;
    Ok(Cloned { commit: commit.trim().to_owned(), branch: branch.to_owned() })
}

fn refresh(mirror: &Path, url: &str, token: &SecretString) -> Result<(), CloneError> {
    if !mirror.join("HEAD").exists() {
        make_directory(mirror, 0o700).map_err(|e| CloneError::io(e.tried)(e.source))?;
        run("init", git(None).args(["init", "--quiet", "--bare", "--template="]).arg(mirror))?;
    }
    let socket = CredentialSocket::open(token)?;
    run(
        "fetch",
        git(Some(mirror))
            .arg("-c")
            .arg(format!("credential.helper={}", socket.helper()))
            .args(["fetch", "--quiet", "--prune", "--no-tags", "--force", "--no-write-fetch-head"])
            .arg("--")
            .arg(url)
            .arg("+refs/heads/*:refs/heads/*"),
    )?;
    Ok(())
}

/// Hands the token to git's credential helper, which is this program: it
/// connects and reads. Lives for one command.
struct CredentialSocket {
    path: PathBuf,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl CredentialSocket {
    fn open(token: &SecretString) -> Result<Self, CloneError> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| CloneError::io("making a name")(std::io::Error::other(e.to_string())))?;
        // A socket's path has at most 107 bytes, so not below the data
        // directory; in one of its own that nobody else can enter.
        let directory = std::env::temp_dir().join(format!("lazarus-{}", hex::encode(random)));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&directory)
            .map_err(CloneError::io(format!("making {}", directory.display())))?;
        let path = directory.join("token");
        let listener = UnixListener::bind(&path).map_err(CloneError::io(format!("making {}", path.display())))?;
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

    fn helper(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| "lazarus".into());
        // git gives this to a shell: both paths in single quotes.
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        format!("!{} git-credential {}", quoted(&program), quoted(&self.path))
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
