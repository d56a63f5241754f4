//! The proxy: takes requests, checks each one, and forwards it. Each request gets its own
//! connection to the host, to an address that was checked and is not resolved again.

use super::record::{Live, Reason, Record};
use super::rules::{HTTP_PORT, Permit, Rules};
use super::stream::{Listener, Metered, Movement, Stream};
use super::token::{Token, TokenDigest};
use super::tunnel::Tunnel;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use lazarus_core::hosts::{Asked, Host, HostName};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Largest head of a request that is accepted, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Largest head of an answer, and most of a body that is buffered, in bytes.
const ANSWER_BUFFER: usize = 64 * 1024;
/// Most addresses of one name that connections are tried to. All of its addresses are checked.
const TRIED_MAX: usize = 8;
/// How long open connections may continue after the proxy is told to end.
const DRAIN: Duration = Duration::from_secs(1);
/// Headers that belong to one connection and not to the message: RFC 9110, section 7.6.1, and the
/// ones that older clients use.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The header of an answer that names the reason of a refusal in one word.
pub const REFUSED: HeaderName = HeaderName::from_static("lazarus-refused");

/// Limits on time and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Most connections at once; more wait at the socket.
    pub connections: usize,
    /// Longest time to receive a request's head, or a tunnel's first bytes.
    pub head: Duration,
    /// Longest time to resolve a host, and again to connect to it.
    pub connect: Duration,
    /// Longest time without any byte moving.
    pub idle: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(300),
        }
    }
}

/// The network as the proxy sees it. Tests replace it.
pub trait Outside: Send + Sync + 'static {
    /// Resolves a name to all its addresses.
    fn resolve<'a>(&'a self, name: &'a HostName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
    /// Connects to exactly this address.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The resolver and network of this host.
#[derive(Debug, Default)]
pub struct HostNetwork {
    /// Fixed addresses of names, used instead of the resolver. They are checked like any other.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

impl Outside for HostNetwork {
    fn resolve<'a>(&'a self, name: &'a HostName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        async move {
            if let Some(addresses) = self.addresses.get(name) {
                return Ok(addresses.clone());
            }
            Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.map(|a| a.ip()).collect())
        }
        .boxed()
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        TcpStream::connect(to).boxed()
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

/// The proxy of one cell.
pub struct Proxy {
    rules: Rules,
    token: TokenDigest,
    record: Arc<Record>,
    outside: Arc<dyn Outside>,
    limits: ProxyLimits,
}

/// A tunnel that was granted and waits for the client to switch to it.
struct Granted {
    upgrade: OnUpgrade,
    server: Stream,
    asked: Asked,
    plain: bool,
    count: Arc<Live>,
}

type Slot = Mutex<Option<Granted>>;

/// Why a request is not forwarded.
enum Refused {
    /// Refused by a check; the refusal is recorded.
    For { reason: Reason, asked: Option<Asked>, address: Option<IpAddr>, detail: Option<String>, say: String },
    /// Allowed, but the host could not be resolved or reached.
    Failed { status: StatusCode, say: String },
    /// The request carries no token; the client is asked for it.
    Token,
}

impl Refused {
    fn new(reason: Reason, say: impl Into<String>) -> Self {
        Self::For { reason, asked: None, address: None, detail: None, say: say.into() }
    }

    fn of(reason: Reason, of: &Asked, say: impl Into<String>) -> Self {
        Self::For { reason, asked: Some(of.clone()), address: None, detail: None, say: say.into() }
    }
}

impl Proxy {
    /// Creates a proxy that enforces these rules and answers only requests that carry the token.
    pub fn new(
        rules: Rules,
        token: &Token,
        record: Arc<Record>,
        outside: Arc<dyn Outside>,
        limits: ProxyLimits,
    ) -> Self {
        Self { rules, token: token.digest(), record, outside, limits }
    }

