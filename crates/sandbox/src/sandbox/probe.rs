//! Finds out what this host supports, by trying: the probe takes the same steps as a cell, in a process of its own,
//! and reports which of them failed and why.

use super::{
    Groups, LandlockPaths, StepError, apply_filter, become_user, build_root, clone_process, compile_filter,
    loopback_up, no_new_privileges, pick_system, pivot, private, restrict_landlock, write_id_maps,
};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

/// Something that `level_2` needs and this host lacks, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// The kernel's error.
    pub why: String,
    /// What to do about it.
    pub hint: String,
}

/// The findings of the probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Whether user, mount, PID, IPC, UTS, network and cgroup namespaces with a root of their own can be made.
    pub namespaces: bool,
    /// The path of `bwrap`, if there are no namespaces and it can make a sandbox for this user.
    #[serde(default)]
    pub bwrap: Option<PathBuf>,
    /// How Landlock is supported: `full` or `partial`; `None` if the kernel has no Landlock.
    pub landlock: Option<String>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether cells can get user ids of their own: as root, if those ids exist in this process's user namespace.
    pub root: bool,
    /// How the memory, processes and processor time of a whole cell are limited.
    #[serde(default)]
    pub groups: Groups,
    /// What prevents `level_2`.
    pub missing: Vec<Missing>,
}

impl HostReport {
    /// The rungs of the isolation ladder, from the top down to the one that cells get, in words.
    pub fn ladder(&self) -> Vec<String> {
        let missing = |what: &str| self.missing.iter().find(|m| m.what == what).map_or("", |m| m.why.as_str());
        let with = |namespaces: &str| {
            if self.level_2() {
                format!("{namespaces}, Landlock ({}), seccomp: level_2", self.landlock.as_deref().unwrap_or("none"))
            } else {
                format!("{namespaces}, but not Landlock and seccomp beside them")
            }
        };
        if self.namespaces {
            return vec![with("namespaces of our own")];
        }
        let mut rungs = vec![format!("not namespaces of our own: {}", missing("namespaces"))];
        if self.bwrap.is_some() {
            rungs.push(with("namespaces by bwrap"));
            return rungs;
        }
        rungs.push(format!("not namespaces by bwrap: {}", missing("sandboxes by bwrap")));
        let landlock = self.landlock.as_deref().map_or("no Landlock".to_owned(), |l| format!("Landlock ({l})"));
        let seccomp = if self.seccomp { "seccomp" } else { "no seccomp" };
        rungs.push(format!("{landlock} and {seccomp} alone: level_1"));
        rungs
    }

    /// Whether this host supports `level_2`.
    pub fn level_2(&self) -> bool {
        (self.namespaces || self.bwrap.is_some()) && self.landlock.is_some() && self.seccomp
    }
}

/// Runs the probe. It forks, so it must run in a single-threaded process of its own (`lazarus cell-probe`).
pub fn probe() -> HostReport {
    // SAFETY: takes no arguments.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut report = HostReport {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        root: uid == 0 && has_ids_to_give(),
        groups: Groups::detect(),
        ..HostReport::default()
    };
    let give = report.root;
    match in_child(
        libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWCGROUP,
        give,
        uid,
        gid,
        || {
            private()?;
            let root =
                build_root(pick_system()?, "probe", &[], &[], &[], || if give { become_user(0, 0) } else { Ok(()) })?;
            pivot(&root)?;
            loopback_up()?;
            Ok(String::new())
        },
    ) {
        Ok(_) => report.namespaces = true,
        Err(why) => {
            report.missing.push(Missing { hint: namespaces_hint(&why), what: "namespaces".into(), why });
            match super::bwrap::probe() {
                Ok(program) => report.bwrap = Some(program),
                Err(why) => report.missing.push(Missing {
                    what: "sandboxes by bwrap".into(),
                    why,
                    hint: "give this program the right to make namespaces, or install bubblewrap where it has it"
                        .into(),
                }),
            }
        }
    }
    match in_child(0, give, uid, gid, || {
        no_new_privileges()?;
        let paths = LandlockPaths { read: vec![PathBuf::from("/")], write: vec![] };
        Ok(restrict_landlock(&paths)?.unwrap_or("").to_owned())
    }) {
        Ok(level) if !level.is_empty() => report.landlock = Some(level),
        other => report.missing.push(Missing {
            what: "Landlock".into(),
            why: other.err().unwrap_or_else(|| "the kernel does not offer it".into()),
            hint:
                "use a kernel of 5.13 or newer that is started with `landlock` in its list of security modules (`lsm=`)"
                    .into(),
        }),
    }
    match in_child(0, give, uid, gid, || {
        no_new_privileges()?;
        apply_filter(&compile_filter(super::Sockets::All, false, false)?)?;
        Ok(String::new())
    }) {
        Ok(_) => report.seccomp = true,
        Err(why) => report.missing.push(Missing {
            what: "seccomp".into(),
            why,
            hint: "use a kernel with CONFIG_SECCOMP_FILTER".into(),
        }),
    }
    report
}

