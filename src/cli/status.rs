//! `lazarus status` and `lazarus logs`: straight from the registry and the
//! log files, with the daemon running or not.

use super::{Said, operate};
use crate::cell::{At, Identity, State};
use crate::config::Config;
use crate::operations::{Answer, CellView, CellsAnswer, Form, MemberView, Reader, Request, Time, Which, printable};
use comfy_table::{ContentArrangement, Table, presets};
use std::fmt::Write as _;

/// How much of the end of a log is looked through for its last line, in bytes.
const LAST_LINE: u64 = 4096;
/// Cells up to which each agent's last line is shown.
const WITH_LINES_MAX: usize = 50;

/// What is asked for: all cells, one, or a mission's.
///
/// # Errors
/// Where the target is neither.
pub fn request(target: Option<&str>, all: bool) -> anyhow::Result<Request> {
    let which = match target {
        None if all => Which::All,
        None => Which::Live,
        Some(text) if text.contains('#') => Which::Of(text.parse()?),
        Some(text) if text.starts_with("laz-") => return Ok(Request::ShowCell { cell: operate::cell(text)? }),
        Some(text) => {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
            anyhow::bail!(
                "TARGET {shown}: a cell, as in laz-abcdefghijklmnop, or a mission, OWNER/REPO#N, as in acme/widget#7"
            )
        }
    };
    Ok(Request::ListCells { which })
}

/// Says how cells stand.
pub fn run(config: &Config, target: Option<&str>, all: bool, json: bool) -> anyhow::Result<Said> {
    let request = request(target, all)?;
    let reader = Reader::of(config)?;
    let answer = reader.answer(&request)?;
    let form = if matches!(request, Request::ShowCell { .. }) { Form::OneCell } else { Form::Cells };
    if json {
        return Ok(Said { success: answer.success(), text: answer.to_json(form).to_string() });
    }
    let success = answer.success();
    let text = match answer {
        Answer::Cell { cell, .. } => one(&reader, &cell),
        Answer::Cells(cells) => list(&reader, &cells),
        answer => answer.message(),
    };
    Ok(Said { success, text })
}

fn one(reader: &Reader, cell: &CellView) -> String {
    let mut out = table(reader, std::slice::from_ref(cell));
    let _ = write!(out, "\n{}", cell.probe);
    for (name, value) in [
        ("commit", &cell.commit),
        ("branch", &cell.branch),
        ("pull request", &cell.pull_request),
        ("reason", &cell.reason),
    ] {
        if let Some(value) = value {
            let _ = write!(out, "\n{name}: {}", printable(value));
        }
    }
    out
}

fn list(reader: &Reader, answer: &CellsAnswer) -> String {
    let mut out = table(reader, &answer.listing.cells);
    for cell in &answer.listing.damaged {
        let _ = write!(out, "\n{}  {}  {}", printable(&cell.cell_id), cell.project, printable(&cell.error));
    }
    let CellsAnswer { live, over, inputs, effects, daemon, head, .. } = answer;
    let _ = write!(
        out,
        "\n{live} live, {over} over; {inputs} inputs and {effects} effects wait; the daemon {}; ledger at {}",
        if *daemon { "runs" } else { "does not run" },
        head.seq
    );
    for waits in &answer.waiting {
        let _ = write!(out, "\ntried again: {waits}");
    }
    out
}

/// A header, and a row for each cell; below each that works, the last line that
/// its agents printed.
fn table(reader: &Reader, cells: &[CellView]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["CELL", "MISSION", "STATE", "SINCE", "ISOLATION", "TIME LEFT", "AGENTS"]);
    for cell in cells {
        let state = match cell.outcome {
            Some(outcome) if !cell.state.is_live() => format!("{} ({outcome})", cell.state),
            _ => cell.state.to_string(),
        };
        let members: Vec<String> =
            cell.members.iter().filter(|m| m.state != "gone").map(|m| doing(m, cell.state, reader.now)).collect();
        table.add_row([
            cell.cell_id.to_string(),
            cell.project.clone(),
            state,
            cell.since.map_or_else(|| "unknown".to_owned(), |at| moment(at, reader.now)),
            cell.isolation.map_or("not started", |isolation| isolation.word()).to_owned(),
            time_left(cell, reader.now),
            if members.is_empty() { "nobody yet".to_owned() } else { members.join("; ") },
        ]);
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    if cells.is_empty() {
        lines.push("no cells".to_owned());
    }
    if cells.len() <= WITH_LINES_MAX {
        // The rows follow the header, one each.
        for (index, cell) in cells.iter().enumerate().rev() {
            let last = last_lines(reader, cell);
            let at = (index + 2).min(lines.len());
            lines.splice(at..at, last);
        }
    }
    lines.join("\n")
}

