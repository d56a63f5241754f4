//! Inspects every object that would be new on the forge.
//!
//! It does so in one pass between two git processes. One lists the objects commit by commit, oldest first; the
//! other prints them. The objects are inspected piece by piece, and only the commits are kept in memory. The pass
//! finds the commits, files that are too large, known secrets in any object or name, and changes to files that the
//! forge runs by itself.

use super::confined::{Bounds, ConfinedGit, Failure, Running};
use super::held::{Finding, Place, shown};
use crate::publication::Secrets;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::ChildStdout;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Most objects that are inspected.
pub(super) const OBJECTS_MAX: u64 = 2_000_000;
/// Most commits that are inspected.
const COMMITS_MAX: usize = 200_000;
/// Largest commit object, in bytes.
const COMMIT_MAX: u64 = 1 << 20;
/// Largest tree object, in bytes.
const TREE_MAX: u64 = 32 << 20;
/// Most bytes of a path that are kept.
const PATH_MAX: usize = 4096;
/// Number of findings after which the pass stops.
const FINDINGS_MAX: usize = 20;
/// Most names that are remembered, so that each is inspected once.
const NAMES_MAX: usize = 1 << 20;
/// Number of objects that are requested before they are read. Their headers alone fill every buffer between the two
/// git processes, so that neither blocks the other for ever.
const AHEAD: usize = 8192;
/// Bytes of a file that are held in memory at once.
const PIECE: usize = 64 << 10;
/// Most objects that are looked up to name the files that the forge would run.
const LOOKUPS_MAX: u32 = 50_000;
/// Most of those files that are named.
const NAMED_MAX: usize = 10;
/// Most symbolic links that are followed in a row.
const LINKS_MAX: usize = 16;

/// The repository to inspect, and the limits.
pub(super) struct Inspector<'a> {
    pub git: &'a ConfinedGit,
    pub repository: &'a Path,
    /// The object directory that the repository borrows from.
    pub objects: &'a Path,
    /// The commit that the cell was made from.
    pub base: &'a str,
    pub bounds: Bounds,
    /// Largest file that is allowed, in bytes.
    pub file: u64,
    /// Most bytes of all objects together that are searched.
    pub search: u64,
    pub secrets: &'a Secrets,
}

/// A commit that is new on the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub id: String,
    pub tree: String,
    pub parents: Vec<String>,
    pub author: String,
    pub subject: String,
    /// When it was committed, in seconds since the epoch.
    pub at: i64,
}

/// The result of a pass.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The commits, oldest first.
    pub commits: Vec<Commit>,
    pub findings: Vec<Finding>,
}

impl Seen {
    pub(super) fn commit(&self, id: &str) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.id == id)
    }

    /// The commits that `tip` can reach, itself included, newest first.
    pub(super) fn of(&self, tip: &str) -> Vec<Commit> {
        let mut wanted: HashSet<&str> = HashSet::from([tip]);
        // Parents come before their children, so the list is walked backwards.
        let mut found = vec![];
        for commit in self.commits.iter().rev() {
            if wanted.contains(commit.id.as_str()) {
                wanted.extend(commit.parents.iter().map(String::as_str));
                found.push(commit.clone());
            }
        }
        found
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: Vec<u8>,
    mode: Vec<u8>,
    id: String,
}

impl Entry {
    fn is_directory(&self) -> bool {
        self.mode == b"40000"
    }
    fn is_link(&self) -> bool {
        self.mode == b"120000"
    }
}

/// What was requested, in the order in which the answers arrive.
enum Asked {
    /// The root tree of the base.
    Base,
    /// An object, with as much of its path as is kept.
    Object(Vec<u8>),
}

