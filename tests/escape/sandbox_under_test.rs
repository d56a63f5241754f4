//! One column of the table: a plan of attempts, handed to whoever makes them,
//! and what came of it.

use crate::attempt::{Attempt, CLASSES, Outside, Verdict};
use crate::host_fixture::{HostFixture, Victim, Words, as_stranger, directory, give_to_stranger, lines};
use crate::isolated_run::is_root;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// How long a column may take.
const CEILING: Duration = Duration::from_secs(120);
/// Where those who make attempts have their own directory.
pub const BROKEN: &str = "the attempt broke";
pub const HOME: &str = "/cell/home/attacker";

/// A column that is being made: the directory that the attempts are made in, as
/// the host sees it.
pub struct SandboxUnderTest {
    pub directory: PathBuf,
    words: Words,
    victims: BTreeMap<usize, Victim>,
    lost: BTreeMap<usize, String>,
}

/// Verdicts in the order of [`every`].
pub type Verdicts = Vec<Verdict>;

/// Every attempt with its class.
pub fn every() -> impl Iterator<Item = (&'static str, &'static Attempt)> {
    CLASSES.iter().flat_map(|(class, attempts)| attempts.iter().map(move |a| (*class, a)))
}

/// Puts words in; the error is the reason of the first that is missing.
fn put_in(text: &str, words: &Words) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, after) = after.split_once('}').expect("a closing brace");
        out.push_str(before);
        match words.get(word) {
            Some(Ok(value)) => out.push_str(value),
            Some(Err(why)) => return Err(why.clone()),
            None => panic!("nobody says what {{{word}}} is, in `{text}`"),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

impl SandboxUnderTest {
    /// Writes the plan into `directory`. `home` is what those who make the
    /// attempts call it.
    pub fn plan(fixture: &HostFixture, directory: &Path, home: &str, words: Words) -> Self {
        let mut words = words;
        words.insert("home", Ok(home.to_owned()));
        let (mut victims, mut lost) = (BTreeMap::new(), BTreeMap::new());
        let common = fixture.victim();
        let mut plan = String::new();
        for (index, (_, attempt)) in every().enumerate() {
            let mut own = words.clone();
            let pid = if attempt.outside == Outside::Signalled {
                let victim = fixture.victim();
                let pid = victim.pid();
                victims.insert(index, victim);
                pid
            } else {
                common.pid()
            };
            own.insert("victim", Ok(pid.to_string()));
            // On the host there is no first process of a sandbox: any other will do.
            own.entry("init").or_insert_with(|| Ok(pid.to_string()));
            let filled: Result<Vec<String>, String> = attempt.call.split(' ').map(|word| put_in(word, &own)).collect();
            match filled {
                // A word may hold several: the numbers of a device.
                Ok(call) => plan.push_str(&format!("{index}\t{}\n", call.join("\t").replace(' ', "\t"))),
                Err(why) => {
                    lost.insert(index, why);
                }
            }
        }
        victims.insert(usize::MAX, common);
        // Whole or not there: somebody waits for it.
        let new = directory.join("plan.new");
        fs::write(&new, plan).unwrap();
        fs::rename(&new, directory.join("plan")).unwrap();
        Self { directory: directory.to_owned(), words, victims, lost }
    }

    /// Waits until every attempt was made.
    pub fn wait(&self, still_running: &mut dyn FnMut() -> Result<(), String>) -> Result<(), String> {
        let started = Instant::now();
        while !self.directory.join("done").exists() {
            still_running()?;
            if started.elapsed() > CEILING {
                return Err(format!("not done after {CEILING:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What came of each, by its own word and by what is seen from outside.
    /// Removes what was made.
    pub fn verdicts(mut self) -> Verdicts {
        let mut said: BTreeMap<usize, (String, String)> = BTreeMap::new();
        for line in lines(&self.directory.join("results")) {
            let mut fields = line.splitn(3, '\t');
            let (Some(index), Some(word)) = (fields.next().and_then(|n| n.parse().ok()), fields.next()) else {
                continue;
            };
            said.insert(index, (word.to_owned(), fields.next().unwrap_or_default().to_owned()));
        }
        let mut verdicts = vec![];
        for (index, (_, attempt)) in every().enumerate() {
            if let Some(why) = self.lost.get(&index) {
                verdicts.push(Verdict::NotRun(why.clone()));
                continue;
            }
            let (word, seen) = said.remove(&index).unwrap_or(("broken".to_owned(), "it said nothing".to_owned()));
            let from_outside = match attempt.outside {
                Outside::Nothing => None,
                Outside::Made(path) => {
                    let path = PathBuf::from(put_in(path, &self.words).unwrap());
                    let there = path.symlink_metadata().is_ok();
                    let _ = fs::remove_file(&path);
                    Some(there)
                }
                Outside::Signalled => self.victims.get_mut(&index).map(Victim::was_signalled),
            };
            verdicts.push(match (from_outside, word.as_str()) {
                (Some(true), _) => Verdict::Escaped(format!("seen from outside; it says: {seen}")),
                (Some(false), "escaped") => Verdict::Stopped("nothing of it is seen from outside".to_owned()),
                (None, "escaped") => Verdict::Escaped(seen),
                (_, "stopped") => Verdict::Stopped(seen),
                _ => Verdict::NotRun(format!("{BROKEN}: {seen}")),
            });
        }
        verdicts
    }
}

/// As whom attempts are made on the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Its ordinary user.
    User,
    /// That user as the root of a user namespace, which any user can be.
    OwnRoot,
    Root,
}

/// The attempts on the host with nothing around them: as its ordinary user, and
/// as root or what comes nearest to it. For each, what went furthest.
pub fn bare(fixture: &HostFixture, words: &Words) -> Verdicts {
    let program = fixture.tools.join("attempts");
    let on_host = |name: &str, who: Who| {
        let path = fixture.place.join(name);
        directory(&path, 0o755);
        let mut command = match who {
            Who::User => {
                give_to_stranger(&path);
                as_stranger(&program)
            }
            Who::OwnRoot => {
                let mut command = Command::new(&program);
                command.args(["stage", "userns", "--"]).arg(&program);
                command
            }
            Who::Root => Command::new(&program),
        };
        let column = SandboxUnderTest::plan(fixture, &path, &path.display().to_string(), words.clone());
        command.arg("serve").arg(&path).env("ATTEMPTS_ON_THE_HOST", "1").stdin(Stdio::null());
        run(command, column)
    };
    let user = on_host("bare-user", Who::User).unwrap();
    let root = if is_root() { Ok(on_host("bare-root", Who::Root).unwrap()) } else { on_host("bare-own", Who::OwnRoot) };
    match root {
        Ok(root) => user.into_iter().zip(root).map(|(u, r)| if u.has_escaped() { u } else { r.or(u) }).collect(),
        // No user namespaces here.
        Err(_) => user,
    }
}

/// The attempts in bwrap, as its manual advises: every namespace, no
/// capabilities, a session of its own, of the system `/usr` read-only.
pub fn bwrap(fixture: &HostFixture, words: &Words) -> Result<Verdicts, String> {
    let path = fixture.place.join("bwrap");
    directory(&path, 0o755);
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]);
    command.args(["--setenv", "PATH", "/usr/bin:/bin", "--ro-bind", "/usr", "/usr"]);
    for name in ["/bin", "/sbin", "/lib", "/lib64"] {
        match fs::read_link(name) {
            Ok(target) => command.arg("--symlink").arg(target).arg(name),
            Err(_) => command.args(["--ro-bind-try", name, name]),
        };
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind"]);
    command.args([&fixture.tools, &fixture.tools]).arg("--bind").arg(&path).args([HOME, "--chdir", HOME]);
    let program = fixture.tools.join("attempts");
    let test = Command::new("bwrap").args(["--unshare-all", "--ro-bind", "/", "/", "true"]).output();
    match test {
        Err(_) => return Err("there is no bwrap here".to_owned()),
        Ok(output) if !output.status.success() => {
            return Err(format!("bwrap does not start: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(_) => {}
    }
    command.arg(program).args(["serve", HOME]).stdin(Stdio::null());
    let mut words = words.clone();
    words.insert("init", Ok("1".to_owned()));
    words.insert("covered", Ok(HOME.to_owned()));
    words.insert("remountable", Ok("/usr".to_owned()));
    let column = SandboxUnderTest::plan(fixture, &path, HOME, words);
    run(command, column)
}

/// Runs whoever makes the attempts to its end.
pub fn run(mut command: Command, column: SandboxUnderTest) -> Result<Verdicts, String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let waited = column.wait(&mut || match child.try_wait() {
        Ok(Some(status)) if !column.directory.join("done").exists() => Err(format!("it ended with {status}")),
        _ => Ok(()),
    });
    if waited.is_err() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    waited.map_err(|why| format!("{why}: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    Ok(column.verdicts())
}
