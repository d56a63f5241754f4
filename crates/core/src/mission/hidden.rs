//! What a page hides or disguises: comments and attributes in HTML, invisible
//! characters, cells that a table has no column for, letters that look like others.
//! What directors cannot see, they did not approve (contract §6).
//!
//! The question is turned round as far as it can be: what the Markdown parser shows
//! is marked in the source, and what is left unmarked is named. What a page shows
//! only to the pointer, or only in case a picture fails, counts as hidden.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;
use unicode_security::skeleton;

/// Most findings that are named; the rest is counted.
const NAMED_MAX: usize = 10;
/// Longest piece of a hidden text that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// The flags of England, Scotland and Wales: the only words in tag characters that
/// are drawn.
const TAGGED_FLAGS: [&str; 3] = [
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f}",
];

/// Whether a character cannot be seen where it stands, or turns the order of what
/// is read. `before` and `after` are its neighbours.
///
/// Free text may be in any script: the joiners of Persian and Hindi, the variation
/// selectors and joiners of emoji and the marks of right-to-left scripts are
/// allowed where those scripts need them, one at a time: a row of them is a text of
/// its own.
fn is_invisible(before: Option<char>, c: char, after: Option<char>) -> bool {
    let wide = |other: Option<char>| {
        other.is_some_and(|o| !o.is_ascii() && !o.is_whitespace() && !is_selector(o) && !is_joiner(o))
    };
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{200c}' | '\u{200d}' => !((wide(before) || before == Some('\u{fe0f}')) && wide(after)),
        // Selects how the character before it is drawn.
        '\u{fe00}'..='\u{fe0f}' => {
            !(wide(before) || before.is_some_and(|b| b.is_ascii_digit() || b == '#' || b == '*'))
        }
        '\u{e0100}'..='\u{e01ef}' => !before.is_some_and(is_ideograph),
        '\u{200e}' | '\u{200f}' | '\u{61c}' => {
            !(before.is_some_and(is_right_to_left) || after.is_some_and(is_right_to_left))
        }
        '\u{180b}'..='\u{180f}' => !before.is_some_and(|b| ('\u{1800}'..='\u{18af}').contains(&b) && !is_selector(b)),
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{200b}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffc}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{e0fff}' => true,
        _ => false,
    }
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180f}')
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{61c}' | '\u{e0000}'..='\u{e007f}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

/// The first character of a free text that cannot be seen, if there is one.
pub fn first_invisible(text: &str) -> Option<char> {
    let mut before = None;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if let Some(flag) = TAGGED_FLAGS.iter().find(|flag| text[at..].starts_with(**flag)) {
            at += flag.len();
            before = Some('\u{1f3f4}');
            continue;
        }
        at += c.len_utf8();
        if is_invisible(before, c, text[at..].chars().next()) {
            return Some(c);
        }
        before = Some(c);
    }
    None
}

/// What of an issue's title a reader of the page does not see.
pub fn hidden_in_title(title: &str) -> Vec<String> {
    first_invisible(title).map(|c| unseen(c, title)).into_iter().collect()
}

/// Says which character cannot be seen, and what those that are letters in disguise spell.
fn unseen(c: char, text: &str) -> String {
    let spelt: String = text
        .chars()
        .filter_map(|c| (c as u32).checked_sub(0xe_0000).and_then(char::from_u32).filter(|c| (' '..='~').contains(c)))
        .collect();
    let spells = if spelt.is_empty() { String::new() } else { format!(" (such characters spell {})", shown(&spelt)) };
    format!("the character U+{:04X}, which cannot be seen{spells}", c as u32)
}

