//! Merges defaults, file, environment and flags into one tree in which each value still knows its layer. Keys have
//! no meaning here yet; [`section`](super::section) gives them one.

use super::Problem;
use super::source::Source;
use std::collections::BTreeMap;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The entries of one table, by key.
pub(crate) type Entries = BTreeMap<String, Entry>;

/// One value, and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    pub(crate) raw: Raw,
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Entry>),
    Table(Entries),
    /// A date, or a number out of range: no key accepts these.
    Unusable(&'static str),
}

impl Raw {
    /// The kind of value, for messages. The value itself is never shown, because it may be a secret that was
    /// written on the wrong line.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Unusable(kind) => kind,
        }
    }
}

/// Parses a TOML document. `at` turns a line number into a source.
pub(crate) fn parse(text: &str, at: &dyn Fn(usize) -> Source) -> Result<Entries, Problem> {
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|error| {
        // Shows only the parser's message, and not the line that it would quote.
        let line = error.span().map_or(1, |span| lines.number(span.start));
        Problem { at: at(line), text: format!("not valid TOML: {}", error.message()) }
    })?;
    Ok(entries(document.get_ref(), &|offset| at(lines.number(offset))))
}

/// Parses one inline TOML value, such as a list in an environment variable.
pub(crate) fn parse_value(text: &str, source: &Source) -> Option<Raw> {
    let value = DeValue::parse(text.trim()).ok()?;
    Some(raw(value.get_ref(), &|_| source.clone()))
}

fn entries(table: &DeTable<'_>, at: &dyn Fn(usize) -> Source) -> Entries {
    table
        .iter()
        .map(|(key, value)| {
            let entry = Entry { source: at(key.span().start), raw: raw(value.get_ref(), at) };
            (key.get_ref().to_string(), entry)
        })
        .collect()
}

fn raw(value: &DeValue<'_>, at: &dyn Fn(usize) -> Source) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Unusable("a number that is too large"), Raw::Integer),
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Raw::Float(number),
            _ => Raw::Unusable("a number that is not finite"),
        },
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Datetime(_) => Raw::Unusable("a date"),
        DeValue::Array(list) => Raw::List(
            list.iter().map(|item| Entry { source: at(item.span().start), raw: raw(item.get_ref(), at) }).collect(),
        ),
        DeValue::Table(table) => Raw::Table(entries(table, at)),
    }
}

/// Merges `over` into `base`: tables are merged key by key, and anything else is replaced.
pub(crate) fn merge(base: &mut Entries, over: Entries) {
    for (key, entry) in over {
        match base.get_mut(&key) {
            Some(Entry { source, raw: Raw::Table(below) }) => match entry.raw {
                Raw::Table(above) => {
                    *source = entry.source;
                    merge(below, above);
                }
                raw => {
                    base.insert(key, Entry { source: entry.source, raw });
                }
            },
            _ => {
                base.insert(key, entry);
            }
        }
    }
}

/// Sets the value at a path of keys, creating tables on the way.
pub(crate) fn insert(base: &mut Entries, path: &[String], entry: Entry) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        base.insert(first.clone(), entry);
        return;
    }
    let below = base
        .entry(first.clone())
        .or_insert_with(|| Entry { source: entry.source.clone(), raw: Raw::Table(Entries::new()) });
    if !matches!(below.raw, Raw::Table(_)) {
        *below = Entry { source: entry.source.clone(), raw: Raw::Table(Entries::new()) };
    }
    if let Raw::Table(below) = &mut below.raw {
        insert(below, rest, entry);
    }
}

/// The prefix of environment variables that set keys.
pub(crate) const ENV_PREFIX: &str = "LAZARUS__";

/// The layer of the environment: `LAZARUS__SECTION__KEY`, in upper or lower case. Only names of environment
/// variables below `agents.NAME` keep their case.
pub(crate) fn environment(env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Entries {
    let mut layer = Entries::new();
    for (name, value) in env {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let source = Source::Env(name.clone());
        let mut path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
        if let ([section, _, map, variable], Some((_, kept))) = (path.as_mut_slice(), key.rsplit_once("__"))
            && section == "agents"
            && (map == "env" || map == "credentials")
        {
            kept.clone_into(variable);
        }
        put(&mut layer, &path, source, value, problems);
    }
    layer
}

/// The layer of command line flags: dotted keys and their values.
pub(crate) fn flags(flags: &[(String, String)], problems: &mut Vec<Problem>) -> Entries {
    let mut layer = Entries::new();
    for (key, value) in flags {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        put(&mut layer, &path, Source::Flag, value, problems);
    }
    layer
}

fn put(layer: &mut Entries, path: &[String], source: Source, value: &str, problems: &mut Vec<Problem>) {
    // No key is deeper than agents.NAME.env.VARIABLE.
    if path.len() > 4 || path.iter().any(String::is_empty) {
        let text = format!("`{}` is not a key; keys are SECTION.KEY", path.join("."));
        problems.push(Problem { at: source, text });
    } else {
        insert(layer, path, Entry { source, raw: Raw::Text(value.to_owned()) });
    }
}

/// Converts byte offsets to line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte offset, counted from 1.
    fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// Makes the source of a line in this file.
pub(crate) fn file_source(path: &Path) -> impl Fn(usize) -> Source + '_ {
    move |line| Source::File(path.to_owned(), line)
}
