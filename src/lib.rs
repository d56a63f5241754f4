//! Lazarus turns issues on a Gitea or Forgejo server into *cells*: isolated
//! places in which agents work. `docs/` is for users, this page is the map.
//!
//! Data flows downwards through these rooms and comes back only as new input
//! at the top:
//!
//! | room | holds |
//! | --- | --- |
//! | [`server`] | the door for webhooks: verify, parse, store, answer; the control socket |
//! | [`cli`] | the operator's command line, `init`, `doctor` |
//! | [`operations`] | one typed request and one typed answer, for whoever asks; a cell as others see it |
//! | [`demo`] | the played main job, on a stand-in forge (`crates/standin`) |
//! | [`engine`] | the only writer: inbox → core → one transaction → effects; reconciler; timers; adoption |
//! | [`mission`] | pure: proposals, slash commands, authority, approval, council |
//! | [`cell`] | pure: the lifecycle of one cell, roles, policy, deadlines |
//! | [`store`] | SQLite: inbox, registry, effects, hash-chained ledger; one writer thread |
//! | [`publication`] | what may leave: kinds, the gate, the templates |
//! | [`gitea`] | the forge's API and webhooks: client, models, signatures |
//! | [`failure`] | what a failure outside means: passing, for people, doubtful, lasting; for API and git alike |
//! | [`backend`] | the seam: how a cell runs, by kind; today `process` alone |
//! | [`keeper`] | the small program that owns one cell's processes |
//! | [`egress`] | the one way out of a cell: a proxy to named hosts, in a process of its own |
//! | [`sandbox`] | one isolation step a function, and the probe of what this host can do |
//! | [`repository`] | the host's git: mirrors of projects, the work that came out of cells, the push |
//! | [`workspace`] | the files of cells: homes, graveyard, archive, scrub; what hands work out |
//! | [`host`] | what this host can give, asked once of a process of its own |
//! | [`agents`] | agent profiles as data, the built-in `scribe` |
//! | [`pace`] | how often somebody may cause work: people, issues, sources of connections |
//! | [`config`] | one TOML file, the environment, flags; every value knows where it came from |

#![forbid(unsafe_code)]

pub use lazarus_core::{cell, hosts, mission};
pub use lazarus_gitea as gitea;
pub use lazarus_gitea::failure;
pub use lazarus_sandbox::{egress, keeper, sandbox};

pub mod agents;
pub mod backend;
pub mod cli;
pub mod config;
pub mod demo;
pub mod engine;
pub mod host;
pub mod operations;
pub mod pace;
pub mod publication;
pub mod repository;
pub mod server;
pub mod store;
pub mod workspace;
