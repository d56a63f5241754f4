//! Threat line 17: canaries wherever a host keeps secrets, and an agent that
//! looks wherever a process can look.

use crate::host_fixture::{HostFixture, lines};
use crate::isolated_run::{self, rand};
use crate::table::summon;
use crate::world::{World, WorldOptions};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

const DAEMON: &str = "the daemon's environment";

/// A secret, where it lies, and whether the agent is meant to have it.
struct Canary {
    place: &'static str,
    text: String,
    given: bool,
}

fn canary(place: &'static str) -> Canary {
    Canary { place, text: format!("canary{}", hex::encode(rand::<12>())), given: false }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// What was found: for each canary, where.
fn found(file: &Path, canaries: &[Canary]) -> BTreeMap<&'static str, Vec<String>> {
    let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for line in lines(file) {
        let (index, place) = line.split_once('\t').expect("a number and a place");
        let index: usize = index.parse().unwrap();
        // Each is sought as it is and in base64.
        found.entry(canaries[index / 2].place).or_default().push(place.to_owned());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_17 runs it in a run of its own"]
async fn an_agent_that_looks_everywhere_finds_its_own_alone() {
    let fixture = HostFixture::new();
    let tools = fixture.tools.display().to_string();
    let (own, others) = (canary("its own credential"), canary("another agent's credential"));
    let config = format!(
        "[agents.seeker]\ndescription = \"Looks everywhere\"\nprompt = \"stdin\"\nread_paths = [\"{tools}\"]\n\
         argv = [\"sh\", \"-c\", \"while ! test -e $HOME/search; do sleep 0.05; done; sh $HOME/search; touch $HOME/searched\"]\n\
         credentials = {{ OWN_KEY = \"own\" }}\n\
         [agents.keyholder]\ndescription = \"Has a key\"\nprompt = \"stdin\"\n\
         argv = [\"sh\", \"-c\", \"umask 077; echo $KEY > $HOME/key; exec sleep 3600\"]\ncredentials = {{ KEY = \"other\" }}\n\
         [credentials]\nown_file = \"own.secret\"\nother_file = \"other.secret\"\n"
    );
    let world = World::with("canaries", WorldOptions { start: false, config, ..WorldOptions::default() }).await;
    let operator = world.installation().home.clone();
    let mut canaries = vec![];
    for (place, file, text) in [
        ("the operator's git configuration", ".gitconfig", "[http]\n\textraHeader = Authorization: token CANARY\n"),
        ("the operator's git credentials", ".git-credentials", "http://bot:CANARY@127.0.0.1\n"),
        ("the operator's netrc", ".netrc", "machine 127.0.0.1 login bot password CANARY\n"),
        ("the operator's SSH key", ".ssh/id_ed25519", "CANARY\n"),
        ("the operator's cloud credentials", ".aws/credentials", "aws_secret_access_key = CANARY\n"),
        ("the operator's agent settings", ".config/agent/auth.json", "{\"token\": \"CANARY\"}\n"),
    ] {
        let canary = canary(place);
        write(&operator.join(file), &text.replace("CANARY", &canary.text));
        canaries.push(canary);
    }
    for (name, canary) in [("own", own), ("other", others)] {
        write(&world.place().join(format!("{name}.secret")), &canary.text);
        canaries.push(Canary { given: name == "own", ..canary });
    }
    let known = |place, text: &str| Canary { place, text: text.to_owned(), given: false };
    canaries.push(known(DAEMON, world.canary()));
    canaries.push(known("the bot's token", world.bot().token()));
    canaries.push(known("the webhook's secret", world.webhook_secret()));
    let in_keyring = isolated_run::key_value();
    canaries.extend(in_keyring.as_ref().map(|value| known("the keyring of the daemon's session", value)));

    let mut world = world;
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    world.daemon().start().await;
    let (issue, cell) = summon(&world, "/team seeker+keyholder").await;
    let (_, other) = summon(&world, "/summon sleeper").await;
    let cells = world.data().join("cells");
    let in_other = canary("another cell's home");
    write(&cells.join(other).join("home/sleeper/secret"), &in_other.text);
    let daemon_data = canary("the daemon's data");
    write(&world.data().join("secret"), &daemon_data.text);
    canaries.extend([in_other, daemon_data]);

    let needles: Vec<String> = canaries
        .iter()
        .flat_map(|c| {
            // As it begins, whatever follows.
            let coded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, &c.text[..21]);
            [hex::encode(&c.text), hex::encode(coded)]
        })
        .collect();
    let home = cells.join(&cell).join("home/seeker");
    let keyholder = cells.join(&cell).join("home/keyholder/key");
    world
        .wait_until("the other agent's key", issue, async || fs::read(&keyholder).ok().filter(|k| !k.is_empty()))
        .await;

    // On the host, whoever may look there finds every one of them.
    let outside = fixture.place.join("found");
    let pid = world.daemon().pid().unwrap();
    let places = [world.place().to_owned(), cells.clone()];
    let whole = search(&Command::new(fixture.tools.join("attempts")), &outside, &places, &pid.to_string(), &needles);
    assert!(whole, "the search itself failed on the host");
    let there = found(&outside, &canaries);
    // Nor can its own user look into the daemon's environment: only root can.
    for canary in canaries.iter().filter(|c| isolated_run::is_root() || c.place != DAEMON) {
        assert!(there.contains_key(canary.place), "a search that may look there does not find {}", canary.place);
    }
    // In the cell: everywhere, at every process, in their memory too.
    let script = format!("{tools}/attempts search $HOME/found / all {}", needles.join(" "));
    fs::write(home.join("search.new"), script).unwrap();
    fs::rename(home.join("search.new"), home.join("search")).unwrap();
    world.wait_until("the search's end", issue, async || home.join("searched").exists().then_some(())).await;
    let here = found(&home.join("found"), &canaries);
    for canary in &canaries {
        match here.get(canary.place) {
            Some(places) if !canary.given => panic!("{} was found: {places:#?}", canary.place),
            None if canary.given => panic!("it did not even find {}: the search is broken", canary.place),
            _ => {}
        }
    }
    println!("{} canaries; found in the cell: {here:#?}", canaries.len());
    world.finish().await;
}

fn search(program: &Command, file: &Path, places: &[PathBuf], pids: &str, needles: &[String]) -> bool {
    let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    let mut command = Command::new(program.get_program());
    command.arg("search").arg(file).arg(places.join(":")).arg(pids).args(needles);
    command.env("HOME", env::temp_dir()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
