//! The stand-in forge against real servers: held to what was recorded of them
//! (`recordings`), and playing the same scenes beside one (`twins`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod recordings;
mod scenes;
mod twin;
mod twins;
