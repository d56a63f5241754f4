//! What is heard of issues and comments. It is a hint: what needs authority waits until
//! the forge was asked ([`requests`](super::requests)).

use super::Decision;
use super::commands::{Asked, logins_in, verb_of_line};
use crate::engine::effect::Effect;
use crate::engine::keys::{InboxKey, Pace};
use crate::engine::lane::Lane;
use crate::engine::request::{AuthorityRequest, Heard, actor};
use crate::gitea::event::{CommentAction, CommentSnapshot, IssueAction, IssueSnapshot, Person, RepoRef};
use crate::mission::{ApprovedText, Level, Line, Mission, MissionId, Origin, Parsed, is_proposal, sha256};
use crate::publication::Answer;
use crate::publication::sentences::commands as say;
use crate::store::{Result, Sight};
use serde_json::json;
use std::collections::BTreeMap;

/// Something happened to an issue, or polling saw it. `previous`: title and body before
/// an edit, of what changed.
pub fn issue_changed(
    decision: &Decision<'_>,
    repo: &RepoRef,
    action: IssueAction,
    issue: &IssueSnapshot,
    previous: (Option<String>, Option<String>),
) -> Result<()> {
    if issue.is_pull {
        return Ok(());
    }
    let text = ApprovedText::new(&issue.title, &issue.body);
    // What an edit replaced is only in its delivery; of a part that stayed as
    // it was the forge says nothing.
    let before = (previous.0.is_some() || previous.1.is_some()).then(|| {
        ApprovedText::new(previous.0.as_deref().unwrap_or(&issue.title), previous.1.as_deref().unwrap_or(&issue.body))
    });
    let at = issue.updated_at.as_millisecond();
    let sight = Sight {
        at,
        since: if action == IssueAction::Opened { issue.created_at.as_millisecond() } else { at },
        told: matches!(action, IssueAction::Edited | IssueAction::Seen),
        before: before.as_ref(),
    };
    decision.tx().see_text((repo.id, issue.number), &text, sight, decision.now().0)?;

    let label = decision.context().repo(repo.id).and_then(|repo| repo.approved_label).map(|label| label.id());
    let labelled = label.is_some_and(|id| issue.labels.iter().any(|label| label.id == id));
    let known = decision.on_mission(&MissionId::new(repo.id, issue.number), |mission| {
        let known = mission.known();
        let news = match action {
            IssueAction::Seen | IssueAction::Other | IssueAction::Opened => {
                text.hash != known.text
                    || issue.open != known.open
                    || known.deleted
                    || (labelled && known.label_handled.is_none())
                    || (!known.records.is_empty() && issue.updated_at.as_second() > known.seen_at)
            }
            IssueAction::LabelsChanged => labelled || known.label_handled.is_some() || !known.records.is_empty(),
            IssueAction::Edited | IssueAction::Closed | IssueAction::Reopened | IssueAction::Deleted => true,
        };
        if news { mission.look(repo) } else { Ok(()) }
    })?;
    // Most issues are none of our business.
    let may_be_ours = action != IssueAction::Deleted && (labelled || is_proposal(&issue.title, &issue.body));
    if known.is_none() && may_be_ours { first_look(decision, repo, issue.number) } else { Ok(()) }
}

/// The forge is asked about an issue that is no mission yet.
fn first_look(decision: &Decision<'_>, repo: &RepoRef, number: i64) -> Result<()> {
    let id = MissionId::new(repo.id, number);
    let effect = Effect::Look { repo: repo.clone(), number };
    let lane = Lane::Authority(&id);
    decision.tx().supersede(&lane.to_string(), effect.kind().word())?;
    decision.queue(&decision.effect_name(1), lane, &id, None, &effect, 0)
}

