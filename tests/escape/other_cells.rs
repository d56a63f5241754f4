//! Cells of other kinds than the usual: one that policy lets into the host's
//! network, where everything else holds; one whose walls `bwrap` makes.

use crate::attempt::Attempt;
use crate::host_fixture::HostFixture;
use crate::sandbox_under_test::{HOME, SandboxUnderTest, Verdicts, every};
use crate::table::{Cells, options, words_inside};
use crate::world::{World, WorldOptions};

/// What a cell in the host's network can do, as policy says in as many words.
fn is_the_network(attempt: &Attempt) -> bool {
    let word = attempt.call.split(' ').next().unwrap_or_default();
    ["tcp", "udp", "interface", "listen"].contains(&word)
}

/// What comes of every attempt in a cell that is summoned so.
async fn attempts_in(world: &mut World, fixture: &HostFixture, command: &str) -> Verdicts {
    let cells = Cells::summon(world, command).await;
    let inside = words_inside(cells.words(world, fixture.words()));
    let column = SandboxUnderTest::plan(fixture, &cells.home.join("home/attacker"), HOME, inside);
    let waited = tokio::task::block_in_place(|| column.wait(&mut || Ok(())));
    if let Err(why) = waited {
        panic!("{why}\n{}", world.evidence(cells.issue).await);
    }
    column.verdicts()
}

/// Those that escaped, in words.
fn escaped(verdicts: &Verdicts, wanted: fn(&Attempt) -> bool) -> Vec<String> {
    every()
        .zip(verdicts)
        .filter(|((_, attempt), verdict)| verdict.has_escaped() && wanted(attempt))
        .map(|((class, attempt), verdict)| format!("{class}: {}: {verdict}", attempt.name))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_18 runs it in a run of its own"]
async fn nothing_but_the_network_is_open() {
    let fixture = HostFixture::new();
    let options = WorldOptions { policy: "network_max = \"host\"\n".to_owned(), ..options(&fixture) };
    let mut world = World::with("host-network", options).await;
    let verdicts = attempts_in(&mut world, &fixture, " network=host").await;
    let (open, out) = (escaped(&verdicts, is_the_network), escaped(&verdicts, |a| !is_the_network(a)));
    assert!(!open.is_empty(), "it is not in the host's network at all");
    assert!(out.is_empty(), "out of our cell:\n{}", out.join("\n"));
    println!("open, as policy says:\n{}", open.join("\n"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_18 runs it in a run of its own"]
async fn nothing_is_open_where_bwrap_makes_the_walls() {
    let fixture = HostFixture::new();
    let mut world = World::with("second-rung", options(&fixture)).await;
    let verdicts = attempts_in(&mut world, &fixture, "").await;
    let doctor = world.cli(&["doctor"]).all();
    assert!(doctor.contains("bwrap"), "the walls are not bwrap's:\n{doctor}");
    let out = escaped(&verdicts, |_| true);
    assert!(out.is_empty(), "out of our cell:\n{}", out.join("\n"));
    let stopped = verdicts.iter().filter(|v| v.was_stopped()).count();
    println!("{stopped} of {} stopped", verdicts.len());
    world.finish().await;
}
