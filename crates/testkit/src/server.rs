//! Which forge a conversation is held on: the stand-in, one for each world, or
//! a real server named by `FORGE_URL` and `FORGE_ADMIN_TOKEN` (`make live`).

use std::path::Path;

use lazarus_standin::{Faults, Flavour, StandIn, StandInOptions};

/// A forge and its administrator's token.
pub enum Server {
    /// A real Gitea or Forgejo.
    Live {
        /// Its address.
        url: String,
        /// The administrator's token.
        admin_token: String,
    },
    /// Our own, on loopback, stateful.
    StandIn(StandIn),
}

impl Server {
    /// The server that the environment names, else a fresh stand-in whose
    /// repositories lie below `root`.
    pub async fn from_environment(root: &Path) -> Self {
        match (std::env::var("FORGE_URL"), std::env::var("FORGE_ADMIN_TOKEN")) {
            (Ok(url), Ok(admin_token)) if !url.is_empty() => {
                Self::Live { url: url.trim_end_matches('/').to_owned(), admin_token }
            }
            (Ok(url), Err(_)) if !url.is_empty() => {
                panic!("FORGE_URL is {url} but FORGE_ADMIN_TOKEN is not set: give both, or neither for the stand-in")
            }
            _ => {
                let options = StandInOptions {
                    flavour: flavour(),
                    listen: "127.0.0.1:0".parse().expect("an address"),
                    root: root.to_owned(),
                };
                Self::StandIn(StandIn::start(options).await.expect("the stand-in starts"))
            }
        }
    }

    /// The address.
    pub fn url(&self) -> String {
        match self {
            Self::Live { url, .. } => url.clone(),
            Self::StandIn(forge) => forge.url(),
        }
    }

    /// The administrator's token.
    pub fn admin_token(&self) -> String {
        match self {
            Self::Live { admin_token, .. } => admin_token.clone(),
            Self::StandIn(forge) => forge.admin_token().to_owned(),
        }
    }

    /// Whether it is a real one.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// The stand-in's faults; `None` on a real server, which has its own.
    pub fn faults(&self) -> Option<&Faults> {
        match self {
            Self::Live { .. } => None,
            Self::StandIn(forge) => Some(forge.faults()),
        }
    }

    /// The stand-in itself.
    pub fn stand_in(&self) -> Option<&StandIn> {
        match self {
            Self::Live { .. } => None,
            Self::StandIn(forge) => Some(forge),
        }
    }
}

/// `FORGE_FLAVOUR=forgejo` makes the stand-in behave as Forgejo does.
fn flavour() -> Flavour {
    match std::env::var("FORGE_FLAVOUR").as_deref() {
        Ok("forgejo") => Flavour::Forgejo,
        _ => Flavour::Gitea,
    }
}
