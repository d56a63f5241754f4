//! The client against what servers say: what was recorded of real ones
//! (`recordings`), and what they may say in bad hours (`bad_hours`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod bad_hours;
mod recordings;
