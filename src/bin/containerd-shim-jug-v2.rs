//! The door for containerd: the command line of a v2 shim.

fn main() -> std::process::ExitCode {
    jug::shim::main()
}
