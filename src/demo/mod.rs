//! The main job, played on this machine: a stand-in for the forge, and
//! everything else real.

#![allow(clippy::print_stdout, reason = "this is a play in the terminal")]

mod play;

pub use lazarus_standin as forge;

use crate::cell::Isolation;
use crate::cli::{init, install_log, serve_until};
use crate::config::{Config, LoadOptions};
use crate::sandbox::HostReport;
use anyhow::Context as _;
use forge::{Flavour, StandIn, StandInOptions};
use play::{Person, Stage};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `lazarus demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Keep both up afterwards, and print how to talk to them.
    #[arg(long)]
    serve: bool,
    /// Play against a Forgejo look-alike instead of Gitea's.
    #[arg(long)]
    forgejo: bool,
    #[command(subcommand)]
    verb: Option<DemoVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum DemoVerb {
    /// Post a comment to a demo that serves, and show what comes of it.
    Say {
        /// The comment, as in "/summon scribe".
        text: String,
        /// Who says it: ada directs, ben writes, cleo reads.
        #[arg(long = "as", default_value = "ada")]
        who: String,
        /// On which issue.
        #[arg(long, default_value_t = 1)]
        issue: i64,
    },
}

/// Where a demo that serves is to be found.
#[derive(Debug, Serialize, Deserialize)]
struct Serving {
    url: String,
    repository: String,
    people: Vec<(String, String)>,
}

fn serving_file() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("lazarus-demo-{uid}.json"))
}

/// Plays the main job.
///
/// # Errors
/// Where a step of it does not come about.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    install_log("error");
    let runtime = crate::cli::runtime()?;
    match &args.verb {
        Some(DemoVerb::Say { text, who, issue }) => runtime.block_on(say(text, who, *issue)),
        None => runtime.block_on(demo(args)),
    }
}

async fn say(text: &str, who: &str, issue: i64) -> anyhow::Result<()> {
    let file = serving_file();
    let serving: Serving =
        std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).with_context(|| {
            format!("no demo serves here ({} is not there); start one with `lazarus demo --serve`", file.display())
        })?;
    let names: Vec<&str> = serving.people.iter().map(|(n, _)| n.as_str()).collect();
    let token = serving
        .people
        .iter()
        .find(|(name, _)| name == who)
        .map(|(_, token)| token.clone())
        .with_context(|| format!("--as {who}: allowed are {}", names.join(", ")))?;
    let person = Person::new(&serving.url, who, &token)?;
    let mut stage = Stage::new(person.clone(), &serving.repository, issue);
    stage.skip_to_now().await.context("the demo does not answer; is it still running?")?;
    person.comment(&serving.repository, issue, text).await?;
    stage.follow_until_quiet(Duration::from_secs(3)).await
}

fn directory() -> anyhow::Result<PathBuf> {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("the kernel gives no random bytes: {e}"))?;
    let path = std::env::temp_dir().join(format!("lazarus-demo-{}", hex::encode(random)));
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&path)
        .with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Writes a file of our own in a place where others may write too.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())?;
    Ok(())
}

fn end_cells(program: &Path, config: &Path) -> anyhow::Result<()> {
    let lazarus = |arguments: &[&str]| -> anyhow::Result<std::process::Output> {
        Ok(std::process::Command::new(program).arg("--config").arg(config).args(arguments).output()?)
    };
    let status: serde_json::Value = serde_json::from_slice(&lazarus(&["status", "--json"])?.stdout)?;
    let cells = status.get("active_cells").and_then(serde_json::Value::as_array);
    for cell in cells.into_iter().flatten().filter_map(|c| c.get("cell_id")?.as_str()) {
        lazarus(&["close", cell, "--outcome", "abandoned", "the demo ended"])?;
    }
    Ok(())
}

fn probe() -> anyhow::Result<HostReport> {
    let output = std::process::Command::new(crate::sandbox::program::RUNNING).arg("cell-probe").output()?;
    serde_json::from_slice(&output.stdout).context("probing this host")
}

async fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    if std::process::Command::new("git").arg("--version").output().is_err() {
        anyhow::bail!("git cannot be run; the demo clones and commits for real, so install git 2.30 or newer");
    }
    let root = directory()?;
    println!("A forge look-alike and Lazarus start on loopback; files are below {}.\n", root.display());
    let flavour = if args.forgejo { Flavour::Forgejo } else { Flavour::Gitea };
    let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let standin = StandIn::start(StandInOptions { flavour, listen, root: root.join("forge") }).await?;
    let url = standin.url();
    let admin = Person::new(&url, "forgeadmin", standin.admin_token())?;
    let repository = "acme/widget";
    let people = admin.found(repository).await?;
    let by_name = |name: &str| people.iter().find(|p| p.name == name).cloned().context("a person is missing");
    let (ada, ben, bot) = (by_name("ada")?, by_name("ben")?, by_name("lazarus")?);

    // Everything from here on is what an installation has, too.
    let report = probe()?;
    let level = if report.level_2() { Isolation::Level2 } else { Isolation::Level1 };
    write_secret(&root.join("forge.token"), &bot.token)?;
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let file = root.join("lazarus.toml");
    std::fs::write(
        &file,
        format!(
            "[forge]\nurl = \"{url}\"\ntoken_file = \"forge.token\"\n\n[webhook]\nlisten = \"{address}\"\n\
             public_url = \"http://{address}\"\nsecret_file = \"webhook.secret\"\n\n[paths]\ndata = \"data\"\n\n\
             [[repositories]]\nname = \"{repository}\"\n\n[policy]\nisolation_min = \"{level}\"\napproval_settle = \"1s\"\n"
        ),
    )?;
    let config = Config::load(&LoadOptions { file: Some(file.clone()), ..LoadOptions::default() })?;
    init::run(&config, repository, init::InitOptions::default()).await?;
    let data = config.paths.data.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let daemon = tokio::spawn(serve_until(config, Some(listener), async move {
        let _ = stopped.await;
    }));

    let result = main_job(&ada, &ben, repository, level, &report).await;
    let cell = match result {
        Ok(cell) => cell,
        Err(error) => {
            let _ = stop.send(());
            if let Ok(Err(daemon)) = daemon.await {
                return Err(daemon.context(error.to_string()));
            }
            standin.shutdown().await;
            return Err(error);
        }
    };
    let program = std::env::current_exe()?;
    let with_config = format!("{} --config {}", program.display(), file.display());
    println!("── Afterwards ──────────────────────────────────────────────────────────");
    println!("the cell's files   {}", data.join("graveyard").join(&cell).display());
    println!("ledger, registry   {}", data.join("registry.sqlite").display());
    println!("look at them with  {with_config} status --all");
    println!("                   {with_config} logs {cell}");
    println!("                   {with_config} ledger show");
    println!("                   {with_config} ledger verify --offline");
    if args.serve {
        let serving = Serving {
            url: url.clone(),
            repository: repository.to_owned(),
            people: people.iter().map(|p| (p.name.clone(), p.token.clone())).collect(),
        };
        let place = serving_file();
        write_secret(&place, &serde_json::to_string_pretty(&serving)?)?;
        println!("\nBoth stay up until Ctrl-C: the forge at {url}, Lazarus at http://{address}.");
        println!("  {} demo say \"/summon scribe\"", program.display());
        println!("  {} demo say --as ben \"/status\"", program.display());
        println!(
            "  curl -s -H 'Content-Type: application/json' -H \"Authorization: token $(jq -r '.people[] | select(.[0]==\"ada\") | .[1]' {})\" -d '{{\"body\":\"/status\"}}' {url}/api/v1/repos/{repository}/issues/1/comments",
            place.display()
        );
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        let _ = std::fs::remove_file(&place);
        // Cells outlive a daemon. A play's must not outlive the play.
        let ended = tokio::task::spawn_blocking(move || end_cells(&program, &file)).await?;
        ended.context("ending the cells that were left")?;
    }
    let _ = stop.send(());
    daemon.await??;
    standin.shutdown().await;
    Ok(())
}

/// The play itself. Returns the cell's name.
async fn main_job(
    ada: &Person,
    ben: &Person,
    repository: &str,
    level: Isolation,
    report: &HostReport,
) -> anyhow::Result<String> {
    if !report.level_2() {
        println!("This host cannot give level_2, so policy in this demo asks for {level}:");
        for missing in &report.missing {
            println!("  {}: {} ({})", missing.what, missing.why, missing.hint);
        }
        println!();
    }
    play::title("ben proposes a mission, from the template that `lazarus init` put into the project");
    let issue = ben
        .propose(
            repository,
            "[mission] Say what this project is for",
            &[
                ("Agents", "scribe"),
                ("Backend", "process"),
                ("Isolation level", level.word()),
                ("Time to live", "30m"),
                ("Network hosts", "none"),
                ("Auto-revive", "ask"),
                ("Council", "_No response_"),
                ("Success criteria", "```markdown\n- [ ] `PURPOSE.md` says what this project is for\n```"),
                (
                    "Objective",
                    "Write a few lines into `PURPOSE.md`, so that newcomers find out what this project is for.",
                ),
            ],
        )
        .await?;
    let mut stage = Stage::new(ada.clone(), repository, issue);
    stage.show_issue().await?;
    stage.until_kind("status").await?;

    play::title("ada, who administers the project, approves");
    // Policy in this demo: text that is older than a second was read.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ada.comment(repository, issue, "Good idea.\n\n/approve").await?;
    let spawn_log = stage.until_kind("spawn-log").await?;
    let cell =
        crate::publication::parse_marker(&spawn_log).and_then(|m| m.cell).context("the spawn log names no cell")?;

    play::title("anybody may ask how it stands");
    ben.comment(repository, issue, "/status").await?;
    stage.until_kind("answer").await?;

    play::title("ada invites ben to watch, and ben accepts");
    ada.comment(repository, issue, "/invite human:ben observer").await?;
    stage.until_kind("answer").await?;
    ben.comment(repository, issue, "/accept").await?;
    stage.until_kind("answer").await?;

    play::title("scribe, the built-in agent, has done its work in its cell: the status comment says idle");
    stage.until_status_says("idle").await?;

    play::title("ada closes the cell");
    ada.comment(repository, issue, "/close completed thank you").await?;
    let log = stage.until_kind("close-log").await?;
    let pull = log.split_once("Pull request: #").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit));
    let pull = pull.and_then(|digits| digits.collect::<String>().parse().ok());
    let pull = pull.with_context(|| format!("the close log names no pull request:\n{log}"))?;

    play::title("and what scribe did is a branch of the project, and a pull request");
    Stage::new(ada.clone(), repository, pull).show_issue().await?;
    Ok(cell)
}
