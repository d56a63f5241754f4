//! Threat line 43: our own files below a tree that cells see, and who gives orders.

use crate::attempt::Attempt;
use crate::host_fixture::{HostFixture, Words, directory};
use crate::isolated_run;
use crate::sandbox_under_test::{self, HOME, SandboxUnderTest, every};
use crate::table::{Cells, agent_of, options, words_inside};
use crate::world::{CliOutput, World, WorldOptions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

/// The attempts on what is ours, by their names in the other files.
const OURS: &[&str] = &[
    "read the daemon's token for the forge",
    "read the daemon's configuration",
    "read the registry",
    "write the registry",
    "read another cell's home",
    "write another cell's home",
    "the daemon's control socket",
    "the keeper's control socket",
];

fn is_of_ours(attempt: &Attempt) -> bool {
    OURS.contains(&attempt.name)
}

/// Options of a world whose agent sees this tree.
fn showing(fixture: &HostFixture, tree: &Path) -> WorldOptions {
    directory(tree, 0o755);
    let mut options = options(fixture);
    let tools = format!("read_paths = [\"{}\"]", fixture.tools.display());
    let both = format!("read_paths = [\"{}\", \"{}\"]", fixture.tools.display(), tree.display());
    options.config = options.config.replace(&tools, &both);
    assert!(options.config.contains(&both), "the attacker's profile is another one by now");
    WorldOptions { start: false, ..options }
}

/// Asserts that neither daemon nor doctor is content, and that both say these words.
#[track_caller]
fn refused(world: &World, run: impl Fn(&str) -> CliOutput, words: &[&str]) {
    for verb in ["serve", "doctor"] {
        let output = run(verb);
        assert!(!output.status.success(), "`lazarus {verb}` is content, though {words:?}:\n{}", output.all());
        // Lines are broken for the terminal.
        let said = output.all().split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "`lazarus {verb}` does not say {word:?}:\n{said}");
        }
    }
    assert!(!world.data().join("registry.sqlite").exists(), "something was made before it was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_43 runs it in a run of its own"]
