//! Slash commands: where one may stand in a comment, what it says, and that the table
//! of commands is whole.

use lazarus_core::cell::Outcome;
use lazarus_core::mission::{
    COMMANDS_MAX, Command, Given, Line, Misplaced, Parsed, Place, Publishable, grammar, parse_commands, parse_comment,
};
use proptest::prelude::*;

/// Longest comment that is searched for commands, in bytes.
const COMMENT_MAX: usize = 64 * 1024;

fn commands(body: &str) -> Vec<Command> {
    parse_comment(body)
        .lines
        .into_iter()
        .filter_map(|l| match l {
            Line::Command { command, .. } => Some(command),
            Line::Refused { .. } => None,
        })
        .collect()
}
fn misplaced_names(body: &str) -> Vec<String> {
    parse_comment(body).misplaced.into_iter().map(|m| m.name).collect()
}
fn refusals(body: &str) -> Vec<String> {
    parse_comment(body)
        .lines
        .into_iter()
        .filter_map(|l| match l {
            Line::Refused { why, .. } => Some(why),
            Line::Command { .. } => None,
        })
        .collect()
}

#[test]
fn a_command_stands_at_the_start_of_a_line_of_ordinary_text() {
    assert_eq!(commands("/approve"), [Command::Approve { number: None }]);
    assert_eq!(commands("Good.\r\n/approve\r\nthanks"), [Command::Approve { number: None }]);
    assert_eq!(commands("please /approve"), []);
    assert_eq!(commands("/pause\n\n/resume").len(), 2);
}

#[test]
fn threat_08_commands_in_code_quotes_links_tables_html_and_details_are_never_executed() {
    for body in [
        "```\n/close\n```",
        "~~~\n/close\n~~~",
        "    /close",
        "`\n/close\n`",
        "`a\n/close`",
        "> /close",
        "> quoted\n/close",
        "- item\n  /close",
        "- /close",
        "1. /close",
        "[text\n/close](http://x)",
        "![\n/close](x.png)",
        "| a |\n|---|\n| /close |",
        "<!-- \n/close\n-->",
        "<!-- a\n\n/close\n\n-->",
        "<details>\n\n/close\n\n</details>",
        "<details><summary>x</summary>\n\n/close\n\n</details>",
        "<div>\n/close\n</div>",
        "<div>\n\n/close\n\n</div>",
        "a <b>\n/close</b>",
        "# /close",
        "[^1]: /close",
        "\\/close",
        "**/close**",
        "$$\n/close\n$$",
        "</p>\n\n<details>\n\n/close\n\n</details>",
        "<details>\n<!-- </details> -->\n\n/close\n\n</details>",
        "<details title=\"</details>\">\n\n/close\n\n</details>",
        "<details title=\"/>\">\n\n/close\n\n</details>",
        "<details/>\n\n/close",
        "<details>\n\n</b>\n\n/close\n\n</details>",
        "---\ntitle: x\n\n/close\n\n---\n\nHello",
        "---\n\n/close",
    ] {
        assert_eq!(commands(body), [], "executed: {body:?}");
    }
    assert_eq!(
        commands("<details>\n\nx\n\n</details>\n\n/pause"),
        [Command::Pause { cell: None }],
        "after the end it is text again"
    );
}

#[test]
fn threat_08_lookalikes_and_invisible_characters_are_refused_visibly() {
    for body in [
        "\u{ff0f}close",
        "\u{200b}/close",
        "/cl\u{200b}ose",
        "/close\u{a0}completed",
        "\u{202e}/close",
        "/close \0",
        "\u{2215}close",
        "\u{feff}/close",
    ] {
        assert_eq!(commands(body), [], "executed: {body:?}");
        assert_eq!(refusals(body).len(), 1, "not refused: {body:?}");
    }
}

#[test]
fn a_command_where_none_counts_is_found_once_with_its_place() {
    for (body, place) in [
        ("- /approve", Place::List),
        ("- item\n/approve", Place::List),
        ("1. item\n   /approve", Place::List),
        ("- [ ] /approve", Place::List),
        ("> /approve", Place::Quote),
        ("> quoted\n/approve", Place::Quote),
        ("`/approve`", Place::Code),
        ("```\n/approve\n```", Place::Code),
        ("text\n\n    /approve", Place::Code),
        ("\t/approve", Place::Code),
        ("**/approve**", Place::Print),
        ("*/approve*", Place::Print),
        ("<b>/approve</b>", Place::Html),
        ("# /approve", Place::Heading),
        ("/approve\n---", Place::Underlined),
        ("| a |\n|---|\n| /approve |", Place::Table),
        ("| a |\n|---|\n/approve", Place::Table),
        ("[/approve](http://x)", Place::Link),
        ("<details>\n\n/approve", Place::Html),
        ("<details>\n/approve", Place::Html),
        ("---\n\n/approve", Place::FrontMatter),
        ("[^1]: /approve", Place::Footnote),
    ] {
        let parsed = parse_comment(body);
        assert_eq!(parsed.lines, [], "{body:?}");
        assert_eq!(parsed.misplaced, [Misplaced { name: "approve".into(), place }], "{body:?}");
    }
    assert_eq!(misplaced_names("> /approve\n\n- /approve\n- /close failed"), ["approve", "close"]);
}

