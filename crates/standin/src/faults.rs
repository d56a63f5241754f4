//! Faults on purpose: deliveries that are lost, duplicated, late or out of order; answers that never come, come
//! late or are garbage; and people who change something at the worst moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

/// Faults of webhook deliveries. All are off by default, and they can be combined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFaults {
    /// Lose every delivery.
    pub drop_all: bool,
    /// Lose this many deliveries, counting down.
    pub drop_next: u32,
    /// Send every delivery twice, the second time with a new id, as a person's
    /// "Replay" does.
    pub double: bool,
    /// Wait so many milliseconds before each delivery.
    pub delay_ms: u64,
    /// Hold back so many deliveries, then send them in another order, and repeat that. Held deliveries do not count
    /// for `wait_for_deliveries_idle`. Setting this to 0 releases them.
    pub shuffle: usize,
    /// Hold back all deliveries until this is off again; then send them in their order. Held deliveries do not
    /// count for `wait_for_deliveries_idle`.
    pub hold: bool,
    /// Behave like a forge with the default `ALLOWED_HOST_LIST`: send nothing to private or loopback addresses, and
    /// report that only on the hook's page.
    pub deny_hosts: bool,
}

/// What happens to an API request that a fault applies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum ApiFaultKind {
    /// Answer with this status and do nothing.
    Refuse {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Redirect the caller and do nothing.
    Redirect {
        /// HTTP status: 301, 302, 303, 307, 308.
        status: u16,
        /// `Location`; `{path}` in it stands for the requested path and query.
        location: String,
    },
    /// Answer with an HTML page and do nothing: a proxy's own error page, or with 200 a login page.
    Page {
        /// HTTP status.
        #[serde(default = "ok")]
        status: u16,
    },
    /// Close the connection and do nothing.
    DropBefore,
    /// Carry out the request, then close the connection without an answer.
    DropAfter,
    /// Carry out the request, then answer 500.
    FailAfter,
    /// Carry out the request, then answer 200 with a body that is neither JSON nor git's format.
    Garbage,
    /// Carry out the request, then send the head and half of the body, and close.
    HalfBody,
    /// Wait, then continue as usual.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Carry out the request, then wait before answering.
    DelayAfter {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Before the request is answered as usual, make other calls, so that the requested thing has changed
    /// meanwhile.
    Meanwhile {
        /// The calls, in order.
        errands: Vec<Errand>,
    },
}

impl ApiFaultKind {
    /// Whether the fault takes effect only after the request was carried out.
    pub(super) fn comes_after(&self) -> bool {
        match self {
            Self::DropAfter | Self::FailAfter | Self::Garbage | Self::HalfBody | Self::DelayAfter { .. } => true,
            Self::Refuse { .. }
            | Self::Redirect { .. }
            | Self::Page { .. }
            | Self::DropBefore
            | Self::Delay { .. }
            | Self::Meanwhile { .. } => false,
        }
    }
}

fn ok() -> u16 {
    200
}

/// A call that the stand-in makes to itself on behalf of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errand {
    /// Login of the account that makes the call; `forgeadmin` if none is given.
    #[serde(default)]
    pub by: Option<String>,
    /// `PATCH`, …
    pub method: String,
    /// Path below `/api/v1`, with its query.
    pub path: String,
    /// The body.
    #[serde(default)]
    pub body: Value,
    /// Send no deliveries for it, as if they were lost.
    #[serde(default)]
    pub quietly: bool,
    /// Let it happen within the second in which the comment or issue was created, so that `updated_at` stays equal
    /// to `created_at`. Only for edits of those.
    #[serde(default)]
    pub in_its_first_second: bool,
}

/// Restricts the requests that a fault applies to, in addition to method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// `/api/…`.
    Api,
    /// Git's requests: `info/refs`, `git-upload-pack`, `git-receive-pack`.
    Git,
}

/// A fault for requests to the API or from git, selected by method and path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiFault {
    /// Only this method; any if not given.
    #[serde(default)]
    pub method: Option<String>,
    /// A regular expression that must match somewhere in path and query. For git, `/git-receive-pack$` matches only
    /// the push; `git-receive-pack$` also matches the request before it (`info/refs?service=git-receive-pack`).
    pub path: String,
    /// Only requests of the account with this login. Clients send credentials only if they are asked for them: git
    /// does not when it reads a public repository.
    #[serde(default)]
    pub who: Option<String>,
    /// Only the API's or only git's requests; both if not given.
    #[serde(default)]
    pub on: Option<Surface>,
    /// Let so many matching requests pass first.
    #[serde(default)]
    pub skip: u32,
    /// How often it takes effect; always if not given.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub kind: ApiFaultKind,
}

