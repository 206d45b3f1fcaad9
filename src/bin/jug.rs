//! The door for people.

fn main() -> std::process::ExitCode {
    jug::cli::engine::main()
}
