//! The scenes. Words in braces are names that only this scene has.

use lazarus_standin::Flavour;
use serde_json::{Value, json};

use crate::twin::Twin;

const NONE: Value = Value::Null;

fn units() -> Value {
    json!({"repo.code": "write", "repo.issues": "write", "repo.pulls": "write"})
}

/// An organisation `acme` of `ada`, with a team `leads` in which `ben` is;
/// `cleo` has nothing to do with it.
async fn acme(twin: &mut Twin) -> i64 {
    twin.people(&["ada", "ben", "cleo"]).await;
    twin.set("forgeadmin", "POST", "/admin/users/{ada}/orgs", json!({"username": "{acme}"})).await;
    let team = json!({"name": "leads", "permission": "write", "units_map": units(), "includes_all_repositories": true});
    let team = twin.set("ada", "POST", "/orgs/{acme}/teams", team).await.id();
    twin.set("ada", "PUT", &format!("/teams/{team}/members/{{ben}}"), NONE).await;
    team
}

/// The same with a repository `widget`.
async fn widget(twin: &mut Twin) -> i64 {
    let team = acme(twin).await;
    let order = json!({"name": "widget", "auto_init": true, "default_branch": "main", "private": false});
    twin.set("ada", "POST", "/orgs/{acme}/repos", order).await;
    team
}

pub async fn organisations_and_teams_are_shown_to_insiders_and_hidden_from_outsiders(twin: &mut Twin) {
    let team = acme(twin).await;
    let empty = json!({"name": "Amateurs", "permission": "read", "units_map": {"repo.code": "read"}});
    twin.ask("ada", "POST", "/orgs/{acme}/teams", empty).await;
    for who in ["ada", "ben", "cleo", "forgeadmin", ""] {
        for path in [
            "/orgs/{acme}".to_owned(),
            "/orgs/{acme}/teams".to_owned(),
            "/orgs/{acme}/teams/search?q=lea".to_owned(),
            format!("/teams/{team}"),
            format!("/teams/{team}/members"),
            format!("/teams/{team}/members/{{ben}}"),
            format!("/teams/{team}/members/{{cleo}}"),
            format!("/teams/{team}/members/{{nobody}}"),
            "/orgs/{acme}/members".to_owned(),
            "/orgs/{acme}/members/{ben}".to_owned(),
            "/orgs/{acme}/members/{cleo}".to_owned(),
            "/orgs/{acme}/members/{nobody}".to_owned(),
            "/orgs/{acme}/public_members/{ben}".to_owned(),
            "/orgs/{nothing}".to_owned(),
            "/orgs/{ada}".to_owned(),
            "/orgs/{ada}/teams".to_owned(),
            "/users/{acme}".to_owned(),
            "/users/{ben}".to_owned(),
            "/users/{ben}/orgs".to_owned(),
            "/users/{ben}/orgs/{acme}/permissions".to_owned(),
            "/users/{nobody}".to_owned(),
            "/teams/1000000000".to_owned(),
        ] {
            twin.get(who, &path).await;
        }
    }
    twin.get("ben", "/user/orgs").await;
    twin.get("ben", "/user/teams").await;
    twin.ask("ben", "PATCH", &format!("/teams/{team}"), json!({"name": "mine"})).await;
    twin.ask("cleo", "PATCH", &format!("/teams/{team}"), json!({"name": "mine"})).await;
    twin.ask("ben", "PUT", &format!("/teams/{team}/members/{{cleo}}"), NONE).await;
    twin.ask("cleo", "PUT", &format!("/teams/{team}/members/{{cleo}}"), NONE).await;
    twin.ask("ada", "PUT", &format!("/teams/{team}/members/{{nobody}}"), NONE).await;
    twin.ask("cleo", "DELETE", "/orgs/{acme}", NONE).await;
    twin.ask("ben", "DELETE", "/orgs/{acme}", NONE).await;
    twin.ask("ada", "DELETE", &format!("/teams/{team}/members/{{ben}}"), NONE).await;
    twin.get("ben", &format!("/teams/{team}")).await;
    twin.get("ben", "/orgs/{acme}/teams").await;
}

pub async fn organisations_and_teams_are_renamed_deleted_and_their_names_taken_by_others(twin: &mut Twin) {
    let team = acme(twin).await;
    // Teams.
    twin.ask("ada", "PATCH", &format!("/teams/{team}"), json!({"name": "chiefs"})).await;
    twin.get("ben", &format!("/teams/{team}")).await;
    let order = json!({"name": "leads", "permission": "write", "units_map": units()});
    let other = twin.ask("cleo", "POST", "/orgs/{acme}/teams", order.clone()).await;
    assert_eq!(other.status, 403);
    let other = twin.ask("ada", "POST", "/orgs/{acme}/teams", order.clone()).await.id();
    twin.ask("ada", "POST", "/orgs/{acme}/teams", order).await;
    twin.get("ada", "/orgs/{acme}/teams").await;
    twin.get("ada", &format!("/teams/{other}/members/{{ben}}")).await;
    twin.ask("ada", "DELETE", &format!("/teams/{team}"), NONE).await;
    twin.get("ada", &format!("/teams/{team}")).await;
    twin.get("ada", &format!("/teams/{team}/members/{{ben}}")).await;
    let again = json!({"name": "chiefs", "permission": "write", "units_map": units()});
    twin.ask("ada", "POST", "/orgs/{acme}/teams", again).await;

    // The organisation is renamed; its name is taken by somebody else.
    twin.ask("cleo", "POST", "/orgs/{acme}/rename", json!({"new_name": "{stolen}"})).await;
    twin.ask("ada", "POST", "/orgs/{acme}/rename", json!({"new_name": "a b"})).await;
    twin.ask("ada", "POST", "/orgs/{acme}/rename", json!({"new_name": "{cleo}"})).await;
    twin.ask("ada", "POST", "/orgs/{acme}/rename", json!({"new_name": "{ajax}"})).await;
    for path in [
        "/orgs/{acme}",
        "/orgs/{acme}/teams?limit=5",
        "/orgs/{acme}/members/{ben}",
        "/orgs/{acme}/hooks",
        "/users/{acme}",
        "/orgs/{ajax}",
    ] {
        for who in ["ada", "cleo", ""] {
            twin.get(who, path).await;
        }
    }
    twin.ask("ada", "POST", "/orgs/{acme}/teams", json!({"name": "more"})).await;
    twin.get("ada", &format!("/teams/{other}")).await;
    twin.ask("cleo", "POST", "/orgs", json!({"username": "{acme}"})).await;
    twin.get("ada", "/orgs/{acme}").await;
    twin.get("ada", "/orgs/{acme}/teams").await;
    twin.ask("ada", "POST", "/orgs/{ajax}/rename", json!({"new_name": "{acme}"})).await;

    // Deleted, and made again by somebody else.
    let repository = json!({"name": "widget", "auto_init": true, "default_branch": "main"});
    twin.set("ada", "POST", "/orgs/{ajax}/repos", repository).await;
    twin.ask("ada", "DELETE", "/orgs/{ajax}", NONE).await;
    twin.ask("ada", "DELETE", "/repos/{ajax}/widget", NONE).await;
    twin.ask("ada", "DELETE", "/orgs/{ajax}", NONE).await;
    twin.get("ada", "/orgs/{ajax}").await;
    twin.get("ada", &format!("/teams/{other}")).await;
    twin.ask("cleo", "POST", "/orgs", json!({"username": "{ajax}"})).await;
    let mine = json!({"name": "leads", "permission": "write", "units_map": units()});
    let mine = twin.ask("cleo", "POST", "/orgs/{ajax}/teams", mine).await.id();
    twin.ask("cleo", "PUT", &format!("/teams/{mine}/members/{{cleo}}"), NONE).await;
    twin.get("cleo", &format!("/teams/{mine}/members/{{cleo}}")).await;
    twin.get("ada", &format!("/teams/{mine}/members/{{cleo}}")).await;
}

