//! From settings to a container, and from a container to its program: under this very process (`direct`), or under a
//! monitor (`monitored`).
//!
//! The root of an image is mounted at the bundle's `rootfs` in a mount namespace of its own, made just before jug-oci
//! runs: no mount of a container ever stands on the host, and nothing of it can be left behind.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::container::{Container, write_whole};
use super::monitor::{self, Orders};
use super::place::{Place, io};
use super::runtime::{self, Runtime};
use super::selinux::{self, Reach};
use super::settings::Settings;
use super::spec::{self, Args, FromImage, Joined, Maps, Parts};
use super::user::User;
use super::{files, ids, init, limits, log, points, quantity, ranges, rootless, snapshot, user, volumes};
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::image::store::{Image, Store};
use crate::sys::clone::{self, Side};
use crate::sys::{self, fd, mount, path, process, socket};

/// The root of a new container: what it is called, and where it comes from.
pub struct Root {
    pub image: String,
    pub image_id: String,
    /// The lowest first; none for a plain directory.
    pub layers: Vec<PathBuf>,
    pub directory: Option<PathBuf>,
    pub says: FromImage,
    /// What is to be kept for the container's sake.
    pub kept: Option<(Store, Image)>,
}

impl Root {
    /// `--rootfs DIR`.
    pub fn directory(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(io("--rootfs"))?;
        if dir == Path::new("/") {
            return Err(Error::new("--rootfs: the host's own root cannot be the root of a container"));
        }
        path::open(&dir, libc::O_PATH | libc::O_DIRECTORY).map_err(|e| e.context("--rootfs"))?;
        Ok(Self {
            image: dir.to_string_lossy().into_owned(),
            image_id: String::new(),
            layers: Vec::new(),
            directory: Some(dir),
            says: FromImage::default(),
            kept: None,
        })
    }

    /// An image of the store.
    pub fn image(store: Store, image: Image, name: &str) -> Result<Self> {
        if image.layers.is_empty() {
            return Err(Error::new(format!("image {name} has no layers")));
        }
        Ok(Self {
            image: name.to_owned(),
            image_id: image.id.to_string(),
            layers: image.layers.clone(),
            directory: None,
            says: FromImage::new(&image.config)?,
            kept: Some((store, image)),
        })
    }
}

/// A container whose directory is complete, and its root as a detached mount where it has layers.
pub struct Prepared {
    pub container: Container,
    tree: Option<OwnedFd>,
}

/// Makes a container that waits for its start. The lock is held.
pub fn create(place: &Place, settings: &Settings, root: Root, words: &[String]) -> Result<Prepared> {
    let args = root.says.args(settings, words)?;
    let auto = ranges::asked(settings)?;
    if auto.is_some() && root.directory.is_some() {
        return Err(Error::new("--userns auto: needs an image")
            .why("the files of a plain directory have the host's ids, and would belong to nobody inside"));
    }
    Runtime::find(place, settings.runtime.as_deref())?;
    let cid_file = settings.cidfile.as_deref().map(claim_cid_file).transpose()?;
    let container = Container::claim(place, settings.name.as_deref());
    let made = container.and_then(|container| fill(place, settings, root, args, container));
    match (&made, &settings.cidfile, cid_file) {
        (Ok(made), Some(_), Some(mut file)) => {
            use std::io::Write as _;
            file.write_all(made.container.id().as_bytes()).map_err(io("--cidfile"))?;
        }
        (Err(_), Some(name), Some(_)) => drop(fs::remove_file(name)),
        _ => {}
    }
    made
}

fn claim_cid_file(name: &Path) -> Result<fs::File> {
    fs::File::create_new(name).map_err(|e| {
        let error = Error::call(format_args!("--cidfile {}", name.display()), e.raw_os_error().unwrap_or(0));
        error.next("remove the file, or make sure that the other container is not running")
    })
}

fn fill(
    place: &Place,
    settings: &Settings,
    root: Root,
    args: Args,
    mut container: Container,
) -> Result<Prepared> {
    match write(place, settings, root, args, &mut container) {
        Ok(tree) => Ok(Prepared { container, tree }),
        Err(e) => {
            container.erase(true)?;
            Err(e)
        }
    }
}