/// Why a pass stops early.
enum Stop {
    /// A finding makes further inspection pointless.
    Enough,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Inspector<'_> {
    /// Inspects everything that is reachable from `tips`, but neither from the base nor from `known`.
    ///
    /// # Errors
    /// If git cannot read it within its bounds.
    pub(super) fn look(&self, tips: &[&str], known: &[&str]) -> Result<Seen, Failure> {
        let mut list = self.git(&["rev-list", "--objects", "--in-commit-order", "--topo-order", "--reverse"]);
        list.args(tips).arg(format!("^{}", self.base)).args(known.iter().map(|known| format!("^{known}"))).arg("--");
        let mut list = Running::start("rev-list", &mut list)?;
        let mut print = self.git(&["cat-file", "--batch", "--buffer"]);
        let mut print = Running::start("cat-file", print.stdin(std::process::Stdio::piped()))?;
        let (Some(listed), Some(asking), Some(printed)) = (list.stdout(), print.stdin(), print.stdout()) else {
            return Err(Failure::Work("git was started without pipes".to_owned()));
        };
        let (send, receive) = sync_channel(AHEAD);
        let base = format!("{}^{{tree}}", self.base);
        let feeder = std::thread::spawn(move || feed(listed, BufWriter::new(asking), &base, &send));
        let mut pass = Pass::new(self, printed);
        let outcome = pass.run(&receive);
        // After an early stop, nobody reads the remaining output of the two processes.
        drop(receive);
        if outcome.is_err() {
            list.end();
            print.end();
        }
        let fed = feeder.join().unwrap_or(Ok(()));
        match outcome {
            Ok(()) => {}
            Err(Stop::Enough) => return Ok(pass.seen),
            Err(Stop::Failed(failure)) => {
                // The reason why the listing stopped is closer to the cause than the missing objects that followed
                // from it.
                return Err(list.finish().err().filter(|f| matches!(f, Failure::Machine(_))).unwrap_or(failure));
            }
        }
        list.finish()?;
        fed.map_err(|e| Failure::Work(format!("the objects could not be listed: {e}")))?;
        print.finish()?;
        pass.what_runs()?;
        Ok(pass.seen)
    }

    fn git(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.git.git(self.repository, &[self.repository, self.objects], &[], self.bounds);
        command.args(arguments);
        command
    }

    /// Opens the repository for reading single objects.
    pub(super) fn objects(&self) -> Result<Objects, Failure> {
        let mut print = self.git(&["cat-file", "--batch"]);
        let mut print = Running::start("cat-file", print.stdin(std::process::Stdio::piped()))?;
        let (Some(asking), Some(printed)) = (print.stdin(), print.stdout()) else {
            return Err(Failure::Work("git was started without pipes".to_owned()));
        };
        Ok(Objects { asking, printed: BufReader::new(printed), left: LOOKUPS_MAX, _print: print })
    }
}

/// Requests each listed object, and passes on what was requested.
fn feed(
    listed: ChildStdout,
    mut asking: BufWriter<impl Write>,
    base: &str,
    send: &SyncSender<Asked>,
) -> io::Result<()> {
    writeln!(asking, "{base}")?;
    let _ = send.send(Asked::Base);
    let mut listed = BufReader::with_capacity(PIECE, listed);
    let mut line = vec![];
    while read_line(&mut listed, &mut line, PATH_MAX)? {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (id, path) = line.split_at(space);
        asking.write_all(id)?;
        asking.write_all(b"\n")?;
        let asked = Asked::Object(path.get(1..).unwrap_or_default().to_vec());
        match send.try_send(asked) {
            Ok(()) => {}
            Err(TrySendError::Full(asked)) => {
                // The reader may be waiting for exactly these objects.
                asking.flush()?;
                if send.send(asked).is_err() {
                    return Ok(());
                }
            }
            // The reader has stopped.
            Err(TrySendError::Disconnected(_)) => return Ok(()),
        }
    }
    asking.flush()
}

/// Reads one line without its newline, of which at most `most` bytes are kept. Returns false at the end of the
/// input.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let there = from.fill_buf()?;
        if there.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = there.iter().position(|byte| *byte == b'\n');
        let piece = &there[..end.unwrap_or(there.len())];
        line.extend_from_slice(&piece[..piece.len().min(most.saturating_sub(line.len()))]);
        let taken = end.map_or(there.len(), |end| end + 1);
        from.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Reads the header of an object: its id, kind and size.
fn read_head(from: &mut impl BufRead) -> Result<(String, String, u64), Failure> {
    let mut line = vec![];
    let read = read_line(from, &mut line, 512);
    let there = read.map_err(|e| Failure::Work(format!("an object could not be read: {e}")))?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next().and_then(|size| size.parse().ok())) {
        (Some(id), Some(kind), Some(size)) if there => Ok((id.to_owned(), kind.to_owned(), size)),
        _ if !there => Err(Failure::Work("git ended before all objects were read".to_owned())),
        _ => Err(Failure::Work(format!("an object is not there: {}", shown(line.as_bytes())))),
    }
}

