//! What real forges said, said again: every recorded exchange goes through
//! the client, every recorded delivery through the check of its signature.
//! A recording that no case covers fails the test, and so does a client that
//! asks otherwise than the recording was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use lazarus_gitea::event::{CommentAction, CommentSnapshot, ForgeEvent, IssueAction, IssueSnapshot, Person, RepoRef};
use lazarus_gitea::webhook::{BadDelivery, Rejection, verify};
use lazarus_gitea::{
    Access, Forge, ForgeError, ForgeOptions, HookContentType, HookOwner, IssueQuery, IssueState, Label, MasterSecret,
    NewHook, NewLabel, NewPull, Product, RawAnswer, TimelineEvent,
};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const GITEA: &str = "gitea-1.25.4";
const FORGEJO: &str = "forgejo-12";

fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/../../wiremock-fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

// ---------------------------------------------------------------- exchanges

#[derive(Deserialize)]
struct Mappings {
    mappings: Vec<Mapping>,
}

#[derive(Deserialize, Clone)]
struct Mapping {
    name: String,
    request: Asked,
    response: Answered,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Asked {
    method: String,
    url_path: String,
    #[serde(default)]
    query_parameters: BTreeMap<String, Value>,
    #[serde(default)]
    body_patterns: Vec<Value>,
}

impl Asked {
    fn body(&self) -> Option<&Value> {
        self.body_patterns.first().map(|pattern| &pattern["equalToJson"])
    }
}

#[derive(Deserialize, Clone)]
struct Answered {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Serves one recorded answer at its method and path. Further pages of a
/// list are empty, as they were.
async fn serve(server: &MockServer, mapping: &Mapping) {
    server.reset().await;
    let Mapping { request, response, .. } = mapping.clone();
    let path = request.url_path;
    Mock::given(wiremock::matchers::method(request.method.as_str()))
        .and(move |asked: &Request| asked.url.path() == path)
        .respond_with(move |asked: &Request| {
            let page = asked.url.query_pairs().find(|(key, _)| key == "page");
            if page.is_some_and(|(_, page)| page != "1") {
                return ResponseTemplate::new(200).set_body_raw("[]", "application/json");
            }
            let mime = response.headers.get("Content-Type").map_or("text/plain", String::as_str);
            let mut answer =
                ResponseTemplate::new(response.status).set_body_raw(response.body.clone().into_bytes(), mime);
            for (name, value) in response.headers.iter().filter(|(name, _)| *name != "Content-Type") {
                answer = answer.append_header(name.as_str(), value.as_str());
            }
            answer
        })
        .mount(server)
        .await;
}

/// The first request must be the recorded one: method, path, the recorded
/// query (but for pages) and every recorded field of the body.
async fn asked_as_recorded(server: &MockServer, mapping: &Mapping, server_name: &str) {
    let what = format!("{server_name}, {}", mapping.name);
    let requests = server.received_requests().await.unwrap();
    let first = requests.first().unwrap_or_else(|| panic!("{what}: nothing was asked"));
    assert_eq!(first.method.as_str(), mapping.request.method, "{what}");
    assert_eq!(first.url.path(), mapping.request.url_path, "{what}");
    assert_eq!(first.headers["authorization"], "token TOKEN-test", "{what}");
    for (key, value) in &mapping.request.query_parameters {
        if key == "limit" || key == "page" {
            continue;
        }
        let sent = first.url.query_pairs().find(|(sent, _)| sent == key.as_str());
        let sent = sent.map(|(_, value)| value.into_owned());
        assert_eq!(sent.as_deref(), value["equalTo"].as_str(), "{what}: {key} in the query");
    }
    // Forgejo's label DELETE takes an empty object or no body at all: none.
    let recorded = mapping.request.body().filter(|body| **body != json!({}));
    if let Some(recorded) = recorded {
        assert_eq!(first.headers["content-type"], "application/json", "{what}");
        let sent: Value = serde_json::from_slice(&first.body).unwrap();
        includes(&sent, recorded, &what);
    } else if !mapping.name.starts_with("attachment-") && mapping.name != "label-clear" {
        assert!(first.body.is_empty(), "{what}: no body was recorded");
        assert!(!first.headers.contains_key("content-type"), "{what}: no content type without a body");
    }
}

fn includes(sent: &Value, recorded: &Value, what: &str) {
    match recorded {
        Value::Object(fields) => {
            for (key, value) in fields {
                includes(&sent[key], value, &format!("{what}: {key}"));
            }
        }
        _ => assert_eq!(sent, recorded, "{what}"),
    }
}

fn forge_at(url: &str) -> Forge {
    Forge::new(ForgeOptions {
        timeout: Duration::from_secs(5),
        ..ForgeOptions::new(url, SecretString::from("TOKEN-test"))
    })
    .unwrap()
}

fn label_ids(labels: &[Label]) -> Vec<i64> {
    labels.iter().map(|label| label.id).collect()
}

fn issue_label_ids(issue: &IssueSnapshot) -> Vec<i64> {
    issue.labels.iter().map(|label| label.id).collect()
}

fn comment_ids(comments: &[CommentSnapshot]) -> Vec<i64> {
    comments.iter().map(|comment| comment.id).collect()
}

fn who(id: i64, login: &str) -> Person {
    Person { id, login: login.to_owned() }
}

/// Exchanges of people setting things up, for which the client has no call:
/// the same request by hand.
async fn by_hand(forge: &Forge, mapping: &Mapping) -> Result<RawAnswer, ForgeError> {
    let mut path = mapping.request.url_path.strip_prefix("/api/v1").unwrap().to_owned();
    let query: Vec<String> = mapping
        .request
        .query_parameters
        .iter()
        .map(|(key, value)| format!("{key}={}", value["equalTo"].as_str().unwrap()))
        .collect();
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    forge.request(mapping.request.method.parse().unwrap(), &path, mapping.request.body()).await
}

async fn every_exchange_of(server_name: &str) {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let Mappings { mappings } = fixture(&format!("{server_name}.json"));
    assert_eq!(mappings.len(), 125, "{server_name}: as many as were recorded");
    for mapping in &mappings {
        serve(&server, mapping).await;
        play(&forge, mapping, server_name == GITEA).await;
        asked_as_recorded(&server, mapping, server_name).await;
    }
}

#[tokio::test]
async fn the_client_understands_everything_that_gitea_said() {
    every_exchange_of(GITEA).await;
}

#[tokio::test]
async fn the_client_understands_everything_that_forgejo_said() {
    every_exchange_of(FORGEJO).await;
}

/// Makes the call of one exchange and looks at what comes back.
#[allow(clippy::too_many_lines)]
async fn play(forge: &Forge, mapping: &Mapping, gitea: bool) {
    let name = mapping.name.as_str();
    let repo = forge.repo_ref(&RepoRef { id: 1, owner: "acme".to_owned(), name: "widget".to_owned() });
    let issue = repo.issue(1);
    let text = |key: &str| mapping.request.body().unwrap()[key].as_str().unwrap().to_owned();
    match name {
        // The server.
        "version" => {
            let version = forge.version().await.unwrap();
            if gitea {
                assert_eq!(version.raw, "1.25.4");
                assert_eq!((version.product, version.gitea), (Product::Gitea, (1, 25, 4)));
                assert!(version.below_fixed_cve());
            } else {
                assert_eq!(version.raw, "12.0.0-dev+gitea-1.22.0");
                assert_eq!((version.product, version.gitea), (Product::Forgejo, (1, 22, 0)));
                assert!(!version.below_fixed_cve());
            }
        }
        "settings-api" => {
            let settings = forge.api_settings().await.unwrap();
            assert_eq!((settings.max_response_items, settings.default_paging_num), (50, 30));
        }
        "settings-ui" => {
            let settings = forge.ui_settings().await.unwrap();
            for reaction in ["eyes", "+1", "confused"] {
                assert!(settings.allowed_reactions.iter().any(|allowed| allowed == reaction), "{reaction}");
            }
        }
        "current-user" => {
            assert_eq!(forge.current_user().await.unwrap().person(), who(6, "lazarus"));
        }
        "bad-token" => {
            assert!(matches!(forge.current_user().await, Err(ForgeError::Unauthorized { .. })));
        }
        "user-get" => {
            assert_eq!(forge.user("director").await.unwrap().unwrap().person(), who(2, "director"));
        }
        "user-search" => {
            // Asked by name when it was recorded; the client asks by number.
            let found = by_hand(forge, mapping).await.unwrap();
            assert_eq!(found.body["data"][1]["login"], "writer");
            assert_eq!(forge.user_by_id(3).await.unwrap().unwrap().login, "writer");
            assert_eq!(forge.user_by_id(99).await.unwrap(), None);
        }
        "team-member" => assert!(forge.team_member(2, "teamwriter").await.unwrap().is_none()),
        "org-member" => {
            assert!(matches!(by_hand(forge, mapping).await, Err(ForgeError::Moved { status: 303, .. })));
        }
        "org-permissions" => {
            // Gitea is blind to what a team gives here too.
            assert_eq!(by_hand(forge, mapping).await.unwrap().body["can_write"], !gitea);
        }

        // The repository.
        "repo-get" => {
            let found = repo.get().await.unwrap().unwrap();
            assert_eq!(found.reference(), RepoRef { id: 1, owner: "acme".into(), name: "widget".into() });
            assert_eq!(found.default_branch, "main");
            assert!(found.permissions.admin && !found.archived && !found.private);
        }
        "repo-get-missing" => assert_eq!(forge.repo("acme", "nothing").get().await.unwrap(), None),
        "repo-renamed" => {
            // By name only there is no way to find it; with the number see
            // `tests/client.rs`.
            let gone = forge.repo("acme", "widget").get().await;
            assert!(matches!(gone, Err(ForgeError::Moved { status: 301, .. })), "{gone:?}");
        }
        "repo-teams" => {
            let teams = repo.teams().await.unwrap();
            let builders = teams.iter().find(|team| team.name == "builders").unwrap();
            assert_eq!(builders.id, 2);
            assert_eq!(builders.access("repo.code"), Access::Write);
            assert_eq!(builders.permission, if gitea { Access::None } else { Access::Write });
            assert_eq!(teams[0].access("repo.issues"), Access::Owner);
        }
        "contents-create" => {
            use base64::Engine as _;
            let content = base64::engine::general_purpose::STANDARD.decode(text("content")).unwrap();
            let path = ".gitea/ISSUE_TEMPLATE/mission-proposal.yaml";
            let written = repo.put_file(path, &content, &text("message"), None, Some("main")).await.unwrap();
            assert_eq!(written.sha.len(), 40);
            assert_eq!(written.commit.len(), 40);
        }
        "issue-templates" => {
            let templates = repo.issue_templates().await.unwrap();
            assert_eq!(templates.len(), 1);
            assert_eq!(templates[0].name, "Mission proposal");
            assert_eq!(templates[0].labels, ["lazarus/requested"]);
            assert_eq!(templates[0].file_name, ".gitea/ISSUE_TEMPLATE/mission-proposal.yaml");
        }
        "branch-get" => {
            let branch = repo.branch("lazarus/1-laz-abc").await.unwrap().unwrap();
            assert_eq!(branch.name, "lazarus/1-laz-abc");
            assert_eq!(branch.commit_id.len(), 40);
            assert!(!branch.protected && branch.user_can_push);
        }
        "branch-get-main" => assert_eq!(repo.branch("main").await.unwrap().unwrap().name, "main"),
        "issue-config-validate" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().body["valid"], true);
        }
        "branch-protections" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().body, json!([]));
        }
        "branch-protection-create" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().status, 201);
        }

        // Labels.
        _ if name.starts_with("label-create-") => {
            let body = mapping.request.body().unwrap();
            let label = NewLabel {
                name: text("name"),
                color: text("color"),
                description: body["description"].as_str().unwrap_or_default().to_owned(),
                exclusive: body["exclusive"] == true,
            };
            let made = repo.create_label(label.clone()).await;
            if name == "label-create-bad-colour" {
                assert!(matches!(made, Err(ForgeError::Invalid { status: 422, .. })), "{made:?}");
            } else {
                let made = made.unwrap();
                assert_eq!((made.name, made.exclusive), (label.name, label.exclusive));
                assert_eq!(made.color, label.color.trim_start_matches('#'));
                // The second one of a name is another label.
                assert_eq!(made.id == 6, name == "label-create-duplicate");
            }
        }
        "label-delete" => assert!(repo.delete_label(6).await.unwrap()),
        "label-list" => assert_eq!(label_ids(&repo.labels().await.unwrap()), [2, 1, 3, 4, 5]),
        "label-rename-to-taken-name" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().body["name"], "lazarus/approved");
        }
        "label-remove" => assert!(issue.remove_label(2).await.unwrap()),
        "label-add" => assert_eq!(label_ids(&issue.add_labels(&[2]).await.unwrap()), [2, 1]),
        "label-add-exclusive" => {
            assert_eq!(label_ids(&issue.add_labels(&[3]).await.unwrap()), [2, 1, 3]);
        }
        "label-add-exclusive-other" => {
            assert_eq!(label_ids(&issue.add_labels(&[4]).await.unwrap()), [2, 1, 4]);
        }
        "label-add-unknown" => {
            // By name the client adds nothing: names are not unique.
            assert_eq!(by_hand(forge, mapping).await.unwrap().body[2]["id"], 4);
        }
        "label-add-unknown-id" => {
            let labels = label_ids(&issue.add_labels(&[999_999]).await.unwrap());
            assert!(!labels.contains(&999_999), "the forge passes it over in silence: {labels:?}");
        }
        "label-add-as-reader" => {
            let refused = issue.add_labels(&[5]).await;
            // Forgejo answers with a page of HTML.
            assert!(matches!(refused, Err(ForgeError::Forbidden { missing_scope: None, .. })), "{refused:?}");
        }
        "label-replace" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().body[1]["id"], 3);
        }
        "label-clear" => assert_eq!(by_hand(forge, mapping).await.unwrap().status, 204),
        "label-add-again" => assert_eq!(label_ids(&issue.add_labels(&[2]).await.unwrap()), [2]),

        // Hooks.
        "hook-create" | "hook-create-as-writer" => {
            let body = mapping.request.body().unwrap();
            let hook = NewHook {
                url: body["config"]["url"].as_str().unwrap().to_owned(),
                secret: SecretString::from(body["config"]["secret"].as_str().unwrap()),
                events: serde_json::from_value(body["events"].clone()).unwrap(),
                content_type: HookContentType::Json,
            };
            let made = repo.create_hook(hook.clone()).await;
            if name == "hook-create" {
                let made = made.unwrap();
                assert_eq!((made.id, made.url), (1, hook.url));
                assert!(made.active);
                assert_eq!(made.content_type, "json");
                for event in &hook.events {
                    assert!(made.events.contains(event), "{event}");
                }
            } else {
                assert!(matches!(made, Err(ForgeError::Forbidden { .. })), "{made:?}");
            }
        }
        "hook-create-bad-type" => {
            let refused = by_hand(forge, mapping).await;
            assert!(matches!(refused, Err(ForgeError::Invalid { status: 422, .. })), "{refused:?}");
        }
        "hook-list" => {
            let hooks = repo.hooks().await.unwrap();
            assert_eq!(hooks.len(), 1);
            assert!(hooks[0].url.ends_with("/hook") && hooks[0].active);
        }
        "hook-test" => repo.test_hook(1).await.unwrap(),
        "hook-patch-without-events" => {
            // Why the client has no call to change a hook.
            assert_eq!(by_hand(forge, mapping).await.unwrap().body["events"], json!(["push"]));
        }
        "hook-delete" => assert!(repo.delete_hook(2).await.unwrap()),

        // Issues.
        "issue-get" => {
            let found = issue.get().await.unwrap().unwrap();
            assert_eq!((found.id, found.number), (1, 1));
            assert_eq!(found.author, who(4, "reader"));
            assert_eq!(found.title, "[mission] tidy the parser");
            assert!(found.body.contains("Make it faster.\r\n\r\n### Backend\r\n"), "line ends are kept");
            assert!(found.open && !found.is_pull);
            assert_eq!(issue_label_ids(&found), [2, 1]);
        }
        "issue-get-missing" => assert_eq!(repo.issue(9999).get().await.unwrap(), None),
        "issue-create-as-reader" => {
            // A reader's labels are dropped by the API: the client sends none.
            let made = by_hand(forge, mapping).await.unwrap();
            assert_eq!(made.body["labels"], json!([]));
            assert_eq!(repo.create_issue("by api", "hello").await.unwrap().number, 2);
        }
        "issue-create-two-exclusive" => {
            let made = by_hand(forge, mapping).await.unwrap();
            assert_eq!(made.body["labels"].as_array().unwrap().len(), 2);
            let made = repo.create_issue("by api, exclusive twice", "hello").await.unwrap();
            assert_eq!(issue_label_ids(&made), [3, 4]);
        }
        "issue-list-page" => {
            let query = IssueQuery { since: None, state: IssueState::All };
            let issues: Vec<IssueSnapshot> = repo.issues(query).try_collect().await.unwrap();
            assert_eq!(issues.iter().map(|issue| issue.number).collect::<Vec<_>>(), [3]);
        }
        "issue-list-unknown-label" => {
            // Why the client never filters by label.
            let listed = by_hand(forge, mapping).await.unwrap();
            assert_eq!(listed.body.as_array().unwrap().len(), 3);
            let query = IssueQuery { since: None, state: IssueState::All };
            let issues: Vec<IssueSnapshot> = repo.issues(query).try_collect().await.unwrap();
            assert_eq!(issues.iter().map(|issue| issue.number).collect::<Vec<_>>(), [3, 2, 1]);
            assert!(issues.iter().all(|issue| !issue.is_pull));
        }
        "issue-edit-body" | "issue-edit-body-by-director" => {
            let edited = issue.edit(None, Some(&text("body"))).await.unwrap();
            assert_eq!(edited.author, who(4, "reader"), "whoever edits, the author stays");
            assert!(edited.updated_at > edited.created_at);
        }
        "issue-edit-title" => {
            let edited = issue.edit(Some(&text("title")), None).await.unwrap();
            assert_eq!(edited.title, "[mission] tidy the parser well");
        }
        "issue-close" => assert!(!issue.set_state(false).await.unwrap().open),
        "issue-reopen" => assert!(issue.set_state(true).await.unwrap().open),
        "issue-assign" | "issue-unassign" | "issue-milestone" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().status, 201);
        }
        "issue-lock" | "issue-unlock" => {
            let answer = by_hand(forge, mapping).await;
            if gitea {
                assert_eq!(answer.unwrap().status, 204);
            } else {
                assert!(matches!(answer, Err(ForgeError::NotFound { .. })), "no such call: {answer:?}");
            }
        }
        "issue-delete" => assert!(repo.issue(3).delete().await.unwrap()),

        // The timeline.
        "timeline-smuggled-label" => {
            let timeline: Vec<TimelineEvent> = issue.timeline().try_collect().await.unwrap();
            let (label, added) = timeline[1].label_added().unwrap();
            assert_eq!((label.name.as_str(), label.id, added), ("lazarus/approved", 2, true));
            assert_eq!(timeline[1].actor, who(4, "reader"), "it names the reader who smuggled it in");
        }
        "timeline-labels" => {
            let timeline: Vec<TimelineEvent> = issue.timeline().try_collect().await.unwrap();
            assert_eq!(timeline.len(), 18);
            let approvals: Vec<(&str, bool)> = timeline
                .iter()
                .filter_map(|event| event.label_added().map(|(label, added)| (event, label.id, added)))
                .filter(|(_, label, _)| *label == 2)
                .map(|(event, _, added)| (event.actor.login.as_str(), added))
                .collect();
            assert_eq!(
                approvals,
                [("reader", true), ("lazarus", false), ("director", true), ("writer", false), ("writer", true)]
            );
            assert!(timeline.iter().any(|event| event.kind == "change_title"));
        }
        "timeline-page" => {
            let timeline: Vec<TimelineEvent> = repo.issue(2).timeline().try_collect().await.unwrap();
            assert_eq!(timeline.len(), 10);
            assert!(timeline.iter().all(|event| event.kind == "comment" && event.label_added().is_none()));
        }
        "timeline-missing-issue" => {
            let missing: Result<Vec<TimelineEvent>, _> = repo.issue(9999).timeline().try_collect().await;
            assert!(matches!(missing, Err(ForgeError::NotFound { .. })), "{missing:?}");
        }

        // Comments.
        "comment-create-summon-by-director"
        | "comment-create-status-by-reader"
        | "comment-create-by-team-writer"
        | "comment-create-by-bot"
        | "comment-create-unicode" => {
            let made = issue.create_comment(&text("body")).await.unwrap();
            assert_eq!(made.body, text("body"), "not a character is changed");
            assert_eq!(made.created_at, made.updated_at);
            let author = match name {
                "comment-create-summon-by-director" => who(2, "director"),
                "comment-create-status-by-reader" => who(4, "reader"),
                "comment-create-by-team-writer" => who(5, "teamwriter"),
                "comment-create-by-bot" => who(6, "lazarus"),
                _ => who(3, "writer"),
            };
            assert_eq!(made.author, author);
        }
        "comment-create-on-pull" => {
            let made = repo.issue(4).create_comment("/close").await.unwrap();
            assert_eq!(made.author, who(2, "director"));
        }
        "comment-create-empty" => {
            let refused = issue.create_comment("").await;
            assert!(matches!(refused, Err(ForgeError::Invalid { status: 422, .. })), "{refused:?}");
        }
        "comment-create-missing-issue" => {
            let missing = repo.issue(9999).create_comment("x").await.unwrap_err();
            assert!(matches!(missing, ForgeError::NotFound { .. }), "{missing:?}");
            assert!(!missing.may_have_happened());
        }
        "comment-create-no-access" => {
            let refused = forge.repo("acme", "vault").issue(1).create_comment("x").await;
            assert!(matches!(refused, Err(ForgeError::NotFound { .. })), "{refused:?}");
        }
        "comment-create-locked" => {
            let made = issue.create_comment("locked out").await;
            if gitea {
                assert!(matches!(made, Err(ForgeError::Forbidden { .. })), "{made:?}");
            } else {
                assert_eq!(made.unwrap().author, who(4, "reader"));
            }
        }
        "comment-create-archived" => {
            let refused = issue.create_comment("archived?").await;
            assert!(matches!(refused, Err(ForgeError::Locked { .. })), "{refused:?}");
        }
        "scope-bot_repo_only" | "scope-bot_read_issue" => match issue.create_comment("x").await {
            Err(error @ ForgeError::Forbidden { .. }) => {
                assert!(error.to_string().contains("lacks the scope write:issue"), "{error}");
            }
            other => panic!("{other:?}"),
        },
        "comment-edit-by-other" => {
            let edited = repo.comment(5).edit("/close").await.unwrap();
            assert_eq!(edited.author, who(2, "director"), "a writer edited it, the first author is named");
            assert!(edited.updated_at > edited.created_at);
        }
        "comment-edit-own" => assert_eq!(repo.comment(6).edit("/status now").await.unwrap().id, 6),
        "comment-edit-forbidden" => {
            let refused = repo.comment(5).edit("no").await;
            assert!(matches!(refused, Err(ForgeError::Forbidden { .. })), "{refused:?}");
        }
        "comment-delete" => assert!(repo.comment(6).delete().await.unwrap()),
        "comment-get-deleted" => assert_eq!(repo.comment(6).get().await.unwrap(), None),
        "comment-get" => {
            let comment = repo.comment(5).get().await.unwrap().unwrap();
            assert_eq!((comment.id, comment.body.as_str()), (5, "/close"));
        }
        "comment-list-issue" => {
            assert_eq!(comment_ids(&issue.comments().await.unwrap()), [5, 7, 8, 9]);
        }
        "comment-list-missing-issue" => {
            let missing = repo.issue(9999).comments().await;
            assert!(matches!(missing, Err(ForgeError::NotFound { .. })), "{missing:?}");
        }
        "comment-list-bad-since" => {
            let refused = by_hand(forge, mapping).await;
            assert!(matches!(refused, Err(ForgeError::Invalid { status: 422, .. })), "{refused:?}");
        }
        "comment-list-repo" | "comment-list-repo-page" | "comment-list-repo-since" => {
            let since = mapping.request.query_parameters.get("since").map(|since| {
                // Fractions are cut off: `since` is in whole seconds.
                let whole: Timestamp = since["equalTo"].as_str().unwrap().parse().unwrap();
                whole + Duration::from_millis(700)
            });
            let comments: Vec<(i64, CommentSnapshot)> = repo.comments_since(since).try_collect().await.unwrap();
            let ids: Vec<i64> = comments.iter().map(|(_, comment)| comment.id).collect();
            match name {
                "comment-list-repo" => assert_eq!(ids, [5, 7, 8, 9]),
                "comment-list-repo-since" => assert_eq!(ids, [5, 9]),
                _ => assert_eq!(ids, [5, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            }
            assert_eq!(comments[0].0, 1, "the number of the issue");
            assert!(comments.iter().all(|(number, _)| [1, 2].contains(number)));
        }

        // Reactions.
        "reaction-issue" => assert!(issue.react("eyes").await.unwrap()),
        "reaction-comment" => assert!(repo.comment(5).react("eyes").await.unwrap()),
        "reaction-comment-again" => assert!(!repo.comment(5).react("eyes").await.unwrap()),
        "reaction-comment-not-allowed" => {
            let refused = repo.comment(5).react("white_check_mark").await;
            assert!(matches!(refused, Err(ForgeError::Forbidden { .. })), "{refused:?}");
        }
        "reaction-comment-delete" => repo.comment(5).unreact("eyes").await.unwrap(),
        "reaction-comment-list" => assert_eq!(repo.comment(5).reactions().await.unwrap(), []),

        // Rights.
        "permission-asked-by-writer" => {
            let refused = repo.permission("director").await;
            assert!(matches!(refused, Err(ForgeError::Forbidden { .. })), "{refused:?}");
        }
        "permission-asked-by-self" => {
            assert_eq!(repo.permission("writer").await.unwrap().unwrap().access, Access::Write);
        }
        "permission-nobody-widget" | "permission-nobody-vault" => {
            let repo = forge.repo("acme", name.rsplit('-').next().unwrap());
            assert_eq!(repo.permission("nobody").await.unwrap(), None);
        }
        _ if name.starts_with("permission-") => {
            let [_, login, place] = name.splitn(3, '-').collect::<Vec<_>>().try_into().unwrap();
            let found = forge.repo("acme", place).permission(login).await.unwrap().unwrap();
            assert_eq!(found.user.login, login);
            let expected = match (login, place) {
                ("forgeadmin", _) => Access::Owner,
                ("director", _) => Access::Admin,
                ("writer", _) => Access::Write,
                // What the team gives is not seen by Gitea.
                ("teamwriter", _) if !gitea => Access::Write,
                ("teamwriter" | "stranger", "vault") => Access::None,
                _ => Access::Read,
            };
            assert_eq!(found.access, expected, "{name}");
        }

        // Pull requests.
        "pull-create" => {
            let made = repo.create_pull(pull("lazarus/1-laz-abc", "Mission 1", "From #1")).await.unwrap();
            assert_eq!((made.number, made.author), (4, who(6, "lazarus")));
            assert_eq!((made.head.as_str(), made.base.as_str()), ("lazarus/1-laz-abc", "main"));
            assert!(made.open && !made.merged);
        }
        "pull-create-again" => {
            let second = repo.create_pull(pull("lazarus/1-laz-abc", "Mission 1 again", "")).await;
            assert!(matches!(second, Err(ForgeError::Conflict { .. })), "{second:?}");
        }
        "pull-create-no-branch" => {
            let missing = repo.create_pull(pull("no-such-branch", "x", "")).await;
            assert!(matches!(missing, Err(ForgeError::NotFound { .. })), "{missing:?}");
        }
        "pull-get-by-branches" => {
            let found = repo.pull_by_branches("main", "lazarus/1-laz-abc").await.unwrap().unwrap();
            assert_eq!(found.number, 4);
        }
        "pull-list" => {
            assert_eq!(by_hand(forge, mapping).await.unwrap().body[0]["number"], 4);
        }

        // Attachments.
        "attachment-checkpoint-tar-gz" => {
            let attached = repo.comment(8).attach("checkpoint.tar.gz", vec![0; 24]).await.unwrap();
            assert_eq!((attached.id, attached.size), (1, 24));
            assert_eq!(attached.name, "checkpoint.tar.gz");
        }
        "attachment-notes-md" => {
            assert_eq!(repo.comment(8).attach("notes.md", "notes").await.unwrap().name, "notes.md");
        }
        "attachment-a-zst" | "attachment-decisions-jsonl" => {
            let refused = repo.comment(8).attach("decisions.jsonl", "{}").await;
            assert!(matches!(refused, Err(ForgeError::Invalid { status: 422, .. })), "{refused:?}");
        }

        other => panic!("no case covers the exchange {other:?}"),
    }
}

