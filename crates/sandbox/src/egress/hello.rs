//! Reads the server's name from a TLS ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3).
//! The bytes come straight from the client, so no length in them is trusted: every slice is bounded
//! by what has arrived.

use lazarus_core::hosts::HostName;

/// Longest ClientHello that is accepted, in bytes of its handshake message. Real ones have 200 to
/// 2,000.
const HELLO_MAX: usize = 16 * 1024;
/// Most bytes that are read to find it, record headers included: a hostile client may split it into
/// records of one byte.
pub const WIRE_MAX: usize = 2 * HELLO_MAX;
/// Largest plaintext record, RFC 8446, section 5.1.
const RECORD_MAX: usize = 1 << 14;
/// Bytes of a record's header.
const HEADER: usize = 5;
/// The record type of handshake messages.
pub const HANDSHAKE: u8 = 22;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The beginning of a ClientHello; more bytes are needed.
    More,
    /// Not TLS.
    NotTls,
    /// TLS, but not a readable ClientHello; the text says why.
    Malformed(&'static str),
    /// A complete ClientHello.
    Hello(Hello),
}

/// What a ClientHello says about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server name that is asked for in clear text; `None` without the extension.
    pub name: Option<HostName>,
    /// Whether it may contain another name that cannot be read (Encrypted Client Hello, or its
    /// predecessor).
    pub encrypted: bool,
    /// Bytes of the connection that the ClientHello took, record headers included.
    pub taken: usize,
}

/// Classifies the first bytes of a connection.
pub fn read(bytes: &[u8]) -> Reading {
    let mut message = vec![];
    let mut rest = bytes;
    loop {
        match rest.first() {
            Some(&HANDSHAKE) => {}
            Some(_) if message.is_empty() => return Reading::NotTls,
            Some(_) => return Reading::Malformed("another record within the ClientHello"),
            None => return Reading::More,
        }
        if rest.get(1).is_some_and(|major| *major != 3) {
            return if message.is_empty() {
                Reading::NotTls
            } else {
                Reading::Malformed("a record of no known version")
            };
        }
        let Some((header, body)) = rest.split_at_checked(HEADER) else { return Reading::More };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !(1..=RECORD_MAX).contains(&length) {
            return Reading::Malformed("a record that is empty or too long");
        }
        let here = &body[..length.min(body.len())];
        message.extend_from_slice(here);
        if message.first().is_some_and(|kind| *kind != 1) {
            return Reading::Malformed("a handshake that does not begin with a ClientHello");
        }
        if let Some(&[_, high, middle, low]) = message.first_chunk::<4>() {
            let wanted = 4 + usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            if wanted > HELLO_MAX {
                return Reading::Malformed("a ClientHello that is too long");
            }
            if message.len() > wanted {
                return Reading::Malformed("something after the ClientHello in its record");
            }
            if message.len() == wanted && here.len() == length {
                let taken = bytes.len() - (body.len() - length);
                return match parse(&message[4..]) {
                    Ok((name, encrypted)) => Reading::Hello(Hello { name, encrypted, taken }),
                    Err(why) => Reading::Malformed(why),
                };
            }
        }
        if here.len() < length {
            return if bytes.len() < WIRE_MAX { Reading::More } else { Reading::Malformed("too many records") };
        }
        rest = &body[length..];
        if bytes.len() >= WIRE_MAX {
            return Reading::Malformed("too many records");
        }
    }
}

/// A cursor that cuts slices off the front.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("a length that exceeds the message")?;
        self.0 = rest;
        Ok(head)
    }

    fn number<const BYTES: usize>(&mut self) -> Result<usize, &'static str> {
        Ok(self.take(BYTES)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Reads a length of that many bytes, then returns as many bytes as it announces.
    fn vector<const BYTES: usize>(&mut self) -> Result<Cut<'a>, &'static str> {
        let length = self.number::<BYTES>()?;
        self.take(length).map(Cut)
    }
}

fn parse(message: &[u8]) -> Result<(Option<HostName>, bool), &'static str> {
    let mut message = Cut(message);
    message.take(2 + 32)?; // version, random
    message.vector::<1>()?; // session
    message.vector::<2>()?; // ciphers
    message.vector::<1>()?; // compression
    if message.0.is_empty() {
        return Ok((None, false));
    }
    let mut extensions = message.vector::<2>()?;
    if !message.0.is_empty() {
        return Err("extra bytes after the extensions");
    }
    let (mut name, mut encrypted) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        let data = extensions.vector::<2>()?;
        match kind {
            0 if name.is_some() => return Err("two lists of server names"),
            0 => name = Some(server_name(data)?),
            // encrypted_client_hello (RFC 9849), encrypted_server_name (drafts)
            0xfe0d | 0xffce => encrypted = true,
            _ => {}
        }
    }
    Ok((name, encrypted))
}

