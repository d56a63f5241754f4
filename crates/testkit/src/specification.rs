//! The specification as tests read it: the tables of `docs/specification.md` that
//! say what programs may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// What answers in JSON have to hold, by the page.
pub struct Vocabulary {
    /// The keys of each row of the table, beside `success` and `message`.
    rows: BTreeMap<String, BTreeSet<String>>,
    /// The keys of a cell.
    pub cell: BTreeSet<String>,
    /// The keys of a member of one.
    pub member: BTreeSet<String>,
}

/// The row for every verb on one cell.
pub const ONE_CELL: &str = "status CELL";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/specification.md");
    std::fs::read_to_string(path).expect("docs/specification.md is there")
}

/// The words in backquotes of a text; several in one pair are several.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).map(str::to_owned).collect()
}

impl Vocabulary {
    /// Reads §7.
    pub fn read() -> Self {
        let page = page();
        let (_, rest) = page.split_once("\n## 7.").expect("§7 is there");
        let (section, _) = rest.split_once("\n## ").expect("§7 ends");
        let head = "| verb | besides `success`, `message` |";
        let (_, table) = section.split_once(head).expect("the table of verbs is there");
        let mut rows = BTreeMap::new();
        for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            let (verb, keys) = line.trim_matches('|').split_once('|').expect("two columns");
            // What stands behind a colon or in brackets says what a key holds.
            let keys = quoted(keys).into_iter().filter(|key| key != "true" && key != "false").collect();
            let verb = verb.split('`').nth(1).expect("a verb in backquotes").to_owned();
            assert!(rows.insert(verb, keys).is_none(), "a verb stands twice: {line}");
        }
        let cell = section.lines().find(|line| line.starts_with("A cell: ")).expect("a cell is described");
        let (before, members) = cell.split_once("`members` (each ").expect("members are described");
        let (member, after) = members.split_once(')').expect("the bracket closes");
        let mut keys: BTreeSet<String> = quoted(before).into_iter().chain(quoted(after)).collect();
        keys.insert("members".to_owned());
        assert!(keys.remove("OWNER/REPO#N"), "the form of `project` stands beside it");
        assert!(rows.len() >= 5 && keys.len() >= 20, "too little was read: {rows:?} {keys:?}");
        Self { rows, cell: keys, member: quoted(member).into_iter().collect() }
    }

    /// The keys of an answer to a verb.
    pub fn keys(&self, verb: &str) -> BTreeSet<String> {
        let row = self.rows.get(verb).unwrap_or_else(|| panic!("no row for `{verb}`"));
        // Who is invited stands beside what every verb on one cell says.
        let more = if verb == "invite" { Some(&self.rows[ONE_CELL]) } else { None };
        let always = ["success", "message"].map(str::to_owned);
        row.iter().chain(more.into_iter().flatten()).cloned().chain(always).collect()
    }

    /// The verbs that have a row.
    pub fn verbs(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// Asserts that an answer has the keys of its verb, no others but `beside`,
    /// and values of the right kind.
    #[track_caller]
    pub fn assert_answer(&self, verb: &str, answer: &Value, beside: &[&str]) {
        let wanted: BTreeSet<String> =
            self.keys(verb).into_iter().chain(beside.iter().map(|k| (*k).to_owned())).collect();
        assert_eq!(keys_of(answer), wanted, "the keys of `{verb}`: {answer}");
        let success = answer["success"].as_bool().unwrap_or_else(|| panic!("`success` is no boolean: {answer}"));
        assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "`message` says nothing: {answer}");
        for (key, value) in answer.as_object().into_iter().flatten() {
            // What a refusal does not know is null.
            if success || !value.is_null() {
                assert_kind(key, value, success);
            }
        }
        if let Some(cell) = answer.get("cell").filter(|cell| !cell.is_null()) {
            self.assert_cell(cell);
            assert_eq!(answer["cell_id"], cell["cell_id"], "{answer}");
            assert_eq!(answer["probe"], cell["probe"], "{answer}");
            assert_eq!(answer["expired"], cell["expired"], "{answer}");
        }
        for cell in answer.get("active_cells").and_then(Value::as_array).into_iter().flatten() {
            self.assert_cell(cell);
        }
    }

    /// Asserts that this is a cell, and nothing else.
    #[track_caller]
    pub fn assert_cell(&self, cell: &Value) {
        assert_eq!(keys_of(cell), self.cell, "the keys of a cell: {cell}");
        for (key, value) in cell.as_object().into_iter().flatten() {
            assert_kind(key, value, true);
        }
        for member in cell["members"].as_array().expect("members are a list") {
            assert_eq!(keys_of(member), self.member, "the keys of a member: {member}");
            for (key, value) in member.as_object().into_iter().flatten() {
                assert_kind(&format!("members.{key}"), value, true);
            }
        }
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().cloned().collect()
}

