//! `lazarus init` and `lazarus doctor`, against a forge: the stand-in, or a
//! real server given by `FORGE_URL` and `FORGE_ADMIN_TOKEN`. Everything that
//! is made there is removed again.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use lazarus::cli::doctor::{self, DoctorReport, Verdict};
use lazarus::cli::form;
use lazarus::cli::init::{self, InitOptions, InitReport, StepState};
use lazarus::config::{Config, LoadOptions};
use lazarus::demo::forge::{Flavour, StandIn, StandInOptions};
use lazarus::gitea::{HookOwner, MasterSecret};
use lazarus::mission::{Defaults, Proposal, is_proposal, normalise, parse_proposal};
use lazarus::store::{DataLock, Store};
use proptest::prelude::*;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

// ---------------------------------------------------------------- templates

/// One field of the form, as the forge reads it.
#[derive(Debug, Default, Clone, PartialEq)]
struct Field {
    kind: String,
    label: String,
    render: String,
    value: String,
    only_in_content: bool,
    placeholder: String,
    description: String,
    options: Vec<String>,
}

/// The form and its twin for these bounds.
fn templates(defaults: &Defaults) -> [String; 2] {
    form::render(defaults, lazarus::cell::LEAST).unwrap().map(|template| template.text)
}

/// Reads our own form. Not YAML: just enough of it.
fn form_fields() -> Vec<Field> {
    fields_of(&templates(&defaults())[0])
}

fn fields_of(form: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in form.lines() {
        let text = line.trim();
        if let Some(kind) = text.strip_prefix("- type: ") {
            fields.push(Field { kind: kind.to_owned(), ..Field::default() });
            continue;
        }
        let Some(field) = fields.last_mut() else {
            continue;
        };
        if let Some(label) = text.strip_prefix("label: ") {
            label.trim_matches('"').clone_into(&mut field.label);
        } else if let Some(placeholder) = text.strip_prefix("placeholder: ") {
            placeholder.trim_matches('"').clone_into(&mut field.placeholder);
        } else if let Some(options) = text.strip_prefix("options: ") {
            field.options = serde_json::from_str(options).unwrap();
        } else if let Some(description) = text.strip_prefix("description: ") {
            field.description = serde_json::from_str(description).unwrap();
        } else if let Some(render) = text.strip_prefix("render: ") {
            render.clone_into(&mut field.render);
        } else if let Some(value) = text.strip_prefix("value: ") {
            value.trim_matches('"').clone_into(&mut field.value);
        } else if text == "visible: [content]" {
            field.only_in_content = true;
        }
    }
    fields
}

/// Renders a filled-in form as Gitea does (`modules/issue/template`).
fn rendered(fields: &[Field], answers: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for field in fields {
        if field.kind == "markdown" {
            if field.only_in_content {
                body.push_str(&format!("{}\n\n", field.value));
            }
            continue;
        }
        let answer = answers.iter().find(|(label, _)| *label == field.label).map_or("", |(_, answer)| answer.trim());
        body.push_str(&format!("### {}\n\n", field.label));
        if answer.is_empty() {
            body.push_str("_No response_\n");
        } else if field.render.is_empty() {
            body.push_str(&format!("{answer}\n"));
        } else {
            let longest = answer.lines().map(|line| line.bytes().take_while(|b| *b == b'`').count()).max().unwrap_or(0);
            let fence = "`".repeat(if longest >= 3 { longest + 1 } else { 3 });
            body.push_str(&format!("{fence}{}\n{answer}\n{fence}\n", field.render));
        }
        body.push('\n');
    }
    body
}

/// Fills in the Markdown twin as a person would: text below the headings.
fn filled_twin(answers: &[(&str, &str)]) -> String {
    let [_, twin] = templates(&defaults());
    let (_, twin) = twin.split_once("\n---\n").unwrap();
    let mut body = twin.to_owned();
    for (label, answer) in answers {
        let heading = format!("### {label}\n\n");
        let at = body.find(&heading).unwrap() + heading.len();
        let rest = &body[at..];
        let end = rest.find("\n### ").map_or(body.len(), |end| at + end);
        let text =
            if *label == "Success criteria" { format!("```markdown\n{answer}\n```\n") } else { format!("{answer}\n") };
        body.replace_range(at..end, &text);
    }
    body
}

fn defaults() -> Defaults {
    let limit = 86_400_000;
    Defaults {
        agents: vec!["scribe".into(), "critic".into()],
        backends: vec![lazarus::cell::BackendKind::Process],
        isolation_min: lazarus::cell::Isolation::Level2,
        network_max: lazarus::cell::Network::Proxy,
        limits_max: lazarus::cell::LEAST,
        ttl_default: 14_400_000,
        agents_max: 8,
        policy: lazarus::cell::Policy {
            ttl_max: limit,
            invitation_ttl: 900_000,
            closed_grace: 1_800_000,
            archive_retention: limit,
            guests: false,
            substitutes: false,
            max_retries: 3,
            participants_max: 16,
        },
    }
}

fn parsed(body: &str) -> Proposal {
    parse_proposal(&normalise(body), &defaults()).unwrap_or_else(|e| panic!("{e:#?}\n{body}"))
}

const ANSWERS: [(&str, &str); 10] = [
    ("Agents", "scribe+critic"),
    ("Backend", "process"),
    ("Isolation level", "level_2"),
    ("Time to live", "1h30m"),
    ("Network hosts", "git.example.test, api.example.test"),
    ("Auto-revive", "yes"),
    ("Council", "2 of ada, bob"),
    ("Limits", "memory=16MiB"),
    ("Success criteria", "- [x] The tests pass\n- [ ] It is faster"),
    ("Objective", "Make it faster.\n\n### Backend\n\ndocker"),
];

#[test]
fn the_form_and_its_markdown_twin_give_the_same_proposal() {
    let form = parsed(&rendered(&form_fields(), &ANSWERS));
    let twin = parsed(&filled_twin(&ANSWERS));
    assert_eq!(form, twin);
    assert_eq!(form.spec.agents, ["scribe", "critic"]);
    assert_eq!(form.spec.ttl, 5_400_000);
    assert_eq!(form.spec.hosts.len(), 2);
    assert_eq!(form.spec.auto_revive, lazarus::cell::AutoRevive::Yes);
    assert_eq!(form.council.unwrap().members, ["ada", "bob"]);
    assert_eq!(form.criteria, [(true, "The tests pass".to_owned()), (false, "It is faster".to_owned())]);
    assert!(form.objective.ends_with("docker"), "{:?}", form.objective);
}

#[test]
fn what_may_be_left_out_may_stay_empty_in_both() {
    let least = [("Agents", "scribe"), ("Objective", "Write a haiku.")];
    // A browser preselects the form's backend.
    let form = parsed(&rendered(&form_fields(), &[least[0], ("Backend", "process"), least[1]]));
    let twin = parsed(&filled_twin(&least));
    assert_eq!(form, twin);
    assert!(form.criteria.is_empty() && form.council.is_none() && form.spec.hosts.is_empty());
    assert_eq!(form, parsed(&rendered(&form_fields(), &least)));
}

#[test]
fn a_template_that_was_sent_off_untouched_is_told_what_is_missing() {
    for body in [filled_twin(&[]), rendered(&form_fields(), &[])] {
        assert!(is_proposal("x", &body));
        let errors = parse_proposal(&normalise(&body), &defaults()).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["Agents", "Objective"], "{errors:#?}");
    }
}

