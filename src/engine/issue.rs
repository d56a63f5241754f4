//! What happens to an issue: seen, edited, labelled, closed, deleted. All of it is
//! taken from a look at the forge, never from what a delivery says of it.

use super::commands::{Asked, new_cell_id};
use super::desk::{Desk, name_of};
use super::input::{Effect, Facts, LabelEvent, Look};
use super::learn::{APPROVED, label_was_renamed};
use crate::cell::{Actor, At, Input as CellInput, Outcome as End, Spec, State};
use crate::gitea::event::{IssueSnapshot, RepoRef};
use crate::mission::{
    ApprovedText, CouncilRule, DecisionRecord, FieldError, Level, Member, Moment, Origin, TEMPLATE_MARKER,
    duration_words, hidden_in_title, hidden_parts, is_proposal, parse_titled_proposal, what_changed,
};
use crate::publication::{Answer, Publication, Request, SHOWN_BYTES_MAX, Warning};
use crate::store::{PinKind, Result, label_name};
use serde_json::json;
use std::collections::BTreeMap;

/// Why cells are ended whose issue is gone.
const DELETED: &str = "the issue was deleted";
/// The slot of the comment that shows the issue's own request.
const PROPOSAL: &str = "proposal";
/// The slot of the comment that says what is wrong with a proposal.
const UNREADABLE: &str = "unreadable";
/// Looks at one issue that are taken at once within a minute; more wait.
const LOOKS_AT_ONCE: i64 = 10;
/// How long a look waits beyond that, in milliseconds.
const LOOK_LATER: i64 = 10_000;

/// Which comment shows a record.
pub(super) fn slot_of(record: &DecisionRecord) -> String {
    match record.origin {
        Origin::Issue => PROPOSAL.to_owned(),
        _ => format!("request-{}", record.number),
    }
}

/// Under which it is kept that people were told of a label that does not count.
pub(super) fn label_told_key(mission: &str, label: i64) -> String {
    format!("label_told:{mission}:{label}")
}

