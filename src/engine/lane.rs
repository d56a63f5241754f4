//! Lanes: what keeps its order.

use crate::cell::CellId;
use crate::mission::MissionId;
use std::fmt;

/// The lane of an effect. Effects of one lane are run one after the other, in their
/// order; lanes side by side.
#[derive(Debug, Clone, Copy)]
pub enum Lane<'a> {
    /// A mission's visible comments.
    Comments(&'a MissionId),
    /// The labels of a mission's issue.
    Label(&'a MissionId),
    /// Who may do what on a mission, and how its issue looks.
    Authority(&'a MissionId),
    /// A look at what a mission's project has.
    Project(&'a MissionId),
    /// Everything on one cell.
    Cell(&'a CellId),
    /// Reactions to a comment, by its number.
    Reactions(i64),
    /// Waiting for somebody to confirm a comment, by its number.
    Confirmation(i64),
    /// The word that an effect takes long, by the effect's name. What still waits there is
    /// taken back when the effect ends.
    Waits(&'a str),
    /// The look for a comment that an effect may have posted twice, by the effect's name.
    Twice(&'a str),
}

impl fmt::Display for Lane<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Comments(mission) => write!(f, "comments:{mission}"),
            Self::Label(mission) => write!(f, "label:{mission}"),
            Self::Authority(mission) => write!(f, "authority:{mission}"),
            Self::Project(mission) => write!(f, "look:{mission}"),
            Self::Cell(cell) => write!(f, "cell:{cell}"),
            Self::Reactions(comment) => write!(f, "react:{comment}"),
            Self::Confirmation(comment) => write!(f, "confirm:{comment}"),
            Self::Waits(effect) => write!(f, "waits:{effect}"),
            Self::Twice(effect) => write!(f, "twice:{effect}"),
        }
    }
}
