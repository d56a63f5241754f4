//! The configuration: one TOML file, the environment, and flags. Every value knows where it came from (contract
//! §13).
//!
//! Four layers are merged, each overriding the one before: defaults (with the agent profiles that ship with
//! Lazarus), the file, `LAZARUS__SECTION__KEY`, flags. [`layers`] does that without knowing any key. [`section`]
//! reads typed values from the result and collects all problems, each with its file and line. [`Config`] is what
//! the rest of the program sees: plain fields that were checked.
//!
//! No message repeats a wrong value, because it may be a secret that was written in the wrong place.

mod layers;
mod places;
mod secret;
pub(crate) mod section;
mod source;
pub mod units;

pub use crate::cell::{Isolation, Limits, Network};
pub use secret::{MAX_SECRET_BYTES, SecretError, SecretSource};
pub use source::{Source, Sourced};

use crate::agents::{self, Profile};
use crate::cell::LEAST;
use crate::egress::{AddressRange, HostName};
use crate::gitea::ForgeOptions;
use crate::mission::COMMANDS_MAX;
use layers::{Entries, Entry, Raw};
use secrecy::SecretString;
use section::{Report, Section};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default configuration with comments, as it is installed.
pub const COMMENTED: &str = include_str!("../../config/lazarus.toml");

/// Largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Where to look for a configuration.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `--config FILE`: this file must exist.
    pub file: Option<PathBuf>,
    /// The environment. `LAZARUS__…`, `LAZARUS_CONFIG`, `HOME`, `XDG_CONFIG_HOME` and `XDG_STATE_HOME` are read.
    pub env: BTreeMap<String, String>,
    /// Dotted keys and values, such as `("policy.ttl_max", "8h")`.
    pub flags: Vec<(String, String)>,
    /// The system's configuration file; only tests use another one.
    pub system_file: PathBuf,
}

impl Default for LoadOptions {
    /// No flags, no environment, the system's file.
    fn default() -> Self {
        Self {
            file: None,
            env: BTreeMap::new(),
            flags: Vec::new(),
            system_file: PathBuf::from("/etc/lazarus/lazarus.toml"),
        }
    }
}

impl LoadOptions {
    /// Options with the environment of this process. Variables that are not UTF-8 are ignored.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        Self { file, env: crate::host::environment(), flags, ..Self::default() }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A directory of the user: from its XDG variable if that is an absolute path (the specification says to ignore
    /// others), otherwise below `HOME`.
    fn user_directory(&self, xdg: &str, below_home: &str) -> Option<PathBuf> {
        let absolute = |name| self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute(xdg).or_else(|| Some(absolute("HOME")?.join(below_home)))
    }
}

/// One mistake in the configuration, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub at: Source,
    /// What is wrong and what is allowed. Never contains the value itself.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Source::Default => f.write_str(&self.text),
            at => write!(f, "{at}: {}", self.text),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was asked for cannot be read.
    #[error("cannot read the configuration file {} ({why}): {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What asked for the file, such as an option or a variable.
        why: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The configuration has mistakes. All of them are listed, in the order of the file.
    #[error("{}", list_of_problems(.0))]
    Invalid(
        /// At least one.
        Vec<Problem>,
    ),
}

fn list_of_problems(problems: &[Problem]) -> String {
    const SHOWN: usize = 20;
    let mut text = match problems {
        [one] => return format!("the configuration is not usable: {one}"),
        _ => format!("the configuration is not usable, {} problems:", problems.len()),
    };
    for problem in problems.iter().take(SHOWN) {
        let _ = write!(text, "\n  {problem}");
    }
    if problems.len() > SHOWN {
        let _ = write!(text, "\n  and {} more", problems.len() - SHOWN);
    }
    text
}