/// A text with its character references (`&#111;`, `&shy;`) replaced by what a page
/// draws for them. In Markdown each of them ends with a semicolon.
pub fn decode_references(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest name has 33 bytes.
        let end = rest.bytes().take(40).position(|b| b == b';').filter(|end| rest[1..*end].bytes().all(is_reference));
        match end {
            Some(end) => {
                for event in Parser::new(&rest[..=end]) {
                    if let Event::Text(text) = event {
                        out.push_str(&text);
                    }
                }
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn is_reference(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'#'
}

/// A word with every letter replaced by the plainest one that looks like it, in
/// lower case and without spaces: what a reader takes it for. The table is
/// Unicode's (UTS 39).
pub fn looks_like(text: &str) -> String {
    let seen: String = text.chars().filter(|c| !is_invisible(None, *c, None)).collect();
    // The skeleton joins `rn` to `m` and the like; both sides of a comparison go
    // through it, so only likeness counts.
    skeleton(&seen.to_lowercase()).collect::<String>().to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Markdown as the forge's pages read it.
pub fn page(body: &str) -> Parser<'_> {
    let mut options = Options::empty();
    options.insert(Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH);
    options.insert(Options::ENABLE_TASKLISTS | Options::ENABLE_MATH);
    Parser::new_ext(body, options)
}

/// What of a Markdown text a reader of the page does not see, one sentence each:
/// comments, attributes and silent elements in HTML, definitions of links, titles of
/// links, folded parts, front matter, surplus cells, words behind a fence, formulas
/// and diagrams that can leave a part out, and invisible characters. Fenced and inline
/// code is seen, and so is the address of an ordinary link. `allowed` are comments of
/// ours, whole.
pub fn hidden_parts(body: &str, allowed: &[&str]) -> Vec<String> {
    let mut look = Look { body, seen: vec![false; body.len()], code: vec![false; body.len()], found: vec![] };
    look.read();
    look.comments(allowed);
    look.formulas();
    look.wiki_links();
    look.rest();
    if body.lines().next().is_some_and(|l| l.trim_end().len() >= 3 && l.trim_end().bytes().all(|b| b == b'-')) {
        look.found.push(format!("front matter, which pages fold away: {}", shown(body)));
    }
    let mut found = look.found;
    if let Some(c) = first_invisible(body) {
        found.push(unseen(c, body));
    }
    if found.len() > NAMED_MAX {
        let left = found.len() - NAMED_MAX;
        found.truncate(NAMED_MAX);
        found.push(format!("and {left} more"));
    }
    found
}

/// A body while it is looked through.
struct Look<'a> {
    body: &'a str,
    /// By byte: a page shows it, or a rule of its own has dealt with it.
    seen: Vec<bool>,
    /// By byte: it is code.
    code: Vec<bool>,
    found: Vec<String>,
}

/// A link or a picture that is not closed yet.
struct Open {
    picture: bool,
    address: String,
    title: String,
    /// What stands in it: words, or a picture.
    text: String,
    holds_picture: bool,
    /// Where its last part ends.
    end: usize,
}

impl Look<'_> {
    fn mark(&mut self, range: Range<usize>) {
        if let Some(bytes) = self.seen.get_mut(range) {
            bytes.fill(true);
        }
    }

    fn mark_code(&mut self, range: Range<usize>) {
        if let Some(bytes) = self.code.get_mut(range) {
            bytes.fill(true);
        }
    }

    fn name(&mut self, what: &str, piece: &str) {
        self.found.push(format!("{what}: {}", shown(piece)));
    }

    /// Goes through what the page shows.
    fn read(&mut self) {
        let body = self.body;
        let mut in_code = false;
        let mut in_html: Option<Range<usize>> = None;
        let mut open: Vec<Open> = vec![];
        let mut footnotes: Vec<(String, Range<usize>)> = vec![];
        let mut referred = std::collections::BTreeSet::new();
        // The text as it is drawn, with character references decoded.
        let mut drawn = String::new();
        let parser = page(body);
        let definitions: Vec<Range<usize>> =
            parser.reference_definitions().iter().map(|(_, definition)| definition.span.clone()).collect();
        for span in definitions {
            self.name("a definition of a link, which pages do not show", &body[span.clone()]);
            self.mark(span);
        }
        for (event, range) in parser.into_offset_iter() {
            if let (Some(around), Event::Text(_) | Event::Code(_) | Event::InlineMath(_)) = (open.last_mut(), &event) {
                around.end = range.end;
            }
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    in_code = true;
                    self.mark_code(range.clone());
                    if let CodeBlockKind::Fenced(info) = &kind {
                        self.fence(info, range);
                    }
                }
                Event::End(TagEnd::CodeBlock) => in_code = false,
                Event::Start(Tag::HtmlBlock) => in_html = Some(range),
                Event::End(TagEnd::HtmlBlock) => {
                    if let Some(range) = in_html.take() {
                        self.html(range);
                    }
                }
                Event::InlineHtml(_) => self.html(range),
                Event::Code(text) => {
                    self.mark_code(range.clone());
                    self.mark(range);
                    drawn.push_str(&text);
                    say(&mut open, &text);
                }
                Event::InlineMath(ref text) | Event::DisplayMath(ref text) => {
                    if formula_hides(text) {
                        self.name("a formula that can leave out a part of itself", &body[range.clone()]);
                    }
                    say(&mut open, text);
                    self.mark(range);
                }
                Event::Text(text) => {
                    self.mark(range);
                    drawn.push_str(&text);
                    if !in_code {
                        say(&mut open, &text);
                    }
                }
                Event::SoftBreak | Event::HardBreak => {
                    drawn.push('\n');
                    say(&mut open, " ");
                }
                Event::TaskListMarker(_) => self.mark(range),
                Event::Start(Tag::Item) => {
                    let marker = body[range.clone()].find(['.', ')']).unwrap_or(0);
                    if body[range.clone()][..marker].bytes().all(|b| b.is_ascii_digit()) {
                        self.mark(range.start..range.start + marker);
                    }
                }
                Event::Start(Tag::Heading { .. }) => self.heading(&body[range]),
                Event::Start(Tag::FootnoteDefinition(name)) => {
                    self.label(&name);
                    if let Some(end) = body[range.clone()].find("]:") {
                        self.mark(range.start..range.start + end);
                    }
                    footnotes.push((name.to_string(), range));
                }
                Event::FootnoteReference(name) => {
                    self.label(&name);
                    self.mark(range.clone());
                    say(&mut open, "1");
                    referred.insert(name.to_string());
                }
                Event::Start(Tag::Link { dest_url, title, .. }) => {
                    open.push(Open::new(false, &dest_url, &title, range.start));
                }
                Event::Start(Tag::Image { dest_url, title, .. }) => {
                    if let Some(around) = open.last_mut() {
                        around.holds_picture = true;
                    }
                    open.push(Open::new(true, &dest_url, &title, range.start));
                }
                Event::End(TagEnd::Link | TagEnd::Image) => {
                    if let Some(done) = open.pop() {
                        self.link(&done, range.clone());
                        say(&mut open, &done.text);
                    }
                    if let Some(around) = open.last_mut() {
                        around.end = range.end;
                    }
                }
                Event::End(_) => drawn.push('\n'),
                _ => {}
            }
        }
        for (_, range) in footnotes.into_iter().filter(|(name, _)| !referred.contains(name)) {
            self.name("a footnote that nothing refers to, which pages do not show", &body[range]);
        }
        if let (Some(c), None) = (first_invisible(&drawn), first_invisible(body)) {
            self.found.push(unseen(c, &drawn));
        }
    }

    /// A fenced block: pages show what is inside, draw diagrams and formulas, and
    /// show nothing of the line that opens it.
    fn fence(&mut self, info: &str, range: Range<usize>) {
        let block = &self.body[range.clone()];
        let first = block.lines().next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-_#./".contains(&b);
        if info.len() > 24 || !info.trim().bytes().all(plain) {
            self.name("words behind a fence, which pages do not show", first);
        }
        self.mark(range.start..range.start + first.len());
        let language: String = info.chars().take_while(char::is_ascii_alphanumeric).collect();
        let inside = block[first.len()..].trim_end().trim_end_matches(['`', '~']);
        let hides = match language.to_ascii_lowercase().as_str() {
            "math" => formula_hides(inside),
            "mermaid" => {
                let inside = inside.to_ascii_lowercase();
                ["%%", "---\n", "click", "style", "class", "acc", "link ", "links ", "&", "<", "#"]
                    .iter()
                    .any(|silent| inside.contains(silent))
            }
            _ => false,
        };
        if hides {
            self.name("a formula or diagram that can leave out a part of itself", block);
        }
    }

    /// Attributes of a heading (`# Heading {title="x"}`), which pages cut off.
    fn heading(&mut self, heading: &str) {
        let last = |line: &str| {
            let line = line.trim_end();
            let line = line.trim_end_matches('#').trim_end();
            line.ends_with('}') && line.contains('{')
        };
        if heading.lines().any(last) || heading.contains("# {") || heading.contains("#{") {
            self.name("attributes of a heading, which pages do not show", heading);
        }
    }

    /// The label of a footnote, for which pages show a number.
    fn label(&mut self, name: &str) {
        if name.len() > 24 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) {
            self.name("a footnote's label of more than one word, which pages do not show", name);
        }
    }

    /// A link or a picture that is read to its end.
    fn link(&mut self, link: &Open, range: Range<usize>) {
        let piece = &self.body[range.clone()];
        if !link.title.is_empty() {
            self.name("the title of a link or picture, which pages show only to the pointer", piece);
        } else if link.picture && !is_plain_alternative(&link.text, 3) {
            self.name("words in place of a picture, which pages show only where the picture fails", piece);
        } else if !link.picture && !link.holds_picture && link.text.trim().is_empty() {
            self.name("a link without a text, which pages do not show", piece);
        } else if !is_plain_address(&link.address) {
            self.name("a link's address that is more than an address", piece);
        }
        self.mark(link.end..range.end);
    }

    /// Tags that show nothing, and tags with attributes.
    fn html(&mut self, range: Range<usize>) {
        let piece = &self.body[range.clone()];
        self.mark(range);
        let mut rest = piece;
        let mut text = String::new();
        while let Some(at) = rest.find('<') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(comment) = rest.strip_prefix("<!--") {
                // Comments are looked for in the whole body.
                rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
                continue;
            }
            let closing = rest.starts_with("</");
            let inside = &rest[1 + usize::from(closing)..];
            if !inside.starts_with(|c: char| c.is_ascii_alphabetic()) {
                if inside.starts_with(['!', '?']) || closing {
                    self.name("a part that pages leave out", rest);
                    return;
                }
                text.push('<');
                rest = inside;
                continue;
            }
            let name = inside.find(|c: char| !c.is_ascii_alphanumeric()).map_or(inside, |end| &inside[..end]);
            let behind = &inside[name.len()..];
            let name = name.to_ascii_lowercase();
            let bare = behind.trim_start();
            if let Some(after) = bare.strip_prefix('>').or_else(|| bare.strip_prefix("/>")) {
                if !SHOWING.contains(&name.as_str()) && !closing {
                    let what = if name == "details" { "a folded part" } else { "a part that pages may leave out" };
                    self.name(what, rest);
                }
                rest = after;
            } else if let Some(after) = picture(&name, behind).filter(|_| !closing) {
                rest = after;
            } else {
                let what = match name.as_str() {
                    "details" => "a folded part",
                    _ => "attributes of a tag in HTML, which pages do not show",
                };
                self.name(what, rest);
                return;
            }
        }
        text.push_str(rest);
        // In HTML a character reference may lack its semicolon.
        let lacking = text.match_indices("&#").any(|(at, _)| {
            let digits = text[at + 2..].trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            !digits.starts_with(';')
        });
        if lacking || text.contains("&shy") || first_invisible(&decode_references(&text)).is_some() {
            self.name("a character in HTML that cannot be seen", piece);
        }
    }

    /// Comments, declarations and instructions, wherever they stand outside code.
    fn comments(&mut self, allowed: &[&str]) {
        let body = self.body;
        for (at, _) in body.match_indices("<!") {
            if self.code[at] || allowed.iter().any(|ours| body[at..].starts_with(ours)) {
                continue;
            }
            if self.found.len() > NAMED_MAX {
                return;
            }
            let comment = &body[at..];
            let end = comment.find("-->").map_or(comment.len(), |end| end + 3);
            self.name("a comment in HTML", &comment[..end]);
        }
    }

    /// Formulas that the forge draws and the Markdown parser does not know: `\(…\)`,
    /// `\[…\]`, and blocks in `$$` that go over empty lines.
    fn formulas(&mut self) {
        let body = self.body;
        let what = "a formula that can leave out a part of itself";
        let mut at = 0;
        let mut block: Option<(usize, &str)> = None;
        for line in body.split_inclusive('\n') {
            let start = at;
            at += line.len();
            if let Some((from, close)) = block {
                if line.contains(close) {
                    block = None;
                    if block_hides(body[from..at].trim_end().trim_end_matches(close)) {
                        self.name(what, &body[from..at]);
                    }
                }
                continue;
            }
            let bare = line.trim_start_matches(|c: char| c.is_ascii_digit() || " \t>-*+.)".contains(c));
            let from = at - bare.len() + 2;
            if bare.strip_prefix("$$").is_some_and(|inside| !inside.contains("$$")) {
                block = Some((from, "$$"));
                continue;
            }
            if bare.strip_prefix("\\[").is_some_and(|inside| !inside.contains("\\]")) {
                block = Some((from, "\\]"));
                continue;
            }
            let outside = |i: &usize| !self.code[start + *i];
            let alphanumeric = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let marks = || line.match_indices('$').map(|(i, _)| i).filter(outside);
            let dollars = (
                marks().find(|i| !alphanumeric(line[..*i].chars().next_back())),
                marks().rfind(|i| !alphanumeric(line[*i + 1..].chars().next())),
            );
            let pair = |open: &str, close: &str| {
                let first = line.match_indices(open).map(|(i, _)| i + 1).find(outside);
                (first, line.match_indices(close).map(|(i, _)| i).filter(outside).last())
            };
            let pairs = [dollars, pair("\\(", "\\)"), pair("\\[", "\\]")];
            let hides = pairs.iter().any(|pair| match pair {
                (Some(from), Some(to)) if from < to => formula_hides(&line[from + 1..*to]),
                _ => false,
            });
            if hides {
                self.name(what, line);
            }
        }
        if let Some((from, _)) = block.filter(|(from, _)| block_hides(&body[*from..])) {
            self.name(what, &body[from..]);
        }
    }

    /// `[[text|title=x]]`: of its parts pages show one.
    fn wiki_links(&mut self) {
        let mut at = 0;
        for line in self.body.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let Some(open) = line.find("[[").filter(|open| !self.code[start + open]) else { continue };
            let inside = &line[open + 2..];
            if let Some(close) = inside.rfind("]]").filter(|close| inside[..*close].contains('|')) {
                self.name("a link of wikis, of which pages show a part", &line[open..open + close + 4]);
            }
        }
    }

    /// What is left: the page shows nothing of it.
    fn rest(&mut self) {
        let mut at = 0;
        for line in self.body.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let says =
                |(i, c): &(usize, char)| !self.seen[start + i] && !c.is_whitespace() && !c.is_ascii_punctuation();
            let mut left = line.char_indices().filter(says);
            if let Some((first, _)) = left.next() {
                let last = left.next_back().map_or(first, |(last, _)| last);
                let end = last + line[last..].chars().next().map_or(0, char::len_utf8);
                self.name("a text that pages do not show", &line[first..end]);
            }
        }
    }
}

