//! How a shim comes to be: `start` finds the pod's shim or makes one, and says where it listens. The process that
//! serves is this program again, with the listening socket as its descriptor 3: it keeps nothing of the starting.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::flags::Flags;
use super::message::Any;
use super::options::Options;
use crate::error::{Error, Result};
use crate::protobuf::{Message, fields};
use crate::sys;

/// Where shims listen, unless containerd says otherwise (containerd's defaults.DefaultStateDir).
const SOCKETS: &str = "/run/containerd/s";
/// What is read from stdin at most.
const INPUT: usize = 10 << 20;
/// Containers with the same value of the first of these that they have share a shim.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// The descriptor of the listening socket.
const LISTENER: i32 = 3;

/// What containerd says on stdin: since 2.3 its whole bootstrap message, before that the runtime's options.
#[derive(Default)]
struct Input {
    /// Whether it was the bootstrap message, which is answered in kind.
    bootstrap: bool,
    ttrpc_address: String,
    socket_dir: String,
    options: Options,
}

impl Input {
    /// Options could be taken for a bootstrap message; its names tell (containerd's pkg/shim/compat.go).
    fn read(bytes: &[u8], flags: &Flags) -> Result<Self> {
        // The last one counts, as protobuf has it.
        let text = |number: u64| {
            let found = fields(bytes).filter(|(field, _)| *field == number).last();
            found.map(|(_, value)| value.text()).unwrap_or_default()
        };
        if text(1) != flags.id || text(2) != flags.namespace {
            let options = Options::read(&Any::read(bytes))?;
            return Ok(Self { options, ..Self::default() });
        }
        let mut input = Self {
            bootstrap: true,
            ttrpc_address: text(5),
            socket_dir: text(9),
            options: Options::default(),
        };
        for (_, extension) in fields(bytes).filter(|(field, _)| *field == 8) {
            for (_, any) in fields(extension.bytes()).filter(|(field, _)| *field == 1) {
                if let Ok(options) = Options::read(&Any::read(any.bytes())) {
                    input.options = options;
                }
            }
        }
        Ok(input)
    }
}

fn stdin() -> Result<Vec<u8>> {
    sys::fd::inherited(0).map_or(Ok(Vec::new()), |stdin| sys::fd::read_to_end(stdin, INPUT))
}

pub fn start(flags: &Flags) -> Result<()> {
    let input = Input::read(&stdin()?, flags)?;
    let dir = if input.socket_dir.is_empty() { SOCKETS } else { &input.socket_dir };
    let group = group(flags)?;
    let path = Path::new(dir).join(socket_name(&flags.address, &flags.namespace, &group));
    make_dir(Path::new(dir))?;
    let address = format!("unix://{}", path.display());
    let listener = listen(&path)?;
    // For containerd before 1.7, and for `delete`; before there is a process that a full disk would leave behind.
    let made = write_file(Path::new("address"), address.as_bytes())
        .and_then(|()| listener.as_ref().map_or(Ok(()), |listener| daemon(flags, &input, listener)));
    if listener.is_some() {
        made.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
    } else {
        made?;
    }
    say(&input, &address)
}

/// A bootstrap message is answered with one. Any other caller takes the bare address: it stands for version 2 of the
/// protocol, which all of them speak, while 1.7 refuses a shim that says 3.
fn say(input: &Input, address: &str) -> Result<()> {
    let stdout = sys::fd::inherited(1).ok_or_else(|| Error::new("stdout is closed"))?;
    if !input.bootstrap {
        return sys::fd::write_all(stdout, address.as_bytes());
    }
    let mut result = Message::default();
    result.number(1, 3).text(2, address).text(3, "ttrpc");
    sys::fd::write_all(stdout, result.bytes())
}

/// The pod, or the container alone.
fn group(flags: &Flags) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let path = Path::new(&flags.bundle).join("config.json");
    let text = crate::host::read(&path)?;
    let config: Config =
        serde_json::from_str(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
    let found = GROUPS.iter().find_map(|key| config.annotations.get(*key));
    Ok(found.cloned().unwrap_or_else(|| flags.id.clone()))
}

/// A name that fits a socket's path whatever the others are: two different hashes of them (FNV-1a), 128 bits.
fn socket_name(address: &str, namespace: &str, group: &str) -> String {
    let hash = |basis: u64| {
        [address, namespace, group]
            .iter()
            .flat_map(|part| part.bytes().chain([0]))
            .fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142))
}

fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::call(format_args!("mkdir({dir:?})"), e.raw_os_error().unwrap_or(0)))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes)
        .map_err(|e| Error::call(format_args!("write({path:?})"), e.raw_os_error().unwrap_or(0)))
}

