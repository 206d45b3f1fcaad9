//! The cgroup of a container: made, limited, entered, frozen, killed, removed. One face over cgroup v2 and, on hybrid
//! hosts, the v1 hierarchies whose limits the config asks for.
//!
//! Every path below a hierarchy is walked by descriptor without links and without leaving the file system. Processes
//! enter the v2 cgroup by being born in it (CLONE_INTO_CGROUP): moving one later costs an RCU grace period. With the
//! systemd driver (`systemd.rs`) the cgroup is made by systemd around a process that exists; the rest is the same.

mod dbus;
pub mod systemd;

pub mod stats;
pub mod update;
pub mod usage;
pub mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::cgroup::{CgroupPlan, V1Plan, Write};
use crate::sys;

/// How long a killed or thawed cgroup may take; beyond it something in the kernel hangs, and the error says so.
const PATIENCE: Duration = Duration::from_secs(10);

/// What must be remembered to undo a cgroup.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Traces {
    pub places: Vec<Place>,
    /// The unit that systemd made for the first place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<systemd::Unit>,
}

/// A cgroup in one hierarchy; the first place is the one on cgroup2.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Place {
    pub mount: PathBuf,
    /// Relative to the mount.
    pub path: PathBuf,
    /// How many of the leading components existed before: those are not ours to remove.
    pub foreign: usize,
}

/// A cgroup that exists, with the doors a new process needs.
#[derive(Debug)]
pub struct Cgroup {
    pub dir: OwnedFd,
    /// v1 `tasks` files, open for writing: a process that writes 0 moves itself, at the cost of a microsecond.
    pub v1_tasks: Vec<OwnedFd>,
}

const WALK: u64 = sys::path::RESOLVE_BENEATH
    | sys::path::RESOLVE_NO_XDEV
    | sys::path::RESOLVE_NO_SYMLINKS
    | sys::path::RESOLVE_NO_MAGICLINKS;

fn hierarchy(mount: &Path) -> Result<OwnedFd> {
    sys::path::open(mount, libc::O_PATH | libc::O_DIRECTORY)
}

fn descend(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    sys::path::openat2(dir, path, libc::O_PATH | libc::O_DIRECTORY, 0, WALK)
}

/// What making this cgroup will touch, found out before anything is touched.
pub fn traces(plan: &CgroupPlan) -> Result<Traces> {
    let mut places = vec![place(&plan.mount, &plan.path)?];
    let mut unit = None;
    if let Some(made) = &plan.unit {
        unit = Some(systemd::Unit { name: made.name.clone(), user: made.user });
        // The slices above are systemd's.
        places[0].foreign = plan.path.iter().count() - 1;
    }
    for v1 in &plan.v1 {
        places.push(place(&v1.mount, &v1.path)?);
    }
    Ok(Traces { places, unit })
}

fn place(mount: &Path, path: &Path) -> Result<Place> {
    let mut foreign = 0;
    let mut dir = hierarchy(mount)?;
    for part in path {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match sys::path::openat2_errno(dir.as_fd(), Path::new(part), flags, 0, WALK)? {
            Ok(next) => dir = next,
            Err(libc::ENOENT) => break,
            Err(e) => {
                return Err(Error::call(format_args!("opening {part:?} of cgroup {}", path.display()), e));
            }
        }
        foreign += 1;
    }
    // Somebody else's processes: refused before there is an intent, whose undoing would kill them.
    if foreign == path.iter().count() {
        refuse_inhabited(dir.as_fd())?;
    }
    Ok(Place { mount: mount.to_owned(), path: path.to_owned(), foreign })
}

