//! Why a call to the forge failed. Only the status decides, because error texts differ between Gitea and Forgejo
//! and change between versions. What the forge said is kept in a shortened form, for the person who reads the
//! message.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::failure::Failure;

/// Longest text of the forge that an error repeats, in characters.
const SAID_MAX: usize = 200;

/// Longest path that an error repeats, in characters.
const PATH_MAX: usize = 300;

/// Which call failed: its method and path, for messages. Never contains the query or a header, and so never the
/// token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call(String);

impl Call {
    pub(super) fn new(method: &Method, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let short: String = path.chars().take(PATH_MAX).collect();
        Self(format!("{method} {short}"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call to the forge failed. Each message names the call and says what to do. Code decides by
/// [`failure`](Self::failure) and [`may_have_happened`](Self::may_have_happened).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ForgeError {
    /// The options for the client are not usable.
    #[error("cannot make a client for the forge: {why}")]
    Options {
        /// What is wrong, without any secret.
        why: String,
    },
    /// A name that cannot be part of a path (empty, `.` or `..`). Nothing was sent.
    #[error("{name:?} cannot be {what} on a forge: nothing was asked")]
    BadName {
        /// What it should have named: an owner, a repository, an account, …
        what: &'static str,
        /// The name, shortened.
        name: String,
    },
    /// 401: the forge does not accept the token.
    #[error(
        "{call}: the forge does not accept the token (401){}: check that the configured token is one of the bot's account, and was not revoked",
        Said(said)
    )]
    Unauthorized {
        /// The call.
        call: Call,
        /// What the forge said.
        said: String,
    },
    /// 403: the token's account may not do this.
    #[error("{call}: not allowed (403){}: {}", Said(said), forbidden_advice(missing_scope.as_deref()))]
    Forbidden {
        /// The call.
        call: Call,
        /// The scope that the token lacks, if the forge names one. Only for people: no code decides by it.
        missing_scope: Option<String>,
        /// What the forge said.
        said: String,
    },
    /// 404; also Gitea's 500 for an issue that does not exist.
    #[error("{call}: not there (404): check the name, and that the bot's account can see it")]
    NotFound {
        /// The call.
        call: Call,
    },
    /// 410: it existed once, and does not exist any more.
    #[error("{call}: gone for good (410)")]
    Gone {
        /// The call.
        call: Call,
    },
    /// 409: there is already a pull request for these branches, a file has changed, …
    #[error("{call}: it conflicts with what is there (409){}: look at what is there first", Said(said))]
    Conflict {
        /// The call.
        call: Call,
        /// What the forge said.
        said: String,
    },
    /// 423: the repository is archived.
    #[error("{call}: the repository is archived (423){}: somebody must take it out of the archive first", Said(said))]
    Locked {
        /// The call.
        call: Call,
        /// What the forge said.
        said: String,
    },
    /// 400 or 422: the forge does not accept these values.
    #[error("{call}: the forge refuses these values ({status}){}", Said(said))]
    Invalid {
        /// The call.
        call: Call,
        /// 400 or 422.
        status: u16,
        /// What the forge said.
        said: String,
    },
    /// 429, from a proxy in front of the forge: Gitea and Forgejo have no rate limit of their own.
    #[error("{call}: too many requests (429): wait{}", After(*retry_after))]
    RateLimited {
        /// The call.
        call: Call,
        /// How long the answer asked us to wait.
        retry_after: Option<Duration>,
    },
    /// 5xx, and also 408 and 425, which pass by themselves too.
    #[error("{call}: the forge failed ({status}){}: see the forge's log{}", Said(said), After(*retry_after))]
    Server {
        /// The call.
        call: Call,
        /// The status.
        status: u16,
        /// What the forge said: often nothing.
        said: String,
        /// How long the answer asked us to wait.
        retry_after: Option<Duration>,
    },
    /// 301, 302, 303, 307, 308: the repository or account has another name now. We did not know an id to find it
    /// by, or the id did not help.
    #[error("{call}: {}", Elsewhere { status: *status, to, outside: *outside })]
    Moved {
        /// The call.
        call: Call,
        /// The status.
        status: u16,
        /// The URL that the answer names, without its query; empty if it names none.
        to: String,
        /// Whether that URL is outside the API that we ask: then the whole forge has moved, and not one name on it.
        outside: bool,
    },
    /// 413, from the forge or from a proxy in front of it.
    #[error(
        "{call}: the forge, or a proxy in front of it, takes no request of that size (413): send less, or have its limit raised (client_max_body_size of nginx, [attachment] MAX_SIZE of the forge)"
    )]
    TooMuch {
        /// The call.
        call: Call,
    },
    /// Another status, which no call of ours should get.
    #[error(
        "{call}: an unexpected answer ({status}){}: is there a Gitea or Forgejo at the configured address?",
        Said(said)
    )]
    Unexpected {
        /// The call.
        call: Call,
        /// The status.
        status: u16,
        /// What the forge said.
        said: String,
    },
    /// The answer is larger than the limit, and reading stopped there.
    #[error("{call}: the answer is larger than {limit} bytes: raise the limit if the forge really holds that much")]
    TooLarge {
        /// The call.
        call: Call,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A success status with an unexpected body.
    #[error("{call}: the answer ({status}) is not what a forge says: {why}; is a proxy in between?")]
    Garbage {
        /// The call.
        call: Call,
        /// The status.
        status: u16,
        /// What is wrong with it.
        why: String,
    },
    /// No complete answer within the time limit.
    #[error("{call}: no whole answer within {} s: is the forge overloaded?", limit.as_secs_f32())]
    Timeout {
        /// The call.
        call: Call,
        /// The limit.
        limit: Duration,
    },
    /// No connection could be made, so the request was not sent.
    #[error("{call}: no connection to the forge ({why}): check the configured address, and that the forge is up")]
    Connect {
        /// The call.
        call: Call,
        /// The cause, in one line.
        why: String,
    },
    /// The connection broke after the request was sent, or may have been.
    #[error("{call}: the connection broke before the whole answer was there ({why})")]
    Interrupted {
        /// The call.
        call: Call,
        /// The cause, in one line.
        why: String,
    },
}