    /// Serves a cell until `stop` resolves, then lets open connections continue for one second.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                (accepted, place) = next => match accepted {
                    Ok(stream) => {
                        let proxy = Arc::clone(&self);
                        connections.spawn(async move {
                            proxy.connection(stream).await;
                            drop(place);
                        });
                    }
                    // Usually out of descriptors; other connections will close soon.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
        drop(listener);
        let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    }

    /// Serves one connection of the cell, from its first request to its end.
    async fn connection(&self, stream: Stream) {
        let slot = Slot::default();
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(HEAD_MAX);
        let service = service_fn(|request| self.answer(request, &slot).map(Ok::<_, std::convert::Infallible>));
        // hyper itself answers requests that it cannot parse.
        match builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            Err(error) if error.is_parse_too_large() => {
                self.record.refused(Reason::HeadTooLarge, None, None, None);
            }
            Err(error) if error.is_parse() => self.record.refused(Reason::Malformed, None, None, None),
            _ => {}
        }
        let Some(granted) = slot.into_inner().unwrap_or_else(PoisonError::into_inner) else { return };
        let Ok(Ok(upgraded)) = timeout(self.limits.head, granted.upgrade).await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else { return };
        let tunnel = Tunnel {
            client: parts.io.into_inner(),
            server: granted.server,
            early: parts.read_buf.into(),
            asked: granted.asked,
            plain: granted.plain,
            count: granted.count,
            record: Arc::clone(&self.record),
            limits: self.limits,
        };
        tunnel.run().await;
    }

    async fn answer(&self, request: Request<Incoming>, slot: &Slot) -> Response<Body> {
        let outcome = match self.check_token(request.headers()) {
            Err(refused) => Err(refused),
            Ok(()) if request.method() == Method::CONNECT => self.connect(request, slot).await,
            Ok(()) => self.forward(request).await,
        };
        outcome.unwrap_or_else(|refused| self.refuse(refused))
    }

    fn refuse(&self, refused: Refused) -> Response<Body> {
        let (status, reason, say) = match refused {
            Refused::For { reason, asked, address, detail, say } => {
                self.record.refused(reason, asked.as_ref(), address, detail);
                let status = match reason {
                    Reason::NotNamed | Reason::Address => StatusCode::FORBIDDEN,
                    Reason::Token => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                    _ => StatusCode::BAD_REQUEST,
                };
                (status, Some(reason), say)
            }
            Refused::Failed { status, say } => {
                self.record.failed();
                (status, None, say)
            }
            Refused::Token => {
                self.record.asked_for_token();
                let say = "the egress proxy requires the token of this cell, which is in HTTPS_PROXY".to_owned();
                (StatusCode::PROXY_AUTHENTICATION_REQUIRED, None, say)
            }
        };
        let mut response = Response::new(whole(format!("{say}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"lazarus\""));
        }
        if let Some(reason) = reason {
            headers.insert(REFUSED, HeaderValue::from_static(reason.as_str()));
        }
        response
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let mut given = headers.get_all(header::PROXY_AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (None, _) => Err(Refused::Token),
            (Some(value), None) if self.token.is_of(value.as_bytes()) => Ok(()),
            _ => Err(Refused::new(Reason::Token, "the token is not this cell's")),
        }
    }

    /// Checks the rules for what was asked for.
    fn permit(&self, asked: &Asked) -> Result<Permit, Refused> {
        self.rules.permit(asked).ok_or_else(|| {
            let say = format!(
                "`{asked}` is not among the hosts that this cell may reach; the mission's proposal names them under \
                 `Network hosts`"
            );
            Refused::of(Reason::NotNamed, asked, say)
        })
    }

    /// Connects to one of the host's addresses, after all of them were checked.
    async fn reach(&self, asked: &Asked) -> Result<(Stream, Arc<Live>), Refused> {
        let failed = |status, what: &str| Refused::Failed { status, say: format!("`{asked}` {what}") };
        let addresses = match &asked.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => match timeout(self.limits.connect, self.outside.resolve(name)).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                Ok(_) => return Err(failed(StatusCode::BAD_GATEWAY, "has no address that could be found")),
                Err(_) => return Err(failed(StatusCode::GATEWAY_TIMEOUT, "has an address that was not found in time")),
            },
        };
        let mut checked = vec![];
        for address in addresses {
            match self.rules.reachable(address) {
                Ok(address) if checked.contains(&address) => {}
                Ok(address) => checked.push(address),
                // One refused address makes the name untrustworthy, so its other addresses are not
                // tried either.
                Err(kind) => {
                    return Err(Refused::For {
                        reason: Reason::Address,
                        asked: Some(asked.clone()),
                        address: Some(address),
                        detail: Some(kind.to_owned()),
                        say: format!(
                            "`{asked}` leads to an address that is {kind}; policy can allow it in `[egress] \
                             allow_addresses`"
                        ),
                    });
                }
            }
        }
        checked.truncate(TRIED_MAX);
        let until = Instant::now() + self.limits.connect;
        for (tried, address) in checked.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now()) / (checked.len() - tried) as u32;
            if let Ok(Ok(stream)) = timeout(left, self.outside.connect(SocketAddr::new(*address, asked.port))).await {
                let _ = stream.set_nodelay(true);
                return Ok((Stream::Tcp(stream), self.record.connected(asked)));
            }
        }
        Err(failed(StatusCode::BAD_GATEWAY, "could not be connected to"))
    }

    /// CONNECT: opens a tunnel once the host is connected.
    async fn connect(&self, mut request: Request<Incoming>, slot: &Slot) -> Result<Response<Body>, Refused> {
        let headers = request.headers();
        if headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
        {
            return Err(Refused::new(Reason::Malformed, "CONNECT has no body"));
        }
        // The URI must be only `host:port`: `CONNECT http://host:443/` is refused.
        let uri = request.uri();
        let authority = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
        let asked = authority.map_or(Err(super::NameError::Empty), |a| Asked::parse(a.as_str(), None));
        let asked = asked.map_err(|why| Refused::For {
            reason: Reason::BadName,
            asked: None,
            address: None,
            detail: Some(why.to_string()),
            say: format!("CONNECT needs a host and port: {why}"),
        })?;
        let permit = self.permit(&asked)?;
        let (server, count) = self.reach(&asked).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Granted { upgrade, server, asked, plain: permit.plain, count });
        Ok(Response::new(nothing()))
    }

    /// Any other method: forwards one request in absolute form.
    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let asked = check_request(&request)?;
        self.permit(&asked)?;
        let (stream, count) = self.reach(&asked).await?;

        let uri = std::mem::take(request.uri_mut());
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|_| Refused::of(Reason::Malformed, &asked, "the path of the URI cannot be sent on"))?;
        *request.version_mut() = Version::HTTP_11;
        strip_hop_by_hop(request.headers_mut());
        let host = if asked.port == HTTP_PORT { asked.host.to_string() } else { asked.to_string() };
        let host = HeaderValue::try_from(host)
            .map_err(|_| Refused::of(Reason::BadName, &asked, "the host cannot be written into a header"))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        // The proxy answers `Expect` itself, when it reads the body.
        headers.remove(header::EXPECT);

        let failed = || Refused::Failed {
            status: StatusCode::BAD_GATEWAY,
            say: format!("`{asked}` did not answer in HTTP/1.1"),
        };
        let movement = Arc::new(Movement::new());
        let io = TokioIo::new(Metered { stream, count, movement: Arc::clone(&movement) });
        let mut client = hyper::client::conn::http1::Builder::new();
        client.max_buf_size(ANSWER_BUFFER);
        let (mut sender, connection) = client.handshake(io).await.map_err(|_| failed())?;
        let idle = self.limits.idle;
        // Ends with the answer's body, or when the client drops it.
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = movement.ceased(idle) => {}
            }
        });
        let response = sender.send_request(request).await.map_err(|_| failed())?;
        if response.status().is_informational() {
            return Err(failed());
        }
        let mut response = response.map(http_body_util::BodyExt::boxed);
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

