//! The table: every attempt in every column.

use crate::attempt::Verdict;
use crate::host_fixture::{HostFixture, Words};
use crate::isolated_run::{self, Performance, is_root};
use crate::sandbox_under_test::{self, BROKEN, HOME, SandboxUnderTest, Verdicts, every};
use crate::world::{Kind, World, WorldOptions};
use crate::{container, observer};
use lazarus::keeper::OBJECTS_IN_CELL;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// How many attempts have to be made and stopped, at least.
const AT_LEAST: usize = 40;

/// One row.
struct Row {
    class: &'static str,
    name: &'static str,
    ours: Verdict,
    bwrap: Verdict,
    docker: Verdict,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "threat_18 runs it in a run of its own"]
async fn every_attempt_in_every_column() {
    let fixture = HostFixture::new();
    let mut world = World::with("escape", options(&fixture)).await;
    let cells = Cells::summon(&world, "").await;
    let words = cells.words(&mut world, fixture.words());

    // In the cell they wait for their plan, which goes where they have their home.
    let inside = words_inside(words.clone());
    let mut watching = inside.clone();
    watching.insert("view", Ok("/cell".to_owned()));
    let bare = sandbox_under_test::bare(&fixture, &words);
    let ours = tokio::task::block_in_place(|| {
        let make = |home: &Path, called: &str, words: Words| {
            let column = SandboxUnderTest::plan(&fixture, home, called, words);
            let waited = column.wait(&mut || Ok(()));
            waited.map(|()| column.verdicts())
        };
        let working = make(&cells.home.join("home/attacker"), HOME, inside)?;
        let run = world.data().join("run").join(&cells.cell);
        let home = observer::start(&run, &cells.home, &fixture.tools.join("attempts"));
        let watching = make(&home, &format!("/cell/home/{}", observer::NAME), watching)?;
        Ok::<_, String>(working.into_iter().zip(watching).map(|(w, o)| w.worse(o)).collect::<Verdicts>())
    });
    let ours = match ours {
        Ok(verdicts) => verdicts,
        Err(why) => panic!("{why}\n{}\n{}", world.cli(&["logs", &cells.cell]).all(), world.evidence(cells.issue).await),
    };
    let mut beside = words.clone();
    beside.insert("view", Err("it has no observers".to_owned()));
    let bwrap = sandbox_under_test::bwrap(&fixture, &beside);
    let docker = container::docker(&fixture, &beside);

    let rows = rows(&bare, &ours, &bwrap, &docker);
    print(&rows, &bare, &ours);
    world.finish().await;

    let escaped: Vec<String> =
        rows.iter().filter(|r| r.ours.has_escaped()).map(|r| format!("{}: {}: {}", r.class, r.name, r.ours)).collect();
    assert!(escaped.is_empty(), "out of our cell:\n{}", escaped.join("\n"));
    let broken: Vec<String> = [&bare, &ours]
        .into_iter()
        .chain(bwrap.as_ref().ok())
        .flat_map(|column| every().zip(column))
        .filter(|(_, verdict)| matches!(verdict, Verdict::NotRun(why) if why.starts_with(BROKEN)))
        .map(|((_, attempt), verdict)| format!("{}: {verdict}", attempt.name))
        .collect();
    assert!(broken.is_empty(), "attempts that do not work: {broken:#?}");
    let weaker: Vec<&str> = rows
        .iter()
        .filter(|r| (r.bwrap.was_stopped() || r.docker.was_stopped()) && !r.ours.was_stopped())
        .map(|r| r.name)
        .collect();
    assert!(weaker.is_empty(), "stopped elsewhere and not shown to be stopped by us: {weaker:#?}");
    let stopped = rows.iter().filter(|r| r.ours.was_stopped()).count();
    assert!(stopped >= AT_LEAST, "only {stopped} attempts were shown to succeed outside and made inside");
}

