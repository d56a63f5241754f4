//! The operator's command line: the same verbs, with the daemon running or
//! not (contract §7).

use crate::world::{CliOutput, Kind, World, WorldOptions};

/// Bad input is a message, never a trace.
#[track_caller]
fn assert_refused(output: &CliOutput, words: &[&str]) {
    assert!(!output.status.success(), "it succeeded:\n{}", output.all());
    let all = output.all();
    for word in words {
        assert!(all.contains(word), "the message does not say `{word}`:\n{all}");
    }
    for trace in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!all.contains(trace), "a trace:\n{all}");
    }
}

#[track_caller]
fn assert_done(output: &CliOutput) -> serde_json::Value {
    assert!(output.status.success(), "it failed:\n{}", output.all());
    let json = output.json();
    assert_eq!(json["success"], true, "{json}");
    assert!(json["message"].is_string(), "{json}");
    json
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verbs_work_while_the_daemon_runs() {
    let world = World::new("verbs-up").await;
    let issue = world.reader().open_issue("By the operator", "for once").await;
    let mission = world.mission(issue);
    let summoned = assert_done(&world.cli(&["summon", "sleeper", &mission, "--json"]));
    let cell = summoned["cell_id"].as_str().expect("cell_id").to_owned();
    assert_eq!(summoned["agent"], "sleeper");
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert_eq!(spawned.cell(), cell);
    assert!(spawned.says(&["operator"]), "the thread says that it was the operator:\n{}", spawned.body);
    world.wait_for_state(issue, &cell, &["active"]).await;
    assert_eq!(world.live_cells(), std::slice::from_ref(&cell));
    assert!(world.cli(&["status"]).stdout.contains(&cell), "for people, too");

    let guest = format!("human:{}", world.reader().login);
    let invited = assert_done(&world.cli(&["invite", &cell, &guest, "observer", "--json"]));
    assert_eq!(invited["role"], "observer");
    assert_done(&world.cli(&["revoke", &cell, &guest, "--json"]));
    assert!(world.cli(&["logs", &cell]).status.success());
    assert_done(&world.cli(&["close", &cell, "--json"]));
    world.wait_for_comment(issue, Kind::CloseLog, |log| log.cell() == cell).await;
    world.wait_for_state(issue, &cell, &["closed"]).await;
    assert_done(&world.cli(&["destroy", &cell, "--json"]));
    world.wait_for_state(issue, &cell, &["destroyed"]).await;
    world
        .wait_until("the cell's files to be gone", issue, async || {
            ["cells", "graveyard"].iter().all(|root| !world.data().join(root).join(&cell).exists()).then_some(())
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verbs_work_while_the_daemon_does_not_run() {
    let mut world = World::new("verbs-down").await;
    let issue = world.reader().open_issue("By the operator", "at night").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    let mission = world.mission(issue);
    let summoned = assert_done(&world.cli(&["summon", "scribe", &mission, "--json"]));
    let cell = summoned["cell_id"].as_str().expect("cell_id").to_owned();
    assert_done(&world.cli(&["status", "--json"]));
    assert_done(&world.cli(&["status", &cell, "--json"]));
    assert!(world.cli(&["ledger", "verify"]).status.success());
    let deaf = ["ledger", "verify", "--set", "forge.url=http://127.0.0.1:9"];
    let output = world.cli(&deaf);
    assert!(!output.status.success(), "the heads on the forge were not seen: {}", output.all());
    assert!(output.all().contains("--offline"), "{}", output.all());
    assert!(world.cli(&[&deaf[..], &["--offline"]].concat()).status.success(), "the chain alone was asked for");
    world.daemon().start().await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert_eq!(spawned.cell(), cell);
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.daemon().stop().await;
    assert_done(&world.cli(&["close", &cell, "--json"]));
    world.daemon().start().await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_a_message_that_names_the_argument_and_what_is_allowed() {
    let world = World::new("bad-input").await;
    let issue = world.reader().open_issue("Bad input", "follows").await;
    let mission = world.mission(issue);
    let (m, elsewhere) = (mission.as_str(), format!("{}#999999", world.repository()));
    let many = "a".repeat(10_000);
    let cell = "laz-aaaaaaaaaaaaaaaa";
    // What is typed, the exit status, and what the message has to say.
    let table: &[(&[&str], i32, &[&str])] = &[
        (&["summon", "nosuchagent", m], 1, &["nosuchagent", "scribe"]),
        (&["summon", "scribe+quick", m], 1, &["/team"]),
        (&["summon", "../../etc/passwd", m], 1, &["agent", "lower-case letters"]),
        (&["summon", &many, m], 1, &["bytes"]),
        (&["summon", "scribe", "not-a-mission"], 1, &["MISSION", "not-a-mission", "OWNER/REPO#N"]),
        (&["summon", "scribe", "elsewhere/vault#1"], 1, &["elsewhere/vault", &world.repository()]),
        (&["summon", "scribe", &elsewhere], 1, &["999999"]),
        (&["summon", "scribe", m, "--backend", "vm"], 1, &["--backend", "vm", "process"]),
        (&["summon", "scribe", m, "--backend", "docker"], 1, &["backend", "docker", "process"]),
        (&["summon", "scribe", m, "--isolation", "9"], 1, &["--isolation", "9", "level_2"]),
        (&["summon", "scribe", m, "--network", "lan"], 1, &["--network", "lan", "none, proxy, host"]),
        (&["summon", "scribe", m, "--network", "host"], 1, &["network", "host", "proxy"]),
        (&["summon", "scribe", m, "--ttl", "soon"], 1, &["--ttl", "soon", "4h"]),
        (&["summon", "scribe", m, "--ttl", "30d"], 1, &["ttl", "1d"]),
        (&["summon", "scribe", m, "--model=-x"], 1, &["--model", "-x", "letters"]),
        (&["summon", "scribe", m, "--task", " "], 1, &["--task", "empty"]),
        (&["summon", "scribe", m, "--colour", "red"], 2, &["--colour"]),
        (&["summon", "scribe"], 2, &["OWNER/REPO#N"]),
        (&["team", "scribe+scribe", m], 1, &["scribe", "twice"]),
        (&["approve", m], 1, &["open"]),
        (&["approve", "acme"], 1, &["MISSION", "acme", "OWNER/REPO#N"]),
        (&["invite", cell, "a:b", "observer"], 1, &["a:b", "agent:NAME"]),
        (&["invite", cell, "human:x", "emperor"], 1, &["emperor", "observer"]),
        (&["revoke", cell, "nobody@nowhere"], 1, &["nobody@nowhere", "human:LOGIN"]),
        (&["extend", cell, "soon"], 1, &["soon", "15m"]),
        (&["tell", cell, "scribe", "two\nlines"], 1, &["line break"]),
        (&["tell", cell, "scribe"], 2, &["TEXT"]),
        (&["vote", cell, "maybe"], 1, &["yes", "no"]),
        (&["publish", cell, "everything"], 1, &["everything", "notes", "artifact"]),
        (&["publish", cell, "artifact"], 1, &["NAME"]),
        (&["publish", cell, "notes", "mine"], 1, &["NAME", "mine"]),
        (&["close", cell], 1, &[cell]),
        (&["close", cell, "--outcome", "great"], 1, &["--outcome", "great", "completed"]),
        (&["destroy", "../../.."], 1, &["CELL", "laz-"]),
        (&["status", "$HOME"], 1, &["TARGET", "$HOME", "OWNER/REPO#N"]),
        (&["status", "laz-x"], 1, &["CELL", "laz-x"]),
        (&["status", "acme/unknown#1"], 1, &["acme/unknown#1"]),
        (&["logs", cell, "--tail", "much"], 2, &["--tail", "much"]),
        (&["logs", "\u{1b}[2J"], 1, &["CELL"]),
        (&["ledger", "show", "everything"], 1, &["ABOUT", "everything", "OWNER/REPO#N"]),
        (&["ledger", "show", "--limit", "0"], 2, &["--limit", "1"]),
        (&["ledger", "show", cell, "--mission", m], 2, &["--mission"]),
        (&["ledger", "verify", "--head", "x"], 1, &["--head", "N:HASH"]),
        (&["config", "show", "--set", "nonsense"], 1, &["--set", "nonsense", "KEY=VALUE"]),
        (&["config", "show", "--set", "policy.network_max=lan"], 1, &["policy.network_max", "none, proxy, host"]),
        (&["completions", "tcl"], 2, &["tcl", "bash"]),
        (&["init", "nowhere"], 1, &["nowhere", "acme/widget"]),
        (&["demo", "say", "/help", "--as", "nobody"], 1, &[]),
        (&["frobnicate"], 2, &["frobnicate"]),
        (&["sumon", "scribe", m], 2, &["sumon", "summon"]),
        (&[], 2, &["Usage"]),
    ];
    for (arguments, status, words) in table {
        let output = world.cli(arguments);
        assert_refused(&output, words);
        let typed = arguments.join(" ");
        assert_eq!(output.status.code(), Some(*status), "`lazarus {typed}`:\n{}", output.all());
        assert!(output.stdout.is_empty(), "`lazarus {typed}` complains where answers go:\n{}", output.stdout);
        assert!(!output.all().contains('\u{1b}'), "`lazarus {typed}` prints what steers a terminal");
        assert!(output.stderr.len() < 8000, "`lazarus {typed}` repeats too much of what was typed");
    }
    world.assert_no_cell(issue).await;
    world.finish().await;
}

/// What an operator's program of this or another version says to a daemon, and what it hears.
fn over_the_control_socket(world: &World, line: &str) -> serde_json::Value {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;
    let data = std::fs::File::open(world.data()).unwrap();
    // Through the directory's descriptor, because a socket's path is short.
    let path = format!("/proc/self/fd/{}/control.sock", data.as_raw_fd());
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    writeln!(socket, "{line}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_another_version_is_told_so_and_nothing_is_done() {
    let world = World::new("other-version").await;
    let issue = world.reader().open_issue("By an old program", "while a new daemon runs").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let pause = format!(r#"{{"verb":"pause","cell":"{cell}"}}"#);
    // As version 1 asked, which had no number.
    let old = format!(r#"{{"by":"root","command":{pause},"mission":null,"cell":"{cell}"}}"#);
    let told = over_the_control_socket(&world, &old);
    assert_eq!(told["success"], false, "{told}");
    let words = told["message"].as_str().unwrap();
    assert!(words.contains("another version of Lazarus") && words.contains("version 1"), "{words}");
    let newer = format!(
        r#"{{"protocol":99,"by":"root","request":{{"operation":"give","on":{{"cell":"{cell}"}},"command":{pause}}}}}"#
    );
    assert!(over_the_control_socket(&world, &newer)["message"].as_str().unwrap().contains("version 99"));
    assert_eq!(world.cell_state(&cell).as_deref(), Some("active"), "it was paused");
    // In the daemon's own version it is done, and what only reads is answered as well.
    let own = newer.replace("99", "2");
    let done = over_the_control_socket(&world, &own);
    assert_eq!(done["answer"]["success"], true, "{done}");
    world.wait_for_state(issue, &cell, &["paused"]).await;
    let shown = format!(r#"{{"protocol":2,"by":"root","request":{{"operation":"show_cell","cell":"{cell}"}}}}"#);
    assert_eq!(over_the_control_socket(&world, &shown)["answer"]["cell"]["state"], "paused");
    world.finish().await;
}

/// Whoever reads the answer may have gone: that is no trace either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_is_no_panic() {
    let world = World::new("nobody-reads").await;
    let issue = world.reader().open_issue("Nobody", "reads it").await;
    world.assert_settled(issue).await;
    for arguments in [&["status"][..], &["pause", "laz-aaaaaaaaaaaaaaaa"], &["doctor", "--json"], &["ledger", "show"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = world.installation().command().args(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeded without an answer");
        assert!(!said.contains("panicked") && !said.is_empty(), "{arguments:?}: {said}");
        // Both ends of a pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.installation().command();
        let ended = command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        assert_ne!(ended.code(), Some(101), "{arguments:?} panicked");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_key_in_the_configuration_is_named_with_file_line_and_nearest_key() {
    let world = World::with("unknown-key", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let config = world.installation().config.clone();
    let text = std::fs::read_to_string(&config).unwrap().replace("token_file", "token_fiel");
    std::fs::write(&config, text).unwrap();
    assert_refused(&world.cli(&["config", "show"]), &["token_fiel", "token_file", "lazarus.toml", "3"]);
    assert_refused(&world.cli(&["serve"]), &["token_fiel"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_can_be_run_again_and_changes_nothing_the_second_time() {
    let world = World::new("init-twice").await;
    let count = async || {
        let (labels, hooks) = (
            world.admin("GET", &format!("/repos/{}/labels?page=1&limit=50", world.repository()), None, &[200]).await,
            world.admin("GET", &format!("/repos/{}/hooks", world.repository()), None, &[200]).await,
        );
        let templates =
            world.admin("GET", &format!("/repos/{}/issue_templates", world.repository()), None, &[200]).await;
        [labels, hooks, templates].map(|list| list.as_array().map_or(0, Vec::len))
    };
    let before = count().await;
    assert!(before[0] >= 2 && before[1] == 1 && before[2] >= 1, "labels, hooks, templates: {before:?}");
    let again = world.init();
    assert!(again.status.success(), "{}", again.all());
    assert_eq!(count().await, before);
    let dry = world.cli(&["init", &world.repository(), "--dry-run"]);
    assert!(dry.status.success(), "{}", dry.all());
    assert!(dry.all().contains("ALLOWED_HOST_LIST"), "it says what the forge's administrator must set:\n{}", dry.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_as_a_dry_run_touches_nothing() {
    let world = World::with("dry-run", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let dry = world.cli(&["init", &world.repository(), "--dry-run"]);
    assert!(dry.status.success(), "{}", dry.all());
    let hooks = world.admin("GET", &format!("/repos/{}/hooks", world.repository()), None, &[200]).await;
    let labels = world.admin("GET", &format!("/repos/{}/labels", world.repository()), None, &[200]).await;
    for list in [hooks, labels] {
        assert_eq!(list.as_array().map_or(0, Vec::len), 0, "{list}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_nothing_wrong_with_a_healthy_installation() {
    let world = World::new("doctor").await;
    let output = world.cli(&["doctor"]);
    assert!(output.status.success(), "{}", output.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_an_agent_come_out_of_both_halves() {
    let script = "i=0; while test $i -lt 5000; do i=$((i+1)); printf 'line %06d\\n' $i; done; exec sleep 3600";
    let config = format!(
        "[agents.talker]\ndescription = \"Talks\"\nprompt = \"stdin\"\nargv = [\"sh\", \"-c\", {script:?}]\n\
         limits = \"log=64KiB\"\n"
    );
    let world = World::with("both-halves", WorldOptions { config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Talk", "a lot").await;
    world.director().comment(issue, "/summon talker").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let keeper = world.data().join("run").join(&cell).join("keeper");
    let text = |name: &str| std::fs::read_to_string(keeper.join(name)).unwrap_or_default();
    world.wait_until("its last line", issue, async || text("talker.log").contains("line 005000").then_some(())).await;
    let (older, newer) = (text("talker.log.1"), text("talker.log"));
    assert!(!older.is_empty() && !newer.is_empty() && newer.len() < 32 << 10, "{} and {}", older.len(), newer.len());
    let whole = world.cli(&["logs", &cell]).stdout;
    assert!(whole.contains(&(older.clone() + &newer)), "a half is missing:\n{whole}");
    // The end of it, across both.
    let tail = newer.len() + 2 * "line 000000\n".len();
    let json = world.cli(&["logs", &cell, "talker", "--tail", &tail.to_string(), "--json"]).json();
    let end = format!("{}{newer}", &older[older.len() - 2 * "line 000000\n".len()..]);
    assert_eq!(json["logs"]["talker"], end);
    world.finish().await;
}
