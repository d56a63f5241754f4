//! State on disk: one SQLite file with the inbox, the registry, the effects queue and the ledger.
//!
//! There is a single writer, a thread of its own. Every change is a closure that runs inside a transaction of that
//! thread. All changes that are queued when it looks are committed together (group commit without a timer), with
//! `synchronous=FULL`: when [`Store::transact`] returns, the change survives a power failure. Readers have
//! connections of their own and never wait for the writer (WAL).

mod effects;
mod inbox;
mod ledger;
mod pins;
mod registry;
mod schema;

pub use effects::{EffectRow, EffectState, Trouble, WaitingEffect};
pub use inbox::InboxRow;
pub use ledger::{Entry, GENESIS, Head, LedgerFault, NewEntry, verify};
pub(crate) use pins::label_name;
pub use pins::{Pin, PinKind, Pinned};
pub use registry::{CellRow, CommentRow, Damaged, Due, Listed, SeenText, Sight};

use rusqlite::Connection;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// Most changes in one commit.
const GROUP_MAX: usize = 512;
/// Most idle reader connections that are kept.
const READERS_MAX: usize = 4;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite reported an error.
    #[error("the registry {path}: {source}; check the disk's space and rights, then try again")]
    Sqlite {
        /// The file.
        path: String,
        /// The error.
        source: rusqlite::Error,
    },
    /// Another process uses the data directory.
    #[error(
        "{path} is in use by another Lazarus (process {pid}); two on one data directory would both act. Stop that one, or give this one a `paths.data` of its own"
    )]
    InUse {
        /// The data directory.
        path: String,
        /// The pid that the process wrote into the lock file.
        pid: String,
    },
    /// A file could not be used.
    #[error("{tried} {path}: {source}")]
    Io {
        /// What was tried.
        tried: &'static str,
        /// The file's path.
        path: String,
        /// The error.
        source: std::io::Error,
    },
    /// A stored value cannot be read back.
    #[error(
        "the registry holds a {what} that cannot be read: {why}; run `lazarus ledger verify`, then restore the registry from a backup"
    )]
    Corrupt {
        /// The kind of value.
        what: &'static str,
        /// Why it cannot be read.
        why: String,
    },
    /// A decision panicked; nothing of it was stored.
    #[error("a decision failed inside ({0}); nothing of it was stored")]
    Panicked(String),
    /// The writer has stopped: the daemon is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The schema is older than this program, and this command may not upgrade it.
    #[error(
        "the registry {path} has schema {found}, this Lazarus writes {known}; start `lazarus serve` of this version once, and it is brought up to date"
    )]
    TooOld {
        /// The file's path.
        path: String,
        /// The schema that was found.
        found: i64,
        /// The schema that is needed.
        known: i64,
    },
    /// The schema is newer than this program.
    #[error(
        "the registry {path} has schema {found}, this Lazarus knows up to {known}; use the newer Lazarus that wrote it"
    )]
    TooNew {
        /// The file's path.
        path: String,
        /// The schema that was found.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
}

impl StoreError {
    pub(crate) fn json(what: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |e| Self::Corrupt { what, why: e.to_string() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sqlite { path: "registry".to_owned(), source }
    }
}

/// The result of a call of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The exclusive right to use a data directory. It is held while this value lives; the kernel releases it when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Creates a data directory that only this user can access, unless it exists, and takes its lock.
    ///
    /// # Errors
    /// If it cannot be created; otherwise as for [`take`](Self::take).
    pub fn make_and_take(data: &Path) -> Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700)
            .create(data)
            .map_err(|source| StoreError::Io { tried: "making", path: data.display().to_string(), source })?;
        Self::take(data)
    }

    /// Takes the lock of a data directory.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process holds it.
    pub fn take(data: &Path) -> Result<Self> {
        use std::io::{Read as _, Seek as _, Write as _};
        let path = data.join("lock");
        let io = |tried| {
            let path = path.display().to_string();
            move |source| StoreError::Io { tried, path, source }
        };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("opening the lock"))?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(StoreError::InUse { path: data.display().to_string(), pid: pid.trim().to_owned() });
        }
        file.set_len(0).map_err(io("clearing the lock"))?;
        file.rewind().map_err(io("writing the lock"))?;
        write!(file, "{}", std::process::id()).map_err(io("writing the lock"))?;
        Ok(Self { _file: file })
    }

    /// Whether some process holds the lock of a data directory.
    pub fn is_held(data: &Path) -> bool {
        let Ok(file) = File::open(data.join("lock")) else { return false };
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
    }
}

