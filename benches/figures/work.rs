//! `clone_1gb`, `clone_1gb_disk`: a project of 1 GB into a cell. `harvest_1000`:
//! a thousand commits out of one.

use crate::report::{Figure, Limit, Report, median, milliseconds};
use crate::{LAZARUS, Place};
use anyhow::Context as _;
use lazarus::demo::forge::{Flavour, StandIn, StandInOptions};
use lazarus::publication::Secrets;
use lazarus::repository::{
    ConfinedGit, GitAccess, Origin, PushOutcome, WorkLimits, WorkRepository, clone_project, hold_base, refresh_mirror,
};
use lazarus::sandbox::Confinement;
use lazarus::workspace::{HandedWork, HarvestManifest, HarvestOrder, HarvestRequest};
use secrecy::SecretString;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 7;
const COMMITS: usize = 1000;
/// Of each of the versions of one file, in bytes; together 1 GB.
const VERSION: usize = 16 << 20;
const VERSIONS: usize = 64;

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=bench", "-c", "user.email=bench@lazarus.invalid", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .context("running git")?;
    anyhow::ensure!(
        output.status.success(),
        "git {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A bare repository with a history of 1 GB: versions of a file that was
/// removed in the end, and a work tree of 200 small files.
fn make_large(place: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(place)?;
    git(place, &["init", "--quiet", "--bare"])?;
    let mut import = Command::new("git")
        .arg("-C")
        .arg(place)
        .args(["-c", "core.compression=0", "fast-import", "--quiet", "--big-file-threshold=1g"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = std::io::BufWriter::with_capacity(1 << 20, import.stdin.take().context("no input")?);
    let mut noise = vec![0u8; VERSION];
    let commit = |input: &mut dyn std::io::Write, number: usize| -> std::io::Result<()> {
        writeln!(input, "commit refs/heads/main\ncommitter bench <bench@lazarus.invalid> {number} +0000\ndata 1\nx")
    };
    for version in 0..VERSIONS {
        for piece in noise.chunks_mut(256) {
            getrandom::fill(piece).map_err(std::io::Error::other)?;
        }
        commit(&mut input, version)?;
        writeln!(input, "M 100644 inline large.bin\ndata {VERSION}")?;
        input.write_all(&noise)?;
        writeln!(input)?;
    }
    commit(&mut input, VERSIONS)?;
    writeln!(input, "D large.bin")?;
    for file in 0..200 {
        let text = format!("File {file}\n").repeat(20);
        writeln!(input, "M 100644 inline src/{file}.txt\ndata {}\n{text}", text.len())?;
    }
    writeln!(input, "done")?;
    drop(input);
    anyhow::ensure!(import.wait()?.success(), "git fast-import failed");
    Ok(())
}

/// What a tree takes on disk, in bytes; what it shares with others once.
fn disk(path: &Path) -> anyhow::Result<u64> {
    let meta = path.symlink_metadata()?;
    // Hard links are the mirror's.
    let mut sum = if meta.is_file() && meta.nlink() > 1 { 0 } else { meta.blocks() * 512 };
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            sum += disk(&entry?.path())?;
        }
    }
    Ok(sum)
}

pub fn clone(report: &mut Report) -> anyhow::Result<()> {
    println!("clone_1gb: a repository of 1 GB is made first");
    let place = Place::new("clone")?;
    let mirror = place.0.join("mirror.git");
    make_large(&mirror)?;
    let target = place.0.join("clone");
    let gone = || std::fs::remove_dir_all(&target);
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (mut ours, mut local, mut reference, mut size) = (vec![], vec![], vec![], 0);
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        clone_project(&mirror, "laz-bench", "main", None, &target, true)?;
        let took = milliseconds(begun);
        size = size.max(disk(&target)?);
        gone()?;
        let begun = Instant::now();
        git(&place.0, &["clone", "--quiet", "--local", &path(&mirror), "clone"])?;
        let by_links = milliseconds(begun);
        gone()?;
        let begun = Instant::now();
        let from = format!("file://{}", path(&mirror));
        git(&place.0, &["clone", "--quiet", "--reference", &path(&mirror), &from, "clone"])?;
        let by_reference = milliseconds(begun);
        gone()?;
        if round > 0 {
            ours.push(took);
            local.push(by_links);
            reference.push(by_reference);
        }
    }
    report.add(Figure {
        name: "clone_1gb",
        value: median(&ours),
        unit: "ms",
        anchor: Some(("git clone --local".to_owned(), Some(median(&local)))),
        limit: Limit::Value(100.0),
    });
    report.note(format!("clone_1gb: git clone --reference {:.1} ms", median(&reference)));
    report.add(Figure {
        name: "clone_1gb_disk",
        value: size as f64 / 1e6,
        unit: "MB",
        anchor: None,
        limit: Limit::Value(1.0),
    });
    Ok(())
}