pub fn options(fixture: &HostFixture) -> WorldOptions {
    let tools = fixture.tools.display();
    let config = format!(
        "[agents.attacker]\ndescription = \"Tries to get out\"\nargv = [\"{tools}/attempts\", \"serve\", \"{{home}}\"]\n\
         prompt = \"stdin\"\nread_paths = [\"{tools}\"]\n\
         [agents.bystander]\ndescription = \"Has something to lose\"\nprompt = \"stdin\"\n\
         argv = [\"sh\", \"-c\", \"echo treasure of an agent > $HOME/secret; chmod 755 $HOME; exec sleep 3600\"]\n\
         env = {{ TREASURE = \"treasure of an environment\" }}\n"
    );
    WorldOptions { config, ..WorldOptions::default() }
}

/// The cell that attempts are made in, and another.
pub struct Cells {
    pub issue: i64,
    pub cell: String,
    pub home: PathBuf,
    pub other: PathBuf,
}

impl Cells {
    /// With these further words in the command.
    pub async fn summon(world: &World, options: &str) -> Self {
        let (issue, cell) = summon(world, &format!("/team attacker+bystander{options}")).await;
        let (_, other) = summon(world, "/summon sleeper").await;
        let cells = world.data().join("cells");
        let (home, other) = (cells.join(&cell), cells.join(other));
        fs::write(other.join("home/sleeper/secret"), "treasure of another cell\n").unwrap();
        world
            .wait_until("the bystander's secret", issue, async || {
                fs::read_to_string(home.join("home/bystander/secret")).ok().filter(|t| t.contains("treasure"))
            })
            .await;
        Self { issue, cell, home, other }
    }

    pub fn words(&self, world: &mut World, mut words: Words) -> Words {
        let at = |path: &Path| Ok(path.display().to_string());
        let run = world.data().join("run").join(&self.cell);
        let daemon = world.daemon().pid().map(|pid| pid.to_string()).ok_or_else(|| "no daemon runs".to_owned());
        let keeper = fs::read_to_string(run.join("keeper.pid")).map_err(|e| format!("keeper.pid: {e}"));
        for (word, value) in [
            ("operator", at(world.place())),
            ("data", at(&world.data())),
            ("other_cell", at(&self.other)),
            ("neighbour", at(&self.home.join("home/bystander"))),
            ("host_neighbour", at(&self.home.join("home/bystander"))),
            ("hidden_homes", at(&self.home.join("home"))),
            ("record", at(&self.home.join(".lazarus"))),
            ("host_record", at(&self.home.join(".lazarus"))),
            ("program", words["tools"].clone().map(|t| format!("{t}/program"))),
            ("system_program", Ok("/usr/bin/env".to_owned())),
            ("remountable", Ok("/proc".to_owned())),
            ("covered", Ok("/dev/shm".to_owned())),
            ("daemon", daemon),
            ("daemon_port", Ok(world.installation().listen.port().to_string())),
            ("keeper", keeper),
            ("control", at(&world.data().join("control.sock"))),
            ("keeper_socket", at(&run.join("control.sock"))),
            ("bystander", agent_of(&self.cell, "bystander")),
            ("prompt", self.prompt()),
            ("view", at(&self.home)),
            ("objects", mirror(&world.data())),
            ("host_objects", mirror(&world.data())),
            ("host_view", at(&self.home)),
        ] {
            words.insert(word, value);
        }
        words
    }

    /// The name of the other agent's prompt.
    fn prompt(&self) -> Result<String, String> {
        let prompts = fs::read_dir(self.home.join(".lazarus/prompts")).map_err(|e| e.to_string())?;
        prompts
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .find(|n| n.starts_with("bystander"))
            .ok_or_else(|| "the other agent has no prompt".to_owned())
    }
}

