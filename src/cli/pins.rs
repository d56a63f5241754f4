//! `lazarus pins`: what the names of the configuration mean, and how an operator
//! has one looked up anew.

use super::Said;
use crate::cell::Actor;
use crate::config::Config;
use crate::operations::{Answer, Form, Reader, Request};
use crate::store::{self, PinKind};
use clap::Subcommand;
use serde_json::json;
use std::fmt::Write as _;

/// Text below `lazarus pins --help`.
pub const HELP: &str = "\
A name on a forge can change hands. So Lazarus looks each name of the
configuration up once (repositories, directors, teams), and from then on the
number that it found counts. A name that meant nothing then goes on meaning
nothing. Where a name is to be looked up anew (the right account was made only
later, an organisation was made again on purpose), have it forgotten:

  lazarus pins forget account ada
  lazarus pins forget team acme/leads
  lazarus pins forget repository acme/widget

The approval label of a repository is pinned anew by `lazarus init OWNER/REPO`.
A daemon that runs looks the name up within `reconcile.interval`.";

/// What can be done with pins.
#[derive(Debug, Subcommand)]
pub enum PinsVerb {
    /// Show them; the default.
    List,
    /// Forget what a name meant: the next look at the forge pins it anew.
    Forget {
        /// repository, account or team
        kind: String,
        /// The name as it stands in the configuration.
        name: String,
    },
}

/// Runs it.
///
/// # Errors
/// Where there is no registry, or it cannot be changed.
pub(super) fn run(config: &Config, verb: Option<PinsVerb>, as_json: bool) -> anyhow::Result<Said> {
    let registry = &config.paths.registry;
    let reader = Reader::of(config)?;
    match verb.unwrap_or(PinsVerb::List) {
        PinsVerb::List => {
            let answer = reader.answer(&Request::ListPins)?;
            let pins = match &answer {
                Answer::Pins { pins } if !as_json => pins,
                answer => return Ok(Said::done(answer.to_json(Form::Plain).to_string())),
            };
            let mut out = String::new();
            for pin in pins {
                let means = match (pin.id, pin.within) {
                    (0, Some(within)) if pin.fault.is_none() => format!("nothing yet, waited for below id {within}"),
                    (0, _) => "nothing".to_owned(),
                    (id, Some(within)) => format!("id {id} (of id {within})"),
                    (id, None) => format!("id {id}"),
                };
                let _ = writeln!(out, "{:<10}  {:<30}  {means}", pin.kind, pin.shown_name());
                if let Some(fault) = &pin.fault {
                    let _ = writeln!(out, "            {fault}");
                }
            }
            Ok(Said::done(super::init::printable(&out).trim_end_matches('\n').to_owned()))
        }
        PinsVerb::Forget { kind, name } => {
            let kind = match PinKind::parse(&kind) {
                Some(PinKind::Label) => {
                    anyhow::bail!("KIND label: `lazarus init OWNER/REPO` pins the approval label of a repository anew")
                }
                Some(kind) => kind,
                None => anyhow::bail!("KIND {kind}: allowed are repository, account, team"),
            };
            let by = Actor::Operator { name: super::operate::operator() };
            let now = jiff::Timestamp::now().as_millisecond();
            let forgotten = store::change(registry, |tx| {
                let Some(old) = tx.forget_pin(kind, &name)? else { return Ok(None) };
                let now = tx.last_entry_at()?.max(now);
                tx.note_pin("name_forgotten", &by, &old, now)?;
                Ok(Some(old))
            })?;
            let message = match &forgotten {
                Some(old) if old.id > 0 => {
                    format!("{kind} {name} (it meant id {}) is forgotten; it is looked up anew", old.id)
                }
                Some(_) => format!("{kind} {name} (it meant nothing) is forgotten; it is looked up anew"),
                None => format!("NAME {name}: no {kind} of that name is pinned; `lazarus pins` lists them"),
            };
            if forgotten.is_none() {
                anyhow::bail!("{message}");
            }
            Ok(Said::done(if as_json { json!({"success": true, "message": message}).to_string() } else { message }))
        }
    }
}