fn is_identity(value: &Value) -> bool {
    value.as_str().is_some_and(|text| lazarus_core::cell::Identity::parse(text).is_ok())
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok())
}

fn is_list_of(value: &Value, each: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(each))
}

/// Asserts that a key holds what its name promises. `whole`: of an answer that
/// succeeded, where nothing is unknown.
#[track_caller]
fn assert_kind(key: &str, value: &Value, whole: bool) {
    let text = value.as_str();
    let holds = match key {
        "success" | "expired" | "daemon" => value.is_boolean(),
        "message" | "reason" | "branch" | "pull_request" | "ledger" | "agent" => text.is_some() || value.is_null(),
        "cell_id" => text.is_some_and(|id| lazarus_core::cell::CellId::parse(id).is_ok()),
        "project" => text.is_some_and(|name| {
            name.rsplit_once('#').is_some_and(|(repo, n)| repo.matches('/').count() == 1 && n.parse::<u32>().is_ok())
        }),
        "owner" | "guest" | "invited_by" | "members.identity" => is_identity(value),
        "approved_by" => is_list_of(value, is_identity),
        "backend" => text.is_some_and(|word| lazarus_core::cell::BackendKind::parse(word).is_some()),
        "state" => text.is_some_and(|word| lazarus_core::cell::State::ALL.iter().any(|state| state.word() == word)),
        "outcome" => value.is_null() || text.is_some_and(|word| lazarus_core::cell::Outcome::parse(word).is_some()),
        "role" | "members.role" => text.is_some_and(|word| lazarus_core::cell::Role::parse(word).is_some()),
        "members.state" => matches!(text, Some("invited" | "joined" | "gone")),
        "members.run" => value.is_null() || value["number"].is_u64(),
        "created_at" => is_time(value),
        key if key.ends_with("_at") => value.is_null() || is_time(value),
        "ttl_minutes" => value.as_u64().is_some_and(|minutes| minutes > 0),
        "pid" => value.as_i64().is_some_and(|pid| pid > 0) || value.is_null(),
        "pending_inputs" | "pending_effects" => value.is_u64(),
        "isolation" => value.is_null() || text.is_some_and(|word| lazarus_core::cell::Isolation::parse(word).is_some()),
        "network" => text.is_some_and(|word| lazarus_core::cell::Network::parse(word).is_some()),
        "agents" | "isolation_steps" | "isolation_missing" | "hosts" => is_list_of(value, Value::is_string),
        "members" | "active_cells" | "cells" | "damaged" | "waiting" => is_list_of(value, Value::is_object),
        "cell" | "usage" => value.is_object(),
        "logs" => value.as_object().is_some_and(|logs| logs.values().all(Value::is_string)),
        "probe" => text.is_some_and(|text| text.ends_with('.') && text.contains(' ')),
        "commit" => value.is_null() || text.is_some_and(is_hex),
        "approved_sha256" => value.is_null() || text.is_some_and(|hash| hash.len() == 64 && is_hex(hash)),
        other => panic!("docs/specification.md names the key `{other}`; say here what it holds"),
    };
    assert!(holds, "`{key}` holds {value}{}", if whole { "" } else { " in a refusal" });
}

fn is_hex(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
