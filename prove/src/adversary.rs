//! The attacker who owns the root file system: at each system call of create and exec that takes a path, a
//! directory of the root file system is swapped for something else, and the call goes on. Whatever comes of it, what
//! lies outside stays as it was. Counts how the runtime walks in the tree that can be swapped.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use crate::config::Which;
use crate::names;
use crate::place::DIR;
use crate::tally::Tally;
use crate::trace::{Deed, End, Entry};
use crate::worker::Worker;

/// What a directory becomes.
const SWAPS: [&str; 4] = ["a link outside", "a link upwards", "a FIFO", "a mount"];
/// The directories of the root file system in which create and exec have something to do.
const TARGETS: [&str; 6] = ["dev", "proc", "sys", "mnt", "etc", "bin"];

const NO_PATH: usize = usize::MAX;

/// Calls that take a path: which argument is the directory it starts from, and which the path.
const TAKING: &[(i64, usize, usize)] = &[
    (libc::SYS_openat, 0, 1),
    (libc::SYS_openat2, 0, 1),
    (libc::SYS_mkdirat, 0, 1),
    (libc::SYS_mknodat, 0, 1),
    (libc::SYS_symlinkat, 1, 2),
    (libc::SYS_linkat, 2, 3),
    (libc::SYS_unlinkat, 0, 1),
    (libc::SYS_renameat2, 0, 1),
    (libc::SYS_fchownat, 0, 1),
    (libc::SYS_fchmodat, 0, 1),
    (libc::SYS_newfstatat, 0, 1),
    (libc::SYS_statx, 0, 1),
    (libc::SYS_readlinkat, 0, 1),
    (libc::SYS_faccessat, 0, 1),
    (libc::SYS_faccessat2, 0, 1),
    (libc::SYS_utimensat, 0, 1),
    (libc::SYS_open_tree, 0, 1),
    (libc::SYS_move_mount, 2, 3),
    (libc::SYS_mount_setattr, 0, 1),
    (libc::SYS_execveat, 0, 1),
    (libc::SYS_mount, NO_PATH, 1),
    (libc::SYS_umount2, NO_PATH, 0),
    (libc::SYS_pivot_root, NO_PATH, 0),
    (libc::SYS_chroot, NO_PATH, 0),
    (libc::SYS_chdir, NO_PATH, 0),
    (libc::SYS_execve, NO_PATH, 0),
    (libc::SYS_access, NO_PATH, 0),
    (libc::SYS_readlink, NO_PATH, 0),
    (libc::SYS_statfs, NO_PATH, 0),
    (libc::SYS_open, NO_PATH, 0),
    (libc::SYS_creat, NO_PATH, 0),
    (libc::SYS_stat, NO_PATH, 0),
    (libc::SYS_lstat, NO_PATH, 0),
    (libc::SYS_mkdir, NO_PATH, 0),
    (libc::SYS_rmdir, NO_PATH, 0),
    (libc::SYS_mknod, NO_PATH, 0),
    (libc::SYS_link, NO_PATH, 1),
    (libc::SYS_symlink, NO_PATH, 1),
    (libc::SYS_unlink, NO_PATH, 0),
    (libc::SYS_rename, NO_PATH, 0),
    (libc::SYS_renameat, 0, 1),
    (libc::SYS_chmod, NO_PATH, 0),
    (libc::SYS_chown, NO_PATH, 0),
    (libc::SYS_lchown, NO_PATH, 0),
    (libc::SYS_truncate, NO_PATH, 0),
    (libc::SYS_setxattr, NO_PATH, 0),
    (libc::SYS_lsetxattr, NO_PATH, 0),
    (libc::SYS_getxattr, NO_PATH, 0),
    (libc::SYS_lgetxattr, NO_PATH, 0),
    (libc::SYS_fspick, 0, 1),
    (libc::SYS_name_to_handle_at, 0, 1),
    (libc::SYS_inotify_add_watch, NO_PATH, 1),
];

/// How a call walks in the attacker's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// It starts elsewhere, and does not come there.
    Elsewhere,
    /// openat2(2) that cannot leave the directory it starts from.
    Held,
    /// One name in a directory that is open: nothing is walked through.
    OneName,
    /// After the pivot, by a path of the container, as the container's own processes would.
    Inside,
    /// A path that leads through directories which can be swapped.
    Open,
}

