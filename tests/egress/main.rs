//! The egress proxy over real connections on loopback. What it would connect to
//! elsewhere is a table of the test's own: an address that is not in it cannot
//! be dialled, and every dialled one is on record.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod process;
mod requests;
mod threats;
mod tunnels;

use base64::Engine as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use lazarus::egress::{HostName, Listener, Outside, Proxy, ProxyLimits, Reason, Record, Rules, Token};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long anything may take before a test gives up on it.
pub const CEILING: Duration = Duration::from_secs(20);
/// An address that is everybody's; nobody is asked there.
pub const PUBLIC: &str = "93.184.216.34";

/// The world outside of the proxy.
#[derive(Default)]
pub struct World {
    /// Answers to each look-up of a name, in turn; the last one stays.
    names: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    /// Where an address and port really lead.
    places: Mutex<HashMap<SocketAddr, SocketAddr>>,
    pub looked_up: Mutex<Vec<String>>,
    pub dialled: Mutex<Vec<SocketAddr>>,
}

impl World {
    pub fn name(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|a| a.iter().map(|a| a.parse().unwrap()).collect()).collect();
        self.names.lock().unwrap().insert(name.to_owned(), answers);
    }

    pub fn place(&self, outside: &str, really: SocketAddr) {
        self.places.lock().unwrap().insert(outside.parse().unwrap(), really);
    }

    pub fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

impl Outside for World {
    fn resolve<'a>(&'a self, name: &'a HostName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.looked_up.lock().unwrap().push(name.to_string());
        let mut names = self.names.lock().unwrap();
        let answer = names.get_mut(name.as_str()).map(|answers| match answers.len() {
            1 => answers[0].clone(),
            _ => answers.remove(0),
        });
        async move { answer.ok_or_else(|| io::Error::other("no such name")) }.boxed()
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.dialled.lock().unwrap().push(to);
        let really = self.places.lock().unwrap().get(&to).copied();
        async move { TcpStream::connect(really.ok_or(io::ErrorKind::ConnectionRefused)?).await }.boxed()
    }
}

