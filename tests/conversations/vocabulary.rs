//! What the command line says to programs: the JSON of `docs/specification.md` §7
//! for every verb, read from the page. The exit status is 0 exactly when
//! `success` is true, whatever goes wrong.

use crate::world::specification::{ONE_CELL, Vocabulary};
use crate::world::{CliOutput, Kind, World, WorldOptions};
use serde_json::Value;

/// The one object of `--json`, and the exit status that belongs to it.
#[track_caller]
fn object(output: &CliOutput) -> Value {
    let answer = output.json();
    let success = answer["success"].as_bool().unwrap_or_else(|| panic!("`success` is no boolean: {answer}"));
    assert_eq!(output.status.success(), success, "the exit status is not what `success` says: {}", output.all());
    assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "no message: {answer}");
    assert_no_trace(output);
    answer
}

/// No stack trace, whatever was asked.
#[track_caller]
fn assert_no_trace(output: &CliOutput) {
    for trace in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!output.all().contains(trace), "a trace:\n{}", output.all());
    }
}

struct Speaker<'a> {
    world: &'a World,
    words: Vocabulary,
}

impl Speaker<'_> {
    /// Says a line, and has the answer checked by the row of `verb`.
    #[track_caller]
    fn say(&self, verb: &str, arguments: &[&str], beside: &[&str]) -> Value {
        let answer = object(&self.world.cli(&[arguments, &["--json"]].concat()));
        self.words.assert_answer(verb, &answer, beside);
        answer
    }

    #[track_caller]
    fn done(&self, verb: &str, arguments: &[&str]) -> Value {
        let answer = self.say(verb, arguments, &[]);
        assert_eq!(answer["success"], true, "`{}` was refused: {answer}", arguments.join(" "));
        answer
    }

    #[track_caller]
    fn refused(&self, verb: &str, arguments: &[&str], words: &[&str]) -> Value {
        let answer = self.say(verb, arguments, &[]);
        assert_eq!(answer["success"], false, "`{}` was done: {answer}", arguments.join(" "));
        for word in words {
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(message.contains(word), "the message does not say `{word}`: {answer}");
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_answers_in_the_words_of_the_specification() {
    let world = World::new("vocabulary").await;
    let issue = world.reader().open_issue("In the words", "of the page").await;
    let (mission, by) = (world.mission(issue), Speaker { world: &world, words: Vocabulary::read() });

    let summoned = by.done("summon", &["summon", "sleeper", &mission]);
    let cell = summoned["cell_id"].as_str().unwrap().to_owned();
    assert_eq!((&summoned["project"], &summoned["agent"]), (&mission.clone().into(), &"sleeper".into()));
    assert!(summoned["pid"].is_i64(), "it runs, so it has a process: {summoned}");
    world.wait_for_comment(issue, Kind::SpawnLog, |log| log.cell() == cell).await;

    let guest = format!("human:{}", world.reader().login);
    let invited = by.done("invite", &["invite", &cell, &guest, "observer"]);
    assert_eq!((&invited["guest"], &invited["role"]), (&guest.clone().into(), &"observer".into()));
    assert_eq!(invited["invited_by"], invited["cell"]["owner"], "the same operator");
    by.refused(ONE_CELL, &["accept", &cell], &["in a comment"]);
    by.done(ONE_CELL, &["revoke", &cell, &guest]);
    by.done(ONE_CELL, &["tell", &cell, "sleeper", "well done"]);
    let before = by.done(ONE_CELL, &["status", &cell]);
    let extended = by.done(ONE_CELL, &["extend", &cell, "30m"]);
    let minutes = |answer: &Value| answer["cell"]["ttl_minutes"].as_u64().unwrap();
    assert_eq!(minutes(&extended), minutes(&before) + 30, "an extension counts: {extended}");
    by.done(ONE_CELL, &["checkpoint", &cell, "by", "hand"]);
    by.done(ONE_CELL, &["pause", &cell]);
    let paused = by.done(ONE_CELL, &["status", &cell]);
    assert_eq!(paused["cell"]["state"], "paused");
    by.done(ONE_CELL, &["resume", &cell]);
    by.done(ONE_CELL, &["decide", &cell, "we", "go", "on"]);
    by.refused(ONE_CELL, &["revive", &cell], &["active"]);
    by.refused(ONE_CELL, &["publish", &cell, "work"], &[]);
    by.refused(ONE_CELL, &["publish", &cell, "notes"], &["notes"]);
    by.done(ONE_CELL, &["publish", &cell, "decisions"]);
    // These the grammar knows; what they do is for a later version.
    by.say(ONE_CELL, &["substitute", &cell, "quick", "--for", "sleeper"], &[]);
    by.say(ONE_CELL, &["handoff", &cell, "task", "--from", "sleeper", "--to", "quick"], &[]);
    by.say(ONE_CELL, &["vote", &cell, "yes"], &[]);
    by.say(ONE_CELL, &["logs", &cell], &["logs"]);

    let running = by.done(ONE_CELL, &["status", &cell]);
    let now = &running["cell"];
    assert_eq!((&now["project"], &now["state"]), (&mission.clone().into(), &"active".into()));
    assert_eq!((&running["expired"], &now["pid"]), (&false.into(), &summoned["pid"]));
    assert!(running["probe"].as_str().unwrap().starts_with("It runs"), "{running}");
    assert!(now["isolation"].is_string() && !now["isolation_steps"].as_array().unwrap().is_empty(), "{now}");
    let member = |identity: &str| {
        let members = now["members"].as_array().unwrap();
        members.iter().find(|m| m["identity"] == identity).unwrap_or_else(|| panic!("no {identity}: {now}")).clone()
    };
    let sleeper = member("agent:sleeper");
    assert_eq!((&sleeper["role"], &sleeper["state"]), (&"executor".into(), &"joined".into()));
    assert!(sleeper["joined_at"].is_string() && sleeper["run"]["state"] == "running", "{sleeper}");
    assert_eq!(member(&guest)["state"], "gone");

    let listing = ["cells", "damaged", "pending_inputs", "pending_effects", "waiting", "daemon", "ledger"];
    for arguments in [&["status"][..], &["status", "--all"], &["status", &mission]] {
        let listed = by.say("status", arguments, &listing);
        assert_eq!(listed["active_cells"][0]["cell_id"], cell.as_str(), "{listed}");
    }

    by.done(ONE_CELL, &["close", &cell, "that", "is", "all"]);
    let closed = by.done(ONE_CELL, &["status", &cell]);
    assert_eq!((&closed["cell"]["outcome"], &closed["cell"]["pid"]), (&"completed".into(), &Value::Null));
    assert!(closed["cell"]["reason"].is_string() && closed["cell"]["closed_at"].is_string(), "{closed}");
    assert!(closed["probe"].as_str().unwrap().starts_with("It does not run"), "{closed}");
    by.done(ONE_CELL, &["resurrect", &cell]);
    let destroyed = by.done(ONE_CELL, &["destroy", &cell]);
    assert!(destroyed["cell"]["destroyed_at"].is_string(), "{destroyed}");
    let listed = by.say("status", &["status"], &listing);
    assert_eq!(listed["active_cells"], serde_json::json!([]), "nothing lives any more");

    let team = by.done("team", &["team", "sleeper+quick", &mission]);
    assert_eq!(team["agents"], serde_json::json!(["sleeper", "quick"]));
    world.assert_settled(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_approved_and_rejected_in_the_same_words() {
    let world = World::new("vocabulary-request").await;
    let by = Speaker { world: &world, words: Vocabulary::read() };
    for verb in ["approve", "reject"] {
        let issue = world.reader().open_issue("A request", "by a writer").await;
        let mission = world.mission(issue);
        by.refused(ONE_CELL, &[verb, &mission], &[]);
        world.writer().comment(issue, "/summon sleeper").await;
        world.wait_for_comment(issue, Kind::Answer, |c| c.says(&["request"])).await;
        let answer = by.done(ONE_CELL, &[verb, &mission]);
        let owner = format!("human:{}", world.writer().login);
        assert_eq!(answer["cell"]["owner"], owner.as_str(), "{answer}");
        assert_eq!(answer["cell"]["state"], if verb == "approve" { "active" } else { "closed" });
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_is_one_object_that_says_so() {
    let mut world = World::new("vocabulary-wrong").await;
    let issue = world.reader().open_issue("Bad", "input").await;
    let mission = world.mission(issue);
    let nobody = "laz-aaaaaaaaaaaaaaaa";
    world.assert_settled(issue).await;
    let on_cells: &[&[&str]] = &[
        &["status", nobody],
        &["logs", nobody],
        &["revoke", nobody, "agent:scribe"],
        &["accept", nobody],
        &["tell", nobody, "scribe", "text"],
        &["extend", nobody, "1h"],
        &["pause", nobody],
        &["resume", nobody],
        &["checkpoint", nobody],
        &["revive", nobody],
        &["substitute", nobody, "scribe"],
        &["handoff", nobody, "task", "--from", "a", "--to", "b"],
        &["decide", nobody, "text"],
        &["vote", nobody, "yes"],
        &["publish", nobody],
        &["close", nobody],
        &["resurrect", nobody],
        &["destroy", nobody],
    ];
    let wrong: &[&[&str]] = &[
        &["frobnicate"],
        &["summon"],
        &["summon", "scribe"],
        &["summon", "scribe", "nowhere"],
        &["summon", "scribe", "elsewhere/vault#1"],
        &["status", "--nonsense"],
        &["logs", nobody, "--tail", "much"],
        &["ledger", "show", "--limit", "x"],
        &["ledger", "show", "nothing"],
        &["ledger", "show", "acme/unknown#1"],
        &["ledger", "verify", "--head", "nonsense"],
        &["config", "show", "--set", "nonsense"],
        &["config", "show", "--set", "policy.ttl_max=soon"],
        &["config", "show", "--config", "/nowhere/at/all.toml"],
        &["init", "nowhere"],
        &["completions", "tcl"],
        &["demo"],
    ];
    let check = |world: &World, up: bool| {
        let by = Speaker { world, words: Vocabulary::read() };
        for arguments in on_cells {
            by.refused(ONE_CELL, arguments, &[nobody]);
        }
        by.refused("invite", &["invite", nobody, "human:x", "observer"], &[nobody]);
        by.refused("summon", &["summon", "nosuchagent", &mission], &["nosuchagent", "scribe"]);
        by.refused("team", &["team", "scribe+nosuchagent", &mission], &["nosuchagent", "scribe"]);
        by.refused(ONE_CELL, &["status", "laz-x"], &["laz-x"]);
        for arguments in wrong {
            let answer = object(&world.cli(&[*arguments, &["--json"]].concat()));
            assert_eq!(answer["success"], false, "`{}` succeeded (daemon: {up}): {answer}", arguments.join(" "));
        }
    };
    check(&world, true);
    world.daemon().stop().await;
    check(&world, false);

    // The daemon is there, and does not answer.
    let data = world.data();
    let held = std::fs::File::open(data.join("lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let by = Speaker { world: &world, words: Vocabulary::read() };
    by.refused(ONE_CELL, &["pause", nobody], &["control socket"]);
    by.refused("summon", &["summon", "scribe", &mission], &["control socket"]);
    drop(held);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_registry_it_is_one_object_too() {
    let world = World::with("vocabulary-empty", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let words = Vocabulary::read();
    let one = object(&world.cli(&["status", "laz-aaaaaaaaaaaaaaaa", "--json"]));
    words.assert_answer(ONE_CELL, &one, &[]);
    let all = object(&world.cli(&["status", "--json"]));
    words.assert_answer("status", &all, &[]);
    for answer in [one, all, object(&world.cli(&["ledger", "show", "--json"]))] {
        assert_eq!(answer["success"], false);
        assert!(answer["message"].as_str().unwrap().contains("no registry"), "{answer}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_about_no_cell_print_one_object_too() {
    let world = World::new("vocabulary-plain").await;
    let issue = world.reader().open_issue("Plain", "verbs").await;
    world.director().comment(issue, "/summon quick").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    for arguments in [
        &["doctor"][..],
        &["config", "show"],
        &["init", &world.repository(), "--dry-run"],
        &["ledger", "show"],
        &["ledger", "show", &cell],
        &["ledger", "show", &world.mission(issue)],
        &["ledger", "show", "--mission", &world.mission(issue)],
        &["ledger", "verify"],
        &["completions", "bash"],
        &["manual"],
        &["--help"],
        &["status", "--help"],
        &["--version"],
    ] {
        let answer = object(&world.cli(&[arguments, &["--json"]].concat()));
        assert_eq!(answer["success"], true, "`{}`: {answer}", arguments.join(" "));
    }
    let shown = world.cli(&["ledger", "show", "--mission", &world.mission(issue), "--json"]).json();
    let entries = shown["entries"].as_array().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|e| e["mission"] == world.mission(issue).as_str()), "{shown}");
    world.finish().await;
}

#[test]
fn the_page_has_a_row_for_what_the_program_answers() {
    let words = Vocabulary::read();
    let rows: Vec<&str> = words.verbs().collect();
    assert_eq!(rows, ["invite", "status", "status CELL", "summon", "team"], "a new row needs a form in src/operations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_people_what_each_cell_is_about_since_when_and_what_its_agents_do() {
    let world = World::with(
        "status-people",
        WorldOptions {
            config: "[agents.talker]\nargv = [\"sh\", \"-c\", \"echo first; echo I am at it; sleep 3600\"]\nprompt = \"stdin\"\n"
                .to_owned(),
            ..WorldOptions::default()
        },
    )
    .await;
    let empty = world.cli(&["status"]).stdout;
    assert!(empty.starts_with("CELL ") && empty.contains("no cells"), "a header, and that there is nothing:\n{empty}");

    let issue = world.reader().open_issue("For people", "to read").await;
    let mission = world.mission(issue);
    world.director().comment(issue, "/team talker+quick+crasher").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["downed"]).await;
    world.director().comment(issue, "/revoke agent:crasher").await;
    world.wait_for_state(issue, &cell, &["active"]).await;
    let guest = format!("human:{}", world.reader().login);
    assert!(world.cli(&["invite", &cell, &guest, "observer"]).status.success());
    let row_of =
        |output: &str| output.lines().find(|line| line.contains(&cell)).expect("a row for the cell").to_owned();

    let shown = world
        .wait_until("the agent's last line", issue, async || {
            let shown = world.cli(&["status"]).stdout;
            shown.contains("talker last said: I am at it").then_some(shown)
        })
        .await;
    let header = shown.lines().next().unwrap();
    for column in ["CELL", "MISSION", "STATE", "SINCE", "ISOLATION", "TIME LEFT", "AGENTS"] {
        assert!(header.contains(column), "no column {column}:\n{shown}");
    }
    let row = row_of(&shown);
    for word in [
        mission.as_str(),
        " active ",
        "UTC",
        "3 h 59 min",
        "agent:talker (executor) running since ",
        "agent:quick (executor) idle since ",
        ": exit 0",
        &format!("{guest} (observer) invited"),
    ] {
        assert!(row.contains(word), "no `{word}` in the row:\n{shown}");
    }
    assert!(!row.contains("crasher"), "whoever is gone does nothing:\n{shown}");
    for target in [cell.as_str(), mission.as_str()] {
        let one = world.cli(&["status", target]);
        assert!(one.status.success() && row_of(&one.stdout).contains(&mission), "{}", one.all());
    }

    world.director().comment(issue, "/pause").await;
    world.wait_for_state(issue, &cell, &["paused"]).await;
    assert!(row_of(&world.cli(&["status"]).stdout).contains("talker (executor) frozen"));
    world.director().comment(issue, "/close failed no luck").await;
    world.wait_for_state(issue, &cell, &["closed"]).await;
    assert!(!world.cli(&["status"]).stdout.contains(&cell), "it is over");
    let over = row_of(&world.cli(&["status", "--all"]).stdout);
    assert!(over.contains("closed (failed)") && over.contains(&mission), "{over}");
    world.finish().await;
}

/// The registry's own name for a mission (`1#5`) says nothing to anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_people_read_names_a_mission_by_number_alone() {
    let world = World::new("mission-names").await;
    let issue = world.reader().open_issue("By its name", "always").await;
    let mission = world.mission(issue);
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    let ledger = world.cli(&["ledger", "show", "--mission", &mission]).stdout;
    assert!(ledger.lines().count() > 3 && ledger.lines().all(|line| line.contains(&mission)), "{ledger}");
    assert_eq!(world.cli(&["ledger", "show", &mission]).stdout, ledger, "both forms find the same");
    let record = world.file_of_cell(&cell, ".lazarus/cell.json").expect("the cell's record");
    assert!(record.contains(&mission), "{record}");
    let bare = format!("#{issue}");
    let read = [ledger, record, world.cli(&["status", "--all"]).stdout, world.cli(&["status", &cell]).stdout];
    let log = std::fs::read_to_string(&world.installation().log).unwrap();
    for text in read.iter().map(String::as_str).chain([log.as_str()]) {
        for (at, _) in text.match_indices(&bare) {
            let before = text[..at].chars().next_back();
            assert!(
                !before.is_some_and(|c| c.is_ascii_digit()),
                "a mission by number alone: …{}",
                &text[at.saturating_sub(60)..at + bare.len()]
            );
        }
    }
    let other = world.cli(&["ledger", "show", "--mission", "acme/unknown#1"]);
    assert!(!other.status.success() && other.stderr.contains("acme/unknown#1"), "{}", other.all());
    world.finish().await;
}
