//! Webhooks: what each one signs with, and the calls that make them.
//!
//! A forge shows a hook's secret to everybody who administers the repository
//! (or owns the organisation) that the hook belongs to. So no two hooks share
//! one, and none holds the installation's own secret. Each hook's secret is
//! derived from that one and from the number of what the hook belongs to:
//!
//! ```text
//! secret = hex(HMAC-SHA256(key = installation's secret,
//!                          "lazarus webhook secret v1\n" + KIND + "\n" + NUMBER))
//! KIND   = "repository" or "organisation"; NUMBER is the forge's, in decimal
//! mark   = first 16 hex digits of HMAC-SHA256(key = secret, "lazarus webhook mark v1")
//! ```
//!
//! The *mark* says which secret a hook holds, since the forge never tells the
//! secret itself: it stands in the hook's branch filter, which our events are
//! not subject to. It proves nothing (whoever administers the repository can
//! write it), and it tells nothing about the secret.

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

/// What a hook belongs to, and so what its secret speaks for.
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

/// What a secret begins with that was made to derive others from. Versions
/// that gave every hook the installation's own secret made none like it.
const NEVER_SHOWN: &str = "lazarus-webhook-1-";

/// Random bytes of a secret that we make.
const RANDOM_BYTES: usize = 32;

/// The installation's secret (`webhook.secret_file`), from which each hook's
/// is derived. It signs nothing itself.
#[derive(Debug, Clone)]
pub struct MasterSecret(SecretString);

impl MasterSecret {
    /// `None` for an empty one: everybody could derive from that.
    pub fn new(secret: SecretString) -> Option<Self> {
        (!secret.expose_secret().is_empty()).then_some(Self(secret))
    }

    /// A new random one, as text for its file.
    ///
    /// # Errors
    /// Where the system has no random bytes.
    pub fn generate() -> Result<SecretString, getrandom::Error> {
        let mut random = zeroize::Zeroizing::new([0_u8; RANDOM_BYTES]);
        getrandom::fill(random.as_mut())?;
        Ok(SecretString::from(format!("{NEVER_SHOWN}{}", hex::encode(*random))))
    }

    /// Whether [`generate`](Self::generate) made it: then it was never on a
    /// hook. Of another one this cannot be told.
    pub fn was_generated(&self) -> bool {
        self.0.expose_secret().starts_with(NEVER_SHOWN)
    }

    /// What the hook of this repository or organisation signs with.
    pub fn hook_secret(&self, of: HookOwner) -> SecretString {
        let (kind, number) = match of {
            HookOwner::Repository(id) => ("repository", id),
            HookOwner::Organisation(id) => ("organisation", id),
        };
        let label = format!("lazarus webhook secret v1\n{kind}\n{number}");
        SecretString::from(hex::encode(mac(&self.0, label.as_bytes())))
    }

    /// The branch filter of a hook that signs with
    /// [`hook_secret`](Self::hook_secret): all branches, and the mark.
    pub fn branch_filter(&self, of: HookOwner) -> String {
        let mark = mac(&self.hook_secret(of), b"lazarus webhook mark v1");
        format!("{{*,{MARK}{}}}", hex::encode(&mark[..8]))
    }

    pub(super) fn expose(&self) -> &SecretString {
        &self.0
    }
}

const MARK: &str = "lazarus-secret-";

/// Whether a hook's branch filter bears a mark, of whichever secret.
pub fn is_marked(hook: &Hook) -> bool {
    hook.branch_filter.strip_prefix("{*,").is_some_and(|rest| rest.starts_with(MARK))
}

fn mac(key: &SecretString, text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The hooks of one repository or organisation. Cheap to clone.
#[derive(Debug, Clone)]
pub enum HooksApi {
    /// Of a repository: its administrators may make them.
    Repository(RepoApi),
    /// Of the organisation of this name: its owners may.
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

    /// All of them.
    pub async fn list(&self) -> Result<Vec<Hook>, ForgeError> {
        pages(self.sender(), "/hooks".to_owned(), Total::OfTheList).try_collect().await
    }

    /// Makes one. Not repeated by itself.
    pub async fn create(&self, hook: NewHook, branch_filter: &str) -> Result<Hook, ForgeError> {
        let body = json!({
            "type": "gitea", "active": true, "branch_filter": branch_filter, "events": hook.events,
            "config": {
                "url": hook.url, "content_type": hook.content_type.word(), "secret": hook.secret.expose_secret(),
            },
        });
        self.send(&Ask::json(Method::POST, "/hooks", &body, Repeat::Never)).await?.parse()
    }

    /// Deletes one. `false`: it was not there.
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

    /// The derivation is public and other tools use it: it stays as it is.
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
