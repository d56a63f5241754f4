//! Compares what cells see of this machine with the daemon's own files, which no cell may see (contract §3, I1).
//!
//! A cell sees `/usr`, `/opt`, parts of `/etc` and whatever its agents' profiles name in `read_paths`. The operator
//! may have put our files anywhere. So before anything starts, both are compared in every way in which one can lie
//! inside the other:
//!
//! - by path, after all links and `..` are resolved, even if the end of the path does not exist yet;
//! - by identity, that is device and inode of each directory on the way, for file systems that accept several
//!   spellings of one name;
//! - by position in the file system, for bind mounts and for the layers of overlays;
//! - by hard links, for files that have more than one name.
//!
//! Anything that is found stops the daemon ([`Sight::ours_in_sight`]). Directories can be moved while it runs, so
//! the comparison is repeated for each cell ([`Sight::hidden`]), and whatever it finds is covered in the cell's
//! view.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags, openat, statx};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Most links that are followed for one path, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Most directories of a tree that are listed to leave one of them out. Beyond that the whole tree is left out.
const LISTED_MAX: usize = 20_000;

/// The kind of one of our paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A directory that is ours with everything in it.
    Directory,
    /// A single file that is ours.
    File,
    /// A directory that contains something of ours among other things: no cell may see all of it, but other things
    /// in it may be shown.
    Surroundings,
}

/// One of our paths, which no cell may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The configuration key that names it, or a description of it.
    pub key: String,
    /// Where it lies, absolute. It may not exist yet.
    pub path: PathBuf,
    /// Its kind.
    pub what: What,
    /// What the operator must do after moving it, so that we find it: part of a sentence.
    pub remedy: String,
}

/// A tree, or a single file, that cells see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The configuration key that shows it; `None` if every cell sees it.
    pub key: Option<String>,
    /// Its path, absolute.
    pub path: PathBuf,
}

/// One of our paths that cells would see, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSight {
    /// Our path.
    pub own: Own,
    /// The tree that shows it.
    pub shown: Shown,
    /// The path at which cells would find it.
    pub at: PathBuf,
    /// Whether the tree lies inside our directory, and not our path inside the tree.
    pub around: bool,
}

impl InSight {
    /// Describes what was found.
    pub fn found(&self) -> String {
        let who = match &self.shown.key {
            None => "every cell sees".to_owned(),
            Some(key) => format!("`{key}` shows to cells"),
        };
        let (key, path, tree) = (&self.own.key, self.own.path.display(), self.shown.path.display());
        if self.around {
            return format!("{tree}, which {who}, lies in {path} ({key})");
        }
        let also = if self.at == self.own.path { String::new() } else { format!(" (as {})", self.at.display()) };
        format!("{key} is {path}, which lies{also} in {tree}, which {who}")
    }

    /// Says what to do about it.
    pub fn to_do(&self) -> String {
        let (tree, ours, remedy) = (self.shown.path.display(), self.own.path.display(), &self.own.remedy);
        match (&self.shown.key, self.around) {
            (Some(shown), true) => format!("move what agents need out of {ours}, and change {shown}"),
            (None, true) => format!("make it a directory of its own, below /var/lib, say, and {remedy}"),
            (Some(shown), false) => format!("take {tree} out of {shown}, or move what is ours elsewhere and {remedy}"),
            (None, false) => format!("move it out of {tree}, to a place below /var/lib or a home, say, and {remedy}"),
        }
    }
}

impl fmt::Display for InSight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found(), self.to_do())
    }
}

/// One of our paths that lies in what a cell sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its path on this machine, with links resolved.
    pub on_host: PathBuf,
    /// Its path in a cell with a root of its own; `None` if the cell only has a link that leads there.
    pub in_cell: Option<PathBuf>,
}

/// Our paths, and what every cell sees.
#[derive(Debug)]
pub struct Sight {
    own: Vec<Own>,
    /// Descriptors of our paths that existed when [`hold`](Self::hold) was called. From then on the kernel tells us
    /// where they are, even after they are moved.
    held: Vec<OwnedFd>,
    shown: Vec<Shown>,
    known: Mutex<Option<Arc<Known>>>,
}

