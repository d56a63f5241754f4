//! The decisions of Lazarus, as plain functions from state and input to state
//! and output.
//!
//! | module | holds |
//! | --- | --- |
//! | [`mission`] | what people write and what it means: proposals, slash commands, authority, approval, council |
//! | [`cell`] | the lifecycle of one cell: model, roles, policy, deadlines, `decide` and `evolve` |
//! | [`hosts`] | names of hosts and rules about them, as people write them |
//!
//! Nothing here can ask a clock, a file, a socket, a database, the environment,
//! chance or a runtime. The manifest of this crate names nothing that could, and
//! `tests/core/purity.rs` reads the code for the rest.

#![forbid(unsafe_code)]

pub mod cell;
pub mod hosts;
pub mod mission;
