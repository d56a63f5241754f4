//! What goes wrong on purpose: deliveries that are lost, doubled, late or out
//! of order, and answers that never come, come too late or come as rubbish.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regex::Regex;
use serde::{Deserialize, Serialize};

/// What is done to webhook deliveries. All off by default; they combine.
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
    /// Setting it to 0 lets go of what is held with the next delivery.
    pub shuffle: usize,
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
    /// Close the connection and do nothing.
    DropBefore,
    /// Do it, then close the connection without an answer.
    DropAfter,
    /// Do it, then answer 500.
    FailAfter,
    /// Do it, then answer 200 with a body that is not JSON.
    Garbage,
    /// Do it, then send the head and half of the body and close.
    HalfBody,
    /// Wait, then go on as usual.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
}

/// A fault for API requests, by method and path. For git's own requests only
/// those kinds strike that come before anything is done (`Refuse`,
/// `DropBefore`, `Delay`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiFault {
    /// Only this method; none is any.
    #[serde(default)]
    pub method: Option<String>,
    /// A regular expression that must match somewhere in path and query.
    pub path: String,
    /// Only requests of this account, by its login.
    #[serde(default)]
    pub who: Option<String>,
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
        Self { method: Some(method.to_owned()), path: path.to_owned(), who: None, skip: 0, times: Some(times), kind }
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
}

/// The faults of one stand-in; all copies act on the same set.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is done to deliveries from now on.
    pub fn webhooks(&self, change: impl FnOnce(&mut WebhookFaults)) {
        change(&mut self.lock().webhooks);
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
        Ok(())
    }

    /// No more faults.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
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

    pub(super) fn for_request(&self, method: &str, path: &str, who: &str) -> Option<ApiFaultKind> {
        let mut inner = self.lock();
        for armed in &mut inner.api {
            let fault = &mut armed.fault;
            if fault.times == Some(0)
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
