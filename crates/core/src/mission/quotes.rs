//! Quotes around an argument, as keyboards and word processors make them.

/// What an opening quote may be closed with; empty for what opens nothing.
fn closings(open: char) -> &'static [char] {
    match open {
        '"' => &['"'],
        '\'' => &['\''],
        '\u{ff02}' => &['\u{ff02}'],
        '\u{ff07}' => &['\u{ff07}'],
        // English, Swedish; German closes with what English opens.
        '\u{2018}' | '\u{2019}' | '\u{201b}' => &['\u{2019}'],
        '\u{201c}' | '\u{201d}' | '\u{201f}' => &['\u{201d}'],
        '\u{201a}' => &['\u{2018}', '\u{2019}'],
        '\u{201e}' => &['\u{201c}', '\u{201d}'],
        '\u{ab}' => &['\u{bb}'],
        '\u{bb}' => &['\u{ab}', '\u{bb}'],
        '\u{2039}' => &['\u{203a}'],
        '\u{203a}' => &['\u{2039}', '\u{203a}'],
        '\u{300c}' => &['\u{300d}'],
        '\u{300e}' => &['\u{300f}'],
        _ => &[],
    }
}

/// Whether a value begins with a quote.
pub(super) fn is_quoted(text: &str) -> bool {
    text.chars().next().is_some_and(|first| !closings(first).is_empty())
}

/// The inside of the quote that a text begins with, and what stands behind it. A sign
/// within a word (`don't`) closes nothing. `what` names the value in an error.
///
/// # Errors
/// The quote is not closed.
pub(super) fn unquoted<'a>(what: &str, text: &'a str) -> Result<(&'a str, &'a str), String> {
    let mut chars = text.chars();
    let open = chars.next().unwrap_or_default();
    let inner = chars.as_str();
    let end = inner.char_indices().find(|(at, c)| {
        closings(open).contains(c) && !inner[at + c.len_utf8()..].chars().next().is_some_and(char::is_alphanumeric)
    });
    let (at, close) = end.ok_or_else(|| {
        let wanted: Vec<String> = closings(open).iter().map(char::to_string).collect();
        format!("the quote {open} after `{what}` is not closed; write {} where it ends", wanted.join(" or "))
    })?;
    Ok((&inner[..at], &inner[at + close.len_utf8()..]))
}

/// A value in quotes that it does not hold itself, so that it is read as it is.
pub(super) fn in_quotes(text: &str) -> String {
    let pairs = [('"', '"'), ('\'', '\''), ('\u{ab}', '\u{bb}'), ('\u{300c}', '\u{300d}')];
    let (open, close) = pairs.into_iter().find(|(_, close)| !text.contains(*close)).unwrap_or(pairs[0]);
    format!("{open}{text}{close}")
}
