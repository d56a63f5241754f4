//! Threat line 42: the branch leaves through the gate. What an agent leaves in
//! its clone is searched before the push: what holds a known secret is never
//! pushed, and what the forge would run by itself only when a director says so.

use serde_json::Value;

use crate::world::{Comment, Kind, World, WorldOptions};

/// The agent gets the one credential there is; it is the world's canary, which
/// must be in no comment, log or printed line (`World::finish`).
const POOL: &str = "[credentials]\nprovider_env = \"CANARY_SECRET\"\n";

fn agent(name: &str, script: &str) -> String {
    format!(
        "[agents.{name}]\ndescription = \"Works\"\nargv = [\"sh\", \"-ec\", {script:?}]\nprompt = \"stdin\"\n\
         credentials = {{ PROVIDER_KEY = \"provider\" }}\n"
    )
}

async fn world_of(name: &str, agents: &[(&str, &str)], config: &str) -> World {
    let agents: String = agents.iter().map(|(name, script)| agent(name, script)).collect();
    // Whoever closes so many cells gives many commands.
    let policy = "commands_per_minute = 1000\n".to_owned();
    World::with(name, WorldOptions { policy, config: format!("{POOL}{config}{agents}"), ..WorldOptions::default() })
        .await
}

/// Has an agent work on an issue of its own. Returns issue and cell.
async fn worked(world: &World, agent: &str) -> (i64, String) {
    let issue = world.reader().open_issue(agent, "Work.").await;
    world.director().comment(issue, &format!("/summon {agent}")).await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let state = world.wait_for_state(issue, &cell, &["idle", "downed"]).await;
    assert_eq!(state, "idle", "the script of {agent} itself failed: {}", world.cli(&["logs", &cell]).all());
    (issue, cell)
}

async fn closed(world: &World, issue: i64) -> Comment {
    let known = world.comments_of(issue, Kind::CloseLog).await.len();
    world.director().comment(issue, "/close").await;
    world
        .wait_until("a new close log", issue, async || {
            let logs = world.comments_of(issue, Kind::CloseLog).await;
            (logs.len() > known).then(|| logs.last().unwrap().clone())
        })
        .await
}

