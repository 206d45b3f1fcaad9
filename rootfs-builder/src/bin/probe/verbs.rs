//! The deeds: each does one thing and prints one JSON line about it (`{"ok":…}` or `{"errno":"EPERM"}`), so that a test
//! needs no shell in the container. A refusal is an answer, so these exit 0 unless their own arguments are wrong.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, SigSet, SigmaskHow, Signal};
use serde_json::{Value, json};

use crate::kernel;

const HELP: &str = "\
probe [--read PATH] [--write PATH] [--stat PATH] [--sysctl NAME] [--list DIR]   the report
probe syscall NR [ARG…]     ARG: number, 0xHEX, s:STRING (its address), b:SIZE (a zeroed buffer's address)
probe syscall32 NR [ARG…]   the same through int 0x80, integers only
probe open PATH [FLAG,…]    rdonly wronly rdwr creat excl trunc append nofollow path directory nonblock
probe write PATH TEXT       open for writing and write TEXT
probe mknod PATH c|b MAJOR MINOR
probe tiocsti               push a byte into the terminal on stdin
probe spin [SEC]            burn CPU
probe alloc MB [SEC]        touch MB mebibytes, say so, hold them for SEC
probe fork N                N sleeping children, then says how many it got
probe bomb                  fork for ever, and so every child: only below a limit on processes
probe zombie                leave an unreaped child and sleep
probe sleep SEC
probe exit N
probe signal NAME           send it to itself
probe trap NAME…            print `ready`, then each of these signals as it comes; TERM also ends it with 0
probe notify TEXT           send TEXT to $NOTIFY_SOCKET
probe env NAME              print one variable";

pub fn act(verb: &str, args: &[String]) -> ExitCode {
    match perform(verb, args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("probe {verb}: {why}");
            ExitCode::from(2)
        }
    }
}

fn perform(verb: &str, args: &[String]) -> Result<ExitCode, String> {
    let arg = |at: usize| args.get(at).map(String::as_str).ok_or(format!("argument {} is missing", at + 1));
    match verb {
        "syscall" => answer(syscall(args)?),
        "syscall32" => answer(syscall32(args)?),
        "open" => answer(kernel::open(arg(0)?, flags(args.get(1))?).map(i64::from)),
        "write" => answer(write(arg(0)?, arg(1)?)),
        "mknod" => answer(mknod(arg(0)?, arg(1)?, number(arg(2)?)?, number(arg(3)?)?)?),
        "tiocsti" => answer(kernel::push_byte(0, b'!').map(i64::from)),
        "spin" => spin(args.first().map(|secs| number(secs)).transpose()?),
        "alloc" => alloc(number(arg(0)?)?, args.get(1).map_or(Ok(0), |secs| number(secs))?),
        "fork" => fork(number(arg(0)?)?),
        "bomb" => kernel::bomb(),
        "zombie" => {
            answer(kernel::fork(false).map(i64::from));
            sleep(3600.0);
        }
        "sleep" => sleep(arg(0)?.parse().map_err(|why| format!("{why}"))?),
        "exit" => return Ok(ExitCode::from(u8::try_from(number(arg(0)?)?).map_err(|why| why.to_string())?)),
        "signal" => {
            kernel::die_of(signal_named(arg(0)?)? as i32);
        }
        "trap" => trap(args)?,
        "notify" => notify(arg(0)?)?,
        "env" => match std::env::var_os(arg(0)?) {
            Some(value) => println!("{}", value.to_string_lossy()),
            None => return Ok(ExitCode::FAILURE),
        },
        "help" => println!("{HELP}"),
        _ => return Err(format!("no such verb\n{HELP}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn say(value: &Value) {
    println!("{value}");
    // A test may be reading the other end of a pipe, or have closed it.
    let _ = std::io::stdout().flush();
}

fn answer(result: Result<i64, Errno>) {
    say(&match result {
        Ok(value) => json!({ "ok": value }),
        Err(errno) => json!({ "errno": format!("{errno:?}") }),
    });
}

fn number(text: &str) -> Result<i64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).map(u64::cast_signed),
        None => text.parse(),
    };
    parsed.map_err(|why| format!("{text}: {why}"))
}

/// A syscall argument: an integer, or the address of leaked memory.
fn argument(text: &str) -> Result<i64, String> {
    if let Some(string) = text.strip_prefix("s:") {
        return Ok(Box::leak(format!("{string}\0").into_boxed_str()).as_ptr() as i64);
    }
    if let Some(size) = text.strip_prefix("b:") {
        let size = usize::try_from(number(size)?).map_err(|why| why.to_string())?;
        return Ok(vec![0u8; size].leak().as_mut_ptr() as i64);
    }
    number(text)
}

