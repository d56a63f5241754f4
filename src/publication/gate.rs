//! The one gate through which every text passes on its way to the forge.
//!
//! Two doors, in this order:
//!
//! 1. Each *piece* of untrusted text (an agent's words, a commit's subject, a
//!    file name, a person's reason) becomes a [`Clean`] by way of [`inline`]
//!    or [`block`]. Templates take nothing else.
//! 2. The whole *comment*, template and pieces, goes through [`comment`],
//!    which trusts neither: it looks for secrets again, and makes inert
//!    whatever could notify, refer, command, load or hide.
//!
//! Things are made inert rather than deleted, so that a reader sees what was
//! there, and so that taking something away never joins its two sides into
//! something new. The means is a zero-width space after `@`, `#` and `!`
//! (entities and backslashes are not enough: the forge looks for mentions in
//! the *rendered* text too), `&lt;` for tags, and a `›` before a command.
//!
//! What is code and what is not is asked of a Markdown parser, twice, with
//! and without extensions, and only what both call a code span or a fence
//! counts: the forge's own parser is a third one. Making one thing inert can
//! change what the rest means (a backtick in an attribute is not code until
//! its tag is gone), so [`comment`] repeats until nothing changes, and if
//! that does not come to an end, publishes the whole as one fence.

use std::fmt;
use std::ops::{AddAssign, Range};
use std::sync::LazyLock;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};
use regex::Regex;
use serde::{Deserialize, Serialize};

pub use super::redaction::Secrets;
use super::redaction::{PLACEHOLDER, is_invisible, scrub, terminal_sequence};

/// The longest comment that is published, in bytes. The forge itself takes
/// 20 MB and serves it slowly to everyone; our own limit leaves room for the
/// marker.
pub const MAX_COMMENT: usize = 60_000;

/// Bytes beyond a limit that are read all the same, so that a secret across
/// the cut is seen whole. Longer than any encoding of a credential.
const MARGIN: usize = 64 * 1024;

/// Room for the note that a comment was cut, and for closing what was open.
const NOTE: usize = 2_000;

/// How often a comment is gone over before it is published as one fence.
const PASSES: usize = 10;

/// Zero-width space: the one invisible character that [`comment`] lets
/// through, because the gate itself puts it there.
const BREAK: char = '\u{200b}';

/// Put before a slash command: seen by people, and no bot's prefix.
const COMMAND_MARK: &str = "› ";

/// How much of a piece of untrusted text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommentLimits {
    /// For [`inline`]: characters, before escaping. 200 by default.
    pub chars: usize,
    /// For [`block`]: bytes, without the fence. 8 KiB by default.
    pub bytes: usize,
    /// For [`block`]: lines. 400 by default.
    pub lines: usize,
}

impl Default for CommentLimits {
    fn default() -> Self {
        Self { chars: 200, bytes: 8 * 1024, lines: 400 }
    }
}

/// What [`comment`] leaves as the template wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed<'a> {
    /// Logins, without `@`, that may be mentioned. Case does not count.
    pub mentions: &'a [String],
    /// References exactly as written: `#8`, `acme/widget#8`, or the whole
    /// address of an issue or pull request up to its number.
    pub references: &'a [String],
}

/// What the gate took away or made inert; for the comment itself and for the
/// ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Removed {
    /// Known secrets of the host or the cell.
    pub secrets: u32,
    /// Strings that look like secrets.
    pub secret_like: u32,
    /// `@name`.
    pub mentions: u32,
    /// `#1`, `!1`, `owner/repo#1`, addresses of issues and pull requests.
    pub references: u32,
    /// Slash commands at the start of a line.
    pub commands: u32,
    /// Images, remote or not.
    pub images: u32,
    /// HTML tags and comments, forged markers among them.
    pub html: u32,
    /// Addresses that would have become links.
    pub links: u32,
    /// Control, bidirectional and zero-width characters.
    pub control: u32,
    /// Bytes that were left out because the text was too long.
    pub truncated_bytes: u64,
}

