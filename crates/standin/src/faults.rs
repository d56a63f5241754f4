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
    /// Hold back so many deliveries, then send them in another order; and
    /// again. Held deliveries do not count for `wait_for_deliveries_idle`.
    /// Setting it to 0 lets go of what is held.
    pub shuffle: usize,
    /// Hold back every delivery until this is off again; then all are sent, in
    /// their order. Held deliveries do not count for `wait_for_deliveries_idle`.
    pub hold: bool,
    /// Behave like a forge with the default `ALLOWED_HOST_LIST`: nothing is
    /// sent to a private or loopback address, and only the hook's page says so.
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
    /// Send the caller elsewhere and do nothing.
    Redirect {
        /// HTTP status: 301, 302, 303, 307, 308.
        status: u16,
        /// `Location`; `{path}` in it stands for the path and query asked for.
        location: String,
    },
    /// Answer with a page of HTML and do nothing: a proxy's own error page, or
    /// with 200 the page on which one signs in.
    Page {
        /// HTTP status.
        #[serde(default = "ok")]
        status: u16,
    },
    /// Close the connection and do nothing.
    DropBefore,
    /// Do it, then close the connection without an answer.
    DropAfter,
    /// Do it, then answer 500.
    FailAfter,
    /// Do it, then answer 200 with a body that is not JSON (nor git's).
    Garbage,
    /// Do it, then send the head and half of the body and close.
    HalfBody,
    /// Wait, then go on as usual.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Do it, then wait before answering.
    DelayAfter {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Before the request is answered as usual, somebody else does something:
    /// what is asked for is no longer what it was a moment ago.
    Meanwhile {
        /// What is done, in this order.
        errands: Vec<Errand>,
    },
}

impl ApiFaultKind {
    /// Whether it strikes only when what was asked for is done.
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
    /// Whose, by login; nobody named is `forgeadmin`.
    #[serde(default)]
    pub by: Option<String>,
    /// `PATCH`, …
    pub method: String,
    /// Path below `/api/v1`, with its query.
    pub path: String,
    /// The body.
    #[serde(default)]
    pub body: Value,
    /// No hook hears of it, as if its delivery were lost.
    #[serde(default)]
    pub quietly: bool,
    /// It happens within the second in which the comment or issue was made:
    /// `updated_at` stays `created_at`. Only for edits of those.
    #[serde(default)]
    pub in_its_first_second: bool,
}

/// Restricts the requests that a fault applies to, in addition to method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// `/api/…`.
    Api,
    /// What git asks for: `info/refs`, `git-upload-pack`, `git-receive-pack`.
    Git,
}

/// A fault for requests to the API or from git, selected by method and path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiFault {
    /// Only this method; none is any.
    #[serde(default)]
    pub method: Option<String>,
    /// A regular expression that must match somewhere in path and query. For
    /// git, `/git-receive-pack$` is the push alone; `git-receive-pack$` is also
    /// the question before it (`info/refs?service=git-receive-pack`).
    pub path: String,
    /// Only requests of this account, by its login. Nobody signs in where it is
    /// not asked for: git does not to read a public repository.
    #[serde(default)]
    pub who: Option<String>,
    /// Only the API's or only git's requests; none is all.
    #[serde(default)]
    pub on: Option<Surface>,
    /// Let so many matching requests pass first.
    #[serde(default)]
    pub skip: u32,
    /// How often it strikes; none is always.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub kind: ApiFaultKind,
}

impl ApiFault {
    /// Strikes `times` requests of `method` whose path matches `path`.
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
    /// Takes the place of what was set before.
    pub webhooks: Option<WebhookFaults>,
    /// Added to what was set before.
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
    /// Counts the changes, so that what is held can be let go.
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

    /// Changes what is done to deliveries from now on.
    pub fn webhooks(&self, change: impl FnOnce(&mut WebhookFaults)) {
        change(&mut self.lock().webhooks);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Errands that were refused: a test whose errand fails tests nothing.
    pub fn failed_errands(&self) -> Vec<String> {
        self.lock().failed.clone()
    }

    pub(super) fn errand_failed(&self, what: String) {
        self.lock().failed.push(what);
    }

    /// Says when the faults for deliveries may have changed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The present faults for deliveries that were held back and are let go;
    /// `None` where they have to stay.
    pub(super) fn for_held(&self) -> Option<WebhookFaults> {
        let inner = self.lock();
        let stays = inner.webhooks.hold || inner.webhooks.shuffle > 1;
        (!stays).then(|| inner.webhooks.clone())
    }

    /// Adds a fault for API requests. The first that matches strikes, in the
    /// order in which they were added.
    ///
    /// # Errors
    /// If `path` is not a regular expression.
    pub fn api(&self, fault: ApiFault) -> Result<(), regex::Error> {
        let path = Regex::new(&fault.path)?;
        self.lock().api.push(Armed { fault, path });
        Ok(())
    }

    /// Applies an order as it comes over HTTP; nothing of it if one
    /// expression is wrong.
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

    /// No more faults. What is known of failed errands stays.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.webhooks = WebhookFaults::default();
        inner.api.clear();
        drop(inner);
        self.changes.send_modify(|n| *n += 1);
    }

    /// The present faults for deliveries; a `drop_next` is used up by asking
    /// for one delivery, which the second value says.
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
