//! The store never loses anything: killed at any instant, run by many at once, on a full disk, with damaged bytes.
//! `JUG_ROUNDS=1000 cargo test --all-features --test store` is the long form.
#![cfg(feature = "engine")]

#[path = "support/store.rs"]
mod store;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use store::{Dice, Said, Shop, rounds};

/// An image of some layers with some files each, which shares its first layer with every other of the kind.
fn recipe(tag: &str, layers: u64) -> String {
    let mut text = format!("tag = \"{tag}\"\n");
    for layer in 0..layers {
        let own = if layer == 0 { "all" } else { tag };
        text += "[[layer]]\nfiles = [\n";
        for file in 0..40 {
            let content = format!("{own} {layer} {file} ").repeat(200 + 10 * file);
            text += &format!("{{ path = \"/d{layer}/f{file}\", content = \"{content}\" }},\n");
        }
        text += &format!("{{ path = \"/d{layer}/big\", zeros = {} }},\n]\n", 400_000 * (layer + 1));
    }
    text
}

/// Starts `jug`, and kills it: after a time, or when it has said some lines.
fn kill(shop: &Shop, args: &[&str], dice: &mut Dice, longest: Duration) {
    let mut child = shop.start(args);
    if dice.below(2) == 0 {
        std::thread::sleep(Duration::from_micros(dice.below(longest.as_micros() as u64)));
    } else {
        let lines = dice.below(6) as usize;
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        for _ in 0..lines {
            let mut line = String::new();
            if said.read_line(&mut line).expect("stderr") == 0 {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(dice.below(3000)));
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_pull_is_killed_at_any_instant() {
    a_pull_is_killed("directories");
}

#[test]
fn a_pull_of_images_is_killed_at_any_instant() {
    if store::images_are_taken() {
        a_pull_is_killed("erofs");
    }
}

fn a_pull_is_killed(form: &str) {
    let shop = Shop::new(&format!("killed-{form}"));
    let layout = shop.image("oci", "layout", &recipe("jug/killed:1", 4));
    let clean = shop.beside("clean");
    let begin = Instant::now();
    clean.ok(&["pull", "--layers", form, &layout]);
    let longest = begin.elapsed();
    let mut dice = Dice(5);
    for round in 0..rounds(10) {
        kill(&shop, &["pull", "--layers", form, &layout], &mut dice, longest);
        shop.is_whole();
        // Often another kill comes before the pull is whole.
        if dice.below(3) > 0 {
            continue;
        }
        shop.ok(&["pull", "--layers", form, &format!("{layout}:jug/killed:1")]);
        shop.is_whole();
        assert_eq!(shop.trees(), clean.trees(), "round {round}");
        shop.ok(&["image", "prune", "--force"]);
        for directory in ["staging", "leases", "trash"] {
            assert_eq!(shop.list(directory), [""; 0], "round {round}: left in {directory}");
        }
        shop.empties();
    }
}

/// rmi, prune and load, too: afterwards the store is whole, and what was there before is there, or wholly gone.
#[test]
fn everything_else_is_killed_at_any_instant() {
    let shop = Shop::new("gone");
    let (one, two) = (recipe("jug/one:1", 2), recipe("jug/two:1", 3));
    let keep = shop.image("oci", "one", &one);
    let archive = shop.image("docker-archive", "two.tar", &two);
    let file = archive.strip_prefix("docker-archive:").expect("a path");
    shop.ok(&["pull", &keep]);
    let kept = shop.trees();
    let mut dice = Dice(7);
    for round in 0..rounds(5) {
        kill(&shop, &["load", "-i", file], &mut dice, Duration::from_millis(400));
        shop.is_whole();
        shop.ok(&["load", "-i", file]);
        let verb: &[&str] =
            if dice.below(2) == 0 { &["rmi", "jug/two:1"] } else { &["rmi", "--force", "jug/two:1"] };
        kill(&shop, verb, &mut dice, Duration::from_millis(30));
        shop.is_whole();
        kill(&shop, &["image", "prune", "--force"], &mut dice, Duration::from_millis(30));
        shop.is_whole();
        shop.jug(&["rmi", "--ignore", "jug/two:1"]);
        shop.ok(&["image", "prune", "--force"]);
        let left = shop.trees();
        assert!(kept.iter().all(|layer| left.contains_key(layer.0)) || left.is_empty(), "round {round}");
        shop.ok(&["pull", &keep]);
        assert_eq!(shop.trees(), kept, "round {round}");
    }
    shop.empties();
}

/// Each layer is unpacked once, whoever wants it; collections in between take nothing away.
#[test]
fn many_pull_the_same_at_once() {
    let shop = Shop::new("many");
    let images: Vec<String> = (0..4)
        .map(|i| shop.image("oci", &format!("i{i}"), &recipe(&format!("jug/i{i}:1"), 2 + i % 2)))
        .collect();
    let pulls: Vec<_> =
        (0..rounds(16).min(64) as usize).map(|i| shop.start(&["pull", &images[i % 4]])).collect();
    let mut collections = 0;
    let outputs: Vec<Said> = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            pulls.into_iter().map(|pull| Said::of(&pull.wait_with_output().expect("jug"))).collect::<Vec<_>>()
        });
        while !waiting.is_finished() {
            // Not `image prune`: an image of a layout has no name, and would rightly go.
            shop.ok(&["rmi", "--ignore", "nothing"]);
            shop.ok(&["system", "df"]);
            collections += 1;
        }
        waiting.join().expect("the thread")
    });
    assert!(collections > 0);
    for said in &outputs {
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let done: usize = outputs.iter().map(|said| said.err.matches(": Done").count()).sum();
    assert_eq!(done, shop.list("layers").len(), "each layer is unpacked once");
    shop.is_whole();
    shop.empties();
}