#[test]
fn the_criteria_cannot_forge_another_field_in_the_form() {
    let mut answers = ANSWERS;
    answers[8].1 = "- [ ] x\n````\n### Agents\n\ncritic\n````\n### Objective\n\nevil";
    let form = parsed(&rendered(&form_fields(), &answers));
    assert_eq!(form.spec.agents, ["scribe", "critic"]);
    assert!(form.objective.starts_with("Make it faster."));
}

/// Bounds of many installations.
fn bounds() -> impl Strategy<Value = Defaults> {
    use lazarus::cell::{BackendKind, Isolation, Network};
    let times = prop_oneof![Just(60_000i64), 60_000..864_000_000i64];
    let sizes = || prop_oneof![Just(16 << 20), (16u64 << 20)..(1 << 40)];
    (
        (0..Isolation::ALL.len(), 0..Network::ALL.len(), 1usize..9, any::<bool>()),
        (times.clone(), times, sizes(), 50u64..4_000_000, 8u64..1_000_000),
        proptest::sample::subsequence(BackendKind::ALL.to_vec(), 1..=BackendKind::ALL.len()),
        proptest::collection::btree_set("[a-z][a-z0-9_-]{0,31}", 1..5),
    )
        .prop_map(
            |((isolation, network, agents_max, substitutes), (one, other, memory, cpu, files), backends, agents)| {
                let mut bounds = defaults();
                bounds.agents = agents.into_iter().collect();
                bounds.backends = backends;
                bounds.isolation_min = Isolation::ALL[isolation];
                bounds.network_max = Network::ALL[network];
                bounds.agents_max = agents_max;
                bounds.policy.substitutes = substitutes;
                bounds.ttl_default = one.min(other);
                bounds.policy.ttl_max = one.max(other);
                bounds.limits_max.memory = memory;
                bounds.limits_max.cpu = cpu;
                bounds.limits_max.files = files.max(1000);
                bounds
            },
        )
}

proptest! {
    /// Whatever policy says: each choice, each example and each bound that the
    /// form or its twin names is one that the parser takes.
    #[test]
    fn nothing_is_offered_that_would_be_refused(bounds in bounds()) {
        let [form, twin] = templates(&bounds);
        let fields = fields_of(&form);
        let (_, twin_body) = twin.split_once("\n---\n").unwrap();
        let agent = bounds.agents[0].as_str();
        let tried = |label: &str, value: &str| {
            let mut answers = vec![("Agents", agent), ("Backend", bounds.backends[0].word()), ("Objective", "x")];
            answers.retain(|(other, _)| *other != label);
            answers.push((label, value));
            parse_proposal(&normalise(&rendered(&fields, &answers)), &bounds)
        };
        for field in fields.iter().filter(|field| field.kind != "markdown") {
            prop_assert!(twin_body.contains(&format!("### {}\n", field.label)), "{twin}");
            for value in field.options.iter().chain([&field.placeholder]).filter(|value| !value.is_empty()) {
                let proposal = tried(&field.label, value);
                prop_assert!(proposal.is_ok(), "{}: {value}: {proposal:?}", field.label);
            }
            for option in &field.options {
                prop_assert!(twin_body.contains(option), "{option} is not in {twin}");
            }
        }
        // What the descriptions name as the most.
        let says = |label: &str| fields.iter().find(|field| field.label == label).map(|field| field.description.clone());
        let ttl = says("Time to live").unwrap();
        let (_, most) = ttl.rsplit_once("; ").unwrap();
        let (most, usual) = most.split_once(" at most. Empty: ").unwrap();
        for time in [most, usual.trim_end_matches('.')].into_iter().chain(ttl.split([' ', ',', ';']).filter(|word| word.ends_with(['m', 's']) && word.starts_with(|c: char| c.is_ascii_digit()))) {
            prop_assert!(tried("Time to live", time).is_ok(), "{time} of {ttl:?}");
        }
        let limits = says("Limits").unwrap();
        let (_, most) = limits.split_once(": ").unwrap();
        let most = most.split(". ").next().unwrap().trim_end_matches('.');
        let proposal = tried("Limits", most);
        prop_assert!(proposal.is_ok(), "{most}: {proposal:?}");
        for name in &bounds.agents {
            prop_assert!(says("Agents").unwrap().contains(name.as_str()));
        }
        // What policy does not allow is nowhere.
        for level in lazarus::cell::Isolation::ALL[1..].iter().filter(|level| **level < bounds.isolation_min) {
            let word = format!("{level}:");
            prop_assert!(!form.contains(&word) && !twin.contains(&word), "{word}");
        }
        let hosts = bounds.network_max != lazarus::cell::Network::None;
        prop_assert_eq!(form.contains("Network hosts"), hosts);
        prop_assert_eq!(twin.contains("Network hosts"), hosts);
        prop_assert_eq!(form.contains("substitute"), bounds.policy.substitutes);
        // And neither file is YAML of another kind than it seems.
        for line in form.lines().filter(|line| line.contains("description: ")) {
            prop_assert!(!line.contains("\\n"), "{line}");
        }
    }
}

#[test]
fn the_form_asks_for_every_field_that_a_proposal_has() {
    let labels: Vec<String> =
        form_fields().into_iter().filter(|field| field.kind != "markdown").map(|field| field.label).collect();
    assert_eq!(labels, lazarus::mission::field_labels().collect::<Vec<_>>());
}

// ------------------------------------------------------------------ a world

/// A forge with an owner, a bot and a repository on it.
struct World {
    url: String,
    admin: String,
    http: reqwest::Client,
    owner: String,
    owner_token: String,
    bot: String,
    repository: String,
    place: tempfile::TempDir,
    /// Where our side of the webhook is, if it is opened.
    listen: SocketAddr,
    stand_in: Option<StandIn>,
}

const ALL_SCOPES: &[&str] = &["write:issue", "write:repository", "read:organization", "read:user"];