impl Removed {
    /// Whether the text passed as it was.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        let add = |mine: &mut u32, theirs: u32| *mine = mine.saturating_add(theirs);
        add(&mut self.secrets, other.secrets);
        add(&mut self.secret_like, other.secret_like);
        add(&mut self.mentions, other.mentions);
        add(&mut self.references, other.references);
        add(&mut self.commands, other.commands);
        add(&mut self.images, other.images);
        add(&mut self.html, other.html);
        add(&mut self.links, other.links);
        add(&mut self.control, other.control);
        self.truncated_bytes = self.truncated_bytes.saturating_add(other.truncated_bytes);
    }
}

/// A short sentence for the comment: `removed: 1 secret, 2 mentions`.
impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing removed");
        }
        let counted = [
            (u64::from(self.secrets), "secret", "secrets"),
            (u64::from(self.secret_like), "secret-like string", "secret-like strings"),
            (u64::from(self.mentions), "mention", "mentions"),
            (u64::from(self.references), "reference", "references"),
            (u64::from(self.commands), "command", "commands"),
            (u64::from(self.images), "image", "images"),
            (u64::from(self.html), "HTML tag", "HTML tags"),
            (u64::from(self.links), "link", "links"),
            (u64::from(self.control), "invisible character", "invisible characters"),
            (self.truncated_bytes, "byte over the limit", "bytes over the limit"),
        ];
        let mut before = "removed: ";
        for (count, one, many) in counted {
            if count > 0 {
                write!(f, "{before}{count} {}", if count == 1 { one } else { many })?;
                before = ", ";
            }
        }
        Ok(())
    }
}

/// Markdown that came out of the gate: harmless wherever a template puts it.
/// There is no other way to make one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Clean(String);

