//! jug-payload: the one program that `jug bench` runs in every contender: the process of a container, and the init of
//! a virtual machine or of user-mode Linux. Static, so that it brings its own C library everywhere.
//!
//!     jug-payload idle|light|touch|free [FIFO]    says `jug-bench ready` (into FIFO, if named), and lives on
//!     jug-payload work DIR [FIFO]                 measures the machine that it sees, and says one JSON line
//!     jug-payload files DIR [FIFO]                of that, the files only
//!     jug-payload veth ADDRESS [FIFO]             measures the way to an `echo` elsewhere: one JSON line
//!     jug-payload echo ADDRESS                    says that it is ready, and answers there
//!     jug-payload probe [FIFO]                    what it sees of the kernel and can reach of it: one JSON line
//!     jug-payload same PID,PID...                 which of these processes have the memory of one before them
//!     jug-payload narrow PROGRAM [WORD]...        executes a program that shall see no wide registers (kernel.rs)
//!     jug-payload machine WORD                    the same as the first process of a machine (machine.rs)
//!     jug-payload switch WORD                     that, with the root on a disk
//!
//! Where /payload.command is (an image as payload), `idle` says that it is ready and becomes that command.
//! It must not need anything but the kernel below it.
#![no_main]

mod entries;
#[path = "../../sys/bare/payload.rs"]
mod kernel;
mod machine;
mod probe;
mod work;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// How much `touch` holds, and `free` had, in MiB: what a small service in a language with a runtime has resident.
const TOUCHED: usize = 16;

/// Answers the exit code.
fn run() -> i32 {
    let mut words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "switch") {
        return machine::switch(words.get(2).map_or("", String::as_str));
    }
    let machine = words.get(1).is_some_and(|word| word == "machine");
    if machine {
        machine::begin();
        words.remove(1);
        // user-mode Linux puts words of its own behind ours.
        words.truncate(2);
    }
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    // A machine writes to its disk, or into its initramfs.
    let scratch = if machine { "/scratch" } else { word(2) };
    match word(1) {
        "idle" => idle(word(2)),
        "light" => light(word(2)),
        "touch" => touch(word(2)),
        "free" => free(word(2)),
        "work" => say(&work::all(scratch), word(3)),
        "files" => say(&work::disk(scratch), word(3)),
        "veth" => say(&work::far(word(2)), word(3)),
        "echo" => echo(word(2)),
        "same" => same(&words[2..]),
        "probe" => say(&probe::all(), word(2)),
        "narrow" if words.len() > 2 => narrow(&words[2..]),
        _ => {
            eprintln!(
                "usage: jug-payload idle|light|touch|free [FIFO] | work DIR | files DIR | veth ADDRESS | \
                 echo ADDRESS | probe | same PID,PID... | narrow PROGRAM | machine WORD | switch WORD"
            );
            return 2;
        }
    };
    if machine {
        kernel::end_machine();
    }
    0
}

/// The answer, in a line of its own.
fn say(json: &str, fifo: &str) -> libc::c_int {
    i32::from(write(fifo, &format!("\njug-bench {json}\n")).is_err())
}

/// To the output, or into a FIFO where the contender keeps the output.
fn write(fifo: &str, text: &str) -> std::io::Result<()> {
    if fifo.is_empty() {
        return std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
    }
    std::fs::OpenOptions::new().write(true).open(fifo)?.write_all(text.as_bytes())
}

/// The readiness marker: one line, in one write. A serial line gets a line end before it, after whatever the kernel
/// has left there.
fn ready(fifo: &str) -> std::io::Result<()> {
    write(fifo, "\njug-bench ready\n")
}

/// The command of an image, as `jug bench` writes it: its parts end with a NUL. First the directory, then as many
/// variables as the number says that stands before them, then the program and its arguments.
const COMMAND: &str = "/payload.command";

/// Sleeps for ever, or becomes the image's own program.
fn idle(fifo: &str) -> libc::c_int {
    let Ok(text) = std::fs::read_to_string(COMMAND) else {
        return ready(fifo).map_or(1, |()| kernel::pause());
    };
    let mut parts = text.split_terminator('\0');
    let (Some(directory), Some(count)) = (parts.next(), parts.next()) else { return 1 };
    let variables: Vec<&str> = parts.by_ref().take(count.parse().unwrap_or(0)).collect();
    let Some(program) = parts.next() else { return 1 };
    let mut command = Command::new(program);
    command.args(parts).current_dir(directory);
    command.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
    if ready(fifo).is_err() {
        return 1;
    }
    let why = command.exec();
    let _ = write(fifo, &format!("{program}: {why}\n"));
    127
}

fn narrow(words: &[String]) -> libc::c_int {
    let why = match kernel::hide_wide_registers() {
        Ok(()) => Command::new(&words[0]).args(&words[1..]).exec(),
        Err(why) => why,
    };
    eprintln!("{}: {why}", words[0]);
    127
}

/// One request a second over the loopback device.
fn light(fifo: &str) -> libc::c_int {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return 1 };
    let Ok(address) = listener.local_addr() else { return 1 };
    if ready(fifo).is_err() {
        return 1;
    }
    let mut buffer = [0; 512];
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let Ok(mut client) = TcpStream::connect(address) else { continue };
        let Ok((mut served, _)) = listener.accept() else { continue };
        let _ = client.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| served.read(&mut buffer).map(drop));
        let _ = served
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nhello")
            .and_then(|()| client.read(&mut buffer).map(drop));
    }
}

/// Answers whoever connects, one after the other.
fn echo(address: &str) -> libc::c_int {
    let Ok(listener) = TcpListener::bind(address) else { return 1 };
    if ready("").is_err() {
        return 1;
    }
    loop {
        work::echo(&listener);
    }
}

/// Writes the processes whose memory an earlier one of their list has.
fn same(lists: &[String]) -> libc::c_int {
    let mut text = String::new();
    for list in lists {
        let pids: Vec<i64> = list.split(',').filter_map(|pid| pid.parse().ok()).collect();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for pid in pids {
            let known = own.iter().any(|one| kernel::same_memory(*one, pid));
            if known { &mut others } else { &mut own }.push(pid);
        }
        text.extend(others.iter().map(|pid| format!("{pid}\n")));
    }
    i32::from(write("", &text).is_err())
}

/// Has written to as much memory as `touch`, gives it back, and sleeps.
fn free(fifo: &str) -> libc::c_int {
    let mut memory = vec![0u8; TOUCHED << 20];
    memory.chunks_mut(4096).for_each(|page| page[0] = 1);
    drop(std::hint::black_box(memory));
    ready(fifo).map_or(1, |()| kernel::pause())
}

/// Holds memory and writes to all of it once a second.
fn touch(fifo: &str) -> libc::c_int {
    let mut memory = vec![0u8; TOUCHED << 20];
    let mut round = 0u8;
    loop {
        round = round.wrapping_add(1);
        for page in memory.chunks_mut(4096) {
            page[0] = round;
        }
        if round == 1 && ready(fifo).is_err() {
            return 1;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
