//! Deliveries of the forge's webhooks: first the signature, then the body.
//!
//! [`MasterSecret::verify`] reads headers and bytes, and says whose secret signed them. Which secret to try depends
//! on the delivery's repository, which only its body names, so two numbers are read from the body beforehand. They
//! only select the secret: a wrong number selects a secret that does not match. Only a verified delivery is parsed,
//! by [`VerifiedDelivery::event`], and it must then belong to the owner of its secret. The signature covers only
//! the body: anybody can choose the event headers and the delivery id, so the header must match the body. The body
//! contains no timestamp, so a replayed delivery is valid; [`ForgeEvent::semantic_key`] makes sure that it has only
//! one effect.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::Sha256;

use super::HookOwner;
use super::event::{CommentAction, ForgeEvent, IssueAction, Person, RepoRef};
use super::hook::MasterSecret;
use super::model::{LABELS_MAX, OwnRights, RawComment, RawIssue, User};

/// Headers that carry the HMAC-SHA256 in hex, and the prefix of their values. `X-Hub-Signature` (SHA-1) is neither
/// needed nor trusted.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-gitea-signature", ""),
    ("x-forgejo-signature", ""),
    ("x-gogs-signature", ""),
    ("x-hub-signature-256", "sha256="),
];

/// Whether a delivery claims to be signed at all. If it does not, its body need not be read.
pub fn claims_signature(headers: &HeaderMap) -> bool {
    SIGNATURES.iter().any(|(name, _)| headers.contains_key(*name))
}

/// Headers that name the event. A forge sends several, with the same value.
const EVENTS: [&str; 3] = ["x-gitea-event", "x-forgejo-event", "x-gogs-event"];

/// Headers that carry the delivery's id.
const DELIVERIES: [&str; 3] = ["x-gitea-delivery", "x-forgejo-delivery", "x-gogs-delivery"];

impl MasterSecret {
    /// Checks that a delivery was signed by the hook of its repository, or by that of the repository's owner. All
    /// signature headers must contain the same 64 lower-case hex digits, and these must be the HMAC-SHA256 of the
    /// body, or of the decoded `payload` of a form. They are compared in constant time.
    ///
    /// The caller must check whether the repository is served, and whether that owner owns it: see
    /// [`VerifiedDelivery::signed_for`].
    ///
    /// # Errors
    /// A [`Rejection`], which includes the status to answer with.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<VerifiedDelivery, Rejection> {
        // The signature is checked first: a stranger is answered with 401, whatever else is wrong.
        let signature = signature(headers)?;
        let payload = signed_bytes(headers, body)?;
        let claim = Claim::read(&payload).ok_or(Rejection::WrongSignature)?;
        let owner = claim.owner.map(HookOwner::Organisation);
        let signed_for = [Some(HookOwner::Repository(claim.repository)), owner]
            .into_iter()
            .flatten()
            .find(|of| signs(&self.hook_secret(*of), &payload, &signature));
        match signed_for {
            Some(of) => Ok(VerifiedDelivery::new(headers, payload, Some(of))),
            None if signs(self.expose(), &payload, &signature) => {
                Err(Rejection::MasterSecret { repository: claim.repository })
            }
            None => Err(Rejection::WrongSignature),
        }
    }
}

/// What an unverified body claims to belong to.
struct Claim {
    repository: i64,
    owner: Option<i64>,
}

impl Claim {
    /// Reads two numbers and ignores everything else. serde_json limits the nesting to 128. `None` if the body
    /// names no repository.
    fn read(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            repository: Repository,
        }
        #[derive(Deserialize)]
        struct Repository {
            id: i64,
            owner: Option<Owner>,
        }
        #[derive(Deserialize)]
        struct Owner {
            id: i64,
        }
        let body: Body = serde_json::from_slice(payload).ok()?;
        Some(Self { repository: body.repository.id, owner: body.repository.owner.map(|owner| owner.id) })
    }
}

