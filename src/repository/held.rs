//! What holds a part of the work back, and who could release it.

use serde::{Deserialize, Serialize};

/// Most characters that are shown of a name that agents chose.
const SHOWN_MAX: usize = 200;
/// Most findings that are described one by one.
const WORDED: usize = 5;

/// Something that may not leave as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Finding {
    /// A known secret. Nobody can release it.
    Secret {
        /// The secret's name in the configuration, never its value.
        name: String,
        /// Where it was found.
        place: Place,
        /// The first commit that contains it.
        commit: String,
    },
    /// A file that the forge would run by itself. A director can release it.
    RunsOnPush {
        /// The paths of these files.
        paths: Vec<String>,
        /// The first commit that contains them in this form.
        commit: String,
    },
    /// Something that exceeds a limit, or that could not be searched completely. It can leave once the limit or the
    /// work has changed.
    Limit {
        /// Which limit, in words.
        words: String,
    },
}

/// Where in a commit something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the content of this file.
    File(String),
    /// In the name of a file or directory, which is therefore not shown.
    Path,
    /// In the message, or in the name of an author or committer.
    Commit,
    /// In the name of the branch, which is therefore not shown.
    Branch,
}

/// A part of a cell's work that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The commit that would be pushed.
    pub commit: String,
    /// The branch's name in the cell; `None` for the mission's own branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// Whether only the commit of uncommitted changes is held.
    #[serde(default)]
    pub rest: bool,
    /// The reasons.
    pub findings: Vec<Finding>,
}

impl Held {
    /// Whether a director can release it.
    pub fn can_be_released(&self) -> bool {
        self.findings.iter().all(Finding::can_be_released)
    }

    /// Whether nobody can release it, whatever the limits are.
    pub fn has_secret(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding, Finding::Secret { .. }))
    }

    /// Describes what is held and why, as a sentence without its full stop, with names in code spans.
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
    /// Whether a director can release it.
    pub fn can_be_released(&self) -> bool {
        matches!(self, Self::RunsOnPush { .. })
    }

    /// Replaces the commit that is named as the first one that contains it.
    pub(super) fn came_with(&mut self, theirs: &str, own: &str) {
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

/// A name that agents chose, in a form that is safe in a code span.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let clean = |c: char| if c == '`' || c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().map(clean).take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
