//! Prints what happens on a forge. Give a webhook this program's address and a
//! secret: `WEBHOOK_SECRET=… cargo run -p lazarus-gitea --example receive_webhooks`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use lazarus_gitea::event::ForgeEvent;
use lazarus_gitea::webhook::verify;
use secrecy::SecretString;
use std::env;

async fn receive(State(secret): State<SecretString>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let delivery = match verify(&headers, &body, &[secret]) {
        Ok(delivery) => delivery,
        Err(rejection) => return (rejection.status(), rejection.to_string()),
    };
    match delivery.event() {
        Ok(ForgeEvent::Comment { action, issue, sender, .. }) => {
            println!("{}: a comment on #{} ({action:?})", sender.login, issue.number);
        }
        Ok(ForgeEvent::Issue { action, issue, sender, .. }) => {
            println!("{}: #{} {} ({action:?})", sender.login, issue.number, issue.title);
        }
        Ok(event) => println!("something else in {}", event.repo().full_name()),
        Err(bad) => return (bad.status(), bad.to_string()),
    }
    (StatusCode::NO_CONTENT, String::new())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = env::var("WEBHOOK_SECRET").map_err(|_| "set WEBHOOK_SECRET to the secret of the webhook")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening at http://{}/webhook", listener.local_addr()?);
    let routes = axum::Router::new().route("/webhook", post(receive)).with_state(SecretString::from(secret));
    axum::serve(listener, routes).await?;
    Ok(())
}
