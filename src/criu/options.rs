//! What callers may ask of criu, and where it writes. Flags become fields of criu_opts here; nothing is decided.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{IMAGES, WORK};
use crate::error::{Error, Result};
use crate::protobuf::Message;
use crate::sys::{cwd, path};

#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Where the images are; `checkpoint` in the caller's directory otherwise.
    pub images: Option<PathBuf>,
    /// Where criu works and logs; with the images otherwise.
    pub work: Option<PathBuf>,
    /// The images of a pre-dump, relative to `images`.
    pub parent: Option<PathBuf>,
    pub leave_running: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub pre_dump: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    /// `None`: what is right on this host.
    pub cgroups_mode: Option<CgroupsMode>,
    pub page_server: Option<(String, i32)>,
    pub status_fd: Option<i32>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// What criu does with the properties of cgroups (criu_cg_mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

impl CgroupsMode {
    pub fn parse(word: &str) -> Result<Option<Self>> {
        match word {
            "" => Ok(None),
            "soft" => Ok(Some(Self::Soft)),
            "full" => Ok(Some(Self::Full)),
            "strict" => Ok(Some(Self::Strict)),
            "ignore" => Ok(Some(Self::Ignore)),
            _ => {
                Err(Error::new("Invalid manage-cgroups-mode value").next("use soft, full, strict or ignore"))
            }
        }
    }
}

/// The directories that criu reads and writes.
#[derive(Debug)]
pub struct Places {
    pub images: OwnedFd,
    images_path: PathBuf,
    work_path: Option<PathBuf>,
    /// Where the log will be.
    log: PathBuf,
}

impl Places {
    /// Opens them, making what is missing when `make`.
    pub fn open(options: &Options, make: bool, log: &str) -> Result<Self> {
        let images = options.images.clone().unwrap_or_else(|| PathBuf::from("checkpoint"));
        if make {
            make_all(&images)?;
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let dir = path::open(&images, flags).map_err(|e| e.context("--image-path"))?;
        if let Some(parent) = &options.parent {
            if parent.is_absolute() {
                return Err(Error::new("--parent-path must be relative"));
            }
            path::openat(dir.as_fd(), parent, flags, 0).map_err(|e| e.context("invalid --parent-path"))?;
        }
        if let Some(work) = &options.work {
            make_one(work).map_err(|e| e.context("--work-path"))?;
        }
        let log = options.work.as_ref().unwrap_or(&images).join(log);
        Ok(Self { images: dir, images_path: images, work_path: options.work.clone(), log })
    }

    /// The directories of images and work, opened by criu's own process: it mounts in them, and that is only possible
    /// in its own mount namespace.
    pub fn reopen(&self) -> Result<[OwnedFd; 2]> {
        let open = |path: &Path| path::open(path, libc::O_RDONLY | libc::O_DIRECTORY);
        let work = open(self.work_path.as_ref().unwrap_or(&self.images_path));
        Ok([open(&self.images_path)?, work.map_err(|e| e.context("--work-path"))?])
    }

    /// What went wrong, in criu's own words where its log has them.
    pub fn explain(&self, error: Error) -> Error {
        // What a hook or a caller did wrong stands in no log of criu's.
        if !error.what().starts_with("criu") {
            return error;
        }
        let error = match super::complaint(&self.log) {
            Some(line) => error.why(line),
            None => error,
        };
        error.next(format!("read {}", self.log.display()))
    }
}

fn make_one(dir: &Path) -> Result<()> {
    match path::mkdirat(cwd(), dir, 0o700) {
        Err(e) if e.errno() != libc::EEXIST => Err(e),
        _ => Ok(()),
    }
}

fn make_all(dir: &Path) -> Result<()> {
    let mut above: Vec<_> = dir.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    above.reverse();
    above.into_iter().try_for_each(make_one)
}

impl Options {
    /// The fields that dump and restore share.
    pub fn fields(&self, log: &str) -> Message {
        let usual = || if hybrid() { CgroupsMode::Ignore } else { CgroupsMode::Soft };
        let mut opts = Message::default();
        opts.number(1, IMAGES.into()).number(17, WORK.into()).number(9, 4).text(10, log);
        opts.flag(12, true).flag(24, true);
        opts.flag(4, self.ext_unix_sk)
            .flag(5, self.tcp_established)
            .flag(7, self.shell_job)
            .flag(8, self.file_locks)
            .flag(16, self.auto_dedup)
            .number(34, self.cgroups_mode.unwrap_or_else(usual) as i64)
            // The network is the engine's: its devices are made by hooks or stand in a namespace of the engine's.
            .number(38, libc::CLONE_NEWNET.into())
            .flag(48, self.lazy_pages)
            .flag(50, true);
        opts
    }
}

/// On a hybrid host a container is in the root of every v1 hierarchy that nothing limits it in. criu would take all
/// that is below it for the container's: the cgroups of everybody else.
fn hybrid() -> bool {
    crate::host::find_cgroup2().1
}

/// A mount that criu shall not look into: the same key leads from where it was to what is mounted there again.
pub fn external_mount(opts: &mut Message, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let mut map = Message::default();
    map.text(1, key).text(2, value);
    opts.message(23, &map);
}

/// A descriptor of criu's that takes the place of something in the images.
pub fn inherit(opts: &mut Message, key: &str, fd: i64) {
    let mut entry = Message::default();
    entry.text(1, key).number(2, fd);
    opts.message(27, &entry);
}
