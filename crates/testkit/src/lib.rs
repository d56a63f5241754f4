//! A world in which conversations take place: a forge with people on it, a
//! repository, and the built binary beside it. Black box: Lazarus is started as
//! its users start it and is only ever spoken to over HTTP, by its command line
//! and by signals; people use the forge as people do.
//!
//! Conversations are written once and run against either forge (`server`).
//! Waits are for conditions, with a ceiling that prints the thread and the
//! daemon's log. [`World::finish`] asserts what must be true after every
//! conversation, whatever it was about:
//!
//! - no process of a cell is left, and no mount;
//! - every comment of the bot ends in a marker, no two share an effect, and a
//!   mission has at most one status comment;
//! - the ledger verifies;
//! - no secret (the bot's token, the webhook secret, canaries from the daemon's
//!   environment) is in a comment, in the daemon's log or in what the command
//!   line printed.

#![deny(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "it is part of the tests: what goes wrong here has to end the test, with words"
)]

pub mod changes;
pub mod daemon;
pub mod door;
pub mod http;
pub mod no_namespaces;
pub mod people;
pub mod processes;
pub mod server;
pub mod specification;
pub mod thread;

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lazarus_gitea::{HookOwner, MasterSecret};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

pub use changes::Elsewhere;
pub use daemon::{CEILING, CliOutput, Daemon, Installation};
pub use door::{Delivery, ListeningPost};
pub use people::{Person, Proposal};
pub use server::Server;
pub use thread::{Comment, Kind, Marker};

use http::{Auth, Http};
use people::RepoName;

/// The program under test: what Cargo says that it built for these tests
/// (`CARGO_BIN_EXE_lazarus`), else the one beside the test's own file.
///
/// # Panics
/// Where there is none.
pub fn program() -> PathBuf {
    if let Some(built) = std::env::var_os("CARGO_BIN_EXE_lazarus") {
        return built.into();
    }
    let test = std::env::current_exe().expect("a test is a file");
    let beside = test.ancestors().skip(1).map(|place| place.join("lazarus")).find(|program| program.is_file());
    beside.expect("the program: run `cargo build`, or the tests by `cargo test`")
}

/// What a world can be asked to do differently.
#[derive(Clone)]
pub struct WorldOptions {
    /// Whether `lazarus init` is run and the daemon started.
    pub start: bool,
    /// How often the reconciler looks. Long by default, so that what is seen
    /// came by webhook.
    pub reconcile: &'static str,
    /// Name the director in the configuration and leave the repository's
    /// administrators out.
    pub configured_director: bool,
    /// Further lines for the repository's block in the configuration.
    pub repository: String,
    /// Further environment of the binary: `LAZARUS__FORGE__GONE_AFTER`, …
    pub environment: Vec<(String, String)>,
    /// Further lines for `[policy]`.
    pub policy: String,
    /// Further TOML for the configuration.
    pub config: String,
    /// Whether Lazarus runs where nobody may make user namespaces.
    pub poor_host: bool,
    /// Whether the daemon runs from a copy of the program, at `place()/bin/lazarus`, that a conversation may replace.
    pub own_program: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            start: true,
            reconcile: "60s",
            configured_director: false,
            repository: String::new(),
            environment: Vec::new(),
            policy: String::new(),
            config: String::new(),
            poor_host: false,
            own_program: false,
        }
    }
}

/// A forge, its people, a repository and an installation of Lazarus.
pub struct World {
    name: String,
    began: Instant,
    server: Server,
    http: Http,
    admin_token: String,
    organisation: String,
    repo: RepoName,
    people: HashMap<&'static str, Person>,
    extra_logins: Mutex<Vec<String>>,
    further_organisations: Mutex<Vec<String>>,
    further_repositories: Mutex<Vec<String>>,
    daemon: Daemon,
    installation: Installation,
    place: PathBuf,
    forge_place: PathBuf,
    webhook_secret: String,
    canary: String,
    printed: Mutex<String>,
    tampered: bool,
    deaf: AtomicBool,
}

impl WorldOptions {
    /// What only polling finds is done as what is heard, and the forge is looked at every second.
    pub fn polled() -> Self {
        Self { policy: "polled_commands = \"run\"".into(), reconcile: "1s", ..Self::default() }
    }
}

impl World {
    /// A world with a running daemon.
    pub async fn new(name: &str) -> Self {
        Self::with(name, WorldOptions::default()).await
    }

