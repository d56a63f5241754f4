//! The stand-in and a real server, told the same and compared: each scene is
//! played by the same people with the same calls, and what is said and
//! delivered must be the same, field by field.
//!
//! What real servers did is kept in `wiremock-fixtures/twins.*.json`, so that
//! `make test` compares without one. With `FORGE_URL` and `FORGE_ADMIN_TOKEN`
//! the real server plays the scenes and is compared too; with `TWINS_RECORD=1`
//! besides, what it said is written down anew:
//!
//! ```sh
//! FORGE_URL=http://127.0.0.1:3000 FORGE_ADMIN_TOKEN=… TWINS_RECORD=1 cargo test --test standin twins
//! ```
//!
//! Numbers, times, hashes and addresses differ between servers; they are
//! replaced by words that still tell which is which (`user-1`, `team-2`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::scenes;
use crate::twin::{self, Twin, differences};
use lazarus_standin::Flavour;
use serde_json::Value;

fn kept(flavour: Flavour) -> PathBuf {
    let server = match flavour {
        Flavour::Gitea => "gitea-1.25.4",
        Flavour::Forgejo => "forgejo-12",
    };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wiremock-fixtures").join(format!("twins.{server}.json"))
}

type Kept = BTreeMap<String, Vec<Value>>;

fn read(flavour: Flavour) -> Kept {
    match std::fs::read_to_string(kept(flavour)) {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(_) => Kept::new(),
    }
}

/// Held while the file of recordings is rewritten: scenes run side by side.
static RECORDING: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn record(flavour: Flavour, scene: &str, steps: &[Value]) {
    let _guard = RECORDING.lock().unwrap();
    let mut all = read(flavour);
    all.insert(scene.to_owned(), steps.to_vec());
    std::fs::write(kept(flavour), serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
}

/// Plays a scene on the stand-in, and on the real server if one is named.
async fn play(name: &str, scene: impl AsyncFn(&mut Twin)) {
    let real = twin::real();
    if let Some((url, token)) = &real {
        let mut twin = Twin::real(url, token).await;
        scene(&mut twin).await;
        let (flavour, steps) = (twin.flavour, twin.end().await);
        if std::env::var_os("TWINS_RECORD").is_some() {
            record(flavour, name, &steps);
        }
        let found = differences(read(flavour).get(name).map(Vec::as_slice).unwrap_or_default(), &steps);
        assert!(found.is_empty(), "{name}: the real {flavour:?} differs from its recording:\n{}", found.join("\n"));
    }
    for flavour in [Flavour::Gitea, Flavour::Forgejo] {
        let Some(recorded) = read(flavour).remove(name) else {
            assert_ne!(flavour, Flavour::Gitea, "nothing is recorded of the scene {name}");
            continue;
        };
        let mut twin = Twin::stand_in(flavour).await;
        scene(&mut twin).await;
        let steps = twin.end().await;
        let found = differences(&recorded, &steps);
        assert!(
            found.is_empty(),
            "{name}: the stand-in differs from {flavour:?} in {} places:\n{}",
            found.len(),
            found.join("\n")
        );
    }
}

macro_rules! scenes {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            play(stringify!($name), scenes::$name).await;
        }
    )*};
}

scenes![
    organisations_and_teams_are_shown_to_insiders_and_hidden_from_outsiders,
    organisations_and_teams_are_renamed_deleted_and_their_names_taken_by_others,
    people_are_renamed_and_their_names_taken_by_others,
    repositories_are_renamed_and_transferred_and_their_names_taken_by_others,
    hooks_have_their_own_secrets_and_never_show_them,
    labels_are_renamed_deleted_and_made_again,
    texts_are_edited_restored_and_deleted,
    a_migration_brings_words_that_nobody_here_wrote,
    branches_files_and_pull_requests_take_slashes_and_refuse_mistakes,
    people_are_let_in_locked_out_and_told_what_they_may,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_pages_hold_what_the_forge_wants_whatever_is_asked_for() {
    if !twin::real_has_pages_of(20).await {
        return eprintln!("SKIPPED on this server: start one with `[api] MAX_RESPONSE_ITEMS = 20`");
    }
    play(
        "small_pages_hold_what_the_forge_wants_whatever_is_asked_for",
        scenes::small_pages_hold_what_the_forge_wants_whatever_is_asked_for,
    )
    .await;
}
