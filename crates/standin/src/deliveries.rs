//! Deliveries to hooks: signed, and sent over real HTTP by several workers. As on the real server, a delivery is
//! attempted once and never retried. Unlike there, faults can be ordered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Flavour;
use super::faults::Faults;
use super::own::unheard;
use super::shapes::go_escapes;
use super::state::{Access, Hook, HookOwner, Id, Repository, State};

/// The real server's time limit for one delivery.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The real server's number of workers.
const SIDE_BY_SIDE: usize = 10;
/// Deliveries that are kept for replays.
const HISTORY: usize = 10_000;

/// One delivery to one hook.
#[derive(Clone)]
pub(super) struct Job {
    pub hook: Hook,
    pub event: &'static str,
    pub event_type: &'static str,
    pub body: Bytes,
    pub id: String,
}

/// The result of a delivery, as the hook's page on a real server shows it.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryRecord {
    /// `X-Gitea-Delivery`.
    pub id: String,
    /// The hook's number.
    pub hook: i64,
    /// `X-Gitea-Event`.
    pub event: &'static str,
    /// `X-Gitea-Event-Type`.
    pub event_type: &'static str,
    /// The receiver's HTTP status, if it answered.
    pub status: Option<u16>,
    /// Why there is no status.
    pub error: Option<String>,
}

/// The queue of deliveries, and what is known about them.
#[derive(Clone)]
pub(super) struct Queue {
    sender: UnboundedSender<Job>,
    pending: Arc<watch::Sender<usize>>,
    history: Arc<Mutex<VecDeque<Job>>>,
    records: Arc<Mutex<VecDeque<DeliveryRecord>>>,
}

impl Queue {
    pub(super) fn new() -> (Self, UnboundedReceiver<Job>) {
        let (sender, receiver) = unbounded_channel();
        let queue =
            Self { sender, pending: Arc::new(watch::Sender::new(0)), history: Arc::default(), records: Arc::default() };
        (queue, receiver)
    }

