//! The keys of `/summon` and `/team`.

use super::arguments::shown;
use crate::cell::{BackendKind, Isolation, Network};
use crate::mission::quotes::{in_quotes, is_quoted};
use crate::mission::text::{duration, duration_words};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The keys of `/summon` and `/team`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SummonOptions {
    /// How it runs.
    pub backend: Option<BackendKind>,
    /// The weakest isolation that is acceptable.
    pub isolation: Option<Isolation>,
    /// Time to live, in milliseconds.
    pub ttl: Option<i64>,
    /// What it may reach.
    pub network: Option<Network>,
    /// The model.
    pub model: Option<String>,
    /// The task beside the text.
    pub task: Option<String>,
}

impl SummonOptions {
    /// Sets one key from its text, as `/summon` and the command line give it.
    ///
    /// # Errors
    /// Names the key and what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |allowed: String| format!("{key}=`{}`: allowed are {allowed}", shown(value));
        match key {
            "backend" => {
                self.backend = Some(BackendKind::parse(value).ok_or_else(|| wrong(BackendKind::words()))?);
            }
            "isolation" => {
                self.isolation = Some(Isolation::parse(value).ok_or_else(|| wrong(Isolation::words()))?);
            }
            "network" => self.network = Some(Network::parse(value).ok_or_else(|| wrong(Network::words()))?),
            "ttl" => self.ttl = Some(duration(value).map_err(|e| format!("ttl: {e}"))?),
            "model" => {
                let good = !value.is_empty()
                    && value.len() <= 100
                    && !value.starts_with('-')
                    && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
                if !good {
                    return Err(wrong("up to 100 letters, digits and - _ . / : @, not beginning with -".to_owned()));
                }
                self.model = Some(value.to_owned());
            }
            "task" => {
                if value.trim().is_empty() {
                    return Err("task is empty".to_owned());
                }
                self.task = Some(value.trim().to_owned());
            }
            _ => {
                return Err(format!(
                    "`{}` is not a key; allowed are backend, isolation, ttl, network, model, task",
                    shown(key)
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for SummonOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.backend {
            write!(f, " backend={backend}")?;
        }
        if let Some(isolation) = self.isolation {
            write!(f, " isolation={isolation}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, " ttl={}", duration_words(ttl))?;
        }
        if let Some(network) = self.network {
            write!(f, " network={network}")?;
        }
        if let Some(model) = &self.model {
            write!(f, " model={model}")?;
        }
        // Last, since it may go on to the end of the line.
        match &self.task {
            Some(task) if is_quoted(task) => write!(f, " task={}", in_quotes(task)),
            Some(task) => write!(f, " task={task}"),
            None => Ok(()),
        }
    }
}
