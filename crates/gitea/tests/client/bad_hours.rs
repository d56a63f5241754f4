//! What no recording shows: redirects, failures, hostile and broken answers,
//! and how often the client asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use lazarus_gitea::event::{CommentSnapshot, IssueSnapshot, RepoRef};
use lazarus_gitea::failure::Failure;
use lazarus_gitea::{
    Access, Forge, ForgeError, ForgeOptions, IssueQuery, IssueState, Named, NewHook, NewLabel, NewPull, TimelineEvent,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const TOKEN: &str = "TOKEN-not-to-be-seen";

fn forge_with(url: &str, change: impl FnOnce(&mut ForgeOptions)) -> Forge {
    let mut options = ForgeOptions::new(url, SecretString::from(TOKEN));
    options.timeout = Duration::from_secs(5);
    change(&mut options);
    Forge::new(options).unwrap()
}

fn forge_at(url: &str) -> Forge {
    forge_with(url, |_| {})
}

fn widget() -> RepoRef {
    RepoRef { id: 1, owner: "acme".to_owned(), name: "widget".to_owned() }
}

fn comment(id: i64, body: &str) -> Value {
    json!({
        "id": id, "user": { "id": 6, "login": "lazarus" }, "body": body,
        "issue_url": "http://f/acme/widget/issues/1", "pull_request_url": "",
        "created_at": "2026-11-20T23:29:31Z", "updated_at": "2026-11-20T23:29:31Z",
    })
}

fn issue(number: i64, repository: i64) -> Value {
    json!({
        "id": number, "number": number, "title": "t", "body": "b", "state": "open",
        "user": { "id": 4, "login": "reader" }, "labels": null, "pull_request": null,
        "created_at": "2026-11-20T23:29:31Z", "updated_at": "2026-11-20T23:29:31Z",
        "repository": { "id": repository, "name": "widget", "owner": "acme", "full_name": "acme/widget" },
    })
}

fn repository(id: i64, owner: &str, name: &str) -> Value {
    json!({ "id": id, "owner": { "id": 8, "login": owner }, "name": name, "permissions": null })
}

async fn count(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

async fn answer(server: &MockServer, template: ResponseTemplate) {
    server.reset().await;
    Mock::given(wiremock::matchers::any()).respond_with(template).mount(server).await;
}

// ---------------------------------------------------------------- redirects

async fn renamed_to_gadget(server: &MockServer, status: u16) {
    Mock::given(wiremock::matchers::path_regex("^/api/v1/repos/acme/widget"))
        .respond_with(
            ResponseTemplate::new(status)
                // Where a redirect points must not matter.
                .insert_header("Location", "/api/v1/repos/evil/trap")
                .set_body_string("<a href=\"/api/v1/repos/acme/gadget\">Moved</a>."),
        )
        .mount(server)
        .await;
    Mock::given(method("GET"))
        .and(path("/api/v1/repositories/1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(repository(1, "acme", "gadget")))
        .mount(server)
        .await;
}

#[tokio::test]
async fn a_comment_on_a_renamed_repository_stays_a_post_with_its_body() {
    for status in [301, 302, 307, 308] {
        let server = MockServer::start().await;
        renamed_to_gadget(&server, status).await;
        Mock::given(method("POST"))
            .and(path("/api/v1/repos/acme/gadget/issues/1/comments"))
            .respond_with(ResponseTemplate::new(201).set_body_json(comment(7, "hello")))
            .mount(&server)
            .await;
        let made = forge_at(&server.uri()).repo_ref(&widget()).issue(1).create_comment("hello").await.unwrap();
        assert_eq!(made.id, 7);
        let asked: Vec<(String, String, String)> = server
            .received_requests()
            .await
            .unwrap()
            .iter()
            .map(|r| (r.method.to_string(), r.url.path().to_owned(), String::from_utf8(r.body.clone()).unwrap()))
            .collect();
        let post = |place: &str| {
            let path = format!("/api/v1/repos/acme/{place}/issues/1/comments");
            ("POST".to_owned(), path, r#"{"body":"hello"}"#.to_owned())
        };
        let look = ("GET".to_owned(), "/api/v1/repositories/1".to_owned(), String::new());
        assert_eq!(asked, [post("widget"), look, post("gadget")], "{status}");
    }
}

#[tokio::test]
async fn an_attachment_goes_whole_to_the_new_name() {
    let server = MockServer::start().await;
    renamed_to_gadget(&server, 301).await;
    Mock::given(method("POST"))
        .and(path("/api/v1/repos/acme/gadget/issues/comments/8/assets"))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({ "id": 1, "name": "n.md" })))
        .mount(&server)
        .await;
    let content = b"---\r\n\x00\xff".to_vec();
    let name = "a \"b\"; filename=\"c\r\nX-Evil: 1\".md";
    forge_at(&server.uri()).repo_ref(&widget()).comment(8).attach(name, content.clone()).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let last = requests.last().unwrap();
    assert!(last.body.windows(content.len()).any(|part| part == content));
    let text = String::from_utf8_lossy(&last.body).into_owned();
    assert!(text.contains("name=\"attachment\""), "{text}");
    assert!(!text.contains("\r\nX-Evil"), "a file name makes no header: {text}");
}

#[tokio::test]
async fn a_repository_that_moves_in_a_circle_is_asked_for_only_once_more() {
    let server = MockServer::start().await;
    renamed_to_gadget(&server, 301).await;
    Mock::given(path("/api/v1/repos/acme/gadget/issues/1/comments"))
        .respond_with(ResponseTemplate::new(301).insert_header("Location", "/api/v1/repos/acme/widget"))
        .mount(&server)
        .await;
    let error = forge_at(&server.uri()).repo_ref(&widget()).issue(1).create_comment("hello").await.unwrap_err();
    assert!(matches!(error, ForgeError::Moved { status: 301, .. }), "{error:?}");
    assert!(!error.may_have_happened() && !error.is_transient());
    assert_eq!(count(&server).await, 3);
}

#[tokio::test]
async fn a_moved_repository_without_its_number_or_a_moved_account_is_an_error() {
    let server = MockServer::start().await;
    renamed_to_gadget(&server, 301).await;
    let error = forge_at(&server.uri()).repo("acme", "widget").issue(1).create_comment("x").await.unwrap_err();
    assert!(matches!(error, ForgeError::Moved { .. }), "{error:?}");
    assert_eq!(count(&server).await, 1);

    // 307 for a renamed person: the repository is where it was.
    server.reset().await;
    Mock::given(path("/api/v1/repositories/1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(repository(1, "acme", "widget")))
        .mount(&server)
        .await;
    Mock::given(wiremock::matchers::path_regex("collaborators|users"))
        .respond_with(ResponseTemplate::new(307).insert_header("Location", "/elsewhere"))
        .mount(&server)
        .await;
    let forge = forge_at(&server.uri());
    let error = forge.repo_ref(&widget()).permission("formerly").await.unwrap_err();
    assert!(matches!(error, ForgeError::Moved { status: 307, .. }), "{error:?}");
    assert_eq!(count(&server).await, 2, "not asked again under the same name");
    assert!(matches!(forge.user("formerly").await, Err(ForgeError::Moved { .. })));
}

#[tokio::test]
async fn another_repository_under_the_old_name_is_not_taken_for_ours() {
    let server = MockServer::start().await;
    answer(&server, ResponseTemplate::new(200).set_body_json(issue(1, 99))).await;
    let forge = forge_at(&server.uri());
    let error = forge.repo_ref(&widget()).issue(1).get().await.unwrap_err();
    assert!(matches!(error, ForgeError::Moved { .. }), "{error:?}");
    answer(&server, ResponseTemplate::new(200).set_body_json(json!([issue(1, 99)]))).await;
    let listed: Result<Vec<IssueSnapshot>, _> =
        forge.repo_ref(&widget()).issues(IssueQuery::default()).try_collect().await;
    assert!(matches!(listed, Err(ForgeError::Moved { .. })), "{listed:?}");
}

#[tokio::test]
async fn a_renamed_account_or_organisation_is_named_and_is_nothing_by_its_old_name() {
    let server = MockServer::start().await;
    let moved = |to: &str| ResponseTemplate::new(307).insert_header("Location", to);
    for (at, answer) in [
        ("/api/v1/users/ada", moved("/api/v1/users/ada%2D2")),
        ("/api/v1/users/ada-2", ResponseTemplate::new(200).set_body_json(json!({ "id": 7, "login": "ada-2" }))),
        ("/api/v1/orgs/acme", moved("/api/v1/orgs/emca?x=1")),
        (
            "/api/v1/orgs/emca",
            ResponseTemplate::new(200).set_body_json(json!({ "id": 9, "name": "emca", "username": "emca" })),
        ),
        ("/api/v1/users/circle", moved("/api/v1/users/circle")),
        ("/api/v1/users/login", moved("/user/login")),
        ("/api/v1/users/abroad", moved("http://127.0.0.1:9/api/v1/users/ada-2")),
    ] {
        Mock::given(path(at)).respond_with(answer).mount(&server).await;
    }
    let forge = forge_at(&server.uri());
    assert_eq!(forge.account("ada").await.unwrap(), Named::Renamed { id: 7, to: "ada-2".into() });
    assert!(matches!(forge.account("ada-2").await.unwrap(), Named::Is(user) if user.id == 7));
    assert_eq!(forge.organisation("acme").await.unwrap(), Named::Renamed { id: 9, to: "emca".into() });
    assert!(matches!(forge.organisation("emca").await.unwrap(), Named::Is(found) if found.id == 9));
    for elsewhere in ["circle", "login", "abroad"] {
        let error = forge.account(elsewhere).await.unwrap_err();
        assert!(matches!(error, ForgeError::Moved { .. }), "{elsewhere}: {error:?}");
    }
    // Where the whole forge is elsewhere the message says where.
    let said = forge.account("login").await.unwrap_err().to_string();
    assert!(said.contains("/user/login") && said.contains("forge.url"), "{said}");
    assert!(matches!(forge.account("nobody").await.unwrap(), Named::Nothing));
}

#[tokio::test]
async fn who_would_act_on_it_looks_twice_before_a_thing_is_not_there() {
    let server = MockServer::start().await;
    let careful = forge_with(&server.uri(), |options| options.look_twice = Some(Duration::from_millis(10)));
    let user = ResponseTemplate::new(200).set_body_json(json!({ "id": 6, "login": "lazarus" }));
    fails_first(&server, 1, ResponseTemplate::new(404), user.clone()).await;
    assert_eq!(careful.user("lazarus").await.unwrap().unwrap().id, 6);
    fails_first(&server, 2, ResponseTemplate::new(404), user.clone()).await;
    assert_eq!(careful.user("lazarus").await.unwrap(), None);
    assert_eq!(count(&server).await, 2);
    // What is not there any more needs no second look to be gone.
    fails_first(&server, 1, ResponseTemplate::new(404), user.clone()).await;
    assert!(!careful.repo("acme", "widget").delete_label(1).await.unwrap());
    assert_eq!(count(&server).await, 1);

    // A redirect of a repository that is where it was.
    server.reset().await;
    let asked = AtomicUsize::new(0);
    Mock::given(path("/api/v1/repositories/1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(repository(1, "acme", "widget")))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/repos/acme/widget/issues/1"))
        .respond_with(move |_: &Request| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => ResponseTemplate::new(301),
            _ => ResponseTemplate::new(200).set_body_json(issue(1, 1)),
        })
        .mount(&server)
        .await;
    assert!(careful.repo_ref(&widget()).issue(1).get().await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_proxy_says_of_a_request_is_said_with_what_to_do() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    answer(&server, ResponseTemplate::new(413).set_body_string("<html>")).await;
    let error = forge.repo_ref(&widget()).comment(1).attach("a.md", "x").await.unwrap_err();
    assert!(error.to_string().contains("client_max_body_size"), "{error}");
    assert_eq!(error.failure(), Failure::Lasting);
    answer(&server, ResponseTemplate::new(408)).await;
    assert!(forge.current_user().await.unwrap_err().is_transient());
    let home = ResponseTemplate::new(301).insert_header("Location", "https://git.example.org/api/v1/user?token=x");
    answer(&server, home).await;
    let said = forge.current_user().await.unwrap_err().to_string();
    assert!(said.contains("https://git.example.org/api/v1/user") && said.contains("forge.url"), "{said}");
    assert!(!said.contains("token=x"), "{said}");
}

// ------------------------------------------------------------------ retries

/// Fails as often as told, then answers.
async fn fails_first(server: &MockServer, failures: usize, failure: ResponseTemplate, good: ResponseTemplate) {
    server.reset().await;
    let asked = AtomicUsize::new(0);
    Mock::given(wiremock::matchers::any())
        .respond_with(
            move |_: &Request| {
                if asked.fetch_add(1, Ordering::SeqCst) < failures { failure.clone() } else { good.clone() }
            },
        )
        .mount(server)
        .await;
}

#[tokio::test]
async fn a_reading_call_is_tried_three_times_and_then_given_up() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let user = ResponseTemplate::new(200).set_body_json(json!({ "id": 6, "login": "lazarus" }));
    for failure in [
        ResponseTemplate::new(500),
        ResponseTemplate::new(502).set_body_string("<html>"),
        ResponseTemplate::new(503),
        ResponseTemplate::new(429),
    ] {
        fails_first(&server, 2, failure.clone(), user.clone()).await;
        assert_eq!(forge.current_user().await.unwrap().id, 6);
        assert_eq!(count(&server).await, 3);
        fails_first(&server, 3, failure, user.clone()).await;
        assert!(forge.current_user().await.unwrap_err().is_transient());
        assert_eq!(count(&server).await, 3);
    }
    for status in [400, 401, 403, 404, 409, 410, 418, 422, 423] {
        answer(&server, ResponseTemplate::new(status)).await;
        assert!(!forge.current_user().await.unwrap_err().is_transient(), "{status}");
        assert_eq!(count(&server).await, 1, "{status} is not tried again");
    }
}

#[tokio::test]
async fn nothing_that_would_be_there_twice_is_sent_twice() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let repo = forge.repo_ref(&widget());
    for status in [429, 500, 502, 503, 504] {
        let failure = || async {
            answer(&server, ResponseTemplate::new(status)).await;
        };
        let posts = |requests: Vec<Request>| requests.iter().filter(|r| r.method.as_str() != "GET").count();

        failure().await;
        let error = repo.issue(1).create_comment("x").await.unwrap_err();
        assert_eq!(error.may_have_happened(), status >= 500, "{status}");
        assert!(error.is_transient());
        assert_eq!(posts(server.received_requests().await.unwrap()), 1, "a comment, {status}");

        failure().await;
        repo.create_issue("t", "b").await.unwrap_err();
        repo.create_label(NewLabel::default()).await.unwrap_err();
        repo.issue(1).add_labels(&[1]).await.unwrap_err();
        repo.issue(1).edit(Some("t"), None).await.unwrap_err();
        repo.comment(1).attach("a.md", "x").await.unwrap_err();
        repo.put_file("a", b"x", "m", None, None).await.unwrap_err();
        repo.put_file("a", b"x", "m", Some("sha"), None).await.unwrap_err();
        repo.test_hook(1).await.unwrap_err();
        let pull = NewPull { head: "h".into(), base: "b".into(), title: "t".into(), body: String::new() };
        repo.create_pull(pull).await.unwrap_err();
        let hook = NewHook {
            url: "http://x/webhook".into(),
            secret: SecretString::from("s"),
            events: vec!["issues".into()],
            content_type: lazarus_gitea::HookContentType::Json,
        };
        repo.create_hook(hook).await.unwrap_err();
        forge.request("POST".parse().unwrap(), "/user/keys", Some(&json!({}))).await.unwrap_err();
        assert_eq!(posts(server.received_requests().await.unwrap()), 11, "one each, {status}");
    }
}

#[tokio::test]
async fn what_does_no_harm_twice_is_tried_again() {
    let server = MockServer::start().await;
    let repo = forge_at(&server.uri()).repo_ref(&widget());
    let down = ResponseTemplate::new(503);
    let good = ResponseTemplate::new(201);
    fails_first(&server, 1, down.clone(), good.clone().set_body_json(json!({}))).await;
    assert!(repo.comment(5).react("eyes").await.unwrap());
    assert_eq!(count(&server).await, 2);

    fails_first(&server, 1, down.clone(), good.clone().set_body_json(comment(5, "new"))).await;
    assert_eq!(repo.comment(5).edit("new").await.unwrap().body, "new");

    fails_first(&server, 1, down.clone(), good.set_body_json(issue(1, 1))).await;
    assert!(repo.issue(1).set_state(true).await.unwrap().open);

    // The first try did its work and its answer was lost.
    fails_first(&server, 1, down, ResponseTemplate::new(404)).await;
    assert!(repo.delete_hook(1).await.unwrap());
    assert_eq!(count(&server).await, 2);
    answer(&server, ResponseTemplate::new(404)).await;
    assert!(!repo.delete_hook(1).await.unwrap(), "nothing was there to begin with");
    assert!(!repo.issue(1).delete().await.unwrap());
    assert!(!repo.comment(1).delete().await.unwrap());
    assert!(!repo.issue(1).remove_label(1).await.unwrap());
}

#[tokio::test]
async fn retry_after_is_waited_for_when_short_and_handed_up_when_long() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let user = ResponseTemplate::new(200).set_body_json(json!({ "id": 6, "login": "lazarus" }));
    let busy = |wait: &str| ResponseTemplate::new(429).insert_header("Retry-After", wait);
    fails_first(&server, 1, busy("1"), user.clone()).await;
    let begin = Instant::now();
    forge.current_user().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));

    fails_first(&server, 1, busy("3600"), user).await;
    let begin = Instant::now();
    let error = forge.current_user().await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
    assert_eq!(count(&server).await, 1);
    assert!(error.to_string().contains("3600 s"), "{error}");

    answer(&server, busy("2")).await;
    let error = forge.repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    assert_eq!(count(&server).await, 1);
}

