//! The work of a cell on the host's side: taken in, inspected, pushed.
//!
//! Each cell that did something gets a bare repository of its own, which borrows the mirror's objects. The only
//! things in it that agents wrote are the objects of one pack. What a cell hands out is treated as a request by
//! somebody hostile: its list is checked against a schema and limits on this side, every git that touches its
//! objects is confined ([`ConfinedGit`]), and everything that is reported about the work is read from the objects.
//! The repository is kept until the cell is destroyed, so that what was refused or held can leave later.

use super::confined::{self, Bounds, ConfinedGit, Failure, Running};
use super::git::{GitError, git, run};
use super::harvest::Harvest;
use super::held::{Finding, Held, shown};
use super::inspect::{Commit, Inspector, OBJECTS_MAX};
use super::parts::{Claims, Judged, look_at, notes_of, quoted};
use crate::publication::Secrets;
use crate::workspace::{HandedWork, HarvestManifest, make_directory};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Most commits that are listed.
const COMMITS_LISTED: usize = 50;
/// Most files that are listed.
const FILES_LISTED: usize = 100;
/// The reference of the mission's own branch.
const TIP: &str = "refs/heads/work";
/// Prefix of the references of all parts, named by their commits.
const PARTS: &str = "refs/lazarus/parts/";
/// Prefix of the references of snapshots, named by their commits.
const CHECKPOINTS: &str = "refs/lazarus/checkpoints/";
/// Largest archive before it is compressed, in bytes.
const UNPACKED_MAX: u64 = 512 << 20;

/// Limits on the work that is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkLimits {
    /// Largest pack, in bytes.
    pub pack: u64,
    /// Largest file, in bytes.
    pub file: u64,
    /// Most files that may be changed.
    pub files: u64,
    /// Most branches besides the one that is checked out.
    pub branches: usize,
    /// Most bytes of all new objects together, unpacked: so much is searched for secrets.
    pub search: u64,
}

/// Where a cell's work comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The mission, as the commit trailer names it.
    pub mission: String,
    /// The cell's name.
    pub cell: String,
    /// The commit that the cell was made from.
    pub base: String,
}

/// The repository with a cell's work.
#[derive(Debug, Clone)]
pub struct WorkRepository {
    pub(super) path: PathBuf,
    mirror: PathBuf,
    pub(super) git: ConfinedGit,
}

impl WorkRepository {
    /// The repository at `path`, which borrows objects from `mirror`; `git` says how it is read.
    pub fn new(path: PathBuf, mirror: PathBuf, git: ConfinedGit) -> Self {
        Self { path, mirror, git }
    }

