//! Agent profiles, each exercised with a stand-in program that records how it
//! was called; and the built-in agent at work in a real repository.

use lazarus::agents::{BUILT_IN, CommandContext, Invocation, PATH, Places, Profile, Profiles, Prompt, scribe};
use lazarus::config::{Config, LoadOptions};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A prompt that would do harm wherever it is expanded, split or taken for an option.
const PROMPT: &str = "--dangerously-skip-permissions\n-rf / $HOME ${PATH} $(touch pwned) `touch pwned`\n\
                      prompt-canary \"quoted\" 'single' \\ ; && | > pwned {prompt_file} {model}\n";

fn built_in() -> Profiles {
    Profiles::from(configured("").unwrap())
}

/// The agents of a configuration with this text.
fn configured(text: &str) -> Result<BTreeMap<String, Profile>, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lazarus.toml");
    fs::write(&file, text).unwrap();
    Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() })
        .map(|config| config.agents)
        .map_err(|error| error.to_string())
}

fn pool(name: &str) -> Option<SecretString> {
    ["anthropic", "openai", "gemini"].contains(&name).then(|| SecretString::from(format!("credential-canary-{name}")))
}

/// A cell's directories, and a directory of stand-in programs.
struct Cell {
    directory: tempfile::TempDir,
}

/// How a stand-in was called.
struct Call {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: String,
    cwd: PathBuf,
}

impl Cell {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "project", "bin"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("mission.md"), PROMPT).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    fn invocation(&self, profile: &Profile, model: Option<&str>, resume: Option<&str>) -> Invocation {
        let host_env = host_environment();
        profile
            .command(&CommandContext { model, resume, host_env: &host_env, credentials: &pool })
            .unwrap()
            .at(&Places {
                prompt_file: &self.path("mission.md"),
                home: &self.path("home"),
                project: &self.path("project"),
                programs: &profile.search_path(),
            })
            .unwrap()
    }

    /// Runs it as the keeper would, but with the stand-ins first on PATH.
    fn call(&self, invocation: &Invocation) -> Call {
        let bin = self.path("bin");
        let script = bin.join(&invocation.argv[0]);
        // By a program of its own: a file that this process has open for
        // writing while another test forks could not be executed.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(&script)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = "#!/bin/sh\n/bin/cat /proc/$$/environ > \"$HOME/env\"\n\
                    printf '%s\\0' \"${0##*/}\" \"$@\" > \"$HOME/argv\"\n\
                    pwd -P > \"$HOME/cwd\"\n/bin/cat > \"$HOME/stdin\"\n";
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());

        let stdin = invocation.stdin.as_ref().map_or(Stdio::null(), |file| fs::File::open(file).unwrap().into());
        let mut command = Command::new(&invocation.argv[0]);
        command.args(&invocation.argv[1..]).env_clear().current_dir(&invocation.cwd).stdin(stdin);
        for (name, value) in &invocation.env {
            command.env(name, value.expose());
        }
        command.env("PATH", format!("{}:{PATH}", bin.display()));
        assert!(command.status().unwrap().success());

        let read = |name: &str| fs::read_to_string(self.path("home").join(name)).unwrap();
        let words = |name: &str| -> Vec<String> { read(name).split_terminator('\0').map(str::to_owned).collect() };
        Call {
            argv: words("argv"),
            env: words("env")
                .iter()
                .map(|entry| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
                .collect(),
            stdin: read("stdin"),
            cwd: PathBuf::from(read("cwd").trim_end()),
        }
    }
}

/// A daemon's environment, full of what no agent may see.
fn host_environment() -> BTreeMap<String, String> {
    [
        "FORGE_TOKEN",
        "ANTHROPIC_API_KEY",
        "CODEX_API_KEY",
        "GEMINI_API_KEY",
        "LAZARUS__FORGE__TOKEN_ENV",
        "CREDENTIALS_DIRECTORY",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "PATH",
        "HOME",
        "USER",
        "LD_PRELOAD",
        "SOMETHING",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), format!("host-canary-{name}")))
    .collect()
}

