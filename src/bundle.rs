//! The bundle as found: `config.json` and the directory it lies in. Untrusted in form, trusted in intent.
//!
//! Here bytes become types, with limits and with a pointer to the fault; nothing is decided (that is `plan`).
//! oci-spec carries the types. Where it is stricter or laxer than the specification, the JSON is put right first:
//! unknown capabilities (a warning), an absent `process.user`, an absent `pids.limit`; see `normalise`.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::sys;

/// Longest config.json that is read, in bytes; real ones have some tens of kilobytes.
pub const CONFIG_LIMIT: usize = 8 << 20;

#[derive(Debug)]
pub struct Bundle {
    /// Absolute, without symbolic links.
    pub dir: PathBuf,
    pub spec: Box<Spec>,
    /// The bytes of config.json: what `exec` reads again later, whatever becomes of the bundle.
    pub raw: Vec<u8>,
    /// What the specification says to warn about.
    pub warnings: Vec<String>,
}

/// Reads `dir/config.json`.
pub fn load(dir: &Path) -> Result<Bundle> {
    let dir = sys::path::open(dir, libc::O_PATH | libc::O_DIRECTORY)
        .and_then(|there| sys::path::name_of(there.as_fd()))
        .map_err(|e| Error::call(format_args!("bundle {}", dir.display()), e.errno()))?;
    let path = dir.join("config.json");
    let file = sys::path::open(&path, libc::O_RDONLY | libc::O_NONBLOCK).map_err(|e| {
        if e.errno() == libc::ENOENT {
            Error::new(format!(
                "JSON specification file {} not found: no such file or directory",
                path.display()
            ))
            .next("give the bundle with --bundle DIR, or make a config.json with `spec`")
        } else {
            e
        }
    })?;
    let raw = sys::fd::read_to_end(file.as_fd(), CONFIG_LIMIT).map_err(|e| e.context(path.display()))?;
    let (spec, warnings) = parse::<Spec>(&raw).map_err(|e| e.context(path.display()))?;
    Ok(Bundle { dir, spec, raw, warnings })
}

/// Reads a `process.json` (the `process` object of a config), for `exec --process`.
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>)> {
    let file = sys::path::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let raw = sys::fd::read_to_end(file.as_fd(), CONFIG_LIMIT).map_err(|e| e.context(path.display()))?;
    let (process, warnings) = parse::<Process>(&raw).map_err(|e| e.context(path.display()))?;
    Ok((*process, warnings))
}

/// What a config or a part of it is read as.
pub trait Config: DeserializeOwned {
    /// Nothing stands in it that [`normalise_resources`] would have to put right.
    fn is_in_order(&self) -> bool {
        true
    }
}

impl Config for Process {}

impl Config for Spec {
    fn is_in_order(&self) -> bool {
        let resources = self.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let pages = resources.and_then(|r| r.hugepage_limits().as_ref());
        resources.and_then(|r| r.pids().as_ref()).is_none_or(|pids| pids.limit() != 0)
            && pages.is_none_or(|pages| pages.iter().all(|limit| !limit.page_size().is_empty()))
    }
}

/// Parses a `Spec` or a `Process`; returns the warnings beside it.
///
/// Nearly every config is as it should be, and read at once. One that is not is read again, slowly, by way of a tree of
/// values: that can be put right, and knows where a fault is. A `Spec` is some kilobytes long, hence the box: what is
/// moved about on the stack is fetched page by page.
pub fn parse<T: Config>(raw: &[u8]) -> Result<(Box<T>, Vec<String>)> {
    match at_once(raw) {
        Some(typed) => Ok((typed, Vec::new())),
        None => slowly(raw),
    }
}

#[inline(never)]
fn at_once<T: Config>(raw: &[u8]) -> Option<Box<T>> {
    let text = std::str::from_utf8(raw).ok()?;
    let typed = keys_are_single(text).then(|| serde_json::from_str::<Box<T>>(text))?;
    typed.ok().filter(|typed| typed.is_in_order())
}

