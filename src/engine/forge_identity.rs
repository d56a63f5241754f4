//! Who we are, which repositories we serve, who directs them: learnt from the
//! forge, each repository by itself. What is wrong with one is no trouble of the
//! others.
//!
//! Each name of the configuration is looked up once, and what it meant then is
//! pinned. A name that meant nothing when it was first looked at goes on meaning
//! nothing: whoever takes it later could be anybody. `lazarus pins forget` lets a
//! name be looked up anew.

use super::Engine;
use super::context::{KnownRepo, Trouble};
use crate::config::Repository as Configured;
use crate::failure::Failure;
use crate::gitea::event::{Person, RepoRef};
use crate::gitea::{Forge, ForgeError, Named, RepoApi, Repository};
use crate::store::{Pin, PinKind, Pinned, StoreError, label_name};
use std::time::Duration;

/// The label that approves. Names are not unique: the pinned id counts.
pub const APPROVED: &str = "lazarus/approved";
/// How long to wait before a name is looked at again that seems to mean nothing:
/// what is noted then is noted for good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why the forge was not asked to the end: for its identity, or in a round of polling. The
/// next time it is asked from the same place.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The forge.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found out about one name.
enum Found {
    /// It means this.
    Is(Pinned),
    /// It means nothing, in words for people.
    Nothing(String),
    /// It cannot be seen yet, and is waited for.
    Unseen(String),
    /// The forge could not be asked now, in words for people.
    Unknown(String, ForgeError),
}

/// Looks everything up anew. Returns whether nothing is left to be found out.
///
/// # Errors
/// Where not even our own name can be found out: then nothing was learnt.
pub async fn refresh(engine: &Engine, forge: &Forge) -> Result<bool, ReconcileError> {
    let me = forge.current_user().await?;
    let bot = Person { id: me.id, login: me.login };
    let text = serde_json::to_string(&bot).map_err(StoreError::json("the bot's account"))?;
    engine.store.transact(move |tx| tx.put_meta("bot", &text)).await?;
    engine.context.change_identity(|known| known.bot = Some(bot));
    let mut complete = true;
    for config in engine.context.config.repositories.clone() {
        let name = config.name.clone();
        let since = engine.clock.now().0 / 1000;
        // What is said there from now on is caught up once it can be read.
        engine.store.transact(move |tx| serving_since(tx, &name, since).map(drop)).await?;
        let mut troubles = vec![];
        let found = Refresh { engine, forge, config: &config, troubles: &mut troubles }.refresh().await?;
        complete &= troubles.iter().all(|trouble| !trouble.may_pass);
        for trouble in &troubles {
            if !engine.context.knows_trouble(&config.name, trouble) {
                tracing::warn!(repository = config.name, "{}", trouble.words);
            }
        }
        engine.context.change_identity(|known| {
            known.troubles.insert(config.name.clone(), troubles);
            if let Some(found) = found {
                known.repos.insert(found.reference.id, found);
            }
        });
    }
    Ok(complete)
}

/// Since when a repository is to be served, in seconds since the epoch: since
/// this Lazarus first tried.
pub fn serving_since(tx: &crate::store::Tx<'_>, name: &str, now: i64) -> Result<i64, StoreError> {
    let key = format!("serving_since:{}", name.to_lowercase());
    match tx.meta(&key)?.and_then(|text| text.parse().ok()) {
        Some(since) => Ok(since),
        None => {
            tx.put_meta(&key, &now.to_string())?;
            Ok(now)
        }
    }
}