/// Checks that a request is unambiguous, and returns the host that it is for.
fn check_request(request: &Request<Incoming>) -> Result<Asked, Refused> {
    let headers = request.headers();
    let uri = request.uri();
    let bad_name = |what: &str, why: super::NameError| Refused::For {
        reason: Reason::BadName,
        asked: None,
        address: None,
        detail: Some(why.to_string()),
        say: format!("{what} is not a host name: {why}"),
    };
    let Some(authority) = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTP)) else {
        return Err(Refused::new(
            Reason::NotAbsolute,
            "this is a proxy: it takes CONNECT, and requests for `http://HOST/…` in absolute form",
        ));
    };
    let asked = Asked::parse(authority.as_str(), Some(HTTP_PORT)).map_err(|why| bad_name("the URI's host", why))?;
    if headers.contains_key(header::UPGRADE) {
        return Err(Refused::of(Reason::Upgrade, &asked, "the proxy does not change protocols; use CONNECT and TLS"));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => {}
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| bad_name("the Host header", super::NameError::NotAscii))?;
            let host = Asked::parse(host, Some(HTTP_PORT)).map_err(|why| bad_name("the Host header", why))?;
            if host != asked {
                return Err(Refused::of(
                    Reason::HostHeader,
                    &asked,
                    "the Host header is for another host than the URI",
                ));
            }
        }
        _ => return Err(Refused::of(Reason::Malformed, &asked, "there has to be one Host header")),
    }
    // Any other coding would be lost together with this header, and with it the body's length.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|c| c.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Err(Refused::of(Reason::Malformed, &asked, "the only transfer coding is `chunked`"));
    }
    Ok(asked)
}

/// Removes headers that belong to the connection: the usual ones, and those that the message's
/// `Connection` header names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Content-Length says where a message ends, so the sender may not have it dropped.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