/// Checks that a delivery was signed with one of these secrets, as [`MasterSecret::verify`] does, but for any
/// repository. This is for recorded deliveries and benchmarks; the server does not use it. Empty secrets are
/// ignored.
///
/// # Errors
/// A [`Rejection`], which includes the status to answer with.
pub fn verify(headers: &HeaderMap, body: &[u8], secrets: &[SecretString]) -> Result<VerifiedDelivery, Rejection> {
    if secrets.iter().all(|secret| secret.expose_secret().is_empty()) {
        return Err(Rejection::NoSecret);
    }
    let signature = signature(headers)?;
    let payload = signed_bytes(headers, body)?;
    if secrets.iter().any(|secret| !secret.expose_secret().is_empty() && signs(secret, &payload, &signature)) {
        Ok(VerifiedDelivery::new(headers, payload, None))
    } else {
        Err(Rejection::WrongSignature)
    }
}

/// Why a delivery is refused. Reveals nothing about the secret or the right signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No secret is configured.
    #[error("no webhook secret is configured here, so no delivery can be trusted")]
    NoSecret,
    /// The content type is neither of the two that a forge sends.
    #[error("deliveries are application/json or application/x-www-form-urlencoded: correct the hook's content type")]
    ContentType,
    /// A form that does not contain exactly one `payload`.
    #[error("a form delivery has exactly one field `payload`")]
    BadForm,
    /// There is no signature header.
    #[error("the delivery is not signed: give the hook the secret that is configured here")]
    MissingSignature,
    /// A signature header without a valid signature: too short, in upper case, present twice, or empty, as a forge
    /// sends it for a hook without a secret.
    #[error("the header {header} holds no HMAC-SHA256: give the hook the secret that is configured here")]
    MalformedSignature {
        /// The header's name.
        header: &'static str,
    },
    /// Two signature headers with different values.
    #[error("the signature headers disagree")]
    SignaturesDisagree,
    /// A signature that was made neither with the secret of this repository's hook nor with its owner's.
    #[error("the signature is not by the secret that belongs to this repository (or to its organisation)")]
    WrongSignature,
    /// Signed with the installation's own secret, which older versions gave to every hook.
    #[error("this webhook still holds the secret of the whole installation, which counts for nothing")]
    MasterSecret {
        /// The number of the delivery's repository.
        repository: i64,
    },
}

impl Rejection {
    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadForm => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// Why a signed delivery is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDelivery {
    /// No header names the event.
    #[error("no header names the event of the delivery")]
    NoEvent,
    /// The headers name different events, or one of them names none.
    #[error("the headers do not agree on the event of the delivery")]
    EventsDisagree,
    /// Not JSON, nested too deeply, or not the shape of a delivery.
    #[error("the body of the {event} delivery cannot be read: {why}")]
    Unreadable {
        /// The event in the header.
        event: String,
        /// What is wrong.
        why: String,
    },
    /// The event header, which is not signed, does not match the body, which is.
    #[error("the body is not that of a delivery of {event}: {why}")]
    Mismatch {
        /// The event in the header.
        event: String,
        /// What does not match.
        why: &'static str,
    },
    /// An action that no known forge sends.
    #[error("{event} deliveries have no action {action:?}")]
    UnknownAction {
        /// The event in the header.
        event: String,
        /// The action, shortened.
        action: String,
    },
    /// A number that cannot identify anything.
    #[error("{field} of the delivery is no number of anything")]
    BadId {
        /// The field's name.
        field: &'static str,
    },
    /// The issue has too many labels.
    #[error("the issue of the delivery has more than {LABELS_MAX} labels")]
    TooManyLabels,
    /// Signed with a secret that is not valid for this repository.
    #[error("the secret of this delivery belongs to {signed_for}, and not to the repository {repository}")]
    WrongRepository {
        /// `owner/name`, as given in the delivery.
        repository: String,
        /// The owner of the secret.
        signed_for: HookOwner,
    },
}

