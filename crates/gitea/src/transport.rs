//! One request to the forge and its answer, and the policy for retrying it.
//!
//! This applies to all calls: no redirect is followed (most clients turn a moved POST into a GET), no proxy from
//! the environment is used, the token travels in a header that is marked as sensitive, an answer is read up to a
//! limit and within a time limit, and only calls that do no harm when sent twice are retried.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use super::error::{Call, ForgeError, causes};

/// Attempts for a call that may be retried, including the first.
const TRIES: u32 = 3;

/// First step of the back-off. It doubles each time, with full jitter.
const BACKOFF: Duration = Duration::from_millis(200);

/// Longest wait within one call. An answer that asks for more is returned at once, because the caller's queue can
/// wait without occupying a task.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Most bytes of an error's body that are read.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// How to reach the forge.
#[derive(Clone)]
pub struct ForgeOptions {
    /// The forge's URL, `http` or `https`, with its sub-path if it has one, but without `/api/v1`. It must not
    /// contain a name or password.
    pub url: String,
    /// The bot's token.
    pub token: SecretString,
    /// Time limit for one request including its complete answer. Default: 10 s.
    pub timeout: Duration,
    /// Size limit for one answer, in bytes. Default: 64 MiB, because the comments of an issue come in one answer,
    /// and a single one can have 20 MB.
    pub max_response_bytes: usize,
    /// If set, an answer that something does not exist (404), or that it has moved although its name is right, must
    /// be repeated after this time before it counts. For callers that would act on it: a proxy in front of a
    /// restarting forge gives such answers for a moment. Default: not set.
    pub look_twice: Option<Duration>,
    /// If set, a PEM file with the only certificate authorities that are trusted for the forge. Default: those of
    /// the system.
    pub ca_file: Option<PathBuf>,
    /// If set, the proxy through which the forge is reached, `http` or `https`. Proxies from the environment are
    /// never used.
    pub proxy: Option<String>,
    /// The `User-Agent` header. Default: this library's name and version.
    pub user_agent: String,
}

impl ForgeOptions {
    /// The defaults for this URL and token.
    pub fn new(url: impl Into<String>, token: SecretString) -> Self {
        Self {
            url: url.into(),
            token,
            timeout: Duration::from_secs(10),
            max_response_bytes: 64 * 1024 * 1024,
            look_twice: None,
            ca_file: None,
            proxy: None,
            user_agent: concat!("lazarus-gitea/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl fmt::Debug for ForgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForgeOptions")
            .field("timeout", &self.timeout)
            .field("max_response_bytes", &self.max_response_bytes)
            .field("look_twice", &self.look_twice)
            .field("ca_file", &self.ca_file)
            .field("proxy", &self.proxy)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

/// Whether a call may be sent again after a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Sending it twice has the same effect as sending it once.
    Safe,
    /// Sending it twice would create two things, or undo a newer change.
    Never,
}

/// The body of a request.
#[derive(Clone)]
pub(super) enum Payload {
    /// No body and no content type, as Forgejo's label DELETE requires.
    Nothing,
    /// JSON text.
    Json(Bytes),
    /// One file, as `attachment` of a multipart form.
    File {
        /// Its name.
        name: String,
        /// Its content.
        content: Bytes,
    },
}

/// One request before it is sent. The path is relative to whatever sends it: the API's root, or a repository.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) payload: Payload,
    pub(super) repeat: Repeat,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), payload: Payload::Nothing, repeat: Repeat::Safe }
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// A call with a JSON body.
    pub(super) fn json(method: Method, path: impl Into<String>, body: &serde_json::Value, repeat: Repeat) -> Self {
        Self { method, path: path.into(), payload: Payload::Json(Bytes::from(body.to_string())), repeat }
    }

    /// The same call below another path.
    pub(super) fn below(&self, prefix: &str) -> Self {
        Self { path: format!("{prefix}{}", self.path), ..self.clone() }
    }
}

/// A complete answer with a success status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) call: Call,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Parses the body. Invalid UTF-8 is replaced, as in the forge itself. `serde_json` limits the nesting to 128.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ForgeError> {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).map_err(|error| self.garbage(&error.to_string()))
    }

    /// Parses the body as a list; `null` is an empty one.
    pub(super) fn list<T: DeserializeOwned>(&self) -> Result<Vec<T>, ForgeError> {
        Ok(self.parse::<Option<Vec<T>>>()?.unwrap_or_default())
    }

    pub(super) fn garbage(&self, why: &str) -> ForgeError {
        ForgeError::Garbage {
            call: self.call.clone(),
            status: self.status.as_u16(),
            why: why.chars().filter(|c| !c.is_control()).take(200).collect(),
        }
    }

    /// The value of `X-Total-Count`, if it is a number.
    pub(super) fn total(&self) -> Option<u64> {
        self.headers.get("x-total-count")?.to_str().ok()?.parse().ok()
    }
}

