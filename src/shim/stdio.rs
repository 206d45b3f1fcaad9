//! The streams of a process: FIFOs, files and logging programs that containerd names, or nothing.
//!
//! Without a terminal nothing is copied: the process gets the FIFO itself. The shim holds another end of it, so that a
//! reader that comes late or goes and comes back loses nothing and the process gets no SIGPIPE: of what it writes until
//! it ends, of its input until CloseIO. Opening never waits for the other side, and a FIFO that nobody reads stops
//! only the process that fills it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::message::Streams;
use super::options::Options;
use crate::error::{Error, Result};
use crate::sys;

/// What a process is started with.
pub struct Opened {
    /// Its standard input, output and error.
    pub files: [OwnedFd; 3],
    pub held: Held,
    /// Of a logging program: readable, or at its end, when the program is ready.
    pub ready: Option<OwnedFd>,
}

/// What the shim holds meanwhile.
#[derive(Default)]
pub struct Held {
    outputs: Vec<OwnedFd>,
    input: Option<OwnedFd>,
    /// The logging program: a child of this process.
    pub logger: Option<i32>,
}

impl Held {
    /// The process has ended: its readers may see an end.
    pub fn release_outputs(&mut self) {
        self.outputs = Vec::new();
    }

    /// CloseIO: once every client has closed its end too, the process reads an end of file.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Of a terminal, whose streams are copied.
    pub fn of_terminal(input: Option<OwnedFd>, logger: Option<i32>) -> Self {
        Self { outputs: Vec::new(), input, logger }
    }
}

/// Opens all three. `id` names the container to a logging program.
pub fn open(streams: &Streams, options: &Options, namespace: &str, id: &str) -> Result<Opened> {
    let mut held = Held::default();
    let stdin = match streams.stdin.as_str() {
        "" => null()?,
        path => {
            let (stdin, hold) = input(path)?;
            held.input = hold;
            stdin
        }
    };
    if let Some(uri) = streams.stdout.strip_prefix("binary://") {
        let logger = start_logger(uri, namespace, id)?;
        held.logger = Some(logger.pid);
        return Ok(Opened { files: [stdin, logger.stdout, logger.stderr], held, ready: Some(logger.ready) });
    }
    let stdout = output(&streams.stdout, options, &mut held)?;
    // A file takes both; of what has no name of its own nothing is kept.
    let both = if streams.stdout.starts_with("file://") { &streams.stdout } else { &streams.stderr };
    let stderr = output(both, options, &mut held)?;
    Ok(Opened { files: [stdin, stdout, stderr], held, ready: None })
}

/// An end to read from that never waits for a writer, and the end that keeps it open.
pub fn input(path: &str) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let path = Path::new(path.strip_prefix("fifo://").unwrap_or(path));
    let stdin = sys::path::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let hold = match is_fifo(&stdin)? {
        true => Some(sys::path::open(path, libc::O_WRONLY | libc::O_NONBLOCK)?),
        false => None,
    };
    sys::fd::set_blocking(stdin.as_fd(), true)?;
    Ok((stdin, hold))
}

/// An end to write to, whether anybody reads or not.
pub fn output(name: &str, options: &Options, held: &mut Held) -> Result<OwnedFd> {
    if name.is_empty() {
        return null();
    }
    if let Some(path) = name.strip_prefix("file://") {
        return log_file(Path::new(path));
    }
    if let Some((scheme, _)) = name.split_once("://").filter(|(scheme, _)| *scheme != "fifo") {
        return Err(Error::new(format!("unknown STDIO scheme {scheme}")));
    }
    let path = Path::new(name.strip_prefix("fifo://").unwrap_or(name));
    let probe = sys::path::open(path, libc::O_PATH)?;
    if !is_fifo(&probe)? {
        return sys::path::open(path, libc::O_WRONLY | libc::O_APPEND);
    }
    // Both ways, which never waits (fifo(7)); then there is a reader, and the other open does not wait either.
    let hold = sys::path::open(path, libc::O_RDWR | libc::O_NONBLOCK)?;
    let end = sys::path::open(path, libc::O_WRONLY | libc::O_NONBLOCK)?;
    sys::fd::set_blocking(end.as_fd(), true)?;
    if options.io_uid != 0 || options.io_gid != 0 {
        sys::path::fchown(end.as_fd(), options.io_uid, options.io_gid)?;
    }
    held.outputs.push(hold);
    Ok(end)
}

/// Where a terminal's output is copied to, and the logging program if it is one.
pub fn terminal_output(
    name: &str,
    options: &Options,
    namespace: &str,
    id: &str,
) -> Result<(OwnedFd, Option<i32>)> {
    if let Some(uri) = name.strip_prefix("binary://") {
        let logger = start_logger(uri, namespace, id)?;
        return Ok((logger.stdout, Some(logger.pid)));
    }
    let mut held = Held::default();
    let end = output(name, options, &mut held)?;
    // Of a FIFO the end that can be read too: a client that goes away must not end the copying.
    Ok((held.outputs.pop().unwrap_or(end), None))
}

fn log_file(path: &Path) -> Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| Error::call(format_args!("mkdir({parent:?})"), e.raw_os_error().unwrap_or(0)))?;
    }
    sys::path::openat(sys::cwd(), path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o644)
}

pub fn null() -> Result<OwnedFd> {
    sys::path::open(Path::new("/dev/null"), libc::O_RDWR)
}

fn is_fifo(file: &OwnedFd) -> Result<bool> {
    let st = sys::path::stat(file.as_fd(), Path::new(""))?;
    Ok(st.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

struct Logger {
    pid: i32,
    stdout: OwnedFd,
    stderr: OwnedFd,
    ready: OwnedFd,
}

/// `binary:///path?key=value&...`: a program that reads the streams from its descriptors 3 and 4, and closes 5 when it
/// is ready (containerd's runtime/v2/README.md, "Logging"). Keys and values are its arguments.
fn start_logger(uri: &str, namespace: &str, id: &str) -> Result<Logger> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut args = vec![plain(path)];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.push(plain(key));
        args.extend(Some(plain(value)).filter(|value| !value.is_empty()));
    }
    let ((from_stdout, stdout), (from_stderr, stderr)) = (sys::fd::pipe()?, sys::fd::pipe()?);
    let (ready, when_ready) = sys::fd::pipe()?;
    let names = [("CONTAINER_ID", id), ("CONTAINER_NAMESPACE", namespace)];
    let files = [(from_stdout.as_fd(), 3), (from_stderr.as_fd(), 4), (when_ready.as_fd(), 5)];
    let pid = sys::spawn::spawn(&PathBuf::from(plain(path)), &args, &names, &files)
        .map_err(|e| e.context("starting the logging program"))?;
    Ok(Logger { pid, stdout, stderr, ready })
}

/// Percent-encoding undone (RFC 3986).
fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, code.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn uris_are_decoded() {
        assert_eq!(plain("/a%20b%2"), "/a b%2");
        assert_eq!(plain("x+y%C3%A4"), "x yä");
    }
}