    /// A world made to measure.
    pub async fn with(name: &str, options: WorldOptions) -> Self {
        let mark = random_word();
        // Two directories: processes of the stand-in's git must not look like a cell's.
        let base = std::env::temp_dir();
        let (place, forge_place) = (base.join(format!("lzw-{mark}-{name}")), base.join(format!("lzf-{mark}-{name}")));
        for dir in [&place, &forge_place] {
            fs::create_dir(dir).expect("a fresh temporary directory");
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("to own our directory");
        }
        let server = Server::from_environment(&forge_place).await;
        let http = Http::new(&server.url());
        let admin_token = server.admin_token();

        let organisation = format!("org-{mark}");
        let repo: RepoName = Arc::new(Mutex::new((organisation.clone(), "widget".to_owned())));
        let listen = free_address();
        let canary = format!("canary-{}-{}", random_word(), random_word());
        let installation = Installation {
            config: place.join("lazarus.toml"),
            home: place.join("operator"),
            log: place.join("daemon.log"),
            listen,
            poor_host: options.poor_host,
            daemon_program: if options.own_program { place.join("bin/lazarus") } else { program() },
            environment: [
                ("CANARY_SECRET".into(), canary.clone()),
                ("AWS_SECRET_ACCESS_KEY".into(), canary.clone()),
                ("ANTHROPIC_API_KEY".into(), canary.clone()),
            ]
            .into_iter()
            .chain(options.environment.clone())
            .collect(),
        };
        if options.own_program {
            fs::create_dir(place.join("bin")).expect("a place for the program");
            fs::copy(program(), &installation.daemon_program).expect("a copy of the program");
        }
        fs::create_dir(&installation.home).expect("the operator's home");
        let mut world = Self {
            name: name.to_owned(),
            began: Instant::now(),
            http,
            admin_token,
            organisation,
            repo,
            people: HashMap::new(),
            extra_logins: Mutex::default(),
            further_organisations: Mutex::default(),
            further_repositories: Mutex::default(),
            daemon: Daemon::new(installation.clone()),
            installation,
            place,
            forge_place,
            webhook_secret: format!("hook-{}-{}", random_word(), random_word()),
            canary,
            printed: Mutex::default(),
            tampered: false,
            deaf: AtomicBool::new(false),
            server,
        };
        world.settle_people(&mark).await;
        world.write_configuration(&options);
        if options.start {
            let init = world.init();
            assert!(init.status.success(), "`lazarus init` failed:\n{}", init.all());
            world.daemon.start().await;
        }
        world
    }

    async fn settle_people(&mut self, mark: &str) {
        const PERSON: &[&str] = &["write:issue", "write:repository", "read:user", "read:organization"];
        const BOT: &[&str] = &["write:issue", "write:repository", "read:organization", "read:user"];
        for role in ["director", "writer", "reader", "stranger", "lazarus"] {
            let scopes = if role == "lazarus" { BOT } else { PERSON };
            let person = self.make_person(&format!("{role}-{mark}"), scopes).await;
            self.people.insert(role, person);
        }
        let organisation = self.organisation.clone();
        self.admin("POST", "/orgs", Some(json!({"username": organisation, "visibility": "public"})), &[201]).await;
        let repository = json!({
            "name": "widget", "auto_init": true, "default_branch": "main", "private": false,
            "description": "A widget", "readme": "Default",
        });
        self.admin("POST", &format!("/orgs/{organisation}/repos"), Some(repository), &[201]).await;
        self.settle_permissions().await;
    }

    async fn settle_permissions(&self) {
        for (role, permission) in [("director", "admin"), ("writer", "write"), ("reader", "read"), ("lazarus", "admin")]
        {
            self.set_permission(&self.people[role].login.clone(), permission).await;
        }
    }

    /// Makes an account with a token.
    pub async fn make_person(&self, login: &str, scopes: &[&str]) -> Person {
        let password = format!("pw-{}-{}", random_word(), random_word());
        let account = json!({
            "username": login, "email": format!("{}@example.invalid", random_word()), "password": password,
            "must_change_password": false, "send_notify": false,
        });
        let account = self.admin("POST", "/admin/users", Some(account), &[201]).await;
        self.extra_logins.lock().unwrap().push(login.to_owned());
        let token = self
            .http
            .api(
                Auth::Password(login, &password),
                "POST",
                &format!("/users/{login}/tokens"),
                Some(json!({"name": "world", "scopes": scopes})),
            )
            .await
            .expect(&[201])
            .json()["sha1"]
            .as_str()
            .expect("a token")
            .to_owned();
        Person {
            http: self.http.clone(),
            repo: self.repo.clone(),
            live: self.server.is_live(),
            login: login.to_owned(),
            id: account["id"].as_i64().expect("an account number"),
            password,
            token,
        }
    }