pub async fn harvest(report: &mut Report) -> anyhow::Result<()> {
    println!("harvest_1000: {COMMITS} commits, {ROUNDS} times");
    let place = Place::new("harvest")?;
    let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let forge = StandIn::start(StandInOptions { flavour: Flavour::Gitea, listen, root: place.0.join("forge") }).await?;
    let token = forge.admin_token().to_owned();
    let made = reqwest::Client::new()
        .post(format!("{}/api/v1/user/repos", forge.url()))
        .header("Authorization", format!("token {token}"))
        .json(&json!({"name": "widget", "auto_init": true, "default_branch": "main"}))
        .send()
        .await?;
    anyhow::ensure!(made.status().is_success(), "the stand-in made no repository: {}", made.status());
    let url = format!("{}/forgeadmin/widget.git", forge.url());
    let access = GitAccess { token: SecretString::from(token.clone()), ca_file: None, proxy: None, program: None };
    let work = tokio::task::spawn_blocking(move || measure_harvest(&place.0, &url, &token, &access));
    let (ours, theirs, parts) = work.await??;
    report.add(Figure {
        name: "harvest_1000",
        value: ours,
        unit: "ms",
        anchor: Some(("git push of the same".to_owned(), Some(theirs))),
        limit: Limit::RatioAtMost(2.0),
    });
    report.note(parts);
    forge.shutdown().await;
    Ok(())
}

fn measure_harvest(place: &Path, url: &str, token: &str, access: &GitAccess) -> anyhow::Result<(f64, f64, String)> {
    let mirror = place.join("mirror.git");
    refresh_mirror(&mirror, url, access, "main")?;
    let clone = place.join("project");
    let base = clone_project(&mirror, "laz-bench", "main", None, &clone, false)?.commit;
    let mut import = Command::new("git")
        .arg("-C")
        .arg(&clone)
        .args(["fast-import", "--quiet", "--force"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = std::io::BufWriter::new(import.stdin.take().context("no input")?);
    for number in 0..COMMITS {
        write!(
            input,
            "commit refs/heads/main\ncommitter agent <agent@lazarus.invalid> {number} +0000\ndata 4\nWork\n"
        )?;
        if number == 0 {
            writeln!(input, "from {base}")?;
        }
        let text = format!("Line {number}\n").repeat(40);
        writeln!(input, "M 100644 inline src/{}.txt\ndata {}\n{text}", number % 100, text.len())?;
    }
    writeln!(input, "done")?;
    drop(input);
    anyhow::ensure!(import.wait()?.success(), "git fast-import failed");
    git(&clone, &["reset", "--quiet", "--hard"])?;
    let limits = WorkLimits { pack: 512 << 20, file: 100 << 20, files: 20_000, branches: 8, search: 1 << 30 };
    // What an installation knows: its token, the hook's secret, a provider's key.
    let secrets = Secrets::new(
        [("token", token), ("hook", "f2a1c39be0d7458aa6b1"), ("key", &"sk-bench-Zm9vYmFyYmF6cXV4".repeat(4))]
            .map(|(name, value)| (name, SecretString::from(value))),
    );
    let report = Command::new(LAZARUS).arg("cell-probe").stdin(Stdio::null()).output()?;
    let confinement = Confinement::of(&serde_json::from_slice(&report.stdout).context("reading the probe")?);
    let header = format!("http.extraHeader=Authorization: token {token}");
    let (mut ours, mut theirs, mut handed_out, mut taken_in) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let origin = Origin { mission: "a/b#1".into(), cell: format!("laz-{round}"), base: base.clone() };
        // As the clone of a cell does it.
        hold_base(&mirror, &origin.cell, &base)?;
        let into = place.join(format!("into-{round}"));
        std::fs::create_dir(&into)?;
        let request = HarvestRequest {
            base: base.clone(),
            pack_max: limits.pack,
            branches_max: limits.branches,
            commit_rest: true,
            trailers: String::new(),
            snapshot: false,
        };
        let wanted = HarvestOrder { request, into: into.clone() };
        let begun = Instant::now();
        let output = Command::new(LAZARUS)
            .arg("cell-harvest")
            .arg(serde_json::to_string(&wanted)?)
            .current_dir(&clone)
            .stdin(Stdio::null())
            .output()?;
        let manifest: HarvestManifest =
            serde_json::from_slice(&output.stdout).context("reading what was handed out")?;
        let after_hand_out = milliseconds(begun);
        let confined = ConfinedGit::new(Some(LAZARUS.into()), confinement);
        let work = WorkRepository::new(place.join(format!("work-{round}.git")), mirror.clone(), confined);
        let handed = HandedWork::in_directory(manifest, &into);
        let harvest = work.take_in(handed, &limits, &origin, &secrets)?;
        anyhow::ensure!(harvest.commit_count == COMMITS as u64, "{harvest:?}");
        let after_take_in = milliseconds(begun);
        let tip = harvest.tip.context("nothing to push")?;
        let pushed = work.push(url, access, &[(format!("lazarus/{round}-ours"), tip)])?;
        anyhow::ensure!(matches!(pushed.as_slice(), [PushOutcome::Pushed(_)]), "{pushed:?}");
        let took = milliseconds(begun);
        // A branch that is there has the other push carry nothing.
        let remove =
            |branch: &str| git(&clone, &["-c", &header, "push", "--quiet", url, &format!(":refs/heads/{branch}")]);
        remove(&format!("lazarus/{round}-ours"))?;
        let begun = Instant::now();
        git(&clone, &["-c", &header, "push", "--quiet", url, &format!("main:refs/heads/plain-{round}")])?;
        let plain = milliseconds(begun);
        remove(&format!("plain-{round}"))?;
        if round > 0 {
            ours.push(took);
            theirs.push(plain);
            handed_out.push(after_hand_out);
            taken_in.push(after_take_in);
        }
    }
    let parts = format!(
        "harvest_1000, in parts: handed out {:.1} ms, taken in {:.1} ms, pushed {:.1} ms",
        median(&handed_out),
        median(&taken_in),
        median(&ours)
    );
    Ok((median(&ours), median(&theirs), parts))
}
