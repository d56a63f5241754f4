//! The configuration as a user meets it: files, variables, flags, and what is
//! said where something is wrong.

use lazarus::config::{COMMENTED, Config, ConfigError, Isolation, LoadOptions, Network, SecretSource, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory with one configuration file, and an environment without any other.
struct Place {
    directory: tempfile::TempDir,
    options: LoadOptions,
}

impl Place {
    fn with(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lazarus.toml");
        std::fs::write(&file, text).unwrap();
        let env = BTreeMap::from([("XDG_STATE_HOME".to_owned(), "/var/lib".to_owned())]);
        let options =
            LoadOptions { file: Some(file), env, flags: Vec::new(), system_file: directory.path().join("none.toml") };
        Self { directory, options }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.options.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    fn file(&self) -> &Path {
        self.options.file.as_deref().unwrap()
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.options)
    }

    fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn without_any_file_the_defaults_of_the_contract_hold() {
    let config = Config::load(&LoadOptions {
        env: BTreeMap::from([("HOME".into(), "/home/alice".into())]),
        system_file: "/nonexistent/lazarus.toml".into(),
        ..LoadOptions::default()
    })
    .unwrap();
    assert_eq!(config.file, None);
    assert_eq!(config.webhook.listen.to_string(), "127.0.0.1:8181");
    assert_eq!(config.webhook.max_body_bytes, 8 << 20);
    assert_eq!(config.paths.data, Path::new("/home/alice/.local/state/lazarus"));
    assert_eq!(config.paths.registry, Path::new("/home/alice/.local/state/lazarus/registry.sqlite"));
    assert_eq!(config.policy.isolation_min, Isolation::Level2);
    assert_eq!(config.policy.network_max, Network::Proxy);
    assert_eq!(config.policy.ttl_default, Duration::from_hours(4));
    assert_eq!(config.policy.ttl_max, Duration::from_hours(24));
    assert_eq!(config.policy.approval_settle, Duration::from_secs(30));
    assert!(!config.policy.guests && !config.policy.substitutes && !config.policy.pull_request_commands);
    assert_eq!(config.limits.memory, 2 << 30);
    assert_eq!(config.reconcile.interval, Duration::from_mins(1));
    assert_eq!(config.engine.effect_workers, 16);
    assert!(config.agents.contains_key("scribe"));
    assert!(config.values().values().all(|value| value.source == Source::Default));
}

/// The commented configuration with every comment sign before a key taken away.
fn uncommented() -> String {
    COMMENTED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_commented_configuration_states_every_default_as_it_is() {
    let shipped = Place::with(COMMENTED).load().unwrap();
    let defaults = Place::with("").load().unwrap();
    assert!(shipped.values().values().all(|value| value.source == Source::Default), "a key is set in it");

    let place = Place::with(&uncommented());
    let stated = place.load().unwrap();
    // Keys without a default, for which the file gives an example.
    let examples = [
        "forge.url",
        "forge.token",
        "forge.ca_file",
        "forge.proxy",
        "webhook.public_url",
        "webhook.secret",
        "paths.templates",
        "credentials.anthropic",
        "agents.claude.model_default",
    ];
    for (key, value) in defaults.values() {
        if examples.contains(&key.as_str()) || key.starts_with("agents.") {
            continue;
        }
        let stated = stated.sourced(key).unwrap();
        assert_eq!(stated.value, value.value, "{key} has another default than the file says");
        assert!(matches!(stated.source, Source::File(..)), "{key} is missing in config/lazarus.toml");
    }
    for key in stated.values().keys() {
        let known = defaults.values().contains_key(key) || examples.contains(&key.as_str());
        assert!(known || key.starts_with("repositories[0]."), "{key} is an example that this test does not know");
    }
    let repository = &stated.repositories[0];
    assert!(repository.administrators && repository.directors.is_empty() && repository.director_teams.is_empty());
    stated.ready_to_serve().unwrap();
}

#[test]
fn each_layer_outweighs_the_one_before_and_every_value_says_which_it_is_from() {
    let text = "[policy]\nttl_max = \"10h\"\ninvitation_ttl = \"5m\"\nguests = true\n";
    let place = Place::with(text)
        .env("LAZARUS__POLICY__TTL_MAX", "11h")
        .env("LAZARUS__POLICY__INVITATION_TTL", "6m")
        .env("LAZARUS_LOG", "debug")
        .flag("policy.ttl_max", "12h");
    let config = place.load().unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(config.policy.ttl_max, hours(12));
    assert_eq!(config.policy.ttl_default, hours(4));
    let source = |key| config.sourced(key).unwrap().source.clone();
    assert_eq!(source("policy.ttl_max"), Source::Flag);
    assert_eq!(source("policy.invitation_ttl"), Source::Env("LAZARUS__POLICY__INVITATION_TTL".into()));
    assert_eq!(source("policy.guests"), Source::File(place.file().to_owned(), 4));
    assert_eq!(source("policy.ttl_default"), Source::Default);
}

#[test]
fn every_kind_of_value_can_come_from_the_environment() {
    let config = Place::with("[[repositories]]\nname = \"acme/from-file\"\n")
        .env("LAZARUS__WEBHOOK__LISTEN", "[::1]:9000")
        .env("LAZARUS__WEBHOOK__MAX_BODY_BYTES", "1048576")
        .env("LAZARUS__POLICY__GUESTS", "true")
        .env("LAZARUS__POLICY__AGENTS_MAX", "3")
        .env("LAZARUS__LIMITS__CPU", "1.5")
        .env("LAZARUS__REPOSITORIES", r#"[{ name = "acme/widget", directors = ["alice"] }, {name="acme/other"}]"#)
        .env("LAZARUS__CREDENTIALS__OPENAI_ENV", "OPENAI_API_KEY")
        .env("LAZARUS__AGENTS__CLAUDE__MODEL_DEFAULT", "opus")
        .env("LAZARUS__AGENTS__CLAUDE__ENV__SOME_SETTING", "1")
        .env("LAZARUS__AGENTS__CLAUDE__ENV_ALLOW", "TZ, HTTP_PROXY")
        .env("LAZARUS__AGENTS__HERMES__SUCCESS__EXIT_CODES", "[0, 3]")
        .load()
        .unwrap();
    assert_eq!(config.webhook.listen.to_string(), "[::1]:9000");
    assert_eq!(config.webhook.max_body_bytes, 1 << 20);
    assert!(config.policy.guests);
    assert_eq!(config.policy.agents_max, 3);
    assert_eq!(config.limits.cpu, 1500);
    assert_eq!(config.repositories.len(), 2);
    assert_eq!(config.repository("ACME/Widget").unwrap().directors, ["alice"]);
    assert_eq!(config.credentials["openai"], SecretSource::Env("OPENAI_API_KEY".into()));
    let claude = &config.agents["claude"];
    assert_eq!(claude.model_default.as_deref(), Some("opus"));
    assert_eq!(claude.env["SOME_SETTING"], "1");
    assert_eq!(claude.env_allow, ["TZ", "HTTP_PROXY"]);
    assert_eq!(claude.argv[0], "claude", "the rest of the built-in profile stays");
    assert_eq!(config.agents["hermes"].success.exit_codes, [0, 3]);

    let config = Place::with("").env("LAZARUS__REPOSITORIES", "acme/a,acme/b").load().unwrap();
    assert_eq!(config.repositories.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["acme/a", "acme/b"]);
}

#[test]
fn an_unknown_key_is_named_with_its_file_its_line_and_the_nearest_known_key() {
    for (text, line, key, near) in [
        ("[policy]\n\nttl_mx = \"4h\"\n", 3, "policy.ttl_mx", "policy.ttl_max"),
        ("[forge]\nuri = \"https://x\"\n", 2, "forge.uri", "forge.url"),
        ("[polcy]\nttl_max = \"4h\"\n", 1, "polcy", "policy"),
        ("# x\n[limits]\nttl_max = \"4h\"\n", 3, "limits.ttl_max", "policy.ttl_max"),
        (
            "[[repositories]]\nname = \"a/b\"\ndirector = [\"x\"]\n",
            3,
            "repositories[0].director",
            "repositories[0].directors",
        ),
        ("[agents.claude]\nmodel_defalt = \"x\"\n", 2, "agents.claude.model_defalt", "agents.claude.model_default"),
        (
            "[agents.claude.success]\nexit_code = [0]\n",
            2,
            "agents.claude.success.exit_code",
            "agents.claude.success.exit_codes",
        ),
    ] {
        let place = Place::with(text);
        let error = place.error();
        let place = format!("{}:{line}: ", place.file().display());
        assert!(error.contains(&place), "{text}: no {place} in {error}");
        let want = format!("unknown key `{key}`; the nearest known key is `{near}`");
        assert!(error.contains(&want), "no {want} in {error}");
    }
    let error = Place::with("").env("LAZARUS__POLICY__TTLMAX", "4h").error();
    assert!(error.contains("LAZARUS__POLICY__TTLMAX") && error.contains("`policy.ttl_max`"), "{error}");
    let error = Place::with("").flag("polcy.ttl_max", "4h").error();
    assert!(error.contains("command line") && error.contains("`policy"), "{error}");
}

#[test]
fn a_wrong_value_is_named_with_its_key_its_line_and_what_is_allowed() {
    for (text, wants) in [
        ("[policy]\nisolation_min = \"level_4\"\n", &[":2: ", "policy.isolation_min", "level_1_5"][..]),
        ("[policy]\nnetwork_max = \"full\"\n", &["policy.network_max", "none, proxy, host"]),
        ("[policy]\nttl_max = \"4 hours\"\n", &["policy.ttl_max", "\"4h\""]),
        ("[policy]\nttl_max = 4\n", &["policy.ttl_max", "a whole number"]),
        ("[policy]\nguests = \"yes\"\n", &["policy.guests", "true or false"]),
        ("[policy]\nagents_max = 0\n", &["policy.agents_max", "from 1 to 64"]),
        ("[policy]\nagents_max = 99999999999999999999\n", &["policy.agents_max", "from 1 to 64"]),
        ("[policy]\nttl_default = \"30h\"\n", &["policy.ttl_default", "policy.ttl_max"]),
        ("[limits]\nmemory = \"2 gigs\"\n", &["limits.memory", "2GiB"]),
        ("[limits]\nmemory = -5\n", &["limits.memory"]),
        ("[limits]\ncpu = nan\n", &["limits.cpu"]),
        ("[limits]\ncpu = 1979-05-27\n", &["limits.cpu", "a date"]),
        ("[webhook]\nlisten = \"localhost\"\n", &["webhook.listen", "127.0.0.1:8181"]),
        ("[webhook]\npath = \"/readyz\"\n", &["webhook.path"]),
        ("[forge]\nurl = \"git.example.org\"\n", &["forge.url", "https://git.example.org"]),
        ("[forge]\nurl = \"ftp://git.example.org\"\n", &["forge.url"]),
        ("[paths]\ndata = \"~/lazarus\"\n", &["paths.data", "not expanded"]),
        ("policy = 3\n", &[":1: ", "policy", "a table"]),
        ("repositories = \"acme/widget\"\n", &["repositories", "a list of tables"]),
        ("[[repositories]]\ndirectors = [\"x\"]\n", &[":1: ", "name", "missing"]),
        ("[[repositories]]\nname = \"acme\"\n", &[":2: ", "repositories[0].name", "acme/widget"]),
        ("[[repositories]]\nname = \"a/b\"\n[[repositories]]\nname = \"A/B\"\n", &[":4: ", "twice"]),
        ("[[repositories]]\nname = \"a/b\"\nadministrators = false\n", &[":3: ", "nobody could approve"]),
        ("[[repositories]]\nname = \"a/b\"\ndirectors = [\"ok\",\n \"no spaces please\"]\n", &[":4: ", "directors"]),
        ("[policy\n", &[":1: ", "not valid TOML"]),
        ("[policy]\nguests = true\nguests = false\n", &[":3: ", "not valid TOML"]),
    ] {
        let error = Place::with(text).error();
        for want in wants {
            assert!(error.contains(want), "{text}\nno {want} in {error}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let error = Place::with("[policy]\nguests = 1\nttl_mx = \"1h\"\n[limits]\nmemory = true\n")
        .env("LAZARUS__POLICY__AGENTS_MAX", "many")
        .error();
    let at =
        ["policy.guests", "policy.ttl_mx", "limits.memory", "policy.agents_max"].map(|key| error.find(key).unwrap());
    assert!(at.is_sorted(), "{error}");
    assert!(error.contains("4 problems"), "{error}");
}

#[test]
fn a_secret_in_the_configuration_is_refused_and_never_repeated() {
    const CANARY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
    for text in [
        format!("[forge]\ntoken = \"{CANARY}\"\n"),
        format!("[forge]\ntoken_file = \"{CANARY}\"\n"),
        format!("[forge]\ntoken_env = \"{CANARY}\"\n"),
        format!("[forge]\ntoken_credential = \"{CANARY}\"\n"),
        format!("[forge]\nurl = \"https://bot:{CANARY}@git.example.org\"\n"),
        format!("[forge]\ntoken = {CANARY}\n"),
        format!("[webhook]\nsecret = \"{CANARY}\"\n"),
        format!("[webhook]\nlisten = \"{CANARY}\"\n"),
        format!("[credentials]\nanthropic = \"{CANARY}\"\n"),
        format!("[agents.claude.env]\nANTHROPIC_API_KEY = \"{CANARY}\"\n"),
        format!("[agents.claude.credentials]\nANTHROPIC_API_KEY = \"{CANARY} \"\n"),
        format!("[agents.x]\nargv = [\"x\", \"{{{CANARY}}}\"]\n"),
    ] {
        let error = Place::with(&text).load().unwrap_err();
        assert!(!error.to_string().contains(CANARY), "{error}");
        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    }
    for (name, say) in [
        ("LAZARUS__FORGE__TOKEN", "forge.token_file"),
        ("LAZARUS__WEBHOOK__SECRET", "webhook.secret_file"),
        ("LAZARUS__CREDENTIALS__OPENAI", "credentials.openai_file"),
        ("LAZARUS__POLICY__TTL_MAX", "4h"),
        ("LAZARUS__NOTHING", "nearest known key"),
    ] {
        let error = Place::with("").env(name, CANARY).error();
        assert!(error.contains(name) && error.contains(say), "{error}");
        assert!(!error.contains(CANARY), "{error}");
    }
}

#[test]
fn a_secret_has_one_place_and_a_higher_layer_replaces_it_by_whatever_way() {
    let error = Place::with("[forge]\ntoken_file = \"a\"\ntoken_env = \"B\"\n").error();
    assert!(error.contains("give one of forge.token_file, forge.token_env"), "{error}");
    let config = Place::with("[forge]\ntoken_file = \"a\"\n").env("LAZARUS__FORGE__TOKEN_ENV", "B").load().unwrap();
    assert_eq!(config.forge.token, SecretSource::Env("B".into()));
    assert_eq!(config.sourced("forge.token").unwrap().source, Source::Env("LAZARUS__FORGE__TOKEN_ENV".into()));
}

#[test]
fn what_is_shown_says_where_a_secret_is_and_never_what_it_is() {
    const CANARY: &str = "canary-that-nobody-may-see";
    let place = Place::with("[forge]\ntoken_file = \"forge.token\"\n[webhook]\nsecret_env = \"HOOK_SECRET\"\n")
        .env("HOOK_SECRET", CANARY);
    let path = place.directory.path().join("forge.token");
    std::fs::write(&path, CANARY).unwrap();
    let config = place.load().unwrap();
    let (table, json) = (config.to_table(), config.to_json());
    assert!(table.contains(&format!("file {}", path.display())), "{table}");
    assert!(table.contains("environment variable HOOK_SECRET"), "{table}");
    assert!(table.contains(&format!("{}:2", place.file().display())), "{table}");
    assert_eq!(json["values"]["webhook.secret"]["value"], "environment variable HOOK_SECRET");
    assert_eq!(json["values"]["webhook.secret"]["source"]["line"], 4);
    for shown in [table, json.to_string(), format!("{config:?}")] {
        assert!(!shown.contains(CANARY));
    }
}

#[test]
fn relative_paths_start_from_the_file_and_those_from_elsewhere_from_where_one_stands() {
    let place = Place::with(
        "[forge]\ntoken_file = \"forge.token\"\n[paths]\ndata = \"state\"\ncells = \"/tmp/lazarus-cells\"\n",
    )
    .env("LAZARUS__PATHS__ARCHIVE", "archive-here");
    let config = place.load().unwrap();
    let here = place.directory.path();
    assert_eq!(config.forge.token, SecretSource::File(here.join("forge.token")));
    assert_eq!(config.paths.data, here.join("state"));
    assert_eq!(config.paths.missions, here.join("state/missions"));
    assert_eq!(config.paths.cells, Path::new("/tmp/lazarus-cells"));
    assert_eq!(config.paths.archive, std::env::current_dir().unwrap().join("archive-here"));
}

#[test]
fn the_file_is_looked_for_in_the_order_of_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, ttl: &str| -> PathBuf {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("[policy]\nttl_max = \"{ttl}\"\n")).unwrap();
        path
    };
    let system = write("etc/lazarus.toml", "20h");
    let at = |path: &str| directory.path().join(path).to_str().unwrap().to_owned();
    let mut options = LoadOptions { system_file: system, ..LoadOptions::default() };
    options.env.insert("HOME".into(), at("home"));
    let hours = |options: &LoadOptions| Config::load(options).unwrap().policy.ttl_max.as_secs() / 3600;
    assert_eq!(hours(&options), 20);
    write("home/.config/lazarus/lazarus.toml", "19h");
    assert_eq!(hours(&options), 19);
    write("xdg/lazarus/lazarus.toml", "18h");
    options.env.insert("XDG_CONFIG_HOME".into(), at("xdg"));
    assert_eq!(hours(&options), 18);
    write("named.toml", "17h");
    options.env.insert("LAZARUS_CONFIG".into(), at("named.toml"));
    assert_eq!(hours(&options), 17);
    options.file = Some(write("flag.toml", "16h"));
    assert_eq!(hours(&options), 16);

    // What was asked for by name must be there.
    options.file = Some(directory.path().join("missing.toml"));
    let error = Config::load(&options).unwrap_err().to_string();
    assert!(error.contains("missing.toml") && error.contains("--config"), "{error}");
    options.file = None;
    options.env.insert("LAZARUS_CONFIG".into(), at("gone.toml"));
    let error = Config::load(&options).unwrap_err().to_string();
    assert!(error.contains("gone.toml") && error.contains("LAZARUS_CONFIG"), "{error}");
}

#[test]
fn to_serve_every_missing_key_is_named_at_once() {
    let error = Place::with("").load().unwrap().ready_to_serve().unwrap_err().to_string();
    for key in ["forge.url", "forge.token_file", "webhook.public_url", "webhook.secret_file", "[[repositories]]"] {
        assert!(error.contains(key), "{key} in {error}");
    }
}

#[test]
fn addresses_lose_their_trailing_slash_and_make_the_hooks_address() {
    let config = Place::with(
        "[forge]\nurl = \"https://git.example.org/gitea/\"\n[webhook]\npublic_url = \"http://127.0.0.1:8181/\"\n",
    )
    .load()
    .unwrap();
    assert_eq!(config.forge.url, "https://git.example.org/gitea");
    assert_eq!(config.webhook.address(), "http://127.0.0.1:8181/webhook");
}

#[test]
fn who_lowers_the_longest_life_lowers_the_usual_one_with_it() {
    let config = Place::with("[policy]\nttl_max = \"2h\"\n").load().unwrap();
    assert_eq!(config.policy.ttl_default, Duration::from_hours(2));
    assert_eq!(config.sourced("policy.ttl_default").unwrap().value, "2h");
}

#[test]
fn rubbish_in_the_file_is_an_error_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lazarus.toml");
    let deep = format!("a = {}", "[".repeat(100_000));
    let huge = "# x\n".repeat(300_000);
    let long_key = format!("[policy]\n{} = 1\n", "k".repeat(200_000));
    let escape = "[policy]\n\"\\u001b[2J\" = 1\n";
    for bytes in [
        &b"\xff\xfe\x00"[..],
        b"[policy]\n\n\xff",
        b"\0",
        deep.as_bytes(),
        huge.as_bytes(),
        long_key.as_bytes(),
        escape.as_bytes(),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let options = LoadOptions { file: Some(file.clone()), ..LoadOptions::default() };
        let error = Config::load(&options).unwrap_err().to_string();
        assert!(error.contains("lazarus.toml:"), "{error}");
        assert!(error.len() < 2_000 && !error.contains('\u{1b}'), "{}", error.len());
    }
    for name in ["LAZARUS__", "LAZARUS____", "LAZARUS__A__B__C__D__E", "LAZARUS__FORGE__URL__X", "LAZARUS__FORGE"] {
        assert!(Place::with("").env(name, "x").load().is_err(), "{name}");
    }
}

mod any_input {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
        #[test]
        fn no_environment_makes_it_panic(key in "[A-Za-z_]{0,30}", value in r"\PC{0,60}") {
            let _ = Place::with("").env(&format!("LAZARUS__{key}"), &value).load();
        }

        #[test]
        fn no_value_of_a_known_key_makes_it_panic(index in 0_usize..200, value in r"[\[\]{}=,.a-z0-9-]{0,40}") {
            let keys: Vec<String> = Place::with("").load().unwrap().values().keys().cloned().collect();
            let key = &keys[index % keys.len()];
            let _ = Place::with("").flag(key, &value).load();
        }
    }
}
