//! The work of a cell on the host's side: taken in, looked at, pushed.
//!
//! Each cell that did something gets a bare repository of its own, which borrows
//! the mirror's objects. Nothing in it was written by an agent but the objects of
//! one pack. What a cell hands out is a request by somebody hostile: its list is
//! checked against a schema and caps of this side, every git that touches its
//! objects is confined ([`ConfinedGit`]), and all that is said of the work is
//! read from the objects. It is kept until the cell is destroyed, so that what
//! was refused or held can leave later.

use super::confined::{self, Bounds, ConfinedGit, Failure, Running};
use super::git::{CredentialSocket, GitError, git, run};
use super::harvest::{HandedOut, PACK, quoted};
use super::held::{Finding, Held, Place, shown};
use super::home::make_directory;
use super::inspect::{Commit, Inspector, OBJECTS_MAX, Seen, parse_commit};
use crate::backend::Harvest;
use crate::publication::Secrets;
use crate::sandbox::TIMED_OUT;
use secrecy::SecretString;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Most commits that are listed.
const COMMITS_LISTED: usize = 50;
/// Most files that are listed.
const FILES_LISTED: usize = 100;
/// Branches that are named in the log though they do not leave.
const NAMED: usize = 20;
/// Names that are tried where somebody else's work is on the first.
const NAMES_MAX: usize = 9;
/// The reference of the mission's own branch.
const TIP: &str = "refs/heads/work";
/// Where the references of all parts are, by their commits.
const PARTS: &str = "refs/lazarus/parts/";
/// Where the references of snapshots are, by their commits.
const CHECKPOINTS: &str = "refs/lazarus/checkpoints/";
/// Largest archive before it is packed, in bytes.
const UNPACKED_MAX: u64 = 512 << 20;
/// Longest time for a push, in seconds.
const PUSH_TIME: u64 = 600;
/// Longest name of a branch, in characters, as the schema of a hand-out has it.
const BRANCH_MAX: usize = 250;

/// How much work is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkLimits {
    /// Bytes of the pack.
    pub pack: u64,
    /// Bytes of one file.
    pub file: u64,
    /// Files touched.
    pub files: u64,
    /// Branches besides the one that is checked out.
    pub branches: usize,
    /// Bytes of all new objects together, unpacked: what is searched for secrets.
    pub search: u64,
}

/// Where a push went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The branch.
    pub branch: String,
    /// Whether the first choice of a name was somebody else's.
    pub renamed: bool,
}

/// What came of one branch of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// It is there.
    Pushed(Pushed),
    /// The forge refused it for good, in its words.
    Refused(String),
}

/// What the forge answered to one branch.
enum Answer {
    Done,
    /// The branch is not as it was thought to be.
    Stale,
    Refused(String),
}

/// One branch that is pushed: its place among all, its name, its commit, and the
/// commit that it is expected to be at; none where it is expected not to be there.
struct Refspec<'a> {
    index: usize,
    branch: String,
    commit: &'a str,
    known: String,
}

/// What a cell's work is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The mission, as the trailer names it.
    pub mission: String,
    /// The cell.
    pub cell: String,
    /// The commit that the cell was made from.
    pub base: String,
}

/// A cell's work.
#[derive(Debug, Clone)]
pub struct WorkRepository {
    path: PathBuf,
    mirror: PathBuf,
    git: ConfinedGit,
}

/// Where the hand-out is wrong, in words.
fn refused(words: impl Into<String>) -> Failure {
    Failure::Work(words.into())
}

impl WorkRepository {
    /// The repository at `path`, which borrows from `mirror`, and how it is read.
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

