//! Reads typed values from the merged tree. Every key that is asked for is a known key; a key that was never asked
//! for is unknown. Problems are collected, so that a person sees all of them at once.

use super::layers::{Entries, Entry, Raw, parse_value};
use super::secret::SecretSource;
use super::source::{Source, Sourced};
use super::units;
use super::{CommitChoice, PolledCommands, Problem};
use crate::cell::{Isolation, Network};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a key's value can have.
pub(crate) trait Setting: Sized {
    /// What is allowed, for messages.
    const WANTED: &'static str;
    /// Parses the value; `None` if it is not valid. `untyped` says that it came from the environment or a flag,
    /// where numbers are text too.
    fn from_raw(raw: &Raw, untyped: bool) -> Option<Self>;
    /// How `config show` prints it.
    fn show(&self) -> Value;
}

impl Setting for String {
    const WANTED: &'static str = "text without control characters";
    fn from_raw(raw: &Raw, _: bool) -> Option<Self> {
        match raw {
            Raw::Text(text) if !text.chars().any(char::is_control) => Some(text.clone()),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for bool {
    const WANTED: &'static str = "true or false";
    fn from_raw(raw: &Raw, untyped: bool) -> Option<Self> {
        match raw {
            Raw::Boolean(value) => Some(*value),
            Raw::Text(text) if untyped => text.trim().parse().ok(),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        (*self).into()
    }
}

impl Setting for i64 {
    const WANTED: &'static str = "a whole number";
    fn from_raw(raw: &Raw, untyped: bool) -> Option<Self> {
        match raw {
            Raw::Integer(number) => Some(*number),
            Raw::Text(text) if untyped => text.trim().parse().ok(),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        (*self).into()
    }
}

impl Setting for f64 {
    const WANTED: &'static str = "a number";
    fn from_raw(raw: &Raw, untyped: bool) -> Option<Self> {
        match raw {
            Raw::Float(number) => Some(*number),
            Raw::Integer(number) => Some(*number as Self),
            Raw::Text(text) if untyped => text.trim().parse().ok().filter(|number: &Self| number.is_finite()),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        (*self).into()
    }
}

impl Setting for Duration {
    const WANTED: &'static str = units::DURATION_FORM;
    fn from_raw(raw: &Raw, _: bool) -> Option<Self> {
        match raw {
            Raw::Text(text) => units::parse_duration(text.trim()),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        units::show_duration(*self).into()
    }
}

/// A size in bytes.
pub(crate) struct Bytes(pub(crate) u64);

impl Setting for Bytes {
    const WANTED: &'static str = units::SIZE_FORM;
    fn from_raw(raw: &Raw, _: bool) -> Option<Self> {
        match raw {
            Raw::Text(text) => units::parse_size(text.trim()).map(Self),
            Raw::Integer(number) => u64::try_from(*number).ok().map(Self),
            _ => None,
        }
    }
    fn show(&self) -> Value {
        units::show_size(self.0).into()
    }
}

/// Implements [`Setting`] for types that are written as one word.
macro_rules! words {
    ($($type:ty: $wanted:literal, $parse:expr;)*) => {$(
        impl Setting for $type {
            const WANTED: &'static str = $wanted;
            fn from_raw(raw: &Raw, _: bool) -> Option<Self> {
                match raw {
                    Raw::Text(text) => $parse(text.trim()),
                    _ => None,
                }
            }
            fn show(&self) -> Value {
                self.to_string().into()
            }
        }
    )*};
}
words! {
    SocketAddr: "an address and port such as \"127.0.0.1:8181\" or \"[::1]:8181\"", |text: &str| text.parse().ok();
    Isolation: "one of none, level_1, level_1_5, level_2, level_3", Isolation::parse;
    Network: "one of none, proxy, host", Network::parse;
    PolledCommands: "one of confirm, run", PolledCommands::parse;
    CommitChoice: "one of approved, latest", CommitChoice::parse;
}

/// Every value by its dotted key, and where it came from.
pub(crate) type Values = BTreeMap<String, Sourced<Value>>;

/// What reading found: the values, the keys that exist, and the problems.
#[derive(Default)]
pub(crate) struct Report {
    problems: RefCell<Vec<Problem>>,
    values: RefCell<BTreeMap<String, Sourced<Value>>>,
    known: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<(String, Source)>>,
}

impl Report {
    /// Records a problem.
    pub(crate) fn problem(&self, at: Source, text: String) {
        self.problems.borrow_mut().push(Problem { at, text });
    }

    /// The layer that a key came from, once the key was read.
    pub(crate) fn source_of(&self, key: &str) -> Source {
        self.values.borrow().get(key).map_or(Source::Default, |value| value.source.clone())
    }

    /// Records a value.
    pub(crate) fn value(&self, key: String, value: Value, source: Source) {
        self.values.borrow_mut().insert(key, Sourced { value, source });
    }

    /// Returns the values and all keys that exist, or the problems.
    pub(crate) fn conclude(self) -> Result<(Values, BTreeSet<String>), Vec<Problem>> {
        let mut known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for (key, at) in self.unknown.into_inner() {
            let key: String = key.chars().filter(|c| !c.is_control()).take(120).collect();
            let text = match nearest(&key, &known) {
                Some(near) => format!("unknown key `{key}`; the nearest known key is `{near}`"),
                None => format!("unknown key `{key}`"),
            };
            problems.push(Problem { at, text });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // A table is not a key itself.
        let tables: Vec<String> =
            known.iter().filter_map(|key| key.rsplit_once('.').map(|(table, _)| table.to_owned())).collect();
        for table in tables {
            known.remove(&table);
        }
        Ok((self.values.into_inner(), known))
    }
}

/// The known key that was probably meant: usually a typing error within the same section, sometimes the right key
/// in the wrong section.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a String> {
    let split = |key: &str| -> (String, String) {
        let (parent, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        (parent.to_owned(), leaf.to_owned())
    };
    let (parent, leaf) = split(key);
    known.iter().min_by_key(|candidate| {
        let (its_parent, its_leaf) = split(candidate);
        let within = strsim::damerau_levenshtein(&leaf, &its_leaf);
        if its_parent == parent { within } else { (within + 3).min(strsim::damerau_levenshtein(key, candidate) + 1) }
    })
}

/// One table while it is being read.
pub(crate) struct Section<'r> {
    path: String,
    source: Source,
    entries: Entries,
    /// Keys of this table that were given and read, whether valid or not.
    given: BTreeSet<String>,
    report: &'r Report,
}

impl<'r> Section<'r> {
    fn new(path: String, source: Source, entries: Entries, report: &'r Report) -> Self {
        Self { path, source, entries, given: BTreeSet::new(), report }
    }

    /// The whole tree.
    pub(crate) fn root(entries: Entries, report: &'r Report) -> Self {
        Self::new(String::new(), Source::Default, entries, report)
    }

    /// The dotted name of a key in this section.
    pub(crate) fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Records a problem with a key of this section.
    pub(crate) fn problem(&self, key: &str, text: &str) {
        let name = self.name_of(key);
        let source = match self.report.values.borrow().get(&name) {
            Some(value) if value.source != Source::Default => value.source.clone(),
            _ => self.source.clone(),
        };
        self.report.problem(source, format!("{name}: {text}"));
    }

    /// The keys that have not been read yet.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn take(&mut self, key: &str) -> Option<Entry> {
        self.report.known.borrow_mut().insert(self.name_of(key));
        let entry = self.entries.remove(key)?;
        self.given.insert(key.to_owned());
        Some(entry)
    }

    /// Whether this key was given, whether valid or not.
    pub(crate) fn was_given(&self, key: &str) -> bool {
        self.given.contains(key)
    }

    /// Takes a key whose name is not allowed, and records why.
    pub(crate) fn refuse(&mut self, key: &str, why: &str) {
        if let Some(entry) = self.entries.remove(key) {
            let name: String = self.name_of(key).chars().filter(|c| !c.is_control()).take(120).collect();
            self.report.problem(entry.source, format!("{name}: {why}"));
        }
    }

    fn wrong(&self, key: &str, entry: &Entry, wanted: &str) {
        let mut text = format!("{}: must be {}", self.name_of(key), wanted.trim_end_matches(','));
        // The value is not repeated, because it may be a secret. Its kind is named only if that helps.
        let kind = entry.raw.kind();
        if !entry.source.is_untyped() && kind != "text" && !wanted.contains(kind) {
            text.push_str("; found ");
            text.push_str(kind);
        }
        self.report.problem(entry.source.clone(), text);
    }

    /// An optional value.
    pub(crate) fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        self.optional_if(key, T::WANTED, |_| true)
    }

    /// An optional value that must satisfy a condition.
    pub(crate) fn optional_if<T: Setting>(&mut self, key: &str, wanted: &str, good: impl Fn(&T) -> bool) -> Option<T> {
        let entry = self.take(key)?;
        let value = T::from_raw(&entry.raw, entry.source.is_untyped()).filter(good);
        if let Some(value) = &value {
            self.report.value(self.name_of(key), value.show(), entry.source);
        } else {
            self.wrong(key, &entry, wanted);
        }
        value
    }

    /// A value with a default.
    pub(crate) fn get<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.get_if(key, default, T::WANTED, |_| true)
    }

    /// A value with a default that must satisfy a condition.
    pub(crate) fn get_if<T: Setting>(&mut self, key: &str, default: T, wanted: &str, good: impl Fn(&T) -> bool) -> T {
        self.optional_if(key, wanted, good).unwrap_or_else(|| {
            self.default_value(key, default.show());
            default
        })
    }

    /// Records the default of a key that nobody set.
    pub(crate) fn default_value(&self, key: &str, value: Value) {
        self.report.value(self.name_of(key), value, Source::Default);
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, key: &str, default: u32, least: u32, most: u32) -> u32 {
        let wanted = format!("a whole number from {least} to {most}");
        let range = i64::from(least)..=i64::from(most);
        let number = self.get_if(key, i64::from(default), &wanted, |number| range.contains(number));
        u32::try_from(number).unwrap_or(default)
    }

    /// A duration within bounds.
    pub(crate) fn duration(&mut self, key: &str, default: Duration, least: Duration, most: Duration) -> Duration {
        let wanted = format!(
            "{}, from {} to {},",
            units::DURATION_FORM,
            units::show_duration(least),
            units::show_duration(most)
        );
        self.get_if(key, default, &wanted, |duration| (least..=most).contains(duration))
    }

    /// A size within bounds, in bytes.
    pub(crate) fn size(&mut self, key: &str, default: u64, least: u64, most: u64) -> u64 {
        let wanted = format!("{}, from {} to {},", units::SIZE_FORM, units::show_size(least), units::show_size(most));
        self.get_if(key, Bytes(default), &wanted, |size| (least..=most).contains(&size.0)).0
    }

    /// A path. If it comes from a file it is relative to the file's directory, otherwise to the working directory.
    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let entry = self.take(key)?;
        match resolve(&entry) {
            Ok(path) => {
                self.report.value(self.name_of(key), path.to_string_lossy().into(), entry.source);
                Some(path)
            }
            Err(wanted) => {
                self.wrong(key, &entry, wanted);
                None
            }
        }
    }

    /// A list of values, each of which must satisfy a condition. In the environment or a flag it is written `a,b`
    /// or as TOML, `["a", "b"]`.
    pub(crate) fn list<T: Setting>(
        &mut self,
        key: &str,
        default: Vec<T>,
        wanted: &str,
        good: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let show = |list: &[T]| Value::Array(list.iter().map(Setting::show).collect());
        let Some(entry) = self.take(key) else {
            self.default_value(key, show(&default));
            return default;
        };
        let Some(items) = list_of(&entry) else {
            self.wrong(key, &entry, &format!("a list (each of it {wanted})"));
            return default;
        };
        let mut list = Vec::new();
        for item in &items {
            match T::from_raw(&item.raw, item.source.is_untyped()).filter(&good) {
                Some(value) => list.push(value),
                None => self.wrong(key, item, wanted),
            }
        }
        self.report.value(self.name_of(key), show(&list), entry.source);
        list
    }

    /// A table within this one; empty if it does not exist.
    pub(crate) fn section(&mut self, key: &str) -> Section<'r> {
        let path = self.name_of(key);
        self.report.known.borrow_mut().insert(path.clone());
        let Some(mut entry) = self.entries.remove(key) else {
            return Section::new(path, self.source.clone(), Entries::new(), self.report);
        };
        if let Raw::Text(text) = &entry.raw
            && entry.source.is_untyped()
            && let Some(raw) = parse_value(text, &entry.source)
        {
            entry.raw = raw;
        }
        let entries = if let Raw::Table(entries) = entry.raw {
            entries
        } else {
            self.wrong(key, &entry, "a table of keys");
            Entries::new()
        };
        Section::new(path, entry.source, entries, self.report)
    }

    /// A list of tables. If the list comes from the environment as `a,b`, each word is the value of the key `bare`.
    pub(crate) fn sections(&mut self, key: &str, bare: &str) -> Vec<Section<'r>> {
        let Some(entry) = self.take(key) else {
            return Vec::new();
        };
        let Some(items) = list_of(&entry) else {
            self.wrong(key, &entry, "a list of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.name_of(key));
            let entries = match item.raw {
                Raw::Table(entries) => entries,
                Raw::Text(_) if item.source.is_untyped() => Entries::from([(bare.to_owned(), item.clone())]),
                _ => {
                    self.wrong(key, &item, "a list of tables");
                    continue;
                }
            };
            sections.push(Section::new(path, item.source, entries, self.report));
        }
        sections
    }

    /// Where a secret is found: `KEY_file`, `KEY_env`, `KEY_credential` or `KEY_command`. The strongest layer wins.
    /// Two of these in one layer are refused, and so is the secret itself.
    pub(crate) fn secret(&mut self, key: &str) -> SecretSource {
        let name = self.name_of(key);
        if let Some(entry) = self.entries.remove(key) {
            let text = format!(
                "{name}: a secret never stands in the configuration; put it into a file that only this user can \
                 read and give its path as {name}_file (or use {name}_env, {name}_credential or {name}_command), \
                 and replace the secret, since this place is not kept secret"
            );
            self.report.problem(entry.source, text);
        }
        let mut found: Vec<(Source, SecretSource)> = Vec::new();
        for way in ["file", "env", "credential", "command"] {
            let key = format!("{key}_{way}");
            let Some(entry) = self.take(&key) else {
                continue;
            };
            let place = match (way, &entry.raw) {
                ("file", Raw::Text(text)) if !looks_like_a_secret(text) => resolve(&entry).map(SecretSource::File),
                ("file", _) => Err("the path of a file that holds the secret (not the secret itself)"),
                ("env", Raw::Text(text)) if is_env_name(text) => Ok(SecretSource::Env(text.clone())),
                ("env", _) => {
                    Err("the name of an environment variable, in capitals, digits and _ (not the secret itself)")
                }
                ("command", _) => match list_of(&entry).map(|items| words_of(&items)) {
                    Some(Some(argv)) if argv[0].starts_with('/') => Ok(SecretSource::Command(argv)),
                    _ => Err("a list: the absolute path of a program, and its arguments"),
                },
                (_, Raw::Text(text)) if is_credential_name(text) && !looks_like_a_secret(text) => {
                    Ok(SecretSource::Credential(text.clone()))
                }
                _ => Err("the name of a systemd credential (letters, digits, `-`, `_`, `.`)"),
            };
            match place {
                Ok(place) => found.push((entry.source, place)),
                Err(wanted) => self.wrong(&key, &entry, wanted),
            }
        }
        found.sort_by_key(|(source, _)| std::cmp::Reverse(source.rank()));
        if let [(first, _), (second, _), ..] = &found[..]
            && first.rank() == second.rank()
        {
            let text = format!(
                "{name}: give one of {name}_file, {name}_env, {name}_credential and {name}_command, not several"
            );
            self.report.problem(second.clone(), text);
        }
        let (source, place) = found.into_iter().next().unwrap_or((Source::Default, SecretSource::Unset(name.clone())));
        self.report.value(name, place.to_string().into(), source);
        place
    }

    /// Reports the keys that nobody asked for as unknown.
    pub(crate) fn finish(self) {
        let Self { path, entries, report, .. } = self;
        let mut unknown = report.unknown.borrow_mut();
        for (key, entry) in entries {
            let name = if path.is_empty() { key } else { format!("{path}.{key}") };
            unknown.push((name, entry.source));
        }
    }
}

fn list_of(entry: &Entry) -> Option<Vec<Entry>> {
    match &entry.raw {
        Raw::List(items) => Some(items.clone()),
        Raw::Text(text) if entry.source.is_untyped() => {
            if text.trim_start().starts_with('[') {
                return match parse_value(text, &entry.source)? {
                    Raw::List(items) => Some(items),
                    _ => None,
                };
            }
            let item = |text: &str| Entry { source: entry.source.clone(), raw: Raw::Text(text.to_owned()) };
            Some(text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect())
        }
        _ => None,
    }
}

/// The items of a list as text; `None` if it is empty or an item is not text.
fn words_of(items: &[Entry]) -> Option<Vec<String>> {
    let words = items.iter().map(|item| match &item.raw {
        Raw::Text(text) if !text.contains('\0') => Some(text.clone()),
        _ => None,
    });
    words.collect::<Option<Vec<_>>>().filter(|words| !words.is_empty())
}

fn resolve(entry: &Entry) -> Result<PathBuf, &'static str> {
    let Raw::Text(text) = &entry.raw else {
        return Err("a path");
    };
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("a path");
    }
    if text.starts_with('~') || text.contains('$') {
        return Err("a path in full (`~` and `$VARIABLES` are not expanded)");
    }
    let path = match entry.source.file().and_then(|file| file.parent()) {
        Some(directory) => directory.join(text),
        None => PathBuf::from(text),
    };
    std::path::absolute(path).map_err(|_| "a path")
}

/// Whether this is the name of an environment variable. Only upper case is accepted, so a token that was written in
/// place of a name is nearly always refused without being shown.
pub(crate) fn is_env_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_uppercase() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_credential_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A forge's token has 40 hexadecimal digits, and nobody gives a file such a name.
fn looks_like_a_secret(text: &str) -> bool {
    let text = text.trim();
    (text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        || ["sk-", "ghp_", "github_pat_", "glpat-", "gto_"].iter().any(|prefix| text.starts_with(prefix))
}