#[test]
fn what_is_not_meant_as_a_command_is_no_misplaced_one() {
    for body in [
        "please /approve",
        "> please /approve",
        "\\/approve",
        "- /usr/bin/env",
        "- /status/foo",
        "- /status.json",
        "/approvers are in the file",
        "<!-- \n/approve\n-->",
        "<details><summary>x</summary>\n\n/approve\n\n</details>",
        "<pre>\n/approve\n</pre>",
        // What the bot writes, quoted.
        "> - `/approve`",
        "> `/approve` goes on from here",
        "> | command | who |\n> | --- | --- |\n> | `/approve [NUMBER]` | director |",
        "> > /approve",
        "| command | who |\n| --- | --- |\n| `/approve [NUMBER]` | director |",
        // Lines of a log.
        "```\n/status 200 12ms\n/close 404\n```",
        // Quoted, and given.
        "> /approve\n\n/approve",
    ] {
        assert_eq!(misplaced_names(body), Vec::<String>::new(), "{body:?}");
    }
}

#[test]
fn how_a_cell_ended_is_read_as_people_write_it() {
    let close = |line: &str| match &commands(line)[..] {
        [Command::Close { outcome, reason, .. }] => (*outcome, reason.clone()),
        other => panic!("{line}: {other:?} {:?}", refusals(line)),
    };
    for (line, outcome, reason) in [
        ("/close", None, None),
        ("/close that is all", None, Some("that is all")),
        ("/close completed", Some(Outcome::Completed), None),
        ("/close Completed.", Some(Outcome::Completed), None),
        ("/close done", Some(Outcome::Completed), None),
        ("/close failed.", Some(Outcome::Failed), None),
        ("/close failed!", Some(Outcome::Failed), None),
        ("/close as failed", Some(Outcome::Failed), None),
        ("/close as failed.", Some(Outcome::Failed), None),
        ("/close Failed: because of rain", Some(Outcome::Failed), Some("because of rain")),
        ("/close FAILED - rain", Some(Outcome::Failed), Some("rain")),
        ("/close **failed**", Some(Outcome::Failed), None),
        ("/close failed:rain", Some(Outcome::Failed), Some("rain")),
        ("/close not done", Some(Outcome::Failed), Some("not done")),
        ("/close not completed", Some(Outcome::Failed), Some("not completed")),
        ("/close Not yet done.", Some(Outcome::Failed), Some("Not yet done.")),
        ("/close as not done", Some(Outcome::Failed), Some("not done")),
        ("/close incomplete", Some(Outcome::Failed), Some("incomplete")),
        ("/close unfinished, sadly", Some(Outcome::Failed), Some("unfinished, sadly")),
        ("/close abandoned, no time", Some(Outcome::Abandoned), Some("no time")),
        ("/close as discussed", None, Some("as discussed")),
        ("/close completed $X `id`", Some(Outcome::Completed), Some("$X `id`")),
    ] {
        assert_eq!(close(line), (outcome, reason.map(str::to_owned)), "{line}");
    }
    for line in [
        "/close it is not done",
        "/close it didn\u{2019}t work",
        "/close complete failure",
        "/close completed?",
        "/close the agent failed",
    ] {
        assert!(refusals(line)[0].contains("completed`, `failed` or `abandoned"), "{line}: {:?}", commands(line));
    }
}