/// Reads the content of an object, whose size was checked before.
fn read_whole(from: &mut impl Read, size: u64) -> Result<Vec<u8>, Failure> {
    let mut content = vec![];
    let read = from.take(size + 1).read_to_end(&mut content);
    if !read.is_ok_and(|read| read as u64 == size + 1) {
        return Err(Failure::Work("an object could not be read to its end".to_owned()));
    }
    content.pop();
    Ok(content)
}

/// The state of one pass over the objects.
struct Pass<'a> {
    inspector: &'a Inspector<'a>,
    printed: BufReader<ChildStdout>,
    seen: Seen,
    until: Instant,
    objects: u64,
    bytes: u64,
    /// The entries of a root that the forge runs, by the root's id.
    run_by_forge: HashMap<String, Rc<Vec<Entry>>>,
    base: Option<String>,
    names: HashSet<u64>,
    hash: RandomState,
}

impl<'a> Pass<'a> {
    fn new(inspector: &'a Inspector<'a>, printed: ChildStdout) -> Self {
        Self {
            inspector,
            printed: BufReader::with_capacity(PIECE, printed),
            seen: Seen::default(),
            until: Instant::now() + Duration::from_secs(inspector.bounds.time),
            objects: 0,
            bytes: 0,
            run_by_forge: HashMap::new(),
            base: None,
            names: HashSet::new(),
            hash: RandomState::new(),
        }
    }

    fn run(&mut self, asked: &Receiver<Asked>) -> Result<(), Stop> {
        while let Ok(asked) = asked.recv() {
            let (id, kind, size) = read_head(&mut self.printed)?;
            let path = match asked {
                Asked::Base => {
                    self.expect(&kind, "tree", size)?;
                    let content = read_whole(&mut self.printed, size)?;
                    let entries = self.entries(&content, false)?;
                    self.run_by_forge.insert(id.clone(), Rc::new(entries));
                    self.base = Some(id);
                    continue;
                }
                Asked::Object(path) => path,
            };
            self.objects += 1;
            if self.objects > OBJECTS_MAX {
                return self.limit(format!("it has more than {OBJECTS_MAX} objects, too many to search"));
            }
            self.bytes = self.bytes.saturating_add(size);
            if kind == "blob" && size > self.inspector.file {
                return self.limit(format!(
                    "`{}` ({size} bytes, commit `{}`) is larger than `harvest.file_max` allows ({} bytes)",
                    self.shown(&path),
                    self.commit().chars().take(12).collect::<String>(),
                    self.inspector.file
                ));
            }
            if self.bytes > self.inspector.search {
                return self.limit(format!(
                    "it is too large to search for secrets: `harvest.search_max` allows {} bytes in all",
                    self.inspector.search
                ));
            }
            self.look_at_name(&path)?;
            match kind.as_str() {
                "commit" => {
                    self.expect(&kind, "commit", size)?;
                    let content = read_whole(&mut self.printed, size)?;
                    self.commit_seen(id, &content)?;
                }
                "tree" => {
                    self.expect(&kind, "tree", size)?;
                    let content = read_whole(&mut self.printed, size)?;
                    let entries = self.entries(&content, true)?;
                    if self.seen.commits.last().is_some_and(|commit| commit.tree == id) {
                        self.run_by_forge.insert(id, Rc::new(entries));
                    }
                }
                _ => self.search(&path, size)?,
            }
        }
        Ok(())
    }

    /// The commit that is being inspected.
    fn commit(&self) -> String {
        self.seen.commits.last().map_or_else(String::new, |commit| commit.id.clone())
    }

    fn shown(&self, path: &[u8]) -> String {
        shown(self.inspector.secrets.redact(&String::from_utf8_lossy(path)).0.as_bytes())
    }

    fn limit(&mut self, words: String) -> Result<(), Stop> {
        self.seen.findings.push(Finding::Limit { words });
        Err(Stop::Enough)
    }

    fn found(&mut self, name: &str, place: Place) -> Result<(), Stop> {
        let found = Finding::Secret { name: name.to_owned(), place, commit: self.commit() };
        if !self.seen.findings.contains(&found) {
            self.seen.findings.push(found);
        }
        if self.seen.findings.len() >= FINDINGS_MAX { Err(Stop::Enough) } else { Ok(()) }
    }

    fn expect(&mut self, kind: &str, wanted: &str, size: u64) -> Result<(), Stop> {
        if kind != wanted {
            return Err(Failure::Work(format!("there is a {kind} where a {wanted} should be")).into());
        }
        let most = if kind == "commit" { COMMIT_MAX } else { TREE_MAX };
        if size > most {
            return self.limit(format!("a {kind} has {size} bytes, more than the {most} that are read"));
        }
        self.in_time()
    }

