//! A command as a person would write it.

use super::{Command, Publishable};
use crate::mission::quotes::{in_quotes, is_quoted};
use crate::mission::text::duration_words;
use std::fmt;

/// The command as a person would write it: what is repeated to people before it
/// counts is exactly what was read.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |f: &mut fmt::Formatter<'_>, word: Option<&dyn fmt::Display>| match word {
            Some(word) => write!(f, " {word}"),
            None => Ok(()),
        };
        macro_rules! line {
            ($name:literal $(, $word:expr)*) => {{
                f.write_str(concat!("/", $name))?;
                $(optional(f, $word)?;)*
                Ok(())
            }};
        }
        fn some<T: fmt::Display>(word: Option<&T>) -> Option<&dyn fmt::Display> {
            word.map(|w| w as &dyn fmt::Display)
        }
        match self {
            Self::Summon { agents, options } => {
                let verb = if agents.len() > 1 { "team" } else { "summon" };
                write!(f, "/{verb} {}{options}", agents.join("+"))
            }
            Self::Approve { number } => line!("approve", some(number.as_ref())),
            Self::Reject { number, reason } => line!("reject", some(number.as_ref()), some(reason.as_ref())),
            Self::Invite { identity, role, cell } => line!("invite", Some(identity), Some(role), some(cell.as_ref())),
            Self::Revoke { identity, cell } => line!("revoke", Some(identity), some(cell.as_ref())),
            Self::Accept { cell } => line!("accept", some(cell.as_ref())),
            Self::Tell { agent, text } => line!("tell", Some(agent), Some(text)),
            Self::Status { cell } => line!("status", some(cell.as_ref())),
            Self::Help { command } => line!("help", some(command.as_ref())),
            Self::Extend { by, cell } => line!("extend", Some(&duration_words(*by)), some(cell.as_ref())),
            Self::Pause { cell } => line!("pause", some(cell.as_ref())),
            Self::Resume { cell } => line!("resume", some(cell.as_ref())),
            Self::Checkpoint { note } => line!("checkpoint", some(note.as_ref())),
            Self::Revive { agent } => line!("revive", some(agent.as_ref())),
            Self::Substitute { agent, instead_of } => {
                line!("substitute", Some(agent))?;
                instead_of.as_ref().map_or(Ok(()), |agent| write!(f, " for {agent}"))
            }
            Self::Handoff { task, from, to } => write!(f, "/handoff {task} from {from} to {to}"),
            Self::Decide { text } => line!("decide", Some(text)),
            Self::Vote { yes, on } => {
                write!(f, "/vote {}", if *yes { "yes" } else { "no" })?;
                on.as_ref().map_or(Ok(()), |id| write!(f, " on {id}"))
            }
            Self::Publish { what, cell } => {
                f.write_str("/publish ")?;
                match what {
                    Publishable::Work => f.write_str("work"),
                    Publishable::Notes => f.write_str("notes"),
                    Publishable::Decisions => f.write_str("decisions"),
                    Publishable::Checkpoint => f.write_str("checkpoint"),
                    Publishable::Artifact(name) if name.contains(char::is_whitespace) || is_quoted(name) => {
                        write!(f, "artifact {}", in_quotes(name))
                    }
                    Publishable::Artifact(name) => write!(f, "artifact {name}"),
                }?;
                optional(f, some(cell.as_ref()))
            }
            Self::Close { outcome, reason, cell } => {
                line!("close", some(outcome.as_ref()), some(cell.as_ref()), some(reason.as_ref()))
            }
            Self::Resurrect { cell } => line!("resurrect", some(cell.as_ref())),
            Self::Destroy { cell } => line!("destroy", Some(cell)),
        }
    }
}
