//! Command lines as runc reads them. Go's flag package and urfave/cli decide what a word is: one dash or two, `-flag
//! value` or `-flag=value`, switches with a value, flags behind the container's name, the last of two equal flags. What
//! comes out is the same line in the one form that clap cannot misread, or runc's own words for what is wrong.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// Verbs of whose words only those before the container's name are flags: what follows is somebody else's.
const VERBS_WITH_COMMAND: [&str; 2] = ["exec", "ps"];

/// A line that clap understands as it is meant.
#[derive(Debug, Default)]
pub struct Line {
    pub args: Vec<OsString>,
    pub verb: Option<String>,
    /// `--version`, or `-v`.
    pub version: bool,
    /// `--log` and `--log-format`, where the rest of the line may be wrong.
    pub log: Option<OsString>,
    pub log_format: Option<OsString>,
}

/// Reads the line. An error has the line as far as it was understood.
pub fn read(definition: &Command, args: Vec<OsString>) -> Result<Line, (String, Box<Line>)> {
    let mut words = args.into_iter();
    let mut line = Line { args: words.next().into_iter().collect(), ..Line::default() };
    let mut words: Vec<OsString> = words.rev().collect();
    match read_into(&mut line, definition, &mut words) {
        Ok(()) => Ok(line),
        Err(fault) => Err((fault, Box::new(line))),
    }
}

/// `words` has the next word at its end.
fn read_into(line: &mut Line, definition: &Command, words: &mut Vec<OsString>) -> Result<(), String> {
    let mut global = Flags::default();
    let first = loop {
        match next(words) {
            Word::Flag(flag) => global.read(definition, flag, words)?,
            Word::Plain(word) => break Some(word),
            Word::Rest => break words.pop(),
            Word::End => break None,
        }
    };
    line.version = global.has("version");
    line.log = global.value("log");
    line.log_format = global.value("log-format");
    let help = global.has("help");
    line.args.extend(global.words());
    let Some(first) = first else { return Ok(()) };
    let verb = match first.to_str() {
        Some("h") => "help".to_owned(),
        _ => first.to_string_lossy().into_owned(),
    };
    line.verb = Some(verb.clone());
    line.args.push(verb.clone().into());
    if help || verb == "help" {
        line.args.extend(words.drain(..).rev());
        return Ok(());
    }
    match definition.find_subcommand(&verb) {
        Some(definition) => read_verb(line, definition, words),
        // Which verbs there are clap says.
        None => Ok(()),
    }
}

fn read_verb(line: &mut Line, definition: &Command, words: &mut Vec<OsString>) -> Result<(), String> {
    let verb = definition.get_name();
    let mut flags = Flags::default();
    let mut plain = Vec::new();
    loop {
        match next(words) {
            Word::Flag(flag) => flags.read(definition, flag, words)?,
            Word::Plain(word) => {
                plain.push(word);
                if VERBS_WITH_COMMAND.contains(&verb) {
                    plain.extend(words.drain(..).rev());
                }
            }
            Word::Rest => plain.extend(words.drain(..).rev()),
            Word::End => break,
        }
    }
    let help = flags.has("help");
    line.args.extend(flags.words());
    if !help {
        count(line, definition, plain.len())?;
        line.args.push("--".into());
        line.args.extend(plain);
    }
    Ok(())
}

/// The rules for how many words a verb takes are those of its definition.
fn count(line: &Line, definition: &Command, given: usize) -> Result<(), String> {
    let least = definition.get_positionals().filter(|arg| arg.is_required_set()).count();
    let endless = definition.get_positionals().any(|arg| matches!(arg.get_action(), ArgAction::Append));
    let most = definition.get_positionals().count();
    let program = line.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let requires = |what: &str, n| {
        let verb = definition.get_name();
        Err(format!("{program}: \"{verb}\" requires {what} {n} argument(s)"))
    };
    match (given < least, given > most && !endless) {
        (false, false) => Ok(()),
        (true, _) if endless || least != most => requires("a minimum of", least),
        (_, true) if least != most => requires("a maximum of", most),
        _ => requires("exactly", most),
    }
}

enum Word {
    /// Without its dashes.
    Flag(OsString),
    Plain(OsString),
    /// `--`: no more flags.
    Rest,
    End,
}

fn next(words: &mut Vec<OsString>) -> Word {
    let Some(word) = words.pop() else { return Word::End };
    match word.as_bytes() {
        b"--" => Word::Rest,
        [b'-', b'-', rest @ ..] | [b'-', rest @ ..] if !rest.is_empty() => {
            Word::Flag(OsStr::from_bytes(rest).to_owned())
        }
        _ => Word::Plain(word),
    }
}

