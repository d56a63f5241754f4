//! The JSON of things in answers and deliveries. The field names and odd values are those that were recorded from
//! Gitea and Forgejo.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Flavour;
use super::state::{
    Access, Asset, Entry, EntryKind, GHOST, Hook, Id, Issue, Label, LabelOwner, Milestone, Repository, State, Team,
    rfc3339,
};

const NEVER: &str = "0001-01-01T00:00:00Z";
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Which e-mail address of a person an answer contains: issues and accounts contain the real one, comments and
/// senders the one that receives nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Real,
    NoReply,
}

/// Whether an answer names a team's organisation: it does if a single team is shown, but not if several are listed
/// or one was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TeamView {
    Alone,
    WithOrganization,
}

impl Address {
    /// The real address is shown only to signed-in callers.
    pub(super) fn to(viewer: Option<Id>) -> Self {
        if viewer.is_some() { Self::Real } else { Self::NoReply }
    }
}

fn time(at: Option<i64>) -> Value {
    at.map_or(Value::Null, |second| Value::String(rfc3339(second)))
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}

impl State {
    pub(super) fn user_json(&self, id: Id, address: Address, viewer: Option<Id>) -> Value {
        let account = self.accounts.get(&id);
        let login = account.map_or("Ghost", |a| a.login.as_str());
        let id = account.map_or(GHOST, |a| a.id);
        // Only the person and administrators see when somebody was last active.
        let close = account.is_some() && (viewer == Some(id) || self.is_site_admin(viewer));
        let email = match account {
            Some(a) if address == Address::Real => a.email.clone(),
            None if address == Address::Real => String::new(),
            _ => format!("{}@noreply.standin.invalid", login.to_lowercase()),
        };
        let avatar = hex::encode(&Sha256::digest(login.as_bytes())[..16]);
        let mut user = json!({
            "id": id, "login": login, "login_name": "", "source_id": 0,
            "full_name": account.map_or("", |a| a.full_name.as_str()), "email": email,
            "avatar_url": format!("{}/avatars/{avatar}", self.root_url),
            "html_url": format!("{}/{login}", self.root_url),
            "language": "", "is_admin": close && account.is_some_and(|a| a.is_admin),
            "last_login": if close { EPOCH } else { NEVER },
            "created": account.map_or_else(|| EPOCH.to_owned(), |a| rfc3339(a.created)),
            "restricted": false, "active": close, "prohibit_login": false,
            "location": "", "website": "", "description": "", "visibility": "public",
            "followers_count": 0, "following_count": 0, "starred_repos_count": 0,
            "username": login,
        });
        if self.flavour == Flavour::Forgejo {
            set(&mut user, "pronouns", json!(""));
        }
        user
    }

    /// The person who reacted. One from another server is named after that server's kind.
    pub(super) fn reactor_json(&self, user: Id, original: &str, viewer: Option<Id>) -> Value {
        let mut out = self.user_json(user, Address::to(viewer), viewer);
        if user == 0 {
            let login = format!("{original}(gitea)");
            let page = format!("{}/{original}%28gitea%29", self.root_url);
            merge(
                &mut out,
                json!({"id": 0, "login": login, "username": login, "html_url": page, "email": "", "created": EPOCH}),
            );
        }
        out
    }

    pub(super) fn org_json(&self, id: Id) -> Value {
        let login = self.login(id);
        let avatar = hex::encode(&Sha256::digest(login.as_bytes())[..16]);
        json!({
            "id": id, "name": login, "full_name": "", "email": "",
            "avatar_url": format!("{}/avatars/{avatar}", self.root_url),
            "description": "", "website": "", "location": "", "visibility": "public",
            "repo_admin_change_team_access": false, "username": login,
        })
    }

