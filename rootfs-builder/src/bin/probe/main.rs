//! The witness inside the container: a static program that says what it sees, for tests to judge.
//!
//! `probe [--read PATH] [--write PATH] [--stat PATH] [--sysctl NAME] [--list DIR]` prints one JSON object about the
//! process and its surroundings; `probe VERB …` does one deed and says how it went (`probe help` lists them). It
//! must not judge, must not change what it looks at, and must work in a root file system that holds nothing else.

mod kernel;
mod report;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.first() {
        Some(verb) if !verb.starts_with("--") => verbs::act(verb, &args[1..]),
        _ => match report::Questions::parse(&args) {
            Ok(questions) => {
                println!("{}", report::report(&questions));
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("probe: {why}");
                ExitCode::from(2)
            }
        },
    }
}
