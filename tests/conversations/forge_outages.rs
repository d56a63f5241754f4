//! The forge's moods: renamed, away, archived, with monsters in its comments;
//! and what was done on it while nobody listened.

use serde_json::json;

use crate::world::{Kind, Proposal, World, WorldOptions};

fn often() -> WorldOptions {
    WorldOptions { reconcile: "1s", ..WorldOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_repository_keeps_its_missions() {
    let mut world = World::with("renamed-repo", often()).await;
    let issue = world.reader().open_issue("Moves", "soon").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.rename_repository("gadget").await;
    let asked = world.reader().comment(issue, "/status").await;
    world.wait_for_reaction(issue, asked, "+1").await;
    // The configuration still has the old name; the number is what counts.
    world.daemon().restart().await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_while_nobody_listened_is_caught_up() {
    let mut world = World::with("nobody-listened", often()).await;
    let (sleeping, proposed) = (
        world.reader().open_issue("Sleep", "for a while").await,
        world.reader().open_proposal(&Proposal::for_agents("scribe")).await,
    );
    world.director().comment(sleeping, "/summon sleeper").await;
    let cell = world.wait_for_comment(sleeping, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(sleeping, &cell, &["active"]).await;
    world.assert_settled(proposed).await;
    world.daemon().kill_9();
    world.director().close_issue(sleeping).await;
    world.director().add_label(proposed, "lazarus/approved").await;
    let new = world.writer().open_proposal(&Proposal::for_agents("scribe")).await;
    world.daemon().start().await;
    world.wait_for_comment(sleeping, Kind::CloseLog, |log| log.cell() == cell).await;
    world.wait_for_comment(proposed, Kind::SpawnLog, |_| true).await;
    world.director().comment(new, "/approve").await;
    world.wait_for_comment(new, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twenty_megabyte_comment_does_not_stand_in_the_way() {
    let world = World::with("monster", often()).await;
    let issue = world.reader().open_issue("Monster", "ahead").await;
    let monster = format!("{}\n\n/summon scribe\n", "x".repeat(20 << 20));
    world.director().comment(issue, &monster).await;
    let asked = world.reader().comment(issue, "/help").await;
    world.wait_for_reaction(issue, asked, "+1").await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_on_a_pull_request_is_left_alone() {
    let world = World::with("pull-request", often()).await;
    let change = json!({"content": "eA==", "message": "x", "new_branch": "topic"});
    world.admin("POST", &format!("/repos/{}/contents/x.txt", world.repository()), Some(change), &[201]).await;
    let pull = json!({"head": "topic", "base": "main", "title": "Topic", "body": "/summon scribe"});
    let pull = world.admin("POST", &format!("/repos/{}/pulls", world.repository()), Some(pull), &[201]).await;
    let number = pull["number"].as_i64().unwrap();
    let said = world.director().comment(number, "/summon scribe").await;
    world.assert_no_cell(number).await;
    assert!(world.reactions(said).await.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_repository_is_waited_for() {
    let world = World::with("archived", often()).await;
    let issue = world.reader().open_issue("Archive", "and back").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.admin("PATCH", &format!("/repos/{}", world.repository()), Some(json!({"archived": true})), &[200]).await;
    assert!(world.cli(&["close", &cell]).status.success(), "the operator can close it all the same");
    world.wait_for_state(issue, &cell, &["closed"]).await;
    world.admin("PATCH", &format!("/repos/{}", world.repository()), Some(json!({"archived": false})), &[200]).await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_15_a_voter_who_lost_the_right_is_not_counted() {
    let world = World::new("lost-right").await;
    let second = world.make_person(&format!("{}-2", world.director().login), &["write:issue"]).await;
    world.set_permission(&second.login, "admin").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe").council("2 of 3")).await;
    let vote = second.comment(issue, "/approve").await;
    world.wait_for_reaction(issue, vote, "+1").await;
    world.set_permission(&second.login, "write").await;
    let vote = world.director().comment(issue, "/approve").await;
    world.wait_for_reaction(issue, vote, "+1").await;
    world.assert_no_cell(issue).await;
    world.set_permission(&second.login, "admin").await;
    second.comment(issue, "/approve").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_forge_that_is_away_for_a_while_is_waited_for_and_nothing_is_lost() {
    let mut world = World::with("away", often()).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Away", "for a while").await;
    world.assert_settled(issue).await;
    let bot = world.bot().login.clone();
    for kind in [json!({"do": "refuse", "status": 502}), json!({"do": "drop_before"}), json!({"do": "half_body"})] {
        let mut fault = json!({"path": "/api/v1/", "who": bot});
        for (key, value) in kind.as_object().unwrap() {
            fault[key] = value.clone();
        }
        let before = world.comments_of(issue, Kind::SpawnLog).await.len();
        world.misbehave(json!({"api": [fault]})).await;
        world.director().comment(issue, "/summon scribe").await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        world.daemon().kill_9();
        world.daemon().launch();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.behave().await;
        world
            .wait_until("the spawn log once the forge is back", issue, async || {
                (world.comments_of(issue, Kind::SpawnLog).await.len() == before + 1).then_some(())
            })
            .await;
        let cell = world.comments_of(issue, Kind::SpawnLog).await.last().unwrap().cell();
        world.wait_for_state(issue, &cell, &["idle"]).await;
        world.director().comment(issue, &format!("/destroy {cell}")).await;
        world.wait_for_state(issue, &cell, &["destroyed"]).await;
        world.assert_settled(issue).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_the_forge_is_killed_between_answer_and_record() {
    // As far as we see it: the answer to every call that changes something is
    // lost, at any of the steps of a mission.
    let world = World::with("answers-lost", often()).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let bot = world.bot().login.clone();
    for skip in 0..6 {
        let fault =
            json!({"path": "/api/v1/", "method": "POST", "who": bot, "skip": skip, "times": 1, "do": "drop_after"});
        world.misbehave(json!({"api": [fault]})).await;
        let issue = world.reader().open_issue(&format!("Answer {skip} is lost"), "but nothing else").await;
        world.director().comment(issue, "/summon scribe").await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["idle"]).await;
        world.director().comment(issue, "/close").await;
        world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        world.assert_settled(issue).await;
        world.behave().await;
        for kind in [Kind::SpawnLog, Kind::CloseLog, Kind::Status] {
            assert_eq!(world.comments_of(issue, kind).await.len(), 1, "{kind} after the loss of answer {skip}");
        }
    }
    world.finish().await;
}
