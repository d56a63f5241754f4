//! The publication gate: threats 24 and 25, and the marker.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use lazarus::publication::gate::{
    Allowed, Clean, CommentLimits, MAX_COMMENT, Marker, Removed, Secrets, block, comment, inline, marker, parse_marker,
};
use lazarus::publication::redaction;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;
use secrecy::SecretString;

const TOKEN: &str = "c4n4ry/T0ken+Zx9&qW\"7=";
const PLAIN: &str = "Vq83hsk2Lmw0Zt7Rb1";
const PEM: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACB6Yx0VgXnkF2CqjZk1ZqXo7u1hWfyJbqHkHnN8oQk8WAAAAJg0yq2hNMqt
oQAAAAtzc2gtZWQyNTUxOQAAACB6Yx0VgXnkF2CqjZk1ZqXo7u1hWfyJbqHkHnN8oQk8WA
-----END OPENSSH PRIVATE KEY-----";

fn secrets() -> Secrets {
    Secrets::new([
        ("FORGE_TOKEN", SecretString::from(TOKEN)),
        ("PLAIN", SecretString::from(PLAIN)),
        ("SSH_KEY", SecretString::from(PEM)),
        ("PIN", SecretString::from("z9k4")),
    ])
}

fn gate(body: &str) -> String {
    comment(body, Allowed::default(), &secrets()).0
}

fn percent(bytes: &[u8], upper: bool, all: bool) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            byte if !all && byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        })
        .collect()
}

/// Every way of writing a secret that the gate promises to find.
fn writings(secret: &str) -> Vec<(String, String)> {
    let bytes = secret.as_bytes();
    let mut out = vec![
        ("raw".to_owned(), secret.to_owned()),
        ("json".to_owned(), serde_json::to_string(secret).unwrap()),
        ("json u-escapes".to_owned(), secret.chars().fold(String::new(), |s, c| s + &format!("\\u{:04x}", c as u32))),
        ("html entities".to_owned(), secret.chars().fold(String::new(), |s, c| s + &format!("&#{};", c as u32))),
        ("html hex entities".to_owned(), secret.chars().fold(String::new(), |s, c| s + &format!("&#x{:X};", c as u32))),
        ("url lower".to_owned(), percent(bytes, false, false)),
        ("url upper".to_owned(), percent(bytes, true, false)),
        ("url every byte".to_owned(), percent(bytes, true, true)),
        ("url twice".to_owned(), percent(percent(bytes, true, false).as_bytes(), true, false)),
        ("hex lower".to_owned(), hex::encode(bytes)),
        ("hex upper".to_owned(), hex::encode_upper(bytes)),
        ("hex with colons".to_owned(), bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")),
        ("hex escapes".to_owned(), bytes.iter().fold(String::new(), |s, b| s + &format!("\\x{b:02x}"))),
        ("split over lines".to_owned(), every(secret, 4, "\n")),
        ("split by spaces".to_owned(), every(secret, 1, " ")),
        ("split by zero-width".to_owned(), every(secret, 3, "\u{200b}")),
        ("split by joiners".to_owned(), every(secret, 2, "\u{2060}\u{feff}")),
        ("split by CRLF".to_owned(), every(secret, 5, "\r\n")),
        ("split by colour".to_owned(), every(secret, 5, "\u{1b}[31m")),
    ];
    for before in 0..3 {
        let padded = ["", "x", "xy"][before].to_owned() + secret + "tail";
        let standard = STANDARD.encode(&padded);
        out.push((format!("base64 at {before}"), standard.clone()));
        out.push((format!("base64 url-safe at {before}"), URL_SAFE.encode(&padded)));
        out.push((format!("base64 wrapped at {before}"), every(&standard, 7, "\n")));
        out.push((format!("base64 in a URL at {before}"), percent(standard.as_bytes(), true, false)));
    }
    out
}

fn every(text: &str, count: usize, separator: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i > 0 && i % count == 0 {
            out.push_str(separator);
        }
        out.push(c);
    }
    out
}

/// Whether any six characters of the secret or of a writing of it are left.
fn leftovers(text: &str, writing: &str) -> Option<String> {
    let tight: String = text.chars().filter(char::is_ascii_graphic).collect();
    let writing: Vec<char> = writing.chars().filter(char::is_ascii_graphic).collect();
    writing.windows(8).map(|window| window.iter().collect::<String>()).find(|window| tight.contains(window))
}

