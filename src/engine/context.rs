//! What decisions are made with: policy, people, profiles, templates.

use crate::agents::Profiles;
use crate::backend::{BUILT, Egress};
use crate::cell::{Cell, Limits, Network, Policy};
use crate::config::{Config, Repository};
use crate::egress::{HostRule, Rules};
use crate::gitea::ForgeError;
use crate::gitea::event::{Person, RepoRef};
use crate::mission::{CommandSpec, Defaults, Parsed, parse_commands};
use crate::publication::sentences::{issues, requests};
use crate::publication::{Publication, Published, RenderError, SHOWN_LINES_MAX, Secrets, Templates};
use crate::store::Pinned;
use secrecy::SecretString;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

/// What the forge told of itself and of us. Empty until it did once; from then
/// on kept in the registry.
#[derive(Debug, Clone, Default)]
pub struct ForgeIdentity {
    /// The bot's own account.
    pub bot: Option<Person>,
    /// Repositories by number.
    pub repos: HashMap<i64, KnownRepo>,
    /// What is wrong with each of the configured repositories, by its name there.
    /// Without an entry: it was not looked at yet.
    pub troubles: BTreeMap<String, Vec<Trouble>>,
}

impl ForgeIdentity {
    /// The configured repositories that are not served, each with why.
    pub fn unserved(&self) -> impl Iterator<Item = (&str, &str)> {
        self.troubles.iter().filter_map(|(name, troubles)| {
            let served = self.repos.values().any(|repo| repo.config.name == *name);
            let trouble = troubles.iter().find(|trouble| trouble.unserved && !served)?;
            Some((name.as_str(), trouble.words.as_str()))
        })
    }
}

/// Something that is wrong with a configured repository, or with a name that is
/// given for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What, and what to do, in a sentence.
    pub words: String,
    /// Whether it may be over at the next look.
    pub may_pass: bool,
    /// Whether the repository itself could not be learnt.
    pub unserved: bool,
}

/// A repository that is served.
#[derive(Debug, Clone)]
pub struct KnownRepo {
    /// Its number and name.
    pub reference: RepoRef,
    /// Number of the account or organisation that owns it, as the forge said
    /// last. `None` until it did: then no organisation's webhook counts.
    pub owner: Option<i64>,
    /// What the configuration says of it.
    pub config: Repository,
    /// The directors that the configuration names.
    pub directors: Vec<Pinned>,
    /// The teams whose members are directors.
    pub teams: Vec<Pinned>,
    /// Why it could not be found out yet who all the directors are.
    pub undecided: Option<ForgeError>,
    /// The approval label; `None` where approval by label is off.
    pub approved_label: Option<Pinned>,
    /// Why approval by label is off, in words for people.
    pub label_off: Option<String>,
    /// When it was made on this forge, in seconds since the epoch; 0 where it is not
    /// known yet.
    pub made_at: i64,
}

impl KnownRepo {
    /// Whether something is older than the repository: it came here by migration, and
    /// carries nobody's authority.
    pub fn is_older(&self, at: jiff::Timestamp) -> bool {
        at.as_second() < self.made_at
    }
}

/// Everything that decisions are made with.
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// Agent profiles.
    pub profiles: Profiles,
    templates: Templates,
    built_in: Templates,
    secrets: Arc<Secrets>,
    identity: RwLock<ForgeIdentity>,
}

impl Context {
    /// Puts it together. `secrets` are all that must never leave.
    ///
    /// # Errors
    /// Where a template cannot be used.
    pub fn new(config: Config, profiles: Profiles, secrets: Vec<(String, SecretString)>) -> Result<Self, RenderError> {
        Ok(Self {
            templates: Templates::load(config.templates.as_deref())?,
            built_in: Templates::load(None)?,
            config,
            profiles,
            secrets: Arc::new(Secrets::new(secrets)),
            identity: RwLock::default(),
        })
    }

