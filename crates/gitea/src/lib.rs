#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! | module | holds |
//! | --- | --- |
//! | [`event`] | what happened on the forge, however it was heard of |
//! | [`webhook`] | deliveries: the signature first, then the body |
//! | [`hook`] | what each webhook signs with, and the calls that make webhooks |
//! | `forge`, `repository`, `issue` | the calls, as `forge.repo(o, r).issue(n).comments()` |
//! | `model` | what the forge says, typed |
//! | `paging` | lists in pages as streams |
//! | `transport` | one request: limits, token, which calls are repeated |
//! | `error` | why a call failed, and whether it may have happened |
//! | [`failure`] | what a failure means, of a call or of git: passing, for people, doubtful, lasting |

#![forbid(unsafe_code)]

mod error;
pub mod event;
pub mod failure;
mod forge;
pub mod hook;
mod issue;
mod model;
mod paging;
mod repository;
mod transport;
pub mod webhook;

pub use error::{Call, ForgeError};
pub use forge::{Forge, RawAnswer};
pub use hook::{HookOwner, HooksApi, MasterSecret};
pub use issue::{CommentApi, IssueApi};
pub use model::{
    Access, ApiSettings, Attachment, Branch, FileContent, FileWritten, Hook, HookContentType, IssueQuery, IssueState,
    IssueTemplate, LABELS_MAX, Label, Named, NewHook, NewLabel, NewPull, Organisation, OwnRights, Permission, Product,
    Pull, Reaction, Repository, ServerVersion, Team, TimelineEvent, UiSettings, User,
};
pub use repository::RepoApi;
pub use transport::ForgeOptions;