fn pull(head: &str, title: &str, body: &str) -> NewPull {
    NewPull { head: head.to_owned(), base: "main".to_owned(), title: title.to_owned(), body: body.to_owned() }
}

// --------------------------------------------------------------- deliveries

#[derive(Deserialize)]
struct Deliveries {
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize, Clone)]
struct Delivery {
    name: String,
    event: String,
    secret: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Delivery {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn secrets(&self) -> [SecretString; 1] {
        [SecretString::from(self.secret.as_str())]
    }

    fn event(&self) -> ForgeEvent {
        verify(&self.headers(), self.body.as_bytes(), &self.secrets()).unwrap().event().unwrap()
    }
}

fn deliveries(server_name: &str) -> Vec<Delivery> {
    let Deliveries { deliveries } = fixture(&format!("{server_name}.deliveries.json"));
    assert_eq!(deliveries.len(), 43, "{server_name}: as many as were recorded");
    deliveries
}

fn delivery(server_name: &str, name: &str) -> Delivery {
    deliveries(server_name).into_iter().find(|delivery| delivery.name == name).unwrap()
}

/// Who sends, who wrote the issue, its labels.
fn issue_case(name: &str) -> (IssueAction, i64, i64, &'static [i64]) {
    use IssueAction::{Closed, Deleted, Edited, LabelsChanged, Opened, Other, Reopened};
    match name {
        "issue-opened-by-form.1" => (Opened, 4, 4, &[1, 2]),
        "issue-opened-by-form.2" => (LabelsChanged, 4, 4, &[1, 2]),
        "issue-opened-by-api" => (Opened, 4, 4, &[]),
        "issue-opened-with-labels.1" => (Opened, 3, 3, &[3, 4]),
        "issue-opened-with-labels.2" => (LabelsChanged, 3, 3, &[3, 4]),
        "issue-edit-body" | "issue-edit-title" => (Edited, 4, 4, &[2, 1]),
        "issue-edit-body-by-director" => (Edited, 2, 4, &[2, 1]),
        "label-remove" => (LabelsChanged, 6, 4, &[1]),
        "label-add" => (LabelsChanged, 2, 4, &[2, 1]),
        "label-add-exclusive" => (LabelsChanged, 6, 4, &[2, 1, 3]),
        "label-add-exclusive-other" | "label-replace.1" | "label-replace.2" => (LabelsChanged, 6, 4, &[2, 1, 4]),
        "label-clear" => (LabelsChanged, 3, 4, &[2, 3]),
        "label-add-again" => (LabelsChanged, 3, 4, &[2]),
        "issue-assign" | "issue-unassign" | "issue-milestone" => (Other, 2, 4, &[2]),
        "issue-close" | "comment-and-close.2" => (Closed, 2, 4, &[2]),
        "issue-reopen" => (Reopened, 4, 4, &[2]),
        "reopen-by-web" => (Reopened, 2, 4, &[2]),
        "issue-deleted" => (Deleted, 2, 3, &[3, 4]),
        other => panic!("no case covers the delivery {other:?}"),
    }
}

/// Action, author, sender, whether the sender can push.
fn comment_case(name: &str) -> (CommentAction, i64, i64, bool) {
    use CommentAction::{Created, Deleted, Edited};
    match name {
        "comment-summon-by-director"
        | "comment-and-close.1"
        | "comment-on-pull"
        | "content-type-form"
        | "replayed"
        | "comment-after-repo-rename" => (Created, 2, 2, true),
        "comment-status-by-reader" => (Created, 4, 4, false),
        "comment-by-team-writer" => (Created, 5, 5, true),
        "comment-by-bot" => (Created, 6, 6, true),
        "comment-unicode" => (Created, 3, 3, true),
        "comment-edited-by-another" => (Edited, 2, 3, true),
        "comment-edited-by-author" => (Edited, 4, 4, false),
        "comment-deleted" => (Deleted, 4, 4, false),
        other => panic!("no case covers the delivery {other:?}"),
    }
}

fn every_delivery_of(server_name: &str) {
    for delivery in deliveries(server_name) {
        let name = delivery.name.as_str();
        let verified = verify(&delivery.headers(), delivery.body.as_bytes(), &delivery.secrets());
        if name == "content-type-nosecret" {
            let refused = verified.unwrap_err();
            assert!(matches!(refused, Rejection::MalformedSignature { .. }), "{name}: {refused:?}");
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            continue;
        }
        let verified = verified.unwrap_or_else(|refused| panic!("{server_name}, {name}: {refused}"));
        assert_eq!(verified.delivery_id().unwrap().len(), 36);
        let event = verified.event().unwrap_or_else(|bad| panic!("{server_name}, {name}: {bad}"));
        assert_eq!(event.repo().id, 1, "{name}");
        let renamed = name == "comment-after-repo-rename";
        assert_eq!(event.repo().full_name(), if renamed { "acme/gadget" } else { "acme/widget" });
        match &event {
            ForgeEvent::Issue { action, issue, sender, previous_title, previous_body, .. } => {
                assert_eq!(delivery.event, "issues", "{name}");
                // Here the two differ: whether the label is already gone.
                let case = if name == "label-replace.3" {
                    (IssueAction::LabelsChanged, 3, 4, if server_name == GITEA { &[][..] } else { &[2, 3] })
                } else {
                    issue_case(name)
                };
                let got = (*action, sender.id, issue.author.id, &issue_label_ids(issue)[..]);
                assert_eq!(got, case, "{server_name}, {name}");
                assert_eq!(issue.open, !matches!(action, IssueAction::Closed), "{name}");
                assert_eq!(previous_title.is_some(), name == "issue-edit-title", "{name}");
                assert_eq!(previous_body.is_some(), name.starts_with("issue-edit-body"), "{name}");
                assert!(!issue.is_pull);
            }
            ForgeEvent::Comment { action, issue, comment, sender, sender_can_push, .. } => {
                assert_eq!(delivery.event, "issue_comment", "{name}");
                let got = (*action, comment.author.id, sender.id, sender_can_push.unwrap());
                assert_eq!(got, comment_case(name), "{server_name}, {name}");
                assert_eq!(issue.is_pull, name == "comment-on-pull", "{name}");
                assert_eq!(issue.number, if issue.is_pull { 4 } else { 1 });
                assert!(comment.id >= 5);
                match name {
                    "comment-summon-by-director" => assert_eq!(comment.body, "/summon scribe"),
                    "comment-unicode" => {
                        assert!(comment.body.starts_with("Grüße 🚀 \u{202e} \u{200b} /close"));
                    }
                    _ => {}
                }
            }
            ForgeEvent::Other { kind, .. } => {
                let expected = match name {
                    "hook-test" | "hook-test.1" | "hook-test.2" | "push-branch" => "push",
                    "pull-opened" | "label-on-pull" => "pull_request",
                    other => panic!("no case covers the delivery {other:?}"),
                };
                assert_eq!(kind, expected, "{name}");
            }
        }
    }
}

#[test]
fn every_delivery_of_gitea_is_verified_and_read() {
    every_delivery_of(GITEA);
}

#[test]
fn every_delivery_of_forgejo_is_verified_and_read() {
    every_delivery_of(FORGEJO);
}

#[test]
fn an_edit_by_another_names_the_author_and_the_editor_apart() {
    for server_name in [GITEA, FORGEJO] {
        let ForgeEvent::Comment { comment, sender, action, .. } =
            delivery(server_name, "comment-edited-by-another").event()
        else {
            panic!("not a comment");
        };
        assert_eq!(action, CommentAction::Edited);
        assert_eq!((comment.author, sender), (who(2, "director"), who(3, "writer")));
    }
}

#[test]
fn what_happened_once_has_one_key_whichever_way_it_was_heard_of() {
    for server_name in [GITEA, FORGEJO] {
        // A replay has a new delivery id and the same key.
        let replayed = delivery(server_name, "replayed");
        let mut again = replayed.clone();
        for (name, value) in &mut again.headers {
            if name.ends_with("-Delivery") {
                *value = "00000000-0000-4000-8000-000000000000".to_owned();
            }
        }
        assert_eq!(replayed.event().semantic_key(), again.event().semantic_key());
        // Everything else that was recorded as something new has its own.
        let mut keys = BTreeMap::new();
        for delivery in deliveries(server_name) {
            if delivery.name == "content-type-nosecret" {
                continue;
            }
            let event = delivery.event();
            // Nothing but a hint to look at the timeline, or nothing at all:
            // two within a second need no two keys.
            if let ForgeEvent::Issue { action: IssueAction::LabelsChanged | IssueAction::Other, .. }
            | ForgeEvent::Other { .. } = event
            {
                continue;
            }
            if let Some(other) = keys.insert(event.semantic_key(), delivery.name.clone()) {
                panic!("{server_name}: {other} and {} share a key", delivery.name);
            }
        }
    }
}

// ---------------------------------------------------------------- tampering

type TextChange<'a> = &'a dyn Fn(&str) -> String;
type BodyChange<'a> = &'a dyn Fn(&mut Value);

/// threats.md, 1: at the door.
#[test]
fn a_delivery_whose_signature_is_not_exactly_right_is_refused() {
    for server_name in [GITEA, FORGEJO] {
        for name in ["comment-summon-by-director", "content-type-form"] {
            let good = delivery(server_name, name);
            let secrets = good.secrets();
            let headers = good.headers();
            let signatures: Vec<HeaderName> =
                headers.keys().filter(|name| name.as_str().contains("signature")).cloned().collect();
            assert!(signatures.len() >= 4, "{server_name} signs in several headers");

            let mut body = good.body.clone().into_bytes();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            assert!(verify(&headers, &body, &secrets).is_err(), "one bit of the body changed");
            let mut longer = good.body.clone().into_bytes();
            longer.push(b' ');
            assert!(verify(&headers, &longer, &secrets).is_err(), "one byte more");

            let change_all = |change: &dyn Fn(&str) -> String| {
                let mut changed = headers.clone();
                for name in &signatures {
                    let old = changed[name].to_str().unwrap().to_owned();
                    changed.insert(name, HeaderValue::from_str(&change(&old)).unwrap());
                }
                verify(&changed, good.body.as_bytes(), &secrets).unwrap_err()
            };
            let changes: [(&str, TextChange<'_>); 6] = [
                ("upper-case", &|old| old.to_uppercase().replace("SHA", "sha")),
                ("short", &|old| old[..old.len() - 2].to_owned()),
                ("long", &|old| format!("{old}00")),
                ("empty", &|_| String::new()),
                ("a space before", &|old| format!(" {old}")),
                ("not hex", &|old| format!("{}g", &old[..old.len() - 1])),
            ];
            for (what, change) in changes {
                let refused = change_all(change);
                assert!(matches!(refused, Rejection::MalformedSignature { .. }), "{what}: {refused:?}");
                assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{what}");
            }
            let wrong = change_all(&|old| {
                let last = if old.ends_with('0') { '1' } else { '0' };
                format!("{}{last}", &old[..old.len() - 1])
            });
            assert_eq!(wrong, Rejection::WrongSignature);

            // One header of several that says otherwise.
            for name in signatures.iter().filter(|name| name.as_str() != "x-hub-signature") {
                let mut changed = headers.clone();
                let other = changed[name].to_str().unwrap().replace(['0', '1'], "2");
                changed.insert(name, HeaderValue::from_str(&other).unwrap());
                assert_eq!(
                    verify(&changed, good.body.as_bytes(), &secrets).unwrap_err(),
                    Rejection::SignaturesDisagree,
                    "{name}"
                );
                changed.insert(name, HeaderValue::from_static(""));
                assert!(matches!(
                    verify(&changed, good.body.as_bytes(), &secrets),
                    Err(Rejection::MalformedSignature { .. })
                ));
                // A second one of the same name.
                let mut changed = headers.clone();
                changed.append(name, headers[name].clone());
                assert!(verify(&changed, good.body.as_bytes(), &secrets).is_err(), "{name} twice");
            }

            let mut unsigned = headers.clone();
            for name in &signatures {
                unsigned.remove(name);
            }
            assert_eq!(verify(&unsigned, good.body.as_bytes(), &secrets).unwrap_err(), Rejection::MissingSignature);
            // SHA-1 alone proves nothing.
            unsigned.insert("x-hub-signature", headers["x-hub-signature"].clone());
            assert_eq!(verify(&unsigned, good.body.as_bytes(), &secrets).unwrap_err(), Rejection::MissingSignature);

            let other = [SecretString::from("an example secret, not in usE")];
            assert_eq!(verify(&headers, good.body.as_bytes(), &other).unwrap_err(), Rejection::WrongSignature);
            assert_eq!(verify(&headers, good.body.as_bytes(), &[]).unwrap_err(), Rejection::NoSecret);
            let both = [other[0].clone(), secrets[0].clone()];
            assert!(verify(&headers, good.body.as_bytes(), &both).is_ok(), "any of several secrets serves");
        }
    }
}

#[test]
fn an_empty_secret_signs_nothing() {
    use hmac::{Hmac, KeyInit, Mac};
    let good = delivery(GITEA, "comment-summon-by-director");
    // What anybody can compute.
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"").unwrap();
    mac.update(good.body.as_bytes());
    let forged = hex::encode(mac.finalize().into_bytes());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-gitea-event", HeaderValue::from_static("issue_comment"));
    headers.insert("x-gitea-signature", HeaderValue::from_str(&forged).unwrap());
    let empty = [SecretString::from("")];
    assert_eq!(verify(&headers, good.body.as_bytes(), &empty).unwrap_err(), Rejection::NoSecret);
    let beside = [SecretString::from(""), SecretString::from("another")];
    assert_eq!(verify(&headers, good.body.as_bytes(), &beside).unwrap_err(), Rejection::WrongSignature);
    assert!(MasterSecret::new(SecretString::from("")).is_none());
}

#[test]
fn a_form_with_two_payloads_or_none_and_other_content_types_are_refused() {
    let good = delivery(GITEA, "content-type-form");
    let refuse = |body: &str| verify(&good.headers(), body.as_bytes(), &good.secrets()).unwrap_err();
    assert_eq!(refuse(&format!("{}&{}", good.body, good.body)), Rejection::BadForm);
    assert_eq!(refuse(&format!("{}&pay%6Coad=x", good.body)), Rejection::BadForm);
    assert_eq!(refuse(&good.body.replacen("payload", "load", 1)), Rejection::BadForm);
    assert_eq!(refuse(""), Rejection::BadForm);
    let nothing = verify(&HeaderMap::new(), b"{}", &good.secrets()).unwrap_err();
    assert_eq!(nothing.status(), StatusCode::UNAUTHORIZED, "not signed: 401 before all else");
    for content_type in ["text/plain", "multipart/form-data", "application/jsonx", ""] {
        let mut headers = good.headers();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        let refused = verify(&headers, good.body.as_bytes(), &good.secrets()).unwrap_err();
        assert_eq!(refused, Rejection::ContentType, "{content_type}");
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let mut headers = good.headers();
    headers.insert("content-type", HeaderValue::from_static("Application/X-WWW-Form-Urlencoded; charset=utf-8"));
    assert!(verify(&headers, good.body.as_bytes(), &good.secrets()).is_ok());
}

/// Signs whatever it is given, as somebody with the secret would.
fn signed(event: &str, body: &[u8]) -> (HeaderMap, Vec<u8>, [SecretString; 1]) {
    let secret = SecretString::from("secret");
    (headers_signed_with(event, body, &secret), body.to_vec(), [secret])
}

fn headers_signed_with(event: &str, body: &[u8], secret: &SecretString) -> HeaderMap {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.expose_secret().as_bytes()).unwrap();
    mac.update(body);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-gitea-event", HeaderValue::from_str(event).unwrap());
    let signature = hex::encode(mac.finalize().into_bytes());
    headers.insert("x-gitea-signature", HeaderValue::from_str(&signature).unwrap());
    headers
}

fn bad(event: &str, body: &[u8]) -> BadDelivery {
    let (headers, body, secrets) = signed(event, body);
    match verify(&headers, &body, &secrets).unwrap().event() {
        Err(bad) => bad,
        Ok(event) => panic!("taken: {event:?}"),
    }
}

/// threats.md, 3: the header is not signed.
#[test]
fn an_event_header_that_does_not_fit_the_signed_body_is_refused() {
    for server_name in [GITEA, FORGEJO] {
        for (name, others) in [
            ("comment-summon-by-director", &["issues", "push", "pull_request", "release"][..]),
            ("comment-edited-by-another", &["issues", "push"]),
            ("comment-deleted", &["issues"]),
            ("issue-opened-by-form.1", &["issue_comment", "push", "pull_request", "wiki"]),
            ("issue-edit-body", &["issue_comment"]),
            ("push-branch", &["issues", "issue_comment", "pull_request"]),
            ("pull-opened", &["issues", "issue_comment", "push"]),
        ] {
            let good = delivery(server_name, name);
            for other in others {
                let mut headers = good.headers();
                for header in ["x-gitea-event", "x-forgejo-event", "x-gogs-event"] {
                    if headers.contains_key(header) {
                        headers.insert(header, HeaderValue::from_static(other));
                    }
                }
                let refused = verify(&headers, good.body.as_bytes(), &good.secrets()).unwrap().event().unwrap_err();
                assert!(matches!(refused, BadDelivery::Mismatch { .. }), "{name} as {other}: {refused:?}");
                assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
            }
        }
        let good = delivery(server_name, "comment-summon-by-director");
        let event_with = |change: &dyn Fn(&mut HeaderMap)| {
            let mut headers = good.headers();
            change(&mut headers);
            verify(&headers, good.body.as_bytes(), &good.secrets()).unwrap().event()
        };
        assert_eq!(
            event_with(&|headers| {
                headers.insert("x-gogs-event", HeaderValue::from_static("issues"));
            }),
            Err(BadDelivery::EventsDisagree)
        );
        assert_eq!(
            event_with(&|headers| {
                headers.append("x-gitea-event", HeaderValue::from_static("issues"));
            }),
            Err(BadDelivery::EventsDisagree)
        );
        assert_eq!(
            event_with(&|headers| {
                headers.insert(
                    "x-gitea-event",
                    HeaderValue::from_static("Issue Comment\u{7f}".trim_end_matches('\u{7f}')),
                );
            }),
            Err(BadDelivery::EventsDisagree)
        );
        assert_eq!(
            event_with(&|headers| {
                for name in ["x-gitea-event", "x-forgejo-event", "x-gogs-event"] {
                    headers.remove(name);
                }
            }),
            Err(BadDelivery::NoEvent)
        );
    }
}

#[test]
fn a_secret_speaks_for_its_own_repository_or_organisation_only() {
    let good: Value = serde_json::from_str(&delivery(GITEA, "comment-summon-by-director").body).unwrap();
    let (repository, owner) =
        (good["repository"]["id"].as_i64().unwrap(), good["repository"]["owner"]["id"].as_i64().unwrap());
    let master = MasterSecret::new(SecretString::from("an example")).unwrap();
    let signed_with = |secret: &SecretString, body: &Value| {
        let body = body.to_string().into_bytes();
        let headers = headers_signed_with("issue_comment", &body, secret);
        master.verify(&headers, &body).map(|verified| {
            let event = verified.event().map(|event| event.repo().id);
            (verified.signed_for(), event)
        })
    };
    let of = |owner| master.hook_secret(owner);
    for signed_for in [HookOwner::Repository(repository), HookOwner::Organisation(owner)] {
        assert_eq!(signed_with(&of(signed_for), &good), Ok((Some(signed_for), Ok(repository))));
    }
    let mut elsewhere = good.clone();
    elsewhere["repository"]["id"] = (repository + 1).into();
    elsewhere["issue"]["repository"]["id"] = (repository + 1).into();
    for (name, secret, body) in [
        ("another repository's", of(HookOwner::Repository(repository + 1)), &good),
        ("another organisation's", of(HookOwner::Organisation(owner + 1)), &good),
        ("the wrong kind", of(HookOwner::Repository(owner)), &good),
        ("ours, for another repository", of(HookOwner::Repository(repository)), &elsewhere),
        ("of another installation", SecretString::from("another example"), &good),
        ("empty", SecretString::from(""), &good),
    ] {
        assert_eq!(signed_with(&secret, body).map(drop), Err(Rejection::WrongSignature), "{name}");
    }
    let own = signed_with(&SecretString::from("an example"), &good).map(drop);
    assert_eq!(own, Err(Rejection::MasterSecret { repository }));
    // An organisation's owner may say what it likes of who owns the repository:
    // that is why the door asks the forge.
    let mut claimed = good.clone();
    claimed["repository"]["owner"]["id"] = (owner + 1).into();
    let signed_for = HookOwner::Organisation(owner + 1);
    assert_eq!(signed_with(&of(signed_for), &claimed), Ok((Some(signed_for), Ok(repository))));
    // A body with two of either is nobody's.
    let text = good.to_string();
    for twice in [
        text.replacen("\"repository\":", "\"repository\":{\"id\":99},\"repository\":", 9),
        text.replacen(&format!("\"id\":{repository},"), &format!("\"id\":{repository},\"id\":99,"), 9),
    ] {
        assert_ne!(twice, text);
        let headers = headers_signed_with("issue_comment", twice.as_bytes(), &of(HookOwner::Repository(repository)));
        let verdict = master.verify(&headers, twice.as_bytes()).map(|verified| verified.event().map(drop));
        assert!(!matches!(verdict, Ok(Ok(()))), "{verdict:?}");
    }
}

/// threats.md, 4: signed, and still hostile.
#[test]
fn a_signed_body_that_is_no_delivery_is_refused_without_harm() {
    let good: Value = serde_json::from_str(&delivery(GITEA, "comment-summon-by-director").body).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body.to_string().into_bytes()
    };
    let refuse = |change: &dyn Fn(&mut Value)| bad("issue_comment", &with(change));

