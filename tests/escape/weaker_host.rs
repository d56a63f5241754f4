//! Threat line 34: hosts that cannot give what was asked for.

use crate::world::{Daemon, Kind, Proposal, World, WorldOptions, processes};
use std::fs;

/// Asks for a cell at the default level, and expects that it is refused in words
/// that name these, by the bot and by `lazarus doctor`; that nothing ran.
async fn refuses(name: &str, words: &[&str]) {
    let config = "[agents.witness]\ndescription = \"Says that it ran\"\nprompt = \"stdin\"\n\
                  argv = [\"sh\", \"-c\", \"echo ran > $HOME/ran; sleep 3600\"]\n";
    let options = WorldOptions { config: config.to_owned(), ..WorldOptions::default() };
    let world = World::with(name, options).await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("witness")).await;
    world.director().comment(issue, "/approve").await;
    let said = world
        .wait_for_any(issue, &[Kind::CloseLog, Kind::Refusal, Kind::Answer], |comment| comment.body.contains(words[0]))
        .await;
    for word in words {
        assert!(said.body.contains(word), "the refusal does not say `{word}`:\n{}", said.body);
    }
    world.assert_settled(issue).await;
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty(), "a cell was started all the same");
    assert!(world.live_cells().is_empty());
    let cells = ["cells", "graveyard"].map(|place| world.data().join(place));
    for cell in cells.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten()) {
        assert!(!cell.path().join("home/witness/ran").exists(), "the agent ran");
    }
    assert!(processes::naming("echo ran", &[]).iter().all(|p| p.named_in != "cmdline"), "the agent runs");
    let doctor = world.cli(&["doctor"]).all();
    for word in words {
        assert!(doctor.contains(word), "`lazarus doctor` does not say `{word}`:\n{doctor}");
    }
    world.finish().await;
}

/// Does not let the world ask for less: see `isolation_line` of `world`.
fn at_level_2() {
    assert_eq!(std::env::var("LAZARUS_TEST_ISOLATION").as_deref(), Ok("level_2"), "the stage says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_34 runs it in a run of its own"]
async fn without_user_namespaces() {
    at_level_2();
    refuses("no-userns", &["namespaces", "user.max_user_namespaces"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_34 runs it in a run of its own"]
async fn without_landlock() {
    at_level_2();
    refuses("no-landlock", &["Landlock", "lsm="]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_34 runs it in a run of its own"]
async fn without_seccomp() {
    at_level_2();
    refuses("no-seccomp", &["seccomp", "CONFIG_SECCOMP_FILTER"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_34 runs it in a run of its own"]
async fn without_git() {
    let mut world = World::with("no-git", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    let mut installation = world.installation().clone();
    let programs = world.place().join("programs");
    fs::create_dir(&programs).unwrap();
    installation.environment.push(("PATH".to_owned(), programs.display().to_string()));
    let mut daemon = Daemon::new(installation.clone());
    daemon.start().await;
    let issue = world.reader().open_issue("To be cloned", "Please.").await;
    world.director().comment(issue, "/summon sleeper").await;
    let said = world.wait_for_any(issue, &[Kind::CloseLog, Kind::Refusal], |c| c.body.contains("git")).await;
    assert!(said.body.contains("install"), "it does not say what to do:\n{}", said.body);

    // Nor is there a backend of containers: not a process instead.
    let issue = world.reader().open_issue("To be contained", "Please.").await;
    world.director().comment(issue, "/summon sleeper backend=docker").await;
    world.wait_for_any(issue, &[Kind::CloseLog, Kind::Refusal, Kind::Answer], |c| c.body.contains("docker")).await;
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty(), "a cell was started all the same");
    let doctor = installation.run(&["doctor"]).all();
    assert!(doctor.contains("install git"), "`lazarus doctor` does not say what to do:\n{doctor}");
    daemon.stop().await;
    let _ = world.daemon();
    world.finish().await;
}
