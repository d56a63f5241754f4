//! What is written down of the core is what the core does.

use lazarus_core::cell::{Permission, Role, State, TABLE, mermaid};
use std::fmt::Write as _;
use std::path::Path;

/// Contract §4, copied by hand: a cell of it that changes is a change of the
/// contract. "May ask" is no permission; a director's second, explicit
/// invitation is another role.
#[test]
fn the_roles_may_do_what_the_contract_says() {
    let columns = [
        (Permission::Read, "read"),
        (Permission::Write, "write"),
        (Permission::Commit, "commit"),
        (Permission::Steer, "steer"),
        (Permission::Publish, "publish"),
        (Permission::SeeLogs, "logs"),
    ];
    let mut table = format!("{:<12}", "");
    for (_, word) in columns {
        let _ = write!(table, "{word:<9}");
    }
    for role in Role::ALL {
        let _ = write!(table, "\n{:<12}", role.word());
        for (permission, _) in columns {
            let _ = write!(table, "{:<9}", if role.may(permission) { "yes" } else { "no" });
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(table.join("\n"), @r"
                read     write    commit   steer    publish  logs
    director    yes      no       no       yes      yes      yes
    executor    yes      yes      yes      no       no       yes
    observer    yes      no       no       no       no       yes
    guest       yes      yes      yes      no       no       no
    substitute  yes      yes      yes      no       no       yes
    ");
}

#[test]
fn every_role_is_found_by_its_word() {
    for role in Role::ALL {
        assert_eq!(Role::parse(role.word()), Some(role));
        assert_eq!(Role::parse(&role.word().to_uppercase()), Some(role));
    }
    assert_eq!(Role::parse("root"), None);
}

fn page() -> String {
    let mut page = String::from(
        "<!-- Generated from crates/core/src/cell/lifecycle.rs: UPDATE_DOCS=1 cargo test --test core the_page -->\n\
         # The life of a cell\n\n\
         A cell is one bounded place for work on one issue. It is `proposed` when somebody asks for it,\n\
         runs once a director has approved it, and is scrubbed from disk in the end; the ledger remains.\n\n\
         An arrow says what moves a cell, by the word that you would type in a comment (`/pause`), or by\n\
         what happened (`end of an agent`). What has no arrow and does not stand in the table below is refused, with a\n\
         message that names the state and what is possible in it.\n\n```mermaid\n",
    );
    page.push_str(&mermaid());
    page.push_str(
        "```\n\n\
         - `idle`: every agent finished well, and the cell waits: `/tell` gives it more to do, `/close` ends it.\n\
         - `downed`: an agent died, and the others are frozen so that nothing is lost: `/revive` starts the dead\n\
         \x20 one again. With `auto-revive` in the proposal that happens by itself, up to the retries that policy allows.\n\
         - `closing`: processes end, commits are harvested to a branch and a pull request.\n\
         - `closed`: whole, in the graveyard, for the grace period (30 minutes unless configured): `/resurrect`\n\
         \x20 brings it back. Then only what the archive keeps is left, until its retention is over.\n\n\
         Times run while the daemon is down, too: a deadline that passed meanwhile is honoured\n\
         when it starts. Where several things can follow from one, the cell's agents decide: the end of an agent leaves the cell\n\
         `active` while others work, `idle` when all ended well, `downed` when it died, and `closing` when the\n\
         retries are used up.\n\n\
         ## What each state allows\n\n\
         | state | moves by | changes nothing but the cell |\n| --- | --- | --- |\n",
    );
    for state in State::ALL {
        let (mut moves, mut stays) = (vec![], vec![]);
        for row in TABLE.iter().filter(|row| row.from == state) {
            let to: Vec<&str> = row.to.iter().filter(|to| **to != state).map(|to| to.word()).collect();
            if to.is_empty() {
                stays.push(row.trigger.word().to_owned());
            } else {
                moves.push(format!("{} → {}", row.trigger.word(), to.join(", ")));
            }
        }
        let or_none = |words: Vec<String>, with: &str| {
            if words.is_empty() { "–".to_owned() } else { words.join(with) }
        };
        let _ = writeln!(page, "| `{state}` | {} | {} |", or_none(moves, "<br>"), or_none(stays, ", "));
    }
    page
}

#[test]
fn the_page_about_the_lifecycle_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lifecycle.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/lifecycle.md is not what crates/core/src/cell/lifecycle.rs says; write it anew with \
         `UPDATE_DOCS=1 cargo test --test core the_page`"
    );
}

#[test]
fn the_picture_names_every_state() {
    let picture = mermaid();
    assert!(picture.starts_with("stateDiagram-v2\n"));
    for state in State::ALL {
        assert!(picture.contains(state.word()), "{state} is not in the picture");
    }
}
