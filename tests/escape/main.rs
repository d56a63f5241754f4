//! Threat lines 17, 18, 21, 34, 43 and 44: programs that try to get out of a cell.
//!
//! Each attempt (one file a class; the programs are `attempts.c`) is made by an agent in a real cell, and beside it in
//! `bwrap` and in a container, and is checked from outside wherever it leaves a
//! trace. Before that it is made on the host with nothing around it, where it
//! has to succeed: none passes because it is broken. What cannot be shown so on
//! this host is `not run`, with the reason. Calls that would do harm get
//! arguments that the kernel refuses by itself, after it asked for the right:
//! for them `escaped` means that this other error came back.
//!
//! Every test here starts itself again in a stage of its own (a network with
//! addresses of a LAN in it, a key in the session's keyring, a descriptor of `/`
//! left open), as root and as an ordinary user; started by an ordinary user, as
//! that one alone. Some do so on a host where `bwrap` makes the walls.
//!
//! The tables: `target/escape/table.json` (of the most powerful user that it ran
//! as) and `table-user.json`; as Markdown in the file that
//! `LAZARUS_ESCAPE_MARKDOWN` names. `LAZARUS_ESCAPE_VERBOSE` prints what each
//! column said.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod attempt;
mod capabilities;
mod confined_git;
mod container;
mod descriptors;
mod devices;
mod files;
mod host_fixture;
mod ipc;
mod isolated_run;
mod isolation_fallback;
mod kernel;
mod mounts;
mod namespaces;
mod network;
mod observer;
mod other_cells;
mod out_of_date;
mod out_of_sight;
mod own_home;
mod processes;
mod programs;
mod residue;
mod sandbox_under_test;
mod secrets;
mod table;
mod toolchains;
mod weaker_host;

use lazarus_testkit as world;

#[test]
fn threat_17_a_secret_of_the_host_is_found_nowhere_in_a_cell() {
    isolated_run::perform("secrets::an_agent_that_looks_everywhere_finds_its_own_alone", &[]);
}

#[test]
fn threat_17_a_secret_of_the_host_is_found_nowhere_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("secrets::an_agent_that_looks_everywhere_finds_its_own_alone");
}

#[test]
fn threat_18_nothing_gets_out_of_a_cell() {
    let tables = isolated_run::perform_for_result("table::every_attempt_in_every_column", &[]);
    table::keep(&tables);
    isolated_run::passed(&tables);
}

#[test]
fn threat_18_nothing_else_is_open_to_a_cell_in_the_hosts_network() {
    isolated_run::perform("other_cells::nothing_but_the_network_is_open", &[]);
}

#[test]
fn threat_18_nothing_gets_out_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("other_cells::nothing_is_open_where_bwrap_makes_the_walls");
}

#[test]
fn threat_18_a_link_that_an_agent_left_in_its_home_leads_nowhere() {
    isolated_run::perform("own_home::a_link_that_was_left_leads_nowhere", &[]);
}

#[test]
fn threat_18_a_link_that_an_agent_left_leads_nowhere_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("own_home::a_link_that_was_left_leads_nowhere");
}

#[test]
fn threat_21_nothing_of_a_cell_is_left_after_its_end() {
    isolated_run::perform("residue::what_does_not_want_to_end_ends_with_the_cell", &[]);
}

#[test]
fn threat_21_nothing_is_left_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("residue::what_does_not_want_to_end_ends_with_the_cell");
}

#[test]
fn threat_34_a_host_without_user_namespaces_says_so_and_starts_nothing_weaker() {
    isolated_run::perform("weaker_host::without_user_namespaces", &["no-userns"]);
}

#[test]
fn threat_34_a_host_without_landlock_says_so_and_starts_nothing_weaker() {
    isolated_run::perform("weaker_host::without_landlock", &["no-landlock"]);
}

#[test]
fn threat_34_a_host_without_seccomp_says_so_and_starts_nothing_weaker() {
    isolated_run::perform("weaker_host::without_seccomp", &["no-seccomp"]);
}

#[test]
fn threat_34_a_host_without_git_or_docker_says_so_and_starts_nothing() {
    isolated_run::perform("weaker_host::without_git", &[]);
}

#[test]
fn threat_43_nothing_is_started_where_cells_would_see_what_is_ours() {
    isolated_run::perform("out_of_sight::nothing_is_started", &[]);
}

#[test]
fn threat_43_what_is_moved_into_sight_is_covered() {
    isolated_run::perform("out_of_sight::what_is_moved_there_while_the_daemon_runs_is_covered", &[]);
}

#[test]
fn threat_43_what_is_moved_into_sight_is_covered_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("out_of_sight::what_is_moved_there_while_the_daemon_runs_is_covered");
}

#[test]
fn threat_43_what_is_moved_into_sight_is_out_of_reach_at_level_1() {
    isolated_run::perform_at_level_1("out_of_sight::what_is_moved_there_while_the_daemon_runs_is_covered");
}

#[test]
fn threat_43_no_process_of_a_cell_gives_orders() {
    isolated_run::perform("out_of_sight::no_process_of_a_cell_gives_orders", &[]);
}

#[test]
fn threat_44_files_of_the_system_that_are_replaced_fail_no_mission() {
    isolated_run::perform_with_an_own_etc("out_of_date::files_of_the_system_are_replaced");
}

#[test]
fn threat_44_a_program_that_is_replaced_goes_on_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung(
        "out_of_date::the_program_is_replaced_where_cells_have_no_root_of_their_own",
    );
}

#[test]
fn threat_44_a_program_that_is_replaced_goes_on_at_level_1() {
    isolated_run::perform_at_level_1("out_of_date::the_program_is_replaced_where_cells_have_no_root_of_their_own");
}

#[test]
fn threat_44_a_full_disk_delays_a_start_and_fails_no_mission() {
    isolated_run::perform_as_root_in_its_own_mounts("out_of_date::a_full_disk_delays_a_start");
}

#[test]
fn programs_meet_limits_of_what_they_use_and_can_see_them() {
    isolated_run::perform("programs::limits_are_of_what_is_used_and_runtimes_see_them", &[]);
}

#[test]
fn programs_find_the_files_and_places_that_they_expect() {
    isolated_run::perform("programs::a_cell_has_the_files_and_places_that_programs_expect", &[]);
}

#[test]
fn programs_find_the_files_and_places_that_they_expect_where_bwrap_makes_the_walls() {
    isolated_run::perform_on_the_second_rung("programs::a_cell_has_the_files_and_places_that_programs_expect");
}

#[test]
fn programs_that_a_profile_shows_come_first_and_what_is_missing_is_named() {
    isolated_run::perform("programs::shown_programs_come_first_and_what_is_missing_is_named", &[]);
}

#[test]
fn programs_may_trace_their_own_children_where_the_profile_says_so() {
    isolated_run::perform("programs::tracing_is_of_ones_own_children_and_by_profile_alone", &[]);
}

#[test]
#[ignore = "`make toolchains` runs it: it takes minutes and fetches from the registries"]
fn toolchains_build_and_test_small_projects() {
    toolchains::prove();
}