/// Holds one way of reading to the other, for `crate::fuzz`.
#[cfg(feature = "fuzz")]
pub fn read_both_ways<T: Config + PartialEq + std::fmt::Debug>(raw: &[u8]) {
    if let Some(quickly) = at_once::<T>(raw) {
        assert_eq!(slowly(raw), Ok((quickly, Vec::new())));
    }
}

#[inline(never)]
fn slowly<T: Config>(raw: &[u8]) -> Result<(Box<T>, Vec<String>)> {
    let mut value = strict_json(raw)?;
    let mut warnings = Vec::new();
    if let Some(process) = value.get_mut("process") {
        normalise_process(process, "/process", &mut warnings);
    } else if value.get("linux").is_none() && value.get("root").is_none() {
        normalise_process(&mut value, "", &mut warnings);
    }
    normalise_resources(value.pointer_mut("/linux/resources"));
    if let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut)
        && linux.get("memoryPolicy").and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        linux.remove("memoryPolicy");
    }
    typed(&value).map(|typed| (typed, warnings)).map_err(|e| match e.what() {
        // In runc's words.
        what if what.starts_with("/linux/memoryPolicy/flags") => e.context("invalid memory policy flag"),
        what if what.starts_with("/linux/memoryPolicy") => e.context("invalid memory policy mode"),
        _ => e,
    })
}