fn write(
    place: &Place,
    settings: &Settings,
    root: Root,
    args: Args,
    container: &mut Container,
) -> Result<Option<OwnedFd>> {
    let id = container.id().to_owned();
    let mut highest_id = 0;
    if let Some((store, image)) = &root.kept {
        highest_id = image.highest_id;
        // No garbage collection takes the layers from under the container; `Container::erase` lets go.
        store.pin(image, &id, !settings.rm)?;
    }
    let record = &mut container.record;
    record.image = root.image;
    record.image_id = root.image_id;
    record.layers = root.layers;
    record.rootfs = root.directory;
    let mut args_of_all = [args.entrypoint.as_slice(), &args.cmd].concat();
    record.args = args_of_all.clone();
    record.entrypoint = args.entrypoint;
    record.settings = settings.clone();
    record.labels = root.says.labels.clone();
    record.labels.extend(labels(settings)?);
    record.stop_signal =
        settings.stop_signal.clone().or(root.says.stop_signal.clone()).unwrap_or_else(|| "TERM".into());
    if sys::signal::number(&record.stop_signal).is_none() {
        return Err(Error::new(format!("--stop-signal: unknown signal {:?}", record.stop_signal)));
    }
    record.selinux = selinux::choose(place, &id, settings)?;
    let kept = ids::kept(settings)?;
    if let Some(kept) = kept
        && !container.record.layers.is_empty()
    {
        container.record.maps = ids::keep(kept)?;
        snapshot::give(container, kept)?;
    }
    let auto = ranges::asked(settings)?;
    // Whose the container's ids are is known when it is known who is in the image.
    let mut tree = match auto {
        Some(_) => Some(snapshot::below(container)?),
        None => open_root(container)?,
    };
    let dir = match (&tree, &container.record.rootfs) {
        (Some(tree), _) => tree.try_clone().map_err(io("dup"))?,
        (None, Some(dir)) => path::open(dir, libc::O_PATH | libc::O_DIRECTORY)?,
        (None, None) => return Err(Error::new("the container has no root")),
    };
    let dir = RootDir::new(dir);
    // With keep-id the caller, as in Podman; else the image's word.
    let own = kept.map(|(uid, gid)| format!("{uid}:{gid}"));
    let said = settings.user.as_deref().or(own.as_deref()).or(root.says.user.as_deref()).unwrap_or("");
    said.clone_into(&mut container.record.user);
    let user = user::resolve(&dir, said, &settings.group_add)?;
    let maps = match auto {
        Some(auto) => ranges::claim(place, &id, auto, &dir, &user, highest_id)?,
        None => ids::maps(settings, &user)?,
    };
    let hostname = hostname(settings, &id)?;
    let mut mounts = files_of(place, settings, container, &hostname, &dir)?;
    let wanted = volumes::wanted(settings, &root.says.volumes)?;
    container.claim_volumes(volumes::anonymous(&wanted))?;
    let of_volumes = volumes::make(place, &wanted, &dir, auto.is_some(), &container.record.selinux)?;
    mounts.retain(|file| !of_volumes.iter().any(|other| other["destination"] == file["destination"]));
    mounts.extend(of_volumes);
    if settings.init {
        mounts.push(init_mount()?);
        args_of_all.insert(0, init::PATH.to_owned());
    }
    let config =
        write_config(settings, &root.says, container, &args_of_all, &user, mounts, &hostname, &maps)?;
    // A layer that is mounted must not change: the root is mounted once more with what it lacked.
    let lacks = tree.is_some()
        && settings.read_only
        && points::make(&snapshot::points(container)?, &dir, &points::wanted(&config))?;
    if auto.is_some() {
        container.record.maps = maps;
    }
    files::belong_to(&container.path, &container.record.maps)?;
    if lacks || auto.is_some() {
        tree = open_root(container)?;
    }
    container.write_record()?;
    Ok(tree)
}

#[allow(clippy::too_many_arguments, reason = "everything that was found out, in one place, once")]
fn write_config(
    settings: &Settings,
    image: &FromImage,
    container: &mut Container,
    args: &[String],
    user: &User,
    mounts: Vec<Value>,
    hostname: &str,
    maps: &Maps,
) -> Result<Value> {
    let other = |mode: &Option<String>| {
        mode.as_deref().is_some_and(|mode| mode.starts_with("container:")).then_some(0)
    };
    let joined =
        Joined { pid: other(&settings.pid), ipc: other(&settings.ipc), network: other(&settings.network) };
    let rootfs = container.path.join("rootfs");
    let mut config = spec::make(&Parts {
        id: container.id(),
        settings,
        image,
        args,
        user,
        root: container.record.rootfs.as_deref().unwrap_or(&rootfs),
        mounts,
        hostname,
        joined: &joined,
        maps,
        labels: &container.record.selinux,
        env: &environment(&settings.env_file, &settings.env)?,
        annotations: &labels(settings)?,
    })?;
    container.record.scope = limits::place(&mut config, settings, container.id())?;
    write_whole(&container.path, "config.json", config.to_string().as_bytes(), !settings.rm)?;
    Ok(config)
}

