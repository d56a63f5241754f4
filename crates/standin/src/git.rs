//! The repositories themselves. They are bare, each in a directory named by its number so that renames move
//! nothing, and `git` works on them in a scrubbed environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::state::{Comparison, Id};

/// Refuses pushes to protected branches. The code that starts `git http-backend` passes the rules in the
/// environment, one shell pattern on each line.
const PRE_RECEIVE: &str = r#"#!/bin/sh
# Written by the stand-in forge.
while read -r old new ref; do
  branch=${ref#refs/heads/}
  while IFS= read -r pattern; do
    [ -n "$pattern" ] || continue
    case "$branch" in
      $pattern)
        echo "$STANDIN_FORGE: Not allowed to push to protected branch $branch" >&2
        exit 1 ;;
    esac
  done <<EOF
$STANDIN_PROTECTED
EOF
done
"#;

/// The directory of all bare repositories.
#[derive(Clone)]
pub(super) struct Repositories {
    root: PathBuf,
}

/// One commit, as the API and push deliveries show it.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub id: String,
    pub tree: String,
    pub parents: Vec<String>,
    pub author: (String, String, String),
    pub committer: (String, String, String),
    pub message: String,
}

/// A file that one commit writes or deletes.
pub(super) struct Change<'a> {
    pub branch: &'a str,
    pub new_branch: Option<&'a str>,
    pub path: &'a str,
    /// `None` deletes.
    pub content: Option<&'a [u8]>,
    pub message: &'a str,
    pub author: (&'a str, &'a str),
}

/// Removes everything of the host from the environment that `git` gets.
pub(super) fn scrub(command: &mut Command, home: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        // The repositories are ours, but the user who owns them may differ
        // from the one who runs git (root in a container).
        .env("GIT_CONFIG_COUNT", "3")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "gc.auto")
        .env("GIT_CONFIG_VALUE_1", "0")
        .env("GIT_CONFIG_KEY_2", "receive.autogc")
        .env("GIT_CONFIG_VALUE_2", "false");
}

impl Repositories {
    pub(super) async fn open(root: PathBuf) -> anyhow::Result<Self> {
        tokio::fs::create_dir_all(&root)
            .await
            .with_context(|| format!("create {} for the stand-in's repositories", root.display()))?;
        let root = tokio::fs::canonicalize(&root).await.with_context(|| format!("resolve {}", root.display()))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, repo: Id) -> PathBuf {
        self.root.join(format!("{repo}.git"))
    }

