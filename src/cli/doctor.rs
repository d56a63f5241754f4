//! `lazarus doctor`: whether this installation can do its work, found by doing
//! it. Every line says what was found and, where something is wrong, what to
//! do about it.
//!
//! Scopes are tried with calls that the forge must refuse for their values
//! (422) if it lets them through at all, so nothing is changed. The way of an
//! event is tried with a real one, for the forge's own "test delivery" proves
//! little: a comment, written and deleted again on an issue of the bot's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::stream::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::init::{self, SCOPES, TemplateFile};
use crate::config::{Config, ConfigError, Isolation};
use crate::gitea::{Forge, ForgeError, IssueQuery, Named, NewLabel, Product, RepoApi, Repository, UiSettings, User};
use crate::sandbox::{FIRST_ID, Groups, HostReport, quota};
use crate::store::{DataLock, Pin, PinKind};

/// Text below `lazarus doctor --help`.
pub const HELP: &str = "\
Looks at configuration, token and scopes, the bot's rights, the server, the way
of a real event from the forge to here, isolation, git and disk. Each line says
what to do. For the way of an event the daemon has to run; an issue named
\"Lazarus doctor\" is then opened in each repository, commented, and deleted
again: people who watch the repository may get a mail.

Exits with 0 if no line failed; warnings do not count.";

/// Title of the issue on which the way of an event is tried.
pub const ISSUE_TITLE: &str = "Lazarus doctor";

/// Name of the lines about it.
const WAY: &str = "way of an event";

/// How long a real event may take from the forge to our inbox.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// An event that is here within this time hardly came by polling.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(5);

/// Repositories in which the way of an event is tried at once.
const EVENTS_AT_ONCE: usize = 4;

/// Oldest git that has all options that Lazarus gives it.
const GIT_MIN: (u32, u32) = (2, 30);

/// Free space below which there is a warning, in bytes.
const SPACE_MIN: u64 = 2 << 30;

/// Difference between the forge's clock and ours from which there is a
/// warning, in seconds.
const SKEW_MAX: i64 = 30;

/// Bytes of the webhook secret below which there is a warning.
const SECRET_MIN: usize = 16;

/// Reactions that Lazarus gives (contract §7).
const REACTIONS: [&str; 3] = ["eyes", "+1", "confused"];

/// How a check ended. In JSON: `true`, `"warn"`, `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but somebody should know.
    Warn,
    /// Does not work.
    Fail,
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ok => serializer.serialize_bool(true),
            Self::Warn => serializer.serialize_str("warn"),
            Self::Fail => serializer.serialize_bool(false),
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub ok: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub do_this: String,
}

/// All checks, in the order in which one would put things right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DoctorReport {
    /// The checks.
    pub lines: Vec<Line>,
}

impl DoctorReport {
    /// Whether no line failed: then the exit status is 0.
    pub fn success(&self) -> bool {
        self.lines.iter().all(|line| line.ok != Verdict::Fail)
    }

    /// The outcome in one sentence.
    pub fn message(&self) -> String {
        let count = |verdict| self.lines.iter().filter(|line| line.ok == verdict).count();
        match (count(Verdict::Fail), count(Verdict::Warn)) {
            (0, 0) => "All is well.".to_owned(),
            (0, warnings) => format!("Works; {warnings} to look at."),
            (failed, warnings) => format!("{failed} failed, {warnings} to look at."),
        }
    }

    /// One JSON object: `success`, `message`, `lines`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({ "success": self.success(), "message": self.message(), "lines": self.lines })
    }

    /// What to print, for people or as JSON. Ends without a newline.
    pub fn text(&self, json: bool) -> String {
        if json { self.to_json().to_string() } else { self.to_string().trim_end().to_owned() }
    }

    fn add(&mut self, ok: Verdict, name: &str, found: impl Into<String>, do_this: impl Into<String>) {
        self.lines.push(line(ok, name, found, do_this));
    }

    fn ok(&mut self, name: &str, found: impl Into<String>) {
        self.add(Verdict::Ok, name, found, "");
    }
}

fn line(ok: Verdict, name: &str, found: impl Into<String>, do_this: impl Into<String>) -> Line {
    Line {
        name: init::printable(name),
        ok,
        found: init::printable(&found.into()),
        do_this: init::printable(&do_this.into()),
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let verdict = match line.ok {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            let lead = format!("{verdict:4}  ");
            let text = format!("{}: {}", line.name, line.found);
            init::paragraph(f, &lead, "      ", &text)?;
            if !line.do_this.is_empty() {
                init::paragraph(f, "      -> ", "         ", &line.do_this)?;
            }
        }
        writeln!(f, "\n{}", self.message())
    }
}

/// Does all checks. Takes some seconds, at most about 10 s for each four
/// repositories where events do not arrive.
pub async fn run(config: &Config) -> DoctorReport {
    run_with_probe(config, Path::new("/proc/self/exe")).await
}

/// [`run`], with this program (a `lazarus`) asked what isolation the host can
/// give: the probe forks, so it needs a process of its own.
pub async fn run_with_probe(config: &Config, program: &Path) -> DoctorReport {
    let mut report = DoctorReport::default();
    configuration(config, &mut report);
    out_of_sight(config, &mut report);
    on_the_forge(config, &mut report).await;
    isolation(config, program, &mut report).await;
    git(&mut report).await;
    disk(config, &mut report);
    what_waits(config, &mut report);
    who(&mut report);
    report
}