    /// Reads with git, and what it printed as text.
    fn read(&self, what: &'static str, arguments: &[&str], bounds: Bounds) -> Result<Vec<u8>, Failure> {
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[], bounds);
        confined::run(what, command.args(arguments), bounds.output)
    }

    /// Takes in what a cell handed out into `directory`, of which every byte is
    /// the agents', and looks at all of it. What is wrong with it, and what of it
    /// may not leave, is said in the harvest.
    ///
    /// # Errors
    /// Where git cannot be run or a file of ours cannot be used.
    pub fn take_in(
        &self,
        directory: &Path,
        handed: &HandedOut,
        limits: &WorkLimits,
        origin: &Origin,
        secrets: &Secrets,
    ) -> Result<Harvest, GitError> {
        let mut harvest = Harvest { uncommitted: handed.uncommitted.min(1_000_000_000), ..Harvest::default() };
        harvest.notes = handed.notes(limits.branches);
        if let Some(why) = &handed.unknown {
            harvest.unknown = Some(quoted("the cell says", why));
            return Ok(harvest);
        }
        if handed.tip.is_none() && handed.branches.is_empty() && handed.snapshot.is_none() {
            return Ok(harvest);
        }
        match self.take(directory, handed, limits, origin, secrets, &mut harvest) {
            Ok(()) => Ok(harvest),
            Err(Failure::Machine(error)) => Err(error),
            // The work itself is wrong; that is for people to hear.
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
        directory: &Path,
        handed: &HandedOut,
        limits: &WorkLimits,
        origin: &Origin,
        secrets: &Secrets,
        harvest: &mut Harvest,
    ) -> Result<(), Failure> {
        let claims = Claims::check(handed, limits)?;
        harvest.notes.extend(claims.notes.iter().cloned());
        self.make()?;
        self.index(directory, limits)?;
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

    /// Takes the pack's objects in, checked by git.
    fn index(&self, directory: &Path, limits: &WorkLimits) -> Result<(), Failure> {
        // A link or a pipe in its place is the cell's doing: it would be there again.
        let mut pack =
            open_pack(directory).map_err(|e| refused(format!("what the cell handed out cannot be opened: {e}")))?;
        let size = pack.metadata().map_or(u64::MAX, |m| m.len());
        if size > limits.pack {
            return Err(refused(format!("it is larger than `harvest.pack_max` allows ({} bytes)", limits.pack)));
        }
        let mut head = [0; 12];
        let counted = pack.read_exact(&mut head).and_then(|()| pack.rewind());
        let count = u64::from(u32::from_be_bytes([head[8], head[9], head[10], head[11]]));
        if counted.is_err() || !head.starts_with(b"PACK") {
            return Err(refused("what the cell handed out is no pack"));
        }
        if count > OBJECTS_MAX {
            return Err(refused(format!("it has {count} objects, more than the {OBJECTS_MAX} that are taken in")));
        }
        let bounds = Bounds::reading(limits.file).and_for(size);
        let packs = self.path.join("objects/pack");
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[&packs], bounds);
        command.args(["index-pack", "--stdin", "--strict", "--threads=1"]);
        command.arg(format!("--max-input-size={}", limits.pack));
        confined::run_on("index-pack", &mut command, pack, bounds.output).map(|_| ())
    }

    /// Reads from the objects what people are told of the work, makes the host's
    /// own commit of what nobody committed, and notes what holds each part.
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
                // It is ours that people see.
                findings.iter_mut().for_each(|finding| finding.came_with(&theirs.id, &own));
                match self.changed(&origin.base, &own, limits, true)? {
                    Ok(changed) => described = Some(changed),
                    Err(words) => findings.push(Finding::Limit { words }),
                }
                let subject = format!("Uncommitted work of cell {}", origin.cell);
                commits.retain(|commit| commit.id != theirs.id);
                if findings.is_empty() || committed.is_none() {
                    commits.insert(0, Commit { id: own.clone(), author: "lazarus".to_owned(), subject, ..theirs });
                } else {
                    // People are told of what leaves, and of this that it is held.
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
            // Both are released as one, where both can be. Else what was
            // committed is by itself.
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

    /// What differs between the base and a commit; or why that cannot be said, in
    /// words. Without `lines` nobody wants to know how many lines.
    fn changed(
        &self,
        base: &str,
        commit: &str,
        limits: &WorkLimits,
        lines: bool,
    ) -> Result<Result<Changed, String>, Failure> {
        // A small tree can unfold without end: memory and output are what ends it.
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

    /// Keeps everything that was taken in by references, so that it can be found.
    fn refer(&self, harvest: &Harvest) -> Result<(), Failure> {
        let mut lines = String::new();
        for commit in harvest.parts() {
            lines.push_str(&format!("update {PARTS}{commit} {commit}\n"));
        }
        match &harvest.tip {
            Some(tip) => lines.push_str(&format!("update {TIP} {tip}\n")),
            None => lines.push_str(&format!("delete {TIP}\n")),
        }
        if let Some(snapshot) = &harvest.snapshot {
            lines.push_str(&format!("update {CHECKPOINTS}{snapshot} {snapshot}\n"));
        }
        let bounds = Bounds::reading(0);
        let mut command = self.git.git(&self.path, &[&self.path, &self.objects()], &[&self.path], bounds);
        command.args(["update-ref", "--stdin"]).stdin(Stdio::piped());
        let mut running = Running::start("update-ref", &mut command)?;
        if let Some(mut input) = running.stdin() {
            // Where it cannot be told, it says why itself.
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
        // The last: a repository without it is half made.
        std::fs::write(&alternates, format!("{}\n", self.objects().display()))
            .map_err(GitError::io("pointing the work to the mirror's objects"))
    }

    /// The same tree and parent as the cell's last commit, which is of what was
    /// not committed there, as a commit of ours. It is not signed: what is in its
    /// tree is the agents' choice, and a signature would vouch for it.
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
        // The time of the cell's commit, so that twice gives the same.
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

    /// Looks once more at commits that were taken in: with the secrets and the
    /// limits of now. Returns what holds each that is held.
    ///
    /// # Errors
    /// Where git cannot be run.
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

    /// A checkpoint as a packed archive, of at most `most` bytes. It is looked at
    /// before it is packed.
    ///
    /// # Errors
    /// In words: there is no such checkpoint, it is larger, or a known secret is in
    /// it.
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

    /// Pushes each commit to the branch that is named with it, all at once; to a name
    /// with a suffix where somebody else's work is on that. Nothing is ever forced;
    /// what is done already is not done again. The outcomes are in the order of
    /// `branches`.
    ///
    /// # Errors
    /// Where it may work later.
    pub fn push(
        &self,
        url: &str,
        token: &SecretString,
        branches: &[(String, String)],
    ) -> Result<Vec<PushOutcome>, GitError> {
        let socket = CredentialSocket::open(token)?;
        let setting = socket.setting();
        let mut outcomes: Vec<Option<PushOutcome>> = vec![None; branches.len()];
        let pushed = |branch: &str, renamed| PushOutcome::Pushed(Pushed { branch: branch.to_owned(), renamed });
        // Mostly there are no such branches yet, and one call is all.
        let first = branches.iter().enumerate().map(|(index, (branch, commit))| Refspec {
            index,
            branch: branch.clone(),
            commit,
            known: String::new(),
        });
        let mut stale = vec![];
        for (refspec, answer) in self.push_all(url, &setting, first.collect())? {
            match answer {
                Answer::Done => outcomes[refspec.index] = Some(pushed(&refspec.branch, false)),
                Answer::Refused(words) => outcomes[refspec.index] = Some(PushOutcome::Refused(words)),
                Answer::Stale => stale.push(refspec),
            }
        }
        if !stale.is_empty() {
            let patterns = stale.iter().map(|refspec| format!("refs/heads/{}*", refspec.branch));
            let remote = run(
                "ls-remote",
                git(Some(&self.path)).args(["-c", &setting, "ls-remote", "--heads", "--"]).arg(url).args(patterns),
            )?;
            let there: BTreeMap<&str, &str> = remote
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .filter_map(|(commit, reference)| Some((reference.strip_prefix("refs/heads/")?, commit)))
                .collect();
            let mut again = vec![];
            for refspec in stale {
                let index = refspec.index;
                match self.choose(&there, refspec) {
                    Ok(Some(refspec)) => again.push(refspec),
                    Ok(None) => {
                        let (name, _) = &branches[index];
                        let words = format!("there is other work on `{name}` and on {} names after it", NAMES_MAX - 1);
                        outcomes[index] = Some(PushOutcome::Refused(words));
                    }
                    Err(there) => outcomes[index] = Some(pushed(&there, there != branches[index].0)),
                }
            }
            for (refspec, answer) in self.push_all(url, &setting, again)? {
                let renamed = refspec.branch != branches[refspec.index].0;
                outcomes[refspec.index] = Some(match answer {
                    Answer::Done => pushed(&refspec.branch, renamed),
                    Answer::Refused(words) => PushOutcome::Refused(words),
                    Answer::Stale => {
                        let words = format!("somebody changed {} meanwhile", refspec.branch);
                        return Err(GitError::Git { what: "push", words });
                    }
                });
            }
        }
        Ok(outcomes
            .into_iter()
            .map(|o| o.unwrap_or_else(|| PushOutcome::Refused("nothing was said of it".into())))
            .collect())
    }

    /// The first name that is free, or on which a push adds to what is there. The
    /// error is the name that has it already.
    fn choose<'a>(&self, there: &BTreeMap<&str, &str>, refspec: Refspec<'a>) -> Result<Option<Refspec<'a>>, String> {
        for number in 1..=NAMES_MAX {
            let name = &refspec.branch;
            let branch = if number == 1 { name.clone() } else { format!("{name}-{number}") };
            match there.get(branch.as_str()) {
                Some(known) if *known == refspec.commit => return Err(branch),
                Some(known) if !self.is_ancestor(known, refspec.commit) => {}
                known => {
                    let known = known.map(|known| (*known).to_owned()).unwrap_or_default();
                    return Ok(Some(Refspec { branch, known, ..refspec }));
                }
            }
        }
        Ok(None)
    }

    fn is_ancestor(&self, older: &str, newer: &str) -> bool {
        is_commit_id(older)
            && self.read("merge-base", &["merge-base", "--is-ancestor", older, newer], Bounds::reading(0)).is_ok()
    }

    /// One push of all; and where the forge refuses some of several, which can be
    /// for one of them, each by itself.
    fn push_all<'a>(
        &self,
        url: &str,
        setting: &str,
        refspecs: Vec<Refspec<'a>>,
    ) -> Result<Vec<(Refspec<'a>, Answer)>, GitError> {
        let answers = self.push_once(url, setting, &refspecs)?;
        let alone = refspecs.len() == 1;
        let mut all = vec![];
        for (refspec, answer) in refspecs.into_iter().zip(answers) {
            let answer = match answer {
                Answer::Refused(_) if !alone => {
                    let one = [refspec];
                    let answer = self.push_once(url, setting, &one)?.pop().unwrap_or(Answer::Stale);
                    let [refspec] = one;
                    all.push((refspec, answer));
                    continue;
                }
                answer => answer,
            };
            all.push((refspec, answer));
        }
        Ok(all)
    }

    fn push_once(&self, url: &str, setting: &str, refspecs: &[Refspec<'_>]) -> Result<Vec<Answer>, GitError> {
        if refspecs.is_empty() {
            return Ok(vec![]);
        }
        let bounds = Bounds { time: PUSH_TIME, ..Bounds::reading(256 << 20) };
        let mut command = self.git.git_with_network(&self.path, bounds);
        command.args(["-c", setting, "-c", "push.followTags=false", "push", "--porcelain", "--no-verify"]);
        for Refspec { branch, known, .. } in refspecs {
            // Only if it is still what was seen: nobody's work is pushed over.
            command.arg(format!("--force-with-lease=refs/heads/{branch}:{known}"));
        }
        command.arg("--").arg(url);
        command.args(refspecs.iter().map(|r| format!("{}:refs/heads/{}", r.commit, r.branch)));
        let machine = |failure| match failure {
            Failure::Machine(error) => error,
            Failure::Work(words) => GitError::Git { what: "push", words },
        };
        let mut running = Running::start("push", &mut command).map_err(machine)?;
        let mut text = vec![];
        if let Some(stream) = running.stdout() {
            stream.take(bounds.output).read_to_end(&mut text).map_err(GitError::io("reading from git push"))?;
        }
        let (code, words) = running.outcome().map_err(machine)?;
        if code == Some(TIMED_OUT) {
            return Err(GitError::Timeout { what: "push" });
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let said: BTreeMap<&str, (&str, &str)> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, '\t');
                let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
                Some((refs.rsplit_once(':')?.1.strip_prefix("refs/heads/")?, (flag, summary)))
            })
            .collect();
        let answer = |refspec: &Refspec<'_>| match said.get(refspec.branch.as_str()) {
            Some((" " | "*" | "=" | "+", _)) => Ok(Answer::Done),
            Some((_, summary)) if summary.contains("[rejected]") => Ok(Answer::Stale),
            Some((_, summary)) if !GitError::is_transient_words(summary) => {
                Ok(Answer::Refused(format!("{words} {summary}").trim().to_owned()))
            }
            None if code == Some(0) => Ok(Answer::Done),
            _ if !GitError::is_transient_words(&words) => Ok(Answer::Refused(words.clone())),
            _ => Err(GitError::Git { what: "push", words: words.clone() }),
        };
        refspecs.iter().map(answer).collect()
    }

    /// Writes a repository of its own into `directory`, which is made, with a
    /// branch for each of `parts`: name and commit. It borrows from nobody, and
    /// nothing is checked out.
    ///
    /// # Errors
    /// In words: the directory is there already, or git cannot read the work.
    pub fn copy_to(&self, directory: &Path, parts: &[(String, String)]) -> Result<(), String> {
        std::fs::create_dir(directory).map_err(|e| format!("making {}: {e}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|e| format!("finding {}: {e}", directory.display()))?;
        run("init", git(None).args(["init", "--quiet", "--template="]).arg(&directory)).map_err(|e| e.to_string())?;
        let bounds = Bounds { time: 600, file: u64::MAX / 2, ..Bounds::reading(256 << 20) };
        let mut command = self.git.git(&directory, &[&self.path, &self.objects()], &[&directory], bounds);
        command.args(["-c", "protocol.file.allow=always", "-c", "protocol.version=2", "fetch", "--quiet", "--no-tags"]);
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

/// What a hand-out asks for, as the schema has it.
struct Claims {
    tip: Option<String>,
    rest: bool,
    snapshot: Option<String>,
    branches: Vec<(String, String)>,
    /// In words of ours.
    notes: Vec<String>,
}

impl Claims {
    fn check(handed: &HandedOut, limits: &WorkLimits) -> Result<Self, Failure> {
        let tip = match &handed.tip {
            Some(tip) if is_commit_id(tip) => Some(tip.clone()),
            Some(_) => return Err(refused("the cell named no commit")),
            None => None,
        };
        let snapshot = handed.snapshot.clone().filter(|s| is_commit_id(s));
        // Twice the same is once; what is on the mission's own branch is there.
        let mut known: HashSet<&str> = tip.iter().map(String::as_str).collect();
        let (mut branches, mut beyond) = (vec![], vec![]);
        for (name, commit) in handed.branches.iter().filter(|(_, commit)| is_commit_id(commit)) {
            if !known.insert(commit) {
                continue;
            }
            if branches.len() < limits.branches {
                branches.push((name.chars().take(BRANCH_MAX).collect(), commit.clone()));
            } else {
                beyond.push(name.as_str());
            }
        }
        let mut notes = vec![];
        if !beyond.is_empty() {
            notes.push(beyond_words(beyond.iter().copied(), beyond.len() as u64, limits.branches));
        }
        Ok(Self { rest: handed.rest && tip.is_some(), tip, snapshot, branches, notes })
    }
}

/// Branches that stay behind, named as far as they are.
pub(super) fn beyond_words<'a>(names: impl Iterator<Item = &'a str>, count: u64, most: usize) -> String {
    let names: Vec<String> = names.take(NAMED).map(|name| format!("`{}`", shown(name.as_bytes()))).collect();
    let more = count.saturating_sub(names.len() as u64);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("Left out, because `harvest.branches_max` allows {most} branches: {}{more}", names.join(", "))
}

fn is_commit_id(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// The parts of the work, each with what was found in it.
#[derive(Default)]
struct Judged {
    /// Of the mission's own branch, newest first.
    commits: Vec<Commit>,
    /// What agents committed there.
    committed: Option<(String, Vec<Finding>)>,
    /// The cell's commit of what nobody committed, on top of that.
    rest: Option<(Commit, Vec<Finding>)>,
    /// Other branches: name, commit.
    others: Vec<(String, String, Vec<Finding>)>,
}

impl Judged {
    /// Looks at all parts in one pass; and where anything is found, or that pass
    /// does not come to its end, at each by itself, so that one does not hold the
    /// others.
    fn of(inspector: &Inspector<'_>, claims: &Claims) -> Result<Self, Failure> {
        let tips: Vec<&str> =
            claims.tip.iter().map(String::as_str).chain(claims.branches.iter().map(|(_, c)| c.as_str())).collect();
        if tips.is_empty() {
            return Ok(Self::default());
        }
        let mut judged = match inspector.look(&tips, &[]) {
            Ok(seen) if seen.findings.is_empty() => Self::together(&seen, claims),
            Ok(_) | Err(Failure::Work(_)) => Self::one_by_one(inspector, claims)?,
            Err(failure) => return Err(failure),
        };
        for (name, commit, findings) in &mut judged.others {
            if let Some(secret) = inspector.secrets.found_in(name.as_bytes()) {
                let (name, commit) = (secret.to_owned(), commit.clone());
                findings.push(Finding::Secret { name, place: Place::Branch, commit });
            }
        }
        Ok(judged)
    }

    /// Nothing was found in any of it.
    fn together(seen: &Seen, claims: &Claims) -> Self {
        let mut judged = Self::default();
        if let Some(tip) = &claims.tip {
            judged.commits = seen.of(tip);
            let rest = seen.commit(tip).filter(|commit| claims.rest && is_rest(commit)).cloned();
            let committed = rest.as_ref().map_or(tip, |rest| &rest.parents[0]);
            // What is not among these is on the forge already.
            judged.committed = seen.commit(committed).map(|_| (committed.clone(), vec![]));
            judged.rest = rest.map(|rest| (rest, vec![]));
        }
        for (name, commit) in &claims.branches {
            if seen.commit(commit).is_some() && !judged.has(commit) {
                judged.others.push((name.clone(), commit.clone(), vec![]));
            }
        }
        judged
    }

    fn one_by_one(inspector: &Inspector<'_>, claims: &Claims) -> Result<Self, Failure> {
        let mut judged = Self::default();
        if let Some(tip) = &claims.tip {
            let rest = if claims.rest { read_commit(inspector, tip)?.filter(is_rest) } else { None };
            let committed = rest.as_ref().map_or(tip, |rest| &rest.parents[0]).clone();
            let (seen, findings) = look_at(inspector, &committed, &[])?;
            judged.commits = seen.of(&committed);
            if !findings.is_empty() || !judged.commits.is_empty() {
                judged.committed = Some((committed.clone(), findings));
            }
            if let Some(rest) = rest {
                let (_, mut findings) = look_at(inspector, &rest.id, &[&committed])?;
                // Its message does not leave: ours is in its place.
                findings.retain(|finding| !is_of_commit(finding, &rest.id));
                judged.commits.insert(0, rest.clone());
                judged.rest = Some((rest, findings));
            }
        }
        for (name, commit) in
            claims.branches.iter().filter(|(_, commit)| !judged.has(commit)).cloned().collect::<Vec<_>>()
        {
            let (seen, findings) = look_at(inspector, &commit, &[])?;
            if !findings.is_empty() || seen.commit(&commit).is_some() {
                judged.others.push((name, commit, findings));
            }
        }
        Ok(judged)
    }

    /// Whether the mission's own branch has a commit.
    fn has(&self, commit: &str) -> bool {
        self.commits.iter().any(|known| known.id == commit)
    }
}

/// Whether a commit can be of what nobody committed: on top of one other.
fn is_rest(commit: &Commit) -> bool {
    commit.parents.len() == 1
}

fn is_of_commit(finding: &Finding, id: &str) -> bool {
    matches!(finding, Finding::Secret { place: Place::Commit, commit, .. } if commit == id)
}

/// Looks at one commit and what it stands on. What git cannot read within its
/// bounds holds it like anything else that is found.
fn look_at(inspector: &Inspector<'_>, commit: &str, known: &[&str]) -> Result<(Seen, Vec<Finding>), Failure> {
    match inspector.look(&[commit], known) {
        Ok(mut seen) => {
            let findings = std::mem::take(&mut seen.findings);
            Ok((seen, findings))
        }
        Err(Failure::Work(words)) => {
            let words = format!("it cannot be read within the limits: {words}");
            Ok((Seen::default(), vec![Finding::Limit { words }]))
        }
        Err(failure) => Err(failure),
    }
}

/// Reads one commit; nothing where it is none, or not there.
fn read_commit(inspector: &Inspector<'_>, id: &str) -> Result<Option<Commit>, Failure> {
    match inspector.objects()?.read(id) {
        Ok((kind, content)) if kind == "commit" => Ok(parse_commit(id.to_owned(), &content)),
        Ok(_) | Err(Failure::Work(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What differs between two commits.
#[derive(Default)]
struct Changed {
    count: u64,
    /// Added, removed, path; of the first.
    files: Vec<(u64, u64, Vec<u8>)>,
    /// Links that are new or lead somewhere else.
    links: u64,
    /// Commits of other repositories, in the place of directories.
    repositories: u64,
}

impl Changed {
    /// Reads `diff-tree -r -z --raw --numstat`.
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
                // Its path.
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
        // What these lead to is the reviewer's to judge.
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

/// `added TAB removed TAB path`; binary files have `-` for both numbers.
fn numbered_file(field: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let mut parts = field.splitn(3, |byte| *byte == b'\t');
    let mut number = || parts.next().map(|n| std::str::from_utf8(n).ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    let (added, removed) = (number()?, number()?);
    Some((added, removed, parts.next()?.to_vec()))
}

/// Opens the pack in a directory that agents may have written: no link is
/// followed, and nothing but a plain file is opened.
fn open_pack(directory: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The parent is the home's, which agents cannot write.
    let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let pack = File::from(openat(&directory, PACK, flags | OFlags::NONBLOCK, Mode::empty())?);
    if !pack.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    Ok(pack)
}
