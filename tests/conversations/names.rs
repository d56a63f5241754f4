//! Names change hands (threats 35 and 37): what a name first meant is known by
//! its number, and nothing follows the name. And one name that is wrong is no
//! trouble of the others (found C3, H3).

use serde_json::json;

use crate::world::{Kind, Person, Proposal, World, WorldOptions};

const PERSON: &[&str] = &["write:issue", "write:repository", "read:user", "write:organization"];

/// A world whose daemon is not started yet, with these lines for its repository.
async fn with_lines(name: &str, lines: &str) -> World {
    World::with(
        name,
        WorldOptions { start: false, reconcile: "1s", repository: lines.to_owned(), ..WorldOptions::default() },
    )
    .await
}

async fn start(world: &mut World) {
    let init = world.init();
    assert!(init.status.success(), "`lazarus init` failed:\n{}", init.all());
    world.daemon().start().await;
}

/// Asserts that this person is no director here: a proposal cannot be approved
/// by them.
async fn assert_no_director(world: &World, person: &Person) {
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    let said = person.comment(issue, "/approve").await;
    world.wait_for_reaction(issue, said, "confused").await;
    world.assert_no_cell(issue).await;
}

/// Asserts that this person is one.
async fn assert_director(world: &World, person: &Person) {
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    person.comment(issue, "/approve").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    let closed = world.cli(&["close", &cell]);
    assert!(closed.status.success(), "{}", closed.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_whoever_makes_an_organisation_of_a_name_that_was_free_directs_nothing() {
    let mut world = with_lines("ghost-team", "administrators = false\ndirector_teams = [\"ghost-{org}/team\"]").await;
    start(&mut world).await;
    let ghost = format!("ghost-{}", world.owner());
    let cleo = world.make_person(&format!("cleo-{}", world.reader().login), PERSON).await;
    world.make_organisation(&ghost, &cleo.login).await;
    let team = world.make_team(&ghost, "team").await;
    for login in [&cleo.login, &world.bot().login] {
        world.add_team_member(team, login).await;
    }
    assert_no_director(&world, &cleo).await;
    world.daemon().restart().await;
    assert_no_director(&world, &cleo).await;
    let doctor = world.cli(&["doctor"]);
    assert!(
        !doctor.status.success() && doctor.all().contains(&format!("pins forget team {ghost}/team")),
        "{}",
        doctor.all()
    );

    // Where the operator says that it is right now, it is looked up anew.
    assert!(world.cli(&["pins", "forget", "team", &format!("{ghost}/team")]).status.success());
    world.daemon().restart().await;
    assert_director(&world, &cleo).await;
    assert!(world.ledger().contains("name_forgotten"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_a_team_is_known_by_its_number_and_its_organisations() {
    let mut world = with_lines("team", "administrators = false\ndirector_teams = [\"leads-{org}/leads\"]").await;
    let (owner, leads) =
        (world.make_person(&format!("own-{}", world.owner()), PERSON).await, format!("leads-{}", world.owner()));
    world.make_organisation(&leads, &owner.login).await;
    let team = world.make_team(&leads, "leads").await;
    let bea = world.make_person(&format!("bea-{}", world.owner()), PERSON).await;
    for login in [&bea.login, &world.bot().login] {
        world.add_team_member(team, login).await;
    }
    start(&mut world).await;
    assert_director(&world, &bea).await;
    assert_no_director(&world, &owner).await;
    // Under other names they are who they were.
    let renamed = format!("{leads}-2");
    world.rename_organisation(&leads, &renamed).await;
    world.rename_team(team, "heads").await;
    assert_director(&world, &bea).await;

    // Somebody makes an organisation and a team of the old names.
    let cleo = world.make_person(&format!("cleo-{}", world.owner()), PERSON).await;
    world.make_organisation(&leads, &cleo.login).await;
    let taken = world.make_team(&leads, "leads").await;
    for login in [&cleo.login, &world.bot().login] {
        world.add_team_member(taken, login).await;
    }
    world.daemon().restart().await;
    assert_no_director(&world, &cleo).await;
    assert_director(&world, &bea).await;

    // The true one is gone: then nobody is a director by it.
    world.delete_organisation(&renamed).await;
    assert_no_director(&world, &bea).await;
    assert_no_director(&world, &cleo).await;
    let doctor = world.cli(&["doctor"]);
    assert!(!doctor.status.success() && doctor.all().contains("its members are no directors"), "{}", doctor.all());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_a_renamed_director_at_the_first_start_is_named_and_the_others_are_served() {
    let mut world = with_lines("renamed-at-first", "directors = [\"ada-{org}\", \"gone-{org}\"]").await;
    let former = format!("ada-{}", world.owner());
    let ada = world.make_person(&former, PERSON).await;
    world.rename_account(&former, &format!("{former}-2")).await;
    start(&mut world).await;
    // Whoever administers the repository directs it all the same.
    let director = world.director().clone();
    assert_director(&world, &director).await;
    let told = world.installation().log_tail();
    assert!(told.contains(&format!("now named `{former}-2` (id {})", ada.id)), "{told}");
    let doctor = world.cli(&["doctor"]);
    assert!(!doctor.status.success(), "{}", doctor.all());
    for words in [format!("`{former}`"), format!("`{former}-2` (id {})", ada.id), format!("gone-{}", world.owner())] {
        assert!(doctor.all().replace("\n      ", " ").contains(&words), "{words} is not in\n{}", doctor.all());
    }
    // Who takes the names directs nothing, now or later.
    for login in [former, format!("gone-{}", world.owner())] {
        let taker = world.make_person(&login, PERSON).await;
        assert_no_director(&world, &taker).await;
        world.daemon().restart().await;
        assert_no_director(&world, &taker).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_repository_that_cannot_be_read_keeps_no_other_waiting() {
    let more = "[[repositories]]\nname = \"{org}/nothing\"\n[[repositories]]\nname = \"{org}/former\"";
    let mut world = with_lines("unreadable", more).await;
    let owner = world.owner();
    world.make_repository(&owner, "former").await;
    world.admin("PATCH", &format!("/repos/{owner}/former"), Some(json!({"name": "latter"})), &[200]).await;
    start(&mut world).await;
    let director = world.director().clone();
    assert_director(&world, &director).await;
    let ready = world.client().get(world.webhook_url().replace("/webhook", "/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let said = ready.text().await.unwrap();
    for name in ["nothing", "former"] {
        assert!(said.contains(&format!("{owner}/{name}")), "{said}");
    }
    assert!(!said.contains("widget"), "{said}");
    let doctor = world.cli(&["doctor"]);
    assert!(!doctor.status.success() && doctor.all().contains(&format!("{owner}/latter")), "{}", doctor.all());
    // What was not there is waited for, below the owner that has the name.
    world.make_repository(&owner, "nothing").await;
    world
        .wait_until("the repository that is there now to be served", 0, async || {
            let ready = world.client().get(world.webhook_url().replace("/webhook", "/readyz")).send().await.ok()?;
            (!ready.text().await.ok()?.contains("nothing")).then_some(())
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_who_takes_a_repositorys_name_gets_neither_rights_nor_words() {
    let world = World::with("repo-taken", WorldOptions { reconcile: "60s", ..WorldOptions::default() }).await;
    if world.skip_on_live() {
        return world.finish().await;
    }
    let issue = world.reader().open_issue("Ours", "and nobody else's").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.assert_settled(issue).await;
    // The daemon hears a command; before it asks what its author may do, another
    // repository stands at the old name, and the author administers that.
    let owner = world.owner();
    let reader = world.reader().clone();
    let bot = world.bot().login.clone();
    let busy = json!({"method": "GET", "path": "/issues/comments/[0-9]+$", "who": bot, "times": 6, "do": "refuse", "status": 503});
    world.misbehave(json!({"api": [busy]})).await;
    let said = reader.comment(issue, "/close").await;
    world.wait_for_reaction(issue, said, "eyes").await;
    world.rename_repository("gadget").await;
    world.make_repository(&owner, "widget").await;
    let theirs = format!("/repos/{owner}/widget");
    let admin = json!({"permission": "admin"});
    world.admin("PUT", &format!("{theirs}/collaborators/{}", reader.login), Some(admin), &[204]).await;
    let trap = world
        .admin("POST", &format!("{theirs}/issues"), Some(json!({"title": "Trap", "body": "for words"})), &[201])
        .await;
    assert_eq!(trap["number"].as_i64(), Some(issue));
    world.wait_for_reaction(issue, said, "confused").await;
    world.wait_for_comment(issue, Kind::Refusal, |refusal| refusal.says(&["director"])).await;
    assert_eq!(world.cell_state(&cell).as_deref(), Some("active"));
    // Nor does what the bot has to say stand there for others to read.
    assert!(world.cli(&["close", &cell]).status.success());
    world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    let there = world.admin("GET", &format!("{theirs}/issues/{issue}/comments"), None, &[200]).await;
    assert_eq!(there, json!([]), "the bot spoke in somebody else's repository");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_35_a_label_that_takes_the_approval_labels_name_approves_nothing() {
    let world = World::with("label-renamed", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    // A director once used a writer's label on a proposal.
    let triage = world.writer().create_label("triage").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.director().add_label_id(issue, triage).await;
    world.assert_settled(issue).await;
    let approved = world.writer().label_id("lazarus/approved").await;
    world.writer().delete_label(approved).await;
    world.writer().rename_label(triage, "lazarus/approved").await;
    // However often it is looked at.
    world.writer().comment(issue, "any news?").await;
    world.wait_for_comment(issue, Kind::Warning, |warning| warning.says(&["approves nothing", "lazarus init"])).await;
    world.assert_no_cell(issue).await;
    // Nor when a director uses it now: it is said once, and approval by label is off.
    world.director().remove_label(issue, "lazarus/approved").await;
    world.director().add_label_id(issue, triage).await;
    world.assert_no_cell(issue).await;
    let told = world.comments_of(issue, Kind::Warning).await;
    assert_eq!(
        told.iter().filter(|warning| warning.says(&["approves nothing"])).count(),
        1,
        "{}",
        world.evidence(issue).await
    );
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.all().contains("approval by label is off"), "{}", doctor.all());

    // The operator pins one, and from then on it counts when it is set.
    let init = world.init();
    assert!(init.status.success() && init.all().contains("lazarus/approved"), "{}", init.all());
    let again = world.init();
    assert!(again.all().contains("nothing to change"), "{}", again.all());
    world
        .wait_until("the daemon to know the label", issue, async || {
            let doctor = world.cli(&["doctor"]);
            (!doctor.all().contains("approval by label is off")).then_some(())
        })
        .await;
    let other = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    world.assert_settled(other).await;
    world
        .wait_until("an approval by the label that is pinned now", other, async || {
            world.director().add_label_id(other, triage).await;
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            let started = !world.comments_of(other, Kind::SpawnLog).await.is_empty();
            if !started && world.labels(other).await.contains(&"lazarus/approved".to_owned()) {
                world.director().remove_label(other, "lazarus/approved").await;
            }
            started.then_some(())
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_35_the_approval_label_under_another_name_approves_nothing() {
    let world = World::with("label-disguised", WorldOptions { reconcile: "1s", ..WorldOptions::default() }).await;
    let approved = world.writer().label_id("lazarus/approved").await;
    world.writer().rename_label(approved, "good first issue").await;
    let issue = world.reader().open_proposal(&Proposal::for_agents("scribe")).await;
    // The director means what the label says.
    world.director().add_label_id(issue, approved).await;
    world.assert_no_cell(issue).await;
    // And giving it its name back does not turn that into an approval.
    world.writer().rename_label(approved, "lazarus/approved").await;
    world.writer().comment(issue, "any news?").await;
    world.wait_for_comment(issue, Kind::Warning, |warning| warning.says(&["was renamed"])).await;
    world.assert_no_cell(issue).await;
    world.director().comment(issue, "/approve").await;
    world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    world.finish().await;
}
