//! The order in which a pull reaches the disk: whatever instant the power goes, nothing has a name whose bytes may be
//! lost. strace(1) tells the calls; the rules are those of `src/image/store/mod.rs`.
#![cfg(feature = "engine")]

#[path = "support/store.rs"]
mod store;

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use store::Shop;

const LAYERS: &str = r#"
tag = "jug/power:1"
[[layer]]
files = [{ path = "/a", content = "a" }, { path = "/zeros", zeros = 2000000 }]
[[layer]]
files = [{ path = "/b", content = "b" }]
[[layer]]
files = [{ path = "/c", content = "c" }]
"#;

/// A call that has succeeded: its name and the rest of its line. In the order in which the calls ended.
fn calls(trace: &str) -> Vec<(String, String)> {
    let mut begun: HashMap<&str, String> = HashMap::new();
    let mut done = Vec::new();
    for line in trace.lines() {
        let Some((pid, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix("<unfinished ...>") {
            begun.insert(pid, begin.to_owned());
            continue;
        }
        let whole = match line.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => begun.remove(pid).unwrap_or_default() + end,
            None => line.to_owned(),
        };
        // strace fills up to a column between the two.
        let succeeded = whole.rsplit_once(')').is_some_and(|(_, end)| end.trim_start().starts_with("= 0"));
        if let Some((name, rest)) = whole.split_once('(')
            && succeeded
        {
            done.push((name.to_owned(), rest.to_owned()));
        }
    }
    done
}

/// What a rename makes of what, as paths below the store: (from, to).
fn renamed(rest: &str) -> Option<(String, String)> {
    let words: Vec<&str> = rest.split('"').collect();
    Some(((*words.get(1)?).to_owned(), (*words.get(3)?).to_owned()))
}

#[derive(Default)]
struct Disk {
    /// Files and directories, below the store, that fsync(2) wrote since they last changed.
    synced: Vec<String>,
    /// Names of blobs and layers that only a syncfs(2) makes durable, and that none came after yet.
    loose: Vec<String>,
    /// Files of images whose directory was not synced yet.
    unsure: Vec<String>,
    images: usize,
    names: usize,
    barriers: usize,
}

impl Disk {
    fn renamed(&mut self, from: &str, to: &str) {
        let room = to.split('/').next().unwrap_or_default();
        match room {
            "blobs" | "layers" => self.loose.push(to.to_owned()),
            "images" | "names" => {
                assert!(self.loose.is_empty(), "{to} has its name before {:?} are durable", self.loose);
                assert!(self.synced.iter().any(|file| file == from), "{to} has its name before its bytes");
                if room == "images" {
                    self.images += 1;
                    self.unsure.push(to.to_owned());
                } else {
                    self.names += 1;
                    assert!(self.unsure.is_empty(), "{to} before the name of {:?} is durable", self.unsure);
                }
            }
            _ => {}
        }
    }

    fn synced(&mut self, path: &str) {
        self.synced.push(path.to_owned());
        if path == "images" {
            self.unsure.clear();
        }
    }
}

#[track_caller]
fn in_order(shop: &Shop, args: &[&str]) -> Disk {
    let trace = shop.dir.join("trace");
    let traced = "trace=fsync,fdatasync,syncfs,sync,rename,renameat,renameat2,link,linkat";
    let status = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", traced, "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_jug"))
        .arg("--root")
        .arg(&shop.root)
        .args(args)
        .output()
        .expect("strace(1)");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let mut disk = Disk::default();
    let root = format!("{}/", shop.root.display());
    for (call, rest) in calls(&fs::read_to_string(trace).expect("the trace")) {
        match call.as_str() {
            "fsync" | "fdatasync" => {
                let path = rest.split(['<', '>']).nth(1).unwrap_or_default();
                disk.synced(path.strip_prefix(&root).unwrap_or(path));
            }
            "syncfs" | "sync" => {
                disk.loose.clear();
                disk.barriers += 1;
            }
            _ => {
                let (from, to) = renamed(&rest).unwrap_or_else(|| panic!("{call}({rest}"));
                disk.renamed(&from, &to);
            }
        }
    }
    disk
}

#[test]
fn nothing_has_a_name_before_its_bytes_are_durable() {
    let shop = Shop::new("power");
    let layout = shop.image("oci", "layout", LAYERS) + ":jug/power:1";
    for form in ["directories", "erofs"] {
        if form == "erofs" && !store::images_are_taken() {
            continue;
        }
        let disk = in_order(&shop, &["pull", "--layers", form, &layout]);
        assert_eq!((disk.images, disk.names), (1, 1), "{form}");
        assert!(disk.barriers >= 1, "{form}");
        // Again, there is nothing to do, and nothing to wait for.
        let disk = in_order(&shop, &["pull", &layout]);
        assert_eq!((disk.images, disk.names, disk.barriers), (0, 0, 0), "{form}");
        shop.ok(&["rmi", "jug/power:1"]);
    }
    // An image that shares layers with one that is there, and one of an archive.
    shop.ok(&["pull", &layout]);
    let more = LAYERS.to_owned() + "[[layer]]\nfiles = [{ path = \"/d\", content = \"d\" }]\n";
    let archive = shop.image("docker-archive", "more.tar", &more.replace("power:1", "power:2"));
    let file = archive.strip_prefix("docker-archive:").expect("a path");
    let disk = in_order(&shop, &["load", "-i", file]);
    assert_eq!((disk.images, disk.names), (1, 1));
}

#[test]
#[should_panic(expected = "before [\"layers/x\"] are durable")]
fn an_image_before_its_layer_would_be_seen() {
    let mut disk = Disk::default();
    disk.renamed("staging/layer-x", "layers/x");
    disk.synced("staging/file-1");
    disk.renamed("staging/file-1", "images/y");
}

#[test]
#[should_panic(expected = "before the name of [\"images/y\"] is durable")]
fn a_name_before_its_image_would_be_seen() {
    let mut disk = Disk::default();
    disk.synced("staging/file-1");
    disk.renamed("staging/file-1", "images/y");
    disk.synced("staging/file-2");
    disk.renamed("staging/file-2", "names/z");
}