/// The host's where its network is the container's too, as in Docker: other hosts know it by that name.
fn hostname(settings: &Settings, id: &str) -> Result<String> {
    let host = |mode: &Option<String>| mode.as_deref() == Some("host");
    if host(&settings.uts) && settings.hostname.is_some() {
        return Err(Error::new("--hostname: with --uts host it would change the host's own name"));
    }
    let theirs = || crate::host::read("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let shared = || (host(&settings.uts) || host(&settings.network)).then(theirs).flatten();
    Ok(settings.hostname.clone().or_else(shared).unwrap_or_else(|| id[..12].to_owned()))
}

fn init_mount() -> Result<Value> {
    let exe = crate::host::program().ok_or_else(|| Error::new("the path of this program is not known"))?;
    Ok(json!({
        "destination": init::PATH, "type": "bind", "source": exe, "options": ["bind", "ro", "nosuid", "nodev"],
    }))
}

/// The three files in /etc; whoever shares another container's network shares them too.
fn files_of(
    place: &Place,
    settings: &Settings,
    own: &Container,
    hostname: &str,
    root: &RootDir,
) -> Result<Vec<Value>> {
    let mode = settings.network.as_deref().unwrap_or("private");
    let (dir, reach) = match mode.strip_prefix("container:") {
        Some(other) => (Container::find(place, other)?.path, Reach::Shared),
        None => {
            files::write(&own.path, hostname, settings, mode == "host")?;
            (own.path.clone(), Reach::Private)
        }
    };
    files::FILES.iter().try_for_each(|(name, _)| own.record.selinux.relabel(&dir.join(name), reach))?;
    // A plain directory without /etc is a jail in which nobody looks for these files.
    if own.record.rootfs.is_some() && root.open_existing(Path::new("etc"))?.is_none() {
        return Ok(Vec::new());
    }
    let mount = |(name, target): (&str, &str)| {
        let options = ["rbind", "rprivate"];
        json!({ "destination": target, "type": "bind", "source": dir.join(name), "options": options })
    };
    Ok(files::FILES.map(mount).into())
}

/// From files, then from flags; a name alone takes the caller's value, or nothing.
pub fn environment(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            if line.split('=').next().is_some_and(|name| name.contains(char::is_whitespace)) {
                let what = format!("{}: the name of {line:?} contains whitespace", file.display());
                return Err(Error::new(what).next("a line is NAME=value, or NAME for the caller's own"));
            }
            all.push(line);
        }
    }
    all.extend(flags.iter().cloned());
    let mut found = Vec::new();
    for entry in all {
        match entry.split_once('=') {
            _ if entry.is_empty() || entry.starts_with('=') => {
                return Err(Error::new(format!("invalid environment variable: {entry:?}")));
            }
            Some(_) => found.push(entry),
            // As Podman: all of the caller's whose names begin so.
            None if entry.ends_with('*') => found.extend(
                std::env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                    .filter(|(name, _)| name.starts_with(entry.trim_end_matches('*')))
                    .map(|(name, value)| format!("{name}={value}")),
            ),
            None => found.extend(std::env::var(&entry).ok().map(|value| format!("{entry}={value}"))),
        }
    }
    Ok(found)
}

/// Those of the command line; the runtime gets them as annotations, too.
fn labels(settings: &Settings) -> Result<BTreeMap<String, String>> {
    let mut said = Vec::new();
    for file in &settings.label_file {
        said.extend(lines(file)?);
    }
    let pair = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(said.iter().chain(&settings.label).map(pair).collect())
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).map_err(io(format_args!("read {}", file.display())))?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The root of the layers as a detached mount, with what the container wrote on top; `None` for a plain directory.
fn open_root(container: &Container) -> Result<Option<OwnedFd>> {
    if container.record.layers.is_empty() {
        return Ok(None);
    }
    snapshot::open(container).map(Some)
}

/// Runs the container under this process, which waits for it: `run --rm` without a terminal. Nothing is logged.
pub fn direct(prepared: Prepared) -> Result<u8> {
    let Prepared { container, tree } = prepared;
    let code = directly(&container, tree.as_ref());
    container.remove(true)?;
    if tree.is_some() {
        leave_an_heir()?;
    }
    code
}