    fn in_time(&mut self) -> Result<(), Stop> {
        if Instant::now() > self.until {
            let seconds = self.inspector.bounds.time;
            return self.limit(format!("it could not be searched for secrets within {seconds} s"));
        }
        Ok(())
    }

    /// Inspects a name, unless it was inspected before.
    fn look_at_name(&mut self, name: &[u8]) -> Result<(), Stop> {
        if name.is_empty() || self.names.contains(&self.hash.hash_one(name)) {
            return Ok(());
        }
        if self.names.len() < NAMES_MAX {
            self.names.insert(self.hash.hash_one(name));
        }
        match self.inspector.secrets.found_in(name) {
            Some(secret) => self.found(secret, Place::Path),
            None => Ok(()),
        }
    }

    fn commit_seen(&mut self, id: String, content: &[u8]) -> Result<(), Stop> {
        if self.seen.commits.len() >= COMMITS_MAX {
            return self.limit(format!("it has more than {COMMITS_MAX} commits"));
        }
        let commit = parse_commit(id, content).ok_or_else(|| Failure::Work("a commit cannot be read".to_owned()))?;
        self.seen.commits.push(commit);
        match self.inspector.secrets.found_in(content) {
            Some(secret) => self.found(secret, Place::Commit),
            None => Ok(()),
        }
    }

    /// Reads a directory and inspects its names if it is new. Returns the entries that the forge would run if this
    /// were the root.
    fn entries(&mut self, content: &[u8], new: bool) -> Result<Vec<Entry>, Stop> {
        let mut kept = vec![];
        let id = self.inspector.base.len() / 2;
        let mut failed = None;
        let whole = each_entry(content, id, |mode, name, id| {
            if new && failed.is_none() {
                failed = self.look_at_name(name).err();
            }
            if is_run_by_forge(name) {
                kept.push(Entry { name: name.to_vec(), mode: mode.to_vec(), id: hex::encode(id) });
            }
        });
        match (failed, whole) {
            (Some(stop), _) => Err(stop),
            (None, false) => Err(Failure::Work("a directory cannot be read".to_owned()).into()),
            (None, true) => Ok(kept),
        }
    }

    /// Searches a file for secrets.
    fn search(&mut self, path: &[u8], size: u64) -> Result<(), Stop> {
        let mut search = self.inspector.secrets.search();
        let mut left = size;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let want = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.printed.read(&mut piece[..want]).unwrap_or(0);
            if read == 0 {
                return Err(Failure::Work("an object could not be read to its end".to_owned()).into());
            }
            search.feed(&piece[..read]);
            left -= read as u64;
            self.in_time()?;
        }
        let found = search.finish().map(str::to_owned);
        let _ = read_whole(&mut self.printed, 0)?;
        match found {
            Some(secret) => self.found(&secret, Place::File(self.shown(path))),
            None => Ok(()),
        }
    }

    /// Finds the commits in which files that the forge runs differ from the base.
    fn what_runs(&mut self) -> Result<(), Failure> {
        let Some(base) = self.base.clone() else { return Ok(()) };
        let mut objects = None;
        let mut reported = BTreeSet::new();
        let mut findings = vec![];
        let at_base = self.run_by_forge.get(&base).cloned().unwrap_or_default();
        // Targets of links elsewhere in the tree are run as well.
        let mut led_to = BTreeMap::new();
        if at_base.iter().any(|entry| entry.is_directory() || entry.is_link()) {
            let objects = opened(&mut objects, self.inspector)?;
            for path in objects.links(&base, &at_base)? {
                led_to.insert(path.clone(), objects.at(&base, &path)?);
            }
        }
        let roots: Vec<(String, String)> =
            self.seen.commits.iter().map(|commit| (commit.id.clone(), commit.tree.clone())).collect();
        for (commit, root) in roots {
            let entries = match self.run_by_forge.get(&root) {
                Some(entries) => Rc::clone(entries),
                None => {
                    let content = opened(&mut objects, self.inspector)?.directory(&root)?;
                    let entries = Rc::new(content.into_iter().filter(|e| is_run_by_forge(&e.name)).collect::<Vec<_>>());
                    self.run_by_forge.insert(root.clone(), Rc::clone(&entries));
                    entries
                }
            };
            let mut paths = vec![];
            if entries != at_base {
                paths = opened(&mut objects, self.inspector)?.changes(&at_base, &entries)?;
            }
            for (path, before) in &led_to {
                if opened(&mut objects, self.inspector)?.at(&root, path)? != *before {
                    paths.push(path.clone());
                }
            }
            let paths: Vec<String> = paths.iter().map(|path| self.shown(path)).collect();
            // Each change is reported with the first commit that contains it.
            if !paths.is_empty() && reported.insert((Rc::clone(&entries), paths.clone())) {
                findings.push(Finding::RunsOnPush { paths, commit });
            }
            if findings.len() >= FINDINGS_MAX {
                break;
            }
        }
        self.seen.findings.extend(findings);
        Ok(())
    }
}

