//! The test kit: bundles that cost little, calls that cannot hang, an audit that nothing is left.
//!
//! Every file below `tests/` says `mod support; use support::*;` and then, in most cases, no more than:
//!
//! ```ignore
//! let b = Bundle::new();                                  // runc's default config, args = a long sleep
//! b.edit(|spec| spec["hostname"] = json!("lamb"));
//! assert_eq!(b.probe(&[])["hostname"], "lamb");           // `run` of /bin/probe, its report parsed
//! let c = b.create();                                     // or b.running(): create and start
//! c.start();
//! c.exec(&["/bin/probe", "exit", "7"]).exits(7);
//! c.kill("KILL");
//! c.wait("stopped");                                      // dropping `b` deletes, audits and removes everything
//! ```
//!
//! The runtime is `$RUNTIME` (a path, or a name such as `runc`), else the `jug-oci` that cargo built. Where jug departs
//! from a peer on purpose the test says `deviates!(…)`; where an old peer lacks a newer behaviour, `newer!(…)`;
//! where the kernel lacks something, `needs!(Feature::…)`; anything else that stops a test natively is `skip!(…)`,
//! which fails in the guest (`JUG_IN_GUEST=1`). All of them speak past libtest's capture, so a skip is never
//! silent.
//!
//! The probe (rootfs-builder/src/bin/probe) is looked for beside the test's own profile directory (`…/debug/probe`, or
//! `$JUG_PROBE`) and built when it is missing or older than its source; in the guest, where there is no cargo, it
//! must be there: `cargo build -p rootfs-builder --bin probe` first.
#![allow(dead_code, unused_imports, unused_macros, reason = "every test file uses its own part of the kit")]

mod audit;
mod bundle;
mod call;
mod console;
mod container;
#[cfg(feature = "engine")]
mod engine;
mod machine;
mod place;
mod program;
#[cfg(feature = "shim")]
pub mod shim;
mod template;

pub use audit::{cgroups, leftovers, sweep};
pub use bundle::{Bundle, DEFAULT_PATH, default_spec};
pub use call::{Call, Output, Running, runtime_call};
pub use console::{Console, Master, Pty};
pub use container::Container;
#[cfg(feature = "engine")]
pub use engine::Engine;
pub use machine::{Feature, in_guest, is_peer, is_runc, runtime, runtime_name};
pub use place::{
    Holder, SafeBox, cgroup_dir, cgroup2_mount, has, listing, mount_at, namespace, own_namespace, ran_in_box,
};
pub use program::{install, script};
pub use serde_json::{Value, json};
pub use template::{probe, probe_here};

use std::time::{Duration, Instant};

/// Leaves the test when the runtime under test is a peer and jug departs from it on purpose (docs/deviations.md).
macro_rules! deviates {
    ($($why:tt)*) => {
        if $crate::support::is_peer() {
            $crate::support::say_skip("SKIP-RUNC", &format!($($why)*));
            return;
        }
    };
}

/// Leaves the test when the runtime under test is a peer too old for the behaviour: `newer!("1.2: exec --cgroup")`.
macro_rules! newer {
    ($($why:tt)*) => {
        if $crate::support::is_peer() {
            let name = $crate::support::runtime_name();
            $crate::support::say_skip("SKIP-RUNC", &format!("{name} lacks {}", format_args!($($why)*)));
            return;
        }
    };
}

/// Leaves the test when the running kernel really lacks the feature.
macro_rules! needs {
    ($feature:expr) => {
        let feature = $feature;
        if !feature.is_present() {
            $crate::support::say_skip("SKIP", &format!("this kernel has no {feature}"));
            return;
        }
    };
}

/// Leaves the test natively; in the guest, which was made for this, it is a failure.
macro_rules! skip {
    ($($why:tt)*) => {{
        let why = format!($($why)*);
        assert!(!$crate::support::in_guest(), "a skip in the guest is a failure: {why}");
        $crate::support::say_skip("SKIP", &why);
        return;
    }};
}

/// The test goes on in scripts/box, where nothing of the host can be changed: it is said before anything else.
macro_rules! boxed {
    () => {
        if $crate::support::ran_in_box(std::any::type_name_of_val(&|| {})) {
            return;
        }
    };
}

pub(crate) use {boxed, deviates, needs, newer, skip};

/// One line on the real stderr: libtest captures only the print macros.
pub fn say_skip(word: &str, why: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "{word} {}: {why}", thread.name().unwrap_or("?"));
}

/// How long anything may take before it counts as a hang. The guest's system calls are twenty times slower.
pub fn patience() -> Duration {
    Duration::from_secs(if in_guest() { 180 } else { 30 })
}

/// Waits until a process runs no more; whoever's child it is may take its time to wait for it.
#[track_caller]
pub fn gone(pid: i32) {
    eventually(&format!("the end of process {pid}"), || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        matches!(state, None | Some('Z' | 'X')).then_some(())
    });
}

/// Asks until the answer is `Some`, or panics: what did not come.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let pause = Duration::from_millis(if in_guest() { 50 } else { 5 });
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience(), "never came: {what}");
        std::thread::sleep(pause);
    }
}
