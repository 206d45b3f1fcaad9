//! PAX records (pax(1), "extended header records"): `LENGTH KEY=VALUE\n`, read by the length alone, since a value may
//! hold any byte. What readers of tar disagree on is refused here, so that nobody else sees another archive than we
//! do.

use crate::error::{Error, Result};

/// Most bytes of records that one entry may have.
pub const MAX_BYTES: u64 = 1 << 20;
/// Most xattrs of one entry; a name is at most XATTR_NAME_MAX and a value XATTR_SIZE_MAX bytes (limits.h).
const MAX_XATTRS: usize = 512;
const MAX_XATTR_NAME: usize = 255;
const MAX_XATTR_VALUE: usize = 64 << 10;
const XATTR: &[u8] = b"SCHILY.xattr.";

pub type Xattr = (Vec<u8>, Vec<u8>);

/// What the records of one entry say; `None` where they say nothing.
#[derive(Debug, Default)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Seconds, nanoseconds.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

/// GNU tar's records of sparse files, formats 0.0, 0.1 and 1.0 (tar.info, "PAX Format" of "Sparse Formats").
#[derive(Debug, Default)]
pub struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub realsize: Option<u64>,
    /// Format 0.0 and 0.1: offsets and lengths in turn.
    pub map: Vec<u64>,
}

impl Sparse {
    pub fn is_some(&self) -> bool {
        self.major.is_some() || self.name.is_some() || self.realsize.is_some() || !self.map.is_empty()
    }
}

pub fn parse(mut bytes: &[u8]) -> Result<Records> {
    let mut records = Records::default();
    while !bytes.is_empty() {
        let (record, rest) =
            split(bytes).ok_or_else(|| Error::new("a PAX record is not as long as it says"))?;
        let equals = record.iter().position(|byte| *byte == b'=');
        let equals =
            equals.ok_or_else(|| Error::new(format!("the PAX record {} has no '='", shown(record))))?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        records.take(key, value).map_err(|e| e.context(format_args!("the PAX record {}", shown(key))))?;
        bytes = rest;
    }
    Ok(records)
}

/// Records of a global header (`g`) apply to all that follows, say pax(1) and GNU tar; Go's reader, and with it most
/// engines, ignores them. Those that matter to nobody are let pass (git-archive(1) writes `comment`).
pub fn parse_global(bytes: &[u8]) -> Result<()> {
    let said = parse(bytes)?;
    let matters = said.path.is_some()
        || said.linkpath.is_some()
        || said.size.is_some()
        || said.uid.is_some()
        || said.gid.is_some()
        || said.mtime.is_some()
        || !said.xattrs.is_empty()
        || said.sparse.is_some();
    if matters {
        return Err(Error::new("a global PAX header changes the entries that follow it")
            .why("readers of tar disagree on what it means"));
    }
    Ok(())
}

/// The first record without its length and newline, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (&last, record) = bytes.get(space + 1..len)?.split_last()?;
    (last == b'\n').then(|| (record, &bytes[len..]))
}

impl Records {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.take_xattr(name, value);
        }
        // An empty value takes back what was said before (pax(1)).
        let number = || match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or_else(|| Error::new(format!("{} is no number", shown(value)))),
        };
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.linkpath = text(value)?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                let time = time(value).ok_or_else(|| Error::new(format!("{} is no time", shown(value))))?;
                self.mtime = Some(time);
            }
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = text(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.realsize = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // In turn, as format 0.0 has them: an offset stands where the map is even.
                let offset = key == b"GNU.sparse.offset";
                let n = number()?.filter(|_| offset == self.sparse.map.len().is_multiple_of(2));
                self.sparse.map.push(n.ok_or_else(|| Error::new("offsets and lengths do not alternate"))?);
            }
            b"GNU.sparse.map" => {
                let all: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
                self.sparse.map = all.ok_or_else(|| Error::new("this is no list of numbers"))?;
            }
            // comment, atime, ctime, uname, gname, charset and the words of others: engines leave them alone.
            _ => {}
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let whole = !name.is_empty() && name.len() <= MAX_XATTR_NAME && !name.contains(&0);
        if !whole || value.len() > MAX_XATTR_VALUE || self.xattrs.len() == MAX_XATTRS {
            return Err(Error::new("xattrs have names of at most 255 bytes and values of at most 64 KiB")
                .why(format!("name {} bytes, value {} bytes", name.len(), value.len())));
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(Error::new("a name with a NUL byte"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Digits and nothing else: no sign, no blank.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// `-1.5` is a second and a half before the epoch; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (decimal(&text[..point])?, text.get(point + 1..).unwrap_or(b""));
    let mut nanos = 0;
    for place in 0..fraction.len().max(9) {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        match digit {
            b'0'..=b'9' if place < 9 => nanos = nanos * 10 + u32::from(digit - b'0'),
            b'0'..=b'9' => {}
            _ => return None,
        }
    }
    let whole = i64::try_from(whole).ok()?;
    Some(match (negative, nanos) {
        (false, _) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanos),
    })
}

/// Bytes of an archive in an error: quoted, bounded.
pub fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(120)];
    format!("\"{}{}\"", cut.escape_ascii(), if cut.len() < bytes.len() { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let len = (body..).find(|len| *len == body + len.to_string().len()).unwrap();
        [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn a_value_may_hold_newlines_and_records() {
        let value = b"\x01\0\n12 path=x\n\n";
        let mut bytes = record("SCHILY.xattr.security.capability", value);
        bytes.extend(record("path", b"a/b"));
        let records = parse(&bytes).unwrap();
        assert_eq!(records.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
        assert_eq!(records.path.as_deref(), Some(&b"a/b"[..]));
    }

    #[test]
    fn records_that_lie_are_refused() {
        for bad in [
            "5 a=b\n",
            "999 a=b\n",
            "x a=b\n",
            "7 a=bcd",
            "0 a=b\n",
            "18446744073709551616 a=b\n",
            "4 a\n",
            "+6 a=b\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for (key, value) in [
            ("size", "-1"),
            ("size", "18446744073709551616"),
            ("uid", "0x10"),
            ("mtime", "now"),
            ("mtime", "1.-5"),
            ("path", "a\0b"),
            ("GNU.sparse.numbytes", "1"),
            ("GNU.sparse.map", "1,"),
            ("SCHILY.xattr.", "x"),
        ] {
            assert!(parse(&record(key, value.as_bytes())).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn times_have_a_sign_and_a_fraction() {
        for (text, time) in [
            ("0", (0, 0)),
            ("1.5", (1, 500_000_000)),
            ("-1.5", (-2, 500_000_000)),
            ("-5", (-5, 0)),
            ("1700000000.0000000019", (1_700_000_000, 1)),
        ] {
            assert_eq!(super::time(text.as_bytes()), Some(time), "{text}");
        }
    }

    #[test]
    fn global_records_that_change_entries_are_refused() {
        parse_global(&record("comment", b"2a1f")).unwrap();
        assert!(parse_global(&record("size", b"0")).is_err());
    }
}