/// What a former daemon learnt of a repository: enough to go on with while the
/// forge is away. `None` where nothing is known yet. The second value says whether
/// every name that the configuration gives for it was looked at.
pub fn restore(tx: &crate::store::Tx<'_>, config: &Configured) -> Result<(Option<KnownRepo>, bool), StoreError> {
    let Some(pin) = tx.pin(PinKind::Repository, &config.name)? else { return Ok((None, false)) };
    if pin.id == 0 {
        return Ok((None, true));
    }
    let id = pin.id;
    let mut looked_at = true;
    let mut pins = |kind, names: &[String]| -> Result<Vec<Pinned>, StoreError> {
        let mut found = vec![];
        for name in names {
            let pin = tx.pin(kind, name)?;
            looked_at &= pin.is_some();
            found.extend(pin.and_then(|pin| pin.pinned()));
        }
        Ok(found)
    };
    let (directors, teams) = (pins(PinKind::Account, &config.directors)?, pins(PinKind::Team, &config.director_teams)?);
    let (owner, name) = config.owner_and_name();
    let as_configured = RepoRef { id, owner: owner.to_owned(), name: name.to_owned() };
    let reference = tx.meta(&reference_key(id))?.and_then(|text| serde_json::from_str(&text).ok());
    let owner = tx.meta(&owner_key(id))?.and_then(|number| number.parse().ok());
    let label = tx.pin(PinKind::Label, &label_name(id, APPROVED))?;
    looked_at &= label.is_some();
    let known = KnownRepo {
        reference: reference.unwrap_or(as_configured),
        owner,
        directors,
        teams,
        undecided: None,
        approved_label: label.as_ref().and_then(Pin::pinned),
        label_off: label.and_then(|label| label.fault),
        config: config.clone(),
        made_at: tx.meta(&made_at_key(id))?.and_then(|text| text.parse().ok()).unwrap_or(0),
    };
    Ok((Some(known), looked_at))
}

fn made_at_key(id: i64) -> String {
    format!("made_at:{id}")
}

fn reference_key(id: i64) -> String {
    format!("reference:{id}")
}

/// Where it is kept who owns a repository: not a pin, for it can be transferred.
fn owner_key(id: i64) -> String {
    format!("owner:{id}")
}

/// Looks one repository up.
struct Refresh<'a> {
    engine: &'a Engine,
    forge: &'a Forge,
    config: &'a Configured,
    troubles: &'a mut Vec<Trouble>,
}