/// The forge that Lazarus works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forge {
    /// Its URL without a trailing slash; empty until it is configured (see [`Config::ready_to_serve`]).
    pub url: String,
    /// Where the bot's token is.
    pub token: SecretSource,
    /// A PEM file with the only certificate authorities that are trusted for the forge. `None` means those of the
    /// system.
    pub ca_file: Option<PathBuf>,
    /// The proxy through which the forge is reached; empty for a direct connection.
    pub proxy: String,
    /// How long a command, a start or a push waits for a forge that is away, fails, or denies a right, before it
    /// counts as failed.
    pub patience: Duration,
    /// How long such a wait may last before people are told.
    pub notice_after: Duration,
    /// How long the forge must report that something does not exist before it counts as deleted; by default ten
    /// times `reconcile.interval`.
    pub gone_after: Duration,
}

impl Forge {
    /// The file of certificate authorities, if there is one. The variable that OpenSSL reads for it applies to git
    /// and to the API alike.
    pub fn authorities(&self) -> Option<PathBuf> {
        self.ca_file.clone().or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from))
    }

    /// The proxy; `None` for a direct connection.
    pub fn proxy(&self) -> Option<String> {
        Some(self.proxy.clone()).filter(|proxy| !proxy.is_empty())
    }

    /// The options of a client for this forge.
    pub fn options(&self, token: SecretString) -> ForgeOptions {
        ForgeOptions {
            ca_file: self.ca_file.clone(),
            proxy: self.proxy(),
            user_agent: concat!("lazarus/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ForgeOptions::new(&self.url, token)
        }
    }
}

/// The HTTP endpoint for webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The address and port that Lazarus listens on.
    pub listen: SocketAddr,
    /// The URL that the forge calls, without [`path`](Self::path) and without a trailing slash; empty until it is
    /// configured.
    pub public_url: String,
    /// Where the secret is from which the hooks' secrets are derived.
    pub secret: SecretSource,
    /// Largest delivery, in bytes. A larger one is answered with 413, and the reconciler fetches what it was about.
    pub max_body_bytes: u64,
    /// Path of the webhook below both URLs, with a leading slash.
    pub path: String,
}

impl Webhook {
    /// The complete URL that the forge calls.
    pub fn address(&self) -> String {
        format!("{}{}", self.public_url, self.path)
    }
}

/// Where files are stored. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Parent of all paths that are not set separately.
    pub data: PathBuf,
    /// Homes of live cells.
    pub cells: PathBuf,
    /// Homes of closed cells, complete, until their grace period is over.
    pub graveyard: PathBuf,
    /// What is kept of cells after that.
    pub archive: PathBuf,
    /// The durable record of missions, for other tools.
    pub missions: PathBuf,
    /// The SQLite registry (a file).
    pub registry: PathBuf,
}

/// A repository that Lazarus serves. Deliveries for others are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name` as configured. What counts is the forge's number for it.
    pub name: String,
    /// Logins of directors.
    pub directors: Vec<String>,
    /// Teams whose members are directors, `organisation/team`.
    pub director_teams: Vec<String>,
    /// Whether the repository's administrators are directors too.
    pub administrators: bool,
}

impl Repository {
    /// Owner and name.
    pub fn owner_and_name(&self) -> (&str, &str) {
        self.name.split_once('/').unwrap_or(("", &self.name))
    }
}

/// The most that proposals may ask for, and the least that they get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The weakest isolation that a cell may have.
    pub isolation_min: Isolation,
    /// The widest network access that a cell may have.
    pub network_max: Network,
    /// Time to live of a cell that asks for none; at most `ttl_max`.
    pub ttl_default: Duration,
    /// The longest total life of a cell, extensions included.
    pub ttl_max: Duration,
    /// How long an invitation is valid.
    pub invitation_ttl: Duration,
    /// How long a closed cell can be resurrected.
    pub closed_grace: Duration,
    /// How long the archive is kept.
    pub archive_retention: Duration,
    /// Whether guests may be invited.
    pub guests: bool,
    /// Whether substitutes may be invited.
    pub substitutes: bool,
    /// Whether each agent of a cell has a work tree and a branch of its own.
    pub worktrees: bool,
    /// Whether a proposer's own vote counts in a council.
    pub proposer_may_vote: bool,
    /// How long a council may vote.
    pub council_window: Duration,
    /// An approval this soon after an edit must be repeated (contract §6).
    pub approval_settle: Duration,
    /// What happens to directors' commands that only polling found.
    pub polled_commands: PolledCommands,
    /// Which commit of the base branch a cell starts from.
    pub commit: CommitChoice,
    /// Most live cells of one mission at the same time.
    pub max_cells_per_mission: u32,
    /// Most commands of one comment that are carried out; at most [`COMMANDS_MAX`](crate::mission::COMMANDS_MAX).
    pub max_commands_per_comment: u32,
    /// Most commands of one person in a minute.
    pub commands_per_minute: u32,
    /// Whether comments on pull requests may contain commands.
    pub pull_request_commands: bool,
    /// Most executors in one cell.
    pub agents_max: u32,
    /// Whether a cell's project and homes are kept in memory, in a tmpfs of the size of its disk limit.
    pub disk_in_memory: bool,
}

