//! Issue templates as the forge lists them, read from the repository's `.gitea/ISSUE_TEMPLATE/` and similar
//! directories. It supports only as much YAML as templates use: block maps and lists, flow lists, quoted and plain
//! scalars, block texts. A template with anything else is left out of the list, like a broken one on a real server.

use serde_json::{Map, Value, json};

use super::Flavour;
use super::api::Call;
use super::reply::{Answer, Reply};
use super::state::Id;

/// The directories in which forges look, in this order.
const PLACES: [&str; 8] = [
    "ISSUE_TEMPLATE",
    "issue_template",
    ".forgejo/ISSUE_TEMPLATE",
    ".forgejo/issue_template",
    ".gitea/ISSUE_TEMPLATE",
    ".gitea/issue_template",
    ".github/ISSUE_TEMPLATE",
    ".github/issue_template",
];

pub(super) async fn list(call: &Call<'_>, repo: Id) -> Answer {
    let branch = call.forge.state().repos.get(&repo).map(|r| r.default_branch.clone()).unwrap_or_default();
    let git = &call.forge.git;
    let Some(commit) = git.branch(repo, &branch).await else {
        return Ok(Reply::json(200, &json!([])));
    };
    let mut all = Vec::new();
    for place in PLACES {
        if call.flavour() == Flavour::Gitea && place.starts_with(".forgejo") {
            continue;
        }
        for (name, kind, sha) in git.list(repo, &commit.id, place).await {
            let path = format!("{place}/{name}");
            if kind != "blob" || name.starts_with("config.") {
                continue;
            }
            let Ok(content) = git.blob(repo, &sha).await else {
                continue;
            };
            let text = String::from_utf8_lossy(&content).replace("\r\n", "\n");
            let found = match path.rsplit('.').next() {
                Some("yaml" | "yml") => form(&text, &path, call.flavour()),
                Some("md") => markdown(&text, &path, call.flavour()),
                _ => None,
            };
            all.extend(found);
        }
        // Only the first directory that contains any templates counts.
        if !all.is_empty() {
            break;
        }
    }
    Ok(Reply::json(200, &Value::Array(all)))
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => text.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect(),
        _ => vec![],
    }
}

fn listed(head: &Value, content: &str, body: Value, path: &str, flavour: Flavour) -> Option<Value> {
    let text = |key: &str| head[key].as_str().unwrap_or_default();
    if text("name").is_empty() || text("about").is_empty() && text("description").is_empty() {
        return None;
    }
    let about = if text("about").is_empty() { text("description") } else { text("about") };
    let reference = text("ref");
    let mut out = json!({
        "name": text("name"), "title": text("title"), "about": about, "labels": words(&head["labels"]),
        "ref": format!("refs/heads/{reference}"), "content": content, "body": body, "file_name": path,
    });
    if flavour == Flavour::Gitea {
        let assignees = words(&head["assignees"]);
        let assignees = if assignees.is_empty() { Value::Null } else { json!(assignees) };
        super::shapes::merge(&mut out, json!({"assignees": assignees}));
    }
    Some(out)
}

fn form(text: &str, path: &str, flavour: Flavour) -> Option<Value> {
    let read = read_yaml(text)?;
    let mut fields = Vec::new();
    for (at, field) in read["body"].as_array()?.iter().enumerate() {
        let kind = field["type"].as_str()?;
        let id = field["id"].as_str().map_or_else(|| at.to_string(), str::to_owned);
        let visible = match &field["visible"] {
            Value::Array(all) => Value::Array(all.clone()),
            _ if kind == "markdown" => json!(["form"]),
            _ => json!(["form", "content"]),
        };
        fields.push(json!({
            "type": kind, "id": id, "attributes": field["attributes"], "validations": field["validations"],
            "visible": visible,
        }));
    }
    listed(&read, "", Value::Array(fields), path, flavour)
}

fn markdown(text: &str, path: &str, flavour: Flavour) -> Option<Value> {
    let rest = text.strip_prefix("---\n")?;
    let (head, content) = rest.split_once("\n---\n")?;
    listed(&read_yaml(head)?, content, Value::Null, path, flavour)
}

struct Line<'a> {
    indent: usize,
    text: &'a str,
    /// The unmodified line, for block texts.
    raw: &'a str,
}

/// Parses the subset of YAML named above; `None` for anything else.
fn read_yaml(text: &str) -> Option<Value> {
    let lines: Vec<Line<'_>> = text
        .lines()
        .filter(|l| *l != "---")
        .map(|raw| Line { indent: raw.len() - raw.trim_start_matches(' ').len(), text: raw.trim(), raw })
        .collect();
    let mut at = 0;
    let value = block(&lines, &mut at, 0, 0)?;
    skip_blank(&lines, &mut at);
    (at == lines.len()).then_some(value)
}

