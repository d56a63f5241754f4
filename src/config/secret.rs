//! Where a secret is to be had. The configuration holds the place, never the
//! value: a configuration file is shown, copied into tickets, and backed up.

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

/// The largest secret that is read, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// How long a program may take that prints a secret.
pub const COMMAND_MAX: Duration = Duration::from_secs(10);

/// The place of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// Nowhere yet; the key that is missing, such as `forge.token`.
    Unset(String),
    /// This file.
    File(PathBuf),
    /// The environment variable of this name, of the process that reads it.
    Env(String),
    /// The systemd credential of this name (`LoadCredential=`).
    Credential(String),
    /// What this program prints: its file and its arguments, without a shell.
    Command(Vec<String>),
}

/// Why a secret could not be read. Names the place, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No place is configured.
    #[error("{key} is not configured; set {key}_file, {key}_env, {key}_credential or {key}_command")]
    Unset {
        /// The key without its ending.
        key: String,
    },
    /// The file could not be opened or read.
    #[error("cannot read the secret file {}: {source}; it must be a file that this user can read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("the secret file {} is not a regular file; give a plain file", path.display())]
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// Somebody else can put their own secret there.
    #[error(
        "the secret file {} can be written by others (mode {mode:04o}, owner {owner}); \
         it must belong to root or to this user, with `chmod 600`", path.display()
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("the secret in {place} is longer than {MAX_SECRET_BYTES} bytes; is it the right one?")]
    TooLong {
        /// Where it was looked for.
        place: String,
    },
    /// Nothing there, or only a newline.
    #[error("the secret in {place} is empty; put the secret there")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// Not UTF-8, or with a NUL in it.
    #[error("the secret in {place} is not text (UTF-8 without NUL)")]
    NotText {
        /// Where it was looked for.
        place: String,
    },
    /// The environment variable is not there.
    #[error("the environment variable {name} is not set; set it for this process, or give the secret by file")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The program that prints it did not.
    #[error("the command `{program}` did not give the secret: {why}; run it by hand as this user")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What happened.
        why: String,
    },
    /// Not started by systemd with credentials.
    #[error(
        "no systemd credential `{name}`: $CREDENTIALS_DIRECTORY is not set; \
         add `LoadCredential={name}:/path` to the unit, or give the secret by file"
    )]
    NoCredentials {
        /// Its name.
        name: String,
    },
}

impl SecretSource {
    /// Whether a place is configured at all.
    pub fn is_set(&self) -> bool {
        !matches!(self, Self::Unset(_))
    }

    /// Reads the secret: UTF-8 text, at most [`MAX_SECRET_BYTES`], less one
    /// trailing newline. Warns in the log of a file that everybody can read.
    ///
    /// # Errors
    /// Where it is not there, empty, not text, or others could have put it there.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        self.read_from(&|name| std::env::var_os(name))
    }

    /// [`read`](Self::read) with this for an environment.
    ///
    /// # Errors
    /// As there.
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
    /// The place, as `config show` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(_) => f.write_str("not set"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
            // Arguments are nobody's business: they may hold an account's name.
            Self::Command(argv) => write!(f, "command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

/// Runs a program and takes what it prints, within [`COMMAND_MAX`]. What it says
/// on standard error is not kept: it may hold the secret too.
fn run(argv: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("there is none"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 2));
        let read = output.map_or(Ok(0), |output| output.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes));
        read.map(|_| bytes)
    });
    let until = Instant::now() + COMMAND_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // It may also have printed more than is read, and wait for a reader.
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!("it did not end within {} s", COMMAND_MAX.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    reading.join().map_err(|_| io::Error::other("it could not be read"))?
}

fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    use std::os::unix::fs::OpenOptionsExt;
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    // Not blocking: a FIFO in this place must not hang the daemon's start.
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(unreadable)?;
    // Asked of the open file, so that nobody changes it in between.
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
    // Room for all of it at once: a buffer that grows leaves copies behind.
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
    // Exactly as large as it must be, so that boxing it leaves no copy.
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