    fn command(&self, repo: Id) -> Command {
        let mut command = Command::new("git");
        scrub(&mut command, &self.root);
        command.arg("--git-dir").arg(self.path(repo)).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn bytes(
        &self,
        repo: Id,
        args: &[&str],
        input: Option<&[u8]>,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command(repo);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (key, value) in env {
            command.env(key, value);
        }
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().context("start git: is it installed?")?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input).await.with_context(|| format!("give git {args:?} its input"))?;
        }
        let done = child.wait_with_output().await.with_context(|| format!("wait for git {args:?}"))?;
        if !done.status.success() {
            bail!("git {args:?} in repository {repo}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(done.stdout)
    }

    async fn text(&self, repo: Id, args: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(repo, args, None, &[]).await?).trim_end().to_owned())
    }

    pub(super) async fn create(&self, repo: Id, default_branch: &str) -> anyhow::Result<()> {
        let path = self.path(repo);
        let mut command = Command::new("git");
        scrub(&mut command, &self.root);
        let done = command
            .args(["init", "--bare", "--quiet", "--template=", "--initial-branch", default_branch])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .await
            .context("start git: is it installed?")?;
        if !done.status.success() {
            bail!("git init {}: {}", path.display(), String::from_utf8_lossy(&done.stderr).trim());
        }
        let hooks = path.join("hooks");
        tokio::fs::create_dir_all(&hooks).await?;
        let hook = hooks.join("pre-receive");
        tokio::fs::write(&hook, PRE_RECEIVE).await?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        tokio::fs::set_permissions(&hook, executable).await?;
        Ok(())
    }

    pub(super) async fn remove(&self, repo: Id) {
        if let Err(error) = tokio::fs::remove_dir_all(self.path(repo)).await {
            tracing::warn!(repo, %error, "the stand-in could not remove a deleted repository's files");
        }
    }

    pub(super) async fn set_default_branch(&self, repo: Id, branch: &str) -> anyhow::Result<()> {
        self.text(repo, &["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]).await.map(|_| ())
    }

    /// All branches, and the commits that they point at.
    pub(super) async fn branches(&self, repo: Id) -> anyhow::Result<BTreeMap<String, String>> {
        let listed = self.text(repo, &["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"]).await?;
        Ok(listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(sha, name)| Some((name.strip_prefix("refs/heads/")?.to_owned(), sha.to_owned())))
            .collect())
    }

    /// The commit that a branch (or other revision) points at.
    pub(super) async fn commit(&self, repo: Id, revision: &str) -> Option<Commit> {
        if revision.starts_with('-') {
            return None;
        }
        let format = "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B";
        let found = self.text(repo, &["log", "-1", format, revision, "--"]).await.ok()?;
        let parts: Vec<&str> = found.split('\0').collect();
        let [id, tree, parents, an, ae, ad, cn, ce, cd, message] = parts.as_slice() else {
            return None;
        };
        Some(Commit {
            id: (*id).to_owned(),
            tree: (*tree).to_owned(),
            parents: parents.split_whitespace().map(str::to_owned).collect(),
            author: ((*an).to_owned(), (*ae).to_owned(), utc(ad)),
            committer: ((*cn).to_owned(), (*ce).to_owned(), utc(cd)),
            message: format!("{}\n", message.trim_end()),
        })
    }

    pub(super) async fn branch(&self, repo: Id, branch: &str) -> Option<Commit> {
        self.commit(repo, &format!("refs/heads/{branch}")).await
    }

    /// `(mode, type, sha)` of a path in a revision. The root is a tree.
    pub(super) async fn entry(&self, repo: Id, revision: &str, path: &str) -> Option<(String, String)> {
        if path.is_empty() {
            return Some(("tree".to_owned(), String::new()));
        }
        let listed = self.text(repo, &["ls-tree", "-z", "--full-tree", revision, "--", path]).await.ok()?;
        let line = listed.split('\0').next()?;
        let (meta, name) = line.split_once('\t')?;
        if name != path {
            return None;
        }
        let mut meta = meta.split(' ').skip(1);
        Some((meta.next()?.to_owned(), meta.next()?.to_owned()))
    }

    /// The names in a directory, with type and sha.
    pub(super) async fn list(&self, repo: Id, revision: &str, path: &str) -> Vec<(String, String, String)> {
        let target = if path.is_empty() { revision.to_owned() } else { format!("{revision}:{path}") };
        let listed = self.text(repo, &["ls-tree", "-z", &target]).await.unwrap_or_default();
        listed
            .split('\0')
            .filter_map(|line| {
                let (meta, name) = line.split_once('\t')?;
                let mut meta = meta.split(' ').skip(1);
                Some((name.to_owned(), meta.next()?.to_owned(), meta.next()?.to_owned()))
            })
            .collect()
    }

    pub(super) async fn blob(&self, repo: Id, sha: &str) -> anyhow::Result<Vec<u8>> {
        self.bytes(repo, &["cat-file", "blob", sha], None, &[]).await
    }

    /// The last commit that changed a path.
    pub(super) async fn last_touching(&self, repo: Id, revision: &str, path: &str) -> Option<Commit> {
        let sha = self.text(repo, &["log", "-1", "--format=%H", revision, "--", path]).await.ok()?;
        self.commit(repo, &sha).await
    }

    /// Makes a commit without a work tree. The branch moves only if it has not changed meanwhile.
    pub(super) async fn write(&self, repo: Id, change: &Change<'_>) -> anyhow::Result<Commit> {
        let parent = self.branch(repo, change.branch).await;
        let index = self.path(repo).join(format!("standin-index-{}", super::deliveries::new_id()));
        let index_text = index.to_string_lossy().into_owned();
        let made = self.write_with_index(repo, change, parent.as_ref(), &index_text).await;
        let _ = tokio::fs::remove_file(&index).await;
        made
    }

    async fn write_with_index(
        &self,
        repo: Id,
        change: &Change<'_>,
        parent: Option<&Commit>,
        index: &str,
    ) -> anyhow::Result<Commit> {
        let (name, email) = change.author;
        let env = [
            ("GIT_INDEX_FILE", index),
            ("GIT_AUTHOR_NAME", name),
            ("GIT_AUTHOR_EMAIL", email),
            ("GIT_COMMITTER_NAME", name),
            ("GIT_COMMITTER_EMAIL", email),
        ];
        let run = async |args: &[&str], input: Option<&[u8]>| -> anyhow::Result<String> {
            Ok(String::from_utf8_lossy(&self.bytes(repo, args, input, &env).await?).trim_end().to_owned())
        };
        if let Some(parent) = parent {
            run(&["read-tree", &parent.id], None).await?;
        }
        match change.content {
            Some(content) => {
                let blob = run(&["hash-object", "-w", "--stdin"], Some(content)).await?;
                run(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{}", change.path)], None).await?;
            }
            None => {
                run(&["update-index", "--force-remove", "--", change.path], None).await?;
            }
        }
        let tree = run(&["write-tree"], None).await?;
        let mut args = vec!["commit-tree", &tree];
        if let Some(parent) = parent {
            args.extend(["-p", parent.id.as_str()]);
        }
        let commit = run(&args, Some(change.message.as_bytes())).await?;
        let target = format!("refs/heads/{}", change.new_branch.unwrap_or(change.branch));
        let none = "0".repeat(40);
        let before = match (change.new_branch, parent) {
            (None, Some(parent)) => parent.id.as_str(),
            _ => none.as_str(),
        };
        run(&["update-ref", &target, &commit, before], None).await?;
        self.commit(repo, &commit).await.context("read back the commit just made")
    }

    /// Fetches all branches and tags of another server's repository into an empty one. The token is passed to git
    /// in its environment.
    pub(super) async fn mirror(&self, repo: Id, url: &str, token: &str) -> anyhow::Result<()> {
        let mut command = self.command(repo);
        // The configuration entries that `scrub` sets, and one more.
        let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{token}:x"));
        if !token.is_empty() {
            command
                .env("GIT_CONFIG_COUNT", "4")
                .env("GIT_CONFIG_KEY_3", "http.extraHeader")
                .env("GIT_CONFIG_VALUE_3", format!("Authorization: Basic {basic}"));
        }
        let done = command
            .args(["fetch", "--quiet", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
            .output()
            .await
            .context("start git: is it installed?")?;
        if !done.status.success() {
            bail!("git fetch {url}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    /// Creates a branch; false if it exists or the name is not allowed.
    pub(super) async fn create_branch(&self, repo: Id, name: &str, at: &str) -> bool {
        let none = "0".repeat(40);
        let target = format!("refs/heads/{name}");
        self.text(repo, &["check-ref-format", &target]).await.is_ok()
            && self.text(repo, &["update-ref", &target, at, &none]).await.is_ok()
    }

    pub(super) async fn delete_branch(&self, repo: Id, name: &str) -> bool {
        self.text(repo, &["update-ref", "-d", &format!("refs/heads/{name}")]).await.is_ok()
    }

    /// What a pull request would merge; `None` if a branch does not exist.
    pub(super) async fn compare(&self, repo: Id, base: &str, head: &str) -> Option<Comparison> {
        let base_sha = self.branch(repo, base).await?.id;
        let head_sha = self.branch(repo, head).await?.id;
        let merge_base = self.text(repo, &["merge-base", &base_sha, &head_sha]).await.unwrap_or_default();
        let from = if merge_base.is_empty() { &base_sha } else { &merge_base };
        let numbers = self.text(repo, &["diff", "--numstat", from, &head_sha]).await.unwrap_or_default();
        let mut found = Comparison { head_sha, base_sha, merge_base, ..Comparison::default() };
        for line in numbers.lines() {
            let mut columns = line.split('\t');
            // Binary files have `-` here.
            let mut number = || columns.next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
            found.additions += number();
            found.deletions += number();
            found.changed_files += 1;
        }
        Some(found)
    }

    /// The newest `limit` commits of a push, newest first, with their files.
    pub(super) async fn pushed(
        &self,
        repo: Id,
        before: &str,
        after: &str,
        default_sha: Option<&str>,
        limit: usize,
    ) -> (Vec<Commit>, usize) {
        let range = match (before.bytes().all(|b| b == b'0'), default_sha) {
            (false, _) => format!("{before}..{after}"),
            // A new branch brings the commits that the default branch does not contain.
            (true, Some(default)) if default != after => format!("{default}..{after}"),
            (true, _) => after.to_owned(),
        };
        let Ok(listed) = self.text(repo, &["rev-list", &range, "--"]).await else {
            return (vec![], 0);
        };
        let ids: Vec<&str> = listed.lines().collect();
        let mut commits = Vec::new();
        for id in ids.iter().take(limit) {
            commits.extend(self.commit(repo, id).await);
        }
        (commits, ids.len())
    }

    /// `(added, removed, modified)` files of one commit.
    pub(super) async fn touched(&self, repo: Id, commit: &str) -> [Vec<String>; 3] {
        let args = ["diff-tree", "--root", "--no-commit-id", "-r", "-z", "--name-status", "--no-renames", commit];
        let listed = self.text(repo, &args).await.unwrap_or_default();
        let mut out = [vec![], vec![], vec![]];
        let mut parts = listed.split('\0');
        while let (Some(status), Some(name)) = (parts.next(), parts.next()) {
            let kind = match status {
                "A" => 0,
                "D" => 1,
                _ => 2,
            };
            out[kind].push(name.to_owned());
        }
        out
    }
}

/// Git's strict ISO time in UTC, as the forge shows it.
fn utc(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| time.to_owned(), |t| t.to_string())
}

impl Commit {
    /// The JSON in push deliveries and branches; `username` is set if the e-mail address belongs to an account.
    pub(super) fn payload_json(
        &self,
        html_root: &str,
        username: impl Fn(&str) -> String,
        verification: Value,
        touched: Option<&[Vec<String>; 3]>,
    ) -> Value {
        let person = |(name, email, _): &(String, String, String)| json!({"name": name, "email": email, "username": username(email)});
        json!({
            "id": self.id, "message": self.message, "url": format!("{html_root}/commit/{}", self.id),
            "author": person(&self.author), "committer": person(&self.committer),
            "verification": verification, "timestamp": self.committer.2,
            "added": touched.map(|t| &t[0]), "removed": touched.map(|t| &t[1]), "modified": touched.map(|t| &t[2]),
        })
    }
}

/// The forge's JSON about a commit without a signature.
pub(super) fn unsigned() -> Value {
    json!({"verified": false, "reason": "gpg.error.not_signed_commit", "signature": "", "signer": null, "payload": ""})
}