/// Parses a `linux.resources` object, for `update --resources`.
pub fn parse_resources(raw: &[u8]) -> Result<LinuxResources> {
    let mut value = strict_json(raw)?;
    normalise_resources(Some(&mut value));
    typed(&value)
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T> {
    // On one line, without a space: the column of a fault is the number of bytes up to its end.
    let text = value.to_string();
    serde_json::from_str(&text).map_err(|e| {
        let what = e.to_string();
        let what = what.rfind(" at line ").map_or(what.as_str(), |end| &what[..end]);
        Error::new(format!("{}: {what}", pointer(&text, e.column().saturating_sub(1))))
            .next("compare it with the runtime specification, config.md and config-linux.md")
    })
}

/// Whether no key stands twice in one object of a JSON text. A key with escapes is answered with no, and read the slow
/// way; what is no JSON may get any answer. By hand, since half of what reading a config cost was this.
fn keys_are_single(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut keys: Vec<&[u8]> = Vec::with_capacity(64);
    // Where the keys of each object around begin; none of an array.
    let mut around: Vec<Option<usize>> = Vec::with_capacity(16);
    let (mut i, mut key_follows) = (0, false);
    while let Some(byte) = bytes.get(i) {
        i += 1;
        match byte {
            ..=b' ' => {}
            b'{' => {
                around.push(Some(keys.len()));
                key_follows = true;
            }
            b'[' => {
                around.push(None);
                key_follows = false;
            }
            b',' => key_follows = matches!(around.last(), Some(Some(_))),
            b'"' => {
                let start = i;
                loop {
                    i += plain(&bytes[i..]);
                    match bytes.get(i) {
                        Some(b'\\') if !key_follows => i = bytes.len().min(i + 2),
                        Some(b'"') => break,
                        _ => return false,
                    }
                }
                if key_follows {
                    keys.push(&bytes[start..i]);
                    key_follows = false;
                }
                i += 1;
            }
            b'}' => match around.pop() {
                Some(Some(first)) if !any_twice(&mut keys[first..]) => keys.truncate(first),
                _ => return false,
            },
            b']' => drop(around.pop()),
            _ => {}
        }
    }
    true
}

/// How many bytes come before the next quotation mark or backslash; eight are looked at at a time.
fn plain(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 255;
    // The lowest bit that is set tells the first byte that is zero (Lamport, "Multiple byte processing").
    let zero = |word: u64| word.wrapping_sub(EACH) & !word & (EACH << 7);
    let mut done = 0;
    while let Some(eight) = bytes[done..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let found = zero(word ^ (EACH * u64::from(b'"'))) | zero(word ^ (EACH * u64::from(b'\\')));
        if found != 0 {
            return done + found.trailing_zeros() as usize / 8;
        }
        done += 8;
    }
    done + bytes[done..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}

fn any_twice(keys: &mut [&[u8]]) -> bool {
    const FEW: usize = 16;
    if keys.len() <= FEW {
        return keys.iter().enumerate().any(|(i, key)| keys[..i].contains(key));
    }
    keys.sort_unstable();
    keys.windows(2).any(|two| two[0] == two[1])
}

/// The value that the byte `at` of a JSON text without spaces belongs to, as a JSON pointer (RFC 6901).
fn pointer(text: &str, at: usize) -> String {
    enum Inside {
        Object(String),
        Array(usize),
    }
    let bytes = text.as_bytes();
    let mut inside = Vec::new();
    let mut i = 0;
    while i <= at && i < bytes.len() {
        match bytes[i] {
            b'{' => inside.push(Inside::Object(String::new())),
            b'[' => inside.push(Inside::Array(0)),
            b'}' | b']' => drop(inside.pop()),
            b',' => {
                if let Some(Inside::Array(index)) = inside.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let start = i;
                i += 1;
                while i < bytes.len() && bytes[i] != b'"' {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
                if let (Some(b':'), Some(Inside::Object(key))) = (bytes.get(i + 1), inside.last_mut()) {
                    *key = serde_json::from_str(&text[start..=i]).unwrap_or_default();
                }
            }
            _ => {}
        }
        i += 1;
    }
    let segment = |inside: &Inside| match inside {
        Inside::Object(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Inside::Array(index) => format!("/{index}"),
    };
    if inside.is_empty() { "/".to_owned() } else { inside.iter().map(segment).collect() }
}

/// JSON in which a key that stands twice in one object is an error: two readers could disagree about it.
pub fn strict_json(raw: &[u8]) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(raw);
    let value = Strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Error::new(format!("not valid JSON: {e}")))?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

fn normalise_process(process: &mut Value, at: &str, warnings: &mut Vec<String>) {
    let Some(process) = process.as_object_mut() else { return };
    let user = process.entry("user").or_insert_with(|| Value::Object(Map::new()));
    if let Some(user) = user.as_object_mut() {
        user.entry("uid").or_insert(0.into());
        user.entry("gid").or_insert(0.into());
    }
    // The specification's names, where oci-spec 0.10 has others.
    if let Some(Value::Array(flags)) = process.get_mut("scheduler").and_then(|s| s.get_mut("flags")) {
        for flag in flags {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
                _ => {}
            }
        }
    }
    let Some(Value::Object(sets)) = process.get_mut("capabilities") else { return };
    let mut unknown = HashSet::new();
    for set in sets.values_mut() {
        let Value::Array(names) = set else { continue };
        names.retain(|name| match name.as_str() {
            Some(name) if caps::Capability::from_str(name).is_err() => {
                unknown.insert(name.to_owned());
                false
            }
            _ => true,
        });
    }
    let mut unknown: Vec<_> = unknown.into_iter().collect();
    unknown.sort();
    if !unknown.is_empty() {
        warnings.push(format!(
            "{at}/capabilities: unknown or unavailable capabilities ignored: {}",
            unknown.join(", ")
        ));
    }
}

/// oci-spec reads an absent `pids.limit` as 0, and wants one in every block I/O or hugepage object it knows.
fn normalise_resources(resources: Option<&mut Value>) {
    let Some(resources) = resources.and_then(Value::as_object_mut) else { return };
    if resources.get("pids").is_some_and(|pids| pids.get("limit").is_none_or(Value::is_null)) {
        resources.remove("pids");
    }
    // Go reads names in any case, and this one is written in another one in the wild.
    for limit in resources.get_mut("hugepageLimits").and_then(Value::as_array_mut).into_iter().flatten() {
        let limit = limit.as_object_mut();
        if let Some(limit) = limit.filter(|limit| !limit.contains_key("pageSize"))
            && let Some(name) = limit.keys().find(|key| key.eq_ignore_ascii_case("pageSize")).cloned()
        {
            let size = limit.remove(&name).unwrap_or_default();
            limit.insert("pageSize".to_owned(), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<(Box<Spec>, Vec<String>)> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_fault_has_a_json_pointer() {
        let e = spec(r#"{"ociVersion":"1.0.0","process":{"cwd":"/","args":["a",3]}}"#).unwrap_err();
        assert!(e.what().starts_with("/process/args/1: "), "{e}");
    }

    #[test]
    fn a_pointer_leads_to_the_fault() {
        for (config, expected) in [
            (
                r#"{"ociVersion":"1","process":{"cwd":"/","args":["a",[],3]}}"#,
                "/process/args/1: invalid type: ",
            ),
            (r#"{"ociVersion":"1","linux":{"sysctl":{"a/b~":1}}}"#, "/linux/sysctl/a~1b~0: invalid type: "),
            (
                r#"{"ociVersion":"1","mounts":[{"destination":"/"},{"x":[{"y":"\"}"}]}]}"#,
                "/mounts/1: missing field ",
            ),
            (
                r#"{"ociVersion":"1","linux":{"namespaces":[{"type":"pid"},{"type":"\u0022pid"}]}}"#,
                "/linux/namespaces/1/type: unknown variant ",
            ),
            (r#"{"process":{"args":["a"]}}"#, "/process: missing field `cwd`"),
            ("7", "/: invalid type: integer `7`"),
        ] {
            let e = spec(config).unwrap_err();
            assert!(e.what().starts_with(expected), "{config}: {e}");
            assert!(!e.what().contains(" at line "), "{e}");
        }
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let e = spec(r#"{"ociVersion":"1.0.0","linux":{"sysctl":{"a":"1","a":"2"}}}"#).unwrap_err();
        assert!(e.what().contains(r#"duplicate key "a""#), "{e}");
        // Wherever it stands, whatever stands around.
        for config in [
            r#"{"x":1,"x":2}"#,
            r#"{"x":[{"y":{"a":1},"z":"}","y":[]}]}"#,
            r#"{"x":["\"",{"b":"{\"b\":","b":null}]}"#,
            r#"{"x":{"a":"x","\u0061":1}}"#,
            r#"{"l":[1,2],"x":[{}],"l":{}}"#,
            r#"{"eight letters and more":"\"\\ also here \"","eight letters and more":1}"#,
        ] {
            let config = format!(r#"{{"ociVersion":"1.0.0","unknown":{config}}}"#);
            assert!(spec(&config).unwrap_err().what().contains("duplicate key"), "{config}");
        }
        let many: String = (0..40).map(|n| format!("\"k{n}\":1,")).collect();
        assert!(spec(&format!(r#"{{{many}"ociVersion":"1.0.0"}}"#)).is_ok());
        assert!(spec(&format!(r#"{{{many}"k7":1,"ociVersion":"1.0.0"}}"#)).is_err());
    }

    #[test]
    fn what_repeats_in_different_objects_is_read_at_once() {
        for config in [
            r#"{"ociVersion":"1","a":[{"a":"a"},{"a":{"a":"\"a\":"}}],"b":{"a":1}}"#,
            "{\n\t\"ociVersion\" : \"1\" , \"x\":[ \"x\",\"x\" ,{ }, [ ] ]}",
        ] {
            assert!(at_once::<Spec>(config.as_bytes()).is_some(), "{config}");
        }
    }

    #[test]
    fn unknown_capabilities_warn_and_go() {
        let (spec, warnings) = spec(
            r#"{"ociVersion":"1.0.0","process":{"cwd":"/","capabilities":{"bounding":["CAP_FUTURE","CAP_KILL"]}}}"#,
        )
        .unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("CAP_FUTURE"));
        assert_eq!(process.user().uid(), 0);
    }

    #[test]
    fn hostile_json_ends_in_an_error() {
        for text in ["", "{", "[[[", "{\"a\":\u{0}}", "{} x", &"[".repeat(100_000)] {
            assert!(strict_json(text.as_bytes()).is_err());
        }
        assert!(strict_json(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_absent_pids_limit_is_no_limit() {
        let (spec, _) = spec(r#"{"ociVersion":"1.0.0","linux":{"resources":{"pids":{}}}}"#).unwrap();
        assert!(spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().is_none());
    }
}
