//! checkpoint: the processes of a container go to disk, through criu.
//!
//! criu finds out by itself nearly all of what a container is. It has to be told what it must not look into, because it
//! is the host's: bind mounts, the null device over masked files, namespaces that the config names by path.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::record::{Id, Root};
use super::status::{Container, Status};
use super::{notify, undo};
use crate::apply::root::RootDir;
use crate::bundle::{self, Bundle};
use crate::cgroup;
use crate::criu::options::Places;
use crate::criu::{self, Kind as Request, Options, Service, options};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::namespaces::Kind;
use crate::plan::{Plan, devices, mounts};
use crate::protobuf::Message;
use crate::sys::{fd, path};

const LOG: &str = "dump.log";
/// What the first process had as stdio, for the restore that gives it its own.
pub const DESCRIPTORS: &str = "descriptors.json";

/// Dumps a container. Unless it is to go on, it is deleted afterwards.
pub fn checkpoint(root: &Root, id: &Id, options: &Options) -> Result<()> {
    let container = Container::load(root, id)?;
    container.entry.lock(true)?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        status => return Err(Error::new(format!("Container cannot be checkpointed in {status} state"))),
    }
    criu::find()?;
    check_features(options)?;
    let places = Places::open(options, true, LOG)?;
    let mut opts = options.fields(LOG);
    dump_fields(&mut opts, &container, options)?;
    let kind = if options.pre_dump { Request::PreDump } else { Request::Dump };
    if !options.pre_dump {
        let plan = plan(&container)?;
        externals(&mut opts, &container, &plan)?;
        let mut names = stdio(container.record.pid)?;
        for key in host_nulls(&container)? {
            opts.text(37, &key);
            names.push(key);
        }
        write_descriptors(&places, &names)?;
    }
    let mut request = Message::default();
    request.message(2, &opts);
    let service = Service::start(None, Some(&places), &[], || Ok(()))?;
    let mut status_fd = options.status_fd;
    let told = service.perform(kind, &mut request, |notice| {
        // Whoever waits for the lazy pages may begin.
        if notice.script == "status-ready"
            && let Some(fd) = status_fd.take().and_then(fd::inherited)
        {
            fd::write_all(fd, b"\0")?;
        }
        Ok(())
    });
    told.map(drop)
        .and_then(|()| service.end(kind != Request::PreDump))
        .map_err(|error| places.explain(error))?;
    if options.leave_running || options.pre_dump { Ok(()) } else { undo::undo(&container) }
}

fn check_features(options: &Options) -> Result<()> {
    if !options.pre_dump && !options.lazy_pages {
        return Ok(());
    }
    let can = criu::features()?;
    for (asked, can, name) in
        [(options.pre_dump, can.mem_track, "MemTrack"), (options.lazy_pages, can.lazy_pages, "LazyPages")]
    {
        if asked && !can {
            return Err(Error::new(format!("criu is missing features: [{name}]"))
                .why("neither this criu nor this kernel can be made to do without it"));
        }
    }
    match options.status_fd {
        Some(number) if options.lazy_pages && fd::inherited(number).is_none() => {
            Err(Error::new(format!("invalid --status-fd argument {number}: it is not open")))
        }
        _ => Ok(()),
    }
}

fn dump_fields(opts: &mut Message, container: &Container, options: &Options) -> Result<()> {
    let record = &container.record;
    opts.number(2, record.pid.into())
        .flag(3, options.leave_running)
        .text(13, record.rootfs.as_os_str().as_bytes())
        .flag(18, options.link_remap)
        .flag(46, options.tcp_skip_in_flight);
    if let Some(place) = record.cgroup.places.first() {
        opts.text(44, place.mount.join(&place.path).as_os_str().as_bytes());
    }
    if let Some((address, port)) = &options.page_server {
        let mut server = Message::default();
        server.text(1, address).number(2, (*port).into());
        opts.message(11, &server);
    }
    if let Some(parent) = &options.parent {
        opts.text(14, parent.as_os_str().as_bytes()).flag(15, true);
    }
    configuration(opts, &record.annotations);
    Ok(())
}

/// criu's own configuration file for runtimes, or the container's (criu(8), org.criu.config).
pub fn configuration(opts: &mut Message, annotations: &[(String, String)]) {
    match annotations.iter().find(|(name, _)| name == "org.criu.config") {
        Some((_, file)) if file.is_empty() => {}
        Some((_, file)) => drop(opts.text(51, file)),
        None => drop(opts.text(51, "/etc/criu/runc.conf")),
    }
}

/// The plan as it was at create.
fn plan(container: &Container) -> Result<Plan> {
    let raw = container.entry.config()?;
    let (spec, warnings) = bundle::parse(&raw)?;
    let bundle = Bundle { dir: container.record.bundle.clone(), spec, raw, warnings };
    let options = crate::plan::Options {
        systemd_cgroup: container.record.cgroup.unit.is_some(),
        ..crate::plan::Options::default()
    };
    let host = Host::look(&bundle.spec, &options)?;
    Plan::new(&container.record.id, &bundle, &options, &host)
}

