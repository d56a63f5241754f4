//! Clone, fetch and push over HTTP, through the `git http-backend` program that comes with git. Bodies are streamed
//! in both directions.

use std::process::Stdio;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use super::api::{Caller, authenticate};
use super::reply::Reply;
use super::state::{Access, Id};
use super::{Flavour, Forge, git, push};

/// Most bytes of the program's header that are read. Git's is below 1 kB.
const HEAD_LIMIT: usize = 64 << 10;

/// A request below `/{owner}/{repo}.git/`.
pub(super) struct GitRequest<'a> {
    pub owner: &'a str,
    pub name: &'a str,
    /// `.git` if the path has it.
    pub suffix: &'a str,
    /// What follows the repository.
    pub rest: &'a str,
    pub method: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}

/// Parses `/{owner}/{repo}.git/{rest}`, also without `.git`, if git uses this `rest`. Returns owner, repository,
/// the suffix as it was sent, and the rest.
pub(super) fn parse(path: &str) -> Option<(&str, &str, &str, &str)> {
    let (owner, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (name, rest) = rest.split_once('/')?;
    if !matches!(rest, "info/refs" | "git-upload-pack" | "git-receive-pack") {
        return None;
    }
    let (name, suffix) = name.strip_suffix(".git").map_or((name, ""), |name| (name, ".git"));
    Some((owner, name, suffix, rest))
}

fn allowed(forge: &Forge, request: &GitRequest<'_>) -> Result<(Id, Caller), Reply> {
    let refusals = &forge.refusals;
    let state = forge.state();
    // Forgejo did not change this name.
    let realm = "Gitea";
    let sign_in = || Reply::text(401, "Unauthorized\n").with("WWW-Authenticate", format!("Basic realm=\"{realm}\""));
    let caller = authenticate(&state, refusals, request.headers).map_err(|_| sign_in())?;
    let pushes = request.rest == "git-receive-pack" || request.query.contains("service=git-receive-pack");
    let not_found = || Reply {
        status: 404,
        content_type: "text/plain;charset=utf-8",
        headers: vec![],
        body: Bytes::from_static(b"Repository not found"),
    };
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let Some(owner) = state.account_by_login(request.owner).map(|a| a.id) else {
        return Err(match state.former_logins.get(&request.owner.to_lowercase()) {
            Some(id) => Reply::redirect(
                request.method,
                307,
                format!("/{}/{}{}/{}{query}", state.login(*id), request.name, request.suffix, request.rest),
            ),
            None if caller.account.is_none() => sign_in(),
            None => not_found(),
        });
    };
    let Some(repo) = state.repo_by_name(owner, request.name) else {
        let former = state
            .former_repos
            .get(&(owner, request.name.to_lowercase()))
            .and_then(|id| state.repos.get(id))
            .filter(|repo| state.access(repo, caller.account) >= Access::Read);
        return Err(match former {
            // Redirects to the name without `.git`, whatever was requested.
            Some(repo) => {
                Reply::redirect(request.method, 301, format!("/{}/{}{query}", state.full_name(repo), request.rest))
            }
            // An anonymous caller must sign in before learning anything.
            _ if caller.account.is_none() => sign_in(),
            _ => not_found(),
        });
    };
    let access = state.access(repo, caller.account);
    let scope = if pushes { "write:repository" } else { "read:repository" };
    let scoped = caller
        .scopes
        .as_ref()
        .is_none_or(|scopes| scopes.iter().any(|s| s == "all" || s == scope || s == "write:repository"));
    if caller.account.is_none() && (pushes || access < Access::Read) {
        return Err(sign_in());
    }
    if access < Access::Read {
        return Err(not_found());
    }
    if !scoped {
        return Err(Reply::text(403, format!("token does not have at least one of required scope(s): [{scope}]\n")));
    }
    if pushes && access < Access::Write {
        return Err(Reply::text(403, "User permission denied for writing.\n"));
    }
    if pushes && repo.archived_at.is_some() {
        return Err(Reply::text(
            403,
            "This repo is archived. You can view files and clone it, but cannot push or open issues/pull-requests.\n",
        ));
    }
    Ok((repo.id, caller))
}

/// Answers git. Also returns the caller's login.
pub(super) async fn answer(forge: &Arc<Forge>, request: GitRequest<'_>, body: Body) -> (Response<Body>, String) {
    let (repo, caller) = match allowed(forge, &request) {
        Ok(found) => found,
        Err(reply) => return (reply.into_response(), String::new()),
    };
    match start(forge, repo, &caller, &request, body).await {
        Ok(response) => (response, caller.login),
        Err(error) => {
            tracing::warn!(error = %format!("{error:#}"), "the stand-in forge could not run git http-backend");
            (Reply::text(500, "git failed\n").into_response(), caller.login)
        }
    }
}

async fn start(
    forge: &Arc<Forge>,
    repo: Id,
    caller: &Caller,
    request: &GitRequest<'_>,
    body: Body,
) -> anyhow::Result<Response<Body>> {
    let protected: Vec<String> = forge
        .state()
        .repos
        .get(&repo)
        .map(|r| r.protections.iter().filter(|p| !p.enable_push).map(|p| p.rule.clone()).collect())
        .unwrap_or_default();
    let receives = request.rest == "git-receive-pack";
    let before = if receives { Some(forge.git.branches(repo).await?) } else { None };

    let mut command = Command::new("git");
    git::scrub(&mut command, forge.git.root());
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", forge.git.root())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{repo}.git/{}", request.rest))
        .env("REQUEST_METHOD", request.method)
        .env("QUERY_STRING", request.query)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("STANDIN_PROTECTED", protected.join("\n"))
        .env(
            "STANDIN_FORGE",
            match forge.refusals.flavour {
                Flavour::Gitea => "Gitea",
                Flavour::Forgejo => "Forgejo",
            },
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if caller.account.is_some() {
        // Only with this variable does http-backend accept pushes.
        command.env("REMOTE_USER", &caller.login);
    }
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("CONTENT_LENGTH", "content-length"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("HTTP_GIT_PROTOCOL", "git-protocol"),
        ("HTTP_ACCEPT", "accept"),
    ] {
        if let Some(value) = request.headers.get(header).and_then(|v| v.to_str().ok()) {
            command.env(variable, value);
        }
    }
    // Without a length, git reads to the end of its input.
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            let mut chunks = body.into_data_stream();
            while let Some(Ok(chunk)) = chunks.next().await {
                if stdin.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        });
    }
    let Some(mut stdout) = child.stdout.take() else { anyhow::bail!("git http-backend has no output") };
    let (head, first) = read_head(&mut stdout).await?;
    let mut response = Response::builder().status(200);
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().and_then(|s| s.parse::<u16>().ok()).unwrap_or(500));
        } else {
            response = response.header(name, value);
        }
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(16);
    let (forge, doer) = (forge.clone(), caller.account);
    tokio::spawn(async move {
        relay(child, stdout, first, &sender).await;
        // The answer ends only after the hooks were queued, so that the client can rely on it.
        if let (Some(before), Some(doer)) = (before, doer) {
            announce_changes(&forge, repo, doer, &before).await;
        }
        drop(sender);
    });
    let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).map(Ok::<_, std::io::Error>);
    Ok(response.body(Body::from_stream(stream))?)
}

