//! Deliveries of the forge's webhooks: the signature first, then the body.
//!
//! [`MasterSecret::verify`] looks at headers and bytes and answers whose
//! secret signed them. Which secret to try depends on the repository that the
//! delivery is of, and only its body names that: two numbers are read from it
//! beforehand. They choose the secret and nothing else; a wrong number leads
//! to a secret that does not fit. Only what is let through is parsed, by
//! [`VerifiedDelivery::event`], and must then be of what its secret belongs
//! to. The signature covers the body alone: event headers and delivery id can
//! be anybody's, so the header must fit the body. There is no timestamp in it
//! either, so a replay is a good delivery: [`ForgeEvent::semantic_key`] is
//! what makes it one effect.

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

/// Headers that carry the HMAC-SHA256 in hex, and what stands before it.
/// `X-Hub-Signature` (SHA-1) is neither needed nor trusted.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-gitea-signature", ""),
    ("x-forgejo-signature", ""),
    ("x-gogs-signature", ""),
    ("x-hub-signature-256", "sha256="),
];

/// Whether a delivery claims to be signed at all. Who does not even do that
/// need not be listened to.
pub fn claims_signature(headers: &HeaderMap) -> bool {
    SIGNATURES.iter().any(|(name, _)| headers.contains_key(*name))
}

/// Headers that name the event. A forge sends several, all alike.
const EVENTS: [&str; 3] = ["x-gitea-event", "x-forgejo-event", "x-gogs-event"];

/// Headers that carry the delivery's id.
const DELIVERIES: [&str; 3] = ["x-gitea-delivery", "x-forgejo-delivery", "x-gogs-delivery"];

impl MasterSecret {
    /// Checks that a delivery was signed by the hook of the repository that
    /// it is of, or by that of the repository's owner: every signature header
    /// that is there must hold the same 64 lower-case hex digits, and these
    /// must be the HMAC-SHA256 of the body, or of the decoded `payload` of a
    /// form. Compared in constant time.
    ///
    /// Whether the repository is served, and whether that owner owns it, is
    /// for the caller to find out: see [`VerifiedDelivery::signed_for`].
    ///
    /// # Errors
    /// A [`Rejection`], with the status to answer.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<VerifiedDelivery, Rejection> {
        // First whether it is signed at all: a stranger is told 401, whatever
        // else is wrong with what they sent.
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

/// What an unverified body says it is of.
struct Claim {
    repository: i64,
    owner: Option<i64>,
}

impl Claim {
    /// Reads two numbers and keeps nothing else; nesting is limited by
    /// serde_json (128). `None` where the body is not of a repository.
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

/// Checks that a delivery was signed with one of these secrets, as
/// [`MasterSecret::verify`] does, whatever repository it is of. For recorded
/// deliveries and measurements; the door does not use it. Empty secrets sign
/// nothing.
///
/// # Errors
/// A [`Rejection`], with the status to answer.
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

/// Why a delivery is not let in. Says nothing about the secret or the right
/// signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No secret is configured.
    #[error("no webhook secret is configured here, so no delivery can be trusted")]
    NoSecret,
    /// Neither of the two content types of a forge.
    #[error("deliveries are application/json or application/x-www-form-urlencoded: correct the hook's content type")]
    ContentType,
    /// A form without exactly one `payload`.
    #[error("a form delivery has exactly one field `payload`")]
    BadForm,
    /// No signature header at all.
    #[error("the delivery is not signed: give the hook the secret that is configured here")]
    MissingSignature,
    /// A signature header that holds no signature: short, upper-case, twice
    /// there, or empty, as a forge sends it for a hook without a secret.
    #[error("the header {header} holds no HMAC-SHA256: give the hook the secret that is configured here")]
    MalformedSignature {
        /// Which header.
        header: &'static str,
    },
    /// Two signature headers that say different things.
    #[error("the signature headers disagree")]
    SignaturesDisagree,
    /// A signature, but not by the secret of this repository's hook, nor of
    /// its owner's.
    #[error("the signature is not by the secret that belongs to this repository (or to its organisation)")]
    WrongSignature,
    /// Signed with the installation's own secret, as older versions had it.
    #[error("this webhook still holds the secret of the whole installation, which counts for nothing")]
    MasterSecret {
        /// The repository that the delivery is of.
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

/// Why a signed delivery is not taken.
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
    /// The event header, which is not signed, does not fit the body, which is.
    #[error("the body is not that of a delivery of {event}: {why}")]
    Mismatch {
        /// The event in the header.
        event: String,
        /// What does not fit.
        why: &'static str,
    },
    /// An action that no forge known here sends.
    #[error("{event} deliveries have no action {action:?}")]
    UnknownAction {
        /// The event in the header.
        event: String,
        /// The action, cut short.
        action: String,
    },
    /// A number that cannot be one.
    #[error("{field} of the delivery is no number of anything")]
    BadId {
        /// Which one.
        field: &'static str,
    },
    /// More labels than an issue has.
    #[error("the issue of the delivery has more than {LABELS_MAX} labels")]
    TooManyLabels,
    /// Signed by a secret that does not speak for this repository.
    #[error("the secret of this delivery belongs to {signed_for}, and not to the repository {repository}")]
    WrongRepository {
        /// `owner/name`, as the delivery has it.
        repository: String,
        /// What the secret belongs to.
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

/// A delivery whose signature was checked. Only [`MasterSecret::verify`] and
/// [`verify`] make one.
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

    /// What the secret that signed it belongs to. For an organisation the
    /// body's word is all there is of who owns the repository: ask the forge.
    /// `None` where the caller chose the secrets ([`verify`]).
    pub fn signed_for(&self) -> Option<HookOwner> {
        self.signed_for
    }

    /// The signed bytes: JSON, of a form the decoded `payload`.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The delivery's id, for logs. It is not signed, and a replay has a new
    /// one: it identifies nothing.
    pub fn delivery_id(&self) -> Option<&str> {
        self.delivery_id.as_deref()
    }

    /// What happened.
    ///
    /// # Errors
    /// A [`BadDelivery`] for a body that does not fit its header or is not
    /// what a forge sends; with the status to answer.
    pub fn event(&self) -> Result<ForgeEvent, BadDelivery> {
        let kind = self.kind.clone()?;
        let event = match kind.as_str() {
            "issues" => issue_event(&self.payload),
            "issue_comment" => comment_event(&self.payload),
            other => other_event(other, &self.payload),
        }?;
        // The number that chose the secret was read from the same bytes; here
        // it is what was understood that counts.
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

/// The decoded `payload` of a form: exactly one, for with two of them it is
/// a matter of taste which one counts.
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

/// The one signature that all signature headers hold.
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
        // `hex` would take capitals too.
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
    // Constant time.
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
    // The forge replaces invalid UTF-8 itself; where it does not, we do.
    let text = String::from_utf8_lossy(payload);
    // Nesting is limited by serde_json (128); unknown fields are skipped.
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

/// Events that nothing acts on; still, one must not be dressed up as another.
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

/// Accounts of the forge itself have negative numbers (`-1` a deleted one,
/// `-2` its actions): real, and without rights. Zero is nobody.
fn known_account(field: &'static str, person: &Person) -> Result<(), BadDelivery> {
    if person.id == 0 { Err(BadDelivery::BadId { field }) } else { Ok(()) }
}

fn person(field: &'static str, user: User) -> Result<Person, BadDelivery> {
    let person = user.person();
    known_account(field, &person)?;
    Ok(person)
}