/// The way out of cells to named hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// Addresses that are not public, but may be reached by name.
    pub allow_addresses: Vec<AddressRange>,
    /// Fixed addresses of names, used instead of the system's resolver.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// How work leaves a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harvest {
    /// Whether uncommitted changes become a separate commit.
    pub commit_uncommitted: bool,
    /// Whether the work so far is also pushed at each checkpoint.
    pub at_checkpoint: bool,
    /// Largest pack of work that is accepted, in bytes.
    pub pack_max: u64,
    /// Largest file in it, in bytes.
    pub file_max: u64,
    /// Most files that may be changed.
    pub files_max: u32,
    /// Most branches besides the mission's own.
    pub branches_max: u32,
    /// Most bytes of all new objects together that are searched for secrets. Work with more than that does not
    /// leave.
    pub search_max: u64,
}

/// What happens to commands that only a director may give, if only polling found them (contract §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolledCommands {
    /// The same person must confirm them with a reaction.
    Confirm,
    /// They are carried out. For installations that no webhook can reach.
    Run,
}

/// Which commit of the base branch a cell starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitChoice {
    /// The commit that was shown and approved.
    Approved,
    /// The newest commit at the start.
    Latest,
}

/// Defines an enum whose variants are words in the configuration.
macro_rules! choice {
    ($type:ty { $($word:literal = $value:path),+ }) => {
        impl $type {
            pub(crate) fn parse(text: &str) -> Option<Self> {
                match text {
                    $($word => Some($value),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $($value => $word,)+
                })
            }
        }
    };
}
choice! { PolledCommands { "confirm" = PolledCommands::Confirm, "run" = PolledCommands::Run } }
choice! { CommitChoice { "approved" = CommitChoice::Approved, "latest" = CommitChoice::Latest } }

/// How the forge is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// Time between two polls.
    pub interval: Duration,
    /// How far each poll looks back before the last one.
    pub overlap: Duration,
    /// How long polling waits for the webhook delivery of a comment that it found, before the comment's author is
    /// asked to confirm it.
    pub grace: Duration,
}

/// How commands in comments are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// The word before each command, as in `/lazarus summon`; empty if there is none.
    pub prefix: String,
}

impl Commands {
    /// The word before each command; `None` if there is none.
    pub fn prefix(&self) -> Option<&str> {
        Some(self.prefix.as_str()).filter(|prefix| !prefix.is_empty())
    }
}

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Most effects that run at the same time.
    pub effect_workers: u32,
}

/// A configuration that has been read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The forge.
    pub forge: Forge,
    /// The HTTP endpoint for webhooks.
    pub webhook: Webhook,
    /// Where files are stored.
    pub paths: Paths,
    /// The repositories that are served.
    pub repositories: Vec<Repository>,
    /// The most that missions may ask for.
    pub policy: Policy,
    /// The limits of a cell that asks for no others.
    pub limits: Limits,
    /// The highest limits that a proposal may ask for.
    pub limits_max: Limits,
    /// The way out of cells to named hosts.
    pub egress: Egress,
    /// How work leaves a cell.
    pub harvest: Harvest,
    /// How commands are written.
    pub commands: Commands,
    /// How the forge is polled.
    pub reconcile: Reconcile,
    /// The engine.
    pub engine: Engine,
    /// Directory of templates that replace the built-in ones (key `paths.templates`).
    pub templates: Option<PathBuf>,
    /// Credentials that profiles may name.
    pub credentials: BTreeMap<String, SecretSource>,
    /// Agent profiles: the built-in ones and the user's, merged.
    pub agents: BTreeMap<String, Profile>,
    values: BTreeMap<String, Sourced<Value>>,
    keys: BTreeSet<String>,
}

