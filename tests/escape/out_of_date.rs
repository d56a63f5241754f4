//! Threat line 44: what this machine replaces while the daemon runs, as root and as an ordinary user.

use crate::host_fixture::{HostFixture, directory};
use crate::isolated_run;
use crate::table::summon;
use crate::world::{Kind, World, WorldOptions};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Waits until something waits for the next cell.
async fn ahead(world: &World, issue: i64) {
    let run = world.data().join("run");
    world
        .wait_until("what waits for the next cell", issue, async || {
            let mut entries = fs::read_dir(&run).ok()?.flatten();
            let ahead = entries.find(|e| e.file_name().to_string_lossy().starts_with(".ahead-"))?;
            ahead.path().join("group.json").exists().then_some(())
        })
        .await;
}

/// A new file in the place of an old one, as package managers put it there.
fn replace(path: &Path, text: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_44 runs it in a run of its own"]
async fn files_of_the_system_are_replaced() {
    let etc = isolated_run::etc().expect("the stage has an /etc of its own");
    let config = "[agents.reader]\ndescription = \"Reads what it is shown\"\nprompt = \"stdin\"\n\
                  argv = [\"sh\", \"-c\", \"cat /etc/mime.types > $HOME/new; mv $HOME/new $HOME/read; exec sleep 3600\"]\n";
    let world = World::with("out-of-date", WorldOptions { config: config.to_owned(), ..WorldOptions::default() }).await;
    replace(&etc.join("mime.types"), b"the first\n");
    let (mut issue, _) = summon(&world, "/summon reader").await;
    for round in ["a file", "a file that was not there", "a directory", "what a link leads to", "everything at once"] {
        ahead(&world, issue).await;
        let text = format!("{round}\n");
        let all = round == "everything at once";
        if all || round == "a file" {
            let cache = fs::read(etc.join("ld.so.cache")).unwrap();
            replace(&etc.join("ld.so.cache"), &cache);
        }
        if all || round == "a file that was not there" {
            let _ = fs::remove_file(etc.join("timezone"));
            fs::write(etc.join("timezone"), "Etc/UTC\n").unwrap();
        }
        if all || round == "a directory" {
            fs::rename(etc.join("alternatives"), etc.join("alternatives.old")).unwrap();
            fs::create_dir(etc.join("alternatives")).unwrap();
            fs::remove_dir_all(etc.join("alternatives.old")).unwrap();
        }
        if all || round == "what a link leads to" {
            let _ = fs::remove_file(etc.join("localtime"));
            fs::write(etc.join(format!("zone-{}", text.len())), &text).unwrap();
            symlink(format!("zone-{}", text.len()), etc.join("localtime")).unwrap();
        }
        replace(&etc.join("mime.types"), text.as_bytes());
        issue = world.reader().open_issue(round, "Please.").await;
        world.director().comment(issue, "/summon reader").await;
        let log = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
        assert!(log.is(Kind::SpawnLog), "after {round} was replaced: {}\n{}", log.body, world.evidence(issue).await);
        let read = world.data().join("cells").join(log.cell()).join("home/reader/read");
        let seen = world.wait_until("what it reads", issue, async || fs::read_to_string(&read).ok()).await;
        assert_eq!(seen, text, "the cell sees what was there before {round} was replaced");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_44 runs it in a run of its own"]
async fn a_full_disk_delays_a_start() {
    let fixture = HostFixture::new();
    let disk = fixture.place.join("disk");
    directory(&disk, 0o700);
    let mount = |words: &[&str]| {
        let status = Command::new("mount").args(words).arg(&disk).status();
        assert!(status.is_ok_and(|status| status.success()), "mount {words:?}");
    };
    // Room for its own directory, and for no other.
    mount(&["-t", "tmpfs", "-o", "nr_inodes=2,mode=700", "none"]);
    let mut world = World::with("full-disk", WorldOptions { start: false, ..WorldOptions::default() }).await;
    directory(&world.data(), 0o700);
    symlink(&disk, world.data().join("run")).unwrap();
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    world.daemon().start().await;
    let issue = world.reader().open_issue("On a full disk", "Please.").await;
    world.director().comment(issue, "/summon sleeper").await;
    let log = world.installation().log.clone();
    world
        .wait_until("a start that is tried again", issue, async || {
            let log = fs::read_to_string(&log).unwrap();
            (log.contains("an effect is tried again") && log.contains("No space left on device")).then_some(())
        })
        .await;
    assert!(world.comments_of(issue, Kind::CloseLog).await.is_empty(), "{}", world.evidence(issue).await);
    mount(&["-o", "remount,nr_inodes=10000"]);
    let log = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
    assert!(log.is(Kind::SpawnLog), "{}\n{}", log.body, world.evidence(issue).await);
    world.finish().await;
    let _ = Command::new("umount").arg("-l").arg(&disk).status();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_44 runs it in a run of its own"]
async fn the_program_is_replaced_where_cells_have_no_root_of_their_own() {
    // The built-in agent is this program, too.
    let mut world = World::with("replaced", WorldOptions { own_program: true, ..WorldOptions::default() }).await;
    let program = world.installation().daemon_program.clone();
    for deleted in [false, true] {
        if deleted {
            fs::remove_file(&program).unwrap();
        } else {
            replace(&program, b"#!/bin/sh\nexit 7\n");
        }
        let issue = world.reader().open_issue("[mission] Say what this is for", "In a few lines.").await;
        world.director().comment(issue, "/summon scribe").await;
        let log = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
        assert!(log.is(Kind::SpawnLog), "{}\n{}", log.body, world.evidence(issue).await);
        world.wait_for_state(issue, &log.cell(), &["idle"]).await;
        world.director().comment(issue, "/close").await;
        let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        assert!(log.body.contains("Pull request: #"), "{}\n{}", log.body, world.evidence(issue).await);
    }
    let log = fs::read_to_string(&world.installation().log).unwrap();
    assert!(!log.contains("(deleted)"), "{log}");
    world.daemon().stop().await;
    fs::copy(env!("CARGO_BIN_EXE_lazarus"), &program).unwrap();
    world.daemon().start().await;
    world.finish().await;
}
