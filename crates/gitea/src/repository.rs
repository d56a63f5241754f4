//! Calls that concern one repository.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::error::ForgeError;
use super::event::{CommentSnapshot, IssueSnapshot};
use super::forge::Forge;
use super::hook::HooksApi;
use super::issue::{CommentApi, IssueApi};
use super::model::{
    Branch, FileContent, FileWritten, Hook, IssueQuery, IssueTemplate, Label, NewHook, NewLabel, NewPull, Permission,
    Pull, RawComment, RawIssue, Repository, Team,
};
use super::paging::{Sender, Total, pages};
use super::transport::{Answer, Ask, Payload, Repeat, optional, query_value, segment};
use jiff::Timestamp;

/// One repository. Created by [`Forge::repo`] or [`Forge::repo_ref`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct RepoApi {
    forge: Forge,
    /// `None` if only its name is known.
    id: Option<i64>,
    owner: Arc<str>,
    name: Arc<str>,
}

impl RepoApi {
    pub(super) fn new(forge: Forge, id: Option<i64>, owner: &str, name: &str) -> Self {
        Self { forge, id, owner: owner.into(), name: name.into() }
    }

    /// Sends a call below this repository. A redirect is not followed, because that would turn a POST into a GET.
    /// Instead the repository is looked up by its id, and the same request is sent once to its new name. If the
    /// client looks twice, it does the same when something does not exist, because another repository may have
    /// taken the name.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        let error = match self.forge.send(&ask.below(&prefix(&self.owner, &self.name)?)).await {
            Err(error @ (ForgeError::Moved { .. } | ForgeError::NotFound { .. })) => error,
            other => return other,
        };
        let (Some(id), again) = (self.id, self.forge.look_twice()) else { return Err(error) };
        let is_moved = matches!(error, ForgeError::Moved { .. });
        if !is_moved && again.is_none() {
            return Err(error);
        }
        let Some(found) = self.forge.repository_by_id(id).await? else {
            return Err(error);
        };
        if *found.owner.login == *self.owner && *found.name == *self.name {
            // Something else has moved: an account in the path. Or a proxy redirected us for a moment.
            let Some(wait) = again.filter(|_| is_moved) else { return Err(error) };
            tokio::time::sleep(wait).await;
            return self.forge.send(&ask.below(&prefix(&self.owner, &self.name)?)).await;
        }
        tracing::info!(id, from = %format_args!("{}/{}", self.owner, self.name),
            to = %format_args!("{}/{}", found.owner.login, found.name), "the repository has another name now");
        self.forge.send(&ask.below(&prefix(&found.owner.login, &found.name)?)).await
    }

    fn sender(&self) -> Sender {
        let repo = self.clone();
        Arc::new(move |ask| {
            let repo = repo.clone();
            Box::pin(async move { repo.send(&ask).await })
        })
    }

    /// An issue of this repository as a snapshot. Fails if the answer is from another repository, which can have
    /// the old name after a rename.
    pub(super) fn own_issue(&self, issue: RawIssue, answer: &str) -> Result<IssueSnapshot, ForgeError> {
        if let (Some(ours), Some(theirs)) = (self.id, &issue.repository)
            && ours != theirs.id
        {
            return Err(ForgeError::another_repository(answer, ours, theirs.id));
        }
        Ok(issue.snapshot())
    }

    /// The repository itself.
    pub async fn get(&self) -> Result<Option<Repository>, ForgeError> {
        match optional(self.send(&Ask::get("")).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// What an account, given by name, may do here; `None` if there is no such account. The token's account must
    /// administer the repository to ask this about others; otherwise [`ForgeError::Forbidden`]. See [`Permission`]
    /// for the limits of the answer.
    pub async fn permission(&self, login: &str) -> Result<Option<Permission>, ForgeError> {
        let path = format!("/collaborators/{}/permission", segment("an account", login)?);
        match optional(self.send(&Ask::get(path)).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// The organisation's teams that have access to this repository.
    pub async fn teams(&self) -> Result<Vec<Team>, ForgeError> {
        self.send(&Ask::get("/teams")).await?.list()
    }

    /// All its labels.
    pub async fn labels(&self) -> Result<Vec<Label>, ForgeError> {
        pages(self.sender(), "/labels".to_owned(), Total::OfTheList).try_collect().await
    }

    /// A label by its number; `None` if it does not exist any more.
    pub async fn label(&self, id: i64) -> Result<Option<Label>, ForgeError> {
        match optional(self.send(&Ask::get(format!("/labels/{id}"))).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// Creates a label. The forge silently creates a second one with the same name, so check first. Never retried
    /// automatically.
    pub async fn create_label(&self, label: NewLabel) -> Result<Label, ForgeError> {
        let bare = label.color.bytes().all(|byte| byte.is_ascii_hexdigit());
        let color = if bare { format!("#{}", label.color) } else { label.color };
        let body = json!({
            "name": label.name, "color": color, "description": label.description, "exclusive": label.exclusive,
        });
        self.send(&Ask::json(Method::POST, "/labels", &body, Repeat::Never)).await?.parse()
    }

    /// Deletes a label, and also, without an event, its history in every timeline. Returns false if it did not
    /// exist.
    pub async fn delete_label(&self, id: i64) -> Result<bool, ForgeError> {
        Ok(optional(self.send(&Ask::delete(format!("/labels/{id}"))).await)?.is_some())
    }

    /// Calls for its webhooks.
    pub fn hook_calls(&self) -> HooksApi {
        HooksApi::Repository(self.clone())
    }

    /// All its webhooks.
    pub async fn hooks(&self) -> Result<Vec<Hook>, ForgeError> {
        self.hook_calls().list().await
    }

    /// Creates a webhook for all branches. Never retried automatically.
    pub async fn create_hook(&self, hook: NewHook) -> Result<Hook, ForgeError> {
        self.hook_calls().create(hook, "*").await
    }

    /// Deletes a webhook. Returns false if it did not exist.
    pub async fn delete_hook(&self, id: i64) -> Result<bool, ForgeError> {
        self.hook_calls().delete(id).await
    }

    /// Makes the forge send a `push` event. This proves little: a hook that is subscribed only to issues reports
    /// success and delivers nothing.
    pub async fn test_hook(&self, id: i64) -> Result<(), ForgeError> {
        let ask = Ask {
            method: Method::POST,
            path: format!("/hooks/{id}/tests"),
            payload: Payload::Nothing,
            repeat: Repeat::Never,
        };
        self.send(&ask).await.map(drop)
    }

    /// A file on the default branch; `None` if it does not exist.
    pub async fn file(&self, path: &str) -> Result<Option<FileContent>, ForgeError> {
        #[derive(Deserialize)]
        struct Raw {
            sha: String,
            encoding: Option<String>,
            content: Option<String>,
        }
        let Some(answer) = optional(self.send(&Ask::get(contents(path)?)).await)? else {
            return Ok(None);
        };
        let raw: Raw = answer.parse()?;
        let (Some("base64"), Some(text)) = (raw.encoding.as_deref(), raw.content) else {
            return Err(answer.garbage("it holds no content: a directory, a link or too large a file"));
        };
        let compact: String = text.split_ascii_whitespace().collect();
        let content = BASE64.decode(compact).map_err(|_| answer.garbage("its content is not Base64"))?;
        Ok(Some(FileContent { sha: raw.sha, content }))
    }

    /// Writes a file as one commit: a new file, or one that replaces the blob `sha`; on `branch`, or on the default
    /// branch. Never retried automatically. If the file exists already, or is another blob, the forge reports an
    /// error (422, 409).
    pub async fn put_file(
        &self,
        path: &str,
        content: &[u8],
        message: &str,
        sha: Option<&str>,
        branch: Option<&str>,
    ) -> Result<FileWritten, ForgeError> {
        #[derive(Deserialize)]
        struct Sha {
            sha: String,
        }
        #[derive(Deserialize)]
        struct Raw {
            content: Sha,
            commit: Sha,
        }
        let mut body = json!({ "content": BASE64.encode(content), "message": message });
        if let Some(branch) = branch {
            body["branch"] = branch.into();
        }
        let method = if let Some(sha) = sha {
            body["sha"] = sha.into();
            Method::PUT
        } else {
            Method::POST
        };
        let raw: Raw = self.send(&Ask::json(method, contents(path)?, &body, Repeat::Never)).await?.parse()?;
        Ok(FileWritten { sha: raw.content.sha, commit: raw.commit.sha })
    }

    /// The issue templates that the forge could parse. Invalid ones are missing here, so this is how to check one.
    pub async fn issue_templates(&self) -> Result<Vec<IssueTemplate>, ForgeError> {
        self.send(&Ask::get("/issue_templates")).await?.list()
    }

    /// A branch; `None` if it does not exist.
    pub async fn branch(&self, name: &str) -> Result<Option<Branch>, ForgeError> {
        let path = format!("/branches/{}", segment("a branch", name)?);
        match optional(self.send(&Ask::get(path)).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// The commit at the tip of a branch; `None` if there is no such branch. Unlike [`branch`](Self::branch) this
    /// also works for commits that the forge cannot show, for example because of a date with a five-digit year. For
    /// those, the other call gets no answer.
    pub async fn branch_head(&self, name: &str) -> Result<Option<String>, ForgeError> {
        #[derive(Deserialize)]
        struct Object {
            sha: String,
        }
        #[derive(Deserialize)]
        struct Reference {
            #[serde(rename = "ref")]
            name: String,
            object: Object,
        }
        // Slashes are kept, because some proxies refuse `%2F`.
        let parts = name.split('/').map(|part| segment("a branch", part)).collect::<Result<Vec<_>, _>>()?;
        let path = format!("/git/refs/heads/{}", parts.join("/"));
        let Some(answer) = optional(self.send(&Ask::get(path)).await)? else { return Ok(None) };
        // The answer lists all references with this prefix. Older servers return a single one without a list.
        let found = answer.list::<Reference>().or_else(|_| answer.parse::<Reference>().map(|one| vec![one]))?;
        let wanted = format!("refs/heads/{name}");
        Ok(found.into_iter().find(|reference| reference.name == wanted).map(|reference| reference.object.sha))
    }

    /// Its issues, without pull requests, in the forge's order.
    pub fn issues(&self, query: IssueQuery) -> BoxStream<'static, Result<IssueSnapshot, ForgeError>> {
        let mut path = format!("/issues?type=issues&state={}", query.state.word());
        if let Some(since) = query.since {
            path.push_str("&since=");
            path.push_str(&since_value(since));
        }
        let repo = self.clone();
        Box::pin(
            pages(self.sender(), path, Total::OfTheList)
                .map(move |issue| issue.and_then(|issue: RawIssue| repo.own_issue(issue, "GET /issues"))),
        )
    }

    /// The comments of all its issues and pull requests that were *updated* at or after `since` (whole seconds of
    /// the forge's clock), each with the number of its issue. Sorted by the time of writing. A comment for which
    /// the forge names no issue is skipped with a warning.
    pub fn comments_since(
        &self,
        since: Option<Timestamp>,
    ) -> BoxStream<'static, Result<(i64, CommentSnapshot), ForgeError>> {
        let mut path = "/issues/comments".to_owned();
        if let Some(since) = since {
            path.push_str("?since=");
            path.push_str(&since_value(since));
        }
        let comments = pages(self.sender(), path, Total::OfTheList);
        Box::pin(comments.try_filter_map(|comment: RawComment| async move {
            let number = comment.issue_number();
            if number.is_none() {
                tracing::warn!(comment = comment.id, "the forge names no issue for this comment: passed over");
            }
            Ok(number.map(|number| (number, comment.snapshot())))
        }))
    }

    /// One issue, or a pull request treated as an issue, by its number in this repository.
    pub fn issue(&self, number: i64) -> IssueApi {
        IssueApi::new(self.clone(), number)
    }

    /// Opens an issue. Never retried automatically.
    pub async fn create_issue(&self, title: &str, body: &str) -> Result<IssueSnapshot, ForgeError> {
        let body = json!({ "title": title, "body": body });
        let answer = self.send(&Ask::json(Method::POST, "/issues", &body, Repeat::Never)).await?;
        Ok(answer.parse::<RawIssue>()?.snapshot())
    }

    /// One comment, by its number on the server.
    pub fn comment(&self, id: i64) -> CommentApi {
        CommentApi::new(self.clone(), id)
    }

    /// Creates a pull request. [`ForgeError::Conflict`] means that there is already one for these branches. Never
    /// retried automatically.
    pub async fn create_pull(&self, pull: NewPull) -> Result<Pull, ForgeError> {
        let body = json!({ "head": pull.head, "base": pull.base, "title": pull.title, "body": pull.body });
        self.send(&Ask::json(Method::POST, "/pulls", &body, Repeat::Never)).await?.parse()
    }

    /// The pull request for merging `head` into `base`.
    pub async fn pull_by_branches(&self, base: &str, head: &str) -> Result<Option<Pull>, ForgeError> {
        let path = format!("/pulls/{}/{}", segment("a branch", base)?, segment("a branch", head)?);
        match optional(self.send(&Ask::get(path)).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }
}

fn prefix(owner: &str, name: &str) -> Result<String, ForgeError> {
    Ok(format!("/repos/{}/{}", segment("an owner", owner)?, segment("a repository", name)?))
}

fn contents(path: &str) -> Result<String, ForgeError> {
    Ok(format!("/contents/{}", segment("a file", path)?))
}

/// `since` is inclusive and in whole seconds. Fractions are cut off, so that nothing of that second is missed.
fn since_value(since: Timestamp) -> String {
    let whole = Timestamp::from_second(since.as_second()).unwrap_or(since);
    query_value(&whole.to_string())
}
