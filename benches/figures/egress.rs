//! `egress_throughput`, `egress_latency`: bytes and round trips through a
//! tunnel of the cell's proxy, beside a direct connection to the same host.
//! Proxy, host and client are processes of their own, all on loopback.

use crate::report::{Figure, Limit, Report, median, quantile};
use crate::{LAZARUS, Place};
use anyhow::Context as _;
use base64::Engine as _;
use lazarus::egress::{Rules, Spec, Token, User, start};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
/// Bytes of one download.
const DOWNLOAD: usize = 512 << 20;
const ROUND_TRIPS: usize = 5_000;
/// Bytes there and bytes back: a small request, a small answer.
const MESSAGE: usize = 512;
const CHUNK: usize = 64 << 10;
const OPENINGS: usize = 300;

/// The host: sends as many bytes as it is asked for, or sends messages back.
/// Runs until standard input ends; prints where it listens.
pub fn host() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().lines().count();
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<()> {
            stream.set_nodelay(true)?;
            let mut kind = [0];
            stream.read_exact(&mut kind)?;
            if kind == *b"d" {
                let chunk = vec![7; CHUNK];
                for _ in 0..DOWNLOAD / CHUNK {
                    stream.write_all(&chunk)?;
                }
                return Ok(());
            }
            let mut message = vec![0; MESSAGE];
            loop {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
            }
        });
    }
    Ok(())
}

/// A process that is ended with the measurement.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Way {
    host: SocketAddr,
    proxy: Option<(SocketAddr, String)>,
}

impl Way {
    fn open(&self) -> anyhow::Result<TcpStream> {
        let Some((proxy, authorization)) = &self.proxy else {
            let stream = TcpStream::connect(self.host)?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        };
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let port = self.host.port();
        let request =
            format!("CONNECT host.example.org:{port} HTTP/1.1\r\nProxy-Authorization: Basic {authorization}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let (mut head, mut buffer) = (vec![], [0; 256]);
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer)?;
            anyhow::ensure!(read > 0, "the proxy hung up");
            head.extend_from_slice(&buffer[..read]);
        }
        anyhow::ensure!(head.starts_with(b"HTTP/1.1 200"), "the proxy says {}", String::from_utf8_lossy(&head));
        Ok(stream)
    }

    /// MiB a second.
    fn download(&self) -> anyhow::Result<f64> {
        let mut stream = self.open()?;
        let mut buffer = vec![0; CHUNK];
        let since = Instant::now();
        stream.write_all(b"d")?;
        let mut left = DOWNLOAD;
        while left > 0 {
            let read = stream.read(&mut buffer)?;
            anyhow::ensure!(read > 0, "the download ended {left} bytes early");
            left -= read;
        }
        Ok((DOWNLOAD >> 20) as f64 / since.elapsed().as_secs_f64())
    }

    /// Microseconds of each round trip over one open connection.
    fn round_trips(&self) -> anyhow::Result<Vec<f64>> {
        let mut stream = self.open()?;
        stream.write_all(b"e")?;
        let mut message = vec![7; MESSAGE];
        let mut samples = vec![];
        for _ in 0..ROUND_TRIPS {
            let since = Instant::now();
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            samples.push(since.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples)
    }

    /// Microseconds from nothing to the first answer.
    fn openings(&self) -> anyhow::Result<Vec<f64>> {
        let mut message = vec![7; MESSAGE];
        let mut samples = vec![];
        for _ in 0..OPENINGS {
            let since = Instant::now();
            let mut stream = self.open()?;
            stream.write_all(b"e")?;
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            samples.push(since.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples)
    }
}

/// Measures both.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut host = Ending(
        Command::new(std::env::current_exe()?)
            .arg("egress-host")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    BufReader::new(host.0.stdout.take().context("the host has no output")?).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse()?;

    let place = Place::new("egress")?;
    let rule = format!("host.example.org:{} plain", address.port());
    let spec = Spec {
        cell: "laz-figures".to_owned(),
        token: Token::new()?,
        rules: Rules { hosts: vec![rule.parse()?], allow_addresses: vec!["127.0.0.1".parse()?] },
        directory: place.0.clone(),
        user: rustix::process::geteuid().is_root().then_some(User { uid: 65_534, gid: 65_534 }),
        addresses: [("host.example.org".parse()?, vec!["127.0.0.1".parse()?])].into(),
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Ending(start(Path::new(LAZARUS), &spec, listener.as_fd(), None)?);
    let authorization = base64::prelude::BASE64_STANDARD.encode(format!("lazarus:{}", spec.token.expose()));
    let direct = Way { host: address, proxy: None };
    let through = Way { host: address, proxy: Some((listener.local_addr()?, authorization)) };

    let (mut fast, mut fast_direct, mut trips, mut trips_direct) = (vec![], vec![], vec![], vec![]);
    // In turns, so that what else the machine does meets both.
    for round in 0..=ROUNDS {
        let (one, other) = (direct.download()?, through.download()?);
        let (near, far) = (direct.round_trips()?, through.round_trips()?);
        if round > 0 {
            fast_direct.push(one);
            fast.push(other);
            trips_direct.extend(near);
            trips.extend(far);
        }
    }
    report.add(Figure {
        name: "egress_throughput",
        value: median(&fast),
        unit: "MiB/s",
        anchor: Some(("a direct connection".to_owned(), Some(median(&fast_direct)))),
        limit: Limit::RatioAtLeast(0.5),
    });
    report.add(Figure {
        name: "egress_latency",
        value: median(&trips),
        unit: "µs",
        anchor: Some(("a direct connection".to_owned(), Some(median(&trips_direct)))),
        limit: Limit::RatioAtMost(2.0),
    });
    let (near, far) = (direct.openings()?, through.openings()?);
    report.note(format!(
        "egress: a new tunnel to its first answer takes {:.0} µs (p99 {:.0}), a new direct connection {:.0}",
        median(&far),
        quantile(&far, 0.99),
        median(&near)
    ));
    let status = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", proxy.0.id())).unwrap_or_default();
    if let Some(own) = status.lines().find_map(|l| l.strip_prefix("Private_Dirty:")) {
        report.note(format!("egress: the proxy's own memory after that: {}", own.trim()));
    }
    Ok(())
}
