//! Where a secret is found. The configuration holds the location and never the value, because configuration files
//! are shown, copied into tickets, and backed up.

use secrecy::SecretString;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Largest secret that is read, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// How long a program may take to print a secret.
pub const COMMAND_MAX: Duration = Duration::from_secs(10);

/// The location of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// Not configured. Holds the missing key, such as `forge.token`.
    Unset(String),
    /// In this file.
    File(PathBuf),
    /// In this environment variable of the process that reads it.
    Env(String),
    /// In the systemd credential of this name (`LoadCredential=`).
    Credential(String),
    /// Printed by this program: its path and its arguments, run without a shell.
    Command(Vec<String>),
}

/// Why a secret could not be read. Names the location, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No location is configured.
    #[error("{key} is not configured; set {key}_file, {key}_env, {key}_credential or {key}_command")]
    Unset {
        /// The key without its suffix.
        key: String,
    },
    /// The file could not be opened or read.
    #[error("cannot read the secret file {}: {source}; it must be a file that this user can read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path is not a regular file.
    #[error("the secret file {} is not a regular file; give a plain file", path.display())]
    NotAFile {
        /// The path that was opened.
        path: PathBuf,
    },
    /// Another user can replace the secret in this file.
    #[error(
        "the secret file {} can be written by others (mode {mode:04o}, owner {owner}); \
         it must belong to root or to this user, with `chmod 600`", path.display()
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// The secret is longer than [`MAX_SECRET_BYTES`].
    #[error("the secret in {place} is longer than {MAX_SECRET_BYTES} bytes; is it the right one?")]
    TooLong {
        /// The location.
        place: String,
    },
    /// The secret is empty, or only a newline.
    #[error("the secret in {place} is empty; put the secret there")]
    Empty {
        /// The location.
        place: String,
    },
    /// The secret is not UTF-8, or contains a NUL.
    #[error("the secret in {place} is not text (UTF-8 without NUL)")]
    NotText {
        /// The location.
        place: String,
    },
    /// The environment variable is not set.
    #[error("the environment variable {name} is not set; set it for this process, or give the secret by file")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The program that should print the secret failed.
    #[error("the command `{program}` did not give the secret: {why}; run it by hand as this user")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What went wrong.
        why: String,
    },
    /// The process was not started by systemd with credentials.
    #[error(
        "no systemd credential `{name}`: $CREDENTIALS_DIRECTORY is not set; \
         add `LoadCredential={name}:/path` to the unit, or give the secret by file"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
}

impl SecretSource {
    /// Whether a location is configured.
    pub fn is_set(&self) -> bool {
        !matches!(self, Self::Unset(_))
    }

    /// Reads the secret: UTF-8 text of at most [`MAX_SECRET_BYTES`], without one trailing newline. Logs a warning
    /// if everybody can read the file.
    ///
    /// # Errors
    /// If it is missing, empty or not text, or if other users could have put it there.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        self.read_from(&|name| std::env::var_os(name))
    }

    /// Does the same with another environment.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_from(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<SecretString, SecretError> {
        match self {
            Self::Unset(key) => Err(SecretError::Unset { key: key.clone() }),
            Self::File(path) => read_file(path),
            Self::Env(name) => {
                let value = environment(name).ok_or_else(|| SecretError::NoVariable { name: name.clone() })?;
                let value = Zeroizing::new(value.into_encoded_bytes());
                secret_text(&value, &self.to_string())
            }
            Self::Credential(name) => {
                let directory = environment("CREDENTIALS_DIRECTORY")
                    .filter(|directory| !directory.is_empty())
                    .ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                read_file(&Path::new(&directory).join(name))
            }
            Self::Command(argv) => {
                let program = argv.first().map_or("", String::as_str);
                let printed = run(argv)
                    .map_err(|why| SecretError::Command { program: program.to_owned(), why: why.to_string() })?;
                secret_text(&printed, &self.to_string())
            }
        }
    }
}

