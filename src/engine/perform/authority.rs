//! What somebody may do, asked of the forge when it matters, by number.
//!
//! Names change hands. So nothing that a name leads to is believed before the
//! forge has said that it has the number that is meant: the repository is looked
//! up by its number before a right in it is asked for, the person by theirs, and
//! a team is asked for by number and has to belong to the organisation that it
//! belonged to when it was pinned.

use crate::engine::LOOK_TWICE;
use crate::engine::context::KnownRepo;
use crate::failure::Failure;
use crate::gitea::event::{CommentSnapshot, Person, RepoRef};
use crate::gitea::{Access, Forge, ForgeError, Named, User};
use crate::mission::Level;
use crate::store::Pinned;

/// Looks up what a person may do in a repository now.
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
    if repo.directors.iter().any(|director| director.id() == person.id) {
        return Ok(Level::Director);
    }
    // Somebody else may have the repository's name by now, and administer what
    // they have there.
    let found = forge.known_repository(repo.reference.id).await?;
    let api = forge.repo_ref(&found.reference());
    // The name that the account has now, and that it is this account's. A former
    // name leads elsewhere, or to somebody else.
    let first = match api.permission(&person.login).await {
        Err(ForgeError::Moved { .. }) => None,
        other => unless_forbidden(other)?,
    };
    let mut permission = first.filter(|p| p.user.id == person.id);
    let mut login = None;
    if permission.is_some() {
        login = Some(person.login.clone());
    } else if let Some(user) = unless_forbidden(forge.user_by_id(person.id).await)? {
        permission = unless_forbidden(api.permission(&user.login).await)?.filter(|p| p.user.id == person.id);
        login = Some(user.login);
    }
    let access = permission.map_or(Access::None, |p| p.access);
    if access >= Access::Admin && repo.config.administrators {
        return Ok(Level::Director);
    }
    if let Some(login) = &login {
        for team in &repo.teams {
            if is_member(forge, team, person, login).await? {
                return Ok(Level::Director);
            }
        }
    }
    // Somebody who is a director may not be known as one yet: then nothing is
    // decided against them.
    if let Some(error) = &repo.undecided {
        return Err(error.clone());
    }
    // The permission call under-reports members of teams; a signed delivery
    // states the sender's right to write correctly.
    if access >= Access::Write || stated_write == Some(true) {
        return Ok(Level::Write);
    }
    Ok(if access >= Access::Read || stated_write.is_some() { Level::Read } else { Level::None })
}

/// Whether somebody belongs to a pinned team. Teams are read only by those who
/// belong to them; where one cannot be read, configured logins decide, and the
/// doctor says so.
async fn is_member(forge: &Forge, team: &Pinned, person: &Person, login: &str) -> Result<bool, ForgeError> {
    let Some(found) = unless_forbidden(forge.team(team.id()).await)? else { return Ok(false) };
    if found.organization.map(|org| org.id) != team.within() {
        tracing::warn!(%team, "it belongs to another organisation than it did; its members are no directors");
        return Ok(false);
    }
    Ok(unless_forbidden(forge.team_member(team.id(), login).await)?.is_some_and(|member| member.id == person.id))
}

/// What the bot may not ask is not known; what the forge could not answer is
/// asked again.
fn unless_forbidden<T>(result: Result<Option<T>, ForgeError>) -> Result<Option<T>, ForgeError> {
    match result {
        Err(error @ ForgeError::Forbidden { .. }) => {
            tracing::warn!(%error, "a permission could not be read; it counts as none");
            Ok(None)
        }
        other => other,
    }
}

/// Whom a login means that somebody wrote. `None`: nobody (any more). What is
/// wrong with one login is never the trouble of the commands beside it.
///
/// # Errors
/// Where the forge does not answer.
pub async fn account(forge: &Forge, login: &str) -> Result<Option<User>, ForgeError> {
    let found = match forge.account(login).await {
        Ok(Named::Nothing) | Err(ForgeError::Moved { .. }) => {
            tokio::time::sleep(LOOK_TWICE).await;
            match forge.account(login).await {
                Ok(Named::Nothing) => Ok(forge.user_in_search(login).await?.map_or(Named::Nothing, Named::Is)),
                found => found,
            }
        }
        found => found,
    };
    match found {
        Ok(Named::Is(user)) => Ok(Some(user)),
        Ok(Named::Renamed { .. } | Named::Nothing) => Ok(None),
        Err(error) if error.is_transient() || error.failure() == Failure::ForPeople => Err(error),
        Err(error) => {
            tracing::warn!(%error, login, "a login could not be looked up; it counts as nobody's");
            Ok(None)
        }
    }
}

/// A comment as it is now, and the issue that it stands under; `None`: it is not
/// there any more.
///
/// One answer is no proof: of an account that is gone the forge gives no comment
/// (500, for ever), and a proxy may say 404 for a moment. The list of the issue's
/// comments tells: it names `Ghost`, id -1, and shows what is there.
///
/// # Errors
/// Where the forge does not answer.
pub async fn comment_now(
    forge: &Forge,
    repo: &RepoRef,
    issue: i64,
    comment: i64,
) -> Result<Option<(i64, CommentSnapshot)>, ForgeError> {
    let failed = match forge.repo_ref(repo).comment(comment).get_with_issue().await {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) => None,
        Err(error @ ForgeError::Server { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    // By number: somebody else may have the repository's name by now, and no such
    // comment in what they have there.
    let found = match forge.repository_by_id(repo.id).await? {
        Some(now) => forge.repo_ref(&now.reference()).issue(issue).comments().await?,
        None => vec![],
    };
    match (found.into_iter().find(|found| found.id == comment), failed) {
        (Some(found), _) => Ok(Some((issue, found))),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}