/// Who is the last to let go of an overlay mount waits for a grace period of the kernel's, tens of milliseconds. That
/// is not the caller's affair: a child, which has all that this process has, goes after it.
fn leave_an_heir() -> Result<()> {
    const LONGEST: i32 = 1000;
    let own = process::pidfd_open(process::pid())?;
    if let Side::Child = clone::clone3(0, None)? {
        // Whoever reads what the container wrote is not to wait for this one.
        (0..3).for_each(fd::close_inherited);
        if let Some(own) = own {
            let _ = fd::poll(&[(own.as_fd(), libc::POLLIN)], LONGEST);
        }
        process::exit_now(0)
    }
    Ok(())
}

fn directly(container: &Container, tree: Option<&OwnedFd>) -> Result<u8> {
    let settings = &container.record.settings;
    let runtime = Runtime::find(&container.place, settings.runtime.as_deref())?;
    refresh(container)?;
    container.write_started()?;
    container.place.make(&container.place.runroot)?;
    enter(&container.path, tree)?;
    // The runtime holds the lock too: who finds the container while this process is gone knows that it is watched.
    monitor::keep_open(container.dir())?;
    let log = container.path.join("runtime.log");
    let mut command = runtime.logged(&log);
    command.args(container.record.scope.then_some(runtime::SCOPE));
    command.args(["run", "--bundle"]).arg(&container.path).arg(container.id());
    let relayed = container.record.selinux.confine();
    let code = runtime::foreground(command, settings.interactive, relayed)?;
    let code = runtime::failure(&log).map_or(code, |(code, _)| code.into());
    if tree.is_some() {
        path::chdir(&container.path.join("rootfs"))?;
        mount::detach_here()?;
        path::chdir(Path::new("/"))?;
    }
    Ok(code as u8)
}

/// A mount namespace of our own, with the root mounted in it.
fn enter(dir: &Path, tree: Option<&OwnedFd>) -> Result<()> {
    let Some(tree) = tree else { return Ok(()) };
    clone::unshare(libc::CLONE_NEWNS)?;
    mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
    mount::attach_at(tree.as_fd(), &dir.join("rootfs"))
}

/// Starts a monitor and, by it, the container. The lock must be held; it is the monitor's from now on. Gives the socket
/// on which the caller is attached, if it wants to be. An error has the exit code that people know.
pub fn monitored(prepared: Prepared, attach: bool) -> std::result::Result<Option<OwnedFd>, (u8, Error)> {
    let ours = |e: Error| (runtime::FAILED, e);
    let Prepared { container, tree } = prepared;
    let mounted = !container.record.layers.is_empty();
    refresh(&container).map_err(ours)?;
    container.write_started().map_err(ours)?;
    container.place.make(&container.place.runroot).map_err(ours)?;
    let (report, theirs) = socket::pair().map_err(ours)?;
    let client = attach.then(socket::pair).transpose().map_err(ours)?;
    let words =
        orders(&container, mounted, &theirs, client.as_ref().map(|(_, theirs)| theirs)).map_err(ours)?;
    match clone::clone3(0, None).map_err(ours)? {
        Side::Child => {
            let e = become_monitor(&container, tree, &words, &theirs, client.as_ref().map(|(_, c)| c));
            let text: Vec<u8> = [b'E', runtime::FAILED].into_iter().chain(e.to_string().bytes()).collect();
            let _ = socket::send(theirs.as_fd(), &text[..text.len().min(8000)], None);
            process::exit_now(1)
        }
        Side::Parent(_) => {
            drop((theirs, tree, container));
            let (answer, _) = socket::receive(report.as_fd(), 8200).map_err(ours)?;
            match answer.split_first() {
                Some((b'S', _)) => Ok(client.map(|(ours, _)| ours)),
                Some((_, [code, text @ ..])) => Err((*code, Error::new(String::from_utf8_lossy(text)))),
                _ => Err(ours(Error::new("the monitor was killed before the container started"))),
            }
        }
    }
}

fn orders(
    container: &Container,
    mounted: bool,
    report: &OwnedFd,
    client: Option<&OwnedFd>,
) -> Result<Vec<CString>> {
    let settings = &container.record.settings;
    let max_size =
        settings.log("max-size").map(|size| quantity::bytes(size, "--log-opt max-size")).transpose()?;
    let orders = Orders {
        id: container.id().to_owned(),
        place: container.place.clone(),
        runtime: Runtime::find(&container.place, settings.runtime.as_deref())?.path,
        tty: settings.tty,
        interactive: settings.interactive,
        rm: settings.rm,
        mounted,
        scope: container.record.scope,
        max_size: max_size.and_then(|size| u64::try_from(size).ok()).unwrap_or(log::MAX_SIZE),
        max_files: max_files(settings)?,
        report: report.as_raw_fd(),
        client: client.map_or(-1, |client| client.as_raw_fd()),
        dir: container.dir().as_raw_fd(),
    };
    let text = |word: String| CString::new(word).map_err(|_| Error::new("a path holds a NUL byte"));
    orders.words().into_iter().map(text).collect()
}