/// A pull and a collection that removes whatever has no name, over and over: what a running pull wants stays.
#[test]
fn a_collection_takes_nothing_from_a_running_pull() {
    let shop = Shop::new("lease");
    let layout = shop.image("oci", "layout", &recipe("jug/lease:1", 3));
    for _ in 0..rounds(4) {
        let mut pull = shop.start(&["pull", &format!("{layout}:jug/lease:1")]);
        while pull.try_wait().expect("wait").is_none() {
            shop.ok(&["image", "prune", "--force"]);
        }
        let said = Said::of(&pull.wait_with_output().expect("jug"));
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(shop.ok(&["images"]).contains("jug/lease"), "a name keeps it");
        shop.is_whole();
        shop.ok(&["rmi", "jug/lease:1"]);
        assert_eq!(shop.list("layers"), [""; 0]);
    }
}

/// Unmounts it, so that its directory can go.
struct Disk(std::path::PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What a small disk runs out of.
#[derive(Clone, Copy, PartialEq)]
enum Short {
    /// KiB.
    Room,
    Inodes,
}

/// A file system of its own for a store, in a mount namespace of this thread's own: a tmpfs, or ext4 on a loop device.
fn small_disk(shop: &Shop, ext4: bool) -> Disk {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private");
    fs::create_dir_all(&shop.root).expect("mkdir");
    if ext4 {
        let file = shop.dir.join("disk");
        fs::File::create(&file).and_then(|file| file.set_len(64 << 20)).expect("a file for the disk");
        let run =
            |command: &mut Command| assert!(command.status().expect("a program").success(), "{command:?}");
        run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-m", "0", "-N", "2000"]).arg(&file));
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&shop.root));
    } else {
        mount(Some("jug-test"), &shop.root, Some("tmpfs"), MsFlags::empty(), Some("size=64m,nr_inodes=2000"))
            .expect("tmpfs");
    }
    Disk(shop.root.clone())
}

/// Fills the disk up to what is left: only so much is free then.
fn leave(shop: &Shop, short: Short, left: u64) {
    let ballast = shop.root.join("ballast");
    fs::create_dir(&ballast).expect("mkdir");
    let free = nix::sys::statvfs::statvfs(&shop.root).expect("statvfs");
    match short {
        Short::Room => {
            let bytes = (free.blocks_available() * free.fragment_size()).saturating_sub(left << 10);
            let file = fs::File::create(ballast.join("room")).expect("a file");
            nix::fcntl::posix_fallocate(&file, 0, bytes as i64).expect("fallocate");
        }
        Short::Inodes => {
            for n in left..free.files_free() {
                fs::File::create(ballast.join(n.to_string())).expect("an empty file");
            }
        }
    }
}

