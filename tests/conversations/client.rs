//! Our client speaks to this forge: every call that Lazarus makes, made once,
//! with the bot's account and its scopes. Recordings say what a server said
//! once; this asks the one that is there.

use futures::TryStreamExt as _;
use lazarus::gitea::{
    Access, Forge, ForgeError, ForgeOptions, HookContentType, IssueQuery, IssueState, NewHook, NewLabel, NewPull,
    event::RepoRef,
};

use crate::world::{World, WorldOptions};

fn bots_client(world: &World) -> Forge {
    let options = ForgeOptions::new(world.server().url(), world.bot().token().to_owned().into());
    Forge::new(options).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bots_account_can_do_all_that_lazarus_asks_of_the_forge() {
    let world = World::with("client", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let (forge, bot) = (bots_client(&world), world.bot());
    let (owner, name) = world.repository().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let version = forge.version().await.unwrap();
    eprintln!("{version:?}");
    let me = forge.current_user().await.unwrap();
    assert_eq!((me.id, me.login.as_str()), (bot.id, bot.login.as_str()));
    assert_eq!(forge.user(&world.reader().login).await.unwrap().unwrap().id, world.reader().id);
    assert_eq!(forge.user_by_id(world.reader().id).await.unwrap().unwrap().login, world.reader().login);
    assert!(forge.user_by_id(999_999_999).await.unwrap().is_none());
    assert!(forge.user("nobody-of-that-name").await.unwrap().is_none());
    assert!(forge.ui_settings().await.unwrap().allowed_reactions.iter().any(|r| r == "eyes"));
    forge.api_settings().await.unwrap();

    let repo = forge.repo(&owner, &name);
    let about = repo.get().await.unwrap().unwrap();
    assert_eq!(forge.repository_by_id(about.id).await.unwrap().unwrap().id, about.id);
    for (person, access) in [
        (world.director(), Access::Admin),
        (world.writer(), Access::Write),
        (world.reader(), Access::Read),
        (world.stranger(), Access::Read), // the repository is public
    ] {
        let permission = repo.permission(&person.login).await.unwrap().unwrap();
        assert_eq!((permission.access, permission.user.id), (access, person.id), "{}", person.login);
    }
    assert!(repo.permission("nobody-of-that-name").await.unwrap().is_none());
    repo.teams().await.unwrap();

    let label = NewLabel {
        name: "lazarus/approved".into(),
        color: "#0e8a16".into(),
        description: "A director approves".into(),
        exclusive: false,
    };
    let label = repo.create_label(label).await.unwrap();
    assert!(repo.labels().await.unwrap().iter().any(|l| l.id == label.id));

    let hook = NewHook {
        url: "http://127.0.0.1:1/webhook".into(),
        secret: "a secret".to_owned().into(),
        events: ["issues", "issue_label", "issue_comment"].map(str::to_owned).into(),
        content_type: HookContentType::Json,
    };
    let hook = repo.create_hook(hook).await.unwrap();
    assert!(repo.hooks().await.unwrap().iter().any(|h| h.id == hook.id && h.events.iter().any(|e| e == "issues")));
    repo.test_hook(hook.id).await.unwrap();
    assert!(repo.delete_hook(hook.id).await.unwrap());
    assert!(!repo.delete_hook(hook.id).await.unwrap(), "the second time it is not there");

    assert!(repo.file("notes/none.md").await.unwrap().is_none());
    let written = repo.put_file("notes/a b.md", b"one", "One", None, None).await.unwrap();
    assert_eq!(repo.file("notes/a b.md").await.unwrap().unwrap().content, b"one");
    repo.put_file("notes/a b.md", b"two", "Two", Some(&written.sha), Some("lazarus-test")).await.unwrap_err();
    repo.put_file("notes/a b.md", b"two", "Two", Some(&written.sha), None).await.unwrap();
    let main = repo.branch("main").await.unwrap().unwrap();
    assert!(repo.branch("no/such").await.unwrap().is_none());
    assert_eq!(repo.branch_head("main").await.unwrap(), Some(main.commit_id.clone()));
    for none in ["mai", "main2", "no/such"] {
        assert_eq!(repo.branch_head(none).await.unwrap(), None, "{none}");
    }
    assert_eq!(main.name, "main");
    repo.issue_templates().await.unwrap();

    let issue = repo.create_issue("By the bot", "a real event").await.unwrap();
    let number = issue.number;
    let api = repo.issue(number);
    assert_eq!(api.get().await.unwrap().unwrap().author.id, bot.id);
    assert!(repo.issue(999_999).get().await.unwrap().is_none());
    let comment = api.create_comment("One\r\ntwo \u{1f680}").await.unwrap();
    assert_eq!(api.comments().await.unwrap().len(), 1);
    let since = Some(comment.created_at);
    let seen: Vec<_> = repo.comments_since(since).try_collect().await.unwrap();
    assert!(seen.iter().any(|(on, c)| (*on, c.id) == (number, comment.id)), "{seen:?}");
    for n in 0..55 {
        world.reader().comment(number, &format!("comment {n}")).await;
    }
    let all: Vec<_> = repo.comments_since(None).try_collect().await.unwrap();
    assert_eq!(all.iter().filter(|(on, _)| *on == number).count(), 56, "over several pages");
    let issues: Vec<_> = repo.issues(IssueQuery { since: None, state: IssueState::All }).try_collect().await.unwrap();
    assert!(issues.iter().any(|i| i.number == number));

    assert_eq!(api.add_labels(&[label.id]).await.unwrap().len(), 1);
    let timeline: Vec<_> = api.timeline().try_collect().await.unwrap();
    let event = timeline.iter().find(|event| event.kind == "label").expect("a label event in the timeline");
    assert_eq!((event.actor.id, event.body.as_str()), (bot.id, "1"));
    assert_eq!(event.label.as_ref().unwrap().id, label.id);
    assert!(api.remove_label(label.id).await.unwrap());
    assert!(api.react("eyes").await.unwrap(), "new");
    assert!(!api.react("eyes").await.unwrap(), "there already");
    let comment_api = repo.comment(comment.id);
    assert!(comment_api.react("+1").await.unwrap());
    assert!(matches!(comment_api.react("white_check_mark").await, Err(ForgeError::Forbidden { .. })));
    assert_eq!(comment_api.reactions().await.unwrap().len(), 1);
    assert_eq!(comment_api.edit("changed").await.unwrap().body, "changed");
    comment_api.attach("notes.md", b"text".to_vec()).await.unwrap();
    assert_eq!(comment_api.get().await.unwrap().unwrap().body, "changed");
    assert!(comment_api.delete().await.unwrap());
    assert!(comment_api.get().await.unwrap().is_none());
    assert!(!api.set_state(false).await.unwrap().open);
    assert!(api.set_state(true).await.unwrap().open);
    assert_eq!(api.edit(Some("Another title"), None).await.unwrap().title, "Another title");

    let change = serde_json::json!({
        "content": "eA==", "message": "x", "new_branch": format!("lazarus/{number}-laz-abc"),
    });
    world.admin("POST", &format!("/repos/{owner}/{name}/contents/x.txt"), Some(change), &[201]).await;
    let head = format!("lazarus/{number}-laz-abc");
    let pull =
        NewPull { head: head.clone(), base: "main".into(), title: "Mission".into(), body: format!("From #{number}") };
    let made = repo.create_pull(pull.clone()).await.unwrap();
    assert!(matches!(repo.create_pull(pull).await, Err(ForgeError::Conflict { .. })));
    assert_eq!(repo.pull_by_branches("main", &head).await.unwrap().unwrap().number, made.number);
    assert!(repo.pull_by_branches("main", "no/such").await.unwrap().is_none());
    assert!(api.delete().await.unwrap());
    assert!(api.comments().await.is_err(), "a missing issue is an error, not an empty list");

    // Renamed: found again by its number, and a POST stays one.
    let repo_ref = RepoRef { id: about.id, owner: owner.clone(), name: name.clone() };
    world.rename_repository("gadget").await;
    let moved = forge.repo_ref(&repo_ref);
    let again = moved.create_issue("After the move", "still here").await.unwrap();
    assert!(moved.issue(again.number).get().await.unwrap().is_some());
    world.finish().await;
}