#[tokio::test]
async fn a_500_for_an_issue_that_is_there_stays_a_failure_that_may_have_happened() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/api/v1/repos/acme/widget/issues/1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(issue(1, 1)))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/repos/acme/widget/issues/1/comments"))
        .respond_with(ResponseTemplate::new(500).set_body_json(json!({ "message": "", "url": "" })))
        .mount(&server)
        .await;
    let issue = forge_at(&server.uri()).repo_ref(&widget()).issue(1);
    let error = issue.create_comment("x").await.unwrap_err();
    assert!(matches!(error, ForgeError::Server { status: 500, .. }) && error.may_have_happened(), "{error:?}");
    assert!(matches!(issue.comments().await, Err(ForgeError::Server { .. })));
}

// ----------------------------------------------------------- broken answers

/// A server that says these bytes to every connection and hangs up, or stays
/// silent. Counts the connections that sent it something.
async fn says(bytes: Vec<u8>, hang_up: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (bytes, counter) = (bytes.clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                if socket.read(&mut request).await.unwrap_or(0) > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                let _ = socket.write_all(&bytes).await;
                if !hang_up {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_may_have_done_it_and_is_not_repeated() {
    let head =
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"id\":".to_vec();
    for bytes in [Vec::new(), b"HTTP/1.1 201 Cre".to_vec(), head, b"garbage, not HTTP\r\n\r\n".to_vec()] {
        let (url, asked) = says(bytes.clone(), true).await;
        let error = forge_at(&url).repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
        assert!(matches!(error, ForgeError::Interrupted { .. }), "{error:?}");
        assert!(error.may_have_happened() && error.is_transient());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{}", String::from_utf8_lossy(&bytes));
        let (url, asked) = says(bytes, true).await;
        forge_at(&url).version().await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 3, "a reading call is tried again");
    }
}

#[tokio::test]
async fn a_slow_answer_ends_at_the_limit() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_vec();
    for bytes in [Vec::new(), half] {
        let (url, asked) = says(bytes, false).await;
        let forge = forge_with(&url, |options| options.timeout = Duration::from_millis(300));
        let begin = Instant::now();
        let error = forge.repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
        assert!(matches!(error, ForgeError::Timeout { .. }), "{error:?}");
        assert!(error.may_have_happened() && begin.elapsed() < Duration::from_secs(3));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_forge_that_speaks_no_tls_at_its_https_address_is_no_connection() {
    let (url, _) = says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true).await;
    let url = url.replace("http:", "https:");
    match Forge::new(ForgeOptions::new(url, SecretString::from(TOKEN))) {
        Ok(forge) => {
            let error = forge.repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
            assert!(matches!(error, ForgeError::Connect { .. }), "{error:?}");
            assert!(!error.may_have_happened());
        }
        // A host without any certificates says so at once.
        Err(error) => assert!(error.to_string().contains("certificates"), "{error}"),
    }
}

#[tokio::test]
async fn without_a_connection_nothing_can_have_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = forge_at(&url).repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
    assert!(matches!(error, ForgeError::Connect { .. }), "{error:?}");
    assert!(error.is_transient() && !error.may_have_happened());
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_limit() {
    // With and without a length that says so.
    let server = MockServer::start().await;
    answer(&server, ResponseTemplate::new(200).set_body_raw(vec![b' '; 200_000], "application/json")).await;
    let small = |options: &mut ForgeOptions| options.max_response_bytes = 100_000;
    let error = forge_with(&server.uri(), small).version().await.unwrap_err();
    assert!(matches!(error, ForgeError::TooLarge { limit: 100_000, .. }), "{error:?}");
    assert_eq!(count(&server).await, 1);

    let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    bytes.resize(1_000_000, b'[');
    let (url, _) = says(bytes.clone(), true).await;
    let error = forge_with(&url, small).version().await.unwrap_err();
    assert!(matches!(error, ForgeError::TooLarge { .. }), "{error:?}");

    // A long error is read as far as it is of use.
    bytes.splice(9..12, *b"403");
    let (url, _) = says(bytes, true).await;
    let error = forge_with(&url, small).version().await.unwrap_err();
    assert!(matches!(error, ForgeError::Forbidden { .. }), "{error:?}");
}

#[tokio::test]
async fn garbage_with_a_good_status_is_an_error_that_may_have_happened() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let deep = "[".repeat(100_000);
    for body in ["", "null", "<html>", "{}", "[]", "{\"version\":7}", "{\"version\":\"1", deep.as_str()] {
        answer(&server, ResponseTemplate::new(200).set_body_string(body)).await;
        let error = forge.version().await.unwrap_err();
        assert!(matches!(error, ForgeError::Garbage { status: 200, .. }), "{body:.20}: {error:?}");
        assert!(error.may_have_happened());
        assert!(error.to_string().len() < 500);
        forge.repo("a", "b").issue(1).create_comment("x").await.unwrap_err();
    }
    // The forge replaces invalid UTF-8; so do we where it does not.
    let mut body = br#"{"version":"1.25.4 "}"#.to_vec();
    body[18] = 0xff;
    answer(&server, ResponseTemplate::new(200).set_body_bytes(body)).await;
    assert_eq!(forge.version().await.unwrap().raw, "1.25.4\u{fffd}");
}

#[tokio::test]
async fn null_is_an_empty_list_and_a_missing_account_a_ghost() {
    let server = MockServer::start().await;
    answer(&server, ResponseTemplate::new(200).set_body_string("null\n")).await;
    let forge = forge_at(&server.uri());
    let repo = forge.repo_ref(&widget());
    assert!(repo.labels().await.unwrap().is_empty());
    assert!(repo.hooks().await.unwrap().is_empty());
    assert!(repo.teams().await.unwrap().is_empty());
    assert!(repo.issue_templates().await.unwrap().is_empty());
    assert!(repo.issue(1).comments().await.unwrap().is_empty());
    assert!(repo.issue(1).add_labels(&[1]).await.unwrap().is_empty());
    assert!(repo.comment(1).reactions().await.unwrap().is_empty());
    assert!(forge.org_teams("acme").await.unwrap().is_empty());
    assert!(repo.issue(1).timeline().next().await.is_none());
    assert!(repo.comments_since(None).next().await.is_none());
    assert!(repo.issues(IssueQuery::default()).next().await.is_none());

    let mut ghost = comment(3, "x");
    ghost["user"] = Value::Null;
    ghost["body"] = Value::Null;
    answer(&server, ResponseTemplate::new(200).set_body_json(json!([ghost]))).await;
    let comments = repo.issue(1).comments().await.unwrap();
    assert_eq!((comments[0].author.id, comments[0].body.as_str()), (-1, ""));
}

// -------------------------------------------------------------------- pages

#[tokio::test]
async fn lists_are_read_to_their_last_page_with_page_and_limit_given() {
    let server = MockServer::start().await;
    for page in 1..=3_i64 {
        let ids = ((page - 1) * 50 + 1)..=(page * 50).min(120);
        let comments: Vec<Value> = ids.map(|id| comment(id, "x")).collect();
        Mock::given(path("/api/v1/repos/acme/widget/issues/comments"))
            .and(query_param("page", page.to_string()))
            .and(query_param("limit", "50"))
            .respond_with(ResponseTemplate::new(200).set_body_json(comments).insert_header("X-Total-Count", "120"))
            .mount(&server)
            .await;
    }
    let repo = forge_at(&server.uri()).repo_ref(&widget());
    let comments: Vec<(i64, CommentSnapshot)> = repo.comments_since(None).try_collect().await.unwrap();
    let ids: Vec<i64> = comments.iter().map(|(_, comment)| comment.id).collect();
    assert_eq!(ids, (1..=120).collect::<Vec<_>>());
    assert_eq!(count(&server).await, 3, "no page is asked for beyond the last");
}

#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_in_smaller_ones_and_a_monster_is_passed_over() {
    let server = MockServer::start().await;
    // The thirtieth is more than is read of one answer; of the others, fifty are.
    let words = |id: i64| "x".repeat(if id == 30 { 200_000 } else { 3_000 });
    let all: Vec<Value> = (1..=60).map(|id| comment(id, &words(id))).collect();
    Mock::given(method("GET"))
        .and(path("/api/v1/repos/acme/widget/issues/comments"))
        .respond_with(move |request: &Request| {
            let of =
                |name: &str| request.url.query_pairs().find(|(n, _)| n == name).unwrap().1.parse::<usize>().unwrap();
            let (page, limit) = (of("page"), of("limit"));
            let some: Vec<&Value> = all.iter().skip((page - 1) * limit).take(limit).collect();
            ResponseTemplate::new(200).set_body_json(some).insert_header("x-total-count", "60")
        })
        .mount(&server)
        .await;
    let forge = forge_with(&server.uri(), |options| options.max_response_bytes = 100_000);
    let read: Vec<(i64, CommentSnapshot)> =
        forge.repo("acme", "widget").comments_since(None).try_collect().await.unwrap();
    let ids: Vec<i64> = read.iter().map(|(_, comment)| comment.id).collect();
    let others: Vec<i64> = (1..=60).filter(|id| *id != 30).collect();
    assert_eq!(ids, others);
}

