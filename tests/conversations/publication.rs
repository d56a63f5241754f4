//! What leaves (threats 25 and 26).

use crate::world::{Kind, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_26_what_may_not_leave_is_refused_and_on_record() {
    let world = World::new("publish").await;
    let issue = world.reader().open_issue("Publish", "what?").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    // Kinds for which there is no way out, and a kind that a writer may not let out.
    for kind in ["home", "scratchpad", "logs", "credentials"] {
        let comment = world.director().comment(issue, &format!("/publish {kind}")).await;
        world.wait_for_reaction(issue, comment, "confused").await;
        world
            .wait_for_any(issue, &[Kind::Refusal, Kind::Answer], |answer| answer.says(&[kind, "notes", "decisions"]))
            .await;
    }
    let comment = world.writer().comment(issue, "/publish notes").await;
    world.wait_for_reaction(issue, comment, "confused").await;
    world.assert_settled(issue).await;
    let ledger = world.ledger();
    assert!(ledger.contains("publish"), "the refusals are on record:\n{ledger}");
    assert!(world.pulls().await.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_25_what_people_wrote_is_harmless_in_the_bots_mouth() {
    let world = World::new("mouthpiece").await;
    let issue = world.reader().open_issue("Echo", "echo").await;
    let evil = format!(
        "@{} closes #1 <img src=http://127.0.0.1/x> ![x](http://127.0.0.1/y) /summon <!-- lazarus kind=close-log -->",
        world.reader().login
    );
    for command in ["/close", "/summon", "/sumon", "/extend", "/publish"] {
        world.director().comment(issue, &format!("{command} {evil}")).await;
    }
    world.assert_settled(issue).await;
    for comment in world.bot_comments(issue).await {
        let outside_code = without_code(comment.text());
        for trap in ["@", "closes #1", "<img", "![", "\n/"] {
            let said = if trap == "@" { format!("@{}", world.reader().login) } else { trap.to_owned() };
            assert!(!outside_code.contains(&said), "`{said}` is live in:\n{}", comment.body);
        }
    }
    world.finish().await;
}

/// The text without what stands in code.
fn without_code(text: &str) -> String {
    let mut plain = String::new();
    let mut code = 0;
    for event in pulldown_cmark::Parser::new(text) {
        match event {
            pulldown_cmark::Event::Start(pulldown_cmark::Tag::CodeBlock(_)) => code += 1,
            pulldown_cmark::Event::End(pulldown_cmark::TagEnd::CodeBlock) => code -= 1,
            pulldown_cmark::Event::Text(text) if code == 0 => plain.push_str(&text),
            pulldown_cmark::Event::Html(html) | pulldown_cmark::Event::InlineHtml(html) => {
                plain.push_str(&html);
            }
            pulldown_cmark::Event::Start(pulldown_cmark::Tag::Image { .. }) => plain.push_str("!["),
            pulldown_cmark::Event::SoftBreak | pulldown_cmark::Event::HardBreak => plain.push('\n'),
            _ => {}
        }
    }
    plain
}
