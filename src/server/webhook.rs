//! One delivery: read within bounds, verified, then parsed, then stored, and
//! only then acknowledged.

use super::{Door, READ_TIMEOUT};
use crate::gitea::webhook::{VerifiedDelivery, verify};
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

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
        let _place = door
            .reading
            .acquire()
            .await
            .map_err(|_| Refused(StatusCode::SERVICE_UNAVAILABLE, "shutting down".to_owned()))?;
        let body = read(body, door).await?;
        verify(&parts.headers, &body, &door.secrets)
            .map(Self)
            .map_err(|rejection| Refused(rejection.status(), rejection.to_string()))
    }
}

async fn read(body: Body, door: &Door) -> Result<axum::body::Bytes, Refused> {
    let limited = Limited::new(body, door.body_max);
    match tokio::time::timeout(READ_TIMEOUT, limited.collect()).await {
        Err(_) => Err(Refused(StatusCode::REQUEST_TIMEOUT, "the delivery took too long to arrive".to_owned())),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => {
            let too_long = error.downcast_ref::<LengthLimitError>().is_some()
                || error.source().is_some_and(|s| s.downcast_ref::<LengthLimitError>().is_some());
            if too_long {
                // It is not lost: the reconciler fetches what it was about.
                door.engine.look_now();
                let text = format!("a delivery may have {} bytes; this is fetched by polling instead", door.body_max);
                return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            Err(Refused(StatusCode::BAD_REQUEST, "the delivery broke off".to_owned()))
        }
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
