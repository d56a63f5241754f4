//! What an observer may not do. No agent is started as an observer by a command
//! yet, so this one is ordered from the keeper itself, as the daemon would.

use crate::attempt::{Attempt, made, said};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub const ATTEMPTS: &[Attempt] = &[
    made("an observer writes the project", "create {view}/project/{mark}", "{host_view}/project/{mark}"),
    made("an observer writes shared files", "create {view}/shared/{mark}", "{host_view}/shared/{mark}"),
    made("an observer writes where agents work", "create {view}/work/{mark}", "{host_view}/work/{mark}"),
    made(
        "an observer writes the clone's hooks",
        "create {view}/project/.git/{mark}",
        "{host_view}/project/.git/{mark}",
    ),
    said("an observer opens the clone's settings for writing", "write {view}/project/.git/config"),
];

/// The observer's name.
pub const NAME: &str = "watcher";

/// Has the keeper start an observer that makes attempts. Returns its home on the
/// host.
pub fn start(run: &Path, cell_home: &Path, program: &Path) -> std::path::PathBuf {
    let home = cell_home.join("home").join(NAME);
    let like = cell_home.join("home/attacker").metadata().unwrap();
    crate::host_fixture::directory(&home, 0o700);
    chown(&home, Some(like.uid()), Some(like.gid())).unwrap();
    let inside = format!("/cell/home/{NAME}");
    let write: Vec<&str> =
        vec![&inside, "/tmp", "/dev/shm", "/dev/null", "/dev/zero", "/dev/tty", "/dev/pts", "/dev/ptmx"];
    let order = json!({
        "order": "start", "agent": NAME, "run": 1, "argv": [program, "serve", inside],
        "env": [["PATH", "/usr/bin:/bin"], ["HOME", inside]], "stdin": null, "cwd": "/cell/project",
        "view": "observe", "paths": {"read": ["/"], "write": write},
    });
    // A socket's path has to be short.
    let directory = File::open(run).unwrap();
    let mut keeper = UnixStream::connect(format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd())).unwrap();
    keeper.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    keeper.write_all(format!("{order}\n").as_bytes()).unwrap();
    let started =
        BufReader::new(keeper).lines().map_while(Result::ok).find(|l| l.contains(NAME) && !l.contains("hello"));
    let started = started.unwrap_or_else(|| panic!("the keeper does not take the order {order}"));
    assert!(started.contains("started"), "{started}");
    home
}
