//! `jug`: the verbs people know. They come with the image engine; until then there is `--version` and `--help`.

use clap::Parser;

/// A daemonless container engine. This version holds the runtime, jug-oci; the engine's verbs follow.
#[derive(Debug, Parser)]
#[command(name = "jug", version, arg_required_else_help = true)]
pub struct Cli {}

/// The whole program.
pub fn main() {
    Cli::parse();
}
