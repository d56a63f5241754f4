//! Webhooks: the secret that each one signs with, and the calls that create them.
//!
//! A forge shows a hook's secret to everybody who administers the repository (or owns the organisation) that the
//! hook belongs to. So no two hooks share a secret, and none holds the installation's own one. Each hook's secret
//! is derived from the installation's secret and from the number of the hook's owner:
//!
//! ```text
//! secret = hex(HMAC-SHA256(key = installation's secret,
//!                          "lazarus webhook secret v1\n" + KIND + "\n" + NUMBER))
//! KIND   = "repository" or "organisation"; NUMBER is the forge's, in decimal
//! mark   = first 16 hex digits of HMAC-SHA256(key = secret, "lazarus webhook mark v1")
//! ```
//!
//! The *mark* says which secret a hook holds, because the forge never reveals the secret itself. It is part of the
//! hook's branch filter, which does not apply to our events. It proves nothing (whoever administers the repository
//! can write it), and it reveals nothing about the secret.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;

use super::error::ForgeError;
use super::forge::Forge;
use super::model::{Hook, NewHook};
use super::paging::{Sender, Total, pages};
use super::repository::RepoApi;
use super::transport::{Answer, Ask, Repeat, optional, segment};
use futures::TryStreamExt as _;
use std::fmt;
use std::sync::Arc;

/// The owner of a hook, for which the hook's secret can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookOwner {
    /// The repository with this number, whatever its name.
    Repository(i64),
    /// Every repository that the organisation with this number owns.
    Organisation(i64),
}

impl fmt::Display for HookOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(id) => write!(f, "the repository with the number {id}"),
            Self::Organisation(id) => write!(f, "the organisation with the number {id}"),
        }
    }
}

/// Prefix of secrets that were generated as master secrets. Versions that gave every hook the installation's own
/// secret generated none with this prefix.
const NEVER_SHOWN: &str = "lazarus-webhook-1-";

/// Random bytes of a generated secret.
const RANDOM_BYTES: usize = 32;

/// The installation's secret (`webhook.secret_file`), from which each hook's secret is derived. It never signs
/// anything itself.
#[derive(Debug, Clone)]
pub struct MasterSecret(SecretString);

impl MasterSecret {
    /// `None` if the secret is empty, because everybody could derive from that.
    pub fn new(secret: SecretString) -> Option<Self> {
        (!secret.expose_secret().is_empty()).then_some(Self(secret))
    }

    /// Generates a random secret, as text for its file.
    ///
    /// # Errors
    /// If the system cannot provide random bytes.
    pub fn generate() -> Result<SecretString, getrandom::Error> {
        let mut random = zeroize::Zeroizing::new([0_u8; RANDOM_BYTES]);
        getrandom::fill(random.as_mut())?;
        Ok(SecretString::from(format!("{NEVER_SHOWN}{}", hex::encode(*random))))
    }

    /// Whether [`generate`](Self::generate) made it, so that it was never stored in a hook. For other secrets we
    /// cannot know.
    pub fn was_generated(&self) -> bool {
        self.0.expose_secret().starts_with(NEVER_SHOWN)
    }

    /// The secret that the hook of this repository or organisation signs with.
    pub fn hook_secret(&self, of: HookOwner) -> SecretString {
        let (kind, number) = match of {
            HookOwner::Repository(id) => ("repository", id),
            HookOwner::Organisation(id) => ("organisation", id),
        };
        let label = format!("lazarus webhook secret v1\n{kind}\n{number}");
        SecretString::from(hex::encode(mac(&self.0, label.as_bytes())))
    }

    /// The branch filter of a hook that signs with [`hook_secret`](Self::hook_secret): all branches, and the mark.
    pub fn branch_filter(&self, of: HookOwner) -> String {
        let mark = mac(&self.hook_secret(of), b"lazarus webhook mark v1");
        format!("{{*,{MARK}{}}}", hex::encode(&mark[..8]))
    }

    pub(super) fn expose(&self) -> &SecretString {
        &self.0
    }
}