impl Clean {
    /// The Markdown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Clean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Clean {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// One line of untrusted text, to stand inside a sentence, a table cell or a
/// `<summary>` of ours. Line breaks become spaces; everything that means
/// something in Markdown or HTML becomes an entity, which both contexts
/// understand (so not inside a code span: there entities are shown as
/// written).
pub fn inline(untrusted: &str, limits: CommentLimits, secrets: &Secrets) -> (Clean, Removed) {
    let mut removed = Removed::default();
    // A character is at most four bytes, an escape sequence may be longer.
    let (text, unread) = read(untrusted, limits.chars.saturating_mul(16), secrets, &mut removed);

    let mut line = String::with_capacity(text.len().min(1024));
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let cut = line.char_indices().nth(limits.chars).map(|(at, _)| at);
    if cut.is_some() || unread > 0 {
        let at = cut.unwrap_or(line.len());
        removed.truncated_bytes += unread + (line.len() - at) as u64;
        line.truncate(at);
        line.push('…');
    }
    (Clean(escape_inline(&line, &mut removed)), removed)
}

fn escape_inline(line: &str, removed: &mut Removed) -> String {
    let mut out = String::with_capacity(line.len() + line.len() / 4);
    // A number at the start would begin a list.
    let number = line.bytes().take_while(u8::is_ascii_digit).count();
    let mut skip = 0;
    for (at, c) in line.char_indices() {
        let rest = &line[at..];
        if at < skip {
            continue;
        }
        if let Some(after) = rest.strip_prefix(PLACEHOLDER) {
            out.push_str(PLACEHOLDER);
            // Nor may it become a link, or define one.
            if after.starts_with(['(', '[', ':']) {
                out.push(BREAK);
            }
            skip = at + PLACEHOLDER.len();
            continue;
        }
        let after = &rest[c.len_utf8()..];
        match c {
            '<' => {
                if starts_tag(after) {
                    removed.html = removed.html.saturating_add(1);
                }
                push_entity(&mut out, c);
            }
            '[' => {
                push_entity(&mut out, c);
                // The forge makes links, and images, of `[[…]]` in rendered text.
                if after.starts_with('[') {
                    removed.links = removed.links.saturating_add(1);
                    out.push(BREAK);
                }
            }
            '~' => out.push_str(TILDE),
            '&' | '>' | '\\' | '`' | '*' | '_' | ']' | '|' | '$' | '{' | '}' => {
                // Within a word an underscore is only an underscore.
                let within = c == '_'
                    && line[..at].ends_with(|c: char| c.is_alphanumeric())
                    && after.starts_with(|c: char| c.is_alphanumeric());
                if within {
                    out.push('_');
                } else {
                    push_entity(&mut out, c);
                }
            }
            '@' => {
                if after.starts_with(|c: char| c.is_alphanumeric()) {
                    removed.mentions = removed.mentions.saturating_add(1);
                }
                out.push('@');
                out.push(BREAK);
            }
            '#' | '!' => {
                out.push(c);
                if c == '!' && after.starts_with('[') {
                    removed.images = removed.images.saturating_add(1);
                } else if after.starts_with(|c: char| c.is_ascii_digit()) {
                    removed.references = removed.references.saturating_add(1);
                }
                // What the template puts behind it is not known here.
                if after.is_empty() || joins(after) || after.starts_with(['>', '|', '}']) || (c == '#' && at == 0) {
                    out.push(BREAK);
                }
            }
            ':' if after.starts_with("//") => {
                removed.links = removed.links.saturating_add(1);
                out.push(':');
                out.push(BREAK);
            }
            'w' | 'W' if is_www(rest) && !line[..at].ends_with(|c: char| c.is_alphanumeric()) => {
                removed.links = removed.links.saturating_add(1);
                out.push(c);
                out.push(BREAK);
            }
            '/' if numbered_path(rest).is_some() => {
                // The address itself is broken at its `://`, if it has one.
                removed.references = removed.references.saturating_add(1);
                out.push('/');
                out.push(BREAK);
            }
            // Behind nothing but marks it stands at the start of the text that is shown.
            '/' if at > 0
                && after.starts_with(|c: char| c.is_ascii_alphabetic())
                && line[..at].chars().all(|c| c.is_whitespace() || ">*+_~-".contains(c)) =>
            {
                removed.commands = removed.commands.saturating_add(1);
                out.push(BREAK);
                out.push('/');
            }
            '+' | '=' if at == 0 => push_entity(&mut out, c),
            '-' if at == 0 => {
                out.push(BREAK);
                out.push(c);
            }
            '.' | ')' if number > 0 && at == number => push_entity(&mut out, c),
            _ => out.push(c),
        }
    }
    out
}

/// Characters that mean something in Markdown, by their names. Names, because
/// `&#91;` would itself look like a reference to whoever does not decode it.
const ENTITIES: [(char, &str); 17] = [
    ('&', "&amp;"),
    ('<', "&lt;"),
    ('>', "&gt;"),
    ('[', LEFT_BRACKET),
    (']', "&rbrack;"),
    ('\\', "&bsol;"),
    ('`', "&grave;"),
    ('*', "&ast;"),
    ('_', "&lowbar;"),
    ('|', "&vert;"),
    ('$', "&dollar;"),
    ('{', "&lcub;"),
    ('}', "&rcub;"),
    ('+', "&plus;"),
    ('=', "&equals;"),
    ('.', "&period;"),
    (')', "&rpar;"),
];

/// A bracket that begins no link.
const LEFT_BRACKET: &str = "&lbrack;";

/// The tilde has no name.
const TILDE: &str = "&#126;";

fn push_entity(out: &mut String, c: char) {
    match ENTITIES.iter().find(|(character, _)| *character == c) {
        Some((_, entity)) => out.push_str(entity),
        None => out.push(c),
    }
}

/// Untrusted text of any number of lines, as a fenced block. The fence is
/// longer than any run of backticks or tildes within. To be put at the start
/// of a line, after an empty one. There is no line break at its end.
pub fn block(untrusted: &str, limits: CommentLimits, secrets: &Secrets) -> (Clean, Removed) {
    let mut removed = Removed::default();
    let (mut text, unread) = read(untrusted, limits.bytes, secrets, &mut removed);

    let whole = text.len();
    text.truncate(floor_char_boundary(&text, limits.bytes));
    if let Some((at, _)) = text.match_indices('\n').nth(limits.lines.saturating_sub(1)) {
        // A line break at the very end begins no further line.
        if at + 1 < text.len() {
            text.truncate(at);
        }
    }
    let cut = unread + (whole - text.len()) as u64;
    removed.truncated_bytes += cut;
    text.truncate(text.trim_end().len());
    (Clean(fenced(&text, cut, &mut removed)), removed)
}

fn fenced(text: &str, cut: u64, removed: &mut Removed) -> String {
    let text = without_markers(text, removed);
    let mut fence = 3;
    let mut run = 0;
    let mut before = '\0';
    for c in text.chars() {
        run = if matches!(c, '`' | '~') && (c == before || run == 0) {
            run + 1
        } else {
            usize::from(matches!(c, '`' | '~'))
        };
        before = c;
        fence = fence.max(run + 1);
    }
    let fence = "`".repeat(fence);
    let mut out = format!("{fence}text\n{text}\n");
    if cut > 0 {
        out.push_str("[… ");
        out.push_str(&cut.to_string());
        out.push_str(" more bytes were cut]\n");
    }
    out.push_str(&fence);
    out
}

/// The last gate, over a whole comment: our template's output with its
/// [`Clean`] pieces. What comes out
///
/// - holds no known secret and nothing that looks like one,
/// - is at most [`MAX_COMMENT`] bytes long (else cut, with a note),
/// - does not begin with a line `---`, which the forge reads as front matter,
/// - and outside of code spans and fences has no mention or reference but the
///   `allowed` ones, no slash command, no image, and no HTML but
///   `<details>` and `<summary>`, bare and exactly so written,
/// - has no marker of Lazarus anywhere: the caller appends its own
///   ([`marker`]) on a line of its own after an empty line. No fence is open
///   at the end.
///
/// It goes through unchanged a second time.
pub fn comment(body: &str, allowed: Allowed<'_>, secrets: &Secrets) -> (String, Removed) {
    let mut removed = Removed::default();
    let window = MAX_COMMENT * 2;
    let (text, unread) = read_keeping(body, window, true, secrets, &mut removed);

    // Making things inert makes them longer, so that a cut may have to be
    // repeated further up, by as much as it came out too long.
    let mut budget = if unread == 0 { MAX_COMMENT } else { MAX_COMMENT - NOTE };
    for _ in 0..4 {
        let mut counts = removed;
        let whole = unread == 0 && text.len() <= budget;
        let shown = if whole { text.as_str() } else { &text[..cut_at_line(&text, budget)] };
        let Some(mut out) = settle(shown, allowed, secrets, &mut counts) else {
            break;
        };
        if !whole {
            let cut = unread + (text.len() - shown.len()) as u64;
            counts.truncated_bytes += cut;
            out.truncate(out.trim_end().len());
            out.push_str(&closing_details(&out));
            out.push_str("\n\n*This comment was too long: ");
            out.push_str(&cut.to_string());
            out.push_str(" bytes were cut.*\n");
            let Some(settled) = settle(&out, allowed, secrets, &mut counts) else {
                break;
            };
            out = settled;
        }
        if out.len() <= MAX_COMMENT {
            return (out, counts);
        }
        budget = shown.len().min(MAX_COMMENT) * (MAX_COMMENT - 2 * NOTE) / out.len();
    }

    // Nothing in a fence means anything, whatever it is. This is not pretty,
    // and only a text that was made to defeat the gate gets here.
    let limits = CommentLimits { bytes: 16 * 1024, ..CommentLimits::default() };
    let (fence, counts) = block(body, limits, secrets);
    (format!("{fence}\n"), counts)
}

/// Goes over a text until nothing changes; `None` if that does not happen.
fn settle(text: &str, allowed: Allowed<'_>, secrets: &Secrets, removed: &mut Removed) -> Option<String> {
    let mut text = text.to_owned();
    for _ in 0..PASSES {
        let (next, found) = scrub(&text, text.len(), secrets);
        removed.secrets = removed.secrets.saturating_add(found.known);
        removed.secret_like = removed.secret_like.saturating_add(found.alike);
        let next = without_markers(&next, removed);
        let next = inert(&next, allowed, removed);
        let next = closed(next)?;
        if next == text {
            return Some(text);
        }
        text = next;
    }
    None
}

// ------------------------------------------------------------- reading ---

/// The first `limit` bytes or so of untrusted text, without what cannot be
/// seen, and redacted; and how many bytes of it were not read.
fn read(untrusted: &str, limit: usize, secrets: &Secrets, removed: &mut Removed) -> (String, u64) {
    read_keeping(untrusted, limit.saturating_mul(2), false, secrets, removed)
}

fn read_keeping(
    untrusted: &str,
    window: usize,
    keep_breaks: bool,
    secrets: &Secrets,
    removed: &mut Removed,
) -> (String, u64) {
    let read = floor_char_boundary(untrusted, window);
    let seen = floor_char_boundary(untrusted, window.saturating_add(MARGIN));
    let text = visible(&untrusted[..read], keep_breaks, removed);
    let mut text = without_markers(&text, removed);
    let emit = text.len();
    // Searched for secrets, not shown, not counted.
    text.push_str(&visible(&untrusted[read..seen], keep_breaks, &mut Removed::default()));
    let (text, found) = scrub(&text, emit, secrets);
    removed.secrets = removed.secrets.saturating_add(found.known);
    removed.secret_like = removed.secret_like.saturating_add(found.alike);
    (text, (untrusted.len() - read) as u64)
}

/// Without terminal sequences and invisible characters; line breaks of every
/// kind as `\n`, tabs kept.
fn visible(text: &str, keep_breaks: bool, removed: &mut Removed) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let mut control = 0_u32;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '\r' => {
                if !text[at + 1..].starts_with('\n') {
                    out.push('\n');
                }
            }
            '\n' | '\t' => out.push(c),
            '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{1b}' | '\u{9b}' => {
                control = control.saturating_add(1);
                at += terminal_sequence(&text[at..]);
                continue;
            }
            BREAK if keep_breaks => out.push(c),
            c if is_invisible(c) => control = control.saturating_add(1),
            c => out.push(c),
        }
        at += c.len_utf8();
    }
    removed.control = removed.control.saturating_add(control);
    out
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// Where to cut so as not to exceed `budget`: at the end of a line, if there
/// is one within the last thousand bytes.
fn cut_at_line(text: &str, budget: usize) -> usize {
    let at = floor_char_boundary(text, budget);
    let from = floor_char_boundary(text, at.saturating_sub(1_000));
    text[from..at].rfind('\n').map_or(at, |line| from + line)
}

