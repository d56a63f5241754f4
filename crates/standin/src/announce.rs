//! Which deliveries a change causes, with whose rights, and under which event names.

use serde_json::{Value, json};

use super::Flavour;
use super::shapes::Address;
use super::state::{Access, EntryKind, Id, State};

/// What happened to an issue or pull request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Opened,
    Edited,
    Closed,
    Reopened,
    Deleted,
    Labelled,
    LabelsCleared,
    Assigned,
    Unassigned,
    Milestoned,
    Demilestoned,
    Synchronized,
}

impl Happening {
    fn action(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Edited => "edited",
            Self::Closed => "closed",
            Self::Reopened => "reopened",
            Self::Deleted => "deleted",
            Self::Labelled => "label_updated",
            Self::LabelsCleared => "label_cleared",
            Self::Assigned => "assigned",
            Self::Unassigned => "unassigned",
            Self::Milestoned => "milestoned",
            Self::Demilestoned => "demilestoned",
            Self::Synchronized => "synchronized",
        }
    }

    fn event_type(self, pull: bool) -> &'static str {
        match (self, pull) {
            (Self::Labelled | Self::LabelsCleared, false) => "issue_label",
            (Self::Labelled | Self::LabelsCleared, true) => "pull_request_label",
            (Self::Assigned | Self::Unassigned, false) => "issue_assign",
            (Self::Assigned | Self::Unassigned, true) => "pull_request_assign",
            (Self::Milestoned | Self::Demilestoned, false) => "issue_milestone",
            (Self::Milestoned | Self::Demilestoned, true) => "pull_request_milestone",
            (Self::Synchronized, _) => "pull_request_sync",
            (_, false) => "issues",
            (_, true) => "pull_request",
        }
    }

    /// Whether the delivery states the author's rights instead of the sender's.
    fn states_author(self) -> bool {
        matches!(self, Self::Edited | Self::Closed | Self::Reopened | Self::Labelled | Self::LabelsCleared)
    }
}

/// `{"title": {"from": …}}`, with Gitea's two empty fields.
fn changes(flavour: Flavour, field: &str, old: &str) -> Value {
    let mut out = json!({field: {"from": old}});
    if flavour == Flavour::Gitea {
        super::shapes::merge(&mut out, json!({"added_labels": null, "removed_labels": null}));
    }
    out
}

impl State {
    /// Announces a change of an issue or pull request. `edited` is the changed field with its old value. If
    /// `labels` is given, the delivery states these instead of the present labels.
    pub(super) fn announce(
        &self,
        issue: Id,
        what: Happening,
        sender: Id,
        edited: Option<(&str, &str)>,
        labels: Option<&[Id]>,
    ) {
        let Some(issue) = self.issues.get(&issue) else {
            return;
        };
        let Some(repo) = self.repos.get(&issue.repo) else {
            return;
        };
        if what == Happening::Deleted && self.flavour == Flavour::Forgejo {
            return;
        }
        let pull = issue.pull.is_some();
        let labelling = matches!(what, Happening::Labelled | Happening::LabelsCleared);
        let access = match (pull && labelling, what.states_author()) {
            (true, _) => Access::Owner,
            (false, true) => self.stated_access(repo, issue.author),
            (false, false) => self.stated_access(repo, sender),
        };
        let mut subject = if pull {
            self.pull_json(repo, issue, Some(sender), access, false)
        } else {
            self.issue_json(repo, issue, Some(sender))
        };
        if let Some(labels) = labels {
            super::shapes::merge(&mut subject, json!({"labels": self.labels_json(labels)}));
        }
        let mut payload = json!({
            "action": what.action(), "number": issue.number,
            "repository": self.repo_json(repo, access),
            "sender": self.user_json(sender, Address::NoReply, None), "commit_id": "",
        });
        if let Some((field, old)) = edited {
            super::shapes::merge(&mut payload, json!({"changes": changes(self.flavour, field, old)}));
        }
        super::shapes::merge(
            &mut payload,
            if pull {
                json!({"pull_request": subject, "requested_reviewer": null, "review": null})
            } else {
                json!({"issue": subject})
            },
        );
        self.fire(repo.id, if pull { "pull_request" } else { "issues" }, what.event_type(pull), &payload);
    }

    /// Announces a change of a comment: `created`, `edited` (with the old text) or `deleted`.
    pub(super) fn announce_comment(&self, comment: Id, action: &'static str, sender: Id, old: Option<&str>) {
        let Some(entry) = self.entries.get(&comment) else {
            return;
        };
        if !matches!(entry.kind, EntryKind::Comment { .. }) {
            return;
        }
        let Some(issue) = self.issues.get(&entry.issue) else {
            return;
        };
        let Some(repo) = self.repos.get(&issue.repo) else {
            return;
        };
        let access = self.stated_access(repo, sender);
        let pull = issue.pull.is_some();
        let mut subject = self.issue_json(repo, issue, Some(sender));
        if action == "created" && !pull {
            // The count does not include the new comment.
            let before = self.comment_count(issue.id).saturating_sub(1);
            super::shapes::merge(&mut subject, json!({"comments": before}));
        }
        let mut payload = json!({
            "action": action, "issue": subject, "comment": self.comment_json(entry),
            "repository": self.repo_json(repo, access),
            "sender": self.user_json(sender, Address::NoReply, None), "is_pull": pull,
        });
        if let Some(old) = old {
            super::shapes::merge(&mut payload, json!({"changes": changes(self.flavour, "body", old)}));
        }
        if pull {
            let shown = self.pull_json(repo, issue, Some(sender), access, false);
            super::shapes::merge(&mut payload, json!({"pull_request": shown}));
        }
        let event_type = if pull { "pull_request_comment" } else { "issue_comment" };
        self.fire(repo.id, "issue_comment", event_type, &payload);
    }
}
