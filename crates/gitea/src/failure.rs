//! What an outside failure means for the caller. This is decided once for the forge's API and for git: both give
//! the same statuses, and a command must not depend on which of the two got one.

use std::time::Duration;

/// Longest wait that an answer may ask for (`Retry-After`). A larger number is a mistake of the sender, or
/// malicious.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

/// How a failure may be overcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It passes by itself: the forge is down, too busy, or gives unusable answers.
    Passing {
        /// How long the answer asked us to wait, at most [`RETRY_AFTER_MAX`].
        after: Option<Duration>,
    },
    /// People must fix it: a revoked token, a missing right, an archived repository. It is retried for a long time,
    /// and `doctor` and `status` show it meanwhile.
    ForPeople,
    /// A single such answer proves nothing: "does not exist", or "moved". A proxy also says so for a moment while
    /// its forge restarts. It counts once the forge has said it several times over some minutes.
    Doubtful,
    /// Trying again does not help.
    Lasting,
}

impl Failure {
    /// A failure that passes by itself at an unknown time.
    pub const PASSING: Self = Self::Passing { after: None };

    /// What an HTTP status means that is not a success.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            // 407 and 511 come from a proxy on the way, and people must fix those too.
            401 | 403 | 407 | 423 | 511 => Self::ForPeople,
            408 | 425 | 429 | 500..=599 => Self::Passing { after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)) },
            400 | 402 | 406 | 409..=417 | 422 => Self::Lasting,
            // 404 and redirects; and every status that no call of ours should get, which usually comes from
            // something between the forge and us.
            _ => Self::Doubtful,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
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
