//! One delivery: read within bounds, verified, then parsed, then stored, and
//! only then acknowledged.

use super::{Door, READ_TIMEOUT};
use crate::gitea::webhook::{VerifiedDelivery, verify};
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// A delivery whose signature fits. No handler can see another.
pub struct Delivery(VerifiedDelivery);

/// Why a delivery is not taken, as the forge's page of deliveries shows it.
pub struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl FromRequest<Door> for Delivery {
    type Rejection = Refused;

    async fn from_request(request: Request, door: &Door) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        // Whoever cannot even claim a signature has nothing read.
        if !SIGNATURES.iter().any(|name| parts.headers.contains_key(*name)) {
            return Err(Refused(StatusCode::UNAUTHORIZED, "the delivery is not signed".to_owned()));
        }
        let (body, _held) = read(body, door).await?;
        verify(&parts.headers, &body, &door.secrets)
            .map(Self)
            .map_err(|rejection| Refused(rejection.status(), rejection.to_string()))
    }
}

/// Any of them says that a delivery is signed; `verify` looks at all.
const SIGNATURES: [&str; 4] = ["x-gitea-signature", "x-forgejo-signature", "x-gogs-signature", "x-hub-signature-256"];
/// How much of a body that is too long is read before it is answered: a sender
/// that is cut off in the middle of writing never sees the answer.
const DRAINED_MAX: usize = 64 * 1024 * 1024;

async fn read(body: Body, door: &Door) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Refused> {
    let mut bytes = vec![];
    let mut held = vec![];
    let mut length = 0usize;
    let mut body = body;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ())?.into_data() else { continue };
            length += data.len();
            if length > DRAINED_MAX {
                break;
            }
            if length > door.body_max {
                bytes = vec![];
                held.clear();
                continue;
            }
            let kib = u32::try_from(data.len() / 1024 + 1).unwrap_or(1);
            held.push(Arc::clone(&door.buffered).acquire_many_owned(kib).await.map_err(|_| ())?);
            bytes.extend_from_slice(&data);
        }
        Ok::<(), ()>(())
    };
    let outcome = tokio::time::timeout(READ_TIMEOUT, reading).await;
    if length > door.body_max {
        // It is not lost: the reconciler fetches what it was about.
        door.engine.look_now();
        let text = format!("a delivery may have {} bytes; this is fetched by polling instead", door.body_max);
        return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    match outcome {
        Err(_) => Err(Refused(StatusCode::REQUEST_TIMEOUT, "the delivery took too long to arrive".to_owned())),
        Ok(Err(())) => Err(Refused(StatusCode::BAD_REQUEST, "the delivery broke off".to_owned())),
        Ok(Ok(())) => Ok((bytes, held)),
    }
}

/// Stores a delivery, then answers.
pub async fn receive(State(door): State<Door>, Delivery(delivery): Delivery) -> Result<StatusCode, Refused> {
    let event = delivery.event().map_err(|bad| Refused(bad.status(), bad.to_string()))?;
    let repo = event.repo();
    let engine = &door.engine;
    let served = engine.context.repo(repo.id).is_some()
        // Before the forge told us numbers, the name has to do; afterwards a
        // name that somebody else took does not.
        || (!engine.is_ready() && engine.context.config.repository(&repo.full_name()).is_some());
    if !served {
        return Err(Refused(
            StatusCode::FORBIDDEN,
            format!("this Lazarus does not serve {}; see [[repositories]] in its configuration", repo.full_name()),
        ));
    }
    match engine.take_in(event).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error) => {
            tracing::error!(%error, "a delivery could not be stored; it is not acknowledged");
            engine.look_now();
            Err(Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "it could not be stored; it is fetched by polling later".to_owned(),
            ))
        }
    }
}
