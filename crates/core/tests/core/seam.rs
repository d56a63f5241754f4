//! The engine knows backends, and nothing of how one runs a cell. Whoever adds an import that reaches behind the seam
//! meets this list.

use crate::purity::{code, sources};

/// What no line of the engine may name, with what lies there.
const BEHIND: [(&str, &str); 14] = [
    ("crate::keeper", "the keeper's protocol and files"),
    ("crate::sandbox", "namespaces, ids, Landlock"),
    ("crate::workspace", "homes, the graveyard, the archive"),
    ("ProcessBackend", "one kind of backend"),
    ("programs::", "directories of a host"),
    ("std::path", "paths of a host"),
    ("std::fs", "files of a host"),
    ("std::os", "ids, sockets and descriptors of a host"),
    ("std::process", "processes of a host"),
    ("tokio::fs", "files of a host"),
    ("tokio::process", "processes of a host"),
    ("PathBuf", "paths of a host"),
    ("rustix", "the system"),
    ("libc", "the system"),
];

/// What of this code reaches behind the seam, in words.
fn reaches(source: &str) -> Vec<String> {
    let code = code(source);
    BEHIND.iter().filter(|(word, _)| code.contains(word)).map(|(word, what)| format!("`{word}` ({what})")).collect()
}

#[test]
fn the_engine_reaches_no_keeper_no_sandbox_no_home_and_no_path() {
    let files = sources("../../src/engine");
    for path in &files {
        let reached = reaches(&std::fs::read_to_string(path).unwrap());
        assert!(reached.is_empty(), "{} reaches {}", path.display(), reached.join("; "));
    }
    assert!(files.len() >= 15, "only {} files were found", files.len());
}

#[test]
fn an_import_that_reaches_behind_the_seam_is_found() {
    for bad in [
        "use crate::keeper::StartAgent;",
        "use crate::{backend::Backends, sandbox::Sight};",
        "fn f(home: &crate::workspace::Home) {}",
        "use std::{collections::BTreeMap, path::PathBuf};",
        "fn f() { let _ = std::fs::read(\"x\"); }",
    ] {
        assert!(!reaches(bad).is_empty(), "not found in {bad}");
    }
    for good in ["use crate::backend::{Backends, CellSpec};", "// crate::keeper is far\nuse crate::repository::Held;"] {
        assert_eq!(reaches(good), Vec::<String>::new(), "in {good}");
    }
}
