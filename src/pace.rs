//! How often somebody may cause work: one rate limiter for people, issues and sources of connections.
//!
//! A [`Pace`] is asked *before* the work is done. It allows a burst of actions, and then one more after each
//! fraction of its period (a token bucket, stored as one number for each key: the time at which the bucket would be
//! full again). It has no clock: callers pass the time. It never stores more than its number of keys, however many
//! new ones are invented.
//!
//! ```
//! use lazarus::pace::{Asked, Key, Pace, Rate};
//! use std::time::Duration;
//!
//! let mut edits = Pace::new(Rate { burst: 2, per: Duration::from_secs(60) }, 1000);
//! let issue = Key::Issue { repository: 1, number: 7 };
//! assert_eq!(edits.ask(issue, 1, 0), Asked::Go);
//! assert_eq!(edits.ask(issue, 1, 0), Asked::Go);
//! let wait = Duration::from_secs(30);
//! assert_eq!(edits.ask(issue, 1, 0), Asked::Wait { wait, first: true });
//! assert_eq!(edits.ask(issue, 1, 1), Asked::Wait { wait: wait - Duration::from_millis(1), first: false });
//! assert_eq!(edits.ask(issue, 1, 30_000), Asked::Go);
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Whose rate is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A person, by number.
    Person(i64),
    /// An issue.
    Issue {
        /// The repository's number.
        repository: i64,
        /// The issue's number in it.
        number: i64,
    },
    /// A repository, by number.
    Repository(i64),
    /// The source of a connection.
    Source(Source),
}

/// The source of a connection: an IPv4 address, or the /64 of an IPv6 address, because one host can use all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Most actions at once after a quiet time. At least one.
    pub burst: u32,
    /// Time in which that many actions become available again.
    pub per: Duration,
}

/// Whether an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Allowed, and counted.
    Go,
    /// Not allowed now, and not counted.
    Wait {
        /// After this time it would be allowed, if nothing else happens.
        wait: Duration,
        /// Whether this is the first refusal since something was allowed. Answer only that one if each refusal
        /// would cause an answer.
        first: bool,
    },
}

impl Asked {
    /// Whether it is allowed.
    pub fn allowed(self) -> bool {
        self == Self::Go
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When the bucket is full again, in microseconds of the callers' clock.
    full_at: i128,
    /// Whether something was refused since it last allowed something.
    refused: bool,
}

/// Rate limits for many keys.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    keys_max: usize,
    buckets: HashMap<Key, Bucket>,
    /// The bucket for all keys that found no place.
    others: Bucket,
    /// The latest time that was ever passed: a clock that steps back must not prolong anybody's wait.
    now: i128,
}