#[test]
fn every_built_in_profile_starts_its_program_as_that_program_wants_it() {
    let profiles = built_in();
    let wanted: BTreeMap<&str, (&str, &[&str])> = BTreeMap::from([
        ("aider", ("aider --message-file FILE --yes-always --no-check-update", &[][..])),
        ("claude", ("claude --bare -p --output-format stream-json --verbose", &["CLAUDE_CONFIG_DIR"])),
        ("codex", ("codex exec --json -", &["CODEX_HOME"])),
        ("gemini", ("gemini --output-format stream-json", &[])),
        ("goose", ("goose run -i FILE", &[])),
        ("hermes", ("hermes chat --oneshot -Q --query-file FILE", &["HERMES_HOME"])),
        ("opencode", ("opencode run --format json", &[])),
        ("scribe", ("lazarus agent scribe --mission FILE", &[])),
    ]);
    assert_eq!(profiles.names(), wanted.keys().copied().collect::<Vec<_>>());
    assert_eq!(profiles.names(), BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, (command, home_variables)) in wanted {
        let cell = Cell::new();
        let profile = profiles.get(name).unwrap();
        let call = cell.call(&cell.invocation(profile, None, None));
        let file = cell.path("mission.md");
        let words: Vec<&str> =
            command.split(' ').map(|word| if word == "FILE" { file.to_str().unwrap() } else { word }).collect();
        assert_eq!(call.argv, words, "{name}");
        assert_eq!(call.cwd, cell.path("project"), "{name}");
        assert_eq!(call.stdin, if profile.prompt == Prompt::Stdin { PROMPT } else { "" }, "{name}");
        let home = cell.path("home");
        for variable in home_variables.iter().chain(&["HOME"]) {
            assert_eq!(call.env[*variable], home.to_str().unwrap(), "{name}");
        }
        assert!(call.env["PATH"].ends_with(PATH));
        assert_eq!((call.env["TERM"].as_str(), call.env["LANG"].as_str()), ("dumb", "C.UTF-8"));
        assert!(!profile.description.is_empty(), "{name}");
    }
}

#[test]
fn a_prompt_reaches_no_argument_and_no_variable_and_is_never_expanded() {
    for name in built_in().names() {
        let cell = Cell::new();
        let call = cell.call(&cell.invocation(built_in().get(name).unwrap(), Some("some/model-1"), None));
        for word in call.argv.iter().chain(call.env.values()).chain(call.env.keys()) {
            for line in PROMPT.lines() {
                assert!(!word.contains(line), "{name}: {word}");
            }
            assert!(!word.contains("prompt-canary") && !word.contains("dangerously"), "{name}: {word}");
        }
        assert!(!cell.path("project/pwned").exists() && !cell.path("home/pwned").exists());
    }
}

#[test]
fn threat_17_no_secret_of_the_host_reaches_an_agent_by_its_environment() {
    for name in built_in().names() {
        let cell = Cell::new();
        let profile = built_in().get(name).unwrap().clone();
        let call = cell.call(&cell.invocation(&profile, None, None));
        for (variable, value) in &call.env {
            assert!(!value.contains("host-canary"), "{name}: {variable}");
        }
        let mut given: Vec<&str> = ["HOME", "LANG", "PATH", "TERM", "USER"].into();
        given.extend(profile.env.keys().map(String::as_str));
        given.extend(profile.credentials.keys().map(String::as_str));
        given.extend(profile.home_variable.as_deref());
        given.sort_unstable();
        assert_eq!(call.env.keys().map(String::as_str).collect::<Vec<_>>(), given, "{name}: nothing else is there");
    }
}

#[test]
fn only_the_variables_on_the_list_are_let_through() {
    let agents = configured("[agents.scribe]\nenv_allow = [\"SOMETHING\", \"NOT_THERE\"]\n").unwrap();
    let cell = Cell::new();
    let call = cell.call(&cell.invocation(&agents["scribe"], None, None));
    assert_eq!(call.env["SOMETHING"], "host-canary-SOMETHING");
    assert_eq!(call.env.values().filter(|value| value.contains("host-canary")).count(), 1);
    assert!(!call.env.contains_key("NOT_THERE"));
}

