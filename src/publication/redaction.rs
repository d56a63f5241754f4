//! Finds secrets in text and blacks them out.
//!
//! Two kinds are looked for. *Known* secrets are the values that this host or
//! this cell was given; they are found however they were written: raw,
//! escaped for JSON, HTML or a URL, in hex, in base64 at any alignment, and
//! split by line breaks, spaces or invisible characters. *Secret-like*
//! strings are recognised by their shape alone (tokens of well-known
//! services, private keys, `password=…`).
//!
//! The text is never searched as it stands. It is *projected*: what a reader
//! does not see is dropped and escapes are undone, and each byte of a
//! projection remembers where in the text it came from. A match in any
//! projection blacks out the stretch of text that it came from. So a new way
//! of writing a secret is one more projection, not one more pattern for each
//! secret.
//!
//! Everything is linear in the text: `aho-corasick` and `regex` do not
//! backtrack, and there is a fixed number of projections.
//!
//! What this cannot do: an agent that wants to leak may use a cipher of its
//! own. The gate stops accidents and the common tricks; that an agent holds
//! few credentials, and only its own, is what stops the rest.

use std::fmt;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use super::search::{Search, Sought};
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::bytes::Regex;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// What stands where a secret was.
pub const PLACEHOLDER: &str = "[redacted]";

/// Stands for [`PLACEHOLDER`] in a projection. Never part of UTF-8, so no
/// pattern matches across it: what was redacted once stays as it is.
const BARRIER: u8 = 0xFF;

/// Known secrets shorter than this (in bytes) are looked for raw and as whole
/// words only; anything else would black out ordinary text.
pub(super) const SHORT: usize = 6;

/// Known secrets shorter than this (in bytes) are not looked for at all: they
/// can be guessed, and the holes in the text would tell more than they hide.
const TOO_SHORT: usize = 3;

/// From this many letters and digits on, a secret is also looked for with all
/// other characters ignored, in secret and text alike.
pub(super) const ALPHANUMERIC_FROM: usize = 12;

/// A single line of a multi-line secret counts as a secret from this length
/// (bytes) on.
const LINE_FROM: usize = 16;

/// How often a text is searched again after something was blacked out.
const PASSES: usize = 4;

/// The secrets that this host or cell knows of, ready to be searched for.
///
/// The values themselves are wiped from memory on drop. The search automata
/// are built by `aho-corasick`, which does not wipe its memory; keep a
/// `Secrets` for as long as the secrets themselves are kept, not longer.
pub struct Secrets {
    values: Vec<(String, SecretString)>,
    /// Over the squeezed projections: raw values, their lines, base64.
    squeezed: Option<AhoCorasick>,
    /// Which patterns of `squeezed` are base64 (their edges need widening).
    squeezed_is_base64: Vec<bool>,
    /// Over the alphanumeric projections, case counts.
    alphanumeric: Option<AhoCorasick>,
    /// Over the alphanumeric projections, case does not count: hex.
    hex: Option<AhoCorasick>,
    /// Over the text as it stands, whole words only.
    short: Option<AhoCorasick>,
    /// Over bytes of any kind; made when it is needed first.
    bytes: OnceLock<Sought>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("names", &self.values.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self::none()
    }
}

impl Secrets {
    /// No known secrets: only secret-like strings will be found.
    pub fn none() -> Self {
        Self::new(std::iter::empty::<(String, SecretString)>())
    }

