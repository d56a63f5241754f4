//! What came of an attempt at an effect, and whether there is to be another.
//! Every failure is judged here, by one rule, with the times that are configured
//! under `[forge]`.

use crate::backend::BackendError;
use crate::cell::Effect as CellEffect;
use crate::engine::Engine;
use crate::engine::clock::milliseconds;
use crate::engine::effect::{Effect, EffectKind};
use crate::engine::input::Input;
use crate::failure::Failure;
use crate::gitea::ForgeError;
use crate::mission::{MissionId, duration_words};
use crate::repository::GitError;
use crate::store::{EffectRow, StoreError};
use std::time::Duration;

/// What came of an attempt.
pub enum Attempt {
    /// Done; this follows.
    Done(Input),
    /// It passes by itself: again, after that long at the earliest.
    Again {
        /// Why.
        why: String,
        /// When, where the forge said so.
        after: Option<Duration>,
    },
    /// People have to mend it: again, for long.
    Mend {
        /// Why.
        why: String,
    },
    /// The forge says that something is not there, or is elsewhere. It is asked
    /// again until that is certain.
    Doubtful {
        /// Why.
        why: String,
        /// What follows once it is certain; else it is [`Never`](Self::Never).
        then: Option<Input>,
    },
    /// Never; this follows.
    Never {
        /// Why.
        why: String,
        /// What follows, beside the answer and the note in the ledger.
        input: Option<Input>,
    },
}

/// An attempt: what follows, or why nothing does yet.
pub type Ran = Result<Input, Attempt>;

/// Times in a row that the forge has to say that a thing is not there.
pub const LOOKS: i64 = 3;
/// A reaction that comes later than this is of no use to anybody.
const REACTION_LATE: Duration = Duration::from_mins(10);

impl Attempt {
    /// A failure whose end is known, in words for people.
    pub fn failed(failure: Failure, why: String) -> Self {
        match failure {
            Failure::Passing { after } => Self::Again { why, after },
            Failure::ForPeople => Self::Mend { why },
            Failure::Doubtful => Self::Doubtful { why, then: None },
            Failure::Lasting => Self::Never { why, input: None },
        }
    }

    /// The forge does not show something that was there.
    pub fn not_shown(what: &str) -> Self {
        Self::Doubtful { why: format!("the forge does not show {what} any more"), then: None }
    }

    /// Why it was not done, for a person.
    pub fn words(self) -> String {
        match self {
            Self::Again { why, .. } | Self::Mend { why } | Self::Doubtful { why, .. } | Self::Never { why, .. } => why,
            Self::Done(_) => "nothing is wrong".to_owned(),
        }
    }

    /// Whether there may be another attempt.
    pub fn is_again(&self) -> bool {
        matches!(self, Self::Again { .. } | Self::Mend { .. } | Self::Doubtful { .. })
    }
}

impl From<ForgeError> for Attempt {
    fn from(error: ForgeError) -> Self {
        // A call that may have been done is done again, with a look before it.
        match error.failure() {
            Failure::Lasting if error.may_have_happened() => Self::Again { why: error.to_string(), after: None },
            failure => Self::failed(failure, error.to_string()),
        }
    }
}

impl From<GitError> for Attempt {
    fn from(error: GitError) -> Self {
        Self::failed(error.failure(), error.to_string())
    }
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        Self::Again { why: error.to_string(), after: None }
    }
}

impl From<BackendError> for Attempt {
    fn from(error: BackendError) -> Self {
        Self::failed(error.failure(), error.to_string())
    }
}

impl Engine {
    /// Decides on an attempt that failed: whether it is made again, or was the
    /// last one.
    pub async fn judge(&self, row: &EffectRow, attempt: Attempt) -> Attempt {
        if EffectKind::of(&row.kind).is_never_given_up() && !matches!(attempt, Attempt::Doubtful { .. }) {
            return attempt;
        }
        self.judge_by_patience(row, attempt).await
    }

