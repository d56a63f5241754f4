//! One delivery: read within limits, verified, parsed, stored, and only then acknowledged.
//!
//! Until its signature is verified, anybody may have sent it. So until then it may cost only memory that is
//! released again, the time to read it, and now and then a request to the forge.

use super::crowd::{SeenTo, Visitor};
use super::{HEAD_START, READ_TIMEOUT, STALL_MAX, WebhookState};
use crate::gitea::HookOwner;
use crate::gitea::webhook::{Rejection, VerifiedDelivery, claims_signature};
use crate::pace::{Key, Pace};
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A delivery with a valid signature. Handlers never see any other.
pub struct Delivery {
    verified: VerifiedDelivery,
    _seen_to: SeenTo,
}

/// Why a delivery is refused, as the forge's page of deliveries shows it.
pub struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        if self.0 == StatusCode::PAYLOAD_TOO_LARGE || self.0 == StatusCode::REQUEST_TIMEOUT {
            // Part of the body was not read.
            response.headers_mut().insert(CONNECTION, axum::http::HeaderValue::from_static("close"));
        }
        response
    }
}

impl FromRequest<WebhookState> for Delivery {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &WebhookState) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        // If there is no signature at all, the body is not read.
        if !claims_signature(&parts.headers) {
            return Err(Refused(StatusCode::UNAUTHORIZED, "the delivery is not signed".to_owned()));
        }
        let visitor = parts.extensions.get::<Arc<Visitor>>().cloned().ok_or_else(no_room)?;
        let body = read(body, state, &visitor).await?;
        let seen_to = visitor.is_seen_to().map_err(|_| no_room())?;
        match state.keys.verify(&parts.headers, &body) {
            Ok(verified) => Ok(Self { verified, _seen_to: seen_to }),
            Err(rejection) => {
                state.complain(&visitor, &rejection);
                Err(Refused(rejection.status(), words(&rejection)))
            }
        }
    }
}

/// Most bytes that are read of a body that is too long, before it is answered.
const DRAINED_MAX: usize = 64 * 1024 * 1024;
/// How long a delivery waits, right after the daemon's start, until the forge has told us which repositories are
/// served. The forge gives up after 5 s.
const NUMBERS_WAIT: Duration = Duration::from_secs(3);

