//! `/summon AGENT` and `/team AGENTS`: asks for a cell.

use super::{Asked, Done};
use crate::cell::{self, AutoRevive, BackendKind, Spec};
use crate::engine::context::Context;
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::{Concern, Level, Moment, OPEN_MAX, Origin, SummonOptions, duration_words};
use crate::publication::SHOWN_BYTES_MAX;
use crate::publication::sentences::{commands as say, requests};
use crate::store::Result;

/// `/summon` and `/team`: a director's own is request and approval in one, a
/// writer's is put before the directors.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, agents: &[String], options: &SummonOptions) -> Result<Done> {
    if !mission.known().open {
        return Ok(Done::no(say::reopen_to_summon()));
    }
    let mut spec = match spec(mission.context(), agents, options) {
        Ok(spec) => spec,
        Err(why) => return Ok(Done::no(why)),
    };
    spec.base.clone_from(&asked.base);
    let most = mission.context().config.policy.max_cells_per_mission as usize;
    if mission.live_cells()?.len() >= most {
        return Ok(Done::no(say::enough_cells(most)));
    }
    if asked.text.hash != mission.known().text {
        // The event's text is not the newest that is known: somebody edited in between.
        return Ok(Done::no(say::text_changed_meanwhile()));
    }
    let director = asked.level == Level::Director;
    if let Some(given) = asked.given.filter(|_| director) {
        let seen = mission.has_seen(asked.id(), Concern::Edit, asked.given)?;
        if !mission.known().settled_for(given, mission.rules().settle, seen) {
            mission.known_mut().warn(asked.id(), Concern::Edit);
            return mission.too_soon("summons", &requests::summon_again());
        }
        let hidden = asked.text.hidden();
        if !hidden.is_empty() && !mission.has_seen(asked.id(), Concern::Hidden, asked.given)? {
            mission.known_mut().warn(asked.id(), Concern::Hidden);
            return Ok(Done::no(say::text_not_shown(&hidden.join("; "))));
        }
    }
    if !director {
        let text = mission.text()?;
        let whole = text.whole();
        let parts = [("the issue's text", Some(&whole)), ("the task", spec.task.as_ref())];
        let hidden = parts
            .iter()
            .find_map(|(what, part)| Some((what, mission.context().not_shown_whole(part.as_ref()?, SHOWN_BYTES_MAX)?)));
        if let Some((what, why)) = hidden {
            return Ok(Done::no(say::cannot_be_put_before_directors(what, &why)));
        }
    }
    if mission.known().records.len() >= OPEN_MAX {
        return Ok(Done::no(say::enough_requests(OPEN_MAX)));
    }
    let origin = match asked.comment {
        Some(id) => Origin::Comment { id, sha256: asked.sha256.clone() },
        None => Origin::Operator,
    };
    // An operator's has no place on the forge; the clock is ours then.
    let born = asked.given.unwrap_or(Moment { at: mission.now(), id: None });
    let record = match mission.put_before_directors(origin, born, asked.actor.clone(), spec, None, vec![])? {
        Ok(record) => record,
        Err(why) => return Ok(Done::no(why)),
    };
    mission.look_at_project()?;
    if director {
        mission.known_mut().take_record(record.number);
        return mission.start(&record, vec![asked.actor.clone()], &asked.actor);
    }
    mission.show_open(&record, "")?;
    Ok(Done::ok(say::recorded_as_request(record.number, &record.cell)).on(&record.cell))
}

/// What is asked for, as it would run. The error is for people.
fn spec(context: &Context, agents: &[String], options: &SummonOptions) -> std::result::Result<Spec, String> {
    let defaults = context.defaults();
    for agent in agents {
        if !defaults.agents.contains(agent) {
            let near = context.profiles.nearest(agent).map(say::did_you_mean).unwrap_or_default();
            return Err(say::no_such_agent(agent, &defaults.agents.join(", "), &near));
        }
    }
    if agents.len() > defaults.agents_max {
        return Err(say::too_many_agents(defaults.agents_max));
    }
    let backend = options.backend.unwrap_or(BackendKind::Process);
    if !defaults.backends.contains(&backend) {
        let there: Vec<&str> = defaults.backends.iter().map(|b| b.word()).collect();
        return Err(say::backend_not_there(backend, &there.join(", ")));
    }
    let isolation = options.isolation.unwrap_or(defaults.isolation_min);
    if isolation < defaults.isolation_min {
        return Err(say::isolation_too_weak(isolation, defaults.isolation_min));
    }
    let network = options.network.unwrap_or(cell::Network::None);
    if let Some(why) = context.network_refusal(network, &[]) {
        return Err(say::network_refused(network, &why));
    }
    let ttl = options.ttl.unwrap_or(defaults.ttl_default).min(options.ttl.unwrap_or(defaults.policy.ttl_max));
    if ttl > defaults.policy.ttl_max {
        return Err(say::ttl_too_long(&duration_words(defaults.policy.ttl_max)));
    }
    Ok(Spec {
        agents: agents.to_vec(),
        backend,
        isolation,
        network,
        hosts: vec![],
        ttl,
        model: options.model.clone(),
        task: options.task.clone(),
        auto_revive: AutoRevive::Ask,
        limits: cell::LimitsWanted::default(),
        base: None,
    })
}
