//! At the door (threats 1 to 5): what the webhook takes, and what it does
//! under load. Deliveries are real ones, recorded by a listening post, then
//! sent again by hand.

use std::time::{Duration, Instant};

use crate::world::door::signature;
use crate::world::{Delivery, Kind, World, WorldOptions};

/// A world and the delivery of a director's `/summon scribe` that Lazarus has
/// not heard: its own hook is gone, and the reconciler will not look for long.
async fn unheard_summon(name: &str) -> (World, i64, Delivery) {
    let world = World::with(name, WorldOptions { reconcile: "1h", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("At the door", "knock").await;
    world.assert_settled(issue).await;
    world.remove_hooks().await;
    let post = world.listening_post().await;
    world.director().comment(issue, "/summon scribe").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    (world, issue, delivery)
}

/// Nothing was heard: no word, no reaction, no cell.
async fn assert_unheard(world: &World, issue: i64, delivery: &Delivery) {
    world.assert_quiet(issue).await;
    assert!(world.bot_comments(issue).await.is_empty(), "{}", world.evidence(issue).await);
    let said = delivery.json()["comment"]["id"].as_i64().unwrap();
    assert!(world.reactions(said).await.is_empty(), "{}", world.evidence(issue).await);
    assert!(world.live_cells().is_empty());
}

/// The same body, but about a comment that does not exist yet.
fn about_another_comment(delivery: &Delivery, text: &str) -> Delivery {
    let mut body = delivery.json();
    body["comment"]["id"] = serde_json::json!(body["comment"]["id"].as_i64().unwrap() + 1_000_000);
    body["comment"]["body"] = serde_json::json!(text);
    Delivery { body: serde_json::to_vec_pretty(&body).unwrap(), ..delivery.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_01_a_delivery_without_the_right_signature_is_401_and_leaves_no_trace() {
    let (world, issue, delivery) = unheard_summon("signature").await;
    let forged = delivery.clone();
    let (client, url) = (world.client(), world.webhook_url());
    let right = signature(world.webhook_secret(), &forged.body);
    let wrong = signature("another secret", &forged.body);
    let upper = right.to_uppercase();
    let cases: [(&str, Vec<(&str, String)>); 10] = [
        ("none", vec![]),
        ("empty", vec![("X-Gitea-Signature", String::new())]),
        ("short", vec![("X-Gitea-Signature", right[..63].to_owned())]),
        ("long", vec![("X-Gitea-Signature", format!("{right}0"))]),
        ("upper case", vec![("X-Gitea-Signature", upper)]),
        ("wrong", vec![("X-Gitea-Signature", wrong.clone())]),
        ("signed with the empty secret", vec![("X-Gitea-Signature", signature("", &forged.body))]),
        ("with a prefix", vec![("X-Gitea-Signature", format!("sha256={right}"))]),
        ("SHA-1 only", vec![("X-Hub-Signature", format!("sha1={}", &right[..40]))]),
        (
            "one right and one wrong",
            vec![("X-Gitea-Signature", right.clone()), ("X-Hub-Signature-256", format!("sha256={wrong}"))],
        ),
    ];
    for (name, headers) in cases {
        let mut request = forged.unsigned(client, &url);
        for (header, value) in headers {
            request = request.header(header, value);
        }
        assert_eq!(request.send().await.unwrap().status(), 401, "signature: {name}");
    }
    // Right for another body.
    let mut altered = forged.clone();
    let at = altered.body.len() / 2;
    altered.body[at] = altered.body[at].wrapping_add(1);
    let request = altered.unsigned(client, &url).header("X-Gitea-Signature", &right);
    assert_eq!(request.send().await.unwrap().status(), 401, "one byte changed");

    assert_unheard(&world, issue, &delivery).await;

    // What is signed is taken: it was the signature that was missing.
    let taken = forged.signed(client, &url, world.webhook_secret()).send().await.unwrap();
    assert!(taken.status().is_success(), "{}", taken.status());
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_01_the_daemon_refuses_to_start_without_a_secret() {
    let mut world = World::with("no-secret", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let secret = world.place().join("webhook.secret");
    let config = world.installation().config.clone();
    let with_secret = std::fs::read_to_string(&config).unwrap();
    let cases: [(&str, Option<&str>, String); 3] = [
        ("an empty file", Some(""), with_secret.clone()),
        ("no file", None, with_secret.clone()),
        ("no key", None, with_secret.replace("secret_file = \"webhook.secret\"\n", "")),
    ];
    for (name, content, text) in cases {
        match content {
            Some(content) => std::fs::write(&secret, content).unwrap(),
            None => drop(std::fs::remove_file(&secret)),
        }
        std::fs::write(&config, text).unwrap();
        std::fs::write(&world.installation().log, "").unwrap();
        world.daemon().launch();
        let status = world.daemon().wait().await;
        let log = world.installation().log_tail();
        assert!(!status.success(), "it started with {name}:\n{log}");
        assert!(log.to_lowercase().contains("secret"), "with {name} it does not say what is missing:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_02_a_replay_and_a_second_hook_have_exactly_one_effect() {
    let world = World::new("replay").await;
    // A second hook on our address, as an organisation's and a system's would be.
    world.add_hook(&world.webhook_url(), world.webhook_secret()).await;
    let post = world.listening_post().await;
    let issue = world.reader().open_issue("Once", "and not twice").await;
    let said = world.director().comment(issue, "/summon scribe").await;
    let delivery =
        post.wait_for("the comment", |d| d.event == "issue_comment" && d.json()["comment"]["id"] == said).await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    // "Hours later": when it is all over.
    for _ in 0..5 {
        let request = delivery.signed(world.client(), &world.webhook_url(), world.webhook_secret());
        assert!(request.send().await.unwrap().status().is_success());
    }
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    assert_eq!(world.comments_of(issue, Kind::CloseLog).await.len(), 1);
    assert!(world.live_cells().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_03_a_header_that_does_not_fit_the_body_and_a_foreign_repository_are_refused() {
    let (world, issue, delivery) = unheard_summon("misfit").await;
    let (client, url, secret) = (world.client(), world.webhook_url(), world.webhook_secret());
    let order = delivery.clone();
    for event in ["issues", "push", "nonsense", ""] {
        let misfit = Delivery { event: event.into(), event_type: event.into(), ..order.clone() };
        let status = misfit.signed(client, &url, secret).send().await.unwrap().status().as_u16();
        // An event that we do not act on may be taken and left alone.
        assert!(
            status == 400 || status == 422 || status == 403 || (event == "push" && status < 300),
            "{event}: {status}"
        );
    }
    let mut foreign = order.json();
    foreign["repository"]["id"] = serde_json::json!(foreign["repository"]["id"].as_i64().unwrap() + 1_000_000);
    foreign["repository"]["name"] = serde_json::json!("vault");
    foreign["repository"]["full_name"] = serde_json::json!("elsewhere/vault");
    foreign["repository"]["owner"]["login"] = serde_json::json!("elsewhere");
    let foreign = Delivery { body: serde_json::to_vec(&foreign).unwrap(), ..order.clone() };
    let status = foreign.signed(client, &url, secret).send().await.unwrap().status().as_u16();
    assert!((400..500).contains(&status), "a foreign repository: {status}");
    assert_unheard(&world, issue, &delivery).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_04_monstrous_deliveries_take_bounded_time_and_others_go_on() {
    let (world, issue, delivery) = unheard_summon("monsters").await;
    let (client, url, secret) = (world.client(), world.webhook_url(), world.webhook_secret());
    let with_body = |body: Vec<u8>| Delivery { body, ..delivery.clone() };

    let huge = about_another_comment(&delivery, &"x".repeat(11 * 1024 * 1024));
    assert_eq!(huge.signed(client, &url, secret).send().await.unwrap().status(), 413);

    let nested = with_body([b"[".repeat(10_000), b"]".repeat(10_000)].concat());
    let status = nested.signed(client, &url, secret).send().await.unwrap().status().as_u16();
    assert!((400..500).contains(&status), "10,000 levels: {status}");

    let mut labels = delivery.json();
    labels["issue"]["labels"] = serde_json::json!(vec![serde_json::json!({"id": 1, "name": "x"}); 200_000]);
    let started = Instant::now();
    let status =
        with_body(serde_json::to_vec(&labels).unwrap()).signed(client, &url, secret).send().await.unwrap().status();
    assert!(started.elapsed() < Duration::from_secs(5), "200,000 labels took {:?}: {status}", started.elapsed());

    // A compressed body: 10 MiB of blanks in 10 kB. It is not ours to unpack.
    let request = with_body(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]).signed(client, &url, secret);
    let status = request.header("Content-Encoding", "gzip").send().await.unwrap().status().as_u16();
    assert!((400..500).contains(&status), "gzip: {status}");

    // Clients that send a byte and then think, within the head or within the body.
    let address = world.installation().listen;
    let mut slow = Vec::new();
    for number in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n";
        let text = if number % 2 == 0 { head.to_owned() } else { format!("{head}\r\n{{") };
        tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    let status = delivery.signed(client, &url, secret).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(2), "a good delivery waited {:?}", started.elapsed());
    drop(slow);
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_05_while_the_registry_cannot_be_written_nothing_is_acknowledged_and_later_all_is_caught_up() {
    let world = World::with("locked", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Locked", "for a while").await;
    world.assert_settled(issue).await;
    let post = world.listening_post().await;

    let registry = world.data().join("registry.sqlite");
    let holder = rusqlite::Connection::open(&registry).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.director().comment(issue, "/summon scribe").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    let request = delivery.signed(world.client(), &world.webhook_url(), world.webhook_secret());
    let answer = request.timeout(Duration::from_secs(10)).send().await;
    assert!(
        answer.as_ref().map_or(true, |answer| answer.status().is_server_error()),
        "acknowledged without being stored: {answer:?}"
    );
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);

    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    world.finish().await;
}