/// Reads up to the blank line, and also returns what followed it.
async fn read_head(stdout: &mut ChildStdout) -> anyhow::Result<(String, Bytes)> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).into_owned();
            return Ok((head, buffer.freeze().slice(at + 4..)));
        }
        if buffer.len() > HEAD_LIMIT || stdout.read_buf(&mut buffer).await? == 0 {
            anyhow::bail!("git http-backend ended without an answer");
        }
    }
}

async fn relay(mut child: Child, mut stdout: ChildStdout, first: Bytes, sender: &mpsc::Sender<Bytes>) {
    let mut listening = first.is_empty() || sender.send(first).await.is_ok();
    let mut buffer = BytesMut::with_capacity(64 << 10);
    while let Ok(read) = stdout.read_buf(&mut buffer).await {
        if read == 0 {
            break;
        }
        // Continues reading if the client has gone, because its push is valid.
        if listening {
            listening = sender.send(buffer.split().freeze()).await.is_ok();
        } else {
            buffer.clear();
        }
    }
    let _ = child.wait().await;
}

async fn announce_changes(forge: &Forge, repo: Id, doer: Id, before: &std::collections::BTreeMap<String, String>) {
    let Ok(after) = forge.git.branches(repo).await else {
        return;
    };
    for (branch, sha) in &after {
        if before.get(branch) != Some(sha) {
            push::announce(forge, repo, doer, branch, before.get(branch).map(String::as_str), Some(sha)).await;
        }
    }
    for (branch, sha) in before {
        if !after.contains_key(branch) {
            push::announce(forge, repo, doer, branch, Some(sha), None).await;
        }
    }
}
