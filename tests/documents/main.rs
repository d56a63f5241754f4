//! What the pages say is what the program does: tables of commands, verbs and
//! keys against the program's own, in both directions; names of tests, verbs and
//! keys in the text; links. `UPDATE_DOCS=1 cargo test --test documents` writes
//! anew what can be generated.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use lazarus::config::{COMMENTED, Config, LoadOptions};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a directory that ends so.
fn files(below: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut places = vec![root().join(below)];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The pages that say what is: not the specification, which says what ought to be.
fn pages() -> Vec<(String, String)> {
    let docs = files("docs", ".md").into_iter().chain([root().join("README.md")]);
    docs.map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (name, text)
    })
    .filter(|(name, _)| name != "docs/specification.md")
    .collect()
}

/// Puts what is generated between its two marks, or compares it with what is there.
#[track_caller]
fn assert_generated(page: &str, mark: &str, wanted: &str) {
    let text = read(page);
    let (begin, end) = (format!("<!-- {mark}: generated -->\n"), format!("<!-- {mark}: end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (there, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(page), format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert!(
        there == wanted,
        "{page} does not say what the program does ({mark}); `UPDATE_DOCS=1 cargo test --test documents` writes:\n{wanted}"
    );
}

// ── Commands and verbs ───────────────────────────────────────────────────────

#[test]
fn the_table_of_commands_is_the_grammar() {
    let mut table = String::from("| command | who | does |\n| --- | --- | --- |\n");
    for command in lazarus::mission::grammar() {
        let _ = writeln!(table, "| `{}` | {} | {} |", command.usage.replace('|', "\\|"), command.who, command.does);
    }
    assert_generated("docs/commands.md", "commands", &table);
}

/// The arguments of a verb, as a person would write them.
fn arguments(verb: &clap::Command) -> String {
    let mut words = vec![];
    for argument in verb.get_positionals() {
        let name = argument.get_value_names().map_or_else(String::new, |names| names.join(" "));
        let many = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        let name = if many { format!("{name}…") } else { name };
        words.push(if argument.is_required_set() { name } else { format!("[{name}]") });
    }
    for option in verb.get_arguments().filter(|option| !option.is_positional() && !option.is_hide_set()) {
        let value = if option.get_action().takes_values() {
            option.get_value_names().map_or_else(String::new, |names| format!(" {}", names.join(" ")))
        } else {
            String::new()
        };
        let text = format!("--{}{value}", option.get_long().unwrap_or_default());
        words.push(if option.is_required_set() { text } else { format!("[{text}]") });
    }
    words.join(" ")
}

/// Every verb that a person may give: its words, and itself.
fn verbs() -> Vec<(String, clap::Command)> {
    fn leaves(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let words = format!("{words} {}", verb.get_name()).trim().to_owned();
            if verb.get_subcommands().next().is_none() || !verb.is_subcommand_required_set() {
                found.push((words.clone(), verb.clone()));
            }
            leaves(verb, &words, found);
        }
    }
    let mut grammar = lazarus::cli::grammar();
    grammar.build();
    let mut found = vec![];
    leaves(&grammar, "", &mut found);
    found.retain(|(words, _)| !words.split(' ').any(|word| word == "help"));
    assert!(found.len() > 20, "the grammar was not read");
    found
}

#[test]
fn the_table_of_verbs_is_the_command_line() {
    let global: BTreeSet<&str> = ["config", "set", "json", "help", "version"].into();
    let mut table = String::from("| verb | does |\n| --- | --- |\n");
    for (words, verb) in verbs() {
        let verb = verb.mut_args(|argument| {
            let everywhere = argument.get_long().is_some_and(|long| global.contains(long));
            if everywhere { argument.hide(true) } else { argument }
        });
        let line = format!("{words} {}", arguments(&verb)).trim().replace('|', "\\|");
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        assert!(!about.is_empty(), "{words} does not say what it does");
        let _ = writeln!(table, "| `{line}` | {about} |");
    }
    assert_generated("docs/commands.md", "verbs", &table);
}