fn configuration(config: &Config, report: &mut DoctorReport) {
    let from = config.file.as_ref().map_or_else(
        || "no file was found; defaults and environment alone".to_owned(),
        |file| format!("file {}", file.display()),
    );
    match config.ready_to_serve() {
        Ok(()) => report.ok("configuration", from),
        Err(ConfigError::Invalid(problems)) => {
            for problem in problems {
                let text = problem.text;
                let (found, to_do) = text.split_once(": ").unwrap_or((&text, ""));
                report.add(
                    Verdict::Fail,
                    "configuration",
                    format!("{found} ({from})"),
                    format!("{to_do}\nset it in the file (docs/configuration.md, config/lazarus.toml)").trim(),
                );
            }
        }
        Err(error) => report.add(Verdict::Fail, "configuration", error.to_string(), "see docs/configuration.md"),
    }
    if config.webhook.secret.is_set() {
        match config.webhook.secret.read() {
            Ok(secret) if secret.expose_secret().len() < SECRET_MIN => report.add(
                Verdict::Warn,
                "webhook secret",
                format!("shorter than {SECRET_MIN} bytes: whoever guesses it can send commands"),
                "take a long random one, or delete the file; then `lazarus init OWNER/REPO` for each repository",
            ),
            Ok(_) => report.ok("webhook secret", config.webhook.secret.to_string()),
            Err(error) => report.add(
                Verdict::Fail,
                "webhook secret",
                error.to_string(),
                "`lazarus init OWNER/REPO` makes the file if it is missing, with the webhook that knows it",
            ),
        }
    }
    for (name, source) in &config.credentials {
        if let Err(error) = source.read() {
            report.add(
                Verdict::Fail,
                &format!("credential {name}"),
                error.to_string(),
                "put it there: agents that name it cannot be started without",
            );
        }
    }
}

/// Whether cells would see something of ours: then the daemon does not start.
fn out_of_sight(config: &Config, report: &mut DoctorReport) {
    const NAME: &str = "what cells see";
    let found = config.sight().ours_in_sight();
    for one in &found {
        report.add(Verdict::Fail, NAME, one.found(), one.to_do());
    }
    if found.is_empty() {
        report.ok(NAME, "nothing of ours: data, secrets and configuration lie elsewhere");
    }
}

/// Everything that needs the forge. Stops at what makes the rest senseless.
async fn on_the_forge(config: &Config, report: &mut DoctorReport) {
    if config.forge.url.is_empty() || !config.forge.token.is_set() {
        return;
    }
    let forge = match init::connect(config) {
        Ok(forge) => forge,
        Err(error) => {
            report.add(
                Verdict::Fail,
                "token",
                format!("{error:#}"),
                "put the bot's token there: on the forge, as the bot, Settings, Applications, Generate New Token",
            );
            return;
        }
    };
    let version = match forge.version().await {
        Ok(version) => Some(version),
        // A server that wants a sign-in for everything says so of this too.
        Err(ForgeError::Unauthorized { .. } | ForgeError::Forbidden { .. }) => None,
        Err(error) => {
            report.add(
                Verdict::Fail,
                "forge",
                format!("{} does not answer as a forge: {error}", config.forge.url),
                way_to_the_forge(config, &error),
            );
            return;
        }
    };
    if let Some(version) = &version {
        let product = match version.product {
            Product::Gitea => "Gitea",
            Product::Forgejo => "Forgejo",
        };
        let found = format!("{product} {} at {}", version.raw, config.forge.url);
        if version.below_fixed_cve() {
            report.add(
                Verdict::Warn,
                "forge",
                format!("{found}: below 1.26.2 the scopes of a token can be got round (CVE-2026-28699, CVE-2026-24791)"),
                "the forge's administrator: update to Gitea 1.26.2 or newer; until then treat the bot's token as one that can do all that its account can",
            );
        } else {
            report.ok("forge", found);
        }
    }
    clock(&forge, report).await;

    let bot = match forge.current_user().await {
        Ok(bot) => {
            report.ok("token", format!("of the account {} (id {})", bot.login, bot.id));
            Some(bot)
        }
        Err(error @ ForgeError::Unauthorized { .. }) => {
            report.add(
                Verdict::Fail,
                "token",
                error.to_string(),
                "make a new one: on the forge, as the bot, Settings, Applications, Generate New Token; nothing else on the forge was looked at",
            );
            return;
        }
        Err(error) => {
            report.lines.push(scope_line("read:user", Err(error)));
            None
        }
    };
    let repositories = repositories(config, &forge, report).await;
    scopes(&forge, bot.is_some(), repositories.first(), report).await;
    reactions(forge.ui_settings().await, report);
    for found in &repositories {
        repository(config, &forge, found, bot.as_ref(), report).await;
    }
    if let Some(bot) = &bot {
        events(config, &forge, &repositories, bot, report).await;
    }
}

