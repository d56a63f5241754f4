//! Where a run of the suite takes place: this test program, started again with
//! a network, a keyring and open descriptors of its own, as root and as an
//! ordinary user.

use lazarus::sandbox::HostReport;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{env, fs};

/// The ordinary user that root takes: nobody, who owns nothing.
const NOBODY: u32 = 65534;
/// Under which name inner runs find what was compiled.
const PROGRAM: &str = "LAZARUS_ESCAPE_PROGRAM";
/// Says to an inner run that it has the network that tests may see.
const NETWORK: &str = "LAZARUS_ESCAPE_NETWORK";
const KEY: &str = "LAZARUS_ESCAPE_KEY";
const KEY_VALUE: &str = "LAZARUS_ESCAPE_KEY_VALUE";

/// Says to an inner run which copy is its `/etc`.
const ETC: &str = "LAZARUS_ESCAPE_ETC";
/// Where an inner run leaves what the outer one asks for.
const RESULT: &str = "LAZARUS_ESCAPE_RESULT";

/// As whom a run took place, and what it left.
pub struct Performance {
    pub user: &'static str,
    pub result: String,
    /// What it said where it failed.
    pub failure: Option<String>,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What `attempts.c` was compiled to, in an inner run.
pub fn program() -> PathBuf {
    PathBuf::from(
        env::var_os(PROGRAM).expect("this is run by another test, in a run of its own: leave out `--ignored`"),
    )
}

/// Where runs have their files; goes with the last test that uses it.
struct Built {
    directory: PathBuf,
    program: PathBuf,
}

impl Built {
    /// Tests of one program run at once; they compile once.
    fn get() -> Arc<Self> {
        static BUILT: Mutex<Weak<Built>> = Mutex::new(Weak::new());
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = built.upgrade() {
            return there;
        }
        let directory = new_place();
        let program = compile(&directory);
        let new = Arc::new(Self { directory, program });
        *built = Arc::downgrade(&new);
        new
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The file for what the outer run asks for.
pub fn result() -> PathBuf {
    PathBuf::from(env::var_os(RESULT).expect("the outer run says where"))
}

/// Where an inner run has its files.
pub fn place() -> PathBuf {
    program().parent().unwrap().to_owned()
}

/// A directory that every user can write, and not below `/tmp`, of which a cell
/// has its own.
fn new_place() -> PathBuf {
    let fits = |base: &PathBuf| {
        let below_tmp = ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|tmp| base.starts_with(tmp));
        !(below_tmp || is_root() && closed_to_others(base).is_some())
    };
    let elsewhere = if is_root() { Some("/var/lib".into()) } else { std::env::var_os("HOME") };
    let base =
        [Some(env!("CARGO_TARGET_TMPDIR").into()), elsewhere].into_iter().flatten().map(PathBuf::from).find(fits);
    let base = base.expect("what lies below /tmp cannot be shown to a cell: check the project out elsewhere");
    let directory = base.join(format!("escape-{}", hex::encode(rand::<4>())));
    crate::host_fixture::directory(&directory, 0o1777);
    directory
}

/// Compiles the attempts, statically where that can be had: a container has no
/// libraries.
fn compile(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/attempts.c");
    let program = directory.join("attempts");
    for linking in ["-static", "-static-libgcc"] {
        let output = Command::new("cc")
            .args(["-O1", "-w", "-no-pie", linking, "-o"])
            .args([&program, &source])
            .output()
            .expect("a C compiler, as the build of Lazarus itself needs (`cc`)");
        if output.status.success() {
            return program;
        }
        eprintln!("cc {linking}: {}", String::from_utf8_lossy(&output.stderr));
    }
    panic!("attempts.c does not compile");
}

/// Runs an inner test on a stage with these further properties, as root and as
/// an ordinary user where this is root, else as who this is. It has to pass.
pub fn perform(test: &str, properties: &[&str]) {
    passed(&perform_for_result(test, properties));
}

/// Fails where a run failed.
pub fn passed(performances: &[Performance]) {
    let failed: Vec<&str> = performances.iter().filter_map(|p| p.failure.as_deref()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The same; whether it passed is for the caller to look at.
pub fn perform_for_result(test: &str, properties: &[&str]) -> Vec<Performance> {
    let built = Built::get();
    let properties = || properties.iter().map(|p| (*p).to_owned());
    let mut stages = vec![];
    if is_root() {
        stages.push(("root", ["net".to_owned()].into_iter().chain(properties()).collect()));
        stages.push(("user", as_nobody(vec![]).into_iter().chain(properties()).collect()));
    } else {
        stages.push(("user", properties().collect()));
    }
    run(&built, test, stages, "level_2")
}

/// Runs an inner test as root, in mounts of its own.
pub fn perform_as_root_in_its_own_mounts(test: &str) {
    if !is_root() {
        println!("NOT RUN: only root can mount something");
        return;
    }
    let stage = vec!["net".to_owned(), "mounts".to_owned()];
    passed(&run(&Built::get(), test, vec![("root", stage)], "level_2"));
}

/// Runs an inner test where `/etc` is a copy of what cells see of it, in which files can be replaced: as root and
/// as an ordinary user. To make such a host takes root.
pub fn perform_with_an_own_etc(test: &str) {
    if !is_root() {
        println!("NOT RUN: only root can make such a host");
        return;
    }
    let built = Built::get();
    for user in ["root", "user"] {
        let copy = built.directory.join(format!("etc-{}", hex::encode(rand::<4>())));
        crate::host_fixture::directory(&copy, if user == "root" { 0o755 } else { 0o777 });
        for name in [
            "alternatives",
            "ca-certificates",
            "group",
            "hosts",
            "ld.so.cache",
            "ld.so.conf",
            "ld.so.conf.d",
            "localtime",
            "mime.types",
            "nsswitch.conf",
            "passwd",
            "protocols",
            "resolv.conf",
            "services",
            "ssl",
        ] {
            let _ = Command::new("cp").arg("-a").arg(Path::new("/etc").join(name)).arg(&copy).status();
        }
        let _ = fs::remove_dir_all(copy.join("ssl/private"));
        if user == "user" {
            let _ = Command::new("chown").args(["-R", &NOBODY.to_string()]).arg(&copy).status();
        }
        let etc = format!("etc={}", copy.display());
        let stage = if user == "root" { vec!["net".to_owned(), etc.clone()] } else { as_nobody(vec![etc.clone()]) };
        passed(&run(&built, test, vec![(user, stage)], "level_2"));
    }
}

/// The copy that an inner run has for an `/etc`.
pub fn etc() -> Option<PathBuf> {
    env::var_os(ETC).map(PathBuf::from)
}

/// Runs an inner test as an ordinary user on a host where nobody may make namespaces: the third rung of the
/// ladder.
pub fn perform_at_level_1(test: &str) {
    let built = Built::get();
    let mut stage = if is_root() { as_nobody(vec![]) } else { vec![] };
    stage.push("no-userns".to_owned());
    passed(&run(&built, test, vec![("user", stage)], "level_1"));
}

/// Runs an inner test as an ordinary user on a host where nobody may make user
/// namespaces, and a setuid `bwrap` others: the second rung of the ladder.
pub fn perform_on_the_second_rung(test: &str) {
    if !is_root() {
        println!("NOT RUN: only root can make such a host");
        return;
    }
    let Ok(bwrap) = fs::read("/usr/bin/bwrap") else {
        println!("NOT RUN: there is no /usr/bin/bwrap");
        return;
    };
    use std::os::unix::fs::PermissionsExt as _;
    let built = Built::get();
    let copy = built.directory.join(format!("bwrap-{}", hex::encode(rand::<4>())));
    fs::write(&copy, bwrap).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
    let stage = as_nobody(vec![format!("only-bwrap={}", copy.display())]);
    passed(&run(&built, test, vec![("user", stage)], "level_2"));
}

/// The stage of an ordinary user; these further properties take root.
fn as_nobody(of_root: Vec<String>) -> Vec<String> {
    let mut stage = vec!["net".to_owned()];
    stage.extend(way_for_others());
    stage.extend(of_root);
    stage.push(format!("uid={NOBODY}"));
    stage
}

fn run(built: &Built, test: &str, stages: Vec<(&'static str, Vec<String>)>, level: &str) -> Vec<Performance> {
    // At once: they wait more than they compute.
    let mut runs = vec![];
    for (user, stage) in stages {
        let stage = that_can_be_had(&built.program, stage);
        if let Some(why) = cannot_give_level_2(&built.program, &stage)
            && level == "level_2"
            && !test.starts_with("weaker_host")
        {
            println!("NOT RUN as {user}: cells of level_2 cannot be had here: {why}");
            continue;
        }
        let left = built.directory.join(format!("result-{}", hex::encode(rand::<4>())));
        let mut command = command(&built.program, test, &stage);
        // What a host cannot give is refused, not asked less of.
        command.env("LAZARUS_TEST_ISOLATION", level);
        let child = command.env(RESULT, &left).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        runs.push((user, left, std::thread::spawn(move || child.wait_with_output().unwrap())));
    }
    let ended: Vec<_> = runs.into_iter().map(|(user, left, run)| (user, left, run.join().unwrap())).collect();
    let performed = ended.into_iter().map(|(user, left, output)| {
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("══ {test}, as {user} ══\n{printed}");
        let passed = output.status.success() && printed.contains("test result: ok. 1 passed");
        let errors = String::from_utf8_lossy(&output.stderr);
        let failure = (!passed).then(|| format!("{test}, as {user}: {}\n{errors}", output.status));
        Performance { user, result: fs::read_to_string(left).unwrap_or_default(), failure }
    });
    performed.collect()
}

/// A stage without the network of its own where that cannot be made (in a
/// container, say).
fn that_can_be_had(program: &Path, stage: Vec<String>) -> Vec<String> {
    let tried = Command::new(program).args(["stage", "net", "--", "true"]).output().unwrap();
    if tried.status.success() || !stage.iter().any(|s| s == "net") {
        return stage;
    }
    println!("NOT RUN: what takes a network of the test's own: {}", String::from_utf8_lossy(&tried.stderr).trim());
    stage.into_iter().filter(|s| s != "net").collect()
}

/// Why cells have fewer walls on this stage than the suite is about.
fn cannot_give_level_2(program: &Path, stage: &[String]) -> Option<String> {
    let mut probe = Command::new(program);
    probe.arg("stage").args(stage).args(["--", env!("CARGO_BIN_EXE_lazarus"), "cell-probe"]);
    let output = probe.stdin(Stdio::null()).output().unwrap();
    match serde_json::from_slice::<HostReport>(&output.stdout) {
        Ok(report) if report.level_2() => None,
        Ok(report) => {
            Some(report.missing.iter().map(|m| format!("{}: {}", m.what, m.why)).collect::<Vec<_>>().join("; "))
        }
        Err(_) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn command(program: &Path, test: &str, stage: &[String]) -> Command {
    let secret: [u8; 16] = rand();
    let (name, value) =
        (format!("lazarus-escape-{}", hex::encode(rand::<4>())), format!("treasure{}", hex::encode(secret)));
    let mut command = Command::new(program);
    let key = format!("key={name}={value}");
    let keyring = Command::new(program).args(["stage", &key, "--", "true"]).output().unwrap().status.success();
    command
        .args(["stage", "open-root"])
        .args(keyring.then_some(&key))
        .args(stage)
        .arg("--")
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, program)
        .stdin(Stdio::null());
    if keyring {
        command.env(KEY, name).env(KEY_VALUE, value);
    }
    if stage.iter().any(|s| s == "net") {
        command.env(NETWORK, "1");
    }
    if let Some(etc) = stage.iter().find_map(|s| s.strip_prefix("etc=")) {
        command.env(ETC, etc);
    }
    command
}

/// Where a directory on the way to this program is closed to others (a home of
/// root's): what shows them the program and the project all the same.
fn way_for_others() -> Option<String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let closed = closed_to_others(target).or_else(|| closed_to_others(project))?;
    let mut trees: Vec<&Path> = [project, target].into_iter().filter(|t| t.starts_with(&closed)).collect();
    if target.starts_with(project) {
        trees.retain(|t| *t == project);
    }
    let trees: Vec<String> = trees.iter().map(|t| t.display().to_string()).collect();
    Some(format!("show={}:{}", closed.display(), trees.join(":")))
}

/// The outermost directory on the way there that others cannot enter.
fn closed_to_others(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let closed = |path: &&Path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
    path.ancestors().filter(closed).last().map(Path::to_owned)
}

/// Whether this run has a network with the addresses of `attempts.c`, or why not.
pub fn network() -> Result<(), String> {
    if env::var_os(NETWORK).is_some() {
        Ok(())
    } else {
        Err("only root can make a network with such an address in it".to_owned())
    }
}

/// The name of the key in the session's keyring.
pub fn key() -> Result<String, String> {
    env::var(KEY).map_err(|_| "this run has no keyring of its own".to_owned())
}

/// What that key holds.
pub fn key_value() -> Option<String> {
    env::var(KEY_VALUE).ok()
}

pub fn rand<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