/// `lazarus VERB --flag` in a page, an error or a template is something that one
/// can type.
#[test]
fn every_verb_that_is_shown_to_people_can_be_typed() {
    // Run by Lazarus itself; pages explain some of them.
    let internal = [
        "cell-probe",
        "cell-launch",
        "cell-enter",
        "cell-harvest",
        "cell-egress",
        "cell-worktree",
        "confined",
        "agent",
        "git-credential",
    ];
    let known: BTreeMap<String, clap::Command> = verbs().into_iter().collect();
    let mut texts = pages();
    for below in ["src", "crates", "templates", "config"] {
        for ending in [".rs", ".md", ".yaml", ".toml", ".service"] {
            for path in files(below, ending) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                texts.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let typed = Regex::new(r"(?m)(?:`|^\s*\$? ?|bin/)lazarus ((?:--[a-z]+ \S+ )*)([a-z][a-z-]*)([^`\n#]*)").unwrap();
    let mut seen = 0;
    for (name, text) in &texts {
        // In code blocks and spans: a line of prose can begin with our name, too.
        let mut in_block = false;
        for line in text.lines() {
            // Only pages have blocks.
            if line.trim_start().starts_with("```") && (name.starts_with("docs/") || name == "README.md") {
                in_block = !in_block;
                continue;
            }
            for found in typed.captures_iter(line) {
                let quoted = found.get(0).unwrap().as_str().starts_with('`');
                if !quoted && !in_block {
                    continue;
                }
                let word = &found[2];
                if internal.contains(&word) {
                    continue;
                }
                let rest: Vec<&str> = found[3].split_whitespace().collect();
                let two = rest.first().map(|second| format!("{word} {second}"));
                let verb = two.and_then(|two| known.get(&two)).or_else(|| known.get(word));
                let group = known.keys().any(|verb| verb.starts_with(&format!("{word} ")));
                assert!(verb.is_some() || group, "{name} shows `lazarus {word}`, which cannot be typed: {line}");
                seen += 1;
                let Some(verb) = verb else { continue };
                let everywhere = ["help", "json", "config", "set", "version"];
                for flag in rest.iter().filter_map(|word| word.strip_prefix("--")) {
                    let flag = flag.split(['=', ',', '.', ')', ']']).next().unwrap_or_default();
                    assert!(
                        flag.is_empty()
                            || everywhere.contains(&flag)
                            || verb.get_arguments().any(|option| option.get_long() == Some(flag)),
                        "{name} shows --{flag} of `lazarus {word}`, which cannot be typed: {line}"
                    );
                }
            }
        }
    }
    assert!(seen > 40, "only {seen} were found: the pattern is wrong");
}

// ── Keys ─────────────────────────────────────────────────────────────────────

/// The commented configuration with every key in force.
fn whole_configuration() -> Config {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("lazarus.toml");
    let text: Vec<&str> = COMMENTED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    std::fs::write(&file, text.join("\n")).unwrap();
    Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap()
}

/// Every key by the name that pages have for it: `agents.NAME.argv`,
/// `repositories.name`, `credentials.NAME_file`.
fn keys() -> BTreeSet<String> {
    let keys: BTreeSet<String> = whole_configuration()
        .keys()
        .iter()
        .filter(|key| !key.starts_with("agents.") || key.starts_with("agents.scribe."))
        .map(|key| {
            key.replace("repositories[0]", "repositories")
                .replace("agents.scribe.", "agents.NAME.")
                .replace("credentials.anthropic_", "credentials.NAME_")
        })
        .collect();
    assert!(keys.len() > 70, "{keys:?}");
    keys
}

/// Keys that are known, and that nothing reads yet: the file says so.
const NOT_READ_YET: &[&str] = &["paths.missions"];
/// Keys that are refused until something reads them.
const REFUSED_YET: &[(&str, &str)] = &[("stall", "\"10s\""), ("heartbeats", "true"), ("checkpoint", "true")];

/// Where a key is read, if not as `SECTION.KEY`.
fn read_as(key: &str) -> String {
    let (section, leaf) = key.split_once('.').unwrap_or(("", key));
    match (section, leaf) {
        ("repositories", "name") => "config.name".to_owned(),
        ("repositories", leaf) => format!(".{leaf}"),
        // A file, and no secret.
        ("forge", "ca") => "forge.authorities".to_owned(),
        ("paths", "templates") => "config.templates".to_owned(),
        ("credentials", _) => "config.credentials".to_owned(),
        ("limits_max", _) => "config.limits_max".to_owned(),
        ("agents", leaf) => match leaf.trim_start_matches("NAME.") {
            leaf if leaf.starts_with("success.") => leaf.to_owned(),
            leaf => format!(".{leaf}"),
        },
        _ => key.to_owned(),
    }
}

/// The program's text without tests, comments, strings, and what only takes keys in.
fn program() -> String {
    let strings = Regex::new(r#""(?:\\.|[^"\\])*""#).unwrap();
    let mut all = String::new();
    for path in files("src", ".rs").into_iter().chain(files("crates/sandbox/src", ".rs")) {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        // The doctor looks whether a directory is as it should be: that is no use of it.
        let takes_in = ["src/config/", "src/demo/", "src/agents/profile.rs", "src/cli/doctor.rs", "src/cli/init.rs"];
        let own_look = name == "src/cli/init.rs" || name == "src/cli/doctor.rs";
        if takes_in.iter().any(|place| name.starts_with(place)) && !own_look {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if own_look && line.contains("paths.") {
                continue;
            }
            let _ = writeln!(all, "{}", strings.replace_all(line, "\"\""));
        }
    }
    all
}

#[test]
fn every_key_of_the_configuration_is_read_somewhere() {
    let program = program();
    let secret = Regex::new("_(file|env|credential|command)$").unwrap();
    let mut unread = vec![];
    for key in keys() {
        let leaf = key.rsplit('.').next().unwrap_or_default();
        // The one may only repeat the table's name, the other is for whoever reads the file.
        let repeats = key == "agents.NAME.name" || key == "agents.NAME.description";
        if repeats
            || NOT_READ_YET.contains(&key.as_str())
            || (key.starts_with("agents.") && REFUSED_YET.iter().any(|(refused, _)| *refused == leaf))
        {
            continue;
        }
        let place =
            read_as(&if key.starts_with("agents.") { key.clone() } else { secret.replace(&key, "").into_owned() });
        if !Regex::new(&format!(r"{}\b", regex::escape(&place))).unwrap().is_match(&program) {
            unread.push(format!("{key} (as `{place}`)"));
        }
    }
    assert!(
        unread.is_empty(),
        "accepted, and read nowhere: {}. Read them, take them out, or refuse them",
        unread.join(", ")
    );
}

#[test]
fn a_key_that_nothing_reads_yet_is_refused_or_says_so() {
    for key in NOT_READ_YET {
        let leaf = key.rsplit('.').next().unwrap_or_default();
        let before = COMMENTED.split(&format!("\n#{leaf} = ")).next().unwrap();
        let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("# ")).collect();
        assert!(comment.concat().contains("yet"), "config/lazarus.toml does not say that nothing reads {key} yet");
    }
    for (key, value) in REFUSED_YET {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("lazarus.toml");
        std::fs::write(&file, format!("[agents.scribe]\n{key} = {value}\n")).unwrap();
        let error = Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("yet"), "{key}: {error}");
    }
}

#[test]
fn the_page_about_agents_has_every_key_of_a_profile() {
    let page = read("docs/agents.md");
    let (_, table) = page.split_once("| key | default | meaning |").expect("the table of keys");
    let told: BTreeSet<String> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('`').nth(1).expect("a key in backquotes").to_owned())
        .collect();
    let known: BTreeSet<String> = keys()
        .into_iter()
        .filter_map(|key| key.strip_prefix("agents.NAME.").map(|key| key.split('.').next().unwrap().to_owned()))
        // `name` may only repeat the table's.
        .filter(|key| key != "name")
        .collect();
    assert_eq!(told, known);
}

