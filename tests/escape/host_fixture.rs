//! What there is to be got at on the host: files, a process, services, memory.
//! Everything is the test's own and goes with it.

use crate::isolated_run::{self, is_root, program, rand};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

/// Whom the host's processes belong to where this is root: nobody that exists.
const STRANGER: u32 = 1_000_777_777;

/// What is put in for a word in braces, or why there is nothing.
pub type Words = BTreeMap<&'static str, Result<String, String>>;

/// The host's side.
pub struct HostFixture {
    mark: String,
    pub place: PathBuf,
    pub tools: PathBuf,
    words: Words,
    ipc_key: String,
    over: Arc<AtomicBool>,
}

/// A process of the host that may be attacked.
pub struct Victim {
    child: Child,
    file: PathBuf,
}

impl Victim {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Whether a signal arrived.
    pub fn was_signalled(&mut self) -> bool {
        fs::read(&self.file).is_ok_and(|seen| seen.contains(&b'!')) || self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a directory that others can enter, or write as well.
pub fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The program of the attempts as the host's other user, where there is one.
pub fn as_stranger(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.args(["stage", &format!("uid={STRANGER}"), "--"]).arg(program);
    }
    command
}

/// Gives a directory to that user.
pub fn give_to_stranger(path: &Path) {
    if is_root() {
        chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    }
}

impl HostFixture {
    pub fn new() -> Self {
        let mark = format!("lzesc-{}", hex::encode(rand::<4>()));
        let place = isolated_run::place().join(&mark);
        fs::write(env::temp_dir().join(&mark), "something of the host\n").unwrap();
        let (tools, host_home) = (place.join("tools"), place.join("somebodys-home"));
        directory(&place, 0o755);
        directory(&place.join("victims"), 0o777);
        directory(&tools, 0o777);
        directory(&host_home, 0o777);
        fs::write(host_home.join("secret"), "treasure of a user\n").unwrap();
        for name in ["attempts", "program", "setuid"] {
            fs::copy(program(), tools.join(name)).unwrap();
        }
        fs::set_permissions(tools.join("attempts"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(tools.join("program"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(tools.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();

        let over = Arc::new(AtomicBool::new(false));
        let ipc_key = (1 + u32::from_ne_bytes(rand()) / 4).to_string();
        let made = Command::new(program()).args(["ipc-make", &ipc_key, &mark]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ipc_id = String::from_utf8_lossy(&made.stdout).trim().to_owned();

        let network = isolated_run::network();
        let mut words = Words::new();
        let port = services(&host_home, &mark, network.is_ok(), &over);
        let bait = bait(&over);
        let address = |address: &str| network.clone().map(|()| address.to_owned());
        let (disk, disk_path) = disk();
        let at = |path: &Path| Ok(path.display().to_string());
        let (cgroup, cgroup_v1) = control_groups();
        for (word, value) in [
            ("mark", Ok(mark.clone())),
            ("tools", at(&tools)),
            ("host_home", at(&host_home)),
            ("host_tmp", at(&env::temp_dir())),
            ("port", Ok(port.to_string())),
            ("bait", Ok(bait.to_string())),
            ("lan", address("192.168.77.1")),
            ("lan6", address("fd00:77::1")),
            ("metadata", address("169.254.169.254")),
            ("ipc_key", Ok(ipc_key.clone())),
            ("ipc_id", Ok(ipc_id)),
            ("key", isolated_run::key()),
            ("disk", disk),
            ("disk_path", disk_path),
            ("cgroup", cgroup),
            ("cgroup_v1", cgroup_v1),
        ] {
            words.insert(word, value);
        }
        if !is_root() {
            // Its owner is who runs it.
            fs::remove_file(tools.join("setuid")).unwrap();
        }
        Self { mark, place, tools, words, ipc_key, over }
    }

    /// A name that no other run has.
    pub fn name(&self) -> &str {
        &self.mark
    }

    /// What every column finds.
    pub fn words(&self) -> Words {
        self.words.clone()
    }

    /// A process that belongs to the user as whom attempts are made on the host.
    pub fn victim(&self) -> Victim {
        let file = self.place.join("victims").join(hex::encode(rand::<6>()));
        let child = as_stranger(&self.tools.join("attempts"))
            .arg("victim")
            .arg(&file)
            .arg("treasure of a process")
            .env("TREASURE", "treasure of an environment")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..500 {
            if file.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Victim { child, file }
    }
}

impl Drop for HostFixture {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = Command::new(program()).args(["ipc-remove", &self.ipc_key, &self.mark]).status();
        let _ = fs::remove_file(env::temp_dir().join(&self.mark));
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Services of the host, until it is over: TCP and UDP on one port, a socket in
/// a home, abstract ones. Where the network is the test's own, on every address.
fn services(home: &Path, mark: &str, everywhere: bool, over: &Arc<AtomicBool>) -> u16 {
    let mut listeners = vec![];
    let port = if everywhere {
        let all = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = all.local_addr().unwrap().port();
        listeners.push(all);
        port
    } else {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        listeners.push(first);
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
        port
    };
    let any = if everywhere { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let udp = UdpSocket::bind((any, port)).unwrap();
    udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let path = UnixListener::bind(home.join("service.sock")).unwrap();
    fs::set_permissions(home.join("service.sock"), fs::Permissions::from_mode(0o777)).unwrap();
    let name = |name: &str| UnixAddr::from_abstract_name(name.as_bytes()).unwrap();
    let hidden = UnixListener::bind_addr(&name(mark)).unwrap();
    let letters = UnixDatagram::bind_addr(&name(&format!("{mark}-d"))).unwrap();
    let over = Arc::clone(over);
    thread::spawn(move || {
        let _held = (listeners, path, hidden, letters);
        let mut buffer = [0; 64];
        while !over.load(Ordering::SeqCst) {
            if let Ok((read, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..read], from);
            }
        }
    });
    port
}

/// A port of the host's loopback that a program of the host tries all the time.
fn bait(over: &Arc<AtomicBool>) -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    let over = Arc::clone(over);
    thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
            thread::sleep(Duration::from_millis(40));
        }
    });
    port
}

/// The disk that `/` is on: its numbers, its name in `/dev`.
fn disk() -> (Result<String, String>, Result<String, String>) {
    let none = |why: &str| (Err(why.to_owned()), Err(why.to_owned()));
    let Ok(root) = fs::metadata("/") else { return none("there is no /") };
    let (major, minor) = (rustix::fs::major(root.dev()), rustix::fs::minor(root.dev()));
    let Ok(about) = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")) else {
        return none("/ is on no disk here");
    };
    let name = about.lines().find_map(|l| l.strip_prefix("DEVNAME=")).map(|n| format!("/dev/{n}"));
    (Ok(format!("{major} {minor}")), name.ok_or_else(|| "the disk has no name here".to_owned()))
}

/// A hierarchy of control groups in which one can be made, and one with a
/// release agent.
fn control_groups() -> (Result<String, String>, Result<String, String>) {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"];
    let with = |file: &str, why: &str| {
        places.iter().find(|p| Path::new(p).join(file).exists()).map(|p| (*p).to_owned()).ok_or_else(|| why.to_owned())
    };
    (
        with("cgroup.procs", "there are no control groups here"),
        with("release_agent", "there are no control groups of version 1 here"),
    )
}

/// Reads a file's lines, in order.
pub fn lines(path: &Path) -> Vec<String> {
    fs::File::open(path).map(|f| BufReader::new(f).lines().map_while(Result::ok).collect()).unwrap_or_default()
}
