//! Threat lines 17, 18, 21 and 34: programs that try to get out of a cell.
//!
//! Each attempt (`escape/*.rs`, one file a class; the programs are
//! `escape/attempts.c`) is made by an agent in a real cell, and beside it in
//! `bwrap` and in a container, and is checked from outside wherever it leaves a
//! trace. Before that it is made on the host with nothing around it, where it
//! has to succeed: none passes because it is broken. What cannot be shown so on
//! this host is `not run`, with the reason.
//!
//! Every test here starts itself again in a stage of its own (a network with
//! addresses of a LAN in it, a key in the session's keyring, a descriptor of `/`
//! left open), as root and as an ordinary user; started by an ordinary user, as
//! that one alone. The tables: `target/escape/table.json` (of the most powerful
//! user that it ran as) and `table-user.json`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod world;

#[path = "escape/attempt.rs"]
mod attempt;
#[path = "escape/capabilities.rs"]
mod capabilities;
#[path = "escape/column.rs"]
mod column;
#[path = "escape/container.rs"]
mod container;
#[path = "escape/descriptors.rs"]
mod descriptors;
#[path = "escape/devices.rs"]
mod devices;
#[path = "escape/files.rs"]
mod files;
#[path = "escape/ground.rs"]
mod ground;
#[path = "escape/ipc.rs"]
mod ipc;
#[path = "escape/kernel.rs"]
mod kernel;
#[path = "escape/mounts.rs"]
mod mounts;
#[path = "escape/namespaces.rs"]
mod namespaces;
#[path = "escape/network.rs"]
mod network;
#[path = "escape/processes.rs"]
mod processes;
#[path = "escape/stage.rs"]
mod stage;
#[path = "escape/table.rs"]
mod table;

#[test]
fn threat_18_nothing_gets_out_of_a_cell() {
    let tables = stage::perform("table::every_attempt_in_every_column", &[]);
    table::keep(&tables);
}
