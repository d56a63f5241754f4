//! The forge's answers as types: only the fields that we use. `null` counts as empty, because Go encodes an empty
//! list that way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::event::{CommentSnapshot, IssueSnapshot, LabelRef, Person, RepoRef};

/// Most labels of one issue that are kept. Real issues have a handful; a million would be an attack on our memory.
pub const LABELS_MAX: usize = 1000;

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The version of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// The version as the server reported it: `1.25.4`, `12.0.0-dev+gitea-1.22.0`.
    pub raw: String,
    /// The server's software.
    pub product: Product,
    /// The version of Gitea, or the one that Forgejo says it is compatible with. Zeros if the text contains no
    /// version.
    pub gitea: (u32, u32, u32),
}

/// The forge's software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Gitea.
    Gitea,
    /// Forgejo, recognised by `+gitea-` in its version.
    Forgejo,
}

impl ServerVersion {
    pub(super) fn from_raw(raw: String) -> Self {
        let (product, version) = match raw.split_once("+gitea-") {
            Some((_, compatible)) => (Product::Forgejo, compatible),
            None => (Product::Gitea, raw.as_str()),
        };
        let version = version.trim_start_matches('v');
        let number = |part: Option<&str>| {
            part.map(|p| p.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default())
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0)
        };
        let mut parts = version.splitn(3, '.');
        let gitea = (number(parts.next()), number(parts.next()), number(parts.next()));
        Self { raw, product, gitea }
    }

    /// Whether this is a Gitea below 1.26.2, in which the scopes of a token can be bypassed (CVE-2026-28699,
    /// CVE-2026-24791). Always false for Forgejo, because the Gitea version that it states only describes
    /// compatibility.
    pub fn below_fixed_cve(&self) -> bool {
        const FIXED: (u32, u32, u32) = (1, 26, 2);
        // A release candidate of the fixed version may lack the fix.
        let candidate = self.gitea == FIXED && self.raw.contains("-rc");
        self.product == Product::Gitea && (self.gitea < FIXED || candidate)
    }
}

/// An account, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Its number. `-1` is a deleted account.
    pub id: i64,
    /// Its present name.
    pub login: String,
    /// Whether it administers the server. The forge tells only administrators, so `false` proves nothing.
    #[serde(default)]
    pub is_admin: bool,
}

impl User {
    /// The same account as it appears in events.
    pub fn person(&self) -> Person {
        Person { id: self.id, login: self.login.clone() }
    }
}

/// `GET /settings/ui`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UiSettings {
    /// Reactions that are allowed (`eyes`, `+1`, …). Any other gives a 403.
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_reactions: Vec<String>,
}

/// `GET /settings/api`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiSettings {
    /// Most items on a page, whatever is requested.
    pub max_response_items: u32,
    /// Items on a page if no number is requested.
    pub default_paging_num: u32,
}

/// What somebody may do in a repository, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Access {
    /// Nothing. Unknown words count as this, too.
    #[default]
    None,
    /// Read it.
    Read,
    /// Push to it, and label and close its issues.
    Write,
    /// Change its settings.
    Admin,
    /// Own it.
    Owner,
}

impl Access {
    fn from_word(word: &str) -> Self {
        match word {
            "read" => Self::Read,
            "write" => Self::Write,
            "admin" => Self::Admin,
            "owner" => Self::Owner,
            _ => Self::None,
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_word(&String::deserialize(deserializer)?))
    }
}

/// What the permission call says about an account. Gitea understates the access that people have through a team: a
/// member of a team with write access is reported as `Read`, and in a private repository as `None`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Permission {
    /// The least that the account may do.
    #[serde(rename = "permission")]
    pub access: Access,
    /// The account itself. Compare its id, not its name.
    pub user: User,
}