impl Open {
    fn new(picture: bool, address: &str, title: &str, at: usize) -> Self {
        let (address, title) = (address.to_owned(), title.to_owned());
        Self { picture, address, title, text: String::new(), holds_picture: false, end: at }
    }
}

/// Adds to the text of the innermost link or picture; of a long one the beginning is enough.
fn say(open: &mut [Open], text: &str) {
    if let Some(innermost) = open.last_mut().filter(|innermost| innermost.text.len() < SHOWN_MAX) {
        innermost.text.extend(text.chars().take(SHOWN_MAX));
    }
}

/// Tags that show what is in them, where they have no attributes.
const SHOWING: [&str; 49] = [
    "b",
    "big",
    "blockquote",
    "br",
    "cite",
    "code",
    "dd",
    "del",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "ins",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "wbr",
    "center",
];

/// What follows a plain `<img>`, as the forge itself writes it for a picture that is
/// pasted: an address, a size and a file's name.
fn picture<'a>(name: &str, attributes: &'a str) -> Option<&'a str> {
    let mut rest = attributes;
    let mut given: Vec<&str> = vec![];
    if name != "img" {
        return None;
    }
    loop {
        let bare = rest.trim_start();
        if let Some(after) = bare.strip_prefix('>').or_else(|| bare.strip_prefix("/>")) {
            return Some(after);
        }
        let (key, behind) = bare.split_once("=\"").filter(|_| bare.len() < rest.len())?;
        let (value, after) = behind.split_once('"')?;
        let good = match key {
            "src" => is_plain_address(value),
            "width" | "height" => value.len() <= 5 && value.bytes().all(|b| b.is_ascii_digit()),
            "alt" => is_plain_alternative(value, 1),
            _ => false,
        };
        // Of an attribute that comes twice pages take one.
        if !good || value.contains('&') || given.contains(&key) {
            return None;
        }
        given.push(key);
        rest = after;
    }
}