impl ForgeError {
    /// How the caller should react.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Options { .. } | Self::BadName { .. } | Self::TooLarge { .. } => Failure::Lasting,
            Self::Garbage { .. } | Self::Timeout { .. } | Self::Connect { .. } | Self::Interrupted { .. } => {
                Failure::PASSING
            }
            // Another repository that has the name now would give a good answer too.
            Self::Moved { .. } => Failure::Doubtful,
            Self::Unauthorized { .. } => Failure::of_status(401, None),
            Self::Forbidden { .. } => Failure::of_status(403, None),
            Self::NotFound { .. } => Failure::of_status(404, None),
            Self::Gone { .. } => Failure::of_status(410, None),
            Self::Conflict { .. } => Failure::of_status(409, None),
            Self::TooMuch { .. } => Failure::of_status(413, None),
            Self::Locked { .. } => Failure::of_status(423, None),
            Self::RateLimited { retry_after, .. } => Failure::of_status(429, *retry_after),
            Self::Server { status, retry_after, .. } => Failure::of_status(*status, *retry_after),
            Self::Invalid { status, .. } | Self::Unexpected { status, .. } => Failure::of_status(*status, None),
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.failure().is_passing()
    }

    /// Whether a call that changes something may have taken effect although it failed. Look on the forge (for a
    /// marker, the branches, the list) before you repeat such a call.
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self,
            Self::Server { .. }
                | Self::Timeout { .. }
                | Self::Interrupted { .. }
                | Self::Garbage { .. }
                | Self::TooLarge { .. }
        )
    }

    /// How long the forge, or a proxy in front of it, asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the requested thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Gone { .. })
    }

    /// An error for a name that cannot be part of a path; the name is shortened.
    pub(super) fn bad_name(what: &'static str, name: &str) -> Self {
        Self::BadName { what, name: printable(name) }
    }

    /// An error for a name that belongs to another repository now: the intended one has moved, and its old name was
    /// given away.
    pub(super) fn another_repository(call: &str, ours: i64, theirs: i64) -> Self {
        tracing::warn!(call, ours, theirs, "another repository stands at this name now");
        Self::Moved { call: Call(call.to_owned()), status: 200, to: String::new(), outside: false }
    }

    /// The same call as a `NotFound` error, once we know that the thing does not exist.
    pub(super) fn into_not_found(self) -> Self {
        match self {
            Self::Server { call, .. } => Self::NotFound { call },
            other => other,
        }
    }

    /// The error for a status that is not a success.
    pub(super) fn from_status(
        call: Call,
        status: StatusCode,
        retry_after: Option<Duration>,
        location: Option<(String, bool)>,
        body: &[u8],
    ) -> Self {
        let said = said(body);
        match status.as_u16() {
            400 | 422 => Self::Invalid { call, status: status.as_u16(), said },
            401 => Self::Unauthorized { call, said },
            403 => Self::Forbidden { call, missing_scope: scope_named_in(&said), said },
            404 => Self::NotFound { call },
            409 => Self::Conflict { call, said },
            410 => Self::Gone { call },
            413 => Self::TooMuch { call },
            423 => Self::Locked { call, said },
            429 => Self::RateLimited { call, retry_after },
            301 | 302 | 303 | 307 | 308 => {
                let (to, outside) = location.unwrap_or_default();
                Self::Moved { call, status: status.as_u16(), to: printable(&to), outside }
            }
            408 | 425 | 500..=599 => Self::Server { call, status: status.as_u16(), said, retry_after },
            _ => Self::Unexpected { call, status: status.as_u16(), said },
        }
    }

    /// The error for a request that got no answer, or an incomplete one.
    pub(super) fn from_transport(call: Call, error: reqwest::Error, limit: Duration) -> Self {
        // `is_connect` is checked first: a timeout while connecting means that nothing was sent.
        if error.is_connect() {
            return Self::Connect { call, why: causes(error) };
        }
        if error.is_timeout() {
            return Self::Timeout { call, limit };
        }
        if error.is_builder() {
            return Self::Options { why: causes(error) };
        }
        Self::Interrupted { call, why: causes(error) }
    }
}

