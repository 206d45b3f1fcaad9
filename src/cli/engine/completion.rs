//! `completion`: what a shell needs to complete jug's command lines.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::log;
use crate::error::Result;

/// Print the completions for a shell
#[derive(Debug, Args)]
pub struct Completion {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub fn perform(self) -> Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "jug", &mut text);
        log::print(&String::from_utf8_lossy(&text));
        Ok(0)
    }
}
