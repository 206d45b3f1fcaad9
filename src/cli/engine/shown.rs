//! What the verbs share in showing things: sizes and times as Docker words them, and text to the standard output, whose
//! reader may have gone away.

use std::io::Write as _;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::store::{self, Store};

impl super::Global {
    /// The store that `--root` names, or the caller's, which an unprivileged one enters a user namespace for.
    pub fn store(&self) -> Result<Store> {
        crate::engine::rootless::enter()?;
        match &self.root {
            Some(root) => Store::open(root),
            None => Store::open(&store::default_root()?),
        }
    }
}

/// Writes text to the standard output. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::call("write(stdout)", e.raw_os_error().unwrap_or(libc::EIO)))
        }
        _ => Ok(()),
    }
}

/// A line to people, on the standard error.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// JSON as `inspect` prints it: an array with four blanks of indentation, or each element through `--format`.
pub fn inspected(all: &[Value], format: Option<&str>) -> Result<String> {
    let template = match format {
        Some(text) if text != "json" => super::format::Template::parse(text)?,
        Some(_) => return Ok(format!("{}\n", Value::from(all.to_vec()))),
        None => {
            let mut bytes = Vec::new();
            let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut bytes, pretty);
            serde::Serialize::serialize(all, &mut writer).map_err(|e| Error::new(format!("JSON: {e}")))?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned() + "\n");
        }
    };
    all.iter().map(|value| Ok(template.render(value)? + "\n")).collect()
}

/// A size as Docker writes it: three digits, powers of 1,000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let digits = match value {
        _ if unit == "B" || value >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// How long something took or has lasted, in Docker's words.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let of = |count: i64, unit: &str| format!("{count} {unit}");
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        _ if seconds < 60 => of(seconds, "seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => of(minutes, "minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => of(hours, "hours"),
        _ if hours < 24 * 7 * 2 => of(hours / 24, "days"),
        _ if hours < 24 * 30 * 2 => of(hours / 24 / 7, "weeks"),
        _ if hours < 24 * 365 * 2 => of(hours / 24 / 30, "months"),
        _ => of(hours / 24 / 365, "years"),
    }
}

/// `3 minutes ago`, for a time in seconds since 1970. An image that says nothing but 0, so that it can be made again
/// byte for byte, has no time.
pub fn ago(then: i64) -> String {
    if then <= 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", duration(crate::sys::process::now().0.saturating_sub(then)))
}

/// An id without its algorithm, cut to twelve digits unless all of it is wanted.
pub fn id(digest: &str, whole: bool) -> String {
    if whole {
        return digest.to_owned();
    }
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// Reads a time of RFC 3339: seconds since 1970. Anything else is `None`: it is an image's own word.
pub fn time(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Days since 1970 of a date in the Gregorian calendar; the year begins in March.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = years.div_euclid(400);
    let of_era = years.rem_euclid(400);
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * months + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Whether a text is as a pattern of `*` and `?` says.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_writes_it() {
        for (bytes, wanted) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1536, "1.54kB"),
            (187_000_000, "187MB"),
            (7_730_000, "7.73MB"),
            (999_600, "1MB"),
            (12_340_000_000, "12.3GB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
        for (seconds, wanted) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(duration(seconds), wanted);
        }
    }

    #[test]
    fn times_and_patterns() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(time("2024-02-29T12:00:00.123456789Z"), Some(1_709_208_000));
        assert_eq!(time("2024-02-29T12:00:00+02:00"), Some(1_709_200_800));
        assert!(
            ["", "yesterday", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00"]
                .iter()
                .all(|t| time(t).is_none())
        );
        assert!(glob("alp*:3.?", "alpine:3.2") && glob("*", "") && !glob("a?", "a") && !glob("", "a"));
    }
}
