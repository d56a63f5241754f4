//! Threat line 22: clones that were made to harm whoever reads them. Each is
//! made by an agent in a real cell; then the cell is closed.

use crate::world::{Comment, Kind, World, WorldOptions};

/// One hostile clone: the agent's name, its script, and words that the close
/// log has to say. `MARK` stands for a file on the host that nobody may make.
type Case<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Runs each in a cell of its own and returns the close logs in their order.
async fn closed_with(name: &str, config: &str, cases: &[Case<'_>]) -> Vec<Comment> {
    let (world, logs) = world_after(name, config, cases).await;
    world.finish().await;
    logs
}

/// The same, and the world is still there.
async fn world_after(name: &str, config: &str, cases: &[Case<'_>]) -> (World, Vec<Comment>) {
    let base = std::env::temp_dir().join(format!("lazarus-mark-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&base);
    let mark = base.to_string_lossy().into_owned();
    let mut config = config.to_owned();
    for (agent, script, _) in cases {
        // In an agent's arguments a brace is a placeholder's.
        let script = script.replace("MARK", &mark).replace('{', "{{").replace('}', "}}");
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
    (world, logs)
}

/// The names of the branches on the forge.
async fn branches(world: &World) -> Vec<String> {
    let list = world.admin("GET", &format!("/repos/{}/branches?limit=50", world.repository()), None, &[200]).await;
    list.as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect()
}

/// The most memory that the daemon had so far, in kB.
fn most_memory(world: &mut World) -> u64 {
    let pid = world.daemon().pid().expect("a daemon that runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_configuration_that_runs_programs_runs_none_outside() {
    const CASES: &[Case<'_>] = &[
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
    const CASES: &[Case<'_>] = &[
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
    const CASES: &[Case<'_>] = &[
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
        ("another", "rm -rf .git; git init -q .; git add -A; git commit -qm mine", &["1 commit"]),
    ];
    let config = "[harvest]\npack_max = \"1MiB\"\nfile_max = \"1MiB\"\nfiles_max = 50\n";
    closed_with("measure", config, CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_a_harvest_that_is_tampered_with_is_no_more_than_the_cells_own_word() {
    // The clean filter runs while the work is handed out, with the same rights.
    const CASES: &[Case<'_>] = &[
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

/// Makes a tree of 12 objects that unfolds to 10^10 paths, and a commit of it on
/// top of what is checked out, as `$bomb`.
const BOMB: &str = "e=$(echo x | git hash-object -w --stdin); t=; \
    for level in 1 2 3 4 5 6 7 8 9 10; do t=$(for n in 0 1 2 3 4 5 6 7 8 9; do \
    if [ $level = 1 ]; then printf '100644 blob %s\\t%s\\n' $e $n; else printf '040000 tree %s\\t%s\\n' $t $n; fi; done | git mktree); \
    done; r=$( (git ls-tree HEAD; printf '040000 tree %s\\tbomb\\n' $t) | git mktree ); \
    bomb=$(git commit-tree $r -p HEAD -m Bomb);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_a_tree_that_unfolds_without_end_is_bounded_and_other_work_leaves() {
    let beside = format!("echo fix > fix; git add fix; git commit -qm Fix; {BOMB} git branch bomb $bomb");
    let on_top = format!("echo fix > fix; git add fix; git commit -qm Fix; {BOMB} git update-ref HEAD $bomb");
    let cases: &[Case<'_>] = &[
        ("beside", &beside, &["The branch `bomb` is held", "harvest.files_max", "Published: branch"]),
        // In the cell git cannot tell what was not committed; that does not stop the rest.
        ("ontop", &on_top, &["Held, not pushed", "harvest.files_max"]),
    ];
    let (mut world, logs) = world_after("bomb", "", cases).await;
    let branch = branches(&world).await.into_iter().find(|name| *name == format!("lazarus/1-{}", logs[0].cell()));
    assert_eq!(world.file_on(&branch.unwrap(), "fix").await.as_deref(), Some("fix\n"), "{}", logs[0].body);
    assert_eq!(branches(&world).await.len(), 2, "{:?}", branches(&world).await);
    assert!(most_memory(&mut world) < 300_000, "the daemon needed {} kB", most_memory(&mut world));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_of_branches_without_number_a_few_leave_and_the_others_are_named() {
    const MANY: &str = "for n in $(seq 10000); do printf 'commit refs/heads/many/%s\\ncommitter a <a@a.invalid> %s +0000\\n\
        data 1\\nx\\nfrom refs/heads/main^0\\n' $n $n; done | git fast-import --quiet; \
        echo fix > fix; git add fix; git commit -qm Fix";
    const CASES: &[Case<'_>] = &[("many", MANY, &["harvest.branches_max", "`many/", "more", "Published: branch"])];
    let (mut world, logs) = world_after("many", "[harvest]\nbranches_max = 3\n", CASES).await;
    assert_eq!(branches(&world).await.len(), 5, "{:?}\n{}", branches(&world).await, logs[0].body);
    assert!(logs[0].body.len() < 10_000, "{}", logs[0].body);
    assert!(most_memory(&mut world) < 300_000);
    world.finish().await;
}

/// A clean filter that takes the harvester's place: it hands out a pack of its own,
/// says what it likes in the harvester's stead (`list` prints it), and ends that
/// before it can say anything.
fn forged(prepare: &str, list: &str) -> String {
    let filter = format!(
        "cat >/dev/null; cd /cell/project; into=/cell/home/_harvest; unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY; \
         p=$$; while [ \"$(cat /proc/$p/comm)\" != lazarus ]; do p=$(cut -d' ' -f4 /proc/$p/stat); done; \
         rm -f $into/work.pack; ({list}) > /proc/$p/fd/1; kill -9 $p; sleep 5"
    );
    format!(
        "{prepare} printf '* filter=evil\\n' > .gitattributes; printf '%s' {} > ../shared/filter; \
         git config filter.evil.clean 'sh ../shared/filter'; echo b > b",
        shell_quoted(&filter)
    )
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_a_list_that_an_agent_wrote_itself_gets_no_more_than_a_list_may() {
    const MANY: &str = "for n in $(seq 300); do printf 'commit refs/heads/many/%s\\ncommitter a <a@a.invalid> %s +0000\\n\
        data 1\\nx\\nfrom refs/heads/main^0\\n' $n $n; done | git fast-import --quiet;";
    let pack =
        "git for-each-ref --format='%(objectname)' refs/heads | git pack-objects --revs --stdout -q > $into/work.pack;";
    let list = format!(
        "{pack} printf '{{\"branches\":[%s[\"x\",\"zz\"]]}}\\n' \
         \"$(git for-each-ref --format='[\"%(refname:short)\",\"%(objectname)\"],' refs/heads/many | tr -d '\\n')\";"
    );
    let many = forged(MANY, &list);
    // Names and notes without end, and words that are none of ours.
    let words = format!(
        "{pack} long=$(head -c 60000 /dev/zero | tr '\\0' 'a'); printf \
         '{{\"uncommitted\":18446744073709551615,\"apart\":[\"`/close` @all %s\"],\"rest_unread\":\"closes #1 %s\",\"beyond_count\":99999999}}\\n' \
         $long $long;"
    );
    let words = forged("echo a > a; git add a; git commit -qm A;", &words);
    let claimed = "printf '{\"tip\":\"%s\",\"rest\":true,\"snapshot\":\"x\"}\\n' \"$(printf 'refs/heads/main')\";";
    let claimed = forged("", &format!("{pack} {claimed}"));
    let garbage = forged(
        "",
        "head -c 100000 /dev/urandom > $into/work.pack; printf '{\"tip\":\"%s\"}\\n' $(git rev-parse HEAD);",
    );
    // A pack that says that it has four billion objects.
    let counted = forged(
        "",
        "printf 'PACK\\0\\0\\0\\2\\377\\377\\377\\377' > $into/work.pack; printf '{\"tip\":\"%s\"}\\n' $(git rev-parse HEAD);",
    );
    let endless = forged(
        "",
        "while :; do printf '{\"unknown\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"'; done & sleep 1; kill $!;",
    );
    let cases: &[Case<'_>] = &[
        ("many", &many, &["harvest.branches_max", "and 272 more"]),
        ("words", &words, &["nothing but this log"]),
        ("claimed", &claimed, &["could not be read", "no commit"]),
        ("garbage", &garbage, &["could not be read"]),
        ("counted", &counted, &["could not be read", "4294967295 objects"]),
        ("endless", &endless, &["nothing but this log"]),
    ];
    let (mut world, logs) = world_after("forged", "", cases).await;
    let there = branches(&world).await;
    assert_eq!(there.len(), 9, "{there:?}\n{}", logs[0].body);
    for log in &logs {
        assert!(log.body.len() < 10_000, "{} bytes", log.body.len());
        assert!(!log.text().contains("closes #1") && !log.text().contains("\n/close"), "{}", log.body);
    }
    assert!(most_memory(&mut world) < 300_000);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_what_breaks_git_in_the_clone_does_not_keep_the_commits() {
    const CASES: &[Case<'_>] = &[
        (
            "index",
            "echo fix > fix; git add fix; git commit -qm Fix; head -c 1000 /dev/urandom > .git/index; echo rest > rest",
            &["1 commit", "What was not committed could not be read", "Published: branch"],
        ),
        (
            "config",
            "echo fix > fix; git add fix; git commit -qm Fix; printf '[core\\n\\0' > .git/config; echo rest > rest",
            &["1 commit", "What was not committed could not be read", "Published: branch"],
        ),
        (
            "format",
            "echo fix > fix; git add fix; git commit -qm Fix; git config core.repositoryformatversion 99",
            &["1 commit", "Published: branch"],
        ),
        (
            "refs",
            "echo fix > fix; git add fix; git commit -qm Fix; echo $(head -c 20 /dev/zero | tr '\\0' 'a')aaaaaaaaaaaaaaaaaaaa > .git/refs/heads/broken; \
             echo rest > rest",
            &["Published: branch"],
        ),
        (
            "filter",
            "echo fix > fix; git add fix; git commit -qm Fix; printf '* filter=gone\\n' > .gitattributes; \
             git config filter.gone.required true; git config filter.gone.clean /nonexistent; echo rest > rest",
            &["1 commit", "What was not committed could not be read", "Published: branch"],
        ),
        (
            "replaced",
            "echo fix > fix; git add fix; git commit -qm Fix; git replace $(git rev-parse HEAD) $(git rev-parse HEAD~1); \
             printf '%s\\n' $(git rev-parse HEAD) > .git/grafts.none; mkdir -p .git/info; cp .git/grafts.none .git/info/grafts; echo $(git rev-parse HEAD) > .git/shallow",
            &["1 commit", "Published: branch"],
        ),
    ];
    let (world, logs) = world_after("breaks", "", CASES).await;
    for (number, log) in logs.iter().enumerate() {
        let branch =
            format!("lazarus/{}-{}", log.body.split("lazarus/").nth(1).unwrap().split('-').next().unwrap(), log.cell());
        assert_eq!(world.file_on(&branch, "fix").await.as_deref(), Some("fix\n"), "{}:\n{}", CASES[number].0, log.body);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_a_pack_that_unfolds_is_bounded() {
    const CASES: &[Case<'_>] = &[
        // 120 MB of zeros are 120 kB.
        (
            "zeros",
            "echo fix > fix; git add fix; git commit -qm Fix; git checkout -qb zeros; truncate -s 120M zeros; \
             git add zeros; git commit -qm zeros; git checkout -qf main",
            &["The branch `zeros` is held", "`zeros`", "harvest.file_max", "Published: branch"],
        ),
        (
            "deep",
            "echo fix > fix; git add fix; git commit -qm Fix; t=$(git mktree </dev/null); \
             for n in $(seq 3000); do t=$(printf '040000 tree %s\\td\\n' $t | git mktree --missing); done; \
             git branch deep $(git commit-tree $t -p HEAD -m deep)",
            &["1 commit", "Published: branch"],
        ),
    ];
    let (mut world, _) = world_after("unfolds", "[limits]\nfiles = 200000\n", CASES).await;
    assert!(most_memory(&mut world) < 300_000);
    world.finish().await;
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