/// Flags with their values as they were read, under the long names of their definitions.
#[derive(Default)]
struct Flags(Vec<(String, Option<OsString>)>);

impl Flags {
    fn read(
        &mut self,
        definition: &Command,
        flag: OsString,
        words: &mut Vec<OsString>,
    ) -> Result<(), String> {
        let bytes = flag.as_bytes();
        let (name, inline) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
            None => (bytes, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: --{}", flag.to_string_lossy()));
        }
        if name == "help" || name == "h" {
            self.0.push(("help".to_owned(), None));
            return Ok(());
        }
        let short = |arg: &Arg| arg.get_short().is_some_and(|short| name.chars().eq([short]));
        let found =
            definition.get_arguments().find(|arg| arg.get_long() == Some(name.as_str()) || short(arg));
        let Some((arg, long)) = found.and_then(|arg| Some((arg, arg.get_long()?))) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        // The last one counts, where there can be one only.
        if !matches!(arg.get_action(), ArgAction::Append) {
            self.0.retain(|(other, _)| other != long);
        }
        if arg.get_action().takes_values() {
            let value = inline.or_else(|| words.pop());
            let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
            self.0.push((long.to_owned(), Some(value)));
            return Ok(());
        }
        match inline.map_or(Some(true), |value| boolean(&value.to_string_lossy())) {
            Some(true) => self.0.push((long.to_owned(), None)),
            Some(false) => {}
            None => {
                let value = String::from_utf8_lossy(&bytes[name.len() + 1..]);
                return Err(format!("invalid boolean value {value:?} for -{name}: parse error"));
            }
        }
        Ok(())
    }

    fn has(&self, long: &str) -> bool {
        self.0.iter().any(|(name, _)| name == long)
    }

    fn value(&self, long: &str) -> Option<OsString> {
        self.0.iter().find(|(name, _)| name == long).and_then(|(_, value)| value.clone())
    }

    /// The flags as `--name` and `--name=value`.
    fn words(self) -> impl Iterator<Item = OsString> {
        self.0.into_iter().map(|(name, value)| {
            let mut word = OsString::from(format!("--{name}"));
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            word
        })
    }
}

/// What Go's strconv.ParseBool takes.
pub fn boolean(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn go(line: &str) -> Result<String, String> {
        let args = line.split(' ').map(|word| OsString::from(word.trim_matches('\''))).collect();
        let line = read(&super::super::Cli::command(), args).map_err(|(fault, _)| fault)?;
        let words: Vec<_> = line.args.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn lines_as_go_reads_them() {
        for (line, want) in [
            ("r -root /x create -b /y id", "r --root=/x create --bundle=/y -- id"),
            ("r delete id -force", "r delete --force -- id"),
            ("r delete --force=false id", "r delete -- id"),
            ("r exec -tty id ls -la", "r exec --tty -- id ls -la"),
            ("r exec -e A=1 --env=B=2 id -- ls", "r exec --env=A=1 --env=B=2 -- id -- ls"),
            ("r --root create state id", "r --root=create state -- id"),
            ("r --root /a --root /b list", "r --root=/b list --"),
            ("r --root '' list", "r --root= list --"),
            ("r run --bundle --keep id", "r run --bundle=--keep -- id"),
            ("r -- state -- -id", "r state -- -id"),
            ("r ps id -o pid", "r ps -- id -o pid"),
            ("r h run", "r help run"),
            ("r --help run x", "r --help run x"),
            ("r run -h", "r run --help"),
            ("r --debug=T list", "r --debug list --"),
        ] {
            assert_eq!(go(line).as_deref(), Ok(want), "{line}");
        }
    }

    #[test]
    fn faults_have_runcs_words() {
        for (line, want) in [
            ("r --no list", "flag provided but not defined: -no"),
            ("r exec -it id sh", "flag provided but not defined: -it"),
            ("r run --bundle", "flag needs an argument: -bundle"),
            ("r run -b", "flag needs an argument: -b"),
            ("r --debug=x list", "invalid boolean value \"x\" for -debug: parse error"),
            ("r run ---bundle x", "bad flag syntax: ---bundle"),
            ("r run", "r: \"run\" requires exactly 1 argument(s)"),
            ("r run a b", "r: \"run\" requires exactly 1 argument(s)"),
            ("r list a", "r: \"list\" requires exactly 0 argument(s)"),
            ("r kill", "r: \"kill\" requires a minimum of 1 argument(s)"),
            ("r kill a b c", "r: \"kill\" requires a maximum of 2 argument(s)"),
            ("r exec", "r: \"exec\" requires a minimum of 1 argument(s)"),
        ] {
            assert_eq!(go(line), Err(want.to_owned()), "{line}");
        }
    }
}