/// What to do where the forge is not reached.
fn way_to_the_forge(config: &Config, error: &ForgeError) -> &'static str {
    let proxied = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let says = error.to_string();
    if says.contains("certificate") || says.contains("UnknownIssuer") {
        "if the forge's certificate is from an authority of your own, set forge.ca_file to the file with that authority's certificate; nothing on the forge was looked at"
    } else if config.forge.proxy.is_empty() && proxied.iter().any(|name| std::env::var_os(name).is_some()) {
        "the environment names a proxy, which Lazarus does not use by itself: if the forge is behind it, set forge.proxy; else put forge.url right, or the forge. Nothing on the forge was looked at"
    } else {
        "put forge.url right, or the forge; nothing on the forge was looked at"
    }
}

/// The forge's clock, from the `Date` of any answer: watermarks and deadlines
/// compare its times with ours.
async fn clock(forge: &Forge, report: &mut DoctorReport) {
    let Some(skew) = forge_clock_ahead(forge).await else {
        return;
    };
    let found = match skew {
        0 => "the forge's and this machine's agree".to_owned(),
        s if s > 0 => format!("the forge's is {s} s ahead of this machine's"),
        s => format!("the forge's is {} s behind this machine's", -s),
    };
    if skew.abs() > SKEW_MAX {
        report.add(
            Verdict::Warn,
            "clocks",
            found,
            "have both machines keep time (NTP): waiting times after edits and deadlines are off by this much",
        );
    } else {
        report.ok("clocks", found);
    }
}

/// Seconds by which the forge's clock is ahead of ours.
async fn forge_clock_ahead(forge: &Forge) -> Option<i64> {
    let before = Timestamp::now().as_second();
    let date = forge.date().await?.as_second();
    let after = Timestamp::now().as_second();
    // Within the time of the call, in whole seconds, nothing can be said.
    Some(if date < before - 1 {
        date - before
    } else if date > after + 1 {
        date - after
    } else {
        0
    })
}

/// What a name of the configuration was pinned to by the daemon, if it was.
fn pin(config: &Config, kind: PinKind, name: &str) -> Option<Pin> {
    let registry = &config.paths.registry;
    if !registry.exists() {
        return None;
    }
    crate::store::look(registry, |tx| tx.pin(kind, name)).ok().flatten()
}

/// The configured repositories, as the forge knows them: by the number that was
/// pinned, where one was.
async fn repositories(config: &Config, forge: &Forge, report: &mut DoctorReport) -> Vec<Repository> {
    let mut found = Vec::new();
    for configured in &config.repositories {
        let name = &configured.name;
        let pin = pin(config, PinKind::Repository, name);
        if let Some(id) = pin.as_ref().map(|pin| pin.id).filter(|id| *id > 0) {
            match forge.repository_by_id(id).await {
                Ok(Some(repository)) => {
                    let now = repository.reference().full_name();
                    if !now.eq_ignore_ascii_case(name) {
                        report.add(
                            Verdict::Fail,
                            name,
                            format!("is now named {now} (id {id}); it is served by its number"),
                            "write its new name into [[repositories]]: somebody else may take the old one",
                        );
                    }
                    found.push(repository);
                }
                Ok(None) => report.add(
                    Verdict::Fail,
                    name,
                    format!("the repository that this name meant (id {id}) is gone, or the bot cannot see it any more"),
                    format!("add the bot's account to it again; or, if another one of that name is meant now: `lazarus pins forget repository {name}`"),
                ),
                Err(error) => {
                    report.add(Verdict::Fail, name, error.to_string(), "put this right, then run the doctor again");
                }
            }
            continue;
        }
        if let Some(fault) = pin.and_then(|pin| pin.fault) {
            report.add(Verdict::Fail, name, fault, "");
            continue;
        }
        let (owner, short) = configured.owner_and_name();
        match forge.repo(owner, short).get().await {
            Ok(Some(repository)) => found.push(repository),
            Ok(None) => report.add(
                Verdict::Fail,
                name,
                "not there, or the bot cannot see it",
                "put the name in [[repositories]] right, or add the bot's account to it as an administrator (Settings, Collaborators)",
            ),
            Err(error @ ForgeError::Moved { .. }) => {
                let now = crate::engine::renamed_repository(forge, &error).await;
                report.add(
                    Verdict::Fail,
                    name,
                    now.map_or_else(
                        || error.to_string(),
                        |now| format!("is now named {} (id {})", now.reference().full_name(), now.id),
                    ),
                    "it was renamed or moved: write its new name into [[repositories]]",
                );
            }
            Err(error) => {
                report.add(Verdict::Fail, name, error.to_string(), "put this right, then run the doctor again");
            }
        }
    }
    found
}