/// A comment, as it was heard of.
pub struct HeardComment {
    /// The repository, by the name that it was heard under.
    pub repo: RepoRef,
    /// The issue, as it was then.
    pub issue: IssueSnapshot,
    /// The comment.
    pub comment: CommentSnapshot,
    /// Who did what happened to it.
    pub sender: Person,
    /// What a signed delivery stated of the sender's right to write; `None`: only polling
    /// found it.
    pub stated_write: Option<bool>,
}

impl HeardComment {
    /// Something happened to the comment.
    pub fn decide(&self, decision: &Decision<'_>, action: CommentAction) -> Result<()> {
        let context = decision.context();
        let by_bot = |p: &Person| context.bot().is_some_and(|b| b.id == p.id);
        if by_bot(&self.comment.author) || (self.issue.is_pull && !context.config.policy.pull_request_commands) {
            return Ok(());
        }
        match action {
            CommentAction::Created => self.created(decision),
            CommentAction::Edited | CommentAction::Deleted if self.is_of_open_request(decision)? => {
                decision.on_mission(&self.mission(), |mission| mission.look(&self.repo)).map(drop)
            }
            CommentAction::Edited if self.sender.id != self.comment.author.id && !by_bot(&self.sender) => {
                // A command put into somebody else's mouth: never executed,
                // and worth knowing.
                if context.commands_in(&self.comment.body).lines.is_empty() {
                    return Ok(());
                }
                let data = json!({"comment": self.comment.id, "author": self.comment.author.login});
                let action = "security_command_in_edited_comment";
                decision.record(self.mission().as_str(), &actor(&self.sender), None, action, &data).map(drop)
            }
            CommentAction::Edited | CommentAction::Deleted => Ok(()),
        }
    }

    fn mission(&self) -> MissionId {
        MissionId::new(self.repo.id, self.issue.number)
    }

    /// Whether the comment is the one that made an open request.
    fn is_of_open_request(&self, decision: &Decision<'_>) -> Result<bool> {
        let mission = decision.tx().mission(self.mission().as_str())?;
        Ok(mission.is_some_and(|mission| {
            mission.records.iter().any(|r| matches!(r.origin, Origin::Comment { id, .. } if id == self.comment.id))
        }))
    }

    fn created(&self, decision: &Decision<'_>) -> Result<()> {
        let Self { repo, issue, comment, stated_write, .. } = self;
        let (tx, context, now) = (decision.tx(), decision.context(), decision.now());
        // An account that is gone, or one that comments as another: no rights.
        if comment.author.id <= 0 || comment.author.id != self.sender.id {
            return Ok(());
        }
        // The signed event shows the issue's text as it was when this was said.
        let text = ApprovedText::new(&issue.title, &issue.body);
        let at = issue.updated_at.as_millisecond();
        tx.see_text((repo.id, issue.number), &text, Sight { at, since: at, told: false, before: None }, now.0)?;
        let mut parsed = context.commands_in(&comment.body);
        if parsed.is_empty()
            || tx.knows(InboxKey::comment_deleted(repo.id, comment.id).as_str())?
            || tx.has_acted_on(repo.id, comment.id)?
        {
            return Ok(());
        }
        let id = self.mission();
        let known = tx.mission(id.as_str())?;
        let is_mission = known.as_ref().is_some_and(Mission::is_one) || is_proposal(&issue.title, &issue.body);
        let program = is_program(&comment.author.login);
        if program || !is_mission {
            // Nobody asked for advice.
            parsed.misplaced.clear();
        }
        if !is_mission {
            // Other bots have commands of their own.
            parsed
                .lines
                .retain(|line| !line.is_slip() && !(program && (line.needs_mission() || line.is_for_everyone())));
        }
        if parsed.is_empty() {
            return tx.act_on(repo.id, comment.id, now.0).map(drop);
        }
        let pace = Pace::Commands(comment.author.id).to_string();
        let limit = i64::from(context.config.policy.commands_per_minute);
        // What is no command, or none here, is looked at without a word.
        let silent = parsed.lines.is_empty()
            || (!is_mission
                && known.as_ref().is_none_or(|mission| mission.told_no_mission)
                && parsed.lines.iter().all(Line::needs_mission));
        if silent {
            if tx.pace_of(&pace, now.0, 1)? <= limit {
                let effect = Effect::Authorize { request: Box::new(self.request(parsed)) };
                decision.queue(&decision.effect_name(1), Lane::Authority(&id), &id, None, &effect, 0)?;
            }
            return Ok(());
        }
        decision.on_issue(repo, issue, |mission, _| {
            if stated_write.is_none() {
                mission.known_mut().mark_text_uncertain(comment.created_at.as_second());
            }
            let count = parsed.lines.len() as i64;
            // What polling finds waits there for its minute, so here it is refused only if no
            // minute has room for it.
            let in_minute = if stated_write.is_none() { count } else { tx.pace_of(&pace, now.0, count)? };
            if in_minute > limit {
                return self.too_many(mission, &parsed.lines, limit);
            }
            let react =
                Effect::React { repo: repo.clone(), comment: comment.id, content: "eyes".to_owned(), alone: false };
            mission.queue(Lane::Reactions(comment.id), &react, None)?;
            let request = self.request(parsed);
            let everybody_may = request.misplaced.is_empty() && request.lines.iter().all(Line::is_for_everyone);
            // What was taken for deleted is looked for first: then everything is answered.
            let deleted = mission.known().deleted;
            if deleted {
                mission.look(repo)?;
            }
            if everybody_may && !deleted {
                mission.act_on(comment.id)?;
                let asked = Asked::of_comment(&request, Level::Read, BTreeMap::new(), None);
                return mission.run_commands(&asked, &request.lines, &[]);
            }
            mission.queue(Lane::Authority(&id), &Effect::Authorize { request: Box::new(request) }, None)
        })
    }

