//! Conversations on a forge: written once, held on the stand-in (`make test`)
//! or on a real server (`make live`). See `world` for what is asserted after
//! each of them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod ahead;
mod approval;
mod authority;
mod client;
mod command_line;
mod crash;
mod damage;
mod decisions;
mod demo;
mod door;
mod egress;
mod forge_failures;
mod forge_outages;
mod held_work;
mod hostile_work;
mod isolation;
mod lifecycle;
mod limits;
mod loose_ends;
mod lossy;
mod main_job;
mod memory_backend;
mod names;
mod people_and_forge;
mod publication;
mod seen;
mod typed;
mod vocabulary;
mod ways;
mod work;

use lazarus_testkit as world;
