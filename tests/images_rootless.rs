//! Images in the hands of an ordinary user: the store below a directory of his own, with a range of ids from
//! /etc/subuid so that every file has its true owner, or with the one id that he has.
#![cfg(feature = "engine")]

#[path = "support/program.rs"]
mod program;
#[path = "support/store.rs"]
mod store;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use jug::image::snapshot::{Options, Upper, mount};
use jug::sys::xattr;
use program::install;
use store::{Said, Shop};

const USER: u32 = 12345;
const FIRST: u32 = 200_000;

const LAYERS: &str = r#"
tag = "jug/layers:latest"
[config]
cmd = ["/bin/sh"]
[[layer]]
files = [
    { path = "/bin/tool", content = "one", mode = 0o755 },
    { path = "/etc/old", content = "old" },
    { path = "/srv/user", dir = true, mode = 0o700, uid = 7, gid = 8 },
    { path = "/srv/user/own", content = "a", mode = 0o600, uid = 7, gid = 8 },
    { path = "/var/cache/a", content = "a" },
]
[[layer]]
whiteouts = ["/etc/old"]
opaque = ["/var/cache"]
files = [{ path = "/etc/new", content = "new", uid = 65534, gid = 65534 }]
"#;

/// A user with a store, and `jug` where he can reach it.
struct User {
    shop: Shop,
    /// Runs what follows as the user, in a mount namespace in which /etc/subuid is ours.
    script: String,
}

impl User {
    fn new(name: &str, subids: &str) -> Self {
        let shop = Shop::new(name);
        chown(&shop.dir, Some(USER), Some(USER)).expect("chown");
        install(env!("CARGO_BIN_EXE_jug"), shop.dir.join("jug"));
        fs::write(shop.dir.join("passwd"), "root:x:0:0::/:/bin/sh\nlamb:x:12345:12345::/:/bin/sh\n")
            .expect("write");
        fs::write(shop.dir.join("subids"), subids).expect("write");
        let bind = |file: &str, over: &str| format!("mount --bind {}/{file} {over} && ", shop.dir.display());
        let binds = [("passwd", "/etc/passwd"), ("subids", "/etc/subuid"), ("subids", "/etc/subgid")];
        let binds: String = binds.map(|(file, over)| bind(file, over)).concat();
        let script = binds + "exec setpriv --reuid 12345 --regid 12345 --clear-groups \"$0\" \"$@\"";
        Self { shop, script }
    }

