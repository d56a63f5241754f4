//! The core is pure: nothing in it can ask a clock, a file, a socket, a
//! database, the environment, chance, or a runtime. Whoever adds an import to it
//! meets this list.

use std::path::{Path, PathBuf};

/// What no line of the core may name, with what it would reach.
const OUTSIDE: [(&str, &str); 42] = [
    ("std::time", "a clock"),
    ("std::fs", "files"),
    ("std::io", "files and sockets"),
    ("std::os", "the system"),
    ("std::net", "sockets"),
    ("std::process", "processes"),
    ("std::env", "the environment"),
    ("std::thread", "threads"),
    ("std::sync", "state that is shared"),
    ("std::cell", "state that is hidden"),
    ("std::collections::HashMap", "chance, by the order of its keys"),
    ("std::collections::HashSet", "chance, by the order of its keys"),
    ("std::random", "chance"),
    ("std::ptr", "memory"),
    ("SystemTime", "a clock"),
    ("Instant", "a clock"),
    ("Timestamp::now", "a clock"),
    ("thread_local!", "state that is hidden"),
    ("static mut", "state that is shared"),
    ("unsafe", "memory"),
    ("include_str!", "files"),
    ("env!", "the environment"),
    ("async fn", "a runtime"),
    (".await", "a runtime"),
    ("println!", "the terminal"),
    ("eprintln!", "the terminal"),
    ("tokio", "a runtime"),
    ("futures", "a runtime"),
    ("rusqlite", "a database"),
    ("reqwest", "sockets"),
    ("hyper", "sockets"),
    ("axum", "sockets"),
    ("jiff", "a clock"),
    ("getrandom", "chance"),
    ("uuid", "chance"),
    ("rustix", "the system"),
    ("libc", "the system"),
    ("tempfile", "files"),
    ("tracing", "the log"),
    ("lazarus", "the program"),
    ("lazarus_gitea", "the forge"),
    ("lazarus_sandbox", "processes"),
];

/// The crates that the core may name, and the rooms of this one.
const ALLOWED: [&str; 12] = [
    "std",
    "crate",
    "super",
    "self",
    "serde",
    "serde_json",
    "thiserror",
    "sha2",
    "hex",
    "pulldown_cmark",
    "unicode_security",
    "strsim",
];

/// The sources below a directory, given from this crate's own.
pub fn sources(below: &str) -> Vec<PathBuf> {
    let mut rooms = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    let mut found = vec![];
    while let Some(room) = rooms.pop() {
        for entry in std::fs::read_dir(&room).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rooms.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The code without comments, text and its own tests: what reaches outside
/// does so in code.
pub fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or(source);
    let mut code = String::new();
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                let _ = rest.by_ref().find(|c| *c == '\n');
                code.push('\n');
            }
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push_str("\"\"");
            }
            '\'' => {
                // A character such as '"'; a lifetime has no second quote.
                let mut ahead = rest.clone();
                let first = ahead.next();
                let second = if first == Some('\\') { ahead.nth(1) } else { ahead.next() };
                if second == Some('\'') {
                    rest = ahead;
                }
            }
            c => code.push(c),
        }
    }
    // An address is a number, and its type can be asked nothing.
    let code =
        ["IpAddr", "Ipv4Addr", "Ipv6Addr"].iter().fold(code, |code, t| code.replace(&format!("std::net::{t}"), t));
    // Groups as one path a name: `use std::{fs, time::Instant}`.
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = code.clone();
    for (at, _) in code.match_indices("use ") {
        // `Pause =>` is no import.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(item) = code[at + 4..].split(';').next() else {
            continue;
        };
        for path in spread(item.trim()) {
            out.push_str("\nuse ");
            out.push_str(&path);
        }
    }
    out
}

fn spread(item: &str) -> Vec<String> {
    let Some((front, group)) = item.split_once('{') else {
        return vec![item.trim().to_owned()];
    };
    let group = group.rsplit_once('}').map_or(group, |(g, _)| g);
    let (mut parts, mut part, mut depth) = (vec![], String::new(), 0);
    for c in group.chars() {
        match c {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                part.push(c);
            }
        }
    }
    parts.push(part);
    parts
        .iter()
        .filter(|p| !p.trim().is_empty())
        .flat_map(|p| spread(&format!("{}{}", front.trim(), p.trim())))
        .collect()
}

