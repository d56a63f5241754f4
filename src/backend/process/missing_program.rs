//! Advice about a program that an agent needs and its cell does not show.

use crate::agents::programs;
use crate::keeper::NOT_IN_CELL;
use std::collections::BTreeMap;
use std::path::Path;

/// Says what to do about a program that a cell does not see although it may exist on this machine.
pub(super) fn where_it_is(why: &str, agent: &str, host_env: &BTreeMap<String, String>) -> String {
    // The word before that phrase is what is missing; only a loader is not named.
    let before = why.split(NOT_IN_CELL).next().unwrap_or_default().trim_end();
    let missing =
        before.rsplit(' ').next().filter(|_| !before.ends_with("the loader that it names")).unwrap_or_default();
    let name = Path::new(missing).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let set = |directory: &Path| {
        let is_bin = directory.file_name().is_some_and(|name| name == "bin");
        let shown = directory.parent().filter(|above| is_bin && above.parent().is_some()).unwrap_or(directory);
        let shown = if programs::read(&shown.display().to_string(), None).is_ok() { shown } else { directory };
        format!("agents.{agent}.programs = [\"{}\"]", shown.display())
    };
    match programs::on_the_host(&name, missing, host_env) {
        Some(file) => {
            let directory = file.parent().unwrap_or(Path::new("/"));
            format!(
                "on this machine it is {}, which cells do not see; to show it, set {}, with every directory that it \
                 needs besides",
                file.display(),
                set(directory)
            )
        }
        None if name.is_empty() => format!("show what it needs with agents.{agent}.programs or read_paths"),
        None => format!(
            "it was not found on this machine either; install it, below /usr/local say, or name its directory in \
             agents.{agent}.programs"
        ),
    }
}
