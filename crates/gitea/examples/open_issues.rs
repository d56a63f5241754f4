//! Lists the open issues of a repository:
//! `FORGE_URL=… FORGE_TOKEN=… cargo run -p lazarus-gitea --example open_issues -- acme/widget`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use futures::TryStreamExt as _;
use lazarus_gitea::{Forge, ForgeOptions, IssueQuery, IssueState};
use std::env;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("FORGE_URL").map_err(|_| "set FORGE_URL, as in http://127.0.0.1:3000")?;
    let token = env::var("FORGE_TOKEN").map_err(|_| "set FORGE_TOKEN to a token that may read issues")?;
    let name = env::args().nth(1).ok_or("name a repository, as in acme/widget")?;
    let (owner, name) = name.split_once('/').ok_or("a repository is owner/name, as in acme/widget")?;

    let forge = Forge::new(ForgeOptions::new(url, token.into()))?;
    let mut issues = forge.repo(owner, name).issues(IssueQuery { state: IssueState::Open, ..IssueQuery::default() });
    while let Some(issue) = issues.try_next().await? {
        println!("#{} {} (by {})", issue.number, issue.title, issue.author.login);
    }
    Ok(())
}
