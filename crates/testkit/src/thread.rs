//! A mission's thread as its readers see it, and the marker by which programs
//! find the bot's comments again (contract §8).

use std::fmt::{self, Write as _};

use serde_json::Value;

/// What a comment of the bot is, by its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A cell was started.
    SpawnLog,
    /// A cell ended.
    CloseLog,
    /// The one comment that is edited in place.
    Status,
    /// A command was done, or a question answered.
    Answer,
    /// A command was not done, and why.
    Refusal,
    /// Somebody has to answer.
    Question,
    /// What is before the directors.
    Request,
    /// Something was seen that people should know of.
    Warning,
}

impl Kind {
    /// The word in the marker.
    pub fn word(self) -> &'static str {
        match self {
            Self::SpawnLog => "spawn-log",
            Self::CloseLog => "close-log",
            Self::Status => "status",
            Self::Answer => "answer",
            Self::Refusal => "refusal",
            Self::Question => "question",
            Self::Request => "request",
            Self::Warning => "warning",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [
            Self::SpawnLog,
            Self::CloseLog,
            Self::Status,
            Self::Answer,
            Self::Refusal,
            Self::Question,
            Self::Request,
            Self::Warning,
        ]
        .into_iter()
        .find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// `<!-- lazarus kind=KIND effect=ID cell=CELL -->`, the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// What the comment is.
    pub kind: Kind,
    /// The effect that posted it; no two comments share one.
    pub effect: String,
    /// The cell it speaks of, where there is one.
    pub cell: Option<String>,
}

impl Marker {
    /// Reads the marker from a comment's last line; `None` if there is none of
    /// the promised shape.
    pub fn parse(body: &str) -> Option<Self> {
        let line = body.trim_end().lines().last()?.trim();
        let words = line.strip_prefix("<!-- lazarus ")?.strip_suffix(" -->")?;
        let (mut kind, mut effect, mut cell) = (None, None, None);
        for word in words.split(' ') {
            match word.split_once('=')? {
                ("kind", value) => kind = Some(Kind::parse(value)?),
                ("effect", value) => effect = Some(value.to_owned()),
                ("cell", value) => cell = Some(value.to_owned()),
                _ => return None,
            }
        }
        Some(Self { kind: kind?, effect: effect?, cell })
    }
}

/// One comment.
#[derive(Debug, Clone)]
pub struct Comment {
    /// Its number on the server.
    pub id: i64,
    /// Its (first) author's number.
    pub author: i64,
    /// Its (first) author's name.
    pub login: String,
    /// The text.
    pub body: String,
    /// When it was last edited, as the forge words it.
    pub updated_at: String,
    /// The marker, if the last line is one. Anybody can write one: see who the
    /// author is.
    pub marker: Option<Marker>,
}

impl Comment {
    /// From the API's JSON.
    pub fn from_json(value: &Value) -> Self {
        let body = value["body"].as_str().unwrap_or_default().to_owned();
        Self {
            id: value["id"].as_i64().expect("a comment has an id"),
            author: value["user"]["id"].as_i64().unwrap_or(-1),
            login: value["user"]["login"].as_str().unwrap_or("?").to_owned(),
            updated_at: value["updated_at"].as_str().unwrap_or_default().to_owned(),
            marker: Marker::parse(&body),
            body,
        }
    }

    /// Whether it is of that kind, by its marker.
    pub fn is(&self, kind: Kind) -> bool {
        self.marker.as_ref().is_some_and(|marker| marker.kind == kind)
    }

    /// The cell that the marker names; fails the test where it names none.
    #[track_caller]
    pub fn cell(&self) -> String {
        match self.marker.as_ref().and_then(|marker| marker.cell.clone()) {
            Some(cell) => cell,
            None => panic!("this comment names no cell in its marker:\n{}", self.body),
        }
    }

    /// The visible text: without the marker's line.
    pub fn text(&self) -> &str {
        match self.marker {
            Some(_) => self.body.trim_end().rsplit_once('\n').map_or("", |(text, _)| text),
            None => &self.body,
        }
    }

    /// Whether the visible text says all of `words`, in any case.
    pub fn says(&self, words: &[&str]) -> bool {
        let text = self.text().to_lowercase();
        words.iter().all(|word| text.contains(&word.to_lowercase()))
    }
}

/// The thread as one would read it, for failure messages.
pub fn render(comments: &[Comment]) -> String {
    let mut text = String::new();
    for comment in comments {
        let _ = write!(text, "── #{} {} ", comment.id, comment.login);
        text.push_str(&"─".repeat(40));
        text.push('\n');
        text.push_str(&comment.body.chars().take(4000).collect::<String>());
        text.push('\n');
    }
    if comments.is_empty() {
        text.push_str("(no comments)\n");
    }
    text
}
