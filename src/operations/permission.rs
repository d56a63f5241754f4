//! Who may ask for what: the one place that says it.
//!
//! For commands it asks the table of commands, as the engine does for comments. The
//! other requests stand here, by contract §4.

use super::Request;
use crate::cell::Actor;
use crate::mission::{Level, Who};
use std::fmt;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever has the machine's command line. Acts as a director, and stands in the ledger
    /// by the name of the system's account.
    Operator {
        /// The account.
        account: String,
    },
    /// An account of the forge, with what it may do in the repository that the request
    /// is about.
    Person {
        /// The account's number.
        id: i64,
        /// Its name now.
        login: String,
        /// What it may do, looked up for this request.
        level: Level,
    },
}

impl Caller {
    /// How the ledger names them.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Operator { account } => Actor::Operator { name: account.clone() },
            Self::Person { id, login, .. } => Actor::Person { id: *id, login: login.clone() },
        }
    }

    /// What they may do.
    pub const fn level(&self) -> Level {
        match self {
            Self::Operator { .. } => Level::Director,
            Self::Person { level, .. } => *level,
        }
    }

    /// Whether they may ask for this.
    ///
    /// # Errors
    /// What it takes.
    pub fn may(&self, request: &Request) -> Result<(), NotPermitted> {
        let needs = needed(request);
        if self.level() >= needs { Ok(()) } else { Err(NotPermitted { needs }) }
    }
}

/// Somebody asks for what they may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPermitted {
    /// What it takes.
    pub needs: Level,
}

impl std::error::Error for NotPermitted {}
impl fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.needs {
            Level::Director => "this is for directors of the repository",
            Level::Write => "this is for people with write access to the repository",
            Level::Read | Level::None => "this is for people who may read the repository",
        })
    }
}

/// What it takes to ask for something.
fn needed(request: &Request) -> Level {
    match request {
        Request::Give { command, .. } => match command.spec().who {
            // Even what everyone may do tells something of the repository.
            Who::Everyone => Level::Read,
            who => who.level(),
        },
        Request::ListCells { .. } | Request::ShowCell { .. } => Level::Read,
        Request::ReadLogs { .. } | Request::ReadLedger { .. } | Request::VerifyLedger { .. } | Request::ListPins => {
            Level::Director
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellId;
    use crate::mission::{Line, parse_comment};
    use crate::operations::{Target, Which};

    fn person(level: Level) -> Caller {
        Caller::Person { id: 7, login: "ada".to_owned(), level }
    }

    fn give(line: &str) -> Request {
        let Some(Line::Command { command, .. }) = parse_comment(line).lines.into_iter().next() else {
            panic!("{line}")
        };
        Request::Give { on: Target::Mission("acme/widget#7".parse().unwrap()), command }
    }

    #[test]
    fn each_may_ask_for_what_their_level_allows_and_for_nothing_more() {
        let logs = Request::ReadLogs { cell: CellId::parse("laz-aaaaaaaaaaaaaaaa").unwrap(), agent: None, tail: 1 };
        for (request, needs) in [
            (give("/status"), Level::Read),
            (give("/summon scribe"), Level::Write),
            (give("/tell scribe x"), Level::Write),
            (give("/approve"), Level::Director),
            (give("/destroy laz-aaaaaaaaaaaaaaaa"), Level::Director),
            (Request::ListCells { which: Which::All }, Level::Read),
            (logs, Level::Director),
            (Request::ListPins, Level::Director),
        ] {
            for level in [Level::None, Level::Read, Level::Write, Level::Director] {
                assert_eq!(person(level).may(&request).is_ok(), level >= needs, "{request:?} by {level:?}");
            }
            let operator = Caller::Operator { account: "root".to_owned() };
            assert_eq!(operator.may(&request), Ok(()), "{request:?}");
        }
    }
}
