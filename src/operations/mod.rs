//! What others ask of Lazarus and what it answers: one typed request and one
//! typed answer, behind the command line and the control socket alike.
//!
//! The words are those of `docs/specification.md` §7. A cell as others see it
//! is one type, [`CellView`], whoever asks for it.

mod answer;
mod cell_view;
mod listing;
mod mission_name;
mod request;

pub use answer::{Answer, Form};
pub use cell_view::{CellView, MemberView, RunView, Time, UsageView};
pub use listing::{DamagedView, Listing, Missions, Which, mission_of, one};
pub use mission_name::{InvalidMission, MissionName};
pub use request::Request;