#[test]
fn quotes_of_every_kind_quote() {
    let options = |line: &str| match &commands(line)[..] {
        [Command::Summon { options, .. }] => options.clone(),
        other => panic!("{line}: {other:?} {:?}", refusals(line)),
    };
    for (open, end) in [
        ('"', '"'),
        ('\'', '\''),
        ('‘', '’'),
        ('“', '”'),
        ('«', '»'),
        ('»', '«'),
        ('„', '“'),
        ('„', '”'),
        ('‚', '‘'),
        ('‹', '›'),
        ('”', '”'),
        ('’', '’'),
        ('「', '」'),
        ('『', '』'),
    ] {
        let read = options(&format!("/summon scribe task={open}fix the login{end} ttl=15m"));
        assert_eq!((read.task.as_deref(), read.ttl), (Some("fix the login"), Some(900_000)), "{open}{end}");
        let read = options(&format!("/summon scribe ttl={open}15m{end} task=x"));
        assert_eq!((read.task.as_deref(), read.ttl), (Some("x"), Some(900_000)), "{open}{end}");
        let why = refusals(&format!("/summon scribe task={open}fix the login ttl=15m")).join("");
        assert!(why.contains(&format!("the quote {open}")) && why.contains("task="), "{open}: {why}");
    }
    let read = options("/summon scribe task='don't touch it' ttl=15m");
    assert_eq!((read.task.as_deref(), read.ttl), (Some("don't touch it"), Some(900_000)));
    assert_eq!(options("/summon scribe task=don't stop").task.as_deref(), Some("don't stop"));
    assert_eq!(
        commands("/publish artifact 'my report.md'"),
        [Command::Publish { what: Publishable::Artifact("my report.md".into()), cell: None }]
    );
}

#[test]
fn free_text_may_be_in_any_script_and_names_may_not() {
    for text in ["add a ❤️", "a\u{a0}b", "a\u{3000}b", "می‌خواهم", "क्‍ष", "👩‍💻 1️⃣", "1\u{2044}2 \u{ff0f}", "שלום\u{200f}!"]
    {
        assert_eq!(
            commands(&format!("/tell scribe {text}")),
            [Command::Tell { agent: "scribe".into(), text: text.into() }],
            "{text}"
        );
        for line in ["/summon scribe task=", "/decide ", "/close failed ", "/reject ", "/checkpoint "] {
            assert_eq!(
                commands(&format!("{line}{text}")).len(),
                1,
                "{line}{text}: {:?}",
                refusals(&format!("{line}{text}"))
            );
        }
    }
    assert_eq!(commands("/tell\u{3000}scribe\u{3000}はい").len(), 1);
    for line in [
        "/tell scribe a\u{202e}b",
        "/tell scribe a\u{200b}b",
        "/tell scribe a\u{2066}b",
        "/tell scr\u{200d}ibe x",
        "/tell\u{a0}scribe x",
        "/summon scribe ta\u{ad}sk=x",
        "/summon scribe\u{fe0f} task=x",
        "/close fai\u{200b}led",
        "/invite agent:scribe\u{200c} executor",
        "/handoff 1\u{202e} from a to b",
    ] {
        assert_eq!(commands(line), [], "accepted: {line:?}");
        assert_eq!(refusals(line).len(), 1, "not refused: {line:?}");
    }
}

#[test]
fn with_a_prefix_nothing_else_is_a_command() {
    let parse = |body: &str| parse_commands(body, COMMANDS_MAX, Some("lazarus"));
    for body in ["/lazarus approve", "/Lazarus  approve", "/lazarus /approve", "x\n/lazarus\tapprove"] {
        let parsed = parse(body);
        assert!(
            matches!(&parsed.lines[..], [Line::Command { command: Command::Approve { number: None }, .. }]),
            "{body}: {parsed:?}"
        );
    }
    for body in
        ["/approve", "- /approve", "/aprove", "/lazarusapprove", "/lazarus-x approve", "/other approve", "> /lazarus"]
    {
        assert_eq!(parse(body), Parsed::default(), "{body}");
    }
    for (body, word) in [
        ("/lazarus", "a command is missing"),
        ("/lazarus aprove", "did you mean `/approve`"),
        ("/lazarus dance", "no command `dance`"),
        ("/laz\u{200b}arus approve", "U+200B"),
        ("/lazarus\u{a0}approve", "U+00A0"),
        ("/lazarus tell scribe", "`/tell`"),
    ] {
        assert!(matches!(&parse(body).lines[..], [Line::Refused { why, .. }] if why.contains(word)), "{body}");
    }
    let misplaced = parse("- /lazarus approve\n\n`/lazarus close`").misplaced;
    assert_eq!(misplaced.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["approve", "close"]);
}

#[test]
fn unknown_words_are_left_alone_unless_one_slip_away() {
    assert_eq!(parse_comment("/shrug"), Parsed::default());
    assert_eq!(parse_comment("/usr/bin/env"), Parsed::default());
    assert_eq!(parse_comment("/close/d is a path"), parse_comment("/close/d is a path"));
    assert!(refusals("/aprove")[0].contains("did you mean `/approve`"));
    assert!(refusals("/staus")[0].contains("/status"));
}

