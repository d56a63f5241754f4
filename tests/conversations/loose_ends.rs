//! Commands and requests that ended without an answer, without a ledger entry, or
//! half: each ends whole.

use crate::world::{Kind, Proposal, World, WorldOptions};
use std::time::{Duration, Instant};

/// Anything by which the bot tells people that something is not as they think.
const SAYS_SO: &[Kind] = &[Kind::Warning, Kind::Refusal, Kind::Answer];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_not_approved_is_rejected_and_never_closed() {
    let world = World::new("close-request").await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    world.writer().comment(issue, "/summon sleeper").await;
    let recorded = world.wait_for_comment(issue, Kind::Answer, |c| c.says(&["Recorded as request 1"])).await;
    let cell = recorded.body.split("(cell `").nth(1).and_then(|rest| rest.split('`').next()).unwrap().to_owned();
    let close = world.director().comment(issue, &format!("/close {cell}")).await;
    world.wait_for_reaction(issue, close, "confused").await;
    world.wait_for_any(issue, SAYS_SO, |c| c.says(&["request 1 is not approved yet", "/reject 1"])).await;
    let closed = world.cli(&["close", &cell]);
    assert!(closed.all().contains("request 1 is not approved yet; use /reject 1"), "{}", closed.all());
    assert_eq!(world.cell_state(&cell).as_deref(), Some("proposed"));
    let reject = world.director().comment(issue, "/reject 1 not now").await;
    world.wait_for_reaction(issue, reject, "+1").await;
    world.wait_for_comment(issue, Kind::Request, |c| c.says(&["Rejected by", "not now"])).await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_issue_ends_its_open_requests_in_plain_words() {
    let world = World::new("close-issue").await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    world.writer().comment(issue, "/summon sleeper").await;
    world.wait_for_comment(issue, Kind::Request, |c| c.says(&["Request 1"])).await;
    world.director().close_issue(issue).await;
    let void = world.wait_for_comment(issue, Kind::Request, |c| c.says(&["It is void", "the issue was closed"])).await;
    assert!(!void.body.contains("&ast;") && !void.body.contains("&#42;"), "{}", void.body);
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_council_that_can_never_decide_is_an_error_of_its_field() {
    let world = World::new("never").await;
    let (ada, ben, cleo) = (world.director().login.clone(), world.writer().login.clone(), world.reader().login.clone());
    let council = |rule: String| Proposal::for_agents("sleeper").council(&rule);
    let issue = world.writer().open_proposal(&council(format!("1 of {cleo}"))).await;
    let said = world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["Council", &cleo, "not a director"])).await;
    assert!(said.says(&["1 vote is needed", "0 of the people"]), "{}", said.body);
    let issue = world.reader().open_proposal(&council(format!("2 of {ada}, {ben}"))).await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["Council", &ben, "2 votes are needed"])).await;
    // Whoever proposes does not vote.
    let issue = world.director().open_proposal(&council(format!("1 of {ada}"))).await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["Council", &ada, "the proposer"])).await;
    // One director of two people is enough for one vote.
    let issue = world.reader().open_proposal(&council(format!("1 of {ada}, {ben}"))).await;
    world.wait_for_comment(issue, Kind::Request, |c| c.says(&["Request 1"])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_comment_beyond_the_pace_is_answered_and_on_record() {
    let options = WorldOptions { policy: "commands_per_minute = 2".to_owned(), ..WorldOptions::default() };
    let world = World::with("pace", options).await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    for _ in 0..3 {
        let asked = world.reader().comment(issue, "/status\n/status\n/help").await;
        world.wait_for_reaction(issue, asked, "confused").await;
    }
    world.assert_settled(issue).await;
    let refused = world.ledger().matches("more than 2 commands in a minute").count();
    assert_eq!(refused, 3, "{}", world.ledger());
    // Once a minute, and a minute may have turned meanwhile.
    let said = world.comments_of(issue, Kind::Refusal).await.len();
    assert!((1..=2).contains(&said), "{}", world.evidence(issue).await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_polling_finds_beyond_the_pace_is_done_in_a_later_minute() {
    let options = WorldOptions {
        policy: "commands_per_minute = 1\npolled_commands = \"run\"".to_owned(),
        reconcile: "1s",
        ..WorldOptions::default()
    };
    let mut world = World::with("later", options).await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    let first = world.reader().comment(issue, "/help").await;
    let second = world.reader().comment(issue, "/help summon").await;
    world.daemon().start().await;
    world.wait_for_reaction(issue, first, "+1").await;
    // The next minute comes within one.
    let since = Instant::now();
    while !world.reactions(second).await.contains(&"+1".to_owned()) {
        assert!(since.elapsed() < Duration::from_secs(90), "{}", world.evidence(issue).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // On a real forge the world's own fence is refused, on its own issue.
    assert!(world.comments_of(issue, Kind::Refusal).await.is_empty(), "{}", world.evidence(issue).await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_on_record_by_its_verb_and_never_by_its_text() {
    let world = World::new("unread").await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    // Where no mission is, a slip is somebody else's word.
    world.director().comment(issue, "/summon sleeper").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    for text in ["/sumon hunter2-typo", "/extend hunter2-argument"] {
        let asked = world.director().comment(issue, text).await;
        world.wait_for_reaction(issue, asked, "confused").await;
    }
    let ledger = world.ledger();
    assert_eq!(ledger.matches("it cannot be read as a command").count(), 2, "{ledger}");
    assert!(ledger.contains("summon") && ledger.contains("extend") && !ledger.contains("hunter2"), "{ledger}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_commands_gets_its_own_answer() {
    let world = World::new("several").await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    world.director().comment(issue, "/summon sleeper\n/extend soon\n/status\n/resume").await;
    let answer = world.wait_for_comment(issue, Kind::Answer, |c| c.says(&["/summon", "done"])).await;
    for words in ["`/extend`: ", "`/status`: done", "`/resume`: "] {
        assert!(answer.body.contains(words), "no {words} in\n{}", answer.body);
    }
    assert_eq!(answer.body.matches("`/extend`: ").count(), 1, "{}", answer.body);
    world.finish().await;
}
