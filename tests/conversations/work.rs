//! The work leaves the cell: branch, pull request, close log.

use serde_json::{Value, json};

use crate::world::{Comment, Kind, Proposal, World, WorldOptions};

/// A world whose agent `worker` runs that script in the clone.
async fn world_of(name: &str, script: &str, config: &str) -> World {
    let config = format!(
        "[agents.worker]\ndescription = \"Works\"\nargv = [\"sh\", \"-ec\", {script:?}]\nprompt = \"stdin\"\n{config}"
    );
    World::with(name, WorldOptions { config, ..WorldOptions::default() }).await
}

/// Summons the worker and waits until it is done. Returns issue and cell.
async fn summoned(world: &World) -> (i64, String) {
    let issue = world.reader().open_issue("Oil the hinge", "It squeaks. closes #1").await;
    world.director().comment(issue, "/summon worker").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    (issue, cell)
}

async fn closed(world: &World, issue: i64, cell: &str) -> Comment {
    let known = world.comments_of(issue, Kind::CloseLog).await.len();
    world.director().comment(issue, "/close").await;
    world
        .wait_until("a new close log", issue, async || {
            let logs = world.comments_of(issue, Kind::CloseLog).await;
            (logs.len() > known).then(|| logs.last().unwrap().clone()).filter(|log| log.cell() == cell)
        })
        .await
}

fn branch_of(issue: i64, cell: &str) -> String {
    format!("lazarus/{issue}-{cell}")
}

async fn commit(world: &World, branch: &str) -> Value {
    let path = format!("/repos/{}/branches/{}", world.repository(), branch.replace('/', "%2F"));
    world.admin("GET", &path, None, &[200]).await["commit"].clone()
}