fn opened<'o>(objects: &'o mut Option<Objects>, inspector: &Inspector<'_>) -> Result<&'o mut Objects, Failure> {
    match objects {
        Some(objects) => Ok(objects),
        None => Ok(objects.insert(inspector.objects()?)),
    }
}

/// Whether the forge, or a service that listens to it, runs files below that name of the root: its own actions, and
/// those of other well-known services.
fn is_run_by_forge(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_slice(), b".gitea" | b".forgejo" | b".github")
        || name.starts_with(b".woodpecker")
        || name.starts_with(b".drone")
}

/// Of `.github` only the workflows are run; the rest is for people.
fn is_run_below(parent: &[u8], name: &[u8]) -> bool {
    !parent.eq_ignore_ascii_case(b".github") || name.eq_ignore_ascii_case(b"workflows")
}

/// Calls `each` for every entry of a directory. Returns whether the directory was well-formed.
fn each_entry(mut content: &[u8], id: usize, mut each: impl FnMut(&[u8], &[u8], &[u8])) -> bool {
    while !content.is_empty() {
        let Some(space) = content.iter().position(|byte| *byte == b' ') else { return false };
        let Some(end) = content[space..].iter().position(|byte| *byte == 0).map(|end| space + end) else {
            return false;
        };
        let Some(hash) = content.get(end + 1..end + 1 + id) else { return false };
        each(&content[..space], &content[space + 1..end], hash);
        content = &content[end + 1 + id..];
    }
    true
}

/// Parses a commit; `None` if it is not one.
pub(super) fn parse_commit(id: String, content: &[u8]) -> Option<Commit> {
    let end = content.windows(2).position(|pair| pair == b"\n\n").unwrap_or(content.len());
    let (head, message) = content.split_at(end);
    let mut commit =
        Commit { id, tree: String::new(), parents: vec![], author: String::new(), subject: String::new(), at: 0 };
    for line in head.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        match line.split_once(' ') {
            Some(("tree", tree)) if commit.tree.is_empty() => commit.tree = tree.to_owned(),
            Some(("parent", parent)) if commit.author.is_empty() => commit.parents.push(parent.to_owned()),
            Some(("author", who)) if commit.author.is_empty() => {
                commit.author = who.split('<').next().unwrap_or_default().trim().chars().take(200).collect();
            }
            Some(("committer", who)) => {
                commit.at = who.rsplit(' ').nth(1).and_then(|at| at.parse().ok()).unwrap_or_default();
                break;
            }
            _ => {}
        }
    }
    let message = String::from_utf8_lossy(message);
    let first = message.trim_start().lines().take_while(|line| !line.trim().is_empty());
    commit.subject = first.collect::<Vec<_>>().join(" ").chars().take(200).collect();
    let is_id = |id: &str| id.len() >= 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id(&commit.tree) && commit.parents.iter().all(|parent| is_id(parent))).then_some(commit)
}

/// Reads single objects, one by one.
pub(super) struct Objects {
    asking: std::process::ChildStdin,
    printed: BufReader<ChildStdout>,
    left: u32,
    _print: Running,
}