fn fill(short: Short, ext4: bool, levels: &[u64]) {
    let shop = Shop::new(&format!("{}-{ext4}", if short == Short::Room { "room" } else { "inodes" }));
    let large = shop.image("oci", "large", &recipe("jug/large:1", 3));
    let clean = shop.beside("clean");
    clean.ok(&["pull", &large]);
    let _disk = small_disk(&shop, ext4);
    let runroot = shop.dir.join("run").display().to_string();
    let hello = ["--runroot", &runroot, "run", "--rm", "hello", "true"];
    let mut refused = 0;
    for level in levels {
        shop.ok(&hello);
        let before = shop.ok(&["images", "-q"]);
        leave(&shop, short, *level);
        let said = shop.jug(&["pull", &large]);
        if said.code != Some(0) {
            refused += 1;
            assert!(said.err.contains("no space left on device"), "{level}: {}", said.err);
            assert!(said.err.contains("jug system prune"), "{level}: {}", said.err);
            assert_eq!(shop.ok(&["images", "-q"]), before, "{level}");
            // What is there runs still, with the little that is left.
            shop.ok(&hello);
        }
        fs::remove_dir_all(shop.root.join("ballast")).expect("rm");
        shop.is_whole();
        shop.ok(&["pull", &large]);
        let (found, whole) = (shop.trees(), clean.trees());
        assert!(whole.iter().all(|layer| found.get(layer.0) == Some(layer.1)), "{level}");
        shop.empties();
    }
    println!("{} levels, at {refused} of them there was too little", levels.len());
    assert!(refused > 0, "no level was too low");
}

/// Levels between very little and enough: six by default, `JUG_ROUNDS` of them else.
fn levels(from: u64, to: u64) -> Vec<u64> {
    let count = rounds(6).clamp(2, 100);
    (0..count).map(|i| from + (to - from) * i / (count - 1)).collect()
}

#[test]
fn a_full_disk_is_a_clear_error() {
    fill(Short::Room, false, &levels(200, 6000));
}

#[test]
fn a_disk_without_inodes_is_a_clear_error() {
    fill(Short::Inodes, false, &levels(60, 240));
}

/// The same of a real file system, where this machine has loop devices.
#[test]
fn a_full_loop_disk_is_a_clear_error() {
    if has_loop_devices() {
        fill(Short::Room, true, &levels(200, 6000));
    }
}

#[test]
fn a_loop_disk_without_inodes_is_a_clear_error() {
    if has_loop_devices() {
        fill(Short::Inodes, true, &levels(60, 240));
    }
}

fn has_loop_devices() -> bool {
    let there = fs::exists("/dev/loop-control").expect("stat");
    if !there {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIP loop: this machine has no loop devices");
    }
    there
}

/// What is done to a store.
type Damage = fn(&Shop);

/// Blobs and layers that lost bytes are found, moved aside, and brought again.
#[test]
fn damage_is_found_and_repaired() {
    let shop = Shop::new("damaged");
    let layout = shop.image("oci", "layout", &recipe("jug/damaged:1", 2));
    shop.ok(&["pull", &format!("{layout}:jug/damaged:1")]);
    let trees = shop.trees();
    let damage: [(&str, Damage); 5] = [
        ("a blob is shorter", |shop| {
            let blob = shop.root.join("blobs/sha256").join(&shop.list("blobs/sha256")[0]);
            fs::File::options().write(true).open(blob).and_then(|file| file.set_len(7)).expect("truncate");
        }),
        ("blobs are gone", |shop| {
            for blob in shop.list("blobs/sha256") {
                fs::remove_file(shop.root.join("blobs/sha256").join(blob)).expect("unlink");
            }
        }),
        ("a file of a layer has other bytes", |shop| {
            let layer = shop.root.join("layers").join(&shop.list("layers")[0]).join("tree");
            let dir = fs::read_dir(layer).expect("a tree").flatten().next().expect("an entry").path();
            fs::write(dir.join("f1"), "other").expect("write");
        }),
        ("a layer is gone", |shop| {
            fs::remove_dir_all(shop.root.join("layers").join(&shop.list("layers")[1])).expect("rm");
        }),
        ("a layer's meta is empty", |shop| {
            fs::write(shop.root.join("layers").join(&shop.list("layers")[0]).join("meta"), "")
                .expect("write");
        }),
    ];
    for (what, damage) in damage {
        damage(&shop);
        shop.fails(&["system", "fsck", "--deep"], &["damaged"]);
        let said = shop.jug(&["system", "fsck", "--deep", "--repair"]);
        assert_eq!(said.code, Some(0), "{what}: {}{}", said.out, said.err);
        shop.is_whole();
        assert_eq!(shop.trees(), trees, "{what}");
        assert!(shop.ok(&["images"]).contains("jug/damaged"), "{what}");
    }
}

