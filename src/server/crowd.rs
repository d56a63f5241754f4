//! Limits what all webhook connections together may use, and decides which ones are closed.
//!
//! While a request is being read its sender has proved nothing yet, so good and bad senders cannot be told apart: a
//! caller that sends one byte a second looks like a forge on a slow line, and behind a proxy all have the same
//! address. So newcomers never wait for those who are already there. If there is no room, a connection is closed
//! instead: of the source that uses most, the one that makes the least progress. A real delivery is read within
//! milliseconds and is never that one.

use crate::pace::Source;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// Bytes of a body that every connection may hold, whatever others hold. Real deliveries have about 6 kB.
pub(super) const FREE: usize = 64 * 1024;

/// Limits for all connections together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Most connections at once.
    pub(super) connections: usize,
    /// Most bytes of bodies at once, beyond [`FREE`] for each connection.
    pub(super) bytes: usize,
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Crowd {
    room: Room,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    visits: HashMap<u64, Visit>,
    /// Sum of the bytes that connections hold.
    held: usize,
}

#[derive(Debug)]
struct Visit {
    source: Source,
    /// When its present state began.
    since: Instant,
    held: usize,
    /// Whether its request is complete and being handled.
    seen_to: bool,
    sent_away: bool,
    tell: Arc<Notify>,
}

/// One connection. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Visitor {
    crowd: Arc<Crowd>,
    id: u64,
    /// Its source address.
    pub(super) source: Source,
    tell: Arc<Notify>,
}

/// This connection was closed, or refused, for lack of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentAway;

impl Crowd {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a connection that is not being handled, if there is one, because the system is out of descriptors.
    pub(super) fn make_place(&self) {
        let _ = self.inside().make_place();
    }

    /// Admits a connection, and closes another one if there is no room.
    ///
    /// # Errors
    /// If the requests of all connections are being handled.
    pub(super) fn enter(self: &Arc<Self>, source: Source) -> Result<Visitor, SentAway> {
        let mut inside = self.inside();
        if inside.visits.len() >= self.room.connections {
            inside.make_place()?;
        }
        let id = inside.next;
        inside.next += 1;
        let tell = Arc::new(Notify::new());
        let visit =
            Visit { source, since: Instant::now(), held: 0, seen_to: false, sent_away: false, tell: Arc::clone(&tell) };
        inside.visits.insert(id, visit);
        Ok(Visitor { crowd: Arc::clone(self), id, source, tell })
    }
}

impl Inside {
    /// Closes the connection that has been reading for longest, of the source with most connections.
    fn make_place(&mut self) -> Result<(), SentAway> {
        let mut of_source: HashMap<Source, usize> = HashMap::new();
        for visit in self.visits.values() {
            *of_source.entry(visit.source).or_default() += 1;
        }
        let worst = self
            .visits
            .iter()
            .filter(|(_, visit)| !visit.seen_to)
            .max_by_key(|(_, visit)| (of_source.get(&visit.source), std::cmp::Reverse(visit.since)))
            .map(|(id, _)| *id)
            .ok_or(SentAway)?;
        self.send_away(worst);
        self.visits.remove(&worst);
        Ok(())
    }

    /// Closes the connection whose body arrives most slowly, of the source that holds most. Returns its number.
    fn make_room(&mut self) -> Result<u64, SentAway> {
        let mut of_source: HashMap<Source, usize> = HashMap::new();
        for visit in self.visits.values() {
            *of_source.entry(visit.source).or_default() += visit.held;
        }
        // Bytes per second, with a minimum elapsed time that avoids a division by zero.
        let pace = |visit: &Visit| visit.held as f64 / visit.since.elapsed().as_secs_f64().max(1e-6);
        let worst = self
            .visits
            .iter()
            .filter(|(_, visit)| !visit.seen_to && visit.held > 0)
            .max_by(|(_, a), (_, b)| {
                let most = of_source.get(&a.source).cmp(&of_source.get(&b.source));
                most.then_with(|| pace(b).total_cmp(&pace(a)))
            })
            .map(|(id, _)| *id)
            .ok_or(SentAway)?;
        self.send_away(worst);
        Ok(worst)
    }

    fn send_away(&mut self, id: u64) {
        if let Some(visit) = self.visits.get_mut(&id) {
            visit.sent_away = true;
            self.held -= visit.held;
            visit.held = 0;
            visit.tell.notify_one();
        }
    }
}

impl Visitor {
    /// Resolves when this connection must be closed.
    pub(super) async fn has_to_go(&self) {
        self.tell.notified().await;
    }

    /// Notes that a request of this connection is being read from now on.
    pub(super) fn reads(&self) {
        self.with(|visit| visit.since = Instant::now());
    }

    /// Notes that the connection holds so many bytes of its body. Closes others if there is no room for them.
    ///
    /// # Errors
    /// If this connection is the one that must be closed.
    pub(super) fn holds(&self, bytes: usize) -> Result<(), SentAway> {
        let mut guard = self.crowd.inside();
        let inside = &mut *guard;
        let visit = inside.visits.get_mut(&self.id).ok_or(SentAway)?;
        if visit.sent_away {
            return Err(SentAway);
        }
        let now = bytes.saturating_sub(FREE);
        inside.held = inside.held - visit.held + now;
        visit.held = now;
        while inside.held > self.crowd.room.bytes {
            if inside.make_room()? == self.id {
                return Err(SentAway);
            }
        }
        Ok(())
    }

