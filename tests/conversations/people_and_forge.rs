//! The harness itself: people can do on this forge what the other
//! conversations rely on. No Lazarus in it.

use crate::world::{Proposal, World, WorldOptions};

fn no_lazarus() -> WorldOptions {
    WorldOptions { start: false, ..WorldOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_write_edit_label_and_are_heard_by_a_hook() {
    let world = World::with("people", no_lazarus()).await;
    let post = world.listening_post().await;
    let (director, writer, reader) = (world.director(), world.writer(), world.reader());

    let issue = reader.open_proposal(&Proposal::for_agents("scribe")).await;
    let opened = post.wait_for("`opened`", |d| d.event == "issues" && d.json()["action"] == "opened").await;
    assert_eq!(opened.json()["issue"]["number"], issue);
    assert_eq!(opened.json()["sender"]["id"], reader.id);

    let said = director.comment(issue, "good idea").await;
    let heard = post.wait_for("`created`", |d| d.event == "issue_comment" && d.json()["action"] == "created").await;
    assert_eq!(heard.json()["comment"]["id"], said);
    assert_eq!(heard.json()["comment"]["body"], "good idea");

    writer.edit_comment(said, "/close").await;
    let edited = post.wait_for("`edited`", |d| d.event == "issue_comment" && d.json()["action"] == "edited").await;
    assert_eq!(edited.json()["comment"]["user"]["id"], director.id, "an edit keeps its first author");
    assert_eq!(edited.json()["sender"]["id"], writer.id);

    let label = director.create_label("lazarus/approved").await;
    director.add_label(issue, "lazarus/approved").await;
    post.wait_for("`label_updated`", |d| d.event_type == "issue_label").await;
    assert_eq!(world.labels(issue).await, ["lazarus/approved"]);
    director.remove_label(issue, "lazarus/approved").await;
    assert!(world.labels(issue).await.is_empty());

    let smuggled = reader.open_by_form_with_labels("smuggled", "approve me", &[label]).await;
    assert_eq!(world.labels(smuggled).await, ["lazarus/approved"], "the form's hidden field is not checked");

    assert_eq!(reader.try_comment(issue, "").await.status, 422);
    reader.retitle_issue(issue, "[mission] another title").await;
    director.close_issue(issue).await;
    director.reopen_issue(issue).await;
    writer.react(said, "heart").await;
    director.delete_comment(said).await;
    assert!(world.comments(issue).await.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_can_be_renamed_and_its_name_taken_by_another() {
    let world = World::with("renamed", no_lazarus()).await;
    let director = world.director();
    let former = director.login.clone();
    world.rename_account(&former, &format!("{former}-old")).await;
    let taker = world.make_person(&former, &["write:issue"]).await;
    assert_ne!(taker.id, director.id);
    let issue = director.open_issue("still me", "under another name").await;
    assert_eq!(world.issue(issue).await["user"]["id"], director.id);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stand_in_is_the_only_forge_that_can_be_told_to_misbehave() {
    let world = World::with("misbehave", no_lazarus()).await;
    assert_eq!(world.server().faults().is_none(), world.server().is_live());
    if world.skip_on_live() {
        return world.finish().await;
    }
    let post = world.listening_post().await;
    world.misbehave(serde_json::json!({"webhooks": {"drop_next": 1, "double": true}})).await;
    let issue = world.reader().open_issue("lost", "nobody hears of this").await;
    let said = world.reader().comment(issue, "heard twice").await;
    let is_it = |d: &crate::world::Delivery| d.event == "issue_comment" && d.json()["comment"]["id"] == said;
    post.wait_for("the comment", is_it).await;
    world.wait_until("its double", issue, async || (post.heard().len() == 2).then_some(())).await;
    assert!(post.heard().iter().all(is_it));
    world.behave().await;
    world.finish().await;
}
