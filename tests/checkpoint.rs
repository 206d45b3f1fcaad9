//! `checkpoint` and `restore`, through a criu(8) that works on this kernel.
mod support;

use std::fs;

use support::*;

/// criu is looked for where the test's own caller has it.
fn with_criu(call: Call) -> Call {
    call.env("PATH", std::env::var("PATH").unwrap_or_default())
}

/// Counts in a file of a tmpfs, in memory: what is not restored begins at 1 again.
const COUNT: &str = "n=0; while true; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; done";

fn counting() -> Bundle {
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
    b.set_args(&["sh", "-c", COUNT]);
    b
}

/// The counter of a running container, once it is past `floor`.
fn count_beyond(c: &Container<'_>, floor: u64) -> u64 {
    eventually("a count", || {
        let text = c.exec(&["cat", "/tmp/count"]).ok().stdout;
        text.trim().parse().ok().filter(|n| *n > floor)
    })
}

#[test]
fn a_container_goes_on_where_it_was() {
    needs!(Feature::Criu);
    let b = counting();
    let c = b.running();
    let before = count_beyond(&c, 3);
    let images = b.path("images");
    with_criu(c.call("checkpoint", &["--image-path", &images], &[])).ok();
    assert_eq!(c.verb("state", &[]).exits(1).says("does not exist").code, 1);
    let out = with_criu(b.verb("restore", &["--detach", "--image-path", &images])).output();
    if out.code != 0 {
        eprintln!("{}", fs::read_to_string(format!("{images}/restore.log")).unwrap());
    }
    out.ok();
    let c = b.container();
    assert_eq!(c.status(), "running");
    assert!(count_beyond(&c, before) < before + 100);
    c.stop();
    c.delete();
    assert!(fs::exists(&images).expect("stat"));
}
