//! The command lines that engines write, read without building a parser for them: clap's takes a tenth of a start.
//!
//! Only what is plainly right is taken. Everything else, such as a flag that is unknown, has no value or is short for
//! several, is left to clap, which also knows how to say what is wrong. A test holds the two together.

use std::ffi::OsString;
use std::path::PathBuf;

use super::create::Create;
use super::delete::Delete;
use super::exec::Exec;
use super::kill::Kill;
use super::run::Run;
use super::start::Start;
use super::state::State;
use super::{Cli, CreateFlags, GlobalFlags, Verb};

/// The words of a command line behind the program's name.
pub struct Words<'a> {
    rest: std::slice::Iter<'a, OsString>,
    /// What stands behind the `=` of the last flag.
    inline: Option<&'a str>,
}

pub enum Word<'a> {
    /// The name of a flag, without its one or two dashes: to Go they are the same.
    Flag(&'a str),
    Plain(&'a str),
    End,
}

impl<'a> Words<'a> {
    fn new(args: &'a [OsString]) -> Self {
        Self { rest: args.iter(), inline: None }
    }

    /// The next word; `None`: not for this parser.
    pub fn next(&mut self) -> Option<Word<'a>> {
        if self.inline.is_some() {
            return None;
        }
        let Some(word) = self.rest.next() else { return Some(Word::End) };
        let word = word.to_str()?;
        let Some(flag) = word.strip_prefix('-') else { return Some(Word::Plain(word)) };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let name = match flag.split_once('=') {
            Some((name, value)) => {
                self.inline = Some(value);
                name
            }
            None => flag,
        };
        (!name.is_empty()).then_some(Word::Flag(name))
    }

    /// The value of the flag just read.
    pub fn value(&mut self) -> Option<&'a str> {
        let value = match self.inline.take() {
            Some(value) => value,
            None => self.rest.next()?.to_str()?,
        };
        (!value.is_empty() && !value.starts_with('-')).then_some(value)
    }

    pub fn path(&mut self) -> Option<PathBuf> {
        self.value().map(PathBuf::from)
    }

    pub fn text(&mut self) -> Option<String> {
        self.value().map(str::to_owned)
    }

    /// What the switch just read is set to.
    pub fn switch(&mut self) -> Option<bool> {
        match self.inline.take() {
            None | Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => None,
        }
    }

    /// The one word that a verb takes beside its flags, and those by `flag`.
    pub fn id(&mut self, mut flag: impl FnMut(&mut Self, &str) -> Option<()>) -> Option<String> {
        let mut id = None;
        loop {
            match self.next()? {
                Word::Plain(word) if id.is_none() => id = Some(word.to_owned()),
                Word::Plain(_) => return None,
                Word::Flag(name) => flag(self, name)?,
                Word::End => return id,
            }
        }
    }

    /// The words from here on, whatever they are.
    pub fn remaining(&mut self) -> Option<Vec<String>> {
        self.rest.by_ref().map(|word| word.to_str().map(str::to_owned)).collect()
    }
}

/// The whole command line, when it is a plain one.
pub fn parse(args: &[OsString]) -> Option<Cli> {
    let mut words = Words::new(args.get(1..)?);
    let mut global = GlobalFlags {
        root: None,
        log: None,
        log_format: "text".to_owned(),
        debug: false,
        systemd_cgroup: false,
        rootless: "auto".to_owned(),
        criu: None,
        version: false,
    };
    let verb = loop {
        match words.next()? {
            Word::Flag("root") => global.root = Some(words.path()?),
            Word::Flag("log") => global.log = Some(words.path()?),
            Word::Flag("log-format") => global.log_format = words.text()?,
            Word::Flag("debug") => global.debug = words.switch()?,
            Word::Flag("systemd-cgroup") => global.systemd_cgroup = words.switch()?,
            Word::Plain(verb) => break verb,
            Word::Flag(_) | Word::End => return None,
        }
    };
    let words = &mut words;
    let verb = match verb {
        "create" => Verb::Create(Create::quick(words)?),
        "delete" => Verb::Delete(Delete::quick(words)?),
        "exec" => Verb::Exec(Exec::quick(words)?),
        "kill" => Verb::Kill(Kill::quick(words)?),
        "run" => Verb::Run(Run::quick(words)?),
        "start" => Verb::Start(Start::quick(words)?),
        "state" => Verb::State(State::quick(words)?),
        _ => return None,
    };
    Some(Cli { global, verb })
}

impl CreateFlags {
    pub fn none() -> Self {
        Self {
            id: String::new(),
            bundle: PathBuf::from("."),
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            print_plan: false,
        }
    }

    pub fn quick(&mut self, words: &mut Words<'_>, name: &str) -> Option<()> {
        match name {
            "b" | "bundle" => self.bundle = words.path()?,
            "console-socket" => self.console_socket = Some(words.path()?),
            "pidfd-socket" => self.pidfd_socket = Some(words.path()?),
            "pid-file" => self.pid_file = Some(words.path()?),
            "no-pivot" => self.no_pivot = words.switch()?,
            "no-new-keyring" => self.no_new_keyring = words.switch()?,
            "preserve-fds" => self.preserve_fds = words.value()?.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_both_ways;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_is_read_quickly_is_what_clap_reads() {
        for line in [
            "r run x",
            "r run -d x",
            "r run --bundle /b x",
            "r run -b=/b --keep --no-subreaper --detach=false x",
            "r --root /r --log /l --log-format json --debug --systemd-cgroup run --no-pivot --no-new-keyring x",
            "r --root /r create --bundle /b --pid-file /p --console-socket /s --pidfd-socket /f --preserve-fds 3 x",
            "r -root /r create -bundle /b x",
            "r --debug=true create x",
            "r --root create state x",
            "r exec x true",
            "r exec -t -e A=1 --env B=2 --cwd /d -u 1:2 -g 3 --additional-gids 4 -d --cap CAP_KILL x sh -c -t ls",
            "r exec --process /p --detach --pid-file /f --console-socket /s x",
            "r exec --process-label l --apparmor a --no-new-privs -c CAP_KILL --preserve-fds 1 --ignore-paused x a",
            "r exec --cgroup sub x a -d",
            "r start x",
            "r state x",
            "r delete x",
            "r delete --force x",
            "r delete -f x",
            "r delete x --force",
            "r kill x",
            "r kill x KILL",
            "r kill --all x 9",
            "r kill -a x TERM",
        ] {
            let (quickly, by_clap) = read_both_ways(words(line));
            assert_eq!(Some(quickly.expect(line)), by_clap, "{line}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_clap() {
        for line in [
            "r",
            "r --root",
            "r --root /r",
            "r --version",
            "r run",
            "r run x y",
            "r run --unknown x",
            "r run --bundle",
            "r run --bundle= x",
            "r run --bundle --keep x",
            "r run --help",
            "r run -- x",
            "r run - x",
            "r run --preserve-fds many x",
            "r run --detach=maybe x",
            "r exec -it x sh",
            "r exec",
            "r list",
            "r unknown x",
            "r --rootless auto run x",
        ] {
            assert_eq!(read_both_ways(words(line)).0, None, "{line}");
        }
    }
}