/// What no image names is not believed after a boot: blobs are hashed again, layers go.
#[test]
fn a_boot_throws_out_what_may_not_be_durable() {
    let shop = Shop::new("boot");
    let layout = shop.image("oci", "layout", &recipe("jug/boot:1", 2));
    shop.ok(&["pull", &layout]);
    let trees = shop.trees();
    // As if the power had gone before the image's file was written, but after everything else.
    for directory in ["images", "names"] {
        for name in shop.list(directory) {
            fs::remove_file(shop.root.join(directory).join(name)).expect("unlink");
        }
    }
    let blob = shop
        .list("blobs/sha256")
        .into_iter()
        .max_by_key(|name| fs::metadata(shop.root.join("blobs/sha256").join(name)).expect("stat").len());
    let blob = shop.root.join("blobs/sha256").join(blob.expect("a blob"));
    let length = fs::metadata(&blob).expect("stat").len();
    fs::write(&blob, vec![0; length as usize]).expect("the zeros that an unfinished write leaves");
    fs::write(shop.root.join("boot"), "\"another\"").expect("boot");
    assert_eq!(shop.ok(&["images", "-q"]), "");
    assert_eq!((shop.list("layers"), shop.list("blobs/sha256")), (vec![], vec![]));
    assert!(!shop.list("staging").is_empty(), "blobs can be gone on with");
    shop.ok(&["pull", &layout]);
    assert_eq!(shop.trees(), trees);
    shop.is_whole();
    shop.empties();
}

/// An image that a container was made from stays, whatever is removed.
#[test]
fn what_a_container_uses_stays() {
    let shop = Shop::new("pinned");
    let id = shop.ok(&["pull", &shop.image("oci", "layout", &recipe("jug/pinned:1", 1))]);
    let open = jug::image::store::Store::open(&shop.root).expect("a store");
    let image = open.find(id.trim()).expect("an image");
    open.pin(&image, "container-1", true).expect("pin");
    shop.fails(&["rmi", id.trim()], &["used by container container-1"]);
    shop.ok(&["rmi", "--force", id.trim()]);
    shop.ok(&["system", "prune", "--all", "--force"]);
    assert_eq!(shop.list("layers").len(), 1);
    assert!(open.pin(&image, "../x", true).is_err(), "an owner is a name");
    open.unpin("container-1").expect("unpin");
    shop.empties();
}

#[test]
fn umoci_agrees_about_the_files() {
    let shop = Shop::new("umoci");
    let layout = shop.image("oci", "layout", &recipe("jug/umoci:1", 1));
    let id = shop.ok(&["pull", &layout]);
    let own = shop.ok(&["image", "inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", id.trim()]);
    let (path, other) = (layout.strip_prefix("oci:").expect("a layout"), shop.dir.join("bundle"));
    let unpacked = Command::new("umoci")
        .args(["unpack", "--image", &format!("{path}:jug/umoci:1")])
        .arg(&other)
        .output()
        .expect("umoci");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let same =
        Command::new("diff").args(["-r", own.trim()]).arg(other.join("rootfs")).output().expect("diff(1)");
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}