fn closing_details(text: &str) -> String {
    let code = code_ranges(text);
    let count = |tag: &str| text.match_indices(tag).filter(|(at, _)| covering(&code, *at).is_none()).count();
    let open = count("<details>").saturating_sub(count("</details>"));
    "\n\n</details>".repeat(open.min(8))
}

// ---------------------------------------------------------------- code ---

/// Fenced blocks and code spans, as both readings of the text have them.
/// Sorted, without overlap.
fn code_ranges(text: &str) -> Vec<Range<usize>> {
    let extended =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_FOOTNOTES;
    let one = code_by(text, extended);
    let other = code_by(text, Options::empty());
    // What both have, stretch by stretch.
    let mut both = Vec::with_capacity(one.len());
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let range = a.start.max(b.start)..a.end.min(b.end);
        if range.start < range.end && a == b {
            both.push(range);
        }
        if a.end <= b.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

fn code_by(text: &str, options: Options) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Parser::new_ext(text, options)
        .into_offset_iter()
        .filter_map(|(event, range)| match event {
            Event::Code(_) | Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))) => Some(range),
            _ => None,
        })
        .collect();
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut end = 0;
    ranges.retain(|range| {
        let apart = range.start >= end && range.start < range.end;
        if apart {
            end = range.end;
        }
        apart
    });
    ranges
}

