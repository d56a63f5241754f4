//! Where in a comment a command may stand: the lines of ordinary text.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;

/// Markdown as the forge reads it.
pub(in super::super) fn markdown() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_MATH
}

/// The lines of ordinary text: byte ranges in `body`, without line ends.
pub(super) fn plain_lines(body: &str) -> Vec<Range<usize>> {
    // What stands between two lines of `---` at the top is front matter: the
    // forge shows it as a table, or folded.
    let text_from = front_matter(body);
    let mut depth = 0usize;
    let mut paragraph: Option<Range<usize>> = None;
    let mut texts: Vec<Range<usize>> = vec![];
    let mut html = OpenHtml::default();
    let mut block = String::new();
    let mut lines = vec![];
    for (event, range) in Parser::new_ext(body, markdown()).into_offset_iter() {
        match event {
            Event::Start(Tag::Paragraph) if depth == 0 => {
                depth = 1;
                texts.clear();
                paragraph = (html.is_closed() && range.start >= text_from).then_some(range);
            }
            Event::End(TagEnd::Paragraph) if depth == 1 => {
                depth = 0;
                if let Some(paragraph) = paragraph.take() {
                    lines.extend(lines_in(body, paragraph, &texts));
                }
            }
            Event::End(TagEnd::HtmlBlock) => {
                depth = depth.saturating_sub(1);
                html.read(&std::mem::take(&mut block));
            }
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(_) if depth == 1 && html.is_closed() => texts.push(range),
            Event::Html(piece) => block.push_str(&piece),
            Event::InlineHtml(piece) => html.read(&piece),
            _ => {}
        }
    }
    lines
}

/// Where the text begins behind front matter; the end where it is not closed.
pub(in super::super) fn front_matter(body: &str) -> usize {
    let mut lines = body.split_inclusive('\n');
    let Some(first) = lines.next().filter(|l| l.trim_end() == "---") else { return 0 };
    let mut at = first.len();
    for line in lines {
        at += line.len();
        if line.trim_end() == "---" {
            return at;
        }
    }
    body.len()
}

/// Which HTML elements are open. A reader sees nothing of what is folded away
/// in one, so inside of one nothing is a command; and where it is not plain
/// which are open, nothing that follows is one either.
#[derive(Default)]
pub(in super::super) struct OpenHtml {
    open: Vec<String>,
    unclear: bool,
}

impl OpenHtml {
    pub(in super::super) fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.unclear
    }

    /// Whether all that is open only changes how words look.
    pub(in super::super) fn is_print(&self) -> bool {
        const PRINT: [&str; 15] =
            ["a", "b", "code", "del", "em", "font", "i", "ins", "kbd", "mark", "s", "span", "strong", "sub", "u"];
        !self.unclear && self.open.iter().all(|name| PRINT.contains(&name.as_str()))
    }

    pub(in super::super) fn read(&mut self, html: &str) {
        const VOID: [&str; 14] = [
            "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
            "wbr",
        ];
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            rest = &rest[at + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                match comment.find("-->") {
                    Some(end) => rest = &comment[end + 3..],
                    None => return self.unclear = true,
                }
                continue;
            }
            let Some((tag, after)) = rest.split_once('>') else { return self.unclear = true };
            rest = after;
            let closing = tag.starts_with('/');
            let name: String = tag
                .trim_start_matches('/')
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase();
            // Attributes can hold what looks like tags, `/>` closes nothing.
            if name.is_empty()
                || tag.contains(['<', '"', '\'', '`'])
                || (tag.contains('/') && !closing && !VOID.contains(&name.as_str()))
            {
                return self.unclear = true;
            }
            if VOID.contains(&name.as_str()) {
                continue;
            }
            if !closing {
                self.open.push(name);
            } else if self.open.last() == Some(&name) {
                self.open.pop();
            } else {
                return self.unclear = true;
            }
        }
    }
}

fn lines_in(body: &str, paragraph: Range<usize>, texts: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut out = vec![];
    let mut start = paragraph.start;
    let mut texts = texts.iter().peekable();
    for line in body[paragraph].split_inclusive('\n') {
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        let indent = line.len() - line.trim_start_matches(' ').len();
        let first = start + indent;
        // Both are in order, so each text is looked at once.
        while texts.next_if(|t| t.end <= first).is_some() {}
        // The first character has to be plain text, not part of code, a link or HTML.
        if first < end && texts.peek().is_some_and(|t| t.start <= first) {
            out.push(first..end);
        }
        start += line.len();
    }
    out
}
