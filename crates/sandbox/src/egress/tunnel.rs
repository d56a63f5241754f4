//! A tunnel, from the answer to CONNECT to its end. It inspects what the client sends first, and
//! forwards bytes only if that matches what was asked for.
//!
//! A server may request a second ClientHello (RFC 8446, section 4.1.4), and some servers take the
//! name from that one, so it is inspected as well. What follows the key exchange is encrypted and
//! cannot be inspected: a `Host` header inside TLS, or a renegotiation. `docs/isolation.md` says
//! so.

use super::hello::{self, Reading, WIRE_MAX};
use super::proxy::ProxyLimits;
use super::record::{Live, Reason, Record};
use super::stream::{Movement, Stream};
use lazarus_core::hosts::{Asked, Host};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the thread polls for the next bytes before it sleeps. Over loopback an answer arrives
/// within this time, and waking up would take as long as the answer itself. Done at most once for
/// each chunk that was moved.
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// Most open tunnels with which the thread polls; with more, it would delay the others.
const LOOK_AGAIN_TUNNELS: usize = 2;
/// Most bytes that are moved at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of a server's first record, up to the end of its random value.
const SERVER_RANDOM_END: usize = 5 + 4 + 2 + 32;
/// The random value of a ServerHello that requests another ClientHello: SHA-256 of
/// `HelloRetryRequest`, RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// Record types that may precede a second ClientHello: a change-cipher-spec for old middleboxes, an
/// alert, early data.
const BEFORE_SECOND: [u8; 3] = [20, 21, 23];
/// A fatal `unrecognized_name` alert, so that the client can report why it failed.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