#[test]
fn every_key_that_a_page_names_is_one() {
    let keys = keys();
    let sections: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.split_once('.').map(|(section, _)| section)).collect();
    let named = Regex::new(r"`([a-z_]+)\.([a-z_]+)(?: = [^`]*)?`").unwrap();
    let mut seen = 0;
    for (name, text) in pages() {
        for found in named.captures_iter(&text) {
            let (section, key) = (&found[1], format!("{}.{}", &found[1], &found[2]));
            // File names have a dot, too.
            if !sections.contains(section) || ["toml", "md", "rs"].contains(&&found[2]) {
                continue;
            }
            seen += 1;
            let secret = keys.contains(&format!("{key}_file"));
            let of_agent = section == "agents" || section == "credentials";
            assert!(keys.contains(&key) || secret || of_agent, "{name} names `{key}`, which is no key");
        }
    }
    assert!(seen > 20, "only {seen} were found: the pattern is wrong");
}

// ── The code ─────────────────────────────────────────────────────────────────

/// Each crate but the sandbox forbids `unsafe` in its first line of code, and
/// what is forbidden there cannot be allowed below. (The testkit, no part of the
/// program, makes a poorer host of a child between fork and exec.)
#[test]
fn only_the_sandbox_may_be_unsafe() {
    let mut roots = vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()];
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !["sandbox", "testkit"].contains(&name.as_str()) {
            roots.push(format!("crates/{name}/src/lib.rs"));
        }
    }
    assert!(roots.len() > 4, "the crates were not found: {roots:?}");
    for path in roots {
        assert!(read(&path).contains("\n#![forbid(unsafe_code)]\n"), "{path} does not forbid unsafe code");
    }
}

