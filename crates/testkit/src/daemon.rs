//! The binary under test as a process: started, asked, stopped and killed by
//! its process id, never by name.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt as _;

use serde_json::Value;

/// How long anything may take before the test gives up on it.
pub const CEILING: Duration = Duration::from_secs(30);

/// Where the binary, its configuration and its log are, and under which
/// environment it runs.
#[derive(Clone)]
pub struct Installation {
    /// The configuration file.
    pub config: PathBuf,
    /// The home directory of whoever runs it; empty at first.
    pub home: PathBuf,
    /// Where the daemon's output goes.
    pub log: PathBuf,
    /// Where the daemon listens.
    pub listen: SocketAddr,
    /// Further environment: canaries, overrides.
    pub environment: Vec<(String, String)>,
    /// Whether it may not make user namespaces.
    pub poor_host: bool,
    /// The program that the daemon is started from: the built one, or a copy that may be replaced.
    pub daemon_program: PathBuf,
}

/// What a command of the command line printed.
pub struct CliOutput {
    /// How it exited.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// The one JSON object of `--json`.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(self.stdout.trim()) {
            Ok(value) => value,
            Err(error) => panic!("not one JSON object ({error}):\n{}\nstderr:\n{}", self.stdout, self.stderr),
        }
    }

    /// Both streams, for messages and searches.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Installation {
    /// A command of the binary, its environment built from nothing.
    pub fn command(&self) -> Command {
        self.command_of(&super::program())
    }

    /// The same of another file of the binary.
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.home)
            .env("LAZARUS_CONFIG", &self.config)
            .env("LAZARUS_LOG", std::env::var("LAZARUS_LOG").unwrap_or_else(|_| "info,lazarus=debug".into()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.home)
            .stdin(Stdio::null());
        if self.poor_host {
            // SAFETY: it makes system calls and nothing else.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(super::no_namespaces::refuse_user_namespaces);
            }
        }
        command
    }

    /// Runs one command of the command line to its end. Blocks: a command that
    /// hangs longer than the ceiling is killed and fails the test.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> CliOutput {
        self.run_with(arguments, &[])
    }

    /// The same with further environment.
    #[track_caller]
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> CliOutput {
        // Files and not pipes: what outlives the command must not keep us waiting.
        let place = tempfile::tempdir().expect("a temporary directory");
        let (out, err) = (place.path().join("out"), place.path().join("err"));
        let mut child = self
            .command()
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(File::create(&out).expect("a file for stdout"))
            .stderr(File::create(&err).expect("a file for stderr"))
            .spawn()
            .expect("the binary starts");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for our child") {
                break status;
            }
            if started.elapsed() > CEILING {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "`lazarus {}` did not end within {CEILING:?}\n{}{}",
                    arguments.join(" "),
                    lossy(&out),
                    lossy(&err)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        CliOutput { status, stdout: lossy(&out), stderr: lossy(&err) }
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let log = lossy(&self.log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(150)..].join("\n")
    }
}

/// `lazarus serve`, running or not.
pub struct Daemon {
    installation: Installation,
    child: Option<Child>,
    health: reqwest::Client,
}

impl Daemon {
    /// A daemon that is not started yet.
    pub fn new(installation: Installation) -> Self {
        let health =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("an HTTP client");
        Self { installation, child: None, health }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon is running already");
        let log = OpenOptions::new().create(true).append(true).open(&self.installation.log).expect("the log file");
        let mut command = self.installation.command_of(&self.installation.daemon_program);
        command.arg("serve").arg("--config").arg(&self.installation.config);
        command.stdout(log.try_clone().expect("the log file")).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(&mut self) {
        self.launch();
        let started = Instant::now();
        while !self.is_ready().await {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                self.child = None;
                panic!("`lazarus serve` ended with {status} at start:\n{}", self.installation.log_tail());
            }
            assert!(
                started.elapsed() < CEILING,
                "the daemon was not ready within {CEILING:?}:\n{}",
                self.installation.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether `/readyz` answers 200.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.installation.listen);
        self.health.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGTERM, as a service manager stops it; waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("the daemon is running");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM to our child");
        self.wait().await
    }

    /// Waits until the process has ended by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon is running");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("wait for our child") {
                return status;
            }
            if started.elapsed() > CEILING {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the daemon did not end within {CEILING:?}:\n{}", self.installation.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL: no chance to write anything down.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the daemon is running");
        child.kill().expect("SIGKILL to our child");
        child.wait().expect("wait for our child");
    }

    /// Stop and start.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