    for garbage in [&b""[..], b"null", b"[]", b"{", b"\xff\xfe", b"{}garbage", b"\"x\"", b"1e999"] {
        let refused = bad("issue_comment", garbage);
        assert!(
            matches!(refused, BadDelivery::Unreadable { .. } | BadDelivery::Mismatch { .. }),
            "{garbage:?}: {refused:?}"
        );
    }
    let deep = format!("{{\"action\":{}", "[".repeat(10_000));
    assert!(matches!(bad("issue_comment", deep.as_bytes()), BadDelivery::Unreadable { .. }));
    let ignored = format!("{{\"extra\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    // What nobody reads is skipped, without a stack to overflow.
    assert!(matches!(bad("push", ignored.as_bytes()), BadDelivery::Mismatch { .. }));
    let twice = String::from_utf8(with(&|_| ())).unwrap();
    let twice = format!("{{\"action\":\"deleted\",{}", &twice[1..]);
    assert!(matches!(bad("issue_comment", twice.as_bytes()), BadDelivery::Unreadable { .. }), "a key twice");

    let id_cases: [(&str, BodyChange<'_>); 7] = [
        ("repository 0", &|body| body["repository"]["id"] = json!(0)),
        ("repository -1", &|body| {
            body["repository"]["id"] = json!(-1);
            body["issue"]["repository"]["id"] = json!(-1);
        }),
        ("issue", &|body| body["issue"]["id"] = json!(-5)),
        ("number", &|body| {
            body["issue"]["number"] = json!(0);
            body["comment"]["issue_url"] = json!("");
        }),
        ("comment", &|body| body["comment"]["id"] = json!(0)),
        ("sender", &|body| body["sender"]["id"] = json!(0)),
        ("label", &|body| {
            body["issue"]["labels"][0]["id"] = json!(-1);
        }),
    ];
    for (what, change) in id_cases {
        let refused = refuse(change);
        assert!(matches!(refused, BadDelivery::BadId { .. } | BadDelivery::Mismatch { .. }), "{what}: {refused:?}");
    }
    for change in [json!(1.5), json!("1"), json!(null), json!(1e300)] {
        let refused = refuse(&|body| body["comment"]["id"] = change.clone());
        assert!(matches!(refused, BadDelivery::Unreadable { .. }), "{change}: {refused:?}");
    }
    assert!(matches!(
        refuse(&|body| body["comment"]["issue_url"] = json!("http://git.example.test/acme/widget/issues/2")),
        BadDelivery::Mismatch { .. }
    ));
    assert!(matches!(refuse(&|body| body["issue"]["repository"]["id"] = json!(2)), BadDelivery::Mismatch { .. }));
    for action in [json!("pinned"), json!(""), json!(null), json!("Created")] {
        let refused = refuse(&|body| body["action"] = action.clone());
        assert!(matches!(refused, BadDelivery::UnknownAction { .. }), "{action}: {refused:?}");
    }
    for field in ["issue", "comment", "repository", "sender"] {
        assert!(matches!(refuse(&|body| body[field] = json!(null)), BadDelivery::Mismatch { .. }), "{field}");
    }
}

#[test]
fn a_million_labels_are_refused_and_a_deleted_sender_is_not() {
    let good: Value = serde_json::from_str(&delivery(GITEA, "issue-opened-by-form.1").body).unwrap();
    let labels = |count: usize| {
        let mut body = good.clone();
        body["issue"]["labels"] = json!([]);
        let many = vec![r#"{"id":1,"name":"x"}"#; count].join(",");
        body.to_string().replacen(r#""labels":[]"#, &format!(r#""labels":[{many}]"#), 1)
    };
    let refused = bad("issues", labels(1_000_000).as_bytes());
    assert_eq!(refused, BadDelivery::TooManyLabels);
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bad("issues", labels(1001).as_bytes()), BadDelivery::TooManyLabels);
    let (headers, body, secrets) = signed("issues", labels(1000).as_bytes());
    let ForgeEvent::Issue { issue, .. } = verify(&headers, &body, &secrets).unwrap().event().unwrap() else {
        panic!("not an issue");
    };
    assert_eq!(issue.labels.len(), 1000);

    let mut ghost = good.clone();
    ghost["sender"] = json!({ "id": -1, "login": "Ghost" });
    ghost["issue"]["labels"] = json!(null);
    let (headers, body, secrets) = signed("issues", ghost.to_string().as_bytes());
    let ForgeEvent::Issue { issue, sender, .. } = verify(&headers, &body, &secrets).unwrap().event().unwrap() else {
        panic!("not an issue");
    };
    assert_eq!((sender, issue.labels.len()), (who(-1, "Ghost"), 0));
}

#[test]
fn no_secret_is_in_what_can_be_printed() {
    let good = delivery(GITEA, "comment-summon-by-director");
    let secrets = (good.secrets(), MasterSecret::new(good.secrets()[0].clone()));
    let forge = forge_at("http://127.0.0.1:9");
    let options = ForgeOptions::new("http://127.0.0.1:9", SecretString::from("TOKEN-test"));
    let hook = NewHook {
        url: String::new(),
        secret: good.secrets()[0].clone(),
        events: Vec::new(),
        content_type: HookContentType::Json,
    };
    let printed = format!("{secrets:?}{forge:?}{options:?}{hook:?}{:?}", Arc::new(forge.repo("a", "b")));
    assert!(!printed.contains("example secret") && !printed.contains("TOKEN"), "{printed}");
}
