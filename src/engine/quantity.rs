//! Quantities as people write and read them: bytes with a suffix, lengths of time, signals. No I/O but the clock.

use crate::error::{Error, Result};
use crate::sys::process;

/// Bytes: digits, maybe with a fraction, and k, m, g or t (base 1024), maybe with `b` or `ib` behind.
pub fn bytes(text: &str, flag: &str) -> Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(no_size(text, flag)),
    };
    let value: f64 = number.parse().map_err(|_| no_size(text, flag))?;
    let value = value * (1u64 << shift) as f64;
    if value < i64::MAX as f64 { Ok(value as i64) } else { Err(no_size(text, flag)) }
}

fn no_size(text: &str, flag: &str) -> Error {
    Error::new(format!("{flag}: {text:?} is no size")).next("write bytes, or a number with k, m or g")
}

/// "3 minutes", as docker says how long something is ago.
pub fn ago(seconds: i64) -> String {
    let plural = |n: i64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => plural(seconds, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => plural(seconds / 60, "minute"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => plural(seconds / 3600, "hour"),
        172_800..1_209_600 => plural(seconds / 86_400, "day"),
        1_209_600..5_184_000 => plural(seconds / 604_800, "week"),
        5_184_000..63_072_000 => plural(seconds / 2_592_000, "month"),
        _ => plural(seconds / 31_536_000, "year"),
    }
}

/// Seconds since the epoch of an RFC 3339 time in UTC, such as the records hold; fractions are passed over.
pub fn seconds_of(time: &str) -> Option<i64> {
    let part = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    // Days from the civil calendar: years begin in March, so that the leap day is the last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// A moment for `--since` and `--until`: RFC 3339 in UTC, seconds since the epoch, or how long ago (90s, 10m, 2h).
pub fn moment(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.split('.').next().unwrap_or("").parse() {
        return Ok(seconds);
    }
    if let Some(seconds) = seconds_of(text).or_else(|| seconds_of(&format!("{text}T00:00:00Z"))) {
        return Ok(seconds);
    }
    let mut rest = text;
    let mut total = 0;
    while let Some(at) = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0) {
        let unit = match rest.as_bytes()[at] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => break,
        };
        total += rest[..at].parse::<i64>().unwrap_or(0) * unit;
        rest = &rest[at + 1..];
    }
    if !rest.is_empty() || total == 0 {
        return Err(Error::new(format!("{text:?} is no time")).next("write 10m, or 2026-01-31T12:00:00Z"));
    }
    Ok(process::now().0 - total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, want) in
            [("4096", 4096), ("64k", 65536), ("1.5g", 1_610_612_736), ("20MiB", 20 << 20), ("1b", 1)]
        {
            assert_eq!(bytes(text, "-m").ok(), Some(want), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1e3", "99999999999g"] {
            assert!(bytes(bad, "-m").is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_back() {
        assert_eq!(seconds_of("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds_of("2024-02-29T12:00:00.5Z"), Some(1_709_208_000));
        assert_eq!(seconds_of("x"), None);
        assert_eq!(
            (ago(0), ago(90), ago(7300)),
            ("Less than a second".into(), "About a minute".into(), "2 hours".into())
        );
    }
}