/// Tries each scope with a call that changes nothing.
async fn scopes(forge: &Forge, user_read: bool, found: Option<&Repository>, report: &mut DoctorReport) {
    if user_read {
        report.lines.push(scope_line("read:user", Ok(())));
    }
    let organizations = forge.request(Method::GET, "/user/orgs?page=1&limit=1", None).await;
    report.lines.push(scope_line("read:organization", organizations.map(drop)));
    let Some(found) = found else { return };
    let api = forge.repo_ref(&found.reference());
    // No colour, so no label, if the call gets through at all.
    let label = NewLabel { name: "lazarus/doctor".to_owned(), color: "nope".to_owned(), ..NewLabel::default() };
    let issue = match api.create_label(label).await {
        Ok(label) => api.delete_label(label.id).await.map(drop),
        Err(ForgeError::Invalid { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    report.lines.push(scope_line("write:issue", issue));
    // No such type, so no webhook.
    let path = init::below(found, "/hooks");
    let body = json!({ "type": "nonsense", "active": false, "events": [], "config": {} });
    let repository = match forge.request(Method::POST, &path, Some(&body)).await {
        Err(ForgeError::Invalid { .. }) => Ok(()),
        other => other.map(drop),
    };
    report.lines.push(scope_line("write:repository", repository));
}

fn scope_line(scope: &str, tried: Result<(), ForgeError>) -> Line {
    let name = format!("scope {scope}");
    match tried {
        Ok(()) => line(Verdict::Ok, &name, "granted", ""),
        Err(ForgeError::Forbidden { missing_scope: Some(_), .. }) => line(
            Verdict::Fail,
            &name,
            "the token lacks it",
            format!(
                "scopes of a token cannot be changed: make a new one with {} (on the forge, as the bot, Settings, Applications)",
                SCOPES.join(", ")
            ),
        ),
        // Let through by its scope, and stopped by the account's rights: that
        // is the line of the repository.
        Err(ForgeError::Forbidden { .. } | ForgeError::NotFound { .. } | ForgeError::Locked { .. }) => {
            line(Verdict::Ok, &name, "granted, though the account lacks the rights for it", "")
        }
        Err(error) => line(Verdict::Warn, &name, format!("cannot be told: {error}"), "run the doctor again"),
    }
}

fn reactions(settings: Result<UiSettings, ForgeError>, report: &mut DoctorReport) {
    match settings {
        Ok(settings) => {
            let missing: Vec<&str> = REACTIONS
                .into_iter()
                .filter(|r| !settings.allowed_reactions.iter().any(|allowed| allowed == r))
                .collect();
            if missing.is_empty() {
                report.ok("reactions", format!("{} are allowed", REACTIONS.join(", ")));
            } else {
                report.add(
                    Verdict::Warn,
                    "reactions",
                    format!("the forge does not allow {}", missing.join(", ")),
                    "the forge's administrator: add them to [ui] REACTIONS in app.ini; without them commands are answered by comments alone",
                );
            }
        }
        Err(error) => {
            report.add(Verdict::Warn, "reactions", format!("cannot be told: {error}"), "run the doctor again");
        }
    }
}

/// The bot's rights in one repository, and what `init` makes there.
async fn repository(config: &Config, forge: &Forge, found: &Repository, bot: Option<&User>, report: &mut DoctorReport) {
    let full_name = found.reference().full_name();
    let bot_name = bot.map_or("the bot", |bot| bot.login.as_str());
    if found.archived {
        report.add(
            Verdict::Fail,
            &full_name,
            "archived: nothing can be written there",
            "take it out of the archive (Settings, at the bottom), or out of [[repositories]]",
        );
        return;
    }
    let administrator = format!("add {bot_name} under Settings, Collaborators of {full_name} as Administrator");
    match (found.permissions.admin, found.permissions.push) {
        (true, _) => report.ok(&full_name, format!("{bot_name} administers it")),
        (false, true) => report.add(
            Verdict::Fail,
            &full_name,
            format!(
                "{bot_name} can write, but does not administer it: it cannot read who may do what, so nobody but configured \
                 directors is obeyed; nor see to the webhook, nor comment where an issue's author blocks it"
            ),
            administrator,
        ),
        (false, false) => report.add(
            Verdict::Fail,
            &full_name,
            format!("{bot_name} can only read it: no branch, no pull request, no label can be made"),
            administrator,
        ),
    }
    if init::issues_are_off(forge, found).await {
        report.add(
            Verdict::Fail,
            &full_name,
            "has no issues, and missions are issues",
            "switch them on: Settings, Repository, Issues; the built-in tracker",
        );
    }
    let api = forge.repo_ref(&found.reference());
    directors(config, forge, &api, found, report).await;
    if !found.permissions.admin {
        return;
    }
    let name = format!("{full_name} (prepared)");
    let again = format!("run `lazarus init {full_name}`");
    let seen = match init::survey(forge, &api, found, config).await {
        Ok(seen) => seen,
        Err(error) => {
            report.add(Verdict::Fail, &name, format!("{error:#}"), "put this right, then run the doctor again");
            return;
        }
    };
    let before = report.lines.len();
    let missing = seen.missing_labels();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|label| label.name.as_str()).collect();
        report.add(Verdict::Fail, &name, format!("labels are missing: {}", names.join(", ")), again.clone());
    }
    for label in init::labels() {
        if let Some(odd) = seen.odd_label(&label) {
            report.add(Verdict::Warn, &name, format!("label {}", label.name), odd);
        }
    }
    approval_label(config, found, &seen, report);
    for template in &seen.templates {
        let path = template.wanted.path;
        let (found, to_do) = match (template.file, template.offered) {
            (TemplateFile::Missing, _) => ("is missing", again.clone()),
            (_, false) => (
                "is there, but the forge does not offer it",
                "open the file on the forge: the page says what is wrong".to_owned(),
            ),
            (TemplateFile::Outdated, _) => (
                "is older than the policy, or of another version: it may offer what is refused, and lack what is allowed",
                again.clone(),
            ),
            (TemplateFile::Edited, _) => (
                "was edited, or is not ours: it may offer what policy refuses",
                format!("if that is not meant: `lazarus init {full_name} --force`"),
            ),
            (TemplateFile::Current, _) => continue,
        };
        report.add(Verdict::Warn, &name, format!("template {path} {found}"), to_do);
    }
    if let Some(fault) = seen.hook_fault() {
        report.add(Verdict::Fail, &name, format!("webhook to {}: {fault}", config.webhook.address()), again);
    }
    if report.lines[before..].iter().all(|line| line.ok == Verdict::Ok) {
        report.ok(&name, "labels, templates and webhook are there");
    }
}

/// Whether the configured directors are there, and their teams readable.
async fn directors(config: &Config, forge: &Forge, api: &RepoApi, found: &Repository, report: &mut DoctorReport) {
    let Some(configured) = configured(config, found) else {
        return;
    };
    let name = format!("{} (directors)", found.reference().full_name());
    for login in &configured.directors {
        let (found, to_do) = match pin(config, PinKind::Account, login) {
            Some(pin) if pin.id > 0 => pinned_account(forge, login, pin.id).await,
            Some(pin) => (pin.fault, String::new()),
            None => account(forge, &configured.name, login).await,
        };
        if let Some(found) = found {
            report.add(Verdict::Fail, &name, found, to_do);
        }
    }
    for team in &configured.director_teams {
        let again = format!("if another one is meant now: `lazarus pins forget team {team}`");
        match pin(config, PinKind::Team, team) {
            Some(pin) if pin.id > 0 => match forge.team(pin.id).await {
                Ok(Some(found)) if found.organization.as_ref().map(|org| org.id) != pin.within => report.add(
                    Verdict::Fail,
                    &name,
                    format!("the team {team} (id {}) belongs to another organisation than it did: its members are no directors", pin.id),
                    again,
                ),
                Ok(Some(_)) => team_is_readable(forge, team, pin.id, &name, report).await,
                Ok(None) | Err(ForgeError::Forbidden { .. }) => report.add(
                    Verdict::Fail,
                    &name,
                    format!("the team {team} (id {}) is gone, or the bot cannot read it any more: its members are no directors", pin.id),
                    format!("add the bot's account to that team, or to the organisation's owners; {again}"),
                ),
                Err(error) => report.add(Verdict::Warn, &name, format!("{team}: {error}"), "run the doctor again"),
            },
            Some(Pin { fault: Some(fault), .. }) => report.add(Verdict::Fail, &name, fault, ""),
            _ => {
                let Some((organisation, team_name)) = team.split_once('/') else {
                    continue;
                };
                let mut teams = api.teams().await.unwrap_or_default();
                teams.extend(forge.org_teams(organisation).await.unwrap_or_default());
                match teams.iter().find(|team| team.name.eq_ignore_ascii_case(team_name)) {
                    Some(known) => team_is_readable(forge, team, known.id, &name, report).await,
                    None => report.add(
                        Verdict::Fail,
                        &name,
                        format!("there is no team {team} that the bot can see"),
                        "correct `director_teams`, or add the bot's account to that team",
                    ),
                }
            }
        }
    }
    if configured.directors.is_empty() && configured.director_teams.is_empty() && !configured.administrators {
        report.add(
            Verdict::Fail,
            &name,
            "nobody is one, so nothing can be approved",
            "set `directors`, `director_teams` or `administrators = true` in [[repositories]]",
        );
    }
}

/// What the configuration says of a repository, whatever its name is now.
fn configured<'a>(config: &'a Config, found: &Repository) -> Option<&'a crate::config::Repository> {
    let pinned = |configured: &&crate::config::Repository| {
        pin(config, PinKind::Repository, &configured.name).is_some_and(|pin| pin.id == found.id)
    };
    config.repositories.iter().find(pinned).or_else(|| config.repository(&found.reference().full_name()))
}

