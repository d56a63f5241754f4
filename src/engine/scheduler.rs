//! The scheduler between the two halves: decides what waits, claims what is due, runs as
//! many effects at once as there are places, and stores how each of them ended.

use super::Engine;
use super::clock::milliseconds;
use super::decide::{decide_waiting, note_deadlines};
use super::effect::EffectKind;
use super::input::Input;
use super::keys::InboxKey;
use super::lane::Lane;
use super::perform::failure::{Cause, EffectError, Performed, is_waited_for};
use crate::store::{EffectRow, EffectState, StoreError};
use futures::FutureExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Longest time between two attempts at an effect.
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// Places for effects that are run. Those that can take minutes have places of their own.
#[derive(Debug)]
pub struct Scheduler {
    /// Something is in the inbox, or an effect is due.
    wake: Arc<Notify>,
    /// Places of each sort.
    places: usize,
    quick: AtomicUsize,
    slow: AtomicUsize,
    /// Goes up after each commit that may have decided something: whoever waits for what
    /// comes of an input looks again then.
    commits: watch::Sender<u64>,
}

impl Scheduler {
    /// A scheduler with so many places of each sort.
    pub fn new(places: usize) -> Self {
        let (quick, slow) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { wake: Arc::default(), places, quick, slow, commits: watch::channel(0).0 }
    }

    /// Has it look for what is to be done now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The same, for a task that may outlive its caller.
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Changes after each commit that may have decided something, from now on.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    fn committed(&self) {
        self.commits.send_modify(|count| *count += 1);
    }

    /// Whether nothing is being run.
    pub fn is_idle(&self) -> bool {
        self.quick.load(Ordering::SeqCst) == 0 && self.slow.load(Ordering::SeqCst) == 0
    }

    /// Places that are free: for quick effects, for slow ones.
    fn free(&self) -> (i64, i64) {
        let free = |taken: &AtomicUsize| self.places.saturating_sub(taken.load(Ordering::SeqCst)) as i64;
        (free(&self.quick), free(&self.slow))
    }

    fn taken(&self, kind: &EffectKind) -> &AtomicUsize {
        if kind.is_slow() { &self.slow } else { &self.quick }
    }
}

/// The place of an effect that is run; free again when this goes.
struct Place {
    engine: Arc<Engine>,
    kind: EffectKind,
}

impl Place {
    fn take(engine: &Arc<Engine>, kind: EffectKind) -> Self {
        engine.scheduler.taken(&kind).fetch_add(1, Ordering::SeqCst);
        Self { engine: Arc::clone(engine), kind }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.engine.scheduler.taken(&self.kind).fetch_sub(1, Ordering::SeqCst);
        self.engine.scheduler.wake();
    }
}

