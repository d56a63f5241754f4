//! The installation's webhook secret while the daemon runs. It is read again when its file changes, so that a new
//! secret needs no restart.

use crate::config::{SecretError, SecretSource};
use crate::gitea::MasterSecret;
use crate::gitea::webhook::{Rejection, VerifiedDelivery};
use axum::http::HeaderMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{PoisonError, RwLock};

/// Distinguishes versions of a file.
type Stamp = (u64, i64, i64, u64);

/// The secret, and its location.
#[derive(Debug)]
pub struct Keys {
    source: SecretSource,
    current: RwLock<(MasterSecret, Option<Stamp>)>,
}

impl Keys {
    /// Reads the secret.
    ///
    /// # Errors
    /// If it cannot be read or is empty.
    pub fn read(source: SecretSource) -> Result<Self, SecretError> {
        let current = RwLock::new(load(&source)?);
        Ok(Self { source, current })
    }

    /// See [`MasterSecret::verify`]. Each call checks whether the secret's file changed, which takes a microsecond:
    /// `lazarus init` writes a new one if others know the old one, and from then on the old one must not be
    /// accepted.
    ///
    /// # Errors
    /// As for [`MasterSecret::verify`].
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<VerifiedDelivery, Rejection> {
        self.renew();
        let master = self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone();
        master.verify(headers, body)
    }

    fn renew(&self) {
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
        let now = stamp(&self.source);
        // If the file is missing or being replaced, the present secret stays valid.
        if now.is_none() || now == known {
            return;
        }
        match load(&self.source) {
            Ok(new) => {
                tracing::info!(from = %self.source, "the webhook secret was changed, and is used from now on");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => {
                tracing::error!(%error, "the webhook secret was changed, and cannot be read; the former one is used");
                // Logged once for each change.
                self.current.write().unwrap_or_else(PoisonError::into_inner).1 = now;
            }
        }
    }
}

fn load(source: &SecretSource) -> Result<(MasterSecret, Option<Stamp>), SecretError> {
    // The stamp is taken first, so that a change in between is noticed the next time.
    let stamp = stamp(source);
    let secret = source.read()?;
    let master = MasterSecret::new(secret).ok_or_else(|| SecretError::Empty { place: source.to_string() })?;
    Ok((master, stamp))
}

fn stamp(source: &SecretSource) -> Option<Stamp> {
    let SecretSource::File(path) = source else { return None };
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gitea::HookOwner;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use secrecy::ExposeSecret as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn signed(secret: &str, body: &[u8]) -> HeaderMap {
        let master = MasterSecret::new(secret.to_owned().into()).unwrap();
        let key = master.hook_secret(HookOwner::Repository(1));
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.expose_secret().as_bytes()).unwrap();
        mac.update(body);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("x-gitea-signature", hex::encode(mac.finalize().into_bytes()).parse().unwrap());
        headers
    }

    #[test]
    fn a_new_secret_counts_at_once_and_the_old_one_no_longer() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("webhook.secret");
        let write = |text: &str| {
            let draft = place.path().join("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(draft, &file).unwrap();
        };
        write("first");
        let keys = Keys::read(SecretSource::File(file.clone())).unwrap();
        let body = br#"{"repository": {"id": 1}}"#;
        assert!(keys.verify(&signed("first", body), body).is_ok());
        assert!(keys.verify(&signed("second", body), body).is_err());
        write("second");
        assert_eq!(keys.verify(&signed("first", body), body).unwrap_err(), Rejection::WrongSignature);
        assert!(keys.verify(&signed("second", body), body).is_ok());
        // An unusable secret changes nothing.
        write("");
        assert!(keys.verify(&signed("third", body), body).is_err());
        assert!(keys.verify(&signed("second", body), body).is_ok());
        std::fs::remove_file(&file).unwrap();
        assert!(keys.verify(&signed("third", body), body).is_err());
        assert!(keys.verify(&signed("second", body), body).is_ok());
    }
}