/// The process of an agent of a cell, as the host sees it.
pub fn agent_of(cell: &str, agent: &str) -> Result<String, String> {
    let of = |pid: &str| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let (home, cell) = (format!("/home/{agent}"), format!("LAZARUS_CELL={cell}"));
    let names = fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .filter(|n| n.parse::<i32>().is_ok())
        .find(|pid| {
            let environment = of(pid);
            let has = |test: &dyn Fn(&[u8]) -> bool| environment.split(|b| *b == 0).any(test);
            has(&|e| e.starts_with(b"HOME=") && e.ends_with(home.as_bytes())) && has(&|e| e == cell.as_bytes())
        })
        .ok_or_else(|| format!("the agent {agent} was not found"))
}

/// The objects of the one repository that there is a mirror of.
fn mirror(data: &Path) -> Result<String, String> {
    let mirrors = fs::read_dir(data.join("mirrors")).map_err(|e| e.to_string())?;
    let objects = mirrors.flatten().map(|e| e.path().join("objects")).find(|p| p.is_dir());
    objects.map(|p| p.display().to_string()).ok_or_else(|| "there is no mirror".to_owned())
}

/// What a cell's words are to an agent in it.
pub fn words_inside(mut words: Words) -> Words {
    for (word, value) in [
        ("init", "1"),
        ("neighbour", "/cell/home/bystander"),
        ("hidden_homes", "/.homes"),
        ("record", "/cell/.lazarus"),
        ("program", "/run/lazarus/lazarus"),
        ("remountable", "/usr"),
        ("covered", "/.homes"),
        ("objects", OBJECTS_IN_CELL),
    ] {
        words.insert(word, Ok(value.to_owned()));
    }
    words.insert("view", Err("it is no observer".to_owned()));
    words
}

pub async fn summon(world: &World, command: &str) -> (i64, String) {
    let issue = world.reader().open_issue(command, "Please.").await;
    world.director().comment(issue, command).await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    (issue, cell)
}

fn rows(
    bare: &Verdicts,
    ours: &Verdicts,
    bwrap: &Result<Verdicts, String>,
    docker: &Result<Verdicts, String>,
) -> Vec<Row> {
    let of = |column: &Result<Verdicts, String>, index: usize| match column {
        Ok(verdicts) => verdicts[index].clone(),
        Err(why) => Verdict::NotRun(why.clone()),
    };
    every()
        .enumerate()
        .map(|(index, (class, attempt))| {
            // What was stopped counts only if it is known to succeed elsewhere.
            let shown = |verdict: Verdict| match (&verdict, &bare[index]) {
                (Verdict::Stopped(_), Verdict::Stopped(how)) => Verdict::NotRun(needs(how)),
                (Verdict::Stopped(_), Verdict::NotRun(why)) => Verdict::NotRun(why.clone()),
                _ => verdict,
            };
            Row {
                class,
                name: attempt.name,
                ours: shown(ours[index].clone()),
                bwrap: shown(of(bwrap, index)),
                docker: shown(of(docker, index)),
            }
        })
        .collect()
}

/// Why an attempt fails on the bare host.
fn needs(how: &str) -> String {
    if how.starts_with("ENOSYS") || how.starts_with("ENOENT") || how.starts_with("ENODEV") || how.starts_with("ENXIO") {
        format!("this host has no such thing ({how})")
    } else if !is_root() && (how.starts_with("EPERM") || how.starts_with("EACCES")) {
        format!("it takes root on the bare host too ({how})")
    } else {
        format!("it fails on the bare host too ({how})")
    }
}

