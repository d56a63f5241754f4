//! What a failure outside means for whoever waits for the outcome. Decided
//! here, once, for the forge's API and for git alike: both lead to the same
//! statuses, and a command must not depend on which of the two met one.

use std::time::Duration;

/// Longest wait that an answer may ask for (`Retry-After`). A larger number is
/// a mistake, or malice, of whatever sent it.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

/// How a failure may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It passes by itself: the forge is away, too busy, or answers rubbish.
    Passing {
        /// How long the answer asked to wait, at most [`RETRY_AFTER_MAX`].
        after: Option<Duration>,
    },
    /// People have to mend it: a token that was revoked, a right that is
    /// missing, an archived repository. It is tried again for long, and doctor
    /// and status show it meanwhile.
    ForPeople,
    /// One such answer proves nothing: "not there", or "elsewhere". A proxy
    /// whose forge restarts says so too, for a moment. It counts when the forge
    /// has said it several times, over some minutes.
    Doubtful,
    /// Trying again changes nothing.
    Lasting,
}

impl Failure {
    /// A failure that passes by itself, with no time given.
    pub const PASSING: Self = Self::Passing { after: None };

    /// What an HTTP status means that is no success.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            // What a proxy of another network asks for (407, 511) is as much
            // for people as what the forge asks for.
            401 | 403 | 407 | 423 | 511 => Self::ForPeople,
            408 | 425 | 429 | 500..=599 => Self::Passing { after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)) },
            400 | 402 | 406 | 409..=417 | 422 => Self::Lasting,
            // 404 and redirects; and whatever no call of ours should meet, which
            // mostly comes from something between the forge and us.
            _ => Self::Doubtful,
        }
    }

    /// Whether the same call may well succeed later, with nobody changing
    /// anything on either side but the time.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Passing { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_forge_passes_and_rights_are_for_people() {
        for status in [408, 425, 429, 500, 502, 503, 504, 507, 599] {
            assert!(Failure::of_status(status, None).is_passing(), "{status}");
        }
        for status in [401, 403, 407, 423] {
            assert_eq!(Failure::of_status(status, None), Failure::ForPeople, "{status}");
        }
        for status in [301, 302, 303, 307, 308, 404, 405, 418] {
            assert_eq!(Failure::of_status(status, None), Failure::Doubtful, "{status}");
        }
        for status in [400, 409, 410, 413, 422] {
            assert_eq!(Failure::of_status(status, None), Failure::Lasting, "{status}");
        }
    }

    #[test]
    fn nobody_can_make_us_wait_for_years() {
        let asked = Failure::of_status(429, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(asked, Failure::Passing { after: Some(RETRY_AFTER_MAX) });
    }
}