const MARK: &str = "lazarus-secret-";

/// Whether a hook's branch filter contains a mark, of any secret.
pub fn is_marked(hook: &Hook) -> bool {
    hook.branch_filter.strip_prefix("{*,").is_some_and(|rest| rest.starts_with(MARK))
}

fn mac(key: &SecretString, text: &[u8]) -> [u8; 32] {
    // HMAC accepts keys of any length, so this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The hooks of one repository or organisation. Cheap to clone.
#[derive(Debug, Clone)]
pub enum HooksApi {
    /// Hooks of a repository. Its administrators may create them.
    Repository(RepoApi),
    /// Hooks of the organisation with this name. Its owners may create them.
    Organisation(Forge, Arc<str>),
}

impl HooksApi {
    async fn send(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        match self {
            Self::Repository(repository) => repository.send(ask).await,
            Self::Organisation(forge, name) => {
                let prefix = format!("/orgs/{}", segment("an organisation", name)?);
                forge.send(&ask.below(&prefix)).await
            }
        }
    }

    fn sender(&self) -> Sender {
        let hooks = self.clone();
        Arc::new(move |ask| {
            let hooks = hooks.clone();
            Box::pin(async move { hooks.send(&ask).await })
        })
    }

    /// Lists all of them.
    pub async fn list(&self) -> Result<Vec<Hook>, ForgeError> {
        pages(self.sender(), "/hooks".to_owned(), Total::OfTheList).try_collect().await
    }

    /// Creates one. Never retried automatically.
    pub async fn create(&self, hook: NewHook, branch_filter: &str) -> Result<Hook, ForgeError> {
        let body = json!({
            "type": "gitea", "active": true, "branch_filter": branch_filter, "events": hook.events,
            "config": {
                "url": hook.url, "content_type": hook.content_type.word(), "secret": hook.secret.expose_secret(),
            },
        });
        self.send(&Ask::json(Method::POST, "/hooks", &body, Repeat::Never)).await?.parse()
    }

    /// Deletes one. Returns false if it did not exist.
    pub async fn delete(&self, id: i64) -> Result<bool, ForgeError> {
        Ok(optional(self.send(&Ask::delete(format!("/hooks/{id}"))).await)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(text: &str) -> MasterSecret {
        MasterSecret::new(SecretString::from(text)).unwrap()
    }

    /// Other tools use this derivation, which is documented, so it must not change.
    #[test]
    fn the_derivation_gives_what_is_documented() {
        let derived = master("an example").hook_secret(HookOwner::Repository(7));
        // printf 'lazarus webhook secret v1\nrepository\n7' | openssl dgst -sha256 -hmac 'an example'
        assert_eq!(derived.expose_secret(), "61559e9b11e4cd4e32b10ac317501cbc6ee580ebcc27c2ad5c99aa07c198daf5");
        let filter = master("an example").branch_filter(HookOwner::Repository(7));
        assert_eq!(filter, "{*,lazarus-secret-1eb005a068280152}");
    }

    #[test]
    fn each_repository_and_each_organisation_has_a_secret_of_its_own() {
        let one = master("an example");
        let all = [
            one.hook_secret(HookOwner::Repository(1)),
            one.hook_secret(HookOwner::Repository(11)),
            one.hook_secret(HookOwner::Organisation(1)),
            master("another").hook_secret(HookOwner::Repository(1)),
            one.expose().clone(),
        ];
        for (index, a) in all.iter().enumerate() {
            for b in &all[..index] {
                assert_ne!(a.expose_secret(), b.expose_secret());
            }
        }
        assert!(MasterSecret::new(SecretString::from("")).is_none());
    }

    #[test]
    fn what_was_generated_is_told_from_what_may_have_been_on_a_hook() {
        let (a, b) = (MasterSecret::generate().unwrap(), MasterSecret::generate().unwrap());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert!(MasterSecret::new(a).unwrap().was_generated());
        assert!(!master(&"0a".repeat(32)).was_generated());
    }
}
