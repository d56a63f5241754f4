//! Every sentence that Lazarus says on an issue or to an operator: each is a function
//! with typed arguments, in the file of its subject.
//!
//! A sentence is Markdown as the forge reads it: what people or agents named stands in
//! code spans. [`plain`] is the same for a terminal. The sentences of the pages, such as
//! those around the tables of a close log, stand in `templates/comments/`.
//!
//! [`all`] lists them as they are written here; `docs/comments.md` is made from it.

/// Defines the sentences of one subject. Before each stands when it is said; behind `with`
/// stand words that depend on its arguments.
macro_rules! sentences {
    ($(
        $(#[doc = $when:literal])+
        $name:ident($($argument:ident: $kind:ty),* $(,)?)
        $(with ($($word:ident = $value:expr),+ $(,)?))?
        = $text:literal;
    )*) => {
        $(
            $(#[doc = $when])+
            #[allow(clippy::useless_format, reason = "some sentences have no arguments")]
            pub fn $name($($argument: $kind),*) -> String {
                $($(let $word = $value;)+)?
                format!($text)
            }
        )*

        /// The sentences of this subject, in their order.
        pub(super) const ALL: &[super::Sentence] = &[$(super::Sentence {
            name: stringify!($name),
            when: &[$($when),+],
            text: $text,
        }),*];
    };
}

pub mod cells;
pub mod commands;
pub mod issues;
pub mod operators;
pub mod requests;

/// One sentence, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Sentence {
    /// The name of its function.
    pub name: &'static str,
    /// When it is said: the lines of its comment.
    pub when: &'static [&'static str],
    /// Its words, with its arguments in braces.
    pub text: &'static str,
}

/// All sentences, by subject.
pub const fn all() -> [(&'static str, &'static [Sentence]); 5] {
    [
        ("Commands", commands::ALL),
        ("Requests and approvals", requests::ALL),
        ("The issue and its comments", issues::ALL),
        ("Cells and their work", cells::ALL),
        ("Answers to operators", operators::ALL),
    ]
}

/// A sentence for a terminal: without the marks of code spans.
pub fn plain(markdown: &str) -> String {
    markdown.replace('`', "")
}

/// Names, each in a code span, with commas.
pub fn names<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
