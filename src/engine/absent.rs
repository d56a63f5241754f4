//! Issues that the forge does not show any more. One 404 does not mean that an
//! issue was deleted: it has to be said several times, over some minutes, while
//! the repository itself is shown. And it is undone when the issue shows again.

use super::Engine;
use super::clock::milliseconds;
use super::forge_identity::ReconcileError;
use super::input::Input;
use super::keys::InboxKey;
use super::perform::failure::LOOKS;
use crate::gitea::Forge;
use crate::gitea::event::{IssueSnapshot, RepoRef};
use crate::mission::MissionId;
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Since when missions' issues are not shown, and how often that was said, in a
/// row. In memory alone: a new daemon asks anew.
#[derive(Default)]
pub(super) struct Absent(Mutex<HashMap<String, (i64, i64)>>);

impl Absent {
    /// The issue is there.
    pub(super) fn shown(&self, mission: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(mission);
    }

    /// The issue was not shown, at `now`. Returns whether that is certain: it was
    /// said often enough, for so long (both in milliseconds).
    fn not_shown(&self, mission: &str, now: i64, long_enough: i64) -> bool {
        let mut absent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, looks) = absent.entry(mission.to_owned()).or_insert((now, 0));
        *looks += 1;
        *looks >= LOOKS && now - *since >= long_enough
    }
}

impl Engine {
    /// The forge did not show the issue of a live mission.
    pub(super) async fn issue_not_shown(
        &self,
        forge: &Forge,
        repo: &RepoRef,
        mission: &MissionId,
    ) -> Result<(), ReconcileError> {
        let now = self.clock.now().0;
        let long_enough = milliseconds(self.context.config.forge.gone_after);
        if !self.absent.not_shown(mission.as_str(), now, long_enough) {
            tracing::info!(%mission, "the forge does not show this issue; it is asked again before that counts");
            return Ok(());
        }
        // Where it shows nothing of the whole repository, the bot may have lost its
        // right to see it: then nothing is said about the issue.
        if forge.repository_by_id(repo.id).await?.is_none() {
            tracing::warn!(%mission, "the forge shows neither this issue nor its repository; its cells go on");
            return Ok(());
        }
        self.absent.shown(mission.as_str());
        let input = Input::IssueDeleted { mission: mission.to_string() };
        self.put(InboxKey::issue_deleted(mission, now), &input).await?;
        Ok(())
    }

    /// The forge shows an issue that was taken for deleted.
    pub(super) async fn issue_shown(
        &self,
        repo: &RepoRef,
        issue: IssueSnapshot,
        mission: &MissionId,
    ) -> Result<(), StoreError> {
        let key = InboxKey::issue_shown(mission, self.clock.now().0);
        let input = Input::IssueShown { repo: repo.clone(), issue: Box::new(issue) };
        self.put(key, &input).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_is_gone_when_that_was_said_three_times_over_some_minutes() {
        let absent = Absent::default();
        let say = |at| absent.not_shown("1#1", at, 60_000);
        assert!(!say(0) && !say(30_000), "twice");
        assert!(say(60_000));
        absent.shown("1#1");
        assert!(!say(61_000) && !say(62_000) && !say(63_000), "three times, but within two seconds");
        assert!(!absent.not_shown("1#2", 121_000, 60_000), "each issue by itself");
        assert!(say(121_000));
    }
}
