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
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::cell::{Actor, State};
use crate::config::{Config, ConfigError, SecretSource};
use crate::gitea::{
    Forge, ForgeError, HookContentType, HookOwner, HooksApi, Label, MasterSecret, Named, NewHook, NewLabel, RepoApi,
    Repository, User,
};
use crate::store::{self, Pin, PinKind, label_name};

use super::form::{self, TemplateText};
use super::hooks::{self, HookSurvey, events};

/// Text below `lazarus init --help`.
pub const HELP: &str = "\
Makes what Lazarus needs in a repository and leaves alone what is there:
  labels       lazarus/requested, lazarus/approved, lazarus/state/*
  templates    .gitea/ISSUE_TEMPLATE/mission-proposal.yaml and .md, which offer what
               the policy of this installation allows; made again when it changes.
               A copy that somebody edited is left alone, unless you say --force
  webhook      to webhook.public_url, signed with a secret of this repository's own
               that is derived from webhook.secret; old ones at that address are
               deleted. A secret file that does not exist yet is made, and one that
               an older version put on webhooks as it is, is made anew
Run it as often as you like: a second run changes nothing. The token's account
must administer the repository. What the forge's administrator must set is
said at the end.

With --organisation, it makes one webhook for all repositories of an
organisation, and nothing else. The token's account must be among its owners,
and the token needs the scope write:organization for that. Or make that webhook
by hand: --show-secret says with what.

  lazarus init acme/widget --dry-run    look, and say what would be done
  lazarus init acme/widget
  lazarus init --organisation acme
  lazarus init --write-templates .      only write the two templates below ./";

/// The scopes that the bot's token needs.
pub const SCOPES: [&str; 4] = ["write:issue", "write:repository", "read:organization", "read:user"];

pub(crate) use crate::engine::APPROVED;

/// How to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Only read, and list what would be done.
    pub dry_run: bool,
    /// Replace templates that somebody edited, too.
    pub force: bool,
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
    /// It was made anew, and what was there is gone.
    Replaced,
    /// With `--dry-run`: it would be made.
    WouldCreate,
    /// With `--dry-run`: it would be made anew.
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
    /// `owner/name`, as the forge writes it; empty for an organisation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repository: String,
    /// The organisation, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
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
    let mut work = Work { api: &api, found: &found, options, steps: Vec::new() };
    work.labels(&seen).await;
    work.approval_label(config, &seen).await;
    work.templates(&seen).await;
    let mut steps = work.steps;
    if seen.organisation_does && seen.hooks.hooks.is_empty() {
        let what = format!("webhook {} (of the organisation {})", config.webhook.address(), found.owner.login);
        steps.push(Step { what, state: StepState::Present, note: None });
    } else {
        let of = HookOwner::Repository(found.id);
        webhook(config, &api.hook_calls(), of, &seen.hooks, options.dry_run, &mut steps).await;
    }
    Ok(InitReport {
        to_do: what_people_must_do(config, &full_name, &bot, &steps),
        repository: full_name.clone(),
        ..InitReport::of(&full_name, &bot, options, steps)
    })
}

/// Makes the webhook of an organisation: it serves each of its repositories
/// that the configuration names.
///
/// # Errors
/// Where nothing can be done at all, as [`run`].
pub async fn run_for_organisation(
    config: &Config,
    organisation: &str,
    options: InitOptions,
) -> anyhow::Result<InitReport> {
    needed_settings(config)?;
    let forge = connect(config)?;
    let bot = forge.current_user().await.context("asking the forge whose token this is")?;
    let found = find_organisation(&forge, config, organisation).await?;
    let (of, api) = (HookOwner::Organisation(found.id), forge.organisation_hooks(&found.name));
    let by_hand = format!(
        "make the account {} an owner of {} and give its token the scope write:organization; \
         or make the webhook by hand (`lazarus init --organisation {} --show-secret`); \
         or run `lazarus init OWNER/REPO` for each repository instead",
        bot.login, found.name, found.name
    );
    let master = config.webhook.secret.read().ok().and_then(MasterSecret::new);
    let seen = HookSurvey::look(&api, of, master.as_ref(), config)
        .await
        .with_context(|| format!("listing the webhooks of {}: {by_hand}", found.name))?;
    let mut steps = Vec::new();
    webhook(config, &api, of, &seen, options.dry_run, &mut steps).await;
    for step in &mut steps {
        if step.state == StepState::Failed && step.what.starts_with("webhook http") {
            step.note = Some(format!("{}\n{by_hand}", step.note.take().unwrap_or_default()));
        }
    }
    let mut to_do = vec![allow_the_call(config)];
    to_do.extend(new_secret(config, "", &steps));
    to_do.push(format!(
        "Labels and templates belong to repositories: run `lazarus init {}/REPO` for each one. It makes no webhook \
         there where it sees this one.",
        found.name
    ));
    Ok(InitReport {
        to_do,
        organisation: Some(found.name.clone()),
        ..InitReport::of(&found.name, &bot, options, steps)
    })
}

async fn find_organisation(
    forge: &Forge,
    config: &Config,
    organisation: &str,
) -> anyhow::Result<crate::gitea::Organisation> {
    let found = forge.organisation(organisation).await;
    match found.with_context(|| format!("looking for the organisation {organisation:?}"))? {
        Named::Is(found) => Ok(found),
        Named::Renamed { to, .. } => bail!("the organisation {organisation} is called {to} now: say that name"),
        Named::Nothing => bail!(
            "there is no organisation {organisation} at {} that the bot's account can see: check the name; \
             a person's repositories have a webhook each (`lazarus init OWNER/REPO`)",
            config.forge.url
        ),
    }
}

/// What somebody enters in the forge's page to make an organisation's webhook
/// by hand. Holds its secret: only for whoever asked for it.
///
/// # Errors
/// Where the organisation or the secret is not there.
pub async fn organisation_by_hand(config: &Config, organisation: &str) -> anyhow::Result<String> {
    needed_settings(config)?;
    let found = find_organisation(&connect(config)?, config, organisation).await?;
    let master = config.webhook.secret.read().context(
        "reading the webhook secret (`lazarus init OWNER/REPO` makes its file, with the webhook of a repository)",
    )?;
    let master = MasterSecret::new(master).context("the webhook secret is empty")?;
    let of = HookOwner::Organisation(found.id);
    Ok(format!(
        "In the forge: the organisation {}, Settings, Webhooks, Add Webhook, Gitea (or Forgejo)\n\
         Target URL      {}\n\
         HTTP Method     POST\n\
         Content Type    application/json\n\
         Secret          {}\n\
         Trigger On      Custom Events: {}\n\
         Branch filter   {}\n\
         The owners of the organisation can read the secret there. It speaks for its repositories alone.",
        found.name,
        config.webhook.address(),
        master.hook_secret(of).expose_secret(),
        events(config).join(", "),
        master.branch_filter(of)
    ))
}

/// Writes both templates below a directory, for whoever commits them by hand.
/// Returns where they are.
///
/// # Errors
/// Where they cannot be written.
pub fn write_templates(config: &Config, directory: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut written = Vec::new();
    for template in form::of_installation(config)? {
        let path = directory.join(template.path);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        std::fs::write(&path, &template.text).with_context(|| format!("writing {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

impl InitReport {
    /// The report on `name`, without what is left to people.
    fn of(name: &str, bot: &User, options: InitOptions, steps: Vec<Step>) -> Self {
        let failed = steps.iter().filter(|s| s.state == StepState::Failed).count();
        let changed = steps.iter().filter(|s| s.state.changes()).count();
        let message = match (failed, changed, options.dry_run) {
            (0, 0, _) => format!("{name} is prepared; nothing to change."),
            (0, n, true) => format!("{name}: {n} to make or replace; nothing was changed, this was only a look."),
            (0, n, false) => format!("{name} is prepared; {n} made or replaced."),
            (f, _, _) => {
                format!("{name} is not prepared: {f} failed; see below, then run this again.")
            }
        };
        Self {
            success: failed == 0,
            message,
            repository: String::new(),
            organisation: None,
            bot: bot.login.clone(),
            dry_run: options.dry_run,
            steps,
            to_do: Vec::new(),
            json: options.json,
        }
    }
}

/// A client for the configured forge, with the configured token.
pub(crate) fn connect(config: &Config) -> anyhow::Result<Forge> {
    let token = config.forge.token.read().context("reading the bot's token (forge.token)")?;
    Ok(Forge::new(config.forge.options(token))?)
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

/// What is there of all that a repository needs.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    /// Labels by name, every one that is there, oldest first.
    pub(crate) labels: BTreeMap<String, Vec<Label>>,
    /// The form and its twin.
    pub(crate) templates: Vec<Template>,
    /// Webhooks that call us.
    pub(crate) hooks: HookSurvey,
    /// Whether the webhook of its owner does for this repository.
    pub(crate) organisation_does: bool,
}

/// One issue template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// What it should be.
    pub(crate) wanted: TemplateText,
    pub(crate) file: TemplateFile,
    /// Whether the forge offers it.
    pub(crate) offered: bool,
    /// Its blob, where there is one.
    sha: Option<String>,
}

/// What stands at a template's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TemplateFile {
    Missing,
    /// As this installation's policy wants it.
    Current,
    /// As Lazarus wrote it, for another policy or in another version.
    Outdated,
    /// Somebody edited it, or wrote their own.
    Edited,
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

    /// Why no webhook of this repository counts, if so.
    pub(crate) fn hook_fault(&self) -> Option<String> {
        if self.organisation_does && self.hooks.hooks.is_empty() {
            return None;
        }
        self.hooks.fault()
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
    for wanted in form::of_installation(config)? {
        let path = wanted.path;
        let there = if found.empty {
            None
        } else {
            api.file(path).await.with_context(|| format!("reading {path} in {full_name}"))?
        };
        templates.push(Template {
            file: match &there {
                None => TemplateFile::Missing,
                Some(file) if file.content == wanted.text.as_bytes() => TemplateFile::Current,
                Some(file) if form::is_as_written(&file.content) => TemplateFile::Outdated,
                Some(_) => TemplateFile::Edited,
            },
            offered: offered.iter().any(|name| name == path),
            sha: there.map(|file| file.sha),
            wanted,
        });
    }

    let master = config.webhook.secret.read().ok().and_then(MasterSecret::new);
    let of = HookOwner::Repository(found.id);
    let hooks = HookSurvey::look(&api.hook_calls(), of, master.as_ref(), config)
        .await
        .with_context(|| format!("listing the webhooks of {full_name}"))?;
    let organisation_does = hooks::organisation_does(forge, found, master.as_ref(), config).await;
    Ok(Survey { labels: by_name, templates, hooks, organisation_does })
}

/// The changing part.
struct Work<'a> {
    api: &'a RepoApi,
    found: &'a Repository,
    options: InitOptions,
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
            } else if self.options.dry_run {
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
        if self.options.dry_run {
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
            let what = format!("template {}", template.wanted.path);
            let outdated = "it was for another policy, or of another version";
            let (dry, done, note) = match template.file {
                TemplateFile::Current if template.offered => {
                    self.step(what, StepState::Present, None);
                    continue;
                }
                TemplateFile::Current => {
                    self.step(what, StepState::Failed, Some(NOT_OFFERED.to_owned()));
                    continue;
                }
                TemplateFile::Edited if !self.options.force => {
                    let mut note = EDITED.to_owned();
                    if !template.offered {
                        note = format!("{note}\n{NOT_OFFERED}");
                    }
                    self.step(what, StepState::Kept, Some(note));
                    continue;
                }
                TemplateFile::Missing => (StepState::WouldCreate, StepState::Created, None),
                TemplateFile::Outdated => (StepState::WouldReplace, StepState::Replaced, Some(outdated)),
                TemplateFile::Edited => (
                    StepState::WouldReplace,
                    StepState::Replaced,
                    Some("somebody had edited it: what they wrote is in the history of that file"),
                ),
            };
            let note = note.map(str::to_owned);
            if self.options.dry_run {
                self.step(what, dry, note);
                continue;
            }
            let message = match template.file {
                TemplateFile::Missing => "Add the template for mission proposals of Lazarus",
                _ => "Update the template for mission proposals of Lazarus",
            };
            let TemplateText { path, text } = &template.wanted;
            let put = self.api.put_file(path, text.as_bytes(), message, template.sha.as_deref(), None).await;
            let (state, note) = match put {
                Ok(_) => self.offered_now(path, done, note).await,
                Err(error) => (
                    StepState::Failed,
                    Some(format!(
                        "{error}\nif the branch {} is protected: let the bot's account push to it, \
                         or write both templates with `lazarus init --write-templates DIR` and commit them there by hand",
                        self.found.default_branch
                    )),
                ),
            };
            self.step(what, state, note);
        }
    }

    /// `done`, if the forge read what was just written.
    async fn offered_now(&self, path: &str, done: StepState, note: Option<String>) -> (StepState, Option<String>) {
        match self.api.issue_templates().await {
            Ok(templates) if templates.iter().any(|t| t.file_name == path) => (done, note),
            Ok(_) => (StepState::Failed, Some(NOT_OFFERED.to_owned())),
            Err(error) => (StepState::Failed, Some(error.to_string())),
        }
    }
}

/// Makes the installation's secret, where it is missing or known to others,
/// and the webhook of `of`.
async fn webhook(
    config: &Config,
    api: &HooksApi,
    of: HookOwner,
    seen: &HookSurvey,
    dry_run: bool,
    steps: &mut Vec<Step>,
) {
    let what = format!("webhook {}", config.webhook.address());
    let Some((master, new)) = master_secret(config, seen, dry_run, steps) else { return };
    let good = !new && seen.good().is_some();
    let why = if new && !seen.hooks.is_empty() {
        Some("the installation's secret is new, and a webhook's secret cannot be changed".to_owned())
    } else {
        seen.fault()
    };
    let made = if seen.hooks.is_empty() { StepState::Created } else { StepState::Replaced };
    let state = match (good, dry_run, made) {
        (true, _, _) => StepState::Present,
        (_, true, StepState::Created) => StepState::WouldCreate,
        (_, true, _) => StepState::WouldReplace,
        (_, false, made) => made,
    };
    let mut note = why.filter(|_| matches!(state, StepState::Replaced | StepState::WouldReplace));
    let state = match master {
        Some(master) if !good && !dry_run => match make_hook(config, api, of, &master, seen).await {
            Ok(()) => state,
            Err(why) => {
                note = Some(why);
                StepState::Failed
            }
        },
        _ => state,
    };
    steps.push(Step { what, state, note });
}

/// The installation's secret, and whether it is (or, with `dry_run`, would be)
/// new. `None` where there is none to be had; a step says why.
fn master_secret(
    config: &Config,
    seen: &HookSurvey,
    dry_run: bool,
    steps: &mut Vec<Step>,
) -> Option<(Option<MasterSecret>, bool)> {
    let source = &config.webhook.secret;
    let mut step = |what: String, state, note: &str| {
        let note = (!note.is_empty()).then(|| note.to_owned());
        steps.push(Step { what, state, note });
    };
    let path = match source {
        SecretSource::File(path) => Some(path.as_path()),
        _ => None,
    };
    let missing = path.is_some_and(|path| !path.exists());
    if !missing {
        let master = match source.read() {
            Ok(secret) => MasterSecret::new(secret)?,
            Err(error) => {
                step("webhook secret".to_owned(), StepState::Failed, &error.to_string());
                return None;
            }
        };
        // Versions before this one put it on every webhook as it is. Where it
        // was on one, everybody who administers that repository may know it,
        // and with it every secret that is derived from it.
        if master.was_generated() || !seen.old {
            return Some((Some(master), false));
        }
    }
    let Some(path) = path else {
        step(format!("webhook secret, {source}"), StepState::Failed, KNOWN_TO_OTHERS);
        return None;
    };
    let what = format!("webhook secret, file {}", path.display());
    let (dry, done, note) = if missing {
        let note = "readable by this user alone: `lazarus serve` must run as the same one";
        (StepState::WouldCreate, StepState::Created, note)
    } else {
        let note = "a webhook may hold it as it is, as older versions had it: whoever administers such a repository \
                    may know it. `lazarus serve` takes the new one by itself; the webhooks of other repositories \
                    count again once `lazarus init` was run for them";
        (StepState::WouldReplace, StepState::Replaced, note)
    };
    if dry_run {
        step(what, dry, if missing { "" } else { note });
        return Some((None, true));
    }
    match make_secret(path, !missing) {
        Ok(master) => {
            step(what, done, note);
            Some((Some(master), true))
        }
        Err(error) => {
            let note = format!(
                "cannot make it ({error}): make its directory writable for this user, or put a long random secret there yourself"
            );
            step(what, StepState::Failed, &note);
            None
        }
    }
}

const KNOWN_TO_OTHERS: &str = "there is a webhook at this address that an older version of Lazarus made, or somebody made by hand. If it was the \
     former, it holds this secret as it is, and whoever administers the repository knows it: put another long random \
     secret in its place and run this for every repository. If it was the latter, delete that webhook and run this again";

async fn make_hook(
    config: &Config,
    api: &HooksApi,
    of: HookOwner,
    master: &MasterSecret,
    seen: &HookSurvey,
) -> Result<(), String> {
    let hook = NewHook {
        url: config.webhook.address(),
        secret: master.hook_secret(of),
        events: events(config),
        content_type: HookContentType::Json,
    };
    // The new one first: with both there, events come twice and count once;
    // with neither, they do not come.
    let made = api.create(hook, &master.branch_filter(of)).await.map_err(|error| error.to_string())?;
    for (hook, _) in seen.hooks.iter().filter(|(hook, _)| hook.id != made.id) {
        api.delete(hook.id).await.map_err(|error| {
            format!(
                "a new one is there, but the old one (id {}) cannot be deleted: {error}\ndelete it by hand",
                hook.id
            )
        })?;
    }
    Ok(())
}

const NOT_OFFERED: &str = "the forge does not offer it, so it cannot read it: open the file there, the page says what is wrong; \
     some forges are also set up to ignore templates";

const EDITED: &str = "somebody edited it, or wrote their own, so it was left alone: it may offer what policy refuses. \
     `lazarus init OWNER/REPO --force` replaces it; what was written there stays in that file's history";

/// Makes the secret's file: random, and for this user alone. The name appears
/// when everything is in it. It never replaces another file, unless it is to;
/// then whoever could read that one can read this one.
fn make_secret(path: &Path, replace: bool) -> io::Result<MasterSecret> {
    // What is replaced is the file, not a link to it.
    let path = if replace { &path.canonicalize()? } else { path };
    let secret = MasterSecret::generate().map_err(io::Error::other)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?.to_string_lossy();
    let draft = directory.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    let mut write = || {
        file.write_all(secret.expose_secret().as_bytes())?;
        file.write_all(b"\n")?;
        if replace {
            let old = std::fs::metadata(path)?;
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o640))?;
        }
        file.sync_all()?;
        if replace { std::fs::rename(&draft, path) } else { std::fs::hard_link(&draft, path) }
    };
    let written = write();
    let removed = std::fs::remove_file(&draft);
    written?;
    if !replace {
        removed?;
    }
    File::open(directory)?.sync_all()?;
    MasterSecret::new(secret).ok_or_else(|| io::Error::other("it is empty"))
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

/// The setting that the forge's administrator makes.
fn allow_the_call(config: &Config) -> String {
    let (line, about) = allowed_host_list(config);
    format!(
        "The administrator of {} lets it call Lazarus: in its app.ini\n\n    [webhook]\n    {line}\n\n\
             (added to what stands there), then a restart. {about}. Without this setting comments work and nothing \
             arrives here; only the webhook's page says \"webhook can only call allowed HTTP servers\". \
             The address that it calls: {}",
        config.forge.url,
        config.webhook.address()
    )
}

/// What a new secret of the installation means for the repositories but `full_name`.
fn new_secret(config: &Config, full_name: &str, steps: &[Step]) -> Option<String> {
    let secret_is_new = steps.iter().any(|s| s.what.starts_with("webhook secret") && s.state.changes());
    let others: Vec<&str> = config
        .repositories
        .iter()
        .map(|r| r.name.as_str())
        .filter(|name| !name.eq_ignore_ascii_case(full_name))
        .collect();
    (secret_is_new && !others.is_empty()).then(|| {
        format!("The webhook secret is new: run `lazarus init` for the other repositories too ({}).", others.join(", "))
    })
}

fn what_people_must_do(config: &Config, full_name: &str, bot: &User, steps: &[Step]) -> Vec<String> {
    let mut list = vec![
        allow_the_call(config),
        format!("The token of the bot's account {} needs the scopes {}.", bot.login, SCOPES.join(", ")),
        format!(
            "{} administers {full_name}, and must go on doing so: without that Lazarus can neither read who may do \
             what nor see to its webhook. To read who is in a director team, it must be in that team or own the \
             organisation.",
            bot.login
        ),
    ];
    list.extend(new_secret(config, full_name, steps));
    if config.repository(full_name).is_none() {
        list.push(format!(
            "The configuration does not name this repository, so what it sends is refused. Add\n\n    [[repositories]]\n    name = \"{full_name}\"\n"
        ));
    }
    list.push("Then: `lazarus serve`, and beside it `lazarus doctor`, which makes a real event come here.".to_owned());
    list
}
