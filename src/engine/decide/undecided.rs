//! What is said of an input that cannot be decided.

use super::{Decision, LOOK_AGAIN_AT_DAMAGED};
use crate::cell::Actor;
use crate::engine::effect::Effect;
use crate::engine::input::{Input, Outcome};
use crate::engine::keys::Pace;
use crate::engine::lane::Lane;
use crate::gitea::event::{CommentAction, ForgeEvent};
use crate::mission::MissionId;
use crate::publication::sentences::issues;
use crate::publication::{Answer, Publication};
use crate::store::{Result, StoreError};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Says that an input could not be decided, because a record that it needs
/// cannot be read: in the ledger, and to whoever gave a command. What was
/// decided of it is undone already, and other missions go on.
pub fn not_decided(decision: &Decision<'_>, input: Option<&Input>, error: &StoreError) -> Result<()> {
    let (tx, context, now, key) = (decision.tx(), decision.context(), decision.now(), decision.key);
    let (mut mission, mut cell) = (None, None);
    let mut answer = None;
    match input {
        Some(Input::Operated { operation, cell: named, issue, .. }) => {
            cell.clone_from(named);
            mission = issue.as_ref().map(|found| MissionId::new(found.0.id, found.1.issue.number));
            decision.finish_operation(operation, &Outcome::refused(error.to_string()))?;
        }
        Some(Input::Forge { happened: ForgeEvent::Comment { repo, action, issue, comment, sender_can_push, .. } }) => {
            let id = MissionId::new(repo.id, issue.number);
            let commands = context.commands_in(&comment.body).lines.len() as i64;
            // What polling found was counted when it was found.
            let counts = if sender_can_push.is_some() { commands } else { 0 };
            let by_bot = context.bot().is_some_and(|bot| bot.id == comment.author.id);
            let limit = i64::from(context.config.policy.commands_per_minute);
            if *action == CommentAction::Created
                && commands > 0
                && !by_bot
                && tx.pace_of(&Pace::Commands(comment.author.id).to_string(), now.0, counts)? <= limit
            {
                answer = Some((repo, id.clone(), issue.number, comment.id));
            }
            mission = Some(id);
        }
        Some(Input::Forge { happened: ForgeEvent::Issue { repo, issue, .. } }) => {
            mission = Some(MissionId::new(repo.id, issue.number));
        }
        Some(Input::Authorized { request, .. }) => {
            answer = Some((&request.repo, request.mission(), request.issue.number, request.comment));
            mission = Some(request.mission());
        }
        Some(Input::Deadline { cell: due, .. }) => {
            // It would be found due again at once, and for ever.
            tx.put_off(due.as_str(), now.plus(LOOK_AGAIN_AT_DAMAGED).0)?;
            cell = Some(due.clone());
        }
        _ => {}
    }
    let data = json!({"input": key, "why": context.redact(&error.to_string())});
    let of = mission.as_ref().map_or("", MissionId::as_str);
    decision.record(of, &Actor::System, cell.as_ref(), "not_decided", &data)?;
    let Some((repo, mission, number, comment)) = answer else { return Ok(()) };
    let answer = Answer::one(false, issues::registry_damaged());
    let id = hex::encode(&Sha256::digest(format!("not decided:{key}"))[..10]);
    let body = context.render(&Publication::Refusal(answer), &id, None).body;
    let react = Effect::React { repo: repo.clone(), comment, content: "confused".to_owned(), alone: false };
    decision.queue(&format!("{id}r"), Lane::Reactions(comment), &mission, None, &react, 0)?;
    let say = Effect::Comment { repo: repo.clone(), number, kind: "refusal".to_owned(), body };
    decision.queue(&id, Lane::Comments(&mission), &mission, None, &say, 0)
}
