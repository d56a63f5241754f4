//! Process isolation on Linux. This is the only crate of Lazarus with `unsafe` code.
//!
//! | module | holds |
//! | --- | --- |
//! | [`sandbox`] | one isolation step a function, and the probe of what this host can do |
//! | [`keeper`] | the small program that owns one cell's processes |
//! | [`egress`] | the one way out of a cell: a proxy to named hosts, in a process of its own |
//!
//! It knows nothing of missions, projects or the forge: its caller says what a cell contains.

pub mod egress;
pub mod keeper;
pub mod sandbox;
