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
    let options = WorldOptions::polled();
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
    let options = WorldOptions::polled();
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

// ── Threat 40: one bad answer at each single call ──────────────────────────

/// A walkthrough that meets most calls there are: start, proposal, approval by
/// label, several commands in one comment, a file that is published, the push
/// and the pull request. Returns the kinds of the bot's comments, and how each
/// command was answered.
async fn every_call(world: &mut World) -> Walkthrough {
    world.daemon().start().await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.assert_settled(issue).await;
    world.director().add_label(issue, "lazarus/approved").await;
    let mut commands = vec![];
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    let guest = world.stranger().login.clone();
    let several = format!("/invite human:{guest} observer\n/decide keep it short\n/extend 10m");
    commands.push(world.director().comment(issue, &several).await);
    world
        .wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["is invited", "is on record", "may run until"]))
        .await;
    commands.push(world.reader().comment(issue, "/pause").await);
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["director"])).await;
    commands.push(world.director().comment(issue, "/publish decisions").await);
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["attached"])).await;
    commands.push(world.director().comment(issue, "/close completed done").await);
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["pull request"]), "{}", log.body);
    world.assert_settled(issue).await;
    let mut kinds: Vec<String> = world
        .bot_comments(issue)
        .await
        .iter()
        .map(|comment| comment.marker.as_ref().map_or("none".to_owned(), |marker| marker.kind.to_string()))
        .collect();
    kinds.sort();
    let mut answers = vec![];
    for command in commands {
        let mut reactions = world.reactions(command).await;
        reactions.sort();
        answers.push(reactions);
    }
    assert_eq!(world.pulls().await.len(), 1);
    (kinds, answers)
}

async fn quiet_world(name: &str) -> World {
    let options = WorldOptions { start: false, reconcile: "2s", configured_director: true, ..WorldOptions::default() };
    let world = World::with(name, options).await;
    let init = world.init();
    assert!(init.status.success(), "`lazarus init` failed:\n{}", init.all());
    world
}

/// Each call that the walkthrough makes: surface, method, and a pattern of its
/// path.
fn calls_of(world: &World, since: usize) -> Calls {
    let numbers = regex::Regex::new("[0-9]+").unwrap();
    let (owner, repository) = (world.owner(), world.repository());
    let bot = &world.bot().login;
    let requests = world.server().stand_in().expect("the stand-in").requests();
    requests[since..]
        .iter()
        .filter_map(|request| {
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
            let is_git = path.ends_with("/info/refs") || path.ends_with("-pack");
            if request.who != *bot && !(is_git && request.who.is_empty()) {
                return None;
            }
            let plain = path.replace(&repository, "OWNER/NAME").replace(&owner, "OWNER");
            let plain: Vec<String> = plain
                .split('/')
                .map(|part| match part {
                    "OWNER" | "NAME" => "[^/]+".to_owned(),
                    "NAME.git" => "[^/]+[.]git".to_owned(),
                    "v1" => part.to_owned(),
                    // Logins and branches have numbers of their own in each world.
                    part if part.starts_with("director-") || part.starts_with("stranger-") || part.contains("laz-") => {
                        format!("{}[^/]+", part.split('-').next().unwrap_or_default())
                    }
                    part => numbers.replace_all(part, "[0-9]+").into_owned(),
                })
                .collect();
            let end = if is_git && !query.is_empty() { format!("[?]{query}$") } else { "([?]|$)".to_owned() };
            let surface = if is_git { "git" } else { "api" };
            Some((surface, request.method.clone(), format!("^{}{end}", plain.join("/"))))
        })
        .collect()
}

type Calls = std::collections::BTreeSet<(&'static str, String, String)>;
type Walkthrough = (Vec<String>, Vec<Vec<String>>);

/// The walkthrough as it goes on a good day, and the calls that it makes. `None`
/// on a real server, which cannot be told to misbehave.
async fn without_faults() -> Option<&'static (Walkthrough, Calls)> {
    static ONCE: tokio::sync::OnceCell<Option<(Walkthrough, Calls)>> = tokio::sync::OnceCell::const_new();
    let made = async || {
        let mut world = quiet_world("each-call-plain").await;
        if world.skip_on_live() {
            world.finish().await;
            return None;
        }
        let before = world.server().stand_in().expect("the stand-in").requests().len();
        let expected = every_call(&mut world).await;
        let calls = calls_of(&world, before);
        assert!(calls.len() > 24, "the walkthrough makes few calls: {calls:#?}");
        world.finish().await;
        Some((expected, calls))
    };
    ONCE.get_or_init(made).await.as_ref()
}

/// The walkthrough with this fault at each of its calls, `times` each: the same
/// end, and the same answers, once.
async fn threat_40(name: &str, fault: serde_json::Value, times: u32) {
    let Some((expected, calls)) = without_faults().await else { return };
    let mut world = quiet_world(name).await;
    let bot = world.bot().login.clone();
    let faults: Vec<serde_json::Value> = calls
        .iter()
        .map(|(surface, method, path)| {
            let who = (*surface == "api").then(|| bot.clone());
            let mut order = json!({"on": surface, "method": method, "path": path, "who": who, "times": times});
            for (key, value) in fault.as_object().unwrap() {
                order[key] = value.clone();
            }
            order
        })
        .collect();
    world.misbehave(json!({"api": faults})).await;
    assert_eq!(every_call(&mut world).await, *expected, "with {fault} at each call");
    world.behave().await;
    // `finish` asserts that nothing was said twice.
    world.finish().await;
}

macro_rules! at_each_call {
    ($($name:ident: $fault:tt, $times:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                threat_40(&stringify!($name)["threat_40_".len()..].replace('_', "-"), json!($fault), $times).await;
            }
        )+
    };
}

at_each_call! {
    threat_40_a_301_at_each_call: {"do": "refuse", "status": 301}, 1;
    threat_40_a_404_at_each_call: {"do": "refuse", "status": 404}, 1;
    threat_40_a_404_said_twice_at_each_call: {"do": "refuse", "status": 404}, 2;
    threat_40_a_408_at_each_call: {"do": "refuse", "status": 408}, 1;
    threat_40_a_429_at_each_call: {"do": "refuse", "status": 429, "retry_after": 1}, 1;
    threat_40_a_500_at_each_call: {"do": "refuse", "status": 500}, 1;
    threat_40_a_502_at_each_call: {"do": "refuse", "status": 502}, 1;
    threat_40_a_503_at_each_call: {"do": "refuse", "status": 503}, 1;
    threat_40_html_at_each_call: {"do": "page", "status": 200}, 1;
    threat_40_half_a_body_at_each_call: {"do": "half_body"}, 1;
    threat_40_a_connection_dropped_before_each_call: {"do": "drop_before"}, 1;
    threat_40_a_connection_dropped_after_each_call: {"do": "drop_after"}, 1;
}
