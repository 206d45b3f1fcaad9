//! Unpacking happens in a process of its own, which can reach nothing but what it is handed: the blob, the pipe of a
//! blob that is still being written, the staging directory, and the socket to its parent on which all of them come.
//!
//! It is this program, started anew as [`NAME`], so that nothing of the parent's memory or threads is in it; a
//! program's `main` asks [`is_wanted`] before anything else. The parent takes what the worker says as it would take
//! the image's own words.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use oci_spec::image::Digest;

use super::apply::Applier;
use super::decompress::Pieces;
use super::tar::Reader;
use super::{Applied, Blob, EROFS_NAME, Form, Ids, Wanted, confine, dirs, tree};
use crate::error::{Error, Result};
use crate::host;
use crate::image::erofs;
use crate::sys::{fd, path, socket};

/// The word by which a program knows that it is the worker: its own name.
pub const NAME: &str = "jug-unpack";

/// The longest message, and the most that the parent keeps of the names that it is told.
const MESSAGE: usize = 32 << 10;
const NAMES: usize = 16 << 20;

/// Unpacks a layer into the empty directory `staging`. On an error the directory holds a part of the layer.
///
/// Nothing is durable when this returns: that is the store's to do, once for the whole directory.
pub fn unpack(blob: Blob, staging: BorrowedFd<'_>, wanted: &Wanted<'_>) -> Result<Applied> {
    let (ours, theirs) = socket::pair()?;
    let worker = start(theirs)?;
    let order = Order {
        form: wanted.form,
        ids: wanted.ids,
        rootless: host::is_rootless(),
        growing: blob.growing.is_some(),
        diff_id: wanted.diff_id.clone(),
    };
    let asked = hand_over(&ours, &order, &blob, staging);
    drop(blob);
    let said = hear(ours.as_fd());
    drop(ours);
    let ended = ended(worker)?;
    match (asked, said?) {
        (_, Some(said)) => said,
        (Err(e), None) if ended.success() => Err(e),
        (_, None) => Err(died(ended)),
    }
}

fn start(socket: OwnedFd) -> Result<Child> {
    Command::new("/proc/self/exe")
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Error::call("starting the unpack worker", e.raw_os_error().unwrap_or(0)))
}

fn ended(mut worker: Child) -> Result<ExitStatus> {
    worker.wait().map_err(|e| Error::call("waiting for the unpack worker", e.raw_os_error().unwrap_or(0)))
}

fn died(ended: ExitStatus) -> Error {
    let error = Error::new(format!("the unpack worker ended without a word: {ended}"));
    match ended.signal() {
        Some(libc::SIGSYS) => error.why("it made a system call that its filter does not allow"),
        Some(libc::SIGKILL) => error.why("it was killed, maybe because memory is short"),
        _ => error,
    }
}

/// What the parent wants, without the descriptors.
struct Order {
    form: Form,
    ids: Ids,
    rootless: bool,
    growing: bool,
    diff_id: Digest,
}

