//! A row of the registry that cannot be read is an error with a name, for its
//! mission alone: never taken for an empty one, and never in the way of others.

use crate::world::{Kind, World, WorldOptions};
use rusqlite::{Connection, params};
use serde_json::Value;

/// The registry, changed behind the daemon's back.
struct Registry(Connection);

impl Registry {
    fn of(world: &World) -> Self {
        let connection = Connection::open(world.data().join("registry.sqlite")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        Self(connection)
    }

    fn get(&self, table: &str, column: &str, key: (&str, &str)) -> String {
        let sql = format!("SELECT {column} FROM {table} WHERE {} = ?", key.0);
        self.0.query_row(&sql, [key.1], |row| row.get(0)).unwrap()
    }

    /// Writes a value and gives back the one before.
    fn spoil(&self, table: &str, column: &str, key: (&str, &str), value: &str) -> String {
        let before = self.get(table, column, key);
        self.put(table, column, key, value);
        before
    }

    fn put(&self, table: &str, column: &str, key: (&str, &str), value: &str) {
        let sql = format!("UPDATE {table} SET {column} = ? WHERE {} = ?", key.0);
        assert_eq!(self.0.execute(&sql, params![value, key.1]).unwrap(), 1, "{table}.{column} of {}", key.1);
    }

    fn not_decided(&self) -> i64 {
        self.0.query_row("SELECT COUNT(*) FROM ledger WHERE action = 'not_decided'", [], |row| row.get(0)).unwrap()
    }
}

/// An issue with a cell in which a sleeper runs.
async fn running_cell(world: &World, title: &str) -> (i64, String) {
    let issue = world.reader().open_issue(title, "sleeps").await;
    world.director().comment(issue, "/summon sleeper").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["active"]).await;
    world.assert_settled(issue).await;
    (issue, cell)
}

fn ids(cells: &Value) -> Vec<&str> {
    cells.as_array().into_iter().flatten().filter_map(|cell| cell["cell_id"].as_str()).collect()
}

/// That a command on the other mission does what it always does.
async fn assert_goes_on(world: &World, issue: i64) {
    let said = world.director().comment(issue, "/extend 1m").await;
    world.wait_for_reaction(issue, said, "+1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cell_is_named_and_the_others_go_on() {
    for (column, value) in [("facts", "{\"running\": 7"), ("data", "{}"), ("data", "")] {
        let mut world = World::new("damaged-cell").await;
        let (damaged, cell) = running_cell(&world, "Damaged").await;
        let (whole, other) = running_cell(&world, "Whole").await;
        let registry = Registry::of(&world);
        let key = ("id", cell.as_str());
        let before = registry.spoil("cells", column, key, value);

        let listed = world.cli(&["status", "--json"]);
        assert!(!listed.status.success(), "a registry that is damaged is no success: {}", listed.all());
        let listed = listed.json();
        assert_eq!((listed["success"].clone(), ids(&listed["active_cells"])), (false.into(), vec![other.as_str()]));
        assert_eq!(ids(&listed["damaged"]), [cell.as_str()]);
        assert_eq!(listed["damaged"][0]["project"], world.mission(damaged).as_str());
        for said in
            [world.cli(&["status"]), world.cli(&["status", &cell]), world.cli(&["status", &world.mission(damaged)])]
        {
            assert!(!said.status.success() && said.all().contains(&cell), "{}", said.all());
            assert!(said.all().contains("cannot be read"), "{}", said.all());
        }
        assert!(world.cli(&["status", &other]).status.success());

        // Whoever commands is told, at once, and nothing is done.
        let closed = world.cli(&["close", &cell, "--json"]);
        assert!(!closed.status.success(), "{}", closed.all());
        let message = closed.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("cannot be read") && message.contains(&cell), "{message}");
        let said = world.director().comment(damaged, "/extend 1m").await;
        world.wait_for_reaction(damaged, said, "confused").await;
        let told = world.wait_for_comment(damaged, Kind::Refusal, |_| true).await;
        assert!(told.says(&["cannot be read", "give the command again"]), "{}", told.body);
        assert!(registry.not_decided() >= 2, "both are on record");
        assert_goes_on(&world, whole).await;

        // A daemon that starts takes up the others.
        world.daemon().kill_9();
        world.daemon().start().await;
        assert_goes_on(&world, whole).await;
        assert_eq!(registry.get("cells", column, key), value, "nobody wrote over it");

        registry.put("cells", column, key, &before);
        world.daemon().restart().await;
        let again = world.cli(&["close", &cell]);
        assert!(again.status.success(), "mended, it is a cell like any other: {}", again.all());
        world.wait_for_comment(damaged, Kind::CloseLog, |log| log.cell() == cell).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_of_a_damaged_cell_keeps_nobody_busy() {
    let world = World::new("damaged-deadline").await;
    let (damaged, cell) = running_cell(&world, "Damaged").await;
    let (whole, _) = running_cell(&world, "Whole").await;
    let registry = Registry::of(&world);
    let key = ("id", cell.as_str());
    let data = registry.spoil("cells", "data", key, "no JSON");
    for (spoilt, on_record) in [("data", 1), ("deadline_kind", 1)] {
        let kind = registry.get("cells", "deadline_kind", key);
        if spoilt == "deadline_kind" {
            registry.put("cells", "deadline_kind", key, "\"never\"");
        }
        registry.put("cells", "deadline", key, "1");
        assert_goes_on(&world, whole).await;
        world
            .wait_until("the deadline to be put off", damaged, async || {
                let sql = "SELECT deadline FROM cells WHERE id = ?";
                let at: i64 = registry.0.query_row(sql, [&cell], |row| row.get(0)).unwrap();
                (at > jiff::Timestamp::now().as_millisecond()).then_some(())
            })
            .await;
        world.assert_quiet(whole).await;
        assert_eq!(registry.not_decided(), on_record, "once, and not again and again");
        registry.put("cells", "deadline_kind", key, &kind);
    }
    registry.put("cells", "data", key, &data);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_mission_does_not_stop_the_look_at_its_repository() {
    let world = World::with("damaged-mission", WorldOptions::polled()).await;
    let (damaged, cell) = running_cell(&world, "Damaged").await;
    let (whole, _) = running_cell(&world, "Whole").await;
    let registry = Registry::of(&world);
    let mission = registry.get("cells", "mission", ("id", &cell));
    let before = registry.spoil("missions", "state", ("id", &mission), "[]");
    world.remove_hooks().await;
    // Found by polling alone.
    assert_goes_on(&world, whole).await;
    let said = world.director().comment(damaged, "/extend 1m").await;
    world.wait_for_reaction(damaged, said, "confused").await;
    let shown = world.cli(&["status"]).stdout;
    assert!(shown.contains(&world.mission(damaged)), "it still has its name:\n{shown}");
    registry.put("missions", "state", ("id", &mission), &before);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_fact_about_the_installation_is_named_at_the_start() {
    for (key, words) in [("bot", "record of the bot's account"), ("clock", "mark of the clock")] {
        let mut world = World::new("damaged-meta").await;
        let issue = world.reader().open_issue("Nothing", "here").await;
        world.assert_settled(issue).await;
        world.daemon().stop().await;
        let registry = Registry::of(&world);
        let before = registry.spoil("meta", "value", ("key", key), "{");
        let served = world.cli(&["serve"]);
        assert!(!served.status.success() && served.all().contains(words), "{}", served.all());
        registry.put("meta", "value", ("key", key), &before);
        world.daemon().start().await;
        world.finish().await;
    }
}
