//! Knocking at the webhook's door by hand: signed and badly signed deliveries,
//! and a listening post that records what the forge itself sends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Lower-case hex of the HMAC-SHA256 of `body`.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key length will do");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `X-Gitea-Event`.
    pub event: String,
    /// `X-Gitea-Event-Type`.
    pub event_type: String,
    /// The raw body.
    pub body: Vec<u8>,
}

impl Delivery {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the forge sends JSON")
    }

    /// A request to the webhook at `url` with this body and a delivery id of
    /// its own, not signed yet.
    pub fn unsigned(&self, client: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
        let id = uuid::Uuid::now_v7().to_string();
        client
            .post(url)
            .header("Content-Type", "application/json")
            .header("X-Gitea-Delivery", &id)
            .header("X-Gitea-Event", &self.event)
            .header("X-Gitea-Event-Type", &self.event_type)
            .body(self.body.clone())
    }

    /// The same, signed as the forge signs.
    pub fn signed(&self, client: &reqwest::Client, url: &str, secret: &str) -> reqwest::RequestBuilder {
        let hex = signature(secret, &self.body);
        self.unsigned(client, url)
            .header("X-Hub-Signature-256", format!("sha256={hex}"))
            .header("X-Gogs-Signature", hex.clone())
            .header("X-Gitea-Signature", hex)
    }
}

/// A receiver of webhooks that only writes down.
pub struct ListeningPost {
    /// What to give the forge as the hook's address.
    pub url: String,
    heard: Arc<Mutex<Vec<Delivery>>>,
    task: tokio::task::JoinHandle<()>,
}

impl ListeningPost {
    /// Starts one on a free port of loopback.
    pub async fn start() -> Self {
        let heard: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let router = Router::new().fallback(hear).with_state(heard.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/heard", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router.layer(axum::extract::DefaultBodyLimit::disable())).await;
        });
        Self { url, heard, task }
    }

    /// What was heard so far, in the order of arrival.
    pub fn heard(&self) -> Vec<Delivery> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits for a delivery that `matches`.
    pub async fn wait_for(&self, what: &str, matches: impl Fn(&Delivery) -> bool) -> Delivery {
        for _ in 0..600 {
            if let Some(delivery) = self.heard().into_iter().find(|delivery| matches(delivery)) {
                return delivery;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "the forge did not send {what}; it sent {:?}",
            self.heard().iter().map(|d| &d.event).collect::<Vec<_>>()
        );
    }
}

impl Drop for ListeningPost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hear(State(heard): State<Arc<Mutex<Vec<Delivery>>>>, headers: HeaderMap, body: Bytes) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let delivery =
        Delivery { event: header("X-Gitea-Event"), event_type: header("X-Gitea-Event-Type"), body: body.to_vec() };
    heard.lock().unwrap().push(delivery);
}