impl Desk<'_> {
    /// Asks the forge about the issue.
    pub(super) fn look(&mut self, repo: &RepoRef) -> Result<()> {
        let lane = format!("authority:{}", self.id);
        let effect = Effect::Look { repo: repo.clone(), number: self.mission.number };
        self.tx.supersede(&lane, &effect.kind())?;
        let looks = self.tx.pace_of(&format!("look:{}", self.id), self.now.0, 1)?;
        let not_before = if looks > LOOKS_AT_ONCE { self.now.0 + LOOK_LATER } else { 0 };
        self.queue(lane, &effect, None, not_before).map(|_| ())
    }

    /// Takes over what the forge shows of an issue.
    pub(super) fn take_in(&mut self, look: &Look, new: bool) -> Result<()> {
        self.mission.forget_voters(&look.lost);
        self.changed_shown.clone_from(&look.changed_shown);
        for comment in &look.changed {
            for record in self.mission.void_by_comment(*comment) {
                self.void(&record, "its comment was edited or deleted after it was recorded")?;
            }
        }
        let issue = &look.issue;
        self.restore(issue)?;
        self.mission.seen_at = self.mission.seen_at.max(issue.updated_at.as_second());
        self.mission.author_login.clone_from(&issue.author.login);
        let text = ApprovedText::new(&issue.title, &issue.body);
        let edited = text.hash != self.mission.text;
        if edited {
            self.edited(&text, At(issue.updated_at.as_millisecond()))?;
        }
        let reopened = issue.open && !self.mission.open;
        if issue.open != self.mission.open {
            self.mission.open = issue.open;
            if !issue.open {
                self.end_all("the issue was closed")?;
            }
        }
        // Reopening restarts nothing; a proposal is before the directors again.
        if issue.open && (new || edited || reopened || !self.mission.is_proposal) && self.mission.proposal().is_none() {
            let born = if reopened { At(issue.updated_at.as_millisecond()) } else { self.text_is_from(look) };
            self.consider_proposal(look, born)?;
        }
        self.doubt_renamed_label(issue)?;
        self.warn_of_other_labels(issue)?;
        self.label(look)
    }

    /// Since when the issue has the text that it has, by the forge's clock.
    fn text_is_from(&self, look: &Look) -> At {
        let polled = self.mission.first_polled.map(|seconds| At(seconds * 1000));
        self.mission.edited_at.or(polled).unwrap_or(At(look.issue.created_at.as_millisecond()))
    }

    /// Reads the issue's text as a proposal, if it means to be one.
    fn consider_proposal(&mut self, look: &Look, born: At) -> Result<()> {
        let text = self.text()?;
        if !is_proposal(&text.title, &text.body) {
            self.mission.is_proposal = false;
            return Ok(());
        }
        self.mission.is_proposal = true;
        let error = |field: &str, why: String| FieldError { field: field.to_owned(), why };
        let parsed = parse_titled_proposal(&text.title, &text.body, &self.context.defaults()).and_then(|proposal| {
            let mut errors = vec![];
            if let Some(why) = self.context.network_refusal(proposal.spec.network, &proposal.spec.hosts) {
                errors.push(error("Network hosts", why));
            }
            if let Some(why) = &look.no_base {
                errors.push(error("Base branch", why.clone()));
            }
            let whole = text.whole();
            if let Some(why) = self.context.not_shown_whole(&whole, SHOWN_BYTES_MAX) {
                errors.push(error("Text", why));
            }
            errors.extend(
                look.unknown.iter().map(|login| error("Council", format!("the forge knows no account `{login}`"))),
            );
            if let Some(council) = proposal.council.as_ref().filter(|_| errors.is_empty())
                && let Some(why) = self.why_never(council, look)
            {
                errors.push(error("Council", why));
            }
            if errors.is_empty() { Ok(proposal) } else { Err(errors) }
        });
        match parsed {
            Ok(proposal) => {
                let Some(base) = look.proposal_base.clone() else {
                    // The text became a proposal after the forge was asked: ask again.
                    self.mission.is_proposal = false;
                    let repo = self.repo.clone();
                    return self.look(&repo);
                };
                let spec = Spec { base: Some(base), ..proposal.spec };
                let proposer = Actor::Person { id: self.mission.author, login: self.mission.author_login.clone() };
                let moment = Moment { at: born, id: None };
                let before = match self.voided.as_slice() {
                    [] => String::new(),
                    void => {
                        let numbers: Vec<String> = void.iter().map(u32::to_string).collect();
                        format!("Request {} is void, because the text was changed. ", numbers.join(", "))
                    }
                };
                let made = self.put_before_directors(
                    Origin::Issue,
                    moment,
                    proposer,
                    spec,
                    proposal.council,
                    look.members.clone(),
                )?;
                match made {
                    Ok(record) => self.show_open(&record, &before)?,
                    Err(why) => return self.warn(format!("This proposal is not before the directors: {why}"), None),
                }
                if self.mission.complained_of.take().is_some() {
                    let items = vec![(true, "This proposal can be read now.".to_owned())];
                    let answer = Publication::Answer(Answer { items, ..Answer::default() });
                    self.publish_standing(UNREADABLE, &answer, true)?;
                }
                self.look_at_project()?;
                self.show()
            }
            Err(errors) => {
                if self.mission.complained_of.as_deref() == Some(&text.hash) {
                    return Ok(());
                }
                self.mission.complained_of = Some(text.hash);
                let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
                self.record(&Actor::System, None, "proposal_refused", &json!({"fields": fields}))?;
                let mut items = vec![(
                    false,
                    "This proposal cannot be read as it is. Edit the issue; each of these needs a change:".to_owned(),
                )];
                items.extend(errors.into_iter().map(|e| (false, format!("{}: {}", e.field, e.why))));
                let answer = Publication::Refusal(Answer { items, ..Answer::default() });
                self.publish_standing(UNREADABLE, &answer, false)
            }
        }
    }

    /// Why a council of named people can never decide, if it cannot: too few of them
    /// are directors now and may vote.
    fn why_never(&self, council: &CouncilRule, look: &Look) -> Option<String> {
        let proposer = (!self.context.config.policy.proposer_may_vote).then_some(self.mission.author);
        // A look of an older Lazarus says nothing of levels: then nobody is left out.
        let level = |id: i64| look.member_levels.iter().find(|(of, _)| *of == id).map(|(_, level)| *level);
        let (may, may_not): (Vec<&Member>, Vec<&Member>) = look
            .members
            .iter()
            .partition(|m| level(m.id).is_none_or(|l| l == Level::Director) && proposer != Some(m.id));
        if council.members.is_empty() || may.len() >= council.votes {
            return None;
        }
        let why_not = may_not.iter().map(|member| match proposer {
            Some(id) if id == member.id => format!("`{}` is the proposer, who does not vote", member.login),
            _ => format!("`{}` is not a director of this repository", member.login),
        });
        let votes = if council.votes == 1 { "1 vote is".to_owned() } else { format!("{} votes are", council.votes) };
        let why_not = why_not.collect::<Vec<_>>().join("; ");
        Some(format!("{votes} needed, and {} of the people named here can vote: {why_not}", may.len()))
    }

    /// Puts a request before the directors: a record, the cell that it would start,
    /// and a comment that shows it. The inner error is for people.
    pub(super) fn put_before_directors(
        &mut self,
        origin: Origin,
        born: Moment,
        asked_by: Actor,
        spec: Spec,
        council: Option<CouncilRule>,
        members: Vec<Member>,
    ) -> Result<std::result::Result<DecisionRecord, String>> {
        let cell = new_cell_id();
        let propose = CellInput::Propose {
            id: cell.clone(),
            mission: self.id.clone(),
            spec: spec.clone(),
            policy: self.context.defaults().policy,
        };
        if let Err(refusal) = self.apply(&cell, &propose, &asked_by)? {
            return Ok(Err(refusal.to_string()));
        }
        let record = DecisionRecord {
            number: self.mission.next_number(),
            cell,
            origin,
            born,
            asked_by,
            spec,
            council,
            members,
            text: self.mission.text.clone(),
            votes: vec![],
        };
        let sha256 = record.sha256(&self.id);
        let data = json!({"number": record.number, "sha256": sha256, "request": record});
        self.record(&record.asked_by, Some(&record.cell), "requested", &data)?;
        self.mission.records.push(record.clone());
        Ok(Ok(record))
    }

    /// Shows a record to the directors, also where it ended before anybody could see it: the thread tells what ran.
    pub(super) fn show_record(&mut self, record: &DecisionRecord, standing: &str, open: bool) -> Result<()> {
        let spec = &record.spec;
        let mut rows = vec![
            ("agents".to_owned(), spec.agents.join(" + ")),
            ("backend".to_owned(), spec.backend.to_string()),
            ("isolation".to_owned(), format!("{} or stronger", spec.isolation)),
            (
                "network".to_owned(),
                match spec.hosts.as_slice() {
                    [] => spec.network.to_string(),
                    hosts => format!("{}: {}", spec.network, hosts.join(", ")),
                },
            ),
            ("time to live".to_owned(), duration_words(spec.ttl)),
            ("auto-revive".to_owned(), spec.auto_revive.to_string()),
            (
                "limits".to_owned(),
                match spec.limits.to_string() {
                    none if none.is_empty() => "the usual".to_owned(),
                    some => some,
                },
            ),
            (
                "council".to_owned(),
                match &record.council {
                    None => "any one director".to_owned(),
                    Some(council) if record.members.is_empty() => format!("{} directors", council.votes),
                    Some(council) => {
                        let members: Vec<String> =
                            record.members.iter().map(|m| format!("{} (account {})", m.login, m.id)).collect();
                        format!("{} of {}", council.votes, members.join(", "))
                    }
                },
            ),
        ];
        if let Some(model) = &spec.model {
            rows.push(("model".to_owned(), model.clone()));
        }
        if let Some(base) = &spec.base {
            rows.push(("base branch".to_owned(), format!("{} at {}", base.branch, base.commit)));
        }
        rows.push(("cell".to_owned(), record.cell.to_string()));
        rows.push(("SHA-256 of the text".to_owned(), record.text.clone()));
        let text = self.tx.text(&record.text)?.map(|t| (t.title, t.body)).unwrap_or_default();
        let request = Request {
            number: record.number,
            asked_by: name_of(&record.asked_by),
            standing: standing.to_owned(),
            open,
            rows,
            task: spec.task.clone(),
            hidden: [hidden_in_title(&text.0), hidden_parts(&text.1, &[TEMPLATE_MARKER])].concat(),
            text: format!("{}\n\n{}", text.0, text.1.replacen(TEMPLATE_MARKER, "", 1).trim_start()),
            sha256: record.sha256(&self.id),
            mentions: vec![],
        };
        self.publish_standing(&slot_of(record), &Publication::Request(request), false)
    }

    /// Shows a record that was just made.
    pub(super) fn show_open(&mut self, record: &DecisionRecord, before: &str) -> Result<()> {
        let number = record.number;
        let standing = format!(
            "{before}Nothing runs before it is approved: `/approve {number}`, or `/reject {number}` and a reason. An edit withdraws it."
        );
        self.show_record(record, standing.trim(), true)
    }

    /// A record that was open is void: its cell ends, and the bot says so.
    fn void(&mut self, record: &DecisionRecord, why: &str) -> Result<()> {
        let data = json!({"number": record.number, "sha256": record.sha256(&self.id), "why": why});
        self.record(&Actor::System, Some(&record.cell), "request_void", &data)?;
        if record.origin == Origin::Issue {
            self.voided.push(record.number);
        }
        let drop = CellInput::Drop { outcome: End::Abandoned, reason: format!("the request is void: {why}") };
        let _ = self.apply(&record.cell, &drop, &Actor::System)?;
        self.show_record(record, &format!("It is void: {why}. Undoing the edit does not bring it back."), false)
    }

    fn edited(&mut self, text: &ApprovedText, at: At) -> Result<()> {
        let before = self.text()?;
        self.tx.put_text(text)?;
        self.record(&Actor::System, None, "text_changed", &json!({"from": before.hash, "to": text.hash}))?;
        // Of several edits one after the other, what it was before the first of them.
        let settle = self.rules().settle;
        let before_that = self.mission.text_before.take();
        let goes_on = self.mission.edited_at.is_some_and(|last| at.0.saturating_sub(last.0) < settle);
        self.mission.text_before = before_that.filter(|_| goes_on).or_else(|| Some(before.hash.clone()));
        self.mission.warned.clear();
        self.mission.text.clone_from(&text.hash);
        self.mission.edited_at = Some(at);
        let change = what_changed(&before, text, 40);
        let mut voided = vec![];
        for cell in self.tx.cells_of(&self.id)?.into_iter().map(|row| row.cell) {
            if cell.approval.is_none() || cell.approval_void || matches!(cell.state, State::Archived | State::Destroyed)
            {
                continue;
            }
            let _ = self.apply(&cell.id, &CellInput::Void, &Actor::System)?;
            let reason = "the text was changed after it was approved".to_owned();
            match cell.state {
                State::Invited => {
                    let _ =
                        self.apply(&cell.id, &CellInput::Drop { outcome: End::Abandoned, reason }, &Actor::System)?;
                }
                State::Preparing => {
                    let close = CellInput::Close { outcome: End::Abandoned, reason: Some(reason) };
                    let _ = self.apply(&cell.id, &close, &Actor::System)?;
                }
                _ => {}
            }
            if cell.state.is_live() {
                voided.push(format!("`{}`", cell.id));
            }
        }
        if !voided.is_empty() {
            self.warn(
                format!(
                    "The text was changed after it was approved, so the approval of {} is void. What already runs goes on with the text that was approved; nothing is started or revived until a director approves again.",
                    voided.join(", ")
                ),
                Some(change),
            )?;
        }
        let void = self.mission.void_by_edit();
        let voters: Vec<String> = void.iter().flat_map(|r| r.votes.iter().map(|v| v.login.clone())).collect();
        for record in void {
            self.void(&record, "the issue's text was changed after the request was made")?;
        }
        if !voters.is_empty() {
            let voters = voters.join(", ");
            self.warn(
                format!("The text was changed, so the approvals that were given ({voters}) are void; they have to be given again."),
                None,
            )?;
        }
        Ok(())
    }

    /// The forge has no such issue any more.
    pub(super) fn deleted(&mut self) -> Result<()> {
        if self.mission.deleted {
            return Ok(());
        }
        self.record(&Actor::System, None, "issue_deleted", &json!({}))?;
        self.mission.deleted = true;
        self.mission.open = false;
        self.end_all(DELETED)
    }

    /// The issue shows again, so it was not deleted: commands work again. What was
    /// ended stays ended.
    fn restore(&mut self, issue: &IssueSnapshot) -> Result<()> {
        // A number is never given twice; whatever else it were, it is not ours.
        if !self.mission.deleted || issue.id != self.mission.issue_id {
            return Ok(());
        }
        self.record(&Actor::System, None, "issue_restored", &json!({}))?;
        self.mission.deleted = false;
        let mut ended = vec![];
        for row in self.tx.cells_of(&self.id)? {
            let cell = &row.cell;
            if cell.reason.as_deref() != Some(DELETED) {
                continue;
            }
            ended.push(format!("`{}` is {}", cell.id, cell.state));
            // Its log had nowhere to go.
            let facts = Facts::of(&row)?;
            if cell.state == State::Closed
                && cell.approval.is_some()
                && !facts.publishing
                && !self.tx.has_comment(cell.id.as_str(), "close-log")?
            {
                self.publish(&Publication::CloseLog(self.close_log(cell, &facts)?), Some(&cell.id))?;
            }
        }
        let cells = match ended.as_slice() {
            [] => String::new(),
            ended => format!(
                " What was ended stays ended: {}. `/resurrect CELL` brings a closed one back within its grace period.",
                ended.join(", ")
            ),
        };
        self.warn(
            format!("The forge did not show this issue for some time, so it was taken for deleted. It is there, and commands work again.{cells}"),
            None,
        )?;
        Ok(())
    }

    /// Says so where a label is on the issue that is named like the approval label
    /// and does not count: once for each label.
    fn warn_of_other_labels(&mut self, issue: &IssueSnapshot) -> Result<()> {
        if self.mission.records.is_empty() {
            return Ok(());
        }
        let Some(repo) = self.context.repo(self.repo.id) else { return Ok(()) };
        let counts = repo.approved_label.map(|label| label.id());
        for label in issue.labels.iter().filter(|label| label.name == APPROVED && Some(label.id) != counts) {
            let key = label_told_key(&self.id, label.id);
            if self.tx.meta(&key)?.is_some() {
                continue;
            }
            self.tx.put_meta(&key, "")?;
            let why = match (&repo.label_off, counts) {
                (Some(off), _) => off.clone(),
                (None, Some(id)) => format!(
                    "it is another label of that name (id {}) than the one that counts (id {id}). `/approve` works; where that one is gone, `lazarus init {}` pins another",
                    label.id,
                    self.repo.full_name()
                ),
                (None, None) => "approval by label is off here. `/approve` works".to_owned(),
            };
            self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": why}))?;
            self.warn(format!("The label `{APPROVED}` on this issue approves nothing: {why}."), None)?;
        }
        Ok(())
    }

    /// A label that counts was seen under another name: who puts it on an issue may
    /// mean something else by it, so from now on it does not count.
    fn doubt_renamed_label(&self, issue: &IssueSnapshot) -> Result<()> {
        let Some(pinned) = self.context.repo(self.repo.id).and_then(|repo| repo.approved_label) else { return Ok(()) };
        let Some(label) = issue.labels.iter().find(|l| l.id == pinned.id() && l.name != APPROVED) else {
            return Ok(());
        };
        let fault = label_was_renamed(label.id, &label.name);
        self.tx.amend_pin(PinKind::Label, &label_name(self.repo.id, APPROVED), None, Some(&fault))?;
        self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": fault}))?;
        self.context.learn(|known| {
            if let Some(repo) = known.repos.get_mut(&self.repo.id) {
                repo.approved_label = None;
                repo.label_off = Some(fault);
            }
        });
        Ok(())
    }

    fn end_all(&mut self, reason: &str) -> Result<()> {
        for record in std::mem::take(&mut self.mission.records) {
            self.void(&record, reason)?;
        }
        for cell in self.live_cells()? {
            let input = match cell.state {
                State::Invited => CellInput::Drop { outcome: End::Abandoned, reason: reason.to_owned() },
                State::Idle => CellInput::Close { outcome: End::Completed, reason: Some(reason.to_owned()) },
                _ => CellInput::Close { outcome: End::Abandoned, reason: Some(reason.to_owned()) },
            };
            if cell.state == State::Idle {
                // Whoever closes an issue does not say how its work went.
                let mut facts = self.facts(&cell.id)?;
                facts.outcome_open = true;
                self.put_facts(&cell.id, &facts)?;
            }
            let _ = self.apply(&cell.id, &input, &Actor::System)?;
        }
        self.show()
    }

    /// Deals with the approval label, once for each time that somebody adds it.
    fn label(&mut self, look: &Look) -> Result<()> {
        let bot = self.context.bot().map(|b| b.id);
        let events = &look.label_events;
        let newest = events.last().map_or(self.mission.label_event, |e| e.id);
        // What somebody took off again is taken back; the bot takes off what it dealt with.
        let stands = |index: usize| !events[index + 1..].iter().any(|e| !e.added && Some(e.actor.id) != bot);
        let added: Vec<&LabelEvent> =
            (0..events.len()).filter(|i| events[*i].added && stands(*i)).map(|i| &events[i]).collect();
        let handled = std::mem::replace(&mut self.mission.label_handled, look.label.then_some(newest));
        self.mission.label_event = newest;
        // Whatever comes of it, it counts once.
        if look.label && handled != Some(newest) {
            self.drop_label()?;
        }
        if added.is_empty() && look.label && handled.is_none() && !events.iter().any(|e| !e.added) {
            return self.warn(
                "The label `lazarus/approved` was on this issue when it was opened, or was left over. That approves nothing, so it was taken off; a director approves with `/approve`, or by adding the label now.",
                None,
            );
        }
        let mut strangers: Vec<String> = vec![];
        for event in added {
            if event.level == Some(Level::Director) && Some(event.actor.id) != bot {
                self.approve_by_label(event)?;
                continue;
            }
            let actor = Actor::Person { id: event.actor.id, login: event.actor.login.clone() };
            self.record(&actor, None, "refused", &json!({"command": "label", "why": "not a director"}))?;
            let name = format!("`{}`", event.actor.login);
            if !strangers.contains(&name) {
                strangers.push(name);
            }
        }
        if !strangers.is_empty() {
            let (names, is) =
                (strangers.join(", "), if strangers.len() == 1 { "is not a director" } else { "are not directors" });
            self.warn(format!("{names} {is} here, so the label approves nothing; it was taken off."), None)?;
        }
        Ok(())
    }

    fn drop_label(&mut self) -> Result<()> {
        let effect = Effect::RemoveApproval { repo: self.repo.clone(), number: self.mission.number };
        let lane = format!("label:{}", self.id);
        self.tx.supersede(&lane, &effect.kind())?;
        self.queue(lane, &effect, None, 0).map(|_| ())
    }

    fn approve_by_label(&mut self, event: &LabelEvent) -> Result<()> {
        let actor = Actor::Person { id: event.actor.id, login: event.actor.login.clone() };
        self.mission.doubt_text_before(event.at / 1000);
        let asked = Asked {
            actor,
            level: Level::Director,
            comment: None,
            given: Some(Moment { at: At(event.at), id: Some(event.id) }),
            text: self.text()?,
            sha256: String::new(),
            accounts: BTreeMap::new(),
            base: None,
        };
        let done = self.approve(&asked, None)?;
        if !done.ok {
            self.record(&asked.actor, None, "refused", &json!({"command": "label", "why": done.says}))?;
        }
        if !done.says.is_empty() {
            let text = format!("The label `lazarus/approved` was taken off. {}", done.says);
            let warning = Publication::Warning(Warning { text, change: done.change });
            if let Some(effect) = self.publish_as(&warning, None)? {
                self.mission.warned_by(&effect);
            }
        }
        self.show()
    }
}
