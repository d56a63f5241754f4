//! The main job, played on this machine: a stand-in for the forge, and
//! everything else real.

pub mod forge;

/// Arguments of `lazarus demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Keep both up afterwards, and print how to talk to them.
    #[arg(long)]
    pub serve: bool,
}

/// Plays the main job.
///
/// # Errors
/// Where a step of it does not come about.
pub fn run(_args: &DemoArgs) -> anyhow::Result<bool> {
    anyhow::bail!("the demo is not there yet")
}
