//! Calls that concern the server as a whole.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::TryStreamExt;
use reqwest::Method;
use serde::Deserialize;

use super::error::ForgeError;
use super::event::RepoRef;
use super::hook::HooksApi;
use super::model::{ApiSettings, Named, Organisation, Repository, ServerVersion, Team, UiSettings, User};
use super::paging::{Sender, Total, pages};
use super::repository::RepoApi;
use super::transport::{Answer, Ask, ForgeOptions, Payload, Repeat, Transport, optional, segment};

/// One Gitea or Forgejo server, spoken to with one token. Cheap to clone: all
/// clones share their connections.
///
/// ```no_run
/// # async fn example(options: lazarus_gitea::ForgeOptions) -> Result<(), lazarus_gitea::ForgeError> {
/// let forge = lazarus_gitea::Forge::new(options)?;
/// for comment in forge.repo("acme", "widget").issue(7).comments().await? {
///     tracing::info!(id = comment.id, author = comment.author.login);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Forge {
    transport: Arc<Transport>,
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forge").field("api", &self.transport.base().as_str()).finish_non_exhaustive()
    }
}

/// The answer to [`Forge::request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status, always a 2xx.
    pub status: u16,
    /// The body; `null` if there is none.
    pub body: serde_json::Value,
}

impl Forge {
    /// Creates a client for this server. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::Options`] if the URL or token is not usable, or if the system has no certificates for `https`.
    pub fn new(options: ForgeOptions) -> Result<Self, ForgeError> {
        Ok(Self { transport: Arc::new(Transport::new(options)?) })
    }

    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, ForgeError> {
        self.transport.send(ask).await
    }

    pub(super) fn look_twice(&self) -> Option<Duration> {
        self.transport.look_twice()
    }

    fn sender(&self) -> Sender {
        let forge = self.clone();
        Arc::new(move |ask| {
            let forge = forge.clone();
            Box::pin(async move { forge.send(&ask).await })
        })
    }