/// A proxy that serves, until it is dropped.
pub struct Served {
    pub at: SocketAddr,
    pub token: Token,
    pub world: Arc<World>,
    pub record: Arc<Record>,
    pub directory: tempfile::TempDir,
    pub task: tokio::task::JoinHandle<()>,
    pub stop: Option<oneshot::Sender<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn rules(hosts: &[&str]) -> Rules {
    Rules { hosts: hosts.iter().map(|h| h.parse().unwrap()).collect(), allow_addresses: vec![] }
}

/// A proxy for those hosts; each that is a name leads to [`PUBLIC`].
pub async fn serve(hosts: &[&str]) -> Served {
    serve_with(rules(hosts), ProxyLimits::default()).await
}

pub async fn serve_with(rules: Rules, limits: ProxyLimits) -> Served {
    let world = Arc::new(World::default());
    for rule in &rules.hosts {
        let rule = rule.to_string();
        let name = rule.split([':', ' ']).next().unwrap();
        world.name(&name.replace('*', "any"), &[&[PUBLIC]]);
    }
    let directory = tempfile::tempdir().unwrap();
    let opened = std::fs::File::open(directory.path()).unwrap();
    let record = Arc::new(Record::in_directory(opened.into()).unwrap());
    let token = Token::new().unwrap();
    let outside: Arc<dyn Outside> = world.clone();
    let proxy = Arc::new(Proxy::new(rules, &token, record.clone(), outside, limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(proxy.serve(Listener::Tcp(listener), async {
        let _ = stopped.await;
    }));
    Served { at, token, world, record, directory, task, stop: Some(stop) }
}

impl Served {
    /// The header that opens it.
    pub fn authorization(&self) -> String {
        let pair = format!("lazarus:{}", self.token.expose());
        format!("Proxy-Authorization: Basic {}\r\n", base64::prelude::BASE64_STANDARD.encode(pair))
    }

    pub async fn client(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// Asks for a tunnel. Returns the status and the connection.
    pub async fn tunnel(&self, to: &str) -> (u16, TcpStream) {
        let mut stream = self.client().await;
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", self.authorization());
        let _ = stream.write_all(request.as_bytes()).await;
        let (status, _) = head(&mut stream).await;
        (status, stream)
    }

    /// Sends a request with the token and reads its answer. `{auth}` stands for
    /// the token's header.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.send(request).await;
        let (_, head) = head(&mut stream).await;
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        let mut body = vec![0; length];
        timeout(CEILING, stream.read_exact(&mut body)).await.expect("no body").unwrap();
        head + &String::from_utf8_lossy(&body)
    }

    /// Sends that and reads everything until the proxy closes the connection.
    pub async fn raw_to_the_end(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.send(request).await;
        String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
    }

    async fn send(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mark = b"{auth}";
        let mut request = request.as_ref().to_vec();
        while let Some(at) = request.windows(mark.len()).position(|w| w == mark) {
            request.splice(at..at + mark.len(), self.authorization().into_bytes());
        }
        let mut stream = self.client().await;
        let _ = stream.write_all(&request).await;
        stream
    }

    /// A GET in absolute form.
    pub async fn get(&self, uri: &str, host: &str) -> String {
        self.raw(format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n{{auth}}Connection: close\r\n\r\n")).await
    }

    /// How often something was refused for that reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.record.report().refused.get(&reason).copied().unwrap_or_default()
    }

    pub fn refusals(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(lazarus::egress::REFUSALS)).unwrap()
    }

    /// Waits until that was refused that often.
    pub async fn until_refused(&self, reason: Reason, times: u64) {
        let seen = timeout(CEILING, async {
            while self.refused(reason) < times {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(seen.await.is_ok(), "not refused for {reason:?}; refused were {:?}", self.record.report().refused);
    }
}

/// Reads an answer's head. Status 0 where the connection ended before.
pub async fn head(stream: &mut TcpStream) -> (u16, String) {
    let mut head = vec![];
    let read = timeout(CEILING, async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    });
    read.await.expect("no answer");
    let head = String::from_utf8(head).unwrap();
    (status(&head), head)
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// A web server that keeps what it is sent and answers every request alike.
pub async fn web_server(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(vec![]));
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut request = vec![];
                let mut buffer = [0; 4096];
                // The end of a request is where nothing more comes for a while.
                while let Ok(Ok(read @ 1..)) = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
                    request.extend_from_slice(&buffer[..read]);
                }
                keep.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (at, seen)
}

/// A server that sends back what it gets.
pub async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    at
}

/// The ClientHello of a real TLS client.
pub fn client_hello(name: &str) -> Vec<u8> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
    let mut bytes = vec![];
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A ClientHello made by hand: server names and other extensions.
pub fn made_hello(names: &[&str], others: &[u16]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = vec![];
    if !names.is_empty() {
        let list: Vec<u8> = names.iter().flat_map(|n| [&[0][..], &sized(n.as_bytes())].concat()).collect();
        extensions.extend([&[0, 0][..], &sized(&sized(&list))].concat());
    }
    for other in others {
        extensions.extend([&other.to_be_bytes()[..], &sized(b"x")].concat());
    }
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0], &sized(&extensions)].concat();
    [&[22, 3, 1][..], &sized(&[&[1, 0][..], &sized(&body)].concat())].concat()
}

/// Reads exactly that, or fails.
pub async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    timeout(CEILING, stream.read_exact(&mut read)).await.expect("nothing came").unwrap();
    assert_eq!(read, bytes);
}

/// Reads until the end. A reset is an end too.
pub async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = vec![];
    let _ = timeout(CEILING, stream.read_to_end(&mut read)).await.expect("it did not end");
    read
}