/// The result of the last comparison. Verifying that it is still valid takes one look at each path; computing it
/// takes ten times as long.
#[derive(Debug)]
struct Known {
    signs: Vec<Sign>,
    mounts: Arc<Vec<Mount>>,
    own: Vec<(Place, What)>,
    hidden: Vec<Hidden>,
}

/// Where one path is now, according to the kernel.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    /// What the path leads to.
    Identity(Option<Identity>),
    /// Where something that we hold open is.
    Path(Option<PathBuf>),
}

/// The mount table of this process, as it was last read.
struct Watched {
    /// The kernel signals on this file when the mounts change.
    file: Option<File>,
    mounts: Option<Arc<Vec<Mount>>>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its id, unique while it is mounted.
    pub id: u64,
    device: String,
    /// The directory of its file system that is mounted.
    root: PathBuf,
    /// The mount point.
    pub at: PathBuf,
    /// The directories that form it, if it is an overlay.
    layers: Vec<PathBuf>,
}

type Identity = (u64, u64);

/// Everything by which one path can be compared with another.
#[derive(Debug, Default)]
struct Place {
    /// The path with all links resolved.
    real: PathBuf,
    /// The path and the directories above it, as far as they exist, innermost first.
    chain: Vec<(PathBuf, Identity)>,
    /// Its file system, and its path inside that.
    located: Option<(String, PathBuf)>,
}

/// A path, and where cells see it.
struct Window {
    place: Place,
    at: PathBuf,
}

impl Sight {
    /// Creates the comparison. Nothing is read from the disk yet.
    pub fn new(own: Vec<Own>, shown: Vec<Shown>) -> Self {
        Self { own, held: vec![], shown, known: Mutex::default() }
    }