    /// Sets what an account may do in the repository.
    pub async fn set_permission(&self, login: &str, permission: &str) {
        let path = self.at(&format!("/collaborators/{login}"));
        self.admin("PUT", &path, Some(json!({"permission": permission})), &[204]).await;
    }

    /// Renames the repository.
    pub async fn rename_repository(&self, new: &str) {
        self.admin("PATCH", &self.at(""), Some(json!({"name": new})), &[200]).await;
        new.clone_into(&mut self.repo.lock().unwrap().1);
    }

    /// Renames an account, as the forge's administrator.
    pub async fn rename_account(&self, login: &str, new: &str) {
        let path = format!("/admin/users/{login}/rename");
        self.admin("POST", &path, Some(json!({"new_username": new})), &[200, 204]).await;
        let mut logins = self.extra_logins.lock().unwrap();
        logins.retain(|other| other != login);
        logins.push(new.to_owned());
    }

    fn write_configuration(&self, options: &WorldOptions) {
        let token = self.place.join("forge.token");
        let secret = self.place.join("webhook.secret");
        for (path, value) in [(&token, &self.bot().token), (&secret, &self.webhook_secret)] {
            fs::write(path, format!("{value}\n")).expect("a secret file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("to own our file");
        }
        let directors = if options.configured_director {
            format!("directors = [{:?}]\nadministrators = false", self.director().login)
        } else {
            String::new()
        };
        let config = format!(
            "[forge]\nurl = {url:?}\ntoken_file = \"forge.token\"\n\
             [webhook]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\nsecret_file = \"webhook.secret\"\n\
             [paths]\ndata = {data:?}\n\
             [[repositories]]\nname = {repo:?}\n{directors}\n{further}\n\
             [policy]\n{isolation}\n{policy}\n\
             [reconcile]\ninterval = {reconcile:?}\ngrace = \"1s\"\n\
             [agents.sleeper]\ndescription = \"Sleeps until it is ended\"\nargv = [\"sleep\", \"3600\"]\nprompt = \"stdin\"\n\
             [agents.crasher]\ndescription = \"Ends badly at once\"\nargv = [\"sh\", \"-c\", \"exit 3\"]\nprompt = \"stdin\"\n\
             [agents.quick]\ndescription = \"Ends well at once\"\nargv = [\"true\"]\nprompt = \"stdin\"\n\
             [agents.looker]\ndescription = \"Commits what it can see of its environment\"\n\
             argv = [\"sh\", \"-c\", {looker:?}]\nprompt = \"stdin\"\n\
             {more}\n",
            url = self.server.url(),
            listen = self.installation.listen,
            data = self.data().to_string_lossy(),
            repo = self.repository(),
            further = options.repository.replace("{org}", &self.organisation),
            isolation = isolation_line(),
            policy = options.policy,
            reconcile = options.reconcile,
            looker = LOOKER,
            more = options.config,
        );
        fs::write(&self.installation.config, config).expect("the configuration file");
    }

    // ── Who and where ────────────────────────────────────────────────────

    /// Administers the repository.
    pub fn director(&self) -> &Person {
        &self.people["director"]
    }
    /// May write to the repository.
    pub fn writer(&self) -> &Person {
        &self.people["writer"]
    }
    /// May read it.
    pub fn reader(&self) -> &Person {
        &self.people["reader"]
    }
    /// Has an account and no more.
    pub fn stranger(&self) -> &Person {
        &self.people["stranger"]
    }
    /// The bot's account.
    pub fn bot(&self) -> &Person {
        &self.people["lazarus"]
    }
    /// `owner/name`.
    pub fn repository(&self) -> String {
        let repo = self.repo.lock().unwrap();
        format!("{}/{}", repo.0, repo.1)
    }
    /// `owner/name#N`.
    pub fn mission(&self, issue: i64) -> String {
        format!("{}#{issue}", self.repository())
    }
    /// The daemon's data directory.
    pub fn data(&self) -> PathBuf {
        self.place.join("data")
    }
    /// Where the configuration and its secrets lie.
    pub fn place(&self) -> &Path {
        &self.place
    }
    /// The forge.
    pub fn server(&self) -> &Server {
        &self.server
    }
    /// The daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
    /// How the binary is run here.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }
    /// Where the daemon takes deliveries.
    pub fn webhook_url(&self) -> String {
        format!("http://{}/webhook", self.installation.listen)
    }
    /// The installation's secret that the world began with. Nothing is signed
    /// with it: see [`hook_secret`](Self::hook_secret).
    pub fn webhook_secret(&self) -> &str {
        &self.webhook_secret
    }
    /// The installation's secret as it is now, from which hooks' are derived.
    pub fn master_secret(&self) -> MasterSecret {
        let text = fs::read_to_string(self.place.join("webhook.secret")).expect("the secret's file");
        MasterSecret::new(text.trim().to_owned().into()).expect("a secret")
    }
    /// The secret that the hook of our repository signs with.
    pub async fn hook_secret(&self) -> String {
        let of = HookOwner::Repository(self.repository_number().await);
        self.master_secret().hook_secret(of).expose_secret().to_owned()
    }
    /// The number of our repository.
    pub async fn repository_number(&self) -> i64 {
        self.admin("GET", &self.at(""), None, &[200]).await["id"].as_i64().expect("a number")
    }
    /// Makes another repository of the organisation, which the bot and this
    /// person administer, and adds it to the configuration. Returns its number.
    pub async fn another_repository(&self, name: &str, administrator: &Person) -> i64 {
        let organisation = &self.organisation;
        let order = json!({"name": name, "auto_init": true, "default_branch": "main"});
        let made = self.admin("POST", &format!("/orgs/{organisation}/repos"), Some(order), &[201]).await;
        self.further_repositories.lock().unwrap().push(format!("{organisation}/{name}"));
        for login in [&administrator.login, &self.bot().login] {
            let path = format!("/repos/{organisation}/{name}/collaborators/{login}");
            self.admin("PUT", &path, Some(json!({"permission": "admin"})), &[204]).await;
        }
        let mut config = fs::read_to_string(&self.installation.config).expect("our configuration");
        config.push_str(&format!("[[repositories]]\nname = \"{organisation}/{name}\"\n"));
        fs::write(&self.installation.config, config).expect("our configuration");
        made["id"].as_i64().expect("a number")
    }
    /// A secret in the daemon's environment that must never be seen anywhere.
    pub fn canary(&self) -> &str {
        &self.canary
    }
    /// An HTTP client for knocking at doors.
    pub fn client(&self) -> &reqwest::Client {
        self.http.client()
    }
    /// Says that this conversation spoiled the ledger on purpose.
    pub fn ledger_is_spoiled(&mut self) {
        self.tampered = true;
    }

    /// True, and says so, where a conversation needs the stand-in's faults and
    /// the forge is a real one.
    pub fn skip_on_live(&self) -> bool {
        if self.server.is_live() {
            eprintln!("SKIPPED `{}`: a real server cannot be told to misbehave; runs against the stand-in", self.name);
        }
        self.server.is_live()
    }

    /// Takes every hook off the repository: Lazarus hears nothing any more.
    pub async fn remove_hooks(&self) {
        self.deaf.store(true, Ordering::SeqCst);
        let hooks = self.admin("GET", &self.at("/hooks"), None, &[200]).await;
        for hook in hooks.as_array().into_iter().flatten() {
            self.admin("DELETE", &self.at(&format!("/hooks/{}", hook["id"])), None, &[204]).await;
        }
    }

    /// Orders faults from the stand-in, as JSON (`FaultOrder`).
    pub async fn misbehave(&self, order: Value) {
        let auth = Auth::Token(&self.admin_token);
        self.http.call(auth, "POST", "/_standin/faults", Some(order)).await.expect(&[200, 201, 204]);
    }

    /// No more faults.
    pub async fn behave(&self) {
        let auth = Auth::Token(&self.admin_token);
        self.http.call(auth, "DELETE", "/_standin/faults", None).await.expect(&[200, 204]);
    }

    fn at(&self, rest: &str) -> String {
        format!("/repos/{}{rest}", self.repository())
    }

    /// A call as the forge's administrator.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>, allowed: &[u16]) -> Value {
        self.http.api(Auth::Token(&self.admin_token), method, path, body).await.expect(allowed).json()
    }

