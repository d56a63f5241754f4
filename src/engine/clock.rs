//! The engine's clock: wall time that does not jump.
//!
//! Deadlines are points in wall time, and a machine's wall clock is set back
//! and forth by people and by NTP. So the time that decisions see is taken
//! from the wall once and then follows the monotonic clock, corrected a little
//! at a time. After a restart within one boot, the monotonic clock says how
//! long we were away, whatever the wall says; and never is it earlier than the
//! last ledger entry.

use crate::cell::At;
use crate::host::since_boot;
use std::sync::Mutex;
use std::time::Duration;

/// Where the clock stood, kept in the registry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Which boot of the machine.
    pub boot: String,
    /// Milliseconds since that boot.
    pub since_boot: i64,
    /// Our time then.
    pub at: i64,
}

/// Largest difference between the wall and us that is believed at once, in
/// milliseconds.
const STEP_MAX: i64 = 60_000;

/// A length of time as the core and the registry have it.
pub fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The clock.
#[derive(Debug)]
pub struct Clock {
    boot: String,
    /// Our time minus the time since boot.
    offset: Mutex<i64>,
}

fn wall() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Clock {
    /// Starts the clock from where it stood, and from the newest ledger entry.
    pub fn start(mark: Option<&Mark>, newest: i64) -> Self {
        let boot = crate::host::boot_id();
        Self { offset: Mutex::new(first_offset(mark, newest, &boot, since_boot(), wall())), boot }
    }

    /// Now.
    pub fn now(&self) -> At {
        let offset = *self.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        At(since_boot() + offset)
    }

    /// Follows the wall where it is near; a step is ignored. Returns where the
    /// clock stands, to be kept.
    pub fn follow(&self) -> Mark {
        let mut offset = self.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since_boot = since_boot();
        let ahead = wall() - (since_boot + *offset);
        if ahead.abs() <= STEP_MAX {
            // Forward at once, backward by waiting: time does not go back.
            *offset += ahead.max(0);
        }
        Mark { boot: self.boot.clone(), since_boot, at: since_boot + *offset }
    }
}

fn first_offset(mark: Option<&Mark>, newest: i64, boot: &str, since_boot: i64, wall: i64) -> i64 {
    let by_mark =
        mark.filter(|m| m.boot == boot && !boot.is_empty() && m.since_boot <= since_boot).map(|m| m.at - m.since_boot);
    let offset = match by_mark {
        // The same boot: the wall may have been set, the time we were away is known.
        Some(offset) if (wall - (since_boot + offset)).abs() > STEP_MAX => offset,
        _ => wall - since_boot,
    };
    offset.max(newest - since_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { boot: "b".into(), since_boot: 1_000, at: 10_000_000 }
    }

    #[test]
    fn threat_31_a_wall_that_was_set_while_we_were_away_does_not_move_deadlines() {
        let at = |wall| 5_000 + first_offset(Some(&mark()), 0, "b", 5_000, wall);
        assert_eq!(at(10_004_000), 10_004_000, "it agrees");
        assert_eq!(at(99_000_000), 10_004_000, "set forward");
        assert_eq!(at(1_000), 10_004_000, "set back");
    }

    #[test]
    fn threat_31_after_a_reboot_the_wall_counts_but_never_goes_behind_the_ledger() {
        assert_eq!(5_000 + first_offset(Some(&mark()), 0, "other", 5_000, 20_000_000), 20_000_000);
        assert_eq!(5_000 + first_offset(Some(&mark()), 30_000_000, "other", 5_000, 20_000_000), 30_000_000);
    }
}