    /// Somebody gave more commands than a minute may have.
    fn too_many(&self, mission: &mut super::mission_tx::MissionTx<'_>, lines: &[Line], limit: i64) -> Result<()> {
        let comment = &self.comment;
        // It is answered, so polling does not find it again.
        mission.act_on(comment.id)?;
        let why = format!("more than {limit} commands in a minute");
        let verbs: Vec<String> = lines.iter().map(verb_of_line).collect();
        let data = json!({"command": verbs.join(", "), "comment": comment.id, "why": why});
        mission.record(&actor(&comment.author), None, "refused", &data)?;
        let mut answer = Answer::default();
        // Each gets a reaction, and the words stand once a minute: words for each would
        // be the flood.
        let told = Pace::CommandsTold(mission.id(), comment.author.id).to_string();
        if mission.tx().pace_of(&told, mission.now().0, 1)? == 1 {
            answer.items.push((false, say::too_many_commands(&comment.author.login, limit)));
        }
        mission.answer(comment.id, false, true, &answer)
    }

    fn request(&self, parsed: Parsed) -> AuthorityRequest {
        AuthorityRequest {
            repo: self.repo.clone(),
            issue: self.issue.clone(),
            comment: self.comment.id,
            person: self.comment.author.clone(),
            written_at: self.comment.created_at.as_millisecond(),
            sha256: sha256(&self.comment.body),
            logins: logins_in(&parsed.lines),
            lines: parsed.lines,
            misplaced: parsed.misplaced,
            stated_write: self.stated_write,
            heard: if self.stated_write.is_some() { Heard::Delivered } else { Heard::Polled },
        }
    }
}

/// Whether an account is a program's, by its name. The forge does not say it. Only what
/// nobody asked for is kept from it.
pub fn is_program(login: &str) -> bool {
    let login = login.to_ascii_lowercase();
    ["-bot", "_bot", ".bot", "[bot]"].iter().any(|end| login.ends_with(end))
        || login.starts_with("bot-")
        || matches!(login.as_str(), "bot" | "dependabot" | "renovate" | "gitea-actions" | "forgejo-actions")
}
