//! What a git can do that reads what came out of a cell: `lazarus confined`.

use lazarus::publication::Secrets;
use lazarus::repository::{ConfinedGit, Origin, WorkLimits, WorkRepository, clone_project};
use lazarus::sandbox::{Confined, Confinement, HostReport, NOT_CONFINED, TIMED_OUT};
use lazarus::workspace::{HandedWork, HarvestManifest, HarvestOrder, HarvestRequest};
use secrecy::SecretString;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const LAZARUS: &str = env!("CARGO_BIN_EXE_lazarus");

fn host() -> HostReport {
    let output = Command::new(LAZARUS).arg("cell-probe").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every way that this host has.
fn ways() -> Vec<Confinement> {
    let host = host();
    let mut ways = vec![Confinement::Limits];
    ways.extend(host.landlock.is_some().then_some(Confinement::Landlock));
    ways.extend(host.namespaces.then_some(Confinement::Namespaces));
    ways
}

fn spec(by: Confinement, read: &Path, write: &Path) -> Confined {
    Confined {
        by,
        network: false,
        read: vec![read.to_owned()],
        write: vec![write.to_owned()],
        memory: 256 << 20,
        cpu: 20,
        time: 20,
        file: 1 << 20,
    }
}

fn run(spec: &Confined, program: &[&str]) -> Output {
    let mut command = Command::new(LAZARUS);
    command.arg("confined").arg(serde_json::to_string(spec).unwrap()).args(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").output().unwrap()
}

fn shell(spec: &Confined, script: &str) -> String {
    let output = run(spec, &["sh", "-c", script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn threat_41_a_confined_program_reads_and_writes_what_it_is_given_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let [read, write, other] = ["read", "write", "other"].map(|name| place.path().join(name));
    for directory in [&read, &write, &other] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("file"), "content").unwrap();
    }
    for by in ways().into_iter().filter(|by| *by != Confinement::Limits) {
        let spec = spec(by, &read, &write);
        let path = |directory: &Path| directory.join("file").display().to_string();
        let reads = |directory: &Path| shell(&spec, &format!("cat '{}'", path(directory))) == "content";
        assert!(reads(&read) && reads(&write) && !reads(&other), "{by:?}");
        let writes = |directory: &Path| {
            let made = directory.join("made");
            let said = shell(&spec, &format!("echo x > '{}' && echo done", made.display()));
            let there = made.exists();
            let _ = std::fs::remove_file(&made);
            assert_eq!(said == "done\n", there, "{by:?}");
            there
        };
        assert!(writes(&write) && !writes(&read) && !writes(&other), "{by:?}");
        for path in ["/etc/shadow", "/proc/1/environ", "/root", "/var/log", "/home"] {
            assert_eq!(shell(&spec, &format!("ls {path}/* || cat {path}")), "", "{by:?}: {path}");
        }
    }
}

#[test]
fn threat_41_a_confined_program_has_no_network_and_gets_no_rights() {
    let place = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for by in ways() {
        let spec = spec(by, place.path(), place.path());
        let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
        let output = run(&spec, &["bash", "-c", &connect]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{by:?}");
        for program in ["unshare -Ur true", "unshare -m true", "chroot / true", "mount -t tmpfs x /tmp"] {
            assert_eq!(shell(&spec, &format!("{program} && echo done")), "", "{by:?}: {program}");
        }
    }
}

#[test]
fn threat_41_a_confined_program_is_ended_by_its_limits() {
    let place = tempfile::tempdir().unwrap();
    let inside = place.path().display();
    for by in ways() {
        let limits = Confined { time: 2, ..spec(by, place.path(), place.path()) };
        let begun = Instant::now();
        assert_eq!(run(&limits, &["sleep", "60"]).status.code(), Some(TIMED_OUT), "{by:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{by:?}: {:?}", begun.elapsed());
        let limits = Confined { cpu: 1, ..spec(by, place.path(), place.path()) };
        let output = run(&limits, &["sh", "-c", "while :; do :; done"]);
        assert_eq!(output.status.code(), Some(128 + 9), "{by:?}: processor time");
        // Memory of its own, by whoever allocates it.
        let memory = "x=a; while :; do x=$x$x; done";
        let limits = Confined { memory: 64 << 20, ..spec(by, place.path(), place.path()) };
        assert!(!run(&limits, &["sh", "-c", memory]).status.success(), "{by:?}: memory");
        let limits = Confined { file: 4096, ..spec(by, place.path(), place.path()) };
        let script = format!("head -c 100000 /dev/zero > {inside}/large");
        run(&limits, &["sh", "-c", &script]);
        let size = std::fs::metadata(place.path().join("large")).map_or(0, |meta| meta.len());
        assert!(size <= 4096, "{by:?}: a file of {size} bytes");
        assert_eq!(run(&limits, &["no-such-program"]).status.code(), Some(NOT_CONFINED));
        assert_eq!(run(&limits, &["sh", "-c", "exit 7"]).status.code(), Some(7));
    }
}

#[test]
fn threat_41_nothing_of_a_confined_program_outlives_it() {
    if !host().namespaces {
        eprintln!("skipped: this host has no namespaces");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let limits = Confined { time: 2, ..spec(Confinement::Namespaces, place.path(), place.path()) };
    let marker = format!("{}.5", 4_000_000 + std::process::id());
    let script = format!("setsid sleep {marker} & setsid sleep {marker} & sleep {marker}");
    assert_eq!(run(&limits, &["sh", "-c", &script]).status.code(), Some(TIMED_OUT));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&marker), "{} is left", entry.path().display());
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=a", "-c", "user.email=a@a.invalid", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Everything that reads a cell's work, by each way that a host may have.
#[test]
fn threat_41_work_is_taken_in_however_git_is_confined() {
    const SECRET: &str = "c4n4ry-Vq83hsk2Lmw0Zt7Rb1";
    let place = tempfile::tempdir().unwrap();
    let mirror = place.path().join("mirror.git");
    let first = place.path().join("first");
    std::fs::create_dir(&first).unwrap();
    git(&first, &["init", "-q"]);
    git(&first, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(place.path(), &["clone", "-q", "--bare", "first", "mirror.git"]);
    let clone = place.path().join("project");
    let base = clone_project(&mirror, "laz-x", "main", None, &clone, false).unwrap().commit;
    let commit = |file: &str, text: &str| {
        std::fs::write(clone.join(file), text).unwrap();
        git(&clone, &["add", "."]);
        git(&clone, &["commit", "-qm", file]);
    };
    commit("a", "fine");
    git(&clone, &["checkout", "-qb", "leak"]);
    commit("k", SECRET);
    git(&clone, &["checkout", "-q", "main"]);
    std::fs::write(clone.join("rest"), "rest").unwrap();
    let limits = WorkLimits { pack: 1 << 24, file: 1 << 20, files: 100, branches: 3, search: 1 << 24 };
    let secrets = Secrets::new([("key", SecretString::from(SECRET))]);
    for by in ways() {
        let into = place.path().join(format!("into-{by:?}"));
        std::fs::create_dir(&into).unwrap();
        let request = HarvestRequest {
            base: base.clone(),
            pack_max: limits.pack,
            branches_max: limits.branches,
            commit_rest: true,
            trailers: String::new(),
            snapshot: true,
        };
        let wanted = HarvestOrder { request, into: into.clone() };
        std::fs::create_dir_all(place.path().join("shared")).unwrap();
        let handed = Command::new(LAZARUS)
            .arg("cell-harvest")
            .arg(serde_json::to_string(&wanted).unwrap())
            .current_dir(&clone)
            .output()
            .unwrap();
        let manifest: HarvestManifest = serde_json::from_slice(&handed.stdout).unwrap();
        let confined = ConfinedGit::new(Some(LAZARUS.into()), by);
        let work = WorkRepository::new(place.path().join(format!("{by:?}.git")), mirror.clone(), confined);
        let origin = Origin { mission: "a/b#1".into(), cell: "laz-x".into(), base: base.clone() };
        // Run twice, it does no harm.
        for _ in 0..2 {
            let handed = HandedWork::in_directory(manifest.clone(), &into);
            let harvest = work.take_in(handed, &limits, &origin, &secrets).unwrap();
            assert_eq!(harvest.unknown, None, "{by:?}");
            assert_eq!((harvest.commit_count, harvest.file_count, harvest.rest), (2, 2, true), "{by:?}: {harvest:?}");
            let [held] = harvest.held.as_slice() else { panic!("{by:?}: {harvest:?}") };
            assert_eq!(held.branch.as_deref(), Some("leak"), "{by:?}");
            assert!(held.has_secret() && held.words().contains("`k`") && !held.words().contains(SECRET), "{held:?}");
            let archive = work.archive(harvest.snapshot.as_deref().unwrap(), 1 << 20, &secrets).unwrap();
            assert!(archive.starts_with(&[0x1f, 0x8b]), "{by:?}");
            let tight = work.archive(harvest.snapshot.as_deref().unwrap(), 64, &secrets).unwrap_err();
            assert!(tight.contains("larger than 64 bytes"), "{by:?}: {tight}");
        }
        let copy = place.path().join(format!("copy-{by:?}"));
        work.copy_to(&copy, &[("work".to_owned(), git(&clone, &["rev-parse", "main"]))]).unwrap();
        assert_eq!(git(&copy, &["show", "work:a"]), "fine", "{by:?}");
    }
}