impl Engine {
    /// Decides, commits, runs what is due, sleeps until the next thing is.
    pub(super) async fn work(self: Arc<Self>) {
        let mut marked = std::time::Instant::now();
        loop {
            match self.decide_and_claim().await {
                Ok((decided, claimed)) => {
                    self.scheduler.committed();
                    for row in claimed {
                        self.start_effect(row);
                    }
                    if decided > 0 {
                        continue;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "nothing could be decided; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            if marked.elapsed() > Duration::from_secs(60) {
                marked = std::time::Instant::now();
                self.mark_time().await;
            }
            let next = self
                .store
                .read(|tx| {
                    let due = [tx.next_effect_at()?, tx.next_cell_deadline()?];
                    Ok(due.into_iter().flatten().min())
                })
                .await
                .unwrap_or(None);
            let wait = next.map_or(60_000, |at| (at - self.clock.now().0).clamp(0, 60_000));
            // A lane whose head runs is woken by its end; nothing is due then.
            // And what is due but cannot be done yet (the forge did not say who
            // we are) must not keep a processor busy.
            let wait = wait.max(20);
            tokio::select! {
                () = self.scheduler.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(wait as u64)) => {}
            }
        }
    }

    /// One transaction: what waits is decided, and what is due then is claimed.
    /// Where there is nothing of either, nothing is written.
    async fn decide_and_claim(self: &Arc<Self>) -> Result<(usize, Vec<EffectRow>), StoreError> {
        let now = self.clock.now();
        let context = Arc::clone(&self.context);
        let ready = self.is_ready();
        let (quick, slow) = self.scheduler.free();
        self.store
            .transact(move |tx| {
                note_deadlines(tx, now)?;
                // Until it is known who we are, our own words could be taken
                // for somebody's: inputs wait.
                let decided = if ready { decide_waiting(tx, &context, now)? } else { 0 };
                Ok((decided, tx.claim(now.0, quick, (&EffectKind::SLOW, slow))?))
            })
            .await
    }

    fn start_effect(self: &Arc<Self>, row: EffectRow) {
        let place = Place::take(self, EffectKind::of(&row.kind));
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let performed = std::panic::AssertUnwindSafe(super::perform::run(&engine, &row))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(EffectError::passing("it failed inside; see the log")));
            engine.finish(&row, performed).await;
            drop(place);
        });
    }

    /// Stores what came of an effect.
    async fn finish(&self, row: &EffectRow, performed: Performed) {
        match performed {
            // No command ends without an answer: where somebody waits for one, an end
            // that says nothing is a failure, and every failure is answered.
            Ok(Input::Nothing) if EffectKind::of(&row.kind).owes_an_answer() => {
                self.give_up(row, "it ended without a result").await;
            }
            Ok(Input::Nothing) => self.end(row, EffectState::Done, None, None).await,
            Ok(input) => self.end(row, EffectState::Done, Some(input), None).await,
            Err(EffectError::Permanent { why }) => self.give_up(row, &why).await,
            Err(EffectError::Retry { why, cause }) => self.try_later(row, &why, &cause).await,
        }
    }

    async fn give_up(&self, row: &EffectRow, why: &str) {
        let why = self.context.redact(why);
        tracing::warn!(effect = row.id, kind = row.kind, why, "an effect cannot be done");
        let failed = Input::Failed {
            kind: row.kind.clone(),
            mission: row.mission.clone(),
            cell: row.cell_id(),
            why: why.clone(),
            effect: serde_json::from_str(&row.data).ok().map(Box::new),
        };
        self.end(row, EffectState::Failed, Some(failed), Some(why)).await;
    }

    /// Puts an effect back.
    async fn try_later(&self, row: &EffectRow, why: &str, cause: &Cause) {
        let now = self.clock.now().0;
        let doubled = Duration::from_millis(500).saturating_mul(1 << row.attempts.clamp(0, 10));
        // Somebody who confirms is heard within as long as they took.
        let confirms = EffectKind::of(&row.kind) == EffectKind::Confirm;
        let most = if confirms { self.context.config.reconcile.interval } else { BACKOFF_MAX };
        let asked = if let Cause::Passing(Some(after)) = cause { *after } else { Duration::ZERO };
        let wait = asked.max(doubled.min(most));
        let seconds = wait.as_secs_f32();
        tracing::info!(effect = row.id, kind = row.kind, why, seconds, "an effect is tried again");
        let (not_before, why) = (now + wait.as_millis() as i64, self.context.redact(why));
        // People are told once that something they wait for takes long.
        let cell = row.cell_id().filter(|_| is_waited_for(row));
        let waits = cell.and_then(|cell| {
            let (effect, kind, why) = (row.id.clone(), row.kind.clone(), why.clone());
            serde_json::to_string(&Input::Waits { effect, kind, cell, why }).ok()
        });
        let notice = milliseconds(self.context.config.forge.notice_after);
        let is_missing = matches!(cause, Cause::Doubtful(_));
        loop {
            let (id, why, waits) = (row.id.clone(), why.clone(), waits.clone());
            let put_back = self.store.transact(move |tx| {
                tx.retry(&id, not_before, &why, now, is_missing)?;
                let since = tx.trouble(&id)?.failing_since;
                if let Some(waits) = waits.filter(|_| since.is_some_and(|since| now - since >= notice)) {
                    tx.receive(InboxKey::effect_waits(&id).as_str(), &waits, now)?;
                }
                Ok(())
            });
            match put_back.await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, "an effect could not be put back yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Ends an effect; an input may follow from it.
    async fn end(&self, row: &EffectRow, state: EffectState, input: Option<Input>, error: Option<String>) {
        let now = self.clock.now().0;
        let text = input.and_then(|input| serde_json::to_string(&input).ok());
        let ready = self.is_ready();
        loop {
            let (id, text, error) = (row.id.clone(), text.clone(), error.clone());
            let (context, at) = (Arc::clone(&self.context), self.clock.now());
            let stored = self
                .store
                .transact(move |tx| {
                    tx.settle(&id, state, error.as_deref())?;
                    tx.withdraw(&Lane::Waits(&id).to_string())?;
                    let Some(text) = text else { return Ok(()) };
                    tx.receive(InboxKey::of_effect(&id).as_str(), &text, now)?;
                    if ready {
                        // Decided at once, in its turn. What cannot be decided
                        // now is tried again by the loop; the end stands.
                        let _ = tx.within(|tx| decide_waiting(tx, &context, at));
                    }
                    Ok(())
                })
                .await;
            match stored {
                Ok(()) | Err(StoreError::Closed) => return self.scheduler.committed(),
                Err(error) => {
                    tracing::error!(%error, "the end of an effect could not be stored yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}