pub async fn people_are_renamed_and_their_names_taken_by_others(twin: &mut Twin) {
    let team = widget(twin).await;
    let issue = json!({"title": "mine", "body": "text"});
    twin.set("ben", "POST", "/repos/{acme}/widget/issues", issue).await;
    twin.set("ben", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "said"})).await;
    twin.set("ada", "PUT", "/repos/{acme}/widget/collaborators/{cleo}", json!({"permission": "write"})).await;
    let repository = json!({"name": "own", "auto_init": true, "default_branch": "main"});
    twin.set("cleo", "POST", "/user/repos", repository).await;
    for person in ["ben", "cleo"] {
        let to = json!({"new_username": format!("{{{person}-new}}")});
        twin.ask("forgeadmin", "POST", &format!("/admin/users/{{{person}}}/rename"), to).await;
    }
    let paths = [
        "/users/{ben}".to_owned(),
        "/users/{ben}/repos".to_owned(),
        "/users/{ben-new}".to_owned(),
        "/repos/{acme}/widget/collaborators/{cleo}".to_owned(),
        "/repos/{acme}/widget/collaborators/{cleo}/permission".to_owned(),
        "/repos/{acme}/widget/collaborators/{cleo-new}/permission".to_owned(),
        format!("/teams/{team}/members/{{ben}}"),
        format!("/teams/{team}/members/{{ben-new}}"),
        "/orgs/{acme}/members/{ben}".to_owned(),
        "/repos/{acme}/widget/issues?created_by={ben}".to_owned(),
        "/repos/{acme}/widget/issues?created_by={ben-new}".to_owned(),
        "/repos/{acme}/widget/issues/1/comments".to_owned(),
        "/repos/{cleo}/own".to_owned(),
        "/repos/{cleo}/own/issues?state=all".to_owned(),
        "/-/{cleo}/own.git/info/refs?service=git-upload-pack".to_owned(),
        "/users/search?q={ben}".to_owned(),
    ];
    for path in &paths {
        twin.get("ada", path).await;
    }
    twin.ask("ada", "PUT", "/repos/{acme}/widget/collaborators/{ben}", json!({"permission": "read"})).await;
    twin.ask("ada", "PUT", &format!("/teams/{team}/members/{{cleo}}"), NONE).await;
    twin.ask("forgeadmin", "PATCH", "/admin/users/{ben}", json!({"login_name": "x", "source_id": 0})).await;
    // Their names are taken.
    twin.people(&["ben"]).await;
    twin.ask("ada", "POST", "/orgs", json!({"username": "{cleo}"})).await;
    for path in &paths {
        twin.get("ada", path).await;
    }
    twin.get("ada", "/users/{cleo}").await;
    twin.ask("forgeadmin", "POST", "/admin/users/{ben-new}/rename", json!({"new_username": "{ben}"})).await;
    twin.ask("forgeadmin", "POST", "/admin/users/{ben-new}/rename", json!({"new_username": "{ben-new}"})).await;
    twin.ask("forgeadmin", "POST", "/admin/users/{ben-new}/rename", json!({"new_username": "a b"})).await;
    twin.ask("forgeadmin", "POST", "/admin/users/{cleo}/rename", json!({"new_username": "{x}"})).await;
    twin.ask("forgeadmin", "POST", "/admin/users/{nobody}/rename", json!({"new_username": "{x}"})).await;
    twin.ask("ada", "POST", "/admin/users/{ben}/rename", json!({"new_username": "{x}"})).await;
    // Gone for good.
    twin.ask("forgeadmin", "DELETE", "/admin/users/{ben-new}", NONE).await;
    twin.ask("ada", "DELETE", &format!("/teams/{team}/members/{{ben-new}}"), NONE).await;
    twin.ask("forgeadmin", "DELETE", "/admin/users/{ben-new}", NONE).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1").await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/comments").await;
    twin.get("ada", "/users/{ben-new}").await;
}