pub fn prove(worker: &mut Worker) -> io::Result<()> {
    let canary = listing();
    let device = fs::metadata(format!("{DIR}/bundle/rootfs"))?.dev();
    for (verb, which) in [("create", Which::Rich), ("exec", Which::Plain)] {
        let series = format!("adversary at {verb}, {}", which.name());
        if !worker.options.wants(&series) {
            continue;
        }
        worker.configure(which)?;
        let mut tally = Tally::new(series);
        if worker.number == 0 {
            count_walks(worker, verb, device)?;
            worker.conclude(&mut tally, false)?;
        }
        for target in TARGETS {
            for swap in SWAPS {
                every_point(worker, verb, (target, swap), &canary, &mut tally)?;
            }
        }
        println!("{}", tally.line());
    }
    Ok(())
}

fn takes_path(entry: &Entry) -> Option<(usize, usize)> {
    let taking = TAKING.iter().find(|(number, ..)| *number == entry.number)?;
    (!entry.program).then_some((taking.1, taking.2))
}

/// One undisturbed run, in which it is counted how paths are walked once the root is open.
fn count_walks(worker: &mut Worker, verb: &str, device: u64) -> io::Result<()> {
    let mut counts = [0usize; 5];
    let mut opened = verb == "exec";
    let end = follow(worker, verb, |entry| {
        let Some(at) = takes_path(entry) else { return Deed::Go };
        let Some(path) = path_of(entry, at.1) else { return Deed::Go };
        if path == Path::new(&format!("{DIR}/bundle/rootfs")) {
            // The first and only opening of the root itself.
            opened = true;
            return Deed::Go;
        }
        let walk = walk(entry, at.0, &path, device);
        if opened {
            counts[walk as usize] += 1;
            if walk == Walk::Open {
                println!("{verb}: {} walks {}", names::name(entry.number), path.display());
            }
        }
        Deed::Go
    })?;
    worker.tracer.release();
    println!(
        "{verb}, once the root is open: {} paths on attacker-writable trees; others: {} held by \
         openat2, {} single names in an open directory, {} inside after the pivot; {} elsewhere; {end:?}",
        counts[Walk::Open as usize],
        counts[Walk::Held as usize],
        counts[Walk::OneName as usize],
        counts[Walk::Inside as usize],
        counts[Walk::Elsewhere as usize],
    );
    Ok(())
}

fn path_of(entry: &Entry, at: usize) -> Option<PathBuf> {
    let address = *entry.args.get(at)?;
    let memory = fs::File::open(format!("/proc/{}/mem", entry.pid)).ok()?;
    let mut bytes = vec![0; 4096];
    // The string may end just before a page that cannot be read.
    let page = 4096 - usize::try_from(address % 4096).ok()?;
    let mut read = memory.read_at(&mut bytes[..page], address).ok()?;
    if !bytes[..read].contains(&0) && page < 4096 {
        read += memory.read_at(&mut bytes[page..], address + page as u64).unwrap_or(0);
    }
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    Some(PathBuf::from(String::from_utf8_lossy(&bytes[..end]).into_owned()))
}

fn walk(entry: &Entry, dir: usize, path: &Path, device: u64) -> Walk {
    let below = |link: &str| {
        fs::metadata(format!("/proc/{}/{link}", entry.pid)).is_ok_and(|meta| meta.dev() == device)
    };
    let names = path.iter().count();
    if names == 0 {
        return Walk::Elsewhere;
    }
    if path.is_absolute() {
        return match below("root") {
            true => Walk::Inside,
            false if path.starts_with(format!("{DIR}/bundle/rootfs")) => Walk::Open,
            false => Walk::Elsewhere,
        };
    }
    let start = match entry.args.get(dir) {
        Some(fd) if *fd as i32 >= 0 => below(&format!("fd/{}", *fd as i32)),
        _ => below("cwd"),
    };
    // struct open_how: flags, mode, resolve.
    let held = || {
        let memory = fs::File::open(format!("/proc/{}/mem", entry.pid)).ok()?;
        let mut resolve = [0; 8];
        memory.read_at(&mut resolve, entry.args[2] + 16).ok()?;
        Some(u64::from_ne_bytes(resolve) & (libc::RESOLVE_IN_ROOT | libc::RESOLVE_BENEATH) != 0)
    };
    match start {
        false => Walk::Elsewhere,
        true if entry.number == libc::SYS_openat2 && held() == Some(true) => Walk::Held,
        true if names == 1 && path != Path::new("..") => Walk::OneName,
        true => Walk::Open,
    }
}

fn follow(worker: &mut Worker, verb: &str, deed: impl FnMut(&Entry) -> Deed) -> io::Result<End> {
    let id = worker.place.id();
    let words = match verb {
        "exec" => {
            worker.running()?;
            vec!["exec", &id, "/bin/busybox", "true"]
        }
        _ => vec!["create", "--bundle", "bundle", &id],
    };
    let command = worker.place.traced(&words)?;
    let patience = worker.place.patience();
    worker.tracer.follow(command, patience, deed)
}