#[test]
fn threat_24_a_known_secret_is_not_published_in_any_writing() {
    let secrets = secrets();
    for secret in [TOKEN, PLAIN] {
        for (how, writing) in writings(secret) {
            // The "tail" and the like that the test itself put beside it.
            let core =
                if how.starts_with("base64") { writing[4..writing.len() - 8].to_owned() } else { writing.clone() };
            let text = format!("before {writing} after");
            let (clean, removed) = inline(&text, CommentLimits::default(), &secrets);
            assert_eq!(leftovers(clean.as_str(), &core), None, "inline, {how}: {clean}");
            assert!(removed.secrets + removed.secret_like > 0, "inline, {how}: {removed:?}");

            let (clean, removed) = block(&text, CommentLimits::default(), &secrets);
            assert_eq!(leftovers(clean.as_str(), &core), None, "block, {how}: {clean}");
            assert!(removed.secrets > 0, "block, {how}: {removed:?}");

            for body in [
                text.clone(),
                format!("```\n{text}\n```\n"),
                format!("`{writing}`"),
                format!("[see](https://evil.example/?q={writing})"),
                format!("![see](https://evil.example/{writing}.png)"),
                format!("<img src=\"https://evil.example/{writing}\">"),
            ] {
                let out = gate(&body);
                assert_eq!(leftovers(&out, &core), None, "comment, {how}: {out}");
            }
        }
    }
}

