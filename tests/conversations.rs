//! Conversations on a forge: written once, held on the stand-in (`make test`)
//! or on a real server (`make live`). See `world` for what is asserted after
//! each of them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod world;

#[path = "conversations/ahead.rs"]
mod ahead;
#[path = "conversations/approval.rs"]
mod approval;
#[path = "conversations/authority.rs"]
mod authority;
#[path = "conversations/client.rs"]
mod client;
#[path = "conversations/command_line.rs"]
mod command_line;
#[path = "conversations/crash.rs"]
mod crash;
#[path = "conversations/damage.rs"]
mod damage;
#[path = "conversations/decisions.rs"]
mod decisions;
#[path = "conversations/door.rs"]
mod door;
#[path = "conversations/egress.rs"]
mod egress;
#[path = "conversations/forge_failures.rs"]
mod forge_failures;
#[path = "conversations/held_work.rs"]
mod held_work;
#[path = "conversations/hostile_work.rs"]
mod hostile_work;
#[path = "conversations/isolation.rs"]
mod isolation;
#[path = "conversations/lifecycle.rs"]
mod lifecycle;
#[path = "conversations/limits.rs"]
mod limits;
#[path = "conversations/loose_ends.rs"]
mod loose_ends;
#[path = "conversations/lossy.rs"]
mod lossy;
#[path = "conversations/main_job.rs"]
mod main_job;
#[path = "conversations/memory_backend.rs"]
mod memory_backend;
#[path = "conversations/moods.rs"]
mod moods;
#[path = "conversations/names.rs"]
mod names;
#[path = "conversations/people_and_forge.rs"]
mod people_and_forge;
#[path = "conversations/publication.rs"]
mod publication;
#[path = "conversations/seen.rs"]
mod seen;
#[path = "conversations/typed.rs"]
mod typed;
#[path = "conversations/vocabulary.rs"]
mod vocabulary;
#[path = "conversations/ways.rs"]
mod ways;
#[path = "conversations/work.rs"]
mod work;