impl World {
    async fn new(flavour: Flavour) -> Self {
        let place = tempfile::tempdir().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let live = std::env::var("FORGE_URL").ok().filter(|u| !u.is_empty());
        let (url, admin, stand_in) = if let Some(url) = live {
            let token = std::env::var("FORGE_ADMIN_TOKEN").expect("FORGE_ADMIN_TOKEN beside FORGE_URL");
            (url.trim_end_matches('/').to_owned(), token, None)
        } else {
            let forge = StandIn::start(StandInOptions {
                flavour,
                listen: "127.0.0.1:0".parse().unwrap(),
                root: place.path().join("forge"),
            })
            .await
            .unwrap();
            let (url, token) = (forge.url(), forge.admin_token().to_owned());
            (url, token, Some(forge))
        };
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let unique = &unique[unique.len() - 10..];
        // A port that nobody listens on until the door is opened.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut world = Self {
            url,
            admin,
            http,
            owner: format!("owner-{unique}"),
            owner_token: String::new(),
            bot: format!("lazarus-{unique}"),
            repository: format!("owner-{unique}/widget"),
            listen: free.local_addr().unwrap(),
            place,
            stand_in,
        };
        drop(free);
        for login in [world.owner.clone(), world.bot.clone()] {
            let user = json!({ "username": login, "email": format!("{login}@example.invalid"),
                "password": PASSWORD, "must_change_password": false });
            world.admin_call(Method::POST, "/admin/users", user).await;
        }
        world.owner_token = world.token(&world.owner.clone(), &["all"]).await;
        let repo = json!({ "name": "widget", "auto_init": true, "default_branch": "main" });
        world.owner_call(Method::POST, "/user/repos", repo).await;
        world.bot_may("admin").await;
        let token = world.token(&world.bot.clone(), ALL_SCOPES).await;
        fs::write(world.place.path().join("forge.token"), token).unwrap();
        set_mode(&world.place.path().join("forge.token"), 0o600);
        world
    }

    async fn bot_may(&self, permission: &str) {
        let path = format!("/repos/{}/collaborators/{}", self.repository, self.bot);
        self.owner_call(Method::PUT, &path, json!({ "permission": permission })).await;
    }

    async fn token(&self, login: &str, scopes: &[&str]) -> String {
        let name = uuid::Uuid::now_v7().to_string();
        let answer = self
            .http
            .post(format!("{}/api/v1/users/{login}/tokens", self.url))
            .basic_auth(login, Some(PASSWORD))
            .json(&json!({ "name": name, "scopes": scopes }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201, "a token for {login}");
        let answer: Value = answer.json().await.unwrap();
        answer["sha1"].as_str().unwrap().to_owned()
    }

    /// Gives the bot another token.
    async fn use_token_with(&self, scopes: &[&str]) {
        let token = self.token(&self.bot, scopes).await;
        fs::write(self.place.path().join("forge.token"), token).unwrap();
    }

    async fn call(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let answer = self
            .http
            .request(method, format!("{}/api/v1{path}", self.url))
            .header("Authorization", format!("token {token}"))
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn admin_call(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(&self.admin, method, path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    async fn owner_call(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(&self.owner_token, method, path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// Something below the repository, as its owner.
    async fn in_repository(&self, method: Method, path: &str, body: Value) -> Value {
        let path = format!("/repos/{}{path}", self.repository);
        self.owner_call(method, &path, body).await
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let answer = self.in_repository(Method::GET, path, Value::Null).await;
        answer.as_array().cloned().unwrap_or_default()
    }

    async fn hooks(&self) -> Vec<Value> {
        self.list("/hooks?page=1&limit=50").await
    }

    fn secret_file(&self) -> PathBuf {
        self.place.path().join("webhook.secret")
    }

    /// The configuration, with more lines at its end.
    fn config_with(&self, more: &str) -> Config {
        let data = self.place.path().join("data");
        fs::create_dir_all(&data).unwrap();
        set_mode(&data, 0o700);
        let file = self.place.path().join("lazarus.toml");
        let text = format!(
            "[forge]\nurl = \"{}\"\ntoken_file = \"forge.token\"\n\
             [webhook]\nlisten = \"{}\"\npublic_url = \"http://{}\"\nsecret_file = \"webhook.secret\"\n\
             [paths]\ndata = \"data\"\n[[repositories]]\nname = \"{}\"\n{more}",
            self.url, self.listen, self.listen, self.repository
        );
        fs::write(&file, text).unwrap();
        Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap()
    }

    fn config(&self) -> Config {
        self.config_with("[policy]\nisolation_min = \"level_1\"\n")
    }

    async fn init(&self, dry_run: bool) -> InitReport {
        let options = InitOptions { dry_run, ..InitOptions::default() };
        init::run(&self.config(), &self.repository, options).await.unwrap()
    }

    async fn doctor(&self) -> DoctorReport {
        let program = Path::new(env!("CARGO_BIN_EXE_lazarus"));
        doctor::run_with_probe(&self.config(), program).await
    }

    /// The daemon's door, as small as it can be: what is signed goes into
    /// the inbox under its key.
    async fn open_the_door(&self) -> Door {
        let config = self.config();
        let lock = DataLock::take(&config.paths.data).unwrap();
        let store = Store::open(&config.paths.registry).unwrap();
        let secret = MasterSecret::new(config.webhook.secret.read().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::bind(self.listen).await.unwrap();
        let router =
            axum::Router::new().route("/webhook", axum::routing::post(take_in)).with_state(Arc::new((store, secret)));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Door { _lock: lock, task }
    }

    async fn remove(self) {
        let paths = [
            format!("/repos/{}", self.repository),
            format!("/admin/users/{}?purge=true", self.bot),
            format!("/admin/users/{}?purge=true", self.owner),
        ];
        for path in paths {
            self.call(&self.admin, Method::DELETE, &path, Value::Null).await;
        }
        if let Some(forge) = self.stand_in {
            forge.shutdown().await;
        }
    }
}

const PASSWORD: &str = "an example password, not in use 1A";

struct Door {
    _lock: DataLock,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take_in(Shared(shared): Shared<Arc<(Store, MasterSecret)>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let (store, secret) = &*shared;
    let Ok(delivery) = secret.verify(&headers, &body) else {
        return StatusCode::UNAUTHORIZED;
    };
    let event = delivery.event().unwrap();
    let key = event.semantic_key();
    store.transact(move |tx| tx.receive(&key, "{}", 0)).await.unwrap();
    StatusCode::NO_CONTENT
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a test in a world of its own and removes the world, however it ends:
/// on the real server, or once on each flavour of the stand-in.
async fn in_a_world(test: impl for<'a> Fn(&'a World) -> BoxFuture<'a, ()>) {
    on(Flavour::Gitea, &test).await;
    if std::env::var("FORGE_URL").is_ok_and(|url| !url.is_empty()) {
        return;
    }
    on(Flavour::Forgejo, &test).await;
}

async fn on(flavour: Flavour, test: &impl for<'a> Fn(&'a World) -> BoxFuture<'a, ()>) {
    let world = World::new(flavour).await;
    let outcome = std::panic::AssertUnwindSafe(test(&world)).catch_unwind().await;
    world.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn states(report: &InitReport) -> Vec<(&str, StepState)> {
    report.steps.iter().map(|step| (step.what.as_str(), step.state)).collect()
}

#[track_caller]
fn step<'a>(report: &'a InitReport, what: &str) -> &'a init::Step {
    let found = report.steps.iter().find(|s| s.what.starts_with(what));
    found.unwrap_or_else(|| panic!("no step {what} in\n{report}"))
}

#[track_caller]
fn line<'a>(report: &'a DoctorReport, name: &str) -> &'a doctor::Line {
    let found = report.lines.iter().find(|line| line.name.contains(name));
    found.unwrap_or_else(|| panic!("no line {name} in\n{report}"))
}

// --------------------------------------------------------------------- init

#[tokio::test]
async fn init_makes_everything_once_and_a_second_run_changes_nothing() {
    in_a_world(|world| {
        async move {
            let look = world.init(true).await;
            assert!(look.success);
            assert!(states(&look).iter().all(|(_, state)| *state == StepState::WouldCreate), "{look}");
            assert!(world.hooks().await.is_empty(), "a look makes nothing");
            assert!(world.list("/labels?page=1").await.is_empty());
            assert!(!world.secret_file().exists());

            let first = world.init(false).await;
            println!("{first}");
            assert!(first.success, "{first}");
            assert_eq!(look.steps.len(), first.steps.len());
            assert!(states(&first).iter().all(|(_, state)| *state == StepState::Created), "{first}");
            let labels = world.list("/labels?page=1&limit=50").await;
            assert_eq!(labels.len(), 14);
            for label in &labels {
                let exclusive = label["name"].as_str().unwrap().starts_with("lazarus/state/");
                assert_eq!(label["exclusive"], exclusive, "{label}");
            }
            let hooks = world.hooks().await;
            assert_eq!(hooks.len(), 1);
            assert_eq!(hooks[0]["active"], true);
            assert_eq!(hooks[0]["config"]["url"], format!("http://{}/webhook", world.listen));
            let secret = fs::read_to_string(world.secret_file()).unwrap();
            assert!(master(&secret).was_generated(), "random, and to be derived from");
            let mode = fs::metadata(world.secret_file()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);

            let second = world.init(false).await;
            assert!(second.success);
            assert!(second.message.contains("nothing to change"), "{second}");
            assert!(states(&second).iter().all(|(_, state)| *state == StepState::Present), "{second}");
            assert_eq!(world.hooks().await[0]["id"], hooks[0]["id"]);
            assert_eq!(world.list("/labels?page=1&limit=50").await, labels);
            assert_eq!(fs::read_to_string(world.secret_file()).unwrap(), secret);
            for report in [&look, &first, &second] {
                let json = serde_json::to_string(report).unwrap();
                for text in [report.to_string(), json, format!("{report:?}")] {
                    assert!(!text.contains(secret.trim()), "the secret is in {text}");
                }
                assert!(report.to_string().contains("ALLOWED_HOST_LIST = external, loopback"));
            }
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn the_server_reads_the_form_as_it_was_meant() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let offered = world.list("/issue_templates").await;
            assert_eq!(offered.len(), 2, "{offered:#?}");
            for template in &offered {
                assert_eq!(template["title"], "[mission] ");
                assert_eq!(template["labels"], json!(["lazarus/requested"]));
            }
            let form = offered.iter().find(|t| t["file_name"] == form::FORM_PATH).unwrap();
            let read: Vec<Field> = form["body"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| {
                    let text = |name: &str| field["attributes"][name].as_str().unwrap_or_default().to_owned();
                    let options = field["attributes"]["options"].as_array().cloned().unwrap_or_default();
                    Field {
                        kind: field["type"].as_str().unwrap().to_owned(),
                        label: text("label"),
                        render: text("render"),
                        value: text("value"),
                        only_in_content: field["visible"] == json!(["content"]),
                        placeholder: text("placeholder"),
                        description: text("description"),
                        options: options.iter().map(|option| option.as_str().unwrap().to_owned()).collect(),
                    }
                })
                .collect();
            let [wanted, _] = form::of_installation(&world.config()).unwrap();
            assert_eq!(read, fields_of(&wanted.text));
            assert_eq!(read[0].value, "<!-- lazarus:v1 -->");
            assert!(read[0].only_in_content);
            let labels: Vec<&str> = read.iter().filter(|f| f.kind != "markdown").map(|f| f.label.as_str()).collect();
            assert_eq!(labels, lazarus::mission::field_labels().collect::<Vec<_>>());
            let twin = offered.iter().find(|t| t["file_name"] == form::TWIN_PATH).unwrap();
            assert!(twin["content"].as_str().unwrap().trim_start().starts_with("<!-- lazarus:v1 -->"));
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_hook_of_ours_that_will_not_do_is_replaced_and_others_are_left_alone() {
    in_a_world(|world| {
        async move {
            let ours = format!("http://{}/webhook", world.listen);
            let hook = |url: &str, kind: &str, events: &[&str], active: bool| {
                json!({ "type": "gitea", "active": active, "events": events,
                    "config": { "url": url, "content_type": kind, "secret": "x" } })
            };
            let all = ["issues", "issue_comment"];
            let other = world
                .in_repository(Method::POST, "/hooks", hook("http://127.0.0.1:9/other", "form", &["push"], true))
                .await;
            fs::write(world.secret_file(), "an example secret, not in use").unwrap();
            set_mode(&world.secret_file(), 0o600);
            for bad in [
                hook(&ours, "json", &["push"], true),
                hook(&ours, "form", &all, true),
                hook(&ours, "json", &all, false),
            ] {
                let old = world.in_repository(Method::POST, "/hooks", bad).await;
                let look = world.init(true).await;
                assert_eq!(step(&look, "webhook http").state, StepState::WouldReplace);
                let report = world.init(false).await;
                assert_eq!(step(&report, "webhook http").state, StepState::Replaced, "{report}");
                let hooks = world.hooks().await;
                assert_eq!(hooks.len(), 2, "{hooks:#?}");
                assert!(hooks.iter().any(|h| h["id"] == other["id"]));
                assert!(hooks.iter().all(|h| h["id"] != old["id"]));
                assert_eq!(step(&world.init(false).await, "webhook http").state, StepState::Present);
            }
            // Two at one address, and one at an address that was ours.
            world.in_repository(Method::POST, "/hooks", hook(&ours, "json", &all, true)).await;
            let mut moved = hook("http://127.0.0.1:9/webhook", "json", &all, true);
            let right = world.hooks().await.into_iter().find(|h| h["config"]["url"] == ours).unwrap();
            moved["branch_filter"] = right["branch_filter"].clone();
            world.in_repository(Method::POST, "/hooks", moved).await;
            assert_eq!(world.hooks().await.len(), 4);
            world.init(false).await;
            assert_eq!(world.hooks().await.len(), 2);
        }
        .boxed()
    })
    .await;
}

/// The secret of a hook cannot be read, so the hook says which it is.
fn marks(hooks: &[Value]) -> Vec<&str> {
    hooks.iter().map(|hook| hook["branch_filter"].as_str().unwrap()).collect()
}

fn master(text: &str) -> MasterSecret {
    MasterSecret::new(SecretString::from(text.trim())).unwrap()
}

/// A7: what an administrator of one repository reads on its hook's page.
#[tokio::test]
async fn each_repository_gets_a_secret_of_its_own_and_never_the_installations() {
    in_a_world(|world| {
        async move {
            let repo = json!({ "name": "gadget", "auto_init": true, "default_branch": "main" });
            let gadget = world.owner_call(Method::POST, "/user/repos", repo).await;
            let path = format!("/repos/{}/gadget", world.owner);
            let of_bot = format!("{path}/collaborators/{}", world.bot);
            world.owner_call(Method::PUT, &of_bot, json!({ "permission": "admin" })).await;
            let widget = world.in_repository(Method::GET, "", Value::Null).await;
            world.init(false).await;
            let other = format!("{}/gadget", world.owner);
            let report = init::run(&world.config(), &other, InitOptions::default()).await.unwrap();
            assert!(report.success, "{report}");
            assert!(report.steps.iter().all(|step| !step.what.starts_with("webhook secret")), "one for both: {report}");
            let theirs = world.owner_call(Method::GET, &format!("{path}/hooks"), Value::Null).await;
            let master = master(&fs::read_to_string(world.secret_file()).unwrap());
            let wanted = |repo: &Value| master.branch_filter(HookOwner::Repository(repo["id"].as_i64().unwrap()));
            assert_eq!(marks(&world.hooks().await), [wanted(&widget)]);
            assert_eq!(marks(theirs.as_array().unwrap()), [wanted(&gadget)]);
            assert_ne!(wanted(&widget), wanted(&gadget));
            world.call(&world.owner_token, Method::DELETE, &path, Value::Null).await;
        }
        .boxed()
    })
    .await;
}

/// An upgrade: the hook holds the installation's own secret, which everybody
/// who administers the repository knows.
#[tokio::test]
async fn a_secret_that_older_versions_put_on_hooks_is_made_anew_just_once() {
    in_a_world(|world| {
        async move {
            let known_to_all = "an example secret, not in use";
            fs::write(world.secret_file(), known_to_all).unwrap();
            set_mode(&world.secret_file(), 0o640);
            let ours = format!("http://{}/webhook", world.listen);
            let old = json!({ "type": "gitea", "active": true, "events": ["issues", "issue_comment"], "branch_filter": "*",
                "config": { "url": ours, "content_type": "json", "secret": known_to_all } });
            world.in_repository(Method::POST, "/hooks", old.clone()).await;
            let report = world.doctor().await;
            assert!(
                report.lines.iter().any(|l| l.ok == Verdict::Fail
                    && l.found.contains("older version")
                    && l.do_this.contains(&format!("lazarus init {}", world.repository))),
                "{report}"
            );
            let look = world.init(true).await;
            assert_eq!(step(&look, "webhook secret").state, StepState::WouldReplace, "{look}");
            assert_eq!(step(&look, "webhook http").state, StepState::WouldReplace, "{look}");
            assert_eq!(fs::read_to_string(world.secret_file()).unwrap(), known_to_all);
            let first = world.init(false).await;
            assert!(first.success, "{first}");
            assert_eq!(step(&first, "webhook secret").state, StepState::Replaced, "{first}");
            let secret = fs::read_to_string(world.secret_file()).unwrap();
            assert!(master(&secret).was_generated(), "{secret}");
            let mode = fs::metadata(world.secret_file()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640, "whoever could read it still can");
            // The next repository's old hook does not make it change again.
            world.in_repository(Method::POST, "/hooks", old).await;
            let second = world.init(false).await;
            assert_eq!(step(&second, "webhook http").state, StepState::Replaced, "{second}");
            assert_eq!(fs::read_to_string(world.secret_file()).unwrap(), secret);
            assert_eq!(world.hooks().await.len(), 1);
            for text in [first.to_string(), second.to_string(), report.to_string()] {
                assert!(!text.contains(known_to_all) && !text.contains(secret.trim()), "{text}");
            }

            // Where we cannot write it, nothing is derived from it either.
            let config = world.config();
            let text = fs::read_to_string(config.file.as_ref().unwrap()).unwrap();
            let text = text.replace("secret_file = \"webhook.secret\"", "secret_command = [\"/bin/echo\", \"by hand\"]");
            fs::write(config.file.as_ref().unwrap(), text).unwrap();
            let config = Config::load(&LoadOptions { file: config.file.clone(), ..LoadOptions::default() }).unwrap();
            let hooks = world.hooks().await;
            assert!(hooks.iter().all(|hook| hook["branch_filter"].as_str().unwrap().contains("lazarus-secret-")));
            let fresh = init::run(&config, &world.repository, InitOptions::default()).await.unwrap();
            assert!(fresh.success, "of that secret no hook is older: {fresh}");
            let by_hand = json!({ "type": "gitea", "active": true, "events": ["issues"],
                "config": { "url": ours, "content_type": "json", "secret": "by hand" } });
            world.in_repository(Method::POST, "/hooks", by_hand).await;
            let refused = init::run(&config, &world.repository, InitOptions::default()).await.unwrap();
            assert_eq!(step(&refused, "webhook secret").state, StepState::Failed, "{refused}");
            assert!(!refused.success);
        }
        .boxed()
    })
    .await;
}

/// One hook for all repositories of an organisation.
#[tokio::test]
async fn an_organisation_has_one_webhook_for_its_repositories_where_the_bot_owns_it() {
    in_a_world(|world| {
        async move {
            let org = format!("org-{}", &world.bot["lazarus-".len()..]);
            let made = world.owner_call(Method::POST, "/orgs", json!({ "username": org })).await;
            world
                .owner_call(Method::POST, &format!("/orgs/{org}/repos"), json!({ "name": "gadget", "auto_init": true }))
                .await;
            let of_bot = format!("/repos/{org}/gadget/collaborators/{}", world.bot);
            world.owner_call(Method::PUT, &of_bot, json!({ "permission": "admin" })).await;
            let config = world.config_with(&format!("[[repositories]]\nname = \"{org}/gadget\"\n"));
            let refused = init::run_for_organisation(&config, &org, InitOptions::default()).await.unwrap_err();
            let refused = format!("{refused:#}");
            assert!(refused.contains("write:organization") && refused.contains("--show-secret"), "{refused}");
            let nowhere = init::run_for_organisation(&config, "no-such", InitOptions::default()).await.unwrap_err();
            assert!(format!("{nowhere:#}").contains("no organisation no-such"), "{nowhere:#}");

            // Among the owners, with the scope.
            let teams = world.owner_call(Method::GET, &format!("/orgs/{org}/teams"), Value::Null).await;
            let owners = teams.as_array().unwrap().iter().find(|team| team["name"] == "Owners").unwrap()["id"].clone();
            world.owner_call(Method::PUT, &format!("/teams/{owners}/members/{}", world.bot), Value::Null).await;
            world.use_token_with(&["write:issue", "write:repository", "write:organization", "read:user"]).await;
            let first = init::run_for_organisation(&config, &org, InitOptions::default()).await.unwrap();
            assert!(first.success, "{first}");
            assert_eq!(first.organisation.as_deref(), Some(org.as_str()));
            let second = init::run_for_organisation(&config, &org, InitOptions::default()).await.unwrap();
            assert!(second.message.contains("nothing to change"), "{second}");
            let hooks = world.owner_call(Method::GET, &format!("/orgs/{org}/hooks"), Value::Null).await;
            let master = master(&fs::read_to_string(world.secret_file()).unwrap());
            let of = HookOwner::Organisation(made["id"].as_i64().unwrap());
            assert_eq!(marks(hooks.as_array().unwrap()), [master.branch_filter(of)]);
            let said = init::organisation_by_hand(&config, &org).await.unwrap();
            assert!(said.contains(master.hook_secret(of).expose_secret()), "{said}");

            // Its repository needs none of its own then, and the doctor knows.
            let gadget = init::run(&config, &format!("{org}/gadget"), InitOptions::default()).await.unwrap();
            assert!(gadget.success, "{gadget}");
            assert_eq!(step(&gadget, "webhook http").state, StepState::Present, "{gadget}");
            let hooks = world.owner_call(Method::GET, &format!("/repos/{org}/gadget/hooks"), Value::Null).await;
            assert_eq!(hooks, json!([]));
            let report = doctor::run_with_probe(&config, Path::new(env!("CARGO_BIN_EXE_lazarus"))).await;
            assert_eq!(line(&report, &format!("{org}/gadget (prepared)")).ok, Verdict::Ok, "{report}");
            world.call(&world.owner_token, Method::DELETE, &format!("/repos/{org}/gadget"), Value::Null).await;
            world.call(&world.owner_token, Method::DELETE, &format!("/orgs/{org}"), Value::Null).await;
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_was_lost_is_made_again_with_a_hook_that_knows_it() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let old_secret = fs::read_to_string(world.secret_file()).unwrap();
            let old = world.hooks().await[0]["id"].clone();
            fs::remove_file(world.secret_file()).unwrap();
            let look = world.init(true).await;
            assert_eq!(step(&look, "webhook secret").state, StepState::WouldCreate);
            assert_eq!(step(&look, "webhook http").state, StepState::WouldReplace);
            let report = world.init(false).await;
            assert_eq!(step(&report, "webhook secret").state, StepState::Created);
            assert_eq!(step(&report, "webhook http").state, StepState::Replaced);
            let hooks = world.hooks().await;
            assert!(hooks.len() == 1 && hooks[0]["id"] != old, "{hooks:#?}");
            assert_ne!(fs::read_to_string(world.secret_file()).unwrap(), old_secret);
            // One that somebody changed by hand.
            fs::write(world.secret_file(), "another example, not in use").unwrap();
            let look = world.init(true).await;
            assert_eq!(step(&look, "webhook http").state, StepState::WouldReplace);
            assert!(look.steps.iter().all(|step| !step.what.starts_with("webhook secret")), "{look}");
            let report = world.doctor().await;
            let said = report.lines.iter().find(|l| l.ok == Verdict::Fail && l.found.contains("webhook to")).unwrap();
            assert!(said.found.contains("was changed"), "{report}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn labels_that_are_there_are_used_and_doubles_are_named_by_id() {
    in_a_world(|world| {
        async move {
            let label = json!({ "name": "lazarus/approved", "color": "#123456" });
            let first = world.in_repository(Method::POST, "/labels", label.clone()).await;
            let second = world.in_repository(Method::POST, "/labels", label).await;
            world
                .in_repository(Method::POST, "/labels", json!({ "name": "lazarus/state/idle", "color": "#123456" }))
                .await;
            let report = world.init(false).await;
            assert!(report.success);
            let note = step(&report, "label lazarus/approved").note.clone().unwrap();
            assert!(note.contains(&first["id"].to_string()) && note.contains(&second["id"].to_string()), "{note}");
            let idle = step(&report, "label lazarus/state/idle").note.clone();
            assert!(idle.unwrap().contains("exclusive"));
            assert_eq!(world.list("/labels?page=1&limit=50").await.len(), 15);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_template_that_people_changed_is_left_alone() {
    in_a_world(|world| {
        async move {
            let path = "/contents/.gitea%2FISSUE_TEMPLATE%2Fmission-proposal.md";
            let own = json!({ "content": base64_of("---\nname: Ours\nabout: x\n---\nour own\n"), "message": "own" });
            world.in_repository(Method::POST, path, own).await;
            let report = world.init(false).await;
            assert!(report.success, "{report}");
            let kept = step(&report, "template .gitea/ISSUE_TEMPLATE/mission-proposal.md");
            assert_eq!(kept.state, StepState::Kept);
            let now = world.in_repository(Method::GET, path, Value::Null).await;
            assert_eq!(
                now["content"].as_str().unwrap().replace('\n', ""),
                base64_of("---\nname: Ours\nabout: x\n---\nour own\n")
            );
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_changed_policy_updates_the_templates_that_nobody_edited() {
    in_a_world(|world| {
        async move {
            let form = format!("template {}", form::FORM_PATH);
            let twin = format!("template {}", form::TWIN_PATH);
            let at = |path: &str| format!("/contents/{}", path.replace('/', "%2F"));
            world.init(false).await;
            assert_eq!(step(&world.init(false).await, &form).state, StepState::Present);

            // Another policy: the doctor says so, and init follows.
            let config = world.config_with("[policy]\nisolation_min = \"level_2\"\nnetwork_max = \"none\"\n");
            let program = Path::new(env!("CARGO_BIN_EXE_lazarus"));
            let report = doctor::run_with_probe(&config, program).await;
            let older: Vec<_> = report.lines.iter().filter(|l| l.found.contains("older than the policy")).collect();
            assert_eq!(older.len(), 2, "{report}");
            assert!(older.iter().all(|l| l.ok == Verdict::Warn && l.do_this.contains("lazarus init")), "{report}");
            let look = init::run(&config, &world.repository, InitOptions { dry_run: true, ..Default::default() });
            assert_eq!(step(&look.await.unwrap(), &form).state, StepState::WouldReplace);
            let report = init::run(&config, &world.repository, InitOptions::default()).await.unwrap();
            assert_eq!(step(&report, &form).state, StepState::Replaced, "{report}");
            assert_eq!(step(&report, &twin).state, StepState::Replaced, "{report}");
            let offered = world.list("/issue_templates").await;
            let text = serde_json::to_string(&offered).unwrap();
            assert!(!text.contains("level_1") && !text.contains("Network hosts"), "{text}");
            let report = init::run(&config, &world.repository, InitOptions::default()).await.unwrap();
            assert!(report.message.contains("nothing to change"), "{report}");

            // What a person writes is theirs, until they say otherwise.
            let path = at(form::FORM_PATH);
            let now = world.in_repository(Method::GET, &path, Value::Null).await;
            use base64::Engine as _;
            let now_text: String = now["content"].as_str().unwrap().split_whitespace().collect();
            let now_text = base64::engine::general_purpose::STANDARD.decode(now_text).unwrap();
            let edited = String::from_utf8(now_text).unwrap().replace("Ask for a cell", "Please ask for a cell");
            let change = json!({ "content": base64_of(&edited), "message": "ours", "sha": now["sha"] });
            world.in_repository(Method::PUT, &path, change).await;
            let report = init::run(&world.config(), &world.repository, InitOptions::default()).await.unwrap();
            let kept = step(&report, &form);
            assert_eq!(kept.state, StepState::Kept, "{report}");
            assert!(kept.note.as_ref().unwrap().contains("--force"), "{report}");
            assert_eq!(step(&report, &twin).state, StepState::Replaced, "{report}");
            let report = world.doctor().await;
            assert!(report.lines.iter().any(|l| l.ok == Verdict::Warn && l.found.contains("was edited")), "{report}");
            let force = InitOptions { force: true, ..Default::default() };
            let report = init::run(&world.config(), &world.repository, force).await.unwrap();
            assert_eq!(step(&report, &form).state, StepState::Replaced, "{report}");
            assert!(world.init(false).await.message.contains("nothing to change"));
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn templates_of_a_version_before_this_one_are_updated_too() {
    in_a_world(|world| {
        async move {
            // As it was released, to the byte.
            let old = include_str!("released/mission-proposal-0.1.md");
            assert!(form::is_as_written(old.as_bytes()));
            let path = "/contents/.gitea%2FISSUE_TEMPLATE%2Fmission-proposal.md";
            let old = json!({ "content": base64_of(old), "message": "old" });
            world.in_repository(Method::POST, path, old).await;
            let report = world.init(false).await;
            assert_eq!(step(&report, &format!("template {}", form::TWIN_PATH)).state, StepState::Replaced, "{report}");
        }
        .boxed()
    })
    .await;
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn a_repository_without_a_commit_is_prepared_too() {
    in_a_world(|world| {
        async move {
            let path = format!("/repos/{}", world.repository);
            world.owner_call(Method::DELETE, &path, Value::Null).await;
            let repo = json!({ "name": "widget", "auto_init": false, "default_branch": "main" });
            world.owner_call(Method::POST, "/user/repos", repo).await;
            world.bot_may("admin").await;
            let look = world.init(true).await;
            assert!(look.success, "{look}");
            let first = world.init(false).await;
            assert!(first.success, "{first}");
            let second = world.init(false).await;
            assert!(second.message.contains("nothing to change"), "{second}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_protected_branch_fails_the_templates_alone_and_says_what_to_do() {
    in_a_world(|world| {
        async move {
            let rule = json!({ "rule_name": "main", "branch_name": "main", "enable_push": false });
            world.in_repository(Method::POST, "/branch_protections", rule).await;
            let report = world.init(false).await;
            assert!(!report.success, "{report}");
            let template = step(&report, "template");
            assert_eq!(template.state, StepState::Failed);
            assert!(template.note.as_ref().unwrap().contains("protected"), "{template:?}");
            assert_eq!(step(&report, "webhook http").state, StepState::Created);
            assert_eq!(step(&report, "label").state, StepState::Created);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_repository_without_issues_is_refused() {
    in_a_world(|world| {
        async move {
            world.in_repository(Method::PATCH, "", json!({ "has_issues": false })).await;
            let seen = world.in_repository(Method::GET, "", Value::Null).await;
            if seen["has_issues"] != false {
                println!("skipped: this forge does not switch issues off");
                return;
            }
            let error =
                init::run(&world.config(), &world.repository, InitOptions::default()).await.unwrap_err().to_string();
            assert!(error.contains("has no issues"), "{error}");
            let report = world.doctor().await;
            assert!(report.lines.iter().any(|l| l.ok == Verdict::Fail && l.found.contains("no issues")), "{report}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_team_whose_members_the_bot_cannot_read_is_named() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let org = format!("org-{}", &world.bot["lazarus-".len()..]);
            world
                .owner_call(Method::POST, "/orgs", json!({ "username": org }))
                .await;
            let team = json!({ "name": "leads", "permission": "write", "units": ["repo.code", "repo.issues"],
                "units_map": { "repo.code": "write", "repo.issues": "write" } });
            let team = world
                .owner_call(Method::POST, &format!("/orgs/{org}/teams"), team)
                .await;
            let repo = json!({ "name": "gadget", "auto_init": true });
            world
                .owner_call(Method::POST, &format!("/orgs/{org}/repos"), repo)
                .await;
            let of_bot = format!("/repos/{org}/gadget/collaborators/{}", world.bot);
            world
                .owner_call(Method::PUT, &of_bot, json!({ "permission": "admin" }))
                .await;
            let path = format!("/teams/{}/repos/{org}/gadget", team["id"]);
            world.owner_call(Method::PUT, &path, Value::Null).await;
            let more = format!(
                "[[repositories]]\nname = \"{org}/gadget\"\ndirectors = [\"{}\", \"nobody-{org}\"]\ndirector_teams = [\"{org}/leads\", \"{org}/none\"]\n",
                world.owner
            );
            let config = world.config_with(&more);
            let program = Path::new(env!("CARGO_BIN_EXE_lazarus"));
            let outside = doctor::run_with_probe(&config, program).await;
            let member = format!("/teams/{}/members/{}", team["id"], world.bot);
            world.owner_call(Method::PUT, &member, Value::Null).await;
            let inside = doctor::run_with_probe(&config, program).await;
            world
                .call(&world.owner_token, Method::DELETE, &format!("/repos/{org}/gadget"), Value::Null)
                .await;
            world
                .call(&world.owner_token, Method::DELETE, &format!("/orgs/{org}"), Value::Null)
                .await;
            let says = |report: &DoctorReport, what: &str| {
                report.lines.iter().any(|l| {
                    l.name.ends_with("gadget (directors)") && l.ok == Verdict::Fail && l.found.contains(what)
                })
            };
            for report in [&outside, &inside] {
                assert!(says(report, &format!("no account nobody-{org}")), "{report}");
                assert!(says(report, &format!("no team {org}/none")), "{report}");
                assert!(!says(report, &world.owner), "{report}");
            }
            assert!(says(&outside, &format!("who is in the team {org}/leads")), "{outside}");
            assert!(!says(&inside, "/leads"), "{inside}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_bot_that_does_not_administer_the_repository_is_told_so_and_makes_nothing() {
    in_a_world(|world| {
        async move {
            world.bot_may("write").await;
            let error =
                init::run(&world.config(), &world.repository, InitOptions::default()).await.unwrap_err().to_string();
            assert!(error.contains(&world.bot) && error.contains("Administrator"), "{error}");
            assert!(!world.secret_file().exists());
            assert!(world.list("/labels?page=1").await.is_empty());
            let missing =
                init::run(&world.config(), "acme/nowhere", InitOptions::default()).await.unwrap_err().to_string();
            assert!(missing.contains("acme/nowhere"), "{missing}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_repository_that_the_configuration_does_not_name_is_prepared_and_said_to_be_refused() {
    in_a_world(|world| {
        async move {
            let config = world.config();
            let text =
                fs::read_to_string(config.file.as_ref().unwrap()).unwrap().replace(&world.repository, "acme/other");
            fs::write(config.file.as_ref().unwrap(), text).unwrap();
            let config = Config::load(&LoadOptions { file: config.file.clone(), ..LoadOptions::default() }).unwrap();
            let report = init::run(&config, &world.repository, InitOptions::default()).await.unwrap();
            assert!(report.success);
            let said = report.to_do.join("\n");
            assert!(said.contains(&format!("name = \"{}\"", world.repository)), "{said}");
            assert!(said.contains("acme/other"), "{said}");
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn what_is_no_repository_is_refused_before_anything_is_asked() {
    let place = tempfile::tempdir().unwrap();
    let config = without_a_forge(place.path(), "http://127.0.0.1:9");
    for name in ["", "widget", "a/b/c", "../x", "a/..", "a b/c", "a/b?x=1", "/", "a/\u{0}"] {
        let error = init::run(&config, name, InitOptions::default()).await.unwrap_err().to_string();
        assert!(error.contains("is not a repository"), "{name:?}: {error}");
    }
    let empty =
        Config::load(&LoadOptions { system_file: place.path().join("none"), ..LoadOptions::default() }).unwrap();
    let error = init::run(&empty, "acme/widget", InitOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("forge.url") && error.contains("webhook.public_url"), "{error}");
    assert!(!error.contains("[[repositories]]"), "{error}");
}

fn without_a_forge(place: &Path, url: &str) -> Config {
    for name in ["forge.token", "webhook.secret"] {
        fs::write(place.join(name), "an example, not in use").unwrap();
        set_mode(&place.join(name), 0o600);
    }
    let file = place.join("lazarus.toml");
    let text = format!(
        "[forge]\nurl = \"{url}\"\ntoken_file = \"forge.token\"\n\
         [webhook]\npublic_url = \"http://10.1.2.3:8181\"\nsecret_file = \"webhook.secret\"\n\
         [paths]\ndata = \"data\"\n[[repositories]]\nname = \"acme/widget\"\n"
    );
    fs::write(&file, text).unwrap();
    Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap()
}

#[test]
fn the_setting_for_the_forge_names_just_the_host_that_it_must_call() {
    let place = tempfile::tempdir().unwrap();
    let mut config = without_a_forge(place.path(), "http://127.0.0.1:9");
    for (url, setting, about) in [
        ("http://127.0.0.1:8181", "external, loopback", "own machine"),
        ("http://localhost:8181", "external, loopback", "own machine"),
        ("http://[::1]:8181", "external, loopback", "own machine"),
        ("http://10.1.2.3:8181", "external, 10.1.2.3", "private"),
        ("http://[fd00::7]:8181", "external, fd00::7", "private"),
        ("http://169.254.1.1", "external, 169.254.1.1", "private"),
        ("https://93.184.215.14", "external, 93.184.215.14", "public"),
        ("https://Lazarus.example.org/x", "external, lazarus.example.org", "resolves"),
    ] {
        url.clone_into(&mut config.webhook.public_url);
        let (line, said) = init::allowed_host_list(&config);
        assert_eq!(line, format!("ALLOWED_HOST_LIST = {setting}"));
        assert!(said.contains(about), "{url}: {said}");
    }
}

// ------------------------------------------------------------------- doctor

#[tokio::test]
async fn the_doctor_sees_a_real_event_arrive_and_leaves_nothing_behind() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let _door = world.open_the_door().await;
            let report = world.doctor().await;
            println!("{report}");
            assert!(report.success(), "{report}");
            let way = line(&report, "way of an event");
            assert_eq!(way.ok, Verdict::Ok, "{report}");
            assert!(way.found.contains("by the webhook"), "{}", way.found);
            for name in [
                "configuration",
                "webhook secret",
                "token",
                "clocks",
                "scope write:issue",
                "scope write:repository",
                "scope read:organization",
                "scope read:user",
                "reactions",
                "prepared",
                "git",
                "disk",
                "user",
            ] {
                assert_eq!(line(&report, name).ok, Verdict::Ok, "{name}\n{report}");
            }
            let issues = world.list("/issues?state=all&page=1").await;
            assert!(issues.is_empty(), "{issues:#?}");
            assert_eq!(world.list("/labels?page=1&limit=50").await.len(), 14);
            assert_eq!(world.hooks().await.len(), 1);
            let json = report.to_json();
            assert_eq!(json["success"], true);
            assert!(json["lines"].as_array().unwrap().iter().all(|l| l["ok"] == true || l["ok"] == "warn"));
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn an_event_that_does_not_arrive_names_the_administrators_setting() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let door = world.open_the_door().await;
            // The lock stays, the door is shut: as if the forge refused to call.
            door.task.abort();
            let report = world.doctor().await;
            let way = line(&report, "way of an event");
            assert_eq!(way.ok, Verdict::Fail, "{report}");
            assert!(way.do_this.contains("ALLOWED_HOST_LIST = external, loopback"), "{}", way.do_this);
            assert!(!report.success());
            assert!(world.list("/issues?state=all&page=1").await.is_empty());
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn an_issue_that_an_interrupted_doctor_left_is_used_and_what_people_wrote_there_stays() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            let token = fs::read_to_string(world.place.path().join("forge.token")).unwrap();
            let path = format!("/repos/{}/issues", world.repository);
            let left = json!({ "title": doctor::ISSUE_TITLE, "body": "" });
            let (status, left) = world.call(&token, Method::POST, &path, left).await;
            assert_eq!(status, 201);
            // Somebody else's issue of that name is not the doctor's.
            let theirs = json!({ "title": doctor::ISSUE_TITLE, "body": "" });
            let theirs = world.in_repository(Method::POST, "/issues", theirs).await;
            let number = left["number"].as_i64().unwrap();
            let comment = json!({ "body": "what is this?" });
            let comments = format!("/issues/{number}/comments");
            world.in_repository(Method::POST, &comments, comment).await;
            let _door = world.open_the_door().await;
            let report = world.doctor().await;
            assert_eq!(line(&report, "way of an event").ok, Verdict::Ok, "{report}");
            let issues = world.list("/issues?state=all&page=1").await;
            assert_eq!(issues.len(), 2, "no third one: {issues:#?}");
            for issue in &issues {
                let closed = issue["number"] == left["number"];
                assert_eq!(issue["state"], if closed { "closed" } else { "open" });
            }
            assert_eq!(issues.iter().filter(|i| i["number"] == theirs["number"]).count(), 1);
            assert_eq!(world.list(&comments).await.len(), 1);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn the_doctor_names_each_scope_that_the_token_lacks() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            for (scopes, lacking) in [
                (&["write:issue", "read:repository", "read:organization", "read:user"][..], "write:repository"),
                (&["read:issue", "write:repository", "read:organization", "read:user"][..], "write:issue"),
                (&["write:issue", "write:repository", "read:user"][..], "read:organization"),
            ] {
                world.use_token_with(scopes).await;
                let report = world.doctor().await;
                for scope in ALL_SCOPES {
                    let line = line(&report, &format!("scope {scope}"));
                    let wanted = if *scope == lacking { Verdict::Fail } else { Verdict::Ok };
                    assert_eq!(line.ok, wanted, "{scope} without {lacking}\n{report}");
                }
                assert!(!report.success());
            }
            assert_eq!(world.hooks().await.len(), 1);
            assert_eq!(world.list("/labels?page=1&limit=50").await.len(), 14);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn the_doctor_says_what_a_bot_without_rights_cannot_do() {
    in_a_world(|world| {
        async move {
            world.init(false).await;
            world.bot_may("write").await;
            let report = world.doctor().await;
            let rights = line(&report, &world.repository);
            assert_eq!(rights.ok, Verdict::Fail);
            assert!(rights.do_this.contains("Administrator"), "{report}");
            assert_eq!(line(&report, "scope write:repository").ok, Verdict::Ok);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn the_doctor_finds_what_init_has_not_made() {
    in_a_world(|world| {
        async move {
            fs::write(world.secret_file(), "an example secret, not in use").unwrap();
            set_mode(&world.secret_file(), 0o600);
            let report = world.doctor().await;
            let lines: Vec<_> = report.lines.iter().filter(|l| l.name.contains("prepared")).collect();
            for what in ["labels are missing", "mission-proposal.yaml", "webhook to"] {
                assert!(
                    lines.iter().any(|l| l.found.contains(what) && l.do_this.contains("lazarus init")),
                    "{what}\n{report}"
                );
            }
            assert_eq!(line(&report, "way of an event").ok, Verdict::Warn);
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_said_to_be_so_without_showing_it() {
    in_a_world(|world| {
        async move {
            let wrong = "0123456789abcdef0123456789abcdef01234567";
            fs::write(world.place.path().join("forge.token"), wrong).unwrap();
            let report = world.doctor().await;
            let token = line(&report, "token");
            assert_eq!(token.ok, Verdict::Fail);
            assert!(token.found.contains("401"), "{}", token.found);
            assert!(!report.to_string().contains(wrong));
            let error = init::run(&world.config(), &world.repository, InitOptions::default()).await.unwrap_err();
            assert!(format!("{error:#}").contains("401") && !format!("{error:#?}").contains(wrong));
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn without_a_forge_the_doctor_still_looks_at_this_machine() {
    let place = tempfile::tempdir().unwrap();
    let report = doctor::run_with_probe(
        &without_a_forge(place.path(), "http://127.0.0.1:9"),
        Path::new(env!("CARGO_BIN_EXE_lazarus")),
    )
    .await;
    let forge = line(&report, "forge");
    assert_eq!(forge.ok, Verdict::Fail);
    assert!(forge.found.contains("127.0.0.1:9"), "{}", forge.found);
    assert!(line(&report, "isolation").found.contains("kernel"));
    assert_eq!(line(&report, "git").ok, Verdict::Ok);
    assert_eq!(line(&report, "disk").ok, Verdict::Ok, "{report}");
    assert!(!report.success());
    assert!(
        report.lines.iter().all(|l| l.ok == Verdict::Ok || !l.do_this.is_empty()),
        "a line without advice: {report}"
    );
}

#[tokio::test]
async fn a_probe_that_says_nothing_is_a_failed_line_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    let config = without_a_forge(place.path(), "http://127.0.0.1:9");
    for program in ["/bin/true", "/nonexistent/lazarus"] {
        let report = doctor::run_with_probe(&config, Path::new(program)).await;
        assert_eq!(line(&report, "isolation").ok, Verdict::Fail);
        assert_eq!(line(&report, "git").ok, Verdict::Ok);
    }
}

#[tokio::test]
async fn an_empty_configuration_is_told_key_by_key() {
    let place = tempfile::tempdir().unwrap();
    let config = Config::load(&LoadOptions {
        system_file: place.path().join("none"),
        flags: vec![("paths.data".to_owned(), place.path().join("data").display().to_string())],
        ..LoadOptions::default()
    })
    .unwrap();
    let report = doctor::run_with_probe(&config, Path::new(env!("CARGO_BIN_EXE_lazarus"))).await;
    for key in ["forge.url", "forge.token_file", "webhook.public_url", "[[repositories]]"] {
        assert!(
            report.lines.iter().any(|l| l.name == "configuration" && l.ok == Verdict::Fail && l.found.contains(key)),
            "{key}\n{report}"
        );
    }
}

#[test]
fn config_show_prints_places_and_no_secret() {
    let place = tempfile::tempdir().unwrap();
    let config = without_a_forge(place.path(), "http://127.0.0.1:9");
    let table = lazarus::cli::config::show(&config, false);
    assert!(table.contains("forge.url") && table.contains("http://127.0.0.1:9"));
    let json: Value = serde_json::from_str(&lazarus::cli::config::show(&config, true)).unwrap();
    assert_eq!(json["success"], true);
    assert_eq!(json["values"]["forge.url"]["value"], "http://127.0.0.1:9");
    for text in [table, json.to_string()] {
        assert!(!text.contains("an example, not in use"));
    }
}