    /// Holds those of our paths open that exist, so that they are found wherever they are moved.
    pub fn hold(&mut self) {
        let open = |own: &Own| openat(CWD, &own.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        self.held = self.own.iter().filter_map(open).collect();
    }

    /// All of our paths that cells would see; empty if all is well.
    pub fn ours_in_sight(&self) -> Vec<InSight> {
        let mounts = mounts();
        let own: Vec<(&Own, Place)> = self.own.iter().map(|own| (own, Place::of(&own.path, &mounts))).collect();
        let mut found: Vec<(InSight, PathBuf)> = vec![];
        for shown in &self.shown {
            let windows = windows(&shown.path, &mounts);
            let tree = &windows[0].place;
            for (own, place) in &own {
                let seen = windows.iter().find_map(|window| window.shows(place));
                let seen = seen.or_else(|| another_name(own, place, tree)).map(|at| (at, false));
                let around = || {
                    let around = own.what == What::Directory && place.contains(tree).is_some();
                    around.then(|| (tree.real.clone(), true))
                };
                if let Some((at, around)) = seen.or_else(around) {
                    let (own, shown) = ((*own).clone(), shown.clone());
                    found.push((InSight { own, shown, at, around }, place.real.clone()));
                }
            }
        }
        // A path inside another path of ours needs no line of its own.
        let outermost = |(one, real): &(InSight, PathBuf)| {
            !found.iter().any(|(other, above)| {
                other.shown == one.shown
                    && other.own.what == What::Directory
                    && real != above
                    && real.starts_with(above)
            })
        };
        let mut lines: Vec<InSight> = found.iter().filter(|f| outermost(f)).map(|(one, _)| one.clone()).collect();
        lines.dedup_by(|one, other| one.own == other.own && one.around == other.around && one.at == other.at);
        lines
    }

    /// Our paths that a cell with these additional `read_paths` would see.
    pub fn hidden(&self, read_paths: &[PathBuf]) -> Vec<Hidden> {
        let known = self.known();
        let mut hidden = known.hidden.clone();
        for path in read_paths {
            hidden_in(path, &known.own, &known.mounts, &mut hidden);
        }
        // Whatever lies inside a covered directory is covered with it.
        let within = |one: &Hidden, other: &Hidden| {
            let below = |one: &Path, other: &Path| one != other && one.starts_with(other);
            match (&one.in_cell, &other.in_cell) {
                (Some(one), Some(other)) => below(one, other),
                (None, _) => below(&one.on_host, &other.on_host),
                (Some(_), None) => false,
            }
        };
        hidden.iter().filter(|one| !hidden.iter().any(|other| within(one, other))).cloned().collect()
    }

    fn known(&self) -> Arc<Known> {
        let signs = self.signs();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mounts = mounts();
        if let Some(known) = &*known
            && known.signs == signs
            && known.mounts == mounts
        {
            return Arc::clone(known);
        }
        let mut paths: Vec<(PathBuf, What)> = self.own.iter().map(|own| (own.path.clone(), own.what)).collect();
        for sign in &signs {
            if let Sign::Path(Some(path)) = sign
                && !paths.iter().any(|(known, _)| known == path)
            {
                paths.push((path.clone(), What::File));
            }
        }
        let own: Vec<(Place, What)> = paths.iter().map(|(path, what)| (Place::of(path, &mounts), *what)).collect();
        let mut hidden = vec![];
        for shown in &self.shown {
            hidden_in(&shown.path, &own, &mounts, &mut hidden);
        }
        let new = Arc::new(Known { signs, mounts, own, hidden });
        *known = Some(Arc::clone(&new));
        new
    }

    fn signs(&self) -> Vec<Sign> {
        let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let paths = self.own.iter().map(|own| &own.path).chain(self.shown.iter().map(|shown| &shown.path));
        // The kernel appends ` (deleted)` to the path of a deleted file, and that is not a path of ours.
        let held = self.held.iter().map(|held| format!("/proc/self/fd/{}", held.as_raw_fd()));
        paths
            .map(|path| Sign::Identity(identity(path)))
            .chain(held.map(|link| Sign::Path(std::fs::read_link(link).ok())))
            .collect()
    }
}

/// Finds our paths that are visible in one shown tree.
fn hidden_in(path: &Path, own: &[(Place, What)], mounts: &[Mount], hidden: &mut Vec<Hidden>) {
    let windows = windows(path, mounts);
    let tree = &windows[0].place.real;
    // Of a link the cell gets only the link, except in `/etc`, where it gets what the link leads to.
    let is_link = !path.starts_with("/etc") && path.is_symlink();
    for (place, what) in own {
        let mut seen: Vec<PathBuf> = windows.iter().filter_map(|window| window.shows(place)).collect();
        if *what == What::Directory && seen.is_empty() && place.contains(&windows[0].place).is_some() {
            seen.push(tree.clone());
        }
        for on_host in seen {
            let below = on_host.strip_prefix(tree).unwrap_or(Path::new(""));
            let in_cell = if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) };
            let one = Hidden { on_host, in_cell: (!is_link).then_some(in_cell) };
            if !hidden.contains(&one) {
                hidden.push(one);
            }
        }
    }
}

/// The mounts that this process sees.
pub(super) fn mounts() -> Arc<Vec<Mount>> {
    static WATCHED: Mutex<Watched> = Mutex::new(Watched { file: None, mounts: None });
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).now()
}

impl Watched {
    /// The current mounts. They are read again only if the kernel signals that they changed.
    fn now(&mut self) -> Arc<Vec<Mount>> {
        if let (Some(file), Some(mounts)) = (&self.file, &self.mounts) {
            let mut polled = [PollFd::new(file, PollFlags::PRI)];
            if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0) {
                return Arc::clone(mounts);
            }
        }
        // Opened before it is read: a change in between is signalled the next time.
        self.file = File::open("/proc/self/mountinfo").ok();
        let mut text = vec![];
        if let Some(file) = &mut self.file {
            let _ = file.read_to_end(&mut text);
        }
        let mounts: Arc<Vec<Mount>> = Arc::new(text.split(|byte| *byte == b'\n').filter_map(Mount::read).collect());
        self.mounts = Some(Arc::clone(&mounts));
        mounts
    }
}

impl Mount {
    /// Parses one line of `/proc/PID/mountinfo` (proc(5)).
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut next = || fields.next();
        let id = std::str::from_utf8(next()?).ok()?.parse().ok()?;
        let _parent = next()?;
        let device = String::from_utf8_lossy(next()?).into_owned();
        let (root, at) = (unescaped(next()?), unescaped(next()?));
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = rest.next()?;
        let layers = if kind == b"overlay" { rest.nth(1).map_or(vec![], layers) } else { vec![] };
        // The root of anything that is not part of a file system (a namespace, say) has another form.
        (root.is_absolute() && at.is_absolute()).then_some(Self { id, device, root, at, layers })
    }
}