/// Reads the certificates in a file.
fn certificates(file: &Path) -> Result<Vec<reqwest::Certificate>, ForgeError> {
    let wrong =
        |why: String| ForgeError::Options { why: format!("the file of certificates {}: {why}", file.display()) };
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| wrong(causes(error)))?;
    if found.is_empty() {
        return Err(wrong("it holds no certificate in PEM form (BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(found)
}

/// Turns a 404 into `None`.
pub(super) fn optional<T>(result: Result<T, ForgeError>) -> Result<Option<T>, ForgeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The connection to one forge: connection pool, URL and token. Shared by clones.
pub(super) struct Transport {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
    authorization: HeaderValue,
    timeout: Duration,
    max_response_bytes: usize,
    look_twice: Option<Duration>,
}

impl Transport {
    pub(super) fn new(options: ForgeOptions) -> Result<Self, ForgeError> {
        let wrong = |why: &str| ForgeError::Options { why: why.to_owned() };
        let mut base =
            Url::parse(options.url.trim()).map_err(|error| wrong(&format!("the address is not a URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("the address must begin with http:// or https:// and name a host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("the address must not hold a name or password; the token is given apart"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("the address must not hold a query or fragment"));
        }
        let path = format!("{}/api/v1", base.path().trim_end_matches('/'));
        base.set_path(&path);

        let token = options.token.expose_secret().trim();
        if token.is_empty() {
            return Err(wrong("the token is empty"));
        }
        let mut authorization = HeaderValue::from_str(&format!("token {token}"))
            .map_err(|_| wrong("the token holds characters that no token has"))?;
        authorization.set_sensitive(true);

        // This is process-wide. If somebody installed another provider before us, that one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            // Ignores proxies from the environment. A configured one is added later.
            .no_proxy()
            .timeout(options.timeout)
            .connect_timeout(options.timeout / 2)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8);
        if let Some(file) = &options.ca_file {
            builder = builder.tls_certs_only(certificates(file)?);
        } else if base.scheme() == "http" {
            // Without `https` no certificates are needed, so a host without any can be used.
            builder = builder.tls_certs_only([]);
        }
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| wrong(&format!("the proxy: {}", causes(error))))?;
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|error| wrong(&causes(error)))?;
        Ok(Self {
            http,
            base,
            token: options.token,
            authorization,
            timeout: options.timeout,
            max_response_bytes: options.max_response_bytes,
            look_twice: options.look_twice,
        })
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// How long to wait before a doubtful answer is checked once more.
    pub(super) fn look_twice(&self) -> Option<Duration> {
        self.look_twice
    }

    /// The headers of any answer to a request without the token.
    pub(super) async fn headers(&self, path: &str) -> Option<HeaderMap> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await.ok()?;
        Some(answer.headers().clone())
    }

    /// Sends a request, and retries it if that does no harm and may help.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        match self.send_once_or_more(ask).await {
            // The failed request had no effect, so it may be sent again. (A DELETE that finds nothing has nothing
            // left to do.)
            Err(ForgeError::NotFound { .. }) if ask.method != Method::DELETE => match self.look_twice {
                Some(wait) => {
                    tokio::time::sleep(wait).await;
                    self.send_once_or_more(ask).await
                }
                None => Err(ForgeError::NotFound { call: Call::new(&ask.method, &ask.path) }),
            },
            other => other,
        }
    }

    async fn send_once_or_more(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        let mut tried = 1;
        loop {
            let error = match self.once(ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // The first attempt of this DELETE succeeded, although its answer was lost.
            if tried > 1 && ask.method == Method::DELETE && error.is_not_found() {
                return Ok(Answer {
                    call: Call::new(&ask.method, &ask.path),
                    status: StatusCode::NO_CONTENT,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                });
            }
            if ask.repeat == Repeat::Never || tried >= TRIES || !error.is_transient() {
                return Err(error);
            }
            let asked = error.retry_after().unwrap_or_default();
            if asked > WAIT_MAX {
                return Err(error);
            }
            let wait = asked.max(full_jitter(BACKOFF * 2_u32.pow(tried - 1)));
            tracing::debug!(%error, ?wait, tried, "asking the forge again");
            tokio::time::sleep(wait).await;
            tried += 1;
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        let call = Call::new(&ask.method, &ask.path);
        let failed = |error| ForgeError::from_transport(call.clone(), error, self.timeout);
        let url = Url::parse(&format!("{}{}", self.base, ask.path))
            .map_err(|error| ForgeError::Options { why: format!("{call} makes no URL: {error}") })?;
        let mut request = self
            .http
            .request(ask.method.clone(), url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(reqwest::header::ACCEPT, "application/json");
        request = match &ask.payload {
            Payload::Nothing => request,
            Payload::Json(text) => request.header(CONTENT_TYPE, "application/json").body(text.clone()),
            Payload::File { name, content } => {
                let length = content.len() as u64;
                let part = reqwest::multipart::Part::stream_with_length(content.clone(), length)
                    .file_name(name.clone())
                    .mime_str("application/octet-stream")
                    .map_err(failed)?;
                request.multipart(reqwest::multipart::Form::new().part("attachment", part))
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if !status.is_success() {
            let body = read_start(&mut response, ERROR_BODY_MAX).await;
            let body = self.without_token(body);
            let location = self.location(&headers);
            return Err(ForgeError::from_status(call, status, retry_after(&headers), location, &body));
        }
        if headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
            // The API never returns HTML. It comes from something in between, and the request had no effect.
            let why = "it is a page of HTML".to_owned();
            return Err(ForgeError::Garbage { call, status: status.as_u16(), why });
        }
        let limit = self.max_response_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > limit {
                return Err(ForgeError::TooLarge { call, limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { call, status, headers, body })
    }

    /// The target of a redirect, without query, name and password; and whether it lies outside the API.
    fn location(&self, headers: &HeaderMap) -> Option<(String, bool)> {
        let text = headers.get(reqwest::header::LOCATION)?.to_str().ok()?;
        let mut to = self.base.join(text).ok()?;
        to.set_query(None);
        to.set_fragment(None);
        let _ = to.set_username("");
        let _ = to.set_password(None);
        let below = to.origin() == self.base.origin() && to.path().starts_with(&format!("{}/", self.base.path()));
        Some((to.to_string().replace(self.token.expose_secret().trim(), "***"), !below))
    }

    /// A broken proxy may echo the request: the token must not appear in an error's text.
    fn without_token(&self, body: Vec<u8>) -> Vec<u8> {
        let token = self.token.expose_secret().trim();
        let text = String::from_utf8_lossy(&body);
        if text.contains(token) { text.replace(token, "***").into_bytes() } else { body }
    }
}

/// Reads up to `limit` bytes of a body. The status is already known and the text only helps people, so failures are
/// ignored.
async fn read_start(response: &mut reqwest::Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
        if body.len() >= limit {
            break;
        }
    }
    body
}

/// Parses `Retry-After`, given in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let seconds = until.as_second() - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A random wait between zero and `most`, so that many clients that failed together do not retry together.
fn full_jitter(most: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// All characters except those that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Encodes a value as part of a query.
pub(super) fn query_value(value: &str) -> String {
    utf8_percent_encode(value, SEGMENT).to_string()
}

/// Encodes a name as one segment of a path, with `/` as `%2F`. `.` and `..` are refused, because URLs treat them as
/// steps upwards, encoded or not.
pub(super) fn segment(what: &'static str, name: &str) -> Result<String, ForgeError> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(ForgeError::bad_name(what, name));
    }
    Ok(utf8_percent_encode(name, SEGMENT).to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment_of_the_path() {
        assert_eq!(segment("a branch", "lazarus/1-laz-abc").unwrap(), "lazarus%2F1-laz-abc");
        assert_eq!(segment("a file", "../../x?y#z").unwrap(), "..%2F..%2Fx%3Fy%23z");
        for name in ["", ".", ".."] {
            assert!(matches!(segment("an owner", name), Err(ForgeError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            retry_after(&headers)
        };
        assert_eq!(with("7"), Some(Duration::from_secs(7)));
        assert_eq!(with("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(with("Wed, 21 Oct 2099 07:28:00 GMT").unwrap() > Duration::from_secs(60));
        assert_eq!(with("soon"), None);
        assert_eq!(with("-1"), None);
    }
}
