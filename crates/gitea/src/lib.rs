#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! | module | holds |
//! | --- | --- |
//! | [`event`] | events on the forge, from webhooks and from polling |
//! | [`webhook`] | deliveries: first the signature, then the body |
//! | [`hook`] | the secret of each webhook, and the calls that create webhooks |
//! | `forge`, `repository`, `issue` | the calls, as `forge.repo(o, r).issue(n).comments()` |
//! | `model` | the forge's answers as types |
//! | `paging` | paginated lists as streams |
//! | `transport` | one request: limits, token, which calls are retried |
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
