//! Small real projects, built and tested in a cell of `level_2` by the toolchains that this machine has (`make
//! toolchains`). What they depend on comes from the registries beforehand and lies in a directory that the cell sees:
//! the cell has no network. Writes `target/toolchains/table.json`.

use crate::isolated_run::{self, Performance};
use crate::world::{Kind, World, WorldOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A project: its files, what it needs beforehand, and what is run in a cell.
struct Project {
    name: &'static str,
    /// Programs without which it is not tried.
    needs: &'static [&'static str],
    /// Run once on the host, in the project's own directory: fetches what it depends on. Fails where it cannot.
    prepare: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// Run in a copy of that directory in a cell. It is well if this ends with 0.
    run: &'static str,
    /// Further keys of the agent's profile.
    profile: &'static str,
}

const PROJECTS: &[Project] = &[
    Project {
        name: "gcc with AddressSanitizer and UBSan",
        needs: &["gcc", "make"],
        prepare: "true",
        files: &[
            (
                "Makefile",
                "test: t\n\t./t\nt: t.c\n\tgcc -g -fsanitize=address,undefined -fno-sanitize-recover -o t t.c\n",
            ),
            (
                "t.c",
                "#include <stdlib.h>\n#include <string.h>\nint main(void) { char *p = malloc(10); strcpy(p, \"fine\"); \
                 int r = strcmp(p, \"fine\"); free(p); return r; }\n",
            ),
        ],
        run: "make test && printf '#include <stdlib.h>\\nint main(int n, char **a) { char *p = malloc(n); p[n] = 1; \
              return p[0]; }' > bad.c && gcc -fsanitize=address -o bad bad.c && ! ./bad 2> said && \
              grep heap-buffer-overflow said",
        profile: "",
    },
    Project {
        name: "gcc with ThreadSanitizer and LeakSanitizer, where the profile lets it trace",
        needs: &["gcc"],
        prepare: "true",
        files: &[(
            "t.c",
            "#include <pthread.h>\n#include <stdlib.h>\nvoid *f(void *x) { return x; }\nint main(void) { pthread_t t; \
             pthread_create(&t, 0, f, 0); return pthread_join(t, 0); }\n",
        )],
        run: "gcc -fsanitize=thread -o t t.c && ./t && gcc -fsanitize=address -o t t.c && ./t && \
              printf '#include <stdlib.h>\\nint main(void) { volatile char *p = malloc(9); p = 0; return 0; }' > leak.c && \
              gcc -fsanitize=address -o leak leak.c && ! ./leak 2> said && grep 'detected memory leaks' said",
        profile: "ptrace = true",
    },
    Project {
        name: "cargo, with a crate from the registry",
        needs: &["cargo"],
        prepare: "cargo vendor vendored > config.new && mkdir -p .cargo && mv config.new .cargo/config.toml",
        files: &[
            (
                "Cargo.toml",
                "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"1\"\n",
            ),
            ("src/lib.rs", "#[test]\nfn prints() { assert_eq!(itoa::Buffer::new().format(7), \"7\"); }\n"),
        ],
        run: "cargo test --offline",
        profile: "",
    },
    Project {
        name: "go, with a module from the proxy and the race detector",
        needs: &["go"],
        prepare: "go mod tidy && go mod vendor",
        files: &[
            ("go.mod", "module example.test/small\n\ngo 1.21\n\nrequire github.com/google/uuid v1.6.0\n"),
            (
                "small_test.go",
                "package small\n\nimport (\n\t\"testing\"\n\n\t\"github.com/google/uuid\"\n)\n\nfunc TestIt(t *testing.T) \
                 {\n\tdone := make(chan string)\n\tgo func() { done <- uuid.NewString() }()\n\tif len(<-done) != 36 \
                 {\n\t\tt.Fatal(\"no uuid\")\n\t}\n}\n",
            ),
        ],
        run: "go test -mod=vendor ./... && CGO_ENABLED=1 go test -race -mod=vendor ./...",
        profile: "",
    },
    Project {
        name: "node with npm",
        needs: &["node", "npm"],
        prepare: "npm pack --silent is-number@7.0.0",
        files: &[
            (
                "package.json",
                "{\"name\": \"small\", \"version\": \"1.0.0\", \"scripts\": {\"test\": \"node --test\"}}\n",
            ),
            (
                "small.test.js",
                "const test = require('node:test'); const assert = require('node:assert');\ntest('numbers', () => { \
                 assert.equal(require('is-number')(7), true); require('node:os').userInfo(); });\n",
            ),
        ],
        run: "npm install --offline --no-audit --no-fund ./is-number-7.0.0.tgz && npm test",
        profile: "",
    },
    Project {
        name: "python with pip and pytest",
        needs: &["/usr/bin/python3"],
        prepare: "python3 -m pip download --quiet --only-binary :all: --python-version $(/usr/bin/python3 -c 'import sys; \
                  print(\"%d.%d\" % sys.version_info[:2])') -d wheels pip pytest exceptiongroup tomli",
        files: &[(
            "test_small.py",
            "import os, pwd\ndef test_home():\n    assert pwd.getpwuid(os.getuid()).pw_dir == os.environ['HOME']\n",
        )],
        run: "/usr/bin/python3 $(ls wheels/pip-*.whl)/pip install --no-index --find-links wheels --target there pytest && \
              PYTHONPATH=there /usr/bin/python3 -m pytest -q",
        profile: "",
    },
    Project {
        name: "Java with Maven and JUnit",
        needs: &["java", "mvn"],
        prepare: "JDK_JAVA_OPTIONS='-XX:MaxRAM=2g -XX:ActiveProcessorCount=2' mvn -q -B -Dmaven.repo.local=$PWD/m2 test && rm -r target",
        files: &[
            (
                "pom.xml",
                "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
                 <groupId>t</groupId><artifactId>small</artifactId><version>1</version><properties>\
                 <maven.compiler.source>11</maven.compiler.source><maven.compiler.target>11</maven.compiler.target>\
                 <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties><dependencies>\
                 <dependency><groupId>junit</groupId><artifactId>junit</artifactId><version>4.13.2</version>\
                 <scope>test</scope></dependency></dependencies></project>\n",
            ),
            (
                "src/test/java/SmallTest.java",
                "import org.junit.Test; import static org.junit.Assert.*;\npublic class SmallTest { @Test public void \
                 fits() { assertTrue(Runtime.getRuntime().maxMemory() < (2L << 30)); \
                 assertTrue(Runtime.getRuntime().availableProcessors() <= 2); } }\n",
            ),
        ],
        run: "mvn -o -B -Dmaven.repo.local=$PWD/m2 test && echo 'class A { public static void main(String[] a) \
              { System.out.println(1); } }' > A.java && java A.java && keytool -help 2>&1 | grep -i genkeypair",
        profile: "",
    },
    Project {
        name: "headless Chromium",
        needs: &["chromium"],
        prepare: "true",
        files: &[("page.html", "<p id=p></p><script>document.getElementById('p').textContent = 6 * 7</script>\n")],
        run: "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom file://$PWD/page.html | \
              grep '>42<'",
        profile: "limits = \"processes=1000\"",
    },
    Project {
        name: "PostgreSQL with its default socket directory",
        needs: &["initdb"],
        prepare: "true",
        files: &[],
        run: "initdb -D data -A trust > /dev/null && pg_ctl -D data -w -l log start && \
              test \"$(psql -d postgres -Atc 'select 6 * 7')\" = 42 && pg_ctl -D data -m fast -w stop",
        profile: "",
    },
];