    /// Points a hook of the repository at a fresh listening post, signed with a
    /// secret of its own.
    pub async fn listening_post(&self) -> ListeningPost {
        let post = ListeningPost::start().await;
        self.add_hook(&post.url, "another secret").await;
        post
    }

    /// Adds a hook to the repository for everything that Lazarus listens to.
    pub async fn add_hook(&self, url: &str, secret: &str) {
        self.admin("POST", &self.at("/hooks"), Some(hook_order(url, secret)), &[201]).await;
    }

    // ── The command line ─────────────────────────────────────────────────

    /// Runs a command of the command line.
    pub fn cli(&self, arguments: &[&str]) -> CliOutput {
        let output = self.installation.run(arguments);
        self.printed.lock().unwrap().push_str(&output.all());
        output
    }

    /// `lazarus init OWNER/REPO`.
    pub fn init(&self) -> CliOutput {
        self.cli(&["init", &self.repository()])
    }

    /// `lazarus status --json`.
    pub fn status(&self) -> Value {
        self.cli(&["status", "--json"]).json()
    }

    /// The ids of the cells that may have processes, by `lazarus status
    /// --json`: live, and more than a proposal.
    pub fn live_cells(&self) -> Vec<String> {
        let status = self.status();
        let Some(cells) = status["active_cells"].as_array() else {
            panic!("`lazarus status --json` lists no `active_cells`: {status}")
        };
        cells
            .iter()
            .filter(|cell| {
                let state = cell["state"].as_str().expect("a cell has a state");
                !["proposed", "invited", "closed", "archived", "destroyed"].contains(&state)
            })
            .map(|cell| cell["cell_id"].as_str().expect("a cell has an id").to_owned())
            .collect()
    }

