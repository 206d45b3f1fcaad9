//! A store that is busy: many pulls, collections and containers at once, and commits that are killed.
//! `JUG_SECONDS=300 JUG_ROUNDS=1000 cargo test --all-features --test store_busy` is the long form.
#![cfg(feature = "engine")]

#[path = "support/store.rs"]
mod store;
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use store::{Dice, Said, Shop, rounds};
use support::Bundle;

/// A store, and a run root beside it.
struct Busy {
    shop: Shop,
    bundle: Bundle,
}

impl Busy {
    fn new(name: &str) -> Self {
        Self { shop: Shop::new(name), bundle: Bundle::new() }
    }

    /// An image with the bundle's root below, and layers that it shares with others of the same kind.
    fn image(&self, name: &str, layers: &[&str]) -> String {
        let root = self.bundle.rootfs();
        let mut text = format!(
            "tag = \"{name}\"\n[config]\ncmd = [\"/bin/true\"]\n[[layer]]\nfrom = {{ dir = {:?}, owner = \"0:0\" }}\n",
            root.display().to_string()
        );
        for layer in layers {
            text += "[[layer]]\nfiles = [\n";
            for file in 0..30 {
                let content = format!("{layer} {file} ").repeat(100 + 10 * file);
                text += &format!("{{ path = \"/{layer}/f{file}\", content = \"{content}\" }},\n");
            }
            text += "]\n";
        }
        self.shop.image("oci", &name.replace(['/', ':'], "-"), &text) + ":" + name
    }

    fn args<'a>(&self, runroot: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&["--runroot", runroot], args].concat()
    }

    fn runroot(&self) -> String {
        self.shop.dir.join("run").display().to_string()
    }

    fn jug(&self, args: &[&str]) -> Said {
        self.shop.jug(&self.args(&self.runroot(), args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.shop.ok(&self.args(&self.runroot(), args))
    }
}

/// How long the busy test goes on: `JUG_SECONDS`, else some.
fn seconds() -> u64 {
    std::env::var("JUG_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Again and again: 32 pulls at once of images that share layers, with collections and containers all the while. Each
/// layer is unpacked once, and nothing dangles.
#[test]
fn pulls_collections_and_runs_at_once() {
    let busy = Busy::new("busy");
    let names = ["jug/i0:1", "jug/i1:1", "jug/i2:1", "jug/i3:1"];
    let kinds: [&[&str]; 4] = [&["a", "b", "c"], &["a", "b", "d"], &["a", "e"], &["b", "a", "c", "f"]];
    let images: Vec<String> =
        names.iter().zip(kinds).map(|(name, layers)| busy.image(name, layers)).collect();
    // By chain ID: the root; a, a/b, a/b/c; a/b/d; a/e; b, b/a, b/a/c, b/a/c/f.
    let different = 10;
    let (begin, mut turns, mut pulls, mut ran, mut collected) = (Instant::now(), 0, 0, 0, 0);
    while turns == 0 || begin.elapsed() < Duration::from_secs(seconds()) {
        let children: Vec<_> = (0..32).map(|i| busy.shop.start(&["pull", &images[i % 4]])).collect();
        let (over, runs, collections) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        let done: usize = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    busy.ok(&["image", "prune", "--force"]);
                    collections.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                for name in names.iter().cycle() {
                    let said = busy.jug(&["run", "--rm", "--pull", "never", name, "/bin/true"]);
                    let early = said.err.contains("no such image");
                    assert!(said.code == Some(0) || early, "{:?}: {}{}", said.code, said.out, said.err);
                    runs.fetch_add(u32::from(!early), Ordering::Relaxed);
                    // One at least, and those that there is time for.
                    if over.load(Ordering::Relaxed) && runs.load(Ordering::Relaxed) > 0 {
                        break;
                    }
                }
            });
            let outputs = children.into_iter().map(|child| Said::of(&child.wait_with_output().expect("jug")));
            let done = outputs.map(|said| {
                assert_eq!(said.code, Some(0), "{}", said.err);
                said.err.matches(": Done").count()
            });
            let done = done.sum();
            over.store(true, Ordering::Relaxed);
            done
        });
        let layers = busy.shop.list("layers").len();
        assert_eq!((done, layers), (different, different), "each layer is unpacked once");
        busy.shop.is_whole();
        assert_eq!(busy.ok(&["images", "-q"]).lines().count(), 4);
        // The heirs of containers may still be there for a moment; they hold nothing of the store.
        busy.shop.empties();
        (turns, pulls) = (turns + 1, pulls + 32);
        ran += runs.into_inner();
        collected += collections.into_inner();
    }
    println!(
        "{turns} turns: {pulls} pulls, {ran} containers, {collected} collections in {:?}",
        begin.elapsed()
    );
    assert_eq!(busy.ok(&["ps", "-aq"]), "");
}

/// A commit that is killed leaves a whole store, the container as it was, and the new image whole or not at all.
#[test]
fn a_commit_is_killed_at_any_instant() {
    let busy = Busy::new("commit");
    let image = busy.image("jug/base:1", &["a"]);
    busy.ok(&["pull", &image]);
    let script =
        "i=0; while [ $i -lt 40 ]; do cat /bin/busybox > /made$i; i=$((i+1)); done; echo said > /said";
    busy.ok(&["run", "--name", "writer", "jug/base:1", "/bin/sh", "-c", script]);
    let begin = Instant::now();
    busy.ok(&["commit", "writer", "made"]);
    let longest = begin.elapsed();
    let mut dice = Dice(11);
    let (mut killed, mut there) = (0, 0);
    for round in 0..rounds(8) {
        busy.ok(&["rmi", "--ignore", "made"]);
        let runroot = busy.runroot();
        let mut child = busy.shop.start(&busy.args(&runroot, &["commit", "writer", "made"]));
        std::thread::sleep(Duration::from_micros(dice.below(longest.as_micros() as u64)));
        killed += u32::from(child.try_wait().expect("wait").is_none());
        let _ = child.kill();
        let _ = child.wait();
        busy.shop.is_whole();
        if busy.ok(&["images", "--format", "{{.Repository}}"]).lines().any(|name| name.ends_with("made")) {
            assert_eq!(busy.ok(&["run", "--rm", "made", "/bin/cat", "/said"]), "said\n", "round {round}");
            there += 1;
        }
        busy.ok(&["image", "prune", "--force"]);
        for directory in ["staging", "leases", "trash"] {
            assert_eq!(busy.shop.list(directory), [""; 0], "round {round}: left in {directory}");
        }
    }
    println!("{killed} commits killed, of which {there} had made their image");
    busy.ok(&["commit", "writer", "made"]);
    assert_eq!(busy.ok(&["run", "--rm", "made", "/bin/cat", "/said"]), "said\n");
    busy.ok(&["rm", "writer"]);
    busy.shop.empties();
    assert!(!Path::new(&busy.runroot()).join("oci/writer").exists());
}
