//! A cell that policy lets into the host's network: everything else holds.

use crate::attempt::Attempt;
use crate::column::{Column, HOME, every};
use crate::ground::Ground;
use crate::table::{Cells, options, words_inside};
use crate::world::{World, WorldOptions};

/// What a cell in the host's network can do, as policy says in as many words.
fn is_the_network(attempt: &Attempt) -> bool {
    let word = attempt.call.split(' ').next().unwrap_or_default();
    ["tcp", "udp", "interface", "listen"].contains(&word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_18 runs it on its stage"]
async fn nothing_but_the_network_is_open() {
    let ground = Ground::new();
    let options = options(&ground);
    let options = WorldOptions { policy: "network_max = \"host\"\n".to_owned(), ..options };
    let mut world = World::with("host-network", options).await;
    let cells = Cells::summon(&world, " network=host").await;
    let inside = words_inside(cells.words(&mut world, ground.words()));
    let column = Column::plan(&ground, &cells.home.join("home/attacker"), HOME, inside);
    let waited = tokio::task::block_in_place(|| column.wait(&mut || Ok(())));
    if let Err(why) = waited {
        panic!("{why}\n{}", world.evidence(cells.issue).await);
    }
    let verdicts = column.verdicts();
    let (open, escaped): (Vec<_>, Vec<_>) =
        every().zip(&verdicts).filter(|(_, v)| v.has_escaped()).partition(|((_, attempt), _)| is_the_network(attempt));
    let named = |list: &[((&'static str, &'static Attempt), &crate::attempt::Verdict)]| -> Vec<String> {
        list.iter().map(|((class, attempt), verdict)| format!("{class}: {}: {verdict}", attempt.name)).collect()
    };
    assert!(!open.is_empty(), "it is not in the host's network at all");
    assert!(escaped.is_empty(), "out of our cell:\n{}", named(&escaped).join("\n"));
    println!("open, as policy says:\n{}", named(&open).join("\n"));
    world.finish().await;
}
