//! The git program on the host's side.
//!
//! It runs with an environment of its own and without hooks, and never in a tree or repository that agents can
//! write. It gets the bot's token through a socket, so the token is in no URL, argument, environment or file.

use crate::failure::Failure;
use crate::host::HostError;
use crate::sandbox::{Doorkeeper, program};
use secrecy::{ExposeSecret as _, SecretString};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time that one git command may take.
const GIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Most bytes of git's output that are read: one line for each of 100,000 files, and more.
const OUTPUT_MAX: u64 = 32 << 20;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Git is not installed, or cannot be executed.
    #[error("git cannot be run ({0}); install git 2.30 or newer")]
    NoGit(std::io::Error),
    /// Git ran and failed.
    #[error("git {what} failed: {words}")]
    Git {
        /// The git command that was tried.
        what: &'static str,
        /// What git printed, without anything secret.
        words: String,
    },
    /// Git took too long and was ended.
    #[error("git {what} took longer than {} s", GIT_TIMEOUT.as_secs())]
    Timeout {
        /// The git command that was tried.
        what: &'static str,
    },
    /// The commit that was asked for is not in the project.
    #[error("the commit {commit} of branch {branch} is not in the repository any more; ask for the cell again")]
    NoCommit {
        /// The hash of the commit.
        commit: String,
        /// The branch that was asked for.
        branch: String,
    },
    /// The probe failed, so it is not known how this host can confine git.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file could not be used.
    #[error("{tried}: {source}")]
    Io {
        /// What was tried.
        tried: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl GitError {
    /// How the caller should react. The forge's answers mean the same here as in its API.
    pub fn failure(&self) -> Failure {
        match self {
            Self::NoGit(_) | Self::NoCommit { .. } => Failure::Lasting,
            Self::Timeout { .. } | Self::Host(_) | Self::Io { .. } => Failure::PASSING,
            Self::Git { words, .. } => failure_of_words(words),
        }
    }

    pub(super) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }
}

/// Classifies git's error output. Git has no other way to say why a forge refused. The texts are those of the C
/// locale. An unknown text is taken for a fault that passes, and is retried as long as patience lasts.
fn failure_of_words(words: &str) -> Failure {
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    // The forge received the objects and then refused them.
    if words.contains("[remote rejected]") {
        // The forge's own trouble: a full disk, or a lock that another push held.
        let of_its_own = says(&["unpacker error", "internal", "cannot lock ref", "failed to update ref", "remote end"]);
        return if of_its_own { Failure::PASSING } else { Failure::Lasting };
    }
    let status = ["returned error: ", "HTTP "].iter().find_map(|lead| {
        let digits: String = words.split_once(lead)?.1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u16>().ok().filter(|status| (300..600).contains(status))
    });
    if let Some(status) = status {
        return Failure::of_status(status, None);
    }
    // Invalid objects will still be invalid at the next attempt.
    if says(&["fsck error", "error in object", "invalid object", "mismatched algorithms"]) {
        return Failure::Lasting;
    }
    // The token, a certificate, or the credential helper that provides the token.
    if says(&["Authentication failed", "could not read Username", "could not read Password", "certificate"]) {
        return Failure::ForPeople;
    }
    if says(&["not found", "couldn't find remote ref", "redirect", "Needed a single revision"]) {
        return Failure::Doubtful;
    }
    Failure::PASSING
}

/// How git reaches the forge.
#[derive(Debug, Clone)]
pub struct GitAccess {
    /// The bot's token.
    pub token: SecretString,
    /// A file with the certificate authorities to trust for the forge; `None` means the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy to use; `None` means a direct connection.
    pub proxy: Option<String>,
    /// The program that git runs to ask for the token; `None` means the running image.
    pub program: Option<PathBuf>,
}

/// A git command without any of the host's configuration.
pub(super) fn git(directory: Option<&Path>) -> Command {
    dress(Command::new("git"), directory)
}

/// The same for any command that itself runs git: sets environment, settings and streams.
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
    // A process group of its own, so that git's helpers end with it: they hold the same pipes.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs git and returns its output, of which at most [`OUTPUT_MAX`] bytes are read.
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

/// Prefix of the names of directories with such a socket.
const CREDENTIAL: &str = ".credential-";