/// Where a program is, for whoever runs this; Debian keeps some off `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    places.push("/usr/local/go/bin".into());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|version| version.path().join("bin")));
    places.into_iter().map(|place| place.join(program)).find(|file| file.is_file())
}

/// What the profile has to show so that a cell finds a program.
fn shown(place: &Path, program: &str) -> Option<PathBuf> {
    if program == "cargo" {
        // Of whoever prepared this; for others it may be out of reach.
        return Some(place.join("rust"));
    }
    let file = find(program)?;
    if file.starts_with("/usr/bin") || file.starts_with("/usr/local/bin") || program.starts_with('/') {
        return None;
    }
    file.parent()?.parent().map(Path::to_owned)
}

/// Rust is in somebody's home, mostly, which others cannot enter: a copy of its toolchain can be shown to anybody.
fn copy_rust(place: &Path) -> Result<(), String> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().map_err(|e| e.to_string())?;
    let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    for (how, part) in [("bin", "bin"), ("lib", "lib")] {
        let (from, to) = (Path::new(&root).join(part), place.join("rust").join(how));
        fs::create_dir_all(to.parent().unwrap()).map_err(|e| e.to_string())?;
        // Other names of the same files where that can be: it is a gigabyte.
        let linked = Command::new("cp").arg("-al").args([&from, &to]).status().is_ok_and(|s| s.success());
        if !linked && !Command::new("cp").arg("-a").args([&from, &to]).status().is_ok_and(|s| s.success()) {
            return Err(format!("copying {} failed", from.display()));
        }
    }
    Ok(())
}