impl Config {
    /// Finds, reads and checks the configuration. A missing key is not an error here; see
    /// [`ready_to_serve`](Self::ready_to_serve).
    ///
    /// # Errors
    /// If a file cannot be read, or any layer contains a mistake. All mistakes are reported at once, each with its
    /// location.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut tree = built_in_profiles();
        let file = find_file(options)?;
        if let Some((path, text)) = &file {
            match layers::parse(text, &layers::file_source(path)) {
                Ok(entries) => layers::merge(&mut tree, entries),
                Err(problem) => return Err(ConfigError::Invalid(vec![problem])),
            }
        }
        layers::merge(&mut tree, layers::environment(&options.env, &mut problems));
        layers::merge(&mut tree, layers::flags(&options.flags, &mut problems));

        let report = Report::default();
        let mut config = read(tree, &report, options);
        match report.conclude() {
            Ok((values, keys)) if problems.is_empty() => {
                config.file = file.map(|(path, _)| path);
                config.values = values;
                config.keys = keys;
                Ok(config)
            }
            outcome => {
                problems.extend(outcome.err().into_iter().flatten());
                problems.sort_by_key(|problem| match &problem.at {
                    Source::File(_, line) => (0, *line),
                    other => (1, usize::from(other.rank())),
                });
                Err(ConfigError::Invalid(problems))
            }
        }
    }

    /// Checks that everything that `serve` needs is set.
    ///
    /// # Errors
    /// Names each key that is missing and how to set it.
    pub fn ready_to_serve(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut missing = |is_missing: bool, text: &str| {
            if is_missing {
                problems.push(Problem { at: Source::Default, text: text.to_owned() });
            }
        };
        missing(
            self.forge.url.is_empty(),
            "forge.url is not set: the address of the Gitea or Forgejo server, such as \"https://git.example.org\"",
        );
        missing(
            !self.forge.token.is_set(),
            "forge.token_file (or token_env, token_credential) is not set: where the bot's access token is",
        );
        missing(
            self.webhook.public_url.is_empty(),
            "webhook.public_url is not set: the address at which the forge reaches this machine",
        );
        missing(
            !self.webhook.secret.is_set(),
            "webhook.secret_file (or secret_env, secret_credential) is not set: \
             without a secret anybody could send commands",
        );
        missing(
            self.repositories.is_empty(),
            "[[repositories]] is empty: name at least one, with name = \"owner/name\"",
        );
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The value of a dotted key, and where it came from. Sizes and durations are given as text, and a secret by
    /// its location.
    pub fn sourced(&self, key: &str) -> Option<&Sourced<Value>> {
        self.values.get(key)
    }

    /// Every value by dotted key, as [`sourced`](Self::sourced) gives them.
    pub fn values(&self) -> &BTreeMap<String, Sourced<Value>> {
        &self.values
    }

    /// All dotted keys that exist, set or not, including those of configured agents and repositories.
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// The repository with this name, compared without case.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name.eq_ignore_ascii_case(name))
    }

    /// The JSON of `config show --json`. Contains no secret.
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file.as_ref().map(|path| path.to_string_lossy()),
            "values": self.values,
        })
    }

    /// The table of `config show`: key, value, and where it came from. Of the agent profiles it shows only what
    /// differs from the ones that ship with Lazarus.
    pub fn to_table(&self) -> String {
        let rows: Vec<(&str, String, String)> = self
            .values
            .iter()
            .filter(|(key, value)| !key.starts_with("agents.") || value.source != Source::Default)
            .map(|(key, value)| {
                let text = match &value.value {
                    // Shown as JSON, so that no control character reaches the terminal.
                    Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
                    Value::Null => "not set".to_owned(),
                    other => other.to_string(),
                };
                (key.as_str(), text, value.source.to_string())
            })
            .collect();
        let width = |column: fn(&(&str, String, String)) -> usize| {
            rows.iter().map(column).chain([5]).max().unwrap_or(5).min(60)
        };
        let (first, second) = (width(|row| row.0.chars().count()), width(|row| row.1.chars().count()));
        let mut table = format!("{:first$}  {:second$}  FROM\n", "KEY", "VALUE");
        for (key, value, source) in &rows {
            let _ = writeln!(table, "{key:first$}  {value:second$}  {source}");
        }
        let _ = writeln!(table, "\nagents: {}", self.agents.keys().cloned().collect::<Vec<_>>().join(", "));
        match &self.file {
            Some(path) => {
                let _ = writeln!(table, "file: {}", path.display());
            }
            None => table.push_str("file: none was found\n"),
        }
        table
    }
}

