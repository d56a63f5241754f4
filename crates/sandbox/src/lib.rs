//! Isolation on Linux, by processes: the only crate of Lazarus with `unsafe`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`sandbox`] | one isolation step a function, and the probe of what this host can do |
//! | [`keeper`] | the small program that owns one cell's processes |
//! | [`egress`] | the one way out of a cell: a proxy to named hosts, in a process of its own |
//!
//! It knows nothing of missions, projects or the forge: whoever starts a cell
//! says what is in it.

pub mod egress;
pub mod keeper;
pub mod sandbox;