/// What is wrong with a director who was pinned, if anything, and what to do.
async fn pinned_account(forge: &Forge, login: &str, id: i64) -> (Option<String>, String) {
    let new_name = "write the new name into `directors`".to_owned();
    match forge.user_by_id(id).await {
        Ok(Some(user)) if user.login.eq_ignore_ascii_case(login) => (None, String::new()),
        Ok(Some(user)) => {
            let taken = match forge.account(login).await {
                Ok(Named::Is(other)) => {
                    format!("; the name {login} is another account's now (id {}), who is no director", other.id)
                }
                _ => String::new(),
            };
            let found = format!(
                "the account {login} (id {id}) is now named {}, and is a director by its number{taken}",
                user.login
            );
            (Some(found), new_name)
        }
        Ok(None) => (
            Some(format!("the account that {login} meant (id {id}) is gone: nobody is a director by that name")),
            format!(
                "take it out of `directors`; if another account of that name is meant now: `lazarus pins forget account {login}`"
            ),
        ),
        Err(error) => (Some(format!("{login}: {error}")), "run the doctor again".to_owned()),
    }
}

/// The same for one whom no daemon has looked up yet.
async fn account(forge: &Forge, repository: &str, login: &str) -> (Option<String>, String) {
    match forge.account(login).await {
        Ok(Named::Is(_)) => (None, String::new()),
        Ok(Named::Renamed { id, to }) => (
            Some(format!(
                "the account `{login}` of [[repositories]] {repository} directors is now named `{to}` (id {id})"
            )),
            "write the new name into `directors`: whoever takes the old one must not become a director".to_owned(),
        ),
        Ok(Named::Nothing) => (
            Some(format!("there is no account {login}")),
            "correct `directors` in [[repositories]]: whoever takes that name would be a director".to_owned(),
        ),
        Err(error) => (Some(format!("{login}: {error}")), "put this right, then run the doctor again".to_owned()),
    }
}

