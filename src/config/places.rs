//! Lists the daemon's own paths, wherever the operator put them, and the paths that cells see.

use super::{Config, SecretSource};
use crate::sandbox::{Own, Shown, Sight, What, shown_to_every_cell};
use std::path::{Path, PathBuf};

/// Suffixes of the files that SQLite keeps for a database.
const BESIDE_A_DATABASE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

impl Config {
    /// All of the daemon's paths that no cell may see, each with the key that names it: data, secrets,
    /// configuration. Keys that are not set, or that name no file, are left out.
    pub fn own_places(&self) -> Vec<Own> {
        let mut own = vec![];
        let mut add = |key: &str, path: PathBuf, what| {
            let configuration = key.starts_with("the configuration");
            let remedy = if configuration { "give its new place with --config".into() } else { format!("set {key}") };
            own.push(Own { key: key.to_owned(), path, what, remedy });
        };
        for (key, path) in [
            ("paths.data", &self.paths.data),
            ("paths.cells", &self.paths.cells),
            ("paths.graveyard", &self.paths.graveyard),
            ("paths.archive", &self.paths.archive),
            ("paths.missions", &self.paths.missions),
        ] {
            add(key, path.clone(), What::Directory);
        }
        for ending in BESIDE_A_DATABASE {
            let mut name = self.paths.registry.clone().into_os_string();
            name.push(ending);
            add("paths.registry", name.into(), What::File);
        }
        if let Some(templates) = &self.templates {
            add("paths.templates", templates.clone(), What::Directory);
        }
        if let Some(file) = &self.file {
            add("the configuration file", file.clone(), What::File);
            if let Some(directory) = file.parent() {
                add("the configuration file's directory", directory.to_owned(), What::Surroundings);
            }
        }
        let named =
            [("forge.token".to_owned(), &self.forge.token), ("webhook.secret".to_owned(), &self.webhook.secret)];
        let pool = self.credentials.iter().map(|(name, source)| (format!("credentials.{name}"), source));
        for (key, source) in named.into_iter().chain(pool) {
            match source {
                SecretSource::File(path) => add(&format!("{key}_file"), path.clone(), What::File),
                SecretSource::Credential(name) => {
                    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
                        add(&format!("{key}_credential"), Path::new(&directory).join(name), What::File);
                    }
                }
                SecretSource::Unset(_) | SecretSource::Env(_) | SecretSource::Command(_) => {}
            }
        }
        own
    }

    /// Our own paths together with the paths that cells see.
    pub fn sight(&self) -> Sight {
        let every = shown_to_every_cell().into_iter().map(|path| Shown { key: None, path });
        let of_profiles = self.agents.values().flat_map(|profile| {
            let shows = |key: &str, paths: Vec<PathBuf>| {
                let key = format!("agents.{}.{key}", profile.name);
                paths.into_iter().map(move |path| Shown { key: Some(key.clone()), path })
            };
            let programs = crate::agents::programs::shown(&profile.programs);
            shows("read_paths", profile.read_paths.clone()).chain(shows("programs", programs))
        });
        Sight::new(self.own_places(), every.chain(of_profiles).collect())
    }
}
