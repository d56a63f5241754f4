//! An installation before anything runs in it: `lazarus init` and `lazarus
//! doctor`, the configuration, and the profiles of agents.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod configuration;
mod init_and_doctor;
mod profiles;
