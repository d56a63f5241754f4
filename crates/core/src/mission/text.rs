//! Text as it is approved: one normal form, one hash, one way to say what
//! changed.

use super::hidden::{hidden_in_title, hidden_parts};
use super::proposal::TEMPLATE_MARKER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The text of a mission in its normal form: what an approval is bound to and
/// what an agent is given, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedText {
    /// The normalised title.
    pub title: String,
    /// The normalised body.
    pub body: String,
    /// SHA-256 over both, hex.
    pub hash: String,
}

impl ApprovedText {
    /// Normalises and hashes a title and a body as the forge gave them.
    pub fn new(title: &str, body: &str) -> Self {
        let title = normalise(title);
        let body = normalise(body);
        let mut hasher = Sha256::new();
        // The lengths keep a line that moves between title and body apart.
        for part in [&title, &body] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hex::encode(hasher.finalize());
        Self { title, body, hash }
    }

    /// Title and body as one text.
    pub fn whole(&self) -> String {
        format!("{}\n\n{}", self.title, self.body)
    }

    /// What a page hides of it, in words: nobody who reads the page has seen that.
    pub fn hidden(&self) -> Vec<String> {
        [hidden_in_title(&self.title), hidden_parts(&self.body, &[TEMPLATE_MARKER])].concat()
    }
}

/// SHA-256 of a text as it is, hex.
pub fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Line ends to `\n` and no white space at the end of the whole: what a
/// browser, the API and a form make of the same text differs in nothing else.
pub fn normalise(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").trim_end().to_owned()
}

/// The lines that differ between two texts, as `- old` and `+ new`, at most
/// `limit` lines; the common beginning and end are left out.
pub fn what_changed(old: &ApprovedText, new: &ApprovedText, limit: usize) -> String {
    let mut out = vec![];
    if old.title != new.title {
        out.push(format!("- {}", old.title));
        out.push(format!("+ {}", new.title));
    }
    let (a, b): (Vec<&str>, Vec<&str>) = (old.body.lines().collect(), new.body.lines().collect());
    let front = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(x, y)| x == y).count();
    out.extend(a[front..a.len() - back].iter().map(|l| format!("- {l}")));
    out.extend(b[front..b.len() - back].iter().map(|l| format!("+ {l}")));
    if out.len() > limit {
        let left = out.len() - limit;
        out.truncate(limit);
        out.push(format!("… and {left} more lines"));
    }
    out.join("\n")
}

/// A duration such as `90s`, `15m`, `4h`, `2d` or `1h30m`, in milliseconds.
///
/// # Errors
/// What is allowed, as a sentence, where it is not of that form, is zero, or
/// longer than ten years.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "`{}` is not a duration; allowed are whole numbers with s, m, h or d, as in `90s`, `15m`, `4h`, `2d`, `1h30m`",
            text.chars().take(40).collect::<String>()
        )
    };
    let mut total: i64 = 0;
    let mut number = String::new();
    let text = text.trim();
    for c in text.chars() {
        if c.is_ascii_digit() && number.len() < 9 {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            ' ' if number.is_empty() => continue,
            _ => return Err(wrong()),
        };
        let value: i64 = number.parse().map_err(|_| wrong())?;
        total = total.saturating_add(value.saturating_mul(unit));
        number.clear();
    }
    if !number.is_empty() || total <= 0 || total > 10 * 366 * 86_400_000 {
        return Err(wrong());
    }
    Ok(total)
}

/// Milliseconds as [`duration`] reads them, in at most two units.
pub fn duration_words(milliseconds: i64) -> String {
    let mut seconds = (milliseconds / 1000).max(0);
    let mut out = String::new();
    let mut parts = 0;
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= size && parts < 2 {
            out.push_str(&format!("{}{unit}", seconds / size));
            seconds %= size;
            parts += 1;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_do_not_change_the_hash_but_words_do() {
        let a = ApprovedText::new("t", "a\r\nb\r\n");
        let b = ApprovedText::new("t", "a\nb");
        assert_eq!(a, b);
        assert_ne!(a.hash, ApprovedText::new("t", "a\nc").hash);
        assert_ne!(ApprovedText::new("ab", "c").hash, ApprovedText::new("a", "bc").hash);
    }

    #[test]
    fn durations_are_read_and_nonsense_is_named() {
        assert_eq!(duration("1h30m"), Ok(5_400_000));
        assert_eq!(duration("90s"), Ok(90_000));
        assert!(duration("soon").unwrap_err().contains("`15m`"));
        assert!(duration("0s").is_err());
        assert!(duration("99999999999999d").is_err());
        assert_eq!(duration_words(5_400_000), "1h30m");
    }

    #[test]
    fn what_changed_names_only_the_lines_that_differ() {
        let old = ApprovedText::new("t", "a\nb\nc");
        let new = ApprovedText::new("t", "a\nx\nc");
        assert_eq!(what_changed(&old, &new, 10), "- b\n+ x");
    }
}