    pub(super) fn repo_json(&self, repo: &Repository, access: Access) -> Value {
        let full = self.full_name(repo);
        let root = &self.root_url;
        let open = |pulls: bool| {
            self.issues.values().filter(|i| i.repo == repo.id && i.open && i.pull.is_some() == pulls).count()
        };
        let host = root.trim_start_matches("http://").split(':').next().unwrap_or_default();
        let mut out = json!({
            "id": repo.id, "owner": self.user_json(repo.owner, Address::Real, None),
            "name": repo.name, "full_name": full, "description": repo.description,
            "empty": repo.empty, "private": repo.private, "fork": false, "template": false,
            "mirror": false, "size": 27, "language": "",
            "languages_url": format!("{root}/api/v1/repos/{full}/languages"),
            "html_url": format!("{}/{full}", self.claimed_url.as_ref().unwrap_or(root)),
            "url": format!("{root}/api/v1/repos/{full}"),
            "link": "", "ssh_url": format!("forge@{host}:{full}.git"),
            "clone_url": format!("{root}/{full}.git"), "original_url": repo.original_url, "website": "",
            "stars_count": 0, "forks_count": 0, "watchers_count": 1,
            "open_issues_count": open(false), "open_pr_counter": open(true), "release_counter": 0,
            "default_branch": repo.default_branch, "archived": repo.archived_at.is_some(),
            "created_at": rfc3339(repo.created), "updated_at": rfc3339(repo.updated),
            "archived_at": repo.archived_at.map_or_else(|| EPOCH.to_owned(), rfc3339),
            "permissions": {
                "admin": access >= Access::Admin, "push": access >= Access::Write,
                "pull": access >= Access::Read,
            },
        });
        // In two pieces, because one is too long for the macro.
        merge(
            &mut out,
            json!({
                "has_issues": true,
                "internal_tracker": {
                    "enable_time_tracker": true, "allow_only_contributors_to_track_time": true,
                    "enable_issue_dependencies": true,
                },
                "has_wiki": true, "has_pull_requests": true, "has_projects": true,
                "has_releases": true, "has_packages": true, "has_actions": true,
                "ignore_whitespace_conflicts": false, "allow_merge_commits": true,
                "allow_rebase": true, "allow_rebase_explicit": true, "allow_squash_merge": true,
                "allow_fast_forward_only_merge": true, "allow_rebase_update": true,
                "default_delete_branch_after_merge": false, "default_merge_style": "merge",
                "default_allow_maintainer_edit": false, "avatar_url": "",
                "internal": false, "mirror_interval": "", "object_format_name": "sha1",
                "mirror_updated": NEVER, "topics": [],
            }),
        );
        let extra = match self.flavour {
            Flavour::Gitea => json!({
                "has_code": true, "projects_mode": "all", "allow_manual_merge": false,
                "autodetect_manual_merge": false, "licenses": [],
            }),
            Flavour::Forgejo => json!({
                "parent": null, "wiki_branch": "main", "globally_editable_wiki": false,
                "default_update_style": "merge", "repo_transfer": null,
                "ssh_url": format!("ssh://forge@{host}/{full}.git"),
            }),
        };
        merge(&mut out, extra);
        if let Some((doer, recipient)) = repo.offered_to {
            let who = |id| self.user_json(id, Address::NoReply, None);
            set(&mut out, "repo_transfer", json!({"doer": who(doer), "recipient": who(recipient), "teams": []}));
        }
        out
    }

    pub(super) fn label_json(&self, label: &Label) -> Value {
        let of = match label.owner {
            LabelOwner::Repository(id) => {
                format!("repos/{}", self.repos.get(&id).map(|r| self.full_name(r)).unwrap_or_default())
            }
            LabelOwner::Organization(id) => format!("orgs/{}", self.login(id)),
        };
        json!({
            "id": label.id, "name": label.name, "exclusive": label.exclusive,
            "is_archived": label.archived, "color": label.color, "description": label.description,
            "url": format!("{}/api/v1/{of}/labels/{}", self.root_url, label.id),
        })
    }

    pub(super) fn labels_json(&self, ids: &[Id]) -> Value {
        self.issue_labels(ids).into_iter().map(|l| self.label_json(l)).collect()
    }

    pub(super) fn milestone_json(&self, milestone: &Milestone) -> Value {
        let open = self.issues.values().filter(|i| i.milestone == Some(milestone.id) && i.open).count();
        let closed = self.issues.values().filter(|i| i.milestone == Some(milestone.id) && !i.open).count();
        json!({
            "id": milestone.id, "title": milestone.title, "description": milestone.description,
            "state": "open", "open_issues": open, "closed_issues": closed,
            "created_at": rfc3339(milestone.created), "updated_at": rfc3339(milestone.created),
            "closed_at": null, "due_on": null,
        })
    }

    fn milestone_of(&self, id: Option<Id>) -> Value {
        id.and_then(|id| self.milestones.get(&id)).map_or(Value::Null, |m| self.milestone_json(m))
    }