pub async fn repositories_are_renamed_and_transferred_and_their_names_taken_by_others(twin: &mut Twin) {
    let _ = widget(twin).await;
    let id = twin.get("ada", "/repos/{acme}/widget").await.id();
    twin.set("ben", "POST", "/repos/{acme}/widget/issues", json!({"title": "one", "body": "text"})).await;
    twin.set("ada", "POST", "/orgs", json!({"username": "{ajax}"})).await;
    let hook = json!({
        "type": "gitea", "active": true, "events": ["issue_comment"],
        "config": {"url": "{hear}/hook", "content_type": "json", "secret": "hers"},
    });
    twin.set("ada", "POST", "/repos/{acme}/widget/hooks", hook).await;
    twin.ask("ada", "PATCH", "/repos/{acme}/widget", json!({"name": "gadget"})).await;
    let old = [
        "/repos/{acme}/widget",
        "/repos/{acme}/widget/issues/1",
        "/repos/{acme}/widget/issues/1/comments?since=2020-01-01T00:00:00Z&page=2",
        "/repos/{acme}/Widget/labels",
        "/-/{acme}/widget.git/info/refs?service=git-upload-pack",
        "/-/{acme}/widget/issues/1",
    ];
    for path in old {
        for who in ["ada", "cleo", ""] {
            twin.get(who, path).await;
        }
    }
    twin.ask("ada", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "lost"})).await;
    twin.ask("ada", "PATCH", "/repos/{acme}/widget/issues/1", json!({"state": "closed"})).await;
    twin.ask("ada", "DELETE", "/repos/{acme}/widget", NONE).await;
    for who in ["ada", "cleo", ""] {
        twin.get(who, &format!("/repositories/{id}")).await;
    }
    twin.ask("ada", "POST", "/repos/{acme}/gadget/issues/1/comments", json!({"body": "here"})).await;
    let fields =
        ["action", "repository.id", "repository.full_name", "repository.owner.login", "comment.body", "sender.login"];
    twin.hear("a comment under the new name", 1, &["hers"], &fields).await;

    // Transferred to another organisation.
    twin.ask("cleo", "POST", "/repos/{acme}/gadget/transfer", json!({"new_owner": "{cleo}"})).await;
    twin.ask("ada", "POST", "/repos/{acme}/gadget/transfer", json!({"new_owner": "{nobody}"})).await;
    twin.ask("ada", "POST", "/repos/{acme}/gadget/transfer", json!({"new_owner": "{ajax}"})).await;
    for path in ["/repos/{acme}/gadget", "/repos/{acme}/widget", "/repos/{ajax}/gadget"] {
        twin.get("ada", path).await;
    }
    twin.ask("ada", "POST", "/repos/{ajax}/gadget/issues/1/comments", json!({"body": "there"})).await;
    twin.hear("a comment under the new owner", 1, &["hers"], &fields).await;
    twin.get("ada", &format!("/repositories/{id}")).await;

    // The old names are taken.
    for name in ["widget", "gadget"] {
        let order = json!({"name": name, "auto_init": true, "default_branch": "main"});
        twin.ask("ada", "POST", "/orgs/{acme}/repos", order).await;
        twin.get("ada", &format!("/repos/{{acme}}/{name}")).await;
    }
    twin.ask("ada", "PATCH", "/repos/{acme}/widget", json!({"name": "gadget"})).await;
    twin.ask("ada", "PATCH", "/repos/{acme}/widget", json!({"name": "a b"})).await;
    twin.ask("ben", "PATCH", "/repos/{acme}/widget", json!({"name": "mine"})).await;
    // Offered to a person, who accepts.
    twin.ask("ada", "POST", "/repos/{acme}/widget/transfer", json!({"new_owner": "{cleo}"})).await;
    twin.get("ada", "/repos/{acme}/widget").await;
    twin.ask("cleo", "POST", "/repos/{acme}/widget/transfer/accept", NONE).await;
    twin.get("ada", "/repos/{acme}/widget").await;
    twin.get("cleo", "/repos/{cleo}/widget").await;
    // Gone for good.
    twin.ask("cleo", "DELETE", "/repos/{cleo}/widget", NONE).await;
    twin.get("ada", "/repos/{acme}/widget").await;
    twin.get("cleo", "/repos/{cleo}/widget").await;
    twin.ask("ada", "DELETE", "/repos/{ajax}/gadget", NONE).await;
    twin.get("ada", &format!("/repositories/{id}")).await;
}

pub async fn hooks_have_their_own_secrets_and_never_show_them(twin: &mut Twin) {
    let _ = widget(twin).await;
    twin.set("cleo", "POST", "/repos/{acme}/widget/issues", json!({"title": "one", "body": "text"})).await;
    let hook = |secret: &str, events: Value| {
        json!({
            "type": "gitea", "active": true, "events": events, "branch_filter": "*",
            "config": {"url": "{hear}/hook", "content_type": "json", "secret": secret},
        })
    };
    let at = "/repos/{acme}/widget/hooks";
    let first = twin.ask("ada", "POST", at, hook("first", json!(["issue_comment"]))).await.id();
    let second = twin.ask("ada", "POST", at, hook("second", json!(["issues", "issue_comment"]))).await.id();
    let of_org =
        twin.ask("ada", "POST", "/orgs/{acme}/hooks", hook("organisation", json!(["issue_comment"]))).await.id();
    for who in ["ada", "ben", "cleo", ""] {
        twin.get(who, at).await;
        twin.get(who, &format!("{at}/{first}")).await;
        twin.get(who, "/orgs/{acme}/hooks").await;
        twin.get(who, &format!("/orgs/{{acme}}/hooks/{of_org}")).await;
    }
    twin.get("ada", &format!("{at}/{of_org}")).await;
    twin.get("ada", &format!("/orgs/{{acme}}/hooks/{first}")).await;
    let secrets = ["first", "second", "organisation", "third", "changed"];
    let fields = ["action", "comment.body", "repository.full_name", "issue.number", "sender.login"];
    twin.ask("cleo", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "one"})).await;
    twin.hear("each hook signs with its own secret", 3, &secrets, &fields).await;

    // A secret cannot be changed, and a change forgets the events.
    let change =
        json!({"config": {"url": "{hear}/changed", "content_type": "json", "secret": "changed"}, "active": true});
    twin.ask("ada", "PATCH", &format!("{at}/{first}"), change).await;
    let change = json!({"events": ["issue_comment"], "config": {"secret": "changed"}});
    twin.ask("ada", "PATCH", &format!("{at}/{first}"), change).await;
    twin.ask("cleo", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "two"})).await;
    twin.hear("the secret of the changed hook", 3, &secrets, &fields).await;
    twin.ask("ada", "PATCH", &format!("{at}/{second}"), json!({"events": ["issue_comment"], "active": false})).await;
    twin.ask("ada", "DELETE", &format!("{at}/{first}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{at}/{first}"), NONE).await;
    twin.ask("ben", "DELETE", &format!("{at}/{second}"), NONE).await;
    twin.ask("ada", "POST", at, hook("third", json!(["issue_comment"]))).await;
    twin.ask("cleo", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "three"})).await;
    twin.hear("one that is off, one deleted, one made again", 2, &secrets, &fields).await;
    twin.get("ada", at).await;

    // Mistakes.
    for order in [
        json!({"type": "gitea", "config": {"url": "{hear}/x"}}),
        json!({"type": "gitea", "config": {"content_type": "json"}}),
        json!({"type": "other", "config": {"url": "{hear}/x", "content_type": "json"}}),
        json!({"config": {"url": "{hear}/x", "content_type": "json"}}),
        json!({"type": "gitea", "config": {"url": "{hear}/x", "content_type": "xml"}}),
        json!({"type": "gitea", "config": {"url": "nonsense", "content_type": "json"}}),
        json!({"type": "gitea", "config": {"url": "{hear}/x", "content_type": "json"}, "events": ["nothing"]}),
    ] {
        twin.ask("ada", "POST", at, order).await;
    }
    twin.ask("ben", "POST", at, hook("x", json!(["issues"]))).await;
    twin.ask("cleo", "POST", "/orgs/{acme}/hooks", hook("x", json!(["issues"]))).await;
    twin.ask("ben", "POST", "/orgs/{acme}/hooks", hook("x", json!(["issues"]))).await;
    twin.get("ada", "/admin/hooks").await;
}