/// Text as other programs store it: UTF-16 of either order, and Latin 1.
fn stored(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let latin = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    vec![
        ("UTF-16, little end first", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16, big end first", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("Latin 1", latin),
    ]
}

#[test]
fn threat_42_a_known_secret_is_found_in_bytes_in_any_writing() {
    const UMLAUT: &str = "Gr\u{fc}\u{df}e-h5kQz2";
    let secrets = Secrets::new([
        ("FORGE_TOKEN", SecretString::from(TOKEN)),
        ("PLAIN", SecretString::from(PLAIN)),
        ("SSH_KEY", SecretString::from(PEM)),
        ("UMLAUT", SecretString::from(UMLAUT)),
    ]);
    for (name, secret) in [("FORGE_TOKEN", TOKEN), ("PLAIN", PLAIN), ("UMLAUT", UMLAUT)] {
        let mut all: Vec<(String, Vec<u8>)> =
            writings(secret).into_iter().map(|(how, text)| (how, text.into_bytes())).collect();
        for (how, bytes) in stored(secret) {
            all.push((format!("{how} in base64"), STANDARD.encode(&bytes).into_bytes()));
            all.push((format!("{how} in hex"), hex::encode(&bytes).into_bytes()));
            all.push((how.to_owned(), bytes));
        }
        // Of these only UTF-16 is promised within another encoding.
        all.retain(|(how, _)| !how.starts_with("Latin 1 in"));
        for (how, writing) in all {
            for (before, after) in
                [(&b"x = '"[..], &b"'\n"[..]), (b"\xff\x00\xc3", b"\xff"), (b"%z", b"%"), (b"\x1b~", b"&#")]
            {
                let bytes = [before, &writing, after].concat();
                assert_eq!(secrets.found_in(&bytes), Some(name), "{how} between {before:?} and {after:?}");
                // In whatever pieces it comes.
                let mut search = secrets.search();
                for byte in &bytes {
                    search.feed(&[*byte]);
                }
                assert_eq!(search.finish(), Some(name), "{how}, byte by byte");
            }
            let at = writing.len() / 2;
            let broken = [&writing[..at], b"Z", &writing[at + 1..]].concat();
            // Another byte in its middle makes it another value, unless it is
            // one of those that stand between the pieces, or of an escape.
            if writing[at].is_ascii_alphanumeric() && ["raw", "hex lower"].contains(&how.as_str()) {
                assert_eq!(secrets.found_in(&broken), None, "{how}");
            }
        }
    }
    let line = PEM.lines().nth(2).unwrap();
    assert_eq!(secrets.found_in(format!("key: {line}").as_bytes()), Some("SSH_KEY"));
}

#[test]
fn bytes_without_a_secret_are_left_alone() {
    let secrets = secrets();
    let mut noise = vec![0; 1 << 20];
    getrandom::fill(&mut noise).unwrap();
    let source = include_bytes!("main.rs").to_vec();
    // The secrets themselves stand in this file, in pieces that others print.
    assert!(secrets.found_in(&source).is_some());
    for bytes in [noise, b"z9k4 is too short to be looked for".to_vec(), vec![b'%'; 1 << 16], vec![], vec![0x1b; 4096]]
    {
        assert_eq!(secrets.found_in(&bytes), None, "{} bytes", bytes.len());
    }
    assert_eq!(Secrets::none().found_in(TOKEN.as_bytes()), None);
}

#[test]
fn threat_42_bytes_that_were_made_to_hurt_are_searched_quickly() {
    let secrets = secrets();
    let hurting: [(&str, Vec<u8>); 6] = [
        ("percents", b"%".repeat(1 << 20)),
        ("escapes of escapes", b"%2525".repeat(200_000)),
        ("backslashes", b"\\".repeat(1 << 20)),
        ("entities", b"&#x41;&amp;amp;".repeat(70_000)),
        ("terminal sequences", b"\x1b[1;2;3;4;5;6;7;8".repeat(60_000)),
        ("almost", [&PLAIN.as_bytes()[..PLAIN.len() - 1], b"%41"].concat().repeat(40_000)),
    ];
    for (what, bytes) in hurting {
        let begun = Instant::now();
        assert_eq!(secrets.found_in(&bytes), None, "{what}");
        // Some 10 ms each where it is optimized.
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
    }
}

#[test]
fn threat_24_a_secret_across_two_pieces_of_a_comment_is_found() {
    let secrets = secrets();
    let (one, _) = inline(&PLAIN[..9], CommentLimits::default(), &secrets);
    let (two, _) = inline(&PLAIN[9..], CommentLimits::default(), &secrets);
    let (out, removed) = comment(&format!("| {one} |\n| {two} |\n"), Allowed::default(), &secrets);
    assert!(!out.contains(&PLAIN[..9]) && !out.contains(&PLAIN[9..]), "{out}");
    assert_eq!(removed.secrets, 1);
}

#[test]
fn threat_24_a_secret_across_the_cut_leaves_no_first_half() {
    let secrets = secrets();
    let limits = CommentLimits { bytes: 100, chars: 100, lines: 10 };
    for before in 80..100 {
        let text = format!("{}{PLAIN} and more {}", "x ".repeat(before / 2), "y".repeat(500));
        let (clean, _) = block(&text, limits, &secrets);
        assert!(!clean.as_str().contains(&PLAIN[..4]), "{clean}");
        let (clean, _) = inline(&text, limits, &secrets);
        assert!(!clean.as_str().contains(&PLAIN[..4]), "{clean}");
    }
    for before in 59_900..60_000 {
        let body = format!("{}{PLAIN} {}", "x".repeat(before), "word ".repeat(20_000));
        if before % 9 == 0 {
            assert!(!gate(&body).contains(&PLAIN[..4]));
        }
    }
}

#[test]
fn threat_24_lines_of_a_private_key_are_found_one_by_one() {
    for line in PEM.lines().filter(|line| !line.starts_with('-')) {
        let out = gate(&format!("the line is {line}, they say"));
        assert!(!out.contains(&line[..12]), "{out}");
    }
    let out = gate(&format!("```\n{PEM}\n```\nafterwards"));
    assert!(!out.contains("b3BlbnNz"), "{out}");
    assert!(out.contains("afterwards"), "{out}");
}

#[test]
fn threat_24_a_short_secret_is_found_as_a_word_and_not_within_words() {
    let out = gate("the pin z9k4, but abcz9k4def is a word");
    assert_eq!(out, "the pin [redacted], but abcz9k4def is a word");
}

#[test]
fn threat_24_what_looks_like_a_secret_is_not_published() {
    // Put together here, so that no scanner takes this file for a leak.
    let a = |n: usize| "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2"[..n].to_owned();
    let cases = [
        format!("ghp_{}", a(36)),
        format!("github_pat_{}", a(40)),
        format!("glpat-{}", a(20)),
        format!("sk-{}", a(40)),
        format!("sk-ant-api03-{}", a(40)),
        format!("xoxb-123456789012-{}", a(24)),
        format!("AKIA{}", "ABCDEFGHIJ234567"),
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPL3K3".to_owned(),
        format!("AIza{}", a(35)),
        format!("eyJ{}.eyJ{}.{}", a(20), a(20), a(20)),
        "s3cr3t-pa55".to_owned(),
        a(30),
    ];
    for secret in &cases {
        for text in [
            match secret.as_str() {
                "s3cr3t-pa55" => format!("fetching https://user:{secret}@git.example.org/x failed"),
                s if *s == a(30) => format!("Authorization: Bearer {secret}"),
                _ => format!("it said {secret} and went on"),
            },
            format!("MY_SERVICE_TOKEN={secret}"),
            format!("export API_KEY=\"{secret}\""),
            format!("password={secret}"),
            format!("{{\"password\": \"{secret}\"}}"),
            format!("Authorization: token {secret}"),
        ] {
            let (out, count) = redaction::redact(&text);
            assert!(!out.contains(secret.as_str()), "{text} became {out}");
            assert!(out.contains("[redacted]") && count == 1, "{text} became {out} ({count})");
            assert_eq!(redaction::redact(&out), (out.clone(), 0));
        }
    }
    for encoded in [STANDARD.encode(format!("token ghp_{}", a(36))), hex::encode(format!("ghp_{}", a(36)))] {
        let (out, count) = redaction::redact(&format!("see {encoded} there"));
        assert_eq!((out.as_str(), count), ("see [redacted] there", 1));
    }
    let sha = "9fceb02d0ae598e95dc970b74767f19372d61af8";
    assert_eq!(redaction::redact(&format!("the token {sha} x")).0, "the token [redacted] x");
}

#[test]
fn ordinary_words_of_our_logs_are_left_alone() {
    for text in [
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 on lazarus/7-laz-01k",
        "approved hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "fn redact(token: &str, password: String) -> Secret",
        "let token = Token::new(secret); let password = prompt();",
        "token_file = \"forge.token\"  # or token_env = \"NAME\"",
        "password: $PASSWORD, TOKEN=${TOKEN}, key: <your key>",
        "src/publication/redaction.rs | 120 ++++++++++",
        "https://git.example.org/acme/widget/src/branch/main/README.md",
        "ledger head 14 · 01890a5d-ac96-774b-bcce-b302099a8057",
        "removed: 1 secret, 2 mentions",
        "task-runner risk-assessment-of-the-2024-release",
        "sort_key=name primary_key = id",
    ] {
        assert_eq!(redaction::redact(text), (text.to_owned(), 0));
    }
}

#[test]
fn a_debug_print_of_secrets_shows_names_only() {
    let shown = format!("{:?}", secrets());
    assert!(shown.contains("FORGE_TOKEN"), "{shown}");
    assert!(!shown.contains(&PLAIN[..6]) && !shown.contains(&TOKEN[..6]), "{shown}");
}

// ------------------------------------------------------------ threat 25 ---

/// What a reader or the forge could take for a mention, a reference, an image
/// or HTML, outside code.
fn offences(markdown: &str, options: Options) -> Vec<String> {
    let mention = Regex::new(r"@[0-9A-Za-z_.-]").unwrap();
    let reference = Regex::new(r"[#!][0-9]").unwrap();
    let tag = Regex::new(r"<[A-Za-z/!?]").unwrap();
    let command = Regex::new(r"^[\s>*+_~-]*/[A-Za-z]").unwrap();
    let mut found = Vec::new();
    let mut text = String::new();
    let mut code = false;
    let mut end = |text: &mut String| {
        if let Some(hit) = mention.find(text).or_else(|| reference.find(text)) {
            found.push(format!("{:?} in {text:?}", hit.as_str()));
        }
        if let Some(hit) = text.lines().find(|line| command.is_match(line)) {
            found.push(format!("command {hit:?}"));
        }
        if text.contains("[[") {
            found.push(format!("wiki link in {text:?}"));
        }
        text.clear();
    };
    let mut worse = Vec::new();
    for event in Parser::new_ext(markdown, options) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => {
                end(&mut text);
                code = true;
            }
            Event::End(TagEnd::CodeBlock) => code = false,
            Event::Text(piece) if !code => text.push_str(&piece),
            Event::SoftBreak | Event::HardBreak => text.push('\n'),
            // A raw line that begins with `|` begins no command.
            Event::Start(Tag::TableCell) => text.push('|'),
            Event::Start(Tag::Image { .. }) => worse.push("image".to_owned()),
            Event::Html(html) | Event::InlineHtml(html) => {
                let rest = ["<details>", "</details>", "<summary>", "</summary>"]
                    .iter()
                    .fold(html.to_string(), |html, tag| html.replace(tag, ""))
                    .replace("&#126;", "~");
                if tag.is_match(&rest) {
                    worse.push(format!("html {html:?}"));
                }
                text.push_str(&rest);
            }
            Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::Heading(_) | TagEnd::HtmlBlock) => end(&mut text),
            _ => {}
        }
    }
    end(&mut text);
    found.extend(worse);
    found
}