#[test]
fn a_credential_reaches_exactly_the_variable_it_is_named_for() {
    for (name, variable, credential) in [
        ("claude", "ANTHROPIC_API_KEY", "anthropic"),
        ("codex", "CODEX_API_KEY", "openai"),
        ("gemini", "GEMINI_API_KEY", "gemini"),
    ] {
        let cell = Cell::new();
        let invocation = cell.invocation(built_in().get(name).unwrap(), None, None);
        let call = cell.call(&invocation);
        let holders: Vec<&String> =
            call.env.iter().filter(|(_, value)| value.contains("credential-canary")).map(|(name, _)| name).collect();
        assert_eq!(holders, [variable]);
        assert_eq!(call.env[variable], format!("credential-canary-{credential}"));
        assert!(call.argv.iter().all(|word| !word.contains("canary")));
        let debug = format!("{invocation:?}");
        assert!(!debug.contains("canary") && debug.contains("[redacted]"), "{debug}");
    }
}

#[test]
fn a_missing_credential_is_named_with_the_agent_and_what_to_set() {
    let error = built_in()
        .get("claude")
        .unwrap()
        .command(&CommandContext { model: None, resume: None, host_env: &host_environment(), credentials: &|_| None })
        .unwrap_err()
        .to_string();
    for word in ["claude", "anthropic", "ANTHROPIC_API_KEY", "anthropic_file", "[credentials]"] {
        assert!(error.contains(word), "{word} in {error}");
    }
}

#[test]
fn a_chosen_model_and_a_session_are_single_words_of_argv() {
    for name in built_in().names() {
        let profiles = built_in();
        let profile = profiles.get(name).unwrap();
        let cell = Cell::new();
        if !profile.model_argv.is_empty() {
            let call = cell.call(&cell.invocation(profile, Some("vendor/model:1"), None));
            let at = call.argv.iter().position(|word| word == "vendor/model:1").unwrap();
            assert_eq!(call.argv[at - 1], "--model", "{name}");
        }
        if profile.resume.is_some() {
            let call = cell.call(&cell.invocation(profile, None, Some("session-1")));
            assert_eq!(call.argv.iter().filter(|word| *word == "session-1").count(), 1, "{name}");
            assert_eq!(call.stdin.is_empty(), profile.prompt == Prompt::File, "{name}");
        }
    }
    let agents = configured("[agents.claude]\nmodel_default = \"opus\"\n").unwrap();
    let cell = Cell::new();
    assert_eq!(cell.invocation(&agents["claude"], None, None).argv.last().unwrap(), "opus");
    assert_eq!(cell.invocation(&agents["claude"], Some("haiku"), None).argv.last().unwrap(), "haiku");
}

#[test]
fn threat_10_a_model_or_session_from_a_comment_that_is_not_a_name_is_refused() {
    let profiles = built_in();
    let long = "m".repeat(10_000);
    for bad in [
        "",
        "--dangerously-skip-permissions",
        "-x",
        "a b",
        "$HOME",
        "`id`",
        "a\nb",
        "x&&y",
        "../../x",
        "~",
        "\0",
        &long,
    ] {
        for (model, resume) in [(Some(bad), None), (None, Some(bad))] {
            let error = profiles
                .get("claude")
                .unwrap()
                .command(&CommandContext { model, resume, host_env: &host_environment(), credentials: &pool })
                .unwrap_err()
                .to_string();
            assert!(error.contains("claude") && error.len() < 300, "{error}");
        }
    }
}

