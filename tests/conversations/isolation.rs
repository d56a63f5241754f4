//! Nothing weaker is started than what was asked for and approved.

use crate::world::{Kind, Proposal, World, WorldOptions};

/// A host on which nobody may make user namespaces: it gives `level_1`.
async fn poor(name: &str, policy: &str) -> World {
    World::with(name, WorldOptions { poor_host: true, policy: policy.to_owned(), ..WorldOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_16_what_was_approved_for_level_2_is_not_started_with_less() {
    let world = poor("approved-level-2", "").await;
    let proposal = Proposal { isolation: Some("level_2".to_owned()), ..Proposal::for_agents("scribe") };
    let issue = world.reader().open_proposal(&proposal).await;
    world.director().comment(issue, "/approve").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    for words in ["failed", "level_2", "cannot be had on this host", "namespaces"] {
        assert!(log.body.contains(words), "{words:?} is not in\n{}", log.body);
    }
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty(), "it was started nevertheless");
    assert!(world.live_cells().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_16_named_hosts_are_not_turned_into_another_network() {
    let world = poor("approved-hosts", "isolation_min = \"level_1\"").await;
    let proposal = Proposal {
        isolation: Some("level_1".to_owned()),
        hosts: Some("api.example.test".to_owned()),
        ..Proposal::for_agents("scribe")
    };
    let issue = world.reader().open_proposal(&proposal).await;
    world.director().comment(issue, "/approve").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.body.contains("named hosts need a network namespace"), "{}", log.body);
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty(), "it was started nevertheless");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_16_another_backend_is_refused_and_none_takes_its_place() {
    let world = World::new("approved-backend").await;
    let issue = world.reader().open_issue("in a container", "Please.").await;
    world.director().comment(issue, "/summon scribe backend=docker").await;
    let refusal = world.wait_for_comment(issue, Kind::Refusal, |_| true).await;
    assert!(refusal.body.contains("docker"), "{}", refusal.body);
    world.director().comment(issue, "/summon scribe isolation=level_3").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.body.contains("cannot be had on this host"), "{}", log.body);
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty(), "it was started nevertheless");
    world.finish().await;
}