async fn branches(world: &World) -> Vec<String> {
    let list = world.admin("GET", &format!("/repos/{}/branches?limit=50", world.repository()), None, &[200]).await;
    let mut names: Vec<String> =
        list.as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

const ONE_COMMIT: &str = "echo oil > oil.txt; git add oil.txt; git commit -qm 'Oil the hinge'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_commits_become_a_branch_and_a_pull_request() {
    let world = world_of("work", ONE_COMMIT, "").await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "oil.txt").await.as_deref(), Some("oil\n"));
    let commit = commit(&world, &branch).await;
    let message = commit["message"].as_str().unwrap();
    assert!(message.contains(&format!("Lazarus-Mission: {}", world.mission(issue))), "{message}");
    assert!(message.contains(&format!("Lazarus-Cell: {cell}")), "{message}");
    assert_eq!(commit["author"]["name"], "agent:worker");

    let pulls = world.pulls().await;
    let [pull] = pulls.as_slice() else { panic!("one pull request, not {}", pulls.len()) };
    assert_eq!((&pull["head"]["ref"], &pull["base"]["ref"]), (&json!(branch), &json!("main")));
    assert_eq!(pull["title"], "Oil the hinge");
    assert_eq!(pull["user"]["login"], json!(world.bot().login));
    let body = pull["body"].as_str().unwrap();
    for word in [&format!("#{issue}"), &cell, "agent:worker", "Ledger:", "SHA-256", "Oil the hinge"] {
        assert!(body.contains(word), "{word} is not in\n{body}");
    }
    let number = pull["number"].as_i64().unwrap();
    for word in [&branch, &format!("#{number}"), "oil.txt", "1 commit"] {
        assert!(log.body.contains(word), "{word} is not in\n{}", log.body);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_was_done_nothing_is_published() {
    let world = world_of("no-work", "true", "").await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    assert!(log.body.contains("nothing but this log"), "{}", log.body);
    assert_eq!(branches(&world).await, ["main"]);
    assert!(world.pulls().await.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_committed_is_one_marked_commit() {
    let script = format!("{ONE_COMMIT}; echo more >> oil.txt; mkdir d; echo new > d/new.txt");
    let world = world_of("uncommitted", &script, "").await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "oil.txt").await.as_deref(), Some("oil\nmore\n"));
    assert_eq!(world.file_on(&branch, "d/new.txt").await.as_deref(), Some("new\n"));
    let commit = commit(&world, &branch).await;
    assert_eq!(commit["author"]["name"], "lazarus");
    assert!(commit["message"].as_str().unwrap().contains("Lazarus-Uncommitted: true"), "{commit}");
    assert!(log.body.contains("2 changes had not been committed; the last commit is of them"), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_committed_is_left_out_and_said_where_policy_says_so() {
    let script = format!("{ONE_COMMIT}; echo more >> oil.txt");
    let world = world_of("left-out", &script, "[harvest]\ncommit_uncommitted = false\n").await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    assert_eq!(world.file_on(&branch_of(issue, &cell), "oil.txt").await.as_deref(), Some("oil\n"));
    assert!(log.body.contains("1 change had not been committed."), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_branches_of_the_clone_leave_beside_it() {
    let script = format!(
        "{ONE_COMMIT}; git checkout -q -b try/two; echo b > b; git add b; git commit -qm b; git checkout -q main"
    );
    let world = world_of("branches", &script, "").await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    let (branch, other) = (branch_of(issue, &cell), format!("{}-1-try-two", branch_of(issue, &cell)));
    assert_eq!(branches(&world).await, [branch.clone(), other.clone(), "main".to_owned()]);
    assert_eq!(world.file_on(&other, "b").await.as_deref(), Some("b\n"));
    assert!(world.file_on(&branch, "b").await.is_none());
    assert!(log.body.contains(&other), "{}", log.body);
    assert_eq!(world.pulls().await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_work_on_the_name_is_left_alone() {
    let world = world_of("taken", ONE_COMMIT, "").await;
    let (issue, cell) = summoned(&world).await;
    let branch = branch_of(issue, &cell);
    let change = json!({"content": "eA==", "message": "mine", "new_branch": branch});
    world.admin("POST", &format!("/repos/{}/contents/mine.txt", world.repository()), Some(change), &[201]).await;
    let before = commit(&world, &branch).await;
    let log = closed(&world, issue, &cell).await;
    assert_eq!(commit(&world, &branch).await["id"], before["id"], "it was pushed over");
    assert_eq!(world.file_on(&format!("{branch}-2"), "oil.txt").await.as_deref(), Some("oil\n"));
    assert!(log.body.contains("other work was on the name"), "{}", log.body);
    assert_eq!(world.pulls().await[0]["head"]["ref"], json!(format!("{branch}-2")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_push_is_said_in_the_forges_words_and_can_be_tried_again() {
    let world = world_of("refused", ONE_COMMIT, "").await;
    let rules = format!("/repos/{}/branch_protections", world.repository());
    let rule = json!({"rule_name": "lazarus/**", "branch_name": "lazarus/**", "enable_push": false});
    world.admin("POST", &rules, Some(rule), &[201]).await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    assert!(log.says(&["protected branch", "/publish work"]), "{}", log.body);
    assert!(world.pulls().await.is_empty());
    let again = world.director().comment(issue, &format!("/publish work {cell}")).await;
    world.wait_for_reaction(issue, again, "+1").await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["protected branch"])).await;
    world.admin("DELETE", &format!("{rules}/lazarus%2F%2A%2A"), None, &[204]).await;
    let by_reader = world.reader().comment(issue, &format!("/publish work {cell}")).await;
    world.wait_for_reaction(issue, by_reader, "confused").await;
    assert!(world.pulls().await.is_empty());
    let output = world.cli(&["publish", &cell, "--json"]);
    assert!(output.status.success(), "{}", output.all());
    assert_eq!(output.json()["cell"]["branch"], json!(branch_of(issue, &cell)));
    assert_eq!(world.pulls().await.len(), 1);
    assert!(!world.cli(&["publish", &cell]).status.success(), "it is published already");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_the_forge_refuses_does_not_hold_the_others() {
    let script = format!(
        "{ONE_COMMIT}; for b in one two three; do git checkout -q -b try/$b main; echo $b > $b; git add $b; git commit -qm $b; done; \
         git checkout -q main"
    );
    let world = world_of("refused-one", &script, "").await;
    let rules = format!("/repos/{}/branch_protections", world.repository());
    let rule = json!({"rule_name": "lazarus/*-try-two", "branch_name": "lazarus/*-try-two", "enable_push": false});
    world.admin("POST", &rules, Some(rule), &[201]).await;
    let (issue, cell) = summoned(&world).await;
    let log = closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    let there = branches(&world).await;
    assert_eq!(there.len(), 4, "{there:?}\n{}", log.body);
    assert!(there.contains(&branch) && !there.iter().any(|name| name.ends_with("-try-two")), "{there:?}");
    assert!(log.says(&["try-two` is not published", "protected branch", "/publish work"]), "{}", log.body);
    assert_eq!(world.pulls().await.len(), 1);
    let id = percent_encoding::utf8_percent_encode("lazarus/*-try-two", percent_encoding::NON_ALPHANUMERIC);
    world.admin("DELETE", &format!("{rules}/{id}"), None, &[204]).await;
    let output = world.cli(&["publish", &cell, "--json"]);
    assert!(output.status.success(), "{}", output.all());
    assert_eq!(branches(&world).await.len(), 5);
    assert_eq!(world.pulls().await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resurrected_cell_goes_on_with_its_branch_and_its_pull_request() {
    let world = world_of("goes-on", "date +%s%N > now.txt; git add now.txt; git commit -qm Now", "").await;
    let (issue, cell) = summoned(&world).await;
    closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    let first = world.file_on(&branch, "now.txt").await;
    world.director().comment(issue, "/resurrect").await;
    world.wait_for_state(issue, &cell, &["idle"]).await;
    closed(&world, issue, &cell).await;
    assert_ne!(world.file_on(&branch, "now.txt").await, first);
    assert_eq!(branches(&world).await, [branch, "main".to_owned()]);
    assert_eq!(world.pulls().await.len(), 1);
    world.finish().await;
}

/// What the forge does to one call must not double what comes of it.
async fn one_of_each_despite(name: &str, fault: Value) {
    let world = world_of(name, ONE_COMMIT, "").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let (issue, cell) = summoned(&world).await;
    world.misbehave(json!({"api": [fault]})).await;
    let log = closed(&world, issue, &cell).await;
    world.behave().await;
    assert_eq!(branches(&world).await, [branch_of(issue, &cell), "main".to_owned()], "{}", log.body);
    assert_eq!(world.pulls().await.len(), 1, "{}", log.body);
    assert!(log.body.contains("Pull request: #"), "{}", log.body);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_pull_request_whose_answer_was_lost_is_there_once() {
    one_of_each_despite("pull-lost", json!({"method": "POST", "path": "/pulls$", "do": "drop_after", "times": 1}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_pull_request_that_fails_at_first_is_there_once() {
    one_of_each_despite(
        "pull-fails",
        json!({"method": "POST", "path": "/pulls$", "do": "refuse", "status": 503, "times": 2}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_a_push_that_the_forge_fails_at_first_is_tried_again() {
    one_of_each_despite("push-fails", json!({"path": "git-receive-pack", "do": "refuse", "status": 502, "times": 2}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_a_daemon_that_is_killed_while_it_publishes_makes_one_of_each() {
    let mut world = world_of("publish-killed", ONE_COMMIT, "").await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let (issue, cell) = summoned(&world).await;
    // The pull request is held back for long enough to die before it.
    world
        .misbehave(
            json!({"api": [{"method": "POST", "path": "/pulls$", "do": "refuse", "status": 503, "times": 1000}]}),
        )
        .await;
    world.director().comment(issue, "/close").await;
    let branch = branch_of(issue, &cell);
    world.wait_until("the branch", issue, async || branches(&world).await.contains(&branch).then_some(())).await;
    world.daemon().kill_9();
    world.behave().await;
    world.daemon().start().await;
    world.wait_for_comment(issue, Kind::CloseLog, |log| log.body.contains("Pull request: #")).await;
    assert_eq!(branches(&world).await, [branch, "main".to_owned()]);
    assert_eq!(world.pulls().await.len(), 1);
    assert_eq!(world.comments_of(issue, Kind::CloseLog).await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_finds_no_way_to_push() {
    let script = "git remote -v > remotes.txt; git config --list > config.txt; env > env.txt; \
                  git push -q origin HEAD:refs/heads/by-agent 2>&1 | cat > push.txt; \
                  if [ -d /run/lazarus/objects ]; then touch /run/lazarus/objects/x 2>/dev/null && exit 9; \
                  rm -r /run/lazarus/objects/pack 2>/dev/null && exit 9; fi; \
                  ( grep -rls token /run /etc /tmp /cell 2>/dev/null || true ) > found.txt; git add -A; git commit -qm Found";
    let world = world_of("no-push", script, "").await;
    let (issue, cell) = summoned(&world).await;
    closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    for file in ["remotes.txt", "config.txt", "env.txt", "push.txt"] {
        let text = world.file_on(&branch, file).await.unwrap_or_default();
        assert!(!text.contains(world.bot().token()), "{file}");
        assert!(!text.to_lowercase().contains("credential"), "{file}:\n{text}");
        assert!(!text.contains(&world.server().url()), "{file} names the forge:\n{text}");
    }
    assert_eq!(world.file_on(&branch, "remotes.txt").await.as_deref(), Some(""));
    assert_eq!(branches(&world).await, [branch, "main".to_owned()]);
    world.finish().await;
}

/// The files that hang on the bot's comments, with their texts.
async fn attached(world: &World, issue: i64) -> Vec<(String, String)> {
    let mut found = vec![];
    for comment in world.bot_comments(issue).await {
        let path = format!("/repos/{}/issues/comments/{}/assets", world.repository(), comment.id);
        for file in world.admin("GET", &path, None, &[200]).await.as_array().unwrap() {
            let address = file["browser_download_url"].as_str().unwrap();
            let text = world.client().get(address).send().await.unwrap().text().await.unwrap();
            found.push((file["name"].as_str().unwrap().to_owned(), text));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_optional_leaves_only_if_a_director_says_so_and_it_is_marked() {
    let script = "cd /cell/shared 2>/dev/null || cd ../shared; printf '# Draft\\n' > notes.md; \
                  printf 'token: ghp_0123456789abcdefghijklmnopqrstuvwxyz\\nall well\\n' > artifacts/report; \
                  ln -s /etc/passwd artifacts/link; printf '\\377\\376' > artifacts/binary.bin";
    let world = world_of("optional", script, "").await;
    let (issue, cell) = summoned(&world).await;
    let refused = async |command: &str, words: &str| {
        let known = world.comments_of(issue, Kind::Refusal).await.len();
        world.director().comment(issue, command).await;
        world
            .wait_until(&format!("a refusal of {command}"), issue, async || {
                let all = world.comments_of(issue, Kind::Refusal).await;
                (all.len() > known)
                    .then(|| assert!(all.last().unwrap().body.contains(words), "{}", all.last().unwrap().body))
            })
            .await;
    };
    let by_reader = world.reader().comment(issue, "/publish artifact report").await;
    world.wait_for_reaction(issue, by_reader, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["for directors"])).await;
    refused("/publish notes", "not marked").await;
    refused("/publish artifact link", "Nothing of").await;
    refused("/publish artifact ../notes.md", "without").await;
    refused("/publish artifact binary.bin", "pack it as").await;
    refused("/publish decisions", "nothing was decided").await;
    assert!(attached(&world, issue).await.is_empty());

    let home = world.data().join("cells").join(&cell);
    std::fs::write(home.join("shared/notes.md"), "PUBLISH\n# Done\n").unwrap();
    world.director().comment(issue, "/decide oil it every year").await;
    world
        .wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["recorded"]) || answer.says(&["decision"]))
        .await;
    for (command, name) in
        [("notes", "notes.md"), ("artifact report", "report.txt"), ("decisions", "decisions.jsonl.txt")]
    {
        world.director().comment(issue, &format!("/publish {command} {cell}")).await;
        world
            .wait_until(name, issue, async || {
                attached(&world, issue).await.iter().any(|(n, _)| n == name).then_some(())
            })
            .await;
    }
    let files = attached(&world, issue).await;
    let text = |name: &str| files.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(text("notes.md"), "# Done\n");
    assert!(text("report.txt").contains("all well") && !text("report.txt").contains("ghp_"), "{}", text("report.txt"));
    assert!(text("decisions.jsonl.txt").contains("oil it every year"));
    world.director().comment(issue, "/close").await;
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_with_work_trees_of_their_own_are_merged_where_they_fit() {
    let agent = |name: &str, script: &str| {
        format!("[agents.{name}]\ndescription = \"Works\"\nargv = [\"sh\", \"-ec\", {script:?}]\nprompt = \"stdin\"\n")
    };
    let config = [
        agent("ann", "echo ann > ann.txt; git add .; git commit -qm Ann; pwd > where.txt"),
        agent(
            "bob",
            "echo bob > bob.txt; git add .; git commit -qm Bob; echo bob > same.txt; git add .; git commit -qm Same",
        ),
        agent("cat", "echo cat > same.txt; git add .; git commit -qm Cat"),
    ]
    .concat();
    let policy = "worktrees = true\n".to_owned();
    let world = World::with("worktrees", WorldOptions { policy, config, ..WorldOptions::default() }).await;
    let issue = world.reader().open_issue("Together", "and apart").await;
    world.director().comment(issue, "/team ann+bob+cat").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    let log = closed(&world, issue, &cell).await;
    let branch = branch_of(issue, &cell);
    for (file, text) in [("ann.txt", "ann\n"), ("bob.txt", "bob\n"), ("same.txt", "bob\n")] {
        assert_eq!(world.file_on(&branch, file).await.as_deref(), Some(text), "{file}\n{}", log.body);
    }
    let place = world.file_on(&branch, "where.txt").await.expect("what was not committed");
    assert!(place.trim().ends_with("work/ann"), "{place}");
    assert!(log.says(&["agent/cat", "does not fit"]), "{}", log.body);
    let other = branches(&world).await.into_iter().find(|b| b.ends_with("agent-cat")).expect("a branch of its own");
    assert_eq!(world.file_on(&other, "same.txt").await.as_deref(), Some("cat\n"));
    assert_eq!(world.pulls().await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_of_a_project_does_not_come_into_a_cell_is_said_with_the_proposal() {
    let world = World::new("not-all").await;
    for (path, text) in [(".gitattributes", "*.bin filter=lfs diff=lfs"), (".gitmodules", "[submodule \"x\"]\n")] {
        let content = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let change = json!({"content": content, "message": "more"});
        world.admin("POST", &format!("/repos/{}/contents/{path}", world.repository()), Some(change), &[201]).await;
    }
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.wait_for_comment(issue, Kind::Warning, |w| w.says(&["LFS", "submodules"])).await;
    world.assert_no_cell(issue).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_holds_everything_and_where_policy_says_so_the_work_so_far_is_pushed() {
    let script = format!(
        "{ONE_COMMIT}; echo rest > rest.txt; echo note > ../shared/note.txt; \
         until [ -e ../shared/go ]; do sleep 0.05; done; echo two > two.txt; git add two.txt; git commit -qm Two"
    );
    let world = world_of("checkpoint", &script, "[harvest]\nat_checkpoint = true\n").await;
    let issue = world.reader().open_issue("Oil the hinge", "twice").await;
    world.director().comment(issue, "/summon worker").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    let note = || world.file_of_cell(&cell, "shared/note.txt").filter(|text| !text.is_empty());
    world.wait_until("the agent at work", issue, async || note()).await;
    let by_reader = world.reader().comment(issue, "/checkpoint").await;
    world.wait_for_reaction(issue, by_reader, "confused").await;
    world.director().comment(issue, "/checkpoint before lunch").await;
    let said = world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["Checkpoint of"])).await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["is on branch"])).await;
    world.wait_for_state(issue, &cell, &["active"]).await;
    let branch = branch_of(issue, &cell);
    assert_eq!(world.file_on(&branch, "oil.txt").await.as_deref(), Some("oil\n"));
    assert!(world.file_on(&branch, "rest.txt").await.is_none(), "nobody committed it");
    let hash = said.body.split('`').nth(3).unwrap().to_owned();
    assert!(world.ledger().contains(&hash) || world.cli(&["ledger", "show", "--json"]).all().contains(&hash));
    let work = world.data().join("work").join(format!("{cell}.git"));
    for (file, text) in [("project/oil.txt", "oil\n"), ("project/rest.txt", "rest\n"), ("shared/note.txt", "note\n")] {
        let shown =
            std::process::Command::new("git").arg("-C").arg(&work).args(["show", &format!("{hash}:{file}")]).output();
        assert_eq!(String::from_utf8_lossy(&shown.unwrap().stdout), text, "{file}");
    }
    world.director().comment(issue, "/publish checkpoint").await;
    let packed = format!("checkpoint-{}.tgz", &hash[..12]);
    world
        .wait_until(&packed, issue, async || {
            attached(&world, issue).await.iter().any(|(n, _)| *n == packed).then_some(())
        })
        .await;
    // It was frozen for the snapshot alone.
    std::fs::write(world.data().join("cells").join(&cell).join("shared/go"), "").unwrap();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    closed(&world, issue, &cell).await;
    assert_eq!(world.file_on(&branch, "two.txt").await.as_deref(), Some("two\n"));
    assert_eq!(world.file_on(&branch, "rest.txt").await.as_deref(), Some("rest\n"));
    assert_eq!(branches(&world).await, [branch, "main".to_owned()]);
    assert_eq!(world.pulls().await.len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_git_was_confined_that_read_the_work_is_in_the_log_and_on_record() {
    let world = world_of("confined", ONE_COMMIT, "").await;
    let (issue, cell) = summoned(&world).await;
    closed(&world, issue, &cell).await;
    let report = world.installation().command().arg("cell-probe").output().unwrap();
    let report: lazarus::sandbox::HostReport = serde_json::from_slice(&report.stdout).unwrap();
    let words = lazarus::sandbox::Confinement::of(&report).words();
    assert!(world.installation().log_tail().contains(words), "{words}: {}", world.installation().log_tail());
    assert!(world.ledger().contains(words), "{words}");
    world.finish().await;
}