/// Whether the words that stand for a picture are a name and not a message: at most
/// `words` of them beside numbers, as in `Screenshot from 2026-01-01 10-20-30`.
fn is_plain_alternative(text: &str, words: usize) -> bool {
    let spoken = text.split_whitespace().filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).count();
    spoken <= words && text.split_whitespace().count() <= 6 && text.chars().count() <= 64
}

/// Whether an address is no longer and holds no more words than addresses do.
fn is_plain_address(address: &str) -> bool {
    let lower = address.to_ascii_lowercase();
    let before_path = lower.split(['/', '?', '#']).next().unwrap_or_default();
    let known = match before_path.split_once(':') {
        Some((scheme, _)) => ["http", "https", "mailto"].contains(&scheme),
        None => true,
    };
    known
        && address.len() <= 300
        && !address.contains(char::is_whitespace)
        && lower.matches("%20").count() + lower.matches('+').count() <= 3
        && first_invisible(address).is_none()
}

/// Whether a formula of several lines hides a part, or takes in what is a heading
/// for the Markdown parser.
fn block_hides(formula: &str) -> bool {
    formula_hides(formula) || formula.contains("\n#")
}

/// Whether a formula holds a comment, or a command that is not known to show all
/// that it is given.
fn formula_hides(formula: &str) -> bool {
    let mut rest = formula;
    while let Some(at) = rest.find(['\\', '%']) {
        let Some(command) = rest[at..].strip_prefix('\\') else { return true };
        let name: String = command.chars().take_while(char::is_ascii_alphabetic).collect();
        if name.is_empty() {
            let Some(mark) = command.chars().next() else { return false };
            if mark == '\\' && command[1..].trim_start().starts_with('[') {
                return true;
            }
            if !"\\,;: {}|_$&%#()[]\n".contains(mark) {
                return true;
            }
            rest = &command[mark.len_utf8()..];
        } else {
            if !FORMULA_COMMANDS.contains(&name.as_str()) {
                return true;
            }
            rest = &command[name.len()..];
        }
    }
    false
}

