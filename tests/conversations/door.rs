//! At the door (threats 1 to 5): what the webhook takes, and what it does
//! under load. Deliveries are real ones, recorded by a listening post, then
//! sent again by hand.

use std::time::{Duration, Instant};

use crate::world::door::signature;
use crate::world::{Delivery, Kind, World, WorldOptions};
use lazarus::gitea::HookOwner;
use secrecy::ExposeSecret as _;

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
    let secret = world.hook_secret().await;
    let right = signature(&secret, &forged.body);
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
    let taken = forged.signed(client, &url, &secret).send().await.unwrap();
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
    let secret = world.hook_secret().await;
    world.add_hook(&world.webhook_url(), &secret).await;
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
        let request = delivery.signed(world.client(), &world.webhook_url(), &secret);
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
    let (client, url, secret) = (world.client(), world.webhook_url(), world.hook_secret().await);
    let secret = secret.as_str();
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
    let (client, url, secret) = (world.client(), world.webhook_url(), world.hook_secret().await);
    let secret = secret.as_str();
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
async fn threat_04_slow_and_stalled_bodies_from_one_address_do_not_hold_up_good_deliveries() {
    let (world, issue, delivery) = unheard_summon("slow-bodies").await;
    let (client, url, secret) = (world.client(), world.webhook_url(), world.hook_secret().await);
    let address = world.installation().listen;
    // D: each gets some megabytes in, then sends no more. Together they are
    // far more than all bodies may hold.
    let mut slow = Vec::new();
    let some = vec![b' '; 5 << 20];
    for _ in 0..24 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                    X-Gitea-Signature: x\r\nContent-Length: 8000000\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        // Who is sent away cannot write any more.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &some).await;
        slow.push(stream);
    }
    let started = Instant::now();
    let status = delivery.signed(client, &url, &secret).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(1), "a good delivery waited {:?}", started.elapsed());
    // A large one that arrives well is not held up either: there is room, for
    // somebody else is sent away.
    let large = about_another_comment(&delivery, &"x".repeat(5 << 20));
    let started = Instant::now();
    let status = large.signed(client, &url, &secret).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(4), "a large delivery waited {:?}", started.elapsed());
    drop(slow);
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_04_more_connections_than_there_are_places_do_not_keep_a_good_delivery_out() {
    let (world, issue, delivery) = unheard_summon("crowd").await;
    let (client, url, secret) = (world.client(), world.webhook_url(), world.hook_secret().await);
    let mut idle = Vec::new();
    for _ in 0..1500 {
        idle.push(tokio::net::TcpStream::connect(world.installation().listen).await.unwrap());
    }
    let started = Instant::now();
    let status = delivery.signed(client, &url, &secret).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(2), "a good delivery waited {:?}", started.elapsed());
    drop(idle);
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

