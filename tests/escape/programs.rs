//! What a project's own programs find in a cell, as root and as an ordinary user: they run as they do elsewhere.

use crate::world::{Kind, World, WorldOptions};
use std::fs;
use std::path::Path;

/// Starts an agent `tool` of that profile and waits until its script, which prints what it found, has ended.
async fn said_by(world: &World, agent: &str) -> (String, String) {
    let issue = world.reader().open_issue("Programs", "Please.").await;
    world.director().comment(issue, &format!("/summon {agent}")).await;
    let spawn = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
    if world.comments_of(issue, Kind::SpawnLog).await.is_empty() {
        return (spawn.body.clone(), String::new());
    }
    world.wait_for_state(issue, &spawn.cell(), &["idle", "downed"]).await;
    let said = world.cli(&["logs", &spawn.cell()]).all();
    world.director().comment(issue, "/close").await;
    let close = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    (format!("{said}\n{}", spawn.body), close.body.clone())
}

fn profile(name: &str, script: &str, more: &str) -> String {
    format!(
        "[agents.{name}]\ndescription = \"A project's programs\"\nargv = [\"bash\", \"-c\", {script:?}]\n\
         prompt = \"stdin\"\n{more}\n"
    )
}

async fn world(name: &str, config: String) -> World {
    World::with(name, WorldOptions { config, ..WorldOptions::default() }).await
}