impl Objects {
    /// Reads an object and its kind, if it is not larger than [`TREE_MAX`].
    pub(super) fn read(&mut self, id: &str) -> Result<(String, Vec<u8>), Failure> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Failure::Work(format!("it takes more than {LOOKUPS_MAX} objects to find out")))?;
        writeln!(self.asking, "{id}").map_err(|e| Failure::Work(format!("asking git for an object: {e}")))?;
        let (_, kind, size) = read_head(&mut self.printed)?;
        if size > TREE_MAX {
            return Err(Failure::Work(format!("a {kind} has {size} bytes, more than the {TREE_MAX} that are read")));
        }
        Ok((kind, read_whole(&mut self.printed, size)?))
    }

    fn directory(&mut self, id: &str) -> Result<Vec<Entry>, Failure> {
        let (kind, content) = self.read(id)?;
        let mut entries = vec![];
        let whole = each_entry(&content, id.len() / 2, |mode, name, id| {
            entries.push(Entry { name: name.to_vec(), mode: mode.to_vec(), id: hex::encode(id) });
        });
        if kind != "tree" || !whole {
            return Err(Failure::Work("a directory cannot be read".to_owned()));
        }
        Ok(entries)
    }

    /// The paths at which two sets of entries differ; at least one if they differ at all.
    fn changes(&mut self, before: &[Entry], after: &[Entry]) -> Result<Vec<Vec<u8>>, Failure> {
        let mut found = vec![];
        self.differing(&mut vec![], before, after, &mut found)?;
        Ok(found)
    }

    fn differing(
        &mut self,
        path: &mut Vec<u8>,
        before: &[Entry],
        after: &[Entry],
        found: &mut Vec<Vec<u8>>,
    ) -> Result<(), Failure> {
        let names: BTreeSet<&[u8]> = before.iter().chain(after).map(|entry| entry.name.as_slice()).collect();
        for name in names {
            let at_root = path.is_empty();
            let of = |entries: &[Entry]| entries.iter().find(|entry| entry.name == name).cloned();
            let (old, new) = (of(before), of(after));
            if old == new || found.len() >= NAMED_MAX {
                continue;
            }
            let length = path.len();
            if !at_root {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let is_directory = |entry: &Option<Entry>| entry.as_ref().is_none_or(Entry::is_directory);
            if is_directory(&old) && is_directory(&new) && path.len() < PATH_MAX {
                let mut below = |entry: &Option<Entry>| -> Result<Vec<Entry>, Failure> {
                    let Some(entry) = entry else { return Ok(vec![]) };
                    let mut entries = self.directory(&entry.id)?;
                    entries.retain(|entry| !at_root || is_run_below(name, &entry.name));
                    Ok(entries)
                };
                let (old, new) = (below(&old)?, below(&new)?);
                self.differing(path, &old, &new, found)?;
            } else {
                found.push(path.clone());
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// The targets of the links among some entries of a root, and below them.
    fn links(&mut self, root: &str, entries: &[Entry]) -> Result<BTreeSet<Vec<u8>>, Failure> {
        let mut led_to = BTreeSet::new();
        let mut places: Vec<(There, usize)> = entries
            .iter()
            .map(|entry| (There { path: entry.name.clone(), entry: entry.clone(), rest: vec![] }, 0))
            .collect();
        while let Some((There { path, entry, rest }, links)) = places.pop() {
            if entry.is_directory() {
                for below in self.directory(&entry.id)? {
                    if is_run_below(&path, &below.name) && (below.is_directory() || below.is_link()) {
                        let path = joined(&path, &below.name);
                        places.push((There { path, entry: below, rest: vec![] }, links));
                    }
                }
            } else if entry.is_link() && links < LINKS_MAX {
                let (_, target) = self.read(&entry.id)?;
                let Some(mut target) = resolve(&path, &target) else { continue };
                if !rest.is_empty() {
                    target = joined(&target, &rest);
                }
                if led_to.insert(target.clone())
                    && let Some(there) = self.at(root, &target)?
                {
                    places.push((there, links + 1));
                }
            }
        }
        Ok(led_to)
    }

    /// What lies at a path below a root. If a link lies on the way, that link is returned.
    fn at(&mut self, root: &str, path: &[u8]) -> Result<Option<There>, Failure> {
        let mut directory = root.to_owned();
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        for (index, part) in parts.iter().enumerate() {
            let entries = self.directory(&directory)?;
            let Some(entry) = entries.into_iter().find(|entry| entry.name == *part) else { return Ok(None) };
            if index + 1 == parts.len() || !entry.is_directory() {
                let (path, rest) = parts.split_at(index + 1);
                return Ok(Some(There { path: path.join(&b'/'), entry, rest: rest.join(&b'/') }));
            }
            directory = entry.id;
        }
        Ok(None)
    }
}

/// What lies at a path.
#[derive(PartialEq, Eq)]
struct There {
    /// The part of the path that exists.
    path: Vec<u8>,
    entry: Entry,
    /// The rest of the path behind a link on the way.
    rest: Vec<u8>,
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

/// The target of a link at `path`, if it lies within the repository.
fn resolve(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}
