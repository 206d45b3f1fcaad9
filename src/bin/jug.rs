//! The door for people.

fn main() {
    jug::cli::engine::main();
}
