//! The door for people. The verbs come with the image engine; until then there is `--version` and `--help`.

use clap::Parser;

/// A daemonless container engine. This version holds the runtime, jug-oci; the engine's verbs follow.
#[derive(Debug, Parser)]
#[command(name = "jug", version, arg_required_else_help = true)]
struct Cli {}

fn main() {
    Cli::parse();
}