    /// Sends any call of the API that has no method here. `path` is below `/api/v1` and begins with `/`; it is sent
    /// unchanged. Only a GET is retried.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<RawAnswer, ForgeError> {
        let steps_up = path.split(['?', '#']).next().unwrap_or_default().split('/').any(|part| {
            let part = part.to_ascii_lowercase().replace("%2e", ".");
            part == "." || part == ".."
        });
        if !path.starts_with('/') || steps_up {
            return Err(ForgeError::bad_name("a path of the API", path));
        }
        let repeat = if method == Method::GET { Repeat::Safe } else { Repeat::Never };
        let ask = match body {
            Some(body) => Ask::json(method, path, body, repeat),
            None => Ask { method, path: path.to_owned(), payload: Payload::Nothing, repeat },
        };
        let answer = self.send(&ask).await?;
        let body = if answer.body.is_empty() { serde_json::Value::Null } else { answer.parse()? };
        Ok(RawAnswer { status: answer.status.as_u16(), body })
    }

    /// The server's version.
    pub async fn version(&self) -> Result<ServerVersion, ForgeError> {
        #[derive(Deserialize)]
        struct Raw {
            version: String,
        }
        let raw: Raw = self.send(&Ask::get("/version")).await?.parse()?;
        Ok(ServerVersion::from_raw(raw.version))
    }

    /// The forge's clock, in whole seconds. Asked without the token, because every answer has a date. `None` if
    /// there was no answer, or none with a date.
    pub async fn date(&self) -> Option<jiff::Timestamp> {
        let headers = self.transport.headers("/version").await?;
        let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
    }

    /// The account that the token belongs to.
    pub async fn current_user(&self) -> Result<User, ForgeError> {
        self.send(&Ask::get("/user")).await?.parse()
    }

    /// The account that has this name now. A former name gives [`ForgeError::Moved`]; use [`Forge::user_by_id`]
    /// then.
    pub async fn user(&self, login: &str) -> Result<Option<User>, ForgeError> {
        let path = format!("/users/{}", segment("an account", login)?);
        match optional(self.send(&Ask::get(path)).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// Finds out which account a login refers to now. A login that the forge redirects to another name refers to
    /// nobody any more, because anybody can take it.
    pub async fn account(&self, login: &str) -> Result<Named<User>, ForgeError> {
        let moved = match self.user(login).await {
            Ok(Some(user)) => return Ok(Named::Is(user)),
            Ok(None) => return Ok(Named::Nothing),
            Err(error @ ForgeError::Moved { .. }) => error,
            Err(error) => return Err(error),
        };
        match self.user(&renamed_to(&moved, "users")?).await {
            Ok(Some(user)) => Ok(Named::Renamed { id: user.id, to: user.login }),
            Ok(None) => Err(moved),
            Err(error) => Err(error),
        }
    }

    /// Finds out which organisation a name refers to now.
    pub async fn organisation(&self, name: &str) -> Result<Named<Organisation>, ForgeError> {
        let ask = |name: &str| segment("an organisation", name).map(|name| Ask::get(format!("/orgs/{name}")));
        let moved = match optional(self.send(&ask(name)?).await) {
            Ok(Some(answer)) => return answer.parse().map(Named::Is),
            Ok(None) => return Ok(Named::Nothing),
            Err(error @ ForgeError::Moved { .. }) => error,
            Err(error) => return Err(error),
        };
        match optional(self.send(&ask(&renamed_to(&moved, "orgs")?)?).await)? {
            Some(answer) => {
                let found: Organisation = answer.parse()?;
                Ok(Named::Renamed { id: found.id, to: found.name })
            }
            None => Err(moved),
        }
    }

    /// An account by its number.
    pub async fn user_by_id(&self, id: i64) -> Result<Option<User>, ForgeError> {
        // Without a positive number the search would list all accounts.
        if id <= 0 {
            return Ok(None);
        }
        let found = self.search_users(&format!("uid={id}")).await?;
        Ok(found.into_iter().find(|user| user.id == id))
    }

    /// An account by its login, as the search finds it: a second opinion when [`user`](Self::user) says that there
    /// is none. The search omits accounts that the token's account may not see.
    pub async fn user_in_search(&self, login: &str) -> Result<Option<User>, ForgeError> {
        let found = self.search_users(&format!("q={}", segment("an account", login)?)).await?;
        Ok(found.into_iter().find(|user| user.login.eq_ignore_ascii_case(login)))
    }

    async fn search_users(&self, query: &str) -> Result<Vec<User>, ForgeError> {
        #[derive(Deserialize)]
        struct Found {
            data: Option<Vec<User>>,
        }
        let found: Found = self.send(&Ask::get(format!("/users/search?{query}"))).await?.parse()?;
        Ok(found.data.unwrap_or_default())
    }

    /// Settings of the web interface: which reactions are allowed.
    pub async fn ui_settings(&self) -> Result<UiSettings, ForgeError> {
        self.send(&Ask::get("/settings/ui")).await?.parse()
    }

    /// Settings of the API: page sizes.
    pub async fn api_settings(&self) -> Result<ApiSettings, ForgeError> {
        self.send(&Ask::get("/settings/api")).await?.parse()
    }

    /// A repository by its number, whatever its present name is.
    pub async fn repository_by_id(&self, id: i64) -> Result<Option<Repository>, ForgeError> {
        match optional(self.send(&Ask::get(format!("/repositories/{id}"))).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// The webhooks of an organisation. The token's account must be one of its owners; otherwise calls give
    /// [`ForgeError::Forbidden`].
    pub fn organisation_hooks(&self, name: &str) -> HooksApi {
        HooksApi::Organisation(self.clone(), name.into())
    }

    /// The same for a repository that must exist; otherwise [`ForgeError::NotFound`].
    pub async fn known_repository(&self, id: i64) -> Result<Repository, ForgeError> {
        self.send(&Ask::get(format!("/repositories/{id}"))).await?.parse()
    }

    /// The teams of an organisation.
    pub async fn org_teams(&self, org: &str) -> Result<Vec<Team>, ForgeError> {
        let path = format!("/orgs/{}/teams", segment("an organisation", org)?);
        pages(self.sender(), path, Total::OfTheList).try_collect().await
    }

    /// A team by its number, with the organisation that it belongs to. Also `None` if the token's account has
    /// nothing to do with that organisation. If it belongs to the organisation but not to the team:
    /// [`ForgeError::Forbidden`].
    pub async fn team(&self, id: i64) -> Result<Option<Team>, ForgeError> {
        match optional(self.send(&Ask::get(format!("/teams/{id}"))).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// A member of a team, by their present name. Also `None` if the token's account neither belongs to the team
    /// nor owns the organisation: the forge does not distinguish the two.
    pub async fn team_member(&self, team_id: i64, login: &str) -> Result<Option<User>, ForgeError> {
        let path = format!("/teams/{team_id}/members/{}", segment("an account", login)?);
        match optional(self.send(&Ask::get(path)).await)? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// A repository known only by name. If it has moved, calls give [`ForgeError::Moved`].
    pub fn repo(&self, owner: &str, name: &str) -> RepoApi {
        RepoApi::new(self.clone(), None, owner, name)
    }

    /// A repository with a known number. If it has moved, it is found again.
    pub fn repo_ref(&self, repo: &RepoRef) -> RepoApi {
        RepoApi::new(self.clone(), Some(repo.id), &repo.owner, &repo.name)
    }
}

/// The new name in a redirect that leads to a thing of the same kind on this forge. Any other redirect is returned
/// as the error.
fn renamed_to(moved: &ForgeError, kind: &str) -> Result<String, ForgeError> {
    let name = match moved {
        ForgeError::Moved { to, outside: false, .. } => {
            let mut parts = to.rsplit('/');
            let name = parts.next().filter(|_| parts.next() == Some(kind)).unwrap_or_default();
            percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned()
        }
        _ => String::new(),
    };
    if name.is_empty() { Err(moved.clone()) } else { Ok(name) }
}