    /// Notes that its request is complete. It is not closed while it is being handled, and its bytes are released
    /// with the answer.
    ///
    /// # Errors
    /// If it was already chosen to be closed.
    pub(super) fn is_seen_to(self: &Arc<Self>) -> Result<SeenTo, SentAway> {
        let sent_away = self.with(|visit| {
            visit.seen_to = !visit.sent_away;
            visit.sent_away
        });
        if sent_away == Some(false) { Ok(SeenTo(Arc::clone(self))) } else { Err(SentAway) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Visit) -> T) -> Option<T> {
        self.crowd.inside().visits.get_mut(&self.id).map(change)
    }

    fn lets_go(&self) {
        let mut guard = self.crowd.inside();
        let inside = &mut *guard;
        if let Some(visit) = inside.visits.get_mut(&self.id) {
            inside.held -= visit.held;
            visit.held = 0;
            visit.seen_to = false;
            visit.since = Instant::now();
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut inside = self.crowd.inside();
        if let Some(visit) = inside.visits.remove(&self.id) {
            inside.held -= visit.held;
        }
    }
}

/// A request that is being handled, until this is dropped.
#[derive(Debug)]
pub(super) struct SeenTo(Arc<Visitor>);

impl Drop for SeenTo {
    fn drop(&mut self) {
        self.0.lets_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::net::IpAddr;

    fn source(last: u8) -> Source {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn gone(visitor: &Visitor) -> bool {
        visitor.has_to_go().now_or_never().is_some()
    }

    fn crowd(connections: usize, bytes: usize) -> Arc<Crowd> {
        Crowd::new(Room { connections, bytes })
    }

    #[test]
    fn where_all_places_are_taken_the_oldest_of_the_largest_group_goes() {
        let crowd = crowd(4, 0);
        let alone = crowd.enter(source(1)).unwrap();
        let group: Vec<_> = (0..3).map(|_| crowd.enter(source(2)).unwrap()).collect();
        let new = crowd.enter(source(3)).unwrap();
        assert!(gone(&group[0]), "the oldest of three");
        assert!(!gone(&alone) && !gone(&group[1]) && !gone(&group[2]) && !gone(&new));
    }

    #[test]
    fn who_is_being_seen_to_stays_and_with_nobody_else_there_newcomers_do_not_come_in() {
        let crowd = crowd(2, 0);
        let first = Arc::new(crowd.enter(source(1)).unwrap());
        let second = Arc::new(crowd.enter(source(1)).unwrap());
        let seen_to = first.is_seen_to().unwrap();
        let third = crowd.enter(source(1)).unwrap();
        assert!(gone(&second), "the only one that is still being read");
        assert_eq!(second.is_seen_to().err(), Some(SentAway), "too late");
        let third = Arc::new(third);
        let also = third.is_seen_to().unwrap();
        assert!(crowd.enter(source(1)).is_err());
        drop((seen_to, also));
        assert!(crowd.enter(source(1)).is_ok());
    }

    #[test]
    fn memory_is_taken_from_the_slowest_of_those_who_hold_most() {
        let crowd = crowd(100, 10 * FREE);
        let old: Vec<_> = (0..4).map(|_| crowd.enter(source(1)).unwrap()).collect();
        let (slow, rest) = old.split_first().unwrap();
        slow.holds(2 * FREE).unwrap();
        for visitor in rest {
            visitor.holds(4 * FREE).unwrap();
        }
        // 1 + 3 × 3 of the 10 places are taken.
        let good = crowd.enter(source(2)).unwrap();
        good.holds(2 * FREE).unwrap();
        assert!(gone(slow), "it got on worst");
        assert!(!gone(&good) && rest.iter().all(|visitor| !gone(visitor)));
        assert_eq!(slow.holds(3 * FREE), Err(SentAway));
    }

    #[test]
    fn a_small_body_needs_no_room_and_a_body_larger_than_all_room_goes_itself() {
        let crowd = crowd(100, FREE);
        let large = crowd.enter(source(1)).unwrap();
        large.holds(2 * FREE).unwrap();
        let small = crowd.enter(source(1)).unwrap();
        small.holds(FREE).unwrap();
        assert!(!gone(&large), "nobody had to go for it");
        assert_eq!(large.holds(3 * FREE), Err(SentAway));
    }

    #[test]
    fn what_was_held_is_given_back() {
        let crowd = crowd(100, 4 * FREE);
        for _ in 0..100 {
            let visitor = Arc::new(crowd.enter(source(1)).unwrap());
            visitor.reads();
            visitor.holds(5 * FREE).unwrap();
            let seen_to = visitor.is_seen_to().unwrap();
            drop(seen_to);
            visitor.holds(5 * FREE).unwrap();
        }
        let inside = crowd.inside();
        assert_eq!((inside.held, inside.visits.len()), (0, 0));
    }
}
