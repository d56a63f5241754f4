//! The forge's HTTP surface as people and their browsers use it: one call, one
//! answer, nothing hidden. It shares no code with the client under test.

use std::time::Duration;

use serde_json::Value;

/// Who makes a call.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// Nobody in particular.
    Nobody,
    /// The owner of an access token.
    Token(&'a str),
    /// A person with a password; only for making tokens.
    Password(&'a str, &'a str),
}

/// An address and a connection pool.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

/// What came back.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers; for sign-in cookies and redirects.
    pub headers: reqwest::header::HeaderMap,
    /// The body, whole.
    pub body: Vec<u8>,
    call: String,
}

impl Reply {
    /// The body as JSON; `Null` where there is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails the test unless the status is one of `allowed`: set-up that does
    /// not work must not look like a defect of Lazarus.
    #[track_caller]
    pub fn expect(self, allowed: &[u16]) -> Self {
        assert!(
            allowed.contains(&self.status),
            "the forge answered {} to {}, expected one of {allowed:?}:\n{}",
            self.status,
            self.call,
            self.text().chars().take(2000).collect::<String>()
        );
        self
    }
}

impl Http {
    /// A client for the server at `base` (scheme, host, port; no path).
    pub fn new(base: &str) -> Self {
        // reqwest wants a TLS provider even for plain HTTP; a second install is a no-op.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .build()
            .expect("an HTTP client");
        Self { base: base.trim_end_matches('/').to_owned(), client }
    }

    /// The address it was made for.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The connection pool, for calls of an unusual shape.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// One API call; `path` is below `/api/v1`.
    pub async fn api(&self, auth: Auth<'_>, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.call(auth, method, &format!("/api/v1{path}"), body).await
    }

    /// One call; `path` is below the server's root.
    pub async fn call(&self, auth: Auth<'_>, method: &str, path: &str, body: Option<Value>) -> Reply {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method.parse().expect("an HTTP method"), &url);
        request = match auth {
            Auth::Nobody => request,
            Auth::Token(token) => request.header("Authorization", format!("token {token}")),
            Auth::Password(login, password) => request.basic_auth(login, Some(password)),
        };
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request, format!("{method} {path}")).await
    }

    /// Sends a prepared request and reads the whole answer.
    pub async fn send(&self, request: reqwest::RequestBuilder, call: &str) -> Reply {
        read(request, call.to_owned()).await
    }
}

async fn read(request: reqwest::RequestBuilder, call: String) -> Reply {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => panic!("no answer to {call}: {error:?}"),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = match response.bytes().await {
        Ok(body) => body.to_vec(),
        Err(error) => panic!("half an answer to {call}: {error:?}"),
    };
    Reply { status, headers, body, call }
}