impl BadDelivery {
    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::WrongRepository { .. } => StatusCode::FORBIDDEN,
            Self::TooManyLabels => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A delivery whose signature was verified. Only [`MasterSecret::verify`] and [`verify`] create one.
#[derive(Debug, Clone)]
pub struct VerifiedDelivery {
    kind: Result<String, BadDelivery>,
    delivery_id: Option<String>,
    payload: Vec<u8>,
    signed_for: Option<HookOwner>,
}

impl VerifiedDelivery {
    fn new(headers: &HeaderMap, payload: Cow<'_, [u8]>, signed_for: Option<HookOwner>) -> Self {
        Self { kind: event_kind(headers), delivery_id: delivery_id(headers), payload: payload.into_owned(), signed_for }
    }

    /// The owner of the secret that signed it. For an organisation only the body claims who owns the repository, so
    /// ask the forge. `None` if the caller chose the secrets ([`verify`]).
    pub fn signed_for(&self) -> Option<HookOwner> {
        self.signed_for
    }

    /// The signed bytes, which are JSON; for a form, the decoded `payload`.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The delivery's id, for logs. It is not signed, and a replay can have a new one, so it identifies nothing.
    pub fn delivery_id(&self) -> Option<&str> {
        self.delivery_id.as_deref()
    }

    /// Parses the event.
    ///
    /// # Errors
    /// A [`BadDelivery`], which includes the status to answer with, if the body does not match its header or is not
    /// what a forge sends.
    pub fn event(&self) -> Result<ForgeEvent, BadDelivery> {
        let kind = self.kind.clone()?;
        let event = match kind.as_str() {
            "issues" => issue_event(&self.payload),
            "issue_comment" => comment_event(&self.payload),
            other => other_event(other, &self.payload),
        }?;
        // The number that selected the secret was read from the same bytes. What counts is the number that the
        // parser found.
        match self.signed_for {
            Some(signed_for @ HookOwner::Repository(id)) if id != event.repo().id => {
                Err(BadDelivery::WrongRepository { repository: printable(&event.repo().full_name()), signed_for })
            }
            _ => Ok(event),
        }
    }
}

/// The bytes that the signature covers.
fn signed_bytes<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Rejection> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    match content_type.as_deref() {
        Some("application/json") => Ok(Cow::Borrowed(body)),
        Some("application/x-www-form-urlencoded") => form_payload(body).map(Cow::Owned),
        _ => Err(Rejection::ContentType),
    }
}

/// The decoded `payload` of a form. There must be exactly one, because with two it is unclear which one counts.
fn form_payload(body: &[u8]) -> Result<Vec<u8>, Rejection> {
    let mut payloads = body.split(|byte| *byte == b'&').filter_map(|field| {
        let split = field.iter().position(|byte| *byte == b'=')?;
        (form_decoded(&field[..split]) == b"payload").then_some(&field[split + 1..])
    });
    match (payloads.next(), payloads.next()) {
        (Some(payload), None) => Ok(form_decoded(payload)),
        _ => Err(Rejection::BadForm),
    }
}

fn form_decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

/// The one signature that all signature headers contain.
fn signature(headers: &HeaderMap) -> Result<[u8; 32], Rejection> {
    let mut agreed: Option<[u8; 32]> = None;
    for (header, before) in SIGNATURES {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        let malformed = Rejection::MalformedSignature { header };
        if values.next().is_some() {
            return Err(malformed);
        }
        let Some(digits) = value.as_bytes().strip_prefix(before.as_bytes()) else {
            return Err(malformed);
        };
        // `hex` would also accept upper case.
        let lower = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        if !lower || hex::decode_to_slice(digits, &mut bytes).is_err() {
            return Err(malformed);
        }
        if agreed.is_some_and(|agreed| agreed != bytes) {
            return Err(Rejection::SignaturesDisagree);
        }
        agreed = Some(bytes);
    }
    agreed.ok_or(Rejection::MissingSignature)
}

fn signs(secret: &SecretString, payload: &[u8], signature: &[u8; 32]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
        return false;
    };
    mac.update(payload);
    // Compares in constant time.
    mac.verify_slice(signature).is_ok()
}