#[test]
fn a_user_can_change_one_key_of_a_built_in_profile_or_add_a_profile() {
    let agents = configured(
        "[agents.claude]\nmodel_default = \"opus\"\ncredentials = { ANTHROPIC_API_KEY = \"mine\" }\n\
         [agents.my-agent]\nargv = [\"/opt/my/agent\", \"--in={prompt_file}\", \"--at\", \"{project}\", \"{{literal}}\"]\n\
         env = { MODE = \"$HOME stays as it is\", GIT_AUTHOR_NAME = \"my-agent\" }\nread_paths = [\"/opt/my\"]\n\
         success = { exit_codes = [0, 2], require_output = \"DONE\" }\n",
    )
    .unwrap();
    let profiles = Profiles::from(agents);
    assert_eq!(profiles.names().len(), BUILT_IN.len() + 1);
    let claude = profiles.get("claude").unwrap();
    assert_eq!(claude.model_default.as_deref(), Some("opus"));
    assert_eq!(claude.credentials["ANTHROPIC_API_KEY"], "mine");
    assert_eq!(claude.home_variable.as_deref(), Some("CLAUDE_CONFIG_DIR"));
    let mine = profiles.get("my-agent").unwrap();
    assert_eq!(mine.success.exit_codes, [0, 2]);
    let cell = Cell::new();
    let invocation = cell.invocation(mine, None, None);
    let (file, project) = (cell.path("mission.md"), cell.path("project"));
    let want = [
        "/opt/my/agent".into(),
        format!("--in={}", file.display()),
        "--at".into(),
        project.display().to_string(),
        "{literal}".into(),
    ];
    assert_eq!(invocation.argv, want);
    let mode = invocation.env.iter().find(|(name, _)| name == "MODE").unwrap();
    assert_eq!(mode.1.expose(), "$HOME stays as it is");
    assert_eq!(profiles.nearest("cluade"), Some("claude"));
    assert_eq!(profiles.nearest("zzzzzzzz"), None);
}

#[test]
fn a_profile_that_would_be_unsafe_is_refused_with_what_to_do_instead() {
    for (text, says) in [
        ("argv = [\"a\", \"-p\", \"{prompt}\"]", "{prompt_file}"),
        ("argv = [\"a\", \"{unknown}\"]", "unknown placeholder"),
        ("argv = [\"a\", \"{prompt_file\"]", "brace"),
        ("argv = [\"a\"]", "{prompt_file} is missing"),
        ("argv = []", "argv: missing"),
        ("description = \"x\"", "argv: missing"),
        ("argv = [\"sh\", \"-c\", \"a < {prompt_file}\"]", "shell"),
        ("argv = [\"{home}/bin/a\", \"{prompt_file}\"]", "plain name"),
        ("argv = [\"../a\", \"{prompt_file}\"]", "plain name"),
        ("argv = [\"a\", \"{prompt_file}\", \"{resume_id}\"]", "resume only"),
        ("argv = [\"a\", \"{prompt_file}\"]\nresume = [\"a\", \"{prompt_file}\"]", "{resume_id} is missing"),
        ("argv = \"a {prompt_file}\"", "a list"),
        ("argv = [\"a\", \"{prompt_file}\"]\nprompt = \"argv\"", "\"file\" or \"stdin\""),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv_allow = [\"FORGE_TOKEN\"]", "looks like a secret"),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv_allow = [\"LAZARUS__FORGE__URL\"]", "looks like a secret"),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv_allow = [\"SSH_AUTH_SOCK\"]", "looks like a secret"),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv_allow = [\"PATH\"]", "the cell's own"),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv = { SOME_PASSWORD = \"x\" }", "[credentials]"),
        ("argv = [\"a\", \"{prompt_file}\"]\nenv = { \"bad name\" = \"x\" }", "not the name of a variable"),
        ("argv = [\"a\", \"{prompt_file}\"]\ncredentials = { X_KEY = \"Not A Name\" }", "the name of a credential"),
        ("argv = [\"a\", \"{prompt_file}\"]\nread_paths = [\"/\"]", "not / itself"),
        ("argv = [\"a\", \"{prompt_file}\"]\nread_paths = [\"/opt/../root\"]", "without `..`"),
        ("argv = [\"a\", \"{prompt_file}\"]\nnetwork_hosts = [\"https://x\"]", "must be a host such as"),
        ("argv = [\"a\", \"{prompt_file}\"]\nmodel_default = \"-x\"", "a model's name"),
        ("argv = [\"a\", \"{prompt_file}\"]\nstall = \"1s\"", "from 10s"),
        ("argv = [\"a\", \"{prompt_file}\"]\nstall = \"10s\"", "does not watch for silent agents yet"),
        ("argv = [\"a\", \"{prompt_file}\"]\nheartbeats = true", "does not hear heartbeats yet"),
        ("argv = [\"a\", \"{prompt_file}\"]\ncheckpoint = true", "does not start an agent from a checkpoint yet"),
        ("argv = [\"a\", \"{prompt_file}\"]\nsuccess = { exit_codes = [256] }", "0 to 255"),
        ("argv = [\"a\", \"{prompt_file}\"]\nsuccess = { exit_codes = [] }", "exit_codes is empty"),
        ("argv = [\"a\", \"{prompt_file}\"]\nargs = []", "unknown key `agents.mine.args`"),
    ] {
        let error = configured(&format!("[agents.mine]\n{text}\n")).unwrap_err();
        assert!(error.contains(says), "{text}\nno {says} in {error}");
        assert!(error.contains("agents.mine") && error.contains("lazarus.toml:"), "{error}");
    }
    for name in ["Mine", "1a", "\"a b\"", "\"../x\"", "\"\"", "abcdefghijklmnopqrstuvwxyz0123456"] {
        let error = configured(&format!("[agents.{name}]\nargv = [\"a\", \"{{prompt_file}}\"]\n")).unwrap_err();
        assert!(error.contains("not a name"), "{name}: {error}");
    }
}