/// Decodes `\040` and the like, as which blanks and backslashes are written.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field
            .get(at + 1..at + 4)
            .filter(|_| field[at] == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(field[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(bytes).into()
}

/// Extracts the directories from the options of an overlay.
fn layers(options: &[u8]) -> Vec<PathBuf> {
    let options = unescaped(options).to_string_lossy().into_owned();
    let of =
        |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)).unwrap_or_default().to_owned();
    let lower = of("lowerdir=");
    let all = lower.split(':').map(str::to_owned).chain([of("upperdir=")]);
    all.map(PathBuf::from).filter(|layer| layer.is_absolute()).collect()
}

impl Place {
    fn of(path: &Path, mounts: &[Mount]) -> Self {
        let real = resolve(path);
        let chain: Vec<(PathBuf, Identity)> = real
            .ancestors()
            .filter_map(|path| {
                Some((path.to_owned(), std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino())).ok()?))
            })
            .collect();
        let located = chain.first().and_then(|(nearest, _)| {
            let mount = mount_of(nearest, mounts)?;
            let below = real.strip_prefix(&mount.at).ok()?;
            Some((mount.device.clone(), mount.root.join(below)))
        });
        Self { real, chain, located }
    }

    fn identity(&self) -> Option<Identity> {
        self.chain.first().filter(|(path, _)| *path == self.real).map(|(_, identity)| *identity)
    }

    /// The path of `other` below this place, if it lies there.
    fn contains(&self, other: &Self) -> Option<PathBuf> {
        let below = |rest: &Path| {
            if rest.as_os_str().is_empty() { self.real.clone() } else { self.real.join(rest) }
        };
        if let Ok(rest) = other.real.strip_prefix(&self.real) {
            return Some(below(rest));
        }
        if let (Some((device, path)), Some((other_device, other_path))) = (&self.located, &other.located)
            && device == other_device
            && let Ok(rest) = other_path.strip_prefix(path)
        {
            return Some(below(rest));
        }
        let identity = self.identity()?;
        let (above, _) = other.chain.iter().find(|(_, found)| *found == identity)?;
        other.real.strip_prefix(above).ok().map(below)
    }
}

impl Window {
    /// The path under which a place is visible through this window.
    fn shows(&self, place: &Place) -> Option<PathBuf> {
        let found = self.place.contains(place)?;
        let rest = found.strip_prefix(&self.place.real).ok()?;
        Some(if rest.as_os_str().is_empty() { self.at.clone() } else { self.at.join(rest) })
    }
}

/// The mount on which an existing path lies. If several share a mount point, the kernel says which.
fn mount_of<'a>(path: &Path, mounts: &'a [Mount]) -> Option<&'a Mount> {
    let asked = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)
        .ok()
        .filter(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .and_then(|found| mounts.iter().find(|mount| mount.id == found.stx_mnt_id));
    asked.or_else(|| {
        let above = mounts.iter().filter(|mount| path.starts_with(&mount.at));
        above.max_by_key(|mount| mount.at.components().count())
    })
}

/// A shown tree and everything that is mounted in it. The tree itself comes first.
fn windows(path: &Path, mounts: &[Mount]) -> Vec<Window> {
    let place = Place::of(path, mounts);
    let real = place.real.clone();
    let below: Vec<&Mount> = mounts.iter().filter(|mount| mount.at != real && mount.at.starts_with(&real)).collect();
    // We do not open these: accessing a mount whose server is down may block forever.
    let submount = |mount: &&Mount| Window {
        place: Place {
            real: mount.at.clone(),
            chain: vec![],
            located: Some((mount.device.clone(), mount.root.clone())),
        },
        at: mount.at.clone(),
    };
    let mut windows: Vec<Window> = below.iter().map(submount).collect();
    let own_mount = place.chain.first().and_then(|(nearest, _)| mount_of(nearest, mounts));
    for mount in own_mount.into_iter().chain(below) {
        for layer in &mount.layers {
            // The tree may be a part of the mount, or the mount a part of the tree.
            let (layer, at) = match real.strip_prefix(&mount.at) {
                Ok(rest) => (layer.join(rest), real.clone()),
                Err(_) => (layer.clone(), mount.at.clone()),
            };
            windows.push(Window { place: Place::of(&layer, mounts), at });
        }
    }
    windows.insert(0, Window { at: real, place });
    windows
}

