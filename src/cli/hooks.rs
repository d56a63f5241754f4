//! The webhooks that call this installation: which are ours, and what is
//! wrong with them. `init` makes them, `doctor` and `serve` look at them.

use crate::config::Config;
use crate::engine::Engine;
use crate::gitea::hook::is_marked;
use crate::gitea::{ForgeError, Hook, HookOwner, HooksApi, MasterSecret, Repository};
use std::sync::Arc;
use std::time::Duration;

/// The events that a webhook has to be subscribed to.
pub fn events(config: &Config) -> Vec<String> {
    let mut events = vec!["issues", "issue_label", "issue_assign", "issue_milestone", "issue_comment"];
    if config.policy.pull_request_commands {
        events.push("pull_request_comment");
    }
    events.into_iter().map(str::to_owned).collect()
}

/// The webhooks of one repository or organisation that call us.
#[derive(Debug, Clone)]
pub(crate) struct HookSurvey {
    /// Each with why it will not do.
    pub(crate) hooks: Vec<(Hook, Option<String>)>,
    /// Whether one of them may hold the installation's own secret, as those of
    /// older versions do.
    pub(crate) old: bool,
}

impl HookSurvey {
    /// Looks at them. Without a secret none will do.
    pub(crate) async fn look(
        api: &HooksApi,
        of: HookOwner,
        master: Option<&MasterSecret>,
        config: &Config,
    ) -> Result<Self, ForgeError> {
        let address = config.webhook.address();
        let filter = master.map(|master| master.branch_filter(of));
        let filter = filter.as_deref();
        let all = api.list().await?;
        // At our address, or of our secret: at an address that was ours.
        let ours = all
            .into_iter()
            .filter(|hook| same_address(&hook.url, &address) || filter == Some(hook.branch_filter.as_str()));
        let hooks: Vec<(Hook, Option<String>)> = ours
            .map(|hook| {
                let fault = fault(&hook, of, &address, &events(config), filter);
                (hook, fault)
            })
            .collect();
        let old = hooks.iter().any(|(hook, _)| !is_marked(hook));
        Ok(Self { hooks, old })
    }

    /// The webhook that will do, where it is the only one.
    pub(crate) fn good(&self) -> Option<&Hook> {
        match self.hooks.as_slice() {
            [(hook, None)] => Some(hook),
            _ => None,
        }
    }

    /// Why they will not do.
    pub(crate) fn fault(&self) -> Option<String> {
        match self.hooks.as_slice() {
            [] => Some("there is none that calls this address".to_owned()),
            [(_, fault)] => fault.clone(),
            more => {
                let faults: Vec<String> = more
                    .iter()
                    .map(|(hook, fault)| match fault {
                        Some(fault) => format!("the one with the id {}: {fault}", hook.id),
                        None => format!("the one with the id {} is as it should be", hook.id),
                    })
                    .collect();
                Some(format!("{} call this address; {}", more.len(), faults.join("; ")))
            }
        }
    }
}

/// Whether the owner of a repository is an organisation whose webhook does for
/// it. `false` also where that cannot be seen.
pub(crate) async fn organisation_does(
    forge: &crate::gitea::Forge,
    found: &Repository,
    master: Option<&MasterSecret>,
    config: &Config,
) -> bool {
    let api = forge.organisation_hooks(&found.owner.login);
    let of = HookOwner::Organisation(found.owner.id);
    HookSurvey::look(&api, of, master, config).await.is_ok_and(|seen| seen.good().is_some())
}

/// Whether two addresses of webhooks are the same, but for a trailing slash
/// and the case of scheme and host.
fn same_address(a: &str, b: &str) -> bool {
    let normal = |text: &str| reqwest::Url::parse(text).map_or_else(|_| text.to_owned(), |url| url.to_string());
    normal(a).trim_end_matches('/') == normal(b).trim_end_matches('/')
}

fn fault(hook: &Hook, of: HookOwner, address: &str, wanted: &[String], filter: Option<&str>) -> Option<String> {
    if !same_address(&hook.url, address) {
        return Some(format!("it calls {}, a former address of this installation", hook.url));
    }
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
    if filter == Some(hook.branch_filter.as_str()) {
        return None;
    }
    let whose = match of {
        HookOwner::Repository(_) => "this repository alone",
        HookOwner::Organisation(_) => "this organisation alone",
    };
    Some(if is_marked(hook) {
        format!(
            "its secret is not the one that belongs to {whose}: the installation's secret was changed after it was made"
        )
    } else {
        format!(
            "it was made by an older version of Lazarus, or by hand, and does not hold the secret that belongs to {whose}: what it sends is refused"
        )
    })
}

/// Once the repositories are known, says in the log which of them have no
/// webhook that counts: what they send is refused, so they are only polled.
pub(crate) async fn warn(engine: Arc<Engine>) {
    while !engine.is_ready() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let config = &engine.context.config;
    let (forge, Ok(secret)) = (engine.forge(), config.webhook.secret.read()) else { return };
    let master = MasterSecret::new(secret);
    for known in engine.context.forge_identity().repos.into_values() {
        let api = forge.repo_ref(&known.reference);
        let of = HookOwner::Repository(known.reference.id);
        // Who may not list webhooks is told so by the doctor.
        let Ok(seen) = HookSurvey::look(&api.hook_calls(), of, master.as_ref(), config).await else { continue };
        let Some(fault) = seen.fault() else { continue };
        if let Ok(Some(found)) = api.get().await
            && organisation_does(forge, &found, master.as_ref(), config).await
        {
            continue;
        }
        let repository = known.reference.full_name();
        tracing::warn!(
            webhook = fault,
            "no webhook of {repository} counts, so it is polled every {} s: run `lazarus init {repository}`",
            config.reconcile.interval.as_secs()
        );
    }
}