fn syscall(args: &[String]) -> Result<Result<i64, Errno>, String> {
    let (nr, rest) = args.split_first().ok_or("which number?")?;
    let mut values = [0i64; 6];
    for (value, text) in values.iter_mut().zip(rest) {
        *value = argument(text)?;
    }
    // SAFETY: the test that wrote the command line chose the call; addresses come from argument(), which leaks them.
    Ok(unsafe { kernel::syscall(number(nr)?, values) })
}

#[cfg(target_arch = "x86_64")]
fn syscall32(args: &[String]) -> Result<Result<i64, Errno>, String> {
    let mut values = [0i32; 4];
    for (value, text) in values.iter_mut().zip(args) {
        *value = i32::try_from(number(text)?).map_err(|why| why.to_string())?;
    }
    let [nr, a, b, c] = values;
    let result = kernel::syscall32(nr, [a, b, c]);
    Ok(if (-4095..0).contains(&result) { Err(Errno::from_raw(-result)) } else { Ok(i64::from(result)) })
}

#[cfg(not(target_arch = "x86_64"))]
fn syscall32(_args: &[String]) -> Result<Result<i64, Errno>, String> {
    Err("this machine has no int 0x80".into())
}

fn flags(names: Option<&String>) -> Result<i32, String> {
    let mut bits = 0;
    for name in names.map_or("rdonly", String::as_str).split(',') {
        bits |= match name {
            "rdonly" => libc::O_RDONLY,
            "wronly" => libc::O_WRONLY,
            "rdwr" => libc::O_RDWR,
            "creat" => libc::O_CREAT,
            "excl" => libc::O_EXCL,
            "trunc" => libc::O_TRUNC,
            "append" => libc::O_APPEND,
            "nofollow" => libc::O_NOFOLLOW,
            "path" => libc::O_PATH,
            "directory" => libc::O_DIRECTORY,
            "nonblock" => libc::O_NONBLOCK,
            _ => return Err(format!("no such flag: {name}")),
        };
    }
    Ok(bits)
}

fn write(path: &str, text: &str) -> Result<i64, Errno> {
    let errno = |why: std::io::Error| Errno::from_raw(why.raw_os_error().unwrap_or(0));
    let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(errno)?;
    Ok(i64::try_from(file.write(text.as_bytes()).map_err(errno)?).unwrap_or(i64::MAX))
}

fn mknod(path: &str, kind: &str, major: i64, minor: i64) -> Result<Result<i64, Errno>, String> {
    let mode = match kind {
        "c" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        _ => return Err(format!("{kind}: neither c nor b")),
    };
    let part = |value: i64| u32::try_from(value).map_err(|why| why.to_string());
    Ok(kernel::mknod(path, mode | 0o600, part(major)?, part(minor)?).map(i64::from))
}

fn spin(seconds: Option<i64>) {
    let until = seconds.map(|secs| std::time::Instant::now() + Duration::from_secs(secs.unsigned_abs()));
    println!("ready");
    while until.is_none_or(|until| std::time::Instant::now() < until) {
        std::hint::spin_loop();
    }
}

fn alloc(mebibytes: i64, hold: i64) {
    let size = usize::try_from(mebibytes).unwrap_or(0) << 20;
    let mut memory = vec![0u8; size];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    say(&json!({ "ok": mebibytes }));
    std::thread::sleep(Duration::from_secs(hold.unsigned_abs()));
    drop(memory);
}

fn fork(wanted: i64) {
    let mut children = Vec::new();
    let mut refusal = Value::Null;
    for _ in 0..wanted {
        match kernel::fork(true) {
            Ok(pid) => children.push(pid),
            Err(errno) => {
                refusal = json!(format!("{errno:?}"));
                break;
            }
        }
    }
    say(&json!({ "ok": children.len(), "errno": refusal }));
    for pid in children {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = signal::kill(pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds.max(0.0)));
}

fn signal_named(name: &str) -> Result<Signal, String> {
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    full.parse().map_err(|_| format!("{name}: no such signal"))
}

/// Blocked signals are kept even for an init whose disposition is the default, so nothing is lost before `ready`.
fn trap(names: &[String]) -> Result<(), String> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    for name in names {
        set.add(signal_named(name)?);
    }
    signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(|why| why.to_string())?;
    println!("ready");
    loop {
        let caught = set.wait().map_err(|why| why.to_string())?;
        println!("{}", caught.as_str());
        if caught == Signal::SIGTERM {
            return Ok(());
        }
    }
}

fn notify(text: &str) -> Result<(), String> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or("NOTIFY_SOCKET is not set")?;
    let socket = UnixDatagram::unbound().map_err(|why| why.to_string())?;
    socket.send_to(text.as_bytes(), path).map_err(|why| why.to_string())?;
    Ok(())
}
