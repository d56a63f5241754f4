//! The proxy as the process that it is in production.

use super::*;
use lazarus::egress::{Report, Spec, User, lives, start};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::Instant;

const LAZARUS: &str = env!("CARGO_BIN_EXE_lazarus");

/// Ends the process with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends a process that is not a child, where its proxy still lives.
struct EndingStray(rustix::process::Pid, std::path::PathBuf);

impl EndingStray {
    fn tell(&self) {
        if lives(&self.1) {
            let _ = rustix::process::kill_process(self.0, rustix::process::Signal::TERM);
        }
    }
}

impl Drop for EndingStray {
    fn drop(&mut self) {
        self.tell();
    }
}

fn spec(directory: &Path) -> Spec {
    let root = rustix::process::geteuid().is_root();
    let mut rules = rules(&["host.example.org:22 plain"]);
    rules.allow_addresses = vec!["127.0.0.1".parse().unwrap()];
    Spec {
        cell: "laz-test".to_owned(),
        token: Token::new().unwrap(),
        rules,
        directory: directory.to_owned(),
        user: root.then_some(User { uid: 65_534, gid: 65_534 }),
        addresses: [("host.example.org".parse().unwrap(), vec!["127.0.0.1".parse().unwrap()])].into(),
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < CEILING, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(mut stream: impl std::io::Read + std::io::Write, token: &Token, to: &str) -> String {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("lazarus:{}", token.expose()));
    write!(stream, "CONNECT {to} HTTP/1.1\r\nProxy-Authorization: Basic {pair}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix(field)).unwrap().trim().to_owned()
}

#[test]
fn it_serves_with_no_rights_and_no_secret_to_be_seen_and_ends_with_its_cell() {
    let directory = tempfile::tempdir().unwrap();
    let spec = spec(directory.path());
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (ends, cell) = std::io::pipe().unwrap();
    assert!(!lives(directory.path()));
    let mut proxy = Ending(start(Path::new(LAZARUS), &spec, listener.as_fd(), Some(ends.as_fd())).unwrap());
    drop((listener, ends));
    assert!(lives(directory.path()));

    let pid = proxy.0.id();
    assert_eq!(status_field(pid, "NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(status_field(pid, set).trim_start_matches('0'), "", "{set}");
    }
    if rustix::process::geteuid().is_root() {
        assert_eq!(status_field(pid, "Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(status_field(pid, "Groups:"), "");
        assert_eq!(status_field(pid, "CapBnd:").trim_start_matches('0'), "");
    }
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(spec.token.expose()), "{file}");
    }
    println!("resident {}, own {}", status_field(pid, "VmRSS:"), status_field(pid, "RssAnon:"));

    let host = StdListener::bind("127.0.0.1:0").unwrap();
    assert!(ask(StdStream::connect(at).unwrap(), &spec.token, "evil.example.org:443").contains(" 403 "));
    assert!(ask(StdStream::connect(at).unwrap(), &Token::new().unwrap(), "host.example.org:22").contains(" 407 "));
    drop(host);

    drop(cell);
    until("it does not end with its cell", || proxy.0.try_wait().unwrap().is_some());
    assert!(!lives(directory.path()));
    let report = Report::read(directory.path()).unwrap().unwrap();
    assert!(report.ended);
    assert_eq!(report.refused, [(Reason::NotNamed, 1), (Reason::Token, 1)].into());
    let refusals = std::fs::read_to_string(directory.path().join(lazarus::egress::REFUSALS)).unwrap();
    assert_eq!(refusals.lines().count(), 2);
}

#[test]
fn its_tunnels_work_over_a_unix_socket_and_it_ends_by_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let host = StdListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let mut spec = spec(directory.path());
    spec.rules.hosts = vec![format!("host.example.org:{port} plain").parse().unwrap()];
    let listener = UnixListener::bind(place.path().join("proxy.sock")).unwrap();
    let mut proxy = Ending(start(Path::new(LAZARUS), &spec, listener.as_fd(), None).unwrap());

    let mut stream = UnixStream::connect(place.path().join("proxy.sock")).unwrap();
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("lazarus:{}", spec.token.expose()));
    write!(stream, "CONNECT host.example.org:{port} HTTP/1.1\r\nProxy-Authorization: Basic {pair}\r\n\r\n").unwrap();
    let (mut server, _) = host.accept().unwrap();
    server.write_all(b"welcome").unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let mut byte = [0];
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200 ") && answer == "welcome", "{answer}");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // While it runs: a reader of the file sees it within seconds.
    let counted = || Report::read(directory.path()).unwrap().unwrap_or_default().hosts;
    until("the counters are not written", || counted().values().any(|count| count.bytes_in == 7));

    let pid = rustix::process::Pid::from_child(&proxy.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it does not end", || proxy.0.try_wait().unwrap().is_some());
    assert!(Report::read(directory.path()).unwrap().unwrap().ended);
}

#[test]
fn what_it_cannot_do_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let good = spec(directory.path());
    let why =
        |spec: &Spec| start(Path::new(LAZARUS), spec, listener.as_fd(), None).map(Ending).err().unwrap().to_string();

    let no_directory = Spec { directory: directory.path().join("none"), ..good.clone() };
    assert!(why(&no_directory).contains("opening the directory"), "{}", why(&no_directory));
    if rustix::process::geteuid().is_root() {
        for user in [None, Some(User { uid: 0, gid: 5 })] {
            let root = Spec { user, ..good.clone() };
            assert!(why(&root).contains("does not run as root"), "{}", why(&root));
        }
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = start(Path::new(LAZARUS), &good, file.as_fd(), None).map(Ending).err().unwrap().to_string();
    assert!(error.contains("using the listening socket") || error.contains("socket"), "{error}");

    let first = Ending(start(Path::new(LAZARUS), &good, listener.as_fd(), None).unwrap());
    assert!(why(&good).contains("runs already"), "{}", why(&good));
    drop(first);
}

#[test]
fn by_hand_it_says_who_starts_it() {
    let output =
        std::process::Command::new(LAZARUS).arg("cell-egress").stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("the daemon starts this"), "{output:?}");
}

/// What the next test runs as a process of its own: starts a proxy, says where,
/// and waits to be killed. Alone it does nothing.
#[test]
#[allow(clippy::zombie_processes, reason = "it is there to be killed with a child left behind")]
fn somebody_who_starts_a_proxy() {
    let Some(directory) = std::env::var_os("EGRESS_TEST_STARTER") else { return };
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let mut spec = spec(&Path::new(&directory).join("egress"));
    let port = std::env::var("EGRESS_TEST_PORT").unwrap();
    spec.rules.hosts = vec![format!("host.example.org:{port} plain").parse().unwrap()];
    let proxy = start(Path::new(LAZARUS), &spec, listener.as_fd(), None).unwrap();
    let told = format!("{} {} {}", proxy.id(), listener.local_addr().unwrap(), spec.token.expose());
    std::fs::write(Path::new(&directory).join("new"), told).unwrap();
    std::fs::rename(Path::new(&directory).join("new"), Path::new(&directory).join("told")).unwrap();
    std::thread::sleep(CEILING);
}

#[test]
fn its_tunnels_outlive_whoever_started_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("egress")).unwrap();
    let host = StdListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let mut starter = Ending(
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::somebody_who_starts_a_proxy"])
            .env("EGRESS_TEST_STARTER", directory.path())
            .env("EGRESS_TEST_PORT", port.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    let told = directory.path().join("told");
    until("nothing was started", || told.exists());
    let told = std::fs::read_to_string(told).unwrap();
    let [pid, at, token] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    let stray = EndingStray(pid, directory.path().join("egress"));
    let token = Token::parse(token).unwrap();
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("lazarus:{}", token.expose()));
    let tunnel = || {
        let mut stream = StdStream::connect(at).unwrap();
        write!(stream, "CONNECT host.example.org:{port} HTTP/1.1\r\nProxy-Authorization: Basic {pair}\r\n\r\n")
            .unwrap();
        let (server, _) = host.accept().unwrap();
        let (mut head, mut byte) = (vec![], [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (stream, server)
    };
    let carries = |(stream, server): &mut (StdStream, StdStream)| {
        let mut heard = [0; 2];
        stream.write_all(b"to").unwrap();
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"to");
        server.write_all(b"fr").unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"fr");
    };
    let mut before = tunnel();
    carries(&mut before);

    starter.0.kill().unwrap();
    starter.0.wait().unwrap();
    carries(&mut before);
    carries(&mut tunnel());

    stray.tell();
    until("it does not end", || !lives(&directory.path().join("egress")));
}
