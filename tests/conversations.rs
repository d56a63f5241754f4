//! Conversations on a forge: written once, held on the stand-in (`make test`)
//! or on a real server (`make live`). See `world` for what is asserted after
//! each of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod world;

#[path = "conversations/people_and_forge.rs"]
mod people_and_forge;