fn github() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

fn assert_harmless(out: &str) {
    for options in [Options::empty(), github()] {
        assert_eq!(offences(out, options), Vec::<String>::new(), "in {out:?}");
    }
    assert!(out.len() <= MAX_COMMENT, "{} bytes", out.len());
    assert!(!out.trim_start().starts_with("---\n") && out.trim() != "---", "{out:?}");
    assert!(!out.to_lowercase().contains("<!-- lazarus"), "{out:?}");
    let marker = marker("answer", "e1", None);
    assert!(parse_marker(&format!("{out}\n\n{marker}")).is_some());
    let shown_as_html = Parser::new(&format!("{out}\n\n{marker}"))
        .any(|event| matches!(&event, Event::Html(html) if html.contains("<!-- lazarus")));
    assert!(shown_as_html, "the marker is swallowed by {out:?}");
    for c in out.chars() {
        assert!(!c.is_control() || matches!(c, '\n' | '\t'), "control character {c:?} in {out:?}");
        assert!(!matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'), "{out:?}");
    }
}

const NASTY: &[&str] = &[
    "@alice @bob @org/team and @carol",
    "@alice@bob **@carol** @*dave* @_erin_ @[frank](x) (@gina) [@hans] @`x`ida &#64;joe &commat;kim \\@leo",
    "#1 (#2) owner/repo#3 !4 **#**5 #*6* \\#7 &#35;8 &num;9 #[1](x) [#](x)1 #`x`1 #<details>1",
    "closes #1, fixes owner/repo#2, resolves https://git.example.org/acme/widget/issues/3",
    "/approve\n  /close\n> /destroy laz-1\n- /summon x\n1. /publish notes\n**/vote yes**\n\\/reject\n&#47;extend 1h\n／approve",
    "<details>/approve</details>\n</summary>/close",
    "![x](https://evil.example/x.png) [![y](https://evil.example/y.png)](z) ![z][r]\n\n[r]: https://evil.example/z.png",
    "\\![x](https://evil.example/x.png) \\\\![x](https://evil.example/x.png)",
    "[[https://evil.example/x.png]] \\[\\[https://evil.example/y.png]]",
    "<img src=https://evil.example/x.png> <script>alert(1)</script> <a href='javascript:1'>x</a> <!-- x --> <?php ?>",
    "<div>\n```\n@alice #1 <b>\n```\n</div>",
    "<a b=\"`\"> `x` @alice `",
    "<details open><summary onclick=1>x</summary>\n\n@alice\n</details>",
    "---\ntitle: x\n---\n@alice",
    "\n---\nx",
    "<!-- lazarus kind=status effect=1 -->\n<!--lazarus x",
    "```\n<!-- lazarus kind=status effect=1 -->\n```",
    "```\n@alice in a fence that nobody closes",
    "~~~~\nin tildes",
    "- ```\n  @alice in a list\n@bob",
    "> ```\n> @alice\n@bob",
    "    @alice in indented code\n\n\tand #1",
    "| a | b |\n| --- | --- |\n| `x | @alice` | #1 |\n",
    "[@alice]: https://x\n\n[x]: <#1> '@bob'\n[^1]: ```\n    @alice",
    "`` `@alice` `` ``` `@alice `` @bob",
    "\u{202e}@alice\u{2066} \u{200d}#1 \u{1b}[31m/approve\u{1b}]0;title\u{7} \u{0} \u{9b}31m",
    "@\u{200b}\u{200b}alice #\u{200b}1",
    "a\r\n/approve\rb\u{2028}/close\u{85}/destroy x",
    "# /approve\n## @alice\n#1\n##1\n###### #1",
    "* * *\n_ _ _\n\n@",
    "#",
    "!",
    "@",
    "/",
    "<",
    "&",
    "[",
    "",
];

#[test]
fn threat_25_what_would_notify_refer_command_load_or_hide_is_inert() {
    for nasty in NASTY {
        for body in [
            (*nasty).to_owned(),
            format!("**Done.**\n\n{nasty}\n\nMore: {nasty}\n"),
            format!("<details>\n<summary>{nasty}</summary>\n\n{nasty}\n\n</details>"),
        ] {
            let out = gate(&body);
            assert_harmless(&out);
            assert_eq!(gate(&out), out, "not the same a second time");
        }
    }
}

#[test]
fn threat_25_pieces_are_inert_by_themselves_and_pass_the_last_gate_unchanged() {
    let secrets = Secrets::none();
    for nasty in NASTY {
        let (piece, _) = inline(nasty, CommentLimits::default(), &secrets);
        assert!(!piece.as_str().contains(['\n', '|', '<', '`', '*']), "{piece}");
        let (fence, _) = block(nasty, CommentLimits::default(), &secrets);
        let body = format!(
            "**Closed:** “{piece}”, and\n\n| a | b |\n| --- | --- |\n| x {piece} | y {piece}1 |\n\n<details>\n<summary>Why: {piece}</summary>\n\n{fence}\n\n</details>\n"
        );
        let (out, removed) = comment(&body, Allowed::default(), &secrets);
        assert_harmless(&out);
        assert_eq!(out, body);
        assert!(removed.is_empty(), "{removed}");
    }
}

#[test]
fn threat_25_a_megabyte_is_cut_and_says_so() {
    let text = "All work and no play makes Jack a dull boy.\n".repeat(24_000);
    let (piece, removed) = block(&text, CommentLimits::default(), &secrets());
    assert!(piece.as_str().len() < 9_000);
    assert!(removed.truncated_bytes > 1_000_000);
    assert!(piece.as_str().contains(&format!("{} more bytes were cut", removed.truncated_bytes)));

    let (out, removed) = comment(&text, Allowed::default(), &secrets());
    assert!(out.len() <= MAX_COMMENT && out.len() > MAX_COMMENT - 5_000, "{}", out.len());
    assert!(removed.truncated_bytes > 900_000);
    assert!(out.trim_end().ends_with(&format!("{} bytes were cut.*", removed.truncated_bytes)), "{out}");
    assert_eq!(gate(&out), out);

    let folded = format!("<details>\n<summary>Log</summary>\n\n```text\n{text}```\n\n</details>\n");
    let out = gate(&folded);
    assert_harmless(&out);
    assert!(out.contains("\n```\n\n</details>\n\n*This comment"), "{}", &out[out.len() - 200..]);

    let (piece, removed) = inline(&text, CommentLimits::default(), &secrets());
    assert_eq!(piece.as_str().chars().count(), 201);
    assert!(removed.truncated_bytes > 1_000_000);
}

#[test]
fn threat_25_a_megabyte_made_to_hurt_is_dealt_with_quickly() {
    // Debug builds are an order of magnitude slower; the point there is that
    // it is linear. `redact` alone reads, and keeps, the whole megabyte.
    let limit = |door: &str| match (cfg!(debug_assertions), door) {
        (true, _) => 8_000,
        (false, "redact") => 500,
        (false, _) => 200,
    };
    let million = 1_000_000;
    let cases: Vec<(&str, String)> = vec![
        ("backticks", "`".repeat(million)),
        ("backtick runs", (1..1_400).map(|n| "`".repeat(n) + " ").collect()),
        ("brackets", "[".repeat(million)),
        ("images", "![".repeat(million / 2)),
        ("links", "[a](".repeat(million / 4)),
        ("emphasis", "*a **b ".repeat(million / 7)),
        ("emphasis 2", "a**b_c".repeat(million / 6)),
        ("quotes", ">".repeat(million)),
        ("lists", "- ".repeat(million / 2)),
        ("tags", "<a ".repeat(million / 3)),
        ("comments", "<!--".repeat(million / 4)),
        ("our markers", "<!-- lazarus ".repeat(million / 13)),
        ("mentions", "@a ".repeat(million / 3)),
        ("references", "#1".repeat(million / 2)),
        ("commands", "/a\n".repeat(million / 3)),
        ("fences", "```\n".repeat(million / 4)),
        ("entities", "&#64;".repeat(million / 5)),
        ("backslashes", "\\".repeat(million)),
        ("percent", "%25".repeat(million / 3)),
        ("base64", "QUJD".repeat(million / 4)),
        ("short base64", "QUJDREVGR0hJSktMTU5P ".repeat(million / 21)),
        ("keys", "-----BEGIN A PRIVATE KEY-----\n".repeat(million / 30)),
        ("passwords", "password=".repeat(million / 9)),
        ("addresses", "://a:".repeat(million / 5)),
        ("tokens", "token: ".repeat(million / 7)),
        ("escapes", "\u{1b}[".repeat(million / 2)),
        ("escapes 2", "\u{1b}]".repeat(million / 2)),
        ("secrets", PLAIN.repeat(million / PLAIN.len())),
        ("tables", "|a".repeat(million / 2) + "\n" + &"|-".repeat(1000)),
        ("footnotes", "[^a]: ".repeat(million / 6)),
        ("zero width", "\u{200b}".repeat(million / 3)),
        ("details", "<details>".repeat(million / 9)),
    ];
    let secrets = secrets();
    let _ = comment("warm", Allowed::default(), &secrets);
    let mut slow = Vec::new();
    for (name, text) in &cases {
        let mut timed = |door: &str, run: &dyn Fn() -> String| {
            let start = Instant::now();
            let out = run();
            let took = start.elapsed();
            println!("{name:>14} {door:>8} {took:>12.2?} {:>6}", out.len());
            if took > Duration::from_millis(limit(door)) {
                slow.push(format!("{door} of {name}: {took:?}"));
            }
            out
        };
        timed("inline", &|| inline(text, CommentLimits::default(), &secrets).0.to_string());
        timed("block", &|| block(text, CommentLimits::default(), &secrets).0.to_string());
        timed("redact", &|| secrets.redact(text).0);
        let out = timed("comment", &|| comment(text, Allowed::default(), &secrets).0);
        assert_harmless(&out);
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

#[test]
fn threat_25_a_fence_is_longer_than_any_run_inside() {
    let (piece, _) = block("a ```` b ~~~~~~ c\n```\n@alice", CommentLimits::default(), &secrets());
    assert!(piece.as_str().starts_with("```````text\n"), "{piece}");
    assert!(piece.as_str().ends_with("\n```````"), "{piece}");
    assert_harmless(&gate(piece.as_str()));
}

#[test]
fn threat_25_templates_own_mentions_references_and_folds_stay() {
    let mentions = ["dana".to_owned()];
    let references =
        ["#8".to_owned(), "https://git.example.org/acme/widget/pulls/8".to_owned(), "acme/other#3".to_owned()];
    let allowed = Allowed { mentions: &mentions, references: &references };
    let body = "**Closed: completed.** Pull request [#8](https://git.example.org/acme/widget/pulls/8), see acme/other#3. @dana, please look. Thanks, **@Dana**!\n\n<details>\n<summary>Files (2)</summary>\n\n- `src/lib.rs`\n\n</details>\n";
    let (out, removed) = comment(body, allowed, &Secrets::none());
    assert_eq!(out, body);
    assert!(removed.is_empty());

    for smuggled in
        ["@dana2 ", "@dan*a2*", "@alice", "#88", "#8*1*", "acme/widget#8x", "xacme/other#3", "acme/other/pulls/8"]
    {
        let (out, removed) = comment(smuggled, allowed, &Secrets::none());
        assert!(out.contains('\u{200b}'), "{smuggled} stayed {out}");
        assert_eq!(removed.mentions + removed.references, 1, "{smuggled}: {removed}");
    }
}

#[test]
fn the_removed_sentence_counts_what_a_person_would_count() {
    let text = format!("@alice @bob {PLAIN} #1 ![x](y)");
    let (_, removed) = inline(&text, CommentLimits::default(), &secrets());
    assert_eq!(removed.to_string(), "removed: 1 secret, 2 mentions, 1 reference, 1 image");
    assert_eq!(Removed::default().to_string(), "nothing removed");
    let mut sum = removed;
    sum += removed;
    assert_eq!(sum.mentions, 4);
    let json = serde_json::to_string(&removed).unwrap();
    assert_eq!(serde_json::from_str::<Removed>(&json).unwrap(), removed);
}

// --------------------------------------------------------------- marker ---

#[test]
fn the_marker_is_read_back_from_the_last_line_only() {
    let line = marker("spawn-log", "01890a5d-ac96", Some("laz-7f3a"));
    assert_eq!(line, "<!-- lazarus kind=spawn-log effect=01890a5d-ac96 cell=laz-7f3a -->");
    let expected =
        Marker { kind: "spawn-log".to_owned(), effect: "01890a5d-ac96".to_owned(), cell: Some("laz-7f3a".to_owned()) };
    assert_eq!(parse_marker(&format!("Hello\n\n{line}")), Some(expected.clone()));
    assert_eq!(parse_marker(&format!("Hello\r\n\r\n{line}\r\n")), Some(expected));
    assert_eq!(parse_marker(&format!("{line}\n\nHello")), None);
    assert_eq!(parse_marker(&format!("> {line}")), None);
    assert_eq!(parse_marker(&format!("Hello {line}")), None);
    let short = marker("answer", "e", None);
    assert_eq!(short, "<!-- lazarus kind=answer effect=e -->");
    assert_eq!(parse_marker(&short).unwrap().cell, None);
    for bad in [
        "<!-- lazarus kind=a -->",
        "<!-- lazarus effect=a kind=b -->",
        "<!-- lazarus kind=a effect=b cell= -->",
        "<!-- lazarus kind=a effect=b cell=c more=d -->",
        "<!-- lazarus kind=a effect=b  -->",
        "<!-- Lazarus kind=a effect=b -->",
        "",
    ] {
        assert_eq!(parse_marker(bad), None, "{bad}");
    }
}

#[test]
fn a_marker_cannot_be_broken_out_of() {
    let line = marker("x --> @alice", "a\nb", Some("c d"));
    assert_eq!(line, "<!-- lazarus kind=x_--___alice effect=a_b cell=c_d -->");
    assert!(parse_marker(&line).is_some());
}

// ----------------------------------------------------------- properties ---

/// Text made of the pieces from which trouble is made.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            "@", "#", "!", "/", "[", "]", "(", ")", "<", ">", "&", ";", "`", "```", "~~~", "*", "**", "_", "\\",
            "|", "\n", "\n\n", " ", "    ", "\t", "-", "---", ":", "://", "1", "12", "alice", "approve", "x",
            "<details>", "</details>", "<summary>", "</summary>", "<!--", "-->", "<!-- lazarus kind=a effect=b -->",
            "<b a=\"", "\"", "&#64;", "&#35;", "&num;", "&amp;", "&lt;", "\u{200b}", "\u{202e}", "\u{1b}[1m", "\r\n", "\0",
            "![a](b)", "[a]: b", "> ", "- ", "1. ", "| --- |", "https://", "/issues/1", "www.", "[[", "]]", "$", "{",
            "closes #1", "password=", "token: ", "[redacted]", "[^1]", "[^1]: ", "^", "~", "=", "===", "+", "é", "／", "😀",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        1 => NASTY.to_vec().prop_flat_map_select(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

trait Select {
    fn prop_flat_map_select(self) -> BoxedStrategy<String>;
}

impl Select for Vec<&'static str> {
    fn prop_flat_map_select(self) -> BoxedStrategy<String> {
        prop::sample::select(self).prop_map(str::to_owned).boxed()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("GATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/publication/gate.proptest-regressions"))),
        max_global_rejects: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_comment_is_harmless_whatever_it_was(body in hostile()) {
        let out = gate(&body);
        assert_harmless(&out);
        prop_assert_eq!(gate(&out), out);
    }

    #[test]
    fn pieces_are_harmless_wherever_a_template_puts_them(text in hostile(), other in hostile()) {
        // `password="` swallows what the template puts behind it: rightly so.
        prop_assume!(!text.contains("password") && !text.contains("token"));
        let secrets = Secrets::none();
        let (piece, _): (Clean, _) = inline(&text, CommentLimits::default(), &secrets);
        let (fence, _) = block(&other, CommentLimits::default(), &secrets);
        prop_assert!(!piece.as_str().contains('\n'));
        let body = format!("{piece}\n\n{piece}1 and **{piece}**alice: ({piece}\n\n| {piece} | x |\n| --- | --- |\n| y | {piece} |\n\n{fence}\n\nend");
        // The template is good, so the fence is where the template put it.
        let out = comment(&body, Allowed::default(), &secrets).0;
        assert_harmless(&out);
        prop_assert!(out.contains(fence.as_str()), "{} lost its fence", out);
    }

    #[test]
    fn a_sentence_with_a_piece_in_it_passes_the_last_gate_unchanged(text in hostile()) {
        prop_assume!(!text.contains("password") && !text.contains("token"));
        let (piece, _) = inline(&text, CommentLimits::default(), &Secrets::none());
        let body = format!("Reason: \"{piece}\".\n");
        let (out, removed) = comment(&body, Allowed::default(), &Secrets::none());
        prop_assert_eq!(&out, &body);
        prop_assert!(removed.is_empty(), "{} from {:?}", removed, body);
    }

    #[test]
    fn a_secret_is_gone_in_whatever_it_stands(before in hostile(), after in hostile(), which in 0..31_usize) {
        let writings = writings(PLAIN);
        let (how, writing) = &writings[which % writings.len()];
        let core = if how.starts_with("base64") { &writing[4..writing.len() - 8] } else { writing };
        let text = format!("{before}\n{writing}\n{after}");
        let out = gate(&text);
        prop_assert_eq!(leftovers(&out, core), None, "{}: {}", how, out);
        let (out, count) = secrets().redact(&text);
        prop_assert_eq!(leftovers(&out, core), None, "{}: {}", how, out);
        prop_assert!(count > 0);
        prop_assert_eq!(secrets().redact(&out).1, 0);
    }

    #[test]
    fn redaction_goes_through_unchanged_a_second_time(text in hostile()) {
        let (once, _) = secrets().redact(&text);
        prop_assert_eq!(secrets().redact(&once), (once, 0));
    }

    #[test]
    fn any_marker_is_read_back(kind in "\\PC{1,20}", effect in "\\PC{1,40}", cell in proptest::option::of("\\PC{1,40}")) {
        let line = marker(&kind, &effect, cell.as_deref());
        prop_assert_eq!(line.lines().count(), 1);
        prop_assert_eq!(line.matches("-->").count(), 1);
        let parsed = parse_marker(&format!("body\n\n{line}\n")).unwrap();
        prop_assert_eq!(parsed.cell.is_some(), cell.is_some());
    }
}
