//! `lazarus ledger show` and `lazarus ledger verify`.

use super::Said;
use crate::cell::{Actor, At, CellId};
use crate::config::Config;
use crate::operations::{self, MissionName, Missions, Time};
use crate::publication::parse_marker;
use crate::store::{self, Entry, Head};
use clap::Subcommand;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::path::Path;

/// The ledger's verbs.
#[derive(Debug, Subcommand)]
pub enum LedgerVerb {
    /// Entries, oldest first.
    Show {
        /// A cell, or OWNER/REPO#N; else all.
        about: Option<String>,
        /// Only entries about this mission: OWNER/REPO#N.
        #[arg(long, value_name = "OWNER/REPO#N", conflicts_with = "about")]
        mission: Option<String>,
        /// From this entry on.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
        from: i64,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
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
pub fn run(config: &Config, verb: LedgerVerb, json: bool) -> anyhow::Result<Said> {
    let registry = &config.paths.registry;
    if !registry.exists() {
        anyhow::bail!("there is no registry at {} yet; `lazarus serve` makes it", registry.display());
    }
    match verb {
        LedgerVerb::Show { about, mission, from, limit } => {
            show(registry, about.or(mission).as_deref(), from, limit, json)
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
            let text = if json {
                let head = result.as_ref().ok().map(ToString::to_string);
                json!({"success": good, "message": message, "head": head, "fault": result.as_ref().err()}).to_string()
            } else {
                message
            };
            Ok(Said { success: good, text })
        }
    }
}

/// The entries, each mission by the name that people have for it. Hashes are
/// over the registry's own name, which JSON has as `mission_id`.
fn show(registry: &Path, about: Option<&str>, from: i64, limit: i64, json: bool) -> anyhow::Result<Said> {
    let wanted = match about {
        None => None,
        Some(text) if text.contains('#') => Some(Err(text.parse::<MissionName>()?)),
        Some(text) => Some(Ok(CellId::parse(text).map_err(|_| {
            anyhow::anyhow!("ABOUT {text:?}: a cell, as in laz-abcdefghijklmnop, or OWNER/REPO#N, as in acme/widget#7")
        })?)),
    };
    let found = store::look(registry, |tx| {
        let id = match &wanted {
            None => None,
            Some(Ok(cell)) => Some(cell.to_string()),
            Some(Err(name)) => match operations::mission_of(tx, name)? {
                Some(id) => Some(id),
                None => return Ok(Err(format!("nothing is known of {name}"))),
            },
        };
        let mut names = Missions::default();
        // One more, to know whether there are more.
        let entries = tx.entries(from, limit + 1, id.as_deref())?;
        let named = entries.into_iter().map(|entry| {
            let name = if entry.mission.is_empty() { "-".to_owned() } else { names.name(tx, &entry.mission)? };
            Ok((entry, name))
        });
        Ok(Ok(named.collect::<store::Result<Vec<_>>>()?))
    })?;
    let mut entries = found.map_err(|why| anyhow::anyhow!(why))?;
    let more = entries.get(limit as usize).map(|(entry, _)| format!("more from {} (--from)", entry.seq));
    entries.truncate(limit as usize);
    if json {
        let more = more.map_or_else(String::new, |more| format!("; {more}"));
        let message = format!("{} entries{more}", entries.len());
        let entries: Vec<Value> = entries.iter().map(|(entry, name)| entry_json(entry, name)).collect();
        let text = json!({"success": true, "message": message, "entries": entries}).to_string();
        return Ok(Said { success: true, text });
    }
    let width = entries.iter().map(|(_, name)| name.chars().count()).max().unwrap_or(0);
    let lines = entries.iter().map(|(entry, name)| {
        let at = jiff::Timestamp::from_millisecond(entry.at)
            .map_or_else(|_| "no time".to_owned(), |t| t.strftime("%F %T").to_string());
        let who =
            serde_json::from_str::<Actor>(&entry.actor).map_or_else(|_| entry.actor.clone(), |actor| actor.to_string());
        let cell = if entry.cell.is_empty() { "-" } else { &entry.cell };
        let hash: String = entry.hash.chars().take(12).collect();
        let line = format!("{:>6}  {at}  {name:<width$}  {cell:<20}  {:<20}  {who}  {hash}", entry.seq, entry.action);
        // Whoever changed an entry must not steer the operator's terminal.
        line.replace(char::is_control, "\u{fffd}")
    });
    Ok(Said::done(lines.chain(more).collect::<Vec<_>>().join("\n")))
}

fn entry_json(entry: &Entry, name: &str) -> Value {
    json!({
        "seq": entry.seq, "at": Time(At(entry.at)), "at_ms": entry.at, "mission": name, "mission_id": entry.mission,
        "cell": entry.cell, "actor": entry.actor, "action": entry.action, "data": entry.data,
        "previous": entry.previous, "hash": entry.hash,
    })
}

/// The heads that our own logs on the forge carry.
async fn heads_on_forge(config: &Config) -> anyhow::Result<Vec<Head>> {
    let forge = super::init::connect(config)?;
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