#[test]
fn threat_10_arguments_are_literal() {
    assert_eq!(
        commands("/tell scribe $HOME `id` && rm -rf ~ ../.. -x"),
        [Command::Tell { agent: "scribe".into(), text: "$HOME `id` && rm -rf ~ ../.. -x".into() }]
    );
    for body in [
        "/summon ../../etc",
        "/summon -rf",
        "/summon $HOME",
        "/summon scribe model=--dangerous",
        "/summon scribe backend=$(id)",
        "/summon scribe FORGE_TOKEN=x",
        "/destroy ../../x",
        "/invite agent:../x executor",
    ] {
        assert_eq!(commands(body), [], "accepted: {body:?}");
        assert_eq!(refusals(body).len(), 1, "not refused: {body:?}");
    }
    assert!(refusals(&format!("/tell scribe {}", "x".repeat(10_000)))[0].contains("4096"));
}

#[test]
fn bad_arguments_are_answered_with_what_is_allowed() {
    assert!(refusals("/invite agent:x boss")[0].contains("director, executor, observer, guest, substitute"));
    assert!(refusals("/extend soon")[0].contains("`15m`"));
    assert!(refusals("/summon scribe backend=vm")[0].contains("process, venv, docker, remote"));
    assert!(refusals("/summon scribe isolation=9")[0].contains("level_2"));
    assert!(refusals("/status laz-x")[0].contains("16 of the characters"));
}

#[test]
fn a_summons_takes_keys_and_a_task_to_the_end_of_the_line() {
    let [Command::Summon { agents, options }] = &commands("/team scribe+critic ttl=2h task=fix the = parser")[..]
    else {
        panic!("not a summons")
    };
    assert_eq!(agents, &["scribe", "critic"]);
    assert_eq!(options.ttl, Some(7_200_000));
    assert_eq!(options.task.as_deref(), Some("fix the = parser"));
}

#[test]
fn a_command_repeated_to_people_reads_as_the_same_command() {
    for line in [
        "/summon scribe ttl=2h isolation=level_2 network=proxy model=a/b task=do it \"well\" = now",
        "/team scribe+critic backend=process",
        "/approve",
        "/approve 3",
        "/reject",
        "/reject 3 too costly",
        "/reject too costly",
        "/invite agent:scribe executor laz-aaaaaaaaaaaaaaaa",
        "/invite @ada director",
        "/revoke human:ada",
        "/accept",
        "/tell scribe hello there",
        "/status laz-aaaaaaaaaaaaaaaa",
        "/help close",
        "/extend 1h30m laz-aaaaaaaaaaaaaaaa",
        "/pause",
        "/resume",
        "/checkpoint before lunch",
        "/revive scribe",
        "/substitute critic for scribe",
        "/handoff 3 from scribe to critic",
        "/decide use tabs",
        "/vote no on 4",
        "/publish artifact report.md",
        "/publish artifact \"my report.md\"",
        "/close",
        "/close that is all",
        "/close laz-aaaaaaaaaaaaaaaa that is all",
        "/summon scribe task='\"quoted\" and more'",
        "/publish work laz-aaaaaaaaaaaaaaaa",
        "/close failed laz-aaaaaaaaaaaaaaaa it broke",
        "/close abandoned",
        "/resurrect",
        "/destroy laz-aaaaaaaaaaaaaaaa",
    ] {
        let read = commands(line);
        assert_eq!(read.len(), 1, "{line}");
        assert_eq!(commands(&read[0].to_string()), read, "{line} became {}", read[0]);
    }
}

#[test]
fn a_thousand_commands_in_a_comment_are_ten_and_a_word() {
    let parsed = parse_comment(&"/status\n".repeat(1000));
    assert_eq!(parsed.lines.len(), COMMANDS_MAX + 1);
    assert!(matches!(&parsed.lines[COMMANDS_MAX], Line::Refused { why, .. } if why.contains("990")));
}

#[test]
fn policy_may_allow_fewer_commands_and_never_more() {
    let body = "/status\n".repeat(12);
    let counted = |most| match parse_commands(&body, most, None).lines.as_slice() {
        [commands @ .., Line::Refused { why, .. }] => (commands.len(), why.clone()),
        other => panic!("{other:?}"),
    };
    let (read, why) = counted(3);
    assert!(read == 3 && why.contains("at most 3 commands; 9 more"), "{read}: {why}");
    assert_eq!(counted(100).0, COMMANDS_MAX);
}

#[test]
fn a_comment_of_many_lines_is_read_in_time_that_grows_with_it() {
    for piece in ["a\n", "a\n`", "<a\n", "[a\n", "*a\n"] {
        let body = piece.repeat(COMMENT_MAX / piece.len());
        assert_eq!(commands(&body), [], "{piece:?}");
    }
}

