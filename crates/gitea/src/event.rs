//! Events on the forge, in the same form whether they come from a signed webhook delivery or from the reconciler's
//! polling.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An account. Authority depends on `id`. `login` is for display, and for calls that do not accept ids; it can
/// change hands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    /// The account's number. `-1` is a deleted account ("Ghost"), which has no rights.
    pub id: i64,
    /// The account's name at the time of the event.
    pub login: String,
}

/// A repository, identified by its permanent id, with the name that it had at the time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RepoRef {
    /// The repository's number. It survives renames and transfers.
    pub id: i64,
    /// The owner's name (a user or an organisation).
    pub owner: String,
    /// The repository's name without the owner.
    pub name: String,
}

impl RepoRef {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// A label of an issue. Names are not unique on a forge, so pin ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LabelRef {
    /// The label's number.
    pub id: i64,
    /// The label's name at the time of the event.
    pub name: String,
}

/// An issue as the event or the poll showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueSnapshot {
    /// The issue's number on the server as a whole.
    pub id: i64,
    /// The issue's number in its repository (`#N`).
    pub number: i64,
    /// Title, as the forge sent it.
    pub title: String,
    /// Body, as the forge sent it. It may contain CRLF and NUL.
    pub body: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it is a pull request.
    pub is_pull: bool,
    /// Who opened it.
    pub author: Person,
    /// Labels on it.
    pub labels: Vec<LabelRef>,
    /// When it was opened, by the forge's clock.
    pub created_at: Timestamp,
    /// When it was last changed, by the forge's clock, in whole seconds.
    pub updated_at: Timestamp,
    /// Whether the forge says that it was migrated from another one. Gitea's API omits this, so compare the time
    /// with the repository's as well.
    #[serde(default)]
    pub migrated: bool,
}

/// A comment as the event or the poll showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentSnapshot {
    /// The comment's number on the server as a whole.
    pub id: i64,
    /// The original author; an edit by somebody else does not change this.
    pub author: Person,
    /// The text.
    pub body: String,
    /// When it was written, by the forge's clock.
    pub created_at: Timestamp,
    /// When it was last edited, by the forge's clock.
    pub updated_at: Timestamp,
    /// Whether the forge says that it was migrated from another one. Gitea's API omits this, so compare the time
    /// with the repository's as well.
    #[serde(default)]
    pub migrated: bool,
}

/// What happened to an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueAction {
    /// It was opened.
    Opened,
    /// Its title or body changed.
    Edited,
    /// It was closed.
    Closed,
    /// It was opened again.
    Reopened,
    /// It was deleted.
    Deleted,
    /// Its labels changed. The event does not say which ones, or how.
    LabelsChanged,
    /// Anything else (assignee, milestone, …).
    Other,
    /// Not from a webhook: the reconciler saw the issue.
    Seen,
}

/// What happened to a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommentAction {
    /// It was written.
    Created,
    /// It was edited, by anybody who is allowed to.
    Edited,
    /// It was deleted.
    Deleted,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ForgeEvent {
    /// Something happened to an issue (or pull request, see `issue.is_pull`).
    Issue {
        /// The repository.
        repo: RepoRef,
        /// What happened.
        action: IssueAction,
        /// The issue after the event.
        issue: IssueSnapshot,
        /// Who did it.
        sender: Person,
        /// The title before, if the event says so.
        previous_title: Option<String>,
        /// The body before, if the event says so.
        previous_body: Option<String>,
    },
    /// Something happened to a comment.
    Comment {
        /// The repository.
        repo: RepoRef,
        /// What happened.
        action: CommentAction,
        /// The issue it belongs to.
        issue: IssueSnapshot,
        /// The comment after the event.
        comment: CommentSnapshot,
        /// Who did it. For an edit, that need not be the author.
        sender: Person,
        /// `repository.permissions.push` of a signed `issue_comment` delivery, which states the *sender's* rights.
        /// `None` if the event comes from polling.
        sender_can_push: Option<bool>,
    },
    /// An event of another kind (a push, a pull request, …).
    Other {
        /// The repository.
        repo: RepoRef,
        /// The forge's name for this kind.
        kind: String,
    },
}

impl ForgeEvent {
    /// The repository it happened in.
    pub fn repo(&self) -> &RepoRef {
        match self {
            Self::Issue { repo, .. } | Self::Comment { repo, .. } | Self::Other { repo, .. } => repo,
        }
    }

    /// The key under which this event is stored exactly once, however often and in whichever way we learn of it.
    /// Delivery ids cannot serve as keys, because a replayed delivery, and each of several hooks, has its own.
    pub fn semantic_key(&self) -> String {
        match self {
            Self::Issue { repo, action, issue, .. } => {
                let at = issue.updated_at.as_second();
                match action {
                    IssueAction::Opened => format!("issue:{}:{}:opened", repo.id, issue.id),
                    IssueAction::Deleted => format!("issue:{}:{}:deleted", repo.id, issue.id),
                    // Two edits within one second differ in their text.
                    _ => format!(
                        "issue:{}:{}:{:?}:{at}:{}",
                        repo.id,
                        issue.id,
                        action,
                        short_hash(&[
                            &issue.title,
                            &issue.body,
                            if issue.open { "open" } else { "closed" },
                            &label_ids(&issue.labels),
                        ])
                    ),
                }
            }
            Self::Comment { repo, action, issue, comment, .. } => match action {
                // Includes what is claimed about the comment, so that a forged delivery cannot use up the key of
                // the genuine one. The comment itself is acted on only once.
                CommentAction::Created => created_key(repo.id, issue.number, comment),
                CommentAction::Deleted => format!("comment:{}:{}:deleted", repo.id, comment.id),
                CommentAction::Edited => format!(
                    "comment:{}:{}:edited:{}:{}",
                    repo.id,
                    comment.id,
                    comment.updated_at.as_second(),
                    short_hash(&[&comment.body])
                ),
            },
            Self::Other { repo, kind } => format!("other:{}:{kind}", repo.id),
        }
    }
}

/// The labels' numbers in rising order, because deliveries and lists order labels differently.
fn label_ids(labels: &[LabelRef]) -> String {
    let mut ids: Vec<i64> = labels.iter().map(|label| label.id).collect();
    ids.sort_unstable();
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// The key of a report about a new comment, including what it claims about the comment.
pub fn created_key(repo: i64, issue: i64, comment: &CommentSnapshot) -> String {
    let claim = short_hash(&[&comment.author.id.to_string(), &issue.to_string(), &comment.body]);
    format!("comment:{repo}:{}:created:{claim}", comment.id)
}

fn short_hash(parts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(&hasher.finalize()[..8])
}
