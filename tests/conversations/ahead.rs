//! What was prepared ahead, or was there when the daemon started, gets old (threat 44): no mission fails for it.

use crate::world::{Comment, Kind, World, WorldOptions, processes};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Summons an agent on an issue of its own, and waits until its cell is so far. No cell fails on the way.
async fn summoned(world: &World, command: &str, state: &str) -> (i64, Comment) {
    let issue = world.reader().open_issue(command, "Please.").await;
    world.director().comment(issue, command).await;
    let log = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog, Kind::Refusal], |_| true).await;
    assert!(log.is(Kind::SpawnLog), "{command}: {}\n{}", log.body, world.evidence(issue).await);
    world.wait_for_state(issue, &log.cell(), &[state]).await;
    (issue, log)
}

/// Closes it, and expects that its commit became a pull request.
async fn closed_with_work(world: &World, issue: i64, cell: &str) {
    world.director().comment(issue, "/close").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.body.contains("Pull request: #"), "{}\n{}", log.body, world.evidence(issue).await);
    let branch = format!("lazarus/{issue}-{cell}");
    let said = world.file_on(&branch, "version.txt").await.unwrap_or_default();
    assert!(said.starts_with("lazarus "), "the cell has another program: {said:?}");
}

/// The run directory that waits for the next cell, once it is whole.
async fn ahead(world: &World, issue: i64) -> PathBuf {
    let run = world.data().join("run");
    world
        .wait_until("what waits for the next cell", issue, async || {
            let entries = fs::read_dir(&run).ok()?.flatten().map(|entry| entry.path());
            let mut ahead = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".ahead-"));
            ahead.find(|path| path.join("group.json").exists() && path.join("control.sock").exists() && lives(path))
        })
        .await
}

/// Whether the first process of a run directory is there.
fn lives(run_dir: &Path) -> bool {
    number(&run_dir.join("keeper.pid")).is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

fn number(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Commits which program of ours the cell has.
const WORKER: &str = "[agents.worker]\ndescription = \"Works\"\nprompt = \"stdin\"\n\
     argv = [\"sh\", \"-ec\", \"/run/lazarus/lazarus --version > version.txt; git add version.txt; git commit -qm Version\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_a_program_that_is_replaced_or_deleted_goes_on() {
    let options = WorldOptions { own_program: true, config: WORKER.to_owned(), ..WorldOptions::default() };
    let mut world = World::with("replaced", options).await;
    let (issue, log) = summoned(&world, "/summon worker", "idle").await;
    let first = (issue, log.cell());
    ahead(&world, issue).await;

    // As a package manager does it: a new file in the old one's place. This one says that it ran.
    let program = world.installation().daemon_program.clone();
    let (new, ran) = (program.with_extension("new"), world.place().join("the-new-one-ran"));
    fs::write(&new, format!("#!/bin/sh\ntouch {}\nexit 7\n", ran.display())).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &program).unwrap();
    closed_with_work(&world, first.0, &first.1).await;
    // With the launcher that waited, and with one that is started now.
    for _ in 0..2 {
        let (issue, log) = summoned(&world, "/summon worker", "idle").await;
        closed_with_work(&world, issue, &log.cell()).await;
    }
    fs::remove_file(&program).unwrap();
    let (issue, log) = summoned(&world, "/summon worker", "idle").await;
    // Its egress proxy is one more process of the same program.
    let (proxied, its_log) = summoned(&world, "/summon worker network=proxy", "idle").await;
    assert!(world.data().join("run").join(its_log.cell()).join("egress.pid").exists());
    closed_with_work(&world, proxied, &its_log.cell()).await;
    // The daemon that comes after it finds its cells, whatever they were started from.
    world.daemon().stop().await;
    fs::copy(env!("CARGO_BIN_EXE_lazarus"), &program).unwrap();
    world.daemon().start().await;
    closed_with_work(&world, issue, &log.cell()).await;
    assert!(!ran.exists(), "the daemon started another program than it is");
    let log = fs::read_to_string(&world.installation().log).unwrap();
    assert!(!log.contains("(deleted)"), "{log}");
    let copies = fs::read_dir(world.data().join("run")).unwrap().flatten();
    let copies: Vec<_> =
        copies.map(|e| e.file_name()).filter(|n| n.to_string_lossy().starts_with("program-")).collect();
    assert!(copies.is_empty(), "copies of the old program are left: {copies:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_what_waits_for_the_next_cell_may_be_taken_away() {
    let world = World::new("taken-away").await;
    let (mut issue, first) = summoned(&world, "/summon sleeper", "active").await;
    let limits = |log: &Comment| log.body.lines().find(|line| line.contains("limits:")).map(str::to_owned);
    for what in ["its directory", "its launcher", "its first process", "the group of its first process"] {
        let ahead = ahead(&world, issue).await;
        let keeper = number(&ahead.join("keeper.pid")).unwrap();
        match what {
            "its directory" => fs::remove_dir_all(&ahead).unwrap(),
            "its launcher" => {
                let name = ahead.file_name().unwrap().to_string_lossy().into_owned();
                processes::kill(name.split('-').nth(1).unwrap().parse().unwrap());
            }
            "its first process" => processes::kill(keeper),
            _ => {
                let group: serde_json::Value =
                    serde_json::from_slice(&fs::read(ahead.join("group.json")).unwrap()).unwrap();
                let directories = group["directories"].as_array().cloned().unwrap_or_default();
                for directory in directories.iter().filter_map(|d| d.as_str()).map(Path::new) {
                    // As somebody does who tidies up the groups of this machine.
                    fs::write(directory.parent().unwrap().join("cgroup.procs"), keeper.to_string()).unwrap();
                    fs::remove_dir(directory).unwrap();
                }
            }
        }
        let (next, log) = summoned(&world, "/summon sleeper", "active").await;
        assert_eq!(limits(&log), limits(&first), "after {what} was taken away");
        world.wait_until("what it left to be tidied up", next, async || (!ahead.exists()).then_some(())).await;
        issue = next;
    }
    world.finish().await;
}

/// A clock that is ahead of the machine's by as many seconds as a file says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
    char text[32] = {0};
    const char *path = getenv("TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return result;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_a_clock_that_steps_while_something_is_prepared_fails_no_mission() {
    let place = tempfile::tempdir().unwrap();
    let (source, library, clock) =
        (place.path().join("clock.c"), place.path().join("clock.so"), place.path().join("clock"));
    fs::write(&source, CLOCK).unwrap();
    fs::write(&clock, "0").unwrap();
    let compiled =
        std::process::Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler, as the build of Lazarus itself needs");
    let text = |path: &Path| path.display().to_string();
    let environment = vec![("LD_PRELOAD".to_owned(), text(&library)), ("TEST_CLOCK".to_owned(), text(&clock))];
    let options = WorldOptions { config: WORKER.to_owned(), environment, ..WorldOptions::default() };
    let world = World::with("clock", options).await;
    let (mut issue, _) = summoned(&world, "/summon sleeper", "active").await;
    for step in ["-86400", "172800", "-7200", "0"] {
        ahead(&world, issue).await;
        fs::write(&clock, step).unwrap();
        let (next, log) = summoned(&world, "/summon worker", "idle").await;
        closed_with_work(&world, next, &log.cell()).await;
        let (next, _) = summoned(&world, "/summon sleeper", "active").await;
        issue = next;
    }
    let log = fs::read_to_string(&world.installation().log).unwrap();
    assert!(log.contains("clock"), "the daemon did not see the steps: this tests nothing\n{log}");
    world.finish().await;
}
