//! `lazarus config show`: what is in force, and where it came from.

use crate::config::Config;

/// Text below `lazarus config show --help`.
pub const HELP: &str = "\
Prints each value with the place it came from: file and line, variable, flag or
default. Secrets are shown by their place, never by their value. All keys with
their meaning: config/lazarus.toml and docs/configuration.md.";

/// What to print: a table, or one JSON object. Ends without a newline. Holds
/// no secret: the configuration itself holds none.
pub fn show(config: &Config, json: bool) -> String {
    if json {
        let mut shown = config.to_json();
        if let Some(object) = shown.as_object_mut() {
            // As every answer of the command line has it.
            object.insert("success".to_owned(), true.into());
            object.insert("message".to_owned(), "the configuration that is in force".into());
        }
        shown.to_string()
    } else {
        config.to_table().trim_end().to_owned()
    }
}
