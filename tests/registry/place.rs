//! A place for a test of images: a directory of its own, Debian's docker-registry on this machine, `jug` and `skopeo`
//! with no configuration but the place's. All of it is gone when the place is dropped.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Place {
    dir: PathBuf,
    /// More of the environment of `jug`.
    pub env: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("jug-registry-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        for below in ["home", "run"] {
            fs::create_dir_all(dir.join(below)).expect("a directory");
        }
        Self { dir, env: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// A program with the place as its home and nothing of the caller's environment.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.text("bin"));
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command.envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// `jug` with a store of the place's own.
    pub fn jug(&self, args: &[&str]) -> Said {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_jug")));
        command.arg("--root").arg(self.path("store")).args(args);
        Said::of(command.output().expect("jug"))
    }

    /// The same with something on stdin.
    pub fn jug_with(&self, args: &[&str], input: &str) -> Said {
        use std::io::Write as _;
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_jug")));
        command.arg("--root").arg(self.path("store")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("jug");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
        Said::of(child.wait_with_output().expect("jug"))
    }

    /// skopeo, which must work.
    #[track_caller]
    pub fn skopeo(&self, args: &[&str]) -> String {
        let mut command = self.command(Path::new("skopeo"));
        let said =
            Said::of(command.arg("--insecure-policy").args(args).output().expect("skopeo: scripts/setup"));
        said.works()
    }

    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        Said::of(self.command(Path::new(program)).args(args).output().expect(program)).works()
    }

    /// An image by rootfs-builder as a layout `NAME:t`, with a layer of busybox and one of a file of its own.
    #[track_caller]
    pub fn image(&self, name: &str, arch: &str, compression: &str) -> String {
        let recipe = format!(
            "tag = \"t\"\narch = \"{arch}\"\ncompression = \"{compression}\"\n[config]\ncmd = [\"/bin/sh\"]\n\
             [[layer]]\nfrom = \"busybox\"\n[[layer]]\nfiles = [{{ path = \"/name\", content = \"{name}\\n\" }}]\n"
        );
        let file = self.write(&format!("{name}.toml"), recipe);
        let layout = self.text(name);
        self.run(&builder(), &["build", &file.display().to_string(), "--output", &format!("oci:{layout}")]);
        format!("oci:{layout}:t")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// rootfs-builder, which lies beside the test's own directory.
fn builder() -> String {
    let own = std::env::current_exe().expect("/proc/self/exe");
    let profile = own.parent().and_then(Path::parent).expect("target/.../debug");
    let builder = profile.join("rootfs-builder");
    if !builder.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "-p", "rootfs-builder", "--offline"]);
        assert!(cargo.status().expect("cargo").success(), "cargo build -p rootfs-builder");
    }
    builder.display().to_string()
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn works(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// It failed as an engine does, and its error holds all of the words.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> String {
        assert_eq!(self.code, 125, "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        self.err
    }
}

/// A port on this machine that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Debian's docker-registry.
pub struct DockerRegistry {
    child: Child,
    pub port: u16,
    log: PathBuf,
}

impl DockerRegistry {
    /// `more`: below `http:` and beside it, as YAML.
    pub fn start(place: &Place, http: &str, beside: &str) -> Self {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
             addr: 127.0.0.1:{port}\n{http}{beside}",
            place.text(&format!("registry-{port}"))
        );
        let config = place.write(&format!("registry-{port}.yml"), config);
        let log = place.path(&format!("registry-{port}.log"));
        let out = fs::File::create(&log).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(out.try_clone().expect("dup"))
            .stderr(out)
            .spawn()
            .expect("docker-registry: scripts/setup");
        let mut started = Self { child, port, log };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.child.try_wait().expect("wait").is_none(), "{}", started.log());
            assert!(begin.elapsed() < PATIENCE, "docker-registry does not listen: {}", started.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }

    pub fn plain(place: &Place) -> Self {
        Self::start(place, "", "")
    }

    /// `localhost:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