    fn call(&self, program: &Path, args: &[&str]) -> Said {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &self.script])
            .arg(program)
            .args(args);
        command
            .env("XDG_DATA_HOME", self.shop.dir.join("data"))
            .env("HOME", "/nonexistent")
            .env_remove("XDG_RUNTIME_DIR");
        Said::of(&command.output().expect("unshare(1)"))
    }

    fn jug(&self, args: &[&str]) -> Said {
        self.call(&self.shop.dir.join("jug"), args)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let said = self.jug(args);
        assert_eq!(said.code, Some(0), "jug {args:?}:\n{}{}", said.out, said.err);
        said.out
    }

    /// The directories of the image's layers, bottom first.
    fn layers(&self) -> Vec<PathBuf> {
        let format = "{{.GraphDriver.Data.LowerDir}}";
        let dirs = self.ok(&["image", "inspect", "--format", format, "jug/layers"]);
        dirs.trim().split(':').rev().map(PathBuf::from).collect()
    }

    /// Every verb that reads or changes the store, on an image that was pulled with the warnings `warned`.
    fn goes_round(&self, warned: &[&str]) {
        let layout = self.shop.image("oci", "layout", LAYERS);
        let said = self.jug(&["pull", &format!("{layout}:jug/layers:latest")]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        for words in ["belong to you", "devices"] {
            let times = usize::from(warned.contains(&words));
            assert_eq!(said.err.matches(words).count(), times, "{words:?} in:\n{}", said.err);
        }
        assert_eq!(self.ok(&["images", "--format", "{{.Repository}}"]), "jug/layers\n");
        self.ok(&["system", "fsck", "--deep"]);
        let tar = self.shop.dir.join("saved.tar").display().to_string();
        self.ok(&["save", "-o", &tar, "jug/layers"]);
        self.ok(&["tag", "jug/layers", "other"]);
        self.ok(&["rmi", "jug/layers", "other"]);
        assert_eq!(self.ok(&["load", "-q", "-i", &tar]), "Loaded image: jug/layers:latest\n");
        self.ok(&["system", "fsck", "--deep"]);
    }

    /// The layers as the root of a container, mounted by the user and written to: `owners` as they are inside.
    #[track_caller]
    fn snapshot(&self, layers: &[PathBuf], owners: &str) {
        let test = self.shop.dir.join("test");
        install(std::env::current_exe().expect("a program"), &test);
        let mut args = vec![MOUNTS.to_owned(), self.shop.dir.display().to_string()];
        args.extend(layers.iter().map(|layer| layer.display().to_string()));
        let said = self.call(&test, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let wanted = format!("owners {owners}\nold gone, cache true, tool two\n");
        assert_eq!((said.code, said.out), (Some(0), wanted), "{}", said.err);
        assert_eq!(fs::read(self.shop.dir.join("upper/bin/tool")).expect("what was written"), b"two");
    }

    /// Nothing is left, whoever owned it.
    fn empties(&self) {
        self.ok(&["system", "prune", "--all", "--force"]);
        for directory in ["blobs/sha256", "layers", "images", "names", "staging", "trash"] {
            let left = fs::read_dir(self.root().join(directory)).expect("a directory").count();
            assert_eq!(left, 0, "left in {directory}");
        }
    }

    /// The store's own place: nobody named it.
    fn root(&self) -> PathBuf {
        self.shop.dir.join("data/jug")
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid())
}

#[test]
fn with_a_range_of_ids_every_file_has_its_owner() {
    let user = User::new("images-range", "lamb:200000:65536\n");
    user.goes_round(&[]);
    let layers = user.layers();
    assert_eq!(owner(&layers[0].join("bin/tool")), (USER, USER), "root inside is the user outside");
    assert_eq!(owner(&layers[0].join("srv/user/own")), (FIRST + 6, FIRST + 7));
    assert_eq!(owner(&layers[1].join("etc/new")), (FIRST + 65_533, FIRST + 65_533));
    overlayfs_understands(&layers[1]);
    user.snapshot(&layers, "0:0 7:8 65534:65534");
    user.empties();
}

#[test]
fn with_one_id_everything_is_the_users_and_he_is_told() {
    let user = User::new("images-single", "");
    user.goes_round(&["belong to you"]);
    let layers = user.layers();
    for file in ["bin/tool", "srv/user", "srv/user/own"] {
        assert_eq!(owner(&layers[0].join(file)), (USER, USER), "{file}");
    }
    overlayfs_understands(&layers[1]);
    user.snapshot(&layers, "0:0 0:0 0:0");
    user.empties();
}

/// The kernel mounts EROFS in no user namespace.
#[test]
fn layers_as_images_are_refused() {
    let user = User::new("images-erofs", "");
    let layout = user.shop.image("oci", "layout", LAYERS);
    let said = user.jug(&["pull", "--layers", "erofs", &layout]);
    assert_eq!(said.code, Some(125), "{}", said.err);
    assert!(said.err.contains("layers as EROFS images need root"), "{}", said.err);
    user.empties();
}

/// A whiteout is one for any overlay; the opaque mark is the one that an unprivileged overlay reads.
fn overlayfs_understands(layer: &Path) {
    let whiteout = fs::symlink_metadata(layer.join("etc/old")).expect("a whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0, "overlayfs.rst, whiteouts");
    let dir = fs::File::open(layer).expect("the layer");
    let opaque = Path::new("var/cache");
    let marks = xattr::list(dir.as_fd(), opaque).expect("llistxattr(2)");
    assert_eq!(marks, [b"user.overlay.opaque"]);
    assert_eq!(xattr::get(dir.as_fd(), opaque, &marks[0]).expect("lgetxattr(2)").as_deref(), Some(&b"y"[..]));
}

/// Ids that nobody gave him are an error with the way out, not files of another.
#[test]
fn an_owner_beyond_the_range_is_an_error() {
    let user = User::new("images-short", "lamb:200000:100\n");
    let layout = user.shop.image("oci", "layout", LAYERS);
    let said = user.jug(&["pull", &layout]);
    assert_eq!(said.code, Some(125), "{}", said.err);
    for words in ["65534:65534 is not among the ids", "/etc/subuid"] {
        assert!(said.err.contains(words), "{words:?} in:\n{}", said.err);
    }
    user.empties();
}

/// The word by which this program knows that it is to mount a snapshot; before any thread is there.
const MOUNTS: &str = "mount-a-snapshot";

extern "C" fn mount_first() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((MOUNTS, rest)) = words.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        std::process::exit(match mounted(Path::new(&rest[0]), &rest[1..]) {
            Ok(said) => {
                let _ = std::io::stdout().write_all(said.as_bytes());
                0
            }
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "{why}");
                1
            }
        });
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static MOUNT_FIRST: extern "C" fn() = mount_first;

/// In the user's namespaces: what a container would find in its root.
fn mounted(dir: &Path, layers: &[String]) -> Result<String, Box<dyn std::error::Error>> {
    let said = |e: jug::error::Error| e.to_string();
    jug::engine::rootless::enter().map_err(said)?;
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    for place in [&upper, &work] {
        fs::create_dir(place)?;
    }
    let layers: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
    let options = Options { volatile: true, rootless: true, ..Options::default() };
    let tree = mount(&layers, Some(&Upper { upper: &upper, work: &work }), &options).map_err(said)?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    let owners = ["bin/tool", "srv/user/own", "etc/new"].map(|name| {
        let (uid, gid) = owner(&root.join(name));
        format!("{uid}:{gid}")
    });
    let old = if root.join("etc/old").exists() { "there" } else { "gone" };
    let cache = fs::read_dir(root.join("var/cache"))?.next().is_none();
    fs::write(root.join("bin/tool"), "two")?;
    let tool = fs::read_to_string(root.join("bin/tool"))?;
    Ok(format!("owners {}\nold {old}, cache {cache}, tool {tool}\n", owners.join(" ")))
}
