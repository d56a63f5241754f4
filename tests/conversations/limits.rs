//! Threat line 19: each of these uses more than it may, and is stopped by its
//! own limit, with a word in the close log; nobody else notices.

use crate::world::{Comment, Kind, Proposal, World, WorldOptions};

fn agent(name: &str, limits: &str, script: &str) -> String {
    format!(
        "[agents.{name}]\ndescription = \"Greedy\"\nargv = [\"sh\", \"-c\", {script:?}]\nprompt = \"stdin\"\n\
         limits = {limits:?}\n"
    )
}

/// Runs an agent in a cell of its own until it has ended; returns the spawn log
/// and the close log.
async fn run(world: &World, name: &str) -> (Comment, Comment) {
    let issue = world.reader().open_issue(name, "Use more than you may.").await;
    world.director().comment(issue, &format!("/summon {name}")).await;
    let spawn = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_state(issue, &spawn.cell(), &["idle", "downed"]).await;
    world.director().comment(issue, "/close").await;
    (spawn, world.wait_for_comment(issue, Kind::CloseLog, |_| true).await)
}

fn assert_met(log: &Comment, limit: &str) {
    assert!(log.body.contains(&format!("limit of **{limit}**")), "no limit of {limit} in\n{}", log.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_19_bombs_meet_their_own_limits_and_nobody_else_notices() {
    let config = [
        agent("waiting", "", "while :; do sleep 1; done"),
        agent("forks", "processes=20", "exec timeout 4 bash -c 'for i in $(seq 60); do sleep 20 & done; sleep 2'"),
        agent("memory", "memory=48MiB", "head -c 300M /dev/zero | tail | cat; sleep 1"),
        agent("disk", "disk=64MiB", "i=0; while :; do i=$((i+1)); head -c 8M /dev/zero > big$i; sleep 0.05; done"),
        agent(
            "ghosts",
            "disk=64MiB",
            "i=10; while [ $i -lt 16 ]; do eval \"exec $i>g$i\"; rm g$i; head -c 30M /dev/zero >&$i; i=$((i+1)); done; sleep 30",
        )
        .replace("\"sh\"", "\"bash\""),
        agent("files", "files=1500", "mkdir many; cd many; seq 4000 | xargs touch; sleep 60"),
        agent("log", "log=64KiB", "yes | head -c 1M; echo the end"),
        agent("busy", "cpu=0.1", "timeout 4 sh -c 'while :; do :; done'"),
    ]
    .concat();
    let world = World::with("limits", WorldOptions { config, ..WorldOptions::default() }).await;
    let quiet = world.reader().open_issue("quiet", "Wait.").await;
    world.director().comment(quiet, "/summon waiting").await;
    let spawn = world.wait_for_comment(quiet, Kind::SpawnLog, |_| true).await;
    let bystander = spawn.cell();

    let (_, log) = run(&world, "forks").await;
    assert_met(&log, "processes");

    let (spawn, log) = run(&world, "memory").await;
    assert!(spawn.body.contains("memory 48 MiB"), "{}", spawn.body);
    assert_met(&log, "memory");

    let (_, log) = run(&world, "disk").await;
    assert_met(&log, "disk");
    assert!(log.body.contains("ended by the limit of disk"), "{}", log.body);

    // Deleted, and still open.
    let (_, log) = run(&world, "ghosts").await;
    assert_met(&log, "disk");

    let (_, log) = run(&world, "files").await;
    assert_met(&log, "files");

    let (spawn, log) = run(&world, "log").await;
    assert_met(&log, "log");
    assert!(world.cli(&["logs", &spawn.cell()]).all().contains("the end"), "the last words were not kept");

    let (spawn, log) = run(&world, "busy").await;
    if spawn.body.contains("processors' time (control groups") {
        assert_met(&log, "cpu");
    }

    assert_eq!(world.cell_state(&bystander).as_deref(), Some("active"), "the bystander suffered");
    let asked = world.director().comment(quiet, "/status").await;
    world.wait_for_reaction(quiet, asked, "+1").await;
    world.director().comment(quiet, "/close").await;
    world.wait_for_comment(quiet, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_19_what_an_agent_leaves_for_whoever_reads_its_work_meets_limits_too() {
    // Its clone has git run this when the work is read.
    let bomb = "git config filter.z.clean 'i=0; while :; do i=$((i+1)); head -c 8M /dev/zero > ../home/_harvest/f$i; done'; \
                echo '* filter=z' > .gitattributes; echo a > a";
    let config = format!("[harvest]\npack_max = \"1MiB\"\n{}", agent("sly", "disk=64MiB", bomb));
    let world = World::with("limits-harvest", WorldOptions { config, ..WorldOptions::default() }).await;
    let (_, log) = run(&world, "sly").await;
    assert!(log.body.contains("could not be read"), "{}", log.body);
    assert!(log.body.contains("sly | exit 0"), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_policy_asks_for_it_the_disk_is_memory_of_just_that_size_and_the_work_still_leaves() {
    let work = "echo done > result.txt; git add result.txt; git commit -qm result; \
                git status --short | wc -l; head -c 300M /dev/zero > ../home/full/big; echo the write ended with $?; \
                stat -f -c %T . ../home/full; sleep 2";
    let config = agent("full", "disk=64MiB, memory=1GiB", work);
    let options = WorldOptions { config, policy: "disk_in_memory = true".to_owned(), ..WorldOptions::default() };
    let world = World::with("limits-memory", options).await;
    let issue = world.reader().open_issue("full", "Fill it.").await;
    world.director().comment(issue, "/summon full").await;
    let first = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
    if first.body.contains("disk_in_memory") {
        println!("not run: this host gives no mount namespace\n{}", first.body);
        return world.finish().await;
    }
    let cell = first.cell();
    world.wait_for_state(issue, &cell, &["idle", "downed"]).await;
    let said = world.cli(&["logs", &cell]).all();
    world.director().comment(issue, "/close").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(
        said.contains("the write ended with 1") && said.contains("\n0\n") && said.contains("tmpfs\ntmpfs"),
        "{said}"
    );
    assert_met(&log, "disk");
    assert!(log.body.contains("1 commit,") && log.body.contains("Pull request"), "{}", log.body);
    let on_disk = world.data().join("graveyard").join(&cell);
    assert!(!on_disk.join("home/full/big").exists() && !on_disk.join("project/result.txt").exists());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_gets_the_limits_it_asks_for_and_no_more_than_policy_allows() {
    let config = format!(
        "[limits_max]\nmemory = \"8GiB\"\nprocesses = 600\n{}",
        agent("modest", "memory=64MiB", "while :; do sleep 1; done")
    );
    let world = World::with("limits-asked", WorldOptions { config, ..WorldOptions::default() }).await;
    let wanting = |limits: &str| Proposal { limits: Some(limits.to_owned()), ..Proposal::for_agents("modest") };

    let issue = world.reader().open_proposal(&wanting("memory=9GiB, luck=1")).await;
    let refusal = world.wait_for_comment(issue, Kind::Refusal, |_| true).await;
    assert!(refusal.body.contains("Limits") && refusal.body.contains("luck=1"), "{}", refusal.body);

    let issue = world.reader().open_proposal(&wanting("memory=9GiB")).await;
    let refusal = world.wait_for_comment(issue, Kind::Refusal, |_| true).await;
    assert!(refusal.body.contains("memory=9GiB is more than policy allows (8GiB)"), "{}", refusal.body);

    let issue = world.reader().open_proposal(&wanting("memory=3GiB, cpu=1.5")).await;
    world.director().comment(issue, "/approve").await;
    let spawn = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    for words in ["memory 3072 MiB", "1.5 processors' time", "512 processes"] {
        assert!(spawn.body.contains(words), "{words} is not in\n{}", spawn.body);
    }
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}
