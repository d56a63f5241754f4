//! `/invite IDENTITY ROLE [CELL]`: somebody is to take part in a cell.

use super::{Asked, Done};
use crate::cell::{CellId, Identity, Input as CellInput, Role};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::duration_words;
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
        return Ok(Done::no("an identity is `agent:NAME`, `bot:NAME` or `human:LOGIN`"));
    };
    let mut forge_id = None;
    match &identity {
        Identity::Agent(name) if mission.context().profiles.get(name).is_none() => {
            return Ok(Done::no(format!(
                "there is no agent `{name}`; allowed are {}. A person is `human:LOGIN`",
                mission.context().profiles.names().join(", ")
            )));
        }
        Identity::Human(login) => match asked.accounts.get(&login.to_lowercase()) {
            Some(id) => forge_id = Some(*id),
            None => {
                return Ok(Done::no(format!(
                    "the forge knows no account `{login}`; one that was renamed goes by its new name"
                )));
            }
        },
        _ => {}
    }
    let ttl = duration_words(mission.context().defaults().policy.invitation_ttl);
    let input = CellInput::Invite { identity: identity.clone(), forge_id, role };
    let mut done = mission.on_cell(cell, &input, &asked.actor, |_, id| {
        Ok(match &identity {
            Identity::Human(_) => Done::ok(format!(
                "`{identity}` is invited to `{id}` as {role}, and accepts with `/accept` within {ttl}."
            )),
            _ => Done::ok(format!("`{identity}` takes part in `{id}` as {role}.")),
        })
    })?;
    if done.ok
        && let Identity::Human(login) = &identity
    {
        done.mentions.push(login.clone());
    }
    Ok(done)
}