/// Commands of formulas that draw what they are given.
const FORMULA_COMMANDS: &[&str] = &[
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Upsilon",
    "Phi",
    "Psi",
    "Omega",
    "frac",
    "dfrac",
    "tfrac",
    "binom",
    "sqrt",
    "sum",
    "prod",
    "int",
    "oint",
    "iint",
    "lim",
    "limsup",
    "liminf",
    "max",
    "min",
    "sup",
    "inf",
    "log",
    "ln",
    "lg",
    "exp",
    "sin",
    "cos",
    "tan",
    "cot",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "det",
    "dim",
    "ker",
    "gcd",
    "deg",
    "arg",
    "Pr",
    "bmod",
    "pmod",
    "mod",
    "cdot",
    "cdots",
    "ldots",
    "dots",
    "vdots",
    "ddots",
    "times",
    "div",
    "pm",
    "mp",
    "ast",
    "star",
    "circ",
    "bullet",
    "oplus",
    "otimes",
    "le",
    "leq",
    "ge",
    "geq",
    "ne",
    "neq",
    "ll",
    "gg",
    "approx",
    "equiv",
    "sim",
    "simeq",
    "cong",
    "propto",
    "in",
    "notin",
    "ni",
    "subset",
    "subseteq",
    "supset",
    "supseteq",
    "cup",
    "cap",
    "setminus",
    "emptyset",
    "varnothing",
    "forall",
    "exists",
    "nexists",
    "neg",
    "lnot",
    "land",
    "lor",
    "wedge",
    "vee",
    "to",
    "gets",
    "mapsto",
    "rightarrow",
    "leftarrow",
    "leftrightarrow",
    "Rightarrow",
    "Leftarrow",
    "Leftrightarrow",
    "implies",
    "iff",
    "infty",
    "partial",
    "nabla",
    "hbar",
    "ell",
    "Re",
    "Im",
    "aleph",
    "prime",
    "langle",
    "rangle",
    "lfloor",
    "rfloor",
    "lceil",
    "rceil",
    "lvert",
    "rvert",
    "lVert",
    "rVert",
    "mid",
    "parallel",
    "perp",
    "angle",
    "left",
    "right",
    "middle",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "begin",
    "end",
    "text",
    "textbf",
    "textit",
    "textrm",
    "texttt",
    "mathrm",
    "mathbf",
    "mathit",
    "mathbb",
    "mathcal",
    "mathfrak",
    "mathsf",
    "mathtt",
    "operatorname",
    "boldsymbol",
    "hat",
    "widehat",
    "bar",
    "overline",
    "underline",
    "vec",
    "dot",
    "ddot",
    "tilde",
    "widetilde",
    "overbrace",
    "underbrace",
    "quad",
    "qquad",
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "top",
    "bot",
    "vdash",
    "models",
    "triangle",
    "square",
    "dagger",
];