/// The rights of the token's account in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct OwnRights {
    /// Whether it administers the repository, which is necessary to read others' permissions and to manage hooks.
    #[serde(default)]
    pub admin: bool,
    /// Whether it can push.
    #[serde(default)]
    pub push: bool,
    /// Whether it can read.
    #[serde(default)]
    pub pull: bool,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Repository {
    /// Its number, which survives renames and transfers.
    pub id: i64,
    /// Its owner: a user or an organisation.
    pub owner: User,
    /// Its present name.
    pub name: String,
    /// The branch that clones start from.
    #[serde(default)]
    pub default_branch: String,
    /// The URL from which git fetches it over HTTP.
    #[serde(default)]
    pub clone_url: String,
    /// The URL of its web page.
    #[serde(default)]
    pub html_url: String,
    /// Whether it is archived; every write gives a 423 then.
    #[serde(default)]
    pub archived: bool,
    /// Whether only its members can see it.
    #[serde(default)]
    pub private: bool,
    /// Whether it has no commit.
    #[serde(default)]
    pub empty: bool,
    /// When it was created on this forge. Anything older in it came by migration.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// The rights of the token's account in it.
    #[serde(default, deserialize_with = "or_default")]
    pub permissions: OwnRights,
}

impl Repository {
    /// Id and names as they appear in events.
    pub fn reference(&self) -> RepoRef {
        RepoRef { id: self.id, owner: self.owner.login.clone(), name: self.name.clone() }
    }
}

/// What a name on the forge refers to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<T> {
    /// It refers to this.
    Is(T),
    /// It refers to nothing any more, because its former owner was renamed.
    Renamed {
        /// Its number.
        id: i64,
        /// Its present name.
        to: String,
    },
    /// It refers to nothing that the token's account can see.
    Nothing,
}

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Organisation {
    /// Its number. Accounts and organisations share one sequence.
    pub id: i64,
    /// Its present name.
    pub name: String,
}

/// A team of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Team {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its organisation. Only given if a single team is requested by its number, and not in lists.
    #[serde(default)]
    pub organization: Option<Organisation>,
    /// Access of the whole team if access is not given by unit. If it is, Gitea says `None` here; see
    /// [`Team::access`].
    #[serde(default)]
    pub permission: Access,
    /// Access for each unit: `repo.code`, `repo.issues`, …
    #[serde(default, deserialize_with = "or_default")]
    pub units_map: BTreeMap<String, Access>,
}

impl Team {
    /// What its members may do in a unit (`repo.code`, `repo.issues`, …). If the map names the unit, it takes
    /// precedence: the team's own value is then `none`.
    pub fn access(&self, unit: &str) -> Access {
        self.units_map.get(unit).copied().unwrap_or(self.permission)
    }
}

/// A label of a repository. Names are not unique, so pin ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Label {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Six hex digits without `#`.
    #[serde(default)]
    pub color: String,
    /// Its description.
    #[serde(default)]
    pub description: String,
    /// Whether it excludes other labels of its scope (`a/b/` of `a/b/c`).
    #[serde(default)]
    pub exclusive: bool,
}

/// A label to create. First check whether it exists: the forge silently creates a second one with the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewLabel {
    /// Its name.
    pub name: String,
    /// Six hex digits, with or without `#`.
    pub color: String,
    /// Its description.
    pub description: String,
    /// Whether it excludes other labels of its scope.
    pub exclusive: bool,
}

/// A webhook of a repository. The forge never reveals its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its number.
    pub id: i64,
    /// Its type: `gitea`, `forgejo`, `gogs`, `slack`, …
    pub kind: String,
    /// The URL that it calls.
    pub url: String,
    /// `json` or `form`.
    pub content_type: String,
    /// Events that it is subscribed to. The forge adds some by itself.
    pub events: Vec<String>,
    /// Whether it is active.
    pub active: bool,
    /// The branches that it reports. Events of issues and comments have no branch. See
    /// [`is_marked`](super::hook::is_marked).
    pub branch_filter: String,
}

