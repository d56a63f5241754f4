//! Looks for known secrets in bytes of any kind and size.
//!
//! [`redaction`](super::redaction) takes secrets out of text. This finds out
//! whether they are in something that leaves as it is: the objects of a branch,
//! a file, an archive. It promises the same encodings (raw, base64 at any
//! alignment, hex, URL, HTML and JSON escapes, split by what cannot be seen),
//! and UTF-16 beside them, but takes bytes as they come: what is no text is
//! searched like text, and nothing is held in memory.
//!
//! The bytes pass through the same projections, one byte at a time. What a
//! reader does not see is dropped, and what remains steps three automata: one
//! over all of it, one over letters and digits alone, and one for hex. Escapes
//! are undone twice. Where the automata stand behind an undone escape they stand
//! without it soon enough, and from there on need not run a second time. It is
//! linear in the bytes, whatever they are.
//!
//! What it cannot find: a secret that was compressed, enciphered, or cut into
//! pieces that do not stand together; and secrets of fewer than
//! [six](SHORT) bytes, which stand in ordinary text.

use super::redaction::{
    ALPHANUMERIC_FROM, SHORT, base64_windows, escape, is_invisible, only_alphanumeric, parts_of, tight,
};
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// Longest terminal sequence that is taken out, in bytes.
const SEQUENCE_MAX: usize = 512;
/// Secrets up to this length (bytes) are looked for as UTF-16 too: a private key
/// of many lines would make many times as many patterns.
const STORED_MAX: usize = 200;
/// Bytes after a terminal sequence before it is asked whether it still matters.
const PIECE: usize = 512;
/// Longest escape that is undone, in bytes: `&#x0010FFFF;`.
const ESCAPE_MAX: usize = 12;

/// A pattern, and whose it is.
type Pattern = (Zeroizing<Vec<u8>>, usize);

/// One automaton, and whose each of its patterns is.
struct Needles {
    automaton: NFA,
    start: StateID,
    of: Vec<usize>,
}

impl Needles {
    fn new(patterns: &[Pattern], any_case: bool) -> Option<Self> {
        // Fails only past billions of states; the values come from our own
        // configuration, which is bounded.
        let automaton = NFA::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(any_case)
            .prefilter(false)
            .build(patterns.iter().map(|(pattern, _)| pattern.as_slice()))
            .ok()?;
        let start = automaton.start_state(Anchored::No).ok()?;
        Some(Self { automaton, start, of: patterns.iter().map(|(_, secret)| *secret).collect() })
    }

    /// Takes one byte. Returns whose pattern ends with it.
    #[inline]
    fn step(&self, state: &mut StateID, byte: u8) -> Option<usize> {
        *state = self.automaton.next_state(Anchored::No, *state, byte);
        if self.automaton.is_special(*state) && self.automaton.is_match(*state) {
            return self.of.get(self.automaton.match_pattern(*state, 0).as_usize()).copied();
        }
        None
    }
}

/// The secrets, ready to be looked for in bytes.
pub(super) struct Searcher {
    names: Vec<String>,
    /// Over what can be seen.
    squeezed: Needles,
    /// Over letters and digits alone.
    letters: Needles,
    /// The same where case does not count.
    hex: Needles,
}

/// What is looked for.
pub(super) enum Sought {
    /// Nothing: no secret is known that is long enough.
    Nothing,
    /// These.
    Secrets(Searcher),
    /// It could not be prepared: then everything counts as found.
    Broken,
}

/// What is found where the search could not be prepared.
const BROKEN: &str = "the search for secrets, which could not be prepared";