fn lay_out(place: &Path, number: usize, project: &Project) -> Result<(), String> {
    for needed in project.needs {
        let there = if needed.starts_with('/') { Path::new(needed).is_file() } else { find(needed).is_some() };
        if !there {
            return Err(format!("{needed} is not on this machine, and was not installed"));
        }
    }
    let directory = place.join(number.to_string());
    for (name, text) in project.files {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    fs::create_dir_all(&directory).unwrap();
    let script = format!(
        "cp -r {} $HOME/it && cd $HOME/it && ({}) && echo the project is well || echo it ended with $?\n",
        directory.display(),
        project.run
    );
    fs::write(directory.join("run.sh"), script).unwrap();
    if project.needs.contains(&"cargo") {
        copy_rust(place)?;
    }
    let path = format!("{}:/usr/local/go/bin", env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", project.prepare]).current_dir(&directory).env("PATH", path).output();
    let output = output.map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().rev().take(300).collect::<String>();
    let said: String = said.chars().rev().collect();
    if output.status.success() { Ok(()) } else { Err(format!("what it depends on cannot be had: {said}")) }
}

/// Where it is set, projects without this text in their name are left out.
const ONLY: &str = "LAZARUS_TOOLCHAINS_ONLY";
const PLACE: &str = "LAZARUS_TOOLCHAINS_PLACE";

/// Prepares every project once, has them built as root and as an ordinary user, and writes the table.
pub fn prove() {
    let place =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("toolchains-{}", hex::encode(isolated_run::rand::<4>())));
    crate::host_fixture::directory(&place, 0o755);
    let mut lost = serde_json::Map::new();
    for (number, project) in PROJECTS.iter().enumerate() {
        if env::var(ONLY).is_ok_and(|only| !project.name.contains(&only)) {
            lost.insert(project.name.to_owned(), "left out by LAZARUS_TOOLCHAINS_ONLY".into());
            continue;
        }
        if let Err(why) = lay_out(&place, number, project) {
            lost.insert(project.name.to_owned(), why.into());
        }
    }
    fs::write(place.join("lost.json"), Value::Object(lost).to_string()).unwrap();
    // SAFETY: this test runs alone, as `make toolchains` has it; the stages inherit it.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var(PLACE, &place);
    }
    let performances: Vec<Performance> =
        isolated_run::perform_for_result("toolchains::projects_are_built_in_a_cell", &[]);
    let mut table: Vec<Value> = vec![];
    for performance in &performances {
        let rows: Vec<Value> = serde_json::from_str(&performance.result).unwrap_or_default();
        table.extend(rows.into_iter().map(|mut row| {
            row["as"] = performance.user.into();
            row
        }));
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("toolchains");
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("table.json"), serde_json::to_string_pretty(&table).unwrap() + "\n").unwrap();
    for row in &table {
        let mark = if row["ok"] == true { "ok" } else { "FAILED" };
        println!(
            "{mark:6} {:5} {} {}",
            row["as"].as_str().unwrap(),
            row["project"].as_str().unwrap(),
            row["why"].as_str().unwrap()
        );
    }
    let _ = fs::remove_dir_all(&place);
    isolated_run::passed(&performances);
    // What cannot be had here is said; what can has to work.
    let broken: Vec<&Value> = table.iter().filter(|row| row["ok"] == false && row["tried"] == true).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let least = if env::var(ONLY).is_ok() { 1 } else { 4 };
    assert!(
        table.iter().filter(|row| row["ok"] == true).count() >= least,
        "hardly anything could be tried: {table:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make toolchains` runs it in a run of its own"]
async fn projects_are_built_in_a_cell() {
    let place = PathBuf::from(env::var_os(PLACE).expect("`make toolchains` says where"));
    let lost: Value = serde_json::from_str(&fs::read_to_string(place.join("lost.json")).unwrap()).unwrap();
    let mut config = String::new();
    for (number, project) in PROJECTS.iter().enumerate().filter(|(_, project)| lost.get(project.name).is_none()) {
        let source = place.join(number.to_string());
        let script = source.join("run.sh");
        let programs: Vec<PathBuf> = project.needs.iter().filter_map(|needed| shown(&place, needed)).collect();
        config.push_str(&format!(
            "[agents.p{number}]\ndescription = {:?}\nargv = [\"bash\", {script:?}]\nprompt = \"stdin\"\n\
             read_paths = [{source:?}]\nprograms = {programs:?}\n{}\n",
            project.name, project.profile
        ));
    }
    let world = World::with("toolchains", WorldOptions { config, ..WorldOptions::default() }).await;
    let mut rows = vec![];
    for (number, project) in PROJECTS.iter().enumerate() {
        let row =
            |ok: bool, tried: bool, why: &str| json!({"project": project.name, "ok": ok, "tried": tried, "why": why});
        if let Some(why) = lost.get(project.name) {
            rows.push(row(false, false, why.as_str().unwrap()));
            continue;
        }
        let issue = world.reader().open_issue(project.name, "Build it and test it.").await;
        world.director().comment(issue, &format!("/summon p{number}")).await;
        let first = world.wait_for_any(issue, &[Kind::SpawnLog, Kind::CloseLog], |_| true).await;
        let cell = first.cell();
        // Builds take longer than a conversation may: as long as its agent runs, and no more than five minutes.
        let began = std::time::Instant::now();
        while began.elapsed().as_secs() < 300 && world.cell_state(&cell).as_deref() == Some("active") {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        let said = world.cli(&["logs", &cell]).all();
        let ok = said.contains("the project is well");
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        let why: String = last.into_iter().rev().collect::<Vec<_>>().join("\n").chars().take(900).collect();
        rows.push(row(
            ok,
            true,
            if ok {
                "built and tested"
            } else if why.is_empty() {
                &first.body
            } else {
                &why
            },
        ));
        world.director().comment(issue, "/close").await;
        world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    }
    fs::write(isolated_run::result(), Value::Array(rows).to_string()).unwrap();
    world.finish().await;
}