#[test]
fn a_variable_that_holds_a_secret_of_lazarus_is_never_let_through_whatever_its_name() {
    let error = configured("[webhook]\nsecret_env = \"HOOK\"\n[agents.scribe]\nenv_allow = [\"HOOK\"]\n").unwrap_err();
    assert!(error.contains("agents.scribe.env_allow") && error.contains("HOOK"), "{error}");
}

// The built-in agent.

/// A repository with one commit, in which hooks and a file system monitor lie in wait.
fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    git(at, &["init", "--quiet", "--initial-branch=main"]);
    fs::write(at.join("README.md"), "# Widget\n").unwrap();
    fs::create_dir(at.join("src")).unwrap();
    fs::write(at.join("src/main.rs"), "fn main() {}\n").unwrap();
    git(at, &["add", "."]);
    git(at, &["commit", "--quiet", "-m", "First"]);
    for hook in ["pre-commit", "commit-msg", "post-commit", "prepare-commit-msg", "post-index-change"] {
        let path = at.join(".git/hooks").join(hook);
        fs::write(&path, "#!/bin/sh\ntouch \"$(git rev-parse --show-toplevel)/hook-ran\"\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
    }
    let monitor = at.join(".git/monitor");
    fs::copy(at.join(".git/hooks/pre-commit"), &monitor).unwrap();
    git(at, &["config", "core.fsmonitor", monitor.to_str().unwrap()]);
    directory
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .env_clear()
        .env("PATH", PATH)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .args([
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.invalid",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
        ])
        .current_dir(at)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A mission in a file outside the project.
fn mission(objective: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "# Greet, closes #1 @alice\n\n## Success criteria\n\n- [ ] It greets\n- [ ] It is short\n\n## Objective\n\n{objective}\n"
    )
    .unwrap();
    file
}

