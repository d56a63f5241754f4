//! `lazarus serve` as a process, two hundred cells that were really summoned,
//! and what it takes: `command_to_comment`, `daemon_memory`, `adopt`.

use crate::forge::{Deliveries, QuickForge, REPOSITORY, SECRET, signature};
use crate::report::{Figure, Limit, Report, median, milliseconds, quantile};
use crate::{LAZARUS, Place};
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const CELLS: i64 = 200;
const COMMANDS: i64 = 500;
const RESTARTS: usize = 5;
/// How long anything may take before the run is given up.
const CEILING: Duration = Duration::from_secs(120);

/// An installation in a directory of its own.
pub struct Installation {
    place: PathBuf,
    listen: SocketAddr,
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Installation {
    /// Writes its configuration and secrets.
    pub fn new(place: &Path, forge: &str) -> anyhow::Result<Self> {
        let listen = free_address()?;
        for (name, value) in [("forge.token", "a token of the benchmarks"), ("webhook.secret", SECRET)] {
            let mut file =
                std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(place.join(name))?;
            writeln!(file, "{value}")?;
        }
        // A host that gives no level_2 (a container) still has figures.
        let weak = std::env::var("LAZARUS_BENCH_ISOLATION").unwrap_or_else(|_| "level_2".to_owned());
        let config = format!(
            "[forge]\nurl = {forge:?}\ntoken_file = \"forge.token\"\n\
             [webhook]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\nsecret_file = \"webhook.secret\"\n\
             [paths]\ndata = {data:?}\n\
             [[repositories]]\nname = {REPOSITORY:?}\n\
             [policy]\nisolation_min = {weak:?}\ncommands_per_minute = 10000\n\
             [reconcile]\ninterval = \"1h\"\n\
             [agents.sleeper]\ndescription = \"Sleeps until it is ended\"\nargv = [\"sleep\", \"3600\"]\nprompt = \"stdin\"\n",
            data = place.join("data"),
        );
        std::fs::write(place.join("lazarus.toml"), config)?;
        Ok(Self { place: place.to_owned(), listen })
    }

    /// A command of the binary, in an environment of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(LAZARUS);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.place)
            .env("LAZARUS_CONFIG", self.place.join("lazarus.toml"))
            .env("LAZARUS_LOG", "info")
            .stdin(Stdio::null());
        command
    }

    /// The registry's file.
    pub fn registry(&self) -> PathBuf {
        self.place.join("data/registry.sqlite")
    }

    /// Where deliveries go.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }
}

impl Drop for Installation {
    /// Ends every cell that still lives, and takes its control group away.
    fn drop(&mut self) {
        for run in std::fs::read_dir(self.place.join("data/run")).into_iter().flatten().flatten() {
            let group = std::fs::read(run.path().join(lazarus::keeper::GROUP)).unwrap_or_default();
            let (Ok(lock), Ok(pid)) =
                (std::fs::File::open(run.path().join("lock")), std::fs::read_to_string(run.path().join("keeper.pid")))
            else {
                continue;
            };
            // Only while the lock is held is the number the keeper's.
            let held = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err();
            if held && let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
                let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared);
            }
            if let Ok(group) = serde_json::from_slice::<lazarus::sandbox::Group>(&group) {
                group.remove();
            }
        }
    }
}

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    started: Instant,
    log: mpsc::UnboundedReceiver<(Instant, String)>,
    kept: Vec<String>,
}