fn event_kind(headers: &HeaderMap) -> Result<String, BadDelivery> {
    let mut agreed: Option<&str> = None;
    for value in EVENTS.iter().flat_map(|name| headers.get_all(*name)) {
        let word = value.to_str().ok().filter(|word| {
            let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
            (1..=64).contains(&word.len()) && word.bytes().all(fits)
        });
        match (word, agreed) {
            (None, _) => return Err(BadDelivery::EventsDisagree),
            (Some(word), Some(before)) if word != before => {
                return Err(BadDelivery::EventsDisagree);
            }
            (Some(word), _) => agreed = Some(word),
        }
    }
    agreed.map(str::to_owned).ok_or(BadDelivery::NoEvent)
}

fn delivery_id(headers: &HeaderMap) -> Option<String> {
    let value = DELIVERIES.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
    Some(printable(value)).filter(|id| !id.is_empty())
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[derive(Deserialize)]
struct RawRepository {
    id: i64,
    owner: User,
    name: String,
    permissions: Option<OwnRights>,
}

impl RawRepository {
    fn reference(&self) -> Result<RepoRef, BadDelivery> {
        positive("the repository's id", self.id)?;
        Ok(RepoRef { id: self.id, owner: self.owner.login.clone(), name: self.name.clone() })
    }
}

#[derive(Deserialize)]
struct RawChange {
    from: Option<String>,
}

#[derive(Deserialize)]
struct RawChanges {
    title: Option<RawChange>,
    body: Option<RawChange>,
}

#[derive(Deserialize)]
struct RawIssueDelivery {
    action: Option<String>,
    issue: Option<RawIssue>,
    comment: Option<IgnoredAny>,
    repository: Option<RawRepository>,
    sender: Option<User>,
    changes: Option<RawChanges>,
}

#[derive(Deserialize)]
struct RawCommentDelivery {
    action: Option<String>,
    issue: Option<RawIssue>,
    comment: Option<RawComment>,
    repository: Option<RawRepository>,
    sender: Option<User>,
    is_pull: Option<bool>,
}

#[derive(Deserialize)]
struct RawOtherDelivery {
    issue: Option<IgnoredAny>,
    pull_request: Option<IgnoredAny>,
    #[serde(rename = "ref")]
    git_ref: Option<IgnoredAny>,
    repository: Option<RawRepository>,
}

fn read<T: DeserializeOwned>(event: &str, payload: &[u8]) -> Result<T, BadDelivery> {
    // The forge itself replaces invalid UTF-8. If it does not, we do.
    let text = String::from_utf8_lossy(payload);
    // serde_json limits the nesting to 128, and unknown fields are ignored.
    serde_json::from_str(&text)
        .map_err(|error| BadDelivery::Unreadable { event: event.to_owned(), why: printable(&error.to_string()) })
}

fn issue_event(payload: &[u8]) -> Result<ForgeEvent, BadDelivery> {
    const EVENT: &str = "issues";
    let raw: RawIssueDelivery = read(EVENT, payload)?;
    let (repo, issue, sender) = (
        fits(EVENT, raw.repository, "it names no repository")?,
        fits(EVENT, raw.issue, "it has no issue")?,
        fits(EVENT, raw.sender, "it names no sender")?,
    );
    if raw.comment.is_some() {
        return Err(BadDelivery::Mismatch { event: EVENT.to_owned(), why: "it has a comment" });
    }
    let action = match raw.action.as_deref().unwrap_or_default() {
        "opened" => IssueAction::Opened,
        "edited" => IssueAction::Edited,
        "closed" => IssueAction::Closed,
        "reopened" => IssueAction::Reopened,
        "deleted" => IssueAction::Deleted,
        "label_updated" | "label_cleared" => IssueAction::LabelsChanged,
        "assigned" | "unassigned" | "milestoned" | "demilestoned" => IssueAction::Other,
        unknown => {
            return Err(BadDelivery::UnknownAction { event: EVENT.to_owned(), action: printable(unknown) });
        }
    };
    let (previous_title, previous_body) = raw.changes.map_or((None, None), |changes| {
        (changes.title.and_then(|change| change.from), changes.body.and_then(|change| change.from))
    });
    check_issue(EVENT, &issue, &repo)?;
    Ok(ForgeEvent::Issue {
        repo: repo.reference()?,
        action,
        issue: issue.snapshot(),
        sender: person("the sender's id", sender)?,
        previous_title,
        previous_body,
    })
}

fn comment_event(payload: &[u8]) -> Result<ForgeEvent, BadDelivery> {
    const EVENT: &str = "issue_comment";
    let raw: RawCommentDelivery = read(EVENT, payload)?;
    let (repo, issue, comment, sender) = (
        fits(EVENT, raw.repository, "it names no repository")?,
        fits(EVENT, raw.issue, "it has no issue")?,
        fits(EVENT, raw.comment, "it has no comment")?,
        fits(EVENT, raw.sender, "it names no sender")?,
    );
    let action = match raw.action.as_deref().unwrap_or_default() {
        "created" => CommentAction::Created,
        "edited" => CommentAction::Edited,
        "deleted" => CommentAction::Deleted,
        unknown => {
            return Err(BadDelivery::UnknownAction { event: EVENT.to_owned(), action: printable(unknown) });
        }
    };
    check_issue(EVENT, &issue, &repo)?;
    positive("the comment's id", comment.id)?;
    if comment.issue_number().is_some_and(|number| number != issue.number) {
        return Err(BadDelivery::Mismatch { event: EVENT.to_owned(), why: "the comment is not of that issue" });
    }
    let mut issue = issue.snapshot();
    issue.is_pull |= raw.is_pull.unwrap_or(false);
    let comment = comment.snapshot();
    known_account("the comment's author", &comment.author)?;
    Ok(ForgeEvent::Comment {
        repo: repo.reference()?,
        action,
        issue,
        comment,
        sender: person("the sender's id", sender)?,
        sender_can_push: repo.permissions.map(|rights| rights.push),
    })
}

/// Parses events that nothing acts on. Even so, the header must match the body.
fn other_event(kind: &str, payload: &[u8]) -> Result<ForgeEvent, BadDelivery> {
    let raw: RawOtherDelivery = read(kind, payload)?;
    let repo = fits(kind, raw.repository, "it names no repository")?;
    let mismatch = |why| Err(BadDelivery::Mismatch { event: kind.to_owned(), why });
    if raw.issue.is_some() {
        return mismatch("it has an issue");
    }
    if kind == "push" && raw.git_ref.is_none() {
        return mismatch("it has no ref");
    }
    if kind.starts_with("pull_request") && raw.pull_request.is_none() {
        return mismatch("it has no pull request");
    }
    Ok(ForgeEvent::Other { repo: repo.reference()?, kind: kind.to_owned() })
}

fn fits<T>(event: &str, part: Option<T>, why: &'static str) -> Result<T, BadDelivery> {
    part.ok_or_else(|| BadDelivery::Mismatch { event: event.to_owned(), why })
}

fn check_issue(event: &str, issue: &RawIssue, repo: &RawRepository) -> Result<(), BadDelivery> {
    positive("the issue's id", issue.id)?;
    positive("the issue's number", issue.number)?;
    if issue.repository.as_ref().is_some_and(|theirs| theirs.id != repo.id) {
        return Err(BadDelivery::Mismatch { event: event.to_owned(), why: "the issue is of another repository" });
    }
    if issue.labels.too_many {
        return Err(BadDelivery::TooManyLabels);
    }
    for label in &issue.labels.kept {
        positive("a label's id", label.id)?;
    }
    match &issue.user {
        Some(user) if user.id == 0 => Err(BadDelivery::BadId { field: "the issue's author" }),
        _ => Ok(()),
    }
}

fn positive(field: &'static str, id: i64) -> Result<(), BadDelivery> {
    if id > 0 { Ok(()) } else { Err(BadDelivery::BadId { field }) }
}

/// The forge's own accounts have negative numbers (`-1` is a deleted one, `-2` is Actions). They are real but have
/// no rights. Zero is not an account.
fn known_account(field: &'static str, person: &Person) -> Result<(), BadDelivery> {
    if person.id == 0 { Err(BadDelivery::BadId { field }) } else { Ok(()) }
}

fn person(field: &'static str, user: User) -> Result<Person, BadDelivery> {
    let person = user.person();
    known_account(field, &person)?;
    Ok(person)
}
