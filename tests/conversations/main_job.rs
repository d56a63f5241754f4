//! The main job: a proposal becomes a cell, and the thread shows it.

use crate::world::{Kind, Proposal, World, WorldOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_becomes_a_cell_that_works_and_the_thread_shows_it() {
    let world = World::new("main-job").await;
    let (director, reader) = (world.director(), world.reader());
    let proposal = Proposal::for_agents("scribe").objective("Write `notes/why.md`.\nIt says what the widget is for.");
    let issue = reader.open_proposal(&proposal).await;
    world.assert_no_cell(issue).await;

    let approval = director.comment(issue, "/approve").await;
    world.wait_for_reaction(issue, approval, "eyes").await;
    world.wait_for_reaction(issue, approval, "+1").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    let cell = spawned.cell();
    assert!(cell.starts_with("laz-"), "{cell}");
    assert!(
        spawned.says(&[&reader.login, &director.login, "scribe", "executor", "process", "level_", "ledger"]),
        "the spawn log tells who asked, who approved, participants and roles, backend, isolation, ledger position:\n{}",
        spawned.body
    );

    // The agent ends well by itself; the cell waits for the next instruction.
    world.wait_for_state(issue, &cell, &["idle"]).await;

    let asked = reader.comment(issue, "/status").await;
    world.wait_for_reaction(issue, asked, "+1").await;
    world.wait_for_comment(issue, Kind::Status, |status| status.says(&[&cell, "idle"])).await;

    let invited = director.comment(issue, &format!("/invite human:{} observer", reader.login)).await;
    world.wait_for_reaction(issue, invited, "+1").await;
    let accepted = reader.comment(issue, "/accept").await;
    world.wait_for_reaction(issue, accepted, "+1").await;

    let closed = director.comment(issue, "/close completed the note is written").await;
    world.wait_for_reaction(issue, closed, "+1").await;
    let close_log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert_eq!(close_log.cell(), cell);
    assert!(
        close_log.says(&["completed", "notes/why.md", "scribe", "ledger"]),
        "the close log tells outcome, files touched, exits, ledger head:\n{}",
        close_log.body
    );

    let kept = world.file_of_cell(&cell, "project/notes/why.md").expect("the scribe's file is in the closed cell");
    assert!(kept.contains("tidy the parser"), "it read its mission:\n{kept}");

    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    assert_eq!(world.comments_of(issue, Kind::CloseLog).await.len(), 1);
    assert!(world.live_cells().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directors_summon_on_any_issue_is_proposal_and_approval_in_one() {
    let world = World::new("summon").await;
    let issue = world.reader().open_issue("The parser is slow", "It takes a minute.").await;
    let summon = world.director().comment(issue, "Let us see.\n\n/summon scribe").await;
    world.wait_for_reaction(issue, summon, "eyes").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_reaction(issue, summon, "+1").await;
    world.wait_for_state(issue, &spawned.cell(), &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |log| log.cell() == spawned.cell()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_approves_by_adding_the_label() {
    let world = World::new("label").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.assert_no_cell(issue).await;
    world.director().add_label(issue, "lazarus/approved").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert!(spawned.says(&[&world.director().login]), "the spawn log names who approved:\n{}", spawned.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_one_cell_in_which_each_agent_has_its_own_process() {
    let world = World::new("team").await;
    let issue = world.reader().open_issue("Two of you", "Please.").await;
    world.director().comment(issue, "/team sleeper+scribe").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert!(spawned.says(&["sleeper", "scribe"]), "{}", spawned.body);
    // One executor has ended, the other has not: the cell stays active.
    world.wait_for_state(issue, &spawned.cell(), &["active"]).await;
    assert_eq!(world.live_cells(), [spawned.cell()]);
    world.director().comment(issue, "/close abandoned enough").await;
    let close_log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(close_log.says(&["abandoned", "sleeper", "scribe"]), "{}", close_log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_issue_closes_its_cells_and_reopening_starts_nothing() {
    let world = World::new("issue-closed").await;
    let issue = world.reader().open_issue("Sleep", "For a while.").await;
    world.director().comment(issue, "/summon sleeper").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_state(issue, &spawned.cell(), &["active"]).await;
    world.director().close_issue(issue).await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.director().reopen_issue(issue).await;
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    assert!(world.live_cells().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_issue_takes_its_cells_with_it() {
    let world = World::with("issue-deleted", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Sleep", "For a while.").await;
    world.director().comment(issue, "/summon sleeper").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_state(issue, &spawned.cell(), &["active"]).await;
    let elsewhere = world.reader().open_issue("To look at", "while the other goes").await;
    world.director().delete_issue(issue).await;
    world.wait_for_state(elsewhere, &spawned.cell(), &["closed", "archived", "destroyed"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unparsable_proposal_gets_one_comment_that_names_each_field() {
    let world = World::new("unparsable").await;
    let mut proposal = Proposal::for_agents("scribe+nosuchagent");
    proposal.backend = Some("toaster".into());
    proposal.isolation = Some("level_9".into());
    proposal.ttl = Some("soon".into());
    let issue = world.reader().open_proposal(&proposal).await;
    let names_all = ["nosuchagent", "Backend", "Isolation level", "Time to live"];
    world
        .wait_for_any(issue, &[Kind::Refusal, Kind::Question, Kind::Warning, Kind::Answer], |comment| {
            comment.says(&names_all)
        })
        .await;
    world.assert_settled(issue).await;
    assert_eq!(world.bot_comments(issue).await.len(), 1, "one comment, not one a field");
    world.director().comment(issue, "/approve").await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_proposal_stays_rejected() {
    let world = World::new("rejected").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    let rejected = world.director().comment(issue, "/reject not now").await;
    world.wait_for_reaction(issue, rejected, "+1").await;
    let late = world.director().comment(issue, "/approve").await;
    world.wait_for_reaction(issue, late, "confused").await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_who_can_comment_gets_help_and_the_one_status_comment() {
    let world = World::new("help").await;
    let issue = world.reader().open_issue("What is this", "?").await;
    let help = world.stranger().comment(issue, "/help").await;
    world.wait_for_reaction(issue, help, "+1").await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["/summon", "/approve", "/close"])).await;
    for _ in 0..3 {
        let asked = world.stranger().comment(issue, "/status").await;
        world.wait_for_reaction(issue, asked, "+1").await;
    }
    world.assert_settled(issue).await;
    assert!(world.comments_of(issue, Kind::Status).await.len() <= 1, "{}", world.evidence(issue).await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_is_asked_back_and_an_unknown_word_is_left_alone() {
    let world = World::new("slip").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.wait_for_comment(issue, Kind::Status, |_| true).await;
    let slip = world.director().comment(issue, "/sumon scribe").await;
    world
        .wait_for_any(issue, &[Kind::Answer, Kind::Question, Kind::Refusal], |comment| {
            comment.says(&["did you mean", "/summon"])
        })
        .await;
    world.wait_for_reaction(issue, slip, "confused").await;
    let said = world.bot_comments(issue).await.len();
    let other = world.director().comment(issue, "/usr/bin/env is a path\n/shrug").await;
    world.assert_settled(issue).await;
    assert_eq!(world.bot_comments(issue).await.len(), said);
    assert!(world.reactions(other).await.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_arguments_are_answered_with_what_is_allowed() {
    let world = World::new("bad-arguments").await;
    let issue = world.reader().open_issue("Bad arguments", "follow").await;
    let cases: &[(&str, &[&str])] = &[
        ("/summon nosuchagent", &["nosuchagent", "scribe"]),
        ("/summon scribe isolation=level_9", &["isolation", "level_2"]),
        ("/summon scribe ttl=soon", &["ttl", "soon"]),
        ("/summon scribe colour=red", &["colour", "backend"]),
        ("/extend never", &["never"]),
        ("/vote maybe", &["yes", "no"]),
    ];
    for (command, words) in cases {
        let comment = world.director().comment(issue, command).await;
        world.wait_for_reaction(issue, comment, "confused").await;
        world.wait_for_any(issue, &[Kind::Refusal, Kind::Answer, Kind::Question], |answer| answer.says(words)).await;
    }
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_badly_downs_its_cell_and_the_close_log_says_how() {
    let world = World::new("crasher").await;
    let issue = world.reader().open_issue("Crash", "please").await;
    world.director().comment(issue, "/summon crasher").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_state(issue, &spawned.cell(), &["downed"]).await;
    world.director().comment(issue, "/close failed it crashes").await;
    let close_log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(close_log.says(&["failed", "crasher", "3"]), "{}", close_log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_sees_its_own_cell_and_no_secret_of_the_host() {
    let world = World::new("looker").await;
    let issue = world.reader().open_issue("Look around", "and write it down").await;
    world.director().comment(issue, "/summon looker").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.wait_for_state(issue, &spawned.cell(), &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    let seen = world.file_of_cell(&spawned.cell(), "project/seen.txt").expect("the agent wrote down what it saw");
    assert!(seen.contains("HOME="), "the agent did look: {seen}");
    for secret in [world.canary(), world.webhook_secret(), "CANARY_SECRET", "LAZARUS_CONFIG"] {
        assert!(!seen.contains(secret), "`{secret}` can be seen from inside the cell:\n{seen}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_agents_end_is_not_lost() {
    let world = World::new("quick").await;
    for (command, state) in [
        ("/summon quick", "idle"),
        ("/team quick+scribe", "idle"),
        ("/team crasher+scribe", "downed"),
        ("/team quick+sleeper", "active"),
    ] {
        let issue = world.reader().open_issue(command, "Be quick.").await;
        world.director().comment(issue, command).await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &[state]).await;
        world.assert_settled(issue).await;
        assert_eq!(world.cell_state(&cell).as_deref(), Some(state), "{command}");
    }
    world.finish().await;
}