pub async fn labels_are_renamed_deleted_and_made_again(twin: &mut Twin) {
    let _ = widget(twin).await;
    twin.set("cleo", "POST", "/repos/{acme}/widget/issues", json!({"title": "one", "body": "text"})).await;
    let hook = json!({
        "type": "gitea", "active": true, "events": ["issues", "issue_label"],
        "config": {"url": "{hear}/hook", "content_type": "json", "secret": "hers"},
    });
    twin.set("ada", "POST", "/repos/{acme}/widget/hooks", hook).await;
    let labels = "/repos/{acme}/widget/labels";
    let on_issue = "/repos/{acme}/widget/issues/1/labels";
    let label = |name: &str| json!({"name": name, "color": "#00aabb", "description": "a label"});
    let approved = twin.ask("ada", "POST", labels, label("lazarus/approved")).await.id();
    let triage = twin.ask("ada", "POST", labels, label("triage")).await.id();
    for path in ["/timeline", "/comments", "/labels", "/reactions", "/assets"] {
        twin.get("ada", &format!("/repos/{{acme}}/widget/issues/1{path}")).await;
    }
    twin.ask("ada", "POST", on_issue, json!({"labels": [approved, triage]})).await;
    let fields = ["action", "issue.labels", "sender.login"];
    twin.hear("two labels at once", 1, &["hers"], &fields).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;

    // A rename shows in the past; a deletion takes the past away.
    twin.ask("ada", "PATCH", &format!("{labels}/{triage}"), json!({"name": "lazarus/approved"})).await;
    twin.get("ada", labels).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1").await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    twin.get("ada", "/repos/{acme}/widget/issues?labels=lazarus/approved").await;
    twin.ask("ada", "DELETE", &format!("{labels}/{approved}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{labels}/{approved}"), NONE).await;
    twin.get("ada", &format!("{labels}/{approved}")).await;
    twin.get("ada", labels).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1").await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    let again = twin.ask("ada", "POST", labels, label("lazarus/approved")).await.id();
    twin.get("ada", labels).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": ["lazarus/approved"]})).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": [again]})).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": [approved]})).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": ["nothing"]})).await;
    twin.hear("labels by name and number", 4, &["hers"], &fields).await;
    twin.ask("ada", "DELETE", &format!("{on_issue}/{approved}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{on_issue}/{again}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{on_issue}/{again}"), NONE).await;
    twin.hear("labels taken off", 2, &["hers"], &fields).await;
    twin.set("cleo", "POST", "/repos/{acme}/widget/issues", json!({"title": "two", "body": "text"})).await;
    twin.ask("ada", "POST", "/repos/{acme}/widget/issues/2/labels", json!({"labels": [triage]})).await;
    twin.get("ada", "/repos/{acme}/widget/issues?labels=lazarus/approved").await;
    twin.hear("another issue with one of two labels of one name", 2, &["hers"], &fields).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": [1_000_000_000, "triage"]})).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": [true]})).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    for (who, order) in [
        ("cleo", label("x")),
        ("ada", json!({"name": "", "color": "#00aabb"})),
        ("ada", json!({"name": "x", "color": "blue"})),
    ] {
        twin.ask(who, "POST", labels, order).await;
    }
    twin.ask("cleo", "PATCH", &format!("{labels}/{triage}"), json!({"name": "mine"})).await;
    twin.ask("cleo", "DELETE", &format!("{labels}/{triage}"), NONE).await;
    twin.ask("ada", "PATCH", &format!("{labels}/{approved}"), json!({"name": "gone"})).await;
    twin.ask("ada", "PATCH", &format!("{labels}/{triage}"), json!({"name": ""})).await;

    // Labels of the organisation.
    let of_org = twin.ask("ada", "POST", "/orgs/{acme}/labels", label("lazarus/approved")).await.id();
    for who in ["ben", "cleo", ""] {
        twin.get(who, "/orgs/{acme}/labels").await;
    }
    twin.get("ada", labels).await;
    twin.get("ada", &format!("{labels}/{of_org}")).await;
    twin.ask("ada", "POST", on_issue, json!({"labels": [of_org]})).await;
    twin.ask("ada", "PUT", on_issue, json!({"labels": [of_org, again]})).await;
    twin.get("ada", on_issue).await;
    twin.get("ada", "/repos/{acme}/widget/issues?labels=lazarus/approved").await;
    twin.ask("ada", "PATCH", &format!("/orgs/{{acme}}/labels/{of_org}"), json!({"name": "of the organisation"})).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    twin.ask("ada", "PATCH", &format!("{labels}/{of_org}"), json!({"name": "by the repository"})).await;
    twin.ask("ada", "DELETE", &format!("{labels}/{of_org}"), NONE).await;
    twin.get("ada", on_issue).await;
    twin.ask("cleo", "DELETE", &format!("/orgs/{{acme}}/labels/{of_org}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("/orgs/{{acme}}/labels/{of_org}"), NONE).await;
    twin.get("ada", on_issue).await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    twin.get("ada", "/orgs/{acme}/labels").await;
    twin.ask("ada", "DELETE", on_issue, NONE).await;
}

pub async fn texts_are_edited_restored_and_deleted(twin: &mut Twin) {
    let _ = widget(twin).await;
    let hook = json!({
        "type": "gitea", "active": true, "events": ["issues", "issue_comment"],
        "config": {"url": "{hear}/hook", "content_type": "json", "secret": "hers"},
    });
    twin.set("ada", "POST", "/repos/{acme}/widget/hooks", hook).await;
    let issues = "/repos/{acme}/widget/issues";
    twin.ask("cleo", "POST", issues, json!({"title": "one", "body": "first"})).await;
    let comment = twin.ask("cleo", "POST", &format!("{issues}/1/comments"), json!({"body": "said"})).await.id();
    let at = format!("{issues}/comments/{comment}");
    let fields = [
        "action",
        "comment.body",
        "changes",
        "sender.login",
        "comment.user.login",
        "issue.body",
        "repository.permissions",
    ];
    twin.hear("opened and said", 2, &["hers"], &fields).await;
    twin.ask("ben", "PATCH", &at, json!({"body": "put into her mouth"})).await;
    twin.ask("ben", "PATCH", &at, json!({"body": "said"})).await;
    twin.ask("ben", "PATCH", &at, json!({"body": "said"})).await;
    // Where a comment's text is the same again, only Forgejo says that it was
    // edited.
    let again = usize::from(twin.flavour == Flavour::Forgejo);
    twin.hear("edited and restored", 2 + again, &["hers"], &fields).await;
    twin.get("ada", &at).await;
    twin.get("ada", &format!("{issues}/1/comments")).await;
    twin.get("ada", &format!("{issues}/1/timeline")).await;
    for body in [json!({"body": "second"}), json!({"body": "first"}), json!({"body": "first"}), json!({"title": "two"})]
    {
        twin.ask("ben", "PATCH", &format!("{issues}/1"), body).await;
    }
    twin.hear("the issue's text and title; the same again is an edit here", 4, &["hers"], &fields).await;
    twin.get("ada", &format!("{issues}/1/timeline")).await;
    twin.ask("cleo", "PATCH", &format!("{issues}/1"), json!({"title": ""})).await;
    twin.ask("cleo", "PATCH", &format!("{issues}/1"), json!({"body": ""})).await;
    twin.hear("an empty text", 1, &["hers"], &fields).await;
    twin.ask("cleo", "PATCH", &at, json!({"body": ""})).await;
    twin.ask("cleo", "DELETE", &at, NONE).await;
    twin.hear("a deleted comment", 1, &["hers"], &fields).await;
    twin.get("ada", &at).await;
    twin.ask("cleo", "PATCH", &at, json!({"body": "again"})).await;
    twin.ask("cleo", "DELETE", &at, NONE).await;
    twin.get("ada", &format!("{at}/reactions")).await;
    twin.ask("ada", "POST", &format!("{at}/reactions"), json!({"content": "+1"})).await;
    let other = twin.ask("ada", "POST", &format!("{issues}/1/comments"), json!({"body": "hers"})).await.id();
    twin.ask("cleo", "PATCH", &format!("{issues}/comments/{other}"), json!({"body": "not mine"})).await;
    twin.ask("cleo", "DELETE", &format!("{issues}/comments/{other}"), NONE).await;
    twin.ask("", "PATCH", &format!("{issues}/comments/{other}"), json!({"body": "nobody's"})).await;
    // A deleted issue.
    twin.ask("cleo", "DELETE", &format!("{issues}/1"), NONE).await;
    twin.ask("ben", "DELETE", &format!("{issues}/1"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{issues}/1"), NONE).await;
    for path in ["/1", "/1/comments", "/1/timeline", "/1/labels", "/1/reactions"] {
        twin.get("ada", &format!("{issues}{path}")).await;
    }
    twin.get("ada", &format!("{issues}/comments/{other}")).await;
    twin.ask("ada", "POST", &format!("{issues}/1/comments"), json!({"body": "late"})).await;
    twin.ask("ada", "PATCH", &format!("{issues}/1"), json!({"state": "closed"})).await;
    twin.ask("ada", "POST", &format!("{issues}/1/labels"), json!({"labels": []})).await;
    twin.ask("cleo", "POST", issues, json!({"title": "two", "body": "its number is new"})).await;
}

/// What a migration brings, from another server that is a stand-in of ours.
pub async fn a_migration_brings_words_that_nobody_here_wrote(twin: &mut Twin) {
    let _ = acme(twin).await;
    let mut there = Twin::stand_in(Flavour::Gitea).await;
    let source = there.base();
    let account =
        |login: &str| json!({"username": login, "email": format!("{login}@elsewhere.test"), "password": "of no use"});
    there.set("forgeadmin", "POST", "/admin/users", account("writer")).await;
    there.set("forgeadmin", "POST", "/orgs", json!({"username": "other"})).await;
    let order = json!({"name": "widget", "auto_init": true, "default_branch": "main"});
    there.set("forgeadmin", "POST", "/orgs/other/repos", order).await;
    let label = json!({"name": "lazarus/approved", "color": "#00aabb"});
    let label = there.set("forgeadmin", "POST", "/repos/other/widget/labels", label).await.id();
    let (past, future) = ("2020-02-02T02:02:02Z", "2060-02-02T02:02:02Z");
    let comments = json!([
        {"body": "/summon of the past", "author": "writer", "created_at": past},
        {"body": "/summon of the future", "author": "writer", "created_at": future},
        {"body": "/summon that was edited", "author": "writer", "created_at": past, "updated_at": future},
    ]);
    let issue = json!({"title": "old", "body": "words", "author": "writer", "created_at": past, "comments": comments});
    let order =
        json!({"repository": "other/widget", "issues": [issue, {"title": "two", "closed": true, "author": "writer"}]});
    let made = there.set("forgeadmin", "POST", "/-/_standin/history", order).await;
    let first = made.json["issues"][0]["number"].as_i64().unwrap();
    let path = format!("/repos/other/widget/issues/{first}/labels");
    there.set("forgeadmin", "POST", &path, json!({"labels": [label]})).await;
    let comment = made.json["issues"][0]["comments"][0].as_i64().unwrap();
    let path = format!("/repos/other/widget/issues/comments/{comment}/reactions");
    there.set("forgeadmin", "POST", &path, json!({"content": "+1"})).await;

    let hook = json!({
        "type": "gitea", "active": true, "events": ["issues", "issue_comment", "issue_label"],
        "config": {"url": "{hear}/hook", "content_type": "json", "secret": "organisation"},
    });
    twin.set("ada", "POST", "/orgs/{acme}/hooks", hook).await;
    twin.call_it(&source, "SOURCE");
    let migration = |owner: &str, name: &str| {
        json!({
            "clone_addr": format!("{source}/other/widget"), "service": "gitea", "repo_owner": owner,
            "repo_name": name, "issues": true, "labels": true,
        })
    };
    twin.ask("cleo", "POST", "/repos/migrate", migration("{acme}", "widget")).await;
    twin.ask("cleo", "POST", "/repos/migrate", migration("{ada}", "widget")).await;
    twin.ask("", "POST", "/repos/migrate", migration("{acme}", "widget")).await;
    twin.ask("ada", "POST", "/repos/migrate", migration("{acme}", "widget")).await;
    twin.ask("ada", "POST", "/repos/migrate", migration("{acme}", "widget")).await;
    twin.get("ada", "/repos/{acme}/widget").await;
    twin.get("ada", "/repos/{acme}/widget/labels").await;
    twin.get("ada", "/repos/{acme}/widget/issues?state=all").await;
    // Times are compared here, not only that they are there.
    twin.times_matter(true);
    twin.get("ada", "/repos/{acme}/widget/issues/1").await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/comments").await;
    twin.get("ada", "/repos/{acme}/widget/issues/1/timeline").await;
    twin.get("ada", "/repos/{acme}/widget/issues/comments").await;
    twin.times_matter(false);
    let comments = twin.set("ada", "GET", "/repos/{acme}/widget/issues/1/comments", NONE).await;
    let first = comments.json[0]["id"].as_i64().unwrap();
    twin.get("ada", &format!("/repos/{{acme}}/widget/issues/comments/{first}")).await;
    twin.get("ada", &format!("/repos/{{acme}}/widget/issues/comments/{first}/reactions")).await;

    // Nothing of it was delivered: the first that is heard of is what is said
    // here.
    twin.ask("ada", "POST", "/repos/{acme}/widget/issues/1/comments", json!({"body": "said here"})).await;
    twin.ask("ada", "POST", "/repos/{acme}/widget/issues", json!({"title": "new", "body": "its number goes on"})).await;
    let fields = ["action", "comment.body", "issue.number", "repository.original_url", "sender.login"];
    twin.hear("only what was said after the migration", 2, &["organisation"], &fields).await;

    // A server that says it is this one is believed: its writer has the number
    // and the name of somebody here.
    let ben = twin.set("ben", "GET", "/user", NONE).await.id();
    let here = twin.base();
    let name = twin.name("ben");
    there.set("forgeadmin", "POST", "/-/_standin/settings", json!({"claimed_url": here, "next_account": ben})).await;
    there.set("forgeadmin", "POST", "/admin/users", account(&name)).await;
    let comments = json!([
        {"body": "/summon in the name of ben", "author": name, "created_at": future},
        {"body": "/summon of nobody here", "author": "writer", "created_at": past},
    ]);
    let issue = json!({"title": "forged", "body": "words", "author": name, "comments": comments});
    let order = json!({"repository": "other/widget", "issues": [issue]});
    there.set("forgeadmin", "POST", "/-/_standin/history", order).await;
    twin.ask("cleo", "POST", "/repos/migrate", migration("{cleo}", "forged")).await;
    twin.get("cleo", "/repos/{cleo}/forged").await;
    twin.get("cleo", "/repos/{cleo}/forged/issues/3").await;
    twin.get("cleo", "/repos/{cleo}/forged/issues/3/comments").await;
    there.end().await;

    // What cannot be had leaves nothing.
    let mut order = migration("{acme}", "nothing");
    order["clone_addr"] = json!("http://127.0.0.1:1/other/widget");
    twin.ask("ada", "POST", "/repos/migrate", order.clone()).await;
    twin.get("ada", "/repos/{acme}/nothing").await;
    order["clone_addr"] = json!("ftp://127.0.0.1/other/widget");
    twin.ask("ada", "POST", "/repos/migrate", order.clone()).await;
    order["clone_addr"] = json!("http://127.0.0.1:1/other/widget");
    order["repo_owner"] = json!("{nobody}");
    twin.ask("ada", "POST", "/repos/migrate", order).await;
}

/// A forge that gives at most 20 things on a page (`[api] MAX_RESPONSE_ITEMS`).
/// A real one has to be started so.
pub async fn small_pages_hold_what_the_forge_wants_whatever_is_asked_for(twin: &mut Twin) {
    twin.limit_pages(20).await;
    twin.get("", "/settings/api").await;
    twin.people(&["ada"]).await;
    twin.set("forgeadmin", "POST", "/admin/users/{ada}/orgs", json!({"username": "{acme}"})).await;
    let order = json!({"name": "widget", "auto_init": true, "default_branch": "main", "private": false});
    twin.set("ada", "POST", "/orgs/{acme}/repos", order).await;
    for n in 10..45 {
        let label = json!({"name": format!("label {n}"), "color": "#00aabb"});
        twin.set("ada", "POST", "/repos/{acme}/widget/labels", label).await;
        let issue = json!({"title": format!("issue {n}"), "body": ""});
        twin.set("ada", "POST", "/repos/{acme}/widget/issues", issue).await;
        let comment = json!({"body": format!("comment {n}")});
        twin.set("ada", "POST", "/repos/{acme}/widget/issues/1/comments", comment).await;
        let hook = json!({"type": "gitea", "config": {"url": format!("{{hear}}/{n}"), "content_type": "json"}});
        twin.set("ada", "POST", "/repos/{acme}/widget/hooks", hook).await;
    }
    let team = json!({"name": "crowd", "permission": "read", "units_map": {"repo.code": "read"}});
    let team = twin.set("ada", "POST", "/orgs/{acme}/teams", team).await.id();
    let crowd: Vec<String> =
        (0..33).map(|n| format!("p{}{}", (b'a' + n / 26) as char, (b'a' + n % 26) as char)).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    twin.people(&crowd).await;
    for (n, person) in crowd.iter().enumerate() {
        twin.set("ada", "PUT", &format!("/teams/{team}/members/{{{person}}}"), NONE).await;
        let path = format!("/repos/{{acme}}/widget/collaborators/{{{person}}}");
        twin.set("ada", "PUT", &path, json!({"permission": "read"})).await;
        let team =
            json!({"name": format!("team-{}", n + 10), "permission": "read", "units_map": {"repo.code": "read"}});
        twin.set("ada", "POST", "/orgs/{acme}/teams", team).await;
        let milestone = json!({"title": format!("milestone {n}")});
        twin.set("ada", "POST", "/repos/{acme}/widget/milestones", milestone).await;
        let branch = json!({"new_branch_name": format!("branch-{}", n + 10)});
        twin.set("ada", "POST", "/repos/{acme}/widget/branches", branch).await;
    }
    let words = json!({"body": "the end"});
    twin.set("ada", "POST", "/repos/{acme}/widget/issues/1/comments", words).await;
    for list in [
        "/repos/{acme}/widget/labels",
        "/repos/{acme}/widget/issues",
        "/repos/{acme}/widget/issues/1/comments",
        "/repos/{acme}/widget/issues/1/timeline",
        "/repos/{acme}/widget/issues/comments",
        "/repos/{acme}/widget/hooks",
        "/orgs/{acme}/teams",
        "/orgs/{acme}/members",
        &format!("/teams/{team}/members"),
        "/repos/{acme}/widget/collaborators",
        "/repos/{acme}/widget/milestones",
        "/repos/{acme}/widget/branches",
        "/repos/{acme}/widget/pulls",
    ] {
        for asked in [
            "",
            "?page=1",
            "?page=2",
            "?limit=50",
            "?page=1&limit=50",
            "?page=2&limit=50",
            "?page=3&limit=15",
            "?limit=7",
            "?limit=0",
            "?limit=-3",
            "?page=0&limit=5",
            "?page=9&limit=50",
        ] {
            twin.only_names(&format!("{list}{asked}")).await;
        }
    }
}

pub async fn branches_files_and_pull_requests_take_slashes_and_refuse_mistakes(twin: &mut Twin) {
    let _ = widget(twin).await;
    let hook = json!({
        "type": "gitea", "active": true, "events": ["pull_request", "push", "create", "delete"],
        "config": {"url": "{hear}/hook", "content_type": "json", "secret": "hers"},
    });
    twin.set("ada", "POST", "/repos/{acme}/widget/hooks", hook).await;
    let at = "/repos/{acme}/widget";
    // "hello\n"
    let file = |branch: &str, new: &str| {
        let mut order = json!({"content": "aGVsbG8K", "message": "Say hello", "branch": branch});
        if !new.is_empty() {
            order["new_branch"] = json!(new);
        }
        order
    };
    twin.ask("cleo", "POST", &format!("{at}/contents/docs/one.md"), file("main", "")).await;
    twin.ask("ben", "POST", &format!("{at}/contents/docs/one.md"), file("main", "lazarus/1-laz")).await;
    twin.ask("ben", "POST", &format!("{at}/contents/docs/one.md"), file("lazarus/1-laz", "")).await;
    twin.ask("ben", "POST", &format!("{at}/contents/docs%2Ftwo.md"), file("lazarus/1-laz", "")).await;
    twin.ask("ben", "POST", &format!("{at}/contents/four.md"), file("nothing", "")).await;
    for path in [
        "/contents/docs?ref=lazarus/1-laz",
        "/contents/docs%2Fone.md?ref=lazarus%2F1-laz",
        "/contents/docs/one.md?ref=lazarus/1-laz",
        "/contents/docs/one.md",
        "/contents/nothing.md",
        "/raw/docs/one.md?ref=lazarus/1-laz",
        "/branches/lazarus/1-laz",
        "/branches/lazarus%2F1-laz",
        "/branches/lazarus/nothing",
        "/git/refs/heads/lazarus/1-laz",
        "/git/refs/heads/lazarus",
        "/git/refs/heads/nothing",
        "/branches",
    ] {
        twin.get("cleo", &format!("{at}{path}")).await;
    }
    let pull =
        |title: &str, head: &str, base: &str| json!({"title": title, "head": head, "base": base, "body": "text"});
    for (who, order) in [
        ("ben", pull("", "lazarus/1-laz", "main")),
        ("ben", pull("   ", "lazarus/1-laz", "main")),
        ("ben", pull("\u{200b}", "lazarus/1-laz", "main")),
        ("ben", pull("?!", "nothing", "main")),
        ("ben", pull("?!", "lazarus/1-laz", "nothing")),
        ("ben", pull("?!", "main", "main")),
        ("", pull("?!", "lazarus/1-laz", "main")),
        ("ben", pull(&"long ".repeat(60), "lazarus/1-laz", "main")),
        ("ben", pull("[mission] ❤️ \"quoted\"", "lazarus/1-laz", "main")),
        ("ben", pull("again", "lazarus/1-laz", "main")),
    ] {
        twin.ask(who, "POST", &format!("{at}/pulls"), order).await;
    }
    for path in [
        "/pulls?state=all",
        "/pulls/1",
        "/pulls/99",
        "/pulls/main/lazarus/1-laz",
        "/pulls/main/lazarus%2F1-laz",
        "/pulls/main/nothing",
        "/issues/1",
        "/issues?type=pulls",
        "/issues/1/timeline",
    ] {
        twin.get("cleo", &format!("{at}{path}")).await;
    }
    twin.ask("ben", "PATCH", &format!("{at}/pulls/1"), json!({"title": "better"})).await;
    twin.ask("cleo", "PATCH", &format!("{at}/pulls/1"), json!({"title": "mine"})).await;
    twin.ask("ben", "PATCH", &format!("{at}/pulls/1"), json!({"state": "closed"})).await;
    twin.ask("ben", "POST", &format!("{at}/pulls"), pull("after it was closed", "lazarus/1-laz", "main")).await;
    twin.ask("ada", "POST", &format!("{at}/branch_protections"), json!({"rule_name": "main", "enable_push": false}))
        .await;
    twin.ask("ben", "POST", &format!("{at}/contents/five.md"), file("main", "")).await;
    twin.ask("ada", "POST", &format!("{at}/branches"), json!({"new_branch_name": "a b"})).await;
    twin.ask("ada", "POST", &format!("{at}/branches"), json!({"new_branch_name": "new", "old_branch_name": "nothing"}))
        .await;
    twin.ask("ada", "POST", &format!("{at}/branches"), json!({"new_branch_name": "new", "old_branch_name": "main"}))
        .await;
    twin.ask("ada", "POST", &format!("{at}/branches"), json!({"new_branch_name": "new"})).await;
    twin.ask("cleo", "DELETE", &format!("{at}/branches/new"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{at}/branches/new"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{at}/branches/new"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{at}/branches/main"), NONE).await;
}

pub async fn people_are_let_in_locked_out_and_told_what_they_may(twin: &mut Twin) {
    let team = widget(twin).await;
    let at = "/repos/{acme}/widget";
    twin.people(&["dora"]).await;
    twin.set("cleo", "POST", &format!("{at}/issues"), json!({"title": "hers", "body": "text"})).await;
    let comment = twin.set("cleo", "POST", &format!("{at}/issues/1/comments"), json!({"body": "hers"})).await.id();
    for (who, permission) in
        [("dora", "read"), ("dora", "write"), ("dora", "admin"), ("dora", "owner"), ("dora", "nonsense")]
    {
        twin.ask("ada", "PUT", &format!("{at}/collaborators/{{{who}}}"), json!({"permission": permission})).await;
        for asks in ["ada", "ben", who] {
            twin.get(asks, &format!("{at}/collaborators/{{{who}}}/permission")).await;
        }
    }
    twin.get("dora", &format!("{at}/collaborators/{{ben}}/permission")).await;
    twin.get("dora", &format!("{at}/collaborators/{{ada}}/permission")).await;
    twin.get("dora", &format!("{at}/collaborators/{{nobody}}/permission")).await;
    twin.get("", &format!("{at}/collaborators/{{ben}}/permission")).await;
    for who in ["ada", "ben", "cleo", "dora", ""] {
        twin.get(who, &format!("{at}/collaborators")).await;
        twin.get(who, &format!("{at}/teams")).await;
        twin.get(who, at).await;
    }
    twin.get("ada", &format!("{at}/teams/leads")).await;
    twin.ask("ada", "DELETE", &format!("{at}/collaborators/{{dora}}"), NONE).await;
    twin.ask("ada", "DELETE", &format!("{at}/collaborators/{{dora}}"), NONE).await;
    twin.ask("ada", "PUT", &format!("{at}/collaborators/{{nobody}}"), json!({"permission": "read"})).await;
    twin.ask("ada", "PUT", &format!("{at}/collaborators/{{acme}}"), json!({"permission": "read"})).await;
    twin.ask("ben", "PUT", &format!("{at}/collaborators/{{dora}}"), json!({"permission": "read"})).await;

    // Reactions.
    let reactions = format!("{at}/issues/comments/{comment}/reactions");
    for content in ["eyes", "eyes", "+1", "tada", ""] {
        twin.ask("dora", "POST", &reactions, json!({"content": content})).await;
    }
    twin.get("cleo", &reactions).await;
    twin.get("", &reactions).await;
    twin.ask("cleo", "DELETE", &reactions, json!({"content": "eyes"})).await;
    twin.ask("dora", "DELETE", &reactions, json!({"content": "eyes"})).await;
    twin.ask("", "POST", &reactions, json!({"content": "+1"})).await;
    twin.get("cleo", &reactions).await;

    // Blocked by the author, then by the owner.
    let (block, unblock) = match twin.flavour {
        Flavour::Gitea => (("PUT", "/user/blocks/{dora}"), ("DELETE", "/user/blocks/{dora}")),
        Flavour::Forgejo => (("PUT", "/user/block/{dora}"), ("PUT", "/user/unblock/{dora}")),
    };
    twin.ask("cleo", block.0, block.1, NONE).await;
    for (who, path, body) in [
        ("dora", format!("{at}/issues/1/comments"), json!({"body": "blocked"})),
        ("dora", reactions.clone(), json!({"content": "heart"})),
        ("ben", format!("{at}/issues/1/comments"), json!({"body": "not blocked"})),
    ] {
        twin.ask(who, "POST", &path, body).await;
    }
    twin.ask("cleo", unblock.0, unblock.1, NONE).await;

    // A person without a word in it.
    twin.ask("", "POST", &format!("{at}/issues"), json!({"title": "nobody's"})).await;
    twin.ask("dora", "PATCH", &format!("{at}/issues/1"), json!({"body": "not hers"})).await;
    twin.ask("dora", "PATCH", &format!("{at}/issues/1"), json!({"state": "closed"})).await;
    twin.ask("dora", "POST", &format!("{at}/issues/1/labels"), json!({"labels": []})).await;
    twin.ask("cleo", "POST", &format!("{at}/issues"), json!({"title": ""})).await;
    twin.ask("cleo", "POST", &format!("{at}/issues"), json!({"title": "x".repeat(300)})).await;
    twin.ask("cleo", "POST", &format!("{at}/issues"), json!({"title": "  é ".repeat(100)})).await;
    twin.ask("cleo", "POST", &format!("{at}/issues"), json!({"title": "   "})).await;
    twin.ask("cleo", "PATCH", &format!("{at}/issues/2"), json!({"title": "y".repeat(300)})).await;
    twin.ask("cleo", "PATCH", &format!("{at}/issues/2"), json!({"title": "  spaces  "})).await;
    twin.ask("cleo", "POST", &format!("{at}/issues/1/comments"), json!({"body": "   "})).await;

    // A private repository.
    twin.ask("ada", "PATCH", at, json!({"private": true})).await;
    for who in ["ada", "ben", "cleo", ""] {
        // How the owner's address is shown to whom is no matter here.
        let itself = if who == "ben" { format!("{at}/branches") } else { at.to_owned() };
        for path in [
            itself,
            format!("{at}/issues/1"),
            format!("{at}/labels"),
            "/-/{acme}/widget.git/info/refs?service=git-upload-pack".to_owned(),
        ] {
            twin.get(who, &path).await;
        }
    }
    twin.ask("cleo", "POST", &format!("{at}/issues/1/comments"), json!({"body": "from outside"})).await;
    twin.ask("ada", "DELETE", &format!("/teams/{team}/members/{{ben}}"), NONE).await;
    twin.get("ben", at).await;

    // An archived one.
    twin.ask("ada", "PATCH", at, json!({"archived": true})).await;
    twin.ask("ada", "POST", &format!("{at}/issues"), json!({"title": "late"})).await;
    twin.ask("ada", "POST", &format!("{at}/labels"), json!({"name": "late", "color": "#00aabb"})).await;
    twin.ask("ada", "POST", &reactions, json!({"content": "+1"})).await;
    twin.ask("ada", "PATCH", &format!("{at}/issues/1"), json!({"state": "closed"})).await;
    twin.get("ada", &format!("{at}/issues/1")).await;
}