impl Sought {
    pub(super) fn new(secrets: &[(String, SecretString)]) -> Self {
        let (mut squeezed, mut letters, mut hexes): (Vec<Pattern>, Vec<Pattern>, Vec<Pattern>) = Default::default();
        for (index, (_, value)) in secrets.iter().enumerate() {
            for part in parts_of(value.expose_secret()) {
                let seen = tight(part);
                if seen.len() < SHORT {
                    continue;
                }
                // As it was given, squeezed, and as other programs store text.
                let mut writings = vec![Zeroizing::new(part.as_bytes().to_vec())];
                if seen.len() != part.len() {
                    writings.push(seen.clone());
                }
                if part.len() <= STORED_MAX {
                    let [little, big] = utf_16(part);
                    if !part.is_ascii() {
                        // Of ASCII in UTF-16 the zeros are dropped, and it is raw.
                        squeezed.push((Zeroizing::new(squeeze(&little)), index));
                        squeezed.push((Zeroizing::new(squeeze(&big)), index));
                        squeezed.extend(latin_1(part).map(|latin| (latin, index)));
                    }
                    writings.extend([little, big]);
                }
                for bytes in &writings {
                    hexes.push((Zeroizing::new(hex::encode(bytes.as_slice()).into_bytes()), index));
                    for encoded in base64_windows(bytes) {
                        letters.push((Zeroizing::new(only_alphanumeric(&encoded)), index));
                        squeezed.push((encoded, index));
                    }
                }
                letters.push((Zeroizing::new(only_alphanumeric(&seen)), index));
                squeezed.push((seen, index));
            }
        }
        if squeezed.is_empty() {
            return Self::Nothing;
        }
        letters.retain(|(pattern, _)| pattern.len() >= ALPHANUMERIC_FROM);
        let needles = || {
            Some(Searcher {
                names: secrets.iter().map(|(name, _)| name.clone()).collect(),
                squeezed: Needles::new(&squeezed, false)?,
                letters: Needles::new(&letters, false)?,
                hex: Needles::new(&hexes, true)?,
            })
        };
        needles().map_or(Self::Broken, Self::Secrets)
    }
}

impl Searcher {
    fn start(&self) -> Lane {
        Lane { squeezed: self.squeezed.start, letters: self.letters.start, hex: self.hex.start }
    }
}

fn utf_16(text: &str) -> [Zeroizing<Vec<u8>>; 2] {
    let bytes = |of: fn(u16) -> [u8; 2]| Zeroizing::new(text.encode_utf16().flat_map(of).collect::<Vec<u8>>());
    [bytes(u16::to_le_bytes), bytes(u16::to_be_bytes)]
}

fn latin_1(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.map(|bytes| Zeroizing::new(squeeze(&bytes)))
}

/// What the search sees of bytes in which nothing is escaped.
fn squeeze(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut squeezer = Squeezer::default();
    for &byte in bytes {
        squeezer.push(byte, &mut |byte| out.push(byte));
    }
    squeezer.flush(&mut |byte| out.push(byte));
    out
}

/// Where the three automata stand.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lane {
    squeezed: StateID,
    letters: StateID,
    hex: StateID,
}

impl Lane {
    #[inline]
    fn step(&mut self, searcher: &Searcher, byte: u8) -> Option<usize> {
        let mut found = searcher.squeezed.step(&mut self.squeezed, byte);
        if is_letter(byte) {
            found = found.or(searcher.letters.step(&mut self.letters, byte));
            found = found.or(searcher.hex.step(&mut self.hex, byte));
        }
        found
    }

    /// The same for all bytes up to the next that may be part of something
    /// larger. Returns how many; most of most bytes.
    fn step_over(&mut self, searcher: &Searcher, bytes: &[u8], found: &mut Option<usize>) -> usize {
        // Known to the processor alone: three automata in step are as fast as one.
        let mut lane = *self;
        let mut count = 0;
        while let Some(&byte) = bytes.get(count) {
            match CLASSES[usize::from(byte)] {
                Class::Unseen => {}
                Class::Larger if bytes.get(count + 1).is_none_or(|next| may_go_on(byte, *next)) => break,
                _ => {
                    if let Some(secret) = lane.step(searcher, byte) {
                        *found = found.or(Some(secret));
                    }
                }
            }
            count += 1;
        }
        *self = lane;
        count
    }
}

/// Whether two bytes may be the beginning of something larger.
#[inline]
const fn may_go_on(first: u8, next: u8) -> bool {
    match first {
        // Unseen bytes may stand within an escape.
        b'%' | b'&' | b'\\' if matches!(next, 0..=b' ' | 0x7f..) => true,
        b'%' => next.is_ascii_hexdigit(),
        b'&' => next == b'#' || next.is_ascii_lowercase(),
        b'\\' => next.is_ascii_punctuation() || matches!(next, b'u' | b'x' | b'n' | b'r' | b't' | b'f' | b'b'),
        _ => matches!(next, 0x80..0xc0),
    }
}