proptest! {
    #[test]
    fn nothing_that_a_person_writes_makes_it_panic(body in "\\PC{0,200}|[/a-z <>`\\n\\[\\]()|>*_\\-#\\\\]{0,200}") {
        for line in parse_comment(&body).lines {
            let (Line::Command { at, .. } | Line::Refused { at, .. }) = line;
            prop_assert!(body.get(at).is_some());
        }
    }

    #[test]
    fn whatever_stands_in_a_fence_is_not_executed(inner in "[/a-z \\n]{0,80}") {
        prop_assert_eq!(commands(&format!("````\n{inner}\n````")), []);
    }
}

#[test]
fn every_row_is_found_by_its_name_and_every_command_by_its_row() {
    for (index, spec) in grammar().iter().enumerate() {
        assert_eq!(grammar().iter().position(|other| other.name == spec.name), Some(index), "{}", spec.name);
        assert!(spec.usage.starts_with(&format!("/{}", spec.name)), "{}", spec.usage);
    }
    for line in [
        "/summon scribe",
        "/approve",
        "/reject",
        "/invite scribe executor",
        "/revoke scribe",
        "/accept",
        "/tell scribe x",
        "/status",
        "/help",
        "/extend 1h",
        "/pause",
        "/resume",
        "/checkpoint",
        "/revive",
        "/substitute critic",
        "/handoff 1 from a to b",
        "/decide x",
        "/vote yes",
        "/publish notes",
        "/close",
        "/resurrect",
        "/destroy laz-aaaaaaaaaaaaaaaa",
    ] {
        let read = commands(line);
        let word = line[1..].split(' ').next().unwrap();
        assert_eq!((read[0].verb(), read[0].spec().name), (word, word));
        // The word in the registry is the same.
        assert_eq!(serde_json::to_value(&read[0]).unwrap()["verb"], word);
    }
    assert_eq!(commands("/team scribe+critic")[0].verb(), "summon");
}

#[test]
fn what_is_given_apart_is_the_same_command_as_on_a_line() {
    let spec = |name: &str| grammar().iter().find(|spec| spec.name == name).unwrap();
    let cell = "laz-aaaaaaaaaaaaaaaa";
    for (line, words, free) in [
        ("/summon scribe", &[("agent", "scribe")][..], &[][..]),
        ("/approve 3", &[("number", "3")], &[]),
        ("/reject 3 too costly", &[], &[("reason", "3 too costly")]),
        (
            "/invite @ada observer laz-aaaaaaaaaaaaaaaa",
            &[("cell", cell), ("identity", "@ada"), ("role", "observer")],
            &[],
        ),
        ("/tell scribe  a  b ", &[("cell", cell), ("agent", "scribe")], &[("text", "a  b ")]),
        ("/extend 1h30m laz-aaaaaaaaaaaaaaaa", &[("cell", cell), ("duration", "1h30m")], &[]),
        ("/revive", &[("cell", cell), ("agent", "")], &[]),
        ("/substitute critic for scribe", &[("cell", cell), ("agent", "critic"), ("instead_of", "scribe")], &[]),
        ("/handoff 1 from a to b", &[("task", "1"), ("from", "a"), ("to", "b")], &[]),
        ("/vote NO on 4", &[("vote", "NO"), ("on", "4")], &[]),
        ("/close laz-aaaaaaaaaaaaaaaa it is done", &[("cell", cell)], &[("reason", "it is done")]),
        (
            "/close failed laz-aaaaaaaaaaaaaaaa done, sort of",
            &[("cell", cell), ("outcome", "failed")],
            &[("reason", "done, sort of")],
        ),
        ("/close not done", &[], &[("reason", "not done")]),
        ("/publish artifact a.md laz-aaaaaaaaaaaaaaaa", &[("cell", cell), ("what", "artifact"), ("name", "a.md")], &[]),
    ] {
        let mut given = Given::default();
        for (name, text) in words {
            given.put(name, *text);
        }
        for (name, text) in free {
            given.put_free(name, *text);
        }
        let name = line[1..].split(' ').next().unwrap();
        assert_eq!(spec(name).with(&given).map(|command| vec![command]), Ok(commands(line)), "{line}");
    }
    let mut given = Given::default();
    given.put("agent", "scr\u{200d}ibe");
    given.put_free("text", "\u{200d}");
    assert!(spec("tell").with(&given).unwrap_err().contains("U+200D"));
    let mut given = Given::default();
    given.put_free("text", "x".repeat(5000));
    assert!(spec("decide").with(&given).unwrap_err().contains("4096"));
}
