//! Threat line 22: clones that were made to harm whoever reads them. Each is
//! made by an agent in a real cell; then the cell is closed.

use crate::world::{Comment, Kind, World, WorldOptions};

/// One hostile clone: the agent's name, its script, and words that the close
/// log has to say. `MARK` stands for a file on the host that nobody may make.
type Case = (&'static str, &'static str, &'static [&'static str]);

/// Runs each in a cell of its own and returns the close logs in their order.
async fn closed_with(name: &str, config: &str, cases: &[Case]) -> Vec<Comment> {
    let base = std::env::temp_dir().join(format!("lazarus-mark-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&base);
    let mark = base.to_string_lossy().into_owned();
    let mut config = config.to_owned();
    for (agent, script, _) in cases {
        let script = script.replace("MARK", &mark);
        config.push_str(&format!(
            "[agents.{agent}]\ndescription = \"Hostile\"\nargv = [\"sh\", \"-ec\", {script:?}]\nprompt = \"stdin\"\n"
        ));
    }
    let options = WorldOptions { config, ..WorldOptions::default() };
    let world = World::with(name, options).await;
    let mut logs = vec![];
    for (agent, _, words) in cases {
        let issue = world.reader().open_issue(agent, "Be hostile.").await;
        world.director().comment(issue, &format!("/summon {agent}")).await;
        let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
        let state = world.wait_for_state(issue, &cell, &["idle", "downed"]).await;
        assert_eq!(state, "idle", "the script of {agent} itself failed: {}", world.cli(&["logs", &cell]).all());
        world.director().comment(issue, "/close").await;
        let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
        assert!(!base.exists(), "{agent}: something of the clone ran outside of the cell");
        for word in *words {
            assert!(log.body.contains(word), "{agent}: {word:?} is not in\n{}", log.body);
        }
        logs.push(log);
    }
    world.finish().await;
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_configuration_that_runs_programs_runs_none_outside() {
    const CASES: &[Case] = &[
        (
            "hooks",
            "mkdir -p .git/hooks; for h in applypatch-msg pre-applypatch post-applypatch pre-commit post-commit post-checkout \
             post-merge pre-push pre-receive update post-receive post-update push-to-checkout reference-transaction \
             post-index-change fsmonitor-watchman pre-auto-gc post-rewrite sendemail-validate; do \
             printf '#!/bin/sh\\ntouch MARK 2>/dev/null\\nexit 0\\n' > .git/hooks/$h; chmod +x .git/hooks/$h; done; \
             mkdir h; cp .git/hooks/* h; git config core.hooksPath h; echo a > a; git add a h; git commit -qm a",
            &["1 commit"],
        ),
        (
            "programs",
            "git config core.sshCommand 'touch MARK'; git config core.pager 'touch MARK'; git config core.editor 'touch MARK'; \
             git config diff.external 'touch MARK'; git config gpg.program 'touch MARK'; git config commit.gpgSign true; \
             git config uploadpack.packObjectsHook 'touch MARK'; git config core.gitProxy 'touch MARK'; \
             git config credential.helper '!touch MARK'; git config core.alternateRefsCommand 'touch MARK'; \
             git config url.'ext::sh -c \"touch MARK\"'.insteadOf http; git config protocol.ext.allow always; \
             echo a > a; git add a; git -c commit.gpgSign=false commit -qm a; echo b > b; git config core.fsmonitor 'touch MARK'",
            &["2 commits"],
        ),
        (
            "filters",
            "printf '* filter=evil diff=evil\\n' > .gitattributes; git config filter.evil.clean 'touch MARK 2>/dev/null; cat'; \
             git config filter.evil.smudge 'touch MARK 2>/dev/null; cat'; git config diff.evil.textconv 'touch MARK 2>/dev/null; cat'; git config diff.evil.command 'touch MARK'; \
             git config filter.evil.required false; echo b > b",
            &["1 commit"],
        ),
        // This one fails within the cell, and is said.
        (
            "process",
            "printf '* filter=evil\\n' > .gitattributes; git config filter.evil.process 'touch MARK'; echo b > b",
            &["could not be read", "touch: cannot touch"],
        ),
        (
            "includes",
            "printf '[core]\\n\\tfsmonitor = touch MARK\\n' > evil.cfg; git config include.path \"$PWD/evil.cfg\"; \
             git config includeIf.gitdir:/.path \"$PWD/evil.cfg\"; echo /etc > .git/objects/info/alternates.more; \
             printf '\\n/etc\\n' >> .git/objects/info/alternates; echo a > a",
            &["1 commit"],
        ),
        (
            "elsewhere",
            "mv .git real; ln -s real .git; echo a > a; mkdir -p real/info; printf real > real/info/exclude",
            &[],
        ),
    ];
    closed_with("runs-none", "", CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_names_that_escape_are_refused_by_their_fault() {
    const REFUSED: &[&str] = &["could not be read", "nothing but this log"];
    const CASES: &[Case] = &[
        (
            "dotgit",
            "b=$(echo x | git hash-object -w --stdin); t=$(printf \"100644 blob $b\\tconfig\\n\" | git mktree); \
             t=$(printf \"040000 tree $t\\t.GIT\\n\" | git mktree); git update-ref HEAD $(git commit-tree $t -p HEAD -m x)",
            REFUSED,
        ),
        (
            "short",
            "b=$(echo x | git hash-object -w --stdin); t=$(printf \"100644 blob $b\\tgit~1\\n\" | git mktree); \
             git update-ref HEAD $(git commit-tree $t -p HEAD -m x)",
            REFUSED,
        ),
        (
            "dots",
            "b=$(echo x | git hash-object -w --stdin); t=$(printf \"100644 blob $b\\tpasswd\\n\" | git mktree); \
             t=$(printf \"040000 tree $t\\t..\\n\" | git mktree); git update-ref HEAD $(git commit-tree $t -p HEAD -m x)",
            REFUSED,
        ),
        (
            "submodule",
            "printf '[submodule \"../../x\"]\\n\\tpath = x\\n\\turl = ext::sh -c touch%% MARK\\n' > .gitmodules; \
             git add .gitmodules; git commit -qm x",
            REFUSED,
        ),
        (
            "linkmodules",
            "b=$(printf /etc/passwd | git hash-object -w --stdin); t=$(printf \"120000 blob $b\\t.gitmodules\\n\" | git mktree); \
             git update-ref HEAD $(git commit-tree $t -p HEAD -m x)",
            REFUSED,
        ),
        // These are ugly, and content like any other.
        (
            "odd",
            "printf x > \"$(printf 'a\\nb')\"; printf x > \"$(printf 'c\\033[31m')\"; printf x > '`d` | #1 @all'; \
             ln -s /etc/passwd link; git add -A; git commit -qm 'closes #1 @all'",
            &["1 commit", "4 files", "1 symbolic link"],
        ),
    ];
    let logs = closed_with("names", "", CASES).await;
    let odd = logs.last().unwrap();
    assert!(!odd.body.contains('\u{1b}') && !odd.body.contains("#1 @all"), "{}", odd.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_work_without_measure_is_refused_by_its_limit() {
    const CASES: &[Case] = &[
        (
            "pack",
            "head -c 3000000 /dev/urandom > big; git add big; git commit -qm big",
            &["harvest.pack_max", "nothing but this log"],
        ),
        // Small when packed, large when it is read.
        ("blob", "truncate -s 64M zeros; git add zeros; git commit -qm zeros", &["harvest.file_max"]),
        (
            "files",
            "mkdir d; for i in $(seq 60); do echo $i > d/$i; done; git add d; git commit -qm many",
            &["harvest.files_max"],
        ),
        (
            "orphan",
            "git checkout -q --orphan alone; git rm -rqf .; echo a > a; git add a; git commit -qm alone",
            &["1 commit"],
        ),
        ("unborn", "git checkout -q --orphan alone", &["could not be read"]),
        ("gone", "rm -rf .git", &["could not be read"]),
        (
            "another",
            "rm -rf .git; git init -q .; git add -A; git commit -qm mine",
            &["1 commit"],
        ),
    ];
    let config = "[harvest]\npack_max = \"1MiB\"\nfile_max = \"1MiB\"\nfiles_max = 50\n";
    closed_with("measure", config, CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_a_harvest_that_is_tampered_with_is_no_more_than_the_cells_own_word() {
    // The clean filter runs while the work is handed out, with the same rights.
    const CASES: &[Case] = &[
        (
            "linked",
            "printf '* filter=evil\\n' > .gitattributes; git config filter.evil.clean \
             '(while :; do ln -sf /etc/passwd /cell/home/_harvest/work.pack; done) >/dev/null 2>&1 & cat'; echo b > b",
            &[],
        ),
        (
            "piped",
            "printf '* filter=evil\\n' > .gitattributes; git config filter.evil.clean \
             '(while :; do rm -f /cell/home/_harvest/work.pack; mkfifo /cell/home/_harvest/work.pack; done) >/dev/null 2>&1 & cat'; \
             echo b > b",
            &[],
        ),
    ];
    closed_with("tampered", "", CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_23_configuration_for_agents_in_the_project_is_said_and_not_loaded() {
    let world = World::new("planted").await;
    for (path, text) in [(".mcp.json", "{}"), (".claude/settings.json", "{}"), ("AGENTS.md", "Obey.")] {
        let content = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let change = serde_json::json!({"content": content, "message": "plant"});
        let path = format!("/repos/{}/contents/{path}", world.repository());
        world.admin("POST", &path, Some(change), &[201]).await;
    }
    let issue = world.reader().open_issue("Planted", "Look around.").await;
    world.director().comment(issue, "/summon looker").await;
    let log = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    for name in [".mcp.json", ".claude", "AGENTS.md"] {
        assert!(log.body.contains(name), "{name} is not said:\n{}", log.body);
    }
    world.wait_for_state(issue, &log.cell(), &["idle"]).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}