#[tokio::test]
async fn the_timeline_goes_on_until_a_page_is_empty_whatever_the_count_says() {
    let server = MockServer::start().await;
    for page in 1..=3_i64 {
        let events: Vec<Value> = if page == 3 {
            Vec::new()
        } else {
            vec![json!({
                "id": page, "type": "label", "user": null, "body": "", "label": { "id": 2, "name": "l" },
                "created_at": "2026-11-20T23:29:31Z", "updated_at": "2026-11-20T23:29:31Z",
            })]
        };
        Mock::given(path("/api/v1/repos/acme/widget/issues/1/timeline"))
            .and(query_param("page", page.to_string()))
            .respond_with(ResponseTemplate::new(200).set_body_json(events).insert_header("X-Total-Count", "1"))
            .mount(&server)
            .await;
    }
    let repo = forge_at(&server.uri()).repo_ref(&widget());
    let events: Vec<TimelineEvent> = repo.issue(1).timeline().try_collect().await.unwrap();
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2]);
    let (label, added) = events[0].label_added().unwrap();
    assert!(label.id == 2 && !added);
}

#[tokio::test]
async fn a_server_that_ignores_the_page_is_not_read_for_ever() {
    let server = MockServer::start().await;
    answer(&server, ResponseTemplate::new(200).set_body_json(json!([comment(1, "x")]))).await;
    let repo = forge_at(&server.uri()).repo_ref(&widget());
    let read: Vec<Result<(i64, CommentSnapshot), ForgeError>> = repo.comments_since(None).collect().await;
    assert!(matches!(read.last(), Some(Err(ForgeError::Garbage { .. }))), "{read:?}");
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn issues_are_asked_for_without_pull_requests_in_whole_seconds() {
    let server = MockServer::start().await;
    answer(&server, ResponseTemplate::new(200).set_body_json(json!([issue(3, 1)])).insert_header("X-Total-Count", "1"))
        .await;
    let query = IssueQuery { since: Some("2026-11-20T23:29:31.9Z".parse().unwrap()), state: IssueState::Closed };
    let issues: Vec<IssueSnapshot> =
        forge_at(&server.uri()).repo_ref(&widget()).issues(query).try_collect().await.unwrap();
    assert_eq!(issues[0].number, 3);
    let requests = server.received_requests().await.unwrap();
    let asked: Vec<(String, String)> = requests[0].url.query_pairs().into_owned().collect();
    for (key, value) in
        [("type", "issues"), ("state", "closed"), ("since", "2026-11-20T23:29:31Z"), ("page", "1"), ("limit", "50")]
    {
        assert!(asked.contains(&(key.to_owned(), value.to_owned())), "{key}={value} in {asked:?}");
    }
}

// ------------------------------------------------- calls without a recording

#[tokio::test]
async fn accounts_repositories_and_teams_are_found_by_number() {
    let server = MockServer::start().await;
    Mock::given(path("/api/v1/users/search"))
        .and(query_param("uid", "3"))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({ "ok": true, "data": [{ "id": 3, "login": "writer" }] })),
        )
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/users/search"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "ok": true, "data": null })))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/repositories/1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(repository(1, "acme", "gadget")))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/teams/2/members/writer"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "id": 3, "login": "writer" })))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/orgs/acme/teams"))
        .and(query_param("page", "1"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(json!([
                    { "id": 2, "name": "builders", "permission": "none", "units_map": { "repo.code": "write" } }
                ]))
                .insert_header("X-Total-Count", "1"),
        )
        .mount(&server)
        .await;
    let forge = forge_at(&server.uri());
    assert_eq!(forge.user_by_id(3).await.unwrap().unwrap().login, "writer");
    assert_eq!(forge.user_by_id(4).await.unwrap(), None);
    let asked = count(&server).await;
    assert_eq!(forge.user_by_id(-1).await.unwrap(), None);
    assert_eq!(count(&server).await, asked, "the search would list everybody");
    assert_eq!(forge.repository_by_id(1).await.unwrap().unwrap().reference().full_name(), "acme/gadget");
    assert_eq!(forge.repository_by_id(2).await.unwrap(), None);
    assert_eq!(forge.team_member(2, "writer").await.unwrap().map(|user| user.id), Some(3));
    assert_eq!(forge.team_member(2, "reader").await.unwrap(), None);
    assert_eq!(forge.org_teams("acme").await.unwrap()[0].access("repo.code"), Access::Write);
}