type Completion = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;
/// A queued change. It gets the transaction, or `None` if none could be started.
type Job = Box<dyn FnOnce(Option<&Tx<'_>>) -> Completion + Send>;

/// The transaction of one change.
pub struct Tx<'a> {
    pub(crate) conn: &'a Connection,
}

impl Tx<'_> {
    /// Whether the registry has the schema of this program. After an upgrade it is older until the daemon is
    /// restarted.
    pub fn is_current(&self) -> bool {
        schema::is_current(self.conn, Path::new("")).is_ok()
    }

    /// Runs a part of a change. If it fails or panics, only this part is rolled back.
    ///
    /// # Errors
    /// The part's own; a panic becomes [`StoreError::Panicked`].
    pub fn within<T>(&self, part: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.conn.execute_batch("SAVEPOINT part")?;
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| part(self)))
            .unwrap_or_else(|panic| Err(StoreError::Panicked(words_of(&*panic))));
        if result.is_err() && !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK TO part")?;
        }
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("RELEASE part")?;
        }
        result
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// The store. It is cheap to clone; the writer ends with the last clone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::UnboundedSender<Job>,
    readers: Arc<Mutex<Vec<Connection>>>,
    path: Arc<PathBuf>,
}

impl Store {
    /// Opens or creates the registry at `path` and upgrades its schema.
    ///
    /// # Errors
    /// If the file cannot be opened, or was written by a newer Lazarus.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| StoreError::Io {
                tried: "making the directory",
                path: parent.display().to_string(),
                source,
            })?;
        }
        // The file holds texts of private issues, so only this user may read it, wherever it lies. SQLite gives the
        // files beside it the same mode.
        let mut own = File::options();
        std::os::unix::fs::OpenOptionsExt::mode(own.create(true).truncate(false).write(true), 0o600);
        own.open(path).map_err(|source| StoreError::Io {
            tried: "making",
            path: path.display().to_string(),
            source,
        })?;
        let conn = connect(path, false)?;
        schema::migrate(&conn, path)?;
        let (jobs, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("store-writer".into())
            .stack_size(2 * 1024 * 1024)
            .spawn(move || write_loop(conn, queue))
            .map_err(|source| StoreError::Io {
                tried: "starting the writer for",
                path: path.display().to_string(),
                source,
            })?;
        Ok(Self { jobs, readers: Arc::default(), path: Arc::new(path.to_owned()) })
    }

    /// Runs a change in the writer's transaction, and returns once it is durable. An error of the closure rolls
    /// back only that closure's changes.
    ///
    /// # Errors
    /// The closure's, or the commit's. Nothing was stored then.
    pub async fn transact<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let job: Job = Box::new(move |tx| {
            let result = tx.map(|tx| {
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| change(tx)))
                    .unwrap_or_else(|panic| Err(StoreError::Panicked(words_of(&*panic))));
                if result.is_err() && !tx.conn.is_autocommit() {
                    let _ = tx.conn.execute_batch("ROLLBACK TO change");
                }
                result
            });
            Box::new(move |committed| {
                let not_stored = |why: String| StoreError::Sqlite {
                    path: path.display().to_string(),
                    source: rusqlite::Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                        Some(why),
                    ),
                };
                let result = match (result, committed) {
                    (Some(Err(error)), _) => Err(error),
                    (Some(Ok(value)), Ok(())) => Ok(value),
                    (Some(Ok(_)) | None, Err(why)) => Err(not_stored(why)),
                    (None, Ok(())) => Err(not_stored("there was no transaction".to_owned())),
                };
                let _ = send.send(result);
            })
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        receive.await.map_err(|_| StoreError::Closed)?
    }

    /// Reads without waiting for the writer, on a thread that may block.
    ///
    /// # Errors
    /// The closure's.
    pub async fn read<T, F>(&self, look: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read_blocking(look)).await.map_err(|_| StoreError::Closed)?
    }

    /// Does the same on the calling thread.
    ///
    /// # Errors
    /// The closure's.
    pub fn read_blocking<T>(&self, look: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        let pooled = self.readers.lock().ok().and_then(|mut r| r.pop());
        let conn = match pooled {
            Some(conn) => conn,
            None => connect(&self.path, true)?,
        };
        let result = look(&Tx { conn: &conn });
        if let Ok(mut readers) = self.readers.lock()
            && readers.len() < READERS_MAX
        {
            readers.push(conn);
        }
        result
    }
}

