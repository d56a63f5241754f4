//! The pure core, driven through random histories: the lifecycle and roles of
//! one cell, approvals and councils, and that none of it can reach outside.
//!
//! `tests/core/history.rs` makes the histories; the other files say what must
//! hold in each of them. A history that once failed is kept in
//! `proptest-regressions/` and is tried first ever after.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod decisions;
mod documents;
mod history;
mod lifecycle;
mod publishing;
mod purity;
mod seam;
mod smallest;