/// The profiles that ship with Lazarus, as the lowest layer, so that a user's `[agents.claude]` can change single
/// keys of one.
fn built_in_profiles() -> Entries {
    let agents = agents::BUILT_IN
        .iter()
        .filter_map(|(name, text)| {
            // A test ensures that each of them parses.
            let entries = layers::parse(text, &|_| Source::Default).ok()?;
            Some(((*name).to_owned(), Entry { source: Source::Default, raw: Raw::Table(entries) }))
        })
        .collect();
    Entries::from([("agents".to_owned(), Entry { source: Source::Default, raw: Raw::Table(agents) })])
}

/// Finds the first configuration file that exists, and reads it.
fn find_file(options: &LoadOptions) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let asked = match (&options.file, options.variable("LAZARUS_CONFIG")) {
        (Some(path), _) => Some((path.clone(), "from --config")),
        (None, Some(path)) => Some((PathBuf::from(path), "from LAZARUS_CONFIG")),
        (None, None) => None,
    };
    if let Some((path, why)) = asked {
        let unreadable = |source| ConfigError::Unreadable { path: path.clone(), why, source };
        let path = std::path::absolute(&path).map_err(unreadable)?;
        let text = read_file(&path, why)?;
        return Ok(Some((path, text)));
    }
    let user = options
        .user_directory("XDG_CONFIG_HOME", ".config")
        .map(|directory| (directory.join("lazarus/lazarus.toml"), "the user's"));
    for (path, why) in user.into_iter().chain([(options.system_file.clone(), "the system's")]) {
        match read_file(&path, why) {
            Ok(text) => return Ok(Some((path, text))),
            Err(ConfigError::Unreadable { source, .. })
                if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read_file(path: &Path, why: &'static str) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), why, source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let at = |line, text: &str| {
        let at = Source::File(path.to_owned(), line);
        ConfigError::Invalid(vec![Problem { at, text: text.to_owned() }])
    };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(at(1, "the file is larger than 1 MiB; is it the right one?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        at(line, "not valid UTF-8")
    })
}

/// Reads all keys. Problems go to the report; if there are any, the result is not used.
fn read(tree: Entries, report: &Report, options: &LoadOptions) -> Config {
    let mut root = Section::root(tree, report);

    let mut section = root.section("reconcile");
    let reconcile = Reconcile {
        interval: section.duration("interval", MINUTE, SECOND, DAY),
        overlap: section.duration("overlap", 2 * MINUTE, SECOND, 7 * DAY),
        grace: section.duration("grace", 10 * SECOND, Duration::ZERO, MINUTE),
    };
    section.finish();

    // The forge must say so in ten polls, at the configured interval.
    let gone_after = (10 * reconcile.interval).min(7 * DAY);
    let mut section = root.section("forge");
    let forge = Forge {
        url: address(&mut section, "url"),
        token: section.secret("token"),
        ca_file: section.path("ca_file"),
        proxy: address(&mut section, "proxy"),
        patience: section.duration("patience", 6 * HOUR, SECOND, 30 * DAY),
        notice_after: section.duration("notice_after", MINUTE, SECOND, DAY),
        gone_after: section.duration("gone_after", gone_after, SECOND, 7 * DAY),
    };
    section.finish();

    let mut section = root.section("webhook");
    let webhook = Webhook {
        listen: section.get("listen", SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8181)),
        public_url: address(&mut section, "public_url"),
        secret: section.secret("secret"),
        max_body_bytes: section.size("max_body_bytes", 8 * MIB, 64 * KIB, GIB),
        path: section.get_if(
            "path",
            "/webhook".to_owned(),
            "a path such as \"/webhook\" (not /, /healthz or /readyz)",
            |path| is_path(path) && path != "/healthz" && path != "/readyz",
        ),
    };
    section.finish();

    let mut section = root.section("paths");
    let state = options.user_directory("XDG_STATE_HOME", ".local/state");
    let data = state.map_or_else(|| PathBuf::from("/var/lib/lazarus"), |state| state.join("lazarus"));
    let mut path = |key: &str, default: PathBuf| {
        section.path(key).unwrap_or_else(|| {
            section.default_value(key, default.to_string_lossy().into());
            default
        })
    };
    let data = path("data", data);
    let paths = Paths {
        cells: path("cells", data.join("cells")),
        graveyard: path("graveyard", data.join("graveyard")),
        archive: path("archive", data.join("archive")),
        missions: path("missions", data.join("missions")),
        registry: path("registry", data.join("registry.sqlite")),
        data,
    };
    let templates = section.path("templates");
    section.finish();

    let repositories = repositories(&mut root);
    let policy = policy(root.section("policy"), report);

    let usual = Limits {
        memory: 2 * GIB,
        processes: 512,
        open_files: 1024,
        cpu: 2000,
        disk: 4 * GIB,
        files: 200_000,
        log: 16 * MIB,
        tmp: 256 * MIB,
    };
    let limits = limits(root.section("limits"), usual, LEAST);
    let limits_max = limits_max(root.section("limits_max"), limits);
    let egress = egress(root.section("egress"));

    let mut section = root.section("harvest");
    let harvest = Harvest {
        commit_uncommitted: section.get("commit_uncommitted", true),
        at_checkpoint: section.get("at_checkpoint", false),
        pack_max: section.size("pack_max", 512 * MIB, MIB, TIB),
        file_max: section.size("file_max", 100 * MIB, KIB, TIB),
        files_max: section.number("files_max", 20_000, 1, 100_000),
        branches_max: section.number("branches_max", 8, 0, 100),
        search_max: section.size("search_max", GIB, MIB, TIB),
    };
    section.refuse(
        "signing_key",
        "Lazarus signs nothing that came out of a cell any more, because a signature would vouch for what agents \
         chose; remove this key (docs/work.md)",
    );
    section.finish();

    let mut section = root.section("commands");
    let wanted =
        "up to 32 lower-case letters, digits and -, beginning with a letter, and no command's own name; or nothing";
    let commands = Commands { prefix: section.get_if("prefix", String::new(), wanted, |word| is_prefix(word)) };
    section.finish();

    let mut section = root.section("engine");
    let engine = Engine { effect_workers: section.number("effect_workers", 16, 1, 1024) };
    section.finish();

    let credentials = credentials(root.section("credentials"));

    let home = options.env.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let mut section = root.section("agents");
    let mut profiles = BTreeMap::new();
    for name in section.keys() {
        if agents::is_name(&name) {
            let profile = Profile::read(section.section(&name), &name, home.as_deref());
            profiles.insert(name, profile);
        } else {
            section.refuse(&name, agents::NAME_FORM);
        }
    }
    refuse_own_secrets(&profiles, [&forge.token, &webhook.secret].into_iter().chain(credentials.values()), report);
    root.finish();

    Config {
        file: None,
        forge,
        webhook,
        paths,
        repositories,
        policy,
        limits,
        limits_max,
        egress,
        harvest,
        commands,
        reconcile,
        engine,
        templates,
        credentials,
        agents: profiles,
        values: BTreeMap::new(),
        keys: BTreeSet::new(),
    }
}