    /// Prepares the search for these values. The names are for people (they
    /// appear in `Debug`), the values never leave.
    ///
    /// Values under three bytes are ignored; values under six are
    /// found raw, as whole words. Leading and trailing whitespace does not
    /// count. Of a value of several lines, each line of at least
    /// 16 bytes counts as a secret too.
    pub fn new<N: Into<String>>(secrets: impl IntoIterator<Item = (N, SecretString)>) -> Self {
        let values: Vec<(String, SecretString)> =
            secrets.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let mut squeezed: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut squeezed_is_base64 = Vec::new();
        let mut alphanumeric: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut hexes: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut short: Vec<Zeroizing<Vec<u8>>> = Vec::new();

        for (_, value) in &values {
            for part in parts_of(value.expose_secret()) {
                let tight = tight(part);
                if tight.len() < SHORT {
                    short.push(Zeroizing::new(part.as_bytes().to_vec()));
                    continue;
                }
                hexes.push(Zeroizing::new(hex::encode(part.as_bytes()).into_bytes()));
                let letters = Zeroizing::new(only_alphanumeric(&tight));
                if letters.len() >= ALPHANUMERIC_FROM {
                    alphanumeric.push(letters);
                }
                // As it was trimmed, and squeezed as well: a value with a
                // space in it may be encoded with or without it.
                for bytes in [part.as_bytes(), tight.as_slice()] {
                    for encoded in base64_windows(bytes) {
                        let letters = Zeroizing::new(only_alphanumeric(&encoded));
                        if letters.len() >= ALPHANUMERIC_FROM {
                            alphanumeric.push(letters);
                        }
                        squeezed.push(encoded);
                        squeezed_is_base64.push(true);
                    }
                    if bytes.len() == tight.len() {
                        break;
                    }
                }
                squeezed.push(tight);
                squeezed_is_base64.push(false);
            }
        }
        Self {
            values,
            squeezed: automaton(&squeezed, false),
            squeezed_is_base64,
            alphanumeric: automaton(&alphanumeric, false),
            hex: automaton(&hexes, true),
            short: automaton(&short, false),
            bytes: OnceLock::new(),
        }
    }

    /// How many values are known.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no value is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Blacks out known secrets and secret-like strings; for logs and errors.
    /// Returns the text and how many places were blacked out.
    pub fn redact(&self, text: &str) -> (String, u32) {
        let (text, found) = scrub(text, text.len(), self);
        (text, found.known.saturating_add(found.alike))
    }

    /// Begins a search for known secrets in bytes of any kind, which are fed to
    /// it as they come; see [`search`](super::search) for what is found.
    pub fn search(&self) -> Search<'_> {
        Search::new(self.bytes.get_or_init(|| Sought::new(&self.values)))
    }

    /// The name of a known secret that is in these bytes, in any encoding.
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let mut search = self.search();
        search.feed(bytes);
        search.finish()
    }
}

/// What of a value counts as a secret: all of it, and each of its longer lines.
pub(super) fn parts_of(value: &str) -> impl Iterator<Item = &str> {
    let whole = value.trim();
    let lines = whole
        .lines()
        .map(str::trim)
        .filter(|line| line.len() < whole.len() && line.len() >= LINE_FROM && !line.starts_with("-----"));
    std::iter::once(whole).chain(lines).filter(|part| part.len() >= TOO_SHORT)
}

/// A secret without what cannot be seen.
pub(super) fn tight(part: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Projection::of(part).bytes)
}

/// Blacks out secret-like strings where no known secrets are at hand. Returns
/// the text and how many places were blacked out.
pub fn redact(text: &str) -> (String, u32) {
    static NONE: LazyLock<Secrets> = LazyLock::new(Secrets::none);
    NONE.redact(text)
}

/// How many places were blacked out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Known secrets.
    pub known: u32,
    /// Strings that look like secrets.
    pub alike: u32,
}

/// Redacts the whole of `text` and returns what came of its first `emit`
/// bytes (a character boundary). The rest is searched too, so that a secret
/// that begins before the cut and ends after it is found.
pub(super) fn scrub(text: &str, emit: usize, secrets: &Secrets) -> (String, Found) {
    let mut found = Found::default();
    let mut current = once(text, emit, secrets, &mut found);
    // What is left beside a black-out may read as something new.
    for _ in 1..PASSES {
        let before = found;
        let next = once(&current, current.len(), secrets, &mut found);
        current = next;
        if found == before {
            break;
        }
    }
    (current, found)
}