/// How often the daemon asked the forge for the issues of a repository.
fn looks(world: &World) -> usize {
    let requests = world.server().stand_in().unwrap().requests();
    let bot = &world.bot().login;
    requests.iter().filter(|r| r.who == *bot && r.method == "GET" && r.path.contains("/issues?type=issues")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_04_bodies_that_nobody_vouches_for_do_not_make_lazarus_poll_in_a_loop() {
    let world = World::with("poll-loop", WorldOptions { reconcile: "1h", ..WorldOptions::default() }).await;
    if world.skip_on_live() {
        return;
    }
    let issue = world.reader().open_issue("At the door", "knock").await;
    world.assert_settled(issue).await;
    world.remove_hooks().await;
    let said = world.director().comment(issue, "/help").await;
    let before = looks(&world);
    let body = vec![b'x'; 9 << 20];
    let started = Instant::now();
    for _ in 0..12 {
        let request = world
            .client()
            .post(world.webhook_url())
            .header("Content-Type", "application/json")
            .header("X-Gitea-Signature", "whatever")
            .body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 413);
    }
    // What one of them may have been about is found all the same: the
    // director's comment, of which no webhook told.
    world.wait_for_reaction(issue, said, "eyes").await;
    world.assert_settled(issue).await;
    let most = 2 + started.elapsed().as_secs() as usize / 10;
    let looked = looks(&world) - before;
    assert!(looked <= most, "{looked} looks at the forge for 12 bodies in {:?}", started.elapsed());
    world.finish().await;
}

/// A7: the secret of a hook is shown to everybody who administers its
/// repository, so it is worth nothing elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_38_a_secret_counts_only_for_the_repository_or_organisation_that_it_belongs_to() {
    let mut world =
        World::with("own-secret", WorldOptions { start: false, reconcile: "1h", ..WorldOptions::default() }).await;
    let gadget = world.another_repository("gadget", world.writer()).await;
    let widget = world.repository_number().await;
    assert!(world.init().status.success());
    world.daemon().start().await;
    let issue = world.reader().open_issue("At the door", "knock").await;
    world.assert_settled(issue).await;
    world.remove_hooks().await;
    let post = world.listening_post().await;
    world.director().comment(issue, "/summon scribe").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    let organisation = delivery.json()["repository"]["owner"]["id"].as_i64().unwrap();

    let (client, url, master) = (world.client(), world.webhook_url(), world.master_secret());
    let of = |owner| master.hook_secret(owner).expose_secret().to_owned();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut body = delivery.json();
        change(&mut body);
        Delivery { body: serde_json::to_vec_pretty(&body).unwrap(), ..delivery.clone() }
    };
    let another_owner = with(&|body| body["repository"]["owner"]["id"] = serde_json::json!(organisation + 1_000_000));
    let renamed = with(&|body| {
        // The name of ours, the number of theirs.
        body["repository"]["id"] = serde_json::json!(gadget);
        body["issue"]["repository"]["id"] = serde_json::json!(gadget);
    });
    let cases: [(&str, &Delivery, String, u16); 6] = [
        ("another repository's", &delivery, of(HookOwner::Repository(gadget)), 401),
        ("another organisation's", &delivery, of(HookOwner::Organisation(organisation + 1_000_000)), 401),
        (
            "another organisation's, which says that it owns ours",
            &another_owner,
            of(HookOwner::Organisation(organisation + 1_000_000)),
            403,
        ),
        ("an organisation's number as a repository's", &delivery, of(HookOwner::Organisation(widget)), 401),
        ("the installation's own", &delivery, world.webhook_secret().to_owned(), 401),
        ("ours, for the number of another", &renamed, of(HookOwner::Repository(widget)), 401),
    ];
    for (name, delivery, secret, expected) in cases {
        let answer = delivery.signed(client, &url, &secret).send().await.unwrap();
        assert_eq!(answer.status(), expected, "signed with {name}: {}", answer.text().await.unwrap());
    }
    assert_unheard(&world, issue, &delivery).await;

    // The organisation that owns it may speak for it, and so may its own hook.
    let taken = delivery.signed(client, &url, &of(HookOwner::Organisation(organisation))).send().await.unwrap();
    assert!(taken.status().is_success(), "{}", taken.status());
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    let again = delivery.signed(client, &url, &of(HookOwner::Repository(widget))).send().await.unwrap();
    assert!(again.status().is_success(), "{}", again.status());
    world.assert_settled(issue).await;
    assert_eq!(world.comments_of(issue, Kind::SpawnLog).await.len(), 1);
    world.finish().await;
}

