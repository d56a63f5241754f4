//! What a cell used, and what remains of it outside its sandbox.

use super::outside::kill_locked;
use crate::backend::{BackendError, Usage};
use crate::egress;
use crate::keeper::{DiskSpace, EGRESS_PID, GROUP, LIMITS_HIT, LimitsHit};
use crate::sandbox::{Group, quota};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The file in the run directory with the cell's usage. It makes sure that nothing is lost when the daemon dies
/// between the cell's end and its record.
const USAGE: &str = "usage.json";
/// Held while that file is read and rewritten: an agent's end and a cell's may do so at the same time.
static NOTING: Mutex<()> = Mutex::new(());
/// Longest record of a keeper that is read, in bytes.
const RECORD_MAX: u64 = 4 << 20;
/// How long an egress proxy may take to end after its cell.
const PROXY_END_MAX: Duration = Duration::from_secs(5);

/// The directories of a home that agents can write.
pub(super) fn written_in(home: &Path) -> [PathBuf; 4] {
    ["project", "work", "shared", "home"].map(|name| home.join(name))
}

/// Records whether the agents hit a quota of the file system.
pub(super) fn note_quota(run_dir: &Path, home: &Path, project: u32, room: DiskSpace) {
    let [first, ..] = written_in(home);
    let Ok((bytes, files)) = quota::used(&first, project) else { return };
    // The last block, which did not fit, is not counted, so 2 % below the limit counts as full.
    let near = |used: u64, most: u64| used + most / 50 >= most;
    let _noting = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut usage: Usage = read_json(run_dir.join(USAGE));
    if near(bytes, room.bytes) {
        let words = format!("{} MiB, of {} MiB; more was refused", bytes >> 20, room.bytes >> 20);
        usage.met.0.insert("disk".to_owned(), words);
    }
    if near(files, room.files) {
        let words = format!("{files} files and directories, of {}; more were refused", room.files);
        usage.met.0.insert("files".to_owned(), words);
    }
    let _ = std::fs::write(run_dir.join(USAGE), serde_json::to_vec(&usage).unwrap_or_default());
}

/// Reads a record; the default value if there is none. Some records lie in the keeper's directory, which belongs to
/// another user when the daemon is root. So no link is followed, only a regular file is read, and no more of it
/// than a record can have.
pub(super) fn read_json<T: serde::de::DeserializeOwned + Default>(path: PathBuf) -> T {
    use std::io::Read as _;
    let read = || -> std::io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(CWD, &path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![];
        file.take(RECORD_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    read().ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The control group of a cell; the default (no limits) if it has none.
pub(super) fn group_of(run_dir: &Path) -> Group {
    read_json(run_dir.join(GROUP))
}

/// What the cell of a run directory used: what is known now, combined with what was known at earlier calls.
pub(super) fn usage_of(run_dir: &Path) -> Usage {
    let _noting = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut usage: Usage = read_json(run_dir.join(USAGE));
    let kept: LimitsHit = read_json(run_dir.join("keeper").join(LIMITS_HIT));
    usage.met.0.extend(kept.0);
    usage.met.0.extend(group_of(run_dir).met());
    if let Ok(Some(report)) = egress::Report::read(&run_dir.join("egress")) {
        usage.egress = Some(report);
    }
    let _ = std::fs::write(run_dir.join(USAGE), serde_json::to_vec(&usage).unwrap_or_default());
    usage
}

/// Waits for everything that belongs to a cell but lives outside its sandbox: its proxy, and its control group,
/// which must become empty. Both are gone afterwards.
pub(super) fn clear_up(run_dir: &Path) -> Result<Usage, BackendError> {
    let proxy = run_dir.join("egress");
    let until = std::time::Instant::now() + PROXY_END_MAX;
    while egress::lives(&proxy) && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    if egress::lives(&proxy) {
        kill_locked(&run_dir.join(EGRESS_PID), || egress::lives(&proxy));
    }
    let usage = usage_of(run_dir);
    let group = group_of(run_dir);
    group.end_all().map_err(BackendError::io("emptying the cell's control group"))?;
    group.remove();
    Ok(usage)
}