fn once(text: &str, emit: usize, secrets: &Secrets, found: &mut Found) -> String {
    let known = merged(known_ranges(text, secrets));
    let alike = merged(alike_ranges(text));
    let mut all = known.clone();
    all.extend(alike);
    let all = merged(all);

    let mut out = String::with_capacity(emit.min(text.len()));
    let mut at = 0;
    let mut next_known = 0;
    for range in all {
        if range.start >= emit {
            break;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(PLACEHOLDER);
        while next_known < known.len() && known[next_known].end <= range.start {
            next_known += 1;
        }
        if next_known < known.len() && known[next_known].start < range.end {
            found.known = found.known.saturating_add(1);
        } else {
            found.alike = found.alike.saturating_add(1);
        }
        at = range.end;
    }
    if at < emit {
        out.push_str(&text[at..emit]);
    }
    out
}

/// Sorts, joins what overlaps, drops what is empty.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

// ---------------------------------------------------------------- known ---

fn automaton(patterns: &[Zeroizing<Vec<u8>>], any_case: bool) -> Option<AhoCorasick> {
    if patterns.is_empty() {
        return None;
    }
    // Building fails only past billions of states; the values come from our
    // own configuration, which is bounded.
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(any_case)
        .build(patterns.iter().map(|pattern| pattern.as_slice()))
        .ok()
}

/// The characters of a base64 text that stand for `bytes` alone, for each of
/// the three places at which `bytes` may begin within a group, in the standard
/// and in the URL-safe alphabet.
pub(super) fn base64_windows(bytes: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut out: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(6);
    for before in 0..3_usize {
        let mut padded = Zeroizing::new(vec![0_u8; before]);
        padded.extend_from_slice(bytes);
        // Characters that hold bits of the byte before, and of the byte after.
        let first = [0, 2, 3][before];
        let last = padded.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(padded.as_slice()));
            let window = &encoded.as_bytes()[first..last];
            if !out.iter().any(|known| known.as_slice() == window) {
                out.push(Zeroizing::new(window.to_vec()));
            }
        }
    }
    out
}

pub(super) fn only_alphanumeric(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|&byte| byte.is_ascii_alphanumeric() || byte >= 0x80).collect()
}

fn known_ranges(text: &str, secrets: &Secrets) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    if let Some(short) = &secrets.short {
        for found in short.find_overlapping_iter(text) {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let before = text[..found.start()].chars().next_back();
            let after = text[found.end()..].chars().next();
            if !before.is_some_and(word) && !after.is_some_and(word) {
                ranges.push(found.range());
            }
        }
    }
    if secrets.squeezed.is_none() {
        return ranges;
    }
    let mut projection = Projection::of(text);
    // As it stands, with its escapes undone, and with escaped escapes undone.
    for level in 0..3 {
        if let Some(squeezed) = &secrets.squeezed {
            for found in squeezed.find_overlapping_iter(&projection.bytes) {
                let is_base64 = secrets.squeezed_is_base64[found.pattern().as_usize()];
                ranges.push(if is_base64 {
                    projection.source(&projection.widened(found.range()))
                } else {
                    projection.source(&found.range())
                });
            }
        }
        let letters = projection.alphanumeric();
        for automaton in [&secrets.alphanumeric, &secrets.hex].into_iter().flatten() {
            for found in automaton.find_overlapping_iter(&letters.bytes) {
                ranges.push(letters.source(&found.range()));
            }
        }
        if level < 2 {
            let Some(next) = projection.unescaped() else {
                break;
            };
            projection = next;
        }
    }
    ranges
}

/// A view of a text in which each byte remembers the stretch of the text that
/// it came from.
struct Projection {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

impl Projection {
    /// Drops what cannot be seen: spaces, line breaks, controls, terminal
    /// sequences, zero-width characters. [`PLACEHOLDER`] becomes a barrier.
    ///
    /// Texts over 4 GiB would not fit the spans; callers are far below.
    fn of(text: &str) -> Self {
        Self::dropping(text, |c| c.is_whitespace() || is_invisible(c))
    }

    /// Drops invisible characters and keeps spaces: what a reader sees.
    fn visible(text: &str) -> Self {
        Self::dropping(text, |c| is_invisible(c) && !c.is_whitespace())
    }

