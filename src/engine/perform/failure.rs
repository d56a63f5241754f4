//! What came of an effect that was run, and whether it is tried again.
//! Every failure is judged here, by one rule, with the times that are configured
//! under `[forge]`.

use crate::backend::BackendError;
use crate::cell::Effect as CellEffect;
use crate::engine::clock::milliseconds;
use crate::engine::effect::{Effect, EffectKind};
use crate::engine::input::Input;
use crate::engine::{Engine, repository_of};
use crate::failure::Failure;
use crate::gitea::ForgeError;
use crate::mission::duration_words;
use crate::repository::GitError;
use crate::store::{EffectRow, StoreError};
use std::time::Duration;

/// Why an effect is not done.
#[derive(Debug)]
pub enum EffectError {
    /// It is tried again.
    Retry {
        /// Why it was not done, in words for people.
        why: String,
        /// What it waits for.
        cause: Cause,
    },
    /// It is given up.
    Permanent {
        /// Why, in words for people.
        why: String,
    },
}

/// What an effect that failed waits for.
#[derive(Debug)]
pub enum Cause {
    /// It passes by itself, after that long at the earliest, where the forge said so.
    Passing(Option<Duration>),
    /// People have to mend it: it is tried again for long.
    ForPeople,
    /// The forge says that something is not there, or is elsewhere. It is asked again until
    /// that is certain. What follows then, where the effect does not fail by it.
    Doubtful(Option<Box<Input>>),
}

/// What follows from an effect that was done, or why it was not.
pub type Performed = Result<Input, EffectError>;

/// Times in a row that the forge has to say that a thing is not there.
pub const LOOKS: i64 = 3;
/// A reaction that comes later than this is of no use to anybody.
const REACTION_LATE: Duration = Duration::from_mins(10);

impl EffectError {
    /// A failure whose end is known, in words for people.
    pub fn failed(failure: Failure, why: String) -> Self {
        match failure {
            Failure::Passing { after } => Self::Retry { why, cause: Cause::Passing(after) },
            Failure::ForPeople => Self::Retry { why, cause: Cause::ForPeople },
            Failure::Doubtful => Self::Retry { why, cause: Cause::Doubtful(None) },
            Failure::Lasting => Self::Permanent { why },
        }
    }

    /// It passes by itself.
    pub fn passing(why: impl ToString) -> Self {
        Self::failed(Failure::PASSING, why.to_string())
    }

    /// Trying again changes nothing.
    pub fn permanent(why: impl Into<String>) -> Self {
        Self::Permanent { why: why.into() }
    }

    /// The forge does not show something that was there.
    pub fn not_shown(what: &str) -> Self {
        Self::failed(Failure::Doubtful, format!("the forge does not show {what} any more"))
    }

    /// The same, where something follows once that is certain.
    pub fn not_shown_then(what: &str, then: Input) -> Self {
        let why = format!("the forge does not show {what} any more");
        Self::Retry { why, cause: Cause::Doubtful(Some(Box::new(then))) }
    }

    /// Why it was not done, for a person.
    pub fn words(self) -> String {
        match self {
            Self::Retry { why, .. } | Self::Permanent { why } => why,
        }
    }
}

impl From<ForgeError> for EffectError {
    fn from(error: ForgeError) -> Self {
        // A call that may have been done is done again, with a look before it.
        match error.failure() {
            Failure::Lasting if error.may_have_happened() => Self::passing(error),
            failure => Self::failed(failure, error.to_string()),
        }
    }
}

impl From<GitError> for EffectError {
    fn from(error: GitError) -> Self {
        Self::failed(error.failure(), error.to_string())
    }
}

impl From<StoreError> for EffectError {
    fn from(error: StoreError) -> Self {
        Self::passing(error)
    }
}

impl From<BackendError> for EffectError {
    fn from(error: BackendError) -> Self {
        Self::failed(error.failure(), error.to_string())
    }
}

