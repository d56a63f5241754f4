//! `lazarus ledger show` and `lazarus ledger verify`.

use super::Said;
use crate::cell::{Actor, CellId};
use crate::config::Config;
use crate::operations::{Answer, EntryView, Form, HeadsSeen, Reader, Request, Target};
use crate::publication::parse_marker;
use crate::store::{self, Head};
use clap::Subcommand;
use futures::StreamExt as _;

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
    let reader = Reader::of(config)?;
    match verb {
        LedgerVerb::Show { about, mission, from, limit } => {
            let about = about.or(mission).as_deref().map(target).transpose()?;
            let answer = reader.answer(&Request::ReadLedger { about, from, limit })?;
            let text = if json { answer.to_json(Form::Plain).to_string() } else { lines(&answer) };
            Ok(Said { success: answer.success(), text })
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
            let mut seen = HeadsSeen::NotAsked;
            if !offline && heads.is_empty() {
                seen = match super::runtime()?.block_on(heads_on_forge(config)) {
                    Ok(found) => {
                        let count = found.len();
                        wanted.extend(found);
                        HeadsSeen::OnForge(count)
                    }
                    Err(error) => HeadsSeen::Unknown(error.to_string()),
                };
            }
            let answer = reader.verify(&wanted, seen)?;
            let text = if json { answer.to_json(Form::Plain).to_string() } else { answer.message() };
            Ok(Said { success: answer.success(), text })
        }
    }
}

/// What entries are asked for.
fn target(text: &str) -> anyhow::Result<Target> {
    if text.contains('#') {
        return Ok(Target::Mission(text.parse()?));
    }
    CellId::parse(text).map(Target::Cell).map_err(|_| {
        anyhow::anyhow!("ABOUT {text:?}: a cell, as in laz-abcdefghijklmnop, or OWNER/REPO#N, as in acme/widget#7")
    })
}

/// The entries, each mission by the name that people have for it.
fn lines(answer: &Answer) -> String {
    let Answer::Ledger { entries, next } = answer else { return answer.message() };
    let more = next.map(|next| format!("more from {next} (--from)"));
    let width = entries.iter().map(|view| view.name.chars().count()).max().unwrap_or(0);
    let lines = entries.iter().map(|EntryView { entry, name }| {
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
    lines.chain(more).collect::<Vec<_>>().join("\n")
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