#[tokio::test]
async fn a_file_is_read_and_replaced_by_its_blob() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    let repo = forge.repo_ref(&widget());
    let file = json!({ "sha": "abc", "encoding": "base64", "content": "aGVs\nbG8K" });
    answer(&server, ResponseTemplate::new(200).set_body_json(file)).await;
    let read = repo.file(".gitea/ISSUE_TEMPLATE/a.yaml").await.unwrap().unwrap();
    assert_eq!((read.sha.as_str(), read.content.as_slice()), ("abc", &b"hello\n"[..]));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.path(), "/api/v1/repos/acme/widget/contents/.gitea%2FISSUE_TEMPLATE%2Fa.yaml");
    for strange in [
        json!([]),
        json!({ "sha": "a", "encoding": null, "content": null }),
        json!({ "sha": "a", "encoding": "base64", "content": "*" }),
    ] {
        answer(&server, ResponseTemplate::new(200).set_body_json(&strange)).await;
        assert!(matches!(repo.file("x").await, Err(ForgeError::Garbage { .. })), "{strange}");
    }
    answer(&server, ResponseTemplate::new(404)).await;
    assert_eq!(repo.file("x").await.unwrap(), None);

    let written = json!({ "content": { "sha": "new" }, "commit": { "sha": "c0ffee" } });
    answer(&server, ResponseTemplate::new(200).set_body_json(written)).await;
    let written = repo.put_file("x", b"hello\n", "m", Some("abc"), Some("main")).await.unwrap();
    assert_eq!((written.sha.as_str(), written.commit.as_str()), ("new", "c0ffee"));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].method.as_str(), "PUT");
    let sent: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(sent, json!({ "content": "aGVsbG8K", "message": "m", "sha": "abc", "branch": "main" }));
}

