//! Requests before the directors: read from the issue's text, put on record, shown, made
//! void.

use super::mission_tx::MissionTx;
use crate::cell::{Actor, At, CellId, Input as CellInput, Outcome as End, Spec};
use crate::engine::effect::Slot;
use crate::engine::input::Look;
use crate::mission::{
    CouncilRule, DecisionRecord, FieldError, Level, Member, Moment, Origin, TEMPLATE_MARKER, duration_words,
    is_proposal, parse_titled_proposal,
};
use crate::publication::sentences::requests as say;
use crate::publication::{Answer, Publication, Request, SHOWN_BYTES_MAX};
use crate::store::Result;
use serde_json::json;

impl MissionTx<'_> {
    /// Reads the issue's text as a proposal, if it means to be one.
    pub fn consider_proposal(&mut self, look: &Look, born: At) -> Result<()> {
        let text = self.text()?;
        if !is_proposal(&text.title, &text.body) {
            self.known_mut().is_proposal = false;
            return Ok(());
        }
        self.known_mut().is_proposal = true;
        let error = |field: &str, why: String| FieldError { field: field.to_owned(), why };
        let parsed = parse_titled_proposal(&text.title, &text.body, &self.context().defaults()).and_then(|proposal| {
            let mut errors = vec![];
            if let Some(why) = self.context().network_refusal(proposal.spec.network, &proposal.spec.hosts) {
                errors.push(error("Network hosts", why));
            }
            if let Some(why) = &look.no_base {
                errors.push(error("Base branch", why.clone()));
            }
            let whole = text.whole();
            if let Some(why) = self.context().not_shown_whole(&whole, SHOWN_BYTES_MAX) {
                errors.push(error("Text", why));
            }
            errors.extend(look.unknown.iter().map(|login| error("Council", say::council_unknown(login))));
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
                    self.known_mut().is_proposal = false;
                    let repo = self.repo().clone();
                    return self.look(&repo);
                };
                let spec = Spec { base: Some(base), ..proposal.spec };
                let proposer = Actor::Person { id: self.known().author, login: self.known().author_login.clone() };
                let moment = Moment { at: born, id: None };
                let before = match self.voided() {
                    [] => String::new(),
                    void => {
                        let numbers: Vec<String> = void.iter().map(u32::to_string).collect();
                        say::void_by_change(&numbers.join(", "))
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
                    Err(why) => return self.warn(say::not_before_directors(&why), None),
                }
                if self.known_mut().complained_of.take().is_some() {
                    let items = vec![(true, say::readable_now())];
                    let answer = Publication::Answer(Answer { items, ..Answer::default() });
                    self.publish_standing(Slot::Unreadable, &answer, true)?;
                }
                self.look_at_project()?;
                self.show()
            }
            Err(errors) => {
                if self.known().complained_of.as_deref() == Some(&text.hash) {
                    return Ok(());
                }
                self.known_mut().complained_of = Some(text.hash);
                let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
                self.record(&Actor::System, None, "proposal_refused", &json!({"fields": fields}))?;
                let mut items = vec![(false, say::unreadable())];
                items.extend(errors.into_iter().map(|e| (false, format!("{}: {}", e.field, e.why))));
                let answer = Publication::Refusal(Answer { items, ..Answer::default() });
                self.publish_standing(Slot::Unreadable, &answer, false)
            }
        }
    }

    /// Why a council of named people can never decide, if it cannot: too few of them
    /// are directors now and may vote.
    fn why_never(&self, council: &CouncilRule, look: &Look) -> Option<String> {
        let proposer = (!self.context().config.policy.proposer_may_vote).then_some(self.known().author);
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
            Some(id) if id == member.id => say::proposer_does_not_vote(&member.login),
            _ => say::is_no_director(&member.login),
        });
        let why_not = why_not.collect::<Vec<_>>().join("; ");
        Some(say::council_too_small(council.votes, may.len(), &why_not))
    }

    /// Puts a request before the directors: a record, the cell that it would start,
    /// and a comment that shows it. The inner error is for people.
    pub fn put_before_directors(
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
            mission: self.id().to_string(),
            spec: spec.clone(),
            policy: self.context().defaults().policy,
        };
        if let Err(refusal) = self.apply(&cell, &propose, &asked_by)? {
            return Ok(Err(refusal.to_string()));
        }
        let record = DecisionRecord {
            number: self.known_mut().next_number(),
            cell,
            origin,
            born,
            asked_by,
            spec,
            council,
            members,
            text: self.known().text.clone(),
            votes: vec![],
        };
        let sha256 = record.sha256(self.id().as_str());
        let data = json!({"number": record.number, "sha256": sha256, "request": record});
        self.record(&record.asked_by, Some(&record.cell), "requested", &data)?;
        self.known_mut().records.push(record.clone());
        Ok(Ok(record))
    }

    /// Shows a record to the directors, also where it ended before anybody could see it: the thread tells what ran.
    pub fn show_record(&mut self, record: &DecisionRecord, standing: &str, open: bool) -> Result<()> {
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
        let text = self.text_of(&record.text)?;
        let request = Request {
            number: record.number,
            asked_by: record.asked_by.name(),
            standing: standing.to_owned(),
            open,
            rows,
            task: spec.task.clone(),
            hidden: text.hidden(),
            text: format!("{}\n\n{}", text.title, text.body.replacen(TEMPLATE_MARKER, "", 1).trim_start()),
            sha256: record.sha256(self.id().as_str()),
            mentions: vec![],
        };
        self.publish_standing(Slot::of(record), &Publication::Request(request), false)
    }

    /// Shows a record that was just made.
    pub fn show_open(&mut self, record: &DecisionRecord, before: &str) -> Result<()> {
        let standing = say::open(before, record.number);
        self.show_record(record, standing.trim(), true)
    }

    /// A record that was open is void: its cell ends, and the bot says so.
    pub fn void(&mut self, record: &DecisionRecord, why: &str) -> Result<()> {
        let data = json!({"number": record.number, "sha256": record.sha256(self.id().as_str()), "why": why});
        self.record(&Actor::System, Some(&record.cell), "request_void", &data)?;
        if record.origin == Origin::Issue {
            self.note_void(record.number);
        }
        let drop = CellInput::Drop { outcome: End::Abandoned, reason: say::request_void(why) };
        let _ = self.apply(&record.cell, &drop, &Actor::System)?;
        self.show_record(record, &say::void(why), false)
    }
}

pub fn new_cell_id() -> CellId {
    let mut bytes = [0u8; 10];
    // Without randomness from the kernel nothing here is safe any more.
    #[allow(clippy::expect_used, reason = "there is no way to go on without it")]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    CellId::from_random(bytes)
}