/// One webhook for all repositories of an organisation, made by hand by one of
/// its owners with what the command line said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_of_an_organisation_speaks_for_its_repositories() {
    let world = World::with("organisation", WorldOptions { reconcile: "1h", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("One for all", "repositories").await;
    world.assert_settled(issue).await;
    world.remove_hooks().await;
    let (organisation, _) = world.repository().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let said = world.cli(&["init", "--organisation", &organisation, "--show-secret"]).stdout;
    let after = |word: &str| {
        let line = said.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in {said}"));
        line[word.len()..].trim().to_owned()
    };
    let hook = serde_json::json!({
        "type": "gitea", "active": true, "branch_filter": after("Branch filter"),
        "events": after("Trigger On      Custom Events:").split(", ").collect::<Vec<_>>(),
        "config": {"url": after("Target URL"), "content_type": "json", "secret": after("Secret  ")},
    });
    world.admin("POST", &format!("/orgs/{organisation}/hooks"), Some(hook), &[201]).await;
    let comment = world.director().comment(issue, "/summon scribe").await;
    world.wait_for_reaction(issue, comment, "eyes").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

/// An upgrade: the webhook holds the installation's own secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_of_an_older_version_is_refused_by_name_and_init_puts_it_right_while_lazarus_runs() {
    let mut world =
        World::with("older-hook", WorldOptions { start: false, reconcile: "2s", ..WorldOptions::default() }).await;
    world.add_hook(&world.webhook_url(), world.webhook_secret()).await;
    world.daemon().start().await;
    let advice = format!("lazarus init {}", world.repository());
    let issue = world.reader().open_issue("Older", "than this").await;
    let said = world.director().comment(issue, "/help").await;
    // Late, not deaf.
    world.wait_for_reaction(issue, said, "eyes").await;
    world
        .wait_until("the advice in the log", issue, async || {
            let log = world.installation().log_tail();
            (log.contains(&advice) && log.contains("a delivery was refused")).then_some(())
        })
        .await;

    let secret = world.hook_secret().await;
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    assert_ne!(world.hook_secret().await, secret, "the old one was known to the repository's administrators");
    // Heard by the webhook, without a restart.
    let post = world.listening_post().await;
    let said = world.director().comment(issue, "/help").await;
    let delivery =
        post.wait_for("the comment", |d| d.event == "issue_comment" && d.json()["comment"]["id"] == said).await;
    world.wait_for_reaction(issue, said, "eyes").await;
    let (client, url) = (world.client(), world.webhook_url());
    let old = delivery.signed(client, &url, &secret).send().await.unwrap();
    assert_eq!(old.status(), 401, "what is derived from the old one counts for nothing");
    let new = delivery.signed(client, &url, &world.hook_secret().await).send().await.unwrap();
    assert!(new.status().is_success(), "{}", new.status());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_before_the_forge_told_who_is_served_is_not_taken_by_name_and_found_later() {
    let mut world =
        World::with("too-early", WorldOptions { start: false, reconcile: "2s", ..WorldOptions::default() }).await;
    if world.skip_on_live() {
        return;
    }
    assert!(world.init().status.success());
    let bot = world.bot().login.clone();
    world
        .misbehave(serde_json::json!({"api": [{"path": "/api/v1/user$", "who": bot, "do": "refuse", "status": 503}]}))
        .await;
    world.daemon().launch();
    let issue = world.reader().open_issue("Too early", "for this").await;
    let post = world.listening_post().await;
    // Of those commands that everybody may give, however they were found.
    let said = world.director().comment(issue, "/help").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    world
        .wait_until("the door", issue, async || {
            let answer = world.client().get(world.webhook_url().replace("/webhook", "/healthz")).send().await;
            answer.ok().map(drop)
        })
        .await;
    let secret = world.hook_secret().await;
    let answer = delivery.signed(world.client(), &world.webhook_url(), &secret).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("polling"));
    world.behave().await;
    world.wait_for_reaction(issue, said, "eyes").await;
    world.assert_settled(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_05_while_the_registry_cannot_be_written_nothing_is_acknowledged_and_later_all_is_caught_up() {
    let world = World::with("locked", WorldOptions::polled()).await;
    let issue = world.reader().open_issue("Locked", "for a while").await;
    world.assert_settled(issue).await;
    let post = world.listening_post().await;
    let secret = world.hook_secret().await;

    let registry = world.data().join("registry.sqlite");
    let holder = rusqlite::Connection::open(&registry).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.director().comment(issue, "/summon scribe").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    let request = delivery.signed(world.client(), &world.webhook_url(), &secret);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_05_a_sender_that_hangs_up_while_its_delivery_is_stored_is_heard_all_the_same() {
    let world = World::with("hung-up", WorldOptions::polled()).await;
    let issue = world.reader().open_issue("Locked", "for a moment").await;
    world.assert_settled(issue).await;
    let post = world.listening_post().await;
    let secret = world.hook_secret().await;

    let holder = rusqlite::Connection::open(world.data().join("registry.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.director().comment(issue, "/summon scribe").await;
    let delivery = post.wait_for("the comment", |d| d.event == "issue_comment").await;
    // Less than the registry is waited for: the sender is gone when its delivery is stored.
    let request = delivery.signed(world.client(), &world.webhook_url(), &secret);
    let answer = request.timeout(Duration::from_secs(1)).send().await;
    assert!(answer.is_err(), "acknowledged without being stored: {answer:?}");
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);

    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}
