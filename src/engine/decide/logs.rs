//! The two comments that tell what a cell was: one at its start, one at its end.

use super::mission_tx::MissionTx;
use super::state::time_words;
use super::work::held_words;
use crate::cell::{self, Actor, Cell};
use crate::egress;
use crate::engine::facts::Facts;
use crate::mission::duration_words;
use crate::mission::publishing::PublishedWork;
use crate::publication::{CloseLog, Publication, SpawnLog};
use crate::store::Result;

impl MissionTx<'_> {
    /// Writes the log of a cell that is over, and whose work is published or was refused.
    pub fn publish_close_log(&mut self, cell: &Cell, facts: &mut Facts) -> Result<()> {
        let published = facts.publishing.published().cloned().unwrap_or_default();
        let log = Publication::CloseLog(self.close_log(cell, facts, published)?);
        let shown = self.publish_as(&log, Some(&cell.id))?;
        if facts.held().next().is_some() {
            facts.publishing.held_is_shown(shown);
        }
        Ok(())
    }

    /// The log of a cell that runs now.
    pub fn spawn_log(&self, cell: &Cell, facts: &Facts, planted: Vec<String>) -> Result<SpawnLog> {
        let running = facts.running.clone().unwrap_or_default();
        Ok(SpawnLog {
            cell: cell.id.to_string(),
            asked_by: cell.proposed_by.name(),
            approved_by: cell.approval.iter().flat_map(|a| a.by.iter().map(Actor::name)).collect(),
            participants: cell
                .participants
                .iter()
                .filter(|p| p.state != cell::ParticipantState::Gone)
                .map(|p| (p.identity.to_string(), p.role.to_string()))
                .collect(),
            backend: cell.spec.backend.to_string(),
            isolation: running.isolation.map_or_else(|| "unknown".to_owned(), |i| i.to_string()),
            applied: running.applied,
            missing: running.missing,
            network: cell.spec.network.to_string(),
            ttl: duration_words(cell.spec.ttl),
            until: cell.expires_at.map(time_words).unwrap_or_default(),
            commit: facts.commit.clone().unwrap_or_default(),
            branch: facts.branch.clone().unwrap_or_default(),
            behind: facts.behind,
            text: cell.approval.as_ref().map(|a| a.text.clone()).unwrap_or_default(),
            request: cell.approval.as_ref().map(|a| a.number).unwrap_or_default(),
            record: cell.approval.as_ref().map(|a| a.record.clone()).unwrap_or_default(),
            head: self.tx().head()?.to_string(),
            planted,
        })
    }

    /// The log of a cell that is over. `published`: where its work went.
    pub fn close_log(&self, cell: &Cell, facts: &Facts, published: PublishedWork) -> Result<CloseLog> {
        let harvest = facts.harvest.clone().unwrap_or_default();
        let rest = harvest.rest && harvest.tip.as_ref().is_some_and(|tip| !harvest.is_held(tip));
        let started = cell.started_at;
        Ok(CloseLog {
            cell: cell.id.to_string(),
            outcome: cell.outcome.map(|o| o.to_string()).unwrap_or_default(),
            reason: cell.reason.clone(),
            closed_by: facts.closed_by.clone().unwrap_or_else(|| "lazarus".to_owned()),
            duration: started.map_or_else(|| "no time at work".to_owned(), |at| duration_words(self.now().0 - at.0)),
            commits: harvest.commits,
            commit_count: harvest.commit_count,
            files: harvest.files,
            file_count: harvest.file_count,
            uncommitted: harvest.uncommitted,
            rest,
            notes: harvest.notes,
            unknown: harvest.unknown,
            met: facts.usage.met.0.clone().into_iter().collect(),
            reached: facts.usage.egress.as_ref().map(reached).unwrap_or_default(),
            denied: (facts.usage.egress.iter())
                .flat_map(|report| report.refused.iter().map(|(why, count)| (why.words().to_owned(), *count)))
                .collect(),
            exits: cell
                .participants
                .iter()
                .filter_map(|p| match &p.run {
                    cell::RunState::Ended { exit, .. } => Some((p.identity.to_string(), exit.to_string())),
                    _ => None,
                })
                .collect(),
            branch: published.branch,
            renamed: published.renamed,
            others: published.others,
            pull: published.pull.map(|(number, _)| number),
            refused: published.refused,
            others_refused: published.others_refused,
            held: facts.held().map(|held| held_words(&cell.id, held)).collect(),
            head: self.tx().head()?.to_string(),
            grace_until: started.map(|_| time_words(self.now().plus(cell.policy.closed_grace))),
        })
    }
}

/// Hosts in a close log; the others are counted together.
const HOSTS_SHOWN: usize = 10;

/// Which hosts a cell reached, most bytes first.
fn reached(report: &egress::Report) -> Vec<(String, u64, String, String)> {
    let mut hosts: Vec<(&str, egress::Count)> = report.hosts.iter().map(|(h, c)| (h.as_str(), *c)).collect();
    hosts.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes_in.saturating_add(count.bytes_out)));
    let mut others = report.other_hosts;
    for (_, count) in hosts.iter().skip(HOSTS_SHOWN) {
        others.connections += count.connections;
        others.bytes_out += count.bytes_out;
        others.bytes_in += count.bytes_in;
    }
    hosts.truncate(HOSTS_SHOWN);
    if others.connections > 0 {
        hosts.push(("other hosts", others));
    }
    let size = |bytes: u64| if bytes < 10_000 { format!("{bytes} B") } else { format!("{} kB", bytes.div_ceil(1000)) };
    hosts.into_iter().map(|(h, c)| (h.to_owned(), c.connections, size(c.bytes_out), size(c.bytes_in))).collect()
}
