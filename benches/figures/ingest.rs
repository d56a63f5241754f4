//! `ingest`: deliveries that are durable before they are answered, beside a
//! handler that verifies and parses alike and stores nothing. Server, anchor
//! and client are processes of their own; the client is the same for both.

use crate::Place;
use crate::daemon::{Daemon, Installation, client};
use crate::forge::{Deliveries, QuickForge, hook_secret, signature};
use crate::report::{Figure, Limit, Report, median, milliseconds};
use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use http_body_util::{BodyExt as _, Limited};
use lazarus::gitea::webhook::verify;
use rustix::process::Signal;
use secrecy::SecretString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const DELIVERIES: usize = 20_000;
const ROUNDS: usize = 5;
/// Size of a delivery's body, in bytes.
const SIZE: usize = 6_000;

/// The anchor: reads, verifies and parses as the door does, and answers.
async fn only_verify(State(secrets): State<Arc<Vec<SecretString>>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(20), Limited::new(body, 8 << 20).collect()).await
    else {
        return StatusCode::BAD_REQUEST;
    };
    match verify(&parts.headers, &body.to_bytes(), &secrets).map(|delivery| delivery.event()) {
        Ok(Ok(event)) if event.repo().id == 1 => StatusCode::NO_CONTENT,
        _ => StatusCode::FORBIDDEN,
    }
}

/// Runs the anchor until standard input ends; prints where it listens.
pub fn anchor_door() -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let router: Router<()> =
            Router::new().route("/webhook", post(only_verify)).with_state(Arc::new(vec![hook_secret()]));
        // With its parent the anchor goes too.
        std::thread::spawn(|| {
            let _ = std::io::stdin().lines().count();
            std::process::exit(0);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

struct Anchor {
    child: Child,
    address: SocketAddr,
}

impl Anchor {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("anchor-door")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the anchor has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request, ready to be written.
fn request(deliveries: &Deliveries, id: i64) -> Vec<u8> {
    let short = deliveries.comment(id, 1, "").len();
    let words = "It squeaks. ".repeat(SIZE / 12);
    let body = deliveries.comment(id, 1, &words[..SIZE.saturating_sub(short)]);
    let mut request = format!(
        "POST /webhook HTTP/1.1\r\nhost: lazarus\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         x-gitea-event: issue_comment\r\nx-gitea-delivery: {id}\r\nx-gitea-signature: {}\r\n\r\n",
        body.len(),
        signature(&body)
    )
    .into_bytes();
    request.extend(body);
    request
}

/// The client: `load ADDRESS FIRST COUNT`. Everything is made and connected
/// before the clock starts. Prints the seconds.
pub fn load(arguments: &[String]) -> anyhow::Result<()> {
    let [address, first, count, ..] = arguments else { anyhow::bail!("load ADDRESS FIRST COUNT") };
    let (address, first, count): (SocketAddr, i64, usize) = (address.parse()?, first.parse()?, count.parse()?);
    let deliveries = Deliveries::new()?;
    let mut shares: Vec<Vec<Vec<u8>>> = vec![vec![]; CONNECTIONS];
    for index in 0..count {
        shares[index % CONNECTIONS].push(request(&deliveries, first + index as i64));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connected = vec![];
        for share in shares {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connected.push((stream, share));
        }
        let begun = Instant::now();
        let tasks: Vec<_> =
            connected.into_iter().map(|(stream, share)| tokio::spawn(send_all(stream, share))).collect();
        for task in tasks {
            task.await??;
        }
        println!("{}", begun.elapsed().as_secs_f64());
        Ok(())
    })
}

async fn send_all(mut stream: TcpStream, share: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let mut answer = vec![0; 4096];
    for request in share {
        stream.write_all(&request).await?;
        let mut held = 0;
        loop {
            let read = stream.read(&mut answer[held..]).await?;
            anyhow::ensure!(read > 0, "the connection was closed");
            held += read;
            // A 204 has no body: it ends with its headers.
            if answer[..held].ends_with(b"\r\n\r\n") {
                break;
            }
        }
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 204"), "answered: {}", String::from_utf8_lossy(&answer[..held]));
    }
    Ok(())
}

/// Deliveries a second, as the client counts them.
fn rate(address: SocketAddr, first: usize) -> anyhow::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["load", &address.to_string(), &first.to_string(), &DELIVERIES.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "the client ended with {}", output.status);
    let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(DELIVERIES as f64 / seconds)
}

fn waiting(installation: &Installation) -> anyhow::Result<i64> {
    Ok(lazarus::store::look(&installation.registry(), |tx| tx.count_waiting_inputs())?)
}

pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    println!("ingest: {ROUNDS} rounds of {DELIVERIES} deliveries, each beside its anchor");
    let place = Place::new("ingest")?;
    let forge = QuickForge::start(&place.0).await?;
    let installation = Installation::new(&place.0, &forge.url)?;
    let mut daemon = Daemon::start(&installation)?;
    daemon.ready(&client()?, installation.listen()).await?;
    let anchor = Anchor::start()?;
    let (mut ours, mut theirs, mut behind, mut drained) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let first = 1 + round * DELIVERIES;
        let (listen, address) = (installation.listen(), anchor.address);
        let theirs_now = tokio::task::spawn_blocking(move || rate(address, first)).await??;
        let ours_now = tokio::task::spawn_blocking(move || rate(listen, first)).await??;
        // What was taken in is worked off before the next round.
        let begun = Instant::now();
        let left = waiting(&installation)?;
        while waiting(&installation)? > 0 {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "the inbox does not empty:\n{}", daemon.tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The first round warms both up.
        if round > 0 {
            theirs.push(theirs_now);
            ours.push(ours_now);
            behind.push(left as f64);
            drained.push(milliseconds(begun));
        }
    }
    report.add(Figure {
        name: "ingest",
        value: median(&ours),
        unit: "deliveries/s",
        anchor: Some(("verify and parse only".to_owned(), Some(median(&theirs)))),
        limit: Limit::RatioAtLeast(0.3),
    });
    report.note(format!(
        "ingest: of {DELIVERIES}, {:.0} were not yet worked off at the last answer; that took {:.0} ms more",
        median(&behind),
        median(&drained)
    ));
    daemon.end(Signal::TERM)
}
