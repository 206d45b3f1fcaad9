//! Names: 64 hexadecimal digits that nobody else has, and two words for people.

use crate::error::{Error, Result};
use crate::sys::{fd, path};
use std::os::fd::AsFd;
use std::path::Path;

const FIRST: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clever", "cosy", "crisp", "eager", "fancy", "fleet", "fond",
    "gentle", "glad", "golden", "happy", "keen", "lively", "loyal", "lucid", "mellow", "merry", "neat",
    "nimble", "plucky", "proud", "quiet", "rapid", "sunny", "tidy", "vivid", "warm", "witty",
];
const SECOND: [&str; 32] = [
    "amphora", "basin", "beaker", "bottle", "bowl", "bucket", "carafe", "cask", "churn", "creamer", "crock",
    "cruet", "cup", "decanter", "ewer", "flagon", "flask", "goblet", "gourd", "growler", "jar", "kettle",
    "ladle", "mug", "pail", "pitcher", "pot", "stein", "tankard", "teapot", "urn", "vase",
];

pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let file = path::open(Path::new("/dev/urandom"), libc::O_RDONLY)?;
    fd::read_full(file.as_fd(), &mut bytes)?;
    Ok(bytes)
}

/// A new id: 64 hexadecimal digits, not all of the first twelve decimal (a short id is never taken for a number).
pub fn id() -> Result<String> {
    loop {
        let id: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        if id[..12].bytes().any(|digit| digit.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// Two words, and from the second attempt on a number.
pub fn words(attempt: usize) -> Result<String> {
    let [a, b, c] = random::<3>()?;
    let two = format!("{}_{}", FIRST[usize::from(a) % 32], SECOND[usize::from(b) % 32]);
    Ok(if attempt == 0 { two } else { format!("{two}{c}") })
}

/// The rule for names is docker's.
pub fn check(name: &str) -> Result<()> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && (2..=128).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::new(format!("--name: {name:?} is no name for a container"))
        .next("use letters, digits, _ . and -, two at least, the first a letter or a digit"))
}
