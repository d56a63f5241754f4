//! `lazarus demo`: the play, and the one that stays up.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// With a temporary directory of its own, in which two demos do not meet.
fn lazarus(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lazarus"));
    command.args(arguments).env("TMPDIR", place).stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Processes that have the place in their command line.
fn processes_naming(place: &Path) -> Vec<String> {
    let place = place.to_string_lossy();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&*place))
        .collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A demo that stays up; killed if the test fails.
struct Serving(Child);

impl Serving {
    fn start(place: &Path) -> (Self, String) {
        let mut child = lazarus(place, &["demo", "--serve"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            said.push_str(&line.unwrap());
            said.push('\n');
            if said.contains("  curl ") {
                return (Self(child), said);
            }
        }
        let _ = child.wait();
        panic!("the demo ended by itself:\n{said}");
    }

    fn end(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let mut status = None;
        wait_until("the demo's end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_plays_the_main_job_up_to_the_pull_request_and_says_where_things_lie() {
    let place = tempfile::tempdir().unwrap();
    let output = lazarus(place.path(), &["demo"]).output().unwrap();
    let said = words(&output);
    assert!(output.status.success(), "{said}");
    for word in
        ["/approve", "is at work", "Pull request: #2", "The work of cell", "the cell's files", "registry.sqlite"]
    {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    wait_until("the end of every process", || processes_naming(place.path()).is_empty());
    let command = said.lines().find_map(|l| l.split_once("ledger verify").map(|(c, _)| c.trim().to_owned())).unwrap();
    let config = command.split("--config ").nth(1).unwrap();
    let verified = lazarus(place.path(), &["--config", config, "ledger", "verify", "--offline"]).output().unwrap();
    assert!(verified.status.success(), "{}", words(&verified));
}

#[test]
fn a_demo_that_serves_is_talked_to_and_leaves_nothing_when_it_is_ended() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let place = tempfile::tempdir().unwrap();
        let (serving, said) = Serving::start(place.path());
        assert!(said.contains("Both stay up"), "{said}");
        let output = lazarus(place.path(), &["demo", "say", "/summon scribe"]).output().unwrap();
        assert!(output.status.success() && words(&output).contains("is at work"), "{}", words(&output));
        let output = lazarus(place.path(), &["demo", "say", "--as", "cleo", "/status"]).output().unwrap();
        assert!(output.status.success() && words(&output).contains("agent:scribe"), "{}", words(&output));
        let output = lazarus(place.path(), &["demo", "say", "--as", "nobody", "/status"]).output().unwrap();
        assert!(!output.status.success() && words(&output).contains("allowed are ada, ben"), "{}", words(&output));
        serving.end(signal);
        wait_until("the end of every process", || processes_naming(place.path()).is_empty());
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".json")), "{left:?}");
    }
}

#[test]
fn a_word_to_a_demo_that_is_not_there_says_how_to_start_one() {
    let place = tempfile::tempdir().unwrap();
    let output = lazarus(place.path(), &["demo", "say", "/status"]).output().unwrap();
    assert!(!output.status.success() && words(&output).contains("lazarus demo --serve"), "{}", words(&output));
}