impl ApiFault {
    /// A fault for `times` requests of `method` whose path matches `path`.
    pub fn new(method: &str, path: &str, times: u32, kind: ApiFaultKind) -> Self {
        Self {
            method: Some(method.to_owned()),
            path: path.to_owned(),
            who: None,
            on: None,
            skip: 0,
            times: Some(times),
            kind,
        }
    }
}

/// The body of `POST /_standin/faults`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultOrder {
    /// Replaces the present faults of deliveries.
    pub webhooks: Option<WebhookFaults>,
    /// Added to the present faults of requests.
    pub api: Vec<ApiFault>,
}

struct Armed {
    fault: ApiFault,
    path: Regex,
}

#[derive(Default)]
struct Inner {
    webhooks: WebhookFaults,
    api: Vec<Armed>,
    failed: Vec<String>,
}

/// The faults of one stand-in. All clones share the same set.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
    /// Counts changes, so that held deliveries can be released.
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { inner: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the faults of deliveries from now on.
    pub fn webhooks(&self, change: impl FnOnce(&mut WebhookFaults)) {
        change(&mut self.lock().webhooks);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Errands that were refused. A test should check this, because a test whose errand failed tests nothing.
    pub fn failed_errands(&self) -> Vec<String> {
        self.lock().failed.clone()
    }

    pub(super) fn errand_failed(&self, what: String) {
        self.lock().failed.push(what);
    }

    /// Notifies when the faults of deliveries may have changed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The present faults of deliveries for those that were held back and are released; `None` if they must stay
    /// held.
    pub(super) fn for_held(&self) -> Option<WebhookFaults> {
        let inner = self.lock();
        let stays = inner.webhooks.hold || inner.webhooks.shuffle > 1;
        (!stays).then(|| inner.webhooks.clone())
    }

    /// Adds a fault for requests. Of several that match, the one that was added first takes effect.
    ///
    /// # Errors
    /// If `path` is not a regular expression.
    pub fn api(&self, fault: ApiFault) -> Result<(), regex::Error> {
        let path = Regex::new(&fault.path)?;
        self.lock().api.push(Armed { fault, path });
        Ok(())
    }

    /// Applies an order that came over HTTP, or nothing of it if one expression is invalid.
    ///
    /// # Errors
    /// If a path is not a regular expression.
    pub fn apply(&self, order: FaultOrder) -> Result<(), regex::Error> {
        let armed = order
            .api
            .into_iter()
            .map(|fault| Regex::new(&fault.path).map(|path| Armed { fault, path }))
            .collect::<Result<Vec<_>, _>>()?;
        let mut inner = self.lock();
        if let Some(webhooks) = order.webhooks {
            inner.webhooks = webhooks;
        }
        inner.api.extend(armed);
        drop(inner);
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Removes all faults. The list of failed errands stays.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.webhooks = WebhookFaults::default();
        inner.api.clear();
        drop(inner);
        self.changes.send_modify(|n| *n += 1);
    }

    /// The present faults of deliveries. Each call is for one delivery and uses up one of `drop_next`; the second
    /// value says whether it did.
    pub(super) fn for_delivery(&self) -> (WebhookFaults, bool) {
        let mut inner = self.lock();
        let now = inner.webhooks.clone();
        let lost = now.drop_all || now.drop_next > 0;
        inner.webhooks.drop_next = now.drop_next.saturating_sub(1);
        (now, lost)
    }

    pub(super) fn for_request(&self, on: Surface, method: &str, path: &str, who: &str) -> Option<ApiFaultKind> {
        let mut inner = self.lock();
        for armed in &mut inner.api {
            let fault = &mut armed.fault;
            if fault.times == Some(0)
                || fault.on.is_some_and(|surface| surface != on)
                || fault.method.as_deref().is_some_and(|m| !m.eq_ignore_ascii_case(method))
                || fault.who.as_deref().is_some_and(|w| w != who)
                || !armed.path.is_match(path)
            {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            return Some(fault.kind.clone());
        }
        None
    }
}
