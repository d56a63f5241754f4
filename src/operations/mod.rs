//! What others ask of Lazarus and what it answers: one typed [`Request`] and one typed
//! [`Answer`], whoever asks and however it comes in.
//!
//! The command line and the control socket only read and write these two; whatever comes
//! later (HTTP, MCP, pages) does the same. What a [`Caller`] may ask for is decided in one
//! place, `permission.rs`.
//!
//! - [`give`] has an engine carry a command out, and waits for what comes of it.
//! - [`Reader`] answers everything that only reads, with the daemon running or not.
//!
//! The words are those of `docs/specification.md` §7. A cell as others see it
//! is one type, [`CellView`], whoever asks for it.

mod answer;
mod cell_view;
mod give;
mod listing;
mod mission_name;
mod permission;
mod read;
mod request;
mod waiting;

pub use answer::{Answer, CellsAnswer, CommandAnswer, EntryView, Form, HeadsSeen};
pub use cell_view::{CellView, MemberView, RunView, Time, UsageView};
pub use give::{give, perform};
pub use listing::{DamagedView, Listing, Missions, Which, mission_of, one};
pub use mission_name::{InvalidMission, MissionName};
pub use permission::{Caller, NotPermitted};
pub use read::{ReadError, Reader, printable};
pub use request::{Request, Target};
pub use waiting::{Waiting, waiting};