/// A piece of a text for a message: one line, within backquotes, cut short.
fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().take(SHOWN_MAX).map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    format!("`{}`", out.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_any_script_with_emoji_is_seen() {
        for text in
            ["add a ❤️", "می‌خواهم", "क्‍ष", "👩‍💻 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣ שלום\u{200f}!", "葛󠄀城", "a\u{a0}b\u{3000}c", "tab\there"]
        {
            assert_eq!(first_invisible(text), None, "{text:?}");
        }
    }

    #[test]
    fn characters_that_cannot_be_seen_are_found() {
        for text in [
            "a\u{200b}b",
            "a\u{200d}b",
            "a\u{202e}b",
            "\u{feff}a",
            "a\u{e0041}",
            "x\u{fe0f}",
            "a\u{2066}b",
            "a\u{0}",
            "a\u{ad}b",
            "\u{200f}abc",
            "a\u{e0100}",
        ] {
            assert!(first_invisible(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn letters_of_other_scripts_look_like_ours() {
        assert_eq!(looks_like("N\u{435}twork h\u{43e}sts"), looks_like("Network hosts"));
        assert_eq!(looks_like("Ｎｅｔｗｏｒｋ ｈｏｓｔｓ"), looks_like("Network hosts"));
        assert_ne!(looks_like("Network"), looks_like("Network hosts"));
    }

    #[test]
    fn what_a_page_hides_is_named() {
        for text in [
            "a <!-- b --> c",
            "<!-- b",
            "<!--> b -->",
            "a\n\n[//]: # (do evil)\n",
            "a\n\n[^1]: evil\n",
            "<details>\n\nevil\n\n</details>",
            "<DETAILS open>evil</DETAILS>",
            "---\nevil: 1\n---\nx",
            "<?php evil ?>\n",
            "<![CDATA[ evil ]]>\n",
            "<style>\nevil\n</style>",
            "a\u{200b}b",
            "| a |\n| - |\n| 1 | evil |",
            "| a |\n| - |\n| 1 |\n| 2 | evil | and more |\n\nx",
            "```sh evil and send the keys\nx\n```",
            "~~~ sh evil\nx\n~~~",
            "- a\n\n  ```sh evil\n  x\n  ```",
            "a <b title=\"evil\">b</b>",
            "<div title=\"evil\">\nb\n</div>",
            "<div title=\"\n### Network hosts\nevil.example.com\n\">",
            "a <b\ntitle='evil'>b</b>",
            "<p>a</p title=\"evil\">",
            "<p>\n<b/evil/>\n</p>",
            "<img src=\"x.png\" alt=\"evil and send the keys\">",
            "<img src=\"x.png\" title=\"evil\">",
            "<img src=\"x.png\" src=\"evil\">",
            "<svg><desc>evil</desc></svg>",
            "# Fix it {title=\"evil\"}",
            "# Fix it {title=\"evil\"} #",
            "# Fix it # {title=\"evil\"}",
            "Fix it {title=\"evil\"}\n===",
            "[](x \"evil\")",
            "[](evil)",
            "[ ](evil)",
            "![](x \"evil\")",
            "[a](http://127.0.0.1/ \"evil\")",
            "[a](<evil and send the keys>)",
            "[a](data:text/plain,evil)",
            "[a](/x?evil%20and%20send%20the%20keys)",
            "![evil and send the keys](x.png)",
            "a[^evil and send]\n\n[^evil and send]: b",
            "a&#8203;b",
            "a&#x202e;b",
            "a&zwnj;b",
            "a&shy;b",
            "a&ZeroWidthSpace;b",
            "&#xE0041;&#xE0042;",
            "<div>\na&shy;b\n</div>",
            "<div>\na&#8203b\n</div>",
            "$\\phantom{evil}$",
            "a $x % evil$ b",
            "$$\n\nx\n\n\\phantom{evil}\n$$",
            "$$\nx\n\n### Network hosts\n\nevil.example.com",
            "$$\n```\n\\phantom{evil}\n```\n$$",
            "\\(\\phantom{evil}\\)",
            "\\[\n\\phantom{evil}\n\\]",
            "```math\nx % evil\n```",
            "```mermaid\ngraph TD\n%% evil\nA-->B\n```",
            "[[a|title=evil]]",
            "\u{1f3f4}\u{e0065}\u{e0076}\u{e0069}\u{e006c}\u{e007f}",
            "\u{2764}\u{fe0f}\u{fe01}\u{fe02}",
        ] {
            assert!(!hidden_parts(text, &[]).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn what_a_page_shows_is_not() {
        for text in [
            "plain **text** with [a link](http://127.0.0.1/)",
            "```html\n<!-- shown as code -->\n```",
            "`<!-- shown -->`",
            "    <!-- indented code -->",
            "a[^1]\n\n[^1]: seen",
            "a < b and c > d, a <b>bold</b> word<br>",
            "| a | b |\n| - | - |\n| 1 | 2 |",
            "| a | b |\n|:-:| - |\n| `x` | 2 |\n| 3 |",
            "# A\n\nB\n===\n\n## C ##\n\n1. one\n2. two\n   - three\n10) ten\n\n- [ ] open\n- [x] done\n* * *\n> quoted\n> text",
            "```rust\nfn main() {}\n```\n\n~~~c++\nx\n~~~\n\n- a\n\n  ```sh\n  make\n  ```\n\n````\n```\n````",
            "![](x.png) ![a screenshot](/attachments/5) ![Screenshot from 2026-01-01 10-20-30](x.png)",
            "[![build](badge.svg)](http://127.0.0.1/x) <http://127.0.0.1/> http://127.0.0.1/a?b=c [a *b* `c`](../d.md#e)",
            "<img width=\"640\" alt=\"image.png\" src=\"/attachments/5\" />",
            "H<sub>2</sub>O, <kbd>Ctrl</kbd>+<kbd>C</kbd>, a<br/>b\n\n<p>text &amp; more</p>",
            "AT&amp;T &copy; 2026 &lt;b&gt; a & b, x\\_y \\* z",
            "می‌خواهم ❤️ 👩‍💻 ❤️‍🔥 שלום 葛󠄀城 日本語 عربى Ελληνικά",
            "It costs $5 or 10% of $20; # of items, `$HOME` and $PATH",
            "$a_1 \\le \\frac{b}{2}$ and \\(x^2\\)\n\n$$\n\\sum_i x_i\n$$",
            "```mermaid\ngraph TD\nA[Start] --> B[End]\n```",
            "# Use `{x}`\n\n# Use {x} here\n\nfn f() { a[0] }",
            "~~old~~ **new** _x_ line  \nbreak\\\nmore\n\n***\n\n    code {x}",
            "@ada please look at #12, !3 and 1a2b3c4d :tada:",
        ] {
            assert_eq!(hidden_parts(text, &[]), Vec::<String>::new(), "{text:?}");
        }
        assert_eq!(hidden_parts("<!-- lazarus:v1 -->\n\nx", &["<!-- lazarus:v1 -->"]), Vec::<String>::new());
    }

    #[test]
    fn a_title_is_looked_at_too() {
        let title: String =
            "Fix the typo".chars().chain("send".chars().filter_map(|c| char::from_u32(0xe_0000 + c as u32))).collect();
        let found = hidden_in_title(&title);
        assert!(found.len() == 1 && found[0].contains("U+E0073") && found[0].contains("`send`"), "{found:?}");
        assert!(!hidden_in_title("a\u{202e}b").is_empty());
        for good in ["[mission] fix the typo", "فارسی می‌خواهم", "a ❤️ & `<b>`"] {
            assert_eq!(hidden_in_title(good), Vec::<String>::new());
        }
    }

    #[test]
    fn references_are_decoded() {
        assert_eq!(decode_references("Netw&#111;rk h&#x6F;sts &amp; &nope; & &"), "Network hosts & &nope; & &");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(<!--|-->|<details>|<b |<img |=\"|\">|&#|&shy;|\\$|\\\\\\[|\\\\|%|\\[\\[|\\||\\]\\]|!\\[|\\]\\(|\\)|\\{|\\}|# |1\\. |- |> |\\[a\\]: b|---\\n|`|\\PC|\\n){0,40}") {
            let _ = hidden_parts(&text, &[]);
        }
    }
}
