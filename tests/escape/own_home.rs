//! What an agent leaves in its own home, for its next run to be started with.

use crate::host_fixture::HostFixture;
use crate::world::{World, WorldOptions};
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_18 runs it in a run of its own"]
async fn a_link_that_was_left_leads_nowhere() {
    let fixture = HostFixture::new();
    let host = fixture.place.join("somebodys-home").display().to_string();
    // Whatever a host's side could take for a directory of its own making.
    let names = [".tmp", ".shm", "tmp", "shm"];
    let leave = names.map(|name| format!("rm -rf $HOME/{name}; ln -s {host} $HOME/{name};")).join(" ");
    let script = format!(
        "if test -e $HOME/left; then cat /tmp/secret /dev/shm/secret {host}/secret > $HOME/seen 2>&1; \
         touch /tmp/made /dev/shm/made; touch $HOME/looked; exec sleep 3600; fi; {leave} touch $HOME/left; exit 3"
    );
    let config = format!(
        "[agents.leaver]\ndescription = \"Leaves links behind\"\nprompt = \"stdin\"\nargv = [\"sh\", \"-c\", {script:?}]\n"
    );
    let world = World::with("own-home", WorldOptions { config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Leaves links", "Please.").await;
    world.director().comment(issue, "/summon leaver").await;
    let cell = world.wait_for_comment(issue, crate::world::Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["downed"]).await;
    world.director().comment(issue, "/revive").await;
    let home = world.data().join("cells").join(&cell).join("home/leaver");
    world.wait_until("the second run", issue, async || home.join("looked").exists().then_some(())).await;
    assert!(home.join(".tmp").is_symlink(), "the first run left nothing");
    let seen = fs::read_to_string(home.join("seen")).unwrap();
    assert!(!seen.contains("treasure"), "it reads a home of the host:\n{seen}");
    let made = fs::read_dir(&host).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    assert!(!made.iter().any(|name| name == "made"), "it writes a home of the host: {made:?}");
    world.finish().await;
}
