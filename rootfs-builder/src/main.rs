//! The door of `rootfs-builder`: arguments in, one call, error out.

use std::process::ExitCode;

use clap::Parser;
use rootfs_builder::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rootfs-builder: {error}");
            ExitCode::FAILURE
        }
    }
}
