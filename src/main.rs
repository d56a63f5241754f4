//! The binary: everything is in the library. What has to run before there is
//! any thread (the cell's launcher, the probe, the egress proxy) is recognised first.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|a| a.to_str()) {
        Some("cell-launch") => {
            let status = lazarus::keeper::launch(std::path::Path::new(&arguments.next().unwrap_or_default()));
            std::process::ExitCode::from(status as u8)
        }
        Some("cell-enter") => std::process::ExitCode::from(lazarus::keeper::enter(arguments) as u8),
        Some("cell-probe") => {
            lazarus::cli::print_probe();
            std::process::ExitCode::SUCCESS
        }
        Some("cell-harvest") => {
            let wanted = arguments.next().unwrap_or_default();
            lazarus::cli::print_harvest(&wanted.to_string_lossy());
            std::process::ExitCode::SUCCESS
        }
        Some("confined") => std::process::ExitCode::from(lazarus::sandbox::confined(arguments) as u8),
        Some("cell-egress") => {
            lazarus::sandbox::few_heaps();
            lazarus::egress::main()
        }
        Some("cell-worktree") => lazarus::workspace::in_worktree(arguments),
        _ => lazarus::cli::main(),
    }
}