    fn dropping(text: &str, drop: impl Fn(char) -> bool) -> Self {
        let mut out = Self { bytes: Vec::with_capacity(text.len()), spans: Vec::with_capacity(text.len()) };
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            if c == '[' && text[at..].starts_with(PLACEHOLDER) {
                out.push(BARRIER, at, at + PLACEHOLDER.len());
                at += PLACEHOLDER.len();
                continue;
            }
            if c == '\u{1b}' || c == '\u{9b}' {
                at += terminal_sequence(&text[at..]);
                continue;
            }
            let end = at + c.len_utf8();
            if !drop(c) {
                for &byte in &text.as_bytes()[at..end] {
                    out.push(byte, at, end);
                }
            }
            at = end;
        }
        out
    }

    fn push(&mut self, byte: u8, start: usize, end: usize) {
        self.bytes.push(byte);
        self.spans.push((start as u32, end as u32));
    }

    /// The stretch of the text behind a stretch of this projection.
    fn source(&self, range: &Range<usize>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        self.spans[range.start].0 as usize..self.spans[range.end - 1].1 as usize
    }

    /// A base64 match with the neighbouring characters that hold some of its
    /// bits, and the padding; only those that stand directly beside it.
    fn widened(&self, range: Range<usize>) -> Range<usize> {
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
        let (mut start, mut end) = (range.start, range.end);
        if start > 0 && in_alphabet(self.bytes[start - 1]) && self.spans[start - 1].1 == self.spans[start].0 {
            start -= 1;
        }
        let touches = |end: usize| end < self.bytes.len() && self.spans[end - 1].1 == self.spans[end].0;
        if touches(end) && in_alphabet(self.bytes[end]) {
            end += 1;
        }
        let mut padding = 0;
        while padding < 2 && touches(end) && self.bytes[end] == b'=' {
            end += 1;
            padding += 1;
        }
        start..end
    }

    /// Letters and digits alone.
    fn alphanumeric(&self) -> Self {
        let mut out = Self { bytes: Vec::new(), spans: Vec::new() };
        for (&byte, &span) in self.bytes.iter().zip(&self.spans) {
            if byte.is_ascii_alphanumeric() || byte >= 0x80 {
                out.bytes.push(byte);
                out.spans.push(span);
            }
        }
        out
    }

    /// Undoes one layer of `%41`, `&#65;`, `&amp;`, `\u0041`, `\x41`, `\n`,
    /// `\"`; `None` if there was nothing to undo.
    fn unescaped(&self) -> Option<Self> {
        let bytes = &self.bytes;
        let mut out = Self { bytes: Vec::with_capacity(bytes.len()), spans: Vec::with_capacity(bytes.len()) };
        let mut changed = false;
        let mut at = 0;
        while at < bytes.len() {
            let (undone, length) = escape(&bytes[at..]);
            if let Some(written) = undone {
                changed = true;
                let span = (self.spans[at].0, self.spans[at + length - 1].1);
                for &byte in written.as_bytes() {
                    if byte != BARRIER {
                        out.bytes.push(byte);
                        out.spans.push(span);
                    }
                }
            } else {
                out.bytes.push(bytes[at]);
                out.spans.push(self.spans[at]);
            }
            at += length;
        }
        changed.then_some(out)
    }
}

/// What an escape stands for: at most one character.
pub(super) struct Written {
    bytes: [u8; 4],
    length: usize,
}

