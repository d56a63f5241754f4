//! The launcher: `lazarus cell-launch RUN_DIR`.

use super::init::{Keeper, Opened};
use super::{LaunchSpec, Ready};
use crate::sandbox::{StepError, clone_process, write_id_maps};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Runs the launcher, and in its child the keeper. Returns the exit status.
/// Has to be called before anything starts a thread.
pub fn launch(run_dir: &Path) -> i32 {
    match try_launch(run_dir) {
        Ok(()) => 0,
        Err(error) => {
            say(&Ready::Failed { why: error.to_string() });
            1
        }
    }
}

fn say(ready: &Ready) {
    let mut line = serde_json::to_string(ready).unwrap_or_default();
    line.push('\n');
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

#[allow(clippy::exit, reason = "the keeper is a process of its own; nothing of the launcher's may run after it")]
fn try_launch(run_dir: &Path) -> Result<(), StepError> {
    let io_step = |step: &str| {
        let step = format!("{step} in {}", run_dir.display());
        move |source: io::Error| StepError { step, source }
    };
    let text = std::fs::read(run_dir.join("launch.json")).map_err(io_step("reading launch.json"))?;
    let spec: LaunchSpec =
        serde_json::from_slice(&text).map_err(|e| io_step("reading launch.json")(io::Error::other(e.to_string())))?;
    // Relative names keep within the 108 bytes that a socket's path may have.
    std::env::set_current_dir(run_dir).map_err(io_step("entering"))?;
    // Held by the keeper for as long as it lives: nobody starts a second one,
    // and whoever can take it knows that the first is gone.
    let lock =
        File::options().create(true).truncate(false).write(true).open("lock").map_err(io_step("opening the lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| StepError {
        step: format!("taking the lock in {}", run_dir.display()),
        source: io::Error::other("a keeper of this cell runs already"),
    })?;
    match std::fs::remove_file("control.sock") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_step("removing the old control.sock")(e)),
        _ => {}
    }
    let opened = Opened {
        control: UnixListener::bind("control.sock").map_err(io_step("making control.sock"))?,
        run_dir: File::open(".").map_err(io_step("opening"))?,
        _lock: lock,
    };
    // SAFETY: asks for numbers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut flags = libc::CLONE_PARENT;
    if spec.namespaces {
        flags |= libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if !spec.host_network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    let (mut go, release) = io::pipe().map_err(io_step("making a pipe"))?;
    let pid = clone_process(flags)?;
    if pid == 0 {
        drop(release);
        let mut byte = [0u8; 1];
        // Without the byte the launcher died before the maps were written.
        if go.read(&mut byte).unwrap_or(0) != 1 {
            std::process::exit(1);
        }
        drop(go);
        let keeper = match Keeper::settle_in(spec, opened) {
            Ok(keeper) => keeper,
            Err(error) => {
                say(&Ready::Failed { why: error.to_string() });
                std::process::exit(1);
            }
        };
        say(&Ready::Listening { applied: keeper.applied().to_vec() });
        let status = keeper.run();
        std::process::exit(status);
    }
    if spec.namespaces {
        write_id_maps(pid, spec.id_base, uid, gid)?;
    }
    std::fs::write("keeper.pid", pid.to_string()).map_err(io_step("writing keeper.pid"))?;
    // Before the keeper can say anything: these are the first words.
    say(&Ready::Launched { pid });
    let mut release = release;
    release.write_all(b"+").map_err(io_step("releasing the keeper"))?;
    Ok(())
}