// ------------------------------------------------------- what must not leak

#[tokio::test]
async fn a_hostile_name_never_leaves_its_place_in_the_path() {
    let server = MockServer::start().await;
    let forge = forge_at(&server.uri());
    for name in ["", ".", ".."] {
        assert!(matches!(forge.repo("acme", name).get().await, Err(ForgeError::BadName { .. })), "{name:?}");
        assert!(matches!(forge.user(name).await, Err(ForgeError::BadName { .. })));
        assert!(matches!(forge.repo("acme", "widget").permission(name).await, Err(ForgeError::BadName { .. })));
    }
    for raw in ["user", "/../admin", "/repos/%2e%2E/x", "/a/./b", ""] {
        let refused = forge.request("GET".parse().unwrap(), raw, None).await;
        assert!(matches!(refused, Err(ForgeError::BadName { .. })), "{raw:?}");
    }
    assert_eq!(count(&server).await, 0);
    for name in ["../../admin/users", "a/b", "%2e%2e", "a?b=c", "a#b", "a\nb", "a\0b", "ü", "..\\.."] {
        server.reset().await;
        assert_eq!(forge.user(name).await.unwrap(), None);
        let requests = server.received_requests().await.unwrap();
        let place = requests[0].url.path().strip_prefix("/api/v1/users/").unwrap();
        assert!(!place.contains('/') && requests[0].url.query().is_none(), "{name:?} became {place}");
    }
}