thread_local! {
    /// One buffer for all tunnels of the thread: it is used only between two awaits, and each
    /// tunnel itself keeps what it cannot send at once.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// Why a tunnel was ended before either side closed it.
enum Ended {
    Io,
    Refused(Reason, Option<&'static str>),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// Number of open tunnels in this process.
static TUNNELS: AtomicUsize = AtomicUsize::new(0);

/// Counts one open tunnel while it lives.
struct Open;

impl Open {
    fn new() -> Self {
        TUNNELS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        TUNNELS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A tunnel that was granted.
pub(super) struct Tunnel {
    pub client: Stream,
    pub server: Stream,
    /// What the client sent before it had the answer to CONNECT.
    pub early: Vec<u8>,
    pub asked: Asked,
    /// Whether it may carry something other than TLS.
    pub plain: bool,
    pub count: Arc<Live>,
    pub record: Arc<Record>,
    pub limits: ProxyLimits,
}

impl Tunnel {
    /// Carries the tunnel to its end.
    pub async fn run(mut self) {
        let _open = Open::new();
        let movement = Movement::new();
        let early = std::mem::take(&mut self.early);
        let ended = tokio::select! {
            ended = self.carry(early, &movement) => ended,
            () = movement.ceased(self.limits.idle) => Ok(()),
        };
        if let Err(Ended::Refused(reason, detail)) = ended {
            self.record.refused(reason, Some(&self.asked), None, detail.map(str::to_owned));
            if reason != Reason::NotTls {
                let _ = self.client.try_write(&ALERT);
            }
            self.client.finish();
        }
    }

    async fn carry(&self, early: Vec<u8>, movement: &Movement) -> Result<(), Ended> {
        let (mut retry, mut ahead) = (false, vec![]);
        if !self.plain {
            let first = tokio::time::timeout(self.limits.head, self.first(early)).await;
            let Some((first, taken)) = first.map_err(|_| Ended::Io)?? else { return Ok(()) };
            let (hello, more) = first.split_at(taken);
            self.send(hello, movement).await?;
            retry = self.server_wants_another(movement).await?;
            // The bytes behind the first ClientHello may be a second one, sent in advance.
            if retry {
                ahead = more.to_vec();
            } else {
                self.send(more, movement).await?;
            }
        } else if !early.is_empty() {
            self.send(&early, movement).await?;
        }
        let outwards = async {
            if retry {
                self.second(ahead, movement).await?;
            }
            self.pump(&self.client, &self.server, movement, |bytes| self.count.sent(bytes)).await
        };
        let inwards = self.pump(&self.server, &self.client, movement, |bytes| self.count.received(bytes));
        tokio::try_join!(outwards, inwards).map(|_| ())
    }

    /// Reads the client's first bytes until they begin with a matching ClientHello. Returns them,
    /// and how many of them are the ClientHello; `None` if the client closed without sending
    /// anything.
    async fn first(&self, mut bytes: Vec<u8>) -> Result<Option<(Vec<u8>, usize)>, Ended> {
        loop {
            if !bytes.is_empty() {
                match hello::read(&bytes) {
                    Reading::More => {}
                    other => return self.judge(other).map(|taken| Some((bytes, taken))),
                }
            }
            if self.read_more(&self.client, &mut bytes).await? == 0 {
                return if bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(Ended::Refused(Reason::BadHello, Some("cut off")))
                };
            }
        }
    }

    fn judge(&self, reading: Reading) -> Result<usize, Ended> {
        let refused = |reason, detail| Err(Ended::Refused(reason, detail));
        match reading {
            Reading::NotTls | Reading::More => refused(Reason::NotTls, None),
            Reading::Malformed(why) => refused(Reason::BadHello, Some(why)),
            Reading::Hello(hello) if hello.encrypted => refused(Reason::EncryptedName, None),
            Reading::Hello(hello) => match (&self.asked.host, hello.name) {
                (Host::Name(asked), Some(name)) if *asked == name => Ok(hello.taken),
                // RFC 6066: addresses are not server names.
                (Host::Address(_), None) => Ok(hello.taken),
                (_, None) => refused(Reason::NoServerName, None),
                (_, Some(_)) => refused(Reason::ServerName, None),
            },
        }
    }

    /// Forwards the server's first bytes and returns whether they request another ClientHello, or
    /// might.
    async fn server_wants_another(&self, movement: &Movement) -> Result<bool, Ended> {
        let mut heard = vec![];
        loop {
            let before = heard.len();
            if self.read_more(&self.server, &mut heard).await? == 0 {
                // The pump will see the end of the stream and forward it.
                return Ok(true);
            }
            write_all(&self.client, &heard[before..], movement).await?;
            self.count.received(heard.len() - before);
            match heard.first_chunk::<6>() {
                None => {}
                Some([hello::HANDSHAKE, _, _, high, low, kind]) => {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    if *kind != 2 {
                        return Ok(false);
                    }
                    // A server cuts its record this short only to hide what it is.
                    if length < SERVER_RANDOM_END - 5 {
                        return Ok(true);
                    }
                    if let Some(random) = heard.get(SERVER_RANDOM_END - 32..SERVER_RANDOM_END) {
                        return Ok(random == RETRY);
                    }
                }
                Some(_) => return Ok(false),
            }
        }
    }

    /// Forwards the second ClientHello, once it matches, and the records before it.
    async fn second(&self, mut bytes: Vec<u8>, movement: &Movement) -> Result<(), Ended> {
        loop {
            match bytes.first() {
                Some(kind) if BEFORE_SECOND.contains(kind) => {
                    if let Some([_, _, _, high, low]) = bytes.first_chunk::<5>() {
                        let record = 5 + usize::from(u16::from_be_bytes([*high, *low]));
                        if bytes.len() >= record {
                            self.send(&bytes[..record], movement).await?;
                            bytes.drain(..record);
                            continue;
                        }
                    }
                }
                Some(_) => match hello::read(&bytes) {
                    Reading::More => {}
                    other => {
                        self.judge(other)?;
                        return self.send(&bytes, movement).await;
                    }
                },
                None => {}
            }
            if self.read_more(&self.client, &mut bytes).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Reads and appends what has arrived. Returns the number of bytes; 0 at the end of the stream.
    /// A record is shorter than [`WIRE_MAX`], or than what two bytes of length can express.
    async fn read_more(&self, from: &Stream, bytes: &mut Vec<u8>) -> Result<usize, Ended> {
        let room = (WIRE_MAX + CHUNK).saturating_sub(bytes.len()).min(WIRE_MAX);
        loop {
            from.readable().await?;
            let read = SCRATCH.with_borrow_mut(|buffer| {
                let read = from.try_read(&mut buffer[..room])?;
                bytes.extend_from_slice(&buffer[..read]);
                Ok(read)
            });
            match read {
                Err(error) if would_block(&error) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Polls both ends for a moment, without sleeping.
    fn look_again(&self) {
        if TUNNELS.load(Ordering::Relaxed) > LOOK_AGAIN_TUNNELS {
            return;
        }
        let until = Instant::now() + LOOK_AGAIN;
        loop {
            let mut ends = [&self.client, &self.server].map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
            if poll(&mut ends, Some(&Timespec::default())) != Ok(0) || Instant::now() > until {
                return;
            }
        }
    }

    async fn send(&self, bytes: &[u8], movement: &Movement) -> Result<(), Ended> {
        write_all(&self.server, bytes, movement).await?;
        self.count.sent(bytes.len());
        Ok(())
    }

    /// Moves bytes in one direction until its end, and forwards that end.
    async fn pump(
        &self,
        from: &Stream,
        to: &Stream,
        movement: &Movement,
        counted: impl Fn(usize),
    ) -> Result<(), Ended> {
        let mut moving = false;
        loop {
            if std::mem::take(&mut moving) {
                self.look_again();
            }
            from.readable().await?;
            let moved = SCRATCH.with_borrow_mut(|buffer| {
                let read = from.try_read(buffer)?;
                let sent = match to.try_write(&buffer[..read]) {
                    Err(error) if would_block(&error) => 0,
                    other => other?,
                };
                counted(sent);
                Ok((read, buffer[sent..read].to_vec()))
            });
            match moved {
                Ok((0, _)) => {
                    to.finish();
                    return Ok(());
                }
                Ok((read, rest)) => {
                    // A full buffer means that more is waiting.
                    moving = read < CHUNK;
                    movement.seen();
                    write_all(to, &rest, movement).await?;
                    counted(rest.len());
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(error.into()),
            }
            // Yields now and then, so that one fast tunnel does not starve the others.
            tokio::task::consume_budget().await;
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

async fn write_all(to: &Stream, mut bytes: &[u8], movement: &Movement) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                bytes = &bytes[sent..];
                movement.seen();
            }
            Err(error) if would_block(&error) => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
