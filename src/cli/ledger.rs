//! `lazarus ledger show` and `lazarus ledger verify`.

use crate::config::Config;
use crate::gitea::{Forge, ForgeOptions};
use crate::publication::parse_marker;
use crate::store::{self, Head};
use clap::Subcommand;
use futures::StreamExt as _;
use serde_json::json;

/// The ledger's verbs.
#[derive(Debug, Subcommand)]
pub enum LedgerVerb {
    /// Entries, oldest first.
    Show {
        /// A cell or a mission (as `status --json` names it); else all.
        about: Option<String>,
        /// From this entry on.
        #[arg(long, default_value_t = 1)]
        from: i64,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Check the chain, and that the heads on the forge are in it.
    Verify {
        /// Do not ask the forge: a tail that was cut, or an old copy put back,
        /// is then not seen.
        #[arg(long)]
        offline: bool,
        /// A head to look for, as spawn and close logs state it.
        #[arg(long = "head", value_name = "N:HASH")]
        heads: Vec<String>,
    },
}

/// Runs one of them.
pub fn run(config: &Config, verb: LedgerVerb, json: bool) -> anyhow::Result<bool> {
    let registry = &config.paths.registry;
    if !registry.exists() {
        anyhow::bail!("there is no registry at {} yet", registry.display());
    }
    match verb {
        LedgerVerb::Show { about, from, limit } => {
            let entries = store::look(registry, |tx| tx.entries(from, limit, about.as_deref()))?;
            if json {
                println!(
                    "{}",
                    json!({"success": true, "cell_id": null, "message": format!("{} entries", entries.len()), "entries": entries})
                );
                return Ok(true);
            }
            for entry in entries {
                let at = jiff::Timestamp::from_millisecond(entry.at)
                    .map(|t| t.strftime("%F %T").to_string())
                    .unwrap_or_default();
                let who: String =
                    serde_json::from_str::<crate::cell::Actor>(&entry.actor).map_or(entry.actor, |a| a.to_string());
                let cell = if entry.cell.is_empty() { "-".to_owned() } else { entry.cell };
                let line = format!(
                    "{:>6}  {at}  {:<8}  {cell}  {:<20}  {who}  {}",
                    entry.seq,
                    entry.mission,
                    entry.action,
                    entry.hash.chars().take(12).collect::<String>()
                );
                // Whoever changed an entry must not steer the operator's terminal.
                println!("{}", line.replace(char::is_control, "\u{fffd}"));
            }
            Ok(true)
        }
        LedgerVerb::Verify { offline, heads } => {
            let mut wanted = vec![];
            for head in &heads {
                let found = Head::find_all(head);
                if found.len() != 1 {
                    anyhow::bail!("--head {head}: the form is N:HASH, as spawn and close logs state it");
                }
                wanted.extend(found);
            }
            let mut asked =
                "the forge was not asked, so a tail that was cut, or an old copy put back, is not seen".to_owned();
            let mut unasked = false;
            if !offline && heads.is_empty() {
                match super::runtime()?.block_on(heads_on_forge(config)) {
                    Ok(found) => {
                        asked = format!("{} heads on the forge are in it", found.len());
                        wanted.extend(found);
                    }
                    Err(error) => {
                        unasked = true;
                        asked = format!(
                            "but the heads on the forge could not be looked for, so that a tail that was cut would not be \
                             seen: {error}; try again, give a head with --head, or say --offline"
                        );
                    }
                }
            }
            let result = store::look(registry, |tx| store::verify(tx, &wanted))?;
            let (good, message) = match &result {
                Ok(head) => (!unasked, format!("the ledger is whole: {} entries, head {head}; {asked}", head.seq)),
                Err(fault) => (false, fault.to_string()),
            };
            if json {
                println!(
                    "{}",
                    json!({
                        "success": good, "cell_id": null, "message": message,
                        "head": result.as_ref().ok().map(ToString::to_string), "fault": result.as_ref().err(),
                    })
                );
            } else {
                println!("{message}");
            }
            Ok(good)
        }
    }
}

/// The heads that our own logs on the forge carry.
async fn heads_on_forge(config: &Config) -> anyhow::Result<Vec<Head>> {
    let forge = Forge::new(ForgeOptions::new(config.forge.url.clone(), config.forge.token.read()?))?;
    let bot = forge.current_user().await?;
    let mut heads = vec![];
    for repository in &config.repositories {
        // By its number: names move. One that was never served has none of our logs.
        let Some(id) = store::look(&config.paths.registry, |tx| tx.repository_named(&repository.name))? else {
            continue;
        };
        let found = forge.repository_by_id(id).await?;
        let Some(found) = found else {
            anyhow::bail!("the forge does not show the repository {} (id {id})", repository.name);
        };
        let api = forge.repo_ref(&found.reference());
        let mut comments = api.comments_since(None);
        while let Some(comment) = comments.next().await {
            let (_, comment) = comment?;
            // Only what the bot's account wrote counts.
            let ours = comment.author.id == bot.id
                && parse_marker(&comment.body).is_some_and(|m| matches!(m.kind.as_str(), "spawn-log" | "close-log"));
            if ours {
                heads.extend(Head::find_all(&comment.body));
            }
        }
    }
    Ok(heads)
}
