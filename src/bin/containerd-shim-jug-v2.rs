//! The door for containerd: the command line of a v2 shim. Its main is C's.
#![no_main]

jug::c_main!(jug::shim::main());