/// What a byte is to the search.
#[derive(Clone, Copy)]
enum Class {
    /// Not seen by a reader.
    Unseen,
    /// A letter or digit.
    Letter,
    /// Seen, and neither of these.
    Other,
    /// It may be part of a character, an escape or a terminal sequence.
    Larger,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            // An escape, or in UTF-8 the beginning of what no reader sees.
            b'%' | b'&' | b'\\' | 0xc2 | 0xcd | 0xd8 | 0xe1 | 0xe2 | 0xe3 | 0xef | 0xf0 | 0xf3 => Class::Larger,
            0..=b' ' | 0x7f => Class::Unseen,
            byte if is_letter(byte) => Class::Letter,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

#[inline]
const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Drops what cannot be seen: controls and spaces (and with them the zeros of
/// UTF-16), and characters of no width.
#[derive(Clone, Default)]
struct Squeezer {
    /// A character of UTF-8 that is not whole yet.
    character: [u8; 4],
    have: usize,
    need: usize,
}

impl Squeezer {
    #[inline]
    fn push(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        if self.have > 0 {
            if (0x80..0xc0).contains(&byte) {
                self.character[self.have] = byte;
                self.have += 1;
                if self.have == self.need {
                    let whole = std::str::from_utf8(&self.character[..self.have]).ok();
                    let seen = whole.and_then(|text| text.chars().next());
                    if seen.is_some_and(|c| is_invisible(c) || c.is_whitespace()) {
                        self.have = 0;
                    }
                    self.flush(out);
                }
                return;
            }
            self.flush(out);
        }
        match byte {
            0..=b' ' | 0x7f => {}
            0xc2..=0xf4 => {
                self.character[0] = byte;
                self.have = 1;
                self.need = if byte < 0xe0 { 2 } else { 3 + usize::from(byte >= 0xf0) };
            }
            _ => out(byte),
        }
    }

    fn flush(&mut self, out: &mut impl FnMut(u8)) {
        for &byte in &self.character[..std::mem::take(&mut self.have)] {
            out(byte);
        }
    }
}

/// Undoes one layer of escapes.
#[derive(Clone)]
struct Unescaper {
    /// Where the automata stand, while that is not where they stand without.
    lane: Lane,
    /// Whether it is not: not for long after each escape.
    differs: bool,
    /// What may be an escape, and where the automata stood before each byte of it.
    waiting: [u8; ESCAPE_MAX],
    before: [Lane; ESCAPE_MAX],
    waits: usize,
}

impl Unescaper {
    fn new(lane: Lane) -> Self {
        Self { lane, differs: false, waiting: [0; ESCAPE_MAX], before: [lane; ESCAPE_MAX], waits: 0 }
    }

    /// Whether it has nothing to say about the next byte, unless an escape begins.
    fn rests(&self) -> bool {
        self.waits == 0 && !self.differs
    }

    /// Takes a byte, and where the automata stood before it, one layer below.
    #[inline]
    fn push(&mut self, searcher: &Searcher, byte: u8, below: Lane, next: &mut impl FnMut(u8, Lane)) -> Option<usize> {
        if self.waits == 0 && !may_be_escape(byte) {
            return self.plain(searcher, byte, below, next);
        }
        self.waiting[self.waits] = byte;
        self.before[self.waits] = below;
        self.waits += 1;
        if self.waits < ESCAPE_MAX { None } else { self.resolve(searcher, false, next) }
    }

    #[inline]
    fn plain(&mut self, searcher: &Searcher, byte: u8, below: Lane, next: &mut impl FnMut(u8, Lane)) -> Option<usize> {
        // Where they stand alike they go on alike.
        self.differs &= self.lane != below;
        if !self.differs {
            // The layer below has seen it.
            next(byte, below);
            return None;
        }
        next(byte, self.lane);
        self.lane.step(searcher, byte)
    }

    /// Decides on what waits, from its beginning to the next that has to wait;
    /// at the end of the bytes on all of it.
    fn resolve(&mut self, searcher: &Searcher, end: bool, next: &mut impl FnMut(u8, Lane)) -> Option<usize> {
        let mut found = None;
        let (waiting, before, waits) = (self.waiting, self.before, self.waits);
        let mut at = 0;
        while at < waits {
            if at > 0 && may_be_escape(waiting[at]) && !end {
                break;
            }
            let (undone, length) = escape(&waiting[at..waits]);
            match undone {
                None => found = found.or(self.plain(searcher, waiting[at], before[at], next)),
                Some(written) => {
                    if !self.differs {
                        self.lane = before[at];
                    }
                    self.differs = true;
                    for byte in written.as_bytes() {
                        next(*byte, self.lane);
                        found = found.or(self.lane.step(searcher, *byte));
                    }
                }
            }
            at += length;
        }
        self.waiting.copy_within(at..waits, 0);
        self.before.copy_within(at..waits, 0);
        self.waits = waits - at;
        found
    }
}

#[inline]
const fn may_be_escape(byte: u8) -> bool {
    matches!(byte, b'%' | b'&' | b'\\')
}

/// One way through the projections.
#[derive(Clone)]
struct Way {
    squeezer: Squeezer,
    lane: Lane,
    once: Unescaper,
    twice: Unescaper,
}

impl Way {
    fn new(searcher: &Searcher) -> Self {
        let lane = searcher.start();
        Self { squeezer: Squeezer::default(), lane, once: Unescaper::new(lane), twice: Unescaper::new(lane) }
    }

    /// Whether it goes on as the other does.
    fn stands_like(&self, other: &Self) -> bool {
        let rests = |way: &Self| way.squeezer.have == 0 && way.once.rests() && way.twice.rests();
        self.lane == other.lane && rests(self) && rests(other)
    }

    fn feed(&mut self, searcher: &Searcher, bytes: &[u8], found: &mut Option<usize>) {
        let mut at = 0;
        while at < bytes.len() {
            if self.squeezer.have == 0 && self.once.rests() && self.twice.rests() {
                at += self.lane.step_over(searcher, &bytes[at..], found);
            }
            if let Some(&byte) = bytes.get(at) {
                self.push(searcher, byte, found);
                at += 1;
            }
        }
    }

    fn push(&mut self, searcher: &Searcher, byte: u8, found: &mut Option<usize>) {
        let Self { squeezer, lane, once, twice } = self;
        squeezer.push(byte, &mut |byte| Self::seen(searcher, lane, once, twice, byte, found));
    }

    #[inline]
    fn seen(
        searcher: &Searcher,
        lane: &mut Lane,
        once: &mut Unescaper,
        twice: &mut Unescaper,
        byte: u8,
        found: &mut Option<usize>,
    ) {
        let before = *lane;
        let raw = lane.step(searcher, byte);
        let mut deep = None;
        let shallow = once.push(searcher, byte, before, &mut |byte, below| {
            // Nothing is escaped twice where nothing was undone once.
            deep = deep.or(twice.push(searcher, byte, below, &mut |_, _| {}));
        });
        *found = found.or(raw).or(shallow).or(deep);
    }

    fn finish(&mut self, searcher: &Searcher, found: &mut Option<usize>) {
        let Self { squeezer, lane, once, twice } = self;
        squeezer.flush(&mut |byte| Self::seen(searcher, lane, once, twice, byte, found));
        let mut deep = None;
        let shallow = once.resolve(searcher, true, &mut |byte, below| {
            deep = deep.or(twice.push(searcher, byte, below, &mut |_, _| {}));
        });
        let rest = twice.resolve(searcher, true, &mut |_, _| {});
        *found = found.or(shallow).or(deep).or(rest);
    }
}

/// Takes terminal sequences out, before anything else is looked at.
#[derive(Clone, Default)]
struct Terminal {
    sequence: Vec<u8>,
}

impl Terminal {
    fn push(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        if self.sequence.is_empty() {
            if byte == 0x1b {
                self.sequence.push(byte);
            } else {
                out(byte);
            }
            return;
        }
        self.sequence.push(byte);
        let whole = match self.sequence[1] {
            // Parameters, then one letter.
            b'[' => match byte {
                b'[' if self.sequence.len() == 2 => None,
                0x20..=0x3f => None,
                byte => Some((0x40..=0x7e).contains(&byte)),
            },
            // A string of its own, to BEL or ST, on one line.
            b']' | b'P' | b'X' | b'^' | b'_' => match byte {
                0x07 => Some(true),
                b'\\' if self.sequence[self.sequence.len() - 2] == 0x1b => Some(true),
                b'\n' => Some(false),
                _ => None,
            },
            b'(' | b')' | b'#' | b'%' if self.sequence.len() < 3 => None,
            b'(' | b')' | b'#' | b'%' => Some(byte.is_ascii_graphic()),
            b'7' | b'8' | b'=' | b'>' | b'c' | b'D' | b'E' | b'H' | b'M' | b'N' | b'O' | b'Z' => Some(true),
            _ => Some(false),
        };
        match whole {
            Some(true) => self.sequence.clear(),
            Some(false) => self.flush(out),
            None if self.sequence.len() >= SEQUENCE_MAX => self.flush(out),
            None => {}
        }
    }

    fn flush(&mut self, out: &mut impl FnMut(u8)) {
        for byte in std::mem::take(&mut self.sequence) {
            out(byte);
        }
    }
}

/// A search that goes on: bytes are fed to it as they come.
pub struct Search<'a> {
    sought: &'a Sought,
    ways: Option<Box<Ways>>,
    found: Option<usize>,
}

/// As it stands; and from the first terminal sequence on also without those.
struct Ways {
    plain: Way,
    stripped: Option<(Terminal, Way)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(sought: &'a Sought) -> Self {
        let ways = match sought {
            Sought::Secrets(searcher) => Some(Box::new(Ways { plain: Way::new(searcher), stripped: None })),
            Sought::Nothing | Sought::Broken => None,
        };
        Self { sought, ways, found: None }
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let (Sought::Secrets(searcher), Some(ways), None) = (self.sought, &mut self.ways, self.found) else { return };
        let Ways { plain, stripped } = ways.as_mut();
        let found = &mut self.found;
        let mut rest = bytes;
        while !rest.is_empty() {
            let next = rest.iter().position(|byte| *byte == 0x1b).unwrap_or(rest.len());
            let Some((terminal, way)) = stripped else {
                let (before, after) = rest.split_at(next);
                plain.feed(searcher, before, found);
                if !after.is_empty() {
                    *stripped = Some((Terminal::default(), plain.clone()));
                }
                rest = after;
                continue;
            };
            if next == 0 || !terminal.sequence.is_empty() {
                terminal.push(rest[0], &mut |byte| way.push(searcher, byte, found));
                plain.feed(searcher, &rest[..1], found);
                rest = &rest[1..];
                continue;
            }
            let (piece, after) = rest.split_at(next.min(PIECE));
            way.feed(searcher, piece, found);
            plain.feed(searcher, piece, found);
            rest = after;
            if way.stands_like(plain) {
                *stripped = None;
            }
        }
    }

    /// Ends the search. Returns the name of a secret that is in the bytes.
    pub fn finish(mut self) -> Option<&'a str> {
        let searcher = match self.sought {
            Sought::Nothing => return None,
            Sought::Broken => return Some(BROKEN),
            Sought::Secrets(searcher) => searcher,
        };
        if let (Some(ways), None) = (&mut self.ways, self.found) {
            ways.plain.finish(searcher, &mut self.found);
            if let Some((terminal, way)) = &mut ways.stripped {
                let found = &mut self.found;
                terminal.flush(&mut |byte| way.push(searcher, byte, found));
                way.finish(searcher, found);
            }
        }
        searcher.names.get(self.found?).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_reader_sees_takes_the_longer_way() {
        for c in (0x80..=0x10_ffff).filter_map(char::from_u32).filter(|c| is_invisible(*c) || c.is_whitespace()) {
            let first = c.encode_utf8(&mut [0; 4]).as_bytes()[0];
            assert!(matches!(CLASSES[usize::from(first)], Class::Larger), "{c:?} begins with {first:x}");
        }
    }
}
