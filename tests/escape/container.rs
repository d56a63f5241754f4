//! The attempts in a Docker container: an engine of Debian's `docker.io`, on a
//! socket of its own, without a bridge and without packet filter rules, and an
//! image that holds busybox alone. Nothing is installed or fetched.

use crate::host_fixture::{HostFixture, Words, directory};
use crate::isolated_run::{self, is_root};
use crate::sandbox_under_test::{HOME, SandboxUnderTest, Verdicts, run};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

const IMAGE: &str = "lazarus-escape";
/// How long the engine may take to start or to end.
const CEILING: Duration = Duration::from_secs(20);

/// An engine that runs.
struct Engine {
    daemon: Child,
    place: PathBuf,
    key_was_there: bool,
    settings_were_there: bool,
}

/// Where the engine writes a key, wherever its other files are.
const KEY: &str = "/etc/docker/key.json";

/// The control group below which its containers are.
fn group(place: &Path) -> String {
    place.file_name().unwrap().to_string_lossy().into_owned()
}

impl Engine {
    fn start(place: PathBuf) -> Result<Self, String> {
        let Some(program) = ["/usr/sbin/dockerd", "/usr/bin/dockerd"].into_iter().find(|p| Path::new(p).exists())
        else {
            return Err("no engine".to_owned());
        };
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| is_static(Path::new(p)));
        let Some(busybox) = busybox else { return Err("no engine's image: there is no static busybox".to_owned()) };
        directory(&place, 0o700);
        let log = fs::File::create(place.join("log")).map_err(|e| e.to_string())?;
        let key_was_there = Path::new(KEY).exists();
        let settings_were_there = Path::new(KEY).parent().is_some_and(Path::exists);
        // With mounts and a `/run` of its own, so that nothing of it is left.
        let daemon = Command::new(isolated_run::program())
            .args(["stage", "mounts", "--", program, "--cgroup-parent", &group(&place), "--data-root"])
            .arg(place.join("data"))
            .arg("--exec-root")
            .arg(place.join("exec"))
            .arg("--pidfile")
            .arg(place.join("pid"))
            .args(["-H", &socket(&place), "--storage-driver", "overlay2"])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut engine = Self { daemon, place, key_was_there, settings_were_there };
        engine.wait_until_ready()?;
        engine.load(Path::new(busybox))?;
        Ok(engine)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while !self.client().arg("version").output().is_ok_and(|o| o.status.success()) {
            let ended = self.daemon.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || started.elapsed() > CEILING {
                let log = fs::read_to_string(self.place.join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default().chars().take(300).collect::<String>();
                return Err(format!("the engine does not start: {last}"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn load(&self, busybox: &Path) -> Result<(), String> {
        let root = self.place.join("image");
        fs::create_dir_all(root.join("bin")).map_err(|e| e.to_string())?;
        fs::copy(busybox, root.join("bin/busybox")).map_err(|e| e.to_string())?;
        let archive = self.place.join("image.tar");
        let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status();
        if !packed.is_ok_and(|s| s.success()) {
            return Err("the engine's image could not be packed".to_owned());
        }
        let loaded = self.client().arg("import").arg(&archive).arg(IMAGE).output().map_err(|e| e.to_string())?;
        if loaded.status.success() {
            Ok(())
        } else {
            Err(format!("the engine takes no image: {}", String::from_utf8_lossy(&loaded.stderr).trim()))
        }
    }

    fn client(&self) -> Command {
        let mut command = Command::new("docker");
        // Nobody's settings, and no other engine.
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/usr/local/bin").env("HOME", &self.place);
        command.args(["-H", &socket(&self.place)]).stdin(Stdio::null());
        command
    }
}

fn socket(place: &Path) -> String {
    format!("unix://{}", place.join("s").display())
}

/// Whether a program needs no libraries: it names no loader.
fn is_static(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| !bytes.windows(9).any(|w| w == b"/ld-linux") && bytes.starts_with(b"\x7fELF"))
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let started = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) && started.elapsed() < CEILING {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.place);
        if !self.key_was_there {
            let _ = fs::remove_file(KEY);
        }
        if !self.settings_were_there {
            // It goes only if it is empty.
            let _ = Path::new(KEY).parent().map(fs::remove_dir);
        }
        let groups = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten().map(|e| e.path());
        for hierarchy in hierarchies.chain([groups.to_owned()]) {
            remove_groups(&hierarchy.join(group(&self.place)));
        }
    }
}

/// Removes a control group and those below it; their files go with them.
fn remove_groups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// The attempts in a container as `docker run` makes it.
pub fn docker(fixture: &HostFixture, words: &Words) -> Result<Verdicts, String> {
    if !is_root() {
        return Err("only root can start an engine".to_owned());
    }
    // A socket's path has to be short.
    let engine = Engine::start(std::env::temp_dir().join(format!("{}-engine", fixture.name())))?;
    let path = fixture.place.join("docker");
    directory(&path, 0o755);
    let mut words = words.clone();
    let own = || Err("a container has a copy of the system that is its own".to_owned());
    for (word, value) in [
        ("init", Err("the first process of a container is the program itself".to_owned())),
        ("system_program", own()),
        ("covered", Ok(HOME.to_owned())),
        ("remountable", Ok("/proc/sys".to_owned())),
    ] {
        words.insert(word, value);
    }
    let column = SandboxUnderTest::plan(fixture, &path, HOME, words);
    let volume = |from: &Path, to: &str, mode: &str| format!("{}:{to}:{mode}", from.display());
    let tools = fixture.tools.display().to_string();
    let mut command = engine.client();
    command
        .args(["run", "--rm", "--network", "none"])
        .args(["-v", &volume(&fixture.tools, &tools, "ro"), "-v", &volume(&path, HOME, "rw"), "-w", HOME, IMAGE])
        .arg(fixture.tools.join("attempts"))
        .args(["serve", HOME]);
    let verdicts = run(command, column);
    drop(engine);
    verdicts
}
