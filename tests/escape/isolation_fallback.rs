//! Threat line 34: a host that lacks something. Such hosts are made here, for
//! one process each: a mount namespace in which the kernel's switch for user
//! namespaces reads 0, a filter that refuses to make any, and an ordinary user.
//! That takes root; without it these tests say so and do nothing.
#![allow(unsafe_code, reason = "a child becomes a poorer host between fork and exec")]

use std::ffi::CString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::no_namespaces::{check, refuse_user_namespaces};

const LAZARUS: &str = env!("CARGO_BIN_EXE_lazarus");
/// `nobody`.
const USER: u32 = 65_534;

/// A host for one process: what covers what.
struct Host {
    place: tempfile::TempDir,
    covers: Vec<(PathBuf, PathBuf)>,
}

fn path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

impl Host {
    /// One without user namespaces; `None`, said, where it cannot be made.
    fn without_user_namespaces() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: such a host can only be made as root");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut host = Self { place, covers: vec![] };
        host.cover("/proc/sys/user/max_user_namespaces", b"0\n", 0o644);
        // Built trees of others lie where this user cannot go.
        let program = host.place.path().join("lazarus");
        std::fs::copy(LAZARUS, &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Some(host)
    }

    fn cover(&mut self, file: &str, content: &[u8], mode: u32) {
        let own = self.place.path().join(file.replace('/', "_"));
        std::fs::write(&own, content).unwrap();
        std::fs::set_permissions(&own, PermissionsExt::from_mode(mode)).unwrap();
        self.covers.push((own, file.into()));
    }

    /// With a `bwrap` that may do what others may not; without one if there is none.
    fn with_setuid_bwrap(mut self) -> Option<Self> {
        let Ok(program) = std::fs::read("/usr/bin/bwrap") else {
            eprintln!("not run: bubblewrap is not installed");
            return None;
        };
        self.cover("/usr/bin/bwrap", &program, 0o4755);
        Some(self)
    }

    /// With no `bwrap` that could be run.
    fn without_bwrap(mut self) -> Self {
        for place in ["/usr/bin/bwrap", "/usr/local/bin/bwrap"] {
            if Path::new(place).exists() {
                self.cover(place, b"", 0o644);
            }
        }
        self
    }

    fn lazarus(&self, arguments: &[&str]) -> Output {
        let home = self.place.path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
        let covers: Vec<(CString, CString)> = self.covers.iter().map(|(own, over)| (path(own), path(over))).collect();
        let mut command = Command::new(self.place.path().join("lazarus"));
        command.args(arguments).env("HOME", &home).env("TMPDIR", &home).current_dir(&home);
        command.env_remove("LAZARUS_CONFIG").stdin(std::process::Stdio::null());
        // SAFETY: nothing but system calls, with memory that was made before.
        unsafe { command.pre_exec(move || become_host(&covers)) };
        command.output().unwrap()
    }
}

/// In the child, before it becomes Lazarus.
fn become_host(covers: &[(CString, CString)]) -> io::Result<()> {
    // SAFETY: the strings live through the calls; the rest is numbers.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()))?;
        for (own, over) in covers {
            check(libc::mount(own.as_ptr(), over.as_ptr(), none, libc::MS_BIND, std::ptr::null()))?;
        }
        refuse_user_namespaces()?;
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(USER, USER, USER))?;
        check(libc::setresuid(USER, USER, USER))
    }
}

fn probe(host: &Host) -> serde_json::Value {
    let output = host.lazarus(&["cell-probe"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn threat_34_where_only_bwrap_may_make_namespaces_it_makes_them() {
    let Some(host) = Host::without_user_namespaces().and_then(Host::with_setuid_bwrap) else { return };
    let found = probe(&host);
    assert_eq!((&found["namespaces"], &found["bwrap"]), (&false.into(), &"/usr/bin/bwrap".into()), "{found}");

    let played = host.lazarus(&["demo"]);
    let said = text(&played);
    assert!(played.status.success(), "{said}");
    assert!(said.contains("isolation level_2"), "{said}");
    let mut grep = Command::new("grep");
    let found = grep.args(["-rl", "made by bwrap", "--include=spawn.log"]).arg(host.place.path()).output().unwrap();
    assert!(!found.stdout.is_empty(), "no spawn log says who made the walls\n{said}");
    assert!(said.contains("Pull request: #2"), "{said}");
}

#[test]
fn threat_34_where_nothing_may_make_namespaces_it_is_said_and_only_level_1_is_given() {
    let Some(host) = Host::without_user_namespaces().map(Host::without_bwrap) else { return };
    let found = probe(&host);
    assert_eq!((&found["namespaces"], &found["bwrap"]), (&false.into(), &serde_json::Value::Null), "{found}");
    assert!(found["missing"][0]["hint"].as_str().unwrap().contains("user.max_user_namespaces"), "{found}");

    let played = host.lazarus(&["demo"]);
    let said = text(&played);
    assert!(played.status.success(), "{said}");
    assert!(said.contains("isolation level_1") && !said.contains("isolation level_2"), "{said}");
    assert!(said.contains("sysctl user.max_user_namespaces=15000"), "{said}");
}
