//! Calls that concern one issue or one comment.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::error::ForgeError;
use super::event::{CommentSnapshot, IssueSnapshot};
use super::model::{Attachment, Label, RawComment, RawIssue, Reaction, TimelineEvent};
use super::paging::{Total, pages};
use super::repository::RepoApi;
use super::transport::{Answer, Ask, Payload, Repeat, optional};

/// One issue, or a pull request treated as an issue.
#[derive(Debug, Clone)]
pub struct IssueApi {
    repo: RepoApi,
    number: i64,
}

impl IssueApi {
    pub(super) fn new(repo: RepoApi, number: i64) -> Self {
        Self { repo, number }
    }

    fn path(&self, rest: &str) -> String {
        format!("/issues/{}{rest}", self.number)
    }

    /// Sends a call to which Gitea answers 500 with an empty message if the issue does not exist (comments and
    /// timeline; Forgejo answers 404). Only a request for the issue itself distinguishes that from a real failure.
    async fn send_about_comments(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        match self.repo.send(ask).await {
            Err(error @ ForgeError::Server { status: 500, .. }) => match self.get().await {
                Ok(None) => Err(error.into_not_found()),
                _ => Err(error),
            },
            other => other,
        }
    }

    /// The issue; `None` if it does not exist, or was deleted.
    pub async fn get(&self) -> Result<Option<IssueSnapshot>, ForgeError> {
        match optional(self.repo.send(&Ask::get(self.path(""))).await)? {
            Some(answer) => self.repo.own_issue(answer.parse::<RawIssue>()?, &answer.call.to_string()).map(Some),
            None => Ok(None),
        }
    }

    /// All its comments, in the order in which they were written. The forge does not paginate these.
    pub async fn comments(&self) -> Result<Vec<CommentSnapshot>, ForgeError> {
        let comments: Vec<RawComment> = self.send_about_comments(&Ask::get(self.path("/comments"))).await?.list()?;
        Ok(comments.into_iter().map(RawComment::snapshot).collect())
    }

    /// Writes a comment. Never retried automatically: if the error [may have
    /// happened](ForgeError::may_have_happened), look for the comment's marker first.
    pub async fn create_comment(&self, body: &str) -> Result<CommentSnapshot, ForgeError> {
        let ask = Ask::json(Method::POST, self.path("/comments"), &json!({ "body": body }), Repeat::Never);
        Ok(self.send_about_comments(&ask).await?.parse::<RawComment>()?.snapshot())
    }

    /// The issue's history, oldest first. Only this says who set a label, and when.
    pub fn timeline(&self) -> BoxStream<'static, Result<TimelineEvent, ForgeError>> {
        let issue = self.clone();
        let send = Arc::new(move |ask: Ask| -> futures::future::BoxFuture<'static, _> {
            let issue = issue.clone();
            Box::pin(async move { issue.send_about_comments(&ask).await })
        });
        pages(send, self.path("/timeline"), Total::OfThePage)
    }

    /// Adds labels by their ids, and returns all labels of the issue afterwards. The forge ignores unknown ids, so
    /// check the result. Never retried automatically.
    pub async fn add_labels(&self, ids: &[i64]) -> Result<Vec<Label>, ForgeError> {
        let ask = Ask::json(Method::POST, self.path("/labels"), &json!({ "labels": ids }), Repeat::Never);
        self.repo.send(&ask).await?.list()
    }

    /// Removes a label. Returns false if the forge does not know this label.
    pub async fn remove_label(&self, id: i64) -> Result<bool, ForgeError> {
        Ok(optional(self.repo.send(&Ask::delete(self.path(&format!("/labels/{id}")))).await)?.is_some())
    }

    /// Adds a reaction, and returns whether it is new. A reaction that is not allowed gives
    /// [`ForgeError::Forbidden`].
    pub async fn react(&self, content: &str) -> Result<bool, ForgeError> {
        react(&self.repo, self.path("/reactions"), content).await
    }

    /// Closes or reopens it.
    pub async fn set_state(&self, open: bool) -> Result<IssueSnapshot, ForgeError> {
        let state = if open { "open" } else { "closed" };
        self.patch(&json!({ "state": state }), Repeat::Safe).await
    }

    /// Changes the title, the body, or both. Never retried automatically, because that could undo what a person
    /// wrote meanwhile.
    pub async fn edit(&self, title: Option<&str>, body: Option<&str>) -> Result<IssueSnapshot, ForgeError> {
        let mut change = serde_json::Map::new();
        if let Some(title) = title {
            change.insert("title".to_owned(), title.into());
        }
        if let Some(body) = body {
            change.insert("body".to_owned(), body.into());
        }
        self.patch(&change.into(), Repeat::Never).await
    }

    async fn patch(&self, change: &serde_json::Value, repeat: Repeat) -> Result<IssueSnapshot, ForgeError> {
        let answer = self.repo.send(&Ask::json(Method::PATCH, self.path(""), change, repeat)).await?;
        Ok(answer.parse::<RawIssue>()?.snapshot())
    }

    /// Deletes it. Returns false if it did not exist.
    pub async fn delete(&self) -> Result<bool, ForgeError> {
        Ok(optional(self.repo.send(&Ask::delete(self.path(""))).await)?.is_some())
    }
}