fn print(rows: &[Row], bare: &Verdicts, ours: &Verdicts) {
    let list: Vec<Value> = rows
        .iter()
        .map(|r| {
            json!({"attempt": r.name, "class": r.class, "ours": r.ours.word(), "bwrap": r.bwrap.word(), "docker": r.docker.word()})
        })
        .collect();
    let mut text = format!("{:<62} {:<10} {:<10} {:<10} how ours stopped it\n", "attempt", "ours", "bwrap", "docker");
    let mut class = "";
    for (index, row) in rows.iter().enumerate() {
        if row.class != class {
            class = row.class;
            let _ = writeln!(text, "{class}");
        }
        let short = |v: &Verdict| v.word().split(':').next().unwrap_or_default().to_owned();
        let _ = writeln!(
            text,
            "  {:<60} {:<10} {:<10} {:<10} {}",
            row.name,
            short(&row.ours),
            short(&row.bwrap),
            short(&row.docker),
            if row.ours.was_stopped() { ours[index].to_string() } else { row.ours.to_string() },
        );
        if env::var_os("LAZARUS_ESCAPE_VERBOSE").is_some() {
            let _ = writeln!(text, "      bare {}; bwrap {}; docker {}", bare[index], row.bwrap, row.docker);
        }
    }
    let count = |pick: fn(&Row) -> &Verdict, test: fn(&Verdict) -> bool| rows.iter().filter(|r| test(pick(r))).count();
    for (name, pick) in
        [("ours", (|r| &r.ours) as fn(&Row) -> &Verdict), ("bwrap", |r| &r.bwrap), ("docker", |r| &r.docker)]
    {
        let (stopped, escaped) = (count(pick, Verdict::was_stopped), count(pick, Verdict::has_escaped));
        let _ =
            writeln!(text, "{name}: {stopped} stopped, {escaped} escaped, {} not run", rows.len() - stopped - escaped);
    }
    println!("{text}");
    fs::write(isolated_run::result(), Value::Array(list).to_string()).unwrap();
}

/// Writes the tables of the runs into the target directory and, where it is
/// asked for, as Markdown.
pub fn keep(performances: &[Performance]) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("escape");
    fs::create_dir_all(&target).unwrap();
    let mut tables = vec![];
    for (index, performance) in performances.iter().enumerate() {
        // A run that failed early has none.
        let Ok(table) = serde_json::from_str::<Value>(&performance.result) else { continue };
        let name = if index == 0 { "table.json" } else { "table-user.json" };
        fs::write(target.join(name), format!("{table:#}\n")).unwrap();
        println!("{} ({})", target.join(name).display(), performance.user);
        tables.push((performance.user, table));
    }
    if let Some(path) = env::var_os("LAZARUS_ESCAPE_MARKDOWN") {
        fs::write(path, as_markdown(&tables)).unwrap();
    }
}

/// One table: ours as each user, the others as the first. Reasons below it.
fn as_markdown(tables: &[(&str, Value)]) -> String {
    let mut reasons: Vec<String> = vec![];
    let mut short = |word: &str| match word.split_once(": ") {
        None => word.to_owned(),
        Some((_, why)) => {
            // What differs is in the brackets.
            let why = why.split(" (").next().unwrap_or(why).to_owned();
            let index = reasons.iter().position(|r| *r == why).unwrap_or_else(|| {
                reasons.push(why);
                reasons.len() - 1
            });
            format!("– ({})", index + 1)
        }
    };
    let Some((_, first)) = tables.first() else { return String::new() };
    let ours: Vec<String> = tables.iter().map(|(user, _)| format!("ours, as {user}")).collect();
    let mut text =
        format!("| attempt | {} | bwrap | docker |\n| --- |{}\n", ours.join(" | "), " --- |".repeat(ours.len() + 2));
    let mut class = String::new();
    for (index, row) in first.as_array().into_iter().flatten().enumerate() {
        let of = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().replace('|', "\\|");
        if of(row, "class") != class {
            class = of(row, "class");
            let _ = writeln!(text, "| **{class}** |{}", " |".repeat(ours.len() + 2));
        }
        let _ = write!(text, "| {} |", of(row, "attempt"));
        for (_, table) in tables {
            let _ = write!(text, " {} |", short(&of(&table[index], "ours")));
        }
        let _ = writeln!(text, " {} | {} |", short(&of(row, "bwrap")), short(&of(row, "docker")));
    }
    text.push_str("\n–: not run, because\n\n");
    for (index, why) in reasons.iter().enumerate() {
        let _ = writeln!(text, "{}. {why}", index + 1);
    }
    text
}