fn covering(ranges: &[Range<usize>], at: usize) -> Option<&Range<usize>> {
    let next = ranges.partition_point(|range| range.end <= at);
    ranges.get(next).filter(|range| range.start <= at)
}

/// Closes a fence that is open at the end, which would swallow the marker.
/// `None` if that cannot be done.
fn closed(mut text: String) -> Option<String> {
    const PROBE: &str = "\n\n<!-- probe -->";
    for _ in 0..3 {
        let mut probed = text.clone();
        probed.push_str(PROBE);
        let at = text.len() + 2;
        let open = code_by(&probed, Options::empty()).into_iter().find(|range| range.contains(&at));
        let Some(open) = open else { return Some(text) };
        let start = text[open.start.min(text.len())..].trim_start_matches(' ');
        let mark = start.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let fence: String = start.chars().take_while(|c| *c == mark).collect();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&fence);
        text.push('\n');
    }
    None
}

// --------------------------------------------------------------- inert ---

static MARKER_LIKE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)<!--[\s\x{200b}]*lazarus[^>\n]*(?:-->)?").ok());

/// Takes away what looks like one of our markers, in code too: tools look for
/// the marker without asking a Markdown parser.
fn without_markers(text: &str, removed: &mut Removed) -> String {
    let Some(pattern) = MARKER_LIKE.as_ref() else {
        return text.to_owned();
    };
    let count = pattern.find_iter(text).count();
    if count == 0 {
        return text.to_owned();
    }
    removed.html = removed.html.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    pattern.replace_all(text, "[marker removed]").into_owned()
}