/// Makes the cgroup with its limits and its device filter. `None`: not possible for this caller, and not needed.
pub fn make(plan: &CgroupPlan) -> Result<Option<Cgroup>> {
    let dir = match make_leaf(&plan.mount, &plan.path, true) {
        Ok(dir) => dir,
        Err(e) if plan.optional && matches!(e.errno(), libc::EACCES | libc::EPERM | libc::EROFS) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut v1_tasks = Vec::new();
    for v1 in &plan.v1 {
        v1_tasks.push(make_v1(v1)?);
    }
    restrict(dir.as_fd(), plan)?;
    Ok(Some(Cgroup { dir, v1_tasks }))
}

/// Makes what systemd has made around the container's process into its cgroup: with what systemd has no word for, or
/// rounds.
pub fn adopt(plan: &CgroupPlan, pid: i32) -> Result<()> {
    let text = crate::host::read(format!("/proc/{pid}/cgroup"))?;
    let own = crate::host::cgroup_of(&text);
    if crate::plan::lexical(own) != plan.path {
        return Err(Error::new(format!(
            "systemd put the container into cgroup {} and not into /{}",
            own.display(),
            plan.path.display()
        )));
    }
    let mut dir = hierarchy(&plan.mount)?;
    for part in &plan.path {
        enable_controllers(dir.as_fd())?;
        dir = descend(dir.as_fd(), Path::new(part))?;
    }
    restrict(dir.as_fd(), plan)
}

fn restrict(dir: BorrowedFd<'_>, plan: &CgroupPlan) -> Result<()> {
    for write in &plan.writes {
        apply(dir, write)?;
    }
    if let Some(program) = &plan.device_program {
        let program = sys::bpf::load_device_program(program)?;
        sys::bpf::attach_device_program(dir, program.as_fd())?;
    }
    if let Some(owner) = plan.owner.filter(|uid| *uid != sys::cred::euid()) {
        give(dir, owner)?;
    }
    Ok(())
}

/// Gives the directory to a user, with the files that the kernel says are safe to give (cgroups(7), "delegate").
fn give(dir: BorrowedFd<'_>, uid: u32) -> Result<()> {
    const AT_LEAST: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
    let files = crate::host::read("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| AT_LEAST.to_owned());
    for file in [""].into_iter().chain(files.lines()) {
        let given = if file.is_empty() {
            let itself = sys::path::openat(dir, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            sys::path::fchown(itself.as_fd(), uid, u32::MAX)
        } else {
            sys::path::chownat(dir, Path::new(file), uid, u32::MAX)
        };
        match given {
            Err(e) if e.errno() == libc::ENOENT => {}
            other => other.map_err(|e| e.context("giving the cgroup to the container's user"))?,
        }
    }
    Ok(())
}

/// Makes each missing directory of `path`, and turns on the controllers above the last one.
fn make_leaf(mount: &Path, path: &Path, controllers: bool) -> Result<OwnedFd> {
    let root = hierarchy(mount)?;
    // A neighbour may remove a shared parent that is empty for a moment: then start again from the top.
    for _ in 0..16 {
        match walk_and_make(&root, path, controllers) {
            Err(e) if e.errno() == libc::ENOENT => {}
            other => return other.map_err(|e| e.context(format_args!("cgroup {}", path.display()))),
        }
    }
    Err(Error::new(format!("cgroup {}: a parent keeps being removed", path.display())))
}

fn walk_and_make(root: &OwnedFd, path: &Path, controllers: bool) -> Result<OwnedFd> {
    let mut dir: Option<OwnedFd> = None;
    let mut parts = path.iter().map(Path::new).peekable();
    while let Some(part) = parts.next() {
        let above = dir.as_ref().unwrap_or(root).as_fd();
        if controllers {
            enable_controllers(above)?;
        }
        let new = match sys::path::mkdirat(above, part, 0o755) {
            Ok(()) => true,
            Err(e) if e.errno() == libc::EEXIST => false,
            Err(e) => return Err(e),
        };
        let next = descend(above, part)?;
        if parts.peek().is_none() && !new && controllers {
            refuse_inhabited(next.as_fd())?;
        }
        dir = Some(next);
    }
    dir.ok_or_else(|| Error::new("the root cgroup cannot be a container's"))
}

/// Callers read memory.events and pids.current of the container, so every controller that the parent has is handed on.
fn enable_controllers(dir: BorrowedFd<'_>) -> Result<()> {
    let available = read(dir, "cgroup.controllers")?;
    let enabled = read(dir, "cgroup.subtree_control")?;
    let is_enabled = |controller: &&str| enabled.split_whitespace().any(|e| e == *controller);
    let mut missing = available.split_whitespace().filter(|c| !is_enabled(c)).peekable();
    if missing.peek().is_none() || is_inhabited(dir) {
        return Ok(());
    }
    for controller in missing {
        // One that is refused (ENOENT, EINVAL: realtime tasks) fails later if it is needed.
        let _ = write(dir, "cgroup.subtree_control", &format!("+{controller}"));
    }
    Ok(())
}

/// Whether processes stand in this very cgroup. There the kernel refuses the controllers of memory and io; those of cpu
/// and pids it would let on, and with them make every cgroup below invalid, fit for no process.
/// The root of all, the one without a type, may have both.
fn is_inhabited(dir: BorrowedFd<'_>) -> bool {
    sys::path::stat(dir, Path::new("cgroup.type")).is_ok()
        && read(dir, "cgroup.procs").map_or(true, |pids| !pids.is_empty())
}

fn refuse_inhabited(dir: BorrowedFd<'_>) -> Result<()> {
    let mut pids = Vec::new();
    collect_pids(dir, &mut pids)?;
    let processes = pids.len();
    if processes > 0 {
        return Err(Error::new(format!("container's cgroup is not empty: {processes} process(es) found"))
            .next("give the container a cgroupsPath of its own"));
    }
    if frozen(dir).unwrap_or(false) {
        return Err(
            Error::new("container's cgroup unexpectedly frozen").next("thaw it: echo 0 > cgroup.freeze")
        );
    }
    Ok(())
}

/// A cgroup on a v1 hierarchy that is fit for processes, without limits.
fn prepare_v1(plan: &V1Plan) -> Result<OwnedFd> {
    let dir = make_leaf(&plan.mount, &plan.path, false)?;
    if plan.controller == "cpuset" {
        fill_cpuset(&plan.mount, &plan.path)?;
    }
    Ok(dir)
}

fn make_v1(plan: &V1Plan) -> Result<OwnedFd> {
    let dir = prepare_v1(plan)?;
    for write in &plan.writes {
        apply(dir.as_fd(), write)?;
    }
    sys::path::openat(dir.as_fd(), Path::new("tasks"), libc::O_WRONLY, 0)
}

/// A v1 cpuset is born empty and takes no process: each level gets its parent's CPUs and nodes.
fn fill_cpuset(mount: &Path, path: &Path) -> Result<()> {
    let mut above = hierarchy(mount)?;
    for part in path {
        let dir = descend(above.as_fd(), Path::new(part))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(dir.as_fd(), file)?.trim().is_empty() {
                write(dir.as_fd(), file, read(above.as_fd(), file)?.trim())?;
            }
        }
        above = dir;
    }
    Ok(())
}

fn apply(dir: BorrowedFd<'_>, limit: &Write) -> Result<()> {
    let missing = |e: &Error| e.errno() == libc::ENOENT;
    let mut done = write(dir, &limit.file, &limit.value);
    if let (Err(e), Some((file, value))) = (&done, &limit.otherwise)
        && missing(e)
    {
        done = write(dir, file, value);
    }
    match done {
        Err(e) if limit.optional && (missing(&e) || e.errno() == libc::EOPNOTSUPP) => Ok(()),
        Err(e) => {
            let cause = match e.errno() {
                libc::ENOENT => Some(
                    "the controller is not enabled for this cgroup (processes in the one above prevent that), or this \
                     kernel has no such file",
                ),
                libc::EINVAL | libc::ERANGE => Some("the kernel does not take this value"),
                libc::EACCES | libc::EPERM => Some("this cgroup is not delegated to you"),
                _ => None,
            };
            let e = e.context(limit.at);
            Err(match cause {
                Some(cause) => e.why(cause),
                None => e,
            })
        }
        Ok(()) => Ok(()),
    }
}

/// Opens the cgroup of an existing container: what a process that joins it needs.
pub fn open(traces: &Traces) -> Result<Option<Cgroup>> {
    let Some((v2, v1)) = traces.places.split_first() else { return Ok(None) };
    let dir = descend(hierarchy(&v2.mount)?.as_fd(), &v2.path)?;
    let mut v1_tasks = Vec::new();
    for place in v1 {
        match descend(hierarchy(&place.mount)?.as_fd(), &place.path) {
            Ok(dir) => {
                v1_tasks.push(sys::path::openat(dir.as_fd(), Path::new("tasks"), libc::O_WRONLY, 0)?);
            }
            // An update has recorded it and is about to make it; then it moves everybody there.
            Err(e) if e.errno() == libc::ENOENT => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(Cgroup { dir, v1_tasks }))
}

/// The directory of a place, for whoever reads it.
pub fn directory(place: &Place) -> Result<OwnedFd> {
    descend(hierarchy(&place.mount)?.as_fd(), &place.path)
}

/// What a control file of a place says.
pub fn value(place: &Place, file: &str) -> Result<String> {
    read(directory(place)?.as_fd(), file)
}

/// The v2 cgroup directory, or `None` when it is gone.
fn find(traces: &Traces) -> Result<Option<OwnedFd>> {
    match traces.places.first() {
        None => Ok(None),
        Some(place) => match descend(hierarchy(&place.mount)?.as_fd(), &place.path) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        },
    }
}

/// Moves a process into the cgroup by its number: the slow way, for when the clone could not.
pub fn move_into(cgroup: &Cgroup, pid: i32) -> Result<()> {
    write(cgroup.dir.as_fd(), "cgroup.procs", &pid.to_string())
}

/// The processes of the container, its sub-cgroups included.
pub fn pids(traces: &Traces) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    if let Some(dir) = find(traces)? {
        collect_pids(dir.as_fd(), &mut pids)?;
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect_pids(dir: BorrowedFd<'_>, pids: &mut Vec<i32>) -> Result<()> {
    // A threaded sub-cgroup has no cgroup.procs to read (EOPNOTSUPP): its processes stand in the one above.
    let text = read(dir, "cgroup.procs").or_else(|e| match e.errno() {
        libc::EOPNOTSUPP | libc::ENODEV => Ok(String::new()),
        _ => Err(e),
    })?;
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(dir)? {
        if let Ok(child) = descend(dir, &child) {
            collect_pids(child.as_fd(), pids)?;
        }
    }
    Ok(())
}

fn children(dir: BorrowedFd<'_>) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for name in sys::path::list(dir)? {
        let name = PathBuf::from(name);
        if sys::path::stat(dir, &name).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Freezes or thaws, and waits until it is so.
pub fn freeze(traces: &Traces, freeze: bool) -> Result<()> {
    let dir = find(traces)?.ok_or_else(|| Error::new("container has no cgroup: it cannot be frozen"))?;
    write(dir.as_fd(), "cgroup.freeze", if freeze { "1" } else { "0" })?;
    watch::wait_event(dir.as_fd(), "frozen", freeze)
        .map_err(|e| e.context(if freeze { "freezing the container" } else { "thawing the container" }))
}

pub fn is_frozen(traces: &Traces) -> Result<bool> {
    match find(traces)? {
        Some(dir) => frozen(dir.as_fd()),
        None => Ok(false),
    }
}

fn frozen(dir: BorrowedFd<'_>) -> Result<bool> {
    Ok(read(dir, "cgroup.freeze")?.trim() == "1")
}

/// Kills everything in the cgroup, frozen or forking as it may be (cgroup.kill), and waits until nobody is left.
pub fn kill(traces: &Traces) -> Result<()> {
    let Some(dir) = find(traces)? else { return Ok(()) };
    match write(dir.as_fd(), "cgroup.kill", "1") {
        Err(e) if e.errno() == libc::ENODEV || e.errno() == libc::ENOENT => return Ok(()),
        other => other?,
    }
    watch::wait_event(dir.as_fd(), "populated", false).map_err(|e| e.context("killing the container"))
}

/// Removes what [`make`] made: sub-cgroups bottom up, the leaf, and the parents that did not exist before.
pub fn remove(traces: &Traces) -> Result<()> {
    if let Some(unit) = &traces.unit {
        systemd::stop(unit)?;
    }
    for place in traces.places.iter().rev() {
        remove_place(place)
            .map_err(|e| e.context(format_args!("removing cgroup {}", place.path.display())))?;
    }
    Ok(())
}

/// The same, unless a process or a sub-cgroup is left in the first place: then nothing is removed there.
pub fn remove_if_empty(traces: &Traces) -> Result<bool> {
    let Some(place) = traces.places.first() else { return Ok(true) };
    let root = mounted(&place.mount)?;
    match rmdir(root.as_fd(), &place.path) {
        // Nearly always there was nothing else.
        Ok(()) if traces.places.len() == 1 && traces.unit.is_none() => {
            remove_parents(root.as_fd(), place).map(|()| true)
        }
        Ok(()) => remove(traces).map(|()| true),
        Err(e) if e.errno() == libc::EBUSY || e.errno() == libc::ENOTEMPTY => Ok(false),
        Err(e) => Err(e),
    }
}

/// A hierarchy that is still mounted where it was: below an empty directory everything would seem to be gone.
fn mounted(mount: &Path) -> Result<OwnedFd> {
    const CGROUP: i64 = 0x0027_e0eb;
    const CGROUP2: i64 = 0x6367_7270;
    let root = hierarchy(mount)?;
    match sys::path::fs_magic(root.as_fd())? {
        CGROUP | CGROUP2 => Ok(root),
        _ => Err(Error::new(format!("{} is no cgroup hierarchy any more", mount.display()))
            .next("mount it again, then delete the container again")),
    }
}

fn remove_place(place: &Place) -> Result<()> {
    let root = mounted(&place.mount)?;
    remove_tree(root.as_fd(), &place.path)?;
    remove_parents(root.as_fd(), place)
}

/// Those that were made on the way.
fn remove_parents(root: BorrowedFd<'_>, place: &Place) -> Result<()> {
    let mut path = place.path.clone();
    while path.pop() && path.iter().count() > place.foreign {
        // Shared with a neighbour that came later: it stays.
        match rmdir(root, &path) {
            Err(e) if e.errno() == libc::EBUSY || e.errno() == libc::ENOTEMPTY => break,
            other => other?,
        }
    }
    Ok(())
}

fn remove_tree(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rmdir(root, path) {
            Err(e) if e.errno() == libc::EBUSY && Instant::now() < deadline => {}
            other => return other,
        }
        let Ok(dir) = descend(root, path) else { continue };
        for child in children(dir.as_fd())? {
            remove_tree(dir.as_fd(), &child)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rmdir(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let above;
    let (dir, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => {
            above = match descend(root, parent) {
                Err(e) if e.errno() == libc::ENOENT => return Ok(()),
                other => other?,
            };
            (above.as_fd(), Path::new(name))
        }
        _ => (root, path),
    };
    match sys::path::unlinkat(dir, name, libc::AT_REMOVEDIR) {
        Err(e) if e.errno() == libc::ENOENT => Ok(()),
        other => other,
    }
}

/// How often the kernel killed something here for want of memory; 0 where that cannot be known.
pub fn oom_kills(traces: &Traces) -> u64 {
    let count = |place: &Place| -> Option<u64> {
        let dir = descend(hierarchy(&place.mount).ok()?.as_fd(), &place.path).ok()?;
        // v2 has the one file, v1's memory hierarchy the other.
        let text =
            read(dir.as_fd(), "memory.events").or_else(|_| read(dir.as_fd(), "memory.oom_control")).ok()?;
        watch::number(&text, "oom_kill")
    };
    traces.places.iter().filter_map(count).sum()
}

fn read(dir: BorrowedFd<'_>, file: &str) -> Result<String> {
    let file = sys::path::openat(dir, Path::new(file), libc::O_RDONLY, 0)?;
    let bytes = sys::fd::read_to_end(file.as_fd(), 1 << 20)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<()> {
    let fd = sys::path::openat(dir, Path::new(file), libc::O_WRONLY, 0)?;
    sys::fd::write_all(fd.as_fd(), value.as_bytes())
        .map_err(|e| e.context(format_args!("{file} = {value:?}")))
}