/// An effect that is given up.
pub struct GivenUp {
    /// Why it was not done, in words for people.
    pub why: String,
    /// What follows, where that is no failure of the effect.
    then: Option<Input>,
}

impl From<GivenUp> for Performed {
    fn from(given_up: GivenUp) -> Self {
        given_up.then.ok_or(EffectError::Permanent { why: given_up.why })
    }
}

impl Engine {
    /// Decides on a failure: whether the effect is tried again, or that was the last
    /// attempt.
    pub(super) async fn judge(&self, row: &EffectRow, error: EffectError) -> Performed {
        let is_doubtful = matches!(error, EffectError::Retry { cause: Cause::Doubtful(_), .. });
        if EffectKind::of(&row.kind).is_never_given_up() && !is_doubtful {
            return Err(error);
        }
        self.is_given_up(row, error).await?.into()
    }

    /// The same for an effect that is given up in the end whatever its kind, and for a part
    /// of one.
    ///
    /// # Errors
    /// Where it is tried again.
    pub(super) async fn is_given_up(&self, row: &EffectRow, error: EffectError) -> Result<GivenUp, EffectError> {
        let (why, cause) = match error {
            EffectError::Permanent { why } => return Ok(GivenUp { why, then: None }),
            EffectError::Retry { why, cause } => (why, cause),
        };
        let id = row.id.clone();
        // Where the registry cannot be read, nothing is decided.
        let Ok(trouble) = self.store.read(move |tx| tx.trouble(&id)).await else {
            return Err(EffectError::Retry { why, cause });
        };
        let (now, config) = (self.clock.now().0, &self.context.config.forge);
        let is_reaction = EffectKind::of(&row.kind) == EffectKind::React;
        let patience = if is_reaction { config.patience.min(REACTION_LATE) } else { config.patience };
        let failing = trouble.failing_since.map_or(0, |since| now - since);
        if failing >= milliseconds(patience) {
            return Ok(GivenUp { why: format!("{why} (tried for {})", duration_words(failing)), then: None });
        }
        match cause {
            // A courtesy: one that is forbidden is not worth a queue.
            Cause::ForPeople if is_reaction => Ok(GivenUp { why, then: None }),
            Cause::Doubtful(then) => {
                let asked_enough = trouble.missing_looks + 1 >= LOOKS;
                let missing = trouble.missing_since.map_or(0, |since| now - since);
                let long_enough = is_reaction || missing >= milliseconds(config.gone_after);
                if self.is_deleted(&row.mission).await || (asked_enough && long_enough) {
                    self.confirmed(row, why, then).await
                } else {
                    Err(EffectError::Retry { why, cause: Cause::Doubtful(then) })
                }
            }
            cause => Err(EffectError::Retry { why, cause }),
        }
    }

    async fn is_deleted(&self, mission: &str) -> bool {
        self.stored_mission(mission).await.is_ok_and(|m| m.is_some_and(|m| m.deleted))
    }

    /// It was said often enough. But where the whole repository is not shown, it
    /// may be the bot that lost its right to see it: that is for people.
    async fn confirmed(&self, row: &EffectRow, why: String, then: Option<Box<Input>>) -> Result<GivenUp, EffectError> {
        let repository = repository_of(&row.mission);
        let shown = if repository > 0 { self.forge.repository_by_id(repository).await } else { Ok(None) };
        match shown {
            Ok(Some(_)) => Ok(GivenUp { why, then: then.map(|then| *then) }),
            Ok(None) if EffectKind::of(&row.kind) == EffectKind::React => Ok(GivenUp { why, then: None }),
            Ok(None) => Err(EffectError::Retry {
                why: format!("{why}; nor does it show the repository: is the bot's account still its administrator?"),
                cause: Cause::ForPeople,
            }),
            Err(error) => Err(EffectError::Retry { why: format!("{why}; {error}"), cause: Cause::Doubtful(then) }),
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