    /// How it is read on this host, in words.
    pub const fn confinement(&self) -> &'static str {
        self.git.words()
    }

    fn objects(&self) -> PathBuf {
        self.mirror.join("objects")
    }

    /// Runs git to read from the repository, and returns its output.
    pub(super) fn read(&self, what: &'static str, arguments: &[&str], bounds: Bounds) -> Result<Vec<u8>, Failure> {
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[], bounds);
        confined::run(what, command.args(arguments), bounds.output)
    }

    /// Takes in what a cell handed out, every byte of which agents control, and inspects all of it. The harvest
    /// says what is wrong with it, and which parts may not leave.
    ///
    /// # Errors
    /// If git cannot be run or one of our own files cannot be used.
    pub fn take_in(
        &self,
        handed: HandedWork,
        limits: &WorkLimits,
        origin: &Origin,
        secrets: &Secrets,
    ) -> Result<Harvest, GitError> {
        let HandedWork { manifest: handed, pack } = handed;
        let mut harvest = Harvest { uncommitted: handed.uncommitted.min(1_000_000_000), ..Harvest::default() };
        harvest.notes = notes_of(&handed, limits.branches);
        if let Some(why) = &handed.unknown {
            harvest.unknown = Some(quoted("the cell says", why));
            return Ok(harvest);
        }
        if handed.tip.is_none() && handed.branches.is_empty() && handed.snapshot.is_none() {
            return Ok(harvest);
        }
        match self.take(pack, &handed, limits, origin, secrets, &mut harvest) {
            Ok(()) => Ok(harvest),
            Err(Failure::Machine(error)) => Err(error),
            // The work itself is at fault, and people are told so.
            Err(Failure::Work(words)) => Ok(Harvest {
                unknown: Some(words),
                uncommitted: harvest.uncommitted,
                notes: harvest.notes,
                ..Harvest::default()
            }),
        }
    }

    fn take(
        &self,
        pack: io::Result<File>,
        handed: &HarvestManifest,
        limits: &WorkLimits,
        origin: &Origin,
        secrets: &Secrets,
        harvest: &mut Harvest,
    ) -> Result<(), Failure> {
        let claims = Claims::check(handed, limits)?;
        harvest.notes.extend(claims.notes.iter().cloned());
        self.make()?;
        self.index(pack, limits)?;
        let bounds = Bounds::reading(limits.file).and_for(limits.pack);
        let objects = self.objects();
        let inspector = Inspector {
            git: &self.git,
            repository: &self.path,
            objects: &objects,
            base: &origin.base,
            bounds,
            file: limits.file,
            search: limits.search,
            secrets,
        };
        let judged = Judged::of(&inspector, &claims)?;
        self.summarize(judged, limits, origin, secrets, harvest)?;
        harvest.snapshot = claims.snapshot;
        self.refer(harvest)
    }

    /// Indexes the pack's objects; git checks them.
    fn index(&self, pack: io::Result<File>, limits: &WorkLimits) -> Result<(), Failure> {
        // A link or a pipe instead of a file is the cell's doing, so it would be the same at the next attempt.
        let mut pack = pack.map_err(|e| Failure::Work(format!("what the cell handed out cannot be opened: {e}")))?;
        let size = pack.metadata().map_or(u64::MAX, |m| m.len());
        if size > limits.pack {
            return Err(Failure::Work(format!("it is larger than `harvest.pack_max` allows ({} bytes)", limits.pack)));
        }
        let mut head = [0; 12];
        let counted = pack.read_exact(&mut head).and_then(|()| pack.rewind());
        let count = u64::from(u32::from_be_bytes([head[8], head[9], head[10], head[11]]));
        if counted.is_err() || !head.starts_with(b"PACK") {
            return Err(Failure::Work("what the cell handed out is no pack".to_owned()));
        }
        if count > OBJECTS_MAX {
            return Err(Failure::Work(format!(
                "it has {count} objects, more than the {OBJECTS_MAX} that are taken in"
            )));
        }
        let bounds = Bounds::reading(limits.file).and_for(size);
        let packs = self.path.join("objects/pack");
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[&packs], bounds);
        command.args(["index-pack", "--stdin", "--strict", "--threads=1"]);
        command.arg(format!("--max-input-size={}", limits.pack));
        confined::run_on("index-pack", &mut command, pack, bounds.output).map(|_| ())
    }

    /// Reads from the objects what people are told about the work, makes the host's own commit of uncommitted
    /// changes, and notes what holds each part.
    fn summarize(
        &self,
        judged: Judged,
        limits: &WorkLimits,
        origin: &Origin,
        secrets: &Secrets,
        harvest: &mut Harvest,
    ) -> Result<(), Failure> {
        let Judged { mut commits, committed, rest, others } = judged;
        let mut described = None;
        let rest = match rest {
            None => None,
            Some((theirs, mut findings)) => {
                let own = self.own_commit(&theirs, origin)?;
                // People see our own commit, so findings name that one.
                for finding in &mut findings {
                    finding.came_with(&theirs.id, &own);
                }
                match self.changed(&origin.base, &own, limits, true)? {
                    Ok(changed) => described = Some(changed),
                    Err(words) => findings.push(Finding::Limit { words }),
                }
                let subject = format!("Uncommitted work of cell {}", origin.cell);
                commits.retain(|commit| commit.id != theirs.id);
                if findings.is_empty() || committed.is_none() {
                    commits.insert(0, Commit { id: own.clone(), author: "lazarus".to_owned(), subject, ..theirs });
                } else {
                    // People are told what leaves; this part is only reported as held.
                    described = None;
                }
                Some((own, findings))
            }
        };
        let committed = match committed {
            None => None,
            Some((commit, mut findings)) => {
                if described.is_none() {
                    match self.changed(&origin.base, &commit, limits, true)? {
                        Ok(changed) => described = Some(changed),
                        Err(words) => findings.push(Finding::Limit { words }),
                    }
                }
                Some((commit, findings))
            }
        };
        let mut hold = |commit: &str, branch: Option<String>, rest: bool, findings: Vec<Finding>| {
            if !findings.is_empty() {
                harvest.held.push(Held { commit: commit.to_owned(), branch, rest, findings });
            }
        };
        match (committed, rest) {
            (None, None) => {}
            (Some((commit, findings)), None) => {
                hold(&commit, None, false, findings);
                harvest.tip = Some(commit);
            }
            (None, Some((rest, findings))) => {
                hold(&rest, None, true, findings);
                (harvest.tip, harvest.rest) = (Some(rest), true);
            }
            // Both parts are released together if both can be released. Otherwise the committed part stands by
            // itself.
            (Some((_, below)), Some((rest, findings)))
                if !below.is_empty() && findings.iter().all(Finding::can_be_released) =>
            {
                hold(&rest, None, false, below.into_iter().chain(findings).collect());
                (harvest.tip, harvest.rest) = (Some(rest), true);
            }
            (Some((commit, below)), Some((rest, findings))) => {
                hold(&commit, None, false, below);
                hold(&rest, None, true, findings);
                (harvest.tip, harvest.rest, harvest.committed) = (Some(rest), true, Some(commit));
            }
        }
        for (name, commit, mut findings) in others {
            if let Err(words) = self.changed(&origin.base, &commit, limits, false)? {
                findings.push(Finding::Limit { words });
            }
            let name = secrets.redact(&name).0;
            hold(&commit, Some(name.clone()), false, findings);
            harvest.branches.push((name, commit));
        }
        if let Some(changed) = described {
            changed.describe(harvest, secrets);
        }
        harvest.commit_count = commits.len() as u64;
        commits.truncate(COMMITS_LISTED);
        harvest.commits = commits.into_iter().map(|commit| (commit.id, commit.author, commit.subject)).collect();
        Ok(())
    }

    /// What differs between the base and a commit, or in words why that cannot be said. Without `lines`, lines are
    /// not counted.
    fn changed(
        &self,
        base: &str,
        commit: &str,
        limits: &WorkLimits,
        lines: bool,
    ) -> Result<Result<Changed, String>, Failure> {
        // A small tree can expand endlessly; the bounds on memory and output stop it.
        let bounds = Bounds::listing();
        let mut arguments = vec!["diff-tree", "-r", "-z", "--no-ext-diff", "--no-textconv", "--no-renames", "--raw"];
        if lines {
            arguments.push("--numstat");
        }
        arguments.extend([base, commit]);
        let text = match self.read("diff-tree", &arguments, bounds) {
            Ok(text) => text,
            Err(Failure::Work(words)) => {
                return Ok(Err(format!(
                    "more files were touched than can be counted; `harvest.files_max` allows {} ({words})",
                    limits.files
                )));
            }
            Err(failure) => return Err(failure),
        };
        let changed = Changed::parse(&text);
        if changed.count > limits.files {
            return Ok(Err(format!(
                "{} files were touched; `harvest.files_max` allows {}",
                changed.count, limits.files
            )));
        }
        Ok(Ok(changed))
    }

    /// Creates references to everything that was taken in, so that git keeps it.
    fn refer(&self, harvest: &Harvest) -> Result<(), Failure> {
        let mut lines = String::new();
        for commit in harvest.parts() {
            lines.push_str(&format!("update {PARTS}{commit} {commit}\n"));
        }
        if let Some(tip) = &harvest.tip {
            lines.push_str(&format!("update {TIP} {tip}\n"));
        }
        if let Some(snapshot) = &harvest.snapshot {
            lines.push_str(&format!("update {CHECKPOINTS}{snapshot} {snapshot}\n"));
        }
        let bounds = Bounds::reading(0);
        let references = self.path.join("refs");
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[&references], bounds);
        command.args(["update-ref", "--stdin"]).stdin(Stdio::piped());
        let mut running = Running::start("update-ref", &mut command)?;
        if let Some(mut input) = running.stdin() {
            // If git does not read its input, it reports why itself.
            let _ = input.write_all(lines.as_bytes());
        }
        running.finish()
    }

    fn make(&self) -> Result<(), GitError> {
        let alternates = self.path.join("objects/info/alternates");
        if alternates.exists() {
            return Ok(());
        }
        make_directory(&self.path, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        run("init", git(None).args(["init", "--quiet", "--bare", "--template="]).arg(&self.path))?;
        for directory in ["objects/info", "objects/pack"] {
            make_directory(&self.path.join(directory), 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        }
        // Written last: without this file the repository is incomplete.
        std::fs::write(&alternates, format!("{}\n", self.objects().display()))
            .map_err(GitError::io("pointing the work to the mirror's objects"))
    }

    /// Makes our own commit with the same tree and parent as the cell's commit of uncommitted changes. It is not
    /// signed: agents chose its tree, and a signature would vouch for it.
    fn own_commit(&self, theirs: &Commit, origin: &Origin) -> Result<String, Failure> {
        let message = format!(
            "Uncommitted work of cell {cell}\n\nIt was there when the cell was closed; nobody committed it.\n\n\
             Lazarus-Mission: {mission}\nLazarus-Cell: {cell}\nLazarus-Uncommitted: true\n",
            cell = origin.cell,
            mission = origin.mission,
        );
        let parent = theirs.parents.first().cloned().unwrap_or_default();
        let bounds = Bounds::reading(0);
        let objects = self.path.join("objects");
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[&objects], bounds);
        command.args(["commit-tree", &theirs.tree, "-p", &parent, "-m", &message]);
        // Uses the time of the cell's commit, so that repeating this gives the same commit.
        let when = format!("{} +0000", theirs.at.max(0));
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "lazarus")
                .env(format!("GIT_{who}_EMAIL"), "lazarus@agents.lazarus.invalid")
                .env(format!("GIT_{who}_DATE"), &when);
        }
        let commit = confined::run("commit-tree", &mut command, 1024)?;
        Ok(String::from_utf8_lossy(&commit).trim().to_owned())
    }

    /// Inspects commits that were taken in again, with the present secrets and limits. Returns what holds each
    /// commit that is held.
    ///
    /// # Errors
    /// If git cannot be run.
    pub fn judge(
        &self,
        parts: &[(Option<String>, String)],
        base: &str,
        limits: &WorkLimits,
        secrets: &Secrets,
    ) -> Result<Vec<Held>, GitError> {
        let objects = self.objects();
        let inspector = Inspector {
            git: &self.git,
            repository: &self.path,
            objects: &objects,
            base,
            bounds: Bounds::reading(limits.file).and_for(limits.pack),
            file: limits.file,
            search: limits.search,
            secrets,
        };
        let machine = |failure| match failure {
            Failure::Machine(error) => error,
            Failure::Work(words) => GitError::Git { what: "looking at the work", words },
        };
        let mut held = vec![];
        for (branch, commit) in parts {
            let (_, mut findings) = look_at(&inspector, commit, &[]).map_err(machine)?;
            if let Err(words) = self.changed(base, commit, limits, false).map_err(machine)? {
                findings.push(Finding::Limit { words });
            }
            if !findings.is_empty() {
                held.push(Held { commit: commit.clone(), branch: branch.clone(), rest: false, findings });
            }
        }
        Ok(held)
    }

    /// Packs a checkpoint as an archive of at most `most` bytes. It is searched before it is compressed.
    ///
    /// # Errors
    /// In words: the checkpoint does not exist, the archive is larger, or it contains a known secret.
    pub fn archive(&self, checkpoint: &str, most: u64, secrets: &Secrets) -> Result<Vec<u8>, String> {
        let known = format!("{CHECKPOINTS}{checkpoint}");
        let bounds = Bounds { output: most, ..Bounds::reading(64 << 20) };
        let words = |failure| match failure {
            Failure::Machine(error) => error.to_string(),
            Failure::Work(words) => words,
        };
        let packed = self.read("archive", &["archive", "--format=tgz", &known], bounds).map_err(|failure| {
            format!("the archive cannot be made, or is larger than {most} bytes: {}", words(failure))
        })?;
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[], bounds);
        let mut running =
            Running::start("archive", command.args(["archive", "--format=tar", &known])).map_err(words)?;
        let mut search = secrets.search();
        if let Some(mut stream) = running.stdout() {
            let (mut piece, mut size) = (vec![0; 64 << 10], 0);
            loop {
                let read = stream.read(&mut piece).map_err(|e| format!("reading the archive: {e}"))?;
                size += read as u64;
                if size > UNPACKED_MAX {
                    return Err(format!("it holds more than {UNPACKED_MAX} bytes, too many to search for secrets"));
                }
                if read == 0 {
                    break;
                }
                search.feed(&piece[..read]);
            }
        }
        running.finish().map_err(words)?;
        match search.finish() {
            Some(name) => Err(format!("a known secret (`{name}`) is in it")),
            None => Ok(packed),
        }
    }

    /// Writes a separate repository into `directory`, which is created, with a branch for each of `parts` (name and
    /// commit). It borrows no objects, and nothing is checked out.
    ///
    /// # Errors
    /// In words: the directory exists already, or git cannot read the work.
    pub fn copy_to(&self, directory: &Path, parts: &[(String, String)]) -> Result<(), String> {
        std::fs::create_dir(directory).map_err(|e| format!("making {}: {e}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|e| format!("finding {}: {e}", directory.display()))?;
        run("init", git(None).args(["init", "--quiet", "--template="]).arg(&directory)).map_err(|e| e.to_string())?;
        let bounds = Bounds { time: 600, file: u64::MAX / 2, ..Bounds::reading(256 << 20) };
        // Git's configuration is not among the files that it may write.
        let [objects, references] = ["objects", "refs"].map(|name| directory.join(".git").join(name));
        let (read, write) = ([&self.path, &self.objects(), &directory], [&*objects, &*references]);
        let read = read.map(std::path::PathBuf::as_path);
        let mut command = self.git.git(&directory, &read, &write, bounds);
        command.args([
            "-c",
            "core.logAllRefUpdates=false",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "protocol.version=2",
            "fetch",
            "--quiet",
            "--no-tags",
        ]);
        command.args(["--no-write-fetch-head", "--no-auto-maintenance", "--"]).arg(&self.path);
        command.args(parts.iter().map(|(name, commit)| format!("+{commit}:refs/heads/{name}")));
        match confined::run("fetch", &mut command, 1 << 20) {
            Ok(_) => Ok(()),
            Err(Failure::Work(words)) => Err(words),
            Err(Failure::Machine(error)) => Err(error.to_string()),
        }
    }

    /// Whether anything was taken in.
    pub fn exists(&self) -> bool {
        self.path.join("objects/info/alternates").exists()
    }
}

/// What differs between two commits.
#[derive(Default)]
struct Changed {
    count: u64,
    /// For the first files: lines added, lines removed, path.
    files: Vec<(u64, u64, Vec<u8>)>,
    /// Number of symbolic links that are new or changed.
    links: u64,
    /// Number of links to commits of other repositories, in the place of directories.
    repositories: u64,
}

impl Changed {
    /// Parses the output of `diff-tree -r -z --raw --numstat`.
    fn parse(text: &[u8]) -> Self {
        let mut changed = Self::default();
        let mut fields = text.split(|byte| *byte == 0);
        while let Some(field) = fields.next() {
            if let Some(raw) = field.strip_prefix(b":") {
                changed.count += 1;
                match raw.split(|byte| *byte == b' ').nth(1) {
                    Some(b"120000") => changed.links += 1,
                    Some(b"160000") => changed.repositories += 1,
                    _ => {}
                }
                // Skips the path of that entry.
                fields.next();
            } else if changed.files.len() < FILES_LISTED {
                changed.files.extend(numbered_file(field));
            }
        }
        changed
    }

    fn describe(self, harvest: &mut Harvest, secrets: &Secrets) {
        harvest.file_count = self.count;
        let path = |path: Vec<u8>| secrets.redact(&shown(&path)).0;
        harvest.files = self.files.into_iter().map(|(added, removed, name)| (added, removed, path(name))).collect();
        // A reviewer must judge where these lead.
        for (count, one, many) in [
            (self.links, "symbolic link was", "symbolic links were"),
            (
                self.repositories,
                "link to a commit of another repository was",
                "links to commits of other repositories were",
            ),
        ] {
            if count > 0 {
                let what = if count == 1 { one } else { many };
                harvest.notes.push(format!(
                    "{count} {what} added or changed: look where {} lead",
                    if count == 1 { "it may" } else { "they" }
                ));
            }
        }
    }
}

/// Parses `added TAB removed TAB path`; binary files have `-` for both numbers.
fn numbered_file(field: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let mut parts = field.splitn(3, |byte| *byte == b'\t');
    let mut number = || parts.next().map(|n| std::str::from_utf8(n).ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    let (added, removed) = (number()?, number()?);
    Some((added, removed, parts.next()?.to_vec()))
}
