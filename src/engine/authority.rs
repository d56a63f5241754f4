//! What somebody may do, asked of the forge when it matters, by number.

use super::context::KnownRepo;
use crate::gitea::event::Person;
use crate::gitea::{Access, Forge, ForgeError};
use crate::mission::Level;

/// Looks up what a person may do in a repository now.
///
/// Names change hands, so what the forge says of a name counts only where it
/// says that the name is this account's.
///
/// # Errors
/// Where the forge does not answer; then nothing is decided.
pub async fn level_of(
    forge: &Forge,
    repo: &KnownRepo,
    person: &Person,
    stated_write: Option<bool>,
) -> Result<Level, ForgeError> {
    if person.id <= 0 {
        return Ok(Level::None);
    }
    if repo.directors.contains(&person.id) {
        return Ok(Level::Director);
    }
    let api = forge.repo_ref(&repo.reference);
    // The name that the account has now.
    let mut login = person.login.clone();
    let mut permission = ask(api.permission(&login).await)?;
    if permission.as_ref().is_none_or(|p| p.user.id != person.id) {
        permission = None;
        if let Some(user) = ask(forge.user_by_id(person.id).await)? {
            login = user.login;
            permission = ask(api.permission(&login).await)?.filter(|p| p.user.id == person.id);
        }
    }
    let access = permission.map_or(Access::None, |p| p.access);
    if access >= Access::Admin && repo.config.administrators {
        return Ok(Level::Director);
    }
    for team in &repo.config.director_teams {
        let Some((org, name)) = team.split_once('/') else { continue };
        // Teams are read only by those who belong to them; where they cannot
        // be read, configured logins decide, and the doctor says so.
        let teams = match forge.org_teams(org).await {
            Ok(teams) => teams,
            Err(error) if is_for_now(&error) => return Err(error),
            Err(_) => continue,
        };
        if let Some(team) = teams.iter().find(|t| t.name.eq_ignore_ascii_case(name))
            && forge.team_has_member(team.id, &login).await?
        {
            return Ok(Level::Director);
        }
    }
    // The permission call under-reports members of teams; a signed delivery
    // states the sender's right to write correctly.
    if access >= Access::Write || stated_write == Some(true) {
        return Ok(Level::Write);
    }
    Ok(if access >= Access::Read || stated_write.is_some() { Level::Read } else { Level::None })
}

/// Whether it says nothing of the person: the forge is busy, or the bot's token
/// is being changed.
fn is_for_now(error: &ForgeError) -> bool {
    error.is_transient() || matches!(error, ForgeError::Unauthorized { .. })
}

/// What the bot may not ask is not known; what the forge could not answer is
/// asked again.
fn ask<T>(result: Result<Option<T>, ForgeError>) -> Result<Option<T>, ForgeError> {
    match result {
        Err(error) if is_for_now(&error) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a permission could not be read; it counts as none");
            Ok(None)
        }
        ok => ok,
    }
}