fn policy(mut section: Section<'_>, report: &Report) -> Policy {
    let longest = units::LONGEST;
    let ttl_max = section.duration("ttl_max", DAY, MINUTE, longest);
    let mut ttl_default = section.duration("ttl_default", 4 * HOUR, MINUTE, longest);
    if ttl_default > ttl_max {
        if report.source_of("policy.ttl_default") == Source::Default {
            // Lowering the maximum also lowers the default.
            ttl_default = ttl_max;
            section.default_value("ttl_default", units::show_duration(ttl_max).into());
        } else {
            section.problem("ttl_default", "longer than policy.ttl_max; lower it, or raise ttl_max");
        }
    }
    let policy = Policy {
        isolation_min: section.get("isolation_min", Isolation::Level2),
        network_max: section.get("network_max", Network::Proxy),
        ttl_default,
        ttl_max,
        invitation_ttl: section.duration("invitation_ttl", 15 * MINUTE, MINUTE, 30 * DAY),
        closed_grace: section.duration("closed_grace", 30 * MINUTE, Duration::ZERO, longest),
        archive_retention: section.duration("archive_retention", 30 * DAY, Duration::ZERO, longest),
        guests: section.get("guests", false),
        substitutes: section.get("substitutes", false),
        worktrees: section.get("worktrees", false),
        proposer_may_vote: section.get("proposer_may_vote", false),
        council_window: section.duration("council_window", DAY, MINUTE, 30 * DAY),
        approval_settle: section.duration("approval_settle", 30 * SECOND, Duration::ZERO, HOUR),
        polled_commands: section.get("polled_commands", PolledCommands::Confirm),
        commit: section.get("commit", CommitChoice::Approved),
        max_cells_per_mission: section.number("max_cells_per_mission", 4, 1, 64),
        // At most as many as the contract allows.
        max_commands_per_comment: section.number("max_commands_per_comment", 10, 1, COMMANDS_MAX as u32),
        commands_per_minute: section.number("commands_per_minute", 30, 1, 10_000),
        pull_request_commands: section.get("pull_request_commands", false),
        disk_in_memory: section.get("disk_in_memory", false),
        agents_max: section.number("agents_max", 8, 1, 64),
    };
    section.finish();
    policy
}

