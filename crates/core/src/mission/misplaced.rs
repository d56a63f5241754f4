//! Commands that stand where none counts (contract §7): they are never carried out,
//! and whoever may give them is told where to put them.
//!
//! Only what stands first in its line, item, quote or cell is one: sentences that
//! mention a command, and what the bot itself wrote when somebody quotes it, are not.

use super::command::{
    COMMANDS_MAX, CommandSpec, Misplaced, OpenHtml, behind_prefix, front_matter, markdown, read_prefixed,
};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Most lines of a comment that are looked at more closely.
const CANDIDATES_MAX: usize = 64;

/// Where a command does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Within HTML, such as a `<details>` that is not closed.
    Html,
    /// Between lines of `---` at the top.
    FrontMatter,
    /// Within backquotes, a fence or an indent.
    Code,
    /// In a table.
    Table,
    /// In a footnote.
    Footnote,
    /// Behind `>`.
    Quote,
    /// In a list.
    List,
    /// Behind `#`.
    Heading,
    /// Above a line of `---` or `===`.
    Underlined,
    /// In a link or an image.
    Link,
    /// Bold, slanted or struck through.
    Print,
    /// Something else that is not ordinary text.
    Other,
}

impl Place {
    /// For people: `… does not count IN A LIST`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Html => "within HTML, or below a tag such as `<details>` that is not closed",
            Self::FrontMatter => "below a line of `---` at the top of a comment",
            Self::Code => "in code",
            Self::Table => "in a table, or directly below one",
            Self::Footnote => "in a footnote",
            Self::Quote => "in a quote, or directly below one",
            Self::List => "in a list, or directly below one",
            Self::Heading => "in a heading",
            Self::Underlined => "directly above a line of `---` or `===`, which makes it a heading",
            Self::Link => "in a link",
            Self::Print => "in bold or slanted print",
            Self::Other => "where other signs stand around it",
        }
    }
}

/// The commands that stand where none counts, each name once. `plain` are the lines
/// of ordinary text, `given` the names of the commands in them.
pub(super) fn misplaced(body: &str, plain: &[Range<usize>], given: &[&str], prefix: Option<&str>) -> Vec<Misplaced> {
    let mut candidates = vec![];
    let mut start = 0;
    for line in body.split_inclusive('\n') {
        let text = line.trim_end_matches(['\n', '\r']);
        let first = start + text.len() - text.trim_start_matches(' ').len();
        let is_plain = plain.binary_search_by_key(&first, |range| range.start).is_ok();
        if let Some((at, name)) =
            command_behind_marks(text, prefix).filter(|(_, name)| !is_plain && !given.contains(name))
        {
            candidates.push((start + at..start + text.len(), name));
        }
        start += line.len();
    }
    candidates.truncate(CANDIDATES_MAX);
    let mut found: Vec<Misplaced> = vec![];
    if candidates.is_empty() {
        return found;
    }
    let page = Page::read(body);
    for (range, name) in candidates {
        if found.len() < COMMANDS_MAX
            && !found.iter().any(|known| known.name == name)
            && let Some(place) = page.place(body, &range, prefix)
        {
            found.push(Misplaced { name: name.to_owned(), place });
        }
    }
    found
}

/// The command that a line begins with, once the marks before it are taken away: its
/// place in the line, and its name.
fn command_behind_marks(line: &str, prefix: Option<&str>) -> Option<(usize, &'static str)> {
    let mut rest = line;
    loop {
        let before = rest.len();
        rest = rest.trim_start_matches([' ', '\t', '>', '*', '_', '~', '`', '|', '[', '$']);
        for bullet in ["- ", "+ ", "-\t", "+\t", "] ", "x] ", "X] ", "^1]: "] {
            rest = rest.strip_prefix(bullet).unwrap_or(rest);
        }
        let hashes = rest.trim_start_matches('#');
        if hashes.starts_with([' ', '\t']) {
            rest = hashes;
        }
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if number.len() < rest.len()
            && let Some(behind) = number.strip_prefix(['.', ')']).filter(|behind| behind.starts_with([' ', '\t']))
        {
            rest = behind;
        }
        if let Some((tag, behind)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'))
            && tag.chars().all(|c| c.is_ascii_alphanumeric())
        {
            rest = behind;
        }
        if rest.len() == before {
            break;
        }
    }
    let behind = behind_prefix(rest.strip_prefix('/')?, prefix)?;
    let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
    let (word, behind) = behind.split_at(end);
    let name = CommandSpec::named(&word.to_ascii_lowercase())?.name;
    let mut signs = behind.chars();
    let ends = match signs.next() {
        None | Some('<' | ']') => true,
        Some(c) if c.is_whitespace() => true,
        Some('*' | '_' | '~' | '`' | '|' | '$' | '.' | ',' | ';' | ':' | '!' | '?' | ')') => {
            !signs.next().is_some_and(char::is_alphanumeric)
        }
        Some(_) => false,
    };
    ends.then_some((line.len() - rest.len(), name))
}

/// How HTML stands from some byte on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Html {
    /// Nothing is open.
    Closed,
    /// Only what changes how words look.
    Print,
    /// Something that can hide what is in it.
    Open,
}