    /// `lazarus ledger verify`; fails the test if it fails.
    #[track_caller]
    pub fn ledger_verify(&self) {
        let output = self.cli(&["ledger", "verify"]);
        assert!(output.status.success(), "the ledger does not verify:\n{}", output.all());
    }

    /// The whole ledger as `lazarus ledger show --json` prints it.
    #[track_caller]
    pub fn ledger(&self) -> String {
        let output = self.cli(&["ledger", "show", "--json"]);
        assert!(output.status.success(), "`ledger show --json` failed:\n{}", output.all());
        output.stdout
    }

    // ── What a reader of the thread sees ─────────────────────────────────

    /// The issue, as the forge has it now.
    pub async fn issue(&self, issue: i64) -> Value {
        self.admin("GET", &self.at(&format!("/issues/{issue}")), None, &[200]).await
    }

    /// The names of an issue's labels.
    pub async fn labels(&self, issue: i64) -> Vec<String> {
        let issue = self.issue(issue).await;
        let labels = issue["labels"].as_array().cloned().unwrap_or_default();
        labels.iter().filter_map(|label| label["name"].as_str().map(str::to_owned)).collect()
    }

    /// All comments of an issue, oldest first.
    pub async fn comments(&self, issue: i64) -> Vec<Comment> {
        let list = self.admin("GET", &self.at(&format!("/issues/{issue}/comments")), None, &[200]).await;
        list.as_array().into_iter().flatten().map(Comment::from_json).collect()
    }

    /// The bot's comments among them.
    pub async fn bot_comments(&self, issue: i64) -> Vec<Comment> {
        let bot = self.bot().id;
        self.comments(issue).await.into_iter().filter(|comment| comment.author == bot).collect()
    }

    /// The bot's comments of one kind.
    pub async fn comments_of(&self, issue: i64, kind: Kind) -> Vec<Comment> {
        self.bot_comments(issue).await.into_iter().filter(|comment| comment.is(kind)).collect()
    }

    /// The bot's reactions to a comment.
    pub async fn reactions(&self, comment: i64) -> Vec<String> {
        let path = self.at(&format!("/issues/comments/{comment}/reactions"));
        let list = self.admin("GET", &path, None, &[200]).await;
        list.as_array()
            .into_iter()
            .flatten()
            .filter(|reaction| reaction["user"]["id"] == self.bot().id)
            .filter_map(|reaction| reaction["content"].as_str().map(str::to_owned))
            .collect()
    }

    /// The pull requests of the repository.
    pub async fn pulls(&self) -> Vec<Value> {
        let list = self.admin("GET", &self.at("/pulls?state=all"), None, &[200]).await;
        list.as_array().cloned().unwrap_or_default()
    }

