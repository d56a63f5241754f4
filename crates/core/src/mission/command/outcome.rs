//! Which outcome `/close` names, in the words that people use.

use super::Command;
use super::arguments::shown;
use crate::cell::{CellId, Outcome};

/// Words that say an outcome, as people write them.
pub(super) fn outcome_word(word: &str) -> Option<Outcome> {
    Some(match word {
        "completed" | "complete" | "done" | "finished" => Outcome::Completed,
        "failed" | "fail" | "failure" | "unsuccessful" => Outcome::Failed,
        "abandoned" | "abandon" => Outcome::Abandoned,
        _ => return None,
    })
}

/// Words that say that something was not done.
const UNDONE: [&str; 6] = ["incomplete", "incompleted", "unfinished", "undone", "uncompleted", "unresolved"];

/// `/close [as] [OUTCOME] [CELL] [reason]`, outcome and cell in either order; of these
/// two, what was said apart is not looked for in the text.
///
/// What denies is never taken for `completed`: `not done` and the like are `failed`,
/// and where it is not plain what is meant, the director is asked.
///
/// # Errors
/// Where it is not plain how the cell ended.
pub(super) fn close(text: &str, mut outcome: Option<Outcome>, mut named: Option<CellId>) -> Result<Command, String> {
    let mut left = text;
    while outcome.is_none() || named.is_none() {
        let (word, after) = left.split_once(char::is_whitespace).unwrap_or((left, ""));
        let bare = bare_word(word);
        if outcome.is_none()
            && let Some((found, behind)) = outcome_at_start(left)
        {
            if behind.starts_with('?') {
                return Err("it is a question how it ended; say `completed`, `failed` or `abandoned`".to_owned());
            }
            outcome = Some(found);
            left = behind.trim_start_matches(is_closing).trim_start();
            // `complete failure` is not `completed`.
            if found == Outcome::Completed && bare != "completed" {
                outcome_of(left)?.map_or(Ok(()), |_| Err(NOT_PLAIN.to_owned()))?;
            }
            continue;
        } else if named.is_none()
            && let Ok(found) = CellId::parse(&bare)
        {
            named = Some(found);
        } else if outcome.is_none() && bare == "as" {
            // `as failed`; what follows says the outcome.
            let next = bare_word(after.split_whitespace().next().unwrap_or_default());
            if outcome_word(&next).is_none() && next != "not" && !UNDONE.contains(&next.as_str()) {
                break;
            }
        } else {
            break;
        }
        left = after.trim_start();
    }
    let (first, after) = left.split_once(char::is_whitespace).unwrap_or((left, ""));
    let reason = if first.chars().all(is_closing) { after.trim() } else { left.trim() };
    let outcome = match outcome {
        Some(outcome) => Some(outcome),
        None => outcome_of(reason)?,
    };
    Ok(Command::Close { outcome, reason: (!reason.is_empty()).then(|| reason.to_owned()), cell: named })
}

const NOT_PLAIN: &str = "it is not plain how it ended; say `completed`, `failed` or `abandoned` before the reason";

/// A word without signs around it, in lower case.
fn bare_word(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// An outcome at the beginning, and what stands behind its word: `failed: because`,
/// `*Failed*, because`. A part of a longer word (`failed-over`) is none.
fn outcome_at_start(text: &str) -> Option<(Outcome, &str)> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric() && !c.is_whitespace());
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let mut signs = behind.chars();
    let joined =
        matches!(signs.next(), Some('-' | '_' | '/' | '\'')) && signs.next().is_some_and(char::is_alphanumeric);
    outcome_word(&word.to_lowercase()).filter(|_| !joined).map(|outcome| (outcome, behind))
}

/// Signs that end a word or stand between an outcome and its reason.
fn is_closing(c: char) -> bool {
    matches!(c, '.' | ',' | ':' | ';' | '!' | '-' | '*' | '_' | '`' | ')' | ']' | '"' | '\'')
        || matches!(
            c,
            '\u{2013}' | '\u{2014}' | '\u{2026}' | '\u{2019}' | '\u{201d}' | '\u{ff1a}' | '\u{3002}' | '\u{3001}'
        )
}

/// What a reason without an outcome says of it.
///
/// # Errors
/// Where it denies something, and it is not plain what: then it is asked for.
fn outcome_of(reason: &str) -> Result<Option<Outcome>, String> {
    let words: Vec<String> = reason
        .to_lowercase()
        .replace('\u{2019}', "'")
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = |word: &str| outcome_word(word) == Some(Outcome::Completed) || word == "working" || word == "ready";
    match words.as_slice() {
        [first, ..] if UNDONE.contains(first) => return Ok(Some(Outcome::Failed)),
        // `not done`, `not yet done`, `never finished`.
        ["not" | "never", second, ..] if done(second) => return Ok(Some(Outcome::Failed)),
        ["not" | "never", _, third, ..] if done(third) => return Ok(Some(Outcome::Failed)),
        _ => {}
    }
    let denies = |word: &&str| {
        matches!(*word, "not" | "never" | "cannot" | "fails" | "broken" | "aborted")
            || word.ends_with("n't")
            || outcome_word(word).is_some_and(|outcome| outcome != Outcome::Completed)
            || UNDONE.contains(word)
    };
    if let Some(word) = words.iter().find(|word| denies(word)) {
        return Err(format!("{NOT_PLAIN} (it has the word `{}`)", shown(word)));
    }
    Ok(None)
}