/// How many files a container's log may have.
pub fn max_files(settings: &Settings) -> Result<u32> {
    let bad = |text: &str| Error::new(format!("--log-opt max-file: {text:?} is not a number from 1 to 100"));
    let number = |text: &str| text.parse().ok().filter(|n| (1..=100).contains(n)).ok_or_else(|| bad(text));
    settings.log("max-file").map_or(Ok(log::MAX_FILES), number)
}

/// In the child: returns only the reason why not.
fn become_monitor(
    container: &Container,
    tree: Option<OwnedFd>,
    words: &[CString],
    report: &OwnedFd,
    client: Option<&OwnedFd>,
) -> Error {
    let mut tree = tree;
    let mut prepare = || -> Result<OwnedFd> {
        process::setsid()?;
        let settings = &container.record.settings;
        if tree.is_none() && container.record.needs_user_namespace() {
            // Here, so that the caller stays outside, and may see to the next container.
            rootless::enter_for(&container.place, settings)?;
            tree = open_root(container)?;
        }
        enter(&container.path, tree.as_ref())?;
        path::chdir(&container.path)?;
        let null = path::open(Path::new("/dev/null"), libc::O_RDWR)?;
        (0..3).try_for_each(|number| fd::dup_onto(null.as_fd(), number))?;
        fd::cloexec_from(3)?;
        for kept in [Some(report), client].into_iter().flatten() {
            fd::set_cloexec(kept.as_fd(), false)?;
        }
        monitor::keep_open(container.dir())?;
        path::open(Path::new("/proc/self/exe"), libc::O_RDONLY)
    };
    let kept = ["PATH", "HOME", "XDG_RUNTIME_DIR"];
    let env =
        kept.iter().filter_map(|name| CString::new(format!("{name}={}", std::env::var(name).ok()?)).ok());
    match prepare() {
        Ok(exe) => {
            process::execve_fd(exe.as_fd(), words, &env.collect::<Vec<_>>()).context("starting the monitor")
        }
        Err(e) => e,
    }
}

/// Takes the lock of a container that exists and starts it: `start`.
pub fn start(container: Container, attach: bool) -> std::result::Result<Option<OwnedFd>, (u8, Error)> {
    ready(&container).map_err(|e| (runtime::FAILED, e))?;
    monitored(Prepared { container, tree: None }, attach)
}

/// The lock, from a monitor that may still be busy with the end; and nothing that a killed one left.
fn ready(container: &Container) -> Result<()> {
    let running = || Error::new(format!("container {} is already running", container.record.name));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !container.lock()? {
        if container.pid()?.is_some() || Instant::now() > deadline {
            return Err(running());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The lock is ours, so it says nothing: only a process that lives does.
    if container.pid()?.is_some() {
        return Err(running());
    }
    crate::container::delete(container.place.records()?.as_ref(), &container.oci_id()?, true)
}

/// Namespaces of other containers are those of the processes that run now.
fn refresh(container: &Container) -> Result<()> {
    let settings = &container.record.settings;
    let modes =
        [("pid", &settings.pid, "pid"), ("ipc", &settings.ipc, "ipc"), ("network", &settings.network, "net")];
    let others: Vec<(&str, &str, &str)> = modes
        .iter()
        .filter_map(|(kind, mode, file)| Some((*kind, mode.as_deref()?.strip_prefix("container:")?, *file)))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let text = fs::read(container.path.join("config.json")).map_err(io("read config.json"))?;
    let mut config: Value =
        serde_json::from_slice(&text).map_err(|e| Error::new(format!("config.json: {e}")))?;
    for (kind, name, file) in others {
        let other = Container::find(&container.place, name)?;
        let pid = other.pid()?.ok_or_else(|| {
            Error::new(format!("cannot join the {kind} namespace of {name}: it is not running"))
        })?;
        for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
            if namespace["type"] == kind {
                namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
            }
        }
    }
    write_whole(&container.path, "config.json", config.to_string().as_bytes(), !settings.rm)
}