impl<'de> Deserialize<'de> for Hook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            id: i64,
            #[serde(rename = "type", default)]
            kind: String,
            #[serde(default, deserialize_with = "or_default")]
            config: BTreeMap<String, String>,
            #[serde(default, deserialize_with = "or_default")]
            events: Vec<String>,
            #[serde(default)]
            active: bool,
            #[serde(default, deserialize_with = "or_default")]
            branch_filter: String,
        }
        let mut raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            id: raw.id,
            kind: raw.kind,
            url: raw.config.remove("url").unwrap_or_default(),
            content_type: raw.config.remove("content_type").unwrap_or_default(),
            events: raw.events,
            active: raw.active,
            branch_filter: raw.branch_filter,
        })
    }
}

/// How the forge encodes a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookContentType {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`, the JSON in `payload`.
    Form,
}

impl HookContentType {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
        }
    }
}

/// A webhook to create. A later change would lose its events or keep its secret, so delete it and create another
/// one instead.
#[derive(Debug, Clone)]
pub struct NewHook {
    /// The URL to call.
    pub url: String,
    /// The secret that deliveries are signed with.
    pub secret: SecretString,
    /// Events to subscribe to: `issues`, `issue_label`, `issue_comment`, …
    pub events: Vec<String>,
    /// How deliveries are encoded.
    pub content_type: HookContentType,
}

/// A file in a repository, with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// The id of its blob, which must be given when it is replaced.
    pub sha: String,
    /// The bytes.
    pub content: Vec<u8>,
}

/// The result of writing a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWritten {
    /// The new blob.
    pub sha: String,
    /// The commit.
    pub commit: String,
}

/// An issue template that the forge could parse and offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IssueTemplate {
    /// Its name, as people see it.
    pub name: String,
    /// Its description.
    #[serde(default)]
    pub about: String,
    /// The initial title.
    #[serde(default)]
    pub title: String,
    /// Labels that it sets.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: Vec<String>,
    /// The path of its file.
    #[serde(default)]
    pub file_name: String,
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// The commit at its tip.
    pub commit_id: String,
    /// Whether a protection rule matches it.
    pub protected: bool,
    /// Whether the token's account can push to it.
    pub user_can_push: bool,
}

impl<'de> Deserialize<'de> for Branch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Commit {
            id: String,
        }
        #[derive(Deserialize)]
        struct Raw {
            name: String,
            commit: Commit,
            #[serde(default)]
            protected: bool,
            #[serde(default)]
            user_can_push: bool,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            name: raw.name,
            commit_id: raw.commit.id,
            protected: raw.protected,
            user_can_push: raw.user_can_push,
        })
    }
}

/// A pull request to create, within one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPull {
    /// The branch that contains the work.
    pub head: String,
    /// The branch that it should be merged into.
    pub base: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub body: String,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Its number in the repository. Issues and pull requests share one sequence.
    pub number: i64,
    /// The URL of its web page.
    pub html_url: String,
    /// Its title.
    pub title: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it was merged.
    pub merged: bool,
    /// The branch that contains the work.
    pub head: String,
    /// The commit at the tip of that branch.
    pub head_sha: String,
    /// The branch that it should be merged into.
    pub base: String,
    /// Its author.
    pub author: Person,
}

impl<'de> Deserialize<'de> for Pull {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Side {
            #[serde(rename = "ref")]
            name: String,
            #[serde(default)]
            sha: String,
        }
        #[derive(Deserialize)]
        struct Raw {
            number: i64,
            #[serde(default)]
            html_url: String,
            #[serde(default)]
            title: String,
            state: String,
            #[serde(default)]
            merged: bool,
            head: Side,
            base: Side,
            #[serde(default)]
            user: Option<User>,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            number: raw.number,
            html_url: raw.html_url,
            title: raw.title,
            open: raw.state == "open",
            merged: raw.merged,
            head: raw.head.name,
            head_sha: raw.head.sha,
            base: raw.base.name,
            author: person_or_ghost(raw.user),
        })
    }
}