fn server_name(mut data: Cut<'_>) -> Result<HostName, &'static str> {
    let mut list = data.vector::<2>()?;
    let kind = list.number::<1>()?;
    let name = list.vector::<2>()?;
    // With several names, a server may use the first or the last, so exactly one is required.
    if kind != 0 || !list.0.is_empty() || !data.0.is_empty() {
        return Err("not exactly one server name");
    }
    std::str::from_utf8(name.0)
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or("a server name that is not a valid host name")
}

/// Builds a ClientHello for tests, from server names and other extensions.
#[cfg(test)]
pub(crate) mod made {
    /// The bytes, preceded by their length in two bytes.
    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
    }

    /// The handshake message alone.
    pub fn message(names: &[&str], others: &[u16]) -> Vec<u8> {
        let mut extensions = vec![];
        if !names.is_empty() {
            let list: Vec<u8> = names.iter().flat_map(|n| [&[0][..], &sized(n.as_bytes())].concat()).collect();
            extensions.extend([&[0, 0][..], &sized(&sized(&list))].concat());
        }
        for other in others {
            extensions.extend([&other.to_be_bytes()[..], &sized(b"x")].concat());
        }
        let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0], &sized(&extensions)].concat();
        [&[1, 0][..], &sized(&body)].concat()
    }

    /// Splits a message into records of at most `size` bytes.
    pub fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &sized(part)].concat()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(names: &[&str], others: &[u16]) -> Reading {
        read(&made::records(&made::message(names, others), RECORD_MAX))
    }

    #[test]
    fn the_server_name_is_read_and_normal() {
        let Reading::Hello(hello) = hello(&["API.Example.org"], &[43]) else { panic!() };
        assert_eq!(hello.name.unwrap().as_str(), "api.example.org");
        assert!(!hello.encrypted);
    }

    #[test]
    fn a_name_that_cannot_be_read_is_noticed() {
        for kind in [0xfe0d, 0xffce] {
            let Reading::Hello(hello) = hello(&["a.example.org"], &[kind]) else { panic!() };
            assert!(hello.encrypted);
        }
    }

    #[test]
    fn more_than_one_name_or_none_that_is_one_is_malformed() {
        for names in [&["a.example.org", "b.example.org"][..], &["127.0.0.1"], &["a.example.org\0"], &["a.org."], &[""]]
        {
            assert!(matches!(hello(names, &[]), Reading::Malformed(_)), "{names:?}");
        }
    }

    #[test]
    fn a_hello_without_a_name_has_none() {
        assert!(matches!(hello(&[], &[43]), Reading::Hello(Hello { name: None, .. })));
    }

    #[test]
    fn what_is_not_tls_is_not_tls_from_the_first_byte() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[0x80, 0x2e, 1], &[22, 2]] {
            assert_eq!(read(bytes), Reading::NotTls);
        }
        assert_eq!(read(&[21, 3, 3, 0, 2, 1, 0]), Reading::NotTls);
        assert!(matches!(read(&[22, 3, 1, 0, 1, 2]), Reading::Malformed(_)));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_reads_the_same(size in 1usize..600, after in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = made::records(&made::message(&["api.example.org"], &[43, 10]), size);
            let taken = bytes.len();
            for end in 0..taken {
                prop_assert_eq!(read(&bytes[..end]), Reading::More);
            }
            bytes.extend(after);
            let Reading::Hello(hello) = read(&bytes) else { panic!() };
            prop_assert_eq!(hello.taken, taken);
        }

        #[test]
        fn whatever_is_sent_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let _ = read(&made::records(&bytes, 100));
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_names_what_was_not_in_it(at in 0usize..80, byte: u8) {
            let mut bytes = made::records(&made::message(&["api.example.org"], &[43, 0xfe0d]), 4000);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Reading::Hello(Hello { name: Some(name), .. }) = read(&bytes) {
                prop_assert!(name.as_str().len() <= 15);
            }
        }
    }
}
