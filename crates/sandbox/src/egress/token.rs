//! The token of one cell's proxy. The cell has it in `HTTPS_PROXY`; the proxy keeps only its
//! digest.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// The user name that goes with every token.
const USER: &str = "lazarus";

/// The secret that a cell shows to its proxy: 64 hexadecimal digits, 256 bits. `Debug` does not
/// print it, and its memory is overwritten on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token of the egress proxy has 64 hexadecimal digits")]
pub struct NotAToken;

impl Token {
    /// Generates a random token.
    ///
    /// # Errors
    /// If the system cannot provide randomness.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(Zeroizing::new(hex::encode(bytes.as_slice()))))
    }

    /// Parses a token that was stored.
    ///
    /// # Errors
    /// If the text is not a token.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if good { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(NotAToken) }
    }

    /// The secret itself, for the pool of secrets that may not leave in any text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The proxy variables for an agent's environment, for a proxy that listens on that address
    /// inside the cell.
    pub fn environment(&self, listens: SocketAddr) -> Vec<(String, String)> {
        let url = format!("http://{USER}:{}@{listens}", self.expose());
        let mut environment = vec![];
        // Programs read one spelling or the other; curl reads only `http_proxy` in lower case.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            environment.push((name.to_owned(), url.clone()));
        }
        for name in ["NO_PROXY", "no_proxy"] {
            environment.push((name.to_owned(), "localhost,127.0.0.1,::1".to_owned()));
        }
        environment.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
        environment
    }

    pub(super) fn digest(&self) -> TokenDigest {
        let pair = Zeroizing::new(format!("{USER}:{}", self.expose()));
        TokenDigest(Sha256::digest(pair.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of the user name and the token.
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Whether a `Proxy-Authorization` header carries the token. Takes the same time for a wrong
    /// token as for the right one, because it compares whole digests.
    pub fn is_of(&self, header: &[u8]) -> bool {
        let Some((scheme, rest)) = header.split_at_checked(6) else { return false };
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return false;
        }
        let Ok(pair) = BASE64_STANDARD.decode(rest.trim_ascii()).map(Zeroizing::new) else { return false };
        let given: [u8; 32] = Sha256::digest(&*pair).into();
        given.iter().zip(self.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(pair)).into_bytes()
    }

    #[test]
    fn the_token_and_its_user_open_and_nothing_else_does() {
        let token = Token::new().unwrap();
        let digest = token.digest();
        assert!(digest.is_of(&basic(&format!("lazarus:{}", token.expose()))));
        for wrong in ["", "lazarus:", &format!("root:{}", token.expose()), &format!("lazarus:{}x", token.expose())] {
            assert!(!digest.is_of(&basic(wrong)), "{wrong}");
        }
        for wrong in [&b""[..], b"Basic", b"Basic ", b"Basic !!!", b"Bearer x", "B\u{e4}sic x".as_bytes()] {
            assert!(!digest.is_of(wrong));
        }
    }

    #[test]
    fn debug_does_not_show_it() {
        let token = Token::new().unwrap();
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
