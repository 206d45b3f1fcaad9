//! The door of `rootfs-builder`: arguments in, one call, error out.

use std::process::ExitCode;

use clap::Parser;
use rootfs_builder::cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rootfs-builder: {error}");
            ExitCode::FAILURE
        }
    }
}