fn skip_blank(lines: &[Line<'_>], at: &mut usize) {
    while lines.get(*at).is_some_and(|l| l.text.is_empty() || l.text.starts_with('#')) {
        *at += 1;
    }
}

/// Splits `key: value`. The value may be empty.
fn key(text: &str) -> Option<(String, &str)> {
    let (name, rest) = match text.find(": ") {
        Some(at) => (&text[..at], text[at + 2..].trim()),
        None => (text.strip_suffix(':')?, ""),
    };
    if name.is_empty() || name.starts_with(['"', '\'', '[', '{', '-']) && !name.starts_with('"') {
        return None;
    }
    Some((name.trim_matches('"').to_owned(), rest))
}

fn block(lines: &[Line<'_>], at: &mut usize, least: usize, depth: usize) -> Option<Value> {
    // Templates are flat. Deeper nesting is an attack on the stack.
    if depth > 16 {
        return None;
    }
    skip_blank(lines, at);
    let Some(first) = lines.get(*at).filter(|l| l.indent >= least) else {
        return Some(Value::Null);
    };
    let indent = first.indent;
    if first.text == "-" || first.text.starts_with("- ") {
        let mut items = Vec::new();
        loop {
            skip_blank(lines, at);
            let Some(line) =
                lines.get(*at).filter(|l| l.indent == indent && (l.text == "-" || l.text.starts_with("- ")))
            else {
                break;
            };
            let rest = line.text[1..].trim_start();
            *at += 1;
            if rest.is_empty() {
                items.push(block(lines, at, indent + 1, depth + 1)?);
            } else if let Some((name, value)) = key(rest) {
                let inner = indent + (line.text.len() - rest.len());
                let mut map = Map::new();
                map.insert(name, entry(value, lines, at, inner, depth)?);
                keys(lines, at, inner, depth, &mut map)?;
                items.push(Value::Object(map));
            } else {
                items.push(scalar(rest)?);
            }
        }
        return Some(Value::Array(items));
    }
    let mut map = Map::new();
    keys(lines, at, indent, depth, &mut map)?;
    if map.is_empty() { None } else { Some(Value::Object(map)) }
}

fn keys(lines: &[Line<'_>], at: &mut usize, indent: usize, depth: usize, map: &mut Map<String, Value>) -> Option<()> {
    loop {
        skip_blank(lines, at);
        let Some(line) = lines.get(*at).filter(|l| l.indent == indent && !l.text.starts_with("- ")) else {
            return Some(());
        };
        let (name, value) = key(line.text)?;
        *at += 1;
        map.insert(name, entry(value, lines, at, indent, depth)?);
    }
}

/// The value of a key: on its line, below it, or as a block text.
fn entry(value: &str, lines: &[Line<'_>], at: &mut usize, indent: usize, depth: usize) -> Option<Value> {
    if value.is_empty() || value.starts_with('#') {
        skip_blank(lines, at);
        // A list may have the same indent as its key.
        let list = lines.get(*at).is_some_and(|l| l.indent == indent && l.text.starts_with("- "));
        return block(lines, at, if list { indent } else { indent + 1 }, depth + 1);
    }
    if !value.starts_with(['|', '>']) {
        return scalar(value);
    }
    let mut texts: Vec<&str> = Vec::new();
    let inner = lines.get(*at..)?.iter().find(|l| !l.text.is_empty()).map_or(0, |l| l.indent);
    while let Some(line) = lines.get(*at).filter(|l| l.text.is_empty() || l.indent > indent) {
        texts.push(line.raw.get(inner..).unwrap_or_default());
        *at += 1;
    }
    while texts.last().is_some_and(|t| t.is_empty()) {
        texts.pop();
    }
    let joined = texts.join(if value.starts_with('>') { " " } else { "\n" });
    let end = if value.contains('-') { "" } else { "\n" };
    Some(Value::String(joined + end))
}

fn scalar(text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner.split(',').map(str::trim).filter(|p| !p.is_empty()).map(scalar).collect();
    }
    if text.starts_with('"') {
        return serde_json::from_str(text).ok();
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return Some(Value::String(inner.strip_suffix('\'')?.replace("''", "'")));
    }
    if text.starts_with(['{', '&', '*', '!', '%', '@', '`']) {
        return None;
    }
    let plain = text.split(" #").next().unwrap_or_default().trim();
    Some(match plain {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" | "~" => Value::Null,
        _ => plain.parse::<i64>().map_or_else(|_| Value::String(plain.to_owned()), Value::from),
    })
}
