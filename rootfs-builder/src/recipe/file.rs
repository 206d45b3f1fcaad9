//! One file of a layer, written out in the recipe: `{ path = "/etc/motd", content = "hi\n", mode = 0o644 }`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::entry::clean_path;

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct FileRecipe {
    /// Cleaned: relative to the root.
    pub path: Vec<u8>,
    pub content: Content,
    /// By kind when not given: 0755 for directories and for copies of executable files, 0777 for links, else 0644.
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds; the build's time when not given.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub enum Content {
    Text(String),
    /// A file of the host, relative to the recipe.
    Copy(PathBuf),
    /// This many zero bytes: a file with a size and without a source.
    Zeros(u64),
    Symlink(String),
    Hardlink(Vec<u8>),
    Dir,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: String,
    content: Option<String>,
    copy: Option<PathBuf>,
    zeros: Option<u64>,
    symlink: Option<String>,
    hardlink: Option<String>,
    dir: Option<bool>,
    device: Option<String>,
    fifo: Option<bool>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    mtime_nsec: Option<u32>,
    #[serde(default)]
    xattrs: BTreeMap<String, String>,
}

impl TryFrom<Table> for FileRecipe {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let about = |problem: String| format!("file `{}`: {problem}", table.path);
        let path = clean_path(table.path.as_bytes()).map_err(|error| error.to_string())?;
        if table.mode.is_some_and(|mode| mode > 0o7777) {
            return Err(about("`mode` has more than permission bits; octal is written 0o755".into()));
        }
        if table.mtime_nsec.is_some_and(|nsec| nsec >= 1_000_000_000) {
            return Err(about("`mtime_nsec` must be below 1000000000".into()));
        }
        let mtime = match (table.mtime, table.mtime_nsec) {
            (None, Some(_)) => return Err(about("`mtime_nsec` needs `mtime`".into())),
            (mtime, nsec) => mtime.map(|secs| (secs, nsec.unwrap_or(0))),
        };
        let xattr = |(name, value): (&String, &String)| Ok((name.clone().into_bytes(), parse_xattr(value)?));
        let xattrs = table.xattrs.iter().map(xattr).collect::<Result<_, String>>().map_err(about)?;
        Ok(Self {
            content: table.content().map_err(about)?,
            path,
            mode: table.mode,
            uid: table.uid.unwrap_or(0),
            gid: table.gid.unwrap_or(0),
            mtime,
            xattrs,
        })
    }
}

impl Table {
    /// The one kind that is set.
    fn content(&self) -> Result<Content, String> {
        let kinds = [
            self.content.clone().map(Content::Text),
            self.copy.clone().map(Content::Copy),
            self.zeros.map(Content::Zeros),
            self.symlink.clone().map(Content::Symlink),
            self.hardlink.as_deref().map(parse_hardlink).transpose()?,
            self.dir.filter(|&dir| dir).map(|_| Content::Dir),
            self.device.as_deref().map(parse_device).transpose()?,
            self.fifo.filter(|&fifo| fifo).map(|_| Content::Fifo),
        ];
        let mut set = kinds.into_iter().flatten();
        match (set.next(), set.next()) {
            (Some(content), None) => Ok(content),
            _ => Err(
                "exactly one of `content`, `copy`, `zeros`, `symlink`, `hardlink`, `dir`, `device`, `fifo` \
                      must be given"
                    .into(),
            ),
        }
    }
}

fn parse_hardlink(target: &str) -> Result<Content, String> {
    clean_path(target.as_bytes()).map(Content::Hardlink).map_err(|error| error.to_string())
}

/// `c 1 3`, as mknod(1) takes it.
fn parse_device(text: &str) -> Result<Content, String> {
    let parse = || {
        let mut words = text.split_whitespace();
        let block = match words.next()? {
            "b" => true,
            "c" | "u" => false,
            _ => return None,
        };
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Content::Device { block, major, minor })
    };
    parse().ok_or_else(|| format!("device `{text}` is not like `c 1 3` (c or b, major, minor)"))
}

/// Text, or `0x` and hexadecimal digits as getfattr(1) prints binary values.
fn parse_xattr(text: &str) -> Result<Vec<u8>, String> {
    let Some(hex) = text.strip_prefix("0x") else {
        return Ok(text.as_bytes().to_vec());
    };
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = hex.as_bytes().chunks(2).map(|pair| byte(pair).filter(|_| pair.len() == 2));
    bytes.collect::<Option<_>>().ok_or_else(|| format!("xattr value `{text}` is not hexadecimal"))
}