    /// The same for an effect that is given up in the end whatever its kind.
    pub async fn judge_by_patience(&self, row: &EffectRow, attempt: Attempt) -> Attempt {
        if !attempt.is_again() {
            return attempt;
        }
        let id = row.id.clone();
        // Where the registry cannot be read, nothing is decided.
        let Ok(trouble) = self.store.read(move |tx| tx.trouble(&id)).await else { return attempt };
        let (now, config) = (self.clock.now().0, &self.context.config.forge);
        let is_reaction = EffectKind::of(&row.kind) == EffectKind::React;
        let patience = if is_reaction { config.patience.min(REACTION_LATE) } else { config.patience };
        let failing = trouble.failing_since.map_or(0, |since| now - since);
        if failing >= milliseconds(patience) {
            let (Attempt::Again { why, .. } | Attempt::Mend { why } | Attempt::Doubtful { why, .. }) = attempt else {
                return attempt;
            };
            return Attempt::Never { why: format!("{why} (tried for {})", duration_words(failing)), input: None };
        }
        match attempt {
            // A courtesy: one that is forbidden is not worth a queue.
            Attempt::Mend { why } if is_reaction => Attempt::Never { why, input: None },
            Attempt::Doubtful { why, then } => {
                let asked_enough = trouble.missing_looks + 1 >= LOOKS;
                let missing = trouble.missing_since.map_or(0, |since| now - since);
                let long_enough = is_reaction || missing >= milliseconds(config.gone_after);
                if self.is_deleted(&row.mission).await || (asked_enough && long_enough) {
                    self.confirmed(row, why, then).await
                } else {
                    Attempt::Doubtful { why, then }
                }
            }
            attempt => attempt,
        }
    }

    async fn is_deleted(&self, mission: &str) -> bool {
        let mission = mission.to_owned();
        self.store.read(move |tx| tx.mission(&mission)).await.is_ok_and(|m| m.is_some_and(|m| m.deleted))
    }

    /// It was said often enough. But where the whole repository is not shown, it
    /// may be the bot that lost its right to see it: that is for people.
    async fn confirmed(&self, row: &EffectRow, why: String, then: Option<Input>) -> Attempt {
        let repository = MissionId::parse(&row.mission).map_or(0, |mission| mission.repository());
        let shown = if repository > 0 { self.forge.repository_by_id(repository).await } else { Ok(None) };
        match (shown, then) {
            (Ok(Some(_)), Some(then)) => Attempt::Done(then),
            (Ok(Some(_)), None) => Attempt::Never { why, input: None },
            (Ok(None), _) if EffectKind::of(&row.kind) == EffectKind::React => Attempt::Never { why, input: None },
            (Ok(None), _) => Attempt::Mend {
                why: format!("{why}; nor does it show the repository: is the bot's account still its administrator?"),
            },
            (Err(error), then) => Attempt::Doubtful { why: format!("{why}; {error}"), then },
        }
    }
}

/// Whether people are told when an effect waits for long: it stands between a
/// command and what everybody can see of it.
pub fn is_waited_for(row: &EffectRow) -> bool {
    matches!(
        serde_json::from_str(&row.data),
        Ok(Effect::Push { .. } | Effect::Cell { order: CellEffect::Prepare { .. } | CellEffect::Restore { .. } })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_and_the_api_come_to_the_same() {
        for (status, words) in [
            (502, "fatal: unable to access 'http://f/a/b.git/': The requested URL returned error: 502"),
            (429, "error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429"),
            (408, "error: RPC failed; HTTP 408"),
            (403, "fatal: unable to access 'http://f/a/b.git/': The requested URL returned error: 403"),
            (404, "fatal: repository 'http://f/a/b.git/' not found"),
            (301, "fatal: unable to access 'http://f/a/b.git/': The requested URL returned error: 301"),
        ] {
            let git = GitError::Git { what: "fetch", words: words.to_owned() };
            assert_eq!(git.failure(), Failure::of_status(status, None), "{words}");
        }
    }
}