/// One comment.
#[derive(Debug, Clone)]
pub struct CommentApi {
    repo: RepoApi,
    id: i64,
}

impl CommentApi {
    pub(super) fn new(repo: RepoApi, id: i64) -> Self {
        Self { repo, id }
    }

    fn path(&self, rest: &str) -> String {
        format!("/issues/comments/{}{rest}", self.id)
    }

    /// The comment; `None` if it does not exist, or was deleted. If its author's account was deleted, Gitea and
    /// Forgejo both answer 500 here; the lists still contain the comment.
    pub async fn get(&self) -> Result<Option<CommentSnapshot>, ForgeError> {
        match optional(self.repo.send(&Ask::get(self.path(""))).await)? {
            // Gitea answers 204 if the number belongs to another entry of a timeline.
            Some(answer) if answer.status == StatusCode::NO_CONTENT => Ok(None),
            Some(answer) => Ok(Some(answer.parse::<RawComment>()?.snapshot())),
            None => Ok(None),
        }
    }

    /// The same, with the number of the comment's issue; 0 if the forge names none.
    pub async fn get_with_issue(&self) -> Result<Option<(i64, CommentSnapshot)>, ForgeError> {
        match optional(self.repo.send(&Ask::get(self.path(""))).await)? {
            Some(answer) if answer.status == StatusCode::NO_CONTENT => Ok(None),
            Some(answer) => {
                let comment = answer.parse::<RawComment>()?;
                Ok(Some((comment.issue_number().unwrap_or(0), comment.snapshot())))
            }
            None => Ok(None),
        }
    }

    /// Replaces its text.
    pub async fn edit(&self, body: &str) -> Result<CommentSnapshot, ForgeError> {
        let ask = Ask::json(Method::PATCH, self.path(""), &json!({ "body": body }), Repeat::Safe);
        Ok(self.repo.send(&ask).await?.parse::<RawComment>()?.snapshot())
    }

    /// Deletes it. Returns false if it did not exist.
    pub async fn delete(&self) -> Result<bool, ForgeError> {
        Ok(optional(self.repo.send(&Ask::delete(self.path(""))).await)?.is_some())
    }

    /// Adds a reaction, and returns whether it is new. A reaction that is not allowed gives
    /// [`ForgeError::Forbidden`].
    pub async fn react(&self, content: &str) -> Result<bool, ForgeError> {
        react(&self.repo, self.path("/reactions"), content).await
    }

    /// Removes the token's own reaction. Succeeds if there is none.
    pub async fn unreact(&self, content: &str) -> Result<(), ForgeError> {
        let body = json!({ "content": content });
        self.repo.send(&Ask::json(Method::DELETE, self.path("/reactions"), &body, Repeat::Safe)).await.map(drop)
    }

    /// The reactions on it.
    pub async fn reactions(&self) -> Result<Vec<Reaction>, ForgeError> {
        self.repo.send(&Ask::get(self.path("/reactions"))).await?.list()
    }

    /// The files that are attached to it.
    pub async fn attachments(&self) -> Result<Vec<Attachment>, ForgeError> {
        self.repo.send(&Ask::get(self.path("/assets"))).await?.list()
    }

    /// Attaches a file. The forge accepts only some extensions (`.gz`, `.md`, `.txt`, `.json`, … but neither `.zst`
    /// nor `.jsonl`: [`ForgeError::Invalid`]). Never retried automatically.
    pub async fn attach(&self, file_name: &str, content: impl Into<Bytes>) -> Result<Attachment, ForgeError> {
        let ask = Ask {
            method: Method::POST,
            path: self.path("/assets"),
            payload: Payload::File { name: file_name.to_owned(), content: content.into() },
            repeat: Repeat::Never,
        };
        self.repo.send(&ask).await?.parse()
    }
}

/// Adding the same reaction twice has no effect, so an attempt without an answer is retried. `false` can then mean
/// that the first attempt added it.
async fn react(repo: &RepoApi, path: String, content: &str) -> Result<bool, ForgeError> {
    let ask = Ask::json(Method::POST, path, &json!({ "content": content }), Repeat::Safe);
    Ok(repo.send(&ask).await?.status == StatusCode::CREATED)
}
