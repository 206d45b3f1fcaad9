//! Terminals: the listener that `--console-socket` talks to, and a pseudoterminal for `run -t`.

use std::fs::File;
use std::io::{IoSliceMut, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{Bundle, eventually, patience};

/// A listening socket that one descriptor (or more) is sent to.
pub struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    pub fn listen(bundle: &Bundle) -> Self {
        Self::listen_at(Path::new(&bundle.path("console.sock")))
    }

    pub fn listen_at(path: &Path) -> Self {
        let listener =
            UnixListener::bind(path).unwrap_or_else(|why| panic!("bind {}: {why}", path.display()));
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        Self { listener, path: path.to_owned() }
    }

    /// For the command line.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// The bytes (a name) and the descriptors of the one message that comes.
    #[track_caller]
    pub fn receive(&self) -> (String, Vec<OwnedFd>) {
        let (stream, _) = eventually("a connection to the console socket", || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("O_NONBLOCK");
        stream.set_read_timeout(Some(patience())).expect("SO_RCVTIMEO");
        let mut bytes = [0u8; 4096];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([i32; 16]);
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
                .expect("recvmsg(2) on the console socket");
        let mut fds = Vec::new();
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for this message; nobody else knows them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let length = message.bytes;
        (String::from_utf8_lossy(&bytes[..length]).into_owned(), fds)
    }

    /// The one descriptor: a terminal's master.
    #[track_caller]
    pub fn master(&self) -> Master {
        let (_, mut fds) = self.receive();
        assert_eq!(fds.len(), 1, "one message, one descriptor");
        Master::new(fds.remove(0))
    }
}

/// A terminal's master end, and all that was read from it.
pub struct Master {
    file: File,
    seen: String,
}

impl Master {
    pub fn new(fd: OwnedFd) -> Self {
        Self { file: fd.into(), seen: String::new() }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Reads until `words` have come, and gives everything up to now.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> &str {
        let start = std::time::Instant::now();
        while !self.seen.contains(words) {
            assert!(start.elapsed() < patience(), "never came: {words:?} in {:?}", self.seen);
            if !self.read_some() {
                assert!(self.seen.contains(words), "the terminal ended before {words:?}: {:?}", self.seen);
            }
        }
        &self.seen
    }

    /// Reads until the other side is gone.
    #[track_caller]
    pub fn wait_end(&mut self) -> &str {
        let start = std::time::Instant::now();
        while self.read_some() {
            assert!(start.elapsed() < patience(), "the terminal never ended: {:?}", self.seen);
        }
        &self.seen
    }

    /// False when the other side is gone.
    fn read_some(&mut self) -> bool {
        use std::io::Read as _;
        let mut wanted = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wanted, PollTimeout::from(100u8)).is_ok_and(|ready| ready == 0) {
            return true;
        }
        let mut bytes = [0u8; 4096];
        match self.file.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
                true
            }
            // EIO: every slave is closed.
            _ => false,
        }
    }

    /// Sets the window size, which sends SIGWINCH to the terminal's foreground processes.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = winsize(rows, columns);
        // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which outlives the call.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal of our own: hand `slave` to `Call::terminal` (through `setsid --ctty`, so that it controls), then
/// drop it.
pub struct Pty {
    pub master: Master,
    pub slave: OwnedFd,
}

impl Pty {
    pub fn open(rows: u16, columns: u16) -> Self {
        let pair = openpty(&winsize(rows, columns), None).expect("openpty(3)");
        for fd in [&pair.master, &pair.slave] {
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
                .expect("F_SETFD");
        }
        Self { master: Master::new(pair.master), slave: pair.slave }
    }
}
