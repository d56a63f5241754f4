//! The stand-in's state: accounts, repositories, issues, one shared sequence of comments and timeline events,
//! hooks. This module contains plain data and queries; `shapes` turns it into JSON, and the handlers check who may
//! change it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Flavour;
use super::deliveries::Queue;

/// Numbers as the forge assigns them, one sequence for each kind of thing.
pub(super) type Id = i64;

/// The account that lists name in place of a deleted one. On Forgejo it also owns migrated texts whose author has
/// no account here.
pub(super) const GHOST: Id = -1;

/// An account's access to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    None,
    Read,
    Write,
    Admin,
    Owner,
}

impl Access {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "none" => Self::None,
            "read" => Self::Read,
            "write" => Self::Write,
            "admin" => Self::Admin,
            "owner" => Self::Owner,
            _ => return None,
        })
    }
}

pub(super) struct Account {
    pub id: Id,
    pub login: String,
    pub full_name: String,
    pub email: String,
    pub password: String,
    pub is_admin: bool,
    pub is_org: bool,
    pub created: i64,
    /// Accounts that this account has blocked.
    pub blocked: BTreeSet<Id>,
}

pub(super) struct Token {
    pub id: Id,
    pub name: String,
    pub account: Id,
    pub secret: String,
    pub scopes: Vec<String>,
    pub created: i64,
}

pub(super) struct Team {
    pub id: Id,
    pub org: Id,
    pub name: String,
    pub description: String,
    pub permission: Access,
    pub units: BTreeMap<String, String>,
    pub all_repositories: bool,
    pub may_create_repositories: bool,
    pub members: BTreeSet<Id>,
    pub repositories: BTreeSet<Id>,
}

pub(super) struct Protection {
    pub rule: String,
    pub enable_push: bool,
    pub created: i64,
}

pub(super) struct Repository {
    pub id: Id,
    pub owner: Id,
    pub name: String,
    pub description: String,
    /// The URL that it was migrated from; empty if it was created here.
    pub original_url: String,
    /// Who offers it to whom, while a transfer waits for acceptance.
    pub offered_to: Option<(Id, Id)>,
    pub private: bool,
    pub archived_at: Option<i64>,
    pub default_branch: String,
    pub empty: bool,
    pub created: i64,
    pub updated: i64,
    pub collaborators: BTreeMap<Id, Access>,
    pub protections: Vec<Protection>,
    pub last_index: i64,
    /// Branches that were deleted through the API. Deleting them again succeeds.
    pub gone_branches: BTreeSet<String>,
}

/// The owner of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelOwner {
    Repository(Id),
    Organization(Id),
}

#[derive(Clone)]
pub(super) struct Label {
    pub id: Id,
    pub owner: LabelOwner,
    pub name: String,
    pub color: String,
    pub description: String,
    pub exclusive: bool,
    pub archived: bool,
}

impl Label {
    /// `a/b` of `a/b/c`. Labels of one exclusive scope replace each other.
    pub(super) fn scope(&self) -> Option<&str> {
        if !self.exclusive {
            return None;
        }
        self.name.rsplit_once('/').map(|(scope, _)| scope).filter(|s| !s.is_empty())
    }
}

pub(super) struct Milestone {
    pub id: Id,
    pub repo: Id,
    pub title: String,
    pub description: String,
    pub created: i64,
}

pub(super) struct Reaction {
    pub user: Id,
    /// The person's name on the original server, if they have no account here.
    pub original: String,
    pub content: String,
    pub created: i64,
}

#[derive(Clone)]
pub(super) struct Asset {
    pub id: Id,
    pub name: String,
    pub uuid: String,
    pub created: i64,
    pub data: bytes::Bytes,
}

/// Git's answer about a pull request when it was last asked.
#[derive(Clone, Default)]
pub(super) struct Comparison {
    pub head_sha: String,
    pub base_sha: String,
    pub merge_base: String,
    pub additions: i64,
    pub deletions: i64,
    pub changed_files: i64,
}

pub(super) struct Pull {
    pub id: Id,
    pub head: String,
    pub base: String,
    pub comparison: Comparison,
}

pub(super) struct Issue {
    pub id: Id,
    pub repo: Id,
    pub number: i64,
    pub author: Id,
    /// The author's name on the original server, if it was migrated.
    pub original_author: String,
    pub title: String,
    pub body: String,
    pub labels: Vec<Id>,
    pub assignees: Vec<Id>,
    pub milestone: Option<Id>,
    pub open: bool,
    pub locked: bool,
    pub created: i64,
    pub updated: i64,
    pub closed: Option<i64>,
    pub pull: Option<Pull>,
    pub reactions: Vec<Reaction>,
    pub assets: Vec<Asset>,
}