async fn branches(world: &World) -> Vec<String> {
    let list = world.admin("GET", &format!("/repos/{}/branches?limit=50", world.repository()), None, &[200]).await;
    let mut names: Vec<String> =
        list.as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// The commit of a branch on the forge.
async fn head(world: &World, branch: &str) -> String {
    let path = format!("/repos/{}/branches/{}", world.repository(), branch.replace('/', "%2F"));
    world.admin("GET", &path, None, &[200]).await["commit"]["id"].as_str().unwrap().to_owned()
}

fn branch_of(issue: i64, cell: &str) -> String {
    format!("lazarus/{issue}-{cell}")
}

/// The first line of a comment, as people see it.
fn first_line(comment: &Comment) -> &str {
    comment.text().lines().next().unwrap_or_default()
}

/// The ledger's entries of that action.
fn entries(world: &World, action: &str) -> Vec<String> {
    let ledger: Value = serde_json::from_str(&world.ledger()).unwrap();
    let all = ledger["entries"].as_array().unwrap();
    all.iter().filter(|entry| entry["action"] == action).map(|entry| entry["data"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_a_known_secret_holds_the_push_wherever_and_however_it_is_written() {
    /// Agent, script, what the first line has to say of the place.
    const CASES: &[(&str, &str, &[&str])] = &[
        ("plain", "echo \"key = '$PROVIDER_KEY'\" > config.py; git add .; git commit -qm Add", &["in `config.py`"]),
        (
            "encoded",
            "mkdir d; printf 'x%s' \"$PROVIDER_KEY\" | base64 > d/blob; git add .; git commit -qm Add",
            &["in `d/blob`"],
        ),
        (
            "wide",
            "printf '\\377\\376' > wide; printf %s \"$PROVIDER_KEY\" | sed 's/./&\\n/g' | \
             while read c; do printf '%s\\0' \"$c\"; done >> wide; git add .; git commit -qm Add",
            &["in `wide`"],
        ),
        (
            "earlier",
            "echo $PROVIDER_KEY > f; git add .; git commit -qm Add; git rm -q f; git commit -qm Remove; \
             echo fine > g; git add .; git commit -qm Fine",
            &["in `f`"],
        ),
        ("message", "echo a > a; git add .; git commit -qm \"Use $PROVIDER_KEY\"", &["in the message"]),
        (
            "author",
            "echo a > a; git add .; GIT_AUTHOR_NAME=\"$PROVIDER_KEY\" git commit -qm Add",
            &["in the message or an author"],
        ),
        ("path", "mkdir -p d; echo a > \"d/$PROVIDER_KEY\"; git add .; git commit -qm Add", &["in the name of a file"]),
        ("renamed", "git mv README.md \"$PROVIDER_KEY.md\"; git commit -qm Rename", &["in the name of a file"]),
        ("uncommitted", "echo \"$PROVIDER_KEY\" > .env", &["What was not committed", "in `.env`"]),
        (
            "merged",
            "git checkout -qb side; echo $PROVIDER_KEY > s; git add .; git commit -qm s; git rm -q s; git commit -qm t; \
             git checkout -q main; echo a > a; git add .; git commit -qm a; git merge -q -m m side",
            &["in `s`"],
        ),
        (
            "binary",
            "head -c 100000 /dev/urandom > bin; printf %s $PROVIDER_KEY >> bin; head -c 100000 /dev/urandom >> bin; \
             git add .; git commit -qm Add",
            &["in `bin`"],
        ),
    ];
    let agents: Vec<(&str, &str)> = CASES.iter().map(|(agent, script, _)| (*agent, *script)).collect();
    let world = world_of("secrets", &agents, "").await;
    for (agent, _, words) in CASES {
        let (issue, cell) = worked(&world, agent).await;
        let log = closed(&world, issue).await;
        let first = first_line(&log);
        for word in
            ["Held, not pushed", "known secret (`provider`)", &format!("lazarus work {cell} DIR")].iter().chain(*words)
        {
            assert!(first.contains(word), "{agent}: {word:?} is not in the first line of\n{}", log.body);
        }
        assert!(log.body.contains("nothing but this log"), "{agent}:\n{}", log.body);
        assert_eq!(branches(&world).await, ["main"], "{agent}");
        let again = world.director().comment(issue, &format!("/publish work {cell}")).await;
        world.wait_for_reaction(issue, again, "confused").await;
        world
            .wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["can be released", "never leaves"]))
            .await;
    }
    assert_eq!(branches(&world).await, ["main"]);
    assert!(world.pulls().await.is_empty());
    let held = entries(&world, "work_held");
    assert_eq!(held.len(), CASES.len(), "{held:?}");
    assert!(entries(&world, "work_released").is_empty());
    assert!(!world.ledger().contains(world.canary()));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_a_secret_holds_its_own_branch_and_no_other() {
    const AGENTS: &[(&str, &str)] = &[
        (
            "beside",
            "echo a > a; git add .; git commit -qm Fix; git checkout -qb leak; echo $PROVIDER_KEY > k; git add .; \
             git commit -qm Leak; git checkout -q main; git checkout -qb try/two; echo b > b; git add .; git commit -qm b; \
             git checkout -q main; git branch \"named-$PROVIDER_KEY\" try/two~0; git checkout -q \"named-$PROVIDER_KEY\"; \
             echo c > c; git add .; git commit -qm c; git checkout -q main",
        ),
        ("below", "echo a > a; git add .; git commit -qm Fix; echo $PROVIDER_KEY > k"),
    ];
    let world = world_of("one-branch", AGENTS, "").await;
    let (issue, cell) = worked(&world, "beside").await;
    let log = closed(&world, issue).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "a").await.as_deref(), Some("a\n"), "{}", log.body);
    let there = branches(&world).await;
    assert!(there.iter().any(|name| name.ends_with("try-two")), "{there:?}\n{}", log.body);
    assert_eq!(there.len(), 3, "{there:?}");
    assert!(log.says(&["the branch `leak` is held", "in `k`"]), "{}", log.body);
    assert!(log.says(&["in the name of the branch"]), "{}", log.body);
    assert_eq!(world.pulls().await.len(), 1);

    // What was committed leaves without what was not.
    let (issue, cell) = worked(&world, "below").await;
    let log = closed(&world, issue).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "a").await.as_deref(), Some("a\n"), "{}", log.body);
    assert!(world.file_on(&branch, "k").await.is_none());
    assert!(first_line(&log).contains("What was not committed is held"), "{}", log.body);
    assert!(log.says(&["1 commit,", "1 file touched"]), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_held_work_is_the_operators_and_leaves_once_its_history_has_no_secret() {
    const AGENTS: &[(&str, &str)] = &[(
        "learns",
        "if [ -e k ]; then git reset -q --hard HEAD~1; echo clean > c; git add .; git commit -qm Clean; \
         else echo $PROVIDER_KEY > k; git add .; git commit -qm Leak; fi",
    )];
    let mut world = world_of("learns", AGENTS, "").await;
    let (issue, cell) = worked(&world, "learns").await;
    closed(&world, issue).await;
    assert_eq!(branches(&world).await, ["main"]);

    // With the daemon and without it.
    let place = tempfile::tempdir().unwrap();
    for name in ["with", "without"] {
        let directory = place.path().join(name);
        let directory = directory.to_str().unwrap();
        let output = world.cli(&["work", &cell, directory, "--json"]);
        assert!(output.status.success(), "{}", output.all());
        assert_eq!(output.json()["branches"], serde_json::json!(["work"]));
        assert!(output.json()["held"][0].as_str().unwrap().contains("known secret (provider)"), "{}", output.all());
        let shown = std::process::Command::new("git").args(["-C", directory, "show", "work:k"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), world.canary());
        // It stands by itself: nothing is borrowed from the host's repositories.
        assert!(!std::path::Path::new(directory).join(".git/objects/info/alternates").exists());
        let again = world.cli(&["work", &cell, directory]);
        assert!(!again.status.success() && again.all().contains("File exists"), "{}", again.all());
        if name == "with" {
            world.daemon().stop().await;
        }
    }
    world.daemon().start().await;

    world.director().comment(issue, &format!("/resurrect {cell}")).await;
    world.wait_for_state(issue, &cell, &["active", "idle"]).await;
    world.wait_for_state(issue, &cell, &["idle"]).await;
    let log = closed(&world, issue).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "c").await.as_deref(), Some("clean\n"), "{}", log.body);
    assert!(!log.body.contains("Held"), "{}", log.body);
    let destroyed = world.cli(&["destroy", &cell]);
    assert!(destroyed.status.success(), "{}", destroyed.all());
    let gone = world.cli(&["work", &cell, place.path().join("gone").to_str().unwrap()]);
    assert!(!gone.status.success() && gone.all().contains("destroyed"), "{}", gone.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_what_the_forge_would_run_holds_the_push_by_whatever_path_it_comes() {
    /// Agent, script, what the first line names.
    const CASES: &[(&str, &str, &str)] = &[
        (
            "new",
            "mkdir -p .gitea/workflows; echo 'on: push' > .gitea/workflows/x.yml; git add .; git commit -qm Add",
            "`.gitea/workflows/x.yml`",
        ),
        (
            "github",
            "mkdir -p .github/workflows; echo 'on: push' > .github/workflows/x.yml; git add .; git commit -qm Add",
            "`.github/workflows/x.yml`",
        ),
        (
            "cases",
            "mkdir -p .Forgejo/Workflows; echo x > .Forgejo/Workflows/x.yml; git add .; git commit -qm Add",
            "`.Forgejo/Workflows/x.yml`",
        ),
        ("woodpecker", "echo x > .woodpecker.yaml; git add .; git commit -qm Add", "`.woodpecker.yaml`"),
        ("drone", "echo x > .drone.yml; git add .; git commit -qm Add", "`.drone.yml`"),
        (
            "renamed",
            "mkdir ci; echo 'on: push' > ci/x.yml; git add .; git commit -qm Add; mkdir -p .gitea; \
             git mv ci .gitea/workflows; git commit -qm Move",
            "`.gitea/workflows/x.yml`",
        ),
        // No object is new here but the root: the directory is there already.
        (
            "moved",
            "mkdir -p a/workflows; echo 'on: push' > a/workflows/x.yml; git add .; git commit -qm Add; \
             t=$(git rev-parse HEAD:a); r=$( (git ls-tree HEAD; printf \"040000 tree $t\\t.forgejo\\n\") | git mktree ); \
             git reset -q --hard $(git commit-tree $r -p HEAD -m Move)",
            "`.forgejo/workflows/x.yml`",
        ),
        (
            "linked",
            "mkdir -p ci/workflows; echo 'on: push' > ci/workflows/x.yml; ln -s ci .forgejo; git add .; git commit -qm Link",
            "`.forgejo`",
        ),
        (
            "sub",
            "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),.forgejo; git commit -qm Sub",
            "`.forgejo`",
        ),
        (
            "taken",
            "mkdir -p .gitea/workflows; echo x > .gitea/workflows/x.yml; git add .; git commit -qm Add; \
             git rm -rq .gitea; git commit -qm Remove",
            "`.gitea/workflows/x.yml`",
        ),
        ("uncommitted", "mkdir -p .gitea/workflows; echo x > .gitea/workflows/x.yml", "`.gitea/workflows/x.yml`"),
    ];
    let mut agents: Vec<(&str, &str)> = CASES.iter().map(|(agent, script, _)| (*agent, *script)).collect();
    agents.push((
        "people",
        "mkdir -p .github/ISSUE_TEMPLATE; echo x > .github/ISSUE_TEMPLATE/x.md; mkdir gitea; echo x > gitea/workflows; \
         git add .; git commit -qm Add",
    ));
    agents.push((
        "other",
        "echo a > a; git add .; git commit -qm Fix; git checkout -qb ci; mkdir -p .gitea/workflows; \
         echo x > .gitea/workflows/x.yml; git add .; git commit -qm CI; git checkout -q main",
    ));
    let world = world_of("runs", &agents, "").await;
    for (agent, _, path) in CASES {
        let (issue, cell) = worked(&world, agent).await;
        let log = closed(&world, issue).await;
        let first = first_line(&log);
        for word in ["Held, not pushed", path, "by itself", &format!("`/publish work {cell}`")] {
            assert!(first.contains(word), "{agent}: {word:?} is not in the first line of\n{}", log.body);
        }
        assert_eq!(branches(&world).await, ["main"], "{agent}:\n{}", log.body);
    }
    // What people read is no such thing, and one branch does not hold another.
    let (issue, cell) = worked(&world, "people").await;
    let log = closed(&world, issue).await;
    assert!(world.file_on(&branch_of(issue, &cell), "gitea/workflows").await.is_some(), "{}", log.body);
    let (issue, cell) = worked(&world, "other").await;
    let log = closed(&world, issue).await;
    assert!(world.file_on(&branch_of(issue, &cell), "a").await.is_some(), "{}", log.body);
    assert!(first_line(&log).contains("The branch `ci` is held"), "{}", log.body);
    assert_eq!(branches(&world).await.len(), 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_what_a_link_of_the_project_leads_to_is_run_as_well() {
    const AGENTS: &[(&str, &str)] = &[
        ("behind", "echo more >> ci/real.yml; git add .; git commit -qm More"),
        ("between", "rm ci; mkdir ci; echo mine > ci/real.yml; git add .; git commit -qm Mine"),
        ("elsewhere", "echo a > a; git add .; git commit -qm A"),
    ];
    let world = world_of("links", AGENTS, "").await;
    let place = tempfile::tempdir().unwrap();
    let script = "set -e; git clone -q \"$URL\" clone; cd clone; mkdir -p .gitea/workflows tools; echo 'on: push' > tools/real.yml; \
                  ln -s tools ci; ln -s ../../ci/real.yml .gitea/workflows/x.yml; git add .; \
                  git -c user.name=ada -c user.email=ada@example.invalid commit -qm CI; git push -q origin HEAD:main";
    let url = format!("{}/{}.git", world.server().url(), world.repository());
    let director = world.director();
    let url = url.replacen("://", &format!("://{}:{}@", director.login, director.token()), 1);
    let pushed =
        std::process::Command::new("sh").args(["-c", script]).env("URL", url).current_dir(place.path()).output();
    let pushed = pushed.unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    for (agent, path) in [("behind", "`tools/real.yml`"), ("between", "`ci/real.yml`")] {
        // What the clone has under the one name is what the link leads to.
        let (issue, _) = worked(&world, agent).await;
        let log = closed(&world, issue).await;
        assert!(first_line(&log).contains("Held, not pushed"), "{agent}:\n{}", log.body);
        assert!(first_line(&log).contains(path), "{agent}:\n{}", log.body);
    }
    let (issue, cell) = worked(&world, "elsewhere").await;
    let log = closed(&world, issue).await;
    assert_eq!(branches(&world).await, [branch_of(issue, &cell), "main".to_owned()], "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_a_director_releases_what_the_forge_runs_and_just_the_commits_that_were_shown() {
    const AGENTS: &[(&str, &str)] =
        &[("ci", "mkdir -p .gitea/workflows; date +%s%N > .gitea/workflows/x.yml; git add .; git commit -qm CI")];
    let world = world_of("released", AGENTS, "").await;
    let (issue, cell) = worked(&world, "ci").await;
    closed(&world, issue).await;
    let branch = branch_of(issue, &cell);
    for person in [world.reader(), world.writer()] {
        let asked = person.comment(issue, &format!("/publish work {cell}")).await;
        world.wait_for_reaction(issue, asked, "confused").await;
    }
    assert_eq!(branches(&world).await, ["main"]);

    let asked = world.director().comment(issue, &format!("/publish work {cell}")).await;
    world.wait_for_reaction(issue, asked, "+1").await;
    let said = world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["Released by"])).await;
    assert!(said.says(&[&world.director().login, ".gitea/workflows/x.yml"]), "{}", said.body);
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["is on branch"])).await;
    let first = world.file_on(&branch, ".gitea/workflows/x.yml").await.expect("it was released");
    let released = entries(&world, "work_released");
    let [entry] = released.as_slice() else { panic!("one release is on record, not {released:?}") };
    assert!(entry.contains(&head(&world, &branch).await) && entry.contains("x.yml"), "{entry}");
    assert_eq!(world.pulls().await.len(), 1);
    assert!(!world.cli(&["publish", &cell]).status.success(), "it is published already");

    // Other commits are held anew.
    world.director().comment(issue, &format!("/resurrect {cell}")).await;
    world
        .wait_until("its second commit", issue, async || {
            let text = world.file_of_cell(&cell, "project/.gitea/workflows/x.yml")?;
            (text != first).then_some(())
        })
        .await;
    world.wait_for_state(issue, &cell, &["idle"]).await;
    let log = closed(&world, issue).await;
    assert!(first_line(&log).contains("Held, not pushed"), "{}", log.body);
    assert_eq!(world.file_on(&branch, ".gitea/workflows/x.yml").await.as_ref(), Some(&first));
    // An operator is a director, and is told what left.
    let output = world.cli(&["publish", &cell, "--json"]);
    assert!(output.status.success(), "{}", output.all());
    assert_ne!(world.file_on(&branch, ".gitea/workflows/x.yml").await.as_ref(), Some(&first));
    assert_eq!(entries(&world, "work_released").len(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_what_is_too_much_to_search_is_held_until_the_limit_is_another() {
    const AGENTS: &[(&str, &str)] = &[("large", "head -c 3000000 /dev/urandom > a; git add .; git commit -qm Add")];
    let mut world = world_of("unsearched", AGENTS, "[harvest]\nsearch_max = \"1MiB\"\n").await;
    let (issue, cell) = worked(&world, "large").await;
    let log = closed(&world, issue).await;
    assert!(first_line(&log).contains("too large to search for secrets"), "{}", log.body);
    assert!(first_line(&log).contains("harvest.search_max"), "{}", log.body);
    world.director().comment(issue, &format!("/publish work {cell}")).await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["too large to search"])).await;
    assert_eq!(branches(&world).await, ["main"]);
    let config = world.installation().config.clone();
    let text = std::fs::read_to_string(&config).unwrap().replace("search_max = \"1MiB\"", "search_max = \"8MiB\"");
    std::fs::write(&config, text).unwrap();
    world.daemon().restart().await;
    world.director().comment(issue, &format!("/publish work {cell}")).await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["is on branch"])).await;
    assert_eq!(branches(&world).await, [branch_of(issue, &cell), "main".to_owned()]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_a_secret_that_is_new_to_the_daemon_holds_what_was_free_before() {
    const AGENTS: &[(&str, &str)] = &[("early", "echo hunter2-hunter2 > k; git add .; git commit -qm Add")];
    let mut world = world_of("later", AGENTS, "").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let (issue, cell) = worked(&world, "early").await;
    // Found free when it was taken in; the daemon dies before it is pushed, and
    // comes back with one more credential.
    let fault = serde_json::json!({"path": "git-receive-pack", "do": "refuse", "status": 503, "times": 1000});
    world.misbehave(serde_json::json!({"api": [fault]})).await;
    world.director().comment(issue, "/close").await;
    world.wait_for_state(issue, &cell, &["closed"]).await;
    world.daemon().kill_9();
    let config = world.installation().config.clone();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(world.place().join("late.key"), "hunter2-hunter2\n").unwrap();
    std::fs::set_permissions(world.place().join("late.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    std::fs::write(&config, text.replace("[credentials]\n", "[credentials]\nlate_file = \"late.key\"\n")).unwrap();
    world.behave().await;
    world.daemon().start().await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(first_line(&log).contains("known secret (`late`)"), "{}", log.body);
    assert_eq!(branches(&world).await, ["main"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_files_of_a_cell_pass_byte_by_byte() {
    const AGENTS: &[(&str, &str)] = &[(
        "files",
        "cd /cell/shared/artifacts 2>/dev/null || cd ../shared/artifacts; \
         printf 'key %s\\377\\n' \"$PROVIDER_KEY\" > one.txt; printf 'key %s\\n' \"$PROVIDER_KEY\" > text.txt; \
         printf '\\377\\376fine' > fine.zip; printf 'PK\\377%s' \"$(printf %s $PROVIDER_KEY | base64)\" > packed.zip; \
         echo x > \"$PROVIDER_KEY.txt\"; printf 'PUBLISH\\n\\377%s\\n' \"$PROVIDER_KEY\" > ../notes.md; \
         cd - >/dev/null; echo $PROVIDER_KEY > ../shared/leak; sleep 3600",
    )];
    let world = world_of("bytes", AGENTS, "").await;
    let issue = world.reader().open_issue("files", "Work.").await;
    world.director().comment(issue, "/summon files").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_until("the agent's files", issue, async || world.file_of_cell(&cell, "shared/leak")).await;
    let attached = async || {
        let mut found = vec![];
        for comment in world.bot_comments(issue).await {
            let path = format!("/repos/{}/issues/comments/{}/assets", world.repository(), comment.id);
            for file in world.admin("GET", &path, None, &[200]).await.as_array().unwrap() {
                let address = file["browser_download_url"].as_str().unwrap();
                let bytes = world.client().get(address).send().await.unwrap().bytes().await.unwrap().to_vec();
                found.push((file["name"].as_str().unwrap().to_owned(), bytes));
            }
        }
        found
    };
    let refused = async |command: &str, words: &[&str]| {
        let known = world.comments_of(issue, Kind::Refusal).await.len();
        world.director().comment(issue, command).await;
        world
            .wait_until(&format!("a refusal of {command}"), issue, async || {
                let all = world.comments_of(issue, Kind::Refusal).await;
                (all.len() > known)
                    .then(|| assert!(all.last().unwrap().says(words), "{command}: {}", all.last().unwrap().body))
            })
            .await;
    };
    refused("/publish artifact one.txt", &["known secret (`provider`)", "one.txt"]).await;
    refused("/publish artifact packed.zip", &["known secret (`provider`)", "packed.zip"]).await;
    world.director().comment(issue, "/checkpoint").await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["Checkpoint of"])).await;
    refused("/publish checkpoint", &["known secret (`provider`)"]).await;
    // Notes are text: what is no text in them is lost, and the secret is taken out.
    for (command, name) in [("notes", "notes.md"), ("artifact text.txt", "text.txt"), ("artifact fine.zip", "fine.zip")]
    {
        world.director().comment(issue, &format!("/publish {command}")).await;
        world.wait_until(name, issue, async || attached().await.iter().any(|(n, _)| n == name).then_some(())).await;
    }
    let files = attached().await;
    assert_eq!(files.len(), 3, "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, bytes) in &files {
        let has = bytes.windows(world.canary().len()).any(|window| window == world.canary().as_bytes());
        assert!(!has, "the canary is in {name}");
    }
    world.finish().await;
}
