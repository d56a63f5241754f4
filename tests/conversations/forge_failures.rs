//! What passes is waited for, what lasts is answered: no command and no mission
//! ends because the forge had a bad moment, and none ends without a word
//! (contract §6; found C1 to C7, H5, H9, H17).

use serde_json::{Value, json};

use crate::world::{Kind, Proposal, World, WorldOptions};

/// A world in which patience is short, so that a test sees its end.
async fn hasty(name: &str, environment: &[(&'static str, &'static str)]) -> World {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    World::with(name, WorldOptions { reconcile: "1s", environment, ..WorldOptions::default() }).await
}

/// Refuses what the bot, or git, asks for. (Of a public repository git asks
/// without a name.)
fn refuse(world: &World, on: &str, method: &str, path: &str, status: u16, times: Option<u32>) -> Value {
    let who = (on == "api").then(|| world.bot().login.clone());
    json!({"on": on, "method": method, "path": path, "who": who, "times": times, "do": "refuse", "status": status})
}

async fn fault(world: &World, fault: Value) {
    world.misbehave(json!({"api": [fault]})).await;
}

/// How often the bot was answered so on a path.
fn hits(world: &World, path: &str, status: u16) -> usize {
    let requests = world.server().stand_in().expect("the stand-in").requests();
    requests.iter().filter(|r| r.status == status && r.path.contains(path)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_outlasts_a_forge_that_restarts_behind_its_proxy() {
    let world = World::new("restarting").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Restart", "in the middle").await;
    let comments = "/issues/(comments/[0-9]+|[0-9]+/comments)$";
    fault(&world, refuse(&world, "api", "GET", comments, 503, None)).await;
    world.director().comment(issue, "/summon scribe").await;
    // The sixth attempt, of three tries each, after more than 16 seconds.
    world
        .wait_until("the forge to have failed for long", issue, async || {
            (hits(&world, "/issues/comments/", 503) > 15).then_some(())
        })
        .await;
    world.behave().await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_an_account_that_is_gone_is_answered() {
    let world = World::new("ghost").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Ghost", "writer").await;
    let gone = world.make_person(&format!("gone-{}", world.owner()), &["write:issue"]).await;
    world.set_permission(&gone.login, "admin").await;
    // Heard, and the account is deleted before it is acted on.
    fault(&world, refuse(&world, "api", "GET", "/issues/comments/[0-9]+$", 503, Some(6))).await;
    let said = gone.comment(issue, "/summon scribe").await;
    world.wait_for_reaction(issue, said, "eyes").await;
    world.admin("DELETE", &format!("/admin/users/{}", gone.login), None, &[204]).await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["account that wrote this is gone"])).await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_is_answered_when_one_names_an_account_that_was_renamed() {
    let world = World::new("renamed-line").await;
    let issue = world.reader().open_issue("Lines", "by themselves").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    let former = format!("ren-{}", world.owner());
    world.make_person(&former, &["write:issue"]).await;
    world.rename_account(&former, &format!("{former}-2")).await;
    let said = world.director().comment(issue, &format!("/pause\n/invite human:{former} observer")).await;
    world.wait_for_state(issue, &cell, &["paused"]).await;
    let answer = world
        .wait_for_any(issue, &[Kind::Answer, Kind::Refusal], |answer| {
            answer.says(&["is frozen", &format!("the forge knows no account `{former}`")])
        })
        .await;
    assert!(answer.says(&["new name"]), "{}", answer.body);
    world.wait_for_reaction(issue, said, "confused").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_404_does_not_end_a_mission_and_a_deletion_is_undone_when_the_issue_shows_again() {
    let environment = [("LAZARUS__FORGE__GONE_AFTER", "3s"), ("LAZARUS__RECONCILE__OVERLAP", "1s")];
    let world = hasty("deleted-or-not", &environment).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Here", "and there").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.assert_settled(issue).await;
    // Times on the forge are in whole seconds: from here on lists do not show it.
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    let other = world.reader().open_issue("Newer", "than the mission").await;
    world.assert_settled(other).await;

    let path = format!("/issues/{issue}");
    fault(&world, refuse(&world, "api", "GET", &format!("{path}$"), 404, Some(2))).await;
    world
        .wait_until("the look that does not find it", issue, async || (hits(&world, &path, 404) == 2).then_some(()))
        .await;
    let asked = world.reader().comment(issue, "/status").await;
    world.wait_for_reaction(issue, asked, "+1").await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("active"));
    world.assert_settled(issue).await;
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    world.reader().comment(other, "newer still").await;

    fault(&world, refuse(&world, "api", "GET", &format!("{path}$"), 404, None)).await;
    world.wait_for_state(issue, &cell, &["closed"]).await;
    assert!(world.ledger().contains("issue_deleted"));
    world.behave().await;
    // Nobody has to say anything for it to be noticed.
    world.wait_for_comment(issue, Kind::Warning, |warning| warning.says(&["commands work again", &cell])).await;
    world.wait_for_comment(issue, Kind::CloseLog, |log| log.cell() == cell).await;
    assert!(world.ledger().contains("issue_restored"));
    world.director().comment(issue, "/summon scribe").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |log| log.cell() != cell).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_forge_that_is_away_and_says_so_if_it_takes_long() {
    let world = hasty("away-at-start", &[("LAZARUS__FORGE__NOTICE_AFTER", "2s")]).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    for (status, times) in [(502, 1), (403, 1), (408, 1), (429, 1), (404, 1), (301, 1)] {
        let issue = world.reader().open_issue(&format!("{status}"), "once").await;
        fault(&world, refuse(&world, "git", "GET", "info/refs", status, Some(times))).await;
        world.director().comment(issue, "/summon scribe").await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["idle"]).await;
        assert!(world.cli(&["destroy", &cell]).status.success());
        world.behave().await;
    }
    // Away for about 8 seconds between approval and clone.
    let issue = world.reader().open_issue("Away", "for a while").await;
    fault(&world, refuse(&world, "git", "GET", "info/refs", 502, Some(8))).await;
    world.director().comment(issue, "/summon scribe").await;
    world.wait_for_comment(issue, Kind::Warning, |warning| warning.says(&["is waiting for the forge"])).await;
    assert!(world.cli(&["doctor"]).all().contains("tried again"));
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.assert_settled(issue).await;
    let told = world.comments_of(issue, Kind::Warning).await;
    assert_eq!(told.iter().filter(|told| told.says(&["is waiting"])).count(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_waits_for_the_forge_and_the_close_log_does_not_wait_for_long() {
    let world = hasty("push-waits", &[("LAZARUS__FORGE__NOTICE_AFTER", "2s")]).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    for status in [429, 403, 502] {
        let issue = world.reader().open_issue(&format!("Push {status}"), "once").await;
        world.director().comment(issue, "/summon scribe").await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["idle"]).await;
        fault(&world, refuse(&world, "git", "GET", "git-receive-pack", status, Some(1))).await;
        world.director().comment(issue, "/close").await;
        let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        assert!(log.says(&["pull request"]), "{}", log.body);
        world.behave().await;
    }
    let issue = world.reader().open_issue("Push", "much later").await;
    world.director().comment(issue, "/summon scribe").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    fault(&world, refuse(&world, "git", "GET", "git-receive-pack", 403, None)).await;
    world.director().comment(issue, "/close").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["not yet", "403"]), "{}", log.body);
    world.behave().await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["is on branch", &cell])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_longer_than_patience_is_answered_line_by_line() {
    let world = hasty("impatient", &[("LAZARUS__FORGE__PATIENCE", "3s")]).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Impatience", "is answered").await;
    fault(&world, refuse(&world, "api", "GET", "/permission$", 500, None)).await;
    let said = world.director().comment(issue, "/summon scribe\n/pause\n/help").await;
    let refusal =
        world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["`/summon` was not carried out"])).await;
    for words in ["`/pause` was not carried out", "`/help` was not carried out", "500", "Give the command again"] {
        assert!(refusal.says(&[words]), "{words} is not in\n{}", refusal.body);
    }
    world.wait_for_reaction(issue, said, "confused").await;
    world.assert_no_cell(issue).await;
    assert_eq!(world.comments_of(issue, Kind::Refusal).await.len(), 1, "{}", world.evidence(issue).await);
    assert!(world.ledger().contains("\"refused\""), "{}", world.ledger());
    world.behave().await;

    // A start that cannot be made in that time ends its cell, with a log that says so.
    fault(&world, refuse(&world, "git", "GET", "info/refs", 502, None)).await;
    world.director().comment(issue, "/summon scribe").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["502", "tried for"]), "{}", log.body);
    world.behave().await;
    world.director().comment(issue, "/summon scribe").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_object_on_somebodys_branch_stops_no_start() {
    let world = World::new("bad-branch").await;
    let place = tempfile::tempdir().unwrap();
    let clone = place.path().join("clone");
    let git = |directory: &std::path::Path, arguments: &[&str], input: &str| {
        use std::io::Write as _;
        let mut child = std::process::Command::new("git")
            .current_dir(directory)
            .args(["-c", "user.name=ben", "-c", "user.email=ben@example.invalid"])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let url = world.server().url().replace("://", &format!("://{}:{}@", world.writer().login, world.writer().token()));
    let url = format!("{url}/{}.git", world.repository());
    git(place.path(), &["clone", "--quiet", &url, "clone"], "");
    // A history that is odd and harms nobody, on the base branch itself.
    let tree = git(&clone, &["rev-parse", "HEAD^{tree}"], "");
    let head = git(&clone, &["rev-parse", "HEAD"], "");
    let mut odd = head;
    for author in ["ben <> 1 +0000", "ben <ben@example.invalid> 0001 +0000", "ben <ben> 99999999999999999999 +0000"] {
        let commit = format!("tree {tree}\nparent {odd}\nauthor {author}\ncommitter {author}\n\nodd\n");
        odd = git(&clone, &["hash-object", "-t", "commit", "-w", "--literally", "--stdin"], &commit);
    }
    git(&clone, &["push", "--quiet", "origin", &format!("{odd}:refs/heads/main")], "");
    // A tree with an entry twice, on a branch of ben's.
    let blob = git(&clone, &["hash-object", "-w", "--stdin"], "x");
    let twice = git(&clone, &["mktree"], &format!("100644 blob {blob}\ta\n100644 blob {blob}\ta\n"));
    let commit = git(&clone, &["commit-tree", &twice, "-m", "twice"], "");
    git(&clone, &["push", "--quiet", "origin", &format!("{commit}:refs/heads/bad/ben")], "");

    for _ in 0..2 {
        let issue = world.reader().open_issue("Start", "all the same").await;
        world.director().comment(issue, "/summon scribe").await;
        let log = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
        assert!(log.says(&[&odd]), "{}", log.body);
        world.wait_for_state(issue, &log.cell(), &["idle"]).await;
    }
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.all().contains("bad/ben") && doctor.all().contains("left out"), "{}", doctor.all());
    // Once the branch is mended it is fetched again.
    git(&clone, &["push", "--quiet", "--force", "origin", &format!("{odd}:refs/heads/bad/ben")], "");
    let issue = world.reader().open_issue("Start", "again").await;
    world.director().comment(issue, "/summon scribe").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert!(!world.cli(&["doctor"]).all().contains("bad/ben"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_that_is_too_large_for_the_forge_leaves_no_comment_that_says_otherwise() {
    let world = World::new("too-much").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.director().comment(issue, "/approve").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/decide keep it short").await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["on record"])).await;
    fault(&world, refuse(&world, "api", "POST", "/assets", 413, None)).await;
    world.director().comment(issue, "/publish decisions").await;
    let refusal = world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["413"])).await;
    assert!(refusal.says(&["client_max_body_size"]), "{}", refusal.body);
    world.assert_settled(issue).await;
    let attached = world.bot_comments(issue).await.into_iter().filter(|comment| comment.says(&["attached"])).count();
    assert_eq!(attached, 0, "{}", world.evidence(issue).await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_reactions_are_switched_off_the_answer_is_given_in_words() {
    let world = World::new("no-reactions").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Words", "instead").await;
    fault(&world, refuse(&world, "api", "POST", "/reactions$", 403, None)).await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.assert_settled(issue).await;
    let before = world.comments_of(issue, Kind::Answer).await.len();
    world.director().comment(issue, "/tell sleeper wake up").await;
    world
        .wait_until("an answer in words", issue, async || {
            let answers = world.comments_of(issue, Kind::Answer).await;
            (answers.len() == before + 1 && answers.last()?.says(&["Done."])).then_some(())
        })
        .await;
    world.finish().await;
}
