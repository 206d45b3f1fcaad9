//! The program: found before the container counts as created, and explained when it cannot be executed.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::plan::ProcessPlan;
use crate::sys::{fd, path, process};

/// A program ready for execve(2): nothing is allocated any more when privileges are gone.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Longest /etc/passwd that is read for HOME, in bytes.
const PASSWD_LIMIT: usize = 1 << 20;

/// Finds the program by PATH of its environment, inside the container, and adds HOME if it is missing.
pub fn find(plan: &ProcessPlan) -> Result<Program> {
    let mut env = plan.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=") && e.len() > 5) {
        env.retain(|e| !e.starts_with("HOME="));
        env.push(format!("HOME={}", home(plan.uid)?));
    }
    let path = locate(&plan.args[0], &env)?;
    let text =
        |s: &str| CString::new(s).map_err(|_| Error::new(format!("/process/args: {s:?} holds a NUL byte")));
    let file = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new("/process/args/0 holds a NUL byte"))?;
    Ok(Program {
        path,
        file,
        args: plan.args.iter().map(|s| text(s)).collect::<Result<_>>()?,
        env: env.iter().map(|s| text(s)).collect::<Result<_>>()?,
    })
}

/// The texts are what engines look for to tell 126 from 127.
fn locate(name: &str, env: &[String]) -> Result<PathBuf> {
    let quoted = format!("exec: {name:?}");
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(e) if e.errno() == libc::ENOENT || e.errno() == libc::ENOTDIR => {
                Err(Error::call(format_args!("{quoted}: stat {name}"), e.errno())
                    .next("check process.args and the content of the root file system"))
            }
            Err(e) => Err(Error::call(quoted, e.errno())),
        };
    }
    let search = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
    let mut denied = None;
    for dir in search.split(':') {
        // An empty part means the current directory, which is not searched: it is not where the program will run.
        if !dir.starts_with('/') {
            continue;
        }
        let candidate = Path::new(dir).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.errno() == libc::EACCES => denied = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(path) => Error::call(format_args!("exec: {:?}", path.display().to_string()), libc::EACCES),
        None => Error::new(format!("{quoted}: executable file not found in $PATH"))
            .why(format!("PATH is {search:?}, and the root file system has no such program there")),
    })
}

fn check(candidate: &Path) -> Result<()> {
    let st = path::stat(path::open(candidate, libc::O_PATH)?.as_fd(), Path::new(""))?;
    if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Error::call(format_args!("{candidate:?}"), libc::EISDIR));
    }
    // Root may execute only what is executable for somebody (path_resolution(7)).
    if st.st_mode & 0o111 == 0 {
        return Err(Error::call(format_args!("{candidate:?}"), libc::EACCES));
    }
    path::executable(candidate)
}

/// The home directory of a user by /etc/passwd inside; `/` when there is none. The file is the image's: a FIFO, a
/// device or a huge file is as good as none.
fn home(uid: u32) -> Result<String> {
    let read = || -> Result<String> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = path::open(Path::new("/etc/passwd"), flags)?;
        if path::stat(file.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Error::new("/etc/passwd is no regular file"));
        }
        Ok(String::from_utf8_lossy(&fd::read_to_end(file.as_fd(), PASSWD_LIMIT)?).into_owned())
    };
    // What the image makes of the file is its own affair; what the machine cannot do now is an error.
    const NONE: [i32; 10] = [
        0,
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EACCES,
        libc::ELOOP,
        libc::ENXIO,
        libc::ENODEV,
        libc::EIO,
        libc::EINVAL,
        libc::ENAMETOOLONG,
    ];
    let passwd = match read() {
        Err(e) if !NONE.contains(&e.errno()) => return Err(e.context("HOME by /etc/passwd")),
        read => read.unwrap_or_default(),
    };
    Ok(passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.len() >= 7 && fields[2].parse() == Ok(uid) && !fields[5].is_empty())
                .then(|| fields[5].to_owned())
        })
        .next()
        .unwrap_or_else(|| "/".to_owned()))
}

impl Program {
    /// What it is given, with the HOME that was found for it.
    pub fn environment(&self) -> Vec<String> {
        self.env.iter().map(|entry| entry.to_string_lossy().into_owned()).collect()
    }

    /// execve(2): returns only the reason why not.
    pub fn exec(&self) -> Error {
        process::execve(&self.file, &self.args, &self.env)
    }

    /// Puts the cause beside an errno that says too little: the kernel reports a missing interpreter as a missing file.
    pub fn explain(&self, error: Error) -> Error {
        let plain = Error::call(format_args!("exec {}", self.path.display()), error.errno());
        match (error.errno(), self.head()) {
            (libc::ENOENT, Some(head)) => match interpreter(&head) {
                Some(line) if line.ends_with('\r') => plain
                    .why("its first line ends with a carriage return (CRLF), for the kernel part of the name")
                    .next("save the script with Unix line ends"),
                Some(line) => {
                    let name = line.split(' ').next().unwrap_or("");
                    plain.because(format_args!("its interpreter {name:?} is missing in the container"))
                }
                None => {
                    let name = elf_interpreter(&head).unwrap_or_default();
                    plain
                        .why(format!("its ELF interpreter {name} is missing in the container"))
                        .next("use a root file system with the right libc, or a static program")
                }
            },
            (libc::ENOEXEC, Some(head)) => match machine(&head) {
                Some(other) if other != native_machine() => {
                    let (theirs, ours) = (machine_name(other), machine_name(native_machine()));
                    plain.why(format!("it is built for {theirs}, and this machine is {ours}"))
                }
                _ if !head.starts_with(b"\x7fELF") && !head.starts_with(b"#!") => {
                    plain.why("it is neither an ELF program nor a script with a #! line")
                }
                _ => plain,
            },
            (libc::EACCES, _) => plain.why(
                "this user may not execute the file, its interpreter or a directory above, or it is noexec",
            ),
            (libc::E2BIG, _) => plain.why("arguments and environment are too long together"),
            (0, _) => error,
            _ => plain,
        }
    }

    fn head(&self) -> Option<Vec<u8>> {
        let file = path::open(&self.path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).ok()?;
        let mut head = vec![0; HEAD];
        let n = fd::read_full(file.as_fd(), &mut head).ok()?;
        head.truncate(n);
        Some(head)
    }
}

/// How much of a program is read to explain it: its first line, or its ELF headers.
const HEAD: usize = 4096;

/// The path in the PT_INTERP segment of a 64-bit ELF program (elf(5)).
fn elf_interpreter(head: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?) as usize);
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?) as usize);
    let (table, size, count) = (word(32)?, half(54)?, half(56)?);
    const PT_INTERP: usize = 3;
    for i in 0..count.min(64) {
        let entry = table.checked_add(i.checked_mul(size)?)?;
        if word(entry)? & 0xffff_ffff == PT_INTERP {
            let (offset, len) = (word(entry + 8)?, word(entry + 32)?);
            let name = head.get(offset..offset.checked_add(len)?)?;
            return Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        }
    }
    None
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86 (i386)".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// What stands behind `#!` on the first line.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim_start().to_owned())
}

/// `e_machine` of an ELF file (elf(5)).
fn machine(head: &[u8]) -> Option<u16> {
    (head.starts_with(b"\x7fELF") && head.len() >= 20).then(|| u16::from_le_bytes([head[18], head[19]]))
}

fn native_machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}
