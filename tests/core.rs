//! The pure core, driven through random histories: the lifecycle and roles of
//! one cell, approvals and councils, and that none of it can reach outside.
//!
//! `tests/core/history.rs` makes the histories; the other files say what must
//! hold in each of them. A history that once failed is kept in
//! `proptest-regressions/` and is tried first ever after.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[path = "core/decisions.rs"]
mod decisions;
#[path = "core/documents.rs"]
mod documents;
#[path = "core/history.rs"]
mod history;
#[path = "core/lifecycle.rs"]
mod lifecycle;
#[path = "core/publishing.rs"]
mod publishing;
#[path = "core/purity.rs"]
mod purity;
#[path = "core/seam.rs"]
mod seam;
#[path = "core/smallest.rs"]
mod smallest;