/// One pass over everything that is not code. Only ever adds characters or
/// replaces one by an entity, so that repeating it comes to an end.
fn inert(text: &str, allowed: Allowed<'_>, removed: &mut Removed) -> String {
    /// The tags that our templates use, exactly as they write them.
    const TAGS: [&str; 4] = ["<details>", "</details>", "<summary>", "</summary>"];

    let code = code_ranges(text);
    let mut code = code.iter().peekable();
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut line = LineStart::default();
    let mut at = front_matter(text, &mut out);
    let bump = |count: &mut u32| *count = count.saturating_add(1);

    while let Some(c) = text[at..].chars().next() {
        while code.next_if(|range| range.end <= at).is_some() {}
        if let Some(range) = code.peek()
            && range.start <= at
        {
            out.push_str(&text[at..range.end]);
            line = line.after(&text[at..range.end]);
            at = range.end;
            continue;
        }
        let rest = &text[at..];
        let mut length = c.len_utf8();
        let after = &rest[length..];
        match c {
            '@' => {
                if let Some(login) = allowed_mention(after, allowed.mentions) {
                    out.push('@');
                    out.push_str(login);
                    length += login.len();
                } else {
                    out.push('@');
                    if !after.is_empty() && !after.starts_with(|c: char| c == BREAK || c.is_whitespace()) {
                        if may_show_next(after, char::is_alphanumeric) {
                            bump(&mut removed.mentions);
                        }
                        out.push(BREAK);
                    }
                }
            }
            '!' if after.starts_with('[') => {
                bump(&mut removed.images);
                out.push('!');
                out.push(BREAK);
                out.push_str(LEFT_BRACKET);
                if opens_again(&after[1..]) {
                    out.push(BREAK);
                }
                length += 1;
            }
            '#' | '!' => {
                out.push(c);
                let digits = after.bytes().take_while(u8::is_ascii_digit).count();
                let number = &rest[..=digits];
                if digits > 0
                    && stands_alone(&after[digits..])
                    && allowed_reference(&text[..at], number, allowed.references)
                {
                    out.push_str(&after[..digits]);
                    length += digits;
                } else if joins(after) {
                    if may_show_next(after, |c| c.is_ascii_digit()) {
                        bump(&mut removed.references);
                    }
                    out.push(BREAK);
                }
            }
            '[' => {
                out.push('[');
                if opens_again(after) {
                    bump(&mut removed.links);
                    out.push(BREAK);
                }
            }
            '<' => {
                if let Some(tag) = TAGS.iter().find(|tag| rest.starts_with(**tag)) {
                    out.push_str(tag);
                    at += tag.len();
                    // Text after a tag of ours is still the start of a line.
                    continue;
                }
                // Whoever takes a tag of ours out must not be left with another.
                if starts_tag(after) || after.starts_with('<') {
                    bump(&mut removed.html);
                    out.push_str("&lt;");
                } else {
                    out.push('<');
                }
            }
            '&' => {
                if let Some(entity) = harmless_entity(rest) {
                    out.push_str(entity);
                    length = entity.len();
                } else if is_entity_like(after) {
                    out.push_str("&amp;");
                } else {
                    out.push('&');
                }
            }
            '/' | '\u{ff0f}' | '\u{2044}' | '\u{2215}' | '\u{29f8}' => {
                if line.may_begin_command && may_show_next(after, |c| c.is_alphabetic() || c == BREAK) {
                    bump(&mut removed.commands);
                    let backslashes = out.len() - out.trim_end_matches('\\').len();
                    out.insert_str(out.len() - backslashes, COMMAND_MARK);
                }
                out.push(c);
                if let Some(path) = numbered_path(rest) {
                    if allowed_reference(&text[..at], path, allowed.references) {
                        out.push_str(&path[1..]);
                        length = path.len();
                    } else {
                        bump(&mut removed.references);
                        let name = path.trim_end_matches(|c: char| c.is_ascii_digit());
                        out.push_str(&name[1..]);
                        out.push(BREAK);
                        length = name.len();
                    }
                }
            }
            c => out.push(c),
        }
        line.saw(c);
        at += length;
    }
    out
}

