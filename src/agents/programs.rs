//! Directories with programs that a profile shows to its agent (`programs`).
//!
//! They usually lie where people install things for themselves, below a home. So we check that only programs are
//! shown, and not private files beside them.

use std::path::{Component, Path, PathBuf};

/// The form of an entry, for messages.
pub(crate) const FORM: &str = "a directory such as \"~/.nvm/versions/node/v22\": absolute or from ~, without `..`, and not in /tmp, /run, /proc, \
     /dev or /cell, of which a cell has its own";

/// Default names of files and directories in which programs keep credentials or a person's keys.
const SECRETS: [&str; 29] = [
    ".aws",
    ".azure",
    ".bash_history",
    ".config",
    ".docker",
    ".env",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pki",
    ".pypirc",
    ".ssh",
    ".yarnrc.yml",
    "auth.json",
    "credentials",
    "credentials.json",
    "credentials.toml",
    "gcloud",
    "id_ed25519",
    "id_rsa",
    "keyrings",
    "oauth_creds.json",
    "settings.xml",
    "token",
];

/// Resolves the directory that an entry names. `~` is the home of the user that Lazarus runs as.
///
/// # Errors
/// Why it cannot be shown, and what to write instead.
pub(crate) fn read(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match text.strip_prefix('~') {
        None => PathBuf::from(text),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => home
            .ok_or("the environment has no HOME, so there is no `~`; write the directory's absolute path")?
            .join(rest.trim_start_matches('/')),
        Some(_) => return Err("the home of another user; write the directory's absolute path".to_owned()),
    };
    let shown = path.display();
    let found = std::fs::metadata(&path)
        .map_err(|error| format!("{shown} cannot be looked at: {error}; name a directory that is there"))?;
    if !found.is_dir() {
        return Err(format!("{shown} is no directory; name the one that it lies in"));
    }
    let real = path.canonicalize().map_err(|error| format!("following {shown}: {error}"))?;
    let home = home.and_then(|home| home.canonicalize().ok());
    if home.is_some_and(|home| home.starts_with(&real)) || real.components().count() < 3 {
        return Err(format!("{shown} holds a home or more than programs; name the directory of the programs alone"));
    }
    let secret = |name: &str| SECRETS.contains(&name);
    let on_the_way = real.components().find_map(|part| match part {
        // `~/.config/…/bin` may be fine, but nothing in `~/.ssh` is.
        Component::Normal(name) if name != ".config" && name.to_str().is_some_and(secret) => Some(name),
        _ => None,
    });
    if let Some(name) = on_the_way {
        let name = name.display();
        return Err(format!("{shown} lies in `{name}`, where credentials are kept; no agent may see that"));
    }
    // Only its direct entries: deeper down, packages have harmless files with such names.
    let entries = std::fs::read_dir(&real).into_iter().flatten().flatten();
    let held = entries.map(|entry| entry.file_name()).find(|name| name.to_str().is_some_and(secret));
    if let Some(name) = held {
        let (name, bin) = (name.display(), path.join("bin"));
        let instead = if bin.is_dir() { format!("; name {} instead", bin.display()) } else { String::new() };
        return Err(format!("{shown} holds `{name}`, where credentials are kept{instead}"));
    }
    Ok(path)
}

/// The directory that contains the programs: its `bin`, or the directory itself if it has none.
pub(crate) fn bin(directory: &Path) -> PathBuf {
    let bin = directory.join("bin");
    if bin.is_dir() { bin } else { directory.to_owned() }
}

/// Directories below their home in which people have programs that are not on `PATH`. A `*` stands for one
/// directory name.
const PLACES: [&str; 14] = [
    ".bun/bin",
    ".cargo/bin",
    ".deno/bin",
    ".local/bin",
    ".local/share/mise/shims",
    ".local/share/pnpm",
    ".npm-global/bin",
    ".nvm/versions/node/*/bin",
    ".pyenv/shims",
    ".pyenv/versions/*/bin",
    ".volta/bin",
    "bin",
    "go/bin",
    "node_modules/.bin",
];

/// Finds a program on this machine that a cell does not see: `missing` itself, or `name` along the daemon's `PATH`
/// or below its home.
pub(crate) fn on_the_host(
    name: &str,
    missing: &str,
    env: &std::collections::BTreeMap<String, String>,
) -> Option<PathBuf> {
    let is_there = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.is_file());
    if missing.starts_with('/') {
        return Some(PathBuf::from(missing)).filter(is_there);
    }
    if name.is_empty() {
        return None;
    }
    let mut places: Vec<PathBuf> =
        env.get("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    if let Some(home) = env.get("HOME").map(PathBuf::from) {
        for place in PLACES {
            match place.split_once("/*/") {
                None => places.push(home.join(place)),
                Some((above, below)) => {
                    let inner = std::fs::read_dir(home.join(above)).into_iter().flatten().flatten();
                    places.extend(inner.map(|entry| entry.path().join(below)));
                }
            }
        }
    }
    places.into_iter().map(|place| place.join(name)).find(is_there)
}

/// The paths that a cell must be shown to have these directories under their names. If a name is a link, that
/// includes its target.
pub(crate) fn shown(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut shown = vec![];
    for directory in directories {
        shown.push(directory.clone());
        shown.extend(directory.canonicalize().ok().filter(|real| directory.is_symlink() && real != directory));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_programs_is_taken_and_what_holds_secrets_is_not() {
        let place = tempfile::tempdir().unwrap();
        let home = place.path().canonicalize().unwrap();
        for directory in ["node/bin", ".cargo/bin", ".ssh/bin", ".config/tool/bin", "plain"] {
            std::fs::create_dir_all(home.join(directory)).unwrap();
        }
        std::fs::write(home.join(".cargo/credentials.toml"), "").unwrap();
        std::fs::write(home.join("file"), "").unwrap();
        std::os::unix::fs::symlink("node", home.join("current")).unwrap();
        let read = |text: &str| read(text, Some(&home));
        for good in ["~/node", "~/.cargo/bin", "~/plain", "~/.config/tool", "~/current"] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for (bad, why) in [
            ("~", "holds a home"),
            ("~/", "holds a home"),
            ("/usr", "more than programs"),
            ("~other/bin", "another user"),
            ("~/.cargo", "credentials.toml"),
            ("~/.ssh/bin", "`.ssh`"),
            ("~/missing", "cannot be looked at"),
            ("~/file", "no directory"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(read("~/.cargo").unwrap_err().contains(".cargo/bin instead"));
        assert_eq!(bin(&home.join("node")), home.join("node/bin"));
        assert_eq!(bin(&home.join("plain")), home.join("plain"));
        assert_eq!(shown(&[home.join("current")]), [home.join("current"), home.join("node")]);
    }
}