/// What of this code reaches outside, in words. `siblings` are the modules
/// beside it, which are read for themselves.
fn reaches(source: &str, siblings: &[String]) -> Vec<String> {
    let code = code(source);
    let whole = |found: usize, word: &str| {
        let joined = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..found].chars().next_back();
        let after = code[found + word.len()..].chars().next();
        let longer_before = before.is_some_and(joined) && word.starts_with(joined);
        let longer_after = after.is_some_and(joined) && word.ends_with(joined);
        !longer_before && !longer_after
    };
    let mut reached: Vec<String> = OUTSIDE
        .iter()
        .filter(|(word, _)| code.match_indices(word).any(|(at, _)| whole(at, word)))
        .map(|(word, what)| format!("`{word}` ({what})"))
        .collect();
    for path in code.lines().filter_map(|l| l.strip_prefix("use ")) {
        let first = path.split("::").next().unwrap_or(path).trim();
        let own = first.chars().next().is_some_and(char::is_uppercase);
        if !own && !ALLOWED.contains(&first) && !siblings.iter().any(|s| s == first) {
            reached.push(format!("`{first}`, which is not among {}", ALLOWED.join(", ")));
        }
    }
    reached
}

#[test]
fn the_core_reaches_no_clock_file_socket_database_or_runtime() {
    let mut read = 0;
    for room in ["cell", "hosts", "mission"] {
        let files = sources(&format!("src/{room}"));
        let siblings: Vec<String> = files.iter().filter_map(|f| Some(f.file_stem()?.to_str()?.to_owned())).collect();
        for path in &files {
            let reached = reaches(&std::fs::read_to_string(path).unwrap(), &siblings);
            assert!(reached.is_empty(), "{} reaches {}", path.display(), reached.join("; "));
            read += 1;
        }
    }
    assert!(read >= 9, "only {read} files were found");
}

/// What the manifest does not name cannot be reached at all. Every crate in it
/// computes, and does nothing else.
#[test]
fn the_manifest_of_the_core_names_nothing_that_reaches_outside() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let named = dependencies(&manifest);
    assert!(named.contains(&"serde".to_owned()), "the dependencies were not found: {named:?}");
    for name in &named {
        let name = name.replace('-', "_");
        assert!(
            ALLOWED.contains(&name.as_str()),
            "crates/core/Cargo.toml names `{name}`, which is not among {}",
            ALLOWED.join(", ")
        );
        assert!(!OUTSIDE.iter().any(|(word, _)| *word == name), "crates/core/Cargo.toml names `{name}`");
    }
}

/// The crates that a manifest depends on, in whatever form, but for those of its tests.
fn dependencies(manifest: &str) -> Vec<String> {
    let (mut named, mut inside) = (vec![], false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            let ours = !table.contains("dev-dependencies") && table.contains("dependencies");
            // `[dependencies.tokio]` names one by itself.
            named.extend(table.split_once("dependencies.").filter(|_| ours).map(|(_, name)| name.to_owned()));
            inside = ours && table.ends_with("dependencies");
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']).filter(|_| !line.starts_with('#')) {
            named.push(name.trim().trim_matches('"').to_owned());
        }
    }
    named
}

#[test]
fn a_dependency_in_any_form_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# none\nserde.workspace = true\ntokio = \"1\"\n\
                    [dependencies.hyper]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n\
                    [build-dependencies]\ncc = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n[lints]\nworkspace = true\n";
    assert_eq!(dependencies(manifest), ["serde", "tokio", "hyper", "libc", "cc"]);
}

/// The cell knows nothing of what people write.
#[test]
fn the_cell_does_not_know_the_mission() {
    for path in sources("src/cell") {
        let code = code(&std::fs::read_to_string(&path).unwrap());
        assert!(!code.contains("crate::mission"), "{} names the mission", path.display());
    }
}

#[test]
fn an_import_in_any_form_is_found() {
    for bad in [
        "use std::time::Instant;",
        "use std::{fmt, fs};",
        "use std::{\n    collections::{BTreeMap, HashMap},\n};",
        "use tokio::spawn;",
        "fn f() { let _ = std::fs::read(\"x\"); }",
        "fn f() { lazarus::store::open() }",
        "use lazarus::engine::Clock;",
        "use chrono::Utc;",
        "const C: char = '\"'; use std::net::TcpStream;",
        "fn f<'a>(x: &'a str) { std::env::var(x); }",
    ] {
        assert!(!reaches(bad, &[]).is_empty(), "not found in {bad}");
    }
    for good in [
        "// std::time is not for us\nuse std::fmt;",
        "/// [`std::fs`] is far\nuse super::{At, Cell};",
        "const A: &str = \"tokio\";",
        "use serde::{Deserialize, Serialize};",
        "use State::*;",
        "pub use decide::{Effect, decide};",
        "fn instantly() {}",
        "fn f(a: &str) -> bool { a.parse::<std::net::IpAddr>().is_ok() }",
        "fn f(x: E) { match x { E::Pause => allow(x), E::Cause => {} } }",
    ] {
        assert_eq!(reaches(good, &["decide".to_owned()]), Vec::<String>::new(), "in {good}");
    }
}