impl Written {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What the escape at the beginning stands for, without what cannot be seen,
/// and its length; nothing and 1 where there is none.
pub(super) fn escape(bytes: &[u8]) -> (Option<Written>, usize) {
    let first = bytes.first().copied().unwrap_or_default();
    let (value, length) = match first {
        b'%' => hex_value(bytes.get(1..3)).map_or((None, 1), |v| (Some(v), 3)),
        b'\\' => backslash_escape(bytes),
        b'&' => entity(bytes),
        _ => (None, 1),
    };
    let Some(value) = value else { return (None, 1) };
    let mut written = Written { bytes: [0; 4], length: 0 };
    // `%C3` and `\xC3` are bytes, `\u00c3` and `&#xC3;` are characters.
    if first == b'%' || bytes.get(1) == Some(&b'x') {
        written.bytes[0] = value as u8;
        written.length = usize::from(value > u32::from(b' ') && value != 0x7f);
    } else if let Some(c) = char::from_u32(value).filter(|c| !is_invisible(*c) && !c.is_whitespace()) {
        written.length = c.encode_utf8(&mut written.bytes).len();
    }
    (Some(written), length)
}

fn hex_value(digits: Option<&[u8]>) -> Option<u32> {
    let digits = std::str::from_utf8(digits?).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// Value and length of the escape that begins with a backslash.
fn backslash_escape(bytes: &[u8]) -> (Option<u32>, usize) {
    match bytes.get(1) {
        Some(b'u') => hex_value(bytes.get(2..6)).map_or((None, 1), |v| (Some(v), 6)),
        Some(b'x') => hex_value(bytes.get(2..4)).map_or((None, 1), |v| (Some(v), 4)),
        Some(b'n' | b'r' | b't' | b'f' | b'b') => (Some(u32::from(b'\n')), 2),
        Some(&byte) if byte.is_ascii_punctuation() => (Some(u32::from(byte)), 2),
        _ => (None, 1),
    }
}

/// Value and length of the HTML entity that begins with an ampersand.
fn entity(bytes: &[u8]) -> (Option<u32>, usize) {
    const NAMED: [(&[u8], u8); 30] = [
        (b"&lbrack;", b'['),
        (b"&rbrack;", b']'),
        (b"&lcub;", b'{'),
        (b"&rcub;", b'}'),
        (b"&amp;", b'&'),
        (b"&lt;", b'<'),
        (b"&gt;", b'>'),
        (b"&quot;", b'"'),
        (b"&apos;", b'\''),
        (b"&nbsp;", b' '),
        (b"&commat;", b'@'),
        (b"&num;", b'#'),
        (b"&excl;", b'!'),
        (b"&sol;", b'/'),
        (b"&bsol;", b'\\'),
        (b"&dollar;", b'$'),
        (b"&percnt;", b'%'),
        (b"&ast;", b'*'),
        (b"&plus;", b'+'),
        (b"&equals;", b'='),
        (b"&lowbar;", b'_'),
        (b"&grave;", b'`'),
        (b"&vert;", b'|'),
        (b"&period;", b'.'),
        (b"&comma;", b','),
        (b"&colon;", b':'),
        (b"&semi;", b';'),
        (b"&quest;", b'?'),
        (b"&lpar;", b'('),
        (b"&rpar;", b')'),
    ];
    if bytes.get(1) == Some(&b'#') {
        let (radix, first) = if matches!(bytes.get(2), Some(b'x' | b'X')) { (16, 3) } else { (10, 2) };
        let digits: Vec<u8> = bytes[first.min(bytes.len())..]
            .iter()
            .copied()
            .take(8)
            .take_while(|byte| char::from(*byte).is_digit(radix))
            .collect();
        let end = first + digits.len();
        let value = std::str::from_utf8(&digits).ok().and_then(|digits| u32::from_str_radix(digits, radix).ok());
        return match value {
            Some(value) if bytes.get(end) == Some(&b';') => (Some(value), end + 1),
            _ => (None, 1),
        };
    }
    NAMED
        .iter()
        .find(|(name, _)| bytes.starts_with(name))
        .map_or((None, 1), |(name, value)| (Some(u32::from(*value)), name.len()))
}

// ----------------------------------------------------------- invisibles ---

/// Characters that a reader does not see, or that change how others are seen:
/// controls, bidirectional overrides, zero-width characters, tags. Spaces and
/// line breaks among them are left to the caller.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Length in bytes of the terminal sequence that begins here (with ESC or the
/// one-character CSI). A sequence that is not finished is the introducer
/// alone, so that nobody can hide a whole text behind one character.
pub(super) fn terminal_sequence(text: &str) -> usize {
    /// Longest sequence that is looked for, in bytes.
    const LONGEST: usize = 512;
    let Some(first) = text.chars().next() else {
        return 0;
    };
    let introducer = first.len_utf8();
    let bytes = &text.as_bytes()[..text.len().min(LONGEST)];
    let (kind, body) = if first == '\u{9b}' {
        (b'[', introducer)
    } else if let Some(&kind) = bytes.get(introducer) {
        (kind, introducer + 1)
    } else {
        return introducer;
    };
    match kind {
        // CSI: parameters, intermediates, one final byte.
        b'[' => {
            let mut at = body;
            while at < bytes.len() && (0x20..=0x3f).contains(&bytes[at]) {
                at += 1;
            }
            match bytes.get(at) {
                Some(0x40..=0x7e) => at + 1,
                _ => introducer,
            }
        }
        // OSC, DCS, SOS, PM, APC: a string up to BEL or ST, on one line.
        b']' | b'P' | b'X' | b'^' | b'_' => {
            for at in body..bytes.len() {
                match bytes[at] {
                    0x07 => return at + 1,
                    0x1b if bytes.get(at + 1) == Some(&b'\\') => return at + 2,
                    // Another one begins, so this one is not finished. (It also
                    // keeps this linear: nothing is walked over twice.)
                    0x1b | b'\n' => break,
                    _ => {}
                }
            }
            introducer
        }
        // Charset and the like: one more byte.
        b'(' | b')' | b'#' | b'%' => match bytes.get(body) {
            Some(byte) if byte.is_ascii_graphic() => body + 1,
            _ => introducer,
        },
        b'7' | b'8' | b'=' | b'>' | b'c' | b'D' | b'E' | b'H' | b'M' | b'N' | b'O' | b'Z' => body,
        _ => introducer,
    }
}

// ---------------------------------------------------------- secret-like ---

/// One shape of secret. If the pattern has a group `s`, that alone is the
/// secret; `plausible` may veto what only looks like one.
struct Shape {
    pattern: Regex,
    plausible: fn(&[u8]) -> bool,
}

fn always(_: &[u8]) -> bool {
    true
}

fn has_digit(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit)
}

/// Mixed characters, as generated strings have them and words do not.
fn looks_random(value: &[u8]) -> bool {
    let count = |test: fn(&u8) -> bool| value.iter().filter(|byte| test(byte)).count();
    let upper = count(u8::is_ascii_uppercase);
    let lower = count(u8::is_ascii_lowercase);
    let digits = count(u8::is_ascii_digit);
    upper >= 4 && lower >= 4 && digits >= 3 && bits_per_byte(value) > 4.2
}

fn bits_per_byte(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for &byte in value {
        counts[byte as usize] += 1;
    }
    let total = value.len().max(1) as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum()
}

/// A value that stands for another value, or for none.
fn stands_for_nothing(value: &[u8]) -> bool {
    value.is_empty()
        || value.contains(&BARRIER)
        || matches!(value[0], b'$' | b'<' | b'{' | b'%' | b'*' | b'(' | b'&' | b'[')
        || value.iter().all(|&byte| matches!(byte, b'x' | b'X' | b'.' | b'-' | b'_'))
        || ["none", "null", "true", "false", "redacted", "undefined"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

/// `password=` is followed by a password, whatever it looks like.
fn a_password(value: &[u8]) -> bool {
    let value = unquoted(value);
    value.len() >= 3 && !stands_for_nothing(value)
}

/// What follows the name of a header, unless it is only the scheme and what
/// followed that is gone already.
fn a_credential(value: &[u8]) -> bool {
    a_password(value)
        && !["bearer", "token", "basic", "digest", "negotiate"]
            .iter()
            .any(|scheme| value.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// `password: …` and `X_TOKEN = …` also occur in source code and settings,
/// where a type, a call, a path or an address follows: there has to be
/// something that those do not have.
fn a_generated_value(value: &[u8]) -> bool {
    let quoted = unquoted(value).len() < value.len();
    let value = unquoted(value);
    if value.len() < 6
        || stands_for_nothing(value)
        || value.contains(&b'(')
        || value.windows(2).any(|pair| pair == b"::")
        || matches!(value[0], b'/' | b'.' | b'~')
        || value.starts_with(b"http://")
        || value.starts_with(b"https://")
    {
        return false;
    }
    has_digit(value)
        || (quoted && value.len() >= 8 && !value.iter().any(|byte| b" ./".contains(byte)))
        || (value.len() >= 20 && bits_per_byte(value) > 3.5)
}

/// One shape: where it is looked for and what vetoes it.
type Rule = (&'static str, fn(&[u8]) -> bool);

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    const RULES: &[Rule] = &[
        // Keys in PEM, to their end or to the end of the text.
        (r"-----BEGIN [A-Z0-9 ]{1,64}-----(?s:.*?)(?:-----END [A-Z0-9 ]{1,64}-----|\z)", always),
        // The rest of such a key whose beginning was cut away.
        (
            r"(?:[A-Za-z0-9+/]{60,76}=*\s{1,4}){2,}[A-Za-z0-9+/=]{0,76}\s{0,4}-----END [A-Z0-9 ]{0,64}PRIVATE KEY(?: BLOCK)?-----",
            always,
        ),
        // Forges.
        (r"\bgh[pousr]_[A-Za-z0-9]{16,}", always),
        (r"\bgithub_pat_[A-Za-z0-9_]{16,}", always),
        (r"\bgl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|oas|imt)-[A-Za-z0-9_.-]{16,}", always),
        // Models.
        (r"\bsk-ant-[A-Za-z0-9_-]{8,}", always),
        (r"\bsk-[A-Za-z0-9_-]{16,}", has_digit),
        (r"\bhf_[A-Za-z0-9]{24,}", always),
        (r"\b(?:gsk|xai)[_-][A-Za-z0-9]{24,}", always),
        // Clouds, chat, packages, payment.
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?:[\s:;,|=\x22']{1,8}[A-Za-z0-9/+]{40})?", always),
        (r"\bAIza[A-Za-z0-9_-]{30,}", always),
        (r"\bya29\.[A-Za-z0-9_-]{20,}", always),
        (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", always),
        (r"\bxapp-[0-9]-[A-Za-z0-9-]{10,}", always),
        (r"\bhooks\.slack\.com/services/(?<s>[A-Za-z0-9/_-]{20,})", always),
        (r"\bnpm_[A-Za-z0-9]{30,}", always),
        (r"\bpypi-[A-Za-z0-9_-]{40,}", always),
        (r"\bdckr_pat_[A-Za-z0-9_-]{16,}", always),
        (r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}", always),
        (r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", always),
        (r"\bAGE-SECRET-KEY-1[A-Z0-9]{40,}", always),
        // Anything signed by a web service.
        (r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*", always),
        // Headers.
        (
            r#"(?i)\b(?:authorization|private-token|job-token|x-api-key|x-auth-token|x-[a-z]{1,16}-token)["']?\s{0,4}[:=]\s{0,4}["']?(?:(?:bearer|token|basic|digest|negotiate)\s{1,4})?(?<s>[^\s"',;\xff]{4,})"#,
            a_credential,
        ),
        (r"(?i)\b(?:bearer|basic|token)\s{1,4}(?<s>[A-Za-z0-9._~+/-]{20,}=*)", has_digit),
        // Addresses with a password, or with a token alone.
        (r"://[^\s/:@\xff]{0,256}:(?<s>[^\s/@\xff]{1,512})@", always),
        (r"://(?<s>[A-Za-z0-9_-]{20,256})@", always),
        // Forty or more hex digits are a commit, unless a word says otherwise.
        (
            r#"(?i)(?:token|secret|password|passwd|passphrase|credential|api[ _-]?key)s?["'`]?(?:\s{1,4}(?:is|was))?\s{0,4}[:=]?\s{0,4}["'`]?(?<s>[0-9a-f]{32,})\b"#,
            always,
        ),
        // Assignments.
        (
            r#"(?i)(?:password|passwd|passphrase|\bpwd)["']?=(?<s>"[^"\n\xff]+"|'[^'\n\xff]+'|[^\s"'`,;&)\]}<>\xff]+)"#,
            a_password,
        ),
        (
            r#"(?i)(?:password|passwd|passphrase|token|secret|[_-](?:key|pat|auth|credentials?)|(?:api|access|private|secret)key)(?:_[a-z0-9_]{1,24})?["']?\s{0,4}(?::=|[:=])\s{0,4}(?<s>"[^"\n\xff]+"|'[^'\n\xff]+'|[^\s"'`,;&)\]}<>\xff]+)"#,
            a_generated_value,
        ),
        // The second half of a cloud key, which has no mark of its own.
        (r"(?:^|[^A-Za-z0-9/+=_-])(?<s>[A-Za-z0-9/+]{40})(?:$|[^A-Za-z0-9/+=_-])", looks_random),
    ];
    RULES
        .iter()
        .filter_map(|&(pattern, plausible)| {
            // Bytes, not characters: the projection may hold a barrier.
            let built = Regex::new(&format!("(?-u){pattern}"));
            debug_assert!(built.is_ok(), "{pattern}: {built:?}");
            Some(Shape { pattern: built.ok()?, plausible })
        })
        .collect()
});

fn alike_in(bytes: &[u8], mut report: impl FnMut(Range<usize>)) {
    for shape in SHAPES.iter() {
        let grouped = shape.pattern.captures_len() > 1;
        if grouped {
            for found in shape.pattern.captures_iter(bytes) {
                if let Some(secret) = found.name("s")
                    && (shape.plausible)(secret.as_bytes())
                {
                    report(secret.range());
                }
            }
        } else {
            for found in shape.pattern.find_iter(bytes) {
                if (shape.plausible)(found.as_bytes()) {
                    report(found.range());
                }
            }
        }
    }
}

static ENCODED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u)[A-Za-z0-9+/_-]{20,}={0,2}").ok());

fn alike_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let visible = Projection::visible(text);
    alike_in(&visible.bytes, |range| ranges.push(visible.source(&range)));
    if visible.bytes.iter().any(|byte| matches!(byte, b'%' | b'&' | b'\\'))
        && let Some(unescaped) = visible.unescaped()
    {
        alike_in(&unescaped.bytes, |range| {
            ranges.push(unescaped.source(&range));
        });
    }
    encoded_ranges(&visible, &mut ranges);
    ranges
}

/// Runs of base64 or hex characters that, decoded, hold something that looks
/// like a secret. All runs are decoded into one buffer, which is searched
/// once: to search each by itself would cost more than the search.
fn encoded_ranges(visible: &Projection, ranges: &mut Vec<Range<usize>>) {
    let Some(encoded) = ENCODED.as_ref() else {
        return;
    };
    let mut decoded: Vec<u8> = Vec::new();
    // Where in `decoded` each run begins, and the run.
    let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
    let mut add = |run: &Range<usize>, bytes: &[u8]| {
        // Text is what people encode; random bytes look like anything.
        let printable = bytes.iter().filter(|byte| (0x09..0x7f).contains(*byte)).count();
        if printable * 10 >= bytes.len() * 9 {
            runs.push((decoded.len(), run.clone()));
            decoded.extend_from_slice(bytes);
            decoded.extend_from_slice(&[BARRIER, b'\n']);
        }
    };
    for found in encoded.find_iter(&visible.bytes) {
        let run = found.as_bytes();
        if run.iter().all(u8::is_ascii_hexdigit)
            && let Ok(bytes) = hex::decode(&run[..run.len() / 2 * 2])
        {
            add(&found.range(), &bytes);
        }
        let standard: Vec<u8> = run
            .iter()
            .filter(|&&byte| byte != b'=')
            .map(|&byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                byte => byte,
            })
            .collect();
        // The run may begin within a group: something else stood before it.
        for skip in 0..4 {
            let Some(rest) = standard.get(skip..) else {
                break;
            };
            let whole = &rest[..rest.len() / 4 * 4];
            let Ok(mut bytes) = STANDARD.decode(whole) else {
                continue;
            };
            // The last group may be short.
            if let Ok(tail) = STANDARD_NO_PAD.decode(&rest[whole.len()..]) {
                bytes.extend(tail);
            }
            add(&found.range(), &bytes);
        }
    }
    alike_in(&decoded, |range| {
        let run = runs.partition_point(|(start, _)| *start <= range.start);
        if let Some((_, run)) = run.checked_sub(1).and_then(|run| runs.get(run)) {
            ranges.push(visible.source(run));
        }
    });
}