/// An error and its causes in one line, without the URL.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    printable(&text)
}

/// The `message` of a JSON error body; empty for anything else, such as a page of HTML.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: Option<String>,
    }
    let text = String::from_utf8_lossy(body);
    let message = serde_json::from_str::<ErrorBody>(&text).ok().and_then(|body| body.message);
    printable(&message.unwrap_or_default())
}

/// Shortens a text and removes control characters, because it goes to terminals and logs.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect()
}

/// Extracts `write:issue` from `required=[write:issue]` (Gitea) or `required scope(s): [write:issue]` (Forgejo).
fn scope_named_in(said: &str) -> Option<String> {
    if !said.contains("scope") {
        return None;
    }
    let inner = said.split_once('[')?.1.split_once(']')?.0.trim();
    let plausible = !inner.is_empty()
        && inner.contains(':')
        && inner.chars().all(|c| c.is_ascii_lowercase() || matches!(c, ':' | ',' | ' ' | '_' | '-'));
    plausible.then(|| inner.to_owned())
}

fn forbidden_advice(missing_scope: Option<&str>) -> String {
    match missing_scope {
        Some(scope) => format!(
            "the token lacks the scope {scope}; make one with write:issue, write:repository, read:organization, read:user"
        ),
        None => "make the bot's account an administrator of the repository; on an issue, see whether it is locked or its author blocks the bot".to_owned(),
    }
}

struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", it says {:?}", self.0) }
    }
}

struct Elsewhere<'a> {
    status: u16,
    to: &'a str,
    outside: bool,
}

impl fmt::Display for Elsewhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, to, outside } = self;
        match (*outside, to.is_empty()) {
            (true, _) => write!(
                f,
                "the answer leads away from the forge's API ({status}, to {to}): set forge.url to the address under which the forge answers by itself"
            ),
            (false, true) => {
                write!(f, "this name has moved ({status}): look it up by its id, or correct the configured name")
            }
            (false, false) => write!(
                f,
                "this name has moved ({status}, to {to}): look it up by its id, or correct the configured name"
            ),
        }
    }
}

struct After(Option<Duration>);

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, "; it asks to wait {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}