/// The last thing that each agent of a cell that works printed.
fn last_lines(reader: &Reader, cell: &CellView) -> Vec<String> {
    if !cell.state.has_processes() {
        return vec![];
    }
    let agents = cell.members.iter().filter_map(|member| match &member.identity {
        Identity::Agent(name) if member.run.is_some() => Some(name),
        _ => None,
    });
    agents
        .filter_map(|agent| {
            let log = reader.log(&cell.cell_id, agent, LAST_LINE).ok()?;
            let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
            let line: String = printable(line).chars().take(100).collect();
            Some(format!("    {agent} last said: {line}"))
        })
        .collect()
}

/// Who, as what, and what they are doing.
fn doing(member: &MemberView, state: State, now: At) -> String {
    let who = format!("{} ({})", member.identity, member.role);
    let at = |words: &str, time: Option<Time>| match time {
        Some(time) => format!("{words} {}", moment(time.0, now)),
        // Of runs from before it was kept there is no time.
        None => words.split(' ').next().unwrap_or_default().to_owned(),
    };
    let what = match &member.run {
        _ if member.state == "invited" => "invited".to_owned(),
        None if matches!(member.identity, Identity::Agent(_)) => "waiting".to_owned(),
        None => return who,
        Some(run) if run.state == "running" => match state {
            State::Paused | State::Downed | State::Checkpointing => "frozen".to_owned(),
            State::Preparing => "being started".to_owned(),
            _ => at("running since", run.started_at),
        },
        Some(run) => {
            let how = match (run.exit_code, run.signal) {
                (Some(code), _) => format!("exit {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => String::new(),
            };
            let note = run.note.as_deref().map(printable).unwrap_or_default();
            let how: Vec<&str> = [how.as_str(), note.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
            let words = match run.success {
                Some(true) if state.is_live() => "idle since",
                Some(true) => "ended at",
                _ => "dead since",
            };
            let how = if how.is_empty() { String::new() } else { format!(": {}", how.join(", ")) };
            format!("{}{how}", at(words, run.ended_at))
        }
    };
    format!("{who} {what}")
}

/// A point in time: of today the hour alone.
fn moment(at: At, now: At) -> String {
    let (Ok(time), Ok(today)) = (jiff::Timestamp::from_millisecond(at.0), jiff::Timestamp::from_millisecond(now.0))
    else {
        return "never".to_owned();
    };
    let day = |time: jiff::Timestamp| time.strftime("%Y-%m-%d").to_string();
    let form = if day(time) == day(today) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    time.strftime(form).to_string()
}

fn time_left(cell: &CellView, now: At) -> String {
    if cell.expired {
        return "none: expired".to_owned();
    }
    match cell.expires_at {
        Some(until) if cell.state.is_live() => duration_words(until.0.0.saturating_sub(now.0)),
        None if cell.state.is_live() => format!("{} once it starts", duration_words(cell.ttl_minutes as i64 * 60_000)),
        _ => "–".to_owned(),
    }
}

/// A duration in its two largest units.
fn duration_words(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    let parts = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("min", seconds / 60 % 60), ("s", seconds % 60)];
    let first = parts.iter().position(|(_, n)| *n > 0).unwrap_or(3);
    let words: Vec<String> =
        parts[first..].iter().take(2).filter(|(_, n)| *n > 0).map(|(unit, n)| format!("{n} {unit}")).collect();
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

/// The logs of a cell's agents.
pub fn logs(config: &Config, cell: &str, agent: Option<&str>, tail: u64, json: bool) -> anyhow::Result<Said> {
    let request = Request::ReadLogs { cell: operate::cell(cell)?, agent: agent.map(str::to_owned), tail };
    let answer = Reader::of(config)?.answer(&request)?;
    if json {
        return Ok(Said::done(answer.to_json(Form::OneCell).to_string()));
    }
    let Answer::Logs { logs, .. } = answer else { return Ok(Said::done(answer.message())) };
    let mut out = String::new();
    for (name, text) in logs {
        let _ = write!(out, "==> {name}\n{text}");
        if !text.is_empty() && !text.ends_with('\n') {
            out.push('\n');
        }
    }
    Ok(Said::done(out.trim_end_matches('\n').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_its_two_largest_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (3 * 3600 + 12 * 60 + 40, "3 h 12 min"),
            (86_400 * 2 + 3600 * 3, "2 d 3 h"),
        ] {
            assert_eq!(duration_words(seconds * 1000), words);
        }
    }

    #[test]
    fn a_moment_of_today_needs_no_date() {
        let now = At(1_764_208_860_000);
        assert_eq!(moment(now, now), "02:01 UTC");
        assert_eq!(moment(now.plus(-86_400_000), now), "2025-11-26 02:01 UTC");
    }
}
