//! The kit for the engine's store: `jug` with a store of its own, images made by rootfs-builder, and what must be true
//! of a store whatever happened to it.

#![allow(dead_code, reason = "every test file uses its own part of the kit")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// A directory of its own with a store in it, removed when it is dropped.
pub struct Shop {
    pub dir: PathBuf,
    pub root: PathBuf,
}

/// What a `jug` said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Shop {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("jug-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory for the test");
        Self { root: dir.join("store"), dir }
    }

    /// Another store in the same directory.
    pub fn beside(&self, name: &str) -> Self {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("a directory for the test");
        Self { root: dir.join("store"), dir }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jug"));
        command.arg("--root").arg(&self.root).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("jug")
    }

    pub fn jug(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().expect("jug"))
    }

    /// Must succeed; returns what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.jug(args);
        assert_eq!(said.code, Some(0), "jug {args:?}:\n{}{}", said.out, said.err);
        said.out
    }

    /// Must fail with a sentence that holds all of `words`.
    #[track_caller]
    pub fn fails(&self, args: &[&str], words: &[&str]) -> Said {
        let said = self.jug(args);
        assert_ne!(said.code, Some(0), "jug {args:?} succeeded:\n{}", said.out);
        for word in words {
            assert!(said.err.contains(word), "jug {args:?} does not say {word:?}:\n{}", said.err);
        }
        said
    }

    /// Makes an image of a recipe's text: `oci:DIR`, or with another kind `KIND:PATH`.
    pub fn image(&self, kind: &str, name: &str, recipe: &str) -> String {
        let (file, path) = (self.dir.join(format!("{name}.toml")), self.dir.join(name));
        fs::write(&file, recipe).expect("a recipe");
        let output = format!("{kind}:{}", path.display());
        let built = Command::new(builder()).arg("build").arg(&file).args(["--output", &output]).output();
        let built = built.expect("rootfs-builder");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        output
    }

    /// The digest of each layer's files, by chain ID.
    pub fn trees(&self) -> BTreeMap<String, String> {
        let meta = |chain: &String| {
            let text = fs::read(self.root.join("layers").join(chain).join("meta")).expect("meta");
            let meta: Value = serde_json::from_slice(&text).expect("JSON");
            meta["tree"].as_str().expect("a digest").to_owned()
        };
        self.list("layers").iter().map(|chain| (chain.clone(), meta(chain))).collect()
    }

    /// The names in one of the store's directories.
    pub fn list(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Whatever happened: nothing named is damaged or missing, down to the last byte.
    #[track_caller]
    pub fn is_whole(&self) {
        let said = self.jug(&["system", "fsck", "--deep"]);
        assert_eq!(said.code, Some(0), "the store is damaged:\n{}{}", said.out, said.err);
    }

    /// Without its images a store is empty, and nothing is left in its corners.
    #[track_caller]
    pub fn empties(&self) {
        self.ok(&["system", "prune", "--all", "--force"]);
        for directory in ["blobs/sha256", "layers", "images", "names", "staging", "leases", "trash", "locks"]
        {
            assert_eq!(self.list(directory), [""; 0], "left in {directory}");
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// rootfs-builder, built when it is missing.
pub fn builder() -> &'static Path {
    static BUILDER: OnceLock<PathBuf> = OnceLock::new();
    BUILDER.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_jug")).with_file_name("rootfs-builder");
        if !path.exists() {
            let mut cargo = Command::new("cargo");
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            let built =
                cargo.args(["build", "--quiet", "-p", "rootfs-builder", "--bin", "rootfs-builder"]).status();
            assert!(built.expect("cargo").success(), "cargo build -p rootfs-builder failed");
        }
        path
    })
}

/// A generator whose numbers are the same in every run (Knuth's MMIX constants).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// How many rounds a long test makes: `JUG_ROUNDS`, else `few`.
pub fn rounds(few: u64) -> u64 {
    std::env::var("JUG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// Whether this kernel mounts layers that are EROFS images; said aloud where it does not.
pub fn images_are_taken() -> bool {
    let taken = jug::image::snapshot::takes_images();
    if let Err(why) = &taken {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIP erofs: {why}");
    }
    taken.is_ok()
}