/// Resolves a path: follows all links, even those that lead to nothing, and resolves `..`. The part that does not
/// exist stays as written.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut left: VecDeque<OsString> = words(&absolute).collect();
    let (mut done, mut links) = (PathBuf::from("/"), 0);
    while let Some(word) = left.pop_front() {
        if word == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&word);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for word in words(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(word);
                }
            }
            _ => done = next,
        }
    }
    done
}

fn words(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::ParentDir => Some(OsString::from("..")),
        Component::Normal(word) => Some(word.to_owned()),
        _ => None,
    })
}

/// Finds another name of one of our files within a tree, if it has hard links. This walks the tree, so it is done
/// only then.
fn another_name(own: &Own, place: &Place, tree: &Place) -> Option<PathBuf> {
    if own.what != What::File {
        return None;
    }
    let file = std::fs::metadata(&place.real).ok().filter(|file| file.is_file() && file.nlink() > 1)?;
    let (device, inode) = (file.dev(), file.ino());
    let mut left = vec![tree.real.clone()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).ok().filter(|meta| meta.dev() == device);
        let Some(meta) = meta else { continue };
        if meta.ino() == inode {
            return Some(path);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = openat(CWD, &path, flags, Mode::empty()) else { continue };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_bytes();
            let below = || path.join(OsString::from_vec(name.to_vec()));
            match entry.file_type() {
                _ if matches!(name, b"." | b"..") => {}
                FileType::Directory | FileType::Unknown => left.push(below()),
                _ if entry.ino() == inode => return Some(below()),
                _ => {}
            }
        }
    }
    None
}

