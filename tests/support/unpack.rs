//! The test program is its own unpack worker, as `jug` is: whoever unpacks in a test's process says
//! `#[path = "support/unpack.rs"] mod unpack;`.

use jug::image::layer::worker;

/// Runs before `main`, and so before libtest looks at its arguments.
extern "C" fn worker_first() {
    if worker::is_wanted() {
        std::process::exit(worker::main().into());
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static FIRST: extern "C" fn() = worker_first;