/// The state of the issues to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IssueState {
    /// Open ones.
    #[default]
    Open,
    /// Closed ones.
    Closed,
    /// Both.
    All,
}

impl IssueState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::All => "all",
        }
    }
}

/// Which issues to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IssueQuery {
    /// Only issues that were *updated* at or after this time, in whole seconds of the forge's clock.
    pub since: Option<Timestamp>,
    /// Only those in this state.
    pub state: IssueState,
}

/// A reaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Who gave it.
    pub user: Person,
    /// Which: `eyes`, `+1`, …
    pub content: String,
}

impl<'de> Deserialize<'de> for Reaction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            user: Option<User>,
            content: String,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self { user: person_or_ghost(raw.user), content: raw.content })
    }
}

/// A file that is attached to a comment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    #[serde(default)]
    pub size: u64,
    /// The URL from which it can be fetched.
    #[serde(default)]
    pub browser_download_url: String,
}

/// One entry of an issue's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEvent {
    /// Its number. Comments and other entries share one sequence.
    pub id: i64,
    /// What it is: `label`, `comment`, `change_title`, `close`, …
    pub kind: String,
    /// Who did it.
    pub actor: Person,
    /// A text whose meaning depends on the kind. For `label`, see [`TimelineEvent::label_added`].
    pub body: String,
    /// The label, if the kind is `label`.
    pub label: Option<LabelRef>,
    /// When it happened, by the forge's clock, in whole seconds.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl TimelineEvent {
    /// For an entry of the kind `label`: the label, and whether it was added (body `1`) or removed (empty body).
    /// `None` for all other kinds.
    pub fn label_added(&self) -> Option<(&LabelRef, bool)> {
        let label = self.label.as_ref().filter(|_| self.kind == "label")?;
        match self.body.as_str() {
            "1" => Some((label, true)),
            "" => Some((label, false)),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for TimelineEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            id: i64,
            #[serde(rename = "type")]
            kind: String,
            user: Option<User>,
            #[serde(default, deserialize_with = "or_default")]
            body: String,
            label: Option<LabelRef>,
            created_at: Timestamp,
            updated_at: Timestamp,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            id: raw.id,
            kind: raw.kind,
            actor: person_or_ghost(raw.user),
            body: raw.body,
            label: raw.label,
            created_at: raw.created_at,
            updated_at: raw.updated_at,
        })
    }
}

/// A missing account is a deleted one, which has no rights.
fn person_or_ghost(user: Option<User>) -> Person {
    user.map_or_else(|| Person { id: -1, login: "Ghost".to_owned() }, |user| user.person())
}

/// Labels of an issue. At most [`LABELS_MAX`] are kept; it is only noted that there are more.
#[derive(Debug, Default)]
pub(super) struct RawLabels {
    pub(super) kept: Vec<LabelRef>,
    pub(super) too_many: bool,
}

impl<'de> Deserialize<'de> for RawLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = RawLabels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of labels")
            }

            fn visit_unit<E>(self) -> Result<RawLabels, E> {
                Ok(RawLabels::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawLabels, A::Error> {
                let mut labels = RawLabels::default();
                while labels.kept.len() < LABELS_MAX {
                    match seq.next_element()? {
                        Some(label) => labels.kept.push(label),
                        None => return Ok(labels),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    labels.too_many = true;
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_any(Bounded)
    }
}

/// The part of a repository that an issue contains.
#[derive(Debug, Deserialize)]
pub(super) struct RawIssueRepository {
    pub(super) id: i64,
}

/// An issue as both the API and deliveries encode it.
#[derive(Debug, Deserialize)]
pub(super) struct RawIssue {
    pub(super) id: i64,
    pub(super) number: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) title: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) body: String,
    pub(super) state: String,
    pub(super) user: Option<User>,
    #[serde(default)]
    pub(super) labels: RawLabels,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) pull_request: Option<IgnoredAny>,
    pub(super) repository: Option<RawIssueRepository>,
    #[serde(default, deserialize_with = "or_default")]
    original_author: String,
    #[serde(default, deserialize_with = "or_default")]
    original_author_id: i64,
}

