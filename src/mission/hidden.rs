//! What a page hides or disguises: comments in HTML, invisible characters,
//! letters that look like others. What directors cannot see, they did not
//! approve (contract §6).

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;
use unicode_security::skeleton;

/// Most findings that are named; the rest is counted.
const NAMED_MAX: usize = 10;
/// Longest piece of a hidden text that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// Whether a character cannot be seen where it stands, or turns the order of what
/// is read. `before` and `after` are its neighbours.
///
/// Free text may be in any script: the joiners of Persian and Hindi, the variation
/// selectors and joiners of emoji and the marks of right-to-left scripts are
/// allowed where those scripts need them.
pub fn is_invisible(before: Option<char>, c: char, after: Option<char>) -> bool {
    let wide = |other: Option<char>| other.is_some_and(|o| !o.is_ascii() && !o.is_whitespace());
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{200c}' | '\u{200d}' => !(wide(before) && wide(after)),
        // Selects how the character before it is drawn.
        '\u{fe00}'..='\u{fe0f}' => {
            !(wide(before) || before.is_some_and(|b| b.is_ascii_digit() || b == '#' || b == '*'))
        }
        '\u{e0100}'..='\u{e01ef}' => !before.is_some_and(is_ideograph),
        // The flags of England, Scotland and Wales are spelt with these.
        '\u{e0020}'..='\u{e007f}' => {
            !before.is_some_and(|b| b == '\u{1f3f4}' || ('\u{e0020}'..='\u{e007e}').contains(&b))
        }
        '\u{200e}' | '\u{200f}' | '\u{61c}' => {
            !(before.is_some_and(is_right_to_left) || after.is_some_and(is_right_to_left))
        }
        '\u{180b}'..='\u{180f}' => !before.is_some_and(|b| ('\u{1800}'..='\u{18af}').contains(&b)),
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
        | '\u{e0000}'..='\u{e001f}'
        | '\u{e0080}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{e0fff}' => true,
        _ => false,
    }
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
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if is_invisible(before, c, rest.peek().copied()) {
            return Some(c);
        }
        before = Some(c);
    }
    None
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

/// What of a Markdown text a reader of the page does not see, one sentence each:
/// comments and other silent HTML, definitions of links, folded parts, front
/// matter and invisible characters. Fenced and inline code is seen. `allowed` are
/// comments of ours, whole.
pub fn hidden_parts(body: &str, allowed: &[&str]) -> Vec<String> {
    let mut found = vec![];
    let mut options = Options::empty();
    options.insert(Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH);
    options.insert(Options::ENABLE_TASKLISTS | Options::ENABLE_MATH);
    let mut code: Vec<Range<usize>> = vec![];
    let mut html: Vec<Range<usize>> = vec![];
    let mut in_code = false;
    let mut footnotes: Vec<(String, Range<usize>)> = vec![];
    let mut referred: Vec<String> = vec![];
    let parser = Parser::new_ext(body, options);
    for (_, definition) in parser.reference_definitions().iter() {
        found.push(format!(
            "a definition of a link, which pages do not show: {}",
            shown(&body[definition.span.clone()])
        ));
    }
    for (event, range) in parser.into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_)) => {
                in_code = true;
                code.push(range);
            }
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Code(_) if !in_code => code.push(range),
            Event::Html(_) | Event::InlineHtml(_) => html.push(range),
            Event::Start(Tag::FootnoteDefinition(name)) => footnotes.push((name.to_string(), range)),
            Event::FootnoteReference(name) => referred.push(name.to_string()),
            _ => {}
        }
    }
    for (_, range) in footnotes.into_iter().filter(|(name, _)| !referred.contains(name)) {
        found.push(format!("a footnote that nothing refers to, which pages do not show: {}", shown(&body[range])));
    }
    let is_code = |at: usize| code.iter().any(|range| range.contains(&at));
    for (at, _) in body.match_indices("<!") {
        if is_code(at) || allowed.iter().any(|ours| body[at..].starts_with(ours)) {
            continue;
        }
        let comment = &body[at..];
        let end = comment.find("-->").map_or(comment.len(), |end| end + 3);
        found.push(format!("a comment in HTML: {}", shown(&comment[..end])));
    }
    for (at, _) in body.match_indices("<?") {
        if html.iter().any(|range| range.contains(&at)) {
            found.push(format!("an instruction in HTML: {}", shown(&body[at..])));
        }
    }
    for range in &html {
        let piece = body[range.clone()].to_ascii_lowercase();
        if let Some(at) = piece.find("<details").filter(|at| !is_code(range.start + at)) {
            found.push(format!("a folded part: {}", shown(&body[range.start + at..])));
        }
        for silent in ["<script", "<style", "<template", "<noscript", "<iframe", "<object", "<title", "<textarea"] {
            if piece.contains(silent) {
                found.push(format!("a part that pages leave out: {}", shown(&body[range.start..])));
            }
        }
    }
    if body.lines().next().is_some_and(|l| l.trim_end() == "---") {
        found.push(format!("front matter, which pages fold away: {}", shown(body)));
    }
    if let Some(c) = first_invisible(body) {
        found.push(format!("the character U+{:04X}, which cannot be seen", c as u32));
    }
    if found.len() > NAMED_MAX {
        let left = found.len() - NAMED_MAX;
        found.truncate(NAMED_MAX);
        found.push(format!("and {left} more"));
    }
    found
}

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
        ] {
            assert_eq!(hidden_parts(text, &[]), Vec::<String>::new(), "{text:?}");
        }
        assert_eq!(hidden_parts("<!-- lazarus:v1 -->\n\nx", &["<!-- lazarus:v1 -->"]), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(<!--|-->|<details>|\\[a\\]: b|---\\n|`|\\PC|\\n){0,40}") {
            let _ = hidden_parts(&text, &[]);
        }
    }
}
