//! The push: the only git that gets the bot's token.
//!
//! Like the others it reads the agents' objects and has their limits, but it needs the network. All branches are
//! pushed at once, each with its own result, and nothing is ever forced.

use super::confined::{Bounds, Failure, Running};
use super::git::{CredentialSocket, GitAccess, GitError, git, run};
use super::parts::is_commit_id;
use super::work::WorkRepository;
use crate::sandbox::TIMED_OUT;
use std::collections::BTreeMap;
use std::io::Read as _;

/// How many names are tried if the first already has somebody else's work.
const NAMES_MAX: usize = 9;
/// Longest time for a push, in seconds.
const PUSH_TIME: u64 = 600;

/// Where a branch was pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The branch's name on the forge.
    pub branch: String,
    /// Whether another name was used because the first had somebody else's work.
    pub renamed: bool,
}

/// The result of pushing one branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The branch is on the forge.
    Pushed(Pushed),
    /// The forge refused it for good, in its words.
    Refused(String),
}

/// The forge's answer about one branch.
enum Answer {
    Done,
    /// The branch was not at the expected commit.
    Stale,
    Refused(String),
}

/// One branch of a push: its index among all, its name, its commit, and the commit that it is expected to have on
/// the forge. `None` means that it is expected not to exist.
struct Refspec<'a> {
    index: usize,
    branch: String,
    commit: &'a str,
    known: String,
}

impl WorkRepository {
    /// Pushes each commit to the branch that is named with it, all at once. If a name already has somebody else's
    /// work, a suffix is added. Nothing is ever forced, and what is already done is not repeated. The outcomes are
    /// in the order of `branches`.
    ///
    /// # Errors
    /// If it may work later.
    pub fn push(
        &self,
        url: &str,
        access: &GitAccess,
        branches: &[(String, String)],
    ) -> Result<Vec<PushOutcome>, GitError> {
        let socket = CredentialSocket::open(access, &self.path)?;
        let mut outcomes: Vec<Option<PushOutcome>> = vec![None; branches.len()];
        let pushed = |branch: &str, renamed| PushOutcome::Pushed(Pushed { branch: branch.to_owned(), renamed });
        // Usually the branches do not exist yet, and a single call is enough.
        let first = branches.iter().enumerate().map(|(index, (branch, commit))| Refspec {
            index,
            branch: branch.clone(),
            commit,
            known: String::new(),
        });
        let mut stale = vec![];
        for (refspec, answer) in self.push_all(url, &socket, first.collect())? {
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
                git(Some(&self.path))
                    .args(socket.settings()?)
                    .args(["ls-remote", "--heads", "--"])
                    .arg(url)
                    .args(patterns),
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
            for (refspec, answer) in self.push_all(url, &socket, again)? {
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
            .map(|o| o.unwrap_or_else(|| PushOutcome::Refused("git did not report a result for it".into())))
            .collect())
    }

    /// Finds the first name that is free, or on which the push adds to what is there. The error is the name of a
    /// branch that already has the commit.
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

    /// Pushes all branches at once. If the forge refuses some of several, one of them may be the cause, so each is
    /// then pushed by itself.
    fn push_all<'a>(
        &self,
        url: &str,
        socket: &CredentialSocket,
        refspecs: Vec<Refspec<'a>>,
    ) -> Result<Vec<(Refspec<'a>, Answer)>, GitError> {
        let answers = self.push_once(url, socket, &refspecs)?;
        let alone = refspecs.len() == 1;
        let mut all = vec![];
        for (refspec, answer) in refspecs.into_iter().zip(answers) {
            let answer = match answer {
                Answer::Refused(_) if !alone => {
                    let one = [refspec];
                    let answer = self.push_once(url, socket, &one)?.pop().unwrap_or(Answer::Stale);
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

    fn push_once(
        &self,
        url: &str,
        socket: &CredentialSocket,
        refspecs: &[Refspec<'_>],
    ) -> Result<Vec<Answer>, GitError> {
        if refspecs.is_empty() {
            return Ok(vec![]);
        }
        let bounds = Bounds { time: PUSH_TIME, ..Bounds::reading(256 << 20) };
        let mut command = self.git.git_with_network(&self.path, bounds);
        command.args(socket.settings()?).args(["-c", "push.followTags=false", "push", "--porcelain", "--no-verify"]);
        for Refspec { branch, known, .. } in refspecs {
            // Only if the branch is still as it was seen, so that nobody's work is overwritten.
            command.arg(format!("--force-with-lease=refs/heads/{branch}:{known}"));
        }
        command.arg("--").arg(url);
        command.args(refspecs.iter().map(|r| format!("{}:refs/heads/{}", r.commit, r.branch)));
        let machine = |failure| match failure {
            Failure::Machine(error) => error,
            Failure::Work(words) => GitError::Git { what: "push", words },
        };
        let started = socket.admit(|| Running::start("push", &mut command));
        let (mut running, admission) = started.map_err(machine)?;
        let mut text = vec![];
        if let Some(stream) = running.stdout() {
            stream.take(bounds.output).read_to_end(&mut text).map_err(GitError::io("reading from git push"))?;
        }
        // Must end before another process can get the same pid.
        drop(admission);
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
            Some((_, summary)) if is_lasting(summary) => {
                Ok(Answer::Refused(format!("{words} {summary}").trim().to_owned()))
            }
            None if code == Some(0) => Ok(Answer::Done),
            _ if is_lasting(&words) => Ok(Answer::Refused(words.clone())),
            _ => Err(GitError::Git { what: "push", words: words.clone() }),
        };
        refspecs.iter().map(answer).collect()
    }
}

/// Whether the refusal that git reports is permanent.
fn is_lasting(words: &str) -> bool {
    GitError::Git { what: "push", words: words.to_owned() }.failure() == crate::failure::Failure::Lasting
}