async fn nothing_is_started() {
    let fixture = HostFixture::new();
    let tree = fixture.place.join("opt");
    let mut world = World::with("in-sight", showing(&fixture, &tree)).await;
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    let at = |name: &str| tree.join(name).display().to_string();
    let secret = |name: &str| {
        let path = tree.join(name);
        fs::copy(world.place().join("forge.token"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let config = tree.join("lazarus.toml");
    let text = fs::read_to_string(&world.installation().config).unwrap();
    let beside = |name: &str| world.place().join(name).display().to_string();
    fs::write(
        &config,
        text.replace("\"forge.token\"", &format!("{:?}", beside("forge.token")))
            .replace("\"webhook.secret\"", &format!("{:?}", beside("webhook.secret"))),
    )
    .unwrap();
    symlink(tree.join("elsewhere"), world.place().join("link")).unwrap();
    let opt = PathBuf::from("/opt").join(fixture.name());
    let shows = "`agents.attacker.read_paths` shows to cells";
    for (variable, value, words) in [
        ("LAZARUS__PATHS__DATA", at("data"), vec!["paths.data is", shows, "set paths.data"]),
        ("LAZARUS__PATHS__DATA", at("not/there/yet"), vec!["paths.data is", shows]),
        ("LAZARUS__PATHS__DATA", format!("{}/../{}/data", tree.display(), "opt"), vec!["paths.data is", shows]),
        ("LAZARUS__PATHS__DATA", beside("link"), vec!["paths.data is", shows, "elsewhere"]),
        (
            "LAZARUS__PATHS__DATA",
            fixture.place.display().to_string(),
            vec!["paths.data", "lies in", "change agents.attacker.read_paths"],
        ),
        ("LAZARUS__PATHS__CELLS", at("cells"), vec!["paths.cells is", shows]),
        ("LAZARUS__PATHS__GRAVEYARD", at("graveyard"), vec!["paths.graveyard is", shows]),
        ("LAZARUS__PATHS__ARCHIVE", at("archive"), vec!["paths.archive is", shows]),
        ("LAZARUS__PATHS__MISSIONS", at("missions"), vec!["paths.missions is", shows]),
        ("LAZARUS__PATHS__REGISTRY", at("registry.sqlite"), vec!["paths.registry is", shows]),
        ("LAZARUS__PATHS__TEMPLATES", at("templates"), vec!["paths.templates is", shows]),
        ("LAZARUS__FORGE__TOKEN_FILE", secret("token"), vec!["forge.token_file is", shows]),
        ("LAZARUS__WEBHOOK__SECRET_FILE", secret("hook"), vec!["webhook.secret_file is", shows]),
        ("LAZARUS__CREDENTIALS__KEY_FILE", secret("key"), vec!["credentials.key_file is", shows]),
        (
            "LAZARUS_CONFIG",
            config.display().to_string(),
            vec!["the configuration file's directory is", shows, "--config"],
        ),
        (
            "LAZARUS__PATHS__CELLS",
            opt.join("cells").display().to_string(),
            vec!["paths.cells is", "in /opt, which every cell sees"],
        ),
        (
            "LAZARUS__PATHS__REGISTRY",
            "/usr/local/lib/registry.sqlite".to_owned(),
            vec!["paths.registry is", "in /usr, which every cell sees"],
        ),
        ("LAZARUS__PATHS__ARCHIVE", "/".to_owned(), vec!["/usr, which every cell sees, lies in / (paths.archive)"]),
    ] {
        refused(&world, |verb| world.installation().run_with(&[verb], &[(variable, &value)]), &words);
    }
    assert!(!opt.exists(), "it was made before it was refused");
    // One more name of the token's file, in the tree.
    fs::hard_link(world.place().join("forge.token"), tree.join("second-name")).unwrap();
    refused(&world, |verb| world.cli(&[verb]), &["forge.token_file is", "second-name", shows]);
    fs::remove_file(tree.join("second-name")).unwrap();
    // A part of ours, mounted into the tree.
    fs::create_dir(world.data()).unwrap();
    directory(&tree.join("mounted"), 0o755);
    let mounted = |verb: &str| {
        let script = format!("mount --bind {} {} && exec {} {verb}", world.data().display(), at("mounted"), lazarus());
        let arguments = if isolated_run::is_root() { vec!["-m"] } else { vec!["-m", "-r"] };
        told(command(&world, "unshare").args(arguments).args(["sh", "-c", &script]))
    };
    refused(&world, mounted, &["paths.data is", "mounted", shows]);
    fs::remove_dir(world.data()).unwrap();

    // Where nothing is in the way, the same installation starts.
    world.daemon().start().await;
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.all().contains("nothing of ours"), "{}", doctor.all());
    world.finish().await;
}

fn lazarus() -> &'static str {
    env!("CARGO_BIN_EXE_lazarus")
}

/// A program of the host that finds the configuration as the operator's shell does.
fn command(world: &World, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let installation = world.installation();
    let mut command = Command::new(program);
    command.env_clear().env("PATH", env::var_os("PATH").unwrap()).env("HOME", &installation.home);
    command.env("LAZARUS_CONFIG", &installation.config).current_dir("/").stdin(Stdio::null());
    command
}

fn told(command: &mut Command) -> CliOutput {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    CliOutput { status, stdout: text(stdout), stderr: text(stderr) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_43 runs it in a run of its own"]
async fn what_is_moved_there_while_the_daemon_runs_is_covered() {
    let fixture = HostFixture::new();
    let (tree, operator) = (fixture.place.join("opt"), fixture.place.join("operator"));
    let mut world = World::with("moved", showing(&fixture, &tree)).await;
    // What is ours lies in one directory, to which links lead from where the configuration has it.
    directory(&operator.join("data"), 0o700);
    symlink(operator.join("data"), world.data()).unwrap();
    for name in ["forge.token", "webhook.secret", "lazarus.toml"] {
        let (old, new) = (world.place().join(name), operator.join(name));
        fs::copy(&old, &new).unwrap();
        fs::remove_file(&old).unwrap();
        symlink(&new, &old).unwrap();
    }
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    world.daemon().start().await;
    let moved = tree.join("operator");
    fs::rename(&operator, &moved).unwrap();
    symlink(&moved, &operator).unwrap();
    directory(&moved, 0o755);

    let cells = Cells::summon(&world, "").await;
    let mut words = cells.words(&mut world, fixture.words());
    let data = moved.join("data");
    let run = data.join("run").join(&cells.cell);
    for (word, path) in [
        ("operator", moved.clone()),
        ("data", data.clone()),
        ("other_cell", data.join("cells").join(cells.other.file_name().unwrap())),
        ("control", data.join("control.sock")),
        ("keeper_socket", run.join("control.sock")),
    ] {
        assert!(path.exists(), "{} is not where cells look", path.display());
        words.insert(word, Ok(path.display().to_string()));
    }
    let bare = sandbox_under_test::bare(&fixture, &words);
    let home = cells.home.join("home/attacker");
    let walled = env::var("LAZARUS_TEST_ISOLATION").as_deref() == Ok("level_2");
    let called = if walled { HOME.to_owned() } else { home.display().to_string() };
    let inside: Words = if walled { words_inside(words) } else { words };
    let column = SandboxUnderTest::plan(&fixture, &home, &called, inside);
    let waited = tokio::task::block_in_place(|| column.wait(&mut || Ok(())));
    if let Err(why) = waited {
        panic!("{why}\n{}\n{}", world.cli(&["logs", &cells.cell]).all(), world.evidence(cells.issue).await);
    }
    let verdicts = column.verdicts();
    let mut looked_at = 0;
    for (((_, attempt), outside), inside) in every().zip(&bare).zip(&verdicts).filter(|((all, _), _)| is_of_ours(all.1))
    {
        println!("{}: on the host {outside}; in the cell {inside}", attempt.name);
        assert!(outside.has_escaped(), "{} does not succeed on the host either: {outside}", attempt.name);
        assert!(inside.was_stopped(), "{}: {inside}\n{}", attempt.name, world.evidence(cells.issue).await);
        looked_at += 1;
    }
    assert_eq!(looked_at, OURS.len(), "an attempt has another name by now");
    let log = fs::read_to_string(&world.installation().log).unwrap();
    assert!(log.contains("moved to where cells look"), "the operator is not told:\n{log}");
    // The world looks for what is left by paths.
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_43 runs it in a run of its own"]
async fn no_process_of_a_cell_gives_orders() {
    let fixture = HostFixture::new();
    let world = World::with("orders", options(&fixture)).await;
    let cells = Cells::summon(&world, "").await;
    let other = cells.other.file_name().unwrap().to_string_lossy().into_owned();
    let tool = fixture.tools.join("attempts").display().to_string();
    let keeper = world.data().join("run").join(&cells.cell).join("control.sock").display().to_string();
    // As the host's own processes see the sockets, in the namespaces that say who they are.
    let in_namespaces_of = |pid: &str| {
        let mut command = command(&world, "nsenter");
        command.args(["-t", pid, "-U", "-p", "--preserve-credentials", "--"]);
        command
    };
    let its_own = agent_of(&cells.cell, "bystander").unwrap();
    let the_others = agent_of(&other, "sleeper").unwrap();
    let freeze = "{\"order\":\"freeze\"}";
    let thaw = "{\"order\":\"thaw\"}";
    // One of this user on the host is heard.
    let heard = told(command(&world, &tool).args(["say", &keeper, thaw]));
    assert!(heard.status.success() && heard.stdout.contains("\"frozen\":false"), "{}", heard.all());
    for (who, pid) in [("an agent of the cell", &its_own), ("an agent of another cell", &the_others)] {
        let heard = told(in_namespaces_of(pid).args([&tool, "say", &keeper, freeze]));
        assert_eq!(
            (heard.status.code(), heard.stdout.as_str()),
            (Some(1), ""),
            "{who}, to the keeper: {}",
            heard.all()
        );
        let refused = told(in_namespaces_of(pid).args([lazarus(), "pause", &cells.cell]));
        assert!(!refused.status.success(), "{who}, to the daemon: {}", refused.all());
        assert!(
            refused.all().contains("takes no orders from a process in a PID namespace"),
            "{who}: {}",
            refused.all()
        );
    }
    // Nor anybody in a namespace below the daemon's, of which it cannot know who made it.
    let container = told(command(&world, "unshare").args(["-U", "-r", "-p", "-f", lazarus(), "pause", &cells.cell]));
    assert!(container.all().contains("takes no orders"), "{}", container.all());
    let container = told(command(&world, "unshare").args(["-U", "-r", "-p", "-f", &tool, "say", &keeper, freeze]));
    assert_eq!(container.status.code(), Some(1), "{}", container.all());
    // Nor who has the rights of an agent at level_1, where there are no namespaces to tell.
    let sandboxed = told(command(&world, &tool).args(["stage", "no-landlock", "--", lazarus(), "pause", &cells.cell]));
    assert!(sandboxed.all().contains("no_new_privs"), "{}", sandboxed.all());
    assert_eq!(world.cell_state(&cells.cell).as_deref(), Some("active"));
    let said = fs::read_to_string(world.data().join("run").join(&cells.cell).join("keeper/keeper.log")).unwrap();
    assert!(said.contains("refused at the control socket: a process in a PID namespace"), "{said}");
    let log = fs::read_to_string(&world.installation().log).unwrap();
    assert!(log.contains("refused at the control socket"), "{log}");

    // The operator's shell works, also with namespaces that no cell has alone.
    for shell in [&["unshare", "-U", "-r"][..], &[]] {
        let words = [shell, &[lazarus(), "pause", &cells.cell]].concat();
        let paused = told(command(&world, words[0]).args(&words[1..]));
        assert!(paused.status.success(), "{shell:?}: {}", paused.all());
        assert_eq!(world.cell_state(&cells.cell).as_deref(), Some("paused"));
        let resumed = world.cli(&["resume", &cells.cell]);
        assert!(resumed.status.success(), "{}", resumed.all());
    }
    world.finish().await;
}
