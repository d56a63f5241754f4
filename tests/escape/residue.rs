//! Threat line 21, and I5: a cell that leaves behind all that can be left.

use crate::host_fixture::HostFixture;
use crate::isolated_run;
use crate::table::summon;
use crate::world::{Kind, World, WorldOptions, processes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Processes that name a mark in their arguments, as the host sees them.
fn processes_of(mark: &str) -> Vec<i32> {
    processes::naming(mark, &[]).into_iter().filter(|p| p.named_in == "cmdline").map(|p| p.pid).collect()
}

/// Every control group of that name.
fn control_groups(name: &str) -> Vec<PathBuf> {
    fn below(path: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().contains(name) {
                    found.push(entry.path());
                }
                if depth > 0 {
                    below(&entry.path(), name, depth - 1, found);
                }
            }
        }
    }
    let mut found = vec![];
    below(Path::new("/sys/fs/cgroup"), name, 6, &mut found);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_21 runs it in a run of its own"]
async fn what_does_not_want_to_end_ends_with_the_cell() {
    let fixture = HostFixture::new();
    let mark = format!("lzres-{}", hex::encode(isolated_run::rand::<4>()));
    let key = (1 + u32::from_ne_bytes(isolated_run::rand()) / 4).to_string();
    let kept = fixture.place.join("kept");
    crate::host_fixture::directory(&kept, 0o777);
    fs::write(kept.join("file"), "of the host\n").unwrap();
    let config = format!(
        "[agents.leaver]\ndescription = \"Leaves things behind\"\nprompt = \"stdin\"\nread_paths = [{tools:?}]\n\
         argv = [\"{}/attempts\", \"residue\", \"{mark}\", {kept:?}, \"{key}\"]\n",
        fixture.tools.display(),
        tools = fixture.tools,
    );
    let world = World::with("residue", WorldOptions { config, ..WorldOptions::default() }).await;
    for ending in ["/close abandoned enough", "/destroy"] {
        let (issue, cell) = summon(&world, "/summon leaver").await;
        let home = world.data().join("cells").join(&cell);
        world
            .wait_until("everything to be left", issue, async || {
                (home.join("home/leaver/ready").exists() && processes_of(&mark).len() > 100).then_some(())
            })
            .await;
        let run = world.data().join("run").join(&cell);
        let destroyed = ending == "/destroy";
        let command = if destroyed { format!("/destroy {cell}") } else { ending.to_owned() };
        world.director().comment(issue, &command).await;
        if destroyed {
            world
                .wait_until("the cell to be gone from the disk", issue, async || {
                    let places = ["cells", "graveyard", "archive", "run", "work"];
                    let is_there = |place: &&str| world.data().join(place).join(&cell).exists();
                    (!places.iter().any(is_there)).then_some(())
                })
                .await;
        } else {
            world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        }

        // From the moment at which it is said to be over.
        let left = processes::naming(&mark, &[]);
        assert!(left.is_empty(), "{command}: processes are left: {left:#?}");
        if !destroyed {
            let record = fs::read_to_string(run.join("keeper/exit.json")).expect("the keeper's record of the end");
            assert!(record.contains("\"empty\":true"), "the keeper did not see it empty: {record}");
        }
        for place in [env::temp_dir(), "/tmp".into(), "/dev/shm".into(), "/var/tmp".into()] {
            assert!(!place.join(&mark).exists(), "{command}: {} holds a file of the cell", place.display());
        }
        for what in ["shm", "msg", "sem"] {
            let output = Command::new(isolated_run::program()).args([what, &key]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("ENOENT"), "{command}: {what} of the cell is on the host: {said}");
        }
        for (what, name) in [("mq", mark.clone()), ("abstract", mark.clone())] {
            let output = Command::new(isolated_run::program()).args([what, &name]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.starts_with("stopped"), "{command}: {what} of the cell is on the host: {said}");
        }
        let mounts = processes::host_mounts_naming(&cell);
        assert!(mounts.is_empty(), "{command}: mounts are left: {mounts:#?}");
        let groups = control_groups(&cell);
        assert!(groups.is_empty(), "{command}: control groups are left: {groups:#?}");
        assert!(kept.join("file").exists(), "{command}: a link out of the cell was followed and its target removed");
    }
    world.finish().await;
}