#[test]
fn scribe_writes_the_file_that_its_mission_names_and_commits_it_as_itself() {
    let project = repository();
    let at = project.path();
    // What another agent has staged is not swept along.
    fs::write(at.join("other.txt"), "not mine\n").unwrap();
    git(at, &["add", "other.txt"]);
    let report = scribe::perform(mission("Write `docs/greeting.md`, please.").path(), at).unwrap();
    assert_eq!(report["status"], "committed");
    assert_eq!(report["file"], "docs/greeting.md");
    assert_eq!(report["commit"], git(at, &["rev-parse", "HEAD"]));
    let text = fs::read_to_string(at.join("docs/greeting.md")).unwrap();
    for part in ["# Greet", "Write `docs/greeting.md`, please.", "- [ ] It greets\n- [ ] It is short\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let author = git(at, &["log", "-1", "--format=%an <%ae> %cn <%ce>"]);
    let scribe = "agent:scribe <scribe@agents.lazarus.invalid>";
    assert_eq!(author, format!("{scribe} {scribe}"));
    assert_eq!(git(at, &["show", "--name-only", "--format=", "HEAD"]), "docs/greeting.md");
    let message = git(at, &["log", "-1", "--format=%B"]);
    assert!(message.contains("Greet") && !message.contains(['#', '@']), "{message}");
    assert!(!at.join("hook-ran").exists());
    // The traps do work: git without scribe's care falls into them.
    let plain = Command::new("git")
        .current_dir(at)
        .args(["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"])
        .status();
    assert!(plain.unwrap().success() && at.join("hook-ran").exists());
}

#[test]
fn scribe_that_is_started_again_does_nothing_twice() {
    let project = repository();
    let mission = mission("Say it in `README.md`.");
    let first = scribe::perform(mission.path(), project.path()).unwrap();
    assert_eq!(first["status"], "committed");
    let text = fs::read_to_string(project.path().join("README.md")).unwrap();
    assert!(text.starts_with("# Widget\n") && text.contains("# Greet"), "what was there stays: {text}");
    let second = scribe::perform(mission.path(), project.path()).unwrap();
    assert_eq!(second["status"], "unchanged");
    assert_eq!(second["commit"], first["commit"]);
    assert_eq!(fs::read_to_string(project.path().join("README.md")).unwrap(), text);
}

#[test]
fn scribe_writes_to_its_own_place_rather_than_over_code_or_anywhere_else() {
    for objective in [
        "Look at `src/main.rs` and run `make`.",
        "Write `/etc/lazarus-was-here`, `../outside.md` or `.git/config`.",
        "Nothing is named here, ` but a backquote.",
        "",
    ] {
        let project = repository();
        let report = scribe::perform(mission(objective).path(), project.path()).unwrap();
        assert_eq!(report["file"], "notes/lazarus-mission.md", "{objective}");
        assert_eq!(fs::read_to_string(project.path().join("src/main.rs")).unwrap(), "fn main() {}\n");
    }
}

#[test]
fn scribe_follows_no_link_out_of_the_project() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim.md");
    fs::write(&victim, "untouched\n").unwrap();
    let link = std::os::unix::fs::symlink::<&Path, PathBuf>;
    for objective in ["Write `docs/x.md`.", "Write `x.md`.", "Write `new/y.md` in `notes`."] {
        let project = repository();
        let at = project.path();
        link(outside.path(), at.join("docs")).unwrap();
        link(&victim, at.join("x.md")).unwrap();
        link(outside.path(), at.join("new")).unwrap();
        let error = scribe::perform(mission(objective).path(), at).unwrap_err();
        assert!(format!("{error:#}").contains("symbolic link"), "{error:#}");
    }
    // The place of last resort can be a trap too, and a hard link is one.
    let project = repository();
    link(outside.path(), project.path().join("notes")).unwrap();
    assert!(scribe::perform(mission("Nothing named.").path(), project.path()).is_err());
    let project = repository();
    fs::hard_link(&victim, project.path().join("hard.md")).unwrap();
    scribe::perform(mission("Write `hard.md`.").path(), project.path()).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was made out there");
}

#[test]
fn two_scribes_in_one_project_both_end_well() {
    let project = repository();
    let missions = [mission("Write `one.md`."), mission("Write `two.md`."), mission("Write `one.md`.")];
    std::thread::scope(|scope| {
        for mission in &missions {
            scope.spawn(|| scribe::perform(mission.path(), project.path()).unwrap());
        }
    });
    assert_eq!(git(project.path(), &["status", "--porcelain"]), "");
    assert_eq!(git(project.path(), &["rev-list", "--count", "HEAD"]), "3");
}

#[test]
fn scribe_says_what_is_wrong_where_it_cannot_work() {
    let project = repository();
    let error = scribe::perform(Path::new("/nonexistent/mission.md"), project.path()).unwrap_err();
    assert!(format!("{error:#}").contains("--mission FILE"), "{error:#}");
    let bare = tempfile::tempdir().unwrap();
    let error = scribe::perform(mission("x").path(), bare.path()).unwrap_err();
    assert!(format!("{error:#}").contains("git add failed"), "{error:#}");
    let mut huge = tempfile::NamedTempFile::new().unwrap();
    huge.write_all(&vec![b'x'; 2 << 20]).unwrap();
    assert!(scribe::perform(huge.path(), project.path()).is_err());
    let mut binary = tempfile::NamedTempFile::new().unwrap();
    binary.write_all(b"\xff\xfe\0# \x1b[2J\n").unwrap();
    let report = scribe::perform(binary.path(), project.path()).unwrap();
    assert_eq!(report["status"], "committed");
    let text = fs::read_to_string(project.path().join("notes/lazarus-mission.md")).unwrap();
    assert!(!text.contains(['\0', '\u{1b}']), "{text:?}");
}