/// What of a comment is not ordinary text.
struct Page {
    spans: Vec<(Range<usize>, Place)>,
    html: Vec<(usize, Html)>,
    blocks: Vec<Range<usize>>,
    text_from: usize,
}

impl Page {
    fn read(body: &str) -> Self {
        let mut page = Self { spans: vec![], html: vec![], blocks: vec![], text_from: front_matter(body) };
        let (mut html, mut block) = (OpenHtml::default(), String::new());
        for (event, range) in Parser::new_ext(body, markdown()).into_offset_iter() {
            let end = range.end;
            let place = match event {
                Event::Start(Tag::BlockQuote(_)) => Place::Quote,
                Event::Start(Tag::Item) => Place::List,
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented)) | Event::Code(_) => {
                    Place::Code
                }
                Event::Start(Tag::Heading { .. }) if body[range.clone()].trim_start().starts_with('#') => {
                    Place::Heading
                }
                Event::Start(Tag::Heading { .. }) => Place::Underlined,
                Event::Start(Tag::Table(_)) => Place::Table,
                Event::Start(Tag::FootnoteDefinition(_)) => Place::Footnote,
                Event::Start(Tag::Link { .. } | Tag::Image { .. }) => Place::Link,
                Event::Start(Tag::Emphasis | Tag::Strong | Tag::Strikethrough) => Place::Print,
                Event::Start(Tag::HtmlBlock) => {
                    page.blocks.push(range);
                    continue;
                }
                Event::Html(piece) => {
                    block.push_str(&piece);
                    continue;
                }
                Event::End(TagEnd::HtmlBlock) => {
                    html.read(&std::mem::take(&mut block));
                    page.html_is(end, &html);
                    continue;
                }
                Event::InlineHtml(piece) => {
                    html.read(&piece);
                    page.html_is(end, &html);
                    continue;
                }
                _ => continue,
            };
            page.spans.push((range, place));
        }
        page
    }

    fn html_is(&mut self, from: usize, html: &OpenHtml) {
        let state = match () {
            () if html.is_closed() => Html::Closed,
            () if html.is_print() => Html::Print,
            () => Html::Open,
        };
        self.html.push((from, state));
    }

    /// Where a line of the comment stands; `None` where nobody is told.
    fn place(&self, body: &str, line: &Range<usize>, prefix: Option<&str>) -> Option<Place> {
        let at = line.start;
        if at < self.text_from {
            return Some(Place::FrontMatter);
        }
        let state = self.html.iter().rev().find(|(from, _)| *from <= at).map_or(Html::Closed, |(_, state)| *state);
        let left_open = self.html.last().is_some_and(|(_, state)| *state == Html::Open);
        let in_block = self.blocks.iter().any(|range| range.contains(&at));
        if state == Html::Open || in_block {
            // What is folded away as it should be is a log or an example.
            return left_open.then_some(Place::Html);
        }
        let around: Vec<Place> =
            self.spans.iter().filter(|(range, _)| range.contains(&at)).map(|(_, place)| *place).collect();
        let is = |place: Place| around.contains(&place);
        // A quote of something that is laid out: most of all of what the bot wrote.
        if (is(Place::Quote) && around.len() > 1) || (is(Place::Table) && is(Place::Code)) {
            return None;
        }
        // In a log or a script much begins with a slash: a block counts if it holds
        // commands and nothing else.
        if is(Place::Code) && !body[..line.start].ends_with('`') {
            let block = self.spans.iter().rev().find(|(range, place)| *place == Place::Code && range.contains(&at));
            let block = block.map_or("", |(range, _)| &body[range.clone()]);
            let mut lines = block.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['`', '~']));
            if !lines.all(|line| matches!(read_prefixed(line, prefix), Some((_, Ok(_))))) {
                return None;
            }
        }
        const ORDER: [Place; 9] = [
            Place::Code,
            Place::Table,
            Place::Footnote,
            Place::Quote,
            Place::List,
            Place::Heading,
            Place::Underlined,
            Place::Link,
            Place::Print,
        ];
        let place = ORDER.into_iter().find(|place| is(*place));
        Some(place.unwrap_or(if state == Html::Print { Place::Html } else { Place::Other }))
    }
}
