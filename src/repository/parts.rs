//! The parts of a cell's work: what its hand-out claims, and what was found in each part.

use super::confined::Failure;
use super::held::{Finding, Place, shown};
use super::inspect::{Commit, Inspector, Seen, parse_commit};
use super::work::WorkLimits;
use crate::workspace::{HarvestManifest, QUOTED_MAX};
use std::collections::HashSet;

/// Most branches that are named in the log although they do not leave.
const NAMED: usize = 20;
/// Longest name of a branch, in characters: the limit in the schema of a hand-out.
const BRANCH_MAX: usize = 250;

/// What a hand-out asks for, after it was checked against the schema.
pub(super) struct Claims {
    pub tip: Option<String>,
    pub rest: bool,
    pub snapshot: Option<String>,
    pub branches: Vec<(String, String)>,
    /// Notes for people, in our own words.
    pub notes: Vec<String>,
}

impl Claims {
    pub(super) fn check(handed: &HarvestManifest, limits: &WorkLimits) -> Result<Self, Failure> {
        let tip = match &handed.tip {
            Some(tip) if is_commit_id(tip) => Some(tip.clone()),
            Some(_) => return Err(Failure::Work("the cell named no commit".to_owned())),
            None => None,
        };
        let snapshot = handed.snapshot.clone().filter(|s| is_commit_id(s));
        // Duplicates count once, and so do commits of the mission's own branch.
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

/// What people should know about a hand-out, in our own words.
pub(super) fn notes_of(handed: &HarvestManifest, branches_max: usize) -> Vec<String> {
    let mut notes = vec![];
    for (what, why) in [("What was not committed", &handed.rest_unread), ("What is checked out", &handed.head_unread)] {
        if let Some(why) = why {
            notes.push(quoted(&format!("{what} could not be read; the cell says"), why));
        }
    }
    if handed.beyond_count > 0 && !handed.beyond.is_empty() {
        notes.push(beyond_words(handed.beyond.iter().map(String::as_str), handed.beyond_count, branches_max));
    }
    if !handed.apart.is_empty() {
        let names: Vec<String> =
            handed.apart.iter().take(10).map(|name| format!("`{}`", shown(name.as_bytes()))).collect();
        notes.push(format!("A branch of its own, because it does not fit with the others: {}", names.join(", ")));
    }
    notes
}

/// Quotes somebody else's words on one line.
pub(super) fn quoted(who: &str, words: &str) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '`' | '“' | '”') { ' ' } else { c };
    let words: String = words.chars().map(clean).take(QUOTED_MAX).collect();
    format!("{who}: “{}”", words.trim())
}

/// Describes branches that stay behind, and names the first of them.
pub(super) fn beyond_words<'a>(names: impl Iterator<Item = &'a str>, count: u64, most: usize) -> String {
    let names: Vec<String> = names.take(NAMED).map(|name| format!("`{}`", shown(name.as_bytes()))).collect();
    let more = count.saturating_sub(names.len() as u64);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("Left out, because `harvest.branches_max` allows {most} branches: {}{more}", names.join(", "))
}

pub(super) fn is_commit_id(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// The parts of the work, each with what was found in it.
#[derive(Default)]
pub(super) struct Judged {
    /// The commits of the mission's own branch, newest first.
    pub commits: Vec<Commit>,
    /// The last commit that agents made there, and its findings.
    pub committed: Option<(String, Vec<Finding>)>,
    /// The cell's commit of uncommitted changes, on top of that, and its findings.
    pub rest: Option<(Commit, Vec<Finding>)>,
    /// Other branches: name, commit and findings.
    pub others: Vec<(String, String, Vec<Finding>)>,
}

impl Judged {
    /// Inspects all parts in one pass. If anything is found, or the pass cannot be completed, it inspects each part
    /// by itself, so that one part does not hold the others.
    pub(super) fn of(inspector: &Inspector<'_>, claims: &Claims) -> Result<Self, Failure> {
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

    /// The result if nothing was found in any part.
    fn together(seen: &Seen, claims: &Claims) -> Self {
        let mut judged = Self::default();
        if let Some(tip) = &claims.tip {
            judged.commits = seen.of(tip);
            let rest = seen.commit(tip).filter(|commit| claims.rest && is_rest(commit)).cloned();
            let committed = rest.as_ref().map_or(tip, |rest| &rest.parents[0]);
            // A commit that is not among these is already on the forge.
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
                // Its message does not leave, because the host replaces it by its own.
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

    /// Whether the mission's own branch contains a commit.
    fn has(&self, commit: &str) -> bool {
        self.commits.iter().any(|known| known.id == commit)
    }
}

/// Whether a commit can be one of uncommitted changes: it has exactly one parent.
fn is_rest(commit: &Commit) -> bool {
    commit.parents.len() == 1
}

fn is_of_commit(finding: &Finding, id: &str) -> bool {
    matches!(finding, Finding::Secret { place: Place::Commit, commit, .. } if commit == id)
}

/// Inspects one commit and its ancestors. If git cannot read it within its bounds, that holds it like any other
/// finding.
pub(super) fn look_at(
    inspector: &Inspector<'_>,
    commit: &str,
    known: &[&str],
) -> Result<(Seen, Vec<Finding>), Failure> {
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

/// Reads one commit; `None` if it does not exist or is not a commit.
fn read_commit(inspector: &Inspector<'_>, id: &str) -> Result<Option<Commit>, Failure> {
    match inspector.objects()?.read(id) {
        Ok((kind, content)) if kind == "commit" => Ok(parse_commit(id.to_owned(), &content)),
        Ok(_) | Err(Failure::Work(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}
