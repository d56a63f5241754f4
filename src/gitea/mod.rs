//! The forge: an octocrab-like client for Gitea and Forgejo, its models, and
//! the webhook types.
//!
//! | file | holds |
//! | --- | --- |
//! | `event` | what happened on the forge, however it was heard of |
//! | `webhook` | deliveries: the signature first, then the body |
//! | `forge`, `repository`, `issue` | the calls, as `forge.repo(o, r).issue(n).comments()` |
//! | `model` | what the forge says, typed |
//! | `paging` | lists in pages as streams |
//! | `transport` | one request: limits, token, which calls are repeated |
//! | `error` | why a call failed, and whether it may have happened |
//!
//! Every call has an exchange recorded from a real server under
//! `wiremock-fixtures/`, and a test against it in `tests/recordings.rs`.

mod error;
pub mod event;
mod forge;
mod issue;
mod model;
mod paging;
mod repository;
mod transport;
pub mod webhook;

pub use error::{Call, ForgeError};
pub use forge::{Forge, RawAnswer};
pub use issue::{CommentApi, IssueApi};
pub use model::{
    Access, ApiSettings, Attachment, Branch, FileContent, FileWritten, Hook, HookContentType,
    IssueQuery, IssueState, IssueTemplate, LABELS_MAX, Label, NewHook, NewLabel, NewPull,
    OwnRights, Permission, Product, Pull, Reaction, Repository, ServerVersion, Team, TimelineEvent,
    UiSettings, User,
};
pub use repository::RepoApi;
pub use transport::ForgeOptions;
