//! The lifecycle as people steer it (contract §4, §5, §7): pause, extend,
//! revive, resurrect, invitations, deadlines.

use std::time::Duration;

use crate::world::{Kind, Proposal, World, processes};

/// A director's summon; returns the issue and the cell, which is in `state`.
async fn summoned(world: &World, command: &str, state: &str) -> (i64, String) {
    let issue = world.reader().open_issue(command, "As said.").await;
    world.director().comment(issue, command).await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &[state]).await;
    (issue, cell)
}

/// Says something as the director and waits for 👍 or 😕.
async fn directs(world: &World, issue: i64, command: &str, reaction: &str) {
    let comment = world.director().comment(issue, command).await;
    world.wait_for_reaction(issue, comment, reaction).await;
}

/// Whether the world's sleeping agents are stopped, by what `/proc` says.
fn sleepers_are_stopped(world: &World) -> bool {
    let sleepers: Vec<_> = processes::naming(&world.needle(), &[])
        .into_iter()
        .filter(|process| process.command.trim() == "sleep 3600")
        .collect();
    !sleepers.is_empty()
        && sleepers.iter().all(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cell_is_frozen_and_goes_on_where_it_was() {
    let mut world = World::new("pause").await;
    let (issue, cell) = summoned(&world, "/summon sleeper", "active").await;
    directs(&world, issue, "/pause", "+1").await;
    world.wait_for_state(issue, &cell, &["paused"]).await;
    world.wait_until("the agent to be stopped", issue, async || sleepers_are_stopped(&world).then_some(())).await;
    directs(&world, issue, "/pause", "confused").await;
    world.daemon().restart().await;
    assert!(sleepers_are_stopped(&world), "a restart does not thaw it");
    directs(&world, issue, "/resume", "+1").await;
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.wait_until("the agent to go on", issue, async || (!sleepers_are_stopped(&world)).then_some(())).await;
    // A frozen cell is closed like any other.
    directs(&world, issue, "/pause", "+1").await;
    world.wait_for_state(issue, &cell, &["paused"]).await;
    directs(&world, issue, "/close abandoned", "+1").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_live_that_is_over_closes_the_cell_as_expired() {
    let world = World::new("expired").await;
    let (issue, _) = summoned(&world, "/summon sleeper ttl=4s", "active").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["expired"]), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passed_while_the_daemon_was_down_is_honoured_at_start() {
    let mut world = World::new("expired-down").await;
    let (issue, cell) = summoned(&world, "/summon sleeper ttl=4s", "active").await;
    world.daemon().kill_9();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!processes::naming(&world.needle(), &[]).is_empty(), "nobody closes it but the daemon");
    world.daemon().start().await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["expired"]), "{}", log.body);
    assert_eq!(log.cell(), cell);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extended_cell_lives_longer_but_not_longer_than_policy_allows() {
    let world = World::new("extended").await;
    let (issue, cell) = summoned(&world, "/summon sleeper ttl=6s", "active").await;
    directs(&world, issue, "/extend 1h", "+1").await;
    directs(&world, issue, "/extend 48h", "confused").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("active"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agent_is_revived_in_the_same_cell() {
    let world = World::new("revived").await;
    let (issue, cell) = summoned(&world, "/team crasher+sleeper", "downed").await;
    directs(&world, issue, "/revive crasher", "+1").await;
    // It crashes again, and is asked about again.
    world
        .wait_until("the second question", issue, async || {
            (world.comments_of(issue, Kind::Question).await.len() >= 2).then_some(())
        })
        .await;
    world.wait_for_state(issue, &cell, &["downed"]).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1, "the same cell, not another");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_nothing_is_revived_on_an_edited_or_a_closed_mission() {
    let world = World::new("no-revival").await;
    let (issue, cell) = summoned(&world, "/summon crasher", "downed").await;
    world.reader().edit_issue(issue, "Something else altogether.").await;
    world.wait_for_comment(issue, Kind::Warning, |warning| warning.says(&["void"])).await;
    directs(&world, issue, "/revive", "confused").await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("downed"));
    let (issue, cell) = summoned(&world, "/summon crasher", "downed").await;
    world.director().close_issue(issue).await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    directs(&world, issue, "/revive", "confused").await;
    directs(&world, issue, &format!("/resurrect {cell}"), "confused").await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("closed"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_cell_is_resurrected_with_its_work_within_the_grace_period() {
    let world = World::new("resurrected").await;
    let (issue, cell) = summoned(&world, "/summon scribe", "idle").await;
    directs(&world, issue, "/close", "+1").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    let before = world.file_of_cell(&cell, "project/notes/lazarus-mission.md").expect("the scribe's file");
    directs(&world, issue, "/resurrect", "+1").await;
    world.wait_for_state(issue, &cell, &["idle", "active"]).await;
    assert_eq!(world.file_of_cell(&cell, "project/notes/lazarus-mission.md").as_deref(), Some(before.as_str()));
    directs(&world, issue, "/close", "+1").await;
    world
        .wait_until("the second close log", issue, async || {
            (world.comments_of(issue, Kind::CloseLog).await.len() == 2).then_some(())
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_for_the_invited_person_alone_and_can_be_taken_back() {
    let world = World::new("invitation").await;
    let (issue, cell) = summoned(&world, "/summon sleeper", "active").await;
    directs(&world, issue, &format!("/invite human:{} observer", world.reader().login), "+1").await;
    let wrong = world.writer().comment(issue, "/accept").await;
    world.wait_for_reaction(issue, wrong, "confused").await;
    directs(&world, issue, &format!("/revoke human:{}", world.reader().login), "+1").await;
    let late = world.reader().comment(issue, "/accept").await;
    world.wait_for_reaction(issue, late, "confused").await;
    // One identity, one role: again only after a new invitation.
    directs(&world, issue, &format!("/invite human:{} observer", world.reader().login), "+1").await;
    let now = world.reader().comment(issue, &format!("/accept {cell}")).await;
    world.wait_for_reaction(issue, now, "+1").await;
    directs(&world, issue, &format!("/invite human:{} executor", world.reader().login), "confused").await;
    // What policy does not allow, and who does not exist.
    directs(&world, issue, &format!("/invite human:{} guest", world.writer().login), "confused").await;
    directs(&world, issue, "/invite agent:scribe substitute", "confused").await;
    directs(&world, issue, "/invite human:nobody-of-that-name observer", "confused").await;
    directs(&world, issue, "/invite agent:nosuchagent executor", "confused").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_joins_a_running_cell_and_leaves_it() {
    let world = World::new("joins").await;
    let (issue, cell) = summoned(&world, "/summon scribe", "idle").await;
    directs(&world, issue, "/invite agent:sleeper executor", "+1").await;
    world.wait_for_state(issue, &cell, &["active"]).await;
    world
        .wait_until("the agent to run", issue, async || {
            processes::naming(&world.needle(), &[]).iter().any(|p| p.command.trim() == "sleep 3600").then_some(())
        })
        .await;
    directs(&world, issue, "/revoke agent:sleeper", "+1").await;
    world
        .wait_until("the agent to be gone", issue, async || {
            (!processes::naming(&world.needle(), &[]).iter().any(|p| p.command.trim() == "sleep 3600")).then_some(())
        })
        .await;
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_live_cells_are_listed_when_it_is_not_clear_which_is_meant() {
    let world = World::new("which").await;
    let (issue, one) = summoned(&world, "/summon sleeper", "active").await;
    world.director().comment(issue, "/summon sleeper").await;
    let other = world.wait_for_comment(issue, Kind::SpawnLog, |log| log.cell() != one).await.cell();
    world.wait_for_state(issue, &other, &["active"]).await;
    directs(&world, issue, "/close", "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&[&one, &other])).await;
    directs(&world, issue, &format!("/destroy {one}"), "+1").await;
    world.wait_for_state(issue, &one, &["destroyed"]).await;
    directs(&world, issue, "/close", "+1").await;
    world.wait_for_comment(issue, Kind::CloseLog, |log| log.cell() == other).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_mission_is_in_the_ledger_with_who_did_it() {
    let world = World::new("ledger").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.director().comment(issue, "/approve").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    directs(&world, issue, &format!("/invite human:{} observer", world.reader().login), "+1").await;
    let accepted = world.reader().comment(issue, "/accept").await;
    world.wait_for_reaction(issue, accepted, "+1").await;
    directs(&world, issue, "/decide We keep it simple.", "+1").await;
    directs(&world, issue, "/close completed", "+1").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    directs(&world, issue, &format!("/destroy {cell}"), "+1").await;
    world.wait_for_state(issue, &cell, &["destroyed"]).await;
    let ledger = world.ledger();
    let mut from = 0;
    for step in [
        "proposed",
        "approved",
        "preparing",
        "started",
        "agent_ended",
        "invited",
        "accepted",
        "decided",
        "closing",
        "closed",
        "destroyed",
    ] {
        match ledger[from..].find(&format!("\"{step}\"")) {
            Some(at) => from += at,
            None => {
                panic!("`{step}` is not in the ledger, or not after the steps before it:\n{ledger}")
            }
        }
    }
    for who in [world.reader(), world.director()] {
        assert!(ledger.contains(&who.login), "{} is not named:\n{ledger}", who.login);
    }
    assert!(ledger.contains("We keep it simple."));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cell_leaves_on_disk_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new("rights").await;
    let (issue, cell) = summoned(&world, "/summon scribe", "idle").await;
    directs(&world, issue, "/close", "+1").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    for path in [world.data(), world.data().join("graveyard"), world.data().join("graveyard").join(&cell)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o066, 0, "{} is {mode:o}", path.display());
    }
    let registry = std::fs::metadata(world.data().join("registry.sqlite")).unwrap().permissions().mode() & 0o777;
    assert_eq!(registry & 0o077, 0, "the registry is {registry:o}");
    world.finish().await;
}
