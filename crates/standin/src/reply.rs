//! Answers, including the forge's errors.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Flavour;
use super::shapes::go_escapes;

const JSON: &str = "application/json;charset=utf-8";

/// A complete answer.
#[derive(Clone)]
pub(super) struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// The result of a handler. Both variants are answers; `Err` only returns early.
pub(super) type Answer = Result<Reply, Reply>;

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let text = go_escapes(serde_json::to_string(body).unwrap_or_default()) + "\n";
        Self { status, content_type: JSON, headers: vec![], body: Bytes::from(text) }
    }

    /// A part of a list (offset, limit), with the count of all items.
    pub(super) fn part(all: &[Value], (offset, limit): (usize, usize)) -> Self {
        let shown: Vec<Value> = all.iter().skip(offset).take(limit).cloned().collect();
        Self::json(200, &Value::Array(shown)).with("X-Total-Count", all.len())
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, content_type: "", headers: vec![], body: Bytes::new() }
    }

    pub(super) fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: vec![], body: Bytes::from(text.into()) }
    }

    /// An HTML page such as proxies answer with.
    pub(super) fn page(status: u16) -> Self {
        let title = match status {
            200 => "Sign in",
            413 => "413 Request Entity Too Large",
            502 => "502 Bad Gateway",
            503 => "503 Service Temporarily Unavailable",
            _ => "This page was made on purpose",
        };
        let body = format!(
            "<!DOCTYPE html>\n<html>\n<head><title>{title}</title></head>\n<body><h1>{title}</h1></body>\n</html>\n"
        );
        Self { status, content_type: "text/html; charset=utf-8", headers: vec![], body: Bytes::from(body) }
    }

    /// Only requests that read also get a body in HTML (Go's `http.Redirect`).
    pub(super) fn redirect(method: &str, status: u16, location: String) -> Self {
        if !matches!(method, "GET" | "HEAD") {
            return Self::empty(status).with("Location", location);
        }
        let words = match status {
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            308 => "Permanent Redirect",
            _ => "Temporary Redirect",
        };
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            // A quote must not end the attribute.
            body: Bytes::from(format!(
                "<a href=\"{}\">{words}</a>.\n\n",
                location.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;").replace('>', "&gt;")
            )),
            headers: vec![("Location", location)],
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if !self.content_type.is_empty() {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// The forge's errors, worded as by one flavour.
#[derive(Clone)]
pub(super) struct Refusals {
    pub flavour: Flavour,
    pub root_url: String,
}

impl Refusals {
    /// An error with a message.
    pub(super) fn say(&self, status: u16, message: impl Into<String>) -> Reply {
        let message: String = message.into();
        Reply::json(status, &json!({"message": message, "url": self.help()}))
    }

    pub(super) fn help(&self) -> String {
        format!("{}/api/swagger", self.root_url)
    }

    pub(super) fn not_found(&self) -> Reply {
        self.not_found_because(None)
    }

    pub(super) fn not_found_because(&self, reason: Option<String>) -> Reply {
        let body = match self.flavour {
            Flavour::Gitea => json!({
                "errors": reason.map(|r| vec![r]), "message": "not found", "url": self.help(),
            }),
            Flavour::Forgejo => json!({
                "message": "The target couldn't be found.", "url": self.help(),
                "errors": reason.map(|r| vec![r]).unwrap_or_default(),
            }),
        };
        Reply::json(404, &body)
    }

    /// Something that a path names does not exist, in the words of the function that looked for it.
    pub(super) fn no_such(&self, what: &str, error: String) -> Reply {
        Reply::json(404, &json!({"errors": [error], "message": what, "url": self.help()}))
    }

    /// The issue that a request is about does not exist: a bare 500 on Gitea.
    pub(super) fn no_issue(&self, repo: i64, index: i64) -> Reply {
        match self.flavour {
            Flavour::Gitea => self.say(500, ""),
            Flavour::Forgejo => Reply::json(
                404,
                &json!({
                    "message": "IsErrIssueNotExist", "url": self.help(),
                    "errors": [format!("issue does not exist [id: 0, repo_id: {repo}, index: {index}]")],
                }),
            ),
        }
    }

    /// The caller was blocked by the owner of the issue or repository.
    pub(super) fn blocked(&self) -> Reply {
        self.say(
            403,
            match self.flavour {
                Flavour::Gitea => "user is blocked",
                Flavour::Forgejo => "user is blocked by the poster or repository owner",
            },
        )
    }

    pub(super) fn no_user(&self, name: &str) -> Reply {
        self.say(404, format!("user does not exist [uid: 0, name: {name}]"))
    }

    pub(super) fn internal(&self, error: &anyhow::Error) -> Reply {
        tracing::warn!(error = %format!("{error:#}"), "the stand-in forge failed");
        self.say(500, "")
    }
}