/// The paths that show a tree without what is hidden in it; only the tree itself if nothing is. For rules that can
/// allow but not deny.
pub fn without(tree: &Path, hidden: &[Hidden]) -> Vec<PathBuf> {
    if hidden.is_empty() {
        return vec![tree.to_owned()];
    }
    let real = resolve(tree);
    if hidden.iter().any(|h| real.starts_with(&h.on_host)) {
        return vec![];
    }
    let inside: Vec<&Path> = hidden.iter().map(|h| h.on_host.as_path()).filter(|h| h.starts_with(&real)).collect();
    if inside.is_empty() {
        return vec![tree.to_owned()];
    }
    let (mut shown, mut left, mut listed) = (vec![], vec![real], 0);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            listed += 1;
            // A rule for a link would allow whatever the link leads to.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let path = entry.path();
            if is_link || inside.contains(&path.as_path()) {
                continue;
            }
            if inside.iter().any(|h| h.starts_with(&path)) {
                left.push(path);
            } else {
                shown.push(path);
            }
        }
    }
    if listed > LISTED_MAX { vec![] } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory with a shown tree and other directories beside it.
    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            for directory in ["tree/tools", "ours/cells", "home"] {
                fs::create_dir_all(world.at(directory)).unwrap();
            }
            world
        }
        fn at(&self, path: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join(path)
        }
        /// Where cells would see one of our paths, if at all, and whether it surrounds the tree.
        fn seen(&self, path: impl AsRef<Path>, what: What) -> Option<(PathBuf, bool)> {
            self.seen_in("tree", path, what)
        }
        fn seen_in(&self, tree: &str, path: impl AsRef<Path>, what: What) -> Option<(PathBuf, bool)> {
            let own = Own { key: "paths.data".into(), path: path.as_ref().into(), what, remedy: "set it".into() };
            let shown = Shown { key: Some("agents.x.read_paths".into()), path: self.at(tree) };
            Sight::new(vec![own], vec![shown]).ours_in_sight().pop().map(|found| (found.at, found.around))
        }
    }

    #[test]
    fn what_lies_beside_a_tree_is_not_in_sight() {
        let world = World::new();
        for path in ["ours", "tree-too", "ours/not/there/yet", "tree/../ours"] {
            assert_eq!(world.seen(world.at(path), What::Directory), None, "{path}");
        }
        // The directory around a file of ours may contain other things that are shown.
        assert_eq!(world.seen(world.at(""), What::Surroundings), None);
        assert_eq!(world.seen(world.at("token"), What::File), None);
    }

    #[test]
    fn threat_43_whatever_way_leads_into_a_tree_is_found() {
        let world = World::new();
        symlink(world.at("tree"), world.at("home/link")).unwrap();
        symlink("../tree/later", world.at("home/dangling")).unwrap();
        symlink("dangling", world.at("home/twice")).unwrap();
        fs::write(world.at("tree/token"), "t").unwrap();
        symlink(world.at("tree/token"), world.at("home/token")).unwrap();
        for (path, at) in [
            ("tree", "tree"),
            ("tree/data", "tree/data"),
            ("tree/not/there/yet", "tree/not/there/yet"),
            ("ours/../tree/data", "tree/data"),
            ("not/there/../../tree/data", "tree/data"),
            ("home/link/data", "tree/data"),
            ("home/dangling", "tree/later"),
            ("home/twice/data", "tree/later/data"),
            ("home/token", "tree/token"),
        ] {
            for what in [What::Directory, What::File, What::Surroundings] {
                assert_eq!(world.seen(world.at(path), what), Some((world.at(at), false)), "{path}");
            }
        }
        // The tree may also be named through a link.
        symlink(world.at("ours"), world.at("tree-too")).unwrap();
        assert_eq!(
            world.seen_in("tree-too", world.at("ours/cells"), What::Directory),
            Some((world.at("ours/cells"), false))
        );
    }

    #[test]
    fn threat_43_a_tree_within_what_is_ours_is_found() {
        let world = World::new();
        assert_eq!(
            world.seen_in("ours/cells", world.at("ours"), What::Directory),
            Some((world.at("ours/cells"), true))
        );
        assert_eq!(world.seen_in("ours/cells", "/", What::Directory), Some((world.at("ours/cells"), true)));
        assert_eq!(world.seen_in("ours/cells", world.at("ours"), What::Surroundings), None);
    }

    #[test]
    fn threat_43_another_name_of_a_file_is_found() {
        let world = World::new();
        fs::write(world.at("ours/token"), "t").unwrap();
        assert_eq!(world.seen(world.at("ours/token"), What::File), None);
        fs::hard_link(world.at("ours/token"), world.at("tree/tools/t")).unwrap();
        assert_eq!(world.seen(world.at("ours/token"), What::File), Some((world.at("tree/tools/t"), false)));
    }

    #[test]
    fn threat_43_mounts_are_compared_by_what_is_mounted() {
        let line = |id: u64, root: &str, at: &str| {
            Mount::read(format!("{id} 1 254:0 {root} {at} rw,relatime shared:1 - ext4 /dev/vda rw").as_bytes()).unwrap()
        };
        let mounts = [line(1, "/", "/"), line(2, "/var/lib/lazarus/data", "/opt/a\\040b"), line(3, "/opt", "/mnt")];
        assert_eq!(mounts[1].at, Path::new("/opt/a b"));
        let place = |real: &str, root: &str| Place {
            real: real.into(),
            chain: vec![],
            located: Some(("254:0".to_owned(), root.into())),
        };
        let seen = |place: &Place| windows(Path::new("/opt"), &mounts).iter().find_map(|window| window.shows(place));
        let cells = place("/var/lib/lazarus/data/cells", "/var/lib/lazarus/data/cells");
        assert_eq!(seen(&cells), Some(PathBuf::from("/opt/a b/cells")));
        assert_eq!(seen(&place("/var/lib/lazarus", "/var/lib/lazarus")), None);
        // Our directory is reached by another path to the same directory.
        assert_eq!(seen(&place("/mnt/lazarus", "/opt/lazarus")), Some(PathBuf::from("/opt/lazarus")));
        let overlay = "9 1 0:44 / /opt/over rw - overlay overlay rw,lowerdir=/usr:/srv/lazarus,upperdir=/srv/up";
        let overlay = Mount::read(overlay.as_bytes()).unwrap();
        assert_eq!(overlay.layers, ["/usr", "/srv/lazarus", "/srv/up"].map(PathBuf::from));
        let mounts = [line(1, "/", "/"), overlay];
        let seen = windows(Path::new("/opt"), &mounts).iter().find_map(|w| w.shows(&place("/srv/lazarus/token", "/x")));
        assert_eq!(seen, Some(PathBuf::from("/opt/over/token")));
    }

    #[test]
    fn threat_43_what_is_moved_into_sight_is_found_where_it_is_now() {
        let world = World::new();
        fs::write(world.at("ours/token"), "t").unwrap();
        let own = |path: &str, what| Own { key: path.into(), path: world.at(path), what, remedy: String::new() };
        let mut sight = Sight::new(vec![own("ours", What::Directory), own("ours/token", What::File)], vec![]);
        sight.hold();
        let trees = [world.at("tree")];
        assert_eq!(sight.hidden(&trees), []);
        // No link is left, but the kernel knows where it went.
        fs::rename(world.at("ours"), world.at("tree/moved")).unwrap();
        let found = sight.hidden(&trees);
        let hidden = |path: &str| Hidden { on_host: world.at(path), in_cell: Some(world.at(path)) };
        assert_eq!(found, [hidden("tree/moved")]);
        // With a link in its old place.
        fs::rename(world.at("tree/moved"), world.at("elsewhere")).unwrap();
        symlink(world.at("tree/linked"), world.at("ours")).unwrap();
        assert_eq!(sight.hidden(&trees), [hidden("tree/linked")]);
        // Only the file.
        fs::remove_file(world.at("ours")).unwrap();
        fs::create_dir(world.at("ours")).unwrap();
        fs::rename(world.at("elsewhere/token"), world.at("tree/tools/t")).unwrap();
        assert_eq!(sight.hidden(&trees), [hidden("tree/tools/t")]);
    }

    #[test]
    fn threat_43_rules_that_can_only_allow_go_around_what_is_hidden() {
        let world = World::new();
        for directory in ["tree/a/secret", "tree/a/b", "tree/c"] {
            fs::create_dir_all(world.at(directory)).unwrap();
        }
        symlink(world.at("tree/a/secret"), world.at("tree/link")).unwrap();
        let hidden = |path: &str| Hidden { on_host: world.at(path), in_cell: None };
        let around = |tree: &str, path: &str| {
            let mut paths = without(&world.at(tree), &[hidden(path)]);
            paths.sort();
            paths
        };
        assert_eq!(without(&world.at("tree"), &[]), [world.at("tree")]);
        assert_eq!(around("tree", "ours"), [world.at("tree")]);
        assert_eq!(around("tree", "tree/a/secret"), ["tree/a/b", "tree/c", "tree/tools"].map(|path| world.at(path)));
        assert_eq!(around("tree", "tree"), Vec::<PathBuf>::new());
        assert_eq!(around("tree/a", "tree"), Vec::<PathBuf>::new());
        assert_eq!(around("tree/link", "tree/a/secret"), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_message_names_the_key_the_path_the_tree_and_what_to_do() {
        let world = World::new();
        let own = Own {
            key: "paths.data".into(),
            path: world.at("tree/data"),
            what: What::Directory,
            remedy: "set paths.data".into(),
        };
        let cells = Own { key: "paths.cells".into(), path: world.at("tree/data/cells"), ..own.clone() };
        let shown = |key: Option<&str>| Shown { key: key.map(str::to_owned), path: world.at("tree") };
        let found = Sight::new(vec![own.clone(), cells], vec![shown(None)]).ours_in_sight();
        // One line: whatever lies inside moves with it.
        assert_eq!(found.len(), 1);
        let (data, tree) = (world.at("tree/data").display().to_string(), world.at("tree").display().to_string());
        let text = found[0].to_string();
        for words in ["paths.data is", &data, &tree, "every cell sees", "move it out of", "set paths.data"] {
            assert!(text.contains(words), "{words:?} is not in: {text}");
        }
        let found = Sight::new(vec![own], vec![shown(Some("agents.x.read_paths"))]).ours_in_sight();
        assert!(found[0].to_string().contains("`agents.x.read_paths` shows to cells"), "{}", found[0]);
    }
}