    pub(super) fn push(&self, job: Job) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(job.clone());
        drop(history);
        self.enqueue(job);
    }

    fn enqueue(&self, job: Job) {
        self.pending.send_modify(|n| *n += 1);
        if self.sender.send(job).is_err() {
            self.settle();
        }
    }

    fn settle(&self) {
        self.pending.send_modify(|n| *n = n.saturating_sub(1));
    }

    /// Sends all deliveries so far once more, each with a new id.
    pub(super) fn replay(&self) -> usize {
        let jobs: Vec<Job> = self.history.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let count = jobs.len();
        for mut job in jobs {
            job.id = new_id();
            self.enqueue(job);
        }
        count
    }

    pub(super) async fn idle(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = pending.wait_for(|n| *n == 0).await;
    }

    pub(super) fn records(&self) -> Vec<DeliveryRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn note(&self, job: &Job, outcome: Result<u16, String>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == HISTORY {
            records.pop_front();
        }
        let (status, error) = match outcome {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        records.push_back(DeliveryRecord {
            id: job.id.clone(),
            hook: job.hook.id,
            event: job.event,
            event_type: job.event_type,
            status,
            error,
        });
    }

    /// Sends deliveries until the other side of the channel is closed.
    pub(super) async fn work(self, mut jobs: UnboundedReceiver<Job>, faults: Faults, flavour: Flavour) {
        // Ignored, because another part of the program may have installed a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .user_agent("Go-http-client/1.1")
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_title_case_headers()
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "the stand-in forge cannot build an HTTP client: no webhook will be delivered");
                return;
            }
        };
        let slots = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let mut running = JoinSet::new();
        let mut held: Vec<Job> = Vec::new();
        let mut reorder = false;
        let mut changes = faults.changes();
        loop {
            while running.try_join_next().is_some() {}
            let (batch, fault, in_order) = tokio::select! {
                job = jobs.recv() => {
                    let Some(job) = job else { break };
                    let (fault, lost) = faults.for_delivery();
                    if lost {
                        self.note(&job, Err("lost on purpose".to_owned()));
                        self.settle();
                        continue;
                    }
                    reorder |= fault.shuffle > 1;
                    held.push(job);
                    if fault.hold || held.len() < fault.shuffle {
                        self.settle();
                        continue;
                    }
                    // What was held has been settled: it counts again before
                    // this job is done, or a waiter would see nothing pending.
                    self.pending.send_modify(|n| *n += held.len() - 1);
                    // One after the other if the order matters, or the workers
                    // undo it.
                    let in_order = fault.shuffle > 1 || held.len() > 1;
                    (&mut held, fault, in_order)
                }
                Ok(()) = changes.changed(), if !held.is_empty() => {
                    let Some(fault) = faults.for_held() else { continue };
                    self.pending.send_modify(|n| *n += held.len());
                    (&mut held, fault, true)
                }
            };
            if std::mem::take(&mut reorder) {
                shuffle(batch);
            }
            for job in std::mem::take(batch) {
                let copies = if fault.double { 2 } else { 1 };
                if copies == 2 {
                    self.pending.send_modify(|n| *n += 1);
                }
                for copy in 0..copies {
                    let mut job = job.clone();
                    if copy > 0 {
                        job.id = new_id();
                    }
                    let (queue, client) = (self.clone(), client.clone());
                    let delay = Duration::from_millis(fault.delay_ms);
                    let deny = fault.deny_hosts;
                    let send = async move {
                        tokio::time::sleep(delay).await;
                        let outcome = deliver(&client, &job, flavour, deny).await;
                        queue.note(&job, outcome);
                        queue.settle();
                    };
                    if in_order {
                        send.await;
                    } else if let Ok(slot) = slots.clone().acquire_owned().await {
                        running.spawn(async move {
                            send.await;
                            drop(slot);
                        });
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }
}

/// Changes the order of the jobs. If there are two or more, the result always differs from the original order.
fn shuffle(jobs: &mut [Job]) {
    let mut seed = [0u8; 8];
    let _ = getrandom::fill(&mut seed);
    let mut random = u64::from_le_bytes(seed);
    jobs.reverse();
    for i in (2..jobs.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Leaves the first place alone: what came last goes first.
        jobs.swap(i, 1 + (random >> 33) as usize % i);
    }
}

pub(super) fn new_id() -> String {
    // Version 7 would sort by time; the real server's ids do not.
    let mut bytes = [0u8; 16];
    let _ = getrandom::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// The characters that Go's `url.QueryEscape` leaves unchanged, besides letters and digits.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

async fn deliver(client: &reqwest::Client, job: &Job, flavour: Flavour, deny: bool) -> Result<u16, String> {
    let url = reqwest::Url::parse(&job.hook.url).map_err(|e| format!("the hook's address {:?}: {e}", job.hook.url))?;
    let loopback = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback()),
        None => false,
    };
    // A stand-in speaks to this machine only, whatever a hook says.
    if deny || !loopback {
        return Err(format!(
            "webhook can only call allowed HTTP servers (check your webhook.ALLOWED_HOST_LIST setting), deny '{}'",
            url.host_str().unwrap_or_default()
        ));
    }
    let (signature, legacy) = if job.hook.secret.is_empty() {
        (String::new(), String::new())
    } else {
        (sign(job.hook.secret.as_bytes(), &job.body), hex::encode(hmac_sha1(job.hook.secret.as_bytes(), &job.body)))
    };
    let (content_type, body) = if job.hook.form_encoded {
        let encoded = percent_encode(&job.body, FORM).to_string().replace(' ', "+");
        ("application/x-www-form-urlencoded", Bytes::from(format!("payload={encoded}")))
    } else {
        ("application/json", job.body.clone())
    };
    let mut request = client.post(url).header("Content-Type", content_type);
    let families: &[&str] = match flavour {
        Flavour::Gitea => &["GitHub", "Gitea", "Gogs"],
        Flavour::Forgejo => &["Forgejo", "GitHub", "Gitea", "Gogs"],
    };
    for family in families {
        request = request
            .header(format!("X-{family}-Delivery"), &job.id)
            .header(format!("X-{family}-Event"), job.event)
            .header(format!("X-{family}-Event-Type"), job.event_type);
        if flavour == Flavour::Gitea && *family != "Gogs" {
            request = request.header(format!("X-{family}-Hook-Installation-Target-Type"), job.hook.owner.word());
        }
        if *family != "GitHub" {
            request = request.header(format!("X-{family}-Signature"), &signature);
        }
    }
    request = request
        .header("X-Hub-Signature", format!("sha1={legacy}"))
        .header("X-Hub-Signature-256", format!("sha256={signature}"));
    if !job.hook.authorization.is_empty() {
        request = request.header("Authorization", &job.hook.authorization);
    }
    match request.body(body).send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(format!("delivery to {}: {error}", job.hook.url)),
    }
}