/// One line of an issue's timeline. Comments and events share one sequence of
/// ids, as on the real server.
pub(super) struct Entry {
    pub id: Id,
    pub issue: Id,
    pub author: Id,
    /// The author's name on the original server, if it was migrated.
    pub original_author: String,
    pub created: i64,
    pub updated: i64,
    pub reactions: Vec<Reaction>,
    pub assets: Vec<Asset>,
    pub kind: EntryKind,
}

pub(super) enum EntryKind {
    Comment {
        body: String,
    },
    Label {
        label: Id,
        added: bool,
    },
    Title {
        old: String,
        new: String,
    },
    /// Commits were added to a pull request.
    Push {
        commits: Vec<String>,
    },
    Close,
    Reopen,
    Lock {
        reason: String,
    },
    Unlock,
    Assignee {
        assignee: Id,
        removed: bool,
    },
    Milestone {
        old: Option<Id>,
        new: Option<Id>,
    },
}

/// The owner of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookOwner {
    Repository(Id),
    Organization(Id),
    /// Triggered by all events on the server.
    System,
    /// Never triggered itself: each new repository gets a copy of it, including its secret.
    Default,
}

impl HookOwner {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Repository(_) => "repository",
            Self::Organization(_) => "organization",
            Self::System => "system",
            Self::Default => "default",
        }
    }
}

#[derive(Clone)]
pub(super) struct Hook {
    pub id: Id,
    pub owner: HookOwner,
    pub kind: String,
    pub url: String,
    pub form_encoded: bool,
    pub secret: String,
    pub events: Vec<&'static str>,
    pub branch_filter: String,
    pub authorization: String,
    pub active: bool,
    pub created: i64,
    pub updated: i64,
}

/// The last number that was assigned, for each kind of thing.
#[derive(Default)]
pub(super) struct Sequences {
    pub account: Id,
    pub token: Id,
    pub team: Id,
    pub repo: Id,
    pub label: Id,
    pub milestone: Id,
    pub issue: Id,
    pub pull: Id,
    pub entry: Id,
    pub hook: Id,
    pub asset: Id,
}

pub(super) fn next(sequence: &mut Id) -> Id {
    *sequence += 1;
    *sequence
}

pub(super) struct State {
    pub flavour: Flavour,
    /// `http://127.0.0.1:PORT`, without a trailing slash.
    pub root_url: String,
    pub seq: Sequences,
    pub accounts: BTreeMap<Id, Account>,
    /// Former names of accounts, in lower case.
    pub former_logins: HashMap<String, Id>,
    pub tokens: HashMap<String, Token>,
    pub teams: BTreeMap<Id, Team>,
    pub repos: BTreeMap<Id, Repository>,
    /// Former names of repositories: owner and name in lower case.
    pub former_repos: HashMap<(Id, String), Id>,
    pub labels: BTreeMap<Id, Label>,
    pub milestones: BTreeMap<Id, Milestone>,
    pub issues: BTreeMap<Id, Issue>,
    pub entries: BTreeMap<Id, Entry>,
    pub hooks: BTreeMap<Id, Hook>,
    pub deliveries: Queue,
    /// Whether `original_author` is filled in, as the API's documentation says.
    pub shows_original_authors: bool,
    /// The URL at which the server claims its repositories' pages are; `root_url` if it is honest.
    pub claimed_url: Option<String>,
}

/// Seconds since 1970, which is the forge's resolution.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Formats a time like `2026-11-20T23:29:28Z`.
pub(super) fn rfc3339(second: i64) -> String {
    jiff::Timestamp::from_second(second).map_or_else(|_| String::new(), |t| t.to_string())
}

impl State {
    pub(super) fn account_by_login(&self, login: &str) -> Option<&Account> {
        let lower = login.to_lowercase();
        self.accounts.values().find(|a| a.login.to_lowercase() == lower)
    }

    /// `Ghost` if the account was deleted.
    pub(super) fn login(&self, id: Id) -> &str {
        self.accounts.get(&id).map_or("Ghost", |a| a.login.as_str())
    }

    pub(super) fn repo_by_name(&self, owner: Id, name: &str) -> Option<&Repository> {
        let lower = name.to_lowercase();
        self.repos.values().find(|r| r.owner == owner && r.name.to_lowercase() == lower)
    }

    pub(super) fn full_name(&self, repo: &Repository) -> String {
        format!("{}/{}", self.login(repo.owner), repo.name)
    }

    pub(super) fn is_site_admin(&self, account: Option<Id>) -> bool {
        account.and_then(|id| self.accounts.get(&id)).is_some_and(|a| a.is_admin)
    }

    pub(super) fn owns_org(&self, org: Id, account: Id) -> bool {
        self.is_site_admin(Some(account))
            || self
                .teams
                .values()
                .any(|t| t.org == org && t.permission == Access::Owner && t.members.contains(&account))
    }

    pub(super) fn in_org(&self, org: Id, account: Id) -> bool {
        self.teams.values().any(|t| t.org == org && t.members.contains(&account))
    }

