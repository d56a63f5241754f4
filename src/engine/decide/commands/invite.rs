//! `/invite IDENTITY ROLE [CELL]`: somebody is to take part in a cell.

use super::{Asked, Done};
use crate::cell::{CellId, Identity, Input as CellInput, Role};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::duration_words;
use crate::publication::sentences::commands as say;
use crate::store::Result;

/// Invites a person, or has an agent take part.
pub fn run(
    mission: &mut MissionTx<'_>,
    asked: &Asked,
    identity: &str,
    role: Role,
    cell: Option<&CellId>,
) -> Result<Done> {
    let Ok(identity) = Identity::parse(identity) else {
        return Ok(Done::no(say::not_an_identity()));
    };
    let mut forge_id = None;
    match &identity {
        Identity::Agent(name) if mission.context().profiles.get(name).is_none() => {
            let allowed = mission.context().profiles.names().join(", ");
            return Ok(Done::no(say::no_agent_to_invite(name, &allowed)));
        }
        Identity::Human(login) => match asked.accounts.get(&login.to_lowercase()) {
            Some(id) => forge_id = Some(*id),
            None => return Ok(Done::no(say::no_such_account(login))),
        },
        _ => {}
    }
    let ttl = duration_words(mission.context().defaults().policy.invitation_ttl);
    let input = CellInput::Invite { identity: identity.clone(), forge_id, role };
    let mut done = mission.on_cell(cell, &input, &asked.actor, |_, id| {
        Ok(match &identity {
            Identity::Human(_) => Done::ok(say::invited(&identity, id, role, &ttl)),
            _ => Done::ok(say::takes_part(&identity, id, role.word())),
        })
    })?;
    if done.ok
        && let Identity::Human(login) = &identity
    {
        done.mentions.push(login.clone());
    }
    Ok(done)
}
