//! PAX extended header records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record and itself (pax(1)).

use std::collections::BTreeMap;

use crate::entry::{Mtime, shown};
use crate::error::{Error, Result};

pub const XATTR: &[u8] = b"SCHILY.xattr.";

pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Records in the order of their keys, so that the same metadata is always the same bytes.
pub fn encode(records: &Records) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3; // space, '=', newline
        let mut len = body + digits(body);
        if digits(len) > digits(body) {
            len = body + digits(len);
        }
        out.extend_from_slice(format!("{len} ").as_bytes());
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

/// Reads by the length prefix alone: a value may hold any byte, newlines included.
pub fn decode(mut bytes: &[u8], into: &mut Records) -> Result<()> {
    while !bytes.is_empty() {
        let (record, rest) = split_record(bytes).ok_or_else(|| Error::new("a PAX record is malformed"))?;
        let equals = record.iter().position(|&b| b == b'=');
        let equals =
            equals.ok_or_else(|| Error::new(format!("a PAX record has no '=': {}", shown(record))))?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if value.is_empty() && !key.starts_with(XATTR) {
            into.remove(key); // pax(1): an empty value takes back an earlier one
        } else {
            into.insert(key.to_vec(), value.to_vec());
        }
        bytes = rest;
    }
    Ok(())
}

/// The record without its length and newline, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&b| b == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..len)?;
    let (&last, record) = record.split_last()?;
    (last == b'\n').then(|| (record, &bytes[len..]))
}

/// `1700000000.123456789` with the zeros of the end left out.
pub fn encode_mtime(mtime: Mtime) -> Vec<u8> {
    // timespec has -0.5 s as (-1, 500000000); the decimal text has it as -0.5.
    let total = i128::from(mtime.secs) * 1_000_000_000 + i128::from(mtime.nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (secs, nanos) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    if nanos == 0 {
        return format!("{sign}{secs}").into_bytes();
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{secs}.{}", fraction.trim_end_matches('0')).into_bytes()
}

pub fn decode_mtime(text: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = secs.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{:0<9.9}", fraction).parse().ok()?;
    let total = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let total = if negative { -total } else { total };
    Some(Mtime {
        secs: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        nanos: u32::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_newlines_come_back_whole() {
        let mut records = Records::new();
        records.insert(b"SCHILY.xattr.security.capability".to_vec(), b"\x01\n\n12 a=b\n\0".to_vec());
        records.insert(b"path".to_vec(), vec![b'x'; 90]); // 90 + 7 = 97: the length grows to three digits
        records.insert(b"user".to_vec(), vec![b'y'; 991]);
        let mut back = Records::new();
        decode(&encode(&records), &mut back).unwrap();
        assert_eq!(back, records);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in ["5 a=b\n", "999 a=b\n", "x a=b\n", "7 a=bcd", "0 a=b\n", "18446744073709551615 a=b\n"] {
            assert!(decode(bad.as_bytes(), &mut Records::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_come_back_whole() {
        for mtime in [(0, 0), (1, 500_000_000), (-1, 500_000_000), (-5, 0), (1 << 40, 1)] {
            let mtime = Mtime { secs: mtime.0, nanos: mtime.1 };
            assert_eq!(decode_mtime(&encode_mtime(mtime)), Some(mtime));
        }
        assert_eq!(encode_mtime(Mtime { secs: -1, nanos: 500_000_000 }), b"-0.5");
        assert_eq!(decode_mtime(b"1.-5"), None);
    }
}
