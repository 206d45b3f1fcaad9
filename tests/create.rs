//! `create`: everything but the program's start.
mod support;
use support::*;

#[test]
fn create_makes_a_container_that_waits() {
    let b = Bundle::new();
    let c = b.create();
    assert_eq!(c.status(), "created");
    c.delete();
}

#[test]
fn the_probe_reports() {
    let b = Bundle::new();
    let report = b.probe(&["--read", "/etc/passwd", "--write", "/etc"]);
    assert_eq!(report["pid"], 1);
    assert_eq!(report["writes"]["/etc"]["errno"], "EROFS");
}