/// Whether what has been seen of a line could still be followed by a command:
/// only spaces, quote and list marks, emphasis.
struct LineStart {
    may_begin_command: bool,
    digit: bool,
}

impl Default for LineStart {
    fn default() -> Self {
        Self { may_begin_command: true, digit: false }
    }
}

impl LineStart {
    /// Goes on behind code. Code within a line is no text to some readers, so what
    /// follows it may still begin that line for them.
    fn after(&self, code: &str) -> Self {
        Self { may_begin_command: self.may_begin_command || code.ends_with('\n'), digit: false }
    }

    fn saw(&mut self, c: char) {
        if c == '\n' {
            *self = Self::default();
            return;
        }
        let mark = c.is_whitespace()
            || is_invisible(c)
            || matches!(c, '>' | '*' | '-' | '+' | '_' | '~' | '\\' | '#' | '[' | ']' | '(' | '"' | '\'')
            || (self.digit && matches!(c, '.' | ')'));
        // `2/abc` is a path, `2. /abc` an item of a list.
        let digit = c.is_ascii_digit();
        self.may_begin_command = (self.may_begin_command || self.digit) && (mark || digit);
        self.digit = digit && self.may_begin_command;
        if self.digit {
            self.may_begin_command = false;
        }
    }
}

/// Writes what precedes a first line `---` and breaks that line; returns how
/// far the text is dealt with.
fn front_matter(text: &str, out: &mut String) -> usize {
    let start = text.len() - text.trim_start().len();
    let first = text[start..].lines().next().unwrap_or_default();
    if first.starts_with("---") && first.trim_end().bytes().all(|byte| byte == b'-') {
        out.push_str(&text[..start]);
        out.push('\\');
        return start;
    }
    0
}

/// `details`, `/p`, `!--`, `?xml`: what makes a `<` before it HTML, or an
/// automatic link.
fn starts_tag(after: &str) -> bool {
    after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'))
}

/// Whether the next character that is shown may be one of these. Marks that
/// a Markdown renderer takes away are passed over; if there are too many of
/// them to tell, then it may.
fn may_show_next(after: &str, wanted: impl Fn(char) -> bool) -> bool {
    /// How far is looked ahead, in characters: more marks than anyone needs.
    const AHEAD: usize = 64;
    after
        .chars()
        .take(AHEAD + 1)
        .enumerate()
        .find(|(at, c)| *at == AHEAD || !matches!(c, '*' | '_' | '~' | '\\' | '[' | ']' | '`'))
        .is_some_and(|(at, c)| at == AHEAD || wanted(c))
}

/// Whether the bracket before this text may be shown beside another one: the
/// forge makes links, and images, of `[[…]]` in rendered text.
fn opens_again(after: &str) -> bool {
    may_show_next(after, |c| c == '<')
        || after
            .char_indices()
            .find(|(_, c)| *c == '[' || !matches!(c, '*' | '_' | '~' | '\\' | '`'))
            .is_some_and(|(at, c)| c == '[' || after[at..].starts_with(LEFT_BRACKET))
}

/// Whether a digit may come to stand directly after what precedes this text,
/// once it is rendered.
fn joins(after: &str) -> bool {
    after.starts_with(|c: char| {
        c.is_numeric() || matches!(c, '*' | '_' | '~' | '\\' | '[' | ']' | '`' | '<' | '&' | '$' | '{')
    })
}

fn is_www(rest: &str) -> bool {
    rest.as_bytes().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"www."))
}