fn no_room() -> Refused {
    let text = "too many deliveries are being read at once; what this one is about is fetched by polling";
    Refused(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
}

/// Why reading the body ended.
enum End {
    Whole(Vec<u8>),
    TooLarge,
    TooSlow,
    BrokeOff,
    NoRoom,
}

async fn read(body: Body, state: &WebhookState, visitor: &Visitor) -> Result<Vec<u8>, Refused> {
    visitor.reads();
    let end = read_on(body, state, visitor).await;
    // An unverified delivery proves nothing. We fetch what it may have been about, but only at a limited rate.
    if !matches!(end, End::Whole(_)) {
        state.engine.look_soon();
    }
    match end {
        End::Whole(bytes) => Ok(bytes),
        End::TooLarge => {
            let text = format!(
                "a delivery may have {} bytes (webhook.max_body_bytes); what this one is about is fetched by polling",
                state.body_max
            );
            Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        End::TooSlow => {
            let text = "the delivery took too long to arrive; what it is about is fetched by polling";
            Err(Refused(StatusCode::REQUEST_TIMEOUT, text.to_owned()))
        }
        End::BrokeOff => Err(Refused(StatusCode::BAD_REQUEST, "the delivery broke off".to_owned())),
        End::NoRoom => Err(no_room()),
    }
}

async fn read_on(mut body: Body, state: &WebhookState, visitor: &Visitor) -> End {
    let started = Instant::now();
    let expected = usize::try_from(hyper::body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    let mut too_large = expected > state.body_max;
    if too_large && (expected > DRAINED_MAX || !state.may_drain(visitor, expected)) {
        return End::TooLarge;
    }
    let mut bytes = vec![];
    let mut length = 0usize;
    loop {
        let left = READ_TIMEOUT.saturating_sub(started.elapsed()).min(STALL_MAX);
        let Ok(frame) = tokio::time::timeout(left, body.frame()).await else {
            return if too_large { End::TooLarge } else { End::TooSlow };
        };
        let data = match frame {
            None if too_large => return End::TooLarge,
            None => return End::Whole(bytes),
            Some(Err(_)) => return End::BrokeOff,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
        };
        length += data.len();
        if too_slow(length, expected, started.elapsed()) {
            return if too_large { End::TooLarge } else { End::TooSlow };
        }
        if length > state.body_max {
            if !too_large {
                too_large = true;
                bytes = vec![];
                // Its bytes were released, so it cannot be chosen to be closed because of them.
                if visitor.holds(0).is_err() {
                    return End::NoRoom;
                }
                if !state.may_drain(visitor, DRAINED_MAX) {
                    return End::TooLarge;
                }
            }
            if length > DRAINED_MAX {
                return End::TooLarge;
            }
            continue;
        }
        if too_large {
            continue;
        }
        if visitor.holds(length).is_err() {
            return End::NoRoom;
        }
        bytes.extend_from_slice(&data);
    }
}

/// Whether a body is behind one that arrives evenly within the time that the forge allows.
fn too_slow(length: usize, expected: usize, elapsed: Duration) -> bool {
    let late = elapsed.saturating_sub(HEAD_START).as_secs_f64();
    (length as f64) < expected as f64 * late / READ_TIMEOUT.saturating_sub(HEAD_START).as_secs_f64()
}

impl WebhookState {
    fn may_drain(&self, visitor: &Visitor, bytes: usize) -> bool {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.ask(&self.drained, Key::Source(visitor.source), mib)
    }

    fn ask(&self, pace: &Mutex<Pace>, key: Key, cost: u32) -> bool {
        let now = self.engine.now().0;
        pace.lock().unwrap_or_else(PoisonError::into_inner).ask(key, cost, now).allowed()
    }

    /// Logs a refused delivery, at a limited rate.
    fn complain(&self, visitor: &Visitor, rejection: &Rejection) {
        let (key, what) = match rejection {
            Rejection::MasterSecret { repository } => match self.engine.context.repo(*repository) {
                Some(known) => (Key::Repository(*repository), known.reference.full_name()),
                None => (Key::Source(visitor.source), format!("the repository with the number {repository}")),
            },
            _ => (Key::Source(visitor.source), visitor.source.to_string()),
        };
        if self.ask(&self.complaints, key, 1) {
            tracing::warn!(
                from = what,
                why = words(rejection),
                "a delivery was refused; what is missed is found by polling"
            );
        }
    }
}

/// The refusal, with what an operator can do about it.
fn words(rejection: &Rejection) -> String {
    let advice = match rejection {
        Rejection::NoSecret => ": set webhook.secret_file",
        Rejection::WrongSignature => ": run `lazarus init` for it, which makes the webhook again",
        Rejection::MasterSecret { .. } => {
            ": run `lazarus init` for this repository, which makes the webhook again; until then it is polled"
        }
        _ => "",
    };
    format!("{rejection}{advice}")
}

/// Stores a delivery, then acknowledges it.
pub async fn receive(State(state): State<WebhookState>, delivery: Delivery) -> Result<StatusCode, Refused> {
    let event = delivery.verified.event().map_err(|bad| Refused(bad.status(), bad.to_string()))?;
    let repo = event.repo();
    let engine = &state.engine;
    // Looked up by its number, because the name may belong to anybody by now.
    let Some(known) = engine.serves(repo.id, NUMBERS_WAIT).await else {
        return Err(if engine.knows_all() {
            let name = repo.full_name();
            let text = format!("this Lazarus does not serve {name}; see [[repositories]] in its configuration");
            Refused(StatusCode::FORBIDDEN, text)
        } else {
            let text = "it is not known yet which repositories are served (see `lazarus doctor`); what this delivery is \
                        about is found by polling then";
            Refused(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        });
    };
    if let Some(HookOwner::Organisation(id)) = delivery.verified.signed_for()
        && known.owner != Some(id)
    {
        let text = format!(
            "the secret of this delivery belongs to the organisation with the number {id}, which does not own {}",
            known.reference.full_name()
        );
        return Err(Refused(StatusCode::FORBIDDEN, text));
    }
    match engine.take_in(event).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error) => {
            tracing::error!(%error, "a delivery could not be stored; it is not acknowledged");
            engine.poll_now();
            Err(Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "it could not be stored; it is fetched by polling later".to_owned(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_an_operator_can_mend_says_how() {
        let text = words(&Rejection::WrongSignature);
        assert!(text.ends_with("(or to its organisation): run `lazarus init` for it, which makes the webhook again"));
        assert!(words(&Rejection::MasterSecret { repository: 1 }).contains("counts for nothing: run `lazarus init`"));
        assert!(words(&Rejection::NoSecret).ends_with("can be trusted: set webhook.secret_file"));
        assert_eq!(words(&Rejection::BadForm), Rejection::BadForm.to_string(), "that one is the forge's");
    }

    #[test]
    fn a_body_must_keep_up_with_the_time_that_the_forge_allows() {
        let after = Duration::from_secs_f32;
        assert!(!too_slow(1, 8 << 20, after(0.9)), "anybody has a second");
        assert!(too_slow(1, 8 << 20, after(1.5)));
        assert!(!too_slow(2 << 20, 8 << 20, after(1.9)), "in time for 5 s");
        assert!(too_slow(5_999, 6_000, after(5.1)));
        assert!(!too_slow(10, 0, after(4.9)), "of one without a length nothing can be said");
    }
}