fn repositories(root: &mut Section<'_>) -> Vec<Repository> {
    let mut repositories: Vec<Repository> = Vec::new();
    for mut section in root.sections("repositories", "name") {
        let login = "the login of a person, such as \"alice\"";
        let team = "a team, such as \"acme/leads\"";
        let named = section.optional_if("name", "a repository, such as \"acme/widget\"", |name: &String| is_pair(name));
        let repository = Repository {
            directors: section.list("directors", Vec::new(), login, |name: &String| is_forge_name(name)),
            director_teams: section.list("director_teams", Vec::new(), team, |name: &String| is_pair(name)),
            administrators: section.get("administrators", true),
            name: named.clone().unwrap_or_default(),
        };
        if named.is_none() && !section.was_given("name") {
            section.problem("name", "missing; give name = \"owner/name\"");
        }
        if repositories.iter().any(|other| other.name.eq_ignore_ascii_case(&repository.name)) {
            section.problem("name", "this repository is configured twice; keep one of the two");
        }
        if !repository.administrators && repository.directors.is_empty() && repository.director_teams.is_empty() {
            section.problem(
                "administrators",
                "nobody could approve anything here; name directors or director_teams, or set administrators = true",
            );
        }
        section.finish();
        repositories.push(repository);
    }
    repositories
}

/// Reads limits: each has a default, and a minimum.
fn limits(mut section: Section<'_>, usual: Limits, least: Limits) -> Limits {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut count = |key: &str, usual: u64, least: u64| -> u64 {
        section.number(key, number(usual), number(least), 1_000_000_000).into()
    };
    let (processes, open_files, files) = (
        count("processes", usual.processes, least.processes),
        count("open_files", usual.open_files, least.open_files),
        count("files", usual.files, least.files),
    );
    let processors = |thousandths: u64| thousandths as f64 / 1000.0;
    let from = processors(least.cpu);
    let wanted = format!("a number of processors from {from} to 4096");
    let cpu = section.get_if("cpu", processors(usual.cpu), &wanted, |cpu| (from..=4096.0).contains(cpu));
    let limits = Limits {
        memory: section.size("memory", usual.memory, least.memory, TIB),
        processes,
        open_files,
        cpu: (cpu * 1000.0).round() as u64,
        disk: section.size("disk", usual.disk, least.disk, 1024 * TIB),
        files,
        log: section.size("log", usual.log, least.log, TIB),
        tmp: section.size("tmp", usual.tmp, least.tmp, TIB),
    };
    section.finish();
    limits
}

