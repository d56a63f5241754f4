//! `/summon AGENT` and `/team AGENTS`: asks for a cell.

use super::{Asked, Done};
use crate::cell::{self, AutoRevive, BackendKind, Spec};
use crate::engine::context::Context;
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::{
    Concern, Level, Moment, OPEN_MAX, Origin, SummonOptions, TEMPLATE_MARKER, duration_words, hidden_in_title,
    hidden_parts,
};
use crate::publication::SHOWN_BYTES_MAX;
use crate::store::Result;

/// `/summon` and `/team`: a director's own is request and approval in one, a
/// writer's is put before the directors.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, agents: &[String], options: &SummonOptions) -> Result<Done> {
    if !mission.known().open {
        return Ok(Done::no("the issue is closed; reopen it to ask for a cell"));
    }
    let mut spec = match spec(mission.context(), agents, options) {
        Ok(spec) => spec,
        Err(why) => return Ok(Done::no(why)),
    };
    spec.base.clone_from(&asked.base);
    let most = mission.context().config.policy.max_cells_per_mission as usize;
    if mission.live_cells()?.len() >= most {
        return Ok(Done::no(format!("a mission may have {most} live cells; close one first")));
    }
    if asked.text.hash != mission.known().text {
        // The event's text is not the newest that is known: somebody edited in between.
        return Ok(Done::no(
            "the issue's text was changed since this command was given; look at it and give the command again",
        ));
    }
    let director = asked.level == Level::Director;
    if let Some(given) = asked.given.filter(|_| director) {
        let seen = mission.has_seen(asked.id(), Concern::Edit, asked.given)?;
        if !mission.known().settled_for(given, mission.rules().settle, seen) {
            mission.known_mut().warn(asked.id(), Concern::Edit);
            return mission.too_soon("summons", "Look at it and give the command again if that is what you mean.");
        }
        let hidden = [hidden_in_title(&asked.text.title), hidden_parts(&asked.text.body, &[TEMPLATE_MARKER])].concat();
        if !hidden.is_empty() && !mission.has_seen(asked.id(), Concern::Hidden, asked.given)? {
            mission.known_mut().warn(asked.id(), Concern::Hidden);
            return Ok(Done::no(format!(
                "The page of this issue does not show all of the text that the agents would be given. It has {}. Give the command again if that is what you mean.",
                hidden.join("; ")
            )));
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
            return Ok(Done::no(format!("This cannot be put before the directors because of {what}: {why}.")));
        }
    }
    if mission.known().records.len() >= OPEN_MAX {
        return Ok(Done::no(format!(
            "{OPEN_MAX} requests are before the directors already; one of them has to be decided first"
        )));
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
    Ok(Done::ok(format!(
        "Recorded as request {0} (cell `{1}`): a director approves it with `/approve {0}`, or rejects it with `/reject {0}`.",
        record.number, record.cell
    ))
    .on(&record.cell))
}

/// What is asked for, as it would run. The error is for people.
fn spec(context: &Context, agents: &[String], options: &SummonOptions) -> std::result::Result<Spec, String> {
    let defaults = context.defaults();
    for agent in agents {
        if !defaults.agents.contains(agent) {
            let near = context.profiles.nearest(agent).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            return Err(format!("there is no agent `{agent}`; allowed are {}{near}", defaults.agents.join(", ")));
        }
    }
    if agents.len() > defaults.agents_max {
        return Err(format!("a cell has at most {} agents", defaults.agents_max));
    }
    let backend = options.backend.unwrap_or(BackendKind::Process);
    if !defaults.backends.contains(&backend) {
        let there: Vec<&str> = defaults.backends.iter().map(|b| b.word()).collect();
        return Err(format!("backend=`{backend}` is not available here; allowed are {}", there.join(", ")));
    }
    let isolation = options.isolation.unwrap_or(defaults.isolation_min);
    if isolation < defaults.isolation_min {
        return Err(format!(
            "isolation=`{isolation}` is weaker than `{}`, the least that policy allows",
            defaults.isolation_min
        ));
    }
    let network = options.network.unwrap_or(cell::Network::None);
    if let Some(why) = context.network_refusal(network, &[]) {
        return Err(format!("network=`{network}`: {why}"));
    }
    let ttl = options.ttl.unwrap_or(defaults.ttl_default).min(options.ttl.unwrap_or(defaults.policy.ttl_max));
    if ttl > defaults.policy.ttl_max {
        return Err(format!(
            "ttl is longer than {}, the most that policy allows",
            duration_words(defaults.policy.ttl_max)
        ));
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