async fn team_is_readable(forge: &Forge, team: &str, id: i64, name: &str, report: &mut DoctorReport) {
    if forge.request(Method::GET, &format!("/teams/{id}/members?page=1&limit=1"), None).await.is_err() {
        report.add(
            Verdict::Fail,
            name,
            format!("the bot cannot read who is in the team {team}: its members are no directors"),
            "add the bot's account to that team, or to the organisation's owners; or name the people in `directors`",
        );
    }
}

/// Whether approval by label is on: the label that was pinned is there, under its
/// name.
fn approval_label(config: &Config, found: &Repository, seen: &init::Survey, report: &mut DoctorReport) {
    let full_name = found.reference().full_name();
    let Some(pin) = pin(config, PinKind::Label, &crate::store::label_name(found.id, init::APPROVED)) else {
        return;
    };
    let there = seen.labels.get(init::APPROVED).is_some_and(|labels| labels.iter().any(|label| label.id == pin.id));
    let why = match pin.fault {
        Some(fault) => fault,
        None if there => return,
        None => format!("the label {} (id {}) was deleted or renamed", init::APPROVED, pin.id),
    };
    report.add(
        Verdict::Warn,
        &format!("{full_name} (prepared)"),
        format!("approval by label is off: {why}"),
        format!(
            "`/approve` works; `lazarus init {full_name}` pins the label anew (run it as the user of `lazarus serve`)"
        ),
    );
}

/// What the daemon tries again and again, and branches that it cannot fetch.
fn what_waits(config: &Config, report: &mut DoctorReport) {
    let registry = &config.paths.registry;
    if !registry.exists() {
        return;
    }
    match crate::store::look(registry, crate::operations::waiting) {
        Ok(waiting) => {
            for waits in waiting {
                report.add(
                    Verdict::Warn,
                    "tried again",
                    waits.to_string(),
                    "what is for people to mend (401, 403, 404) goes on by itself once it is mended",
                );
            }
        }
        Err(error) => {
            report.add(Verdict::Fail, "registry", error.to_string(), "run the doctor as the user of `lazarus serve`");
        }
    }
    for configured in &config.repositories {
        let Some(id) = pin(config, PinKind::Repository, &configured.name).map(|pin| pin.id) else { continue };
        let mirror = crate::repository::mirror_of(&crate::repository::mirrors_in(&config.paths.data), id);
        for branch in crate::repository::left_out_of(&mirror) {
            report.add(
                Verdict::Warn,
                &configured.name,
                format!("the branch {} cannot be fetched, and is left out of cells: {}", branch.name, branch.why),
                "its objects are broken or dangerous: rewrite or delete that branch",
            );
        }
    }
}

/// The way of a real event from the forge to us, in each repository.
async fn events(config: &Config, forge: &Forge, repositories: &[Repository], bot: &User, report: &mut DoctorReport) {
    if repositories.is_empty() || config.webhook.public_url.is_empty() {
        return;
    }
    if !DataLock::is_held(&config.paths.data) {
        report.add(
            Verdict::Warn,
            WAY,
            format!("not tried: no daemon runs on {}", config.paths.data.display()),
            "start `lazarus serve`, then run the doctor again beside it",
        );
        return;
    }
    let tries: Vec<_> = repositories.iter().map(|found| event_line(config, forge, found, bot)).collect();
    let lines: Vec<Line> = futures::stream::iter(tries).buffered(EVENTS_AT_ONCE).collect().await;
    report.lines.extend(lines);
}

async fn event_line(config: &Config, forge: &Forge, found: &Repository, bot: &User) -> Line {
    let name = format!("{} ({WAY})", found.reference().full_name());
    if found.archived {
        return line(Verdict::Fail, &name, "not tried: it is archived", "take it out of the archive");
    }
    match one_event(config, forge, found, bot).await {
        Ok(way) => way.line(config, &name),
        Err(error) => line(
            Verdict::Fail,
            &name,
            format!("cannot be tried: {error}"),
            format!(
                "put this right, then run the doctor again; an issue \"{ISSUE_TITLE}\" that is left over may be deleted"
            ),
        ),
    }
}

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// From the forge's answer to our inbox. `None`: not within the limit.
    created: Option<Duration>,
    /// Whether its deletion came too, which polling cannot see.
    deleted: bool,
}

