//! Labels of repositories and organisations. Names are not unique: any number of labels can have the same one.

use serde_json::Value;

use super::Flavour;
use super::api::Call;
use super::reply::{Answer, Reply};
use super::state::{EntryKind, Id, Label, LabelOwner, State, next};

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

/// Normalises `#C5DEF5` to `c5def5`. Three digits are doubled.
fn color(text: &str) -> Option<String> {
    let digits = text.strip_prefix('#').unwrap_or(text).to_ascii_lowercase();
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    match digits.len() {
        6 => Some(digits),
        3 => Some(digits.chars().flat_map(|c| [c, c]).collect()),
        _ => None,
    }
}

impl State {
    /// Labels of an owner with that name, oldest first.
    pub(super) fn labels_named(&self, owner: LabelOwner, name: &str) -> impl Iterator<Item = Id> {
        self.labels.values().filter(move |l| l.owner == owner && l.name == name).map(|l| l.id)
    }

    /// Whether issues of a repository can have a label: its own ones, and those of the organisation that owns it.
    pub(super) fn label_fits(&self, label: Id, repo: Id) -> bool {
        let owner = self.repos.get(&repo).map(|r| r.owner);
        self.labels.get(&label).is_some_and(|l| match l.owner {
            LabelOwner::Repository(id) => id == repo,
            LabelOwner::Organization(id) => Some(id) == owner,
        })
    }

    /// Deletes a label together with its history. No hook is triggered.
    fn remove_label(&mut self, id: Id) {
        self.labels.remove(&id);
        self.entries.retain(|_, e| !matches!(e.kind, EntryKind::Label { label, .. } if label == id));
        for issue in self.issues.values_mut() {
            issue.labels.retain(|l| *l != id);
        }
    }
}

/// Answers `…/labels`. The caller must check who may change them.
pub(super) fn answer(call: &Call<'_>, owner: LabelOwner, path: &[&str]) -> Answer {
    let mut state = call.forge.state();
    let bad_color = |text: &str| {
        call.refuse().say(
            422,
            match call.flavour() {
                Flavour::Gitea => format!("invalid color: {text}"),
                Flavour::Forgejo => format!("bad color code: {text}"),
            },
        )
    };
    let id = path
        .first()
        .and_then(|id| id.parse::<i64>().ok())
        .filter(|id| state.labels.get(id).is_some_and(|l| l.owner == owner));
    match (call.method, path, id) {
        ("GET", [], _) => {
            let ids: Vec<Id> = state.labels.values().filter(|l| l.owner == owner).map(|l| l.id).collect();
            let all: Vec<Value> = state.issue_labels(&ids).into_iter().map(|l| state.label_json(l)).collect();
            drop(state);
            Ok(Reply::part(&all, call.strict_page_if_asked()))
        }
        ("POST", [], _) => {
            let order = call.json()?;
            let name = text(&order, "name").unwrap_or_default().to_owned();
            let given = text(&order, "color").unwrap_or_default();
            for (field, value) in [("Name", name.as_str()), ("Color", given)] {
                if value.is_empty() {
                    return Err(call.refuse().say(422, format!("[{field}]: Required")));
                }
            }
            let color = color(given).ok_or_else(|| bad_color(given))?;
            let id = next(&mut state.seq.label);
            let label = Label {
                id,
                owner,
                name,
                color,
                description: text(&order, "description").unwrap_or_default().to_owned(),
                exclusive: flag(&order, "exclusive").unwrap_or(false),
                archived: flag(&order, "is_archived").unwrap_or(false),
            };
            let shown = state.label_json(&label);
            state.labels.insert(id, label);
            Ok(Reply::json(201, &shown))
        }
        ("GET", [_], Some(id)) => {
            Ok(Reply::json(200, &state.labels.get(&id).map_or(Value::Null, |l| state.label_json(l))))
        }
        ("PATCH", [_], Some(id)) => {
            let order = call.json()?;
            let given = text(&order, "color");
            let color = given.map(|g| color(g).ok_or_else(|| bad_color(g))).transpose()?;
            if let Some(label) = state.labels.get_mut(&id) {
                if let Some(name) = text(&order, "name") {
                    // A name may be used several times, and may be empty.
                    name.clone_into(&mut label.name);
                }
                if let Some(color) = color {
                    label.color = color;
                }
                if let Some(description) = text(&order, "description") {
                    description.clone_into(&mut label.description);
                }
                label.exclusive = flag(&order, "exclusive").unwrap_or(label.exclusive);
                label.archived = flag(&order, "is_archived").unwrap_or(label.archived);
            }
            Ok(Reply::json(200, &state.labels.get(&id).map_or(Value::Null, |l| state.label_json(l))))
        }
        // Deleting a label that does not exist succeeds.
        ("DELETE", [_], id) => {
            if let Some(id) = id {
                state.remove_label(id);
            }
            Ok(Reply::empty(204))
        }
        _ => Err(call.refuse().not_found()),
    }
}