fn sign(secret: &[u8], body: &[u8]) -> String {
    match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mut mac) => {
            mac.update(body);
            hex::encode(mac.finalize().into_bytes())
        }
        Err(_) => String::new(),
    }
}

/// HMAC-SHA1, only for `X-Hub-Signature`, on which nobody should rely, so it is not worth a dependency.
fn hmac_sha1(secret: &[u8], body: &[u8]) -> [u8; 20] {
    let mut key = [0u8; 64];
    if secret.len() > 64 {
        key[..20].copy_from_slice(&sha1(&[secret]));
    } else {
        key[..secret.len()].copy_from_slice(secret);
    }
    let inner = sha1(&[&key.map(|b| b ^ 0x36), body]);
    sha1(&[&key.map(|b| b ^ 0x5c), &inner])
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut data: Vec<u8> = parts.concat();
    let bits = data.len() as u64 * 8;
    data.push(0x80);
    while data.len() % 64 != 56 {
        data.push(0);
    }
    data.extend(bits.to_be_bytes());
    let mut hash: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    for block in data.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (i, word) in block.chunks_exact(4).enumerate() {
            words[i] = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let mut s = hash;
        for (i, word) in words.iter().enumerate() {
            let (f, k) = match i {
                0..20 => ((s[1] & s[2]) | (!s[1] & s[3]), 0x5A82_7999),
                20..40 => (s[1] ^ s[2] ^ s[3], 0x6ED9_EBA1),
                40..60 => ((s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3]), 0x8F1B_BCDC_u32),
                _ => (s[1] ^ s[2] ^ s[3], 0xCA62_C1D6),
            };
            let mixed = s[0].rotate_left(5).wrapping_add(f).wrapping_add(s[4]).wrapping_add(k).wrapping_add(*word);
            s = [mixed, s[0], s[1].rotate_left(30), s[2], s[3]];
        }
        for (into, add) in hash.iter_mut().zip(s) {
            *into = into.wrapping_add(add);
        }
    }
    let mut out = [0u8; 20];
    for (i, word) in hash.iter().enumerate() {
        out[i * 4..i * 4 + 4].copy_from_slice(&word.to_be_bytes());
    }
    out
}

impl State {
    /// Sends `payload` to every hook that wants it: the repository's, its
    /// organisation's and the system's.
    pub(super) fn fire(&self, repo: Id, event: &'static str, event_type: &'static str, payload: &Value) {
        let Some(owner) = self.repos.get(&repo).map(|r| r.owner).filter(|_| !unheard()) else {
            return;
        };
        let wanted: Vec<&Hook> = self
            .hooks
            .values()
            .filter(|h| match h.owner {
                HookOwner::Repository(id) => id == repo,
                HookOwner::Organization(id) => id == owner,
                HookOwner::System => true,
                HookOwner::Default => false,
            })
            .filter(|h| h.active && h.events.contains(&event_type))
            .collect();
        if wanted.is_empty() {
            return;
        }
        let body = Bytes::from(go_escapes(serde_json::to_string_pretty(payload).unwrap_or_default()));
        for hook in wanted {
            self.deliveries.push(Job { hook: hook.clone(), event, event_type, body: body.clone(), id: new_id() });
        }
    }

    /// The rights that a delivery states for somebody; nobody's for a deleted
    /// account.
    pub(super) fn stated_access(&self, repo: &Repository, account: Id) -> Access {
        if self.accounts.contains_key(&account) { self.access(repo, Some(account)) } else { Access::None }
    }
}

#[cfg(test)]
mod tests {
    use super::{hmac_sha1, sha1};

    #[test]
    fn sha1_and_its_hmac_give_the_published_values() {
        assert_eq!(hex::encode(sha1(&[b"abc"])), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex::encode(hmac_sha1(b"Jefe", b"what do ya want for nothing?")),
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        );
    }
}