/// A socket that hands the token to git's credential helper, which is this program. It lives for one command. It
/// lies beside the repository, where no cell looks and nobody cleans up while git runs.
pub(super) struct CredentialSocket {
    path: PathBuf,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    program: Option<PathBuf>,
    /// The process group of the confined git that may ask here.
    group: std::sync::Arc<Mutex<Option<rustix::process::Pid>>>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl CredentialSocket {
    /// Opens the socket beside one of our repositories, in a directory that nobody else can enter.
    pub(super) fn open(access: &GitAccess, repository: &Path) -> Result<Self, GitError> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| GitError::io("making a name")(std::io::Error::other(e.to_string())))?;
        let directory = repository.with_file_name(format!("{CREDENTIAL}{}", hex::encode(random)));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&directory)
            .map_err(GitError::io(format!("making {}", directory.display())))?;
        let path = directory.join("token");
        let listener = in_short(&path, |short| UnixListener::bind(short));
        let listener = listener.map_err(GitError::io(format!("making {}", path.display())))?;
        let doorkeeper = Doorkeeper::of_the_daemon().map_err(GitError::io("asking /proc who we are"))?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let group = std::sync::Arc::new(Mutex::new(None));
        let admitted = std::sync::Arc::clone(&group);
        let token = access.token.clone();
        let server = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let group = *admitted.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(who) = doorkeeper.let_in_from(&stream, group) {
                    tracing::warn!(%who, "refused at the socket from which git's helper reads the token");
                    continue;
                }
                let _ = stream.write_all(format!("username=lazarus\npassword={}\n", token.expose_secret()).as_bytes());
            }
        });
        Ok(Self {
            path,
            ca_file: access.ca_file.clone(),
            proxy: access.proxy.clone(),
            program: access.program.clone(),
            group,
            stop,
            server: Some(server),
        })
    }

    /// Starts a confined git, and admits its process group from its first moment until the return value is dropped.
    /// Without this it would be taken for an agent, because it is confined in the same way.
    pub(super) fn admit<E>(
        &self,
        start: impl FnOnce() -> Result<super::confined::Running, E>,
    ) -> Result<(super::confined::Running, Admission<'_>), E> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let running = start()?;
        *group = running.group();
        Ok((running, Admission(self)))
    }

    /// Arguments that make git ask here for a password, and use the right proxy and certificates.
    pub(super) fn settings(&self) -> Result<Vec<String>, GitError> {
        // The same image as this process, whatever its file contains by now.
        let program = self.program.clone().map_or_else(program::path, Ok);
        let program = program.map_err(GitError::io("finding this program's file"))?;
        // Git passes this to a shell, so both paths are in single quotes.
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let helper = format!("credential.helper=!{} git-credential {}", quoted(&program), quoted(&self.path));
        let authorities = self.ca_file.as_ref().map(|file| format!("http.sslCAInfo={}", file.display()));
        let proxy = self.proxy.as_ref().map(|proxy| format!("http.proxy={proxy}"));
        let settings = [Some(helper), authorities, proxy].into_iter().flatten();
        Ok(settings.flat_map(|setting| ["-c".to_owned(), setting]).collect())
    }
}

/// While this lives, the process group may ask for the token.
pub(super) struct Admission<'a>(&'a CredentialSocket);

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        *self.0.group.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Uses a socket under a short path: it may have at most 107 bytes, and through a descriptor of its directory it
/// always fits.
fn in_short<T>(path: &Path, using: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let directory = std::fs::File::open(directory)?;
    using(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

/// Removes what killed git commands left beside the repositories in a directory.
pub fn clear_credentials(repositories: &Path) {
    for entry in std::fs::read_dir(repositories).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(CREDENTIAL) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for CredentialSocket {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let woken = in_short(&self.path, |short| UnixStream::connect(short)).is_ok();
        let _ = std::fs::remove_file(&self.path);
        let _ = self.path.parent().map(std::fs::remove_dir);
        // A thread that cannot be woken, because its socket was removed, is not waited for.
        if let Some(server) = self.server.take().filter(|_| woken) {
            let _ = server.join();
        }
    }
}

/// The client side, `lazarus git-credential SOCKET get`, which git runs.
///
/// # Errors
/// If the socket does not exist.
pub fn credential_helper(socket: &Path, verb: &str) -> std::io::Result<String> {
    let mut text = String::new();
    if verb == "get" {
        in_short(socket, |short| UnixStream::connect(short))?.read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_git_are_sorted_by_whether_trying_again_helps() {
        for passing in [
            "fatal: unable to access 'http://forge/a/b.git/': Could not resolve host: forge",
            "fatal: unable to access 'http://f/': Failed to connect to f port 80: Connection refused",
            "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
            "error: RPC failed; curl 28 Operation too slow. Less than 1000 bytes/sec transferred the last 60 seconds",
            "error: RPC failed; HTTP 503 curl 22 The requested URL returned error: 503",
            "fatal: the remote end hung up unexpectedly",
            " ! [remote rejected] x -> x (unpacker error)",
            "something that nobody has ever seen",
        ] {
            assert_eq!(failure_of_words(passing), Failure::PASSING, "{passing}");
        }
        for lasting in [
            " ! [remote rejected] x -> x (pre-receive hook declined)",
            " ! [remote rejected] x -> x (Not allowed to push to protected branch x)",
            "error: object 0123: duplicateEntries: contains duplicate file entries\nfatal: fsck error in packed object",
        ] {
            assert_eq!(failure_of_words(lasting), Failure::Lasting, "{lasting}");
        }
        for people in [
            "fatal: Authentication failed for 'http://f/'",
            "fatal: unable to access 'https://f/': server certificate verification failed. CAfile: none CRLfile: none",
            "fatal: unable to access 'http://f/a/b.git/': The requested URL returned error: 401",
        ] {
            assert_eq!(failure_of_words(people), Failure::ForPeople, "{people}");
        }
        for doubtful in
            ["fatal: repository 'http://f/a/b.git/' not found", "fatal: couldn't find remote ref refs/heads/x"]
        {
            assert_eq!(failure_of_words(doubtful), Failure::Doubtful, "{doubtful}");
        }
    }
}