// ── Threats ──────────────────────────────────────────────────────────────────

/// The tests of each threat, by its number.
fn tests_of_threats() -> BTreeMap<u32, BTreeSet<String>> {
    let function = Regex::new(r"\bfn (threat_(\d+)_\w+)").unwrap();
    let mut tests: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for below in ["src", "crates", "tests", "benches"] {
        for path in files(below, ".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for found in function.captures_iter(&text) {
                tests.entry(found[2].parse().unwrap()).or_default().insert(found[1].to_owned());
            }
        }
    }
    assert!(tests.len() > 25, "the tests were not found");
    tests
}

/// `docs/threats.md` with the names of the tests as they are: below each threat,
/// in a line of its own.
fn threats_page(there: &str, mut tests: BTreeMap<u32, BTreeSet<String>>) -> String {
    let mut page = String::new();
    for line in there.lines().filter(|line| !line.trim_start().starts_with("- Tests: ")) {
        let _ = writeln!(page, "{line}");
        let number = line.split_once(". ").and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            let names: Vec<String> =
                tests.remove(&number).unwrap_or_default().iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() { "not yet".to_owned() } else { names.join(", ") };
            let _ = writeln!(page, "    - Tests: {names}");
        }
    }
    assert!(tests.is_empty(), "tests of threats that docs/threats.md does not have: {tests:?}");
    page
}

#[test]
fn the_page_about_threats_names_every_test_and_no_other() {
    let there = read("docs/threats.md");
    let wanted = threats_page(&there, tests_of_threats());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs/threats.md"), &wanted).unwrap();
        return;
    }
    assert!(
        there == wanted,
        "docs/threats.md does not name the tests that there are; `UPDATE_DOCS=1 cargo test --test documents` writes them"
    );
    let numbers: Vec<u32> =
        there.lines().filter_map(|line| line.split_once(". ").and_then(|(number, _)| number.parse().ok())).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<u32>>(), "a threat is missing, or stands twice");
}

#[test]
fn a_threat_without_a_test_is_marked_and_one_with_a_test_is_not() {
    let page = "1. A door\n    - Tests: `threat_01_gone`\n2. A window\n";
    let tests = BTreeMap::from([(2, BTreeSet::from(["threat_02_shut".to_owned()]))]);
    assert_eq!(
        threats_page(page, tests),
        "1. A door\n    - Tests: not yet\n2. A window\n    - Tests: `threat_02_shut`\n"
    );
}

// ── The pages themselves ─────────────────────────────────────────────────────

/// What a forge makes of a heading in a link.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut pages = pages();
    pages.push(("docs/specification.md".to_owned(), read("docs/specification.md")));
    for (name, text) in &pages {
        for found in link.captures_iter(text) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(name) } else { root().join(name).parent().unwrap().join(file) };
            assert!(path.exists(), "{name} links to {target}, which is not there");
            if !heading.is_empty() {
                let there = std::fs::read_to_string(&path).unwrap();
                let anchors: Vec<String> =
                    there.lines().filter(|l| l.starts_with('#')).map(|l| anchor(l.trim_start_matches('#'))).collect();
                assert!(anchors.contains(&heading.to_owned()), "{name} links to {target}; there are {anchors:?}");
            }
        }
    }
}

#[test]
fn every_page_is_found_from_the_readme() {
    let readme = read("README.md");
    for (name, _) in pages().into_iter().filter(|(name, _)| name.starts_with("docs/")) {
        assert!(
            readme.contains(&format!("({name})")) || name == "docs/figures.md",
            "README.md does not link to {name}"
        );
    }
    let architecture = read("docs/architecture.md");
    for page in ["specification.md", "threats.md"] {
        assert!(architecture.contains(&format!("({page})")), "docs/architecture.md does not say where {page} is");
    }
}