impl Daemon {
    /// Starts it, without waiting.
    pub fn start(installation: &Installation) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = installation.command().arg("serve").stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let (send, log) = mpsc::unbounded_channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = send.send((Instant::now(), line));
                }
            });
        }
        Ok(Self { child, started, log, kept: vec![] })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its log; returns it, and the milliseconds from the
    /// start to it.
    pub async fn line(&mut self, words: &str) -> anyhow::Result<(f64, String)> {
        loop {
            let next = tokio::time::timeout(CEILING, self.log.recv()).await;
            let Ok(Some((at, line))) = next else {
                anyhow::bail!("the daemon's log has no line with `{words}`; it ends with\n{}", self.tail());
            };
            self.kept.push(line.clone());
            if line.contains(words) {
                return Ok(((at - self.started).as_secs_f64() * 1000.0, line));
            }
        }
    }

    /// The last lines of its log.
    pub fn tail(&mut self) -> String {
        while let Ok((_, line)) = self.log.try_recv() {
            self.kept.push(line);
        }
        self.kept[self.kept.len().saturating_sub(20)..].join("\n")
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self, http: &reqwest::Client, listen: SocketAddr) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !http.get(format!("http://{listen}/readyz")).send().await.is_ok_and(|a| a.status() == 200) {
            if begun.elapsed() > CEILING || self.child.try_wait()?.is_some() {
                anyhow::bail!("the daemon does not get ready:\n{}", self.tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends it with that signal and waits; its cells go on.
    pub fn end(mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One number of `/proc/PID/…`, in kB.
pub fn kilobytes(pid: u32, file: &str, field: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

/// A client for what is not measured.
pub fn client() -> anyhow::Result<reqwest::Client> {
    // reqwest wants one even for plain HTTP; a second install is a no-op.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?)
}

struct World {
    installation: Installation,
    forge: QuickForge,
    deliveries: Deliveries,
    http: reqwest::Client,
    comments: i64,
}

impl World {
    /// Sends a delivery; returns when it began.
    async fn say(&mut self, on: i64, text: &str) -> anyhow::Result<Instant> {
        self.comments += 1;
        let written = self.forge.write(self.comments, on, text);
        let body = self.deliveries.of(&written, on);
        let request = self
            .http
            .post(format!("http://{}/webhook", self.installation.listen))
            .header("content-type", "application/json")
            .header("x-gitea-event", "issue_comment")
            .header("x-gitea-signature", signature(&body))
            .body(body);
        let begun = Instant::now();
        let answer = request.send().await?;
        anyhow::ensure!(answer.status().is_success(), "a delivery was answered {}", answer.status());
        Ok(begun)
    }

    /// The next comment of that kind on that issue, or on any.
    async fn heard(&mut self, kind: &str, on: Option<i64>, daemon: &mut Daemon) -> anyhow::Result<(Instant, i64)> {
        let kind = format!("<!-- lazarus kind={kind} ");
        loop {
            let next = tokio::time::timeout(CEILING, self.forge.posted.recv()).await;
            let Ok(Some(posted)) = next else {
                anyhow::bail!("no comment `{kind}…` came; the daemon's log ends with\n{}", daemon.tail());
            };
            if posted.body.contains(&kind) && on.is_none_or(|n| n == posted.issue) {
                return Ok((posted.at, posted.issue));
            }
        }
    }
}

pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    println!("command_to_comment, daemon_memory, adopt: {CELLS} cells are summoned first");
    let place = Place::new("daemon")?;
    let forge = QuickForge::start(&place.0).await?;
    let installation = Installation::new(&place.0, &forge.url)?;
    let mut daemon = Daemon::start(&installation)?;
    let mut world = World { installation, forge, deliveries: Deliveries::new()?, http: client()?, comments: 0 };
    daemon.ready(&world.http, world.installation.listen).await?;
    let empty = kilobytes(daemon.pid(), "status", "VmRSS:")?;

    let begun = Instant::now();
    for number in 1..=CELLS {
        world.say(number, "/summon sleeper").await?;
    }
    let mut started = HashSet::new();
    while (started.len() as i64) < CELLS {
        started.insert(world.heard("spawn-log", None, &mut daemon).await?.1);
    }
    report.note(format!("{CELLS} cells summoned, cloned and started in {:.1} s", milliseconds(begun) / 1000.0));
    // Status comments and labels are still on their way.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let filled = kilobytes(daemon.pid(), "status", "VmRSS:")?;

    let mut took = vec![];
    for index in 0..COMMANDS {
        let on = 1 + index % CELLS;
        let text = if index % 2 == 0 { "/status" } else { "/extend 1m" };
        let begun = world.say(on, text).await?;
        let (at, _) = world.heard("answer", Some(on), &mut daemon).await?;
        took.push((at - begun).as_secs_f64() * 1000.0);
    }
    for (name, part, limit) in [("command_to_comment_p50", 0.5, 25.0), ("command_to_comment_p99", 0.99, 100.0)] {
        report.add(Figure { name, value: quantile(&took, part), unit: "ms", anchor: None, limit: Limit::Value(limit) });
    }
    for (what, first) in [("/status", 0), ("/extend", 1)] {
        let some: Vec<f64> = took.iter().skip(first).step_by(2).copied().collect();
        report.note(format!(
            "command_to_comment of {what}: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
            median(&some),
            quantile(&some, 0.99),
            quantile(&some, 1.0)
        ));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = kilobytes(daemon.pid(), "status", "VmRSS:")?;
    let anonymous = kilobytes(daemon.pid(), "status", "RssAnon:")?;
    report.add(Figure {
        name: "daemon_memory",
        value: after.max(filled) / 1024.0,
        unit: "MB",
        anchor: None,
        limit: Limit::Value(30.0),
    });
    report.note(format!(
        "daemon_memory (RSS): {:.1} MB without cells, {:.1} MB with {CELLS} just started, {:.1} MB after {COMMANDS} commands more; {:.1} MB of the last is its own, the rest the binary's file",
        empty / 1024.0, filled / 1024.0, after / 1024.0, anonymous / 1024.0
    ));

    let mut adopted = vec![];
    let mut inside = vec![];
    for round in 0..RESTARTS {
        // Stopped and killed in turn.
        daemon.end(if round % 2 == 0 { Signal::TERM } else { Signal::KILL })?;
        daemon = Daemon::start(&world.installation)?;
        let (took, line) = daemon.line("live cells adopted").await?;
        let count = |word: &str| number_after(&line, word);
        anyhow::ensure!(count("adopted=") == Some(CELLS), "not all were adopted: {line}");
        adopted.push(took);
        inside.extend(count("milliseconds=").map(|n| n as f64));
        daemon.ready(&world.http, world.installation.listen).await?;
    }
    report.add(Figure {
        name: "adopt",
        value: median(&adopted),
        unit: "ms",
        anchor: None,
        limit: Limit::Value(1000.0),
    });
    report.note(format!("adopt: {:.0} ms of it by the daemon's own count", median(&inside)));
    let resident = kilobytes(daemon.pid(), "status", "VmRSS:")?;
    report.note(format!("daemon_memory after adoption alone: {:.1} MB", resident / 1024.0));
    daemon.end(Signal::TERM)
}

/// The number after `word` in a line of the log, which may be coloured.
fn number_after(line: &str, word: &str) -> Option<i64> {
    let plain: String = strip_colours(line);
    let (_, rest) = plain.split_once(word)?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            for c in characters.by_ref() {
                if c == 'm' {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}