    pub(super) fn asset_json(&self, asset: &Asset) -> Value {
        let mut out = json!({
            "id": asset.id, "name": asset.name, "size": asset.data.len(), "download_count": 0,
            "created_at": rfc3339(asset.created), "uuid": asset.uuid,
            "browser_download_url": format!("{}/attachments/{}", self.root_url, asset.uuid),
        });
        if self.flavour == Flavour::Forgejo {
            set(&mut out, "type", json!("attachment"));
        }
        out
    }

    fn people(&self, ids: &[Id]) -> (Value, Value) {
        let all: Vec<Value> = ids.iter().map(|id| self.user_json(*id, Address::NoReply, None)).collect();
        match all.first() {
            Some(first) => (first.clone(), Value::Array(all)),
            None => (Value::Null, Value::Null),
        }
    }

    fn issue_html_url(&self, repo: &Repository, issue: &Issue) -> String {
        let kind = if issue.pull.is_some() { "pulls" } else { "issues" };
        format!("{}/{}/{kind}/{}", self.root_url, self.full_name(repo), issue.number)
    }

    pub(super) fn issue_json(&self, repo: &Repository, issue: &Issue, viewer: Option<Id>) -> Value {
        let full = self.full_name(repo);
        let (assignee, assignees) = self.people(&issue.assignees);
        let html_url = self.issue_html_url(repo, issue);
        let mut out = json!({
            "id": issue.id,
            "url": format!("{}/api/v1/repos/{full}/issues/{}", self.root_url, issue.number),
            "html_url": html_url, "number": issue.number,
            "user": self.user_json(issue.author, Address::to(viewer), viewer),
            "original_author": self.shown_original(&issue.original_author), "original_author_id": 0,
            "title": issue.title, "body": issue.body, "ref": "",
            "assets": issue.assets.iter().map(|a| self.asset_json(a)).collect::<Value>(),
            "labels": self.labels_json(&issue.labels), "milestone": self.milestone_of(issue.milestone),
            "assignee": assignee, "assignees": assignees,
            "state": if issue.open { "open" } else { "closed" }, "is_locked": issue.locked,
            "comments": self.comment_count(issue.id),
            "created_at": rfc3339(issue.created), "updated_at": rfc3339(issue.updated),
            "closed_at": time(issue.closed), "due_date": null,
            "pull_request": if issue.pull.is_some() {
                json!({"merged": false, "merged_at": null, "draft": false, "html_url": html_url})
            } else { Value::Null },
            "repository": {
                "id": repo.id, "name": repo.name, "owner": self.login(repo.owner), "full_name": full,
            },
            "pin_order": 0,
        });
        if self.flavour == Flavour::Gitea {
            set(&mut out, "time_estimate", json!(0));
        }
        out
    }

    /// A pull request. Gitea's lists omit what git would have to count.
    pub(super) fn pull_json(
        &self,
        repo: &Repository,
        issue: &Issue,
        viewer: Option<Id>,
        access: Access,
        in_list: bool,
    ) -> Value {
        let Some(pull) = &issue.pull else {
            return Value::Null;
        };
        let url = self.issue_html_url(repo, issue);
        let (assignee, assignees) = self.people(&issue.assignees);
        let side = |branch: &str, sha: &str| {
            json!({
                "label": branch, "ref": branch, "sha": sha, "repo_id": repo.id,
                "repo": self.repo_json(repo, access),
            })
        };
        let found = &pull.comparison;
        let mut out = json!({
            "id": pull.id, "url": url, "number": issue.number,
            "user": self.user_json(issue.author, Address::to(viewer), viewer),
            "title": issue.title, "body": issue.body, "labels": self.labels_json(&issue.labels),
            "milestone": self.milestone_of(issue.milestone),
            "assignee": assignee, "assignees": assignees,
            "requested_reviewers": [], "requested_reviewers_teams": [],
            "state": if issue.open { "open" } else { "closed" }, "draft": false,
            "is_locked": issue.locked, "comments": self.comment_count(issue.id),
            "html_url": url, "diff_url": format!("{url}.diff"), "patch_url": format!("{url}.patch"),
            "mergeable": true, "merged": false, "merged_at": null, "merge_commit_sha": null,
            "merged_by": null, "allow_maintainer_edit": false,
            "base": side(&pull.base, &found.base_sha), "head": side(&pull.head, &found.head_sha),
            "merge_base": found.merge_base, "due_date": null,
            "created_at": rfc3339(issue.created), "updated_at": rfc3339(issue.updated),
            "closed_at": time(issue.closed), "pin_order": 0,
        });
        let counted = json!({
            "additions": found.additions, "deletions": found.deletions, "changed_files": found.changed_files,
        });
        match self.flavour {
            Flavour::Gitea if in_list => {
                merge(&mut out, json!({"requested_reviewers": null, "requested_reviewers_teams": null}));
            }
            Flavour::Gitea => {
                merge(&mut out, counted);
                if issue.assignees.is_empty() {
                    set(&mut out, "assignees", json!([]));
                }
            }
            Flavour::Forgejo => {
                merge(&mut out, counted);
                merge(&mut out, json!({"flow": 0, "review_comments": 0}));
            }
        }
        out
    }