fn every_point(
    worker: &mut Worker,
    verb: &str,
    (target, swap): (&str, &str),
    canary: &[String],
    tally: &mut Tally,
) -> io::Result<()> {
    for point in 1.. {
        if !worker.is_mine(point) {
            continue;
        }
        let (mut number, mut at, mut swapped) = (0, None, Ok(()));
        let mut opened = verb == "exec";
        let end = follow(worker, verb, |entry| {
            if let Some((_, path)) = takes_path(entry) {
                number += 1;
                if number == point {
                    at = Some(entry.number);
                    swapped = exchange(target, swap, opened);
                }
                opened |= !opened
                    && entry.number == libc::SYS_open_tree
                    && path_of(entry, path).is_some_and(|path| path.ends_with("rootfs"));
            }
            Deed::Go
        })?;
        match end {
            End::Hung => worker.tracer.kill_all(),
            _ => worker.tracer.release(),
        }
        swapped?;
        let mut faults = Vec::new();
        if matches!(end, End::Hung) {
            faults.push("hung".to_owned());
        }
        if at.is_some() {
            restore(target, swap)?;
        }
        let now = listing();
        faults
            .extend(now.iter().filter(|line| !canary.contains(line)).map(|line| format!("outside: {line}")));
        faults.extend(canary.iter().filter(|line| !now.contains(line)).map(|line| format!("lost: {line}")));
        faults.extend(worker.conclude(tally, false)?);
        let Some(call) = at else { return Ok(()) };
        tally.add("ended with 0", u64::from(matches!(end, End::Exited(0))));
        worker.judge(
            tally,
            &format!("{target} became {swap} at path {point}, {}", names::name(call)),
            &faults,
        );
    }
    Ok(())
}

fn place_of(target: &str) -> (String, String) {
    (format!("{DIR}/bundle/rootfs/{target}"), format!("{DIR}/bundle/rootfs/.{target}"))
}

/// What is mounted before the root is `opened` is part of the root, and mount points may be made in it: then it is an
/// empty file system, and later the outside itself.
fn exchange(target: &str, swap: &str, opened: bool) -> io::Result<()> {
    let (path, aside) = place_of(target);
    if swap == "a mount" {
        let none = None::<&str>;
        if !opened {
            return Ok(mount(Some("prove"), &*path, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?);
        }
        return Ok(mount(Some(&*format!("{DIR}/outside")), &*path, none, MsFlags::MS_BIND, none)?);
    }
    fs::rename(&path, aside)?;
    match swap {
        "a link outside" => symlink(format!("{DIR}/outside"), path),
        "a link upwards" => symlink("../../outside", path),
        _ => Ok(nix::unistd::mkfifo(&*path, Mode::from_bits_truncate(0o666))?),
    }
}

fn restore(target: &str, swap: &str) -> io::Result<()> {
    let (path, aside) = place_of(target);
    if swap == "a mount" {
        return Ok(umount2(&*path, MntFlags::MNT_DETACH)?);
    }
    // The runtime may have made a directory of the name that was free for a moment.
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
        fs::remove_dir_all(&path)?;
    } else {
        let _ = fs::remove_file(&path);
    }
    // A link is followed within the root: there the runtime makes what the config asks for.
    for dir in ["run", "outside"] {
        let _ = fs::remove_dir_all(format!("{DIR}/bundle/rootfs/{dir}"));
    }
    fs::rename(aside, path)
}

/// What an escape would find: every name that a runtime looks for, and a file in each.
pub fn fill_outside() -> io::Result<()> {
    for dir in [
        "",
        "dev",
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "proc",
        "proc/sys",
        "sys",
        "sys/fs",
        "in",
        "made",
        "bin",
    ] {
        let dir = format!("{DIR}/outside/{dir}");
        fs::create_dir_all(&dir)?;
        fs::write(format!("{dir}/canary"), "canary")?;
        fs::set_permissions(format!("{dir}/canary"), fs::Permissions::from_mode(0o640))?;
    }
    for file in
        ["null", "zero", "console", "dev/null", "dev/console", "dev/tty", "passwd", "proc/kcore", "keys"]
    {
        fs::write(format!("{DIR}/outside/{file}"), "canary")?;
    }
    Ok(())
}

/// Everything outside with its type, mode, owner and contents.
fn listing() -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(format!("{DIR}/outside"))];
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let held = if meta.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        found.push(format!(
            "{} {:o} {}:{} {} {held}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink()
        ));
    }
    found.sort();
    found
}