impl Order {
    fn encode(&self) -> Vec<u8> {
        let flags =
            [self.form == Form::Erofs, self.ids == Ids::Single, self.rootless, self.growing].map(u8::from);
        [&flags[..], self.diff_id.to_string().as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([erofs, single, rootless, growing], diff_id) = bytes.split_first_chunk()?;
        Some(Self {
            form: if *erofs != 0 { Form::Erofs } else { Form::Directory },
            ids: if *single != 0 { Ids::Single } else { Ids::Kept },
            rootless: *rootless != 0,
            growing: *growing != 0,
            diff_id: std::str::from_utf8(diff_id).ok()?.parse().ok()?,
        })
    }
}

fn hand_over(socket: &OwnedFd, order: &Order, blob: &Blob, staging: BorrowedFd<'_>) -> Result<()> {
    socket::send(socket.as_fd(), &order.encode(), Some(staging))?;
    socket::send(socket.as_fd(), b"blob", Some(blob.file.as_fd()))?;
    match &blob.growing {
        Some(pipe) => socket::send(socket.as_fd(), b"growing", Some(pipe.as_fd())),
        None => Ok(()),
    }
}

/// What the worker says until it goes; `None`: it went without an answer.
fn hear(socket: BorrowedFd<'_>) -> Result<Option<Result<Applied>>> {
    let (mut implied, mut borrowed, mut warnings, mut names) = (Vec::new(), Vec::new(), Vec::new(), 0);
    loop {
        let (message, _) = socket::receive(socket, MESSAGE)?;
        let Some((kind, rest)) = message.split_first() else { return Ok(None) };
        names += rest.len();
        if names > NAMES {
            return Err(Error::new("the unpack worker says too much"));
        }
        match kind {
            b'I' => implied.push(PathBuf::from(OsString::from_vec(rest.to_vec()))),
            b'L' => borrowed.extend(decode_link(rest)),
            b'W' => warnings.push(String::from_utf8_lossy(rest).into_owned()),
            b'E' => return Ok(Some(Err(Error::decode(rest)))),
            _ => {
                let applied = decode_done(rest).map(|(entries, bytes, highest_id, tree)| Applied {
                    entries,
                    bytes,
                    highest_id,
                    tree,
                    implied,
                    borrowed,
                    warnings,
                });
                return Ok(Some(applied.ok_or_else(|| Error::new("the unpack worker's answer is damaged"))));
            }
        }
    }
}

/// A name and the path that it is a link to; neither has a NUL byte.
fn decode_link(bytes: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    Some((path(&bytes[..at]), path(&bytes[at + 1..])))
}

fn encode_done(applier: &Applier, bytes: u64, tree: &Digest) -> Vec<u8> {
    let numbers = [applier.entries.to_le_bytes(), bytes.to_le_bytes()].concat();
    [b"D", &numbers[..], &applier.highest_id.to_le_bytes(), tree.to_string().as_bytes()].concat()
}

fn decode_done(bytes: &[u8]) -> Option<(u64, u64, u32, Digest)> {
    let (entries, rest) = bytes.split_first_chunk()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    let (highest_id, tree) = rest.split_first_chunk()?;
    let tree = std::str::from_utf8(tree).ok()?.parse().ok()?;
    Some((u64::from_le_bytes(*entries), u64::from_le_bytes(*bytes), u32::from_le_bytes(*highest_id), tree))
}

/// Whether this process was started to be the worker.
pub fn is_wanted() -> bool {
    std::env::args_os().next().is_some_and(|name| name.as_bytes() == NAME.as_bytes())
}

/// The worker's whole life; returns its exit code.
pub fn main() -> u8 {
    // Started by hand, or by something that has this name by chance.
    let Some(socket) = fd::inherited(0) else { return 1 };
    let last = match work(socket) {
        Ok(done) => done,
        Err(error) => [b"E", &error.encode()[..]].concat(),
    };
    u8::from(socket::send(socket, &last, None).is_err())
}

fn work(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let handed = |what: &str| -> Result<(Vec<u8>, OwnedFd)> {
        let (bytes, fd) = socket::receive(socket, MESSAGE)?;
        let fd = fd.ok_or_else(|| Error::new(format!("the unpack worker was not handed {what}")))?;
        Ok((bytes, fd))
    };
    let (order, staging) = handed("a staging directory")?;
    let order = Order::decode(&order).ok_or_else(|| Error::new("the unpack worker's order is damaged"))?;
    let (_, file) = handed("a blob")?;
    let growing = if order.growing { Some(handed("the blob's pipe")?.1) } else { None };
    confine::files_and_privileges(staging.as_fd())?;
    let (go, gone) = std::sync::mpsc::sync_channel(1);
    let mut pieces = Pieces::start(Blob { file: file.into(), growing }, &order.diff_id, gone)?;
    confine::system_calls()?;
    let _ = go.send(());
    let staging = path::openat(staging.as_fd(), ".".as_ref(), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let target = match order.form {
        Form::Directory => reopened(&staging)?,
        Form::Erofs => scratch(&staging)?,
    };
    let mut applier = Applier::new(reopened(&target)?, order.ids, order.rootless);
    let mut reader = Reader::new(&mut pieces);
    applier.apply(&mut reader)?;
    reader.drain()?;
    let bytes = check(&pieces, &order.diff_id)?;
    let tree = tree::digest(target.as_fd(), &applier.contents)?;
    let implied = applier.implied();
    let borrowed = applier.borrowed()?;
    // What lower layers add is not known here: then the tree stays until it is (`adopt`).
    if order.form == Form::Erofs && implied.is_empty() && borrowed.is_empty() {
        make_image(&staging, &target)?;
        dirs::remove_tree(staging.as_fd(), TREE.as_ref(), 0)?;
    }
    for path in implied {
        socket::send(socket, &[b"I", path.as_os_str().as_bytes()].concat(), None)?;
    }
    for (link, target) in borrowed {
        let words = [b"L", link.as_os_str().as_bytes(), b"\0", target.as_os_str().as_bytes()].concat();
        socket::send(socket, &words, None)?;
    }
    for words in applier.warnings() {
        socket::send(socket, &[b"W", words.as_bytes()].concat(), None)?;
    }
    Ok(encode_done(&applier, bytes, &tree))
}

/// Where the tree stands until it is an image.
pub const TREE: &str = "tree";

fn scratch(staging: &OwnedFd) -> Result<OwnedFd> {
    path::mkdirat(staging.as_fd(), TREE.as_ref(), 0o755)?;
    path::openat(staging.as_fd(), TREE.as_ref(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
}

/// Makes the image [`EROFS_NAME`] in `staging` of a tree that was unpacked and settled. The tree stays.
pub fn make_image(staging: &OwnedFd, tree: &OwnedFd) -> Result<()> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let image = File::from(path::openat(staging.as_fd(), EROFS_NAME.as_ref(), flags, 0o600)?);
    erofs::write(tree.as_fd(), &image).map_err(|e| e.context(EROFS_NAME))
}

fn reopened(dir: &OwnedFd) -> Result<OwnedFd> {
    dir.try_clone().map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e.raw_os_error().unwrap_or(0)))
}

/// What was unpacked is what the image's config names. Returns the bytes of the tar.
fn check(pieces: &Pieces, diff_id: &Digest) -> Result<u64> {
    let (digest, bytes) = pieces.end().ok_or_else(|| Error::new("the layer was not read to its end"))?;
    if digest != diff_id.digest() {
        return Err(Error::new(format!(
            "the layer unpacks to {}:{digest}, not to {diff_id}",
            diff_id.algorithm()
        ))
        .why("the layer is not the one that the image's config names"));
    }
    Ok(bytes)
}
