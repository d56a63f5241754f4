//! The forge: an octocrab-like client for Gitea and Forgejo, its models, and
//! the webhook types. See `docs/` and the facts recorded in
//! `wiremock-fixtures/`.

pub mod event;