#[tokio::test]
async fn the_token_is_in_no_error_even_if_a_proxy_repeats_it() {
    let server = MockServer::start().await;
    for status in [401, 403, 422, 423, 500, 418] {
        let echo = json!({ "message": format!("you sent token {TOKEN}\u{1b}[31m") });
        answer(&server, ResponseTemplate::new(status).set_body_json(echo)).await;
        let error = forge_at(&server.uri()).current_user().await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("GET /user"), "{text}");
        assert!(!text.contains(TOKEN) && !text.contains('\u{1b}'), "{text}");
    }
    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| !request.url.as_str().contains(TOKEN)));
}

#[test]
fn an_address_or_token_that_cannot_be_used_is_refused_with_the_reason() {
    for (url, token, why) in [
        ("git.example.org", "t", "URL"),
        ("ftp://git.example.org", "t", "http"),
        ("https://me:pw@git.example.org", "t", "name or password"),
        ("https://git.example.org/?token=x", "t", "query"),
        ("https://git.example.org", " \n", "empty"),
        ("https://git.example.org", "a\nb", "characters"),
    ] {
        let error = Forge::new(ForgeOptions::new(url, SecretString::from(token))).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

#[tokio::test]
async fn a_forge_below_a_path_and_a_token_with_a_line_end_are_fine() {
    let server = MockServer::start().await;
    Mock::given(path("/git/api/v1/version"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "version": "1.25.4" })))
        .mount(&server)
        .await;
    let options = ForgeOptions::new(format!("{}/git/", server.uri()), SecretString::from(format!("{TOKEN}\n")));
    assert_eq!(Forge::new(options).unwrap().version().await.unwrap().gitea, (1, 25, 4));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["authorization"], format!("token {TOKEN}").as_str());
}