/// `/issues/12` or `/pulls/12` at the start of this text. The forge makes a
/// reference of an address of its own.
fn numbered_path(rest: &str) -> Option<&str> {
    ["/issues/", "/pulls/", "/pull/"].iter().find_map(|name| {
        let start = rest.as_bytes().get(..name.len())?;
        let digits = start
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| rest[name.len()..].bytes().take_while(u8::is_ascii_digit).count())?;
        (digits > 0).then(|| &rest[..name.len() + digits])
    })
}

/// The login at the start of this text, if it may be mentioned.
fn allowed_mention<'a>(after: &'a str, allowed: &[String]) -> Option<&'a str> {
    if allowed.is_empty() {
        return None;
    }
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')).unwrap_or(after.len());
    // Emphasis or the end of a sentence may stand behind a name.
    let login = after[..end].trim_end_matches(['.', '_', '-']);
    let ends = stands_alone(&after[login.len()..]);
    (ends && allowed.iter().any(|name| name.eq_ignore_ascii_case(login))).then_some(login)
}

/// Whether what precedes this text cannot grow by it once it is rendered.
fn stands_alone(after: &str) -> bool {
    !may_show_next(after, |c| c.is_alphanumeric() || matches!(c, '<' | '&' | '/'))
}

/// Whether the reference that ends with `end`, together with what stands
/// directly before it, is one of the allowed ones.
fn allowed_reference(before: &str, end: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|reference| {
        reference.strip_suffix(end).is_some_and(|start| {
            before.strip_suffix(start).is_some_and(|before| {
                !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'))
            })
        })
    })
}

/// Entities that [`inline`] writes and templates use, none of which stands for
/// a character that the gate breaks.
fn harmless_entity(rest: &str) -> Option<&'static str> {
    const TYPOGRAPHY: [&str; 8] = ["&quot;", "&nbsp;", "&middot;", "&hellip;", "&mdash;", "&ndash;", "&rarr;", TILDE];
    ENTITIES.iter().map(|(_, entity)| *entity).chain(TYPOGRAPHY).find(|entity| rest.starts_with(entity))
}

fn is_entity_like(after: &str) -> bool {
    if after.starts_with('#') {
        return true;
    }
    let name = after.bytes().take(40).take_while(u8::is_ascii_alphanumeric).count();
    name > 0 && after.as_bytes().get(name) == Some(&b';')
}

// -------------------------------------------------------------- marker ---

/// The hidden last line of a comment of ours, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// What the comment is: `spawn-log`, `close-log`, `status`, ….
    pub kind: String,
    /// The effect that posted it.
    pub effect: String,
    /// The cell it is about, where there is one.
    pub cell: Option<String>,
}

/// Longest value in a marker, in bytes.
const MARKER_VALUE: usize = 128;

fn marker_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/')
}

/// `<!-- lazarus kind=KIND effect=ID cell=CELL -->`, to be the last line of
/// the comment, after an empty line. A character that could end the HTML
/// comment or the value becomes `_`.
pub fn marker(kind: &str, effect: &str, cell: Option<&str>) -> String {
    let tame = |value: &str| -> String {
        value.chars().take(MARKER_VALUE).map(|c| if marker_char(c) { c } else { '_' }).collect()
    };
    let mut out = format!("<!-- lazarus kind={} effect={}", tame(kind), tame(effect));
    if let Some(cell) = cell {
        out.push_str(" cell=");
        out.push_str(&tame(cell));
    }
    out.push_str(" -->");
    out
}

/// The marker, if the last line of this comment is one, exactly. It is a way
/// to find our own comments again and no proof: check the author too.
pub fn parse_marker(body: &str) -> Option<Marker> {
    let last = body.trim_end_matches([' ', '\t', '\r', '\n']).rsplit('\n').next()?;
    let inner = last.strip_prefix("<!-- lazarus ")?.strip_suffix(" -->")?;
    let mut fields = inner.split(' ');
    let mut field = |name: &str| -> Option<Option<String>> {
        let Some(field) = fields.next() else {
            return Some(None);
        };
        let value = field.strip_prefix(name)?.strip_prefix('=')?;
        let good = !value.is_empty() && value.len() <= MARKER_VALUE && value.chars().all(marker_char);
        good.then(|| Some(value.to_owned()))
    };
    let kind = field("kind")??;
    let effect = field("effect")??;
    let cell = field("cell")?;
    fields.next().is_none().then_some(Marker { kind, effect, cell })
}