/// First of the user ids that cells get as root: far above those that systems assign.
pub const FIRST_ID: u32 = 1_000_000_000;
/// How many ids must exist from there on, for the probe to report root.
const IDS: u32 = 100_000_000;

/// Whether the ids for cells exist here (in a container they often do not), and this process may give files and
/// processes to them.
fn has_ids_to_give() -> bool {
    let covers = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut fields = line.split_whitespace().map(|f| f.parse::<u64>().unwrap_or(0));
                let (Some(first), Some(count)) = (fields.next(), fields.nth(1)) else { return false };
                first <= u64::from(FIRST_ID) && first + count >= u64::from(FIRST_ID) + u64::from(IDS)
            })
        })
    };
    // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID.
    const NEEDED: u64 = 1 | 1 << 1 | 1 << 6 | 1 << 7;
    let capable = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|l| l.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .is_some_and(|effective| effective & NEEDED == NEEDED)
    });
    capable && covers("/proc/self/uid_map") && covers("/proc/self/gid_map")
}

/// Guesses why namespaces are refused here, and says what to do about it.
fn namespaces_hint(why: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "AppArmor restricts user namespaces on this host: install the profile that Lazarus ships (`config/apparmor/lazarus`, it has `userns,`), or run as root".into();
    }
    if read("/proc/sys/user/max_user_namespaces") == "0" {
        return "user namespaces are switched off: `sysctl user.max_user_namespaces=15000`".into();
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return "user namespaces are switched off for users: `sysctl kernel.unprivileged_userns_clone=1`, or run as root".into();
    }
    if why.contains("/proc") {
        return "this looks like a container that covers parts of /proc: run Lazarus on the host, or give the container its own unmasked /proc".into();
    }
    "this looks like a container without the right to make namespaces: run Lazarus on the host, or allow `unshare`, `clone` and `mount` in the container's seccomp profile".into()
}

fn in_child(
    flags: libc::c_int,
    give: bool,
    uid: u32,
    gid: u32,
    steps: impl FnOnce() -> Result<String, StepError>,
) -> Result<String, String> {
    let (mut answer, tell) = std::io::pipe().map_err(|e| e.to_string())?;
    let (mut go, release) = std::io::pipe().map_err(|e| e.to_string())?;
    let pid = clone_process(flags).map_err(|e| e.to_string())?;
    if pid == 0 {
        drop((answer, release));
        let mut byte = [0u8; 1];
        let _ = go.read(&mut byte);
        let (mark, text) = match steps() {
            Ok(text) => (b'+', text),
            Err(e) => (b'-', e.to_string()),
        };
        let mut tell = tell;
        let _ = tell.write_all(&[mark]).and_then(|()| tell.write_all(text.as_bytes()));
        // SAFETY: ends this child at once; nothing of the parent runs in it.
        unsafe { libc::_exit(0) };
    }
    drop((tell, go));
    let mapped =
        if flags & libc::CLONE_NEWUSER == 0 { Ok(()) } else { write_id_maps(pid, give.then_some(FIRST_ID), uid, gid) };
    drop(release);
    let mut text = String::new();
    let _ = answer.read_to_string(&mut text);
    let mut status = 0;
    // SAFETY: waits for the child that was just made; `status` lives through the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    mapped.map_err(|e| e.to_string())?;
    match text.split_at_checked(1) {
        Some(("+", rest)) => Ok(rest.to_owned()),
        Some((_, rest)) => Err(rest.to_owned()),
        None => Err("the probe ended without an answer".to_owned()),
    }
}