/// `None`: the pod's shim is there. A socket that nobody listens on was left by one that was killed.
fn listen(path: &Path) -> Result<Option<OwnedFd>> {
    match sys::socket::listen_stream(path) {
        Err(e) if e.errno() == libc::EADDRINUSE => {}
        other => return other.map(Some),
    }
    if sys::socket::connect_stream(path).is_ok() {
        return Ok(None);
    }
    let _ = std::fs::remove_file(path);
    sys::socket::listen_stream(path).map(Some)
}

/// Starts the process that serves: in a session of its own, without this one's streams, and nobody's child.
fn daemon(flags: &Flags, input: &Input, listener: &OwnedFd) -> Result<()> {
    let null = super::stdio::null()?;
    let own = std::env::current_exe().map_err(|e| Error::new(format!("/proc/self/exe: {e}")))?;
    let mut args = vec!["containerd-shim-jug-v2", "-namespace", &flags.namespace, "-id", &flags.id];
    args.extend(["-address", &flags.address, "-publish-binary", &flags.publish_binary]);
    let more = [("TTRPC_ADDRESS", input.ttrpc_address.as_str())];
    let more = if input.ttrpc_address.is_empty() { &more[..0] } else { &more[..] };
    let files = [(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2), (listener.as_fd(), LISTENER)];
    let pid = sys::spawn::spawn(&own, &args, more, &files)?;
    // Never rather killed than its containers, nor rather than containerd (containerd's AdjustOOMScore).
    let score = crate::host::read("/proc/self/oom_score_adj").unwrap_or_default();
    let score = score.trim().parse::<i32>().unwrap_or(0).saturating_add(1).min(1000);
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    if !input.options.shim_cgroup.is_empty() {
        join(&input.options.shim_cgroup, pid).map_err(|e| e.context("ShimCgroup"))?;
    }
    Ok(())
}

/// Puts a process into a cgroup that exists, in every hierarchy that has it.
fn join(cgroup: &str, pid: i32) -> Result<()> {
    let host = crate::host::Host::controllers()?;
    let mounts = host.cgroup2.into_iter().chain(host.cgroup1.into_iter().map(|(_, mount)| mount));
    let mut joined = Err(Error::new(format!("no hierarchy has a cgroup {cgroup:?}")));
    for mount in mounts {
        let dir = sys::path::open(&mount, libc::O_PATH | libc::O_DIRECTORY)?;
        let name = PathBuf::from(cgroup.trim_start_matches('/')).join("cgroup.procs");
        let walk = sys::path::RESOLVE_BENEATH | sys::path::RESOLVE_NO_SYMLINKS;
        if let Ok(file) = sys::path::openat2(dir.as_fd(), &name, libc::O_WRONLY, 0, walk) {
            sys::fd::write_all(file.as_fd(), pid.to_string().as_bytes())?;
            joined = Ok(());
        }
    }
    joined
}

/// The process that serves. Its socket's file goes with it.
pub fn serve(flags: &Flags) -> Result<()> {
    let listener = sys::fd::inherited(LISTENER).ok_or_else(|| {
        Error::new("no socket to serve on")
            .why("descriptor 3 is closed")
            .next("containerd runs `start` first")
    })?;
    let listener = sys::fd::duplicate_above(listener, LISTENER)?;
    sys::fd::close_inherited(LISTENER);
    let path = sys::socket::local_path(listener.as_fd())?;
    let _ = sys::process::setsid();
    sys::path::chdir(Path::new("/"))?;
    sys::fd::cloexec_from(LISTENER)?;
    let socket =
        std::env::var_os("TTRPC_ADDRESS").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let socket = socket.map(|path| {
        path.to_str().and_then(|path| path.strip_prefix("unix://")).map(PathBuf::from).unwrap_or(path.clone())
    });
    let program = (PathBuf::from(&flags.publish_binary), flags.address.clone());
    let served = super::serve::serve(listener, &flags.namespace, socket, program);
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
    served
}

/// containerd.types.RuntimeInfo, with the runtime's features as JSON.
pub fn info() -> Result<()> {
    let any = Any::read(&stdin()?);
    let options = Options::read(&any)?;
    let mut version = Message::default();
    version.text(1, env!("CARGO_PKG_VERSION")).text(2, env!("JUG_COMMIT"));
    let mut info = Message::default();
    info.text(1, "io.containerd.jug.v2").message(2, &version);
    if !any.type_url.is_empty() {
        let mut message = Message::default();
        message.text(1, &any.type_url).some_text(2, &any.value);
        info.message(3, &message);
    }
    let features = std::process::Command::new(options.program()?).arg("features").output();
    if let Ok(features) =
        features.map_err(drop).and_then(|o| o.status.success().then_some(o.stdout).ok_or(()))
    {
        let mut message = Message::default();
        message
            .text(1, "types.containerd.io/opencontainers/runtime-spec/1/features/Features")
            .text(2, &features);
        info.message(4, &message);
    }
    let stdout = sys::fd::inherited(1).ok_or_else(|| Error::new("stdout is closed"))?;
    sys::fd::write_all(stdout, info.bytes())
}