/// Opens the registry of a data directory only for reading, without a writer. `lazarus status` uses this, whether
/// or not the daemon runs.
///
/// # Errors
/// If there is no registry, or it cannot be read.
pub fn look<T>(path: &Path, look: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
    let conn = connect(path, true)?;
    look(&Tx { conn: &conn })
}

/// Changes the registry of a data directory in one transaction, while the daemon may be running. An operator's
/// decisions about names use this. It never creates a registry and never upgrades one.
///
/// # Errors
/// If there is no registry, it has another version, or the change fails. Nothing was changed then.
pub fn change<T>(path: &Path, change: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
    use rusqlite::OpenFlags;
    let with_path = |source| StoreError::Sqlite { path: path.display().to_string(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(with_path)?;
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(with_path)?;
    schema::is_current(&conn, path)?;
    conn.execute_batch("PRAGMA synchronous=FULL; BEGIN IMMEDIATE").map_err(with_path)?;
    let result = change(&Tx { conn: &conn })?;
    conn.execute_batch("COMMIT").map_err(with_path)?;
    Ok(result)
}

fn connect(path: &Path, read_only: bool) -> Result<Connection> {
    use rusqlite::OpenFlags;
    let with_path = |source| StoreError::Sqlite { path: path.display().to_string(), source };
    let flags = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX
    };
    let conn = Connection::open_with_flags(path, flags).map_err(with_path)?;
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(with_path)?;
    if read_only {
        conn.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-1024;").map_err(with_path)?;
    } else {
        conn.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-4096; \
             PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=67108864;",
        )
        .map_err(with_path)?;
    }
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn write_loop(conn: Connection, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < GROUP_MAX
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        // Another process holds the lock, or there is no space: no change is attempted.
        if let Err(error) = conn.execute_batch("BEGIN IMMEDIATE") {
            for job in jobs {
                job(None)(Err(error.to_string()));
            }
            continue;
        }
        let mut completions: Vec<Completion> = vec![];
        let mut broken: Option<String> = None;
        for job in jobs {
            // On a full disk SQLite itself rolls back the whole transaction. Each later statement would then be
            // committed by itself, so none is run.
            if broken.is_none() {
                broken = match conn.execute_batch("SAVEPOINT change") {
                    Err(error) => Some(error.to_string()),
                    Ok(()) if conn.is_autocommit() => Some("the transaction was undone".to_owned()),
                    Ok(()) => None,
                };
            }
            if broken.is_some() {
                completions.push(job(None));
                continue;
            }
            completions.push(job(Some(&Tx { conn: &conn })));
            if conn.is_autocommit() {
                broken = Some("SQLite undid the transaction (disk full, or an input/output error)".to_owned());
            } else if let Err(error) = conn.execute_batch("RELEASE change") {
                broken = Some(error.to_string());
            }
        }
        let outcome = match broken {
            None => conn.execute_batch("COMMIT").map_err(|e| e.to_string()),
            Some(why) => Err(why),
        };
        if outcome.is_err() && !conn.is_autocommit() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        for completion in completions {
            completion(outcome.clone());
        }
    }
    let _ = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}
