//! What holds a part of a cell's work, and what it would take to let it go.

use serde::{Deserialize, Serialize};

/// Most characters of a name that agents chose, where it is shown.
const SHOWN_MAX: usize = 200;
/// Most findings that are put into words one by one.
const WORDED: usize = 5;

/// Something that may not leave as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Finding {
    /// A known secret. Nobody releases it.
    Secret {
        /// Its name in the configuration, never its value.
        name: String,
        /// Where it is.
        place: Place,
        /// The first commit that has it.
        commit: String,
    },
    /// Something that the forge would run by itself. A director releases it.
    RunsOnPush {
        /// Which files.
        paths: Vec<String>,
        /// The first commit that has them so.
        commit: String,
    },
    /// More than a limit allows, or more than could be searched. It leaves once
    /// the limit is another or the work is.
    Limit {
        /// Which, in our words.
        words: String,
    },
}

/// Where in a commit something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In this file.
    File(String),
    /// In the name of a file or directory, which is therefore not shown.
    Path,
    /// In the message, or in a name of who made the commit.
    Commit,
    /// In the name of the branch, which is therefore not shown.
    Branch,
}

/// A part of a cell's work that does not leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The commit that would be pushed.
    pub commit: String,
    /// The branch's name in the cell; `None` is the mission's own.
    #[serde(default)]
    pub branch: Option<String>,
    /// Whether it is only of what nobody committed.
    #[serde(default)]
    pub rest: bool,
    /// Why.
    pub findings: Vec<Finding>,
}

impl Held {
    /// Whether a director can release it.
    pub fn can_be_released(&self) -> bool {
        self.findings.iter().all(Finding::can_be_released)
    }

    /// Whether nobody can, whatever becomes of limits.
    pub fn has_secret(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding, Finding::Secret { .. }))
    }

    /// What it is a part of, and why it is held: a sentence without its full stop,
    /// with names in code spans.
    pub fn words(&self) -> String {
        let what = match (&self.branch, self.rest) {
            (Some(name), _) => format!("the branch `{}`", shown(name.as_bytes())),
            (None, true) => "what was not committed".to_owned(),
            (None, false) => "the mission's branch".to_owned(),
        };
        let mut why: Vec<String> = self.findings.iter().take(WORDED).map(Finding::words).collect();
        if self.findings.len() > WORDED {
            why.push(format!("{} more such findings", self.findings.len() - WORDED));
        }
        format!("{what} is held (commit `{}`): {}", short(&self.commit), why.join("; "))
    }
}

impl Finding {
    /// Whether a director can let it go.
    pub fn can_be_released(&self) -> bool {
        matches!(self, Self::RunsOnPush { .. })
    }

    /// Names another commit as the first that has it.
    pub fn came_with(&mut self, theirs: &str, own: &str) {
        if let Self::Secret { commit, .. } | Self::RunsOnPush { commit, .. } = self
            && commit == theirs
        {
            own.clone_into(commit);
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Secret { name, place, commit } => {
                let place = match place {
                    Place::File(path) => format!("in `{}`", shown(path.as_bytes())),
                    Place::Path => "in the name of a file".to_owned(),
                    Place::Commit => "in the message or an author of a commit".to_owned(),
                    Place::Branch => "in the name of the branch".to_owned(),
                };
                format!("a known secret (`{}`) is {place}, since commit `{}`", shown(name.as_bytes()), short(commit))
            }
            Self::RunsOnPush { paths, commit } => {
                let names: Vec<String> = paths.iter().map(|path| format!("`{}`", shown(path.as_bytes()))).collect();
                format!(
                    "it changes {}, which the forge may run by itself, since commit `{}`",
                    names.join(", "),
                    short(commit)
                )
            }
            Self::Limit { words } => words.clone(),
        }
    }
}

/// The beginning of a commit's hash.
fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

/// A name that agents chose, as it can stand in a code span.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let clean = |c: char| if c == '`' || c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().map(clean).take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