impl Way {
    fn line(self, config: &Config, name: &str) -> Line {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
        let (setting, about) = init::allowed_host_list(config);
        let not_heard = format!(
            "most likely the forge refuses to call {}. Its administrator sets in app.ini, then restarts it:\n    [webhook]\n    {setting}\n\
             ({about}.)\nThe webhook's page (repository, Settings, Webhooks, at the bottom) says what happened to each delivery:\n\
             - \"webhook can only call allowed HTTP servers\": the setting above\n\
             - no connection, or a time-out: webhook.public_url does not lead here, or a firewall is in between\n\
             - 401: the webhook has not the secret that belongs to this repository: run `lazarus init` for it\n\
             - 404: a proxy in between does not pass {} on",
            config.webhook.address(),
            config.webhook.path
        );
        match self.created {
            Some(time) if self.deleted || (time <= WEBHOOK_LIMIT && config.reconcile.interval > EVENT_LIMIT) => {
                line(Verdict::Ok, name, format!("a comment was here by the webhook after {}", seconds(time)), "")
            }
            Some(time) => line(
                Verdict::Warn,
                name,
                format!("a comment was here after {}, perhaps by polling alone", seconds(time)),
                format!("if the webhook's page shows no delivery: {not_heard}"),
            ),
            None => line(
                Verdict::Fail,
                name,
                format!(
                    "a comment was not here after {}: events are found by polling alone, up to {} s late",
                    seconds(EVENT_LIMIT),
                    config.reconcile.interval.as_secs()
                ),
                not_heard,
            ),
        }
    }
}

/// Comments on the doctor's issue, waits, and takes everything back.
async fn one_event(config: &Config, forge: &Forge, found: &Repository, bot: &User) -> Result<Way, ForgeError> {
    let api = forge.repo_ref(&found.reference());
    let mut left_over = None;
    let mut open = api.issues(IssueQuery::default()).take(500);
    while let Some(issue) = open.try_next().await? {
        if issue.author.id == bot.id && issue.title == ISSUE_TITLE {
            left_over = Some(issue);
            break;
        }
    }
    let issue = if let Some(issue) = left_over {
        issue
    } else {
        let body = "`lazarus doctor` looks whether events arrive. This issue goes again by itself.\n\n<!-- lazarus kind=answer effect=doctor -->";
        api.create_issue(ISSUE_TITLE, body).await?
    };
    let issue = api.issue(issue.number);
    let text = "Does this arrive?\n\n<!-- lazarus kind=answer effect=doctor -->";
    let way = match issue.create_comment(text).await {
        Ok(comment) => {
            let key = |action| format!("comment:{}:{}:{action}", found.id, comment.id);
            let created = arrival(&config.paths.registry, key("created"), EVENT_LIMIT).await;
            let gone = api.comment(comment.id).delete().await;
            let deleted = created.is_some()
                && gone.is_ok()
                && arrival(&config.paths.registry, key("deleted"), Duration::from_secs(3)).await.is_some();
            Ok(Way { created, deleted })
        }
        Err(error) => Err(error),
    };
    // What somebody wrote there meanwhile is not ours to delete.
    let lonely =
        issue.comments().await.is_ok_and(|comments| comments.iter().all(|comment| comment.author.id == bot.id));
    if !lonely || !issue.delete().await.unwrap_or(false) {
        let _ = issue.set_state(false).await;
    }
    way
}

