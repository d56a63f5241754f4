//! `lazarus init OWNER/REPO`: prepares a repository on the forge.
//!
//! First everything is looked at ([`survey`]), then only what is missing is
//! made, so a second run changes nothing, and `--dry-run` is the same look
//! without the rest. `lazarus doctor` looks with the same eyes.
//!
//! What only people can do (the forge's own configuration above all) is said
//! in plain words at the end: the most common failure of a fresh installation
//! is a forge that refuses to call us and tells nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::cell::{Actor, State};
use crate::config::{Config, ConfigError, SecretSource};
use crate::gitea::{
    Forge, ForgeError, ForgeOptions, Hook, HookContentType, Label, NewHook, NewLabel, RepoApi, Repository, User,
};
use crate::store::{self, Pin, PinKind, label_name};

/// Text below `lazarus init --help`.
pub const HELP: &str = "\
Makes what Lazarus needs in a repository and leaves alone what is there:
  labels       lazarus/requested, lazarus/approved, lazarus/state/*
  templates    .gitea/ISSUE_TEMPLATE/mission-proposal.yaml and .md
  webhook      to webhook.public_url, signed with webhook.secret; a secret file
               that does not exist yet is made
Run it as often as you like: a second run changes nothing. The token's account
must administer the repository. What the forge's administrator must set is
said at the end.

  lazarus init acme/widget --dry-run    look, and say what would be done
  lazarus init acme/widget";

/// The issue form, and where it goes.
pub const FORM: (&str, &str) =
    (".gitea/ISSUE_TEMPLATE/mission-proposal.yaml", include_str!("../../templates/issue/mission-proposal.yaml"));

/// Its Markdown twin, and where it goes.
pub const TWIN: (&str, &str) =
    (".gitea/ISSUE_TEMPLATE/mission-proposal.md", include_str!("../../templates/issue/mission-proposal.md"));

/// The scopes that the bot's token needs.
pub const SCOPES: [&str; 4] = ["write:issue", "write:repository", "read:organization", "read:user"];

pub(crate) use crate::engine::APPROVED;

/// How much older than the secret's file a webhook may seem before it is
/// taken to hold an older secret. The two times are of two clocks.
const CLOCKS_APART: Duration = Duration::from_mins(2);

/// Random bytes of a generated secret.
const SECRET_BYTES: usize = 32;

/// How to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Only read, and list what would be done.
    pub dry_run: bool,
    /// Whether [`InitReport::text`] is one JSON object.
    pub json: bool,
}

/// What became of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It was there, as it should be.
    Present,
    /// It was there, is not as it should be, and was left alone; the note
    /// says why.
    Kept,
    /// It was made.
    Created,
    /// It was deleted and made again.
    Replaced,
    /// With `--dry-run`: it would be made.
    WouldCreate,
    /// With `--dry-run`: it would be deleted and made again.
    WouldReplace,
    /// It could not be made; the note says why and what to do.
    Failed,
}

impl StepState {
    fn word(self) -> &'static str {
        match self {
            Self::Present => "there",
            Self::Kept => "kept",
            Self::Created => "made",
            Self::Replaced => "replaced",
            Self::WouldCreate => "would make",
            Self::WouldReplace => "would replace",
            Self::Failed => "FAILED",
        }
    }

    fn changes(self) -> bool {
        matches!(self, Self::Created | Self::Replaced | Self::WouldCreate | Self::WouldReplace)
    }
}

/// One thing that a repository needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What: a label, a template, the webhook, the secret.
    pub what: String,
    /// What became of it.
    pub state: StepState,
    /// What else is to be known about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What [`run`] found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// Whether nothing failed.
    pub success: bool,
    /// The outcome in one sentence.
    pub message: String,
    /// `owner/name`, as the forge writes it.
    pub repository: String,
    /// The account of the token.
    pub bot: String,
    /// Whether it was only a look.
    pub dry_run: bool,
    /// Each thing, in the order in which it was done.
    pub steps: Vec<Step>,
    /// What people must do, one paragraph each.
    pub to_do: Vec<String>,
    #[serde(skip)]
    json: bool,
}

impl InitReport {
    /// What to print: words for people, or one JSON object, as the options
    /// said. Ends without a newline.
    pub fn text(&self) -> String {
        if self.json { serde_json::to_string(self).unwrap_or_default() } else { self.to_string().trim_end().to_owned() }
    }
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.message)?;
        let mut rest = self.steps.as_slice();
        while let Some(first) = rest.first() {
            // Labels of which there is no more to say share a line.
            let plain_label = |step: &&Step| step.note.is_none() && step.what.starts_with(LABEL_STEP);
            let same = rest.iter().take_while(|step| plain_label(step) && step.state == first.state).count();
            let state = first.state.word();
            if same > 1 {
                let names: Vec<&str> =
                    rest[..same].iter().filter_map(|step| step.what.strip_prefix(LABEL_STEP)).collect();
                let lead = format!("  {state:13}  {same} labels: ");
                paragraph(f, &lead, "                   ", &names.join(", "))?;
                rest = &rest[same..];
                continue;
            }
            writeln!(f, "  {state:13}  {}", printable(&first.what))?;
            if let Some(note) = &first.note {
                let indent = "                   ";
                paragraph(f, indent, indent, note)?;
            }
            rest = &rest[1..];
        }
        writeln!(f, "\nWhat people must see to:")?;
        for text in &self.to_do {
            paragraph(f, "- ", "  ", text)?;
        }
        Ok(())
    }
}

/// Columns of text for people.
const COLUMNS: usize = 100;

/// What the steps that make labels begin with.
const LABEL_STEP: &str = "label ";

/// Without control characters but the newline: some of it comes from the
/// forge and goes to a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

/// Writes a text in lines of at most [`COLUMNS`], where it has spaces: the
/// first after `first`, the others after `then`. Its own newlines hold, and a
/// line of it that begins with spaces is left as it is.
pub(crate) fn paragraph(f: &mut fmt::Formatter<'_>, first: &str, then: &str, text: &str) -> fmt::Result {
    let mut lead = first;
    for line in printable(text).lines() {
        if line.starts_with(' ') || line.is_empty() {
            writeln!(f, "{}", format!("{lead}{line}").trim_end())?;
            lead = then;
            continue;
        }
        let mut out = lead.to_owned();
        let mut empty = true;
        for word in line.split(' ') {
            if !empty && out.chars().count() + 1 + word.chars().count() > COLUMNS {
                writeln!(f, "{}", out.trim_end())?;
                then.clone_into(&mut out);
                empty = true;
            }
            if !empty {
                out.push(' ');
            }
            out.push_str(word);
            empty = false;
        }
        writeln!(f, "{}", out.trim_end())?;
        lead = then;
    }
    Ok(())
}

/// Prepares `repository` (`owner/name`) on the configured forge.
///
/// # Errors
/// Where nothing can be done at all: the configuration lacks something, the
/// forge or the repository cannot be reached, the token's account does not
/// administer the repository. What fails later is a step of the report.
pub async fn run(config: &Config, repository: &str, options: InitOptions) -> anyhow::Result<InitReport> {
    needed_settings(config)?;
    let (owner, name) = owner_and_name(repository)?;
    let forge = connect(config)?;
    let bot = forge.current_user().await.context("asking the forge whose token this is")?;
    let found =
        forge.repo(owner, name).get().await.with_context(|| format!("looking for the repository {repository}"))?;
    let Some(found) = found else {
        bail!(
            "there is no repository {repository} at {} that the account {} can see: check the name, or add {} to it as an administrator",
            config.forge.url,
            bot.login,
            bot.login
        );
    };
    let full_name = found.reference().full_name();
    if found.archived {
        bail!(
            "{full_name} is archived, so nothing can be made in it: take it out of the archive first (Settings, at the bottom)"
        );
    }
    if !found.permissions.admin {
        bail!(
            "the account {} does not administer {full_name}, so it can neither make the webhook nor read who may do what: \
             add it under Settings, Collaborators with the permission Administrator, then run this again",
            bot.login
        );
    }

    if issues_are_off(&forge, &found).await {
        bail!(
            "{full_name} has no issues: switch them on (Settings, Repository, Issues; the built-in tracker), for missions are issues"
        );
    }

    let api = forge.repo_ref(&found.reference());
    let seen = survey(&forge, &api, &found, config).await?;
    let mut work = Work { api: &api, found: &found, dry_run: options.dry_run, steps: Vec::new() };
    work.labels(&seen).await;
    work.approval_label(config, &seen).await;
    work.templates(&seen).await;
    work.webhook(config, &seen).await;
    let steps = work.steps;

    let failed = steps.iter().filter(|s| s.state == StepState::Failed).count();
    let changed = steps.iter().filter(|s| s.state.changes()).count();
    let message = match (failed, changed, options.dry_run) {
        (0, 0, _) => format!("{full_name} is prepared; nothing to change."),
        (0, n, true) => format!("{full_name}: {n} to make or replace; nothing was changed, this was only a look."),
        (0, n, false) => format!("{full_name} is prepared; {n} made or replaced."),
        (f, _, _) => {
            format!("{full_name} is not prepared: {f} failed; see below, then run this again.")
        }
    };
    Ok(InitReport {
        success: failed == 0,
        message,
        to_do: what_people_must_do(config, &full_name, &bot, &steps),
        repository: full_name,
        bot: bot.login,
        dry_run: options.dry_run,
        steps,
        json: options.json,
    })
}

/// A client for the configured forge, with the configured token.
pub(crate) fn connect(config: &Config) -> anyhow::Result<Forge> {
    let token = config.forge.token.read().context("reading the bot's token (forge.token)")?;
    Ok(Forge::new(ForgeOptions::new(&config.forge.url, token))?)
}

/// An address of the API below a repository, for calls that the client has no
/// name for.
pub(crate) fn below(found: &Repository, rest: &str) -> String {
    let part = |name: &str| percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
    format!("/repos/{}/{}{rest}", part(&found.owner.login), part(&found.name))
}

/// Whether the repository's issues are switched off, or elsewhere. `false`
/// where it cannot be told.
pub(crate) async fn issues_are_off(forge: &Forge, found: &Repository) -> bool {
    let answer = forge.request(Method::GET, &below(found, ""), None).await;
    answer.is_ok_and(|answer| {
        answer.body.get("has_issues") == Some(&false.into())
            || answer.body.get("external_tracker").is_some_and(|tracker| !tracker.is_null())
    })
}

/// All that `serve` needs but for the list of repositories: that may well be
/// written after this.
fn needed_settings(config: &Config) -> Result<(), ConfigError> {
    match config.ready_to_serve() {
        Err(ConfigError::Invalid(mut problems)) => {
            problems.retain(|problem| !problem.text.starts_with("[[repositories]]"));
            if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
        }
        other => other,
    }
}

fn owner_and_name(repository: &str) -> anyhow::Result<(&str, &str)> {
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 100
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match repository.split_once('/') {
        Some((owner, name)) if plain(owner) && plain(name) => Ok((owner, name)),
        _ => bail!("{repository:?} is not a repository: give its owner and name, such as acme/widget"),
    }
}

/// The labels that a repository needs.
pub fn labels() -> Vec<NewLabel> {
    let label = |name: &str, color: &str, description: &str, exclusive| NewLabel {
        name: name.to_owned(),
        color: color.to_owned(),
        description: description.to_owned(),
        exclusive,
    };
    let mut labels = vec![
        label("lazarus/requested", "c5def5", "Asks for a mission", false),
        label("lazarus/approved", "0e8a16", "Set by a director: approves the text as it is now", false),
    ];
    labels.extend(State::ALL.iter().map(|state| {
        let (color, what) = match state {
            State::Proposed => ("c5def5", "waits for approval"),
            State::Invited => ("bfdadc", "approved; invitations are out"),
            State::Preparing => ("fef2c0", "the cell is being made"),
            State::Active => ("1d76db", "somebody works in the cell"),
            State::Idle => ("bfd4f2", "the cell waits for the next instruction"),
            State::Paused => ("d4c5f9", "frozen by a director"),
            State::Checkpointing => ("c2e0c6", "a snapshot is being taken"),
            State::Downed => ("d93f0b", "an agent died; the cell is frozen"),
            State::Closing => ("fbca04", "the work is being brought home"),
            State::Closed => ("cccccc", "ended; can still be resurrected"),
            State::Archived => ("e6e6e6", "only the archive is left"),
            State::Destroyed => ("5a5a5a", "scrubbed; the ledger remains"),
        };
        let name = format!("lazarus/state/{}", state.word());
        label(&name, color, &format!("Shown by Lazarus, never read: {what}"), true)
    }));
    labels
}

/// The events that a webhook has to be subscribed to.
pub fn events(config: &Config) -> Vec<String> {
    let mut events = vec!["issues", "issue_label", "issue_assign", "issue_milestone", "issue_comment"];
    if config.policy.pull_request_commands {
        events.push("pull_request_comment");
    }
    events.into_iter().map(str::to_owned).collect()
}

/// What is there of all that a repository needs.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    /// Labels by name, every one that is there, oldest first.
    pub(crate) labels: BTreeMap<String, Vec<Label>>,
    /// The form and its twin.
    pub(crate) templates: [Template; 2],
    /// Webhooks that call our address, each with why it will not do.
    pub(crate) hooks: Vec<(Hook, Option<String>)>,
}

/// One issue template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) path: &'static str,
    content: &'static str,
    pub(crate) file: TemplateFile,
    /// Whether the forge offers it.
    pub(crate) offered: bool,
}

/// What stands at a template's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TemplateFile {
    Missing,
    Ours,
    /// Somebody's own, or that of another version.
    Other,
}

impl Survey {
    /// Names of labels that are missing.
    pub(crate) fn missing_labels(&self) -> Vec<NewLabel> {
        labels().into_iter().filter(|label| !self.labels.contains_key(&label.name)).collect()
    }

    /// What is odd about a label that is there.
    pub(crate) fn odd_label(&self, wanted: &NewLabel) -> Option<String> {
        let there = self.labels.get(&wanted.name)?;
        let [first, others @ ..] = there.as_slice() else {
            return None;
        };
        let mut notes = Vec::new();
        if !others.is_empty() {
            let ids: Vec<String> = others.iter().map(|label| label.id.to_string()).collect();
            notes.push(format!(
                "there are {} labels of this name; the one with the id {} counts. Delete the others (id {}) in the forge's page of labels",
                there.len(),
                first.id,
                ids.join(", ")
            ));
        }
        if wanted.exclusive && !first.exclusive {
            notes.push(
                "it is not exclusive, so two states can be shown at once: tick Exclusive in the forge's page of labels"
                    .to_owned(),
            );
        }
        (!notes.is_empty()).then(|| notes.join("\n"))
    }

    /// The webhook that will do, where it is the only one at our address.
    pub(crate) fn good_hook(&self) -> Option<&Hook> {
        match self.hooks.as_slice() {
            [(hook, None)] => Some(hook),
            _ => None,
        }
    }

    /// Why the webhooks at our address will not do.
    pub(crate) fn hook_fault(&self) -> Option<String> {
        match self.hooks.as_slice() {
            [] => Some("there is no webhook that calls this address".to_owned()),
            [(_, fault)] => fault.clone(),
            more => Some(format!("{} webhooks call this address, and whose secret is ours cannot be seen", more.len())),
        }
    }
}

/// Looks at everything and changes nothing.
pub(crate) async fn survey(
    forge: &Forge,
    api: &RepoApi,
    found: &Repository,
    config: &Config,
) -> anyhow::Result<Survey> {
    let full_name = found.reference().full_name();
    let mut by_name: BTreeMap<String, Vec<Label>> = BTreeMap::new();
    let all = api.labels().await.with_context(|| format!("listing the labels of {full_name}"))?;
    for label in all {
        by_name.entry(label.name.clone()).or_default().push(label);
    }
    for labels in by_name.values_mut() {
        labels.sort_by_key(|label| label.id);
    }

    // An empty repository has no files, and asking for them is an error.
    let offered: Vec<String> = if found.empty {
        Vec::new()
    } else {
        api.issue_templates()
            .await
            .with_context(|| format!("listing the issue templates of {full_name}"))?
            .into_iter()
            .map(|template| template.file_name)
            .collect()
    };
    let mut templates = Vec::new();
    for (path, content) in [FORM, TWIN] {
        let there = if found.empty {
            None
        } else {
            api.file(path).await.with_context(|| format!("reading {path} in {full_name}"))?
        };
        templates.push(Template {
            path,
            content,
            file: match there {
                None => TemplateFile::Missing,
                Some(file) if file.content == content.as_bytes() => TemplateFile::Ours,
                Some(_) => TemplateFile::Other,
            },
            offered: offered.iter().any(|name| name == path),
        });
    }
    let templates: [Template; 2] =
        templates.try_into().map_err(|_| anyhow::anyhow!("a repository has two templates"))?;

    let hooks = api.hooks().await.with_context(|| format!("listing the webhooks of {full_name}"))?;
    let address = config.webhook.address();
    let ours: Vec<Hook> = hooks.into_iter().filter(|hook| same_address(&hook.url, &address)).collect();
    let made = if ours.is_empty() { BTreeMap::new() } else { made_at(forge, found).await };
    let secret_since = secret_since(&config.webhook.secret);
    let hooks = ours
        .into_iter()
        .map(|hook| {
            let fault = hook_fault(&hook, &events(config), made.get(&hook.id), secret_since);
            (hook, fault)
        })
        .collect();
    Ok(Survey { labels: by_name, templates, hooks })
}

/// Whether two addresses of webhooks are the same, but for a trailing slash
/// and the case of scheme and host.
fn same_address(a: &str, b: &str) -> bool {
    let normal = |text: &str| reqwest::Url::parse(text).map_or_else(|_| text.to_owned(), |url| url.to_string());
    normal(a).trim_end_matches('/') == normal(b).trim_end_matches('/')
}

fn hook_fault(
    hook: &Hook,
    wanted: &[String],
    made: Option<&Timestamp>,
    secret_since: Option<SystemTime>,
) -> Option<String> {
    if !matches!(hook.kind.as_str(), "gitea" | "forgejo" | "gogs") {
        return Some("it is of a type that signs nothing".to_owned());
    }
    if !hook.active {
        return Some("it is switched off".to_owned());
    }
    if hook.content_type != "json" {
        return Some("its content type is not JSON".to_owned());
    }
    let missing: Vec<&str> = wanted.iter().filter(|event| !hook.events.contains(event)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Some(format!("it lacks the events {}", missing.join(", ")));
    }
    // The forge never tells a secret. But a webhook cannot know one that was
    // made after it.
    let made = made.map(|at| SystemTime::from(*at))?;
    let older = secret_since?.duration_since(made).ok()? > CLOCKS_APART;
    older.then(|| "it is older than the secret's file, so it holds another secret".to_owned())
}

/// When the webhooks of a repository were made, by id; what cannot be read is
/// left out, for nothing but a hint depends on it.
async fn made_at(forge: &Forge, found: &Repository) -> BTreeMap<i64, Timestamp> {
    let path = below(found, "/hooks?page=1&limit=50");
    let Ok(answer) = forge.request(Method::GET, &path, None).await else {
        return BTreeMap::new();
    };
    let hooks = answer.body.as_array().cloned().unwrap_or_default();
    hooks
        .iter()
        .filter_map(|hook| {
            let at = hook.get("created_at")?.as_str()?.parse().ok()?;
            Some((hook.get("id")?.as_i64()?, at))
        })
        .collect()
}

/// Since when the secret is what it is, where it is in a file.
fn secret_since(secret: &SecretSource) -> Option<SystemTime> {
    match secret {
        SecretSource::File(path) => std::fs::metadata(path).ok()?.modified().ok(),
        _ => None,
    }
}

/// The changing part.
struct Work<'a> {
    api: &'a RepoApi,
    found: &'a Repository,
    dry_run: bool,
    steps: Vec<Step>,
}

impl Work<'_> {
    fn step(&mut self, what: impl Into<String>, state: StepState, note: Option<String>) {
        self.steps.push(Step { what: what.into(), state, note });
    }

    async fn labels(&mut self, seen: &Survey) {
        for label in labels() {
            let what = format!("{LABEL_STEP}{}", label.name);
            if seen.labels.contains_key(&label.name) {
                let odd = seen.odd_label(&label);
                let state = if odd.is_some() { StepState::Kept } else { StepState::Present };
                self.step(what, state, odd);
            } else if self.dry_run {
                self.step(what, StepState::WouldCreate, None);
            } else {
                let name = label.name.clone();
                match self.api.create_label(label).await {
                    Ok(_) => self.step(what, StepState::Created, None),
                    Err(error) => {
                        let note = self.label_after(&name, error).await;
                        match note {
                            None => self.step(what, StepState::Created, None),
                            note => self.step(what, StepState::Failed, note),
                        }
                    }
                }
            }
        }
    }

    /// Pins the approval label, where the one that was pinned is gone or does not
    /// count any more. Nobody else does: a label of that name can be made by
    /// whoever may write. (What was never looked at the daemon pins by itself.)
    async fn approval_label(&mut self, config: &Config, seen: &Survey) {
        let registry = &config.paths.registry;
        if !registry.exists() {
            return;
        }
        let what = format!("pin of the label {APPROVED}");
        let name = label_name(self.found.id, APPROVED);
        let pin = match store::look(registry, |tx| tx.pin(PinKind::Label, &name)) {
            Ok(pin) => pin,
            Err(error) => {
                let note = format!("the registry cannot be read ({error}); run this as the user of `lazarus serve`");
                self.step(what, StepState::Failed, Some(note));
                return;
            }
        };
        let Some(pin) = pin else { return };
        let before = pin.pinned();
        let is = |labels: &[Label]| labels.iter().any(|l| before.as_ref().is_some_and(|pin| pin.id() == l.id));
        if seen.labels.get(APPROVED).is_some_and(|labels| is(labels)) {
            return;
        }
        let why = match (&pin.fault, before) {
            (Some(fault), _) => fault.clone(),
            (None, Some(gone)) => format!("{gone} is gone"),
            (None, None) => "none was pinned".to_owned(),
        };
        if self.dry_run {
            self.step(what, StepState::WouldReplace, Some(why));
            return;
        }
        let labels = match self.api.labels().await {
            Ok(labels) => labels,
            Err(error) => {
                self.step(what, StepState::Failed, Some(error.to_string()));
                return;
            }
        };
        let Some(id) = labels.iter().filter(|l| l.name == APPROVED).map(|l| l.id).min() else {
            self.step(what, StepState::Failed, Some(format!("there is no label {APPROVED}")));
            return;
        };
        let by = Actor::Operator { name: super::operate::operator() };
        let now = Timestamp::now().as_millisecond();
        let pinned = store::change(registry, |tx| {
            let now = tx.last_entry_at()?.max(now);
            tx.forget_pin(PinKind::Label, &name)?;
            let within = Some(self.found.id);
            let pin =
                tx.put_pin(&Pin { kind: PinKind::Label, name: name.clone(), id, within, at: now, fault: None })?;
            tx.note_pin("name_pinned", &by, &pin, now)
        });
        match pinned {
            Ok(()) => self.step(what, StepState::Replaced, Some(format!("it is the one with the id {id} now; {why}"))),
            Err(error) => {
                let note = format!("the registry cannot be changed ({error}); run this as the user of `lazarus serve`");
                self.step(what, StepState::Failed, Some(note));
            }
        }
    }

    /// A label whose answer got lost may be there all the same.
    async fn label_after(&self, name: &str, error: ForgeError) -> Option<String> {
        if error.may_have_happened()
            && let Ok(labels) = self.api.labels().await
            && labels.iter().any(|label| label.name == name)
        {
            return None;
        }
        Some(error.to_string())
    }

    async fn templates(&mut self, seen: &Survey) {
        for template in &seen.templates {
            let what = format!("template {}", template.path);
            match template.file {
                TemplateFile::Ours if template.offered => {
                    self.step(what, StepState::Present, None);
                }
                TemplateFile::Ours => {
                    self.step(what, StepState::Failed, Some(NOT_OFFERED.to_owned()));
                }
                TemplateFile::Other => {
                    let mut note = "it is not the one that comes with this version, and was left alone: \
                                    delete it and run this again to get that one"
                        .to_owned();
                    if !template.offered {
                        note = format!("{note}\n{NOT_OFFERED}");
                    }
                    self.step(what, StepState::Kept, Some(note));
                }
                TemplateFile::Missing if self.dry_run => {
                    self.step(what, StepState::WouldCreate, None);
                }
                TemplateFile::Missing => {
                    let message = "Add the template for mission proposals of Lazarus";
                    let put = self.api.put_file(template.path, template.content.as_bytes(), message, None, None).await;
                    let (state, note) = match put {
                        Ok(_) => self.offered_now(template.path).await,
                        Err(error) => (
                            StepState::Failed,
                            Some(format!(
                                "{error}\nif the branch {} is protected: let the bot's account push to it, \
                                 or commit templates/issue/ of Lazarus there by hand",
                                self.found.default_branch
                            )),
                        ),
                    };
                    self.step(what, state, note);
                }
            }
        }
    }

    /// Whether the forge read what was just written.
    async fn offered_now(&self, path: &str) -> (StepState, Option<String>) {
        match self.api.issue_templates().await {
            Ok(templates) if templates.iter().any(|t| t.file_name == path) => (StepState::Created, None),
            Ok(_) => (StepState::Failed, Some(NOT_OFFERED.to_owned())),
            Err(error) => (StepState::Failed, Some(error.to_string())),
        }
    }

    async fn webhook(&mut self, config: &Config, seen: &Survey) {
        let secret = match &config.webhook.secret {
            SecretSource::File(path) if !path.exists() => {
                let what = format!("webhook secret, file {}", path.display());
                if self.dry_run {
                    self.step(what, StepState::WouldCreate, None);
                    self.hook_step_of_look(config, seen, true);
                    return;
                }
                match generate_secret(path) {
                    Ok(secret) => {
                        let note = "readable by this user alone: `lazarus serve` must run as the same one";
                        self.step(what, StepState::Created, Some(note.to_owned()));
                        Ok((secret, true))
                    }
                    Err(error) => {
                        let note = format!(
                            "cannot make it ({error}): make its directory writable for this user, or put a long random secret there yourself"
                        );
                        self.step(what, StepState::Failed, Some(note));
                        return;
                    }
                }
            }
            source => source.read().map(|secret| (secret, false)),
        };
        let (secret, new_secret) = match secret {
            Ok(secret) => secret,
            Err(error) => {
                self.step("webhook secret", StepState::Failed, Some(error.to_string()));
                return;
            }
        };
        if self.dry_run || (!new_secret && seen.good_hook().is_some()) {
            self.hook_step_of_look(config, seen, new_secret);
            return;
        }

        let address = config.webhook.address();
        let what = format!("webhook {address}");
        let why = hook_reason(seen, new_secret);
        // The new one first: with both there, events come twice and count once;
        // with neither, they do not come.
        let made = self
            .api
            .create_hook(NewHook { url: address, secret, events: events(config), content_type: HookContentType::Json })
            .await;
        if let Err(error) = made {
            self.step(what, StepState::Failed, Some(error.to_string()));
            return;
        }
        for (hook, _) in &seen.hooks {
            if let Err(error) = self.api.delete_hook(hook.id).await {
                let note = format!(
                    "a new one is there, but the old one (id {}) cannot be deleted: {error}\ndelete it by hand",
                    hook.id
                );
                self.step(what, StepState::Failed, Some(note));
                return;
            }
        }
        let state = if seen.hooks.is_empty() { StepState::Created } else { StepState::Replaced };
        let why = why.filter(|_| state == StepState::Replaced);
        self.step(what, state, why);
    }

    fn hook_step_of_look(&mut self, config: &Config, seen: &Survey, new_secret: bool) {
        let what = format!("webhook {}", config.webhook.address());
        if seen.hooks.is_empty() {
            self.step(what, StepState::WouldCreate, None);
        } else if new_secret || seen.good_hook().is_none() {
            self.step(what, StepState::WouldReplace, hook_reason(seen, new_secret));
        } else {
            self.step(what, StepState::Present, None);
        }
    }
}

const NOT_OFFERED: &str = "the forge does not offer it, so it cannot read it: open the file there, the page says what is wrong; \
     some forges are also set up to ignore templates";

fn hook_reason(seen: &Survey, new_secret: bool) -> Option<String> {
    if new_secret && !seen.hooks.is_empty() {
        return Some("the secret is new, and a webhook's secret cannot be changed".to_owned());
    }
    seen.hook_fault()
}

/// Makes the secret's file: 32 random bytes in hex, for this user alone. The
/// name appears when everything is in it, and never replaces another file.
fn generate_secret(path: &Path) -> io::Result<SecretString> {
    let mut random = zeroize::Zeroizing::new([0_u8; SECRET_BYTES]);
    getrandom::fill(random.as_mut()).map_err(io::Error::other)?;
    let secret = SecretString::from(hex::encode(*random));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?.to_string_lossy();
    let draft = directory.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file
        .write_all(secret.expose_secret().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    written?;
    File::open(directory)?.sync_all()?;
    Ok(secret)
}

/// The line for the forge's `app.ini`, section `[webhook]`, that lets it call
/// the host of `webhook.public_url`; and what is to be known about that host.
pub fn allowed_host_list(config: &Config) -> (String, String) {
    let url = reqwest::Url::parse(&config.webhook.public_url).ok();
    let host = url
        .as_ref()
        .and_then(|url| url.host_str())
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let (extra, about) = match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => (
            "loopback".to_owned(),
            "is an address of the forge's own machine: it reaches Lazarus only if both run on one \
             machine, and not out of a container"
                .to_owned(),
        ),
        Ok(ip) if is_global(ip) => (
            host.clone(),
            "is a public address: the forge's default allows it already, so this line is needed \
             only if the list was narrowed"
                .to_owned(),
        ),
        Ok(_) => (host.clone(), "is a private address: by default the forge refuses to call it".to_owned()),
        Err(_) if host == "localhost" || host.ends_with(".localhost") => (
            "loopback".to_owned(),
            "is the forge's own machine: it reaches Lazarus only if both run on one machine, and \
             not out of a container"
                .to_owned(),
        ),
        Err(_) => (
            host.clone(),
            "is refused by default if the forge's machine resolves it to a private or loopback \
             address"
                .to_owned(),
        ),
    };
    (format!("ALLOWED_HOST_LIST = external, {extra}"), format!("{host} {about}"))
}

/// Whether the forge's word `external` covers an address: global unicast, and
/// not private.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unique_local()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast())
        }
    }
}

fn what_people_must_do(config: &Config, full_name: &str, bot: &User, steps: &[Step]) -> Vec<String> {
    let (line, about) = allowed_host_list(config);
    let mut list = vec![
        format!(
            "The administrator of {} lets it call Lazarus: in its app.ini\n\n    [webhook]\n    {line}\n\n\
             (added to what stands there), then a restart. {about}. Without this setting comments work and nothing \
             arrives here; only the webhook's page says \"webhook can only call allowed HTTP servers\". \
             The address that it calls: {}",
            config.forge.url,
            config.webhook.address()
        ),
        format!("The token of the bot's account {} needs the scopes {}.", bot.login, SCOPES.join(", ")),
        format!(
            "{} administers {full_name}, and must go on doing so: without that Lazarus can neither read who may do \
             what nor see to its webhook. To read who is in a director team, it must be in that team or own the \
             organisation.",
            bot.login
        ),
    ];
    let secret_is_new = steps.iter().any(|s| s.what.starts_with("webhook secret") && s.state.changes());
    let others: Vec<&str> = config
        .repositories
        .iter()
        .map(|r| r.name.as_str())
        .filter(|name| !name.eq_ignore_ascii_case(full_name))
        .collect();
    if secret_is_new && !others.is_empty() {
        list.push(format!(
            "The webhook secret is new: run `lazarus init` for the other repositories too ({}).",
            others.join(", ")
        ));
    }
    if config.repository(full_name).is_none() {
        list.push(format!(
            "The configuration does not name this repository, so what it sends is refused. Add\n\n    [[repositories]]\n    name = \"{full_name}\"\n"
        ));
    }
    list.push("Then: `lazarus serve`, and beside it `lazarus doctor`, which makes a real event come here.".to_owned());
    list
}
