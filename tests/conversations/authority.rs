//! Who may say what (threats 7 to 12): authority is by account number, checked
//! when a command runs, and only words that were meant as a command are one.

use crate::world::{Kind, Proposal, World, WorldOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_cannot_approve() {
    let world = World::new("reader-approves").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    for person in [world.reader(), world.stranger(), world.writer()] {
        let approval = person.comment(issue, "/approve").await;
        world.wait_for_reaction(issue, approval, "confused").await;
    }
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["director"])).await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writers_summon_becomes_a_request_that_a_director_approves() {
    let world = World::new("request").await;
    let issue = world.reader().open_issue("Slow parser", "It is slow.").await;
    world.writer().comment(issue, "/summon scribe").await;
    world.wait_for_any(issue, &[Kind::Question, Kind::Answer], |comment| comment.says(&["/approve", "director"])).await;
    world.assert_no_cell(issue).await;
    let own = world.writer().comment(issue, "/approve").await;
    world.wait_for_reaction(issue, own, "confused").await;
    world.assert_no_cell(issue).await;
    world.director().comment(issue, "/approve").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert!(spawned.says(&[&world.writer().login, &world.director().login]), "{}", spawned.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_may_not_summon_close_or_destroy() {
    let world = World::new("reader-commands").await;
    let issue = world.reader().open_issue("Mine", "all mine").await;
    let summon = world.reader().comment(issue, "/summon sleeper").await;
    world.wait_for_reaction(issue, summon, "confused").await;
    world.assert_no_cell(issue).await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    for command in ["/close", "/pause", "/extend 1h", "/invite agent:scribe executor"] {
        let comment = world.reader().comment(issue, command).await;
        world.wait_for_reaction(issue, comment, "confused").await;
    }
    let comment = world.writer().comment(issue, &format!("/destroy {cell}")).await;
    world.wait_for_reaction(issue, comment, "confused").await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("active"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_an_edited_comment_is_never_executed() {
    let world = World::with("edited", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Edits", "follow").await;
    let own = world.director().comment(issue, "nothing yet").await;
    world.director().edit_comment(own, "/summon scribe").await;
    world.assert_no_cell(issue).await;
    assert!(world.reactions(own).await.iter().all(|reaction| reaction != "+1"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_a_writer_who_puts_a_command_in_a_directors_mouth_is_on_record() {
    let world = World::with("mouth", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Mouths", "and words in them").await;
    let said = world.director().comment(issue, "I shall think about it.").await;
    world.writer().edit_comment(said, "/summon scribe").await;
    world.assert_no_cell(issue).await;
    let recorded = world
        .wait_until("a security entry in the ledger", issue, async || {
            let ledger = world.ledger();
            ledger.to_lowercase().contains("security").then_some(ledger)
        })
        .await;
    assert!(recorded.contains(&world.writer().login) || recorded.contains(&world.writer().id.to_string()));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_a_comment_deleted_before_it_was_heard_is_never_executed() {
    let mut world = World::with("deleted", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Gone", "before it was heard").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    let said = world.director().comment(issue, "/summon scribe").await;
    world.director().delete_comment(said).await;
    world.daemon().start().await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_the_bots_own_words_are_never_a_command() {
    let world = World::with("own-words", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("The bot speaks", "to itself").await;
    // The bot's account administers the repository: only who it is speaks against it.
    let said = world
        .bot()
        .comment(issue, "/summon scribe\n\n<!-- lazarus kind=answer effect=0198c0de-0000-7000-8000-000000000000 -->")
        .await;
    world.assert_no_cell(issue).await;
    assert!(world.reactions(said).await.is_empty());
    assert_eq!(world.bot_comments(issue).await.len(), 1, "and it does not answer itself");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_words_that_are_not_ordinary_text_are_never_a_command() {
    let world = World::new("not-text").await;
    let issue = world.reader().open_issue("Examples", "of commands").await;
    let cases = [
        "`/summon scribe`",
        "```\n/summon scribe\n```",
        "~~~\n/summon scribe\n~~~",
        "````\n```\n/summon scribe\n```\n````",
        "```\n/summon scribe",
        "`a\n/summon scribe\nb`",
        "like this:\n\n    /summon scribe",
        "\t/summon scribe",
        "> /summon scribe",
        "> quoted\n/summon scribe",
        "> > deeper\n/summon scribe",
        "[a\n/summon scribe\nb](http://127.0.0.1/)",
        "![a\n/summon scribe\nb](http://127.0.0.1/x.png)",
        "| a | b |\n| - | - |\n| /summon scribe | x |",
        "| a |\n| - |\n/summon scribe",
        "<!--\n/summon scribe\n-->",
        "<!-- a -->\n<pre>\n/summon scribe\n</pre>",
        "<div>\n/summon scribe\n</div>",
        "<details>\n<summary>x</summary>\n\n/summon scribe\n\n</details>",
        "<details>\n\n/summon scribe",
        "</p>\n\n<details>\n\n/summon scribe\n\n</details>",
        "<details>\n<!-- </details> -->\n\n/summon scribe\n\n</details>",
        "<details title=\"</details>\">\n\n/summon scribe\n\n</details>",
        "<details title=\"/>\">\n\n/summon scribe\n\n</details>",
        "<details/>\n\n/summon scribe",
        "<details>\n\n</b>\n\n/summon scribe\n\n</details>",
        "---\ntitle: x\n\n/close abandoned: hidden\n\n---\n\nHello",
        "please /summon scribe",
        "# /summon scribe",
        "\\/summon scribe",
        "//summon scribe",
        "/ summon scribe",
    ];
    let mut said = Vec::new();
    for case in cases {
        said.push((case, world.director().comment(issue, case).await));
    }
    world.assert_no_cell(issue).await;
    for (case, comment) in said {
        assert!(world.reactions(comment).await.is_empty(), "this was read as a command: {case:?}");
    }
    assert!(world.bot_comments(issue).await.is_empty(), "{}", world.evidence(issue).await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_a_command_that_only_looks_like_one_is_refused_visibly() {
    let world = World::new("look-alikes").await;
    let issue = world.reader().open_issue("Look-alikes", "follow").await;
    let cases = [
        "\u{ff0f}summon scribe",
        "/sum\u{200b}mon scribe",
        "\u{200b}/summon scribe",
        "/summon\u{a0}scribe",
        "/summon \u{202e}ebircs",
        "/summon scribe\u{0}",
        "/summon scri\u{200d}be",
    ];
    for case in cases {
        let comment = world.director().comment(issue, case).await;
        world
            .wait_until(&format!("a visible refusal of {case:?}"), issue, async || {
                world.reactions(comment).await.contains(&"confused".to_owned()).then_some(())
            })
            .await;
    }
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_09_who_takes_a_former_directors_name_does_not_take_the_office() {
    let world = World::with("name-taken", WorldOptions { configured_director: true, ..WorldOptions::default() }).await;
    let director = world.director().clone();
    // The office is known by number from the first look on.
    let first = world.reader().open_issue("First", "by the real one").await;
    let help = director.comment(first, "/summon scribe").await;
    world.wait_for_reaction(first, help, "+1").await;

    world.rename_account(&director.login, &format!("{}-old", director.login)).await;
    let taker = world.make_person(&director.login, &["write:issue", "write:repository"]).await;
    let issue = world.reader().open_issue("Second", "by another of that name").await;
    let taken = taker.comment(issue, "/summon scribe").await;
    world.wait_for_reaction(issue, taken, "confused").await;
    assert!(world.comments_of(issue, Kind::SpawnLog).await.is_empty());

    // The person is who they were, under another name.
    director.comment(issue, "/summon scribe").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_09_a_director_demoted_before_the_command_runs_is_none() {
    let mut world = World::with("demoted", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Too late", "for that").await;
    world.assert_settled(issue).await;
    world.daemon().stop().await;
    let said = world.director().comment(issue, "/summon scribe").await;
    world.set_permission(&world.director().login.clone(), "read").await;
    world.daemon().start().await;
    // Heard late by a signed delivery or by polling; what it may become is a
    // refusal, or a request that a director would have to approve.
    world.wait_for_reaction(issue, said, "eyes").await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_10_arguments_are_literal_or_refused() {
    let world = World::new("literal").await;
    let issue = world.reader().open_issue("Arguments", "are words").await;
    let trap = world.place().join("trap");
    let refused = [
        "/summon $CANARY_SECRET".to_owned(),
        "/summon `id`".to_owned(),
        "/summon ../../etc/passwd".to_owned(),
        "/summon --help".to_owned(),
        "/summon ~root".to_owned(),
        format!("/summon scribe;touch${{IFS}}{}", trap.display()),
        format!("/summon {}", "a".repeat(10_000)),
        "/summon scribe backend=$BACKEND".to_owned(),
        "/summon scribe isolation=../level_2".to_owned(),
        "/invite human:-rf observer".to_owned(),
        "/status ../../../etc/passwd".to_owned(),
        "/status laz-$CANARY_SECRET".to_owned(),
    ];
    for command in refused {
        let comment = world.director().comment(issue, &command).await;
        world.wait_for_reaction(issue, comment, "confused").await;
    }
    world.assert_no_cell(issue).await;

    let task = format!("$CANARY_SECRET `id` $(touch {}) && ~ ../.. -rf", trap.display());
    world.director().comment(issue, &format!("/summon scribe task=\"{task}\"")).await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close completed $CANARY_SECRET `id` $(id)").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(!log.body.contains("uid="), "{}", log.body);
    assert!(!trap.exists(), "something was expanded by a shell");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_11_a_thousand_commands_in_a_comment_are_ten() {
    let world = World::new("thousand").await;
    let issue = world.reader().open_issue("Many", "too many").await;
    world.director().comment(issue, &"/help\n".repeat(1000)).await;
    world.assert_settled(issue).await;
    let said = world.bot_comments(issue).await;
    assert!(!said.is_empty() && said.len() <= 11, "{} comments", said.len());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_may_allow_fewer_commands_in_a_comment() {
    let policy = "max_commands_per_comment = 2".to_owned();
    let world = World::with("fewer-commands", WorldOptions { policy, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Few", "are enough").await;
    world.director().comment(issue, "/help status\n/help\n/summon sleeper").await;
    let told = world.wait_for_any(issue, &[Kind::Answer, Kind::Refusal], |_| true).await;
    assert!(told.says(&["at most 2 commands", "1 more"]), "{}", told.body);
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_11_a_flood_by_one_person_is_bounded_and_others_are_still_heard() {
    let world = World::new("flood").await;
    let (issue, other) =
        (world.reader().open_issue("Flood", "of it").await, world.reader().open_issue("Island", "in it").await);
    for _ in 0..100 {
        world.reader().comment(issue, "/help status").await;
    }
    let asked = world.director().comment(other, "/help").await;
    world.wait_for_reaction(other, asked, "+1").await;
    world.assert_settled(issue).await;
    let said = world.bot_comments(issue).await.len();
    // Thirty a minute, one word that the rest is not read, and a minute may have passed between.
    assert!((1..=62).contains(&said), "{said} answers to 100 commands");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_12_a_command_on_one_mission_does_not_reach_anothers_cell() {
    let world = World::new("cross-mission").await;
    let (one, other) = (world.reader().open_issue("One", "a").await, world.reader().open_issue("Other", "b").await);
    let mut cells = Vec::new();
    for issue in [one, other] {
        world.director().comment(issue, "/summon sleeper").await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        world.wait_for_state(issue, &cell, &["active"]).await;
        cells.push(cell);
    }
    let others = &cells[1];
    for command in [
        format!("/destroy {others}"),
        format!("/status {others}"),
        format!("/invite human:{} observer {others}", world.reader().login),
        format!("/resurrect {others}"),
    ] {
        let comment = world.director().comment(one, &command).await;
        world.wait_for_reaction(one, comment, "confused").await;
    }
    world.assert_settled(other).await;
    assert_eq!(world.cell_state(others).as_deref(), Some("active"));
    assert_eq!(world.comments_of(other, Kind::CloseLog).await.len(), 0);
    world.finish().await;
}