    /// What the forge told.
    pub fn forge_identity(&self) -> ForgeIdentity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A repository that is served, by number.
    pub fn repo(&self, id: i64) -> Option<KnownRepo> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).repos.get(&id).cloned()
    }

    /// The bot's account.
    pub fn bot(&self) -> Option<Person> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).bot.clone()
    }

    /// Whether a trouble was there at the last look already.
    pub fn knows_trouble(&self, repository: &str, trouble: &Trouble) -> bool {
        let known = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        known.troubles.get(repository).is_some_and(|troubles| troubles.contains(trouble))
    }

    /// Takes over what the forge told.
    pub fn change_identity(&self, change: impl FnOnce(&mut ForgeIdentity)) {
        change(&mut self.identity.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The secrets that never leave.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The same, for whoever looks for them while others wait.
    pub fn shared_secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets)
    }

    /// Removes secrets from words that are meant for a log or an error.
    pub fn redact(&self, text: &str) -> String {
        crate::publication::redaction::redact(&self.secrets.redact(text).0).0
    }

    /// Why a request that holds this text cannot be shown whole, if it cannot: what
    /// nobody sees, nobody can approve.
    pub fn not_shown_whole(&self, text: &str, bytes: usize) -> Option<String> {
        if text.len() > bytes || text.lines().count() > SHOWN_LINES_MAX {
            let kib = bytes.div_ceil(1024);
            return Some(requests::too_long_to_show(kib, SHOWN_LINES_MAX));
        }
        (self.redact(text) != text).then(requests::holds_a_secret)
    }

    /// A title for a pull request out of an issue's.
    pub fn plain_title(&self, title: &str) -> String {
        crate::publication::plain_title(title, &self.secrets)
    }

    /// Writes a comment. A user's template that fails is replaced by the
    /// built-in one: a mission must not wait for a template.
    pub fn render(&self, publication: &Publication, effect: &str, cell: Option<&str>) -> Published {
        let mut published = self.rendered(publication, effect, cell);
        if let Some(prefix) = self.config.commands.prefix() {
            published.body = with_prefix(&published.body, prefix);
        }
        published
    }

    fn rendered(&self, publication: &Publication, effect: &str, cell: Option<&str>) -> Published {
        self.templates
            .render(publication, effect, cell, &self.secrets)
            .or_else(|error| {
                tracing::error!(%error, "a template failed; the built-in one is used");
                self.built_in.render(publication, effect, cell, &self.secrets)
            })
            .unwrap_or_else(|error| {
                tracing::error!(%error, "a built-in template failed");
                Published {
                    body: format!(
                        "{}\n\n{}",
                        issues::cannot_be_written_down(),
                        crate::publication::marker(publication.kind(), effect, cell)
                    ),
                    removed: crate::publication::Removed::default(),
                }
            })
    }

    /// What a comment says to Lazarus.
    pub fn commands_in(&self, body: &str) -> Parsed {
        let most = self.config.policy.max_commands_per_comment as usize;
        parse_commands(body, most, self.config.commands.prefix())
    }

    /// What a proposal may ask for.
    pub fn defaults(&self) -> Defaults {
        defaults(&self.config, &self.profiles)
    }

    /// Why a network, or hosts of it, cannot be had here, if so.
    pub fn network_refusal(&self, network: Network, hosts: &[String]) -> Option<String> {
        let most = self.config.policy.network_max;
        if network > most {
            return Some(requests::too_much_network(network, most));
        }
        hosts.iter().find_map(|host| match host.parse::<HostRule>() {
            Err(error) => Some(error.to_string()),
            Ok(rule) if !rule.may_be_named(&self.config.egress.allow_addresses) => {
                Some(requests::host_is_an_address(host.trim_start_matches("ip:")))
            }
            Ok(_) => None,
        })
    }

    /// What a cell with those hosts may reach.
    pub fn egress<'a>(&self, hosts: &'a [String], of_profiles: impl Iterator<Item = &'a String>) -> Egress {
        // Each was checked when it was read; one that is none is not reached.
        let mut rules: Vec<HostRule> = hosts.iter().chain(of_profiles).filter_map(|host| host.parse().ok()).collect();
        let mut seen = HashSet::new();
        rules.retain(|rule| seen.insert(rule.to_string()));
        let egress = &self.config.egress;
        Egress {
            rules: Rules { hosts: rules, allow_addresses: egress.allow_addresses.clone() },
            addresses: egress.addresses.clone(),
        }
    }

    /// What a cell may use: the configuration's, or what its profiles need
    /// instead, or what its proposal asked for instead.
    pub fn limits_of(&self, cell: &Cell) -> Limits {
        let profiles = cell.workers().filter_map(|p| self.profiles.get(p.identity.name()));
        // Of several agents, each gets what it needs.
        let needed = profiles.map(|profile| profile.limits.over(self.config.limits)).reduce(Limits::or_more);
        cell.spec.limits.over(needed.unwrap_or(self.config.limits))
    }
}

/// A comment of ours with every command that it names behind the prefix. What stands
/// in a block is what people wrote, and stays as it is.
fn with_prefix(body: &str, prefix: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut out = String::with_capacity(body.len());
    for line in body.split_inclusive('\n') {
        let bare = line.trim();
        let mark = &bare[..bare.len() - bare.trim_start_matches(['`', '~']).len()];
        match fence {
            Some(open) => {
                if bare.len() >= open.len() && bare == mark && mark.starts_with(open) {
                    fence = None;
                }
                out.push_str(line);
                continue;
            }
            None if mark.len() >= 3 => fence = Some(mark),
            None => {}
        }
        let mut rest = line;
        while let Some(at) = rest.find("`/") {
            let (before, behind) = rest.split_at(at + 2);
            out.push_str(before);
            let end = behind.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(behind.len());
            if CommandSpec::named(&behind[..end]).is_some() {
                out.push_str(prefix);
                out.push(' ');
            }
            rest = behind;
        }
        out.push_str(rest);
    }
    out
}

/// What proposals may ask for in an installation with this configuration and
/// these profiles: the parser checks against it, and `lazarus init` offers it.
pub fn defaults(config: &Config, profiles: &Profiles) -> Defaults {
    let policy = &config.policy;
    let ms = super::clock::milliseconds;
    Defaults {
        agents: profiles.names().iter().map(|n| (*n).to_owned()).collect(),
        backends: BUILT.to_vec(),
        isolation_min: policy.isolation_min,
        network_max: policy.network_max,
        limits_max: config.limits_max,
        ttl_default: ms(policy.ttl_default),
        agents_max: policy.agents_max as usize,
        policy: Policy {
            ttl_max: ms(policy.ttl_max),
            invitation_ttl: ms(policy.invitation_ttl),
            closed_grace: ms(policy.closed_grace),
            archive_retention: ms(policy.archive_retention),
            guests: policy.guests,
            substitutes: policy.substitutes,
            max_retries: 3,
            participants_max: 32,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_we_name_stand_behind_the_prefix_and_peoples_words_stay_as_they_are() {
        let body = "`/close` or `/tell scribe TEXT`; `/usr/bin` and /close.\n\n````text\n`/close`\n```\n`/close`\n````\n| `/help [COMMAND]` |";
        assert_eq!(
            with_prefix(body, "lazarus"),
            "`/lazarus close` or `/lazarus tell scribe TEXT`; `/usr/bin` and /close.\n\n````text\n`/close`\n```\n`/close`\n````\n| `/lazarus help [COMMAND]` |"
        );
    }
}