impl Refresh<'_> {
    fn trouble(&mut self, words: String, may_pass: bool) {
        self.troubles.push(Trouble { words, may_pass, unserved: false });
    }

    /// The repository is not served, or not any better than before.
    fn unserved(&mut self, words: String, may_pass: bool) {
        self.troubles.push(Trouble { words, may_pass, unserved: true });
    }

    async fn refresh(&mut self) -> Result<Option<KnownRepo>, ReconcileError> {
        let Some(found) = self.repository().await? else { return Ok(None) };
        let reference = found.reference();
        let labels = match self.approval_label(&reference).await {
            Err(ReconcileError::Forge(error)) => {
                self.unserved(format!("its labels could not be read: {error}"), true);
                return Ok(None);
            }
            labels => labels?,
        };
        let (mut directors, mut teams, mut undecided) = (vec![], vec![], None);
        for login in &self.config.directors {
            let found = self.account(login).await?;
            self.take(found, &mut directors, &mut undecided);
        }
        for team in &self.config.director_teams {
            let found = self.team(team).await?;
            self.take(found, &mut teams, &mut undecided);
        }
        let (approved_label, label_off) = labels;
        if let Some(off) = &label_off {
            self.trouble(format!("approval by label is off: {off}"), false);
        }
        let (id, owner) = (reference.id, found.owner.id);
        let text = serde_json::to_string(&reference).map_err(StoreError::json("name of a repository"))?;
        let made_at = found.created_at.map_or(0, jiff::Timestamp::as_second);
        self.engine
            .store
            .transact(move |tx| {
                tx.put_meta(&made_at_key(id), &made_at.to_string())?;
                tx.put_meta(&owner_key(id), &owner.to_string())?;
                tx.put_meta(&reference_key(id), &text)
            })
            .await?;
        Ok(Some(KnownRepo {
            reference,
            owner: Some(owner),
            config: self.config.clone(),
            directors,
            teams,
            undecided,
            approved_label,
            label_off,
            made_at,
        }))
    }

    /// Takes over what was found out about one name of a director or a team.
    fn take(&mut self, found: Found, pinned: &mut Vec<Pinned>, undecided: &mut Option<ForgeError>) {
        match found {
            Found::Is(found) => pinned.push(found),
            Found::Nothing(why) => self.trouble(why, false),
            Found::Unseen(why) => self.trouble(why, true),
            Found::Unknown(why, error) => {
                self.trouble(why, true);
                // What is for people to mend would keep everybody waiting for long.
                if !matches!(error.failure(), Failure::ForPeople | Failure::Lasting) {
                    *undecided = Some(error);
                }
            }
        }
    }

    async fn pin(&self, kind: PinKind, name: &str) -> Result<Option<Pin>, StoreError> {
        let name = name.to_owned();
        self.engine.store.read(move |tx| tx.pin(kind, &name)).await
    }

    /// Pins a name for good, and notes it in the ledger: rights follow from it.
    async fn put_pin(&self, pin: Pin) -> Result<Pin, StoreError> {
        let now = self.engine.clock.now().0;
        self.engine
            .store
            .transact(move |tx| {
                let pin = Pin { at: now, ..pin };
                let before = tx.pin(pin.kind, &pin.name)?;
                let held = match &before {
                    // Waited for within what it belongs to, and there now.
                    Some(old) if old.id == 0 && pin.id > 0 && old.within.is_some() && old.fault.is_none() => {
                        tx.forget_pin(pin.kind, &pin.name)?;
                        tx.put_pin(&pin)?
                    }
                    _ => tx.put_pin(&pin)?,
                };
                if before.as_ref() != Some(&held) {
                    tx.note_pin("name_pinned", &crate::cell::Actor::System, &held, now)?;
                }
                Ok(held)
            })
            .await
    }

    /// A name of nothing, for good.
    async fn put_nothing(&self, kind: PinKind, name: &str, why: &str) -> Result<(), StoreError> {
        let fault = Some(why.to_owned());
        self.put_pin(Pin { kind, name: name.to_owned(), id: 0, within: None, at: 0, fault }).await.map(drop)
    }

    /// What is noted for good is looked at again, with something in between that
    /// the forge has to answer well: a proxy before a forge that starts says 404
    /// to everything.
    async fn look_again(&self) -> Result<(), ForgeError> {
        tokio::time::sleep(LOOK_AGAIN).await;
        self.forge.current_user().await.map(drop)
    }

    async fn repository(&mut self) -> Result<Option<Repository>, ReconcileError> {
        let name = self.config.name.clone();
        let pin = self.pin(PinKind::Repository, &name).await?;
        if let Some(pin) = pin.as_ref().filter(|pin| pin.id > 0) {
            // By number: somebody else may have the name by now.
            return Ok(match self.forge.repository_by_id(pin.id).await {
                Ok(Some(found)) => Some(found),
                Ok(None) => {
                    let id = pin.id;
                    self.unserved(
                        format!(
                            "the forge does not show the repository `{name}` (id {id}) any more: it was deleted, or the bot's account lost its rights in it. A new one of that name is another one (`lazarus pins forget repository {name}`)"
                        ),
                        true,
                    );
                    None
                }
                Err(error) => {
                    self.unserved(format!("the repository `{name}` could not be read: {error}"), true);
                    None
                }
            });
        }
        if let Some(fault) = pin.as_ref().and_then(|pin| pin.fault.clone()) {
            self.unserved(fault, false);
            return Ok(None);
        }
        let (owner, short) = self.config.owner_and_name();
        match self.forge.repo(owner, short).get().await {
            Ok(Some(found)) => {
                if let Some(expected) = pin.and_then(|pin| pin.within).filter(|owner| *owner != found.owner.id) {
                    let why = format!(
                        "the repository `{name}` now belongs to another account of that name (id {}, not {expected}), so it is not served; if that is right: `lazarus pins forget repository {name}`",
                        found.owner.id
                    );
                    self.unserved(why, false);
                    return Ok(None);
                }
                let kind = PinKind::Repository;
                let pin = Pin { kind, name, id: found.id, within: Some(found.owner.id), at: 0, fault: None };
                self.put_pin(pin).await?;
                Ok(Some(found))
            }
            Ok(None) => {
                self.absent_repository(pin.is_some()).await?;
                Ok(None)
            }
            Err(error @ ForgeError::Moved { .. }) => {
                let Some(now) = renamed_repository(self.forge, &error).await else {
                    self.unserved(format!("the repository `{name}` could not be read: {error}"), true);
                    return Ok(None);
                };
                let why = format!(
                    "the repository `{name}` of [[repositories]] is now named `{}` (id {}), so it is not served: write its new name into the configuration",
                    now.reference().full_name(),
                    now.id
                );
                self.put_nothing(PinKind::Repository, &name, &why).await?;
                self.unserved(why, false);
                Ok(None)
            }
            Err(error) => {
                self.unserved(format!("the repository `{name}` could not be read: {error}"), true);
                Ok(None)
            }
        }
    }

    /// A repository that cannot be seen yet. It is waited for, but only below the
    /// account that has its owner's name now.
    async fn absent_repository(&mut self, waited_for: bool) -> Result<(), ReconcileError> {
        let name = self.config.name.clone();
        let not_seen = format!(
            "there is no repository `{name}`, or the bot's account cannot see it: correct the name in [[repositories]], or add the bot's account to it as an administrator"
        );
        if waited_for {
            self.unserved(not_seen, true);
            return Ok(());
        }
        let (owner, _) = self.config.owner_and_name();
        match self.owner(owner).await {
            Ok(Some(owner)) => {
                let kind = PinKind::Repository;
                let pin = Pin { kind, name, id: 0, within: Some(owner), at: 0, fault: None };
                self.put_pin(pin).await?;
                self.unserved(not_seen, true);
            }
            Ok(None) => {
                let why = format!(
                    "there was no account or organisation `{owner}` that the bot could see when `{name}` was first looked for, so it is not served: whoever takes that name could be anybody. If it is right now: `lazarus pins forget repository {name}`"
                );
                self.put_nothing(PinKind::Repository, &name, &why).await?;
                self.unserved(why, false);
            }
            Err(error) => self.unserved(format!("the repository `{name}` could not be read: {error}"), true),
        }
        Ok(())
    }

    /// The number of the account or organisation that has a name, looked at twice.
    async fn owner(&self, name: &str) -> Result<Option<i64>, ForgeError> {
        for look in 0..2 {
            match self.forge.account(name).await? {
                Named::Is(user) => return Ok(Some(user.id)),
                Named::Renamed { .. } => return Ok(None),
                Named::Nothing => {}
            }
            // An organisation that is not everybody's to see.
            match self.forge.organisation(name).await? {
                Named::Is(org) => return Ok(Some(org.id)),
                Named::Renamed { .. } => return Ok(None),
                Named::Nothing if look == 0 => self.look_again().await?,
                Named::Nothing => {}
            }
        }
        Ok(None)
    }

    async fn account(&self, login: &str) -> Result<Found, ReconcileError> {
        let whose = format!("of [[repositories]] {} directors", self.config.name);
        if let Some(pin) = self.pin(PinKind::Account, login).await? {
            return Ok(match pin.pinned() {
                Some(pinned) => Found::Is(pinned),
                None => Found::Nothing(pin.fault.unwrap_or_else(|| format!("the account `{login}` {whose} is nobody"))),
            });
        }
        let mut found = self.forge.account(login).await;
        if matches!(found, Ok(Named::Nothing)) {
            found = match self.look_again().await {
                Ok(()) => self.forge.account(login).await,
                Err(error) => Err(error),
            };
        }
        let why = match found {
            Ok(Named::Is(user)) => {
                let kind = PinKind::Account;
                let pin = Pin { kind, name: login.to_owned(), id: user.id, within: None, at: 0, fault: None };
                return Ok(self.put_pin(pin).await?.pinned().map_or_else(
                    || Found::Nothing(format!("the account `{login}` {whose} could not be pinned")),
                    Found::Is,
                ));
            }
            Ok(Named::Renamed { id, to }) => format!(
                "the account `{login}` {whose} is now named `{to}` (id {id}), so nobody is a director by that name: write the new name into the configuration"
            ),
            Ok(Named::Nothing) => format!(
                "there was no account `{login}` ({whose}) when it was first looked for, so nobody is a director by that name: whoever takes it could be anybody. If it is right now: `lazarus pins forget account {login}`"
            ),
            Err(error) => {
                let why = format!("the account `{login}` {whose} could not be looked up: {error}");
                return Ok(Found::Unknown(why, error));
            }
        };
        self.put_nothing(PinKind::Account, login, &why).await?;
        Ok(Found::Nothing(why))
    }

    async fn team(&self, team: &str) -> Result<Found, ReconcileError> {
        let whose = format!("of [[repositories]] {} director_teams", self.config.name);
        let pin = self.pin(PinKind::Team, team).await?;
        if let Some(pinned) = pin.as_ref().and_then(Pin::pinned) {
            return Ok(self.pinned_team(pinned, &whose).await);
        }
        if let Some(fault) = pin.as_ref().and_then(|pin| pin.fault.clone()) {
            return Ok(Found::Nothing(fault));
        }
        let Some((org, name)) = team.split_once('/') else { return Ok(Found::Nothing(format!("`{team}` is no team"))) };
        let expected = pin.as_ref().and_then(|pin| pin.within);
        let mut found = self.forge.organisation(org).await;
        if matches!(found, Ok(Named::Nothing)) && expected.is_none() {
            found = match self.look_again().await {
                Ok(()) => self.forge.organisation(org).await,
                Err(error) => Err(error),
            };
        }
        let again = format!("If it is right now: `lazarus pins forget team {team}`");
        let org_id = match found {
            Ok(Named::Is(found)) if expected.is_none_or(|expected| expected == found.id) => found.id,
            Ok(Named::Is(found)) => {
                return Ok(Found::Nothing(format!(
                    "the organisation `{org}` {whose} is another one now (id {}), so nobody is a director by it. {again}",
                    found.id
                )));
            }
            Ok(Named::Renamed { id, to }) => {
                let why = format!(
                    "the organisation `{org}` {whose} is now named `{to}` (id {id}), so nobody is a director by it: write the new name into the configuration"
                );
                self.put_nothing(PinKind::Team, team, &why).await?;
                return Ok(Found::Nothing(why));
            }
            Ok(Named::Nothing) if expected.is_some() => {
                return Ok(Found::Unseen(format!("the forge does not show the organisation `{org}` {whose} any more")));
            }
            Ok(Named::Nothing) => {
                let why = format!(
                    "there was no organisation `{org}` ({whose}) that the bot could see when it was first looked for, so nobody is a director by it: whoever takes that name could be anybody. {again}"
                );
                self.put_nothing(PinKind::Team, team, &why).await?;
                return Ok(Found::Nothing(why));
            }
            Err(error) => {
                let why = format!("the organisation `{org}` {whose} could not be looked up: {error}");
                return Ok(Found::Unknown(why, error));
            }
        };
        let unseen = |why: String| {
            Ok(Found::Unseen(format!(
                "the team `{team}` {whose} cannot be seen ({why}): correct the name, or add the bot's account to that team or to the organisation's owners"
            )))
        };
        let teams = match self.forge.org_teams(org).await {
            Ok(teams) => teams,
            Err(error) => {
                self.await_within(PinKind::Team, team, org_id).await?;
                return if error.failure() == Failure::ForPeople {
                    unseen(error.to_string())
                } else {
                    Ok(Found::Unknown(format!("the teams of `{org}` {whose} could not be read: {error}"), error))
                };
            }
        };
        let Some(found) = teams.iter().find(|found| found.name.eq_ignore_ascii_case(name)) else {
            self.await_within(PinKind::Team, team, org_id).await?;
            return unseen("it is not among those that the bot is shown".to_owned());
        };
        // By its number, to be told whose it is: the name may have changed hands
        // between the two calls.
        match self.forge.team(found.id).await {
            Ok(Some(now)) if now.organization.as_ref().is_some_and(|org| org.id == org_id) => {
                let (kind, name) = (PinKind::Team, team.to_owned());
                let pin = Pin { kind, name, id: found.id, within: Some(org_id), at: 0, fault: None };
                Ok(self.put_pin(pin).await?.pinned().map_or_else(
                    || Found::Nothing(format!("the team `{team}` {whose} could not be pinned")),
                    Found::Is,
                ))
            }
            Ok(_) => unseen("the forge does not show whose it is".to_owned()),
            Err(error) => Ok(Found::Unknown(format!("the team `{team}` {whose} could not be read: {error}"), error)),
        }
    }

    /// Notes below what a name is waited for.
    async fn await_within(&self, kind: PinKind, name: &str, within: i64) -> Result<(), StoreError> {
        let pin = Pin { kind, name: name.to_owned(), id: 0, within: Some(within), at: 0, fault: None };
        self.put_pin(pin).await.map(drop)
    }

    /// A team that was pinned: it counts when it is asked for, and whether it does
    /// is worth a word now.
    async fn pinned_team(&self, team: Pinned, whose: &str) -> Found {
        let again = "if another one is meant now: `lazarus pins forget team`, and its name";
        match self.forge.team(team.id()).await {
            Ok(Some(found)) if found.organization.as_ref().map(|org| org.id) == team.within() => Found::Is(team),
            Ok(Some(_)) => Found::Nothing(format!(
                "{team} {whose} belongs to another organisation than it did, so nobody is a director by it; {again}"
            )),
            Ok(None) | Err(ForgeError::Forbidden { .. }) => Found::Nothing(format!(
                "{team} {whose} is gone, or the bot's account cannot read it any more, so nobody is a director by it; {again}"
            )),
            // It is asked for again whenever it matters.
            Err(_) => Found::Is(team),
        }
    }

    /// The pinned approval label, or why approval by label is off.
    async fn approval_label(&self, repo: &RepoRef) -> Result<(Option<Pinned>, Option<String>), ReconcileError> {
        let api = self.forge.repo_ref(repo);
        let labels = api.labels().await?;
        let name = label_name(repo.id, APPROVED);
        let anew = format!("`/approve` works; `lazarus init {}` pins the label anew", repo.full_name());
        let Some(pin) = self.pin(PinKind::Label, &name).await? else {
            // Names are not unique: of several the oldest, as `init` says.
            let id = labels.iter().filter(|l| l.name == APPROVED).map(|l| l.id).min();
            let fault = id.is_none().then(|| format!("there was no label `{APPROVED}` when it was first looked for"));
            let (kind, within) = (PinKind::Label, Some(repo.id));
            let pin = self.put_pin(Pin { kind, name, id: id.unwrap_or(0), within, at: 0, fault }).await?;
            return Ok((pin.pinned(), pin.fault.map(|fault| format!("{fault}; {anew}"))));
        };
        let Some(pinned) = pin.pinned() else {
            let fault = pin.fault.unwrap_or_else(|| "there is no pinned label".to_owned());
            return Ok((None, Some(format!("{fault}; {anew}"))));
        };
        let now = match labels.into_iter().find(|label| label.id == pinned.id()) {
            Some(label) => Some(label),
            // A list can shift while it is read.
            None => RepoApi::label(&api, pinned.id()).await?,
        };
        match now {
            Some(label) if label.name == APPROVED => Ok((Some(pinned), None)),
            Some(label) => {
                let fault = label_was_renamed(pinned.id(), &label.name);
                let (noted, why) = (name.clone(), fault.clone());
                self.engine.store.transact(move |tx| tx.amend_pin(PinKind::Label, &noted, None, Some(&why))).await?;
                Ok((None, Some(format!("{fault}; {anew}"))))
            }
            None => Ok((
                None,
                Some(format!("{pinned} was deleted, and another one of that name does not take its place; {anew}")),
            )),
        }
    }
}

/// Why a label does not count any more that once had another name: who was to
/// put it on an issue may have meant something else by it.
pub fn label_was_renamed(id: i64, to: &str) -> String {
    let to: String = to.chars().filter(|c| !c.is_control() && *c != '`').take(100).collect();
    format!("the label `{APPROVED}` (id {id}) was renamed to `{to}`, so it does not count any more")
}

/// The repository that a redirect leads to, where the forge shows it there.
pub async fn renamed_repository(forge: &Forge, moved: &ForgeError) -> Option<Repository> {
    let ForgeError::Moved { to, outside: false, .. } = moved else { return None };
    let mut parts = to.rsplit('/');
    let (name, owner) = (parts.next()?, parts.next()?);
    let decoded = |part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    forge.repo(&decoded(owner), &decoded(name)).get().await.ok()?
}
