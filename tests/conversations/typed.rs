//! Commands as people type them: in the wrong place, with their own quotes and
//! scripts, with an outcome in their own words, beside other bots; and what the thread
//! says when an agent's work ends.

use crate::world::{Kind, Proposal, World, WorldOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_a_place_where_it_does_not_count_is_answered_once() {
    let world = World::new("misplaced").await;
    let (director, writer, reader) = (world.director(), world.writer(), world.reader());
    let issue = reader.open_proposal(&Proposal::for_agents("sleeper")).await;
    let request = world.wait_for_comment(issue, Kind::Request, |_| true).await;
    for (text, place) in [
        ("- it is fine\n/approve", "in a list"),
        ("`/approve`", "in code"),
        ("> /approve\n\nYes, I agree.", "in a quote"),
        ("**/approve**", "in bold"),
        ("/approve\n---\nthanks", "`---`"),
        ("<details>\n\n/approve", "<details>"),
    ] {
        let before = world.comments_of(issue, Kind::Refusal).await.len();
        let said = director.comment(issue, text).await;
        world.wait_for_reaction(issue, said, "confused").await;
        world
            .wait_until(&format!("one answer to {text:?}"), issue, async || {
                let refusals = world.comments_of(issue, Kind::Refusal).await;
                let new = refusals.get(before..)?;
                let [answer] = new else { return None };
                answer.says(&["`/approve`", place, "a line of its own"]).then_some(())
            })
            .await;
        assert!(!world.reactions(said).await.contains(&"eyes".to_owned()), "it was taken for a command: {text:?}");
    }
    // Two in one comment are one answer; nobody else is told, and neither is what quotes the bot.
    let answers = world.comments_of(issue, Kind::Refusal).await.len();
    let twice = director.comment(issue, "> /approve\n\n- /approve\n- /pause").await;
    world.wait_for_reaction(issue, twice, "confused").await;
    let quoted = format!("> {}\n", request.text().replace('\n', "\n> "));
    let mut silent = vec![director.comment(issue, &format!("{quoted}\nWhat is the hash for?")).await];
    silent.push(reader.comment(issue, "> /approve\n\nPlease!").await);
    silent.push(writer.comment(issue, "- /approve").await);
    silent.push(director.comment(issue, "<details><summary>log</summary>\n\n/approve\n\n</details>").await);
    let answered = writer.comment(issue, "- /tell sleeper hello").await;
    world.wait_for_reaction(issue, answered, "confused").await;
    world.assert_settled(issue).await;
    for said in silent {
        assert_eq!(world.reactions(said).await, Vec::<String>::new(), "{}", world.evidence(issue).await);
    }
    assert_eq!(world.comments_of(issue, Kind::Refusal).await.len(), answers + 2, "{}", world.evidence(issue).await);
    world.assert_no_cell(issue).await;

    // As ordinary text it counts, and what is quoted beside it is no news.
    let before = world.comments_of(issue, Kind::Refusal).await.len();
    let given = director.comment(issue, "> /approve\n\n/approve").await;
    world.wait_for_reaction(issue, given, "+1").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    assert_eq!(world.comments_of(issue, Kind::Refusal).await.len(), before);
    director.comment(issue, "/close abandoned").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_issue_that_is_no_mission_people_and_other_bots_are_left_alone() {
    let world = World::new("no-mission").await;
    let issue = world.reader().open_issue("A bug", "in the parser").await;
    let ci = world.make_person("merge-bot", &["write:issue", "write:repository"]).await;
    world.set_permission(&ci.login, "write").await;
    let mut silent = vec![];
    for text in ["/approve", "/clone", "/note", "/teams", "/staus", "/close failed", "> /approve", "/extend soon"] {
        silent.push(world.reader().comment(issue, text).await);
        silent.push(ci.comment(issue, text).await);
    }
    for text in ["/clone", "/note x", "/teams", "- /approve", "`/close`"] {
        silent.push(world.director().comment(issue, text).await);
    }
    let told = world.writer().comment(issue, "/approve").await;
    world.wait_for_reaction(issue, told, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["`/approve`", "no mission", "/summon"])).await;
    silent.push(world.director().comment(issue, "/close").await);
    world.assert_settled(issue).await;
    for said in silent {
        assert_eq!(world.reactions(said).await, Vec::<String>::new(), "{}", world.evidence(issue).await);
    }
    assert_eq!(world.bot_comments(issue).await.len(), 1, "{}", world.evidence(issue).await);
    // It can become one all the same.
    world.director().comment(issue, "/summon sleeper").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    let near = world.director().comment(issue, "/clos").await;
    world.wait_for_reaction(issue, near, "confused").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_cell_ended_is_what_the_director_said_or_what_came_of_it() {
    let world = World::new("outcomes").await;
    for (agent, close, outcome, words) in [
        ("sleeper", "/close failed.", "failed", &[][..]),
        ("sleeper", "/close as failed", "failed", &[]),
        ("sleeper", "/close not done", "failed", &["not done"]),
        ("crasher", "/close", "failed", &["exit 3"]),
        ("crasher", "/close completed", "completed", &["exit 3"]),
        ("quick", "/close", "failed", &["nothing was committed or changed"]),
        ("quick", "/close completed", "completed", &[]),
        ("scribe", "/close", "completed", &[]),
    ] {
        let issue = world.reader().open_issue("Some work", "for an agent").await;
        world.director().comment(issue, &format!("/summon {agent}")).await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        let state = match agent {
            "sleeper" => "active",
            "crasher" => "downed",
            _ => "idle",
        };
        world.wait_for_state(issue, &cell, &[state]).await;
        world.director().comment(issue, close).await;
        let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        let first = log.text().lines().next().unwrap_or_default().to_owned();
        assert!(first.contains(&format!("`: {outcome}")), "{agent}, {close}: {first}");
        for word in words {
            assert!(first.contains(word), "{agent}, {close}: `{word}` is not in the first line: {first}");
        }
    }
    // Where it is not plain, it is asked for, and nothing ends.
    let issue = world.reader().open_issue("Some work", "for an agent").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let said = world.director().comment(issue, "/close the tests do not pass").await;
    world.wait_for_reaction(issue, said, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["`failed`", "`abandoned`"])).await;
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotes_and_text_are_taken_as_keyboards_make_them() {
    let world = World::new("keyboards").await;
    let issue = world.reader().open_issue("Any keyboard", "will do").await;
    world.director().comment(issue, "/summon sleeper task=‘don’t break the login ❤️’ ttl=15m").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |log| log.says(&["15m"])).await;
    for text in ["add a ❤️", "a\u{a0}b", "全角　空白", "می‌خواهم", "क्‍ष 👩‍💻"] {
        let told = world.director().comment(issue, &format!("/tell sleeper {text}")).await;
        world.wait_for_reaction(issue, told, "+1").await;
    }
    for text in ["a\u{202e}b", "a\u{200b}b"] {
        let told = world.director().comment(issue, &format!("/tell sleeper {text}")).await;
        world.wait_for_reaction(issue, told, "confused").await;
    }
    let open = world.director().comment(issue, "/summon sleeper task='fix it ttl=15m").await;
    world.wait_for_reaction(issue, open, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["quote '", "task=", "not closed"])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_names_hosts_as_a_profile_does() {
    let config = "[egress]\nallow_addresses = [\"10.0.0.5\"]\n".to_owned();
    let world = World::with("hosts", WorldOptions { config, ..WorldOptions::default() }).await;
    let propose = async |hosts: &str| {
        let proposal = Proposal { hosts: Some(hosts.to_owned()), ..Proposal::for_agents("sleeper") };
        world.reader().open_proposal(&proposal).await
    };
    let issue = propose("nexus:8081, 10.0.0.5:8081").await;
    world.wait_for_comment(issue, Kind::Request, |c| c.says(&["nexus:8081", "ip:10.0.0.5:8081", "proxy"])).await;
    let issue = propose("n/a").await;
    world.wait_for_comment(issue, Kind::Request, |c| c.says(&["none"])).await;
    let issue = propose("10.0.0.6:8081").await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.says(&["Network hosts", "10.0.0.6", "allow_addresses"])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_work_ends_one_comment_says_so_and_names_the_next_step() {
    let mut world = World::new("work-ended").await;
    let issue = world.reader().open_issue("Quick work", "please").await;
    world.writer().comment(issue, "/summon quick").await;
    world.wait_for_comment(issue, Kind::Request, |_| true).await;
    world.director().comment(issue, "/approve").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let ends =
        |comment: &crate::world::Comment| comment.says(&["has ended", "`quick` (exit 0)", "/close", "/tell quick"]);
    let said = world.wait_for_comment(issue, Kind::Answer, ends).await;
    assert_eq!(said.cell(), cell);
    for person in [world.director(), world.writer()] {
        assert!(said.text().contains(&format!("@{}", person.login)), "nobody is called:\n{}", said.body);
    }
    // More time, and another daemon, are no new end.
    let extended = world.director().comment(issue, "/extend 1h").await;
    world.wait_for_reaction(issue, extended, "+1").await;
    world.daemon().restart().await;
    world.assert_settled(issue).await;
    let count = async |world: &World| world.comments_of(issue, Kind::Answer).await.iter().filter(|c| ends(c)).count();
    assert_eq!(count(&world).await, 1, "{}", world.evidence(issue).await);
    // More work ends again.
    world.director().comment(issue, "/tell quick once more").await;
    world.wait_until("the second end", issue, async || (count(&world).await == 2).then_some(())).await;
    world.director().comment(issue, "/close abandoned").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_prefix_the_commands_of_other_bots_are_theirs() {
    let config = "[commands]\nprefix = \"lazarus\"\n".to_owned();
    let world = World::with("prefix", WorldOptions { config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("quick")).await;
    world.wait_for_comment(issue, Kind::Request, |c| c.text().contains("`/lazarus approve 1`")).await;
    let mut silent = vec![];
    for text in ["/approve", "- /approve", "/aprove"] {
        silent.push(world.director().comment(issue, text).await);
    }
    let misplaced = world.director().comment(issue, "- /lazarus approve").await;
    world.wait_for_reaction(issue, misplaced, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |c| c.text().contains("`/lazarus approve` (in a list")).await;
    let given = world.director().comment(issue, "/lazarus approve").await;
    world.wait_for_reaction(issue, given, "+1").await;
    world
        .wait_for_comment(issue, Kind::Answer, |c| c.says(&["has ended", "`/lazarus close`", "`/lazarus tell quick"]))
        .await;
    let help = world.director().comment(issue, "/lazarus help").await;
    world.wait_for_reaction(issue, help, "+1").await;
    world.wait_for_comment(issue, Kind::Answer, |c| c.text().contains("| `/lazarus summon AGENT")).await;
    for said in silent {
        assert_eq!(world.reactions(said).await, Vec::<String>::new(), "{}", world.evidence(issue).await);
    }
    world.director().comment(issue, "/lazarus close completed").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}