impl Pace {
    /// Creates an empty one. It stores at most `keys_max` keys; if that many are busy, all others share one bucket.
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        let rate = Rate { burst: rate.burst.max(1), ..rate };
        let others = Bucket { full_at: i128::MIN, refused: false };
        Self { rate, keys_max: keys_max.max(1), buckets: HashMap::new(), others, now: i128::MIN }
    }

    /// Whether `key` may do something that costs `cost` actions now, at `now` milliseconds of any clock. An action
    /// that costs more than the burst is allowed when the bucket is full.
    pub fn ask(&mut self, key: Key, cost: u32, now: i64) -> Asked {
        let per = i128::try_from(self.rate.per.as_micros()).unwrap_or(i128::MAX / 4);
        self.now = self.now.max(i128::from(now) * 1000);
        let now = self.now;
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.keys_max {
            // A full bucket behaves like an unknown key, so it can be dropped.
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let new = Bucket { full_at: i128::MIN, refused: false };
        let bucket = if self.buckets.contains_key(&key) || self.buckets.len() < self.keys_max {
            self.buckets.entry(key).or_insert(new)
        } else {
            &mut self.others
        };
        let burst = i128::from(self.rate.burst);
        let costs = per * i128::from(cost).min(burst) / burst;
        let full_at = bucket.full_at.max(now) + costs;
        let over = full_at - now - per;
        if over <= 0 {
            *bucket = Bucket { full_at, refused: false };
            return Asked::Go;
        }
        let first = !bucket.refused;
        bucket.refused = true;
        Asked::Wait { wait: Duration::from_micros(u64::try_from(over).unwrap_or(u64::MAX)), first }
    }

    /// Number of keys that are stored.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key is stored.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 4, per: Duration::from_secs(8) };

    fn go(pace: &mut Pace, key: i64, now: i64) -> bool {
        pace.ask(Key::Person(key), 1, now).allowed()
    }

    #[test]
    fn a_burst_is_allowed_and_then_one_at_a_time() {
        let mut pace = Pace::new(RATE, 10);
        assert!((0..4).all(|_| go(&mut pace, 1, 1000)));
        assert!(!go(&mut pace, 1, 1000));
        assert!(!go(&mut pace, 1, 2999), "2 s for each");
        assert!(go(&mut pace, 1, 3000));
        assert!(!go(&mut pace, 1, 3000));
        assert!(go(&mut pace, 2, 3000), "others are not held up");
        assert!((0..4).all(|_| go(&mut pace, 1, 100_000)), "after a while all of it is back");
    }

    #[test]
    fn refusals_cost_nothing_and_only_the_first_is_to_be_answered() {
        let mut pace = Pace::new(RATE, 10);
        assert!(pace.ask(Key::Person(1), 4, 0).allowed());
        for (index, now) in (0..1000).enumerate() {
            match pace.ask(Key::Person(1), 1, now) {
                Asked::Wait { first, wait } => {
                    assert_eq!(first, index == 0);
                    assert_eq!(wait, Duration::from_millis((2000 - now) as u64));
                }
                Asked::Go => panic!("allowed at {now}"),
            }
        }
        assert!(go(&mut pace, 1, 2000));
        assert!(matches!(pace.ask(Key::Person(1), 1, 2000), Asked::Wait { first: true, .. }));
    }

    #[test]
    fn what_costs_more_than_the_burst_waits_for_all_of_it() {
        let mut pace = Pace::new(RATE, 10);
        assert!(pace.ask(Key::Person(1), 1000, 0).allowed());
        assert!(!pace.ask(Key::Person(1), 1000, 7999).allowed());
        assert!(pace.ask(Key::Person(1), 1000, 8000).allowed());
    }

    #[test]
    fn many_keys_take_bounded_memory_and_do_not_free_anybody() {
        let mut pace = Pace::new(RATE, 100);
        assert!((0..4).all(|_| go(&mut pace, -1, 0)));
        let allowed = (0..100_000).filter(|key| go(&mut pace, *key, 0)).count();
        assert_eq!(pace.len(), 100);
        assert_eq!(allowed, 99 + 4, "those for whom there was no place share one bucket");
        assert!(!go(&mut pace, -1, 0), "who was slowed down stays so");
        assert!(go(&mut pace, 200_000, 10_000), "places are given up when their buckets are full again");
    }

    #[test]
    fn a_clock_that_steps_back_makes_nobody_wait_longer() {
        let mut pace = Pace::new(RATE, 10);
        assert!((0..4).all(|_| go(&mut pace, 1, 1_000_000)));
        match pace.ask(Key::Person(1), 1, 0) {
            Asked::Wait { wait, .. } => assert_eq!(wait, Duration::from_secs(2)),
            Asked::Go => panic!("stepping back frees nobody"),
        }
    }

    #[test]
    fn one_host_is_one_source_whatever_its_address_in_its_network() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_came_back(
            steps in proptest::collection::vec((0i64..3000, 1u32..4), 1..200)
        ) {
            let mut pace = Pace::new(RATE, 10);
            let (mut now, mut done) = (0i64, 0u64);
            for (step, cost) in steps {
                now += step;
                if pace.ask(Key::Person(1), cost, now).allowed() {
                    done += u64::from(cost);
                }
                proptest::prop_assert!(done <= 4 + (now as u64) / 2000, "{done} by {now} ms");
            }
        }
    }
}
