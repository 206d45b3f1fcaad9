//! The program of the image that jug carries: it says hello and what it sees, and is a few small tools and a shell, so
//! that a first container can be looked around in. build.rs compiles it by itself, static; it links nothing of jug.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The names it goes by, each a link to it.
const TOOLS: &str = "cat echo env false hello hostname id ls mount ps pwd sh sleep true uname";

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    let called = args.first().map_or("hello", |name| name.rsplit('/').next().unwrap_or(name)).to_owned();
    // `hello ls /` is `ls /`.
    if called == "hello" && args.len() > 1 {
        args.remove(0);
    } else if let Some(first) = args.first_mut() {
        *first = called;
    }
    std::process::exit(perform(&args));
}

fn perform(args: &[String]) -> i32 {
    let name = args.first().map_or("hello", String::as_str);
    let rest = args.get(1..).unwrap_or_default();
    let done = match name {
        "cat" => rest.iter().try_for_each(|file| copy(file)),
        "echo" => say(&rest.join(" ")),
        "env" => std::env::vars_os()
            .try_for_each(|(key, value)| say(&format!("{}={}", key.display(), value.display()))),
        "false" => return 1,
        "hello" => hello(),
        "hostname" => copy("/proc/sys/kernel/hostname"),
        "id" => id(),
        "ls" => ls(rest),
        "mount" => copy("/proc/self/mounts"),
        "ps" => ps(),
        "pwd" => std::env::current_dir().and_then(|dir| say(&dir.display().to_string())),
        "sh" => return shell(rest),
        "sleep" => {
            let seconds = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1.0);
            std::thread::sleep(std::time::Duration::from_secs_f64(f64::clamp(seconds, 0.0, 1e9)));
            Ok(())
        }
        "true" => Ok(()),
        "uname" => uname(),
        _ => Err(io::Error::other(format!("there is only {TOOLS}"))),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            1
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn named(path: impl AsRef<Path>, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.as_ref().display()))
}

fn copy(file: &str) -> io::Result<()> {
    let mut file = fs::File::open(file).map_err(|e| named(file, &e))?;
    io::copy(&mut file, &mut io::stdout()).map(drop)
}

fn read(file: &str) -> String {
    fs::read_to_string(file).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn status(key: &str) -> String {
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or("?").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn hello() -> io::Result<()> {
    let first = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    let limit = match read("/sys/fs/cgroup/memory.max").as_str() {
        "?" => "not visible".to_owned(),
        "max" => "none".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    say("Hello from a container of jug.\n")?;
    say(&format!("  host name     {}", read("/proc/sys/kernel/hostname")))?;
    say(&format!("  kernel        Linux {}", read("/proc/sys/kernel/osrelease")))?;
    say(&format!("  process       {}", std::process::id()))?;
    say(&format!("  user, group   {}, {}", first(status("Uid")), first(status("Gid"))))?;
    say(&format!("  capabilities  {}", status("CapEff")))?;
    say(&format!("  seccomp       {}", if status("Seccomp") == "2" { "a filter" } else { "none" }))?;
    say(&format!("  memory limit  {limit}"))?;
    say("\nThis image is part of jug: nothing was downloaded. To look around in a container:\n")?;
    say("  jug run -it --rm jug/hello sh")
}

fn id() -> io::Result<()> {
    say(&format!("uid={} gid={} groups={}", status("Uid"), status("Gid"), status("Groups")))
}

fn uname() -> io::Result<()> {
    let of = |name: &str| read(&format!("/proc/sys/kernel/{name}"));
    say(&format!("Linux {} {} {} {}", of("hostname"), of("osrelease"), of("version"), std::env::consts::ARCH))
}

fn ls(args: &[String]) -> io::Result<()> {
    let here = [".".to_owned()];
    let paths: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let paths = if paths.is_empty() { here.iter().collect() } else { paths };
    for path in paths {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                say(path)?;
                continue;
            }
            entries => entries.map_err(|e| named(path, &e))?,
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().try_for_each(|name| say(name))?;
    }
    Ok(())
}

fn ps() -> io::Result<()> {
    say("PID   COMMAND")?;
    let mut pids: Vec<u32> =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        say(&format!("{pid:<5} {}", words.join(" ").trim()))?;
    }
    Ok(())
}

/// Lines of words; a word may be in quotes. `cd` and `exit` are its own, all else is a program.
fn shell(args: &[String]) -> i32 {
    if let [flag, line, ..] = args
        && flag == "-c"
    {
        let mut last = 0;
        for command in line.split(';') {
            let words = words(command);
            match words.first().map(String::as_str) {
                Some("exit") => return exit_code(&words, last),
                _ => last = run(&words),
            }
        }
        return last;
    }
    let mut last = 0;
    let interactive = io::IsTerminal::is_terminal(&io::stdin());
    loop {
        if interactive {
            let here = std::env::current_dir().unwrap_or_default();
            let _ = write!(io::stdout(), "{} # ", here.display());
            let _ = io::stdout().flush();
        }
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
            return last;
        }
        let words = words(&line);
        match words.first().map(String::as_str) {
            None => {}
            Some("exit") => return exit_code(&words, last),
            Some("help") => last = i32::from(say(&format!("cd exit help {TOOLS}")).is_err()),
            Some(_) => last = run(&words),
        }
    }
}

fn exit_code(words: &[String], last: i32) -> i32 {
    words.get(1).and_then(|code| code.parse().ok()).unwrap_or(last)
}

fn run(words: &[String]) -> i32 {
    let Some((name, args)) = words.split_first() else { return 0 };
    if name == "cd" {
        let to = args.first().map_or("/", String::as_str);
        return match std::env::set_current_dir(to) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "cd: {to}: {error}");
                1
            }
        };
    }
    let mut command = Command::new(name);
    command.args(args).arg0(name);
    match command.status() {
        Ok(status) => status.code().unwrap_or(128),
        Err(error) => {
            let _ = writeln!(io::stderr(), "sh: {name}: {error}");
            if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (None, '#') if word.is_none() => break,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