impl fmt::Display for SecretSource {
    /// The location, as `config show` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(_) => f.write_str("not set"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
            // Arguments are not shown, because they may contain an account's name.
            Self::Command(argv) => write!(f, "command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

/// Runs a program and returns what it prints within [`COMMAND_MAX`]. Its standard error is discarded, because it
/// may also contain the secret.
fn run(argv: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("there is none"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take();
    let (send, printed) = std::sync::mpsc::channel();
    // The thread is left behind if a process that the program started keeps its end of the pipe open.
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 2));
        let read = output.map_or(Ok(0), |output| output.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes));
        let _ = send.send(read.map(|_| bytes));
    });
    let until = Instant::now() + COMMAND_MAX;
    let late = || io::Error::other(format!("it did not end within {} s", COMMAND_MAX.as_secs()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // It may also have printed more than we read, and be blocked on the pipe.
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Err(late());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let printed = printed.recv_timeout(until.saturating_duration_since(Instant::now())).map_err(|_| late())??;
    // A program that printed too much could not finish; the caller reports that by the length.
    if status.success() || printed.len() as u64 > MAX_SECRET_BYTES {
        Ok(printed)
    } else {
        Err(io::Error::other(format!("it ended with {status}")))
    }
}

fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    use std::os::unix::fs::OpenOptionsExt;
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    // Opened without blocking: a FIFO at this path must not hang the daemon's start.
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(unreadable)?;
    // Read from the open file, so that nobody can change it in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & 0o022 != 0 || (owner != 0 && owner != rustix::process::geteuid().as_raw()) {
        return Err(SecretError::WritableByOthers { path: path.to_owned(), mode, owner });
    }
    if mode & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "everybody on this machine can read this secret file; chmod 600");
    }
    // Allocated at full size: a growing buffer would leave copies of the secret in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 2));
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    secret_text(&bytes, &format!("file {}", path.display()))
}

fn secret_text(bytes: &[u8], place: &str) -> Result<SecretString, SecretError> {
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLong { place: place.to_owned() });
    }
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| SecretError::NotText { place: place.to_owned() })?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.trim().is_empty() {
        return Err(SecretError::Empty { place: place.to_owned() });
    }
    // Allocated at exactly the right size, so that boxing it leaves no copy.
    Ok(SecretString::from(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, SecretSource) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, SecretSource::File(path))
    }

    #[test]
    fn exactly_one_trailing_newline_is_taken_off() {
        for (text, want) in
            [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\nb\n\n", "a\nb\n")]
        {
            let (_directory, source) = file(text.as_bytes(), 0o600);
            assert_eq!(source.read().unwrap().expose_secret(), want);
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        for mode in [0o620, 0o602, 0o666] {
            let (_directory, source) = file(b"s3cret", mode);
            let error = source.read().unwrap_err();
            assert!(matches!(error, SecretError::WritableByOthers { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 600"));
        }
        let (_directory, source) = file(b"s3cret", 0o640);
        assert!(source.read().is_ok(), "a group that reads is how services are set up");
    }

    #[test]
    fn empty_binary_and_huge_secrets_are_refused() {
        let huge = vec![b'x'; MAX_SECRET_BYTES as usize + 1];
        for text in [&b""[..], b"\n", b"  \n", b"a\0b", b"\xff\xfe", &huge] {
            let (_directory, source) = file(text, 0o600);
            assert!(source.read().is_err());
        }
        let most = vec![b'x'; MAX_SECRET_BYTES as usize];
        let (_directory, source) = file(&most, 0o600);
        assert!(source.read().is_ok());
    }

    #[test]
    fn what_is_not_a_plain_file_neither_hangs_nor_is_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(SecretSource::File(directory.path().to_owned()).read().is_err());
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(SecretSource::File(fifo).read(), Err(SecretError::NotAFile { .. })));
    }

    #[test]
    fn a_command_gives_what_it_prints_and_its_failure_is_named_without_its_words() {
        let command = |script: &str| SecretSource::Command(["sh", "-c", script].map(str::to_owned).into());
        assert_eq!(command("echo s3cret").read().unwrap().expose_secret(), "s3cret");
        for (script, why) in [
            ("echo half-a-s3cret; exit 3", "exit status: 3"),
            ("true", "empty"),
            ("yes | head -c 100000", "longer"),
            ("echo s3cret >&2; exit 1", "exit status: 1"),
        ] {
            let error = command(script).read().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{script}: {error}");
        }
        assert!(SecretSource::Command(vec!["/nonexistent".into()]).read().is_err());
        assert_eq!(command("echo s3cret").to_string(), "command sh");
    }

    #[test]
    fn variables_and_credentials_are_read_and_their_absence_is_named() {
        let (directory, _) = file(b"from-systemd\n", 0o400);
        let environment = |name: &str| match name {
            "FORGE_TOKEN" => Some(OsString::from("from-env")),
            "CREDENTIALS_DIRECTORY" => Some(directory.path().into()),
            _ => None,
        };
        let read = |source: SecretSource| source.read_from(&environment).map(|s| s.expose_secret().to_owned());
        assert_eq!(read(SecretSource::Env("FORGE_TOKEN".into())).unwrap(), "from-env");
        assert_eq!(read(SecretSource::Credential("secret".into())).unwrap(), "from-systemd");
        assert!(read(SecretSource::Env("OTHER".into())).unwrap_err().to_string().contains("OTHER"));
        assert!(read(SecretSource::Credential("other".into())).is_err());
        let error = SecretSource::Credential("x".into()).read_from(&|_| None).unwrap_err();
        assert!(error.to_string().contains("LoadCredential=x"));
        let error = read(SecretSource::Unset("forge.token".into())).unwrap_err();
        assert!(error.to_string().contains("forge.token_file"));
    }
}
