//! Deliveries are lossy, repeated and unordered, and the forge has bad days
//! (threats 6 and 28): the same end as in order and once. On the stand-in,
//! which can be told to misbehave.

use serde_json::json;

use crate::world::{Kind, Proposal, World, WorldOptions};

/// The whole main job in quick words; returns the kinds of the bot's comments.
async fn the_main_job(world: &World) -> Vec<String> {
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.director().comment(issue, "/approve").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.reader().comment(issue, "/status").await;
    world.wait_for_comment(issue, Kind::Status, |_| true).await;
    world.director().comment(issue, "/close completed done").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.assert_settled(issue).await;
    assert!(world.live_cells().is_empty());
    let mut kinds: Vec<String> = world
        .bot_comments(issue)
        .await
        .iter()
        .map(|comment| comment.marker.as_ref().map_or("none".to_owned(), |marker| marker.kind.to_string()))
        .collect();
    kinds.sort();
    kinds
}

/// Runs the main job with these faults for deliveries and without any, and
/// wants the same thread.
async fn the_same_with(name: &str, webhooks: serde_json::Value) {
    // What only polling finds is to be done as what is heard.
    let options =
        WorldOptions { policy: "polled_commands = \"run\"".into(), reconcile: "1s", ..WorldOptions::default() };
    let plain = World::with(&format!("{name}-plain"), options.clone()).await;
    if plain.skip_on_live() {
        return plain.finish().await;
    }
    let expected = the_main_job(&plain).await;
    plain.finish().await;

    let world = World::with(name, options).await;
    world.misbehave(json!({"webhooks": webhooks})).await;
    assert_eq!(the_main_job(&world).await, expected, "deliveries: {webhooks}");
    world.behave().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_06_every_delivery_doubled_changes_nothing() {
    the_same_with("doubled", json!({"double": true})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_06_every_delivery_lost_changes_nothing() {
    the_same_with("lost", json!({"drop_all": true})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_06_deliveries_in_another_order_change_nothing() {
    the_same_with("reordered", json!({"shuffle": 3, "double": true})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_06_what_was_said_while_the_daemon_was_down_is_done_when_it_is_up() {
    let options =
        WorldOptions { policy: "polled_commands = \"run\"".into(), reconcile: "1s", ..WorldOptions::default() };
    let mut world = World::with("down", options).await;
    let issue = world.reader().open_issue("Nobody hears", "this").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    world.director().comment(issue, "/summon scribe").await;
    let asked = world.stranger().comment(issue, "/help").await;
    world.daemon().start().await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_reaction(issue, asked, "+1").await;
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    world.finish().await;
}

/// The forge takes the bot's comments (or fails to) in this way, a few times.
async fn comments_once_despite(name: &str, fault: serde_json::Value) {
    let world = World::with(name, WorldOptions { reconcile: "2s", ..WorldOptions::default() }).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let mut order = json!({
        "method": "POST", "path": "/issues/[0-9]+/comments$", "who": world.bot().login, "times": 2,
    });
    for (key, value) in fault.as_object().unwrap() {
        order[key] = value.clone();
    }
    world.misbehave(json!({"api": [order]})).await;
    the_main_job(&world).await;
    world.behave().await;
    // `finish` asserts that no effect was posted twice.
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_comment_that_was_posted_before_the_connection_dropped_is_there_once() {
    comments_once_despite("drop-after", json!({"do": "drop_after"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_comment_that_was_posted_and_answered_with_500_is_there_once() {
    comments_once_despite("fail-after", json!({"do": "fail_after"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_comment_that_was_posted_and_answered_with_rubbish_is_there_once() {
    comments_once_despite("garbage", json!({"do": "garbage"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_forge_that_is_too_busy_is_asked_again() {
    comments_once_despite("busy", json!({"do": "refuse", "status": 429, "retry_after": 1})).await;
}