/// Tells criu what is the host's.
fn externals(opts: &mut Message, container: &Container, plan: &Plan) -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = path::open(Path::new(&format!("/proc/{}/root", container.record.pid)), flags)?;
    let root = RootDir::new(root);
    for (inside, _) in bound(plan) {
        if let Some(place) = resolve(&root, &inside)? {
            options::external_mount(opts, place.as_os_str().as_bytes(), place.as_os_str().as_bytes());
        }
    }
    if notify::is_prepared(&container.entry) {
        options::external_mount(opts, notify::INSIDE, notify::INSIDE);
    }
    for masked in &plan.masked {
        let Some(target) = root.open_existing(masked)? else { continue };
        let is_dir = path::stat(target.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if !is_dir {
            options::external_mount(opts, Path::new("/").join(masked).as_os_str().as_bytes(), "/dev/null");
        }
    }
    for (kind, file) in &plan.namespaces.join {
        if matches!(kind, Kind::Network | Kind::Pid) {
            let open = path::open(file, libc::O_PATH)?;
            let inode = path::stat(open.as_fd(), Path::new(""))?.st_ino;
            opts.text(37, format!("{}[{inode}]:{}", kind.file(), namespace_key(*kind)));
        }
    }
    Ok(())
}

/// The name under which a namespace of the host's stands in the images; runc's.
pub fn namespace_key(kind: Kind) -> &'static str {
    if kind == Kind::Network { "extRootNetNS" } else { "extRootPidNS" }
}

/// What is bound from the host: below the container's root, and from where.
pub fn bound(plan: &Plan) -> Vec<(PathBuf, PathBuf)> {
    let mut list = Vec::new();
    for mount in &plan.mounts {
        match (&mount.kind, &plan.cgroup) {
            (mounts::Kind::Bind { source, .. }, _) => list.push((mount.destination.clone(), source.clone())),
            (mounts::Kind::Cgroup, Some(cgroup)) if !plan.namespaces.has(Kind::Cgroup) => {
                list.push((mount.destination.clone(), cgroup.mount.join(&cgroup.path)));
            }
            _ => {}
        }
    }
    if plan.bind_devices {
        let default = devices::DEFAULT.iter().filter(|_| plan.setup_dev);
        let names = default.map(|(name, ..)| Path::new("dev").join(name));
        let more = plan.devices.iter().map(|device| device.path.clone());
        list.extend(names.chain(more).map(|path| (path.clone(), Path::new("/").join(path))));
    }
    list
}

/// Where a path of the container really leads, with its links followed inside. `None`: there is nothing.
fn resolve(root: &RootDir, inside: &Path) -> Result<Option<PathBuf>> {
    root.open_existing(inside)?.map(|target| path::name_of(target.as_fd())).transpose()
}

fn write_descriptors(places: &Places, names: &[String]) -> Result<()> {
    let text = serde_json::to_vec(names).map_err(|e| Error::new(format!("writing {DESCRIPTORS}: {e}")))?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let file = path::openat(places.images.as_fd(), Path::new(DESCRIPTORS), flags, 0o600)?;
    fd::write_all(file.as_fd(), &text)
}

fn stdio(pid: i32) -> Result<Vec<String>> {
    let dir = path::open(Path::new(&format!("/proc/{pid}/fd")), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let link = |n| path::readlinkat(dir.as_fd(), Path::new(n)).unwrap_or_default();
    Ok(["0", "1", "2"].map(|n| link(n).to_string_lossy().into_owned()).to_vec())
}

/// Descriptors that are the host's null device, as a caller that detaches gives it for stdio: criu cannot find its
/// mount inside. Named as criu names files that the restorer brings: `file[MOUNT:INODE]`, in hexadecimal.
fn host_nulls(container: &Container) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for pid in cgroup::pids(&container.record.cgroup)? {
        keys.extend(nulls_of(pid).or_else(nothing_of_the_ended)?);
    }
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// A process that has ended since it was listed has no files. EINVAL: it is a zombie, or on its way to be one, without
/// the mount namespace that /proc/PID/mountinfo is about.
fn nothing_of_the_ended(error: Error) -> Result<Vec<String>> {
    match error.errno() {
        libc::ENOENT | libc::ESRCH | libc::EINVAL => Ok(Vec::new()),
        _ => Err(error),
    }
}

fn nulls_of(pid: i32) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let inside = crate::host::read(format!("/proc/{pid}/mountinfo"))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let dir = path::open(Path::new(&format!("/proc/{pid}/fd")), flags)?;
    for number in path::list(dir.as_fd())? {
        // The process may close it meanwhile.
        let Ok(file) = path::openat(dir.as_fd(), Path::new(&number), libc::O_PATH, 0) else { continue };
        let st = path::stat(file.as_fd(), Path::new(""))?;
        if st.st_mode & libc::S_IFMT != libc::S_IFCHR || st.st_rdev != libc::makedev(1, 3) {
            continue;
        }
        let info = match crate::host::read(format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy())) {
            Err(e) if e.errno() == libc::ENOENT => continue,
            info => info?,
        };
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
        if !inside.lines().any(|line| line.split(' ').next() == Some(mount)) {
            keys.push(format!("file[{:x}:{:x}]", mount.parse::<u32>().unwrap_or(0), st.st_ino));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::{Side, clone3};
    use crate::sys::process;

    #[test]
    fn the_ended_have_no_files() {
        let child = match clone3(0, None).expect("clone3") {
            Side::Parent(child) => child,
            Side::Child => process::exit_now(0),
        };
        let stat = || crate::host::read(format!("/proc/{}/stat", child.pid)).expect("stat");
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        let zombie = nulls_of(child.pid).expect_err("a zombie has no mount namespace");
        assert_eq!(zombie.errno(), libc::EINVAL);
        assert_eq!(nothing_of_the_ended(zombie), Ok(Vec::new()));
        process::wait(child.pidfd.as_fd(), true).expect("wait");
        assert_eq!(nulls_of(child.pid).or_else(nothing_of_the_ended), Ok(Vec::new()));
    }
}