    /// Teams in the order of lists.
    pub(super) fn teams_by_name(&self, wanted: impl Fn(&Team) -> bool) -> impl Iterator<Item = &Team> {
        let mut found: Vec<&Team> = self.teams.values().filter(|t| wanted(t)).collect();
        found.sort_by_key(|t| (t.name.to_lowercase(), t.id));
        found.into_iter()
    }

    /// What somebody may really do, from all sources of rights.
    pub(super) fn access(&self, repo: &Repository, account: Option<Id>) -> Access {
        let public = if repo.private { Access::None } else { Access::Read };
        let Some(account) = account else {
            return public;
        };
        if self.is_site_admin(Some(account)) || repo.owner == account {
            return Access::Owner;
        }
        if !self.accounts.contains_key(&account) {
            return Access::None;
        }
        let by_team = self
            .teams
            .values()
            .filter(|t| t.members.contains(&account) && t.org == repo.owner)
            .filter(|t| t.all_repositories || t.repositories.contains(&repo.id))
            .map(|t| t.permission)
            .max()
            .unwrap_or(Access::None);
        let invited = repo.collaborators.get(&account).copied().unwrap_or(Access::None);
        public.max(by_team).max(invited)
    }

    /// The answer of the permission call. Gitea omits rights that come from a team's units; Forgejo includes them.
    pub(super) fn reported_access(&self, repo: &Repository, account: Id) -> Access {
        let real = self.access(repo, Some(account));
        if self.flavour == Flavour::Forgejo || real >= Access::Admin {
            return real;
        }
        let public = if repo.private { Access::None } else { Access::Read };
        public.max(repo.collaborators.get(&account).copied().unwrap_or(Access::None))
    }

    pub(super) fn issue_by_number(&self, repo: Id, number: i64) -> Option<&Issue> {
        self.issues.values().find(|i| i.repo == repo && i.number == number)
    }

    pub(super) fn comment_count(&self, issue: Id) -> usize {
        self.entries.values().filter(|e| e.issue == issue && matches!(e.kind, EntryKind::Comment { .. })).count()
    }

    /// Entries in the order of lists: by creation time, which for migrated ones is not the order of their ids.
    pub(super) fn entries_by_time(&self, wanted: impl Fn(&Entry) -> bool) -> impl Iterator<Item = &Entry> {
        let mut found: Vec<&Entry> = self.entries.values().filter(|e| wanted(e)).collect();
        found.sort_by_key(|e| (e.created, e.id));
        found.into_iter()
    }

    /// Appends to an issue's timeline and returns the new entry's id.
    pub(super) fn record(&mut self, issue: Id, author: Id, kind: EntryKind) -> Id {
        let id = next(&mut self.seq.entry);
        let at = now();
        self.entries.insert(
            id,
            Entry {
                id,
                issue,
                author,
                original_author: String::new(),
                created: at,
                updated: at,
                reactions: vec![],
                assets: vec![],
                kind,
            },
        );
        if let Some(issue) = self.issues.get_mut(&issue) {
            issue.updated = issue.updated.max(at);
        }
        id
    }

    /// Labels of an issue, in the forge's order.
    pub(super) fn issue_labels(&self, ids: &[Id]) -> Vec<&Label> {
        let mut labels: Vec<&Label> = ids.iter().filter_map(|id| self.labels.get(id)).collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        labels
    }

    /// Moves a repository to another owner. Its hooks stay with it. Labels of the organisation that it leaves do
    /// not.
    pub(super) fn move_repo(&mut self, repo: Id, to: Id) {
        let Some(found) = self.repos.get_mut(&repo) else {
            return;
        };
        let from = std::mem::replace(&mut found.owner, to);
        found.offered_to = None;
        let name = found.name.to_lowercase();
        self.former_repos.remove(&(to, name.clone()));
        self.former_repos.insert((from, name), repo);
        for team in self.teams.values_mut() {
            team.repositories.remove(&repo);
        }
        let labels = &self.labels;
        for issue in self.issues.values_mut().filter(|i| i.repo == repo) {
            issue.labels.retain(|l| labels.get(l).is_some_and(|l| l.owner != LabelOwner::Organization(from)));
        }
    }

    /// Removes a repository and everything that belongs to it. The caller must remove the files.
    pub(super) fn remove_repo(&mut self, repo: Id) {
        self.repos.remove(&repo);
        self.former_repos.retain(|_, target| *target != repo);
        let issues: BTreeSet<Id> = self.issues.values().filter(|i| i.repo == repo).map(|i| i.id).collect();
        self.entries.retain(|_, e| !issues.contains(&e.issue));
        self.issues.retain(|id, _| !issues.contains(id));
        self.labels.retain(|_, l| l.owner != LabelOwner::Repository(repo));
        self.milestones.retain(|_, m| m.repo != repo);
        self.hooks.retain(|_, h| h.owner != HookOwner::Repository(repo));
        for team in self.teams.values_mut() {
            team.repositories.remove(&repo);
        }
    }
}