impl RawIssue {
    pub(super) fn snapshot(self) -> IssueSnapshot {
        IssueSnapshot {
            id: self.id,
            number: self.number,
            title: self.title,
            body: self.body,
            open: self.state == "open",
            is_pull: self.pull_request.is_some(),
            author: person_or_ghost(self.user),
            labels: self.labels.kept,
            created_at: self.created_at,
            updated_at: self.updated_at,
            migrated: !self.original_author.is_empty() || self.original_author_id != 0,
        }
    }
}

/// A comment as both the API and deliveries encode it.
#[derive(Debug, Deserialize)]
pub(super) struct RawComment {
    pub(super) id: i64,
    pub(super) user: Option<User>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) body: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    #[serde(default, deserialize_with = "or_default")]
    issue_url: String,
    #[serde(default, deserialize_with = "or_default")]
    pull_request_url: String,
    #[serde(default, deserialize_with = "or_default")]
    original_author: String,
    #[serde(default, deserialize_with = "or_default")]
    original_author_id: i64,
}

impl RawComment {
    /// The number of the comment's issue or pull request. The API gives it only at the end of a URL.
    pub(super) fn issue_number(&self) -> Option<i64> {
        let url = if self.issue_url.is_empty() { &self.pull_request_url } else { &self.issue_url };
        url.rsplit('/').next()?.parse().ok().filter(|number| *number > 0)
    }

    pub(super) fn snapshot(self) -> CommentSnapshot {
        CommentSnapshot {
            id: self.id,
            author: person_or_ghost(self.user),
            body: self.body,
            created_at: self.created_at,
            updated_at: self.updated_at,
            migrated: !self.original_author.is_empty() || self.original_author_id != 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_products_are_told_apart() {
        for (raw, product, gitea, below) in [
            ("1.25.4", Product::Gitea, (1, 25, 4), true),
            ("1.26.2", Product::Gitea, (1, 26, 2), false),
            ("1.26.2-rc1", Product::Gitea, (1, 26, 2), true),
            ("1.27.0+dev-12-gabcdef", Product::Gitea, (1, 27, 0), false),
            ("v1.26", Product::Gitea, (1, 26, 0), true),
            ("12.0.0-dev+gitea-1.22.0", Product::Forgejo, (1, 22, 0), false),
            ("main", Product::Gitea, (0, 0, 0), true),
            ("99999999999999.1.1", Product::Gitea, (0, 1, 1), true),
        ] {
            let version = ServerVersion::from_raw(raw.to_owned());
            assert_eq!((version.product, version.gitea, version.below_fixed_cve()), (product, gitea, below), "{raw}");
        }
    }

    #[test]
    fn an_unknown_word_for_access_is_no_access() {
        let access: Access = serde_json::from_str("\"superuser\"").unwrap();
        assert_eq!(access, Access::None);
        assert!(Access::None < Access::Read && Access::Write < Access::Admin && Access::Admin < Access::Owner);
    }

    #[test]
    fn a_comment_without_a_good_address_has_no_issue() {
        let number = |issue: &str, pull: &str| {
            let text = format!(
                r#"{{"id":1,"user":null,"body":null,"created_at":"2026-11-20T23:29:31Z","updated_at":"2026-11-20T23:29:31Z","issue_url":"{issue}","pull_request_url":"{pull}"}}"#
            );
            serde_json::from_str::<RawComment>(&text).unwrap().issue_number()
        };
        assert_eq!(number("http://f/o/r/issues/7", ""), Some(7));
        assert_eq!(number("", "http://f/o/r/pulls/8"), Some(8));
        assert_eq!(number("", ""), None);
        assert_eq!(number("http://f/o/r/issues/-7", ""), None);
    }
}