/// Reads the most that proposals may ask for; by default the same as a cell gets without asking.
fn limits_max(section: Section<'_>, limits_now: Limits) -> Limits {
    limits(section, limits_now, limits_now)
}

fn egress(mut section: Section<'_>) -> Egress {
    let ranges = section.list(
        "allow_addresses",
        vec![],
        "a network such as \"10.0.0.0/8\", or one address",
        |range: &String| range.parse::<AddressRange>().is_ok(),
    );
    let wanted = "a name and an address such as \"git.example.org=10.0.0.5\"";
    let pairs = section.list("addresses", vec![], wanted, |pair: &String| address_of_name(pair).is_some());
    section.finish();
    let mut addresses: BTreeMap<HostName, Vec<IpAddr>> = BTreeMap::new();
    for (name, address) in pairs.iter().filter_map(|pair| address_of_name(pair)) {
        addresses.entry(name).or_default().push(address);
    }
    Egress { allow_addresses: ranges.iter().filter_map(|range| range.parse().ok()).collect(), addresses }
}

/// Parses `NAME=ADDRESS`.
fn address_of_name(pair: &str) -> Option<(HostName, IpAddr)> {
    let (name, address) = pair.split_once('=')?;
    Some((name.trim().parse().ok()?, address.trim().parse().ok()?))
}

fn credentials(mut section: Section<'_>) -> BTreeMap<String, SecretSource> {
    let mut credentials = BTreeMap::new();
    for key in section.keys() {
        let name =
            ["_file", "_env", "_credential", "_command"].iter().find_map(|way| key.strip_suffix(way)).unwrap_or(&key);
        if credentials.contains_key(name) {
            continue;
        }
        if agents::is_name(name) {
            let place = section.secret(name);
            credentials.insert(name.to_owned(), place);
        } else {
            section.refuse(&key, agents::NAME_FORM);
        }
    }
    section.finish();
    credentials
}

/// A variable from which Lazarus itself reads a secret is never passed to an agent, whatever its name is.
fn refuse_own_secrets<'a>(
    profiles: &BTreeMap<String, Profile>,
    secrets: impl Iterator<Item = &'a SecretSource>,
    report: &Report,
) {
    let own: Vec<&String> = secrets
        .filter_map(|secret| match secret {
            SecretSource::Env(name) => Some(name),
            _ => None,
        })
        .collect();
    for (name, profile) in profiles {
        if let Some(variable) = profile.env_allow.iter().find(|variable| own.contains(variable)) {
            let key = format!("agents.{name}.env_allow");
            let text = format!(
                "{key}: {variable} holds a secret of the configuration; to give it to this agent, \
                 name it under agents.{name}.credentials"
            );
            report.problem(report.source_of(&key), text);
        }
    }
}

/// Reads the URL of a server, without its trailing slash; empty if it is not set.
fn address(section: &mut Section<'_>, key: &str) -> String {
    let wanted = "an address such as \"https://git.example.org\" (http or https; no user, password, `?` or `#`)";
    let given = section.optional_if(key, wanted, |text: &String| {
        reqwest::Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
                && !text.contains(char::is_whitespace)
        })
    });
    if given.is_none() && !section.was_given(key) {
        section.default_value(key, Value::Null);
    }
    given.map_or_else(String::new, |text| text.trim_end_matches('/').to_owned())
}

fn is_path(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('/')
        && !text.contains("//")
        && text.split('/').all(|part| part != "." && part != "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.'))
}

/// Whether the forge allows this as a name of a person, organisation or repository.
fn is_forge_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_pair(text: &str) -> bool {
    text.split_once('/').is_some_and(|(owner, name)| is_forge_name(owner) && is_forge_name(name))
}
/// Whether this word may stand before each command. An empty one is allowed, too.
fn is_prefix(word: &str) -> bool {
    let form = word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.len() <= 32
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    word.is_empty() || (form && crate::mission::CommandSpec::named(word).is_none())
}
