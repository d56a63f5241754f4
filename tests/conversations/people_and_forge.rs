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

// ── What changes around a conversation ───────────────────────────────────
//
// Each of these was tried on a real Gitea 1.25.4 and Forgejo 12, too (`make
// live`); what they answer, field by field, is in tests/twins.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisation_and_its_team_are_renamed_deleted_and_made_again_with_new_numbers() {
    let world = World::with("teams", no_lazarus()).await;
    let (reader, bot) = (world.reader(), world.bot());
    let team = world.make_team(&world.owner(), "leads").await;
    world.add_team_member(team, &bot.login).await;
    let member = format!("/teams/{team}/members/{}", bot.login);
    assert_eq!(bot.api("GET", &member, None).await.status, 200);
    assert_eq!(reader.api("GET", &member, None).await.status, 404, "hidden from outsiders");

    let old = world.owner();
    world.rename_organisation(&old, &format!("{old}-new")).await;
    world.rename_team(team, "chiefs").await;
    assert_eq!(bot.api("GET", &member, None).await.status, 200, "the number stays");
    assert_eq!(bot.api("GET", &format!("/orgs/{old}/teams"), None).await.status, 307);
    let issue = reader.open_issue("still here", "under another name").await;
    assert_eq!(world.issue(issue).await["number"], issue);

    // Somebody else takes the name, and a team of that name in it.
    let taken = world.make_organisation(&old, &reader.login).await;
    let theirs = world.make_team(&old, "leads").await;
    world.add_team_member(theirs, &reader.login).await;
    assert_ne!(theirs, team);
    assert_eq!(world.team_id(&old, "leads").await, theirs);
    world.delete_organisation(&old).await;
    assert_eq!(bot.api("GET", &format!("/orgs/{old}"), None).await.status, 404);
    assert_ne!(world.make_organisation(&old, &reader.login).await, taken);
    world.delete_team(team).await;
    assert_eq!(bot.api("GET", &member, None).await.status, 404);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_renamed_and_transferred_and_its_old_names_are_taken() {
    let world = World::with("moved", no_lazarus()).await;
    let (id, owner) = (world.repository_id().await, world.owner());
    world.rename_repository("gadget").await;
    let old = format!("/repos/{owner}/widget");
    assert_eq!(world.writer().api("GET", &old, None).await.status, 301);
    assert_eq!(world.repository_id().await, id);
    assert_ne!(world.make_repository(&owner, "widget").await, id, "the name is taken by another");
    assert_eq!(world.writer().api("GET", &old, None).await.status, 200);

    let elsewhere = format!("{owner}-two");
    world.make_organisation(&elsewhere, &world.director().login).await;
    world.transfer_repository(&elsewhere).await;
    assert_eq!(world.repository(), format!("{elsewhere}/gadget"));
    assert_eq!(world.repository_id().await, id);
    world.transfer_repository(&world.director().login).await;
    assert_eq!(world.repository_id().await, id);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_edited_within_its_second_shows_no_edit_and_one_can_be_edited_unheard() {
    let world = World::with("edits", no_lazarus()).await;
    let (director, writer) = (world.director(), world.writer());
    let issue = world.reader().open_issue("edits", "first").await;
    let said = world.comment_edited_at_once(director, writer, issue, "thanks", "/summon scribe").await;
    let comments = world.comments(issue).await;
    assert_eq!((comments[0].id, comments[0].body.as_str(), comments[0].author), (said, "/summon scribe", director.id));
    if world.skip_on_live() {
        return world.finish().await;
    }
    let post = world.listening_post().await;
    world.edit_comment_unheard(said, "thanks").await;
    let late = writer.comment(issue, "heard").await;
    post.wait_for("only this", |d| d.json()["comment"]["id"] == late).await;
    assert_eq!(post.heard().len(), 1, "nobody heard of the edit");

    // Between two calls of the bot.
    world.edit_comment_at_call("GET", &format!("/comments/{said}$"), 1, said, "another text").await;
    world.edit_issue_at_call("GET", &format!("/issues/{issue}$"), 0, issue, "second").await;
    let path = format!("/repos/{}/issues/comments/{said}", world.repository());
    let look = async || world.bot().api("GET", &path, None).await.json()["body"].as_str().unwrap().to_owned();
    assert_eq!(director.api("GET", &path, None).await.json()["body"], "thanks", "only the bot's calls count");
    assert_eq!([look().await, look().await, look().await], ["thanks", "another text", "another text"]);
    let path = format!("/repos/{}/issues/{issue}", world.repository());
    assert_eq!(world.bot().api("GET", &path, None).await.json()["body"], "second");
    world.delete_comment_at_call("GET", "/comments", 0, said).await;
    let path = format!("/repos/{}/issues/comments/{said}", world.repository());
    assert_eq!(world.bot().api("GET", &path, None).await.status, 404);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_wait_at_the_forge_until_they_are_let_go() {
    let world = World::with("held", no_lazarus()).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let post = world.listening_post().await;
    let issue = world.reader().open_issue("held", "text").await;
    post.wait_for("`opened`", |d| d.json()["action"] == "opened").await;
    world.hold_deliveries().await;
    for n in 0..5 {
        world.reader().comment(issue, &n.to_string()).await;
    }
    world.server().stand_in().unwrap().wait_for_deliveries_idle().await;
    assert_eq!(post.heard().len(), 1);
    world.release_deliveries().await;
    world.wait_until("all five", issue, async || (post.heard().len() == 6).then_some(())).await;
    let bodies: Vec<_> = post.heard().iter().skip(1).map(|d| d.json()["comment"]["body"].clone()).collect();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"], "in their order");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_elsewhere_arrives_as_if_it_were_said_here() {
    let world = World::with("migrated", no_lazarus()).await;
    let (director, writer) = (world.director(), world.writer());
    let elsewhere = world.elsewhere().await;
    elsewhere.make_person("mallory").await;
    let (past, future) = ("2020-02-02T02:02:02Z", "2060-02-02T02:02:02Z");
    let issue = elsewhere.open_issue("mallory", past, "old", "words").await;
    elsewhere.comment(issue, "mallory", past, "/summon scribe").await;
    // A server that says it is this one is believed about who wrote what.
    elsewhere.claims_to_be(&world.server().url(), writer.id).await;
    elsewhere.make_person(&writer.login).await;
    elsewhere.comment(issue, &writer.login, future, "/summon scribe").await;
    let before = world.repository_id().await;
    world.migrate_here(&elsewhere, director).await;
    assert_ne!(world.repository_id().await, before);

    let repository = world.admin("GET", &format!("/repos/{}", world.repository()), None, &[200]).await;
    assert_eq!(repository["original_url"], elsewhere.clone_url());
    let comments = world.comments(issue).await;
    let authors: Vec<i64> = comments.iter().map(|comment| comment.author).collect();
    // Gitea gives the stranger's words to who migrates, Forgejo to nobody.
    assert!([director.id, -1].contains(&authors[0]), "{authors:?}");
    assert_eq!(authors[1], writer.id, "words in the name of somebody here");
    let path = format!("/repos/{}/issues/{issue}/comments", world.repository());
    let raw = world.admin("GET", &path, None, &[200]).await;
    assert_eq!((&raw[0]["original_author"], &raw[1]["created_at"]), (&"".into(), &future.into()));
    writer.comment(issue, "people go on here").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_renamed_onto_each_other_and_deleted_with_their_history() {
    let world = World::with("labels", no_lazarus()).await;
    let writer = world.writer();
    let issue = world.reader().open_issue("labels", "text").await;
    let (triage, approved) = (writer.create_label("triage").await, writer.create_label("lazarus/approved").await);
    writer.add_label_id(issue, triage).await;
    writer.delete_label(approved).await;
    writer.rename_label(triage, "lazarus/approved").await;
    let path = format!("/repos/{}/issues/{issue}/timeline", world.repository());
    let past = world.admin("GET", &path, None, &[200]).await;
    assert_eq!((&past[0]["type"], &past[0]["label"]["name"]), (&"label".into(), &"lazarus/approved".into()));
    writer.delete_label(triage).await;
    assert!(world.admin("GET", &path, None, &[200]).await.is_null(), "nothing is no list, on every server");
    world.finish().await;
}