    fn entry_urls(&self, entry: &Entry) -> (String, String, String) {
        let found = self.issues.get(&entry.issue).and_then(|i| self.repos.get(&i.repo).map(|r| (r, i)));
        let Some((repo, issue)) = found else {
            return Default::default();
        };
        let url = self.issue_html_url(repo, issue);
        let html = format!("{url}#issuecomment-{}", entry.id);
        if issue.pull.is_some() { (html, url, String::new()) } else { (html, String::new(), url) }
    }

    /// The field is documented, but both real servers leave it empty (observed).
    fn shown_original<'a>(&self, original: &'a str) -> &'a str {
        if self.shows_original_authors { original } else { "" }
    }

    pub(super) fn comment_json(&self, entry: &Entry) -> Value {
        let (html_url, pull_url, issue_url) = self.entry_urls(entry);
        let body = match &entry.kind {
            EntryKind::Comment { body } => body.as_str(),
            _ => "",
        };
        json!({
            "id": entry.id, "html_url": html_url, "pull_request_url": pull_url, "issue_url": issue_url,
            "user": self.user_json(entry.author, Address::NoReply, None),
            "original_author": self.shown_original(&entry.original_author), "original_author_id": 0, "body": body,
            "assets": entry.assets.iter().map(|a| self.asset_json(a)).collect::<Value>(),
            "created_at": rfc3339(entry.created), "updated_at": rfc3339(entry.updated),
        })
    }

    pub(super) fn timeline_json(&self, entry: &Entry) -> Value {
        let (html_url, pull_url, issue_url) = self.entry_urls(entry);
        let mut out = json!({
            "id": entry.id, "type": "comment", "html_url": html_url, "pull_request_url": pull_url,
            "issue_url": issue_url, "user": self.user_json(entry.author, Address::NoReply, None),
            "body": "", "created_at": rfc3339(entry.created), "updated_at": rfc3339(entry.updated),
            "old_project_id": 0, "project_id": 0, "old_milestone": null, "milestone": null,
            "tracked_time": null, "old_title": "", "new_title": "", "old_ref": "", "new_ref": "",
            "ref_issue": null, "ref_comment": null, "ref_action": "none", "ref_commit_sha": "",
            "review_id": 0, "label": null, "assignee": null, "assignee_team": null,
            "removed_assignee": false, "resolve_doer": null, "dependent_issue": null,
        });
        let special = match &entry.kind {
            EntryKind::Comment { body } => json!({"body": body}),
            EntryKind::Label { label, added } => json!({
                "type": "label", "body": if *added { "1" } else { "" },
                "label": self.labels.get(label).map(|l| self.label_json(l)),
            }),
            EntryKind::Title { old, new } => {
                json!({"type": "change_title", "old_title": old, "new_title": new})
            }
            EntryKind::Push { commits } => json!({
                "type": "pull_push",
                // In this order, because Go encodes fields in the order of its types.
                "body": format!("{{\"is_force_push\":false,\"commit_ids\":{}}}", json!(commits)),
            }),
            EntryKind::Close => json!({"type": "close"}),
            EntryKind::Reopen => json!({"type": "reopen"}),
            EntryKind::Lock { reason } => json!({"type": "lock", "body": reason}),
            EntryKind::Unlock => json!({"type": "unlock"}),
            EntryKind::Assignee { assignee, removed } => json!({
                "type": "assignees", "removed_assignee": removed,
                "assignee": self.user_json(*assignee, Address::NoReply, None),
            }),
            EntryKind::Milestone { old, new } => json!({
                "type": "milestone", "old_milestone": self.milestone_of(*old), "milestone": self.milestone_of(*new),
            }),
        };
        merge(&mut out, special);
        out
    }

    pub(super) fn hook_json(&self, hook: &Hook) -> Value {
        let content_type = if hook.form_encoded { "form" } else { "json" };
        let mut out = json!({
            "id": hook.id, "type": hook.kind, "branch_filter": hook.branch_filter,
            "config": {"content_type": content_type, "url": hook.url},
            "events": hook.events, "authorization_header": hook.authorization, "active": hook.active,
            "updated_at": rfc3339(hook.updated), "created_at": rfc3339(hook.created),
        });
        if self.flavour == Flavour::Forgejo {
            merge(&mut out, json!({"url": hook.url, "content_type": content_type, "metadata": null}));
        }
        out
    }

    pub(super) fn team_json(&self, team: &Team, view: TeamView) -> Value {
        // On Gitea, a team's own permission has no meaning unless it is administration.
        let permission = match (self.flavour, team.permission) {
            (Flavour::Gitea, Access::Read | Access::Write) => "none",
            (_, permission) => permission.word(),
        };
        json!({
            "id": team.id, "name": team.name, "description": team.description,
            "organization": match view {
                TeamView::WithOrganization => self.org_json(team.org),
                TeamView::Alone => Value::Null,
            },
            "includes_all_repositories": team.all_repositories, "permission": permission,
            "units": team.units.keys().collect::<Vec<_>>(), "units_map": team.units,
            "can_create_org_repo": team.may_create_repositories,
        })
    }

    pub(super) fn protection_json(&self, protection: &super::state::Protection) -> Value {
        let mut out = json!({
            "branch_name": protection.rule, "rule_name": protection.rule,
            "enable_push": protection.enable_push, "enable_push_whitelist": false,
            "push_whitelist_usernames": [], "push_whitelist_teams": [], "push_whitelist_deploy_keys": false,
            "enable_merge_whitelist": false, "merge_whitelist_usernames": [], "merge_whitelist_teams": [],
            "enable_status_check": false, "status_check_contexts": null, "required_approvals": 0,
            "enable_approvals_whitelist": false, "approvals_whitelist_username": [],
            "approvals_whitelist_teams": [], "block_on_rejected_reviews": false,
            "block_on_official_review_requests": false, "block_on_outdated_branch": false,
            "dismiss_stale_approvals": false, "ignore_stale_approvals": false,
            "require_signed_commits": false, "protected_file_patterns": "", "unprotected_file_patterns": "",
            "created_at": rfc3339(protection.created), "updated_at": rfc3339(protection.created),
        });
        merge(
            &mut out,
            match self.flavour {
                Flavour::Gitea => json!({
                    "priority": 1, "enable_force_push": false, "enable_force_push_allowlist": false,
                    "force_push_allowlist_usernames": [], "force_push_allowlist_teams": [],
                    "force_push_allowlist_deploy_keys": false, "block_admin_merge_override": false,
                }),
                Flavour::Forgejo => json!({"apply_to_admins": false}),
            },
        );
        out
    }
}

/// Copies the fields of `more` into `object`.
pub(super) fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(from)) = (object, more) {
        let from: Map<String, Value> = from;
        into.extend(from);
    }
}

/// Encodes JSON as Go does: `<`, `>`, `&` and the two Unicode line separators become escapes. They can only occur
/// inside strings, so the encoded text can be changed.
pub(super) fn go_escapes(json: String) -> String {
    const SPECIAL: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    if !json.contains(SPECIAL) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 64);
    let mut rest = json.as_str();
    // In pieces and not by characters, because texts can have 20 MB.
    while let Some((before, special, after)) =
        rest.find(SPECIAL).and_then(|at| Some((&rest[..at], rest[at..].chars().next()?, &rest[at..])))
    {
        out.push_str(before);
        out.push_str(match special {
            '<' => "\\u003c",
            '>' => "\\u003e",
            '&' => "\\u0026",
            '\u{2028}' => "\\u2028",
            _ => "\\u2029",
        });
        rest = &after[special.len_utf8()..];
    }
    out.push_str(rest);
    out
}