    /// A file of a branch; `None` where there is none.
    pub async fn file_on(&self, branch: &str, path: &str) -> Option<String> {
        let branch = percent_encoding::utf8_percent_encode(branch, percent_encoding::NON_ALPHANUMERIC);
        let path = self.at(&format!("/contents/{path}?ref={branch}"));
        let reply = self.http.api(Auth::Token(&self.admin_token), "GET", &path, None).await;
        if reply.status == 404 {
            return None;
        }
        let encoded = reply.expect(&[200]).json()["content"].as_str()?.replace('\n', "");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file of a cell's home (contract §9), wherever the cell lies now.
    pub fn file_of_cell(&self, cell: &str, path: &str) -> Option<String> {
        ["cells", "graveyard"]
            .iter()
            .find_map(|root| fs::read(self.data().join(root).join(cell).join(path)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    // ── Waiting ──────────────────────────────────────────────────────────

    /// Waits until `probe` gives something. On failure prints the thread of
    /// `issue` and the daemon's log.
    pub async fn wait_until<T>(&self, what: &str, issue: i64, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(
                started.elapsed() <= CEILING,
                "waited {CEILING:?} in vain for {what}\n{}",
                self.evidence(issue).await
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits for a comment of the bot.
    pub async fn wait_for_comment(&self, issue: i64, kind: Kind, matches: impl Fn(&Comment) -> bool) -> Comment {
        self.wait_until(&format!("a comment of kind {kind} on #{issue}"), issue, async || {
            self.comments_of(issue, kind).await.into_iter().find(|comment| matches(comment))
        })
        .await
    }

    /// Waits for any of several kinds.
    pub async fn wait_for_any(&self, issue: i64, kinds: &[Kind], matches: impl Fn(&Comment) -> bool) -> Comment {
        let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
        self.wait_until(&format!("a comment of kind {} on #{issue}", words.join(" or ")), issue, async || {
            let mut comments = self.bot_comments(issue).await.into_iter();
            comments.find(|comment| kinds.iter().any(|kind| comment.is(*kind)) && matches(comment))
        })
        .await
    }

    /// Waits for a reaction of the bot.
    pub async fn wait_for_reaction(&self, issue: i64, comment: i64, content: &str) {
        let what = format!("the reaction `{content}` on comment {comment}");
        self.wait_until(&what, issue, async || {
            self.reactions(comment).await.contains(&content.to_owned()).then_some(())
        })
        .await;
    }

    /// Waits until a cell is in one of these states, by the command line.
    pub async fn wait_for_state(&self, issue: i64, cell: &str, states: &[&str]) -> String {
        self.wait_until(&format!("cell {cell} to be {}", states.join(" or ")), issue, async || {
            let state = self.cell_state(cell)?;
            states.contains(&state.as_str()).then_some(state)
        })
        .await
    }

    /// A cell's state, by `lazarus status CELL --json`.
    pub fn cell_state(&self, cell: &str) -> Option<String> {
        let output = self.cli(&["status", cell, "--json"]);
        output.json()["cell"]["state"].as_str().map(str::to_owned)
    }

    /// Waits until everything that has happened so far is heard, decided, done
    /// and posted: nothing pending by the daemon's own account, and the thread
    /// the same before and after.
    pub async fn assert_settled(&self, issue: i64) {
        self.wait_for_deliveries(issue).await;
        self.assert_quiet(issue).await;
    }

    /// The same for what has reached the daemon, without waiting for the forge.
    pub async fn assert_quiet(&self, issue: i64) {
        let mut before: Option<String> = None;
        self.wait_until(&format!("everything about #{issue} to settle"), issue, async || {
            if !self.daemon.is_ready().await {
                return None;
            }
            let status = self.status();
            let (Some(effects), Some(inputs)) = (status["pending_effects"].as_i64(), status["pending_inputs"].as_i64())
            else {
                panic!("`lazarus status --json` gives no `pending_effects` and `pending_inputs`: {status}");
            };
            let now = thread::render(&self.comments(issue).await);
            let settled = effects == 0 && inputs == 0 && before.as_ref() == Some(&now);
            before = Some(now);
            settled.then_some(())
        })
        .await;
    }

    /// Waits until the forge has delivered what it has to deliver. A real
    /// server does not tell: there, something that is certain to be answered is
    /// said after it on another issue, twice, since deliveries overtake.
    async fn wait_for_deliveries(&self, issue: i64) {
        if let Some(forge) = self.server.stand_in() {
            forge.wait_for_deliveries_idle().await;
            return;
        }
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        let fence = self.stranger().open_issue("a fence", "Said after everything else.").await;
        for round in 1..=2_usize {
            let asked = self.stranger().comment(fence, "/help").await;
            // Beyond the pace, a reaction is the whole answer.
            self.wait_until(&format!("round {round} of the fence"), issue, async || {
                let answered = self.comments_of(fence, Kind::Answer).await.len() >= round
                    || self.reactions(asked).await.iter().any(|reaction| reaction == "confused");
                answered.then_some(())
            })
            .await;
        }
    }

    /// Asserts that no cell was ever started for an issue.
    pub async fn assert_no_cell(&self, issue: i64) {
        self.assert_settled(issue).await;
        let logs = self.comments_of(issue, Kind::SpawnLog).await;
        assert!(logs.is_empty(), "a cell was started for #{issue}\n{}", self.evidence(issue).await);
        assert!(self.live_cells().is_empty(), "a cell lives\n{}", self.evidence(issue).await);
    }

    /// The thread and the daemon's log, for failure messages.
    pub async fn evidence(&self, issue: i64) -> String {
        format!(
            "══ the thread of #{issue} ══\n{}\n══ the daemon's log ══\n{}",
            thread::render(&self.comments(issue).await),
            self.installation.log_tail()
        )
    }

    // ── The end ──────────────────────────────────────────────────────────

    /// Ends the world: cells that live are destroyed, the daemon is stopped,
    /// and what must hold after every conversation is asserted.
    pub async fn finish(mut self) {
        if self.daemon.is_running() {
            for cell in self.live_cells() {
                let output = self.cli(&["destroy", &cell]);
                assert!(output.status.success(), "`lazarus destroy {cell}` failed:\n{}", output.all());
            }
            let everything = self.all_comments().await;
            let some_issue = everything.last().map_or(0, |(issue, _)| *issue);
            if some_issue > 0 {
                self.assert_settled(some_issue).await;
            }
            if !self.tampered {
                self.ledger_verify();
            }
            let status = self.daemon.stop().await;
            assert!(status.success(), "the daemon ended with {status} on SIGTERM:\n{}", self.installation.log_tail());
        }
        self.assert_nothing_runs().await;
        if let Some(faults) = self.server.faults() {
            let failed = faults.failed_errands();
            assert!(failed.is_empty(), "errands were refused, so what they were for was not tested: {failed:#?}");
        }
        let everything = self.all_comments().await;
        self.assert_comments_are_well_formed(&everything);
        self.assert_no_secret_leaked(&everything);
    }

    async fn all_comments(&self) -> Vec<(i64, Comment)> {
        let mut all = Vec::new();
        for page in 1..1000 {
            let path = self.at(&format!("/issues/comments?page={page}&limit=50"));
            let list = self.admin("GET", &path, None, &[200]).await;
            let list = list.as_array().cloned().unwrap_or_default();
            if list.is_empty() {
                break;
            }
            for comment in &list {
                let url = [&comment["issue_url"], &comment["pull_request_url"]]
                    .into_iter()
                    .find_map(|url| url.as_str().filter(|url| !url.is_empty()))
                    .unwrap_or_default();
                let issue = url.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
                all.push((issue, Comment::from_json(comment)));
            }
        }
        all
    }

    async fn assert_nothing_runs(&self) {
        let started = Instant::now();
        loop {
            let left = processes::naming(&self.needle(), &[]);
            if left.is_empty() {
                break;
            }
            if started.elapsed() > CEILING {
                for found in &left {
                    processes::kill(found.pid);
                }
                panic!("processes of cells are left: {left:#?}\n{}", self.installation.log_tail());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let mounts = processes::host_mounts_naming(&self.needle());
        assert!(mounts.is_empty(), "mounts are left on the host: {mounts:#?}");
    }

    /// What names this world in `/proc`.
    pub fn needle(&self) -> String {
        self.place.file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn assert_comments_are_well_formed(&self, all: &[(i64, Comment)]) {
        let (mut effects, mut statuses) = (HashMap::new(), HashMap::new());
        for (issue, comment) in all.iter().filter(|(_, comment)| comment.author == self.bot().id) {
            let Some(marker) = &comment.marker else {
                panic!("a comment of the bot on #{issue} does not end in a marker:\n{}", comment.body);
            };
            if let Some(first) = effects.insert(marker.effect.clone(), comment.id) {
                panic!("the effect {} was posted twice: as {first} and as {}", marker.effect, comment.id);
            }
            if marker.kind == Kind::Status
                && let Some(first) = statuses.insert(*issue, comment.id)
            {
                panic!("#{issue} has two status comments: {first} and {}", comment.id);
            }
        }
    }

    fn assert_no_secret_leaked(&self, all: &[(i64, Comment)]) {
        let said = thread::render(&all.iter().map(|(_, comment)| comment.clone()).collect::<Vec<_>>());
        let log = String::from_utf8_lossy(&fs::read(&self.installation.log).unwrap_or_default()).into_owned();
        let printed = self.printed.lock().unwrap().clone();
        let now = fs::read_to_string(self.place.join("webhook.secret")).unwrap_or_default();
        let now = now.trim();
        let secrets = [
            ("token", self.bot().token.as_str()),
            ("webhook secret", &self.webhook_secret),
            ("new webhook secret", if now.is_empty() { &self.webhook_secret } else { now }),
            ("canary", &self.canary),
        ];
        for (name, secret) in secrets {
            assert!(!said.contains(secret), "the {name} is in a comment");
            assert!(!log.contains(secret), "the {name} is in the daemon's log");
            assert!(!printed.contains(secret), "the {name} was printed by the command line");
        }
    }

    /// Everything that the world made on a real server, in the order in which
    /// it can be removed.
    fn traces(&self) -> Vec<String> {
        if !self.server.is_live() {
            return Vec::new();
        }
        let mut paths = vec![format!("/repos/{}", self.repository())];
        paths.extend(self.further_repositories.lock().unwrap().iter().map(|name| format!("/repos/{name}")));
        paths.push(format!("/orgs/{}", self.organisation));
        // The newest name first: an older one may be somebody else's by now.
        paths.extend(self.further_organisations.lock().unwrap().iter().rev().map(|name| format!("/orgs/{name}")));
        let logins = self.extra_logins.lock().unwrap();
        paths.extend(logins.iter().map(|login| format!("/admin/users/{login}?purge=true")));
        paths
    }
}

impl World {
    /// Adds the seconds of this test to the file that `LAZARUS_TEST_TIMES` names, so
    /// that `make test` can print the slowest ones.
    fn note_how_long_it_took(&self) {
        let Some(file) = std::env::var_os("LAZARUS_TEST_TIMES") else { return };
        let thread = std::thread::current();
        let test = thread.name().unwrap_or(&self.name);
        let line = format!("{:.1} {test}\n", self.began.elapsed().as_secs_f64());
        let added = fs::OpenOptions::new().create(true).append(true).open(file);
        let _ = added.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
    }
}

impl Drop for World {
    /// Also runs when a conversation failed: leaves no process, no account and
    /// no file, except that a failed world's files stay if `KEEP_WORLD` is set.
    fn drop(&mut self) {
        self.note_how_long_it_took();
        if self.daemon.is_running() {
            self.daemon.kill_9();
        }
        for found in processes::naming(&self.needle(), &[]) {
            processes::kill(found.pid);
        }
        // The runtime of the test may be ending: sweep on one of our own.
        let (base, token, traces) = (self.http.base().to_owned(), self.admin_token.clone(), self.traces());
        let sweep = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let http = Http::new(&base);
                for path in traces {
                    let _ = http.api(Auth::Token(&token), "DELETE", &path, None).await;
                }
            });
        });
        if sweep.join().is_err() {
            eprintln!("the forge could not be swept clean of `{}`", self.organisation);
        }
        if std::thread::panicking() && std::env::var_os("KEEP_WORLD").is_some() {
            eprintln!("kept: {} and {}", self.place.display(), self.forge_place.display());
            return;
        }
        for dir in [&self.place, &self.forge_place] {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// What the agent `looker` runs: everything it can see of names, environment
/// and other processes goes into a file that it commits.
const LOOKER: &str = "( env; echo ---; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\000' '\\n'; echo ---; ls -a / \"$HOME\" .. ) > seen.txt; git add seen.txt; git -c user.name=looker -c user.email=looker@agents.lazarus.invalid commit -qm 'What I can see'";

/// The level that conversations ask for: the default, or, on a host that
/// cannot give it, the weakest, as policy has to say in as many words.
/// `LAZARUS_TEST_ISOLATION` names another.
fn isolation_line() -> String {
    if let Ok(level) = std::env::var("LAZARUS_TEST_ISOLATION") {
        return format!("isolation_min = {level:?}");
    }
    // By the binary and not by the library: the probe clones, which only a
    // process without threads may do.
    let output = Command::new(program()).arg("cell-probe").output().expect("the binary starts");
    let report: lazarus_sandbox::sandbox::HostReport =
        serde_json::from_slice(&output.stdout).expect("a report on this host");
    if report.level_2() { String::new() } else { "isolation_min = \"level_1\"".to_owned() }
}

/// A hook for everything that Lazarus listens to.
fn hook_order(url: &str, secret: &str) -> Value {
    json!({
        "type": "gitea", "active": true, "branch_filter": "*",
        "events": ["issues", "issue_label", "issue_comment", "pull_request_comment"],
        "config": {"url": url, "content_type": "json", "secret": secret},
    })
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Eight letters and digits that no other world has.
fn random_word() -> String {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).expect("randomness from the system");
    hex::encode(bytes)
}