/// A place that cells can be shown and that is not of this project.
fn place() -> std::path::PathBuf {
    let place =
        crate::isolated_run::place().join(format!("programs-{}", hex::encode(crate::isolated_run::rand::<4>())));
    fs::create_dir_all(&place).unwrap();
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it in a run of its own"]
async fn limits_are_of_what_is_used_and_runtimes_see_them() {
    let reserve = "import mmap; m = mmap.mmap(-1, 1 << 42, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000); \
                   m[0] = 1; print('reserved 4 TiB')";
    let script = format!(
        "/usr/bin/python3 -c {reserve:?}; echo core $(ulimit -c 0 2>&1 && echo set); \
         echo \"go $GOMEMLIMIT $GOMAXPROCS\"; echo \"node $NODE_OPTIONS\"; echo \"java $JDK_JAVA_OPTIONS\""
    );
    let own = "env = { NODE_OPTIONS = \"--max-old-space-size=99\" }\nlimits = \"memory=1GiB, cpu=1.5\"";
    let config = [
        profile("tool", &script, "limits = \"memory=1GiB, cpu=1.5\""),
        profile("own", "echo \"node $NODE_OPTIONS\"", own),
        profile(
            "hungry",
            "/usr/bin/python3 -c 'b = bytearray(700 << 20); import time; time.sleep(20); print(\"was\" + \" let\")'; true",
            "limits = \"memory=256MiB\"",
        ),
        profile("large", "truncate -s 5G f; exit $?", "limits = \"disk=64MiB\""),
    ];
    let world = world("programs-limits", config.concat()).await;
    let (said, _) = said_by(&world, "tool").await;
    for words in [
        "reserved 4 TiB",
        "core set",
        "go 921MiB 2",
        "node --max-old-space-size=768",
        "java -XX:MaxRAM=1024m -XX:ActiveProcessorCount=2",
        "no file larger than that",
        "256 MiB in /tmp",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let (said, _) = said_by(&world, "own").await;
    assert!(said.contains("node --max-old-space-size=99"), "{said}");
    let (said, close) = said_by(&world, "hungry").await;
    assert!(!said.contains("was let"), "{said}");
    assert!(close.contains("limit of **memory**"), "{close}");
    let (_, close) = said_by(&world, "large").await;
    assert!(close.contains("limit of **file size**") && close.contains("64 MiB"), "{close}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it in a run of its own"]
async fn a_cell_has_the_files_and_places_that_programs_expect() {
    let script = "for f in /etc/os-release /etc/fonts /etc/java-* /etc/maven /etc/ssl/certs /etc/python3*; do \
                  test -e $f && echo \"sees $f\"; done; ls -a /etc /etc/maven 2>&1; \
                  echo machine $(cat /etc/machine-id) $(cat /etc/machine-id | wc -c); \
                  test \"$(getent passwd agent | cut -d: -f6)\" = \"$HOME\" && echo same home; \
                  test \"$(getent passwd $(id -u) | cut -d: -f6)\" = \"$HOME\" && echo home of the id; \
                  echo tmp $TMPDIR $(stat -c %a $TMPDIR) $(df --output=size -m /tmp | tail -1); f=$(mktemp) && echo made $f; \
                  test -w $XDG_RUNTIME_DIR && echo runtime $XDG_RUNTIME_DIR; \
                  mkdir -p /run/postgresql && touch /run/postgresql/a /var/run/postgresql/b && echo run is writable; \
                  touch /run/lazarus/x 2>&1; mv /run/lazarus /run/y 2>&1; /run/lazarus/lazarus --version; \
                  cat /etc/shadow /etc/ssl/private/* /etc/ssh/* /etc/sudoers 2>&1; \
                  cd $TMPDIR && git init -q there && echo end";
    let world = world("programs-etc", profile("tool", script, "limits = \"tmp=32MiB\"")).await;
    let (said, _) = said_by(&world, "tool").await;
    for file in ["/etc/os-release", "/etc/fonts", "/etc/maven", "/etc/ssl/certs"] {
        assert_eq!(Path::new(file).exists(), said.contains(&format!("sees {file}")), "{file}:\n{said}");
    }
    for words in [
        "same home",
        "home of the id",
        "tmp /cell/home/tool/tmp 700",
        "made /cell/home/tool/tmp/",
        "runtime /run/user/",
        "run is writable",
        "lazarus ",
        "\nend",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let machine = said.lines().find_map(|line| line.split_once("machine ")).unwrap().1.trim().to_owned();
    assert!(machine.ends_with(" 33"), "{machine}");
    let host = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    assert!(host.trim().is_empty() || !machine.contains(host.trim()), "it is the host's");
    for secret in ["root:$", "root:*:", "PRIVATE KEY", "HostKey", "ALL=(ALL"] {
        assert!(!said.contains(secret), "{secret} is in\n{said}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it in a run of its own"]
async fn shown_programs_come_first_and_what_is_missing_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    let script = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(&place.join("node/bin/sometool"), "#!/usr/bin/env someinterpreter\n");
    script(&place.join("node/bin/git"), "#!/bin/sh\necho this git came first\n");
    script(&place.join("interpreter/someinterpreter"), "#!/bin/sh\necho interpreted\n");
    std::os::unix::fs::symlink("node", place.join("current")).unwrap();
    let (node, other) = (place.join("node"), place.join("interpreter"));
    let agent = |name: &str, program: &str, more: &str| {
        format!("[agents.{name}]\nargv = [{program:?}]\ndescription = \"Runs one\"\nprompt = \"stdin\"\n{more}\n")
    };
    let config = [
        agent("both", "sometool", &format!("programs = [{:?}, {other:?}]", place.join("current"))),
        agent("first", "git", &format!("programs = [{node:?}]")),
        agent("alone", "sometool", &format!("programs = [{node:?}]")),
        agent("absent", "nosuchprogram", ""),
        agent("elsewhere", other.join("someinterpreter").to_str().unwrap(), ""),
    ];
    let world = world("programs-shown", config.concat()).await;
    let (said, _) = said_by(&world, "both").await;
    assert!(said.contains("interpreted"), "{said}");
    let (said, _) = said_by(&world, "first").await;
    assert!(said.contains("this git came first"), "{said}");
    for (name, all) in [
        ("alone", vec!["its interpreter someinterpreter is not in the cell", "agents.alone.programs"]),
        ("absent", vec!["the program nosuchprogram is not in the cell", "not found on this machine"]),
        ("elsewhere", vec!["on this machine it is", "agents.elsewhere.programs = "]),
    ] {
        let (said, _) = said_by(&world, name).await;
        for words in all {
            assert!(said.contains(words), "{name}: {words:?} is not in\n{said}");
        }
    }
    world.finish().await;
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it in a run of its own"]
async fn tracing_is_of_ones_own_children_and_by_profile_alone() {
    let trace = "import ctypes, os, signal, time\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def trace(pid, what):\n    r = libc.ptrace(16, pid, None, None); print(what, r, os.strerror(ctypes.get_errno()) if r else 'ok', flush=True)\n    return r\n\
        child = os.fork()\n\
        if child == 0: time.sleep(60)\n\
        if trace(child, 'child:') == 0: os.waitpid(child, 0)\n\
        os.kill(child, 9)\n\
        trace(1, 'init:')\n\
        print('unknown:', libc.syscall(462, 0, 0, 0), os.strerror(ctypes.get_errno()))\n\
        print('mount:', libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), os.strerror(ctypes.get_errno()))\n";
    let place = place();
    fs::write(place.join("trace.py"), trace).unwrap();
    let (script, shown) =
        (format!("/usr/bin/python3 {}/trace.py", place.display()), format!("read_paths = [{place:?}]"));
    let config = [profile("plain", &script, &shown), profile("tracer", &script, &format!("{shown}\nptrace = true"))];
    let world = world("programs-ptrace", config.concat()).await;
    let (said, _) = said_by(&world, "plain").await;
    for words in [
        "child: -1 Operation not permitted",
        "init: -1 Operation not permitted",
        "unknown: -1 Function not implemented",
        "mount: -1 Operation not permitted",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let (said, _) = said_by(&world, "tracer").await;
    for words in ["child: 0 ok", "init: -1 Operation not permitted", "mount: -1 Operation not permitted"] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    world.finish().await;
    fs::remove_dir_all(place).unwrap();
}
