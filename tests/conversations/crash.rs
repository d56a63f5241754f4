//! Crash and time (threats 27, 29, 30, 32): whatever dies, nothing is lost and
//! nothing is done twice.

use std::time::Duration;

use crate::world::{Kind, World, WorldOptions, processes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_a_daemon_killed_at_any_moment_of_the_start_starts_the_cell_once() {
    // Different moments, and not equal parts: the steps are not equally long.
    for after in [0_u64, 5, 15, 40, 80, 150, 300, 700] {
        let mut world = World::with(&format!("killed-{after}"), WorldOptions::polled()).await;
        let issue = world.reader().open_issue("Killed", "at the start").await;
        let said = world.director().comment(issue, "/summon scribe").await;
        // The moment counts from the first sign of life or, at the latest, from half a second on.
        for _ in 0..10 {
            if !world.reactions(said).await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(after)).await;
        world.daemon().kill_9();
        world.daemon().start().await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["idle"]).await;
        world.director().comment(issue, "/close").await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        world.daemon().kill_9();
        world.daemon().start().await;
        world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        world.assert_settled(issue).await;
        assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1, "killed {after} ms after");
        assert_eq!(world.comments_of(issue, Kind::CloseLog).await.len(), 1, "killed {after} ms after");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_a_keeper_that_is_killed_downs_its_cell_and_leaves_nothing() {
    let mut world = World::new("keeper-killed").await;
    let issue = world.reader().open_issue("Keeper", "killed").await;
    for daemon_is_up in [true, false] {
        world.director().comment(issue, "/summon sleeper").await;
        let cell = world
            .wait_until("the new cell", issue, async || {
                let logs = world.comments_of(issue, Kind::SpawnLog).await;
                logs.last().map(crate::world::Comment::cell).filter(|c| world.live_cells().contains(c))
            })
            .await;
        world.wait_for_state(issue, &cell, &["active"]).await;
        if !daemon_is_up {
            world.daemon().kill_9();
        }
        let status = world.cli(&["status", &cell, "--json"]).json();
        let keeper = status["cell"]["pid"].as_i64().expect("the keeper's pid");
        let named = processes::naming(&world.needle(), &[])
            .into_iter()
            .any(|process| i64::from(process.pid) == keeper && process.command.contains("cell-launch"));
        let name = std::fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap();
        assert!(named && cell.starts_with(name.trim()), "{keeper} ({name}) is not the keeper of {cell}");
        processes::kill(i32::try_from(keeper).unwrap());
        if !daemon_is_up {
            world.daemon().start().await;
        }
        world.wait_for_state(issue, &cell, &["downed"]).await;
        assert!(sleepers(&world).is_empty(), "the kernel ends what was below it");
        world.director().comment(issue, "/close failed").await;
        world.wait_for_comment(issue, Kind::CloseLog, |log| log.cell() == cell).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_29_a_second_daemon_on_the_same_data_says_so_and_stops() {
    let mut world = World::new("second-daemon").await;
    let place = tempfile::tempdir().unwrap();
    let mut second = world.installation().clone();
    second.log = place.path().join("second.log");
    // Another port, so that it is the data directory which is taken.
    second.environment.push(("LAZARUS__WEBHOOK__LISTEN".into(), "127.0.0.1:0".into()));
    let mut daemon = crate::world::Daemon::new(second.clone());
    daemon.launch();
    let status = daemon.wait().await;
    let log = second.log_tail();
    assert!(!status.success(), "{log}");
    assert!(log.contains(&*world.data().to_string_lossy()), "it does not name the directory:\n{log}");
    assert!(world.daemon().is_ready().await, "the first goes on");
    let issue = world.reader().open_issue("Still here?", "?").await;
    let asked = world.reader().comment(issue, "/help").await;
    world.wait_for_reaction(issue, asked, "+1").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_daemon_killed_with_live_cells_adopts_them_and_starts_none_again() {
    let mut world = World::new("adoption").await;
    let mut missions = Vec::new();
    for number in 0..3 {
        let issue = world.reader().open_issue(&format!("Sleeper {number}"), "sleeps").await;
        world.director().comment(issue, "/summon sleeper").await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["active"]).await;
        missions.push((issue, cell));
    }
    let before = sleepers(&world);
    assert_eq!(before.len(), 3, "{before:?}");
    world.daemon().kill_9();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(sleepers(&world), before, "cells outlive the daemon");
    world.daemon().start().await;
    for (issue, cell) in &missions {
        world.wait_for_state(*issue, cell, &["active"]).await;
        world.assert_settled(*issue).await;
        assert_eq!(world.comments_of(*issue, Kind::SpawnLog).await.len(), 1);
    }
    assert_eq!(sleepers(&world), before, "adopted, and none started again");

    // An adopted cell is as much ours as before.
    let (issue, cell) = &missions[0];
    world.director().comment(*issue, "/close").await;
    world.wait_for_comment(*issue, Kind::CloseLog, |log| &log.cell() == cell).await;
    world
        .wait_until("the closed cell's agent to be gone", *issue, async || (sleepers(&world).len() == 2).then_some(()))
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_cell_that_ended_while_the_daemon_was_dead_is_settled_by_its_exit_record() {
    let napper = "[agents.napper]\ndescription = \"Sleeps a little\"\nargv = [\"sleep\", \"2\"]\nprompt = \"stdin\"\n";
    let mut world = World::with("exit-record", WorldOptions { config: napper.into(), ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Nap", "a little").await;
    world.director().comment(issue, "/summon napper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.daemon().kill_9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.daemon().start().await;
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

/// The process ids of the sleeping agents: they are asked for by what they
/// run, and counted only where they belong to this world.
fn sleepers(world: &World) -> Vec<i32> {
    let mut found: Vec<i32> = processes::naming(&world.needle(), &[])
        .into_iter()
        .filter(|process| process.command.trim() == "sleep 3600")
        .map(|process| process.pid)
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_30_a_ledger_that_was_tampered_with_is_found_out() {
    let mut world = World::new("tampered").await;
    let issue = world.reader().open_issue("For the record", "a few entries").await;
    world.director().comment(issue, "/summon scribe").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.assert_settled(issue).await;
    world.ledger_verify();
    world.daemon().stop().await;
    world.ledger_is_spoiled();

    let registry = world.data().join("registry.sqlite");
    let whole = std::fs::read(&registry).unwrap();
    let wal = registry.with_extension("sqlite-wal");
    let whole_wal = std::fs::read(&wal).ok();
    let restore = || {
        std::fs::write(&registry, &whole).unwrap();
        let _ = std::fs::remove_file(registry.with_extension("sqlite-shm"));
        match &whole_wal {
            Some(bytes) => std::fs::write(&wal, bytes).unwrap(),
            None => drop(std::fs::remove_file(&wal)),
        }
    };
    let open = || {
        let connection = rusqlite::Connection::open(&registry).unwrap();
        let mut triggers = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'").unwrap();
        let names: Vec<String> = triggers.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        drop(triggers);
        for name in names {
            connection.execute_batch(&format!("DROP TRIGGER \"{name}\"")).unwrap();
        }
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON").unwrap();
        connection
    };
    let probe = open();
    let key: String =
        probe.query_row("SELECT name FROM pragma_table_info('ledger') LIMIT 1", [], |row| row.get(0)).unwrap();
    let count: i64 = probe.query_row("SELECT count(*) FROM ledger", [], |row| row.get(0)).unwrap();
    assert!(count > 4, "{count} entries");
    let columns: Vec<String> = {
        let mut query = probe.prepare("SELECT name FROM pragma_table_info('ledger')").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    drop(probe);
    restore();

    // One byte of one column of one entry, each column in its turn.
    let middle = count / 2;
    for column in columns.iter().skip(1) {
        let connection = open();
        let changed = connection.execute(
            &format!(
                "UPDATE ledger SET \"{column}\" = CASE typeof(\"{column}\") \
                 WHEN 'text' THEN CASE WHEN \"{column}\" LIKE 'x%' THEN 'y' ELSE 'x' END || substr(\"{column}\", 2) \
                 WHEN 'blob' THEN CAST(x'ff00ff' || substr(\"{column}\", 4) AS BLOB) \
                 WHEN 'null' THEN 'x' ELSE \"{column}\" + 1 END \
                 WHERE \"{key}\" = (SELECT \"{key}\" FROM ledger ORDER BY \"{key}\" LIMIT 1 OFFSET {middle})"
            ),
            [],
        );
        drop(connection);
        if changed.is_ok_and(|rows| rows == 1) {
            for show in [&["ledger", "show"][..], &["ledger", "show", "--json"]] {
                let shown = world.cli(show);
                assert!(!shown.all().contains("panicked"), "a changed `{column}` makes it panic:\n{}", shown.all());
            }
            let output = world.cli(&["ledger", "verify"]);
            assert!(!output.status.success(), "a changed `{column}` was not seen:\n{}", output.all());
            let first_bad: i64 = middle + 1;
            assert!(output.all().contains(&first_bad.to_string()), "entry {first_bad} is not named:\n{}", output.all());
        }
        restore();
    }
    for (column, value) in [
        ("hash", "''"),
        ("hash", "'\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}'"),
        ("previous", "''"),
        ("at", "9223372036854775807"),
        ("actor", "'\u{1b}[2J'"),
    ] {
        let connection = open();
        connection
            .execute_batch(&format!("UPDATE ledger SET \"{column}\" = {value} WHERE \"{key}\" = {middle}"))
            .unwrap();
        drop(connection);
        let shown = world.cli(&["ledger", "show"]);
        assert!(!shown.all().contains("panicked"), "{column} = {value} makes it panic:\n{}", shown.all());
        assert!(!shown.all().contains('\u{1b}'), "a terminal escape is printed");
        assert!(!world.cli(&["ledger", "verify"]).status.success(), "{column} = {value} was not seen");
        restore();
    }
    // Removed, moved.
    for (what, sql) in [
        (
            "removed",
            format!(
                "DELETE FROM ledger WHERE \"{key}\" = (SELECT \"{key}\" FROM ledger ORDER BY \"{key}\" LIMIT 1 OFFSET {middle})"
            ),
        ),
        (
            "moved",
            format!(
                "UPDATE ledger SET \"{key}\" = -1 WHERE \"{key}\" = 2; UPDATE ledger SET \"{key}\" = 2 WHERE \"{key}\" = 3; UPDATE ledger SET \"{key}\" = 3 WHERE \"{key}\" = -1"
            ),
        ),
        (
            "tail cut",
            format!(
                "DELETE FROM ledger WHERE \"{key}\" > (SELECT \"{key}\" FROM ledger ORDER BY \"{key}\" LIMIT 1 OFFSET 1)"
            ),
        ),
    ] {
        let connection = open();
        connection.execute_batch(&sql).unwrap();
        drop(connection);
        let output = world.cli(&["ledger", "verify"]);
        assert!(!output.status.success(), "an entry {what}: not seen\n{}", output.all());
        restore();
    }
    let output = world.cli(&["ledger", "verify"]);
    assert!(output.status.success(), "put back as it was, it verifies:\n{}", output.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_30_a_registry_put_back_from_a_backup_is_seen_by_the_head_that_the_forge_holds() {
    let mut world = World::new("rolled-back").await;
    let issue = world.reader().open_issue("For the record", "a few entries").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    let registry = world.data().join("registry.sqlite");
    let backup = world.place().join("backup.sqlite");
    rusqlite::Connection::open(&registry)
        .unwrap()
        .execute_batch(&format!("VACUUM INTO '{}'", backup.display()))
        .unwrap();
    world.daemon().start().await;
    world.director().comment(issue, "/summon scribe").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    world.ledger_is_spoiled();
    for ending in ["sqlite", "sqlite-wal", "sqlite-shm"] {
        let _ = std::fs::remove_file(registry.with_extension(ending));
    }
    std::fs::copy(&backup, &registry).unwrap();
    let output = world.cli(&["ledger", "verify"]);
    assert!(!output.status.success(), "the roll-back was not seen:\n{}", output.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_what_was_prepared_for_a_cell_that_never_came_is_taken_away() {
    let mut world = World::new("prepared").await;
    let run = world.data().join("run");
    // Its directory, its launcher, and the control groups that it is in.
    let prepared = || {
        let names = std::fs::read_dir(&run).into_iter().flatten().flatten();
        let mut ahead = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".ahead-"));
        let path = ahead.next()?.path();
        let launcher: i32 = path.file_name()?.to_str()?.split('-').nth(1)?.parse().ok()?;
        let group: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join("group.json")).ok()?).ok()?;
        let groups: Vec<String> = serde_json::from_value(group["directories"].clone()).ok()?;
        Some((path, launcher, groups))
    };
    let issue = world.reader().open_issue("One", "alone").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    let (path, launcher, groups) = world.wait_until("what is prepared", issue, async || prepared()).await;
    // Nobody is left who could tidy up.
    processes::kill(launcher);
    world.daemon().kill_9();
    assert!(path.exists() && groups.iter().all(|group| std::path::Path::new(group).exists()), "{path:?} {groups:?}");
    world.daemon().start().await;
    // What was prepared ends a moment after its launcher, on a busy machine after the daemon's start.
    world
        .wait_until("what was prepared is taken away", issue, async || {
            let left = path.exists() || groups.iter().any(|group| std::path::Path::new(group).exists());
            (!left).then_some(())
        })
        .await;
    assert_eq!(sleepers(&world).len(), 1, "the cell goes on");
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}