/// How long it takes until the daemon's inbox has a delivery of what this key names.
async fn arrival(registry: &Path, key: String, limit: Duration) -> Option<Duration> {
    let registry = registry.to_owned();
    let start = Instant::now();
    while start.elapsed() < limit {
        let (registry, key) = (registry.clone(), key.clone());
        let known = tokio::task::spawn_blocking(move || {
            crate::store::look(&registry, |tx| tx.was_delivered(&key)).unwrap_or(false)
        })
        .await
        .unwrap_or(false);
        if known {
            return Some(start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// What this host can give, found by the steps that a cell takes.
async fn isolation(config: &Config, program: &Path, report: &mut DoctorReport) {
    const NAME: &str = "isolation";
    let wanted = config.policy.isolation_min;
    let probe = match probe(program).await {
        Ok(probe) => probe,
        Err(why) => {
            report.add(
                Verdict::Fail,
                NAME,
                format!("the probe (`lazarus cell-probe`) failed: {why}"),
                "run `lazarus cell-probe` by hand: it must print JSON",
            );
            return;
        }
    };
    limits(&probe.groups, &config.paths.cells, report);
    let host = format!("kernel {}", probe.kernel);
    for (index, rung) in probe.ladder().iter().enumerate() {
        report.ok(&format!("ladder {}", index + 1), rung);
    }
    let mut hints: Vec<String> =
        probe.missing.iter().map(|missing| format!("{}: {}", missing.what, missing.hint)).collect();
    if wanted > Isolation::Level2 {
        report.add(
            Verdict::Fail,
            NAME,
            format!("policy.isolation_min is {wanted}, and this installation gives level_2 at most ({host})"),
            "set policy.isolation_min to level_2",
        );
    } else if probe.level_2() {
        let landlock = probe.landlock.as_deref().unwrap_or("none");
        let walls = if probe.namespaces { "namespaces" } else { "namespaces by bwrap (no named hosts)" };
        report.ok(NAME, format!("level_2: {walls}, seccomp, Landlock ({landlock}); {host}"));
    } else {
        let missing: Vec<String> =
            probe.missing.iter().map(|missing| format!("{} ({})", missing.what, missing.why)).collect();
        let found = format!("level_1 only; for level_2 {} is missing; {host}", missing.join(", "));
        if wanted > Isolation::Level1 {
            hints.push(format!("until then no cell is started, since policy.isolation_min is {wanted}"));
            report.add(Verdict::Fail, NAME, found, hints.join("\n"));
        } else {
            hints.push("until then agents can read what this user can read".to_owned());
            report.add(Verdict::Warn, NAME, found, hints.join("\n"));
        }
    }
}

/// What holds cells to their limits. Of this process: a service may have more.
fn limits(groups: &Groups, cells: &Path, report: &mut DoctorReport) {
    const NAME: &str = "limits";
    let found = groups.words();
    let disk = if rustix::process::geteuid().is_root() && quota::used(cells, FIRST_ID).is_ok() {
        "disk and files: project quotas"
    } else {
        "disk and files: counted"
    };
    match groups {
        Groups::None { .. } => report.add(
            Verdict::Warn,
            NAME,
            format!("memory, processes and processor time: {found}"),
            "without them the keeper counts once a second, and each process has its own limit of memory",
        ),
        _ => report.ok(NAME, format!("memory, processes and processor time: {found}; {disk}; log: bounded")),
    }
}

async fn probe(program: &Path) -> Result<HostReport, String> {
    let child = tokio::process::Command::new(program)
        .arg("cell-probe")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(20), child)
        .await
        .map_err(|_| "no answer within 20 s".to_owned())?
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}, and its answer is not a report: {error}", output.status))
}

async fn git(report: &mut DoctorReport) {
    const NAME: &str = "git";
    const INSTALL: &str = "install git 2.30 or newer, and have it in PATH";
    let child = tokio::process::Command::new("git").arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(Duration::from_secs(10), child).await {
        Ok(Ok(output)) if output.status.success() => output,
        Ok(Ok(output)) => {
            report.add(Verdict::Fail, NAME, format!("`git --version` failed: {}", output.status), INSTALL);
            return;
        }
        Ok(Err(error)) => {
            report.add(Verdict::Fail, NAME, format!("cannot be run: {error}"), INSTALL);
            return;
        }
        Err(_) => {
            report.add(Verdict::Fail, NAME, "`git --version` does not end", INSTALL);
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.trim();
    match git_version(text) {
        Some(version) if version >= GIT_MIN => report.ok(NAME, text),
        Some(_) => report.add(Verdict::Fail, NAME, format!("{text}, which is too old"), INSTALL),
        None => report.add(Verdict::Warn, NAME, format!("{text:?} names no version"), INSTALL),
    }
}

/// `(2, 39)` of `git version 2.39.5 (Apple Git-154)`.
fn git_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("git version ")?.split(['.', ' ', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn disk(config: &Config, report: &mut DoctorReport) {
    use std::os::unix::fs::MetadataExt as _;
    let paths = &config.paths;
    let data = existing(&paths.data);
    match rustix::fs::statvfs(&data) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let found = format!("{:.1} GiB free below {}", free as f64 / f64::from(1 << 30), paths.data.display());
            if free < SPACE_MIN {
                report.add(
                    Verdict::Warn,
                    "disk",
                    found,
                    "make room, or set paths.data elsewhere: a full disk stops commands from being taken",
                );
            } else {
                report.ok("disk", found);
            }
        }
        Err(error) => report.add(
            Verdict::Fail,
            "disk",
            format!("{}: {error}", data.display()),
            "set paths.data to a directory that this user can use",
        ),
    }
    let registry = paths.registry.parent().unwrap_or(&paths.data);
    let mut seen = Vec::new();
    for path in [paths.data.as_path(), &paths.cells, &paths.graveyard, &paths.archive, &paths.missions, registry] {
        let there = existing(path);
        if seen.contains(&there) {
            continue;
        }
        let writable = rustix::fs::access(&there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
        if let Err(error) = writable {
            report.add(
                Verdict::Fail,
                "disk",
                format!("cannot write in {}: {error}", there.display()),
                format!("run this as the user of `lazarus serve`, or make {} that user's", path.display()),
            );
        }
        seen.push(there);
    }
    let open_to_others = std::fs::metadata(&paths.data).is_ok_and(|data| data.mode() & 0o077 != 0);
    if open_to_others {
        report.add(
            Verdict::Warn,
            "disk",
            format!("others on this machine can look into {}", paths.data.display()),
            format!("chmod 700 {}", paths.data.display()),
        );
    }
    let devices: Vec<Option<u64>> = [&paths.cells, &paths.graveyard, &paths.archive]
        .into_iter()
        .map(|path| std::fs::metadata(existing(path)).ok().map(|m| m.dev()))
        .collect();
    if devices.windows(2).any(|pair| pair[0] != pair[1]) {
        report.add(
            Verdict::Warn,
            "disk",
            "paths.cells, paths.graveyard and paths.archive are not on one file system",
            "put them on one: a closed cell is then moved in one step, and otherwise has to be copied",
        );
    }
}

/// The path, or the nearest directory above it that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn who(report: &mut DoctorReport) {
    let uid = rustix::process::geteuid().as_raw();
    let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|accounts| {
        accounts.lines().find_map(|account| {
            let mut fields = account.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    });
    let name = name.unwrap_or_else(|| "no name".to_owned());
    report.ok("user", format!("{name} (id {uid})"));
}
