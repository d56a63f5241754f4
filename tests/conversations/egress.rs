//! Cells that may reach named hosts, and no others.

use crate::world::{Kind, World, WorldOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A host on loopback that answers each request with a line, and with a second
/// one when it is told to. Returns its port, what it was asked for, and the way
/// to tell it.
fn host() -> (u16, Receiver<String>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, was_asked) = channel();
    let (tell, told) = channel::<()>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
            let slow = first.contains("/slow");
            if asked.send(first).is_err() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst words\n");
            if slow && told.recv().is_ok() {
                let _ = stream.write_all(b"last words\n");
            }
        }
    });
    (port, was_asked, tell)
}

/// bash speaks TCP by itself; nothing else is needed in the cell.
const ASK: &str = r#"ask() { exec 3<>/dev/tcp/127.0.0.1/3128 || return; \
auth=$(printf %s "${HTTP_PROXY#http://}" | sed 's/@.*//' | base64 -w0); \
printf 'GET %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\nConnection: close\r\n\r\n' "$1" "$2" "$auth" >&3; \
cat <&3; }; "#;

fn agent(name: &str, hosts: &str, script: &str) -> String {
    // An argument is one line.
    let script = format!("{}{script}", ASK.replace("\\\n", "")).replace('{', "{{").replace('}', "}}");
    format!(
        "[agents.{name}]\ndescription = \"Asks\"\nargv = [\"bash\", \"-c\", {script:?}]\nprompt = \"stdin\"\n\
         network_hosts = [{hosts}]\n"
    )
}

const NAMED: &str = "[egress]\nallow_addresses = [\"127.0.0.1\"]\naddresses = [\"files.example.test=127.0.0.1\", \"other.example.test=127.0.0.1\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_20_a_cell_reaches_the_hosts_that_are_named_and_no_others() {
    let (port, asked, _tell) = host();
    let named = format!("files.example.test:{port}");
    let script = format!(
        "echo direct; (exec 4<>/dev/tcp/127.0.0.1/{port}) && echo reached directly; \
         ask http://{named}/hello {named}; \
         ask http://other.example.test:{port}/secret other.example.test:{port}; \
         ask http://127.0.0.1:{port}/secret 127.0.0.1:{port}; \
         HTTP_PROXY=http://lazarus:0000@x; ask http://{named}/secret {named}; \
         tr '\\0' '\\n' < /proc/self/environ | grep -c '^HTTPS_PROXY=http://lazarus:'"
    );
    let config = format!("{NAMED}{}", agent("asker", &format!("{named:?}"), &script));
    let world = World::with("egress", WorldOptions { config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("asker", "Ask.").await;
    world.director().comment(issue, "/summon asker network=proxy").await;
    let spawn = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::Refusal, Kind::Warning], |_| true).await;
    if !spawn.body.contains("level_2") {
        println!("not run: this host gives no network namespace\n{}", spawn.body);
        return world.finish().await;
    }
    let cell = spawn.cell();
    assert!(spawn.body.contains("network **proxy**") && spawn.body.contains(&named), "{}", spawn.body);
    world.wait_for_state(issue, &cell, &["idle", "downed"]).await;
    let log = world.cli(&["logs", &cell]).all();
    world.director().comment(issue, "/close").await;
    let closed = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;

    assert!(log.contains("first words"), "the named host was not reached:\n{log}");
    assert!(!log.contains("reached directly"), "there is a way around the proxy:\n{log}");
    let requests: Vec<String> = asked.try_iter().collect();
    assert_eq!(requests.len(), 1, "more than the named host was reached: {requests:?}");
    assert!(requests[0].starts_with("GET /hello "), "{requests:?}");
    for words in [&format!("`{named}` | 1 |")[..], "a host or port that is not named: 2", "a wrong token: 1"] {
        assert!(closed.body.contains(words), "{words:?} is not in\n{}", closed.body);
    }
    let refused = world.file_of_cell(&cell, ".lazarus/egress-refused.jsonl").expect("a record of what was refused");
    assert!(refused.contains("other.example.test") && !refused.contains("secret"), "{refused}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_the_daemon_and_not_the_cell() {
    let (port, asked, tell) = host();
    let named = format!("files.example.test:{port}");
    let config = format!(
        "{NAMED}{}",
        agent(
            "asker",
            &format!("{named:?}"),
            &format!("ask http://{named}/slow {named}; ask http://{named}/slow {named}")
        )
    );
    let mut world = World::with("egress-outlives", WorldOptions { config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("asker", "Ask.").await;
    world.director().comment(issue, "/summon asker network=proxy").await;
    let spawn = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::Refusal, Kind::Warning], |_| true).await;
    if !spawn.body.contains("level_2") {
        println!("not run: this host gives no network namespace");
        return world.finish().await;
    }
    let cell = spawn.cell();
    world.wait_until("the host is asked", issue, async || asked.try_recv().ok()).await;
    world.daemon().kill_9();
    world.daemon().start().await;
    tell.send(()).unwrap();
    world.wait_until("the answer is whole, and another is begun", issue, async || asked.try_recv().ok()).await;
    assert!(world.cli(&["logs", &cell]).all().contains("last words"));
    // The second is not answered to its end: the cell is closed, and its way out with it.
    world.director().comment(issue, "/close").await;
    let closed = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(closed.body.contains(&format!("`{named}` | 2 |")), "{}", closed.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_cannot_be_meant_are_refused_by_name() {
    let world = World::new("egress-names").await;
    for (hosts, why) in
        [("*.org", "is not"), ("169.254.169.254", "is not the name of a host"), ("a.example.test:99999", "is not")]
    {
        let proposal =
            crate::world::Proposal { hosts: Some(hosts.to_owned()), ..crate::world::Proposal::for_agents("scribe") };
        let issue = world.reader().open_proposal(&proposal).await;
        let refusal = world.wait_for_comment(issue, Kind::Refusal, |_| true).await;
        assert!(refusal.body.contains("Network hosts") && refusal.body.contains(why), "{}", refusal.body);
    }
    world.finish().await;
}
