//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let env = std::env::var("CARGO_CFG_TARGET_ENV").unwrap_or_default();
    if os == "linux" && env == "gnu" {
        // At a fixed address the linker settles the 36,000 relocations once.
        // Else the loader writes 0.6 MB at every start, and every cell's keeper
        // keeps its own copy for as long as it lives.
        for what in ["bins", "benches"] {
            println!("cargo::rustc-link-arg-{what}=-no-pie");
        }
    }
}
